/* config.json and generation_config.json that are wrong, and what the errors say; options that cannot be met.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include "base/alloc.h"
#include "base/mapped_file.h"
#include "model/generation_config.h"
#include "model/model_config.h"
#include "tests/model/broken_model.h"

static struct broken_model broken;

static int setup(void **state)
{
    (void)state;
    broken_model_make(&broken);
    broken_model_write(&broken);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    broken_model_remove(&broken);
    return 0;
}

static err_t load_config_text(const char *text)
{
    broken_model_write_file(&broken, "config.json", text, strlen(text));
    return broken_model_load(&broken, NULL);
}

/* Sets one field of the good config; NULL text deletes it. */
static err_t load_config_with(const char *field, const char *json_text)
{
    json_t *config = json_deep_copy(broken.config);
    if (json_text) {
        json_t *value = json_loads(json_text, JSON_DECODE_ANY, NULL);
        assert_non_null(value);
        json_object_set_new(config, field, value);
    } else {
        json_object_del(config, field);
    }
    static char text[1 << 14];
    size_t n = json_dumpb(config, text, sizeof text - 1, 0);
    assert_true(n > 0 && n < sizeof text);
    text[n] = '\0';
    json_decref(config);
    return load_config_text(text);
}

static void the_good_one_loads(void **state)
{
    (void)state;
    err_t e = broken_model_load(&broken, NULL);
    if (e.code != ERR_OK)
        fail_msg("%s", e.message);
}

/* Replaces the value of a field in the text, where a JSON library could not write it. */
static err_t load_config_raw(const char *field, const char *raw)
{
    static char text[1 << 14], changed[1 << 14];
    size_t n = json_dumpb(broken.config, text, sizeof text - 1, JSON_COMPACT);
    text[n] = '\0';
    char key[64];
    snprintf(key, sizeof key, "\"%s\":", field);
    char *at = strstr(text, key);
    assert_non_null(at);
    at += strlen(key);
    snprintf(changed, sizeof changed, "%.*s%s%s", (int)(at - text), text, raw, at + strcspn(at, ",}"));
    return load_config_text(changed);
}

static void numbers_that_are_none(void **state)
{
    (void)state;
    expect_error(load_config_raw("rms_norm_eps", "NaN"), ERR_DATA_LOSS, "config.json", "rms_norm_eps", "NaN",
                 NULL);
    expect_error(load_config_raw("rope_theta", "Infinity"), ERR_DATA_LOSS, "config.json", "rope_theta",
                 "Infinity", NULL);
    expect_error(load_config_raw("rms_norm_eps", "-Infinity"), ERR_DATA_LOSS, "config.json", "rms_norm_eps",
                 NULL);
    expect_error(load_config_raw("rms_norm_eps", "1e999"), ERR_DATA_LOSS, "config.json", "rms_norm_eps",
                 NULL);
    expect_error(load_config_raw("vocab_size", "99999999999999999999"), ERR_DATA_LOSS, "config.json",
                 "vocab_size", NULL);
    expect_error(load_config_with("rms_norm_eps", "\"nan\""), ERR_INVALID_ARGUMENT, "rms_norm_eps", "string",
                 NULL);
    expect_error(load_config_with("rms_norm_eps", "0.0"), ERR_INVALID_ARGUMENT, "rms_norm_eps", NULL);
    expect_error(load_config_with("rms_norm_eps", "-1e-5"), ERR_INVALID_ARGUMENT, "rms_norm_eps", NULL);
}

