/* Which prefixes are found, and that nothing else is. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>
#include "tests/scheduler/sched_rig.h"

/* Runs one request to its end (one output token, 5) and returns how many positions came from the cache. */
static uint32_t run_one(struct rig *rig, const struct sched_request *request)
{
    rig_submit(rig, request);
    struct rig_step step = rig_step(rig, 5);
    const struct sched_plan_seq *seq = rig_find(&step, request->id);
    assert_non_null(seq);
    assert_int_equal(seq->first_position, seq->n_cached);
    assert_true(rig_run_out(rig));
    assert_int_equal(rig_pop(rig), request->id);
    return seq->n_cached;
}

static uint32_t run_prompt(struct rig *rig, uint32_t n_prompt, uint32_t first_token)
{
    struct sched_request r = rig_request(rig, 1, n_prompt, first_token, 1);
    return run_one(rig, &r);
}

static void test_hits_whole_blocks(void **state)
{
    (void)state;
    struct sched_config config = rig_config();
    struct rig rig;
    rig_open(&rig, &config);
    assert_int_equal(run_prompt(&rig, 11, 10), 0);
    assert_int_equal(rig_stats(&rig).blocks_cached, 2);
    assert_int_equal(run_prompt(&rig, 11, 10), 8);
    assert_int_equal(run_prompt(&rig, 30, 10), 8);
    assert_int_equal(run_prompt(&rig, 30, 10), 28);
    assert_int_equal(run_prompt(&rig, 30, 11), 0);
    /* The last token is always computed: 12 positions are cached, and 8 of them are used. */
    assert_int_equal(run_prompt(&rig, 12, 10), 8);
    assert_int_equal(run_prompt(&rig, 13, 10), 12);
    assert_int_equal(rig_stats(&rig).prefix_query_tokens, 11 + 11 + 30 + 30 + 30 + 12 + 13);
    assert_int_equal(rig_stats(&rig).prefix_hit_tokens, 8 + 8 + 28 + 8 + 12);
    rig_close(&rig);
}

static void test_output_is_cached_too(void **state)
{
    (void)state;
    struct sched_config config = rig_config();
    struct rig rig;
    rig_open(&rig, &config);
    struct sched_request r = rig_request(&rig, 1, 6, 10, 7);
    assert_int_equal(run_one(&rig, &r), 0);
    /* The conversation goes on: what it drew (seven times 5; the last was not computed) and a question. */
    struct sched_request next = rig_request(&rig, 2, 16, 10, 1);
    for (uint32_t i = 6; i < 13; i++)
        next.tokens[i] = 5;
    assert_int_equal(run_one(&rig, &next), 12);
    rig_close(&rig);
}

static void test_switched_off(void **state)
{
    (void)state;
    struct sched_config config = rig_config();
    config.prefix_cache = false;
    struct rig rig;
    rig_open(&rig, &config);
    assert_int_equal(run_prompt(&rig, 11, 10), 0);
    assert_int_equal(run_prompt(&rig, 11, 10), 0);
    assert_int_equal(rig_stats(&rig).blocks_cached, 0);
    assert_int_equal(rig_stats(&rig).prefix_query_tokens, 0);
    sched_reset_prefix_cache(rig.sched);
    rig_close(&rig);
}

static void test_salt_and_adapter_divide(void **state)
{
    (void)state;
    struct sched_config config = rig_config();
    struct rig rig;
    rig_open(&rig, &config);
    for (uint32_t round = 0; round < 2; round++) {
        for (uint64_t salt = 0; salt < 3; salt++) {
            for (uint32_t adapter = 0; adapter < 2; adapter++) {
                struct sched_request r = rig_request(&rig, 1, 11, 10, 1);
                r.salt = salt << 32;
                r.adapter = adapter;
                assert_int_equal(run_one(&rig, &r), 8 * round);
            }
        }
    }
    rig_close(&rig);
}

