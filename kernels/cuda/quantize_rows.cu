/* Rows of activations to 8 bits with a scale each. */
#include "kernels/cuda/device_rows.h"

enum { QUANTIZE_WARPS = QUANTIZE_ROWS_THREADS / 32 };

/* The greatest magnitude of a row; infinity where there is an infinity or a NaN. Same bits in every thread.
 */
DEVICE float row_amax(const uint16_t *x, uint32_t n)
{
    SHARED(float, warp_amax, [QUANTIZE_WARPS]);
    float amax = 0.0f;
    for (uint32_t k = thread_x(); k < n; k += QUANTIZE_ROWS_THREADS) {
        float magnitude = fabsf(from_bf16(x[k]));
        amax = magnitude <= amax ? amax : magnitude < INFINITY ? magnitude : INFINITY;
    }
    amax = warp_max(amax);
    if (lane_id() == 0)
        warp_amax[warp_id()] = amax;
    barrier();
    for (uint32_t w = 0; w < QUANTIZE_WARPS; w++)
        amax = fmaxf(amax, warp_amax[w]);
    return amax;
}

DEVICE uint8_t to_s8(float x)
{
    return (uint8_t)(int32_t)rintf(x); /* |x| <= 127 and a rounding, which rint takes away */
}

/* IS_E4M3: else int8. A thread takes four inputs at a time. */
template <bool IS_E4M3> DEVICE void quantize_row(const struct quantize_rows_args &args)
{
    dependents_launch();
    dependencies_wait();
    uint32_t row = block_x();
    if (row >= count_rows(&args.rows))
        return;
    constexpr float LIMIT = IS_E4M3 ? 448.0f : 127.0f;
    const uint16_t *x = (const uint16_t *)args.x + (size_t)row * args.x_stride;
    float amax = row_amax(x, args.n_in);
    float inverse = amax > 0.0f ? LIMIT / amax : 0.0f;
    bool is_bad = !(amax < INFINITY);
    uint32_t n_padded = ceil_div(args.n_in, LINEAR_BLOCK_BYTES) * LINEAR_BLOCK_BYTES;
    for (uint32_t k = thread_x() * 4; k < n_padded; k += QUANTIZE_ROWS_THREADS * 4) {
        uint32_t codes = 0;
#pragma unroll
        for (uint32_t i = 0; i < 4; i++) {
            float value = k + i < args.n_in && !is_bad ? from_bf16(x[k + i]) * inverse : 0.0f;
            codes |= (uint32_t)(IS_E4M3 ? to_e4m3(value) : to_s8(value)) << 8 * i;
        }
        memcpy(args.q + linear_activation_offset(args.rows_stride, row, k), &codes, sizeof codes);
    }
    if (thread_x() == 0)
        args.scale[row] = is_bad ? bits_float(0x7fc00000u) : amax / LIMIT;
}

KERNEL_BOUNDS(quantize_rows_s8, struct quantize_rows_args, QUANTIZE_ROWS_THREADS, 4)
{
    quantize_row<false>(args);
}

KERNEL_BOUNDS(quantize_rows_e4m3, struct quantize_rows_args, QUANTIZE_ROWS_THREADS, 4)
{
    quantize_row<true>(args);
}
