/* Evaluations whole: recorded answers, an endpoint over HTTP, policies over them, reports. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include "proto/grpc_door.h"
#include "router/gate/confidence_map.h"
#include "router/gate/eval_report.h"
#include "tests/proto/fake_service.h"
#include "tests/router/script_server.h"

enum { N = 40 };

/* N cases; the weak model's answers are made, the strong one's recorded. It fails every fourth case, and
 * doubts where it does; the strong one fails the first. */
struct rig {
    struct eval_cases cases;
    struct eval_run run;
    struct eval_policies policies;
    struct route_config *config;
};

static char *no_variable(const char *name)
{
    (void)name;
    return NULL;
}

static const char CONFIG[] =
    "local:\n  - {name: demo, targets: [\"127.0.0.1:1\"]}\n"
    "providers:\n  - name: p\n    kind: compatible\n    url: http://127.0.0.1:1/v1\n"
    "    models: [{name: big, price: {input: 1, output: 2, as_of: 2026-11-01}}]\n"
    "tiers:\n  - {name: small, models: [local/demo]}\n  - {name: frontier, models: [p/big]}\n"
    "rules:\n  - {name: fourth, when: {tasks: [fourth]}, to: frontier}\n"
    "  - {name: stay, when: {tasks: [stay]}, local_only: yes}\n";

/* With a tier between the two that were asked, by a rule or by the cascade. */
#define BETWEEN(more)                                                                                        \
    "local:\n  - {name: demo, targets: [\"127.0.0.1:1\"]}\n"                                                 \
    "providers:\n  - name: p\n    kind: compatible\n    url: http://127.0.0.1:1/v1\n"                        \
    "    models: [{name: mid, price: {input: 1, output: 2, as_of: 2026-11-01}},\n"                           \
    "             {name: big, price: {input: 1, output: 2, as_of: 2026-11-01}}]\n"                           \
    "tiers:\n  - {name: small, models: [local/demo]}\n  - {name: middle, models: [p/mid]}\n"                 \
    "  - {name: frontier, models: [p/big]}\n" more
static const char RULE_BETWEEN[] =
    BETWEEN("rules:\n  - {name: fourth, when: {tasks: [fourth]}, to: middle}\n");
static const char CASCADE_BETWEEN[] =
    BETWEEN("cascade: {tier: small, tokens: 2, within: 200ms, escalate_over: 0.3, to: middle}\n");
static const char AROUND_IT[] =
    BETWEEN("rules:\n  - {name: fourth, when: {tasks: [fourth]}, to: frontier}\n");

static void make_weak(struct rig *rig)
{
    struct eval_model *weak = &rig->run.models[0];
    for (size_t i = 0; i < N; i++) {
        struct eval_answer *answer = &weak->answers[i];
        eval_answer_free(answer);
        *answer = (struct eval_answer){.text = strdup(i % 4 == 0 ? "wrong" : "right"),
                                       .text_bytes = 5,
                                       .cost = 10,
                                       .first_token_us = 1000 + (int64_t)i,
                                       .total_us = 2000 + (int64_t)i,
                                       .n_margins = 2,
                                       .margins = {0.9F, i % 4 == 0 ? 0.1F : 0.9F}};
        weak->scores[i] = i % 4 != 0;
    }
    weak->n_failed = 0;
}

static void make_middle(struct rig *rig)
{
    struct eval_model *middle = &rig->run.models[2];
    for (size_t i = 0; i < N; i++) {
        middle->scores[i] = 1;
        middle->answers[i].cost = 100;
    }
}

static void set_up_models(struct rig *rig, const char *config, size_t n_models)
{
    struct buffer text = {.limit_bytes = 1 << 20};
    for (size_t i = 0; i < N; i++)
        assert_true(buffer_append_format(
            &text,
            "{\"prompt\": \"case %zu\", \"id\": %zu, \"expected\": \"right\", \"task\": \"%s\", "
            "\"strong\": {\"text\": \"%s\", \"cost\": 0.001, \"ms\": 5}}\n",
            i, i,
            i % 8 == 4 ? "fourth"
            : i == 8   ? "stay"
                       : "other",
            i == 0 ? "no" : "right"));
    *rig = (struct rig){0};
    const struct eval_case_defaults defaults = {.temperature = -1};
    assert_int_equal(eval_cases_parse("f", text.data, text.size, &defaults, &rig->cases).code, ERR_OK);
    buffer_free(&text);
    rig->run = (struct eval_run){.cases = &rig->cases, .n_models = n_models, .strong = 1};
    snprintf(rig->run.models[0].name, 64, "weak");
    snprintf(rig->run.models[1].name, 64, "st<r>ong");
    snprintf(rig->run.models[2].name, 64, "middle");
    const struct eval_run_options options = {.concurrency = 4};
    assert_int_equal(eval_run(&rig->run, &options).code, ERR_OK);
    make_weak(rig);
    if (n_models > 2)
        make_middle(rig);
    if (config) {
        err_t e = route_config_parse("r", config, strlen(config), no_variable, &rig->config);
        if (e.code != ERR_OK)
            fail_msg("%s", e.message);
    }
    const struct eval_policies_options policy = {
        .hold_tokens = 2, .quality = 0.95, .seed = 1, .config = rig->config};
    assert_int_equal(eval_policies_make(&rig->run, &policy, &rig->policies).code, ERR_OK);
}

