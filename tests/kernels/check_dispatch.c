/* Through the real backend: a row's bits do not depend on the rows beside it, on the threads or, within one
 * arithmetic, on the instruction set, and every variant that this CPU has is really dispatched. */
#include <stdio.h>
#include <string.h>
#include "base/alloc.h"
#include "tests/kernels/check_layer.h"
#include "tests/kernels/checkkernel.h"

enum { ROWS_MAX = 512, FEW_ROWS_MAX = 128, SPARSE_ROWS_MAX = 67, DISPATCH_THREADS = 2 };

struct shape {
    size_t n_in, n_out;
    uint32_t group;
};

struct random_matrix {
    const struct shape *shape;
    enum weight_format format;
    uint64_t seed;
};

static void matrix_row(const void *context, size_t row, float *out)
{
    const struct random_matrix *matrix = context;
    struct rng rng = rng_make(matrix->seed * 1000003 + row);
    for (size_t i = 0; i < matrix->shape->n_in; i++)
        out[i] = rng_normal(&rng) * 0.05f;
}

/* Ready codes, for the formats that nothing is quantised to. */
static void matrix_row_codes(const void *context, size_t row, const struct weight_codes *out)
{
    const struct random_matrix *matrix = context;
    const struct shape *shape = matrix->shape;
    struct rng rng = rng_make(matrix->seed * 1000003 + row);
    static const struct {
        int low;
        uint32_t n;
    } ranges[WEIGHT_FORMATS] = {[WEIGHT_UINT4] = {0, 16},  [WEIGHT_FP8] = {0, 0x7f /* no NaN */},
                                [WEIGHT_INT5] = {-16, 32}, [WEIGHT_K4] = {0, 16},
                                [WEIGHT_K5] = {0, 32},     [WEIGHT_K6] = {-32, 64}};
    bool is_k6 = matrix->format == WEIGHT_K6, is_block = matrix->format >= WEIGHT_K4;
    for (size_t i = 0; i < shape->n_in; i++)
        out->codes[i] = (int8_t)(ranges[matrix->format].low + (int)rng_below(&rng, ranges[matrix->format].n));
    for (size_t b = 0; is_block && b < shape->n_in / WEIGHT_HALF_GROUP; b++)
        out->block_scales[b] = (int8_t)(is_k6 ? (int)rng_below(&rng, 256) - 128 : (int)rng_below(&rng, 64));
    for (size_t b = 0; is_block && !is_k6 && b < shape->n_in / WEIGHT_GROUP; b++)
        out->block_minimums[b] = (uint8_t)rng_below(&rng, 64);
    for (size_t g = 0; g < shape->n_in / shape->group; g++) {
        out->scales[g] = 0.01f + 0.01f * rng_uniform(&rng);
        if (matrix->format == WEIGHT_UINT4)
            out->zeros[g] = (uint8_t)rng_below(&rng, 16);
        if (is_block && !is_k6)
            out->minimums[g] = 0.01f * rng_normal(&rng);
    }
}

static void matrix_codes(const void *context, size_t first_row, size_t n_rows, const struct weight_codes *out)
{
    for (size_t i = 0; i < n_rows; i++)
        matrix_row_codes(context, first_row + i, &out[i]);
}

static const char *format_name(enum weight_format format)
{
    static const char *const names[WEIGHT_FORMATS] = {"f32", "bf16", "f16", "int8", "int4", "uint4",
                                                      "fp8", "int5", "k4",  "k5",   "k6"};
    return names[format];
}

/* Rows that a batch is tried with: 1..67, 128 and 512; a choice of them when time is short. */
static bool wants_rows(uint32_t n_rows, bool quick)
{
    static const uint32_t few[] = {1, 2, 3, 4, 5, 6, 7, 8, 9, 13, 17, 33, 67, 128};
    if (!quick)
        return n_rows <= 67 || n_rows == 128 || n_rows == ROWS_MAX;
    for (size_t i = 0; i < sizeof few / sizeof few[0]; i++) {
        if (few[i] == n_rows)
            return true;
    }
    return false;
}

