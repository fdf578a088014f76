/* Keyed and plain hashes. SipHash-2-4 with 128-bit output: Aumasson and Bernstein, "SipHash: a fast
 * short-input PRF", 2012. Pure functions. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct hash128 {
    uint64_t low, high;
};

static inline bool hash128_equal(struct hash128 a, struct hash128 b)
{
    return a.low == b.low && a.high == b.high;
}

/* key: 16 secret bytes as two words. */
struct hash128 siphash128(const uint64_t key[2], const void *data, size_t size_bytes);

/* XXH3 64-bit with seed (fingerprints, traces, hash tables over trusted keys). */
uint64_t hash64(const void *data, size_t size_bytes, uint64_t seed);
