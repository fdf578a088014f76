/* A model that was packed, written and mapped answers to the bit as the one that it was made from, and says
 * the same of itself: every checkpoint, every kind of weight. And what is in the directory beside the
 * weights. */
#include <dirent.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <cmocka.h>
#include "base/alloc.h"
#include "base/mapped_file.h"
#include "engine/packed_model.h"
#include "model/packed_file.h"
#include "tests/model/model_driver.h"
#include "text/text_assets.h"

enum { TOKENS = 24, PATH_BYTES = 512, FILE_BYTES = PATH_BYTES + 300 };

static char folder[128]; /* of the packed models */

static int set_up(void **state)
{
    (void)state;
    const char *temporary = getenv("TMPDIR");
    snprintf(folder, sizeof folder, "%s/bantam-packed-XXXXXX", temporary ? temporary : "/tmp");
    return mkdtemp(folder) ? 0 : -1;
}

static void remove_files(const char *path)
{
    char file[FILE_BYTES];
    DIR *directory = opendir(path);
    if (!directory)
        return;
    for (struct dirent *entry; (entry = readdir(directory)) != NULL;) {
        snprintf(file, sizeof file, "%s/%s", path, entry->d_name);
        if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0)
            assert_int_equal(remove(file), 0);
    }
    closedir(directory);
    assert_int_equal(rmdir(path), 0);
}

static int tear_down(void **state)
{
    (void)state;
    return rmdir(folder);
}

static void packed_path(char out[PATH_BYTES])
{
    snprintf(out, PATH_BYTES, "%s/packed", folder);
}

/* ---- The same answers ---- */

struct said {
    float logprobs[TOKENS];
    uint32_t greedy[TOKENS]; /* one after the other, from the prompt on */
    float greedy_logprobs[TOKENS];
    struct model_description description; /* its strings are not the model's */
    char quantization[32], dtype[32];
    uint64_t weights_bytes;
    uint32_t eos, n_eos;
};

static void prompt(struct driver *driver, struct said *out)
{
    uint32_t tokens[TOKENS], outputs[TOKENS];
    for (uint32_t i = 0; i < TOKENS; i++)
        tokens[i] = (i * 37 + 11) % model_describe(driver->model)->vocab_size;
    driver_reset_slot(driver, 0);
    driver_begin(driver);
    uint32_t row = driver_add(driver, 0, tokens, 0, TOKENS);
    for (uint32_t i = 0; i + 1 < TOKENS; i++)
        outputs[i] = driver_want(driver, row + i, STEP_OUTPUT_LOGPROBS, tokens[i + 1], 0);
    outputs[TOKENS - 1] = driver_want(driver, row + TOKENS - 1, STEP_OUTPUT_SAMPLE, 0, 0);
    driver_run(driver);
    for (uint32_t i = 0; i < TOKENS; i++)
        out->logprobs[i] = driver_result(driver, outputs[i])->chosen.logprob;
}

static void decode(struct driver *driver, struct said *out)
{
    for (uint32_t i = 0; i < TOKENS; i++) {
        driver_begin(driver);
        uint32_t row = driver_add(driver, 0, NULL, TOKENS + i, 1);
        uint32_t output = driver_want(driver, row, STEP_OUTPUT_SAMPLE, 0, 0);
        driver_run(driver);
        out->greedy[i] = driver_result(driver, output)->token_ids[0];
        out->greedy_logprobs[i] = driver_result(driver, output)->chosen.logprob;
    }
}

static void ask(const struct model_options *options, struct said *out)
{
    memset(out, 0, sizeof *out);
    struct driver driver = driver_open(options);
    prompt(&driver, out);
    decode(&driver, out);
    const struct model_description *description = model_describe(driver.model);
    snprintf(out->quantization, sizeof out->quantization, "%s", description->quantization);
    snprintf(out->dtype, sizeof out->dtype, "%s", description->dtype);
    out->description = *description;
    out->description.architecture = out->description.dtype = out->description.quantization = NULL;
    out->description.backend = NULL;
    out->weights_bytes = model_memory_plan(driver.model)->weights_bytes;
    const struct generation_config *generation = model_generation_config(driver.model);
    out->n_eos = (uint32_t)generation->n_eos_token_ids;
    out->eos = generation->n_eos_token_ids > 0 ? generation->eos_token_ids[0] : 0;
    driver_close(&driver);
}

static struct model_options options_of(const char *path)
{
    struct model_options options = driver_options(path, 1, 64);
    options.device = NULL;
    options.batch_variant = false;
    return options;
}

static void expect_same(const struct model_options *options)
{
    static struct said first, again;
    char path[PATH_BYTES];
    struct model_packed packed;
    packed_path(path);
    err_t e = packed_model_write(options, path, &packed);
    if (e.code != ERR_OK)
        fail_msg("%s", e.message);
    ask(options, &first);
    struct model_options mapped = options_of(path);
    mapped.isa = options->isa;
    ask(&mapped, &again);
    if (memcmp(&first, &again, sizeof first) != 0)
        fail_msg("%s, --quantization %s, dtype %s: the packed model is another one", options->directory,
                 first.quantization, first.dtype);
    remove_files(path);
}

