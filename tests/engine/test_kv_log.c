/* The log of KV events: what readers of it know is what its writer said, however far behind or fast they are.
 */
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include "base/philox.h"
#include "engine/kv_log.h"

enum { BLOCKS = 24, TOKENS = 3, FIRST = 1000 };
/* Copying so many takes long enough for the writer to come in between. */
enum { RACE_BLOCKS = 32768, BLOCKS_MAX = RACE_BLOCKS };

/* A cache that changes at random and tells the log. */
struct cache {
    uint32_t n_blocks;
    struct kv_log *log;
    struct prefix_observer observer;
    struct rng rng;
    uint64_t last_serial;
    uint64_t serial[BLOCKS_MAX], salt[BLOCKS_MAX]; /* 0 = empty */
};

static void token_values(uint64_t serial, uint32_t *tokens)
{
    for (uint32_t i = 0; i < TOKENS; i++)
        tokens[i] = (uint32_t)(serial * 31 + i);
}

static struct prefix_block block_of(uint32_t block, uint64_t serial, uint64_t salt, const uint32_t *tokens)
{
    return (struct prefix_block){
        .block = block, .serial = serial, .parent_serial = serial / 2, .salt = salt, .tokens = tokens};
}

static struct cache *cache_new(uint32_t n_blocks, uint64_t seed)
{
    struct cache *cache = calloc(1, sizeof *cache);
    assert_non_null(cache);
    cache->n_blocks = n_blocks;
    cache->rng = rng_make(seed);
    assert_int_equal(kv_log_create(n_blocks, TOKENS, FIRST, &cache->log).code, ERR_OK);
    cache->observer = kv_log_observer(cache->log);
    return cache;
}

static void cache_free(struct cache *cache)
{
    kv_log_destroy(cache->log);
    free(cache);
}

/* One event. */
static void cache_change(struct cache *cache)
{
    uint32_t tokens[TOKENS], block = rng_below(&cache->rng, cache->n_blocks);
    if (cache->serial[block] != 0) {
        token_values(cache->serial[block], tokens);
        struct prefix_block old = block_of(block, cache->serial[block], cache->salt[block], tokens);
        cache->observer.removed(cache->observer.context, &old);
        cache->serial[block] = 0;
        return;
    }
    cache->serial[block] = ++cache->last_serial;
    cache->salt[block] = 1 + cache->last_serial % 3;
    token_values(cache->last_serial, tokens);
    struct prefix_block new = block_of(block, cache->last_serial, cache->salt[block], tokens);
    cache->observer.stored(cache->observer.context, &new);
}

static void cache_batch(struct cache *cache, uint32_t n_events)
{
    for (uint32_t i = 0; i < n_events; i++)
        cache_change(cache);
    assert_true(kv_log_flush(cache->log));
}

/* What a reader knows. */
struct known {
    uint64_t serial[BLOCKS_MAX];
};

static void learn(struct known *known, const struct prefix_block *block, bool is_stored)
{
    assert_true(block->block < BLOCKS_MAX);
    if (!is_stored) {
        assert_int_equal(known->serial[block->block], block->serial);
        known->serial[block->block] = 0;
        return;
    }
    uint32_t tokens[TOKENS];
    token_values(block->serial, tokens);
    assert_memory_equal(block->tokens, tokens, sizeof tokens);
    assert_int_equal(block->parent_serial, block->serial / 2);
    assert_int_equal(block->salt, 1 + block->serial % 3);
    assert_int_equal(known->serial[block->block], 0);
    known->serial[block->block] = block->serial;
}

static void learn_snapshot(struct known *known, const struct kv_snapshot *snapshot)
{
    uint64_t last = 0;
    *known = (struct known){0};
    for (size_t i = 0; i < snapshot->n_blocks; i++) {
        uint32_t tokens[TOKENS];
        struct prefix_block block;
        kv_snapshot_block(snapshot, i, &block, tokens);
        assert_true(block.serial > last); /* parents first */
        last = block.serial;
        learn(known, &block, true);
    }
}

/* Reads to the end. False when it was overtaken. Sequences never jump. */
static bool follow(const struct kv_log *log, struct known *known, uint64_t *position, uint64_t *sequence)
{
    for (uint64_t end = kv_log_end(log); *position < end; ++*position) {
        struct kv_log_event event;
        uint32_t tokens[TOKENS];
        if (!kv_log_read(log, *position, &event, tokens))
            return false;
        assert_in_range(event.sequence_number, *sequence, *sequence + 1);
        *sequence = event.sequence_number;
        learn(known, &event.block, event.is_stored);
    }
    return true;
}

