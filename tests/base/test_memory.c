/* alloc, arena, buffer. */
#include <string.h>
#include "base/alloc.h"
#include "base/arena.h"
#include "base/buffer.h"
#include "base/checked.h"
#include "base/program_memory.h"
#include "base/utf8.h"
#include "tests/base/cmocka_base.h"

static void test_alloc_is_zeroed(void **state)
{
    (void)state;
    for (int round = 0; round < 4; round++) {
        unsigned char *block = mem_alloc(1000);
        assert_non_null(block);
        for (int i = 0; i < 1000; i++)
            assert_int_equal(block[i], 0);
        memset(block, 0xff, 1000);
        mem_free(block);
    }
}

static void test_alloc_array_refuses_overflow(void **state)
{
    (void)state;
    assert_null(mem_alloc_array(SIZE_MAX / 2, 3));
    void *empty = mem_alloc_array(0, 8);
    assert_non_null(empty);
    mem_free(empty);
}

static void test_strings(void **state)
{
    (void)state;
    char *whole = mem_strdup("bantam");
    char *part = mem_strndup("a\0bcd", 3);
    assert_string_equal(whole, "bantam");
    assert_memory_equal(part, "a\0b", 4);
    assert_null(mem_strndup("x", SIZE_MAX));
    mem_free(whole);
    mem_free(part);
    mem_free(NULL);
}

static void test_alloc_failure_hook(void **state)
{
    (void)state;
    uint64_t before = mem_alloc_count();
    mem_fail_nth(1);
    void *first = mem_alloc(8);
    void *second = mem_alloc(8);
    void *third = mem_alloc(8);
    assert_non_null(first);
    assert_null(second);
    assert_non_null(third);
    mem_fail_nth(0);
    mem_fail_nth(-1);
    void *fourth = mem_alloc(8);
    assert_non_null(fourth);
    assert_int_equal(mem_alloc_count() - before, 4);
    mem_free(first);
    mem_free(third);
    mem_free(fourth);
}

static void test_realloc_failure_keeps_block(void **state)
{
    (void)state;
    char *block = mem_strdup("kept");
    mem_fail_nth(0);
    assert_null(mem_realloc(block, 1 << 20));
    assert_string_equal(block, "kept");
    block = mem_realloc(block, 1 << 20);
    assert_string_equal(block, "kept");
    mem_free(block);
}

static void test_checked_arithmetic(void **state)
{
    (void)state;
    size_t out;
    assert_true(checked_mul(1u << 16, 1u << 16, &out));
    assert_int_equal(out, 1ull << 32);
    assert_false(checked_mul(SIZE_MAX, 2, &out));
    assert_true(checked_add(SIZE_MAX - 1, 1, &out));
    assert_false(checked_add(SIZE_MAX, 1, &out));
    assert_int_equal(round_up(65, 64), 128);
    assert_int_equal(round_up(64, 64), 64);
    assert_int_equal(div_up(65, 64), 2);
}

static void test_arena_aligns_and_zeroes(void **state)
{
    (void)state;
    struct arena *arena;
    assert_error(ERR_OK, arena_create(1 << 20, &arena));
    assert_int_equal(arena_capacity_bytes(arena), 1 << 20);
    unsigned char *previous_end = NULL;
    for (size_t size = 0; size < 300; size += 7) {
        unsigned char *block = arena_alloc(arena, size);
        assert_int_equal((uintptr_t)block % ARENA_ALIGN, 0);
        assert_true(block >= previous_end);
        for (size_t i = 0; i < size; i++)
            assert_int_equal(block[i], 0);
        memset(block, 0xaa, size);
        previous_end = block + size;
    }
    arena_seal(arena);
    assert_true(arena_used_bytes(arena) <= 1 << 20);
    arena_destroy(arena);
    arena_destroy(NULL);
}

/* The last allocation may fill the capacity to the byte, though the next one would not start aligned. */
static void test_arena_exact_capacity(void **state)
{
    (void)state;
    struct arena *arena;
    assert_error(ERR_OK, arena_create(ARENA_ALIGN + 5, &arena));
    assert_non_null(arena_alloc(arena, 1));
    assert_non_null(arena_alloc(arena, 5));
    assert_int_equal(arena_used_bytes(arena), ARENA_ALIGN + 5);
    arena_destroy(arena);
}

static void test_arena_refuses_impossible_size(void **state)
{
    (void)state;
    struct arena *arena;
    assert_error(ERR_RESOURCE_EXHAUSTED, arena_create(SIZE_MAX, &arena));
    assert_null(arena);
    assert_error(ERR_RESOURCE_EXHAUSTED, arena_create((size_t)1 << 62, &arena));
    mem_fail_nth(0);
    assert_error(ERR_RESOURCE_EXHAUSTED, arena_create(4096, &arena));
    assert_null(arena);
}

static void use_sealed_arena(void)
{
    struct arena *arena;
    if (arena_create(4096, &arena).code == ERR_OK) {
        arena_seal(arena);
        arena_alloc(arena, 1);
    }
}