static void quantised_as_it_is_packed(void **state)
{
    (void)state;
    static const struct {
        enum model_quantization quantization;
        uint32_t group;
        enum model_dtype dtype;
    } ways[] = {
        {MODEL_QUANT_NONE, 0, MODEL_DTYPE_AUTO},  {MODEL_QUANT_NONE, 0, MODEL_DTYPE_F32},
        {MODEL_QUANT_NONE, 0, MODEL_DTYPE_F16},   {MODEL_QUANT_INT8, 32, MODEL_DTYPE_AUTO},
        {MODEL_QUANT_INT8, 64, MODEL_DTYPE_AUTO}, {MODEL_QUANT_INT4, 32, MODEL_DTYPE_AUTO},
        {MODEL_QUANT_W8A8, 0, MODEL_DTYPE_AUTO},
    };
    for (size_t i = 0; driver_checkpoints[i]; i++) {
        char path[PATH_BYTES];
        snprintf(path, sizeof path, TEST_DATA_DIR "/parity/checkpoints/%s", driver_checkpoints[i]);
        for (size_t w = 0; w < sizeof ways / sizeof ways[0]; w++) {
            struct model_options options = options_of(path);
            struct memory_plan plan;
            options.quantization = ways[w].quantization;
            options.quantization_group = ways[w].group;
            options.dtype = ways[w].dtype;
            if (model_plan_memory(&options, &plan).code == ERR_OK) /* some have no rows of 64 */
                expect_same(&options);
        }
    }
}

static void codes_of_a_checkpoint(void **state)
{
    (void)state;
    for (size_t i = 0; driver_quantized_checkpoints[i]; i++) {
        char path[PATH_BYTES];
        snprintf(path, sizeof path, TEST_DATA_DIR "/parity/quantized/%s", driver_quantized_checkpoints[i]);
        struct model_options options = options_of(path);
        expect_same(&options);
    }
}

static void gguf_files(void **state)
{
    (void)state;
    static const char *const names[] = {"qwen2-gqa-tied", "llama-tied-llama3-rope",
                                        "llama-head-dim-linear-rope", "gemma3-windows"};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        char path[PATH_BYTES];
        snprintf(path, sizeof path, TEST_DATA_DIR "/parity/gguf/%s.gguf", names[i]);
        struct model_options options = options_of(path);
        expect_same(&options);
        options.quantization = MODEL_QUANT_INT8;
        expect_same(&options);
    }
}

static void random_weights(void **state)
{
    (void)state;
    struct model_options options = options_of(TEST_DATA_DIR "/parity/checkpoints/llama-gqa");
    options.dummy_weights = true;
    options.dummy_seed = 5;
    options.quantization = MODEL_QUANT_INT4;
    expect_same(&options);
}

/* What one machine packs another one maps, whatever its instruction set. */
static void every_level_maps_it(void **state)
{
    (void)state;
    static const char *const levels[] = {"scalar", "avx2", "avxvnni", "avx512", "avx512vnni"};
    static struct said first, again;
    char path[PATH_BYTES];
    struct model_packed packed;
    packed_path(path);
    struct model_options options = options_of(TEST_DATA_DIR "/parity/checkpoints/llama-gqa");
    options.quantization = MODEL_QUANT_INT8;
    options.isa = "scalar";
    assert_int_equal(packed_model_write(&options, path, &packed).code, ERR_OK);
    ask(&options, &first);
    for (size_t i = 0; i < sizeof levels / sizeof levels[0]; i++) {
        struct model_options mapped = options_of(path);
        mapped.isa = levels[i];
        ask(&mapped, &again);
        assert_memory_equal(&first, &again, sizeof first);
    }
    remove_files(path);
}

/* ---- The directory ---- */

static bool has_file(const char *directory, const char *name)
{
    char path[FILE_BYTES];
    snprintf(path, sizeof path, "%s/%s", directory, name);
    return access(path, F_OK) == 0;
}

static uint64_t said_by_text(const char *path, uint64_t *template)
{
    struct text_assets text;
    err_t e = text_assets_load(path, NULL, &text);
    if (e.code != ERR_OK)
        fail_msg("%s", e.message);
    uint64_t fingerprint = tokenizer_fingerprint(text.tokenizer);
    *template = text.template_fingerprint;
    text_assets_free(&text);
    return fingerprint;
}

