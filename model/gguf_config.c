#include "model/gguf_config.h"

#include <math.h>
#include <stdio.h>
#include <string.h>
#include "base/float16.h"
#include "base/gguf.h"

enum { KEY_MAX = 160 };

/* A file, its architecture, and the object that is being made of it: what config.json would say. */
struct gguf_model {
    const struct gguf *gguf;
    struct gguf_text architecture;
    const struct family *family;
    json_t *config;
};

static const char *key_of(const struct gguf_model *model, const char *name, char key[KEY_MAX])
{
    int n = snprintf(key, KEY_MAX, "%.*s.%s", (int)model->architecture.size_bytes, model->architecture.data,
                     name);
    return n < KEY_MAX ? key : "";
}

static err_t set(json_t *object, const char *field, json_t *value)
{
    return json_object_set_new(object, field, value) == 0
               ? err_ok()
               : err_new(ERR_RESOURCE_EXHAUSTED, "out of memory for the model's configuration");
}

static bool has_tensor(const struct gguf_model *model, const char *name)
{
    return gguf_find_tensor(model->gguf, name) != NULL;
}

static err_t copy_integers(const struct gguf_model *model)
{
    static const struct {
        const char *key, *field;
        uint32_t max;
        bool optional;
    } fields[] = {
        {"context_length", "max_position_embeddings", MODEL_POSITIONS_MAX, false},
        {"embedding_length", "hidden_size", MODEL_HIDDEN_MAX, false},
        {"block_count", "num_hidden_layers", MODEL_LAYERS_MAX, false},
        {"feed_forward_length", "intermediate_size", MODEL_INTERMEDIATE_MAX, false},
        {"attention.head_count", "num_attention_heads", MODEL_HEADS_MAX, false},
        {"attention.head_count_kv", "num_key_value_heads", MODEL_HEADS_MAX, true},
        {"attention.key_length", "head_dim", MODEL_HEAD_DIM_MAX, true},
        {"attention.sliding_window", "sliding_window", MODEL_POSITIONS_MAX, true},
    };
    for (size_t i = 0; i < sizeof fields / sizeof fields[0]; i++) {
        char key[KEY_MAX];
        uint32_t value;
        key_of(model, fields[i].key, key);
        if (fields[i].optional && !gguf_find(model->gguf, key))
            continue;
        TRY(gguf_get_u32(model->gguf, key, 1, fields[i].max, &value));
        TRY(set(model->config, fields[i].field, json_integer(value)));
    }
    return err_ok();
}

static err_t copy_numbers(const struct gguf_model *model)
{
    static const struct {
        const char *key, *field;
        bool optional;
    } fields[] = {
        {"attention.layer_norm_rms_epsilon", "rms_norm_eps", false},
        {"rope.freq_base", "rope_theta", true},
        {"rope.freq_base_swa", "rope_local_base_freq", true},
        {"attn_logit_softcapping", "attn_logit_softcapping", true},
        {"final_logit_softcapping", "final_logit_softcapping", true},
    };
    for (size_t i = 0; i < sizeof fields / sizeof fields[0]; i++) {
        char key[KEY_MAX];
        double value;
        key_of(model, fields[i].key, key);
        if (fields[i].optional && !gguf_find(model->gguf, key))
            continue;
        TRY(gguf_get_number(model->gguf, key, 0, 1e12, &value));
        TRY(set(model->config, fields[i].field, json_real(value)));
    }
    return err_ok();
}

/* What the loader would have to know and does not: refused, not guessed. */
static err_t refuse_unknown(const struct gguf_model *model, uint32_t head_dim)
{
    char key[KEY_MAX];
    uint32_t value = head_dim, n_experts = 0, n_files = 1;
    TRY(gguf_opt_u32(model->gguf, key_of(model, "attention.value_length", key), 1, UINT32_MAX, &value));
    if (value != head_dim)
        return err_new(ERR_UNIMPLEMENTED, "%s: \"%s\" is %u, other than that of keys, %u", model->gguf->path,
                       key, value, head_dim);
    value = head_dim;
    TRY(gguf_opt_u32(model->gguf, key_of(model, "rope.dimension_count", key), 1, UINT32_MAX, &value));
    if (value != head_dim)
        return err_new(ERR_UNIMPLEMENTED, "%s: \"%s\" is %u: only rotation of whole heads (%u) is supported",
                       model->gguf->path, key, value, head_dim);
    TRY(gguf_opt_u32(model->gguf, key_of(model, "expert_count", key), 0, UINT32_MAX, &n_experts));
    if (n_experts > 0)
        return err_new(ERR_UNIMPLEMENTED, "%s: \"%s\" is %u: mixtures of experts are not supported",
                       model->gguf->path, key, n_experts);
    TRY(gguf_opt_u32(model->gguf, "split.count", 0, UINT32_MAX, &n_files));
    if (n_files > 1)
        return err_new(ERR_UNIMPLEMENTED,
                       "%s: one of %u files of a split model (\"split.count\"); merge them into one",
                       model->gguf->path, n_files);
    return err_ok();
}

