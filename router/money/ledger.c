#include "router/money/ledger.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <sqlite3.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <time.h>
#include <unistd.h>
#include "base/alloc.h"
#include "base/assert.h"
#include "base/event_count.h"
#include "base/log.h"

enum {
    SCHEMA_VERSION = 1,
    APPLICATION_ID = 0x42414e4c, /* "BANL", in the file's header: this file is ours */
    BUSY_TIMEOUT_MS = 5000,      /* another process reads or writes the same file */
    DAY_BYTES = 11,              /* "2026-11-27" and a NUL */
    PAGE_BYTES = 1024,           /* small: every entry writes five pages to the log, whole */
    CHECKPOINT_PAGES = 4096,     /* of the write-ahead log, before it is copied into the file */
    LOG_PAGES_MAX = 65536,       /* before writers are stopped so that the log can begin from the start */
};

/* outcome: NULL while reserved, else enum ledger_outcome. charged: what counts against the budget, the
 * estimate until it is settled. `balances` holds the sums of `entries` by day, so that a budget is checked in
 * two look-ups. */
static const char SCHEMA[] =
    "CREATE TABLE entries (id INTEGER PRIMARY KEY, request_id TEXT NOT NULL, attempt INTEGER NOT NULL,"
    " day TEXT NOT NULL, at_ms INTEGER NOT NULL, tenant TEXT NOT NULL, provider TEXT NOT NULL, model TEXT "
    "NOT NULL,"
    " reason TEXT NOT NULL, outcome INTEGER, estimate INTEGER NOT NULL, charged INTEGER NOT NULL,"
    " ended_ms INTEGER, input_tokens INTEGER, cached_tokens INTEGER, output_tokens INTEGER,"
    " UNIQUE (request_id, attempt));"
    "CREATE INDEX entries_day ON entries (day);"
    "CREATE INDEX entries_open ON entries (id) WHERE outcome IS NULL;"
    "CREATE TABLE balances (tenant TEXT NOT NULL, day TEXT NOT NULL, spent INTEGER NOT NULL,"
    " reserved INTEGER NOT NULL, PRIMARY KEY (tenant, day)) WITHOUT ROWID;";

enum statement {
    BEGIN,
    COMMIT,
    ROLLBACK,
    INSERT,
    FIND_OPEN,
    END_ENTRY,
    BALANCE_ADD,
    BALANCE_OF_DAYS,
    REPORT,
    STATEMENTS,
};

static const char *const SQL[STATEMENTS] = {
    [BEGIN] = "BEGIN IMMEDIATE",
    [COMMIT] = "COMMIT",
    [ROLLBACK] = "ROLLBACK",
    [INSERT] =
        "INSERT INTO entries (request_id, attempt, day, at_ms, tenant, provider, model, reason, estimate,"
        " charged) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?9, ?9)",
    [FIND_OPEN] = "SELECT tenant, day, estimate FROM entries WHERE id = ? AND outcome IS NULL",
    [END_ENTRY] =
        "UPDATE entries SET outcome = ?, charged = ?, ended_ms = ?, input_tokens = ?, cached_tokens = ?,"
        " output_tokens = ? WHERE id = ? AND outcome IS NULL",
    [BALANCE_ADD] = "INSERT INTO balances (tenant, day, spent, reserved) VALUES (?, ?, ?3, ?4)"
                    " ON CONFLICT (tenant, day) DO UPDATE SET spent = spent + ?3, reserved = reserved + ?4",
    [BALANCE_OF_DAYS] = "SELECT coalesce(sum(spent), 0), coalesce(sum(reserved), 0) FROM balances"
                        " WHERE tenant = ? AND day BETWEEN ? AND ?",
    [REPORT] = "SELECT day, tenant, provider, model, count(*), sum(outcome IS NULL OR outcome IN (1, 3)),"
               " coalesce(sum(input_tokens), 0), coalesce(sum(output_tokens), 0), sum(charged), "
               "sum(input_tokens IS NULL OR output_tokens IS NULL) FROM entries"
               " WHERE day BETWEEN ?1 AND ?2 AND outcome IS NOT 2 GROUP BY day, tenant, provider, model"
               " ORDER BY day, tenant, provider, model",
};
_Static_assert(LEDGER_UNKNOWN == 1 && LEDGER_RELEASED == 2 && LEDGER_LOST == 3,
               "numbers of REPORT and of files");

