/* The kernels that gain from AVX-VNNI: 256 bits, for machines without AVX-512. */
#include <string.h>
#include "kernels/x86/simd_avx2.h"

#define KERNEL(name) name##_avxvnni
#define TILE_SIZES(TILE)                                                                                     \
    TILE_CASE(TILE, 1)                                                                                       \
    TILE_CASE(TILE, 2)                                                                                       \
    TILE_CASE(TILE, 3)                                                                                       \
    TILE_CASE(TILE, 4)
#define TILE_HALVES(ROWS) ((ROWS) > 1 ? 1 : 2) /* one row: one pass over the panel */
enum { ROWS_MAX = 4, K6_ROWS_MAX = 4 };

#include "kernels/x86/linear_int_x86.h"
#include "kernels/x86/linear_block_x86.h"