static err_t copy_scaling(const struct gguf_model *model)
{
    char key[KEY_MAX];
    struct gguf_text type = {NULL, 0};
    double factor;
    TRY(gguf_opt_text(model->gguf, key_of(model, "rope.scaling.type", key), &type));
    if (!type.data || gguf_text_is(type, "none"))
        return err_ok();
    if (!gguf_text_is(type, "linear"))
        return err_new(ERR_UNIMPLEMENTED, "%s: \"%s\" \"%.*s\" is not known; known are none and linear",
                       model->gguf->path, key, (int)(type.size_bytes < 60 ? type.size_bytes : 60), type.data);
    TRY(gguf_get_number(model->gguf, key_of(model, "rope.scaling.factor", key), 1e-3, 1e6, &factor));
    return set(model->config, "rope_scaling",
               json_pack("{s:s, s:f}", "rope_type", "linear", "factor", factor));
}

/* The rows of the embedding count, and which tensors are there. */
static err_t copy_tensors(const struct gguf_model *model)
{
    const struct gguf_tensor *embedding = gguf_find_tensor(model->gguf, "token_embd.weight");
    if (!embedding || embedding->n_dims != 2)
        return err_new(ERR_NOT_FOUND, "%s: tensor \"token_embd.weight\" is missing or no matrix",
                       model->gguf->path);
    if (embedding->dims[1] > MODEL_VOCAB_MAX)
        return err_new(ERR_INVALID_ARGUMENT, "%s: tensor \"token_embd.weight\" has %llu rows, at most %d",
                       model->gguf->path, (unsigned long long)embedding->dims[1], MODEL_VOCAB_MAX);
    TRY(set(model->config, "vocab_size", json_integer((json_int_t)embedding->dims[1])));
    TRY(set(model->config, "tie_word_embeddings", json_boolean(!has_tensor(model, "output.weight"))));
    TRY(set(model->config, "attention_bias", json_boolean(has_tensor(model, "blk.0.attn_q.bias"))));
    return set(model->config, "mlp_bias", json_boolean(has_tensor(model, "blk.0.ffn_up.bias")));
}

static err_t copy_all(const struct gguf_model *model)
{
    json_t *names = json_pack("[s]", model->family->architecture);
    TRY(set(model->config, "architectures", names));
    TRY(copy_integers(model));
    TRY(copy_numbers(model));
    TRY(copy_scaling(model));
    return copy_tensors(model);
}

/* A file's own divisors take the place of a scaling rule. */
static err_t read_divisors(const struct gguf_model *model, struct model_config *out)
{
    const struct gguf *gguf = model->gguf;
    const struct gguf_tensor *tensor = gguf_find_tensor(gguf, GGUF_ROPE_DIVISORS);
    if (!tensor)
        return err_ok();
    const char *format = gguf_tensor_format(tensor->type)->name;
    if (tensor->n_dims != 1 || tensor->dims[0] != out->head_dim / 2 || strcmp(format, "F32") != 0)
        return err_new(ERR_INVALID_ARGUMENT, "%s: tensor \"" GGUF_ROPE_DIVISORS "\" must be %u values of F32",
                       gguf->path, out->head_dim / 2);
    const uint8_t *data = gguf_tensor_data(gguf, tensor);
    if (!data)
        return err_new(ERR_DATA_LOSS, "%s: the data of tensor \"" GGUF_ROPE_DIVISORS "\" are not there",
                       gguf->path);
    for (uint32_t i = 0; i < out->head_dim / 2; i++) {
        float divisor = f32_from_bits((uint32_t)gguf_load_le(data + 4 * (size_t)i, 4));
        if (!(divisor > 1e-6f && divisor < 1e6f)) /* NaN fails too */
            return err_new(ERR_DATA_LOSS, "%s: tensor \"" GGUF_ROPE_DIVISORS "\": value %u is %g", gguf->path,
                           i, (double)divisor);
        out->rope.divisors[i] = divisor;
    }
    out->rope.scaling = ROPE_SCALING_DIVISORS;
    return err_ok();
}

