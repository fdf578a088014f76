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
#include "base/alloc.h"
#include "base/float16.h"
#include "base/philox.h"
#include "engine/packed_model.h"
#include "model/block_formats.h"
#include "tests/base/gguf_builder.h"
#include "tests/model/model_driver.h"

enum { HIDDEN = 256, HEADS = 4, KV_HEADS = 2, HEAD_DIM = 64, MLP = 768, VOCAB = 320, PROMPT = 40, F32 = 0 };

/* What a test changes. */
struct variation {
    uint32_t mlp, down_type;
    bool broken_scale; /* of the value projection */
};
static const struct variation as_it_should_be = {MLP, BLOCK_Q5_K, false};

static char path[64];
static uint64_t blocks_bytes;

/* Scales that give weights of about 0.05, whatever the type. */
static void put_scales(uint32_t type, uint8_t *block)
{
    static const struct {
        uint32_t type, scale_at;
        float scale, minimum; /* minimum: of those types that have one, at byte 2 */
    } of[] = {
        {BLOCK_Q4_0, 0, 0.01f, 0},       {BLOCK_Q4_1, 0, 0.01f, -0.075f}, {BLOCK_Q5_0, 0, 0.005f, 0},
        {BLOCK_Q5_1, 0, 0.005f, -0.08f}, {BLOCK_Q8_0, 0, 0.0006f, 0},     {BLOCK_Q4_K, 0, 3e-4f, 2.2e-3f},
        {BLOCK_Q5_K, 0, 1.5e-4f, 2e-3f}, {BLOCK_Q6_K, 208, 3.1e-5f, 0},
    };
    for (size_t i = 0; i < sizeof of / sizeof of[0]; i++) {
        if (of[i].type != type)
            continue;
        uint16_t scale = f16_from_f32(of[i].scale), minimum = f16_from_f32(of[i].minimum);
        memcpy(block + of[i].scale_at, &scale, 2);
        if (of[i].minimum != 0)
            memcpy(block + 2, &minimum, 2);
    }
}

static void put_matrix(struct gguf_builder *b, struct rng *rng, const char *name, uint32_t type,
                       uint64_t n_in, uint64_t n_out, bool broken_scale)
{
    const struct gguf_tensor_format *format = gguf_tensor_format(type);
    size_t n = n_in * n_out / format->block_values, size_bytes = n * format->block_bytes;
    uint8_t *bytes = mem_alloc(size_bytes);
    assert_non_null(bytes);
    for (size_t i = 0; i < size_bytes; i++)
        bytes[i] = (uint8_t)rng_below(rng, 256);
    for (size_t i = 0; i < n; i++)
        put_scales(type, bytes + i * format->block_bytes);
    if (broken_scale)
        memset(bytes + (n / 2) * format->block_bytes + (type == BLOCK_Q6_K ? 208 : 0), 0xff, 2); /* NaN */
    builder_tensor(b, name, type, (uint64_t[]){n_in, n_out}, 2, bytes, size_bytes);
    blocks_bytes += size_bytes;
    mem_free(bytes);
}

