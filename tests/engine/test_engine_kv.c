/* KV events over an engine: a subscriber rebuilds what the prefix cache holds, whenever it comes; a tenant's
 * rebuilds its own part and learns of nobody else's. */
#include <stdio.h>
#include <string.h>
#include "base/alloc.h"
#include "engine/kv_hub.h"
#include "tests/engine/engine_world.h"

enum { PROMPT = 80, BLOCK = 16, KNOWN_MAX = 512 };

/* What a subscriber knows. */
struct known_block {
    int64_t hash, parent;
    bool has_parent;
    uint32_t tokens[BLOCK];
    char salt[32];
};
struct subscriber {
    struct world *world;
    struct kv_subscription *subscription;
    bool sees_salts;
    uint64_t sequence; /* of the batch seen last, 0 = none */
    uint32_t n_batches, n_snapshots;
    size_t n;
    struct known_block blocks[KNOWN_MAX];
};

static err_t subscribe(struct subscriber *subscriber, struct world *world, const char *tenant, bool sees_all,
                       uint64_t start)
{
    *subscriber = (struct subscriber){.world = world, .sees_salts = sees_all, .sequence = start};
    struct kv_subscribe request = {.tenant = tenant, .sees_all = sees_all, .start_sequence_number = start};
    return world->vtable->kv_subscribe(world->service, &request, &subscriber->subscription);
}

static void unsubscribe(struct subscriber *subscriber)
{
    subscriber->world->vtable->kv_unsubscribe(subscriber->world->service, subscriber->subscription);
}

static struct known_block *find(struct subscriber *subscriber, int64_t hash)
{
    for (size_t i = 0; i < subscriber->n; i++)
        if (subscriber->blocks[i].hash == hash)
            return &subscriber->blocks[i];
    return NULL;
}

static void learn_event(struct subscriber *subscriber, const struct kv_event *event)
{
    if (event->kind == KV_ALL_CLEARED) {
        subscriber->n = 0;
        return;
    }
    struct known_block *block = find(subscriber, event->block_hash);
    if (event->kind == KV_BLOCK_REMOVED) {
        assert_non_null(block);
        *block = subscriber->blocks[--subscriber->n];
        return;
    }
    assert_null(block);
    assert_true(subscriber->n < KNOWN_MAX);
    block = &subscriber->blocks[subscriber->n++];
    *block = (struct known_block){
        .hash = event->block_hash, .parent = event->parent_block_hash, .has_parent = event->has_parent};
    memcpy(block->tokens, event->token_ids, sizeof block->tokens);
    if (!subscriber->sees_salts)
        assert_null(event->cache_salt);
    (void)snprintf(block->salt, sizeof block->salt, "%s", event->cache_salt ? event->cache_salt : "");
}

/* Takes what is there; numbers never jump, a snapshot's either. */
static err_t learn(struct subscriber *subscriber)
{
    for (;;) {
        struct world *world = subscriber->world;
        const struct kv_event_batch *batch;
        err_t e = world->vtable->kv_next(world->service, subscriber->subscription, &batch);
        if (e.code != ERR_OK || !batch)
            return e;
        assert_int_equal(batch->block_tokens, BLOCK);
        assert_true(batch->n_events > 0 && batch->unix_ns > 0);
        if (subscriber->sequence > 0 && subscriber->n_batches > 0)
            assert_int_equal(batch->sequence_number, subscriber->sequence + 1);
        subscriber->sequence = batch->sequence_number;
        subscriber->n_batches++;
        subscriber->n_snapshots += batch->is_snapshot;
        if (batch->is_snapshot)
            assert_int_equal(batch->events[0].kind == KV_ALL_CLEARED, batch->snapshot_index == 0);
        for (size_t i = 0; i < batch->n_events; i++)
            learn_event(subscriber, &batch->events[i]);
    }
}

/* The same blocks, in any order. */
static void assert_same(struct subscriber *a, struct subscriber *b)
{
    assert_int_equal(a->n, b->n);
    for (size_t i = 0; i < a->n; i++) {
        struct known_block *other = find(b, a->blocks[i].hash);
        assert_non_null(other);
        assert_int_equal(other->parent, a->blocks[i].parent);
        assert_int_equal(other->has_parent, a->blocks[i].has_parent);
        assert_memory_equal(other->tokens, a->blocks[i].tokens, sizeof other->tokens);
        assert_string_equal(other->salt, a->blocks[i].salt);
    }
}

