/* One product of a tile in bf16, of a row by 32 outputs. */
#pragma once

#include <stdint.h>
#include "kernels/tiles.h"

enum { TILE_BLOCK_OUTPUTS = 32 };

/* sums[o] += sum over i of x[i] * w[i][o], as TDPBF16PS rounds it. w: [TILE_INPUTS][TILE_BLOCK_OUTPUTS], no
 * subnormals; x: [TILE_INPUTS] bf16; sums: [TILE_BLOCK_OUTPUTS]. */
void tile_block_ref(const float *w, const uint16_t *x, float *sums);
