#include "router/service/time_sketch.h"

#include <math.h>
#include <stddef.h>

/* Bucket i ends at FIRST_NS * RATIO^i. */
#define FIRST_NS 1e5
#define RATIO    1.2

static size_t bucket_of(int64_t duration_ns)
{
    if (duration_ns <= (int64_t)FIRST_NS)
        return 0;
    double place = ceil(log((double)duration_ns / FIRST_NS) / log(RATIO));
    return place < TIME_SKETCH_BUCKETS - 1 ? (size_t)place : TIME_SKETCH_BUCKETS - 1;
}

void time_sketch_add(struct time_sketch *sketch, int64_t duration_ns)
{
    sketch->counts[bucket_of(duration_ns)]++;
    if (++sketch->total < TIME_SKETCH_MEMORY)
        return;
    sketch->total = 0;
    for (size_t i = 0; i < TIME_SKETCH_BUCKETS; i++) {
        sketch->counts[i] /= 2;
        sketch->total += sketch->counts[i];
    }
}

int64_t time_sketch_quantile_ns(const struct time_sketch *sketch, double share)
{
    if (sketch->total == 0)
        return -1;
    double wanted = share * sketch->total;
    uint32_t seen = 0;
    size_t i = 0;
    for (; i < TIME_SKETCH_BUCKETS - 1; i++) {
        seen += sketch->counts[i];
        if (seen > 0 && seen >= wanted)
            break;
    }
    return (int64_t)(FIRST_NS * pow(RATIO, (double)i));
}
