#include "benchmarks/op_bench.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include "base/alloc.h"
#include "base/clock.h"
#include "base/philox.h"

enum {
    OP_LAYERS_MAX = 64,
    OP_MATRICES = 4,
    OP_BLOCK_TOKENS = 16,
    OP_WARMUPS = 3, /* runs, is captured, is replayed for the first time */
    OP_REPEATS = 9,
    OP_HISTORY = 1, /* tokens of a sampling slot when it is set */
    /* More rows in the steps that fill the KV than in any that is measured: a device that captures a graph
     * for each number of rows must not take the one for the other. */
    OP_FILL_EXTRA_ROWS = 64,
};

struct op_acts {
    struct act *residual, *hidden, *delta, *qkv, *attention, *gate_up, *mlp, *output, *logits;
};

struct op_bench {
    const struct op_bench_options *options;
    enum op_kind kind;
    struct backend *backend;
    const struct backend_vtable *ops;
    struct step_capacity capacity;
    struct step *step;
    struct op_acts acts;
    struct weight *weights[OP_LAYERS_MAX][OP_MATRICES];
    struct kv *kv[OP_LAYERS_MAX];
    struct vector *norm;
    struct rope *rope;
    struct weight *head; /* [vocab][hidden]: embedding or LM head */
    struct sampler *sampler;
    uint32_t logits_rows;  /* outputs that one pass through the LM head takes */
    uint64_t weight_bytes; /* of a layer or of the head, packed */
};

static const char *const NAMES[OP_KINDS] = {
    [OP_LAYER_LINEARS] = "layer_linears",
    [OP_ATTENTION_DECODE] = "attention_decode",
    [OP_ATTENTION_SHARED] = "attention_shared",
    [OP_ATTENTION_PREFILL] = "attention_prefill",
    [OP_ROPE_KV_WRITE] = "rope_kv_write",
    [OP_ADD_NORM] = "add_norm",
    [OP_ACTIVATION_MUL] = "activation_mul",
    [OP_DECODE_LAYER] = "decode_layer",
    [OP_EMBED] = "embed",
    [OP_LM_HEAD] = "lm_head",
    [OP_LM_HEAD_GREEDY] = "lm_head_greedy",
    [OP_LM_HEAD_TOP_P] = "lm_head_top_p",
};

const char *op_kind_name(enum op_kind kind)
{
    return NAMES[kind];
}

/* ---- Shapes ---- */

static size_t q_width(const struct qkv_shape *s)
{
    return (size_t)s->n_heads * s->head_dim;
}

static size_t qkv_width(const struct qkv_shape *s)
{
    return q_width(s) + 2 * (size_t)s->n_kv_heads * s->head_dim;
}

/* A matrix of noise. */
struct noise_matrix {
    size_t n_in;
    uint32_t group;
};

static void noise_row(const void *context, size_t row, float *out)
{
    const struct noise_matrix *matrix = context;
    uint32_t state = (uint32_t)row * 2654435761u + 12345;
    for (size_t i = 0; i < matrix->n_in; i++) {
        state = state * 1664525u + 1013904223u;
        out[i] = (float)(int32_t)state * 0x1p-36f;
    }
}

/* Of WEIGHT_UINT4. */
static void noise_row_codes(const void *context, size_t row, const struct weight_codes *out)
{
    const struct noise_matrix *matrix = context;
    uint32_t state = (uint32_t)row * 2654435761u + 12345;
    for (size_t i = 0; i < matrix->n_in; i++) {
        state = state * 1664525u + 1013904223u;
        out->codes[i] = (int8_t)(state >> 28);
    }
    for (size_t g = 0; g < matrix->n_in / matrix->group; g++) {
        out->scales[g] = 0x1p-8f;
        out->zeros[g] = (uint8_t)(7 + g % 2);
    }
}

static void noise_codes(const void *context, size_t first_row, size_t n_rows, const struct weight_codes *out)
{
    for (size_t i = 0; i < n_rows; i++)
        noise_row_codes(context, first_row + i, &out[i]);
}

