/* What values can do: truth, equality, order, attributes, subscripts, iteration. */
#include "text/template_value.h"

#include <string.h>
#include "base/utf8.h"
#include "text/template_run.h"

enum { DICT_ENTRIES_PER_STEP = 16 }; /* a dict is searched from its beginning */

const char *value_type_name(const struct value *value)
{
    static const char *const NAMES[] = {
        [VALUE_UNDEFINED] = "undefined", [VALUE_NONE] = "None",
        [VALUE_BOOL] = "bool",           [VALUE_INT] = "int",
        [VALUE_FLOAT] = "float",         [VALUE_TEXT] = "str",
        [VALUE_LIST] = "list",           [VALUE_TUPLE] = "tuple",
        [VALUE_DICT] = "dict",           [VALUE_NAMESPACE] = "namespace",
        [VALUE_LOOP] = "loop",           [VALUE_MACRO] = "macro",
        [VALUE_FUNCTION] = "function",   [VALUE_METHOD] = "method",
    };
    return NAMES[value->kind];
}

bool value_is_number(const struct value *value)
{
    return value->kind == VALUE_BOOL || value->kind == VALUE_INT || value->kind == VALUE_FLOAT;
}

double value_as_double(const struct value *value)
{
    if (value->kind == VALUE_FLOAT)
        return value->number;
    return value->kind == VALUE_BOOL ? value->boolean : (double)value->integer;
}

static int64_t as_int(const struct value *value)
{
    return value->kind == VALUE_BOOL ? value->boolean : value->integer;
}

bool value_truth(const struct value *value)
{
    switch (value->kind) {
    case VALUE_UNDEFINED:
    case VALUE_NONE:
        return false;
    case VALUE_BOOL:
        return value->boolean;
    case VALUE_INT:
        return value->integer != 0;
    case VALUE_FLOAT:
        return value->number != 0.0;
    case VALUE_TEXT:
        return value->text->size_bytes > 0;
    case VALUE_LIST:
    case VALUE_TUPLE:
        return value->list->count > 0;
    case VALUE_DICT:
        return value->dict->count > 0;
    default:
        return true;
    }
}

static bool lists_equal(struct run *run, const struct node *at, const struct list *a, const struct list *b,
                        bool *out)
{
    *out = a->count == b->count;
    for (size_t i = 0; i < a->count && *out; i++)
        if (!value_equal(run, at, &a->items[i], &b->items[i], out))
            return false;
    return true;
}

static bool dicts_equal(struct run *run, const struct node *at, const struct dict *a, const struct dict *b,
                        bool *out)
{
    *out = a->count == b->count;
    for (size_t i = 0; i < a->count && *out; i++) {
        if (!run_charge(run, at, b->count / DICT_ENTRIES_PER_STEP))
            return false;
        const struct value *other = dict_get(b, &a->entries[i].key);
        *out = other != NULL;
        if (*out && !value_equal(run, at, &a->entries[i].value, other, out))
            return false;
    }
    return true;
}

/* Keys: numbers by value, texts by bytes; others are never equal. */
static bool simple_equal(const struct value *a, const struct value *b)
{
    if (value_is_number(a) && value_is_number(b)) {
        if (a->kind != VALUE_FLOAT && b->kind != VALUE_FLOAT)
            return as_int(a) == as_int(b);
        return value_as_double(a) == value_as_double(b);
    }
    if (a->kind != b->kind)
        return false;
    if (a->kind == VALUE_TEXT)
        return text_equal(a->text, b->text);
    return a->kind == VALUE_NONE || a->kind == VALUE_UNDEFINED;
}

bool value_equal(struct run *run, const struct node *at, const struct value *a, const struct value *b,
                 bool *out)
{
    *out = false;
    if (!run_enter(run, at) || !run_charge(run, at, 1))
        return false;
    bool ok = true;
    bool lists = a->kind == VALUE_LIST || a->kind == VALUE_TUPLE;
    if (a->kind != b->kind || !(lists || a->kind == VALUE_DICT)) {
        if (a->kind == VALUE_TEXT)
            ok = run_charge_bytes(run, at, a->text->size_bytes);
        *out = simple_equal(a, b) || (a->kind == b->kind && a->kind >= VALUE_NAMESPACE && a->loop == b->loop);
    } else if (lists) {
        ok = lists_equal(run, at, a->list, b->list, out);
    } else {
        ok = dicts_equal(run, at, a->dict, b->dict, out);
    }
    run_leave(run);
    return ok;
}

static int order_of_texts(const struct text *a, const struct text *b)
{
    size_t common = a->size_bytes < b->size_bytes ? a->size_bytes : b->size_bytes;
    int order = memcmp(a->data, b->data, common);
    return order != 0 ? order : (a->size_bytes > b->size_bytes) - (a->size_bytes < b->size_bytes);
}

