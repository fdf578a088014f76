/* Quantised checkpoints that are wrong in one way: the error names file and tensor. What the plan counts of
 * one that is right. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include "base/alloc.h"
#include "model/model_config.h"
#include "tests/model/broken_model.h"

#define FILE_NAME "model.safetensors"
#define Q         "model.layers.0.self_attn.q_proj" /* [64, 64] */

static struct broken_model broken;

static int teardown(void **state)
{
    (void)state;
    broken_model_remove(&broken);
    return 0;
}

static void begin(const char *checkpoint)
{
    broken_model_make_of(&broken, checkpoint);
    broken_model_write(&broken);
}

static err_t load(void)
{
    broken_model_write(&broken);
    return broken_model_load(&broken, NULL);
}

static json_t *take(const char *name)
{
    json_t *tensor = json_incref(broken_model_tensor(&broken, name));
    json_object_del(broken.header, name);
    return tensor;
}

/* Loads without a tensor, whose bytes go to another name. */
static err_t load_without(const char *name)
{
    json_t *tensor = take(name);
    json_object_set(broken.header, "another", tensor);
    err_t e = load();
    json_object_del(broken.header, "another");
    json_object_set_new(broken.header, name, tensor);
    return e;
}

/* Loads with one field of a tensor's header changed. */
static err_t load_with(const char *name, const char *field, const char *json_text)
{
    json_t *tensor = broken_model_tensor(&broken, name);
    json_t *before = json_deep_copy(json_object_get(tensor, field));
    json_object_set_new(tensor, field, json_loads(json_text, JSON_DECODE_ANY, NULL));
    err_t e = load();
    json_object_set_new(tensor, field, before);
    return e;
}

static void *data_of(const char *name)
{
    const json_t *offsets = json_object_get(broken_model_tensor(&broken, name), "data_offsets");
    return broken.data + json_integer_value(json_array_get(offsets, 0));
}

static void set_quantization(const char *field, json_t *value)
{
    json_object_set_new(json_object_get(broken.config, "quantization_config"), field, value);
}

static void awq_tensors(void **state)
{
    (void)state;
    begin("quantized/awq-g32");
    assert_int_equal(load().code, ERR_OK);
    static const char *const names[] = {Q ".qweight", Q ".scales", Q ".qzeros"};
    for (size_t i = 0; i < 3; i++)
        expect_error(load_without(names[i]), ERR_NOT_FOUND, broken.directory, names[i], "missing", "awq",
                     NULL);
    expect_error(load_with(Q ".qweight", "shape", "[8, 64]"), ERR_INVALID_ARGUMENT, FILE_NAME, Q ".qweight",
                 "[8, 64]", "[64, 8]", NULL);
    expect_error(load_with(Q ".qzeros", "shape", "[16]"), ERR_INVALID_ARGUMENT, FILE_NAME, Q ".qzeros",
                 "[2, 8]", NULL);
    expect_error(load_with(Q ".qweight", "dtype", "\"F32\""), ERR_INVALID_ARGUMENT, FILE_NAME, Q ".qweight",
                 "F32", "I32", NULL);
    expect_error(load_with(Q ".scales", "dtype", "\"I16\""), ERR_INVALID_ARGUMENT, FILE_NAME, Q ".scales",
                 "I16", "F32, F16 or BF16", NULL);
    uint16_t *scales = data_of(Q ".scales"), before = scales[64 + 7];
    scales[64 + 7] = 0x7e00; /* NaN */
    expect_error(load(), ERR_DATA_LOSS, FILE_NAME, Q ".scales", "output 7", "NaN", NULL);
    struct model_options options = broken_model_options(&broken);
    options.dtype = MODEL_DTYPE_F32;
    expect_error(broken_model_load(&broken, &options), ERR_DATA_LOSS, FILE_NAME, Q ".scales", "output 7",
                 NULL);
    scales[64 + 7] = before;
    set_quantization("group_size", json_integer(48));
    expect_error(load(), ERR_INVALID_ARGUMENT, "config.json", "groups of 48", "64 inputs", Q, NULL);
    set_quantization("group_size", json_integer(64));
    expect_error(load(), ERR_INVALID_ARGUMENT, FILE_NAME, Q ".scales", "[2, 64]", "[1, 64]", NULL);
}

