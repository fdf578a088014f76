/* Calls to a server that behaves, and to one that does not. */
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <event2/event.h>
#include <cmocka.h>
#include "base/alloc.h"
#include "base/buffer.h"
#include "base/event_count.h"
#include "router/providers/egress.h"
#include "tests/base/held_port.h"
#include "tests/router/script_server.h"

/* What a handler heard of one call. */
struct hearer {
    struct egress *egress;
    uint64_t number;
    struct egress_head head;
    struct buffer body;
    struct egress_times times;
    err_t error, refusal; /* refusal: what bytes answers */
    int n_heads, n_ends;
    bool pauses;
    struct event_count heard, ended;
    pthread_t end_thread;
    struct event_base *loop; /* stopped by the end; NULL = none */
};

static err_t take_head(void *context, const struct egress_head *head)
{
    struct hearer *hearer = context;
    hearer->head = *head;
    hearer->n_heads++;
    return err_ok();
}

static err_t take_bytes(void *context, const char *bytes, size_t size, bool *pause)
{
    struct hearer *hearer = context;
    assert_int_equal(hearer->n_ends, 0);
    assert_true(buffer_append(&hearer->body, bytes, size));
    *pause = hearer->pauses;
    event_count_bump(&hearer->heard);
    return hearer->refusal;
}

static void take_end(void *context, err_t error, const struct egress_times *times)
{
    struct hearer *hearer = context;
    hearer->error = error;
    hearer->times = *times;
    hearer->n_ends++;
    hearer->end_thread = pthread_self();
    if (hearer->loop)
        event_base_loopbreak(hearer->loop);
    event_count_bump(&hearer->ended);
}

static const struct egress_handler HANDLER = {take_head, take_bytes, take_end};

static struct egress *open_egress(void)
{
    struct egress *egress;
    struct egress_options options = egress_options_default();
    assert_int_equal(egress_open(&options, &egress).code, ERR_OK);
    return egress;
}

static struct hearer new_hearer(struct egress *egress)
{
    struct hearer hearer = {
        .egress = egress, .body = {.limit_bytes = 1 << 26}, .error = err_ok(), .refusal = err_ok()};
    assert_true(buffer_append_text(&hearer.body, ""));
    return hearer;
}

static void start(struct hearer *hearer, uint16_t port, const struct egress_call *more)
{
    static const char *const HEADERS[] = {"Authorization: Bearer secret"};
    char url[64];
    snprintf(url, sizeof url, "http://127.0.0.1:%u/v1/chat/completions", port);
    struct egress_call call = more ? *more : (struct egress_call){0};
    call.url = url;
    call.headers = HEADERS;
    call.n_headers = 1;
    call.body = "{\"a\": 1}";
    call.body_bytes = 8;
    assert_int_equal(egress_start(hearer->egress, &call, &HANDLER, hearer, &hearer->number).code, ERR_OK);
}

static void wait_end(struct hearer *hearer)
{
    while (event_count_read(&hearer->ended) == 0)
        event_count_wait(&hearer->ended, 0, -1);
}

static void wait_heard(struct hearer *hearer)
{
    while (event_count_read(&hearer->heard) == 0)
        event_count_wait(&hearer->heard, 0, -1);
}

static void assert_ended(struct hearer *hearer, enum err_code code, const char *words)
{
    wait_end(hearer);
    if (hearer->error.code != code)
        fail_msg("%s: %s", err_code_name(hearer->error.code),
                 hearer->error.code == ERR_OK ? "" : hearer->error.message);
    if (words && strstr(hearer->error.message, words) == NULL)
        fail_msg("\"%s\" does not say \"%s\"", hearer->error.message, words);
    assert_int_equal(hearer->n_ends, 1);
}

#define SSE_HEAD                                                                                             \
    "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream; charset=utf-8\r\nTransfer-Encoding: chunked\r\n"    \
    "x-ratelimit-remaining-requests: 59\r\nx-ratelimit-reset-tokens: 6m0s\r\nx-ratelimit-remaining-tokens: " \
    "-1\r\nAnthropic-RateLimit-Output-Tokens-Remaining: 0\r\n"                                               \
    "anthropic-ratelimit-output-tokens-reset: 2000-01-01T00:00:00Z\r\n\r\n"

