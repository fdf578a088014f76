#include "router/gate/eval_check.h"

#include <ctype.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include "base/alloc.h"
#include "router/providers/json_text.h"

enum { NUMBER_BYTES_MAX = 64, JSON_NESTING_MAX = 64 /* of values that are compared; deeper ones differ */ };

const char *const EVAL_CHECK_NAMES[EVAL_CHECKS + 1] = {"none",   "exact", "normalised", "contains",
                                                       "number", "json",  "label",      NULL};

static bool is_blank(char c)
{
    return c == ' ' || (c >= '\t' && c <= '\r');
}

static void trim(const char **text, size_t *bytes)
{
    while (*bytes > 0 && is_blank((*text)[*bytes - 1]))
        (*bytes)--;
    while (*bytes > 0 && is_blank(**text)) {
        (*text)++;
        (*bytes)--;
    }
}

static bool is_wrapping(char c)
{
    return c == '"' || c == '\'' || c == '`' || c == '.' || c == '!' || is_blank(c);
}

/* Lower case, one blank for many, nothing around it. The caller's; NULL without memory. */
static char *normalise(const char *text, size_t bytes)
{
    while (bytes > 0 && is_wrapping(text[bytes - 1]))
        bytes--;
    while (bytes > 0 && is_wrapping(*text)) {
        text++;
        bytes--;
    }
    char *out = mem_alloc(bytes + 1);
    size_t n = 0;
    for (size_t i = 0; out != NULL && i < bytes; i++) {
        if (!is_blank(text[i]))
            out[n++] = (char)tolower((unsigned char)text[i]);
        else if (n > 0 && out[n - 1] != ' ')
            out[n++] = ' ';
    }
    return out;
}

static double score_exact(const struct eval_check *check, const char *answer, size_t bytes)
{
    const char *expected = check->expected;
    size_t expected_bytes = check->expected_bytes;
    trim(&expected, &expected_bytes);
    trim(&answer, &bytes);
    return bytes == expected_bytes && memcmp(answer, expected, bytes) == 0;
}

static double score_normalised(const struct eval_check *check, const char *answer, size_t bytes)
{
    char *expected = normalise(check->expected, check->expected_bytes), *got = normalise(answer, bytes);
    bool is_right = false;
    if (expected != NULL && got != NULL)
        is_right = check->kind == CHECK_CONTAINS ? strstr(got, expected) != NULL : strcmp(got, expected) == 0;
    mem_free(expected);
    mem_free(got);
    return is_right;
}

static bool is_digit(char c)
{
    return c >= '0' && c <= '9';
}

/* Length of the number that begins at text, a digit: 12, 1,234, 0.5, 2e6. Its digits go to number. */
static size_t take_number(const char *text, size_t bytes, char number[NUMBER_BYTES_MAX], size_t *n)
{
    size_t i = 0;
    bool has_point = false, has_exponent = false;
    for (; i < bytes && *n + 2 < NUMBER_BYTES_MAX; i++) {
        bool digit_follows = i + 1 < bytes && is_digit(text[i + 1]);
        bool sign_follows =
            i + 2 < bytes && (text[i + 1] == '-' || text[i + 1] == '+') && is_digit(text[i + 2]);
        if (text[i] == ',' && digit_follows && !has_point && !has_exponent)
            continue;
        if (text[i] == '.' && digit_follows && !has_point && !has_exponent) {
            has_point = true;
        } else if ((text[i] == 'e' || text[i] == 'E') && (digit_follows || sign_follows) && !has_exponent) {
            has_exponent = true;
            number[(*n)++] = 'e';
            if (sign_follows)
                number[(*n)++] = text[++i];
            continue;
        } else if (!is_digit(text[i])) {
            break;
        }
        number[(*n)++] = text[i];
    }
    return i;
}

bool eval_last_number(const char *text, size_t text_bytes, double *out)
{
    bool found = false;
    for (size_t i = 0; i < text_bytes;) {
        if (!is_digit(text[i])) {
            i++;
            continue;
        }
        char number[NUMBER_BYTES_MAX] = "";
        size_t n = 0;
        bool is_word_before = i >= 2 && (isalnum((unsigned char)text[i - 2]) || text[i - 2] == ')');
        if (i >= 1 && text[i - 1] == '-' && !is_word_before)
            number[n++] = '-';
        i += take_number(text + i, text_bytes - i, number, &n);
        number[n] = '\0';
        *out = strtod(number, NULL);
        found = isfinite(*out);
        while (i < text_bytes && is_digit(text[i])) /* more digits than a number has */
            i++;
    }
    return found;
}