static void set_up_with(struct rig *rig, const char *config)
{
    set_up_models(rig, config, 2);
}

static void set_up(struct rig *rig, bool with_config)
{
    set_up_with(rig, with_config ? CONFIG : NULL);
}

static void tear_down(struct rig *rig)
{
    eval_policies_free(&rig->policies);
    eval_run_free(&rig->run);
    eval_cases_free(&rig->cases);
    route_config_free(rig->config);
}

static const struct eval_policy *find(const struct rig *rig, const char *name)
{
    const struct eval_policy *policy = eval_policies_find(&rig->policies, name);
    assert_non_null(policy);
    return policy;
}

static void curves_of_one_run(void **state)
{
    (void)state;
    struct rig rig;
    set_up(&rig, false);
    assert_true(fabs(find(&rig, "random")->curve.apgr - 0.5) < 1e-9);
    assert_true(fabs(find(&rig, "random")->curve.weak - 0.75) < 1e-9);
    assert_true(fabs(find(&rig, "random")->curve.strong - 0.975) < 1e-9);
    assert_null(eval_policies_find(&rig.policies, "classifier")); /* nobody told a difficulty */
    /* The first token says nothing, the first two everything but for the case that both get wrong. */
    assert_true(fabs(find(&rig, "confidence")->curve.apgr - 0.5) < 1e-9);
    const struct eval_policy *cascade = find(&rig, "cascade");
    assert_true(cascade->curve.apgr > 0.85 && cascade->curve.apgr <= find(&rig, "oracle")->curve.apgr + 1e-9);
    assert_true(cascade->curve.share_for_95 < 0.25);
    /* Chosen on even places, where all of the weak model's errors are: it escalates these alone, and pays for
     * both. */
    assert_true(cascade->has_point && cascade->point.n == N / 2 && cascade->point.share == 0);
    assert_true(cascade->point.cost == 10 * N / 2 && cascade->point.n_cheap == N / 2);
    tear_down(&rig);
}

static void a_configuration_decides(void **state)
{
    (void)state;
    struct rig rig;
    set_up(&rig, true);
    const struct eval_policy *policy = find(&rig, "policy");
    for (size_t i = 0; i < N; i++)
        assert_int_equal(policy->went_strong[i], i % 8 == 4);
    const struct eval_point *point = &policy->point;
    assert_int_equal(point->n, N);
    assert_true(fabs(point->share - 0.125) < 1e-9 && fabs(point->quality - 0.875) < 1e-9);
    assert_true(point->cost == 5 * INT64_C(1000000) + 35 * 10);
    assert_int_equal(point->n_cheap, 35);
    assert_true(fabs(point->false_cheap.value - 4.0 / 35) <
                1e-9); /* 8, 16, 24 and 32; 0 is wrong on both sides */
    assert_true(fabs(point->difference.value + 0.1) < 1e-9);
    assert_true(isnan(policy->curve.apgr) || !policy->has_curve);
    tear_down(&rig);
}

static struct eval_report report_of(const struct rig *rig)
{
    return (struct eval_report){
        .file = "f", .run = &rig->run, .policies = &rig->policies, .margin = 0.03, .quality = 0.95};
}

/* Nobody asked the middle tier: what it would have answered is not known, and that is told. */
static void a_tier_between_is_not_measured(void **state)
{
    (void)state;
    const struct {
        const char *config;
        size_t n;
    } CASES[] = {{RULE_BETWEEN, 5}, {CASCADE_BETWEEN, 10}, {AROUND_IT, 0}, {CONFIG, 0}};
    for (size_t i = 0; i < sizeof CASES / sizeof *CASES; i++) {
        struct rig rig;
        set_up_with(&rig, CASES[i].config);
        assert_int_equal(find(&rig, "policy")->n_between, CASES[i].n);
        struct eval_report report = report_of(&rig);
        struct buffer table = {.limit_bytes = 1 << 20};
        assert_int_equal(eval_report_table(&report, &table).code, ERR_OK);
        assert_int_equal(strstr(table.data, "neither first nor last") != NULL, CASES[i].n > 0);
        buffer_free(&table);
        tear_down(&rig);
    }
}

/* The middle tier's model was asked by the tier's name: its answers are the policy's, and cheap as the first
 * tier's are. */
