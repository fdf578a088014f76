/* The tiny checkpoints of tests/parity/checkpoints, or with the argument "quantized" those of
 * tests/parity/quantized, against what Transformers computed in float32. */
#include <jansson.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include "model/model_internal.h"
#include "tests/model/model_driver.h"

/* Sanitizers see in the first steps what they see in all; how near the answers are is the plain build's. */
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
enum { SANITIZED = 1, GREEDY_STEPS = 12, CASES_RUN = 4, DEVICE_CASES = 1, DEVICE_F32_STEPS = 12 };
#else
enum { SANITIZED = 0, GREEDY_STEPS = 64, CASES_RUN = 16, DEVICE_CASES = 2, DEVICE_F32_STEPS = 24 };
#endif
enum {
    TOKENS_MAX = 256,
    GREEDY_TOKENS = 64, /* of a golden */
    TOP_MAX = 8,
    CASES_MAX = 16,
    CASES_AT_ONCE = 2, /* their prompts fit one step */
    VOCAB_MAX = 1024
};

#define F32_TOLERANCE 1e-4 /* of logits and log-probabilities */
#define TIE_NATS      0.01 /* a smaller gap between the best two decides nothing */
#define NEAR_TIE_NATS                                                                                        \
    0.25 /* another token is fine where the reference gives it this much less than its best */

#define BF16_ERROR_MAX 0.02 /* nats, the mean: what 16-bit activations may cost, whatever the weights */

/* A GPU takes int8 with one scale an output and quantised activations, where the CPU has groups of 32. */
#define DEVICE_INT8_NEAR_TIE_NATS 0.4

struct golden_step {
    uint32_t token;
    double logprob, gap;
    size_t n_top;
    uint32_t top[TOP_MAX];
    double top_logprobs[TOP_MAX];
};

struct golden_case {
    uint32_t tokens[TOKENS_MAX]; /* the prompt, then the greedy tokens */
    uint32_t n_prompt;
    double prompt_logprobs[TOKENS_MAX]; /* [n_prompt - 1] */
    double last_logits[VOCAB_MAX];
    size_t n_logits;
    struct golden_step greedy[GREEDY_TOKENS];
};

static const char *folder = "checkpoints"; /* of tests/parity */
static struct golden_case cases[CASES_MAX];
static size_t n_cases;

static void read_numbers(const json_t *array, double *out, size_t max, size_t *n)
{
    *n = json_array_size(array);
    assert_true(*n <= max);
    for (size_t i = 0; i < *n; i++)
        out[i] = json_number_value(json_array_get(array, i));
}

static void read_step(const json_t *value, struct golden_step *out)
{
    out->token = (uint32_t)json_integer_value(json_object_get(value, "token"));
    out->logprob = json_number_value(json_object_get(value, "logprob"));
    out->gap = json_number_value(json_object_get(value, "gap"));
    double ids[TOP_MAX];
    read_numbers(json_object_get(value, "top"), ids, TOP_MAX, &out->n_top);
    for (size_t i = 0; i < out->n_top; i++)
        out->top[i] = (uint32_t)ids[i];
    read_numbers(json_object_get(value, "top_logprobs"), out->top_logprobs, TOP_MAX, &out->n_top);
    assert_true(out->n_top >= 2);
}

static void read_case(const json_t *value, struct golden_case *out)
{
    const json_t *prompt = json_object_get(value, "prompt"), *greedy = json_object_get(value, "greedy");
    out->n_prompt = (uint32_t)json_array_size(prompt);
    assert_true(out->n_prompt > 0 && out->n_prompt + GREEDY_TOKENS <= TOKENS_MAX);
    for (uint32_t i = 0; i < out->n_prompt; i++)
        out->tokens[i] = (uint32_t)json_integer_value(json_array_get(prompt, i));
    size_t n;
    read_numbers(json_object_get(value, "prompt_logprobs"), out->prompt_logprobs, TOKENS_MAX, &n);
    assert_int_equal(n, out->n_prompt - 1);
    read_numbers(json_object_get(value, "last_logits"), out->last_logits, VOCAB_MAX, &out->n_logits);
    assert_int_equal(json_array_size(greedy), GREEDY_TOKENS);
    for (uint32_t i = 0; i < GREEDY_TOKENS; i++) {
        read_step(json_array_get(greedy, i), &out->greedy[i]);
        out->tokens[out->n_prompt + i] = out->greedy[i].token;
    }
}

