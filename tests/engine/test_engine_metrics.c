/* What the engine counts: each token, each end as the reader was told it; and deadlines that cannot be met.
 */
#include <sched.h>
#include <string.h>
#include "api/metrics.h"
#include "tests/engine/engine_world.h"

enum { PROMPT = 40, OUTPUT = 20 };

static uint32_t ids_a[PROMPT], ids_b[PROMPT];

static uint64_t count_of(const struct metric_histogram *histogram)
{
    uint64_t n = 0;
    for (int i = 0; i <= METRIC_BUCKETS_MAX; i++)
        n += metric_read(&histogram->counts[i]);
    return n;
}

static uint64_t ended(const struct metrics *metrics, enum finish_reason reason)
{
    return metric_read(&metrics->request_success[metric_reason(reason)]);
}

static bool idle_after(const struct loads *loads, uint64_t n_finished)
{
    return loads->requests_finished == n_finished && loads->requests_running == 0;
}

static void test_every_token_and_end_counts_once(uint32_t depth)
{
    struct world world;
    struct world_options options = world_options_default(depth);
    world_open(&world, &options);
    const struct metrics *m = world.vtable->metrics(world.service);
    struct request two = request_of(ids_a, PROMPT, OUTPUT), one = request_of(ids_b, PROMPT, 1);
    two.sampling.set |= SAMPLING_N;
    two.sampling.n = 2;
    struct replies replies = replies_new(2), single = replies_new(1);
    ask(&world, &two, &replies);
    ask(&world, &one, &single);
    world_wait_loads(&world, idle_after, 2);
    assert_int_equal(count_of(&m->time_to_first_token), 3);
    assert_int_equal(count_of(&m->inter_token_latency), 2 * (OUTPUT - 1));
    assert_int_equal(ended(m, FINISH_LENGTH), 3);
    assert_int_equal(ended(m, FINISH_ABORT) + ended(m, FINISH_STOP) + ended(m, FINISH_ERROR), 0);
    assert_int_equal(count_of(&m->e2e_latency), 3);
    assert_int_equal(count_of(&m->decode_time), 3);
    assert_int_equal(count_of(&m->time_per_output_token), 2);
    assert_int_equal(metric_read(&m->request_prompt_tokens.sum), 3 * PROMPT);
    assert_int_equal(metric_read(&m->request_generation_tokens.sum), 2 * OUTPUT + 1);
    assert_int_equal(count_of(&m->request_params_n), 2);
    assert_int_equal(metric_read(&m->request_params_n.sum), 3);
    assert_int_equal(metric_read(&m->request_params_max_tokens.sum), OUTPUT + 1);
    struct loads loads;
    world.vtable->loads(world.service, &loads);
    while (count_of(&m->step_time) < loads.steps_total) /* a turn is timed at its very end */
        (void)sched_yield();
    assert_int_equal(count_of(&m->step_time), loads.steps_total);
    assert_int_equal(count_of(&m->iteration_tokens), loads.steps_total);
    /* All but the last of a choice's tokens are computed, less what the prefix cache gave. */
    assert_int_equal(metric_read(&m->iteration_tokens.sum) + loads.prefix_hit_tokens,
                     3 * PROMPT + 2 * (OUTPUT - 1));
    replies_free(&replies);
    replies_free(&single);
    world_close(&world);
}

/* A reader that goes, a cancel that it hears of, a device that is lost. */
static void test_other_ends(uint32_t depth)
{
    struct world world;
    struct world_options options = world_options_default(depth);
    world_open(&world, &options);
    const struct metrics *m = world.vtable->metrics(world.service);
    struct request a = request_of(ids_a, PROMPT, 400);
    struct replies replies = replies_new(1);
    struct stream *gone = submit(&world, &a), *cancelled = submit(&world, &a);
    read_tokens(&world, cancelled, &replies, 2);
    world.vtable->stream_release(gone);
    assert_int_equal(ended(m, FINISH_ABORT), 1);
    world.vtable->stream_cancel(cancelled);
    read_to_end(&world, cancelled, &replies);
    assert_int_equal(ended(m, FINISH_ABORT), 2);
    world.vtable->stream_release(cancelled);
    assert_int_equal(ended(m, FINISH_ABORT), 2);
    assert_int_equal(ended(m, FINISH_LENGTH) + ended(m, FINISH_STOP) + ended(m, FINISH_ERROR), 0);
    replies_free(&replies);
    world_close(&world);
}

static bool paused_is(const struct loads *loads, uint64_t n)
{
    return loads->requests_paused == n;
}

