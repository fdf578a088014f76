/* Answers against the formats that were asked for. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>
#include "router/service/answer_check.h"

#define SCHEMA(text) "{\"type\": \"json_schema\", \"json_schema\": {\"name\": \"s\", \"schema\": " text "}}"
#define PERSON                                                                                               \
    SCHEMA(                                                                                                  \
        "{\"type\": \"object\", \"properties\": {\"name\": {\"type\": \"string\"}, \"age\": {\"type\":"      \
        " \"integer\"}, \"kind\": {\"enum\": [\"a\", 1]}, \"list\": {\"type\": \"array\", \"items\":"        \
        " {\"type\": [\"number\", \"null\"]}}}, \"required\": [\"name\"], \"additionalProperties\": false}")
#define TREE                                                                                                 \
    SCHEMA("{\"$ref\": \"#/$defs/node\", \"$defs\": {\"node\": {\"type\": \"object\", \"properties\":"       \
           " {\"next\": {\"anyOf\": [{\"$ref\": \"#/$defs/node\"}, {\"type\": \"null\"}]}}}}}")

static void formats_and_answers(void **state)
{
    (void)state;
    const struct {
        const char *format, *answer, *why; /* why: NULL = it fits, else part of the message */
    } CASES[] = {
        {"{\"type\": \"text\"}", "anything", NULL},
        {"{\"type\": \"json_object\"}", "{\"a\": 1}", NULL},
        {"{\"type\": \"json_object\"}", "[1]", "must be an object"},
        {"{\"type\": \"json_object\"}", "{\"a\": 1", "not the JSON"},
        {"{\"type\": \"json_object\"}", "```json\n{}\n```", "not the JSON"},
        {PERSON, "{\"name\": \"x\", \"age\": 3, \"kind\": 1, \"list\": [1.5, null]}", NULL},
        {PERSON, "{\"age\": 3}", "answer: \"name\" is missing"},
        {PERSON, "{\"name\": 3}", "answer.name: it must be of type string"},
        {PERSON, "{\"name\": \"x\", \"age\": 3.5}", "answer.age: it must be of type integer"},
        {PERSON, "{\"name\": \"x\", \"kind\": \"b\"}", "answer.kind: it is none of the values"},
        {PERSON, "{\"name\": \"x\", \"list\": [1, \"b\"]}", "answer.list[1]: it is of none of the types"},
        {PERSON, "{\"name\": \"x\", \"more\": 1}", "answer.more: the schema has no such property"},
        {TREE, "{\"next\": {\"next\": null}}", NULL},
        {TREE, "{\"next\": {\"next\": 3}}", "fits none of the schemas"},
        {SCHEMA("{\"const\": 5}"), "5", NULL},
        {SCHEMA("{\"const\": 5}"), "6", "not the one value"},
        {SCHEMA("{\"$ref\": \"#\"}"), "6", NULL}, /* of itself alone: it says nothing, and ends */
        {SCHEMA("{\"properties\": {\"a\": false}}"), "{\"a\": 1}", "nothing may be here"},
        {SCHEMA("{\"additionalProperties\": {\"type\": \"null\"}}"), "{\"a\": 1}", "of type null"},
        {SCHEMA("{\"minimum\": 1, \"maximum\": 5}"), "5", NULL},
        {SCHEMA("{\"minimum\": 1}"), "0.5", "at least 1"},
        {SCHEMA("{\"maximum\": 5}"), "6", "at most 5"},
        {SCHEMA("{\"exclusiveMinimum\": 1}"), "1", "more than 1"},
        {SCHEMA("{\"exclusiveMaximum\": 5}"), "5", "less than 5"},
        {SCHEMA("{\"minLength\": 3}"), "\"\u00fc\u00fc\"", "less than minLength"}, /* characters, not bytes */
        {SCHEMA("{\"maxLength\": 2}"), "\"\u00fc\u00fc\"", NULL},
        {SCHEMA("{\"minItems\": 1}"), "[]", "less than minItems"},
        {SCHEMA("{\"maxItems\": 1}"), "[1, 2]", "more than maxItems"},
        {SCHEMA("{\"maxProperties\": 0}"), "{\"a\": 1}", "more than maxProperties"},
        {SCHEMA("{\"uniqueItems\": true}"), "[1, [2], 3, [2]]", "1 and 3 are the same"},
        {SCHEMA("{\"uniqueItems\": true}"), "[1, \"1\", [1]]", NULL},
        {SCHEMA("{\"prefixItems\": [{\"type\": \"string\"}], \"items\": {\"type\": \"number\"}}"),
         "[\"a\", 1]", NULL},
        {SCHEMA("{\"prefixItems\": [{\"type\": \"string\"}], \"items\": false}"), "[\"a\", 1]",
         "answer[1]: nothing may be here"},
        {SCHEMA("{\"allOf\": [{\"minimum\": 1}, {\"maximum\": 3}]}"), "4", "at most 3"},
        {SCHEMA("{\"oneOf\": [{\"minimum\": 1}, {\"maximum\": 3}]}"), "2", "it fits 2 of the schemas"},
        {SCHEMA("{\"oneOf\": [{\"minimum\": 1}, {\"maximum\": 3}]}"), "0", NULL},
        {SCHEMA("{\"not\": {\"type\": \"null\"}}"), "null", "must not fit"},
        {SCHEMA("{\"not\": {\"$ref\": \"#\"}}"), "null", NULL}, /* without end: nobody can say */
    };
    for (size_t i = 0; i < sizeof CASES / sizeof *CASES; i++) {
        json_t *format = json_loads(CASES[i].format, 0, NULL);
        assert_non_null(format);
        err_t e = answer_check(format, CASES[i].answer, strlen(CASES[i].answer));
        if (CASES[i].why == NULL ? e.code != ERR_OK
                                 : e.code != ERR_DATA_LOSS || strstr(e.message, CASES[i].why) == NULL)
            fail_msg("case %zu: %s", i, e.code == ERR_OK ? "it fits" : e.message);
        json_decref(format);
    }
    assert_int_equal(answer_check(NULL, "x", 1).code, ERR_OK);
}