struct ledger {
    pthread_mutex_t lock;
    struct ledger_options options;
    int lock_file; /* the file again, locked: one writer; -1 = none */
    sqlite3 *database;
    sqlite3_stmt *statements[STATEMENTS];
    int n_pages_seen; /* of the log when the copier was last called; under the lock */
    bool has_copier;
    pthread_t copier;
    sqlite3 *copier_database;
    struct event_count wake; /* the copier: the log is long, or the ledger closes */
    _Atomic bool is_closing;
};

const char *ledger_outcome_name(enum ledger_outcome outcome)
{
    static const char *const NAMES[LEDGER_OUTCOMES] = {"settled", "unknown", "released", "lost"};
    return NAMES[outcome];
}

static err_t failed(struct ledger *ledger, const char *what)
{
    return err_new(ERR_IO, "the ledger %s cannot %s: %s", ledger->options.path, what,
                   sqlite3_errmsg(ledger->database));
}

static err_t run_text(struct ledger *ledger, const char *sql)
{
    return sqlite3_exec(ledger->database, sql, NULL, NULL, NULL) == SQLITE_OK ? err_ok()
                                                                              : failed(ledger, "be opened");
}

/* Runs a statement that gives no rows. */
static err_t run(struct ledger *ledger, enum statement which)
{
    sqlite3_stmt *statement = ledger->statements[which];
    int rc = sqlite3_step(statement);
    err_t e = rc == SQLITE_DONE ? err_ok() : failed(ledger, "be written");
    sqlite3_reset(statement);
    sqlite3_clear_bindings(statement);
    return e;
}

static void bind_text(sqlite3_stmt *statement, int at, const char *text)
{
    int rc = sqlite3_bind_text(statement, at, text, -1, SQLITE_TRANSIENT);
    ASSERT(rc == SQLITE_OK || rc == SQLITE_NOMEM); /* then the step fails: a column is NULL that may not be */
}

static void bind_number(sqlite3_stmt *statement, int at, int64_t number)
{
    ASSERT(sqlite3_bind_int64(statement, at, number) == SQLITE_OK);
}

/* -1, not told, is NULL. */
static void bind_count(sqlite3_stmt *statement, int at, int64_t count)
{
    if (count >= 0)
        bind_number(statement, at, count);
}

static void day_of(int64_t unix_ms, char out[DAY_BYTES])
{
    time_t seconds = (time_t)(unix_ms / 1000);
    struct tm date;
    gmtime_r(&seconds, &date);
    size_t written = strftime(out, DAY_BYTES, "%Y-%m-%d", &date);
    ASSERT(written == DAY_BYTES - 1);
}

static int64_t now_ms(const struct ledger *ledger)
{
    return ledger->options.unix_ms(ledger->options.clock);
}

/* A value of the file's header, and of the pragmas. */
static int64_t pragma_value(struct ledger *ledger, const char *sql)
{
    sqlite3_stmt *statement;
    if (sqlite3_prepare_v2(ledger->database, sql, -1, &statement, NULL) != SQLITE_OK)
        return -1;
    int64_t value = sqlite3_step(statement) == SQLITE_ROW ? sqlite3_column_int64(statement, 0) : -1;
    sqlite3_finalize(statement);
    return value;
}

static err_t make_tables(struct ledger *ledger)
{
    char header[96];
    snprintf(header, sizeof header, "PRAGMA application_id = %d; PRAGMA user_version = %d", APPLICATION_ID,
             SCHEMA_VERSION);
    TRY(run_text(ledger, "BEGIN IMMEDIATE"));
    err_t e = run_text(ledger, SCHEMA);
    if (e.code == ERR_OK)
        e = run_text(ledger, header);
    if (e.code == ERR_OK)
        return run_text(ledger, "COMMIT");
    err_t ignored = run_text(ledger, "ROLLBACK");
    (void)ignored;
    return e;
}

