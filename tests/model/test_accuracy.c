/* What quantised arithmetic costs where there are no tiles: rows of activations in int8, every kind of
 * weight. Logits, and the perplexity of the demo model's held-out text, against f32 arithmetic on the same
 * quantised weights. `test_accuracy heldout`: the perplexity over all of the text, for docs/cpu.md;
 * `test_accuracy heldout STRIDE KIND`: over every STRIDE-th case, of the kinds whose names contain KIND.
 * test_accuracy_amx is the same program over the model of AMX, by hand alone: what tiles cost. */
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
#include "base/alloc.h"
#include "base/philox.h"
#include "kernels/cpu_backend.h"
#include "model/block_formats.h"
#include "model/model_internal.h"
#include "tests/base/gguf_builder.h"
#include "tests/base/ok.h"
#include "tests/model/block_writer.h"
#include "tests/model/model_accuracy.h"
#include "text/text_assets.h"

enum { CONTEXT = 1024, CASES_MAX = 2000, TEST_CASES = 4, FEW_LAYERS = 2, F32 = 0 };
/* Relative, of the logits: nothing but a bound on what was measured. That of perplexity is the target. */
#define LOGITS_ERROR_MAX     2.5e-2
#define PERPLEXITY_ERROR_MAX 1e-2

/* Weights of the demo model. */
static const struct kind {
    const char *name;
    enum model_quantization quantization;
    uint32_t group, blocks; /* blocks: 0, or the type of a GGUF file's matrices */
    bool is_read; /* the test has this kind read text; of GGUF files of other kinds it makes two layers alone
                   */
} kinds[] = {
    {"int8", MODEL_QUANT_INT8, 0, 0, true},
    {"int8, groups of 128", MODEL_QUANT_INT8, 128, 0, false},
    {"int8, one scale an output", MODEL_QUANT_W8A8, 0, 0, false},
    {"int4", MODEL_QUANT_INT4, 0, 0, true},
    {"int4, groups of 128", MODEL_QUANT_INT4, 128, 0, false},
    {"Q4_0", MODEL_QUANT_NONE, 0, BLOCK_Q4_0, false},
    {"Q4_1", MODEL_QUANT_NONE, 0, BLOCK_Q4_1, false},
    {"Q5_0", MODEL_QUANT_NONE, 0, BLOCK_Q5_0, false},
    {"Q5_1", MODEL_QUANT_NONE, 0, BLOCK_Q5_1, false},
    {"Q8_0", MODEL_QUANT_NONE, 0, BLOCK_Q8_0, false},
    {"Q4_K", MODEL_QUANT_NONE, 0, BLOCK_Q4_K, true},
    {"Q5_K", MODEL_QUANT_NONE, 0, BLOCK_Q5_K, false},
    {"Q6_K", MODEL_QUANT_NONE, 0, BLOCK_Q6_K, false},
};
enum { KINDS = sizeof kinds / sizeof kinds[0] };

#ifdef BANTAM_AMX_MODEL
#define ISA_AT_MOST "amx"
#else
#define ISA_AT_MOST "avx512vnni" /* without tiles */
#endif

static char demo_path[] = SOURCE_DIR "/demo/model";

static struct model_options options_of(const char *path)
{
    struct model_options options = driver_options(path, 1, CONTEXT);
    options.device = NULL;
    options.isa = ISA_AT_MOST;
    return options;
}

/* ---- The demo model as a GGUF file ---- */

/* Rows of a matrix, in the order in which the file has them. n_heads: of q and k, the halves of whose
 * rotations stand side by side there; else 0. */
static void put_matrix(struct gguf_builder *b, const char *name, uint32_t type, const struct weight *weight,
                       size_t first_row, size_t n_rows, size_t n_heads)
{
    const struct gguf_tensor_format *format = gguf_tensor_format(type);
    size_t row_blocks = weight->n_in / format->block_values, block_bytes = format->block_bytes;
    size_t head_rows = n_heads == 0 ? 0 : n_rows / n_heads, half = head_rows / 2;
    float *row = mem_alloc_array(weight->n_in, sizeof *row);
    uint8_t *bytes = mem_alloc_array(n_rows * row_blocks, block_bytes);
    assert_true(row != NULL && bytes != NULL);
    for (size_t r = 0; r < n_rows; r++) {
        size_t in_head = n_heads == 0 ? 0 : r % head_rows;
        size_t from = n_heads == 0 ? r : r - in_head + in_head % 2 * half + in_head / 2;
        cpu_weight_read_row(weight, first_row + from, 1.0f, row);
        for (size_t i = 0; i < row_blocks; i++)
            block_quantize(type, row + i * format->block_values, bytes + (r * row_blocks + i) * block_bytes);
    }
    builder_tensor(b, name, type, (uint64_t[]){weight->n_in, n_rows}, 2, bytes,
                   n_rows * row_blocks * block_bytes);
    mem_free(row);
    mem_free(bytes);
}

