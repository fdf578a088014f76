/* The packed layout of a weight, one for every instruction set. Outputs are taken in panels of 32, so that a
 * vector register holds different outputs of one input: no sum across a register is ever needed, and each
 * output is one chain of fused multiply-adds over ascending inputs, whatever the width of the registers.
 *
 * A panel of a float format:   [n_in][32] elements.
 * A panel of a quantised one:  per group of inputs: [32] f16 scales, uint4: [32] 16-bit zero points, then per
 * block of 32 inputs
 *   int8:  [2 halves][8 quads][16 outputs][4 inputs] bytes, code + 128
 *   int4:  [2 halves][4 pairs][16 outputs][4 inputs] bytes, code + 8; low nibble: quad p, high nibble: p + 4
 *   uint4: likewise, the code as it is
 * fp8 is kept as the same numbers in bf16, with a scale per output beside the panels.
 * where quad q holds the inputs 4q .. 4q + 3 of the block, and half h the outputs 16h .. 16h + 15.
 * Outputs past n_out are zero weights. Everything is aligned to 64 bytes. */
#pragma once

#include <stddef.h>
#include <stdint.h>
#include "base/checked.h"
#include "kernels/kernels.h"

enum {
    PANEL_OUTPUTS = 32,
    QUANT_BLOCK = 32,  /* inputs that share one activation scale */
    QUANT_QUADS = 8,   /* of four inputs, in a block */
    HALF_OUTPUTS = 16, /* outputs of half a panel */
    PANEL_SCALE_BYTES = PANEL_OUTPUTS * 2,
    PANEL_ZERO_BYTES = PANEL_OUTPUTS * 2,
    INT8_BLOCK_BYTES = PANEL_OUTPUTS * QUANT_BLOCK,
    INT4_BLOCK_BYTES = INT8_BLOCK_BYTES / 2,
    INT8_OFFSET = 128, /* stored code - code */
    INT4_OFFSET = 8,
};

static inline int weight_is_quantized(enum weight_format format)
{
    return format == WEIGHT_INT8 || format == WEIGHT_INT4 || format == WEIGHT_UINT4;
}

/* What stands in front of a group's blocks. */
static inline size_t group_header_bytes(enum weight_format format)
{
    return PANEL_SCALE_BYTES + (format == WEIGHT_UINT4 ? PANEL_ZERO_BYTES : 0);
}

/* Bytes of one element of a float format. */
static inline size_t float_format_bytes(enum weight_format format)
{
    return format == WEIGHT_F32 ? 4 : 2;
}

static inline size_t quant_block_bytes(enum weight_format format)
{
    return format == WEIGHT_INT8 ? INT8_BLOCK_BYTES : INT4_BLOCK_BYTES;
}

/* group: inputs per scale, a multiple of QUANT_BLOCK; ignored by float formats. */
static inline size_t panel_bytes(enum weight_format format, size_t n_in, size_t group)
{
    if (!weight_is_quantized(format))
        return PANEL_OUTPUTS * n_in * float_format_bytes(format);
    return n_in / group * (group_header_bytes(format) + group / QUANT_BLOCK * quant_block_bytes(format));
}

/* Offset in its block of the byte that holds input i (0..31) of output o (0..31). */
static inline size_t int8_code_offset(size_t o, size_t i)
{
    return o / HALF_OUTPUTS * (INT8_BLOCK_BYTES / 2) + i / 4 * (HALF_OUTPUTS * 4) + o % HALF_OUTPUTS * 4 +
           i % 4;
}

/* As int8_code_offset, of int4 and uint4; inputs 16..31 are in the high nibble. */
static inline size_t int4_code_offset(size_t o, size_t i)
{
    return o / HALF_OUTPUTS * (INT4_BLOCK_BYTES / 2) + i % 16 / 4 * (HALF_OUTPUTS * 4) +
           o % HALF_OUTPUTS * 4 + i % 4;
}