static void gptq_tensors(void **state)
{
    (void)state;
    begin("quantized/gptq-sym-g32");
    assert_int_equal(load().code, ERR_OK);
    uint32_t *zeros = data_of(Q ".qzeros");
    const uint32_t before = zeros[8 + 2];
    zeros[8 + 2] = 0x77777797u; /* a 9 for output 17 */
    expect_error(load(), ERR_INVALID_ARGUMENT, FILE_NAME, Q ".qzeros", "zero point of 9", "all 7 or all 8",
                 NULL);
    zeros[8 + 2] = 0x88888888u;
    expect_error(load(), ERR_INVALID_ARGUMENT, FILE_NAME, Q ".qzeros", "mixes two kinds", NULL);
    zeros[8 + 2] = before;
    int32_t *groups = data_of(Q ".g_idx");
    groups[5] = 2;
    expect_error(load(), ERR_INVALID_ARGUMENT, FILE_NAME, Q ".g_idx", "input 5", "group 2 of 2", NULL);
    groups[5] = -1;
    expect_error(load(), ERR_INVALID_ARGUMENT, FILE_NAME, Q ".g_idx", "input 5", "group -1", NULL);
    groups[5] = 0;
    expect_error(load_with(Q ".g_idx", "shape", "[64, 1]"), ERR_INVALID_ARGUMENT, FILE_NAME, Q ".g_idx",
                 "[64]", NULL);
    /* Not needed where it says nothing, but where the configuration promises it. */
    assert_int_equal(load_without(Q ".g_idx").code, ERR_OK);
    set_quantization("desc_act", json_true());
    expect_error(load_without(Q ".g_idx"), ERR_NOT_FOUND, Q ".g_idx", "missing", NULL);
}

static void packed_tensors(void **state)
{
    (void)state;
    begin("quantized/packed-asym-g32");
    assert_int_equal(load().code, ERR_OK);
    static const char *const names[] = {Q ".weight_packed", Q ".weight_scale", Q ".weight_zero_point"};
    for (size_t i = 0; i < 3; i++)
        expect_error(load_without(names[i]), ERR_NOT_FOUND, names[i], "missing", NULL);
    expect_error(load_with(Q ".weight_zero_point", "shape", "[2, 8]"), ERR_INVALID_ARGUMENT, FILE_NAME,
                 Q ".weight_zero_point", "[8, 2]", NULL);
    int64_t *shape = data_of(Q ".weight_shape");
    shape[1] = 63;
    expect_error(load(), ERR_INVALID_ARGUMENT, FILE_NAME, Q ".weight_shape", "[64, 63]", "[64, 64]", NULL);
    shape[1] = 64;
    expect_error(load_with(Q ".weight_shape", "dtype", "\"F64\""), ERR_INVALID_ARGUMENT, FILE_NAME,
                 Q ".weight_shape", "two integers", NULL);
    /* A module that the configuration leaves out must be there as it was. */
    expect_error(load_without("model.layers.1.self_attn.k_proj.weight"), ERR_NOT_FOUND,
                 "model.layers.1.self_attn.k_proj.weight", "missing", NULL);
}

static void byte_tensors(void **state)
{
    (void)state;
    begin("quantized/e4m3-channel");
    assert_int_equal(load().code, ERR_OK);
    expect_error(load_without(Q ".weight_scale"), ERR_NOT_FOUND, Q ".weight_scale", "missing", NULL);
    expect_error(load_with(Q ".weight", "dtype", "\"I8\""), ERR_INVALID_ARGUMENT, FILE_NAME, Q ".weight",
                 "I8", "F8_E4M3", NULL);
    expect_error(load_with(Q ".weight", "shape", "[32, 128]"), ERR_INVALID_ARGUMENT, FILE_NAME, Q ".weight",
                 "[64, 64]", NULL);
    uint8_t *codes = data_of(Q ".weight");
    codes[64 * 9 + 1] = 0xff;
    expect_error(load(), ERR_DATA_LOSS, FILE_NAME, Q ".weight", "row 9", "NaN", NULL);
    teardown(NULL);

    begin("quantized/e4m3-block");
    expect_error(load_with(Q ".weight_scale_inv", "shape", "[4]"), ERR_INVALID_ARGUMENT, FILE_NAME,
                 Q ".weight_scale_inv", "[2, 2]", NULL);
    teardown(NULL);
    begin("quantized/w8a8");
    expect_error(load_with(Q ".weight", "dtype", "\"U8\""), ERR_INVALID_ARGUMENT, FILE_NAME, Q ".weight",
                 "U8", "I8", NULL);
    expect_error(load_with(Q ".weight_scale", "shape", "[1, 64]"), ERR_INVALID_ARGUMENT, FILE_NAME,
                 Q ".weight_scale", "[64, 1]", NULL);
}

