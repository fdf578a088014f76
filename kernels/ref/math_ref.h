/* exp, tanh, log and the Gumbel draw as every instruction set computes them: the same operations in the same
 * order, so the same bits; on a GPU too, where nvcc is told not to fuse (-fmad=false). Polynomials: minimax
 * fits of our own (Remez) on the reduced ranges. */
#pragma once

#include <math.h>
#include <stdint.h>
#include "base/float16.h"
#include "base/philox.h"
#include "kernels/kernel_types.h"

/* x + ROUND_MAGIC rounds x to an integer (to even) that stands in the low mantissa bits. */
#define ROUND_MAGIC      12582912.0f
#define ROUND_MAGIC_BITS 0x4b400000u

/* Beyond these exp is 0 and infinity in f32. */
#define EXP_LOW    -104.0f
#define EXP_HIGH   89.0f
#define LOG2_E     1.44269504f
#define LN2_HIGH   0x1.62e4p-1f
#define LN2_LOW    0x1.7f7d1cp-20f
#define LN2        0.693147182f
#define EXP_C0     5.000000096e-01f /* (e^r - 1 - r) / r^2, |r| <= ln 2 / 2; error 3e-9 */
#define EXP_C1     1.666651831e-01f
#define EXP_C2     4.166620438e-02f
#define EXP_C3     8.368953224e-03f
#define EXP_C4     1.395058644e-03f
#define LOG_C0     3.333331673e-01f /* (log(1 + f) - f + f^2 / 2) / f^3, 1 + f in [sqrt 1/2, sqrt 2] */
#define LOG_C1     -2.500080893e-01f
#define LOG_C2     2.000228643e-01f
#define LOG_C3     -1.662459913e-01f
#define LOG_C4     1.418120180e-01f
#define LOG_C5     -1.312836011e-01f
#define LOG_C6     1.288148767e-01f
#define LOG_C7     -7.860441726e-02f
#define TANH_SMALL 0.625f
#define TANH_C0    -3.333327957e-01f /* (tanh(y) - y) / y^3 in y^2, |y| <= 0.63; error 5e-9 */
#define TANH_C1    1.333135433e-01f
#define TANH_C2    -5.373093794e-02f
#define TANH_C3    2.060669949e-02f
#define TANH_C4    -5.665325475e-03f

#define SQRT_HALF_BITS 0x3f3504f3u
#define GELU_CUBIC     0.044715f
#define GELU_SLOPE     -1.59576912f /* -2 sqrt(2 / pi) */

/* Largest float below 1, and where 1 - w would lose bits of w. */
#define UNIFORM_MAX   0x1.fffffep-1f
#define UNIFORM_SMALL 0.25f

/* exp(x) = 2^n * what is returned, n an integer in the low bits of *shifted; EXP_LOW <= x <= EXP_HIGH. */
HOST_DEVICE static inline float exp_mantissa_ref(float x, float *shifted)
{
    float t = fmaf(x, LOG2_E, ROUND_MAGIC);
    float n = t - ROUND_MAGIC;
    float r = fmaf(n, -LN2_LOW, fmaf(n, -LN2_HIGH, x));
    float p = fmaf(EXP_C4, r, EXP_C3);
    p = fmaf(p, r, EXP_C2);
    p = fmaf(p, r, EXP_C1);
    p = fmaf(p, r, EXP_C0);
    *shifted = t;
    return fmaf(fmaf(p, r, 1.0f), r, 1.0f);
}

HOST_DEVICE static inline float exp_ref(float x)
{
    float t;
    x = x < EXP_LOW ? EXP_LOW : x;
    x = x > EXP_HIGH ? EXP_HIGH : x;
    float y = exp_mantissa_ref(x, &t);
    /* 2^n in two factors: the first product is never subnormal, so the result is rounded once. */
    int32_t exponent = (int32_t)(f32_to_bits(t) - ROUND_MAGIC_BITS);
    int32_t half = exponent >> 1;
    y *= f32_from_bits(((uint32_t)half + 127u) << 23);
    return y * f32_from_bits(((uint32_t)exponent - (uint32_t)half + 127u) << 23);
}

HOST_DEVICE static inline float tanh_ref(float y)
{
    float z = y * y;
    float p = fmaf(TANH_C4, z, TANH_C3);
    p = fmaf(p, z, TANH_C2);
    p = fmaf(p, z, TANH_C1);
    p = fmaf(p, z, TANH_C0);
    float near = fmaf(y * z, p, y);
    float magnitude = fabsf(y);
    float far = copysignf(1.0f - 2.0f / (exp_ref(magnitude + magnitude) + 1.0f), y);
    return magnitude < TANH_SMALL ? near : far;
}

/* log(1 + f) + exponent * ln 2. */
HOST_DEVICE static inline float log_parts_ref(float f, float exponent)
{
    float p = fmaf(LOG_C7, f, LOG_C6);
    p = fmaf(p, f, LOG_C5);
    p = fmaf(p, f, LOG_C4);
    p = fmaf(p, f, LOG_C3);
    p = fmaf(p, f, LOG_C2);
    p = fmaf(p, f, LOG_C1);
    p = fmaf(p, f, LOG_C0);
    float tail = fmaf(f, p, -0.5f);
    return fmaf(exponent, LN2, fmaf(f * f, tail, f));
}

/* Of a positive normal x. */
HOST_DEVICE static inline float log_ref(float x)
{
    uint32_t bits = f32_to_bits(x);
    int32_t exponent = (int32_t)(bits - SQRT_HALF_BITS) >> 23;
    float mantissa = f32_from_bits(bits - ((uint32_t)exponent << 23));
    return log_parts_ref(mantissa - 1.0f, (float)exponent);
}

/* -log(1 - w), 0 < w < 1, without losing a small w. */
HOST_DEVICE static inline float exponential_ref(float w)
{
    uint32_t bits = f32_to_bits(1.0f - w);
    int32_t exponent = (int32_t)(bits - SQRT_HALF_BITS) >> 23;
    float mantissa = f32_from_bits(bits - ((uint32_t)exponent << 23));
    return -log_parts_ref(w < UNIFORM_SMALL ? -w : mantissa - 1.0f, (float)exponent);
}

/* -log(-log(u)) from 32 random bits, u = 1 - w: the winners of a draw have u near 1, where w keeps the
 * resolution. */
HOST_DEVICE static inline float gumbel_from_bits_ref(uint32_t bits)
{
    float w = ((float)(int32_t)(bits >> 1) + 0.5f) * 0x1p-31f;
    w = w > UNIFORM_MAX ? UNIFORM_MAX : w;
    return -log_ref(exponential_ref(w));
}

/* Counter: position, purpose, token / 4; the word token % 4 of the block. */
HOST_DEVICE static inline float gumbel_ref(struct gumbel_key key, uint32_t token)
{
    const uint32_t counter[4] = {key.position, key.purpose, token / 4, 0};
    struct philox_block block = philox4x32(key.key, counter);
    /* Chosen, not indexed: a GPU has no index into registers. */
    uint32_t low = token % 2 == 0 ? block.lane[0] : block.lane[1];
    uint32_t high = token % 2 == 0 ? block.lane[2] : block.lane[3];
    return gumbel_from_bits_ref(token % 4 < 2 ? low : high);
}

/* The pairwise sum of kernel_types.h; lanes are overwritten. */
HOST_DEVICE static inline float sum_lanes_ref(float lanes[LANES])
{
    for (int width = LANES / 2; width > 0; width /= 2) {
        for (int i = 0; i < width; i++)
            lanes[i] += lanes[i + width];
    }
    return lanes[0];
}
