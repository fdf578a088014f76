/* Chat completions and completions over the fake service: what clients get, and what is left when they go. */
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include "base/event_count.h"
#include "tests/proto/web_client.h"

static bool nothing_lives(const struct fake_counts *counts)
{
    return counts->live == 0;
}

static bool one_lives(const struct fake_counts *counts)
{
    return counts->live == 1;
}

static bool two_live(const struct fake_counts *counts)
{
    return counts->live == 2;
}

static bool one_is_paused(const struct fake_counts *counts)
{
    return counts->paused == 1;
}

static const char *text_at(const json_t *object, const char *name)
{
    return json_string_value(json_object_get(object, name));
}

static int64_t number_at(const json_t *object, const char *name)
{
    return json_integer_value(json_object_get(object, name));
}

static json_t *choice_at(const json_t *body, size_t i)
{
    return json_array_get(json_object_get(body, "choices"), i);
}

/* The fake service's text of a choice of prompt `prompt`, a token a byte. */
static void expected_text(const char *prompt, uint32_t choice, uint32_t n_tokens, char *out, size_t out_bytes)
{
    uint32_t ids[64];
    size_t n = strlen(prompt), at = 0;
    for (size_t i = 0; i < n; i++)
        ids[i] = (unsigned char)prompt[i];
    out[0] = '\0';
    for (uint32_t i = 0; i < n_tokens; i++)
        at += (size_t)snprintf(out + at, out_bytes - at, "%u ",
                               fake_token(fake_prompt_hash(ids, n), choice, i));
}

static void small_routes_answer(void **state)
{
    (void)state;
    struct web web;
    json_t *body;
    web_open(&web, NULL, NULL);
    assert_int_equal(web_call(&web, "/version", NULL, &body), 200);
    assert_string_equal(text_at(body, "version"), "1.2.3");
    json_decref(body);
    assert_int_equal(web_call(&web, "/v1/models", NULL, &body), 200);
    const json_t *model = json_array_get(json_object_get(body, "data"), 0);
    assert_string_equal(text_at(model, "id"), "fake");
    assert_int_equal(number_at(model, "max_model_len"), FAKE_MAX_MODEL_LEN);
    json_decref(body);
    assert_int_equal(web_call(&web, "/v1/models/f%61ke", NULL, NULL), 200);
    assert_int_equal(web_call(&web, "/v1/models/fake%2", NULL, NULL), 400);
    assert_int_equal(web_call(&web, "/v1/models/%00", NULL, NULL), 400);
    assert_int_equal(web_call(&web, "/v1/models/other", NULL, &body), 404);
    assert_string_equal(web_error(body, "code"), "model_not_found");
    json_decref(body);
    assert_int_equal(web_call(&web, "/detokenize", "{\"tokens\":[5,6]}", &body), 200);
    assert_string_equal(text_at(body, "prompt"), "5 6 ");
    json_decref(body);
    assert_int_equal(web_call(&web, "/tokenize", "{\"prompt\":\"ab\",\"return_token_strs\":true}", &body),
                     200);
    assert_int_equal(number_at(body, "count"), 2);
    assert_string_equal(json_string_value(json_array_get(json_object_get(body, "token_strs"), 1)), "98 ");
    json_decref(body);
    assert_int_equal(web_call(&web, "/tokenize", "{\"prompt\":\"a\",\"model\":\"other\"}", NULL), 404);
    fake_service_set_heartbeat(web.fake, INT64_C(2000000000), false);
    assert_int_equal(web_call(&web, "/health", NULL, NULL), 503);
    fake_service_set_heartbeat(web.fake, INT64_C(2000000000), true);
    assert_int_equal(web_call(&web, "/health", NULL, NULL), 200);
    web_close(&web);
}

