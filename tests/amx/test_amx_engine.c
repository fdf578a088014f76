/* Whole models in the tile arithmetic, on the software model of AMX: how far their logits are from those of
 * the same quantised weights in f32, and that a prompt at once and token by token give the same bits. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>
#include "kernels/cpu_backend.h"
#include "model/model_internal.h"
#include "tests/amx/amx_model.h"
#include "tests/model/block_model.h"
#include "tests/model/model_driver.h"

enum { PROMPT_TOKENS = 60, ALONE_MAX = 20, VOCAB_MAX = 2048 };

/* Relative, of the logits. The target for bf16 arithmetic, and what the tiny checkpoints that miss it are
 * held to. */
#define BF16_ERROR_MAX 1e-2
#define TIED_ERROR_MAX 1.5e-2
#define INT8_ERROR_MAX 3e-2 /* activations of 8 bits; nothing but a bound on what was measured */

static int needs_tiles(void **state)
{
    (void)state;
    if (isa_detect() != ISA_AMX)
        skip(); /* the kernels also want AVX-512 with bf16 */
    return 0;
}

/* ---- The same weights in f32 ---- */

static void f32_row(const void *context, size_t row, float *out)
{
    cpu_weight_read_row(context, row, 1.0f, out);
}

static void widen_weight(struct backend *backend, struct weight **weight)
{
    struct weight *narrow = *weight;
    struct weight_desc desc = {.name = "f32",
                               .n_out = narrow->n_out,
                               .n_in = narrow->n_in,
                               .format = WEIGHT_F32,
                               .row = f32_row,
                               .row_context = narrow,
                               .bias = narrow->sections[0].bias};
    err_t e = backend->vtable->weight_pack(backend, &desc, weight);
    assert_int_equal(e.code, ERR_OK);
    backend->vtable->weight_destroy(narrow);
}

static void widen_model(struct model *model)
{
    struct model_rank *rank = &model->ranks[0];
    bool is_tied = rank->lm_head == rank->embedding;
    for (uint32_t i = 0; i < rank->config.n_layers; i++) {
        struct layer *layer = &rank->layers[i];
        widen_weight(rank->backend, &layer->qkv);
        widen_weight(rank->backend, &layer->o);
        widen_weight(rank->backend, &layer->gate_up);
        widen_weight(rank->backend, &layer->down);
    }
    widen_weight(rank->backend, &rank->lm_head);
    if (is_tied)
        rank->embedding = rank->lm_head;
}

/* ---- Logits ---- */

static uint32_t token_at(const struct driver *driver, uint32_t i)
{
    return (i * 37 + i * i * 11 + 5) % driver->model->config.vocab_size;
}

/* After the last of n_tokens, which come `chunk` at a time. Returns their number. */
static uint32_t run_prompt(struct driver *driver, uint32_t n_tokens, uint32_t chunk, float logits[VOCAB_MAX])
{
    struct model *model = driver->model;
    struct model_rank *rank = &model->ranks[0];
    const struct backend_vtable *op = rank->backend->vtable;
    uint32_t tokens[PROMPT_TOKENS];
    assert_true(n_tokens <= PROMPT_TOKENS && model->config.vocab_size <= VOCAB_MAX);
    for (uint32_t i = 0; i < n_tokens; i++)
        tokens[i] = token_at(driver, i);
    for (uint32_t first = 0, n; first < n_tokens; first += n) {
        n = n_tokens - first < chunk ? n_tokens - first : chunk;
        driver_begin(driver);
        uint32_t row = driver_add(driver, 0, tokens, first, n);
        driver_want(driver, row + n - 1, STEP_OUTPUT_SAMPLE, 0, 0);
        assert_int_equal(model_forward(model, driver->step).code, ERR_OK);
        op->gather_outputs(rank->backend, driver->step, 0, 1, rank->acts.normed, rank->acts.output_hidden);
        op->logits(rank->backend, driver->step, 0, 1, rank->acts.output_hidden, rank->lm_head,
                   rank->config.final_soft_cap, rank->acts.logits);
        op->act_read(rank->acts.logits, 0, 1, logits);
        assert_int_equal(model_collect(model, driver->step).code, ERR_OK);
    }
    return model->config.vocab_size;
}

/* Sums of squares: of what logits are off by, of the logits. */
struct deviation {
    double error, size;
};

static void add_deviation(struct deviation *sums, const float *got, const float *want, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++) {
        sums->error += ((double)got[i] - (double)want[i]) * ((double)got[i] - (double)want[i]);
        sums->size += (double)want[i] * (double)want[i];
    }
}

