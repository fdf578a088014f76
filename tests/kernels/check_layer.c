#include "tests/kernels/check_layer.h"

#include <math.h>
#include <stdio.h>
#include <string.h>
#include "base/alloc.h"
#include "base/philox.h"

enum {
    LAYER_SEQS = 3,
    LAYER_HEADS = 6,
    LAYER_KV_HEADS = 2,
    LAYER_DIM = 24, /* of a head; no multiple of 16, so that tails are walked */
    LAYER_QKV = (LAYER_HEADS + 2 * LAYER_KV_HEADS) * LAYER_DIM,
    LAYER_WIDTH = LAYER_HEADS * LAYER_DIM,
    LAYER_BLOCKS_PER_SEQ = 8,
    LAYER_BLOCKS = LAYER_SEQS * LAYER_BLOCKS_PER_SEQ,
    LAYER_VOCAB = 1500,
    LAYER_SLOTS = 9,
    LONG_TOKENS = 700,
    LONG_BLOCKS = 44,
    LONG_ROWS = 3,
};

static const uint32_t layer_lengths[LAYER_SEQS] = {37, 5, 90};
enum { LAYER_ROWS = 37 + 5 + 90 };

static const enum kv_dtype layer_kvs[] = {KV_F32, KV_BF16, KV_INT8};
enum { LAYER_KVS = sizeof layer_kvs / sizeof layer_kvs[0] };

struct layer {
    struct backend *backend;
    const struct backend_vtable *ops;
    struct step *step;
    struct act *qkv, *mixed, *half;
    struct vector *q_norm, *wide_norm;
    struct rope *rope;
    struct kv *kv[LAYER_KVS];
    float *random; /* [LAYER_ROWS][LAYER_QKV] */
};

#define LAYER_TRY(call)                                                                                      \
    do {                                                                                                     \
        err_t layer_error_ = (call);                                                                         \
        ASSERT(layer_error_.code == ERR_OK);                                                                 \
    } while (0)

static void layer_create(struct layer *layer, uint64_t seed, enum isa_level level, enum arithmetic arithmetic,
                         int n_threads)
{
    *layer = (struct layer){0};
    LAYER_TRY(cpu_backend_create(n_threads, level, arithmetic, &layer->backend));
    const struct backend_vtable *ops = layer->ops = layer->backend->vtable;
    struct step_capacity capacity = {.rows = LAYER_ROWS,
                                     .seqs = LAYER_SEQS,
                                     .outputs = LAYER_ROWS,
                                     .copies = 1,
                                     .blocks_per_seq = LAYER_BLOCKS_PER_SEQ,
                                     .kv_groups = 1};
    struct backend_needs needs = {.step = capacity, .qkv = {LAYER_HEADS, LAYER_KV_HEADS, LAYER_DIM}};
    needs.step.blocks_per_seq = LONG_BLOCKS;
    LAYER_TRY(ops->reserve(layer->backend, &needs, 0));
    LAYER_TRY(step_create(&capacity, &layer->step));
    LAYER_TRY(ops->act_create(layer->backend, ACT_HIDDEN, LAYER_ROWS, LAYER_QKV, &layer->qkv));
    LAYER_TRY(ops->act_create(layer->backend, ACT_HIDDEN, LAYER_ROWS, LAYER_WIDTH, &layer->mixed));
    LAYER_TRY(ops->act_create(layer->backend, ACT_HIDDEN, LAYER_ROWS, LAYER_WIDTH / 2, &layer->half));
    float ones[LAYER_WIDTH], inv_freq[LAYER_DIM / 2];
    for (int i = 0; i < LAYER_WIDTH; i++)
        ones[i] = 1.0f + 0.001f * (float)i;
    for (int i = 0; i < LAYER_DIM / 2; i++)
        inv_freq[i] = powf(10000.0f, -2.0f * (float)i / LAYER_DIM);
    LAYER_TRY(ops->vector_create(layer->backend, ones, LAYER_DIM, &layer->q_norm));
    LAYER_TRY(ops->vector_create(layer->backend, ones, LAYER_WIDTH, &layer->wide_norm));
    LAYER_TRY(ops->rope_create(layer->backend, inv_freq, LAYER_DIM / 2, 1.0f, LONG_TOKENS, &layer->rope));
    for (int i = 0; i < LAYER_KVS; i++) {
        struct kv_desc desc = {layer_kvs[i], LAYER_BLOCKS, KV_BLOCK_TOKENS, LAYER_KV_HEADS, LAYER_DIM, 0};
        LAYER_TRY(ops->kv_create(layer->backend, &desc, &layer->kv[i]));
    }
    layer->random = mem_alloc_array((size_t)LAYER_ROWS * LAYER_QKV, sizeof(float));
    ASSERT(layer->random != NULL);
    struct rng rng = rng_make(seed);
    for (size_t i = 0; i < (size_t)LAYER_ROWS * LAYER_QKV; i++)
        layer->random[i] = rng_normal(&rng);
    for (uint32_t s = 0; s < LAYER_SEQS; s++) {
        for (uint32_t b = 0; b < LAYER_BLOCKS_PER_SEQ; b++)
            step_block_table(layer->step, 0, s)[b] = b * LAYER_SEQS + s;
    }
}

