/* The client in front of a real door over the fake service: every method, cancel in every state, deadlines,
 * flow control, threads, and a server that goes and comes back. */
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>
#include <grpc/status.h>
#include "base/alloc.h"
#include "proto/grpc_client.h"
#include "tests/clients/client_world.h"

#define MS INT64_C(1000000)

static int setup(void **state)
{
    static struct world world;
    world_open(&world, NULL);
    *state = &world;
    return 0;
}

static int teardown(void **state)
{
    struct world *world = *state;
    assert_int_equal(bantam_client_stats(world->client).calls, 0);
    world_close(world);
    return 0;
}

static bool nothing_lives(const struct fake_counts *counts)
{
    return counts->live == 0;
}

static void assert_tokens(const struct seen *seen, const char *text, uint32_t first, size_t n_tokens)
{
    uint32_t prompt[64];
    size_t n_prompt = strlen(text);
    for (size_t i = 0; i < n_prompt; i++)
        prompt[i] = (unsigned char)text[i];
    assert_int_equal(seen->n_tokens, n_tokens);
    for (uint32_t i = 0; i < n_tokens; i++)
        assert_int_equal(seen->tokens[i], fake_token(fake_prompt_hash(prompt, n_prompt), 0, first + i));
}

static void a_stream_and_what_is_known_of_it(void **state)
{
    struct world *world = *state;
    struct seen seen = {0};
    struct request request = words("hello", 502); /* of which the prefix has two */
    uint32_t prefix[] = {4, 5};
    request.request_id = "mine";
    request.output_prefix_ids = prefix;
    request.n_output_prefix_ids = 2;
    start_stream(world->client, &request, BANTAM_NO_TIMEOUT, &seen);
    until_done(world->client, &seen);
    assert_int_equal(seen.code, ERR_OK);
    assert_tokens(&seen, "hello", 2, 500);
    assert_int_equal(seen.n_finished, 1);
    assert_int_equal(seen.n_done, 1);
    assert_int_equal(seen.attempts, 1);
    assert_string_equal(seen.request_id, "mine");
    assert_string_equal(seen.model, "fake");
    assert_string_equal(seen.fingerprint, "0123456789abcdef");
    assert_memory_equal(seen.peer, "ipv4:127.0.0.1:", 15);
    assert_true(seen.has_load);
    assert_true(seen.load.utilization > 0);
    assert_true(seen.load.predicted_ttft_s > 0.122 && seen.load.predicted_ttft_s < 0.124);
    bantam_call_release(seen.call);
}

static struct bantam_reply *ask(struct world *world, const struct bantam_query *query)
{
    struct bantam_reply *reply = NULL;
    err_t e = bantam_client_ask(world->client, query, NULL, &reply);
    assert_int_equal(e.code, ERR_OK);
    assert_int_equal(reply->answer.method, query->method);
    return reply;
}

