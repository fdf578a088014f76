/* Reference of paged attention in tiles: tiles.h says what it computes. One query after the other, chunk by
 * chunk. */
#include <math.h>
#include <string.h>
#include "base/assert.h"
#include "kernels/kernel_table.h"
#include "kernels/ref/attention_merge_ref.h"
#include "kernels/ref/flush_ref.h"
#include "kernels/ref/math_ref.h"
#include "kernels/ref/tile_block_ref.h"

/* A query in a chunk: the tokens [first, end) of it that it sees, positions; all are in a chunk. */
struct view {
    const struct attention_args *a;
    const struct attention_query *query;
    enum kv_dtype dtype;
    uint32_t first, end;
};

/* Where the head's K begins in the block of a position. */
static size_t block_at(const struct view *view, uint32_t position)
{
    const struct attention_args *a = view->a;
    size_t block = view->query->block_table[position / KV_BLOCK_TOKENS];
    return (block * a->n_kv_heads + a->kv_head) * kv_head_stride(view->dtype, a->head_dim) +
           kv_head_lead(view->dtype);
}

static float read_kv(const struct view *view, size_t index)
{
    return view->dtype == KV_BF16 ? flush_ref(bf16_to_f32(((const uint16_t *)view->a->kv)[index]))
                                  : (float)((const int8_t *)view->a->kv)[index];
}

/* int8: of K, or of V. */
static float read_scale(const struct view *view, uint32_t position, bool of_v)
{
    const uint8_t *head = (const uint8_t *)view->a->kv + block_at(view, position) - kv_head_lead(KV_INT8);
    return bf16_to_f32(((const uint16_t *)head)[(of_v ? KV_BLOCK_TOKENS : 0) + position % KV_BLOCK_TOKENS]);
}

/* Dimensions [d, d + TILE_INPUTS) of K by the tokens from position `from` on; zeros for what is not visible.
 */
static void read_keys(const struct view *view, uint32_t from, size_t d, float *w)
{
    memset(w, 0, TILE_INPUTS * TILE_BLOCK_OUTPUTS * sizeof *w);
    for (uint32_t t = 0; t < TILE_BLOCK_OUTPUTS; t++) {
        if (from + t < view->first || from + t >= view->end)
            continue;
        size_t k0 = block_at(view, from + t) + (from + t) % KV_BLOCK_TOKENS;
        for (size_t i = 0; i < TILE_INPUTS && d + i < view->a->head_dim; i++)
            w[i * TILE_BLOCK_OUTPUTS + t] = read_kv(view, k0 + (d + i) * KV_BLOCK_TOKENS);
    }
}

/* The tokens from position `from` on by dimensions [d, d + TILE_BLOCK_OUTPUTS) of V, likewise. */
static void read_values(const struct view *view, uint32_t from, size_t d, float *w)
{
    const size_t head_dim = view->a->head_dim, d_stride = round_up(head_dim, LANES);
    memset(w, 0, TILE_INPUTS * TILE_BLOCK_OUTPUTS * sizeof *w);
    for (uint32_t t = 0; t < TILE_INPUTS; t++) {
        if (from + t < view->first || from + t >= view->end)
            continue;
        size_t v0 =
            block_at(view, from + t) + head_dim * KV_BLOCK_TOKENS + (from + t) % KV_BLOCK_TOKENS * d_stride;
        for (size_t i = 0; i < TILE_BLOCK_OUTPUTS && d + i < head_dim; i++)
            w[t * TILE_BLOCK_OUTPUTS + i] = read_kv(view, v0 + d + i);
    }
}

/* scores: [ATTENTION_CHUNK_TOKENS]; of tokens that are not visible they mean nothing. Returns the greatest.
 */
static float score_tokens(const struct view *view, float *scores)
{
    const struct attention_args *a = view->a;
    uint16_t q[HEAD_DIM_MAX + TILE_INPUTS];
    float w[TILE_INPUTS * TILE_BLOCK_OUTPUTS], max = -INFINITY;
    round_row_ref(view->query->q, a->head_dim, q);
    memset(scores, 0, ATTENTION_CHUNK_TOKENS * sizeof *scores);
    for (uint32_t from = view->first / TILE_INPUTS * TILE_INPUTS; from < view->end; from += TILE_INPUTS) {
        for (size_t d = 0; d < a->head_dim; d += TILE_INPUTS) {
            read_keys(view, from, d, w);
            tile_block_ref(w, q + d, scores + from % ATTENTION_CHUNK_TOKENS);
        }
    }
    for (uint32_t position = view->first; position < view->end; position++) {
        float score = scores[position % ATTENTION_CHUNK_TOKENS];
        if (view->dtype == KV_INT8)
            score *= read_scale(view, position, false);
        score *= a->scale;
        if (a->soft_cap > 0)
            score = a->soft_cap * tanh_ref(score / a->soft_cap);
        max = score > max ? score : max;
        scores[position % ATTENTION_CHUNK_TOKENS] = score;
    }
    return max;
}

