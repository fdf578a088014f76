/* The ledger: budgets, settling, days, and processes that are killed. */
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>
#include <cmocka.h>
#include <sqlite3.h>
#include "base/alloc.h"
#include "base/buffer.h"
#include "base/mapped_file.h"
#include "router/money/ledger.h"
#include "router/money/ledger_journal.h"

#define NOON_MS INT64_C(1795780800000) /* 2026-11-27 12:00 UTC */
#define DAY_MS  INT64_C(86400000)
#define DOLLAR  NANODOLLARS_PER_DOLLAR

static _Atomic int64_t clock_ms; /* a thread of the ledger's looks at it too */

static int64_t read_clock(void *clock)
{
    return *(_Atomic int64_t *)clock;
}

struct place {
    char folder[64], path[96];
};

static struct place new_place(void)
{
    struct place place = {.folder = "/tmp/ledger-XXXXXX"};
    assert_non_null(mkdtemp(place.folder));
    snprintf(place.path, sizeof place.path, "%s/book.sqlite", place.folder);
    return place;
}

static void forget_place(const struct place *place)
{
    static const char *const ENDINGS[] = {"", "-wal", "-shm", "-promises"};
    for (size_t i = 0; i < sizeof ENDINGS / sizeof *ENDINGS; i++) {
        char path[112];
        snprintf(path, sizeof path, "%s%s", place->path, ENDINGS[i]);
        unlink(path);
    }
    assert_int_equal(rmdir(place->folder), 0);
}

static struct ledger *open_ledger(const char *path, uint64_t *n_lost)
{
    struct ledger *ledger;
    err_t e = ledger_open(&(struct ledger_options){.path = path, .unix_ms = read_clock, .clock = &clock_ms},
                          n_lost, &ledger);
    if (e.code != ERR_OK)
        fail_msg("%s", e.message);
    return ledger;
}

static struct ledger_call call_of(const char *tenant, const char *request_id, uint32_t attempt)
{
    return (struct ledger_call){request_id, attempt, tenant, "openai", "big", "hard"};
}

static int64_t reserve(struct ledger *ledger, const char *tenant, const char *id, nanodollars estimate)
{
    struct ledger_call call = call_of(tenant, id, 1);
    int64_t entry = -1;
    assert_int_equal(ledger_reserve(ledger, &call, estimate, NULL, &entry).code, ERR_OK);
    return entry;
}

static void assert_balance(struct ledger *ledger, const char *tenant, nanodollars spent, nanodollars reserved,
                           nanodollars month_spent)
{
    struct ledger_balance today, this_month;
    assert_int_equal(ledger_balance(ledger, tenant, &today, &this_month).code, ERR_OK);
    assert_int_equal(today.spent, spent);
    assert_int_equal(today.reserved, reserved);
    assert_int_equal(this_month.spent, month_spent);
}

static void a_reservation_becomes_what_it_cost(void **state)
{
    (void)state;
    clock_ms = NOON_MS;
    struct ledger *ledger = open_ledger(":memory:", NULL);
    int64_t cheaper = reserve(ledger, "a", "1", 5 * DOLLAR), dearer = reserve(ledger, "a", "2", 1 * DOLLAR),
            unknown = reserve(ledger, "a", "3", 3 * DOLLAR),
            released = reserve(ledger, "a", "4", 100 * DOLLAR);
    assert_balance(ledger, "a", 0, 109 * DOLLAR, 0);
    struct answer_usage usage = {10, -1, -1, 20, -1};
    assert_int_equal(ledger_settle(ledger, cheaper, LEDGER_SETTLED, 2 * DOLLAR, &usage).code, ERR_OK);
    assert_int_equal(ledger_settle(ledger, dearer, LEDGER_SETTLED, 4 * DOLLAR, &usage).code, ERR_OK);
    assert_int_equal(ledger_settle(ledger, unknown, LEDGER_UNKNOWN, 0, NULL).code, ERR_OK);
    assert_int_equal(ledger_settle(ledger, released, LEDGER_RELEASED, 0, NULL).code, ERR_OK);
    assert_balance(ledger, "a", 9 * DOLLAR, 0, 9 * DOLLAR);
    assert_balance(ledger, "b", 0, 0, 0);
    /* Once and for all. */
    assert_int_equal(ledger_settle(ledger, cheaper, LEDGER_SETTLED, DOLLAR, NULL).code,
                     ERR_FAILED_PRECONDITION);
    assert_int_equal(ledger_settle(ledger, 12345, LEDGER_SETTLED, DOLLAR, NULL).code,
                     ERR_FAILED_PRECONDITION);
    assert_balance(ledger, "a", 9 * DOLLAR, 0, 9 * DOLLAR);
    ledger_close(ledger);
}