static void every_method_answers(void **state)
{
    struct world *world = *state;
    struct request request = words("ab", 7);
    request.sampling.set |= SAMPLING_N;
    request.sampling.n = 2;
    struct bantam_reply *reply =
        ask(world, &(struct bantam_query){.method = BANTAM_GENERATE_WHOLE, .request = &request});
    assert_int_equal(reply->answer.whole.n_events, 2);
    assert_int_equal(reply->answer.whole.events[1].n_token_ids, 7);
    assert_string_equal(reply->answer.whole.fingerprint, "0123456789abcdef");
    bantam_reply_free(reply);
    reply = ask(world, &(struct bantam_query){.method = BANTAM_TOKENIZE, .request = &request});
    assert_int_equal(reply->answer.tokens.n_ids, 2);
    assert_int_equal(reply->answer.tokens.ids[1], 'b');
    bantam_reply_free(reply);
    const uint32_t ids[] = {7, 2};
    reply =
        ask(world, &(struct bantam_query){.method = BANTAM_DETOKENIZE, .token_ids = ids, .n_token_ids = 2});
    assert_string_equal(reply->answer.text.text, "7 ");
    bantam_reply_free(reply);
    reply = ask(world, &(struct bantam_query){.method = BANTAM_DETOKENIZE,
                                              .token_ids = ids,
                                              .n_token_ids = 2,
                                              .keep_special_tokens = true});
    assert_string_equal(reply->answer.text.text, "7 2 ");
    bantam_reply_free(reply);
    reply = ask(world, &(struct bantam_query){.method = BANTAM_MODEL_INFO});
    assert_string_equal(reply->answer.model_info.model, "fake");
    assert_int_equal(reply->answer.model_info.vocab_size, FAKE_VOCAB_SIZE);
    bantam_reply_free(reply);
    reply = ask(world, &(struct bantam_query){.method = BANTAM_SERVER_INFO});
    assert_string_equal(reply->answer.server_info.version, "test");
    assert_true(reply->answer.server_info.max_message_bytes > 0);
    assert_false(reply->answer.server_info.draining);
    bantam_reply_free(reply);
    reply = ask(world, &(struct bantam_query){.method = BANTAM_LOADS});
    assert_int_equal(reply->answer.loads.kv_blocks_total, 1000);
    bantam_reply_free(reply);
    reply = ask(world, &(struct bantam_query){.method = BANTAM_HEALTH, .health_service = "bantam.Bantam"});
    assert_true(reply->answer.serving);
    bantam_reply_free(reply);
    fake_service_set_failed(world->fake);
    reply = ask(world, &(struct bantam_query){.method = BANTAM_HEALTH});
    assert_false(reply->answer.serving);
    bantam_reply_free(reply);
}

static void abort_ends_by_name(void **state)
{
    struct world *world = *state;
    struct seen seen = {0};
    struct request request = words("x", UINT32_MAX / 2);
    const char *const ids[] = {"one", "two"};
    request.request_id = "two";
    start_stream(world->client, &request, BANTAM_NO_TIMEOUT, &seen);
    POLL_UNTIL(world->client, seen.n_events > 0)
    struct bantam_reply *reply =
        ask(world, &(struct bantam_query){.method = BANTAM_ABORT, .request_ids = ids, .n_request_ids = 2});
    assert_int_equal(reply->answer.abort.n_aborted, 2);
    assert_false(reply->answer.abort.aborted[0]);
    assert_true(reply->answer.abort.aborted[1]);
    bantam_reply_free(reply);
    until_done(world->client, &seen);
    assert_int_equal(seen.code, ERR_OK); /* it has an end like any other: "abort" */
    bantam_call_release(seen.call);
}

static void errors_say_what_the_server_said(void **state)
{
    struct world *world = *state;
    struct bantam_reply *reply;
    struct bantam_query query = {.method = BANTAM_HEALTH, .health_service = "nobody"};
    err_t e = bantam_client_ask(world->client, &query, NULL, &reply);
    assert_int_equal(e.code, ERR_NOT_FOUND);
    struct request request = words("", 7);
    query = (struct bantam_query){.method = BANTAM_GENERATE_WHOLE, .request = &request};
    e = bantam_client_ask(world->client, &query, NULL, &reply);
    assert_int_equal(e.code, ERR_INVALID_ARGUMENT);
    assert_string_equal(e.message, "no prompt");
    struct seen seen = {0};
    request = words("x", 100);
    fake_service_fail_at(world->fake, 3);
    start_stream(world->client, &request, BANTAM_NO_TIMEOUT, &seen);
    until_done(world->client, &seen);
    assert_int_equal(seen.code, ERR_INTERNAL);
    assert_int_equal(seen.attempts, 1);
    bantam_call_release(seen.call);
}

