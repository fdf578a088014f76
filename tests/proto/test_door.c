/* The gRPC door in front of a service without a model. */
#include <stdio.h>
#include <string.h>
#include "base/alloc.h"
#include "tests/proto/door_client.h"

static int setup(void **state)
{
    static struct fixture fixture;
    fixture_open(&fixture, NULL, NULL);
    *state = &fixture;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *fixture = *state;
    struct fake_counts counts = fake_service_counts(fixture->fake);
    assert_int_equal(grpc_client_calls(fixture->client), 0);
    fixture_close(fixture);
    (void)counts;
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

static void assert_tokens(const struct reply *reply, const char *text, uint32_t choice, uint32_t first,
                          uint32_t n_tokens)
{
    uint32_t prompt[64];
    size_t n_prompt = strlen(text);
    for (size_t i = 0; i < n_prompt; i++)
        prompt[i] = (unsigned char)text[i];
    uint64_t hash = fake_prompt_hash(prompt, n_prompt);
    assert_int_equal(reply->n_tokens[choice], n_tokens);
    for (uint32_t i = 0; i < n_tokens; i++)
        assert_int_equal(reply->tokens[choice][i], fake_token(hash, choice, first + i));
}

static void stream_brings_every_token_once(void **state)
{
    struct fixture *fixture = *state;
    struct reply reply = {0};
    struct request request = text_request("hello", 1000, 2);
    request.request_id = "mine";
    start_request(fixture, GENERATE, &request, CLIENT_NO_TIMEOUT, &reply);
    wait_done(fixture, &reply);
    assert_int_equal(reply.status, GRPC_STATUS_OK);
    assert_tokens(&reply, "hello", 0, 0, 1000);
    assert_tokens(&reply, "hello", 1, 0, 1000);
    assert_int_equal(reply.n_completes, 2);
    assert_int_equal(reply.reason, FINISH_LENGTH);
    assert_int_equal(reply.usage.prompt_tokens, 5);
    assert_int_equal(reply.usage.completion_tokens, 1000);
    assert_int_equal(reply.usage.cached_tokens, 3);
    assert_int_equal(reply.n_prompt_ids, 5);
    assert_string_equal(reply.request_id, "mine");
}

/* Who hears of the end may come again at once, under the same name and in the same place. */
static void nothing_is_held_once_the_end_is_heard(void **state)
{
    struct fixture *fixture = *state;
    static const char *const paths[] = {GENERATE, GENERATE_WHOLE};
    for (int round = 0; round < 600; round++) {
        struct reply reply = {0};
        struct request request = text_request("again", 3, 1);
        fake_service_fail_at(fixture->fake, round % 3 == 2 ? 1 : UINT32_MAX);
        start_request(fixture, paths[round % 2], &request, CLIENT_NO_TIMEOUT, &reply);
        wait_done(fixture, &reply);
        assert_int_equal(reply.status, round % 3 == 2 ? GRPC_STATUS_INTERNAL : GRPC_STATUS_OK);
        assert_int_equal(fake_service_counts(fixture->fake).live, 0);
    }
}

static void whole_equals_stream(void **state)
{
    struct fixture *fixture = *state;
    struct reply streamed = {0}, whole = {0};
    struct request request = text_request("same", 203, 3);
    uint32_t prefix[] = {7, 8, 9};
    request.output_prefix_ids = prefix;
    request.n_output_prefix_ids = 3;
    request.sampling.set |= SAMPLING_LOGPROBS | SAMPLING_PROMPT_LOGPROBS;
    request.sampling.logprobs = 2;
    request.sampling.prompt_logprobs = 0;
    start_request(fixture, GENERATE, &request, CLIENT_NO_TIMEOUT, &streamed);
    start_request(fixture, GENERATE_WHOLE, &request, CLIENT_NO_TIMEOUT, &whole);
    wait_done(fixture, &streamed);
    wait_done(fixture, &whole);
    assert_int_equal(whole.status, GRPC_STATUS_OK);
    assert_int_equal(whole.n_messages, 1);
    assert_int_equal(whole.n_completes, 3);
    assert_int_equal(whole.text_bytes, streamed.text_bytes);
    assert_int_equal(whole.n_logprobs, 600);
    assert_int_equal(streamed.n_logprobs, 600);
    assert_int_equal(whole.n_prompt_logprobs, 4);
    assert_int_equal(streamed.n_prompt_logprobs, 4);
    for (uint32_t choice = 0; choice < 3; choice++) {
        assert_tokens(&whole, "same", choice, 3, 200);
        assert_tokens(&streamed, "same", choice, 3, 200);
    }
}

static void many_streams_at_once(void **state)
{
    enum { N = 200 };
    struct fixture *fixture = *state;
    struct reply *replies = mem_alloc_array(N, sizeof *replies);
    char text[N][16];
    for (int i = 0; i < N; i++) {
        (void)snprintf(text[i], sizeof text[i], "p%d", i);
        struct request request = text_request(text[i], 50, 1);
        start_request(fixture, i % 2 ? GENERATE : GENERATE_WHOLE, &request, CLIENT_NO_TIMEOUT, &replies[i]);
    }
    for (int i = 0; i < N; i++) {
        wait_done(fixture, &replies[i]);
        assert_int_equal(replies[i].status, GRPC_STATUS_OK);
        assert_tokens(&replies[i], text[i], 0, 0, 50);
    }
    mem_free(replies);
    wait_counts(fixture, nothing_lives);
    assert_int_equal(fake_service_counts(fixture->fake).cancelled, 0);
}

static void large_prompt_goes_through_a_worker(void **state)
{
    struct fixture *fixture = *state;
    static uint32_t ids[4000];
    struct request request = {.prompt_kind = PROMPT_TOKEN_IDS, .token_ids = ids, .n_token_ids = 4000};
    request.sampling.set = SAMPLING_MAX_TOKENS;
    static char bias_room[20000];
    request.sampling.max_tokens = 3;
    struct reply reply = {0};
    memset(bias_room, 'x', sizeof bias_room - 1);
    request.model = bias_room; /* more than an inline payload */
    start_request(fixture, GENERATE, &request, CLIENT_NO_TIMEOUT, &reply);
    wait_done(fixture, &reply);
    assert_int_equal(reply.status, GRPC_STATUS_OK);
    assert_int_equal(reply.n_tokens[0], 3);
    assert_int_equal(reply.n_prompt_ids, 4000);
}

/* A cancel reaches the service in each phase, and nobody else notices. */
static void cancel_in_every_phase(void **state)
{
    struct fixture *fixture = *state;
    struct reply held = {0}, running = {0}, other = {0};
    struct request request = text_request("c", UINT32_MAX / 2, 1), short_request = text_request("o", 300, 1);
    fake_service_hold(fixture->fake, true);
    start_request(fixture, GENERATE, &request, CLIENT_NO_TIMEOUT, &held);
    wait_counts(fixture, one_submitted);
    grpc_client_cancel(held.call);
    wait_done(fixture, &held);
    assert_int_equal(held.status, GRPC_STATUS_CANCELLED);
    wait_counts(fixture, nothing_lives);
    fake_service_hold(fixture->fake, false);
    running.stop_reading_after = 3;
    start_request(fixture, GENERATE, &request, CLIENT_NO_TIMEOUT, &running);
    wait_messages(fixture, &running, 3);
    start_request(fixture, GENERATE, &short_request, CLIENT_NO_TIMEOUT, &other);
    grpc_client_cancel(running.call);
    wait_done(fixture, &running);
    wait_done(fixture, &other);
    assert_int_equal(other.status, GRPC_STATUS_OK);
    assert_tokens(&other, "o", 0, 0, 300);
    wait_counts(fixture, nothing_lives);
    assert_int_equal(fake_service_counts(fixture->fake).cancelled, 2);
}

/* A reader that stops fills its own ring and no other; when it reads again it gets everything. */
static void stopped_reader_pauses_itself(void **state)
{
    struct fixture *fixture = *state;
    struct reply stopped = {.stop_reading_after = 1}, other = {0};
    struct request request = text_request("slow", 4000, 1), other_request = text_request("fast", 4000, 1);
    request.sampling.set |= SAMPLING_LOGPROBS;
    request.sampling.logprobs = 20; /* bytes enough to fill the window */
    start_request(fixture, GENERATE, &request, CLIENT_NO_TIMEOUT, &stopped);
    wait_messages(fixture, &stopped, 1);
    wait_counts(fixture, one_paused);
    assert_true(stopped.n_messages == 1);
    start_request(fixture, GENERATE, &other_request, CLIENT_NO_TIMEOUT, &other);
    wait_done(fixture, &other);
    assert_int_equal(other.status, GRPC_STATUS_OK);
    assert_tokens(&other, "fast", 0, 0, 4000);
    assert_false(stopped.done);
    wait_counts(fixture, one_paused);
    grpc_client_resume(stopped.call);
    wait_done(fixture, &stopped);
    assert_int_equal(stopped.status, GRPC_STATUS_OK);
    assert_tokens(&stopped, "slow", 0, 0, 4000);
}

static void deadline_ends_the_call(void **state)
{
    struct fixture *fixture = *state;
    struct reply stream = {0}, whole = {0};
    struct request request = text_request("d", 10, 1);
    fake_service_hold(fixture->fake, true);
    start_request(fixture, GENERATE, &request, 30000000, &stream);
    start_request(fixture, GENERATE_WHOLE, &request, 30000000, &whole);
    wait_done(fixture, &stream);
    wait_done(fixture, &whole);
    assert_int_equal(stream.status, GRPC_STATUS_DEADLINE_EXCEEDED);
    assert_int_equal(whole.status, GRPC_STATUS_DEADLINE_EXCEEDED);
    wait_counts(fixture, nothing_lives);
}

static void expect_raw(struct fixture *fixture, const char *path, const void *bytes, size_t size_bytes,
                       grpc_status_code status)
{
    struct reply reply = {0};
    start_raw(fixture, path, bytes, size_bytes, &reply);
    wait_done(fixture, &reply);
    if (reply.status != status)
        print_error("%s, %zu bytes: %s\n", path, size_bytes, reply.message);
    assert_int_equal(reply.status, status);
    if (status != GRPC_STATUS_OK)
        assert_true(reply.message[0] != '\0');
}

static void refusals_have_the_right_status(void **state)
{
    struct fixture *fixture = *state;
    expect_raw(fixture, "/bantam.Bantam/Nothing", "x", 1, GRPC_STATUS_UNIMPLEMENTED);
    expect_raw(fixture, "/other.Service/Generate", "", 0, GRPC_STATUS_UNIMPLEMENTED);
    expect_raw(fixture, GENERATE, "", 0, GRPC_STATUS_INVALID_ARGUMENT);
    expect_raw(fixture, GENERATE, "garbage that is no table", 24, GRPC_STATUS_INVALID_ARGUMENT);
    expect_raw(fixture, GENERATE_WHOLE, "garbage that is no table", 24, GRPC_STATUS_INVALID_ARGUMENT);
    expect_raw(fixture, "/bantam.Bantam/Tokenize", "garbage", 7, GRPC_STATUS_INVALID_ARGUMENT);
    expect_raw(fixture, "/bantam.Bantam/Detokenize", "garbage", 7, GRPC_STATUS_INVALID_ARGUMENT);
    expect_raw(fixture, "/bantam.Bantam/Abort", "garbage", 7, GRPC_STATUS_INVALID_ARGUMENT);
    expect_raw(fixture, "/bantam.Bantam/ModelInfo", "garbage", 7, GRPC_STATUS_INVALID_ARGUMENT);
    expect_raw(fixture, "/bantam.Bantam/WatchLoads", "garbage", 7, GRPC_STATUS_INVALID_ARGUMENT);
    size_t large = grpc_door_options_default().max_message_bytes + 1;
    char *bytes = mem_alloc(large);
    expect_raw(fixture, GENERATE, bytes, large, GRPC_STATUS_RESOURCE_EXHAUSTED);
    expect_raw(fixture, GENERATE, bytes, large - 1, GRPC_STATUS_INVALID_ARGUMENT);
    mem_free(bytes);
    assert_int_equal(fake_service_counts(fixture->fake).submitted, 0);
}

static void truncated_requests_are_refused(void **state)
{
    struct fixture *fixture = *state;
    struct request request = text_request("truncate me", 5, 1);
    struct codec_bytes encoded = codec_encode_generate(&request, NULL);
    uint8_t bytes[512];
    assert_true(encoded.size <= sizeof bytes);
    size_t size = encoded.size;
    memcpy(bytes, encoded.data, size);
    for (size_t cut = 0; cut < size; cut += 3) {
        struct reply reply = {0};
        start_raw(fixture, GENERATE, bytes, cut, &reply);
        wait_done(fixture, &reply);
        assert_true(reply.status == GRPC_STATUS_INVALID_ARGUMENT || reply.status == GRPC_STATUS_OK);
        assert_true(cut > size / 2 || reply.status == GRPC_STATUS_INVALID_ARGUMENT);
    }
    expect_raw(fixture, GENERATE, bytes, size, GRPC_STATUS_OK);
}

static void errors_of_the_service_become_statuses(void **state)
{
    static const struct {
        enum err_code code;
        grpc_status_code status;
    } cases[] = {{ERR_INVALID_ARGUMENT, GRPC_STATUS_INVALID_ARGUMENT},
                 {ERR_NOT_FOUND, GRPC_STATUS_NOT_FOUND},
                 {ERR_RESOURCE_EXHAUSTED, GRPC_STATUS_RESOURCE_EXHAUSTED},
                 {ERR_UNAVAILABLE, GRPC_STATUS_UNAVAILABLE},
                 {ERR_DEADLINE_EXCEEDED, GRPC_STATUS_DEADLINE_EXCEEDED},
                 {ERR_UNIMPLEMENTED, GRPC_STATUS_UNIMPLEMENTED},
                 {ERR_IO, GRPC_STATUS_INTERNAL}};
    struct fixture *fixture = *state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct reply reply = {0};
        struct request request = text_request("x", 5, 1);
        fake_service_fail_submit(fixture->fake, cases[i].code);
        start_request(fixture, i % 2 ? GENERATE : GENERATE_WHOLE, &request, CLIENT_NO_TIMEOUT, &reply);
        wait_done(fixture, &reply);
        assert_int_equal(reply.status, cases[i].status);
        assert_string_equal(reply.message, "made to fail");
        bool retry = cases[i].code == ERR_RESOURCE_EXHAUSTED;
        assert_int_equal(reply.has_pushback, retry);
        assert_int_equal(reply.pushback_ms, retry ? 123 : 0);
    }
}