static void a_stream_comes_as_it_is_sent(void **state)
{
    (void)state;
    const struct script_step script[] = {{STEP_READ, NULL},
                                         {STEP_SEND, SSE_HEAD "9\r\ndata: a\n\n\r\n"},
                                         {STEP_WAIT, NULL},
                                         {STEP_SEND, "9\r\ndata: b\n\n\r\n0\r\n\r\n"},
                                         {STEP_END, NULL}};
    const struct script_step *scripts[] = {script};
    struct script_server *server = script_server_open(scripts, 1);
    struct egress *egress = open_egress();
    struct hearer hearer = new_hearer(egress);
    start(&hearer, script_server_port(server), NULL);
    wait_heard(&hearer); /* the second half has not been sent yet */
    assert_string_equal(hearer.body.data, "data: a\n\n");
    script_server_go(server);
    assert_ended(&hearer, ERR_OK, NULL);
    assert_string_equal(hearer.body.data, "data: a\n\ndata: b\n\n");
    assert_int_equal(hearer.n_heads, 1);
    assert_int_equal(hearer.head.status, 200);
    assert_true(hearer.head.is_event_stream);
    assert_int_equal(hearer.head.rates[EGRESS_REQUESTS].remaining, 59);
    assert_int_equal(hearer.head.rates[EGRESS_TOKENS].remaining, -1);
    assert_int_equal(hearer.head.rates[EGRESS_REQUESTS].reset_ms, -1);
    assert_int_equal(hearer.head.rates[EGRESS_TOKENS].reset_ms, 360000);
    assert_int_equal(hearer.head.rates[EGRESS_OUTPUT_TOKENS].remaining, 0);
    assert_int_equal(hearer.head.rates[EGRESS_OUTPUT_TOKENS].reset_ms, 0); /* long ago */
    assert_int_equal(hearer.head.rates[EGRESS_INPUT_TOKENS].remaining, -1);
    assert_true(hearer.times.started_ns <= hearer.times.first_byte_ns &&
                hearer.times.first_byte_ns <= hearer.times.ended_ns);
    script_server_wait_ended(server, 1);
    const char *heard = script_server_heard(server);
    assert_non_null(strstr(heard, "POST /v1/chat/completions HTTP/1.1\r\n"));
    assert_non_null(strstr(heard, "\r\nAuthorization: Bearer secret\r\n"));
    assert_non_null(strstr(heard, "\r\nContent-Type: application/json\r\n"));
    assert_non_null(strstr(heard, "\r\n\r\n{\"a\": 1}"));
    assert_null(strstr(heard, "Expect:"));
    egress_close(egress);
    script_server_close(server);
    buffer_free(&hearer.body);
}

static void a_connection_is_used_again(void **state)
{
    (void)state;
    const char *answer =
        "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 429 Too Many Requests\r\nContent-Length: 2\r\n"
        "Retry-After: 7\r\nRetry-After-Ms: 6500\r\nX-Should-Retry: false\r\n\r\n{}";
    const struct script_step script[] = {{STEP_READ, NULL},
                                         {STEP_SEND, answer},
                                         {STEP_READ, NULL},
                                         {STEP_SEND, answer},
                                         {STEP_UNTIL_GONE, NULL}};
    const struct script_step *scripts[] = {script};
    struct script_server *server = script_server_open(scripts, 1);
    struct egress *egress = open_egress();
    for (int i = 0; i < 2; i++) {
        struct hearer hearer = new_hearer(egress);
        start(&hearer, script_server_port(server), NULL);
        assert_ended(&hearer, ERR_OK, NULL);
        assert_int_equal(hearer.head.status, 429);
        assert_int_equal(hearer.head.retry_after_ms, 6500);
        assert_true(hearer.head.should_not_retry);
        assert_false(hearer.head.is_event_stream);
        assert_string_equal(hearer.body.data, "{}");
        assert_int_equal(hearer.times.reused_connection, i == 1);
        buffer_free(&hearer.body);
    }
    assert_int_equal(script_server_connections(server), 1);
    egress_close(egress);
    script_server_close(server);
}

static void a_redirect_is_not_followed(void **state)
{
    (void)state;
    const struct script_step script[] = {
        {STEP_READ, NULL},
        {STEP_SEND, "HTTP/1.1 307 Elsewhere\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n"},
        {STEP_UNTIL_GONE, NULL}};
    const struct script_step *scripts[] = {script};
    struct script_server *server = script_server_open(scripts, 1);
    struct egress *egress = open_egress();
    struct hearer hearer = new_hearer(egress);
    start(&hearer, script_server_port(server), NULL);
    assert_ended(&hearer, ERR_OK, NULL);
    assert_int_equal(hearer.head.status, 307);
    egress_close(egress);
    script_server_close(server);
    buffer_free(&hearer.body);
}