bool value_order(struct run *run, const struct node *at, const struct value *a, const struct value *b,
                 int *out)
{
    if (value_is_number(a) && value_is_number(b)) {
        if (a->kind != VALUE_FLOAT && b->kind != VALUE_FLOAT)
            *out = (as_int(a) > as_int(b)) - (as_int(a) < as_int(b));
        else
            *out = (value_as_double(a) > value_as_double(b)) - (value_as_double(a) < value_as_double(b));
        return true;
    }
    if (a->kind == VALUE_TEXT && b->kind == VALUE_TEXT) {
        *out = order_of_texts(a->text, b->text);
        return run_charge_bytes(run, at, a->text->size_bytes);
    }
    return run_type_error(run, at, "%s and %s have no order", value_type_name(a), value_type_name(b));
}

bool list_new(struct run *run, const struct node *at, size_t count, enum value_kind kind,
              struct value **items, struct value *out)
{
    struct list *list = run_alloc(run, at, sizeof *list);
    if (list == NULL)
        return false;
    list->items = count ? run_alloc(run, at, count * sizeof *list->items) : NULL;
    if (count > 0 && list->items == NULL)
        return false;
    list->count = count;
    *items = list->items;
    *out = (struct value){.kind = kind, .list = list};
    return true;
}

bool dict_new(struct run *run, const struct node *at, enum value_kind kind, struct value *out)
{
    struct dict *dict = run_alloc(run, at, sizeof *dict);
    *out = (struct value){.kind = kind, .dict = dict};
    return dict != NULL;
}

const struct value *dict_get(const struct dict *dict, const struct value *key)
{
    for (size_t i = 0; i < dict->count; i++)
        if (simple_equal(&dict->entries[i].key, key))
            return &dict->entries[i].value;
    return NULL;
}

const struct value *dict_get_name(const struct dict *dict, const char *name)
{
    struct text text = {name, NULL, strlen(name)};
    struct value key = {.kind = VALUE_TEXT, .text = &text};
    return dict_get(dict, &key);
}

bool dict_set(struct run *run, const struct node *at, struct dict *dict, const struct value *key,
              const struct value *value)
{
    if (key->kind > VALUE_TEXT || key->kind == VALUE_UNDEFINED)
        return run_type_error(run, at, "%s cannot be a key", value_type_name(key));
    if (!run_charge(run, at, dict->count / DICT_ENTRIES_PER_STEP))
        return false;
    struct value *there = (struct value *)dict_get(dict, key);
    if (there != NULL) {
        *there = *value;
        return true;
    }
    if (dict->count == dict->capacity) {
        size_t capacity = dict->capacity ? 2 * dict->capacity : 4;
        struct dict_entry *entries = run_alloc(run, at, capacity * sizeof *entries);
        if (entries == NULL)
            return false;
        if (dict->count > 0)
            memcpy(entries, dict->entries, dict->count * sizeof *entries);
        dict->entries = entries;
        dict->capacity = capacity;
    }
    dict->entries[dict->count++] = (struct dict_entry){*key, *value};
    return true;
}

static bool iterate_dict(struct run *run, const struct node *at, const struct dict *dict, struct value *out)
{
    struct value *items;
    if (!list_new(run, at, dict->count, VALUE_LIST, &items, out))
        return false;
    for (size_t i = 0; i < dict->count; i++)
        items[i] = dict->entries[i].key;
    return true;
}

static bool iterate_text(struct run *run, const struct node *at, const struct text *text, struct value *out)
{
    struct value *items;
    if (!list_new(run, at, text_length(text), VALUE_LIST, &items, out))
        return false;
    size_t n = 0;
    for (size_t i = 0; i < text->size_bytes; n++) {
        uint32_t code_point;
        size_t length = utf8_decode(text->data + i, text->size_bytes - i, &code_point);
        if (!text_slice(run, at, text, i, i + length, &items[n]))
            return false;
        i += length;
    }
    return true;
}

bool value_iterate(struct run *run, const struct node *at, const struct value *value, const struct list **out)
{
    static const struct list EMPTY = {NULL, 0};
    struct value made;
    switch (value->kind) {
    case VALUE_LIST:
    case VALUE_TUPLE:
        *out = value->list;
        return true;
    case VALUE_UNDEFINED:
        *out = &EMPTY;
        return true;
    case VALUE_DICT:
        if (!iterate_dict(run, at, value->dict, &made))
            return false;
        *out = made.list;
        return true;
    case VALUE_TEXT:
        if (!iterate_text(run, at, value->text, &made))
            return false;
        *out = made.list;
        return true;
    default:
        return run_type_error(run, at, "%s cannot be iterated", value_type_name(value));
    }
}

