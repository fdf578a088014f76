/* Paged attention, for sixteen lanes of any width; see rows_x86.h for how it is included, with QUERY_TILE
 * (queries that share a read of K and V) defined. Scores are computed with tokens in the lanes, outputs with
 * the head's dimensions in them, so that only the softmax adds across lanes. */
#include "kernels/x86/attention_together_x86.h"

/* Raw dot products of N queries with the tokens of a block. */
static inline __attribute__((always_inline)) void score_tile(const struct attention_args *a,
                                                             const uint32_t *queries, const int N, size_t k0,
                                                             const enum kv_dtype DTYPE, const bool AHEAD,
                                                             size_t ahead, struct query_state *states)
{
    vf scores[QUERY_TILE];
    const float *q[QUERY_TILE];
#pragma GCC unroll 8
    for (int i = 0; i < N; i++) {
        scores[i] = vf_zero();
        q[i] = a->queries[queries[i]].q;
    }
    if (AHEAD && DTYPE == KV_INT8)
        prefetch_kv(a, k0 - kv_head_lead(DTYPE), ahead, DTYPE);
    for (size_t d = 0; d < a->head_dim; d++) {
        if (AHEAD && (DTYPE != KV_INT8 || d % 4 == 0))
            prefetch_kv(a, k0 + d * KV_BLOCK_TOKENS, ahead, DTYPE);
        vf k = load_kv(a->kv, k0 + d * KV_BLOCK_TOKENS, DTYPE);
#pragma GCC unroll 8
        for (int i = 0; i < N; i++)
            scores[i] = vf_fma(vf_set1(q[i][d]), k, scores[i]);
    }
#pragma GCC unroll 8
    for (int i = 0; i < N; i++)
        vf_store(states[queries[i]].p, scores[i]);
}

/* Softmax of a block's scores; the outputs so far decay when the maximum grows. */
static inline __attribute__((always_inline)) void softmax_block(const struct attention_args *a, size_t k0,
                                                                size_t d_stride, const enum kv_dtype DTYPE,
                                                                struct query_state *state)
{
    vf score = vf_load(state->p);
    if (DTYPE == KV_INT8)
        score = vf_mul(score, vf_load_bf16(kv_scales(a->kv, k0)));
    score = vf_mul(score, vf_set1(a->scale));
    if (a->soft_cap > 0) {
        vf cap = vf_set1(a->soft_cap);
        score = vf_mul(cap, vf_tanh(vf_div(score, cap)));
    }
    score = vf_select(vm_range(state->t0, state->t1), score, vf_set1(-INFINITY));
    float block_max = vf_reduce_max(score);
    float max = block_max > *state->max ? block_max : *state->max;
    vf p = vf_exp(vf_sub(score, vf_set1(max)));
    vf_store(state->p,
             DTYPE == KV_INT8 ? vf_mul(p, vf_load_bf16(kv_scales(a->kv, k0) + KV_BLOCK_TOKENS)) : p);
    float rise = *state->max - max;
    /* The same, without the wait; and of a chunk's first block, before which all is zero. */
    float decay = rise == 0 || *state->max == -INFINITY ? 1.0f : exp_of(rise);
    *state->sum = fma_of(*state->sum, decay, vf_sum(p));
    if (decay != 1.0f) /* multiplying by one changes nothing */
        decay_outputs(state, decay, d_stride);
    *state->max = max;
}

/* Adds p times v of tokens [t0, t1) to the outputs of N queries. */
static inline __attribute__((always_inline)) void
value_tile(const struct attention_args *a, const uint32_t *queries, const int N, size_t v0, size_t d_stride,
           const enum kv_dtype DTYPE, const bool AHEAD, size_t ahead, struct query_state *states)
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
            if (AHEAD && (DTYPE != KV_INT8 || d % 64 == 0))
                prefetch_kv(a, v0 + t * d_stride + d, ahead, DTYPE);
            vf v = load_kv(a->kv, v0 + t * d_stride + d, DTYPE);
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

