/* checkkernel --bench: the ops as the engine calls them, on shapes of 1B and 8B models, and every kernel of
 * the table, each against the ceilings that this machine shows in the same run (the best of their samples; of
 * the rows the median). This file: what the rows share, linear layers and packing. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "base/alloc.h"
#include "base/clock.h"
#include "kernels/cpu_memory.h"
#include "tests/kernels/bench.h"
#include "tests/kernels/bench_expand.h"

enum {
    BENCH_BYTES = 768 << 20, /* more than a cache holds */
    BENCH_BYTES_QUICK = 1 << 16,
    BENCH_REPEATS = 7, /* the median counts */
    BENCH_ROWS_MAX = 512,
};

double bench_seconds(void)
{
    return (double)clock_now_ns(clock_monotonic()) * 1e-9;
}

void bench_noise(uint32_t seed, size_t n, float *out)
{
    uint32_t state = seed * 2654435761u + 1;
    for (size_t i = 0; i < n; i++) {
        state = state * 1664525u + 1013904223u;
        out[i] = (float)(int32_t)state * 0x1p-30f;
    }
}

void bench_measure_ceilings(struct bench *bench)
{
    bench->ceilings = ceilings_measure(bench->backend, bench->isa, bench->options->quick);
}

static int compare_doubles(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* Seconds of a call, each sample long enough for the clock: the median. */
static double time_call(const struct bench *bench, bench_fn *fn, void *context)
{
    double enough = bench->options->quick ? 0 : 0.05;
    int repeats = bench->options->quick ? 1 : BENCH_REPEATS;
    fn(context);
    double start = bench_seconds();
    fn(context);
    double once = bench_seconds() - start;
    int calls = once > enough ? 1 : (int)(enough / (once + 1e-9)) + 1;
    double samples[BENCH_REPEATS];
    for (int i = 0; i < repeats; i++) {
        start = bench_seconds();
        for (int j = 0; j < calls; j++)
            fn(context);
        samples[i] = (bench_seconds() - start) / calls;
    }
    qsort(samples, (size_t)repeats, sizeof samples[0], compare_doubles);
    return samples[repeats / 2] > 1e-9 ? samples[repeats / 2] : 1e-9;
}

void bench_measure(const struct bench *bench, const char *name, bench_fn *fn, void *context,
                   struct bench_cost cost)
{
    double seconds = time_call(bench, fn, context);
    double beyond = cost.read_bytes > cost.written_bytes ? cost.read_bytes - cost.written_bytes : 0;
    double memory_s =
        1e-9 * (2 * cost.written_bytes / bench->ceilings.copy_gb_s + beyond / bench->ceilings.read_gb_s);
    double arithmetic_s = cost.peak_gop_s > 0 ? 1e-9 * cost.ops / cost.peak_gop_s : 0;
    const char *memory = cost.written_bytes > 0 ? "copy" : "read";
    printf("%-40s %10.1f us %8.1f GB/s %4.0f %% of %s", name, seconds * 1e6,
           (cost.read_bytes + cost.written_bytes) / seconds * 1e-9, 100 * memory_s / seconds, memory);
    if (cost.ops > 0)
        printf(" %9.1f GOP/s", cost.ops / seconds * 1e-9);
    if (arithmetic_s > 0)
        printf(" %4.0f %% of peak; bound: %s", 100 * arithmetic_s / seconds,
               arithmetic_s > memory_s ? "peak" : memory);
    printf("\n");
    fflush(stdout);
}

/* ---- Every kernel has a row ---- */

void bench_covers(struct bench *bench, const char *kernel)
{
    int id = 0;
    while (id < KERNEL_COUNT && strcmp(kernel_name(id), kernel) != 0)
        id++;
    ASSERT(id < KERNEL_COUNT);
    bench->has_row[id] = true;
}

/* Whether this backend computes with the kernel: products are those of its arithmetic. */
static bool is_used(const struct bench *bench, enum kernel_id id)
{
    bool tiles = isa_arithmetic(bench->isa) == ARITHMETIC_TILES;
    const char *name = kernel_name(id);
    if (strncmp(name, "linear_tile_", 12) == 0 || strncmp(name, "linear_wide_", 12) == 0 ||
        strncmp(name, "attention_tile_", 15) == 0 || id == KERNEL_round_row || id == KERNEL_quantize_wide_row)
        return tiles;
    if (id == KERNEL_attention_bf16 || id == KERNEL_attention_int8)
        return !tiles;
    return strncmp(name, "linear_", 7) != 0 || id == KERNEL_linear_f32 || id == KERNEL_linear_f16 || !tiles;
}

/* Number of kernels without a row. */
static int count_missing(const struct bench *bench)
{
    int missing = 0;
    for (int id = 0; id < KERNEL_COUNT; id++) {
        if (!is_used(bench, id) || bench->has_row[id])
            continue;
        printf("%s: FAILED: no row of the bench is its\n", kernel_name(id));
        missing++;
    }
    return missing;
}

/* ---- Linear layers ---- */

static void noise_row(const void *context, size_t row, float *out)
{
    const size_t *n_in = context;
    bench_noise((uint32_t)row, *n_in, out);
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
    b->bench->ops->linear(b->bench->backend, &b->step, STEP_ROWS_ALL, b->in, weight, b->out);
}

static void copy_weights(struct linear_bench *b, struct weight *first)
{
    size_t bytes = weight_panels_bytes(first);
    b->n_weights = b->bench->bytes / bytes + 1;
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

/* The kernel that the dispatcher takes for the weight. */
static void cover_linear(struct bench *bench, const struct weight *weight)
{
    static const char *const formats[WEIGHT_FORMATS] = {
        [WEIGHT_F32] = "f32",   [WEIGHT_BF16] = "bf16",   [WEIGHT_F16] = "f16",   [WEIGHT_INT8] = "int8",
        [WEIGHT_INT4] = "int4", [WEIGHT_UINT4] = "uint4", [WEIGHT_INT5] = "int5", [WEIGHT_K4] = "k4",
        [WEIGHT_K5] = "k5",     [WEIGHT_K6] = "k6"};
    enum act_form form = cpu_panels_form(cpu_of(bench->backend), &weight->sections[0]);
    const char *kind = form == ACT_BF16 ? "tile_" : form == ACT_WIDE ? "wide_" : "";
    char kernel[64];
    snprintf(kernel, sizeof kernel, "linear_%s%s", kind, formats[weight->sections[0].format]);
    bench_covers(bench, kernel);
}

static void bench_linear(struct bench *bench, enum weight_format format, const char *format_name,
                         size_t n_out, size_t n_in, uint32_t group)
{
    char name[96];
    n_out = bench_size(bench, (uint32_t)n_out, 2 * PANEL_OUTPUTS);
    n_in = bench_size(bench, (uint32_t)n_in, 2 * 8 * WEIGHT_GROUP);
    snprintf(name, sizeof name, "linear_%s", format_name);
    if (!check_selected(bench->options, name))
        return;
    struct linear_bench b = {.bench = bench};
    struct weight_desc desc = {"bench", n_out, n_in,  format, group, noise_row,
                               &n_in,   NULL,  false, NULL,   NULL,  0};
    if (format == WEIGHT_UINT4 || format > WEIGHT_FP8)
        desc.codes = noise_codes;
    struct weight *first;
    double start = bench_seconds();
    err_t e = bench->ops->weight_pack(bench->backend, &desc, &first);
    ASSERT(e.code == ERR_OK);
    double pack_seconds = bench_seconds() - start;
    copy_weights(&b, first);
    bench_measure_ceilings(bench);
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
    for (size_t i = 0; i < sizeof rows / sizeof rows[0] && rows[i] <= bench_size(bench, BENCH_ROWS_MAX, 4);
         i++) {
        b.step.n_rows = rows[i];
        snprintf(name, sizeof name, "linear_%s %zux%zu, %u rows", format_name, n_out, n_in, rows[i]);
        bench_measure(bench, name, run_linear, &b,
                      (struct bench_cost){.read_bytes = (double)weight_panels_bytes(first),
                                          .ops = 2.0 * (double)n_out * (double)n_in * rows[i],
                                          .peak_gop_s = peak_of(bench, first)});
    }
    cover_linear(bench, first);
    snprintf(name, sizeof name, "linear_%s %zux%zu, to tiles", format_name, n_out, n_in);
    if (weight_is_quantized(format) && bench->isa >= ISA_AVX512VNNI && expand_is_available())
        bench_measure(bench, name, run_expand, &b,
                      (struct bench_cost){.read_bytes = (double)weight_panels_bytes(first)});
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
    n_out = bench_size(bench, (uint32_t)n_out, 2 * PANEL_OUTPUTS);
    n_in = bench_size(bench, (uint32_t)n_in, 2 * 8 * WEIGHT_GROUP);
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
    bench_measure(
        bench, name, run_pack, &b,
        (struct bench_cost){.written_bytes = (double)bench->ops->packed_bytes(bench->backend, &b.desc)});
    mem_free(b.codes);
    mem_free(b.values);
}

static struct backend *open_backend(const struct check_options *options, int n_threads)
{
    struct backend *backend = NULL;
    err_t e = backend_cpu_create(n_threads, isa_name(options->highest), &backend);
    if (e.code != ERR_OK)
        fprintf(stderr, "%s\n", e.message);
    return backend;
}

static int ascending(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* A shared machine's rate jumps from one tenth of a second to the next: the middle of many looks. */
int bench_products(const struct check_options *options, int n_threads)
{
    enum { LOOKS = 25 };
    double gop_s[LOOKS];
    struct backend *backend = open_backend(options, n_threads);
    if (backend == NULL)
        return 1;
    for (int i = 0; i < LOOKS; i++)
        gop_s[i] = ceilings_int8_gop_s(backend, isa_at_most(options->highest), options->quick);
    qsort(gop_s, LOOKS, sizeof gop_s[0], ascending);
    printf("8-bit products %.0f GOP/s\n", gop_s[LOOKS / 2]);
    backend->vtable->destroy(backend);
    return 0;
}

int bench_kernels(const struct check_options *options, int n_threads)
{
    struct bench bench = {.options = options, .backend = open_backend(options, n_threads)};
    if (bench.backend == NULL)
        return 1;
    bench.ops = bench.backend->vtable;
    bench.isa = isa_at_most(options->highest);
    bench.bytes = options->quick ? BENCH_BYTES_QUICK : BENCH_BYTES;
    bench_measure_ceilings(&bench);
    printf("%s; reads %.1f GB/s, copies %.1f GB/s, 8-bit products %.0f GOP/s, f32 %.0f GFLOP/s\n",
           bench.ops->description(bench.backend), bench.ceilings.read_gb_s, bench.ceilings.copy_gb_s,
           bench.ceilings.int8_gop_s, bench.ceilings.f32_gflop_s);
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
        bench_linear(&bench, WEIGHT_UINT4, "uint4_wide", 4096, 14336, WIDE_BLOCK);
        bench_linear(&bench, WEIGHT_INT8, "int8_wide", 4096, 14336, WIDE_BLOCK);
    }
    bench_attention(&bench);
    bench_rows(&bench);
    bench_sampling(&bench);
    int missing = options->filter[0] == '\0' ? count_missing(&bench) : 0;
    bench.ops->destroy(bench.backend);
    return missing == 0 ? 0 : 1;
}