static void what_breaks_is_unavailable(void **state)
{
    (void)state;
    const struct script_step
        reset[] = {{STEP_READ, NULL},
                   {STEP_SEND, SSE_HEAD "9\r\ndata: a\n\n\r\n"},
                   {STEP_WAIT, NULL},
                   {STEP_RESET, NULL}},
        cut[] = {{STEP_READ, NULL}, {STEP_SEND, SSE_HEAD "9\r\ndata: a\n\n\r\n"}, {STEP_END, NULL}},
        silent[] = {{STEP_READ, NULL}, {STEP_END, NULL}},
        garbled[] = {{STEP_READ, NULL}, {STEP_SEND, "\x15\x03\x01 what?\r\n\r\n"}, {STEP_END, NULL}},
        bad_chunk[] = {{STEP_READ, NULL}, {STEP_SEND, SSE_HEAD "zz\r\n"}, {STEP_UNTIL_GONE, NULL}};
    const struct script_step *scripts[] = {reset, cut, silent, garbled, bad_chunk};
    struct script_server *server = script_server_open(scripts, 5);
    struct egress *egress = open_egress();
    for (int i = 0; i < 5; i++) {
        struct hearer hearer = new_hearer(egress);
        start(&hearer, script_server_port(server), NULL);
        if (i == 0) {
            wait_heard(&hearer);
            script_server_go(server);
        }
        assert_ended(&hearer, ERR_UNAVAILABLE, i < 2 ? "broke" : NULL);
        assert_string_equal(hearer.body.data, i < 2 ? "data: a\n\n" : "");
        buffer_free(&hearer.body);
    }
    egress_close(egress);
    script_server_close(server);

    egress = open_egress();
    struct hearer hearer = new_hearer(egress);
    uint16_t port;
    int held_fd = port_hold(&port); /* where nobody listens */
    start(&hearer, port, NULL);
    assert_ended(&hearer, ERR_UNAVAILABLE, "cannot be reached");
    egress_close(egress);
    (void)close(held_fd);
    buffer_free(&hearer.body);
}

static void each_wait_has_its_end(void **state)
{
    (void)state;
    const struct script_step no_answer[] = {{STEP_READ, NULL}, {STEP_UNTIL_GONE, NULL}},
                             head_alone[] = {{STEP_READ, NULL},
                                             {STEP_SEND, SSE_HEAD},
                                             {STEP_UNTIL_GONE, NULL}},
                             one_chunk[] = {{STEP_READ, NULL},
                                            {STEP_SEND, SSE_HEAD "9\r\ndata: a\n\n\r\n"},
                                            {STEP_UNTIL_GONE, NULL}};
    const struct script_step *scripts[] = {no_answer, head_alone, one_chunk, one_chunk};
    const struct {
        struct egress_call times;
        const char *words;
    } CASES[] = {
        {{.first_byte_timeout_ms = 20}, "did not begin to answer within 20 ms"},
        {{.first_byte_timeout_ms = 20, .chunk_timeout_ms = 5}, "did not begin"},
        {{.first_byte_timeout_ms = 60000, .chunk_timeout_ms = 20}, "nothing more for 20 ms"},
        {{.chunk_timeout_ms = 60000, .total_timeout_ms = 30}, "more than 30 ms"},
    };
    struct script_server *server = script_server_open(scripts, 4);
    struct egress *egress = open_egress();
    for (int i = 0; i < 4; i++) {
        struct hearer hearer = new_hearer(egress);
        start(&hearer, script_server_port(server), &CASES[i].times);
        assert_ended(&hearer, ERR_DEADLINE_EXCEEDED, CASES[i].words);
        script_server_wait_ended(server, (uint32_t)i + 1); /* the server saw the client go */
        buffer_free(&hearer.body);
    }
    egress_close(egress);
    script_server_close(server);
}