/* How many blocks of these tokens it knows, following parents from the start. */
static size_t prefix_blocks(struct subscriber *subscriber, const uint32_t *tokens, size_t n, const char *salt)
{
    size_t n_found = 0;
    int64_t parent = 0;
    for (; (n_found + 1) * BLOCK <= n; n_found++) {
        const struct known_block *next = NULL;
        for (size_t i = 0; i < subscriber->n && !next; i++) {
            const struct known_block *block = &subscriber->blocks[i];
            bool follows = n_found == 0 ? !block->has_parent : block->has_parent && block->parent == parent;
            if (follows && strcmp(block->salt, salt) == 0 &&
                memcmp(block->tokens, tokens + n_found * BLOCK, sizeof block->tokens) == 0)
                next = block;
        }
        if (!next)
            break;
        parent = next->hash;
    }
    return n_found;
}

static uint32_t prompt[8][PROMPT];

static void run(struct world *world, uint32_t which, const char *tenant, uint32_t *n_cached)
{
    struct request request = request_of(prompt[which], PROMPT, 4);
    request.tenant = tenant;
    struct replies replies = replies_new(1);
    ask(world, &request, &replies);
    if (n_cached)
        *n_cached = replies.choice[0].usage.cached_tokens;
    replies_free(&replies);
    world_assert_empty(world);
}

static void open_world(struct world *world, uint32_t depth, uint32_t n_blocks)
{
    struct world_options options = world_options_default(depth);
    options.stub.num_kv_blocks = n_blocks;
    options.stub.block_tokens = BLOCK;
    world_open(world, &options);
    for (uint32_t i = 0; i < 8; i++)
        fill_prompt(prompt[i], PROMPT, 100 + i, STUB_VOCAB);
}

/* One that was there from the start and those that come later know the same; what it knows of a prompt is
 * what the cache finds. */
static void test_replay_and_snapshots(uint32_t depth)
{
    static struct subscriber early, late;
    struct world world;
    open_world(&world, depth, 20); /* three prompts fit */
    assert_int_equal(subscribe(&early, &world, NULL, true, 0).code, ERR_OK);
    for (uint32_t round = 0; round < 40; round++) {
        uint32_t which = round * 5 % 8, n_cached;
        assert_int_equal(learn(&early).code, ERR_OK);
        size_t expected = prefix_blocks(&early, prompt[which], PROMPT - 1, "");
        run(&world, which, NULL, &n_cached);
        assert_int_equal(n_cached, expected * BLOCK);
        assert_int_equal(learn(&early).code, ERR_OK);
        assert_int_equal(prefix_blocks(&early, prompt[which], PROMPT, ""), PROMPT / BLOCK);
        assert_int_equal(subscribe(&late, &world, NULL, true, 0).code, ERR_OK);
        assert_int_equal(learn(&late).code, ERR_OK);
        assert_int_equal(late.sequence, early.sequence);
        assert_same(&early, &late);
        unsubscribe(&late);
    }
    assert_int_equal(early.n_snapshots, 1);
    assert_true(early.n_batches > 40);
    unsubscribe(&early);
    world_close(&world);
}
BOTH_DEPTHS(test_replay_and_snapshots)

static void test_goes_on_where_it_was(uint32_t depth)
{
    static struct subscriber early, again;
    struct world world;
    open_world(&world, depth, 20);
    assert_int_equal(subscribe(&early, &world, NULL, true, 0).code, ERR_OK);
    run(&world, 0, NULL, NULL);
    assert_int_equal(learn(&early).code, ERR_OK);
    uint64_t seen = early.sequence;
    assert_int_equal(subscribe(&again, &world, NULL, true, seen).code, ERR_OK);
    run(&world, 1, NULL, NULL);
    run(&world, 2, NULL, NULL);
    run(&world, 3, NULL, NULL);
    assert_int_equal(learn(&early).code, ERR_OK);
    /* What it knew before, but for the last batch, which comes once more. */
    const struct kv_event_batch *batch;
    assert_int_equal(world.vtable->kv_next(world.service, again.subscription, &batch).code, ERR_OK);
    assert_int_equal(batch->sequence_number, seen);
    assert_false(batch->is_snapshot);
    uint64_t last = seen;
    for (;;) {
        assert_int_equal(world.vtable->kv_next(world.service, again.subscription, &batch).code, ERR_OK);
        if (!batch)
            break;
        assert_int_equal(batch->sequence_number, last + 1);
        last++;
    }
    assert_int_equal(last, early.sequence);
    unsubscribe(&again);
    unsubscribe(&early);
    assert_error(ERR_OUT_OF_RANGE, subscribe(&again, &world, NULL, true, last + 1));
    assert_error(ERR_OUT_OF_RANGE, subscribe(&again, &world, NULL, true, 1)); /* as of another process */
    world_close(&world);
}
BOTH_DEPTHS(test_goes_on_where_it_was)

