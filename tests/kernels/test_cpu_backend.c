/* The CPU backend through its vtable: packing and reading back, embedding, gathering, copies, errors, memory
 * failures, and that no op allocates. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <cmocka.h>
#include "base/alloc.h"
#include "base/float16.h"
#include "base/philox.h"
#include "kernels/cpu_backend.h"
#include "tests/base/ok.h"

static struct backend *backend;
static const struct backend_vtable *ops;

static int set_up(void **state)
{
    (void)state;
    OK(backend_cpu_create(2, "auto", &backend));
    ops = backend->vtable;
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    ops->destroy(backend);
    return 0;
}

struct matrix {
    size_t n_out, n_in;
    const float *values; /* [n_out][n_in] */
};

static void matrix_row(const void *context, size_t row, float *out)
{
    const struct matrix *matrix = context;
    assert_true(row < matrix->n_out);
    memcpy(out, matrix->values + row * matrix->n_in, matrix->n_in * sizeof(float));
}

static float *random_values(uint64_t seed, size_t n, float scale)
{
    float *values = mem_alloc_array(n, sizeof(float));
    assert_non_null(values);
    struct rng rng = rng_make(seed);
    for (size_t i = 0; i < n; i++)
        values[i] = scale * rng_normal(&rng);
    return values;
}

static void test_backend_create(void **state)
{
    (void)state;
    struct backend *other;
    err_t e = backend_cpu_create(1, "sse9", &other);
    assert_int_equal(e.code, ERR_INVALID_ARGUMENT);
    assert_non_null(strstr(e.message, "avx512vnni"));
    e = backend_cpu_create(-1, "auto", &other);
    assert_int_equal(e.code, ERR_INVALID_ARGUMENT);
    OK(backend_cpu_create(1, "scalar", &other));
    assert_non_null(strstr(other->vtable->description(other), "scalar"));
    assert_string_equal(other->vtable->arithmetic(other), "cpu-3");
    assert_string_equal(ops->arithmetic(backend), isa_detect() == ISA_AMX ? "cpu-tiles-4" : "cpu-3");
    assert_string_equal(other->vtable->name, "cpu");
    other->vtable->destroy(other);
}

/* The operating system's own list of what the CPU has: /proc/cpuinfo, " name " each. Skipped without one. */
static void read_cpu_flags(char *flags, size_t n)
{
    FILE *file = fopen("/proc/cpuinfo", "r");
    bool found = false;
    while (file != NULL && !found && fgets(flags, (int)n, file) != NULL)
        found = strncmp(flags, "flags", 5) == 0;
    if (file != NULL)
        (void)fclose(file);
    if (!found)
        skip();
    char *end = strchr(flags, '\n');
    assert_non_null(end);
    *end = ' ';
}

/* What is asked for is the best that is there and not above it; AVX-VNNI is no part of AVX-512. */
static void test_levels_are_those_of_the_machine(void **state)
{
    (void)state;
    static const struct {
        const char *name, *flag;
    } levels[] = {{"avx2", " avx2 "},
                  {"avxvnni", " avx_vnni "},
                  {"avx512", " avx512bw "},
                  {"avx512vnni", " avx512_vnni "}};
    char flags[8192], want[32] = ", scalar,";
    read_cpu_flags(flags, sizeof flags);
    for (size_t i = 0; i < sizeof levels / sizeof levels[0]; i++) {
        struct backend *other;
        if (strstr(flags, levels[i].flag) != NULL)
            snprintf(want, sizeof want, ", %s,", levels[i].name);
        OK(backend_cpu_create(1, levels[i].name, &other));
        if (strstr(other->vtable->description(other), want) == NULL)
            fail_msg("%s gives \"%s\", expected \"%s\"", levels[i].name, other->vtable->description(other),
                     want);
        other->vtable->destroy(other);
    }
}

