/* checkkernel --bench: the ops as the engine calls them, on shapes of 1B and 8B models, against the ceilings
 * that this machine shows in the same run (the best of their samples; of the ops the median). */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "base/alloc.h"
#include "base/clock.h"
#include "kernels/cpu_memory.h"
#include "tests/kernels/bench_ceilings.h"
#include "tests/kernels/bench_expand.h"
#include "tests/kernels/checkkernel.h"

enum {
    /* Weights are read round robin from this many bytes of copies, more than a cache holds. */
    BENCH_WEIGHT_BYTES = 768 << 20,
    BENCH_REPEATS = 7, /* the median counts */
    BENCH_ROWS_MAX = 512,
};

struct bench {
    const struct check_options *options;
    struct backend *backend;
    const struct backend_vtable *ops;
    enum isa_level isa;
    struct ceilings ceilings;
    bool lacks_products; /* of attention by tiles */
};

/* One timed call; what it does per call is the caller's business. */
typedef void bench_fn(void *context);

static double seconds_now(void)
{
    return (double)clock_now_ns(clock_monotonic()) * 1e-9;
}

static int compare_doubles(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* Seconds of a call, each sample long enough for the clock: the median. */
static double time_call(bench_fn *fn, void *context)
{
    fn(context);
    double start = seconds_now();
    fn(context);
    double once = seconds_now() - start;
    int calls = once > 0.05 ? 1 : (int)(0.05 / (once + 1e-9)) + 1;
    double samples[BENCH_REPEATS];
    for (int i = 0; i < BENCH_REPEATS; i++) {
        start = seconds_now();
        for (int j = 0; j < calls; j++)
            fn(context);
        samples[i] = (seconds_now() - start) / calls;
    }
    qsort(samples, BENCH_REPEATS, sizeof samples[0], compare_doubles);
    return samples[BENCH_REPEATS / 2];
}

/* peak_gop_s: the ceiling of the arithmetic, 1e9 operations a second; 0 = none. */
static void measure(const struct bench *bench, const char *name, bench_fn *fn, void *context, double bytes,
                    double ops, double peak_gop_s)
{
    double seconds = time_call(fn, context);
    double gb_s = bytes / seconds * 1e-9, gop_s = ops / seconds * 1e-9;
    printf("%-40s %10.1f us %8.1f GB/s %4.0f %% of read", name, seconds * 1e6, gb_s,
           100 * gb_s / bench->ceilings.read_gb_s);
    if (ops > 0)
        printf(" %9.1f GOP/s", gop_s);
    if (peak_gop_s > 0)
        printf(" %4.0f %% of peak", 100 * gop_s / peak_gop_s);
    printf("\n");
    fflush(stdout);
}

/* ---- Linear layers ---- */

static void noise_row(const void *context, size_t row, float *out)
{
    const size_t *n_in = context;
    uint32_t state = (uint32_t)row * 2654435761u + 1;
    for (size_t i = 0; i < *n_in; i++) {
        state = state * 1664525u + 1013904223u;
        out[i] = (float)(int32_t)state * 0x1p-36f;
    }
}

struct linear_bench {
    struct bench *bench;
    struct weight **weights; /* copies of one, far apart in memory */
    size_t n_weights, next;
    struct act *in, *out;
    struct step step;
};

static void run_linear(void *context)
{
    struct linear_bench *b = context;
    const struct weight *weight = b->weights[b->next++ % b->n_weights];
    b->in->n_quantized = 0; /* as after every norm */
    b->bench->ops->linear(b->bench->backend, &b->step, b->in, weight, b->out);
}

static void copy_weights(struct linear_bench *b, struct weight *first)
{
    size_t bytes = weight_panels_bytes(first);
    b->n_weights = BENCH_WEIGHT_BYTES / bytes + 1;
    b->weights = mem_alloc_array(b->n_weights, sizeof b->weights[0]);
    ASSERT(b->weights != NULL);
    b->weights[0] = first;
    for (size_t i = 1; i < b->n_weights; i++) {
        struct weight *copy = mem_alloc(sizeof *copy);
        ASSERT(copy != NULL);
        *copy = *first;
        copy->sections[0].data = cpu_memory_alloc(bytes);
        ASSERT(copy->sections[0].data != NULL);
        memcpy(copy->sections[0].data, first->sections[0].data, bytes);
        b->weights[i] = copy;
    }
}

/* Some codes, and zero points or block scales, which are in one place. */
static void noise_row_codes(const void *context, size_t row, const struct weight_codes *out)
{
    const size_t *n_in = context;
    for (size_t i = 0; i < *n_in; i++)
        out->codes[i] = (int8_t)((i * 7 + row * 3 + i / 11) % 16);
    for (size_t g = 0; g < *n_in / WEIGHT_GROUP; g++) {
        out->scales[g] = 0.01f;
        out->zeros[g] = (uint8_t)((row + g) % 16);
    }
    for (size_t b = 0; b < *n_in / WEIGHT_HALF_GROUP; b++)
        out->block_scales[b] = (int8_t)((row + b) % 16);
}

static void noise_codes(const void *context, size_t first_row, size_t n_rows, const struct weight_codes *out)
{
    for (size_t i = 0; i < n_rows; i++)
        noise_row_codes(context, first_row + i, &out[i]);
}

/* The ceiling of what multiplies the weight. */
static double peak_of(const struct bench *bench, const struct weight *weight)
{
    switch (cpu_panels_form(cpu_of(bench->backend), &weight->sections[0])) {
    case ACT_INT8:
        return bench->ceilings.int8_gop_s;
    case ACT_BF16:
        return bench->ceilings.tile_bf16_gflop_s;
    case ACT_WIDE:
        return bench->ceilings.tile_int8_gop_s;
    case ACT_FLOAT:
        break;
    }
    return bench->ceilings.f32_gflop_s;
}

/* Panels to tiles of bf16 and no product: what few rows wait for on a machine with AMX. */
static void expand_panels(void *context, int thread_index, int n_threads)
{
    _Alignas(64) uint8_t scratch[PANEL_OUTPUTS * EXPAND_INPUTS_FEW * sizeof(uint16_t)];
    const struct panels *panels = context;
    size_t begin, end;
    thread_split(panels->n_panels, 1, thread_index, n_threads, &begin, &end);
    for (size_t p = begin; p < end; p++) {
        struct tile_args args = {.panel = panels->data + p * panels->panel_bytes,
                                 .n_in = panels->n_in,
                                 .group = panels->group,
                                 .scratch = scratch};
        expand_panel(panels->format, &args);
    }
}

static void run_expand(void *context)
{
    struct linear_bench *b = context;
    struct weight *weight = b->weights[b->next++ % b->n_weights];
    cpu_run(cpu_of(b->bench->backend), true, expand_panels, &weight->sections[0]);
}

static void bench_linear(struct bench *bench, enum weight_format format, const char *format_name,
                         size_t n_out, size_t n_in, uint32_t group)
{
    char name[96];
    snprintf(name, sizeof name, "linear_%s", format_name);
    if (!check_selected(bench->options, name))
        return;
    struct linear_bench b = {.bench = bench};
    struct weight_desc desc = {"bench", n_out, n_in,  format, group, noise_row,
                               &n_in,   NULL,  false, NULL,   NULL,  0};
    if (format == WEIGHT_UINT4 || format > WEIGHT_FP8)
        desc.codes = noise_codes;
    struct weight *first;
    double start = seconds_now();
    err_t e = bench->ops->weight_pack(bench->backend, &desc, &first);
    ASSERT(e.code == ERR_OK);
    double pack_seconds = seconds_now() - start;
    copy_weights(&b, first);
    bench->ceilings = ceilings_measure(bench->backend, bench->isa);
    printf("%s %zux%zu packed in %.2f s, %.2f bits a weight; reads %.1f GB/s, its products %.0f GOP/s\n",
           name, n_out, n_in, pack_seconds, (double)(weight_panels_bytes(first)) * 8 / (double)(n_out * n_in),
           bench->ceilings.read_gb_s, peak_of(bench, first));
    e = bench->ops->act_create(bench->backend, ACT_HIDDEN, BENCH_ROWS_MAX, n_in, &b.in);
    ASSERT(e.code == ERR_OK);
    e = bench->ops->act_create(bench->backend, ACT_HIDDEN, BENCH_ROWS_MAX, n_out, &b.out);
    ASSERT(e.code == ERR_OK);
    for (size_t r = 0; r < BENCH_ROWS_MAX; r++)
        noise_row(&n_in, r, act_row(b.in, r));
    static const uint32_t rows[] = {1, 2, 4, 8, 32, BENCH_ROWS_MAX};
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        b.step.n_rows = rows[i];
        snprintf(name, sizeof name, "linear_%s %zux%zu, %u rows", format_name, n_out, n_in, rows[i]);
        measure(bench, name, run_linear, &b, (double)weight_panels_bytes(first),
                2.0 * (double)n_out * (double)n_in * rows[i], peak_of(bench, first));
    }
    snprintf(name, sizeof name, "linear_%s %zux%zu, to tiles", format_name, n_out, n_in);
    if (weight_is_quantized(format) && bench->isa >= ISA_AVX512VNNI && expand_is_available())
        measure(bench, name, run_expand, &b, (double)weight_panels_bytes(first), 0, 0);
    for (size_t i = 0; i < b.n_weights; i++)
        bench->ops->weight_destroy(b.weights[i]);
    mem_free(b.weights);
    bench->ops->act_destroy(b.in);
    bench->ops->act_destroy(b.out);
}

