/* "quantization_config": what is understood, what is refused and in which words, and which modules it covers.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include "model/name_pattern.h"
#include "model/quant_config.h"
#include "model/quant_format.h"
#include "tests/model/broken_model.h"

enum { N_LAYERS = 12 };

static const struct family_names *llama_names(void)
{
    const struct family *family;
    assert_int_equal(family_find("LlamaForCausalLM", &family).code, ERR_OK);
    return family->names;
}

static err_t parse(const char *text, struct quant_config *out)
{
    json_t *root = json_pack("{s:o}", "quantization_config", json_loads(text, JSON_DECODE_ANY, NULL));
    assert_non_null(root);
    struct json_fields fields = {.file = "config.json", .prefix = "", .object = root};
    err_t e = quant_config_parse(&fields, llama_names(), N_LAYERS, out);
    json_decref(root);
    return e;
}

static struct quant_config parsed(const char *text)
{
    struct quant_config config;
    err_t e = parse(text, &config);
    if (e.code != ERR_OK)
        fail_msg("%s: %s", text, e.message);
    return config;
}

static bool covers(const struct quant_config *config, int64_t layer, const char *name)
{
    return quant_config_covers(config, llama_names(), layer, name);
}

#define WEIGHTS(bits, type, more)                                                                            \
    "\"weights\":{\"num_bits\":" #bits ",\"type\":\"" type "\",\"symmetric\":true" more "}"
#define COMPRESSED(format, group, more)                                                                      \
    "{\"quant_method\":\"compressed-tensors\",\"format\":\"" format                                          \
    "\",\"config_groups\":{\"group_0\":{\"targets\":[\"Linear\"]," group "}}" more "}"
#define CHANNEL ",\"strategy\":\"channel\""
#define INPUTS  ",\"input_activations\":{\"num_bits\":8,\"type\":\"int\",\"symmetric\":true,\"dynamic\":true}"

static void formats_are_understood(void **state)
{
    (void)state;
    struct quant_config config = parsed("{\"quant_method\":\"awq\",\"w_bit\":4,\"q_group_size\":64,"
                                        "\"version\":\"GEMM\",\"zero_point\":true}");
    assert_string_equal(config.method, "awq");
    assert_true(config.storage == QUANT_STORED_AWQ && config.format.bits == 4 && config.format.group == 64);
    assert_int_equal(config.format.offset, QUANT_ZERO_POINT);
    assert_true(covers(&config, 3, "mlp.up_proj") && !covers(&config, -1, "lm_head"));
    assert_false(covers(&config, -1, "model.embed_tokens"));

    config = parsed("{\"quant_method\":\"gptq\",\"bits\":8,\"group_size\":-1,\"sym\":true,\"desc_act\":true,"
                    "\"lm_head\":true}");
    assert_true(config.storage == QUANT_STORED_GPTQ && config.format.bits == 8 && config.format.group == 0);
    assert_true(config.format.offset == QUANT_SYMMETRIC && config.zeros_less_one && config.is_act_order);
    assert_true(covers(&config, -1, "lm_head"));
    config = parsed("{\"quant_method\":\"gptq\",\"bits\":4,\"group_size\":128,\"sym\":false,"
                    "\"checkpoint_format\":\"gptq_v2\"}");
    assert_true(config.format.offset == QUANT_ZERO_POINT && !config.zeros_less_one && !config.is_act_order);

    config = parsed(COMPRESSED("int-quantized", WEIGHTS(8, "int", CHANNEL) INPUTS, ""));
    assert_true(config.storage == QUANT_STORED_BYTES && config.format.code == QUANT_CODE_INT);
    assert_true(config.format.rows_in_8_bits && config.format.group == 0 && covers(&config, -1, "lm_head"));
    config = parsed(
        COMPRESSED("pack-quantized",
                   WEIGHTS(4, "int", ",\"strategy\":\"group\",\"group_size\":32,\"actorder\":\"group\""),
                   ",\"ignore\":[\"lm_head\"],\"sparsity_config\":{\"format\":\"dense\"}"));
    assert_true(config.storage == QUANT_STORED_PACKED && config.format.group == 32 && config.is_act_order);
    assert_false(config.format.rows_in_8_bits || covers(&config, -1, "lm_head"));

    config = parsed("{\"quant_method\":\"fp8\",\"weight_block_size\":[128,64]}");
    assert_true(config.format.code == QUANT_CODE_E4M3 && config.block_outputs == 128 &&
                config.format.group == 64);

    assert_int_equal(parse("null", &config).code, ERR_OK);
    assert_true(config.storage == QUANT_STORED_PLAIN && config.method == NULL);
    assert_false(covers(&config, 0, "mlp.up_proj"));
}

static void modules_are_left_out(void **state)
{
    (void)state;
    struct quant_config config =
        parsed("{\"quant_method\":\"awq\",\"bits\":4,\"group_size\":32,"
               "\"modules_to_not_convert\":[\"self_attn\",\"layers.1.mlp.gate_proj\",\"mlp.up\"]}");
    assert_false(covers(&config, 0, "self_attn.q_proj") || covers(&config, 11, "self_attn.o_proj"));
    assert_true(covers(&config, 0, "mlp.gate_proj") && covers(&config, 11, "mlp.gate_proj"));
    assert_false(covers(&config, 1, "mlp.gate_proj"));
    assert_true(covers(&config, 1, "mlp.up_proj")); /* "mlp.up" is no component of it */

    config = parsed("{\"quant_method\":\"gptq\",\"bits\":4,\"group_size\":32,"
                    "\"modules_in_block_to_quantize\":[[\"self_attn.k_proj\"],[\"mlp.down_proj\"]]}");
    assert_true(covers(&config, 5, "self_attn.k_proj") && covers(&config, 5, "mlp.down_proj"));
    assert_false(covers(&config, 5, "self_attn.q_proj") || covers(&config, -1, "lm_head"));

    config = parsed(COMPRESSED("pack-quantized", WEIGHTS(4, "int", CHANNEL),
                               ",\"ignore\":[\"re:.*lm_head\",\"re:model\\\\.layers\\\\.1\\\\d?\\\\.mlp.*\","
                               "\"model.layers.0.self_attn.q_proj\",\"layers.2.self_attn.q_proj\"]"));
    assert_false(covers(&config, -1, "lm_head") || covers(&config, 0, "self_attn.q_proj"));
    assert_true(covers(&config, 2, "self_attn.q_proj")); /* whole names only */
    assert_false(covers(&config, 1, "mlp.up_proj") || covers(&config, 10, "mlp.up_proj"));
    assert_true(covers(&config, 2, "mlp.up_proj") && covers(&config, 1, "self_attn.q_proj"));

    config =
        parsed("{\"quant_method\":\"compressed-tensors\",\"format\":\"pack-quantized\",\"config_groups\":"
               "{\"group_0\":{\"targets\":[\"re:.*down_proj$\"]," WEIGHTS(4, "int", CHANNEL) "}}}");
    assert_true(covers(&config, 4, "mlp.down_proj") && !covers(&config, 4, "mlp.up_proj"));
    assert_false(covers(&config, -1, "lm_head"));
}