static err_t config_from(struct gguf_model *model, struct model_config *out)
{
    TRY(gguf_get_text(model->gguf, "general.architecture", &model->architecture));
    err_t e = family_find_gguf(model->architecture, &model->family);
    if (e.code != ERR_OK)
        return err_prefix(e, "%s", model->gguf->path);
    TRY(copy_all(model));
    TRY(model_config_parse(model->gguf->path, model->config, out));
    TRY(refuse_unknown(model, out->head_dim));
    out->names = &family_gguf_names;
    out->norm_one_plus = false; /* converters add the one */
    out->interleaved_heads = model->family->gguf_interleaved;
    out->o_bias = has_tensor(model, "blk.0.attn_output.bias");
    /* No key says by what scores are scaled: the head's width, but in the largest models. */
    double scalar = out->head_dim;
    if (model->family->largest_layers == out->n_layers)
        scalar = (double)out->hidden_size / out->n_heads;
    out->attention_scale = (float)(1.0 / sqrt(scalar));
    return read_divisors(model, out);
}

err_t gguf_config_parse(const struct gguf *gguf, struct model_config *out)
{
    *out = (struct model_config){0};
    struct gguf_model model = {.gguf = gguf, .config = json_object()};
    err_t e = config_from(&model, out);
    json_decref(model.config);
    return e;
}

err_t gguf_config_load(const char *path, struct model_config *out)
{
    struct gguf gguf;
    TRY(gguf_open(path, &gguf));
    err_t e = gguf_config_parse(&gguf, out);
    gguf_close(&gguf);
    return e;
}

/* ---- Generation ---- */

static err_t read_id(const struct gguf *gguf, const char *key, uint32_t vocab_size, int64_t *out)
{
    uint32_t id = UINT32_MAX;
    TRY(gguf_opt_u32(gguf, key, 0, vocab_size - 1, &id));
    *out = id == UINT32_MAX ? -1 : (int64_t)id;
    return err_ok();
}

static void add_eos(struct generation_config *out, int64_t id)
{
    for (size_t i = 0; i < out->n_eos_token_ids; i++) {
        if (out->eos_token_ids[i] == id)
            return;
    }
    if (id >= 0 && out->n_eos_token_ids < GENERATION_EOS_MAX)
        out->eos_token_ids[out->n_eos_token_ids++] = (uint32_t)id;
}

/* Control tokens that end a turn in the templates of these families; the metadata need not name them. */
static err_t add_turn_ends(const struct gguf *gguf, uint32_t vocab_size, struct generation_config *out)
{
    static const char *const ends[] = {"<end_of_turn>", "<|im_end|>", "<|eot_id|>", "<|eom_id|>"};
    enum { TOKEN_CONTROL = 3 };
    const struct gguf_value *tokens, *types;
    TRY(gguf_opt_array(gguf, "tokenizer.ggml.tokens", GGUF_TEXT, MODEL_VOCAB_MAX, &tokens));
    TRY(gguf_opt_array(gguf, "tokenizer.ggml.token_type", GGUF_I32, MODEL_VOCAB_MAX, &types));
    size_t at = 0;
    for (uint32_t id = 0; tokens && id < tokens->n_items && id < vocab_size; id++) {
        struct gguf_text text = gguf_next_text(tokens, &at);
        if (!types || id >= types->n_items || gguf_i32_at(types, id) != TOKEN_CONTROL)
            continue;
        for (size_t i = 0; i < sizeof ends / sizeof ends[0]; i++) {
            if (gguf_text_is(text, ends[i]))
                add_eos(out, id);
        }
    }
    return err_ok();
}

static err_t generation_from(const struct gguf *gguf, uint32_t vocab_size, struct generation_config *out)
{
    static const char *const ends[] = {"tokenizer.ggml.eos_token_id", "tokenizer.ggml.eot_token_id",
                                       "tokenizer.ggml.eom_token_id"};
    TRY(read_id(gguf, "tokenizer.ggml.bos_token_id", vocab_size, &out->bos_token_id));
    TRY(read_id(gguf, "tokenizer.ggml.padding_token_id", vocab_size, &out->pad_token_id));
    for (size_t i = 0; i < sizeof ends / sizeof ends[0]; i++) {
        int64_t id;
        TRY(read_id(gguf, ends[i], vocab_size, &id));
        add_eos(out, id);
    }
    return add_turn_ends(gguf, vocab_size, out);
}

err_t gguf_generation_load(const char *path, uint32_t vocab_size, struct generation_config *out)
{
    struct gguf gguf;
    TRY(gguf_open(path, &gguf));
    *out = (struct generation_config){.bos_token_id = -1, .pad_token_id = -1};
    err_t e = generation_from(&gguf, vocab_size, out);
    gguf_close(&gguf);
    return e;
}