/* path: in tests/parity, or an absolute one. */
static void check_model(const char *path, enum model_quantization quantization, uint32_t group,
                        double error_max)
{
    char directory[4096];
    snprintf(directory, sizeof directory, "%s%s", path[0] == '/' ? "" : TEST_DATA_DIR "/parity/", path);
    struct model_options options = driver_options(directory, 1, PROMPT_TOKENS);
    options.quantization = quantization;
    options.quantization_group = group;
    struct driver tiles = driver_open(&options), f32 = driver_open(&options);
    const struct backend *backend = tiles.model->ranks[0].backend;
    assert_string_equal(backend->vtable->arithmetic(backend), "cpu-tiles-3");
    widen_model(f32.model);
    static float want[VOCAB_MAX], got[VOCAB_MAX], alone[VOCAB_MAX];
    struct deviation sums = {0};
    for (uint32_t n = 5; n <= PROMPT_TOKENS; n += 11) {
        run_prompt(&f32, n, PROMPT_TOKENS, want);
        uint64_t before = amx_model_count();
        uint32_t n_logits = run_prompt(&tiles, n, PROMPT_TOKENS, got);
        assert_true(amx_model_count() > before);
        add_deviation(&sums, got, want, n_logits);
        if (n > ALONE_MAX)
            continue;
        run_prompt(&tiles, n, 1, alone);
        assert_memory_equal(alone, got, n_logits * sizeof *got);
    }
    double off_by = sqrt(sums.error / sums.size);
    printf("%s, quantization %d, group %u: logits off by %.5f\n", path, (int)quantization, group, off_by);
    assert_true(off_by > 0 && off_by <= error_max);
    driver_close(&tiles);
    driver_close(&f32);
}

static void check_bf16_tiles(const char *path, double error_max)
{
    check_model(path, MODEL_QUANT_NONE, 0, error_max);
    check_model(path, MODEL_QUANT_INT8, 0, error_max);
    check_model(path, MODEL_QUANT_INT4, 0, error_max);
}

static void test_bf16_tiles(void **state)
{
    (void)state;
    static const char *const paths[] = {"checkpoints/llama-gqa", "checkpoints/qwen2-window"};
    for (size_t i = 0; i < sizeof paths / sizeof paths[0]; i++)
        check_bf16_tiles(paths[i], BF16_ERROR_MAX);
    check_model("quantized/awq-g32", MODEL_QUANT_NONE, 0, BF16_ERROR_MAX);
}

/* Where embeddings are tied and the residual begins small, tiny checkpoints pass on more of what their first
 * layers lose. They miss the target in places: docs/testing.md has the figures. This holds them where they
 * are. */
static void test_bf16_tiles_beyond_the_target(void **state)
{
    (void)state;
    static const char *const paths[] = {"checkpoints/llama-tied-llama3-rope", "checkpoints/qwen2-gqa-tied",
                                        "checkpoints/gemma3-windows"};
    for (size_t i = 0; i < sizeof paths / sizeof paths[0]; i++)
        check_bf16_tiles(paths[i], TIED_ERROR_MAX);
}

static void test_int8_tiles(void **state)
{
    (void)state;
    check_model("quantized/awq-g128", MODEL_QUANT_NONE, 0, INT8_ERROR_MAX);
}

/* Every type of blocks that a GGUF file may have, embeddings of 0.05 that are tied. */
static void test_gguf_blocks(void **state)
{
    (void)state;
    char path[BLOCK_MODEL_PATH];
    (void)block_model_write(NULL, path);
    check_model(path, MODEL_QUANT_NONE, 0, TIED_ERROR_MAX);
    assert_int_equal(unlink(path), 0);
}

/* Real weights. */
static void test_demo_model(void **state)
{
    (void)state;
    check_model("../../demo/model", MODEL_QUANT_INT4, 0, BF16_ERROR_MAX);
    check_model("../../demo/model", MODEL_QUANT_INT4, 128, INT8_ERROR_MAX);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(test_bf16_tiles, needs_tiles),
        cmocka_unit_test_setup(test_bf16_tiles_beyond_the_target, needs_tiles),
        cmocka_unit_test_setup(test_int8_tiles, needs_tiles),
        cmocka_unit_test_setup(test_gguf_blocks, needs_tiles),
        cmocka_unit_test_setup(test_demo_model, needs_tiles),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