static void test_replay_is_the_cache(void **state)
{
    (void)state;
    static struct known known;
    struct cache *cache = cache_new(BLOCKS, 1);
    uint64_t position = 0, sequence = FIRST;
    for (uint32_t batch = 0; batch < 2000; batch++) {
        cache_batch(cache, 1 + rng_below(&cache->rng, 9));
        assert_true(follow(cache->log, &known, &position, &sequence));
        assert_int_equal(sequence, FIRST + batch + 1);
        assert_memory_equal(known.serial, cache->serial, sizeof known.serial);
        if (batch % 50 > 0)
            continue;
        struct kv_snapshot snapshot;
        assert_int_equal(kv_log_snapshot(cache->log, NULL, &snapshot).code, ERR_OK);
        assert_int_equal(snapshot.sequence_number, sequence);
        assert_int_equal(snapshot.position, position);
        learn_snapshot(&known, &snapshot);
        assert_memory_equal(known.serial, cache->serial, sizeof known.serial);
        kv_snapshot_free(&snapshot);
    }
    cache_free(cache);
}

static void test_nothing_before_its_batch_ends(void **state)
{
    (void)state;
    struct cache *cache = cache_new(BLOCKS, 2);
    assert_false(kv_log_flush(cache->log));
    cache_change(cache);
    assert_int_equal(kv_log_end(cache->log), 0);
    struct kv_snapshot snapshot;
    assert_int_equal(kv_log_snapshot(cache->log, NULL, &snapshot).code, ERR_OK);
    assert_int_equal(snapshot.n_blocks, 0);
    assert_int_equal(snapshot.sequence_number, FIRST);
    kv_snapshot_free(&snapshot);
    assert_true(kv_log_flush(cache->log));
    assert_int_equal(kv_log_end(cache->log), 1);
    cache_free(cache);
}

static void test_large_batch_becomes_several(void **state)
{
    (void)state;
    struct cache *cache = cache_new(BLOCKS, 3);
    cache_batch(cache, 2 * KV_LOG_BATCH_EVENTS_MAX + 1);
    struct known known = {0};
    uint64_t position = 0, sequence = FIRST;
    assert_true(follow(cache->log, &known, &position, &sequence));
    assert_int_equal(sequence, FIRST + 3);
    assert_memory_equal(known.serial, cache->serial, sizeof known.serial);
    cache_free(cache);
}

static void test_find(void **state)
{
    (void)state;
    struct cache *cache = cache_new(BLOCKS, 4);
    uint64_t position;
    assert_true(kv_log_find(cache->log, FIRST, &position));
    assert_int_equal(position, 0);
    assert_false(kv_log_find(cache->log, FIRST + 1, &position)); /* is still to come */
    assert_false(kv_log_find(cache->log, FIRST - 1, &position)); /* of a server before this one */
    assert_false(kv_log_find(cache->log, UINT64_MAX, &position));
    for (uint32_t batch = 0; batch < 100; batch++)
        cache_batch(cache, 3);
    for (uint32_t batch = 1; batch <= 100; batch++) {
        assert_true(kv_log_find(cache->log, FIRST + batch, &position));
        assert_int_equal(position, (batch - 1) * 3);
    }
    assert_true(kv_log_find(cache->log, FIRST, &position));
    assert_int_equal(position, 0);
    assert_false(kv_log_find(cache->log, FIRST + 101, &position));

    for (uint32_t batch = 0; batch < KV_LOG_EVENTS_MIN; batch++)
        cache_batch(cache, 3);
    uint64_t last = FIRST + 100 + KV_LOG_EVENTS_MIN, oldest = last;
    assert_false(kv_log_find(cache->log, FIRST + 100, &position));
    while (kv_log_find(cache->log, oldest, &position))
        oldest--;
    /* It goes back a good part of the ring, and what it finds is the first event of the batch after `oldest`.
     */
    assert_in_range((last - oldest) * 3, KV_LOG_EVENTS_MIN / 4, KV_LOG_EVENTS_MIN);
    assert_true(kv_log_find(cache->log, oldest + 1, &position));
    struct kv_log_event event;
    uint32_t tokens[TOKENS];
    assert_true(kv_log_read(cache->log, position, &event, tokens));
    assert_int_equal(event.sequence_number, oldest + 2);
    assert_true(kv_log_read(cache->log, position - 1, &event, tokens));
    assert_int_equal(event.sequence_number, oldest + 1);
    cache_free(cache);
}

