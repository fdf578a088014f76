/* What tells one family of models from another: a row of traits, read by config, weights and the forward
 * pass. The loop over layers exists once (forward.c); a family never gets a copy of it. */
#pragma once

#include "base/error.h"
#include "kernels/kernels.h"

enum family_bias {
    FAMILY_BIAS_NEVER,
    FAMILY_BIAS_ALWAYS,
    FAMILY_BIAS_CONFIG, /* as config.json's attention_bias or mlp_bias says */
};

/* Names inside a layer; the full name is layer_prefix, the layer's index, ".", this, ".weight" or ".bias". */
struct family_names {
    const char *embedding, *final_norm, *lm_head; /* whole names, without ".weight" */
    const char *layer_prefix;                     /* "model.layers." */
    const char *attention_norm, *mlp_norm;
    const char *q, *k, *v, *o;
    const char *gate, *up, *down;
};

struct family {
    const char *architecture; /* as in config.json's "architectures" */
    enum norm_kind norm;
    enum rope_kind rope;
    enum family_bias qkv_bias, o_bias, mlp_bias;
    bool sliding_window; /* config.json may ask for a window by use_sliding_window */
    struct family_names names;
};

/* The row of an architecture. UNIMPLEMENTED for one that the table lacks: the message lists those it has. */
err_t family_find(const char *architecture, const struct family **out) ERR_MUST_CHECK;
