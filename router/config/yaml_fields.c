#include "router/config/yaml_fields.h"

#include <ctype.h>
#include <errno.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <yaml.h>
#include "base/alloc.h"
#include "base/assert.h"
#include "router/money/money.h"

struct yaml_file {
    char *name;
    yaml_document_t document;
    bool has_document;
};

static yaml_document_t *document_of(const struct yaml_file *file)
{
    return (yaml_document_t *)&file->document; /* libyaml's readers take no const */
}

static const yaml_node_t *node_of(const struct yaml_value *value)
{
    return value->node;
}

/* Walks the events before anything is built: how deep it goes, and that it has no aliases. */
static err_t check_events(const char *name, const char *text, size_t text_bytes)
{
    yaml_parser_t parser;
    if (!yaml_parser_initialize(&parser))
        return err_new(ERR_RESOURCE_EXHAUSTED, "%s: no memory to read it", name);
    yaml_parser_set_input_string(&parser, (const unsigned char *)text, text_bytes);
    err_t e = err_ok();
    int depth = 0, n_documents = 0;
    bool is_over = false;
    while (!is_over && e.code == ERR_OK) {
        yaml_event_t event;
        if (!yaml_parser_parse(&parser, &event)) {
            e = err_new(parser.error == YAML_MEMORY_ERROR ? ERR_RESOURCE_EXHAUSTED : ERR_INVALID_ARGUMENT,
                        "%s:%zu:%zu: this is not YAML: %s", name, parser.problem_mark.line + 1,
                        parser.problem_mark.column + 1,
                        parser.problem ? parser.problem : "it cannot be read");
            break;
        }
        size_t line = event.start_mark.line + 1;
        yaml_event_type_t type = event.type;
        depth += (type == YAML_MAPPING_START_EVENT || type == YAML_SEQUENCE_START_EVENT) -
                 (type == YAML_MAPPING_END_EVENT || type == YAML_SEQUENCE_END_EVENT);
        n_documents += type == YAML_DOCUMENT_START_EVENT;
        if (type == YAML_ALIAS_EVENT)
            e = err_new(ERR_INVALID_ARGUMENT, "%s:%zu: aliases (*name) are not read: write the value out",
                        name, line);
        else if (depth > YAML_DEPTH_MAX)
            e = err_new(ERR_INVALID_ARGUMENT, "%s:%zu: more than %d levels of maps and lists", name, line,
                        YAML_DEPTH_MAX);
        else if (n_documents > 1)
            e = err_new(ERR_INVALID_ARGUMENT, "%s:%zu: a second document begins; only one is read", name,
                        line);
        is_over = type == YAML_STREAM_END_EVENT;
        yaml_event_delete(&event);
    }
    yaml_parser_delete(&parser);
    return e;
}

static err_t load(struct yaml_file *file, const char *text, size_t text_bytes)
{
    yaml_parser_t parser;
    if (!yaml_parser_initialize(&parser))
        return err_new(ERR_RESOURCE_EXHAUSTED, "%s: no memory to read it", file->name);
    yaml_parser_set_input_string(&parser, (const unsigned char *)text, text_bytes);
    file->has_document = yaml_parser_load(&parser, &file->document) != 0;
    err_t e = err_ok();
    if (!file->has_document && parser.error == YAML_COMPOSER_ERROR)
        e = err_new(ERR_INVALID_ARGUMENT, "%s:%zu: an anchor (&name) is there twice", file->name,
                    parser.problem_mark.line + 1);
    else if (!file->has_document) /* it was YAML a moment ago */
        e = err_new(ERR_RESOURCE_EXHAUSTED, "%s: no memory to read it", file->name);
    yaml_parser_delete(&parser);
    return e;
}

err_t yaml_file_parse(const char *name, const char *text, size_t text_bytes, struct yaml_file **out)
{
    if (text_bytes > YAML_FILE_BYTES_MAX)
        return err_new(ERR_INVALID_ARGUMENT, "%s has more than %d bytes", name, YAML_FILE_BYTES_MAX);
    TRY(check_events(name, text, text_bytes));
    struct yaml_file *file = mem_alloc(sizeof *file);
    err_t e = err_ok();
    if (file)
        file->name = mem_strdup(name);
    if (file == NULL || file->name == NULL)
        e = err_new(ERR_RESOURCE_EXHAUSTED, "%s: no memory to read it", name);
    if (e.code == ERR_OK)
        e = load(file, text, text_bytes);
    if (e.code != ERR_OK)
        yaml_file_close(file);
    else
        *out = file;
    return e;
}

