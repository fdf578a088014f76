#include "kernels/cuda/weight_row.h"

#include <string.h>
#include "base/float8.h"
#include "kernels/ref/math_ref.h"

float weight_row_greatest(const float *row, size_t n)
{
    int32_t greatest = 0; /* bits of magnitudes stand in the order of the values; SSE2 compares signed ones */
    for (size_t k = 0; k < n; k++) {
        int32_t magnitude = (int32_t)(f32_to_bits(row[k]) & 0x7fffffffu);
        greatest = magnitude > greatest ? magnitude : greatest;
    }
    return f32_from_bits((uint32_t)greatest);
}

float weight_row_quantize(enum weight_format format, const float *row, size_t n, int8_t *codes)
{
    float limit = format == WEIGHT_FP8 ? F8_E4M3_MAX : 127.0f, greatest = weight_row_greatest(row, n);
    if (greatest < QUANT_AMAX_MIN) {
        memset(codes, 0, n);
        return 0;
    }
    const float inverse = limit / greatest;
    if (format == WEIGHT_FP8) {
        for (size_t k = 0; k < n; k++)
            codes[k] = (int8_t)f8_e4m3_from_f32(row[k] * inverse);
    } else {
        for (size_t k = 0; k < n; k++)
            codes[k] = (int8_t)(f32_to_bits(row[k] * inverse + ROUND_MAGIC) - ROUND_MAGIC_BITS);
    }
    return greatest / limit;
}