static void checkpoint_path(const char *name, const char *file, char *out, size_t out_bytes)
{
    snprintf(out, out_bytes, "%s/parity/%s/%s%s", TEST_DATA_DIR, folder, name, file);
}

static void read_golden(const char *name)
{
    char path[4096];
    checkpoint_path(name, "/golden.json", path, sizeof path);
    json_error_t error;
    json_t *root = json_load_file(path, 0, &error);
    if (!root)
        fail_msg("%s: %s", path, error.text);
    const json_t *list = json_object_get(root, "cases");
    size_t n = json_array_size(list), n_run = driver_device() ? DEVICE_CASES : CASES_RUN;
    n_cases = n < n_run ? n : n_run;
    assert_true(n_cases > 0 && n_cases <= CASES_MAX);
    /* An emulated device is slow: the longest prompts, which come last; under sanitizers a middling one. */
    size_t first = !driver_device() ? 0 : SANITIZED ? n / 2 : n - n_cases;
    for (size_t i = 0; i < n_cases; i++)
        read_case(json_array_get(list, first + i), &cases[i]);
    json_decref(root);
}

/* ---- float32 ---- */

/* Logits of the only output of the step that just ran, by the ops that model_sample uses. */
static double logits_error(struct driver *driver, const struct golden_case *golden)
{
    static float logits[VOCAB_MAX];
    struct model *model = driver->model;
    struct model_rank *rank = &model->ranks[0];
    const struct backend_vtable *op = rank->backend->vtable;
    assert_int_equal(golden->n_logits, model->config.vocab_size);
    rank_gather_hidden(rank, driver->step, 0, 1);
    op->logits(rank->backend, driver->step, 0, 1, rank->acts.output_hidden, rank->lm_head,
               rank->config.final_soft_cap, rank->acts.logits);
    op->act_read(rank->acts.logits, 0, 1, logits);
    double worst = 0;
    for (size_t i = 0; i < golden->n_logits; i++)
        worst = fmax(worst, fabs(logits[i] - golden->last_logits[i]));
    return worst;
}

/* The prompt in chunks, the log-probability of each of its tokens, then the logits after its last. */
static void check_prompt(struct driver *driver, const struct golden_case *golden, uint32_t chunk)
{
    for (uint32_t first = 0; first < golden->n_prompt; first += chunk) {
        uint32_t n = golden->n_prompt - first < chunk ? golden->n_prompt - first : chunk;
        driver_begin(driver);
        uint32_t row = driver_add(driver, 0, golden->tokens, first, n);
        for (uint32_t i = 0; i < n && first + i + 1 < golden->n_prompt; i++)
            driver_want(driver, row + i, STEP_OUTPUT_LOGPROBS, golden->tokens[first + i + 1], 0);
        driver_run(driver);
        for (uint32_t i = 0; i < driver->step->n_outputs; i++) {
            const struct step_result *result = driver_result(driver, i);
            assert_int_equal(result->chosen.token_id, golden->tokens[first + i + 1]);
            assert_float_equal(result->chosen.logprob, golden->prompt_logprobs[first + i], F32_TOLERANCE);
        }
    }
    if (driver->model->n_ranks > 1)
        return; /* the ops below would need every rank's thread */
    driver_begin(driver);
    uint32_t row = driver_add(driver, 0, golden->tokens, golden->n_prompt - 1, 1);
    driver_want(driver, row, STEP_OUTPUT_SAMPLE, 0, 0);
    assert_int_equal(model_forward(driver->model, driver->step).code, ERR_OK);
    assert_true(logits_error(driver, golden) < F32_TOLERANCE);
    assert_int_equal(model_collect(driver->model, driver->step).code, ERR_OK);
}

