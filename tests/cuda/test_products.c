/* mma, ldmatrix and wgmma of the emulator against scalar products of the same numbers. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "base/float16.h"
#include "base/philox.h"
#include "tests/cuda/emulator/emulator.h"
#include "tests/cuda/emulator_kernels.h"
#include "tests/cuda/wgmma_sum.h"

enum { ROWS_MAX = 256, K_MAX = 128 };
enum element { ELEMENT_BF16, ELEMENT_F16, ELEMENT_S8, ELEMENT_E4M3 };

#define PRODUCT_KERNELS(K)                                                                                   \
    K(test_mma_bf16)                                                                                         \
    K(test_mma_f16)                                                                                          \
    K(test_mma_s8)                                                                                           \
    K(test_mma_e4m3)                                                                                         \
    K(test_mma_ldmatrix)                                                                                     \
    K(test_wgmma_e4m3_8)                                                                                     \
    K(test_wgmma_e4m3_16)                                                                                    \
    K(test_wgmma_e4m3_64)                                                                                    \
    K(test_wgmma_e4m3_128)                                                                                   \
    K(test_wgmma_e4m3_256)                                                                                   \
    K(test_wgmma_bf16_32)                                                                                    \
    K(test_wgmma_bf16_64)                                                                                    \
    K(test_wgmma_bf16_96)                                                                                    \
    K(test_wgmma_bf16_192)                                                                                   \
    K(test_wgmma_bf16_256)                                                                                   \
    K(test_wgmma_by_k)
#define DECLARE(name) EMU_KERNEL(name);
PRODUCT_KERNELS(DECLARE)

static double value_of(enum element element, const uint8_t *codes, size_t i)
{
    uint16_t half;
    memcpy(&half, codes + i / 2 * 2, 2);
    if (element == ELEMENT_BF16 || element == ELEMENT_F16)
        memcpy(&half, codes + i * 2, 2);
    switch (element) {
    case ELEMENT_BF16:
        return bf16_to_f32(half);
    case ELEMENT_F16:
        return f16_to_f32(half);
    case ELEMENT_S8:
        return (int8_t)codes[i];
    case ELEMENT_E4M3:
        break;
    }
    int exponent = codes[i] >> 3 & 15, mantissa = codes[i] & 7;
    double value = exponent == 0 ? mantissa / 512.0 : ldexp(8 + mantissa, exponent - 10);
    return codes[i] >= 128 ? -value : value;
}

static void fill(struct rng *rng, enum element element, uint8_t *codes, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        uint16_t half =
            element == ELEMENT_F16 ? f16_from_f32(rng_normal(rng)) : bf16_from_f32(rng_normal(rng));
        if (element == ELEMENT_BF16 || element == ELEMENT_F16) {
            memcpy(codes + i * 2, &half, 2);
            continue;
        }
        codes[i] = (uint8_t)rng_u32(rng);
        if (element == ELEMENT_E4M3 && (codes[i] & 0x7f) == 0x7f)
            codes[i] = 0x7e;
    }
}

static uint8_t a_codes[ROWS_MAX * K_MAX * 2] __attribute__((aligned(16)));
static uint8_t b_codes[ROWS_MAX * K_MAX * 2] __attribute__((aligned(16)));
static float d[64 * ROWS_MAX];

static void run(const struct emu_kernel *kernel, uint32_t n_threads, uint32_t shared_bytes, uint32_t target)
{
    struct product_args args = {a_codes, b_codes, d};
    emu_set_options(&(struct emu_options){
        .seed = 1 + (uint64_t)(uintptr_t)kernel % 97, .n_threads = 1, .target = target});
    emu_launch(&(struct emu_launch){.kernel = kernel,
                                    .grid = {1, 1, 1},
                                    .block_threads = n_threads,
                                    .shared_bytes = shared_bytes,
                                    .args = &args,
                                    .args_bytes = sizeof args});
}

struct shape {
    enum element element;
    uint32_t m, n, k;
    bool a_by_k, b_by_k; /* [k][m] and [k][n] in memory */
};

