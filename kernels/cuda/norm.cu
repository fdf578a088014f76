/* The residual's sum and its RMS norm, alone and with the normed row in 8 bits. A block for a row, so that
 * neighbours change nothing. */
#include "kernels/cuda/quantize_device.h"

/* Groups of four elements that a thread holds. */
enum { NORM_GROUPS = ADD_NORM_WIDTH_MAX / (4 * ADD_NORM_THREADS_MAX) };

struct norm_shared {
    float sum_parts[BLOCK_WARPS_MAX], add_parts[BLOCK_WARPS_MAX], amax_parts[BLOCK_WARPS_MAX];
};

/* 1 / rms of what is added. Group g of a thread is the elements from 4 * (thread + g * threads); it adds its
 * squares in that order, then the warp's tree, then the tree over the warps. */
template <typename type>
DEVICE float add_scale(const struct add_norm_args &args, const type *add, bool whole,
                       struct norm_shared *shared)
{
    float sum = 0;
#pragma unroll
    for (uint32_t g = 0; g < NORM_GROUPS; g++) {
        uint32_t k = 4 * (thread_x() + g * block_threads());
        if (k >= args.n)
            break;
        float delta[4];
        load_group(delta, add, k, args.n, whole);
        for (int i = 0; i < 4; i++)
            sum = fmaf(delta[i], delta[i], sum);
    }
    return 1.0f / sqrtf(block_sum(sum, shared->add_parts) / (float)args.n + args.eps);
}

/* Residual plus add, back to the residual; the sum of squares, in the order of add_scale. */
template <typename type>
DEVICE float add_rows(const struct add_norm_args &args, uint32_t r, bool whole, float x[NORM_GROUPS][4],
                      struct norm_shared *shared)
{
    float *residual = args.residual + (size_t)r * args.residual_stride, sum = 0, scale = 0;
    const type *add = args.add == NULL ? NULL : (const type *)args.add + (size_t)r * args.add_stride;
    if (args.add_weight != NULL)
        scale = add_scale(args, add, whole, shared);
#pragma unroll
    for (uint32_t g = 0; g < NORM_GROUPS; g++) {
        uint32_t k = 4 * (thread_x() + g * block_threads());
        if (k >= args.n)
            break;
        load_group(x[g], residual, k, args.n, whole);
        if (add != NULL) {
            float delta[4];
            load_group(delta, add, k, args.n, whole);
            if (args.add_weight != NULL) {
                float weight[4];
                load_group(weight, args.add_weight, k, args.n, whole);
                for (int i = 0; i < 4; i++)
                    delta[i] *= scale * weight[i];
            }
            for (int i = 0; i < 4; i++)
                x[g][i] += delta[i];
            store_group(residual, x[g], k, args.n, whole);
        }
        for (int i = 0; i < 4; i++)
            sum = fmaf(x[g][i], x[g][i], sum);
    }
    return block_sum(sum, shared->sum_parts);
}

/* The rows that the kernel has; leaves the normed values in x, rounded to type. */
template <typename type>
DEVICE bool add_norm(const struct add_norm_args &args, float x[NORM_GROUPS][4], struct norm_shared *shared)
{
    dependencies_wait();
    dependents_launch();
    uint32_t r = block_x();
    if (r >= args.step->n_rows)
        return false;
    if (args.n > ADD_NORM_WIDTH_MAX)
        trap();
    bool whole = (args.n | args.residual_stride | args.add_stride | args.out_stride) % 4 == 0;
    float sum = add_rows<type>(args, r, whole, x, shared);
    float scale = 1.0f / sqrtf(sum / (float)args.n + args.eps);
    type *out = (type *)args.out + (size_t)r * args.out_stride;
#pragma unroll
    for (uint32_t g = 0; g < NORM_GROUPS; g++) {
        uint32_t k = 4 * (thread_x() + g * block_threads());
        if (k >= args.n)
            break;
        float weight[4];
        load_group(weight, args.weight, k, args.n, whole);
        for (int i = 0; i < 4; i++)
            x[g][i] = act_round<type>(x[g][i] * scale * weight[i]);
        store_group(out, x[g], k, args.n, whole);
    }
    return true;
}

KERNEL(add_norm_f32, struct add_norm_args)
{
    SHARED(struct norm_shared, shared, );
    float x[NORM_GROUPS][4];
    add_norm<float>(args, x, &shared);
}

KERNEL(add_norm_bf16, struct add_norm_args)
{
    SHARED(struct norm_shared, shared, );
    float x[NORM_GROUPS][4];
    add_norm<uint16_t>(args, x, &shared);
}

template <bool IS_E4M3>
DEVICE void add_norm_quantize(const struct add_norm_args &args, struct norm_shared *shared)
{
    float x[NORM_GROUPS][4] = {{0}}, amax = 0;
    if (!add_norm<uint16_t>(args, x, shared))
        return;
    uint32_t n_padded = quantized_width(args.n);
#pragma unroll
    for (uint32_t g = 0; g < NORM_GROUPS; g++) {
        for (int i = 0; i < 4; i++)
            amax = amax_add(amax, x[g][i]); /* zeros past the row */
    }
    struct row_scale scale = row_scale_of<IS_E4M3>(block_max(amax, shared->amax_parts));
#pragma unroll
    for (uint32_t g = 0; g < NORM_GROUPS; g++) {
        uint32_t k = 4 * (thread_x() + g * block_threads());
        if (k < n_padded)
            store_codes(&args.quantized, block_x(), k, quantize_4<IS_E4M3>(x[g], scale.inverse));
    }
    if (thread_x() == 0)
        args.quantized.scale[block_x()] = scale.scale;
}

KERNEL(add_norm_s8, struct add_norm_args)
{
    SHARED(struct norm_shared, shared, );
    add_norm_quantize<false>(args, &shared);
}

KERNEL(add_norm_e4m3, struct add_norm_args)
{
    SHARED(struct norm_shared, shared, );
    add_norm_quantize<true>(args, &shared);
}
