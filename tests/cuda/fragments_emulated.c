#include "tests/cuda/fragments_emulated.h"

#include <string.h>
#include "tests/cuda/emulator/emulator.h"
#include "tests/cuda/fragment_kernels.h"

#define DECLARE(name, blocks, threads, accumulators, element_bytes) EMU_KERNEL(probe_##name);
FRAGMENT_PROBES(DECLARE)

void fragment_run(size_t i, uint32_t *out)
{
    static const struct emu_kernel *const kernels[] = {
#define KERNEL_OF(name, blocks, threads, accumulators, element_bytes) &emu_kernel_probe_##name,
        FRAGMENT_PROBES(KERNEL_OF)};
    const struct fragment_probe *probe = &fragment_probes[i];
    struct fragment_args args = {out};
    uint32_t target = strcmp(probe->name, "mma_e4m3") == 0 ? 89 : 90;
    emu_set_options(&(struct emu_options){.seed = 0, .n_threads = 1, .target = target});
    emu_launch(&(struct emu_launch){.kernel = kernels[i],
                                    .grid = {probe->blocks, 1, 1},
                                    .block_threads = probe->threads,
                                    .shared_bytes = FRAGMENT_SHARED_BYTES,
                                    .args = &args,
                                    .args_bytes = sizeof args});
}
