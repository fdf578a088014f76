/* The kernels behind the CPU backend: what each computes, to the bit, and how it is called. A kernel works on
 * one piece (a panel, a row, the queries of one KV head) and is called by any thread; pieces are the
 * backend's business. Every instruction set gives the same bits as kernels/ref/, which is plain C and the
 * truth; "chain" below means fused multiply-adds in ascending order, starting from zero. No kernel allocates.
 * Pointers need no alignment beyond their type unless said. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "kernels/packed.h"

enum {
    LANES = 16, /* of every sum across a row: lane i adds the elements i, i + 16, ..; then lanes are added
                   pairwise: 0 + 8 .. 7 + 15, then 0 + 4 .., 0 + 2, 0 + 1 */
    KV_BLOCK_TOKENS = 16,
    ATTENTION_QUERIES_MAX = 16,  /* that one call serves, but for tiles */
    ATTENTION_CHUNK_BLOCKS = 16, /* see attention below */
    ATTENTION_CHUNK_TOKENS = ATTENTION_CHUNK_BLOCKS * KV_BLOCK_TOKENS,
    ATTENTION_PARTIAL_LEAD = LANES,
    HEAD_DIM_MAX = 512,
    /* exp_sum adds chunks of this many elements in lanes, then the chunks one after the other in f64. */
    EXP_SUM_CHUNK = 1024,
};

/* 32 inputs of one row of activations. */
struct quant_block {
    int8_t q[QUANT_BLOCK];
    float scale;
    /* -8 times the sum of the codes, and of the first 16 of them. Products with int4, whose codes have an
     * offset of 8, begin with the first; those of other offsets with multiples. */
    int32_t minus_8_sum, minus_8_low;
    float total; /* scale * sum of the codes */
};

static inline int32_t quant_block_sum(const struct quant_block *x)
{
    return x->minus_8_sum / -8;
}

/* The same blocks of so many rows stand together: a kernel finds all that it multiplies by a block of weights
 * at fixed offsets from one address. */
enum { QUANT_TILE_ROWS = 12 };

/* Where block 0 of a row stands, and QUANT_TILE_ROWS further on each next one. */
static inline size_t quant_row_offset(size_t row, size_t tile_stride)
{
    return row / QUANT_TILE_ROWS * tile_stride + row % QUANT_TILE_ROWS;
}

/* out[r][o] = sum over k of w[o][k] * x[r][k], + bias[o]. Float formats: one chain over k, weights widened to
 * f32; its end times scale[o], where there are scales. Quantised formats: per block of 32 inputs the exact
 * integer dot product of the codes (uint4: less their zero point), converted to f32; one chain over blocks of
 * integer * (activation scale * weight scale). k4 and k5: weight scale and minimum are those of the group
 * times the block's integers (exact in f32), and the chain takes for each block also -minimum * total. k6:
 * the integer is the sum of two dot products over 16 inputs, each times its block scale: below 2^24. */
struct linear_args {
    const void *panel; /* packed.h; 64-byte aligned */
    size_t n_in;
    size_t group; /* quantised formats */
    size_t n_rows;
    /* Float formats. */
    const float *x; /* [n_rows][n_in], rows x_stride floats apart */
    size_t x_stride;
    const float *scale; /* [32] or NULL */
    /* Quantised formats: [n_rows / QUANT_TILE_ROWS][n_in / 32][QUANT_TILE_ROWS], tiles q_tile_stride blocks
     * apart. The rows that the last tile lacks may be read and change nothing. */
    const struct quant_block *q;
    size_t q_tile_stride;
    const float *bias; /* [32] or NULL */
    float *out;        /* [n_rows][n_out] */
    size_t out_stride; /* floats */
    size_t n_out;      /* 1..32: outputs of this panel that exist */
};
typedef void linear_fn(const struct linear_args *args);

/* One row of activations to int8, per block of 32: scale = amax / 127, code = round_to_even(x * (127 /
 * amax)). A block whose amax is below QUANT_AMAX_MIN has scale 0 and codes 0, one with a NaN or infinity
 * scale NaN. Block b goes to out[b * stride]. */
