/* The kernels of kernels/cuda/cuda_kernels.h as the emulator runs them. */
#include "kernels/cuda/cuda_kernels.h"
#include "tests/cuda/emulator/emulator.h"

/* Weak: a kernel that stands in the list before it is written is NULL here. */
#define DECLARE(name, args_type, what) extern const struct emu_kernel emu_kernel_##name __attribute__((weak));
CUDA_KERNEL_LIST(DECLARE)

const struct emu_kernel *emulated_kernel(uint32_t cuda_kernel_id)
{
    static const struct emu_kernel *const kernels[] = {
#define ENTRY(name, args_type, what) &emu_kernel_##name,
        CUDA_KERNEL_LIST(ENTRY)};
    return cuda_kernel_id < CUDA_KERNEL_COUNT ? kernels[cuda_kernel_id] : NULL;
}