static double score_number(const struct eval_check *check, const char *answer, size_t bytes)
{
    double expected, got;
    if (!eval_last_number(check->expected, check->expected_bytes, &expected) ||
        !eval_last_number(answer, bytes, &got))
        return 0;
    return fabs(got - expected) <= check->tolerance * fabs(expected);
}

static json_t *load(const char *text, size_t bytes)
{
    return bytes == 0 ? NULL : json_loadb(text, bytes, JSON_DECODE_ANY | JSON_ALLOW_NUL, NULL);
}

json_t *eval_find_json(const char *text, size_t text_bytes)
{
    trim(&text, &text_bytes);
    json_t *value = load(text, text_bytes);
    if (value != NULL)
        return value;
    const char *fence = memmem(text, text_bytes, "```", 3);
    if (fence != NULL) {
        const char *end_of_text = text + text_bytes,
                   *line = memchr(fence, '\n', (size_t)(end_of_text - fence));
        const char *end = line ? memmem(line, (size_t)(end_of_text - line), "```", 3) : NULL;
        value = end != NULL ? load(line, (size_t)(end - line)) : NULL;
        if (value != NULL)
            return value;
    }
    const char *open = memchr(text, '{', text_bytes), *close = memrchr(text, '}', text_bytes);
    return open != NULL && close > open ? load(open, (size_t)(close - open) + 1) : NULL;
}

static bool same_value(const json_t *a, const json_t *b, int depth);

static bool same_object(const json_t *a, const json_t *b, int depth)
{
    if (json_object_size(a) != json_object_size(b))
        return false;
    const char *key;
    json_t *value;
    json_object_foreach((json_t *)a, key, value) /* jansson's iterators take no const */
    {
        if (!same_value(value, json_object_get(b, key), depth + 1))
            return false;
    }
    return true;
}

/* 3 and 3.0 are the same number. */
static bool same_value(const json_t *a, const json_t *b, int depth)
{
    if (a == NULL || b == NULL || depth > JSON_NESTING_MAX)
        return false;
    if (json_is_number(a) && json_is_number(b))
        return json_is_integer(a) && json_is_integer(b) ? json_integer_value(a) == json_integer_value(b)
                                                        : json_number_value(a) == json_number_value(b);
    if (json_is_object(a) && json_is_object(b))
        return same_object(a, b, depth);
    if (!json_is_array(a) || !json_is_array(b))
        return json_equal(a, b);
    if (json_array_size(a) != json_array_size(b))
        return false;
    for (size_t i = 0; i < json_array_size(a); i++)
        if (!same_value(json_array_get(a, i), json_array_get(b, i), depth + 1))
            return false;
    return true;
}

static double share_of_fields(const json_t *expected, const json_t *got, const json_t *fields)
{
    size_t n = 0, n_same = 0;
    for (size_t i = 0; i < json_array_size(fields); i++) {
        const char *key = json_string_value(json_array_get(fields, i));
        n++;
        n_same += same_value(json_object_get(expected, key), json_object_get(got, key), 0);
    }
    if (fields == NULL) {
        const char *key;
        json_t *value;
        json_object_foreach((json_t *)expected, key, value)
        {
            n++;
            n_same += same_value(value, json_object_get(got, key), 0);
        }
        json_object_foreach((json_t *)got, key, value) n += json_object_get(expected, key) == NULL;
    }
    return n == 0 ? 1 : (double)n_same / (double)n;
}

static double score_json(const struct eval_check *check, const char *answer, size_t bytes)
{
    json_t *expected = eval_find_json(check->expected, check->expected_bytes);
    json_t *got = eval_find_json(answer, bytes);
    double score = 0;
    if (json_is_object(expected) && json_is_object(got))
        score = share_of_fields(expected, got, check->fields);
    else if (expected != NULL && got != NULL)
        score = same_value(expected, got, 0);
    json_decref(expected);
    json_decref(got);
    return score;
}

static bool is_word_byte(char c)
{
    return isalnum((unsigned char)c) || c == '_' || (unsigned char)c >= 0x80;
}

/* Where the label stands as a word of its own; SIZE_MAX = nowhere. Both are normalised. */
static size_t place_of(const char *answer, const char *label)
{
    size_t bytes = strlen(label);
    for (const char *at = answer; bytes > 0 && (at = strstr(at, label)) != NULL; at++)
        if ((at == answer || !is_word_byte(at[-1])) && !is_word_byte(at[bytes]))
            return (size_t)(at - answer);
    return SIZE_MAX;
}

