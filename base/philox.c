#include "base/philox.h"

#include <errno.h>
#include <math.h>
#include <sys/random.h>
#include "base/assert.h"

enum { PHILOX_ROUNDS = 10 };

struct philox_block philox4x32(uint64_t key, const uint32_t counter[4])
{
    uint32_t key0 = (uint32_t)key;
    uint32_t key1 = (uint32_t)(key >> 32);
    uint32_t c0 = counter[0], c1 = counter[1], c2 = counter[2], c3 = counter[3];
    for (int round = 0; round < PHILOX_ROUNDS; round++) {
        uint64_t product0 = (uint64_t)0xd2511f53u * c0;
        uint64_t product1 = (uint64_t)0xcd9e8d57u * c2;
        c0 = (uint32_t)(product1 >> 32) ^ c1 ^ key0;
        c1 = (uint32_t)product1;
        c2 = (uint32_t)(product0 >> 32) ^ c3 ^ key1;
        c3 = (uint32_t)product0;
        key0 += 0x9e3779b9u;
        key1 += 0xbb67ae85u;
    }
    return (struct philox_block){{c0, c1, c2, c3}};
}

uint32_t rng_u32(struct rng *rng)
{
    uint64_t block = rng->position / 4;
    const uint32_t counter[4] = {(uint32_t)block, (uint32_t)(block >> 32), 0, 0};
    return philox4x32(rng->key, counter).lane[rng->position++ % 4];
}

uint64_t rng_u64(struct rng *rng)
{
    uint64_t low = rng_u32(rng);
    return low | (uint64_t)rng_u32(rng) << 32;
}

/* Lemire, "Fast Random Integer Generation in an Interval", 2019: unbiased, nearly always one multiplication.
 */
uint32_t rng_below(struct rng *rng, uint32_t bound)
{
    ASSERT(bound > 0);
    uint64_t product = (uint64_t)rng_u32(rng) * bound;
    if ((uint32_t)product < bound) {
        uint32_t threshold = (0u - bound) % bound;
        while ((uint32_t)product < threshold)
            product = (uint64_t)rng_u32(rng) * bound;
    }
    return (uint32_t)(product >> 32);
}

float rng_uniform(struct rng *rng)
{
    return (float)(rng_u32(rng) >> 8) * 0x1p-24f;
}

float rng_normal(struct rng *rng)
{
    /* (0, 1]: the logarithm needs more than zero. */
    double u = ((double)(rng_u32(rng) >> 8) + 1.0) * 0x1p-24;
    double v = (double)(rng_u32(rng) >> 8) * 0x1p-24;
    return (float)(sqrt(-2.0 * log(u)) * cos(2.0 * M_PI * v));
}

uint64_t random_seed_u64(void)
{
    uint64_t seed;
    ssize_t got;
    do {
        got = getrandom(&seed, sizeof seed, 0);
    } while (got < 0 && errno == EINTR);
    ASSERT(got == (ssize_t)sizeof seed);
    return seed;
}
