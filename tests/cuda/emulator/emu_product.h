/* The arithmetic of products, on arrays of fixed sizes: what lies where in registers and shared memory, and
 * whether it may be read, is seen to in emu_mma.c and emu_wgmma.c. */
#pragma once

#include "tests/cuda/emulator/emu_internal.h"

/* Of a warp's mma, as its lanes have them. */
struct emu_fragments {
    uint32_t a[EMU_LANES][4], b[EMU_LANES][2];
    uint32_t d[EMU_LANES][4]; /* f32, or s32 that wrap */
};

/* Some register of a or b is one of 16- or 8-bit floats that nobody has written. */
bool emu_fragments_poisoned(const struct emu_fragments *fragments);

/* d += a b, over ascending k. */
void emu_fragments_multiply(enum emu_mma kind, struct emu_fragments *fragments);

enum { EMU_WGMMA_ROWS = 64, EMU_WGMMA_COLUMNS_MAX = 256, EMU_WGMMA_K_MAX = 32 };

/* values [row][column] += the transpose of a [k][row] times b [k][column]; n: columns, a multiple of 8. 16 k
 * of bf16. */
void emu_multiply_bf16(float (*values)[EMU_WGMMA_COLUMNS_MAX], float (*a)[EMU_WGMMA_COLUMNS_MAX],
                       float (*b)[EMU_WGMMA_COLUMNS_MAX], uint32_t n);
/* 32 k of e4m3, added as sm_90 does. */
void emu_multiply_e4m3(float (*values)[EMU_WGMMA_COLUMNS_MAX], float (*a)[EMU_WGMMA_COLUMNS_MAX],
                       float (*b)[EMU_WGMMA_COLUMNS_MAX], uint32_t n);