static inline __attribute__((always_inline)) void
attend_block(const struct attention_args *a, const uint32_t *active, uint32_t n_active, size_t k0,
             const enum kv_dtype DTYPE, const bool AHEAD, size_t ahead, struct query_state *states)
{
    const size_t d_stride = round_up(a->head_dim, LANES);
    const size_t v0 = k0 + (size_t)a->head_dim * KV_BLOCK_TOKENS;
    for (uint32_t i = 0, tile; i < n_active; i += tile) {
        tile = tile_of(n_active - i);
        if (tile == QUERY_TILE)
            score_tile(a, active + i, QUERY_TILE, k0, DTYPE, AHEAD, ahead, states);
        else if (tile == 4)
            score_tile(a, active + i, 4, k0, DTYPE, AHEAD, ahead, states);
        else if (tile == 2)
            score_tile(a, active + i, 2, k0, DTYPE, AHEAD, ahead, states);
        else
            score_tile(a, active + i, 1, k0, DTYPE, AHEAD, ahead, states);
    }
    for (uint32_t i = 0; i < n_active; i++)
        softmax_block(a, k0, d_stride, DTYPE, &states[active[i]]);
    for (uint32_t i = 0, tile; i < n_active; i += tile) {
        tile = tile_of(run_length(states, active, i, n_active));
        if (tile == QUERY_TILE)
            value_tile(a, active + i, QUERY_TILE, v0, d_stride, DTYPE, AHEAD, ahead, states);
        else if (tile == 4)
            value_tile(a, active + i, 4, v0, d_stride, DTYPE, AHEAD, ahead, states);
        else if (tile == 2)
            value_tile(a, active + i, 2, v0, d_stride, DTYPE, AHEAD, ahead, states);
        else
            value_tile(a, active + i, 1, v0, d_stride, DTYPE, AHEAD, ahead, states);
    }
}

/* First what all sequences share, then the rest of each. */
static inline bool next_run(const struct attention_args *a, struct query_run *run)
{
    const struct attention_query *queries = a->queries;
    bool starts = run->end == 0, was_shared = run->is_shared;
    run->is_shared = starts && a->n_shared > 0;
    run->begin = was_shared ? 0 : run->end;
    if (run->begin == a->n_queries)
        return false;
    run->end = run->begin;
    run->first_block = UINT32_MAX;
    run->end_block = 0;
    do {
        uint32_t first = queries[run->end].first / KV_BLOCK_TOKENS,
                 end = queries[run->end].last / KV_BLOCK_TOKENS + 1;
        run->first_block = first < run->first_block ? first : run->first_block;
        run->end_block = end > run->end_block ? end : run->end_block;
        run->end++;
    } while (run->end < a->n_queries &&
             (run->is_shared || queries[run->end].block_table == queries[run->begin].block_table));
    if (run->is_shared && run->end_block > a->n_shared)
        run->end_block = a->n_shared;
    if (!run->is_shared && run->first_block < a->n_shared)
        run->first_block = a->n_shared;
    if (a->partials != NULL) {
        uint32_t first = a->first_chunk * ATTENTION_CHUNK_BLOCKS, end = a->end_chunk * ATTENTION_CHUNK_BLOCKS;
        run->first_block = first > run->first_block ? first : run->first_block;
        run->end_block = end < run->end_block ? end : run->end_block;
    }
    return true;
}

/* The last block of a query's chunk is done. */
static inline void end_chunk(const struct attention_args *a, uint32_t query, struct query_state *state)
{
    const size_t d_stride = round_up(a->head_dim, LANES);
    if (state->chunk == NO_CHUNK)
        return;
    if (a->partials != NULL) {
        float *partial = a->partials + ((size_t)(state->chunk - a->first_chunk) * a->n_queries + query) *
                                           attention_partial_floats(a->head_dim);
        partial[0] = *state->max;
        partial[1] = *state->sum;
        memcpy(partial + ATTENTION_PARTIAL_LEAD, state->o, d_stride * sizeof(float));
    } else if (state->has_total) {
        merge_chunk(*state->max, *state->sum, state->o, d_stride, &state->total_max, &state->total_sum,
                    state->total);
    } else {
        float *first = state->o;
        state->o = state->total;
        state->total = first;
        state->total_max = *state->max;
        state->total_sum = *state->sum;
        state->has_total = true;
    }
}