static void a_tier_between_is_measured_where_it_was_asked(void **state)
{
    (void)state;
    const struct {
        const char *config;
        size_t n_middle;
        int64_t cost;
    } CASES[] = {{RULE_BETWEEN, 5, 5 * 100 + 35 * 10}, {CASCADE_BETWEEN, 10, 10 * 100 + 40 * 10}};
    for (size_t i = 0; i < sizeof CASES / sizeof *CASES; i++) {
        struct rig rig;
        set_up_models(&rig, CASES[i].config, 3);
        const struct eval_policy *policy = find(&rig, "policy");
        const struct eval_point *point = &policy->point;
        assert_int_equal(policy->n_between, 0);
        assert_true(point->share == 0);
        assert_true(fabs(point->quality - (30 + (double)CASES[i].n_middle) / N) < 1e-9);
        assert_int_equal(point->cost, CASES[i].cost);
        assert_int_equal(point->n_cheap, N);
        /* Of 8, 16, 24 and 32; 0 is the strong one's error too. */
        assert_true(fabs(point->false_cheap.value - (i == 0 ? 4.0 : 0) / N) < 1e-9);
        tear_down(&rig);
    }
}

static void reports(void **state)
{
    (void)state;
    struct rig rig;
    set_up(&rig, true);
    struct eval_report report = report_of(&rig);
    struct buffer table = {.limit_bytes = 1 << 20}, json = {.limit_bytes = 1 << 20},
                  chart = {.limit_bytes = 1 << 20};
    assert_int_equal(eval_report_table(&report, &table).code, ERR_OK);
    static const char *const WORDS[] = {"f: 40 cases", "75.0 %",  "97.5 %", "2.0 / 2.0",
                                        "fourth",      "cascade", "worse"};
    for (size_t i = 0; i < sizeof WORDS / sizeof *WORDS; i++)
        if (strstr(table.data, WORDS[i]) == NULL)
            fail_msg("%s is not in\n%s", WORDS[i], table.data);
    assert_int_equal(eval_report_json(&report, &json).code, ERR_OK);
    json_t *root = json_loadb(json.data, json.size, JSON_REJECT_DUPLICATES, NULL);
    assert_non_null(root);
    assert_int_equal(json_array_size(json_object_get(root, "results")), N);
    assert_int_equal(json_array_size(json_object_get(root, "policies")), 5);
    assert_null(strstr(json.data, "\"answer\"")); /* texts are there when asked for */
    json_decref(root);
    assert_int_equal(eval_report_chart(&report, &chart).code, ERR_OK);
    assert_non_null(strstr(chart.data, "prefers-color-scheme:dark"));
    assert_non_null(strstr(chart.data, "st&#60;r&#62;ong"));
    assert_null(strstr(chart.data, "nan"));
    for (size_t limit = 0; limit < table.size; limit += 97) {
        struct buffer tight = {.limit_bytes = limit};
        assert_int_equal(eval_report_table(&report, &tight).code, ERR_RESOURCE_EXHAUSTED);
        buffer_free(&tight);
    }
    buffer_free(&table);
    buffer_free(&json);
    buffer_free(&chart);
    tear_down(&rig);
}

static void golden_runs(void **state)
{
    (void)state;
    struct rig rig;
    set_up(&rig, true);
    struct eval_report report = report_of(&rig);
    report.margin = 0.1;
    struct buffer golden = {.limit_bytes = 1 << 20}, lines = {.limit_bytes = 1 << 16};
    size_t n_worse, n_not_shown;
    assert_int_equal(eval_report_json(&report, &golden).code, ERR_OK);
    assert_int_equal(
        eval_report_compare(&report, golden.data, golden.size, 1, &lines, &n_worse, &n_not_shown).code,
        ERR_OK);
    assert_true(n_worse == 0 && n_not_shown == 0);
    for (size_t i = 0; i < N; i += 2)
        rig.run.models[0].scores[i] = 0; /* a quarter more of the weak model's answers is wrong */
    assert_int_equal(
        eval_report_compare(&report, golden.data, golden.size, 1, &lines, &n_worse, &n_not_shown).code,
        ERR_OK);
    assert_int_equal(n_worse, 1);
    assert_non_null(strstr(lines.data, "weak             40 cases, -25.0 %"));
    static const char *const BAD[] = {"", "{}", "{\"bantam_report\": 1}",
                                      "{\"bantam_report\": 1, \"results\": []}",
                                      "{\"bantam_report\": 2, \"results\": []}"};
    for (size_t i = 0; i < sizeof BAD / sizeof *BAD; i++)
        assert_int_equal(
            eval_report_compare(&report, BAD[i], strlen(BAD[i]), 1, &lines, &n_worse, &n_not_shown).code,
            ERR_INVALID_ARGUMENT);
    buffer_free(&golden);
    buffer_free(&lines);
    tear_down(&rig);
}

