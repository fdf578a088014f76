/* Tensor parallelism: the split of a model over ranks, and that its bits do not depend on the step. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <cmocka.h>
#include "base/philox.h"
#include "model/model_internal.h"
#include "tests/model/model_driver.h"

enum { PROMPT = 40, N_SEQS = 3 };

static struct model_options options_of(const char *name, uint32_t n_ranks)
{
    static char directory[4096];
    snprintf(directory, sizeof directory, "%s/parity/checkpoints/%s", TEST_DATA_DIR, name);
    struct model_options options = driver_options(directory, N_SEQS, 64);
    options.n_ranks = n_ranks;
    return options;
}

/* ---- The split ---- */

static const struct model_config eight_heads = {.n_heads = 8,
                                                .n_kv_heads = 2,
                                                .head_dim = 16,
                                                .intermediate_size = 96,
                                                .hidden_size = 128,
                                                .vocab_size = 97};

/* Every head, MLP value and token is on exactly one rank; KV heads at least on one. */
static void split_covers_everything(void **state)
{
    (void)state;
    for (uint32_t n = 1; n <= 8; n *= 2) {
        uint32_t heads = 0, mlp = 0, tokens = 0;
        for (uint32_t rank = 0; rank < n; rank++) {
            struct shard shard;
            assert_int_equal(shard_make(&eight_heads, n, rank, &shard).code, ERR_OK);
            assert_int_equal(shard.first_head, heads);
            assert_int_equal(shard.first_mlp, mlp);
            assert_int_equal(shard.first_token, tokens);
            heads += shard.n_heads;
            mlp += shard.mlp_width;
            tokens += shard.n_tokens;
            /* The KV heads of its query heads are there. */
            uint32_t per_kv = eight_heads.n_heads / eight_heads.n_kv_heads;
            assert_int_equal(shard.first_kv_head, shard.first_head / per_kv);
            assert_int_equal(shard.first_kv_head + shard.n_kv_heads - 1, (heads - 1) / per_kv);
        }
        assert_int_equal(heads, eight_heads.n_heads);
        assert_int_equal(mlp, eight_heads.intermediate_size);
        assert_int_equal(tokens, eight_heads.vocab_size);
    }
}

static void assert_refused(const struct model_config *config, uint32_t n_ranks, const char *what)
{
    struct shard shard;
    err_t e = shard_make(config, n_ranks, 0, &shard);
    assert_int_equal(e.code, ERR_INVALID_ARGUMENT);
    if (!strstr(e.message, what))
        fail_msg("\"%s\" lacks \"%s\"", e.message, what);
}

static void impossible_splits_are_refused(void **state)
{
    (void)state;
    assert_refused(&eight_heads, 3, "8 attention heads");
    assert_refused(&eight_heads, 16, "limit of 8");
    struct model_config config = eight_heads;
    config.intermediate_size = 99;
    assert_refused(&config, 2, "99 values of the MLP");
    config = eight_heads;
    config.n_heads = 12;
    config.n_kv_heads = 6;
    assert_refused(&config, 4, "6 key-value heads");
    struct model_options options = options_of("llama-gqa", 3);
    struct model *model = NULL;
    err_t e = model_load(&options, NULL, &model);
    assert_int_equal(e.code, ERR_INVALID_ARGUMENT);
    assert_null(model);
}

/* A rank's inputs are split between groups of a quantised weight, not within one. */
static void quantised_columns_are_checked(void **state)
{
    (void)state;
    struct model_options options = options_of("llama-head-dim-linear-rope", 4); /* MLP: 16 values a rank */
    options.quantization = MODEL_QUANT_INT8;
    struct model *model = NULL;
    err_t e = model_load(&options, NULL, &model);
    assert_int_equal(e.code, ERR_INVALID_ARGUMENT);
    assert_non_null(strstr(e.message, "of a rank"));
}

/* ---- The same bits ---- */

