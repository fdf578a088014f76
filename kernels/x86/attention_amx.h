/* Paged attention by tiles: tiles.h says what it computes. A chunk of the context at a time: the scores of
 * all its tokens, two blocks by all queries at once; their softmax; the sums over its tokens, 32 dimensions
 * at a time. K and V are brought into the order of tiles in the scratch, once for all queries. */
#pragma once

#include <math.h>
#include <string.h>
#include "kernels/kernel_table.h"
#include "kernels/x86/strip_amx.h"
#include "kernels/x86/attention_merge_x86.h"

enum { PAIR_TOKENS = TILE_INPUTS, PAIR_BLOCKS = PAIR_TOKENS / KV_BLOCK_TOKENS, PAIR_BYTES = 2 * TILE_BYTES };

/* A part of a chunk whose blocks queries [begin, end) find in the same table: blocks [first_block, end_block)
 * of it, and tokens [first, end_token), positions, of which each query sees some. */
struct phase {
    uint32_t begin, end, first_block, end_block, first_token, end_token;
    bool is_first; /* of these queries in the chunk */
};

struct tile_attention {
    const struct attention_args *a;
    size_t d_inputs, d_stride, head_stride;
    uint16_t *q;      /* [TILE_QUERIES_MAX][d_inputs] */
    uint16_t *p;      /* [TILE_QUERIES_MAX][TILE_P_STRIDE] */
    float *scores;    /* [TILE_QUERIES_MAX][TILE_SCORE_STRIDE] */
    float *o, *total; /* [TILE_QUERIES_MAX][d_stride] */
    uint8_t *tiles;
    size_t configured; /* rows */
    float total_max[TILE_QUERIES_MAX], total_sum[TILE_QUERIES_MAX];
    bool has_total[TILE_QUERIES_MAX];
    uint32_t n_phases;
    struct phase phases[TILE_QUERIES_MAX + 1];
};

static inline void begin_attention(struct tile_attention *t, const struct attention_args *a,
                                   const enum kv_dtype DTYPE)
{
    *t = (struct tile_attention){.a = a,
                                 .d_inputs = round_up(a->head_dim, TILE_INPUTS),
                                 .d_stride = round_up(a->head_dim, LANES),
                                 .head_stride = kv_head_stride(DTYPE, a->head_dim),
                                 .tiles = (uint8_t *)a->scratch};
    size_t k_bytes = t->d_inputs / TILE_INPUTS * PAIR_BYTES,
           v_bytes = ATTENTION_CHUNK_TOKENS / PAIR_TOKENS * PAIR_BYTES;
    t->scores = (float *)(t->tiles + (k_bytes > v_bytes ? k_bytes : v_bytes));
    t->o = t->scores + TILE_QUERIES_MAX * TILE_SCORE_STRIDE;
    t->total = t->o + TILE_QUERIES_MAX * t->d_stride;
    t->q = (uint16_t *)(t->total + TILE_QUERIES_MAX * t->d_stride);
    t->p = t->q + TILE_QUERIES_MAX * t->d_inputs;
    for (uint32_t i = 0; i < a->n_queries; i++)
        round_row_amx(a->queries[i].q, a->head_dim, t->q + i * t->d_inputs);
}

/* ---- Who reads which blocks ---- */

/* Queries [begin, end) and what they see of blocks [low, high). */
static inline void add_phase(struct tile_attention *t, uint32_t begin, uint32_t end, uint32_t low,
                             uint32_t high, bool is_first)
{
    struct phase phase = {.begin = begin, .end = end, .first_token = UINT32_MAX, .is_first = is_first};
    for (uint32_t i = begin; i < end; i++) {
        const struct attention_query *query = &t->a->queries[i];
        phase.first_token = query->first < phase.first_token ? query->first : phase.first_token;
        phase.end_token = query->last + 1 > phase.end_token ? query->last + 1 : phase.end_token;
    }
    if (phase.first_token < low * KV_BLOCK_TOKENS)
        phase.first_token = low * KV_BLOCK_TOKENS;
    if (phase.end_token > high * KV_BLOCK_TOKENS)
        phase.end_token = high * KV_BLOCK_TOKENS;
    if (phase.first_token >= phase.end_token)
        return;
    phase.first_block = phase.first_token / KV_BLOCK_TOKENS;
    phase.end_block = (phase.end_token - 1) / KV_BLOCK_TOKENS + 1;
    t->phases[t->n_phases++] = phase;
}

