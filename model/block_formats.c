#include "model/block_formats.h"

#include <stdbool.h>
#include <stddef.h>
#include <string.h>
#include "base/assert.h"
#include "base/float16.h"
#include "base/gguf.h"

enum {
    SMALL = 32, /* values of a block of the formats without K */
};

static float f16_at(const uint8_t *data)
{
    return f16_to_f32((uint16_t)(data[0] | data[1] << 8));
}

static uint32_t u32_at(const uint8_t *data)
{
    return (uint32_t)data[0] | (uint32_t)data[1] << 8 | (uint32_t)data[2] << 16 | (uint32_t)data[3] << 24;
}

/* f16 d, 16 bytes: the low nibble of byte j is value j, the high one value j + 16; (q - 8) * d. */
static void dequantize_q4_0(const uint8_t *block, float *out)
{
    float d = f16_at(block);
    for (int j = 0; j < SMALL / 2; j++) {
        uint8_t byte = block[2 + j];
        out[j] = (float)((byte & 15) - 8) * d;
        out[j + SMALL / 2] = (float)((byte >> 4) - 8) * d;
    }
}

/* f16 d, f16 m, nibbles as in Q4_0; q * d + m. */
static void dequantize_q4_1(const uint8_t *block, float *out)
{
    float d = f16_at(block), m = f16_at(block + 2);
    for (int j = 0; j < SMALL / 2; j++) {
        uint8_t byte = block[4 + j];
        out[j] = (float)(byte & 15) * d + m;
        out[j + SMALL / 2] = (float)(byte >> 4) * d + m;
    }
}

/* The 5-bit codes: nibbles as in Q4_0, the fifth bit of value i is bit i of high. */
static inline void codes_of_5_bits(const uint8_t *nibbles, uint32_t high, int *codes)
{
    for (int j = 0; j < SMALL / 2; j++) {
        codes[j] = (nibbles[j] & 15) | (int)(high >> j & 1) << 4;
        codes[j + SMALL / 2] = nibbles[j] >> 4 | (int)(high >> (j + SMALL / 2) & 1) << 4;
    }
}

/* f16 d, u32 high bits, nibbles; (q - 16) * d. */
static void dequantize_q5_0(const uint8_t *block, float *out)
{
    float d = f16_at(block);
    int codes[SMALL];
    codes_of_5_bits(block + 6, u32_at(block + 2), codes);
    for (int j = 0; j < SMALL; j++)
        out[j] = (float)(codes[j] - 16) * d;
}

/* f16 d, f16 m, u32 high bits, nibbles; q * d + m. */
static void dequantize_q5_1(const uint8_t *block, float *out)
{
    float d = f16_at(block), m = f16_at(block + 2);
    int codes[SMALL];
    codes_of_5_bits(block + 8, u32_at(block + 4), codes);
    for (int j = 0; j < SMALL; j++)
        out[j] = (float)codes[j] * d + m;
}

/* f16 d, 32 signed bytes; q * d. */
static void dequantize_q8_0(const uint8_t *block, float *out)
{
    float d = f16_at(block);
    for (int j = 0; j < SMALL; j++)
        out[j] = (float)(int8_t)block[2 + j] * d;
}

/* The 6-bit scale and minimum of sub-block j, of 12 bytes. */
static inline void scale_min(const uint8_t *scales, int j, int *scale, int *min)
{
    if (j < 4) {
        *scale = scales[j] & 63;
        *min = scales[j + 4] & 63;
    } else {
        *scale = (scales[j + 4] & 15) | (scales[j - 4] >> 6) << 4;
        *min = scales[j + 4] >> 4 | (scales[j] >> 6) << 4;
    }
}

/* Sub-blocks 2 * pass and 2 * pass + 1 from 32 bytes, low and high nibbles; high: NULL, or 32 bytes whose
 * bits 2 * pass and 2 * pass + 1 are the fifth ones. d * scale * q - dmin * min. */
static void dequantize_pass(const uint8_t *block, int pass, const uint8_t *nibbles, const uint8_t *high,
                            float *out)
{
    float d = f16_at(block), dmin = f16_at(block + 2);
    for (int half = 0; half < 2; half++) {
        int scale, min;
        scale_min(block + 4, 2 * pass + half, &scale, &min);
        float s = d * (float)scale, m = dmin * (float)min;
        for (int l = 0; l < 32; l++) {
            int q = nibbles[l] >> (4 * half) & 15;
            if (high)
                q |= (high[l] >> (2 * pass + half) & 1) << 4;
            out[32 * half + l] = s * (float)q - m;
        }
    }
}

/* f16 d, f16 dmin, 12 bytes of scales, 128 bytes of nibbles: 64 values a pass. */
static void dequantize_q4_k(const uint8_t *block, float *out)
{
    for (int pass = 0; pass < 4; pass++)
        dequantize_pass(block, pass, block + 16 + 32 * pass, NULL, out + 64 * pass);
}

