/* simulator --seeds N --first-seed S [--trace]: runs seeds S .. S+N-1 and prints what happened and one hash
 * over all traces. A failing seed prints its number and ends the program. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "base/hash.h"
#include "tests/scheduler/simulator.h"

static void print_counts(const struct sim_counts *c)
{
    printf("steps %" PRIu64 " (empty plans %" PRIu64 "), rows %" PRIu64 ", of them named by slot %" PRIu64
           "\n",
           c->steps, c->empty_plans, c->rows, c->rows_from_slot);
    printf("submitted %" PRIu64 ", refused: full %" PRIu64 ", too long %" PRIu64 "\n", c->submitted,
           c->refused_full, c->refused_too_long);
    printf("finished %" PRIu64 " (early %" PRIu64 "), several tokens at once %" PRIu64 "\n", c->finished,
           c->finished_early, c->several_tokens);
    printf("cancelled waiting %" PRIu64 ", running %" PRIu64 ", in flight %" PRIu64 ", after the end %" PRIu64
           "\n",
           c->cancelled_waiting, c->cancelled_running, c->cancelled_in_flight, c->cancelled_after_end);
    printf("preempted %" PRIu64 " (in flight %" PRIu64 ", paused %" PRIu64 "), back while draining %" PRIu64
           ", results dropped %" PRIu64 "\n",
           c->preempted, c->preempted_in_flight, c->preempted_paused, c->readmitted_while_draining,
           c->results_dropped);
    printf("paused %" PRIu64 ", cached positions %" PRIu64 " (after preemption %" PRIu64
           "), cache resets %" PRIu64 "\n",
           c->paused, c->cached_positions, c->cached_after_preemption, c->cache_resets);
    printf("most steps a token to drain %.3f\n", (double)c->most_steps_per_thousand_tokens / 1000.0);
}

int main(int argc, char **argv)
{
    uint64_t n_seeds = 1000, first_seed = 1;
    bool trace = false;
    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "--trace") == 0) {
            trace = true;
        } else if (strcmp(argv[i], "--seeds") == 0 && i + 1 < argc) {
            n_seeds = strtoull(argv[++i], NULL, 10);
        } else if (strcmp(argv[i], "--first-seed") == 0 && i + 1 < argc) {
            first_seed = strtoull(argv[++i], NULL, 10);
        } else {
            fprintf(stderr, "usage: simulator [--seeds N] [--first-seed S] [--trace]\n");
            return 2;
        }
    }
    sim_report_aborts();
    struct sim_counts counts = {0};
    uint64_t hash = 0;
    for (uint64_t i = 0; i < n_seeds; i++) {
        uint64_t one = simulate(first_seed + i, trace, &counts);
        hash = hash64(&one, sizeof one, hash);
    }
    printf("%" PRIu64 " seeds from %" PRIu64 ": trace hash %016" PRIx64 "\n", n_seeds, first_seed, hash);
    print_counts(&counts);
    return 0;
}