/* First the whole pairs that all sequences share, then the rest of each. */
static inline void find_phases(struct tile_attention *t, uint32_t chunk)
{
    const struct attention_args *a = t->a;
    const uint32_t low = chunk * ATTENTION_CHUNK_BLOCKS, high = low + ATTENTION_CHUNK_BLOCKS;
    uint32_t split = a->n_shared / PAIR_BLOCKS * PAIR_BLOCKS;
    split = split < low ? low : split < high ? split : high;
    t->n_phases = 0;
    add_phase(t, 0, a->n_queries, low, split, true);
    const bool shares = t->n_phases > 0;
    for (uint32_t begin = 0, end; begin < a->n_queries; begin = end) {
        end = begin + 1;
        while (end < a->n_queries && a->queries[end].block_table == a->queries[begin].block_table)
            end++;
        add_phase(t, begin, end, split, high, !shares);
    }
}

/* Elements from the layer's begin to the K of the head in a block. */
static inline size_t phase_block(const struct tile_attention *t, const struct phase *phase, uint32_t block,
                                 const enum kv_dtype DTYPE)
{
    size_t head = (size_t)t->a->queries[phase->begin].block_table[block] * t->a->n_kv_heads + t->a->kv_head;
    return head * t->head_stride + kv_head_lead(DTYPE);
}

static inline void configure_rows(struct tile_attention *t, const struct phase *phase)
{
    size_t rows = phase->end - phase->begin;
    if (rows != t->configured)
        configure(rows, PANEL_OUTPUTS);
    t->configured = rows;
}

/* ---- Scores ---- */

/* One block of K, from element k0 of the layer on, to a half of each tile pair. K and V of the next block,
 * from element next_k0 on, are asked for. */
TILES_INLINE void keys_to_tiles(const struct tile_attention *t, size_t k0, size_t next_k0, uint8_t *out,
                                const enum kv_dtype DTYPE)
{
    static const _Alignas(64)
        uint16_t interleaved[32] = {0, 16, 1, 17, 2,  18, 3,  19, 4,  20, 5,  21, 6,  22, 7,  23,
                                    8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31};
    const __m512i order = _mm512_load_si512(interleaved);
    const size_t d_end = t->a->head_dim, BYTES = DTYPE == KV_BF16 ? sizeof(uint16_t) : 1;
    const uint8_t *k = (const uint8_t *)t->a->kv + k0 * BYTES,
                  *next = (const uint8_t *)t->a->kv + next_k0 * BYTES;
    if (DTYPE == KV_INT8) /* scales */
        _mm_prefetch((const char *)next - kv_head_lead(DTYPE), _MM_HINT_T1);
    for (size_t i = 0; i < kv_head_elements(d_end) * BYTES; i += 64)
        _mm_prefetch((const char *)next + i, _MM_HINT_T1);
    for (size_t d = 0; d < t->d_inputs; d += 2, k += 2 * KV_BLOCK_TOKENS * BYTES) {
        uint8_t *row = out + d / TILE_INPUTS * PAIR_BYTES + d % TILE_INPUTS / 2 * TILE_ROW_BYTES;
        if (d >= d_end) {
            _mm512_store_si512(row, _mm512_setzero_si512());
        } else if (DTYPE == KV_INT8) {
            bool both = d + 1 < d_end;
            store_pairs(row, vi_to_float(vi_load_i8(k)),
                        both ? vi_to_float(vi_load_i8(k + KV_BLOCK_TOKENS)) : vf_zero());
        } else {
            __m512i both = d + 1 < d_end
                               ? _mm512_loadu_si512(k)
                               : _mm512_zextsi256_si512(_mm256_loadu_si256((const __m256i *)(const void *)k));
            _mm512_store_si512(row, _mm512_permutexvar_epi16(order, both));
        }
    }
}

/* Dot products of a phase's queries and tokens. Those of blocks that nobody sees, beside one that is seen,
 * stay what they were. */
