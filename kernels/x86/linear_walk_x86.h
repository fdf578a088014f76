/* How the quantised linear kernels walk over the rows of a panel, and what they ask memory for meanwhile; see
 * rows_x86.h for how it is included, with TILE_SIZES and TILE_HALVES (of a panel, that a tile of so many rows
 * covers) defined. */
#pragma once

#include "kernels/x86/linear_store_x86.h"

enum {
    AHEAD_ROWS_MIN = 3, /* of a tile that looks ahead: fewer wait for memory, however early it is asked */
};

/* What a walk over the rows asks for of the next panel, a part in every block of every tile: it comes from
 * memory at an even pace, and stands in the second-level cache when the walk gets there. */
struct ahead {
    const uint8_t *at;
    size_t n_lines; /* in a block */
};

static inline __attribute__((always_inline)) void prefetch_ahead(struct ahead *ahead)
{
    for (size_t i = 0; i < ahead->n_lines; i++, ahead->at += CACHE_LINE_BYTES)
        _mm_prefetch((const char *)ahead->at, _MM_HINT_T1);
}

/* Asks for the lines that a tile will write: no store of its sums waits for the line that it goes to. */
static inline __attribute__((always_inline)) void
prefetch_outputs(const struct linear_args *a, size_t row, size_t n_rows, size_t first_half, int n_halves)
{
    for (size_t r = row; r < row + n_rows; r++) {
        for (int h = 0; h < n_halves; h++)
            __builtin_prefetch(a->out + r * a->out_stride + (first_half + (size_t)h) * HALF_OUTPUTS, 1);
    }
}

/* The rows of a tile and where they stand: `n` of the last ones that it computes may be none of the call's.
 */
struct rows {
    const struct quant_block *blocks; /* of the tile's first row */
    size_t first, n;
};

/* The next tile: within one of QUANT_TILE_ROWS no more than it takes of `most` rows, and those alike. */
static inline struct rows next_rows(const struct linear_args *a, size_t first, size_t most)
{
    size_t n_left = a->n_rows - first, n_here = QUANT_TILE_ROWS - first % QUANT_TILE_ROWS;
    size_t n = n_left < n_here ? n_left : n_here;
    return (struct rows){a->q + quant_row_offset(first, a->q_tile_stride), first, div_up(n, div_up(n, most))};
}

/* Rows that a tile of n computes: sizes between are not worth code of their own. */
static inline size_t tile_size(size_t n)
{
    return n > 4 ? round_up(n, 2) : n;
}

/* Walks of n rows, 1..QUANT_TILE_ROWS, over the panel that look ahead. */
static inline size_t count_passes(size_t n, size_t most)
{
    size_t n_tiles = div_up(n, most), rows = tile_size(div_up(n, n_tiles));
    return rows < AHEAD_ROWS_MIN ? 0 : n_tiles * 2 / TILE_HALVES(rows);
}

static inline struct ahead look_ahead(const struct linear_args *a, enum weight_format format, size_t most)
{
    size_t bytes = round_up(panel_bytes(format, a->n_in, a->group), CACHE_LINE_BYTES);
    size_t n_last = a->n_rows % QUANT_TILE_ROWS;
    size_t n_passes = a->n_rows / QUANT_TILE_ROWS * count_passes(QUANT_TILE_ROWS, most) +
                      (n_last > 0 ? count_passes(n_last, most) : 0);
    size_t n_blocks = n_passes * (a->n_in / QUANT_BLOCK);
    return (struct ahead){(const uint8_t *)a->panel + bytes,
                          n_blocks == 0 ? 0 : div_up(bytes, n_blocks * CACHE_LINE_BYTES)};
}

/* A case of the switch over tile_size, where a, rows, ahead, MOST and FORMAT are. */
#define TILE_CASE(TILE, ROWS)                                                                                \
    case ROWS:                                                                                               \
        for (size_t half = 0; (ROWS) <= MOST && half < 2; half += TILE_HALVES(ROWS))                         \
            TILE(a, &rows, ROWS, half, TILE_HALVES(ROWS), &ahead, FORMAT);                                   \
        break;
