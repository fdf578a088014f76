/* What happens to calls when the door is drained and closed, and when clients vanish. */
#include <stdio.h>
#include <string.h>
#include "base/clock.h"
#include "base/event_count.h"
#include "proto/grpc_health.h"
#include "tests/proto/door_client.h"

static bool two_submitted(const struct fake_counts *counts)
{
    return counts->submitted == 2;
}

static bool nothing_lives(const struct fake_counts *counts)
{
    return counts->live == 0;
}

/* Watchers hear NOT_SERVING, what was accepted finishes, what comes later is refused. */
static void drain_loses_nothing(void **state)
{
    (void)state;
    struct fixture fixture;
    struct event_count idle = {0};
    fixture_open(&fixture, NULL, NULL);
    struct reply watch = {0}, loads = {0}, stream = {0}, whole = {0}, late = {0};
    struct request request = text_request("d", 500, 1);
    start_raw(&fixture, "/grpc.health.v1.Health/Watch", "", 0, &watch);
    start_raw(&fixture, "/bantam.Bantam/WatchLoads", "", 0, &loads);
    wait_messages(&fixture, &watch, 1);
    wait_messages(&fixture, &loads, 1);
    fake_service_hold(fixture.fake, true);
    start_request(&fixture, GENERATE, &request, CLIENT_NO_TIMEOUT, &stream);
    start_request(&fixture, GENERATE_WHOLE, &request, CLIENT_NO_TIMEOUT, &whole);
    wait_counts(&fixture, two_submitted);
    grpc_door_drain(fixture.door, &idle);
    assert_int_equal(grpc_door_active(fixture.door), 2);
    wait_messages(&fixture, &watch, 2);
    assert_int_equal(watch.last_bytes[1], HEALTH_NOT_SERVING);
    start_request(&fixture, GENERATE, &request, CLIENT_NO_TIMEOUT, &late);
    wait_done(&fixture, &late);
    /* CANCELLED when it crosses the GOAWAY: gRPC core itself drops such a call. */
    assert_true(late.status == GRPC_STATUS_UNAVAILABLE || late.status == GRPC_STATUS_CANCELLED);
    assert_int_equal(fake_service_counts(fixture.fake).submitted, 2);
    uint32_t seen = event_count_read(&idle);
    fake_service_hold(fixture.fake, false);
    wait_done(&fixture, &stream);
    wait_done(&fixture, &whole);
    assert_int_equal(stream.status, GRPC_STATUS_OK);
    assert_int_equal(stream.n_tokens[0], 500);
    assert_int_equal(whole.status, GRPC_STATUS_OK);
    assert_int_equal(whole.n_tokens[0], 500);
    while (!event_count_wait(&idle, seen, -1)) { /* it may wake early */
    }
    assert_int_equal(grpc_door_active(fixture.door), 0);
    grpc_door_close(fixture.door);
    wait_done(&fixture, &watch);
    wait_done(&fixture, &loads);
    assert_int_equal(watch.status, GRPC_STATUS_UNAVAILABLE);
    assert_int_equal(loads.status, GRPC_STATUS_UNAVAILABLE);
    grpc_client_close(fixture.client);
    fake_service_close(fixture.fake);
}

/* A door that closes over running calls says so to each; also to one whose reader stopped. */
static void close_cuts_off_what_is_left(void **state)
{
    (void)state;
    struct fixture fixture;
    fixture_open(&fixture, NULL, NULL);
    struct reply queued = {0}, whole = {0}, stopped = {.stop_reading_after = 1};
    struct request request = text_request("x", UINT32_MAX / 2, 1);
    request.sampling.set |= SAMPLING_LOGPROBS;
    request.sampling.logprobs = 20;
    start_request(&fixture, GENERATE, &request, CLIENT_NO_TIMEOUT, &stopped);
    wait_messages(&fixture, &stopped, 1);
    fake_service_hold(fixture.fake, true);
    start_request(&fixture, GENERATE, &request, CLIENT_NO_TIMEOUT, &queued);
    start_request(&fixture, GENERATE_WHOLE, &request, CLIENT_NO_TIMEOUT, &whole);
    while (fake_service_counts(fixture.fake).submitted < 3)
        (void)grpc_client_poll(fixture.client, 1000000);
    grpc_door_close(fixture.door);
    assert_true(nothing_lives(&(struct fake_counts){.live = fake_service_counts(fixture.fake).live}));
    grpc_client_resume(stopped.call);
    wait_done(&fixture, &queued);
    wait_done(&fixture, &whole);
    wait_done(&fixture, &stopped);
    assert_int_equal(queued.status, GRPC_STATUS_UNAVAILABLE);
    assert_int_equal(whole.status, GRPC_STATUS_UNAVAILABLE);
    assert_int_equal(stopped.status, GRPC_STATUS_UNAVAILABLE);
    grpc_client_close(fixture.client);
    fake_service_close(fixture.fake);
}

