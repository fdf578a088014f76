/* Small floats as the emulator's products read them. */
#pragma once

#include <string.h>
#include "base/float16.h"
#include "tests/cuda/emulator/emu_internal.h"

extern float emu_e4m3_values[256];

/* A register: two 16-bit or four 8-bit floats. */
static inline void emu_unpack(float *out, uint32_t word, enum emu_mma kind)
{
    switch (kind) {
    case EMU_MMA_BF16:
        out[0] = f32_from_bits(word << 16);
        out[1] = f32_from_bits(word & 0xffff0000u);
        break;
    case EMU_MMA_F16:
        out[0] = emu_from_f16((uint16_t)word);
        out[1] = emu_from_f16((uint16_t)(word >> 16));
        break;
    case EMU_MMA_E4M3:
        for (int i = 0; i < 4; i++)
            out[i] = emu_e4m3_values[word >> 8 * i & 0xffu];
        break;
    case EMU_MMA_S8:
        break;
    }
}
