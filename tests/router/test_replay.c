/* Recorded traffic: how logs are read, grouped, asked again and judged. */
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
#include "router/gate/replay_run.h"
#include "router/log/decision_entry.h"
#include "tests/router/script_server.h"

#define ASKED "\"messages\": [{\"role\": \"user\", \"content\": \"Hi\"}]"

static void logs_of_all_kinds(void **state)
{
    (void)state;
    static const char LOG[] =
        "{\"request\": {" ASKED
        ", \"stream\": true, \"temperature\": 0.5}, \"response\": {\"model\": \"gpt\", \"choices\": "
        "[{\"message\": {\"content\": \"Yes\"}}], \"usage\": {\"prompt_tokens\": 3, \"completion_tokens\": "
        "1}}}\n"
        "{\"messages\": [{\"role\": \"user\", \"content\": \"Hi\"}, {\"role\": \"assistant\", \"content\": "
        "\"Yes\"}]}\n"
        "{" ASKED ", \"response\": {\"choices\": [{\"message\": {\"content\": null, \"tool_calls\": "
        "[{\"id\": \"c\", \"function\": "
        "{\"name\": \"f\", \"arguments\": \"{\\\"b\\\": 1, \\\"a\\\": 2}\"}}]}}]}, \"response_cost\": "
        "0.0125, "
        "\"startTime\": 1000.5, \"endTime\": 1002, \"model\": \"m\", \"prompt_tokens\": 9, "
        "\"completion_tokens\": 2, "
        "\"model_parameters\": {\"max_tokens\": 7}}\n"
        "{" ASKED ", \"response\": \"Yes\"}\n"
        "{" ASKED ", \"response\": null}\n"
        "{\"request\": {" ASKED "}, \"response\": {\"choices\": []}}\n"
        "nonsense\n[]\n{\"other\": 1}\n";
    struct replay_log log;
    assert_int_equal(replay_log_parse(LOG, strlen(LOG), &log).code, ERR_OK);
    assert_int_equal(log.n, 4);
    assert_int_equal(log.n_without_content, 2);
    assert_int_equal(log.n_bad, 3);
    assert_int_equal(log.first_bad, 7);
    assert_non_null(strstr(log.why_bad.message, "not a JSON object"));
    const struct replay_item *item = log.items;
    assert_string_equal(item[0].answer, "Yes");
    assert_string_equal(item[0].model, "gpt");
    assert_true(item[0].input_tokens == 3 && item[0].output_tokens == 1 && item[0].cost == -1 &&
                item[0].total_us == -1);
    assert_null(json_object_get(item[0].request, "stream"));
    assert_true(json_number_value(json_object_get(item[0].request, "temperature")) == 0.5);
    assert_string_equal(item[1].answer, "Yes");
    assert_int_equal(json_array_size(json_object_get(item[1].request, "messages")), 1);
    assert_string_equal(item[2].answer,
                        "{\"tool_calls\":[{\"arguments\":{\"a\":2,\"b\":1},\"name\":\"f\"}]}");
    assert_true(item[2].cost == 12500000 && item[2].total_us == 1500000 && item[2].input_tokens == 9);
    assert_int_equal(json_integer_value(json_object_get(item[2].request, "max_tokens")), 7);
    assert_string_equal(item[3].answer, "Yes");
    replay_log_keep_last(&log, 1);
    assert_int_equal(log.n, 1);
    replay_log_keep_last(&log, 5);
    assert_int_equal(log.n, 1);
    replay_log_free(&log);
    err_t e = {.code = ERR_INTERNAL};
    for (int64_t nth = 0; e.code != ERR_OK; nth++) {
        mem_fail_nth(nth);
        e = replay_log_parse(LOG, strlen(LOG), &log);
        mem_fail_nth(-1);
        assert_true(e.code == ERR_OK || (e.code == ERR_RESOURCE_EXHAUSTED && log.n == 0));
        assert_true(nth < 200);
    }
    replay_log_free(&log);
}

static const struct decision_key KEY = {{1}};

