/* str methods, dict methods and functions. */
#include <string.h>
#include <time.h>
#include <utf8proc.h>

#include "base/utf8.h"
#include "text/template_text_ops.h"
#include "text/unicode_class.h"

const struct value *call_argument(const struct call *call, size_t position, const char *name)
{
    if (position < call->n_args)
        return &call->args[position];
    for (size_t i = 0; i < call->n_named; i++)
        if (name != NULL && strcmp(call->named[i].name, name) == 0)
            return &call->named[i].value;
    return NULL;
}

bool call_check(const struct call *call, size_t least, size_t most, const char *const *names)
{
    if (call->n_args + call->n_named < least || call->n_args > most)
        return run_type_error(call->run, call->at, "wrong number of arguments");
    for (size_t i = 0; i < call->n_named; i++) {
        size_t k = 0;
        while (names != NULL && names[k] != NULL && strcmp(names[k], call->named[i].name) != 0)
            k++;
        if (names == NULL || names[k] == NULL)
            return run_type_error(call->run, call->at, "no argument \"%s\"", call->named[i].name);
    }
    return true;
}

/* Argument `position` as a text; *out NULL when it was not given or is none. */
static bool text_argument(const struct call *call, size_t position, const char *name, const struct text **out)
{
    const struct value *value = call_argument(call, position, name);
    *out = NULL;
    if (value == NULL || value->kind == VALUE_NONE)
        return true;
    if (value->kind != VALUE_TEXT)
        return run_type_error(call->run, call->at, "expected a str, not %s", value_type_name(value));
    *out = value->text;
    return true;
}

/* Argument `position` as a count, negative = no limit. */
static bool count_argument(const struct call *call, size_t position, const char *name, size_t *out)
{
    const struct value *value = call_argument(call, position, name);
    *out = SIZE_MAX;
    if (value == NULL)
        return true;
    if (value->kind != VALUE_INT)
        return run_type_error(call->run, call->at, "expected an int, not %s", value_type_name(value));
    if (value->integer >= 0)
        *out = (size_t)value->integer;
    return true;
}

static bool strip_sides(const struct call *call, unsigned sides, struct value *out)
{
    const struct text *characters;
    return call_check(call, 1, 2, NULL) && text_argument(call, 1, NULL, &characters) &&
           text_strip(call->run, call->at, call->args[0].text, sides, characters, out);
}

static bool method_strip(const struct call *call, struct value *out)
{
    return strip_sides(call, STRIP_BOTH, out);
}

static bool method_lstrip(const struct call *call, struct value *out)
{
    return strip_sides(call, STRIP_LEFT, out);
}

static bool method_rstrip(const struct call *call, struct value *out)
{
    return strip_sides(call, STRIP_RIGHT, out);
}

static bool split_from(const struct call *call, bool from_right, struct value *out)
{
    static const char *const NAMES[] = {"sep", "maxsplit", NULL};
    const struct text *separator;
    size_t most;
    return call_check(call, 1, 3, NAMES) && text_argument(call, 1, "sep", &separator) &&
           count_argument(call, 2, "maxsplit", &most) &&
           text_split(call->run, call->at, call->args[0].text, separator, most, from_right, out);
}

static bool method_split(const struct call *call, struct value *out)
{
    return split_from(call, false, out);
}

static bool method_rsplit(const struct call *call, struct value *out)
{
    return split_from(call, true, out);
}

static bool matches_end(const struct text *text, const struct text *part, bool at_end)
{
    if (part->size_bytes > text->size_bytes)
        return false;
    size_t start = at_end ? text->size_bytes - part->size_bytes : 0;
    return memcmp(text->data + start, part->data, part->size_bytes) == 0;
}

/* One text, or a tuple of which one must match. */
static bool test_end(const struct call *call, bool at_end, struct value *out)
{
    if (!call_check(call, 2, 2, NULL))
        return false;
    const struct value *part = &call->args[1];
    struct list one = {(struct value *)part, 1};
    const struct list *parts = part->kind == VALUE_TUPLE ? part->list : &one;
    *out = value_bool(false);
    for (size_t i = 0; i < parts->count; i++) {
        if (parts->items[i].kind != VALUE_TEXT)
            return run_type_error(call->run, call->at, "expected a str, not %s",
                                  value_type_name(&parts->items[i]));
        if (matches_end(call->args[0].text, parts->items[i].text, at_end))
            *out = value_bool(true);
    }
    return run_charge(call->run, call->at, parts->count);
}

