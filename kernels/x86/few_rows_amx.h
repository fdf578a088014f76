/* Products of up to sixteen rows by weights as left-hand operand: a row of a tile is 32 inputs of one output,
 * and codes are looked up (look_up_half of expand_amx.h), which takes three quarters of what they take as a
 * right-hand operand; few rows are little else. Sums are those of strip_amx.h to the bit: a product does not
 * ask which factor is which, and a tile's chains run over inputs either way. */
#pragma once

#include "kernels/x86/strip_amx.h"

enum {
    FEW_TILES_BYTES = EXPAND_INPUTS_FEW * PANEL_OUTPUTS * 2,
    FEW_PAIRS_BYTES = EXPAND_INPUTS_FEW / 2 * TILE_ROW_BYTES,
};
_Static_assert(FEW_TILES_BYTES + FEW_PAIRS_BYTES <= TILE_SCRATCH_BYTES, "both fit the scratch");

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
        expand_codes_to_bf16(a, FORMAT, true, k, n, a->scratch);
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
