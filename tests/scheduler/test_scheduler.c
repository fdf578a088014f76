/* One test a promise of scheduler.h: submission, steps, ends. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>
#include "base/alloc.h"
#include "tests/scheduler/sched_rig.h"

static void expect_refused_config(struct sched_config config, const char *field)
{
    struct sched *sched = (struct sched *)1;
    err_t e = sched_create(&config, &sched);
    assert_int_equal(e.code, ERR_INVALID_ARGUMENT);
    assert_non_null(strstr(e.message, field));
    assert_null(sched);
}

static void test_bad_config(void **state)
{
    (void)state;
    struct sched_config c = rig_config();
#define REFUSES(field, value)                                                                                \
    do {                                                                                                     \
        struct sched_config bad = c;                                                                         \
        bad.field = value;                                                                                   \
        expect_refused_config(bad, #field);                                                                  \
    } while (0)
    REFUSES(token_budget, 0);
    REFUSES(token_budget, SCHED_TOKEN_BUDGET_MAX + 1);
    REFUSES(max_seqs, 0);
    REFUSES(max_seqs, SCHED_SEQS_MAX + 1);
    REFUSES(max_requests, 0);
    REFUSES(max_requests, SCHED_REQUESTS_MAX + 1);
    REFUSES(prefill_chunk, SCHED_TOKEN_BUDGET_MAX + 1);
    REFUSES(block_tokens, 0);
    REFUSES(block_tokens, BLOCK_TOKENS_MAX + 1);
    REFUSES(n_blocks, 0);
    REFUSES(n_blocks, SCHED_BLOCKS_MAX + 1);
    REFUSES(max_model_len, 1);
    REFUSES(max_model_len, SCHED_MODEL_LEN_MAX + 1);
    REFUSES(max_steps_in_flight, 0);
    REFUSES(max_steps_in_flight, 3);
    REFUSES(policy, (enum sched_policy)2);
#undef REFUSES
}

static void test_create_allocates_what_it_says(void **state)
{
    (void)state;
    struct sched_config config = rig_config();
    struct rig rig;
    rig_open(&rig, &config);
    assert_int_equal(arena_used_bytes(rig.sched->arena), sched_bytes(&config));
    rig_close(&rig);

    mem_fail_nth(0);
    struct sched *sched;
    err_t e = sched_create(&config, &sched);
    mem_fail_nth(-1);
    assert_int_equal(e.code, ERR_RESOURCE_EXHAUSTED);
    assert_null(sched);
    sched_destroy(NULL);
}

static void test_queue_full(void **state)
{
    (void)state;
    struct sched_config config = rig_config();
    config.max_requests = 2;
    struct rig rig;
    rig_open(&rig, &config);
    rig_add(&rig, 1, 4, 10, 1);
    rig_add(&rig, 2, 4, 20, 1);
    struct sched_request third = rig_request(&rig, 3, 4, 30, 1);
    uint32_t handle;
    assert_int_equal(sched_submit(rig.sched, &third, &handle).code, ERR_RESOURCE_EXHAUSTED);
    rig_step(&rig, 5);
    /* Both have finished, but their handles are theirs until popped. */
    assert_int_equal(sched_submit(rig.sched, &third, &handle).code, ERR_RESOURCE_EXHAUSTED);
    assert_int_equal(rig_pop(&rig), 1);
    assert_int_equal(sched_submit(rig.sched, &third, &handle).code, ERR_OK);
    assert_int_equal(handle, rig_handle(&rig, 1));
    rig_close(&rig);
}

