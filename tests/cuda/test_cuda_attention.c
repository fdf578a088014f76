/* Attention on tensor cores, in the emulator: against the CPU's reference within a bound, and against itself
 * bit for bit: however the rows of a sequence are cut into steps, beside whomever, by whatever list of work.
 */
#include "tests/cuda/attention_world.h"

#include <math.h>
#include <stdio.h>
#include <string.h>
#include "base/alloc.h"
#include "base/checked.h"
#include "base/float16.h"
#include "base/philox.h"
#include "kernels/kernel_table.h"

/* ---- The reference ---- */

/* Rows within a rounding of p and one of the output of what the CPU computes: errors relative to the sum of
 * |p v|. */
static void check_rows(const struct world *w, uint32_t seq, uint32_t first, uint32_t n, const uint16_t *out)
{
    const struct shape *shape = &w->shape;
    uint32_t d = shape->head_dim, group = shape->n_heads / shape->n_kv_heads;
    float q[HEAD_DIM_MAX], want[HEAD_DIM_MAX], magnitude[HEAD_DIM_MAX], *scratch = mem_alloc(1 << 16);
    for (uint32_t i = 0; i < n * shape->n_heads; i++) {
        uint32_t position = first + i / shape->n_heads, head = i % shape->n_heads;
        size_t at = (((size_t)seq * POSITIONS_MAX + position) * shape->n_heads + head) * d;
        for (uint32_t j = 0; j < d; j++)
            q[j] = bf16_to_f32(w->q[at + j]);
        struct attention_query query = {
            .q = q,
            .out = want,
            .block_table = w->tables[seq],
            .first = shape->window > 0 && position >= shape->window ? position - shape->window + 1 : 0,
            .last = position};
        struct attention_args args = {.kv = w->cpu_kv,
                                      .kv_head = head / group,
                                      .n_kv_heads = shape->n_kv_heads,
                                      .head_dim = d,
                                      .scale = 1.0f / sqrtf((float)d),
                                      .soft_cap = shape->soft_cap,
                                      .queries = &query,
                                      .n_queries = 1,
                                      .scratch = scratch};
        attention_f32_ref(&args);
        query.out = magnitude;
        args.kv = w->cpu_magnitudes;
        attention_f32_ref(&args);
        for (uint32_t j = 0; j < d; j++) {
            float got = bf16_to_f32(out[(size_t)i * d + j]), bound = magnitude[j] * (1.0f / 128) + 1e-6f;
            if (!(fabsf(got - want[j]) <= bound))
                fail_msg("position %u, head %u, element %u: %g, the reference has %g +- %g", position, head,
                         j, (double)got, (double)want[j], (double)bound);
        }
    }
    mem_free(scratch);
}

static const struct run_options plain = {.n_partials = 512, .shares_prefixes = true};

/* Sequences of every length that could matter, all in one step: one row each, and the longest with a chunk.
 */
static void check_shape(const struct shape *shape, uint64_t seed)
{
    static const uint32_t contexts[] = {1, 15, 16, 17, 255, 256, 257, 900};
    enum { N = sizeof contexts / sizeof *contexts, CHUNK = 17, STRIDE = 8 };
    struct world w;
    world_create(&w, shape, N, contexts, NULL, seed);
    uint32_t width = width_of(shape);
    uint16_t *out = mem_alloc((size_t)(N + CHUNK) * width * 2);
    struct rows rows[N];
    for (uint32_t s = 0; s < N; s++)
        rows[s] = (struct rows){s, contexts[s] - 1, 1};
    rows[N - 1] = (struct rows){N - 1, contexts[N - 1] - CHUNK, CHUNK};
    attention_run(&w, rows, N, &plain, out);
    for (uint32_t s = 0; s < N; s++) {
        for (uint32_t i = 0; i < rows[s].n; i += STRIDE)
            check_rows(&w, s, rows[s].first + i, 1, out + (size_t)(s + i) * width);
    }
    mem_free(out);
    world_destroy(&w);
}

static void test_against_reference(void **state)
{
    (void)state;
    static const uint32_t dims[] = {64, 96, 128, 256}, ratios[] = {1, 4, 8};
    for (uint32_t i = 0; i < 4 * 2 * 2; i++) {
        struct shape shape = {
            .n_kv_heads = 1 + i % 2, .head_dim = dims[i / 4], .element_bytes = i / 2 % 2 ? 2 : 1};
        shape.n_heads = shape.n_kv_heads * ratios[i % 3];
        shape.window = i % 4 == 1 ? 300 : i % 4 == 2 ? 5 : 0;
        shape.soft_cap = i % 5 == 1 ? 3.0f : 0;
        check_shape(&shape, 1 + i);
    }
}