void yaml_file_close(struct yaml_file *file)
{
    if (file == NULL)
        return;
    if (file->has_document)
        yaml_document_delete(&file->document);
    mem_free(file->name);
    mem_free(file);
}

struct yaml_value yaml_root(const struct yaml_file *file)
{
    return (struct yaml_value){.file = file, .node = yaml_document_get_root_node(document_of(file))};
}

static const char *scalar_of(const struct yaml_value *value)
{
    const yaml_node_t *node = node_of(value);
    return node && node->type == YAML_SCALAR_NODE ? (const char *)node->data.scalar.value : NULL;
}

/* `key:`, `key: ~` and `key: null` leave it to the default; `key: ""` is a text that is empty. */
bool yaml_is_there(const struct yaml_value *value)
{
    const yaml_node_t *node = node_of(value);
    const char *scalar = scalar_of(value);
    if (scalar == NULL || node->data.scalar.style != YAML_PLAIN_SCALAR_STYLE)
        return node != NULL;
    return scalar[0] != '\0' && strcmp(scalar, "~") != 0 && strcmp(scalar, "null") != 0;
}

err_t yaml_wrong(const struct yaml_value *value, const char *format, ...)
{
    char message[ERR_MESSAGE_MAX];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(message, sizeof message, format, arguments);
    va_end(arguments);
    size_t line = value->node ? node_of(value)->start_mark.line + 1 : 1;
    return err_new(ERR_INVALID_ARGUMENT, "%s:%zu: %s%s%s", value->file->name, line, value->path,
                   value->path[0] != '\0' ? ": " : "", message);
}

static const char *kind_name(const struct yaml_value *value)
{
    switch (node_of(value)->type) {
    case YAML_MAPPING_NODE:
        return "a map";
    case YAML_SEQUENCE_NODE:
        return "a list";
    default:
        return "a single value";
    }
}

/* key, or NULL for an element of that index. What does not fit of a path ends in "...". */
static struct yaml_value value_at(const struct yaml_value *parent, int node, const char *key, size_t index)
{
    struct yaml_value value = {.file = parent->file};
    value.node = yaml_document_get_node(document_of(parent->file), node);
    const char *dot = parent->path[0] != '\0' ? "." : "";
    int length = key ? snprintf(value.path, sizeof value.path, "%s%s%s", parent->path, dot, key)
                     : snprintf(value.path, sizeof value.path, "%s[%zu]", parent->path, index);
    if (length >= (int)sizeof value.path)
        memcpy(value.path + sizeof value.path - 4, "...", 4);
    return value;
}

/* A key has its map's path. */
static struct yaml_value key_at(const struct yaml_value *map, const yaml_node_pair_t *pair)
{
    struct yaml_value key = *map;
    key.node = yaml_document_get_node(document_of(map->file), pair->key);
    return key;
}

/* "a, b or c" */
static void join_names(const char *const *names, char *out, size_t size)
{
    size_t used = 0;
    out[0] = '\0';
    for (size_t i = 0; names[i] && used < size; i++)
        used += (size_t)snprintf(out + used, size - used, "%s%s",
                                 i == 0         ? ""
                                 : names[i + 1] ? ", "
                                                : " or ",
                                 names[i]);
}

static err_t check_key(const struct yaml_value *map, const yaml_node_pair_t *pair, const char *const *keys)
{
    struct yaml_value key = key_at(map, pair);
    const char *name = scalar_of(&key);
    char known[256];
    join_names(keys, known, sizeof known);
    if (name == NULL)
        return yaml_wrong(&key, "a key is %s; it must be one of %s", kind_name(&key), known);
    bool is_known = false;
    for (size_t i = 0; keys[i]; i++)
        is_known = is_known || strcmp(keys[i], name) == 0;
    if (!is_known)
        return yaml_wrong(&key, "unknown key \"%.60s\"; it must be %s", name, known);
    const yaml_node_t *node = node_of(map);
    for (const yaml_node_pair_t *other = node->data.mapping.pairs.start; other < pair; other++) {
        struct yaml_value earlier = key_at(map, other);
        if (strcmp(scalar_of(&earlier), name) == 0)
            return yaml_wrong(&key, "\"%s\" is there twice", name);
    }
    return err_ok();
}

