/* Whole calls: a request out, an answer in, over a socket. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include "base/buffer.h"
#include "base/event_count.h"
#include "router/providers/provider_call.h"
#include "tests/router/script_server.h"

struct hearer {
    struct buffer text; /* "Hi|stop" */
    struct provider_result result;
    char model[64];
    err_t refusal;
    struct event_count ended;
};

static err_t take_piece(void *context, const struct answer_piece *piece, bool *pause)
{
    struct hearer *hearer = context;
    (void)pause;
    if (piece->kind == ANSWER_FINISH)
        assert_true(buffer_append_format(&hearer->text, "|%s", answer_finish_name(piece->finish)));
    assert_true(buffer_append(&hearer->text, piece->text, piece->text_bytes));
    return hearer->refusal;
}

static void take_end(void *context, const struct provider_result *result)
{
    struct hearer *hearer = context;
    hearer->result = *result;
    snprintf(hearer->model, sizeof hearer->model, "%s", result->model);
    event_count_bump(&hearer->ended);
}

static const struct provider_handler HANDLER = {.piece = take_piece, .end = take_end};

enum { PATIENT_MS = 600000 }; /* not what a test is about */

/* One call to a server that follows the script; what it heard, too. */
struct outcome {
    struct hearer hearer;
    struct buffer asked;
};

static struct outcome run_call(enum provider_kind kind, const struct script_step *script, bool is_stream,
                               int64_t chunk_timeout_ms, err_t refusal)
{
    const struct script_step *scripts[] = {script};
    struct script_server *server = script_server_open(scripts, 1);
    struct egress *egress;
    struct egress_options options = egress_options_default();
    assert_int_equal(egress_open(&options, &egress).code, ERR_OK);
    char url[64];
    snprintf(url, sizeof url, "http://127.0.0.1:%u/v1", script_server_port(server));
    const char *headers[] = {"X-Title: tests"};
    struct provider_model model = {.kind = kind, .name = "big", .max_output_tokens = 100};
    struct provider provider = {.name = "p",
                                .kind = kind,
                                .url = url,
                                .key = "k-1",
                                .headers = headers,
                                .n_headers = 1,
                                .chunk_timeout_ms = chunk_timeout_ms,
                                .models = &model,
                                .n_models = 1};
    json_t *request =
        json_pack("{s:[{s:s, s:s}], s:i}", "messages", "role", "user", "content", "Hi", "seed", 5);
    struct outcome outcome = {.hearer = {.text = {.limit_bytes = 1 << 16}, .refusal = refusal},
                              .asked = {.limit_bytes = 1 << 16}};
    assert_true(buffer_append_text(&outcome.hearer.text, ""));
    struct provider_dropped dropped;
    uint64_t number;
    struct shareable shareable;
    assert_true(privacy_release(&(struct policy_decision){0}, false, request, &shareable));
    err_t e = provider_call_start(egress, &provider, &model, &shareable, is_stream, &HANDLER, &outcome.hearer,
                                  &dropped, &number);
    assert_int_equal(e.code, ERR_OK);
    assert_int_equal(dropped.parameters, kind == PROVIDER_ANTHROPIC ? parameter_bit(PARAMETER_seed) : 0);
    shareable_free(&shareable);
    json_decref(request); /* it was read at the start */
    while (event_count_read(&outcome.hearer.ended) == 0)
        event_count_wait(&outcome.hearer.ended, 0, -1);
    egress_close(egress);
    script_server_wait_ended(server, 1);
    assert_true(buffer_append_text(&outcome.asked, script_server_heard(server)));
    script_server_close(server);
    return outcome;
}

static void forget(struct outcome *outcome)
{
    buffer_free(&outcome->hearer.text);
    buffer_free(&outcome->asked);
}

static struct outcome answer_with(enum provider_kind kind, const char *bytes, bool is_stream)
{
    const struct script_step script[] = {{STEP_READ, NULL}, {STEP_SEND, bytes}, {STEP_END, NULL}};
    return run_call(kind, script, is_stream, PATIENT_MS, err_ok());
}

#define STREAM_HEAD "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n"
#define JSON_HEAD   "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n"
#define TEXT                                                                                                 \
    "data: {\"model\": \"big-1\", \"choices\": [{\"index\": 0, \"delta\": {\"content\": \"Hi\"}}]}\n\n"
