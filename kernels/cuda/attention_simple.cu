/* Paged attention in a simple form that takes every shape and type: a block for one row and head. Keys are
 * walked in splits at fixed positions; each split is a softmax of its own in f32, and splits are merged in
 * ascending order, so prefill and decode give the same bits. */
#include "kernels/cuda/device_rows.h"
#include "kernels/ref/math_ref.h"

enum {
    SPLIT_TOKENS_PER_THREAD = CUDA_KV_SPLIT_TOKENS / ATTENTION_SIMPLE_THREADS,
    DIMS_PER_THREAD = ATTENTION_SIMPLE_DIM_MAX / ATTENTION_SIMPLE_THREADS,
};

struct attention_shared {
    float q[ATTENTION_SIMPLE_DIM_MAX];
    float p[CUDA_KV_SPLIT_TOKENS];
    float max_parts[BLOCK_WARPS_MAX], sum_parts[BLOCK_WARPS_MAX];
};

/* The tile of one kind of one block of the sequence. */
DEVICE const uint8_t *kv_tile(const struct attention_simple_args &args, const uint32_t *table,
                              uint32_t position, uint32_t kv_head, enum cuda_kv_part part)
{
    uint32_t tile_bytes = cuda_kv_tile_bytes(args.head_dim, args.kv.element_bytes);
    uint32_t block = table[position / CUDA_KV_BLOCK_TOKENS];
    return args.kv.blocks + cuda_kv_tile_offset(args.kv.n_kv_heads, tile_bytes, block, kv_head, part);
}

DEVICE float kv_load(const struct cuda_kv_cache *kv, const uint8_t *tile, uint32_t token, uint32_t i,
                     float scale)
{
    uint32_t row_pieces = cuda_kv_row_pieces(kv->head_dim, kv->element_bytes);
    const uint8_t *at = tile + cuda_kv_element_offset(row_pieces, kv->element_bytes, token, i);
    if (kv->element_bytes == 4)
        return *(const float *)at;
    return kv->element_bytes == 2 ? from_bf16(*(const uint16_t *)at) : from_e4m3(*at) * scale;
}

DEVICE float score_of(const struct attention_simple_args &args, const float *q, const uint8_t *tile,
                      uint32_t token)
{
    float score = 0;
    for (uint32_t i = 0; i < args.head_dim; i++)
        score = fmaf(q[i], kv_load(&args.kv, tile, token, i, args.kv.k_scale), score);
    score *= args.scale;
    return args.soft_cap > 0 ? args.soft_cap * tanh_ref(score / args.soft_cap) : score;
}

/* Scores of the positions [begin, end) of the split that begins at `start`, as probabilities without their
 * common divisor; returns the maximum, *sum is theirs. */
DEVICE float soften_split(const struct attention_simple_args &args, struct attention_shared *shared,
                          const uint32_t *table, uint32_t kv_head, uint32_t start, uint32_t begin,
                          uint32_t end, float *sum)
{
    float scores[SPLIT_TOKENS_PER_THREAD], max = -INFINITY;
#pragma unroll
    for (uint32_t i = 0; i < SPLIT_TOKENS_PER_THREAD; i++) {
        uint32_t t = start + i * ATTENTION_SIMPLE_THREADS + thread_x();
        scores[i] = -INFINITY;
        if (t >= begin && t < end)
            scores[i] = score_of(args, shared->q, kv_tile(args, table, t, kv_head, CUDA_KV_K),
                                 t % CUDA_KV_BLOCK_TOKENS);
        max = fmaxf(max, scores[i]);
    }
    max = block_max(max, shared->max_parts);
    float part = 0;
#pragma unroll
    for (uint32_t i = 0; i < SPLIT_TOKENS_PER_THREAD; i++) {
        float p = scores[i] == -INFINITY ? 0.0f : exp_ref(scores[i] - max);
        shared->p[i * ATTENTION_SIMPLE_THREADS + thread_x()] = p;
        part += p;
    }
    *sum = block_sum(part, shared->sum_parts); /* its barrier shows p to everybody */
    return max;
}

template <typename type> DEVICE void attention_simple(const struct attention_simple_args &args)
{
    SHARED(struct attention_shared, shared, );
    dependencies_wait();
    dependents_launch();
    uint32_t r = block_x(), head = block_y(), d = args.head_dim;
    if (r >= args.step->n_rows)
        return;
    struct step_row row = args.step->rows[r];
    const uint32_t *table =
        args.step->block_tables[args.kv.group] + (size_t)row.seq * args.step->blocks_per_seq;
    uint32_t kv_head = head / (args.n_heads / args.n_kv_heads), last = row.position;
    uint32_t first = args.window > 0 && last >= args.window ? last - args.window + 1 : 0;
    const type *q = (const type *)args.qkv + (size_t)r * args.qkv_stride + (size_t)head * d;
    for (uint32_t i = thread_x(); i < d; i += ATTENTION_SIMPLE_THREADS)
        shared.q[i] = act_load(q + i);
    barrier();
    float o[DIMS_PER_THREAD] = {0}, max = -INFINITY, sum = 0;
    for (uint32_t start = first / CUDA_KV_SPLIT_TOKENS * CUDA_KV_SPLIT_TOKENS; start <= last;
         start += CUDA_KV_SPLIT_TOKENS) {
        uint32_t begin = first > start ? first : start;
        uint32_t end = last + 1 < start + CUDA_KV_SPLIT_TOKENS ? last + 1 : start + CUDA_KV_SPLIT_TOKENS;
        float split_sum;
        float split_max = soften_split(args, &shared, table, kv_head, start, begin, end, &split_sum);
        float new_max = fmaxf(max, split_max);
        float keep = exp_ref(max - new_max), take = exp_ref(split_max - new_max);
        sum = fmaf(sum, keep, split_sum * take);
        max = new_max;
#pragma unroll
        for (uint32_t j = 0; j < DIMS_PER_THREAD; j++) {
            uint32_t i = j * ATTENTION_SIMPLE_THREADS + thread_x();
            if (i >= d)
                break;
            float part = 0;
            for (uint32_t t = begin; t < end; t++)
                part = fmaf(shared.p[t - start],
                            kv_load(&args.kv, kv_tile(args, table, t, kv_head, CUDA_KV_V),
                                    t % CUDA_KV_BLOCK_TOKENS, i, args.kv.v_scale),
                            part);
            o[j] = fmaf(o[j], keep, part * take);
        }
        barrier(); /* before the next split's p */
    }
    type *out = (type *)args.out + (size_t)r * args.out_stride + (size_t)head * d;
#pragma unroll
    for (uint32_t j = 0; j < DIMS_PER_THREAD; j++) {
        uint32_t i = j * ATTENTION_SIMPLE_THREADS + thread_x();
        if (i < d)
            act_store(out + i, o[j] / sum);
    }
}

KERNEL_BOUNDS(attention_simple_f32, struct attention_simple_args, ATTENTION_SIMPLE_THREADS, 1)
{
    attention_simple<float>(args);
}

KERNEL_BOUNDS(attention_simple_bf16, struct attention_simple_args, ATTENTION_SIMPLE_THREADS, 1)
{
    attention_simple<uint16_t>(args);
}
