/* Philox4x32-10, a counter-based random generator: the same (key, counter) gives the same bits anywhere.
 * Source: Salmon, Moraes, Dror, Shaw, "Parallel Random Numbers: As Easy as 1, 2, 3", SC 2011. Pure functions.
 */
#pragma once

#include <stdint.h>

struct philox_block {
    uint32_t lane[4];
};

struct philox_block philox4x32(uint64_t key, const uint32_t counter[4]);

/* A sequential generator over philox4x32 for simulators, dummy weights and tests. */
struct rng {
    uint64_t key;
    uint64_t position; /* next 32-bit word */
};
static inline struct rng rng_make(uint64_t seed)
{
    return (struct rng){seed, 0};
}
uint32_t rng_u32(struct rng *rng);
uint64_t rng_u64(struct rng *rng);
/* Uniform in [0, bound), bound > 0. */
uint32_t rng_below(struct rng *rng, uint32_t bound);
/* Uniform in [0, 1), 24 bits. */
float rng_uniform(struct rng *rng);
/* Standard normal (Box-Muller). */
float rng_normal(struct rng *rng);

/* 64 random bits from the operating system (seeds, hash keys). */
uint64_t random_seed_u64(void);
