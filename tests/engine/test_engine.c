/* The life of a request: answers, cancellation in every state, ids, refusals, deadlines, drain, health. Every
 * test runs with one step in flight and with two. */
#include <string.h>
#include "base/alloc.h"
#include "tests/engine/engine_world.h"

enum { PROMPT = 40, OUTPUT = 24 };

static uint32_t ids_a[PROMPT], ids_b[PROMPT], ids_long[400];

static void fill_prompts(void)
{
    fill_prompt(ids_a, PROMPT, 1, STUB_VOCAB);
    fill_prompt(ids_b, PROMPT, 2, STUB_VOCAB);
    fill_prompt(ids_long, 400, 3, STUB_VOCAB);
}

static struct world_options one_sequence(uint32_t depth)
{
    struct world_options options = world_options_default(depth);
    options.stub.max_num_seqs = 1;
    return options;
}

static void test_answers(uint32_t depth)
{
    enum { N = 12 };
    struct world world;
    struct world_options options = world_options_default(depth);
    world_open(&world, &options);
    struct stream *streams[N];
    struct request requests[N];
    struct replies replies[N];
    for (uint32_t i = 0; i < N; i++) { /* more than run together, and longer than a step */
        requests[i] = request_of(ids_long + i, 1 + 17 * i, 1 + 5 * i);
        streams[i] = submit(&world, &requests[i]);
        replies[i] = replies_new(1);
    }
    uint64_t n_prompt = 0, n_output = 0;
    for (uint32_t i = 0; i < N; i++) {
        read_to_end(&world, streams[i], &replies[i]);
        assert_answered(&world, &requests[i], &replies[i]);
        assert_int_equal(replies[i].choice[0].usage.preemptions, 0);
        assert_int_equal(replies[i].choice[0].n_logprobs, 0);
        assert_int_equal(replies[i].choice[0].text_bytes, 0);
        n_prompt += requests[i].n_token_ids;
        n_output += replies[i].choice[0].n;
        world.vtable->stream_release(streams[i]);
        replies_free(&replies[i]);
    }
    world_assert_empty(&world);
    struct loads loads;
    world.vtable->loads(world.service, &loads);
    assert_int_equal(loads.requests_total, N);
    assert_int_equal(loads.prompt_tokens_total, n_prompt);
    assert_int_equal(loads.generation_tokens_total, n_output);
    assert_int_equal(loads.kv_blocks_total, options.stub.num_kv_blocks);
    assert_int_equal(loads.kv_block_tokens, options.stub.block_tokens);
    assert_int_equal(loads.max_num_seqs, options.stub.max_num_seqs);
    assert_true(loads.steps_total > 0 && loads.steps_total == stub_steps(world.stub));
    assert_true(loads.kv_blocks_cached > 0);
    assert_int_equal(loads.heartbeat_age_ns, 0);
    assert_false(loads.step_running);
    world_close(&world);
}

static void test_timings(uint32_t depth)
{
    struct world world;
    struct world_options options = world_options_default(depth);
    world_open(&world, &options);
    stub_hold(world.stub);
    struct request request = request_of(ids_a, PROMPT, 3);
    struct replies replies = replies_new(1);
    struct stream *stream = submit(&world, &request);
    stub_wait_steps(world.stub, 1);
    struct loads loads;
    world.vtable->loads(world.service, &loads);
    assert_true(loads.step_running);
    test_clock_advance_ms(&world.clock, 7);
    world.vtable->loads(world.service, &loads);
    assert_int_equal(loads.heartbeat_age_ns, 7000000);
    stub_permit(world.stub, 1);
    stub_wait_steps(world.stub, 2);
    test_clock_advance_ms(&world.clock, 5);
    stub_let_go(world.stub);
    read_to_end(&world, stream, &replies);
    const struct timings *timings = &replies.choice[0].timings;
    assert_int_equal(timings->queue_ns, 0);
    assert_int_equal(timings->prefill_ns + timings->decode_ns, 12000000);
    assert_true(timings->prefill_ns >= 7000000);
    world.vtable->stream_release(stream);
    replies_free(&replies);
    world_close(&world);
}

/* ---- Cancellation ---- */

static bool waiting_is(const struct loads *loads, uint64_t n)
{
    return loads->requests_waiting == n;
}

