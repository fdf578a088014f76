/* How cuBLASLt is spoken to, on one that does not exist: the same words that the real one gets. */
#include <dlfcn.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include "base/float16.h"
#include "base/philox.h"
#include "base/float8.h"
#include "kernels/cuda/device_cublaslt.h"
#include "tests/cuda/fake_cublaslt.h"
#include "tests/model/broken_model.h"

enum { OUT = 48, IN = 64, OUT_STRIDE = 56, ROWS_MAX = 37, WORKSPACE_BYTES = 1 << 16 };

static struct fake_cublaslt_counts *counts;

static int find_library(void **state)
{
    (void)state;
    void *library = dlopen(FAKE_CUBLASLT_LIBRARY, RTLD_NOW | RTLD_LOCAL);
    assert_non_null(library);
    counts = dlsym(library, "fake_cublaslt_counts");
    assert_non_null(counts);
    return setenv("BANTAM_CUBLASLT_LIBRARY", FAKE_CUBLASLT_LIBRARY, 1);
}

static int reset(void **state)
{
    (void)state;
    unsetenv("BANTAM_FAKE_CUBLASLT");
    setenv("BANTAM_CUBLASLT_LIBRARY", FAKE_CUBLASLT_LIBRARY, 1);
    return counts->n_objects == 0 ? 0 : -1;
}

static struct cublaslt *open_library(void)
{
    struct cublaslt *blas;
    err_t e = cublaslt_create(&blas);
    if (e.code != ERR_OK)
        fail_msg("%s", e.message);
    return blas;
}

static struct product_shape shape_of(enum product_kind kind)
{
    return (struct product_shape){.kind = kind,
                                  .n_out = OUT,
                                  .n_in = IN,
                                  .weight_stride = IN,
                                  .x_stride = IN,
                                  .out_stride = OUT_STRIDE,
                                  .rows_min = 3,
                                  .rows_max = ROWS_MAX,
                                  .workspace_bytes = WORKSPACE_BYTES};
}

/* ---- Products ---- */

struct operands {
    uint8_t weight[2 * OUT * IN], x[2 * ROWS_MAX * IN];
    float weight_scale[OUT], x_scale[ROWS_MAX];
};

static void draw(enum product_kind kind, struct operands *o)
{
    struct rng rng = rng_make(3);
    for (size_t i = 0; i < OUT * IN + ROWS_MAX * IN; i++) {
        uint8_t *to = i < OUT * IN ? o->weight : o->x;
        size_t at = i < OUT * IN ? i : i - OUT * IN;
        float value = rng_normal(&rng);
        if (kind == PRODUCT_BF16)
            ((uint16_t *)to)[at] = bf16_from_f32(value);
        else
            to[at] = f8_e4m3_from_f32(value);
    }
    for (size_t i = 0; i < OUT; i++)
        o->weight_scale[i] = 1.0f + (float)i;
    for (size_t i = 0; i < ROWS_MAX; i++)
        o->x_scale[i] = 0.5f + (float)i;
}

static float value_of(enum product_kind kind, const uint8_t *values, size_t i)
{
    return kind == PRODUCT_BF16 ? bf16_to_f32(((const uint16_t *)values)[i]) : f8_e4m3_to_f32(values[i]);
}

static uint16_t expected(enum product_kind kind, const struct operands *o, size_t row, size_t output)
{
    float sum = 0;
    for (size_t k = 0; k < IN; k++)
        sum += value_of(kind, o->weight, output * IN + k) * value_of(kind, o->x, row * IN + k);
    if (kind == PRODUCT_E4M3)
        sum *= o->weight_scale[output] * o->x_scale[row];
    return bf16_from_f32(sum);
}

