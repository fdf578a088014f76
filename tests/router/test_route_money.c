/* What a call reserves before a provider hears of it, and what of a budget rules see. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
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
                                       cmocka_unit_test(what_is_reserved_is_the_limit),
                                       cmocka_unit_test(a_rule_looks_at_what_is_left)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