static void put_layer(struct gguf_builder *b, struct rng *rng, int layer, const struct variation *variation)
{
    static float ones[HIDDEN];
    for (size_t i = 0; i < HIDDEN; i++)
        ones[i] = 1.0f;
    const struct {
        const char *name;
        uint32_t type;
        uint64_t n_in, n_out;
        bool broken;
    } matrices[] = {
        {"attn_q", BLOCK_Q4_K, HIDDEN, HEADS * HEAD_DIM, false},
        {"attn_k", BLOCK_Q5_0, HIDDEN, KV_HEADS * HEAD_DIM, false},
        {"attn_v", BLOCK_Q6_K, HIDDEN, KV_HEADS * HEAD_DIM, variation->broken_scale},
        {"attn_output", BLOCK_Q8_0, HEADS * HEAD_DIM, HIDDEN, false},
        {"ffn_gate", layer == 0 ? BLOCK_Q4_1 : BLOCK_Q4_0, HIDDEN, variation->mlp, false},
        {"ffn_up", layer == 0 ? BLOCK_Q5_1 : BLOCK_Q4_0, HIDDEN, variation->mlp, false},
        {"ffn_down", variation->down_type, variation->mlp, HIDDEN, false},
    };
    char name[64];
    for (size_t i = 0; i < sizeof matrices / sizeof matrices[0]; i++) {
        snprintf(name, sizeof name, "blk.%d.%s.weight", layer, matrices[i].name);
        put_matrix(b, rng, name, matrices[i].type, matrices[i].n_in, matrices[i].n_out, matrices[i].broken);
    }
    snprintf(name, sizeof name, "blk.%d.attn_norm.weight", layer);
    builder_tensor(b, name, F32, (uint64_t[]){HIDDEN}, 1, ones, sizeof ones);
    snprintf(name, sizeof name, "blk.%d.ffn_norm.weight", layer);
    builder_tensor(b, name, F32, (uint64_t[]){HIDDEN}, 1, ones, sizeof ones);
}

static void write_model(const struct variation *variation)
{
    static const float ones[HIDDEN] = {[0 ... HIDDEN - 1] = 1.0f};
    struct gguf_builder b = {0};
    struct rng rng = rng_make(31);
    blocks_bytes = 0;
    builder_text(&b, "general.architecture", "llama");
    builder_u32(&b, "llama.context_length", 128);
    builder_u32(&b, "llama.embedding_length", HIDDEN);
    builder_u32(&b, "llama.block_count", 2);
    builder_u32(&b, "llama.feed_forward_length", variation->mlp);
    builder_u32(&b, "llama.attention.head_count", HEADS);
    builder_u32(&b, "llama.attention.head_count_kv", KV_HEADS);
    builder_f32(&b, "llama.attention.layer_norm_rms_epsilon", 1e-5f);
    put_matrix(&b, &rng, "token_embd.weight", BLOCK_Q6_K, HIDDEN, VOCAB, false);
    for (int layer = 0; layer < 2; layer++)
        put_layer(&b, &rng, layer, variation);
    builder_tensor(&b, "output_norm.weight", F32, (uint64_t[]){HIDDEN}, 1, ones, sizeof ones);
    struct buffer file = builder_finish(&b);
    snprintf(path, sizeof path, "/tmp/bantam-test-blocks-XXXXXX");
    int descriptor = mkstemp(path);
    assert_true(descriptor >= 0);
    FILE *stream = fdopen(descriptor, "wb");
    assert_non_null(stream);
    assert_int_equal(fwrite(file.data, 1, file.size, stream), file.size);
    assert_int_equal(fclose(stream), 0);
    buffer_free(&file);
}

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
        tokens[i] = (i * 37 + 11) % VOCAB;
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
    write_model(&as_it_should_be);
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
    write_model(&as_it_should_be);
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
    write_model(&as_it_should_be);
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
    write_model(&(struct variation){32 * 17, BLOCK_Q8_0, false});
    struct model_options options = options_of(MODEL_DTYPE_AUTO, 2);
    expect_refused(&options, ERR_INVALID_ARGUMENT,
                   "cuts the blocks of 32 inputs of \"blk.0.ffn_down.weight\"");
    write_model(&(struct variation){MLP, BLOCK_Q5_K, true});
    options = options_of(MODEL_DTYPE_AUTO, 1);
    expect_refused(&options, ERR_DATA_LOSS, "\"blk.0.attn_v.weight\": a scale of row 64 is NaN or infinity");
}

/* Every type of blocks, and stacks of several: packed, written and mapped they are the same bits. */
static void packed_blocks_are_the_same(void **state)
{
    (void)state;
    write_model(&as_it_should_be);
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