static void others_are_refused(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        enum err_code code;
        const char *said[2];
    } wrong[] = {
        {"7", ERR_INVALID_ARGUMENT, {"quantization_config", "must be an object"}},
        {"{}", ERR_INVALID_ARGUMENT, {"quantization_config.quant_method", "missing"}},
        {"{\"quant_method\":\"bitsandbytes\"}", ERR_UNIMPLEMENTED, {"bitsandbytes", "awq, gptq"}},
        {"{\"quant_method\":\"awq\",\"bits\":3,\"group_size\":64}", ERR_UNIMPLEMENTED, {"bits", "4"}},
        {"{\"quant_method\":\"awq\",\"group_size\":64}", ERR_INVALID_ARGUMENT, {"w_bit", "missing"}},
        {"{\"quant_method\":\"awq\",\"bits\":4}", ERR_INVALID_ARGUMENT, {"group_size", "missing"}},
        {"{\"quant_method\":\"awq\",\"bits\":4,\"group_size\":0}",
         ERR_INVALID_ARGUMENT,
         {"group_size", "from 1"}},
        {"{\"quant_method\":\"awq\",\"bits\":4,\"group_size\":64,\"version\":\"gemv\"}",
         ERR_UNIMPLEMENTED,
         {"version", "gemv"}},
        {"{\"quant_method\":\"awq\",\"bits\":4,\"group_size\":64,\"backend\":\"llm-awq\"}",
         ERR_UNIMPLEMENTED,
         {"llm-awq", "autoawq"}},
        {"{\"quant_method\":\"awq\",\"bits\":4,\"group_size\":64,\"zero_point\":false}",
         ERR_UNIMPLEMENTED,
         {"zero_point", "true"}},
        {"{\"quant_method\":\"awq\",\"bits\":4,\"group_size\":64,\"modules_to_not_convert\":[1]}",
         ERR_INVALID_ARGUMENT,
         {"modules_to_not_convert", "list of names"}},
        {"{\"quant_method\":\"gptq\",\"bits\":3,\"group_size\":64}", ERR_UNIMPLEMENTED, {"bits", "4, 8"}},
        {"{\"quant_method\":\"gptq\",\"bits\":4,\"group_size\":64,\"checkpoint_format\":\"marlin\"}",
         ERR_UNIMPLEMENTED,
         {"marlin", "gptq_v2"}},
        {"{\"quant_method\":\"gptq\",\"bits\":4,\"group_size\":64,\"desc_act\":1}",
         ERR_INVALID_ARGUMENT,
         {"desc_act", "true or false"}},
        {"{\"quant_method\":\"gptq\",\"bits\":4,\"group_size\":64,\"dynamic\":{\"a\":{}}}",
         ERR_UNIMPLEMENTED,
         {"dynamic", "none"}},
        {COMPRESSED("marlin-24", WEIGHTS(4, "int", CHANNEL), ""),
         ERR_UNIMPLEMENTED,
         {"marlin-24", "pack-quantized"}},
        {COMPRESSED("pack-quantized", "\"weights\":null", ""), ERR_INVALID_ARGUMENT, {"weights", "missing"}},
        {COMPRESSED("pack-quantized", WEIGHTS(3, "int", CHANNEL), ""),
         ERR_UNIMPLEMENTED,
         {"num_bits", "4, 8"}},
        {COMPRESSED("int-quantized", WEIGHTS(4, "int", CHANNEL), ""), ERR_UNIMPLEMENTED, {"num_bits", "8"}},
        {COMPRESSED("pack-quantized", WEIGHTS(4, "float", CHANNEL), ""), ERR_UNIMPLEMENTED, {"type", "int"}},
        {COMPRESSED("pack-quantized", WEIGHTS(4, "int", ",\"strategy\":\"tensor\""), ""),
         ERR_UNIMPLEMENTED,
         {"strategy", "group, channel"}},
        {COMPRESSED("pack-quantized", WEIGHTS(4, "int", CHANNEL) INPUTS, ""),
         ERR_UNIMPLEMENTED,
         {"input_activations.num_bits", "8 for both"}},
        {COMPRESSED("pack-quantized", WEIGHTS(4, "int", CHANNEL), ",\"ignore\":[\"re:(a|b)\"]"),
         ERR_UNIMPLEMENTED,
         {"ignore", "(a|b)"}},
        {COMPRESSED("pack-quantized", WEIGHTS(4, "int", CHANNEL), ",\"sparsity_config\":{\"format\":\"24\"}"),
         ERR_UNIMPLEMENTED,
         {"sparsity_config.format", "dense"}},
        {COMPRESSED("pack-quantized", WEIGHTS(4, "int", CHANNEL) "},\"group_1\":{", ""),
         ERR_UNIMPLEMENTED,
         {"config_groups", "one group"}},
        {"{\"quant_method\":\"fp8\",\"fmt\":\"e5m2\"}", ERR_UNIMPLEMENTED, {"e5m2", "e4m3"}},
        {"{\"quant_method\":\"fp8\",\"weight_block_size\":[128]}",
         ERR_INVALID_ARGUMENT,
         {"weight_block_size", "two integers"}},
        {"{\"quant_method\":\"fp8\",\"weight_block_size\":[128,0]}",
         ERR_INVALID_ARGUMENT,
         {"weight_block_size", "two integers"}},
    };
    struct quant_config config;
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++)
        expect_error(parse(wrong[i].text, &config), wrong[i].code, "config.json", wrong[i].said[0],
                     wrong[i].said[1], NULL);
}