static void wholes_have_every_choice_of_every_prompt(void **state)
{
    (void)state;
    struct web web;
    json_t *body;
    char expected[256];
    web_open(&web, NULL, NULL);
    assert_int_equal(
        web_call(&web, "/v1/completions",
                 "{\"prompt\":[\"ab\",[120,121],\"z\"],\"n\":2,\"max_tokens\":7,\"return_token_ids\":true}",
                 &body),
        200);
    static const char *const prompts[] = {"ab", "xy", "z"};
    assert_int_equal(json_array_size(json_object_get(body, "choices")), 6);
    for (size_t i = 0; i < 6; i++) {
        const json_t *choice = choice_at(body, i);
        expected_text(prompts[i / 2], i % 2, 7, expected, sizeof expected);
        assert_int_equal(number_at(choice, "index"), i);
        assert_string_equal(text_at(choice, "text"), expected);
        assert_string_equal(text_at(choice, "finish_reason"), "length");
        assert_int_equal(json_array_size(json_object_get(choice, "token_ids")), 7);
        assert_int_equal(json_array_size(json_object_get(choice, "prompt_token_ids")),
                         strlen(prompts[i / 2]));
    }
    const json_t *usage = json_object_get(body, "usage");
    assert_int_equal(number_at(usage, "prompt_tokens"), 5);
    assert_int_equal(number_at(usage, "completion_tokens"), 42);
    assert_int_equal(number_at(json_object_get(usage, "prompt_tokens_details"), "cached_tokens"), 9);
    assert_string_equal(text_at(body, "system_fingerprint"), "0123456789abcdef");
    assert_string_equal(text_at(body, "object"), "text_completion");
    json_decref(body);
    web_close(&web);
}

static void chats_answer_with_a_message(void **state)
{
    (void)state;
    struct web web;
    json_t *body;
    web_open(&web, NULL, NULL);
    assert_int_equal(
        web_call(&web, "/v1/chat/completions",
                 "{\"messages\":[{\"role\":\"user\",\"content\":\"hi\"}],\"max_completion_tokens\":3,"
                 "\"logprobs\":true,\"top_logprobs\":2}",
                 &body),
        200);
    const json_t *choice = choice_at(body, 0), *message = json_object_get(choice, "message");
    assert_string_equal(text_at(message, "role"), "assistant");
    assert_true(strlen(text_at(message, "content")) > 0);
    const json_t *content = json_object_get(json_object_get(choice, "logprobs"), "content");
    assert_int_equal(json_array_size(content), 3);
    assert_int_equal(json_array_size(json_object_get(json_array_get(content, 2), "top_logprobs")), 2);
    json_decref(body);
    web_close(&web);
}

/* Reads a stream and gathers each choice's text; the last event with a usage goes to *usage. */
static size_t gather_stream(struct web_connection *connection, char texts[][4096], size_t max, json_t **usage)
{
    struct web_answer answer;
    bool done;
    web_read(connection, &answer);
    assert_int_equal(answer.status, 200);
    assert_non_null(strstr(web_header(&answer, "content-type"), "text/event-stream"));
    json_t *events = web_events(&answer, &done);
    assert_true(done);
    size_t n_finished = 0, i;
    json_t *event;
    *usage = NULL;
    json_array_foreach(events, i, event)
    {
        const json_t *choice = choice_at(event, 0);
        if (!choice) {
            *usage = json_incref(json_object_get(event, "usage"));
            continue;
        }
        size_t index = (size_t)number_at(choice, "index");
        assert_true(index < max);
        const json_t *delta = json_object_get(choice, "delta");
        const char *text = delta ? text_at(delta, "content") : text_at(choice, "text");
        if (delta && texts[index][0] == '\0')
            assert_string_equal(text_at(delta, "role"), "assistant");
        size_t size = strlen(texts[index]);
        (void)snprintf(texts[index] + size, 4096 - size, "%s", text);
        n_finished += text_at(choice, "finish_reason") != NULL;
    }
    json_decref(events);
    web_answer_free(&answer);
    return n_finished;
}

