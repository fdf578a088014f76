/* Decoding sequences that begin with the same blocks: attention reads those once for several, and gives every
 * sequence the bits that it has alone. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>
#include <cmocka.h>
#include "base/alloc.h"
#include "base/philox.h"
#include "kernels/cpu_backend.h"
#include "tests/base/ok.h"

/* Sanitizers see in two trees of a shape what they see in four. */
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
enum { TREES = 2 };
#else
enum { TREES = 4 };
#endif
enum {
    SEQ_BLOCKS = 8,
    SEQS = 24,
    BLOCKS = SEQS * SEQ_BLOCKS,
    TOKENS = BLOCKS * KV_BLOCK_TOKENS,
    DIM = 24,
    LONG_SEQS = 3, /* of a world of long sequences, as many blocks in all */
    LONG_SEQ_BLOCKS = BLOCKS / LONG_SEQS,
    LONG_TOKENS = LONG_SEQ_BLOCKS * KV_BLOCK_TOKENS,
    LONG_MIN_TOKENS = 3 * ATTENTION_CHUNK_TOKENS,
    CHUNK_ROWS = 21, /* of a sequence that is no decode */
    ROWS = SEQS * CHUNK_ROWS,
};

struct world {
    struct backend *backend;
    const struct backend_vtable *ops;
    struct qkv_shape shape;
    size_t width; /* of qkv */
    uint32_t seq_blocks;
    struct step *step;
    struct kv *kv;
    struct act *qkv, *out;
    float *together, *alone; /* [rows][n_heads * DIM] */
};

/* Fills every block through the op that writes KV, as one long sequence that owns them all. */
static void fill_kv(struct world *w, struct rng *rng)
{
    struct step_capacity capacity = {.rows = TOKENS, .seqs = 1, .blocks_per_seq = BLOCKS, .kv_groups = 1};
    struct step *step;
    struct rope *rope;
    struct act *act;
    float inv_freq[DIM / 2], *row = mem_alloc_array(w->width, sizeof(float));
    for (int i = 0; i < DIM / 2; i++)
        inv_freq[i] = powf(10000.0f, -2.0f * (float)i / DIM);
    OK(w->ops->step_create(w->backend, &capacity, &step));
    OK(w->ops->rope_create(w->backend, inv_freq, DIM / 2, 1.0f, TOKENS, &rope));
    OK(w->ops->act_create(w->backend, ACT_HIDDEN, TOKENS, w->width, &act));
    for (uint32_t i = 0; i < TOKENS; i++) {
        for (size_t j = 0; j < w->width; j++)
            row[j] = rng_normal(rng);
        w->ops->act_write(act, i, 1, row);
        step->rows[i] = (struct step_row){.position = i};
    }
    for (uint32_t i = 0; i < BLOCKS; i++)
        step_block_table(step, 0, 0)[i] = i;
    step->n_rows = TOKENS;
    step->n_seqs = 1;
    step->seqs[0] = (struct step_seq){0, TOKENS, TOKENS, STEP_NO_SLOT, STEP_NO_SLOT};
    w->ops->rope_kv_write(w->backend, step, act, &w->shape, NULL, NULL, 1e-6f, rope, ROPE_HALVES, w->kv);
    w->ops->act_destroy(act);
    w->ops->rope_destroy(rope);
    w->ops->step_destroy(w->backend, step);
    mem_free(row);
}

/* rng NULL: with KV of zeros. isa: a level's name, or "tiles" for the arithmetic of tiles on whatever there
 * is. */
static struct world sized_world_open(struct rng *rng, struct qkv_shape shape, enum kv_dtype dtype,
                                     const char *isa, int n_threads, uint32_t n_seqs)
{
    struct world w = {.shape = shape,
                      .width = (size_t)(shape.n_heads + 2 * shape.n_kv_heads) * DIM,
                      .seq_blocks = n_seqs < BLOCKS ? BLOCKS / n_seqs : 1};
    const uint32_t rows = n_seqs > ROWS ? n_seqs : ROWS;
    if (strcmp(isa, "tiles") == 0)
        OK(cpu_backend_create(n_threads, isa_detect(), ARITHMETIC_TILES, &w.backend));
    else
        OK(backend_cpu_create(n_threads, isa, &w.backend));
    w.ops = w.backend->vtable;
    struct step_capacity capacity = {.rows = rows,
                                     .seqs = n_seqs,
                                     .outputs = 1,
                                     .copies = 1,
                                     .blocks_per_seq = w.seq_blocks,
                                     .kv_groups = 1};
    struct kv_desc desc = {dtype, BLOCKS, KV_BLOCK_TOKENS, shape.n_kv_heads, DIM, 0};
    OK(w.ops->reserve(w.backend, &(struct backend_needs){.step = capacity, .qkv = shape}, 0));
    OK(w.ops->step_create(w.backend, &capacity, &w.step));
    OK(w.ops->kv_create(w.backend, &desc, &w.kv));
    OK(w.ops->act_create(w.backend, ACT_HIDDEN, rows, w.width, &w.qkv));
    OK(w.ops->act_create(w.backend, ACT_HIDDEN, rows, shape.n_heads * DIM, &w.out));
    w.together = mem_alloc_array((size_t)rows * shape.n_heads * DIM, sizeof(float));
    w.alone = mem_alloc_array((size_t)rows * shape.n_heads * DIM, sizeof(float));
    assert_true(w.together != NULL && w.alone != NULL);
    if (rng != NULL)
        fill_kv(&w, rng);
    return w;
}