static void test_cancel_queued(uint32_t depth)
{
    struct world world;
    struct world_options options = one_sequence(depth);
    world_open(&world, &options);
    stub_hold(world.stub);
    struct request a = request_of(ids_a, PROMPT, OUTPUT), b = request_of(ids_b, PROMPT, OUTPUT);
    struct replies replies_a = replies_new(1), replies_b = replies_new(1);
    struct stream *stream_a = submit(&world, &a);
    stub_wait_steps(world.stub, 1); /* a runs; b will wait behind it */
    struct stream *stream_b = submit(&world, &b);
    world.vtable->stream_cancel(stream_b);
    world.vtable->stream_cancel(stream_b);
    assert_false(read_some(&world, stream_b, &replies_b));
    stub_let_go(world.stub);
    read_to_end(&world, stream_b, &replies_b);
    assert_int_equal(replies_b.choice[0].reason, FINISH_ABORT);
    assert_int_equal(replies_b.choice[0].n, 0);
    assert_int_equal(replies_b.choice[0].timings.queue_ns, -1);
    assert_int_equal(replies_b.choice[0].timings.prefill_ns, -1);
    read_to_end(&world, stream_a, &replies_a);
    assert_answered(&world, &a, &replies_a);
    world.vtable->stream_cancel(stream_b); /* after its end: nothing */
    world.vtable->stream_release(stream_b);
    world.vtable->stream_release(stream_a);
    replies_free(&replies_a);
    replies_free(&replies_b);
    world_close(&world);
}

static void test_cancel_in_prefill(uint32_t depth)
{
    struct world world;
    struct world_options options = world_options_default(depth);
    world_open(&world, &options);
    stub_hold(world.stub);
    struct request a = request_of(ids_long, 400, OUTPUT); /* seven steps of 64 rows */
    struct replies replies = replies_new(1);
    struct stream *stream = submit(&world, &a);
    stub_permit(world.stub, 2);
    stub_wait_steps(world.stub, 3);
    world.vtable->stream_cancel(stream);
    stub_let_go(world.stub);
    read_to_end(&world, stream, &replies);
    assert_int_equal(replies.choice[0].reason, FINISH_ABORT);
    assert_int_equal(replies.choice[0].n, 0);
    assert_int_equal(replies.choice[0].timings.queue_ns, 0);
    assert_int_equal(replies.choice[0].timings.prefill_ns, -1);
    world.vtable->stream_release(stream);
    world_assert_empty(&world);
    assert_true(stub_steps(world.stub) < 7);
    replies_free(&replies);
    world_close(&world);
}

static void test_cancel_in_decode(uint32_t depth)
{
    struct world world;
    struct world_options options = world_options_default(depth);
    world_open(&world, &options);
    stub_hold(world.stub);
    struct request a = request_of(ids_a, PROMPT, 400), b = request_of(ids_b, PROMPT, OUTPUT);
    struct replies replies_a = replies_new(1), replies_b = replies_new(1);
    struct stream *stream_a = submit(&world, &a), *stream_b = submit(&world, &b);
    stub_permit(world.stub, 5);
    stub_wait_steps(world.stub, 6);
    world.vtable->stream_cancel(stream_a);
    world.vtable->stream_cancel(stream_a);
    stub_let_go(world.stub);
    read_to_end(&world, stream_a, &replies_a);
    assert_int_equal(replies_a.choice[0].reason, FINISH_ABORT);
    assert_in_range(replies_a.choice[0].n, 1, 8);
    assert_int_equal(replies_a.choice[0].usage.completion_tokens, replies_a.choice[0].n);
    struct expectation expectation;
    expect(&world, &a, 0, &expectation);
    assert_memory_equal(replies_a.choice[0].ids, expectation.ids, replies_a.choice[0].n * sizeof(uint32_t));
    read_to_end(&world, stream_b, &replies_b);
    assert_answered(&world, &b, &replies_b);
    world.vtable->stream_release(stream_a);
    world.vtable->stream_release(stream_b);
    replies_free(&replies_a);
    replies_free(&replies_b);
    world_close(&world);
}

static bool finished_is(const struct loads *loads, uint64_t n)
{
    return loads->requests_finished == n;
}

/* A finish is not undone by a cancel that comes before anybody has read it. */
static void test_cancel_after_finish(uint32_t depth)
{
    struct world world;
    struct world_options options = world_options_default(depth);
    world_open(&world, &options);
    struct request a = request_of(ids_a, PROMPT, OUTPUT);
    struct replies replies = replies_new(1);
    struct stream *stream = submit(&world, &a);
    world_wait_loads(&world, finished_is, 1);
    world.vtable->stream_cancel(stream);
    assert_true(read_some(&world, stream, &replies));
    assert_answered(&world, &a, &replies);
    world.vtable->stream_release(stream);
    replies_free(&replies);
    world_close(&world);
}

