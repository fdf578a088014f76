/* HTTP itself: framing, limits, time, connections. What is behind it hardly matters. */
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
#include "api/metrics.h"
#include "tests/proto/web_client.h"

#define SHORT_COMPLETION "{\"prompt\":\"abc\",\"max_tokens\":3}"

static int status_of_bytes(const struct web *web, const char *bytes, size_t size)
{
    struct web_connection connection = web_connect(web);
    struct web_answer answer;
    web_send(&connection, bytes, size);
    web_read(&connection, &answer);
    int status = answer.status;
    if (status >= 400) {
        json_t *body = json_loadb(answer.body.data, answer.body.size, 0, NULL);
        assert_non_null(web_error(body, "message"));
        json_decref(body);
    }
    web_answer_free(&answer);
    web_disconnect(&connection);
    return status;
}

static void malformed_requests_are_refused(void **state)
{
    (void)state;
    static const struct {
        int status;
        const char *request;
    } cases[] = {
        {200, "GET /health HTTP/1.1\r\nHost: t\r\n\r\n"},
        {200, "\r\n\r\nGET /health HTTP/1.1\r\nHost:t\r\n\r\n"},
        {200, "GET http://some.where/health?x=1 HTTP/1.1\r\nHost: t\r\n\r\n"},
        {200, "GET /health HTTP/1.0\r\n\r\n"},
        {400, "GET /health\r\n\r\n"},
        {400, "GET  /health HTTP/1.1\r\nHost: t\r\n\r\n"},
        {400, "G@T /health HTTP/1.1\r\nHost: t\r\n\r\n"},
        {400, "GET health HTTP/1.1\r\nHost: t\r\n\r\n"},
        {400, "GET /he alth HTTP/1.1\r\nHost: t\r\n\r\n"},
        {505, "GET /health HTTP/2.0\r\nHost: t\r\n\r\n"},
        {400, "GET /health ICY/1.1\r\nHost: t\r\n\r\n\r\n"},
        {400, "GET /health HTTP/1.1\nHost: t\n\n"},
        {400, "GET /health HTTP/1.1\r\nHost: t\n\r\n"},
        {400, "GET /health HTTP/1.1\r\n\r\n"},
        {400, "GET /health HTTP/1.1\r\nHost: t\r\nHost: u\r\n\r\n"},
        {400, "GET /health HTTP/1.1\r\nHost: t\r\n folded\r\n\r\n"},
        {400, "GET /health HTTP/1.1\r\nHost : t\r\n\r\n"},
        {400, "GET /health HTTP/1.1\r\nHost: t\r\nno colon\r\n\r\n"},
        {400, "GET /health HTTP/1.1\r\nHost: t\r\nX: a\x01z\r\n\r\n"},
        {417, "GET /health HTTP/1.1\r\nHost: t\r\nExpect: wonders\r\n\r\n"},
        {400, "POST /tokenize HTTP/1.1\r\nHost: t\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\nx"},
        {400, "POST /tokenize HTTP/1.1\r\nHost: t\r\nContent-Length: -1\r\n\r\n"},
        {400, "POST /tokenize HTTP/1.1\r\nHost: t\r\nContent-Length: +1\r\n\r\nx"},
        {400, "POST /tokenize HTTP/1.1\r\nHost: t\r\nContent-Length: 1, 1\r\n\r\nx"},
        {400, "POST /tokenize HTTP/1.1\r\nHost: t\r\nContent-Length: 99999999999999999999\r\n\r\n"},
        {413, "POST /tokenize HTTP/1.1\r\nHost: t\r\nContent-Length: 999999999999999999\r\n\r\n"},
        {400,
         "POST /t HTTP/1.1\r\nHost: t\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"},
        {501, "POST /tokenize HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n"},
        {400, "POST /tokenize HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"},
        {400, "POST /tokenize HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\n\r\nx\r\n\r\n"},
        {400, "POST /tokenize HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nab\r\n"},
        {400, "POST /tokenize HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\n\r\nfffffffff\r\n"},
        {404, "GET /nothing HTTP/1.1\r\nHost: t\r\n\r\n"},
        {404, "OPTIONS * HTTP/1.1\r\nHost: t\r\n\r\n"},
        {405, "GET /tokenize HTTP/1.1\r\nHost: t\r\n\r\n"},
        {405, "DELETE /health HTTP/1.1\r\nHost: t\r\n\r\n"},
        {415, "POST /tokenize HTTP/1.1\r\nHost: t\r\nContent-Length: 2\r\n\r\n{}"},
        {415,
         "POST /tokenize HTTP/1.1\r\nHost: t\r\nContent-Type: text/plain\r\nContent-Length: 2\r\n\r\n{}"},
    };
    struct web web;
    web_open(&web, NULL, NULL);
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        int status = status_of_bytes(&web, cases[i].request, strlen(cases[i].request));
        if (status != cases[i].status)
            print_error("case %zu: %s\n", i, cases[i].request);
        assert_int_equal(status, cases[i].status);
    }
    static const char with_nul[] = "GET /health HTTP/1.1\r\nHost: t\0t\r\n\r\n";
    assert_int_equal(status_of_bytes(&web, with_nul, sizeof with_nul - 1), 400);
    web_close(&web);
}

