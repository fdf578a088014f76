/* Streams in every way of cutting them. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include "base/alloc.h"
#include "router/providers/sse_reader.h"

/* "name|data;" of each event, by pieces of `piece` bytes. */
static char *read_all(const char *stream, size_t size, size_t piece, size_t event_bytes_max, err_t *error)
{
    struct sse_reader reader = {.event_bytes_max = event_bytes_max};
    struct buffer events = {.limit_bytes = 1 << 20};
    struct sse_event event;
    bool found = false;
    assert_true(buffer_append_text(&events, ""));
    *error = err_ok();
    for (size_t at = 0; at < size && error->code == ERR_OK;) {
        size_t n = size - at < piece ? size - at : piece, consumed = 0;
        char *copy =
            mem_strndup(stream + at, n); /* of the exact size, so that reading past the end is seen */
        *error = sse_reader_next(&reader, copy, n, &consumed, &event, &found);
        if (error->code == ERR_OK) {
            assert_true(consumed <= n && (found || consumed == n));
            if (found)
                assert_true(buffer_append_format(&events, "%s|%s;", event.name, event.data));
            at += consumed;
        }
        mem_free(copy);
    }
    if (error->code == ERR_OK)
        *error = sse_reader_end(&reader, &event, &found);
    if (error->code == ERR_OK && found)
        assert_true(buffer_append_format(&events, "END %s|%s;", event.name, event.data));
    sse_reader_free(&reader);
    return events.data;
}

static void assert_events(const char *stream, const char *expected)
{
    size_t size = strlen(stream);
    for (size_t piece = 1; piece <= size; piece++) {
        err_t e;
        char *events = read_all(stream, size, piece, 1024, &e);
        assert_int_equal(e.code, ERR_OK);
        assert_string_equal(events, expected);
        mem_free(events);
    }
}

static void events_are_found_whatever_ends_a_line(void **state)
{
    (void)state;
    assert_events("data: a\n\ndata: b\n\n", "|a;|b;");
    assert_events("data: a\r\n\r\ndata: b\r\n\r\n", "|a;|b;");
    assert_events("data: a\r\rdata: b\r\r", "|a;|b;");
    assert_events("data: a\r\n\ndata: b\n\r\n", "|a;|b;");
    assert_events("data: a\n\r\ndata: b\r\n\r", "|a;|b;");
}

static void names_and_lines_are_as_the_standard_has_them(void **state)
{
    (void)state;
    assert_events("event: ping\ndata: {}\n\n", "ping|{};");
    assert_events("event:ping\ndata:{}\n\n", "ping|{};");
    assert_events("data: a\ndata:  b \ndata\n\n", "|a\n b \n;");
    assert_events("data\n\n", "|;");
    assert_events("data:\n\n", "|;");
    assert_events("event: lost\n\ndata: a\n\n", "|a;");
    assert_events("id: 7\nretry: 10\nnothing: else\ndata: a\n\n", "|a;");
    assert_events("event: first\nevent: second\ndata: a\n\n", "second|a;");
    assert_events("\n\n\ndata: a\n\n\n\n", "|a;");
}

static void comments_and_a_mark_are_no_data(void **state)
{
    (void)state;
    assert_events(": OPENROUTER PROCESSING\n\ndata: a\n\n", "|a;");
    assert_events("data: a\n: in between\ndata: b\n\n", "|a\nb;");
    assert_events("\xef\xbb\xbf"
                  "data: a\n\n",
                  "|a;");
    /* A mark in the middle is part of a name that nobody knows. */
    assert_events("\n\xef\xbb\xbf"
                  "data: a\n\n",
                  "");
    assert_events("data: \xc3\xa4\xe2\x82\xac\n\n", "|\xc3\xa4\xe2\x82\xac;");
}

static void an_end_within_an_event_gives_what_was_there(void **state)
{
    (void)state;
    assert_events("data: a\n\ndata: [DONE]", "|a;END |[DONE];");
    assert_events("data: a\n\ndata: b\n", "|a;END |b;");
    assert_events("event: x\ndata: b\nda", "END x|b;");
    assert_events("data: a\n\nevent: x\n", "|a;");
    assert_events("", "");
}

static void a_long_name_reads_as_none(void **state)
{
    (void)state;
    char stream[128], name[80];
    memset(name, 'n', sizeof name - 1);
    name[sizeof name - 1] = '\0';
    snprintf(stream, sizeof stream, "event: %s\ndata: a\n\n", name);
    assert_events(stream, "|a;");
}

static void what_is_too_long_is_refused(void **state)
{
    (void)state;
    const char *streams[] = {
        "data: 0123456789\n\n",            /* the line */
        ": 0123456789abcdef\ndata: a\n\n", /* a comment's line too */
        "data: 0123\ndata: 4567\ndata: 89ab\n\n",
        "data: 0123456789",
    };
    for (size_t i = 0; i < sizeof streams / sizeof *streams; i++) {
        for (size_t piece = 1; piece <= strlen(streams[i]); piece++) {
            err_t e;
            char *events = read_all(streams[i], strlen(streams[i]), piece, 12, &e);
            assert_int_equal(e.code, ERR_RESOURCE_EXHAUSTED);
            assert_string_equal(events, "");
            mem_free(events);
        }
    }
    err_t e;
    char *events = read_all("data: 012345\n\n", 14, 14, 12, &e);
    assert_int_equal(e.code, ERR_OK);
    assert_string_equal(events, "|012345;");
    mem_free(events);
}

static void memory_that_fails_is_an_error(void **state)
{
    (void)state;
    for (int nth = 0; nth < 2; nth++) {
        struct sse_reader reader = {.event_bytes_max = 1024};
        struct sse_event event;
        bool found;
        size_t consumed;
        mem_fail_nth(nth);
        err_t e = sse_reader_next(&reader, "da", 2, &consumed, &event, &found);
        if (e.code == ERR_OK)
            e = sse_reader_next(&reader, "ta: a\n\n", 7, &consumed, &event, &found);
        mem_fail_nth(-1);
        assert_int_equal(e.code, ERR_RESOURCE_EXHAUSTED);
        sse_reader_free(&reader);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(events_are_found_whatever_ends_a_line),
        cmocka_unit_test(names_and_lines_are_as_the_standard_has_them),
        cmocka_unit_test(comments_and_a_mark_are_no_data),
        cmocka_unit_test(an_end_within_an_event_gives_what_was_there),
        cmocka_unit_test(a_long_name_reads_as_none),
        cmocka_unit_test(what_is_too_long_is_refused),
        cmocka_unit_test(memory_that_fails_is_an_error),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