/* The reader goes away without a word: queued, in prefill, in decode, and after the end. */
static void test_release_unread(uint32_t depth)
{
    struct world world;
    struct world_options options = world_options_default(depth);
    options.stub.max_num_seqs = 2;
    world_open(&world, &options);
    stub_hold(world.stub);
    struct request decode = request_of(ids_a, 3, 400), prefill = request_of(ids_long, 400, OUTPUT);
    struct request queued = request_of(ids_b, PROMPT, OUTPUT);
    struct stream *streams[] = {submit(&world, &decode), submit(&world, &prefill), submit(&world, &queued)};
    stub_permit(world.stub, 2);
    stub_wait_steps(world.stub, 3);
    assert_int_equal(world.vtable->in_flight(world.service), 3);
    for (int i = 0; i < 3; i++)
        world.vtable->stream_release(streams[i]);
    stub_let_go(world.stub);
    world_assert_empty(&world);
    struct stream *ended = submit(&world, &queued);
    world_wait_loads(&world, finished_is, 4);
    world.vtable->stream_release(ended);
    world_close(&world);
}

static void test_close_with_live_requests(uint32_t depth)
{
    struct world world;
    struct world_options options = one_sequence(depth);
    world_open(&world, &options);
    stub_hold(world.stub);
    struct request a = request_of(ids_a, PROMPT, OUTPUT), b = request_of(ids_b, PROMPT, OUTPUT);
    struct stream *running = submit(&world, &a), *queued = submit(&world, &b);
    stub_wait_steps(world.stub, 1);
    world.vtable->stream_release(running);
    world.vtable->stream_release(queued);
    stub_let_go(world.stub);
    engine_close(world.engine); /* ends the loop wherever it is, and frees everything */
    stub_destroy(world.stub);
}

/* ---- Request ids ---- */

static void test_abort_by_id(uint32_t depth)
{
    struct world world;
    struct world_options options = one_sequence(depth);
    world_open(&world, &options);
    stub_hold(world.stub);
    struct request a = request_of(ids_a, PROMPT, OUTPUT), b = request_of(ids_b, PROMPT, OUTPUT);
    a.request_id = b.request_id = "job";
    a.tenant = "alice";
    b.tenant = "bob";
    struct replies replies_a = replies_new(1), replies_b = replies_new(1);
    struct stream *stream_a = submit(&world, &a), *stream_b = submit(&world, &b);
    assert_string_equal(world.vtable->stream_request_id(stream_a), "job");
    assert_false(world.vtable->abort(world.service, "carol", "job"));
    assert_false(world.vtable->abort(world.service, NULL, "job"));
    assert_false(world.vtable->abort(world.service, "", "job"));
    assert_false(world.vtable->abort(world.service, "alice", "jo"));
    assert_true(world.vtable->abort(world.service, "bob", "job"));
    assert_true(world.vtable->abort(world.service, "bob", "job")); /* still there to be read: idempotent */
    stub_let_go(world.stub);
    read_to_end(&world, stream_b, &replies_b);
    assert_int_equal(replies_b.choice[0].reason, FINISH_ABORT);
    read_to_end(&world, stream_a, &replies_a);
    assert_answered(&world, &a, &replies_a);
    world.vtable->stream_release(stream_a);
    world.vtable->stream_release(stream_b);
    assert_false(world.vtable->abort(world.service, "alice", "job"));
    replies_free(&replies_a);
    replies_free(&replies_b);
    world_close(&world);
}

static void test_duplicate_ids(uint32_t depth)
{
    struct world world;
    struct world_options options = world_options_default(depth);
    world_open(&world, &options);
    struct request a = request_of(ids_a, PROMPT, OUTPUT);
    a.request_id = "twice";
    struct stream *first = submit(&world, &a), *other = NULL;
    assert_error(ERR_INVALID_ARGUMENT, world.vtable->submit(world.service, &a, &other));
    a.tenant = "another tenant";
    other = submit(&world, &a);
    a.tenant = NULL;
    world.vtable->stream_release(first);
    first = submit(&world, &a); /* free again */
    a.request_id = NULL;
    struct stream *unnamed = submit(&world, &a), *unnamed_too = submit(&world, &a);
    assert_string_not_equal(world.vtable->stream_request_id(unnamed),
                            world.vtable->stream_request_id(unnamed_too));
    world.vtable->stream_release(first);
    world.vtable->stream_release(other);
    world.vtable->stream_release(unnamed);
    world.vtable->stream_release(unnamed_too);
    world_close(&world);
}

