/* Codes out of nibbles and the planes of bits above them, for sixteen lanes of any width. Included behind the
 * simd header of its instruction set. */
#pragma once

#include "kernels/packed.h"

enum { QUAD_BYTES = HALF_OUTPUTS * 4 };

/* Codes of quads `pair` (low) and `pair` + 4 (high) of sixteen outputs, with their offset. */
static inline __attribute__((always_inline)) void
unpack_pair(const uint8_t *codes, size_t half, int pair, const enum weight_format FORMAT, vi *low, vi *high)
{
    const vi nibble = vi_set1(0x0f0f0f0fu);
    vi both = vi_load(codes + half * (INT4_BLOCK_BYTES / 2) + (size_t)pair * QUAD_BYTES);
    *low = vi_and(both, nibble);
    *high = vi_and(vi_shift_right(both, 4), nibble);
    if (FORMAT == WEIGHT_INT5 || FORMAT == WEIGHT_K5) {
        const vi fifth = vi_set1(0x10101010u);
        vi bits = vi_load(codes + INT4_BLOCK_BYTES + half * (BIT_PLANE_BYTES / 2));
        *low = vi_merge(vi_shift_left(bits, 4 - pair), fifth, *low);
        *high = vi_merge(vi_shift_right(bits, pair), fifth, *high);
    }
    if (FORMAT == WEIGHT_K6) {
        const vi above = vi_set1(0x30303030u);
        const uint8_t *plane = codes + INT4_BLOCK_BYTES + half * BIT_PLANE_BYTES;
        vi first = vi_load(plane), second = vi_load(plane + QUAD_BYTES);
        first = pair < 2 ? vi_shift_left(first, 4 - 2 * pair) : vi_shift_right(first, 2 * pair - 4);
        second = pair < 2 ? vi_shift_left(second, 4 - 2 * pair) : vi_shift_right(second, 2 * pair - 4);
        *low = vi_merge(first, above, *low);
        *high = vi_merge(second, above, *high);
    }
}
