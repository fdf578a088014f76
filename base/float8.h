/* e4m3 on the host: 1 sign, 4 exponent, 3 mantissa bits, no infinity, NaN 0x7f;
 * round to nearest even, beyond 448 to 448. Source: OCP 8-bit Floating Point Specification (OFP8) 1.0. */
#pragma once

#include <math.h>
#include <stdint.h>
#include "base/float16.h"

#define F8_E4M3_MAX 448.0f

/* Without a branch, so that loops over it become vectors; signed, because SSE2 compares no others. */
static inline uint8_t f8_e4m3_from_f32(float x)
{
    const int32_t least_normal = 0x3c800000; /* 2^-6 */
    int32_t bits = (int32_t)f32_to_bits(x), magnitude = bits & 0x7fffffff;
    /* Up to there codes are multiples of 2^-9, the spacing of f32 from 2^14 on: 0 to 8. */
    float low = f32_from_bits((uint32_t)(magnitude < least_normal ? magnitude : least_normal)) + 0x1p14f;
    int32_t subnormal = (int32_t)(f32_to_bits(low) - f32_to_bits(0x1p14f));
    /* Of 23 bits of fraction three stay, and the exponent's bias falls from 127 to 7; the lower of the two
     * below 2^-6. */
    uint32_t rounded = (uint32_t)magnitude + 0x7ffff + (magnitude >> 20 & 1);
    int32_t normal = (int32_t)(rounded >> 20) - (127 - 7) * 8;
    int32_t code = normal > subnormal ? normal : subnormal;
    code = (code < 0x7e ? code : 0x7e) + (magnitude > 0x7f800000); /* NaN is above the greatest */
    return (uint8_t)((bits >> 24 & 0x80) | code);
}

static inline float f8_e4m3_to_f32(uint8_t code)
{
    float sign = code & 0x80 ? -1.0f : 1.0f;
    int exponent = code >> 3 & 15, mantissa = code & 7;
    if (exponent == 15 && mantissa == 7)
        return NAN;
    return sign *
           (exponent == 0 ? ldexpf((float)mantissa, -9) : ldexpf(8.0f + (float)mantissa, exponent - 10));
}
