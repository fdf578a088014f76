#include <math.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
#include "base/float16.h"
#include "tests/kernels/checkkernel.h"

enum { CANARY = 0xa5, CANARY_BYTES = 64 };

struct guarded guarded_alloc(size_t size_bytes)
{
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    size_t usable = round_up(size_bytes + CANARY_BYTES, page);
    uint8_t *mapping = mmap(NULL, usable + page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    ASSERT(mapping != MAP_FAILED);
    ASSERT(mprotect(mapping + usable, page, PROT_NONE) == 0);
    memset(mapping, CANARY, usable - size_bytes);
    return (struct guarded){mapping + usable - size_bytes, size_bytes, mapping, usable + page};
}

bool guarded_intact(const struct guarded *memory)
{
    for (const uint8_t *at = memory->mapping; at < memory->data; at++) {
        if (*at != CANARY)
            return false;
    }
    return true;
}

void guarded_free(struct guarded *memory)
{
    ASSERT(munmap(memory->mapping, memory->mapping_bytes) == 0);
    *memory = (struct guarded){0};
}

uint32_t rng_between(struct rng *rng, uint32_t low, uint32_t high)
{
    return low + rng_below(rng, high - low + 1);
}

void fill_normal(struct rng *rng, float *values, size_t n)
{
    float scale = ldexpf(1.0f, (int)rng_between(rng, 0, 16) - 8);
    uint32_t zero_one_in = rng_below(rng, 4) == 0 ? 3 : 1000;
    for (size_t i = 0; i < n; i++)
        values[i] = rng_below(rng, zero_one_in) == 0 ? 0.0f : rng_normal(rng) * scale;
}

bool compare_outputs(const struct guarded *expected, const struct guarded *got, const char *what,
                     char failure[FAILURE_MAX])
{
    if (!guarded_intact(got)) {
        snprintf(failure, FAILURE_MAX, "%s: wrote before its beginning", what);
        return false;
    }
    ASSERT(expected->size_bytes == got->size_bytes);
    for (size_t i = 0; i < expected->size_bytes; i++) {
        if (expected->data[i] == got->data[i])
            continue;
        size_t at = i / 4 * 4;
        uint32_t want = 0, have = 0;
        size_t n = expected->size_bytes - at < 4 ? expected->size_bytes - at : 4;
        memcpy(&want, expected->data + at, n);
        memcpy(&have, got->data + at, n);
        snprintf(failure, FAILURE_MAX, "%s: word %zu of %zu is %08x (%g), the reference has %08x (%g)", what,
                 at / 4, expected->size_bytes / 4, have, (double)f32_from_bits(have), want,
                 (double)f32_from_bits(want));
        return false;
    }
    return true;
}
