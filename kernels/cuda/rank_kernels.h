/* Tensor parallel: what is done with the parts that the ranks gathered from each other. */
#pragma once

#include <stdint.h>
#include "kernels/cuda/cuda_step.h"

#define CUDA_RANK_KERNELS(K)                                                                                 \
    K(sum_ranks_f32, struct sum_ranks_args, "sum of all ranks' rows, in rank order, f32")                    \
    K(sum_ranks_bf16, struct sum_ranks_args, "sum of all ranks' rows, in rank order, bf16, added in f32")    \
    K(join_ranks, struct join_ranks_args, "all ranks' parts of the logits side by side")

/* out[r][i] = gathered[0][r][i] + gathered[1][r][i] + ..., rounded once. A block takes RANK_PIECE elements of
 * a row: grid (rows, pieces), RANK_THREADS. */
enum { RANK_THREADS = 128, RANK_PIECE = 1024 };
struct sum_ranks_args {
    struct cuda_rows rows;
    const void *gathered; /* [n_ranks][rows.max][stride] */
    void *out;            /* [rows.max][stride] */
    uint32_t n_ranks, stride, width;
};

/* whole[r][k * part_width + i] = gathered[k][r][i]. Grid (rows, pieces of a part, n_ranks). */
struct join_ranks_args {
    struct cuda_rows rows;
    const float *gathered; /* [n_ranks][rows.max][part_stride] */
    float *whole;          /* [rows.max][whole_stride] */
    uint32_t part_stride, part_width, whole_stride;
};
