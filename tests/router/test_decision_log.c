/* The decision log: what a line has and has not, disks that are full, pipes that nobody reads, files that are
 * renamed, expire and forget, and reading it all again. */
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>
#include <cmocka.h>
#include "base/event_count.h"
#include "router/log/decision_log.h"

#define DAY_MS INT64_C(86400000)

static const struct decision_key KEY = {{7, 7, 7}};

struct place {
    char folder[64], path[96];
};

static struct place new_place(void)
{
    struct place place = {.folder = "/tmp/decisions-XXXXXX"};
    assert_non_null(mkdtemp(place.folder));
    snprintf(place.path, sizeof place.path, "%s/log", place.folder);
    return place;
}

static const char *numbered(const struct place *place, int number)
{
    static char name[128];
    snprintf(name, sizeof name, number == 0 ? "%s" : "%s.%d", place->path, number);
    return name;
}

static void forget_place(const struct place *place)
{
    for (int number = 0; number < 20; number++)
        unlink(numbered(place, number));
    assert_int_equal(rmdir(place->folder), 0); /* nothing else is left in it */
}

static struct decision_entry entry_of(const char *id, const char *tenant)
{
    return (struct decision_entry){.unix_ms = 1795780800000,
                                   .id = id,
                                   .request_id = "r",
                                   .tenant = tenant,
                                   .model = "m",
                                   .provider = "openai",
                                   .answered_by = "gpt",
                                   .tier = "frontier",
                                   .reason = "rule",
                                   .rule = "code",
                                   .cache = "miss",
                                   .policy_id = "0123456789abcdef",
                                   .fingerprint = "f",
                                   .stage = "canary",
                                   .error = "",
                                   .finish_reason = "stop",
                                   .seed = UINT64_MAX,
                                   .escalated = true,
                                   .attempts = 2,
                                   .difficulty = 0.1,
                                   .confidence = -1,
                                   .prompt_tokens = 12,
                                   .predicted_ttft_ms = -1,
                                   .queue_us = 5,
                                   .first_token_us = -1,
                                   .total_us = 77,
                                   .usage = {10, -1, 0, 20, -1},
                                   .cost = 123,
                                   .frontier_cost = -1};
}

static struct buffer encode(const struct decision_entry *entry, bool content, const struct decision_key *key)
{
    struct buffer out = {.limit_bytes = DECISION_LINE_BYTES_MAX};
    assert_int_equal(decision_entry_encode(entry, content, key, &out).code, ERR_OK);
    return out;
}

static bool has(const struct buffer *text, const char *part)
{
    return strstr(text->data, part) != NULL;
}

/* ---- Lines ---- */

