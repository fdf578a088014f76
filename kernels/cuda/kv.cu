/* What writes the KV cache: rotated keys and values of new tokens, and copies of blocks. */
#include "kernels/cuda/kv_device.h"
#include "kernels/ref/math_ref.h"

enum { HEAD_GROUPS = HEAD_DIM_MAX / WARP_LANES };

/* RMS norm of a head, lane l holding the elements l, l + 32, ..: the sum of squares runs in the reference's
 * 16 lanes (element i in lane i % 16, ascending) and tree, in both halves of the warp. */
DEVICE void norm_head(float x[HEAD_GROUPS], const float *weight, uint32_t head_dim, float eps)
{
    float sum = 0;
    bool upper = lane_id() >= WARP_LANES / 2;
#pragma unroll
    for (uint32_t g = 0; g < HEAD_GROUPS; g++) {
        if (g * WARP_LANES >= head_dim)
            break;
        float other = shuffle_xor(x[g], WARP_LANES / 2);
        float first = upper ? other : x[g], second = upper ? x[g] : other;
        sum = fmaf(second, second, fmaf(first, first, sum));
    }
    for (uint32_t step = LANES / 2; step > 0; step /= 2)
        sum += shuffle_xor(sum, step);
    float scale = 1.0f / sqrtf(sum / (float)head_dim + eps);
#pragma unroll
    for (uint32_t g = 0; g < HEAD_GROUPS; g++) {
        uint32_t i = g * WARP_LANES + lane_id();
        if (i < head_dim)
            x[g] = x[g] * scale * weight[i];
    }
}

/* head: shared, the warp's own, [head_dim]. */
DEVICE void rotate_head(float *head, const struct rope_kv_write_args &args, uint32_t position)
{
    const float *cosines = args.cosines + (size_t)position * args.n_freq;
    const float *sines = args.sines + (size_t)position * args.n_freq;
    for (uint32_t i = lane_id(); i < args.n_freq; i += WARP_LANES) {
        float x0 = head[i], x1 = head[i + args.n_freq];
        head[i] = fmaf(-x1, sines[i], x0 * cosines[i]);
        head[i + args.n_freq] = fmaf(x0, sines[i], x1 * cosines[i]);
    }
    warp_sync();
}

/* What head h of the row is. */
struct rope_head {
    bool is_q, is_v;
    uint32_t kv_head;
};

DEVICE struct rope_head head_of(const struct rope_kv_write_args &args, uint32_t h)
{
    struct rope_head head = {};
    head.is_q = h < args.n_heads;
    head.is_v = h >= args.n_heads + args.n_kv_heads;
    head.kv_head = head.is_q ? 0 : head.is_v ? h - args.n_heads - args.n_kv_heads : h - args.n_heads;
    return head;
}

/* Whole heads that no norm treats: a thread turns four pairs. All that it needs beside q, k and v is there
 * before they are. */
template <typename type> DEVICE void rope_quads(const struct rope_kv_write_args &args)
{
    uint32_t r = block_x(), quads = args.head_dim / 8, item = block_y() * ROPE_THREADS + thread_x();
    uint32_t h = item / quads, i = item % quads * 4, half = args.head_dim / 2;
    bool is_there = r < args.step->n_rows && h < args.n_heads + 2 * args.n_kv_heads;
    struct rope_head head = head_of(args, h);
    struct kv_place place = {};
    float cosines[4] = {1, 1, 1, 1}, sines[4] = {0, 0, 0, 0}, low[4], high[4], x[4], y[4];
    if (is_there) {
        struct step_row row = args.step->rows[r];
        if (!head.is_v) {
            act_load_4(cosines, args.cosines + (size_t)row.position * args.n_freq + i);
            act_load_4(sines, args.sines + (size_t)row.position * args.n_freq + i);
        }
        if (!head.is_q)
            place = kv_find(args.step, args.kv, row, head.kv_head, head.is_v ? CUDA_KV_V : CUDA_KV_K);
    }
    dependencies_wait();
    dependents_launch();
    if (!is_there)
        return;
    type *at = (type *)args.qkv + (size_t)r * args.qkv_stride + (size_t)h * args.head_dim + i;
    act_load_4(low, at);
    act_load_4(high, at + half);
    if (head.is_v) {
        memcpy(x, low, sizeof x);
        memcpy(y, high, sizeof y);
    } else {
        rope_turn_4(low, high, cosines, sines, x, y);
    }
    if (head.is_q) {
        act_store_4(at, x);
        act_store_4(at + half, y);
        return;
    }
    float scale = head.is_v ? args.kv.v_scale : args.kv.k_scale;
    uint32_t bytes = args.kv.element_bytes;
    kv_store_4(bytes, kv_element(place, bytes, i), x, scale);
    kv_store_4(bytes, kv_element(place, bytes, i + half), y, scale);
}