/* ---- Packing ---- */

/* One row again and again: what is measured is the packing. */
struct pack_bench {
    struct bench *bench;
    struct weight_desc desc;
    int8_t *codes; /* [n_in] */
    float *values; /* [n_in] */
};

static void copy_values(const void *context, size_t row, float *out)
{
    const struct pack_bench *b = context;
    (void)row;
    memcpy(out, b->values, b->desc.n_in * sizeof *out);
}

static void copy_codes(const void *context, size_t first_row, size_t n_rows, const struct weight_codes *out)
{
    const struct pack_bench *b = context;
    size_t n_in = b->desc.n_in;
    (void)first_row;
    for (size_t i = 0; i < n_rows; i++) {
        memcpy(out[i].codes, b->codes, n_in);
        memcpy(out[i].scales, b->values, n_in / b->desc.group * sizeof(float));
        memcpy(out[i].minimums, b->values, n_in / b->desc.group * sizeof(float));
        memset(out[i].zeros, 8, n_in / b->desc.group);
        memset(out[i].block_scales, 3,
               n_in / (b->desc.format == WEIGHT_K6 ? WEIGHT_HALF_GROUP : WEIGHT_GROUP));
        memset(out[i].block_minimums, 5, n_in / WEIGHT_GROUP);
    }
}