/* Queued, held by the server, in the middle, paused, done: each cancel is one CANCELLED, or nothing. */
static void cancel_in_every_state(void **state)
{
    struct world *world = *state;
    static struct seen queued, held, running, paused, done, other;
    struct seen *all[] = {&queued, &held, &running, &paused, &done, &other};
    struct request endless = words("e", UINT32_MAX / 2), brief = words("b", 40);
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++)
        memset(all[i], 0, sizeof *all[i]);
    start_stream(world->client, &brief, BANTAM_NO_TIMEOUT, &done);
    until_done(world->client, &done);
    bantam_call_cancel(done.call);
    start_stream(world->client, &endless, BANTAM_NO_TIMEOUT, &queued);
    bantam_call_cancel(queued.call);
    until_done(world->client, &queued);
    assert_int_equal(queued.code, ERR_CANCELLED);
    assert_int_equal(queued.attempts, 0);
    paused.pause_after = 1;
    start_stream(world->client, &endless, BANTAM_NO_TIMEOUT, &paused);
    start_stream(world->client, &endless, BANTAM_NO_TIMEOUT, &running);
    POLL_UNTIL(world->client, running.n_events > 2 && paused.n_events == 1)
    fake_service_hold(world->fake, true);
    start_stream(world->client, &endless, BANTAM_NO_TIMEOUT, &held);
    start_stream(world->client, &brief, BANTAM_NO_TIMEOUT, &other);
    POLL_UNTIL(world->client, fake_service_counts(world->fake).live == 4)
    struct seen *cancelled[] = {&held, &running, &paused};
    for (size_t i = 0; i < 3; i++)
        for (int times = 0; times < 3; times++)
            bantam_call_cancel(cancelled[i]->call);
    for (size_t i = 0; i < 3; i++) {
        until_done(world->client, cancelled[i]);
        assert_int_equal(cancelled[i]->code, ERR_CANCELLED);
        assert_int_equal(cancelled[i]->grpc_status, GRPC_STATUS_CANCELLED);
        bantam_call_resume(cancelled[i]->call); /* of no use, and no harm */
    }
    fake_service_hold(world->fake, false);
    until_done(world->client, &other);
    assert_int_equal(other.code, ERR_OK);
    assert_int_equal(other.n_tokens, 40);
    (void)bantam_client_poll(world->client, 0);
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++) {
        assert_int_equal(all[i]->n_done, 1);
        bantam_call_release(all[i]->call);
    }
    fake_service_wait(world->fake, nothing_lives);
}

static void deadlines_end_calls(void **state)
{
    struct world *world = *state;
    struct seen queued = {0};
    struct request request = words("x", 10);
    fake_service_hold(world->fake, true);
    start_stream(world->client, &request, 0, &queued);
    bantam_client_wait(world->client, queued.call);
    assert_int_equal(queued.code, ERR_DEADLINE_EXCEEDED);
    assert_int_equal(queued.attempts, 0); /* it never left */
    bantam_call_release(queued.call);
    uint32_t attempts = 0;
    for (int64_t timeout_ns = 50 * MS; attempts == 0; timeout_ns *= 2) { /* a busy machine may take long */
        struct seen held = {0};
        start_stream(world->client, &request, timeout_ns, &held);
        bantam_client_wait(world->client, held.call);
        assert_int_equal(held.code, ERR_DEADLINE_EXCEEDED);
        attempts = held.attempts;
        bantam_call_release(held.call);
    }
    assert_int_equal(attempts, 1);
    fake_service_wait(world->fake, nothing_lives);
    fake_service_hold(world->fake, false);
}

static void small_window(struct bantam_client_options *options)
{
    options->window_bytes = 65536;
}

static bool one_paused(const struct fake_counts *counts)
{
    return counts->paused == 1;
}

static void *resume(void *call)
{
    bantam_call_resume(call);
    return NULL;
}