/* The four matrices of a layer; made: what their rows are made of. */
static void describe_matrices(const struct op_bench_options *o, struct noise_matrix made[OP_MATRICES],
                              struct weight_desc out[OP_MATRICES])
{
    static const char *const names[OP_MATRICES] = {"qkv", "o", "gate_up", "down"};
    const size_t inputs[OP_MATRICES] = {o->hidden, q_width(&o->qkv), o->hidden, o->intermediate};
    const size_t outputs[OP_MATRICES] = {qkv_width(&o->qkv), o->hidden, 2 * o->intermediate, o->hidden};
    for (int i = 0; i < OP_MATRICES; i++) {
        bool by_output = o->weights == WEIGHT_FP8 || o->rows_in_8_bits;
        made[i] = (struct noise_matrix){inputs[i], by_output ? (uint32_t)inputs[i] : o->group};
        out[i] = (struct weight_desc){
            .name = names[i],
            .n_out = outputs[i],
            .n_in = inputs[i],
            .format = o->weights,
            .group = made[i].group,
            .row = noise_row,
            .row_context = &made[i],
            .codes = o->weights == WEIGHT_UINT4 ? noise_codes : NULL,
        };
    }
}

enum weight_format op_bench_head_format(const struct op_bench_options *o)
{
    bool has_groups = o->weights == WEIGHT_INT4 || (o->weights == WEIGHT_INT8 && !o->rows_in_8_bits);
    return has_groups ? WEIGHT_INT8 : WEIGHT_BF16;
}

static struct weight_desc describe_head(const struct op_bench_options *o, const struct noise_matrix *made)
{
    return (struct weight_desc){
        .name = "head",
        .n_out = o->vocab,
        .n_in = o->hidden,
        .format = op_bench_head_format(o),
        .group = made->group,
        .row = noise_row,
        .row_context = made,
    };
}

static bool uses_head(enum op_kind kind)
{
    return kind == OP_EMBED || kind == OP_LM_HEAD || kind == OP_LM_HEAD_GREEDY || kind == OP_LM_HEAD_TOP_P;
}

/* Draws tokens. */
static bool samples(enum op_kind kind)
{
    return kind == OP_LM_HEAD_GREEDY || kind == OP_LM_HEAD_TOP_P;
}

/* Runs behind the forward pass. */
static bool is_of_outputs(enum op_kind kind)
{
    return kind == OP_LM_HEAD || samples(kind);
}

static bool uses_weights(enum op_kind kind)
{
    return kind == OP_LAYER_LINEARS || kind == OP_DECODE_LAYER;
}

static bool decodes(enum op_kind kind)
{
    return kind == OP_ATTENTION_DECODE || kind == OP_ATTENTION_SHARED || kind == OP_DECODE_LAYER;
}

/* Tokens at the beginning that all sequences have in common: whole blocks. */
static uint32_t shared_tokens(const struct op_bench_options *o, enum op_kind kind)
{
    return kind == OP_ATTENTION_SHARED ? o->context * 2 / 3 / OP_BLOCK_TOKENS * OP_BLOCK_TOKENS : 0;
}

static bool uses_kv(enum op_kind kind)
{
    return decodes(kind) || kind == OP_ATTENTION_PREFILL || kind == OP_ROPE_KV_WRITE;
}

/* Tokens of the longest sequence: of a prompt, or of each that decodes. */
static uint32_t longest(const struct op_bench *b)
{
    if (b->kind == OP_ATTENTION_PREFILL)
        return b->capacity.rows;
    return decodes(b->kind) ? b->options->context : OP_BLOCK_TOKENS;
}

static struct kv_desc kv_shape(const struct op_bench *b)
{
    uint32_t n_seqs = b->kind == OP_ATTENTION_PREFILL ? 1 : b->capacity.seqs;
    return (struct kv_desc){.dtype = b->options->kv_dtype,
                            .n_blocks = n_seqs * b->capacity.blocks_per_seq,
                            .block_tokens = OP_BLOCK_TOKENS,
                            .n_kv_heads = b->options->qkv.n_kv_heads,
                            .head_dim = b->options->qkv.head_dim};
}