static void test_can_never_fit(void **state)
{
    (void)state;
    struct sched_config config = rig_config();
    config.n_blocks = 5;
    config.max_model_len = 30;
    struct rig rig;
    rig_open(&rig, &config);
    uint32_t handle;
    struct sched_request long_one = rig_request(&rig, 1, 20, 10, 11);
    err_t e = sched_submit(rig.sched, &long_one, &handle);
    assert_int_equal(e.code, ERR_INVALID_ARGUMENT);
    assert_non_null(strstr(e.message, "max_model_len 30"));
    /* 5 blocks of 4 hold 20 positions, and the 21st token is only drawn. */
    struct sched_request big_one = rig_request(&rig, 1, 20, 10, 2);
    e = sched_submit(rig.sched, &big_one, &handle);
    assert_int_equal(e.code, ERR_INVALID_ARGUMENT);
    assert_non_null(strstr(e.message, "6 KV blocks"));
    assert_int_equal(sched_check_fits(&config, 22).code, ERR_INVALID_ARGUMENT);
    assert_int_equal(sched_check_fits(&config, 21).code, ERR_OK);
    assert_int_equal(sched_check_fits(&config, UINT64_MAX).code, ERR_INVALID_ARGUMENT);
    rig_add(&rig, 1, 15, 10, 6);
    assert_true(rig_run_out(&rig));
    assert_int_equal(rig_pop(&rig), 1);
    assert_int_equal(rig_stats(&rig).preemptions, 0);
    rig_close(&rig);
}

static void test_bad_requests(void **state)
{
    (void)state;
    struct sched_config config = rig_config();
    struct rig rig;
    rig_open(&rig, &config);
    uint32_t handle;
    struct sched_request r = rig_request(&rig, 1, 0, 10, 1);
    assert_int_equal(sched_submit(rig.sched, &r, &handle).code, ERR_INVALID_ARGUMENT);
    r = rig_request(&rig, 1, 4, 10, 0);
    assert_int_equal(sched_submit(rig.sched, &r, &handle).code, ERR_INVALID_ARGUMENT);
    r = rig_request(&rig, 1, 4, 10, 1);
    r.n_output = UINT32_MAX;
    r.max_output = UINT32_MAX;
    assert_int_equal(sched_submit(rig.sched, &r, &handle).code, ERR_INVALID_ARGUMENT);
    r = rig_request(&rig, 1, 4, 10, 1);
    r.tokens = NULL;
    assert_int_equal(sched_submit(rig.sched, &r, &handle).code, ERR_INVALID_ARGUMENT);
    assert_int_equal(rig_stats(&rig).n_waiting, 0);
    rig_close(&rig);
}

/* A prompt of 10 in chunks of 4, beside one that decodes. */
static void test_chunked_prefill(void **state)
{
    (void)state;
    struct sched_config config = rig_config();
    config.prefill_chunk = 4;
    config.token_budget = 6;
    struct rig rig;
    rig_open(&rig, &config);
    rig_add(&rig, 1, 10, 10, 3);
    rig_add(&rig, 2, 2, 50, 9);
    struct rig_step step = rig_step(&rig, 5);
    assert_int_equal(step.n_rows, 6);
    const struct sched_plan_seq *one = rig_find(&step, 1);
    assert_true(one->slot_is_new && !one->samples && one->first_position == 0 && one->n_rows == 4);
    assert_int_equal(one->n_blocks, 1);
    const struct sched_plan_seq *two = rig_find(&step, 2);
    assert_true(two->slot_is_new && two->samples && two->n_rows == 2);

    step = rig_step(&rig, 6);
    assert_int_equal(step.seqs[0].id, 2); /* the decode row first */
    two = rig_find(&step, 2);
    assert_true(!two->slot_is_new && two->samples && !two->last_from_slot && two->n_rows == 1);
    assert_true(two->first_position == 2 && two->n_tokens_known == 3 && two->tokens[2] == 5);
    one = rig_find(&step, 1);
    assert_true(!one->samples && one->first_position == 4 && one->n_rows == 4 && one->n_blocks == 2);

    step = rig_step(&rig, 7);
    one = rig_find(&step, 1);
    assert_true(one->samples && one->first_position == 8 && one->n_rows == 2 && one->n_blocks == 3);
    assert_true(rig_run_out(&rig));
    rig_close(&rig);
}

