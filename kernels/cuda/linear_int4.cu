/* int4 weights, symmetric and with zero points, by bf16 rows. */
#include "kernels/cuda/cuda_kernels.h"
#include "kernels/cuda/linear_tile.h"

LINEAR_KERNEL(int4, 8, 4, LINEAR_INT4, 8)
LINEAR_KERNEL(int4, 16, 4, LINEAR_INT4, 16)
LINEAR_KERNEL(int4, 32, 3, LINEAR_INT4, 32)
LINEAR_KERNEL(int4, 64, 2, LINEAR_INT4, 64)
LINEAR_KERNEL(int4, 128, 1, LINEAR_INT4, 128)

LINEAR_KERNEL(uint4, 8, 4, LINEAR_UINT4, 8)
LINEAR_KERNEL(uint4, 16, 3, LINEAR_UINT4, 16)
LINEAR_KERNEL(uint4, 32, 3, LINEAR_UINT4, 32)
LINEAR_KERNEL(uint4, 64, 1, LINEAR_UINT4, 64)
LINEAR_KERNEL(uint4, 128, 1, LINEAR_UINT4, 128)