/* ---- Bit for bit ---- */

/* Rows [first, first + n) of a sequence, each in a step of its own. */
static void run_alone(const struct world *w, struct rows rows, const struct run_options *options,
                      uint16_t *out)
{
    for (uint32_t i = 0; i < rows.n; i++) {
        struct rows one = {rows.seq, rows.first + i, 1};
        attention_run(w, &one, 1, options, out + (size_t)i * width_of(&w->shape));
    }
}

static void assert_same_rows(const struct world *w, const uint16_t *want, const uint16_t *got, uint32_t n,
                             uint32_t first, const char *what)
{
    uint32_t width = width_of(&w->shape);
    for (uint32_t i = 0; i < n * width; i++) {
        if (want[i] != got[i])
            fail_msg("%s: position %u, value %u is %04x, alone %04x", what, first + i / width, i % width,
                     got[i], want[i]);
    }
}

/* Stretches of positions around what could matter: blocks, tiles, splits, the end. */
static const struct rows stretches[] = {{0, 0, 2},   {0, 15, 2},  {0, 63, 2}, {0, 254, 3},
                                        {0, 319, 2}, {0, 511, 2}, {0, 558, 2}};
enum { N_STRETCHES = sizeof stretches / sizeof *stretches, CUT_CONTEXT = 560, ALONE_ROWS = 32 };

/* The whole sequence in chunks of `chunk` rows, some rows of another sequence beside each; out:
 * [CUT_CONTEXT][width].
 */
static void run_in_chunks(const struct world *w, uint32_t chunk, const struct run_options *options,
                          uint16_t *out)
{
    uint32_t width = width_of(&w->shape);
    uint16_t *step_out = mem_alloc((size_t)ROWS_MAX * width * 2);
    for (uint32_t first = 0; first < CUT_CONTEXT; first += chunk) {
        uint32_t n = CUT_CONTEXT - first < chunk ? CUT_CONTEXT - first : chunk;
        struct rows rows[] = {{1, first / 3, 1 + chunk % 5}, {0, first, n}, {2, 299, 1}};
        attention_run(w, rows, 3, options, step_out);
        memcpy(out + (size_t)first * width, step_out + (size_t)rows[0].n * width, (size_t)n * width * 2);
    }
    mem_free(step_out);
}

static void check_cuts(const struct shape *shape, uint64_t seed)
{
    static const uint32_t contexts[] = {CUT_CONTEXT, 200, 300}, chunks[] = {512, 64, 16};
    static const struct run_options options[] = {
        {.n_partials = 0, .emulator_seed = 5},
        {.n_partials = 4096, .blocks_wanted = 1000, .emulator_seed = 6, .emulator_threads = 2, .n_blocks = 3},
        {.n_partials = 40, .blocks_wanted = 1000, .emulator_seed = 7, .n_blocks = 5},
    };
    struct world w;
    world_create(&w, shape, 3, contexts, NULL, seed);
    uint32_t width = width_of(shape);
    uint16_t *alone = mem_alloc((size_t)ALONE_ROWS * width * 2),
             *out = mem_alloc((size_t)CUT_CONTEXT * width * 2);
    for (uint32_t i = 0, at = 0; i < N_STRETCHES; at += stretches[i++].n)
        run_alone(&w, stretches[i], &plain, alone + (size_t)at * width);
    for (uint32_t c = 0; c < 3; c++) {
        run_in_chunks(&w, chunks[c], &options[c], out);
        char what[64];
        snprintf(what, sizeof what, "head_dim %u, chunks of %u", shape->head_dim, chunks[c]);
        for (uint32_t i = 0, at = 0; i < N_STRETCHES; at += stretches[i++].n)
            assert_same_rows(&w, alone + (size_t)at * width, out + (size_t)stretches[i].first * width,
                             stretches[i].n, stretches[i].first, what);
    }
    check_rows(&w, 0, CUT_CONTEXT - 2, 2, out + (size_t)(CUT_CONTEXT - 2) * width);
    mem_free(alone), mem_free(out);
    world_destroy(&w);
}