/* SQLite's own locks are another kind, which are lost when any descriptor of the file is closed: this one
 * stays open for as long as the database. */
static err_t lock_file(struct ledger *ledger)
{
    const char *path = ledger->options.path;
    if (strcmp(path, ":memory:") == 0 || ledger->options.read_only)
        return err_ok();
    ledger->lock_file = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (ledger->lock_file < 0)
        return err_new(ERR_IO, "the ledger %s cannot be opened: %s", path, strerror(errno));
    if (flock(ledger->lock_file, LOCK_EX | LOCK_NB) != 0)
        return err_new(ERR_FAILED_PRECONDITION, "another process writes the ledger %s: one router a ledger",
                       path);
    return err_ok();
}

static err_t open_database(struct ledger *ledger)
{
    const char *path = ledger->options.path;
    int flags =
        SQLITE_OPEN_READWRITE | SQLITE_OPEN_NOMUTEX | (ledger->options.read_only ? 0 : SQLITE_OPEN_CREATE);
    if (ledger->options.read_only && access(path, F_OK) != 0)
        return err_new(errno == ENOENT ? ERR_NOT_FOUND : ERR_IO, "%s: %s", path, strerror(errno));
    TRY(lock_file(ledger));
    if (sqlite3_open_v2(path, &ledger->database, flags, NULL) != SQLITE_OK)
        return failed(ledger, "be opened");
    sqlite3_busy_timeout(ledger->database, BUSY_TIMEOUT_MS);
    int64_t application = pragma_value(ledger, "PRAGMA application_id"),
            version = pragma_value(ledger, "PRAGMA user_version"),
            n_tables = pragma_value(ledger, "SELECT count(*) FROM sqlite_master");
    if (n_tables < 0 || (n_tables == 0 && ledger->options.read_only) ||
        (n_tables > 0 && application != APPLICATION_ID))
        return err_new(ERR_INVALID_ARGUMENT, "%s is not a ledger of ours: name another file, or none yet",
                       path);
    if (n_tables == 0) {
        char page_size[48];
        snprintf(page_size, sizeof page_size, "PRAGMA page_size = %d", PAGE_BYTES);
        TRY(run_text(ledger, page_size));
    }
    if (version > SCHEMA_VERSION)
        return err_new(ERR_INVALID_ARGUMENT,
                       "%s is a ledger of version %lld; this program reads up to version %d", path,
                       (long long)version, SCHEMA_VERSION);
    if (ledger->options.read_only)
        return run_text(ledger, "PRAGMA query_only = ON");
    TRY(run_text(ledger, "PRAGMA journal_mode = WAL"));
    TRY(run_text(ledger,
                 ledger->options.durable ? "PRAGMA synchronous = FULL" : "PRAGMA synchronous = NORMAL"));
    return n_tables == 0 ? make_tables(ledger) : err_ok();
}

static err_t prepare(struct ledger *ledger)
{
    for (int i = 0; i < STATEMENTS; i++) {
        if (sqlite3_prepare_v3(ledger->database, SQL[i], -1, SQLITE_PREPARE_PERSISTENT,
                               &ledger->statements[i], NULL) != SQLITE_OK)
            return failed(ledger, "be read");
    }
    return err_ok();
}

/* ---- The write-ahead log ---- */

static int see_log(void *context, sqlite3 *database, const char *name, int n_pages)
{
    struct ledger *ledger = context;
    ASSERT(database == ledger->database && name);
    if (n_pages < ledger->n_pages_seen) /* it began from the start */
        ledger->n_pages_seen = 0;
    if (n_pages - ledger->n_pages_seen >= CHECKPOINT_PAGES) {
        ledger->n_pages_seen = n_pages;
        event_count_bump(&ledger->wake);
    }
    return SQLITE_OK;
}

/* Copies what the log has into the file; the pages that the log still has in *n_pages. */
static void copy_log(struct ledger *ledger, int *n_pages)
{
    int n_copied;
    *n_pages = 0;
    int rc = sqlite3_wal_checkpoint_v2(ledger->copier_database, NULL, SQLITE_CHECKPOINT_PASSIVE, n_pages,
                                       &n_copied);
    if (rc != SQLITE_OK && rc != SQLITE_BUSY)
        log_warn("money", "the log of the ledger %s cannot be copied into it: %s", ledger->options.path,
                 sqlite3_errmsg(ledger->copier_database));
}