static double score_label(const struct eval_check *check, const char *answer, size_t bytes)
{
    char *got = normalise(answer, bytes), *expected = normalise(check->expected, check->expected_bytes);
    size_t place = got && expected ? place_of(got, expected) : SIZE_MAX;
    bool is_right = check->labels ? place != SIZE_MAX : place == 0;
    for (size_t i = 0; is_right && i < json_array_size(check->labels); i++) {
        const json_t *label = json_array_get(check->labels, i);
        char *other = normalise(json_string_value(label), json_string_length(label));
        size_t other_place = other != NULL ? place_of(got, other) : SIZE_MAX;
        is_right = other_place > place ||
                   (other_place == place && strlen(other) <= strlen(expected)); /* "not good" before "not" */
        mem_free(other);
    }
    mem_free(got);
    mem_free(expected);
    return is_right;
}

double eval_check_score(const struct eval_check *check, const char *answer, size_t answer_bytes)
{
    if (answer_bytes > EVAL_CHECK_TEXT_MAX)
        answer_bytes = EVAL_CHECK_TEXT_MAX;
    switch (check->kind) {
    case CHECK_EXACT:
        return score_exact(check, answer, answer_bytes);
    case CHECK_NORMALISED:
    case CHECK_CONTAINS:
        return score_normalised(check, answer, answer_bytes);
    case CHECK_NUMBER:
        return score_number(check, answer, answer_bytes);
    case CHECK_JSON:
        return score_json(check, answer, answer_bytes);
    case CHECK_LABEL:
        return score_label(check, answer, answer_bytes);
    default:
        return 0;
    }
}

static err_t check_texts(const json_t *list, const char *what)
{
    if (list == NULL)
        return err_ok();
    if (!json_is_array(list) || json_array_size(list) == 0)
        return err_new(ERR_INVALID_ARGUMENT, "%s must be a list of strings", what);
    for (size_t i = 0; i < json_array_size(list); i++)
        if (!json_is_string(json_array_get(list, i)) || json_string_length(json_array_get(list, i)) == 0)
            return err_new(ERR_INVALID_ARGUMENT, "%s[%zu] must be a string that is not empty", what, i);
    return err_ok();
}

err_t eval_check_validate(const struct eval_check *check)
{
    double number;
    TRY(check_texts(check->fields, "fields"));
    TRY(check_texts(check->labels, "labels"));
    if (check->kind == CHECK_NUMBER && !eval_last_number(check->expected, check->expected_bytes, &number))
        return err_new(ERR_INVALID_ARGUMENT, "check \"number\": there is no number in what is expected");
    if (check->kind == CHECK_JSON) {
        json_t *value = eval_find_json(check->expected, check->expected_bytes);
        if (value == NULL)
            return err_new(ERR_INVALID_ARGUMENT, "check \"json\": what is expected is not JSON");
        json_decref(value);
    }
    if (check->kind == CHECK_LABEL && score_label(check, check->expected, check->expected_bytes) < 1)
        return err_new(ERR_INVALID_ARGUMENT, "check \"label\": what is expected is empty");
    return err_ok();
}

struct eval_check eval_check_like(const char *answer, size_t answer_bytes)
{
    const char *from = answer;
    size_t bytes = answer_bytes;
    trim(&from, &bytes);
    bool may_be = bytes > 0 && (from[0] == '{' || from[0] == '`');
    json_t *value = may_be ? eval_find_json(from, bytes) : NULL;
    struct eval_check check = {.kind = json_is_object(value) ? CHECK_JSON : CHECK_NORMALISED,
                               .expected = answer,
                               .expected_bytes = answer_bytes};
    json_decref(value);
    return check;
}

bool eval_put_calls(struct buffer *out, const json_t *calls)
{
    if (json_array_size(calls) == 0)
        return true;
    json_t *list = json_array();
    for (size_t i = 0; i < json_array_size(calls); i++) {
        const json_t *call = json_array_get(calls, i);
        json_t *arguments = json_object_get(call, "arguments"), *name = json_object_get(call, "name");
        json_t *parsed = json_is_string(arguments)
                             ? load(json_string_value(arguments), json_string_length(arguments))
                             : NULL;
        json_t *one = json_pack("{s:o}", "arguments",
                                parsed ? parsed : json_incref(arguments ? arguments : json_null()));
        (void)json_object_set(one, "name", name);
        (void)json_array_append_new(list, one);
    }
    json_t *root = json_pack("{s:o}", "tool_calls", list);
    bool fits = root != NULL && json_array_size(list) == json_array_size(calls) &&
                (out->size == 0 || buffer_append_text(out, "\n")) &&
                json_text_append_sorted(out, root).code == ERR_OK;
    json_decref(root);
    return fits;
}