bool value_contains(struct run *run, const struct node *at, const struct value *container,
                    const struct value *item, bool *out)
{
    *out = false;
    if (container->kind == VALUE_TEXT) {
        if (item->kind != VALUE_TEXT)
            return run_type_error(run, at, "\"in\" a str needs a str on its left, not %s",
                                  value_type_name(item));
        *out = text_find(container->text, item->text, 0) != SIZE_MAX;
        return run_charge_bytes(run, at, 2 * container->text->size_bytes);
    }
    if (container->kind == VALUE_DICT) {
        *out = dict_get(container->dict, item) != NULL;
        return run_charge(run, at, container->dict->count / DICT_ENTRIES_PER_STEP);
    }
    const struct list *list;
    if (!value_iterate(run, at, container, &list))
        return false;
    for (size_t i = 0; i < list->count && !*out; i++)
        if (!value_equal(run, at, &list->items[i], item, out))
            return false;
    return true;
}

static bool method_new(struct run *run, const struct node *at, const struct value *self,
                       const struct builtin *function, struct value *out)
{
    struct method *method = run_alloc(run, at, sizeof *method);
    if (method == NULL)
        return false;
    *method = (struct method){*self, function};
    *out = (struct value){.kind = VALUE_METHOD, .method = method};
    return true;
}

static bool loop_attribute(const struct loop *loop, const char *name, struct value *out)
{
    size_t i = loop->index0, n = loop->items->count;
    if (strcmp(name, "index") == 0)
        *out = value_int((int64_t)i + 1);
    else if (strcmp(name, "index0") == 0)
        *out = value_int((int64_t)i);
    else if (strcmp(name, "first") == 0)
        *out = value_bool(i == 0);
    else if (strcmp(name, "last") == 0)
        *out = value_bool(i + 1 == n);
    else if (strcmp(name, "length") == 0)
        *out = value_int((int64_t)n);
    else if (strcmp(name, "revindex") == 0)
        *out = value_int((int64_t)(n - i));
    else if (strcmp(name, "revindex0") == 0)
        *out = value_int((int64_t)(n - i) - 1);
    else if (strcmp(name, "depth") == 0)
        *out = value_int((int64_t)loop->depth);
    else if (strcmp(name, "depth0") == 0)
        *out = value_int((int64_t)loop->depth - 1);
    else if (strcmp(name, "previtem") == 0)
        *out = i > 0 ? loop->items->items[i - 1] : value_undefined(name);
    else if (strcmp(name, "nextitem") == 0)
        *out = i + 1 < n ? loop->items->items[i + 1] : value_undefined(name);
    else
        *out = value_undefined(name);
    return true;
}

bool value_attribute(struct run *run, const struct node *at, const struct value *object, const char *name,
                     struct value *out)
{
    const struct builtin *method = NULL;
    const struct value *found = NULL;
    switch (object->kind) {
    case VALUE_UNDEFINED:
        return run_type_error(run, at, "\"%s\" is undefined, so it has no \"%s\"",
                              object->undefined_name ? object->undefined_name : "an element past the end",
                              name);
    case VALUE_LOOP:
        return loop_attribute(object->loop, name, out);
    case VALUE_TEXT:
        method = template_text_method_find(name);
        break;
    case VALUE_DICT:
        method = template_dict_method_find(name);
        found = dict_get_name(object->dict, name);
        break;
    case VALUE_NAMESPACE:
        found = dict_get_name(object->dict, name);
        break;
    default:
        break;
    }
    if (method != NULL)
        return method_new(run, at, object, method, out);
    *out = found ? *found : value_undefined(name);
    return true;
}

/* Byte offset of character number `index`. */
static size_t character_offset(const struct text *text, size_t index)
{
    size_t n = 0;
    for (size_t i = 0; i < text->size_bytes; i++)
        if (((uint8_t)text->data[i] & 0xc0) != 0x80 && n++ == index)
            return i;
    return text->size_bytes;
}

static bool subscript_by_number(struct run *run, const struct node *at, const struct value *object,
                                int64_t index, struct value *out)
{
    bool is_text = object->kind == VALUE_TEXT;
    if (is_text && !run_charge_bytes(run, at, 4 * object->text->size_bytes))
        return false;
    size_t count = is_text ? text_length(object->text) : object->list->count;
    if (index < 0)
        index += (int64_t)count;
    *out = value_undefined(NULL);
    if (index < 0 || (uint64_t)index >= count)
        return true;
    if (!is_text) {
        *out = object->list->items[index];
        return true;
    }
    return text_slice(run, at, object->text, character_offset(object->text, (size_t)index),
                      character_offset(object->text, (size_t)index + 1), out);
}