/* As Q4_K, with 32 bytes of fifth bits before the nibbles. */
static void dequantize_q5_k(const uint8_t *block, float *out)
{
    for (int pass = 0; pass < 4; pass++)
        dequantize_pass(block, pass, block + 48 + 32 * pass, block + 16, out + 64 * pass);
}

/* 128 bytes of low nibbles, 64 of high pairs of bits, 16 signed scales, f16 d. A half of 128 values is four
 * runs of 32; run r of it has scales 2 r and 2 r + 1 of the half's eight. d * scale * (q - 32). */
static void dequantize_q6_k(const uint8_t *block, float *out)
{
    float d = f16_at(block + 208);
    for (int half = 0; half < 2; half++) {
        const uint8_t *low = block + 64 * half, *high = block + 128 + 32 * half;
        const uint8_t *scales = block + 192 + 8 * half;
        for (int run = 0; run < 4; run++) {
            for (int l = 0; l < 32; l++) {
                int nibble = low[l + 32 * (run & 1)] >> (4 * (run >> 1)) & 15;
                int q = (nibble | (high[l] >> (2 * run) & 3) << 4) - 32;
                float scale = d * (float)(int8_t)scales[l / 16 + 2 * run];
                out[128 * half + 32 * run + l] = scale * (float)q;
            }
        }
    }
}

block_dequantize_fn *block_dequantize(uint32_t type)
{
    switch (type) {
    case BLOCK_Q4_0:
        return dequantize_q4_0;
    case BLOCK_Q4_1:
        return dequantize_q4_1;
    case BLOCK_Q5_0:
        return dequantize_q5_0;
    case BLOCK_Q5_1:
        return dequantize_q5_1;
    case BLOCK_Q8_0:
        return dequantize_q8_0;
    case BLOCK_Q4_K:
        return dequantize_q4_k;
    case BLOCK_Q5_K:
        return dequantize_q5_k;
    case BLOCK_Q6_K:
        return dequantize_q6_k;
    default:
        return NULL;
    }
}

/* ---- Codes ---- */

/* Bytes are copied in and out: loops over arrays of a function's own become vectors, whatever may overlap. */
static inline void split_nibbles(const uint8_t *nibbles, int8_t *codes)
{
    uint8_t in[SMALL / 2];
    int8_t out[SMALL];
    memcpy(in, nibbles, sizeof in);
    for (int j = 0; j < SMALL / 2; j++) {
        out[j] = (int8_t)(in[j] & 15);
        out[j + SMALL / 2] = (int8_t)(in[j] >> 4);
    }
    memcpy(codes, out, sizeof out);
}

/* Byte j: bit j of high, as 0x10. */
static inline void spread_bits(uint32_t high, uint8_t *out)
{
    const uint64_t every_byte = 0x0101010101010101u;
    for (int i = 0; i < 4; i++, high >>= 8) {
        /* Bit j of eight copies of the byte, to 0x80 of byte j, to 0x10. */
        uint64_t bits = ((high & 255) * every_byte) & 0x8040201008040201u;
        bits = ((bits + (0x80 * every_byte - 0x8040201008040201u)) & 0x80 * every_byte) >> 3;
        memcpy(out + 8 * i, &bits, sizeof bits);
    }
}

static inline void split_5_bits(const uint8_t *nibbles, uint32_t high, int offset, int8_t *codes)
{
    uint8_t in[SMALL / 2], fifth[SMALL];
    int8_t out[SMALL];
    memcpy(in, nibbles, sizeof in);
    spread_bits(high, fifth);
    for (int j = 0; j < SMALL / 2; j++) {
        out[j] = (int8_t)(((in[j] & 15) | fifth[j]) - offset);
        out[j + SMALL / 2] = (int8_t)((in[j] >> 4 | fifth[j + SMALL / 2]) - offset);
    }
    memcpy(codes, out, sizeof out);
}

/* Types of 32 values: one scale, and the minimum with its sign turned. */
static inline void split_small(uint32_t type, const uint8_t *block, struct block_codes *out)
{
    out->scale = f16_at(block);
    out->scales[0] = out->scales[1] = 1;
    out->minimums[0] = 1;
    out->minimum = type == BLOCK_Q4_1 || type == BLOCK_Q5_1 ? -f16_at(block + 2) : 0;
    switch (type) {
    case BLOCK_Q4_1:
        split_nibbles(block + 4, out->codes);
        break;
    case BLOCK_Q5_0:
        split_5_bits(block + 6, u32_at(block + 2), 16, out->codes);
        break;
    case BLOCK_Q5_1:
        split_5_bits(block + 8, u32_at(block + 4), 0, out->codes);
        break;
    default:
        memcpy(out->codes, block + 2, SMALL);
        break;
    }
}

