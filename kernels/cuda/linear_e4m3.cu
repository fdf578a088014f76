/* e4m3 weights by e4m3 rows, where there is an mma for them; else as bf16, which is exact. sm_90a has wgmma
 * (linear_wgmma.cu). A kernel is empty on the targets that never launch it. */
#include "kernels/cuda/cuda_kernels.h"
#include "kernels/cuda/linear_tile.h"

LINEAR_KERNEL(e4m3, 8, 3, LINEAR_E4M3, 8)
LINEAR_KERNEL(e4m3, 16, 3, LINEAR_E4M3, 16)
LINEAR_KERNEL(e4m3, 32, 3, LINEAR_E4M3, 32)
LINEAR_KERNEL(e4m3, 64, 2, LINEAR_E4M3, 64)
LINEAR_KERNEL(e4m3, 128, 1, LINEAR_E4M3, 128)

LINEAR_KERNEL(e4m3_as_bf16, 8, 3, LINEAR_E4M3, 8, true)
LINEAR_KERNEL(e4m3_as_bf16, 16, 3, LINEAR_E4M3, 16, true)
LINEAR_KERNEL(e4m3_as_bf16, 32, 3, LINEAR_E4M3, 32, true)
LINEAR_KERNEL(e4m3_as_bf16, 64, 2, LINEAR_E4M3, 64, true)
LINEAR_KERNEL(e4m3_as_bf16, 128, 1, LINEAR_E4M3, 128, true)
