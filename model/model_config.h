/* config.json of a Hugging Face directory, or a GGUF file's metadata, as a checked struct. Every number has
 * been held against a named limit; sizes derived from them fit in 64 bits. */
#pragma once

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "base/error.h"
#include "kernels/kernels.h"
#include "model/family.h"
#include "model/model.h"
#include "model/quant_config.h"

enum {
    MODEL_VOCAB_MAX = 1 << 20,
    MODEL_LAYERS_MAX = 512,
    MODEL_HIDDEN_MAX = 1 << 17,
    MODEL_INTERMEDIATE_MAX = 1 << 19,
    MODEL_HEADS_MAX = 1024,
    MODEL_HEAD_DIM_MAX = 512,
    MODEL_POSITIONS_MAX = 1 << 24, /* the largest integers that f32 angles keep exact */
};

enum rope_scaling { ROPE_SCALING_NONE, ROPE_SCALING_LINEAR, ROPE_SCALING_LLAMA3, ROPE_SCALING_DIVISORS };

struct rope_config {
    enum rope_scaling scaling;
    double theta;                              /* base of the geometric series of frequencies */
    double factor;                             /* LINEAR, LLAMA3: by which long wavelengths are stretched */
    double low_freq_factor, high_freq_factor;  /* LLAMA3 */
    uint32_t original_max_position_embeddings; /* LLAMA3 */
    float divisors[MODEL_HEAD_DIM_MAX / 2];    /* DIVISORS: of each frequency */
};

struct model_config {
    const struct family *family;
    uint32_t vocab_size, hidden_size, intermediate_size, n_layers;
    uint32_t n_heads, n_kv_heads, head_dim;
    uint32_t max_position_embeddings; /* tokens */
    double norm_eps;
    enum activation_kind activation;
    bool tie_word_embeddings;
    bool qkv_bias, o_bias, mlp_bias;
    enum model_dtype dtype;           /* of the checkpoint; AUTO when config.json does not say */
    const struct family_names *names; /* of the checkpoint's tensors */
    bool norm_one_plus;               /* norms multiply by 1 + what the checkpoint holds */
    bool interleaved_heads; /* the checkpoint has q and k's rows of a rotation's pair side by side */
    float attention_scale;  /* of q . k */
    float attention_soft_cap, final_soft_cap; /* 0 = off */
    struct rope_config rope;
    bool has_local_rope; /* windowed layers rotate by local_rope */
    struct rope_config local_rope;
    uint32_t window; /* keys that a row of a windowed layer sees, itself included; 0 = no such layers */
    bool layer_windowed[MODEL_LAYERS_MAX];
    struct quant_config quantization;
    uint64_t fingerprint; /* over the file's contents, independent of spacing and order of keys */
};

/* Reads PATH/config.json, or the metadata of a GGUF file. NOT_FOUND, DATA_LOSS (not JSON), INVALID_ARGUMENT
 * (names the field), UNIMPLEMENTED (an architecture, a rope type or a quantised checkpoint that is not
 * known). */
err_t model_config_load(const char *path, struct model_config *out) ERR_MUST_CHECK;
/* The same from an open object; file is for messages. */
err_t model_config_parse(const char *file, const json_t *root, struct model_config *out) ERR_MUST_CHECK;

/* Radians per position of each of head_dim / 2 pairs, scaling applied; inv_freq: [head_dim / 2].
 * Plain: theta^(-2i / head_dim) (Su et al., "RoFormer"). LINEAR: divided by factor (Chen et al., "Extending
 * Context Window of Large Language Models via Positional Interpolation"). LLAMA3: wavelengths longer than
 * original / low_freq_factor are divided by factor, those shorter than original / high_freq_factor are kept,
 * between them the two are blended linearly in original / wavelength (Llama 3.1 model card). */
void rope_frequencies(const struct rope_config *rope, uint32_t head_dim, float *inv_freq);

static inline uint32_t model_config_qkv_rows(const struct model_config *config)
{
    return (config->n_heads + 2 * config->n_kv_heads) * config->head_dim;
}
static inline bool model_config_is_windowed(const struct model_config *config, uint32_t layer)
{
    return config->window > 0 && config->layer_windowed[layer];
}
static inline uint32_t model_config_attention_width(const struct model_config *config)
{
    return config->n_heads * config->head_dim;
}