TILES_INLINE void score_phase(struct tile_attention *t, const struct phase *phase, const enum kv_dtype DTYPE)
{
    const uint32_t first_pair = phase->first_block / PAIR_BLOCKS,
                   end_pair = (phase->end_block - 1) / PAIR_BLOCKS + 1;
    configure_rows(t, phase);
    for (uint32_t pair = first_pair; pair < end_pair; pair++) {
        for (uint32_t half = 0; half < PAIR_BLOCKS; half++) {
            uint32_t block = pair * PAIR_BLOCKS + half;
            if (block < phase->first_block || block >= phase->end_block)
                continue;
            size_t k0 = phase_block(t, phase, block, DTYPE);
            size_t next = block + 1 < phase->end_block ? phase_block(t, phase, block + 1, DTYPE) : k0;
            keys_to_tiles(t, k0, next, t->tiles + half * TILE_BYTES, DTYPE);
        }
        const struct strip strip = {.x = t->q + phase->begin * t->d_inputs,
                                    .x_stride = t->d_inputs,
                                    .n_in = t->d_inputs,
                                    .tiles = t->tiles,
                                    .out = t->scores + phase->begin * TILE_SCORE_STRIDE +
                                           pair * PAIR_TOKENS % ATTENTION_CHUNK_TOKENS,
                                    .out_stride = TILE_SCORE_STRIDE,
                                    .is_first = true};
        multiply_strip(&strip, phase->end - phase->begin, true);
    }
}

/* ---- Softmax ---- */

/* Of the tokens of a query's block: of K, KV_BLOCK_TOKENS further of V. int8 only. */
static inline const uint16_t *token_scales(const struct tile_attention *t,
                                           const struct attention_query *query, uint32_t block)
{
    size_t head = (size_t)query->block_table[block] * t->a->n_kv_heads + t->a->kv_head;
    return (const uint16_t *)(const void *)((const uint8_t *)t->a->kv + head * t->head_stride);
}

/* Those of a block's tokens, of which the first is `start`, that are among [t0, t1). */
TILES_INLINE vm seen_tokens(uint32_t start, uint32_t t0, uint32_t t1)
{
    return vm_range(t0 > start ? t0 - start : 0, t1 - start < KV_BLOCK_TOKENS ? t1 - start : KV_BLOCK_TOKENS);
}

/* The scores of a query's tokens [t0, t1) of a chunk to p. */
TILES_INLINE void softmax_chunk(struct tile_attention *t, uint32_t query, uint32_t chunk, uint32_t t0,
                                uint32_t t1, float *max, float *sum, const enum kv_dtype DTYPE)
{
    const struct attention_args *a = t->a;
    float *scores = t->scores + query * TILE_SCORE_STRIDE;
    uint16_t *p = t->p + query * TILE_P_STRIDE;
    const uint32_t first = t0 / KV_BLOCK_TOKENS, end = (t1 - 1) / KV_BLOCK_TOKENS + 1;
    vf greatest = vf_set1(-INFINITY), sums = vf_zero();
    for (uint32_t b = first; b < end; b++) {
        uint32_t start = b * KV_BLOCK_TOKENS;
        vf score = vf_load(scores + start);
        if (DTYPE == KV_INT8)
            score = vf_mul(
                score, vf_load_bf16(token_scales(t, &a->queries[query], chunk * ATTENTION_CHUNK_BLOCKS + b)));
        score = vf_mul(score, vf_set1(a->scale));
        if (a->soft_cap > 0) {
            vf cap = vf_set1(a->soft_cap);
            score = vf_mul(cap, vf_tanh(vf_div(score, cap)));
        }
        score = vf_select(seen_tokens(start, t0, t1), score, vf_set1(-INFINITY));
        greatest = vf_max(score, greatest); /* this order leaves a NaN out */
        vf_store(scores + start, score);
    }
    *max = vf_reduce_max(greatest);
    for (uint32_t b = first; b < end; b++) {
        uint32_t start = b * KV_BLOCK_TOKENS;
        vf weight = vf_exp(vf_sub(vf_load(scores + start), vf_set1(*max))), factor = weight;
        vm seen = seen_tokens(start, t0, t1);
        if (DTYPE == KV_INT8)
            factor = vf_mul(
                weight, vf_load_bf16(token_scales(t, &a->queries[query], chunk * ATTENTION_CHUNK_BLOCKS + b) +
                                     KV_BLOCK_TOKENS));
        /* exp(-inf) is 0, but an unseen token's scale may be anything. */
        __m256i rounded = (__m256i)_mm512_cvtneps_pbh(vf_select(seen, factor, vf_zero()));
        _mm256_storeu_si256((__m256i *)(void *)(p + start), rounded);
        vf added = DTYPE == KV_BF16 ? vi_as_float(vi_shift_left(_mm512_cvtepu16_epi32(rounded), 16))
                                    : vf_select(seen, weight, vf_zero());
        sums = vf_add(sums, added);
    }
    *sum = vf_sum(sums);
}