static void a_line_is_read_as_it_was_written(void **state)
{
    (void)state;
    struct request_signals signals = {.n_turns = 3,
                                      .n_images = 1,
                                      .has_code = true,
                                      .script = SCRIPT_HAN,
                                      .language = LANGUAGE_ZH,
                                      .text_bytes = 99};
    struct route_hints hints = {.route = WISH_LOCAL, .complexity = 4, .max_cost = 5, .task = "mail"};
    struct policy_input input = {.signals = &signals,
                                 .hints = &hints,
                                 .tenant = "hr",
                                 .model = "m",
                                 .intent = "chat",
                                 .difficulty = 1.0 / 3,
                                 .prompt_tokens = 12,
                                 .context_tokens = {4096, 0},
                                 .ttft_ms = {20, -1, -1, -1, -1, -1, -1, -1},
                                 .is_down = {true, false},
                                 .cannot_cross = {NULL, "logit_bias"},
                                 .budget_percent = 83,
                                 .is_broke = true};
    struct decision_entry entry = entry_of("d1", "hr");
    json_t *request = json_pack("{s:s}", "prompt", "Gr\xc3\xbc\xc3\x9f\n\"");
    entry.request = request;
    entry.answer = "a\0b";
    entry.answer_bytes = 3;
    entry.input = &input;
    entry.n_tiers = 2;
    struct buffer text = encode(&entry, true, &KEY);
    struct decision_line line;
    err_t e = decision_line_parse(text.data, text.size, &line);
    if (e.code != ERR_OK)
        fail_msg("%s", e.message);
    assert_string_equal(line.entry.id, "d1");
    assert_string_equal(line.entry.tenant, "hr");
    assert_string_equal(line.entry.rule, "code");
    assert_string_equal(line.entry.error, "");
    assert_true(line.entry.seed == UINT64_MAX && line.entry.escalated && !line.entry.hedged);
    assert_true(line.entry.difficulty == 0.1 && line.entry.confidence == -1);
    assert_true(line.entry.first_token_us == -1 && line.entry.total_us == 77 && line.entry.cost == 123);
    assert_memory_equal(&line.entry.usage, &entry.usage, sizeof entry.usage);
    assert_true(json_equal(line.entry.request, request));
    assert_int_equal(line.entry.answer_bytes, 3);
    assert_memory_equal(line.entry.answer, "a\0b", 3);
    assert_memory_equal(&line.signals, &signals, sizeof signals);
    assert_memory_equal(&line.hints, &hints, sizeof hints);
    assert_ptr_equal(line.entry.input, &line.input);
    assert_true(line.input.difficulty == 1.0 / 3 && line.input.is_broke && line.input.is_down[0]);
    assert_true(line.input.context_tokens[0] == 4096 && line.input.ttft_ms[1] == -1);
    assert_true(line.input.cannot_cross[0] == NULL && line.entry.n_tiers == 2);
    assert_string_equal(line.input.cannot_cross[1], "logit_bias");
    assert_int_equal(line.input.budget_percent, 83);
    assert_string_equal(line.input.intent, "chat");
    decision_line_free(&line);
    buffer_free(&text);
    json_decref(request);
}

static void content_is_written_only_where_it_may_be(void **state)
{
    (void)state;
    json_t *request = json_pack("{s:s,s:i}", "prompt", "secret words", "n", 1);
    struct decision_entry entry = entry_of("d", "t");
    entry.request = request;
    entry.answer = "secret answer";
    entry.answer_bytes = 13;
    static const struct {
        bool wished, local_only, is_there;
    } CASES[] = {{true, false, true}, {true, true, false}, {false, false, false}, {false, true, false}};
    for (size_t i = 0; i < sizeof CASES / sizeof *CASES; i++) {
        entry.local_only = CASES[i].local_only;
        struct buffer text = encode(&entry, CASES[i].wished, &KEY);
        assert_true(has(&text, "secret words") == CASES[i].is_there);
        assert_true(has(&text, "secret answer") == CASES[i].is_there);
        assert_true(has(&text, "\"request_hmac\":\"") != CASES[i].is_there);
        assert_true(has(&text, "\"answer_bytes\":13,\"answer_hmac\":\"") != CASES[i].is_there);
        buffer_free(&text);
    }
    json_decref(request);
}

static void hashes_are_equal_for_equal_requests_under_one_key_alone(void **state)
{
    (void)state;
    json_t *one = json_pack("{s:s,s:i}", "prompt", "yes", "n", 1),
           *same = json_pack("{s:i,s:s}", "n", 1, "prompt", "yes"),
           *other = json_pack("{s:s,s:i}", "prompt", "yes", "n", 2);
    struct decision_entry entry = entry_of("d", "t");
    struct decision_key another_key = {{8}};
    entry.request = one;
    struct buffer first = encode(&entry, false, &KEY), rekeyed = encode(&entry, false, &another_key);
    entry.request = same;
    struct buffer equal = encode(&entry, false, &KEY);
    entry.request = other;
    struct buffer different = encode(&entry, false, &KEY);
    assert_string_equal(first.data, equal.data);
    assert_string_not_equal(first.data, different.data);
    assert_string_not_equal(first.data, rekeyed.data);
    buffer_free(&first);
    buffer_free(&rekeyed);
    buffer_free(&equal);
    buffer_free(&different);
    json_decref(one);
    json_decref(same);
    json_decref(other);
}

