/* int8 weights with groups by bf16 rows, and int8 weights by int8 rows. */
#include "kernels/cuda/cuda_kernels.h"
#include "kernels/cuda/linear_tile.h"

LINEAR_KERNEL(int8, 8, 4, LINEAR_INT8, 8)
LINEAR_KERNEL(int8, 16, 4, LINEAR_INT8, 16)
LINEAR_KERNEL(int8, 32, 3, LINEAR_INT8, 32)
LINEAR_KERNEL(int8, 64, 2, LINEAR_INT8, 64)
LINEAR_KERNEL(int8, 128, 1, LINEAR_INT8, 128)

LINEAR_KERNEL(s8, 8, 3, LINEAR_S8, 8)
LINEAR_KERNEL(s8, 16, 3, LINEAR_S8, 16)
LINEAR_KERNEL(s8, 32, 3, LINEAR_S8, 32)
LINEAR_KERNEL(s8, 64, 2, LINEAR_S8, 64)
LINEAR_KERNEL(s8, 128, 1, LINEAR_S8, 128)