static void overfill_arena(void)
{
    struct arena *arena;
    if (arena_create(4096, &arena).code == ERR_OK) {
        arena_alloc(arena, 4000);
        arena_alloc(arena, 100);
    }
}

static void test_arena_misuse_aborts(void **state)
{
    (void)state;
    assert_aborts(use_sealed_arena);
    assert_aborts(overfill_arena);
}

static void test_buffer_grows_to_its_limit(void **state)
{
    (void)state;
    struct buffer b = {.limit_bytes = 1000};
    for (int i = 0; i < 1000; i++) {
        assert_true(buffer_append(&b, "x", 1));
        assert_int_equal(strlen(b.data), i + 1);
    }
    assert_false(buffer_append(&b, "x", 1));
    assert_false(buffer_append_format(&b, "%d", 1));
    assert_true(buffer_append(&b, "", 0));
    assert_int_equal(b.size, 1000);
    assert_true(b.capacity <= 1001);
    buffer_clear(&b);
    assert_string_equal(b.data, "");
    assert_true(buffer_append_format(&b, "%s-%d", "abc", 42));
    assert_true(buffer_append_text(&b, "!"));
    assert_string_equal(b.data, "abc-42!");
    buffer_free(&b);
    assert_null(b.data);
}

static void test_buffer_memory_failure_appends_nothing(void **state)
{
    (void)state;
    struct buffer b = {.limit_bytes = 1 << 20};
    assert_true(buffer_append_text(&b, "start"));
    char big[500];
    memset(big, 'y', sizeof big);
    mem_fail_nth(0);
    assert_false(buffer_append(&b, big, sizeof big));
    assert_string_equal(b.data, "start");
    assert_false(buffer_append(&b, big, SIZE_MAX));
    assert_true(buffer_append(&b, big, sizeof big));
    assert_int_equal(b.size, 505);
    buffer_free(&b);
}

static void check_json(const char *text, size_t size, const char *expected)
{
    struct buffer b = {.limit_bytes = 1000};
    assert_true(buffer_append_json_string(&b, text, size));
    assert_string_equal(b.data, expected);
    assert_true(utf8_valid(b.data, b.size));
    buffer_free(&b);
}

static void test_buffer_json_string(void **state)
{
    (void)state;
    check_json("", 0, "\"\"");
    check_json("a\"b\\c/d", 7, "\"a\\\"b\\\\c/d\"");
    check_json("\b\f\n\r\t\x01\x1f\x7f", 8, "\"\\b\\f\\n\\r\\t\\u0001\\u001f\\u007f\"");
    check_json("a\0b", 3, "\"a\\u0000b\"");
    check_json("\xc3\xa9\xf0\x9f\x90\x94", 6, "\"\xc3\xa9\xf0\x9f\x90\x94\"");
    check_json("\xff\xc3", 2, "\"\xef\xbf\xbd\xef\xbf\xbd\"");
}

/* It holds the program's files whole, and grows with what is touched. */
static void test_program_memory(void **state)
{
    (void)state;
    enum { TOUCHED_BYTES = 32 << 20, MUCH_LESS_BYTES = 24 << 20 };
    uint64_t before = program_memory_bytes();
    assert_true(before > 1 << 20);
    char *block = mem_alloc(TOUCHED_BYTES);
    assert_non_null(block);
    memset(block, 1, TOUCHED_BYTES);
    assert_true(program_memory_bytes() > before + MUCH_LESS_BYTES);
    mem_free(block);
    assert_true(program_peak_bytes() > TOUCHED_BYTES); /* it stays */
}

static void test_buffer_json_string_is_all_or_nothing(void **state)
{
    (void)state;
    /* 5 plain characters and 2 quotes fit in 7 bytes and in nothing less. */
    for (size_t limit = 0; limit <= 8; limit++) {
        struct buffer b = {.limit_bytes = limit};
        bool fits = buffer_append_json_string(&b, "hello", 5);
        assert_int_equal(fits, limit >= 7);
        assert_int_equal(b.size, limit >= 7 ? 7 : 0);
        assert_true(b.data == NULL || strlen(b.data) == b.size);
        buffer_free(&b);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_alloc_is_zeroed),
        cmocka_unit_test(test_alloc_array_refuses_overflow),
        cmocka_unit_test(test_strings),
        cmocka_unit_test(test_alloc_failure_hook),
        cmocka_unit_test(test_realloc_failure_keeps_block),
        cmocka_unit_test(test_checked_arithmetic),
        cmocka_unit_test(test_arena_aligns_and_zeroes),
        cmocka_unit_test(test_arena_exact_capacity),
        cmocka_unit_test(test_arena_refuses_impossible_size),
        cmocka_unit_test(test_arena_misuse_aborts),
        cmocka_unit_test(test_buffer_grows_to_its_limit),
        cmocka_unit_test(test_buffer_memory_failure_appends_nothing),
        cmocka_unit_test(test_buffer_json_string),
        cmocka_unit_test(test_buffer_json_string_is_all_or_nothing),
        cmocka_unit_test(test_program_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
