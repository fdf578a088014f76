#include "model/dummy_weights.h"

#include <string.h>
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

void dummy_row(uint64_t seed, const char *name, size_t row, size_t first, size_t n, float *out)
{
    uint64_t key = mix(hash64(name, strlen(name), seed) + 0x9e3779b97f4a7c15u * (uint64_t)row);
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
