#include "model/model_config.h"

#include <limits.h>
#include <math.h>
#include <string.h>
#include "base/buffer.h"
#include "base/hash.h"
#include "base/mapped_file.h"
#include "model/gguf_config.h"
#include "model/json_fields.h"

#define ROPE_THETA_MIN  1.0
#define ROPE_THETA_MAX  1e12
#define ROPE_FACTOR_MIN 1e-3
#define ROPE_FACTOR_MAX 1e6
#define SOFT_CAP_MIN    1e-3
#define SOFT_CAP_MAX    1e6
#define NORM_EPS_MIN    1e-12
#define NORM_EPS_MAX    1.0

_Static_assert((int)MODEL_LAYERS_MAX <= (int)QUANT_LAYERS_MAX, "every layer has a mark");

static err_t parse_architecture(const struct json_fields *fields, struct model_config *out)
{
    const json_t *names;
    TRY(json_opt_array(fields, "architectures", 16, &names));
    const char *name = names ? json_string_value(json_array_get(names, 0)) : NULL;
    if (!name)
        return err_new(
            ERR_INVALID_ARGUMENT,
            "%s: \"architectures\" must be a list that begins with a name such as \"LlamaForCausalLM\"",
            fields->file);
    err_t e = family_find(name, &out->family);
    return e.code == ERR_OK ? e : err_prefix(e, "%s", fields->file);
}

static err_t parse_shapes(const struct json_fields *fields, struct model_config *out)
{
    TRY(json_get_u32(fields, "vocab_size", 1, MODEL_VOCAB_MAX, &out->vocab_size));
    TRY(json_get_u32(fields, "hidden_size", 1, MODEL_HIDDEN_MAX, &out->hidden_size));
    TRY(json_get_u32(fields, "intermediate_size", 1, MODEL_INTERMEDIATE_MAX, &out->intermediate_size));
    TRY(json_get_u32(fields, "num_hidden_layers", 1, MODEL_LAYERS_MAX, &out->n_layers));
    TRY(json_get_u32(fields, "num_attention_heads", 1, MODEL_HEADS_MAX, &out->n_heads));
    out->n_kv_heads = out->n_heads;
    TRY(json_opt_u32(fields, "num_key_value_heads", 1, MODEL_HEADS_MAX, &out->n_kv_heads));
    if (out->n_heads % out->n_kv_heads != 0)
        return err_new(ERR_INVALID_ARGUMENT,
                       "%s: \"num_attention_heads\" %u must be a multiple of \"num_key_value_heads\" %u",
                       fields->file, out->n_heads, out->n_kv_heads);
    if (!out->family->head_dim && !json_has(fields, "head_dim") && out->hidden_size % out->n_heads != 0)
        return err_new(
            ERR_INVALID_ARGUMENT,
            "%s: without \"head_dim\", \"hidden_size\" %u must be a multiple of \"num_attention_heads\" %u",
            fields->file, out->hidden_size, out->n_heads);
    out->head_dim = out->family->head_dim ? out->family->head_dim : out->hidden_size / out->n_heads;
    TRY(json_opt_u32(fields, "head_dim", 2, MODEL_HEAD_DIM_MAX, &out->head_dim));
    if (out->head_dim < 2 || out->head_dim > MODEL_HEAD_DIM_MAX || out->head_dim % 2 != 0)
        return err_new(
            ERR_INVALID_ARGUMENT,
            "%s: \"head_dim\" (or hidden_size / num_attention_heads) is %u, it must be even and from 2 to %d",
            fields->file, out->head_dim, MODEL_HEAD_DIM_MAX);
    return json_get_u32(fields, "max_position_embeddings", 1, MODEL_POSITIONS_MAX,
                        &out->max_position_embeddings);
}

static err_t parse_activation(const struct json_fields *fields, struct model_config *out)
{
    const char *name = NULL, *field = "hidden_act";
    TRY(json_opt_text(fields, field, &name));
    if (json_has(fields, "hidden_activation")) /* as Gemma's writers spell it; it counts */
        field = "hidden_activation";
    TRY(json_opt_text(fields, field, &name));
    out->activation = out->family->activation;
    if (!name)
        return err_ok();
    if (strcmp(name, "silu") == 0 || strcmp(name, "swish") == 0)
        out->activation = ACTIVATION_SILU;
    else if (strcmp(name, "gelu_pytorch_tanh") == 0)
        out->activation = ACTIVATION_GELU_TANH;
    else
        return err_new(ERR_UNIMPLEMENTED,
                       "%s: \"%s\" \"%.60s\" is not known; known are silu and gelu_pytorch_tanh",
                       fields->file, field, name);
    return err_ok();
}

