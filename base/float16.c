#include "base/float16.h"

float f16_to_f32(uint16_t h)
{
    uint32_t sign = (uint32_t)(h & 0x8000u) << 16;
    uint32_t exponent = (h >> 10) & 31u;
    uint32_t fraction = h & 0x3ffu;
    if (exponent == 31)
        return f32_from_bits(sign | 0x7f800000u | (fraction << 13));
    if (exponent > 0)
        return f32_from_bits(sign | ((exponent + 112) << 23) | (fraction << 13));
    /* Zero or subnormal: fraction * 2^-24 is exact in f32. */
    float magnitude = (float)fraction * 0x1p-24f;
    return f32_from_bits(f32_to_bits(magnitude) | sign);
}

uint16_t f16_from_f32(float f)
{
    uint32_t bits = f32_to_bits(f);
    uint32_t sign = (bits >> 16) & 0x8000u;
    uint32_t magnitude = bits & 0x7fffffffu;
    if (magnitude > 0x7f800000u) /* NaN: quiet, upper payload bits kept */
        return (uint16_t)(sign | 0x7e00u | ((magnitude >> 13) & 0x3ffu));
    if (magnitude >= 0x477ff000u) /* at least 65520, the midpoint above the largest finite half */
        return (uint16_t)(sign | 0x7c00u);
    if (magnitude < 0x38800000u) {
        /* Below 2^-14: adding 0.5 leaves the rounded multiple of 2^-24 in the low bits of the sum. */
        float sum = f32_from_bits(magnitude) + 0.5f;
        return (uint16_t)(sign | (f32_to_bits(sum) - 0x3f000000u));
    }
    uint32_t rounded = magnitude + 0xfffu + ((magnitude >> 13) & 1u);
    return (uint16_t)(sign | ((rounded - (112u << 23)) >> 13));
}