/* A reader that stops pauses its own request alone, and goes on when some other thread says so. */
static void paused_streams_go_on(void **state)
{
    (void)state;
    struct world world;
    static struct seen slow, other;
    memset(&slow, 0, sizeof slow);
    memset(&other, 0, sizeof other);
    world_open(&world, small_window);
    struct request request = words("slow", 4000), brief = words("b", 50);
    request.sampling.set |= SAMPLING_LOGPROBS;
    request.sampling.logprobs = 20;
    slow.pause_after = 1;
    start_stream(world.client, &request, BANTAM_NO_TIMEOUT, &slow);
    POLL_UNTIL(world.client, slow.n_events == 1)
    fake_service_wait(world.fake, one_paused);
    start_stream(world.client, &brief, BANTAM_NO_TIMEOUT, &other);
    until_done(world.client, &other);
    assert_int_equal(other.n_tokens, 50);
    assert_int_equal(slow.n_events, 1);
    pthread_t thread;
    assert_int_equal(pthread_create(&thread, NULL, resume, slow.call), 0);
    until_done(world.client, &slow);
    pthread_join(thread, NULL);
    assert_tokens(&slow, "slow", 0, 4000);
    bantam_call_release(slow.call);
    bantam_call_release(other.call);
    world_close(&world);
}

enum { THREADS = 4, CALLS_EACH = 60 };

struct caller {
    struct bantam_client *client;
    _Atomic uint32_t *n_done;
    struct seen *seen; /* [CALLS_EACH] */
};

struct counted {
    struct seen *seen;
    _Atomic uint32_t *n_done;
};

static bool counted_event(void *context, const struct event *event)
{
    struct seen *seen = ((struct counted *)context)->seen;
    seen->n_tokens += event->n_token_ids;
    return true;
}

static void counted_done(void *context, const struct bantam_outcome *outcome)
{
    struct counted *counted = context;
    counted->seen->code = outcome->error.code;
    atomic_fetch_add(counted->n_done, 1);
    mem_free(counted);
}

/* Starts calls; cancels every third from here. */
static void *start_many(void *argument)
{
    static const struct bantam_handler handler = {.on_event = counted_event, .on_done = counted_done};
    struct caller *caller = argument;
    for (int i = 0; i < CALLS_EACH; i++) {
        struct request request = words("t", i % 3 == 0 ? UINT32_MAX / 2 : 20);
        struct bantam_query query = {.method = BANTAM_GENERATE, .request = &request};
        struct counted *counted = mem_alloc(sizeof *counted);
        struct bantam_call *call = NULL;
        assert_non_null(counted);
        *counted = (struct counted){&caller->seen[i], caller->n_done};
        err_t e = bantam_client_start(caller->client, &query, NULL, &handler, counted, &call);
        assert_int_equal(e.code, ERR_OK);
        if (i % 3 == 0)
            bantam_call_cancel(call);
        bantam_call_release(call);
    }
    return NULL;
}

/* The driver sleeps without a limit: every call that some thread starts wakes it. */
static void any_thread_may_start(void **state)
{
    struct world *world = *state;
    struct seen *seen = mem_alloc_array(THREADS * CALLS_EACH, sizeof *seen);
    _Atomic uint32_t n_done = 0;
    pthread_t threads[THREADS];
    struct caller callers[THREADS];
    for (int i = 0; i < THREADS; i++) {
        callers[i] = (struct caller){world->client, &n_done, &seen[i * CALLS_EACH]};
        assert_int_equal(pthread_create(&threads[i], NULL, start_many, &callers[i]), 0);
    }
    while (n_done < THREADS * CALLS_EACH)
        (void)bantam_client_poll(world->client, -1);
    for (int i = 0; i < THREADS; i++)
        pthread_join(threads[i], NULL);
    for (int i = 0; i < THREADS * CALLS_EACH; i++) {
        bool cancelled = i % CALLS_EACH % 3 == 0;
        assert_int_equal(seen[i].code, cancelled ? ERR_CANCELLED : ERR_OK);
        if (!cancelled)
            assert_int_equal(seen[i].n_tokens, 20);
    }
    mem_free(seen);
    fake_service_wait(world->fake, nothing_lives);
}