static err_t parse_dtype(const struct json_fields *fields, struct model_config *out)
{
    const char *name = NULL;
    TRY(json_opt_text(fields, "torch_dtype", &name));
    TRY(json_opt_text(fields, "dtype", &name)); /* as newer writers spell it */
    out->dtype = MODEL_DTYPE_AUTO;
    if (!name || strcmp(name, "auto") == 0)
        return err_ok();
    if (strcmp(name, "float32") == 0)
        out->dtype = MODEL_DTYPE_F32;
    else if (strcmp(name, "bfloat16") == 0)
        out->dtype = MODEL_DTYPE_BF16;
    else if (strcmp(name, "float16") == 0)
        out->dtype = MODEL_DTYPE_F16;
    else
        return err_new(ERR_UNIMPLEMENTED,
                       "%s: \"torch_dtype\" \"%.60s\" is not known; known are float32, bfloat16 and float16",
                       fields->file, name);
    return err_ok();
}

static err_t parse_llama3_scaling(const struct json_fields *scaling, struct rope_config *rope)
{
    TRY(json_get_number(scaling, "low_freq_factor", ROPE_FACTOR_MIN, ROPE_FACTOR_MAX,
                        &rope->low_freq_factor));
    TRY(json_get_number(scaling, "high_freq_factor", ROPE_FACTOR_MIN, ROPE_FACTOR_MAX,
                        &rope->high_freq_factor));
    if (rope->high_freq_factor <= rope->low_freq_factor)
        return err_new(ERR_INVALID_ARGUMENT,
                       "%s: \"%shigh_freq_factor\" %g must be greater than \"low_freq_factor\" %g",
                       scaling->file, scaling->prefix, rope->high_freq_factor, rope->low_freq_factor);
    return json_get_u32(scaling, "original_max_position_embeddings", 1, MODEL_POSITIONS_MAX,
                        &rope->original_max_position_embeddings);
}

static err_t parse_scaling(const struct json_fields *scaling, struct rope_config *rope)
{
    TRY(json_opt_number(scaling, "rope_theta", ROPE_THETA_MIN, ROPE_THETA_MAX, &rope->theta));
    double rotary_share = 1.0;
    TRY(json_opt_number(scaling, "partial_rotary_factor", 0.0, 1.0, &rotary_share));
    if (rotary_share != 1.0)
        return err_new(ERR_UNIMPLEMENTED, "%s: \"%spartial_rotary_factor\" %g is not supported, only 1",
                       scaling->file, scaling->prefix, rotary_share);
    const char *kind = "default";
    TRY(json_opt_text(scaling, "type", &kind));
    TRY(json_opt_text(scaling, "rope_type", &kind));
    if (strcmp(kind, "default") == 0)
        return err_ok();
    if (strcmp(kind, "linear") == 0)
        rope->scaling = ROPE_SCALING_LINEAR;
    else if (strcmp(kind, "llama3") == 0)
        rope->scaling = ROPE_SCALING_LLAMA3;
    else
        return err_new(ERR_UNIMPLEMENTED,
                       "%s: \"%srope_type\" \"%.60s\" is not known; known are default, linear and llama3",
                       scaling->file, scaling->prefix, kind);
    TRY(json_get_number(scaling, "factor", ROPE_FACTOR_MIN, ROPE_FACTOR_MAX, &rope->factor));
    return rope->scaling == ROPE_SCALING_LLAMA3 ? parse_llama3_scaling(scaling, rope) : err_ok();
}

/* Where windowed layers rotate by their own theta: "rope_local_base_freq", or an object for each kind of
 * layer inside "rope_parameters". Scaling at the top is of the other layers. */
static err_t parse_local_rope(const struct json_fields *fields, struct json_fields *scaling,
                              struct model_config *out)
{
    out->has_local_rope = true;
    out->local_rope = (struct rope_config){
        .scaling = ROPE_SCALING_NONE, .theta = out->family->local_rope_theta, .factor = 1.0};
    TRY(json_opt_number(fields, "rope_local_base_freq", ROPE_THETA_MIN, ROPE_THETA_MAX,
                        &out->local_rope.theta));
    if (!scaling->object || !json_has(scaling, "full_attention"))
        return err_ok();
    struct json_fields local;
    TRY(json_opt_object(scaling, "sliding_attention", "rope_parameters.sliding_attention.", &local));
    if (local.object)
        TRY(parse_scaling(&local, &out->local_rope));
    struct json_fields full;
    TRY(json_opt_object(scaling, "full_attention", "rope_parameters.full_attention.", &full));
    *scaling = full;
    return err_ok();
}