static void shapes_out_of_range(void **state)
{
    (void)state;
    static const struct {
        const char *field, *value, *said;
    } wrong[] = {
        {"vocab_size", "0", "from 1 to"},
        {"vocab_size", "1048577", "from 1 to 1048576"},
        {"hidden_size", "-64", "is -64"},
        {"hidden_size", "64.5", "must be an integer"},
        {"hidden_size", "\"64\"", "must be an integer, it is a string"},
        {"hidden_size", "131073", "from 1 to 131072"},
        {"hidden_size", "9007199254740993", "from 1 to 131072"},
        {"intermediate_size", "524289", "from 1 to 524288"},
        {"num_hidden_layers", "0", "from 1 to 512"},
        {"num_hidden_layers", "513", "from 1 to 512"},
        {"num_attention_heads", "1025", "from 1 to 1024"},
        {"num_key_value_heads", "3", "must be a multiple of \"num_key_value_heads\" 3"},
        {"num_key_value_heads", "8", "must be a multiple"},
        {"head_dim", "15", "15"},
        {"head_dim", "514", "from 2 to 512"},
        {"max_position_embeddings", "0", "from 1 to"},
        {"max_position_embeddings", "16777217", "from 1 to 16777216"},
        {"tie_word_embeddings", "1", "must be true or false"},
    };
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++)
        expect_error(load_config_with(wrong[i].field, wrong[i].value), ERR_INVALID_ARGUMENT, "config.json",
                     wrong[i].field, wrong[i].said, NULL);
    static const char *const required[] = {"vocab_size",        "hidden_size",
                                           "intermediate_size", "num_attention_heads",
                                           "num_hidden_layers", "max_position_embeddings",
                                           "architectures"};
    for (size_t i = 0; i < sizeof required / sizeof required[0]; i++)
        expect_error(load_config_with(required[i], NULL), ERR_INVALID_ARGUMENT, "config.json", required[i],
                     NULL);
    json_object_del(broken.config, "head_dim");
    expect_error(load_config_with("num_attention_heads", "6"), ERR_INVALID_ARGUMENT, "head_dim",
                 "hidden_size", NULL);
}

static void things_not_known(void **state)
{
    (void)state;
    expect_error(load_config_with("architectures", "[\"GPT5ForCausalLM\"]"), ERR_UNIMPLEMENTED, "config.json",
                 "GPT5ForCausalLM", "LlamaForCausalLM", "Qwen2ForCausalLM", NULL);
    expect_error(load_config_with("architectures", "[]"), ERR_INVALID_ARGUMENT, "architectures", NULL);
    expect_error(load_config_with("architectures", "[7]"), ERR_INVALID_ARGUMENT, "architectures", NULL);
    expect_error(load_config_with("hidden_act", "\"relu\""), ERR_UNIMPLEMENTED, "hidden_act", "relu", "silu",
                 NULL);
    expect_error(load_config_with("dtype", "\"float8\""), ERR_UNIMPLEMENTED, "float8", "bfloat16", NULL);
    expect_error(load_config_with("quantization_config", "{\"quant_method\":\"aqlm\"}"), ERR_UNIMPLEMENTED,
                 "config.json", "quantization_config.quant_method", "aqlm", "gptq", "--quantization", NULL);
}

static void rope_scalings(void **state)
{
    (void)state;
    expect_error(load_config_with("rope_parameters", "{\"rope_type\":\"yarn\",\"factor\":4}"),
                 ERR_UNIMPLEMENTED, "rope_parameters.rope_type", "yarn", "llama3", NULL);
    expect_error(load_config_with("rope_parameters", "{\"rope_type\":\"linear\"}"), ERR_INVALID_ARGUMENT,
                 "rope_parameters.factor", "missing", NULL);
    expect_error(load_config_with("rope_parameters", "{\"rope_type\":\"linear\",\"factor\":0}"),
                 ERR_INVALID_ARGUMENT, "rope_parameters.factor", NULL);
    expect_error(load_config_with("rope_parameters", "[1]"), ERR_INVALID_ARGUMENT, "rope_parameters",
                 "must be an object", NULL);
    expect_error(load_config_with("rope_parameters", "{\"rope_theta\":0.5}"), ERR_INVALID_ARGUMENT,
                 "rope_parameters.rope_theta", NULL);
    expect_error(load_config_with("rope_parameters", "{\"partial_rotary_factor\":0.5}"), ERR_UNIMPLEMENTED,
                 "partial_rotary_factor", NULL);
    json_object_del(broken.config, "rope_parameters");
    expect_error(load_config_with("rope_scaling",
                                  "{\"rope_type\":\"llama3\",\"factor\":8,\"low_freq_factor\":4,"
                                  "\"high_freq_factor\":4,"
                                  "\"original_max_position_embeddings\":64}"),
                 ERR_INVALID_ARGUMENT, "rope_scaling.high_freq_factor", "must be greater", NULL);
    expect_error(load_config_with("rope_scaling",
                                  "{\"rope_type\":\"llama3\",\"factor\":8,\"low_freq_factor\":1,"
                                  "\"high_freq_factor\":4}"),
                 ERR_INVALID_ARGUMENT, "rope_scaling.original_max_position_embeddings", NULL);
    err_t e = load_config_with("rope_scaling", "{\"type\":\"linear\",\"factor\":2.0}");
    assert_int_equal(e.code, ERR_OK);
}

