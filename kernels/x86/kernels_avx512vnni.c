/* The kernels that gain from AVX-512 VNNI. */
#include <string.h>
#include "kernels/x86/simd_avx512.h"

#define KERNEL(name) name##_avx512vnni
#define TILE_SIZES(TILE)                                                                                     \
    TILE_CASE(TILE, 1)                                                                                       \
    TILE_CASE(TILE, 2)                                                                                       \
    TILE_CASE(TILE, 3)                                                                                       \
    TILE_CASE(TILE, 4)                                                                                       \
    TILE_CASE(TILE, 6)                                                                                       \
    TILE_CASE(TILE, 8)                                                                                       \
    TILE_CASE(TILE, 10)                                                                                      \
    TILE_CASE(TILE, 12)
#define TILE_HALVES(ROWS) ((ROWS) > 4 ? 1 : 2)
enum { ROWS_MAX = 12, K6_ROWS_MAX = 6 };

#include "kernels/x86/linear_int_x86.h"
#include "kernels/x86/linear_block_x86.h"
