/* A model whose GGUF file has every type of blocks, mixed within the stacks: computed as codes it is near
 * what the same codes are in f32, on one rank and on two, and takes no more memory than its file. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>
#include "engine/packed_model.h"
#include "model/block_formats.h"
#include "tests/model/block_model.h"
#include "tests/model/model_driver.h"

enum { PROMPT = 40 };

static char path[BLOCK_MODEL_PATH];

static struct model_options options_of(enum model_dtype dtype, uint32_t n_ranks)
{
    struct model_options options = driver_options(path, 1, 64);
    options.device = NULL;
    options.dtype = dtype;
    options.n_ranks = n_ranks;
    return options;
}

/* The log-probability of every token of a prompt. */
static void prompt_logprobs(const struct model_options *options, double out[PROMPT])
{
    struct driver driver = driver_open(options);
    uint32_t tokens[PROMPT];
    for (uint32_t i = 0; i < PROMPT; i++)
        tokens[i] = (i * 37 + 11) % BLOCK_MODEL_VOCAB;
    driver_reset_slot(&driver, 0);
    driver_begin(&driver);
    uint32_t row = driver_add(&driver, 0, tokens, 0, PROMPT), outputs[PROMPT];
    for (uint32_t i = 0; i + 1 < PROMPT; i++)
        outputs[i] = driver_want(&driver, row + i, STEP_OUTPUT_LOGPROBS, tokens[i + 1], 0);
    driver_run(&driver);
    for (uint32_t i = 0; i + 1 < PROMPT; i++)
        out[i] = (double)driver_result(&driver, outputs[i])->chosen.logprob;
    driver_close(&driver);
}

static double mean_error(const double *got, const double *want)
{
    double sum = 0;
    for (int i = 0; i + 1 < PROMPT; i++)
        sum += fabs(got[i] - want[i]);
    return sum / (PROMPT - 1);
}

static void codes_are_near_their_values(void **state)
{
    (void)state;
    (void)block_model_write(NULL, path);
    double exact[PROMPT], one[PROMPT], two[PROMPT];
    struct model_options options = options_of(MODEL_DTYPE_F32, 1);
    prompt_logprobs(&options, exact);
    options = options_of(MODEL_DTYPE_AUTO, 1);
    prompt_logprobs(&options, one);
    options = options_of(MODEL_DTYPE_AUTO, 2); /* 384 inputs of down a rank: within a block of 256 */
    prompt_logprobs(&options, two);
    assert_true(mean_error(one, exact) > 0); /* rows in int8 */
    assert_true(mean_error(one, exact) < 0.05);
    assert_true(mean_error(two, exact) < 0.05);
    assert_int_equal(unlink(path), 0);
}

static void a_model_says_what_it_is_computed_from(void **state)
{
    (void)state;
    (void)block_model_write(NULL, path);
    const struct {
        enum model_dtype dtype;
        const char *quantization;
    } CASES[] = {{MODEL_DTYPE_AUTO, "gguf"}, {MODEL_DTYPE_F32, "none"}};
    for (int i = 0; i < 2; i++) {
        struct model_options options = options_of(CASES[i].dtype, 1);
        struct driver driver = driver_open(&options);
        assert_string_equal(model_describe(driver.model)->quantization, CASES[i].quantization);
        driver_close(&driver);
    }
    assert_int_equal(unlink(path), 0);
}

static void memory_is_that_of_the_file(void **state)
{
    (void)state;
    const uint64_t blocks_bytes = block_model_write(NULL, path);
    struct memory_plan plan;
    struct model_options options = options_of(MODEL_DTYPE_AUTO, 1);
    err_t e = model_plan_memory(&options, &plan);
    assert_int_equal(e.code, ERR_OK);
    assert_true(plan.weights_bytes > blocks_bytes);
    assert_true((double)plan.weights_bytes < 1.1 * (double)blocks_bytes);
    assert_int_equal(unlink(path), 0);
}

static void expect_refused(const struct model_options *options, enum err_code code, const char *text)
{
    struct model *model = NULL;
    err_t e = model_load(options, NULL, &model);
    if (e.code != code || !strstr(e.message, text))
        fail_msg("expected %s with \"%s\", got %s: %s", err_code_name(code), text, err_code_name(e.code),
                 e.code == ERR_OK ? "" : e.message);
    assert_int_equal(unlink(path), 0);
}

static void what_cannot_be_computed_is_refused(void **state)
{
    (void)state;
    (void)block_model_write(&(struct block_model){32 * 17, BLOCK_Q8_0, false, false}, path);
    struct model_options options = options_of(MODEL_DTYPE_AUTO, 2);
    expect_refused(&options, ERR_INVALID_ARGUMENT,
                   "cuts the blocks of 32 inputs of \"blk.0.ffn_down.weight\"");
    (void)block_model_write(&(struct block_model){BLOCK_MODEL_MLP, BLOCK_Q5_K, true, false}, path);
    options = options_of(MODEL_DTYPE_AUTO, 1);
    expect_refused(&options, ERR_DATA_LOSS, "\"blk.0.attn_v.weight\": a scale of row 64 is NaN or infinity");
    (void)block_model_write(&(struct block_model){BLOCK_MODEL_MLP, BLOCK_Q4_0, false, true}, path);
    expect_refused(&options, ERR_DATA_LOSS,
                   "\"blk.0.ffn_down.weight\": a scale of row 128 is NaN or infinity");
}

/* Every type of blocks, and stacks of several: packed, written and mapped they are the same bits. */
static void packed_blocks_are_the_same(void **state)
{
    (void)state;
    (void)block_model_write(NULL, path);
    double first[PROMPT] = {0}, again[PROMPT] = {0};
    struct model_packed packed;
    struct model_options options = options_of(MODEL_DTYPE_AUTO, 1);
    char folder[] = "/tmp/bantam-test-packed-XXXXXX", file[64];
    assert_non_null(mkdtemp(folder));
    err_t e = packed_model_write(&options, folder, &packed);
    if (e.code != ERR_OK)
        fail_msg("%s", e.message);
    prompt_logprobs(&options, first);
    assert_int_equal(unlink(path), 0);
    options.directory = folder;
    struct driver driver = driver_open(&options);
    assert_string_equal(model_describe(driver.model)->quantization, "gguf");
    driver_close(&driver);
    prompt_logprobs(&options, again);
    assert_memory_equal(first, again, sizeof first);
    static const char *const names[] = {"model.bantam", "head.gguf"};
    for (int i = 0; i < 2; i++) {
        snprintf(file, sizeof file, "%s/%s", folder, names[i]);
        assert_int_equal(unlink(file), 0);
    }
    assert_int_equal(rmdir(folder), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(codes_are_near_their_values),
        cmocka_unit_test(a_model_says_what_it_is_computed_from),
        cmocka_unit_test(memory_is_that_of_the_file),
        cmocka_unit_test(what_cannot_be_computed_is_refused),
        cmocka_unit_test(packed_blocks_are_the_same),
    };
    return cmocka_run_group_tests_name("gguf_blocks", tests, NULL, NULL);
}