struct act_plan {
    struct act **out;
    enum act_role role;
    size_t width;
    uint32_t rows;
};
enum { OP_ACTS = 9 };

static void plan_acts(struct op_bench *b, struct act_plan plans[OP_ACTS])
{
    const struct op_bench_options *o = b->options;
    uint32_t n = b->capacity.rows;
    const struct act_plan all[OP_ACTS] = {
        {&b->acts.residual, ACT_RESIDUAL, o->hidden, n},
        {&b->acts.hidden, ACT_HIDDEN, o->hidden, n},
        {&b->acts.delta, ACT_HIDDEN, o->hidden, n},
        {&b->acts.qkv, ACT_HIDDEN, qkv_width(&o->qkv), n},
        {&b->acts.attention, ACT_HIDDEN, q_width(&o->qkv), n},
        {&b->acts.gate_up, ACT_HIDDEN, 2 * o->intermediate, n},
        {&b->acts.mlp, ACT_HIDDEN, o->intermediate, n},
        {&b->acts.output, ACT_HIDDEN, o->hidden, b->logits_rows},
        {&b->acts.logits, ACT_LOGITS, is_of_outputs(b->kind) ? o->vocab : 1, b->logits_rows},
    };
    memcpy(plans, all, sizeof all);
}

/* ---- Handles ---- */

static err_t open_backend(const struct op_bench_options *o, struct backend **out)
{
    if (strcmp(o->device, "cpu") == 0)
        return backend_cpu_create(o->n_threads, "auto", out);
    struct backend_cuda_options cuda = {.n_threads = o->n_threads,
                                        .batch_variant = o->batch_variant,
                                        .library_rows_min = o->library_rows_min};
    if (backend_cuda_parse(o->device, &cuda.device))
        return backend_cuda_create(&cuda, out);
    return err_new(ERR_INVALID_ARGUMENT, "--device: \"%s\" is not cpu, cuda or cuda:N", o->device);
}

/* Tokens that a slot comes to hold: each step appends one a call. */
static size_t history_max(const struct op_bench *b)
{
    return OP_HISTORY + (size_t)(OP_WARMUPS + OP_REPEATS) * b->options->n_rounds * b->options->n_layers;
}

/* Of what surrounds the layers. */
static uint64_t head_bytes(struct op_bench *b)
{
    const struct noise_matrix made = {b->options->hidden, b->options->group};
    const struct weight_desc head = describe_head(b->options, &made);
    if (!uses_head(b->kind))
        return 0;
    b->weight_bytes = b->ops->weight_bytes(b->backend, &head);
    uint64_t sampler = samples(b->kind) ? b->ops->sampler_bytes(b->backend, b->capacity.seqs,
                                                                b->options->vocab, history_max(b))
                                        : 0;
    return b->weight_bytes + sampler;
}

static err_t reserve(struct op_bench *b)
{
    const struct op_bench_options *o = b->options;
    const struct backend_vtable *ops = b->ops;
    struct act_plan acts[OP_ACTS];
    plan_acts(b, acts);
    size_t vocab = is_of_outputs(b->kind) ? o->vocab : 1;
    struct backend_needs needs = {
        .step = b->capacity, .qkv = o->qkv, .vocab_size = vocab, .logits_rows = b->logits_rows};
    uint64_t bytes = 0;
    for (int i = 0; i < OP_ACTS; i++) {
        bytes += ops->act_bytes(b->backend, acts[i].role, acts[i].rows, acts[i].width);
        if (acts[i].role != ACT_LOGITS && acts[i].width > needs.widest_out)
            needs.widest_out = acts[i].width;
    }
    needs.widest_in = o->intermediate > o->hidden ? o->intermediate : o->hidden;
    if (q_width(&o->qkv) > needs.widest_in)
        needs.widest_in = q_width(&o->qkv);
    struct noise_matrix made[OP_MATRICES];
    struct weight_desc matrices[OP_MATRICES];
    describe_matrices(o, made, matrices);
    for (int i = 0; i < OP_MATRICES && uses_weights(b->kind); i++) {
        size_t n = matrices[i].n_out * matrices[i].n_in;
        needs.largest_weight = n > needs.largest_weight ? n : needs.largest_weight;
        b->weight_bytes += ops->weight_bytes(b->backend, &matrices[i]);
    }
    bytes += o->n_layers * b->weight_bytes;
    bytes += head_bytes(b);
    struct kv_desc kv = kv_shape(b);
    if (uses_kv(b->kind))
        bytes += o->n_layers * (uint64_t)ops->kv_bytes(b->backend, &kv);
    bytes += ops->vector_bytes(b->backend, o->hidden);
    bytes += ops->rope_bytes(b->backend, o->qkv.head_dim / 2, longest(b));
    bytes += ops->scratch_bytes(b->backend, &needs);
    return ops->reserve(b->backend, &needs, bytes);
}

