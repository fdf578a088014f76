/* A row of activations to 8 bits: one rule for the kernel that does it alone and those that do it along with
 * something else, so that both give the same codes. Included by .cu files alone. */
#pragma once

#include "kernels/cuda/device_rows.h"
#include "kernels/cuda/linear_layout.h"

/* ---- Magnitudes of bf16, in pairs ---- */

/* The greater of what is above bit 17 is the greater magnitude; an infinity is beyond every number, a NaN
 * beyond it. */
DEVICE uint32_t amax_add_pair(uint32_t amax, uint32_t pair)
{
    uint32_t low = pair << 17, high = pair << 1;
    amax = amax > low ? amax : low;
    return amax > high ? amax : high;
}

/* The greatest magnitude of the block; not a number below infinity where one of them was none. parts: shared,
 * nobody else's until the next barrier. */
DEVICE float block_amax(uint32_t amax, uint32_t parts[BLOCK_WARPS_MAX])
{
    amax = warp_max_u32(amax);
    if (lane_id() == 0)
        parts[warp_id()] = amax;
    barrier();
    amax = warp_max_u32(parts[lane_id() < block_threads() / WARP_LANES ? lane_id() : 0]);
    return bits_float(amax >> 1 & 0x7fff0000u);
}

/* What a code stands for (scale), and its inverse; a row of zeros has scale 0, one that is not finite NaN,
 * both codes of 0. */
struct row_scale {
    float scale, inverse;
};
template <bool IS_E4M3> DEVICE struct row_scale row_scale_of(float amax)
{
    const float limit = IS_E4M3 ? 448.0f : 127.0f;
    bool is_bad = !(amax < INFINITY); /* a NaN too */
    struct row_scale scale;
    scale.scale = is_bad ? bits_float(0x7fc00000u) : amax / limit;
    scale.inverse = amax > 0.0f && !is_bad ? limit / amax : 0.0f;
    return scale;
}

/* Four codes of two pairs. With an inverse of 0 they are 0, whatever the pairs are. */
template <bool IS_E4M3> DEVICE uint32_t quantize_4(uint32_t first, uint32_t second, float inverse)
{
    float x[4] = {from_bf16_low(first), from_bf16_high(first), from_bf16_low(second), from_bf16_high(second)};
    uint32_t codes = 0;
    if (inverse == 0.0f)
        return 0;
    if (IS_E4M3)
        return (uint32_t)to_e4m3x2(x[0] * inverse, x[1] * inverse) |
               (uint32_t)to_e4m3x2(x[2] * inverse, x[3] * inverse) << 16;
#pragma unroll
    for (uint32_t i = 0; i < 4; i++) /* at most 127 and a rounding, which rint takes away */
        codes |= (uint32_t)(uint8_t)(int32_t)rintf(x[i] * inverse) << 8 * i;
    return codes;
}

/* Where the code of element k of a row goes, a multiple of 4; NULL: plain rows have no zeros behind them. */
DEVICE uint8_t *codes_at(const struct quantized_rows *rows, uint32_t row, uint32_t k)
{
    if (rows->plain_bytes > 0)
        return k < rows->plain_bytes ? rows->q + (size_t)row * rows->plain_bytes + k : NULL;
    return rows->q + linear_activation_offset(rows->rows_stride, row, k);
}

DEVICE void store_codes_4(const struct quantized_rows *rows, uint32_t row, uint32_t k, uint32_t codes)
{
    uint8_t *at = codes_at(rows, row, k);
    if (at != NULL)
        *(uint32_t *)at = codes;
}

/* k: a multiple of 8. */
DEVICE void store_codes_8(const struct quantized_rows *rows, uint32_t row, uint32_t k, vec8 codes)
{
    uint8_t *at = codes_at(rows, row, k);
    if (at != NULL)
        store_8(at, codes);
}

/* Inputs with the zeros that fill the last block. */
DEVICE uint32_t quantized_width(uint32_t n)
{
    return ceil_div(n, LINEAR_BLOCK_BYTES) * LINEAR_BLOCK_BYTES;
}

/* ---- A whole row, by the threads of a block ---- */

enum { QUANTIZE_KEPT = 4 /* pieces of eight elements that a thread keeps */ };

/* Elements k .. k + 7 of a row, zeros past n. The row is aligned to 16 bytes and has room for whole pieces.
 */
DEVICE vec16 load_piece(const uint16_t *row, uint32_t k, uint32_t n)
{
    vec16 piece = {};
    if (k < n)
        piece = load_16(row + k);
    if (k < n && k + 8 > n) {
#pragma unroll
        for (uint32_t i = 0; i < 4; i++) {
            uint32_t at = k + 2 * i;
            piece.w[i] = at + 1 < n ? piece.w[i] : at < n ? piece.w[i] & 0xffffu : 0;
        }
    }
    return piece;
}

DEVICE uint32_t amax_add_piece(uint32_t amax, const vec16 &piece)
{
#pragma unroll
    for (uint32_t i = 0; i < 4; i++)
        amax = amax_add_pair(amax, piece.w[i]);
    return amax;
}

template <bool IS_E4M3>
DEVICE void store_piece(const struct quantized_rows *to, uint32_t r, uint32_t k, uint32_t n_padded,
                        const vec16 &piece, float inverse)
{
    if (k >= n_padded)
        return;
    vec8 codes = {{quantize_4<IS_E4M3>(piece.w[0], piece.w[1], inverse),
                   quantize_4<IS_E4M3>(piece.w[2], piece.w[3], inverse)}};
    store_codes_8(to, r, k, codes);
}

/* Row r in 8 bits. row: bf16 [n], as of load_piece. What does not stay in registers is read twice. */
template <bool IS_E4M3>
DEVICE void quantize_row(const struct quantized_rows *to, uint32_t r, const uint16_t *row, uint32_t n,
                         uint32_t parts[BLOCK_WARPS_MAX])
{
    uint32_t n_padded = quantized_width(n), first = 8 * thread_x(), step = 8 * block_threads(), amax = 0;
    vec16 kept[QUANTIZE_KEPT];
#pragma unroll
    for (uint32_t g = 0; g < QUANTIZE_KEPT; g++)
        kept[g] = load_piece(row, first + g * step, n);
#pragma unroll
    for (uint32_t g = 0; g < QUANTIZE_KEPT; g++)
        amax = amax_add_piece(amax, kept[g]);
#pragma unroll 1
    for (uint32_t k = first + QUANTIZE_KEPT * step; k < n; k += step)
        amax = amax_add_piece(amax, load_piece(row, k, n));
    struct row_scale scale = row_scale_of<IS_E4M3>(block_amax(amax, parts));
#pragma unroll
    for (uint32_t g = 0; g < QUANTIZE_KEPT; g++)
        store_piece<IS_E4M3>(to, r, first + g * step, n_padded, kept[g], scale.inverse);
#pragma unroll 1
    for (uint32_t k = first + QUANTIZE_KEPT * step; k < n_padded; k += step)
        store_piece<IS_E4M3>(to, r, k, n_padded, load_piece(row, k, n), scale.inverse);
    if (thread_x() == 0)
        to->scale[r] = scale.scale;
}