static uint32_t prompts[N_SEQS][PROMPT];
static float alone[N_SEQS][PROMPT];

static void fill_prompts(uint32_t vocab_size)
{
    struct rng rng = rng_make(7);
    for (int s = 0; s < N_SEQS; s++) {
        for (int i = 0; i < PROMPT; i++)
            prompts[s][i] = rng_below(&rng, vocab_size);
    }
}

/* Log-probabilities of the rows [first, first + n) of some sequences in one step, into or against `alone`. */
static void run_rows(struct driver *driver, uint32_t first_seq, uint32_t n_seqs, uint32_t first, uint32_t n,
                     bool compare)
{
    driver_begin(driver);
    for (uint32_t s = first_seq; s < first_seq + n_seqs; s++) {
        uint32_t row = driver_add(driver, s, prompts[s], first, n);
        for (uint32_t i = 0; i < n && first + i + 1 < PROMPT; i++)
            driver_want(driver, row + i, STEP_OUTPUT_LOGPROBS, prompts[s][first + i + 1], 0);
    }
    driver_run(driver);
    uint32_t output = 0;
    for (uint32_t s = first_seq; s < first_seq + n_seqs; s++) {
        for (uint32_t i = 0; i < n && first + i + 1 < PROMPT; i++) {
            float logprob = driver_result(driver, output++)->chosen.logprob;
            if (compare)
                assert_memory_equal(&logprob, &alone[s][first + i], sizeof logprob);
            alone[s][first + i] = logprob;
        }
    }
}

static void bits_do_not_depend_on_the_step(void **state)
{
    (void)state;
    static const struct {
        const char *name;
        uint32_t n_ranks;
        enum model_quantization quantization;
    } models[] = {{"llama-mha-sharded", 4, MODEL_QUANT_NONE},
                  {"llama-head-dim-linear-rope", 2, MODEL_QUANT_INT8}};
    for (size_t i = 0; i < sizeof models / sizeof models[0]; i++) {
        struct model_options options = options_of(models[i].name, models[i].n_ranks);
        options.quantization = models[i].quantization;
        struct driver driver = driver_open(&options);
        assert_int_equal(driver.model->n_ranks, models[i].n_ranks);
        fill_prompts(driver.model->config.vocab_size);
        for (uint32_t s = 0; s < N_SEQS; s++)
            run_rows(&driver, s, 1, 0, PROMPT, false);
        for (uint32_t p = 0; p < PROMPT; p++) /* one row of each a step */
            run_rows(&driver, 0, N_SEQS, p, 1, true);
        for (uint32_t p = 0; p < PROMPT; p += 8)
            run_rows(&driver, 0, N_SEQS, p, 8, true);
        driver_close(&driver);
    }
}

/* A model has so many steps; one that was given back makes room for another. */
static void steps_are_counted(void **state)
{
    (void)state;
    struct model_options options = options_of("llama-gqa", 2);
    if (driver_device())
        skip(); /* has fewer than the model could name */
    struct driver driver = driver_open(&options);
    struct step *steps[MODEL_STEPS_MAX] = {0};
    for (int i = 1; i < MODEL_STEPS_MAX; i++)
        assert_int_equal(model_step_create(driver.model, &steps[i]).code, ERR_OK);
    assert_int_equal(model_step_create(driver.model, &steps[0]).code, ERR_RESOURCE_EXHAUSTED);
    model_step_destroy(driver.model, steps[1]);
    assert_int_equal(model_step_create(driver.model, &steps[1]).code, ERR_OK);
    for (int i = 1; i < MODEL_STEPS_MAX; i++)
        model_step_destroy(driver.model, steps[i]);
    driver_close(&driver);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(split_covers_everything),
        cmocka_unit_test(impossible_splits_are_refused),
        cmocka_unit_test(quantised_columns_are_checked),
        cmocka_unit_test(bits_do_not_depend_on_the_step),
        cmocka_unit_test(steps_are_counted),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
