/* Retries of a client against servers that refuse, its clock moved by hand: nothing is tried again before its
 * time, and everything as soon as it has come. */
#include <string.h>
#include "tests/clients/client_world.h"
#include "tests/clients/scripted_server.h"

#define MS INT64_C(1000000)

struct stage {
    struct scripted_server *server;
    struct bantam_client *client;
    struct virtual_clock clock;
};

static void stage_open(struct stage *stage, const struct scripted_answer *answers, size_t n_answers)
{
    stage->server = scripted_server_open(answers, n_answers);
    virtual_clock_init(&stage->clock, 1000000 * MS);
    struct bantam_client_options options = bantam_client_options_default();
    options.target = scripted_server_target(stage->server);
    options.own_connection = true;
    options.clock = &stage->clock.clock;
    options.seed = 11;
    options.retry = (struct bantam_retry_options){.max_attempts = 4,
                                                  .backoff_ns = 100 * MS,
                                                  .backoff_max_ns = 400 * MS,
                                                  .budget = 100,
                                                  .budget_ratio = 0.1};
    assert_int_equal(bantam_client_open(&options, &stage->client).code, ERR_OK);
}

static void stage_close(struct stage *stage, struct seen *seen)
{
    bantam_call_release(seen->call);
    bantam_client_close(stage->client);
    scripted_server_close(stage->server);
}

static bool waits_or_is_done(const struct stage *stage, const struct seen *seen)
{
    return seen->n_done || bantam_client_stats(stage->client).waiting > 0;
}

/* The call with the clock moved on by hand whenever it waits; the sum of the moves, ms. */
static int64_t run_by_hand(struct stage *stage, struct seen *seen)
{
    int64_t moved_ns = 0;
    for (;;) {
        POLL_UNTIL(stage->client, waits_or_is_done(stage, seen))
        if (seen->n_done)
            return moved_ns / MS;
        uint32_t n_calls = scripted_server_calls(stage->server);
        (void)bantam_client_poll(stage->client, 0); /* time stands still: so does the call */
        assert_int_equal(bantam_client_stats(stage->client).waiting, 1);
        assert_int_equal(scripted_server_calls(stage->server), n_calls);
        stage->clock.now_ns += 10 * MS;
        moved_ns += 10 * MS;
        (void)bantam_client_poll(stage->client, 0);
    }
}

static const struct {
    struct scripted_answer script[3];
    size_t n_script;
    int64_t timeout_ms; /* 0 = none */
    enum err_code code;
    uint32_t attempts;
    int64_t least_ms, most_ms; /* waited */
} matrix[] = {
    /* Refused with pushback, then served: not before its time. */
    {{{false, GRPC_STATUS_RESOURCE_EXHAUSTED, "100"}, {true, GRPC_STATUS_OK, NULL}},
     2,
     0,
     ERR_OK,
     2,
     100,
     130},
    {{{false, GRPC_STATUS_UNAVAILABLE, "0"}, {true, GRPC_STATUS_OK, NULL}}, 2, 0, ERR_OK, 2, 0, 10},
    /* What is too large is not tried again, nor what the server forbids. */
    {{{false, GRPC_STATUS_RESOURCE_EXHAUSTED, NULL}}, 1, 0, ERR_RESOURCE_EXHAUSTED, 1, 0, 0},
    {{{false, GRPC_STATUS_UNAVAILABLE, "-1"}}, 1, 0, ERR_UNAVAILABLE, 1, 0, 0},
    {{{false, GRPC_STATUS_UNAVAILABLE, "soon"}}, 1, 0, ERR_UNAVAILABLE, 1, 0, 0},
    {{{false, GRPC_STATUS_INVALID_ARGUMENT, "5"}}, 1, 0, ERR_INVALID_ARGUMENT, 1, 0, 0},
    {{{false, GRPC_STATUS_INTERNAL, NULL}}, 1, 0, ERR_INTERNAL, 1, 0, 0},
    /* Without pushback: backoff. A GOAWAY that was crossed looks like the second of these. */
    {{{false, GRPC_STATUS_UNAVAILABLE, NULL},
      {false, GRPC_STATUS_CANCELLED, NULL},
      {true, GRPC_STATUS_OK, NULL}},
     3,
     0,
     ERR_OK,
     3,
     150,
     310},
    {{{false, GRPC_STATUS_UNAVAILABLE, NULL}}, 1, 0, ERR_UNAVAILABLE, 4, 350, 720},
    /* After the first message never. */
    {{{true, GRPC_STATUS_UNAVAILABLE, NULL}, {true, GRPC_STATUS_OK, NULL}}, 2, 0, ERR_UNAVAILABLE, 1, 0, 0},
    {{{true, GRPC_STATUS_RESOURCE_EXHAUSTED, "5"}}, 1, 0, ERR_RESOURCE_EXHAUSTED, 1, 0, 0},
    /* Never beyond the deadline: the refusal is what the caller hears, and at once. */
    {{{false, GRPC_STATUS_RESOURCE_EXHAUSTED, "60000"}}, 1, 59000, ERR_RESOURCE_EXHAUSTED, 1, 0, 0},
    {{{false, GRPC_STATUS_RESOURCE_EXHAUSTED, "100"}, {true, GRPC_STATUS_OK, NULL}},
     2,
     59000,
     ERR_OK,
     2,
     100,
     130},
    /* An OK that brings nothing is none. */
    {{{false, GRPC_STATUS_OK, NULL}}, 1, 0, ERR_DATA_LOSS, 1, 0, 0},
};

