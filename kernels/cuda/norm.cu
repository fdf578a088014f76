/* The residual's sum and its RMS norm, alone and with the normed row in 8 bits. A block for a row, so that
 * neighbours change nothing. */
#include "kernels/cuda/quantize_device.h"

enum { NORM_GROUPS_MAX = 4 /* of four elements, that a thread holds */ };
static_assert(ADD_NORM_WIDTH_MAX <= 4 * NORM_GROUPS_MAX * ADD_NORM_THREADS_MAX, "a row by one block");

struct norm_shared {
    float sum_parts[BLOCK_WARPS_MAX], add_parts[BLOCK_WARPS_MAX];
    uint32_t amax_parts[BLOCK_WARPS_MAX];
};

/* What a thread holds of a row: group g is the elements from 4 * (thread + g * threads). */
template <uint32_t GROUPS> struct norm_groups {
    float x[GROUPS][4], weight[GROUPS][4];
};

DEVICE uint32_t norm_group_first(uint32_t g)
{
    return 4 * (thread_x() + g * block_threads());
}

/* The sum of the squares of a row. of_warps: those of 128 neighbours by a warp's tree, then the tree over
 * such sums. Else a thread adds its own in the order of its groups, then come the warp's tree and the tree
 * over the warps. */
template <uint32_t GROUPS>
DEVICE float norm_squares(uint32_t n, bool of_warps, const float x[GROUPS][4], float parts[BLOCK_WARPS_MAX])
{
    float sums[GROUPS], sum = 0;
#pragma unroll
    for (uint32_t g = 0; g < GROUPS; g++) {
        sums[g] = 0;
        if (norm_group_first(g) < n) {
            sums[g] = of_warps ? 0 : sum;
#pragma unroll
            for (int i = 0; i < 4; i++)
                sums[g] = fmaf(x[g][i], x[g][i], sums[g]);
            sum = sums[g];
        }
    }
    if (!of_warps)
        return block_sum(sum, parts);
#pragma unroll
    for (uint32_t g = 0; g < GROUPS; g++) {
        uint32_t part = warp_id() + g * (block_threads() / WARP_LANES);
        sums[g] = warp_sum(sums[g]);
        if (lane_id() == 0 && part < BLOCK_WARPS_MAX)
            parts[part] = sums[g];
    }
    barrier();
    return warp_sum(lane_id() < ceil_div(n, 4 * WARP_LANES) ? parts[lane_id()] : 0.0f);
}

/* What is added, by its norm times add_weight. */
template <uint32_t GROUPS>
DEVICE void norm_delta(const struct add_norm_args &args, bool of_warps, bool whole, float delta[GROUPS][4],
                       struct norm_shared *shared)
{
    float sum = norm_squares<GROUPS>(args.n, of_warps, delta, shared->add_parts);
    float scale = 1.0f / sqrtf(sum / (float)args.n + args.eps);
#pragma unroll
    for (uint32_t g = 0; g < GROUPS; g++) {
        uint32_t k = norm_group_first(g);
        if (k >= args.n)
            break;
        float weight[4];
        load_group(weight, args.add_weight, k, args.n, whole);
        for (int i = 0; i < 4; i++)
            delta[g][i] *= scale * weight[i];
    }
}

/* Residual plus add, back to the residual. All loads are asked for before one is used. */
template <typename type, uint32_t GROUPS>
DEVICE void add_rows(const struct add_norm_args &args, uint32_t r, bool of_warps, bool whole,
                     float x[GROUPS][4], struct norm_shared *shared)
{
    float *residual = args.residual + (size_t)r * args.residual_stride;
    const type *add = args.add == NULL ? NULL : (const type *)args.add + (size_t)r * args.add_stride;
    float delta[GROUPS][4];
#pragma unroll
    for (uint32_t g = 0; g < GROUPS; g++) {
        uint32_t k = norm_group_first(g);
        if (k < args.n)
            load_group(x[g], residual, k, args.n, whole);
        if (k < args.n && add != NULL)
            load_group(delta[g], add, k, args.n, whole);
    }
    if (add == NULL)
        return;
    if (args.add_weight != NULL)
        norm_delta<GROUPS>(args, of_warps, whole, delta, shared);
#pragma unroll
    for (uint32_t g = 0; g < GROUPS; g++) {
        uint32_t k = norm_group_first(g);
        if (k >= args.n)
            break;
        for (int i = 0; i < 4; i++)
            x[g][i] += delta[g][i];
        store_group(residual, x[g], k, args.n, whole);
    }
}

