/* Checkpoints that are wrong in one way: the error names file and tensor, and nothing crashes. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>
#include "base/alloc.h"
#include "base/philox.h"
#include "model/checkpoint.h"
#include "tests/model/broken_model.h"

#define FILE_NAME  "model.safetensors"
#define INDEX_NAME "model.safetensors.index.json"
#define Q_PROJ     "model.layers.0.self_attn.q_proj.weight" /* [64, 64] */
#define K_PROJ     "model.layers.0.self_attn.k_proj.weight" /* [32, 64] */
#define NORM       "model.norm.weight"                      /* [64] */

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

static err_t load(void)
{
    return broken_model_load(&broken, NULL);
}

static void set_field(const char *tensor, const char *field, const char *json_text)
{
    json_t *value = json_loads(json_text, JSON_DECODE_ANY, NULL);
    assert_non_null(value);
    json_object_set_new(broken_model_tensor(&broken, tensor), field, value);
}

/* Loads with one field of one tensor changed in the header, then changes it back. */
static err_t load_with(const char *tensor, const char *field, const char *json_text)
{
    json_t *before = json_deep_copy(json_object_get(broken_model_tensor(&broken, tensor), field));
    set_field(tensor, field, json_text);
    broken_model_write(&broken);
    json_object_set_new(broken_model_tensor(&broken, tensor), field, before);
    return load();
}

static void data_range(const char *tensor, json_int_t *begin, json_int_t *end)
{
    const json_t *offsets = json_object_get(broken_model_tensor(&broken, tensor), "data_offsets");
    *begin = json_integer_value(json_array_get(offsets, 0));
    *end = json_integer_value(json_array_get(offsets, 1));
}

static void missing_files(void **state)
{
    (void)state;
    broken_model_delete_file(&broken, FILE_NAME);
    expect_error(load(), ERR_NOT_FOUND, broken.directory, FILE_NAME, INDEX_NAME, NULL);
    struct model_options options = broken_model_options(&broken);
    options.directory = "/nonexistent/model";
    expect_error(broken_model_load(&broken, &options), ERR_NOT_FOUND, "/nonexistent/model/config.json", NULL);
}

static void truncated_files(void **state)
{
    (void)state;
    char path[512];
    snprintf(path, sizeof path, "%s/%s", broken.directory, FILE_NAME);
    const long lengths[] = {(long)broken.data_bytes, 5000, 1000, 100, 9, 8, 7, 1, 0};
    for (size_t i = 0; i < sizeof lengths / sizeof lengths[0]; i++) {
        assert_int_equal(truncate(path, lengths[i]), 0);
        expect_error(load(), ERR_DATA_LOSS, FILE_NAME, NULL);
    }
    /* One byte short: the last tensor is the one that suffers. */
    broken.data_bytes--;
    broken_model_write(&broken);
    expect_error(load(), ERR_DATA_LOSS, FILE_NAME, "tensor \"", "truncated", NULL);
}

static void truncate_now(const struct memory_plan *plan)
{
    (void)plan;
    char path[512];
    snprintf(path, sizeof path, "%s/%s", broken.directory, FILE_NAME);
    assert_int_equal(truncate(path, 40000), 0);
}

static void truncated_after_the_header_was_read(void **state)
{
    (void)state;
    struct model_options options = broken_model_options(&broken);
    struct model *model;
    expect_error(model_load(&options, truncate_now, &model), ERR_DATA_LOSS, FILE_NAME, "tensor \"",
                 "truncated", NULL);
}

