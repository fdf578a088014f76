/* The conversions of ptx.h, over every code or every place where a rounding changes, against plain
 * definitions. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include "base/float16.h"
#include "base/philox.h"
#include "tests/cuda/emulator/emulator.h"
#include "tests/cuda/emulator_kernels.h"

enum { CODES = 65536, INPUTS = 3 * CODES };

EMU_KERNEL(number_to_bf16);
EMU_KERNEL(number_to_bf16x2);
EMU_KERNEL(number_from_bf16);
EMU_KERNEL(number_from_halves);
EMU_KERNEL(number_to_f16);
EMU_KERNEL(number_from_f16);
EMU_KERNEL(number_to_e4m3);
EMU_KERNEL(number_encode_e4m3);
EMU_KERNEL(number_to_e4m3x2);
EMU_KERNEL(number_from_e4m3);
EMU_KERNEL(number_bf16x2_fma);
EMU_KERNEL(number_bf16x2_mul);
EMU_KERNEL(number_e4m3x4_to_bf16);
EMU_KERNEL(number_int4x8_to_bf16);

static uint32_t in[INPUTS * 4], out[INPUTS * 4];

static void run(const struct emu_kernel *kernel, uint32_t n)
{
    struct test_args args = {in, out, n};
    memset(out, 0xaa, sizeof out);
    emu_launch(&(struct emu_launch){.kernel = kernel,
                                    .grid = {(n + 255) / 256, 1, 1},
                                    .block_threads = 256,
                                    .args = &args,
                                    .args_bytes = sizeof args});
}

/* What a code of a small float stands for, by the definition of its fields; NaN and infinity beyond `finite`.
 */
static double small_float(uint32_t code, int mantissa_bits, int exponent_bits, uint32_t finite)
{
    uint32_t sign = 1u << (mantissa_bits + exponent_bits), magnitude = code & (sign - 1);
    int bias = (1 << (exponent_bits - 1)) - 1, exponent = (int)(magnitude >> mantissa_bits);
    int mantissa = (int)(magnitude & ((1u << mantissa_bits) - 1));
    double value = exponent == 0 ? ldexp(mantissa, 1 - bias - mantissa_bits)
                                 : ldexp(mantissa + (1 << mantissa_bits), exponent - bias - mantissa_bits);
    if (magnitude > finite)
        value = mantissa_bits == 3 || magnitude != finite + 1 ? (double)NAN : (double)INFINITY;
    return (code & sign) != 0 ? -value : value;
}

static double bf16_value(uint32_t code)
{
    return small_float(code, 7, 8, 0x7f7f);
}
static double f16_value(uint32_t code)
{
    return small_float(code, 10, 5, 0x7bff);
}
static double e4m3_value(uint32_t code)
{
    return small_float(code, 3, 4, 0x7e);
}

static uint32_t bits_of(double value)
{
    return f32_to_bits((float)value);
}

static void check_same(uint32_t got, double want)
{
    if (isnan(want))
        assert_true(isnan(f32_from_bits(got)));
    else
        assert_int_equal(got, bits_of(want));
}

static void test_decoding(void **state)
{
    (void)state;
    run(&emu_kernel_number_from_bf16, CODES);
    for (uint32_t i = 0; i < CODES; i++)
        check_same(out[i], bf16_value(i));
    run(&emu_kernel_number_from_f16, CODES);
    for (uint32_t i = 0; i < CODES; i++)
        check_same(out[i], f16_value(i));
    run(&emu_kernel_number_from_e4m3, 256);
    for (uint32_t i = 0; i < 256; i++)
        check_same(out[i], e4m3_value(i));
    for (uint32_t i = 0; i < CODES; i++)
        in[i] = i << 16 | (i * 40503u & 0xffffu);
    run(&emu_kernel_number_from_halves, CODES);
    for (uint32_t i = 0; i < CODES; i++)
        check_same(out[i], (double)(float)(bf16_value(i) + bf16_value(i * 40503u & 0xffffu)));
}