static void failure_in_flight_fails_the_call(void **state)
{
    struct fixture *fixture = *state;
    struct reply stream = {0}, whole = {0};
    struct request request = text_request("x", 500, 2);
    fake_service_fail_at(fixture->fake, 100);
    start_request(fixture, GENERATE, &request, CLIENT_NO_TIMEOUT, &stream);
    start_request(fixture, GENERATE_WHOLE, &request, CLIENT_NO_TIMEOUT, &whole);
    wait_done(fixture, &stream);
    wait_done(fixture, &whole);
    assert_int_equal(stream.status, GRPC_STATUS_INTERNAL);
    assert_int_equal(whole.status, GRPC_STATUS_INTERNAL);
    assert_string_equal(whole.message, "made to fail at 100");
    wait_counts(fixture, nothing_lives);
}

static void abort_by_request_id(void **state)
{
    struct fixture *fixture = *state;
    struct reply stream = {0}, aborted = {0};
    struct request request = text_request("x", UINT32_MAX / 2, 1);
    request.request_id = "to-abort";
    start_request(fixture, GENERATE, &request, CLIENT_NO_TIMEOUT, &stream);
    wait_messages(fixture, &stream, 1);
    const char *ids[] = {"unknown", "to-abort"};
    struct abort_request abort_request = {ids, 2};
    struct codec_bytes bytes = codec_encode_abort(&abort_request);
    start_raw(fixture, "/bantam.Bantam/Abort", bytes.data, bytes.size, &aborted);
    wait_done(fixture, &aborted);
    wait_done(fixture, &stream);
    assert_int_equal(aborted.status, GRPC_STATUS_OK);
    bool values[] = {false, true};
    struct codec_bytes expected = codec_encode_aborted(values, 2);
    assert_int_equal(aborted.last_size, expected.size);
    assert_memory_equal(aborted.last_bytes, expected.data, expected.size);
    assert_int_equal(stream.status, GRPC_STATUS_OK);
    assert_int_equal(stream.reason, FINISH_ABORT);
}

