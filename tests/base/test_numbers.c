/* float16, float8, philox, hash. */
#include <math.h>
#include <string.h>
#include "base/error.h"
#include "base/float16.h"
#include "base/float8.h"
#include "base/hash.h"
#include "base/philox.h"
#include "tests/base/cmocka_base.h"

/* The value of a half by its definition. */
static double half_value(uint16_t h)
{
    int exponent = h >> 10 & 31;
    int fraction = h & 0x3ff;
    double magnitude = exponent > 0 ? ldexp(1024 + fraction, exponent - 25) : ldexp(fraction, -24);
    return h & 0x8000 ? -magnitude : magnitude;
}

static void test_f16_round_trip_of_all_values(void **state)
{
    (void)state;
    for (uint32_t bits = 0; bits < 0x10000; bits++) {
        uint16_t h = (uint16_t)bits;
        float f = f16_to_f32(h);
        if ((h & 0x7c00) == 0x7c00 && (h & 0x3ff) != 0) {
            assert_true(isnan(f));
            assert_int_equal(f16_from_f32(f), h | 0x200);
            continue;
        }
        if ((h & 0x7c00) == 0x7c00)
            assert_true(isinf(f) && (f < 0) == (h >= 0x8000));
        else
            assert_true((double)f == half_value(h));
        assert_int_equal(!!signbit(f), h >> 15);
        assert_int_equal(f16_from_f32(f), h);
    }
}

/* Between every two neighbours: the midpoint goes to the even one, the floats beside it to the nearer one. */
static void test_f16_rounds_to_nearest_even(void **state)
{
    (void)state;
    for (uint16_t low = 0; low < 0x7c00; low++) {
        double high_value = low == 0x7bff ? 65536.0 : half_value((uint16_t)(low + 1));
        float middle = (float)((half_value(low) + high_value) / 2);
        uint16_t even = low & 1 ? (uint16_t)(low + 1) : low;
        assert_int_equal(f16_from_f32(middle), even);
        assert_int_equal(f16_from_f32(-middle), even | 0x8000);
        assert_int_equal(f16_from_f32(nextafterf(middle, 0)), low);
        assert_int_equal(f16_from_f32(nextafterf(middle, INFINITY)), low + 1);
    }
    assert_int_equal(f16_from_f32(1e30f), 0x7c00);
    assert_int_equal(f16_from_f32(1e-30f), 0);
}

static void test_bf16(void **state)
{
    (void)state;
    for (uint32_t bits = 0; bits < 0x10000; bits++) {
        uint16_t h = (uint16_t)bits;
        bool is_nan = (h & 0x7fff) > 0x7f80;
        assert_int_equal(bf16_from_f32(bf16_to_f32(h)), is_nan ? h | 0x40 : h);
        if ((h & 0x7fff) >= 0x7f80)
            continue;
        uint32_t middle = bits << 16 | 0x8000;
        assert_int_equal(bf16_from_f32(f32_from_bits(middle)), (h & 1) ? h + 1 : h);
        assert_int_equal(bf16_from_f32(f32_from_bits(middle - 1)), h);
        assert_int_equal(bf16_from_f32(f32_from_bits(middle + 1)), h + 1);
    }
    /* A NaN whose payload lies in the low half alone must not become infinity. */
    assert_true(isnan(bf16_to_f32(bf16_from_f32(f32_from_bits(0x7f800001)))));
}

/* Every value, what lies between two neighbours, and what is beyond: 448, and NaN as it is. */
static void test_e4m3(void **state)
{
    (void)state;
    for (uint8_t low = 0; low < 0x7e; low++) {
        float value = f8_e4m3_to_f32(low), next = f8_e4m3_to_f32(low + 1), middle = (value + next) / 2;
        assert_int_equal(f8_e4m3_from_f32(value), low);
        assert_int_equal(f8_e4m3_from_f32(-value), low | 0x80);
        assert_int_equal(f8_e4m3_from_f32(middle), low & 1 ? low + 1 : low);
        assert_int_equal(f8_e4m3_from_f32(-middle), (low & 1 ? low + 1 : low) | 0x80);
        assert_int_equal(f8_e4m3_from_f32(nextafterf(middle, 0)), low);
        assert_int_equal(f8_e4m3_from_f32(nextafterf(middle, INFINITY)), low + 1);
    }
    assert_true(f8_e4m3_to_f32(0x7e) == F8_E4M3_MAX && f8_e4m3_to_f32(1) == 0x1p-9f);
    static const float beyond[] = {448, 463, 464, 465, 480, 1e30f, INFINITY};
    for (size_t i = 0; i < sizeof beyond / sizeof beyond[0]; i++) {
        assert_int_equal(f8_e4m3_from_f32(beyond[i]), 0x7e);
        assert_int_equal(f8_e4m3_from_f32(-beyond[i]), 0xfe);
    }
    assert_int_equal(f8_e4m3_from_f32(0x1p-149f), 0);
    assert_int_equal(f8_e4m3_from_f32(-0.0f), 0x80);
    assert_int_equal(f8_e4m3_from_f32(f32_from_bits(0x7f800001)), 0x7f);
    assert_int_equal(f8_e4m3_from_f32(f32_from_bits(0xffffffff)), 0xff);
}