static void layer_destroy(struct layer *layer)
{
    const struct backend_vtable *ops = layer->ops;
    ops->act_destroy(layer->qkv);
    ops->act_destroy(layer->mixed);
    ops->act_destroy(layer->half);
    ops->vector_destroy(layer->q_norm);
    ops->vector_destroy(layer->wide_norm);
    ops->rope_destroy(layer->rope);
    for (int i = 0; i < LAYER_KVS; i++)
        ops->kv_destroy(layer->kv[i]);
    step_destroy(layer->step);
    mem_free(layer->random);
    ops->destroy(layer->backend);
}

static uint32_t first_row_of(uint32_t seq)
{
    uint32_t row = 0;
    for (uint32_t s = 0; s < seq; s++)
        row += layer_lengths[s];
    return row;
}

/* Takes rows [begin[s], end[s]) of each sequence through the ops, and their results into rows [KV dtypes][all
 * rows][half + width]. */
static void layer_run(struct layer *layer, const uint32_t begin[LAYER_SEQS], const uint32_t end[LAYER_SEQS],
                      float *rows)
{
    const struct backend_vtable *ops = layer->ops;
    struct step *step = layer->step;
    struct qkv_shape shape = {LAYER_HEADS, LAYER_KV_HEADS, LAYER_DIM};
    struct attention_params params = {.shape = shape, .scale = 0.2f, .window = 33, .soft_cap = 4.0f};
    step->n_rows = 0;
    step->n_seqs = LAYER_SEQS;
    for (uint32_t s = 0; s < LAYER_SEQS; s++) {
        step->seqs[s] =
            (struct step_seq){step->n_rows, end[s] - begin[s], end[s], STEP_NO_SLOT, STEP_NO_SLOT};
        for (uint32_t p = begin[s]; p < end[s]; p++)
            step->rows[step->n_rows++] = (struct step_row){.position = p, .seq = s};
    }
    for (int i = 0; i < LAYER_KVS; i++) {
        bool windowed = layer_kvs[i] != KV_BF16, normed = layer_kvs[i] != KV_F32;
        for (uint32_t r = 0; r < step->n_rows; r++) {
            uint32_t row = first_row_of(step->rows[r].seq) + step->rows[r].position;
            ops->act_write(layer->qkv, r, 1, layer->random + (size_t)row * LAYER_QKV);
        }
        ops->rope_kv_write(layer->backend, step, layer->qkv, &shape, layer->q_norm, NULL, 1e-6f, layer->rope,
                           ROPE_HALVES, layer->kv[i]);
        params.window = windowed ? 33 : 0;
        params.soft_cap = windowed ? 4.0f : 0.0f;
        ops->attention(layer->backend, step, layer->qkv, &params, layer->kv[i], layer->mixed);
        ops->add_norm(layer->backend, step, STEP_ROWS_ALL, layer->mixed, layer->mixed,
                      normed ? layer->wide_norm : NULL, layer->wide_norm, 1e-6f, layer->mixed);
        ops->activation_mul(layer->backend, step, STEP_ROWS_ALL, layer->mixed,
                            normed ? ACTIVATION_GELU_TANH : ACTIVATION_SILU, layer->half);
        for (uint32_t r = 0; r < step->n_rows; r++) {
            size_t row = (size_t)i * LAYER_ROWS + first_row_of(step->rows[r].seq) + step->rows[r].position;
            float *to = rows + row * (LAYER_WIDTH + LAYER_WIDTH / 2);
            ops->act_read(layer->mixed, r, 1, to);
            ops->act_read(layer->half, r, 1, to + LAYER_WIDTH);
        }
    }
}

