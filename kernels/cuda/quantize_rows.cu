/* Rows of activations to 8 bits with a scale each. */
#include "kernels/cuda/quantize_device.h"

template <bool IS_E4M3> DEVICE void quantize_rows(const struct quantize_rows_args &args)
{
    SHARED(uint32_t, parts, [BLOCK_WARPS_MAX]);
    uint32_t r = block_x(), n_rows = count_rows(&args.rows);
    dependents_launch();
    dependencies_wait();
    if (r < n_rows)
        quantize_row<IS_E4M3>(&args.to, r, (const uint16_t *)args.x + (size_t)r * args.x_stride, args.n_in,
                              parts);
}

KERNEL_BOUNDS(quantize_rows_s8, struct quantize_rows_args, QUANTIZE_ROWS_THREADS, 2)
{
    quantize_rows<false>(args);
}

KERNEL_BOUNDS(quantize_rows_e4m3, struct quantize_rows_args, QUANTIZE_ROWS_THREADS, 2)
{
    quantize_rows<true>(args);
}
