/* e4m3 on the host: 1 sign, 4 exponent, 3 mantissa bits, no infinity, NaN 0x7f;
 * round to nearest even, beyond 448 to 448. Source: OCP 8-bit Floating Point Specification (OFP8) 1.0. */
#pragma once

#include <math.h>
#include <stdint.h>

#define F8_E4M3_MAX 448.0f

static inline uint8_t f8_e4m3_from_f32(float x)
{
    uint8_t sign = signbit(x) ? 0x80 : 0;
    float magnitude = fabsf(x);
    if (isnan(x))
        return sign | 0x7f;
    if (magnitude >= F8_E4M3_MAX)
        return sign | 0x7e;
    if (magnitude < 0x1p-6f) /* subnormals are multiples of 2^-9; the carry into 2^-6 is right as it is */
        return sign | (uint8_t)lrintf(magnitude * 0x1p9f);
    int exponent;
    float mantissa = frexpf(magnitude, &exponent); /* [0.5, 1) */
    int steps = (int)lrintf(mantissa * 16.0f);     /* 8..16: one, and three bits */
    int code = (exponent - 1 + 7) * 8 + (steps - 8);
    return sign | (uint8_t)(code > 0x7e ? 0x7e : code);
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