static void test_pack_and_read_back(void **state)
{
    (void)state;
    enum { OUT = 70, IN = 128 }; /* two panels and a part of one */
    static const struct {
        enum weight_format format;
        uint32_t group;
        double tolerance; /* of a weight, relative to the largest of its row (about 3 sigma) */
    } cases[] = {{WEIGHT_F32, 0, 0},        {WEIGHT_BF16, 0, 0.004},   {WEIGHT_F16, 0, 0.0005},
                 {WEIGHT_INT8, 32, 0.0045}, {WEIGHT_INT8, 64, 0.0045}, {WEIGHT_INT4, 32, 0.11},
                 {WEIGHT_INT4, 128, 0.13}};
    float *values = random_values(1, OUT * IN, 0.1f);
    struct matrix matrix = {OUT, IN, values};
    struct act *out;
    OK(ops->act_create(backend, ACT_HIDDEN, OUT, IN, &out));
    struct step_row rows[OUT];
    struct step step = {.n_rows = OUT, .rows = rows};
    for (uint32_t r = 0; r < OUT; r++)
        rows[r] = (struct step_row){.token = OUT - 1 - r};
    for (size_t c = 0; c < sizeof cases / sizeof cases[0]; c++) {
        struct weight_desc desc = {
            "w", OUT, IN, cases[c].format, cases[c].group, matrix_row, &matrix, NULL, false, NULL, NULL, 0};
        struct weight *weight;
        OK(ops->weight_pack(backend, &desc, &weight));
        size_t held = sizeof *weight + weight_panels_bytes(weight);
        assert_true(ops->weight_bytes(backend, &desc) == held);
        ops->embed(backend, &step, NULL, weight, 0, 2.0f, out);
        for (size_t r = 0; r < OUT; r++) {
            float got[IN];
            ops->act_read(out, r, 1, got);
            for (size_t i = 0; i < IN; i++) {
                double want = (double)values[(OUT - 1 - r) * IN + i];
                assert_true(fabs((double)got[i] / 2 - want) <= cases[c].tolerance * 0.4);
            }
        }
        ops->weight_destroy(weight);
    }
    ops->act_destroy(out);
    mem_free(values);
}

/* Codes of a checkpoint: (row + i) % 16 and the like, less a zero point of (row + group) % 16. */
static void given_row_codes(const void *context, size_t row, const struct weight_codes *out)
{
    const struct weight_desc *desc = context;
    for (size_t i = 0; i < desc->n_in; i++) {
        int code = (int)((row * 5 + i * 3) % 16);
        out->codes[i] = (int8_t)(desc->format == WEIGHT_INT4   ? code - 8
                                 : desc->format == WEIGHT_INT8 ? code * 17 - 128
                                 : desc->format == WEIGHT_INT5 ? code * 2 - 15
                                 : desc->format == WEIGHT_K5   ? code * 2 + 1
                                 : desc->format == WEIGHT_K6   ? code * 4 - 32
                                                               : code);
    }
    for (size_t b = 0; desc->format >= WEIGHT_K4 && b < desc->n_in / WEIGHT_HALF_GROUP; b++)
        out->block_scales[b] =
            (int8_t)(desc->format == WEIGHT_K6 ? 127 - (int)(row + b) % 256 : (int)(row + 3 * b) % 64);
    for (size_t b = 0; desc->format == WEIGHT_K4 || desc->format == WEIGHT_K5; b++) {
        if (b == desc->n_in / WEIGHT_GROUP)
            break;
        out->block_minimums[b] = (uint8_t)((row * 7 + b) % 64);
        out->minimums[b * WEIGHT_GROUP / desc->group] = -0.25f * (float)(row % 3);
    }
    for (size_t g = 0; g < desc->n_in / desc->group; g++) {
        out->scales[g] = 0.125f * (float)(1 + (row + g) % 7);
        if (desc->format == WEIGHT_UINT4)
            out->zeros[g] = (uint8_t)((row + g) % 16);
    }
}

static void given_codes(const void *context, size_t first_row, size_t n_rows, const struct weight_codes *out)
{
    for (size_t i = 0; i < n_rows; i++)
        given_row_codes(context, first_row + i, &out[i]);
}