static void an_attempt_is_entered_once(void **state)
{
    (void)state;
    struct ledger *ledger = open_ledger(":memory:", NULL);
    reserve(ledger, "a", "1", DOLLAR);
    struct ledger_call again = call_of("a", "1", 1), retry = call_of("a", "1", 2);
    int64_t entry;
    err_t e = ledger_reserve(ledger, &again, DOLLAR, NULL, &entry);
    assert_int_equal(e.code, ERR_INVALID_ARGUMENT);
    assert_non_null(strstr(e.message, "attempt 1 of request 1"));
    assert_int_equal(ledger_reserve(ledger, &retry, DOLLAR, NULL, &entry).code, ERR_OK);
    assert_balance(ledger, "a", 0, 2 * DOLLAR, 0);
    char name[LEDGER_NAME_BYTES_MAX + 2];
    memset(name, 'x', sizeof name - 1);
    name[sizeof name - 1] = '\0';
    struct ledger_call bad = call_of(name, "2", 1);
    assert_int_equal(ledger_reserve(ledger, &bad, DOLLAR, NULL, &entry).code, ERR_INVALID_ARGUMENT);
    ledger_close(ledger);
}

static void calls_under_way_count_against_a_budget(void **state)
{
    (void)state;
    clock_ms = NOON_MS;
    struct ledger *ledger = open_ledger(":memory:", NULL);
    struct ledger_budget budget = {.per_day = 10 * DOLLAR, .per_month = 15 * DOLLAR};
    struct ledger_call first = call_of("a", "1", 1), second = call_of("a", "2", 1),
                       other = call_of("b", "2b", 1);
    int64_t entry, second_entry;
    assert_int_equal(ledger_reserve(ledger, &first, 6 * DOLLAR, &budget, &entry).code, ERR_OK);
    err_t e = ledger_reserve(ledger, &second, 4 * DOLLAR + 1, &budget, &second_entry);
    assert_int_equal(e.code, ERR_QUOTA_EXCEEDED);
    assert_string_equal(e.message,
                        "tenant \"a\" has spent $0.00 of its $10.00 for the day and reserved $6.00; this "
                        "call may cost $4.000000001");
    assert_int_equal(ledger_reserve(ledger, &other, 10 * DOLLAR, &budget, &second_entry).code, ERR_OK);
    assert_int_equal(ledger_reserve(ledger, &second, 4 * DOLLAR, &budget, &second_entry).code, ERR_OK);
    assert_int_equal(ledger_settle(ledger, entry, LEDGER_SETTLED, DOLLAR, NULL).code, ERR_OK);
    assert_int_equal(ledger_settle(ledger, second_entry, LEDGER_SETTLED, 8 * DOLLAR, NULL).code, ERR_OK);

    /* Tomorrow is a new day, but the same month. */
    clock_ms += DAY_MS;
    assert_balance(ledger, "a", 0, 0, 9 * DOLLAR);
    struct ledger_call third = call_of("a", "3", 1);
    e = ledger_reserve(ledger, &third, 7 * DOLLAR, &budget, &entry);
    assert_int_equal(e.code, ERR_QUOTA_EXCEEDED);
    assert_non_null(strstr(e.message, "for the month"));
    clock_ms += 4 * DAY_MS; /* the 2nd of December */
    assert_balance(ledger, "a", 0, 0, 0);
    assert_int_equal(ledger_reserve(ledger, &third, 7 * DOLLAR, &budget, &entry).code, ERR_OK);
    ledger_close(ledger);
}

static void count_line(void *context, const struct ledger_line *line)
{
    *(uint64_t *)context += line->n_calls;
}

static uint64_t calls_of(const char *path, char kept_from[LEDGER_DAY_BYTES])
{
    struct ledger *ledger;
    struct ledger_options options = {
        .path = path, .unix_ms = read_clock, .clock = &clock_ms, .read_only = true};
    uint64_t n = 0;
    assert_int_equal(ledger_open(&options, NULL, &ledger).code, ERR_OK);
    assert_int_equal(ledger_report(ledger, NULL, NULL, count_line, &n).code, ERR_OK);
    assert_int_equal(ledger_kept_from(ledger, kept_from).code, ERR_OK);
    ledger_close(ledger);
    return n;
}

static struct ledger *open_that_keeps(const char *path, int32_t days)
{
    struct ledger *ledger;
    struct ledger_options options = {
        .path = path, .unix_ms = read_clock, .clock = &clock_ms, .keep_days = days};
    err_t e = ledger_open(&options, NULL, &ledger);
    if (e.code != ERR_OK)
        fail_msg("%s", e.message);
    return ledger;
}

