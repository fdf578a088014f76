/* What a call reserves before a provider hears of it, and what of a budget rules see. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include <jansson.h>
#include "tests/router/fake_fleet.h"
#include "tests/router/route_rig.h"
#include "tests/router/script_server.h"

#define QUICK "retries: {max: 3, backoff: 1ms}\n"

static const struct script_step ANSWERS[] = {
    {STEP_READ, NULL}, {STEP_SEND, RIG_STREAM RIG_TEXT("big one") RIG_END}, {STEP_END, NULL}};

static void assert_answered(struct rig_answer *answer, const char *provider)
{
    assert_int_equal(answer->error.code, ERR_OK);
    assert_string_equal(answer->provider, provider);
}

/* Each choice is paid, and tools are read: all of it is bounded before a provider hears of it. */
static void choices_tools_and_documents_are_reserved(void **state)
{
    (void)state;
    enum { LONG_BYTES = 1200 };
    char text[LONG_BYTES + 1], documents[LONG_BYTES + 200], tools[LONG_BYTES + 200];
    memset(text, 'x', LONG_BYTES);
    text[LONG_BYTES] = '\0';
    (void)snprintf(tools, sizeof tools,
                   ", \"max_tokens\": 10, \"tools\": [{\"type\": \"function\", \"function\":"
                   " {\"name\": \"f\", \"description\": \"%s\"}}]",
                   text);
    (void)snprintf(documents, sizeof documents, ", \"max_tokens\": 10, \"documents\": [{\"text\": \"%s\"}]",
                   text);
    const struct {
        const char *body, *max_cost;
        bool is_free;
    } CASES[] = {
        {", \"max_tokens\": 100", "0.0011", true},
        {", \"max_tokens\": 100, \"n\": 1", "0.0011", true},
        {", \"max_tokens\": 100, \"n\": 10", "0.0099", false},
        {", \"max_tokens\": 100, \"n\": 10", "0.0101", true},
        {tools, "0.0006", false},
        {documents, "0.0006", false},
        {tools, "0.0009", true},
        {documents, "0.0009", true},
    };
    for (size_t i = 0; i < sizeof CASES / sizeof *CASES; i++) {
        const struct script_step *scripts[] = {ANSWERS};
        struct route_rig *rig = rig_open(scripts, 1, QUICK, false);
        struct rig_question question = {
            .route = "frontier", .body = CASES[i].body, .max_cost = CASES[i].max_cost};
        fake_fleet_script("cheap");
        struct rig_answer answer = rig_ask(rig, &question);
        if (strcmp(answer.provider, CASES[i].is_free ? "p" : "local") != 0)
            fail_msg("case %zu: %s %s", i, answer.provider, answer.reason);
        rig_forget(&answer);
        rig_close(rig);
    }
}

/* What p/big may take for a message with that part, in dollars. */
static double most_for(struct route_rig *rig, const char *before, int data_bytes, const char *after)
{
    struct buffer body = {.limit_bytes = 1 << 21}, out = {.limit_bytes = 1 << 20};
    assert_true(buffer_append_format(
        &body, "{\"max_tokens\": 10, \"messages\": [{\"role\": \"user\", \"content\": [%s", before));
    for (int i = 0; i < data_bytes; i++)
        assert_true(buffer_append(&body, "A", 1));
    assert_true(buffer_append_format(&body, "%s]}]}", after));
    json_t *original = json_loadb(body.data, body.size, 0, NULL);
    assert_non_null(original);
    struct request request = {.deadline_ns = REQUEST_NO_DEADLINE,
                              .prompt_kind = PROMPT_MESSAGES,
                              .messages = &(struct chat_message){.role = "user", .content = ""},
                              .n_messages = 1,
                              .original = original};
    assert_int_equal(route_service_explain(rig->router, &request, &out).code, ERR_OK);
    json_t *told = json_loadb(out.data, out.size, 0, NULL);
    const json_t *frontier = json_array_get(json_object_get(told, "tiers"), 1),
                 *model = json_array_get(json_object_get(frontier, "models"), 0);
    double most = json_number_value(json_object_get(model, "most"));
    json_decref(told);
    json_decref(original);
    buffer_free(&body);
    buffer_free(&out);
    return most;
}

