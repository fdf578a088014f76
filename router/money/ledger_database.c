#include "router/money/ledger_database.h"

#include <errno.h>
#include <sqlite3.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>
#include "base/alloc.h"
#include "base/assert.h"
#include "router/money/ledger_journal.h"

enum {
    SCHEMA_VERSION = 2,          /* 1 had no journal */
    APPLICATION_ID = 0x42414e4c, /* "BANL", in the file's header: this file is ours */
    BUSY_TIMEOUT_MS = 5000,      /* another process reads or writes the same file */
    CHECKPOINT_PAGES = 256,      /* of 4 KiB, of the write-ahead log, before it is copied into the file */
    SECONDS_PER_DAY = 86400,
};

/* outcome: NULL while reserved, else enum ledger_outcome. charged: what counts against the budget, the
 * estimate until it is settled. `balances` holds the sums of `entries` by day. */
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
static const char SCHEMA_OF_JOURNAL[] = "CREATE TABLE journal (folded INTEGER NOT NULL);"
                                        "INSERT INTO journal VALUES (0);";
/* One row where entries were deleted: those from that day on are there. */
static const char SCHEMA_OF_KEPT[] = "CREATE TABLE IF NOT EXISTS kept (first_day TEXT NOT NULL)";
/* Entries as the journal has them, where that is more than the file: for reports beside a router. */
static const char SCHEMA_OF_VIEW[] =
    "CREATE TEMP TABLE newer (id INTEGER PRIMARY KEY, day TEXT, tenant TEXT, provider TEXT, model TEXT,"
    " outcome INTEGER, charged INTEGER, input_tokens INTEGER, output_tokens INTEGER);";

enum statement {
    BEGIN,
    BEGIN_READING,
    COMMIT,
    ROLLBACK,
    INSERT,
    FIND_OPEN,
    END_ENTRY,
    BALANCE_ADD,
    BALANCES,
    LAST_ID,
    REPORT,
    NEWER_CLEAR,
    NEWER_ADD,
    NEWER_COPY,
    NEWER_END,
    FOLDED,
    SET_FOLDED,
    STATEMENTS,
};

static const char *const SQL[STATEMENTS] = {
    [BEGIN] = "BEGIN IMMEDIATE",
    [BEGIN_READING] = "BEGIN",
    [COMMIT] = "COMMIT",
    [ROLLBACK] = "ROLLBACK",
    [INSERT] =
        "INSERT INTO entries (id, request_id, attempt, day, at_ms, tenant, provider, model, reason, estimate,"
        " charged, outcome, ended_ms, input_tokens, cached_tokens, output_tokens)"
        " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
    [FIND_OPEN] = "SELECT tenant, CAST(strftime('%s', day) AS INTEGER) / 86400, estimate FROM entries"
                  " WHERE id = ? AND outcome IS NULL",
    [END_ENTRY] =
        "UPDATE entries SET charged = ?2, outcome = ?3, ended_ms = ?4, input_tokens = ?5, cached_tokens = ?6,"
        " output_tokens = ?7 WHERE id = ?1 AND outcome IS NULL",
    [BALANCE_ADD] = "INSERT INTO balances (tenant, day, spent, reserved) VALUES (?, ?, ?3, ?4)"
                    " ON CONFLICT (tenant, day) DO UPDATE SET spent = spent + ?3, reserved = reserved + ?4",
    [BALANCES] = "SELECT tenant, CAST(strftime('%s', day) AS INTEGER) / 86400, spent, reserved FROM balances"
                 " WHERE day BETWEEN ? AND ?",
    [LAST_ID] = "SELECT coalesce(max(id), 0) FROM entries",
    [REPORT] =
        "SELECT day, tenant, provider, model, count(*), sum(outcome IS NULL OR outcome IN (1, 3)),"
        " coalesce(sum(input_tokens), 0), coalesce(sum(output_tokens), 0), sum(charged), "
        "sum(input_tokens IS NULL OR output_tokens IS NULL) FROM"
        " (SELECT day, tenant, provider, model, outcome, charged, input_tokens, output_tokens"
        " FROM entries WHERE id NOT IN (SELECT id FROM newer) UNION ALL"
        " SELECT day, tenant, provider, model, outcome, charged, input_tokens, output_tokens FROM newer)"
        " WHERE day BETWEEN ?1 AND ?2 AND outcome IS NOT 2 GROUP BY day, tenant, provider, model"
        " ORDER BY day, tenant, provider, model",
    [NEWER_CLEAR] = "DELETE FROM newer",
    [NEWER_ADD] = "INSERT INTO newer (id, day, tenant, provider, model, charged) VALUES (?, ?, ?, ?, ?, ?)",
    [NEWER_COPY] = "INSERT OR IGNORE INTO newer SELECT id, day, tenant, provider, model, outcome, charged,"
                   " input_tokens, output_tokens FROM entries WHERE id = ?",
    [NEWER_END] = "UPDATE newer SET charged = ?2, outcome = ?3, input_tokens = ?4, output_tokens = ?5"
                  " WHERE id = ?1 AND outcome IS NULL",
    [FOLDED] = "SELECT folded FROM journal",
    [SET_FOLDED] = "UPDATE journal SET folded = ?",
};
_Static_assert(LEDGER_UNKNOWN == 1 && LEDGER_RELEASED == 2 && LEDGER_LOST == 3,
               "numbers of REPORT and of files");

