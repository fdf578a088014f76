/* Who goes first, who gives way, and that nobody is passed by for ever. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>
#include "base/alloc.h"
#include "base/philox.h"
#include "tests/scheduler/sched_rig.h"

static void add_with(struct rig *rig, uint64_t id, int32_t priority, int64_t deadline_ns, int64_t arrival_ns)
{
    struct sched_request r = rig_request(rig, id, 3, 10 * (uint32_t)id, 1);
    r.priority = priority;
    r.deadline_ns = deadline_ns;
    r.arrival_ns = arrival_ns;
    rig_submit(rig, &r);
}

static void expect_order(enum sched_policy policy, const uint64_t order[6])
{
    struct sched_config config = rig_config();
    config.policy = policy;
    config.max_seqs = 1;
    struct rig rig;
    rig_open(&rig, &config);
    add_with(&rig, 1, 2, 0, 50);
    add_with(&rig, 2, 1, 0, 60);
    add_with(&rig, 3, 1, 900, 60);
    add_with(&rig, 4, -1, 0, 70);
    add_with(&rig, 5, 1, 800, 80);
    add_with(&rig, 6, 1, 0, 55);
    for (int i = 0; i < 6; i++) {
        struct rig_step step = rig_step(&rig, 5);
        assert_int_equal(step.n_seqs, 1);
        assert_int_equal(step.seqs[0].id, order[i]);
    }
    rig_close(&rig);
}

static void test_fcfs(void **state)
{
    (void)state;
    expect_order(SCHED_FCFS, (const uint64_t[]){1, 6, 2, 3, 4, 5});
}

static void test_priority(void **state)
{
    (void)state;
    expect_order(SCHED_PRIORITY, (const uint64_t[]){4, 5, 3, 6, 2, 1});
}

/* The queue against sorting by hand. */
static void test_queue(void **state)
{
    (void)state;
    enum { N = 200 };
    static uint32_t heap[N], positions[N];
    static struct request_key keys[N];
    struct request_queue queue = {0, heap, positions, keys};
    request_queue_init(&queue, N);
    struct rng rng = rng_make(3);
    bool is_in[N] = {false};
    for (uint32_t i = 0; i < 20000; i++) {
        uint32_t handle = rng_below(&rng, N);
        if (is_in[handle]) {
            request_queue_remove(&queue, handle);
        } else {
            keys[handle] =
                (struct request_key){rng_below(&rng, 3), rng_below(&rng, 3), rng_below(&rng, 3), i};
            request_queue_push(&queue, handle);
        }
        is_in[handle] = !is_in[handle];
        uint32_t first = QUEUE_POSITION_NONE;
        for (uint32_t j = 0; j < N; j++) {
            if (is_in[j] && (first == QUEUE_POSITION_NONE || request_key_before(&keys[j], &keys[first])))
                first = j;
        }
        assert_true(first == QUEUE_POSITION_NONE ? queue.n == 0 : queue.heap[0] == first);
    }
    uint32_t n = queue.n;
    for (uint32_t j = 0; j < N; j++) {
        if (!is_in[j])
            request_queue_remove(&queue, j); /* not queued: nothing */
    }
    assert_int_equal(queue.n, n);
}

/* A large request at the head waits for room; a small one behind it does not slip by. */
static void test_head_of_line(void **state)
{
    (void)state;
    struct sched_config config = rig_config();
    config.n_blocks = 10;
    struct rig rig;
    rig_open(&rig, &config);
    rig_add(&rig, 1, 17, 10, 4);
    rig_step(&rig, 5);
    rig_add(&rig, 2, 30, 100, 2);
    rig_add(&rig, 3, 3, 50, 1);
    struct rig_step step;
    for (int i = 0; i < 3; i++) {
        step = rig_step(&rig, 5);
        assert_int_equal(step.n_seqs, 1);
    }
    assert_int_equal(rig_pop(&rig), 1);
    step = rig_step(&rig, 5);
    assert_true(step.n_seqs == 2 && rig_find(&step, 2) != NULL && rig_find(&step, 3) != NULL);
    rig_close(&rig);
}

/* Nobody behind a running one is admitted when that would get it preempted at once: it must fit beside what
 * the running ones still need for their prompts. */
static void test_admission_leaves_room_for_prompts(void **state)
{
    (void)state;
    struct sched_config config = rig_config();
    config.n_blocks = 10;
    config.prefill_chunk = 4;
    struct rig rig;
    rig_open(&rig, &config);
    rig_add(&rig, 1, 28, 10, 2);
    rig_add(&rig, 2, 12, 60, 2);
    struct rig_step step = rig_step(&rig, 5);
    assert_true(step.n_seqs == 1 && step.seqs[0].n_rows == 4);
    assert_true(rig_run_out(&rig));
    assert_int_equal(rig_stats(&rig).preemptions, 0);
    rig_close(&rig);
}

