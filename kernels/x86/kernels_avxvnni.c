/* The kernels that gain from AVX-VNNI: 256 bits, for machines without AVX-512. */
#include <string.h>
#include "kernels/x86/simd_avx2.h"
#include "kernels/x86/tile_sizes_avx2.h"

#define KERNEL(name) name##_avxvnni

#include "kernels/x86/linear_int_x86.h"
#include "kernels/x86/linear_block_x86.h"
