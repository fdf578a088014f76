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

void dummy_row(uint64_t seed, const char *name, size_t row, size_t n, float *out)
{
    /* A uniform value on (-w, w) has the deviation w / sqrt(3). */
    const float scale = DUMMY_WEIGHT_DEVIATION * 1.7320508f / 32768.0f;
    uint64_t key = mix(hash64(name, strlen(name), seed) + 0x9e3779b97f4a7c15u * (uint64_t)row);
    size_t i = 0;
    for (; i + 4 <= n; i += 4) {
        uint64_t bits = mix(key + i);
        for (size_t lane = 0; lane < 4; lane++)
            out[i + lane] = scale * ((float)(int16_t)(bits >> (16 * lane)) + 0.5f);
    }
    uint64_t bits = mix(key + i);
    for (size_t lane = 0; i < n; i++, lane++)
        out[i] = scale * ((float)(int16_t)(bits >> (16 * lane)) + 0.5f);
}