static void test_two_steps_in_flight(void **state)
{
    (void)state;
    struct sched_config config = rig_config();
    config.max_steps_in_flight = 2;
    struct rig rig;
    rig_open(&rig, &config);
    rig_add(&rig, 1, 3, 10, 3);
    struct rig_step first = rig_plan(&rig);
    assert_true(first.seqs[0].samples && !first.seqs[0].last_from_slot);
    struct rig_step second = rig_plan(&rig);
    assert_int_equal(second.id, 2);
    assert_true(second.seqs[0].samples && second.seqs[0].last_from_slot);
    assert_true(second.seqs[0].first_position == 3 && second.seqs[0].n_tokens_known == 3);
    assert_int_equal(second.seqs[0].slot, first.seqs[0].slot);
    assert_false(sched_has_work(rig.sched));
    assert_int_equal(rig_plan(&rig).n_seqs, 0); /* two are out */
    rig_commit(&rig, &first, 7, 0);
    struct rig_step third = rig_plan(&rig);
    assert_true(third.seqs[0].last_from_slot && third.seqs[0].first_position == 4);
    assert_int_equal(third.seqs[0].n_tokens_known, 4);
    rig_commit(&rig, &second, 8, 0);
    assert_int_equal(rig_plan(&rig).n_seqs, 0); /* three draws were all it may have */
    rig_commit(&rig, &third, 9, 0);
    assert_int_equal(rig_pop(&rig), 1);
    assert_memory_equal(&rig.requests[1].tokens[3], ((uint32_t[]){7, 8, 9}), 12);
    assert_int_equal(rig_stats(&rig).blocks_used, 0);
    rig_close(&rig);
}

static void test_max_output_one_with_two_in_flight(void **state)
{
    (void)state;
    struct sched_config config = rig_config();
    config.max_steps_in_flight = 2;
    struct rig rig;
    rig_open(&rig, &config);
    rig_add(&rig, 1, 3, 10, 1);
    struct rig_step first = rig_plan(&rig);
    assert_int_equal(rig_plan(&rig).n_seqs, 0);
    rig_commit(&rig, &first, 7, 0);
    assert_int_equal(rig_pop(&rig), 1);
    rig_close(&rig);
}

/* A stop is seen when the next step is already on its way. */
static void test_finish_with_a_step_in_flight(void **state)
{
    (void)state;
    struct sched_config config = rig_config();
    config.max_steps_in_flight = 2;
    struct rig rig;
    rig_open(&rig, &config);
    rig_add(&rig, 1, 3, 10, 50);
    rig.requests[1].tokens[4] = 99;
    struct rig_step first = rig_plan(&rig);
    struct rig_step second = rig_plan(&rig);
    rig_commit(&rig, &first, 7, 1);
    assert_false(sched_is_current(rig.sched, second.seqs[0].handle, second.seqs[0].generation));
    assert_int_equal(rig_stats(&rig).n_running, 0);
    assert_int_equal(rig_stats(&rig).blocks_used, 1);
    assert_int_equal(rig_pop(&rig), 0);
    sched_cancel(rig.sched, rig_handle(&rig, 1)); /* too late, and harmless */
    rig_commit(&rig, &second, 8, 0);
    assert_int_equal(rig.requests[1].tokens[3], 7);
    assert_int_equal(rig.requests[1].tokens[4], 99);
    assert_int_equal(rig_stats(&rig).blocks_used, 0);
    assert_int_equal(rig_pop(&rig), 1);
    rig_close(&rig);
}

