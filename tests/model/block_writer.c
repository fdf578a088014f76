#include "tests/model/block_writer.h"

#include <math.h>
#include <string.h>
#include "base/assert.h"
#include "base/float16.h"
#include "model/block_formats.h"

enum { SMALL = 32, LARGE = 256, RUN = 32, RUN_6 = 16 };

/* Returns the number as it was written. */
static float put_f16(uint8_t *at, float value)
{
    uint16_t bits = f16_from_f32(value);
    memcpy(at, &bits, sizeof bits);
    return f16_to_f32(bits);
}

static int nearest(float value, int low, int high)
{
    return (int)fminf((float)high, fmaxf((float)low, rintf(value)));
}

static float inverse_of(float value)
{
    return value == 0 ? 0 : 1 / value;
}

/* The one furthest from zero. */
static float peak(const float *x, int n)
{
    float at = 0;
    for (int i = 0; i < n; i++)
        at = fabsf(x[i]) > fabsf(at) ? x[i] : at;
    return at;
}

static void put_nibbles(const int codes[SMALL], uint8_t *bytes)
{
    for (int i = 0; i < SMALL / 2; i++)
        bytes[i] = (uint8_t)((codes[i] & 15) | (codes[i + SMALL / 2] & 15) << 4);
}

static void put_high_bits(const int codes[SMALL], uint8_t *bytes)
{
    uint32_t high = 0;
    for (int i = 0; i < SMALL; i++)
        high |= (uint32_t)(codes[i] >> 4 & 1) << i;
    memcpy(bytes, &high, sizeof high);
}

/* Q4_0, Q5_0, Q8_0: what is furthest from zero becomes the lowest code (of 8 bits: the one whose negative
 * there is, too). */
static void quantize_symmetric(uint32_t type, const float *x, uint8_t *block)
{
    int half = type == BLOCK_Q4_0 ? 8 : type == BLOCK_Q5_0 ? 16 : 127, codes[SMALL];
    float inverse = inverse_of(put_f16(block, peak(x, SMALL) / (float)-half));
    for (int i = 0; i < SMALL; i++) {
        int code = nearest(x[i] * inverse, -half, type == BLOCK_Q8_0 ? half : half - 1);
        codes[i] = code + half;
        if (type == BLOCK_Q8_0)
            block[2 + i] = (uint8_t)(int8_t)code;
    }
    if (type == BLOCK_Q5_0)
        put_high_bits(codes, block + 2);
    if (type != BLOCK_Q8_0)
        put_nibbles(codes, block + (type == BLOCK_Q5_0 ? 6 : 2));
}

/* Q4_1, Q5_1. */
static void quantize_from_minimum(uint32_t type, const float *x, uint8_t *block)
{
    int highest = type == BLOCK_Q4_1 ? 15 : 31, codes[SMALL];
    float low = x[0], high = x[0];
    for (int i = 1; i < SMALL; i++) {
        low = fminf(low, x[i]);
        high = fmaxf(high, x[i]);
    }
    float inverse = inverse_of(put_f16(block, (high - low) / (float)highest));
    low = put_f16(block + 2, low);
    for (int i = 0; i < SMALL; i++)
        codes[i] = nearest((x[i] - low) * inverse, 0, highest);
    if (type == BLOCK_Q5_1)
        put_high_bits(codes, block + 4);
    put_nibbles(codes, block + (type == BLOCK_Q5_1 ? 8 : 4));
}

/* The 6-bit scales and minimums of Q4_K and Q5_K in 12 bytes, as ggml's get_scale_min_k4 reads them. */
static void put_scales(const int *scales, const int *minimums, uint8_t bytes[12])
{
    for (int i = 0; i < 4; i++) {
        bytes[i] = (uint8_t)(scales[i] | (scales[i + 4] >> 4) << 6);
        bytes[i + 4] = (uint8_t)(minimums[i] | (minimums[i + 4] >> 4) << 6);
        bytes[i + 8] = (uint8_t)((scales[i + 4] & 15) | (minimums[i + 4] & 15) << 4);
    }
}

