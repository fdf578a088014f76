/* From f32 weights to codes and scales. Written so that a compiler may vectorise it for any register width
 * with the same bits: sums stand in eight lanes, nothing is contracted. Included by ref/quantize_ref.c, and
 * once per instruction set, with KERNEL(name) defined as the function's name there. */
#include <math.h>
#include "base/assert.h"
#include "base/float16.h"
#include "kernels/kernel_table.h"

enum { SUM_LANES = 8 };

static const float f16_max = 65504.0f;
/* x + round_magic - round_magic rounds a small x to an integer, to even; unlike rintf it vectorises. */
static const float round_magic = 12582912.0f;

/* The nearest f16 that is finite, as f32. */
static float round_scale(float scale)
{
    scale = scale > f16_max ? f16_max : scale;
    scale = scale < -f16_max ? -f16_max : scale;
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
    return code + round_magic - round_magic;
}

uint16_t KERNEL(quantize_group_int8)(const float *w, size_t n, int8_t *codes)
{
    ASSERT(n % QUANT_BLOCK == 0);
    float scale = round_scale(fabsf(find_extreme(w, n)) / 127.0f);
    float inverse = scale > 0 ? 1.0f / scale : 0.0f;
    for (size_t i = 0; i < n; i++)
        codes[i] = (int8_t)code_of(w[i], inverse, -127.0f, 127.0f);
    return f16_from_f32(scale);
}

struct int4_fit {
    float error;       /* sum of squares */
    float dot, square; /* of weights and codes, of codes: dot / square is the best scale for these codes */
};

static float add_lanes(const float lanes[SUM_LANES])
{
    return ((lanes[0] + lanes[4]) + (lanes[2] + lanes[6])) + ((lanes[1] + lanes[5]) + (lanes[3] + lanes[7]));
}

static struct int4_fit fit_int4(const float *w, size_t n, float scale)
{
    float inverse = scale == 0 ? 0.0f : 1.0f / scale;
    float error[SUM_LANES] = {0}, dot[SUM_LANES] = {0}, square[SUM_LANES] = {0};
    for (size_t i = 0; i < n; i += SUM_LANES) {
        for (size_t l = 0; l < SUM_LANES; l++) {
            float x = w[i + l], code = code_of(x, inverse, -8.0f, 7.0f);
            float miss = x - code * scale;
            error[l] += miss * miss;
            dot[l] += x * code;
            square[l] += code * code;
        }
    }
    return (struct int4_fit){add_lanes(error), add_lanes(dot), add_lanes(square)};
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

uint16_t KERNEL(quantize_group_int4)(const float *w, size_t n, int8_t *codes)
{
    ASSERT(n % QUANT_BLOCK == 0);
    /* The extreme's code, before rounding and clamping: past the end, it is clipped in favour of the rest. */
    static const float targets[] = {-7.0f, -8.0f, -8.8f, 7.0f, 7.7f};
    float extreme = find_extreme(w, n);
    float scale = 0;
    struct int4_fit best = fit_int4(w, n, scale);
    for (size_t i = 0; extreme != 0 && i < sizeof targets / sizeof targets[0]; i++)
        try_scale(w, n, extreme / targets[i], &scale, &best);
    if (best.square > 0)
        try_scale(w, n, best.dot / best.square, &scale, &best);
    float inverse = scale == 0 ? 0.0f : 1.0f / scale;
    for (size_t i = 0; i < n; i++)
        codes[i] = (int8_t)code_of(w[i], inverse, -8.0f, 7.0f);
    return f16_from_f32(scale);
}
