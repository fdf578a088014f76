/* Operations as a tile product in bf16 does them: to nearest even, a subnormal operand counts as a zero, and
 * so does a result that is subnormal after it was rounded as if exponents had no end. */
#pragma once

#include <float.h>
#include <math.h>
#include <stddef.h>
#include "base/float16.h"

enum { FLUSH_ROW_MAX = 32 };

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

/* c[i] = a * b[i] + c[i], for n of at most FLUSH_ROW_MAX. */
FLUSH_INLINE void fma_flush_row_ref(float a, const float *b, float *c, size_t n)
{
    float sums[FLUSH_ROW_MAX];
    uint32_t n_least = 0; /* the least normal number is rare, and the loop without it one of vectors */
    for (size_t i = 0; i < n; i++) {
        sums[i] = fmaf(a, b[i], c[i]);
        n_least += (f32_to_bits(sums[i]) & 0x7fffffffu) == 0x00800000u;
    }
    if (n_least == 0) {
        for (size_t i = 0; i < n; i++)
            c[i] = flush_ref(sums[i]);
        return;
    }
    for (size_t i = 0; i < n; i++)
        c[i] = fma_flush_ref(a, b[i], c[i]);
}

/* A sum of two floats is a multiple of the least subnormal, so that a small one is exact. */
FLUSH_INLINE float add_flush_ref(float a, float b)
{
    return flush_ref(a + b);
}
