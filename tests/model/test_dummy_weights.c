/* Dummy rows and codes: the same in any pieces, of the promised deviation, and nothing that a format lacks.
 */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>
#include "base/float8.h"
#include "model/dummy_weights.h"

enum { COLUMNS = 1000, ROWS = 64 };

static void a_row_in_pieces_is_the_row(void **state)
{
    (void)state;
    static const enum weight_format formats[] = {WEIGHT_INT4, WEIGHT_INT8, WEIGHT_FP8};
    for (size_t f = 0; f < 3; f++) {
        for (size_t cut = 0; cut <= 41; cut++) {
            int8_t whole[COLUMNS], pieces[COLUMNS];
            dummy_codes(7, "a.weight", 3, 0, COLUMNS, formats[f], whole);
            dummy_codes(7, "a.weight", 3, 0, cut, formats[f], pieces);
            dummy_codes(7, "a.weight", 3, cut, COLUMNS - cut, formats[f], pieces + cut);
            assert_memory_equal(whole, pieces, COLUMNS);
        }
    }
}

static float value_of_code(enum weight_format format, int8_t code)
{
    return format == WEIGHT_FP8 ? f8_e4m3_to_f32((uint8_t)code) : (float)code;
}

static void values_have_the_deviation_and_the_range(void **state)
{
    (void)state;
    static const enum weight_format formats[] = {WEIGHT_INT4, WEIGHT_INT8, WEIGHT_FP8};
    static const float limits[] = {7, 127, 448};
    for (size_t f = 0; f < 3; f++) {
        double sum = 0, squares = 0;
        for (size_t row = 0; row < ROWS; row++) {
            int8_t codes[COLUMNS];
            dummy_codes(1, "b.weight", row, 0, COLUMNS, formats[f], codes);
            for (size_t k = 0; k < COLUMNS; k++) {
                float code = value_of_code(formats[f], codes[k]);
                assert_true(fabsf(code) <= limits[f]); /* false for NaN */
                sum += code * dummy_codes_scale(formats[f]);
                squares +=
                    (double)code * code * dummy_codes_scale(formats[f]) * dummy_codes_scale(formats[f]);
            }
        }
        double n = (double)ROWS * COLUMNS, deviation = sqrt(squares / n);
        assert_true(fabs(deviation / DUMMY_WEIGHT_DEVIATION - 1) < 0.03);
        assert_true(fabs(sum / n) < 0.1 * DUMMY_WEIGHT_DEVIATION);
    }
}

static void seed_tensor_and_row_count(void **state)
{
    (void)state;
    int8_t a[COLUMNS], b[COLUMNS];
    dummy_codes(1, "c.weight", 5, 0, COLUMNS, WEIGHT_INT8, a);
    dummy_codes(2, "c.weight", 5, 0, COLUMNS, WEIGHT_INT8, b);
    assert_memory_not_equal(a, b, COLUMNS);
    dummy_codes(1, "d.weight", 5, 0, COLUMNS, WEIGHT_INT8, b);
    assert_memory_not_equal(a, b, COLUMNS);
    dummy_codes(1, "c.weight", 6, 0, COLUMNS, WEIGHT_INT8, b);
    assert_memory_not_equal(a, b, COLUMNS);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_row_in_pieces_is_the_row),
        cmocka_unit_test(values_have_the_deviation_and_the_range),
        cmocka_unit_test(seed_tensor_and_row_count),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