/* Greedy, each token drawn by the model itself. Every other decode step reads its token from the slot. An
 * emulated device begins with the prompt's last token: check_prompt left the others' keys. */
static void check_greedy(struct driver *driver, const struct golden_case *golden)
{
    driver_reset_slot(driver, 0);
    uint32_t first = driver_device() ? golden->n_prompt - 1 : 0, n = golden->n_prompt - first;
    uint32_t n_steps = driver_device() ? DEVICE_F32_STEPS : GREEDY_STEPS; /* the rest in other formats */
    for (uint32_t i = 0; i < n_steps; i++) {
        const struct golden_step *expected = &golden->greedy[i];
        driver_begin(driver);
        uint32_t row = driver_add(driver, 0, i % 2 ? NULL : golden->tokens, first, n);
        driver_want(driver, row + n - 1, STEP_OUTPUT_SAMPLE, 0, (int32_t)expected->n_top);
        driver_run(driver);
        const struct step_result *result = driver_result(driver, 0);
        assert_int_equal(result->n_tokens, 1);
        if (result->token_ids[0] != expected->token) {
            if (expected->gap >= TIE_NATS)
                fail_msg("prompt of %u, token %u: %u, Transformers has %u with a gap of %g", golden->n_prompt,
                         i, result->token_ids[0], expected->token, expected->gap);
            return; /* from a tie on the two go different ways */
        }
        assert_int_equal(result->chosen.token_id, expected->token);
        assert_float_equal(result->chosen.logprob, expected->logprob, F32_TOLERANCE);
        assert_int_equal(result->n_top, expected->n_top);
        for (size_t t = 0; t < expected->n_top; t++)
            assert_float_equal(result->top[t].logprob, expected->top_logprobs[t], F32_TOLERANCE);
        first += n;
        n = 1;
    }
}

/* path: the model, whose answers are those of the checkpoint `name`. */
static void check_f32(const char *name, const char *path, uint32_t n_ranks)
{
    read_golden(name);
    struct model_options options = driver_options(path, 1, TOKENS_MAX);
    options.dtype = MODEL_DTYPE_F32;
    options.n_ranks = n_ranks;
    struct driver driver = driver_open(&options);
    size_t n_run = driver_device() && n_ranks > 1 ? 1 : n_cases; /* one for the shards, which take turns */
    for (size_t i = 0; i < n_run; i++) {
        check_prompt(&driver, &cases[i], 128);
        check_prompt(&driver, &cases[i], 7);
        check_greedy(&driver, &cases[i]);
    }
    driver_close(&driver);
}

static void f32_equals_transformers(void **state)
{
    char path[4096];
    checkpoint_path(*state, "", path, sizeof path);
    check_f32(*state, path, 1);
}

/* Two ranks give the tokens that one gives. All the checkpoints can be split so; some of their KV heads are
 * then held twice, some vocabularies and biases are split too. */
static void f32_on_two_ranks_equals_transformers(void **state)
{
    if (driver_device() && !getenv("BANTAM_TEST_RANKS"))
        skip(); /* not as many devices */
    char path[4096];
    checkpoint_path(*state, "", path, sizeof path);
    check_f32(*state, path, 2);
}

/* The same weights in a GGUF file: other names, q and k in another order, norms with one added. */
static void gguf_equals_transformers(void **state)
{
    char path[4096];
    const char *name = *state;
    if (driver_device())
        skip(); /* what is read does not depend on who computes with it */
    snprintf(path, sizeof path, "%s/parity/gguf/%s.gguf", TEST_DATA_DIR, name);
    check_f32(name, path, 1);
    check_f32(name, path, 2);
}

