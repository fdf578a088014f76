/* Fragments of the linear layers' matrix instructions, from shared memory to registers: weights of a slab (32
 * outputs, two tiles of 16) and 64 bytes of a row's inputs, which are two steps of the instruction. A layout
 * is linear_layout.h's. */
#pragma once

#include "kernels/cuda/linear_kernels.h"
#include "kernels/cuda/ptx.h"

enum { SLAB_TILES = 2, HALF_STEPS = 2 }; /* half: of a block, 64 bytes of a row */

typedef uint32_t slab_fragments[HALF_STEPS][SLAB_TILES][4];

/* The stage that a warp reads. */
struct linear_stage_view {
    const uint8_t *codes;  /* of the slab: [blocks] as linear_layout.h, BF16: [128 outputs][128 bytes] */
    const uint8_t *scales; /* of the lane's four outputs, bf16; next group linear_group_bytes on */
};

DEVICE uint32_t bf16x2_low(uint32_t pair)
{
    return (pair & 0xffffu) | pair << 16;
}

DEVICE uint32_t bf16x2_high(uint32_t pair)
{
    return pair >> 16 | (pair & 0xffff0000u);
}

/* A pair of outputs' scales, each twice. */
DEVICE void spread_pair(uint32_t out[2], uint32_t pair)
{
    out[0] = bf16x2_low(pair);
    out[1] = bf16x2_high(pair);
}

/* Scales of the lane's four outputs, each twice; [tile * 2 + half of the tile]. */
DEVICE void spread_scales(uint32_t out[4], vec8 pairs)
{
    for (int i = 0; i < 2; i++)
        spread_pair(out + 2 * i, pairs.w[i]);
}

/* ---- A fragment: one tile, one step ---- */

/* code * scale, rounded once. Register r of a fragment belongs to half r % 2 of its tile. */
DEVICE void scale_fragment(uint32_t fragment[4], const uint32_t scales[2])
{
#pragma unroll
    for (int r = 0; r < 4; r++)
        fragment[r] = bf16x2_mul(fragment[r], scales[r & 1]);
}

/* -8 times the scales of spread_pair, for codes as int4x8_to_bf16 has them. */
DEVICE void int4_minus(uint32_t out[2], const uint32_t scales[2])
{
    out[0] = bf16x2_mul(scales[0], 0x80088008u); /* -8 * 2^-133 */
    out[1] = bf16x2_mul(scales[1], 0x80808080u); /* -8 * 2^-129 */
}

/* (code - 8) * scale, rounded once: code * scale and 8 * scale are exact. */
DEVICE void fragment_int4(uint32_t fragment[4], uint32_t codes, const uint32_t scales[2],
                          const uint32_t minus[2])
{
    int4x8_to_bf16(fragment, codes);
#pragma unroll
    for (int r = 0; r < 4; r++)
        fragment[r] = bf16x2_fma(fragment[r], scales[r & 1], minus[r & 1]);
}

/* minus: the two outputs' zero points as linear_pack_zero has them. The difference is exact. */
DEVICE void fragment_uint4(uint32_t fragment[4], uint32_t codes, const uint32_t scales[2],
                           const uint32_t minus[2])
{
    int4x8_to_bf16(fragment, codes);
#pragma unroll
    for (int r = 0; r < 4; r++)
        fragment[r] = bf16x2_fma(fragment[r], 0x7f007f00u, minus[r & 1]); /* * 2^127 */
    scale_fragment(fragment, scales);
}

/* Two of four int8 codes (even: bytes 0 and 2) to bf16, exactly: 128 + the low seven bits, less 128 or, for
 * negative codes, 256. */
DEVICE uint32_t int8_even_to_bf16(uint32_t codes)
{
    uint32_t low = bits_select_or(codes, 0x007f007fu, 0x43004300u);
    uint32_t minus = bits_select_or(codes, 0x00800080u, 0xc300c300u);
    return bf16x2_fma(low, 0x3f803f80u, minus);
}

DEVICE void fragment_int8(uint32_t fragment[4], const uint32_t codes[2], const uint32_t scales[2])
{
#pragma unroll
    for (int i = 0; i < 2; i++) {
        fragment[2 * i] = int8_even_to_bf16(codes[i]);
        fragment[2 * i + 1] = int8_even_to_bf16(codes[i] >> 8);
    }
    scale_fragment(fragment, scales);
}

