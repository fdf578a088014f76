#include "tests/cuda/wgmma_sum.h"

#include <limits.h>
#include <math.h>

enum { FRACTION_BITS = 13, E4M3_EXPONENT_MIN = -6 };

/* Of a value that is not 0. */
static int exponent_of(double value, int least)
{
    int exponent = ilogb(value);
    return exponent > least ? exponent : least;
}

/* To a multiple of 2^(exponent - FRACTION_BITS), towards zero. */
static double cut(double value, int exponent)
{
    return ldexp(trunc(ldexp(value, FRACTION_BITS - exponent)), exponent - FRACTION_BITS);
}

double wgmma_e4m3_add(double sum, const float *a, const float *b)
{
    int greatest = sum == 0 ? INT_MIN : ilogb(sum);
    for (int k = 0; k < WGMMA_E4M3_INPUTS; k++) {
        if (a[k] == 0 || b[k] == 0)
            continue;
        int exponent =
            exponent_of((double)a[k], E4M3_EXPONENT_MIN) + exponent_of((double)b[k], E4M3_EXPONENT_MIN);
        greatest = exponent > greatest ? exponent : greatest;
    }
    if (greatest == INT_MIN)
        return 0;
    double result = cut(sum, greatest);
    for (int k = 0; k < WGMMA_E4M3_INPUTS; k++)
        result += cut((double)a[k] * (double)b[k], greatest);
    return result == 0 ? 0 : cut(result, ilogb(result));
}