/* ---- Refusals ---- */

static void test_queue_full(uint32_t depth)
{
    struct world world;
    struct world_options options = one_sequence(depth);
    options.engine.max_waiting = 1;
    world_open(&world, &options);
    stub_hold(world.stub);
    struct request a = request_of(ids_a, PROMPT, OUTPUT), b = request_of(ids_b, PROMPT, OUTPUT);
    struct stream *stream_a = submit(&world, &a), *stream_b = submit(&world, &b), *refused = NULL;
    /* At once: the loop stands still. */
    assert_error(ERR_RESOURCE_EXHAUSTED, world.vtable->submit(world.service, &b, &refused));
    assert_null(refused);
    assert_int_equal(world.vtable->in_flight(world.service), 2);
    world.vtable->stream_release(stream_a);
    stub_let_go(world.stub);
    struct event_count *progress = world.vtable->progress(world.service);
    err_t e;
    for (;;) { /* the progress event says when there is room again */
        uint32_t seen = event_count_read(progress);
        e = world.vtable->submit(world.service, &b, &stream_a);
        if (e.code != ERR_RESOURCE_EXHAUSTED)
            break;
        (void)event_count_wait(progress, seen, -1);
    }
    assert_error(ERR_OK, e);
    struct replies replies = replies_new(1);
    read_to_end(&world, stream_a, &replies);
    assert_answered(&world, &b, &replies);
    world.vtable->stream_release(stream_a);
    world.vtable->stream_release(stream_b);
    replies_free(&replies);
    world_close(&world);
}

/* Room that comes later than the answer's end (a step still named it) is announced on its own. */
static void test_room_is_announced(uint32_t depth)
{
    struct world world;
    struct world_options options = one_sequence(depth);
    options.engine.max_waiting = 0;
    world_open(&world, &options);
    stub_hold(world.stub);
    struct request a = request_of(ids_a, PROMPT, OUTPUT);
    struct expectation expectation;
    expect(&world, &a, 0, &expectation);
    a.sampling.stop_token_ids = expectation.ids;
    a.sampling.n_stop_token_ids = 1;
    struct stream *stream = submit(&world, &a), *next = NULL;
    stub_wait_steps(world.stub, 1);
    struct event_count *progress = world.vtable->progress(world.service);
    uint32_t before = event_count_read(progress), now = before;
    stub_let_go(world.stub);
    while (now - before < depth) { /* the end; with two steps in flight the room is another event */
        (void)event_count_wait(progress, now, -1);
        now = event_count_read(progress);
    }
    assert_error(ERR_OK,
                 world.vtable->submit(world.service, &a, &next)); /* though the first one was not read */
    world.vtable->stream_release(next);
    world.vtable->stream_release(stream);
    world_close(&world);
}

/* n choices take n places. */
static void test_queue_counts_choices(uint32_t depth)
{
    struct world world;
    struct world_options options = world_options_default(depth);
    options.stub.max_num_seqs = 3;
    options.engine.max_waiting = 0;
    world_open(&world, &options);
    stub_hold(world.stub);
    struct request two = request_of(ids_a, PROMPT, OUTPUT);
    two.sampling.set |= SAMPLING_N;
    two.sampling.n = 2;
    struct stream *first = submit(&world, &two), *refused;
    assert_error(ERR_RESOURCE_EXHAUSTED, world.vtable->submit(world.service, &two, &refused));
    two.sampling.n = 1;
    struct stream *second = submit(&world, &two);
    two.sampling.n = 4; /* more than can ever run together */
    world.vtable->stream_release(second);
    world.vtable->stream_release(first);
    stub_let_go(world.stub);
    world_assert_empty(&world);
    assert_error(ERR_INVALID_ARGUMENT, world.vtable->submit(world.service, &two, &refused));
    world_close(&world);
}

