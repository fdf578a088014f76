/* The protobuf methods over the fake service: that they are the same door. What their messages say is seen in
 * tests/e2e. */
#include <stdio.h>
#include <string.h>
#include "base/alloc.h"
#include "tests/proto/door_client.h"
#include "tests/proto/wire_bytes.h"

#define FACADE     "/vllm.grpc.engine.VllmEngine/"
#define REFLECTION "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo"

static int setup(void **state)
{
    struct fixture *fixture = mem_alloc(sizeof *fixture);
    fixture_open(fixture, NULL, NULL);
    *state = fixture;
    return 0;
}

static int teardown(void **state)
{
    fixture_close(*state);
    mem_free(*state);
    return 0;
}

static bool nothing_lives(const struct fake_counts *counts)
{
    return counts->live == 0;
}

static bool one_submitted(const struct fake_counts *counts)
{
    return counts->submitted == 1;
}

static bool one_paused(const struct fake_counts *counts)
{
    return counts->paused == 1;
}

/* A GenerateRequest; caller buffer_frees. */
static struct buffer request_bytes(const char *text, uint32_t max_tokens, uint32_t n, bool stream)
{
    struct buffer message = {0}, sampling = {0};
    wire_varint(&sampling, 8, max_tokens);
    wire_varint(&sampling, 15, n);
    wire_text(&message, 1, "mine");
    wire_text(&message, 3, text);
    wire_message(&message, 4, &sampling);
    wire_varint(&message, 5, stream);
    return message;
}

static void start(struct fixture *fixture, uint32_t max_tokens, uint32_t n, bool stream, struct reply *reply)
{
    struct buffer message = request_bytes("hello", max_tokens, n, stream);
    start_raw(fixture, FACADE "Generate", message.data, message.size, reply);
    buffer_free(&message);
}

/* The field number of the alternative in a GenerateResponse. */
static int kind_of(const struct reply *reply)
{
    return reply->last_bytes[0] >> 3;
}

static void stream_and_whole(void **state)
{
    struct fixture *fixture = *state;
    struct reply stream = {0}, whole = {0};
    start(fixture, 100, 3, true, &stream);
    start(fixture, 100, 3, false, &whole);
    wait_done(fixture, &stream);
    wait_done(fixture, &whole);
    assert_int_equal(stream.status, GRPC_STATUS_OK);
    assert_true(stream.n_messages >= 6); /* tokens and an end for each choice */
    assert_int_equal(kind_of(&stream), 2);
    assert_int_equal(whole.status, GRPC_STATUS_OK);
    assert_int_equal(whole.n_messages, 3);
    assert_int_equal(kind_of(&whole), 2);
    assert_true(whole.last_size > 100);
    assert_true(stream.last_size < 40); /* without the tokens */
    wait_counts(fixture, nothing_lives);
}

static void whole_answer_waits_for_its_reader(void **state)
{
    struct fixture *fixture = *state;
    struct reply whole = {0};
    fake_service_hold(fixture->fake, true);
    start(fixture, 10, 2, false, &whole);
    wait_counts(fixture, one_submitted);
    assert_int_equal(whole.n_messages, 0);
    fake_service_hold(fixture->fake, false);
    wait_done(fixture, &whole);
    assert_int_equal(whole.n_messages, 2);
}