static void test_slow_readers_count(uint32_t depth)
{
    struct world world;
    struct world_options options = world_options_default(depth);
    world_open(&world, &options);
    const struct metrics *m = world.vtable->metrics(world.service);
    struct request a = request_of(ids_a, PROMPT, 300);
    struct replies replies = replies_new(1);
    struct stream *stream = submit(&world, &a);
    world_wait_loads(&world, paused_is, 1);
    assert_int_equal(metric_read(&m->slow_reader_pauses[0]), 1);
    assert_int_equal(metric_read(&m->slow_reader_cuts[0]), 0);
    test_clock_advance_ms(&world.clock, 3600000);
    world_wait_loads(&world, paused_is, 0);
    read_to_end(&world, stream, &replies);
    assert_int_equal(replies.choice[0].error.code, ERR_CANCELLED);
    assert_int_equal(metric_read(&m->slow_reader_cuts[0]), 1);
    assert_int_equal(ended(m, FINISH_ERROR), 1);
    world.vtable->stream_release(stream);
    replies_free(&replies);
    world_close(&world);
}

/* --- deadlines at admission */

static bool has_step_time(const struct loads *loads, uint64_t unused)
{
    (void)unused;
    return loads->predicted_ttft_ns >= 1000000000 && loads->requests_running == 0;
}

static bool waiting_is(const struct loads *loads, uint64_t n)
{
    return loads->requests_waiting == n;
}

static err_t try_with_deadline(struct world *world, int64_t ms, struct stream **out)
{
    struct request request = request_of(ids_b, PROMPT, 100);
    request.deadline_ns = world->vtable->now_ns(world->service) + ms * 1000000;
    return world->vtable->submit(world->service, &request, out);
}

/* Steps take about a second. With somebody in the queue, half of that is the least that a first token takes;
 * with nobody, or where priorities may let a request pass, every request is tried. */
static void check_deadlines(uint32_t depth, enum engine_policy policy)
{
    struct world world;
    struct world_options options = world_options_default(depth);
    options.stub.max_num_seqs = 1;
    options.engine.policy = policy;
    world_open(&world, &options);
    struct request one = request_of(ids_a, PROMPT, 1), long_one = request_of(ids_a, PROMPT, 100);
    struct replies replies = replies_new(1);
    stub_hold(world.stub);
    struct stream *stream = submit(&world, &one);
    stub_wait_steps(world.stub, 1);
    test_clock_advance_ms(&world.clock, 1000);
    stub_let_go(world.stub);
    read_to_end(&world, stream, &replies);
    world.vtable->stream_release(stream);
    replies_free(&replies);
    world_wait_loads(&world, has_step_time, 0);

    struct stream *streams[4];
    stub_hold(world.stub);
    assert_int_equal(try_with_deadline(&world, 100, &streams[0]).code, ERR_OK); /* nobody waits */
    stub_wait_steps(world.stub, 2);
    streams[1] = submit(&world, &long_one);
    stub_permit(world.stub, 4); /* what is counted is told at the end of a turn */
    world_wait_loads(&world, waiting_is, 1);
    err_t e = try_with_deadline(&world, 100, &streams[2]);
    if (policy == ENGINE_FCFS) {
        assert_int_equal(e.code, ERR_DEADLINE_EXCEEDED);
        assert_non_null(strstr(e.message, "1 requests wait"));
        streams[2] = NULL;
    } else {
        assert_int_equal(e.code, ERR_OK);
    }
    assert_int_equal(try_with_deadline(&world, 60000, &streams[3]).code, ERR_OK);
    stub_let_go(world.stub);
    for (int i = 0; i < 4; i++)
        if (streams[i])
            world.vtable->stream_release(streams[i]);
    world_close(&world);
}

static void test_hopeless_deadlines_are_refused(uint32_t depth)
{
    check_deadlines(depth, ENGINE_FCFS);
    check_deadlines(depth, ENGINE_PRIORITY);
}

BOTH_DEPTHS(test_every_token_and_end_counts_once)
BOTH_DEPTHS(test_other_ends)
BOTH_DEPTHS(test_slow_readers_count)
BOTH_DEPTHS(test_hopeless_deadlines_are_refused)

int main(void)
{
    fill_prompt(ids_a, PROMPT, 11, STUB_VOCAB);
    fill_prompt(ids_b, PROMPT, 12, STUB_VOCAB);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_token_and_end_counts_once_at_both_depths),
        cmocka_unit_test(test_other_ends_at_both_depths),
        cmocka_unit_test(test_slow_readers_count_at_both_depths),
        cmocka_unit_test(test_hopeless_deadlines_are_refused_at_both_depths),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
