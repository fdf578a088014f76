#include "router/local/replica_state.h"

#include "base/assert.h"

void replica_state_sent(struct replica_state *state, uint64_t cold_tokens, struct sent_request *out)
{
    *out = (struct sent_request){.number = ++state->n_sent, .cold_tokens = cold_tokens, .is_waiting = true};
    state->sent_requests++;
    state->sent_tokens += cold_tokens;
    state->n_waiting++;
    state->waiting_tokens += cold_tokens;
    state->n_under_way++;
}

/* What is taken off is at most what is there: after a report sent_tokens is a share of what waits. */
static uint64_t less(uint64_t a, uint64_t b)
{
    return a > b ? a - b : 0;
}

void replica_state_heard(struct replica_state *state, struct sent_request *sent)
{
    if (sent->number > state->heard_until)
        state->heard_until = sent->number;
    if (!sent->is_waiting)
        return;
    sent->is_waiting = false;
    state->n_waiting--;
    state->waiting_tokens -= sent->cold_tokens;
    if (sent->number > state->counted_until)
        state->sent_tokens = less(state->sent_tokens, sent->cold_tokens);
}

void replica_state_ended(struct replica_state *state, struct sent_request *sent)
{
    ASSERT(sent->number > 0 && state->n_under_way > 0);
    replica_state_heard(state, sent);
    if (sent->number > state->counted_until)
        state->sent_requests--;
    else
        state->ended_requests++;
    state->n_under_way--;
}

bool replica_state_report(struct replica_state *state, const struct loads *loads)
{
    bool began_anew = state->has_loads && (loads->requests_total < state->loads.requests_total ||
                                           loads->steps_total < state->loads.steps_total);
    uint64_t counted = state->n_sent; /* all of them, unless the replica's own count tells */
    if (state->has_loads && !began_anew) {
        uint64_t more = loads->requests_total - state->loads.requests_total;
        if (more < state->n_sent - state->counted_until)
            counted = state->counted_until + more;
        if (counted < state->heard_until)
            counted = state->heard_until;
    }
    state->counted_until = counted;
    state->loads = *loads;
    state->has_loads = true;
    state->ended_requests = 0;
    /* Those above heard_until all wait and none has ended. */
    state->sent_requests = (uint32_t)(state->n_sent - counted);
    state->sent_tokens =
        state->n_waiting > 0 ? state->waiting_tokens / state->n_waiting * state->sent_requests : 0;
    return began_anew;
}