static void streams_say_what_wholes_say(void **state)
{
    (void)state;
    struct web web;
    web_open(&web, &(struct fake_options){.tick_ns = 20000}, NULL);
    struct web_connection connection = web_connect(&web);
    static char texts[4][4096];
    memset(texts, 0, sizeof texts);
    json_t *usage;
    char expected[4096];
    web_post(&connection, "/v1/completions", "",
             "{\"prompt\":[\"ab\",\"z\"],\"n\":2,\"max_tokens\":300,\"stream\":true,"
             "\"stream_options\":{\"include_usage\":true}}");
    assert_int_equal(gather_stream(&connection, texts, 4, &usage), 4);
    for (uint32_t i = 0; i < 4; i++) {
        expected_text(i < 2 ? "ab" : "z", i % 2, 300, expected, sizeof expected);
        assert_string_equal(texts[i], expected);
    }
    assert_int_equal(number_at(usage, "completion_tokens"), 1200);
    assert_int_equal(number_at(usage, "prompt_tokens"), 3);
    json_decref(usage);
    memset(texts, 0, sizeof texts);
    web_post(&connection, "/v1/chat/completions", "",
             "{\"messages\":[{\"role\":\"user\",\"content\":\"hi\"}],\"max_tokens\":20,\"stream\":true}");
    assert_int_equal(gather_stream(&connection, texts, 1, &usage), 1);
    assert_null(usage);
    assert_true(strlen(texts[0]) > 20);
    web_disconnect(&connection);
    web_close(&web);
}

static void echo_repeats_the_prompt(void **state)
{
    (void)state;
    struct web web;
    json_t *body;
    char expected[256], whole[300];
    web_open(&web, NULL, NULL);
    assert_int_equal(web_call(&web, "/v1/completions",
                              "{\"prompt\":[[97,98]],\"echo\":true,\"logprobs\":2,\"max_tokens\":3}", &body),
                     200);
    expected_text("ab", 0, 3, expected, sizeof expected);
    (void)snprintf(whole, sizeof whole, "97 98 %s", expected);
    const json_t *choice = choice_at(body, 0), *logprobs = json_object_get(choice, "logprobs");
    assert_string_equal(text_at(choice, "text"), whole);
    static const char *const lists[] = {"tokens", "token_logprobs", "top_logprobs", "text_offset"};
    for (size_t i = 0; i < 4; i++)
        assert_int_equal(json_array_size(json_object_get(logprobs, lists[i])), 5);
    assert_string_equal(json_string_value(json_array_get(json_object_get(logprobs, "tokens"), 1)), "98 ");
    assert_int_equal(json_integer_value(json_array_get(json_object_get(logprobs, "text_offset"), 2)), 6);
    /* Two of the best, and the chosen one. */
    assert_int_equal(json_object_size(json_array_get(json_object_get(logprobs, "top_logprobs"), 1)), 3);
    json_decref(body);
    assert_int_equal(web_call(&web, "/v1/completions",
                              "{\"prompt\":\"ab\",\"echo\":true,\"logprobs\":0,\"max_tokens\":0,\"n\":2}",
                              &body),
                     200);
    for (size_t i = 0; i < 2; i++) {
        choice = choice_at(body, i);
        assert_string_equal(text_at(choice, "text"), "ab");
        logprobs = json_object_get(choice, "logprobs");
        assert_int_equal(json_array_size(json_object_get(logprobs, "tokens")), 2);
    }
    assert_int_equal(number_at(json_object_get(body, "usage"), "completion_tokens"), 0);
    json_decref(body);
    web_close(&web);
}

