/* The plan adds up, is held to, and says what would fit where memory is short. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include "base/available_memory.h"
#include "tests/model/broken_model.h"

#define MIB (1024ull * 1024)

static struct broken_model broken;

/* A model of a size that matters, from config.json alone. */
static int setup(void **state)
{
    (void)state;
    broken_model_make(&broken);
    json_object_set_new(broken.config, "hidden_size", json_integer(1024));
    json_object_set_new(broken.config, "intermediate_size", json_integer(2048));
    json_object_set_new(broken.config, "num_hidden_layers", json_integer(8));
    json_object_set_new(broken.config, "vocab_size", json_integer(8192));
    json_object_set_new(broken.config, "num_attention_heads", json_integer(16));
    json_object_set_new(broken.config, "num_key_value_heads", json_integer(4));
    json_object_set_new(broken.config, "head_dim", json_integer(64));
    json_object_set_new(broken.config, "max_position_embeddings", json_integer(131072));
    broken_model_write(&broken);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    broken_model_remove(&broken);
    return 0;
}

static struct model_options dummy_options(void)
{
    return (struct model_options){.directory = broken.directory,
                                  .dummy_weights = true,
                                  .max_num_seqs = 4,
                                  .max_num_batched_tokens = 64,
                                  .n_threads = 1};
}

static struct memory_plan plan_of(const struct model_options *options)
{
    struct memory_plan plan;
    err_t e = model_plan_memory(options, &plan);
    if (e.code != ERR_OK)
        fail_msg("%s", e.message);
    assert_int_equal(plan.total_bytes, plan.weights_bytes + plan.activations_bytes + plan.sampler_bytes +
                                           plan.kv_bytes + plan.engine_bytes + plan.program_bytes);
    return plan;
}

static void figures_follow_from_the_shapes(void **state)
{
    (void)state;
    struct model_options options = dummy_options();
    options.max_model_len = 1000;
    options.memory_limit_bytes = 4096 * MIB;
    struct memory_plan bf16 = plan_of(&options);
    /* K and V of 8 layers, 4 heads of 64, two bytes each */
    assert_int_equal(bf16.kv_bytes_per_token, 2 * 8 * 4 * 64 * 2);
    assert_int_equal(bf16.max_model_len, 1000);
    assert_int_equal(bf16.num_kv_blocks, 4 * 63); /* no more than four of the longest can use */
    assert_float_equal(bf16.max_concurrency, 4.0, 1e-9);
    uint64_t n_parameters =
        8ull * (1024 * (1024 + 2 * 256) + 1024 * 1024 + 3 * 1024 * 2048) + 2ull * 8192 * 1024;
    assert_in_range(bf16.weights_bytes, 2 * n_parameters, 2 * n_parameters * 102 / 100);

    /* One byte each and a scale of two bytes per token and head. */
    options.kv_cache = MODEL_KV_INT8;
    options.num_kv_blocks = 0;
    struct memory_plan int8 = plan_of(&options);
    assert_int_equal(int8.kv_bytes_per_token, 2 * 8 * 4 * (64 + 2));
    options.memory_limit_bytes = bf16.total_bytes - bf16.kv_bytes / 2;
    struct memory_plan few = plan_of(&options);
    options.kv_cache = MODEL_KV_AUTO;
    uint32_t fewer = plan_of(&options).num_kv_blocks;
    assert_in_range(few.num_kv_blocks, fewer * 19 / 10, fewer * 2);
    options.memory_limit_bytes = 4096 * MIB;

    options.dtype = MODEL_DTYPE_F32;
    struct memory_plan f32 = plan_of(&options);
    assert_int_equal(f32.kv_bytes_per_token, 2 * bf16.kv_bytes_per_token);
    assert_in_range(f32.weights_bytes, 4 * n_parameters, 4 * n_parameters * 102 / 100);
    options.dtype = MODEL_DTYPE_AUTO;
    options.quantization = MODEL_QUANT_INT4;
    assert_true(plan_of(&options).weights_bytes < bf16.weights_bytes / 2);
}

static void the_limit_is_kept(void **state)
{
    (void)state;
    struct model_options options = dummy_options();
    const uint64_t limits[] = {220 * MIB, 300 * MIB, 512 * MIB, 1024 * MIB};
    uint32_t len = 0;
    for (size_t i = 0; i < sizeof limits / sizeof limits[0]; i++) {
        options.memory_limit_bytes = limits[i];
        struct memory_plan plan = plan_of(&options);
        assert_true(plan.total_bytes <= limits[i]);
        assert_true(plan.max_model_len >= len && plan.max_model_len <= 131072);
        assert_true((uint64_t)plan.num_kv_blocks * MODEL_BLOCK_TOKENS >= plan.max_model_len);
        len = plan.max_model_len;
    }
    assert_true(len > 1000);
}

/* A caller that holds a kibibyte for each KV block. */
static uint64_t bytes_of_blocks(const void *context, const struct memory_plan *plan)
{
    return *(const uint64_t *)context * plan->num_kv_blocks;
}

static void the_caller_counts_too(void **state)
{
    (void)state;
    struct model_options options = dummy_options();
    options.memory_limit_bytes = 300 * MIB;
    options.max_model_len = 8192; /* four of them do not fit */
    struct memory_plan alone = plan_of(&options);
    const uint64_t block_bytes = 8192;
    options.engine_bytes = bytes_of_blocks;
    options.engine_context = &block_bytes;
    options.program_bytes = 10 * MIB;
    struct memory_plan plan = plan_of(&options);
    assert_int_equal(plan.engine_bytes, plan.num_kv_blocks * block_bytes);
    assert_int_equal(plan.program_bytes, 10 * MIB);
    assert_true(plan.total_bytes <= options.memory_limit_bytes && plan.num_kv_blocks < alone.num_kv_blocks);
    uint64_t another = plan.kv_bytes_per_token * MODEL_BLOCK_TOKENS + block_bytes;
    assert_true(plan.total_bytes + another >
                options.memory_limit_bytes); /* and one block more does not fit */
    options.program_bytes = 300 * MIB;
    expect_error(model_plan_memory(&options, &plan), ERR_RESOURCE_EXHAUSTED, "program 300.0 MiB", NULL);
}

