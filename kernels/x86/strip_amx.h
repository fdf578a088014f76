/* Tile products of up to 32 rows, two tiles at a time, by two of outputs, whose sums stay in registers. Tails
 * are tiles of fewer rows or outputs: nothing past them is read or written. */
#pragma once

#include "kernels/x86/expand_amx.h"

enum { STRIP_ROWS = 2 * TILE_ROWS };

/* Tiles of a strip: sums of rows and outputs 00, 01, 10, 11 in 0..3, its rows in 4 and 5, outputs in 6, 7. */
static inline void configure(size_t rows, size_t n_out)
{
    size_t tile_rows[2] = {rows < TILE_ROWS ? rows : TILE_ROWS, rows < TILE_ROWS ? 0 : rows - TILE_ROWS};
    size_t outputs[2] = {n_out < HALF_OUTPUTS ? n_out : HALF_OUTPUTS,
                         n_out < HALF_OUTPUTS ? 0 : n_out - HALF_OUTPUTS};
    struct tile_config config = {.palette = 1};
    for (size_t i = 0; i < 2; i++) {
        for (size_t j = 0; tile_rows[i] > 0 && j < 2; j++) {
            config.rows[2 * i + j] = outputs[j] > 0 ? (uint8_t)tile_rows[i] : 0;
            config.row_bytes[2 * i + j] = (uint16_t)(outputs[j] * 4);
        }
        config.rows[4 + i] = (uint8_t)tile_rows[i];
        config.row_bytes[4 + i] = tile_rows[i] > 0 ? TILE_ROW_BYTES : 0;
        config.rows[6 + i] = outputs[i] > 0 ? TILE_ROWS : 0;
        config.row_bytes[6 + i] = (uint16_t)(outputs[i] * 4);
    }
    AMX_LOAD_CONFIG(&config);
}

#define TILES_INLINE static inline __attribute__((always_inline))

TILES_INLINE void zero_sums(const bool TWO_ROWS, const bool TWO_HALVES)
{
    AMX_ZERO(0);
    if (TWO_HALVES)
        AMX_ZERO(1);
    if (TWO_ROWS)
        AMX_ZERO(2);
    if (TWO_ROWS && TWO_HALVES)
        AMX_ZERO(3);
}

TILES_INLINE void load_sums(const float *out, size_t stride, const bool TWO_ROWS, const bool TWO_HALVES)
{
    const float *second = out + TILE_ROWS * stride;
    AMX_LOAD(0, out, stride * 4);
    if (TWO_HALVES)
        AMX_LOAD(1, out + HALF_OUTPUTS, stride * 4);
    if (TWO_ROWS)
        AMX_LOAD(2, second, stride * 4);
    if (TWO_ROWS && TWO_HALVES)
        AMX_LOAD(3, second + HALF_OUTPUTS, stride * 4);
}

/* Of f32 or int32. */
TILES_INLINE void store_sums(void *out, size_t stride, const bool TWO_ROWS, const bool TWO_HALVES)
{
    float *first = out, *second = first + TILE_ROWS * stride;
    AMX_STORE(0, first, stride * 4);
    if (TWO_HALVES)
        AMX_STORE(1, first + HALF_OUTPUTS, stride * 4);
    if (TWO_ROWS)
        AMX_STORE(2, second, stride * 4);
    if (TWO_ROWS && TWO_HALVES)
        AMX_STORE(3, second + HALF_OUTPUTS, stride * 4);
}

TILES_INLINE void load_operands(const void *x, size_t x_bytes, const uint8_t *tiles, const bool TWO_ROWS,
                                const bool TWO_HALVES)
{
    AMX_LOAD(6, tiles, TILE_ROW_BYTES);
    if (TWO_HALVES)
        AMX_LOAD(7, tiles + TILE_BYTES, TILE_ROW_BYTES);
    AMX_LOAD(4, x, x_bytes);
    if (TWO_ROWS)
        AMX_LOAD(5, (const uint8_t *)x + TILE_ROWS * x_bytes, x_bytes);
}

/* Rows in bf16 by tiles, whose sums in f32 go to out or are added to what it holds. */
struct strip {
    const uint16_t *x; /* [rows][n_in rounded up to TILE_INPUTS] */
    size_t x_stride, n_in;
    const uint8_t *tiles; /* [n_in / TILE_INPUTS][2 halves][TILE_BYTES] */
    float *out;           /* [rows][outputs] */
    size_t out_stride;    /* floats */
    bool is_first;        /* out holds nothing yet */
};

TILES_INLINE void strip_of(const struct strip *s, const bool TWO_ROWS, const bool TWO_HALVES)
{
    const uint8_t *tiles = s->tiles;
    if (s->is_first)
        zero_sums(TWO_ROWS, TWO_HALVES);
    else
        load_sums(s->out, s->out_stride, TWO_ROWS, TWO_HALVES);
    for (size_t i = 0; i < s->n_in; i += TILE_INPUTS, tiles += 2 * TILE_BYTES) {
        load_operands(s->x + i, s->x_stride * 2, tiles, TWO_ROWS, TWO_HALVES);
        AMX_DOT_BF16(0, 4, 6);
        if (TWO_HALVES)
            AMX_DOT_BF16(1, 4, 7);
        if (TWO_ROWS)
            AMX_DOT_BF16(2, 5, 6);
        if (TWO_ROWS && TWO_HALVES)
            AMX_DOT_BF16(3, 5, 7);
    }
    store_sums(s->out, s->out_stride, TWO_ROWS, TWO_HALVES);
}

/* The tiles are configured for so many rows, and for outputs in one half or both. */
static inline void multiply_strip(const struct strip *s, size_t rows, bool two_halves)
{
    if (rows > TILE_ROWS && two_halves)
        strip_of(s, true, true);
    else if (rows > TILE_ROWS)
        strip_of(s, true, false);
    else if (two_halves)
        strip_of(s, false, true);
    else
        strip_of(s, false, false);
}
