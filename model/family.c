#include "model/family.h"

#include <stdio.h>
#include <string.h>

#define NAMES_LLAMA                                                                                          \
    {                                                                                                        \
        .embedding = "model.embed_tokens", .final_norm = "model.norm", .lm_head = "lm_head",                 \
        .layer_prefix = "model.layers.", .attention_norm = "input_layernorm",                                \
        .mlp_norm = "post_attention_layernorm", .q = "self_attn.q_proj", .k = "self_attn.k_proj",            \
        .v = "self_attn.v_proj", .o = "self_attn.o_proj", .gate = "mlp.gate_proj", .up = "mlp.up_proj",      \
        .down = "mlp.down_proj"                                                                              \
    }

static const struct family families[] = {
    {
        .architecture = "LlamaForCausalLM",
        .norm = NORM_RMS,
        .rope = ROPE_HALVES,
        .qkv_bias = FAMILY_BIAS_CONFIG,
        .o_bias = FAMILY_BIAS_CONFIG,
        .mlp_bias = FAMILY_BIAS_CONFIG,
        .sliding_window = false,
        .names = NAMES_LLAMA,
    },
    {
        .architecture = "Qwen2ForCausalLM",
        .norm = NORM_RMS,
        .rope = ROPE_HALVES,
        .qkv_bias = FAMILY_BIAS_ALWAYS,
        .o_bias = FAMILY_BIAS_NEVER,
        .mlp_bias = FAMILY_BIAS_NEVER,
        .sliding_window = true,
        .names = NAMES_LLAMA,
    },
};

enum { N_FAMILIES = sizeof families / sizeof families[0] };

err_t family_find(const char *architecture, const struct family **out)
{
    *out = NULL;
    for (size_t i = 0; i < N_FAMILIES; i++) {
        if (strcmp(families[i].architecture, architecture) == 0) {
            *out = &families[i];
            return err_ok();
        }
    }
    char known[256] = "";
    size_t used = 0;
    for (size_t i = 0; i < N_FAMILIES && used < sizeof known; i++) {
        int n = snprintf(known + used, sizeof known - used, "%s%s", i ? ", " : "", families[i].architecture);
        used += n > 0 ? (size_t)n : 0;
    }
    return err_new(ERR_UNIMPLEMENTED, "architecture \"%.100s\" is not known; known are %s", architecture,
                   known);
}
