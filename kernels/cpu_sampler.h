/* Inside of the CPU backend's sampler: the state of slots and what its two files share. */
#pragma once

#include "kernels/cpu_backend.h"

/* One token of a slot's history, when penalties count it. */
struct token_count {
    uint32_t token_id;
    uint32_t n_output; /* times drawn; 0 = only in the prompt */
};

struct sampler_slot {
    struct sampler_params params;
    bool is_set, counts_tokens; /* counts_tokens: some penalty is on */
    uint32_t last_token;
    size_t n_output;
    uint32_t *output_ids;       /* [max_history]: drawn tokens, for bad words */
    struct token_count *counts; /* [n_counts of max_counts]: distinct tokens */
    size_t n_counts;
    uint32_t *index; /* [index_size] open addressing by token: position in counts + 1, or 0 */
};

/* Of one thread. */
struct sampler_scratch {
    float *values;    /* [vocab] candidates: logits or probabilities */
    uint32_t *ids;    /* [vocab] */
    uint64_t *heap;   /* [vocab] the same as keys, then the survivors */
    uint64_t *popped; /* [vocab] */
    float *copy;      /* [vocab] transformed logits, where the raw ones are still needed */
    uint64_t dispatches[KERNEL_COUNT];
};

struct sampler {
    uint32_t n_slots;
    size_t vocab_size, max_history; /* max_history: with STEP_RESULT_TOKENS_MAX to spare */
    size_t max_counts, index_size;
    int n_threads;
    struct sampler_slot *slots;      /* [n_slots] */
    struct sampler_scratch *scratch; /* [n_threads] */
    void *memory;
};

/* Counts a drawn token or one of the prompt. */
void sampler_slot_append(const struct sampler *sampler, struct sampler_slot *slot, uint32_t token_id);

/* ---- cpu_sample_choice.c: from the logits of one output to tokens; x is [vocab_size] ---- */

/* The draw of sampler.h from transformed logits whose maximum `max` is finite; x is overwritten. */
uint32_t sampler_draw(const struct kernel_table *table, struct sampler_scratch *scratch, float *x, size_t n,
                      float max, const struct sampler_params *params, uint32_t position);

/* Log-probability and rank of `token_id`, and the n_top best tokens (fewer when fewer are finite), from raw
 * logits whose maximum `max` is finite. */
void sampler_logprobs(const struct kernel_table *table, struct sampler_scratch *scratch, const float *x,
                      size_t n, float max, uint32_t token_id, uint32_t n_top, struct step_result *result);