static void old_entries_are_deleted_and_budgets_stay_right(void **state)
{
    (void)state;
    struct place place = new_place();
    char kept_from[LEDGER_DAY_BYTES], id[24];
    int64_t old = 0;
    clock_ms = NOON_MS;
    struct ledger *ledger = open_ledger(place.path, NULL);
    for (int day = 0; day <= 40; day += 10) { /* 11-27, 12-07, 12-17, 12-27, 01-06 */
        clock_ms = NOON_MS + day * DAY_MS;
        for (int i = 0; i < 3; i++) {
            snprintf(id, sizeof id, "%d-%d", day, i);
            int64_t entry = reserve(ledger, "a", id, DOLLAR);
            if (day == 0 && i == 0)
                old = entry; /* under way all the time */
            else
                assert_int_equal(ledger_settle(ledger, entry, LEDGER_SETTLED, DOLLAR, NULL).code, ERR_OK);
        }
    }
    assert_balance(ledger, "a", 3 * DOLLAR, 0, 3 * DOLLAR);
    clock_ms = NOON_MS + 20 * DAY_MS; /* a clock that goes back finds its month */
    assert_balance(ledger, "a", 3 * DOLLAR, 0, 6 * DOLLAR);
    ledger_keep(ledger, 32); /* another configuration: from 2026-11-15 on, by that clock */
    assert_int_equal(ledger_settle(ledger, old, LEDGER_SETTLED, DOLLAR, NULL).code, ERR_OK);
    ledger_close(ledger);
    assert_int_equal(calls_of(place.path, kept_from), 15);
    assert_string_equal(kept_from, "");
    clock_ms = NOON_MS + 42 * DAY_MS; /* 01-08 - 32 days: 12-07 stays */
    ledger_close(open_that_keeps(place.path, 32));
    assert_int_equal(calls_of(place.path, kept_from), 12);
    assert_string_equal(kept_from, "2026-12-07");
    ledger = open_that_keeps(place.path, 0); /* nothing more is deleted, and what is there counts */
    assert_balance(ledger, "a", 0, 0, 3 * DOLLAR);
    int64_t open = reserve(ledger, "a", "open", 2 * DOLLAR);
    clock_ms += 100 * DAY_MS;
    ledger_keep(ledger, 32);
    assert_int_equal(ledger_settle(ledger, open, LEDGER_UNKNOWN, 0, NULL).code, ERR_OK);
    ledger_close(ledger);
    clock_ms += DAY_MS;
    ledger_close(open_that_keeps(place.path, 32));
    assert_int_equal(calls_of(place.path, kept_from), 0);
    ledger = open_ledger(place.path, NULL);
    assert_balance(ledger, "a", 0, 0, 0);
    int64_t again = reserve(ledger, "a", "0-1", DOLLAR);
    assert_int_equal(ledger_settle(ledger, again, LEDGER_SETTLED, DOLLAR, NULL).code, ERR_OK);
    assert_balance(ledger, "a", DOLLAR, 0, DOLLAR);
    ledger_close(ledger);
    forget_place(&place);
}

static void a_call_belongs_to_the_day_it_began(void **state)
{
    (void)state;
    clock_ms = NOON_MS;
    struct ledger *ledger = open_ledger(":memory:", NULL);
    int64_t entry = reserve(ledger, "a", "1", DOLLAR);
    clock_ms += DAY_MS;
    assert_int_equal(ledger_settle(ledger, entry, LEDGER_SETTLED, 2 * DOLLAR, NULL).code, ERR_OK);
    assert_balance(ledger, "a", 0, 0, 2 * DOLLAR);
    clock_ms -= DAY_MS;
    assert_balance(ledger, "a", 2 * DOLLAR, 0, 2 * DOLLAR);
    ledger_close(ledger);
}

static void what_a_crash_leaves_open_is_charged(void **state)
{
    (void)state;
    clock_ms = NOON_MS;
    struct place place = new_place();
    uint64_t n_lost = 7;
    struct ledger *ledger = open_ledger(place.path, &n_lost);
    assert_int_equal(n_lost, 0);
    reserve(ledger, "a", "1", DOLLAR);
    assert_int_equal(ledger_settle(ledger, reserve(ledger, "a", "2", DOLLAR), LEDGER_SETTLED, 5, NULL).code,
                     ERR_OK);
    ledger_close(ledger);
    ledger = open_ledger(place.path, &n_lost);
    assert_int_equal(n_lost, 1);
    assert_balance(ledger, "a", DOLLAR + 5, 0, DOLLAR + 5);
    ledger_close(ledger);
    ledger = open_ledger(place.path, &n_lost);
    assert_int_equal(n_lost, 0);
    ledger_close(ledger);
    forget_place(&place);
}