/* Syncing the disk takes milliseconds, for which no call waits. The log begins from its start when all of it
 * has been copied and nobody has written meanwhile: when that never happens, writers are stopped for a
 * moment. */
static void *copy_logs(void *context)
{
    struct ledger *ledger = context;
    while (!atomic_load(&ledger->is_closing)) {
        uint32_t seen = event_count_read(&ledger->wake);
        int n_pages;
        copy_log(ledger, &n_pages);
        if (n_pages >= LOG_PAGES_MAX) {
            pthread_mutex_lock(&ledger->lock);
            copy_log(ledger, &n_pages);
            pthread_mutex_unlock(&ledger->lock);
        }
        if (!atomic_load(&ledger->is_closing))
            event_count_wait(&ledger->wake, seen, -1);
    }
    return NULL;
}

/* A database in memory has no log. */
static err_t start_copier(struct ledger *ledger)
{
    if (sqlite3_db_filename(ledger->database, "main")[0] == '\0')
        return err_ok();
    if (sqlite3_open_v2(ledger->options.path, &ledger->copier_database,
                        SQLITE_OPEN_READWRITE | SQLITE_OPEN_NOMUTEX, NULL) != SQLITE_OK)
        return failed(ledger, "be opened");
    /* A connection that has read nothing knows of no log, and copies none. */
    if (sqlite3_exec(ledger->copier_database, "SELECT count(*) FROM entries WHERE id = 0", NULL, NULL,
                     NULL) != SQLITE_OK)
        return err_new(ERR_IO, "the ledger %s cannot be read: %s", ledger->options.path,
                       sqlite3_errmsg(ledger->copier_database));
    sqlite3_wal_hook(ledger->database, see_log, ledger);
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    ledger->has_copier = pthread_create(&ledger->copier, NULL, copy_logs, ledger) == 0;
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return ledger->has_copier ? err_ok() : err_new(ERR_RESOURCE_EXHAUSTED, "no thread for the ledger");
}

static void stop_copier(struct ledger *ledger)
{
    atomic_store(&ledger->is_closing, true);
    event_count_bump(&ledger->wake);
    if (ledger->has_copier)
        pthread_join(ledger->copier, NULL);
    sqlite3_close(ledger->copier_database);
}

/* ---- Entries ---- */

/* Ends a transaction that begun with BEGIN. */
static err_t finish(struct ledger *ledger, err_t e)
{
    if (e.code == ERR_OK)
        e = run(ledger, COMMIT);
    if (e.code != ERR_OK && !sqlite3_get_autocommit(ledger->database)) {
        err_t ignored = run(ledger, ROLLBACK);
        (void)ignored;
    }
    return e;
}

/* Reservations of a process that is gone: their estimates are spent. */
static err_t charge_lost(struct ledger *ledger, uint64_t *n_lost)
{
    char sql[128];
    snprintf(sql, sizeof sql, "UPDATE entries SET outcome = %d, ended_ms = %lld WHERE outcome IS NULL",
             LEDGER_LOST, (long long)now_ms(ledger));
    TRY(run(ledger, BEGIN));
    err_t e = run_text(ledger, sql);
    uint64_t n = e.code == ERR_OK ? (uint64_t)sqlite3_changes(ledger->database) : 0;
    if (e.code == ERR_OK)
        e = run_text(ledger,
                     "UPDATE balances SET spent = spent + reserved, reserved = 0 WHERE reserved != 0");
    TRY(finish(ledger, e));
    if (n_lost)
        *n_lost = n;
    return err_ok();
}