/* The loop does not wait for one that does not read; it is told what it missed. */
static void test_falls_behind(void **state)
{
    (void)state;
    static struct subscriber slow, again;
    struct world world;
    open_world(&world, 1, 20);
    assert_int_equal(subscribe(&slow, &world, NULL, true, 0).code, ERR_OK);
    assert_int_equal(learn(&slow).code, ERR_OK);
    uint64_t seen = slow.sequence;
    for (uint32_t i = 0; i < 8 * 60; i++) /* ten events each, and there is room for 4,096 */
        run(&world, i % 8, NULL, NULL);
    assert_error(ERR_DATA_LOSS, learn(&slow));
    unsubscribe(&slow);
    assert_error(ERR_OUT_OF_RANGE, subscribe(&again, &world, NULL, true, seen));
    assert_int_equal(subscribe(&again, &world, NULL, true, 0).code, ERR_OK);
    assert_int_equal(learn(&again).code, ERR_OK);
    assert_int_equal(prefix_blocks(&again, prompt[7], PROMPT, ""), PROMPT / BLOCK);
    unsubscribe(&again);
    world_close(&world);
}

static void test_tenants_see_their_own(uint32_t depth)
{
    static struct subscriber all, a, b, late_a;
    struct world world;
    open_world(&world, depth, 64);
    assert_int_equal(subscribe(&all, &world, "ops", true, 0).code, ERR_OK);
    assert_int_equal(subscribe(&a, &world, "a", false, 0).code, ERR_OK);
    assert_int_equal(subscribe(&b, &world, "b", false, 0).code, ERR_OK);
    for (uint32_t i = 0; i < 6; i++) {
        run(&world, i, i % 2 ? "b" : "a", NULL);
        run(&world, 6, i % 2 ? "b" : "a", NULL); /* both have it */
    }
    run(&world, 7, "ops", NULL);
    assert_int_equal(learn(&all).code, ERR_OK);
    assert_int_equal(learn(&a).code, ERR_OK);
    assert_int_equal(learn(&b).code, ERR_OK);
    for (uint32_t i = 0; i < 6; i++) {
        const char *owner = i % 2 ? "b" : "a", *other = i % 2 ? "a" : "b";
        struct subscriber *own = i % 2 ? &b : &a, *stranger = i % 2 ? &a : &b;
        assert_int_equal(prefix_blocks(&all, prompt[i], PROMPT, other), 0);
        size_t n = prefix_blocks(&all, prompt[i], PROMPT, owner);
        assert_int_equal(prefix_blocks(own, prompt[i], PROMPT, ""), n);
        assert_int_equal(prefix_blocks(stranger, prompt[i], PROMPT, ""), 0);
    }
    assert_int_equal(prefix_blocks(&all, prompt[7], PROMPT, ""), PROMPT / BLOCK); /* its own: no name */
    assert_int_equal(prefix_blocks(&a, prompt[6], PROMPT, ""), PROMPT / BLOCK);
    assert_int_equal(prefix_blocks(&b, prompt[6], PROMPT, ""), PROMPT / BLOCK);
    for (size_t i = 0; i < a.n; i++)
        assert_null(find(&b, a.blocks[i].hash));
    /* Numbers tell nothing of others: they count the tenant's own batches. */
    assert_true(a.n_batches < all.n_batches && b.n_batches < all.n_batches);
    assert_error(ERR_OUT_OF_RANGE, subscribe(&late_a, &world, "a", false, a.sequence));
    assert_error(ERR_OUT_OF_RANGE, subscribe(&late_a, &world, "a", false, all.sequence));
    assert_int_equal(subscribe(&late_a, &world, "a", false, 0).code, ERR_OK);
    assert_int_equal(learn(&late_a).code, ERR_OK);
    assert_same(&a, &late_a);
    assert_true(late_a.sequence > a.sequence);
    unsubscribe(&late_a);
    unsubscribe(&a);
    unsubscribe(&b);
    unsubscribe(&all);
    world_close(&world);
}
BOTH_DEPTHS(test_tenants_see_their_own)