static void what_is_no_line_is_said_without_its_content(void **state)
{
    (void)state;
    static const char *const LINES[] = {"",
                                        "secret",
                                        "[]",
                                        "{}",
                                        "{\"version\":2}",
                                        "{\"version\":1,\"id\":3}",
                                        "{\"version\":1,\"tenant\":\"a\\u0000b\"}",
                                        "{\"version\":1,\"cost_nanodollars\":-1}",
                                        "{\"version\":1,\"seed\":\"-1\"}",
                                        "{\"version\":1,\"attempts\":4294967296}",
                                        "{\"version\":1,\"local_only\":\"yes\"}",
                                        "{\"version\":1,\"request\":\"secret\"}",
                                        "{\"version\":1,\"usage\":[]}",
                                        "{\"version\":1,\"input\":{\"signals\":{\"script\":\"secret\"}}}",
                                        "{\"version\":1,\"input\":{\"tiers\":[1,1,1,1,1,1,1,1,1]}}",
                                        "{\"version\":1,\"answer\":\"secret"};
    for (size_t i = 0; i < sizeof LINES / sizeof *LINES; i++) {
        struct decision_line line;
        err_t e = decision_line_parse(LINES[i], strlen(LINES[i]), &line);
        assert_int_equal(e.code, ERR_INVALID_ARGUMENT);
        assert_null(strstr(e.message, "secret"));
    }
}

/* ---- Files ---- */

static struct decision_log *open_log(const char *path, int64_t max_bytes, uint32_t keep, int64_t retention_ms)
{
    struct decision_log_options options = {
        .path = path, .content = true, .max_bytes = max_bytes, .keep = keep, .retention_ms = retention_ms};
    struct decision_log *log;
    err_t e = decision_log_open(&options, &log);
    if (e.code != ERR_OK)
        fail_msg("%s", e.message);
    return log;
}

static void write_numbered(struct decision_log *log, int number, const char *tenant, const char *answer)
{
    char id[16];
    snprintf(id, sizeof id, "%d", number);
    struct decision_entry entry = entry_of(id, tenant);
    entry.answer = answer;
    entry.answer_bytes = answer ? strlen(answer) : 0;
    decision_log_write(log, &entry);
}

struct reading {
    struct buffer ids, bad;
};

static err_t take_id(void *context, const struct decision_line *line)
{
    struct reading *reading = context;
    assert_true(buffer_append_format(&reading->ids, "%s ", line->entry.id));
    return err_ok();
}

static void take_bad(void *context, uint64_t number, err_t why)
{
    struct reading *reading = context;
    assert_int_equal(why.code, ERR_INVALID_ARGUMENT);
    assert_true(buffer_append_format(&reading->bad, "%d ", (int)number));
}

static void assert_file(const char *path, const char *ids, const char *bad)
{
    struct reading reading = {{.limit_bytes = 1 << 16}, {.limit_bytes = 1 << 16}};
    struct decision_log_reader reader = {take_id, take_bad, &reading};
    err_t e = decision_log_read(path, &reader);
    if (e.code != ERR_OK)
        fail_msg("%s", e.message);
    assert_string_equal(reading.ids.size ? reading.ids.data : "", ids);
    assert_string_equal(reading.bad.size ? reading.bad.data : "", bad);
    buffer_free(&reading.ids);
    buffer_free(&reading.bad);
}

static void append_bytes(const char *path, const char *bytes, size_t size)
{
    FILE *file = fopen(path, "a");
    assert_non_null(file);
    assert_int_equal(fwrite(bytes, 1, size, file), size);
    assert_int_equal(fclose(file), 0);
}

