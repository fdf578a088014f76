/* GGUF files as models: quantised blocks to the bit, ranges of them, and metadata that is wrong in one way.
 */
#include <jansson.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>
#include "base/float16.h"
#include "base/philox.h"
#include "kernels/kernel_table.h"
#include "model/block_formats.h"
#include "model/checkpoint.h"
#include "model/gguf_config.h"
#include "model/weight_blocks.h"
#include "tests/base/gguf_builder.h"

enum { BLOCKS_MAX = 8, BLOCK_BYTES_MAX = 256, ROWS = 3 };

static void expect_ok(err_t e)
{
    if (e.code != ERR_OK)
        fail_msg("%s", e.message);
}

/* ---- Blocks ---- */

static uint8_t hex_digit(char c)
{
    return (uint8_t)(c <= '9' ? c - '0' : c - 'a' + 10);
}

/* The codes of a block say its values, to the bit. */
static void expect_codes_of(uint32_t type, const uint8_t *block, const float *values)
{
    int8_t values_of[BLOCK_VALUES_MAX];
    struct block_codes codes = {.codes = values_of};
    block_split(type, block, &codes);
    size_t run = type == BLOCK_Q6_K ? 16 : 32;
    for (size_t k = 0; k < gguf_tensor_format(type)->block_values; k++) {
        float value = (float)codes.codes[k] * (codes.scale * (float)codes.scales[k / run]);
        if (codes.minimum != 0)
            value -= codes.minimum * (float)codes.minimums[k / 32];
        if (value != values[k] && !(isnan(value) && isnan(values[k])))
            fail_msg("type %u, value %zu: the codes say %g, it is %g", type, k, (double)value,
                     (double)values[k]);
    }
}

static void blocks_equal_goldens(void **state)
{
    (void)state;
    json_t *list = json_load_file(TEST_DATA_DIR "/parity/gguf/blocks.json", 0, NULL);
    assert_int_equal(json_array_size(list), 8);
    for (size_t i = 0; i < json_array_size(list); i++) {
        const json_t *item = json_array_get(list, i), *bits = json_object_get(item, "bits");
        uint32_t type = (uint32_t)json_integer_value(json_object_get(item, "type"));
        const char *hex = json_string_value(json_object_get(item, "hex"));
        const struct gguf_tensor_format *format = gguf_tensor_format(type);
        assert_string_equal(format->name, json_string_value(json_object_get(item, "name")));
        block_dequantize_fn *dequantize = block_dequantize(type);
        assert_non_null(dequantize);
        size_t n_blocks = strlen(hex) / 2 / format->block_bytes;
        assert_int_equal(json_array_size(bits), n_blocks * format->block_values);
        for (size_t b = 0; b < n_blocks; b++) {
            uint8_t block[BLOCK_BYTES_MAX];
            float values[BLOCK_VALUES_MAX];
            for (size_t k = 0; k < format->block_bytes; k++) {
                const char *digits = hex + 2 * (b * format->block_bytes + k);
                block[k] = (uint8_t)(hex_digit(digits[0]) << 4 | hex_digit(digits[1]));
            }
            dequantize(block, values);
            if (type != BLOCK_Q4_0) /* taken whole: rows_of_codes */
                expect_codes_of(type, block, values);
            for (size_t k = 0; k < format->block_values; k++) {
                uint32_t want =
                    (uint32_t)json_integer_value(json_array_get(bits, b * format->block_values + k));
                if (f32_to_bits(values[k]) != want && !(values[k] == 0 && f32_from_bits(want) == 0))
                    fail_msg("%s, block %zu, value %zu: %g, expected %g", format->name, b, k,
                             (double)values[k], (double)f32_from_bits(want));
            }
        }
    }
    json_decref(list);
    assert_null(block_dequantize(10)); /* Q2_K */
}

