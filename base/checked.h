/* Checked size arithmetic for numbers that come from files or the network. Each returns false on overflow and
 * then leaves *out unspecified. */
#pragma once

#include <stdbool.h>
#include <stddef.h>

static inline bool checked_mul(size_t a, size_t b, size_t *out)
{
    return !__builtin_mul_overflow(a, b, out);
}

static inline bool checked_add(size_t a, size_t b, size_t *out)
{
    return !__builtin_add_overflow(a, b, out);
}

/* x rounded up to a multiple of `multiple` (> 0); the caller knows that it cannot overflow. */
static inline size_t round_up(size_t x, size_t multiple)
{
    return (x + multiple - 1) / multiple * multiple;
}

static inline size_t div_up(size_t x, size_t y)
{
    return (x + y - 1) / y;
}