static void a_log_goes_on_where_a_crash_has_cut_it(void **state)
{
    (void)state;
    struct place place = new_place();
    struct decision_log *log = open_log(place.path, 1 << 20, 5, 0);
    write_numbered(log, 1, "a", "x");
    decision_log_close(log);
    append_bytes(place.path, "{\"version\":1,\"id\":\"cut", 22);
    log = open_log(place.path, 1 << 20, 5, 0);
    write_numbered(log, 2, "a", "x");
    decision_log_close(log);
    assert_file(place.path, "1 2 ", "2 ");
    struct stat status;
    assert_int_equal(stat(place.path, &status), 0);
    assert_int_equal(status.st_mode & 0777, 0600);
    forget_place(&place);
}

static void lines_that_are_too_long_are_passed_over(void **state)
{
    (void)state;
    struct place place = new_place();
    struct decision_log *log = open_log(place.path, 1 << 30, 5, 0);
    char *answer = malloc(DECISION_LINE_BYTES_MAX + 1);
    assert_non_null(answer);
    memset(answer, 'x', DECISION_LINE_BYTES_MAX);
    answer[DECISION_LINE_BYTES_MAX] = '\0';
    write_numbered(log, 1, "a", answer); /* its hash is written instead */
    decision_log_close(log);
    append_bytes(place.path, answer, DECISION_LINE_BYTES_MAX);
    append_bytes(place.path, "yyyy\n", 5);
    log = open_log(place.path, 1 << 30, 5, 0);
    write_numbered(log, 2, "a", "x");
    decision_log_close(log);
    assert_file(place.path, "1 2 ", "2 ");
    free(answer);
    forget_place(&place);
}

static void one_process_writes_a_log(void **state)
{
    (void)state;
    struct place place = new_place();
    struct decision_log *log = open_log(place.path, 1 << 20, 5, 0), *second;
    struct decision_log_options options = {.path = place.path, .max_bytes = 1 << 20, .keep = 5};
    assert_int_equal(decision_log_open(&options, &second).code, ERR_FAILED_PRECONDITION);
    decision_log_close(log);
    options.path = "/nowhere/at/all";
    assert_int_equal(decision_log_open(&options, &second).code, ERR_IO);
    assert_int_equal(
        decision_log_read("/nowhere/at/all", &(struct decision_log_reader){take_id, NULL, NULL}).code,
        ERR_NOT_FOUND);
    forget_place(&place);
}

static void full_files_are_renamed_and_the_oldest_goes(void **state)
{
    (void)state;
    struct place place = new_place();
    struct decision_entry entry = entry_of("1", "a");
    struct buffer text = encode(&entry, true, &KEY);
    int64_t three_lines = 3 * ((int64_t)text.size + 1); /* ids have one digit */
    buffer_free(&text);
    struct decision_log *log = open_log(place.path, three_lines, 2, 0);
    for (int i = 1; i <= 9; i++)
        write_numbered(log, i % 10, "a", NULL);
    write_numbered(log, 0, "a", NULL);
    assert_int_equal(decision_log_lost(log), 0);
    decision_log_close(log);
    assert_file(numbered(&place, 2), "4 5 6 ", "");
    assert_file(numbered(&place, 1), "7 8 9 ", "");
    assert_file(place.path, "0 ", "");
    assert_int_equal(access(numbered(&place, 3), F_OK), -1);
    forget_place(&place);
}

static void make_old(const char *path, int64_t age_ms)
{
    struct timespec now, times[2];
    clock_gettime(CLOCK_REALTIME, &now);
    times[0] = times[1] = (struct timespec){now.tv_sec - age_ms / 1000, 0};
    assert_int_equal(utimensat(AT_FDCWD, path, times, 0), 0);
}

static int64_t now_ms(void)
{
    return (int64_t)time(NULL) * 1000;
}

