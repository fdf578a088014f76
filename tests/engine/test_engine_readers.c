/* Slow readers: one that takes nothing stops itself and nobody else. */
#include <string.h>
#include "tests/engine/engine_world.h"

enum { PROMPT = 40, LONG_OUTPUT = 300, RING = 64 };

static uint32_t ids_a[PROMPT], ids_b[PROMPT];

static bool paused_is(const struct loads *loads, uint64_t n)
{
    return loads->requests_paused == n;
}

static bool finished_is(const struct loads *loads, uint64_t n)
{
    return loads->requests_finished == n;
}

static void test_slow_reader_stops_only_itself(uint32_t depth)
{
    struct world world;
    struct world_options options = world_options_default(depth);
    world_open(&world, &options);
    struct request a = request_of(ids_a, PROMPT, LONG_OUTPUT), b = request_of(ids_b, PROMPT, LONG_OUTPUT);
    struct replies replies_a = replies_new(1), replies_b = replies_new(1);
    struct stream *stream_a = submit(&world, &a), *stream_b = submit(&world, &b);
    read_to_end(&world, stream_b, &replies_b);
    assert_answered(&world, &b, &replies_b);
    world_wait_loads(&world, finished_is, 1); /* b's last token may be read before it is counted */
    world_wait_loads(&world, paused_is, 1);
    struct loads loads;
    world.vtable->loads(world.service, &loads);
    uint64_t n_stuck = loads.generation_tokens_total - LONG_OUTPUT;
    assert_in_range(n_stuck, RING - 2, RING);
    stub_hold(world.stub);
    assert_false(read_some(&world, stream_a, &replies_a)); /* takes what is there; then it goes on */
    assert_int_equal(replies_a.choice[0].n, n_stuck);
    stub_let_go(world.stub);
    read_to_end(&world, stream_a, &replies_a);
    assert_answered(&world, &a, &replies_a);
    world_wait_loads(&world, paused_is, 0);
    world.vtable->stream_release(stream_a);
    world.vtable->stream_release(stream_b);
    replies_free(&replies_a);
    replies_free(&replies_b);
    world_close(&world);
}

/* The one that comes back need not wait until the others are done. */
static void test_resumes_beside_others(uint32_t depth)
{
    struct world world;
    struct world_options options = world_options_default(depth);
    world_open(&world, &options);
    struct request a = request_of(ids_a, PROMPT, 100), b = request_of(ids_b, PROMPT, 400);
    struct replies replies_a = replies_new(1), replies_b = replies_new(1);
    struct stream *stream_a = submit(&world, &a);
    world_wait_loads(&world, paused_is, 1);
    stub_hold(world.stub);
    struct stream *stream_b = submit(&world, &b);
    stub_permit(world.stub, 10);
    read_tokens(&world, stream_b, &replies_b, 5);
    assert_false(read_some(&world, stream_a, &replies_a));
    test_clock_advance_ms(&world.clock, 100); /* the loop looks for room a few times in that */
    stub_permit(world.stub, 50);
    read_to_end(&world, stream_a, &replies_a);
    assert_answered(&world, &a, &replies_a);
    assert_false(read_some(&world, stream_b, &replies_b));
    stub_let_go(world.stub);
    read_to_end(&world, stream_b, &replies_b);
    assert_answered(&world, &b, &replies_b);
    world.vtable->stream_release(stream_a);
    world.vtable->stream_release(stream_b);
    replies_free(&replies_a);
    replies_free(&replies_b);
    world_close(&world);
}

/* Blocks are taken from the paused one first, though it came first; it computes them again later. */
static void test_paused_is_preempted_first(uint32_t depth)
{
    struct world world;
    struct world_options options = world_options_default(depth);
    options.stub.num_kv_blocks = 12; /* 192 tokens: both want 150 in the end */
    world_open(&world, &options);
    struct request a = request_of(ids_a, PROMPT, 110), b = request_of(ids_b, PROMPT, 110);
    struct replies replies_a = replies_new(1), replies_b = replies_new(1);
    struct stream *stream_a = submit(&world, &a);
    world_wait_loads(&world, paused_is, 1);
    struct stream *stream_b = submit(&world, &b);
    read_to_end(&world, stream_b, &replies_b);
    assert_answered(&world, &b, &replies_b);
    assert_int_equal(replies_b.choice[0].usage.preemptions, 0);
    read_to_end(&world, stream_a, &replies_a);
    assert_answered(&world, &a, &replies_a);
    assert_true(replies_a.choice[0].usage.preemptions >= 1);
    struct loads loads;
    world.vtable->loads(world.service, &loads);
    assert_int_equal(loads.preemptions_total, replies_a.choice[0].usage.preemptions);
    world.vtable->stream_release(stream_a);
    world.vtable->stream_release(stream_b);
    replies_free(&replies_a);
    replies_free(&replies_b);
    world_close(&world);
}

