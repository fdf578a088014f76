#include "text/text_assets.h"

#include <jansson.h>
#include <string.h>
#include "base/alloc.h"
#include "base/gguf.h"
#include "base/hash.h"
#include "base/mapped_file.h"
#include "text/gguf_tokenizer.h"
#include "text/json_field.h"

enum { PATH_BYTES_MAX = 4096, CONFIG_BYTES_MAX = 16 << 20 };

static err_t out_of_memory(void)
{
    return err_new(ERR_RESOURCE_EXHAUSTED, "out of memory for the text assets");
}

/* "<s>" or {"content": "<s>", ..}; absent or null leaves NULL. */
static err_t special_token(const json_t *config, const char *key, char **out)
{
    const json_t *value = json_object_get(config, key);
    const char *text;
    size_t text_bytes;
    TRY(json_is_object(value) ? json_field_text_required(value, "content", &text, &text_bytes)
                              : json_field_text(config, key, &text, &text_bytes));
    if (text == NULL)
        return err_ok();
    *out = mem_strdup(text);
    return *out ? err_ok() : out_of_memory();
}

/* One text, or [{"name": "default", "template": text}, ..]. NULL = none. */
static err_t config_template(const json_t *config, const char **out, size_t *size_bytes)
{
    const json_t *value = json_object_get(config, "chat_template");
    if (!json_is_array(value))
        return json_field_text(config, "chat_template", out, size_bytes);
    for (size_t i = 0; i < json_array_size(value); i++) {
        const json_t *item = json_array_get(value, i);
        const char *name;
        size_t name_bytes;
        TRY(json_field_text_required(item, "name", &name, &name_bytes));
        if (strcmp(name, "default") == 0)
            return json_field_text_required(item, "template", out, size_bytes);
    }
    return err_new(ERR_DATA_LOSS, "\"chat_template\" is a list without the name \"default\"");
}

static err_t compile(struct text_assets *out, const char *source, size_t source_bytes, const char *name)
{
    TRY(chat_template_compile(source, source_bytes, name, &out->chat_template));
    out->template_fingerprint = hash64(source, source_bytes, 0);
    return err_ok();
}

static err_t compile_file(struct text_assets *out, const char *path)
{
    char *source;
    size_t source_bytes;
    TRY(file_read(path, TEMPLATE_SOURCE_BYTES_MAX, &source, &source_bytes));
    err_t e = compile(out, source, source_bytes, path);
    mem_free(source);
    return e;
}

/* file_read, but a file that is not there is *data = NULL. */
static err_t read_optional(const char *directory, const char *name, char path[PATH_BYTES_MAX], char **data,
                           size_t *size_bytes)
{
    *data = NULL;
    *size_bytes = 0;
    TRY(path_join(directory, name, path, PATH_BYTES_MAX));
    err_t e = file_read(path, CONFIG_BYTES_MAX, data, size_bytes);
    return e.code == ERR_NOT_FOUND ? err_ok() : e;
}

static err_t use_config(struct text_assets *out, const json_t *config, const char *path)
{
    const char *source;
    size_t source_bytes;
    TRY(special_token(config, "bos_token", &out->bos_token));
    TRY(special_token(config, "eos_token", &out->eos_token));
    if (out->chat_template != NULL)
        return err_ok();
    TRY(config_template(config, &source, &source_bytes));
    return source ? compile(out, source, source_bytes, path) : err_ok();
}

static err_t load_config(const char *directory, struct text_assets *out)
{
    char path[PATH_BYTES_MAX];
    char *text;
    size_t text_bytes;
    TRY(read_optional(directory, "tokenizer_config.json", path, &text, &text_bytes));
    if (text == NULL)
        return err_ok();
    json_error_t where;
    json_t *config = json_loadb(text, text_bytes, JSON_REJECT_DUPLICATES, &where);
    err_t e;
    if (json_is_object(config))
        e = use_config(out, config, path);
    else
        e = err_new(ERR_DATA_LOSS, "line %d: %s", where.line, config ? "expected an object" : where.text);
    json_decref(config);
    mem_free(text);
    return e.code == ERR_OK ? e : err_prefix(e, "%s", path);
}

