/* activation(gate) * up, alone and with the row in 8 bits. */
#include "kernels/cuda/quantize_device.h"
#include "kernels/ref/math_ref.h"

DEVICE float activate(float gate, uint32_t kind)
{
    if (kind == ACTIVATION_SILU)
        return gate / (1.0f + exp_ref(-gate));
    float inner = fmaf(GELU_CUBIC * (gate * gate), gate, gate);
    return gate / (1.0f + exp_ref(inner * GELU_SLOPE));
}

DEVICE bool rows_are_whole(const struct activation_mul_args &args)
{
    return (args.width | args.gate_up_stride | args.out_stride) % 4 == 0;
}

/* Four elements of gate and up from k of row r; zeros past the row. */
template <typename type>
DEVICE void load_gate_up(const struct activation_mul_args &args, uint32_t r, uint32_t k, float x[4],
                         float up[4])
{
    const type *gate = (const type *)args.gate_up + (size_t)r * args.gate_up_stride;
    bool whole = rows_are_whole(args);
    load_group(x, gate, k, args.width, whole);
    load_group(up, gate + args.width, k, args.width, whole);
}

/* Stored and left in x, rounded to type. */
template <typename type>
DEVICE void activate_group(const struct activation_mul_args &args, uint32_t r, uint32_t k, float x[4],
                           const float up[4])
{
    for (int i = 0; i < 4; i++)
        x[i] = act_round<type>(activate(x[i], args.kind) * up[i]);
    store_group((type *)args.out + (size_t)r * args.out_stride, x, k, args.width, rows_are_whole(args));
}

template <typename type> DEVICE void activation_mul(const struct activation_mul_args &args)
{
    dependents_launch();
    dependencies_wait();
    uint32_t r = block_x(), begin = block_y() * ACTIVATION_PIECE;
    if (r >= args.step->n_rows)
        return;
    uint32_t end = begin + ACTIVATION_PIECE < args.width ? begin + ACTIVATION_PIECE : args.width;
    for (uint32_t k = begin + 4 * thread_x(); k < end; k += 4 * ACTIVATION_THREADS) {
        float x[4], up[4];
        load_gate_up<type>(args, r, k, x, up);
        activate_group<type>(args, r, k, x, up);
    }
}

KERNEL_BOUNDS(activation_mul_f32, struct activation_mul_args, ACTIVATION_THREADS, 1)
{
    activation_mul<float>(args);
}

KERNEL_BOUNDS(activation_mul_bf16, struct activation_mul_args, ACTIVATION_THREADS, 1)
{
    activation_mul<uint16_t>(args);
}

enum { ACTIVATION_GROUPS = ACTIVATION_QUANTIZE_WIDTH_MAX / (4 * ACTIVATION_QUANTIZE_THREADS) };

/* The row's scale wants all of it: one block, which keeps the row in pairs of bf16. */
template <bool IS_E4M3>
DEVICE void activation_mul_quantize(const struct activation_mul_args &args, float *amax_parts)
{
    dependents_launch();
    dependencies_wait();
    uint32_t r = block_x(), n_padded = quantized_width(args.width);
    if (r >= args.step->n_rows)
        return;
    if (args.width > ACTIVATION_QUANTIZE_WIDTH_MAX)
        trap();
    /* Pairs of bf16: gate and up, all asked for before one is used; then the products. */
    uint32_t kept[ACTIVATION_GROUPS][2] = {{0}}, ups[ACTIVATION_GROUPS][2];
    float amax = 0, x[4], up[4];
#pragma unroll
    for (uint32_t g = 0; g < ACTIVATION_GROUPS; g++) {
        uint32_t k = 4 * (thread_x() + g * ACTIVATION_QUANTIZE_THREADS);
        if (k >= args.width)
            break;
        load_gate_up<uint16_t>(args, r, k, x, up);
        for (int i = 0; i < 2; i++) {
            kept[g][i] = to_bf16x2(x[2 * i], x[2 * i + 1]);
            ups[g][i] = to_bf16x2(up[2 * i], up[2 * i + 1]);
        }
    }
#pragma unroll
    for (uint32_t g = 0; g < ACTIVATION_GROUPS; g++) {
        uint32_t k = 4 * (thread_x() + g * ACTIVATION_QUANTIZE_THREADS);
        if (k >= args.width)
            break;
        for (int i = 0; i < 2; i++) {
            x[2 * i] = from_bf16_low(kept[g][i]);
            x[2 * i + 1] = from_bf16_high(kept[g][i]);
            up[2 * i] = from_bf16_low(ups[g][i]);
            up[2 * i + 1] = from_bf16_high(ups[g][i]);
        }
        activate_group<uint16_t>(args, r, k, x, up);
        for (int i = 0; i < 4; i++)
            amax = amax_add(amax, x[i]);
        kept[g][0] = to_bf16x2(x[0], x[1]);
        kept[g][1] = to_bf16x2(x[2], x[3]);
    }
    struct row_scale scale = row_scale_of<IS_E4M3>(block_max(amax, amax_parts));
#pragma unroll
    for (uint32_t g = 0; g < ACTIVATION_GROUPS; g++) {
        uint32_t k = 4 * (thread_x() + g * ACTIVATION_QUANTIZE_THREADS);
        if (k >= n_padded)
            break;
        for (int i = 0; i < 2; i++) {
            x[2 * i] = from_bf16_low(kept[g][i]);
            x[2 * i + 1] = from_bf16_high(kept[g][i]);
        }
        store_codes(&args.quantized, r, k, quantize_4<IS_E4M3>(x, scale.inverse));
    }
    if (thread_x() == 0)
        args.quantized.scale[r] = scale.scale;
}

KERNEL(activation_mul_s8, struct activation_mul_args)
{
    SHARED(float, amax_parts, [BLOCK_WARPS_MAX]);
    activation_mul_quantize<false>(args, amax_parts);
}

KERNEL(activation_mul_e4m3, struct activation_mul_args)
{
    SHARED(float, amax_parts, [BLOCK_WARPS_MAX]);
    activation_mul_quantize<true>(args, amax_parts);
}
