#include "cli/prompts.h"

#include <jansson.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include "base/alloc.h"
#include "base/mapped_file.h"
#include "cli/sampling_flags.h"

enum { PROMPT_IDS_MAX = 1 << 22 };
static const char STANDARD_INPUT[] = "standard input";

static err_t no_memory(void)
{
    return err_new(ERR_RESOURCE_EXHAUSTED, "out of memory for the prompts");
}

/* Takes `block` over (frees it when that fails). */
static err_t own(struct prompt_set *set, void *block)
{
    if (!block)
        return no_memory();
    if (set->n_owned == set->owned_capacity) {
        size_t capacity = set->owned_capacity ? 2 * set->owned_capacity : 16;
        void **grown = mem_realloc(set->owned, capacity * sizeof *grown);
        if (!grown) {
            mem_free(block);
            return no_memory();
        }
        set->owned = grown;
        set->owned_capacity = capacity;
    }
    set->owned[set->n_owned++] = block;
    return err_ok();
}

static err_t add(struct prompt_set *set, const struct request *request)
{
    if (set->count == set->capacity) {
        size_t capacity = set->capacity ? 2 * set->capacity : 16;
        struct request *grown = mem_realloc(set->requests, capacity * sizeof *grown);
        if (!grown)
            return no_memory();
        set->requests = grown;
        set->capacity = capacity;
    }
    set->requests[set->count] = *request;
    set->requests[set->count].deadline_ns = REQUEST_NO_DEADLINE;
    set->count++;
    return err_ok();
}

static err_t add_text(struct prompt_set *set, const char *text, size_t size)
{
    char *copy = mem_strndup(text, size);
    TRY(own(set, copy));
    struct request request = {.prompt_kind = PROMPT_TEXT, .text = copy, .text_bytes = size};
    return add(set, &request);
}

err_t prompts_add_text(struct prompt_set *set, const char *text)
{
    return add_text(set, text, strlen(text));
}

/* By its descriptor: a socket cannot be opened by the name /dev/stdin. */
static err_t read_input(char **data, size_t *size)
{
    return descriptor_read(STDIN_FILENO, STANDARD_INPUT, PROMPTS_FILE_BYTES_MAX, data, size);
}

/* A library may have taken the number for what is no file, before main. */
static bool is_input_closed(void)
{
    struct stat status;
    return fstat(STDIN_FILENO, &status) != 0 || (status.st_mode & S_IFMT) == 0;
}

err_t prompts_add_input(struct prompt_set *set)
{
    char *text = NULL;
    size_t size = 0;
    if (is_input_closed())
        return err_ok();
    TRY(read_input(&text, &size));
    while (size > 0 && (text[size - 1] == '\n' || text[size - 1] == '\r'))
        size--;
    const char *nul = memchr(text, '\0', size);
    err_t e = err_ok();
    if (nul)
        e = err_new(ERR_INVALID_ARGUMENT, "%s: byte %td is NUL, and a prompt is a text", STANDARD_INPUT,
                    nul - text + 1);
    else if (size > 0)
        e = add_text(set, text, size);
    mem_free(text);
    return e;
}

err_t prompts_add_ids(struct prompt_set *set, const char *text)
{
    size_t max = strlen(text) / 2 + 1, n = 0;
    uint32_t *ids = mem_alloc_array(max, sizeof *ids);
    TRY(own(set, ids));
    TRY(parse_token_ids("--token-ids", text, ids, max, &n));
    struct request request = {.prompt_kind = PROMPT_TOKEN_IDS, .token_ids = ids, .n_token_ids = n};
    return add(set, &request);
}

static err_t add_json_ids(struct prompt_set *set, const json_t *array)
{
    size_t n = json_array_size(array);
    if (n > PROMPT_IDS_MAX)
        return err_new(ERR_INVALID_ARGUMENT, "prompt_token_ids has %zu entries; at most %d are read", n,
                       PROMPT_IDS_MAX);
    uint32_t *ids = mem_alloc_array(n ? n : 1, sizeof *ids);
    TRY(own(set, ids));
    for (size_t i = 0; i < n; i++) {
        const json_t *id = json_array_get(array, i);
        if (!json_is_integer(id) || json_integer_value(id) < 0 || json_integer_value(id) > UINT32_MAX)
            return err_new(ERR_INVALID_ARGUMENT, "prompt_token_ids[%zu] is not a token id", i);
        ids[i] = (uint32_t)json_integer_value(id);
    }
    struct request request = {.prompt_kind = PROMPT_TOKEN_IDS, .token_ids = ids, .n_token_ids = n};
    return add(set, &request);
}

