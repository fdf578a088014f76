/* Linear layers by a library's products, on the fake device: never in the default mode but where the table
 * says so; with --no-batch-invariant also inside graphs; and the check that finds out whether its rows are
 * ours, which must be able to say no. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include "benchmarks/product_check.h"
#include "kernels/cuda/product_policy.h"
#include "tests/cuda/fake_control.h"
#include "tests/cuda/fake_product.h"
#include "tests/model/broken_model.h"
#include "tests/model/model_driver.h"

#define CHECKPOINT TEST_DATA_DIR "/parity/checkpoints/llama-gqa"

static const struct fake_device_control *control;

static int open_control(void **state)
{
    (void)state;
    control = fake_control_open();
    return setenv("BANTAM_FAKE_SEED", "9", 1);
}

static int reset_environment(void **state)
{
    (void)state;
    unsetenv("BANTAM_FAKE_PRODUCT");
    unsetenv("BANTAM_FAKE_NAME");
    return 0;
}

static struct fake_device_counts counts(void)
{
    struct fake_device_counts now;
    control->counts(&now);
    return now;
}

/* ---- A model ---- */

static const uint32_t prompt[] = {5, 9, 77, 31, 8, 120, 44, 2, 19, 63, 7};
enum { N_PROMPT = sizeof prompt / sizeof prompt[0], N_DRAWN = 10 };

static struct model_options model_options_of(enum model_quantization quantization, bool batch_variant)
{
    struct model_options options = driver_options(CHECKPOINT, 4, 64);
    options.device = "cuda";
    options.quantization = quantization;
    options.batch_variant = batch_variant;
    options.library_rows_min = 1;
    return options;
}

/* Greedy tokens of a prompt; from the third step on graphs are replayed. */
static void draw(struct driver *driver, uint32_t drawn[N_DRAWN])
{
    driver_reset_slot(driver, 0);
    for (uint32_t i = 0; i < N_DRAWN; i++) {
        uint32_t n = i == 0 ? N_PROMPT : 1;
        driver_begin(driver);
        uint32_t row = driver_add(driver, 0, i == 0 ? prompt : NULL, i == 0 ? 0 : N_PROMPT - 1 + i, n);
        driver_want(driver, row + n - 1, STEP_OUTPUT_SAMPLE, 0, -1);
        driver_run(driver);
        drawn[i] = driver_result(driver, 0)->token_ids[0];
    }
}

static void draw_with(const struct model_options *options, uint32_t drawn[N_DRAWN])
{
    struct driver driver = driver_open(options);
    draw(&driver, drawn);
    driver_close(&driver);
}

static void by_default_the_library_is_not_even_opened(void **state)
{
    (void)state;
    struct model_options options = model_options_of(MODEL_QUANT_NONE, false);
    struct fake_device_counts before = counts();
    struct driver driver = driver_open(&options);
    assert_int_equal(counts().product_plans, 0);
    uint32_t drawn[N_DRAWN];
    draw(&driver, drawn);
    driver_close(&driver);
    struct fake_device_counts after = counts();
    assert_int_equal(after.products - before.products, 0);
    assert_int_equal(after.products_replayed - before.products_replayed, 0);
    assert_true(after.launches > before.launches);
}

/* A library whose order of additions is ours gives our tokens; its products stand in the graphs. */
static void graphs_replay_products(enum model_quantization quantization)
{
    uint32_t ours[N_DRAWN], with_graphs[N_DRAWN], eager[N_DRAWN];
    struct model_options options = model_options_of(quantization, false);
    draw_with(&options, ours);
    options = model_options_of(quantization, true);
    struct fake_device_counts before = counts();
    draw_with(&options, with_graphs);
    struct fake_device_counts after = counts();
    assert_true(after.products > before.products);
    assert_true(after.products_replayed > before.products_replayed);
    assert_memory_equal(with_graphs, ours, sizeof ours);
    options.enforce_eager = true;
    draw_with(&options, eager);
    assert_int_equal(counts().products_replayed, after.products_replayed);
    assert_memory_equal(eager, ours, sizeof ours);
    assert_int_equal(counts().product_plans, 0);
}

static void graphs_replay_bf16_products(void **state)
{
    (void)state;
    graphs_replay_products(MODEL_QUANT_NONE);
}

static void graphs_replay_fp8_products(void **state)
{
    (void)state;
    graphs_replay_products(MODEL_QUANT_FP8);
}

static void fewer_rows_than_the_least_are_ours(void **state)
{
    (void)state;
    struct model_options options = model_options_of(MODEL_QUANT_NONE, true);
    options.library_rows_min = N_PROMPT; /* the prompt, and no step that follows */
    struct fake_device_counts before = counts();
    uint32_t drawn[N_DRAWN];
    draw_with(&options, drawn);
    struct fake_device_counts after = counts();
    assert_true(after.products > before.products);
    assert_int_equal(after.products_replayed, before.products_replayed);
}