/* ---- Sums over tokens ---- */

/* Two tokens of 32 dimensions, or of 16: a row of each half. */
TILES_INLINE void value_rows(const uint8_t *even, const uint8_t *odd, bool two_halves, uint8_t *row,
                             const enum kv_dtype DTYPE)
{
    static const _Alignas(64)
        uint16_t low[32] = {0, 32, 1, 33, 2,  34, 3,  35, 4,  36, 5,  37, 6,  38, 7,  39,
                            8, 40, 9, 41, 10, 42, 11, 43, 12, 44, 13, 45, 14, 46, 15, 47};
    if (DTYPE == KV_INT8) {
        for (size_t half = 0; half < (two_halves ? 2 : 1); half++)
            store_pairs(row + half * TILE_BYTES,
                        even == NULL ? vf_zero() : vi_to_float(vi_load_i8(even + half * LANES)),
                        odd == NULL ? vf_zero() : vi_to_float(vi_load_i8(odd + half * LANES)));
        return;
    }
    const __mmask16 lanes = two_halves ? 0xffff : 0xff; /* of 32 bits */
    __m512i a = even == NULL ? _mm512_setzero_si512() : _mm512_maskz_loadu_epi32(lanes, even);
    __m512i b = odd == NULL ? _mm512_setzero_si512() : _mm512_maskz_loadu_epi32(lanes, odd);
    const __m512i low_half = _mm512_load_si512(low);
    const __m512i high_half = _mm512_add_epi16(low_half, _mm512_set1_epi16(16));
    _mm512_store_si512(row, _mm512_permutex2var_epi16(a, low_half, b));
    if (two_halves)
        _mm512_store_si512(row + TILE_BYTES, _mm512_permutex2var_epi16(a, high_half, b));
}

/* One block of V, dimensions from d on, to eight rows of each half. */
TILES_INLINE void values_to_tiles(const struct tile_attention *t, const struct phase *phase, uint32_t block,
                                  size_t d, bool two_halves, uint8_t *rows, const enum kv_dtype DTYPE)
{
    const size_t BYTES = DTYPE == KV_BF16 ? sizeof(uint16_t) : 1;
    const uint32_t start = block * KV_BLOCK_TOKENS;
    const bool exists = block >= phase->first_block && block < phase->end_block;
    const uint8_t *v = NULL;
    if (exists)
        v = (const uint8_t *)t->a->kv +
            (phase_block(t, phase, block, DTYPE) + t->a->head_dim * KV_BLOCK_TOKENS + d) * BYTES;
    for (uint32_t i = 0; i < KV_BLOCK_TOKENS; i += 2, rows += TILE_ROW_BYTES) {
        bool sees_even = exists && start + i >= phase->first_token && start + i < phase->end_token;
        bool sees_odd = exists && start + i + 1 >= phase->first_token && start + i + 1 < phase->end_token;
        value_rows(sees_even ? v + i * t->d_stride * BYTES : NULL,
                   sees_odd ? v + (i + 1) * t->d_stride * BYTES : NULL, two_halves, rows, DTYPE);
    }
}

TILES_INLINE void sum_phase(struct tile_attention *t, const struct phase *phase, const enum kv_dtype DTYPE)
{
    const uint32_t first_pair = phase->first_block / PAIR_BLOCKS,
                   end_pair = (phase->end_block - 1) / PAIR_BLOCKS + 1;
    configure_rows(t, phase);
    for (size_t d = 0; d < t->d_stride; d += PANEL_OUTPUTS) {
        const bool two_halves = t->d_stride - d > HALF_OUTPUTS;
        uint8_t *rows = t->tiles;
        for (uint32_t pair = first_pair; pair < end_pair; pair++, rows += PAIR_BYTES) {
            for (uint32_t half = 0; half < PAIR_BLOCKS; half++)
                values_to_tiles(t, phase, pair * PAIR_BLOCKS + half, d, two_halves,
                                rows + half * (TILE_BYTES / PAIR_BLOCKS), DTYPE);
        }
        const struct strip strip = {.x = t->p + phase->begin * TILE_P_STRIDE +
                                         first_pair * PAIR_TOKENS % ATTENTION_CHUNK_TOKENS,
                                    .x_stride = TILE_P_STRIDE,
                                    .n_in = (end_pair - first_pair) * PAIR_TOKENS,
                                    .tiles = t->tiles,
                                    .out = t->o + phase->begin * t->d_stride + d,
                                    .out_stride = t->d_stride,
                                    .is_first = phase->is_first};
        multiply_strip(&strip, phase->end - phase->begin, two_halves);
    }
}