/* What comes along says how long it is; no model reads more than its context. */
static void long_sounds_and_files_are_reserved(void **state)
{
    (void)state;
    static const char *const SOUND = "{\"type\": \"input_audio\", \"input_audio\": {\"data\": \"",
                             *const PDF = "{\"type\": \"file\", \"file\": {\"file_data\":"
                                          " \"data:application/pdf;base64,",
                             *const TEXT = "{\"type\": \"file\", \"file\": {\"file_data\":"
                                           " \"data:text/plain;base64,",
                             *const BY_NAME = "{\"type\": \"file\", \"file\": {\"file_id\": \"",
                             *const IMAGE = "{\"type\": \"image_url\", \"image_url\": {\"url\": \"";
    const struct {
        const char *before;
        int data_bytes;
        double most; /* of input */
    } CASES[] = {
        {SOUND, 100, 0.002},     {SOUND, 640000, 0.005}, {PDF, 8000, 0.002},
        {PDF, 80000, 0.01},      {TEXT, 80000, 0.04},    {TEXT, 900000, 0.1}, /* all of its context */
        {BY_NAME, 80000, 0.002}, {IMAGE, 640000, 0.002},
    };
    struct route_rig *rig = rig_open(NULL, 0, QUICK, false);
    for (size_t i = 0; i < sizeof CASES / sizeof *CASES; i++) {
        double most = most_for(rig, CASES[i].before, CASES[i].data_bytes, "\"}}");
        if (most < CASES[i].most + 0.00009 || most > CASES[i].most + 0.00016)
            fail_msg("case %zu: %f", i, most);
    }
    rig_close(rig);
}

/* Nobody said how long the answer may be: what was reserved is what is sent. */
static void what_is_reserved_is_the_limit(void **state)
{
    (void)state;
    const struct script_step *scripts[] = {ANSWERS, ANSWERS};
    struct route_rig *rig = rig_open(scripts, 2, QUICK, false);
    struct rig_question question = {.route = "frontier", .max_cost = "0.0409"};
    struct rig_answer answer = rig_ask(rig, &question);
    assert_string_equal(answer.reason, "cannot_cross");
    rig_forget(&answer);
    question.max_cost = "0.0411"; /* 4,096 tokens at 10 $ a million, and the prompt */
    answer = rig_ask(rig, &question);
    assert_answered(&answer, "p");
    rig_forget(&answer);
    question.body = ", \"max_tokens\": 12";
    answer = rig_ask(rig, &question);
    assert_answered(&answer, "p");
    rig_forget(&answer);
    rig_wait_idle(rig);
    script_server_wait_ended(rig->server, 2);
    const char *heard = script_server_heard(rig->server), *first = strstr(heard, "\"max_tokens\":4096");
    assert_non_null(first);
    assert_null(strstr(first + 1, "\"max_tokens\":4096"));
    assert_non_null(strstr(first + 1, "\"max_tokens\":12"));
    rig_close(rig);
}

static void a_rule_looks_at_what_is_left(void **state)
{
    (void)state;
    const struct script_step *scripts[] = {ANSWERS, ANSWERS};
    struct route_rig *rig =
        rig_open(scripts, 2,
                 QUICK "budgets: [{tenant: poor, per_day: 0.05, per_month: 1}]\ndefault: frontier\n"
                       "rules: [{name: save, when: {budget: {min: 4}}, to: small}]\n",
                 false);
    fake_fleet_script("cheap");
    struct rig_question question = {.tenant = "poor", .body = ", \"max_tokens\": 100"};
    struct rig_answer answer = rig_ask(rig, &question);
    rig_assert_answer(&answer, "big one", "p"); /* 0.002 $, 4 % of a day's */
    rig_forget(&answer);
    rig_wait_idle(rig);
    answer = rig_ask(rig, &question);
    rig_assert_answer(&answer, "cheap", "local");
    assert_string_equal(answer.rule, "save");
    rig_forget(&answer);
    question.tenant = "rich"; /* who has no budget */
    answer = rig_ask(rig, &question);
    rig_assert_answer(&answer, "big one", "p");
    rig_forget(&answer);
    rig_close(rig);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(choices_tools_and_documents_are_reserved),
                                       cmocka_unit_test(long_sounds_and_files_are_reserved),
                                       cmocka_unit_test(what_is_reserved_is_the_limit),
                                       cmocka_unit_test(a_rule_looks_at_what_is_left)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