static void *wake(void *client)
{
    bantam_client_wake(client);
    return NULL;
}

static void a_wake_ends_a_poll(void **state)
{
    struct world *world = *state;
    pthread_t thread;
    for (int i = 0; i < 20; i++) {
        assert_int_equal(pthread_create(&thread, NULL, wake, world->client), 0);
        assert_true(bantam_client_poll(world->client, -1));
        pthread_join(thread, NULL);
    }
}

/* Closed over whatever is under way: each call hears of it, nothing is left on either side. */
static void close_ends_everything(void **state)
{
    (void)state;
    enum { N = 12 };
    static struct seen seen[N];
    struct world world;
    struct bantam_watch *watch, *other;
    struct bantam_loads_view view;
    memset(seen, 0, sizeof seen);
    world_open(&world, NULL);
    struct request request = words("x", UINT32_MAX / 2);
    assert_int_equal(bantam_client_watch(world.client, 10, &watch).code, ERR_OK);
    assert_int_equal(bantam_client_watch(world.client, 10, &other).code, ERR_OK);
    for (int i = 0; i < N; i++) {
        seen[i].pause_after = i % 2 ? 1 : 0;
        start_stream(world.client, &request, BANTAM_NO_TIMEOUT, &seen[i]);
        if (i % 4 == 0)
            bantam_call_release(seen[i].call);
        if (i == N - 3)
            POLL_UNTIL(world.client, seen[0].n_events > 3)
    }
    bantam_watch_close(other);
    bantam_client_close(world.client);
    for (int i = 0; i < N; i++) {
        assert_int_equal(seen[i].n_done, 1);
        assert_int_equal(seen[i].code, ERR_CANCELLED);
        if (i % 4 != 0) {
            bantam_call_cancel(seen[i].call);
            bantam_call_release(seen[i].call);
        }
    }
    bantam_watch_read(watch, &view);
    assert_false(view.connected);
    bantam_watch_close(watch);
    grpc_door_close(world.door);
    (void)close(world.held_fd);
    fake_service_close(world.fake);
}

static void patient(struct bantam_client_options *options)
{
    options->retry.max_attempts = BANTAM_ATTEMPTS_MAX;
    options->retry.backoff_ns = 20 * MS;
    options->retry.backoff_max_ns = 200 * MS;
    options->retry.budget = 0;
    options->reconnect_min_ms = 20;
    options->reconnect_max_ms = 100;
}

/* The server goes: what has begun ends, what has not waits for it; the loads are followed across. */
static void a_server_that_comes_back(void **state)
{
    (void)state;
    struct world world;
    static struct seen begun, later;
    struct bantam_watch *watch;
    struct bantam_loads_view view;
    memset(&begun, 0, sizeof begun);
    memset(&later, 0, sizeof later);
    world_open(&world, patient);
    struct request request = words("x", UINT32_MAX / 2), brief = words("y", 30);
    assert_int_equal(bantam_client_watch(world.client, 10, &watch).code, ERR_OK);
    bantam_watch_read(watch, &view);
    assert_int_equal(view.age_ns, -1);
    start_stream(world.client, &request, BANTAM_NO_TIMEOUT, &begun);
    POLL_UNTIL(world.client, begun.n_events > 0)
    POLL_UNTIL(world.client, (bantam_watch_read(watch, &view), view.n_messages >= 2))
    assert_true(view.connected && view.age_ns >= 0);
    assert_int_equal(view.loads.kv_blocks_total, 1000);
    assert_int_equal(view.failure, ERR_OK);
    grpc_door_close(world.door);
    until_done(world.client, &begun);
    assert_int_equal(begun.code, ERR_UNAVAILABLE);
    assert_int_equal(begun.attempts, 1);
    start_stream(world.client, &brief, BANTAM_NO_TIMEOUT, &later);
    POLL_UNTIL(world.client, bantam_client_stats(world.client).retries >= 2)
    assert_false(later.n_done);
    POLL_UNTIL(world.client, (bantam_watch_read(watch, &view), view.n_failures >= 2))
    assert_false(view.connected);
    assert_int_equal(view.failure, ERR_UNAVAILABLE);
    assert_int_equal(view.loads.kv_blocks_total, 1000); /* the last that was known, and its age */
    assert_true(view.age_ns > 0);
    uint64_t n_before = view.n_messages;
    world_reopen_door(&world);
    until_done(world.client, &later);
    assert_int_equal(later.code, ERR_OK);
    assert_tokens(&later, "y", 0, 30);
    assert_true(later.attempts > 2);
    POLL_UNTIL(world.client, (bantam_watch_read(watch, &view), view.connected))
    assert_true(view.n_messages > n_before);
    bantam_watch_close(watch);
    POLL_UNTIL(world.client, bantam_client_stats(world.client).calls == 0)
    bantam_call_release(begun.call);
    bantam_call_release(later.call);
    world_close(&world);
}

