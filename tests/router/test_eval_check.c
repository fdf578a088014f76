/* Checkers, and the file of cases. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include "base/alloc.h"
#include "base/buffer.h"
#include "router/gate/eval_cases.h"
#include "router/gate/eval_check.h"
#include "router/gate/eval_judge.h"

static double score(enum eval_check_kind kind, const char *expected, const char *answer)
{
    struct eval_check check = {
        .kind = kind, .expected = expected, .expected_bytes = strlen(expected), .tolerance = 1e-6};
    err_t e = eval_check_validate(&check);
    if (e.code != ERR_OK)
        fail_msg("%s", e.message);
    return eval_check_score(&check, answer, strlen(answer));
}

static void texts(void **state)
{
    (void)state;
    assert_true(score(CHECK_EXACT, "a b", " a b\n") == 1);
    assert_true(score(CHECK_EXACT, "a b", "a  b") == 0);
    assert_true(score(CHECK_EXACT, "a b", "A b") == 0);
    assert_true(score(CHECK_EXACT, "", "  ") == 1);
    assert_true(score(CHECK_NORMALISED, "A  B.", "\"a b\"") == 1);
    assert_true(score(CHECK_NORMALISED, "a b", "a c") == 0);
    assert_true(score(CHECK_CONTAINS, "Monday", "it is MONDAY, I think") == 1);
    assert_true(score(CHECK_CONTAINS, "Monday", "it is Sunday") == 0);
    assert_true(score(CHECK_NONE, "a", "a") == 0);
}

static void numbers(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        bool found;
        double value;
    } CASES[] = {
        {"12 * 3 = 36", true, 36},
        {"It costs $1,234.50.", true, 1234.5},
        {"-7", true, -7},
        {"gpt-5", true, 5},
        {"(2)-3", true, 3},
        {"2.5e3 m", true, 2500},
        {"2e-2", true, 0.02},
        {"1,2,3", true, 123},
        {"no digits", false, 0},
        {"", false, 0},
        {"5.", true, 5},
        {"about .5", true, 5},
        {"x = -0.25", true, -0.25},
        {"3e", true, 3},
        {"1.2.3", true, 3},
    };
    for (size_t i = 0; i < sizeof CASES / sizeof *CASES; i++) {
        double value = NAN;
        assert_int_equal(eval_last_number(CASES[i].text, strlen(CASES[i].text), &value), CASES[i].found);
        if (CASES[i].found && fabs(value - CASES[i].value) > 1e-12)
            fail_msg("%s: %g", CASES[i].text, value);
    }
    char digits[300];
    memset(digits, '7', sizeof digits);
    double value;
    (void)eval_last_number(digits, sizeof digits, &value); /* one number, cut, and not many */
    assert_true(score(CHECK_NUMBER, "391", "17 * 23 = 391.0") == 1);
    assert_true(score(CHECK_NUMBER, "391", "391 or 392") == 0);
    assert_true(score(CHECK_NUMBER, "0", "-0") == 1);
    assert_true(score(CHECK_NUMBER, "5", "none") == 0);
}

static void json_by_field(void **state)
{
    (void)state;
    static const char EXPECTED[] = "{\"a\": 3, \"b\": \"x\", \"c\": [1, {\"d\": null}], \"e\": 1.50}";
    assert_true(score(CHECK_JSON, EXPECTED, "{\"e\":1.5,\"c\":[1.0,{\"d\":null}],\"b\":\"x\",\"a\":3.0}") ==
                1);
    assert_true(score(CHECK_JSON, EXPECTED, "{\"a\": 3, \"b\": \"y\", \"c\": [1], \"e\": 1.5}") == 0.5);
    assert_true(score(CHECK_JSON, EXPECTED,
                      "{\"a\": 3, \"b\": \"x\", \"c\": [1, {\"d\": null}], \"e\": 1.5, \"f\": 0}") == 0.8);
    assert_true(score(CHECK_JSON, "{\"a\": 1}", "Here it is:\n```json\n{\"a\": 1}\n```\nDone {") == 1);
    assert_true(score(CHECK_JSON, "{\"a\": 1}", "the object {\"a\": 1} it is") == 1);
    assert_true(score(CHECK_JSON, "{\"a\": 1}", "{\"a\": 1") == 0);
    assert_true(score(CHECK_JSON, "{}", "{}") == 1);
    assert_true(score(CHECK_JSON, "[1, 2]", "[1, 2.0]") == 1);
    assert_true(score(CHECK_JSON, "[1, 2]", "[1]") == 0);
    json_t *fields = json_pack("[s, s]", "a", "z");
    struct eval_check check = {
        .kind = CHECK_JSON, .expected = EXPECTED, .expected_bytes = strlen(EXPECTED), .fields = fields};
    assert_int_equal(eval_check_validate(&check).code, ERR_OK);
    assert_true(eval_check_score(&check, "{\"a\": 3}", 8) == 0.5); /* nobody has z */
    json_decref(fields);
    char deep[4001];
    memset(deep, '[', 2000);
    memset(deep + 2000, ']', 2000);
    deep[4000] = '\0';
    assert_true(score(CHECK_JSON, deep, deep) == 0); /* deeper than what is compared */
}