static struct world world_open(struct rng *rng, struct qkv_shape shape, enum kv_dtype dtype, const char *isa,
                               int n_threads)
{
    return sized_world_open(rng, shape, dtype, isa, n_threads, SEQS);
}

static struct world long_world_open(struct rng *rng, struct qkv_shape shape, enum kv_dtype dtype,
                                    const char *isa, int n_threads)
{
    return sized_world_open(rng, shape, dtype, isa, n_threads, LONG_SEQS);
}

static void world_close(struct world *w)
{
    w->ops->act_destroy(w->qkv);
    w->ops->act_destroy(w->out);
    w->ops->kv_destroy(w->kv);
    w->ops->step_destroy(w->backend, w->step);
    w->ops->destroy(w->backend);
    mem_free(w->together);
    mem_free(w->alone);
}

/* A sequence that begins with n_shared blocks of another one. */
static void add_seq(struct world *w, uint32_t like, uint32_t n_shared, uint32_t n_context, uint32_t n_rows)
{
    struct step *step = w->step;
    uint32_t s = step->n_seqs++, *table = step_block_table(step, 0, s);
    for (uint32_t b = 0; b < w->seq_blocks; b++)
        table[b] = b < n_shared ? step_block_table(step, 0, like)[b]
                                : (s * 7 + b * 11) % (BLOCKS / w->seq_blocks) * w->seq_blocks + b;
    step->seqs[s] = (struct step_seq){step->n_rows, n_rows, n_context, STEP_NO_SLOT, STEP_NO_SLOT};
    for (uint32_t r = 0; r < n_rows; r++)
        step->rows[step->n_rows++] = (struct step_row){.position = n_context - n_rows + r, .seq = s};
}

static void fill_rows(struct world *w, struct rng *rng)
{
    float *row = mem_alloc_array(w->width, sizeof(float));
    for (uint32_t r = 0; r < w->step->n_rows; r++) {
        for (size_t i = 0; i < w->width; i++)
            row[i] = 2 * rng_normal(rng);
        w->ops->act_write(w->qkv, r, 1, row);
    }
    mem_free(row);
}

static uint64_t run(struct world *w, const struct attention_params *params, bool shares, float *out)
{
    uint64_t before = cpu_of(w->backend)->blocks_spared, allocated = mem_alloc_count();
    for (uint32_t r = 0; r < w->step->n_rows; r++) /* of what is left out nothing remains from before */
        memset(act_row(w->out, r), 0xff, (size_t)w->shape.n_heads * DIM * sizeof(float));
    if (shares)
        assert_true(w->ops->forward_begin(w->backend, w->step));
    w->ops->attention(w->backend, w->step, w->qkv, params, w->kv, w->out);
    if (shares)
        w->ops->forward_end(w->backend, w->step);
    assert_int_equal(mem_alloc_count(), allocated);
    w->ops->act_read(w->out, 0, w->step->n_rows, out);
    return cpu_of(w->backend)->blocks_spared - before;
}

/* Both ways, the same bits. Returns the reads of a block that were spared. */
static uint64_t compare(struct world *w, uint32_t window, float soft_cap)
{
    struct attention_params params = {
        .shape = w->shape, .scale = 0.2f, .window = window, .soft_cap = soft_cap};
    assert_int_equal(run(w, &params, false, w->alone), 0);
    uint64_t spared = run(w, &params, true, w->together);
    size_t n = (size_t)w->step->n_rows * w->shape.n_heads * DIM;
    assert_true(isfinite(w->alone[n - 1]));
    assert_memory_equal(w->alone, w->together, n * sizeof(float));
    return spared;
}