static void put_vector(struct gguf_builder *b, const char *name, const struct vector *vector)
{
    builder_tensor(b, name, F32, (uint64_t[]){vector->n}, 1, vector->values, vector->n * sizeof(float));
}

static void put_layer(struct gguf_builder *b, const struct model_rank *rank, uint32_t index, uint32_t type)
{
    const struct model_config *config = &rank->config;
    const struct layer *layer = &rank->layers[index];
    size_t q = (size_t)config->n_heads * config->head_dim, kv = (size_t)config->n_kv_heads * config->head_dim;
    size_t mlp = config->intermediate_size;
    const struct {
        const char *name;
        const struct weight *weight;
        size_t first_row, n_rows, n_heads;
    } matrices[] = {
        {"attn_q", layer->qkv, 0, q, config->n_heads},
        {"attn_k", layer->qkv, q, kv, config->n_kv_heads},
        {"attn_v", layer->qkv, q + kv, kv, 0},
        {"attn_output", layer->o, 0, layer->o->n_out, 0},
        {"ffn_gate", layer->gate_up, 0, mlp, 0},
        {"ffn_up", layer->gate_up, mlp, mlp, 0},
        {"ffn_down", layer->down, 0, layer->down->n_out, 0},
    };
    char name[64];
    for (size_t i = 0; i < sizeof matrices / sizeof matrices[0]; i++) {
        snprintf(name, sizeof name, "blk.%u.%s.weight", index, matrices[i].name);
        put_matrix(b, name, type, matrices[i].weight, matrices[i].first_row, matrices[i].n_rows,
                   matrices[i].n_heads);
    }
    snprintf(name, sizeof name, "blk.%u.attn_norm.weight", index);
    put_vector(b, name, layer->norms[LAYER_ATTENTION_NORM]);
    snprintf(name, sizeof name, "blk.%u.ffn_norm.weight", index);
    put_vector(b, name, layer->norms[LAYER_MLP_NORM]);
}

static void write_demo(uint32_t type, uint32_t layers_max, char path[64])
{
    struct model_options options = options_of(demo_path);
    struct driver driver = driver_open(&options);
    const struct model_rank *rank = &driver.model->ranks[0];
    const struct model_config *config = &rank->config;
    uint32_t n_layers = config->n_layers < layers_max ? config->n_layers : layers_max;
    struct gguf_builder b = {0};
    builder_text(&b, "general.architecture", "llama");
    builder_u32(&b, "llama.context_length", CONTEXT);
    builder_u32(&b, "llama.embedding_length", config->hidden_size);
    builder_u32(&b, "llama.block_count", n_layers);
    builder_u32(&b, "llama.feed_forward_length", config->intermediate_size);
    builder_u32(&b, "llama.attention.head_count", config->n_heads);
    builder_u32(&b, "llama.attention.head_count_kv", config->n_kv_heads);
    builder_f32(&b, "llama.attention.layer_norm_rms_epsilon", 1e-5f);
    put_matrix(&b, "token_embd.weight", type, rank->embedding, 0, config->vocab_size, 0);
    for (uint32_t i = 0; i < n_layers; i++)
        put_layer(&b, rank, i, type);
    put_vector(&b, "output_norm.weight", rank->final_norm);
    driver_close(&driver);
    struct buffer file = builder_finish(&b);
    builder_write_temporary(&file, path);
}