/* What the message advises is then accepted, and one more is not. */
static void what_would_fit_fits(void **state)
{
    (void)state;
    struct model_options options = dummy_options();
    options.max_model_len = 65536;
    options.memory_limit_bytes = 300 * MIB;
    struct memory_plan plan;
    err_t e = model_plan_memory(&options, &plan);
    expect_error(e, ERR_RESOURCE_EXHAUSTED, "not enough memory", "--max-model-len 65536", "would fit", NULL);
    const char *advice = strstr(e.message, "; --max-model-len ");
    assert_non_null(advice);
    options.max_model_len = (uint32_t)strtoul(advice + strlen("; --max-model-len "), NULL, 10);
    assert_true(options.max_model_len > 100);
    assert_true(plan_of(&options).total_bytes <= options.memory_limit_bytes);
    options.max_model_len++;
    expect_error(model_plan_memory(&options, &plan), ERR_RESOURCE_EXHAUSTED, NULL);

    options.max_model_len = 64;
    options.num_kv_blocks = 1000000;
    e = model_plan_memory(&options, &plan);
    expect_error(e, ERR_RESOURCE_EXHAUSTED, "KV blocks would fit", NULL);
    advice = strstr(e.message, "; ");
    options.num_kv_blocks = (uint32_t)strtoul(advice + 2, NULL, 10);
    assert_true(options.num_kv_blocks > 100);
    (void)plan_of(&options);
    options.num_kv_blocks++;
    expect_error(model_plan_memory(&options, &plan), ERR_RESOURCE_EXHAUSTED, NULL);

    options.num_kv_blocks = 0;
    options.memory_limit_bytes = 50 * MIB;
    expect_error(model_plan_memory(&options, &plan), ERR_RESOURCE_EXHAUSTED, "weights", "--quantization",
                 NULL);
}

/* The largest numbers that config.json may hold: sizes past every machine, and past 64 bits, are an error. */
static void the_largest_config_is_refused(void **state)
{
    (void)state;
    static const struct {
        const char *field;
        json_int_t value;
    } largest[] = {
        {"hidden_size", 131072}, {"intermediate_size", 524288},        {"num_hidden_layers", 512},
        {"vocab_size", 1048576}, {"num_attention_heads", 1024},        {"num_key_value_heads", 1024},
        {"head_dim", 512},       {"max_position_embeddings", 16777216}};
    for (size_t i = 0; i < sizeof largest / sizeof largest[0]; i++)
        json_object_set_new(broken.config, largest[i].field, json_integer(largest[i].value));
    broken_model_write(&broken);
    struct model_options options = dummy_options();
    struct memory_plan plan;
    expect_error(model_plan_memory(&options, &plan), ERR_RESOURCE_EXHAUSTED, "not enough memory", NULL);
    options.dtype = MODEL_DTYPE_F32;
    options.max_num_seqs = 4096;
    options.max_num_batched_tokens = 65536;
    options.memory_limit_bytes = UINT64_MAX;
    options.num_kv_blocks = UINT32_MAX;
    expect_error(model_plan_memory(&options, &plan), ERR_RESOURCE_EXHAUSTED, "not enough memory", NULL);
}

static struct memory_plan announced;
static void remember_plan(const struct memory_plan *plan)
{
    announced = *plan;
}

static void a_dummy_model_loads_as_planned(void **state)
{
    (void)state;
    struct model_options options = dummy_options();
    options.max_model_len = 128;
    options.quantization = MODEL_QUANT_INT4;
    struct memory_plan plan = plan_of(&options);
    struct model *model;
    err_t e = model_load(&options, remember_plan, &model);
    if (e.code != ERR_OK)
        fail_msg("%s", e.message);
    assert_int_equal(announced.total_bytes, plan.total_bytes);
    assert_int_equal(model_memory_plan(model)->num_kv_blocks, plan.num_kv_blocks);
    const struct model_description *description = model_describe(model);
    assert_string_equal(description->architecture, "LlamaForCausalLM");
    assert_string_equal(description->quantization, "int4");
    assert_string_equal(description->dtype, "bfloat16");
    assert_int_equal(description->vocab_size, 8192);
    char text[1024];
    memory_plan_print(&plan, text, sizeof text);
    assert_non_null(strstr(text, "32 blocks of 16 tokens"));
    model_destroy(model);
}

static void available_memory_is_read(void **state)
{
    (void)state;
    uint64_t bytes = available_memory_bytes();
    assert_true(bytes > 16 * MIB && bytes < 1ull << 50);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(figures_follow_from_the_shapes, setup, teardown),
        cmocka_unit_test_setup_teardown(the_limit_is_kept, setup, teardown),
        cmocka_unit_test_setup_teardown(the_caller_counts_too, setup, teardown),
        cmocka_unit_test_setup_teardown(what_would_fit_fits, setup, teardown),
        cmocka_unit_test_setup_teardown(the_largest_config_is_refused, setup, teardown),
        cmocka_unit_test_setup_teardown(a_dummy_model_loads_as_planned, setup, teardown),
        cmocka_unit_test(available_memory_is_read),
    };
    return cmocka_run_group_tests_name("memory plan", tests, NULL, NULL);
}