/* Trees of prefixes of every shape, among them prompts that are computed in the same step. */
static void test_random_trees(void **state)
{
    (void)state;
    static const struct qkv_shape shapes[] = {
        {4, 1, DIM}, {6, 2, DIM}, {3, 3, DIM}, {40, 2, DIM}, {8, 2, DIM}};
    static const enum kv_dtype dtypes[] = {KV_BF16, KV_INT8, KV_F32};
    static const char *const levels[] = {"auto", "auto", "avx2", "scalar"};
    struct rng rng = rng_make(21);
    uint64_t spared = 0;
    for (int round = 0; round < 12; round++) {
        struct world w =
            world_open(&rng, shapes[round % 5], dtypes[round % 3], levels[round % 4], 1 + round % 3);
        for (int turn = 0; turn < TREES; turn++) {
            w.step->n_rows = w.step->n_seqs = 0;
            uint32_t n_seqs = 1 + rng_below(&rng, SEQS);
            for (uint32_t s = 0; s < n_seqs; s++) {
                uint32_t n_context = 1 + rng_below(&rng, SEQ_BLOCKS * KV_BLOCK_TOKENS);
                uint32_t n_rows = rng_below(&rng, 4) > 0 ? 1 : 1 + rng_below(&rng, CHUNK_ROWS);
                add_seq(&w, s == 0 ? 0 : rng_below(&rng, s),
                        rng_below(&rng, 3) ? rng_below(&rng, SEQ_BLOCKS) : 0, n_context,
                        n_rows < n_context ? n_rows : n_context);
            }
            fill_rows(&w, &rng);
            spared +=
                compare(&w, rng_below(&rng, 2) ? 0 : 1 + rng_below(&rng, 60), rng_below(&rng, 2) ? 0 : 4.0f);
        }
        world_close(&w);
    }
    assert_true(spared > 25 * TREES);
}

/* 16 sequences over the same six blocks, by 4 query heads: four in a team, which spare three reads each. Of
 * tiles, which take twice as many queries: eight, which spare seven. */
static void test_teams(void **state)
{
    (void)state;
    struct rng rng = rng_make(22);
    struct world w = world_open(&rng, (struct qkv_shape){16, 4, DIM}, KV_BF16, "auto", 1);
    for (uint32_t s = 0; s < 16; s++)
        add_seq(&w, 0, 6, 6 * KV_BLOCK_TOKENS + 1 + s, 1);
    fill_rows(&w, &rng);
    const bool tiles = cpu_of(w.backend)->table.arithmetic == ARITHMETIC_TILES;
    assert_int_equal(compare(&w, 0, 0), tiles ? 2 * 7 * 6 : 4 * 3 * 6);
    /* One that shares less stays out of the others' team; a block that is not whole is not shared. */
    w.step->n_rows = w.step->n_seqs = 0;
    add_seq(&w, 0, 0, 6 * KV_BLOCK_TOKENS + 1, 1);
    add_seq(&w, 0, 6, 5 * KV_BLOCK_TOKENS + 15, 1);
    add_seq(&w, 0, 1, 6 * KV_BLOCK_TOKENS + 1, 1);
    fill_rows(&w, &rng);
    assert_int_equal(compare(&w, 0, 0), 5);
    /* Nothing in common. */
    w.step->n_rows = w.step->n_seqs = 0;
    for (uint32_t s = 0; s < 5; s++)
        add_seq(&w, 0, 0, 100, 1);
    fill_rows(&w, &rng);
    assert_int_equal(compare(&w, 0, 0), 0);
    world_close(&w);
}

/* Few that share, for many threads: teams of four would leave some without work, and so would those of two.
 */
static void test_teams_do_not_cost_threads(void **state)
{
    (void)state;
    for (int n_threads = 1; n_threads <= 2; n_threads++) {
        struct rng rng = rng_make(23);
        struct world w = world_open(&rng, (struct qkv_shape){4, 1, DIM}, KV_BF16, "scalar", n_threads);
        for (uint32_t s = 0; s < 8; s++)
            add_seq(&w, 0, 6, 6 * KV_BLOCK_TOKENS + 1 + s, 1);
        fill_rows(&w, &rng);
        assert_int_equal(compare(&w, 0, 0), n_threads == 1 ? 4 * 6 : 0);
        world_close(&w);
    }
}