err_t yaml_map(const struct yaml_value *value, const char *const *keys)
{
    if (!yaml_is_there(value))
        return err_ok();
    const yaml_node_t *node = node_of(value);
    if (node->type != YAML_MAPPING_NODE)
        return yaml_wrong(value, "this is %s; it must be a map", kind_name(value));
    for (const yaml_node_pair_t *pair = node->data.mapping.pairs.start; pair < node->data.mapping.pairs.top;
         pair++)
        TRY(check_key(value, pair, keys));
    return err_ok();
}

struct yaml_value yaml_at(const struct yaml_value *map, const char *key)
{
    const yaml_node_t *node = node_of(map);
    int found = 0;
    if (node && node->type == YAML_MAPPING_NODE) {
        for (const yaml_node_pair_t *pair = node->data.mapping.pairs.start;
             pair < node->data.mapping.pairs.top; pair++) {
            struct yaml_value name = key_at(map, pair);
            if (scalar_of(&name) && strcmp(scalar_of(&name), key) == 0)
                found = pair->value;
        }
    }
    return value_at(map, found, key, 0);
}

err_t yaml_list(const struct yaml_value *value, size_t *n)
{
    *n = 0;
    if (!yaml_is_there(value))
        return err_ok();
    const yaml_node_t *node = node_of(value);
    if (node->type != YAML_SEQUENCE_NODE)
        return yaml_wrong(value, "this is %s; it must be a list", kind_name(value));
    *n = (size_t)(node->data.sequence.items.top - node->data.sequence.items.start);
    return err_ok();
}

struct yaml_value yaml_element(const struct yaml_value *list, size_t index)
{
    return value_at(list, node_of(list)->data.sequence.items.start[index], NULL, index);
}

err_t yaml_required(const struct yaml_value *value)
{
    if (yaml_is_there(value))
        return err_ok();
    if (value->node)
        return yaml_wrong(value, "it must be given");
    return err_new(ERR_INVALID_ARGUMENT, "%s: %s must be given", value->file->name,
                   value->path[0] != '\0' ? value->path : "something");
}

/* The text of a value that is there; *is_there false when it is not. */
static err_t read_scalar(const struct yaml_value *value, const char *expected, const char **text)
{
    *text = NULL;
    if (!yaml_is_there(value))
        return err_ok();
    *text = scalar_of(value);
    if (*text == NULL)
        return yaml_wrong(value, "this is %s; it must be %s", kind_name(value), expected);
    if (strlen(*text) != node_of(value)->data.scalar.length)
        return yaml_wrong(value, "this has a NUL character in it");
    return err_ok();
}

err_t yaml_text(const struct yaml_value *value, const char **out)
{
    const char *text;
    TRY(read_scalar(value, "a text", &text));
    if (text && text[0] == '\0')
        return yaml_wrong(value, "this text is empty");
    if (text)
        *out = text;
    return err_ok();
}

err_t yaml_bool(const struct yaml_value *value, bool *out)
{
    const char *text;
    TRY(read_scalar(value, "true or false", &text));
    if (text == NULL)
        return err_ok();
    bool is_true = strcmp(text, "true") == 0 || strcmp(text, "yes") == 0,
         is_false = strcmp(text, "false") == 0 || strcmp(text, "no") == 0;
    if (!is_true && !is_false)
        return yaml_wrong(value, "\"%.60s\" must be true or false", text);
    *out = is_true;
    return err_ok();
}

err_t yaml_integer(const struct yaml_value *value, int64_t low, int64_t high, int64_t *out)
{
    const char *text;
    TRY(read_scalar(value, "a whole number", &text));
    if (text == NULL)
        return err_ok();
    char *end;
    errno = 0;
    long long number = strtoll(text, &end, 10);
    if (end == text || *end != '\0' || isspace((unsigned char)text[0]) || errno != 0 || number < low ||
        number > high)
        return yaml_wrong(value, "\"%.60s\" must be a whole number from %lld to %lld", text, (long long)low,
                          (long long)high);
    *out = number;
    return err_ok();
}

err_t yaml_number(const struct yaml_value *value, double low, double high, double *out)
{
    const char *text;
    TRY(read_scalar(value, "a number", &text));
    if (text == NULL)
        return err_ok();
    char *end;
    double number = strtod(text, &end);
    bool is_plain = strspn(text, "+-.0123456789eE") == strlen(text);
    if (end == text || *end != '\0' || !is_plain || !isfinite(number) || number < low || number > high)
        return yaml_wrong(value, "\"%.60s\" must be a number from %g to %g", text, low, high);
    *out = number;
    return err_ok();
}