err_t ledger_open(const struct ledger_options *options, uint64_t *n_lost, struct ledger **out)
{
    struct ledger *ledger = mem_alloc(sizeof *ledger);
    if (ledger == NULL)
        return err_new(ERR_RESOURCE_EXHAUSTED, "no memory for a ledger");
    ledger->options = *options;
    ledger->lock_file = -1;
    ASSERT(pthread_mutex_init(&ledger->lock, NULL) == 0);
    ledger->options.path = mem_strdup(options->path);
    err_t e = ledger->options.path ? open_database(ledger)
                                   : err_new(ERR_RESOURCE_EXHAUSTED, "no memory for a ledger");
    if (e.code == ERR_OK)
        e = prepare(ledger);
    if (e.code == ERR_OK && !options->read_only)
        e = charge_lost(ledger, n_lost);
    if (e.code == ERR_OK && !options->read_only)
        e = start_copier(ledger);
    if (e.code != ERR_OK)
        ledger_close(ledger);
    else
        *out = ledger;
    return e;
}

void ledger_close(struct ledger *ledger)
{
    if (ledger == NULL)
        return;
    stop_copier(ledger);
    for (int i = 0; i < STATEMENTS; i++)
        sqlite3_finalize(ledger->statements[i]);
    sqlite3_close(ledger->database);
    if (ledger->lock_file >= 0)
        close(ledger->lock_file);
    pthread_mutex_destroy(&ledger->lock);
    mem_free((char *)ledger->options.path);
    mem_free(ledger);
}

static err_t read_balance(struct ledger *ledger, const char *tenant, const char *first_day,
                          const char *last_day, struct ledger_balance *out)
{
    sqlite3_stmt *statement = ledger->statements[BALANCE_OF_DAYS];
    bind_text(statement, 1, tenant);
    bind_text(statement, 2, first_day);
    bind_text(statement, 3, last_day);
    err_t e = err_ok();
    if (sqlite3_step(statement) == SQLITE_ROW)
        *out =
            (struct ledger_balance){sqlite3_column_int64(statement, 0), sqlite3_column_int64(statement, 1)};
    else
        e = failed(ledger, "be read");
    sqlite3_reset(statement);
    sqlite3_clear_bindings(statement);
    return e;
}

static err_t read_balances(struct ledger *ledger, const char *tenant, const char day[DAY_BYTES],
                           struct ledger_balance *today, struct ledger_balance *this_month)
{
    char first[DAY_BYTES];
    memcpy(first, day, DAY_BYTES);
    memcpy(first + DAY_BYTES - 3, "01", 2);
    TRY(read_balance(ledger, tenant, day, day, today));
    return read_balance(ledger, tenant, first, day, this_month);
}

static err_t check_limit(const char *tenant, const struct ledger_balance *balance, nanodollars estimate,
                         nanodollars limit, const char *span)
{
    nanodollars used = money_add(balance->spent, balance->reserved);
    if (limit == 0 || (estimate <= limit && used <= limit - estimate))
        return err_ok();
    char of[MONEY_TEXT_BYTES], spent[MONEY_TEXT_BYTES], reserved[MONEY_TEXT_BYTES], more[MONEY_TEXT_BYTES];
    money_format(limit, of);
    money_format(balance->spent, spent);
    money_format(balance->reserved, reserved);
    money_format(estimate, more);
    return err_new(ERR_QUOTA_EXCEEDED,
                   "tenant \"%s\" has spent %s of its %s for the %s and reserved %s; this call may cost %s",
                   tenant, spent, of, span, reserved, more);
}

static err_t check_budget(struct ledger *ledger, const char *tenant, const char day[DAY_BYTES],
                          nanodollars estimate, const struct ledger_budget *budget)
{
    if (budget == NULL || (budget->per_day == 0 && budget->per_month == 0))
        return err_ok();
    struct ledger_balance today, this_month;
    TRY(read_balances(ledger, tenant, day, &today, &this_month));
    TRY(check_limit(tenant, &today, estimate, budget->per_day, "day"));
    return check_limit(tenant, &this_month, estimate, budget->per_month, "month");
}

static err_t add_to_balance(struct ledger *ledger, const char *tenant, const char *day, nanodollars spent,
                            nanodollars reserved)
{
    sqlite3_stmt *statement = ledger->statements[BALANCE_ADD];
    bind_text(statement, 1, tenant);
    bind_text(statement, 2, day);
    bind_number(statement, 3, spent);
    bind_number(statement, 4, reserved);
    return run(ledger, BALANCE_ADD);
}

