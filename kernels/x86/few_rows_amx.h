/* Products of up to sixteen rows, the weights as left-hand operand: a row of a tile is 32 inputs of one
 * output, looked up in a table of what its sixteen codes stand for. So a code costs less than half of what it
 * takes to make it a right-hand operand (expand_amx.h), whose neighbours are other outputs with other scales,
 * and a decoding sequence is little else. Sums are those of strip_amx.h to the bit: a product does not ask
 * which factor is which, and a tile's chains run over inputs either way. */
#pragma once

#include "kernels/x86/strip_amx.h"

enum {
    FEW_TILES_BYTES = EXPAND_INPUTS_FEW * PANEL_OUTPUTS * 2,
    FEW_PAIRS_BYTES = EXPAND_INPUTS_FEW / 2 * TILE_ROW_BYTES,
};
_Static_assert(FEW_TILES_BYTES + FEW_PAIRS_BYTES <= TILE_SCRATCH_BYTES, "both fit the scratch");

/* Formats whose codes are nibbles and nothing else. */
TILES_INLINE bool is_of_nibbles(const enum weight_format FORMAT)
{
    return FORMAT == WEIGHT_INT4 || FORMAT == WEIGHT_UINT4 || FORMAT == WEIGHT_K4;
}

/* The codes of a panel's half block [4 pairs of quads][16 outputs][4 inputs], an output's side by side: of
 * output o at [o / 4 + 4 * (o % 4)], word w has the codes of inputs w, w + 16, w + 8 and w + 24, the first
 * lowest. */
TILES_INLINE void gather_outputs(const uint8_t *codes, __m128i rows[HALF_OUTPUTS])
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
TILES_INLINE void look_up_half(const uint8_t *codes, const struct half_factors *factors,
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

/* Inputs [k, k + n): per block of 32 and half of the panel a tile. */
TILES_INLINE void look_up_codes(const struct tile_args *a, const enum weight_format FORMAT, size_t k,
                                size_t n, uint8_t *out)
{
    struct panel_walk walk = walk_from(a, FORMAT, k);
    for (size_t i = 0; i < n; i += QUANT_BLOCK, walk_on(&walk, a, FORMAT)) {
        const uint8_t *codes = walk.block + block_header_bytes(FORMAT);
        prefetch_weights(walk.block, quant_block_bytes(FORMAT) + group_header_bytes(FORMAT));
        for (size_t half = 0; half < 2; half++, out += TILE_BYTES) {
            struct half_factors factors = read_factors(&walk, FORMAT, half, 0);
            look_up_half(codes + half * (INT4_BLOCK_BYTES / 2), &factors, FORMAT, out);
        }
    }
}

/* The rows' pairs of inputs as right-hand operand: per block [16 pairs][16 rows][2]. */
TILES_INLINE void gather_pairs(const struct tile_args *a, size_t k, size_t n, uint8_t *out)
{
    for (size_t i = 0; i < n; i += TILE_INPUTS, out += TILE_BYTES) {
        vf x[LANES];
#pragma GCC unroll 16
        for (size_t r = 0; r < LANES; r++)
            x[r] = r < a->n_rows ? vf_load((const float *)(const void *)(a->x + r * a->x_stride + k + i))
                                 : vf_zero();
        vf_transpose(x);
#pragma GCC unroll 16
        for (size_t r = 0; r < LANES; r++)
            vf_store((float *)(void *)(out + r * TILE_ROW_BYTES), x[r]);
    }
}

/* Sums [outputs][16 rows] to the rows. */
TILES_INLINE void store_rows(const struct tile_args *a, const float *sums, size_t first_out)
{
    const size_t n = a->n_out - first_out < LANES ? a->n_out - first_out : LANES;
    vf x[LANES];
#pragma GCC unroll 16
    for (size_t o = 0; o < LANES; o++)
        x[o] = o < n ? vf_load(sums + o * LANES) : vf_zero();
    vf_transpose(x);
#pragma GCC unroll 16
    for (size_t r = 0; r < LANES; r++)
        if (r < a->n_rows)
            vf_store_first(a->out + r * a->out_stride + first_out, x[r], n);
}

/* Sums of the panel's halves in tiles 0 and 1, weights in 4 and 5, rows in 6. */
static inline void configure_few(size_t rows, size_t n_out)
{
    struct tile_config config = {.palette = 1};
    for (size_t half = 0; half * HALF_OUTPUTS < n_out; half++) {
        size_t left = n_out - half * HALF_OUTPUTS;
        config.rows[half] = config.rows[4 + half] = (uint8_t)(left < TILE_ROWS ? left : TILE_ROWS);
        config.row_bytes[half] = (uint16_t)(rows * 4);
        config.row_bytes[4 + half] = TILE_ROW_BYTES;
    }
    config.rows[6] = TILE_INPUTS / 2;
    config.row_bytes[6] = (uint16_t)(rows * 4);
    AMX_LOAD_CONFIG(&config);
}

/* All inputs of up to TILE_ROWS rows, from the first on, to out. One row's pairs are an operand as they
 * stand. */
TILES_INLINE void multiply_few(const struct tile_args *a, const enum weight_format FORMAT)
{
    const bool two_halves = a->n_out > HALF_OUTPUTS, is_one = a->n_rows == 1;
    uint8_t *pairs = a->scratch + FEW_TILES_BYTES;
    configure_few(a->n_rows, a->n_out);
    AMX_ZERO(0);
    if (two_halves)
        AMX_ZERO(1);
    for (size_t k = 0, n; k < a->n_in; k += n) {
        n = a->n_in - k < EXPAND_INPUTS_FEW ? a->n_in - k : EXPAND_INPUTS_FEW;
        look_up_codes(a, FORMAT, k, n, a->scratch);
        if (!is_one)
            gather_pairs(a, k, n, pairs);
        const uint8_t *tiles = a->scratch;
        for (size_t i = 0; i < n; i += TILE_INPUTS, tiles += 2 * TILE_BYTES) {
            AMX_LOAD(4, tiles, TILE_ROW_BYTES);
            if (is_one)
                AMX_LOAD(6, a->x + k + i, 4);
            else
                AMX_LOAD(6, pairs + i / TILE_INPUTS * TILE_BYTES, TILE_ROW_BYTES);
            AMX_DOT_BF16(0, 4, 6);
            if (two_halves) {
                AMX_LOAD(5, tiles + TILE_BYTES, TILE_ROW_BYTES);
                AMX_DOT_BF16(1, 5, 6);
            }
        }
    }
    if (is_one) {
        AMX_STORE(0, a->out, 4);
        if (two_halves)
            AMX_STORE(1, a->out + HALF_OUTPUTS, 4);
        return;
    }
    _Alignas(64) float sums[HALF_OUTPUTS * LANES];
    AMX_STORE(0, sums, TILE_ROW_BYTES);
    store_rows(a, sums, 0);
    if (two_halves) {
        AMX_STORE(1, sums, TILE_ROW_BYTES);
        store_rows(a, sums, HALF_OUTPUTS);
    }
}
