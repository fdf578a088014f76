/* A weight's row on its way to the device, on the host: its range, and codes of 8 bits with one scale. */
#pragma once

#include <stddef.h>
#include <stdint.h>
#include "kernels/kernels.h"

/* The greatest magnitude in row[0..n); infinity or NaN where it holds one. */
float weight_row_greatest(const float *row, size_t n);

/* A row of WEIGHT_INT8 or WEIGHT_FP8 to codes, to nearest even, with one scale, which is returned: greatest
 * magnitude / 127 or 448. Scale and codes are 0 where that magnitude is below QUANT_AMAX_MIN
 * (kernel_types.h). row: [n], finite. codes: [n], bytes. */
float weight_row_quantize(enum weight_format format, const float *row, size_t n, int8_t *codes);
