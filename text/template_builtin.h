/* Filters, tests, functions and methods by name. Internal to text/. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include "text/template_value.h"

struct node;
struct run;

struct named_argument {
    const char *name;
    struct value value;
};

/* One call: where it stands, and its arguments. For a filter, test or method args[0] is what it works on. */
struct call {
    struct run *run;
    const struct node *at;
    const struct value *args; /* [n_args] */
    size_t n_args;
    const struct named_argument *named; /* [n_named] */
    size_t n_named;
};

/* false: run->error is set. */
typedef bool builtin_function(const struct call *call, struct value *out);

struct builtin {
    const char *name;
    builtin_function *function;
};

/* NULL when there is none. */
const struct builtin *template_filter_find(const char *name);
const struct builtin *template_test_find(const char *name);
const struct builtin *template_text_method_find(const char *name);
const struct builtin *template_dict_method_find(const char *name);
const struct builtin *template_function_find(const char *name);

/* Argument number `position` (0 = args[0]) or by name; NULL when it was not given. */
const struct value *call_argument(const struct call *call, size_t position, const char *name);
/* Type error when there are more than `most` arguments by position (args[0] counts) or one by a name that is
 * not in names[], which ends with NULL (names NULL: none by name). */
bool call_check(const struct call *call, size_t least, size_t most, const char *const *names);