static void lines_get_no_older_than_they_may(void **state)
{
    (void)state;
    struct place place = new_place();
    struct decision_entry entry = entry_of("old", "a");
    entry.unix_ms = now_ms() - 3 * DAY_MS; /* of 8: older than a quarter */
    struct decision_log *log = open_log(place.path, 1 << 20, 5, 0);
    decision_log_write(log, &entry);
    decision_log_close(log);
    append_bytes(numbered(&place, 1), "{}\n", 3);
    append_bytes(numbered(&place, 2), "{}\n", 3);
    make_old(numbered(&place, 1), 5 * DAY_MS);
    make_old(numbered(&place, 2), 6 * DAY_MS + 60000);
    log = open_log(place.path, 1 << 20, 5, 8 * DAY_MS);
    decision_log_close(log);
    assert_file(place.path, "", "");
    assert_file(numbered(&place, 1), "old ", "");
    assert_file(numbered(&place, 2), "", "1 ");              /* was 1 */
    assert_int_equal(access(numbered(&place, 3), F_OK), -1); /* was 2 */
    forget_place(&place);
}

static void a_tenant_is_forgotten(void **state)
{
    (void)state;
    struct place place = new_place();
    struct decision_log *log = open_log(place.path, 1, 3, 0); /* a line a file */
    write_numbered(log, 1, "hr", "x");
    write_numbered(log, 2, "it", "x");
    write_numbered(log, 3, "hr", "x");
    uint64_t n;
    assert_int_equal(decision_log_forget(place.path, "hr", &n).code, ERR_FAILED_PRECONDITION);
    decision_log_close(log);
    append_bytes(place.path, "garbage\n", 8);
    assert_int_equal(decision_log_forget(place.path, "hr", &n).code, ERR_OK);
    assert_int_equal(n, 3);
    assert_file(place.path, "", "");
    assert_file(numbered(&place, 1), "2 ", "");
    assert_file(numbered(&place, 2), "", "");
    assert_int_equal(decision_log_forget(place.path, "hr", &n).code, ERR_OK);
    assert_int_equal(n, 0);
    assert_int_equal(decision_log_forget("/nowhere/at/all", "hr", &n).code, ERR_NOT_FOUND);
    forget_place(&place);
}

enum { TURNS = 60 };

static void *write_turns(void *context)
{
    for (int i = 0; i < TURNS; i++)
        write_numbered(context, i, i % 2 ? "hr" : "it", "x");
    return NULL;
}

/* However often it is renamed: the log is there, and its writer's. */
static void a_log_that_is_written_is_never_without_its_lock(void **state)
{
    (void)state;
    struct place place = new_place();
    struct decision_log *log = open_log(place.path, 1, TURNS, 0), *second; /* a line a file */
    struct decision_log_options options = {.path = place.path, .max_bytes = 1, .keep = TURNS};
    char last[128];
    pthread_t thread;
    snprintf(last, sizeof last, "%s", numbered(&place, TURNS - 1));
    assert_int_equal(pthread_create(&thread, NULL, write_turns, log), 0);
    while (access(last, F_OK) != 0) {
        uint64_t n;
        assert_int_equal(decision_log_forget(place.path, "hr", &n).code, ERR_FAILED_PRECONDITION);
        assert_int_equal(decision_log_open(&options, &second).code, ERR_FAILED_PRECONDITION);
        assert_int_equal(access(place.path, F_OK), 0);
    }
    pthread_join(thread, NULL);
    assert_int_equal(decision_log_lost(log), 0);
    decision_log_close(log);
    uint64_t n;
    assert_int_equal(decision_log_forget(place.path, "hr", &n).code, ERR_OK);
    assert_int_equal(n, TURNS / 2);
    for (int i = 0; i < TURNS; i++) {
        char id[16];
        snprintf(id, sizeof id, i % 2 ? "" : "%d ", i);
        assert_file(numbered(&place, TURNS - 1 - i), id, "");
        unlink(numbered(&place, TURNS - 1 - i));
    }
    forget_place(&place);
}