static void lists_have_an_end(void **state)
{
    (void)state;
    struct quant_config config;
    json_t *patterns = json_array(), *names = json_array();
    for (int i = 0; i <= QUANT_PATTERNS_MAX; i++)
        json_array_append_new(patterns, json_string("re:x"));
    for (int i = 0; i <= QUANT_NAMES_MAX; i++)
        json_array_append_new(names, json_string("x"));
    json_t *const lists[] = {patterns, names};
    for (size_t i = 0; i < 2; i++) {
        json_t *root = json_loads(COMPRESSED("pack-quantized", WEIGHTS(4, "int", CHANNEL), ""), 0, NULL);
        json_object_set_new(root, "ignore", lists[i]);
        char *text = json_dumps(root, 0);
        expect_error(parse(text, &config), i == 0 ? ERR_RESOURCE_EXHAUSTED : ERR_INVALID_ARGUMENT, "ignore",
                     NULL);
        free(text);
        json_decref(root);
    }
}

static void patterns_match_as_re_match(void **state)
{
    (void)state;
    static const struct {
        const char *pattern, *name;
        bool matches;
    } cases[] = {
        {"", "a", true},
        {"a", "ab", true},
        {"b", "ab", false},
        {"a$", "ab", false},
        {"ab$", "ab", true},
        {"^ab", "abc", true},
        {".*c", "abc", true},
        {".*d", "abc", false},
        {"a.c", "abc", true},
        {"a\\.c", "abc", false},
        {"a\\.c", "a.c", true},
        {"ab*c", "ac", true},
        {"ab*c", "abbbc", true},
        {"ab+c", "ac", false},
        {"ab+c", "abbc", true},
        {"ab?c$", "abc", true},
        {"ab?c$", "abbc", false},
        {"x\\d+y", "x123y", true},
        {"x\\d+y", "xy", false},
        {".*a.*b.*c$", "zazbzc", true},
        {".*a.*b.*c$", "zbzazc", false},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct name_pattern pattern;
        assert_int_equal(name_pattern_parse(cases[i].pattern, &pattern).code, ERR_OK);
        if (name_pattern_matches(&pattern, cases[i].name) != cases[i].matches)
            fail_msg("\"%s\" and \"%s\"", cases[i].pattern, cases[i].name);
    }
    struct name_pattern pattern;
    static const char *const unknown[] = {"a|b", "(a)", "[ab]", "a{2}", "*a", "a$b", "\\w", "\\", "a**"};
    for (size_t i = 0; i < sizeof unknown / sizeof unknown[0]; i++)
        expect_error(name_pattern_parse(unknown[i], &pattern), ERR_UNIMPLEMENTED, unknown[i], NULL);
    char longest[NAME_PATTERN_ATOMS_MAX + 2];
    memset(longest, '.', sizeof longest);
    longest[NAME_PATTERN_ATOMS_MAX] = '\0';
    assert_int_equal(name_pattern_parse(longest, &pattern).code, ERR_OK);
    char name[NAME_PATTERN_ATOMS_MAX + 1];
    memset(name, 'x', sizeof name);
    name[NAME_PATTERN_ATOMS_MAX] = '\0';
    assert_true(name_pattern_matches(&pattern, name));
    name[NAME_PATTERN_ATOMS_MAX - 1] = '\0';
    assert_false(name_pattern_matches(&pattern, name));
    longest[NAME_PATTERN_ATOMS_MAX] = '.';
    longest[NAME_PATTERN_ATOMS_MAX + 1] = '\0';
    expect_error(name_pattern_parse(longest, &pattern), ERR_RESOURCE_EXHAUSTED, "63", NULL);
}