struct ledger_database {
    const char *path; /* the caller's */
    bool is_read_only, has_journal;
    int log_pages; /* of the write-ahead log */
    sqlite3 *handle;
    sqlite3_stmt *statements[STATEMENTS];
};

/* --- SQLite */

static err_t failed(struct ledger_database *database, const char *what)
{
    return err_new(ERR_IO, "the ledger %s cannot %s: %s", database->path, what,
                   sqlite3_errmsg(database->handle));
}

static err_t run_text(struct ledger_database *database, const char *sql)
{
    return sqlite3_exec(database->handle, sql, NULL, NULL, NULL) == SQLITE_OK ? err_ok()
                                                                              : failed(database, "be opened");
}

static void reset(sqlite3_stmt *statement)
{
    sqlite3_reset(statement);
    sqlite3_clear_bindings(statement);
}

/* Runs a statement that gives no rows. */
static err_t run(struct ledger_database *database, enum statement which)
{
    int rc = sqlite3_step(database->statements[which]);
    err_t e = rc == SQLITE_DONE ? err_ok() : failed(database, "be written");
    reset(database->statements[which]);
    return e;
}

/* Runs one that gives one row of one number. */
static err_t run_number(struct ledger_database *database, enum statement which, int64_t *out)
{
    sqlite3_stmt *statement = database->statements[which];
    err_t e = sqlite3_step(statement) == SQLITE_ROW ? err_ok() : failed(database, "be read");
    if (e.code == ERR_OK)
        *out = sqlite3_column_int64(statement, 0);
    reset(statement);
    return e;
}

