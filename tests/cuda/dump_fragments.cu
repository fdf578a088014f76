/* Asks the card of this machine for the layouts of its fragments and writes them to standard output:
 *     dump_fragments > tests/cuda/golden/fragments_sm90.txt
 * The emulator must then give the same lines (test_fragments). Probes that the card cannot run are left out.
 */
#include <cuda_runtime.h>
#include <cstdlib>
#include "tests/cuda/fragment_dump.h"
#include "tests/cuda/fragment_kernels.cu"

static void check(cudaError_t error, const char *what)
{
    if (error != cudaSuccess) {
        fprintf(stderr, "dump_fragments: %s: %s\n", what, cudaGetErrorString(error));
        exit(1);
    }
}

static bool can_run(const char *name, int capability)
{
    if (strncmp(name, "wgmma", 5) == 0)
        return capability == 90;
    return strcmp(name, "mma_e4m3") != 0 || (capability >= 89 && capability != 90);
}

int main()
{
    static const void *const kernels[] = {
#define KERNEL_OF(name, blocks, threads, accumulators, element_bytes) (const void *)probe_##name,
        FRAGMENT_PROBES(KERNEL_OF)};
    cudaDeviceProp card;
    check(cudaGetDeviceProperties(&card, 0), "no card");
    printf("# %s, sm_%d%d\n", card.name, card.major, card.minor);
    for (size_t i = 0; i < n_fragment_probes; i++) {
        const struct fragment_probe *probe = &fragment_probes[i];
        if (!can_run(probe->name, card.major * 10 + card.minor))
            continue;
        struct fragment_args args;
        size_t bytes = fragment_words(probe) * sizeof *args.out;
        check(cudaMallocManaged(&args.out, bytes), "memory");
        memset(args.out, 0xff, bytes);
        void *parameters[] = {&args};
        check(cudaLaunchKernel(kernels[i], dim3(probe->blocks), dim3(probe->threads), parameters,
                               FRAGMENT_SHARED_BYTES, 0),
              probe->name);
        check(cudaDeviceSynchronize(), probe->name);
        fragment_print(stdout, probe, args.out);
        check(cudaFree(args.out), "memory");
    }
    return 0;
}
