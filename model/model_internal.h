/* The inside of a model: what model.c makes and forward.c runs. */
#pragma once

#include <stdbool.h>
#include "kernels/kernels.h"
#include "model/checkpoint.h"
#include "model/memory_plan.h"
#include "model/model.h"
#include "model/model_config.h"
#include "model/weights.h"

struct layer {
    struct vector *attention_norm, *mlp_norm; /* [hidden] */
    struct weight *qkv;                       /* [qkv, hidden] */
    struct weight *o;                         /* [hidden, attention] */
    struct weight *gate_up;                   /* [2 * mlp, hidden] */
    struct weight *down;                      /* [hidden, mlp] */
    struct kv *kv;
    struct attention_params attention;
};

struct model_acts {                        /* model_act_spec of each */
    struct act *residual, *normed, *delta; /* [rows, hidden] */
    struct act *qkv, *attention, *gate_up, *mlp;
    struct act *output_hidden; /* [plan.logits_rows, hidden] */
    struct act *logits;        /* [plan.logits_rows, vocab] */
};

struct model {
    struct model_config config;
    struct memory_plan plan;
    struct model_description description;
    struct generation_config generation;
    struct backend *backend;
    struct layer *layers;      /* [config.n_layers] */
    struct weight *embedding;  /* [vocab, hidden] */
    struct weight *lm_head;    /* [vocab, hidden]; the embedding itself when tied */
    struct vector *final_norm; /* [hidden] */
    struct rope *rope;
    struct sampler *sampler;
    struct model_acts acts;
};
