/* One render in progress, and what values can do. Functions return false after an error, which is in
 * run->error. Internal to text/. */
#pragma once

#include "base/buffer.h"
#include "text/template_ast.h"
#include "text/template_builtin.h"

enum {
    TEMPLATE_POOL_BYTES_MAX = 512 << 20, /* values of one render */
    TEMPLATE_RUN_DEPTH_MAX = 512,        /* evaluations within evaluations, macros included */
    TEMPLATE_RANGE_MAX = 100000,         /* as Jinja's sandbox has it */
    TEMPLATE_BYTES_PER_STEP = 64,        /* work on long texts costs steps too: copied or searched bytes */
    TEMPLATE_SCANNED_BYTES_PER_STEP = 8, /* bytes looked at character by character */
};

struct binding {
    const char *name; /* interned */
    struct value value;
};
struct scope {
    struct scope *parent;
    struct binding *items; /* [count] */
    size_t count, capacity;
};

/* Where output goes: the prompt, or what {% set %}, a macro or a filter block collects. */
struct sink {
    struct buffer text;
    struct buffer marks; /* may be shorter than text: the rest is 0 */
};

struct run {
    const struct chat_template *chat_template;
    struct template_pool pool;
    struct scope *scope;
    struct sink *sink;
    uint64_t steps;
    unsigned depth;
    unsigned loop_depth;
    int64_t now_unix_s;
    err_t error;
};

/* Sets run->error with the place of `at`; returns false. */
bool run_fail(struct run *run, enum err_code code, const struct node *at, const char *format, ...)
    __attribute__((format(printf, 4, 5)));
bool run_type_error(struct run *run, const struct node *at, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
bool run_charge(struct run *run, const struct node *at, size_t steps);
bool run_charge_bytes(struct run *run, const struct node *at, size_t size_bytes);
bool run_charge_scan(struct run *run, const struct node *at, size_t size_bytes);
/* Zeroed memory of the render; NULL after an error. */
void *run_alloc(struct run *run, const struct node *at, size_t size_bytes);
bool run_enter(struct run *run, const struct node *at);
static inline void run_leave(struct run *run)
{
    run->depth--;
}

/* Gives a value to a name that the template uses, in run->scope. */
bool run_bind(struct run *run, const char *name, const struct value *value);
/* The whole template into run->sink. */
bool run_template(struct run *run);
bool run_eval(struct run *run, const struct node *node, struct value *out);
/* Calls a function, method or macro. */
bool run_call_value(const struct call *call, const struct value *callee, struct value *out);

/* --- texts --- */
/* A text of size_bytes to be filled; *marks is NULL unless with_marks. */
bool text_new(struct run *run, const struct node *at, size_t size_bytes, bool with_marks, char **data,
              uint8_t **marks, struct value *out);
/* Part of a text, shared. */
bool text_slice(struct run *run, const struct node *at, const struct text *text, size_t start, size_t end,
                struct value *out);
bool text_copy(struct run *run, const struct node *at, const char *data, size_t size_bytes,
               struct value *out); /* trusted */
bool text_join(struct run *run, const struct node *at, const struct text *a, const struct text *b,
               struct value *out);
bool text_equal(const struct text *a, const struct text *b);
bool text_is(const struct value *value, const char *text);
size_t text_length(const struct text *text); /* in characters */
/* Byte offset of the first `needle` at or after `from`; SIZE_MAX = none. */
size_t text_find(const struct text *text, const struct text *needle, size_t from);

bool sink_put(struct run *run, const struct node *at, struct sink *sink, const struct text *text);
bool sink_put_plain(struct run *run, const struct node *at, struct sink *sink, const char *text);
/* What was collected, as a value; the sink is freed. */
bool sink_take(struct run *run, const struct node *at, struct sink *sink, struct value *out);
void sink_free(struct sink *sink);

/* --- lists and dicts --- */
bool list_new(struct run *run, const struct node *at, size_t count, enum value_kind kind,
              struct value **items, struct value *out);
bool dict_new(struct run *run, const struct node *at, enum value_kind kind, struct value *out);
bool dict_set(struct run *run, const struct node *at, struct dict *dict, const struct value *key,
              const struct value *value);
/* NULL when it is not there. */
const struct value *dict_get(const struct dict *dict, const struct value *key);
const struct value *dict_get_name(const struct dict *dict, const char *name);
/* What {% for %} goes through: a list, a dict's keys, a text's characters, nothing for undefined. */
bool value_iterate(struct run *run, const struct node *at, const struct value *value,
                   const struct list **out);

/* --- values --- */
static inline struct value value_bool(bool b)
{
    return (struct value){.kind = VALUE_BOOL, .boolean = b};
}
static inline struct value value_int(int64_t i)
{
    return (struct value){.kind = VALUE_INT, .integer = i};
}
static inline struct value value_undefined(const char *name)
{
    return (struct value){.kind = VALUE_UNDEFINED, .undefined_name = name};
}
const char *value_type_name(const struct value *value); /* as Python calls it */
bool value_truth(const struct value *value);
bool value_is_number(const struct value *value); /* bool, int, float */
double value_as_double(const struct value *value);
bool value_equal(struct run *run, const struct node *at, const struct value *a, const struct value *b,
                 bool *out);
/* *out: negative, 0, positive. Type error between kinds without an order. */
bool value_order(struct run *run, const struct node *at, const struct value *a, const struct value *b,
                 int *out);
bool value_contains(struct run *run, const struct node *at, const struct value *container,
                    const struct value *item, bool *out);
/* str(value) as a text. */
bool value_to_text(struct run *run, const struct node *at, const struct value *value,
                   const struct text **out);
/* object.name, then object[name]; undefined when neither is there. */
bool value_attribute(struct run *run, const struct node *at, const struct value *object, const char *name,
                     struct value *out);
/* object[index]. */
bool value_subscript(struct run *run, const struct node *at, const struct value *object,
                     const struct value *index, struct value *out);
/* object[start:stop:step]; undefined parts are left out ones. */
bool value_slice(struct run *run, const struct node *at, const struct value *object,
                 const struct value parts[3], struct value *out);
/* JSON as json.dumps(ensure_ascii=False) writes it; indent < 0: on one line. */
bool value_to_json(struct run *run, const struct node *at, const struct value *value, int indent,
                   struct sink *sink);
/* A double as Python's repr writes it. */
void format_double(double number, char out[32]);