/* A head that needs more blocks than are free is not looked up in the prefix cache at every plan. */
static void test_a_waiting_prefix_is_looked_up_now_and_then(void **state)
{
    (void)state;
    enum { SKIPPED = 16 };
    struct sched_config config = rig_config();
    config.n_blocks = 20;
    struct rig rig;
    rig_open(&rig, &config);
    rig_add(&rig, 1, 4, 10, 30);
    rig_add(&rig, 2, 76, 100, 2);
    const uint32_t *skipped = &rig.sched->requests[rig_handle(&rig, 2)].n_admissions_skipped;
    for (uint32_t i = 0; i <= SKIPPED + 1; i++) {
        assert_int_equal(rig_step(&rig, 5).n_seqs, 1);
        assert_int_equal(*skipped, i % (SKIPPED + 1));
    }
    assert_true(rig_run_out(&rig));
    rig_close(&rig);
}

/* Four of 4 positions in 8 blocks of 4, growing together: the last ones give way, one after the other, and
 * come back in order. */
static void test_the_last_gives_way(void **state)
{
    (void)state;
    struct sched_config config = rig_config();
    config.n_blocks = 8;
    config.prefix_cache = false;
    struct rig rig;
    rig_open(&rig, &config);
    for (uint64_t id = 1; id <= 4; id++)
        rig_add(&rig, id, 3, 10 * (uint32_t)id, 20);
    uint64_t preempted[8], n_preempted = 0, finished[4], n_finished = 0;
    for (int i = 0; i < 200 && n_finished < 4; i++) {
        struct rig_step step = rig_step(&rig, 5);
        assert_non_null(rig_find(&step, n_finished + 1)); /* the first one always moves */
        for (uint32_t j = 0; j < step.n_preempted && n_preempted < 8; j++)
            preempted[n_preempted++] = step.preempted_ids[j];
        for (uint64_t id = rig_pop(&rig); id != 0; id = rig_pop(&rig))
            finished[n_finished++] = id;
    }
    assert_int_equal(n_finished, 4);
    assert_memory_equal(finished, ((uint64_t[]){1, 2, 3, 4}), sizeof finished);
    assert_true(n_preempted >= 2 && preempted[0] == 4 && preempted[1] == 3);
    rig_close(&rig);
}

/* A paused one gives way before anybody else, however early it came. */
static void test_paused_give_way_first(void **state)
{
    (void)state;
    struct sched_config config = rig_config();
    config.n_blocks = 6;
    struct rig rig;
    rig_open(&rig, &config);
    for (uint64_t id = 1; id <= 3; id++)
        rig_add(&rig, id, 7, 10 * (uint32_t)id, 9);
    struct rig_step step = rig_step(&rig, 5);
    assert_int_equal(step.n_seqs, 2); /* the third would leave no block to grow */
    rig_step(&rig, 5);
    sched_pause(rig.sched, rig_handle(&rig, 1), true);
    while (rig_stats(&rig).preemptions == 0)
        step = rig_step(&rig, 5);
    assert_true(step.n_preempted == 1 && step.preempted_ids[0] == 1);
    assert_non_null(rig_find(&step, 2));
    sched_pause(rig.sched, rig_handle(&rig, 1), false);
    assert_true(rig_run_out(&rig));
    rig_close(&rig);
}

/* Paused ones hold the only slot and most blocks: a waiting one gets both. */
static void test_paused_make_way_for_the_waiting(void **state)
{
    (void)state;
    struct sched_config config = rig_config();
    config.n_blocks = 8;
    config.max_seqs = 1;
    struct rig rig;
    rig_open(&rig, &config);
    rig_add(&rig, 1, 20, 10, 9);
    rig_step(&rig, 5);
    rig_add(&rig, 2, 25, 60, 2);
    sched_pause(rig.sched, rig_handle(&rig, 1), true);
    struct rig_step step = rig_step(&rig, 5);
    assert_true(step.n_preempted == 1 && step.preempted_ids[0] == 1);
    assert_non_null(rig_find(&step, 2));
    sched_pause(rig.sched, rig_handle(&rig, 1), false);
    assert_true(rig_run_out(&rig));
    assert_int_equal(rig_pop(&rig), 2);
    assert_int_equal(rig_pop(&rig), 1);
    rig_close(&rig);
}

/* All 6 blocks are taken when the second one needs a third block. The first one is about to leave with two:
 * it is waited for, and the third one is not preempted. */