static void run_pack(void *context)
{
    struct pack_bench *b = context;
    struct weight *weight;
    err_t e = b->bench->ops->weight_pack(b->bench->backend, &b->desc, &weight);
    ASSERT(e.code == ERR_OK);
    b->bench->ops->weight_destroy(weight);
}

/* Ready codes, or values in a float format, to memory that is new each time, as at a start. */
static void bench_pack(struct bench *bench, enum weight_format format, const char *format_name, size_t n_out,
                       size_t n_in, uint32_t group)
{
    char name[96];
    snprintf(name, sizeof name, "pack_%s %zux%zu", format_name, n_out, n_in);
    if (!check_selected(bench->options, name))
        return;
    struct pack_bench b = {.bench = bench};
    b.desc = (struct weight_desc){"bench", n_out, n_in,  format, group, copy_values,
                                  &b,      NULL,  false, NULL,   NULL,  0};
    if (weight_is_quantized(format))
        b.desc.codes = copy_codes;
    b.codes = mem_alloc(n_in);
    b.values = mem_alloc_array(n_in, sizeof(float));
    ASSERT(b.codes != NULL && b.values != NULL);
    noise_row(&n_in, 1, b.values);
    for (size_t i = 0; i < n_in; i++)
        b.codes[i] = (int8_t)(i * 7 % 11);
    measure(bench, name, run_pack, &b, (double)bench->ops->packed_bytes(bench->backend, &b.desc), 0, 0);
    mem_free(b.codes);
    mem_free(b.values);
}