/* Rows [first, first + n) of a long sequence to KV, after which they stand in layer->qkv as attention takes
 * them. */
static void write_long(struct layer *layer, struct step *step, const struct qkv_shape *shape, uint32_t first,
                       uint32_t n, struct kv *kv)
{
    step->n_seqs = 1;
    step->n_rows = n;
    step->seqs[0] = (struct step_seq){0, n, first + n, STEP_NO_SLOT, STEP_NO_SLOT};
    for (uint32_t r = 0; r < n; r++) {
        step->rows[r] = (struct step_row){.position = first + r};
        layer->ops->act_write(layer->qkv, r, 1, layer->random + (first + r) % LAYER_ROWS * LAYER_QKV);
    }
    layer->ops->rope_kv_write(layer->backend, step, layer->qkv, shape, NULL, NULL, 1e-6f, layer->rope,
                              ROPE_HALVES, kv);
}

/* A context of several chunks, which threads share: attention of its last rows, in one step or each alone, to
 * rows [LONG_ROWS][LAYER_WIDTH]. */
static void layer_long(struct layer *layer, bool together, float *rows)
{
    const struct backend_vtable *ops = layer->ops;
    struct qkv_shape shape = {LAYER_HEADS, LAYER_KV_HEADS, LAYER_DIM};
    struct attention_params params = {.shape = shape, .scale = 0.2f};
    struct step_capacity capacity = {.rows = LAYER_ROWS,
                                     .seqs = 1,
                                     .outputs = 1,
                                     .copies = 1,
                                     .blocks_per_seq = LONG_BLOCKS,
                                     .kv_groups = 1};
    struct kv_desc desc = {KV_BF16, LONG_BLOCKS, KV_BLOCK_TOKENS, LAYER_KV_HEADS, LAYER_DIM, 0};
    struct step *step;
    struct kv *kv;
    LAYER_TRY(step_create(&capacity, &step));
    LAYER_TRY(ops->kv_create(layer->backend, &desc, &kv));
    for (uint32_t b = 0; b < LONG_BLOCKS; b++)
        step_block_table(step, 0, 0)[b] = (b * 7 + 3) % LONG_BLOCKS;
    for (uint32_t at = 0; at < LONG_TOKENS; at += 100)
        write_long(layer, step, &shape, at, 100, kv);
    for (uint32_t i = 0, n = together ? LONG_ROWS : 1; i < LONG_ROWS; i += n) {
        write_long(layer, step, &shape, LONG_TOKENS - LONG_ROWS + i, n, kv);
        ops->attention(layer->backend, step, layer->qkv, &params, kv, layer->mixed);
        ops->act_read(layer->mixed, 0, n, rows + i * LAYER_WIDTH);
    }
    ops->kv_destroy(kv);
    step_destroy(step);
}

