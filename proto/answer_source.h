/* Who answered, kept beyond the event that told it. */
#pragma once

#include "api/event.h"

enum { ANSWER_SOURCE_TEXT_BYTES_MAX = 256 }; /* of each text; what is longer is cut off between characters */

/* A copy in one block, for mem_free; NULL without memory. */
struct answer_source *answer_source_copy(const struct answer_source *source);

/* A decimal number of dollars without a sign or needless zeros, "0.0015"; "" for a cost that is not known. */
enum { ANSWER_COST_BYTES = 32 };
void answer_cost_format(int64_t cost_nanodollars, char out[ANSWER_COST_BYTES]);

/* What HTTP's headers and gRPC's metadata say of it, under the same names. A text is "" where there is
 * nothing to say; it is the source's or in this struct, which therefore stays where it is. */
enum { ANSWER_SOURCE_ROWS = 10 };
struct answer_source_rows {
    char cost[ANSWER_COST_BYTES], attempts[16];
    struct answer_source_row {
        const char *name, *text;
    } rows[ANSWER_SOURCE_ROWS];
};
void answer_source_list(const struct answer_source *source, struct answer_source_rows *out);
