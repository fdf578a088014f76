#include "model/dummy_weights.h"

#include <string.h>
#include "base/assert.h"
#include "base/float8.h"
#include "base/hash.h"

/* The finaliser of SplitMix64 (Steele, Lea, Flood, "Fast Splittable Pseudorandom Number Generators", 2014).
 */
static inline uint64_t mix(uint64_t x)
{
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
    return x ^ (x >> 31);
}

/* One of the four values that 64 random bits make. A uniform value on (-w, w) has the deviation w / sqrt(3).
 */
static inline float value_of(uint64_t bits, size_t lane)
{
    const float scale = DUMMY_WEIGHT_DEVIATION * 1.7320508f / 32768.0f;
    return scale * ((float)(int16_t)(bits >> (16 * lane)) + 0.5f);
}

static uint64_t row_key(uint64_t seed, const char *name, size_t row)
{
    return mix(hash64(name, strlen(name), seed) + 0x9e3779b97f4a7c15u * (uint64_t)row);
}

void dummy_row(uint64_t seed, const char *name, size_t row, size_t first, size_t n, float *out)
{
    uint64_t key = row_key(seed, name, row);
    size_t column = first, end = first + n;
    for (; column < end && column % 4 != 0; column++)
        *out++ = value_of(mix(key + column / 4 * 4), column % 4);
    for (; column + 4 <= end; column += 4) {
        uint64_t bits = mix(key + column);
        for (size_t lane = 0; lane < 4; lane++)
            *out++ = value_of(bits, lane);
    }
    for (; column < end; column++)
        *out++ = value_of(mix(key + column / 4 * 4), column % 4);
}

/* ---- Codes: eight of 64 bits, a byte each ---- */

enum { CODES_A_DRAW = 8, INT8_CODE_MAX = 127 };

bool dummy_has_codes(enum weight_format format)
{
    return format == WEIGHT_INT4 || format == WEIGHT_INT8 || format == WEIGHT_FP8;
}

/* The code of each byte: uniform. */
static void make_table(enum weight_format format, int8_t table[256])
{
    for (int i = 0; i < 256; i++) {
        float uniform = ((float)i - 127.5f) / 127.5f;
        switch (format) {
        case WEIGHT_INT4:
            table[i] = (int8_t)(i % 15 - 7); /* their mean is 0 */
            break;
        case WEIGHT_INT8:
            table[i] = (int8_t)(i - 128 < -INT8_CODE_MAX ? -INT8_CODE_MAX : i - 128);
            break;
        case WEIGHT_FP8:
            table[i] = (int8_t)f8_e4m3_from_f32(uniform * F8_E4M3_MAX);
            break;
        default:
            ASSERT(!"no dummy codes of this format");
        }
    }
}

void dummy_codes(uint64_t seed, const char *name, size_t row, size_t first, size_t n,
                 enum weight_format format, int8_t *out)
{
    int8_t table[256];
    make_table(format, table);
    uint64_t key = row_key(seed, name, row);
    for (size_t column = first, end = first + n; column < end;) {
        uint64_t bits = mix(key + column / CODES_A_DRAW) >> column % CODES_A_DRAW * 8;
        size_t next = (column / CODES_A_DRAW + 1) * CODES_A_DRAW;
        for (next = next < end ? next : end; column < next; column++, bits >>= 8)
            *out++ = table[bits & 255];
    }
}

/* A uniform value on (-w, w) has the deviation w / sqrt(3). */
float dummy_codes_scale(enum weight_format format)
{
    float greatest = format == WEIGHT_INT4   ? 7.5f
                     : format == WEIGHT_INT8 ? (float)INT8_CODE_MAX
                                             : F8_E4M3_MAX;
    return DUMMY_WEIGHT_DEVIATION * 1.7320508f / greatest;
}