static void test_never_fits(uint32_t depth)
{
    struct world world;
    struct world_options options = world_options_default(depth);
    options.stub.num_kv_blocks = 8; /* 128 tokens of the model's 512 */
    world_open(&world, &options);
    struct stream *refused;
    struct request a = request_of(ids_long, 100, 30);
    assert_error(ERR_INVALID_ARGUMENT, world.vtable->submit(world.service, &a, &refused));
    a = request_of(ids_long, 512, 1);
    assert_error(ERR_INVALID_ARGUMENT, world.vtable->submit(world.service, &a, &refused));
    a = request_of(ids_long, 100, 29); /* the last token is never computed */
    struct replies replies = replies_new(1);
    ask(&world, &a, &replies);
    assert_answered(&world, &a, &replies);
    replies_free(&replies);
    a.model = "another";
    assert_error(ERR_NOT_FOUND, world.vtable->submit(world.service, &a, &refused));
    a.model = "model";
    world.vtable->stream_release(submit(&world, &a));
    world_close(&world);
}

static void test_drain(uint32_t depth)
{
    struct world world;
    struct world_options options = world_options_default(depth);
    world_open(&world, &options);
    stub_hold(world.stub);
    struct request a = request_of(ids_a, PROMPT, OUTPUT);
    struct stream *stream = submit(&world, &a), *refused;
    world.vtable->drain(world.service);
    assert_error(ERR_UNAVAILABLE, world.vtable->submit(world.service, &a, &refused));
    stub_let_go(world.stub);
    struct replies replies = replies_new(1);
    read_to_end(&world, stream, &replies);
    assert_answered(&world, &a, &replies);
    assert_int_equal(world.vtable->in_flight(world.service), 1);
    world.vtable->stream_release(stream);
    replies_free(&replies);
    world_close(&world);
}

/* ---- Deadlines ---- */

static void test_deadlines(uint32_t depth)
{
    struct world world;
    struct world_options options = one_sequence(depth);
    world_open(&world, &options);
    int64_t now_ns = world.vtable->now_ns(world.service);
    struct request running = request_of(ids_a, PROMPT, 200), queued = request_of(ids_b, PROMPT, OUTPUT);
    struct request patient = request_of(ids_b, PROMPT + 0, 5);
    running.deadline_ns = queued.deadline_ns = now_ns;
    struct stream *refused;
    assert_error(ERR_DEADLINE_EXCEEDED, world.vtable->submit(world.service, &running, &refused));
    running.deadline_ns = queued.deadline_ns = now_ns + 1000000000;
    stub_hold(world.stub);
    struct stream *streams[] = {submit(&world, &running), submit(&world, &queued), submit(&world, &patient)};
    struct replies replies[] = {replies_new(1), replies_new(1), replies_new(1)};
    stub_permit(world.stub, 4);
    read_tokens(&world, streams[0], &replies[0], 2);
    test_clock_advance_ms(&world.clock, 1000);
    stub_let_go(world.stub);
    for (int i = 0; i < 3; i++)
        read_to_end(&world, streams[i], &replies[i]);
    for (int i = 0; i < 2; i++) {
        assert_int_equal(replies[i].choice[0].reason, FINISH_ERROR);
        assert_int_equal(replies[i].choice[0].error.code, ERR_DEADLINE_EXCEEDED);
    }
    assert_in_range(replies[0].choice[0].n, 2, 8);
    assert_int_equal(replies[1].choice[0].n, 0);
    assert_answered(&world, &patient, &replies[2]);
    for (int i = 0; i < 3; i++) {
        world.vtable->stream_release(streams[i]);
        replies_free(&replies[i]);
    }
    world_close(&world);
}

/* ---- Faults ---- */

static void check_poisoned(uint32_t depth, enum step_result_status status, enum err_code code,
                           const char *says)
{
    struct world world;
    struct world_options options = world_options_default(depth);
    world_open(&world, &options);
    stub_poison(world.stub, 666, 4, status);
    struct request good = request_of(ids_a, PROMPT, OUTPUT), bad = request_of(ids_b, PROMPT, OUTPUT);
    bad.sampling.set |= SAMPLING_SEED;
    bad.sampling.seed = 666;
    stub_hold(world.stub);
    struct stream *streams[] = {submit(&world, &good), submit(&world, &bad), submit(&world, &good)};
    struct replies replies[] = {replies_new(1), replies_new(1), replies_new(1)};
    stub_let_go(world.stub);
    for (int i = 0; i < 3; i++)
        read_to_end(&world, streams[i], &replies[i]);
    assert_answered(&world, &good, &replies[0]);
    assert_answered(&world, &good, &replies[2]);
    assert_int_equal(replies[1].choice[0].reason, FINISH_ERROR);
    assert_int_equal(replies[1].choice[0].error.code, code);
    assert_non_null(strstr(replies[1].choice[0].error.message, says));
    assert_int_equal(replies[1].choice[0].n, 3);
    for (int i = 0; i < 3; i++) {
        world.vtable->stream_release(streams[i]);
        replies_free(&replies[i]);
    }
    world_close(&world);
}

