#include "text/chat_template.h"

#include <string.h>
#include "base/alloc.h"
#include "base/hash.h"
#include "base/utf8.h"
#include "text/template_json.h"
#include "text/template_run.h"

enum { COMPILED_BYTES_MAX = 256 << 20 }; /* of one compiled template */

/* The slot of a name, or the free one where it would go. */
static uint32_t *name_slot(const struct template_names *names, const char *name, size_t size_bytes)
{
    size_t slot = hash64(name, size_bytes, 0) & (names->n_slots - 1);
    while (names->slots[slot] != 0) {
        const char *other = names->items[names->slots[slot] - 1];
        if (strncmp(other, name, size_bytes) == 0 && other[size_bytes] == '\0')
            break;
        slot = (slot + 1) & (names->n_slots - 1);
    }
    return &names->slots[slot];
}

static bool names_grow(struct template_names *names, struct template_pool *pool)
{
    size_t n_slots = names->n_slots ? 2 * names->n_slots : 128;
    uint32_t *slots = template_pool_alloc(pool, n_slots * sizeof *slots);
    const char **items = template_pool_alloc(pool, n_slots / 2 * sizeof *items);
    if (slots == NULL || items == NULL)
        return false;
    if (names->count > 0)
        memcpy(items, names->items, names->count * sizeof *items);
    names->items = items;
    names->slots = slots;
    names->n_slots = n_slots;
    for (size_t i = 0; i < names->count; i++)
        *name_slot(names, items[i], strlen(items[i])) = (uint32_t)i + 1;
    return true;
}

const char *template_intern(struct template_names *names, struct template_pool *pool, const char *name,
                            size_t size_bytes)
{
    if (2 * (names->count + 1) > names->n_slots && !names_grow(names, pool))
        return NULL;
    uint32_t *slot = name_slot(names, name, size_bytes);
    if (*slot == 0) {
        char *copy = template_pool_alloc(pool, size_bytes + 1);
        if (copy == NULL)
            return NULL;
        memcpy(copy, name, size_bytes);
        names->items[names->count++] = copy;
        *slot = (uint32_t)names->count;
    }
    return names->items[*slot - 1];
}

const char *template_intern_find(const struct template_names *names, const char *name)
{
    if (names->n_slots == 0)
        return NULL;
    uint32_t index = *name_slot(names, name, strlen(name));
    return index == 0 ? NULL : names->items[index - 1];
}

static err_t compile_into(struct chat_template *chat_template, const char *source, size_t source_bytes,
                          const char *name)
{
    struct template_tokens tokens = {0};
    if (source_bytes > TEMPLATE_SOURCE_BYTES_MAX)
        return err_new(ERR_RESOURCE_EXHAUSTED, "%zu bytes, the most is %d", source_bytes,
                       TEMPLATE_SOURCE_BYTES_MAX);
    if (!utf8_valid(source, source_bytes) || memchr(source, '\0', source_bytes) != NULL)
        return err_new(ERR_INVALID_ARGUMENT, "the template is not UTF-8 text");
    const char *slash = strrchr(name, '/'), *file = slash ? slash + 1 : name;
    char *title = template_pool_alloc(&chat_template->pool, strlen(file) + 1);
    if (title == NULL)
        return err_new(ERR_RESOURCE_EXHAUSTED, "out of memory for the template");
    memcpy(title, file, strlen(file));
    chat_template->title = title;
    TRY(template_lex(source, source_bytes, &chat_template->pool, &tokens));
    return template_parse(chat_template, &tokens);
}

err_t chat_template_compile(const char *source, size_t source_bytes, const char *name,
                            struct chat_template **out)
{
    *out = NULL;
    struct chat_template *chat_template = mem_alloc(sizeof *chat_template);
    if (chat_template == NULL)
        return err_new(ERR_RESOURCE_EXHAUSTED, "out of memory for the template");
    chat_template->pool.limit_bytes = COMPILED_BYTES_MAX;
    err_t e = compile_into(chat_template, source, source_bytes, name);
    if (e.code != ERR_OK) {
        chat_template_destroy(chat_template);
        return err_prefix(e, "%s", name);
    }
    *out = chat_template;
    return err_ok();
}

void chat_template_destroy(struct chat_template *chat_template)
{
    if (chat_template == NULL)
        return;
    template_pool_free(&chat_template->pool);
    mem_free(chat_template);
}

void rendered_prompt_free(struct rendered_prompt *prompt)
{
    mem_free(prompt->text);
    mem_free(prompt->untrusted);
    memset(prompt, 0, sizeof *prompt);
}

/* Roles that templates spell into special tokens ('<|' + role + '|>'): only these count as the template's. */
static bool role_is_known(const char *role)
{
    static const char *const ROLES[] = {"system",   "user",    "assistant", "tool",    "developer",
                                        "function", "ipython", "model",     "context", "documents"};
    for (size_t i = 0; i < sizeof ROLES / sizeof ROLES[0]; i++)
        if (strcmp(ROLES[i], role) == 0)
            return true;
    return false;
}