/* Any range of values, also one that begins and ends within blocks, is that part of the whole. */
static void ranges_of_blocks(void **state)
{
    (void)state;
    static uint8_t bytes[ROWS * 1024 * 8];
    static const uint32_t types[] = {0, 1, 30, BLOCK_Q4_0, BLOCK_Q5_1, BLOCK_Q8_0, BLOCK_Q4_K, BLOCK_Q6_K};
    struct rng rng = rng_make(9);
    for (size_t t = 0; t < sizeof types / sizeof types[0]; t++) {
        const struct gguf_tensor_format *format = gguf_tensor_format(types[t]);
        const uint64_t dims[] = {1024, ROWS};
        size_t n = 1024 * ROWS, size_bytes = n / format->block_values * format->block_bytes;
        for (size_t i = 0; i < size_bytes; i++)
            bytes[i] = (uint8_t)(rng_below(&rng, 256) & 0x3f); /* no NaN or infinity as f16, bf16, f32 */
        struct gguf_builder builder = {0};
        builder_tensor(&builder, "w", types[t], dims, 2, bytes, size_bytes);
        struct buffer file = builder_finish(&builder);
        char path[64];
        builder_write_temporary(&file, path);
        struct checkpoint *checkpoint;
        expect_ok(checkpoint_open(path, &checkpoint));
        const struct checkpoint_tensor *tensor = checkpoint_find(checkpoint, "w");
        assert_non_null(tensor);
        assert_true(checkpoint_can_read(tensor));
        assert_int_equal(tensor->info->shape[0], ROWS);
        assert_int_equal(tensor->info->shape[1], 1024);
        static float whole[ROWS * 1024], part[ROWS * 1024];
        expect_ok(checkpoint_read_f32(checkpoint, tensor, 0, n, whole));
        for (int round = 0; round < 200; round++) {
            size_t first = rng_below(&rng, (uint32_t)n), count = 1 + rng_below(&rng, (uint32_t)(n - first));
            expect_ok(checkpoint_read_f32(checkpoint, tensor, first, count, part));
            assert_memory_equal(part, whole + first, count * sizeof *part);
        }
        checkpoint_close(checkpoint);
        assert_int_equal(unlink(path), 0);
    }
}

enum { ROW_VALUES = 1024 };

/* Room for the codes of every row. */
struct code_rows {
    struct weight_codes rows[ROWS];
    int8_t codes[ROWS][ROW_VALUES], block_scales[ROWS][ROW_VALUES / WEIGHT_HALF_GROUP];
    float scales[ROWS][ROW_VALUES / WEIGHT_GROUP], minimums[ROWS][ROW_VALUES / WEIGHT_GROUP];
    uint8_t block_minimums[ROWS][ROW_VALUES / WEIGHT_GROUP];
    uint8_t blocks[ROWS * ROW_VALUES / WEIGHT_GROUP * WEIGHT_BLOCK_BYTES];
};

static void code_rows_clear(struct code_rows *of)
{
    memset(of, 0x55, sizeof *of);
    for (size_t r = 0; r < ROWS; r++)
        of->rows[r] = (struct weight_codes){.codes = of->codes[r],
                                            .scales = of->scales[r],
                                            .minimums = of->minimums[r],
                                            .block_scales = of->block_scales[r],
                                            .block_minimums = of->block_minimums[r]};
}

/* Codes and scales out of a row's blocks (kernels.h). */
static void take_blocks(const struct weight_codes *row, size_t n)
{
    for (size_t b = 0; b < n / WEIGHT_GROUP; b++) {
        const uint8_t *block = row->blocks + b * WEIGHT_BLOCK_BYTES;
        row->scales[b] = f16_to_f32((uint16_t)(block[0] | block[1] << 8));
        for (size_t i = 0; i < WEIGHT_GROUP; i++)
            row->codes[b * WEIGHT_GROUP + i] = (int8_t)((block[2 + i % 16] >> (i < 16 ? 0 : 4) & 15) - 8);
    }
}

/* What the codes of input k say (kernels.h). */
static float code_value(enum weight_format format, uint32_t group, const struct weight_codes *row, size_t k)
{
    float scale = row->scales[k / group], below = 0;
    if (format == WEIGHT_K6)
        scale *= (float)row->block_scales[k / WEIGHT_HALF_GROUP];
    if (format == WEIGHT_K4 || format == WEIGHT_K5) {
        scale *= (float)row->block_scales[k / WEIGHT_GROUP];
        below = row->minimums[k / group] * (float)row->block_minimums[k / WEIGHT_GROUP];
    }
    return (float)row->codes[k] * scale - below;
}

static void expect_rows(const struct checkpoint *checkpoint, const struct checkpoint_tensor *tensor,
                        const struct blocks_range *range, size_t row, size_t n_rows)
{
    static struct code_rows got;
    enum weight_format format;
    uint32_t group;
    assert_true(blocks_format(tensor, &format, &group));
    code_rows_clear(&got);
    for (size_t r = 0; r < n_rows && blocks_are_whole(tensor); r++)
        got.rows[r].blocks = got.blocks + r * (range->n / WEIGHT_GROUP * WEIGHT_BLOCK_BYTES);
    expect_ok(blocks_read(checkpoint, tensor, range, row, n_rows, got.rows));
    for (size_t r = 0; r < n_rows; r++) {
        float want[ROW_VALUES];
        if (got.rows[r].blocks)
            take_blocks(&got.rows[r], range->n);
        expect_ok(
            checkpoint_read_f32(checkpoint, tensor, (row + r) * ROW_VALUES + range->first, range->n, want));
        for (size_t k = 0; k < range->n; k++) {
            if (code_value(format, range->group, &got.rows[r], k) != want[k])
                fail_msg("type %d, groups of %u, row %zu, value %zu", (int)format, range->group, row + r, k);
        }
    }
}

