#include "model/family.h"

#include <stdio.h>
#include <string.h>

static const struct family_names names_llama = {
    .embedding = "model.embed_tokens",
    .final_norm = "model.norm",
    .lm_head = "lm_head",
    .layer_prefix = "model.layers.",
    .attention_norm = "input_layernorm",
    .mlp_norm = "post_attention_layernorm",
    .q = "self_attn.q_proj",
    .k = "self_attn.k_proj",
    .v = "self_attn.v_proj",
    .o = "self_attn.o_proj",
    .gate = "mlp.gate_proj",
    .up = "mlp.up_proj",
    .down = "mlp.down_proj",
};

static const struct family_names names_gemma = {
    .embedding = "model.embed_tokens",
    .final_norm = "model.norm",
    .lm_head = "lm_head",
    .layer_prefix = "model.layers.",
    .attention_norm = "input_layernorm",
    .attention_post_norm = "post_attention_layernorm",
    .mlp_norm = "pre_feedforward_layernorm",
    .mlp_post_norm = "post_feedforward_layernorm",
    .q = "self_attn.q_proj",
    .k = "self_attn.k_proj",
    .v = "self_attn.v_proj",
    .o = "self_attn.o_proj",
    .q_norm = "self_attn.q_norm",
    .k_norm = "self_attn.k_norm",
    .gate = "mlp.gate_proj",
    .up = "mlp.up_proj",
    .down = "mlp.down_proj",
};

const struct family_names family_gguf_names = {
    .embedding = "token_embd",
    .final_norm = "output_norm",
    .lm_head = "output",
    .layer_prefix = "blk.",
    .attention_norm = "attn_norm",
    .attention_post_norm = "post_attention_norm",
    .mlp_norm = "ffn_norm",
    .mlp_post_norm = "post_ffw_norm",
    .q = "attn_q",
    .k = "attn_k",
    .v = "attn_v",
    .o = "attn_output",
    .q_norm = "attn_q_norm",
    .k_norm = "attn_k_norm",
    .gate = "ffn_gate",
    .up = "ffn_up",
    .down = "ffn_down",
};

static const struct family families[] = {
    {
        .architecture = "LlamaForCausalLM",
        .gguf_architecture = "llama",
        .gguf_interleaved = true,
        .rope = ROPE_HALVES,
        .activation = ACTIVATION_SILU,
        .qkv_bias = FAMILY_BIAS_CONFIG,
        .o_bias = FAMILY_BIAS_CONFIG,
        .mlp_bias = FAMILY_BIAS_CONFIG,
        .rope_theta = 10000.0,
        .window = FAMILY_WINDOW_NEVER,
        .names = &names_llama,
    },
    {
        .architecture = "Qwen2ForCausalLM",
        .gguf_architecture = "qwen2",
        .rope = ROPE_HALVES,
        .activation = ACTIVATION_SILU,
        .qkv_bias = FAMILY_BIAS_ALWAYS,
        .o_bias = FAMILY_BIAS_NEVER,
        .mlp_bias = FAMILY_BIAS_NEVER,
        .rope_theta = 10000.0,
        .window = FAMILY_WINDOW_ASKED,
        .names = &names_llama,
    },
    {
        .architecture = "Gemma2ForCausalLM",
        .gguf_architecture = "gemma2",
        .largest_layers = 46,
        .rope = ROPE_HALVES,
        .activation = ACTIVATION_GELU_TANH,
        .qkv_bias = FAMILY_BIAS_CONFIG,
        .o_bias = FAMILY_BIAS_CONFIG,
        .mlp_bias = FAMILY_BIAS_NEVER,
        .norm_one_plus = true,
        .post_norms = true,
        .scaled_embedding = true,
        .tied = true,
        .head_dim = 256,
        .query_scalar = 256.0,
        .attention_soft_cap = 50.0,
        .final_soft_cap = 30.0,
        .rope_theta = 10000.0,
        .window = FAMILY_WINDOW_PATTERN,
        .window_tokens = 4096,
        .window_pattern = 2,
        .names = &names_gemma,
    },
    {
        .architecture = "Gemma3ForCausalLM",
        .gguf_architecture = "gemma3",
        .largest_layers = 62,
        .rope = ROPE_HALVES,
        .activation = ACTIVATION_GELU_TANH,
        .qkv_bias = FAMILY_BIAS_CONFIG,
        .o_bias = FAMILY_BIAS_CONFIG,
        .mlp_bias = FAMILY_BIAS_NEVER,
        .norm_one_plus = true,
        .post_norms = true,
        .qk_norms = true,
        .scaled_embedding = true,
        .tied = true,
        .head_dim = 256,
        .query_scalar = 256.0,
        .rope_theta = 1000000.0,
        .local_rope_theta = 10000.0,
        .window = FAMILY_WINDOW_PATTERN,
        .window_tokens = 4096,
        .window_pattern = 6,
        .names = &names_gemma,
    },
};

enum { N_FAMILIES = sizeof families / sizeof families[0] };

static err_t not_known(const char *name, int name_bytes, bool is_gguf)
{
    char known[256] = "";
    size_t used = 0;
    for (size_t i = 0; i < N_FAMILIES && used < sizeof known; i++) {
        int n = snprintf(known + used, sizeof known - used, "%s%s", i ? ", " : "",
                         is_gguf ? families[i].gguf_architecture : families[i].architecture);
        used += n > 0 ? (size_t)n : 0;
    }
    return err_new(ERR_UNIMPLEMENTED, "architecture \"%.*s\" is not known; known are %s",
                   name_bytes < 100 ? name_bytes : 100, name, known);
}

err_t family_find(const char *architecture, const struct family **out)
{
    *out = NULL;
    for (size_t i = 0; i < N_FAMILIES; i++) {
        if (strcmp(families[i].architecture, architecture) == 0) {
            *out = &families[i];
            return err_ok();
        }
    }
    return not_known(architecture, (int)strlen(architecture), false);
}

err_t family_find_gguf(struct gguf_text architecture, const struct family **out)
{
    *out = NULL;
    for (size_t i = 0; i < N_FAMILIES; i++) {
        if (gguf_text_is(architecture, families[i].gguf_architecture)) {
            *out = &families[i];
            return err_ok();
        }
    }
    return not_known(architecture.data, (int)architecture.size_bytes, true);
}
