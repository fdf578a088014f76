/* Keeps calls away from an upstream that fails: closed until it has failed several times in a row, then open
 * for a while, then half open, when one call at a time tries whether it is back. Whoever asks passes the
 * time. Not synchronised. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

struct breaker_options {
    uint32_t failures_to_open;   /* in a row */
    uint32_t successes_to_close; /* in a row, while half open */
    int64_t open_ns;             /* before the first try; a try that fails opens it for as long again */
};
/* 5 failures, 2 successes, 30 s. */
struct breaker_options breaker_options_default(void);

enum breaker_state { BREAKER_CLOSED, BREAKER_OPEN, BREAKER_HALF_OPEN };
const char *breaker_state_name(enum breaker_state state); /* "closed", "open", "half_open" */

/* Zero-initialise: closed. */
struct circuit_breaker {
    enum breaker_state state;
    uint32_t n_failures, n_successes;
    bool is_trying;        /* half open: a call is under way */
    int64_t open_until_ns; /* never moves back while it is the same upstream */
    uint64_t n_opened;     /* times, those when it was forgotten included */
};

enum breaker_state breaker_state_at(const struct circuit_breaker *breaker, int64_t now_ns);
/* May a call go out now? A ticket to go, which one of the three below must take back; 0 = no. What a call
 * tells that went out before the breaker last opened is of no interest any more. */
uint64_t breaker_ask(struct circuit_breaker *breaker, int64_t now_ns);
void breaker_succeeded(struct circuit_breaker *breaker, uint64_t ticket,
                       const struct breaker_options *options);
/* The upstream's fault: not of a request that it rightly refused. retry_after_ns: for how long it asked to be
 * left alone, 0 = it did not; this can only lengthen the time it stays open. */
void breaker_failed(struct circuit_breaker *breaker, uint64_t ticket, const struct breaker_options *options,
                    int64_t now_ns, int64_t retry_after_ns);
/* The call ended without saying anything about the upstream: the client left. */
void breaker_gave_up(struct circuit_breaker *breaker, uint64_t ticket);
/* Another one is there in its place, or a way to it that has not failed yet: closed. */
void breaker_forget(struct circuit_breaker *breaker);
