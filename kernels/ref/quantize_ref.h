/* What the quantisation of weights tries, the same for every instruction set. */
#pragma once

#include <stddef.h>

/* The code that the extreme weight would get before rounding and clamping: past the end of the range it is
 * clipped in favour of the rest. */
enum { INT4_TARGETS = 5 };
static const float int4_targets[INT4_TARGETS] = {-7.0f, -8.0f, -8.8f, 7.0f, 7.7f};

struct int4_fit {
    float error;       /* sum of squares */
    float dot, square; /* of weights and codes, of codes: dot / square is the best scale for these codes */
};
