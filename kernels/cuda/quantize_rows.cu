/* Rows of activations to 8 bits with a scale each. */
#include "kernels/cuda/quantize_device.h"

/* A thread takes four inputs at a time. */
template <bool IS_E4M3> DEVICE void quantize_row(const struct quantize_rows_args &args, float *amax_parts)
{
    dependents_launch();
    dependencies_wait();
    uint32_t r = block_x(), n = args.n_in, n_padded = quantized_width(n);
    if (r >= count_rows(&args.rows))
        return;
    const uint16_t *row = (const uint16_t *)args.x + (size_t)r * args.x_stride;
    float amax = 0.0f, x[4];
#pragma unroll 4
    for (uint32_t k = 4 * thread_x(); k < n; k += 4 * QUANTIZE_ROWS_THREADS) {
        load_group(x, row, k, n, k + 4 <= n);
        for (int i = 0; i < 4; i++)
            amax = amax_add(amax, x[i]);
    }
    struct row_scale scale = row_scale_of<IS_E4M3>(block_max(amax, amax_parts));
    for (uint32_t k = 4 * thread_x(); k < n_padded; k += 4 * QUANTIZE_ROWS_THREADS) {
        load_group(x, row, k, n, k + 4 <= n);
        store_codes(&args.to, r, k, quantize_4<IS_E4M3>(x, scale.inverse));
    }
    if (thread_x() == 0)
        args.to.scale[r] = scale.scale;
}

KERNEL_BOUNDS(quantize_rows_s8, struct quantize_rows_args, QUANTIZE_ROWS_THREADS, 4)
{
    SHARED(float, amax_parts, [BLOCK_WARPS_MAX]);
    quantize_row<false>(args, amax_parts);
}

KERNEL_BOUNDS(quantize_rows_e4m3, struct quantize_rows_args, QUANTIZE_ROWS_THREADS, 4)
{
    SHARED(float, amax_parts, [BLOCK_WARPS_MAX]);
    quantize_row<true>(args, amax_parts);
}
