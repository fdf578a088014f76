/* What attention reads before its turn (docs/cuda.md): with the launch in front still to write q and the keys
 * of the step's rows it gives the same bits, whatever the list of work; and it would not, were the list
 * wrong. */
#include "tests/cuda/attention_world.h"

#include <string.h>
#include "base/alloc.h"

enum { N = 7, CHUNK = 40 };

/* Decode at, before and after the ends of splits, a chunk across one, and a prefix that is shared. */
static const uint32_t contexts[N] = {598, 599, 256, 257, 513, 900, 20}, n_shared[N] = {0, 37, 0, 0, 0, 32, 0};

static void make_rows(struct rows rows[N])
{
    for (uint32_t s = 0; s < N; s++)
        rows[s] = (struct rows){s, contexts[s] - 1, 1};
    rows[4] = (struct rows){4, contexts[4] - CHUNK, CHUNK};
}

static void check_shape(const struct shape *shape, uint64_t seed)
{
    struct world w;
    struct rows rows[N];
    world_create(&w, shape, N, contexts, n_shared, seed);
    make_rows(rows);
    size_t bytes = (size_t)(N + CHUNK - 1) * width_of(shape) * 2;
    uint16_t *late = mem_alloc(bytes), *early = mem_alloc(bytes);
    const struct run_options plans[] = {
        {.n_partials = 4096, .shares_prefixes = true, .blocks_wanted = 100},
        /* Some blocks take several pieces; some begin with one that has new keys, behind those of 8 whole
           splits. */
        {.n_partials = 4096, .emulator_seed = seed, .n_blocks = 10 * shape->n_kv_heads},
        {.n_partials = 8, .shares_prefixes = true}, /* hardly anything is split */
    };
    for (size_t i = 0; i < sizeof plans / sizeof plans[0]; i++) {
        struct run_options options = plans[i];
        attention_run(&w, rows, N, &options, late);
        options.is_early = true;
        attention_run(&w, rows, N, &options, early);
        assert_memory_equal(late, early, bytes);
        options.claims_old_keys = true;
        options.form = i == 1 ? RUN_BLOCKS : RUN_TEAMS; /* these begin with keys that are wrong */
        attention_run(&w, rows, N, &options, early);
        assert_memory_not_equal(late, early, bytes);
    }
    mem_free(late), mem_free(early);
    world_destroy(&w);
}

/* The same where the attention writes the new keys itself. */
static void check_turns(const struct shape *shape, uint64_t seed)
{
    static const uint32_t alone[N] = {598, 577, 256, 257, 513, 900, 20};
    struct world w;
    struct rows rows[N];
    world_create(&w, shape, N, alone, NULL, seed);
    for (uint32_t s = 0; s < N; s++)
        rows[s] = (struct rows){s, alone[s] - 1, 1};
    size_t bytes = (size_t)N * width_of(shape) * 2;
    uint16_t *before = mem_alloc(bytes), *turned = mem_alloc(bytes);
    struct run_options options = {.n_partials = 4096, .emulator_seed = seed};
    attention_run(&w, rows, N, &options, before);
    options.turns = true;
    options.form = RUN_BLOCKS;
    for (int i = 0; i < 3; i++) {
        options.is_early = i > 0;
        options.n_blocks = i > 1 ? 5 : 0;
        memset(turned, 0, bytes);
        attention_run(&w, rows, N, &options, turned);
        assert_memory_equal(before, turned, bytes);
    }
    mem_free(before), mem_free(turned);
    world_destroy(&w);
}

static void test_turns(void **state)
{
    (void)state;
    check_turns(&(struct shape){.n_heads = 8, .n_kv_heads = 2, .head_dim = 128, .element_bytes = 2}, 35);
    check_turns(&(struct shape){.n_heads = 6, .n_kv_heads = 2, .head_dim = 96, .element_bytes = 2}, 36);
    check_turns(
        &(struct shape){.n_heads = 4, .n_kv_heads = 1, .head_dim = 128, .element_bytes = 1, .window = 300},
        37);
    check_turns(&(struct shape){.n_heads = 20, .n_kv_heads = 1, .head_dim = 64, .element_bytes = 1}, 38);
}

static void test_bf16(void **state)
{
    (void)state;
    check_shape(&(struct shape){.n_heads = 8, .n_kv_heads = 2, .head_dim = 128, .element_bytes = 2}, 31);
    check_shape(
        &(struct shape){.n_heads = 2, .n_kv_heads = 1, .head_dim = 64, .element_bytes = 2, .window = 300},
        32);
}

static void test_e4m3(void **state)
{
    (void)state;
    check_shape(&(struct shape){.n_heads = 4, .n_kv_heads = 1, .head_dim = 256, .element_bytes = 1}, 33);
    check_shape(&(struct shape){.n_heads = 3, .n_kv_heads = 1, .head_dim = 96, .element_bytes = 1}, 34);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_bf16),
        cmocka_unit_test(test_e4m3),
        cmocka_unit_test(test_turns),
    };
    return cmocka_run_group_tests_name("attention before its turn", tests, attention_set_up, NULL);
}
