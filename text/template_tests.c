/* What may stand behind "is". */
#include <string.h>

#include "text/template_arithmetic.h"
#include "text/template_run.h"

static bool answer(const struct call *call, bool holds, struct value *out)
{
    *out = value_bool(holds);
    return call_check(call, 1, 1, NULL);
}

static enum value_kind kind_of(const struct call *call)
{
    return call->args[0].kind;
}

static bool test_defined(const struct call *call, struct value *out)
{
    return answer(call, kind_of(call) != VALUE_UNDEFINED, out);
}

static bool test_undefined(const struct call *call, struct value *out)
{
    return answer(call, kind_of(call) == VALUE_UNDEFINED, out);
}

static bool test_none(const struct call *call, struct value *out)
{
    return answer(call, kind_of(call) == VALUE_NONE, out);
}

static bool test_boolean(const struct call *call, struct value *out)
{
    return answer(call, kind_of(call) == VALUE_BOOL, out);
}

static bool test_true(const struct call *call, struct value *out)
{
    return answer(call, kind_of(call) == VALUE_BOOL && call->args[0].boolean, out);
}

static bool test_false(const struct call *call, struct value *out)
{
    return answer(call, kind_of(call) == VALUE_BOOL && !call->args[0].boolean, out);
}

static bool test_string(const struct call *call, struct value *out)
{
    return answer(call, kind_of(call) == VALUE_TEXT, out);
}

static bool test_number(const struct call *call, struct value *out)
{
    return answer(call, value_is_number(&call->args[0]), out);
}

static bool test_integer(const struct call *call, struct value *out)
{
    return answer(call, kind_of(call) == VALUE_INT, out);
}

static bool test_float(const struct call *call, struct value *out)
{
    return answer(call, kind_of(call) == VALUE_FLOAT, out);
}

static bool test_mapping(const struct call *call, struct value *out)
{
    return answer(call, kind_of(call) == VALUE_DICT, out);
}

static bool is_sequence(enum value_kind kind)
{
    return kind == VALUE_TEXT || kind == VALUE_LIST || kind == VALUE_TUPLE || kind == VALUE_DICT ||
           kind == VALUE_UNDEFINED;
}

static bool test_sequence(const struct call *call, struct value *out)
{
    return answer(call, is_sequence(kind_of(call)), out);
}

static bool test_callable(const struct call *call, struct value *out)
{
    enum value_kind kind = kind_of(call);
    return answer(call, kind == VALUE_MACRO || kind == VALUE_FUNCTION || kind == VALUE_METHOD, out);
}

static bool remainder_is(const struct call *call, int64_t divisor, int64_t remainder, struct value *out)
{
    struct value by = value_int(divisor), rest;
    if (!value_arithmetic(call->run, call->at, '%', &call->args[0], &by, &rest))
        return false;
    *out = value_bool(value_as_double(&rest) == (double)remainder);
    return true;
}

static bool test_even(const struct call *call, struct value *out)
{
    return call_check(call, 1, 1, NULL) && remainder_is(call, 2, 0, out);
}

static bool test_odd(const struct call *call, struct value *out)
{
    return call_check(call, 1, 1, NULL) && remainder_is(call, 2, 1, out);
}

static bool test_divisibleby(const struct call *call, struct value *out)
{
    if (!call_check(call, 2, 2, NULL))
        return false;
    if (call->args[1].kind != VALUE_INT)
        return run_type_error(call->run, call->at, "divisibleby needs an int, not %s",
                              value_type_name(&call->args[1]));
    return remainder_is(call, call->args[1].integer, 0, out);
}

static bool test_in(const struct call *call, struct value *out)
{
    bool holds;
    if (!call_check(call, 2, 2, NULL) ||
        !value_contains(call->run, call->at, &call->args[1], &call->args[0], &holds))
        return false;
    *out = value_bool(holds);
    return true;
}

static bool test_equal(const struct call *call, struct value *out)
{
    bool holds;
    if (!call_check(call, 2, 2, NULL) ||
        !value_equal(call->run, call->at, &call->args[0], &call->args[1], &holds))
        return false;
    *out = value_bool(holds);
    return true;
}

static bool test_not_equal(const struct call *call, struct value *out)
{
    if (!test_equal(call, out))
        return false;
    out->boolean = !out->boolean;
    return true;
}

static bool ordered(const struct call *call, bool less, bool equal, struct value *out)
{
    int order;
    if (!call_check(call, 2, 2, NULL) ||
        !value_order(call->run, call->at, &call->args[0], &call->args[1], &order))
        return false;
    *out = value_bool(order == 0 ? equal : (order < 0) == less);
    return true;
}

static bool test_less(const struct call *call, struct value *out)
{
    return ordered(call, true, false, out);
}

static bool test_less_or_equal(const struct call *call, struct value *out)
{
    return ordered(call, true, true, out);
}

static bool test_greater(const struct call *call, struct value *out)
{
    return ordered(call, false, false, out);
}

static bool test_greater_or_equal(const struct call *call, struct value *out)
{
    return ordered(call, false, true, out);
}

static bool same_as_changed(const struct call *call, char from, char to, struct value *out)
{
    const struct text *text = call->args[0].kind == VALUE_TEXT ? call->args[0].text : NULL;
    bool holds = text != NULL;
    bool any = false;
    for (size_t i = 0; holds && i < text->size_bytes; i++) {
        holds = text->data[i] < from || text->data[i] > to;
        any |= (text->data[i] | 0x20) >= 'a' && (text->data[i] | 0x20) <= 'z';
    }
    return answer(call, holds && any, out);
}

static bool test_upper(const struct call *call, struct value *out)
{
    return same_as_changed(call, 'a', 'z', out);
}

static bool test_lower(const struct call *call, struct value *out)
{
    return same_as_changed(call, 'A', 'Z', out);
}

static const struct builtin TESTS[] = {
    {"defined", test_defined},
    {"undefined", test_undefined},
    {"none", test_none},
    {"boolean", test_boolean},
    {"true", test_true},
    {"false", test_false},
    {"string", test_string},
    {"number", test_number},
    {"integer", test_integer},
    {"float", test_float},
    {"mapping", test_mapping},
    {"sequence", test_sequence},
    {"iterable", test_sequence},
    {"callable", test_callable},
    {"even", test_even},
    {"odd", test_odd},
    {"divisibleby", test_divisibleby},
    {"in", test_in},
    {"equalto", test_equal},
    {"eq", test_equal},
    {"sameas", test_equal},
    {"ne", test_not_equal},
    {"lt", test_less},
    {"lessthan", test_less},
    {"le", test_less_or_equal},
    {"gt", test_greater},
    {"greaterthan", test_greater},
    {"ge", test_greater_or_equal},
    {"upper", test_upper},
    {"lower", test_lower},
};

const struct builtin *template_test_find(const char *name)
{
    for (size_t i = 0; i < sizeof TESTS / sizeof TESTS[0]; i++)
        if (strcmp(TESTS[i].name, name) == 0)
            return &TESTS[i];
    return NULL;
}