/* Connections that die at any moment leave nothing behind, and do not disturb the one that stays. */
static void vanished_clients_leave_nothing(void **state)
{
    (void)state;
    enum { ROUNDS = 60, CALLS = 8 };
    struct fixture fixture;
    fixture_open(&fixture, NULL, NULL);
    struct reply steady = {0};
    struct request request = text_request("steady", 4000, 1),
                   endless = text_request("gone", UINT32_MAX / 2, 2);
    start_request(&fixture, GENERATE, &request, CLIENT_NO_TIMEOUT, &steady);
    static struct reply replies[CALLS];
    for (int round = 0; round < ROUNDS; round++) {
        struct fixture victim = fixture;
        struct grpc_client_options options = {.own_connection = true};
        assert_int_equal(grpc_client_open(fixture.target, &options, &victim.client).code, ERR_OK);
        memset(replies, 0, sizeof replies);
        for (int i = 0; i < CALLS; i++) {
            replies[i].stop_reading_after = i % 3 == 0 ? 1 : 5;
            start_request(&victim, i % 4 == 3 ? GENERATE_WHOLE : GENERATE, &endless, CLIENT_NO_TIMEOUT,
                          &replies[i]);
        }
        for (int i = 0; i < round; i++)
            (void)grpc_client_poll(victim.client, 1000000);
        grpc_client_close(victim.client);
        for (int i = 0; i < CALLS; i++)
            assert_true(replies[i].done);
    }
    wait_done(&fixture, &steady);
    assert_int_equal(steady.status, GRPC_STATUS_OK);
    assert_int_equal(steady.n_tokens[0], 4000);
    wait_counts(&fixture, nothing_lives);
    fixture_close(&fixture); /* asserts that no generation is left */
}

/* Before it drains a door sends new connections away; those that exist are served. */
static void refused_connections_leave_the_others(void **state)
{
    (void)state;
    struct fixture fixture;
    fixture_open(&fixture, NULL, NULL);
    struct reply early = {0}, old = {0}, new = {0};
    struct request request = text_request("r", 20, 1);
    start_request(&fixture, GENERATE, &request, CLIENT_NO_TIMEOUT, &early);
    wait_done(&fixture, &early);
    grpc_door_not_ready(fixture.door);
    grpc_door_refuse_connections(fixture.door);
    start_request(&fixture, GENERATE, &request, CLIENT_NO_TIMEOUT, &old);
    wait_done(&fixture, &old);
    assert_int_equal(old.status, GRPC_STATUS_OK);
    assert_int_equal(old.n_tokens[0], 20);
    struct fixture newcomer = fixture;
    struct grpc_client_options options = {.own_connection = true};
    assert_int_equal(grpc_client_open(fixture.target, &options, &newcomer.client).code, ERR_OK);
    start_request(&newcomer, GENERATE, &request, CLIENT_NO_TIMEOUT, &new);
    wait_done(&newcomer, &new);
    assert_int_equal(new.status, GRPC_STATUS_UNAVAILABLE);
    grpc_client_close(newcomer.client);
    fixture_close(&fixture);
}

static void port_in_use_is_an_error(void **state)
{
    (void)state;
    struct fixture fixture;
    fixture_open(&fixture, NULL, NULL);
    struct grpc_door_options options = grpc_door_options_default();
    options.port = grpc_door_port(fixture.door);
    struct grpc_door *second = NULL;
    err_t e = grpc_door_open(fake_service_of(fixture.fake), &options, &second);
    assert_int_equal(e.code, ERR_IO);
    assert_non_null(strstr(e.message, "in use"));
    char port[8];
    (void)snprintf(port, sizeof port, "%u", options.port);
    assert_non_null(strstr(e.message, port));
    options.host = "no such host";
    e = grpc_door_open(fake_service_of(fixture.fake), &options, &second);
    assert_int_equal(e.code, ERR_INVALID_ARGUMENT);
    fixture_close(&fixture);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(drain_loses_nothing),
        cmocka_unit_test(close_cuts_off_what_is_left),
        cmocka_unit_test(vanished_clients_leave_nothing),
        cmocka_unit_test(refused_connections_leave_the_others),
        cmocka_unit_test(port_in_use_is_an_error),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
