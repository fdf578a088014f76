/* A row of activations to 8 bits: one rule for the kernel that does it alone and those that do it along with
 * something else, so that both give the same codes. Included by .cu files alone. */
#pragma once

#include "kernels/cuda/device_rows.h"
#include "kernels/cuda/linear_layout.h"

/* The greater magnitude; infinity where there is an infinity or a NaN. */
DEVICE float amax_add(float amax, float x)
{
    float magnitude = fabsf(x);
    return magnitude <= amax ? amax : magnitude < INFINITY ? magnitude : INFINITY;
}

/* What a code stands for (scale), and its inverse; a row of zeros has scale 0, one that is not finite NaN,
 * both codes of 0. */
struct row_scale {
    float scale, inverse;
};
template <bool IS_E4M3> DEVICE struct row_scale row_scale_of(float amax)
{
    const float limit = IS_E4M3 ? 448.0f : 127.0f;
    bool is_bad = !(amax < INFINITY);
    struct row_scale scale;
    scale.scale = is_bad ? bits_float(0x7fc00000u) : amax / limit;
    scale.inverse = amax > 0.0f && !is_bad ? limit / amax : 0.0f;
    return scale;
}

/* Four codes. With an inverse of 0 they are 0, whatever x is. */
template <bool IS_E4M3> DEVICE uint32_t quantize_4(const float x[4], float inverse)
{
    uint32_t codes = 0;
#pragma unroll
    for (uint32_t i = 0; i < 4; i++) {
        float value = inverse == 0.0f ? 0.0f : x[i] * inverse;
        /* int8: at most 127 and a rounding, which rint takes away. */
        uint8_t code = IS_E4M3 ? to_e4m3(value) : (uint8_t)(int32_t)rintf(value);
        codes |= (uint32_t)code << 8 * i;
    }
    return codes;
}

/* k: a multiple of 4. Plain rows have no zeros behind them. */
DEVICE void store_codes(const struct quantized_rows *rows, uint32_t row, uint32_t k, uint32_t codes)
{
    if (rows->plain_bytes > 0) {
        if (k < rows->plain_bytes)
            memcpy(rows->q + (size_t)row * rows->plain_bytes + k, &codes, sizeof codes);
        return;
    }
    memcpy(rows->q + linear_activation_offset(rows->rows_stride, row, k), &codes, sizeof codes);
}

/* Inputs with the zeros that fill the last block. */
DEVICE uint32_t quantized_width(uint32_t n)
{
    return ceil_div(n, LINEAR_BLOCK_BYTES) * LINEAR_BLOCK_BYTES;
}