static void heads_are_limited(void **state)
{
    (void)state;
    struct http_door_options options = http_door_options_default();
    options.max_head_bytes = 4096;
    struct web web;
    web_open(&web, NULL, &options);
    struct buffer request = {.limit_bytes = 1 << 20};
    /* One enormous header that never ends. */
    (void)buffer_append_text(&request, "GET /health HTTP/1.1\r\nHost: t\r\nX: ");
    while (request.size < options.max_head_bytes)
        (void)buffer_append_text(&request, "x");
    assert_int_equal(status_of_bytes(&web, request.data, request.size), 431);
    buffer_clear(&request);
    (void)buffer_append_text(&request, "GET /health HTTP/1.1\r\nHost: t\r\n");
    for (int i = 0; i < 63; i++)
        (void)buffer_append_format(&request, "h%d: x\r\n", i);
    size_t most = request.size;
    (void)buffer_append_text(&request, "\r\n");
    assert_int_equal(status_of_bytes(&web, request.data, request.size), 200);
    request.size = most;
    (void)buffer_append_text(&request, "one: more\r\n\r\n");
    assert_int_equal(status_of_bytes(&web, request.data, request.size), 431);
    buffer_clear(&request);
    (void)buffer_append_text(&request, "GET /");
    for (int i = 0; i < 2048; i++)
        (void)buffer_append_text(&request, "p");
    (void)buffer_append_text(&request, " HTTP/1.1\r\nHost: t\r\n\r\n");
    assert_int_equal(status_of_bytes(&web, request.data, request.size), 414);
    buffer_free(&request);
    web_close(&web);
}

/* A refused client hears why although it goes on sending, and then the connection ends. */
static void bodies_are_limited(void **state)
{
    (void)state;
    enum { LIMIT = 20000 };
    struct http_door_options options = http_door_options_default();
    options.max_message_bytes = LIMIT;
    struct web web;
    web_open(&web, NULL, &options);
    static char bytes[4 * LIMIT];
    memset(bytes, ' ', sizeof bytes);
    struct web_answer answer;
    struct web_connection told = web_connect(&web), chunked = web_connect(&web);
    char head[256];
    (void)snprintf(head, sizeof head, "POST /tokenize HTTP/1.1\r\nHost: t\r\nContent-Length: %d\r\n\r\n",
                   LIMIT + 1);
    web_send_text(&told, head);
    (void)web_try_send(&told, bytes, LIMIT + 1);
    web_read(&told, &answer);
    assert_int_equal(answer.status, 413);
    assert_true(answer.closes);
    assert_true(web_ended(&told));
    web_answer_free(&answer);
    (void)snprintf(head, sizeof head,
                   "POST /tokenize HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n",
                   4 * LIMIT);
    web_send_text(&chunked, head);
    (void)web_try_send(&chunked, bytes, sizeof bytes);
    web_read(&chunked, &answer);
    assert_int_equal(answer.status, 413);
    web_answer_free(&answer);
    web_disconnect(&told);
    web_disconnect(&chunked);
    /* Exactly the limit is read, and then refused for what it says. */
    bytes[LIMIT] = '\0';
    assert_int_equal(web_call(&web, "/tokenize", bytes, NULL), 400);
    web_close(&web);
}