/* Two servers behind one name: with round robin both are asked, and each answer says who gave it. */
static void addresses_take_turns(void **state)
{
    (void)state;
    enum { N = 8 };
    static struct seen seen[N];
    struct world one, two;
    struct bantam_client *client;
    char target[160];
    memset(seen, 0, sizeof seen);
    world_open(&one, NULL);
    world_open(&two, NULL);
    (void)snprintf(target, sizeof target, "ipv4:%s,%s", one.target, two.target);
    struct bantam_client_options options = bantam_client_options_default();
    options.target = target;
    options.balancing = BANTAM_ROUND_ROBIN;
    options.own_connection = true;
    assert_int_equal(bantam_client_open(&options, &client).code, ERR_OK);
    struct request request = words("x", 3);
    bool asked_one = false, asked_two = false;
    while (!asked_one || !asked_two) { /* until both are connected */
        memset(seen, 0, sizeof seen);
        for (int i = 0; i < N; i++)
            start_stream(client, &request, BANTAM_NO_TIMEOUT, &seen[i]);
        for (int i = 0; i < N; i++) {
            until_done(client, &seen[i]);
            assert_int_equal(seen[i].code, ERR_OK);
            asked_one |= strstr(seen[i].peer, one.target) != NULL;
            asked_two |= strstr(seen[i].peer, two.target) != NULL;
            bantam_call_release(seen[i].call);
        }
    }
    assert_true(fake_service_counts(one.fake).submitted > 0);
    assert_true(fake_service_counts(two.fake).submitted > 0);
    bantam_client_close(client);
    world_close(&one);
    world_close(&two);
}

static void few_calls(struct bantam_client_options *options)
{
    options->max_calls = 2;
}

