/* A local fleet (router/local/local_fleet.h) for tests, in place of the one with engines: each call follows a
 * script, one character a step.
 *
 *   @  waits for fake_fleet_go       #  hangs until it is cancelled
 *   !  fails, the engine's fault     x  fails, the request's fault
 *   ?  a token that was a coin toss  anything else: a token of this text, sure
 *   ~  ends, by a token that was a coin toss
 *   ^  refuses, as an engine whose model has room for 2000 tokens does for a prompt of 2500
 *   the end: finished, by its stop */
#pragma once

#include <stdbool.h>
#include <stdint.h>

/* For calls from now on, over and over; the string must live. */
void fake_fleet_script(const char *script);
/* Likewise for a classifier's calls, those with allowed token ids, at first "#"; their deadline holds, that
 * of others is the router's to keep. A label's id is its first letter. */
void fake_fleet_classify_script(const char *script);
/* Replicas that are up; at first one. */
void fake_fleet_up(uint32_t n_up);
/* What it expects for a first token; -1 at first. */
void fake_fleet_ttft_ns(int64_t ttft_ns);
/* Requests that it says wait for a seat; 0 at first. */
void fake_fleet_waiting(uint32_t n);
void fake_fleet_go(void);
/* While set, calls that are cancelled do not end yet, as those of a busy engine; off at first. */
void fake_fleet_hold_cancelled(bool holds);
struct fake_fleet_counts {
    uint32_t started, ended, cancelled, live;
    uint32_t classified; /* started as a classifier's */
    uint32_t pauses;
    bool asked_logprobs; /* the last call did */
    int32_t priority;    /* the last call's */
};
struct fake_fleet_counts fake_fleet_counts(void);
/* Waits until so many calls were started, or cancelled, since the process began. */
void fake_fleet_wait_started(uint32_t n);
void fake_fleet_wait_cancelled(uint32_t n);