static void unary_calls_answer(void **state)
{
    struct fixture *fixture = *state;
    struct codec_scratch scratch = {0};
    struct request request = text_request("abc", 0, 1);
    struct codec_bytes bytes = codec_encode_tokenize(&request);
    uint8_t *answer;
    size_t answer_bytes, n_ids, text_bytes;
    const uint32_t *ids;
    const char *text;
    assert_int_equal(grpc_client_unary(fixture->client, "/bantam.Bantam/Tokenize", bytes.data, bytes.size,
                                       CLIENT_NO_TIMEOUT, &answer, &answer_bytes)
                         .code,
                     ERR_OK);
    assert_int_equal(codec_decode_token_ids(answer, answer_bytes, &scratch, &ids, &n_ids).code, ERR_OK);
    assert_int_equal(n_ids, 3);
    assert_int_equal(ids[2], 'c');
    mem_free(answer);
    struct detokenize_request detokenize = {(const uint32_t[]){10, 2, 30}, 3, true};
    bytes = codec_encode_detokenize(&detokenize);
    assert_int_equal(grpc_client_unary(fixture->client, "/bantam.Bantam/Detokenize", bytes.data, bytes.size,
                                       CLIENT_NO_TIMEOUT, &answer, &answer_bytes)
                         .code,
                     ERR_OK);
    assert_int_equal(codec_decode_text(answer, answer_bytes, &scratch, &text, &text_bytes).code, ERR_OK);
    assert_string_equal(text, "10 30 ");
    mem_free(answer);
    struct loads loads;
    assert_int_equal(grpc_client_unary(fixture->client, "/bantam.Bantam/GetLoads", NULL, 0, CLIENT_NO_TIMEOUT,
                                       &answer, &answer_bytes)
                         .code,
                     ERR_OK);
    assert_int_equal(codec_decode_loads(answer, answer_bytes, &scratch, &loads).code, ERR_OK);
    assert_int_equal(loads.kv_blocks_total, 1000);
    mem_free(answer);
    codec_scratch_free(&scratch);
    expect_raw(fixture, "/bantam.Bantam/ModelInfo", NULL, 0, GRPC_STATUS_OK);
    expect_raw(fixture, "/bantam.Bantam/ServerInfo", NULL, 0, GRPC_STATUS_OK);
}

