#include "text/template_arithmetic.h"

#include <math.h>
#include <string.h>
#include "base/checked.h"

static int64_t as_int(const struct value *value)
{
    return value->kind == VALUE_BOOL ? value->boolean : value->integer;
}

static struct value from_double(double number)
{
    return (struct value){.kind = VALUE_FLOAT, .number = number};
}

static bool integer_power(int64_t base, int64_t exponent, int64_t *out)
{
    *out = 1;
    while (exponent > 0) {
        if ((exponent & 1) && __builtin_mul_overflow(*out, base, out))
            return false;
        exponent >>= 1;
        if (exponent > 0 && __builtin_mul_overflow(base, base, &base))
            return false;
    }
    return true;
}

/* Rounds to minus infinity, as // does; b != 0. */
static int64_t floor_divide(int64_t a, int64_t b)
{
    return a / b - ((a % b != 0) && ((a < 0) != (b < 0)));
}

static bool of_integers(struct run *run, const struct node *at, int op, int64_t a, int64_t b,
                        struct value *out)
{
    int64_t result = 0;
    bool fits = true;
    switch (op) {
    case '+':
        fits = !__builtin_add_overflow(a, b, &result);
        break;
    case '-':
        fits = !__builtin_sub_overflow(a, b, &result);
        break;
    case '*':
        fits = !__builtin_mul_overflow(a, b, &result);
        break;
    case OP_FLOOR_DIVIDE:
        fits = a != INT64_MIN || b != -1;
        result = fits ? floor_divide(a, b) : 0;
        break;
    case '%':
        result = b == -1 ? 0 : a % b;
        result += result != 0 && (result < 0) != (b < 0) ? b : 0;
        break;
    default: /* OP_POWER, b >= 0 */
        fits = integer_power(a, b, &result);
        break;
    }
    *out = value_int(result);
    return fits || run_type_error(run, at, "a whole number past 64 bits");
}

static bool of_numbers(struct run *run, const struct node *at, int op, const struct value *a,
                       const struct value *b, struct value *out)
{
    bool divides = op == '/' || op == OP_FLOOR_DIVIDE || op == '%';
    double x = value_as_double(a), y = value_as_double(b);
    if (divides && y == 0.0)
        return run_type_error(run, at, "division by zero");
    bool integers = a->kind != VALUE_FLOAT && b->kind != VALUE_FLOAT;
    if (integers && op != '/' && !(op == OP_POWER && as_int(b) < 0))
        return of_integers(run, at, op, as_int(a), as_int(b), out);
    switch (op) {
    case '+':
        *out = from_double(x + y);
        return true;
    case '-':
        *out = from_double(x - y);
        return true;
    case '*':
        *out = from_double(x * y);
        return true;
    case '/':
        *out = from_double(x / y);
        return true;
    case OP_FLOOR_DIVIDE:
        *out = from_double(floor(x / y));
        return true;
    case '%':
        *out = from_double(x - floor(x / y) * y);
        return true;
    default:
        *out = from_double(pow(x, y));
        return true;
    }
}

static bool join_lists(struct run *run, const struct node *at, const struct value *a, const struct value *b,
                       struct value *out)
{
    struct value *items;
    if (!list_new(run, at, a->list->count + b->list->count, a->kind, &items, out))
        return false;
    for (size_t i = 0; i < a->list->count; i++)
        *items++ = a->list->items[i];
    for (size_t i = 0; i < b->list->count; i++)
        *items++ = b->list->items[i];
    return true;
}

static bool repeat_text(struct run *run, const struct node *at, const struct text *text, size_t times,
                        struct value *out)
{
    size_t size_bytes;
    char *data;
    uint8_t *marks;
    if (!checked_mul(text->size_bytes, times, &size_bytes))
        size_bytes = SIZE_MAX;
    if (!text_new(run, at, size_bytes, text->marks != NULL, &data, &marks, out))
        return false;
    for (size_t i = 0; i < size_bytes; i += text->size_bytes) {
        memcpy(data + i, text->data, text->size_bytes);
        if (marks != NULL)
            memcpy(marks + i, text->marks, text->size_bytes);
    }
    return true;
}

static bool repeat_list(struct run *run, const struct node *at, const struct value *list, size_t times,
                        struct value *out)
{
    size_t count;
    struct value *items;
    if (!checked_mul(list->list->count, times, &count) || count > TEMPLATE_STEPS_MAX)
        return run_fail(run, ERR_RESOURCE_EXHAUSTED, at, "a list of more than %d items", TEMPLATE_STEPS_MAX);
    if (!list_new(run, at, count, list->kind, &items, out))
        return false;
    for (size_t i = 0; i < count; i++)
        items[i] = list->list->items[i % list->list->count];
    return true;
}

static bool is_list(const struct value *value)
{
    return value->kind == VALUE_LIST || value->kind == VALUE_TUPLE;
}

static bool is_integer(const struct value *value)
{
    return value->kind == VALUE_INT || value->kind == VALUE_BOOL;
}

static bool repeat(struct run *run, const struct node *at, const struct value *what, int64_t times,
                   struct value *out)
{
    size_t n = times > 0 ? (size_t)times : 0;
    return what->kind == VALUE_TEXT ? repeat_text(run, at, what->text, n, out)
                                    : repeat_list(run, at, what, n, out);
}

static bool concatenate(struct run *run, const struct node *at, const struct value *a, const struct value *b,
                        struct value *out)
{
    const struct text *x, *y;
    return value_to_text(run, at, a, &x) && value_to_text(run, at, b, &y) && text_join(run, at, x, y, out);
}

bool value_arithmetic(struct run *run, const struct node *at, int op, const struct value *a,
                      const struct value *b, struct value *out)
{
    if (op == '~')
        return concatenate(run, at, a, b, out);
    if (value_is_number(a) && value_is_number(b))
        return of_numbers(run, at, op, a, b, out);
    if (op == '+' && a->kind == VALUE_TEXT && b->kind == VALUE_TEXT)
        return text_join(run, at, a->text, b->text, out);
    if (op == '+' && is_list(a) && a->kind == b->kind)
        return join_lists(run, at, a, b, out);
    if (op == '*' && (a->kind == VALUE_TEXT || is_list(a)) && is_integer(b))
        return repeat(run, at, a, as_int(b), out);
    if (op == '*' && is_integer(a) && (b->kind == VALUE_TEXT || is_list(b)))
        return repeat(run, at, b, as_int(a), out);
    if (op == '%' && a->kind == VALUE_TEXT)
        return run_fail(run, ERR_UNIMPLEMENTED, at, "not supported: %% with a text on its left");
    const struct value *undefined = a->kind == VALUE_UNDEFINED ? a : b->kind == VALUE_UNDEFINED ? b : NULL;
    if (undefined != NULL && undefined->undefined_name != NULL)
        return run_type_error(run, at, "\"%s\" is undefined", undefined->undefined_name);
    const char *sign = op == OP_FLOOR_DIVIDE ? "//" : op == OP_POWER ? "**" : NULL;
    const char plain[2] = {(char)op, '\0'};
    return run_type_error(run, at, "%s and %s have no %s", value_type_name(a), value_type_name(b),
                          sign ? sign : plain);
}

bool value_negate(struct run *run, const struct node *at, const struct value *a, struct value *out)
{
    struct value zero = value_int(0);
    if (!value_is_number(a))
        return run_type_error(run, at, "%s has no -", value_type_name(a));
    if (a->kind == VALUE_FLOAT) {
        *out = from_double(-a->number);
        return true;
    }
    return of_numbers(run, at, '-', &zero, a, out);
}
