/* Weights that are exported and imported again: every format computes the same bits, bytes that nobody
 * exported do no harm, and the layout that files name is the one it was: by hashes, and by its definition. */
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include "base/alloc.h"
#include "base/float16.h"
#include "base/float8.h"
#include "base/hash.h"
#include "base/philox.h"
#include "kernels/cpu_backend.h"
#include "tests/base/ok.h"

enum { OUT = 70, IN = 256, ROWS = 9, BYTES_MAX = 1 << 19 };

struct weight_case {
    enum weight_format format;
    uint32_t group;
    bool has_codes;
    uint64_t hash; /* of the packed bytes, in the layout PACKED_LAYOUT */
};

/* Whoever changes these hashes has changed the layout, and gives it another name. */
static const struct weight_case CASES[] = {
    {WEIGHT_F32, 0, false, 0x1c67ba6994750371},    {WEIGHT_BF16, 0, false, 0x7c4e2f2873abe538},
    {WEIGHT_F16, 0, false, 0x2967991d30793b0b},    {WEIGHT_INT8, 32, false, 0xd754c024417c1a10},
    {WEIGHT_INT8, IN, false, 0x1ada6313ac2be3a4},  {WEIGHT_INT4, 32, false, 0x20a5dd8a35795e12},
    {WEIGHT_INT4, 128, false, 0x370ffb4a90b8ded1}, {WEIGHT_INT8, 128, true, 0xf4ea194d4bf2a471},
    {WEIGHT_INT4, 64, true, 0xa190d4311f5f0d6e},   {WEIGHT_UINT4, 64, true, 0x5a7b0da7545c1f42},
    {WEIGHT_FP8, IN, true, 0x8b0651a26c6d7e57},    {WEIGHT_INT5, 32, true, 0x9b46e3d6e09a82bb},
    {WEIGHT_K4, IN, true, 0xeec632347d1addc3},     {WEIGHT_K5, IN, true, 0xa69f9430e497962a},
    {WEIGHT_K6, IN, true, 0xc22b7a29ab3e0dc7},
};
enum { N_CASES = sizeof CASES / sizeof CASES[0] };

static uint8_t packed[BYTES_MAX] __attribute__((aligned(PACKED_ALIGN)));

struct sink {
    size_t used, fail_after;
};

static err_t take(void *context, const void *data, size_t size_bytes)
{
    struct sink *sink = context;
    if (sink->used + size_bytes > sink->fail_after)
        return err_new(ERR_RESOURCE_EXHAUSTED, "full");
    memcpy(packed + sink->used, data, size_bytes);
    sink->used += size_bytes;
    return err_ok();
}

/* Small fractions, exact in every type. */
static void row_values(const void *context, size_t row, float *out)
{
    (void)context;
    for (size_t i = 0; i < IN; i++)
        out[i] = (float)((int)((row * 37 + i * 11) % 61) - 30) / 64.0f;
}

static void codes_of_row(const void *context, size_t row, const struct weight_codes *out)
{
    const struct weight_desc *desc = context;
    enum weight_format format =
        desc->n_sections > 0 ? desc->sections[row < desc->sections[0].n_out ? 0 : 1].format : desc->format;
    uint32_t group =
        desc->n_sections > 0 ? desc->sections[row < desc->sections[0].n_out ? 0 : 1].group : desc->group;
    for (size_t i = 0; i < IN; i++) {
        int code = (int)((row * 5 + i * 3) % 16);
        out->codes[i] = (int8_t)(format == WEIGHT_INT4 ? code - 8
                                 : format == WEIGHT_K6 ? code * 4 - 32
                                                       : code);
    }
    for (size_t b = 0; format >= WEIGHT_K4 && b < IN / WEIGHT_HALF_GROUP; b++)
        out->block_scales[b] = (int8_t)((row + 3 * b) % 64);
    for (size_t b = 0; (format == WEIGHT_K4 || format == WEIGHT_K5) && b < IN / WEIGHT_GROUP; b++)
        out->block_minimums[b] = (uint8_t)((row * 7 + b) % 64);
    for (size_t g = 0; g < IN / group; g++) {
        out->scales[g] = 0.125f * (float)(1 + (row + g) % 7);
        if (format == WEIGHT_UINT4)
            out->zeros[g] = (uint8_t)((row + g) % 16);
        if (format == WEIGHT_K4 || format == WEIGHT_K5)
            out->minimums[g] = -0.25f * (float)(row % 3);
    }
}