static void headers_that_lie(void **state)
{
    (void)state;
    static const uint8_t data[64];
    broken_model_write_safetensors(&broken, FILE_NAME, "{}", data, sizeof data, UINT64_MAX);
    expect_error(load(), ERR_DATA_LOSS, FILE_NAME, "18446744073709551615", "100000000", NULL);
    broken_model_write_safetensors(&broken, FILE_NAME, "{}", data, sizeof data, 100000001);
    expect_error(load(), ERR_DATA_LOSS, FILE_NAME, "100000001", NULL);
    broken_model_write_safetensors(&broken, FILE_NAME, "{}", data, sizeof data, 100000000);
    expect_error(load(), ERR_DATA_LOSS, FILE_NAME, "truncated", NULL);
    broken_model_write_safetensors(&broken, FILE_NAME, "{}", data, sizeof data, 67);
    expect_error(load(), ERR_DATA_LOSS, FILE_NAME, "truncated", NULL);
    broken_model_write_safetensors(&broken, FILE_NAME, "{}", data, sizeof data, 66);
    expect_error(load(), ERR_DATA_LOSS, FILE_NAME, "not valid JSON", NULL);
    broken_model_write_safetensors(&broken, FILE_NAME, "{}", data, sizeof data, 0);
    expect_error(load(), ERR_DATA_LOSS, FILE_NAME, "64 bytes after the last tensor", NULL);
    broken_model_write_safetensors(&broken, FILE_NAME, "[]", data, 0, 0);
    expect_error(load(), ERR_DATA_LOSS, FILE_NAME, "not a safetensors file", NULL);
    broken_model_write_safetensors(&broken, FILE_NAME, "", data, 0, 0);
    expect_error(load(), ERR_DATA_LOSS, FILE_NAME, NULL);
    broken_model_write_safetensors(&broken, FILE_NAME, "{\"a\":{\"dtype\":\"F32\"}", data, 0, 0);
    expect_error(load(), ERR_DATA_LOSS, FILE_NAME, "not valid JSON", NULL);
    broken_model_write_safetensors(&broken, FILE_NAME, "{}", data, 0, 0);
    expect_error(load(), ERR_NOT_FOUND, "model.layers.0.self_attn.q_proj.weight", "missing", NULL);
}

static void names_that_lie(void **state)
{
    (void)state;
    static const uint8_t data[8];
    broken_model_write_safetensors(&broken, FILE_NAME,
                                   "{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]},"
                                   "\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[4,8]}}",
                                   data, 8, 0);
    expect_error(load(), ERR_DATA_LOSS, FILE_NAME, "duplicate", "\"a\"", NULL);
    broken_model_write_safetensors(&broken, FILE_NAME,
                                   "{\"\xff\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]}}",
                                   data, 4, 0);
    expect_error(load(), ERR_DATA_LOSS, FILE_NAME, "decode byte", NULL);
    broken_model_write_safetensors(
        &broken, FILE_NAME, "{\"\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]}}", data, 4, 0);
    expect_error(load(), ERR_DATA_LOSS, FILE_NAME, "name", NULL);
    broken_model_write_safetensors(&broken, FILE_NAME,
                                   "{\"a\\u0000b\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]}}",
                                   data, 4, 0);
    expect_error(load(), ERR_DATA_LOSS, FILE_NAME, NULL);
}

static void offsets_that_lie(void **state)
{
    (void)state;
    json_int_t begin, end;
    char text[128];
    data_range(K_PROJ, &begin, &end);
    snprintf(text, sizeof text, "[%lld,%lld]", (long long)begin - 2, (long long)end - 2);
    expect_error(load_with(K_PROJ, "data_offsets", text), ERR_DATA_LOSS, FILE_NAME, "tensor \"", "overlaps",
                 NULL);
    snprintf(text, sizeof text, "[%lld,%lld]", (long long)end, (long long)begin);
    expect_error(load_with(K_PROJ, "data_offsets", text), ERR_DATA_LOSS, FILE_NAME, K_PROJ, "after end",
                 NULL);
    snprintf(text, sizeof text, "[%lld,%lld]", (long long)begin, (long long)broken.data_bytes + 1);
    expect_error(load_with(K_PROJ, "data_offsets", text), ERR_DATA_LOSS, FILE_NAME, K_PROJ, "truncated",
                 NULL);
    snprintf(text, sizeof text, "[%lld,%lld]", (long long)begin, (long long)end + 2);
    expect_error(load_with(K_PROJ, "data_offsets", text), ERR_DATA_LOSS, FILE_NAME, K_PROJ,
                 "data_offsets give", NULL);
    static const char *const malformed[] = {"[-4,0]",   "[0]", "[0,4,8]",       "\"0,4\"", "[0.0,4.0]",
                                            "[null,4]", "{}",  "[\"0\",\"4\"]", "null"};
    for (size_t i = 0; i < sizeof malformed / sizeof malformed[0]; i++)
        expect_error(load_with(K_PROJ, "data_offsets", malformed[i]), ERR_DATA_LOSS, FILE_NAME, K_PROJ,
                     "data_offsets", NULL);
    expect_error(load_with(K_PROJ, "data_offsets", "[0,9223372036854775807]"), ERR_DATA_LOSS, FILE_NAME,
                 K_PROJ, NULL);
}