static void strong_answers_stand_for_a_reference(void **state)
{
    (void)state;
    static const char FILE[] =
        "{\"prompt\": \"a\", \"strong\": \"Yes.\"}\n{\"prompt\": \"b\", \"strong\": \"{\\\"k\\\": 1}\"}\n"
        "{\"prompt\": \"c\"}\n";
    const struct eval_case_defaults defaults = {0};
    struct eval_cases cases;
    assert_int_equal(eval_cases_parse("f", FILE, strlen(FILE), &defaults, &cases).code, ERR_OK);
    struct eval_run run = {.cases = &cases, .n_models = 2, .strong = 1};
    const struct eval_run_options options = {.concurrency = 1};
    assert_int_equal(eval_run(&run, &options).code, ERR_OK);
    assert_true(run.models[1].scores[0] == 1 && run.models[1].scores[1] == 1);
    assert_true(run.models[0].scores[0] == 1 && run.models[0].scores[1] == 1); /* the same recorded words */
    /* Of the last one nothing was recorded: it is no wrong answer, but no case at all. */
    assert_true(run.cases->n == 2 && run.n_left_out == 1 && run.n_given == 3 && !run.is_partial);
    assert_int_equal(run.models[1].n_failed, 0);
    eval_run_free(&run);
    eval_cases_free(&cases);
}

static void a_run_that_is_stopped_keeps_what_was_asked(void **state)
{
    (void)state;
    static const char FILE[] = "{\"prompt\": \"a\", \"expected\": \"x\"}\n"
                               "{\"prompt\": \"b\", \"expected\": \"x\", \"strong\": \"x\"}\n"
                               "{\"prompt\": \"c\", \"strong\": \"x\"}\n";
    const struct eval_case_defaults defaults = {0};
    const _Atomic bool stop = true;
    const struct eval_run_options options = {.concurrency = 1, .stop = &stop};
    struct eval_endpoint_options nowhere = {.name = "m", .target = "http://127.0.0.1:1/v1#m", .stop = &stop};
    struct eval_cases cases;
    assert_int_equal(eval_cases_parse("f", FILE, strlen(FILE), &defaults, &cases).code, ERR_OK);
    /* The strong one was not asked: what it alone could be held against goes, too. */
    struct eval_run run = {.cases = &cases, .n_models = 2, .strong = 1};
    snprintf(run.models[0].name, 64, "weak");
    assert_int_equal(eval_endpoint_open(&nowhere, &run.models[1].endpoint).code, ERR_OK);
    assert_int_equal(eval_run(&run, &options).code, ERR_OK);
    assert_true(run.is_partial && run.n_models == 1 && run.weak == 0 && run.strong == 0);
    assert_true(run.lost.n_models == 1 && run.lost.n_cases == 1);
    assert_true(run.cases->n == 1 && run.n_left_out == 2 && run.models[0].scores[0] == 1);
    assert_string_equal(run.models[0].name, "weak");
    eval_run_free(&run);
    /* The weak one was not. */
    run = (struct eval_run){.cases = &cases, .n_models = 2, .strong = 1};
    snprintf(run.models[1].name, 64, "strong");
    assert_int_equal(eval_endpoint_open(&nowhere, &run.models[0].endpoint).code, ERR_OK);
    assert_int_equal(eval_run(&run, &options).code, ERR_OK);
    assert_true(run.n_models == 1 && run.weak == 0 && run.strong == 0 && run.cases->n == 2);
    assert_string_equal(run.models[0].name, "strong");
    eval_run_free(&run);
    /* Nobody was. */
    run = (struct eval_run){.cases = &cases, .n_models = 1};
    assert_int_equal(eval_endpoint_open(&nowhere, &run.models[0].endpoint).code, ERR_OK);
    assert_int_equal(eval_run(&run, &options).code, ERR_CANCELLED);
    eval_run_free(&run);
    eval_cases_free(&cases);
}

/* Whatever the judge was asked before, a column has no scores of two kinds, and nothing is told of cases that
 * were put to all models. */
static void a_stop_while_the_judge_is_asked(void **state)
{
    (void)state;
    static const char FILE[] = "{\"prompt\": \"a\", \"strong\": \"x\"}\n{\"prompt\": \"b\"}\n";
    const struct eval_case_defaults defaults = {0};
    const _Atomic bool stop = true;
    const struct eval_run_options options = {.concurrency = 1, .stop = &stop};
    struct eval_endpoint_options nowhere = {.name = "j", .target = "http://127.0.0.1:1/v1#j", .stop = &stop};
    struct eval_cases cases;
    assert_int_equal(eval_cases_parse("f", FILE, strlen(FILE), &defaults, &cases).code, ERR_OK);
    struct eval_run run = {.cases = &cases, .n_models = 2, .strong = 1};
    assert_int_equal(eval_endpoint_open(&nowhere, &run.judge).code, ERR_OK);
    assert_int_equal(eval_run(&run, &options).code, ERR_OK);
    assert_true(run.is_partial && run.lost.is_judge && run.lost.n_cases == 0 && run.lost.n_models == 0);
    assert_true(run.n_unjudged == 0 && run.n_left_out == 1 && run.models[0].scores[0] == 1);
    struct eval_report report = {.file = "f", .run = &run, .margin = 0.03, .quality = 0.95};
    struct buffer table = {.limit_bytes = 1 << 20};
    assert_int_equal(eval_report_table(&report, &table).code, ERR_OK);
    assert_non_null(strstr(table.data, "PARTIAL: stopped; the judge was not asked about every answer"));
    assert_non_null(strstr(table.data, "1 of 2 cases are left out: no answer is recorded for them"));
    assert_null(strstr(table.data, "could not be read"));
    buffer_free(&table);
    eval_run_free(&run);
    /* Nothing was to be asked: nothing is lost. */
    run = (struct eval_run){.cases = &cases, .n_models = 2, .strong = 1};
    assert_int_equal(eval_run(&run, &options).code, ERR_OK);
    assert_false(run.is_partial);
    eval_run_free(&run);
    eval_cases_free(&cases);
}

