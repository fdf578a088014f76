/* The residual's sum and its RMS norm, alone and with the normed row in 8 bits. A block for a row, so that
 * neighbours change nothing. */
#include "kernels/cuda/quantize_device.h"

/* Groups of four elements that a thread holds. */
enum { NORM_GROUPS = ADD_NORM_WIDTH_MAX / (4 * ADD_NORM_THREADS_MAX) };

struct norm_shared {
    float sum_parts[BLOCK_WARPS_MAX], add_parts[BLOCK_WARPS_MAX], amax_parts[BLOCK_WARPS_MAX];
};

/* What a thread holds of a row: group g is the elements from 4 * (thread + g * threads). */
struct norm_groups {
    float x[NORM_GROUPS][4], weight[NORM_GROUPS][4];
};

DEVICE uint32_t norm_group_first(uint32_t g)
{
    return 4 * (thread_x() + g * block_threads());
}

/* What is added, by its norm times add_weight. A thread adds its squares in the order of its groups, then
 * come the warp's tree and the tree over the warps. */
DEVICE void norm_delta(const struct add_norm_args &args, bool whole, float delta[NORM_GROUPS][4],
                       struct norm_shared *shared)
{
    float sum = 0;
#pragma unroll
    for (uint32_t g = 0; g < NORM_GROUPS; g++) {
        if (norm_group_first(g) >= args.n)
            break;
        for (int i = 0; i < 4; i++)
            sum = fmaf(delta[g][i], delta[g][i], sum);
    }
    float scale = 1.0f / sqrtf(block_sum(sum, shared->add_parts) / (float)args.n + args.eps);
#pragma unroll
    for (uint32_t g = 0; g < NORM_GROUPS; g++) {
        uint32_t k = norm_group_first(g);
        if (k >= args.n)
            break;
        float weight[4];
        load_group(weight, args.add_weight, k, args.n, whole);
        for (int i = 0; i < 4; i++)
            delta[g][i] *= scale * weight[i];
    }
}

/* Residual plus add, back to the residual; the thread's sum of squares, in the order of its groups. All loads
 * are asked for before one is used. */
template <typename type>
DEVICE float add_rows(const struct add_norm_args &args, uint32_t r, bool whole, float x[NORM_GROUPS][4],
                      struct norm_shared *shared)
{
    float *residual = args.residual + (size_t)r * args.residual_stride, sum = 0;
    const type *add = args.add == NULL ? NULL : (const type *)args.add + (size_t)r * args.add_stride;
    float delta[NORM_GROUPS][4];
#pragma unroll
    for (uint32_t g = 0; g < NORM_GROUPS; g++) {
        uint32_t k = norm_group_first(g);
        if (k < args.n)
            load_group(x[g], residual, k, args.n, whole);
        if (k < args.n && add != NULL)
            load_group(delta[g], add, k, args.n, whole);
    }
    if (args.add_weight != NULL)
        norm_delta(args, whole, delta, shared);
#pragma unroll
    for (uint32_t g = 0; g < NORM_GROUPS; g++) {
        uint32_t k = norm_group_first(g);
        if (k >= args.n)
            break;
        if (add != NULL) {
            for (int i = 0; i < 4; i++)
                x[g][i] += delta[g][i];
            store_group(residual, x[g], k, args.n, whole);
        }
        for (int i = 0; i < 4; i++)
            sum = fmaf(x[g][i], x[g][i], sum);
    }
    return sum;
}

/* The rows that the kernel has; leaves the normed values in x, rounded to type. The weight does not hang on
 * the kernel in front. */
template <typename type>
DEVICE bool add_norm(const struct add_norm_args &args, struct norm_groups *row, struct norm_shared *shared)
{
    if (args.n > ADD_NORM_WIDTH_MAX)
        trap();
    bool whole = (args.n | args.residual_stride | args.add_stride | args.out_stride) % 4 == 0;
    for (uint32_t k = norm_group_first(0); k < args.n; k += 4 * block_threads())
        prefetch_l2(args.weight + k);
    dependents_launch();
    dependencies_wait();
    uint32_t r = block_x();
    if (r >= args.step->n_rows)
        return false;
    float sum = add_rows<type>(args, r, whole, row->x, shared);
#pragma unroll
    for (uint32_t g = 0; g < NORM_GROUPS; g++) {
        if (norm_group_first(g) < args.n)
            load_group(row->weight[g], args.weight, norm_group_first(g), args.n, whole);
    }
    sum = block_sum(sum, shared->sum_parts); /* the warp's tree, then the tree over the warps */
    float scale = 1.0f / sqrtf(sum / (float)args.n + args.eps);
    type *out = (type *)args.out + (size_t)r * args.out_stride;
#pragma unroll
    for (uint32_t g = 0; g < NORM_GROUPS; g++) {
        uint32_t k = norm_group_first(g);
        if (k >= args.n)
            break;
        for (int i = 0; i < 4; i++)
            row->x[g][i] = act_round<type>(row->x[g][i] * scale * row->weight[g][i]);
        store_group(out, row->x[g], k, args.n, whole);
    }
    return true;
}

KERNEL(add_norm_f32, struct add_norm_args)
{
    SHARED(struct norm_shared, shared, );
    struct norm_groups row;
    add_norm<float>(args, &row, &shared);
}

KERNEL(add_norm_bf16, struct add_norm_args)
{
    SHARED(struct norm_shared, shared, );
    struct norm_groups row;
    add_norm<uint16_t>(args, &row, &shared);
}

template <bool IS_E4M3>
DEVICE void add_norm_quantize(const struct add_norm_args &args, struct norm_shared *shared)
{
    struct norm_groups row = {};
    float amax = 0;
    if (!add_norm<uint16_t>(args, &row, shared))
        return;
    uint32_t n_padded = quantized_width(args.n);
#pragma unroll
    for (uint32_t g = 0; g < NORM_GROUPS; g++) {
        for (int i = 0; i < 4; i++)
            amax = amax_add(amax, row.x[g][i]); /* zeros past the row */
    }
    struct row_scale scale = row_scale_of<IS_E4M3>(block_max(amax, shared->amax_parts));
#pragma unroll
    for (uint32_t g = 0; g < NORM_GROUPS; g++) {
        uint32_t k = norm_group_first(g);
        if (k < n_padded)
            store_codes(&args.quantized, block_x(), k, quantize_4<IS_E4M3>(row.x[g], scale.inverse));
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