static float given_value(const struct weight_desc *desc, size_t row, size_t i)
{
    size_t g = i / desc->group;
    float scale = 0.125f * (float)(1 + (row + g) % 7);
    int code = (int)((row * 5 + i * 3) % 16);
    if (desc->format == WEIGHT_FP8) /* 0..7 are multiples of 2^-9, the others begin at 2^-6 */
        return (code < 8 ? (float)code : (float)(8 + code % 8)) * 0x1p-9f * scale;
    if (desc->format == WEIGHT_INT8)
        return (float)(code * 17 - 128) * scale;
    if (desc->format == WEIGHT_INT5)
        return (float)(code * 2 - 15) * scale;
    if (desc->format == WEIGHT_K6)
        return (float)(code * 4 - 32) * scale * (float)(127 - (int)(row + i / WEIGHT_HALF_GROUP) % 256);
    if (desc->format == WEIGHT_K4 || desc->format == WEIGHT_K5) {
        float minimum = -0.25f * (float)(row % 3) * (float)((row * 7 + i / WEIGHT_GROUP) % 64);
        float block_scale = (float)((row + 3 * (i / WEIGHT_GROUP)) % 64);
        return (float)(desc->format == WEIGHT_K4 ? code : code * 2 + 1) * scale * block_scale - minimum;
    }
    return (float)(code - (desc->format == WEIGHT_INT4 ? 8 : (int)((row + g) % 16))) * scale;
}

/* What comes as codes is kept: the values that are read back are those, and so is every output for a row that
 * is one at one place. */
static void test_given_codes(void **state)
{
    (void)state;
    enum { OUT = 70, IN = 128 };
    static const struct {
        enum weight_format format;
        uint32_t group;
    } cases[] = {{WEIGHT_INT8, 32},  {WEIGHT_INT8, IN}, {WEIGHT_INT4, 64}, {WEIGHT_UINT4, 32},
                 {WEIGHT_UINT4, IN}, {WEIGHT_FP8, IN},  {WEIGHT_INT5, 32}, {WEIGHT_INT5, 64},
                 {WEIGHT_K4, IN},    {WEIGHT_K4, 32},   {WEIGHT_K5, IN},   {WEIGHT_K5, 64},
                 {WEIGHT_K6, 32},    {WEIGHT_K6, IN}};
    struct act *in, *out, *table;
    OK(ops->act_create(backend, ACT_HIDDEN, IN, IN, &in));
    OK(ops->act_create(backend, ACT_HIDDEN, IN, OUT, &out));
    OK(ops->act_create(backend, ACT_HIDDEN, OUT, IN, &table));
    struct step_row rows[IN] = {{0}};
    for (uint32_t r = 0; r < OUT; r++)
        rows[r].token = r;
    for (size_t c = 0; c < sizeof cases / sizeof cases[0]; c++) {
        struct weight_desc desc = {.name = "w", .n_out = OUT, .n_in = IN, .codes = given_codes};
        desc.format = cases[c].format;
        desc.group = cases[c].group;
        desc.row_context = &desc;
        struct weight *weight;
        OK(ops->weight_pack(backend, &desc, &weight));
        assert_true(ops->weight_bytes(backend, &desc) ==
                    sizeof *weight + weight_panels_bytes(weight) +
                        (desc.format == WEIGHT_FP8 ? weight->sections[0].n_panels * 32 * 4 : 0));
        struct step step = {.n_rows = OUT, .rows = rows};
        ops->embed(backend, &step, NULL, weight, 0, 1.0f, table);
        for (size_t r = 0; r < OUT; r++) {
            float got[IN];
            ops->act_read(table, r, 1, got);
            for (size_t i = 0; i < IN; i++)
                assert_float_equal(got[i], given_value(&desc, r, i), 0);
        }
        step.n_rows = IN;
        for (size_t i = 0; i < IN; i++) {
            float x[IN] = {0}, got[OUT];
            x[i] = 127.0f; /* an activation scale of one */
            ops->act_write(in, i, 1, x);
            if (i + 1 < IN)
                continue;
            ops->linear(backend, &step, STEP_ROWS_ALL, in, weight, out);
            for (size_t k = 0; k < IN; k++) {
                ops->act_read(out, k, 1, got);
                for (size_t o = 0; o < OUT; o++) {
                    float w = given_value(&desc, o, k);
                    if (cpu_panels_form(cpu_of(backend), &weight->sections[0]) == ACT_BF16 &&
                        weight->sections[0].scale == NULL)
                        w = bf16_to_f32(bf16_from_f32(w));
                    assert_float_equal(got[o], 127.0f * w, 0);
                }
            }
        }
        ops->weight_destroy(weight);
    }
    ops->act_destroy(in);
    ops->act_destroy(out);
    ops->act_destroy(table);
}

