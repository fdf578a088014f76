/* Paged attention, for sixteen lanes of any width; see rows_x86.h for how it is included, with QUERY_TILE
 * (queries that share a read of K and V) defined. Scores are computed with tokens in the lanes, outputs with
 * the head's dimensions in them, so that only the softmax adds across lanes. */
#include "kernels/kernel_table.h"
#include "kernels/x86/math_x86.h"

/* A query on its way over the blocks. */
struct query_state {
    float max, sum;
    uint32_t t0, t1; /* tokens of the block that it sees; t0 == t1: none */
    float *p;        /* [KV_BLOCK_TOKENS] probabilities of the block, not normalised */
    float *o;        /* [d_stride] */
};

static inline __attribute__((always_inline)) vf load_kv(const void *kv, size_t index, const bool IS_F32)
{
    return IS_F32 ? vf_load((const float *)kv + index) : vf_load_bf16((const uint16_t *)kv + index);
}

/* Few queries wait for memory, and blocks are too short and too scattered for the processor to see them
 * coming: they ask for the next block as they read this one, into the second-level cache, since two blocks
 * and what is computed do not fit the first. ahead: from this block's elements to the next one's, modulo
 * 2^64. */
static inline __attribute__((always_inline)) void prefetch_kv(const void *kv, size_t index, size_t ahead,
                                                              const bool IS_F32)
{
    _mm_prefetch((const char *)kv + (index + ahead) * (IS_F32 ? sizeof(float) : sizeof(uint16_t)),
                 _MM_HINT_T1);
}

/* Raw dot products of N queries with the tokens of a block. */
static inline __attribute__((always_inline)) void score_tile(const struct attention_args *a,
                                                             const uint32_t *queries, const int N, size_t k0,
                                                             const bool IS_F32, const bool AHEAD,
                                                             size_t ahead, struct query_state *states)
{
    vf scores[QUERY_TILE];
    const float *q[QUERY_TILE];
#pragma GCC unroll 8
    for (int i = 0; i < N; i++) {
        scores[i] = vf_zero();
        q[i] = a->queries[queries[i]].q;
    }
    for (size_t d = 0; d < a->head_dim; d++) {
        if (AHEAD)
            prefetch_kv(a->kv, k0 + d * KV_BLOCK_TOKENS, ahead, IS_F32);
        vf k = load_kv(a->kv, k0 + d * KV_BLOCK_TOKENS, IS_F32);
#pragma GCC unroll 8
        for (int i = 0; i < N; i++)
            scores[i] = vf_fma(vf_set1(q[i][d]), k, scores[i]);
    }
#pragma GCC unroll 8
    for (int i = 0; i < N; i++)
        vf_store(states[queries[i]].p, scores[i]);
}

/* Softmax of a block's scores; the outputs so far decay when the maximum grows. */
static inline void softmax_block(const struct attention_args *a, size_t d_stride, struct query_state *state)
{
    vf score = vf_mul(vf_load(state->p), vf_set1(a->scale));
    if (a->soft_cap > 0) {
        vf cap = vf_set1(a->soft_cap);
        score = vf_mul(cap, vf_tanh(vf_div(score, cap)));
    }
    score = vf_select(vm_range(state->t0, state->t1), score, vf_set1(-INFINITY));
    float block_max = vf_reduce_max(score);
    float max = block_max > state->max ? block_max : state->max;
    vf p = vf_exp(vf_sub(score, vf_set1(max)));
    vf_store(state->p, p);
    float rise = state->max - max;
    float decay = rise == 0 ? 1.0f : exp_of(rise); /* the same, without the wait */
    state->sum = fma_of(state->sum, decay, vf_sum(p));
    if (decay != 1.0f) { /* multiplying by one changes nothing */
        vf decays = vf_set1(decay);
        for (size_t d = 0; d < d_stride; d += LANES)
            vf_store(state->o + d, vf_mul(vf_load(state->o + d), decays));
    }
    state->max = max;
}

/* Adds p times v of tokens [t0, t1) to the outputs of N queries. */
static inline __attribute__((always_inline)) void
value_tile(const struct attention_args *a, const uint32_t *queries, const int N, size_t v0, size_t d_stride,
           const bool IS_F32, const bool AHEAD, size_t ahead, struct query_state *states)
{
    const uint32_t t0 = states[queries[0]].t0, t1 = states[queries[0]].t1;
    const float *p[QUERY_TILE];
#pragma GCC unroll 8
    for (int i = 0; i < N; i++)
        p[i] = states[queries[i]].p;
    for (size_t d = 0; d < d_stride; d += LANES) {
        vf o[QUERY_TILE];
#pragma GCC unroll 8
        for (int i = 0; i < N; i++)
            o[i] = vf_load(states[queries[i]].o + d);
        for (uint32_t t = t0; t < t1; t++) {
            if (AHEAD)
                prefetch_kv(a->kv, v0 + t * d_stride + d, ahead, IS_F32);
            vf v = load_kv(a->kv, v0 + t * d_stride + d, IS_F32);
#pragma GCC unroll 8
            for (int i = 0; i < N; i++)
                o[i] = vf_fma(vf_set1(p[i][t]), v, o[i]);
        }
#pragma GCC unroll 8
        for (int i = 0; i < N; i++)
            vf_store(states[queries[i]].o + d, o[i]);
    }
}