/* A tensor between two others taken out of the header leaves a hole in the data. */
static void holes(void **state)
{
    (void)state;
    json_object_del(broken.header, K_PROJ);
    broken_model_write(&broken);
    expect_error(load(), ERR_DATA_LOSS, FILE_NAME, "hole", "tensor \"", NULL);
}

static void shapes_that_lie(void **state)
{
    (void)state;
    expect_error(load_with(K_PROJ, "shape", "[4194305, 4194305, 211106198978564]"), ERR_DATA_LOSS, FILE_NAME,
                 K_PROJ, "overflows", "[4194305, 4194305, 211106198978564]", NULL);
    expect_error(load_with(K_PROJ, "shape", "[9223372036854775807, 2]"), ERR_DATA_LOSS, FILE_NAME, K_PROJ,
                 "overflows", NULL);
    expect_error(load_with(K_PROJ, "shape", "[32, 65]"), ERR_DATA_LOSS, FILE_NAME, K_PROJ, "[32, 65]", NULL);
    expect_error(load_with(K_PROJ, "shape", "[32, -64]"), ERR_DATA_LOSS, FILE_NAME, K_PROJ, "shape", NULL);
    expect_error(load_with(K_PROJ, "shape", "[1,1,1,1,1,1,1,32,64]"), ERR_DATA_LOSS, FILE_NAME, K_PROJ,
                 "shape", NULL);
    expect_error(load_with(K_PROJ, "shape", "2048"), ERR_DATA_LOSS, FILE_NAME, K_PROJ, "shape", NULL);
    expect_error(load_with(K_PROJ, "shape", "null"), ERR_DATA_LOSS, FILE_NAME, K_PROJ, "shape", NULL);
    expect_error(load_with(K_PROJ, "shape", "[64, 32]"), ERR_INVALID_ARGUMENT, FILE_NAME, K_PROJ,
                 "has shape [64, 32]", "[32, 64]", NULL);
    expect_error(load_with(K_PROJ, "shape", "[2048]"), ERR_INVALID_ARGUMENT, FILE_NAME, K_PROJ,
                 "has shape [2048]", NULL);
    expect_error(load_with(K_PROJ, "shape", "[32, 64, 1]"), ERR_INVALID_ARGUMENT, FILE_NAME, K_PROJ,
                 "[32, 64, 1]", NULL);
    expect_error(load_with(NORM, "shape", "[1, 64]"), ERR_INVALID_ARGUMENT, FILE_NAME, NORM, "[1, 64]",
                 "[64]", NULL);
}

static void dtypes_that_lie(void **state)
{
    (void)state;
    expect_error(load_with(Q_PROJ, "dtype", "\"I16\""), ERR_INVALID_ARGUMENT, FILE_NAME, Q_PROJ, "I16",
                 "F32, F16 or BF16", NULL);
    expect_error(load_with(NORM, "dtype", "\"U16\""), ERR_INVALID_ARGUMENT, FILE_NAME, NORM, "U16", NULL);
    expect_error(load_with(Q_PROJ, "dtype", "\"F32\""), ERR_DATA_LOSS, FILE_NAME, Q_PROJ, "F32", NULL);
    expect_error(load_with(Q_PROJ, "dtype", "\"BF17\""), ERR_DATA_LOSS, FILE_NAME, Q_PROJ, "BF17", NULL);
    expect_error(load_with(Q_PROJ, "dtype", "16"), ERR_DATA_LOSS, FILE_NAME, Q_PROJ, "dtype", NULL);
    expect_error(load_with(Q_PROJ, "dtype", "null"), ERR_DATA_LOSS, FILE_NAME, Q_PROJ, "dtype", NULL);
}

static void missing_tensors(void **state)
{
    (void)state;
    json_t *q = json_incref(broken_model_tensor(&broken, Q_PROJ));
    json_object_del(broken.header, Q_PROJ);
    json_object_set_new(broken.header, "something.else", q);
    broken_model_write(&broken);
    expect_error(load(), ERR_NOT_FOUND, broken.directory, Q_PROJ, "missing", NULL);
    json_object_set(broken.header, Q_PROJ, q);
    json_object_del(broken.header, "something.else");

    json_t *head = json_incref(broken_model_tensor(&broken, "lm_head.weight"));
    json_object_del(broken.header, "lm_head.weight");
    json_object_set_new(broken.header, "unused", head);
    broken_model_write(&broken);
    expect_error(load(), ERR_NOT_FOUND, "lm_head.weight", "tie_word_embeddings", NULL);

    /* Qwen2 has biases that this checkpoint lacks. */
    json_object_set_new(broken.config, "architectures", json_pack("[s]", "Qwen2ForCausalLM"));
    broken_model_write(&broken);
    expect_error(load(), ERR_NOT_FOUND, "model.layers.0.self_attn.q_proj.bias", NULL);
}

