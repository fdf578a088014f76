/* bf16 weights by bf16 rows. */
#include "kernels/cuda/cuda_kernels.h"
#include "kernels/cuda/linear_tile.h"

LINEAR_KERNEL(bf16, 8, 3, LINEAR_BF16, 8)
LINEAR_KERNEL(bf16, 16, 3, LINEAR_BF16, 16)
LINEAR_KERNEL(bf16, 32, 3, LINEAR_BF16, 32)
LINEAR_KERNEL(bf16, 64, 1, LINEAR_BF16, 64)
LINEAR_KERNEL(bf16, 128, 1, LINEAR_BF16, 128)