/* Q4_K and Q5_K; see dequantize_pass. high: NULL, or the fifth bits. */
static inline void split_passes(const uint8_t *block, const uint8_t *nibbles, const uint8_t *high,
                                struct block_codes *out)
{
    uint8_t fifth[SMALL] = {0}, in[SMALL];
    int8_t codes[2 * SMALL];
    out->scale = f16_at(block);
    out->minimum = f16_at(block + 2);
    if (high)
        memcpy(fifth, high, sizeof fifth);
    for (int run = 0; run < 8; run++) {
        int scale, min;
        scale_min(block + 4, run, &scale, &min);
        out->scales[run] = (int8_t)scale;
        out->minimums[run] = (uint8_t)min;
    }
    for (int pass = 0; pass < 4; pass++) {
        memcpy(in, nibbles + SMALL * pass, sizeof in);
        for (int l = 0; l < SMALL; l++) {
            codes[l] = (int8_t)((in[l] & 15) | (fifth[l] >> 2 * pass & 1) << 4);
            codes[l + SMALL] = (int8_t)(in[l] >> 4 | (fifth[l] >> (2 * pass + 1) & 1) << 4);
        }
        memcpy(out->codes + 2 * SMALL * pass, codes, sizeof codes);
    }
}

/* See dequantize_q6_k. */
static inline void split_q6_k(const uint8_t *block, struct block_codes *out)
{
    uint8_t low[2 * SMALL], high[SMALL];
    int8_t codes[4 * SMALL];
    out->scale = f16_at(block + 208);
    out->minimum = 0;
    memcpy(out->scales, block + 192, 16);
    for (int half = 0; half < 2; half++) {
        memcpy(low, block + 2 * SMALL * half, sizeof low);
        memcpy(high, block + 128 + SMALL * half, sizeof high);
        for (int l = 0; l < SMALL; l++) {
            codes[l] = (int8_t)(((low[l] & 15) | (high[l] & 3) << 4) - 32);
            codes[l + SMALL] = (int8_t)(((low[l + SMALL] & 15) | (high[l] >> 2 & 3) << 4) - 32);
            codes[l + 2 * SMALL] = (int8_t)((low[l] >> 4 | (high[l] >> 4 & 3) << 4) - 32);
            codes[l + 3 * SMALL] = (int8_t)((low[l + SMALL] >> 4 | (high[l] >> 6) << 4) - 32);
        }
        memcpy(out->codes + 4 * SMALL * half, codes, sizeof codes);
    }
}

static inline void split(uint32_t type, const uint8_t *block, struct block_codes *out)
{
    switch (type) {
    case BLOCK_Q4_K:
        split_passes(block, block + 16, NULL, out);
        break;
    case BLOCK_Q5_K:
        split_passes(block, block + 48, block + 16, out);
        break;
    case BLOCK_Q6_K:
        split_q6_k(block, out);
        break;
    default:
        split_small(type, block, out);
        break;
    }
}

void block_split(uint32_t type, const uint8_t *block, struct block_codes *out)
{
    ASSERT(block_dequantize(type) && type != BLOCK_Q4_0);
    split(type, block, out);
}

static inline void split_row(const uint32_t type, const uint8_t *blocks, size_t n,
                             const struct weight_codes *out)
{
    const size_t block_bytes = gguf_tensor_format(type)->block_bytes;
    const size_t values =
        type == BLOCK_Q4_K || type == BLOCK_Q5_K || type == BLOCK_Q6_K ? BLOCK_VALUES_MAX : SMALL;
    const bool has_minimums =
        type == BLOCK_Q4_1 || type == BLOCK_Q5_1 || type == BLOCK_Q4_K || type == BLOCK_Q5_K;
    const size_t runs = values / SMALL;
    for (size_t b = 0; b < n; b++) {
        struct block_codes block;
        block.codes = out->codes + b * values;
        split(type, blocks + b * block_bytes, &block);
        out->scales[b] = block.scale;
        if (has_minimums) {
            out->minimums[b] = block.minimum;
            memcpy(out->block_scales + b * runs, block.scales, runs);
            memcpy(out->block_minimums + b * runs, block.minimums, runs);
        }
        if (type == BLOCK_Q6_K)
            memcpy(out->block_scales + b * 2 * runs, block.scales, 2 * runs);
    }
}

void block_split_row(uint32_t type, const uint8_t *blocks, size_t n, const struct weight_codes *out)
{
    switch (type) { /* each compiled for itself */
    case BLOCK_Q4_1:
        split_row(BLOCK_Q4_1, blocks, n, out);
        break;
    case BLOCK_Q5_0:
        split_row(BLOCK_Q5_0, blocks, n, out);
        break;
    case BLOCK_Q5_1:
        split_row(BLOCK_Q5_1, blocks, n, out);
        break;
    case BLOCK_Q8_0:
        split_row(BLOCK_Q8_0, blocks, n, out);
        break;
    case BLOCK_Q4_K:
        split_row(BLOCK_Q4_K, blocks, n, out);
        break;
    case BLOCK_Q5_K:
        split_row(BLOCK_Q5_K, blocks, n, out);
        break;
    default:
        ASSERT(type == BLOCK_Q6_K);
        split_row(BLOCK_Q6_K, blocks, n, out);
        break;
    }
}