/* ---- A slab's: half `half` of a block. words: the lane's pieces of the block's tiles; int8: of each step
 * ---- */

template <enum linear_layout LAYOUT>
DEVICE void fragments_int4(slab_fragments a, const vec16 words[SLAB_TILES], uint32_t half,
                           const uint32_t scales[4], const uint32_t minus[4])
{
#pragma unroll
    for (int step = 0; step < HALF_STEPS; step++) {
#pragma unroll
        for (int tile = 0; tile < SLAB_TILES; tile++) {
            uint32_t codes = words[tile].w[half * HALF_STEPS + step];
            if constexpr (LAYOUT == LINEAR_UINT4)
                fragment_uint4(a[step][tile], codes, scales + 2 * tile, minus + 2 * tile);
            else
                fragment_int4(a[step][tile], codes, scales + 2 * tile, minus + 2 * tile);
        }
    }
}

DEVICE void fragments_int8(slab_fragments a, const vec16 words[HALF_STEPS], const uint32_t scales[4])
{
#pragma unroll
    for (int step = 0; step < HALF_STEPS; step++) {
#pragma unroll
        for (int tile = 0; tile < SLAB_TILES; tile++)
            fragment_int8(a[step][tile], words[step].w + 2 * tile, scales + 2 * tile);
    }
}

/* Fragments that lie ready: 8-bit inputs. */
DEVICE void fragments_ready(slab_fragments a, const uint8_t *codes)
{
#pragma unroll
    for (int step = 0; step < HALF_STEPS; step++) {
#pragma unroll
        for (int tile = 0; tile < SLAB_TILES; tile++) {
            vec16 words = load_16(codes + (step * SLAB_TILES + tile) * 512);
#pragma unroll
            for (int r = 0; r < 4; r++)
                a[step][tile][r] = words.w[r];
        }
    }
}

/* Piece p of output o of a bf16 tile stands at p ^ (o / 4 & 7): the eight rows of an ldmatrix are four
 * apart. */
DEVICE uint32_t bf16_piece_offset(uint32_t output, uint32_t piece)
{
    return output * LINEAR_BLOCK_BYTES + (piece ^ (output / 4 & 7)) * 16;
}

/* codes: the tile [128 outputs][128 bytes]. */
DEVICE void fragments_bf16(slab_fragments a, const uint8_t *codes, uint32_t slab, uint32_t half)
{
    uint32_t row = lane_id() % 8, matrix = lane_id() / 8;
#pragma unroll
    for (uint32_t step = 0; step < HALF_STEPS; step++) {
#pragma unroll
        for (uint32_t tile = 0; tile < SLAB_TILES; tile++) {
            uint32_t output = slab * LINEAR_SLAB + row * 4 + tile * 2 + matrix % 2;
            uint32_t piece = half * 4 + step * 2 + matrix / 2;
            ldmatrix_x4(a[step][tile], codes + bf16_piece_offset(output, piece));
        }
    }
}

/* e4m3 codes 0 and 2 of four (even) to bf16, exactly; 0x7f and 0xff, the NaN codes, become +-480: weights
 * have none, and a row that has one has a scale of NaN. */
DEVICE uint32_t e4m3_even_to_bf16(uint32_t codes)
{
    return bf16x2_mul((codes & 0x00800080u) << 8 | (codes & 0x007f007fu) << 4, 0x7b807b80u);
}

/* d += a . b on e4m3 fragments with two bf16 instructions. Which inputs stand beside which is free as long as
 * both operands agree: the even bytes come first, then the odd. */
DEVICE void mma_e4m3_as_bf16(float d[4], const uint32_t a[4], const uint32_t b[2])
{
#pragma unroll
    for (int i = 0; i < 2; i++) {
        uint32_t wide_a[4], wide_b[2];
#pragma unroll
        for (int r = 0; r < 2; r++) {
            wide_a[r] = e4m3_even_to_bf16(a[2 * i + r]);
            wide_a[r + 2] = e4m3_even_to_bf16(a[2 * i + r] >> 8);
            wide_b[r] = e4m3_even_to_bf16(b[i] >> 8 * r);
        }
        mma_bf16_16816(d, wide_a, wide_b);
    }
}