static void without_the_library_everything_is_ours(void **state)
{
    (void)state;
    setenv("BANTAM_FAKE_PRODUCT", "absent", 1);
    uint32_t ours[N_DRAWN], drawn[N_DRAWN];
    struct model_options options = model_options_of(MODEL_QUANT_NONE, false);
    draw_with(&options, ours);
    uint64_t products = counts().products;
    options.batch_variant = true;
    draw_with(&options, drawn);
    assert_int_equal(counts().products, products);
    assert_memory_equal(drawn, ours, sizeof ours);
}

static uint64_t fingerprint(const char *product, bool batch_variant, uint32_t rows_min)
{
    setenv("BANTAM_FAKE_PRODUCT", product, 1);
    struct model_options options = model_options_of(MODEL_QUANT_NONE, batch_variant);
    options.library_rows_min = rows_min;
    struct driver driver = driver_open(&options);
    uint64_t of = model_describe(driver.model)->arithmetic_fingerprint;
    driver_close(&driver);
    return of;
}

/* What a client is told of the arithmetic: another one with the library, and only then. */
static void the_fingerprint_tells_of_the_library(void **state)
{
    (void)state;
    uint64_t ours = fingerprint("ours", false, 0), variant = fingerprint("ours", true, 0);
    assert_int_not_equal(variant, ours);
    assert_int_not_equal(fingerprint("ours", true, 7), variant);
    assert_int_equal(fingerprint("absent", true, 0), ours);
}

/* ---- A layer ---- */

struct layer {
    struct backend *backend;
    const struct backend_vtable *ops;
};

static void row_of_ones(const void *context, size_t row, float *out)
{
    const size_t *n_in = context;
    for (size_t i = 0; i < *n_in; i++)
        out[i] = row % 2 ? 1.0f : -0.5f;
}

static const size_t LAYER_IN = 64;

static struct weight_desc layer_desc(enum weight_format format, size_t n_out, const float *bias)
{
    return (struct weight_desc){.name = "layer",
                                .n_out = n_out,
                                .n_in = LAYER_IN,
                                .format = format,
                                .group = (uint32_t)LAYER_IN,
                                .row = row_of_ones,
                                .row_context = &LAYER_IN,
                                .bias = bias};
}

/* Room for n weights of n_out at most. */
static void open_layer(struct layer *layer, enum weight_format format, size_t n_out, uint32_t n,
                       bool batch_variant)
{
    struct backend_cuda_options options = {
        .n_threads = 1, .batch_variant = batch_variant, .library_rows_min = 1};
    assert_int_equal(backend_cuda_create(&options, &layer->backend).code, ERR_OK);
    const struct backend_vtable *ops = layer->ops = layer->backend->vtable;
    static const float bias;
    struct weight_desc desc = layer_desc(format, n_out, &bias);
    struct backend_needs needs = {.step = {50, 1, 1, 1, 1, 1},
                                  .qkv = {1, 1, 64},
                                  .widest_in = LAYER_IN,
                                  .widest_out = n_out,
                                  .largest_weight = LAYER_IN * n_out,
                                  .vocab_size = 64,
                                  .logits_rows = 8};
    err_t e = ops->reserve(layer->backend, &needs,
                           n * ops->weight_bytes(layer->backend, &desc) +
                               ops->scratch_bytes(layer->backend, &needs));
    assert_int_equal(e.code, ERR_OK);
}

static bool serves(enum weight_format format, size_t n_out, const float *bias, uint32_t rows)
{
    struct layer layer;
    struct weight *weight;
    struct weight_desc desc = layer_desc(format, n_out, bias);
    open_layer(&layer, format, n_out, 1, false);
    assert_int_equal(layer.ops->weight_pack(layer.backend, &desc, &weight).code, ERR_OK);
    bool served = layer.ops->library_serves(weight, rows);
    layer.ops->weight_destroy(weight);
    layer.ops->destroy(layer.backend);
    return served;
}

/* Shapes beyond those that have a place are ours; a shape that has one may come again. */
static void so_many_shapes_and_no_more(void **state)
{
    (void)state;
    enum { PLACES = 64 };
    struct layer layer;
    open_layer(&layer, WEIGHT_BF16, 16 * (PLACES + 1), PLACES + 2, true);
    for (uint32_t i = 0; i < PLACES + 2; i++) {
        struct weight *weight;
        struct weight_desc desc = layer_desc(WEIGHT_BF16, i <= PLACES ? 16 * (i + 1) : 16, NULL);
        assert_int_equal(layer.ops->weight_pack(layer.backend, &desc, &weight).code, ERR_OK);
        assert_int_equal(layer.ops->library_serves(weight, 5), i != PLACES);
        layer.ops->weight_destroy(weight);
    }
    assert_int_equal(counts().product_plans, PLACES);
    layer.ops->destroy(layer.backend);
}

