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
        cmocka_unit_test(a_schema_has_a_limit),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