static void limits_are_refused(void **state)
{
    (void)state;
    struct world world;
    struct seen seen[3] = {0};
    world_open(&world, few_calls);
    struct request request = words("x", 5);
    start_stream(world.client, &request, BANTAM_NO_TIMEOUT, &seen[0]);
    start_stream(world.client, &request, BANTAM_NO_TIMEOUT, &seen[1]);
    struct bantam_query query = {.method = BANTAM_GENERATE, .request = &request};
    struct bantam_call *call;
    err_t e = bantam_client_start(world.client, &query, NULL, &seen_handler, &seen[2], &call);
    assert_int_equal(e.code, ERR_RESOURCE_EXHAUSTED);
    until_done(world.client, &seen[0]);
    until_done(world.client, &seen[1]);
    bantam_call_release(seen[0].call);
    bantam_call_release(seen[1].call);
    struct bantam_header headers[BANTAM_HEADERS_MAX + 1];
    for (int i = 0; i <= BANTAM_HEADERS_MAX; i++)
        headers[i] = (struct bantam_header){"x-a", "b", 1};
    static const struct bantam_header bad[] = {
        {"X-A", "b", 1}, {"", "b", 1},      {"grpc-timeout", "1S", 2},
        {"te", "x", 1},  {"x-a", "b\n", 2}, {":path", "x", 1},
    };
    struct bantam_call_options options = {
        .timeout_ns = -1, .headers = headers, .n_headers = BANTAM_HEADERS_MAX + 1};
    e = bantam_client_start(world.client, &query, &options, &seen_handler, &seen[2], NULL);
    assert_int_equal(e.code, ERR_INVALID_ARGUMENT);
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        options = (struct bantam_call_options){.timeout_ns = -1, .headers = &bad[i], .n_headers = 1};
        e = bantam_client_start(world.client, &query, &options, &seen_handler, &seen[2], NULL);
        assert_int_equal(e.code, ERR_INVALID_ARGUMENT);
    }
    static char long_value[CLIENT_METADATA_BYTES_MAX];
    memset(long_value, 'x', sizeof long_value);
    struct bantam_header long_header = {"x-a", long_value, sizeof long_value - 2};
    options = (struct bantam_call_options){.timeout_ns = -1, .headers = &long_header, .n_headers = 1};
    e = bantam_client_start(world.client, &query, &options, &seen_handler, &seen[2], NULL);
    assert_int_equal(e.code, ERR_INVALID_ARGUMENT);
    char long_name[BANTAM_HEALTH_SERVICE_BYTES_MAX + 2];
    memset(long_name, 'x', sizeof long_name - 1);
    long_name[sizeof long_name - 1] = '\0';
    query = (struct bantam_query){.method = BANTAM_HEALTH, .health_service = long_name};
    e = bantam_client_start(world.client, &query, NULL, &seen_handler, &seen[2], NULL);
    assert_int_equal(e.code, ERR_INVALID_ARGUMENT);
    const char *too_many[BANTAM_ABORT_IDS_MAX + 1] = {"x"};
    query = (struct bantam_query){
        .method = BANTAM_ABORT, .request_ids = too_many, .n_request_ids = BANTAM_ABORT_IDS_MAX + 1};
    e = bantam_client_start(world.client, &query, NULL, &seen_handler, &seen[2], NULL);
    assert_int_equal(e.code, ERR_INVALID_ARGUMENT);
    struct bantam_watch *watch;
    assert_int_equal(bantam_client_watch(world.client, 9, &watch).code, ERR_INVALID_ARGUMENT);
    assert_int_equal(seen[2].n_done, 0);
    options =
        (struct bantam_call_options){.timeout_ns = -1, .headers = headers, .n_headers = BANTAM_HEADERS_MAX};
    query = (struct bantam_query){.method = BANTAM_GENERATE, .request = &request};
    e = bantam_client_start(world.client, &query, &options, &seen_handler, &seen[2], NULL);
    assert_int_equal(e.code, ERR_OK);
    until_done(world.client, &seen[2]);
    assert_int_equal(seen[2].code, ERR_OK);
    world_close(&world);
}

static const struct bantam_header full_headers[] = {{"x-1", "b", 1}, {"x-2", "b", 1}, {"x-3", "b", 1},
                                                    {"x-4", "b", 1}, {"x-5", "b", 1}, {"x-6", "b", 1},
                                                    {"x-7", "b", 1}, {"x-8", "b", 1}};

static void with_a_key_and_headers(struct bantam_client_options *options)
{
    options->api_key = "sk-test";
    options->headers = full_headers;
    options->n_headers = BANTAM_HEADERS_MAX;
}