static struct decision_entry an_entry(void)
{
    return (struct decision_entry){.unix_ms = 5,
                                   .id = "d-1",
                                   .request_id = "",
                                   .tenant = "acme",
                                   .model = "",
                                   .provider = "p",
                                   .answered_by = "big",
                                   .tier = "frontier",
                                   .reason = "rule",
                                   .rule = "pictures",
                                   .cache = "off",
                                   .policy_id = "",
                                   .fingerprint = "",
                                   .stage = "",
                                   .error = "",
                                   .finish_reason = "stop",
                                   .difficulty = -1,
                                   .confidence = -1,
                                   .predicted_ttft_ms = -1,
                                   .queue_us = -1,
                                   .first_token_us = 10,
                                   .total_us = 20,
                                   .usage = {3, -1, -1, 4, -1},
                                   .cost = 70,
                                   .frontier_cost = -1};
}

static void decision_logs(void **state)
{
    (void)state;
    struct buffer text = {.limit_bytes = 1 << 20};
    json_t *request = json_pack("{s:[{s:s, s:s}]}", "messages", "role", "user", "content", "Hi");
    struct decision_entry entry = an_entry();
    entry.request = request;
    entry.answer = "Yes";
    entry.answer_bytes = 3;
    assert_int_equal(decision_entry_encode(&entry, true, &KEY, &text).code, ERR_OK);
    assert_true(buffer_append_text(&text, "\n"));
    assert_int_equal(decision_entry_encode(&entry, false, &KEY, &text).code, ERR_OK); /* hashes only */
    assert_true(buffer_append_text(&text, "\n"));
    entry.error = "UNAVAILABLE";
    assert_int_equal(decision_entry_encode(&entry, true, &KEY, &text).code, ERR_OK);
    struct replay_log log;
    assert_int_equal(replay_log_parse(text.data, text.size, &log).code, ERR_OK);
    assert_int_equal(log.n, 1);
    assert_int_equal(log.n_without_content, 2);
    assert_string_equal(log.items[0].answer, "Yes");
    assert_string_equal(log.items[0].model, "big");
    assert_true(log.items[0].cost == 70 && log.items[0].total_us == 20 && log.items[0].output_tokens == 4);
    replay_log_free(&log);
    json_decref(request);
    buffer_free(&text);
}

static void decisions_are_held_against_a_policy(void **state)
{
    (void)state;
    static const char POLICY[] =
        "tiers:\n  - {name: small, models: [local/demo]}\n  - {name: frontier, models: [p/big]}\n"
        "rules:\n  - {name: pictures, when: {images: {min: 2}}, to: frontier}\n";
    struct yaml_file *file;
    struct policy *policy;
    assert_int_equal(yaml_file_parse("p", POLICY, strlen(POLICY), &file).code, ERR_OK);
    struct yaml_value root = yaml_root(file);
    assert_int_equal(policy_read(&root, &policy).code, ERR_OK);
    struct buffer text = {.limit_bytes = 1 << 20}, lines = {.limit_bytes = 1 << 16};
    struct decision_entry entry = an_entry();
    struct request_signals signals = {.n_images = 2};
    struct route_hints hints = ROUTE_HINTS_NONE;
    struct policy_input input = {.signals = &signals,
                                 .hints = &hints,
                                 .tenant = "acme",
                                 .model = "",
                                 .intent = "",
                                 .difficulty = -1,
                                 .ttft_ms = {-1, -1, -1, -1, -1, -1, -1, -1}};
    entry.input = &input;
    entry.n_tiers = 2;
    for (int i = 0; i < 4; i++) {
        signals.n_images = i == 1 ? 1 : 2; /* the second one stays under this policy */
        entry.reason = i == 2 ? "cascade" : "rule";
        entry.input = i == 3 ? NULL : &input;
        assert_int_equal(decision_entry_encode(&entry, false, &KEY, &text).code, ERR_OK);
        assert_true(buffer_append_text(&text, "\n"));
    }
    assert_true(buffer_append_text(&text, "nonsense\n"));
    struct replay_decisions sums;
    assert_int_equal(replay_decisions(text.data, text.size, policy, &lines, &sums).code, ERR_OK);
    assert_true(sums.n_same == 1 && sums.n_different == 1 && sums.n_later == 1 && sums.n_without == 1 &&
                sums.n_bad == 1);
    assert_string_equal(lines.data, "d-1: frontier (rule pictures) became small (default)\n");
    /* The log has the tier of what was refused, and that nobody was asked. */
    text.size = 0;
    signals.n_images = 2;
    input.cannot_cross[0] = input.cannot_cross[1] = "because";
    entry.input = &input;
    entry.reason = "cannot_cross";
    entry.error = "UNIMPLEMENTED";
    for (uint32_t attempts = 0; attempts < 2; attempts++) {
        entry.attempts = attempts;
        assert_int_equal(decision_entry_encode(&entry, false, &KEY, &text).code, ERR_OK);
        assert_true(buffer_append_text(&text, "\n"));
    }
    assert_int_equal(replay_decisions(text.data, text.size, policy, &lines, &sums).code, ERR_OK);
    assert_true(sums.n_same == 1 && sums.n_different == 1);
    buffer_free(&text);
    buffer_free(&lines);
    policy_free(policy);
    yaml_file_close(file);
}