#define HEAD "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n"
#define ANSWER(text)                                                                                         \
    "data: {\"model\": \"m-1\", \"choices\": [{\"index\": 0, \"delta\": {\"content\": \"" text "\"}}]}\n\n"  \
    "data: {\"choices\": [{\"index\": 0, \"delta\": {}, \"finish_reason\": \"stop\"}], \"usage\": "          \
    "{\"prompt_tokens\": 1000, \"completion_tokens\": 10}}\n\ndata: [DONE]\n\n"

static void endpoints_are_asked_again(void **state)
{
    (void)state;
    const struct script_step busy[] = {
        {STEP_READ, NULL},
        {STEP_SEND,
         "HTTP/1.1 503 Busy\r\nRetry-After-Ms: 1\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"},
        {STEP_END, NULL}};
    const struct script_step good[] = {
        {STEP_READ, NULL}, {STEP_SEND, HEAD ANSWER("right")}, {STEP_END, NULL}};
    const struct script_step refused[] = {
        {STEP_READ, NULL},
        {STEP_SEND, "HTTP/1.1 400 Bad\r\nContent-Type: application/json\r\nContent-Length: 34\r\nConnection: "
                    "close\r\n\r\n"
                    "{\"error\": {\"message\": \"too rude\"}}"},
        {STEP_END, NULL}};
    const struct script_step *scripts[] = {busy, good, refused};
    struct script_server *server = script_server_open(scripts, 3);
    char target[64];
    snprintf(target, sizeof target, "http://127.0.0.1:%u/v1/#m", script_server_port(server));
    const struct price price = {.input = 2 * NANODOLLARS_PER_DOLLAR,
                                .output = 10 * NANODOLLARS_PER_DOLLAR,
                                .cached_input = -1,
                                .cache_write = -1};
    const struct eval_endpoint_options options = {
        .name = "m", .target = target, .key = "k-1", .price = &price, .timeout_ms = 60000};
    struct eval_endpoint *endpoint;
    assert_int_equal(eval_endpoint_open(&options, &endpoint).code, ERR_OK);
    json_t *request = json_pack("{s:[{s:s, s:s}]}", "messages", "role", "user", "content", "Hi");
    json_t *stays = json_pack("{s:[{s:s, s:s}], s:{s:s}}", "messages", "role", "user", "content", "My salary",
                              "bantam", "privacy", "local_only");
    json_t *requests[] = {request, NULL, request, stays};
    struct eval_answer answers[4];
    assert_int_equal(eval_ask(endpoint, requests, 4, 1, NULL, NULL, answers).code, ERR_OK);
    assert_non_null(strstr(answers[3].error, "must not leave this machine"));
    assert_null(strstr(script_server_heard(server), "salary"));
    json_decref(stays);
    assert_string_equal(answers[0].text, "right");
    assert_string_equal(answers[0].model, "m-1");
    assert_true(answers[0].cost == 2100000 && answers[0].first_token_us >= 0 && answers[0].total_us >= 0);
    assert_string_equal(answers[1].error, "not asked");
    assert_null(answers[2].text);
    assert_non_null(strstr(answers[2].error, "too rude"));
    assert_non_null(strstr(script_server_heard(server), "POST /v1/chat/completions"));
    for (size_t i = 0; i < 3; i++)
        eval_answer_free(&answers[i]);
    json_decref(request);
    eval_endpoint_close(endpoint);
    script_server_close(server);
}

struct stopping {
    _Atomic bool stop;
    struct script_server *server;
};

static void stop_at_the_first(void *context, size_t n_done)
{
    struct stopping *stopping = context;
    if (n_done == 1)
        stopping->stop = true;
    script_server_go(stopping->server);
}

/* Refused for now after the stop: as with what waits to be asked again, nobody knows what the answer would
 * have been. */