static bool method_startswith(const struct call *call, struct value *out)
{
    return test_end(call, false, out);
}

static bool method_endswith(const struct call *call, struct value *out)
{
    return test_end(call, true, out);
}

static bool remove_end(const struct call *call, bool at_end, struct value *out)
{
    const struct text *part, *text = call->args[0].text;
    if (!call_check(call, 2, 2, NULL) || !text_argument(call, 1, NULL, &part))
        return false;
    size_t cut = part != NULL && matches_end(text, part, at_end) ? part->size_bytes : 0;
    return text_slice(call->run, call->at, text, at_end ? 0 : cut, text->size_bytes - (at_end ? cut : 0),
                      out);
}

static bool method_removeprefix(const struct call *call, struct value *out)
{
    return remove_end(call, false, out);
}

static bool method_removesuffix(const struct call *call, struct value *out)
{
    return remove_end(call, true, out);
}

static bool method_replace(const struct call *call, struct value *out)
{
    const struct text *old, *new_text;
    size_t most;
    if (!call_check(call, 3, 4, NULL) || !text_argument(call, 1, NULL, &old) ||
        !text_argument(call, 2, NULL, &new_text) || !count_argument(call, 3, NULL, &most))
        return false;
    if (old == NULL || new_text == NULL)
        return run_type_error(call->run, call->at, "replace needs two str");
    return text_replace(call->run, call->at, call->args[0].text, old, new_text, most, out);
}

static bool method_upper(const struct call *call, struct value *out)
{
    return call_check(call, 1, 1, NULL) &&
           text_change_case(call->run, call->at, call->args[0].text, CASE_UPPER, out);
}

static bool method_lower(const struct call *call, struct value *out)
{
    return call_check(call, 1, 1, NULL) &&
           text_change_case(call->run, call->at, call->args[0].text, CASE_LOWER, out);
}

static bool method_capitalize(const struct call *call, struct value *out)
{
    return call_check(call, 1, 1, NULL) &&
           text_change_case(call->run, call->at, call->args[0].text, CASE_CAPITALIZE, out);
}

static bool method_title(const struct call *call, struct value *out)
{
    return call_check(call, 1, 1, NULL) &&
           text_change_case(call->run, call->at, call->args[0].text, CASE_TITLE_LETTERS, out);
}

static bool method_find(const struct call *call, struct value *out)
{
    const struct text *part, *text = call->args[0].text;
    if (!call_check(call, 2, 2, NULL) || !text_argument(call, 1, NULL, &part) ||
        !run_charge_bytes(call->run, call->at, text->size_bytes))
        return false;
    size_t found = part ? text_find(text, part, 0) : SIZE_MAX;
    struct text before = {text->data, NULL, found == SIZE_MAX ? 0 : found};
    *out = value_int(found == SIZE_MAX ? -1 : (int64_t)text_length(&before));
    return true;
}

static bool method_count(const struct call *call, struct value *out)
{
    const struct text *part, *text = call->args[0].text;
    if (!call_check(call, 2, 2, NULL) || !text_argument(call, 1, NULL, &part) ||
        !run_charge_bytes(call->run, call->at, text->size_bytes))
        return false;
    if (part == NULL || part->size_bytes == 0)
        return run_type_error(call->run, call->at, "count needs a str that is not empty");
    int64_t n = 0;
    for (size_t i = text_find(text, part, 0); i != SIZE_MAX; i = text_find(text, part, i + part->size_bytes))
        n++;
    *out = value_int(n);
    return true;
}

static bool method_join(const struct call *call, struct value *out)
{
    const struct list *list;
    return call_check(call, 2, 2, NULL) && value_iterate(call->run, call->at, &call->args[1], &list) &&
           text_join_list(call->run, call->at, list, call->args[0].text, out);
}

