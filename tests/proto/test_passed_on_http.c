/* The HTTP door in front of a service that passes requests on: what it is given, and what clients get of
 * answers that no engine gives. */
#include <string.h>
#include <sys/socket.h>
#include "base/event_count.h"
#include "tests/proto/answer_scripts.h"
#include "tests/proto/web_client.h"

#define CHAT        "/v1/chat/completions"
#define HELLO       "{\"messages\":[{\"role\":\"user\",\"content\":\"hi\"}]"
#define COUNT(list) (sizeof(list) / sizeof(list)[0])

static const char *text_at(const json_t *object, const char *name)
{
    return json_string_value(json_object_get(object, name));
}

static json_t *choice_at(const json_t *body, size_t i)
{
    return json_array_get(json_object_get(body, "choices"), i);
}

static void open_script(struct web *web, const struct event *events, size_t n_events)
{
    web_open(web, NULL, NULL);
    fake_service_pass_on(web->fake, events, n_events);
}

static void assert_header(const struct web_answer *answer, const char *name, const char *value)
{
    const char *found = web_header(answer, name);
    assert_non_null(found);
    assert_int_equal(strncmp(found, value, strlen(value)), 0);
    assert_int_equal(found[strlen(value)], '\r');
}

static void assert_source(const json_t *source, const char *cost_usd, int64_t attempts)
{
    assert_string_equal(text_at(source, "provider"), "mock");
    assert_string_equal(text_at(source, "model"), "strong-1");
    assert_string_equal(text_at(source, "reason"), "rule");
    assert_string_equal(text_at(source, "rule"), "tools");
    assert_string_equal(text_at(source, "cache"), "miss");
    assert_string_equal(text_at(source, "fingerprint"), "fp_7");
    assert_string_equal(text_at(source, "decision_id"), "d-1");
    const json_t *dropped = json_object_get(source, "dropped");
    assert_int_equal(json_array_size(dropped), 2);
    assert_string_equal(json_string_value(json_array_get(dropped, 1)), "min_p");
    if (cost_usd)
        assert_string_equal(text_at(source, "cost_usd"), cost_usd);
    else
        assert_true(json_is_null(json_object_get(source, "cost_usd")));
    assert_int_equal(json_integer_value(json_object_get(source, "attempts")), attempts);
}

static void requests_keep_what_an_engine_could_not_do(void **state)
{
    (void)state;
    struct web web;
    struct web_answer answer;
    open_script(&web, script_tool_answer, COUNT(script_tool_answer));
    struct web_connection connection = web_connect(&web);
    web_post(
        &connection, CHAT,
        "X-Bantam-Privacy: local_only\r\nx-bantam-max-cost: 0.5\r\nx-bantam-privacy: shareable\r\n"
        "x-bantam-unknown: 1\r\n",
        "{\"messages\":[{\"role\":\"user\",\"content\":[{\"type\":\"text\",\"text\":\"see\"},"
        "{\"type\":\"image_url\",\"image_url\":{\"url\":\"data:,\"}},"
        "{\"type\":\"text\",\"text\":\"this\"}]},"
        "{\"role\":\"assistant\",\"content\":null,\"tool_calls\":[{\"id\":\"c\"}]},"
        "{\"role\":\"tool\",\"tool_call_id\":\"c\",\"content\":\"42\"}],\"tools\":[{\"type\":\"function\"}],"
        "\"response_format\":{\"type\":\"json_object\"},\"reasoning_effort\":\"low\","
        "\"bantam\":{\"route\":\"frontier\",\"complexity\":7,\"max_cost\":\"0.01\",\"task\":null}}");
    web_read(&connection, &answer);
    assert_int_equal(answer.status, 200);
    web_answer_free(&answer);
    web_disconnect(&connection);
    struct fake_asked asked = fake_service_asked(web.fake);
    assert_int_equal(asked.prompt_kind, PROMPT_MESSAGES);
    assert_string_equal(asked.text, "user: see\nthis\nassistant: \ntool: 42\n");
    assert_string_equal(asked.hints,
                        "route=frontier complexity=7 max-cost=0.01 privacy=local_only max-cost=0.5 "
                        "privacy=shareable ");
    assert_string_equal(asked.beyond,
                        "tools is not supported: it needs constrained decoding, which this server does "
                        "not have yet; tool_choice \"none\" asks for no call");
    assert_non_null(strstr(asked.original, "\"image_url\":{\"url\":\"data:,\"}"));
    assert_non_null(strstr(asked.original, "\"reasoning_effort\":\"low\""));
    web_close(&web);
}