static void put_request(struct buffer *text, const char *system, const char *user)
{
    assert_true(buffer_append_text(text, "{\"messages\": ["));
    if (system != NULL)
        assert_true(buffer_append_format(text, "{\"role\": \"system\", \"content\": \"%s\"}, ", system));
    assert_true(buffer_append_format(
        text, "{\"role\": \"user\", \"content\": \"%s\"}], \"response\": \"x\"}\n", user));
}

static void requests_that_are_alike(void **state)
{
    (void)state;
    static const struct {
        const char *system, *user;
        uint32_t group;
    } REQUESTS[] = {
        {"You sort tickets.", "The app crashes", 0},
        {NULL,
         "What is the sentiment of this review? Answer positive, negative or neutral. Review: I like the "
         "lamp.",
         1},
        {"You sort tickets.", "My invoice is wrong", 0},
        {NULL,
         "What is the sentiment of this review? Answer positive, negative or neutral. Review: It broke at "
         "once",
         1},
        {"You sort orders.", "The app crashes", 2},
        {NULL, "Extract the order as JSON with the keys order_id, customer, item. Order 17 of Ms Gray", 3},
        {NULL, "Extract the order as JSON with the keys order_id, customer, item. Order 2041 of Mr Black", 3},
        {NULL, "Write a poem", 4},
        {NULL, "write A poem", 4},
        {NULL, "Gr\\u00fc\\u00dfe", 5},
    };
    struct buffer text = {.limit_bytes = 1 << 20};
    for (size_t i = 0; i < sizeof REQUESTS / sizeof *REQUESTS; i++)
        put_request(&text, REQUESTS[i].system, REQUESTS[i].user);
    struct replay_log log;
    static struct replay_clusters clusters;
    assert_int_equal(replay_log_parse(text.data, text.size, &log).code, ERR_OK);
    assert_int_equal(replay_clusters_make(&log, &clusters).code, ERR_OK);
    for (size_t i = 0; i < sizeof REQUESTS / sizeof *REQUESTS; i++)
        if (clusters.of[i] != REQUESTS[i].group)
            fail_msg("%s is in group %u", REQUESTS[i].user, clusters.of[i]);
    assert_string_equal(clusters.names[0], "You sort tickets.");
    assert_string_equal(clusters.names[1], "What is the sentiment of this review? Answer pos");
    replay_clusters_free(&clusters);
    replay_log_free(&log);
    buffer_clear(&text);
    for (int i = 0; i < REPLAY_CLUSTERS_MAX + 20; i++) {
        char system[32];
        snprintf(system, sizeof system, "System %d", i);
        put_request(&text, system, "Hi");
    }
    assert_int_equal(replay_log_parse(text.data, text.size, &log).code, ERR_OK);
    assert_int_equal(replay_clusters_make(&log, &clusters).code, ERR_OK);
    assert_int_equal(clusters.n, REPLAY_CLUSTERS_MAX);
    assert_string_equal(clusters.names[REPLAY_CLUSTERS_MAX - 1], "other");
    assert_int_equal(clusters.of[REPLAY_CLUSTERS_MAX + 19], REPLAY_CLUSTERS_MAX - 1);
    assert_int_equal(clusters.of[5], 5);
    replay_clusters_free(&clusters);
    replay_log_free(&log);
    buffer_free(&text);
}