static void held_bodies_are_limited_together(void **state)
{
    (void)state;
    struct http_door_options options = http_door_options_default();
    options.max_pending_bytes = 3000;
    struct web web;
    web_open(&web, NULL, &options);
    char body[4000];
    memset(body, ' ', sizeof body);
    body[sizeof body - 1] = '\0';
    assert_int_equal(web_call(&web, "/tokenize", body, NULL), 503);
    body[2000] = '\0';
    assert_int_equal(web_call(&web, "/tokenize", body, NULL), 400); /* no JSON: it was read */
    web_close(&web);
}

static void whole_answers_are_limited_together(void **state)
{
    (void)state;
    struct http_door_options options = http_door_options_default();
    options.max_output_bytes = 1000;
    struct web web;
    web_open(&web, NULL, &options);
    json_t *body;
    assert_int_equal(web_call(&web, "/v1/completions", "{\"prompt\":\"a\",\"max_tokens\":40000}", &body),
                     503);
    assert_non_null(strstr(web_error(body, "message"), "slowly"));
    json_decref(body);
    assert_int_equal(web_call(&web, "/v1/completions", SHORT_COMPLETION, NULL), 200);
    web_close(&web);
}

/* A request whose answer has some four times its bytes, more than a socket takes. */
static char *large_tokenize(size_t text_bytes)
{
    static const char head[] = "{\"prompt\":\"", tail[] = "\"}";
    char *body = malloc(sizeof head + text_bytes + sizeof tail);
    assert_non_null(body);
    memcpy(body, head, sizeof head - 1);
    memset(body + sizeof head - 1, 'x', text_bytes);
    memcpy(body + sizeof head - 1 + text_bytes, tail, sizeof tail);
    return body;
}

/* An answer that nobody reads holds its own bytes, and not the request's. */
static void answered_bodies_are_free(void **state)
{
    (void)state;
    enum { TEXT_BYTES = 2 << 20 };
    struct http_door_options options = http_door_options_default();
    options.max_pending_bytes = TEXT_BYTES + TEXT_BYTES / 2;
    struct web web;
    web_open(&web, NULL, &options);
    char *body = large_tokenize(TEXT_BYTES);
    struct web_connection slow = web_connect_slow(&web);
    struct web_answer answer;
    web_post(&slow, "/tokenize", "", body);
    web_read_head(&slow, &answer);
    assert_int_equal(answer.status, 200);
    web_answer_free(&answer);
    assert_int_equal(web_call(&web, "/tokenize", body, NULL), 200);
    web_disconnect(&slow);
    free(body);
    web_close(&web);
}

static struct metrics *metrics_of(const struct web *web)
{
    struct service *service = fake_service_of(web->fake);
    return service->vtable->metrics(service);
}

static uint64_t slow_reader_cuts(const struct web *web)
{
    return atomic_load(&metrics_of(web)->slow_reader_cuts[0]);
}

/* Reads a large answer by and by, never silent for as long as the limit (unless the machine is busy: then it
 * is cut for its silence), until the connection ends. */
static void take_slowly(const struct web *web, const char *body)
{
    struct web_connection slow = web_connect_slow(web);
    struct web_answer answer;
    web_post(&slow, "/tokenize", "", body);
    web_read_head(&slow, &answer);
    const char *length = web_header(&answer, "content-length");
    assert_non_null(length);
    size_t whole = strtoul(length, NULL, 10), n = slow.in.size;
    web_answer_free(&answer);
    static char piece[16 << 10];
    ssize_t got;
    while ((got = recv(slow.fd, piece, sizeof piece, 0)) > 0) {
        n += (size_t)got;
        if (slow_reader_cuts(web) == 0)
            (void)usleep(5000);
    }
    assert_true(n < whole);
    web_disconnect(&slow);
}

/* Who takes a byte now and then does not hold many of them: the whole of a large answer is taken in time, or
 * the connection ends. */
