/* Panels into tiles: inputs [k, k + n) of a panel as the right-hand operand of a tile product. In bf16, per
 * block of 32 inputs and half of the panel [16 pairs of inputs][16 outputs][2]; in int8, per 64 inputs and
 * half [16 quads][16 outputs][4]: one tile of 1 KB each. Every function writes both halves. */
#pragma once

#include "kernels/tiles.h"
#include "kernels/x86/amx.h"
#include "kernels/x86/simd_avx512.h"
#include "kernels/x86/linear_store_x86.h"

enum { TILE_BYTES = TILE_ROWS * TILE_ROW_BYTES, QUAD_BYTES = HALF_OUTPUTS * 4, WIDE_INPUTS = 64 };

/* A row of a tile: the weights of sixteen outputs for an even and an odd input. */
static inline void store_pairs(uint8_t *row, vf even, vf odd)
{
    static const _Alignas(64)
        uint16_t interleaved[32] = {0, 16, 1, 17, 2,  18, 3,  19, 4,  20, 5,  21, 6,  22, 7,  23,
                                    8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31};
    __m512i both = (__m512i)_mm512_cvtne2ps_pbh(odd, even);
    _mm512_store_si512(row, _mm512_permutexvar_epi16(_mm512_load_si512(interleaved), both));
}

static inline void expand_bf16_to_tiles(const struct tile_args *a, size_t k, size_t n, uint8_t *out)
{
    static const _Alignas(64)
        uint16_t low[32] = {0, 32, 1, 33, 2,  34, 3,  35, 4,  36, 5,  37, 6,  38, 7,  39,
                            8, 40, 9, 41, 10, 42, 11, 43, 12, 44, 13, 45, 14, 46, 15, 47};
    const __m512i low_half = _mm512_load_si512(low);
    const __m512i high_half = _mm512_add_epi16(low_half, _mm512_set1_epi16(16));
    const uint16_t *panel = a->panel;
    for (size_t i = 0; i < n; i += 2) {
        uint8_t *row = out + i / TILE_INPUTS * 2 * TILE_BYTES + i % TILE_INPUTS / 2 * TILE_ROW_BYTES;
        const uint16_t *at = panel + (k + i) * PANEL_OUTPUTS;
        __m512i even = k + i < a->n_in ? _mm512_loadu_si512(at) : _mm512_setzero_si512();
        __m512i odd = k + i + 1 < a->n_in ? _mm512_loadu_si512(at + PANEL_OUTPUTS) : _mm512_setzero_si512();
        _mm512_store_si512(row, _mm512_permutex2var_epi16(even, low_half, odd));
        _mm512_store_si512(row + TILE_BYTES, _mm512_permutex2var_epi16(even, high_half, odd));
    }
}

/* A walk over the blocks of a panel of codes. */
struct panel_walk {
    const uint8_t *header, *block; /* of the group, of the block in it */
    size_t left;                   /* blocks of the group from this one on */
};

static inline struct panel_walk walk_from(const struct tile_args *a, enum weight_format format, size_t k)
{
    return (struct panel_walk){panel_group(a, format, k / a->group), panel_block(a, format, k),
                               (a->group - k % a->group) / QUANT_BLOCK};
}

static inline void walk_on(struct panel_walk *walk, const struct tile_args *a, enum weight_format format)
{
    walk->block += quant_block_bytes(format);
    if (--walk->left == 0) {
        walk->header = walk->block;
        walk->block += group_header_bytes(format);
        walk->left = a->group / QUANT_BLOCK;
    }
}

/* What a group has beside its codes, of one half of the panel. */
struct half_header {
    vf scales;
    vi zeros; /* stored code - code */
};

static inline struct half_header read_header(const uint8_t *header, enum weight_format format, size_t half)
{
    const uint16_t *scales = (const uint16_t *)header + half * HALF_OUTPUTS;
    struct half_header read = {vf_load_f16(scales), vi_set1(INT4_OFFSET)};
    if (format == WEIGHT_INT8)
        read.zeros = vi_set1(INT8_OFFSET);
    else if (format == WEIGHT_UINT4)
        read.zeros = vi_load_u16(scales + PANEL_OUTPUTS);
    return read;
}

/* Stored codes of sixteen outputs. */
static inline vf dequantize(vi codes, const struct half_header *header)
{
    return vf_mul(vi_to_float(vi_sub(codes, header->zeros)), header->scales);
}

