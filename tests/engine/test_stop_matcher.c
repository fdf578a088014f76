/* The stop matcher against a search in the whole text: every text over two letters, every way to cut it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include "base/alloc.h"
#include "engine/stop_matcher.h"

enum { TEXT_MAX = 8, SETS = 14, STOPS_MAX = 4 };

static const char *const STOP_SETS[SETS][STOPS_MAX] = {
    {"a"},
    {"ab"},
    {"aab"},
    {"aba"},
    {"abab"},
    {"aaaa"},
    {"b", "abb"},
    {"abb", "b"},
    {"ba", "aba", "baab"},
    {"aa", "aaa", "aaaa"},
    {"aaaa", "aaa", "aa"},
    {"abba", "bb", "ba"},
    {"bbbbbbb", "abaabaab"},
    {"bab", "abaaba", "bbbab", "aaab"},
};

static size_t count_stops(const char *const *stops)
{
    size_t n = 0;
    while (n < STOPS_MAX && stops[n])
        n++;
    return n;
}

/* The longest stop string that ends at `end`. */
static const char *stop_at(const char *const *stops, size_t n_stops, const char *text, size_t end)
{
    const char *longest = NULL;
    for (size_t i = 0; i < n_stops; i++) {
        size_t size = strlen(stops[i]);
        bool here = size <= end && memcmp(text + end - size, stops[i], size) == 0;
        if (here && (!longest || size > strlen(longest)))
            longest = stops[i];
    }
    return longest;
}

/* How much of text[0, end) may still become part of a stop string. */
static size_t open_end(const char *const *stops, size_t n_stops, const char *text, size_t end)
{
    size_t longest = 0;
    for (size_t i = 0; i < n_stops; i++)
        for (size_t size = 1; size < strlen(stops[i]) && size <= end; size++)
            if (size > longest && memcmp(text + end - size, stops[i], size) == 0)
                longest = size;
    return longest;
}

/* One text, cut where a bit of `cuts` is set; the first n_blind bytes' pieces are pushed without looking. */
static void check(const char *const *stops, size_t n_stops, const char *text, size_t size, unsigned cuts,
                  size_t n_blind, bool include_stop)
{
    struct stop_matcher matcher;
    stop_matcher_init(&matcher, stops, n_stops);
    struct buffer out = {.limit_bytes = 100};
    const char *matched = NULL, *right = NULL;
    size_t begin = 0;
    for (size_t end = 1; end <= size && !matched; end++) {
        if (end < size && !(cuts >> (end - 1) & 1))
            continue;
        bool blind = end <= n_blind;
        err_t e = stop_matcher_push(&matcher, text + begin, end - begin, include_stop, &out,
                                    blind ? NULL : &matched);
        assert_int_equal(e.code, ERR_OK);
        size_t match_end = begin;
        while (!blind && !right && match_end < end)
            right = stop_at(stops, n_stops, text, ++match_end);
        assert_ptr_equal(matched, right);
        size_t released = right ? match_end - (include_stop ? 0 : strlen(right))
                                : end - open_end(stops, n_stops, text, end);
        assert_int_equal(out.size, released);
        begin = end;
    }
    if (!matched) {
        assert_int_equal(stop_matcher_flush(&matcher, &out).code, ERR_OK);
        assert_int_equal(out.size, size);
    }
    assert_int_equal(stop_matcher_flush(&matcher, &out).code, ERR_OK);
    assert_memory_equal(out.data ? out.data : "", text, out.size);
    buffer_free(&out);
    stop_matcher_free(&matcher);
}

static void for_every_text(size_t size, void (*fn)(const char *const *stops, size_t n_stops, const char *text,
                                                   size_t size))
{
    for (unsigned bits = 0; bits < 1u << size; bits++) {
        char text[TEXT_MAX + 1] = {0};
        for (size_t i = 0; i < size; i++)
            text[i] = bits >> i & 1 ? 'b' : 'a';
        for (size_t set = 0; set < SETS; set++)
            fn(STOP_SETS[set], count_stops(STOP_SETS[set]), text, size);
    }
}

static void check_every_cut(const char *const *stops, size_t n_stops, const char *text, size_t size)
{
    for (unsigned cuts = 0; cuts < 1u << (size - 1); cuts++)
        check(stops, n_stops, text, size, cuts, 0, cuts % 2);
}

static void test_every_cut(void **state)
{
    (void)state;
    for (size_t size = 1; size <= TEXT_MAX; size++)
        for_every_text(size, check_every_cut);
}

static void check_every_blind_start(const char *const *stops, size_t n_stops, const char *text, size_t size)
{
    for (unsigned cuts = 0; cuts < 1u << (size - 1); cuts++)
        for (size_t n_blind = 1; n_blind <= size; n_blind++)
            check(stops, n_stops, text, size, cuts, n_blind, cuts % 2);
}

/* min_tokens: a stop string that ends in the first tokens does not count, and stays in the text. */
static void test_blind_start(void **state)
{
    (void)state;
    for_every_text(6, check_every_blind_start);
}

static void test_without_stops(void **state)
{
    (void)state;
    struct stop_matcher matcher;
    stop_matcher_init(&matcher, NULL, 0);
    struct buffer out = {.limit_bytes = 100};
    const char *matched = "not NULL";
    assert_int_equal(stop_matcher_push(&matcher, "text", 4, false, &out, &matched).code, ERR_OK);
    assert_null(matched);
    assert_int_equal(stop_matcher_push(&matcher, NULL, 0, false, &out, &matched).code, ERR_OK);
    assert_int_equal(stop_matcher_flush(&matcher, &out).code, ERR_OK);
    assert_string_equal(out.data, "text");
    buffer_free(&out);
    stop_matcher_free(&matcher);
}

static void test_empty_pieces(void **state)
{
    (void)state;
    const char *const stops[] = {"END"};
    struct stop_matcher matcher;
    stop_matcher_init(&matcher, stops, 1);
    struct buffer out = {.limit_bytes = 100};
    const char *matched;
    const char *const pieces[] = {"", "x", "", "E", "", "ND", ""};
    for (size_t i = 0; i < 6; i++) {
        assert_int_equal(
            stop_matcher_push(&matcher, pieces[i], strlen(pieces[i]), false, &out, &matched).code, ERR_OK);
        assert_ptr_equal(matched, i == 5 ? stops[0] : NULL);
    }
    assert_string_equal(out.data, "x");
    buffer_free(&out);
    stop_matcher_free(&matcher);
}

static void test_limits(void **state)
{
    (void)state;
    const char *const stops[] = {"0123456789"};
    struct stop_matcher matcher;
    stop_matcher_init(&matcher, stops, 1);
    struct buffer out = {.limit_bytes = 8};
    const char *matched;
    assert_int_equal(stop_matcher_push(&matcher, "abcd", 4, false, &out, &matched).code, ERR_OK);
    assert_int_equal(stop_matcher_push(&matcher, "efghi", 5, false, &out, &matched).code,
                     ERR_RESOURCE_EXHAUSTED);
    stop_matcher_free(&matcher);
    stop_matcher_init(&matcher, stops, 1);
    mem_fail_nth(0);
    assert_int_equal(stop_matcher_push(&matcher, "0", 1, false, &out, &matched).code, ERR_RESOURCE_EXHAUSTED);
    mem_fail_nth(-1);
    stop_matcher_free(&matcher);
    buffer_free(&out);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_cut),     cmocka_unit_test(test_blind_start),
        cmocka_unit_test(test_without_stops), cmocka_unit_test(test_empty_pieces),
        cmocka_unit_test(test_limits),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