/* ---- rounded weights and KV ---- */

struct rounding {
    const char *name;
    enum model_dtype dtype;
    enum model_quantization quantization;
    bool near_tie_rule;    /* else only the mean error is held */
    double mean_error_max; /* nats; FP8: of each checkpoint, see fp8_rounding */
    double near_tie_nats;  /* 0 = NEAR_TIE_NATS */
    enum { ANYWHERE, GPU_ONLY, CPU_ONLY } where;
    enum model_kv_cache kv_cache;
};

struct errors {
    double sum, worst;
    unsigned n, n_other;
};

/* What the reference gives up by taking `token` instead of its best. */
static double nats_below_best(const struct golden_step *golden, uint32_t token)
{
    for (size_t i = 0; i < golden->n_top; i++) {
        if (golden->top[i] == token)
            return golden->top_logprobs[0] - golden->top_logprobs[i];
    }
    return INFINITY;
}

static void compare_step(const struct golden_case *golden, uint32_t i, const struct step_result *result,
                         const struct rounding *rounding, struct errors *errors)
{
    const struct golden_step *expected = &golden->greedy[i];
    double near_tie_nats = rounding->near_tie_nats > 0 ? rounding->near_tie_nats : NEAR_TIE_NATS;
    if (driver_device() && rounding->quantization == MODEL_QUANT_INT8)
        near_tie_nats = DEVICE_INT8_NEAR_TIE_NATS;
    double error = fabs(result->chosen.logprob - expected->logprob);
    errors->sum += error;
    errors->worst = fmax(errors->worst, error);
    errors->n++;
    uint32_t best = result->top[0].token_id;
    if (best == expected->token)
        return;
    errors->n_other++;
    if (rounding->near_tie_rule && nats_below_best(expected, best) > near_tie_nats)
        fail_msg("%s, prompt of %u, token %u: %u is %g nats below the reference's best %u", rounding->name,
                 golden->n_prompt, i, best, nats_below_best(expected, best), expected->token);
}

/* Follows the reference's tokens, so that every step answers for the same context; the cases side by side, as
 * an emulated device takes little longer for two. */
static void compare_steps(struct driver *driver, const struct golden_case *golden, uint32_t n,
                          const struct rounding *rounding, struct errors *errors)
{
    for (uint32_t i = 0; i < GREEDY_STEPS; i++) {
        driver_begin(driver);
        for (uint32_t c = 0; c < n; c++) {
            uint32_t n_prompt = golden[c].n_prompt, n_rows = i == 0 ? n_prompt : 1;
            uint32_t row = driver_add(driver, c, golden[c].tokens, n_prompt + i - n_rows, n_rows);
            driver_want(driver, row + n_rows - 1, STEP_OUTPUT_LOGPROBS, golden[c].greedy[i].token, 1);
        }
        driver_run(driver);
        for (uint32_t c = 0; c < n; c++)
            compare_step(&golden[c], i, driver_result(driver, c), rounding, errors);
    }
}

/* What rounding to e4m3 costs each checkpoint by itself, in nats, over the two cases of a device: by
 * Transformers with tests/parity/checkpoints/fp8_rounding.py, and with BANTAM_EMULATOR_TARGET=80, which
 * multiplies e4m3 as bf16 (exactly) and adds in float32. docs/testing.md has both, and why the checkpoints
 * differ. */
static const struct {
    const char *checkpoint;
    double transformers, emulated;
} fp8_rounding[] = {
    {"llama-gqa", 0.0605, 0.0559},         {"llama-tied-llama3-rope", 0.2054, 0.2200},
    {"llama-mha-sharded", 0.0848, 0.0820}, {"llama-head-dim-linear-rope", 0.0367, 0.0367},
    {"qwen2-gqa-tied", 0.1211, 0.0986},    {"qwen2-window", 0.0967, 0.1028},
    {"gemma3-windows", 0.1321, 0.1543},    {"gemma3-linear-rope", 0.0707, 0.0707},
    {"gemma2-soft-caps", 0.0644, 0.0595},
};