/* "rope_theta" and "rope_scaling" at the top, or both inside "rope_parameters" as newer writers have it; the
 * kind is called "rope_type", in older files "type". */
static err_t parse_rope(const struct json_fields *fields, struct model_config *out)
{
    struct rope_config *rope = &out->rope;
    *rope =
        (struct rope_config){.scaling = ROPE_SCALING_NONE, .theta = out->family->rope_theta, .factor = 1.0};
    TRY(json_opt_number(fields, "rope_theta", ROPE_THETA_MIN, ROPE_THETA_MAX, &rope->theta));
    struct json_fields scaling;
    TRY(json_opt_object(fields, "rope_parameters", "rope_parameters.", &scaling));
    if (!scaling.object)
        TRY(json_opt_object(fields, "rope_scaling", "rope_scaling.", &scaling));
    if (out->family->local_rope_theta > 0)
        TRY(parse_local_rope(fields, &scaling, out));
    return scaling.object ? parse_scaling(&scaling, rope) : err_ok();
}

/* Windowed layers where no list names them. */
static err_t parse_window_rule(const struct json_fields *fields, struct model_config *out)
{
    if (out->family->window == FAMILY_WINDOW_ASKED) {
        uint32_t first = out->n_layers;
        TRY(json_opt_u32(fields, "max_window_layers", 0, MODEL_LAYERS_MAX, &first));
        for (uint32_t i = 0; i < out->n_layers; i++)
            out->layer_windowed[i] = i >= first;
        return err_ok();
    }
    uint32_t pattern = out->family->window_pattern;
    TRY(json_opt_u32(fields, "_sliding_window_pattern", 1, MODEL_LAYERS_MAX, &pattern));
    TRY(json_opt_u32(fields, "sliding_window_pattern", 1, MODEL_LAYERS_MAX, &pattern));
    for (uint32_t i = 0; i < out->n_layers; i++)
        out->layer_windowed[i] = (i + 1) % pattern != 0;
    return err_ok();
}

/* Which layers have a window: those that "layer_types" names, or the family's rule. */
static err_t parse_window(const struct json_fields *fields, struct model_config *out)
{
    bool wanted = out->family->window == FAMILY_WINDOW_PATTERN;
    if (out->family->window == FAMILY_WINDOW_ASKED)
        TRY(json_opt_bool(fields, "use_sliding_window", &wanted));
    uint32_t window = wanted ? out->family->window_tokens : 0;
    if (wanted)
        TRY(json_opt_u32(fields, "sliding_window", 1, MODEL_POSITIONS_MAX, &window));
    if (window == 0)
        return err_ok();
    TRY(parse_window_rule(fields, out));
    const json_t *types;
    TRY(json_opt_array(fields, "layer_types", MODEL_LAYERS_MAX, &types));
    if (types && json_array_size(types) != out->n_layers)
        return err_new(ERR_INVALID_ARGUMENT, "%s: \"layer_types\" has %zu items, \"num_hidden_layers\" is %u",
                       fields->file, json_array_size(types), out->n_layers);
    for (uint32_t i = 0; types && i < out->n_layers; i++) {
        const char *type = json_string_value(json_array_get(types, i));
        bool sliding = type && strcmp(type, "sliding_attention") == 0;
        if (!sliding && (!type || strcmp(type, "full_attention") != 0))
            return err_new(ERR_UNIMPLEMENTED,
                           "%s: \"layer_types\"[%u] must be \"full_attention\" or \"sliding_attention\"",
                           fields->file, i);
        out->layer_windowed[i] = sliding;
    }
    out->window = window;
    return err_ok();
}

static bool bias_present(enum family_bias trait, bool in_config)
{
    return trait == FAMILY_BIAS_ALWAYS || (trait == FAMILY_BIAS_CONFIG && in_config);
}