/* One half of a block of int4 or uint4. */
static inline void expand_nibbles(const uint8_t *block, const struct half_header *header, uint8_t *tile)
{
    const vi nibble = vi_set1(15);
    for (size_t pair = 0; pair < QUANT_QUADS / 2; pair++) {
        vi bytes = vi_load(block + pair * QUAD_BYTES);
        vf values[2][4]; /* of the quads pair and pair + 4 */
#pragma GCC unroll 4
        for (int i = 0; i < 4; i++) {
            values[0][i] = dequantize(vi_and(vi_shift_right(bytes, 8 * i), nibble), header);
            values[1][i] = dequantize(vi_and(vi_shift_right(bytes, 8 * i + 4), nibble), header);
        }
#pragma GCC unroll 2
        for (size_t high = 0; high < 2; high++) {
            uint8_t *row = tile + (pair + 4 * high) * 2 * TILE_ROW_BYTES;
            store_pairs(row, values[high][0], values[high][1]);
            store_pairs(row + TILE_ROW_BYTES, values[high][2], values[high][3]);
        }
    }
}

/* One half of a block of int8. */
static inline void expand_bytes(const uint8_t *block, const struct half_header *header, uint8_t *tile)
{
    const vi byte = vi_set1(255);
    for (size_t quad = 0; quad < QUANT_QUADS; quad++) {
        vi bytes = vi_load(block + quad * QUAD_BYTES);
        vf values[4];
#pragma GCC unroll 4
        for (int i = 0; i < 4; i++)
            values[i] = dequantize(vi_and(vi_shift_right(bytes, 8 * i), byte), header);
        store_pairs(tile + quad * 2 * TILE_ROW_BYTES, values[0], values[1]);
        store_pairs(tile + (quad * 2 + 1) * TILE_ROW_BYTES, values[2], values[3]);
    }
}

static inline void expand_codes_to_bf16(const struct tile_args *a, const enum weight_format FORMAT, size_t k,
                                        size_t n, uint8_t *out)
{
    const size_t half_bytes = quant_block_bytes(FORMAT) / 2;
    struct panel_walk walk = walk_from(a, FORMAT, k);
    for (size_t i = 0; i < n; i += QUANT_BLOCK, walk_on(&walk, a, FORMAT)) {
        prefetch_weights(walk.block, quant_block_bytes(FORMAT) + group_header_bytes(FORMAT));
        for (size_t half = 0; half < 2; half++, out += TILE_BYTES) {
            struct half_header header = read_header(walk.header, FORMAT, half);
            if (FORMAT == WEIGHT_INT8)
                expand_bytes(walk.block + half * half_bytes, &header, out);
            else
                expand_nibbles(walk.block + half * half_bytes, &header, out);
        }
    }
}

/* The quads of one half of a block to signed bytes; offset: of the stored codes, in every byte. */
static inline void copy_quads(const uint8_t *block, const enum weight_format FORMAT, vi offset, uint8_t *rows)
{
    const vi nibbles = vi_set1(0x0f0f0f0fu);
    if (FORMAT == WEIGHT_INT8) {
        for (size_t quad = 0; quad < QUANT_QUADS; quad++)
            _mm512_store_si512(rows + quad * QUAD_BYTES,
                               _mm512_sub_epi8(vi_load(block + quad * QUAD_BYTES), offset));
        return;
    }
    for (size_t pair = 0; pair < QUANT_QUADS / 2; pair++) {
        vi both = vi_load(block + pair * QUAD_BYTES);
        _mm512_store_si512(rows + pair * QUAD_BYTES, _mm512_sub_epi8(vi_and(both, nibbles), offset));
        _mm512_store_si512(rows + (pair + 4) * QUAD_BYTES,
                           _mm512_sub_epi8(vi_and(vi_shift_right(both, 4), nibbles), offset));
    }
}

/* scales: [n / WIDE_BLOCK][PANEL_OUTPUTS]. */
static inline void expand_codes_to_int8(const struct tile_args *a, const enum weight_format FORMAT, size_t k,
                                        size_t n, uint8_t *out, float *scales)
{
    const size_t half_bytes = quant_block_bytes(FORMAT) / 2;
    struct panel_walk walk = walk_from(a, FORMAT, k);
    for (size_t i = 0; i < n; i += QUANT_BLOCK, walk_on(&walk, a, FORMAT)) {
        uint8_t *rows = out + i / WIDE_INPUTS * 2 * TILE_BYTES + i % WIDE_INPUTS * HALF_OUTPUTS;
        prefetch_weights(walk.block, quant_block_bytes(FORMAT));
        for (size_t half = 0; half < 2; half++) {
            struct half_header header = read_header(walk.header, FORMAT, half);
            vf_store(scales + i / WIDE_BLOCK * PANEL_OUTPUTS + half * HALF_OUTPUTS, header.scales);
            copy_quads(walk.block + half * half_bytes, FORMAT,
                       _mm512_mullo_epi32(header.zeros, vi_set1(0x01010101u)), rows + half * TILE_BYTES);
        }
    }
}