/* Not empty, and every character has one of the classes. */
static bool all_of(const struct call *call, unsigned classes, struct value *out)
{
    const struct text *text = call->args[0].text;
    bool all = text->size_bytes > 0;
    for (size_t i = 0; i < text->size_bytes && all;) {
        uint32_t code_point = 0;
        size_t length = utf8_decode(text->data + i, text->size_bytes - i, &code_point);
        all = (unicode_classes(code_point) & classes) != 0;
        i += length ? length : 1;
    }
    *out = value_bool(all);
    return call_check(call, 1, 1, NULL) && run_charge_scan(call->run, call->at, text->size_bytes);
}

static bool method_isdigit(const struct call *call, struct value *out)
{
    return all_of(call, CHAR_NUMBER, out);
}

static bool method_isalpha(const struct call *call, struct value *out)
{
    return all_of(call, CHAR_LETTER, out);
}

static bool method_isspace(const struct call *call, struct value *out)
{
    return all_of(call, CHAR_SPACE, out);
}

/* keys, values and items as lists. */
static bool dict_view(const struct call *call, bool keys, bool values, struct value *out)
{
    const struct dict *dict = call->args[0].dict;
    struct value *items, *pair;
    if (!call_check(call, 1, 1, NULL) || !list_new(call->run, call->at, dict->count, VALUE_LIST, &items, out))
        return false;
    for (size_t i = 0; i < dict->count; i++) {
        items[i] = keys ? dict->entries[i].key : dict->entries[i].value;
        if (!keys || !values)
            continue;
        if (!list_new(call->run, call->at, 2, VALUE_TUPLE, &pair, &items[i]))
            return false;
        pair[0] = dict->entries[i].key;
        pair[1] = dict->entries[i].value;
    }
    return true;
}

static bool method_items(const struct call *call, struct value *out)
{
    return dict_view(call, true, true, out);
}

static bool method_keys(const struct call *call, struct value *out)
{
    return dict_view(call, true, false, out);
}

static bool method_values(const struct call *call, struct value *out)
{
    return dict_view(call, false, true, out);
}

static bool method_get(const struct call *call, struct value *out)
{
    if (!call_check(call, 2, 3, NULL))
        return false;
    const struct value *found = dict_get(call->args[0].dict, &call->args[1]);
    struct value none = {.kind = VALUE_NONE};
    *out = found ? *found : call->n_args == 3 ? call->args[2] : none;
    return run_charge(call->run, call->at, 1);
}

static bool function_range(const struct call *call, struct value *out)
{
    int64_t bounds[3] = {0, 0, 1};
    if (!call_check(call, 1, 3, NULL))
        return false;
    for (size_t i = 0; i < call->n_args; i++) {
        if (call->args[i].kind != VALUE_INT && call->args[i].kind != VALUE_BOOL)
            return run_type_error(call->run, call->at, "range needs int, not %s",
                                  value_type_name(&call->args[i]));
        bounds[call->n_args == 1 ? 1 : i] =
            call->args[i].kind == VALUE_BOOL ? call->args[i].boolean : call->args[i].integer;
    }
    int64_t start = bounds[0], stop = bounds[1], step = bounds[2];
    if (step == 0)
        return run_type_error(call->run, call->at, "range with a step of 0");
    uint64_t distance = 0, stride = step > 0 ? (uint64_t)step : (uint64_t)0 - (uint64_t)step;
    if (step > 0 ? stop > start : stop < start)
        distance = step > 0 ? (uint64_t)stop - (uint64_t)start : (uint64_t)start - (uint64_t)stop;
    uint64_t count = distance / stride + (distance % stride != 0);
    if (count > TEMPLATE_RANGE_MAX)
        return run_fail(call->run, ERR_RESOURCE_EXHAUSTED, call->at, "a range of more than %d numbers",
                        TEMPLATE_RANGE_MAX);
    struct value *items;
    if (!list_new(call->run, call->at, (size_t)count, VALUE_LIST, &items, out))
        return false;
    for (uint64_t i = 0; i < count; i++)
        items[i] = value_int((int64_t)((uint64_t)start + i * (uint64_t)step));
    return true;
}