static err_t fill_act(struct op_bench *b, struct act *act, uint32_t n_rows, size_t width, uint64_t seed)
{
    float *values = mem_alloc_array(width, sizeof *values);
    if (!values)
        return err_new(ERR_RESOURCE_EXHAUSTED, "out of memory for %zu values", width);
    struct rng rng = rng_make(seed);
    for (size_t i = 0; i < width; i++)
        values[i] = rng_normal(&rng);
    for (uint32_t row = 0; row < n_rows; row++) {
        for (size_t i = 0; i < width; i += 16) /* rows that differ, without a draw for each value */
            values[i] = rng_normal(&rng);
        b->ops->act_write(act, row, 1, values);
    }
    mem_free(values);
    return err_ok();
}

static err_t create_acts(struct op_bench *b)
{
    struct act_plan acts[OP_ACTS];
    plan_acts(b, acts);
    for (int i = 0; i < OP_ACTS; i++) {
        TRY(b->ops->act_create(b->backend, acts[i].role, acts[i].rows, acts[i].width, acts[i].out));
        if (acts[i].role != ACT_LOGITS)
            TRY(fill_act(b, *acts[i].out, acts[i].rows, acts[i].width, (uint64_t)i + 1));
    }
    return err_ok();
}

static err_t create_tables(struct op_bench *b)
{
    const struct op_bench_options *o = b->options;
    size_t n_freq = o->qkv.head_dim / 2, n = o->hidden > n_freq ? o->hidden : n_freq;
    float *values = mem_alloc_array(n, sizeof *values);
    if (!values)
        return err_new(ERR_RESOURCE_EXHAUSTED, "out of memory for %zu values", n);
    for (size_t i = 0; i < n; i++)
        values[i] = 1.0f + 0.01f * (float)(i % 7);
    err_t e = b->ops->vector_create(b->backend, values, o->hidden, &b->norm);
    for (size_t i = 0; i < n_freq; i++)
        values[i] = powf(500000.0f, -(float)i / (float)n_freq);
    if (e.code == ERR_OK)
        e = b->ops->rope_create(b->backend, values, n_freq, 1.0f, longest(b), &b->rope);
    mem_free(values);
    return e;
}

static err_t create_layers(struct op_bench *b)
{
    struct noise_matrix made[OP_MATRICES];
    struct weight_desc matrices[OP_MATRICES];
    describe_matrices(b->options, made, matrices);
    struct kv_desc kv = kv_shape(b);
    for (uint32_t layer = 0; layer < b->options->n_layers; layer++) {
        if (uses_kv(b->kind))
            TRY(b->ops->kv_create(b->backend, &kv, &b->kv[layer]));
        for (int i = 0; i < OP_MATRICES && uses_weights(b->kind); i++)
            TRY(b->ops->weight_pack(b->backend, &matrices[i], &b->weights[layer][i]));
    }
    return err_ok();
}

static err_t create_head(struct op_bench *b)
{
    const struct noise_matrix made = {b->options->hidden, b->options->group};
    const struct weight_desc head = describe_head(b->options, &made);
    if (uses_head(b->kind))
        TRY(b->ops->weight_pack(b->backend, &head, &b->head));
    if (!samples(b->kind))
        return err_ok();
    return b->ops->sampler_create(b->backend, b->capacity.seqs, b->options->vocab, history_max(b),
                                  &b->sampler);
}

