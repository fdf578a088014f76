/* The interpreter: expressions and statements. */
#include "text/template_run.h"

#include <string.h>
#include "text/template_arithmetic.h"

enum { CALL_ARGUMENTS_MAX = 16 };

/* What a statement wants of the loop around it. */
enum flow { FLOW_ON, FLOW_BREAK, FLOW_CONTINUE };

static bool exec(struct run *run, const struct node *node, enum flow *flow);

static struct scope *scope_new(struct run *run, const struct node *at, struct scope *parent)
{
    struct scope *scope = run_alloc(run, at, sizeof *scope);
    if (scope != NULL)
        scope->parent = parent;
    return scope;
}

static bool scope_set(struct run *run, const struct node *at, struct scope *scope, const char *name,
                      const struct value *value)
{
    for (size_t i = 0; i < scope->count; i++)
        if (scope->items[i].name == name) {
            scope->items[i].value = *value;
            return true;
        }
    if (scope->count == scope->capacity) {
        size_t capacity = scope->capacity ? 2 * scope->capacity : 4;
        struct binding *items = run_alloc(run, at, capacity * sizeof *items);
        if (items == NULL)
            return false;
        if (scope->count > 0)
            memcpy(items, scope->items, scope->count * sizeof *items);
        scope->items = items;
        scope->capacity = capacity;
    }
    scope->items[scope->count++] = (struct binding){name, *value};
    return run_charge(run, at, scope->count / 16);
}

static bool eval_name(struct run *run, const struct node *node, struct value *out)
{
    size_t seen = 0;
    for (const struct scope *scope = run->scope; scope != NULL; scope = scope->parent) {
        for (size_t i = 0; i < scope->count; i++)
            if (scope->items[i].name == node->name) {
                *out = scope->items[i].value;
                return run_charge(run, node, (seen + i) / 16);
            }
        seen += scope->count + 1;
    }
    const struct builtin *function = template_function_find(node->name);
    *out =
        function ? (struct value){.kind = VALUE_FUNCTION, .function = function} : value_undefined(node->name);
    return run_charge(run, node, seen / 16);
}

static bool eval_items(struct run *run, const struct node *node, struct value *out)
{
    struct value *items;
    enum value_kind kind = node->kind == NODE_TUPLE ? VALUE_TUPLE : VALUE_LIST;
    if (!list_new(run, node, node->n_items, kind, &items, out))
        return false;
    for (size_t i = 0; i < node->n_items; i++)
        if (!run_eval(run, node->items[i], &items[i]))
            return false;
    return true;
}

static bool eval_dict(struct run *run, const struct node *node, struct value *out)
{
    if (!dict_new(run, node, VALUE_DICT, out))
        return false;
    for (size_t i = 0; i < node->n_items; i += 2) {
        struct value key, value;
        if (!run_eval(run, node->items[i], &key) || !run_eval(run, node->items[i + 1], &value) ||
            !dict_set(run, node, out->dict, &key, &value))
            return false;
    }
    return true;
}

static bool eval_chain(struct run *run, const struct node *node, struct value *out)
{
    struct value left, right;
    if (!run_eval(run, node->items[0], &left))
        return false;
    for (size_t i = 1; i < node->n_items; i++) {
        if (!run_eval(run, node->items[i], &right) ||
            !value_arithmetic(run, node, node->operators[i - 1], &left, &right, out))
            return false;
        left = *out;
    }
    return true;
}

static bool eval_logic(struct run *run, const struct node *node, struct value *out)
{
    bool stop_at = node->operators[0] == OP_OR;
    for (size_t i = 0; i < node->n_items; i++) {
        if (!run_eval(run, node->items[i], out))
            return false;
        if (value_truth(out) == stop_at)
            break;
    }
    return true;
}

static bool compare(struct run *run, const struct node *node, int op, const struct value *a,
                    const struct value *b, bool *out)
{
    int order;
    switch (op) {
    case OP_EQ:
        return value_equal(run, node, a, b, out);
    case OP_NE:
        if (!value_equal(run, node, a, b, out))
            return false;
        *out = !*out;
        return true;
    case OP_IN:
        return value_contains(run, node, b, a, out);
    case OP_NOT_IN:
        if (!value_contains(run, node, b, a, out))
            return false;
        *out = !*out;
        return true;
    default:
        if (!value_order(run, node, a, b, &order))
            return false;
        *out = op == '<' ? order < 0 : op == '>' ? order > 0 : op == OP_LE ? order <= 0 : order >= 0;
        return true;
    }
}