static void a_stop_makes_no_failure_of_a_retry(void **state)
{
    (void)state;
    const struct script_step good[] = {
        {STEP_READ, NULL}, {STEP_SEND, HEAD ANSWER("right")}, {STEP_END, NULL}};
    const struct script_step busy[] = {
        {STEP_READ, NULL},
        {STEP_WAIT, NULL},
        {STEP_SEND, "HTTP/1.1 503 Busy\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"},
        {STEP_END, NULL}};
    const struct script_step *scripts[] = {good, busy};
    struct stopping stopping = {.server = script_server_open(scripts, 2)};
    char target[64];
    snprintf(target, sizeof target, "http://127.0.0.1:%u/v1#m", script_server_port(stopping.server));
    const struct eval_endpoint_options options = {
        .name = "m", .target = target, .timeout_ms = 60000, .stop = &stopping.stop};
    struct eval_endpoint *endpoint;
    assert_int_equal(eval_endpoint_open(&options, &endpoint).code, ERR_OK);
    json_t *request = json_pack("{s:[{s:s, s:s}]}", "messages", "role", "user", "content", "Hi");
    json_t *requests[] = {request, request};
    struct eval_answer answers[2];
    assert_int_equal(eval_ask(endpoint, requests, 2, 2, stop_at_the_first, &stopping, answers).code, ERR_OK);
    size_t right = answers[0].text ? 0 : 1; /* whichever came first */
    assert_string_equal(answers[right].text, "right");
    assert_true(answers[right].was_asked && !answers[1 - right].was_asked);
    assert_string_equal(answers[1 - right].error, "not asked");
    eval_answer_free(&answers[right]);
    json_decref(request);
    eval_endpoint_close(endpoint);
    script_server_close(stopping.server);
}

/* The classifier's question has the case's words, and so the case's mark. */
static void a_private_case_is_not_classified_elsewhere(void **state)
{
    (void)state;
    static const char FILE[] =
        "{\"prompt\": \"My salary\", \"strong\": \"a\", \"bantam\": {\"privacy\": \"local_only\"}}\n"
        "{\"prompt\": \"Hi\", \"strong\": \"b\"}\n";
    const struct script_step answered[] = {
        {STEP_READ, NULL}, {STEP_SEND, HEAD ANSWER("right")}, {STEP_END, NULL}};
    const struct script_step classified[] = {
        {STEP_READ, NULL}, {STEP_SEND, HEAD ANSWER("hard")}, {STEP_END, NULL}};
    const struct script_step *scripts[] = {answered, classified, classified};
    struct script_server *server = script_server_open(scripts, 3);
    char target[64];
    snprintf(target, sizeof target, "http://127.0.0.1:%u/v1#m", script_server_port(server));
    const struct eval_case_defaults defaults = {.temperature = -1};
    struct eval_cases cases;
    assert_int_equal(eval_cases_parse("f", FILE, strlen(FILE), &defaults, &cases).code, ERR_OK);
    struct eval_run run = {.cases = &cases, .n_models = 2, .strong = 1};
    const struct eval_endpoint_options endpoint = {.name = "m", .target = target, .timeout_ms = 60000};
    assert_int_equal(eval_endpoint_open(&endpoint, &run.models[0].endpoint).code, ERR_OK);
    const struct eval_run_options options = {
        .concurrency = 1, .classifier_prompt = "How hard?", .easy_label = "easy", .hard_label = "hard"};
    err_t e = eval_run(&run, &options);
    assert_string_equal(e.code == ERR_OK ? "" : e.message, "");
    assert_non_null(strstr(script_server_heard(server), "How hard?"));
    assert_null(strstr(script_server_heard(server), "salary"));
    assert_true(run.difficulty[0] == 0.5 && run.difficulty[1] == 1);
    eval_run_free(&run);
    eval_cases_free(&cases);
    script_server_close(server);
}

/* A router over gRPC is asked as the case says: it may be one that passes requests on. */
static void hints_cross_over_grpc(void **state)
{
    (void)state;
    static const struct event SAID[] = {{.kind = EVENT_FINISHED,
                                         .last = true,
                                         .text = "right",
                                         .text_bytes = 5,
                                         .finish_reason = FINISH_STOP,
                                         .stop_token_id = -1}};
    const struct fake_options fakes = {0};
    struct fake_service *fake;
    assert_int_equal(fake_service_open(&fakes, &fake).code, ERR_OK);
    fake_service_pass_on(fake, SAID, 1);
    struct grpc_door_options doors = grpc_door_options_default();
    doors.port = 0;
    doors.version = "test";
    struct grpc_door *door;
    assert_int_equal(grpc_door_open(fake_service_of(fake), &doors, &door).code, ERR_OK);
    char target[64];
    snprintf(target, sizeof target, "127.0.0.1:%u", grpc_door_port(door));
    const struct eval_endpoint_options options = {.name = "m", .target = target, .timeout_ms = 60000};
    struct eval_endpoint *endpoint;
    assert_int_equal(eval_endpoint_open(&options, &endpoint).code, ERR_OK);
    static const struct {
        const char *bantam, *hints; /* hints: NULL = it is not sent */
    } CASES[] = {
        {"{\"privacy\": \"local_only\"}", "privacy=local_only "},
        {"{\"route\": \"local\", \"complexity\": 7, \"max_cost\": \"0.01\", \"task\": \"sum\"}",
         "route=local complexity=7 max-cost=0.01 task=sum "},
        {"{}", ""},
        {"{\"privacy\": \"local\"}", NULL},
        {"{\"private\": \"yes\"}", NULL},
    };
    for (size_t i = 0; i < sizeof CASES / sizeof *CASES; i++) {
        json_t *request = json_pack("{s:[{s:s, s:s}], s:o}", "messages", "role", "user", "content", "Hi",
                                    "bantam", json_loads(CASES[i].bantam, 0, NULL));
        uint32_t before = fake_service_counts(fake).submitted;
        struct eval_answer answer;
        assert_int_equal(eval_ask(endpoint, &request, 1, 1, NULL, NULL, &answer).code, ERR_OK);
        assert_int_equal(answer.error[0] == '\0', CASES[i].hints != NULL);
        assert_int_equal(fake_service_counts(fake).submitted, before + (CASES[i].hints != NULL));
        if (CASES[i].hints) {
            assert_string_equal(answer.text, "right");
            assert_string_equal(fake_service_asked(fake).hints, CASES[i].hints);
        }
        eval_answer_free(&answer);
        json_decref(request);
    }
    eval_endpoint_close(endpoint);
    grpc_door_close(door);
    fake_service_close(fake);
}