#define FP8_MARGIN 1.1 /* other orders and widths of sums, which also move what 16-bit activations cost */

static double mean_error_max(const char *checkpoint, const struct rounding *rounding)
{
    if (rounding->quantization != MODEL_QUANT_FP8)
        return rounding->mean_error_max;
    for (size_t i = 0; i < sizeof fp8_rounding / sizeof fp8_rounding[0]; i++) {
        if (strcmp(fp8_rounding[i].checkpoint, checkpoint) != 0)
            continue;
        double nats = fmax(fp8_rounding[i].transformers, fp8_rounding[i].emulated);
        return fmax(FP8_MARGIN * nats, BF16_ERROR_MAX);
    }
    fail_msg("%s: measure what rounding to e4m3 costs it", checkpoint);
    return 0;
}

static void check_rounded(const char *name, const struct rounding *rounding, uint32_t n_ranks)
{
    char directory[4096];
    checkpoint_path(name, "", directory, sizeof directory);
    read_golden(name);
    struct model_options options = driver_options(directory, CASES_AT_ONCE, TOKENS_MAX);
    options.dtype = rounding->dtype;
    options.quantization = rounding->quantization;
    options.kv_cache = rounding->kv_cache;
    options.n_ranks = n_ranks;
    struct driver driver = driver_open(&options);
    struct errors errors = {0};
    for (size_t i = 0; i < n_cases; i += CASES_AT_ONCE)
        compare_steps(&driver, &cases[i],
                      n_cases - i < CASES_AT_ONCE ? (uint32_t)(n_cases - i) : CASES_AT_ONCE, rounding,
                      &errors);
    driver_close(&driver);
    printf("%s, %s, %u ranks: log-probability error mean %.4f, worst %.4f; %u of %u tokens differ\n", name,
           rounding->name, n_ranks, errors.sum / errors.n, errors.worst, errors.n_other, errors.n);
    assert_true(SANITIZED || errors.sum / errors.n < mean_error_max(name, rounding));
}

static void rounded_is_near_transformers(void **state)
{
    static const struct rounding roundings[] = {
        {"bfloat16", MODEL_DTYPE_BF16, MODEL_QUANT_NONE, true, BF16_ERROR_MAX, 0, ANYWHERE, MODEL_KV_AUTO},
        {"checkpoint's dtype", MODEL_DTYPE_AUTO, MODEL_QUANT_NONE, true, BF16_ERROR_MAX, 0, ANYWHERE,
         MODEL_KV_AUTO},
        {"int8", MODEL_DTYPE_AUTO, MODEL_QUANT_INT8, true, 0.06, 0, ANYWHERE, MODEL_KV_AUTO},
        {"int4", MODEL_DTYPE_AUTO, MODEL_QUANT_INT4, false, 0.6, 0, ANYWHERE, MODEL_KV_AUTO},
        {"w8a8", MODEL_DTYPE_AUTO, MODEL_QUANT_W8A8, false, 0.1, 0, ANYWHERE, MODEL_KV_AUTO},
        {"fp8", MODEL_DTYPE_AUTO, MODEL_QUANT_FP8, false, 0, 0, GPU_ONLY, MODEL_KV_AUTO},
        {"int8 KV", MODEL_DTYPE_AUTO, MODEL_QUANT_NONE, true, BF16_ERROR_MAX, 0, CPU_ONLY, MODEL_KV_INT8},
    };
    for (size_t r = 0; r < sizeof roundings / sizeof roundings[0]; r++) {
        if (roundings[r].where != (driver_device() ? CPU_ONLY : GPU_ONLY))
            check_rounded(*state, &roundings[r], 1);
    }
}

/* ---- Quantised checkpoints: computed with their codes ---- */

