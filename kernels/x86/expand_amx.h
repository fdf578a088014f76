/* Panels into tiles: inputs [k, k + n) of a panel as the right-hand operand of a tile product. In bf16, per
 * block of 32 inputs and half of the panel [16 pairs of inputs][16 outputs][2], as left-hand operand [16
 * outputs][32 inputs]; in int8, per 64 inputs and half [16 quads][16 outputs][4]: one tile of 1 KB each.
 * Every function that takes a panel writes both halves. */
#pragma once

#include "kernels/tiles.h"
#include "kernels/x86/amx.h"
#include "kernels/x86/simd_avx512.h"
#include "kernels/x86/linear_store_x86.h"
#include "kernels/x86/unpack_x86.h"

enum { TILE_BYTES = TILE_ROWS * TILE_ROW_BYTES, WIDE_INPUTS = 64 };

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
    struct half_header read = {vf_load_f16(scales), vi_set1((uint32_t)weight_code_offset(format))};
    if (format == WEIGHT_UINT4)
        read.zeros = vi_load_u16(scales + PANEL_OUTPUTS);
    return read;
}

/* Stored codes become floats by standing in a mantissa, as FLOAT_BASE + code. What turns that into (code -
 * zero point) * scale is one fused multiply-add that rounds nothing, for nothing in it has more than 24 bits.
 * Minimums are f32 beside it: there the base goes first, and the multiply-add rounds. */
#define FLOAT_BASE 256.0f
#define BASE_BITS  0x43800000u
enum { CODE_SHIFT = 15 }; /* of the code's lowest bit */

struct half_factors {
    vf scales, offsets;
};

/* Of one half of the panel, and of the inputs 16 PART .. of a block. */
static inline struct half_factors read_factors(const struct panel_walk *walk, const enum weight_format FORMAT,
                                               size_t half, const size_t PART)
{
    struct half_header read = read_header(walk->header, FORMAT, half);
    const uint8_t *integers = walk->block + half * HALF_OUTPUTS;
    if (weight_has_minimums(FORMAT)) {
        const uint16_t *minimums = (const uint16_t *)walk->header + PANEL_OUTPUTS + half * HALF_OUTPUTS;
        return (struct half_factors){vf_mul(read.scales, vi_to_float(vi_load_u8(integers))),
                                     vf_mul(vf_sub(vf_zero(), vf_load_f16(minimums)),
                                            vi_to_float(vi_load_u8(integers + PANEL_OUTPUTS)))};
    }
    if (FORMAT == WEIGHT_K6)
        read.scales = vf_mul(read.scales, vi_to_float(vi_load_i8(integers + PART * PANEL_OUTPUTS)));
    vf minus = vf_sub(vf_set1(-FLOAT_BASE), vi_to_float(read.zeros));
    return (struct half_factors){read.scales, vf_mul(minus, read.scales)};
}

/* Weights of sixteen outputs; bits: with the codes moved to CODE_SHIFT, MASK: their bits there. */
static inline vf weights_of(vi bits, const uint32_t MASK, const struct half_factors *factors,
                            const enum weight_format FORMAT)
{
    vf based = vi_as_float(vi_merge(bits, vi_set1(MASK), vi_set1(BASE_BITS)));
    if (weight_has_minimums(FORMAT))
        based = vf_sub(based, vf_set1(FLOAT_BASE));
    return vf_fma(based, factors->scales, factors->offsets);
}

#define NIBBLES(bits) weights_of(bits, 15u << CODE_SHIFT, factors, FORMAT)
#define BYTES(bits)   weights_of(bits, 255u << CODE_SHIFT, factors, FORMAT)