static void test_not_finite(uint32_t depth)
{
    check_poisoned(depth, STEP_RESULT_NOT_FINITE, ERR_INTERNAL, "not finite at output 3");
    check_poisoned(depth, STEP_RESULT_FORBIDDEN, ERR_INVALID_ARGUMENT, "forbid every token at output 3");
}

static void test_nothing_allowed(uint32_t depth)
{
    struct world world;
    struct world_options options = world_options_default(depth);
    world_open(&world, &options);
    struct request request = request_of(ids_a, PROMPT, OUTPUT);
    const uint32_t ends[] = {7, 9};
    request.sampling.set |= SAMPLING_MIN_TOKENS;
    request.sampling.min_tokens = 2;
    request.sampling.stop_token_ids = request.sampling.allowed_token_ids = ends;
    request.sampling.n_stop_token_ids = request.sampling.n_allowed_token_ids = 2;
    struct stream *stream = NULL;
    err_t e = world.vtable->submit(world.service, &request, &stream);
    assert_int_equal(e.code, ERR_INVALID_ARGUMENT);
    assert_non_null(strstr(e.message, "min_tokens"));
    request.sampling.min_tokens = 0;
    stream = submit(&world, &request);
    world.vtable->stream_release(stream);
    world_close(&world);
}

/* Every allocation of a submission fails once: an error, and nothing is left behind. */
static void test_submit_without_memory(uint32_t depth)
{
    struct world world;
    struct world_options options = world_options_default(depth);
    world_open(&world, &options);
    struct request a = request_of(ids_a, PROMPT, OUTPUT);
    a.sampling.set |= SAMPLING_LOGPROBS | SAMPLING_PROMPT_LOGPROBS | SAMPLING_N;
    a.sampling.logprobs = a.sampling.prompt_logprobs = 2;
    a.sampling.n = 2;
    a.sampling.allowed_token_ids = ids_b;
    a.sampling.n_allowed_token_ids = PROMPT;
    struct stream *stream = NULL;
    int64_t n_failures = 0;
    for (;; n_failures++) {
        mem_fail_nth(n_failures);
        err_t e = world.vtable->submit(world.service, &a, &stream);
        mem_fail_nth(-1);
        if (e.code == ERR_OK)
            break;
        assert_int_equal(e.code, ERR_RESOURCE_EXHAUSTED);
        assert_int_equal(world.vtable->in_flight(world.service), 0);
    }
    assert_true(n_failures > 8);
    world.vtable->stream_release(stream);
    world_close(&world);
}

static void test_open_without_memory(uint32_t depth)
{
    struct world_options options = world_options_default(depth);
    struct stub *stub = stub_create(&options.stub);
    struct executor executor = stub_executor(stub);
    struct engine *engine = NULL;
    int64_t n_failures = 0;
    for (;; n_failures++) {
        mem_fail_nth(n_failures);
        err_t e = engine_open_executor(&options.engine, &executor, NULL, &engine);
        mem_fail_nth(-1);
        if (e.code == ERR_OK)
            break;
        assert_int_equal(e.code, ERR_RESOURCE_EXHAUSTED);
    }
    assert_true(n_failures > 4);
    engine_close(engine);
    stub_destroy(stub);
}

/* ---- Health and cost ---- */

static bool heartbeat_age_is(const struct loads *loads, uint64_t age_ns)
{
    return (uint64_t)loads->heartbeat_age_ns == age_ns;
}

static void test_heartbeat(uint32_t depth)
{
    enum { NEGATIVE_WAIT_NS = 150000000 }; /* of a thing that must not happen: three turns of an idle loop */
    struct world world;
    struct world_options options = world_options_default(depth);
    world_open(&world, &options);
    test_clock_advance_ms(&world.clock, 1000); /* an idle loop shows life on its own */
    world_wait_loads(&world, heartbeat_age_is, 0);
    stub_hold(world.stub);
    struct request a = request_of(ids_a, PROMPT, OUTPUT);
    struct stream *stream = submit(&world, &a);
    stub_permit(world.stub, 1);
    stub_wait_steps(world.stub,
                    2); /* in the middle of a turn, at whose end it says something and is parked */
    struct event_count *progress = world.vtable->progress(world.service);
    uint32_t seen = event_count_read(progress);
    engine_loop_park(world.engine, true);
    stub_let_go(world.stub);
    while (!event_count_wait(progress, seen, -1)) {
    }
    seen = event_count_read(progress);
    test_clock_advance_ms(&world.clock, 5000);
    assert_false(event_count_wait(progress, seen, NEGATIVE_WAIT_NS));
    struct loads loads;
    world.vtable->loads(world.service, &loads);
    assert_int_equal(loads.heartbeat_age_ns, 5000000000);
    assert_false(loads.step_running);
    assert_int_equal(stub_steps(world.stub), 2);
    engine_loop_park(world.engine, false);
    struct replies replies = replies_new(1);
    read_to_end(&world, stream, &replies);
    assert_answered(&world, &a, &replies);
    world_wait_loads(&world, heartbeat_age_is, 0);
    world.vtable->stream_release(stream);
    replies_free(&replies);
    world_close(&world);
}

