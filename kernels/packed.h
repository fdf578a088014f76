/* The packed layout of a weight, one for every instruction set. Outputs are taken in panels of 32, so that a
 * vector register holds different outputs of one input: no sum across a register is ever needed, and each
 * output is one chain of fused multiply-adds over ascending inputs, whatever the width of the registers.
 *
 * A panel of a float format:   [n_in][32] elements.
 * A panel of a quantised one:  per group of inputs: [32] f16 scales, uint4: [32] 16-bit zero points, k4 and
 * k5: [32] f16 minimums; then per block of 32 inputs
 *   int8:  [2 halves][8 quads][16 outputs][4 inputs] bytes, code + 128
 *   int4:  [2 halves][4 pairs][16 outputs][4 inputs] bytes, code + 8; low nibble: quad p, high nibble: p + 4
 *   uint4: likewise, the code as it is
 *   int5:  nibbles as int4, of code + 16; [2 halves][16 outputs][4 inputs] bytes of fifth bits, bit q: quad q
 *   k4:    [32] scales, [32] minimums in bytes; nibbles as uint4
 *   k5:    likewise; fifth bits as int5
 *   k6:    [2 halves of the inputs][32] signed bytes of scales; nibbles as int4, of code + 32;
 *          [2 halves][2][16 outputs][4 inputs] bytes of high bits: quad 4w + i in bits 2i, 2i + 1 of part w
 * fp8 is kept as the same numbers in bf16, with a scale per output beside the panels.
 * where quad q holds the inputs 4q .. 4q + 3 of the block, and half h the outputs 16h .. 16h + 15.
 * Outputs past n_out are zero weights. Everything is aligned to 64 bytes.
 *
 * In a file: of each section its panels, then where they are there the biases and the scales of fp8, [32] f32
 * a panel. */
#pragma once

#include <stddef.h>
#include <stdint.h>
#include "base/checked.h"
#include "kernels/kernels.h"

/* The name of all this in files: another one with any change of the bytes. */
#define PACKED_LAYOUT "cpu-panels-1"

enum {
    PANEL_OUTPUTS = 32,
    QUANT_BLOCK = 32, /* inputs that share one activation scale */
    QUANT_QUADS = 8,  /* of four inputs, in a block */
    HALF_BLOCK = QUANT_BLOCK / 2,
    HALF_OUTPUTS = 16, /* outputs of half a panel */
    PANEL_SCALE_BYTES = PANEL_OUTPUTS * 2,
    PANEL_ZERO_BYTES = PANEL_OUTPUTS * 2,
    INT8_BLOCK_BYTES = PANEL_OUTPUTS * QUANT_BLOCK,
    INT4_BLOCK_BYTES = INT8_BLOCK_BYTES / 2,
    BIT_PLANE_BYTES = INT8_BLOCK_BYTES / 8, /* one more bit of every code of a block */
    BLOCK_SCALE_BYTES = PANEL_OUTPUTS * 2,  /* in front of a block of k4, k5, k6 */
    INT8_OFFSET = 128,                      /* stored code - code */
    INT4_OFFSET = 8,
    INT5_OFFSET = 16,
    K6_OFFSET = 32,
};

static inline int weight_is_quantized(enum weight_format format)
{
    return format == WEIGHT_INT8 || format == WEIGHT_INT4 || format == WEIGHT_UINT4 || format >= WEIGHT_INT5;
}

/* Scales and minimums of groups are multiplied by integers of their blocks. */
static inline int weight_has_minimums(enum weight_format format)
{
    return format == WEIGHT_K4 || format == WEIGHT_K5;
}

static inline int weight_has_block_scales(enum weight_format format)
{
    return weight_has_minimums(format) || format == WEIGHT_K6;
}

static inline int weight_code_offset(enum weight_format format)
{
    switch (format) {
    case WEIGHT_INT8:
        return INT8_OFFSET;
    case WEIGHT_INT4:
        return INT4_OFFSET;
    case WEIGHT_INT5:
        return INT5_OFFSET;
    case WEIGHT_K6:
        return K6_OFFSET;
    default:
        return 0;
    }
}

/* What stands in front of a group's blocks. */
static inline size_t group_header_bytes(enum weight_format format)
{
    return PANEL_SCALE_BYTES + (format == WEIGHT_UINT4 || weight_has_minimums(format) ? PANEL_ZERO_BYTES : 0);
}

/* What stands in front of a block's codes. */
static inline size_t block_header_bytes(enum weight_format format)
{
    return weight_has_block_scales(format) ? BLOCK_SCALE_BYTES : 0;
}

/* Bytes of one element of a float format. */
static inline size_t float_format_bytes(enum weight_format format)
{
    return format == WEIGHT_F32 ? 4 : 2;
}

/* With its header. */
static inline size_t quant_block_bytes(enum weight_format format)
{
    size_t planes = format == WEIGHT_INT5 || format == WEIGHT_K5 ? 1 : format == WEIGHT_K6 ? 2 : 0;
    return block_header_bytes(format) + (format == WEIGHT_INT8 ? INT8_BLOCK_BYTES : INT4_BLOCK_BYTES) +
           planes * BIT_PLANE_BYTES;
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

/* Of the byte, behind a block's nibbles, whose bit i / 4 is the fifth one of the code. */
static inline size_t fifth_bit_offset(size_t o, size_t i)
{
    return INT4_BLOCK_BYTES + o / HALF_OUTPUTS * (BIT_PLANE_BYTES / 2) + o % HALF_OUTPUTS * 4 + i % 4;
}

/* Likewise; bits 2 (i / 4 % 4) and the next are those above the nibble. */
static inline size_t high_bits_offset(size_t o, size_t i)
{
    return INT4_BLOCK_BYTES + o / HALF_OUTPUTS * BIT_PLANE_BYTES +
           i / (QUANT_BLOCK / 2) * (HALF_OUTPUTS * 4) + o % HALF_OUTPUTS * 4 + i % 4;
}

/* The code of output o and input i, with its offset; codes: of the block, behind its header. */
static inline int packed_code(enum weight_format format, const uint8_t *codes, size_t o, size_t i)
{
    if (format == WEIGHT_INT8)
        return codes[int8_code_offset(o, i)];
    int code = codes[int4_code_offset(o, i)] >> (i < QUANT_BLOCK / 2 ? 0 : 4) & 15;
    if (format == WEIGHT_INT5 || format == WEIGHT_K5)
        code |= (codes[fifth_bit_offset(o, i)] >> (i / 4) & 1) << 4;
    if (format == WEIGHT_K6)
        code |= (codes[high_bits_offset(o, i)] >> (i / 4 % 4 * 2) & 3) << 4;
    return code;
}

/* Its reverse, into a block that is zero there. */
static inline void packed_code_write(enum weight_format format, uint8_t *codes, size_t o, size_t i, int code)
{
    if (format == WEIGHT_INT8) {
        codes[int8_code_offset(o, i)] = (uint8_t)code;
        return;
    }
    codes[int4_code_offset(o, i)] |= (uint8_t)((code & 15) << (i < QUANT_BLOCK / 2 ? 0 : 4));
    if (format == WEIGHT_INT5 || format == WEIGHT_K5)
        codes[fifth_bit_offset(o, i)] |= (uint8_t)((code >> 4 & 1) << (i / 4));
    if (format == WEIGHT_K6)
        codes[high_bits_offset(o, i)] |= (uint8_t)((code >> 4 & 3) << (i / 4 % 4 * 2));
}
