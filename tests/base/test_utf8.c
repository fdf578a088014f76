#include <string.h>
#include "base/error.h"
#include "base/utf8.h"
#include "tests/base/cmocka_base.h"

static bool is_scalar(uint32_t c)
{
    return c <= 0x10ffff && (c < 0xd800 || c > 0xdfff);
}

static void test_every_scalar_round_trips(void **state)
{
    (void)state;
    for (uint32_t c = 0; c <= 0x10ffff; c++) {
        if (!is_scalar(c))
            continue;
        char text[UTF8_MAX_BYTES];
        size_t length = utf8_encode(c, text);
        size_t expected = c < 0x80 ? 1 : c < 0x800 ? 2 : c < 0x10000 ? 3 : 4;
        uint32_t back = 0;
        if (length != expected || utf8_decode(text, length, &back) != length || back != c)
            fail_msg("U+%04X does not round-trip", c);
        for (size_t cut = 0; cut < length; cut++) {
            if (utf8_decode(text, cut, &back) != 0)
                fail_msg("U+%04X cut to %zu bytes is accepted", c, cut);
            if (utf8_complete_prefix(text, cut) != 0)
                fail_msg("U+%04X cut to %zu bytes is not held back", c, cut);
        }
        if (utf8_complete_prefix(text, length) != length)
            fail_msg("U+%04X is held back", c);
    }
}

/* A second decoder, by the definition and not by tables: shape of the bits, shortest form, scalar value. */
static size_t decode_slowly(const uint8_t *bytes, size_t size)
{
    size_t length = bytes[0] < 0x80             ? 1
                    : (bytes[0] & 0xe0) == 0xc0 ? 2
                    : (bytes[0] & 0xf0) == 0xe0 ? 3
                    : (bytes[0] & 0xf8) == 0xf0 ? 4
                                                : 0;
    if (length == 0 || length > size)
        return 0;
    uint32_t value = length == 1 ? bytes[0] : bytes[0] & (0x7fu >> length);
    for (size_t i = 1; i < length; i++) {
        if ((bytes[i] & 0xc0) != 0x80)
            return 0;
        value = value << 6 | (bytes[i] & 0x3fu);
    }
    static const uint32_t least[] = {0, 0, 0x80, 0x800, 0x10000};
    return value >= least[length] && is_scalar(value) ? length : 0;
}

/* All strings of one to three bytes, and of four bytes with a lead of f0..f7. */
static void test_decode_agrees_with_the_definition(void **state)
{
    (void)state;
    for (uint32_t first = 0; first < 0x100; first++) {
        for (uint32_t rest = 0; rest < 0x10000; rest++) {
            uint8_t bytes[4] = {(uint8_t)first, (uint8_t)(rest >> 8), (uint8_t)rest, 0x80};
            size_t size = first >= 0xf0 && first <= 0xf7 ? 4 : 3;
            uint32_t c;
            if (utf8_decode((const char *)bytes, size, &c) != decode_slowly(bytes, size))
                fail_msg("%02x %02x %02x %02x", bytes[0], bytes[1], bytes[2], bytes[3]);
        }
    }
    for (uint32_t last = 0; last < 0x100; last++) {
        uint8_t bytes[4] = {0xf0, 0x9f, 0x90, (uint8_t)last};
        uint32_t c;
        assert_int_equal(utf8_decode((const char *)bytes, 4, &c), (last & 0xc0) == 0x80 ? 4 : 0);
    }
}

/* Could more bytes make the tail a character? Tried with every completion that matters. */
static bool can_complete(const uint8_t *tail, size_t size)
{
    for (uint32_t next = 0x80; next < 0xc0; next++) {
        uint8_t bytes[8];
        memcpy(bytes, tail, size);
        bytes[size] = (uint8_t)next;
        memset(bytes + size + 1, 0x80, 3);
        if (decode_slowly(bytes, size + 4) > size)
            return true;
    }
    return false;
}

/* One ASCII byte stands for all. */
static bool is_telling(uint8_t byte)
{
    return byte >= 0x80 || byte == 'A';
}

/* All strings of three telling bytes: held back are exactly the shortest tails that could still become a
 * character. */
static void test_complete_prefix_of_all_short_strings(void **state)
{
    (void)state;
    for (uint32_t value = 0; value < 0x1000000; value++) {
        uint8_t bytes[3] = {(uint8_t)(value >> 16), (uint8_t)(value >> 8), (uint8_t)value};
        if (!is_telling(bytes[0]) || !is_telling(bytes[1]) || !is_telling(bytes[2]))
            continue;
        size_t expected = 3;
        for (size_t back = 1; back <= 3; back++) {
            if ((bytes[3 - back] & 0xc0) != 0x80) {
                expected = can_complete(bytes + 3 - back, back) ? 3 - back : 3;
                break;
            }
        }
        if (utf8_complete_prefix((const char *)bytes, 3) != expected)
            fail_msg("%02x %02x %02x", bytes[0], bytes[1], bytes[2]);
    }
}

static void test_complete_prefix_of_long_text(void **state)
{
    (void)state;
    assert_int_equal(utf8_complete_prefix("", 0), 0);
    assert_int_equal(utf8_complete_prefix("abc", 3), 3);
    assert_int_equal(utf8_complete_prefix("ab\xf0\x9f\x90", 5), 2);
    assert_int_equal(utf8_complete_prefix("ab\xf0\x9f\x90\x94", 6), 6);
    assert_int_equal(utf8_complete_prefix("ab\x80\x80\x80\x80", 6), 6);
    assert_int_equal(utf8_complete_prefix("ab\xed\xa0", 4), 4); /* a surrogate's start: never a character */
    assert_int_equal(utf8_complete_prefix("\xf0\x9f\xe2", 3), 2);
}

static void test_valid(void **state)
{
    (void)state;
    assert_true(utf8_valid("", 0));
    assert_true(utf8_valid("h\xc3\xa9llo \xe2\x82\xac \xf0\x9f\x90\x94", 15));
    assert_false(utf8_valid("abc\xc3", 4));
    assert_false(utf8_valid("\xc0\x80", 2));
    assert_false(utf8_valid("\xf4\x90\x80\x80", 4));
    assert_true(utf8_valid("a\0b", 3));
}

static void encode_surrogate(void)
{
    char out[UTF8_MAX_BYTES];
    utf8_encode(0xd800, out);
}

static void test_encoding_a_surrogate_aborts(void **state)
{
    (void)state;
    assert_aborts(encode_surrogate);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_scalar_round_trips),
        cmocka_unit_test(test_decode_agrees_with_the_definition),
        cmocka_unit_test(test_complete_prefix_of_all_short_strings),
        cmocka_unit_test(test_complete_prefix_of_long_text),
        cmocka_unit_test(test_valid),
        cmocka_unit_test(test_encoding_a_surrogate_aborts),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
