/* The filters. */
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "text/template_text_ops.h"

static bool as_text(const struct call *call, const struct value *value, const struct text **out)
{
    return value_to_text(call->run, call->at, value, out);
}

static bool filter_trim(const struct call *call, struct value *out)
{
    static const char *const NAMES[] = {"chars", NULL};
    const struct text *text, *characters = NULL;
    if (!call_check(call, 1, 2, NAMES) || !as_text(call, &call->args[0], &text))
        return false;
    const struct value *given = call_argument(call, 1, "chars");
    if (given != NULL && given->kind != VALUE_NONE && !as_text(call, given, &characters))
        return false;
    return text_strip(call->run, call->at, text, STRIP_BOTH, characters, out);
}

static bool change_case(const struct call *call, enum case_rule rule, struct value *out)
{
    const struct text *text;
    return call_check(call, 1, 1, NULL) && as_text(call, &call->args[0], &text) &&
           text_change_case(call->run, call->at, text, rule, out);
}

static bool filter_upper(const struct call *call, struct value *out)
{
    return change_case(call, CASE_UPPER, out);
}

static bool filter_lower(const struct call *call, struct value *out)
{
    return change_case(call, CASE_LOWER, out);
}

static bool filter_capitalize(const struct call *call, struct value *out)
{
    return change_case(call, CASE_CAPITALIZE, out);
}

static bool filter_title(const struct call *call, struct value *out)
{
    return change_case(call, CASE_TITLE, out);
}

static bool filter_string(const struct call *call, struct value *out)
{
    const struct text *text;
    if (!call_check(call, 1, 1, NULL) || !as_text(call, &call->args[0], &text))
        return false;
    *out = (struct value){.kind = VALUE_TEXT, .text = text};
    return true;
}

/* Text is never escaped here, so there is nothing to mark. */
static bool filter_safe(const struct call *call, struct value *out)
{
    return filter_string(call, out);
}

static bool filter_tojson(const struct call *call, struct value *out)
{
    static const char *const NAMES[] = {"indent", "ensure_ascii", NULL};
    if (!call_check(call, 1, 2, NAMES))
        return false;
    const struct value *indent = call_argument(call, 1, "indent");
    const struct value *ascii = call_argument(call, SIZE_MAX, "ensure_ascii");
    int spaces = -1;
    if (ascii != NULL && value_truth(ascii))
        return run_fail(call->run, ERR_UNIMPLEMENTED, call->at, "not supported: tojson(ensure_ascii=true)");
    if (indent != NULL && indent->kind == VALUE_INT && indent->integer >= 0 && indent->integer <= 16)
        spaces = (int)indent->integer;
    else if (indent != NULL && indent->kind != VALUE_NONE)
        return run_type_error(call->run, call->at, "tojson: indent must be 0 to 16");
    struct sink sink = {.text = {0}};
    if (value_to_json(call->run, call->at, &call->args[0], spaces, &sink))
        return sink_take(call->run, call->at, &sink, out);
    sink_free(&sink);
    return false;
}

static bool filter_length(const struct call *call, struct value *out)
{
    const struct value *value = &call->args[0];
    if (!call_check(call, 1, 1, NULL))
        return false;
    switch (value->kind) {
    case VALUE_TEXT:
        *out = value_int((int64_t)text_length(value->text));
        return run_charge_bytes(call->run, call->at, value->text->size_bytes);
    case VALUE_DICT:
        *out = value_int((int64_t)value->dict->count);
        return true;
    case VALUE_LIST:
    case VALUE_TUPLE:
        *out = value_int((int64_t)value->list->count);
        return true;
    case VALUE_UNDEFINED:
        *out = value_int(0);
        return true;
    default:
        return run_type_error(call->run, call->at, "%s has no length", value_type_name(value));
    }
}