template <uint32_t GROUPS>
DEVICE void load_weight(const struct add_norm_args &args, bool whole, float weight[GROUPS][4])
{
#pragma unroll
    for (uint32_t g = 0; g < GROUPS; g++) {
        if (norm_group_first(g) < args.n)
            load_group(weight[g], args.weight, norm_group_first(g), args.n, whole);
    }
}

/* The row that the block has; leaves the normed values in x, rounded to type. Neither the weight nor the step
 * hangs on the kernel in front. */
template <typename type, uint32_t GROUPS>
DEVICE bool add_norm(const struct add_norm_args &args, struct norm_groups<GROUPS> *row,
                     struct norm_shared *shared)
{
    bool whole = (args.n | args.residual_stride | args.add_stride | args.out_stride) % 4 == 0;
    bool of_warps = add_norm_is_of_warps(args.n);
    uint32_t r = block_x(), n_rows = count_rows(&args.rows);
    if (args.n > ADD_NORM_WIDTH_MAX)
        trap();
    if (GROUPS == 1)
        load_weight<GROUPS>(args, whole, row->weight);
    for (uint32_t k = norm_group_first(0); GROUPS > 1 && k < args.n; k += 4 * block_threads())
        prefetch_l2(args.weight + k);
    dependents_launch();
    dependencies_wait();
    if (r >= n_rows)
        return false;
    add_rows<type, GROUPS>(args, r, of_warps, whole, row->x, shared);
    if (GROUPS > 1)
        load_weight<GROUPS>(args, whole, row->weight); /* while others are summed */
    float sum = norm_squares<GROUPS>(args.n, of_warps, row->x, shared->sum_parts);
    float scale = 1.0f / sqrtf(sum / (float)args.n + args.eps);
    type *out = (type *)args.out + (size_t)r * args.out_stride;
#pragma unroll
    for (uint32_t g = 0; g < GROUPS; g++) {
        uint32_t k = norm_group_first(g);
        if (k >= args.n)
            break;
        for (int i = 0; i < 4; i++)
            row->x[g][i] = act_round<type>(row->x[g][i] * scale * row->weight[g][i]);
        store_group(out, row->x[g], k, args.n, whole);
    }
    return true;
}

/* A group for a thread is what few rows have. */
DEVICE bool is_one_group(const struct add_norm_args &args)
{
    return args.n <= 4 * block_threads();
}

template <typename type> DEVICE void norm_only(const struct add_norm_args &args, struct norm_shared *shared)
{
    if (is_one_group(args)) {
        struct norm_groups<1> row;
        add_norm<type, 1>(args, &row, shared);
    } else {
        struct norm_groups<NORM_GROUPS_MAX> row;
        add_norm<type, NORM_GROUPS_MAX>(args, &row, shared);
    }
}

KERNEL(add_norm_f32, struct add_norm_args)
{
    SHARED(struct norm_shared, shared, );
    norm_only<float>(args, &shared);
}

KERNEL(add_norm_bf16, struct add_norm_args)
{
    SHARED(struct norm_shared, shared, );
    norm_only<uint16_t>(args, &shared);
}

template <bool IS_E4M3, uint32_t GROUPS>
DEVICE void norm_quantize(const struct add_norm_args &args, struct norm_shared *shared)
{
    struct norm_groups<GROUPS> row = {
    };
    uint32_t amax = 0, n_padded = quantized_width(args.n), pairs[GROUPS][2];
    if (!add_norm<uint16_t, GROUPS>(args, &row, shared))
        return;
#pragma unroll
    for (uint32_t g = 0; g < GROUPS; g++) {
        for (int i = 0; i < 2; i++) {
            pairs[g][i] = to_bf16x2(row.x[g][2 * i], row.x[g][2 * i + 1]); /* zeros past the row */
            amax = amax_add_pair(amax, pairs[g][i]);
        }
    }
    struct row_scale scale = row_scale_of<IS_E4M3>(block_amax(amax, shared->amax_parts));
#pragma unroll
    for (uint32_t g = 0; g < GROUPS; g++) {
        uint32_t k = norm_group_first(g);
        if (k < n_padded)
            store_codes_4(&args.quantized, block_x(), k,
                          quantize_4<IS_E4M3>(pairs[g][0], pairs[g][1], scale.inverse));
    }
    if (thread_x() == 0)
        args.quantized.scale[block_x()] = scale.scale;
}

template <bool IS_E4M3>
DEVICE void add_norm_quantize(const struct add_norm_args &args, struct norm_shared *shared)
{
    if (is_one_group(args))
        norm_quantize<IS_E4M3, 1>(args, shared);
    else
        norm_quantize<IS_E4M3, NORM_GROUPS_MAX>(args, shared);
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
