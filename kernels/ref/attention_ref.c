/* Reference of paged attention: one query after the other, block by block. */
#include <math.h>
#include "base/assert.h"
#include "kernels/kernel_table.h"
#include "kernels/ref/attention_merge_ref.h"
#include "kernels/ref/math_ref.h"

typedef float kv_load_fn(const void *kv, size_t index);

static inline float load_f32(const void *kv, size_t index)
{
    return ((const float *)kv)[index];
}

static inline float load_bf16(const void *kv, size_t index)
{
    return bf16_to_f32(((const uint16_t *)kv)[index]);
}

static inline float load_int8(const void *kv, size_t index)
{
    return (float)((const int8_t *)kv)[index];
}

/* Of K and V of a block's tokens, where there are some. */
static inline const uint16_t *scales_of(const void *kv, size_t k0, enum kv_dtype dtype)
{
    return (const uint16_t *)((const uint8_t *)kv + k0 - kv_head_lead(dtype));
}

static void begin_state(struct softmax_state *state, size_t head_dim)
{
    state->max = -INFINITY;
    state->sum = 0;
    for (size_t d = 0; d < head_dim; d++)
        state->o[d] = 0;
}

/* k0, v0: where the head's K and V of the block begin; [t0, t1): its tokens that the query sees. */
static inline void attend_block(const struct attention_args *a, const struct attention_query *query,
                                size_t k0, uint32_t t0, uint32_t t1, enum kv_dtype dtype, kv_load_fn *load,
                                struct softmax_state *state)
{
    const uint16_t *scales = dtype == KV_INT8 ? scales_of(a->kv, k0, dtype) : NULL;
    size_t v0 = k0 + (size_t)a->head_dim * KV_BLOCK_TOKENS;
    size_t d_stride = round_up(a->head_dim, LANES);
    float p[KV_BLOCK_TOKENS] = {0};
    float max = state->max;
    for (uint32_t t = t0; t < t1; t++) {
        float score = 0;
        for (size_t d = 0; d < a->head_dim; d++)
            score = fmaf(query->q[d], load(a->kv, k0 + d * KV_BLOCK_TOKENS + t), score);
        if (scales != NULL)
            score *= bf16_to_f32(scales[t]);
        score *= a->scale;
        if (a->soft_cap > 0)
            score = a->soft_cap * tanh_ref(score / a->soft_cap);
        p[t] = score;
        max = score > max ? score : max;
    }
    for (uint32_t t = t0; t < t1; t++)
        p[t] = exp_ref(p[t] - max);
    float decay = exp_ref(state->max - max);
    float lanes[LANES];
    for (int i = 0; i < LANES; i++)
        lanes[i] = p[i];
    state->sum = fmaf(state->sum, decay, sum_lanes_ref(lanes));
    state->max = max;
    for (uint32_t t = t0; scales != NULL && t < t1; t++)
        p[t] *= bf16_to_f32(scales[KV_BLOCK_TOKENS + t]);
    for (size_t d = 0; d < a->head_dim; d++) {
        float o = state->o[d] * decay;
        for (uint32_t t = t0; t < t1; t++)
            o = fmaf(p[t], load(a->kv, v0 + t * d_stride + d), o);
        state->o[d] = o;
    }
}

static inline void attention(const struct attention_args *a, enum kv_dtype dtype, kv_load_fn *load)
{
    ASSERT(a->n_queries >= 1 && a->n_queries <= ATTENTION_QUERIES_MAX);
    ASSERT(a->head_dim >= 1 && a->head_dim <= HEAD_DIM_MAX && a->kv_head < a->n_kv_heads);
    size_t head_stride = kv_head_stride(dtype, a->head_dim);
    for (uint32_t i = 0; i < a->n_queries; i++) {
        const struct attention_query *query = &a->queries[i];
        ASSERT(query->first <= query->last);
        for (uint32_t b = 0; b < a->n_shared; b++)
            ASSERT(query->block_table[b] == a->queries[0].block_table[b]);
        uint32_t first_block = query->first / KV_BLOCK_TOKENS, last_block = query->last / KV_BLOCK_TOKENS;
        struct softmax_state state = {.o = a->scratch}, total = {.o = a->scratch + a->head_dim};
        for (uint32_t b = first_block; b <= last_block; b++) {
            uint32_t start = b * KV_BLOCK_TOKENS, chunk = b / ATTENTION_CHUNK_BLOCKS;
            if (a->partials != NULL && (chunk < a->first_chunk || chunk >= a->end_chunk))
                continue;
            if (b == first_block || b % ATTENTION_CHUNK_BLOCKS == 0)
                begin_state(&state, a->head_dim);
            uint32_t t0 = query->first > start ? query->first - start : 0;
            uint32_t t1 = query->last - start < KV_BLOCK_TOKENS ? query->last - start + 1 : KV_BLOCK_TOKENS;
            size_t head = (size_t)query->block_table[b] * a->n_kv_heads + a->kv_head;
            attend_block(a, query, head * head_stride + kv_head_lead(dtype), t0, t1, dtype, load, &state);
            if (b == last_block || (b + 1) % ATTENTION_CHUNK_BLOCKS == 0)
                end_chunk_ref(a, i, chunk, chunk == first_block / ATTENTION_CHUNK_BLOCKS, &state, &total);
        }
        for (size_t d = 0; a->partials == NULL && d < a->head_dim; d++)
            query->out[d] = total.o[d] / total.sum;
    }
}

void attention_f32_ref(const struct attention_args *a)
{
    attention(a, KV_F32, load_f32);
}

void attention_bf16_ref(const struct attention_args *a)
{
    attention(a, KV_BF16, load_bf16);
}

void attention_int8_ref(const struct attention_args *a)
{
    attention(a, KV_INT8, load_int8);
}

void attention_merge_ref(const struct attention_merge_args *a)
{
    ASSERT(a->n_chunks >= 1 && a->head_dim >= 1 && a->head_dim <= HEAD_DIM_MAX);
    struct softmax_state total = {.max = a->partials[0], .sum = a->partials[1], .o = a->total};
    for (size_t d = 0; d < a->head_dim; d++)
        total.o[d] = a->partials[ATTENTION_PARTIAL_LEAD + d];
    for (uint32_t c = 1; c < a->n_chunks; c++) {
        const float *partial = a->partials + c * a->stride;
        merge_ref(&total, partial[0], partial[1], partial + ATTENTION_PARTIAL_LEAD, a->head_dim);
    }
    for (size_t d = 0; d < a->head_dim; d++)
        a->out[d] = total.o[d] / total.sum;
}
