/* Paths that are added to the doors over HTTP: whole answers, streamed ones, and who may ask. */
#include <stdio.h>
#include <string.h>
#include <unistd.h>
#include "base/clock.h"
#include "base/event_count.h"
#include "proto/admin_door.h"
#include "proto/http_server.h"
#include "proto/identity.h"
#include "tests/proto/web_client.h"

struct seen {
    uint32_t n_pumps;
    struct event_count ended;
};

static void say_hello(void *context, struct http_exchange *exchange)
{
    (void)context;
    const struct caller *caller = http_exchange_caller(exchange);
    http_exchange_header(exchange, "x-tenant", caller->tenant);
    http_exchange_respond(exchange, 200, "text/plain", "hello", 5);
}

static void begin_stream(void *context, struct http_exchange *exchange)
{
    struct seen *seen = context;
    seen->n_pumps = 0;
    http_exchange_set_user(exchange, seen);
    http_exchange_begin(exchange, 200, "text/plain");
}

static void pump_stream(void *context, struct http_exchange *exchange)
{
    struct seen *seen = context;
    assert_ptr_equal(http_exchange_user(exchange), seen);
    seen->n_pumps++;
    http_exchange_send(exchange, "more", 4);
    http_exchange_end(exchange);
}

static void note_end(void *context, struct http_exchange *exchange)
{
    struct seen *seen = context;
    assert_ptr_equal(http_exchange_user(exchange), seen);
    event_count_bump(&seen->ended);
}

static void ask(struct web_connection *connection, const char *path, int status, const char *body)
{
    struct web_answer answer;
    web_get(connection, path);
    web_read(connection, &answer);
    assert_int_equal(answer.status, status);
    if (body)
        assert_string_equal(answer.body.data, body);
    web_answer_free(&answer);
}

static void added_paths_answer(void **state)
{
    (void)state;
    struct seen seen = {0};
    const struct extra_route routes[] = {
        {.path = "/hello", .handle = say_hello},
        {.path = "/stream", .context = &seen, .handle = begin_stream, .pump = pump_stream, .ended = note_end},
    };
    struct http_door_options options = http_door_options_default();
    options.extra = (struct extra_routes){routes, 2};
    struct web web;
    web_open(&web, NULL, &options);
    struct web_connection connection = web_connect(&web);
    ask(&connection, "/hello", 200, "hello");
    ask(&connection, "/stream", 200, "more");
    ask(&connection, "/hello/", 404, NULL);
    ask(&connection, "/health", 200, NULL); /* its own go on */
    while (event_count_read(&seen.ended) == 0)
        event_count_wait(&seen.ended, 0, -1);
    assert_int_equal(seen.n_pumps, 1);
    web_disconnect(&connection);
    web_close(&web);
    assert_int_equal(event_count_read(&seen.ended), 1);
}

static void the_operators_listener_takes_them(void **state)
{
    (void)state;
    struct seen seen = {0};
    const struct extra_route routes[] = {
        {.path = "/", .handle = say_hello},
        {.path = "/stream", .context = &seen, .handle = begin_stream, .pump = pump_stream, .ended = note_end},
    };
    struct fake_options fake_options = {0};
    struct fake_service *fake;
    struct admin_door *door;
    assert_int_equal(fake_service_open(&fake_options, &fake).code, ERR_OK);
    struct admin_door_options options = admin_door_options_default();
    options.port = 0;
    options.extra = (struct extra_routes){routes, 2};
    assert_int_equal(admin_door_open(fake_service_of(fake), &options, &door).code, ERR_OK);
    struct web_connection connection = web_connect_port(admin_door_port(door));
    ask(&connection, "/", 200, "hello");
    ask(&connection, "/stream", 200, "more");
    ask(&connection, "/health", 200, NULL);
    ask(&connection, "/nowhere", 404, NULL);
    web_disconnect(&connection);
    admin_door_close(door);
    assert_int_equal(event_count_read(&seen.ended), 1);
    fake_service_close(fake);
}

static void keys_are_asked_for(void **state)
{
    (void)state;
    char path[64];
    (void)snprintf(path, sizeof path, "/tmp/bantam-extra-%ld", (long)getpid());
    FILE *file = fopen(path, "w");
    assert_non_null(file);
    assert_true(fputs("tenant a\n", file) >= 0);
    assert_int_equal(fclose(file), 0);
    struct identity_options keys = {.keys_file = path, .clock = clock_monotonic()};
    struct identity *identity;
    err_t e = identity_open(&keys, &identity);
    assert_int_equal(e.code, ERR_OK);
    const struct extra_route routes[] = {
        {.path = "/open", .is_for_everyone = true, .handle = say_hello},
        {.path = "/closed", .handle = say_hello},
    };
    struct http_door_options options = http_door_options_default();
    options.extra = (struct extra_routes){routes, 2};
    options.identity = identity;
    struct web web;
    web_open(&web, NULL, &options);
    struct web_connection connection = web_connect(&web);
    ask(&connection, "/open", 200, "hello");
    ask(&connection, "/closed", 401, NULL);
    web_disconnect(&connection);
    web_close(&web);
    identity_close(identity);
    (void)unlink(path);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(added_paths_answer),
        cmocka_unit_test(the_operators_listener_takes_them),
        cmocka_unit_test(keys_are_asked_for),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