static void configuration_and_options(void **state)
{
    (void)state;
    begin("quantized/awq-g32");
    struct model_options options = broken_model_options(&broken);
    options.quantization = MODEL_QUANT_INT8;
    expect_error(broken_model_load(&broken, &options), ERR_INVALID_ARGUMENT, broken.directory,
                 "quantised already", "awq", "--quantization", NULL);
    options.dummy_weights = true; /* from the shapes alone */
    assert_int_equal(broken_model_load(&broken, &options).code, ERR_OK);
    json_object_del(broken.config, "quantization_config");
    expect_error(load(), ERR_NOT_FOUND, Q ".weight", Q ".qweight", "quantization_config", NULL);
}

static struct memory_plan plan_of(const char *checkpoint)
{
    char directory[512];
    snprintf(directory, sizeof directory, TEST_DATA_DIR "/parity/quantized/%s", checkpoint);
    struct model_options options = broken_model_options(&broken);
    options.directory = directory;
    struct memory_plan plan;
    err_t e = model_plan_memory(&options, &plan);
    if (e.code != ERR_OK)
        fail_msg("%s", e.message);
    return plan;
}

static void the_plan_counts_codes(void **state)
{
    (void)state;
    begin("quantized/awq-g32");
    const uint64_t linears = 2 * (2 * 64 * 64 + 2 * 32 * 64 + 3 * 64 * 128), tables = 2 * 2 * 160 * 64;
    /* Per 32 inputs of an output: 16 bytes of codes, two of the scale, two of the zero point. */
    struct memory_plan awq = plan_of("awq-g32"), packed = plan_of("packed-sym-g64");
    assert_in_range(awq.weights_bytes, tables + linears * 20 / 32, tables + linears * 20 / 32 + 8192);
    assert_in_range(packed.weights_bytes, tables + linears * 34 / 64, tables + linears * 34 / 64 + 8192);
    assert_in_range(plan_of("w8a8").weights_bytes, tables + linears, tables + linears + 12288);
    assert_in_range(plan_of("e4m3-channel").weights_bytes, tables + 2 * linears,
                    tables + 2 * linears + 12288);
    assert_in_range(plan_of("gptq-v2-act-order").weights_bytes, tables + 2 * linears,
                    tables + 2 * linears + 8192);
    /* gate and up: codes, scales and zero points of 128 outputs by 64 inputs each, as the file has them. */
    assert_int_equal(awq.loading_bytes, 2 * (64 * 128 / 2 + 2 * 128 * 2 + 2 * 128 / 2));
    assert_int_equal(packed.loading_bytes, 0);
    assert_true(awq.total_bytes >=
                awq.loading_bytes + awq.weights_bytes + awq.kv_bytes + awq.activations_bytes);
}

static void failing_allocations(void **state)
{
    (void)state;
    begin("quantized/gptq-v2-act-order");
    uint64_t before = mem_alloc_count();
    assert_int_equal(load().code, ERR_OK);
    int64_t n_allocations = (int64_t)(mem_alloc_count() - before), n_failed = 0;
    assert_true(n_allocations > 200);
    for (int64_t nth = 0; nth < n_allocations; nth += 7) {
        mem_fail_nth(nth);
        err_t e = broken_model_load(&broken, NULL);
        mem_fail_nth(-1);
        if (e.code == ERR_OK)
            continue;
        assert_int_equal(e.code, ERR_RESOURCE_EXHAUSTED);
        n_failed++;
    }
    assert_true(n_failed > n_allocations / 14);
}

#define TEST(function) cmocka_unit_test_teardown(function, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(awq_tensors),
        TEST(gptq_tensors),
        TEST(packed_tensors),
        TEST(byte_tensors),
        TEST(configuration_and_options),
        TEST(the_plan_counts_codes),
        TEST(failing_allocations),
    };
    return cmocka_run_group_tests_name("bad quantised checkpoint", tests, NULL, NULL);
}