/* ---- Attention ---- */

struct attention_bench {
    struct bench *bench;
    struct step *step;
    struct act *qkv, *out;
    struct kv *kv;
    struct attention_params params;
};

static void run_attention(void *context)
{
    struct attention_bench *b = context;
    b->bench->ops->attention(b->bench->backend, b->step, b->qkv, &b->params, b->kv, b->out);
}

/* n_seqs sequences, each with n_rows new tokens at the end of a context. The line ends with the KV heads and
 * their width. */
static void bench_attention(struct bench *bench, struct qkv_shape shape, enum kv_dtype dtype, uint32_t n_seqs,
                            uint32_t n_rows, uint32_t context)
{
    char name[96];
    const bool tiles = cpu_of(bench->backend)->table.arithmetic == ARITHMETIC_TILES && dtype != KV_F32;
    snprintf(name, sizeof name, "attention_%s%s %u x %u rows, %u tokens, %u of %u%s", tiles ? "tile_" : "",
             dtype == KV_F32    ? "f32"
             : dtype == KV_BF16 ? "bf16"
                                : "int8",
             n_seqs, n_rows, context, shape.n_kv_heads, shape.head_dim,
             bench->lacks_products ? ", to tiles" : "");
    if (!check_selected(bench->options, name))
        return;
    const struct backend_vtable *ops = bench->ops;
    uint32_t width = shape.n_heads * shape.head_dim, blocks = context / KV_BLOCK_TOKENS;
    struct attention_bench b = {.bench = bench, .params = {.shape = shape, .scale = 0.088f}};
    struct step_capacity capacity = {n_seqs * n_rows, n_seqs, 1, 1, blocks, 1};
    struct kv_desc desc = {dtype, n_seqs * blocks, KV_BLOCK_TOKENS, shape.n_kv_heads, shape.head_dim, 0};
    err_t e = step_create(&capacity, &b.step);
    ASSERT(e.code == ERR_OK);
    e = ops->act_create(bench->backend, ACT_HIDDEN, capacity.rows,
                        width + 2 * shape.n_kv_heads * shape.head_dim, &b.qkv);
    ASSERT(e.code == ERR_OK);
    e = ops->act_create(bench->backend, ACT_HIDDEN, capacity.rows, width, &b.out);
    ASSERT(e.code == ERR_OK);
    e = ops->kv_create(bench->backend, &desc, &b.kv);
    ASSERT(e.code == ERR_OK);
    memset(b.kv->blocks, 0x3d, b.kv->block_bytes * desc.n_blocks); /* small positive numbers */
    for (uint32_t s = 0; s < n_seqs; s++) {
        b.step->seqs[s] = (struct step_seq){s * n_rows, n_rows, context, STEP_NO_SLOT, STEP_NO_SLOT};
        for (uint32_t r = 0; r < n_rows; r++) {
            b.step->rows[b.step->n_rows++] = (struct step_row){.position = context - n_rows + r, .seq = s};
            for (uint32_t i = 0; i < width; i++)
                act_row(b.qkv, s * n_rows + r)[i] = (float)(i % 17) * 0.1f - 0.8f;
        }
        for (uint32_t i = 0; i < blocks; i++)
            step_block_table(b.step, 0, s)[i] = i * n_seqs + s;
    }
    b.step->n_seqs = n_seqs;
    double keys = 0;
    for (uint32_t r = 0; r < n_rows; r++)
        keys += (double)(n_seqs * (context - n_rows + r + 1));
    measure(bench, name, run_attention, &b, (double)b.kv->block_bytes * desc.n_blocks, 4.0 * keys * width,
            bench->lacks_products ? 0
            : tiles               ? bench->ceilings.tile_bf16_gflop_s
                                  : bench->ceilings.f32_gflop_s);
    ops->act_destroy(b.qkv);
    ops->act_destroy(b.out);
    ops->kv_destroy(b.kv);
    step_destroy(b.step);
}