/* On a GPU rows have one scale each where the checkpoint means them so. */
static const struct rounding *codes_rounding(const char *name)
{
    static const struct rounding by_block = {"codes", MODEL_DTYPE_AUTO, MODEL_QUANT_NONE, true, 0.03,
                                             0,       ANYWHERE,         MODEL_KV_AUTO},
                                 by_row = {"codes and rows of 8 bits",
                                           MODEL_DTYPE_AUTO,
                                           MODEL_QUANT_NONE,
                                           true,
                                           0.12,
                                           0.4,
                                           ANYWHERE,
                                           MODEL_KV_AUTO};
    bool is_by_row = strcmp(name, "w8a8") == 0 || strncmp(name, "e4m3", 4) == 0;
    return driver_device() && is_by_row ? &by_row : &by_block;
}

static void codes_are_near_transformers(void **state)
{
    check_rounded(*state, codes_rounding(*state), 1);
}

/* The inputs of o_proj are 32 a rank: groups of 64 cannot be split so. */
static void codes_on_two_ranks_are_near_transformers(void **state)
{
    if (driver_device() && !getenv("BANTAM_TEST_RANKS"))
        skip();
    const char *name = *state;
    if (!strstr(name, "g64") && strcmp(name, "gptq-sym-stored-half") != 0 && strcmp(name, "awq-g128") != 0) {
        check_rounded(name, codes_rounding(name), 2);
        return;
    }
    char directory[4096];
    checkpoint_path(name, "", directory, sizeof directory);
    struct model_options options = driver_options(directory, 1, TOKENS_MAX);
    options.n_ranks = 2;
    struct memory_plan plan;
    err_t e = model_plan_memory(&options, &plan);
    assert_int_equal(e.code, ERR_INVALID_ARGUMENT);
    assert_non_null(strstr(e.message, "cuts the groups"));
    assert_non_null(strstr(e.message, "o_proj"));
}

enum { TESTS_MAX = 64 };

static void add_test(struct CMUnitTest *tests, size_t *n, const char *name, CMUnitTestFunction test,
                     const char *checkpoint)
{
    assert_true(*n < TESTS_MAX);
    tests[(*n)++] = (struct CMUnitTest){.name = name, .test_func = test, .initial_state = (void *)checkpoint};
}

#define ADD_TEST(test) add_test(tests, &n, #test, test, names[i])

int main(int argc, char **argv)
{
    struct CMUnitTest tests[TESTS_MAX];
    memset(tests, 0, sizeof tests);
    bool quantized = argc > 1 && strcmp(argv[1], "quantized") == 0;
    const char *const *names = quantized ? driver_quantized_checkpoints : driver_checkpoints;
    size_t n = 0;
    for (size_t i = 0; names[i]; i++) {
        ADD_TEST(f32_equals_transformers);
        ADD_TEST(f32_on_two_ranks_equals_transformers);
        if (quantized) {
            folder = "quantized";
            ADD_TEST(codes_are_near_transformers);
            ADD_TEST(codes_on_two_ranks_are_near_transformers);
        } else {
            ADD_TEST(rounded_is_near_transformers);
        }
    }
    if (getenv("BANTAM_TEST_ONLY"))
        cmocka_set_test_filter(getenv("BANTAM_TEST_ONLY"));
    static const char *const in_gguf[] = {"llama-tied-llama3-rope", "llama-head-dim-linear-rope",
                                          "qwen2-gqa-tied", "gemma3-windows"};
    for (size_t i = 0; i < sizeof in_gguf / sizeof in_gguf[0] && !quantized; i++)
        add_test(tests, &n, "gguf_equals_transformers", gguf_equals_transformers, in_gguf[i]);
    /* The macro of the group would count the array's elements. */
    return _cmocka_run_group_tests(quantized ? "parity of quantised checkpoints" : "parity", tests, n, NULL,
                                   NULL);
}