static bool eval_compare(struct run *run, const struct node *node, struct value *out)
{
    struct value left, right;
    bool holds = true;
    if (!run_eval(run, node->items[0], &left))
        return false;
    for (size_t i = 1; i < node->n_items && holds; i++) {
        if (!run_eval(run, node->items[i], &right) ||
            !compare(run, node, node->operators[i - 1], &left, &right, &holds))
            return false;
        left = right;
    }
    *out = value_bool(holds);
    return true;
}

static bool eval_condition(struct run *run, const struct node *node, struct value *out)
{
    struct value test;
    if (!run_eval(run, node->test, &test))
        return false;
    const struct node *branch = value_truth(&test) ? node->left : node->right;
    *out = value_undefined(NULL);
    return branch == NULL || run_eval(run, branch, out);
}

static bool eval_subscript(struct run *run, const struct node *node, struct value *out)
{
    struct value object, index;
    return run_eval(run, node->left, &object) && run_eval(run, node->right, &index) &&
           value_subscript(run, node, &object, &index, out);
}

static bool eval_slice(struct run *run, const struct node *node, struct value *out)
{
    struct value object, parts[3];
    if (!run_eval(run, node->left, &object))
        return false;
    for (size_t i = 0; i < 3; i++) {
        parts[i] = value_undefined(NULL);
        if (node->items[i] != NULL && !run_eval(run, node->items[i], &parts[i]))
            return false;
    }
    return value_slice(run, node, &object, parts, out);
}

/* Arguments of a call, behind what a filter or test works on. */
struct call_values {
    struct value args[CALL_ARGUMENTS_MAX];
    struct named_argument named[CALL_ARGUMENTS_MAX];
};

/* By position (name NULL) or by name. */
static bool add_argument(struct call_values *values, struct call *call, const char *name,
                         const struct value *value)
{
    if (call->n_args + call->n_named == CALL_ARGUMENTS_MAX)
        return run_type_error(call->run, call->at, "more than %d arguments", CALL_ARGUMENTS_MAX - 1);
    if (name == NULL)
        values->args[call->n_args++] = *value;
    else
        values->named[call->n_named++] = (struct named_argument){name, *value};
    return true;
}

/* *list */
static bool spread_list(struct call_values *values, struct call *call, const struct value *value)
{
    const struct list *list;
    if (!value_iterate(call->run, call->at, value, &list))
        return false;
    for (size_t i = 0; i < list->count; i++)
        if (!add_argument(values, call, NULL, &list->items[i]))
            return false;
    return true;
}

/* **dict */
static bool spread_dict(struct call_values *values, struct call *call, const struct value *value)
{
    struct run *run = call->run;
    if (value->kind != VALUE_DICT)
        return run_type_error(run, call->at, "** needs a dict, not %s", value_type_name(value));
    for (size_t i = 0; i < value->dict->count; i++) {
        const struct dict_entry *entry = &value->dict->entries[i];
        struct value name; /* NUL-terminated */
        if (entry->key.kind != VALUE_TEXT)
            return run_type_error(run, call->at, "** needs str as keys");
        if (!text_copy(run, call->at, entry->key.text->data, entry->key.text->size_bytes, &name))
            return false;
        const char *known = template_intern_find(&run->chat_template->names, name.text->data);
        if (!add_argument(values, call, known ? known : name.text->data, &entry->value))
            return false;
    }
    return true;
}

static bool eval_arguments(struct run *run, const struct node *node, struct call_values *values,
                           struct call *call)
{
    for (size_t i = 0; i < node->n_arguments; i++) {
        const struct node_argument *argument = &node->arguments[i];
        struct value value;
        if (!run_eval(run, argument->value, &value))
            return false;
        bool ok = argument->spread == 0     ? add_argument(values, call, argument->name, &value)
                  : argument->spread == '*' ? spread_list(values, call, &value)
                                            : spread_dict(values, call, &value);
        if (!ok)
            return false;
    }
    call->args = values->args;
    call->named = values->named;
    return true;
}

static bool eval_call(struct run *run, const struct node *node, struct value *out)
{
    struct value callee;
    struct call_values values;
    struct call call = {.run = run, .at = node};
    return run_eval(run, node->left, &callee) && eval_arguments(run, node, &values, &call) &&
           run_call_value(&call, &callee, out);
}

/* {% call f(x) %}: f gets the body as one more argument, "caller". */
static bool eval_call_text(struct run *run, const struct node *node, struct value *out)
{
    struct value callee, caller = {.kind = VALUE_MACRO};
    struct call_values values;
    struct call call = {.run = run, .at = node->left};
    struct macro *macro = run_alloc(run, node, sizeof *macro);
    if (macro == NULL)
        return false;
    *macro = (struct macro){node, run->scope};
    caller.macro = macro;
    return run_eval(run, node->left->left, &callee) && eval_arguments(run, node->left, &values, &call) &&
           add_argument(&values, &call, node->name, &caller) && run_call_value(&call, &callee, out);
}