static void row_codes(const void *context, size_t first_row, size_t n_rows, const struct weight_codes *out)
{
    for (size_t i = 0; i < n_rows; i++)
        codes_of_row(context, first_row + i, &out[i]);
}

static struct weight_desc describe(struct weight_desc *desc, const struct weight_case *of, const float *bias)
{
    *desc = (struct weight_desc){.name = "w",
                                 .n_out = OUT,
                                 .n_in = IN,
                                 .format = of->format,
                                 .group = of->group,
                                 .row = row_values,
                                 .row_context = desc,
                                 .bias = bias,
                                 .codes = of->has_codes ? row_codes : NULL};
    return *desc;
}

struct products {
    struct backend *backend;
    struct act *in, *out;
    float values[ROWS * OUT];
};

static void products_open(struct products *products, enum isa_level isa, enum arithmetic arithmetic)
{
    static float x[ROWS * IN];
    OK(cpu_backend_create(2, isa, arithmetic, &products->backend));
    const struct backend_vtable *ops = products->backend->vtable;
    OK(ops->act_create(products->backend, ACT_HIDDEN, ROWS, IN, &products->in));
    OK(ops->act_create(products->backend, ACT_HIDDEN, ROWS, OUT, &products->out));
    struct rng rng = rng_make(4);
    for (size_t i = 0; i < ROWS * IN; i++)
        x[i] = (float)((int)rng_below(&rng, 201) - 100) / 50.0f;
    ops->act_write(products->in, 0, ROWS, x);
}

static void products_close(struct products *products)
{
    const struct backend_vtable *ops = products->backend->vtable;
    ops->act_destroy(products->in);
    ops->act_destroy(products->out);
    ops->destroy(products->backend);
}

static void multiply(struct products *products, const struct weight *weight)
{
    const struct backend_vtable *ops = products->backend->vtable;
    struct step step = {.n_rows = ROWS};
    ops->linear(products->backend, &step, STEP_ROWS_ALL, products->in, weight, products->out);
    ops->act_read(products->out, 0, ROWS, products->values);
}

/* Packs, exports, imports; both weights are multiplied. Returns the packed bytes. */
static size_t expect_same(struct products *products, const struct weight_desc *desc)
{
    const struct backend_vtable *ops = products->backend->vtable;
    static float first[ROWS * OUT];
    struct weight *weight, *imported;
    struct sink sink = {.fail_after = BYTES_MAX};
    OK(ops->weight_pack(products->backend, desc, &weight));
    multiply(products, weight);
    memcpy(first, products->values, sizeof first);
    OK(ops->weight_export(weight, take, &sink));
    assert_int_equal(sink.used, ops->packed_bytes(products->backend, desc));
    ops->weight_destroy(weight); /* the other one does not lean on it */
    struct weight_desc bare = *desc;
    bare.row = NULL;
    OK(ops->weight_import(products->backend, &bare, packed, &imported));
    assert_ptr_equal(imported->sections[0].data, packed); /* where they are, which processes may share */
    multiply(products, imported);
    assert_memory_equal(products->values, first, sizeof first);
    ops->weight_destroy(imported);
    return sink.used;
}

static void imported_weights_compute_the_same(void **state)
{
    (void)state;
    float bias[OUT];
    for (int o = 0; o < OUT; o++)
        bias[o] = (float)o / 8.0f;
    static const enum arithmetic arithmetics[] = {ARITHMETIC_PLAIN, ARITHMETIC_TILES};
    for (int a = 0; a < 2; a++) {
        bool all_same = true;
        struct products products;
        products_open(&products, isa_detect(), arithmetics[a]);
        for (size_t i = 0; i < N_CASES; i++) {
            struct weight_desc desc;
            (void)describe(&desc, &CASES[i], NULL);
            size_t plain = expect_same(&products, &desc);
            uint64_t hash = hash64(packed, plain, 0);
            if (hash != CASES[i].hash)
                print_error("case %zu: the packed bytes are others: 0x%016llx\n", i,
                            (unsigned long long)hash);
            all_same &= hash == CASES[i].hash;
            desc.bias = bias;
            assert_int_equal(expect_same(&products, &desc), plain + 96 * sizeof(float));
        }
        assert_true(all_same);
        products_close(&products);
    }
}