/* More sequences than are looked at: those behind read for themselves. */
static void test_sharers_have_a_limit(void **state)
{
    (void)state;
    enum { MORE = CPU_SHARERS_MAX + 3 };
    struct rng rng = rng_make(24);
    struct world w = sized_world_open(&rng, (struct qkv_shape){1, 1, DIM}, KV_BF16, "scalar", 1, MORE);
    for (uint32_t s = 0; s < MORE; s++)
        add_seq(&w, 0, 1, KV_BLOCK_TOKENS, 1);
    fill_rows(&w, &rng);
    assert_int_equal(compare(&w, 0, 0), CPU_SHARERS_MAX - CPU_SHARERS_MAX / ATTENTION_QUERIES_MAX);
    world_close(&w);
}

/* Long contexts are cut at their chunks where threads outnumber the units: teams, sequences by themselves,
 * windows. The bits are those of one thread, which cuts nothing. */
static void test_cuts(void **state)
{
    (void)state;
    static const struct qkv_shape shapes[] = {{4, 1, DIM}, {6, 2, DIM}, {20, 1, DIM}};
    static const enum kv_dtype dtypes[] = {KV_BF16, KV_INT8, KV_F32};
    for (uint64_t round = 0; round < 3; round++) {
        struct rng fill = rng_make(30 + round), again = fill, rng = rng_make(60 + round);
        const struct qkv_shape *shape = &shapes[round % 3];
        const char *isa = round == 2 ? "avx2" : "auto";
        struct world one = long_world_open(&fill, *shape, dtypes[round % 3], isa, 1);
        struct world many = long_world_open(&again, *shape, dtypes[round % 3], isa, 3 + (int)round % 2);
        struct attention_params params = {.shape = *shape, .scale = 0.2f};
        for (int turn = 0; turn < 6; turn++) {
            params.window = turn % 2 == 0 ? 0 : 300 + rng_below(&rng, 200);
            uint32_t n_seqs = 1 + rng_below(&rng, 3), n_rows = turn < 4 ? 1 : 5;
            uint32_t n_context = LONG_MIN_TOKENS + rng_below(&rng, LONG_TOKENS - LONG_MIN_TOKENS);
            uint32_t n_shared = rng_below(&rng, LONG_MIN_TOKENS / KV_BLOCK_TOKENS);
            struct rng rows = rng;
            for (int i = 0; i < 2; i++) {
                struct world *w = i == 0 ? &one : &many;
                w->step->n_rows = w->step->n_seqs = 0;
                for (uint32_t s = 0; s < n_seqs; s++)
                    add_seq(w, 0, s == 0 ? 0 : n_shared, n_context - 7 * s, n_rows);
                rng = rows;
                fill_rows(w, &rng);
            }
            run(&one, &params, true, one.together);
            run(&many, &params, true, many.together);
            size_t n = (size_t)n_seqs * n_rows * shape->n_heads * DIM;
            assert_true(isfinite(one.together[n - 1]));
            assert_memory_equal(one.together, many.together, n * sizeof(float));
        }
        assert_int_equal(cpu_of(one.backend)->dispatches[KERNEL_attention_merge], 0);
        assert_true(cpu_of(many.backend)->dispatches[KERNEL_attention_merge] >= 4);
        world_close(&one);
        world_close(&many);
    }
}

/* Whose partial results have no room: it is one piece, with the same bits. */
static void test_cut_without_room(void **state)
{
    (void)state;
    struct rng fill = rng_make(40), again = fill, rng = rng_make(41);
    struct qkv_shape shape = {8, 1, DIM};
    struct attention_params params = {.shape = shape, .scale = 0.2f};
    struct world w[2] = {long_world_open(&fill, shape, KV_BF16, "auto", 1),
                         long_world_open(&again, shape, KV_BF16, "auto", 2)};
    cpu_of(w[1].backend)->partials_floats = 8 * attention_partial_floats(DIM) * 3 - 1; /* for three chunks */
    for (int i = 0; i < 2; i++) {
        add_seq(&w[i], 0, 0, 2 * ATTENTION_CHUNK_TOKENS + 1, 1);
        rng = rng_make(42);
        fill_rows(&w[i], &rng);
        run(&w[i], &params, true, w[i].together);
    }
    assert_memory_equal(w[0].together, w[1].together, (size_t)shape.n_heads * DIM * sizeof(float));
    assert_int_equal(cpu_of(w[1].backend)->dispatches[KERNEL_attention_merge], 0);
    cpu_of(w[1].backend)->partials_floats++;
    run(&w[1], &params, true, w[1].together);
    assert_memory_equal(w[0].together, w[1].together, (size_t)shape.n_heads * DIM * sizeof(float));
    assert_int_equal(cpu_of(w[1].backend)->dispatches[KERNEL_attention_merge], 1);
    world_close(&w[0]);
    world_close(&w[1]);
}

