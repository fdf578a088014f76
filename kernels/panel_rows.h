/* The panels of packed.h from 32 rows that stand side by side, a row an output: everything of a panel is
 * written once, in its order. Pure functions; packed_code_write and its neighbours define what they do. */
#pragma once

#include <stddef.h>
#include <stdint.h>
#include "kernels/packed.h"

/* Rows of codes; of outputs that do not exist zeros. Codes without their offset. */
struct panel_codes {
    enum weight_format format;
    size_t n_in, group;
    const int8_t *codes; /* [32][n_in], rows stride bytes apart */
    size_t stride;
    const uint16_t *scales;     /* [32][n_in / group], f16 */
    const uint16_t *seconds;    /* likewise: zero points, or f16 minimums; NULL where the format has none */
    const int8_t *block_scales; /* k4, k5: [32][n_in / 32]; k6: [32][n_in / 16] */
    const uint8_t *block_minimums; /* k4, k5: [32][n_in / 32] */
};
void panel_from_codes(const struct panel_codes *rows, uint8_t *panel);
/* int4 in groups of 32 inputs. rows: [32][n_in / 32][WEIGHT_BLOCK_BYTES] (weight_codes.blocks). */
void panel_from_blocks(const uint8_t *rows, size_t n_in, uint8_t *panel);

/* Of a float format; rows: [32][n_in], stride elements apart. */
void panel_from_halves(const uint16_t *rows, size_t stride, size_t n_in, uint16_t *panel);
void panel_from_floats(const float *rows, size_t stride, size_t n_in, float *panel);
