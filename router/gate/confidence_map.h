/* How a model's doubt over its first tokens (1 - their mean margin) becomes a probability that its answer is
 * wrong: a step-free curve that never falls, fitted by `bantam eval --calibration FILE` and read by the
 * cascade. JSON:
 * {"bantam_calibration": 1, "tokens": 8, "points": [[doubt, wrong], ...]}. */
#pragma once

#include <stddef.h>
#include <stdint.h>
#include "base/buffer.h"
#include "base/error.h"

enum { CONFIDENCE_POINTS_MAX = 64, CONFIDENCE_MAP_BYTES_MAX = 1 << 16, CONFIDENCE_MAP_VERSION = 1 };

/* Zeroed: the probability is the doubt itself. */
struct confidence_map {
    uint32_t n_points, tokens; /* tokens: that the doubt is over */
    struct confidence_point {
        double doubt, wrong; /* 0..1, both never falling */
    } points[CONFIDENCE_POINTS_MAX];
};

/* Straight lines between points, level beyond them. */
double confidence_map_wrong(const struct confidence_map *map, double doubt);
/* INVALID_ARGUMENT says what is wrong with it. */
err_t confidence_map_parse(const char *text, size_t text_bytes, struct confidence_map *out) ERR_MUST_CHECK;
/* doubts[i], scores[i] of n answers, n >= 1: isotonic fit, then at most CONFIDENCE_POINTS_MAX points of it.
 */
err_t confidence_map_fit(const double *doubts, const double *scores, size_t n, uint32_t tokens,
                         struct confidence_map *out) ERR_MUST_CHECK;
err_t confidence_map_write(const struct confidence_map *map, struct buffer *out) ERR_MUST_CHECK;