static bool message_text(struct run *run, const char *data, size_t size_bytes, const uint8_t *marks,
                         struct value *out)
{
    struct text *text = run_alloc(run, NULL, sizeof *text);
    if (text == NULL)
        return false;
    *text = (struct text){data, marks, size_bytes};
    *out = (struct value){.kind = VALUE_TEXT, .text = text};
    return true;
}

static bool set_field(struct run *run, struct dict *dict, const char *name, const struct value *value)
{
    struct value key;
    return message_text(run, name, strlen(name), NULL, &key) && dict_set(run, NULL, dict, &key, value);
}

/* {"role": .., "content": ..}, and behind them what else the caller says of the message. */
static bool message_value(struct run *run, const struct chat_message *message, const json_t *more,
                          const uint8_t *ones, struct value *out)
{
    struct value role, content;
    const uint8_t *role_marks = role_is_known(message->role) ? NULL : ones;
    if (!dict_new(run, NULL, VALUE_DICT, out) ||
        !message_text(run, message->role, strlen(message->role), role_marks, &role) ||
        !message_text(run, message->content_bytes ? message->content : "", message->content_bytes, ones,
                      &content) ||
        !set_field(run, out->dict, "role", &role) || !set_field(run, out->dict, "content", &content))
        return false;
    return template_json_fields(run, more, ones, out->dict);
}

/* Marks for the longest text of any message or of the JSON: all of them say the same. */
static uint8_t *marks_of_messages(struct run *run, const struct template_input *input)
{
    size_t longest = input->json_bytes + 1; /* no string is longer than its JSON */
    for (size_t i = 0; i < input->n_messages; i++) {
        size_t role_bytes = strlen(input->messages[i].role);
        size_t bytes = input->messages[i].content_bytes;
        longest = bytes > longest ? bytes : longest;
        longest = role_bytes > longest ? role_bytes : longest;
    }
    uint8_t *ones = run_alloc(run, NULL, longest);
    if (ones != NULL)
        memset(ones, 1, longest);
    return ones;
}

static bool bind_text(struct run *run, const char *name, const char *text)
{
    struct value value;
    text = text ? text : "";
    return message_text(run, text, strlen(text), NULL, &value) && run_bind(run, name, &value);
}

static bool bind_input(struct run *run, const struct template_input *input, const json_t *more)
{
    struct value messages, *items, none = {.kind = VALUE_NONE};
    struct value generation = value_bool(input->add_generation_prompt);
    uint8_t *ones = marks_of_messages(run, input);
    if (ones == NULL || !list_new(run, NULL, input->n_messages, VALUE_LIST, &items, &messages))
        return false;
    for (size_t i = 0; i < input->n_messages; i++)
        if (!message_value(run, &input->messages[i], json_array_get(json_object_get(more, "messages"), i),
                           ones, &items[i]))
            return false;
    return run_bind(run, "tools", &none) && run_bind(run, "documents", &none) &&
           template_json_bind(run, more, ones) && run_bind(run, "messages", &messages) &&
           run_bind(run, "add_generation_prompt", &generation) &&
           bind_text(run, "bos_token", input->bos_token) && bind_text(run, "eos_token", input->eos_token);
}

/* The sink's text and marks become the prompt's. */
static err_t take_prompt(struct sink *sink, struct rendered_prompt *out)
{
    out->size_bytes = sink->text.size;
    out->text = mem_strndup(sink->text.size ? sink->text.data : "", sink->text.size);
    out->untrusted = mem_alloc(sink->text.size + 1);
    if (out->text == NULL || out->untrusted == NULL) {
        rendered_prompt_free(out);
        return err_new(ERR_RESOURCE_EXHAUSTED, "out of memory for the prompt");
    }
    if (sink->marks.size > 0)
        memcpy(out->untrusted, sink->marks.data, sink->marks.size);
    return err_ok();
}

err_t chat_template_render(const struct chat_template *chat_template, const struct template_input *input,
                           struct rendered_prompt *out)
{
    struct sink sink = {.text = {0}};
    struct scope scope = {.parent = NULL};
    struct run run = {.chat_template = chat_template,
                      .pool = {.limit_bytes = TEMPLATE_POOL_BYTES_MAX},
                      .scope = &scope,
                      .sink = &sink,
                      .now_unix_s = input->now_unix_s};
    json_t *more = NULL;
    memset(out, 0, sizeof *out);
    run.error = err_ok();
    for (size_t i = 0; i < input->n_messages; i++)
        if (!utf8_valid(input->messages[i].content, input->messages[i].content_bytes) ||
            !utf8_valid(input->messages[i].role, strlen(input->messages[i].role)))
            return err_new(ERR_INVALID_ARGUMENT, "message %zu is not UTF-8", i);
    TRY(template_json_parse(input, &more));
    if (bind_input(&run, input, more) && run_template(&run))
        run.error = take_prompt(&sink, out);
    else
        run.error = err_prefix(run.error, "%s", chat_template->title);
    sink_free(&sink);
    template_pool_free(&run.pool);
    json_decref(more);
    return run.error;
}