static void refusals_have_their_status(void **state)
{
    (void)state;
    static const struct {
        enum err_code code;
        int status;
    } cases[] = {{ERR_INVALID_ARGUMENT, 400},  {ERR_NOT_FOUND, 404},          {ERR_RESOURCE_EXHAUSTED, 429},
                 {ERR_CANCELLED, 499},         {ERR_INTERNAL, 500},           {ERR_UNAVAILABLE, 503},
                 {ERR_DEADLINE_EXCEEDED, 504}, {ERR_FAILED_PRECONDITION, 400}};
    struct web web;
    web_open(&web, NULL, NULL);
    struct web_connection connection = web_connect(&web);
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct web_answer answer;
        fake_service_fail_submit(web.fake, cases[i].code);
        web_post(&connection, "/v1/completions", i % 2 ? "X-Request-Id: mine\r\n" : "",
                 "{\"prompt\":[\"a\",\"b\"],\"stream\":true}");
        web_read(&connection, &answer);
        assert_int_equal(answer.status, cases[i].status);
        bool later = cases[i].status == 429 || cases[i].status == 503;
        const char *after = web_header(&answer, "retry-after");
        assert_int_equal(after != NULL, later);
        if (later)
            assert_int_equal(strtol(after, NULL, 10), 1); /* 123 ms, rounded up */
        assert_int_equal(web_header(&answer, "x-request-id") != NULL, i % 2);
        web_answer_free(&answer);
    }
    assert_int_equal(fake_service_counts(web.fake).live, 0);
    web_disconnect(&connection);
    web_close(&web);
}

/* Of many prompts all are accepted or none. */
static void a_full_queue_refuses_the_whole_request(void **state)
{
    (void)state;
    struct web web;
    web_open(&web, &(struct fake_options){.max_streams = 3}, NULL);
    assert_int_equal(web_call(&web, "/v1/completions", "{\"prompt\":[\"a\",\"b\",\"c\",\"d\"]}", NULL), 429);
    assert_int_equal(fake_service_counts(web.fake).live, 0);
    assert_int_equal(web_call(&web, "/v1/completions", "{\"prompt\":[\"a\",\"b\",\"c\"]}", NULL), 200);
    web_close(&web);
}

/* Who hears of the end may come again at once, under the same name and in the same place. */
static void nothing_is_held_once_the_end_is_heard(void **state)
{
    (void)state;
    static const char *const requests[] = {"{\"prompt\":\"ab\",\"max_tokens\":3}",
                                           "{\"prompt\":\"ab\",\"max_tokens\":3,\"stream\":true}"};
    struct web web;
    web_open(&web, NULL, NULL);
    struct web_connection connection = web_connect(&web);
    for (int round = 0; round < 400; round++) {
        bool fails = round % 3 == 2 && round % 2 == 0;
        struct web_answer answer;
        fake_service_fail_at(web.fake, fails ? 1 : UINT32_MAX);
        web_post(&connection, "/v1/completions", "", requests[round % 2]);
        web_read(&connection, &answer);
        assert_int_equal(answer.status, fails ? 500 : 200);
        assert_int_equal(fake_service_counts(web.fake).live, 0);
        web_answer_free(&answer);
    }
    web_disconnect(&connection);
    web_close(&web);
}

