/* Every kernel for AVX2 with FMA and F16C. */
#include <math.h>
#include <string.h>
#include "kernels/x86/simd_avx2.h"
#include "kernels/x86/tile_sizes_avx2.h"

#define KERNEL(name) name##_avx2
#define HALVES       1
enum { FLOAT_ROWS_MAX = 4, QUERY_TILE = 4 };

#include "kernels/x86/quantize_x86.h"
#include "kernels/x86/rows_x86.h"
#include "kernels/x86/sampling_x86.h"
#include "kernels/x86/attention_x86.h"
#include "kernels/x86/linear_float_x86.h"
#include "kernels/x86/linear_int_x86.h"
#include "kernels/x86/linear_block_x86.h"