#define END                                                                                                  \
    "data: {\"choices\": [{\"index\": 0, \"delta\": {}, \"finish_reason\": \"stop\"}], \"usage\":"           \
    " {\"prompt_tokens\": 3, \"completion_tokens\": 1}}\n\n"
#define DONE "data: [DONE]\n\n"

static void assert_success(const struct outcome *outcome)
{
    const struct provider_result *result = &outcome->hearer.result;
    if (result->error.code != ERR_OK)
        fail_msg("%s", result->error.message);
    assert_string_equal(outcome->hearer.text.data, "Hi|stop");
    assert_int_equal(result->usage.input_tokens, 3);
    assert_int_equal(result->usage.output_tokens, 1);
    assert_string_equal(outcome->hearer.model, "big-1");
    assert_true(result->reached && result->has_pieces && !result->is_its_fault && !result->may_retry);
    assert_int_equal(result->head.status, 200);
}

static void openai_streams(void **state)
{
    (void)state;
    struct outcome outcome = answer_with(PROVIDER_OPENAI, STREAM_HEAD TEXT END DONE, true);
    assert_success(&outcome);
    const char *asked = outcome.asked.data;
    assert_non_null(strstr(asked, "POST /v1/chat/completions HTTP/1.1\r\n"));
    assert_non_null(strstr(asked, "\r\nAuthorization: Bearer k-1\r\n"));
    assert_non_null(strstr(asked, "\r\nX-Title: tests\r\n"));
    assert_non_null(strstr(asked, "\"stream\":true"));
    assert_non_null(strstr(asked, "\"seed\":5"));
    forget(&outcome);
}

static void anthropic_streams(void **state)
{
    (void)state;
    struct outcome outcome = answer_with(
        PROVIDER_ANTHROPIC,
        STREAM_HEAD
        "event: message_start\ndata: {\"type\": \"message_start\", \"message\": {\"model\": \"big-1\", "
        "\"usage\":"
        " {\"input_tokens\": 3, \"output_tokens\": 1}}}\n\n"
        "data: {\"type\": \"content_block_start\", \"index\": 0, \"content_block\": {\"type\": \"text\","
        " \"text\": \"Hi\"}}\n\ndata: {\"type\": \"content_block_stop\", \"index\": 0}\n\n"
        "data: {\"type\": \"message_delta\", \"delta\": {\"stop_reason\": \"end_turn\"}, \"usage\":"
        " {\"output_tokens\": 1}}\n\n"
        "data: {\"type\": \"message_stop\"}\n\n",
        true);
    assert_success(&outcome);
    const char *asked = outcome.asked.data;
    assert_non_null(strstr(asked, "POST /v1/messages HTTP/1.1\r\n"));
    assert_non_null(strstr(asked, "\r\nx-api-key: k-1\r\n"));
    assert_non_null(strstr(asked, "\r\nanthropic-version: 2023-06-01\r\n"));
    assert_null(strstr(asked, "Authorization"));
    forget(&outcome);
}

static void bodies_are_read_whatever_was_asked(void **state)
{
    (void)state;
    const char *BODY = JSON_HEAD "{\"model\": \"big-1\", \"choices\": [{\"message\": {\"content\": \"Hi\"},"
                                 " \"finish_reason\": \"stop\"}], \"usage\": {\"prompt_tokens\": 3,"
                                 " \"completion_tokens\": 1}}";
    for (int is_stream = 0; is_stream < 2; is_stream++) {
        struct outcome outcome = answer_with(PROVIDER_OPENAI, BODY, is_stream);
        assert_success(&outcome);
        forget(&outcome);
    }
}

static void what_is_whole_needs_no_good_end(void **state)
{
    (void)state;
    const struct script_step reset[] = {{STEP_READ, NULL},
                                        {STEP_SEND, STREAM_HEAD TEXT END DONE},
                                        {STEP_RESET, NULL}},
                             open[] = {{STEP_READ, NULL},
                                       {STEP_SEND, STREAM_HEAD TEXT END DONE},
                                       {STEP_UNTIL_GONE, NULL}};
    const struct script_step *ENDINGS[] = {reset, open};
    for (int i = 0; i < 2; i++) {
        struct outcome outcome = run_call(PROVIDER_OPENAI, ENDINGS[i], true, 100, err_ok());
        /* A reset may overtake the bytes before it: then it is cut, and says so. */
        if (i > 0 || outcome.hearer.result.error.code == ERR_OK)
            assert_success(&outcome);
        forget(&outcome);
    }
}