static void other_files_are_refused(void **state)
{
    (void)state;
    struct place place = new_place();
    FILE *file = fopen(place.path, "w");
    assert_non_null(file);
    for (int i = 0; i < 200; i++)
        fputs("this is a letter and no ledger\n", file);
    fclose(file);
    struct ledger_options options = {.path = place.path, .unix_ms = read_clock, .clock = &clock_ms};
    struct ledger *ledger;
    err_t e = ledger_open(&options, NULL, &ledger);
    assert_int_equal(e.code, ERR_INVALID_ARGUMENT);
    assert_non_null(strstr(e.message, place.path));
    options.path = place.folder;
    assert_int_equal(ledger_open(&options, NULL, &ledger).code, ERR_IO);
    forget_place(&place);
}

static void gather_line(void *context, const struct ledger_line *line)
{
    char cost[MONEY_TEXT_BYTES];
    money_format(line->cost, cost);
    assert_true(buffer_append_format(context, "%s %s %s %s %u/%u %u+%u %s\n", line->day, line->tenant,
                                     line->provider, line->model, (unsigned)line->n_calls,
                                     (unsigned)line->n_unknown, (unsigned)line->input_tokens,
                                     (unsigned)line->output_tokens, cost));
}

static void a_report_has_a_line_a_day_tenant_and_model(void **state)
{
    (void)state;
    clock_ms = NOON_MS;
    struct place place = new_place();
    struct ledger *ledger = open_ledger(place.path, NULL);
    struct answer_usage usage = {100, 50, -1, 20, -1};
    struct ledger_call local = {"l1", 1, "a", "local", "demo", "easy"};
    assert_int_equal(ledger_record(ledger, &local, 1000, &usage).code, ERR_OK);
    local.request_id = "l2";
    assert_int_equal(ledger_record(ledger, &local, 1000, &usage).code, ERR_OK);
    int64_t entry = reserve(ledger, "a", "1", DOLLAR);
    assert_int_equal(ledger_settle(ledger, entry, LEDGER_SETTLED, DOLLAR / 2, &usage).code, ERR_OK);
    entry = reserve(ledger, "a", "2", DOLLAR);
    assert_int_equal(ledger_settle(ledger, entry, LEDGER_UNKNOWN, 0, NULL).code, ERR_OK);
    entry = reserve(ledger, "a", "3", DOLLAR);
    assert_int_equal(ledger_settle(ledger, entry, LEDGER_RELEASED, 0, NULL).code, ERR_OK);
    clock_ms += DAY_MS;
    reserve(ledger, "b", "4", DOLLAR);

    struct buffer text = {.limit_bytes = 4096};
    assert_int_equal(ledger_report(ledger, NULL, NULL, gather_line, &text).code, ERR_OK);
    assert_string_equal(text.data, "2026-11-27 a local demo 2/0 200+40 $0.000002\n"
                                   "2026-11-27 a openai big 2/1 100+20 $1.50\n"
                                   "2026-11-28 b openai big 1/1 0+0 $1.00\n");
    buffer_clear(&text);
    assert_int_equal(ledger_report(ledger, "2026-11-28", "2026-11-30", gather_line, &text).code, ERR_OK);
    assert_string_equal(text.data, "2026-11-28 b openai big 1/1 0+0 $1.00\n");
    buffer_free(&text);
    ledger_close(ledger);
    forget_place(&place);
}

/* Millions of calls are no reason to grow: what nobody can read is not kept. */
static void without_a_file_only_sums_are_kept(void **state)
{
    (void)state;
    enum { BATCHES = 8, CALLS = 500 };
    clock_ms = NOON_MS;
    struct ledger *ledger = open_ledger(":memory:", NULL);
    struct answer_usage usage = {100, 50, -1, 20, -1};
    int64_t open = reserve(ledger, "a", "open", DOLLAR);
    sqlite3_int64 before = 0;
    for (int i = 0; i < BATCHES; i++) {
        uint64_t n_lines = 0;
        for (int j = 0; j < CALLS; j++) {
            char id[32];
            (void)snprintf(id, sizeof id, "%d-%d", i, j);
            struct ledger_call call = call_of("a", id, 1);
            assert_int_equal(ledger_record(ledger, &call, 1000, &usage).code, ERR_OK);
        }
        assert_int_equal(ledger_report(ledger, NULL, NULL, count_line, &n_lines).code, ERR_OK);
        assert_int_equal(n_lines, 1); /* the one that is open */
        if (i == 0)
            before = sqlite3_memory_used();
    }
    assert_in_range(sqlite3_memory_used(), 0, before + 65536); /* 3,500 entries are some 700 KB */
    assert_balance(ledger, "a", 1000 * CALLS * BATCHES, DOLLAR, 1000 * CALLS * BATCHES);
    assert_int_equal(ledger_settle(ledger, open, LEDGER_SETTLED, DOLLAR, &usage).code, ERR_OK);
    assert_balance(ledger, "a", 1000 * CALLS * BATCHES + DOLLAR, 0, 1000 * CALLS * BATCHES + DOLLAR);
    ledger_close(ledger);
}