static void test_cancel_in_every_state(void **state)
{
    (void)state;
    struct sched_config config = rig_config();
    config.max_steps_in_flight = 2;
    config.max_seqs = 3;
    struct rig rig;
    rig_open(&rig, &config);
    for (uint64_t id = 1; id <= 4; id++)
        rig_add(&rig, id, 5, 10 * (uint32_t)id, 20);
    sched_cancel(rig.sched, rig_handle(&rig, 2)); /* waiting */
    sched_cancel(rig.sched, rig_handle(&rig, 2));
    struct rig_step first = rig_plan(&rig);
    assert_null(rig_find(&first, 2));
    assert_non_null(rig_find(&first, 4));
    assert_int_equal(rig_pop(&rig), 2);

    sched_cancel(rig.sched, rig_handle(&rig, 1)); /* running, in flight */
    sched_cancel(rig.sched, rig_handle(&rig, 1));
    assert_int_equal(rig_pop(&rig), 0);
    assert_int_equal(rig_stats(&rig).blocks_used, 6);
    struct rig_step second = rig_plan(&rig);
    assert_null(rig_find(&second, 1));
    rig.requests[1].tokens[5] = 99;
    rig_commit(&rig, &first, 7, 0);
    assert_int_equal(rig.requests[1].tokens[5], 99);
    assert_int_equal(rig_stats(&rig).blocks_used, 4);
    sched_cancel(rig.sched, rig_handle(&rig, 1)); /* ended, not popped */
    assert_int_equal(rig_pop(&rig), 1);

    rig_commit(&rig, &second, 8, 3); /* 3 finishes */
    sched_cancel(rig.sched, rig_handle(&rig, 3));
    sched_cancel(rig.sched, rig_handle(&rig, 4)); /* running, not in flight */
    assert_int_equal(rig_pop(&rig), 3);
    assert_int_equal(rig_pop(&rig), 4);
    assert_int_equal(rig_pop(&rig), 0);
    assert_int_equal(rig_stats(&rig).blocks_used, 0);
    assert_false(sched_has_work(rig.sched));
    rig_close(&rig);
}

static void test_pause(void **state)
{
    (void)state;
    struct sched_config config = rig_config();
    config.max_steps_in_flight = 2;
    struct rig rig;
    rig_open(&rig, &config);
    rig_add(&rig, 1, 5, 10, 20);
    rig_add(&rig, 2, 5, 20, 20);
    rig_add(&rig, 3, 5, 30, 20);
    sched_pause(rig.sched, rig_handle(&rig, 3), true); /* while waiting */
    struct rig_step step = rig_plan(&rig);
    assert_null(rig_find(&step, 3));
    sched_pause(rig.sched, rig_handle(&rig, 1), true); /* in flight */
    sched_pause(rig.sched, rig_handle(&rig, 1), true);
    assert_int_equal(rig_stats(&rig).n_paused, 2);
    rig_commit(&rig, &step, 7, 0);
    assert_int_equal(rig.requests[1].tokens[5], 7); /* what was on its way counts */
    step = rig_step(&rig, 8);
    assert_null(rig_find(&step, 1));
    assert_non_null(rig_find(&step, 2));
    assert_int_equal(rig_stats(&rig).blocks_used, 4); /* it keeps its blocks */
    sched_pause(rig.sched, rig_handle(&rig, 1), false);
    sched_pause(rig.sched, rig_handle(&rig, 3), false);
    step = rig_step(&rig, 9);
    assert_int_equal(step.n_seqs, 3);
    assert_false(rig_find(&step, 1)->slot_is_new);
    assert_int_equal(rig_find(&step, 1)->first_position, 5);
    /* Paused ones can be cancelled, and only paused ones left is no work. */
    for (uint64_t id = 1; id <= 3; id++)
        sched_pause(rig.sched, rig_handle(&rig, id), true);
    assert_int_equal(rig_plan(&rig).n_seqs, 0);
    assert_false(sched_has_work(rig.sched));
    for (uint64_t id = 1; id <= 3; id++)
        sched_cancel(rig.sched, rig_handle(&rig, id));
    assert_int_equal(rig_stats(&rig).n_paused, 0);
    sched_pause(rig.sched, rig_handle(&rig, 1), false); /* ended: nothing */
    rig_close(&rig);
}

/* Two that do not fit together: the later one is preempted with a step in flight, and draws that token again.
 */