static void hints_have_limits(void **state)
{
    (void)state;
    struct web web;
    json_t *body;
    struct web_answer answer;
    open_script(&web, script_refusal, COUNT(script_refusal));
    assert_int_equal(web_call(&web, CHAT, HELLO ",\"bantam\":{\"rout\":\"local\"}}", &body), 400);
    assert_string_equal(web_error(body, "param"), "bantam");
    json_decref(body);
    assert_int_equal(web_call(&web, CHAT, HELLO ",\"bantam\":{\"task\":[]}}", &body), 400);
    assert_string_equal(web_error(body, "param"), "bantam.task");
    json_decref(body);
    struct buffer headers = {.limit_bytes = 4096}, json = {.limit_bytes = 4096};
    struct web_connection connection = web_connect(&web);
    for (int i = 0; i <= REQUEST_HINTS_MAX; i++) {
        buffer_append_text(&headers, "x-bantam-route: auto\r\n");
        int n_body = i == 1 ? 0 : i == REQUEST_HINTS_MAX - 1 ? 2 : -1;
        if (n_body < 0 && i < REQUEST_HINTS_MAX)
            continue;
        /* 2; 16 and one in the body; 17 */
        web_post(&connection, CHAT, headers.data,
                 n_body == 2 ? HELLO ",\"bantam\":{\"route\":\"local\"}}" : HELLO "}");
        web_read(&connection, &answer);
        assert_int_equal(answer.status, n_body == 0 ? 200 : 400);
        assert_int_equal(strstr(answer.body.data, "17 hints; at most 16") != NULL, n_body != 0);
        web_answer_free(&answer);
    }
    web_disconnect(&connection);
    for (size_t over = 0; over < 2; over++) {
        buffer_clear(&headers);
        buffer_clear(&json);
        for (size_t i = 0; i < REQUEST_HINT_BYTES_MAX + over; i++)
            buffer_append_text(&json, "t");
        buffer_append_format(&headers, "x-bantam-task: %s\r\n", json.data);
        connection = web_connect(&web);
        web_post(&connection, CHAT, headers.data, HELLO "}");
        web_read(&connection, &answer);
        assert_int_equal(answer.status, over ? 400 : 200);
        web_answer_free(&answer);
        web_disconnect(&connection);
        buffer_clear(&headers);
        buffer_append_format(&headers, HELLO ",\"bantam\":{\"task\":\"%s\"}}", json.data);
        assert_int_equal(web_call(&web, CHAT, headers.data, NULL), over ? 400 : 200);
    }
    buffer_free(&headers);
    buffer_free(&json);
    web_close(&web);
}

static void wholes_have_tool_calls_and_their_source(void **state)
{
    (void)state;
    struct web web;
    struct web_answer answer;
    open_script(&web, script_tool_answer, COUNT(script_tool_answer));
    struct web_connection connection = web_connect(&web);
    web_post(&connection, CHAT, "", HELLO "}");
    web_read(&connection, &answer);
    assert_int_equal(answer.status, 200);
    assert_header(&answer, "x-bantam-provider", "mock");
    assert_header(&answer, "x-bantam-answered-by", "strong-1");
    assert_header(&answer, "x-bantam-reason", "rule");
    assert_header(&answer, "x-bantam-rule", "tools");
    assert_header(&answer, "x-bantam-cache", "miss");
    assert_header(&answer, "x-bantam-dropped", "top_k,min_p");
    assert_header(&answer, "x-bantam-decision", "d-1");
    assert_header(&answer, "x-bantam-fingerprint", "fp_7");
    assert_header(&answer, "x-bantam-attempts", "2");
    json_t *body = json_loadb(answer.body.data, answer.body.size, 0, NULL);
    assert_string_equal(text_at(body, "model"), "strong-1");
    assert_string_equal(text_at(body, "system_fingerprint"), "fp_7");
    const json_t *message = json_object_get(choice_at(body, 0), "message"),
                 *calls = json_object_get(message, "tool_calls");
    assert_string_equal(text_at(choice_at(body, 0), "finish_reason"), "tool_calls");
    assert_string_equal(text_at(message, "content"), "Let me see");
    assert_string_equal(text_at(message, "reasoning_content"), "hm");
    assert_true(json_is_null(json_object_get(message, "refusal")));
    assert_int_equal(json_array_size(calls), 2);
    assert_string_equal(text_at(json_array_get(calls, 0), "id"), "call_a");
    assert_string_equal(text_at(json_array_get(calls, 0), "type"), "function");
    const json_t *function = json_object_get(json_array_get(calls, 0), "function");
    assert_string_equal(text_at(function, "name"), "look");
    assert_string_equal(text_at(function, "arguments"), "{\"at\":\"x\"}");
    function = json_object_get(json_array_get(calls, 1), "function");
    assert_string_equal(text_at(function, "arguments"), "{}");
    const json_t *usage = json_object_get(body, "usage");
    assert_int_equal(json_integer_value(json_object_get(usage, "prompt_tokens")), 11);
    assert_int_equal(json_integer_value(json_object_get(usage, "completion_tokens")), 7);
    assert_int_equal(json_integer_value(json_object_get(usage, "total_tokens")), 18);
    assert_source(json_object_get(usage, "bantam"), "0.0015", 2);
    json_decref(body);
    web_answer_free(&answer);
    web_disconnect(&connection);
    web_close(&web);
}

