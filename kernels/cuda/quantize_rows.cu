/* Rows of activations in the blocks that wgmma multiplies (linear_layout.h): in 8 bits with a scale each, or
 * as they are. */
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

KERNEL_BOUNDS(arrange_rows_bf16, struct quantize_rows_args, QUANTIZE_ROWS_THREADS, 2)
{
    uint32_t r = block_x(), n_rows = count_rows(&args.rows);
    dependents_launch();
    dependencies_wait();
    if (r >= n_rows)
        return;
    const uint16_t *row = (const uint16_t *)args.x + (size_t)r * args.x_stride;
    uint32_t n_padded = ceil_div(args.n_in, LINEAR_BLOCK_BYTES / 2) * (LINEAR_BLOCK_BYTES / 2);
    for (uint32_t k = 8 * thread_x(); k < n_padded; k += 8 * block_threads())
        store_16(args.to.q + linear_activation_offset(args.to.rows_stride, r, 2 * k),
                 load_piece(row, k, args.n_in));
}

KERNEL_BOUNDS(quantize_rows_s8, struct quantize_rows_args, QUANTIZE_ROWS_THREADS, 2)
{
    quantize_rows<false>(args);
}

KERNEL_BOUNDS(quantize_rows_e4m3, struct quantize_rows_args, QUANTIZE_ROWS_THREADS, 2)
{
    quantize_rows<true>(args);
}
