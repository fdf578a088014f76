#include "kernels/panel_rows.h"

#include <string.h>
#include "base/assert.h"

/* Codes of four inputs in a word: what is done to one byte of it is done to all, and none of it reaches the
 * next. So the order of the bytes does not matter, and a quad is one load and one store. */
enum {
    HALF_QUADS = QUANT_QUADS / 2,
    QUAD_BYTES = HALF_OUTPUTS * 4, /* from one quad of an output to its next */
};
#define EVERY_BYTE 0x01010101u

static inline uint32_t load_word(const int8_t *at)
{
    uint32_t word;
    memcpy(&word, at, sizeof word);
    return word;
}

static inline void store_word(uint8_t *at, uint32_t word)
{
    memcpy(at, &word, sizeof word);
}

/* One block of one output. Adding an offset of half the range turns the code's highest bit round. */
static inline void put_codes(const enum weight_format format, const int8_t *codes, size_t o, uint8_t *block)
{
    const uint32_t flip = (uint32_t)weight_code_offset(format) * EVERY_BYTE;
    uint32_t quads[QUANT_QUADS], fifth = 0, high[2] = {0, 0};
    for (uint32_t q = 0; q < QUANT_QUADS; q++)
        quads[q] = load_word(codes + 4 * q) ^ flip;
    if (format == WEIGHT_INT8) {
        uint8_t *out = block + int8_code_offset(o, 0);
        for (size_t q = 0; q < QUANT_QUADS; q++)
            store_word(out + q * QUAD_BYTES, quads[q]);
        return;
    }
    uint8_t *out = block + int4_code_offset(o, 0);
    for (size_t q = 0; q < HALF_QUADS; q++)
        store_word(out + q * QUAD_BYTES,
                   (quads[q] & 15 * EVERY_BYTE) | (quads[q + HALF_QUADS] & 15 * EVERY_BYTE) << 4);
    for (uint32_t q = 0; q < QUANT_QUADS; q++) {
        fifth |= (quads[q] >> 4 & EVERY_BYTE) << q;
        high[q / HALF_QUADS] |= (quads[q] >> 4 & 3 * EVERY_BYTE) << 2 * (q % HALF_QUADS);
    }
    if (format == WEIGHT_INT5 || format == WEIGHT_K5)
        store_word(block + fifth_bit_offset(o, 0), fifth);
    if (format == WEIGHT_K6) {
        store_word(block + high_bits_offset(o, 0), high[0]);
        store_word(block + high_bits_offset(o, HALF_BLOCK), high[1]);
    }
}

/* out[o] = rows[o][at]. */
static inline void put_column(const uint16_t *rows, size_t stride, size_t at, uint8_t *out)
{
    for (size_t o = 0; o < PANEL_OUTPUTS; o++)
        ((uint16_t *)(void *)out)[o] = rows[o * stride + at];
}

/* Integers of block b. */
static inline void put_block_scales(const enum weight_format format, const struct panel_codes *rows, size_t b,
                                    uint8_t *out)
{
    const size_t n = rows->n_in / QUANT_BLOCK;
    for (size_t o = 0; o < PANEL_OUTPUTS; o++) {
        if (format == WEIGHT_K6) {
            out[o] = (uint8_t)rows->block_scales[o * 2 * n + 2 * b];
            out[PANEL_OUTPUTS + o] = (uint8_t)rows->block_scales[o * 2 * n + 2 * b + 1];
        } else {
            out[o] = (uint8_t)rows->block_scales[o * n + b];
            out[PANEL_OUTPUTS + o] = rows->block_minimums[o * n + b];
        }
    }
}

static inline void put_groups(const enum weight_format format, const struct panel_codes *rows, uint8_t *panel)
{
    const size_t n_groups = rows->n_in / rows->group;
    for (size_t k = 0; k < rows->n_in; k += QUANT_BLOCK) {
        if (k % rows->group == 0) {
            put_column(rows->scales, n_groups, k / rows->group, panel);
            if (group_header_bytes(format) > PANEL_SCALE_BYTES)
                put_column(rows->seconds, n_groups, k / rows->group, panel + PANEL_SCALE_BYTES);
            panel += group_header_bytes(format);
        }
        if (weight_has_block_scales(format))
            put_block_scales(format, rows, k / QUANT_BLOCK, panel);
        for (size_t o = 0; o < PANEL_OUTPUTS; o++)
            put_codes(format, rows->codes + o * rows->stride + k, o, panel + block_header_bytes(format));
        panel += quant_block_bytes(format);
    }
}

void panel_from_codes(const struct panel_codes *rows, uint8_t *panel)
{
    ASSERT(weight_is_quantized(rows->format) && rows->group % QUANT_BLOCK == 0);
    ASSERT(rows->n_in % rows->group == 0 && rows->stride >= rows->n_in);
    switch (rows->format) { /* each compiled for itself */
    case WEIGHT_INT8:
        put_groups(WEIGHT_INT8, rows, panel);
        break;
    case WEIGHT_INT4:
        put_groups(WEIGHT_INT4, rows, panel);
        break;
    case WEIGHT_UINT4:
        put_groups(WEIGHT_UINT4, rows, panel);
        break;
    case WEIGHT_INT5:
        put_groups(WEIGHT_INT5, rows, panel);
        break;
    case WEIGHT_K4:
        put_groups(WEIGHT_K4, rows, panel);
        break;
    case WEIGHT_K5:
        put_groups(WEIGHT_K5, rows, panel);
        break;
    default:
        put_groups(WEIGHT_K6, rows, panel);
        break;
    }
}

/* A block's bytes are a panel's already, in words of four inputs: each goes to its place. */
void panel_from_blocks(const uint8_t *rows, size_t n_in, uint8_t *panel)
{
    const size_t n_blocks = n_in / QUANT_BLOCK, stride = n_blocks * WEIGHT_BLOCK_BYTES;
    ASSERT(n_in % QUANT_BLOCK == 0);
    for (size_t b = 0; b < n_blocks; b++, rows += WEIGHT_BLOCK_BYTES) {
        for (size_t o = 0; o < PANEL_OUTPUTS; o++)
            memcpy(panel + 2 * o, rows + o * stride, 2);
        panel += PANEL_SCALE_BYTES;
        for (size_t o = 0; o < PANEL_OUTPUTS; o++) {
            uint32_t words[HALF_QUADS];
            memcpy(words, rows + o * stride + 2, sizeof words);
            for (size_t q = 0; q < HALF_QUADS; q++)
                store_word(panel + int4_code_offset(o, 0) + q * QUAD_BYTES, words[q]);
        }
        panel += INT4_BLOCK_BYTES;
    }
}

void panel_from_halves(const uint16_t *rows, size_t stride, size_t n_in, uint16_t *panel)
{
    for (size_t k = 0; k < n_in; k++) {
        for (size_t o = 0; o < PANEL_OUTPUTS; o++)
            panel[k * PANEL_OUTPUTS + o] = rows[o * stride + k];
    }
}

void panel_from_floats(const float *rows, size_t stride, size_t n_in, float *panel)
{
    for (size_t k = 0; k < n_in; k++) {
        for (size_t o = 0; o < PANEL_OUTPUTS; o++)
            panel[k * PANEL_OUTPUTS + o] = rows[o * stride + k];
    }
}