struct linear_case {
    const struct check_options *options;
    enum weight_format format;
    struct shape shape;
    uint32_t max_rows;
    bool few_counts; /* of rows */
    float *x;        /* [max_rows][n_in] */
    float *golden;   /* [max_rows][n_out]: each row alone, by the references, on one thread */
    float *got;
    bool has_golden;
};

static bool same_rows(const struct linear_case *c, size_t first, size_t n)
{
    return memcmp(c->golden + first * c->shape.n_out, c->got, n * c->shape.n_out * sizeof(float)) == 0;
}

/* n_rows rows from `first`; the rows of out behind them must stay untouched. */
static bool run_rows(struct backend *backend, const struct linear_case *c, const struct weight *weight,
                     struct act *in, struct act *out, size_t first, uint32_t n_rows)
{
    const struct backend_vtable *ops = backend->vtable;
    struct step step = {.n_rows = n_rows};
    ops->act_write(in, 0, n_rows, c->x + first * c->shape.n_in);
    memset(c->got, 0x7e, c->max_rows * c->shape.n_out * sizeof(float));
    ops->act_write(out, 0, c->max_rows, c->got);
    ops->linear(backend, &step, STEP_ROWS_ALL, in, weight, out);
    ops->act_read(out, 0, c->max_rows, c->got);
    const uint8_t *rest = (const uint8_t *)(c->got + (size_t)n_rows * c->shape.n_out);
    for (size_t i = 0; i < (c->max_rows - n_rows) * c->shape.n_out * sizeof(float); i++) {
        if (rest[i] != 0x7e)
            return false;
    }
    return true;
}

static bool check_linear_case(struct linear_case *c, enum isa_level level, enum arithmetic arithmetic,
                              int n_threads, uint64_t *dispatches)
{
    struct backend *backend;
    err_t e = cpu_backend_create(n_threads, level, arithmetic, &backend);
    ASSERT(e.code == ERR_OK);
    const struct backend_vtable *ops = backend->vtable;
    float *bias = mem_alloc_array(c->shape.n_out, sizeof(float));
    for (size_t o = 0; o < c->shape.n_out; o++)
        bias[o] = (float)o * 0.01f - 0.3f;
    struct random_matrix matrix = {&c->shape, c->format, c->options->seed};
    struct weight_desc desc = {"check", c->shape.n_out, c->shape.n_in, c->format, c->shape.group, matrix_row,
                               &matrix, bias,           false,         NULL,      NULL,           0};
    if (c->format >= WEIGHT_UINT4)
        desc.codes = matrix_codes;
    struct weight *weight;
    struct act *in, *out;
    e = ops->weight_pack(backend, &desc, &weight);
    ASSERT(e.code == ERR_OK);
    e = ops->act_create(backend, ACT_HIDDEN, c->max_rows, c->shape.n_in, &in);
    ASSERT(e.code == ERR_OK);
    e = ops->act_create(backend, ACT_HIDDEN, c->max_rows, c->shape.n_out, &out);
    ASSERT(e.code == ERR_OK);
    bool ok = true;
    for (size_t r = 0; ok && r < c->max_rows; r++) {
        if (c->has_golden && r % 37 != 0)
            continue; /* batches are held against the golden rows anyway */
        ok = run_rows(backend, c, weight, in, out, r, 1) && (!c->has_golden || same_rows(c, r, 1));
        if (ok && !c->has_golden)
            memcpy(c->golden + r * c->shape.n_out, c->got, c->shape.n_out * sizeof(float));
    }
    c->has_golden = true;
    for (uint32_t n = 1; ok && n <= c->max_rows; n++) {
        if (!wants_rows(n, c->few_counts))
            continue;
        ok = run_rows(backend, c, weight, in, out, 0, n) && same_rows(c, 0, n);
        if (!ok)
            printf("  %u rows differ from each row alone\n", n);
    }
    for (int k = 0; k < KERNEL_COUNT; k++)
        dispatches[k] += cpu_of(backend)->dispatches[k];
    ops->act_destroy(in);
    ops->act_destroy(out);
    ops->weight_destroy(weight);
    ops->destroy(backend);
    mem_free(bias);
    return ok;
}