/* Quantised products against the unquantised ones: the error is that of two roundings, not of a mistake. */
static void test_linear_close_to_double(void **state)
{
    (void)state;
    enum { OUT = 40, IN = 512, ROWS = 5 };
    float *w = random_values(2, OUT * IN, 0.05f), *x = random_values(3, ROWS * IN, 1.0f);
    float bias[OUT];
    for (int o = 0; o < OUT; o++)
        bias[o] = (float)o;
    struct matrix matrix = {OUT, IN, w};
    struct act *in, *out;
    OK(ops->act_create(backend, ACT_HIDDEN, ROWS, IN, &in));
    OK(ops->act_create(backend, ACT_HIDDEN, ROWS, OUT, &out));
    struct step step = {.n_rows = ROWS};
    static const double tolerance[] = {1e-5, 0.015, 0.002, 0.08, 0.8}; /* |product| is about 1.1 */
    for (int format = WEIGHT_F32; format <= WEIGHT_INT4; format++) {
        struct weight_desc desc = {"w",          OUT,        IN,      (enum weight_format)format,
                                   WEIGHT_GROUP, matrix_row, &matrix, bias,
                                   false,        NULL,       NULL,    0};
        struct weight *weight;
        OK(ops->weight_pack(backend, &desc, &weight));
        ops->act_write(in, 0, ROWS, x);
        ops->linear(backend, &step, STEP_ROWS_ALL, in, weight, out);
        double squares = 0;
        for (size_t r = 0; r < ROWS; r++) {
            float got[OUT];
            ops->act_read(out, r, 1, got);
            for (size_t o = 0; o < OUT; o++) {
                double want = (double)bias[o];
                for (size_t i = 0; i < IN; i++)
                    want += (double)w[o * IN + i] * (double)x[r * IN + i];
                assert_true(fabs((double)got[o] - want) < tolerance[format]);
                squares += pow((double)got[o] - want, 2);
            }
        }
        assert_true(sqrt(squares / (ROWS * OUT)) < tolerance[format] / 3);
        ops->weight_destroy(weight);
    }
    ops->act_destroy(in);
    ops->act_destroy(out);
    mem_free(w);
    mem_free(x);
}

static uint32_t n_rows_quantized;

static void count_row(const float *x, size_t n, struct quant_block *out, size_t stride)
{
    n_rows_quantized++;
    quantize_row_ref(x, n, out, stride);
}

/* An act that is written again must be quantised again. */
static void test_quantised_rows_follow_writes(void **state)
{
    (void)state;
    enum { OUT = 32, IN = 64 };
    float *w = random_values(4, OUT * IN, 0.1f), *x = random_values(5, 2 * IN, 1.0f), first[OUT], again[OUT];
    struct matrix matrix = {OUT, IN, w};
    struct weight_desc desc = {"w",     OUT,  IN,    WEIGHT_INT8, 32,   matrix_row,
                               &matrix, NULL, false, NULL,        NULL, 0};
    struct weight *weight;
    struct act *in, *out;
    OK(ops->weight_pack(backend, &desc, &weight));
    OK(ops->act_create(backend, ACT_HIDDEN, 2, IN, &in));
    OK(ops->act_create(backend, ACT_HIDDEN, 2, OUT, &out));
    struct step one = {.n_rows = 1}, two = {.n_rows = 2};
    ops->act_write(in, 0, 2, x);
    ops->linear(backend, &one, STEP_ROWS_ALL, in, weight, out);
    ops->act_read(out, 0, 1, first);
    ops->linear(backend, &two, STEP_ROWS_ALL, in, weight, out); /* the second row is quantised only now */
    ops->act_read(out, 1, 1, again);
    assert_true(memcmp(first, again, sizeof first) != 0);
    ops->act_write(in, 0, 1, x + IN);
    ops->linear(backend, &one, STEP_ROWS_ALL, in, weight, out);
    ops->act_read(out, 0, 1, first);
    assert_memory_equal(first, again, sizeof first);
    ops->act_destroy(in);
    ops->act_destroy(out);
    ops->weight_destroy(weight);
    mem_free(w);
    mem_free(x);
}

