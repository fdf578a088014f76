/* The work list of a step's attention (attention_kernels.h): which rows are computed together, by which
 * splits, by which of the two kernels. Any list gives the same bits; this is about reading keys once and
 * about filling the card.
 *
 * Sequences with few rows (decode) are cut into their splits, an item each; for the kernels by streams they
 * are an item as a whole, unless they share splits or are much longer than the others. Whole splits that
 * several of them have in common at the beginning of their block tables become one item for all their rows.
 * Sequences with more rows (prefill) become items of as many rows as a block takes by all splits, and are cut
 * into splits as well where a step is too small to fill the card. Where partial results run out, an item
 * takes all splits of its rows; it is a large one then, unless there is but one split. */
#pragma once

#include <stdbool.h>
#include "kernels/cuda/cuda_kernels.h"
#include "kernels/step.h"

struct attention_limits {
    uint32_t heads_per_kv, n_kv_heads;
    uint32_t large_pairs;   /* (row, head) pairs that a block of the kernel of large items has */
    uint32_t n_partials;    /* partial results that there is memory for */
    uint32_t blocks_wanted; /* pieces of work below which prefill is cut into splits */
    uint32_t cut_splits;    /* splits of a sequence of which that is true, at least */
    uint32_t warps;         /* by streams, that the card holds at once; 0: small items have one split */
    bool shares_prefixes;   /* whether common splits are looked for */
};

/* Partial results that a row at that position may need. */
static inline uint32_t attention_row_splits(uint32_t position)
{
    return position / CUDA_KV_SPLIT_TOKENS + 1;
}

/* Whether a sequence with so many rows goes to the small kernel. */
bool attention_is_small(const struct attention_limits *limits, uint32_t n_rows);

/* By streams: pieces of work that a row has, by the same splits; and how many warps share a piece, so that
 * all are there at once. */
size_t attention_row_pieces(const struct attention_limits *limits);
uint32_t attention_team(size_t n_pieces, size_t warps);

/* Bytes of the largest step's work. The planner works in what a step leaves over of them. */
size_t attention_work_bytes(const struct attention_limits *limits, const struct step_capacity *capacity);

/* Writes the step's work, [attention_work_bytes]; returns the bytes in use. */
size_t attention_plan(const struct attention_limits *limits, const struct step *step,
                      struct attention_work *work);

/* STREAMS and SMALL take the small items: STREAMS from some sequences on, LONG_STREAMS where fewer warps do,
 * SMALL is done earlier with few. LARGE takes the others, or WGMMA on sm_90. */
enum attention_size {
    ATTENTION_STREAMS,
    ATTENTION_LONG_STREAMS,
    ATTENTION_SMALL,
    ATTENTION_LARGE,
    ATTENTION_WGMMA,
    ATTENTION_SIZES
};

/* A kernel of attention_kernels.h and how it is launched. */
struct attention_kernel {
    enum cuda_kernel_id id;
    uint32_t head_dim, element_bytes;
    enum attention_size size;
    uint32_t threads, shared_bytes;
    uint32_t pairs;  /* (row, head) pairs of an item that it computes at once */
    uint32_t units;  /* items that a block computes at once */
    uint32_t blocks; /* that the registers of a multiprocessor hold */
};
/* NULL: none for that shape. SMALL and LARGE are there for the same shapes, the others for some of them;
 * the simple kernel takes every one. */
const struct attention_kernel *attention_kernel_find(uint32_t head_dim, uint32_t element_bytes,
                                                     enum attention_size size);
