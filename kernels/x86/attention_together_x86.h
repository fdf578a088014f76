/* Paged attention of more queries than QUERY_TILE, all of a call at once, where QUERIES_TOGETHER is defined:
 * thirty-two registers hold sixteen queries' sums, which share a read of K and V. Once the scores are there
 * the queries stand in the lanes, so that the softmax neither adds nor compares across lanes and has no
 * branch for a single query. Every query's operations and their order are those of attention_x86.h. */
#pragma once

#include "kernels/x86/attention_query_x86.h"

#if defined(QUERIES_TOGETHER)

struct together {
    float *q;         /* [head_dim][16] */
    float *p;         /* [KV_BLOCK_TOKENS][16] probabilities of the block, times scales of V */
    float *max, *sum; /* [16] */
    uint32_t n_queries;
    uint32_t first, last; /* positions that all queries see, inclusive */
};

/* Queries that there are not are zeros. */
static inline void gather_queries(const struct attention_args *a, const struct together *all)
{
    for (size_t d = 0; d < a->head_dim; d += LANES) {
        const size_t n = a->head_dim - d < LANES ? a->head_dim - d : LANES;
        vf x[LANES];
#pragma GCC unroll 16
        for (uint32_t i = 0; i < LANES; i++)
            x[i] = i < a->n_queries ? vf_load_first(a->queries[i].q + d, n) : vf_zero();
        vf_transpose(x);
#pragma GCC unroll 16
        for (size_t k = 0; k < LANES; k++) {
            if (k < n)
                vf_store(all->q + (d + k) * LANES, x[k]);
        }
    }
}

/* Raw dot products: of token t in x[t], queries in the lanes. */
static inline __attribute__((always_inline)) void score_together(const struct attention_args *a, size_t k0,
                                                                 const enum kv_dtype DTYPE, size_t ahead,
                                                                 const struct together *all, vf x[LANES])
{
#pragma GCC unroll 16
    for (int i = 0; i < LANES; i++)
        x[i] = vf_zero();
    for (size_t d = 0; d < a->head_dim; d++) {
        const float *q = all->q + d * LANES;
        if (DTYPE != KV_INT8 || d % 4 == 0)
            prefetch_kv(a, k0 + d * KV_BLOCK_TOKENS, ahead, DTYPE);
        vf k = load_kv(a->kv, k0 + d * KV_BLOCK_TOKENS, DTYPE);
#pragma GCC unroll 16
        for (int i = 0; i < LANES; i++)
            x[i] = vf_fma(vf_set1(q[i]), k, x[i]);
    }
    vf_transpose(x);
}

/* Long, and of few models: not unrolled. */
static __attribute__((noinline)) void cap_together(float soft_cap, vf x[LANES])
{
    vf cap = vf_set1(soft_cap);
    for (int t = 0; t < LANES; t++)
        x[t] = vf_mul(cap, vf_tanh(vf_div(x[t], cap)));
}

/* As softmax_block. WHOLE: all see the whole block. */
static inline __attribute__((always_inline)) void
softmax_together(const struct attention_args *a, size_t k0, size_t d_stride, const enum kv_dtype DTYPE,
                 const bool WHOLE, const struct together *all, const struct query_state *states, vf x[LANES])
{
    const uint16_t *scales = DTYPE == KV_INT8 ? kv_scales(a->kv, k0) : NULL;
#pragma GCC unroll 16
    for (int t = 0; t < LANES; t++) {
        if (DTYPE == KV_INT8)
            x[t] = vf_mul(x[t], vf_set1(bf16_to_f32(scales[t])));
        x[t] = vf_mul(x[t], vf_set1(a->scale));
    }
    if (a->soft_cap > 0)
        cap_together(a->soft_cap, x);
    if (!WHOLE) {
        uint32_t begins[LANES], ends[LANES];
        for (uint32_t i = 0; i < LANES; i++) {
            begins[i] = i < a->n_queries ? states[i].t0 : 0;
            ends[i] = i < a->n_queries ? states[i].t1 : KV_BLOCK_TOKENS;
        }
        vi t0 = vi_load(begins), t1 = vi_load(ends);
#pragma GCC unroll 16
        for (uint32_t t = 0; t < LANES; t++)
            x[t] = vf_select(vm_and(vi_less(vi_set1(t), t1), vi_less(t0, vi_set1(t + 1))), x[t],
                             vf_set1(-INFINITY));
    }
    vf block_max = x[0], old = vf_load(all->max);
#pragma GCC unroll 16
    for (int t = 1; t < LANES; t++)
        block_max = vf_max(block_max, x[t]);
    vf max = vf_select(vf_greater(block_max, old), block_max, old);
#pragma GCC unroll 16
    for (int t = 0; t < LANES; t++) {
        x[t] = vf_exp(vf_sub(x[t], max));
        vf_store(all->p + t * LANES,
                 DTYPE == KV_INT8 ? vf_mul(x[t], vf_set1(bf16_to_f32(scales[KV_BLOCK_TOKENS + t]))) : x[t]);
    }
#pragma GCC unroll 4
    for (int n = LANES / 2; n > 0; n /= 2) { /* as vf_sum */
#pragma GCC unroll 8
        for (int t = 0; t < n; t++)
            x[t] = vf_add(x[t], x[t + n]);
    }
    vf one = vf_set1(1.0f), rise = vf_sub(old, max);
    /* The rise is 0, or this is a chunk's first block. */
    vm stays = vm_or(vf_not_less(rise, vf_zero()), vf_not_less(vf_set1(-INFINITY), old));
    vf decays = vf_select(stays, one, vf_exp(rise));
    vf_store(all->max, max);
    vf_store(all->sum, vf_fma(vf_load(all->sum), decays, x[0]));
    uint32_t falls = ~vm_bits(stays) & vm_bits(vm_first(a->n_queries));
    if (falls != 0) {
        float decay[LANES];
        vf_store(decay, decays);
        for (; falls != 0; falls &= falls - 1) {
            int i = __builtin_ctz(falls);
            decay_outputs(&states[i], decay[i], d_stride);
        }
    }
}