/* A filter's result, or a test's answer, for `input`. */
static bool apply_builtin(struct run *run, const struct node *node, const struct value *input,
                          struct value *out)
{
    struct call_values values;
    struct call call = {.run = run, .at = node, .n_args = 1};
    values.args[0] = *input;
    if (!eval_arguments(run, node, &values, &call) || !node->builtin->function(&call, out))
        return false;
    if (node->kind == NODE_TEST)
        *out = value_bool(value_truth(out) != node->negated);
    return true;
}

static bool eval_filter_or_test(struct run *run, const struct node *node, struct value *out)
{
    struct value input;
    return run_eval(run, node->left, &input) && apply_builtin(run, node, &input, out);
}

static bool eval_inside(struct run *run, const struct node *node, struct value *out)
{
    struct value value;
    switch (node->kind) {
    case NODE_CONSTANT:
        *out = node->constant;
        return true;
    case NODE_NAME:
        return eval_name(run, node, out);
    case NODE_LIST:
    case NODE_TUPLE:
        return eval_items(run, node, out);
    case NODE_DICT:
        return eval_dict(run, node, out);
    case NODE_NEGATE:
        return run_eval(run, node->left, &value) && value_negate(run, node, &value, out);
    case NODE_POSITIVE:
        if (!run_eval(run, node->left, out))
            return false;
        return value_is_number(out) || run_type_error(run, node, "%s has no +", value_type_name(out));
    case NODE_NOT:
        if (!run_eval(run, node->left, &value))
            return false;
        *out = value_bool(!value_truth(&value));
        return true;
    case NODE_CHAIN:
        return eval_chain(run, node, out);
    case NODE_LOGIC:
        return eval_logic(run, node, out);
    case NODE_COMPARE:
        return eval_compare(run, node, out);
    case NODE_CONDITION:
        return eval_condition(run, node, out);
    case NODE_ATTRIBUTE:
        return run_eval(run, node->left, &value) && value_attribute(run, node, &value, node->name, out);
    case NODE_SUBSCRIPT:
        return eval_subscript(run, node, out);
    case NODE_SLICE:
        return eval_slice(run, node, out);
    case NODE_CALL:
        return eval_call(run, node, out);
    case NODE_FILTER:
    case NODE_TEST:
        return eval_filter_or_test(run, node, out);
    default:
        return run_fail(run, ERR_INTERNAL, node, "a statement where an expression is expected");
    }
}

bool run_eval(struct run *run, const struct node *node, struct value *out)
{
    if (!run_charge(run, node, 1) || !run_enter(run, node))
        return false;
    bool ok = eval_inside(run, node, out);
    run_leave(run);
    return ok;
}

/* A text is collected from what `body` writes, in a scope of its own. */
static bool collect(struct run *run, const struct node *at, const struct node *body, struct scope *scope,
                    struct value *out)
{
    struct sink sink = {.text = {0}};
    struct sink *outer_sink = run->sink;
    struct scope *outer_scope = run->scope;
    enum flow flow = FLOW_ON;
    run->sink = &sink;
    run->scope = scope;
    bool ok = exec(run, body, &flow);
    run->sink = outer_sink;
    run->scope = outer_scope;
    if (ok)
        return sink_take(run, at, &sink, out);
    sink_free(&sink);
    return false;
}

static const struct value *named_value(const struct call *call, const char *name)
{
    for (size_t i = 0; i < call->n_named; i++)
        if (call->named[i].name == name)
            return &call->named[i].value;
    return NULL;
}

static bool call_macro(const struct call *call, const struct macro *macro, struct value *out)
{
    struct run *run = call->run;
    const struct node *node = macro->node;
    struct scope *scope = scope_new(run, call->at, macro->scope);
    if (scope == NULL)
        return false;
    if (call->n_args > node->n_arguments)
        return run_type_error(run, call->at, "macro %s takes %zu arguments, not %zu", node->name,
                              node->n_arguments, call->n_args);
    size_t used = 0;
    struct scope *outer = run->scope;
    for (size_t i = 0; i < node->n_arguments; i++) {
        const struct node_argument *parameter = &node->arguments[i];
        const struct value *by_name = named_value(call, parameter->name);
        struct value value = value_undefined(parameter->name);
        used += by_name != NULL;
        if (i < call->n_args) {
            value = call->args[i];
        } else if (by_name != NULL) {
            value = *by_name;
        } else if (parameter->value != NULL) {
            run->scope = scope; /* a default may use the parameters in front of it */
            bool ok = run_eval(run, parameter->value, &value);
            run->scope = outer;
            if (!ok)
                return false;
        }
        if (!scope_set(run, call->at, scope, parameter->name, &value))
            return false;
    }
    const char *caller_name = template_intern_find(&run->chat_template->names, "caller");
    const struct value *caller = caller_name ? named_value(call, caller_name) : NULL;
    if (caller != NULL && used < call->n_named) { /* not a parameter: from {% call %} */
        used++;
        if (!scope_set(run, call->at, scope, caller_name, caller))
            return false;
    }
    if (used != call->n_named)
        return run_type_error(run, call->at, "macro %s has no argument of that name", node->name);
    return collect(run, call->at, node->body, scope, out);
}