/* One half of a block whose codes are nibbles. */
static inline void expand_nibbles(const uint8_t *codes, const struct half_factors *factors,
                                  const enum weight_format FORMAT, uint8_t *tile)
{
    for (size_t pair = 0; pair < QUANT_QUADS / 2; pair++) {
        vi bytes = vi_load(codes + pair * QUAD_BYTES);
        uint8_t *low = tile + pair * 2 * TILE_ROW_BYTES, *high = low + 8 * TILE_ROW_BYTES;
        store_pairs(low, NIBBLES(vi_shift_left(bytes, 15)), NIBBLES(vi_shift_left(bytes, 7)));
        store_pairs(low + TILE_ROW_BYTES, NIBBLES(vi_shift_right(bytes, 1)),
                    NIBBLES(vi_shift_right(bytes, 9)));
        store_pairs(high, NIBBLES(vi_shift_left(bytes, 11)), NIBBLES(vi_shift_left(bytes, 3)));
        store_pairs(high + TILE_ROW_BYTES, NIBBLES(vi_shift_right(bytes, 5)),
                    NIBBLES(vi_shift_right(bytes, 13)));
    }
}

/* A quad of codes, a byte each. */
static inline void expand_quad(vi bytes, const struct half_factors *factors, const enum weight_format FORMAT,
                               uint8_t *rows)
{
    store_pairs(rows, BYTES(vi_shift_left(bytes, 15)), BYTES(vi_shift_left(bytes, 7)));
    store_pairs(rows + TILE_ROW_BYTES, BYTES(vi_shift_right(bytes, 1)), BYTES(vi_shift_right(bytes, 9)));
}

/* One half of a block of int8. */
static inline void expand_bytes(const uint8_t *codes, const struct half_factors *factors, uint8_t *tile)
{
    for (size_t quad = 0; quad < QUANT_QUADS; quad++)
        expand_quad(vi_load(codes + quad * QUAD_BYTES), factors, WEIGHT_INT8,
                    tile + quad * 2 * TILE_ROW_BYTES);
}

/* One half of the panel in a block of nibbles and planes of bits above them; factors: of both halves of the
 * inputs. */
static inline void expand_planes(const uint8_t *codes, size_t half, const struct half_factors factors[2],
                                 const enum weight_format FORMAT, uint8_t *tile)
{
#pragma GCC unroll 4
    for (int pair = 0; pair < QUANT_QUADS / 2; pair++) {
        vi low, high;
        uint8_t *rows = tile + (size_t)pair * 2 * TILE_ROW_BYTES;
        unpack_pair(codes, half, pair, FORMAT, &low, &high);
        expand_quad(low, &factors[0], FORMAT, rows);
        expand_quad(high, &factors[1], FORMAT, rows + 8 * TILE_ROW_BYTES);
    }
}

/* Formats whose codes are nibbles and nothing else. */
static inline __attribute__((always_inline)) bool is_of_nibbles(const enum weight_format FORMAT)
{
    return FORMAT == WEIGHT_INT4 || FORMAT == WEIGHT_UINT4 || FORMAT == WEIGHT_K4;
}

/* The codes of a panel's half block [4 pairs of quads][16 outputs][4 inputs], an output's side by side: of
 * output o at [o / 4 + 4 * (o % 4)], word w has the codes of inputs w, w + 16, w + 8 and w + 24, the first
 * lowest. */
static inline __attribute__((always_inline)) void gather_outputs(const uint8_t *codes,
                                                                 __m128i rows[HALF_OUTPUTS])
{
    const vi p0 = vi_load(codes), p1 = vi_load(codes + QUAD_BYTES), p2 = vi_load(codes + 2 * QUAD_BYTES),
             p3 = vi_load(codes + 3 * QUAD_BYTES);
    const vi even_low = _mm512_unpacklo_epi8(p0, p2), even_high = _mm512_unpackhi_epi8(p0, p2);
    const vi odd_low = _mm512_unpacklo_epi8(p1, p3), odd_high = _mm512_unpackhi_epi8(p1, p3);
    vi_store(rows, vi_unpack_low_pairs(even_low, odd_low));
    vi_store(rows + 4, vi_unpack_high_pairs(even_low, odd_low));
    vi_store(rows + 8, vi_unpack_low_pairs(even_high, odd_high));
    vi_store(rows + 12, vi_unpack_high_pairs(even_high, odd_high));
}