static void a_cancelled_call_leaves_at_once(void **state)
{
    (void)state;
    const struct script_step script[] = {
        {STEP_READ, NULL}, {STEP_SEND, SSE_HEAD "9\r\ndata: a\n\n\r\n"}, {STEP_UNTIL_GONE, NULL}};
    const struct script_step *scripts[] = {script, script};
    struct script_server *server = script_server_open(scripts, 2);
    struct egress *egress = open_egress();
    struct hearer hearer = new_hearer(egress), refuser = new_hearer(egress);
    start(&hearer, script_server_port(server), NULL);
    wait_heard(&hearer);
    egress_cancel(egress, hearer.number);
    egress_cancel(egress, hearer.number);
    assert_ended(&hearer, ERR_CANCELLED, NULL);
    egress_cancel(egress, hearer.number);
    egress_cancel(egress, 12345);
    egress_resume(egress, hearer.number);
    script_server_wait_ended(server, 1);
    /* A handler that has had enough. */
    refuser.refusal = err_new(ERR_DATA_LOSS, "what is this?");
    start(&refuser, script_server_port(server), NULL);
    assert_ended(&refuser, ERR_DATA_LOSS, "what is this?");
    script_server_wait_ended(server, 2);
    assert_int_equal(egress_active(egress), 0);
    egress_close(egress);
    script_server_close(server);
    buffer_free(&hearer.body);
    buffer_free(&refuser.body);
}

static void a_slow_reader_holds_the_provider_back(void **state)
{
    (void)state;
    char kilobyte[1025];
    memset(kilobyte, 'x', 1024);
    kilobyte[1024] = '\0';
    const struct script_step script[] = {{STEP_READ, NULL},
                                         {STEP_SEND, "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n"},
                                         {STEP_FLOOD, kilobyte},
                                         {STEP_END, NULL}};
    const struct script_step *scripts[] = {script};
    struct script_server *server = script_server_open(scripts, 1);
    struct egress *egress = open_egress();
    struct hearer hearer = new_hearer(egress);
    hearer.pauses = true;
    start(&hearer, script_server_port(server), NULL);
    wait_heard(&hearer);
    /* The server ends by itself once its buffers and ours are full: it has been held back. */
    script_server_wait_ended(server, 1);
    assert_int_equal(event_count_read(&hearer.heard), 1);
    assert_int_equal(event_count_read(&hearer.ended), 0);
    hearer.pauses = false; /* the egress thread reads it next after the resume */
    egress_resume(egress, hearer.number);
    assert_ended(&hearer, ERR_OK, NULL);
    assert_int_equal(hearer.body.size, (size_t)script_server_floods(server) * 1024);
    egress_close(egress);
    script_server_close(server);
    buffer_free(&hearer.body);
}

static void closing_ends_what_is_under_way(void **state)
{
    (void)state;
    const struct script_step script[] = {
        {STEP_READ, NULL}, {STEP_SEND, SSE_HEAD "9\r\ndata: a\n\n\r\n"}, {STEP_UNTIL_GONE, NULL}};
    const struct script_step *scripts[] = {script, script, script};
    struct script_server *server = script_server_open(scripts, 3);
    struct egress *egress = open_egress();
    struct hearer hearers[3];
    for (int i = 0; i < 3; i++) {
        hearers[i] = new_hearer(egress);
        start(&hearers[i], script_server_port(server), NULL);
    }
    wait_heard(&hearers[0]);
    egress_close(egress);
    for (int i = 0; i < 3; i++) {
        assert_ended(&hearers[i], ERR_CANCELLED, NULL);
        buffer_free(&hearers[i].body);
    }
    script_server_close(server);
}

static void what_cannot_be_sent_is_refused(void **state)
{
    (void)state;
    struct egress *egress;
    struct egress_options options = egress_options_default();
    options.max_calls = 0;
    assert_int_equal(egress_open(&options, &egress).code, ERR_OK);
    struct hearer hearer = new_hearer(egress);
    const char *good[] = {"x: y"}, *BAD_HEADERS[] = {"no colon", "x: y\r\nHost: evil"};
    struct egress_call call = {
        .url = "http://127.0.0.1:1/", .headers = good, .n_headers = 1, .body = "{}", .body_bytes = 2};
    assert_int_equal(egress_start(egress, &call, &HANDLER, &hearer, &hearer.number).code,
                     ERR_RESOURCE_EXHAUSTED);
    const char *BAD_URLS[] = {"",
                              "127.0.0.1",
                              "file:///etc/passwd",
                              "ftp://127.0.0.1/",
                              "http://user:key@127.0.0.1/",
                              "http://user@127.0.0.1/",
                              "gopher://x/"};
    for (size_t i = 0; i < sizeof BAD_URLS / sizeof *BAD_URLS; i++) {
        call.url = BAD_URLS[i];
        assert_int_equal(egress_start(egress, &call, &HANDLER, &hearer, &hearer.number).code,
                         ERR_INVALID_ARGUMENT);
    }
    call.url = "http://127.0.0.1:1/";
    for (size_t i = 0; i < 2; i++) {
        call.headers = &BAD_HEADERS[i];
        assert_int_equal(egress_start(egress, &call, &HANDLER, &hearer, &hearer.number).code,
                         ERR_INVALID_ARGUMENT);
    }
    assert_int_equal(hearer.n_ends, 0);
    egress_close(egress);
    buffer_free(&hearer.body);
}