/* Parts of several formats, as q, k and v of a GGUF file may be. */
static void sections_lie_one_behind_the_other(void **state)
{
    (void)state;
    const struct weight_section sections[] = {{40, WEIGHT_K4, IN, true, false},
                                              {30, WEIGHT_K6, IN, true, false}};
    struct weight_desc desc;
    float bias[OUT] = {[OUT - 1] = 3};
    struct products products;
    (void)describe(&desc, &CASES[0], bias);
    desc.codes = row_codes;
    desc.sections = sections;
    desc.n_sections = 2;
    products_open(&products, isa_detect(), ARITHMETIC_PLAIN);
    (void)expect_same(&products, &desc);
    products_close(&products);
}

static void any_bytes_are_numbers(void **state)
{
    (void)state;
    struct rng rng = rng_make(11);
    for (int level = 0; level <= (int)isa_detect(); level++) {
        if (isa_at_most((enum isa_level)level) != (enum isa_level)level)
            continue;
        static const enum arithmetic arithmetics[] = {ARITHMETIC_PLAIN, ARITHMETIC_TILES};
        for (int a = 0; a < 2; a++) {
            struct products products;
            products_open(&products, (enum isa_level)level, arithmetics[a]);
            const struct backend_vtable *ops = products.backend->vtable;
            for (size_t i = 0; i < N_CASES; i++) {
                struct weight_desc desc;
                struct weight *weight;
                (void)describe(&desc, &CASES[i], NULL);
                size_t n = ops->packed_bytes(products.backend, &desc);
                for (size_t b = 0; b < n; b++)
                    packed[b] = (uint8_t)rng_below(&rng, 256);
                OK(ops->weight_import(products.backend, &desc, packed, &weight));
                multiply(&products, weight);
                float row[IN];
                cpu_weight_read_row(weight, OUT - 1, 1.0f, row);
                ops->weight_destroy(weight);
            }
            products_close(&products);
        }
    }
}

/* ---- Against packed.h, one code after the other ---- */

enum { RANDOM_CASES = 60, RANDOM_OUT_MAX = 100, RANDOM_IN_MAX = 384 };

static struct weight_codes random_codes_of(struct rng *rng, const struct weight_desc *desc)
{
    static int8_t codes[RANDOM_IN_MAX], block_scales[RANDOM_IN_MAX / WEIGHT_HALF_GROUP];
    static uint8_t zeros[RANDOM_IN_MAX / WEIGHT_GROUP], block_minimums[RANDOM_IN_MAX / WEIGHT_GROUP];
    static float scales[RANDOM_IN_MAX / WEIGHT_GROUP], minimums[RANDOM_IN_MAX / WEIGHT_GROUP];
    static const int low[WEIGHT_FORMATS] = {
        [WEIGHT_INT8] = -127, [WEIGHT_INT4] = -8, [WEIGHT_INT5] = -16, [WEIGHT_K6] = -32};
    static const uint32_t n[WEIGHT_FORMATS] = {
        [WEIGHT_INT8] = 255, [WEIGHT_INT4] = 16, [WEIGHT_UINT4] = 16, [WEIGHT_FP8] = 0x7f,
        [WEIGHT_INT5] = 32,  [WEIGHT_K4] = 16,   [WEIGHT_K5] = 32,    [WEIGHT_K6] = 64};
    for (size_t i = 0; i < desc->n_in; i++)
        codes[i] = (int8_t)(low[desc->format] + (int)rng_below(rng, n[desc->format]));
    for (size_t b = 0; b < desc->n_in / WEIGHT_HALF_GROUP; b++)
        block_scales[b] = (int8_t)((int)rng_below(rng, 256) - 128);
    for (size_t b = 0; b < desc->n_in / WEIGHT_GROUP; b++)
        block_minimums[b] = (uint8_t)rng_below(rng, 256);
    for (size_t g = 0; g < desc->n_in / desc->group; g++) {
        scales[g] = rng_normal(rng);
        minimums[g] = rng_normal(rng);
        zeros[g] = (uint8_t)rng_below(rng, 16);
    }
    return (struct weight_codes){codes, scales, zeros, minimums, block_scales, block_minimums, NULL};
}

/* A row's are the same whenever they are asked for. */
static struct rng rng_of_row(size_t row)
{
    return rng_make(1000003 * (row + 1));
}

/* As GGUF's Q4_0 has them (kernels.h). */
static void write_blocks(const struct weight_codes *made, size_t n_in, uint8_t *out)
{
    for (size_t b = 0; b < n_in / WEIGHT_GROUP; b++, out += WEIGHT_BLOCK_BYTES) {
        uint16_t scale = f16_from_f32(made->scales[b]);
        memcpy(out, &scale, sizeof scale);
        for (size_t j = 0; j < WEIGHT_GROUP / 2; j++) {
            const int8_t *codes = made->codes + b * WEIGHT_GROUP;
            out[2 + j] = (uint8_t)((codes[j] + 8) | (codes[j + WEIGHT_GROUP / 2] + 8) << 4);
        }
    }
}

