#include "base/philox.h"

#include <errno.h>
#include <math.h>
#include <sys/random.h>
#include "base/assert.h"

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