/* dict(a=1), namespace(a=1): from another dict, then from names. */
static bool make_dict(const struct call *call, enum value_kind kind, struct value *out)
{
    if (call->n_args > 1)
        return run_type_error(call->run, call->at, "wrong number of arguments");
    if (call->n_args == 1 && call->args[0].kind != VALUE_DICT)
        return run_type_error(call->run, call->at, "expected a dict, not %s",
                              value_type_name(&call->args[0]));
    if (!dict_new(call->run, call->at, kind, out))
        return false;
    for (size_t i = 0; call->n_args == 1 && i < call->args[0].dict->count; i++) {
        const struct dict_entry *entry = &call->args[0].dict->entries[i];
        if (!dict_set(call->run, call->at, out->dict, &entry->key, &entry->value))
            return false;
    }
    for (size_t i = 0; i < call->n_named; i++) {
        struct value key;
        const char *name = call->named[i].name;
        if (!text_copy(call->run, call->at, name, strlen(name), &key) ||
            !dict_set(call->run, call->at, out->dict, &key, &call->named[i].value))
            return false;
    }
    return true;
}

static bool function_dict(const struct call *call, struct value *out)
{
    return make_dict(call, VALUE_DICT, out);
}

static bool function_namespace(const struct call *call, struct value *out)
{
    return make_dict(call, VALUE_NAMESPACE, out);
}

static bool function_raise_exception(const struct call *call, struct value *out)
{
    const struct text *text;
    (void)out;
    if (!call_check(call, 1, 1, NULL) || !value_to_text(call->run, call->at, &call->args[0], &text))
        return false;
    int length = text->size_bytes < ERR_MESSAGE_MAX ? (int)text->size_bytes : ERR_MESSAGE_MAX;
    return run_fail(call->run, ERR_INVALID_ARGUMENT, NULL, "the chat template refuses the messages: %.*s",
                    length, text->data);
}

static bool function_strftime_now(const struct call *call, struct value *out)
{
    char text[256], format[128];
    const struct text *given;
    struct tm parts;
    time_t now = (time_t)call->run->now_unix_s;
    if (!call_check(call, 1, 1, NULL) || !text_argument(call, 0, NULL, &given))
        return false;
    if (given == NULL || given->size_bytes >= sizeof format || gmtime_r(&now, &parts) == NULL)
        return run_type_error(call->run, call->at, "strftime_now needs a format of less than %zu bytes",
                              sizeof format);
    memcpy(format, given->data, given->size_bytes);
    format[given->size_bytes] = '\0';
    size_t size_bytes = strftime(text, sizeof text, format, &parts);
    return text_copy(call->run, call->at, text, size_bytes, out);
}

static const struct builtin TEXT_METHODS[] = {
    {"strip", method_strip},
    {"lstrip", method_lstrip},
    {"rstrip", method_rstrip},
    {"split", method_split},
    {"rsplit", method_rsplit},
    {"startswith", method_startswith},
    {"endswith", method_endswith},
    {"removeprefix", method_removeprefix},
    {"removesuffix", method_removesuffix},
    {"replace", method_replace},
    {"upper", method_upper},
    {"lower", method_lower},
    {"capitalize", method_capitalize},
    {"title", method_title},
    {"find", method_find},
    {"count", method_count},
    {"join", method_join},
    {"isdigit", method_isdigit},
    {"isalpha", method_isalpha},
    {"isspace", method_isspace},
};
static const struct builtin DICT_METHODS[] = {
    {"items", method_items}, {"keys", method_keys}, {"values", method_values}, {"get", method_get}};
static const struct builtin FUNCTIONS[] = {
    {"range", function_range},
    {"dict", function_dict},
    {"namespace", function_namespace},
    {"raise_exception", function_raise_exception},
    {"strftime_now", function_strftime_now},
};

static const struct builtin *find(const struct builtin *table, size_t n, const char *name)
{
    for (size_t i = 0; i < n; i++)
        if (strcmp(table[i].name, name) == 0)
            return &table[i];
    return NULL;
}

const struct builtin *template_text_method_find(const char *name)
{
    return find(TEXT_METHODS, sizeof TEXT_METHODS / sizeof TEXT_METHODS[0], name);
}

const struct builtin *template_dict_method_find(const char *name)
{
    return find(DICT_METHODS, sizeof DICT_METHODS / sizeof DICT_METHODS[0], name);
}

const struct builtin *template_function_find(const char *name)
{
    return find(FUNCTIONS, sizeof FUNCTIONS / sizeof FUNCTIONS[0], name);
}