static void run_kind(enum product_kind kind)
{
    static _Alignas(256) struct operands o;
    static _Alignas(256) uint8_t workspace[WORKSPACE_BYTES];
    static const uint32_t counts_of_rows[] = {3, 4, 5, 32, 33, ROWS_MAX};
    draw(kind, &o);
    struct cublaslt *blas = open_library();
    assert_int_equal(cublaslt_version(blas), 130100);
    struct product_shape shape = shape_of(kind);
    struct cublaslt_product *product;
    uint64_t chosen = counts->n_chosen;
    assert_int_equal(cublaslt_product_create(blas, &shape, &product).code, ERR_OK);
    assert_int_equal(counts->n_chosen - chosen, 5); /* up to 4, 8, 16, 32 and 64 rows */
    for (size_t i = 0; i < sizeof counts_of_rows / sizeof counts_of_rows[0]; i++) {
        uint16_t out[ROWS_MAX + 1][OUT_STRIDE];
        memset(out, 0x77, sizeof out);
        struct product_call call = {.rows = counts_of_rows[i],
                                    .weight = o.weight,
                                    .weight_scale = kind == PRODUCT_E4M3 ? o.weight_scale : NULL,
                                    .x = o.x,
                                    .x_scale = kind == PRODUCT_E4M3 ? o.x_scale : NULL,
                                    .out = out,
                                    .workspace = workspace};
        err_t e = cublaslt_product_run(product, &call, FAKE_CUBLASLT_STREAM);
        if (e.code != ERR_OK)
            fail_msg("%u rows: %s", counts_of_rows[i], e.message);
        for (size_t r = 0; r <= ROWS_MAX; r++)
            for (size_t j = 0; j < OUT_STRIDE; j++)
                assert_int_equal(out[r][j],
                                 r < counts_of_rows[i] && j < OUT ? expected(kind, &o, r, j) : 0x7777);
    }
    assert_int_equal(counts->n_chosen - chosen, 5); /* nothing is chosen once it runs */
    cublaslt_product_destroy(product);
    cublaslt_destroy(blas);
}

static void products_of_bf16(void **state)
{
    (void)state;
    run_kind(PRODUCT_BF16);
}

static void products_of_e4m3_with_scales_per_row_and_output(void **state)
{
    (void)state;
    run_kind(PRODUCT_E4M3);
}

/* ---- What is refused ---- */

static void expect_no_product(const char *says)
{
    struct cublaslt *blas = open_library();
    struct product_shape shape = shape_of(PRODUCT_E4M3);
    struct cublaslt_product *product;
    expect_error(cublaslt_product_create(blas, &shape, &product), ERR_UNIMPLEMENTED, "no algorithm", says,
                 NULL);
    assert_null(product);
    cublaslt_destroy(blas);
}

static void shapes_without_algorithms_are_found_at_start(void **state)
{
    (void)state;
    setenv("BANTAM_FAKE_CUBLASLT", "none", 1);
    expect_no_product("at 4 rows");
    setenv("BANTAM_FAKE_CUBLASLT", "odd", 1); /* found though the choice asks for powers of two */
    expect_no_product("at 3 rows");
}

static void a_workspace_that_is_too_small_is_no_algorithm(void **state)
{
    (void)state;
    struct cublaslt *blas = open_library();
    struct product_shape shape = shape_of(PRODUCT_BF16);
    struct cublaslt_product *product;
    shape.workspace_bytes = 1024;
    expect_error(cublaslt_product_create(blas, &shape, &product), ERR_UNIMPLEMENTED, "no algorithm", NULL);
    cublaslt_destroy(blas);
}

static void libraries_that_will_not_do_say_why(void **state)
{
    (void)state;
    struct cublaslt *blas;
    setenv("BANTAM_FAKE_CUBLASLT", "old", 1);
    expect_error(cublaslt_create(&blas), ERR_UNAVAILABLE, "120300", "12.9", NULL);
    setenv("BANTAM_FAKE_CUBLASLT", "start", 1);
    expect_error(cublaslt_create(&blas), ERR_UNAVAILABLE, "does not start", NULL);
    setenv("BANTAM_CUBLASLT_LIBRARY", "/nowhere/libcublasLt.so", 1);
    expect_error(cublaslt_create(&blas), ERR_UNAVAILABLE, "/nowhere", "BANTAM_CUBLASLT_LIBRARY", NULL);
    setenv("BANTAM_CUBLASLT_LIBRARY", "libm.so.6", 1);
    expect_error(cublaslt_create(&blas), ERR_UNAVAILABLE, "lacks cublasLt", NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(products_of_bf16, reset),
        cmocka_unit_test_teardown(products_of_e4m3_with_scales_per_row_and_output, reset),
        cmocka_unit_test_teardown(shapes_without_algorithms_are_found_at_start, reset),
        cmocka_unit_test_teardown(a_workspace_that_is_too_small_is_no_algorithm, reset),
        cmocka_unit_test_teardown(libraries_that_will_not_do_say_why, reset),
    };
    return cmocka_run_group_tests_name("cublaslt", tests, find_library, NULL);
}