#define HEAD "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n"
#define ANSWER(text)                                                                                         \
    {STEP_READ, NULL},                                                                                       \
        {STEP_SEND,                                                                                          \
         HEAD "data: {\"choices\": [{\"index\": 0, \"delta\": {\"content\": \"" text "\"}}]}\n\n"            \
              "data: {\"choices\": [{\"index\": 0, \"delta\": {}, \"finish_reason\": \"stop\"}]}\n\n"        \
              "data: [DONE]\n\n"},                                                                           \
    {                                                                                                        \
        STEP_END, NULL                                                                                       \
    }

/* Three recorded answers: one comes again, one with half of its fields, one judged: as good from one side,
 * worse from the other. */
static void answers_are_compared(void **state)
{
    (void)state;
    static const char LOG[] =
        "{" ASKED ", \"response\": \"Yes.\", \"response_cost\": 0.01}\n"
        "{" ASKED ", \"response\": \"{\\\"a\\\": 1, \\\"b\\\": 2}\", \"response_cost\": 0.01}\n"
        "{\"messages\": [{\"role\": \"system\", \"content\": \"S\"}, {\"role\": \"user\", \"content\": "
        "\"Hi\"}], \"response\": \"Maybe\", \"response_cost\": 0.01}\n";
    const struct script_step yes[] = {ANSWER("yes")}, half[] = {ANSWER("{\\\"b\\\": 2, \\\"a\\\": 7}")},
                             no[] = {ANSWER("No")};
    const struct script_step says_b[] = {ANSWER("B")}, says_c[] = {ANSWER("C")}, says_a[] = {ANSWER("A")};
    /* The model's three, then the judge's: {half, reference} worse from both sides, "No" once as good. */
    const struct script_step *scripts[] = {yes, half, no, says_a, says_b, says_c, says_b};
    struct script_server *server = script_server_open(scripts, 7);
    char target[64];
    snprintf(target, sizeof target, "http://127.0.0.1:%u/v1#m", script_server_port(server));
    const struct price free_of_charge = {0};
    const struct eval_endpoint_options options = {
        .name = "m", .target = target, .price = &free_of_charge, .timeout_ms = 60000};
    struct replay_options replay = {.name = "m", .concurrency = 1, .margin = 0.03, .temperature = 0};
    assert_int_equal(eval_endpoint_open(&options, &replay.model).code, ERR_OK);
    replay.judge = replay.model;
    struct replay_log log;
    static struct replay_result result;
    assert_int_equal(replay_log_parse(LOG, strlen(LOG), &log).code, ERR_OK);
    err_t e = replay_run(&log, &replay, &result);
    if (e.code != ERR_OK)
        fail_msg("%s", e.message);
    const struct replay_sum *all = &result.all;
    assert_true(all->n == 3 && all->n_same == 1 && all->n_json == 1 && all->n_judged_as_good == 1 &&
                all->n_failed == 0);
    assert_true(all->fields == 0.5 && fabs(all->agree.value - 2.0 / 3) < 1e-9);
    assert_true(all->cost_then == 30000000 && all->cost_now == -1); /* it did not count its tokens */
    assert_int_equal(result.clusters.n, 2);
    assert_true(result.sums[0].n == 2 && result.sums[1].n == 1 && result.sums[1].n_judged_as_good == 1);
    struct buffer table = {.limit_bytes = 1 << 20}, json = {.limit_bytes = 1 << 20};
    assert_int_equal(replay_table(&log, &replay, &result, &table).code, ERR_OK);
    assert_non_null(strstr(table.data, "Your last 3 requests on m: 66.7 % agree"));
    assert_non_null(strstr(table.data, "? instead of $0.03"));
    assert_int_equal(replay_json(&log, &replay, &result, &json).code, ERR_OK);
    json_t *root = json_loadb(json.data, json.size, JSON_REJECT_DUPLICATES, NULL);
    assert_int_equal(json_array_size(json_object_get(root, "groups")), 2);
    json_decref(root);
    buffer_free(&table);
    buffer_free(&json);
    replay_result_free(&result);
    replay_log_free(&log);
    eval_endpoint_close(replay.model);
    script_server_close(server);
}