/* What is written is near what was there: the encoders are right. */
static void blocks_are_near_their_values(void **state)
{
    (void)state;
    static const struct {
        uint32_t type;
        double error; /* of the norm */
    } types[] = {{BLOCK_Q4_0, 0.11},  {BLOCK_Q4_1, 0.09},  {BLOCK_Q5_0, 0.055}, {BLOCK_Q5_1, 0.045},
                 {BLOCK_Q8_0, 0.008}, {BLOCK_Q4_K, 0.095}, {BLOCK_Q5_K, 0.05},  {BLOCK_Q6_K, 0.025}};
    struct rng rng = rng_make(5);
    for (size_t t = 0; t < sizeof types / sizeof types[0]; t++) {
        float x[BLOCK_VALUES_MAX], back[BLOCK_VALUES_MAX];
        uint8_t block[BLOCK_VALUES_MAX * 2];
        uint32_t n = gguf_tensor_format(types[t].type)->block_values;
        double error = 0, size = 0;
        for (int round = 0; round < 50; round++) {
            for (uint32_t i = 0; i < n; i++)
                x[i] = 0.04f * rng_normal(&rng);
            block_quantize(types[t].type, x, block);
            block_dequantize(types[t].type)(block, back);
            for (uint32_t i = 0; i < n; i++) {
                error += (double)(back[i] - x[i]) * (double)(back[i] - x[i]);
                size += (double)x[i] * (double)x[i];
            }
        }
        if (sqrt(error / size) > types[t].error)
            fail_msg("type %u: off by %.4f", types[t].type, sqrt(error / size));
    }
}

/* ---- Held-out text ---- */

/* Cases of the demo model's tasks with their answers, as its chat template writes them. */
struct texts {
    size_t n;
    struct token_list cases[CASES_MAX];
};

static void read_task(const struct text_assets *assets, const char *name, struct texts *texts)
{
    char path[4096], line[16384];
    snprintf(path, sizeof path, "%s/demo/heldout/%s.jsonl", SOURCE_DIR, name);
    FILE *file = fopen(path, "r");
    assert_non_null(file);
    while (fgets(line, sizeof line, file) != NULL) {
        json_t *value = json_loads(line, 0, NULL);
        const char *said = json_string_value(
            json_object_get(json_array_get(json_object_get(value, "messages"), 0), "content"));
        const char *answer = json_string_value(json_object_get(value, "expected"));
        assert_true(said != NULL && answer != NULL && texts->n < CASES_MAX);
        struct chat_message messages[] = {{"user", said, strlen(said)},
                                          {"assistant", answer, strlen(answer)}};
        struct template_input input = {.messages = messages, .n_messages = 2};
        OK(text_encode_chat(assets, &input, &texts->cases[texts->n++]));
        json_decref(value);
    }
    fclose(file);
}

static void read_texts(struct texts *texts)
{
    static const char *const tasks[] = {"complete", "intent", "order", "review", "ticket"};
    struct text_assets assets;
    OK(text_assets_load(demo_path, NULL, &assets));
    for (size_t i = 0; i < sizeof tasks / sizeof tasks[0]; i++)
        read_task(&assets, tasks[i], texts);
    text_assets_free(&assets);
    assert_true(texts->n > 500);
}

static void free_texts(struct texts *texts)
{
    for (size_t i = 0; i < texts->n; i++)
        token_list_free(&texts->cases[i]);
}

/* Over every stride-th case. */
static double perplexity(struct driver *driver, const struct texts *texts, size_t stride)
{
    double sum = 0;
    size_t n = 0;
    for (size_t i = 0; i < texts->n; i += stride) {
        const struct token_list *ids = &texts->cases[i];
        assert_true(ids->count >= 2 && ids->count <= CONTEXT);
        sum += accuracy_of_text(driver, ids->ids, (uint32_t)ids->count);
        n += ids->count - 1;
    }
    return exp(sum / (double)n);
}

/* ---- Kinds of weights ---- */

struct pair {
    struct driver int8, f32;
};

static struct pair open_pair(const struct model_options *options)
{
    struct pair pair = {driver_open(options), driver_open(options)};
    model_widen(pair.f32.model);
    return pair;
}

static void close_pair(struct pair *pair)
{
    driver_close(&pair->int8);
    driver_close(&pair->f32);
}

static struct pair open_kind(const struct kind *kind, uint32_t layers_max)
{
    char path[64];
    struct model_options options = options_of(demo_path);
    options.quantization = kind->quantization;
    options.quantization_group = kind->group;
    if (kind->blocks != 0) {
        write_demo(kind->blocks, layers_max, path);
        options.directory = path;
    }
    struct pair pair = open_pair(&options);
    if (kind->blocks != 0)
        assert_int_equal(unlink(path), 0);
    return pair;
}