/* The largest difference from the exact result, in units of the sum of the products' magnitudes. */
static double error_of(const struct shape *shape, const float *d_before)
{
    double worst = 0;
    for (uint32_t i = 0; i < shape->m; i++) {
        for (uint32_t j = 0; j < shape->n; j++) {
            double sum = d_before == NULL ? 0 : d_before[i * shape->n + j], magnitude = fabs(sum) + 1e-30;
            for (uint32_t k = 0; k < shape->k; k++) {
                size_t at_a = shape->a_by_k ? k * shape->m + i : i * shape->k + k;
                size_t at_b = shape->b_by_k ? k * shape->n + j : j * shape->k + k;
                double product =
                    value_of(shape->element, a_codes, at_a) * value_of(shape->element, b_codes, at_b);
                sum += product;
                magnitude += fabs(product);
            }
            worst = fmax(worst, fabs(sum - d[i * shape->n + j]) / magnitude);
        }
    }
    return worst;
}

static void check_mma(const struct emu_kernel *kernel, const struct shape *shape, uint32_t target)
{
    struct rng rng = rng_make(7);
    for (int round = 0; round < 20; round++) {
        float before[16 * 8];
        fill(&rng, shape->element, a_codes, shape->m * shape->k);
        fill(&rng, shape->element, b_codes, shape->n * shape->k);
        for (int i = 0; i < 16 * 8; i++)
            d[i] = before[i] = rng_normal(&rng);
        run(kernel, 32, 0, target);
        assert_true(error_of(shape, before) < 2e-6);
    }
}

static void test_mma_floats(void **state)
{
    (void)state;
    check_mma(&emu_kernel_test_mma_bf16, &(struct shape){ELEMENT_BF16, 16, 8, 16, false, false}, 80);
    check_mma(&emu_kernel_test_mma_f16, &(struct shape){ELEMENT_F16, 16, 8, 16, false, false}, 86);
    check_mma(&emu_kernel_test_mma_e4m3, &(struct shape){ELEMENT_E4M3, 16, 8, 32, false, false}, 89);
    check_mma(&emu_kernel_test_mma_ldmatrix, &(struct shape){ELEMENT_BF16, 16, 8, 16, false, true}, 90);
}

static void test_mma_integers(void **state)
{
    (void)state;
    struct rng rng = rng_make(8);
    fill(&rng, ELEMENT_S8, a_codes, 16 * 32);
    fill(&rng, ELEMENT_S8, b_codes, 8 * 32);
    memset(a_codes, 0x80, 32); /* -128 x -128 too */
    memset(b_codes, 0x80, 32);
    int32_t before[16 * 8], after[16 * 8];
    for (int i = 0; i < 16 * 8; i++)
        before[i] = (int32_t)rng_u32(&rng) / 2;
    memcpy(d, before, sizeof before);
    run(&emu_kernel_test_mma_s8, 32, 0, 80);
    memcpy(after, d, sizeof after);
    for (int i = 0; i < 16; i++) {
        for (int j = 0; j < 8; j++) {
            int32_t sum = before[i * 8 + j];
            for (int k = 0; k < 32; k++)
                sum += (int8_t)a_codes[i * 32 + k] * (int8_t)b_codes[j * 32 + k];
            assert_int_equal(after[i * 8 + j], sum);
        }
    }
}

/* Of four instructions, in units of the sum of magnitudes: see wgmma_sum.h. */
#define WGMMA_E4M3_ERROR (4 * 34 * 0x1p-13)

static double add_codes(double sum, const uint8_t *a, const uint8_t *b)
{
    float a_values[WGMMA_E4M3_INPUTS], b_values[WGMMA_E4M3_INPUTS];
    for (size_t k = 0; k < WGMMA_E4M3_INPUTS; k++) {
        a_values[k] = (float)value_of(ELEMENT_E4M3, a, k);
        b_values[k] = (float)value_of(ELEMENT_E4M3, b, k);
    }
    return wgmma_e4m3_add(sum, a_values, b_values);
}

/* The chain of the four instructions, as the card adds. */
static void check_sums_e4m3(const struct shape *shape)
{
    for (uint32_t i = 0; i < shape->m; i++) {
        for (uint32_t j = 0; j < shape->n; j++) {
            double sum = 0;
            for (uint32_t k = 0; k < shape->k; k += WGMMA_E4M3_INPUTS)
                sum = add_codes(sum, a_codes + i * shape->k + k, b_codes + j * shape->k + k);
            assert_true((double)d[i * shape->n + j] == sum);
        }
    }
}