/* A value that is infinite reaches the rows that see it, and changes no bit of those before it, though a tile
 * multiplies it by their zeros. */
static void test_infinite_value(void **state)
{
    (void)state;
    enum { AT = 5, LONG = 10 };
    static const enum kv_dtype dtypes[] = {KV_BF16, KV_INT8};
    static const float still = 0;
    for (size_t i = 0; i < 2; i++) {
        struct rng rng = rng_make(50);
        struct world w = world_open(&rng, (struct qkv_shape){2, 1, DIM}, dtypes[i], "tiles", 1);
        struct attention_params params = {.shape = w.shape, .scale = 0.2f};
        const size_t width = (size_t)w.shape.n_heads * DIM;
        struct rope *rope;
        OK(w.ops->rope_create(w.backend, &still, 1, 1.0f, AT + 1, &rope));
        add_seq(&w, 0, 0, AT + 1, 1);
        fill_rows(&w, &rng);
        act_row(w.qkv, 0)[w.width - 1] = INFINITY;
        w.ops->rope_kv_write(w.backend, w.step, w.qkv, &w.shape, NULL, NULL, 1e-6f, rope, ROPE_HALVES, w.kv);
        w.step->n_rows = w.step->n_seqs = 0;
        add_seq(&w, 0, 0, LONG, LONG);
        fill_rows(&w, &rng);
        run(&w, &params, false, w.together);
        w.step->seqs[0].n_rows = w.step->n_rows = AT;
        run(&w, &params, false, w.alone);
        assert_memory_equal(w.together, w.alone, AT * width * sizeof(float));
        for (size_t j = 0; j < LONG * width; j++)
            assert_int_equal(isnan(w.together[j]), j >= AT * width);
        w.ops->rope_destroy(rope);
        world_close(&w);
    }
}

static struct {
    uint32_t n_calls, n_turns;             /* n_turns: calls of another KV head than the one before */
    uint32_t n_queries, n_shared, kv_head; /* of the last one */
} noted;

static void note_attention(const struct attention_args *a)
{
    noted.n_turns += noted.n_calls++ == 0 || a->kv_head != noted.kv_head;
    noted.n_queries = a->n_queries;
    noted.n_shared = a->n_shared;
    noted.kv_head = a->kv_head;
}

static void assert_calls(struct world *w, uint32_t n_calls, uint32_t n_turns, uint32_t n_queries,
                         uint32_t n_shared)
{
    struct attention_params params = {.shape = w->shape, .scale = 0.2f};
    memset(&noted, 0, sizeof noted);
    run(w, &params, true, w->together);
    assert_int_equal(noted.n_calls, n_calls);
    assert_int_equal(noted.n_queries, n_queries);
    assert_int_equal(noted.n_shared, n_shared);
    assert_int_equal(noted.n_turns, n_turns);
    w->step->n_rows = w->step->n_seqs = 0;
}

/* The query heads of a KV head go together, and so do as many rows, or sequences behind one prefix, as a call
 * has queries for: K and V are read once for all of them. Teams take turns at one KV head, whose prefix is
 * then in the cache. */
static void test_calls(void **state)
{
    (void)state;
    for (int tiles = 0; tiles < 2; tiles++) {
        struct world w =
            world_open(NULL, (struct qkv_shape){32, 8, DIM}, KV_BF16, tiles ? "tiles" : "scalar", 1);
        struct kernel_table *table = &cpu_of(w.backend)->table;
        *(tiles ? &table->attention_tile_bf16 : &table->attention_bf16) = note_attention;
        add_seq(&w, 0, 0, 100, 1);
        assert_calls(&w, 8, 8, 4, 0);
        add_seq(&w, 0, 0, 100, 8);
        assert_calls(&w, tiles ? 8 : 16, tiles ? 8 : 16, tiles ? 32 : 16, 0);
        for (uint32_t s = 0; s < 16; s++)
            add_seq(&w, 0, 6, 6 * KV_BLOCK_TOKENS + 1, 1);
        assert_calls(&w, tiles ? 16 : 32, 8, tiles ? 32 : 16, 6);
        world_close(&w);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_random_trees),
                                       cmocka_unit_test(test_teams),
                                       cmocka_unit_test(test_teams_do_not_cost_threads),
                                       cmocka_unit_test(test_sharers_have_a_limit),
                                       cmocka_unit_test(test_cuts),
                                       cmocka_unit_test(test_cut_without_room),
                                       cmocka_unit_test(test_infinite_value),
                                       cmocka_unit_test(test_calls)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