struct forgetter {
    const char *path;
    _Atomic bool is_over;
    int n_done;
};

static void *forget_again(void *context)
{
    struct forgetter *forgetter = context;
    while (!forgetter->is_over || forgetter->n_done == 0) {
        uint64_t n;
        err_t e = decision_log_forget(forgetter->path, "hr", &n);
        if (e.code != ERR_OK && e.code != ERR_FAILED_PRECONDITION)
            fail_msg("%s", e.message);
        forgetter->n_done += e.code == ERR_OK;
    }
    return NULL;
}

/* Each opens the log while the other may replace it under its hands: neither goes on with a file that has
 * lost its name. */
static void who_forgets_takes_no_line_of_others(void **state)
{
    (void)state;
    struct place place = new_place();
    append_bytes(place.path, "", 0);
    struct forgetter forgetter = {.path = place.path};
    struct decision_log_options options = {
        .path = place.path, .content = true, .max_bytes = 1 << 20, .keep = 2};
    pthread_t thread;
    assert_int_equal(pthread_create(&thread, NULL, forget_again, &forgetter), 0);
    struct buffer expected = {.limit_bytes = 1 << 16};
    for (int i = 0; i < 60; i++) {
        struct decision_log *log;
        err_t e;
        while ((e = decision_log_open(&options, &log)).code == ERR_FAILED_PRECONDITION)
            sched_yield();
        assert_int_equal(e.code, ERR_OK);
        write_numbered(log, i, "it", "x");
        write_numbered(log, i, "hr", "x");
        decision_log_close(log);
        assert_true(buffer_append_format(&expected, "%d ", i));
    }
    forgetter.is_over = true;
    pthread_join(thread, NULL);
    uint64_t n;
    assert_int_equal(decision_log_forget(place.path, "hr", &n).code, ERR_OK);
    assert_file(place.path, expected.data, "");
    buffer_free(&expected);
    forget_place(&place);
}

static const char HR_LINE[] = "{\"version\":1,\"id\":\"1\",\"tenant\":\"hr\"}\n",
                  IT_LINE[] = "{\"version\":1,\"id\":\"2\",\"tenant\":\"it\"}\n";

/* A crash, or who tidies up by hand, leaves these. */
static void what_is_left_of_a_log_is_forgotten_too(void **state)
{
    (void)state;
    struct place place = new_place();
    char name[128];
    uint64_t n;
    append_bytes(numbered(&place, 1), HR_LINE, sizeof HR_LINE - 1); /* and no PATH */
    append_bytes(numbered(&place, 3), IT_LINE, sizeof IT_LINE - 1); /* and no PATH.2 */
    append_bytes(numbered(&place, 3), HR_LINE, sizeof HR_LINE - 1);
    snprintf(name, sizeof name, "%s.3.forget", place.path); /* an earlier one was killed */
    append_bytes(name, HR_LINE, sizeof HR_LINE - 1);
    snprintf(name, sizeof name, "%s.2.forget", place.path);
    append_bytes(name, HR_LINE, sizeof HR_LINE - 1);
    assert_int_equal(decision_log_forget(place.path, "hr", &n).code, ERR_OK);
    assert_int_equal(n, 2);
    assert_file(numbered(&place, 1), "", "");
    assert_file(numbered(&place, 3), "2 ", "");
    forget_place(&place);
}

static void a_log_that_is_a_link_is_forgotten_where_it_lies(void **state)
{
    (void)state;
    struct place place = new_place();
    uint64_t n;
    char target[128];
    snprintf(target, sizeof target, "%s/elsewhere", place.folder);
    append_bytes(target, HR_LINE, sizeof HR_LINE - 1);
    append_bytes(target, IT_LINE, sizeof IT_LINE - 1);
    assert_int_equal(symlink(target, place.path), 0);
    assert_int_equal(decision_log_forget(place.path, "hr", &n).code, ERR_OK);
    assert_int_equal(n, 1);
    assert_file(target, "2 ", "");
    assert_int_equal(unlink(target), 0);
    forget_place(&place);
}

