/* Values of a render: plain data in the render's pool. Every text carries, for each byte, whether it came
 * from a message. Internal to text/. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum value_kind {
    VALUE_UNDEFINED,
    VALUE_NONE,
    VALUE_BOOL,
    VALUE_INT,
    VALUE_FLOAT,
    VALUE_TEXT,
    VALUE_LIST,
    VALUE_TUPLE,
    VALUE_DICT,
    VALUE_NAMESPACE, /* a dict whose attributes {% set %} may change */
    VALUE_LOOP,
    VALUE_MACRO,
    VALUE_FUNCTION, /* range, namespace, .. */
    VALUE_METHOD,   /* a function bound to a value: text.strip */
};

struct text {
    const char *data;     /* size_bytes of UTF-8 */
    const uint8_t *marks; /* [size_bytes] 1 = from a message; NULL = all from the template */
    size_t size_bytes;
};

struct value {
    enum value_kind kind;
    union {
        bool boolean;
        int64_t integer;
        double number;
        const char *undefined_name; /* of what was not found; NULL = unknown */
        const struct text *text;
        const struct list *list; /* LIST, TUPLE */
        struct dict *dict;       /* DICT, NAMESPACE */
        const struct loop *loop;
        const struct macro *macro;
        const struct builtin *function;
        const struct method *method;
    };
};

struct list {
    struct value *items; /* [count] */
    size_t count;
};

struct dict_entry {
    struct value key, value;
};
struct dict {
    struct dict_entry *entries; /* [count], in insertion order */
    size_t count, capacity;
};

/* What {% for %} knows about where it is. */
struct loop {
    const struct list *items;
    size_t index0;
    size_t depth;
};

struct macro {
    const struct node *node;
    struct scope *scope; /* where it was defined */
};

struct method {
    struct value self;
    const struct builtin *function;
};