typedef uint64_t dispatch_counts[ISA_COUNT][KERNEL_COUNT];

/* An arithmetic is tried by its references and at the levels whose own it is, as far as the CPU has them. */
static bool is_tried(enum arithmetic arithmetic, enum isa_level level)
{
    return level == ISA_SCALAR || (isa_arithmetic(level) == arithmetic && isa_at_most(level) == level);
}

/* Threads share the work in the same way at every level: under ThreadSanitizer two of them run at the highest
 * one, and what they are held against is one thread's. */
static bool is_tried_by(const struct check_options *options, enum arithmetic arithmetic, int level,
                        int n_threads)
{
#if defined(__SANITIZE_THREAD__)
    int highest = (int)options->highest;
    while (!is_tried(arithmetic, (enum isa_level)highest))
        highest--;
    if (level != (n_threads == 1 ? ISA_SCALAR : highest))
        return false;
#else
    (void)options;
    (void)n_threads;
#endif
    return is_tried(arithmetic, (enum isa_level)level);
}

/* All levels and threads of one arithmetic against the references' golden rows. */
static bool check_arithmetic(struct linear_case *c, enum arithmetic arithmetic, dispatch_counts counts)
{
    c->has_golden = false;
    /* Without AMX only the references are there. */
    c->few_counts = c->options->quick || c->options->sparse ||
                    (arithmetic == ARITHMETIC_TILES && c->options->highest < ISA_AMX);
    c->max_rows = c->options->sparse ? SPARSE_ROWS_MAX : c->few_counts ? FEW_ROWS_MAX : ROWS_MAX;
    for (int level = 0; level <= (int)c->options->highest; level++) {
        for (int threads = 1; threads <= DISPATCH_THREADS; threads++) {
            if (!is_tried_by(c->options, arithmetic, level, threads) ||
                check_linear_case(c, (enum isa_level)level, arithmetic, threads, counts[level]))
                continue;
            printf("dispatch %s %zux%zu group %u FAILED at %s with %d threads%s (seed %llu)\n",
                   format_name(c->format), c->shape.n_out, c->shape.n_in, c->shape.group,
                   isa_name((enum isa_level)level), threads, arithmetic == ARITHMETIC_TILES ? ", tiles" : "",
                   (unsigned long long)c->options->seed);
            return false;
        }
    }
    return true;
}

static bool check_linear_shape(const struct check_options *options, enum weight_format format,
                               struct shape shape, dispatch_counts counts)
{
    struct linear_case c = {options, format, shape, .max_rows = options->quick ? FEW_ROWS_MAX : ROWS_MAX};
    c.x = mem_alloc_array(c.max_rows * shape.n_in, sizeof(float));
    c.golden = mem_alloc_array(c.max_rows * shape.n_out, sizeof(float));
    c.got = mem_alloc_array(c.max_rows * shape.n_out, sizeof(float));
    ASSERT(c.x != NULL && c.golden != NULL && c.got != NULL);
    struct rng rng = rng_make(options->seed);
    for (size_t i = 0; i < c.max_rows * shape.n_in; i++)
        c.x[i] = rng_normal(&rng);
    bool ok =
        check_arithmetic(&c, ARITHMETIC_PLAIN, counts) && check_arithmetic(&c, ARITHMETIC_TILES, counts);
    mem_free(c.x);
    mem_free(c.golden);
    mem_free(c.got);
    return ok;
}