static void ignore_line(void *context, const struct ledger_line *line)
{
    assert_null(context);
    assert_non_null(line);
}

enum { THREADS = 4, CALLS = 100 };

struct spender {
    struct ledger *ledger;
    int number, n_refused;
};

static void *spend(void *context)
{
    struct spender *spender = context;
    struct ledger_budget budget = {.per_day = 50 * DOLLAR};
    for (int i = 0; i < CALLS; i++) {
        char id[32];
        snprintf(id, sizeof id, "%d-%d", spender->number, i);
        struct ledger_call call = call_of("a", id, 1);
        int64_t entry;
        err_t e = ledger_reserve(spender->ledger, &call, DOLLAR, &budget, &entry);
        if (e.code == ERR_OK)
            e = ledger_settle(spender->ledger, entry, LEDGER_SETTLED, DOLLAR, NULL);
        else
            spender->n_refused++;
    }
    return NULL;
}

static void threads_cannot_overrun_a_budget(void **state)
{
    (void)state;
    clock_ms = NOON_MS;
    struct ledger *ledger = open_ledger(":memory:", NULL);
    struct spender spenders[THREADS];
    pthread_t threads[THREADS];
    int n_refused = 0;
    for (int i = 0; i < THREADS; i++) {
        spenders[i] = (struct spender){ledger, i, 0};
        assert_int_equal(pthread_create(&threads[i], NULL, spend, &spenders[i]), 0);
    }
    for (int i = 0; i < THREADS; i++) {
        pthread_join(threads[i], NULL);
        n_refused += spenders[i].n_refused;
    }
    assert_int_equal(n_refused, THREADS * CALLS - 50);
    assert_balance(ledger, "a", 50 * DOLLAR, 0, 50 * DOLLAR);
    ledger_close(ledger);
}

static void tell_promise(int out, char kind)
{
    const char line[2] = {kind, '\n'};
    if (write(out, line, 2) != 2)
        _exit(1);
}

/* Reserves and settles for ever, and says each time what the ledger has promised: an end by itself, by a
 * flush, or by the promise that follows. */
static void run_until_killed(const char *path, int out, int round)
{
    struct ledger *ledger = open_ledger(path, NULL);
    bool waits = false;
    for (int i = 0;; i++) {
        char id[32];
        snprintf(id, sizeof id, "%d-%d", round, i);
        int64_t entry = reserve(ledger, "a", id, 3);
        tell_promise(out, 'R');
        if (waits)
            tell_promise(out, 'S');
        waits = i % 4 == 3;
        if (i % 4 == 0)
            continue; /* still under way when the end comes */
        err_t e = i % 4 == 1 ? ledger_settle(ledger, entry, LEDGER_SETTLED, 2, NULL)
                             : ledger_settle_soon(ledger, entry, LEDGER_SETTLED, 2, NULL);
        if (e.code == ERR_OK && i % 4 == 2)
            e = ledger_flush(ledger);
        if (e.code != ERR_OK)
            _exit(1);
        if (!waits)
            tell_promise(out, 'S');
    }
}