static void what_is_not_checked_is_named(void **state)
{
    (void)state;
    const struct {
        const char *format, *gap;
    } CASES[] = {
        {"{\"type\": \"json_object\"}", NULL},
        {"{\"type\": \"text\"}", NULL},
        {PERSON, NULL},
        {TREE, NULL},
        {SCHEMA("{\"title\": \"t\", \"format\": \"date\", \"default\": 1, \"x-own\": {\"pattern\": 1}}"),
         NULL},
        {SCHEMA("{\"properties\": {\"pattern\": {\"type\": \"string\"}}}"), NULL}, /* a name, no keyword */
        {SCHEMA("{\"properties\": {\"a\": {\"items\": {\"anyOf\": [{}, {\"pattern\": \"^a\"}]}}}}"),
         "pattern"},
        {SCHEMA("{\"$defs\": {\"a\": {\"not\": {\"multipleOf\": 2}}}}"), "multipleOf"},
        {SCHEMA("{\"$ref\": \"https://example.org/s\"}"), "$ref"},
        {SCHEMA("{\"items\": [{}]}"), "items"},
    };
    for (size_t i = 0; i < sizeof CASES / sizeof *CASES; i++) {
        json_t *format = json_loads(CASES[i].format, 0, NULL);
        assert_non_null(format);
        const char *gap = answer_check_gap(format);
        if (CASES[i].gap == NULL ? gap != NULL : gap == NULL || strcmp(gap, CASES[i].gap) != 0)
            fail_msg("case %zu: %s", i, gap ? gap : "none");
        json_decref(format);
    }
    assert_null(answer_check_gap(NULL));
}

static void calls_of_strict_tools_fit_their_parameters(void **state)
{
    (void)state;
#define TOOL(name, more)                                                                                     \
    "{\"type\": \"function\", \"function\": {\"name\": \"" name                                              \
    "\", \"parameters\": {\"type\": \"object\", \"required\":"                                               \
    " [\"at\"], \"properties\": {\"at\": {\"type\": \"string\"}}}" more "}}"
    json_t *tools = json_loads("[" TOOL("free", "") "," TOOL(
                                   "strict", ", \"strict\": true") ","
                                                                   "{\"type\": \"function\", \"function\": "
                                                                   "{\"name\": \"none\", \"strict\": true}}]",
                               0, NULL);
    assert_non_null(tools);
    static const struct {
        const char *name, *arguments, *why; /* why: all calls are checked; NULL = it fits */
        bool fits;                          /* where strict ones alone are */
    } CASES[] = {
        {"strict", "{\"at\": \"here\"}", NULL, true},
        {"strict", "{\"at\": 1}", "arguments for \"strict\".at: it must be of type string", false},
        {"strict", "", "\"at\" is missing", false},
        {"strict", "{\"at\": \"he", "are no JSON", false},
        {"strict", "[]", "they must be an object", false},
        {"free", "{\"at\": 1}", "of type string", true},
        {"free", "{\"at\"", "are no JSON", true},
        {"none", "", NULL, true},
        {"none", "{\"any\": 1}", NULL, true},
        {"other", "{}", "calls \"other\", which is none", false},
    };
    for (size_t i = 0; i < sizeof CASES / sizeof *CASES; i++) {
        size_t size = strlen(CASES[i].arguments);
        err_t all = answer_check_call(tools, true, CASES[i].name, CASES[i].arguments, size),
              strict = answer_check_call(tools, false, CASES[i].name, CASES[i].arguments, size);
        if (CASES[i].why == NULL ? all.code != ERR_OK
                                 : all.code != ERR_DATA_LOSS || strstr(all.message, CASES[i].why) == NULL)
            fail_msg("case %zu: %s", i, all.code == ERR_OK ? "it fits" : all.message);
        assert_int_equal(strict.code, CASES[i].fits ? ERR_OK : ERR_DATA_LOSS);
    }
    json_t *request = json_pack("{s:O}", "tools", tools);
    assert_true(answer_check_is_due(request, false));
    assert_int_equal(json_array_remove(tools, 2), 0);
    assert_int_equal(json_array_remove(tools, 1), 0);
    assert_false(answer_check_is_due(request, false));
    assert_true(answer_check_is_due(request, true));
    assert_int_equal(json_array_clear(tools), 0);
    assert_false(answer_check_is_due(request, true));
    json_decref(request);
    json_decref(tools);
}

/* A schema that doubles its work at each level ends within its steps. */
static void a_schema_has_a_limit(void **state)
{
    (void)state;
    json_t *format =
        json_loads(SCHEMA("{\"anyOf\": [{\"$ref\": \"#\"}, {\"$ref\": \"#\"}, {\"$ref\": \"#\"}],"
                          " \"const\": 1}"),
                   0, NULL);
    assert_non_null(format);
    err_t e = answer_check(format, "2", 1);
    assert_int_equal(e.code, ERR_DATA_LOSS);
    json_decref(format);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(formats_and_answers),
        cmocka_unit_test(what_is_not_checked_is_named),
        cmocka_unit_test(calls_of_strict_tools_fit_their_parameters),
        cmocka_unit_test(a_schema_has_a_limit),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
