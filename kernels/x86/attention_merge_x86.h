/* Chunks of a context together, for sixteen lanes of any width. Include after a simd header. */
#pragma once

#include "kernels/kernel_types.h"
#include "kernels/x86/math_x86.h"

static inline void merge_chunk(float max, float sum, const float *o, size_t d_stride, float *total_max,
                               float *total_sum, float *total)
{
    bool rises = max > *total_max;
    float fall = exp_of(rises ? *total_max - max : max - *total_max); /* the other one is exp(0) */
    float keep = rises ? fall : 1.0f, add = rises ? 1.0f : fall;
    vf keeps = vf_set1(keep), adds = vf_set1(add);
    *total_max = rises ? max : *total_max;
    *total_sum = fma_of(*total_sum, keep, sum * add);
    for (size_t d = 0; d < d_stride; d += LANES)
        vf_store(total + d, vf_fma(vf_load(total + d), keeps, vf_mul(vf_load(o + d), adds)));
}

static inline void store_quotients(const float *o, float sum, size_t n, float *out)
{
    vf sums = vf_set1(sum);
    for (size_t d = 0; d < n; d += LANES)
        vf_store_first(out + d, vf_div(vf_load(o + d), sums), n - d < LANES ? n - d : LANES);
}