static void failures_end_what_they_are_in(void **state)
{
    (void)state;
    struct web web;
    json_t *body;
    web_open(&web, NULL, NULL);
    for (uint32_t at = 0; at <= 5; at += 5) {
        fake_service_fail_at(web.fake, at);
        assert_int_equal(web_call(&web, "/v1/completions", "{\"prompt\":\"ab\",\"max_tokens\":9}", &body),
                         500);
        assert_non_null(strstr(web_error(body, "message"), "made to fail"));
        assert_string_equal(web_error(body, "type"), "server_error");
        json_decref(body);
    }
    fake_service_fail_at(web.fake, 3);
    struct web_connection connection = web_connect(&web);
    struct web_answer answer;
    /* What is done before it fails is not touched. */
    web_post(&connection, "/v1/completions", "", "{\"prompt\":\"ab\",\"max_tokens\":3,\"stream\":true}");
    web_read(&connection, &answer);
    assert_non_null(strstr(answer.body.data, "[DONE]"));
    web_answer_free(&answer);
    fake_service_fail_at(web.fake, UINT32_MAX);
    fake_service_hold(web.fake, true);
    web_post(&connection, "/v1/completions", "",
             "{\"prompt\":\"ab\",\"max_tokens\":40000000,\"stream\":true}");
    fake_service_wait(web.fake, one_lives);
    fake_service_hold(web.fake, false);
    web_read_head(&connection, &answer);
    assert_int_equal(answer.status, 200);
    web_answer_free(&answer);
    fake_service_fail_at(web.fake, 1); /* now it has begun */
    struct buffer rest = {.limit_bytes = 64 << 20};
    char bytes[4096];
    (void)buffer_append(&rest, connection.in.data ? connection.in.data : "", connection.in.size);
    for (ssize_t n; (n = recv(connection.fd, bytes, sizeof bytes, 0)) > 0;)
        assert_true(buffer_append(&rest, bytes, (size_t)n));
    assert_non_null(strstr(rest.data, "data: {\"error\":{\"message\":\"made to fail"));
    assert_null(strstr(rest.data, "[DONE]"));
    buffer_free(&rest);
    web_disconnect(&connection);
    web_close(&web);
}

static void requests_can_be_aborted_by_their_id(void **state)
{
    (void)state;
    struct web web;
    web_open(&web, NULL, NULL);
    fake_service_hold(web.fake, true);
    struct web_connection connection = web_connect(&web);
    struct web_answer answer;
    web_post(&connection, "/v1/completions", "X-Request-ID: mine\r\n", "{\"prompt\":\"ab\"}");
    fake_service_wait(web.fake, one_lives);
    struct service *service = fake_service_of(web.fake);
    assert_true(service->vtable->abort(service, "", "mine"));
    web_read(&connection, &answer);
    assert_int_equal(strncmp(web_header(&answer, "x-request-id"), "mine", 4), 0);
    json_t *body = json_loadb(answer.body.data, answer.body.size, 0, NULL);
    assert_string_equal(text_at(body, "id"), "cmpl-mine");
    assert_string_equal(text_at(choice_at(body, 0), "finish_reason"), "abort");
    json_decref(body);
    web_answer_free(&answer);
    web_disconnect(&connection);
    web_close(&web);
}

/* A stream whose client stops reading pauses, and goes on when it reads again. */
static void slow_readers_pause_their_stream(void **state)
{
    (void)state;
    struct http_door_options options = http_door_options_default();
    options.max_stream_bytes = 4096;
    struct web web;
    web_open(&web, NULL, &options);
    struct web_connection slow = web_connect_slow(&web);
    web_post(&slow, "/v1/completions", "",
             "{\"prompt\":\"ab\",\"max_tokens\":30000,\"stream\":true,\"logprobs\":20}");
    fake_service_wait(web.fake, one_is_paused);
    assert_int_equal(web_call(&web, "/v1/completions", "{\"prompt\":\"z\"}", NULL),
                     200); /* nobody else waits */
    struct web_answer answer;
    web_read(&slow, &answer);
    assert_non_null(strstr(answer.body.data, "data: [DONE]"));
    fake_service_wait(web.fake, nothing_lives);
    web_answer_free(&answer);
    web_disconnect(&slow);
    web_close(&web);
}

static bool one_was_submitted(const struct fake_counts *counts)
{
    return counts->submitted == 1;
}

static void dead_readers_are_cut(void **state)
{
    (void)state;
    struct http_door_options options = http_door_options_default();
    options.write_timeout_ms = 100;
    struct web web;
    web_open(&web, NULL, &options);
    struct web_connection dead = web_connect_slow(&web);
    /* Events of many bytes: some megabytes go into the sockets before anybody waits. */
    web_post(&dead, "/v1/completions", "",
             "{\"prompt\":\"ab\",\"max_tokens\":4000000000,\"stream\":true,\"logprobs\":20}");
    fake_service_wait(web.fake, one_was_submitted); /* it may be cut already */
    fake_service_wait(web.fake, nothing_lives);
    web_disconnect(&dead);
    web_close(&web);
}

