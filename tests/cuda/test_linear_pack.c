/* Weights on the host: rows to codes, and codes to where linear_code_offset has them. */
#include <float.h>
#include <math.h>
#include <string.h>
#include "base/float8.h"
#include "base/philox.h"
#include "kernels/cuda/linear_pack.h"
#include "kernels/cuda/weight_row.h"
#include "kernels/kernel_types.h"
#include "tests/base/cmocka_base.h"

enum { N_OUT = 2 * LINEAR_PANEL - 3 };

static void put_code(const struct linear_packed *packed, uint32_t o, uint32_t k, uint8_t code, uint8_t *codes)
{
    uint32_t inputs = linear_block_inputs(packed->layout),
             n_blocks = linear_blocks(packed->layout, packed->n_in);
    uint8_t *at = codes + linear_block_offset(packed->layout, n_blocks, o / LINEAR_PANEL, k / inputs) +
                  linear_code_offset(packed->layout, o % LINEAR_PANEL, k % inputs);
    if (linear_is_int4(packed->layout))
        *at |= (uint8_t)(((code + (packed->layout == LINEAR_INT4 ? 8 : 0)) & 15) << linear_int4_shift(o));
    else
        *at = code;
}

/* All rows, in an order in which neighbours that share bytes do not follow each other. */
static void pack_and_compare(enum linear_layout layout, uint32_t n_in, struct rng *rng)
{
    struct linear_packed packed = {.layout = layout, .n_out = N_OUT, .n_in = n_in, .group = n_in};
    size_t bytes = linear_packed_codes_bytes(&packed);
    uint8_t *expected = calloc(bytes, 1), *row = malloc(n_in);
    packed.codes = calloc(bytes, 1);
    assert_true(expected && row && packed.codes);
    for (uint32_t i = 0; i < N_OUT; i++) {
        uint32_t o = i * 7 % N_OUT;
        for (uint32_t k = 0; k < n_in; k++) {
            row[k] = (uint8_t)rng_below(rng, linear_is_int4(layout) ? 16 : 256);
            row[k] = (uint8_t)(layout == LINEAR_INT4 ? row[k] - 8 : row[k]);
            put_code(&packed, o, k, row[k], expected);
        }
        linear_pack_codes(&packed, o, row);
    }
    assert_memory_equal(packed.codes, expected, bytes);
    free(expected);
    free(row);
    free(packed.codes);
}

static void test_codes_stand_where_the_layout_has_them(void **state)
{
    (void)state;
    static const enum linear_layout layouts[] = {LINEAR_INT4, LINEAR_UINT4, LINEAR_INT8,
                                                 LINEAR_S8,   LINEAR_E4M3,  LINEAR_E4M3_WGMMA};
    static const uint32_t inputs[] = {1, 15, 64, 100, 128, 160, 333, 512};
    struct rng rng = rng_make(5);
    for (size_t i = 0; i < sizeof layouts / sizeof layouts[0]; i++)
        for (size_t k = 0; k < sizeof inputs / sizeof inputs[0]; k++)
            pack_and_compare(layouts[i], inputs[k], &rng);
}

/* Of one row, whatever its length: vectors have ends. */
static void quantize_and_compare(enum weight_format format, const float *row, size_t n)
{
    int8_t codes[128 + 1];
    double limit = format == WEIGHT_FP8 ? 448 : 127, greatest = 0;
    memset(codes, 99, sizeof codes);
    for (size_t k = 0; k < n; k++)
        greatest = fabs((double)row[k]) > greatest ? fabs((double)row[k]) : greatest;
    assert_true((double)weight_row_greatest(row, n) == greatest);
    float scale = weight_row_quantize(format, row, n, codes), inverse = (float)limit / (float)greatest;
    assert_true(scale == (float)greatest / (float)limit);
    for (size_t k = 0; k < n; k++) {
        float code = row[k] * inverse;
        assert_int_equal(codes[k],
                         format == WEIGHT_FP8 ? (int8_t)f8_e4m3_from_f32(code) : (int8_t)rintf(code));
    }
    assert_int_equal(codes[n], 99);
}

static void test_rows_become_codes(void **state)
{
    (void)state;
    struct rng rng = rng_make(7);
    float row[128];
    for (size_t n = 1; n <= 128; n++) {
        for (size_t k = 0; k < n; k++)
            row[k] = ldexpf((float)rng_below(&rng, 2001) - 1000.0f, -(int)rng_below(&rng, 24));
        row[rng_below(&rng, (uint32_t)n)] = rng_below(&rng, 2) ? 1234.5f : -1234.5f;
        quantize_and_compare(WEIGHT_FP8, row, n);
        quantize_and_compare(WEIGHT_INT8, row, n);
    }
}

/* 448 over the least numbers is infinite, and 0 times infinity no number. */
static void test_rows_of_next_to_nothing_are_zeros(void **state)
{
    (void)state;
    static const enum weight_format formats[] = {WEIGHT_FP8, WEIGHT_INT8};
    const float row[4] = {0, FLT_TRUE_MIN, -FLT_MIN, 0};
    for (size_t i = 0; i < 2; i++) {
        int8_t codes[4] = {1, 1, 1, 1};
        assert_true(weight_row_quantize(formats[i], row, 4, codes) == 0);
        for (size_t k = 0; k < 4; k++)
            assert_int_equal(codes[k], 0);
    }
}

static void test_the_greatest_shows_what_is_not_finite(void **state)
{
    (void)state;
    for (size_t at = 0; at < 9; at++) {
        float row[9] = {1, -2, 3, 4, -5, 6, 7, 8, -8};
        assert_true(weight_row_greatest(row, 9) == 8);
        row[at] = -INFINITY;
        assert_true(isinf(weight_row_greatest(row, 9)));
        row[(at + 4) % 9] = -NAN;
        assert_true(isnan(weight_row_greatest(row, 9)));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_codes_stand_where_the_layout_has_them),
        cmocka_unit_test(test_rows_become_codes),
        cmocka_unit_test(test_rows_of_next_to_nothing_are_zeros),
        cmocka_unit_test(test_the_greatest_shows_what_is_not_finite),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