/* Queries from `first` on that see the same tokens of the block, at most QUERY_TILE. */
static inline uint32_t run_length(const struct query_state *states, const uint32_t *active, uint32_t first,
                                  uint32_t n_active)
{
    const struct query_state *head = &states[active[first]];
    uint32_t n = 1;
    while (n < QUERY_TILE && first + n < n_active && states[active[first + n]].t0 == head->t0 &&
           states[active[first + n]].t1 == head->t1)
        n++;
    return n;
}

/* The largest of the tile sizes 1, 2, 4, 8 up to n. */
static inline uint32_t tile_of(uint32_t n)
{
    uint32_t tile = n >= 8 ? 8 : n >= 4 ? 4 : n >= 2 ? 2 : 1;
    return tile < QUERY_TILE ? tile : QUERY_TILE;
}

static inline __attribute__((always_inline)) void attend_block(const struct attention_args *a,
                                                               const uint32_t *active, uint32_t n_active,
                                                               size_t k0, const bool IS_F32, const bool AHEAD,
                                                               size_t ahead, struct query_state *states)
{
    const size_t d_stride = round_up(a->head_dim, LANES);
    const size_t v0 = k0 + (size_t)a->head_dim * KV_BLOCK_TOKENS;
    for (uint32_t i = 0, tile; i < n_active; i += tile) {
        tile = tile_of(n_active - i);
        if (tile == QUERY_TILE)
            score_tile(a, active + i, QUERY_TILE, k0, IS_F32, AHEAD, ahead, states);
        else if (tile == 4)
            score_tile(a, active + i, 4, k0, IS_F32, AHEAD, ahead, states);
        else if (tile == 2)
            score_tile(a, active + i, 2, k0, IS_F32, AHEAD, ahead, states);
        else
            score_tile(a, active + i, 1, k0, IS_F32, AHEAD, ahead, states);
    }
    for (uint32_t i = 0; i < n_active; i++)
        softmax_block(a, d_stride, &states[active[i]]);
    for (uint32_t i = 0, tile; i < n_active; i += tile) {
        tile = tile_of(run_length(states, active, i, n_active));
        if (tile == QUERY_TILE)
            value_tile(a, active + i, QUERY_TILE, v0, d_stride, IS_F32, AHEAD, ahead, states);
        else if (tile == 4)
            value_tile(a, active + i, 4, v0, d_stride, IS_F32, AHEAD, ahead, states);
        else if (tile == 2)
            value_tile(a, active + i, 2, v0, d_stride, IS_F32, AHEAD, ahead, states);
        else
            value_tile(a, active + i, 1, v0, d_stride, IS_F32, AHEAD, ahead, states);
    }
}

static inline __attribute__((always_inline)) void attention(const struct attention_args *a, const bool IS_F32)
{
    const size_t d_stride = round_up(a->head_dim, LANES), head_elements = kv_head_elements(a->head_dim);
    struct query_state states[ATTENTION_QUERIES_MAX];
    uint32_t first_block = UINT32_MAX, last_block = 0;
    for (uint32_t i = 0; i < a->n_queries; i++) {
        const struct attention_query *query = &a->queries[i];
        float *p = a->scratch + i * (d_stride + KV_BLOCK_TOKENS);
        states[i] = (struct query_state){.max = -INFINITY, .p = p, .o = p + KV_BLOCK_TOKENS};
        memset(states[i].o, 0, d_stride * sizeof(float));
        if (query->first / KV_BLOCK_TOKENS < first_block)
            first_block = query->first / KV_BLOCK_TOKENS;
        if (query->last / KV_BLOCK_TOKENS > last_block)
            last_block = query->last / KV_BLOCK_TOKENS;
    }
    for (uint32_t b = first_block; b <= last_block; b++) {
        uint32_t active[ATTENTION_QUERIES_MAX], n_active = 0, start = b * KV_BLOCK_TOKENS;
        for (uint32_t i = 0; i < a->n_queries; i++) {
            const struct attention_query *query = &a->queries[i];
            if (query->first >= start + KV_BLOCK_TOKENS || query->last < start)
                continue;
            states[i].t0 = query->first > start ? query->first - start : 0;
            states[i].t1 = query->last - start < KV_BLOCK_TOKENS ? query->last - start + 1 : KV_BLOCK_TOKENS;
            active[n_active++] = i;
        }
        size_t k0 = ((size_t)a->block_table[b] * a->n_kv_heads + a->kv_head) * head_elements;
        size_t next = b == last_block ? b : b + 1;
        size_t next_k0 = ((size_t)a->block_table[next] * a->n_kv_heads + a->kv_head) * head_elements;
        if (n_active > 0 && a->n_queries <= QUERY_TILE)
            attend_block(a, active, n_active, k0, IS_F32, true, next_k0 - k0, states);
        else if (n_active > 0)
            attend_block(a, active, n_active, k0, IS_F32, false, 0, states);
    }
    for (uint32_t i = 0; i < a->n_queries; i++) {
        vf sum = vf_set1(states[i].sum);
        for (size_t d = 0; d < a->head_dim; d += LANES) {
            size_t left = a->head_dim - d < LANES ? a->head_dim - d : LANES;
            vf_store_first(a->queries[i].out + d, vf_div(vf_load(states[i].o + d), sum), left);
        }
    }
}

void KERNEL(attention_f32)(const struct attention_args *a)
{
    attention(a, true);
}

void KERNEL(attention_bf16)(const struct attention_args *a)
{
    attention(a, false);
}
