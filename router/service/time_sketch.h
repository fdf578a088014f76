/* How long something takes, as a small streaming quantile: times in logarithmic buckets, of which old ones
 * fade. Within a fifth of the true value from 0.1 ms to hours. Plain data, zero-initialise; not synchronised.
 */
#pragma once

#include <stdint.h>

enum { TIME_SKETCH_BUCKETS = 96, TIME_SKETCH_MEMORY = 512 };

struct time_sketch {
    uint32_t counts[TIME_SKETCH_BUCKETS];
    uint32_t total; /* halved, like all counts, at TIME_SKETCH_MEMORY */
};

void time_sketch_add(struct time_sketch *sketch, int64_t duration_ns);
/* share: 0..1, 0.5 = the median. -1 = nothing was added. */
int64_t time_sketch_quantile_ns(const struct time_sketch *sketch, double share);