static void kill_9_loses_and_doubles_nothing(void **state)
{
    (void)state;
    clock_ms = NOON_MS;
    struct place place = new_place();
    ledger_close(open_ledger(place.path, NULL));
    int64_t n_reserved = 0, n_settled = 0;
    for (int round = 0; round < 8; round++) {
        int pipe_ends[2];
        assert_int_equal(pipe(pipe_ends), 0);
        pid_t child = fork();
        assert_true(child >= 0);
        if (child == 0)
            run_until_killed(place.path, pipe_ends[1], round);
        close(pipe_ends[1]);
        char bytes[2];
        /* Another number of promises in each round, then what was on its way. */
        for (int i = 0; i < 20 + 37 * round; i++) {
            assert_int_equal(read(pipe_ends[0], bytes, 2), 2);
            n_reserved += bytes[0] == 'R';
            n_settled += bytes[0] == 'S';
        }
        assert_int_equal(kill(child, SIGKILL), 0);
        int status;
        assert_int_equal(waitpid(child, &status, 0), child);
        assert_true(WIFSIGNALED(status));
        while (read(pipe_ends[0], bytes, 2) == 2) {
            n_reserved += bytes[0] == 'R';
            n_settled += bytes[0] == 'S';
        }
        close(pipe_ends[0]);
    }
    uint64_t n_lost;
    struct ledger *ledger = open_ledger(place.path, &n_lost);
    struct ledger_balance today, this_month;
    assert_int_equal(ledger_balance(ledger, "a", &today, &this_month).code, ERR_OK);
    /* A child may have written one entry more, and settled one more, than it could say. */
    int64_t most = n_reserved * 3 - n_settled + 8 * 3, least = n_reserved * 3 - n_settled - 8;
    assert_int_equal(today.reserved, 0);
    assert_in_range(today.spent, least, most);
    struct buffer text = {.limit_bytes = 4096};
    assert_int_equal(ledger_report(ledger, NULL, NULL, gather_line, &text).code, ERR_OK);
    unsigned n_entries, n_unknown;
    assert_int_equal(sscanf(text.data, "2026-11-27 a openai big %u/%u", &n_entries, &n_unknown), 2);
    assert_in_range(n_entries, n_reserved, n_reserved + 8);
    assert_int_equal(today.spent, 2 * (int64_t)(n_entries - n_unknown) + 3 * (int64_t)n_unknown);
    buffer_free(&text);
    ledger_close(ledger);
    forget_place(&place);
}

static void one_process_writes_a_ledger_and_others_read(void **state)
{
    (void)state;
    clock_ms = NOON_MS;
    struct place place = new_place();
    struct ledger *reader, *ledger = open_ledger(place.path, NULL);
    int64_t entry = reserve(ledger, "a", "1", DOLLAR);
    fflush(NULL);
    pid_t child = fork();
    if (child == 0) {
        struct ledger_options options = {.path = place.path, .unix_ms = read_clock, .clock = &clock_ms};
        struct ledger *second;
        _exit(ledger_open(&options, NULL, &second).code == ERR_FAILED_PRECONDITION ? 0 : 1);
    }
    int status;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_int_equal(status, 0);

    struct ledger_options options = {
        .path = place.path, .unix_ms = read_clock, .clock = &clock_ms, .read_only = true};
    assert_int_equal(ledger_open(&options, NULL, &reader).code, ERR_OK);
    struct buffer text = {.limit_bytes = 4096};
    assert_int_equal(ledger_report(reader, NULL, NULL, gather_line, &text).code, ERR_OK);
    assert_string_equal(text.data, "2026-11-27 a openai big 1/1 0+0 $1.00\n");
    struct ledger_call call = call_of("a", "2", 1);
    int64_t none;
    assert_int_equal(ledger_reserve(reader, &call, DOLLAR, NULL, &none).code, ERR_IO);
    ledger_close(reader);
    /* What was open is open still. */
    assert_int_equal(ledger_settle(ledger, entry, LEDGER_SETTLED, 5, NULL).code, ERR_OK);
    ledger_close(ledger);
    forget_place(&place);
    options.path = "/nowhere/at/all";
    assert_int_equal(ledger_open(&options, NULL, &reader).code, ERR_NOT_FOUND);
    buffer_free(&text);
}

/* More than the write-ahead log takes before it is copied, in many batches. */
static void a_long_log_is_copied_into_the_file(void **state)
{
    (void)state;
    clock_ms = NOON_MS;
    struct place place = new_place();
    struct ledger *ledger = open_ledger(place.path, NULL);
    struct stat status;
    uint64_t n = 0, n_lost;
    do { /* the file itself grows only when its log is copied */
        char id[24];
        for (int i = 0; i < 1000; i++) {
            snprintf(id, sizeof id, "%llu", (unsigned long long)n++);
            reserve(ledger, "a", id, 1);
        }
        assert_int_equal(ledger_report(ledger, NULL, NULL, ignore_line, NULL).code, ERR_OK);
        assert_int_equal(stat(place.path, &status), 0);
        assert_true(n < 100000);
    } while (status.st_size < 1000000);
    assert_balance(ledger, "a", 0, (nanodollars)n, 0);
    ledger_close(ledger);
    ledger = open_ledger(place.path, &n_lost);
    assert_int_equal(n_lost, n);
    ledger_close(ledger);
    forget_place(&place);
}

