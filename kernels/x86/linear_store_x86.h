/* What the linear kernels do with their sums; see rows_x86.h for how it is included. */
#pragma once

#include "kernels/kernel_types.h"

/* Writes the sums of one row, outputs [16 first_half, ..). */
static inline __attribute__((always_inline)) void
store_outputs(const struct linear_args *a, size_t row, size_t first_half, int n_halves, const vf *sums)
{
    for (int h = 0; h < n_halves; h++) {
        size_t first = (first_half + (size_t)h) * HALF_OUTPUTS;
        if (first >= a->n_out)
            return;
        vf sum = sums[h];
        if (a->bias != NULL)
            sum = vf_add(sum, vf_load(a->bias + first));
        float *out = a->out + row * a->out_stride + first;
        if (a->n_out - first >= HALF_OUTPUTS)
            vf_store(out, sum);
        else
            vf_store_first(out, sum, a->n_out - first);
    }
}
