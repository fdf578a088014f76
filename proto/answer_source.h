/* Who answered, kept beyond the event that told it. */
#pragma once

#include "api/event.h"

enum { ANSWER_SOURCE_TEXT_BYTES_MAX = 256 }; /* of each text; what is longer is cut off between characters */

/* A copy in one block, for mem_free; NULL without memory. */
struct answer_source *answer_source_copy(const struct answer_source *source);

/* A decimal number of dollars without a sign or needless zeros, "0.0015"; "" for a cost that is not known. */
enum { ANSWER_COST_BYTES = 32 };
void answer_cost_format(int64_t cost_nanodollars, char out[ANSWER_COST_BYTES]);
