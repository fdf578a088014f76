/* Small floats as the emulator's products read them. */
#pragma once

#include <string.h>
#include "base/float16.h"
#include "tests/cuda/emulator/emu_internal.h"

extern float emu_e4m3_values[256];

/* Functions that the compiler makes twice, for machines with and without AVX2. */
#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__)
#define EMU_CLONES __attribute__((target_clones("avx2", "default")))
#else
#define EMU_CLONES
#endif

/* Element i of a register of two 16-bit or four 8-bit floats. */
static inline __attribute__((always_inline)) float emu_element(uint32_t word, uint32_t i, enum emu_mma kind)
{
    if (kind == EMU_MMA_BF16)
        return f32_from_bits(i == 0 ? word << 16 : word & 0xffff0000u);
    if (kind == EMU_MMA_E4M3)
        return emu_e4m3_values[word >> 8 * i & 0xffu];
    uint32_t half = word >> 16 * i & 0xffffu, sign = (half & 0x8000u) << 16,
             magnitude = (half & 0x7fffu) << 13;
    /* f16 has 5 bits of exponent with bias 15; an exponent of all ones is infinity or NaN in both. */
    float value = f32_from_bits(magnitude) * 0x1p112f;
    uint32_t special = magnitude >= 0x0f800000u ? 0x7f800000u : 0;
    return f32_from_bits(f32_to_bits(value) | special | sign);
}

/* All elements of a register. */
static inline __attribute__((always_inline)) void emu_unpack(float *out, uint32_t word, enum emu_mma kind)
{
    for (uint32_t i = 0; i < (kind == EMU_MMA_E4M3 ? 4u : 2u); i++)
        out[i] = emu_element(word, i, kind);
}