/* What was put off is done when nobody waits, and whoever comes meanwhile is served. */
static void test_work_put_off(uint32_t depth)
{
    struct world world;
    struct world_options options = world_options_default(depth);
    world_open(&world, &options);
    struct request a = request_of(ids_a, PROMPT, OUTPUT);
    for (int round = 0; round < 2; round++) {
        stub_put_off(world.stub, round == 0 ? UINT64_MAX : 3);
        struct stream *stream = submit(&world, &a);
        struct replies replies = replies_new(1);
        read_to_end(&world, stream, &replies);
        assert_answered(&world, &a, &replies);
        world.vtable->stream_release(stream);
        replies_free(&replies);
    }
    stub_wait_tended(world.stub);
    world_close(&world);
}

/* The loop allocates nothing while sequences come, decode and go. */
static void test_loop_allocates_nothing(uint32_t depth)
{
    enum { N = 8, STEPS = 40 }; /* the longest takes 55, less than a ring holds: nobody reads */
    struct world world;
    struct world_options options = world_options_default(depth);
    world_open(&world, &options);
    stub_hold(world.stub);
    struct stream *streams[N];
    for (uint32_t i = 0; i < N; i++) {
        struct request request = request_of(ids_a, 2 + i, 20 + 5 * i);
        request.sampling.set |= SAMPLING_LOGPROBS;
        request.sampling.logprobs = 3;
        streams[i] = submit(&world, &request);
    }
    uint64_t before = mem_alloc_count();
    stub_permit(world.stub, STEPS);
    stub_wait_steps(world.stub, STEPS);
    assert_int_equal(mem_alloc_count(), before);
    stub_let_go(world.stub);
    world_wait_loads(&world, finished_is, N);
    assert_int_equal(mem_alloc_count(), before);
    for (uint32_t i = 0; i < N; i++)
        world.vtable->stream_release(streams[i]);
    world_close(&world);
}

static void test_model_info(uint32_t depth)
{
    struct world world;
    struct world_options options = world_options_default(depth);
    options.engine.served_model_name = "a-name";
    world_open(&world, &options);
    const struct model_info *info = world.vtable->model_info(world.service);
    assert_string_equal(info->model, "a-name");
    assert_string_equal(info->architecture, "StubForCausalLM");
    assert_int_equal(info->vocab_size, STUB_VOCAB);
    assert_int_equal(info->max_model_len, 512);
    assert_false(info->has_tokenizer);
    assert_int_equal(info->bos_token_id, -1);
    assert_int_equal(strlen(info->fingerprint), 16);
    assert_null(engine_memory_plan(world.engine));
    struct request text = {.prompt_kind = PROMPT_TEXT, .text = "a", .text_bytes = 1};
    uint32_t *ids = NULL;
    size_t n_ids = 0;
    assert_error(ERR_FAILED_PRECONDITION, world.vtable->tokenize(world.service, &text, &ids, &n_ids));
    struct buffer buffer = {.limit_bytes = 100};
    assert_error(ERR_FAILED_PRECONDITION,
                 world.vtable->detokenize(world.service, ids_a, PROMPT, true, &buffer));
    struct engine_loop_stats stats;
    engine_loop_stats_read(world.engine, &stats);
    assert_int_equal(stats.steps, 0);
    world_close(&world);
}

static bool one_waits(const struct loads *loads, uint64_t value)
{
    return waiting_is(loads, value);
}