#define QUANT_AMAX_MIN 1e-30f
typedef void quantize_row_fn(const float *x, size_t n, struct quant_block *out, size_t stride);

/* K or V of one token and KV head to int8: scale = amax / 127 as bf16, code = round_to_even(x * (1 / scale)),
 * whose magnitude is 127 at most. Scale and codes are 0 where amax is below QUANT_AMAX_MIN, the scale is NaN
 * and the codes 0 where an x is NaN or infinite. Returns the scale. x: [n]; codes: [n rounded up to LANES],
 * zeros behind n. */
typedef uint16_t quantize_kv_fn(const float *x, size_t n, int8_t *codes);

/* One group of a weight's inputs to symmetric codes; returns the scale, an f16. w: [n] finite, n a multiple
 * of
 * 32. int8, codes -127..127: scale = amax / 127. int4, codes -8..7: of a few scales around the one that maps
 * the largest weight to -8 or 7, and the one that is optimal for the codes found so, that with the least
 * squared error. */
typedef uint16_t quantize_group_fn(const float *w, size_t n, int8_t *codes);

/* norm(x, w) = x * (1 / sqrt(mean of squares + eps)) * w, the sum of squares in LANES. residual += add, or
 * norm(add, add_weight) where that is given (add NULL: nothing); out = norm(residual, weight). out and add
 * may be residual. */
struct norm_args {
    float *residual;         /* [n] */
    const float *add;        /* [n] or NULL */
    const float *add_weight; /* [n] or NULL */
    const float *weight;
    size_t n;
    float eps;
    float *out; /* [n] */
};
typedef void norm_row_fn(const struct norm_args *args);

/* Rotates the pairs (x[i], x[i + n_freq]): x0 * c - x1 * s (as fma(-x1, s, x0 * c)), x1 * c + x0 * s (as
 * fma(x0, s, x1 * c)). */
typedef void rope_head_fn(float *x, const float *cosines, const float *sines, size_t n_freq);

/* out[i] = activation(gate[i]) * up[i]. SiLU: g / (1 + exp(-g)). GELU-tanh: g / (1 + exp(-2 z)), z = sqrt(2 /
 * pi) * (g + 0.044715 g^3), which is 0.5 g (1 + tanh z). */
typedef void activation_row_fn(const float *gate, const float *up, size_t n, float *out);

/* x[i] = cap * tanh(x[i] / cap). */
typedef void soft_cap_row_fn(float *x, size_t n, float cap);

/* Attention of some queries, all of one KV head; by tiles tiles.h says what is computed. A layer's KV:
 * [block][kv_head] { K [head_dim][16 tokens], V [16 tokens][head_dim rounded up to 16] }. Per block in
 * ascending order: score = chain over d of q[d] * k[d], * scale, soft cap; m' = max(m, visible scores); p =
 * exp(score - m'); a = exp(m - m'); l = fma(l, a, sum of p in LANES); o = o * a, then the chain o + p * v
 * over the visible tokens.
 *
 * Each chunk of ATTENTION_CHUNK_BLOCKS blocks, counted from position 0, has an m, l and o of its own; those
 * of which a query sees something are merged in ascending order, from the first one's M, L, O: M' = max(M,
 * m); A = exp(M - M'); a = exp(m - M'); L = fma(L, A, l * a); O = fma(O, A, o * a). At the end O / L.
 *
 * int8: before its K a head has the scales of its tokens in a block, K's and then V's, bf16 [2][16]; k and v
 * are the codes. The chain of a score times the token's scale of K is what goes on; in the chain of o, p
 * times its scale of V stands for p. So a code is only ever widened. */
