/* The memory plan: computed from shapes and the backend's own byte counts before anything is allocated. */
#pragma once

#include "base/error.h"
#include "kernels/kernels.h"
#include "model/model.h"
#include "model/model_config.h"
#include "model/shard.h"
#include "model/weights.h"

enum {
    LOGITS_ROWS_MIN = 32, /* of memory_plan.logits_rows, where the backend takes as many */
    MODEL_SEQS_MAX = 4096,
    MODEL_BATCHED_TOKENS_MAX = 1 << 16,
    MODEL_DEFAULT_SEQS = 64,
    MODEL_DEFAULT_BATCHED_TOKENS = 512,
};

/* The activations of a forward pass. */
enum model_act {
    MODEL_ACT_RESIDUAL,
    MODEL_ACT_NORMED,
    MODEL_ACT_DELTA, /* what a layer adds to the residual */
    MODEL_ACT_QKV,
    MODEL_ACT_ATTENTION,
    MODEL_ACT_GATE_UP,
    MODEL_ACT_MLP,
    MODEL_ACT_OUTPUT_RESIDUAL, /* of the outputs of one pass through the LM head, behind the last attention */
    MODEL_ACT_OUTPUT_ATTENTION, /* likewise */
    MODEL_ACT_OUTPUT_HIDDEN,    /* likewise, normed */
    MODEL_ACT_LOGITS_PART,      /* of one rank; only with several */
    MODEL_ACT_LOGITS,
    MODEL_ACTS,
};
struct act_spec {
    enum act_role role;
    size_t rows, width;
};
/* width 0: the act is not there. config: the rank's, of shard_config. */
struct act_spec model_act_spec(const struct model_config *config, const struct shard *shard,
                               const struct memory_plan *plan, enum model_act act);

enum kv_dtype model_kv_dtype(enum model_kv_cache kv_cache, enum model_dtype dtype);
const char *model_kv_dtype_name(enum kv_dtype dtype); /* as model_description has it */
struct kv_desc model_kv_desc(const struct model_config *config, enum kv_dtype dtype, uint32_t n_blocks);
struct step_capacity model_step_capacity(const struct memory_plan *plan);
struct backend_needs model_backend_needs(const struct model_config *config, const struct shard *shard,
                                         const struct memory_plan *plan);

/* INVALID_ARGUMENT for options outside their limits (max_model_len against the model's); RESOURCE_EXHAUSTED
 * when it cannot fit: the message says what would. */
err_t memory_plan_compute(const struct model_options *options, const struct model_config *config,
                          const struct shard *shard, const struct weight_list *list,
                          const struct backend *backend, struct memory_plan *out) ERR_MUST_CHECK;