/* A router over HTTP says in its headers who answered, and at the end what it cost, as one over gRPC does. */
static void routers_tell_who_answered(void **state)
{
    (void)state;
#define ROUTER(provider, model, usage)                                                                       \
    "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: "                                     \
    "close\r\nX-Bantam-Provider: " provider "\r\nx-bantam-answered-by: " model "\r\n\r\n"                    \
    "data: {\"choices\": [{\"index\": 0, \"delta\": {\"content\": \"right\"}, \"finish_reason\": "           \
    "\"stop\"}]}\n\ndata: {\"choices\": [], " usage "}\n\ndata: [DONE]\n\n"
#define USAGE(cost)                                                                                          \
    "\"usage\": {\"prompt_tokens\": 9, \"completion_tokens\": 1, \"bantam\": {\"cost_usd\": " cost "}}"
    const struct script_step strong[] = {
        {STEP_READ, NULL}, {STEP_SEND, ROUTER("openai", "gpt-5", USAGE("\"0.0123\""))}, {STEP_END, NULL}};
    const struct script_step weak[] = {
        {STEP_READ, NULL},
        {STEP_SEND, ROUTER("local", "demo", "\"usage\": null, \"bantam\": {\"cost_usd\": \"0.0\"}")},
        {STEP_END, NULL}};
    const struct script_step unsure[] = {
        {STEP_READ, NULL}, {STEP_SEND, ROUTER("openai", "gpt-5", USAGE("null"))}, {STEP_END, NULL}};
    const struct script_step none[] = {
        {STEP_READ, NULL}, {STEP_SEND, HEAD ANSWER("right")}, {STEP_END, NULL}};
    const struct script_step *scripts[] = {strong, weak, unsure, none};
    static const char *const MODELS[] = {"gpt-5", "demo", "gpt-5", "m-1"};
    static const nanodollars COSTS[] = {12300000, 0, -1, -1};
    struct script_server *server = script_server_open(scripts, 4);
    char target[64];
    snprintf(target, sizeof target, "http://127.0.0.1:%u/v1#m", script_server_port(server));
    const struct eval_endpoint_options options = {.name = "m", .target = target, .timeout_ms = 60000};
    struct eval_endpoint *endpoint;
    assert_int_equal(eval_endpoint_open(&options, &endpoint).code, ERR_OK);
    json_t *request = json_pack("{s:[{s:s, s:s}]}", "messages", "role", "user", "content", "Hi");
    json_t *requests[] = {request, request, request, request};
    struct eval_answer answers[4];
    assert_int_equal(eval_ask(endpoint, requests, 4, 1, NULL, NULL, answers).code, ERR_OK);
    for (size_t i = 0; i < 4; i++) {
        assert_string_equal(answers[i].model, MODELS[i]);
        assert_int_equal(answers[i].is_from_strong, i == 0 || i == 2);
        assert_int_equal(answers[i].cost, COSTS[i]);
        eval_answer_free(&answers[i]);
    }
    json_decref(request);
    eval_endpoint_close(endpoint);
    script_server_close(server);
}