static err_t add_json_messages(struct prompt_set *set, const json_t *array)
{
    size_t n = json_array_size(array);
    struct chat_message *messages = mem_alloc_array(n ? n : 1, sizeof *messages);
    TRY(own(set, messages));
    for (size_t i = 0; i < n; i++) {
        const json_t *role = json_object_get(json_array_get(array, i), "role");
        const json_t *content = json_object_get(json_array_get(array, i), "content");
        if (!json_is_string(role) || !json_is_string(content))
            return err_new(ERR_INVALID_ARGUMENT, "messages[%zu] needs the strings \"role\" and \"content\"",
                           i);
        char *role_copy = mem_strdup(json_string_value(role));
        TRY(own(set, role_copy));
        char *content_copy = mem_strndup(json_string_value(content), json_string_length(content));
        TRY(own(set, content_copy));
        messages[i] = (struct chat_message){role_copy, content_copy, json_string_length(content)};
    }
    struct request request = {.prompt_kind = PROMPT_MESSAGES, .messages = messages, .n_messages = n};
    return add(set, &request);
}

static err_t add_json(struct prompt_set *set, const json_t *line)
{
    if (json_is_string(line))
        return add_text(set, json_string_value(line), json_string_length(line));
    const json_t *text = json_object_get(line, "prompt");
    const json_t *ids = json_object_get(line, "prompt_token_ids");
    const json_t *messages = json_object_get(line, "messages");
    if (json_is_string(text))
        return add_text(set, json_string_value(text), json_string_length(text));
    if (json_is_array(ids))
        return add_json_ids(set, ids);
    if (json_is_array(messages))
        return add_json_messages(set, messages);
    return err_new(ERR_INVALID_ARGUMENT,
                   "expected a string, or an object with \"prompt\", \"prompt_token_ids\" or \"messages\"");
}

static err_t add_line(struct prompt_set *set, const char *line, size_t size)
{
    json_error_t error;
    json_t *value = json_loadb(line, size, JSON_DECODE_ANY | JSON_ALLOW_NUL | JSON_REJECT_DUPLICATES, &error);
    if (!value)
        return err_new(ERR_INVALID_ARGUMENT, "not JSON: %s at byte %d", error.text, error.position);
    err_t e = add_json(set, value);
    json_decref(value);
    return e;
}

static err_t add_lines(struct prompt_set *set, const char *path, const char *data, size_t size)
{
    size_t line = 1;
    for (size_t begin = 0; begin < size; line++) {
        const char *newline = memchr(data + begin, '\n', size - begin);
        size_t end = newline ? (size_t)(newline - data) : size;
        size_t length = end - begin;
        while (length > 0 && (data[begin + length - 1] == '\r' || data[begin + length - 1] == ' '))
            length--;
        if (length > 0) {
            err_t e = add_line(set, data + begin, length);
            if (e.code != ERR_OK)
                return err_prefix(e, "%s line %zu", path, line);
        }
        begin = end + 1;
    }
    return err_ok();
}

err_t prompts_read_file(const char *path, struct prompt_set *out)
{
    char *data = NULL;
    size_t size = 0;
    bool is_input = strcmp(path, "-") == 0;
    if (is_input)
        TRY(read_input(&data, &size));
    else
        TRY(file_read(path, PROMPTS_FILE_BYTES_MAX, &data, &size));
    err_t e = add_lines(out, is_input ? STANDARD_INPUT : path, data, size);
    mem_free(data);
    return e;
}

void prompts_free(struct prompt_set *set)
{
    for (size_t i = 0; i < set->n_owned; i++)
        mem_free(set->owned[i]);
    mem_free(set->owned);
    mem_free(set->requests);
    *set = (struct prompt_set){0};
}