/* Whole rows, several at once, and ranges of them in groups that are parts of blocks. */
static void rows_of_codes(void **state)
{
    (void)state;
    static uint8_t bytes[ROWS * ROW_VALUES * 2];
    static const uint32_t types[] = {BLOCK_Q4_0, BLOCK_Q4_1, BLOCK_Q5_0, BLOCK_Q5_1,
                                     BLOCK_Q8_0, BLOCK_Q4_K, BLOCK_Q5_K, BLOCK_Q6_K};
    struct rng rng = rng_make(12);
    for (size_t t = 0; t < sizeof types / sizeof types[0]; t++) {
        const struct gguf_tensor_format *format = gguf_tensor_format(types[t]);
        const uint64_t dims[] = {ROW_VALUES, ROWS};
        size_t n = ROW_VALUES * ROWS / format->block_values, scale_at = types[t] == BLOCK_Q6_K ? 208 : 0;
        for (size_t i = 0; i < n * format->block_bytes; i++)
            bytes[i] = (uint8_t)rng_below(&rng, 256);
        for (size_t b = 0; b < n; b++) { /* finite; where there is no minimum, two bytes of codes */
            bytes[b * format->block_bytes + scale_at + 1] &= 0x3f;
            bytes[b * format->block_bytes + (scale_at + 3) % format->block_bytes] &= 0x3f;
        }
        struct gguf_builder builder = {0};
        builder_tensor(&builder, "w", types[t], dims, 2, bytes, n * format->block_bytes);
        struct buffer file = builder_finish(&builder);
        char path[64];
        builder_write_temporary(&file, path);
        struct checkpoint *checkpoint;
        expect_ok(checkpoint_open(path, &checkpoint));
        const struct checkpoint_tensor *tensor = checkpoint_find(checkpoint, "w");
        const struct blocks_range whole = {ROW_VALUES, 0, ROW_VALUES, format->block_values};
        const struct blocks_range ends = {ROW_VALUES, 96, 704, WEIGHT_GROUP};
        const struct blocks_range half = {ROW_VALUES, ROW_VALUES / 2, ROW_VALUES / 2, format->block_values};
        expect_rows(checkpoint, tensor, &whole, 0, ROWS);
        expect_rows(checkpoint, tensor, &whole, 1, 1);
        expect_rows(checkpoint, tensor, &ends, 1, ROWS - 1);
        expect_rows(checkpoint, tensor, &half, 0, ROWS);
        checkpoint_close(checkpoint);
        assert_int_equal(unlink(path), 0);
    }
}

static void type_that_is_not_read(void **state)
{
    (void)state;
    static const uint8_t bytes[84];
    struct gguf_builder builder = {0};
    builder_tensor(&builder, "w", 10, (uint64_t[]){256}, 1, bytes, sizeof bytes);
    struct buffer file = builder_finish(&builder);
    char path[64];
    builder_write_temporary(&file, path);
    struct checkpoint *checkpoint;
    expect_ok(checkpoint_open(path, &checkpoint));
    const struct checkpoint_tensor *tensor = checkpoint_find(checkpoint, "w");
    assert_false(checkpoint_can_read(tensor));
    assert_string_equal(tensor_dtype_name(tensor->info->dtype), "Q2_K");
    checkpoint_close(checkpoint);
    assert_int_equal(unlink(path), 0);
}

/* What ggml makes of weights, the largest with code -8 or +-127, comes back from --quantization int4 or int8
 * with the same codes and scale. */