/* Another model in the same place takes all of it over: nothing of the first is left. */
static void a_directory_is_replaced(void **state)
{
    (void)state;
    static const char demo[] = TEST_DATA_DIR "/../demo/model";
    char path[PATH_BYTES];
    struct model_packed packed;
    uint64_t template, packed_template;
    packed_path(path);
    struct model_options options = options_of(demo);
    options.quantization = MODEL_QUANT_INT4;
    err_t e = packed_model_write(&options, path, &packed);
    if (e.code != ERR_OK)
        fail_msg("%s", e.message);
    assert_true(has_file(path, "tokenizer.json") && has_file(path, "generation_config.json"));
    assert_false(has_file(path, "head.gguf") || has_file(path, "model.safetensors"));
    assert_true(said_by_text(demo, &template) == said_by_text(path, &packed_template));
    assert_true(template == packed_template && template != 0);
    assert_true(packed.n_weights > 0);

    options = options_of(TEST_DATA_DIR "/parity/gguf/llama-tied-llama3-rope.gguf");
    assert_int_equal(packed_model_write(&options, path, &packed).code, ERR_OK);
    assert_true(has_file(path, "head.gguf") && has_file(path, PACKED_FILE));
    assert_false(has_file(path, "tokenizer.json") || has_file(path, "config.json"));
    static struct said first, again;
    ask(&options, &first);
    struct model_options mapped = options_of(path);
    ask(&mapped, &again);
    assert_memory_equal(&first, &again, sizeof first);
    /* The head alone is no model. */
    char file[FILE_BYTES];
    snprintf(file, sizeof file, "%s/" PACKED_FILE, path);
    assert_int_equal(unlink(file), 0);
    struct model *model;
    assert_int_not_equal(model_load(&mapped, NULL, &model).code, ERR_OK);
    snprintf(file, sizeof file, "%s/head.gguf", path);
    mapped.directory = file;
    e = model_load(&mapped, NULL, &model);
    assert_int_equal(e.code, ERR_INVALID_ARGUMENT);
    assert_non_null(strstr(e.message, "the head of a GGUF file"));
    remove_files(path);
}

static void tokenizers_of_gguf_files(void **state)
{
    (void)state;
    static const char *const names[] = {"tokenizer-gemma", "tokenizer-llama3", "tokenizer-qwen2",
                                        "tokenizer-sentencepiece"};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        char path[PATH_BYTES], head_path[PATH_BYTES];
        uint64_t template, head_template;
        struct gguf gguf;
        struct buffer head = {.limit_bytes = 64 << 20};
        snprintf(path, sizeof path, TEST_DATA_DIR "/parity/gguf/%s.gguf", names[i]);
        assert_int_equal(gguf_open(path, &gguf).code, ERR_OK);
        assert_int_equal(gguf_head_write(&gguf, "none", &head).code, ERR_OK);
        gguf_close(&gguf);
        snprintf(head_path, sizeof head_path, "%s/" GGUF_HEAD_FILE, folder);
        FILE *file = fopen(head_path, "wb");
        assert_non_null(file);
        assert_int_equal(fwrite(head.data, 1, head.size, file), head.size);
        assert_int_equal(fclose(file), 0);
        buffer_free(&head);
        assert_true(said_by_text(path, &template) == said_by_text(folder, &head_template));
        assert_true(template == head_template);
        assert_int_equal(remove(head_path), 0);
    }
}

static void directories_that_are_refused(void **state)
{
    (void)state;
    char path[PATH_BYTES], file[FILE_BYTES];
    struct model_packed packed;
    packed_path(path);
    struct model_options options = options_of(TEST_DATA_DIR "/parity/checkpoints/llama-gqa");
    err_t e = packed_model_write(&options, options.directory, &packed);
    assert_int_equal(e.code, ERR_INVALID_ARGUMENT);
    assert_non_null(strstr(e.message, "neither empty nor a packed model"));
    assert_false(has_file(options.directory, PACKED_FILE));
    e = packed_model_write(&options, TEST_DATA_DIR "/parity/gguf/make_gguf.py", &packed);
    assert_int_equal(e.code, ERR_INVALID_ARGUMENT);
    e = packed_model_write(&options, "/nonexistent/folder", &packed);
    assert_int_equal(e.code, ERR_IO);
    options.directory = folder; /* no model at all: and nothing is left */
    assert_int_not_equal(packed_model_write(&options, path, &packed).code, ERR_OK);
    assert_int_not_equal(access(path, F_OK), 0);

    /* What a writer that was killed left does not stand in the way. */
    assert_int_equal(mkdir(path, 0700), 0);
    snprintf(file, sizeof file, "%s/" PACKED_FILE ".partial", path);
    FILE *rest = fopen(file, "w");
    assert_non_null(rest);
    assert_int_equal(fclose(rest), 0);
    options = options_of(TEST_DATA_DIR "/parity/checkpoints/llama-gqa");
    assert_int_equal(packed_model_write(&options, path, &packed).code, ERR_OK);
    assert_int_not_equal(access(file, F_OK), 0);
    remove_files(path);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(quantised_as_it_is_packed),
        cmocka_unit_test(codes_of_a_checkpoint),
        cmocka_unit_test(gguf_files),
        cmocka_unit_test(random_weights),
        cmocka_unit_test(every_level_maps_it),
        cmocka_unit_test(a_directory_is_replaced),
        cmocka_unit_test(tokenizers_of_gguf_files),
        cmocka_unit_test(directories_that_are_refused),
    };
    return cmocka_run_group_tests_name("packed_model", tests, set_up, tear_down);
}