/* As value_tile, of queries [first, first + N) and tokens [t0, t1). */
static inline __attribute__((always_inline)) void
value_together(const struct attention_args *a, uint32_t first, const int N, uint32_t t0, uint32_t t1,
               size_t v0, size_t d_stride, const enum kv_dtype DTYPE, size_t ahead,
               const struct together *all, const struct query_state *states)
{
    for (size_t d = 0; d < d_stride; d += LANES) {
        vf o[LANES];
#pragma GCC unroll 16
        for (int i = 0; i < N; i++)
            o[i] = vf_load(states[first + (uint32_t)i].o + d);
        for (uint32_t t = t0; t < t1; t++) {
            const float *p = all->p + t * LANES + first;
            if (DTYPE != KV_INT8 || d % 64 == 0)
                prefetch_kv(a, v0 + t * d_stride + d, ahead, DTYPE);
            vf v = load_kv(a->kv, v0 + t * d_stride + d, DTYPE);
#pragma GCC unroll 16
            for (int i = 0; i < N; i++)
                o[i] = vf_fma(vf_set1(p[i]), v, o[i]);
        }
#pragma GCC unroll 16
        for (int i = 0; i < N; i++)
            vf_store(states[first + (uint32_t)i].o + d, o[i]);
    }
}

#define VALUE_CASE(N)                                                                                        \
    case N:                                                                                                  \
        value_together(a, i, N, t0, t1, v0, d_stride, DTYPE, ahead, all, states);                            \
        break;

static inline __attribute__((always_inline)) void
attend_together(const struct attention_args *a, size_t k0, const enum kv_dtype DTYPE, size_t ahead,
                const bool WHOLE, const struct together *all, const struct query_state *states)
{
    const size_t d_stride = round_up(a->head_dim, LANES);
    const size_t v0 = k0 + (size_t)a->head_dim * KV_BLOCK_TOKENS;
    vf x[LANES];
    score_together(a, k0, DTYPE, ahead, all, x);
    softmax_together(a, k0, d_stride, DTYPE, WHOLE, all, states, x);
    for (uint32_t i = 0, n; i < a->n_queries; i += n) {
        const uint32_t t0 = WHOLE ? 0 : states[i].t0, t1 = WHOLE ? KV_BLOCK_TOKENS : states[i].t1;
        n = a->n_queries - i;
        for (uint32_t k = 1; !WHOLE && k < n; k++) {
            if (states[i + k].t0 != t0 || states[i + k].t1 != t1)
                n = k;
        }
        n = n == LANES ? LANES : tile_of(n);
        switch (n) {
            VALUE_CASE(16)
            VALUE_CASE(8)
            VALUE_CASE(4)
            VALUE_CASE(2)
            VALUE_CASE(1)
        }
    }
}

/* Prepares what the two below need; whether there are enough queries for them. max, sum: [16], of all. */
static inline bool stand_together(const struct attention_args *a, float *max, float *sum,
                                  struct together *all)
{
    if (a->n_queries <= QUERY_TILE)
        return false;
    float *q = a->scratch + ATTENTION_QUERIES_MAX * (2 * round_up(a->head_dim, LANES) + KV_BLOCK_TOKENS);
    *all = (struct together){.q = q,
                             .p = q + a->head_dim * LANES,
                             .max = max,
                             .sum = sum,
                             .n_queries = a->n_queries,
                             .first = 0,
                             .last = UINT32_MAX};
    for (uint32_t i = 0; i < a->n_queries; i++) {
        all->first = a->queries[i].first > all->first ? a->queries[i].first : all->first;
        all->last = a->queries[i].last < all->last ? a->queries[i].last : all->last;
    }
    gather_queries(a, all);
    return true;
}

/* Whether all queries see the whole of a block and saw something of the one before, in the same chunk. */
static inline bool all_see_on(const struct together *all, const struct query_run *run, uint32_t block)
{
    uint32_t start = block * KV_BLOCK_TOKENS;
    return run->end - run->begin == all->n_queries && block > run->first_block &&
           block % ATTENTION_CHUNK_BLOCKS != 0 && all->first < start &&
           all->last >= start + KV_BLOCK_TOKENS - 1;
}

#else

struct together {
    uint32_t nothing;
};

static inline bool stand_together(const struct attention_args *a, float *max, float *sum,
                                  struct together *all)
{
    (void)a, (void)max, (void)sum, (void)all;
    return false;
}

static inline bool all_see_on(const struct together *all, const struct query_run *run, uint32_t block)
{
    (void)all, (void)run, (void)block;
    return false;
}

static inline void attend_together(const struct attention_args *a, size_t k0, enum kv_dtype dtype,
                                   size_t ahead, bool whole, const struct together *all,
                                   const struct query_state *states)
{
    (void)a, (void)k0, (void)dtype, (void)ahead, (void)whole, (void)all, (void)states;
}

#endif