/* In the default mode: the shapes and rows of the table of that card and version, and no others. */
static void the_table_decides_by_default(void **state)
{
    (void)state;
    static const float bias[192] = {1};
    assert_false(serves(WEIGHT_BF16, 192, NULL, 8));
    setenv("BANTAM_FAKE_NAME", "Emulated GPU with a table", 1);
    assert_true(serves(WEIGHT_BF16, 192, NULL, 5));
    assert_true(serves(WEIGHT_BF16, 192, NULL, 40));
    assert_false(serves(WEIGHT_BF16, 192, NULL, 4));
    assert_false(serves(WEIGHT_BF16, 192, NULL, 41));
    assert_true(serves(WEIGHT_FP8, 192, NULL, 5));
    assert_false(serves(WEIGHT_INT8, 192, NULL, 5));
    assert_false(serves(WEIGHT_BF16, 128, NULL, 5));
    assert_false(serves(WEIGHT_BF16, 64, NULL, 5)); /* another version of the library */
    assert_false(serves(WEIGHT_BF16, 192, bias, 5));
    setenv("BANTAM_FAKE_PRODUCT", "absent", 1);
    assert_false(serves(WEIGHT_BF16, 192, NULL, 5));
}

/* ---- The check of a library's bits ---- */

enum { CHECK_COUNTS = 4 };
static const uint32_t check_rows[CHECK_COUNTS] = {1, 17, FAKE_PRODUCT_SPLIT_ROWS - 1,
                                                  FAKE_PRODUCT_SPLIT_ROWS};

static err_t check_product(const char *product, enum weight_format weights,
                           struct product_check_result results[CHECK_COUNTS])
{
    struct product_check_card card;
    struct product_check_options options = {
        .device = "cuda", .n_threads = 1, .weights = weights, .n_out = 80, .n_in = 320};
    setenv("BANTAM_FAKE_PRODUCT", product, 1);
    err_t e = product_check_run(&options, check_rows, CHECK_COUNTS, &card, results);
    if (e.code == ERR_OK) {
        assert_string_equal(card.name, "Emulated GPU");
        assert_int_equal(card.library_version, FAKE_PRODUCT_VERSION);
    }
    return e;
}

static void check_format(enum weight_format weights)
{
    struct product_check_result results[CHECK_COUNTS];
    assert_int_equal(check_product("ours", weights, results).code, ERR_OK);
    for (int i = 0; i < CHECK_COUNTS; i++)
        assert_int_equal(results[i].n_differing, 0);
    assert_int_equal(check_product("chain", weights, results).code, ERR_OK);
    for (int i = 1; i < CHECK_COUNTS; i++)
        assert_true(results[i].n_differing > 0 && results[i].worst_error < PRODUCT_CHECK_ERROR_MAX);
    assert_int_equal(check_product("wrong", weights, results).code, ERR_OK);
    for (int i = 1; i < CHECK_COUNTS; i++)
        assert_true(results[i].worst_error > PRODUCT_CHECK_ERROR_MAX);
    /* Equal until there are so many rows. */
    assert_int_equal(check_product("rows", weights, results).code, ERR_OK);
    for (int i = 0; i < CHECK_COUNTS; i++)
        assert_int_equal(results[i].n_differing > 0, check_rows[i] >= FAKE_PRODUCT_SPLIT_ROWS);
    assert_int_equal(counts().product_plans, 0);
}

static void the_check_finds_bf16_rows_that_differ(void **state)
{
    (void)state;
    check_format(WEIGHT_BF16);
}

static void the_check_finds_fp8_rows_that_differ(void **state)
{
    (void)state;
    check_format(WEIGHT_FP8);
}

/* Our kernel against itself would always be equal. */
static void the_check_refuses_to_compare_nothing(void **state)
{
    (void)state;
    struct product_check_result results[CHECK_COUNTS];
    expect_error(check_product("absent", WEIGHT_BF16, results), ERR_UNAVAILABLE, "cuBLASLt", NULL);
    expect_error(check_product("ours", WEIGHT_INT8, results), ERR_UNIMPLEMENTED, "nothing to compare", NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(by_default_the_library_is_not_even_opened, reset_environment),
        cmocka_unit_test_teardown(graphs_replay_bf16_products, reset_environment),
        cmocka_unit_test_teardown(graphs_replay_fp8_products, reset_environment),
        cmocka_unit_test_teardown(fewer_rows_than_the_least_are_ours, reset_environment),
        cmocka_unit_test_teardown(without_the_library_everything_is_ours, reset_environment),
        cmocka_unit_test_teardown(the_fingerprint_tells_of_the_library, reset_environment),
        cmocka_unit_test_teardown(the_table_decides_by_default, reset_environment),
        cmocka_unit_test_teardown(so_many_shapes_and_no_more, reset_environment),
        cmocka_unit_test_teardown(the_check_finds_bf16_rows_that_differ, reset_environment),
        cmocka_unit_test_teardown(the_check_finds_fp8_rows_that_differ, reset_environment),
        cmocka_unit_test_teardown(the_check_refuses_to_compare_nothing, reset_environment),
    };
    return cmocka_run_group_tests_name("cuda products", tests, open_control, NULL);
}