/* All but the products of attention by tiles, on machines without. */
static void bench_attention_to_tiles(const struct bench *bench, int n_threads, struct qkv_shape shape)
{
    struct bench own = *bench;
    err_t e = cpu_backend_create(n_threads, bench->isa, ARITHMETIC_TILES, &own.backend);
    ASSERT(e.code == ERR_OK);
    own.lacks_products = true;
    expand_attention(&cpu_of(own.backend)->table);
    bench_attention(&own, shape, KV_BF16, 1, 1, 4096);
    bench_attention(&own, shape, KV_BF16, 1, 512, 512);
    bench_attention(&own, shape, KV_BF16, 1, 512, 2048);
    bench_attention(&own, shape, KV_INT8, 1, 512, 2048);
    own.ops->destroy(own.backend);
}

/* ---- Row-wise ops and sampling ---- */

enum { BENCH_VOCAB = 128256, BENCH_WIDTH = 4096, BENCH_FEED = 14336, BENCH_SLOTS = 2 };

struct rows_bench {
    struct bench *bench;
    struct step step;
    struct step_row rows[BENCH_SLOTS];
    struct step_seq seqs[BENCH_SLOTS];
    struct step_output outputs[BENCH_SLOTS];
    struct step_result results[BENCH_SLOTS];
    struct act *residual, *out, *gate_up, *half, *logits;
    struct vector *norm;
    struct sampler *sampler;
    const struct sampler_params *params;
    float *raw; /* [BENCH_SLOTS][BENCH_VOCAB] */
};

static void run_norm(void *context)
{
    struct rows_bench *b = context;
    b->bench->ops->add_norm(b->bench->backend, &b->step, b->residual, b->out, NULL, b->norm, 1e-5f, b->out);
}

static void run_activation(void *context)
{
    struct rows_bench *b = context;
    b->bench->ops->activation_mul(b->bench->backend, &b->step, b->gate_up, ACTIVATION_SILU, b->half);
}

static void run_sample(void *context)
{
    struct rows_bench *b = context;
    const uint32_t prompt[] = {1, 2, 3};
    struct sampler_history history = {prompt, 3, NULL, 0};
    for (uint32_t s = 0; s < BENCH_SLOTS; s++) {
        b->bench->ops->slot_set(b->sampler, s, b->params, &history);
        memcpy(act_row(b->logits, s), b->raw + (size_t)s * BENCH_VOCAB, BENCH_VOCAB * sizeof(float));
    }
    b->bench->ops->sample(b->bench->backend, &b->step, 0, BENCH_SLOTS, b->logits, NULL, b->sampler);
}

static void bench_sampling(struct rows_bench *b)
{
    static const struct {
        const char *name;
        struct sampler_params params;
        int32_t n_logprobs;
    } cases[] = {
        {"sample greedy", {.temperature = 0, .top_p = 1, .repetition_penalty = 1}, -1},
        {"sample temperature 1", {.temperature = 1, .top_p = 1, .repetition_penalty = 1}, -1},
        {"sample top_k 50", {.temperature = 1, .top_p = 1, .top_k = 50, .repetition_penalty = 1}, -1},
        {"sample top_p 0.9", {.temperature = 1, .top_p = 0.9f, .repetition_penalty = 1}, -1},
        {"sample top_p 0.95, T 2, flat", {.temperature = 2, .top_p = 0.95f, .repetition_penalty = 1}, -1},
        {"sample greedy, 5 logprobs", {.temperature = 0, .top_p = 1, .repetition_penalty = 1}, 5},
    };
    b->step.n_outputs = BENCH_SLOTS;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        if (!check_selected(b->bench->options, cases[i].name))
            continue;
        for (uint32_t s = 0; s < BENCH_SLOTS; s++)
            b->outputs[s] = (struct step_output){s, STEP_OUTPUT_SAMPLE, 0, cases[i].n_logprobs};
        b->params = &cases[i].params;
        char name[96];
        snprintf(name, sizeof name, "%s, %d outputs", cases[i].name, BENCH_SLOTS);
        measure(b->bench, name, run_sample, b, (double)BENCH_SLOTS * BENCH_VOCAB * 4, 0, 0);
    }
}