static void expect_to_wait(bool cancelled)
{
    struct sched_config config = rig_config();
    config.max_steps_in_flight = 2;
    config.n_blocks = 6;
    config.prefix_cache = false;
    struct rig rig;
    rig_open(&rig, &config);
    rig_add(&rig, 1, 4, 10, cancelled ? 20 : 2);
    rig_add(&rig, 2, 7, 20, 9);
    rig_add(&rig, 3, 7, 30, 9);
    struct rig_step first = rig_plan(&rig); /* 1 + 2 + 2 blocks */
    struct rig_step second = rig_plan(&rig);
    assert_int_equal(second.n_seqs, 3);
    assert_int_equal(rig_stats(&rig).blocks_used, 6);
    rig_commit(&rig, &first, 5, 0);
    if (cancelled)
        sched_cancel(rig.sched, rig_handle(&rig, 1));
    struct rig_step third = rig_plan(&rig);
    assert_true(third.n_seqs == 0 && third.n_preempted == 0);
    rig_commit(&rig, &second, 5, 0);
    assert_int_equal(rig_pop(&rig), 1);
    third = rig_plan(&rig);
    assert_true(third.n_seqs == 2 && third.n_preempted == 0);
    rig_commit(&rig, &third, 5, 0);
    assert_true(rig_run_out(&rig));
    rig_close(&rig);
}

static void test_waits_for_returning_blocks(void **state)
{
    (void)state;
    expect_to_wait(true);
    expect_to_wait(false);
}

/* With one row a step and the first one's prompt waiting behind a decode row that waits for a block, somebody
 * must still move. */
static void test_decode_without_block_does_not_stop_prefill(void **state)
{
    (void)state;
    struct sched_config config = rig_config();
    config.n_blocks = 4;
    config.token_budget = 1;
    config.block_tokens = 1;
    config.policy = SCHED_PRIORITY;
    config.prefix_cache = false;
    struct rig rig;
    rig_open(&rig, &config);
    struct sched_request r = rig_request(&rig, 1, 1, 10, 4);
    r.priority = 1;
    rig_submit(&rig, &r);
    rig_step(&rig, 5);
    r = rig_request(&rig, 2, 3, 20, 2);
    rig_submit(&rig, &r);
    assert_true(rig_run_out(&rig));
    rig_close(&rig);
}

/* The second one waits for two blocks of a cancelled one; the third, behind it, must not take the one that is
 * free. */
static void test_nobody_behind_takes_blocks(void **state)
{
    (void)state;
    struct sched_config config = rig_config();
    config.max_steps_in_flight = 2;
    config.n_blocks = 16;
    config.block_tokens = 2;
    config.prefill_chunk = 6;
    config.token_budget = 20;
    config.prefix_cache = false;
    struct rig rig;
    rig_open(&rig, &config);
    rig_add(&rig, 1, 6, 10, 20);
    rig_add(&rig, 2, 14, 30, 3);
    rig_add(&rig, 3, 2, 60, 20);
    struct rig_step first = rig_plan(&rig); /* 3 + 3 + 1 blocks */
    assert_int_equal(first.n_seqs, 3);
    assert_int_equal(rig_stats(&rig).blocks_used, 7);
    /* Take all but one of the others away, as a neighbour would. */
    uint32_t taken[16], n_taken = 0;
    while (block_pool_n_free(&rig.sched->pool) > 1)
        taken[n_taken++] = block_pool_take_plain(&rig.sched->pool);
    sched_cancel(rig.sched, rig_handle(&rig, 1));
    const struct sched_plan *second = sched_plan(rig.sched, 0);
    assert_int_equal(second->n_preempted, 0);
    assert_int_equal(second->n_seqs, 0); /* the third needs a block as well */
    for (uint32_t i = 0; i < n_taken; i++)
        prefix_cache_release_block(&rig.sched->cache, taken[i]);
    rig_commit(&rig, &first, 5, 0);
    struct rig_step third = rig_plan(&rig);
    assert_true(rig_find(&third, 2)->n_rows == 6 && rig_find(&third, 3)->n_rows == 1);
    rig_close(&rig);
}

static void test_steps_allocate_nothing(void **state)
{
    (void)state;
    struct sched_config config = rig_config();
    struct rig rig;
    rig_open(&rig, &config);
    uint64_t n_before = mem_alloc_count();
    for (uint64_t id = 1; id <= 16; id++)
        rig_add(&rig, id, 20, (uint32_t)id, 20);
    assert_true(rig_run_out(&rig));
    assert_int_equal(mem_alloc_count(), n_before);
    rig_close(&rig);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_fcfs),
        cmocka_unit_test(test_priority),
        cmocka_unit_test(test_queue),
        cmocka_unit_test(test_head_of_line),
        cmocka_unit_test(test_admission_leaves_room_for_prompts),
        cmocka_unit_test(test_a_waiting_prefix_is_looked_up_now_and_then),
        cmocka_unit_test(test_the_last_gives_way),
        cmocka_unit_test(test_paused_give_way_first),
        cmocka_unit_test(test_paused_make_way_for_the_waiting),
        cmocka_unit_test(test_waits_for_returning_blocks),
        cmocka_unit_test(test_decode_without_block_does_not_stop_prefill),
        cmocka_unit_test(test_nobody_behind_takes_blocks),
        cmocka_unit_test(test_steps_allocate_nothing),
    };
    return cmocka_run_group_tests_name("scheduler_order", tests, NULL, NULL);
}
