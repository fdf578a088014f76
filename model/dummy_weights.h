/* Values for --load-format dummy: cheap, and a pure function of (seed, tensor, row, column), so that threads
 * may make rows in any order and two runs agree. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "kernels/kernels.h"

/* Standard deviation of the values: that of a freshly initialised model. */
#define DUMMY_WEIGHT_DEVIATION 0.02f

/* Values [first, first + n) of row `row` of the tensor `name`, uniform with mean 0: out [n]. */
void dummy_row(uint64_t seed, const char *name, size_t row, size_t first, size_t n, float *out);

/* Whether rows of the format are drawn as codes. */
bool dummy_has_codes(enum weight_format format);
/* Codes [first, first + n) of such a row in a quantised format (INT4, INT8, FP8), drawn as they are: of every
 * magnitude the format has, without a row of floats to quantise. out [n]. */
void dummy_codes(uint64_t seed, const char *name, size_t row, size_t first, size_t n,
                 enum weight_format format, int8_t *out);
/* What a code stands for, so that values have DUMMY_WEIGHT_DEVIATION; one for all groups and rows. */
float dummy_codes_scale(enum weight_format format);