/* A row has the same bits alone and in any chunk of its sequence. */
static void test_any_cut(void **state)
{
    (void)state;
    check_cuts(&(struct shape){.n_heads = 4, .n_kv_heads = 1, .head_dim = 128, .element_bytes = 2}, 11);
    check_cuts(
        &(struct shape){.n_heads = 3, .n_kv_heads = 1, .head_dim = 64, .element_bytes = 1, .window = 290},
        12);
    check_cuts(
        &(struct shape){.n_heads = 1, .n_kv_heads = 1, .head_dim = 96, .element_bytes = 2, .soft_cap = 2},
        13);
    check_cuts(
        &(struct shape){.n_heads = 2, .n_kv_heads = 1, .head_dim = 256, .element_bytes = 2, .window = 64},
        14);
    check_cuts(&(struct shape){.n_heads = 5, .n_kv_heads = 1, .head_dim = 128, .element_bytes = 1}, 15);
    check_cuts(&(struct shape){.n_heads = 2, .n_kv_heads = 1, .head_dim = 256, .element_bytes = 1}, 16);
}

/* Sequences that share prefixes of several lengths give what they give alone, and the shared keys are read
 * once. */
static void test_shared_prefixes(void **state)
{
    (void)state;
    enum { N = 12 };
    static const uint32_t n_shared[N] = {0, 37, 37, 16, 20, 0, 37, 35, 35, 15, 37, 32};
    uint32_t contexts[N];
    struct rows rows[N];
    for (uint32_t s = 0; s < N; s++) {
        contexts[s] = 598 + s;
        rows[s] = (struct rows){s, contexts[s] - 1 - s % 2, 1 + s % 2};
    }
    static const struct shape shapes[] = {
        {.n_heads = 8, .n_kv_heads = 2, .head_dim = 128, .element_bytes = 2},
        {.n_heads = 3, .n_kv_heads = 1, .head_dim = 64, .element_bytes = 1, .window = 500},
        {.n_heads = 8, .n_kv_heads = 1, .head_dim = 256, .element_bytes = 2},
    };
    for (uint32_t i = 0; i < 3; i++) {
        struct world w;
        world_create(&w, &shapes[i], N, contexts, n_shared, 20 + i);
        uint32_t width = width_of(&shapes[i]);
        uint16_t *shared = mem_alloc((size_t)ROWS_MAX * width * 2),
                 *unshared = mem_alloc((size_t)ROWS_MAX * width * 2);
        for (uint64_t seed = 0; seed < 3; seed++) {
            struct run_options options = {.n_partials = 4096,
                                          .shares_prefixes = true,
                                          .form = (enum run_form)(RUN_BLOCKS + seed),
                                          .emulator_seed = seed,
                                          .emulator_threads = 1 + seed % 2,
                                          .n_blocks = 7};
            struct attention_group with = attention_run(&w, rows, N, &options, shared);
            options.shares_prefixes = false;
            struct attention_group without = attention_run(&w, rows, N, &options, unshared);
            assert_true(with.n_large > 0 && without.n_large == 0);
            assert_true(options.form != RUN_BLOCKS || with.n_large + with.n_small + 8 < without.n_small);
            assert_same_rows(&w, unshared, shared, N + N / 2, 0, "shared prefixes");
        }
        for (uint32_t s = 0, row = 0; s < N; row += rows[s++].n) {
            uint16_t *alone = unshared;
            run_alone(&w, rows[s], &plain, alone);
            assert_same_rows(&w, alone, shared + (size_t)row * width, rows[s].n, rows[s].first,
                             "shared prefix");
        }
        mem_free(shared), mem_free(unshared);
        world_destroy(&w);
    }
}

/* ---- Plans ---- */

/* Counts how often the items reach every row and split that it sees. */
static void count_covered(const struct attention_work *work, const struct step *step,
                          uint8_t covered[ROWS_MAX][64])
{
    const struct attention_group *group = &work->groups[0];
    const uint32_t *words = (const uint32_t *)work;
    const struct attention_item *items = (const struct attention_item *)(words + group->items);
    assert_true(group->n_alone <= group->n_small &&
                (group->team == 1 || group->team == 2 || group->team == ATTENTION_TEAM));
    for (uint32_t i = 0; i < group->n_small + group->n_large; i++) {
        const struct attention_item *item = &items[i];
        assert_true(item->n_rows >= 1 &&
                    item->n_rows <= (i < group->n_small ? group->small_rows : group->large_rows));
        for (uint32_t j = 0; j < item->n_rows; j++) {
            bool listed = item->flags & ATTENTION_ITEM_LISTED;
            uint32_t row = listed ? words[group->listed_rows + item->first_row + j] : item->first_row + j;
            assert_true(row < step->n_rows && (listed || step->rows[row].seq == item->seq));
            assert_true((words[group->row_partials + row] != ATTENTION_NO_PARTIAL) ==
                        ((item->flags & ATTENTION_ITEM_PARTIAL) != 0));
            uint32_t position = step->rows[row].position;
            assert_true(position >= item->low && position <= item->high &&
                        (listed || position == item->low + j));
            if (item->flags & ATTENTION_ITEM_OLD_KEYS) {
                const struct step_seq *seq = &step->seqs[step->rows[row].seq];
                assert_true((item->first_split + item->n_splits) * CUDA_KV_SPLIT_TOKENS <=
                            seq->n_context - seq->n_rows);
            }
            if ((item->flags & ATTENTION_ITEM_PARTIAL) == 0)
                assert_true(item->first_split == 0 &&
                            item->n_splits >= attention_row_splits(step->rows[row].position));
            for (uint32_t split = item->first_split; split < item->first_split + item->n_splits; split++) {
                covered[row][split]++;
                for (uint32_t b = 0; listed && b < CUDA_KV_SPLIT_BLOCKS; b++)
                    assert_int_equal(
                        step_block_table(step, 0, item->seq)[split * CUDA_KV_SPLIT_BLOCKS + b],
                        step_block_table(step, 0, step->rows[row].seq)[split * CUDA_KV_SPLIT_BLOCKS + b]);
            }
        }
    }
}