/* Killed between giving PATH its second name and putting the fresh file in its place. */
static void a_turn_that_was_cut_doubles_no_line(void **state)
{
    (void)state;
    struct place place = new_place();
    char name[128];
    append_bytes(place.path, HR_LINE, sizeof HR_LINE - 1);
    snprintf(name, sizeof name, "%s.new", place.path);
    append_bytes(name, "", 0);
    assert_int_equal(link(place.path, numbered(&place, 1)), 0);
    struct decision_log *log = open_log(place.path, 1, 3, 0);
    assert_int_equal(access(numbered(&place, 1), F_OK), -1);
    write_numbered(log, 7, "it", "x");
    decision_log_close(log);
    assert_file(numbered(&place, 1), "1 ", "");
    assert_file(place.path, "7 ", "");
    forget_place(&place);
}

/* ---- Disks and pipes that take nothing ---- */

static void a_full_disk_loses_lines_and_nothing_else(void **state)
{
    (void)state;
    struct decision_log *log = open_log("/dev/full", 1 << 20, 5, DAY_MS);
    for (int i = 0; i < 100; i++)
        write_numbered(log, i, "a", "x");
    while (decision_log_lost(log) < 100)
        sched_yield();
    write_numbered(log, 100, "a", "x");
    while (decision_log_lost(log) < 101)
        sched_yield();
    decision_log_close(log);
}

static void a_blocked_pipe_holds_nobody_up(void **state)
{
    (void)state;
    struct place place = new_place();
    assert_int_equal(mkfifo(place.path, 0600), 0);
    int reader = open(place.path, O_RDONLY | O_NONBLOCK);
    assert_true(reader >= 0);
    struct decision_log *log = open_log(place.path, 1 << 20, 5, 0);
    enum { SIZE = 1 << 20 };
    char *answer = malloc(SIZE);
    assert_non_null(answer);
    memset(answer, 'x', SIZE - 1);
    answer[SIZE - 1] = '\0';
    while (decision_log_lost(log) == 0) /* the pipe is full, and then the queue */
        write_numbered(log, 1, "a", answer);
    decision_log_close(log);
    close(reader);
    free(answer);
    forget_place(&place);
}

static void a_pipe_is_written_as_it_is_read(void **state)
{
    (void)state;
    struct place place = new_place();
    assert_int_equal(mkfifo(place.path, 0600), 0);
    int reader = open(place.path, O_RDONLY | O_NONBLOCK);
    struct decision_log *log = open_log(place.path, 1 << 20, 5, DAY_MS);
    write_numbered(log, 1, "a", "x");
    decision_log_close(log);
    char bytes[4096];
    ssize_t n = read(reader, bytes, sizeof bytes);
    assert_true(n > 0 && bytes[n - 1] == '\n');
    close(reader);
    struct decision_log_options options = {.path = place.path, .max_bytes = 1 << 20};
    assert_int_equal(decision_log_open(&options, &log).code, ERR_IO); /* nobody reads it */
    forget_place(&place);
}

enum { THREADS = 4, LINES_EACH = 500 };

static void *write_many(void *context)
{
    for (int i = 0; i < LINES_EACH; i++)
        write_numbered(context, i, "a", "some words");
    return NULL;
}

static err_t count_line(void *context, const struct decision_line *line)
{
    assert_string_equal(line->entry.tenant, "a");
    ++*(int *)context;
    return err_ok();
}