static void close_bench(struct op_bench *b)
{
    if (!b->backend)
        return;
    if (b->head)
        b->ops->weight_destroy(b->head);
    if (b->sampler)
        b->ops->sampler_destroy(b->sampler);
    for (uint32_t layer = 0; layer < b->options->n_layers; layer++) {
        if (b->kv[layer])
            b->ops->kv_destroy(b->kv[layer]);
        for (int i = 0; i < OP_MATRICES; i++)
            if (b->weights[layer][i])
                b->ops->weight_destroy(b->weights[layer][i]);
    }
    struct act_plan acts[OP_ACTS];
    plan_acts(b, acts);
    for (int i = 0; i < OP_ACTS; i++)
        if (*acts[i].out)
            b->ops->act_destroy(*acts[i].out);
    if (b->norm)
        b->ops->vector_destroy(b->norm);
    if (b->rope)
        b->ops->rope_destroy(b->rope);
    if (b->step)
        b->ops->step_destroy(b->backend, b->step);
    b->ops->destroy(b->backend);
}

/* ---- Steps ---- */

/* Tokens [first, first + n) of the sequences laid end to end, `length` each. */
static void set_step(struct op_bench *b, uint64_t first, uint32_t n, uint32_t length)
{
    struct step *step = b->step;
    step->n_rows = n;
    step->n_seqs = step->n_outputs = step->n_copies = 0;
    for (uint32_t row = 0; row < n; row++) {
        uint32_t seq = (uint32_t)((first + row) / length), position = (uint32_t)((first + row) % length);
        if (row == 0 || position == 0) {
            uint32_t index = step->n_seqs++;
            step->seqs[index] = (struct step_seq){
                .first_row = row, .sampling_slot = STEP_NO_SLOT, .adapter_slot = STEP_NO_SLOT};
            for (uint32_t i = 0; i < b->capacity.blocks_per_seq; i++)
                step_block_table(step, 0, index)[i] = seq * b->capacity.blocks_per_seq + i;
        }
        struct step_seq *current = &step->seqs[step->n_seqs - 1];
        current->n_rows++;
        current->n_context = position + 1;
        step->rows[row] = (struct step_row){.position = position, .seq = step->n_seqs - 1};
    }
}

/* Their last token in slots that are new: a slot has room for the steps of one number of rows. */
static void set_slots(struct op_bench *b, uint32_t n)
{
    const struct sampler_params params = {.temperature = b->kind == OP_LM_HEAD_GREEDY ? 0.0f : 1.0f,
                                          .top_p = b->kind == OP_LM_HEAD_TOP_P ? 0.9f : 1.0f,
                                          .repetition_penalty = 1.0f,
                                          .seed = 7};
    const uint32_t prompt[OP_HISTORY] = {0};
    const struct sampler_history history = {.prompt_ids = prompt, .n_prompt = OP_HISTORY};
    for (uint32_t slot = 0; slot < n && samples(b->kind); slot++)
        b->ops->slot_set(b->sampler, slot, &params, &history);
}

/* The last token of each of n sequences. Something is wanted of it, as of every step that an engine captures.
 */
static void set_decode_step(struct op_bench *b, uint32_t n, uint32_t length)
{
    struct step *step = b->step;
    step->n_rows = step->n_seqs = n;
    step->n_copies = 0;
    step->n_outputs = is_of_outputs(b->kind) ? n : 1;
    for (uint32_t i = 0; i < step->n_outputs; i++)
        step->outputs[i] = (struct step_output){.row = i, .n_logprobs = -1};
    for (uint32_t seq = 0; seq < n; seq++) {
        uint32_t token = (uint32_t)(seq * (uint64_t)2654435761u % b->options->vocab);
        step->rows[seq] = (struct step_row){.token = token, .position = length - 1, .seq = seq};
        step->seqs[seq] = (struct step_seq){.first_row = seq,
                                            .n_rows = 1,
                                            .n_context = length,
                                            .sampling_slot = samples(b->kind) ? seq : STEP_NO_SLOT,
                                            .adapter_slot = STEP_NO_SLOT};
        for (uint32_t i = 0; i < b->capacity.blocks_per_seq; i++) {
            bool is_shared = (i + 1) * OP_BLOCK_TOKENS <= shared_tokens(b->options, b->kind);
            step_block_table(step, 0, seq)[i] = (is_shared ? 0 : seq) * b->capacity.blocks_per_seq + i;
        }
    }
}

