/* The memory plan: computed from shapes and the backend's own byte counts before anything is allocated. */
#pragma once

#include "base/error.h"
#include "kernels/kernels.h"
#include "model/model.h"
#include "model/model_config.h"
#include "model/weights.h"

enum {
    LOGITS_ROWS = 32, /* outputs that one pass through LM head and sampling takes */
    MODEL_SEQS_MAX = 4096,
    MODEL_BATCHED_TOKENS_MAX = 1 << 16,
    MODEL_DEFAULT_SEQS = 64,
    MODEL_DEFAULT_BATCHED_TOKENS = 512,
    MEMORY_SHARE_PERCENT = 85, /* of the available memory, where no limit is given */
};

/* Widths of the activations, in values a row. */
struct act_widths {
    size_t hidden, qkv, attention, gate_up, mlp, vocab;
};
struct act_widths model_act_widths(const struct model_config *config);

enum kv_dtype model_kv_dtype(enum model_dtype dtype);
struct kv_desc model_kv_desc(const struct model_config *config, enum model_dtype dtype, uint32_t n_blocks);
struct step_capacity model_step_capacity(const struct memory_plan *plan);

/* INVALID_ARGUMENT for options outside their limits (max_model_len against the model's); RESOURCE_EXHAUSTED
 * when it cannot fit: the message says what would. */
err_t memory_plan_compute(const struct model_options *options, const struct model_config *config,
                          const struct weight_list *list, const struct backend *backend,
                          struct memory_plan *out) ERR_MUST_CHECK;