static void the_matrix_of_refusals(void **state)
{
    (void)state;
    struct request request = words("x", 1);
    for (size_t i = 0; i < sizeof matrix / sizeof matrix[0]; i++) {
        struct stage stage;
        struct seen seen = {0};
        stage_open(&stage, matrix[i].script, matrix[i].n_script);
        start_stream(stage.client, &request, matrix[i].timeout_ms ? matrix[i].timeout_ms * MS : -1, &seen);
        int64_t waited_ms = run_by_hand(&stage, &seen);
        if (seen.code != matrix[i].code || seen.attempts != matrix[i].attempts)
            print_error("case %zu: %s after %u attempts: %s\n", i, err_code_name(seen.code), seen.attempts,
                        seen.message);
        assert_int_equal(seen.code, matrix[i].code);
        assert_int_equal(seen.attempts, matrix[i].attempts);
        assert_int_equal(scripted_server_calls(stage.server), matrix[i].attempts);
        assert_in_range(waited_ms, matrix[i].least_ms, matrix[i].most_ms);
        assert_int_equal(bantam_client_stats(stage.client).retries, matrix[i].attempts - 1);
        bool served = matrix[i].script[matrix[i].n_script - 1].message && matrix[i].code == ERR_OK;
        if (served) {
            assert_string_equal(seen.model, "scripted");
            assert_string_equal(seen.fingerprint, "0123456789abcdef");
            assert_string_equal(seen.request_id, "scripted-1");
        }
        stage_close(&stage, &seen);
    }
}

/* Two choices were asked for and one ends: an OK does not make that an answer. */
static void an_answer_cut_short(void **state)
{
    (void)state;
    static const struct scripted_answer script[] = {{true, GRPC_STATUS_OK, NULL}};
    struct stage stage;
    struct seen seen = {0};
    struct request request = words("x", 1);
    request.sampling.set |= SAMPLING_N;
    request.sampling.n = 2;
    stage_open(&stage, script, 1);
    start_stream(stage.client, &request, BANTAM_NO_TIMEOUT, &seen);
    until_done(stage.client, &seen);
    assert_int_equal(seen.code, ERR_DATA_LOSS);
    assert_string_equal(seen.message, "the stream ended after 1 of 2 choices");
    assert_int_equal(seen.attempts, 1);
    stage_close(&stage, &seen);
}

/* The pushback of a refusal that is not tried again reaches the caller; one call may go without retries. */
static void a_call_without_retries(void **state)
{
    (void)state;
    static const struct scripted_answer script[] = {{false, GRPC_STATUS_RESOURCE_EXHAUSTED, "75"}};
    struct stage stage;
    struct seen seen = {0};
    stage_open(&stage, script, 1);
    struct request request = words("x", 1);
    struct bantam_header header = {"x-test", "one call's", 10};
    struct bantam_query query = {.method = BANTAM_GENERATE, .request = &request};
    struct bantam_call_options options = {
        .timeout_ns = BANTAM_NO_TIMEOUT, .no_retries = true, .headers = &header, .n_headers = 1};
    assert_int_equal(
        bantam_client_start(stage.client, &query, &options, &seen_handler, &seen, &seen.call).code, ERR_OK);
    until_done(stage.client, &seen);
    assert_int_equal(seen.code, ERR_RESOURCE_EXHAUSTED);
    assert_int_equal(seen.grpc_status, GRPC_STATUS_RESOURCE_EXHAUSTED);
    assert_int_equal(seen.attempts, 1);
    assert_int_equal(seen.retry_after_ms, 75);
    assert_string_equal(seen.message, "as the script says");
    assert_string_equal(scripted_server_header(stage.server), "one call's");
    stage_close(&stage, &seen);
}

static void ask_with(struct stage *stage, const struct request *request,
                     const struct bantam_call_options *options, const char *expected)
{
    struct seen seen = {0};
    struct bantam_query query = {.method = BANTAM_GENERATE, .request = request};
    assert_int_equal(
        bantam_client_start(stage->client, &query, options, &seen_handler, &seen, &seen.call).code, ERR_OK);
    until_done(stage->client, &seen);
    assert_int_equal(seen.code, ERR_OK);
    assert_string_equal(scripted_server_routes(stage->server), expected);
    bantam_call_release(seen.call);
}

/* Proxies read no messages: what a request says of its model and priority stands in headers, unless its
 * caller says something else there. */