static void test_limits(void **state)
{
    (void)state;
    static struct subscriber many[KV_SUBSCRIPTIONS_MAX], more;
    struct world world;
    open_world(&world, 1, 20);
    for (uint32_t i = 0; i < KV_SUBSCRIPTIONS_OF_SALT_MAX; i++)
        assert_int_equal(subscribe(&many[i], &world, "a", false, 0).code, ERR_OK);
    assert_error(ERR_RESOURCE_EXHAUSTED, subscribe(&more, &world, "a", false, 0));
    for (uint32_t i = KV_SUBSCRIPTIONS_OF_SALT_MAX; i < KV_SUBSCRIPTIONS_MAX; i++)
        assert_int_equal(subscribe(&many[i], &world, NULL, true, 0).code, ERR_OK);
    assert_error(ERR_RESOURCE_EXHAUSTED, subscribe(&more, &world, "b", false, 0));
    unsubscribe(&many[0]);
    assert_int_equal(subscribe(&more, &world, "b", false, 0).code, ERR_OK);
    unsubscribe(&more);
    for (uint32_t i = 1; i < KV_SUBSCRIPTIONS_MAX; i++)
        unsubscribe(&many[i]);
    world_close(&world);
}

/* Salts past the last that has a name are told as somebody's. */
static void test_more_salts_than_names(void **state)
{
    (void)state;
    struct kv_hub *hub;
    struct kv_subscription *subscription;
    const struct kv_event_batch *batch;
    const uint32_t tokens[BLOCK] = {0};
    assert_error(ERR_OK, kv_hub_create(2, BLOCK, 0, &hub));
    for (uint64_t salt = 1; salt <= KV_SALT_NAMES_MAX + 1; salt++)
        kv_hub_name_salt(hub, salt, "named");
    assert_error(ERR_OK, kv_hub_subscribe(hub, 0, true, 0, &subscription));
    assert_error(ERR_OK, kv_subscription_next(subscription, &batch)); /* the empty snapshot */
    struct prefix_observer observer = kv_hub_observer(hub);
    for (uint32_t i = 0; i < 2; i++) {
        struct prefix_block block = {
            .block = i, .serial = i + 1, .salt = KV_SALT_NAMES_MAX + i, .tokens = tokens};
        observer.stored(observer.context, &block);
    }
    assert_true(kv_hub_flush(hub));
    assert_error(ERR_OK, kv_subscription_next(subscription, &batch));
    assert_true(batch != NULL && batch->n_events == 2);
    assert_string_equal(batch->events[0].cache_salt, "named");
    assert_string_equal(batch->events[1].cache_salt, KV_OTHER_SALT);
    kv_subscription_close(subscription);
    kv_hub_destroy(hub);
}

/* Whatever allocation fails: an error, and nothing is left behind (world_close and the sanitizer look). */
static void test_no_memory(void **state)
{
    (void)state;
    static struct subscriber subscriber;
    struct world world;
    open_world(&world, 1, 20);
    run(&world, 0, NULL, NULL);
    int64_t nth = 0;
    for (;; nth++) {
        mem_fail_nth(nth);
        err_t e = subscribe(&subscriber, &world, NULL, true, 0);
        mem_fail_nth(-1);
        if (e.code == ERR_OK)
            break;
        assert_int_equal(e.code, ERR_RESOURCE_EXHAUSTED);
    }
    assert_true(nth >= 4);
    assert_int_equal(learn(&subscriber).code, ERR_OK);
    assert_int_equal(prefix_blocks(&subscriber, prompt[0], PROMPT, ""), PROMPT / BLOCK);
    unsubscribe(&subscriber);
    world_close(&world);
}

static void test_no_prefix_cache(void **state)
{
    (void)state;
    static struct subscriber subscriber;
    struct world world;
    struct world_options options = world_options_default(1);
    options.engine.disable_prefix_caching = true;
    world_open(&world, &options);
    assert_error(ERR_UNIMPLEMENTED, subscribe(&subscriber, &world, NULL, true, 0));
    world_close(&world);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_replay_and_snapshots_at_both_depths),
        cmocka_unit_test(test_goes_on_where_it_was_at_both_depths),
        cmocka_unit_test(test_falls_behind),
        cmocka_unit_test(test_tenants_see_their_own_at_both_depths),
        cmocka_unit_test(test_limits),
        cmocka_unit_test(test_more_salts_than_names),
        cmocka_unit_test(test_no_memory),
        cmocka_unit_test(test_no_prefix_cache),
    };
    return cmocka_run_group_tests_name("engine_kv", tests, NULL, NULL);
}