static void test_skip_cache_read(void **state)
{
    (void)state;
    struct sched_config config = rig_config();
    struct rig rig;
    rig_open(&rig, &config);
    struct sched_request r = rig_request(&rig, 1, 11, 10, 1);
    r.skip_cache_read = true;
    assert_int_equal(run_one(&rig, &r), 0);
    assert_int_equal(run_one(&rig, &r), 0);
    assert_int_equal(rig_stats(&rig).prefix_query_tokens, 0);
    r.skip_cache_read = false;
    assert_int_equal(run_one(&rig, &r), 8); /* it wrote what it did not read */
    rig_close(&rig);
}

/* Blocks of a step that is not committed are not there yet. */
static void test_registered_at_commit(void **state)
{
    (void)state;
    struct sched_config config = rig_config();
    config.max_steps_in_flight = 2;
    struct rig rig;
    rig_open(&rig, &config);
    rig_add(&rig, 1, 11, 10, 9);
    rig_add(&rig, 2, 11, 10, 9);
    struct rig_step first = rig_plan(&rig);
    assert_int_equal(rig_find(&first, 2)->n_cached, 0);
    rig_add(&rig, 3, 11, 10, 9);
    struct rig_step second = rig_plan(&rig);
    assert_int_equal(rig_find(&second, 3)->n_cached, 0);
    rig_commit(&rig, &first, 5, 0);
    rig_add(&rig, 4, 11, 10, 9);
    struct rig_step third = rig_plan(&rig);
    const struct sched_plan_seq *four = rig_find(&third, 4);
    assert_int_equal(four->n_cached, 8);
    /* The blocks of the first one, which runs: shared, not copied. */
    assert_memory_equal(four->blocks, rig_find(&first, 1)->blocks, 2 * sizeof *four->blocks);
    assert_int_not_equal(four->blocks[2], rig_find(&first, 1)->blocks[2]);
    rig_commit(&rig, &second, 5, 0);
    rig_commit(&rig, &third, 5, 0);
    for (uint64_t id = 1; id <= 4; id++)
        sched_cancel(rig.sched, rig_handle(&rig, id));
    assert_int_equal(rig_stats(&rig).blocks_used, 0);
    assert_int_equal(rig_stats(&rig).blocks_cached, 3); /* the copies were not registered */
    rig_close(&rig);
}

/* A cancelled request's draw is dropped, though the position after it was computed: that block's tokens are
 * not known, so that it must not be found. */
static void test_unknown_tokens_are_not_registered(void **state)
{
    (void)state;
    struct sched_config config = rig_config();
    config.max_steps_in_flight = 2;
    struct rig rig;
    rig_open(&rig, &config);
    rig_add(&rig, 1, 7, 10, 9);
    rig.requests[1].tokens[7] = 17; /* what happens to stand in the room */
    struct rig_step first = rig_plan(&rig);
    struct rig_step second = rig_plan(&rig); /* position 7, whose token is drawn by the first */
    sched_cancel(rig.sched, rig_handle(&rig, 1));
    rig_commit(&rig, &first, 5, 0);
    rig_commit(&rig, &second, 5, 0);
    assert_int_equal(rig_pop(&rig), 1);
    struct sched_request r = rig_request(&rig, 2, 20, 10, 1);
    assert_int_equal(run_one(&rig, &r), 4);
    rig_close(&rig);
}

/* A preempted request finds what it had computed. */
static void test_hits_after_preemption(void **state)
{
    (void)state;
    struct sched_config config = rig_config();
    config.n_blocks = 8;
    struct rig rig;
    rig_open(&rig, &config);
    rig_add(&rig, 1, 11, 10, 12);
    rig_add(&rig, 2, 11, 40, 12);
    struct rig_step step;
    do {
        step = rig_step(&rig, 5);
    } while (step.n_preempted == 0);
    assert_int_equal(step.preempted_ids[0], 2);
    uint64_t n_hits = rig_stats(&rig).prefix_hit_tokens;
    do {
        step = rig_step(&rig, 5);
    } while (rig_find(&step, 2) == NULL);
    assert_true(rig_find(&step, 2)->slot_is_new && rig_find(&step, 2)->n_cached >= 8);
    assert_int_equal(rig_stats(&rig).prefix_hit_tokens, n_hits); /* only first admissions are counted */
    assert_true(rig_run_out(&rig));
    rig_close(&rig);
}

