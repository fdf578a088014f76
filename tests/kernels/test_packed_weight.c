/* Weights that are exported and imported again: every format computes the same bits, bytes that nobody
 * exported do no harm, and the layout that files name is the one it was. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include "base/alloc.h"
#include "base/hash.h"
#include "base/philox.h"
#include "kernels/cpu_backend.h"

#define OK(call)                                                                                             \
    do {                                                                                                     \
        err_t e_ = (call);                                                                                   \
        if (e_.code != ERR_OK)                                                                               \
            fail_msg("%s", e_.message);                                                                      \
    } while (0)

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

static void row_codes(const void *context, size_t row, const struct weight_codes *out)
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
    ops->linear(products->backend, &step, products->in, weight, products->out);
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
    const struct weight_section sections[] = {{40, WEIGHT_K4, IN, true}, {30, WEIGHT_K6, IN, true}};
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
        cmocka_unit_test(a_writer_that_fails_ends_the_export),
    };
    return cmocka_run_group_tests_name("packed_weight", tests, NULL, NULL);
}
