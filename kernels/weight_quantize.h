/* From f32 weights to codes and scales: symmetric, one f16 scale per group. Pure functions, any thread; the
 * same bits on every machine. */
#pragma once

#include <stddef.h>
#include <stdint.h>

/* Codes -127..127: scale = amax / 127. w: [n] finite, n a multiple of 32. Returns the scale, an f16. */
uint16_t quantize_group_int8(const float *w, size_t n, int8_t *codes);

/* Codes -8..7: of a few scales around the one that maps the largest weight to -8 (or 7), and the one that is
 * optimal for the codes found so, that with the least squared error. */
uint16_t quantize_group_int4(const float *w, size_t n, int8_t *codes);