static void test_who_falls_behind_is_told(void **state)
{
    (void)state;
    struct cache *cache = cache_new(BLOCKS, 5);
    cache_batch(cache, 1);
    for (uint32_t i = 0; i < KV_LOG_EVENTS_MIN; i++)
        cache_batch(cache, 1);
    struct kv_log_event event;
    uint32_t tokens[TOKENS];
    assert_false(kv_log_read(cache->log, 0, &event, tokens));
    assert_true(kv_log_read(cache->log, 1, &event, tokens));
    assert_int_equal(event.sequence_number, FIRST + 2);
    cache_free(cache);
}

static void test_snapshot_of_a_salt(void **state)
{
    (void)state;
    struct cache *cache = cache_new(BLOCKS, 6);
    for (uint32_t batch = 0; batch < 200; batch++) {
        cache_batch(cache, 5);
        for (uint64_t salt = 0; salt <= 3; salt++) {
            struct kv_snapshot snapshot;
            assert_int_equal(kv_log_snapshot(cache->log, &salt, &snapshot).code, ERR_OK);
            struct known known;
            learn_snapshot(&known, &snapshot);
            for (uint32_t block = 0; block < BLOCKS; block++) {
                bool is_own = cache->serial[block] != 0 && cache->salt[block] == salt;
                assert_int_equal(known.serial[block], is_own ? cache->serial[block] : 0);
            }
            kv_snapshot_free(&snapshot);
        }
    }
    cache_free(cache);
}

/* ---- at once ---- */

struct race {
    struct cache *cache;
    _Atomic bool done;
    _Atomic uint32_t n_followed; /* times that a reader, begun in the middle, came to the writer's end */
};

enum { RACE_BATCHES = 40000, READERS = 2 };

/* Snapshot, follow, and again; what is learned must fit at each event (learn), and be the cache at the end.
 */
static void *read_main(void *argument)
{
    struct race *race = argument;
    const struct kv_log *log = race->cache->log;
    bool last = false;
    while (!last) {
        last = atomic_load(&race->done);
        struct kv_snapshot snapshot;
        struct known known;
        if (kv_log_snapshot(log, NULL, &snapshot).code != ERR_OK)
            continue;
        learn_snapshot(&known, &snapshot);
        uint64_t position = snapshot.position, sequence = snapshot.sequence_number;
        kv_snapshot_free(&snapshot);
        bool kept = true;
        for (int i = 0; i < 20 && kept; i++)
            kept = follow(log, &known, &position, &sequence);
        atomic_fetch_add(&race->n_followed, kept);
        if (last) {
            assert_true(kept);
            assert_memory_equal(known.serial, race->cache->serial, sizeof known.serial);
        }
    }
    return NULL;
}

static void test_readers_beside_the_writer(void **state)
{
    (void)state;
    static struct race race;
    race.cache = cache_new(RACE_BLOCKS, 7);
    pthread_t readers[READERS];
    for (int i = 0; i < READERS; i++)
        assert_int_equal(pthread_create(&readers[i], NULL, read_main, &race), 0);
    for (uint32_t batch = 0; batch < RACE_BATCHES || atomic_load(&race.n_followed) < 40; batch++)
        cache_batch(race.cache, 1 + rng_below(&race.cache->rng, 12));
    atomic_store(&race.done, true);
    for (int i = 0; i < READERS; i++)
        pthread_join(readers[i], NULL);
    cache_free(race.cache);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_replay_is_the_cache),
        cmocka_unit_test(test_nothing_before_its_batch_ends),
        cmocka_unit_test(test_large_batch_becomes_several),
        cmocka_unit_test(test_find),
        cmocka_unit_test(test_who_falls_behind_is_told),
        cmocka_unit_test(test_snapshot_of_a_salt),
        cmocka_unit_test(test_readers_beside_the_writer),
    };
    return cmocka_run_group_tests_name("kv_log", tests, NULL, NULL);
}
