/* bf16, IEEE half and float conversions, scalar, round to nearest even. Pure functions. */
#pragma once

#include <stdint.h>
#include <string.h>
#include "base/host_device.h"

HOST_DEVICE static inline float f32_from_bits(uint32_t bits)
{
    float f;
    memcpy(&f, &bits, sizeof f);
    return f;
}

HOST_DEVICE static inline uint32_t f32_to_bits(float f)
{
    uint32_t bits;
    memcpy(&bits, &f, sizeof bits);
    return bits;
}

HOST_DEVICE static inline float bf16_to_f32(uint16_t h)
{
    return f32_from_bits((uint32_t)h << 16);
}

/* NaN stays a quiet NaN. */
HOST_DEVICE static inline uint16_t bf16_from_f32(float f)
{
    uint32_t bits = f32_to_bits(f);
    if ((bits & 0x7fffffffu) > 0x7f800000u)
        return (uint16_t)((bits >> 16) | 0x40u);
    return (uint16_t)((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16);
}

/* Without a branch, for loops: 2^112 moves the exponent's bias of 15 to 127, which is exact, of subnormals
 * too. */
static inline float f16_to_f32(uint16_t h)
{
    uint32_t sign = (uint32_t)(h & 0x8000u) << 16, magnitude = (uint32_t)(h & 0x7fffu) << 13;
    uint32_t infinite = magnitude >= 0x0f800000u ? 0x7f800000u : 0;
    return f32_from_bits(f32_to_bits(f32_from_bits(magnitude) * 0x1p112f) | infinite | sign);
}
uint16_t f16_from_f32(float f);