static void loads_are_watched(void **state)
{
    struct fixture *fixture = *state;
    struct reply reply = {0};
    struct codec_bytes bytes = codec_encode_watch_loads(10);
    start_raw(fixture, "/bantam.Bantam/WatchLoads", bytes.data, bytes.size, &reply);
    wait_messages(fixture, &reply, 4);
    grpc_client_cancel(reply.call);
    wait_done(fixture, &reply);
    assert_int_equal(reply.status, GRPC_STATUS_CANCELLED);
    bytes = codec_encode_watch_loads(9);
    expect_raw(fixture, "/bantam.Bantam/WatchLoads", bytes.data, bytes.size, GRPC_STATUS_INVALID_ARGUMENT);
}

static void too_many_calls_are_refused(void **state)
{
    (void)state;
    struct grpc_door_options options = grpc_door_options_default();
    options.max_calls = 2;
    struct fixture fixture;
    fixture_open(&fixture, NULL, &options);
    struct reply replies[3] = {{0}};
    struct request request = text_request("x", 10, 1);
    fake_service_hold(fixture.fake, true);
    for (int i = 0; i < 3; i++)
        start_request(&fixture, GENERATE, &request, CLIENT_NO_TIMEOUT, &replies[i]);
    int refused = -1;
    while (refused < 0) {
        (void)grpc_client_poll(fixture.client, -1);
        for (int i = 0; i < 3; i++)
            refused = replies[i].done ? i : refused;
    }
    assert_int_equal(replies[refused].status, GRPC_STATUS_RESOURCE_EXHAUSTED);
    fake_service_hold(fixture.fake, false);
    for (int i = 0; i < 3; i++) {
        wait_done(&fixture, &replies[i]);
        assert_int_equal(replies[i].status, i == refused ? GRPC_STATUS_RESOURCE_EXHAUSTED : GRPC_STATUS_OK);
    }
    fixture_close(&fixture);
}