static void large_answers_are_taken_in_time(void **state)
{
    (void)state;
    struct http_door_options options = http_door_options_default();
    options.write_timeout_ms = 300;
    struct web web;
    web_open(&web, NULL, &options);
    char *body = large_tokenize(3 << 20);
    while (slow_reader_cuts(&web) == 0)
        take_slowly(&web, body);
    assert_int_equal(slow_reader_cuts(&web), 1);
    free(body);
    web_close(&web);
}

static void requests_follow_each_other(void **state)
{
    (void)state;
    enum { ROUNDS = 20 };
    struct web web;
    web_open(&web, NULL, NULL);
    struct web_connection connection = web_connect(&web);
    struct web_answer answer;
    /* All at once; answers come in order. */
    for (int i = 0; i < ROUNDS; i++) {
        web_get(&connection, "/version");
        web_post(&connection, "/tokenize", "", "{\"prompt\":\"abc\"}");
        web_post(&connection, "/v1/completions", "", "{\"prompt\":\"abc\",\"max_tokens\":3,\"stream\":true}");
        web_get(&connection, "/nothing");
    }
    for (int i = 0; i < ROUNDS; i++) {
        static const int statuses[] = {200, 200, 200, 404};
        static const char *const parts[] = {"1.2.3", "\"tokens\":[97,98,99]", "data: [DONE]", "error"};
        for (int k = 0; k < 4; k++) {
            web_read(&connection, &answer);
            assert_int_equal(answer.status, statuses[k]);
            assert_non_null(strstr(answer.body.data, parts[k]));
            assert_int_equal(answer.is_chunked, k == 2);
            assert_false(answer.closes);
            web_answer_free(&answer);
        }
    }
    web_send_text(&connection, "GET /health HTTP/1.1\r\nHost: t\r\nConnection: close\r\n\r\n");
    web_read(&connection, &answer);
    assert_true(answer.closes);
    assert_true(web_ended(&connection));
    web_answer_free(&answer);
    web_disconnect(&connection);
    web_close(&web);
}

static void bodies_come_in_any_pieces(void **state)
{
    (void)state;
    static const char head[] =
        "POST /tokenize HTTP/1.1\r\nHost: t\r\nContent-Type: application/json; charset=utf-8\r\n"
        "Transfer-Encoding: chunked\r\n\r\n";
    static const char body[] = "{\"prompt\":\"abc\"}";
    struct web web;
    web_open(&web, NULL, NULL);
    struct web_connection connection = web_connect(&web);
    struct web_answer answer;
    for (int round = 0; round < 2; round++) { /* a byte a packet, then a byte a chunk */
        struct buffer request = {.limit_bytes = 4096};
        (void)buffer_append_text(&request, head);
        for (size_t i = 0; i < sizeof body - 1; i++)
            (void)buffer_append_format(&request, "%s\r\n%c\r\n", i % 2 ? "1;ext=\"x\"" : "01", body[i]);
        (void)buffer_append_text(&request, "0\r\nTrailer: x\r\nAnother: y\r\n\r\n");
        for (size_t i = 0; round == 0 && i < request.size; i++)
            web_send(&connection, request.data + i, 1);
        if (round == 1)
            web_send(&connection, request.data, request.size);
        web_read(&connection, &answer);
        assert_int_equal(answer.status, 200);
        assert_non_null(strstr(answer.body.data, "[97,98,99]"));
        web_answer_free(&answer);
        buffer_free(&request);
    }
    web_disconnect(&connection);
    web_close(&web);
}

static void clients_may_wait_for_continue(void **state)
{
    (void)state;
    struct web web;
    web_open(&web, NULL, NULL);
    struct web_connection connection = web_connect(&web);
    struct web_answer answer;
    web_send_text(&connection, "POST /tokenize HTTP/1.1\r\nHost: t\r\nContent-Type: application/json\r\n"
                               "Expect: 100-continue\r\nContent-Length: 14\r\n\r\n");
    web_read_head(&connection, &answer);
    assert_int_equal(answer.status, 100);
    web_answer_free(&answer);
    web_send_text(&connection, "{\"prompt\":\"a\"}");
    web_read(&connection, &answer);
    assert_int_equal(answer.status, 200);
    web_answer_free(&answer);
    web_disconnect(&connection);
    web_close(&web);
}