static void text_that_is_no_object(void **state)
{
    (void)state;
    expect_error(load_config_text(""), ERR_DATA_LOSS, "config.json", NULL);
    expect_error(load_config_text("[]"), ERR_DATA_LOSS, "config.json", "object", NULL);
    expect_error(load_config_text("{\"vocab_size\": 3"), ERR_DATA_LOSS, "config.json", "line 1", NULL);
    expect_error(load_config_text("{\"vocab_size\": 3, \"vocab_size\": 4}"), ERR_DATA_LOSS, "config.json",
                 "vocab_size", "duplicate", NULL);
    expect_error(load_config_text("{\"vocab_size\": \"\xff\xfe\"}"), ERR_DATA_LOSS, "config.json",
                 "vocab_size", NULL);
    static char nested[1 << 16];
    memset(nested, '[', sizeof nested - 1);
    memcpy(nested, "{\"vocab_size\":", 14);
    expect_error(load_config_text(nested), ERR_DATA_LOSS, "config.json", NULL);
    broken_model_delete_file(&broken, "config.json");
    expect_error(broken_model_load(&broken, NULL), ERR_NOT_FOUND, "config.json", NULL);
}

static void qwen2_windows(void **state)
{
    (void)state;
    json_object_set_new(broken.config, "architectures", json_pack("[s]", "Qwen2ForCausalLM"));
    json_object_set_new(broken.config, "use_sliding_window", json_true());
    json_object_set_new(broken.config, "sliding_window", json_integer(16));
    json_object_set_new(broken.config, "max_window_layers", json_integer(1));
    struct model_config config;
    assert_int_equal(model_config_parse("config.json", broken.config, &config).code, ERR_OK);
    assert_int_equal(config.window, 16);
    assert_false(config.layer_windowed[0]);
    assert_true(config.layer_windowed[1]);

    json_object_set_new(broken.config, "layer_types",
                        json_pack("[s,s]", "sliding_attention", "full_attention"));
    assert_int_equal(model_config_parse("config.json", broken.config, &config).code, ERR_OK);
    assert_true(config.layer_windowed[0]);
    assert_false(config.layer_windowed[1]);
    json_object_set_new(broken.config, "layer_types", json_pack("[s]", "full_attention"));
    expect_error(model_config_parse("config.json", broken.config, &config), ERR_INVALID_ARGUMENT,
                 "layer_types", "num_hidden_layers", NULL);
    json_object_set_new(broken.config, "layer_types",
                        json_pack("[s,s]", "full_attention", "linear_attention"));
    expect_error(model_config_parse("config.json", broken.config, &config), ERR_UNIMPLEMENTED, "layer_types",
                 NULL);
    json_object_del(broken.config, "layer_types");
    json_object_set_new(broken.config, "use_sliding_window", json_false());
    assert_int_equal(model_config_parse("config.json", broken.config, &config).code, ERR_OK);
    assert_int_equal(config.window, 0);
}

