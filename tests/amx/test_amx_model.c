/* The software model of AMX against plain definitions: products, what is flushed, which configurations are
 * valid, and that what faults on the machine stops the program. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>
#include <cmocka.h>
#include <immintrin.h>
#include "base/float16.h"
#include "base/philox.h"
#include "kernels/ref/flush_ref.h"
#include "tests/amx/amx_model.h"

enum { M = 11, N = 7, GROUPS = 13 }; /* rows, columns, groups of four bytes of a row of the left tile */

/* ---- Faults ---- */

static jmp_buf on_fault;
static const char *fault_message;

static void take_fault(const char *message)
{
    fault_message = message;
    longjmp(on_fault, 1);
}

#define EXPECT_FAULT(call, part)                                                                             \
    do {                                                                                                     \
        fault_message = "";                                                                                  \
        if (setjmp(on_fault) == 0) {                                                                         \
            call;                                                                                            \
            fail_msg("%s did not fault", #call);                                                             \
        }                                                                                                    \
        assert_non_null(strstr(fault_message, part));                                                        \
    } while (0)

static int set_up(void **state)
{
    (void)state;
    amx_model_on_fault = take_fault;
    amx_model_release();
    return 0;
}

/* Sums in tile 0, a in 1, b in 2, as M by N of GROUPS. */
static struct tile_config product_config(void)
{
    struct tile_config config = {.palette = 1};
    config.rows[0] = config.rows[1] = M;
    config.rows[2] = GROUPS;
    config.row_bytes[0] = config.row_bytes[2] = N * 4;
    config.row_bytes[1] = GROUPS * 4;
    return config;
}

static void test_configurations(void **state)
{
    (void)state;
    struct tile_config config = product_config(), read;
    amx_model_load_config(&config);
    amx_model_store_config(&read);
    assert_memory_equal(&read, &config, sizeof config);
    amx_model_release();
    amx_model_store_config(&read);
    assert_memory_equal(&read, &(struct tile_config){0}, sizeof read);
    struct tile_config bad = config;
    bad.palette = 2;
    EXPECT_FAULT(amx_model_load_config(&bad), "palette");
    bad = config;
    bad.start_row = 1;
    EXPECT_FAULT(amx_model_load_config(&bad), "start row");
    bad = config;
    bad.reserved[13] = 1;
    EXPECT_FAULT(amx_model_load_config(&bad), "reserved");
    bad = config;
    bad.rows[3] = 1;
    EXPECT_FAULT(amx_model_load_config(&bad), "rows and no bytes");
    bad = config;
    bad.row_bytes[3] = 4;
    EXPECT_FAULT(amx_model_load_config(&bad), "rows and no bytes");
    bad = config;
    bad.rows[7] = 17;
    bad.row_bytes[7] = 64;
    EXPECT_FAULT(amx_model_load_config(&bad), "too large");
    bad.rows[7] = 16;
    bad.row_bytes[7] = 65;
    EXPECT_FAULT(amx_model_load_config(&bad), "too large");
    bad = config;
    bad.rows[8] = 1;
    bad.row_bytes[8] = 4;
    EXPECT_FAULT(amx_model_load_config(&bad), "past the last");
}

static void test_use_without_configuration(void **state)
{
    (void)state;
    uint8_t memory[1024];
    EXPECT_FAULT(amx_model_zero(0), "not configured");
    EXPECT_FAULT(amx_model_load(0, memory, 64), "not configured");
    EXPECT_FAULT(amx_model_store(0, memory, 64), "not configured");
    EXPECT_FAULT(amx_model_dot_bf16(0, 1, 2), "not configured");
    struct tile_config config = product_config();
    amx_model_load_config(&config);
    EXPECT_FAULT(amx_model_zero(3), "not configured");
    EXPECT_FAULT(amx_model_zero(8), "past the last");
    EXPECT_FAULT(amx_model_zero(-1), "past the last");
    amx_model_zero(0);
    amx_model_release();
    EXPECT_FAULT(amx_model_zero(0), "not configured");
}

static void test_products_of_unequal_shapes(void **state)
{
    (void)state;
    struct tile_config config = product_config();
    config.rows[3] = M + 1;
    config.row_bytes[3] = N * 4;
    config.rows[4] = GROUPS;
    config.row_bytes[4] = N * 4 + 4;
    config.rows[5] = GROUPS + 1;
    config.row_bytes[5] = N * 4;
    config.rows[6] = M;
    config.row_bytes[6] = GROUPS * 4 + 2;
    amx_model_load_config(&config);
    amx_model_dot_int8(0, 1, 2);
    EXPECT_FAULT(amx_model_dot_int8(3, 1, 2), "other rows");
    EXPECT_FAULT(amx_model_dot_int8(0, 1, 4), "other columns");
    EXPECT_FAULT(amx_model_dot_int8(0, 1, 5), "unequal inputs");
    EXPECT_FAULT(amx_model_dot_int8(0, 6, 2), "multiple of 4");
    EXPECT_FAULT(amx_model_dot_int8(0, 1, 1), "itself");
    EXPECT_FAULT(amx_model_dot_bf16(0, 0, 2), "itself");
}

/* ---- Loads, stores ---- */

static void test_loads_and_stores(void **state)
{
    (void)state;
    struct tile_config config = product_config();
    amx_model_load_config(&config);
    uint8_t from[M * 50], to[M * 50];
    for (size_t i = 0; i < sizeof from; i++)
        from[i] = (uint8_t)(i * 7 + 1);
    memset(to, 0xee, sizeof to);
    amx_model_load(0, from, 50);
    amx_model_store(0, to, 50);
    for (size_t r = 0; r < M; r++) {
        assert_memory_equal(to + r * 50, from + r * 50, N * 4);
        for (size_t i = N * 4; i < 50; i++)
            assert_int_equal(to[r * 50 + i], 0xee);
    }
    amx_model_zero(0);
    amx_model_store(0, to, 50);
    assert_int_equal(to[3], 0);
    amx_model_load(0, from, 50);
    amx_model_load_config(&config); /* a new configuration zeroes the tiles */
    amx_model_store(0, to, 50);
    assert_int_equal(to[3], 0);
}

/* ---- Products ---- */

static void load_operands(const void *sums, const void *a, const void *b)
{
    struct tile_config config = product_config();
    amx_model_load_config(&config);
    amx_model_load(0, sums, N * 4);
    amx_model_load(1, a, GROUPS * 4);
    amx_model_load(2, b, N * 4);
}

static void test_int8_products(void **state)
{
    (void)state;
    struct rng rng = rng_make(1);
    for (int is_signed = 0; is_signed < 2; is_signed++) {
        int8_t a[M][GROUPS * 4], b[GROUPS][N * 4];
        int32_t sums[M][N], got[M][N];
        for (size_t i = 0; i < sizeof a; i++)
            a[i / (GROUPS * 4)][i % (GROUPS * 4)] = (int8_t)rng_below(&rng, 256);
        for (size_t i = 0; i < sizeof b; i++)
            b[i / (N * 4)][i % (N * 4)] = (int8_t)rng_below(&rng, 256);
        for (size_t i = 0; i < M * N; i++)
            sums[i / N][i % N] = (int32_t)rng_below(&rng, 1000) - 500;
        load_operands(sums, a, b);
        if (is_signed)
            amx_model_dot_int8(0, 1, 2);
        else
            amx_model_dot_uint8(0, 1, 2);
        amx_model_store(0, got, N * 4);
        for (size_t m = 0; m < M; m++) {
            for (size_t n = 0; n < N; n++) {
                int want = sums[m][n];
                for (size_t k = 0; k < GROUPS * 4; k++)
                    want += (is_signed ? a[m][k] : (uint8_t)a[m][k]) * b[k / 4][n * 4 + k % 4];
                assert_int_equal(got[m][n], want);
            }
        }
    }
}

/* a * b + c with the machine's own flushing, whatever the compiler makes of the rest. */
__attribute__((target("avx,fma"), noinline)) static float machine_fma(float a, float b, float c)
{
    unsigned saved = _mm_getcsr();
    _mm_setcsr(saved | 0x8040); /* FTZ, DAZ */
    volatile float result = _mm_cvtss_f32(_mm_fmadd_ss(_mm_set_ss(a), _mm_set_ss(b), _mm_set_ss(c)));
    _mm_setcsr(saved);
    return result;
}

/* By the flags of SSE, which flush as the tile products do. */
static void test_flushing_is_the_machines(void **state)
{
    (void)state;
    if (!__builtin_cpu_supports("fma"))
        skip();
    struct rng rng = rng_make(2);
    unsigned n_flushed = 0;
    for (int i = 0; i < 1000000; i++) {
        /* Products around 2^-126 of bf16 numbers, sums of as many bits as there are. */
        float a = bf16_to_f32(
            (uint16_t)((rng_below(&rng, 2) << 15) | ((60 + rng_below(&rng, 8)) << 7) | rng_below(&rng, 128)));
        unsigned exponent = rng_below(&rng, 8) == 0 ? 0 : 60 + rng_below(&rng, 8);
        float b = bf16_to_f32((uint16_t)(rng_below(&rng, 2) << 15 | exponent << 7 | rng_below(&rng, 128)));
        float c =
            f32_from_bits(rng_below(&rng, 2) << 31 | rng_below(&rng, 3) << 23 | (rng_u32(&rng) & 0x7fffff));
        float got = fma_flush_ref(flush_ref(a), flush_ref(b), flush_ref(c)), want = machine_fma(a, b, c);
        if (f32_to_bits(got) != f32_to_bits(want))
            fail_msg("%a * %a + %a: %a, the machine has %a", (double)a, (double)b, (double)c, (double)got,
                     (double)want);
        n_flushed += want == 0;
    }
    assert_true(n_flushed > 1000);
    /* Just below the least normal number: rounded to it on the grid of subnormals, but tiny. */
    float c = 0x1p-126f, a = -0x1.8p-80f, b = 0x1p-71f;
    assert_true(fmaf(a, b, c) == 0x1p-126f);
    assert_int_equal(f32_to_bits(fma_flush_ref(a, b, c)), f32_to_bits(machine_fma(a, b, c)));
}

/* The manual's order: even and odd inputs apart, from zero; their sum; that to the old sum. */
static float dot_bf16(const uint16_t *a, const uint16_t *b, size_t b_stride, float sum)
{
    float chains[2] = {0, 0};
    for (size_t k = 0; k < 2 * GROUPS; k++) {
        float x = bf16_to_f32(a[k]), w = bf16_to_f32(b[k / 2 * b_stride + k % 2]);
        chains[k % 2] = machine_fma(x, w, chains[k % 2]);
    }
    return machine_fma(1.0f, machine_fma(1.0f, chains[0], chains[1]), sum);
}

static void test_bf16_products(void **state)
{
    (void)state;
    if (!__builtin_cpu_supports("fma"))
        skip();
    struct rng rng = rng_make(3);
    for (int round = 0; round < 40; round++) {
        uint16_t a[M][GROUPS * 2], b[GROUPS][N * 2];
        float sums[M][N], got[M][N];
        int exponent = round % 4 == 3 ? -63 : 0; /* so small that something is flushed */
        for (size_t i = 0; i < M * GROUPS * 2; i++)
            a[i / (GROUPS * 2)][i % (GROUPS * 2)] = bf16_from_f32(ldexpf(rng_normal(&rng), exponent));
        for (size_t i = 0; i < GROUPS * N * 2; i++)
            b[i / (N * 2)][i % (N * 2)] = rng_below(&rng, 20) == 0
                                              ? (uint16_t)rng_below(&rng, 128) /* subnormal */
                                              : bf16_from_f32(ldexpf(rng_normal(&rng), exponent));
        for (size_t i = 0; i < M * N; i++)
            sums[i / N][i % N] = rng_below(&rng, 10) == 0 ? 1e-40f : ldexpf(rng_normal(&rng), 2 * exponent);
        load_operands(sums, a, b);
        amx_model_dot_bf16(0, 1, 2);
        amx_model_store(0, got, N * 4);
        for (size_t m = 0; m < M; m++) {
            for (size_t n = 0; n < N; n++) {
                float want = dot_bf16(a[m], &b[0][2 * n], N * 2, sums[m][n]);
                assert_int_equal(f32_to_bits(got[m][n]), f32_to_bits(want));
            }
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(test_configurations, set_up),
        cmocka_unit_test_setup(test_use_without_configuration, set_up),
        cmocka_unit_test_setup(test_products_of_unequal_shapes, set_up),
        cmocka_unit_test_setup(test_loads_and_stores, set_up),
        cmocka_unit_test_setup(test_int8_products, set_up),
        cmocka_unit_test_setup(test_flushing_is_the_machines, set_up),
        cmocka_unit_test_setup(test_bf16_products, set_up),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
