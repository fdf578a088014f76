/* Values to the blocks of GGUF's quantised types: the plain way to their scales, without a search for better
 * ones. */
#pragma once

#include <stdint.h>

/* One block of a type of model/block_formats.h: x to as many bytes as gguf_tensor_format says. */
void block_quantize(uint32_t type, const float *x, uint8_t *block);