static void vanished_clients_leave_nothing(void **state)
{
    (void)state;
    enum { ROUNDS = 200, LONG_BYTES = 100 << 10 };
    struct web web;
    web_open(&web, NULL, NULL);
    struct buffer lengthy = {.limit_bytes = 1 << 20};
    (void)buffer_append_text(&lengthy, "{\"stream\":true,\"max_tokens\":4000000,\"prompt\":\"");
    while (lengthy.size < LONG_BYTES)
        (void)buffer_append_text(&lengthy, "x");
    (void)buffer_append_text(&lengthy, "\"}");
    static const char *const requests[] = {
        "{\"prompt\":\"gone\",\"max_tokens\":4000000,\"stream\":true}",
        "{\"prompt\":\"gone\",\"max_tokens\":4000000}",
        "{\"prompt\":[\"a\",\"b\",\"c\"],\"n\":3,\"max_tokens\":4000000,\"stream\":true,\"logprobs\":5}",
        NULL, /* on a worker */
    };
    for (int round = 0; round < ROUNDS; round++) {
        struct web_connection victim = web_connect(&web);
        const char *request = requests[round % 4];
        web_post(&victim, "/v1/completions", "", request ? request : lengthy.data);
        if (round % 3 == 1 && round % 4 != 1)
            (void)recv(victim.fd, (char[1]){0}, 1, 0); /* its answer has begun */
        if (round % 2)
            web_cut(&victim);
        else
            web_disconnect(&victim);
    }
    fake_service_wait(web.fake, nothing_lives);
    assert_int_equal(web_call(&web, "/v1/completions", "{\"prompt\":\"z\"}", NULL), 200);
    buffer_free(&lengthy);
    web_close(&web);
}

/* Whatever is written on a worker: a long request, a long answer. */
static void long_requests_and_answers_are_whole(void **state)
{
    (void)state;
    struct web web;
    json_t *body;
    web_open(&web, NULL, NULL);
    struct buffer request = {.limit_bytes = 1 << 20};
    (void)buffer_append_text(&request, "{\"max_tokens\":2000,\"logprobs\":20,\"prompt\":\"");
    while (request.size < 50000)
        (void)buffer_append_text(&request, "x");
    (void)buffer_append_text(&request, "\"}");
    assert_int_equal(web_call(&web, "/v1/completions", request.data, &body), 200);
    const json_t *logprobs = json_object_get(choice_at(body, 0), "logprobs");
    assert_int_equal(json_array_size(json_object_get(logprobs, "top_logprobs")), 2000);
    json_decref(body);
    /* Past what an answer may have. */
    assert_int_equal(
        web_call(&web, "/v1/completions", "{\"prompt\":\"a\",\"max_tokens\":600000,\"logprobs\":20}", &body),
        400);
    assert_non_null(strstr(web_error(body, "message"), "stream it"));
    json_decref(body);
    buffer_free(&request);
    web_close(&web);
}

