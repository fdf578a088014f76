/* What the linear kernels do with their sums; see rows_x86.h for how it is included. */
#pragma once

#include "kernels/kernel_types.h"
#include "kernels/packed.h"

enum {
    /* Weights are asked for this far ahead: with several rows a tile works too long on one cache line for the
     * processor to look ahead by itself. Past the panel lies the next one; past the last one it does no
     * harm. */
    PREFETCH_BYTES = 2048,
    CACHE_LINE_BYTES = 64,
};

static inline __attribute__((always_inline)) void prefetch_weights(const uint8_t *at, size_t n_bytes)
{
#pragma GCC unroll 20
    for (size_t i = 0; i < n_bytes; i += CACHE_LINE_BYTES)
        _mm_prefetch((const char *)at + PREFETCH_BYTES + i, _MM_HINT_T0);
}

/* Writes the sums of one row, outputs [16 first_half, ..). */
static inline __attribute__((always_inline)) void
store_outputs(const struct linear_args *a, size_t row, size_t first_half, int n_halves, const vf *sums)
{
    for (int h = 0; h < n_halves; h++) {
        size_t first = (first_half + (size_t)h) * HALF_OUTPUTS;
        if (first >= a->n_out)
            return;
        vf sum = sums[h];
        if (a->scale != NULL)
            sum = vf_mul(sum, vf_load(a->scale + first));
        if (a->bias != NULL)
            sum = vf_add(sum, vf_load(a->bias + first));
        float *out = a->out + row * a->out_stride + first;
        if (a->n_out - first >= HALF_OUTPUTS)
            vf_store(out, sum);
        else
            vf_store_first(out, sum, a->n_out - first);
    }
}
