/* What the loop drives: a model, or a stand-in for tests and for measuring the loop. The slots of the vtable
 * mirror model/model.h; all are called by the loop thread. */
#pragma once

#include <stdint.h>
#include "base/error.h"
#include "kernels/sampler.h"
#include "kernels/step.h"

struct executor_info {
    const char *architecture, *dtype, *kv_dtype, *quantization;
    uint32_t vocab_size;
    uint32_t max_model_len;
    uint32_t num_kv_blocks, block_tokens;
    uint32_t max_num_seqs, max_num_batched_tokens;
    uint64_t n_parameters, weights_fingerprint, arithmetic_fingerprint;
    uint32_t steps_in_flight; /* how many steps may be submitted before the first is collected */
};

struct executor_vtable {
    const struct executor_info *(*info)(void *context);
    err_t (*step_create)(void *context, struct step **out);
    void (*step_destroy)(void *context, struct step *step);
    void (*slot_set)(void *context, uint32_t slot, const struct sampler_params *params,
                     const struct sampler_history *history);
    /* An error of these three is of no request: what executes is lost for good. Steps in flight are still
     * collected, which waits for nothing and whose results nobody reads; nothing else is submitted. */
    err_t (*forward)(void *context, struct step *step);
    err_t (*sample)(void *context, struct step *step, const uint32_t *const *masks);
    err_t (*collect)(void *context, struct step *step);
    /* A piece of work that waited for a time without any, with no step in flight and nothing lost; false:
     * none is left. NULL: there never is. */
    bool (*tend)(void *context);
};

struct executor {
    const struct executor_vtable *vtable;
    void *context;
};