static void routes_are_mirrored_in_headers(void **state)
{
    (void)state;
    static const struct scripted_answer script[] = {{true, GRPC_STATUS_OK, NULL}};
    struct stage stage;
    struct seen seen = {0};
    stage_open(&stage, script, 1);
    struct request request = words("x", 1);
    struct bantam_header own = {"x-bantam-model", "another", 7};
    struct bantam_call_options options = {.timeout_ns = BANTAM_NO_TIMEOUT, .headers = &own, .n_headers = 1};
    ask_with(&stage, &request, NULL, "- -");
    request.model = "large";
    ask_with(&stage, &request, NULL, "large -");
    request.priority = -3;
    ask_with(&stage, &request, NULL, "large -3");
    ask_with(&stage, &request, &options, "another -3");
    request.model = "gro\xc3\x9f"; /* no header can say that */
    ask_with(&stage, &request, NULL, "- -3");
    start_stream(stage.client, &request, BANTAM_NO_TIMEOUT, &seen);
    until_done(stage.client, &seen);
    stage_close(&stage, &seen);
}

/* A call that waits is cancelled at once, and its deadline is looked at again when its time has come. */
static void waiting_calls_end_too(void **state)
{
    (void)state;
    static const struct scripted_answer script[] = {{false, GRPC_STATUS_UNAVAILABLE, "1000"}};
    struct stage stage;
    struct seen cancelled = {0}, late = {0};
    struct request request = words("x", 1);
    stage_open(&stage, script, 1);
    start_stream(stage.client, &request, BANTAM_NO_TIMEOUT, &cancelled);
    start_stream(stage.client, &request, 5000 * MS, &late);
    POLL_UNTIL(stage.client, bantam_client_stats(stage.client).waiting == 2)
    bantam_call_cancel(cancelled.call);
    bantam_call_cancel(cancelled.call);
    until_done(stage.client, &cancelled);
    assert_int_equal(cancelled.code, ERR_CANCELLED);
    assert_int_equal(cancelled.n_done, 1);
    assert_int_equal(bantam_client_stats(stage.client).waiting, 1);
    stage.clock.now_ns += 6000 * MS; /* a driver that was away */
    until_done(stage.client, &late);
    assert_int_equal(late.code, ERR_DEADLINE_EXCEEDED);
    assert_int_equal(scripted_server_calls(stage.server), 2);
    bantam_call_cancel(cancelled.call); /* long gone */
    bantam_call_release(cancelled.call);
    stage_close(&stage, &late);
}

/* Many clients' worth of refusals: the budget keeps the server from being asked max_attempts times each. */
static void a_storm_is_bounded(void **state)
{
    (void)state;
    enum { N = 200 };
    static const struct scripted_answer script[] = {{false, GRPC_STATUS_UNAVAILABLE, NULL}};
    static struct seen seen[N];
    struct stage stage;
    struct request request = words("x", 1);
    stage_open(&stage, script, 1);
    for (int i = 0; i < N; i++)
        start_stream(stage.client, &request, BANTAM_NO_TIMEOUT, &seen[i]);
    for (int i = 0; i < N; i++)
        while (!seen[i].n_done) {
            (void)bantam_client_poll(stage.client, MS);
            stage.clock.now_ns += 50 * MS;
        }
    struct bantam_client_stats stats = bantam_client_stats(stage.client);
    assert_int_equal(scripted_server_calls(stage.server), N + stats.retries);
    assert_true(stats.retries <= 50); /* half of the tokens */
    assert_true(stats.budget_refusals >= N - 50);
    assert_int_equal(stats.calls, 0);
    for (int i = 0; i < N; i++) {
        assert_int_equal(seen[i].code, ERR_UNAVAILABLE);
        if (i > 0)
            bantam_call_release(seen[i].call);
    }
    stage_close(&stage, &seen[0]);
}

/* A real door: its own pushback (123 ms by the fake service's prediction), then served. */
static struct virtual_clock door_clock;

static void by_hand(struct bantam_client_options *options)
{
    virtual_clock_init(&door_clock, MS);
    options->clock = &door_clock.clock;
}

static void a_full_door_is_asked_again(void **state)
{
    (void)state;
    struct world world;
    struct seen seen = {0};
    struct request request = words("again", 30);
    world_open(&world, by_hand);
    fake_service_fail_submit(world.fake, ERR_RESOURCE_EXHAUSTED);
    start_stream(world.client, &request, BANTAM_NO_TIMEOUT, &seen);
    POLL_UNTIL(world.client, bantam_client_stats(world.client).waiting == 1)
    door_clock.now_ns += 122 * MS;
    (void)bantam_client_poll(world.client, 0);
    assert_int_equal(bantam_client_stats(world.client).waiting, 1);
    door_clock.now_ns += 26 * MS; /* a fifth more */
    until_done(world.client, &seen);
    assert_int_equal(seen.code, ERR_OK);
    assert_int_equal(seen.attempts, 2);
    assert_int_equal(seen.n_tokens, 30);
    assert_int_equal(fake_service_counts(world.fake).submitted, 1);
    bantam_call_release(seen.call);
    world_close(&world);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_matrix_of_refusals),     cmocka_unit_test(an_answer_cut_short),
        cmocka_unit_test(a_call_without_retries),     cmocka_unit_test(routes_are_mirrored_in_headers),
        cmocka_unit_test(waiting_calls_end_too),      cmocka_unit_test(a_storm_is_bounded),
        cmocka_unit_test(a_full_door_is_asked_again),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