/* Draws for LAYER_SLOTS slots with different parameters, and log-probabilities for as many rows. */
static void layer_sample(struct layer *layer, uint64_t seed, bool together, struct step_result *drawn)
{
    const struct backend_vtable *ops = layer->ops;
    static const struct sampler_params params[LAYER_SLOTS] = {
        {.temperature = 0, .top_p = 1, .repetition_penalty = 1},
        {.temperature = 1, .top_p = 1, .repetition_penalty = 1, .seed = 7},
        {.temperature = 0.7f, .top_p = 0.9f, .repetition_penalty = 1, .seed = 8},
        {.temperature = 1.3f, .top_p = 1, .top_k = 5, .repetition_penalty = 1.2f, .seed = 9},
        {.temperature = 1, .top_p = 0.99f, .top_k = 400, .repetition_penalty = 1, .seed = 10},
        {.temperature = 1, .top_p = 1, .min_p = 0.05f, .repetition_penalty = 1, .presence_penalty = 0.5f},
        {.temperature = 2, .top_p = 0.5f, .min_p = 0.01f, .repetition_penalty = 1, .frequency_penalty = 0.2f},
        {.temperature = 50, .top_p = 0.95f, .repetition_penalty = 1, .seed = 11},
        {.temperature = 1, .top_p = 1, .repetition_penalty = 1, .seed = 7, .choice_index = 1},
    };
    struct sampler *sampler;
    struct act *logits;
    LAYER_TRY(ops->sampler_create(layer->backend, LAYER_SLOTS, LAYER_VOCAB, 16, &sampler));
    LAYER_TRY(ops->act_create(layer->backend, ACT_HIDDEN, LAYER_SLOTS, LAYER_VOCAB, &logits));
    float *x = mem_alloc_array((size_t)LAYER_SLOTS * LAYER_VOCAB, sizeof(float));
    ASSERT(x != NULL);
    struct rng rng = rng_make(seed + 1);
    for (size_t i = 0; i < (size_t)LAYER_SLOTS * LAYER_VOCAB; i++)
        x[i] = 3.0f * rng_normal(&rng);
    struct step_row rows[LAYER_SLOTS];
    struct step_seq seqs[LAYER_SLOTS];
    struct step_output outputs[LAYER_SLOTS];
    struct step step = {.n_rows = LAYER_SLOTS,
                        .n_seqs = LAYER_SLOTS,
                        .n_outputs = LAYER_SLOTS,
                        .rows = rows,
                        .seqs = seqs,
                        .outputs = outputs,
                        .results = drawn};
    const uint32_t prompt[] = {3, 1, 4, 1, 5};
    for (uint32_t s = 0; s < LAYER_SLOTS; s++) {
        rows[s] = (struct step_row){.position = 4, .seq = s};
        seqs[s] = (struct step_seq){s, 1, 5, s, STEP_NO_SLOT};
        outputs[s] = (struct step_output){s, STEP_OUTPUT_SAMPLE, 0, (int32_t)s};
        struct sampler_history history = {prompt, 5, prompt, 2};
        ops->slot_set(sampler, s, &params[s], &history);
    }
    for (uint32_t first = 0; first < LAYER_SLOTS; first += together ? LAYER_SLOTS : 1) {
        uint32_t n = together ? LAYER_SLOTS : 1;
        ops->act_write(logits, 0, n, x + (size_t)first * LAYER_VOCAB);
        ops->sample(layer->backend, &step, first, n, logits, NULL, sampler);
    }
    mem_free(x);
    ops->act_destroy(logits);
    ops->sampler_destroy(sampler);
}

static void matrix_row(const void *context, size_t row, float *out)
{
    (void)context;
    for (int i = 0; i < LAYER_WIDTH; i++)
        out[i] = sinf((float)(row * 31 + (size_t)i));
}