/* The oldest free prefix goes first, and of a prefix its end. */
static void test_lru(void **state)
{
    (void)state;
    struct sched_config config = rig_config();
    config.n_blocks = 12;
    struct rig rig;
    rig_open(&rig, &config);
    run_prompt(&rig, 17, 100); /* 4 full blocks each */
    run_prompt(&rig, 17, 200);
    assert_int_equal(run_prompt(&rig, 17, 100), 16);
    run_prompt(&rig, 23, 300); /* 6 blocks: 4 were plain, so that 2 of the second prefix are gone */
    assert_int_equal(run_prompt(&rig, 17, 200), 8);
    rig_close(&rig);

    rig_open(&rig, &config);
    run_prompt(&rig, 41, 100); /* 10 blocks */
    run_prompt(&rig, 19, 300); /* 5: three of them are the end of the first */
    assert_int_equal(run_prompt(&rig, 41, 100), 28);
    rig_close(&rig);
}

static void test_quota(void **state)
{
    (void)state;
    struct sched_config config = rig_config();
    config.tenant_cached_blocks_max = 5;
    struct rig rig;
    rig_open(&rig, &config);
    struct sched_request quiet = rig_request(&rig, 1, 17, 10, 1);
    quiet.salt = 7;
    run_one(&rig, &quiet);
    for (uint32_t i = 1; i < 9; i++) { /* a loud tenant */
        run_prompt(&rig, 17, 100 * i);
        assert_int_equal(rig_stats(&rig).blocks_cached, 4 + (i == 1 ? 4 : 5));
    }
    assert_int_equal(run_prompt(&rig, 17, 800), 16);
    assert_int_equal(run_prompt(&rig, 17, 700), 4); /* the start of the one before is left */
    quiet = rig_request(&rig, 1, 17, 10, 1);
    quiet.salt = 7;
    assert_int_equal(run_one(&rig, &quiet), 16);
    /* Blocks in use do not count: a long request of the loud one keeps the quota when it is done. */
    run_prompt(&rig, 90, 1000);
    assert_int_equal(rig_stats(&rig).blocks_cached, 4 + 5);
    assert_int_equal(run_prompt(&rig, 90, 1000), 20);
    rig_close(&rig);
}

static void test_reset(void **state)
{
    (void)state;
    struct sched_config config = rig_config();
    struct rig rig;
    rig_open(&rig, &config);
    run_prompt(&rig, 17, 100);
    rig_add(&rig, 2, 17, 200, 9);
    rig_step(&rig, 5);
    sched_reset_prefix_cache(rig.sched);
    sched_check_invariants(rig.sched);
    assert_int_equal(rig_stats(&rig).blocks_cached, 0);
    assert_int_equal(rig_stats(&rig).blocks_used, 5);
    rig_add(&rig, 3, 17, 200, 1);
    rig_add(&rig, 4, 17, 100, 1);
    struct rig_step step = rig_step(&rig, 5);
    assert_int_equal(rig_find(&step, 3)->n_cached, 16); /* in use: kept */
    assert_int_equal(rig_find(&step, 4)->n_cached, 0);
    rig_close(&rig);
}

/* Every hash is equal: only the verification divides. */
static void test_collisions(void **state)
{
    (void)state;
    struct sched_config config = rig_config();
    struct rig rig = {.config = config};
    assert_int_equal(sched_create_masked(&config, (struct hash128){0, 0}, &rig.sched).code, ERR_OK);
    assert_int_equal(run_prompt(&rig, 11, 100), 0);
    assert_int_equal(run_prompt(&rig, 11, 200), 0);
    assert_int_equal(run_prompt(&rig, 11, 100), 8);
    assert_int_equal(run_prompt(&rig, 11, 200), 8);
    /* The same second block behind another first one. */
    struct sched_request r = rig_request(&rig, 1, 11, 100, 1);
    for (uint32_t i = 0; i < 4; i++)
        r.tokens[i] = 200 + i;
    assert_int_equal(run_one(&rig, &r), 4);
    /* The same tokens of another tenant, and of another adapter. */
    r = rig_request(&rig, 1, 11, 100, 1);
    r.salt = 1;
    assert_int_equal(run_one(&rig, &r), 0);
    r.salt = 0;
    r.adapter = 1;
    assert_int_equal(run_one(&rig, &r), 0);
    r.adapter = 0;
    assert_int_equal(run_one(&rig, &r), 8);
    rig_close(&rig);
}