/* --chat-template, else chat_template.jinja, else what the configuration has. */
static err_t load_template_file(const char *directory, const char *template_path, struct text_assets *out)
{
    char path[PATH_BYTES_MAX];
    char *source;
    size_t source_bytes;
    if (template_path != NULL)
        return compile_file(out, template_path);
    TRY(read_optional(directory, "chat_template.jinja", path, &source, &source_bytes));
    if (source == NULL)
        return err_ok();
    err_t e = compile(out, source, source_bytes, path);
    mem_free(source);
    return e;
}

static err_t special_from_gguf(const struct gguf *gguf, const struct tokenizer *tokenizer, const char *key,
                               char **text, int64_t *id)
{
    uint32_t value = UINT32_MAX;
    TRY(gguf_opt_u32(gguf, key, 0, TOKENIZER_VOCAB_MAX, &value));
    size_t size_bytes;
    const char *token = value == UINT32_MAX ? NULL : tokenizer_token(tokenizer, value, &size_bytes);
    if (token == NULL)
        return err_ok();
    *id = value;
    *text = mem_strdup(token);
    return *text ? err_ok() : out_of_memory();
}

static err_t use_gguf(const struct gguf *gguf, struct text_assets *out)
{
    TRY(tokenizer_from_gguf(gguf, &out->tokenizer));
    TRY(special_from_gguf(gguf, out->tokenizer, "tokenizer.ggml.bos_token_id", &out->bos_token,
                          &out->bos_token_id));
    TRY(special_from_gguf(gguf, out->tokenizer, "tokenizer.ggml.eos_token_id", &out->eos_token,
                          &out->eos_token_id));
    struct gguf_text source = {NULL, 0};
    TRY(gguf_opt_text(gguf, "tokenizer.chat_template", &source));
    return source.data && out->chat_template == NULL
               ? compile(out, source.data, source.size_bytes, gguf->path)
               : err_ok();
}

static err_t load_gguf(const char *path, const char *template_path, struct text_assets *out)
{
    struct gguf gguf;
    if (template_path != NULL)
        TRY(compile_file(out, template_path));
    TRY(gguf_open(path, &gguf));
    err_t e = use_gguf(&gguf, out);
    gguf_close(&gguf);
    return e;
}

static err_t load_all(const char *directory, const char *template_path, struct text_assets *out)
{
    char gguf[GGUF_PATH_MAX];
    if (gguf_of_model(directory, gguf))
        return load_gguf(gguf, template_path, out);
    TRY(tokenizer_load(directory, &out->tokenizer));
    TRY(load_template_file(directory, template_path, out));
    TRY(load_config(directory, out));
    if (out->bos_token != NULL)
        out->bos_token_id = tokenizer_find(out->tokenizer, out->bos_token, strlen(out->bos_token));
    if (out->eos_token != NULL)
        out->eos_token_id = tokenizer_find(out->tokenizer, out->eos_token, strlen(out->eos_token));
    return err_ok();
}

err_t text_assets_load(const char *directory, const char *template_path, struct text_assets *out)
{
    *out = (struct text_assets){.bos_token_id = -1, .eos_token_id = -1};
    err_t e = load_all(directory, template_path, out);
    if (e.code != ERR_OK)
        text_assets_free(out);
    return e;
}

void text_assets_free(struct text_assets *assets)
{
    tokenizer_destroy(assets->tokenizer);
    chat_template_destroy(assets->chat_template);
    mem_free(assets->bos_token);
    mem_free(assets->eos_token);
    *assets = (struct text_assets){.bos_token_id = -1, .eos_token_id = -1};
}

err_t text_encode_chat(const struct text_assets *assets, const struct template_input *input,
                       struct token_list *out)
{
    if (assets->chat_template == NULL)
        return err_new(ERR_FAILED_PRECONDITION, "the model has no chat template; give one with "
                                                "--chat-template, or send text");
    struct rendered_prompt prompt;
    struct template_input filled = *input;
    if (filled.bos_token == NULL)
        filled.bos_token = assets->bos_token;
    if (filled.eos_token == NULL)
        filled.eos_token = assets->eos_token;
    TRY(chat_template_render(assets->chat_template, &filled, &prompt));
    err_t e = tokenizer_encode(assets->tokenizer, prompt.text, prompt.size_bytes, prompt.untrusted,
                               TOKENIZE_PARSE_SPECIAL, out);
    rendered_prompt_free(&prompt);
    return e;
}