/* A stream's events; *answer is the caller's to free. */
static json_t *stream_events(struct web *web, const char *path, const char *json, struct web_answer *answer)
{
    bool done;
    struct web_connection connection = web_connect(web);
    web_post(&connection, path, "", json);
    web_read(&connection, answer);
    assert_int_equal(answer->status, 200);
    json_t *events = web_events(answer, &done);
    assert_true(done);
    web_disconnect(&connection);
    return events;
}

static void streams_have_tool_calls_and_their_source(void **state)
{
    (void)state;
    struct web web;
    struct web_answer answer;
    open_script(&web, script_tool_answer, COUNT(script_tool_answer));
    json_t *events = stream_events(
        &web, CHAT, HELLO ",\"stream\":true,\"stream_options\":{\"include_usage\":true}}", &answer);
    assert_header(&answer, "x-bantam-provider", "mock");
    assert_header(&answer, "x-bantam-decision", "d-1");
    web_answer_free(&answer);
    assert_int_equal(json_array_size(events), 4);
    const json_t *delta = json_object_get(choice_at(json_array_get(events, 1), 0), "delta");
    assert_true(json_is_null(json_object_get(delta, "content")));
    assert_string_equal(text_at(delta, "reasoning_content"), "hm");
    const json_t *call = json_array_get(json_object_get(delta, "tool_calls"), 0);
    assert_int_equal(json_integer_value(json_object_get(call, "index")), 0);
    assert_string_equal(text_at(call, "id"), "call_a");
    assert_string_equal(text_at(json_object_get(call, "function"), "arguments"), "{\"at\":");
    delta = json_object_get(choice_at(json_array_get(events, 2), 0), "delta");
    call = json_array_get(json_object_get(delta, "tool_calls"), 0);
    assert_null(json_object_get(call, "id"));
    assert_null(json_object_get(call, "type"));
    assert_null(json_object_get(json_object_get(call, "function"), "name"));
    assert_string_equal(text_at(choice_at(json_array_get(events, 2), 0), "finish_reason"), "tool_calls");
    for (size_t i = 0; i < 3; i++) {
        assert_string_equal(text_at(json_array_get(events, i), "model"), "strong-1");
        assert_true(json_is_null(json_object_get(json_array_get(events, i), "usage")));
    }
    const json_t *usage = json_object_get(json_array_get(events, 3), "usage");
    assert_int_equal(json_integer_value(json_object_get(usage, "completion_tokens")), 7);
    assert_source(json_object_get(usage, "bantam"), "0.0015", 2);
    json_decref(events);
    /* Nobody asked for usage: the last chunk tells. Counted on the way: not before the end is known. */
    events = stream_events(&web, CHAT, HELLO ",\"stream\":true}", &answer);
    web_answer_free(&answer);
    assert_null(json_object_get(json_array_get(events, 1), "bantam"));
    assert_source(json_object_get(json_array_get(events, 2), "bantam"), "0.0015", 2);
    json_decref(events);
    events = stream_events(
        &web, CHAT, HELLO ",\"stream\":true,\"stream_options\":{\"continuous_usage_stats\":true}}", &answer);
    web_answer_free(&answer);
    assert_true(json_is_null(json_object_get(json_array_get(events, 1), "usage")));
    usage = json_object_get(json_array_get(events, 2), "usage");
    assert_int_equal(json_integer_value(json_object_get(usage, "completion_tokens")), 7);
    json_decref(events);
    web_close(&web);
}