/* Priority: who is more urgent runs first, though it came later. */
static void test_priority(uint32_t depth)
{
    struct world world;
    struct world_options options = one_sequence(depth);
    options.engine.policy = ENGINE_PRIORITY;
    world_open(&world, &options);
    struct request first = request_of(ids_long, PROMPT, 1);
    struct request late = request_of(ids_a, PROMPT, 60), urgent = request_of(ids_b, PROMPT, 60);
    late.priority = 5;
    urgent.priority = -5;
    stub_hold(world.stub);
    struct stream *stream_first = submit(&world, &first);
    stub_wait_steps(world.stub, 1); /* the loop is in a step: it will see both of the others at once */
    struct stream *stream_late = submit(&world, &late), *stream_urgent = submit(&world, &urgent);
    stub_permit(world.stub, 31);
    struct replies replies_late = replies_new(1), replies_urgent = replies_new(1);
    read_tokens(&world, stream_urgent, &replies_urgent, 20);
    world_wait_loads(&world, one_waits, 1);
    assert_false(read_some(&world, stream_late, &replies_late));
    assert_int_equal(replies_late.choice[0].n, 0);
    stub_let_go(world.stub);
    read_to_end(&world, stream_late, &replies_late);
    read_to_end(&world, stream_urgent, &replies_urgent);
    assert_answered(&world, &late, &replies_late);
    assert_answered(&world, &urgent, &replies_urgent);
    world.vtable->stream_release(stream_first);
    world.vtable->stream_release(stream_late);
    world.vtable->stream_release(stream_urgent);
    replies_free(&replies_late);
    replies_free(&replies_urgent);
    world_close(&world);
}

BOTH_DEPTHS(test_answers)
BOTH_DEPTHS(test_timings)
BOTH_DEPTHS(test_cancel_queued)
BOTH_DEPTHS(test_cancel_in_prefill)
BOTH_DEPTHS(test_cancel_in_decode)
BOTH_DEPTHS(test_cancel_after_finish)
BOTH_DEPTHS(test_release_unread)
BOTH_DEPTHS(test_close_with_live_requests)
BOTH_DEPTHS(test_abort_by_id)
BOTH_DEPTHS(test_duplicate_ids)
BOTH_DEPTHS(test_queue_full)
BOTH_DEPTHS(test_room_is_announced)
BOTH_DEPTHS(test_queue_counts_choices)
BOTH_DEPTHS(test_never_fits)
BOTH_DEPTHS(test_drain)
BOTH_DEPTHS(test_deadlines)
BOTH_DEPTHS(test_not_finite)
BOTH_DEPTHS(test_nothing_allowed)
BOTH_DEPTHS(test_submit_without_memory)
BOTH_DEPTHS(test_open_without_memory)
BOTH_DEPTHS(test_heartbeat)
BOTH_DEPTHS(test_work_put_off)
BOTH_DEPTHS(test_loop_allocates_nothing)
BOTH_DEPTHS(test_model_info)
BOTH_DEPTHS(test_priority)

int main(void)
{
    fill_prompts();
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_answers_at_both_depths),
        cmocka_unit_test(test_timings_at_both_depths),
        cmocka_unit_test(test_cancel_queued_at_both_depths),
        cmocka_unit_test(test_cancel_in_prefill_at_both_depths),
        cmocka_unit_test(test_cancel_in_decode_at_both_depths),
        cmocka_unit_test(test_cancel_after_finish_at_both_depths),
        cmocka_unit_test(test_release_unread_at_both_depths),
        cmocka_unit_test(test_close_with_live_requests_at_both_depths),
        cmocka_unit_test(test_abort_by_id_at_both_depths),
        cmocka_unit_test(test_duplicate_ids_at_both_depths),
        cmocka_unit_test(test_queue_full_at_both_depths),
        cmocka_unit_test(test_room_is_announced_at_both_depths),
        cmocka_unit_test(test_queue_counts_choices_at_both_depths),
        cmocka_unit_test(test_never_fits_at_both_depths),
        cmocka_unit_test(test_drain_at_both_depths),
        cmocka_unit_test(test_deadlines_at_both_depths),
        cmocka_unit_test(test_not_finite_at_both_depths),
        cmocka_unit_test(test_nothing_allowed_at_both_depths),
        cmocka_unit_test(test_submit_without_memory_at_both_depths),
        cmocka_unit_test(test_open_without_memory_at_both_depths),
        cmocka_unit_test(test_heartbeat_at_both_depths),
        cmocka_unit_test(test_work_put_off_at_both_depths),
        cmocka_unit_test(test_loop_allocates_nothing_at_both_depths),
        cmocka_unit_test(test_model_info_at_both_depths),
        cmocka_unit_test(test_priority_at_both_depths),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