static bool filter_default(const struct call *call, struct value *out)
{
    static const char *const NAMES[] = {"default_value", "boolean", NULL};
    static const struct text EMPTY = {"", NULL, 0};
    if (!call_check(call, 1, 3, NAMES))
        return false;
    const struct value *fallback = call_argument(call, 1, "default_value");
    const struct value *boolean = call_argument(call, 2, "boolean");
    bool by_truth = boolean != NULL && value_truth(boolean);
    *out = call->args[0];
    if (out->kind == VALUE_UNDEFINED || (by_truth && !value_truth(out)))
        *out = fallback ? *fallback : (struct value){.kind = VALUE_TEXT, .text = &EMPTY};
    return true;
}

static bool iterate(const struct call *call, const struct list **out)
{
    return value_iterate(call->run, call->at, &call->args[0], out);
}

/* The attribute a.b.c of an item; digits are an index. */
static bool deep_attribute(const struct call *call, const struct value *item, const struct value *path,
                           struct value *out)
{
    *out = *item;
    if (path->kind == VALUE_INT)
        return value_subscript(call->run, call->at, item, path, out);
    if (path->kind != VALUE_TEXT)
        return run_type_error(call->run, call->at, "an attribute must be a str, not %s",
                              value_type_name(path));
    for (size_t start = 0; start <= path->text->size_bytes;) {
        const char *data = path->text->data;
        const char *dot = memchr(data + start, '.', path->text->size_bytes - start);
        size_t end = dot ? (size_t)(dot - data) : path->text->size_bytes;
        struct value name, object = *out;
        if (!text_copy(call->run, call->at, data + start, end - start, &name))
            return false;
        if (name.text->size_bytes > 0 && strspn(name.text->data, "0123456789") == name.text->size_bytes &&
            name.text->size_bytes < 10)
            name = value_int(strtol(name.text->data, NULL, 10));
        if (!value_subscript(call->run, call->at, &object, &name, out))
            return false;
        start = end + 1;
    }
    return true;
}

static bool filter_join(const struct call *call, struct value *out)
{
    static const char *const NAMES[] = {"d", "attribute", NULL};
    static const struct text EMPTY = {"", NULL, 0};
    const struct list *list;
    const struct text *separator = &EMPTY;
    if (!call_check(call, 1, 3, NAMES) || !iterate(call, &list))
        return false;
    const struct value *given = call_argument(call, 1, "d"), *path = call_argument(call, 2, "attribute");
    if (given != NULL && !as_text(call, given, &separator))
        return false;
    if (path != NULL) {
        struct value *items, made;
        if (!list_new(call->run, call->at, list->count, VALUE_LIST, &items, &made))
            return false;
        for (size_t i = 0; i < list->count; i++)
            if (!deep_attribute(call, &list->items[i], path, &items[i]))
                return false;
        list = made.list;
    }
    return text_join_list(call->run, call->at, list, separator, out);
}

static bool filter_replace(const struct call *call, struct value *out)
{
    const struct text *text, *old, *new_text;
    if (!call_check(call, 3, 4, NULL) || !as_text(call, &call->args[0], &text) ||
        !as_text(call, &call->args[1], &old) || !as_text(call, &call->args[2], &new_text))
        return false;
    size_t most = SIZE_MAX;
    if (call->n_args == 4 && call->args[3].kind == VALUE_INT && call->args[3].integer >= 0)
        most = (size_t)call->args[3].integer;
    return text_replace(call->run, call->at, text, old, new_text, most, out);
}

static bool filter_first(const struct call *call, struct value *out)
{
    const struct list *list;
    if (!call_check(call, 1, 1, NULL) || !iterate(call, &list))
        return false;
    *out = list->count > 0 ? list->items[0] : value_undefined("first item");
    return true;
}

static bool filter_last(const struct call *call, struct value *out)
{
    const struct list *list;
    if (!call_check(call, 1, 1, NULL) || !iterate(call, &list))
        return false;
    *out = list->count > 0 ? list->items[list->count - 1] : value_undefined("last item");
    return true;
}