/* What is held of requests has one limit for all; what was submitted counts no more. */
static void pending_bytes_are_limited(void **state)
{
    (void)state;
    struct grpc_door_options options = grpc_door_options_default();
    options.max_pending_bytes = 4000;
    struct fixture fixture;
    fixture_open(&fixture, NULL, &options);
    static uint32_t ids[1100];
    struct request request = {.prompt_kind = PROMPT_TOKEN_IDS, .token_ids = ids, .n_token_ids = 1100};
    struct reply large = {0}, replies[10] = {{0}};
    start_request(&fixture, GENERATE, &request, CLIENT_NO_TIMEOUT, &large);
    wait_done(&fixture, &large);
    assert_int_equal(large.status, GRPC_STATUS_RESOURCE_EXHAUSTED);
    request.n_token_ids = 300;
    fake_service_hold(fixture.fake, true);
    for (uint32_t i = 0; i < 10; i++) {
        start_request(&fixture, GENERATE, &request, CLIENT_NO_TIMEOUT, &replies[i]);
        while (fake_service_counts(fixture.fake).submitted <= i) {
            (void)grpc_client_poll(fixture.client, 1000000);
            assert_false(replies[i].done);
        }
    }
    fake_service_hold(fixture.fake, false);
    for (int i = 0; i < 10; i++) {
        wait_done(&fixture, &replies[i]);
        assert_int_equal(replies[i].status, GRPC_STATUS_OK);
    }
    fixture_close(&fixture);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(stream_brings_every_token_once, setup, teardown),
        cmocka_unit_test_setup_teardown(nothing_is_held_once_the_end_is_heard, setup, teardown),
        cmocka_unit_test_setup_teardown(whole_equals_stream, setup, teardown),
        cmocka_unit_test_setup_teardown(many_streams_at_once, setup, teardown),
        cmocka_unit_test_setup_teardown(large_prompt_goes_through_a_worker, setup, teardown),
        cmocka_unit_test_setup_teardown(cancel_in_every_phase, setup, teardown),
        cmocka_unit_test_setup_teardown(stopped_reader_pauses_itself, setup, teardown),
        cmocka_unit_test_setup_teardown(deadline_ends_the_call, setup, teardown),
        cmocka_unit_test_setup_teardown(refusals_have_the_right_status, setup, teardown),
        cmocka_unit_test_setup_teardown(truncated_requests_are_refused, setup, teardown),
        cmocka_unit_test_setup_teardown(errors_of_the_service_become_statuses, setup, teardown),
        cmocka_unit_test_setup_teardown(failure_in_flight_fails_the_call, setup, teardown),
        cmocka_unit_test_setup_teardown(abort_by_request_id, setup, teardown),
        cmocka_unit_test_setup_teardown(unary_calls_answer, setup, teardown),
        cmocka_unit_test_setup_teardown(loads_are_watched, setup, teardown),
        cmocka_unit_test(too_many_calls_are_refused),
        cmocka_unit_test(pending_bytes_are_limited),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