static void refusals_are_told_and_unknown_usage_is_null(void **state)
{
    (void)state;
    struct web web;
    json_t *body;
    struct web_answer answer;
    open_script(&web, script_refusal, COUNT(script_refusal));
    assert_int_equal(web_call(&web, CHAT, HELLO "}", &body), 200);
    const json_t *message = json_object_get(choice_at(body, 0), "message");
    assert_string_equal(text_at(message, "refusal"), "I will not");
    assert_true(json_is_null(json_object_get(message, "content")));
    assert_string_equal(text_at(choice_at(body, 0), "finish_reason"), "content_filter");
    assert_true(json_is_null(json_object_get(body, "usage")));
    assert_source(json_object_get(body, "bantam"), NULL, 1);
    json_decref(body);
    json_t *events = stream_events(
        &web, CHAT, HELLO ",\"stream\":true,\"stream_options\":{\"include_usage\":true}}", &answer);
    web_answer_free(&answer);
    const json_t *delta = json_object_get(choice_at(json_array_get(events, 0), 0), "delta");
    assert_string_equal(text_at(delta, "refusal"), "I will ");
    const json_t *last = json_array_get(events, 2);
    assert_true(json_is_null(json_object_get(last, "usage")));
    assert_source(json_object_get(last, "bantam"), NULL, 1);
    json_decref(events);
    web_close(&web);
}

static void choices_and_prompts_add_up(void **state)
{
    (void)state;
    struct web web;
    json_t *body;
    open_script(&web, script_two_choices, COUNT(script_two_choices));
    assert_int_equal(web_call(&web, CHAT, HELLO ",\"n\":2}", &body), 200);
    assert_string_equal(text_at(json_object_get(choice_at(body, 1), "message"), "content"), "b");
    const json_t *usage = json_object_get(body, "usage");
    assert_int_equal(json_integer_value(json_object_get(usage, "prompt_tokens")), 5);
    assert_int_equal(json_integer_value(json_object_get(usage, "completion_tokens")), 9);
    assert_source(json_object_get(usage, "bantam"), "0.0015", 2);
    json_decref(body);
    assert_int_equal(web_call(&web, "/v1/completions", "{\"prompt\":[\"x\",\"y\",\"z\"],\"n\":2}", &body),
                     200);
    assert_int_equal(json_array_size(json_object_get(body, "choices")), 6);
    usage = json_object_get(body, "usage");
    assert_int_equal(json_integer_value(json_object_get(usage, "prompt_tokens")), 15);
    assert_int_equal(json_integer_value(json_object_get(usage, "completion_tokens")), 27);
    assert_source(json_object_get(usage, "bantam"), "0.0045", 6);
    json_decref(body);
    web_close(&web);
}

static void failures_before_the_first_byte_have_a_status(void **state)
{
    (void)state;
    static const char *const bodies[] = {HELLO "}", HELLO ",\"stream\":true}"};
    struct web web;
    struct web_answer answer;
    open_script(&web, script_failure, COUNT(script_failure));
    for (size_t i = 0; i < COUNT(bodies); i++) {
        struct web_connection connection = web_connect(&web);
        web_post(&connection, CHAT, "", bodies[i]);
        web_read(&connection, &answer);
        assert_int_equal(answer.status, 503);
        assert_header(&answer, "retry-after-ms", "1700");
        assert_header(&answer, "retry-after", "2");
        assert_header(&answer, "x-bantam-provider", "mock");
        assert_non_null(strstr(answer.body.data, "mock is down"));
        web_answer_free(&answer);
        web_disconnect(&connection);
    }
    web_close(&web);
}

/* A stream that breaks later says in its last event who it was and what it cost. */
static void a_break_says_who_and_what_it_cost(void **state)
{
    (void)state;
    struct web web;
    struct web_answer answer;
    bool done;
    open_script(&web, script_break, COUNT(script_break));
    struct web_connection connection = web_connect(&web);
    web_post(&connection, CHAT, "", HELLO ",\"stream\":true}");
    web_read(&connection, &answer);
    assert_int_equal(answer.status, 200);
    json_t *events = web_events(&answer, &done);
    assert_false(done);
    assert_int_equal(json_array_size(events), 2);
    const json_t *last = json_array_get(events, 1);
    assert_non_null(strstr(text_at(json_object_get(last, "error"), "message"), "mock broke off"));
    assert_source(json_object_get(last, "bantam"), "0.0015", 2);
    json_decref(events);
    web_answer_free(&answer);
    web_disconnect(&connection);
    web_close(&web);
}