static void check_logits(const char *name, struct pair *pair)
{
    double off_by = accuracy_of_logits(&pair->int8, &pair->f32);
    printf("%-24s logits off by %.5f\n", name, off_by);
    assert_true(off_by > 0 && off_by <= LOGITS_ERROR_MAX);
}

/* The demo model in every kind: its logits, and of some kinds the perplexity over some of the text. */
static void the_demo_model(void **state)
{
    (void)state;
    static struct texts texts;
    read_texts(&texts);
    size_t stride = texts.n / TEST_CASES;
    struct model_options options = options_of(demo_path);
    struct driver driver = driver_open(&options);
    double unquantised = perplexity(&driver, &texts, stride);
    driver_close(&driver);
    for (int i = 0; i < KINDS; i++) {
        struct pair pair = open_kind(&kinds[i], kinds[i].is_read ? UINT32_MAX : FEW_LAYERS);
        check_logits(kinds[i].name, &pair);
        if (kinds[i].is_read) {
            double f32 = perplexity(&pair.f32, &texts, stride), int8 = perplexity(&pair.int8, &texts, stride);
            printf("%-24s perplexity %.4f for %.4f, %+.2f %%\n", "", int8, f32, 100 * (int8 / f32 - 1));
            assert_true(fabs(int8 / f32 - 1) <= PERPLEXITY_ERROR_MAX);
            assert_true(f32 < 1.3 * unquantised); /* of the same model */
        }
        close_pair(&pair);
    }
    free_texts(&texts);
}

/* As bf16 or f16, which are computed as in f32. */
static bool is_kept_as_numbers(const char *name)
{
    static const char *const names[] = {"gptq-v2-act-order", "packed-int8-asym", "e4m3-channel",
                                        "e4m3-tensor", "e4m3-block"};
    bool is = false;
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++)
        is |= strcmp(names[i], name) == 0;
    return is;
}

/* Checkpoints of other tools: with zero points, in groups of 64 and 128, with one scale an output. */
static void quantised_checkpoints(void **state)
{
    (void)state;
    for (size_t i = 0; driver_quantized_checkpoints[i] != NULL; i++) {
        const char *name = driver_quantized_checkpoints[i];
        if (is_kept_as_numbers(name))
            continue;
        char path[4096];
        snprintf(path, sizeof path, "%s/parity/quantized/%s", TEST_DATA_DIR, name);
        struct model_options options = options_of(path);
        options.max_model_len = ACCURACY_PROMPT_MAX;
        struct pair pair = open_pair(&options);
        check_logits(name, &pair);
        close_pair(&pair);
    }
}

static int print_heldout(size_t stride, const char *kind)
{
    static struct texts texts;
    read_texts(&texts);
    struct model_options options = options_of(demo_path);
    struct driver driver = driver_open(&options);
    printf("%zu cases, bfloat16 weights: perplexity %.4f\n", (texts.n - 1) / stride + 1,
           perplexity(&driver, &texts, stride));
    driver_close(&driver);
    for (int i = 0; i < KINDS; i++) {
        if (strstr(kinds[i].name, kind) == NULL)
            continue;
        struct pair pair = open_kind(&kinds[i], UINT32_MAX);
        double off_by = accuracy_of_logits(&pair.int8, &pair.f32);
        double f32 = perplexity(&pair.f32, &texts, stride), int8 = perplexity(&pair.int8, &texts, stride);
        printf("| %s | %.4f | %.4f | %.4f | %+.3f %% |\n", kinds[i].name, off_by, f32, int8,
               100 * (int8 / f32 - 1));
        fflush(stdout);
        close_pair(&pair);
    }
    free_texts(&texts);
    return 0;
}

int main(int argc, char **argv)
{
    if (argc >= 2 && strcmp(argv[1], "heldout") == 0) {
        size_t stride = argc > 2 ? strtoul(argv[2], NULL, 10) : 1;
        assert_true(stride > 0);
        return print_heldout(stride, argc > 3 ? argv[3] : "");
    }
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(blocks_are_near_their_values),
        cmocka_unit_test(the_demo_model),
        cmocka_unit_test(quantised_checkpoints),
    };
    return cmocka_run_group_tests_name("accuracy", tests, NULL, NULL);
}
