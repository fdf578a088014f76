/* From how unsure a model was of its first tokens (cascade.h: u) to how likely its answer is wrong: isotonic
 * regression by pool adjacent violators (Ayer et al., "An empirical distribution function for sampling with
 * incomplete information", 1955), and what is decided with it. Pure. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "api/event.h"
#include "base/buffer.h"
#include "base/error.h"

enum {
    CALIBRATION_KNOTS_MAX = 256,
    CALIBRATION_TEXT_BYTES_MAX = 1 << 16,
    CALIBRATION_SAMPLES_MAX = 1 << 24,
};

struct confidence_sample {
    double u; /* 0..1 */
    bool wrong;
};

/* P(wrong) over u: straight between knots, flat beyond the first and the last. Both coordinates are in 0..1
 * and never go down. */
struct calibration {
    uint64_t n_samples, n_wrong;
    size_t n_knots; /* at least 1 */
    double u[CALIBRATION_KNOTS_MAX], p[CALIBRATION_KNOTS_MAX];
};

/* samples: [n], 1..CALIBRATION_SAMPLES_MAX, sorted by this function. INVALID_ARGUMENT for none of them, and
 * for a u outside of 0..1. */
err_t calibration_fit(struct confidence_sample *samples, size_t n, struct calibration *out) ERR_MUST_CHECK;
double calibration_estimate(const struct calibration *calibration, double u);

/* {"kind": "bantam confidence", "version": 1, "samples": 1000, "wrong": 120, "knots": [[0.1, 0.02], ...]} */
err_t calibration_write(const struct calibration *calibration, struct buffer *out) ERR_MUST_CHECK;
/* INVALID_ARGUMENT says what is wrong with it. */
err_t calibration_parse(const char *text, size_t text_bytes, struct calibration *out) ERR_MUST_CHECK;

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