static bool call_method(const struct call *call, const struct method *method, struct value *out)
{
    struct value args[CALL_ARGUMENTS_MAX + 1];
    struct call bound = *call;
    args[0] = method->self;
    for (size_t i = 0; i < call->n_args; i++)
        args[i + 1] = call->args[i];
    bound.args = args;
    bound.n_args = call->n_args + 1;
    return method->function->function(&bound, out);
}

bool run_call_value(const struct call *call, const struct value *callee, struct value *out)
{
    switch (callee->kind) {
    case VALUE_FUNCTION:
        return callee->function->function(call, out);
    case VALUE_METHOD:
        return call_method(call, callee->method, out);
    case VALUE_MACRO:
        return call_macro(call, callee->macro, out);
    case VALUE_UNDEFINED:
        return run_type_error(call->run, call->at, "\"%s\" is undefined and cannot be called",
                              callee->undefined_name ? callee->undefined_name : "the value");
    default:
        return run_type_error(call->run, call->at, "%s cannot be called", value_type_name(callee));
    }
}

/* Gives a value to a name, to names of a tuple, or to an attribute of a namespace. */
static bool assign(struct run *run, const struct node *target, const struct value *value)
{
    if (target->kind == NODE_NAME)
        return scope_set(run, target, run->scope, target->name, value);
    if (target->kind == NODE_ATTRIBUTE) {
        struct value object, key;
        if (!run_eval(run, target->left, &object))
            return false;
        if (object.kind != VALUE_NAMESPACE)
            return run_type_error(run, target, "{%% set %%} can change attributes of a namespace, not of %s",
                                  value_type_name(&object));
        return text_copy(run, target, target->name, strlen(target->name), &key) &&
               dict_set(run, target, object.dict, &key, value);
    }
    const struct list *list;
    if (!value_iterate(run, target, value, &list))
        return false;
    if (list->count != target->n_items)
        return run_type_error(run, target, "%zu values for %zu names", list->count, target->n_items);
    for (size_t i = 0; i < list->count; i++)
        if (!assign(run, target->items[i], &list->items[i]))
            return false;
    return true;
}

static bool exec_if(struct run *run, const struct node *node, enum flow *flow)
{
    for (size_t i = 0; i + 1 < node->n_items; i += 2) {
        struct value test;
        if (!run_eval(run, node->items[i], &test))
            return false;
        if (value_truth(&test))
            return exec(run, node->items[i + 1], flow);
    }
    bool has_else = node->n_items % 2 == 1;
    return !has_else || exec(run, node->items[node->n_items - 1], flow);
}

/* The items for which `if` holds; the loop counts only these. */
static bool filter_items(struct run *run, const struct node *node, const struct list **items)
{
    struct value *kept, made, test;
    if (!list_new(run, node, (*items)->count, VALUE_LIST, &kept, &made))
        return false;
    size_t n = 0;
    for (size_t i = 0; i < (*items)->count; i++) {
        if (!assign(run, node->left, &(*items)->items[i]) || !run_eval(run, node->test, &test))
            return false;
        if (value_truth(&test))
            kept[n++] = (*items)->items[i];
    }
    struct list *list = (struct list *)made.list;
    list->count = n;
    *items = list;
    return true;
}

static bool exec_iterations(struct run *run, const struct node *node, const struct list *items,
                            struct loop *loop)
{
    const char *loop_name =
        template_intern_find(&run->chat_template->names, "loop"); /* NULL: the template never asks */
    struct value loop_value = {.kind = VALUE_LOOP, .loop = loop};
    for (size_t i = 0; i < items->count; i++) {
        enum flow flow = FLOW_ON;
        loop->index0 = i;
        run->scope->count = 0; /* every iteration starts without the names of the last */
        if (!run_charge(run, node, 1) ||
            (loop_name != NULL && !scope_set(run, node, run->scope, loop_name, &loop_value)) ||
            !assign(run, node->left, &items->items[i]) || !exec(run, node->body, &flow))
            return false;
        if (flow == FLOW_BREAK)
            break;
    }
    return true;
}