/* The last rows through the head, with a soft cap. */
static void layer_logits(struct layer *layer, float *rows, uint32_t n)
{
    const struct backend_vtable *ops = layer->ops;
    struct weight_desc desc = {"head", 50,   LAYER_WIDTH, WEIGHT_BF16, 0,    matrix_row,
                               NULL,   NULL, false,       NULL,        NULL, 0};
    struct weight *weight;
    struct act *logits;
    LAYER_TRY(ops->weight_pack(layer->backend, &desc, &weight));
    LAYER_TRY(ops->act_create(layer->backend, ACT_HIDDEN, n, 50, &logits));
    ops->logits(layer->backend, layer->step, 0, n, layer->mixed, weight, 3.0f, logits);
    ops->act_read(logits, 0, n, rows);
    ops->act_destroy(logits);
    ops->weight_destroy(weight);
}

void layer_result_free(struct layer_result *result)
{
    mem_free(result->rows);
    mem_free(result->drawn);
    *result = (struct layer_result){0};
}

static bool same_result(const struct layer_result *a, const struct layer_result *b, const char *how)
{
    bool rows = memcmp(a->rows, b->rows, a->n_rows_floats * sizeof(float)) == 0;
    bool drawn = memcmp(a->drawn, b->drawn, a->n_drawn * sizeof a->drawn[0]) == 0;
    if (!rows || !drawn)
        printf("  %s: %s differ\n", how, rows ? "draws" : "rows");
    return rows && drawn;
}

bool check_layer(uint64_t seed, enum isa_level level, enum arithmetic arithmetic, int n_threads,
                 struct layer_result *golden, uint64_t dispatches[KERNEL_COUNT])
{
    enum { ROW_FLOATS = LAYER_WIDTH + LAYER_WIDTH / 2, LOGIT_ROWS = 4 };
    struct layer layer;
    layer_create(&layer, seed, level, arithmetic, n_threads);
    bool ok = true;
    /* All rows in one step, in chunks of 16, each row alone. */
    static const uint32_t chunks[] = {LAYER_ROWS, 16, 1};
    for (size_t c = 0; ok && c < sizeof chunks / sizeof chunks[0]; c++) {
        size_t body = (size_t)LAYER_KVS * LAYER_ROWS * ROW_FLOATS;
        struct layer_result result = {.n_rows_floats =
                                          body + LOGIT_ROWS * 50 + (size_t)LONG_ROWS * LAYER_WIDTH,
                                      .n_drawn = LAYER_SLOTS};
        result.rows = mem_alloc_array(result.n_rows_floats, sizeof(float));
        result.drawn = mem_alloc_array(result.n_drawn, sizeof result.drawn[0]);
        ASSERT(result.rows != NULL && result.drawn != NULL);
        for (uint32_t at = 0; at < LAYER_ROWS; at += chunks[c]) {
            uint32_t begin[LAYER_SEQS], end[LAYER_SEQS];
            for (uint32_t s = 0; s < LAYER_SEQS; s++) {
                begin[s] = at < layer_lengths[s] ? at : layer_lengths[s];
                end[s] = at + chunks[c] < layer_lengths[s] ? at + chunks[c] : layer_lengths[s];
            }
            layer_run(&layer, begin, end, result.rows);
        }
        for (uint32_t r = 0; r < LOGIT_ROWS; r++)
            layer.ops->act_write(layer.mixed, r, 1, result.rows + r * ROW_FLOATS);
        layer_logits(&layer, result.rows + body, LOGIT_ROWS);
        layer_long(&layer, c == 0, result.rows + body + LOGIT_ROWS * 50);
        layer_sample(&layer, seed, c == 0, result.drawn);
        if (golden->rows == NULL) {
            *golden = result;
            continue;
        }
        char how[64];
        snprintf(how, sizeof how, "steps of at most %u rows a sequence", chunks[c]);
        ok = same_result(golden, &result, how);
        layer_result_free(&result);
    }
    for (int k = 0; k < KERNEL_COUNT; k++)
        dispatches[k] += cpu_of(layer.backend)->dispatches[k];
    layer_destroy(&layer);
    return ok;
}
