/* What a router knows of a replica's load: its last report, and what of ours that report does not count yet.
 * A report is made before it arrives: of the requests that were under way to the replica then it knows
 * nothing, and forgetting them would make the replica look emptier than it is, for one interval, to a burst
 * that then runs there. They are told apart by the replica's own count of requests; where other routers send
 * to it too that count is greater than ours, and fewer of ours are kept. Pure: whoever calls has the lock. */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include "api/service.h"

struct replica_state {
    bool can_take;
    bool has_loads;
    struct loads loads;      /* at its last report */
    uint32_t sent_requests;  /* not counted there, and not ended */
    uint32_t ended_requests; /* counted there, and ended since */
    uint64_t sent_tokens;    /* of those, taken to be cold, that wait for a first token */
    uint32_t n_under_way;    /* all requests of ours */
    uint32_t warm_tokens;    /* of this request's prompt */
    int64_t token_ns;        /* prefill of a token; 0 = not known yet */
    int64_t request_ns;      /* a request's time from its first token to its last; 0 = not known yet */
    /* Requests of ours have numbers, from 1. */
    uint64_t n_sent;
    uint64_t counted_until; /* up to this one the last report counts them */
    uint64_t heard_until;   /* the greatest that had a token, or ended */
    uint32_t n_waiting;     /* for a first token */
    uint64_t waiting_tokens;
};

/* What a request that was sent counts as, until its end. */
struct sent_request {
    uint64_t number, cold_tokens;
    bool is_waiting; /* for its first token */
};

/* cold_tokens: of its prompt, that are taken to be computed. */
void replica_state_sent(struct replica_state *state, uint64_t cold_tokens, struct sent_request *out);
/* Its first token; no matter how often. */
void replica_state_heard(struct replica_state *state, struct sent_request *sent);
/* Once, whether it had a token or not. */
void replica_state_ended(struct replica_state *state, struct sent_request *sent);
/* Whether the replica began anew since its last report: it is another process, or was emptied. */
bool replica_state_report(struct replica_state *state, const struct loads *loads);