static void drain_loses_nothing(void **state)
{
    (void)state;
    struct web web;
    struct event_count idle = {0};
    struct web_answer answer;
    web_open(&web, NULL, NULL);
    fake_service_hold(web.fake, true);
    struct web_connection stream = web_connect(&web), whole = web_connect(&web), late = web_connect(&web);
    web_post(&stream, "/v1/completions", "", "{\"prompt\":\"ab\",\"max_tokens\":500,\"stream\":true}");
    web_post(&whole, "/v1/completions", "", "{\"prompt\":\"ab\",\"max_tokens\":500}");
    fake_service_wait(web.fake, two_live);
    assert_int_equal(http_door_active(web.door), 2);
    http_door_drain(web.door, &idle);
    struct service *service = fake_service_of(web.fake);
    service->vtable->drain(service);
    assert_int_equal(web_call(&web, "/ready", NULL, NULL), 503);
    assert_int_equal(web_call(&web, "/health", NULL, NULL), 200);
    web_post(&late, "/v1/completions", "", "{\"prompt\":\"ab\"}");
    web_read(&late, &answer);
    assert_int_equal(answer.status, 503);
    assert_true(answer.closes);
    assert_non_null(web_header(&answer, "retry-after"));
    assert_true(web_ended(&late));
    web_answer_free(&answer);
    uint32_t seen = event_count_read(&idle);
    fake_service_hold(web.fake, false);
    web_read(&stream, &answer);
    assert_non_null(strstr(answer.body.data, "data: [DONE]"));
    web_answer_free(&answer);
    web_read(&whole, &answer);
    assert_int_equal(answer.status, 200);
    assert_true(answer.closes);
    assert_true(web_ended(&whole));
    web_answer_free(&answer);
    while (!event_count_wait(&idle, seen, -1)) { /* it may wake early */
    }
    assert_int_equal(http_door_active(web.door), 0);
    web_disconnect(&stream);
    web_disconnect(&whole);
    web_disconnect(&late);
    web_close(&web);
}

static void close_cuts_off_what_is_left(void **state)
{
    (void)state;
    struct web web;
    struct web_answer answer;
    web_open(&web, &(struct fake_options){.tick_ns = 1000000}, NULL); /* nothing piles up */
    struct web_connection stream = web_connect(&web), whole = web_connect(&web), idle = web_connect(&web);
    web_post(&stream, "/v1/completions", "", "{\"prompt\":\"ab\",\"max_tokens\":4000000,\"stream\":true}");
    web_read_head(&stream, &answer);
    web_answer_free(&answer);
    fake_service_hold(web.fake, true);
    web_post(&whole, "/v1/completions", "", "{\"prompt\":\"ab\",\"max_tokens\":4000000}");
    fake_service_wait(web.fake, two_live);
    http_door_close(web.door);
    assert_int_equal(fake_service_counts(web.fake).live, 0);
    assert_true(web_ended(&idle));
    web_read(&whole, &answer);
    assert_int_equal(answer.status, 503);
    web_answer_free(&answer);
    struct buffer rest = {.limit_bytes = 64 << 20};
    char bytes[4096];
    (void)buffer_append(&rest, stream.in.data ? stream.in.data : "", stream.in.size);
    for (ssize_t n; (n = recv(stream.fd, bytes, sizeof bytes, 0)) > 0;)
        assert_true(buffer_append(&rest, bytes, (size_t)n));
    assert_non_null(strstr(rest.data, "data: {\"error\":{\"message\":\"the server is shutting down\""));
    assert_null(strstr(rest.data, "[DONE]"));
    buffer_free(&rest);
    web_disconnect(&stream);
    web_disconnect(&whole);
    web_disconnect(&idle);
    fake_service_close(web.fake);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(small_routes_answer),
        cmocka_unit_test(wholes_have_every_choice_of_every_prompt),
        cmocka_unit_test(chats_answer_with_a_message),
        cmocka_unit_test(streams_say_what_wholes_say),
        cmocka_unit_test(echo_repeats_the_prompt),
        cmocka_unit_test(refusals_have_their_status),
        cmocka_unit_test(a_full_queue_refuses_the_whole_request),
        cmocka_unit_test(nothing_is_held_once_the_end_is_heard),
        cmocka_unit_test(failures_end_what_they_are_in),
        cmocka_unit_test(requests_can_be_aborted_by_their_id),
        cmocka_unit_test(slow_readers_pause_their_stream),
        cmocka_unit_test(dead_readers_are_cut),
        cmocka_unit_test(vanished_clients_leave_nothing),
        cmocka_unit_test(long_requests_and_answers_are_whole),
        cmocka_unit_test(drain_loses_nothing),
        cmocka_unit_test(close_cuts_off_what_is_left),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