/* What Gemma's files say, what they leave out, and what they cannot mean. */
static void gemma_fields(void **state)
{
    (void)state;
    static struct model_config config;
    json_t *root = broken.config;
    json_object_set_new(root, "architectures", json_pack("[s]", "Gemma3ForCausalLM"));
    json_object_del(root, "tie_word_embeddings");
    json_object_del(root, "rope_theta");
    json_object_del(root, "rope_parameters");
    json_object_set_new(root, "head_dim", json_integer(32));
    json_object_set_new(root, "query_pre_attn_scalar", json_integer(16));
    json_object_set_new(root, "sliding_window", json_integer(16));
    json_object_set_new(root, "hidden_activation", json_string("gelu_pytorch_tanh"));
    assert_int_equal(model_config_parse("config.json", root, &config).code, ERR_OK);
    assert_true(config.norm_one_plus && config.tie_word_embeddings && config.has_local_rope);
    assert_int_equal(config.activation, ACTIVATION_GELU_TANH);
    assert_true(config.attention_scale == 0.25f && config.attention_soft_cap == 0);
    assert_true(config.rope.theta == 1e6 && config.local_rope.theta == 1e4);
    assert_true(config.window == 16 && config.layer_windowed[0] && config.layer_windowed[1]);
    json_object_set_new(root, "sliding_window_pattern", json_integer(2));
    json_object_set_new(root, "rope_local_base_freq", json_real(2000.0));
    json_object_set_new(root, "rope_scaling", json_pack("{s:s, s:f}", "rope_type", "linear", "factor", 8.0));
    assert_int_equal(model_config_parse("config.json", root, &config).code, ERR_OK);
    assert_true(config.layer_windowed[0] && !config.layer_windowed[1]);
    assert_true(config.local_rope.theta == 2000.0 && config.local_rope.scaling == ROPE_SCALING_NONE);
    assert_true(config.rope.scaling == ROPE_SCALING_LINEAR && config.rope.factor == 8.0);

    json_object_set_new(root, "architectures", json_pack("[s]", "Gemma2ForCausalLM"));
    assert_int_equal(model_config_parse("config.json", root, &config).code, ERR_OK);
    assert_true(config.attention_soft_cap == 50.0f && config.final_soft_cap == 30.0f);
    assert_false(config.has_local_rope);
    json_object_set_new(root, "final_logit_softcapping", json_null());
    assert_int_equal(model_config_parse("config.json", root, &config).code, ERR_OK);
    assert_true(config.final_soft_cap == 0);

    static const struct {
        const char *field, *json;
        enum err_code code;
    } wrong[] = {
        {"attn_logit_softcapping", "-1", ERR_INVALID_ARGUMENT},
        {"final_logit_softcapping", "\"30\"", ERR_INVALID_ARGUMENT},
        {"query_pre_attn_scalar", "0", ERR_INVALID_ARGUMENT},
        {"sliding_window_pattern", "0", ERR_INVALID_ARGUMENT},
        {"sliding_window", "0", ERR_INVALID_ARGUMENT},
        {"use_bidirectional_attention", "true", ERR_UNIMPLEMENTED},
        {"hidden_activation", "\"relu\"", ERR_UNIMPLEMENTED},
    };
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        json_t *before = json_incref(json_object_get(root, wrong[i].field));
        json_object_set_new(root, wrong[i].field, json_loads(wrong[i].json, JSON_DECODE_ANY, NULL));
        expect_error(model_config_parse("config.json", root, &config), wrong[i].code, "config.json",
                     wrong[i].field, NULL);
        if (before)
            json_object_set_new(root, wrong[i].field, before);
        else
            json_object_del(root, wrong[i].field);
    }
}

static void options_that_cannot_be_met(void **state)
{
    (void)state;
    struct model_options options = broken_model_options(&broken);
    options.max_model_len = 257;
    options.num_kv_blocks = 0;
    expect_error(broken_model_load(&broken, &options), ERR_INVALID_ARGUMENT, "--max-model-len 257", "256",
                 NULL);
    options = broken_model_options(&broken);
    options.num_kv_blocks = 3;
    expect_error(broken_model_load(&broken, &options), ERR_INVALID_ARGUMENT, "--max-model-len 64",
                 "48 tokens", NULL);
    options = broken_model_options(&broken);
    options.max_num_seqs = 4097;
    expect_error(broken_model_load(&broken, &options), ERR_INVALID_ARGUMENT, "--max-num-seqs", "4096", NULL);
    options = broken_model_options(&broken);
    options.max_num_batched_tokens = 65537;
    expect_error(broken_model_load(&broken, &options), ERR_INVALID_ARGUMENT, "--max-num-batched-tokens",
                 "65536", NULL);
    options = broken_model_options(&broken);
    options.device = "tpu";
    expect_error(broken_model_load(&broken, &options), ERR_INVALID_ARGUMENT, "tpu", "cpu", "cuda:N", NULL);
    options.device = "cuda:1x";
    expect_error(broken_model_load(&broken, &options), ERR_INVALID_ARGUMENT, "cuda:1x", NULL);
    options.device = "cuda:-1";
    expect_error(broken_model_load(&broken, &options), ERR_INVALID_ARGUMENT, "cuda:-1", NULL);
    options.device = "cuda:1000";
    expect_error(broken_model_load(&broken, &options), ERR_INVALID_ARGUMENT, "cuda:1000", NULL);
    options = broken_model_options(&broken);
    options.quantization = MODEL_QUANT_FP8;
    expect_error(broken_model_load(&broken, &options), ERR_INVALID_ARGUMENT, "--quantization fp8",
                 "--device cuda", NULL);
    options = broken_model_options(&broken);
    options.kv_cache = MODEL_KV_FP8;
    expect_error(broken_model_load(&broken, &options), ERR_INVALID_ARGUMENT, "--kv-cache-dtype fp8",
                 "--device cuda", NULL);
    options = broken_model_options(&broken);
    options.isa = "neon";
    expect_error(broken_model_load(&broken, &options), ERR_INVALID_ARGUMENT, "neon", NULL);
}

