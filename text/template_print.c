/* Values as text: Python's str and repr, and JSON. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "text/template_run.h"

void format_double(double number, char out[32])
{
    if (isnan(number) || isinf(number)) {
        snprintf(out, 32, "%s", isnan(number) ? "nan" : number < 0 ? "-inf" : "inf");
        return;
    }
    int precision = 1; /* the shortest that reads back the same */
    do
        snprintf(out, 32, "%.*e", precision - 1, number);
    while (strtod(out, NULL) != number && precision++ < 17);
    int exponent = (int)strtol(strchr(out, 'e') + 1, NULL, 10);
    if (exponent < -4 || exponent >= 16) /* C and Python write exponents alike */
        return;
    int decimals = precision - 1 - exponent;
    snprintf(out, 32, "%.*f", decimals > 1 ? decimals : 1, number);
}

struct printer {
    struct run *run;
    const struct node *at;
    struct sink *sink;
    int indent; /* JSON: spaces a level; -1 = one line */
};

static bool put(const struct printer *p, const char *text)
{
    return sink_put_plain(p->run, p->at, p->sink, text);
}

static bool put_part(const struct printer *p, const struct text *text, size_t start, size_t end)
{
    struct text part = {text->data + start, text->marks ? text->marks + start : NULL, end - start};
    return sink_put(p->run, p->at, p->sink, &part);
}

/* An escape with the mark of the byte that it stands for. */
static bool put_escape(const struct printer *p, const struct text *text, size_t i, const char *escape)
{
    uint8_t marks[8] = {0};
    if (text->marks != NULL)
        memset(marks, text->marks[i], sizeof marks);
    struct text part = {escape, text->marks ? marks : NULL, strlen(escape)};
    return sink_put(p->run, p->at, p->sink, &part);
}

/* The text with some bytes replaced; escape_of returns false for a byte that stays. */
static bool put_escaped(const struct printer *p, const struct text *text,
                        bool (*escape_of)(char c, char quote, char out[8]), char quote)
{
    char escape[8];
    size_t done = 0;
    for (size_t i = 0; i < text->size_bytes; i++) {
        if (!escape_of(text->data[i], quote, escape))
            continue;
        if (!put_part(p, text, done, i) || !put_escape(p, text, i, escape))
            return false;
        done = i + 1;
    }
    return put_part(p, text, done, text->size_bytes);
}

static bool common_escape(char c, char out[8])
{
    const char *name = c == '\n' ? "\\n" : c == '\r' ? "\\r" : c == '\t' ? "\\t" : c == '\\' ? "\\\\" : NULL;
    if (name != NULL)
        snprintf(out, 8, "%s", name);
    return name != NULL;
}

static bool json_escape(char c, char quote, char out[8])
{
    (void)quote;
    if (common_escape(c, out))
        return true;
    if (c == '"' || c == '\b' || c == '\f')
        snprintf(out, 8, "\\%c", c == '"' ? '"' : c == '\b' ? 'b' : 'f');
    else if ((unsigned char)c < 0x20)
        snprintf(out, 8, "\\u%04x", (unsigned)c);
    else
        return false;
    return true;
}

static bool repr_escape(char c, char quote, char out[8])
{
    if (common_escape(c, out))
        return true;
    if (c == quote)
        snprintf(out, 8, "\\%c", c);
    else if ((unsigned char)c < 0x20 || c == 0x7f)
        snprintf(out, 8, "\\x%02x", (unsigned)c);
    else
        return false;
    return true;
}

static bool put_scalar(const struct printer *p, const struct value *value)
{
    char number[32];
    if (value->kind == VALUE_FLOAT)
        format_double(value->number, number);
    else
        snprintf(number, sizeof number, "%lld", (long long)value->integer);
    return put(p, number);
}

static bool put_repr(const struct printer *p, const struct value *value);

static bool put_repr_items(const struct printer *p, const struct value *value)
{
    const struct list *list = value->list;
    bool tuple = value->kind == VALUE_TUPLE;
    if (!put(p, tuple ? "(" : "["))
        return false;
    for (size_t i = 0; i < list->count; i++)
        if ((i > 0 && !put(p, ", ")) || !put_repr(p, &list->items[i]))
            return false;
    if (tuple && list->count == 1 && !put(p, ","))
        return false;
    return put(p, tuple ? ")" : "]");
}

static bool put_repr_entries(const struct printer *p, const struct dict *dict)
{
    if (!put(p, "{"))
        return false;
    for (size_t i = 0; i < dict->count; i++)
        if ((i > 0 && !put(p, ", ")) || !put_repr(p, &dict->entries[i].key) || !put(p, ": ") ||
            !put_repr(p, &dict->entries[i].value))
            return false;
    return put(p, "}");
}