static void test_preempted_in_flight(void **state)
{
    (void)state;
    struct sched_config config = rig_config();
    config.max_steps_in_flight = 2;
    config.n_blocks = 5;
    config.prefix_cache = false;
    struct rig rig;
    rig_open(&rig, &config);
    rig_add(&rig, 1, 7, 10, 8);
    rig_add(&rig, 2, 3, 20, 10);
    struct rig_step first = rig_plan(&rig); /* blocks: 2 + 1 */
    rig_commit(&rig, &first, 5, 0);
    struct rig_step second = rig_plan(&rig); /* positions 7 and 3 */
    struct rig_step third = rig_plan(&rig);  /* 8 and 4: 3 + 2 blocks, none left */
    assert_int_equal(third.n_seqs, 2);
    for (uint32_t i = 0; i < 3; i++) {
        rig_commit(&rig, &second, 6, 0);
        second = third;
        third = rig_plan(&rig);
    }
    /* Positions 11 and 7 are in flight; position 12 of the first needs a block. */
    rig_commit(&rig, &second, 6, 0);
    struct rig_step last = rig_plan(&rig);
    assert_true(last.n_preempted == 1 && last.preempted_ids[0] == 2);
    assert_int_equal(last.n_seqs, 0); /* the blocks of 2 are still named */
    const struct sched_plan_seq *old = rig_find(&third, 2);
    assert_false(sched_is_current(rig.sched, old->handle, old->generation));
    assert_false(sched_has_work(rig.sched));
    uint32_t n_known = old->n_tokens_known + 1;
    rig.requests[2].tokens[n_known] = 99;
    rig_commit(&rig, &third, 6, 0);
    assert_int_equal(rig.requests[2].tokens[n_known], 99); /* dropped */
    struct rig_step step = rig_step(&rig, 6);
    assert_int_equal(rig_find(&step, 1)->n_blocks, 4);
    assert_null(rig_find(&step, 2)); /* 2 blocks needed, 1 free */
    do {
        step = rig_step(&rig, 6);
    } while (rig_find(&step, 2) == NULL);
    const struct sched_plan_seq *again = rig_find(&step, 2);
    assert_true(again->slot_is_new && again->first_position == 0);
    assert_int_equal(again->n_tokens_known, n_known);
    assert_int_equal(again->n_rows, n_known);
    assert_int_not_equal(again->generation, old->generation);
    assert_int_equal(rig.requests[2].tokens[n_known], 6);
    assert_true(rig_run_out(&rig));
    assert_int_equal(rig_stats(&rig).preemptions, 1);
    rig_close(&rig);
}

/* A request may run again in another slot while its old one still drains; the old draw does not count. */
static void test_back_while_draining(void **state)
{
    (void)state;
    struct sched_config config = rig_config();
    config.max_steps_in_flight = 2;
    config.n_blocks = 6;
    struct rig rig;
    rig_open(&rig, &config);
    rig_add(&rig, 1, 7, 10, 9);
    struct rig_step first = rig_plan(&rig);
    sched_pause(rig.sched, rig_handle(&rig, 1), true);
    rig_add(&rig, 2, 20, 50, 2); /* needs 5 blocks, 4 are free */
    struct rig_step none = rig_plan(&rig);
    assert_true(none.n_seqs == 0 && none.id == 0 && none.n_preempted == 1 && none.preempted_ids[0] == 1);
    sched_cancel(rig.sched, rig_handle(&rig, 2));
    sched_pause(rig.sched, rig_handle(&rig, 1), false);
    struct rig_step second = rig_plan(&rig);
    assert_true(second.n_seqs == 1 && second.seqs[0].id == 1 && second.seqs[0].slot_is_new);
    assert_int_not_equal(second.seqs[0].slot, first.seqs[0].slot);
    assert_true(second.seqs[0].n_rows == 7 && second.seqs[0].samples && !second.seqs[0].last_from_slot);
    rig.requests[1].tokens[7] = 99;
    rig_commit(&rig, &first, 5, 1); /* not even its stop counts */
    assert_int_equal(rig.requests[1].tokens[7], 99);
    rig_commit(&rig, &second, 6, 0);
    assert_int_equal(rig.requests[1].tokens[7], 6);
    assert_int_equal(rig_stats(&rig).n_running, 1);
    rig_close(&rig);
}

