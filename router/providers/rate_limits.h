/* What a provider says of its limits, so that one that has nothing left is not asked before that is new
 * again. Whoever asks passes the time. Not synchronised. */
#pragma once

#include "router/providers/egress.h"

struct rate_limits {
    int64_t remaining[EGRESS_RATES];      /* as it said last; -1 = it did not */
    int64_t none_before_ns[EGRESS_RATES]; /* when what was used up is new again; 0 = something is left */
    int64_t asked_before_ns;              /* it asked to be left alone until then; 0 = it did not */
};

void rate_limits_open(struct rate_limits *limits);
/* The head of an answer, whatever its status. A limit with nothing left and no time when it is new again says
 * nothing that one could wait for. */
void rate_limits_take(struct rate_limits *limits, const struct egress_head *head, int64_t now_ns);
/* A refusal with Retry-After. */
void rate_limits_leave_alone(struct rate_limits *limits, int64_t wait_ns, int64_t now_ns);
/* How long it is not to be asked; 0 = it may be. */
int64_t rate_limits_wait_ns(const struct rate_limits *limits, int64_t now_ns);