/* For each pair of neighbours among n codes: the values, the middle, and the floats beside it. */
static uint32_t make_ties(double (*value)(uint32_t), uint32_t n)
{
    uint32_t count = 0;
    for (uint32_t code = 0; code < n; code++) {
        double middle = (value(code) + value(code + 1)) / 2;
        uint32_t bits = bits_of(middle);
        assert_true((double)f32_from_bits(bits) == middle);
        for (uint32_t j = 0; j < 3; j++) /* middle - 1, middle, middle + 1 units of f32 */
            in[count++] = bits - 1 + j;
    }
    return count;
}

/* Ties go to the even code. */
static uint32_t tie_code(uint32_t code, uint32_t j)
{
    return j == 0 || (j == 1 && code % 2 == 0) ? code : code + 1;
}

static void check_ties(const struct emu_kernel *kernel, double (*value)(uint32_t), uint32_t n, uint32_t sign)
{
    uint32_t count = make_ties(value, n);
    run(kernel, count);
    for (uint32_t i = 0; i < count; i++)
        assert_int_equal(out[i] & (2 * sign - 1), tie_code(i / 3, i % 3));
    for (uint32_t i = 0; i < count; i++)
        in[i] |= 0x80000000u;
    run(kernel, count);
    for (uint32_t i = 0; i < count; i++)
        assert_int_equal(out[i] & (2 * sign - 1), tie_code(i / 3, i % 3) | sign);
}

/* Values beyond the last tie: code_max and 3 special ones. */
static void check_specials(const struct emu_kernel *kernel, uint32_t largest, uint32_t infinity, uint32_t nan)
{
    in[0] = 0x7f800000u;
    in[1] = 0xff800000u;
    in[2] = 0x7fc00000u;
    in[3] = 0xff812345u;
    in[4] = 0x7f7fffffu;
    run(kernel, 5);
    uint32_t sign = nan > 255 ? 0x8000u : 0x80u;
    assert_int_equal(out[0] & (2 * sign - 1), infinity);
    assert_int_equal(out[1] & (2 * sign - 1), infinity | sign);
    assert_int_equal(out[2] & (2 * sign - 1), nan);
    assert_int_equal(out[3] & (2 * sign - 1), nan);
    assert_int_equal(out[4] & (2 * sign - 1), largest);
}

static void test_encoding(void **state)
{
    (void)state;
    /* The middles between subnormals of bf16 are f32's too. */
    check_ties(&emu_kernel_number_to_bf16, bf16_value, 0x7f7f, 0x8000);
    check_ties(&emu_kernel_number_to_bf16x2, bf16_value, 0x7f7f, 0x8000);
    check_specials(&emu_kernel_number_to_bf16, 0x7f80, 0x7f80, 0x7fff);
    check_ties(&emu_kernel_number_to_f16, f16_value, 0x7bff, 0x8000);
    check_specials(&emu_kernel_number_to_f16, 0x7c00, 0x7c00, 0x7fff);
    const struct emu_kernel *e4m3[] = {&emu_kernel_number_to_e4m3, &emu_kernel_number_encode_e4m3,
                                       &emu_kernel_number_to_e4m3x2};
    for (size_t i = 0; i < 3; i++) {
        check_ties(e4m3[i], e4m3_value, 0x7e, 0x80);
        check_specials(e4m3[i], 0x7e, 0x7e, 0x7f);
    }
    assert_int_equal(out[0] >> 8, 0x40); /* the upper of two: 2.0 */
    in[0] = bits_of(-5.0);
    run(&emu_kernel_number_to_bf16x2, 1);
    assert_int_equal(out[0], 0x40a0c0a0u);
}

