/* Which replica a request goes to: where its first token is expected soonest. What a replica reports is a
 * little old, so that what was sent to it since is added; what its prefix cache saves is taken off. Among
 * those that are as good as equal two are drawn, and the one with fewer requests of ours gets it: several
 * routers that see the same reports then do not all run to one. Pure. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "api/service.h"
#include "base/philox.h"

/* Until a replica's own times are known. */
#define PICK_TOKEN_NS_GUESS   INT64_C(100000)     /* prefill of a token */
#define PICK_REQUEST_NS_GUESS INT64_C(1000000000) /* from the first token to the last */
#define PICK_EQUAL_NS         INT64_C(1000000)    /* as good as equal: so much, or an eighth of the best */

struct replica_state {
    bool can_take;
    bool has_loads;
    struct loads loads;      /* at its last report */
    uint32_t sent_requests;  /* since then, and not ended */
    uint32_t ended_requests; /* since then, of those sent before */
    uint64_t sent_tokens;    /* since then, without a first token so far, but for what was taken to be warm */
    uint32_t n_under_way;    /* all requests of ours */
    uint32_t warm_tokens;    /* of this request's prompt */
    int64_t token_ns;        /* prefill of a token; 0 = not known yet */
    int64_t request_ns;      /* a request's time from its first token to its last; 0 = not known yet */
};

/* -1 = it has not told anything. */
int64_t replica_predict_ns(const struct replica_state *replica, uint32_t prompt_tokens);
/* An index; n when nobody can take it. */
size_t replica_pick(const struct replica_state *replicas, size_t n, uint32_t prompt_tokens, struct rng *rng);