static void labels(void **state)
{
    (void)state;
    json_t *list = json_pack("[s, s, s, s]", "positive", "negative", "not", "not negative");
    static const struct {
        const char *expected, *answer;
        double score;
    } CASES[] = {
        {"positive", "It is Positive.", 1},
        {"positive", "negative, not positive", 0},
        {"negative", "negative", 1},
        {"positive", "positively", 0},
        {"not negative", "it is not negative", 1},
        {"not", "it is not negative", 0},
        {"positive", "", 0},
    };
    for (size_t i = 0; i < sizeof CASES / sizeof *CASES; i++) {
        struct eval_check check = {.kind = CHECK_LABEL,
                                   .expected = CASES[i].expected,
                                   .expected_bytes = strlen(CASES[i].expected),
                                   .labels = list};
        assert_int_equal(eval_check_validate(&check).code, ERR_OK);
        if (eval_check_score(&check, CASES[i].answer, strlen(CASES[i].answer)) != CASES[i].score)
            fail_msg("%s: %s", CASES[i].expected, CASES[i].answer);
    }
    json_decref(list);
    assert_true(score(CHECK_LABEL, "yes", "Yes, it is") == 1);
    assert_true(score(CHECK_LABEL, "yes", "yesterday") == 0);
    assert_true(score(CHECK_LABEL, "yes", "no, yes") == 0);
}

static const struct eval_case_defaults DEFAULTS = {.max_tokens = 50, .temperature = 0};

static void cases_are_read(void **state)
{
    (void)state;
    static const char FILE[] =
        "{\"messages\": [{\"role\": \"user\", \"content\": \"a\"}], \"expected\": \"x\", \"seed\": 7, "
        "\"task\": \"t\"}\n"
        "\n"
        "{\"prompt\": \"b\", \"reference\": 391, \"id\": 5, \"max_tokens\": 9, \"stream\": true}\r\n"
        "{\"request\": {\"messages\": [{\"role\": \"user\", \"content\": \"c\"}], \"temperature\": 1}, "
        "\"id\": \"z\", "
        "\"strong\": {\"text\": \"s\", \"cost\": 0.004, \"ms\": 1.5}, \"difficulty\": 0.25}\n"
        "{\"prompt\": \"d\", \"expected\": {\"k\": 1}, \"fields\": [\"k\"], \"strong\": \"t\"}\n"
        "{\"prompt\": \"e\", \"expected\": \"{\\\"k\\\": 1}\"}\n"
        "{\"prompt\": \"e\", \"expected\": \"{\\\"k\\\": 1}\"}";
    struct eval_cases cases;
    err_t e = eval_cases_parse("f", FILE, strlen(FILE), &DEFAULTS, &cases);
    if (e.code != ERR_OK)
        fail_msg("%s", e.message);
    assert_int_equal(cases.n, 6);
    const struct eval_case *one = cases.cases;
    assert_int_equal(one[0].check.kind, CHECK_EXACT);
    assert_string_equal(one[0].task, "t");
    assert_int_equal(strlen(one[0].id), 16);
    assert_int_equal(json_integer_value(json_object_get(one[0].request, "seed")), 7);
    assert_int_equal(json_integer_value(json_object_get(one[0].request, "max_tokens")), 50);
    assert_null(json_object_get(one[0].request, "expected"));
    assert_true(one[0].difficulty < 0 && one[0].strong == NULL && one[0].strong_cost == -1);
    assert_int_equal(one[1].check.kind, CHECK_NUMBER);
    assert_string_equal(one[1].id, "5");
    assert_int_equal(json_integer_value(json_object_get(one[1].request, "max_tokens")), 9);
    assert_null(json_object_get(one[1].request, "stream"));
    assert_string_equal(one[2].id, "z");
    assert_int_equal(one[2].check.kind, CHECK_NONE);
    assert_true(json_number_value(json_object_get(one[2].request, "temperature")) == 1 &&
                one[2].difficulty == 0.25);
    assert_memory_equal(one[2].strong, "s", one[2].strong_bytes);
    assert_true(one[2].strong_cost == 4000000 && one[2].strong_total_us == 1500);
    assert_int_equal(one[3].check.kind, CHECK_JSON);
    assert_memory_equal(one[3].check.expected, "{\"k\":1}", one[3].check.expected_bytes);
    assert_int_equal(one[4].check.kind, CHECK_JSON);
    assert_string_not_equal(one[4].id, one[5].id); /* the same line twice: told apart by its number */
    char id[17];
    memcpy(id, cases.id, sizeof id);
    eval_cases_free(&cases);
    assert_int_equal(eval_cases_parse("f", FILE, strlen(FILE) - 1, &DEFAULTS, &cases).code,
                     ERR_INVALID_ARGUMENT);
    assert_int_equal(cases.n, 0);
    assert_int_equal(
        eval_cases_parse("f", FILE, (size_t)(strrchr(FILE, '\n') - FILE), &DEFAULTS, &cases).code, ERR_OK);
    assert_string_not_equal(cases.id, id); /* another file */
    eval_cases_free(&cases);
}