/* A thread with a loop of its own: one call ends by itself, one is cancelled by another thread, one is still
 * under way when the thread leaves, and one begins after that. */
struct lane_world {
    struct egress *egress;
    uint16_t port;
    struct hearer hearers[4];
};

static void run_until_ended(struct hearer *hearer)
{
    while (hearer->n_ends == 0)
        assert_true(event_base_loop(hearer->loop, EVLOOP_NO_EXIT_ON_EMPTY) >= 0);
    hearer->loop = NULL;
}

static void *run_lane(void *context)
{
    struct lane_world *world = context;
    struct event_base *base = event_base_new();
    assert_true(egress_join(world->egress, base));
    for (int i = 0; i < 2; i++) {
        world->hearers[i].loop = base;
        start(&world->hearers[i], world->port, NULL);
        assert_int_equal(world->hearers[i].n_ends, 0); /* nobody hears of it before the loop turns */
        run_until_ended(&world->hearers[i]);
        assert_true(pthread_equal(world->hearers[i].end_thread, pthread_self()));
    }
    start(&world->hearers[2], world->port, NULL);
    while (event_count_read(&world->hearers[2].heard) == 0)
        event_base_loop(base, EVLOOP_ONCE);
    egress_leave(world->egress);
    assert_int_equal(world->hearers[2].n_ends, 1);
    assert_true(pthread_equal(world->hearers[2].end_thread, pthread_self()));
    event_base_free(base);
    start(&world->hearers[3], world->port, NULL);
    return NULL;
}

static void a_thread_with_a_loop_has_its_own_calls(void **state)
{
    (void)state;
    const struct script_step answers[] = {
        {STEP_READ, NULL},
        {STEP_SEND, "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nConnection: close\r\n\r\na"},
        {STEP_END, NULL}};
    const struct script_step hangs[] = {
        {STEP_READ, NULL}, {STEP_SEND, SSE_HEAD "9\r\ndata: a\n\n\r\n"}, {STEP_UNTIL_GONE, NULL}};
    const struct script_step *scripts[] = {answers, hangs, hangs, answers};
    struct script_server *server = script_server_open(scripts, 4);
    struct egress *egress = open_egress();
    struct lane_world world = {.egress = egress, .port = script_server_port(server)};
    for (size_t i = 0; i < 4; i++)
        world.hearers[i] = new_hearer(egress);
    pthread_t thread;
    assert_int_equal(pthread_create(&thread, NULL, run_lane, &world), 0);
    wait_heard(&world.hearers[1]);
    egress_cancel(egress, world.hearers[1].number);
    assert_int_equal(pthread_join(thread, NULL), 0);
    assert_ended(&world.hearers[0], ERR_OK, NULL);
    assert_ended(&world.hearers[1], ERR_CANCELLED, NULL);
    assert_ended(&world.hearers[2], ERR_CANCELLED, "closing");
    assert_ended(&world.hearers[3], ERR_OK, NULL);
    egress_cancel(egress, world.hearers[2].number); /* of a lane that is gone */
    egress_resume(egress, world.hearers[1].number);
    assert_int_equal(egress_active(egress), 0);
    for (size_t i = 0; i < 4; i++) {
        for (size_t k = 0; k < i; k++)
            assert_int_not_equal(world.hearers[i].number, world.hearers[k].number);
        buffer_free(&world.hearers[i].body);
    }
    egress_close(egress);
    script_server_close(server);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_stream_comes_as_it_is_sent),
        cmocka_unit_test(a_connection_is_used_again),
        cmocka_unit_test(a_redirect_is_not_followed),
        cmocka_unit_test(what_breaks_is_unavailable),
        cmocka_unit_test(each_wait_has_its_end),
        cmocka_unit_test(a_cancelled_call_leaves_at_once),
        cmocka_unit_test(a_slow_reader_holds_the_provider_back),
        cmocka_unit_test(a_thread_with_a_loop_has_its_own_calls),
        cmocka_unit_test(closing_ends_what_is_under_way),
        cmocka_unit_test(what_cannot_be_sent_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
