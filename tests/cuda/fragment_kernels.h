/* Kernels that ask the hardware, or the emulator, where mma, ldmatrix and wgmma keep their elements. One
 * element of a is 1, the others 0; each element of b holds its own number, digit by digit; so the
 * accumulators say which element of b met that element of a, and where the result lies. */
#pragma once

#include <stddef.h>
#include <stdint.h>

/* P(name, blocks = elements of a, threads, accumulators a thread, bytes of an element of b). Elements of
 * registers are numbered (thread * registers + register) * elements a register + element; those in shared
 * memory by address / size. */
#define FRAGMENT_PROBES(P)                                                                                   \
    P(mma_bf16, 256, 32, 4, 2)                                                                               \
    P(mma_f16, 256, 32, 4, 2)                                                                                \
    P(mma_s8, 512, 32, 4, 1)                                                                                 \
    P(mma_e4m3, 512, 32, 4, 1)                                                                               \
    P(ldmatrix, 1, 32, 4, 2)                                                                                 \
    P(ldmatrix_trans, 1, 32, 4, 2)                                                                           \
    P(wgmma_bf16_none, 1024, 128, 4, 2)                                                                      \
    P(wgmma_bf16_32, 1024, 128, 4, 2)                                                                        \
    P(wgmma_bf16_64, 2048, 128, 4, 2)                                                                        \
    P(wgmma_bf16_128, 2048, 128, 4, 2)                                                                       \
    P(wgmma_bf16_by_k, 1024, 128, 4, 2)                                                                      \
    P(wgmma_bf16_registers, 1024, 128, 4, 2)                                                                 \
    P(wgmma_e4m3_128, 2048, 128, 4, 1)                                                                       \
    P(wgmma_e4m3_registers, 2048, 128, 4, 1)

enum { FRAGMENT_SHARED_BYTES = 8192 + 2048 };

/* out [blocks][threads][accumulators]: 0, or 1 + the number of the element of b; ldmatrix: the register. */
struct fragment_args {
    uint32_t *out;
};