/* Two compute the same prefix at once; the one registered first ends and is evicted. What the other one
 * registers afterwards must still be found. */
static void test_copy_takes_over(void **state)
{
    (void)state;
    struct sched_config config = rig_config();
    config.n_blocks = 16;
    struct rig rig;
    rig_open(&rig, &config);
    rig_add(&rig, 1, 11, 10, 1);
    rig_add(&rig, 2, 11, 10, 9);
    rig_step(&rig, 5);
    assert_int_equal(rig_pop(&rig), 1);
    assert_int_equal(rig_stats(&rig).blocks_cached, 2);
    sched_reset_prefix_cache(rig.sched);
    rig_step(&rig, 5); /* completes the third block */
    assert_true(rig_run_out(&rig));
    assert_int_equal(rig_pop(&rig), 2);
    assert_int_equal(rig_stats(&rig).blocks_cached, 4);
    struct sched_request next = rig_request(&rig, 3, 20, 10, 1);
    for (uint32_t i = 11; i < 20; i++)
        next.tokens[i] = 5;
    assert_int_equal(run_one(&rig, &next), 16);
    rig_close(&rig);
}

/* A child left behind by its evicted parent is not found, does no harm, and is taken over when the owner of
 * the parent's copy registers again. */
static void test_orphans(void **state)
{
    (void)state;
    struct sched_config config = rig_config();
    struct rig rig;
    rig_open(&rig, &config);
    struct block_pool *pool = &rig.sched->pool;
    struct prefix_cache *cache = &rig.sched->cache;
    const uint32_t tokens[] = {1, 2, 3, 4, 5, 6, 7, 8};
    uint32_t parent = prefix_cache_take_block(cache), child = prefix_cache_take_block(cache);
    struct prefix_chain start = prefix_cache_start(cache, 0, 0), chain = start;
    prefix_cache_register(cache, &chain, parent, tokens);
    struct prefix_chain behind_parent = chain;
    prefix_cache_register(cache, &chain, child, &tokens[4]);
    prefix_cache_release_block(cache, parent);
    prefix_cache_reset(cache); /* the parent is free and goes, the child is in use */
    assert_false(prefix_cache_is_live(cache, &behind_parent));
    chain = start;
    assert_int_equal(prefix_cache_find(cache, &chain, tokens), BLOCK_NONE);

    uint32_t copy = prefix_cache_take_block(cache);
    prefix_cache_register(cache, &chain, copy, tokens);
    assert_int_equal(prefix_cache_find(cache, &chain, &tokens[4]), BLOCK_NONE);
    prefix_cache_register(cache, &chain, child, &tokens[4]);
    chain = start;
    assert_int_equal(prefix_cache_find(cache, &chain, tokens), copy);
    assert_int_equal(prefix_cache_find(cache, &chain, &tokens[4]), child);
    prefix_cache_release_block(cache, child);
    prefix_cache_release_block(cache, copy);
    assert_int_equal(block_pool_n_free(pool), config.n_blocks);
    rig_close(&rig);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_hits_whole_blocks),
        cmocka_unit_test(test_output_is_cached_too),
        cmocka_unit_test(test_switched_off),
        cmocka_unit_test(test_salt_and_adapter_divide),
        cmocka_unit_test(test_skip_cache_read),
        cmocka_unit_test(test_registered_at_commit),
        cmocka_unit_test(test_unknown_tokens_are_not_registered),
        cmocka_unit_test(test_hits_after_preemption),
        cmocka_unit_test(test_lru),
        cmocka_unit_test(test_quota),
        cmocka_unit_test(test_reset),
        cmocka_unit_test(test_collisions),
        cmocka_unit_test(test_copy_takes_over),
        cmocka_unit_test(test_orphans),
    };
    return cmocka_run_group_tests_name("prefix_cache", tests, NULL, NULL);
}