static void test_unpacking(void **state)
{
    (void)state;
    struct rng rng = rng_make(11);
    for (uint32_t i = 0; i < CODES; i++) /* every code in every place, and NaN among others */
        in[i] = i < 1024 ? (rng_u32(&rng) & ~(0xffu << i / 256 * 8)) | i % 256 << i / 256 * 8 : rng_u32(&rng);
    run(&emu_kernel_number_e4m3x4_to_bf16, CODES);
    for (uint32_t i = 0; i < CODES; i++)
        for (uint32_t j = 0; j < 4; j++)
            check_same(out[2 * i + j / 2] >> 16 * (j % 2) << 16, e4m3_value(in[i] >> 8 * j & 0xffu));
    run(&emu_kernel_number_int4x8_to_bf16, CODES);
    for (uint32_t i = 0; i < CODES; i++) {
        for (uint32_t j = 0; j < 8; j++) {
            double want = (double)(in[i] >> 4 * j & 15u) * (j % 2 == 0 ? 0x1p-133 : 0x1p-129);
            check_same(out[4 * i + j % 4] >> 16 * (j / 4) << 16, want);
        }
    }
}

/* fmaf rounds to f32; a second rounding to bf16 differs only where f32 lies exactly in the middle of two
 * bf16. */
static void check_fma(uint32_t got, uint32_t a, uint32_t b, uint32_t c)
{
    float exact = fmaf(bf16_to_f32((uint16_t)a), bf16_to_f32((uint16_t)b), bf16_to_f32((uint16_t)c));
    uint32_t bits = f32_to_bits(exact);
    if (isnan(exact))
        assert_true(isnan(bf16_to_f32((uint16_t)got)));
    else if ((bits & 0xffffu) != 0x8000u)
        assert_int_equal(got, bf16_from_f32(exact));
    else
        assert_true(got == bits >> 16 || got == (bits >> 16) + 1);
}

static void test_arithmetic(void **state)
{
    (void)state;
    struct rng rng = rng_make(12);
    for (uint32_t i = 0; i < INPUTS; i++)
        in[i] = i % 5 == 0
                    ? rng_u32(&rng)
                    : (uint32_t)bf16_from_f32(rng_normal(&rng)) << 16 | bf16_from_f32(rng_normal(&rng));
    run(&emu_kernel_number_bf16x2_fma, CODES);
    for (uint32_t i = 0; i < CODES; i++) {
        check_fma(out[i] & 0xffffu, in[3 * i] & 0xffffu, in[3 * i + 1] & 0xffffu, in[3 * i + 2] & 0xffffu);
        check_fma(out[i] >> 16, in[3 * i] >> 16, in[3 * i + 1] >> 16, in[3 * i + 2] >> 16);
    }
    run(&emu_kernel_number_bf16x2_mul, CODES);
    for (uint32_t i = 0; i < CODES; i++)
        check_fma(out[i] & 0xffffu, in[2 * i] & 0xffffu, in[2 * i + 1] & 0xffffu, 0x8000u);
}

/* (1 + 2^-7) * 1.5 lies in the middle of 1.5 + 2^-7 and 1.5 + 2^-6; what is added is lost in f32 and decides.
 */
static void test_one_rounding(void **state)
{
    (void)state;
    static const uint32_t addends[] = {0x8000u, (127u - 40) << 7 | 0x8000u, (127u - 40) << 7};
    for (uint32_t i = 0; i < 3; i++) {
        in[3 * i] = 0x3f81u;
        in[3 * i + 1] = 0x3fc0u;
        in[3 * i + 2] = addends[i];
    }
    run(&emu_kernel_number_bf16x2_fma, 3);
    assert_int_equal(out[0] & 0xffffu, 0x3fc2u);
    assert_int_equal(out[1] & 0xffffu, 0x3fc1u);
    assert_int_equal(out[2] & 0xffffu, 0x3fc2u);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_decoding),     cmocka_unit_test(test_encoding),
        cmocka_unit_test(test_unpacking),    cmocka_unit_test(test_arithmetic),
        cmocka_unit_test(test_one_rounding),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