/* The rows of an act are quantised once for all weights that take them, and further ones when they come. */
static void test_rows_are_quantised_once(void **state)
{
    (void)state;
    enum { OUT = 32, IN = 64, ROWS = 3 };
    static const float zeros[OUT * IN];
    struct matrix matrix = {OUT, IN, zeros};
    struct weight_desc desc = {
        .name = "w", .n_out = OUT, .n_in = IN, .group = 32, .row = matrix_row, .row_context = &matrix};
    struct weight *weights[2];
    struct act *in, *out;
    struct backend *plain;
    OK(backend_cpu_create(1, "scalar", &plain));
    for (int i = 0; i < 2; i++) {
        desc.format = i == 0 ? WEIGHT_INT8 : WEIGHT_INT4;
        OK(ops->weight_pack(plain, &desc, &weights[i]));
    }
    OK(ops->act_create(plain, ACT_HIDDEN, ROWS, IN, &in));
    OK(ops->act_create(plain, ACT_HIDDEN, ROWS, OUT, &out));
    n_rows_quantized = 0;
    cpu_of(plain)->table.quantize_row = count_row;
    ops->act_write(in, 0, ROWS, zeros);
    for (uint32_t n_rows = 1; n_rows <= ROWS; n_rows += 2) {
        struct step step = {.n_rows = n_rows};
        for (int i = 0; i < 2; i++)
            ops->linear(plain, &step, STEP_ROWS_ALL, in, weights[i], out);
        assert_int_equal(n_rows_quantized, n_rows);
    }
    for (int i = 0; i < 2; i++)
        ops->weight_destroy(weights[i]);
    ops->act_destroy(in);
    ops->act_destroy(out);
    ops->destroy(plain);
}

static void test_bad_weights(void **state)
{
    (void)state;
    float values[3 * 32] = {0};
    struct matrix matrix = {3, 32, values};
    struct weight *weight;
    values[64 + 5] = NAN;
    for (int format = WEIGHT_F32; format <= WEIGHT_INT4; format++) {
        struct weight_desc desc = {"layers.0.q", 3,          32,      (enum weight_format)format,
                                   32,           matrix_row, &matrix, NULL,
                                   false,        NULL,       NULL,    0};
        err_t e = ops->weight_pack(backend, &desc, &weight);
        if (format == WEIGHT_F32 || format == WEIGHT_BF16) {
            OK(e);
            ops->weight_destroy(weight);
            continue;
        }
        assert_int_equal(e.code, ERR_DATA_LOSS);
        assert_non_null(strstr(e.message, "layers.0.q: row 2"));
        assert_null(weight);
    }
    values[64 + 5] = 70000.0f;
    struct weight_desc desc = {"w", 3, 32, WEIGHT_F16, 0, matrix_row, &matrix, NULL, false, NULL, NULL, 0};
    assert_int_equal(ops->weight_pack(backend, &desc, &weight).code, ERR_DATA_LOSS);
}

