#include "base/hash.h"

#include <string.h>
#define XXH_INLINE_ALL /* the header alone: no library to bring along */
#include <xxhash.h>

static inline uint64_t rotate_left(uint64_t x, int bits)
{
    return (x << bits) | (x >> (64 - bits));
}

struct sip_state {
    uint64_t v0, v1, v2, v3;
};

static inline void sip_rounds(struct sip_state *s, int n_rounds)
{
    for (int i = 0; i < n_rounds; i++) {
        s->v0 += s->v1;
        s->v2 += s->v3;
        s->v1 = rotate_left(s->v1, 13) ^ s->v0;
        s->v3 = rotate_left(s->v3, 16) ^ s->v2;
        s->v0 = rotate_left(s->v0, 32);
        s->v2 += s->v1;
        s->v0 += s->v3;
        s->v1 = rotate_left(s->v1, 17) ^ s->v2;
        s->v3 = rotate_left(s->v3, 21) ^ s->v0;
        s->v2 = rotate_left(s->v2, 32);
    }
}

static inline void sip_absorb(struct sip_state *s, uint64_t word)
{
    s->v3 ^= word;
    sip_rounds(s, 2);
    s->v0 ^= word;
}

struct hash128 siphash128(const uint64_t key[2], const void *data, size_t size_bytes)
{
    struct sip_state s = {
        .v0 = 0x736f6d6570736575u ^ key[0],
        .v1 = 0x646f72616e646f6du ^ key[1] ^ 0xee, /* 0xee marks the 128-bit variant */
        .v2 = 0x6c7967656e657261u ^ key[0],
        .v3 = 0x7465646279746573u ^ key[1],
    };
    const uint8_t *bytes = data;
    size_t n_words = size_bytes / 8;
    for (size_t i = 0; i < n_words; i++) {
        uint64_t word;
        memcpy(&word, bytes + 8 * i, 8); /* little-endian, as the only targets are */
        sip_absorb(&s, word);
    }
    uint64_t last = (uint64_t)size_bytes << 56;
    for (size_t i = 0; i < size_bytes % 8; i++)
        last |= (uint64_t)bytes[8 * n_words + i] << (8 * i);
    sip_absorb(&s, last);

    struct hash128 out;
    s.v2 ^= 0xee;
    sip_rounds(&s, 4);
    out.low = s.v0 ^ s.v1 ^ s.v2 ^ s.v3;
    s.v1 ^= 0xdd;
    sip_rounds(&s, 4);
    out.high = s.v0 ^ s.v1 ^ s.v2 ^ s.v3;
    return out;
}

uint64_t hash64(const void *data, size_t size_bytes, uint64_t seed)
{
    return XXH3_64bits_withSeed(data, size_bytes, seed);
}