static void failures_say_whose_they_are(void **state)
{
    (void)state;
    const struct {
        const char *bytes;
        enum err_code code;
        bool is_its_fault, may_retry, has_pieces;
    } CASES[] = {
        {"HTTP/1.1 429 Too Many\r\nRetry-After: 2\r\n\r\n{\"error\": {\"message\": \"slow down\"}}",
         ERR_RESOURCE_EXHAUSTED, true, true, false},
        {"HTTP/1.1 503 Down\r\nX-Should-Retry: false\r\n\r\n", ERR_UNAVAILABLE, true, false, false},
        {"HTTP/1.1 400 Bad\r\n\r\n{\"error\": {\"message\": \"no such\"}}", ERR_INVALID_ARGUMENT, false,
         false, false},
        {"HTTP/1.1 401 Who\r\n\r\n", ERR_UNAUTHENTICATED, false, false, false},
        {"HTTP/1.1 302 There\r\nLocation: /\r\n\r\n", ERR_INTERNAL, false, false, false},
        {"", ERR_UNAVAILABLE, true, true, false},
        {STREAM_HEAD TEXT, ERR_UNAVAILABLE, true, true, true},
        {STREAM_HEAD TEXT "data: {\"error\": {\"code\": 529, \"message\": \"m\"}}\n\n", ERR_UNAVAILABLE, true,
         true, true},
        {STREAM_HEAD "data: garbage\n\n", ERR_DATA_LOSS, true, true, false},
        {JSON_HEAD "<html>", ERR_DATA_LOSS, true, true, false},
    };
    for (size_t i = 0; i < sizeof CASES / sizeof *CASES; i++) {
        struct outcome outcome = answer_with(PROVIDER_OPENAI, CASES[i].bytes, true);
        const struct provider_result *result = &outcome.hearer.result;
        if (result->error.code != CASES[i].code)
            fail_msg("case %zu: %s", i, err_code_name(result->error.code));
        assert_int_equal(result->is_its_fault, CASES[i].is_its_fault);
        assert_int_equal(result->may_retry, CASES[i].may_retry);
        assert_int_equal(result->has_pieces, CASES[i].has_pieces);
        assert_null(strstr(result->error.message, "k-1"));
        if (i == 0)
            assert_int_equal(result->error.retry_after_ms, 2000);
        forget(&outcome);
    }
}

static void an_endless_error_is_cut(void **state)
{
    (void)state;
    const struct script_step script[] = {{STEP_READ, NULL},
                                         {STEP_SEND, "HTTP/1.1 500 No\r\n\r\n"},
                                         {STEP_FLOOD, "all work and no play makes jack a dull boy\n"},
                                         {STEP_END, NULL}};
    struct outcome outcome = run_call(PROVIDER_OPENAI, script, true, PATIENT_MS, err_ok());
    assert_int_equal(outcome.hearer.result.error.code, ERR_UNAVAILABLE);
    assert_non_null(strstr(outcome.hearer.result.error.message, "500"));
    forget(&outcome);
}

static void our_own_refusal_is_not_its_fault(void **state)
{
    (void)state;
    const struct script_step script[] = {
        {STEP_READ, NULL}, {STEP_SEND, STREAM_HEAD TEXT END DONE}, {STEP_UNTIL_GONE, NULL}};
    struct outcome outcome = run_call(PROVIDER_OPENAI, script, true, PATIENT_MS,
                                      err_new(ERR_RESOURCE_EXHAUSTED, "the client reads too slowly"));
    const struct provider_result *result = &outcome.hearer.result;
    assert_int_equal(result->error.code, ERR_RESOURCE_EXHAUSTED);
    assert_true(result->reached && !result->is_its_fault && !result->may_retry);
    forget(&outcome);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(openai_streams),
        cmocka_unit_test(anthropic_streams),
        cmocka_unit_test(bodies_are_read_whatever_was_asked),
        cmocka_unit_test(what_is_whole_needs_no_good_end),
        cmocka_unit_test(failures_say_whose_they_are),
        cmocka_unit_test(an_endless_error_is_cut),
        cmocka_unit_test(our_own_refusal_is_not_its_fault),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