/* What the description says, for every kind of code and offset, from the middle of a group on. */
static void codes_stand_for_values(void **state)
{
    (void)state;
    int8_t codes[] = {-8, 7, 0, 15, 3, -128};
    float scales[] = {0.5f, 2.0f, -1.0f}, minimums[] = {10.0f, -20.0f, 30.0f}, out[6];
    int16_t zeros[] = {8, -3, 0};
    struct quant_row row = {.codes = codes, .scales = scales, .zeros = zeros, .minimums = minimums};
    struct quant_format format = {.bits = 8, .group = 4};
    assert_int_equal(quant_groups(&format, 6, 6), 2);
    assert_int_equal(quant_groups(&format, 7, 6), 3);
    quant_row_values(&format, &row, 7, 6, out);
    const float symmetric[] = {-4, 14, 0, 30, 6, 128};
    assert_memory_equal(out, symmetric, sizeof out);
    format.offset = QUANT_ZERO_POINT;
    quant_row_values(&format, &row, 7, 6, out);
    const float with_zeros[] = {-8, 20, 6, 36, 12, 128};
    assert_memory_equal(out, with_zeros, sizeof out);
    format.offset = QUANT_MINIMUM;
    quant_row_values(&format, &row, 7, 6, out);
    const float with_minimums[] = {6, -6, -20, 10, -14, 158};
    assert_memory_equal(out, with_minimums, sizeof out);
    const uint32_t group_of[] = {9, 9, 2, 0, 1, 1, 0, 2};
    row.group_of = group_of;
    format.offset = QUANT_SYMMETRIC;
    quant_row_values(&format, &row, 2, 6, out);
    const float permuted[] = {8, 3.5f, 0, 30, 1.5f, 128};
    assert_memory_equal(out, permuted, sizeof out);
    row.group_of = NULL;
    format = (struct quant_format){.code = QUANT_CODE_E4M3, .bits = 8};
    codes[0] = 0x38, codes[1] = (int8_t)0xfe, codes[2] = 1; /* 1, -448, 2^-9 */
    assert_int_equal(quant_groups(&format, 6, 600), 1);
    quant_row_values(&format, &row, 100, 3, out);
    const float e4m3[] = {0.5f, -224, 0x1p-10f};
    assert_memory_equal(out, e4m3, sizeof e4m3);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(formats_are_understood),     cmocka_unit_test(modules_are_left_out),
        cmocka_unit_test(others_are_refused),         cmocka_unit_test(lists_have_an_end),
        cmocka_unit_test(patterns_match_as_re_match), cmocka_unit_test(codes_stand_for_values),
    };
    return cmocka_run_group_tests_name("quantization_config", tests, NULL, NULL);
}
