/* ref/math_ref.h in sixteen lanes, operation by operation. Include after a simd header. */
#pragma once

#include "kernels/ref/math_ref.h"

static inline vf vf_exp(vf x)
{
    /* This order of operands lets a NaN through. */
    x = vf_max(vf_set1(EXP_LOW), x);
    x = vf_min(vf_set1(EXP_HIGH), x);
    vf t = vf_fma(x, vf_set1(LOG2_E), vf_set1(ROUND_MAGIC));
    vf n = vf_sub(t, vf_set1(ROUND_MAGIC));
    vf r = vf_fma(n, vf_set1(-LN2_LOW), vf_fma(n, vf_set1(-LN2_HIGH), x));
    vf p = vf_fma(vf_set1(EXP_C4), r, vf_set1(EXP_C3));
    p = vf_fma(p, r, vf_set1(EXP_C2));
    p = vf_fma(p, r, vf_set1(EXP_C1));
    p = vf_fma(p, r, vf_set1(EXP_C0));
    vf y = vf_fma(vf_fma(p, r, vf_set1(1.0f)), r, vf_set1(1.0f));
    vi exponent = vi_sub(vi_bits(t), vi_set1(ROUND_MAGIC_BITS));
    vi half = vi_shift_right_sign(exponent, 1);
    vi bias = vi_set1(127);
    y = vf_mul(y, vi_as_float(vi_shift_left(vi_add(half, bias), 23)));
    return vf_mul(y, vi_as_float(vi_shift_left(vi_add(vi_sub(exponent, half), bias), 23)));
}

static inline vf vf_tanh(vf y)
{
    vf z = vf_mul(y, y);
    vf p = vf_fma(vf_set1(TANH_C4), z, vf_set1(TANH_C3));
    p = vf_fma(p, z, vf_set1(TANH_C2));
    p = vf_fma(p, z, vf_set1(TANH_C1));
    p = vf_fma(p, z, vf_set1(TANH_C0));
    vf near = vf_fma(vf_mul(y, z), p, y);
    vi sign = vi_and(vi_bits(y), vi_set1(0x80000000u));
    vf magnitude = vi_as_float(vi_and(vi_bits(y), vi_set1(0x7fffffffu)));
    vf one = vf_set1(1.0f);
    vf far = vf_sub(one, vf_div(vf_set1(2.0f), vf_add(vf_exp(vf_add(magnitude, magnitude)), one)));
    far = vi_as_float(vi_xor(vi_bits(far), sign)); /* it is not negative */
    return vf_select(vf_less(magnitude, vf_set1(TANH_SMALL)), near, far);
}

static inline vf vf_log_parts(vf f, vf exponent)
{
    vf p = vf_fma(vf_set1(LOG_C7), f, vf_set1(LOG_C6));
    p = vf_fma(p, f, vf_set1(LOG_C5));
    p = vf_fma(p, f, vf_set1(LOG_C4));
    p = vf_fma(p, f, vf_set1(LOG_C3));
    p = vf_fma(p, f, vf_set1(LOG_C2));
    p = vf_fma(p, f, vf_set1(LOG_C1));
    p = vf_fma(p, f, vf_set1(LOG_C0));
    vf tail = vf_fma(f, p, vf_set1(-0.5f));
    return vf_fma(exponent, vf_set1(LN2), vf_fma(vf_mul(f, f), tail, f));
}

static inline vf split_mantissa(vf x, vf *exponent)
{
    vi bits = vi_bits(x);
    vi e = vi_shift_right_sign(vi_sub(bits, vi_set1(SQRT_HALF_BITS)), 23);
    *exponent = vi_to_float(e);
    return vf_sub(vi_as_float(vi_sub(bits, vi_shift_left(e, 23))), vf_set1(1.0f));
}

static inline vf vf_log(vf x)
{
    vf exponent, f = split_mantissa(x, &exponent);
    return vf_log_parts(f, exponent);
}

static inline vf vf_negate(vf x)
{
    return vi_as_float(vi_xor(vi_bits(x), vi_set1(0x80000000u)));
}

static inline vf vf_exponential(vf w)
{
    vf exponent, f = split_mantissa(vf_sub(vf_set1(1.0f), w), &exponent);
    f = vf_select(vf_less(w, vf_set1(UNIFORM_SMALL)), vf_negate(w), f);
    return vf_negate(vf_log_parts(f, exponent));
}

static inline vf vf_gumbel_from_bits(vi bits)
{
    vf w = vf_mul(vf_add(vi_to_float(vi_shift_right(bits, 1)), vf_set1(0.5f)), vf_set1(0x1p-31f));
    w = vf_min(w, vf_set1(UNIFORM_MAX));
    return vf_negate(vf_log(vf_exponential(w)));
}

/* One lane of the above. */
static inline float exp_of(float x)
{
    return _mm_cvtss_f32(vf_first_four(vf_exp(vf_set1(x))));
}
