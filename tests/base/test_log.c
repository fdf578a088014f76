#include <fcntl.h>
#include <math.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include "base/error.h"
#include "base/log.h"
#include "base/utf8.h"
#include "tests/base/cmocka_base.h"

enum { SEEN_BYTES = 1 << 20, N_THREADS = 4, N_LINES = 200 };

/* stderr goes into a pipe while a test runs. */
struct capture {
    int saved, reader;
    char *seen; /* NUL-terminated */
};

static struct capture capture;

static int begin_capture(void **state)
{
    (void)state;
    int ends[2];
    if (pipe2(ends, O_CLOEXEC) != 0 || fcntl(ends[0], F_SETFL, O_NONBLOCK) != 0)
        return -1;
    capture.saved = dup(STDERR_FILENO);
    capture.reader = ends[0];
    capture.seen = calloc(1, SEEN_BYTES);
    bool redirected = dup2(ends[1], STDERR_FILENO) >= 0;
    close(ends[1]);
    return redirected && capture.seen != NULL ? 0 : -1;
}

static int end_capture(void **state)
{
    (void)state;
    dup2(capture.saved, STDERR_FILENO);
    close(capture.saved);
    close(capture.reader);
    free(capture.seen);
    return 0;
}

/* What was written since the last call. */
static const char *take_seen(void)
{
    size_t size = 0;
    ssize_t got;
    while ((got = read(capture.reader, capture.seen + size, SEEN_BYTES - 1 - size)) > 0)
        size += (size_t)got;
    capture.seen[size] = '\0';
    return capture.seen;
}

static void test_json_line(void **state)
{
    (void)state;
    log_init(LOG_INFO, LOG_FORMAT_JSON);
    log_info("engine", "took %d \"ms\"\nand\x1b[31m", 12);
    const char *line = take_seen();
    assert_int_equal(strncmp(line, "{\"ts\":\"2", 8), 0);
    assert_non_null(strstr(line, "Z\",\"level\":\"info\",\"area\":\"engine\","
                                 "\"msg\":\"took 12 \\\"ms\\\"\\nand\\u001b[31m\"}\n"));
    assert_ptr_equal(strchr(line, '\n'), line + strlen(line) - 1);
}

static void test_text_line(void **state)
{
    (void)state;
    log_init(LOG_INFO, LOG_FORMAT_TEXT);
    log_warn("server", "path \"a\\b\" line\nbreak \xc3\xa9 \xff");
    const char *line = take_seen();
    assert_non_null(strstr(line, " warn  server: path \"a\\b\" line\\nbreak \xc3\xa9 \xef\xbf\xbd\n"));
}

static void test_auto_is_json_without_a_terminal(void **state)
{
    (void)state;
    log_init(LOG_INFO, LOG_FORMAT_AUTO);
    log_error("x", "y");
    assert_int_equal(take_seen()[0], '{');
}

static void test_levels(void **state)
{
    (void)state;
    for (int level = LOG_ERROR; level <= LOG_DEBUG; level++) {
        log_init((enum log_level)level, LOG_FORMAT_TEXT);
        log_error("a", "-");
        log_warn("a", "-");
        log_info("a", "-");
        log_debug("a", "-");
        int n_lines = 0;
        for (const char *c = take_seen(); *c != '\0'; c++)
            n_lines += *c == '\n';
        assert_int_equal(n_lines, level + 1);
    }
    enum log_level parsed;
    assert_true(log_level_parse("debug", &parsed));
    assert_int_equal(parsed, LOG_DEBUG);
    assert_true(log_level_parse("error", &parsed));
    assert_int_equal(parsed, LOG_ERROR);
    assert_false(log_level_parse("loud", &parsed));
    assert_false(log_level_parse("", &parsed));
}

static void test_fields(void **state)
{
    (void)state;
    const struct log_field fields[] = {
        {"id", "a\"b\n", 0}, {"tenant", NULL, NAN}, {"n", NULL, 12}, {"ms", NULL, 1.23456}};
    log_init(LOG_DEBUG, LOG_FORMAT_JSON);
    log_line_fields(LOG_DEBUG, "request", "ended", fields, 4);
    assert_non_null(strstr(take_seen(), "\"level\":\"debug\",\"area\":\"request\",\"msg\":\"ended\","
                                        "\"id\":\"a\\\"b\\n\",\"tenant\":null,\"n\":12,\"ms\":1.235}\n"));
    log_init(LOG_DEBUG, LOG_FORMAT_TEXT);
    log_line_fields(LOG_DEBUG, "request", "ended", fields, 4);
    assert_non_null(strstr(take_seen(), " debug request: ended id=\"a\\\"b\\n\" tenant=- n=12 ms=1.235\n"));
    log_init(LOG_INFO, LOG_FORMAT_JSON);
    assert_false(log_is_on(LOG_DEBUG));
    log_line_fields(LOG_DEBUG, "request", "ended", fields, 4);
    assert_string_equal(take_seen(), "");
    /* A text that does not fit costs its field, not the line. */
    char large[LOG_LINE_MAX];
    memset(large, 'x', sizeof large - 1);
    large[sizeof large - 1] = '\0';
    const struct log_field too_large[] = {{"id", large, 0}, {"n", NULL, 7}};
    log_line_fields(LOG_INFO, "request", "ended", too_large, 2);
    assert_non_null(strstr(take_seen(), "\"msg\":\"ended\",\"n\":7}\n"));
}