static err_t check_call(const struct ledger_call *call)
{
    const char *TEXTS[] = {call->request_id, call->tenant, call->provider, call->model, call->reason};
    for (size_t i = 0; i < sizeof TEXTS / sizeof *TEXTS; i++) {
        ASSERT(TEXTS[i]);
        if (strlen(TEXTS[i]) > LEDGER_NAME_BYTES_MAX)
            return err_new(ERR_INVALID_ARGUMENT, "\"%.40s...\" has more than %d bytes", TEXTS[i],
                           LEDGER_NAME_BYTES_MAX);
    }
    return err_ok();
}

static err_t insert(struct ledger *ledger, const struct ledger_call *call, const char *day, int64_t at_ms,
                    nanodollars estimate, int64_t *entry)
{
    sqlite3_stmt *statement = ledger->statements[INSERT];
    bind_text(statement, 1, call->request_id);
    bind_number(statement, 2, call->attempt);
    bind_text(statement, 3, day);
    bind_number(statement, 4, at_ms);
    bind_text(statement, 5, call->tenant);
    bind_text(statement, 6, call->provider);
    bind_text(statement, 7, call->model);
    bind_text(statement, 8, call->reason);
    bind_number(statement, 9, estimate);
    err_t e = run(ledger, INSERT);
    if (e.code != ERR_OK && sqlite3_extended_errcode(ledger->database) == SQLITE_CONSTRAINT_UNIQUE)
        return err_new(ERR_INVALID_ARGUMENT, "attempt %u of request %s is in the ledger already",
                       call->attempt, call->request_id);
    *entry = sqlite3_last_insert_rowid(ledger->database);
    return e;
}

static err_t reserve(struct ledger *ledger, const struct ledger_call *call, nanodollars estimate,
                     const struct ledger_budget *budget, int64_t *entry)
{
    char day[DAY_BYTES];
    int64_t at_ms = now_ms(ledger);
    day_of(at_ms, day);
    TRY(check_budget(ledger, call->tenant, day, estimate, budget));
    TRY(insert(ledger, call, day, at_ms, estimate, entry));
    return add_to_balance(ledger, call->tenant, day, 0, estimate);
}

err_t ledger_reserve(struct ledger *ledger, const struct ledger_call *call, nanodollars estimate,
                     const struct ledger_budget *budget, int64_t *entry)
{
    ASSERT(estimate >= 0 && estimate <= MONEY_MAX);
    TRY(check_call(call));
    pthread_mutex_lock(&ledger->lock);
    err_t e = run(ledger, BEGIN);
    if (e.code == ERR_OK)
        e = finish(ledger, reserve(ledger, call, estimate, budget, entry));
    pthread_mutex_unlock(&ledger->lock);
    return e;
}

/* The reservation's tenant and day; FAILED_PRECONDITION when it has ended. */
struct open_entry {
    char tenant[LEDGER_NAME_BYTES_MAX + 1], day[DAY_BYTES];
    nanodollars estimate;
};

static err_t find_open(struct ledger *ledger, int64_t entry, struct open_entry *out)
{
    sqlite3_stmt *statement = ledger->statements[FIND_OPEN];
    bind_number(statement, 1, entry);
    err_t e = err_ok();
    int rc = sqlite3_step(statement);
    if (rc == SQLITE_ROW) {
        snprintf(out->tenant, sizeof out->tenant, "%s", (const char *)sqlite3_column_text(statement, 0));
        snprintf(out->day, sizeof out->day, "%s", (const char *)sqlite3_column_text(statement, 1));
        out->estimate = sqlite3_column_int64(statement, 2);
    } else {
        e = rc == SQLITE_DONE
                ? err_new(ERR_FAILED_PRECONDITION, "entry %lld of the ledger is not open", (long long)entry)
                : failed(ledger, "be read");
    }
    sqlite3_reset(statement);
    sqlite3_clear_bindings(statement);
    return e;
}

