/* Philox4x32-10, a counter-based random generator: the same (key, counter) gives the same bits anywhere.
 * Source: Salmon, Moraes, Dror, Shaw, "Parallel Random Numbers: As Easy as 1, 2, 3", SC 2011. Pure functions.
 */
#pragma once

#include <stdint.h>
#include "base/host_device.h"

struct philox_block {
    uint32_t lane[4];
};

enum { PHILOX_ROUNDS = 10 };

HOST_DEVICE static inline struct philox_block philox4x32(uint64_t key, const uint32_t counter[4])
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
    struct philox_block block = {{c0, c1, c2, c3}};
    return block;
}

/* A sequential generator over philox4x32 for simulators, dummy weights and tests. */
struct rng {
    uint64_t key;
    uint64_t position; /* next 32-bit word */
};
static inline struct rng rng_make(uint64_t seed)
{
    struct rng rng = {seed, 0};
    return rng;
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
