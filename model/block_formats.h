/* Quantised tensors of GGUF files: blocks of values that share scales -> f32, or their codes. Layouts: ggml's
 * ggml-common.h and ggml-quants.c (dequantize_row_*); every product and sum is rounded to f32 in the order
 * written there. Pure functions. */
#pragma once

#include <stddef.h>
#include <stdint.h>
#include "kernels/kernels.h"

enum { BLOCK_VALUES_MAX = 256 };

/* The numbers of GGUF's tensor types that are read. */
enum block_type {
    BLOCK_Q4_0 = 2,
    BLOCK_Q4_1 = 3,
    BLOCK_Q5_0 = 6,
    BLOCK_Q5_1 = 7,
    BLOCK_Q8_0 = 8,
    BLOCK_Q4_K = 12,
    BLOCK_Q5_K = 13,
    BLOCK_Q6_K = 14,
};

/* One block, as many bytes and values as gguf_tensor_format says, to out. */
typedef void block_dequantize_fn(const uint8_t *block, float *out);
/* NULL for a type that is not one of the above. */
block_dequantize_fn *block_dequantize(uint32_t type);

/* What a block says: value i is codes[i] * (scale * scales[i / run]) - minimum * minimums[i / run]. */
struct block_codes {
    int8_t *codes;        /* [values]; signed and symmetric, or from 0 where there are minimums */
    float scale, minimum; /* f16 numbers; minimum 0 where the type has none */
    int8_t scales[BLOCK_VALUES_MAX / 16];    /* Q6_K: runs of 16; Q4_K and Q5_K: of 32, 0..63; others: 1 */
    uint8_t minimums[BLOCK_VALUES_MAX / 32]; /* runs of 32; Q4_K and Q5_K: 0..63; others: 1 */
};

/* One block to its codes; out->codes is the caller's. type: one of the above but Q4_0, whose blocks are taken
 * as they are (weight_blocks.h). */
void block_split(uint32_t type, const uint8_t *block, struct block_codes *out);
/* The same of n blocks that stand side by side, into what a backend takes: a block is a group. */
void block_split_row(uint32_t type, const uint8_t *blocks, size_t n, const struct weight_codes *out);
