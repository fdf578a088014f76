#include "tests/cuda/wgmma_sum.h"

#include <limits.h>
#include <math.h>
#include <stdint.h>
#include "base/float16.h"

enum { FRACTION_BITS = 13, E4M3_EXPONENT_MIN = -6 };

/* Of a value of e4m3 that is not 0. */
static int exponent_e4m3(float value)
{
    int exponent = (int)(f32_to_bits(value) >> 23 & 0xffu) - 127;
    return exponent > E4M3_EXPONENT_MIN ? exponent : E4M3_EXPONENT_MIN;
}

/* In units of 1 / scale, towards zero. */
static int64_t cut(double value, double scale)
{
    return (int64_t)(value * scale);
}

double wgmma_e4m3_add(double sum, const float *a, const float *b)
{
    int greatest = sum == 0 ? INT_MIN : ilogb(sum);
    for (int k = 0; k < WGMMA_E4M3_INPUTS; k++) {
        if (a[k] == 0 || b[k] == 0)
            continue;
        int exponent = exponent_e4m3(a[k]) + exponent_e4m3(b[k]);
        greatest = exponent > greatest ? exponent : greatest;
    }
    if (greatest == INT_MIN)
        return 0;
    double scale = ldexp(1, FRACTION_BITS - greatest);
    int64_t units = cut(sum, scale);
    for (int k = 0; k < WGMMA_E4M3_INPUTS; k++)
        units += cut((double)a[k] * (double)b[k], scale);
    if (units == 0)
        return 0;
    double result = (double)units / scale, result_scale = ldexp(1, FRACTION_BITS - ilogb(result));
    return (double)cut(result, result_scale) / result_scale;
}