/* Those of a run that see tokens of a block; the first block of a chunk ends the query's chunk before. */
static inline uint32_t find_active(const struct attention_args *a, const struct query_run *run,
                                   uint32_t block, struct query_state *states, uint32_t *active)
{
    const uint32_t chunk = block / ATTENTION_CHUNK_BLOCKS;
    uint32_t n_active = 0, start = block * KV_BLOCK_TOKENS;
    for (uint32_t i = run->begin; i < run->end; i++) {
        const struct attention_query *query = &a->queries[i];
        if (query->first >= start + KV_BLOCK_TOKENS || query->last < start)
            continue;
        states[i].t0 = query->first > start ? query->first - start : 0;
        states[i].t1 = query->last - start < KV_BLOCK_TOKENS ? query->last - start + 1 : KV_BLOCK_TOKENS;
        if (states[i].chunk != chunk) {
            end_chunk(a, i, &states[i]);
            states[i].chunk = chunk;
            *states[i].max = -INFINITY;
            *states[i].sum = 0;
            for (size_t d = 0; d < a->head_dim; d += LANES)
                vf_store(states[i].o + d, vf_zero());
        }
        active[n_active++] = i;
    }
    return n_active;
}

static inline __attribute__((always_inline)) void attention(const struct attention_args *a,
                                                            const enum kv_dtype DTYPE)
{
    const size_t d_stride = round_up(a->head_dim, LANES), head_stride = kv_head_stride(DTYPE, a->head_dim);
    _Alignas(LANES * sizeof(float)) float max[ATTENTION_QUERIES_MAX] = {0}, sum[ATTENTION_QUERIES_MAX] = {0};
    struct query_state states[ATTENTION_QUERIES_MAX];
    for (uint32_t i = 0; i < a->n_queries; i++) {
        float *p = a->scratch + i * (2 * d_stride + KV_BLOCK_TOKENS), *o = p + KV_BLOCK_TOKENS;
        states[i] = (struct query_state){
            .max = &max[i], .sum = &sum[i], .chunk = NO_CHUNK, .p = p, .o = o, .total = o + d_stride};
    }
    struct together all = {0};
    bool together = stand_together(a, max, sum, &all);
    struct query_run run = {0};
    while (next_run(a, &run)) {
        const uint32_t *table = a->queries[run.begin].block_table;
        for (uint32_t b = run.first_block; b < run.end_block; b++) {
            size_t k0 = ((size_t)table[b] * a->n_kv_heads + a->kv_head) * head_stride + kv_head_lead(DTYPE);
            size_t next = b + 1 == run.end_block ? b : b + 1;
            size_t ahead = ((size_t)table[next] - table[b]) * a->n_kv_heads * head_stride;
            if (together && all_see_on(&all, &run, b)) {
                attend_together(a, k0, DTYPE, ahead, true, &all, states);
                continue;
            }
            uint32_t active[ATTENTION_QUERIES_MAX], n_active = find_active(a, &run, b, states, active);
            if (together && n_active == a->n_queries) {
                attend_together(a, k0, DTYPE, ahead, false, &all, states);
                continue;
            }
            if (n_active > 0 && run.end - run.begin <= QUERY_TILE)
                attend_block(a, active, n_active, k0, DTYPE, true, ahead, states);
            else if (n_active > 0)
                attend_block(a, active, n_active, k0, DTYPE, false, 0, states);
        }
    }
    for (uint32_t i = 0; i < a->n_queries; i++) {
        end_chunk(a, i, &states[i]);
        if (a->partials == NULL)
            store_quotients(states[i].total, states[i].total_sum, a->head_dim, a->queries[i].out);
    }
}

void KERNEL(attention_f32)(const struct attention_args *a)
{
    attention(a, KV_F32);
}

void KERNEL(attention_bf16)(const struct attention_args *a)
{
    attention(a, KV_BF16);
}

void KERNEL(attention_int8)(const struct attention_args *a)
{
    attention(a, KV_INT8);
}

void KERNEL(attention_merge)(const struct attention_merge_args *a)
{
    const size_t d_stride = round_up(a->head_dim, LANES);
    float max = a->partials[0], sum = a->partials[1];
    memcpy(a->total, a->partials + ATTENTION_PARTIAL_LEAD, d_stride * sizeof(float));
    for (uint32_t c = 1; c < a->n_chunks; c++) {
        const float *partial = a->partials + c * a->stride;
        merge_chunk(partial[0], partial[1], partial + ATTENTION_PARTIAL_LEAD, d_stride, &max, &sum, a->total);
    }
    store_quotients(a->total, sum, a->head_dim, a->out);
}