static bool copy_list(const struct call *call, bool reverse, struct value *out)
{
    const struct list *list;
    struct value *items;
    if (!call_check(call, 1, 1, NULL) || !iterate(call, &list) ||
        !list_new(call->run, call->at, list->count, VALUE_LIST, &items, out))
        return false;
    for (size_t i = 0; i < list->count; i++)
        items[i] = list->items[reverse ? list->count - 1 - i : i];
    return true;
}

static bool filter_list(const struct call *call, struct value *out)
{
    return copy_list(call, false, out);
}

static bool filter_reverse(const struct call *call, struct value *out)
{
    if (!copy_list(call, true, out) || call->args[0].kind != VALUE_TEXT)
        return call->run->error.code == ERR_OK;
    static const struct text EMPTY = {"", NULL, 0};
    return text_join_list(call->run, call->at, out->list, &EMPTY, out);
}

static bool filter_items(const struct call *call, struct value *out)
{
    struct value *items;
    if (!call_check(call, 1, 1, NULL))
        return false;
    if (call->args[0].kind == VALUE_UNDEFINED)
        return list_new(call->run, call->at, 0, VALUE_LIST, &items, out);
    if (call->args[0].kind != VALUE_DICT)
        return run_type_error(call->run, call->at, "items needs a dict, not %s",
                              value_type_name(&call->args[0]));
    return template_dict_method_find("items")->function(call, out);
}

/* dictsort: items by key. Insertion sort: dicts of a prompt are small, and every move is charged. */
static bool filter_dictsort(const struct call *call, struct value *out)
{
    if (!filter_items(call, out))
        return false;
    struct value *items = out->list->items;
    for (size_t i = 1; i < out->list->count; i++) {
        struct value item = items[i];
        size_t k = i;
        for (; k > 0; k--) {
            int order;
            if (!run_charge(call->run, call->at, 1) ||
                !value_order(call->run, call->at, &items[k - 1].list->items[0], &item.list->items[0], &order))
                return false;
            if (order <= 0)
                break;
            items[k] = items[k - 1];
        }
        items[k] = item;
    }
    return true;
}

/* A number that is the whole text, white space around it apart. */
static bool parse_number(const char *text, double *number, int64_t *integer, bool *is_integer)
{
    char *end;
    errno = 0;
    *integer = strtoll(text, &end, 10);
    *is_integer = end != text && errno == 0 && end[strspn(end, " \t\n\r")] == '\0';
    if (*is_integer)
        return true;
    *number = strtod(text, &end);
    return end != text && end[strspn(end, " \t\n\r")] == '\0';
}

static bool number_of(const struct call *call, double *number, int64_t *integer, bool *is_integer, bool *ok)
{
    const struct value *value = &call->args[0];
    *is_integer = value->kind == VALUE_INT || value->kind == VALUE_BOOL;
    *ok = value_is_number(value);
    if (*is_integer)
        *integer = value->kind == VALUE_BOOL ? value->boolean : value->integer;
    if (value->kind == VALUE_FLOAT)
        *number = value->number;
    if (value->kind != VALUE_TEXT)
        return true;
    struct value copy; /* NUL-terminated */
    if (!text_copy(call->run, call->at, value->text->data, value->text->size_bytes, &copy))
        return false;
    *ok = parse_number(copy.text->data, number, integer, is_integer);
    return true;
}

static bool filter_int(const struct call *call, struct value *out)
{
    static const char *const NAMES[] = {"default", NULL};
    double number = 0;
    int64_t integer = 0;
    bool is_integer, ok;
    if (!call_check(call, 1, 2, NAMES) || !number_of(call, &number, &integer, &is_integer, &ok))
        return false;
    const struct value *fallback = call_argument(call, 1, "default");
    if (ok && is_integer)
        *out = value_int(integer);
    else if (ok && fabs(number) < 9e18)
        *out = value_int((int64_t)number);
    else
        *out = fallback ? *fallback : value_int(0);
    return true;
}

