/* Tiles of the quantised linear kernels in sixteen registers of 256 bits: of how many rows, and how much of a
 * panel one covers; see linear_int_x86.h. */
#pragma once

#define TILE_SIZES(TILE)                                                                                     \
    TILE_CASE(TILE, 1)                                                                                       \
    TILE_CASE(TILE, 2)                                                                                       \
    TILE_CASE(TILE, 3)                                                                                       \
    TILE_CASE(TILE, 4)                                                                                       \
    TILE_CASE(TILE, 6)
#define TILE_HALVES(ROWS) ((ROWS) > 1 ? 1 : 2) /* one row: one pass over the panel */
enum { ROWS_MAX = 6, K6_ROWS_MAX = 4 };

/* No walk of linear_many_x86.h: its sums and products would share sixteen registers. */