/* p: [ATTENTION_CHUNK_TOKENS] bf16, of V's products. Returns l. */
static float weigh_tokens(const struct view *view, const float *scores, float max, uint16_t *p)
{
    float lanes[LANES] = {0};
    memset(p, 0, ATTENTION_CHUNK_TOKENS * sizeof *p);
    for (uint32_t position = view->first; position < view->end; position++) {
        uint32_t t = position % ATTENTION_CHUNK_TOKENS;
        float weight = exp_ref(scores[t] - max);
        bool is_int8 = view->dtype == KV_INT8;
        p[t] = bf16_from_f32(flush_ref(is_int8 ? weight * read_scale(view, position, true) : weight));
        lanes[t % LANES] += is_int8 ? weight : bf16_to_f32(p[t]);
    }
    return sum_lanes_ref(lanes);
}

/* o: [head_dim]. */
static void sum_values(const struct view *view, const uint16_t *p, float *o)
{
    float w[TILE_INPUTS * TILE_BLOCK_OUTPUTS];
    for (size_t d = 0; d < view->a->head_dim; d += TILE_BLOCK_OUTPUTS) {
        float sums[TILE_BLOCK_OUTPUTS] = {0};
        for (uint32_t from = view->first / TILE_INPUTS * TILE_INPUTS; from < view->end; from += TILE_INPUTS) {
            read_values(view, from, d, w);
            tile_block_ref(w, p + from % ATTENTION_CHUNK_TOKENS, sums);
        }
        for (size_t i = 0; i < TILE_BLOCK_OUTPUTS && d + i < view->a->head_dim; i++)
            o[d + i] = sums[i] + 0.0f;
    }
}

static void attend_chunk(const struct view *view, struct softmax_state *state)
{
    float scores[ATTENTION_CHUNK_TOKENS];
    uint16_t p[ATTENTION_CHUNK_TOKENS];
    state->max = score_tokens(view, scores);
    state->sum = weigh_tokens(view, scores, state->max, p);
    sum_values(view, p, state->o);
}

static void attention(const struct attention_args *a, enum kv_dtype dtype)
{
    ASSERT(a->n_queries >= 1 && a->n_queries <= TILE_QUERIES_MAX);
    ASSERT(a->head_dim >= 1 && a->head_dim <= HEAD_DIM_MAX && a->kv_head < a->n_kv_heads);
    for (uint32_t i = 0; i < a->n_queries; i++) {
        const struct attention_query *query = &a->queries[i];
        ASSERT(query->first <= query->last);
        for (uint32_t b = 0; b < a->n_shared; b++)
            ASSERT(query->block_table[b] == a->queries[0].block_table[b]);
        const uint32_t first_chunk = query->first / ATTENTION_CHUNK_TOKENS,
                       end_chunk = query->last / ATTENTION_CHUNK_TOKENS + 1;
        struct softmax_state state = {.o = a->scratch}, total = {.o = a->scratch + a->head_dim};
        for (uint32_t chunk = first_chunk; chunk < end_chunk; chunk++) {
            if (a->partials != NULL && (chunk < a->first_chunk || chunk >= a->end_chunk))
                continue;
            const uint32_t start = chunk * ATTENTION_CHUNK_TOKENS, end = start + ATTENTION_CHUNK_TOKENS;
            const struct view view = {a, query, dtype, query->first > start ? query->first : start,
                                      query->last < end ? query->last + 1 : end};
            attend_chunk(&view, &state);
            end_chunk_ref(a, i, chunk, chunk == first_chunk, &state, &total);
        }
        for (size_t d = 0; a->partials == NULL && d < a->head_dim; d++)
            query->out[d] = total.o[d] / total.sum;
    }
}

void attention_tile_bf16_ref(const struct attention_args *a)
{
    attention(a, KV_BF16);
}

void attention_tile_int8_ref(const struct attention_args *a)
{
    attention(a, KV_INT8);
}