static void write_kv(struct op_bench *b, uint32_t layer)
{
    b->ops->rope_kv_write(b->backend, b->step, b->acts.qkv, &b->options->qkv, NULL, NULL, 1e-5f, b->rope,
                          ROPE_HALVES, b->kv[layer]);
}

static void run_linear(struct op_bench *b, uint32_t layer, int i)
{
    const struct op_acts *acts = &b->acts;
    struct act *const in[OP_MATRICES] = {acts->hidden, acts->attention, acts->hidden, acts->mlp};
    struct act *const out[OP_MATRICES] = {acts->qkv, acts->delta, acts->gate_up, acts->delta};
    b->ops->linear(b->backend, b->step, STEP_ROWS_ALL, in[i], b->weights[layer][i], out[i]);
}

static void run_op(struct op_bench *b, enum op_kind kind, uint32_t layer);

/* As model/forward.c has it. */
static void run_layer(struct op_bench *b, uint32_t layer)
{
    const enum op_kind before[OP_MATRICES] = {OP_ADD_NORM, OP_ATTENTION_DECODE, OP_ADD_NORM,
                                              OP_ACTIVATION_MUL};
    for (int i = 0; i < OP_MATRICES; i++) {
        if (before[i] == OP_ATTENTION_DECODE && !b->options->leaves_out[OP_ROPE_KV_WRITE])
            run_op(b, OP_ROPE_KV_WRITE, layer);
        if (!b->options->leaves_out[before[i]])
            run_op(b, before[i], layer);
        if (!b->options->leaves_out[OP_LAYER_LINEARS])
            run_linear(b, layer, i);
    }
}

/* As model/forward.c has it. */
static void run_head(struct op_bench *b)
{
    const struct op_acts *acts = &b->acts;
    for (uint32_t first = 0; first < b->step->n_outputs; first += b->logits_rows) {
        uint32_t n = b->step->n_outputs - first;
        n = n < b->logits_rows ? n : b->logits_rows;
        b->ops->gather_outputs(b->backend, b->step, first, n, acts->hidden, acts->output);
        b->ops->logits(b->backend, b->step, first, n, acts->output, b->head, 0.0f, acts->logits);
        if (samples(b->kind))
            b->ops->sample(b->backend, b->step, first, n, acts->logits, NULL, b->sampler);
    }
}

static void run_op(struct op_bench *b, enum op_kind kind, uint32_t layer)
{
    const struct op_acts *acts = &b->acts;
    const struct attention_params attention = {.shape = b->options->qkv,
                                               .scale = 1.0f / sqrtf((float)b->options->qkv.head_dim)};
    switch (kind) {
    case OP_LAYER_LINEARS:
        for (int i = 0; i < OP_MATRICES; i++)
            run_linear(b, layer, i);
        break;
    case OP_ATTENTION_DECODE:
    case OP_ATTENTION_SHARED:
    case OP_ATTENTION_PREFILL:
        b->ops->attention(b->backend, b->step, acts->qkv, &attention, b->kv[layer], acts->attention);
        break;
    case OP_ROPE_KV_WRITE:
        write_kv(b, layer);
        break;
    case OP_ADD_NORM:
        b->ops->add_norm(b->backend, b->step, STEP_ROWS_ALL, acts->residual, acts->delta, NULL, b->norm,
                         1e-5f, acts->hidden);
        break;
    case OP_ACTIVATION_MUL:
        b->ops->activation_mul(b->backend, b->step, STEP_ROWS_ALL, acts->gate_up, ACTIVATION_SILU, acts->mlp);
        break;
    case OP_DECODE_LAYER:
        run_layer(b, layer);
        break;
    case OP_EMBED:
        b->ops->embed(b->backend, b->step, NULL, b->head, 0, 1.0f, acts->residual);
        break;
    case OP_LM_HEAD:
    case OP_LM_HEAD_GREEDY:
    case OP_LM_HEAD_TOP_P:
        run_head(b);
        break;
    case OP_KINDS:
        break;
    }
}

