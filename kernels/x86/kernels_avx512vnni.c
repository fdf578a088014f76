/* The kernels that gain from AVX-512 VNNI. */
#include <string.h>
#include "kernels/x86/simd_avx512.h"

#define KERNEL(name) name##_avx512vnni
#define HALVES       2
#define ROWS_MAX     6

#include "kernels/x86/linear_int_x86.h"
#include "kernels/x86/linear_block_x86.h"