err_t yaml_duration_ms(const struct yaml_value *value, int64_t *out)
{
    static const struct {
        const char *unit;
        int64_t ms;
    } UNITS[] = {{"ms", 1}, {"s", 1000}, {"m", 60000}, {"h", 3600000}, {"d", 86400000}};
    enum { NUMBER_MAX = 1000000000 };
    const char *text;
    TRY(read_scalar(value, "a time like 300ms, 5s, 2m, 1h or 30d", &text));
    if (text == NULL)
        return err_ok();
    char *end;
    errno = 0;
    long long number = isdigit((unsigned char)text[0]) ? strtoll(text, &end, 10) : -1;
    if (number >= 0 && number <= NUMBER_MAX && errno == 0) {
        for (size_t i = 0; i < sizeof UNITS / sizeof *UNITS; i++) {
            if (strcmp(UNITS[i].unit, end) == 0) {
                *out = number * UNITS[i].ms;
                return err_ok();
            }
        }
        if (number == 0 && *end == '\0') {
            *out = 0;
            return err_ok();
        }
    }
    return yaml_wrong(value, "\"%.60s\" must be a time like 300ms, 5s, 2m, 1h or 30d", text);
}

err_t yaml_money(const struct yaml_value *value, int64_t *out)
{
    const char *text = NULL;
    TRY(yaml_text(value, &text));
    if (text && money_parse(text, out).code != ERR_OK)
        return yaml_wrong(value, "\"%.40s\" is not an amount in dollars, like 0.0375", text);
    return err_ok();
}

err_t yaml_choice(const struct yaml_value *value, const char *const *names, int *out)
{
    const char *text;
    char known[256];
    join_names(names, known, sizeof known);
    TRY(read_scalar(value, known, &text));
    if (text == NULL)
        return err_ok();
    for (int i = 0; names[i]; i++) {
        if (strcmp(names[i], text) == 0) {
            *out = i;
            return err_ok();
        }
    }
    return yaml_wrong(value, "\"%.60s\" must be %s", text, known);
}

/* The pair with the smallest key that comes after `last`; NULL = there is none. */
static const yaml_node_pair_t *next_pair(const struct yaml_value *map, const char *last)
{
    const yaml_node_pair_t *best = NULL;
    const char *best_name = NULL;
    const yaml_node_t *node = node_of(map);
    for (const yaml_node_pair_t *pair = node->data.mapping.pairs.start; pair < node->data.mapping.pairs.top;
         pair++) {
        struct yaml_value key = key_at(map, pair);
        const char *name = scalar_of(&key);
        if (name && (last == NULL || strcmp(name, last) > 0) &&
            (best == NULL || strcmp(name, best_name) < 0)) {
            best = pair;
            best_name = name;
        }
    }
    return best;
}

static bool append_map(const struct yaml_value *map, struct buffer *out)
{
    bool fits = buffer_append_text(out, "{");
    const char *name = NULL;
    for (const yaml_node_pair_t *pair = next_pair(map, NULL); pair && fits; pair = next_pair(map, name)) {
        struct yaml_value key = key_at(map, pair), value = value_at(map, pair->value, NULL, 0);
        name = scalar_of(&key);
        if (yaml_is_there(&value))
            fits = buffer_append_json_string(out, name, strlen(name)) && buffer_append_text(out, ":") &&
                   yaml_append_canonical(&value, out) && buffer_append_text(out, ",");
    }
    return fits && buffer_append_text(out, "}");
}

bool yaml_append_canonical(const struct yaml_value *value, struct buffer *out)
{
    if (!yaml_is_there(value))
        return buffer_append_text(out, "null");
    const yaml_node_t *node = node_of(value);
    if (node->type == YAML_SCALAR_NODE)
        return buffer_append_json_string(out, scalar_of(value), node->data.scalar.length);
    if (node->type == YAML_MAPPING_NODE)
        return append_map(value, out);
    bool fits = buffer_append_text(out, "[");
    size_t n = (size_t)(node->data.sequence.items.top - node->data.sequence.items.start);
    for (size_t i = 0; i < n && fits; i++) {
        struct yaml_value element = yaml_element(value, i);
        fits = yaml_append_canonical(&element, out) && buffer_append_text(out, ",");
    }
    return fits && buffer_append_text(out, "]");
}