/* ---- Chunks ---- */

static inline void end_query_chunk(struct tile_attention *t, uint32_t query, uint32_t chunk, float max,
                                   float sum)
{
    const struct attention_args *a = t->a;
    float *o = t->o + query * t->d_stride, *total = t->total + query * t->d_stride;
    for (size_t d = 0; d < t->d_stride; d += LANES)
        vf_store(o + d, vf_add(vf_load(o + d), vf_zero()));
    if (a->partials != NULL) {
        float *partial = a->partials + ((size_t)(chunk - a->first_chunk) * a->n_queries + query) *
                                           attention_partial_floats(a->head_dim);
        partial[0] = max;
        partial[1] = sum;
        memcpy(partial + ATTENTION_PARTIAL_LEAD, o, t->d_stride * sizeof(float));
    } else if (t->has_total[query]) {
        merge_chunk(max, sum, o, t->d_stride, &t->total_max[query], &t->total_sum[query], total);
    } else {
        memcpy(total, o, t->d_stride * sizeof(float));
        t->total_max[query] = max;
        t->total_sum[query] = sum;
        t->has_total[query] = true;
    }
}

TILES_INLINE void attend_chunk(struct tile_attention *t, uint32_t chunk, const enum kv_dtype DTYPE)
{
    const struct attention_args *a = t->a;
    const uint32_t start = chunk * ATTENTION_CHUNK_TOKENS, end = start + ATTENTION_CHUNK_TOKENS;
    float max[TILE_QUERIES_MAX], sum[TILE_QUERIES_MAX];
    find_phases(t, chunk);
    for (uint32_t i = 0; i < t->n_phases; i++)
        score_phase(t, &t->phases[i], DTYPE);
    for (uint32_t i = 0; i < a->n_queries; i++) {
        const struct attention_query *query = &a->queries[i];
        memset(t->p + i * TILE_P_STRIDE, 0, ATTENTION_CHUNK_TOKENS * sizeof(uint16_t));
        if (query->first < end && query->last >= start)
            softmax_chunk(t, i, chunk, query->first > start ? query->first - start : 0,
                          query->last < end ? query->last - start + 1 : ATTENTION_CHUNK_TOKENS, &max[i],
                          &sum[i], DTYPE);
    }
    for (uint32_t i = 0; i < t->n_phases; i++)
        sum_phase(t, &t->phases[i], DTYPE);
    for (uint32_t i = 0; i < a->n_queries; i++) {
        if (a->queries[i].first < end && a->queries[i].last >= start)
            end_query_chunk(t, i, chunk, max[i], sum[i]);
    }
}

TILES_INLINE void attend_tiles(const struct attention_args *a, const enum kv_dtype DTYPE)
{
    struct tile_attention t;
    begin_attention(&t, a, DTYPE);
    uint32_t first = UINT32_MAX, end = 0;
    for (uint32_t i = 0; i < a->n_queries; i++) {
        uint32_t begins = a->queries[i].first / ATTENTION_CHUNK_TOKENS,
                 ends = a->queries[i].last / ATTENTION_CHUNK_TOKENS + 1;
        first = begins < first ? begins : first;
        end = ends > end ? ends : end;
    }
    if (a->partials != NULL) {
        first = a->first_chunk > first ? a->first_chunk : first;
        end = a->end_chunk < end ? a->end_chunk : end;
    }
    for (uint32_t chunk = first; chunk < end; chunk++)
        attend_chunk(&t, chunk, DTYPE);
    AMX_RELEASE();
    for (uint32_t i = 0; a->partials == NULL && i < a->n_queries; i++)
        store_quotients(t.total + i * t.d_stride, t.total_sum[i], a->head_dim, a->queries[i].out);
}
