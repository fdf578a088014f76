/* Every kernel of the CUDA backend: the list, and one args struct for each, which is the kernel's only
 * parameter. The list feeds the compilation, the launches by id, the emulator's registration, the checks and
 * the docs. Plain C for host code, kernels and tests.
 *
 * Arguments are constant for the life of a captured graph; what changes from step to step is read on the
 * device (cuda_step.h). Grids are made for the capacity: blocks past the count leave at once. Pointers are
 * the device's. */
#pragma once

#include "kernels/cuda/attention_kernels.h"
#include "kernels/cuda/linear_kernels.h"
#include "kernels/cuda/rank_kernels.h"
#include "kernels/cuda/row_kernels.h"
#include "kernels/cuda/sample_kernels.h"

/* K(name, args, what it does) */
#define CUDA_KERNEL_LIST(K)                                                                                  \
    CUDA_ROW_KERNELS(K)                                                                                      \
    CUDA_LINEAR_KERNELS(K)                                                                                   \
    CUDA_SAMPLE_KERNELS(K)                                                                                   \
    CUDA_RANK_KERNELS(K)                                                                                     \
    ATTENTION_TILE_KERNELS(K)

#define K(name, args, what) CUDA_KERNEL_##name,
enum cuda_kernel_id { CUDA_KERNEL_LIST(K) CUDA_KERNEL_COUNT };
#undef K