static void nobody_there_ends_it(void **state)
{
    (void)state;
    struct script_server *server = script_server_open(NULL, 0); /* closes every connection */
    char target[64];
    snprintf(target, sizeof target, "http://127.0.0.1:%u/v1#m", script_server_port(server));
    const struct eval_endpoint_options options = {.name = "m", .target = target, .timeout_ms = 60000};
    struct eval_endpoint *endpoint;
    assert_int_equal(eval_endpoint_open(&options, &endpoint).code, ERR_OK);
    enum { REQUESTS = 3 * EVAL_FAILURES_MAX };
    /* A message that no model takes: refused before anything is sent, so that no time is waited. */
    json_t *request = json_pack("{s:s}", "messages", "none");
    json_t *requests[REQUESTS];
    static struct eval_answer answers[REQUESTS];
    for (size_t i = 0; i < REQUESTS; i++)
        requests[i] = request;
    err_t e = eval_ask(endpoint, requests, REQUESTS, 4, NULL, NULL, answers);
    assert_int_equal(e.code, ERR_UNAVAILABLE);
    assert_non_null(strstr(e.message, "none was answered"));
    assert_string_equal(answers[REQUESTS - 1].error, "not asked");
    json_decref(request);
    eval_endpoint_close(endpoint);
    script_server_close(server);
    static const char *const BAD[] = {"http://h/v1", "https://h/v1#", "anthropic:https://h/v1"};
    for (size_t i = 0; i < sizeof BAD / sizeof *BAD; i++) {
        struct eval_endpoint_options bad = {.name = "m", .target = BAD[i], .timeout_ms = 1};
        assert_int_equal(eval_endpoint_open(&bad, &endpoint).code, ERR_INVALID_ARGUMENT);
    }
}

static void difficulty_of_words(void **state)
{
    (void)state;
    struct eval_answer answer = {.text = "it is hard", .n_margins = 1, .margins = {0.5F}};
    assert_true(eval_difficulty_of(&answer, "easy", "hard") == 0.75);
    answer.text = "easy";
    assert_true(eval_difficulty_of(&answer, "easy", "hard") == 0.25);
    answer.text = "easy or hard";
    assert_true(eval_difficulty_of(&answer, "easy", "hard") == 0.5);
    answer.text = NULL;
    assert_true(eval_difficulty_of(&answer, "easy", "hard") == 0.5);
    assert_true(eval_answer_doubt(&answer, 5) == 0.5);
    answer.n_margins = 0;
    assert_true(eval_answer_doubt(&answer, 5) == 1);
}

static void calibration(void **state)
{
    (void)state;
    enum { ANSWERS = 1000 };
    static double doubts[ANSWERS], scores[ANSWERS];
    for (size_t i = 0; i < ANSWERS; i++) {
        doubts[i] = (double)i / ANSWERS;
        scores[i] = i < 500 || i % 2; /* right, then half wrong */
    }
    struct confidence_map map, read;
    assert_int_equal(confidence_map_fit(doubts, scores, ANSWERS, 8, &map).code, ERR_OK);
    assert_true(confidence_map_wrong(&map, 0.1) < 0.01 && fabs(confidence_map_wrong(&map, 0.8) - 0.5) < 0.05);
    assert_true(confidence_map_wrong(&map, 2) == map.points[map.n_points - 1].wrong);
    struct confidence_map none = {0};
    assert_true(confidence_map_wrong(&none, 0.3) == 0.3);
    struct buffer text = {.limit_bytes = 1 << 16};
    assert_int_equal(confidence_map_write(&map, &text).code, ERR_OK);
    assert_int_equal(confidence_map_parse(text.data, text.size, &read).code, ERR_OK);
    assert_int_equal(read.n_points, map.n_points);
    assert_true(confidence_map_wrong(&read, 0.77) == confidence_map_wrong(&map, 0.77));
    buffer_free(&text);
    static const char *const BAD[] = {
        "[]",
        "{\"bantam_calibration\": 1, \"tokens\": 8, \"points\": []}",
        "{\"bantam_calibration\": 1, \"tokens\": 0, \"points\": [[0, 0]]}",
        "{\"bantam_calibration\": 1, \"tokens\": 8, \"points\": [[0, 0], [0, 1]]}",
        "{\"bantam_calibration\": 1, \"tokens\": 8, \"points\": [[0, 0.5], [1, 0]]}",
        "{\"bantam_calibration\": 1, \"tokens\": 8, \"points\": [[0, 2]]}",
        "{\"bantam_calibration\": 1, \"tokens\": 8, \"points\": [[0]]}"};
    for (size_t i = 0; i < sizeof BAD / sizeof *BAD; i++)
        assert_int_equal(confidence_map_parse(BAD[i], strlen(BAD[i]), &read).code, ERR_INVALID_ARGUMENT);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(curves_of_one_run),
        cmocka_unit_test(a_configuration_decides),
        cmocka_unit_test(a_tier_between_is_not_measured),
        cmocka_unit_test(a_tier_between_is_measured_where_it_was_asked),
        cmocka_unit_test(reports),
        cmocka_unit_test(golden_runs),
        cmocka_unit_test(strong_answers_stand_for_a_reference),
        cmocka_unit_test(a_run_that_is_stopped_keeps_what_was_asked),
        cmocka_unit_test(a_stop_while_the_judge_is_asked),
        cmocka_unit_test(endpoints_are_asked_again),
        cmocka_unit_test(a_stop_makes_no_failure_of_a_retry),
        cmocka_unit_test(a_private_case_is_not_classified_elsewhere),
        cmocka_unit_test(hints_cross_over_grpc),
        cmocka_unit_test(routers_tell_who_answered),
        cmocka_unit_test(nobody_there_ends_it),
        cmocka_unit_test(difficulty_of_words),
        cmocka_unit_test(calibration),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