static bool put_repr_text(const struct printer *p, const struct text *text)
{
    bool single = memchr(text->data, '\'', text->size_bytes) != NULL;
    bool both = single && memchr(text->data, '"', text->size_bytes) != NULL;
    char quote[2] = {single && !both ? '"' : '\'', '\0'};
    return put(p, quote) && put_escaped(p, text, repr_escape, quote[0]) && put(p, quote);
}

static bool put_repr(const struct printer *p, const struct value *value)
{
    if (!run_enter(p->run, p->at) || !run_charge(p->run, p->at, 1))
        return false;
    bool ok;
    switch (value->kind) {
    case VALUE_UNDEFINED:
        ok = put(p, "Undefined");
        break;
    case VALUE_NONE:
        ok = put(p, "None");
        break;
    case VALUE_BOOL:
        ok = put(p, value->boolean ? "True" : "False");
        break;
    case VALUE_INT:
    case VALUE_FLOAT:
        ok = put_scalar(p, value);
        break;
    case VALUE_TEXT:
        ok = put_repr_text(p, value->text);
        break;
    case VALUE_LIST:
    case VALUE_TUPLE:
        ok = put_repr_items(p, value);
        break;
    case VALUE_DICT:
        ok = put_repr_entries(p, value->dict);
        break;
    default:
        ok = run_type_error(p->run, p->at, "a %s has no text", value_type_name(value));
    }
    run_leave(p->run);
    return ok;
}

bool value_to_text(struct run *run, const struct node *at, const struct value *value, const struct text **out)
{
    static const struct text EMPTY = {"", NULL, 0};
    struct value made;
    if (value->kind == VALUE_TEXT) {
        *out = value->text;
        return true;
    }
    if (value->kind == VALUE_UNDEFINED) {
        *out = &EMPTY;
        return true;
    }
    struct sink sink = {.text = {0}};
    struct printer printer = {run, at, &sink, -1};
    if (!put_repr(&printer, value)) {
        sink_free(&sink);
        return false;
    }
    if (!sink_take(run, at, &sink, &made))
        return false;
    *out = made.text;
    return true;
}

static bool put_json(const struct printer *p, const struct value *value, int level);

static bool put_newline(const struct printer *p, int level)
{
    if (p->indent < 0)
        return true;
    if (!put(p, "\n"))
        return false;
    for (int i = 0; i < p->indent * level; i++)
        if (!put(p, " "))
            return false;
    return true;
}

static bool put_json_text(const struct printer *p, const struct text *text)
{
    return put(p, "\"") && put_escaped(p, text, json_escape, '"') && put(p, "\"");
}

static bool put_json_key(const struct printer *p, const struct value *key)
{
    if (key->kind == VALUE_TEXT)
        return put_json_text(p, key->text);
    return put(p, "\"") && put_json(p, key, 0) && put(p, "\"");
}

static bool put_json_items(const struct printer *p, const struct value *value, int level)
{
    bool is_dict = value->kind == VALUE_DICT;
    size_t count = is_dict ? value->dict->count : value->list->count;
    if (count == 0)
        return put(p, is_dict ? "{}" : "[]");
    if (!put(p, is_dict ? "{" : "["))
        return false;
    for (size_t i = 0; i < count; i++) {
        if ((i > 0 && !put(p, p->indent < 0 ? ", " : ",")) || !put_newline(p, level + 1))
            return false;
        if (is_dict && (!put_json_key(p, &value->dict->entries[i].key) || !put(p, ": ")))
            return false;
        const struct value *item = is_dict ? &value->dict->entries[i].value : &value->list->items[i];
        if (!put_json(p, item, level + 1))
            return false;
    }
    return put_newline(p, level) && put(p, is_dict ? "}" : "]");
}

static bool put_json_number(const struct printer *p, const struct value *value)
{
    if (value->kind == VALUE_INT || isfinite(value->number))
        return put_scalar(p, value);
    return put(p, isnan(value->number) ? "NaN" : value->number < 0 ? "-Infinity" : "Infinity");
}

static bool put_json(const struct printer *p, const struct value *value, int level)
{
    if (!run_enter(p->run, p->at) || !run_charge(p->run, p->at, 1))
        return false;
    bool ok;
    switch (value->kind) {
    case VALUE_NONE:
        ok = put(p, "null");
        break;
    case VALUE_BOOL:
        ok = put(p, value->boolean ? "true" : "false");
        break;
    case VALUE_INT:
    case VALUE_FLOAT:
        ok = put_json_number(p, value);
        break;
    case VALUE_TEXT:
        ok = put_json_text(p, value->text);
        break;
    case VALUE_LIST:
    case VALUE_TUPLE:
    case VALUE_DICT:
        ok = put_json_items(p, value, level);
        break;
    default:
        ok = run_type_error(p->run, p->at, "a value of type %s cannot be JSON", value_type_name(value));
    }
    run_leave(p->run);
    return ok;
}

bool value_to_json(struct run *run, const struct node *at, const struct value *value, int indent,
                   struct sink *sink)
{
    struct printer printer = {run, at, sink, indent};
    return put_json(&printer, value, 0);
}