static void random_codes(const void *context, size_t first_row, size_t n_rows, const struct weight_codes *out)
{
    static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
    const struct weight_desc *desc = context;
    size_t n_in = desc->n_in, n_groups = n_in / desc->group;
    bool is_block = desc->format >= WEIGHT_K4;
    (void)pthread_mutex_lock(&lock);
    for (size_t r = 0; r < n_rows; r++) {
        struct rng rng = rng_of_row(first_row + r);
        struct weight_codes made = random_codes_of(&rng, desc);
        if (desc->n_sections > 0) {
            write_blocks(&made, n_in, out[r].blocks);
            continue;
        }
        memcpy(out[r].codes, made.codes, n_in);
        memcpy(out[r].scales, made.scales, n_groups * sizeof(float));
        if (desc->format == WEIGHT_UINT4)
            memcpy(out[r].zeros, made.zeros, n_groups);
        if (is_block && desc->format != WEIGHT_K6) {
            memcpy(out[r].minimums, made.minimums, n_groups * sizeof(float));
            memcpy(out[r].block_minimums, made.block_minimums, n_in / WEIGHT_GROUP);
        }
        if (is_block)
            memcpy(out[r].block_scales, made.block_scales,
                   n_in / (desc->format == WEIGHT_K6 ? WEIGHT_HALF_GROUP : WEIGHT_GROUP));
    }
    (void)pthread_mutex_unlock(&lock);
}

static void random_values(const void *context, size_t row, float *out)
{
    const struct weight_desc *desc = context;
    struct rng rng = rng_of_row(row);
    for (size_t i = 0; i < desc->n_in; i++)
        out[i] = rng_normal(&rng);
}

/* Output o of a panel of a quantised format; made: NULL for an output past the last, which is zeros. */
static void define_output(const struct weight_desc *desc, const struct weight_codes *made, size_t o,
                          uint8_t *panel)
{
    enum weight_format format = desc->format;
    for (size_t k = 0; k < desc->n_in; k++) {
        size_t g = k / desc->group, b = k / QUANT_BLOCK, in_block = k % QUANT_BLOCK;
        uint8_t *group = panel + g * panel_bytes(format, desc->group, desc->group);
        uint8_t *block =
            group + group_header_bytes(format) + k % desc->group / QUANT_BLOCK * quant_block_bytes(format);
        packed_code_write(format, block + block_header_bytes(format), o, in_block,
                          weight_code_offset(format) + (made == NULL ? 0 : made->codes[k]));
        if (made == NULL)
            continue;
        ((uint16_t *)(void *)group)[o] = f16_from_f32(made->scales[g]);
        if (format == WEIGHT_UINT4)
            ((uint16_t *)(void *)group)[PANEL_OUTPUTS + o] = made->zeros[g];
        if (weight_has_minimums(format)) {
            ((uint16_t *)(void *)group)[PANEL_OUTPUTS + o] = f16_from_f32(made->minimums[g]);
            block[o] = (uint8_t)made->block_scales[b];
            block[PANEL_OUTPUTS + o] = made->block_minimums[b];
        }
        if (format == WEIGHT_K6)
            block[in_block / HALF_BLOCK * PANEL_OUTPUTS + o] = (uint8_t)made->block_scales[k / HALF_BLOCK];
    }
}

/* Likewise of a float format. */
static void define_float_output(const struct weight_desc *desc, size_t row, size_t o, uint8_t *panel)
{
    static float values[RANDOM_IN_MAX];
    struct rng rng = rng_of_row(row);
    struct weight_codes made = {0};
    if (desc->format == WEIGHT_FP8)
        made = random_codes_of(&rng, desc);
    else
        random_values(desc, row, values);
    for (size_t k = 0; k < desc->n_in; k++) {
        size_t at = k * PANEL_OUTPUTS + o;
        if (desc->format == WEIGHT_F32)
            ((float *)(void *)panel)[at] = values[k];
        else if (desc->format == WEIGHT_F16)
            ((uint16_t *)(void *)panel)[at] = f16_from_f32(values[k]);
        else
            ((uint16_t *)(void *)panel)[at] = bf16_from_f32(
                desc->format == WEIGHT_FP8 ? f8_e4m3_to_f32((uint8_t)made.codes[k]) : values[k]);
    }
}