/* --- the journal */

static void copy_file(const char *from, const char *to)
{
    char *bytes;
    size_t size;
    assert_int_equal(file_read(from, 1 << 20, &bytes, &size).code, ERR_OK);
    FILE *file = fopen(to, "w");
    assert_non_null(file);
    assert_int_equal(fwrite(bytes, 1, size, file), size);
    assert_int_equal(fclose(file), 0);
    mem_free(bytes);
}

static void assert_report(const char *path, const char *expected)
{
    struct ledger *ledger;
    struct buffer text = {.limit_bytes = 4096};
    struct ledger_options options = {
        .path = path, .unix_ms = read_clock, .clock = &clock_ms, .read_only = true};
    assert_int_equal(ledger_open(&options, NULL, &ledger).code, ERR_OK);
    assert_int_equal(ledger_report(ledger, NULL, NULL, gather_line, &text).code, ERR_OK);
    assert_string_equal(text.data, expected);
    buffer_free(&text);
    ledger_close(ledger);
}

/* One entry that is over, one that is open, and a third that is in the journal at most. */
static void write_three(struct ledger *ledger)
{
    struct answer_usage usage = {10, -1, -1, 20, -1};
    int64_t first = reserve(ledger, "a", "1", DOLLAR);
    reserve(ledger, "a", "2", DOLLAR);
    assert_int_equal(ledger_report(ledger, NULL, NULL, ignore_line, NULL).code, ERR_OK); /* folds */
    assert_int_equal(ledger_settle(ledger, first, LEDGER_SETTLED, DOLLAR / 2, &usage).code, ERR_OK);
    struct ledger_call local = {"3", 1, "b", "local", "demo", "easy"};
    assert_int_equal(ledger_record(ledger, &local, 7, &usage).code, ERR_OK);
}

static const char THREE[] = "2026-11-27 a openai big 2/1 10+20 $1.50\n"
                            "2026-11-27 b local demo 1/0 10+20 $0.000000007\n";

/* In a child, which is killed. */
static void write_and_die(const char *path, void (*write_some)(struct ledger *ledger))
{
    fflush(NULL);
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        write_some(open_ledger(path, NULL));
        raise(SIGKILL);
    }
    int status;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFSIGNALED(status));
}

/* A child writes and is killed: what it promised is there for a reader, and after the next start, once. Then
 * the journal comes back as it was, as if the machine had stopped before it was emptied, and the like with a
 * piece of a record at its end. */
static void a_journal_is_read_as_often_as_it_is_there(void **state)
{
    (void)state;
    clock_ms = NOON_MS;
    struct place place = new_place();
    char journal[128], kept[128];
    snprintf(journal, sizeof journal, "%s-promises", place.path);
    snprintf(kept, sizeof kept, "%s/kept", place.folder);
    write_and_die(place.path, write_three);
    assert_report(place.path, THREE);
    copy_file(journal, kept);
    for (int round = 0; round < 3; round++) {
        uint64_t n_lost;
        struct ledger *ledger = open_ledger(place.path, &n_lost);
        assert_int_equal(n_lost, round == 0);
        assert_balance(ledger, "a", DOLLAR + DOLLAR / 2, 0, DOLLAR + DOLLAR / 2);
        assert_balance(ledger, "b", 7, 0, 7);
        ledger_close(ledger);
        assert_int_equal(access(journal, F_OK), -1);
        assert_report(place.path, THREE);
        copy_file(kept, journal);
        if (round == 1)
            assert_int_equal(truncate(journal, 30), 0);
        assert_report(place.path, THREE);
    }
    unlink(kept);
    forget_place(&place);
}

static void write_two_more(struct ledger *ledger)
{
    const struct answer_usage usage = {10, -1, -1, 20, -1};
    struct ledger_call local = {"4", 1, "c", "local", "demo", "easy"};
    assert_int_equal(ledger_record(ledger, &local, 9, &usage).code, ERR_OK);
    reserve(ledger, "d", "5", DOLLAR);
}

/* A journal that ends in a piece of an entry cannot be emptied while somebody reads it: what the next process
 * promises stands behind the last whole entry all the same, and is there after the next kill. */