static bool one_submitted(const struct fake_counts *counts)
{
    return counts->submitted == 1;
}

/* The head of a stream waits for the first event. */
static void heads_wait_for_the_first_event(void **state)
{
    (void)state;
    struct web web;
    struct web_answer answer;
    char byte;
    open_script(&web, script_refusal, COUNT(script_refusal));
    fake_service_hold(web.fake, true);
    struct web_connection connection = web_connect(&web);
    web_post(&connection, CHAT, "", HELLO ",\"stream\":true}");
    /* The service's steps wake the door, and yet nothing comes. */
    fake_service_wait(web.fake, one_submitted);
    event_count_bump(fake_service_of(web.fake)->vtable->progress(fake_service_of(web.fake)));
    assert_int_equal(web_call(&web, "/version", NULL, NULL), 200);
    assert_int_equal(recv(connection.fd, &byte, 1, MSG_DONTWAIT), -1);
    fake_service_hold(web.fake, false);
    event_count_bump(fake_service_of(web.fake)->vtable->progress(fake_service_of(web.fake)));
    web_read(&connection, &answer);
    assert_int_equal(answer.status, 200);
    assert_header(&answer, "x-bantam-answered-by", "strong-1");
    web_answer_free(&answer);
    web_disconnect(&connection);
    web_close(&web);
}

static void models_are_those_that_may_be_asked_for(void **state)
{
    (void)state;
    struct web web;
    json_t *body;
    open_script(&web, script_refusal, COUNT(script_refusal));
    assert_int_equal(web_call(&web, "/v1/models", NULL, &body), 200);
    const json_t *models = json_object_get(body, "data"), *strong = json_array_get(models, 1);
    assert_int_equal(json_array_size(models), FAKE_CARDS);
    assert_string_equal(text_at(strong, "id"), "strong");
    assert_string_equal(text_at(strong, "owned_by"), "mock");
    assert_true(json_is_null(json_object_get(strong, "max_model_len")));
    json_decref(body);
    assert_int_equal(web_call(&web, "/v1/models/strong", NULL, &body), 200);
    assert_string_equal(text_at(body, "id"), "strong");
    json_decref(body);
    assert_int_equal(web_call(&web, "/v1/models/weak", NULL, NULL), 404);
    assert_int_equal(web_call(&web, "/tokenize", "{\"prompt\":\"a\",\"model\":\"strong\"}", NULL), 200);
    web_close(&web);
}

/* What an engine is asked, it is asked as before. */
static void engines_hear_nothing_of_it(void **state)
{
    (void)state;
    struct web web;
    struct web_answer answer;
    json_t *body;
    web_open(&web, NULL, NULL);
    struct web_connection connection = web_connect(&web);
    web_post(&connection, CHAT, "x-bantam-route: nowhere\r\n",
             HELLO ",\"bantam\":{\"rout\":[]},\"max_tokens\":2}");
    web_read(&connection, &answer);
    assert_int_equal(answer.status, 200);
    assert_null(web_header(&answer, "x-bantam-provider"));
    assert_null(strstr(answer.body.data, "\"bantam\""));
    web_answer_free(&answer);
    web_disconnect(&connection);
    struct fake_asked asked = fake_service_asked(web.fake);
    assert_string_equal(asked.hints, "");
    assert_string_equal(asked.original, "");
    assert_int_equal(web_call(&web, CHAT, HELLO ",\"tools\":[{}]}", &body), 400);
    assert_string_equal(web_error(body, "param"), "tools");
    assert_string_equal(web_error(body, "code"), "unsupported_parameter");
    json_decref(body);
    web_close(&web);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(requests_keep_what_an_engine_could_not_do),
        cmocka_unit_test(hints_have_limits),
        cmocka_unit_test(wholes_have_tool_calls_and_their_source),
        cmocka_unit_test(streams_have_tool_calls_and_their_source),
        cmocka_unit_test(refusals_are_told_and_unknown_usage_is_null),
        cmocka_unit_test(choices_and_prompts_add_up),
        cmocka_unit_test(failures_before_the_first_byte_have_a_status),
        cmocka_unit_test(a_break_says_who_and_what_it_cost),
        cmocka_unit_test(heads_wait_for_the_first_event),
        cmocka_unit_test(models_are_those_that_may_be_asked_for),
        cmocka_unit_test(engines_hear_nothing_of_it),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