static void define_panels(const struct weight_desc *desc, size_t n_panels, size_t bytes, uint8_t *panels)
{
    memset(panels, 0, n_panels * bytes);
    for (size_t row = 0; row < n_panels * PANEL_OUTPUTS; row++) {
        uint8_t *panel = panels + row / PANEL_OUTPUTS * bytes;
        struct rng rng = rng_of_row(row);
        struct weight_codes made = {0};
        if (row < desc->n_out && !weight_is_quantized(desc->format))
            define_float_output(desc, row, row % PANEL_OUTPUTS, panel);
        if (!weight_is_quantized(desc->format))
            continue;
        if (row < desc->n_out)
            made = random_codes_of(&rng, desc);
        define_output(desc, row < desc->n_out ? &made : NULL, row % PANEL_OUTPUTS, panel);
    }
}

static void panels_are_as_defined(void **state)
{
    (void)state;
    static uint8_t want[BYTES_MAX];
    struct rng rng = rng_make(17);
    struct backend *backend;
    OK(cpu_backend_create(2, isa_detect(), ARITHMETIC_PLAIN, &backend));
    for (int i = 0; i < RANDOM_CASES; i++) {
        enum weight_format format = (enum weight_format)(i % WEIGHT_FORMATS);
        bool as_blocks = format == WEIGHT_INT4 && i % 2 == 0;
        size_t group = WEIGHT_GROUP * (as_blocks ? 1 : 1 + rng_below(&rng, 4));
        size_t n_in = group * (1 + rng_below(&rng, 3));
        struct weight_desc desc = {.name = "w",
                                   .n_out = 1 + rng_below(&rng, RANDOM_OUT_MAX),
                                   .n_in = n_in,
                                   .format = format,
                                   .group = (uint32_t)(format == WEIGHT_FP8 ? n_in : group),
                                   .row = random_values,
                                   .row_context = &desc};
        bool is_float = !weight_is_quantized(format) && format != WEIGHT_FP8;
        if (is_float)
            desc.n_in -= rng_below(&rng, 7);
        else
            desc.codes = random_codes;
        const struct weight_section blocks = {desc.n_out, WEIGHT_INT4, WEIGHT_GROUP, true, true};
        if (as_blocks) {
            desc.sections = &blocks;
            desc.n_sections = 1;
        }
        size_t n_panels = div_up(desc.n_out, PANEL_OUTPUTS);
        size_t bytes = round_up(
            panel_bytes(format == WEIGHT_FP8 ? WEIGHT_BF16 : format, desc.n_in, desc.group), PACKED_ALIGN);
        struct weight *weight;
        struct sink sink = {.fail_after = BYTES_MAX};
        OK(cpu_weight_pack(backend, &desc, &weight));
        OK(cpu_weight_export(weight, take, &sink));
        cpu_weight_destroy(weight);
        define_panels(&desc, n_panels, bytes, want);
        if (memcmp(packed, want, n_panels * bytes) != 0)
            fail_msg("case %d: %zu outputs of %zu inputs, format %d, groups of %u", i, desc.n_out, desc.n_in,
                     (int)format, desc.group);
    }
    backend->vtable->destroy(backend);
}

static void a_writer_that_fails_ends_the_export(void **state)
{
    (void)state;
    struct products products;
    struct weight_desc desc;
    struct weight *weight;
    float bias[OUT] = {0};
    products_open(&products, ISA_SCALAR, ARITHMETIC_PLAIN);
    const struct backend_vtable *ops = products.backend->vtable;
    (void)describe(&desc, &CASES[1], bias);
    OK(ops->weight_pack(products.backend, &desc, &weight));
    size_t n = ops->packed_bytes(products.backend, &desc);
    for (size_t room = 0; room < n; room += n / 2) {
        struct sink sink = {.fail_after = room};
        assert_int_equal(ops->weight_export(weight, take, &sink).code, ERR_RESOURCE_EXHAUSTED);
    }
    ops->weight_destroy(weight);
    desc.n_in = SIZE_MAX / 256 / 64 * 64;
    desc.bias = NULL;
    assert_true(ops->packed_bytes(products.backend, &desc) == SIZE_MAX);
    products_close(&products);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(imported_weights_compute_the_same),
        cmocka_unit_test(sections_lie_one_behind_the_other),
        cmocka_unit_test(any_bytes_are_numbers),
        cmocka_unit_test(panels_are_as_defined),
        cmocka_unit_test(a_writer_that_fails_ends_the_export),
    };
    return cmocka_run_group_tests_name("packed_weight", tests, NULL, NULL);
}