static void test_several_tokens_at_once(void **state)
{
    (void)state;
    struct sched_config config = rig_config();
    struct rig rig;
    rig_open(&rig, &config);
    rig_add(&rig, 1, 3, 10, 5);
    struct rig_step step = rig_plan(&rig);
    const uint32_t drawn[] = {7, 8, 9};
    struct sched_result result = {step.seqs[0].handle, step.seqs[0].generation, 3, drawn, false};
    sched_commit(rig.sched, step.id, &result, 1);
    assert_memory_equal(&rig.requests[1].tokens[3], drawn, sizeof drawn);
    step = rig_step(&rig, 5);
    assert_true(step.seqs[0].first_position == 3 && step.seqs[0].n_rows == 3 && step.seqs[0].samples);
    step = rig_step(&rig, 5);
    assert_int_equal(rig_pop(&rig), 1);
    rig_close(&rig);
}

/* A request that comes with output that it drew elsewhere goes on behind it. */
static void test_hand_over(void **state)
{
    (void)state;
    struct sched_config config = rig_config();
    struct rig rig;
    rig_open(&rig, &config);
    struct sched_request r = rig_request(&rig, 1, 6, 10, 2);
    r.n_prompt = 4;
    r.n_output = 2;
    rig_submit(&rig, &r);
    struct rig_step step = rig_step(&rig, 70);
    assert_true(step.seqs[0].n_rows == 6 && step.seqs[0].n_tokens_known == 6 && step.seqs[0].samples);
    rig_step(&rig, 71);
    assert_int_equal(rig_pop(&rig), 1);
    assert_memory_equal(&rig.requests[1].tokens[6], ((uint32_t[]){70, 71}), 8);
    rig_close(&rig);
}

/* A generation is never used twice for a handle. */
static void test_handle_reuse(void **state)
{
    (void)state;
    struct sched_config config = rig_config();
    config.max_requests = 1;
    struct rig rig;
    rig_open(&rig, &config);
    uint32_t last_generation = 0;
    for (int i = 0; i < 5; i++) {
        rig_add(&rig, 1, 3, 10, 1);
        struct rig_step step = rig_plan(&rig);
        assert_true(step.seqs[0].generation > last_generation);
        assert_false(sched_is_current(rig.sched, 0, last_generation));
        assert_true(sched_is_current(rig.sched, 0, step.seqs[0].generation));
        last_generation = step.seqs[0].generation;
        rig_commit(&rig, &step, 5, 0);
        assert_int_equal(rig_pop(&rig), 1);
    }
    assert_false(sched_is_current(rig.sched, 1, 0)); /* no such handle */
    rig_close(&rig);
}

static void test_stats(void **state)
{
    (void)state;
    struct sched_config config = rig_config();
    config.max_seqs = 1;
    struct rig rig;
    rig_open(&rig, &config);
    rig_add(&rig, 1, 5, 10, 4);
    rig_add(&rig, 2, 5, 20, 4);
    struct rig_step step = rig_plan(&rig);
    struct sched_stats s = rig_stats(&rig);
    assert_true(s.n_waiting == 1 && s.n_running == 1 && s.n_steps_in_flight == 1);
    assert_true(s.blocks_total == 64 && s.blocks_used == 2 && s.steps == 1 && s.rows == 5);
    rig_commit(&rig, &step, 5, 1);
    s = rig_stats(&rig);
    assert_true(s.n_running == 0 && s.blocks_used == 0 && s.blocks_cached == 1 && s.n_steps_in_flight == 0);
    rig_close(&rig);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_bad_config),
        cmocka_unit_test(test_create_allocates_what_it_says),
        cmocka_unit_test(test_queue_full),
        cmocka_unit_test(test_can_never_fit),
        cmocka_unit_test(test_bad_requests),
        cmocka_unit_test(test_chunked_prefill),
        cmocka_unit_test(test_two_steps_in_flight),
        cmocka_unit_test(test_max_output_one_with_two_in_flight),
        cmocka_unit_test(test_finish_with_a_step_in_flight),
        cmocka_unit_test(test_cancel_in_every_state),
        cmocka_unit_test(test_pause),
        cmocka_unit_test(test_preempted_in_flight),
        cmocka_unit_test(test_back_while_draining),
        cmocka_unit_test(test_several_tokens_at_once),
        cmocka_unit_test(test_hand_over),
        cmocka_unit_test(test_handle_reuse),
        cmocka_unit_test(test_stats),
    };
    return cmocka_run_group_tests_name("scheduler", tests, NULL, NULL);
}