static void more_layers_than_tensors(void **state)
{
    (void)state;
    json_object_set_new(broken.config, "num_hidden_layers", json_integer(3));
    broken_model_write(&broken);
    expect_error(load(), ERR_NOT_FOUND, "model.layers.2.", "missing", NULL);
    json_object_set_new(broken.config, "num_hidden_layers", json_integer(1));
    broken_model_write(&broken);
    assert_int_equal(load().code, ERR_OK); /* layer 1 is named in a warning */
}

static void values_that_are_none(void **state)
{
    (void)state;
    json_int_t begin, end;
    data_range(Q_PROJ, &begin, &end);
    uint16_t *values = (uint16_t *)(broken.data + begin);
    const uint16_t nan_bf16 = 0x7fc0, infinity_bf16 = 0xff80, large_bf16 = 0x4900; /* 524288 */
    const uint16_t before = values[64 * 5 + 3];
    const uint16_t bad[] = {nan_bf16, infinity_bf16};
    for (size_t i = 0; i < 2; i++) {
        values[64 * 5 + 3] = bad[i];
        broken_model_write(&broken);
        expect_error(load(), ERR_DATA_LOSS, FILE_NAME, Q_PROJ, "row 5", "NaN or infinity", NULL);
    }
    values[64 * 5 + 3] = large_bf16;
    broken_model_write(&broken);
    struct model_options options = broken_model_options(&broken);
    options.dtype = MODEL_DTYPE_F16;
    expect_error(broken_model_load(&broken, &options), ERR_INVALID_ARGUMENT, FILE_NAME, Q_PROJ, "row 5",
                 "float16", NULL);
    assert_int_equal(load().code, ERR_OK);
    values[64 * 5 + 3] = before;
    data_range(NORM, &begin, &end);
    ((uint16_t *)(broken.data + begin))[9] = nan_bf16;
    broken_model_write(&broken);
    expect_error(load(), ERR_DATA_LOSS, FILE_NAME, NORM, "NaN or infinity", NULL);
}

/* ---- Shards ---- */

static void write_index(const char *text)
{
    broken_model_write_file(&broken, INDEX_NAME, text, strlen(text));
}

static void write_shard(const char *name, const char *tensor)
{
    static const uint8_t data[4];
    char header[256];
    snprintf(header, sizeof header, "{\"%s\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]}}",
             tensor);
    broken_model_write_safetensors(&broken, name, header, data, sizeof data, 0);
}

static void shards_that_lie(void **state)
{
    (void)state;
    broken_model_delete_file(&broken, FILE_NAME);
    write_shard("one.safetensors", "a");
    write_shard("two.safetensors", "b");
    write_index("{\"weight_map\":{\"a\":\"one.safetensors\",\"b\":\"three.safetensors\"}}");
    expect_error(load(), ERR_NOT_FOUND, "three.safetensors", "tensor \"b\"", NULL);
    write_index("{\"weight_map\":{\"a\":\"one.safetensors\",\"c\":\"two.safetensors\"}}");
    expect_error(load(), ERR_DATA_LOSS, INDEX_NAME, "tensor \"c\"", "two.safetensors", NULL);
    write_index("{\"weight_map\":{\"a\":\"two.safetensors\",\"b\":\"one.safetensors\"}}");
    expect_error(load(), ERR_DATA_LOSS, INDEX_NAME, "tensor \"a\"", NULL);
    write_shard("two.safetensors", "a");
    write_index("{\"weight_map\":{\"a\":\"one.safetensors\",\"b\":\"two.safetensors\"}}");
    expect_error(load(), ERR_DATA_LOSS, "tensor \"a\"", "one.safetensors", "two.safetensors", NULL);
    static const char *const paths[] = {"../one.safetensors", "/etc/passwd", "sub/one.safetensors", "..", ""};
    for (size_t i = 0; i < sizeof paths / sizeof paths[0]; i++) {
        char text[128];
        snprintf(text, sizeof text, "{\"weight_map\":{\"a\":\"%s\"}}", paths[i]);
        write_index(text);
        expect_error(load(), ERR_INVALID_ARGUMENT, INDEX_NAME, "tensor \"a\"", "plain file name", NULL);
    }
    write_index("{\"weight_map\":{\"a\":3}}");
    expect_error(load(), ERR_DATA_LOSS, INDEX_NAME, "tensor \"a\"", NULL);
    write_index("{\"weight_map\":{}}");
    expect_error(load(), ERR_DATA_LOSS, INDEX_NAME, "weight_map", NULL);
    write_index("{}");
    expect_error(load(), ERR_DATA_LOSS, INDEX_NAME, "weight_map", NULL);
    write_index("{\"weight_map\":");
    expect_error(load(), ERR_DATA_LOSS, INDEX_NAME, "not valid JSON", NULL);
}