/* Random steps whose tables share beginnings at random. */
static void random_step(struct rng *rng, struct step *step)
{
    uint32_t next_block = 0;
    step->n_rows = 0;
    step->n_seqs = 1 + rng_below(rng, SEQS_MAX);
    for (uint32_t s = 0; s < step->n_seqs; s++) {
        uint32_t n_rows = rng_below(rng, 4) > 0 ? 1 + rng_below(rng, 3) : 1 + rng_below(rng, 60);
        uint32_t first = rng_below(rng, POSITIONS_MAX - n_rows);
        step->seqs[s] =
            (struct step_seq){.first_row = step->n_rows, .n_rows = n_rows, .n_context = first + n_rows};
        for (uint32_t r = 0; r < n_rows; r++)
            step->rows[step->n_rows++] = (struct step_row){.position = first + r, .seq = s};
        uint32_t n_shared = s > 0 && rng_below(rng, 2) ? rng_below(rng, first / CUDA_KV_BLOCK_TOKENS + 1) : 0;
        const uint32_t *other = s > 0 ? step_block_table(step, 0, rng_below(rng, s)) : NULL;
        for (uint32_t b = 0; b < BLOCKS_PER_SEQ; b++)
            step_block_table(step, 0, s)[b] = b < n_shared ? other[b] : next_block++;
    }
}

static void test_plans_cover_all(void **state)
{
    (void)state;
    static uint8_t covered[ROWS_MAX][64];
    struct step_capacity capacity = {.rows = ROWS_MAX,
                                     .seqs = SEQS_MAX,
                                     .outputs = 1,
                                     .copies = 1,
                                     .blocks_per_seq = BLOCKS_PER_SEQ,
                                     .kv_groups = 1};
    struct step *step;
    assert_int_equal(step_create(&capacity, &step).code, ERR_OK);
    struct rng rng = rng_make(3);
    for (int i = 0; i < 2000; i++) {
        struct attention_limits limits = {.heads_per_kv = 1 + rng_below(&rng, 8),
                                          .n_kv_heads = 1 + rng_below(&rng, 8),
                                          .large_pairs = 32u << rng_below(&rng, 3),
                                          .n_partials = rng_below(&rng, 2) ? rng_below(&rng, 200) : 4096,
                                          .blocks_wanted = rng_below(&rng, 300),
                                          .cut_splits = rng_below(&rng, 5),
                                          .warps = rng_below(&rng, 2) * rng_below(&rng, 200),
                                          .shares_prefixes = rng_below(&rng, 4) > 0};
        random_step(&rng, step);
        struct attention_work *work = mem_alloc(attention_work_bytes(&limits, &capacity));
        assert_true(attention_plan(&limits, step, work) <= attention_work_bytes(&limits, &capacity));
        memset(covered, 0, sizeof covered);
        count_covered(work, step, covered);
        for (uint32_t r = 0; r < step->n_rows; r++) {
            for (uint32_t split = 0; split < attention_row_splits(step->rows[r].position); split++)
                assert_int_equal(covered[r][split], 1);
        }
        mem_free(work);
    }
    step_destroy(step);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_plans_cover_all),
        cmocka_unit_test(test_against_reference),
        cmocka_unit_test(test_any_cut),
        cmocka_unit_test(test_shared_prefixes),
    };
    return cmocka_run_group_tests(tests, attention_set_up, NULL);
}
