/* The inside of a model: what model.c makes, model_run.c drives and forward.c computes. */
#pragma once

#include "base/thread_pool.h"
#include "model/model.h"
#include "model/packed_file.h"
#include "model/rank.h"

enum { MODEL_STEPS_MAX = 4 }; /* that exist at a time */

/* One step as every rank sees it; the first is the caller's, the others are copied from it. */
struct step_set {
    struct step *of_rank[MODEL_RANKS_MAX];
};

struct model {
    struct model_config config;
    struct memory_plan plan; /* of one rank */
    struct model_description description;
    struct generation_config generation;
    uint32_t n_ranks;
    struct model_rank ranks[MODEL_RANKS_MAX];
    struct packed_file packed; /* mapped, and read by the ranks' weights; path NULL = they were packed here */
    struct thread_pool *drivers; /* a thread for each rank, the caller's for the first; NULL with one rank */
    struct step_set steps[MODEL_STEPS_MAX];
};

/* forward.c: one rank's part of model_forward and model_sample. */
void rank_forward(struct model_rank *rank, struct step *step);
void rank_sample(struct model_rank *rank, struct step *step, const uint32_t *const *masks);
/* acts.output_hidden[0, n) = the final hidden states of the outputs [first, first + n) of a step whose
 * forward pass was submitted last; n is at most logits_rows, and first a multiple of it. */
void rank_gather_hidden(struct model_rank *rank, const struct step *step, uint32_t first, uint32_t n);