static void too_many_shards(void **state)
{
    (void)state;
    broken_model_delete_file(&broken, FILE_NAME);
    enum { TEXT_MAX = 100 * 1024 };
    char *text = mem_alloc(TEXT_MAX);
    assert_non_null(text);
    size_t used = (size_t)snprintf(text, TEXT_MAX, "{\"weight_map\":{");
    for (int i = 0; i <= CHECKPOINT_SHARDS_MAX; i++) {
        char name[32], tensor[32];
        snprintf(name, sizeof name, "s%d.safetensors", i);
        snprintf(tensor, sizeof tensor, "t%d", i);
        write_shard(name, tensor);
        used += (size_t)snprintf(text + used, TEXT_MAX - used, "%s\"%s\":\"%s\"", i ? "," : "", tensor, name);
    }
    snprintf(text + used, TEXT_MAX - used, "}}");
    write_index(text);
    mem_free(text);
    expect_error(load(), ERR_RESOURCE_EXHAUSTED, INDEX_NAME, "1024 shards", NULL);
}

/* ---- Anything at all ---- */

/* Bytes of the header flipped at random: an error or a model, and the errors speak of the file. */
static void flipped_bytes(void **state)
{
    (void)state;
    static char good[1 << 16], bad[1 << 16];
    size_t n = json_dumpb(broken.header, good, sizeof good - 1, JSON_COMPACT);
    assert_true(n > 0 && n < sizeof good);
    struct rng rng = rng_make(3);
    unsigned n_errors = 0;
    for (int i = 0; i < 400; i++) {
        memcpy(bad, good, n);
        for (uint32_t flips = 1 + rng_below(&rng, 3); flips > 0; flips--)
            bad[rng_below(&rng, (uint32_t)n)] ^= (char)(1 << rng_below(&rng, 7));
        for (size_t b = 0; b < n; b++)
            bad[b] = bad[b] ? bad[b] : ' '; /* the writer takes text */
        bad[n] = '\0';
        broken_model_write_safetensors(&broken, FILE_NAME, bad, broken.data, broken.data_bytes, 0);
        n_errors += load().code != ERR_OK;
    }
    assert_true(n_errors > 300);
}

/* Each allocation of a load fails once: an error that says so, and nothing is lost (the address sanitizer
 * watches). Only asking the system how much memory there is gets along without. */
static void failing_allocations(void **state)
{
    (void)state;
    struct model_options options = broken_model_options(&broken);
    options.quantization = MODEL_QUANT_INT8;
    uint64_t before = mem_alloc_count();
    assert_int_equal(broken_model_load(&broken, &options).code, ERR_OK);
    int64_t n_allocations = (int64_t)(mem_alloc_count() - before);
    int64_t n_failed = 0;
    for (int64_t nth = 0; nth < n_allocations; nth++) {
        mem_fail_nth(nth);
        err_t e = broken_model_load(&broken, &options);
        mem_fail_nth(-1);
        if (e.code == ERR_OK)
            continue;
        expect_error(e, ERR_RESOURCE_EXHAUSTED, "memory", NULL);
        n_failed++;
    }
    assert_true(n_failed > 50 && n_failed > n_allocations - 20);
}

#define TEST(function) cmocka_unit_test_setup_teardown(function, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(missing_files),
        TEST(truncated_files),
        TEST(truncated_after_the_header_was_read),
        TEST(headers_that_lie),
        TEST(names_that_lie),
        TEST(offsets_that_lie),
        TEST(holes),
        TEST(shapes_that_lie),
        TEST(dtypes_that_lie),
        TEST(missing_tensors),
        TEST(more_layers_than_tensors),
        TEST(values_that_are_none),
        TEST(shards_that_lie),
        TEST(too_many_shards),
        TEST(flipped_bytes),
        TEST(failing_allocations),
    };
    return cmocka_run_group_tests_name("bad checkpoint", tests, NULL, NULL);
}
