/* Which replica a request goes to: where its first token is expected soonest. What a replica reports is a
 * little old, so that what was sent to it since is added; what its prefix cache saves is taken off. Among
 * those that are as good as equal two are drawn, and the one with fewer requests of ours gets it: several
 * routers that see the same reports then do not all run to one. Pure. */
#pragma once

#include <stddef.h>
#include <stdint.h>
#include "base/philox.h"
#include "router/local/replica_state.h"

/* Until a replica's own times are known. */
#define PICK_TOKEN_NS_GUESS   INT64_C(100000)     /* prefill of a token */
#define PICK_REQUEST_NS_GUESS INT64_C(1000000000) /* from the first token to the last */
#define PICK_EQUAL_NS         INT64_C(1000000)    /* as good as equal: so much, or an eighth of the best */

/* -1 = it has not told anything. */
int64_t replica_predict_ns(const struct replica_state *replica, uint32_t prompt_tokens);
/* An index; n when nobody can take it. */
size_t replica_pick(const struct replica_state *replicas, size_t n, uint32_t prompt_tokens, struct rng *rng);