static void bench_rows(struct bench *bench)
{
    struct rows_bench *b = mem_alloc(sizeof *b);
    ASSERT(b != NULL);
    b->bench = bench;
    b->step = (struct step){.n_rows = BENCH_SLOTS,
                            .n_seqs = BENCH_SLOTS,
                            .rows = b->rows,
                            .seqs = b->seqs,
                            .outputs = b->outputs,
                            .results = b->results};
    const struct backend_vtable *ops = bench->ops;
    struct backend *backend = bench->backend;
    float *ones = mem_alloc_array(BENCH_WIDTH, sizeof(float));
    b->raw = mem_alloc_array((size_t)BENCH_SLOTS * BENCH_VOCAB, sizeof(float));
    ASSERT(ones != NULL && b->raw != NULL);
    struct rng rng = rng_make(1);
    for (size_t i = 0; i < (size_t)BENCH_SLOTS * BENCH_VOCAB; i++)
        b->raw[i] = 2.5f * rng_normal(&rng);
    const struct {
        struct act **act;
        size_t width;
    } acts[] = {{&b->residual, BENCH_WIDTH},
                {&b->out, BENCH_WIDTH},
                {&b->gate_up, 2 * BENCH_FEED},
                {&b->half, BENCH_FEED},
                {&b->logits, BENCH_VOCAB}};
    err_t e;
    for (size_t i = 0; i < sizeof acts / sizeof acts[0]; i++) {
        e = ops->act_create(backend, ACT_HIDDEN, BENCH_SLOTS, acts[i].width, acts[i].act);
        ASSERT(e.code == ERR_OK);
        for (size_t j = 0; j < acts[i].width; j++)
            act_row(*acts[i].act, 0)[j] = ones[j % BENCH_WIDTH] = 0.5f + (float)(j % 7);
    }
    e = ops->vector_create(backend, ones, BENCH_WIDTH, &b->norm);
    ASSERT(e.code == ERR_OK);
    e = ops->sampler_create(backend, BENCH_SLOTS, BENCH_VOCAB, 64, &b->sampler);
    ASSERT(e.code == ERR_OK);
    for (uint32_t s = 0; s < BENCH_SLOTS; s++) {
        b->rows[s] = (struct step_row){.position = 2, .seq = s};
        b->seqs[s] = (struct step_seq){s, 1, 3, s, STEP_NO_SLOT};
    }
    if (check_selected(bench->options, "norm"))
        measure(bench, "norm 2 rows of 4096", run_norm, b, 2.0 * BENCH_WIDTH * 12, 0, 0);
    if (check_selected(bench->options, "silu"))
        measure(bench, "silu 2 rows of 14336", run_activation, b, 2.0 * BENCH_FEED * 12, 0, 0);
    bench_sampling(b);
    for (size_t i = 0; i < sizeof acts / sizeof acts[0]; i++)
        ops->act_destroy(*acts[i].act);
    ops->vector_destroy(b->norm);
    ops->sampler_destroy(b->sampler);
    mem_free(ones);
    mem_free(b->raw);
    mem_free(b);
}