static err_t parse_biases(const struct json_fields *fields, struct model_config *out)
{
    bool attention = false, mlp = false;
    TRY(json_opt_bool(fields, "attention_bias", &attention));
    TRY(json_opt_bool(fields, "mlp_bias", &mlp));
    out->qkv_bias = bias_present(out->family->qkv_bias, attention);
    out->o_bias = bias_present(out->family->o_bias, attention);
    out->mlp_bias = bias_present(out->family->mlp_bias, mlp);
    return err_ok();
}

/* A cap that the file leaves out is the family's; null is none. */
static err_t parse_soft_cap(const struct json_fields *fields, const char *name, double of_family, float *out)
{
    double cap = of_family;
    if (json_is_null(json_object_get(fields->object, name)))
        cap = 0;
    TRY(json_opt_number(fields, name, SOFT_CAP_MIN, SOFT_CAP_MAX, &cap));
    *out = (float)cap;
    return err_ok();
}

static err_t parse_attention(const struct json_fields *fields, struct model_config *out)
{
    const struct family *family = out->family;
    double scalar = family->query_scalar > 0 ? family->query_scalar : out->head_dim;
    if (family->query_scalar > 0)
        TRY(json_opt_number(fields, "query_pre_attn_scalar", SOFT_CAP_MIN, SOFT_CAP_MAX, &scalar));
    out->attention_scale = 1.0f / sqrtf((float)scalar);
    bool both_ways = false;
    TRY(json_opt_bool(fields, "use_bidirectional_attention", &both_ways));
    if (both_ways)
        return err_new(ERR_UNIMPLEMENTED,
                       "%s: \"use_bidirectional_attention\": a model that reads both ways cannot generate",
                       fields->file);
    if (!family->scaled_embedding)
        return err_ok();
    TRY(parse_soft_cap(fields, "attn_logit_softcapping", family->attention_soft_cap,
                       &out->attention_soft_cap));
    return parse_soft_cap(fields, "final_logit_softcapping", family->final_soft_cap, &out->final_soft_cap);
}

struct dump {
    struct buffer text;
    bool failed; /* once and for all: the library does not pass on every failure */
};

static int append_dump(const char *text, size_t size_bytes, void *context)
{
    struct dump *dump = context;
    dump->failed |= !buffer_append(&dump->text, text, size_bytes);
    return dump->failed ? -1 : 0;
}

static err_t fingerprint_config(const char *file, const json_t *root, uint64_t *out)
{
    struct dump dump = {.text = {.limit_bytes = 2 * (size_t)JSON_FILE_MAX_BYTES}};
    int status = json_dump_callback(root, append_dump, &dump, JSON_COMPACT | JSON_SORT_KEYS);
    *out = hash64(dump.text.data ? dump.text.data : "", dump.text.size, 0);
    buffer_free(&dump.text);
    return status != 0 || dump.failed ? err_new(ERR_RESOURCE_EXHAUSTED, "%s: out of memory for %zu bytes",
                                                file, dump.text.limit_bytes)
                                      : err_ok();
}

err_t model_config_parse(const char *file, const json_t *root, struct model_config *out)
{
    *out = (struct model_config){0};
    struct json_fields fields = {.file = file, .prefix = "", .object = root};
    TRY(parse_architecture(&fields, out));
    out->names = out->family->names;
    out->norm_one_plus = out->family->norm_one_plus;
    TRY(parse_shapes(&fields, out));
    out->norm_eps = 1e-6;
    TRY(json_opt_number(&fields, "rms_norm_eps", NORM_EPS_MIN, NORM_EPS_MAX, &out->norm_eps));
    TRY(parse_activation(&fields, out));
    out->tie_word_embeddings = out->family->tied;
    TRY(json_opt_bool(&fields, "tie_word_embeddings", &out->tie_word_embeddings));
    TRY(parse_biases(&fields, out));
    TRY(parse_dtype(&fields, out));
    TRY(parse_attention(&fields, out));
    TRY(parse_rope(&fields, out));
    TRY(parse_window(&fields, out));
    TRY(quant_config_parse(&fields, out->names, out->n_layers, &out->quantization));
    return fingerprint_config(file, root, &out->fingerprint);
}

err_t model_config_load(const char *directory, struct model_config *out)
{
    char path[PATH_MAX];
    if (gguf_of_model(directory, path))
        return gguf_config_load(path, out);
    TRY(path_join(directory, "config.json", path, sizeof path));
    json_t *root;
    TRY(json_object_load(path, &root));
    err_t e = model_config_parse(path, root, out);
    json_decref(root);
    return e;
}