/* What a policy sends on keeps its answer and is not asked; what its rules keep here is not sent to anyone.
 */
static void policies_are_replayed(void **state)
{
    (void)state;
    static const char CONFIG[] =
        "local:\n  - {name: demo, targets: [\"127.0.0.1:1\"]}\n"
        "providers:\n  - name: p\n    kind: compatible\n    url: http://127.0.0.1:1/v1\n"
        "    models: [{name: big, price: {input: 1, output: 2, as_of: 2026-11-01}}]\n"
        "tiers:\n  - {name: small, models: [local/demo]}\n  - {name: frontier, models: [p/big]}\n"
        "rules:\n  - {name: greek, when: {scripts: [greek]}, local_only: yes}\n"
        "  - {name: payroll, when: {models: [payroll]}, local_only: yes}\n"
        "  - {name: long, when: {turns: {min: 2}}, to: frontier}\n";
    static const char LOG[] =
        "{\"messages\": [{\"role\": \"user\", \"content\": \"a\"}, {\"role\": \"user\", \"content\": "
        "\"b\"}], "
        "\"response\": \"x\", \"response_cost\": 0.5}\n"
        "{\"messages\": [{\"role\": \"user\", \"content\": \"\\u03b1\\u03b2\\u03b3\"}], \"response\": \"y\", "
        "\"response_cost\": 0.5}\n"
        "{\"request\": {\"model\": \"payroll\", " ASKED
        "}, \"response\": {\"choices\": [{\"message\": {\"content\": \"z\"}}]}}\n";
    struct script_server *server = script_server_open(NULL, 0);
    char target[64];
    snprintf(target, sizeof target, "http://127.0.0.1:%u/v1#m", script_server_port(server));
    const struct eval_endpoint_options options = {.name = "m", .target = target, .timeout_ms = 60000};
    struct replay_options replay = {.name = "m", .concurrency = 1, .margin = 0.03, .temperature = -1};
    struct route_config *config;
    err_t e = route_config_parse("r", CONFIG, strlen(CONFIG), getenv, &config);
    if (e.code != ERR_OK)
        fail_msg("%s", e.message);
    replay.config = config;
    assert_int_equal(eval_endpoint_open(&options, &replay.model).code, ERR_OK);
    struct replay_log log;
    static struct replay_result result;
    assert_int_equal(replay_log_parse(LOG, strlen(LOG), &log).code, ERR_OK);
    assert_int_equal(replay_run(&log, &replay, &result).code, ERR_OK);
    assert_true(result.all.n == 3 && result.all.n_stays == 1 && result.all.n_failed == 2);
    assert_int_equal(script_server_connections(server), 0);
    replay_result_free(&result);
    replay_log_free(&log);
    eval_endpoint_close(replay.model);
    script_server_close(server);
    route_config_free(config);
}

static void advice(void **state)
{
    (void)state;
    struct replay_sum sum = {.agree = stat_wilson(1000, 1000)};
    assert_string_equal(replay_advice(&sum, 0.03), "move");
    sum.agree = stat_wilson(10, 10);
    assert_string_equal(replay_advice(&sum, 0.03), "look");
    sum.agree = stat_wilson(900, 1000);
    assert_string_equal(replay_advice(&sum, 0.03), "keep");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(logs_of_all_kinds),
        cmocka_unit_test(decision_logs),
        cmocka_unit_test(requests_that_are_alike),
        cmocka_unit_test(decisions_are_held_against_a_policy),
        cmocka_unit_test(answers_are_compared),
        cmocka_unit_test(policies_are_replayed),
        cmocka_unit_test(advice),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
