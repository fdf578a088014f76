/* Which linear layers a library's product serves, and from how many rows on.
 *
 * Batch-invariant, as is the default: a shape only at the numbers of rows at which a check on that card, with
 * that version of the library, found every row bit-equal to that of our own kernel (product_table.c; `bantam
 * bench products` is the check). Else every shape that the library takes, from PRODUCT_ROWS_MIN_* rows on: a
 * row's bits then hang on how many rows its step has. Pure functions. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

enum product_kind {
    PRODUCT_BF16, /* bf16 by bf16 */
    PRODUCT_E4M3, /* e4m3 by e4m3, a scale per output and a scale per row (sm_90) */
};
const char *product_kind_name(enum product_kind kind); /* "bf16", "fp8" */

/* Without batch invariance fewer rows are ours too: weights are then read at the memory's speed, and products
 * cost nothing. Packed e4m3 codes must be laid out anew for a library, which many rows alone pay for. What an
 * H200 said of an 8B Llama (benchmarks/results): in bf16 a layer at 256 rows took 168 us by the library and
 * 278 by ours. In e4m3 828 and 766 at 2,048, where ours serves; steps of 8,192 rows, a prefill, were 8 %
 * faster by the library. Between them nothing was measured since ours became faster: computed from what came
 * before, they meet at about 4,096, so that the library begins where it was seen to win. */
enum { PRODUCT_ROWS_MIN_BF16 = 256, PRODUCT_ROWS_MIN_E4M3 = 8192 };
/* n_out and n_in are multiples of it: rows of 16 bytes in both types. */
enum { PRODUCT_SHAPE_ALIGN = 16 };

/* What the check found equal on a card. */
struct product_entry {
    const char *card; /* as its driver names it; NULL ends the table */
    uint32_t library_version;
    enum product_kind kind;
    uint32_t n_out, n_in;
    uint32_t rows_min, rows_max;
};

struct product_rows {
    uint32_t min, max; /* max 0 = the library does not serve the shape */
};

struct product_policy {
    bool batch_variant;                /* --no-batch-invariant */
    uint32_t rows_min;                 /* with it; 0 = PRODUCT_ROWS_MIN_* */
    const struct product_entry *table; /* without it */
    const char *card;
    uint32_t capability; /* 90 for 9.0 */
    uint32_t library_version;
};

/* Whether the library can serve anything: else nobody has to look for it. The version does not count. */
bool product_policy_wants(const struct product_policy *policy);
/* Rows from which on, without batch invariance. */
uint32_t product_policy_rows_min(const struct product_policy *policy, enum product_kind kind);
/* has_bias: a library adds it after rounding, we before: such a layer is ours. */
struct product_rows product_policy_rows(const struct product_policy *policy, enum product_kind kind,
                                        uint32_t n_out, uint32_t n_in, bool has_bias);

/* Committed entries; the library that the backend is linked into has one. */
extern const struct product_entry product_table[];