static void requantised_blocks_are_the_same(void **state)
{
    (void)state;
    struct rng rng = rng_make(21);
    for (int round = 0; round < 2000; round++) {
        bool int4 = round % 2;
        uint8_t block[34] = {0};
        float values[BLOCK_VALUES_MAX];
        int8_t codes[32], want[32];
        uint16_t scale = f16_from_f32(rng_normal(&rng) * 0.02f);
        block[0] = (uint8_t)scale;
        block[1] = (uint8_t)(scale >> 8);
        for (int i = 0; i < 32; i++)
            want[i] = (int8_t)(int4 ? (int)rng_below(&rng, 16) - 8 : (int)rng_below(&rng, 255) - 127);
        want[rng_below(&rng, 32)] = int4 ? -8 : 127;
        for (int i = 0; i < 32; i++) {
            if (!int4)
                block[2 + i] = (uint8_t)want[i];
            else if (i < 16)
                block[2 + i] = (uint8_t)((want[i] + 8) | (want[i + 16] + 8) << 4);
        }
        block_dequantize(int4 ? BLOCK_Q4_0 : BLOCK_Q8_0)(block, values);
        uint16_t got =
            int4 ? quantize_group_int4_ref(values, 32, codes) : quantize_group_int8_ref(values, 32, codes);
        float sign = !int4 && f16_to_f32(scale) < 0 ? -1.0f : 1.0f; /* int8 scales are positive */
        assert_true(f16_to_f32(got) == sign * f16_to_f32(scale));
        for (int i = 0; i < 32; i++)
            assert_int_equal(codes[i], (int)sign * want[i]);
    }
}

/* ---- Metadata ---- */

/* What a test changes in the metadata of a small Gemma 3. */
struct changes {
    const char *left_out; /* a key that is not written */
    const char *key;      /* a key with another value, or one more */
    uint32_t value;
    const char *text; /* instead of value */
    const char *architecture;
    bool bare; /* no embedding */
};

static void put_u32(struct gguf_builder *b, const struct changes *changes, const char *key, uint32_t value)
{
    bool changed = changes->key && strcmp(key, changes->key) == 0;
    if (!changed && !(changes->left_out && strcmp(key, changes->left_out) == 0))
        builder_u32(b, key, value);
}

static struct buffer make_file(const struct changes *changes)
{
    static const float zeros[16 * 40];
    struct gguf_builder b = {0};
    if (!changes->left_out || strcmp(changes->left_out, "general.architecture") != 0)
        builder_text(&b, "general.architecture", changes->architecture ? changes->architecture : "gemma3");
    put_u32(&b, changes, "gemma3.context_length", 128);
    put_u32(&b, changes, "gemma3.embedding_length", 16);
    put_u32(&b, changes, "gemma3.block_count", 7);
    put_u32(&b, changes, "gemma3.feed_forward_length", 24);
    put_u32(&b, changes, "gemma3.attention.head_count", 4);
    put_u32(&b, changes, "gemma3.attention.head_count_kv", 2);
    put_u32(&b, changes, "gemma3.attention.key_length", 8);
    put_u32(&b, changes, "gemma3.attention.sliding_window", 12);
    if (!changes->left_out || !strstr(changes->left_out, "epsilon"))
        builder_f32(&b, "gemma3.attention.layer_norm_rms_epsilon", 1e-6f);
    if (changes->text)
        builder_text(&b, changes->key, changes->text);
    else if (changes->key)
        builder_u32(&b, changes->key, changes->value);
    if (!changes->bare)
        builder_tensor(&b, "token_embd.weight", 0, (uint64_t[]){16, 40}, 2, zeros, sizeof zeros);
    return builder_finish(&b);
}

static err_t parse(const struct changes *changes, struct model_config *out)
{
    struct buffer file = make_file(changes);
    struct gguf gguf;
    expect_ok(gguf_parse("m.gguf", (const uint8_t *)file.data, file.size, &gguf));
    err_t e = gguf_config_parse(&gguf, out);
    gguf_close(&gguf);
    buffer_free(&file);
    return e;
}

static void metadata_of_gemma(void **state)
{
    (void)state;
    static struct model_config config;
    expect_ok(parse(&(struct changes){0}, &config));
    assert_string_equal(config.family->architecture, "Gemma3ForCausalLM");
    assert_int_equal(config.vocab_size, 40);
    assert_int_equal(config.head_dim, 8);
    assert_int_equal(config.window, 12);
    for (uint32_t i = 0; i < config.n_layers; i++)
        assert_int_equal(model_config_is_windowed(&config, i), i != 5);
    assert_true(config.tie_word_embeddings && config.has_local_rope && !config.norm_one_plus);
    assert_true(config.rope.theta == 1e6 && config.local_rope.theta == 1e4);
    assert_float_equal(config.attention_scale, 1 / sqrtf(8.0f), 1e-7);
    assert_string_equal(config.names->q, "attn_q");
    expect_ok(parse(&(struct changes){.key = "gemma3.block_count", .value = 62}, &config));
    assert_float_equal(config.attention_scale, 0.5f, 1e-7); /* the largest Gemma 3 */
}