static bool filter_float(const struct call *call, struct value *out)
{
    static const char *const NAMES[] = {"default", NULL};
    double number = 0;
    int64_t integer = 0;
    bool is_integer, ok;
    if (!call_check(call, 1, 2, NAMES) || !number_of(call, &number, &integer, &is_integer, &ok))
        return false;
    const struct value *fallback = call_argument(call, 1, "default");
    *out = (struct value){.kind = VALUE_FLOAT, .number = is_integer ? (double)integer : number};
    if (!ok)
        *out = fallback ? *fallback : (struct value){.kind = VALUE_FLOAT, .number = 0.0};
    return true;
}

static bool filter_abs(const struct call *call, struct value *out)
{
    *out = call->args[0];
    if (!call_check(call, 1, 1, NULL))
        return false;
    if (out->kind == VALUE_FLOAT)
        out->number = fabs(out->number);
    else if (out->kind == VALUE_INT && out->integer != INT64_MIN)
        out->integer = llabs(out->integer);
    else
        return run_type_error(call->run, call->at, "abs needs a number, not %s", value_type_name(out));
    return true;
}

/* Lines behind the first (and the first, when it is asked for) with spaces in front; empty ones stay. */
static bool filter_indent(const struct call *call, struct value *out)
{
    static const char *const NAMES[] = {"width", "first", "blank", NULL};
    static const struct text NEWLINE = {"\n", NULL, 1};
    const struct text *text;
    struct value lines, padding;
    if (!call_check(call, 1, 4, NAMES) || !as_text(call, &call->args[0], &text))
        return false;
    const struct value *width = call_argument(call, 1, "width"), *first = call_argument(call, 2, "first");
    const struct value *blank = call_argument(call, 3, "blank");
    int64_t n = width && width->kind == VALUE_INT ? width->integer : 4;
    if (n < 0 || n > 1000)
        return run_type_error(call->run, call->at, "indent: width must be 0 to 1000");
    char spaces[1000];
    memset(spaces, ' ', (size_t)n);
    if (!text_copy(call->run, call->at, spaces, (size_t)n, &padding) ||
        !text_split(call->run, call->at, text, &NEWLINE, SIZE_MAX, false, &lines))
        return false;
    for (size_t i = 0; i < lines.list->count; i++) {
        struct value *line = &lines.list->items[i];
        bool wanted = i > 0 || (first != NULL && value_truth(first));
        bool filled = line->text->size_bytes > 0 || (blank != NULL && value_truth(blank));
        if (wanted && filled && !text_join(call->run, call->at, padding.text, line->text, line))
            return false;
    }
    return text_join_list(call->run, call->at, lines.list, &NEWLINE, out);
}

/* Arguments from args[first] on, behind `item`. */
static bool run_on_item(const struct call *call, const struct builtin *builtin, const struct value *item,
                        size_t first, struct value *out)
{
    struct value args[16];
    struct call inner = *call;
    args[0] = *item;
    inner.n_args = 1;
    for (size_t i = first; i < call->n_args && inner.n_args < 16; i++)
        args[inner.n_args++] = call->args[i];
    inner.args = args;
    inner.named = NULL;
    inner.n_named = 0;
    return builtin->function(&inner, out);
}

static bool builtin_argument(const struct call *call, size_t position,
                             const struct builtin *(*find)(const char *name), const struct builtin **out)
{
    struct value name;
    *out = NULL;
    if (position >= call->n_args || call->args[position].kind != VALUE_TEXT)
        return run_type_error(call->run, call->at, "expected the name of a filter or test");
    const struct text *text = call->args[position].text;
    if (!text_copy(call->run, call->at, text->data, text->size_bytes, &name))
        return false;
    *out = find(name.text->data);
    return *out != NULL || run_fail(call->run, ERR_UNIMPLEMENTED, call->at,
                                    "not supported: the filter or test \"%s\"", name.text->data);
}