/* Q4_K, Q5_K: runs of 32, each with a scale and what is taken away. */
static void quantize_k(uint32_t type, const float *x, uint8_t *block)
{
    enum { RUNS = LARGE / RUN };
    int highest = type == BLOCK_Q4_K ? 15 : 31, codes[LARGE], scales[RUNS], minimums[RUNS];
    float spans[RUNS], lows[RUNS], largest_span = 0, largest_low = 0;
    for (int r = 0; r < RUNS; r++) {
        float low = 0, high = x[r * RUN];
        for (int i = 0; i < RUN; i++) {
            low = fminf(low, x[r * RUN + i]);
            high = fmaxf(high, x[r * RUN + i]);
        }
        spans[r] = fmaxf(0, high - low) / (float)highest;
        lows[r] = -low;
        largest_span = fmaxf(largest_span, spans[r]);
        largest_low = fmaxf(largest_low, lows[r]);
    }
    float scale = put_f16(block, largest_span / 63), minimum = put_f16(block + 2, largest_low / 63);
    for (int r = 0; r < RUNS; r++) {
        scales[r] = nearest(spans[r] * inverse_of(scale), 0, 63);
        minimums[r] = nearest(lows[r] * inverse_of(minimum), 0, 63);
        float inverse = inverse_of(scale * (float)scales[r]);
        for (int i = r * RUN; i < (r + 1) * RUN; i++)
            codes[i] = nearest((x[i] + minimum * (float)minimums[r]) * inverse, 0, highest);
    }
    put_scales(scales, minimums, block + 4);
    uint8_t *high = type == BLOCK_Q5_K ? block + 16 : NULL, *nibbles = block + (high ? 48 : 16);
    for (int i = 0; i < LARGE; i++) { /* pairs of runs side by side in the nibbles of 32 bytes */
        int at = i / (2 * RUN) * RUN + i % RUN, upper = i / RUN % 2;
        nibbles[at] = (uint8_t)((upper ? nibbles[at] : 0) | (codes[i] & 15) << 4 * upper);
        if (high != NULL)
            high[i % RUN] = (uint8_t)((i < RUN ? 0 : high[i % RUN]) | (codes[i] >> 4) << i / RUN);
    }
}

/* Q6_K: runs of 16, each with a scale. */
static void quantize_6(const float *x, uint8_t *block)
{
    enum { RUNS = LARGE / RUN_6 };
    int codes[LARGE];
    float peaks[RUNS];
    for (int r = 0; r < RUNS; r++)
        peaks[r] = peak(x + r * RUN_6, RUN_6) / -32;
    float scale = put_f16(block + 208, peak(peaks, RUNS) / -127), inverse = inverse_of(scale);
    for (int r = 0; r < RUNS; r++) {
        int of_run = nearest(peaks[r] * inverse, -127, 127);
        block[192 + r] = (uint8_t)(int8_t)of_run;
        float run_inverse = inverse_of(scale * (float)of_run);
        for (int i = r * RUN_6; i < (r + 1) * RUN_6; i++)
            codes[i] = nearest(x[i] * run_inverse, -32, 31) + 32;
    }
    for (int half = 0; half < 2; half++) {
        const int *c = codes + 128 * half;
        for (int i = 0; i < 32; i++) {
            block[64 * half + i] = (uint8_t)((c[i] & 15) | (c[i + 64] & 15) << 4);
            block[64 * half + i + 32] = (uint8_t)((c[i + 32] & 15) | (c[i + 96] & 15) << 4);
            block[128 + 32 * half + i] =
                (uint8_t)(c[i] >> 4 | c[i + 32] >> 4 << 2 | c[i + 64] >> 4 << 4 | c[i + 96] >> 4 << 6);
        }
    }
}

void block_quantize(uint32_t type, const float *x, uint8_t *block)
{
    switch (type) {
    case BLOCK_Q4_0:
    case BLOCK_Q5_0:
    case BLOCK_Q8_0:
        quantize_symmetric(type, x, block);
        return;
    case BLOCK_Q4_1:
    case BLOCK_Q5_1:
        quantize_from_minimum(type, x, block);
        return;
    case BLOCK_Q4_K:
    case BLOCK_Q5_K:
        quantize_k(type, x, block);
        return;
    default:
        ASSERT(type == BLOCK_Q6_K);
        quantize_6(x, block);
    }
}