static void test_gather_and_copy(void **state)
{
    (void)state;
    enum { WIDTH = 20 };
    float *x = random_values(6, 4 * WIDTH, 1.0f), got[2 * WIDTH];
    struct act *in, *out;
    OK(ops->act_create(backend, ACT_HIDDEN, 4, WIDTH, &in));
    OK(ops->act_create(backend, ACT_HIDDEN, 2, WIDTH, &out));
    ops->act_write(in, 0, 4, x);
    struct step_output outputs[] = {{.row = 0}, {.row = 1}, {.row = 3}};
    struct step_copy copies[] = {{1, 0}, {2, 1}};
    struct step step = {.n_rows = 4, .n_outputs = 3, .outputs = outputs, .n_copies = 2, .copies = copies};
    ops->gather_outputs(backend, &step, 1, 2, in, out);
    ops->act_read(out, 0, 2, got);
    assert_memory_equal(got, x + WIDTH, WIDTH * sizeof(float));
    assert_memory_equal(got + WIDTH, x + 3 * WIDTH, WIDTH * sizeof(float));
    struct kv_desc desc = {KV_BF16, 3, KV_BLOCK_TOKENS, 2, 8, 0};
    struct kv *kv;
    OK(ops->kv_create(backend, &desc, &kv));
    for (size_t b = 0; b < 3; b++)
        memset(kv->blocks + b * kv->block_bytes, (int)b + 1, kv->block_bytes);
    ops->kv_copy(backend, &step, kv);
    assert_int_equal(kv->blocks[0], 2); /* copies happen in order */
    assert_int_equal(kv->blocks[kv->block_bytes - 1], 2);
    assert_int_equal(kv->blocks[kv->block_bytes], 3);
    assert_int_equal(kv->blocks[2 * kv->block_bytes], 3);
    ops->kv_destroy(kv);
    ops->act_destroy(in);
    ops->act_destroy(out);
    mem_free(x);
}

static void test_head_dim_limit(void **state)
{
    (void)state;
    struct kv_desc desc = {KV_F32, 1, KV_BLOCK_TOKENS, 1, HEAD_DIM_MAX + 1, 0};
    struct kv *kv;
    assert_int_equal(ops->kv_create(backend, &desc, &kv).code, ERR_UNIMPLEMENTED);
    assert_true(ops->kv_bytes(backend, &desc) == SIZE_MAX); /* and the plan shows it before */
    desc = (struct kv_desc){KV_F32, UINT32_MAX, KV_BLOCK_TOKENS, UINT32_MAX, HEAD_DIM_MAX, 0};
    assert_true(ops->kv_bytes(backend, &desc) == SIZE_MAX);
    assert_int_equal(ops->kv_create(backend, &desc, &kv).code, ERR_RESOURCE_EXHAUSTED);
}

static void test_step(void **state)
{
    (void)state;
    struct step_capacity capacity = {5, 3, 5, 2, 7, 2};
    struct step *step;
    OK(step_create(&capacity, &step));
    assert_true(step_bytes(&capacity) > 0 && step_bytes(&capacity) < 16384);
    /* Every array is there, apart from the others: all of it can be written and read back. */
    memset(step->rows, 1, 5 * sizeof step->rows[0]);
    memset(step->seqs, 2, 3 * sizeof step->seqs[0]);
    memset(step->outputs, 3, 5 * sizeof step->outputs[0]);
    memset(step->copies, 4, 2 * sizeof step->copies[0]);
    memset(step_block_table(step, 0, 0), 5, 3 * 7 * sizeof(uint32_t));
    memset(step_block_table(step, 1, 0), 6, 3 * 7 * sizeof(uint32_t));
    memset(step->results, 7, 5 * sizeof step->results[0]);
    assert_int_equal(((uint8_t *)(step->rows + 5))[-1], 1);
    assert_int_equal(((uint8_t *)(step->seqs + 3))[-1], 2);
    assert_int_equal(((uint8_t *)(step->outputs + 5))[-1], 3);
    assert_int_equal(((uint8_t *)(step->copies + 2))[-1], 4);
    assert_int_equal(step_block_table(step, 0, 2)[6], 0x05050505);
    assert_int_equal(step_block_table(step, 1, 0)[0], 0x06060606);
    assert_null(step->block_tables[2]);
    step_destroy(step);
    struct step_capacity huge = {UINT32_MAX, UINT32_MAX, UINT32_MAX, UINT32_MAX, UINT32_MAX, 4};
    assert_int_equal(step_create(&huge, &step).code, ERR_RESOURCE_EXHAUSTED);
}