/* What a client calls its request cannot pass for further fields. */
static void test_text_fields_are_quoted(void **state)
{
    (void)state;
    static const struct {
        const char *value, *written;
    } cases[] = {
        {"req-1", "req-1"},
        {"h\xc3\xa9", "h\xc3\xa9"},
        {"a status=OK finish=stop id=root", "\"a status=OK finish=stop id=root\""},
        {"a b", "\"a b\""},
        {"a=b", "\"a=b\""},
        {"a\" id=\"root", "\"a\\\" id=\\\"root\""},
        {"a\\", "\"a\\\\\""},
        {"a\tb", "\"a\\tb\""},
        {"a\x7f", "\"a\\u007f\""},
        {"", "\"\""},
        {"-", "\"-\""},
    };
    log_init(LOG_INFO, LOG_FORMAT_TEXT);
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        const struct log_field fields[] = {{"id", cases[i].value, 0}, {"n", NULL, 7}};
        char expected[128];
        (void)snprintf(expected, sizeof expected, ": ended id=%s n=7\n", cases[i].written);
        log_line_fields(LOG_INFO, "request", "ended", fields, 2);
        assert_non_null(strstr(take_seen(), expected));
    }
}

/* Messages of every length around the limit, of characters that grow when escaped and of ones that do not. */
static void test_long_lines_are_cut(void **state)
{
    (void)state;
    static const char *const units[] = {"m", "\xf0\x9f\x90\x94", "\x01", "\xff"};
    for (int format = LOG_FORMAT_TEXT; format <= LOG_FORMAT_JSON; format++) {
        log_init(LOG_INFO, (enum log_format)format);
        for (int unit = 0; unit < 4; unit++) {
            for (size_t size = LOG_LINE_MAX - 150; size < LOG_LINE_MAX + 50; size += 7) {
                char message[2 * LOG_LINE_MAX] = "";
                size_t unit_bytes = strlen(units[unit]);
                for (size_t at = 0; at + unit_bytes <= size; at += unit_bytes)
                    memcpy(message + at, units[unit], unit_bytes);
                log_info("area", "%s", message);
                const char *line = take_seen();
                size_t length = strlen(line);
                assert_in_range(length, 1, LOG_LINE_MAX);
                assert_int_equal(line[length - 1], '\n');
                assert_true(utf8_valid(line, length));
                if (format == LOG_FORMAT_JSON)
                    assert_string_equal(line + length - 3, "\"}\n");
            }
        }
    }
}

/* Nobody reads: lines are dropped and counted, the caller goes on, and later lines come through again. */
static void test_full_pipe_drops_lines(void **state)
{
    (void)state;
    log_init(LOG_INFO, LOG_FORMAT_TEXT);
    uint64_t before = log_dropped();
    char filler[1000];
    memset(filler, 'f', sizeof filler - 1);
    filler[sizeof filler - 1] = '\0';
    int n_written = 0;
    while (log_dropped() == before) {
        log_info("test", "%s", filler);
        assert_true(++n_written < 100000);
    }
    log_info("test", "dropped as well");
    assert_int_equal(log_dropped() - before, 2);
    take_seen();
    log_info("test", "back again");
    assert_non_null(strstr(take_seen(), "back again\n"));
    assert_int_equal(log_dropped() - before, 2);
}

static void *log_lines(void *argument)
{
    for (int i = 0; i < N_LINES; i++)
        log_info("thread", "%d %d .", *(const int *)argument, i);
    return NULL;
}

static void test_lines_of_many_threads_stay_whole(void **state)
{
    (void)state;
    log_init(LOG_INFO, LOG_FORMAT_TEXT);
    uint64_t dropped_before = log_dropped();
    pthread_t threads[N_THREADS];
    int indices[N_THREADS];
    for (int i = 0; i < N_THREADS; i++) {
        indices[i] = i;
        assert_int_equal(pthread_create(&threads[i], NULL, log_lines, &indices[i]), 0);
    }
    for (int i = 0; i < N_THREADS; i++)
        pthread_join(threads[i], NULL);
    int n_lines = 0, next[N_THREADS] = {0};
    const char *line = take_seen();
    while (*line != '\0') {
        int thread, number, end = 0;
        const char *body = strstr(line, "thread: ");
        assert_non_null(body);
        assert_int_equal(sscanf(body, "thread: %d %d .%n", &thread, &number, &end), 2);
        assert_true(end > 0 && body[end] == '\n' && thread >= 0 && thread < N_THREADS);
        assert_true(number >= next[thread]); /* in order; a dropped one leaves a gap */
        next[thread] = number + 1;
        line = body + end + 1;
        n_lines++;
    }
    assert_int_equal(n_lines + (int)(log_dropped() - dropped_before), N_THREADS * N_LINES);
}

static void test_closed_stderr(void **state)
{
    (void)state;
    log_init(LOG_INFO, LOG_FORMAT_TEXT);
    int saved = dup(STDERR_FILENO);
    close(STDERR_FILENO);
    uint64_t before = log_dropped();
    log_info("test", "to nobody");
    assert_int_equal(log_dropped() - before, 1);
    assert_true(dup2(saved, STDERR_FILENO) >= 0);
    close(saved);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_json_line),
        cmocka_unit_test(test_text_line),
        cmocka_unit_test(test_auto_is_json_without_a_terminal),
        cmocka_unit_test(test_levels),
        cmocka_unit_test(test_fields),
        cmocka_unit_test(test_text_fields_are_quoted),
        cmocka_unit_test(test_long_lines_are_cut),
        cmocka_unit_test(test_full_pipe_drops_lines),
        cmocka_unit_test(test_lines_of_many_threads_stay_whole),
        cmocka_unit_test(test_closed_stderr),
    };
    return cmocka_run_group_tests(tests, begin_capture, end_capture);
}