static void widths_that_cannot_be_quantised(void **state)
{
    (void)state;
    json_object_set_new(broken.config, "intermediate_size", json_integer(100));
    broken_model_write(&broken);
    struct model_options options = broken_model_options(&broken);
    options.dummy_weights = true;
    assert_int_equal(broken_model_load(&broken, &options).code, ERR_OK);
    options.quantization = MODEL_QUANT_INT8;
    expect_error(broken_model_load(&broken, &options), ERR_INVALID_ARGUMENT,
                 "model.layers.0.mlp.down_proj.weight", "100", "multiple of 32", NULL);
    options.quantization = MODEL_QUANT_INT4;
    expect_error(broken_model_load(&broken, &options), ERR_INVALID_ARGUMENT, "mlp.down_proj", NULL);
}

/* ---- generation_config.json ---- */

static err_t load_generation(const char *text, struct generation_config *out)
{
    broken_model_write_file(&broken, "generation_config.json", text, strlen(text));
    return generation_config_load(broken.directory, 384, out);
}

static void generation_defaults(void **state)
{
    (void)state;
    struct generation_config config;
    assert_int_equal(generation_config_load(broken.directory, 384, &config).code, ERR_OK);
    assert_int_equal(config.n_eos_token_ids, 1);
    assert_int_equal(config.eos_token_ids[0], 2);
    assert_int_equal(config.bos_token_id, 1);
    assert_int_equal(config.pad_token_id, -1);
    assert_false(config.has_temperature || config.has_top_p || config.has_top_k || config.has_min_p ||
                 config.has_repetition_penalty || config.has_max_new_tokens);

    assert_int_equal(
        load_generation("{\"temperature\":0.6,\"top_p\":0.9,\"top_k\":20,\"do_sample\":true,"
                        "\"eos_token_id\":[7,9],\"repetition_penalty\":1.05,\"pad_token_id\":-1}",
                        &config)
            .code,
        ERR_OK);
    assert_true(config.has_temperature && config.has_top_p && config.has_top_k &&
                config.has_repetition_penalty);
    assert_float_equal(config.temperature, 0.6f, 0);
    assert_int_equal(config.top_k, 20);
    assert_int_equal(config.n_eos_token_ids, 2);
    assert_int_equal(config.eos_token_ids[1], 9);
    assert_int_equal(config.bos_token_id, 1);

    assert_int_equal(load_generation("{\"do_sample\":false}", &config).code, ERR_OK);
    assert_true(config.has_temperature);
    assert_float_equal(config.temperature, 0.0f, 0);
}

static void generation_values_out_of_range(void **state)
{
    (void)state;
    static const struct {
        const char *text, *field;
    } wrong[] = {
        {"{\"temperature\":-1}", "temperature"},
        {"{\"temperature\":\"hot\"}", "temperature"},
        {"{\"top_p\":1.5}", "top_p"},
        {"{\"top_k\":-1}", "top_k"},
        {"{\"min_p\":2}", "min_p"},
        {"{\"repetition_penalty\":0}", "repetition_penalty"},
        {"{\"max_new_tokens\":0}", "max_new_tokens"},
        {"{\"do_sample\":1}", "do_sample"},
        {"{\"eos_token_id\":384}", "eos_token_id"},
        {"{\"eos_token_id\":[1,\"2\"]}", "eos_token_id"},
        {"{\"eos_token_id\":[1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17]}", "eos_token_id"},
        {"{\"bos_token_id\":-2}", "bos_token_id"},
        {"{\"pad_token_id\":999}", "pad_token_id"},
    };
    struct generation_config config;
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++)
        expect_error(load_generation(wrong[i].text, &config), ERR_INVALID_ARGUMENT, "generation_config.json",
                     wrong[i].field, NULL);
    expect_error(load_generation("{\"top_p\":NaN}", &config), ERR_DATA_LOSS, "generation_config.json",
                 "top_p", NULL);
    expect_error(broken_model_load(&broken, NULL), ERR_DATA_LOSS, "generation_config.json", NULL);
}

#define TEST(function) cmocka_unit_test_setup_teardown(function, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(the_good_one_loads),
        TEST(numbers_that_are_none),
        TEST(shapes_out_of_range),
        TEST(things_not_known),
        TEST(rope_scalings),
        TEST(text_that_is_no_object),
        TEST(qwen2_windows),
        TEST(gemma_fields),
        TEST(options_that_cannot_be_met),
        TEST(widths_that_cannot_be_quantised),
        TEST(generation_defaults),
        TEST(generation_values_out_of_range),
    };
    return cmocka_run_group_tests_name("bad config", tests, NULL, NULL);
}