static int check_linears(const struct check_options *options, dispatch_counts counts)
{
    /* One panel, an odd number of panels with a part of one, and rows so wide that they go in chunks; below
     * and above the threshold of sharing. */
    static const struct shape shapes[] = {
        {32, 8, 32}, {64, 32, 64}, {128, 200, 32}, {4096, 72, 128}, {384, 40, 384}};
    int failures = 0;
    for (int format = WEIGHT_F32; format < WEIGHT_FORMATS; format++) {
        char name[64];
        snprintf(name, sizeof name, "dispatch_linear_%s", format_name((enum weight_format)format));
        if (!check_selected(options, name))
            continue;
        int before = failures;
        for (size_t i = 0; i < sizeof shapes / sizeof shapes[0]; i++) {
            struct shape shape = shapes[i];
            /* One group of all inputs, "group_size": -1, is there of checkpoints in these. */
            if (shape.group > 128 && format != WEIGHT_INT4 && format != WEIGHT_UINT4)
                continue;
            /* The walk in chunks is the same for all formats of one width of rows. */
            if ((options->quick || format > WEIGHT_FP8) && shape.n_in > 1000)
                shape.n_in = 1024;
            if (format == WEIGHT_FP8)
                shape.group = (uint32_t)shape.n_in;
            failures += !check_linear_shape(options, (enum weight_format)format, shape, counts);
        }
        if (failures == before)
            printf("%-28s ok   rows bit-equal alone and together, 1 and 2 threads, every level\n", name);
    }
    return failures;
}

/* Variants that never ran in the checks above. A level takes the best variant of at most its own. */
static int check_dispatched(const struct check_options *options, dispatch_counts counts)
{
    int failures = 0;
    for (size_t i = 0; i < n_variants; i++) {
        if (variants[i].isa > options->highest || isa_at_most(variants[i].isa) != variants[i].isa ||
            counts[variants[i].isa][variants[i].kernel] > 0)
            continue;
        struct kernel_table table;
        kernel_table_fill(&table, variants[i].isa);
        ASSERT(table.level[variants[i].kernel] == variants[i].isa);
        printf("%s_%s FAILED: available, never dispatched\n", kernel_name(variants[i].kernel),
               variants[i].suffix);
        failures++;
    }
    for (int k = 0; k < KERNEL_COUNT; k++) {
        if (counts[ISA_SCALAR][k] == 0) {
            printf("%s_ref FAILED: never dispatched\n", kernel_name((enum kernel_id)k));
            failures++;
        }
    }
    if (failures == 0)
        printf("%-28s ok   every available variant was dispatched\n", "dispatch_all");
    return failures;
}

static bool check_layers(const struct check_options *options, enum arithmetic arithmetic,
                         dispatch_counts counts)
{
    struct layer_result golden = {0};
    bool ok = true;
    for (int level = 0; ok && level <= (int)options->highest; level++) {
        for (int threads = 1; ok && threads <= DISPATCH_THREADS; threads++) {
            if (!is_tried_by(options, arithmetic, level, threads))
                continue;
            ok = check_layer(options->seed, (enum isa_level)level, arithmetic, threads, &golden,
                             counts[level]);
            if (!ok)
                printf("dispatch_layer FAILED at %s with %d threads (seed %llu)\n",
                       isa_name((enum isa_level)level), threads, (unsigned long long)options->seed);
        }
    }
    layer_result_free(&golden);
    return ok;
}

int check_dispatch(const struct check_options *options)
{
    dispatch_counts counts = {{0}};
    int failures = check_linears(options, counts);
    if (check_selected(options, "dispatch_layer")) {
        bool ok = check_layers(options, ARITHMETIC_PLAIN, counts) &&
                  check_layers(options, ARITHMETIC_TILES, counts);
        failures += !ok;
        if (ok)
            printf("%-28s ok   a layer's rows and draws alone and together, every level\n", "dispatch_layer");
    }
    if (options->filter[0] == '\0')
        failures += check_dispatched(options, counts);
    return failures;
}