static void bad_cases_are_named(void **state)
{
    (void)state;
    static const struct {
        const char *text, *words;
    } CASES[] = {
        {"", "no cases"},
        {"\n \n", "no cases"},
        {"{\"prompt\": \"a\"}\n[1]\n", "f line 2: a case is an object"},
        {"{\"prompt\": \"a\"}\n{\"prompt\": }\n", "f line 2: not JSON"},
        {"{\"expected\": \"a\"}", "needs \"messages\""},
        {"{\"messages\": []}", "needs \"messages\""},
        {"{\"prompt\": \"a\", \"check\": \"regex\"}", "check \"regex\" is none of"},
        {"{\"prompt\": \"a\", \"expected\": \"b\", \"check\": \"number\"}", "no number"},
        {"{\"prompt\": \"a\", \"expected\": \"b\", \"check\": \"json\"}", "not JSON"},
        {"{\"prompt\": \"a\", \"expected\": \"b\", \"check\": \"label\", \"labels\": [1]}", "labels[0]"},
        {"{\"prompt\": \"a\", \"expected\": {\"k\": 1}, \"fields\": []}", "fields must be"},
        {"{\"prompt\": \"a\", \"difficulty\": 2}", "difficulty must be"},
        {"{\"prompt\": \"a\", \"strong\": 5}", "strong must be"},
        {"{\"prompt\": \"a\", \"strong\": {\"text\": \"b\", \"cost\": -1}}", "cost must be"},
        {"{\"prompt\": \"a\", \"id\": \"\"}", "id must be"},
        {"{\"prompt\": \"a\", \"id\": 1}\n{\"prompt\": \"b\", \"id\": \"1\"}", "the id \"1\" stands twice"},
        {"{\"prompt\": \"a\", \"prompt\": \"b\"}", "not JSON: duplicate"},
    };
    for (size_t i = 0; i < sizeof CASES / sizeof *CASES; i++) {
        struct eval_cases cases;
        err_t e = eval_cases_parse("f", CASES[i].text, strlen(CASES[i].text), &DEFAULTS, &cases);
        assert_int_equal(e.code, ERR_INVALID_ARGUMENT);
        if (strstr(e.message, CASES[i].words) == NULL)
            fail_msg("%s: %s", CASES[i].text, e.message);
    }
}

static void memory_that_is_short(void **state)
{
    (void)state;
    static const char FILE[] = "{\"prompt\": \"a\", \"expected\": {\"k\": 1}}\n{\"prompt\": \"b\"}\n";
    struct eval_cases cases;
    err_t e = {.code = ERR_INTERNAL};
    for (int64_t nth = 0; e.code != ERR_OK; nth++) {
        mem_fail_nth(nth);
        e = eval_cases_parse("f", FILE, strlen(FILE), &DEFAULTS, &cases);
        mem_fail_nth(-1);
        assert_true(e.code == ERR_OK || (e.code == ERR_RESOURCE_EXHAUSTED && cases.n == 0));
        assert_true(nth < 100);
    }
    eval_cases_free(&cases);
}

static void judges_are_asked_from_both_sides(void **state)
{
    (void)state;
    json_t *request = json_pack("{s:[{s:s, s:s}]}", "messages", "role", "user", "content", "Why?");
    struct eval_judgement judgement = {
        .request = request, .reference = "Because", .reference_bytes = 7, .answer = "So", .answer_bytes = 2};
    for (int swapped = 0; swapped < 2; swapped++) {
        json_t *asked = eval_judge_request(&judgement, swapped);
        const char *text = json_string_value(
            json_object_get(json_array_get(json_object_get(asked, "messages"), 0), "content"));
        const char *a = strstr(text, "--- Answer A\n"), *b = strstr(text, "--- Answer B\n");
        assert_true(strstr(text, "[user] Why?\n") != NULL && a != NULL && b > a);
        assert_int_equal(strncmp(a + 13, swapped ? "So\n" : "Because\n", swapped ? 3 : 8), 0);
        assert_int_equal(strncmp(b + 13, swapped ? "Because\n" : "So\n", swapped ? 8 : 3), 0);
        json_decref(asked);
    }
    json_decref(request);
    static const struct {
        const char *text;
        char word;
    } WORDS[] = {{"A", 'A'}, {"**B**", 'B'}, {"Answer: C.", 'C'}, {"Both", 0}, {"", 0}, {"BA", 0}};
    for (size_t i = 0; i < sizeof WORDS / sizeof *WORDS; i++)
        assert_int_equal(eval_judge_word(WORDS[i].text, strlen(WORDS[i].text)), WORDS[i].word);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(texts),
        cmocka_unit_test(numbers),
        cmocka_unit_test(json_by_field),
        cmocka_unit_test(labels),
        cmocka_unit_test(cases_are_read),
        cmocka_unit_test(bad_cases_are_named),
        cmocka_unit_test(memory_that_is_short),
        cmocka_unit_test(judges_are_asked_from_both_sides),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