/* Every allocation of every creation fails once: an error each time, and (under ASan) nothing leaks. */
static void test_creation_without_memory(void **state)
{
    (void)state;
    float values[64 * 32] = {0}, inv_freq[4] = {1};
    struct matrix matrix = {64, 32, values};
    struct weight_desc desc = {"w",     64,     32,    WEIGHT_INT4, 32,   matrix_row,
                               &matrix, values, false, NULL,        NULL, 0};
    struct kv_desc kv_desc = {KV_BF16, 300, KV_BLOCK_TOKENS, 2, 64, 0}; /* large enough to be mapped */
    struct step_capacity capacity = {5, 3, 5, 2, 7, 2};
    for (int what = 0; what < 8; what++) {
        bool failed_once = false;
        for (int nth = 0;; nth++) {
            union {
                struct weight *weight;
                struct vector *vector;
                struct act *act;
                struct rope *rope;
                struct kv *kv;
                struct sampler *sampler;
                struct backend *backend;
                struct step *step;
            } made;
            mem_fail_nth(nth);
            err_t e = what == 0   ? ops->weight_pack(backend, &desc, &made.weight)
                      : what == 1 ? ops->vector_create(backend, values, 32, &made.vector)
                      : what == 2 ? ops->act_create(backend, ACT_HIDDEN, 4, 32, &made.act)
                      : what == 3 ? ops->rope_create(backend, inv_freq, 4, 1.0f, 10, &made.rope)
                      : what == 4 ? ops->kv_create(backend, &kv_desc, &made.kv)
                      : what == 5 ? ops->sampler_create(backend, 2, 100, 50, &made.sampler)
                      : what == 6 ? backend_cpu_create(2, "auto", &made.backend)
                                  : step_create(&capacity, &made.step);
            mem_fail_nth(-1);
            if (e.code == ERR_OK) {
                what == 0   ? ops->weight_destroy(made.weight)
                : what == 1 ? ops->vector_destroy(made.vector)
                : what == 2 ? ops->act_destroy(made.act)
                : what == 3 ? ops->rope_destroy(made.rope)
                : what == 4 ? ops->kv_destroy(made.kv)
                : what == 5 ? ops->sampler_destroy(made.sampler)
                : what == 6 ? ops->destroy(made.backend)
                            : step_destroy(made.step);
                break;
            }
            assert_int_equal(e.code, ERR_RESOURCE_EXHAUSTED);
            assert_null(made.weight);
            failed_once = true;
        }
        assert_true(failed_once);
    }
}