static void threads_write_whole_lines(void **state)
{
    (void)state;
    struct place place = new_place();
    struct decision_log *log = open_log(place.path, 100000, 19, 0);
    pthread_t threads[THREADS];
    for (int i = 0; i < THREADS; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, write_many, log), 0);
    for (int i = 0; i < THREADS; i++)
        pthread_join(threads[i], NULL);
    assert_int_equal(decision_log_lost(log), 0);
    decision_log_close(log);
    int n = 0;
    struct decision_log_reader reader = {count_line, NULL, &n};
    for (int number = 0; number < 20 && access(numbered(&place, number), F_OK) == 0; number++)
        assert_int_equal(decision_log_read(numbered(&place, number), &reader).code, ERR_OK);
    assert_int_equal(n, THREADS * LINES_EACH);
    forget_place(&place);
}

/* ---- Options ---- */

static err_t read_options(const char *text, struct decision_log_options *out)
{
    struct yaml_file *file;
    assert_int_equal(yaml_file_parse("f", text, strlen(text), &file).code, ERR_OK);
    struct yaml_value root = yaml_root(file), log = yaml_at(&root, "log");
    err_t e = decision_log_options_read(&log, out);
    if (e.code == ERR_OK && out->path)
        out->path = strcmp(out->path, "d.jsonl") == 0 ? "d.jsonl" : "another";
    yaml_file_close(file);
    return e;
}

static void options_are_read(void **state)
{
    (void)state;
    struct decision_log_options options;
    assert_int_equal(read_options("other: 1", &options).code, ERR_OK);
    assert_null(options.path);
    assert_int_equal(read_options("log: {path: d.jsonl}", &options).code, ERR_OK);
    assert_true(!options.content && options.keep == 5 && options.max_bytes == 100000000 &&
                options.retention_ms == 30 * DAY_MS);
    assert_int_equal(read_options("log: {path: d.jsonl, content: yes, max_bytes: 65536, keep: 0, retention: "
                                  "2d}",
                                  &options)
                         .code,
                     ERR_OK);
    assert_true(options.content && options.keep == 0 && options.max_bytes == 65536 &&
                options.retention_ms == 2 * DAY_MS);
    static const char *const BAD[] = {"log: {content: yes}", "log: {path: a, keep: 1001}",
                                      "log: {path: a, max_bytes: 10}", "log: {path: a, retention: 30x}",
                                      "log: {path: a, more: 1}"};
    for (size_t i = 0; i < sizeof BAD / sizeof *BAD; i++)
        assert_int_equal(read_options(BAD[i], &options).code, ERR_INVALID_ARGUMENT);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_line_is_read_as_it_was_written),
        cmocka_unit_test(content_is_written_only_where_it_may_be),
        cmocka_unit_test(hashes_are_equal_for_equal_requests_under_one_key_alone),
        cmocka_unit_test(what_is_no_line_is_said_without_its_content),
        cmocka_unit_test(a_log_goes_on_where_a_crash_has_cut_it),
        cmocka_unit_test(lines_that_are_too_long_are_passed_over),
        cmocka_unit_test(one_process_writes_a_log),
        cmocka_unit_test(full_files_are_renamed_and_the_oldest_goes),
        cmocka_unit_test(lines_get_no_older_than_they_may),
        cmocka_unit_test(a_tenant_is_forgotten),
        cmocka_unit_test(a_log_that_is_written_is_never_without_its_lock),
        cmocka_unit_test(who_forgets_takes_no_line_of_others),
        cmocka_unit_test(what_is_left_of_a_log_is_forgotten_too),
        cmocka_unit_test(a_log_that_is_a_link_is_forgotten_where_it_lies),
        cmocka_unit_test(a_turn_that_was_cut_doubles_no_line),
        cmocka_unit_test(a_full_disk_loses_lines_and_nothing_else),
        cmocka_unit_test(a_blocked_pipe_holds_nobody_up),
        cmocka_unit_test(a_pipe_is_written_as_it_is_read),
        cmocka_unit_test(threads_write_whole_lines),
        cmocka_unit_test(options_are_read),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