static void check_wgmma(const struct emu_kernel *kernel, enum element element, uint32_t n)
{
    struct rng rng = rng_make(9 + n);
    uint32_t row_bytes = 128;
    struct shape shape = {element, 64, n, element == ELEMENT_E4M3 ? row_bytes : row_bytes / 2, false, false};
    fill(&rng, element, a_codes, 64 * shape.k);
    fill(&rng, element, b_codes, n * shape.k);
    run(kernel, 128, (64 + n) * row_bytes, 90);
    if (element == ELEMENT_E4M3)
        check_sums_e4m3(&shape);
    double error = error_of(&shape, NULL), bound = element == ELEMENT_E4M3 ? WGMMA_E4M3_ERROR : 1e-5;
    if (error >= bound)
        print_error("%s: error %g\n", kernel->name, error);
    assert_true(error < bound);
}

static void test_wgmma(void **state)
{
    (void)state;
    check_wgmma(&emu_kernel_test_wgmma_e4m3_8, ELEMENT_E4M3, 8);
    check_wgmma(&emu_kernel_test_wgmma_e4m3_16, ELEMENT_E4M3, 16);
    check_wgmma(&emu_kernel_test_wgmma_e4m3_64, ELEMENT_E4M3, 64);
    check_wgmma(&emu_kernel_test_wgmma_e4m3_128, ELEMENT_E4M3, 128);
    check_wgmma(&emu_kernel_test_wgmma_e4m3_256, ELEMENT_E4M3, 256);
    check_wgmma(&emu_kernel_test_wgmma_bf16_32, ELEMENT_BF16, 32);
    check_wgmma(&emu_kernel_test_wgmma_bf16_64, ELEMENT_BF16, 64);
    check_wgmma(&emu_kernel_test_wgmma_bf16_96, ELEMENT_BF16, 96);
    check_wgmma(&emu_kernel_test_wgmma_bf16_192, ELEMENT_BF16, 192);
    check_wgmma(&emu_kernel_test_wgmma_bf16_256, ELEMENT_BF16, 256);
}

/* Codes in hexadecimal behind the letter; their number. */
static size_t read_codes(FILE *golden, char letter, uint8_t *codes, size_t room)
{
    char name;
    size_t n = 0;
    if (fscanf(golden, " %c ", &name) != 1)
        return 0;
    assert_int_equal(name, letter);
    memset(codes, 0, room);
    while (n < room && fscanf(golden, "%2hhx", &codes[n]) == 1)
        n++;
    return n;
}

/* What a card gave for rows of any length. */
static void test_wgmma_of_a_card(void **state)
{
    (void)state;
    FILE *golden = fopen(TEST_DATA_DIR "/cuda/golden/wgmma_e4m3_sm90.txt", "r");
    assert_non_null(golden);
    assert_int_equal(fscanf(golden, "#%*[^\n]"), 0);
    int n_rows = 0;
    for (size_t n; (n = read_codes(golden, 'x', a_codes, ROWS_MAX)) > 0; n_rows++) {
        double sum = 0, expected;
        assert_int_equal(read_codes(golden, 'w', b_codes, ROWS_MAX), n);
        assert_int_equal(fscanf(golden, " sum %lf", &expected), 1);
        for (size_t k = 0; k < n; k += WGMMA_E4M3_INPUTS)
            sum = add_codes(sum, a_codes + k, b_codes + k);
        assert_true(sum == expected);
    }
    assert_int_equal(n_rows, 2);
    fclose(golden);
}

static void test_wgmma_by_k(void **state)
{
    (void)state;
    struct rng rng = rng_make(10);
    struct shape shape = {ELEMENT_BF16, 64, 64, 16, true, true};
    fill(&rng, ELEMENT_BF16, a_codes, 64 * 16);
    fill(&rng, ELEMENT_BF16, b_codes, 64 * 16);
    run(&emu_kernel_test_wgmma_by_k, 128, 2 * 16 * 128, 90);
    assert_true(error_of(&shape, NULL) < 2e-6);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_mma_floats), cmocka_unit_test(test_mma_integers),
        cmocka_unit_test(test_wgmma),      cmocka_unit_test(test_wgmma_of_a_card),
        cmocka_unit_test(test_wgmma_by_k),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
