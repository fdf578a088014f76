/* Matrices of a GGUF file whose codes are computed with as they are: which format of a backend holds a type
 * of blocks, and a row's blocks as that format's codes. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include "base/error.h"
#include "kernels/kernels.h"
#include "model/checkpoint.h"

/* The format that holds the tensor's blocks exactly, and the inputs of one of their scales; false: it has no
 * blocks. */
bool blocks_format(const struct checkpoint_tensor *tensor, enum weight_format *format, uint32_t *group);

/* They are what weight_codes.blocks holds: blocks_read then fills that, and nothing else. */
bool blocks_are_whole(const struct checkpoint_tensor *tensor);

/* Inputs [first, first + n) of the n_columns that a tensor has, in groups of `group` inputs, which divides
 * first, n and the blocks, or is a multiple of WEIGHT_GROUP that does. */
struct blocks_range {
    size_t n_columns, first, n;
    uint32_t group;
};
/* The range of rows [row, row + n_rows) of a tensor with such blocks; out: one for each. Several threads at
 * once. DATA_LOSS for a scale that is no number, IO. */
err_t blocks_read(const struct checkpoint *checkpoint, const struct checkpoint_tensor *tensor,
                  const struct blocks_range *range, size_t row, size_t n_rows,
                  const struct weight_codes *out) ERR_MUST_CHECK;
