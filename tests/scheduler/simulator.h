/* Runs the scheduler through seeded lives: arrivals, cancels and pauses in every state, tiny KV stores,
 * shared prefixes, both policies, one or two steps in flight. What a block holds is modelled row by row, so
 * that a request that would read anything but its own prefix is caught; tokens are a pure function of
 * (request, position), so that any schedule must give the same output. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

/* How often the interesting things happened, summed over seeds: a simulation that never preempts proves
 * nothing about preemption. */
struct sim_counts {
    uint64_t steps, empty_plans, rows, submitted, refused_full, refused_too_long, finished;
    uint64_t finished_early; /* before max_output */
    uint64_t cancelled_waiting, cancelled_running, cancelled_in_flight, cancelled_after_end;
    uint64_t preempted, preempted_in_flight, preempted_paused, readmitted_while_draining;
    uint64_t paused, cached_positions, results_dropped, rows_from_slot, several_tokens, cache_resets;
    uint64_t cached_after_preemption, prefixes_stored, prefixes_removed;
    /* The most steps after the last arrival, in thousandths of the tokens that were left. */
    uint64_t most_steps_per_thousand_tokens;
};

/* One life, to its end. Returns the hash of everything that was planned. Whatever does not hold prints the
 * seed and aborts. */
uint64_t simulate(uint64_t seed, bool trace, struct sim_counts *counts);

/* From now on an abort (also one of the scheduler's own assertions) prints the seed and how to replay it. */
void sim_report_aborts(void);