/* Half of a block: [16 outputs][32 inputs]. Two outputs share a table: an index has five bits. */
static inline __attribute__((always_inline)) void look_up_half(const uint8_t *codes,
                                                               const struct half_factors *factors,
                                                               const enum weight_format FORMAT, uint8_t *tile)
{
    static const _Alignas(64) uint16_t shifts[32] = {0, 0, 0, 0, 0, 0, 0, 0, 8,  8,  8,  8,  8,  8,  8,  8,
                                                     4, 4, 4, 4, 4, 4, 4, 4, 12, 12, 12, 12, 12, 12, 12, 12};
    static const _Alignas(64) float code[LANES] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
    _Alignas(64) __m128i rows[HALF_OUTPUTS];
    _Alignas(64) float scales[LANES], offsets[LANES];
    const vf codes_are = vf_add(vf_load(code), vf_set1(weight_has_minimums(FORMAT) ? 0.0f : FLOAT_BASE));
    const __m512i down = _mm512_load_si512(shifts), nibble = _mm512_set1_epi16(15),
                  second = _mm512_set1_epi16(16);
    gather_outputs(codes, rows);
    vf_store(scales, factors->scales);
    vf_store(offsets, factors->offsets);
    /* gcc would keep them in registers and shuffle, which one port does; loads have two that are idle. */
    __asm__("" : "+m"(rows), "+m"(scales), "+m"(offsets));
#pragma GCC unroll 8
    for (size_t o = 0; o < HALF_OUTPUTS; o += 2, tile += 2 * TILE_ROW_BYTES) {
        const __m128i *row = rows + o / 4 + 4 * (o % 4);
        __m512i a = _mm512_srlv_epi16(_mm512_broadcast_i32x4(_mm_load_si128(row)), down);
        __m512i b = _mm512_srlv_epi16(_mm512_broadcast_i32x4(_mm_load_si128(row + 4)), down);
        vf first_weights = vf_fma(codes_are, vf_set1(scales[o]), vf_set1(offsets[o]));
        vf second_weights = vf_fma(codes_are, vf_set1(scales[o + 1]), vf_set1(offsets[o + 1]));
        __m512i table = (__m512i)_mm512_cvtne2ps_pbh(second_weights, first_weights);
        _mm512_store_si512(tile, _mm512_permutexvar_epi16(_mm512_and_si512(a, nibble), table));
        _mm512_store_si512(tile + TILE_ROW_BYTES,
                           _mm512_permutexvar_epi16(vi_merge(b, nibble, second), table));
    }
}

/* LEFT: as left-hand operand, of formats that are of nibbles. */
static inline __attribute__((always_inline)) void expand_codes_to_bf16(const struct tile_args *a,
                                                                       const enum weight_format FORMAT,
                                                                       const bool LEFT, size_t k, size_t n,
                                                                       uint8_t *out)
{
    struct panel_walk walk = walk_from(a, FORMAT, k);
    for (size_t i = 0; i < n; i += QUANT_BLOCK, walk_on(&walk, a, FORMAT)) {
        const uint8_t *codes = walk.block + block_header_bytes(FORMAT);
        prefetch_weights(walk.block, quant_block_bytes(FORMAT) + group_header_bytes(FORMAT));
        for (size_t half = 0; half < 2; half++, out += TILE_BYTES) {
            struct half_factors factors[2] = {read_factors(&walk, FORMAT, half, 0)};
            factors[1] = FORMAT == WEIGHT_K6 ? read_factors(&walk, FORMAT, half, 1) : factors[0];
            if (LEFT)
                look_up_half(codes + half * (INT4_BLOCK_BYTES / 2), factors, FORMAT, out);
            else if (FORMAT == WEIGHT_INT8)
                expand_bytes(codes + half * (INT8_BLOCK_BYTES / 2), factors, out);
            else if (is_of_nibbles(FORMAT))
                expand_nibbles(codes + half * (INT4_BLOCK_BYTES / 2), factors, FORMAT, out);
            else
                expand_planes(codes, half, factors, FORMAT, out);
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
