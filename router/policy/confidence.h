/* What is decided with an estimate that an answer is wrong (confidence_map.h), and scores that stand beside
 * it. Pure. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "api/event.h"

/* An answer that was judged, and what a stronger model made of the same question. */
struct judged_sample {
    double estimate; /* that the weak one is wrong, or any score that grows with that */
    bool weak_right, strong_right;
};
struct escalation_threshold {
    double escalate_over;   /* those with an estimate above it go to the strong model */
    double share_escalated; /* 0..1 */
    double quality;         /* share that is right then */
};
/* The threshold with the fewest escalations whose quality is at least `target`; false when none has it, and
 * *out is the one of the best quality. samples: [n], n >= 1, sorted by this function. */
bool threshold_choose(struct judged_sample *samples, size_t n, double target,
                      struct escalation_threshold *out);

/* Of the candidates that are told of a position, what they leave over being one more: nats, a lower bound.
 * Negative: nothing is told. */
double position_entropy(const struct position_logprobs *position);

/* A quantile of numbers that pass, in five of them: P2 (Jain and Chlamtac, "The P2 algorithm for dynamic
 * calculation of quantiles and histograms without storing observations", 1985). A score's quantile that
 * moves says that its calibration is old. */
struct quantile_sketch {
    double quantile; /* 0..1 */
    uint64_t n;
    double height[5], place[5], wanted[5];
};
struct quantile_sketch quantile_sketch_make(double quantile);
void quantile_sketch_add(struct quantile_sketch *sketch, double value);
double quantile_sketch_read(const struct quantile_sketch *sketch); /* NaN while there is none */