bool value_subscript(struct run *run, const struct node *at, const struct value *object,
                     const struct value *index, struct value *out)
{
    bool is_number = index->kind == VALUE_INT || index->kind == VALUE_BOOL;
    bool sequence = object->kind == VALUE_LIST || object->kind == VALUE_TUPLE || object->kind == VALUE_TEXT;
    if (sequence && is_number)
        return subscript_by_number(run, at, object, as_int(index), out);
    if (object->kind == VALUE_DICT) {
        const struct value *found = dict_get(object->dict, index);
        if (!run_charge(run, at, object->dict->count / DICT_ENTRIES_PER_STEP))
            return false;
        if (found != NULL) {
            *out = *found;
            return true;
        }
    }
    if (object->kind == VALUE_UNDEFINED || index->kind == VALUE_TEXT) {
        struct value name = value_undefined(NULL);
        if (index->kind != VALUE_TEXT)
            return value_attribute(run, at, object, "[]", out);
        /* NUL-terminated */
        if (!text_copy(run, at, index->text->data, index->text->size_bytes, &name))
            return false;
        return value_attribute(run, at, object, name.text->data, out);
    }
    *out = value_undefined(NULL);
    return true;
}

/* Python's slice.indices(). */
static bool slice_bounds(struct run *run, const struct node *at, const struct value parts[3], size_t length,
                         int64_t *start, int64_t *stop, int64_t *step)
{
    int64_t n = (int64_t)length, *targets[3] = {start, stop, step};
    *step = 1;
    for (int i = 2; i >= 0; i--) {
        if (i < 2 && *step > 0)
            *targets[i] = i == 0 ? 0 : n;
        if (i < 2 && *step < 0)
            *targets[i] = i == 0 ? n - 1 : -1;
        if (parts[i].kind == VALUE_UNDEFINED || parts[i].kind == VALUE_NONE)
            continue;
        if (parts[i].kind != VALUE_INT && parts[i].kind != VALUE_BOOL)
            return run_type_error(run, at, "a slice needs int, not %s", value_type_name(&parts[i]));
        int64_t x = as_int(&parts[i]);
        if (i == 2) {
            if (x == 0)
                return run_type_error(run, at, "a slice's step cannot be 0");
            *step = x < -n - 1 ? -n - 1 : x > n + 1 ? n + 1 : x;
            continue;
        }
        int64_t low = *step < 0 ? -1 : 0, high = *step < 0 ? n - 1 : n;
        if (x < 0)
            x = x < -n ? -1 - n : x;
        x = x < 0 ? x + n : x;
        *targets[i] = x < low ? low : x > high ? high : x;
    }
    return true;
}

static bool slice_list(struct run *run, const struct node *at, const struct value *object,
                       const struct value parts[3], struct value *out)
{
    int64_t start, stop, step;
    struct value *items;
    if (!slice_bounds(run, at, parts, object->list->count, &start, &stop, &step))
        return false;
    size_t count = 0;
    for (int64_t i = start; step > 0 ? i < stop : i > stop; i += step)
        count++;
    if (!list_new(run, at, count, object->kind, &items, out))
        return false;
    for (size_t k = 0; k < count; k++)
        items[k] = object->list->items[start + (int64_t)k * step];
    return true;
}

static bool slice_text(struct run *run, const struct node *at, const struct text *text,
                       const struct value parts[3], struct value *out)
{
    int64_t start, stop, step;
    if (!run_charge_bytes(run, at, 4 * text->size_bytes) ||
        !slice_bounds(run, at, parts, text_length(text), &start, &stop, &step))
        return false;
    if (step == 1) {
        size_t from = character_offset(text, (size_t)start);
        size_t to = stop > start ? character_offset(text, (size_t)stop) : from;
        return text_slice(run, at, text, from, to, out);
    }
    struct value characters, picked;
    struct sink sink = {.text = {0}};
    if (!iterate_text(run, at, text, &characters) || !slice_list(run, at, &characters, parts, &picked))
        return false;
    for (size_t i = 0; i < picked.list->count; i++)
        if (!sink_put(run, at, &sink, picked.list->items[i].text)) {
            sink_free(&sink);
            return false;
        }
    return sink_take(run, at, &sink, out);
}

bool value_slice(struct run *run, const struct node *at, const struct value *object,
                 const struct value parts[3], struct value *out)
{
    if (object->kind == VALUE_TEXT)
        return slice_text(run, at, object->text, parts, out);
    if (object->kind == VALUE_LIST || object->kind == VALUE_TUPLE)
        return slice_list(run, at, object, parts, out);
    return run_type_error(run, at, "%s cannot be sliced", value_type_name(object));
}