static void old_and_terse_clients_are_served(void **state)
{
    (void)state;
    struct web web;
    web_open(&web, NULL, NULL);
    struct web_connection connection = web_connect(&web);
    struct web_answer answer;
    web_send_text(&connection, "HEAD /health HTTP/1.1\r\nHost: t\r\n\r\n");
    web_read_without_body(&connection, &answer);
    assert_int_equal(answer.status, 200);
    assert_non_null(web_header(&answer, "content-length"));
    web_answer_free(&answer);
    web_send_text(&connection, "GET /health HTTP/1.0\r\nConnection: keep-alive\r\n\r\n");
    web_read(&connection, &answer);
    assert_non_null(strstr(answer.head.data, "keep-alive"));
    web_answer_free(&answer);
    web_send_text(&connection,
                  "POST /v1/completions HTTP/1.0\r\nContent-Type: application/json\r\n"
                  "Content-Length: 45\r\n\r\n{\"prompt\":\"abc\",\"max_tokens\":3,\"stream\":true}");
    web_read(&connection, &answer);
    assert_int_equal(answer.status, 200);
    assert_false(answer.is_chunked);
    assert_true(answer.closes);
    assert_non_null(strstr(answer.body.data, "data: [DONE]\n\n"));
    web_answer_free(&answer);
    web_disconnect(&connection);
    web_close(&web);
}

/* Sends on fresh connections until one is answered with the status, then waits for its end. (On a busy
 * machine the server's short patience may be over before the first byte is there.) */
static void expect_then_end(const struct web *web, const char *request, int status)
{
    for (bool seen = false; !seen;) {
        struct web_connection connection = web_connect(web);
        struct web_answer answer;
        if (web_try_send(&connection, request, strlen(request)) && !web_ended(&connection)) {
            web_read(&connection, &answer);
            assert_int_equal(answer.status, status);
            assert_true(web_ended(&connection));
            web_answer_free(&answer);
            seen = true;
        }
        web_disconnect(&connection);
    }
}

/* Whoever is slow is told so where it has begun a request, and let go in any case. */
static void time_is_limited(void **state)
{
    (void)state;
    struct http_door_options options = http_door_options_default();
    options.head_timeout_ms = options.body_timeout_ms = options.idle_timeout_ms = 30;
    struct web web;
    web_open(&web, NULL, &options);
    struct web_connection silent = web_connect(&web), drip = web_connect(&web);
    expect_then_end(&web, "GET /health HTTP/1.1\r\nHo", 408);
    expect_then_end(&web, "POST /tokenize HTTP/1.1\r\nHost: t\r\nContent-Length: 100\r\n\r\n{", 408);
    expect_then_end(&web, "GET /health HTTP/1.1\r\nHost: t\r\n\r\n", 200);
    assert_true(web_ended(&silent));
    while (web_try_send(&drip, "x", 1)) /* a byte now and then does not help */
        (void)usleep(1000);
    web_disconnect(&silent);
    web_disconnect(&drip);
    web_close(&web);
}

static void await_at_least(const _Atomic uint64_t *count, uint64_t n)
{
    while (atomic_load(count) < n)
        (void)usleep(1000);
}

static void expect_answer(struct web_connection *connection, int status)
{
    struct web_answer answer;
    web_read(connection, &answer);
    assert_int_equal(answer.status, status);
    web_answer_free(&answer);
}

/* A client that comes past the limit is told so, and let go. */
static void expect_refusal(const struct web *web)
{
    struct web_connection more = web_connect(web);
    struct web_answer answer;
    web_read(&more, &answer);
    assert_int_equal(answer.status, 503);
    assert_non_null(web_header(&answer, "retry-after"));
    assert_true(web_ended(&more));
    web_answer_free(&answer);
    web_disconnect(&more);
}

/* Who says nothing is not cut for that, however long the test takes. */
static struct http_door_options patient_options(void)
{
    enum { PATIENT_MS = 3600000 };
    struct http_door_options options = http_door_options_default();
    options.head_timeout_ms = options.body_timeout_ms = options.idle_timeout_ms = PATIENT_MS;
    return options;
}

