#include "tests/cuda/emulator/emu_numbers.h"

#include <math.h>

float emu_e4m3_values[256];

__attribute__((constructor)) static void make_e4m3_values(void)
{
    for (uint32_t code = 0; code < 256; code++) {
        int exponent = (int)(code >> 3 & 15u), mantissa = (int)(code & 7u);
        float value =
            exponent == 0 ? ldexpf((float)mantissa, -9) : ldexpf((float)(8 + mantissa), exponent - 10);
        if ((code & 0x7fu) == 0x7fu)
            value = NAN;
        emu_e4m3_values[code] = (code & 0x80u) != 0 ? -value : value;
    }
}

uint16_t emu_to_f16(float x)
{
    return isnan(x) ? 0x7fff : f16_from_f32(x);
}

float emu_from_f16(uint16_t code)
{
    return f16_to_f32(code);
}

static uint16_t bf16_of_double(double x)
{
    float nearest = (float)x;
    if (isnan(x))
        return 0x7fff;
    /* To f32 by rounding to odd, so that the second rounding sees what the first one dropped. */
    if ((double)nearest != x && !isinf(nearest)) {
        uint32_t bits = f32_to_bits(nearest);
        bool away = fabs((double)nearest) > fabs(x);
        bits = away ? (bits - 1) | 1u : bits | 1u;
        nearest = f32_from_bits(bits);
    }
    return bf16_from_f32(nearest);
}

/* a * b is exact in double. What the sum drops there decides where it lies between two bf16; numbers that are
 * not normal as bf16 need more care. */
static inline uint16_t bf16_fma(uint16_t a, uint16_t b, uint16_t c)
{
    enum { DROPPED_BITS = 45, BIAS = (1023 - 127) << 7, NORMAL_MIN = 1 << 7, INFINITE = 255 << 7 };
    const uint64_t half = 1ull << (DROPPED_BITS - 1);
    double product = (double)bf16_to_f32(a) * (double)bf16_to_f32(b), addend = bf16_to_f32(c);
    double sum = product + addend;
    uint64_t bits;
    memcpy(&bits, &sum, sizeof bits);
    uint64_t magnitude = bits & ~(1ull << 63), rounded = (magnitude + half) >> DROPPED_BITS;
    if (magnitude == 0)
        return (uint16_t)(bits >> 48);
    bool is_between = (magnitude & (2 * half - 1)) == half;
    if (!is_between && rounded >= BIAS + NORMAL_MIN && rounded < BIAS + INFINITE)
        return (uint16_t)((rounded - BIAS) | (bits >> 48 & 0x8000u));
    double part = sum - product;
    double error = (product - (sum - part)) + (addend - part);
    if (error != 0.0 && isfinite(sum)) { /* rounded to odd, so that bf16 sees its last bit */
        if ((bits & 1u) == 0)
            bits += ((error > 0) == (sum > 0)) ? 1u : (uint64_t)-1;
        memcpy(&sum, &bits, sizeof sum);
    } else if (is_between && rounded > BIAS + NORMAL_MIN && rounded < BIAS + INFINITE) {
        return (uint16_t)(((rounded - BIAS) & ~1ull) | (bits >> 48 & 0x8000u)); /* to the even one */
    }
    return bf16_of_double(sum);
}

uint32_t emu_bf16x2_fma(uint32_t a, uint32_t b, uint32_t c)
{
    return bf16_fma((uint16_t)a, (uint16_t)b, (uint16_t)c) |
           (uint32_t)bf16_fma((uint16_t)(a >> 16), (uint16_t)(b >> 16), (uint16_t)(c >> 16)) << 16;
}