static void failures_are_statuses(void **state)
{
    struct fixture *fixture = *state;
    const enum err_code codes[] = {ERR_INVALID_ARGUMENT, ERR_NOT_FOUND, ERR_RESOURCE_EXHAUSTED,
                                   ERR_UNAVAILABLE};
    const grpc_status_code statuses[] = {GRPC_STATUS_INVALID_ARGUMENT, GRPC_STATUS_NOT_FOUND,
                                         GRPC_STATUS_RESOURCE_EXHAUSTED, GRPC_STATUS_UNAVAILABLE};
    for (size_t i = 0; i < 4; i++) {
        struct reply reply = {0};
        fake_service_fail_submit(fixture->fake, codes[i]);
        start(fixture, 10, 1, i % 2 == 0, &reply);
        wait_done(fixture, &reply);
        assert_int_equal(reply.status, statuses[i]);
        assert_string_equal(reply.message, "made to fail");
        assert_int_equal(reply.has_pushback, codes[i] == ERR_RESOURCE_EXHAUSTED);
        assert_int_equal(reply.n_messages, 0);
    }
    struct reply stream = {0}, whole = {0};
    fake_service_fail_at(fixture->fake, 50);
    start(fixture, 100, 2, true, &stream);
    start(fixture, 100, 2, false, &whole);
    wait_done(fixture, &stream);
    wait_done(fixture, &whole);
    assert_int_equal(stream.status, GRPC_STATUS_INTERNAL);
    assert_int_equal(whole.status, GRPC_STATUS_INTERNAL);
    assert_int_equal(whole.n_messages, 0);
    wait_counts(fixture, nothing_lives);
}

static void cancel_reaches_the_service(void **state)
{
    struct fixture *fixture = *state;
    for (int stream = 0; stream < 2; stream++) {
        struct reply reply = {0};
        fake_service_hold(fixture->fake, true);
        start(fixture, UINT32_MAX / 2, 1, stream, &reply);
        uint32_t submitted = (uint32_t)stream + 1;
        while (fake_service_counts(fixture->fake).submitted < submitted)
            (void)grpc_client_poll(fixture->client, 1000000);
        grpc_client_cancel(reply.call);
        wait_done(fixture, &reply);
        assert_int_equal(reply.status, GRPC_STATUS_CANCELLED);
        wait_counts(fixture, nothing_lives);
        fake_service_hold(fixture->fake, false);
    }
    assert_int_equal(fake_service_counts(fixture->fake).cancelled, 2);
}

/* Nothing but ids goes out, so a small window takes many: the reader that never reads still pauses itself. */
static void stopped_reader_pauses_itself(void **state)
{
    struct fixture *fixture = *state;
    struct buffer message = {0}, sampling = {0};
    struct reply reply = {.stop_reading_after = 1};
    wire_varint(&sampling, 22, 20);
    wire_varint(&sampling, 8, 4000);
    wire_text(&message, 3, "slow");
    wire_message(&message, 4, &sampling);
    wire_varint(&message, 5, 1);
    start_raw(fixture, FACADE "Generate", message.data, message.size, &reply);
    buffer_free(&message);
    wait_messages(fixture, &reply, 1);
    wait_counts(fixture, one_paused);
    grpc_client_resume(reply.call);
    wait_done(fixture, &reply);
    assert_int_equal(reply.status, GRPC_STATUS_OK);
}

static void expect(struct fixture *fixture, const char *path, const void *bytes, size_t size_bytes,
                   grpc_status_code status, uint32_t n_messages)
{
    struct reply reply = {0};
    start_raw(fixture, path, bytes, size_bytes, &reply);
    wait_done(fixture, &reply);
    if (reply.status != status || reply.n_messages != n_messages)
        fail_msg("%s: status %d with %u messages: %s", path, (int)reply.status, reply.n_messages,
                 reply.message);
}