/* With a request under way in every place nobody gives way: one whose body is still to come, the others with
 * answers still to come. */
static void connections_are_limited(void **state)
{
    (void)state;
    enum { LIMIT = 5 };
    struct http_door_options options = patient_options();
    options.max_connections = LIMIT;
    struct web web;
    web_open(&web, NULL, &options);
    fake_service_hold(web.fake, true);
    struct web_connection held[LIMIT];
    struct web_answer answer;
    for (int i = 0; i < LIMIT; i++)
        held[i] = web_connect(&web);
    web_send_text(&held[0], "POST /tokenize HTTP/1.1\r\nHost: t\r\nContent-Type: application/json\r\n"
                            "Expect: 100-continue\r\nContent-Length: 14\r\n\r\n");
    web_read_head(&held[0], &answer);
    assert_int_equal(answer.status, 100);
    web_answer_free(&answer);
    for (int i = 1; i < LIMIT; i++)
        web_post(&held[i], "/v1/completions", "", SHORT_COMPLETION);
    await_at_least(&metrics_of(&web)->streams_open[METRIC_DOOR_HTTP], LIMIT - 1);
    expect_refusal(&web);
    /* Far more than the limit: told or cut, and nobody else notices. */
    for (int i = 0; i < 300; i++) {
        struct web_connection flood = web_connect(&web);
        web_disconnect(&flood);
    }
    await_at_least(&metrics_of(&web)->connections_refused[METRIC_DOOR_HTTP], 301);
    assert_int_equal(atomic_load(&metrics_of(&web)->http_connections_evicted[0]), 0);
    fake_service_hold(web.fake, false);
    web_send_text(&held[0], "{\"prompt\":\"a\"}");
    for (int i = 0; i < LIMIT; i++)
        expect_answer(&held[i], 200);
    /* Now they wait for their next request, and there is room again. */
    assert_int_equal(web_call(&web, "/health", NULL, NULL), 200);
    for (int i = 0; i < LIMIT; i++)
        web_disconnect(&held[i]);
    web_close(&web);
}

/* First who has not sent a whole head, then who has been without a request, each time the longest. */
static void who_waits_longest_gives_way(void **state)
{
    (void)state;
    enum { LIMIT = 8 };
    struct http_door_options options = patient_options();
    options.max_connections = LIMIT;
    options.n_loop_threads = 1; /* that accepts one after another */
    struct web web;
    web_open(&web, NULL, &options);
    struct metrics *metrics = metrics_of(&web);
    struct web_connection idle = web_connect(&web), silent[LIMIT - 1], next[LIMIT];
    web_get(&idle, "/health");
    expect_answer(&idle, 200);
    for (int i = 0; i < LIMIT - 1; i++) {
        silent[i] = web_connect(&web);
        if (i % 2)
            web_send_text(&silent[i], "GET /hea");
    }
    await_at_least(&metrics->http_connections[0], LIMIT);
    for (int i = 0; i < LIMIT; i++) {
        next[i] = web_connect(&web);
        web_get(&next[i], "/health");
        expect_answer(&next[i], 200);
        assert_true(web_ended(i < LIMIT - 1 ? &silent[i] : &idle));
        assert_int_equal(atomic_load(&metrics->http_connections_evicted[0]), i + 1);
        assert_int_equal(atomic_load(&metrics->http_connections[0]), LIMIT);
    }
    /* Who asks again is the last to go. */
    web_get(&next[0], "/health");
    expect_answer(&next[0], 200);
    struct web_connection last = web_connect(&web);
    web_get(&last, "/health");
    expect_answer(&last, 200);
    assert_true(web_ended(&next[1]));
    web_get(&next[0], "/health");
    expect_answer(&next[0], 200);
    assert_int_equal(atomic_load(&metrics->connections_refused[METRIC_DOOR_HTTP]), 0);
    web_disconnect(&idle);
    web_disconnect(&last);
    for (int i = 0; i < LIMIT - 1; i++)
        web_disconnect(&silent[i]);
    for (int i = 0; i < LIMIT; i++)
        web_disconnect(&next[i]);
    web_close(&web);
}

