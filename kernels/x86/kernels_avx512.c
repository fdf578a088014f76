/* Every kernel for AVX-512 F, BW, DQ and VL. */
#include <math.h>
#include <string.h>
#include "kernels/x86/simd_avx512.h"

#define KERNEL(name) name##_avx512
#define HALVES       2
#define QUERIES_TOGETHER
#define TILE_SIZES(TILE)                                                                                     \
    TILE_CASE(TILE, 1)                                                                                       \
    TILE_CASE(TILE, 2)                                                                                       \
    TILE_CASE(TILE, 3)                                                                                       \
    TILE_CASE(TILE, 4)                                                                                       \
    TILE_CASE(TILE, 6)
#define TILE_HALVES(ROWS) 2
#define MANY_CASES        MANY_CASE(1) MANY_CASE(2) MANY_CASE(3) MANY_CASE(4) MANY_CASE(6)
enum {
    ROWS_MAX = 6,
    K6_ROWS_MAX = 6,
    MANY_TILE_ROWS = 6,
    MANY_ROWS_MIN = 13,
    FLOAT_ROWS_MAX = 8,
    QUERY_TILE = 8
};

#include "kernels/x86/quantize_x86.h"
#include "kernels/x86/rows_x86.h"
#include "kernels/x86/sampling_x86.h"
#include "kernels/x86/attention_x86.h"
#include "kernels/x86/linear_float_x86.h"
#include "kernels/x86/linear_int_x86.h"
#include "kernels/x86/linear_block_x86.h"