struct attention_query {
    const float *q;              /* [head_dim] */
    float *out;                  /* [head_dim] */
    const uint32_t *block_table; /* of its sequence, whose queries stand together */
    uint32_t first, last;        /* positions that it sees, inclusive */
};
struct attention_args {
    const void *kv; /* of the layer; 64-byte aligned */
    uint32_t kv_head, n_kv_heads, head_dim;
    float scale, soft_cap; /* soft_cap 0 = off */
    bool ahead_is_near; /* the next block is asked for into the first-level cache, not the second; no bits */
    const struct attention_query *queries; /* [n_queries] */
    uint32_t n_queries;                    /* 1..ATTENTION_QUERIES_MAX, by tiles TILE_QUERIES_MAX */
    /* Blocks with which all the tables begin: they are read for all sequences at once. 0 for one sequence. */
    uint32_t n_shared;
    float *scratch; /* 64-byte aligned, [attention_scratch_floats(head_dim)], by tiles
                       [attention_tile_scratch_floats(head_dim)] */
    /* NULL = everything that the queries see, to their out. Else chunks [first_chunk, end_chunk) alone, each
     * to a place of its own: [chunk - first_chunk][n_queries][attention_partial_floats(head_dim)], m, l and
     * from ATTENTION_PARTIAL_LEAD on o. Places of chunks that a query sees nothing of stay as they are. */
    float *partials;
    uint32_t first_chunk, end_chunk;
};
typedef void attention_fn(const struct attention_args *args);

/* Of one query: the chunks that it sees something of, stride floats apart, merged as above. */
struct attention_merge_args {
    const float *partials;
    size_t stride;
    uint32_t n_chunks, head_dim;
    float *total; /* [head_dim rounded up to LANES], scratch */
    float *out;   /* [head_dim] */
};
typedef void attention_merge_fn(const struct attention_merge_args *args);

/* Of each query p and two o; and q and p once more, all queries side by side. */
static inline size_t attention_scratch_floats(size_t head_dim)
{
    return ATTENTION_QUERIES_MAX * (3 * round_up(head_dim, LANES) + 2 * KV_BLOCK_TOKENS);
}

static inline size_t attention_partial_floats(size_t head_dim)
{
    return ATTENTION_PARTIAL_LEAD + round_up(head_dim, LANES);
}

/* Elements of K and V of one head in one block. */
static inline size_t kv_head_elements(size_t head_dim)
{
    return KV_BLOCK_TOKENS * (head_dim + round_up(head_dim, LANES));
}

/* What stands before them, and from one head to the next, in elements too. */
static inline size_t kv_head_lead(enum kv_dtype dtype)
{
    return dtype == KV_INT8 ? 2 * KV_BLOCK_TOKENS * sizeof(uint16_t) : 0;
}

static inline size_t kv_head_stride(enum kv_dtype dtype, size_t head_dim)
{
    return kv_head_lead(dtype) + kv_head_elements(head_dim);
}

/* ---- Sampling: over the f32 logits x[0, n) of one output ---- */

struct logits_stats {
    float max;         /* of x; -inf when n == 0 */
    uint32_t argmax;   /* lowest index that has it */
    bool is_malformed; /* a NaN or +inf was seen; max and argmax are then unspecified */
};
typedef struct logits_stats logits_stats_fn(const float *x, size_t n);

/* Sum of exp(x[i] - max): per chunk of EXP_SUM_CHUNK in LANES, f32; the chunks in f64. */
typedef double exp_sum_fn(const float *x, size_t n, float max);

/* out[i] = exp(x[i]); out may be x. */
typedef void exp_row_fn(const float *x, size_t n, float *out);

/* Elements greater than value. */
typedef size_t count_above_fn(const float *x, size_t n, float value);

/* Appends (value, index) of every x[i] >= cut in ascending order of index; returns their number. values and
 * ids have room for n. */
typedef size_t select_from_fn(const float *x, size_t n, float cut, float *values, uint32_t *ids);

/* x[i] = (x[i] - max) / temperature. */
typedef void temper_fn(float *x, size_t n, float max, float temperature);

/* Gumbel-max over the whole row: the index with the greatest x[i] + gumbel(key, position, purpose, i), lowest
 * index on ties (see ref/math_ref.h for the draw). */
struct gumbel_key {
    uint64_t key;
    uint32_t position, purpose;
};
typedef uint32_t gumbel_argmax_fn(const float *x, size_t n, struct gumbel_key key);
