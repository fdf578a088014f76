/* Reference of the quantisation of weights. */
#include <math.h>
#include "base/assert.h"
#include "kernels/kernel_table.h"
#include "kernels/ref/math_ref.h"
#include "kernels/ref/quantize_ref.h"

/* The nearest f16 that is finite, as f32. */
static float round_scale(float scale)
{
    scale = scale > F16_MAX ? F16_MAX : scale;
    scale = scale < -F16_MAX ? -F16_MAX : scale;
    return f16_to_f32(f16_from_f32(scale));
}

/* The element of greatest magnitude, with its sign; the first on ties. */
static float find_extreme(const float *w, size_t n)
{
    float extreme = 0;
    for (size_t i = 0; i < n; i++)
        extreme = fabsf(w[i]) > fabsf(extreme) ? w[i] : extreme;
    return extreme;
}

static float code_of(float w, float inverse, float low, float high)
{
    float code = w * inverse;
    code = code < low ? low : code;
    code = code > high ? high : code;
    return code + ROUND_MAGIC - ROUND_MAGIC;
}

uint16_t quantize_group_int8_ref(const float *w, size_t n, int8_t *codes)
{
    ASSERT(n % QUANT_BLOCK == 0);
    float scale = round_scale(fabsf(find_extreme(w, n)) / 127.0f);
    float inverse = scale > 0 ? 1.0f / scale : 0.0f;
    for (size_t i = 0; i < n; i++)
        codes[i] = (int8_t)code_of(w[i], inverse, -127.0f, 127.0f);
    return f16_from_f32(scale);
}

/* How well a scale does, sums in LANES. */
static struct int4_fit fit_int4(const float *w, size_t n, float scale)
{
    float inverse = scale == 0 ? 0.0f : 1.0f / scale;
    float error[LANES] = {0}, dot[LANES] = {0}, square[LANES] = {0};
    for (size_t i = 0; i < n; i++) {
        float code = code_of(w[i], inverse, -8.0f, 7.0f);
        float miss = fmaf(code, -scale, w[i]);
        error[i % LANES] = fmaf(miss, miss, error[i % LANES]);
        dot[i % LANES] = fmaf(w[i], code, dot[i % LANES]);
        square[i % LANES] = fmaf(code, code, square[i % LANES]);
    }
    return (struct int4_fit){sum_lanes_ref(error), sum_lanes_ref(dot), sum_lanes_ref(square)};
}

/* Keeps the better of two scales. */
static void try_scale(const float *w, size_t n, float scale, float *best_scale, struct int4_fit *best)
{
    scale = round_scale(scale);
    struct int4_fit fit = fit_int4(w, n, scale);
    if (fit.error < best->error) {
        *best = fit;
        *best_scale = scale;
    }
}

uint16_t quantize_group_int4_ref(const float *w, size_t n, int8_t *codes)
{
    ASSERT(n % QUANT_BLOCK == 0);
    float extreme = find_extreme(w, n), scale = 0;
    struct int4_fit best = fit_int4(w, n, scale);
    for (size_t i = 0; extreme != 0 && i < INT4_TARGETS; i++)
        try_scale(w, n, extreme / int4_targets[i], &scale, &best);
    if (best.square > 0)
        try_scale(w, n, best.dot / best.square, &scale, &best);
    float inverse = scale == 0 ? 0.0f : 1.0f / scale;
    for (size_t i = 0; i < n; i++)
        codes[i] = (int8_t)code_of(w[i], inverse, -8.0f, 7.0f);
    return f16_from_f32(scale);
}