/* Whatever loop a connection belongs to. */
static void silent_crowds_keep_nobody_out(void **state)
{
    (void)state;
    enum { LIMIT = 64, CROWD = 400, CLIENT_EACH = 20 };
    struct http_door_options options = patient_options();
    options.max_connections = LIMIT;
    options.n_loop_threads = 3;
    struct web web;
    web_open(&web, NULL, &options);
    fake_service_hold(web.fake, true);
    struct web_connection busy = web_connect(&web);
    web_post(&busy, "/v1/completions", "", SHORT_COMPLETION);
    await_at_least(&metrics_of(&web)->streams_open[METRIC_DOOR_HTTP], 1);
    static struct web_connection crowd[CROWD];
    for (int i = 0; i < CROWD; i++) {
        crowd[i] = web_connect(&web);
        if (i % CLIENT_EACH == 0)
            assert_int_equal(web_call(&web, "/health", NULL, NULL), 200);
    }
    assert_int_equal(web_call(&web, "/health", NULL, NULL), 200);
    await_at_least(&metrics_of(&web)->http_connections_evicted[0], CROWD + 1 - LIMIT);
    assert_int_equal(atomic_load(&metrics_of(&web)->connections_refused[METRIC_DOOR_HTTP]), 0);
    fake_service_hold(web.fake, false);
    expect_answer(&busy, 200);
    web_disconnect(&busy);
    for (int i = 0; i < CROWD; i++)
        web_disconnect(&crowd[i]);
    web_close(&web);
}

/* What a client sends behind its request stays with it until its turn comes. */
static void requests_to_come_are_not_hoarded(void **state)
{
    (void)state;
    enum { FAR_TOO_MUCH = 256 << 20, PIECE = 64 << 10 };
    struct web web;
    web_open(&web, NULL, NULL);
    fake_service_hold(web.fake, true);
    struct web_connection connection = web_connect(&web);
    web_post(&connection, "/v1/completions", "", SHORT_COMPLETION);
    static char piece[PIECE];
    memset(piece, '\n', sizeof piece);
    struct timeval patience = {.tv_usec = 200000};
    (void)setsockopt(connection.fd, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof patience);
    size_t sent = 0;
    while (sent < FAR_TOO_MUCH && web_try_send(&connection, piece, sizeof piece))
        sent += sizeof piece;
    assert_true(sent < FAR_TOO_MUCH);
    fake_service_hold(web.fake, false);
    struct web_answer answer;
    web_read(&connection, &answer);
    assert_int_equal(answer.status, 200);
    web_answer_free(&answer);
    web_disconnect(&connection);
    web_close(&web);
}

static void ports_are_exclusive(void **state)
{
    (void)state;
    struct web web;
    web_open(&web, NULL, NULL);
    struct http_door_options options = http_door_options_default();
    options.port = http_door_port(web.door);
    struct http_door *second;
    err_t e = http_door_open(fake_service_of(web.fake), &options, &second);
    assert_int_equal(e.code, ERR_IO);
    assert_non_null(strstr(e.message, "in use"));
    options = http_door_options_default();
    options.n_loop_threads = 0;
    assert_int_equal(http_door_open(fake_service_of(web.fake), &options, &second).code, ERR_INVALID_ARGUMENT);
    web_close(&web);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(malformed_requests_are_refused),
        cmocka_unit_test(heads_are_limited),
        cmocka_unit_test(bodies_are_limited),
        cmocka_unit_test(held_bodies_are_limited_together),
        cmocka_unit_test(whole_answers_are_limited_together),
        cmocka_unit_test(answered_bodies_are_free),
        cmocka_unit_test(large_answers_are_taken_in_time),
        cmocka_unit_test(requests_follow_each_other),
        cmocka_unit_test(bodies_come_in_any_pieces),
        cmocka_unit_test(clients_may_wait_for_continue),
        cmocka_unit_test(old_and_terse_clients_are_served),
        cmocka_unit_test(time_is_limited),
        cmocka_unit_test(connections_are_limited),
        cmocka_unit_test(who_waits_longest_gives_way),
        cmocka_unit_test(silent_crowds_keep_nobody_out),
        cmocka_unit_test(requests_to_come_are_not_hoarded),
        cmocka_unit_test(ports_are_exclusive),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
