/* Operations as a tile product in bf16 does them: to nearest even, a subnormal operand counts as a zero, and
 * so does a result that is subnormal after it was rounded as if exponents had no end. */
#pragma once

#include <float.h>
#include <math.h>
#include "base/float16.h"

#define FLUSH_INLINE static inline __attribute__((always_inline))

/* Zeros of the same sign in place of subnormals. */
FLUSH_INLINE float flush_ref(float x)
{
    uint32_t bits = f32_to_bits(x);
    return f32_from_bits((bits & 0x7f800000u) == 0 ? bits & 0x80000000u : bits);
}

/* a * b + c, of operands that are not subnormal. */
FLUSH_INLINE float fma_flush_ref(float a, float b, float c)
{
    float sum = fmaf(a, b, c);
    /* The least normal number may have come from below, rounded to the coarser grid of subnormals. In 24 bits
     * it is what lies from halfway on; the product is exact in f64, and the sum there where it matters. */
    const double halfway = (double)FLT_MIN * (1 - 0x1p-25);
    if (fabsf(sum) == FLT_MIN && fabs((double)a * (double)b + (double)c) < halfway)
        return sum * 0.0f;
    return flush_ref(sum);
}

/* A sum of two floats is a multiple of the least subnormal, so that a small one is exact. */
FLUSH_INLINE float add_flush_ref(float a, float b)
{
    return flush_ref(a + b);
}