/* Behind a forward pass that has something in it, since a device may capture it. */
static void run_outputs(struct op_bench *b)
{
    if (!b->ops->sample_begin(b->backend, b->step, NULL))
        return;
    do
        for (uint32_t i = 0; i < b->options->n_rounds * b->options->n_layers; i++)
            run_op(b, b->kind, i % b->options->n_layers);
    while (!b->ops->sample_end(b->backend, b->step));
}

static void run_step(struct op_bench *b)
{
    uint32_t n_calls = b->options->n_rounds * b->options->n_layers;
    if (b->ops->forward_begin(b->backend, b->step)) {
        do {
            for (uint32_t i = 0; i < n_calls && !is_of_outputs(b->kind); i++)
                run_op(b, b->kind, i % b->options->n_layers);
            if (is_of_outputs(b->kind))
                run_op(b, OP_ADD_NORM, 0);
        } while (!b->ops->forward_end(b->backend, b->step));
    }
    if (is_of_outputs(b->kind))
        run_outputs(b);
    b->ops->collect(b->backend, b->step);
}

/* Random keys and values in every layer, wherever the measured steps look. */
static void fill_kv(struct op_bench *b, uint32_t n_seqs, uint32_t length)
{
    uint64_t total = (uint64_t)n_seqs * length;
    uint32_t n = total < b->capacity.rows ? (uint32_t)total : b->capacity.rows;
    for (uint64_t first = 0; first < total; first += n) {
        set_step(b, first + n <= total ? first : total - n, n, length);
        if (!b->ops->forward_begin(b->backend, b->step)) {
            b->ops->collect(b->backend, b->step);
            continue;
        }
        for (uint32_t layer = 0; layer < b->options->n_layers; layer++)
            write_kv(b, layer);
        b->ops->forward_end(b->backend, b->step);
        b->ops->collect(b->backend, b->step);
    }
}

/* ---- Figures ---- */