static err_t settle(struct ledger *ledger, int64_t entry, enum ledger_outcome outcome, nanodollars cost,
                    const struct answer_usage *usage)
{
    struct open_entry open;
    TRY(find_open(ledger, entry, &open));
    nanodollars charged = outcome == LEDGER_SETTLED ? cost : outcome == LEDGER_RELEASED ? 0 : open.estimate;
    sqlite3_stmt *statement = ledger->statements[END_ENTRY];
    bind_number(statement, 1, outcome);
    bind_number(statement, 2, charged);
    bind_number(statement, 3, now_ms(ledger));
    if (usage) {
        bind_count(statement, 4, usage->input_tokens);
        bind_count(statement, 5, usage->cached_tokens);
        bind_count(statement, 6, usage->output_tokens);
    }
    bind_number(statement, 7, entry);
    TRY(run(ledger, END_ENTRY));
    return add_to_balance(ledger, open.tenant, open.day, charged, -open.estimate);
}

err_t ledger_settle(struct ledger *ledger, int64_t entry, enum ledger_outcome outcome, nanodollars cost,
                    const struct answer_usage *usage)
{
    ASSERT(outcome < LEDGER_OUTCOMES && cost >= 0 && cost <= MONEY_MAX);
    pthread_mutex_lock(&ledger->lock);
    err_t e = run(ledger, BEGIN);
    if (e.code == ERR_OK)
        e = finish(ledger, settle(ledger, entry, outcome, cost, usage));
    pthread_mutex_unlock(&ledger->lock);
    return e;
}

err_t ledger_record(struct ledger *ledger, const struct ledger_call *call, nanodollars cost,
                    const struct answer_usage *usage)
{
    ASSERT(cost >= 0 && cost <= MONEY_MAX);
    TRY(check_call(call));
    int64_t entry;
    pthread_mutex_lock(&ledger->lock);
    err_t e = run(ledger, BEGIN);
    if (e.code == ERR_OK) {
        e = reserve(ledger, call, cost, NULL, &entry);
        if (e.code == ERR_OK)
            e = settle(ledger, entry, LEDGER_SETTLED, cost, usage);
        e = finish(ledger, e);
    }
    pthread_mutex_unlock(&ledger->lock);
    return e;
}

err_t ledger_balance(struct ledger *ledger, const char *tenant, struct ledger_balance *today,
                     struct ledger_balance *this_month)
{
    char day[DAY_BYTES];
    day_of(now_ms(ledger), day);
    pthread_mutex_lock(&ledger->lock);
    err_t e = read_balances(ledger, tenant, day, today, this_month);
    pthread_mutex_unlock(&ledger->lock);
    return e;
}

static void give_line(sqlite3_stmt *row, void (*line)(void *context, const struct ledger_line *line),
                      void *context)
{
    struct ledger_line out = {
        .day = (const char *)sqlite3_column_text(row, 0),
        .tenant = (const char *)sqlite3_column_text(row, 1),
        .provider = (const char *)sqlite3_column_text(row, 2),
        .model = (const char *)sqlite3_column_text(row, 3),
        .n_calls = (uint64_t)sqlite3_column_int64(row, 4),
        .n_unknown = (uint64_t)sqlite3_column_int64(row, 5),
        .input_tokens = (uint64_t)sqlite3_column_int64(row, 6),
        .output_tokens = (uint64_t)sqlite3_column_int64(row, 7),
        .cost = sqlite3_column_int64(row, 8),
        .n_uncounted = (uint64_t)sqlite3_column_int64(row, 9),
    };
    line(context, &out);
}

err_t ledger_report(struct ledger *ledger, const char *first_day, const char *last_day,
                    void (*line)(void *context, const struct ledger_line *line), void *context)
{
    pthread_mutex_lock(&ledger->lock);
    sqlite3_stmt *statement = ledger->statements[REPORT];
    bind_text(statement, 1, first_day ? first_day : "0000-00-00");
    bind_text(statement, 2, last_day ? last_day : "9999-99-99");
    int rc;
    while ((rc = sqlite3_step(statement)) == SQLITE_ROW)
        give_line(statement, line, context);
    err_t e = rc == SQLITE_DONE ? err_ok() : failed(ledger, "be read");
    sqlite3_reset(statement);
    sqlite3_clear_bindings(statement);
    pthread_mutex_unlock(&ledger->lock);
    return e;
}