static void wrong_metadata(void **state)
{
    (void)state;
    static const struct {
        struct changes changes;
        enum err_code code;
        const char *text;
    } cases[] = {
        {{.left_out = "general.architecture"}, ERR_INVALID_ARGUMENT, "\"general.architecture\" is missing"},
        {{.architecture = "mamba"},
         ERR_UNIMPLEMENTED,
         "architecture \"mamba\" is not known; known are llama"},
        {{.left_out = "gemma3.block_count"}, ERR_INVALID_ARGUMENT, "\"gemma3.block_count\" is missing"},
        {{.left_out = "gemma3.attention.layer_norm_rms_epsilon"},
         ERR_INVALID_ARGUMENT,
         "epsilon\" is missing"},
        {{.key = "gemma3.block_count", .value = 0}, ERR_INVALID_ARGUMENT, "\"gemma3.block_count\" is 0"},
        {{.key = "gemma3.block_count", .text = "7"},
         ERR_INVALID_ARGUMENT,
         "\"gemma3.block_count\" must be an integer"},
        {{.key = "gemma3.attention.head_count", .value = 3}, ERR_INVALID_ARGUMENT, "must be a multiple"},
        {{.key = "gemma3.attention.value_length", .value = 16}, ERR_UNIMPLEMENTED, "value_length\" is 16"},
        {{.key = "gemma3.rope.dimension_count", .value = 4},
         ERR_UNIMPLEMENTED,
         "only rotation of whole heads"},
        {{.key = "gemma3.expert_count", .value = 8}, ERR_UNIMPLEMENTED, "mixtures of experts"},
        {{.key = "gemma3.rope.scaling.type", .text = "yarn"}, ERR_UNIMPLEMENTED, "\"yarn\" is not known"},
        {{.key = "gemma3.rope.scaling.type", .text = "linear"},
         ERR_INVALID_ARGUMENT,
         "scaling.factor\" is missing"},
        {{.key = "split.count", .value = 3}, ERR_UNIMPLEMENTED, "one of 3 files"},
        {{.bare = true}, ERR_NOT_FOUND, "\"token_embd.weight\" is missing"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        static struct model_config config;
        err_t e = parse(&cases[i].changes, &config);
        if (e.code != cases[i].code || !strstr(e.message, cases[i].text) || !strstr(e.message, "m.gguf"))
            fail_msg("case %zu: expected %s with \"%s\", got %s: %s", i, err_code_name(cases[i].code),
                     cases[i].text, err_code_name(e.code), e.code == ERR_OK ? "" : e.message);
    }
}

static void ends_of_answers(void **state)
{
    (void)state;
    static const char *const tokens[] = {"<pad>", "<eos>", "<bos>", "a", "<end_of_turn>"};
    static const int32_t types[] = {3, 3, 3, 1, 3};
    struct gguf_builder b = {0};
    builder_texts(&b, "tokenizer.ggml.tokens", tokens, 5);
    builder_array(&b, "tokenizer.ggml.token_type", GGUF_I32, types, 4, 5);
    builder_u32(&b, "tokenizer.ggml.bos_token_id", 2);
    builder_u32(&b, "tokenizer.ggml.eos_token_id", 1);
    builder_u32(&b, "tokenizer.ggml.padding_token_id", 0);
    struct buffer file = builder_finish(&b);
    char path[64];
    builder_write_temporary(&file, path);
    struct generation_config config;
    expect_ok(gguf_generation_load(path, 5, &config));
    assert_int_equal(config.n_eos_token_ids, 2);
    assert_int_equal(config.eos_token_ids[0], 1);
    assert_int_equal(config.eos_token_ids[1], 4);
    assert_int_equal(config.bos_token_id, 2);
    assert_int_equal(config.pad_token_id, 0);
    err_t e = gguf_generation_load(path, 1, &config);
    assert_int_equal(e.code, ERR_INVALID_ARGUMENT);
    assert_non_null(strstr(e.message, "tokenizer.ggml.bos_token_id"));
    assert_int_equal(unlink(path), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(blocks_equal_goldens),  cmocka_unit_test(ranges_of_blocks),
        cmocka_unit_test(type_that_is_not_read), cmocka_unit_test(requantised_blocks_are_the_same),
        cmocka_unit_test(metadata_of_gemma),     cmocka_unit_test(wrong_metadata),
        cmocka_unit_test(ends_of_answers),       cmocka_unit_test(rows_of_codes),
    };
    return cmocka_run_group_tests_name("gguf_model", tests, NULL, NULL);
}
