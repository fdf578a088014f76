/* One step as kernels see it, in device memory at an address that never changes: a captured graph reads its
 * counts and tables from here, so that replaying it needs no new argument. Uploaded before each forward pass.
 * Plain C for the host code, the kernels and the tests. */
#pragma once

#include <stdint.h>
#include "kernels/step.h"

/* The pointers are the device's. Where two steps are in flight, the second upload waits in stream order. */
struct cuda_step {
    uint32_t n_rows, n_seqs, n_outputs, n_copies;
    uint32_t blocks_per_seq; /* of a block table */
    const struct step_row *rows;
    const struct step_seq *seqs;
    const struct step_output *outputs;
    const struct step_copy *copies;
    const uint32_t *block_tables[STEP_KV_GROUPS_MAX]; /* each [n_seqs][blocks_per_seq] */
    struct step_result *results; /* [n_outputs]; may be host memory that the device maps */
};

/* Which rows an op covers. Grids are made for `max`; the kernel reads how many there are. */
enum cuda_count {
    CUDA_COUNT_ROWS,    /* step.n_rows */
    CUDA_COUNT_OUTPUTS, /* step.n_outputs - first, at most max */
};

struct cuda_rows {
    const struct cuda_step *step;
    uint32_t count; /* enum cuda_count */
    uint32_t first; /* first output of this pass through LM head and sampling */
    uint32_t max;
};
