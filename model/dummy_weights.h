/* Values for --load-format dummy: cheap, and a pure function of (seed, tensor, row, column), so that threads
 * may make rows in any order and two runs agree. */
#pragma once

#include <stddef.h>
#include <stdint.h>

/* Standard deviation of the values: that of a freshly initialised model. */
#define DUMMY_WEIGHT_DEVIATION 0.02f

/* Values [first, first + n) of row `row` of the tensor `name`, uniform with mean 0: out [n]. */
void dummy_row(uint64_t seed, const char *name, size_t row, size_t first, size_t n, float *out);