static void the_other_methods(void **state)
{
    struct fixture *fixture = *state;
    const char *answered[] = {"HealthCheck", "GetModelInfo", "GetServerInfo", "GetLoads"};
    const char *missing[] = {"Embed", "SubscribeKvEvents", "FlushCache", "StartProfile", "StopProfile"};
    char path[128];
    for (size_t i = 0; i < 4; i++) {
        (void)snprintf(path, sizeof path, FACADE "%s", answered[i]);
        expect(fixture, path, NULL, 0, GRPC_STATUS_OK, 1);
        expect(fixture, path, "\xff", 1, GRPC_STATUS_INVALID_ARGUMENT, 0);
    }
    for (size_t i = 0; i < 5; i++) {
        (void)snprintf(path, sizeof path, FACADE "%s", missing[i]);
        expect(fixture, path, NULL, 0, GRPC_STATUS_UNIMPLEMENTED, 0);
    }
    expect(fixture, FACADE "GetTokenizer", NULL, 0, GRPC_STATUS_FAILED_PRECONDITION, 0);
    expect(fixture, FACADE "Abort", "\x0a\x01x", 3, GRPC_STATUS_OK, 1);
    expect(fixture, "/bantam.Bantam/GetSchema", NULL, 0, GRPC_STATUS_OK, 1);
    expect(fixture, "/bantam.v1.Loads/WatchLoads", "\x08\x01", 2, GRPC_STATUS_INVALID_ARGUMENT, 0);
    expect(fixture, REFLECTION, "\x3a\x00", 2, GRPC_STATUS_OK, 1);
    expect(fixture, REFLECTION, "\x3a", 1, GRPC_STATUS_INVALID_ARGUMENT, 0);
}

/* Every stream of the facade hears of the door's end, whatever it waits for. */
static void close_ends_every_stream(void **state)
{
    (void)state;
    struct fixture fixture;
    struct reply replies[3] = {{0}};
    fixture_open(&fixture, NULL, NULL);
    fake_service_hold(fixture.fake, true);
    start(&fixture, 100, 1, true, &replies[0]);
    start(&fixture, 100, 1, false, &replies[1]);
    start_raw(&fixture, "/bantam.v1.Loads/WatchLoads", "\x08\x0a", 2, &replies[2]);
    wait_messages(&fixture, &replies[2], 1);
    while (fake_service_counts(fixture.fake).submitted < 2)
        (void)grpc_client_poll(fixture.client, 1000000);
    grpc_door_close(fixture.door);
    for (int i = 0; i < 3; i++) {
        wait_done(&fixture, &replies[i]);
        assert_int_equal(replies[i].status, GRPC_STATUS_UNAVAILABLE);
    }
    grpc_client_close(fixture.client);
    fake_service_close(fixture.fake);
}

/* Whichever allocation fails, of the client or of the door: a call that was sent ends with a status, and the
 * next one is served. */
static void memory_may_be_short(void **state)
{
    struct fixture *fixture = *state;
    fake_service_hold(fixture->fake, true); /* its own allocations are not meant */
    int n_unsent = 0, n_refused = 0;
    for (int nth = 0; nth < 40; nth++) {
        struct reply reply = {0};
        mem_fail_nth(nth);
        err_t e = try_start_raw(fixture, REFLECTION, "\x3a\x00", 2, &reply);
        if (e.code == ERR_OK)
            wait_done(fixture, &reply);
        mem_fail_nth(-1);
        assert_true(e.code == ERR_OK || e.code == ERR_RESOURCE_EXHAUSTED);
        assert_true(reply.status == GRPC_STATUS_OK || reply.status == GRPC_STATUS_RESOURCE_EXHAUSTED);
        n_unsent += e.code != ERR_OK;
        n_refused += reply.status != GRPC_STATUS_OK;
    }
    assert_true(n_unsent > 0 && n_refused > 0);
    expect(fixture, REFLECTION, "\x3a\x00", 2, GRPC_STATUS_OK, 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(stream_and_whole, setup, teardown),
        cmocka_unit_test_setup_teardown(whole_answer_waits_for_its_reader, setup, teardown),
        cmocka_unit_test_setup_teardown(failures_are_statuses, setup, teardown),
        cmocka_unit_test_setup_teardown(cancel_reaches_the_service, setup, teardown),
        cmocka_unit_test_setup_teardown(stopped_reader_pauses_itself, setup, teardown),
        cmocka_unit_test_setup_teardown(the_other_methods, setup, teardown),
        cmocka_unit_test(close_ends_every_stream),
        cmocka_unit_test_setup_teardown(memory_may_be_short, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