static void test_stall_timeout(uint32_t depth)
{
    struct world world;
    struct world_options options = world_options_default(depth);
    options.engine.stream_stall_timeout_ns = 2000000000;
    world_open(&world, &options);
    struct request a = request_of(ids_a, PROMPT, LONG_OUTPUT), b = request_of(ids_b, PROMPT, LONG_OUTPUT);
    struct replies replies_a = replies_new(1), replies_b = replies_new(1);
    struct stream *stream_a = submit(&world, &a);
    world_wait_loads(&world, paused_is, 1);
    test_clock_advance_ms(&world.clock, 1990);
    struct stream *stream_b = submit(&world, &b);
    read_to_end(&world, stream_b, &replies_b); /* the loop looked more than once: not yet */
    world.vtable->stream_release(stream_b);
    world_wait_loads(&world, finished_is, 1);
    struct loads loads;
    world.vtable->loads(world.service, &loads);
    assert_int_equal(loads.requests_paused, 1);
    test_clock_advance_ms(&world.clock, 20);
    world_wait_loads(&world, finished_is, 2);
    assert_true(read_some(&world, stream_a, &replies_a));
    assert_int_equal(replies_a.choice[0].reason, FINISH_ERROR);
    assert_int_equal(replies_a.choice[0].error.code, ERR_CANCELLED);
    assert_in_range(replies_a.choice[0].n, RING - 2, RING);
    struct expectation expectation;
    expect(&world, &a, 0, &expectation);
    assert_memory_equal(replies_a.choice[0].ids, expectation.ids, replies_a.choice[0].n * sizeof(uint32_t));
    world.vtable->stream_release(stream_a);
    replies_free(&replies_a);
    replies_free(&replies_b);
    world_close(&world);
}

/* A cancel, a deadline and a release reach a paused one too. */
static void test_paused_can_end(uint32_t depth)
{
    struct world world;
    struct world_options options = world_options_default(depth);
    world_open(&world, &options);
    struct request a = request_of(ids_a, PROMPT, LONG_OUTPUT), late = request_of(ids_b, PROMPT, LONG_OUTPUT);
    late.deadline_ns = world.vtable->now_ns(world.service) + 1000000000;
    struct replies replies_a = replies_new(1), replies_late = replies_new(1);
    struct stream *stream_a = submit(&world, &a), *stream_late = submit(&world, &late);
    struct stream *stream_gone = submit(&world, &a);
    world_wait_loads(&world, paused_is, 3);
    world.vtable->stream_release(stream_gone);
    world_wait_loads(&world, paused_is, 2);
    world.vtable->stream_cancel(stream_a);
    world_wait_loads(&world, finished_is, 2);
    test_clock_advance_ms(&world.clock, 1001);
    world_wait_loads(&world, finished_is, 3);
    assert_true(read_some(&world, stream_a, &replies_a));
    assert_int_equal(replies_a.choice[0].reason, FINISH_ABORT);
    assert_true(read_some(&world, stream_late, &replies_late));
    assert_int_equal(replies_late.choice[0].error.code, ERR_DEADLINE_EXCEEDED);
    world.vtable->stream_release(stream_a);
    world.vtable->stream_release(stream_late);
    replies_free(&replies_a);
    replies_free(&replies_late);
    world_close(&world);
}

BOTH_DEPTHS(test_slow_reader_stops_only_itself)
BOTH_DEPTHS(test_resumes_beside_others)
BOTH_DEPTHS(test_paused_is_preempted_first)
BOTH_DEPTHS(test_stall_timeout)
BOTH_DEPTHS(test_paused_can_end)

int main(void)
{
    fill_prompt(ids_a, PROMPT, 11, STUB_VOCAB);
    fill_prompt(ids_b, PROMPT, 12, STUB_VOCAB);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_slow_reader_stops_only_itself_at_both_depths),
        cmocka_unit_test(test_resumes_beside_others_at_both_depths),
        cmocka_unit_test(test_paused_is_preempted_first_at_both_depths),
        cmocka_unit_test(test_stall_timeout_at_both_depths),
        cmocka_unit_test(test_paused_can_end_at_both_depths),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