/* Known answers of philox4x32-10 as published with Random123. */
static void test_philox_known_answers(void **state)
{
    (void)state;
    static const struct {
        uint32_t counter[4], key[2], expected[4];
    } cases[] = {
        {{0, 0, 0, 0}, {0, 0}, {0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}},
        {{0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff},
         {0xffffffff, 0xffffffff},
         {0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}},
        {{0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344},
         {0xa4093822, 0x299f31d0},
         {0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        uint64_t key = cases[i].key[0] | (uint64_t)cases[i].key[1] << 32;
        struct philox_block block = philox4x32(key, cases[i].counter);
        assert_memory_equal(block.lane, cases[i].expected, sizeof block.lane);
    }
}

static void test_rng_is_the_block_sequence(void **state)
{
    (void)state;
    struct rng rng = rng_make(0x123456789abcdef0);
    for (uint32_t i = 0; i < 10; i++) {
        struct philox_block block = philox4x32(0x123456789abcdef0, (const uint32_t[4]){i, 0, 0, 0});
        for (int lane = 0; lane < 4; lane++)
            assert_int_equal(rng_u32(&rng), block.lane[lane]);
    }
    struct rng far = {1, (uint64_t)4 << 33};
    assert_int_equal(rng_u32(&far), philox4x32(1, (const uint32_t[4]){0, 2, 0, 0}).lane[0]);
    struct rng again = rng_make(7), words = rng_make(7);
    uint64_t low = rng_u32(&words);
    assert_true(rng_u64(&again) == (low | (uint64_t)rng_u32(&words) << 32));
}

/* Chi-squared over 10 cells, 9 degrees of freedom: above 40 once in a hundred thousand seeds; the seed is
 * fixed. */
static void test_rng_below_is_uniform(void **state)
{
    (void)state;
    enum { N_CELLS = 10, N_DRAWS = 100000 };
    struct rng rng = rng_make(1);
    int counts[N_CELLS] = {0};
    for (int i = 0; i < N_DRAWS; i++) {
        uint32_t cell = rng_below(&rng, N_CELLS);
        assert_true(cell < N_CELLS);
        counts[cell]++;
    }
    double chi2 = 0, expected = N_DRAWS / N_CELLS;
    for (int i = 0; i < N_CELLS; i++)
        chi2 += (counts[i] - expected) * (counts[i] - expected) / expected;
    assert_true(chi2 < 40);
    for (int i = 0; i < 1000; i++)
        assert_int_equal(rng_below(&rng, 1), 0);
    for (int i = 0; i < 1000; i++)
        assert_true(rng_below(&rng, 0xffffffff) < 0xffffffff);
}

static void test_rng_moments(void **state)
{
    (void)state;
    enum { N_DRAWS = 200000 };
    struct rng rng = rng_make(2);
    double sum = 0, normal_sum = 0, normal_squares = 0;
    for (int i = 0; i < N_DRAWS; i++) {
        float u = rng_uniform(&rng);
        assert_true(u >= 0 && u < 1);
        sum += u;
        float z = rng_normal(&rng);
        assert_true(isfinite(z));
        normal_sum += z;
        normal_squares += (double)z * z;
    }
    assert_true(fabs(sum / N_DRAWS - 0.5) < 0.005);
    assert_true(fabs(normal_sum / N_DRAWS) < 0.015);
    assert_true(fabs(normal_squares / N_DRAWS - 1) < 0.02);
}

static void test_random_seed_differs(void **state)
{
    (void)state;
    assert_true(random_seed_u64() != random_seed_u64());
}

/* Known answers of SipHash-2-4 with 128-bit output, as published by its authors: key 00..0f, message
 * 00..(n-1). */
static void test_siphash128_known_answers(void **state)
{
    (void)state;
    static const struct {
        size_t size;
        uint8_t expected[16];
    } cases[] = {
        {0, {0xa3, 0x81, 0x7f, 0x04, 0xba, 0x25, 0xa8, 0xe6, 0x6d, 0xf6, 0x72, 0x14, 0xc7, 0x55, 0x02, 0x93}},
        {1, {0xda, 0x87, 0xc1, 0xd8, 0x6b, 0x99, 0xaf, 0x44, 0x34, 0x76, 0x59, 0x11, 0x9b, 0x22, 0xfc, 0x45}},
        {2, {0x81, 0x77, 0x22, 0x8d, 0xa4, 0xa4, 0x5d, 0xc7, 0xfc, 0xa3, 0x8b, 0xde, 0xf6, 0x0a, 0xff, 0xe4}},
        {3, {0x9c, 0x70, 0xb6, 0x0c, 0x52, 0x67, 0xa9, 0x4e, 0x5f, 0x33, 0xb6, 0xb0, 0x29, 0x85, 0xed, 0x51}},
        {4, {0xf8, 0x81, 0x64, 0xc1, 0x2d, 0x9c, 0x8f, 0xaf, 0x7d, 0x0f, 0x6e, 0x7c, 0x7b, 0xcd, 0x55, 0x79}},
        {7, {0xa1, 0xf1, 0xeb, 0xbe, 0xd8, 0xdb, 0xc1, 0x53, 0xc0, 0xb8, 0x4a, 0xa6, 0x1f, 0xf0, 0x82, 0x39}},
        {8, {0x3b, 0x62, 0xa9, 0xba, 0x62, 0x58, 0xf5, 0x61, 0x0f, 0x83, 0xe2, 0x64, 0xf3, 0x14, 0x97, 0xb4}},
        {15,
         {0x54, 0x93, 0xe9, 0x99, 0x33, 0xb0, 0xa8, 0x11, 0x7e, 0x08, 0xec, 0x0f, 0x97, 0xcf, 0xc3, 0xd9}},
    };
    static const uint64_t key[2] = {0x0706050403020100, 0x0f0e0d0c0b0a0908};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        uint8_t message[16];
        for (uint8_t j = 0; j < sizeof message; j++)
            message[j] = j;
        struct hash128 hash = siphash128(key, message, cases[i].size);
        uint8_t bytes[16];
        memcpy(bytes, &hash.low, 8);
        memcpy(bytes + 8, &hash.high, 8);
        assert_memory_equal(bytes, cases[i].expected, sizeof bytes);
    }
}

static void test_hashes_depend_on_everything(void **state)
{
    (void)state;
    static const uint64_t key[2] = {1, 2}, other_key[2] = {1, 3};
    uint8_t data[100] = {0};
    struct hash128 base = siphash128(key, data, sizeof data);
    assert_true(hash128_equal(base, siphash128(key, data, sizeof data)));
    assert_false(hash128_equal(base, siphash128(other_key, data, sizeof data)));
    assert_false(hash128_equal(base, siphash128(key, data, sizeof data - 1)));
    uint64_t plain = hash64(data, sizeof data, 0);
    assert_true(plain != hash64(data, sizeof data, 1));
    for (size_t i = 0; i < sizeof data; i++) {
        data[i] = 1;
        assert_false(hash128_equal(base, siphash128(key, data, sizeof data)));
        assert_true(plain != hash64(data, sizeof data, 0));
        data[i] = 0;
    }
    assert_true(hash64("", 0, 0) == 0x2d06800538d394c2); /* XXH3_64bits of nothing */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_f16_round_trip_of_all_values),
        cmocka_unit_test(test_f16_rounds_to_nearest_even),
        cmocka_unit_test(test_bf16),
        cmocka_unit_test(test_e4m3),
        cmocka_unit_test(test_philox_known_answers),
        cmocka_unit_test(test_rng_is_the_block_sequence),
        cmocka_unit_test(test_rng_below_is_uniform),
        cmocka_unit_test(test_rng_moments),
        cmocka_unit_test(test_random_seed_differs),
        cmocka_unit_test(test_siphash128_known_answers),
        cmocka_unit_test(test_hashes_depend_on_everything),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
