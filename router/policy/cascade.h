/* What the first tokens of a local answer say about it: shall it be kept, or shall another one answer? Pure.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include "api/event.h"
#include "router/gate/confidence_map.h"

/* Of the tokens so far. Zero-initialise. */
struct cascade_margins {
    double sum; /* of p1 - p2, the probabilities of the two best tokens */
    uint32_t n;
};

/* p1 - p2 of a token, in 0..1; without a second candidate p1. False: it has no logprobs. */
bool cascade_margin(const struct position_logprobs *position, double *margin);
/* One more token; one without logprobs is passed over. */
void cascade_add(struct cascade_margins *margins, const struct position_logprobs *position);
/* u = 1 - mean(p1 - p2), in 0..1; negative = nothing is known. */
double cascade_uncertainty(const struct cascade_margins *margins);
/* Is the estimate that the answer is wrong above escalate_over? map: from the uncertainty to the estimate.
 * *estimate: it, or negative; an answer of which nothing is known is kept. */
bool cascade_decide(const struct cascade_margins *margins, const struct confidence_map *map,
                    double escalate_over, double *estimate);
