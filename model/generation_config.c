#include "model/generation_config.h"

#include <limits.h>
#include <unistd.h>
#include "base/gguf.h"
#include "base/mapped_file.h"
#include "model/gguf_config.h"
#include "model/json_fields.h"

enum { NEW_TOKENS_MAX = 1 << 24, TOP_K_MAX = 1 << 20 };
#define TEMPERATURE_MAX        1e4
#define REPETITION_PENALTY_MIN 1e-3
#define REPETITION_PENALTY_MAX 1e3

static err_t read_f32(const struct json_fields *fields, const char *name, double min, double max, bool *has,
                      float *out)
{
    double value = *out;
    TRY(json_opt_number(fields, name, min, max, &value));
    *has = json_has(fields, name);
    *out = (float)value;
    return err_ok();
}

/* do_sample false without a temperature asks for greedy; with one, the temperature is what its writer meant.
 */
static err_t parse_sampling(const struct json_fields *fields, struct generation_config *out)
{
    TRY(read_f32(fields, "temperature", 0, TEMPERATURE_MAX, &out->has_temperature, &out->temperature));
    TRY(read_f32(fields, "top_p", 0, 1, &out->has_top_p, &out->top_p));
    TRY(read_f32(fields, "min_p", 0, 1, &out->has_min_p, &out->min_p));
    TRY(read_f32(fields, "repetition_penalty", REPETITION_PENALTY_MIN, REPETITION_PENALTY_MAX,
                 &out->has_repetition_penalty, &out->repetition_penalty));
    uint32_t top_k = 0;
    TRY(json_opt_u32(fields, "top_k", 0, TOP_K_MAX, &top_k));
    out->has_top_k = json_has(fields, "top_k");
    out->top_k = (int32_t)top_k;
    TRY(json_opt_u32(fields, "max_new_tokens", 1, NEW_TOKENS_MAX, &out->max_new_tokens));
    out->has_max_new_tokens = json_has(fields, "max_new_tokens");
    bool sample = true;
    TRY(json_opt_bool(fields, "do_sample", &sample));
    if (!sample && !out->has_temperature) {
        out->has_temperature = true;
        out->temperature = 0.0f;
    }
    return err_ok();
}

static err_t check_id(const struct json_fields *fields, const char *name, const json_t *value,
                      uint32_t vocab_size, uint32_t *out)
{
    json_int_t id = json_is_integer(value) ? json_integer_value(value) : -1;
    if (id < 0 || id >= (json_int_t)vocab_size)
        return err_new(ERR_INVALID_ARGUMENT, "%s: \"%s\" must be token ids below the vocabulary's %u",
                       fields->file, name, vocab_size);
    *out = (uint32_t)id;
    return err_ok();
}

/* One id or a list of them; left alone where an earlier file gave some. */
static err_t parse_eos(const struct json_fields *fields, uint32_t vocab_size, struct generation_config *out)
{
    const json_t *value = json_object_get(fields->object, "eos_token_id");
    if (out->n_eos_token_ids > 0 || !value || json_is_null(value))
        return err_ok();
    if (!json_is_array(value)) {
        TRY(check_id(fields, "eos_token_id", value, vocab_size, &out->eos_token_ids[0]));
        out->n_eos_token_ids = 1;
        return err_ok();
    }
    size_t n = json_array_size(value);
    if (n > GENERATION_EOS_MAX)
        return err_new(ERR_INVALID_ARGUMENT, "%s: \"eos_token_id\" has %zu ids, at most %d are allowed",
                       fields->file, n, GENERATION_EOS_MAX);
    for (size_t i = 0; i < n; i++)
        TRY(check_id(fields, "eos_token_id", json_array_get(value, i), vocab_size, &out->eos_token_ids[i]));
    out->n_eos_token_ids = n;
    return err_ok();
}

static err_t parse_id(const struct json_fields *fields, const char *name, uint32_t vocab_size, int64_t *out)
{
    const json_t *value = json_object_get(fields->object, name);
    /* -1 is how some files say "none". */
    if (*out >= 0 || !value || json_is_null(value) ||
        (json_is_integer(value) && json_integer_value(value) == -1))
        return err_ok();
    uint32_t id;
    TRY(check_id(fields, name, value, vocab_size, &id));
    *out = id;
    return err_ok();
}

static err_t parse_ids(const struct json_fields *fields, uint32_t vocab_size, struct generation_config *out)
{
    TRY(parse_eos(fields, vocab_size, out));
    TRY(parse_id(fields, "bos_token_id", vocab_size, &out->bos_token_id));
    return parse_id(fields, "pad_token_id", vocab_size, &out->pad_token_id);
}

err_t generation_config_load(const char *directory, uint32_t vocab_size, struct generation_config *out)
{
    *out = (struct generation_config){.bos_token_id = -1, .pad_token_id = -1};
    char gguf[GGUF_PATH_MAX];
    if (gguf_of_model(directory, gguf))
        return gguf_generation_load(gguf, vocab_size, out);
    static const char *const names[] = {"generation_config.json", "config.json"};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        char path[PATH_MAX];
        TRY(path_join(directory, names[i], path, sizeof path));
        if (access(path, F_OK) != 0)
            continue;
        json_t *root;
        TRY(json_object_load(path, &root));
        struct json_fields fields = {.file = path, .prefix = "", .object = root};
        err_t e = i == 0 ? parse_sampling(&fields, out) : err_ok();
        if (e.code == ERR_OK)
            e = parse_ids(&fields, vocab_size, out);
        json_decref(root);
        TRY(e);
    }
    return err_ok();
}
