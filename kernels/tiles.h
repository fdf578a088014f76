/* The arithmetic of a machine with tile products (Intel AMX): what its kernels of linear layers and attention
 * compute, to the bit, and how they are called. kernel_types.h tells the arithmetic of every other machine;
 * which of the two a backend has is its table's choice (kernel_table.h), for all rows alike. The format of a
 * weight alone says how:
 *
 * In bf16 (bf16 weights; int8, int4 and uint4 whose groups are no multiple of WIDE_BLOCK; int5, k4, k5, k6):
 * weights are (code - zero point) * scale, exact in f32, of k4 and k5 code * scale - minimum, rounded once to
 * f32, scale and minimum being the group's times the block's integers; then rounded to bf16. Activations are
 * rounded to bf16. Per block of TILE_INPUTS inputs, two chains of
 * fused multiply-adds from zero, over the even and the odd inputs in ascending order; their sum is added to
 * the output's. Past n_in the block is zeros. Each operation rounds to nearest even, takes subnormal operands
 * as zeros and gives zeros for subnormal results: TDPBF16PS of Intel's manual (vol. 2, TDPBF16PS).
 *
 * In int8 (int8, int4 and uint4 in groups of a multiple of WIDE_BLOCK): activations as quantize_row, per
 * WIDE_BLOCK; the exact integer dot product of a block, converted to f32; one chain over blocks of integer *
 * (activation scale * weight scale).
 *
 * f32 and f16 weights are computed as on other machines. At the end times scale, + bias, each where there is
 * one.
 *
 * Attention over bf16 and int8 KV; over f32 KV it is that of kernel_types.h, and so are the KV's layout, the
 * chunks and how they are merged. Queries are rounded to bf16. Per chunk of a query, in this order: the
 * scores of the visible tokens, in bf16 as above with the head's dimensions as inputs (int8: times the
 * token's scale of K), times scale, soft cap. m = the greatest. p = exp(score - m), which bf16 KV rounds to
 * bf16; l = sum of p in LANES. o, in bf16 as above with the chunk's tokens as inputs, of which those that are
 * not visible have p = 0 and v = 0; int8: p times the token's scale of V, rounded to bf16, stands for p
 * there. o + 0: a zero has no sign. What a query does not see changes nothing, as long as its V is finite:
 * bf16 KV holds no other (cpu_kv.c).
 */
#pragma once

#include <stdbool.h>
#include "kernels/kernel_types.h"

enum {
    TILE_INPUTS = 32, /* of one product in bf16 */
    WIDE_BLOCK = 128, /* inputs that share one activation scale */
    /* Inputs of a panel that a kernel expands before it multiplies: for one tile of rows they stay in the
       first-level cache, beyond that in the second. */
    EXPAND_INPUTS_FEW = 256,
    EXPAND_INPUTS = 1024,
    TILE_SCRATCH_BYTES = PANEL_OUTPUTS * EXPAND_INPUTS * 2,
    TILE_QUERIES_MAX = 32, /* that one call of attention serves, instead of ATTENTION_QUERIES_MAX */
    /* Of a query's scores and probabilities of a chunk: not a power of two apart. */
    TILE_SCORE_STRIDE = ATTENTION_CHUNK_TOKENS + LANES,
    TILE_P_STRIDE = ATTENTION_CHUNK_TOKENS + TILE_INPUTS,
};

/* How a weight is multiplied, and so the form that activations take for it. */
enum act_form {
    ACT_FLOAT, /* as they are */
    ACT_INT8,  /* quantize_row */
    ACT_BF16,  /* round_row */
    ACT_WIDE,  /* quantize_wide_row */
};

struct tile_args {
    const void *panel; /* packed.h; 64-byte aligned */
    size_t n_in, group;
    /* The inputs [first_in, last_in) of the sums: multiples of EXPAND_INPUTS, last_in also n_in. Where
     * first_in > 0, out holds what the call up to there left; scale and bias belong to the last call. */
    size_t first_in, last_in;
    size_t n_rows;
    /* In bf16. */
    const uint16_t *x; /* [n_rows][n_in rounded up to TILE_INPUTS], zeros past n_in */
    size_t x_stride;
    const float *scale; /* [32] or NULL */
    /* In int8. */
    const int8_t *q; /* [n_rows][n_in] */
    size_t q_stride;
    const float *q_scale; /* [n_rows][n_in / WIDE_BLOCK] */
    size_t q_block_stride;
    const float *bias; /* [32] or NULL */
    uint8_t *scratch;  /* [TILE_SCRATCH_BYTES], 64-byte aligned */
    float *out;        /* [n_rows][n_out] */
    size_t out_stride; /* floats */
    size_t n_out;      /* 1..32 */
};
typedef void tile_fn(const struct tile_args *args);

/* out[i] = x[i] in bf16 to nearest even, a zero of its sign where x[i] is subnormal; zeros up to the next
 * multiple of TILE_INPUTS. */
typedef void round_row_fn(const float *x, size_t n, uint16_t *out);

/* As quantize_row_fn in blocks of WIDE_BLOCK, without sums. n: a multiple of WIDE_BLOCK. */
typedef void quantize_wide_fn(const float *x, size_t n, int8_t *q, float *scale);

/* The scratch of attention: of each query q and p in bf16, its scores, o of a chunk and of all; two blocks of
 * K or 32 dimensions of a chunk of V as tiles. */
static inline size_t attention_tile_scratch_floats(size_t head_dim)
{
    const size_t inputs = round_up(head_dim, TILE_INPUTS), k_floats = inputs * TILE_INPUTS / 2,
                 v_floats = ATTENTION_CHUNK_TOKENS * TILE_INPUTS / 2;
    return TILE_QUERIES_MAX *
               (inputs / 2 + TILE_P_STRIDE / 2 + TILE_SCORE_STRIDE + 2 * round_up(head_dim, LANES)) +
           (k_floats > v_floats ? k_floats : v_floats);
}

/* Where group `index` of a panel begins. */
static inline const uint8_t *panel_group(const struct tile_args *a, enum weight_format format, size_t index)
{
    return (const uint8_t *)a->panel + index * panel_bytes(format, a->group, a->group);
}

/* Where the block that begins with input k does. */
static inline const uint8_t *panel_block(const struct tile_args *a, enum weight_format format, size_t k)
{
    return panel_group(a, format, k / a->group) + group_header_bytes(format) +
           k % a->group / QUANT_BLOCK * quant_block_bytes(format);
}