/* As many headers as a client and a call may have, a key and what is mirrored besides. */
static void all_headers_fit(void **state)
{
    (void)state;
    _Static_assert(sizeof full_headers / sizeof full_headers[0] == BANTAM_HEADERS_MAX, "as many as may be");
    struct world world;
    struct seen seen = {0};
    world_open(&world, with_a_key_and_headers);
    struct request request = words("x", 5);
    request.model = "fake";
    request.priority = 1;
    struct bantam_query query = {.method = BANTAM_GENERATE, .request = &request};
    struct bantam_call_options options = {
        .timeout_ns = -1, .headers = full_headers, .n_headers = BANTAM_HEADERS_MAX};
    err_t e = bantam_client_start(world.client, &query, &options, &seen_handler, &seen, &seen.call);
    assert_int_equal(e.code, ERR_OK);
    until_done(world.client, &seen);
    assert_int_equal(seen.code, ERR_OK);
    bantam_call_release(seen.call);
    world_close(&world);
}

/* Every allocation of opening, starting and watching fails once: an error, and nothing is left. */
static void failing_allocations_are_errors(void **state)
{
    (void)state;
    struct bantam_client_options options = bantam_client_options_default();
    struct bantam_header header = {"x-a", "b", 1};
    options.api_key = "sk-test";
    options.headers = &header;
    options.n_headers = 1;
    options.own_connection = true;
    options.target = "127.0.0.1:1";
    struct bantam_client *client = NULL;
    err_t e = err_new(ERR_INTERNAL, "not tried");
    for (int64_t nth = 0; e.code != ERR_OK; nth++) {
        mem_fail_nth(nth);
        e = bantam_client_open(&options, &client);
        mem_fail_nth(-1);
        assert_true(e.code == ERR_OK || e.code == ERR_RESOURCE_EXHAUSTED);
    }
    struct request request = words("x", 1);
    request.model = "m";
    request.priority = 1;
    struct bantam_query query = {.method = BANTAM_GENERATE, .request = &request};
    struct bantam_call_options call = {.timeout_ns = -1, .headers = &header, .n_headers = 1};
    struct seen seen = {0};
    e.code = ERR_INTERNAL;
    for (int64_t nth = 0; e.code != ERR_OK; nth++) {
        mem_fail_nth(nth);
        e = bantam_client_start(client, &query, &call, &seen_handler, &seen, NULL);
        mem_fail_nth(-1);
        assert_true(e.code == ERR_OK || e.code == ERR_RESOURCE_EXHAUSTED);
    }
    struct bantam_watch *watch;
    e.code = ERR_INTERNAL;
    for (int64_t nth = 0; e.code != ERR_OK; nth++) {
        mem_fail_nth(nth);
        e = bantam_client_watch(client, 1000, &watch);
        mem_fail_nth(-1);
        assert_true(e.code == ERR_OK || e.code == ERR_RESOURCE_EXHAUSTED);
    }
    bantam_client_close(client);
    bantam_watch_close(watch);
    assert_int_equal(seen.n_done, 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(a_stream_and_what_is_known_of_it, setup, teardown),
        cmocka_unit_test_setup_teardown(every_method_answers, setup, teardown),
        cmocka_unit_test_setup_teardown(abort_ends_by_name, setup, teardown),
        cmocka_unit_test_setup_teardown(errors_say_what_the_server_said, setup, teardown),
        cmocka_unit_test_setup_teardown(cancel_in_every_state, setup, teardown),
        cmocka_unit_test_setup_teardown(deadlines_end_calls, setup, teardown),
        cmocka_unit_test_setup_teardown(any_thread_may_start, setup, teardown),
        cmocka_unit_test_setup_teardown(a_wake_ends_a_poll, setup, teardown),
        cmocka_unit_test(paused_streams_go_on),
        cmocka_unit_test(close_ends_everything),
        cmocka_unit_test(a_server_that_comes_back),
        cmocka_unit_test(addresses_take_turns),
        cmocka_unit_test(limits_are_refused),
        cmocka_unit_test(all_headers_fit),
        cmocka_unit_test(failing_allocations_are_errors),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