static int compare(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double median_step_us(struct op_bench *b)
{
    double samples[OP_REPEATS];
    for (int i = 0; i < OP_WARMUPS; i++)
        run_step(b);
    for (int i = 0; i < OP_REPEATS; i++) {
        int64_t began_ns = clock_now_ns(clock_monotonic());
        run_step(b);
        samples[i] = (double)(clock_now_ns(clock_monotonic()) - began_ns) / 1e3;
    }
    qsort(samples, OP_REPEATS, sizeof *samples, compare);
    return samples[OP_REPEATS / 2];
}

static double kv_token_bytes(const struct op_bench_options *o)
{
    double value_bytes = o->kv_dtype == KV_F32 ? 4 : o->kv_dtype == KV_BF16 ? 2 : 1;
    double scale_bytes = o->kv_dtype == KV_INT8 ? 2 : 0; /* of a token and head */
    return 2.0 * o->qkv.n_kv_heads * (o->qkv.head_dim * value_bytes + scale_bytes);
}

static void count_work(const struct op_bench *b, uint32_t rows, struct op_bench_result *out)
{
    const struct op_bench_options *o = b->options;
    double n = rows, hidden = (double)o->hidden, feed = (double)o->intermediate, vocab = (double)o->vocab;
    double q = (double)q_width(&o->qkv), qkv = (double)qkv_width(&o->qkv);
    double keys = decodes(b->kind) ? n * o->context : n * (n + 1) / 2;
    double shared = shared_tokens(o, b->kind),
           kept = decodes(b->kind) ? shared + n * (o->context - shared) : n;
    switch (b->kind) {
    case OP_DECODE_LAYER:
        out->footprint_bytes = (double)b->weight_bytes + keys * kv_token_bytes(o);
        out->bytes = out->footprint_bytes;
        out->footprint_bytes *= o->n_layers;
        out->flops = 2 * n * (qkv * hidden + hidden * q + 3 * feed * hidden) + 4 * keys * q;
        break;
    case OP_LAYER_LINEARS:
        out->bytes = (double)b->weight_bytes + 2 * n * (2 * hidden + q + feed + qkv + 2 * hidden + 2 * feed);
        out->flops = 2 * n * (qkv * hidden + hidden * q + 3 * feed * hidden);
        out->footprint_bytes = (double)b->weight_bytes * o->n_layers;
        break;
    case OP_ATTENTION_DECODE:
    case OP_ATTENTION_SHARED:
    case OP_ATTENTION_PREFILL:
        out->footprint_bytes = kept * kv_token_bytes(o);
        out->bytes = out->footprint_bytes + 2 * n * 2 * q;
        out->footprint_bytes *= o->n_layers;
        out->flops = 4 * keys * q;
        break;
    case OP_ROPE_KV_WRITE:
        out->bytes = n * (2 * (qkv + q) + kv_token_bytes(o));
        break;
    case OP_ADD_NORM:
        out->bytes = n * hidden * (4 + 4 + 2 + 2);
        break;
    case OP_ACTIVATION_MUL:
        out->bytes = n * feed * 3 * 2;
        break;
    case OP_EMBED:
        out->bytes = n * hidden * (2 + 4);
        break;
    case OP_LM_HEAD:
    case OP_LM_HEAD_GREEDY:
    case OP_LM_HEAD_TOP_P:
        out->footprint_bytes = (double)b->weight_bytes;
        out->bytes = out->footprint_bytes + n * hidden * 3 * 2 + n * vocab * (samples(b->kind) ? 8 : 4);
        out->flops = 2 * n * hidden * vocab;
        break;
    case OP_KINDS:
        break;
    }
}

static err_t open_bench(struct op_bench *b)
{
    TRY(open_backend(b->options, &b->backend));
    b->ops = b->backend->vtable;
    b->logits_rows =
        b->capacity.outputs < b->ops->logits_rows_max ? b->capacity.outputs : b->ops->logits_rows_max;
    TRY(reserve(b));
    TRY(b->ops->step_create(b->backend, &b->capacity, &b->step));
    TRY(create_acts(b));
    TRY(create_tables(b));
    TRY(create_head(b));
    return create_layers(b);
}

err_t op_bench_run(const struct op_bench_options *options, enum op_kind kind, const uint32_t *rows,
                   size_t n_rows, struct op_bench_result *results)
{
    uint32_t most = rows[n_rows - 1], capacity = most + OP_FILL_EXTRA_ROWS;
    struct op_bench b = {
        .options = options,
        .kind = kind,
        .capacity = {.rows = capacity,
                     .seqs = capacity,
                     .outputs = is_of_outputs(kind) ? capacity : 1,
                     .copies = 1,
                     .kv_groups = 1},
    };
    b.capacity.blocks_per_seq = (longest(&b) + OP_BLOCK_TOKENS - 1) / OP_BLOCK_TOKENS;
    if (options->n_layers > OP_LAYERS_MAX)
        return err_new(ERR_INVALID_ARGUMENT, "--layers %u exceeds %d", options->n_layers, OP_LAYERS_MAX);
    err_t e = open_bench(&b);
    if (e.code == ERR_OK && decodes(kind))
        fill_kv(&b, most, options->context);
    if (e.code == ERR_OK && kind == OP_ATTENTION_PREFILL)
        fill_kv(&b, 1, most);
    for (size_t i = 0; i < n_rows && e.code == ERR_OK; i++) {
        if (kind == OP_ATTENTION_PREFILL)
            set_step(&b, 0, rows[i], capacity);
        else
            set_decode_step(&b, rows[i], longest(&b));
        set_slots(&b, rows[i]);
        results[i] = (struct op_bench_result){0};
        results[i].us = median_step_us(&b) / options->n_rounds / options->n_layers;
        count_work(&b, rows[i], &results[i]);
    }
    if (e.code == ERR_OK)
        e = b.ops->fault(b.backend);
    close_bench(&b);
    return e;
}