static void nothing_is_lost_behind_a_piece_of_an_entry(void **state)
{
    (void)state;
    clock_ms = NOON_MS;
    struct place place = new_place();
    char journal[128];
    snprintf(journal, sizeof journal, "%s-promises", place.path);
    write_and_die(place.path, write_three);
    FILE *file = fopen(journal, "a");
    assert_int_equal(fwrite("\x40\0\0\0torn", 1, 8, file), 8);
    assert_int_equal(fclose(file), 0);
    struct journal_view reader;
    assert_int_equal(journal_view_open(place.path, &reader).code, ERR_OK);
    write_and_die(place.path, write_two_more);
    journal_view_close(&reader);
    uint64_t n_lost;
    struct ledger *ledger = open_ledger(place.path, &n_lost);
    assert_int_equal(n_lost, 1);
    assert_balance(ledger, "a", DOLLAR + DOLLAR / 2, 0, DOLLAR + DOLLAR / 2);
    assert_balance(ledger, "b", 7, 0, 7);
    assert_balance(ledger, "c", 9, 0, 9);
    assert_balance(ledger, "d", DOLLAR, 0, DOLLAR);
    ledger_close(ledger);
    forget_place(&place);
}

/* Any byte may be wrong: what is before it stands, and nothing is made up. */
static void a_damaged_journal_ends_where_it_is_damaged(void **state)
{
    (void)state;
    clock_ms = NOON_MS;
    struct place place = new_place();
    char journal[128];
    snprintf(journal, sizeof journal, "%s-promises", place.path);
    struct ledger *ledger = open_ledger(place.path, NULL);
    reserve(ledger, "a", "1", DOLLAR);
    reserve(ledger, "b", "2", DOLLAR);
    char *bytes;
    size_t size;
    assert_int_equal(file_read(journal, 1 << 20, &bytes, &size).code, ERR_OK);
    ledger_close(ledger);
    for (size_t at = 0; at < size; at++) {
        struct journal_view view;
        struct journal_record record;
        FILE *file = fopen(journal, "w");
        bytes[at] = (char)(bytes[at] ^ 0x21);
        assert_int_equal(fwrite(bytes, 1, size, file), size);
        assert_int_equal(fclose(file), 0);
        bytes[at] = (char)(bytes[at] ^ 0x21);
        assert_int_equal(journal_view_open(place.path, &view).code, ERR_OK);
        size_t place_of = 0, n = 0;
        while (journal_view_next(&view, &place_of, &record)) {
            assert_string_equal(record.call.tenant, n == 0 ? "a" : "b");
            n++;
        }
        assert_int_equal(n, at < size / 2 ? 0 : 1);
        journal_view_close(&view);
    }
    mem_free(bytes);
    forget_place(&place);
}

static void a_name_that_comes_again_is_charged_all_the_same(void **state)
{
    (void)state;
    clock_ms = NOON_MS;
    struct place place = new_place();
    struct ledger *ledger = open_ledger(place.path, NULL);
    for (int i = 0; i < 2; i++) {
        assert_int_equal(
            ledger_settle(ledger, reserve(ledger, "a", "1", DOLLAR), LEDGER_SETTLED, 5, NULL).code, ERR_OK);
        assert_int_equal(ledger_report(ledger, NULL, NULL, ignore_line, NULL).code, ERR_OK); /* folds */
    }
    struct buffer text = {.limit_bytes = 4096};
    assert_int_equal(ledger_report(ledger, NULL, NULL, gather_line, &text).code, ERR_OK);
    assert_string_equal(text.data, "2026-11-27 a openai big 2/0 0+0 $0.00000001\n");
    buffer_free(&text);
    ledger_close(ledger);
    forget_place(&place);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_reservation_becomes_what_it_cost),
        cmocka_unit_test(an_attempt_is_entered_once),
        cmocka_unit_test(calls_under_way_count_against_a_budget),
        cmocka_unit_test(old_entries_are_deleted_and_budgets_stay_right),
        cmocka_unit_test(a_call_belongs_to_the_day_it_began),
        cmocka_unit_test(what_a_crash_leaves_open_is_charged),
        cmocka_unit_test(other_files_are_refused),
        cmocka_unit_test(a_report_has_a_line_a_day_tenant_and_model),
        cmocka_unit_test(without_a_file_only_sums_are_kept),
        cmocka_unit_test(one_process_writes_a_ledger_and_others_read),
        cmocka_unit_test(a_journal_is_read_as_often_as_it_is_there),
        cmocka_unit_test(nothing_is_lost_behind_a_piece_of_an_entry),
        cmocka_unit_test(a_damaged_journal_ends_where_it_is_damaged),
        cmocka_unit_test(a_name_that_comes_again_is_charged_all_the_same),
        cmocka_unit_test(a_long_log_is_copied_into_the_file),
        cmocka_unit_test(threads_cannot_overrun_a_budget),
        cmocka_unit_test(kill_9_loses_and_doubles_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
