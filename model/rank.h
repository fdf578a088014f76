/* One rank of a model: a backend with its part of the weights, its KV heads and its activations. A model on
 * one device has one; under tensor parallelism every rank has a thread of its own that walks forward.c over
 * the same step. Made, loaded and destroyed by one thread. */
#pragma once

#include <stdbool.h>
#include "base/progress.h"
#include "kernels/kernels.h"
#include "model/checkpoint.h"
#include "model/memory_plan.h"
#include "model/model_config.h"
#include "model/packed_file.h"
#include "model/shard.h"
#include "model/weights.h"

struct layer {
    struct vector *norms[LAYER_VECTORS]; /* [hidden], of q and k [head_dim]; NULL where the family has none */
    struct weight *qkv;                  /* [qkv, hidden] */
    struct weight *o;                    /* [hidden, attention] */
    struct weight *gate_up;              /* [2 * mlp, hidden] */
    struct weight *down;                 /* [hidden, mlp] */
    struct kv *kv;
    const struct rope *rope; /* the rank's, or its local one */
    struct attention_params attention;
};

struct model_acts {                        /* model_act_spec of each */
    struct act *residual, *normed, *delta; /* [rows, hidden] */
    struct act *qkv, *attention, *gate_up, *mlp;
    /* Of outputs: [plan.logits_rows, hidden], [plan.logits_rows, attention]. */
    struct act *output_residual, *output_attention, *output_hidden;
    struct act *logits_part; /* [plan.logits_rows, this rank's tokens]; NULL with one rank */
    struct act *logits;      /* [plan.logits_rows, vocab] */
};

struct model_rank {
    struct shard shard;
    struct model_config config; /* with this rank's heads and MLP width; vocabulary and hidden size whole */
    struct backend *backend;
    struct layer *layers;      /* [config.n_layers] */
    struct weight *embedding;  /* [shard.n_tokens, hidden] */
    struct weight *lm_head;    /* [shard.n_tokens, hidden]; the embedding itself when tied */
    struct vector *final_norm; /* [hidden] */
    float embedding_scale;
    uint32_t logits_rows;           /* plan.logits_rows */
    struct rope *rope, *local_rope; /* local_rope: of windowed layers, NULL where they have no other */
    struct sampler *sampler;
    struct model_acts acts;
};

/* What loading a rank needs beside the rank itself. */
struct rank_source {
    struct weight_list *list;
    const struct checkpoint *checkpoint; /* NULL = dummy weights, or packed ones */
    const struct packed_file *packed;    /* NULL = none: they are packed now */
    struct thread_pool *pool;            /* that checks packed weights */
    const struct memory_plan *plan;
    enum kv_dtype kv_dtype;
    struct progress *progress; /* of the weights of all ranks */
    uint64_t *done_bytes;      /* weights packed so far, of all ranks */
};

/* Everything but the weights: reserves the memory, and makes KV, activations, rotary tables and sampler.
 * rank->backend, shard and config are set; what was made before an error goes with rank_destroy. */
err_t rank_create(struct model_rank *rank, const struct rank_source *source) ERR_MUST_CHECK;
err_t rank_load_weights(struct model_rank *rank, const struct rank_source *source) ERR_MUST_CHECK;
/* Also the backend. Zeroed memory is fine. */
void rank_destroy(struct model_rank *rank);
