#include <string.h>
#include "base/assert.h"
#include "base/error.h"
#include "base/utf8.h"
#include "tests/base/cmocka_base.h"

static void test_new_error(void **state)
{
    (void)state;
    err_t e = err_new(ERR_NOT_FOUND, "%s: no such file", "model.bin");
    int line = __LINE__ - 1;
    assert_int_equal(e.code, ERR_NOT_FOUND);
    assert_string_equal(e.message, "model.bin: no such file");
    assert_int_equal(e.line, line);
    assert_non_null(strstr(e.file, "test_error.c"));
}

static void test_prefix_keeps_code_and_place(void **state)
{
    (void)state;
    err_t e = err_new(ERR_DATA_LOSS, "cut short at byte %d", 12);
    err_t outer = err_prefix(e, "shard %d of %d", 2, 3);
    assert_int_equal(outer.code, ERR_DATA_LOSS);
    assert_int_equal(outer.line, e.line);
    assert_string_equal(outer.message, "shard 2 of 3: cut short at byte 12");
    assert_int_equal(err_prefix(err_ok(), "nothing").code, ERR_OK);
}

/* Every length around the limit, with characters of 1 to 4 bytes at the cut. */
static void test_long_messages_are_cut_between_characters(void **state)
{
    (void)state;
    static const char *const units[] = {"x", "\xc3\xa9", "\xe2\x82\xac", "\xf0\x9f\x90\x94"};
    for (size_t unit = 0; unit < 4; unit++) {
        for (size_t lead = 0; lead < 4; lead++) {
            char text[2 * ERR_MESSAGE_MAX] = {0};
            memset(text, '-', lead);
            size_t size = lead;
            while (size + 4 < ERR_MESSAGE_MAX + 40) {
                memcpy(text + size, units[unit], strlen(units[unit]));
                size += strlen(units[unit]);
            }
            err_t e = err_new(ERR_INTERNAL, "%s", text);
            size_t length = strlen(e.message);
            assert_true(length < ERR_MESSAGE_MAX && length > ERR_MESSAGE_MAX - 8);
            assert_string_equal(e.message + length - 3, "...");
            assert_true(utf8_valid(e.message, length));
        }
    }
}

static void test_message_of_exactly_the_limit_is_whole(void **state)
{
    (void)state;
    char text[ERR_MESSAGE_MAX + 1] = {0};
    memset(text, 'a', ERR_MESSAGE_MAX - 1);
    assert_string_equal(err_new(ERR_INTERNAL, "%s", text).message, text);
    text[ERR_MESSAGE_MAX - 1] = 'a';
    err_t cut = err_new(ERR_INTERNAL, "%s", text);
    assert_int_equal(strlen(cut.message), ERR_MESSAGE_MAX - 1);
    assert_string_equal(cut.message + ERR_MESSAGE_MAX - 4, "...");
}

/* Context and message of every pair of lengths whose sum is near the limit. */
static void test_prefix_is_cut_too(void **state)
{
    (void)state;
    for (size_t total = ERR_MESSAGE_MAX - 6; total < ERR_MESSAGE_MAX + 6; total++) {
        for (size_t context = 0; context < total - 2; context += 13) {
            char context_text[2 * ERR_MESSAGE_MAX] = {0}, message[2 * ERR_MESSAGE_MAX] = {0};
            memset(context_text, 'c', context);
            memset(message, 'm', total - 2 - context);
            err_t inner = err_new(ERR_INTERNAL, "%s", message);
            err_t e = err_prefix(inner, "%s", context_text);
            size_t expected = total < ERR_MESSAGE_MAX ? total : ERR_MESSAGE_MAX - 1;
            assert_int_equal(strlen(e.message), expected);
            if (total >= ERR_MESSAGE_MAX)
                assert_string_equal(e.message + expected - 3, "...");
        }
    }
}

static err_t fail_when(bool fail)
{
    return fail ? err_new(ERR_IO, "asked to") : err_ok();
}

static err_t forward(bool fail, int *reached)
{
    TRY(fail_when(fail));
    (*reached)++;
    return err_ok();
}

static err_t forward_goto(bool fail, int *cleaned)
{
    err_t e;
    TRY_GOTO(e, fail_when(fail), out);
    TRY_GOTO(e, fail_when(false), out);
out:
    (*cleaned)++;
    return e;
}

static void test_try_macros(void **state)
{
    (void)state;
    int reached = 0, cleaned = 0;
    assert_error(ERR_OK, forward(false, &reached));
    assert_error(ERR_IO, forward(true, &reached));
    assert_int_equal(reached, 1);
    assert_error(ERR_OK, forward_goto(false, &cleaned));
    assert_error(ERR_IO, forward_goto(true, &cleaned));
    assert_int_equal(cleaned, 2);
}

static void test_code_names(void **state)
{
    (void)state;
    assert_string_equal(err_code_name(ERR_OK), "OK");
    assert_string_equal(err_code_name(ERR_RESOURCE_EXHAUSTED), "RESOURCE_EXHAUSTED");
    for (int code = ERR_OK; code <= ERR_INTERNAL; code++)
        assert_string_not_equal(err_code_name((enum err_code)code), "UNKNOWN");
    assert_string_equal(err_code_name((enum err_code)(ERR_INTERNAL + 1)), "UNKNOWN");
}

static void fail_an_assertion(void)
{
    int zero = 0;
    ASSERT(zero == 1);
}

static void test_assert_aborts(void **state)
{
    (void)state;
    int one = 1;
    ASSERT(one == 1);
    assert_aborts(fail_an_assertion);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_new_error),
        cmocka_unit_test(test_prefix_keeps_code_and_place),
        cmocka_unit_test(test_long_messages_are_cut_between_characters),
        cmocka_unit_test(test_message_of_exactly_the_limit_is_whole),
        cmocka_unit_test(test_prefix_is_cut_too),
        cmocka_unit_test(test_try_macros),
        cmocka_unit_test(test_code_names),
        cmocka_unit_test(test_assert_aborts),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
