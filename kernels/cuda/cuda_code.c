/* Whether the library's kernels are made for the card. CUDA finds a kernel's code when it is first used, and
 * what is missing would look like a card that was lost in the first step. */
#include <stdio.h>
#include "kernels/cuda/cuda_backend.h"
#include "kernels/cuda/linear_pack.h"

enum { PROBES_MAX = 3, BULK_COPY_CAPABILITY = 90 };

/* One kernel of each kind that not every target has a body for, and that such a card is given. */
static uint32_t list_probes(uint32_t capability, enum cuda_kernel_id probes[PROBES_MAX])
{
    static const enum cuda_kernel_id e4m3[] = {
        [LINEAR_E4M3_AS_BF16] = CUDA_KERNEL_linear_e4m3_as_bf16_r8,
        [LINEAR_E4M3_MMA] = CUDA_KERNEL_linear_e4m3_r8,
        [LINEAR_E4M3_BY_WGMMA] =
            CUDA_KERNEL_linear_e4m3_wgmma_r8, /* has a body where all by wgmma have one */
    };
    uint32_t n = 0;
    probes[n++] = e4m3[linear_e4m3_kind(capability)];
    if (capability >= BULK_COPY_CAPABILITY)
        probes[n++] = CUDA_KERNEL_linear_int8_stream_r16;
    return n;
}

/* The value of BANTAM_CUDA_ARCHS that makes kernels for a card: cmake/cuda.cmake. */
static const char *arch_of(uint32_t capability, char text[16])
{
    if (capability == 90)
        return "90a";
    if (capability / 10 == 10 || capability / 10 == 11)
        return "90-virtual";
    (void)snprintf(text, 16, "%u", capability);
    return text;
}

static err_t not_for_this_card(const struct device_properties *card, const char *why)
{
    char arch[16];
    return err_new(ERR_UNAVAILABLE,
                   "%s has compute capability %u.%u, and libbantam_cuda.so, made for %s, %s: build it with "
                   "-DBANTAM_CUDA_ARCHS=%s",
                   card->name, card->capability / 10, card->capability % 10, card->code_targets, why,
                   arch_of(card->capability, arch));
}

err_t cuda_code_check(struct cuda_backend *cuda)
{
    const struct device_properties *card = cuda->properties;
    enum cuda_kernel_id probes[PROBES_MAX];
    uint32_t n_probes = list_probes(card->capability, probes);
    for (uint32_t i = 0; i < n_probes; i++) {
        uint32_t shared_bytes;
        err_t e = cuda->api->kernel_shared_bytes(cuda->device, probes[i], &shared_bytes);
        if (e.code == ERR_UNAVAILABLE)
            return not_for_this_card(card, e.message);
        TRY(e);
        /* Each of them meets in shared memory, and without a body has none: tests/cuda/check_compile.py. */
        if (shared_bytes == 0)
            return not_for_this_card(card, "lacks kernels that such a card is given");
    }
    return err_ok();
}