static bool exec_for(struct run *run, const struct node *node, enum flow *flow)
{
    struct value iterated;
    const struct list *items;
    if (!run_eval(run, node->right, &iterated) || !value_iterate(run, node->right, &iterated, &items))
        return false;
    struct scope *outer = run->scope;
    struct loop *loop = run_alloc(run, node, sizeof *loop);
    struct scope *scope = scope_new(run, node, outer);
    if (loop == NULL || scope == NULL)
        return false;
    run->scope = scope;
    run->loop_depth++;
    bool ok = node->test == NULL || filter_items(run, node, &items);
    *loop = (struct loop){items, 0, run->loop_depth};
    ok = ok && exec_iterations(run, node, items, loop);
    run->loop_depth--;
    run->scope = outer;
    if (ok && items->count == 0 && node->otherwise != NULL)
        return exec(run, node->otherwise, flow);
    return ok;
}

static bool apply_filters(struct run *run, const struct node *filter, const struct value *input,
                          struct value *out)
{
    struct value value = *input;
    if (filter->left != NULL && !apply_filters(run, filter->left, input, &value))
        return false;
    return apply_builtin(run, filter, &value, out);
}

/* {% set x | filter %} .. and {% filter f %} ..: the body's text, filtered. */
static bool collect_filtered(struct run *run, const struct node *node, const struct node *filter,
                             struct value *out)
{
    struct scope *scope = scope_new(run, node, run->scope);
    struct value text;
    if (scope == NULL || !collect(run, node, node->body, scope, &text))
        return false;
    *out = text;
    return filter == NULL || apply_filters(run, filter, &text, out);
}

static bool put_value(struct run *run, const struct node *node, const struct value *value)
{
    const struct text *text;
    return value_to_text(run, node, value, &text) && sink_put(run, node, run->sink, text);
}

static bool exec_macro(struct run *run, const struct node *node)
{
    struct macro *macro = run_alloc(run, node, sizeof *macro);
    if (macro == NULL)
        return false;
    *macro = (struct macro){node, run->scope};
    struct value value = {.kind = VALUE_MACRO, .macro = macro};
    return scope_set(run, node, run->scope, node->name, &value);
}

static bool exec_body(struct run *run, const struct node *node, enum flow *flow)
{
    for (size_t i = 0; i < node->n_items && *flow == FLOW_ON; i++)
        if (!exec(run, node->items[i], flow))
            return false;
    return true;
}

static bool exec_inside(struct run *run, const struct node *node, enum flow *flow)
{
    struct value value;
    switch (node->kind) {
    case NODE_BODY:
        return exec_body(run, node, flow);
    case NODE_TEXT:
        return sink_put(run, node, run->sink, node->constant.text);
    case NODE_OUTPUT:
        return run_eval(run, node->left, &value) && put_value(run, node, &value);
    case NODE_IF:
        return exec_if(run, node, flow);
    case NODE_FOR:
        return exec_for(run, node, flow);
    case NODE_SET:
        return run_eval(run, node->right, &value) && assign(run, node->left, &value);
    case NODE_SET_TEXT:
        return collect_filtered(run, node, node->right, &value) && assign(run, node->left, &value);
    case NODE_FILTER_TEXT:
        return collect_filtered(run, node, node->left, &value) && put_value(run, node, &value);
    case NODE_CALL_TEXT:
        return eval_call_text(run, node, &value) && put_value(run, node, &value);
    case NODE_MACRO:
        return exec_macro(run, node);
    case NODE_BREAK:
        *flow = FLOW_BREAK;
        return true;
    case NODE_CONTINUE:
        *flow = FLOW_CONTINUE;
        return true;
    default:
        return run_fail(run, ERR_INTERNAL, node, "an expression where a statement is expected");
    }
}

static bool exec(struct run *run, const struct node *node, enum flow *flow)
{
    if (!run_charge(run, node, 1) || !run_enter(run, node))
        return false;
    bool ok = exec_inside(run, node, flow);
    run_leave(run);
    return ok;
}

bool run_bind(struct run *run, const char *name, const struct value *value)
{
    const char *interned = template_intern_find(&run->chat_template->names, name);
    return interned == NULL || scope_set(run, NULL, run->scope, interned, value);
}

bool run_template(struct run *run)
{
    enum flow flow = FLOW_ON;
    return exec(run, run->chat_template->body, &flow);
}