int bench_kernels(const struct check_options *options, int n_threads)
{
    struct bench bench = {.options = options};
    err_t e = backend_cpu_create(n_threads, isa_name(options->highest), &bench.backend);
    if (e.code != ERR_OK) {
        fprintf(stderr, "%s\n", e.message);
        return 1;
    }
    bench.ops = bench.backend->vtable;
    bench.isa = isa_at_most(options->highest);
    bench.ceilings = ceilings_measure(bench.backend, bench.isa);
    printf("%s; reads %.1f GB/s, 8-bit products %.0f GOP/s, f32 %.0f GFLOP/s\n",
           bench.ops->description(bench.backend), bench.ceilings.read_gb_s, bench.ceilings.int8_gop_s,
           bench.ceilings.f32_gflop_s);
    if (bench.isa >= ISA_AMX)
        printf("tiles: int8 %.0f GOP/s, bf16 %.0f GFLOP/s\n", bench.ceilings.tile_int8_gop_s,
               bench.ceilings.tile_bf16_gflop_s);
    static const struct {
        enum weight_format format;
        const char *name;
    } formats[] = {{WEIGHT_INT4, "int4"}, {WEIGHT_UINT4, "uint4"}, {WEIGHT_INT8, "int8"},
                   {WEIGHT_INT5, "int5"}, {WEIGHT_K4, "k4"},       {WEIGHT_K5, "k5"},
                   {WEIGHT_K6, "k6"},     {WEIGHT_BF16, "bf16"},   {WEIGHT_F16, "f16"},
                   {WEIGHT_F32, "f32"}};
    for (size_t i = 0; i < sizeof formats / sizeof formats[0]; i++) {
        uint32_t group = formats[i].format >= WEIGHT_K4 ? 8 * WEIGHT_GROUP : WEIGHT_GROUP;
        bench_linear(&bench, formats[i].format, formats[i].name, 16384, 2048, group); /* 1B: gate and up */
        bench_linear(&bench, formats[i].format, formats[i].name, 4096, 14336, group); /* 8B: down */
        bench_pack(&bench, formats[i].format, formats[i].name, 4096, 14336, group);
    }
    if (bench.isa >= ISA_AMX) { /* groups that are multiplied in int8 */
        bench_linear(&bench, WEIGHT_INT4, "int4_wide", 4096, 14336, WIDE_BLOCK);
        bench_linear(&bench, WEIGHT_INT8, "int8_wide", 4096, 14336, WIDE_BLOCK);
    }
    const struct qkv_shape many_heads = {32, 8, 128}, narrow_heads = {32, 8, 64}, /* 8B, 1B */
        one_head = {4, 1, 256};                                                   /* Gemma 3 270M */
    struct backend_needs needs = {.step.blocks_per_seq = 4096 / KV_BLOCK_TOKENS, .qkv = one_head};
    e = bench.ops->reserve(bench.backend, &needs, 0);
    ASSERT(e.code == ERR_OK);
    bench_attention(&bench, many_heads, KV_BF16, 1, 1, 4096);
    bench_attention(&bench, many_heads, KV_BF16, 8, 1, 1024);
    bench_attention(&bench, many_heads, KV_BF16, 1, 512, 1024);
    bench_attention(&bench, many_heads, KV_INT8, 1, 1, 4096);
    bench_attention(&bench, many_heads, KV_INT8, 8, 1, 1024);
    bench_attention(&bench, many_heads, KV_INT8, 1, 512, 1024);
    bench_attention(&bench, narrow_heads, KV_BF16, 1, 1, 4096);
    bench_attention(&bench, narrow_heads, KV_BF16, 1, 512, 512);
    bench_attention(&bench, narrow_heads, KV_BF16, 1, 512, 2048);
    bench_attention(&bench, narrow_heads, KV_INT8, 1, 512, 2048);
    bench_attention(&bench, many_heads, KV_F32, 1, 1, 4096);
    bench_attention(&bench, one_head, KV_BF16, 1, 1, 128);
    bench_attention(&bench, one_head, KV_BF16, 1, 1, 512);
    bench_attention(&bench, one_head, KV_BF16, 1, 1, 4096);
    if (bench.isa >= ISA_AVX512VNNI && expand_is_available())
        bench_attention_to_tiles(&bench, n_threads, narrow_heads);
    bench_rows(&bench);
    bench.ops->destroy(bench.backend);
    return 0;
}