/* One row through every op of a layer, twice: no allocation. */
static void test_ops_do_not_allocate(void **state)
{
    (void)state;
    enum { DIM = 16, HEADS = 2, VOCAB = 200 };
    float *values = random_values(8, VOCAB * 64, 0.2f), inv_freq[DIM / 2] = {1, 0.5f};
    struct matrix matrix = {VOCAB, 64, values};
    struct weight_desc desc = {"w",     VOCAB, 64,    WEIGHT_INT4, 32,   matrix_row,
                               &matrix, NULL,  false, NULL,        NULL, 0};
    struct weight_desc qkv_desc = {"qkv",   64,   64,    WEIGHT_BF16, 0,    matrix_row,
                                   &matrix, NULL, false, NULL,        NULL, 0};
    struct kv_desc kv_desc = {KV_BF16, 4, KV_BLOCK_TOKENS, 1, DIM, 0};
    struct weight *table, *qkv_weight;
    struct act *hidden, *normed, *qkv, *mixed, *gate_up, *logits;
    struct vector *norm;
    struct rope *rope;
    struct kv *kv;
    struct sampler *sampler;
    struct step *step;
    struct step_capacity capacity = {2, 2, 2, 1, 2, 1};
    OK(ops->weight_pack(backend, &desc, &table));
    OK(ops->weight_pack(backend, &qkv_desc, &qkv_weight));
    OK(ops->act_create(backend, ACT_HIDDEN, 2, 64, &hidden));
    OK(ops->act_create(backend, ACT_HIDDEN, 2, 64, &normed));
    OK(ops->act_create(backend, ACT_HIDDEN, 2, 64, &qkv));
    OK(ops->act_create(backend, ACT_HIDDEN, 2, HEADS * DIM, &mixed));
    OK(ops->act_create(backend, ACT_HIDDEN, 2, 64, &gate_up));
    OK(ops->act_create(backend, ACT_HIDDEN, 2, VOCAB, &logits));
    OK(ops->vector_create(backend, values, 64, &norm));
    OK(ops->rope_create(backend, inv_freq, DIM / 2, 1.0f, 32, &rope));
    OK(ops->kv_create(backend, &kv_desc, &kv));
    OK(ops->sampler_create(backend, 2, VOCAB, 32, &sampler));
    OK(step_create(&capacity, &step));
    struct qkv_shape shape = {HEADS, 1, DIM};
    struct attention_params attention = {.shape = shape, .scale = 0.25f};
    struct sampler_params params = {.temperature = 1, .top_p = 0.9f, .repetition_penalty = 1.1f, .seed = 5};
    const uint32_t prompt[] = {7};
    struct sampler_history history = {prompt, 1, NULL, 0};
    uint64_t before = mem_alloc_count();
    for (uint32_t s = 0; s < 2; s++) {
        ops->slot_set(sampler, s, &params, &history);
        step_block_table(step, 0, s)[0] = s;
        step_block_table(step, 0, s)[1] = s + 2;
        step->seqs[s] = (struct step_seq){s, 1, 1, s, STEP_NO_SLOT};
        step->outputs[s] = (struct step_output){s, STEP_OUTPUT_SAMPLE, 0, 5};
    }
    step->n_rows = step->n_seqs = step->n_outputs = 2;
    for (uint32_t position = 0; position < 20; position++) {
        for (uint32_t s = 0; s < 2; s++) {
            step->rows[s] = (struct step_row){7, position, s, position > 0 ? STEP_ROW_TOKEN_FROM_SLOT : 0};
            step->seqs[s].n_context = position + 1;
        }
        ops->embed(backend, step, sampler, table, 0, 1.0f, hidden);
        ops->add_norm(backend, step, STEP_ROWS_ALL, hidden, NULL, NULL, norm, 1e-5f, normed);
        ops->linear(backend, step, STEP_ROWS_ALL, normed, qkv_weight, qkv);
        ops->rope_kv_write(backend, step, qkv, &shape, NULL, NULL, 0, rope, ROPE_HALVES, kv);
        ops->attention(backend, step, qkv, &attention, kv, mixed);
        ops->activation_mul(backend, step, STEP_ROWS_ALL, qkv, ACTIVATION_SILU, mixed);
        ops->gather_outputs(backend, step, 0, 2, hidden, gate_up);
        ops->logits(backend, step, 0, 2, gate_up, table, 30.0f, logits);
        ops->sample(backend, step, 0, 2, logits, NULL, sampler);
        for (uint32_t s = 0; s < 2; s++) {
            assert_int_equal(step->results[s].status, STEP_RESULT_OK);
            assert_int_equal(step->results[s].n_top, 5);
        }
        /* Same parameters, seed and history in both slots: the same tokens. */
        assert_int_equal(step->results[0].token_ids[0], step->results[1].token_ids[0]);
    }
    assert_true(mem_alloc_count() == before);
    ops->weight_destroy(table);
    ops->weight_destroy(qkv_weight);
    struct act *acts[] = {hidden, normed, qkv, mixed, gate_up, logits};
    for (size_t i = 0; i < sizeof acts / sizeof acts[0]; i++)
        ops->act_destroy(acts[i]);
    ops->vector_destroy(norm);
    ops->rope_destroy(rope);
    ops->kv_destroy(kv);
    ops->sampler_destroy(sampler);
    step_destroy(step);
    mem_free(values);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_backend_create),
        cmocka_unit_test(test_levels_are_those_of_the_machine),
        cmocka_unit_test(test_pack_and_read_back),
        cmocka_unit_test(test_given_codes),
        cmocka_unit_test(test_linear_close_to_double),
        cmocka_unit_test(test_quantised_rows_follow_writes),
        cmocka_unit_test(test_rows_are_quantised_once),
        cmocka_unit_test(test_bad_weights),
        cmocka_unit_test(test_gather_and_copy),
        cmocka_unit_test(test_head_dim_limit),
        cmocka_unit_test(test_step),
        cmocka_unit_test(test_creation_without_memory),
        cmocka_unit_test(test_ops_do_not_allocate),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
