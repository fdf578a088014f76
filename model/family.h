/* What tells one family of models from another: a row of traits, read by config, weights and the forward
 * pass. The loop over layers exists once (forward.c); a family never gets a copy of it. */
#pragma once

#include "base/error.h"
#include "base/gguf.h"
#include "kernels/kernels.h"

enum family_bias {
    FAMILY_BIAS_NEVER,
    FAMILY_BIAS_ALWAYS,
    FAMILY_BIAS_CONFIG, /* as config.json's attention_bias or mlp_bias says */
};

enum family_window {
    FAMILY_WINDOW_NEVER,
    FAMILY_WINDOW_ASKED,   /* where config.json says use_sliding_window */
    FAMILY_WINDOW_PATTERN, /* all layers but every window_pattern-th */
};

/* Names inside a layer; the full name is layer_prefix, the layer's index, ".", this, ".weight" or ".bias". A
 * name that no family with such names has is NULL. */
struct family_names {
    const char *embedding, *final_norm, *lm_head; /* whole names, without ".weight" */
    const char *layer_prefix;                     /* "model.layers." */
    const char *attention_norm, *attention_post_norm, *mlp_norm, *mlp_post_norm;
    const char *q, *k, *v, *o, *q_norm, *k_norm;
    const char *gate, *up, *down;
};

struct family {
    const char *architecture;      /* as in config.json's "architectures" */
    const char *gguf_architecture; /* as in a GGUF file's general.architecture */
    bool gguf_interleaved;         /* GGUF files have the rows of a rotation's pair side by side */
    uint32_t
        largest_layers; /* layers of the family's largest model, 0; its query_scalar: hidden size / heads */
    enum rope_kind rope;
    enum activation_kind activation; /* unless the file says */
    enum family_bias qkv_bias, o_bias, mlp_bias;
    bool norm_one_plus;    /* norms multiply by 1 + w, and config.json's checkpoints hold w */
    bool post_norms;       /* of what attention and MLP give, before it is added to the residual */
    bool qk_norms;         /* of each head of q and k, before the rotation */
    bool scaled_embedding; /* times sqrt(hidden size) */
    bool tied;             /* LM head and embedding, unless the file says */
    uint32_t head_dim;     /* unless the file says; 0 = hidden size / heads */
    double query_scalar;   /* scores are divided by its root unless the file says; 0 = by that of head_dim */
    double attention_soft_cap, final_soft_cap; /* unless the file says; 0 = off */
    double rope_theta;                         /* unless the file says */
    double local_rope_theta; /* of windowed layers unless the file says; 0 = as all others */
    enum family_window window;
    uint32_t window_tokens, window_pattern; /* FAMILY_WINDOW_PATTERN, unless the file says */
    const struct family_names *names;       /* in checkpoints of Hugging Face's layout */
};

/* Names of tensors in GGUF files, of every family. */
extern const struct family_names family_gguf_names;

/* The row of an architecture. UNIMPLEMENTED for one that the table lacks: the message lists those it has. */
err_t family_find(const char *architecture, const struct family **out) ERR_MUST_CHECK;
/* The same by a GGUF file's general.architecture. */
err_t family_find_gguf(struct gguf_text architecture, const struct family **out) ERR_MUST_CHECK;