/* Any head: a warp each. */
template <typename type>
DEVICE void rope_heads(const struct rope_kv_write_args &args, float heads[ROPE_WARPS][HEAD_DIM_MAX])
{
    uint32_t r = block_x(), h = block_y() * ROPE_WARPS + warp_id(), d = args.head_dim;
    bool is_there = r < args.step->n_rows && h < args.n_heads + 2 * args.n_kv_heads;
    struct step_row row = {};
    struct rope_head of = head_of(args, h);
    struct kv_place place = {};
    if (is_there) {
        row = args.step->rows[r];
        if (!of.is_q)
            place = kv_find(args.step, args.kv, row, of.kv_head, of.is_v ? CUDA_KV_V : CUDA_KV_K);
    }
    dependencies_wait();
    dependents_launch();
    if (!is_there)
        return;
    type *in = (type *)args.qkv + (size_t)r * args.qkv_stride + (size_t)h * d;
    const float *norm = of.is_q ? args.q_norm : of.is_v ? NULL : args.k_norm;
    float *head = heads[warp_id()], x[HEAD_GROUPS];
#pragma unroll
    for (uint32_t g = 0; g < HEAD_GROUPS; g++) {
        uint32_t i = g * WARP_LANES + lane_id();
        x[g] = i < d ? act_load(in + i) : 0.0f;
    }
    if (norm != NULL)
        norm_head(x, norm, d, args.eps);
#pragma unroll
    for (uint32_t g = 0; g < HEAD_GROUPS; g++) {
        uint32_t i = g * WARP_LANES + lane_id();
        if (i < d)
            head[i] = x[g];
    }
    warp_sync();
    if (!of.is_v)
        rotate_head(head, args, row.position);
    if (of.is_q) {
        for (uint32_t i = lane_id(); i < d; i += WARP_LANES)
            act_store(in + i, head[i]);
        return;
    }
    float scale = of.is_v ? args.kv.v_scale : args.kv.k_scale;
    for (uint32_t i = lane_id(); i < d; i += WARP_LANES)
        kv_store(&args.kv, place, i, head[i], scale);
}

/* q and new keys are all that is written, and only when what came before the kernel in front has ended:
 * attention reads older keys before its own wait (docs/cuda.md). The step was there before the first kernel
 * behind its upload began. */
template <typename type> DEVICE void rope_kv_write(const struct rope_kv_write_args &args)
{
    SHARED(float, heads, [ROPE_WARPS][HEAD_DIM_MAX]);
    if (rope_is_by_quads(&args))
        rope_quads<type>(args);
    else
        rope_heads<type>(args, heads);
}

KERNEL_BOUNDS(rope_kv_write_f32, struct rope_kv_write_args, ROPE_WARPS *WARP_LANES, 1)
{
    rope_kv_write<float>(args);
}

KERNEL_BOUNDS(rope_kv_write_bf16, struct rope_kv_write_args, ROPE_WARPS *WARP_LANES, 1)
{
    rope_kv_write<uint16_t>(args);
}

KERNEL_BOUNDS(kv_copy, struct kv_copy_args, KV_COPY_THREADS, 1)
{
    dependencies_wait();
    dependents_launch();
    uint64_t at = 16 * ((uint64_t)block_x() * KV_COPY_THREADS + thread_x());
    if (at >= args.block_bytes)
        return;
    uint8_t *blocks = (uint8_t *)args.blocks + at;
    for (uint32_t i = 0; i < args.step->n_copies; i++) {
        struct step_copy copy = args.step->copies[i];
        store_16(blocks + copy.to_block * args.block_bytes,
                 load_16(blocks + copy.from_block * args.block_bytes));
    }
}