/* map(attribute="a"), map("filter", arguments..) */
static bool filter_map(const struct call *call, struct value *out)
{
    static const char *const NAMES[] = {"attribute", "default", NULL};
    const struct list *list;
    const struct builtin *filter = NULL;
    struct value *items;
    if (!call_check(call, 1, 16, NAMES) || !iterate(call, &list))
        return false;
    const struct value *path = call_argument(call, SIZE_MAX, "attribute");
    const struct value *fallback = call_argument(call, SIZE_MAX, "default");
    if (path == NULL && !builtin_argument(call, 1, template_filter_find, &filter))
        return false;
    if (!list_new(call->run, call->at, list->count, VALUE_LIST, &items, out))
        return false;
    for (size_t i = 0; i < list->count; i++) {
        bool ok = path ? deep_attribute(call, &list->items[i], path, &items[i])
                       : run_on_item(call, filter, &list->items[i], 2, &items[i]);
        if (!ok || !run_charge(call->run, call->at, 1))
            return false;
        if (fallback != NULL && items[i].kind == VALUE_UNDEFINED)
            items[i] = *fallback;
    }
    return true;
}

/* The items for which a test holds (or does not): of the item, or of its attribute args[1]. Without a test:
 * truth. */
static bool pick(const struct call *call, bool by_attribute, bool wanted, struct value *out)
{
    const struct list *list;
    const struct builtin *test = NULL;
    struct value *items;
    size_t at_test = by_attribute ? 2 : 1;
    if (!call_check(call, by_attribute ? 2 : 1, 16, NULL) || !iterate(call, &list))
        return false;
    if (call->n_args > at_test && !builtin_argument(call, at_test, template_test_find, &test))
        return false;
    if (!list_new(call->run, call->at, list->count, VALUE_LIST, &items, out))
        return false;
    size_t n = 0;
    for (size_t i = 0; i < list->count; i++) {
        struct value subject = list->items[i], holds;
        if (!run_charge(call->run, call->at, 1) ||
            (by_attribute && !deep_attribute(call, &list->items[i], &call->args[1], &subject)))
            return false;
        holds = subject;
        if (test != NULL && !run_on_item(call, test, &subject, at_test + 1, &holds))
            return false;
        if (value_truth(&holds) == wanted)
            items[n++] = list->items[i];
    }
    ((struct list *)out->list)->count = n;
    return true;
}

static bool filter_select(const struct call *call, struct value *out)
{
    return pick(call, false, true, out);
}

static bool filter_reject(const struct call *call, struct value *out)
{
    return pick(call, false, false, out);
}

static bool filter_selectattr(const struct call *call, struct value *out)
{
    return pick(call, true, true, out);
}

static bool filter_rejectattr(const struct call *call, struct value *out)
{
    return pick(call, true, false, out);
}

static const struct builtin FILTERS[] = {
    {"trim", filter_trim},
    {"upper", filter_upper},
    {"lower", filter_lower},
    {"capitalize", filter_capitalize},
    {"title", filter_title},
    {"string", filter_string},
    {"safe", filter_safe},
    {"tojson", filter_tojson},
    {"length", filter_length},
    {"count", filter_length},
    {"default", filter_default},
    {"d", filter_default},
    {"join", filter_join},
    {"replace", filter_replace},
    {"first", filter_first},
    {"last", filter_last},
    {"list", filter_list},
    {"reverse", filter_reverse},
    {"items", filter_items},
    {"dictsort", filter_dictsort},
    {"int", filter_int},
    {"float", filter_float},
    {"abs", filter_abs},
    {"indent", filter_indent},
    {"map", filter_map},
    {"select", filter_select},
    {"reject", filter_reject},
    {"selectattr", filter_selectattr},
    {"rejectattr", filter_rejectattr},
};

const struct builtin *template_filter_find(const char *name)
{
    for (size_t i = 0; i < sizeof FILTERS / sizeof FILTERS[0]; i++)
        if (strcmp(FILTERS[i].name, name) == 0)
            return &FILTERS[i];
    return NULL;
}