/* The text must live until the statement has run. */
static void bind_text(sqlite3_stmt *statement, int at, const char *text)
{
    int rc = sqlite3_bind_text(statement, at, text, -1, SQLITE_STATIC);
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

static void day_text(int32_t day, char out[LEDGER_DAY_BYTES])
{
    time_t seconds = (time_t)day * SECONDS_PER_DAY;
    struct tm date;
    gmtime_r(&seconds, &date);
    size_t written = strftime(out, LEDGER_DAY_BYTES, "%Y-%m-%d", &date);
    ASSERT(written == LEDGER_DAY_BYTES - 1);
}

/* A value of the file's header, and of the pragmas. */
static int64_t pragma_value(struct ledger_database *database, const char *sql)
{
    sqlite3_stmt *statement;
    if (sqlite3_prepare_v2(database->handle, sql, -1, &statement, NULL) != SQLITE_OK)
        return -1;
    int64_t value = sqlite3_step(statement) == SQLITE_ROW ? sqlite3_column_int64(statement, 0) : -1;
    sqlite3_finalize(statement);
    return value;
}

/* --- opening */

static err_t make_tables(struct ledger_database *database, int64_t version)
{
    char header[96];
    snprintf(header, sizeof header, "PRAGMA application_id = %d; PRAGMA user_version = %d", APPLICATION_ID,
             SCHEMA_VERSION);
    TRY(run_text(database, "BEGIN IMMEDIATE"));
    err_t e = version == 0 ? run_text(database, SCHEMA) : err_ok();
    if (e.code == ERR_OK)
        e = run_text(database, SCHEMA_OF_JOURNAL);
    if (e.code == ERR_OK)
        e = run_text(database, header);
    if (e.code == ERR_OK)
        return run_text(database, "COMMIT");
    err_t ignored = run_text(database, "ROLLBACK");
    (void)ignored;
    return e;
}

static int note_log(void *context, sqlite3 *handle, const char *name, int n_pages)
{
    (void)handle;
    (void)name;
    struct ledger_database *database = context;
    database->log_pages = n_pages;
    return SQLITE_OK;
}

void database_tidy(struct ledger_database *database)
{
    if (database->log_pages < CHECKPOINT_PAGES)
        return;
    database->log_pages = 0; /* where a reader is in the way it is tried again behind the next commit */
    (void)sqlite3_wal_checkpoint_v2(database->handle, NULL, SQLITE_CHECKPOINT_PASSIVE, NULL, NULL);
}

/* version: of a file that has tables; 0 = it has none yet. */
static err_t check_file(struct ledger_database *database, int64_t *version)
{
    int64_t application = pragma_value(database, "PRAGMA application_id"),
            n_tables = pragma_value(database, "SELECT count(*) FROM sqlite_master");
    *version = pragma_value(database, "PRAGMA user_version");
    if (n_tables < 0 || (n_tables == 0 && database->is_read_only) ||
        (n_tables > 0 && (application != APPLICATION_ID || *version < 1)))
        return err_new(ERR_INVALID_ARGUMENT, "%s is not a ledger of ours: name another file, or none yet",
                       database->path);
    if (*version > SCHEMA_VERSION)
        return err_new(ERR_INVALID_ARGUMENT,
                       "%s is a ledger of version %lld; this program reads up to version %d", database->path,
                       (long long)*version, SCHEMA_VERSION);
    if (n_tables == 0)
        *version = 0;
    return err_ok();
}

static err_t prepare_file(struct ledger_database *database, bool is_durable)
{
    int64_t version;
    TRY(check_file(database, &version));
    database->has_journal = version >= SCHEMA_VERSION || !database->is_read_only;
    if (database->is_read_only)
        return run_text(database, SCHEMA_OF_VIEW);
    TRY(run_text(database, "PRAGMA journal_mode = WAL"));
    TRY(run_text(database, "PRAGMA secure_delete = ON"));
    sqlite3_wal_hook(database->handle, note_log, database); /* in place of SQLite's own checkpoints */
    TRY(run_text(database, is_durable ? "PRAGMA synchronous = FULL" : "PRAGMA synchronous = NORMAL"));
    if (version < SCHEMA_VERSION)
        TRY(make_tables(database, version));
    TRY(run_text(database, SCHEMA_OF_KEPT));
    return run_text(database, SCHEMA_OF_VIEW);
}

static err_t prepare_statements(struct ledger_database *database)
{
    int n = database->has_journal ? STATEMENTS : FOLDED;
    for (int i = 0; i < n; i++) {
        if (sqlite3_prepare_v3(database->handle, SQL[i], -1, SQLITE_PREPARE_PERSISTENT,
                               &database->statements[i], NULL) != SQLITE_OK)
            return failed(database, "be read");
    }
    return err_ok();
}

err_t database_open(const struct ledger_options *options, struct ledger_database **out)
{
    int flags = SQLITE_OPEN_READWRITE | SQLITE_OPEN_NOMUTEX | (options->read_only ? 0 : SQLITE_OPEN_CREATE);
    if (options->read_only && access(options->path, F_OK) != 0)
        return err_new(errno == ENOENT ? ERR_NOT_FOUND : ERR_IO, "%s: %s", options->path, strerror(errno));
    struct ledger_database *database = mem_alloc(sizeof *database);
    if (database == NULL)
        return err_new(ERR_RESOURCE_EXHAUSTED, "no memory for a ledger");
    database->path = options->path;
    database->is_read_only = options->read_only;
    err_t e = sqlite3_open_v2(options->path, &database->handle, flags, NULL) == SQLITE_OK
                  ? err_ok()
                  : failed(database, "be opened");
    if (e.code == ERR_OK) {
        sqlite3_busy_timeout(database->handle, BUSY_TIMEOUT_MS);
        e = prepare_file(database, options->durable);
    }
    if (e.code == ERR_OK)
        e = prepare_statements(database);
    if (e.code != ERR_OK)
        database_close(database);
    else
        *out = database;
    return e;
}

void database_close(struct ledger_database *database)
{
    if (database == NULL)
        return;
    for (int i = 0; i < STATEMENTS; i++)
        sqlite3_finalize(database->statements[i]);
    sqlite3_close(database->handle);
    mem_free(database);
}

bool database_is_file(const struct ledger_database *database)
{
    return sqlite3_db_filename(database->handle, "main")[0] != '\0';
}

/* --- writing */

err_t database_begin(struct ledger_database *database)
{
    return run(database, BEGIN);
}

err_t database_finish(struct ledger_database *database, err_t e)
{
    if (e.code == ERR_OK)
        e = run(database, COMMIT);
    if (e.code != ERR_OK && !sqlite3_get_autocommit(database->handle)) {
        err_t ignored = run(database, ROLLBACK);
        (void)ignored;
    }
    return e;
}

static err_t insert_as(struct ledger_database *database, const struct database_entry *entry,
                       const char *request_id)
{
    sqlite3_stmt *statement = database->statements[INSERT];
    char day[LEDGER_DAY_BYTES];
    day_text(entry->day, day);
    bind_number(statement, 1, entry->id);
    bind_text(statement, 2, request_id);
    bind_number(statement, 3, entry->call.attempt);
    bind_text(statement, 4, day);
    bind_number(statement, 5, entry->at_ms);
    bind_text(statement, 6, entry->call.tenant);
    bind_text(statement, 7, entry->call.provider);
    bind_text(statement, 8, entry->call.model);
    bind_text(statement, 9, entry->call.reason);
    bind_number(statement, 10, entry->estimate);
    bind_number(statement, 11, entry->is_over ? entry->charged : entry->estimate);
    if (entry->is_over) {
        bind_number(statement, 12, entry->outcome);
        bind_number(statement, 13, entry->ended_ms);
        bind_count(statement, 14, entry->input_tokens);
        bind_count(statement, 15, entry->cached_tokens);
        bind_count(statement, 16, entry->output_tokens);
    }
    return run(database, INSERT);
}

err_t database_insert(struct ledger_database *database, const struct database_entry *entry)
{
    err_t e = insert_as(database, entry, entry->call.request_id);
    if (e.code == ERR_OK || sqlite3_extended_errcode(database->handle) != SQLITE_CONSTRAINT_UNIQUE)
        return e;
    char name[LEDGER_NAME_BYTES_MAX + 40];
    snprintf(name, sizeof name, "%s (again: %lld)", entry->call.request_id, (long long)entry->id);
    return insert_as(database, entry, name);
}

err_t database_end(struct ledger_database *database, const struct database_entry *entry)
{
    ASSERT(entry->is_over);
    sqlite3_stmt *statement = database->statements[END_ENTRY];
    bind_number(statement, 1, entry->id);
    bind_number(statement, 2, entry->charged);
    bind_number(statement, 3, entry->outcome);
    bind_number(statement, 4, entry->ended_ms);
    bind_count(statement, 5, entry->input_tokens);
    bind_count(statement, 6, entry->cached_tokens);
    bind_count(statement, 7, entry->output_tokens);
    return run(database, END_ENTRY);
}

err_t database_add_balance(struct ledger_database *database, const char *tenant, int32_t day,
                           nanodollars spent, nanodollars reserved)
{
    sqlite3_stmt *statement = database->statements[BALANCE_ADD];
    char text[LEDGER_DAY_BYTES];
    day_text(day, text);
    bind_text(statement, 1, tenant);
    bind_text(statement, 2, text);
    bind_number(statement, 3, spent);
    bind_number(statement, 4, reserved);
    return run(database, BALANCE_ADD);
}

err_t database_set_folded(struct ledger_database *database, uint64_t number)
{
    bind_number(database->statements[SET_FOLDED], 1, (int64_t)number);
    return run(database, SET_FOLDED);
}

err_t database_charge_lost(struct ledger_database *database, int64_t now_ms, uint64_t *n)
{
    char sql[128];
    snprintf(sql, sizeof sql, "UPDATE entries SET outcome = %d, ended_ms = %lld WHERE outcome IS NULL",
             LEDGER_LOST, (long long)now_ms);
    TRY(run(database, BEGIN));
    err_t e = run_text(database, sql);
    *n = e.code == ERR_OK ? (uint64_t)sqlite3_changes(database->handle) : 0;
    if (e.code == ERR_OK)
        e = run_text(database,
                     "UPDATE balances SET spent = spent + reserved, reserved = 0 WHERE reserved != 0");
    return database_finish(database, e);
}

err_t database_forget_ended(struct ledger_database *database)
{
    return run_text(database, "DELETE FROM entries WHERE outcome IS NOT NULL");
}

err_t database_delete_before(struct ledger_database *database, int32_t day, uint32_t most, bool *is_all)
{
    char text[LEDGER_DAY_BYTES], sql[256];
    day_text(day, text);
    snprintf(
        sql, sizeof sql,
        "DELETE FROM entries WHERE id IN (SELECT id FROM entries WHERE day < '%s' AND outcome IS NOT NULL"
        " LIMIT %u)",
        text, most);
    TRY(run(database, BEGIN));
    err_t e = run_text(database, sql);
    int n = e.code == ERR_OK ? sqlite3_changes(database->handle) : 0;
    *is_all = n < (int)most;
    snprintf(sql, sizeof sql, "DELETE FROM balances WHERE day < '%s' AND reserved = 0", text);
    if (e.code == ERR_OK && *is_all)
        e = run_text(database, sql);
    snprintf(sql, sizeof sql, "DELETE FROM kept; INSERT INTO kept VALUES ('%s')", text);
    if (e.code == ERR_OK && n > 0)
        e = run_text(database, sql);
    return database_finish(database, e);
}

/* --- reading */

err_t database_kept_from(struct ledger_database *database, char day[LEDGER_DAY_BYTES])
{
    static const char TABLE[] = "SELECT count(*) FROM sqlite_master WHERE name = 'kept'",
                      FIRST[] = "SELECT first_day FROM kept";
    sqlite3_stmt *statement;
    day[0] = '\0';
    if (pragma_value(database, TABLE) == 0)
        return err_ok(); /* an older ledger, that is only read */
    if (sqlite3_prepare_v2(database->handle, FIRST, -1, &statement, NULL) != SQLITE_OK)
        return failed(database, "be read");
    int rc = sqlite3_step(statement);
    if (rc == SQLITE_ROW)
        snprintf(day, LEDGER_DAY_BYTES, "%s", (const char *)sqlite3_column_text(statement, 0));
    err_t e = rc == SQLITE_ROW || rc == SQLITE_DONE ? err_ok() : failed(database, "be read");
    sqlite3_finalize(statement);
    return e;
}

err_t database_folded(struct ledger_database *database, uint64_t *number)
{
    return run_number(database, FOLDED, (int64_t *)number);
}

err_t database_last_id(struct ledger_database *database, int64_t *id)
{
    return run_number(database, LAST_ID, id);
}

err_t database_find_open(struct ledger_database *database, int64_t id, char *tenant, int32_t *day,
                         nanodollars *estimate)
{
    sqlite3_stmt *statement = database->statements[FIND_OPEN];
    bind_number(statement, 1, id);
    err_t e = err_ok();
    int rc = sqlite3_step(statement);
    if (rc == SQLITE_ROW) {
        snprintf(tenant, LEDGER_NAME_BYTES_MAX + 1, "%s", (const char *)sqlite3_column_text(statement, 0));
        *day = (int32_t)sqlite3_column_int64(statement, 1);
        *estimate = sqlite3_column_int64(statement, 2);
    } else {
        e = rc == SQLITE_DONE ? err_new(ERR_NOT_FOUND, "entry %lld of the ledger is not open", (long long)id)
                              : failed(database, "be read");
    }
    reset(statement);
    return e;
}

err_t database_balances(struct ledger_database *database, int32_t first_day, int32_t last_day,
                        err_t (*take)(void *context, const char *tenant, int32_t day,
                                      const struct ledger_balance *balance),
                        void *context)
{
    sqlite3_stmt *statement = database->statements[BALANCES];
    char first[LEDGER_DAY_BYTES], last[LEDGER_DAY_BYTES];
    day_text(first_day, first);
    day_text(last_day, last);
    bind_text(statement, 1, first);
    bind_text(statement, 2, last);
    err_t e = err_ok();
    int rc = SQLITE_DONE;
    while (e.code == ERR_OK && (rc = sqlite3_step(statement)) == SQLITE_ROW) {
        struct ledger_balance balance = {sqlite3_column_int64(statement, 2),
                                         sqlite3_column_int64(statement, 3)};
        e = take(context, (const char *)sqlite3_column_text(statement, 0),
                 (int32_t)sqlite3_column_int64(statement, 1), &balance);
    }
    if (e.code == ERR_OK && rc != SQLITE_DONE)
        e = failed(database, "be read");
    reset(statement);
    return e;
}

/* What a record of the journal says of an entry, over what the file says. */
static err_t add_newer(struct ledger_database *database, const struct journal_record *record)
{
    char day[LEDGER_DAY_BYTES];
    sqlite3_stmt *statement = database->statements[NEWER_ADD];
    if (record->kind == JOURNAL_ENTRY) {
        day_text((int32_t)(record->at_ms / (SECONDS_PER_DAY * INT64_C(1000))), day);
        bind_number(statement, 1, record->entry);
        bind_text(statement, 2, day);
        bind_text(statement, 3, record->call.tenant);
        bind_text(statement, 4, record->call.provider);
        bind_text(statement, 5, record->call.model);
        bind_number(statement, 6, record->estimate);
        return run(database, NEWER_ADD);
    }
    bind_number(database->statements[NEWER_COPY], 1, record->entry);
    TRY(run(database, NEWER_COPY));
    statement = database->statements[NEWER_END];
    bind_number(statement, 1, record->entry);
    bind_number(statement, 2, record->charged);
    bind_number(statement, 3, record->outcome);
    bind_count(statement, 4, record->input_tokens);
    bind_count(statement, 5, record->output_tokens);
    return run(database, NEWER_END);
}

static err_t read_newer(struct ledger_database *database, const struct journal_view *view)
{
    uint64_t folded = 0;
    struct journal_record record;
    TRY(run(database, NEWER_CLEAR));
    TRY(database_folded(database, &folded));
    for (size_t at = 0; journal_view_next(view, &at, &record);) {
        if (record.number > folded)
            TRY(add_newer(database, &record));
    }
    return err_ok();
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

static err_t give_lines(struct ledger_database *database, const char *first_day, const char *last_day,
                        void (*line)(void *context, const struct ledger_line *line), void *context)
{
    sqlite3_stmt *statement = database->statements[REPORT];
    bind_text(statement, 1, first_day ? first_day : "0000-00-00");
    bind_text(statement, 2, last_day ? last_day : "9999-99-99");
    int rc;
    while ((rc = sqlite3_step(statement)) == SQLITE_ROW)
        give_line(statement, line, context);
    err_t e = rc == SQLITE_DONE ? err_ok() : failed(database, "be read");
    reset(statement);
    return e;
}

err_t database_report(struct ledger_database *database, const char *first_day, const char *last_day,
                      void (*line)(void *context, const struct ledger_line *line), void *context)
{
    struct journal_view view;
    if (!database->is_read_only || !database->has_journal)
        return give_lines(database, first_day, last_day, line, context);
    err_t e = journal_view_open(database->path, &view); /* before the file is looked at: it is not cleared */
    if (e.code == ERR_NOT_FOUND)
        return give_lines(database, first_day, last_day, line, context);
    TRY(e);
    e = run(database, BEGIN_READING);
    if (e.code == ERR_OK) {
        e = read_newer(database, &view);
        if (e.code == ERR_OK)
            e = give_lines(database, first_day, last_day, line, context);
        e = database_finish(database, e);
    }
    journal_view_close(&view);
    return e;
}
