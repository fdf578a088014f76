/* The fake device's library of products: the reference, and ways of it to be right and yet not ours. By
 * BANTAM_FAKE_PRODUCT:
 *   ours   (default) the order of additions that our kernels have, so that rows are bit-equal to theirs
 *   chain  one chain over all inputs, kept with 15 bits: near ours, the same at every number of rows
 *   wrong  no product of these operands: bf16 too large, e4m3 with the first row's scale for all
 *   rows   ours, and from 300 rows on as chain: a library that changes its mind */
#pragma once

#include <stdbool.h>
#include "kernels/cuda/device_api.h"

enum { FAKE_PRODUCT_VERSION = 130100, FAKE_PRODUCT_SPLIT_ROWS = 300 };

/* Shapes that cuBLASLt would take. */
bool fake_product_has(const struct product_shape *shape);
/* Aborts on a call that does not fit the shape or the device's memory. */
void fake_product_check(const struct product_shape *shape, const struct product_call *call);
void fake_product_run(const struct product_shape *shape, const struct product_call *call);
