#include <errno.h>
#include <pthread.h>
#include <sqlite3.h>
#include <stdio.h>
#include <string.h>
#include "base/alloc.h"
#include "base/assert.h"
#include "base/hash.h"
#include "base/log.h"
#include "router/cache/response_store.h"

enum {
    SCHEMA_VERSION = 1,
    APPLICATION_ID = 0x42414e43, /* "BANC", in the file's header: this file is ours */
    BUSY_TIMEOUT_MS = 50,        /* another process writes the same file: then nothing is kept */
    USED_STEP_MS = 60000,        /* an entry's use is written down no more often */
    PATH_BYTES = 4096,
};

/* `total` has the sum of sizes, kept by triggers. check: XXH3 of the bytes, since SQLite sees damage of its
 * own structure alone. */
static const char SCHEMA[] =
    "CREATE TABLE answers (id INTEGER PRIMARY KEY, key BLOB NOT NULL UNIQUE, ends_ms INTEGER NOT NULL,"
    " used_ms INTEGER NOT NULL, size INTEGER NOT NULL, checksum INTEGER NOT NULL, bytes BLOB NOT NULL);"
    "CREATE INDEX answers_used ON answers (used_ms, id);"
    "CREATE INDEX answers_ends ON answers (ends_ms);"
    "CREATE TABLE total (bytes INTEGER NOT NULL);"
    "INSERT INTO total VALUES (0);"
    "CREATE TRIGGER more AFTER INSERT ON answers BEGIN UPDATE total SET bytes = bytes + NEW.size; END;"
    "CREATE TRIGGER less AFTER DELETE ON answers BEGIN UPDATE total SET bytes = bytes - OLD.size; END;";

enum statement {
    BEGIN,
    COMMIT,
    ROLLBACK,
    FIND,
    USE,
    DROP,
    INSERT,
    TOTAL,
    DROP_ENDED,
    DROP_OLDEST,
    STATEMENTS,
};

static const char *const SQL[STATEMENTS] = {
    [BEGIN] = "BEGIN IMMEDIATE",
    [COMMIT] = "COMMIT",
    [ROLLBACK] = "ROLLBACK",
    [FIND] = "SELECT bytes, checksum, used_ms FROM answers WHERE key = ? AND ends_ms > ?",
    [USE] = "UPDATE answers SET used_ms = ?2 WHERE key = ?1",
    [DROP] = "DELETE FROM answers WHERE key = ?",
    [INSERT] = "INSERT INTO answers (key, ends_ms, used_ms, size, checksum, bytes) VALUES (?, ?, ?, ?, ?, ?)",
    [TOTAL] = "SELECT bytes FROM total",
    [DROP_ENDED] = "DELETE FROM answers WHERE ends_ms <= ?",
    [DROP_OLDEST] = "DELETE FROM answers WHERE id = (SELECT id FROM answers ORDER BY used_ms, id LIMIT 1)",
};

struct sqlite_store {
    struct response_store base;
    struct sqlite_store_options options;
    pthread_mutex_t lock;
    sqlite3 *database; /* NULL = another one could not be begun: nothing is kept */
    sqlite3_stmt *statements[STATEMENTS];
};

static err_t failed(const struct sqlite_store *store, int rc)
{
    return err_new(ERR_IO, "the cache %s: %s", store->options.path,
                   store->database ? sqlite3_errmsg(store->database) : sqlite3_errstr(rc));
}

static bool is_damage(int rc)
{
    return (rc & 0xff) == SQLITE_CORRUPT || (rc & 0xff) == SQLITE_NOTADB;
}

static int64_t now_ms(const struct sqlite_store *store)
{
    return store->options.unix_ms(store->options.clock);
}

/* ---- The file ---- */

static int read_pragma(struct sqlite_store *store, const char *sql, int64_t *out)
{
    sqlite3_stmt *statement;
    int rc = sqlite3_prepare_v2(store->database, sql, -1, &statement, NULL);
    if (rc == SQLITE_OK)
        rc = sqlite3_step(statement);
    if (rc == SQLITE_ROW)
        *out = sqlite3_column_int64(statement, 0);
    sqlite3_finalize(statement);
    return rc == SQLITE_ROW ? SQLITE_OK : rc;
}

static void close_database(struct sqlite_store *store)
{
    for (int i = 0; i < STATEMENTS; i++) {
        sqlite3_finalize(store->statements[i]);
        store->statements[i] = NULL;
    }
    sqlite3_close(store->database);
    store->database = NULL;
}

static int make_tables(struct sqlite_store *store)
{
    char header[96];
    snprintf(header, sizeof header, "PRAGMA application_id = %d; PRAGMA user_version = %d", APPLICATION_ID,
             SCHEMA_VERSION);
    int rc = sqlite3_exec(store->database, "BEGIN IMMEDIATE", NULL, NULL, NULL);
    if (rc == SQLITE_OK)
        rc = sqlite3_exec(store->database, SCHEMA, NULL, NULL, NULL);
    if (rc == SQLITE_OK)
        rc = sqlite3_exec(store->database, header, NULL, NULL, NULL);
    return rc == SQLITE_OK ? sqlite3_exec(store->database, "COMMIT", NULL, NULL, NULL) : rc;
}

static int prepare(struct sqlite_store *store)
{
    int rc = SQLITE_OK;
    for (int i = 0; i < STATEMENTS && rc == SQLITE_OK; i++)
        rc = sqlite3_prepare_v3(store->database, SQL[i], -1, SQLITE_PREPARE_PERSISTENT, &store->statements[i],
                                NULL);
    return rc;
}

/* *is_ours false: it has tables, and they are not ours. */
static int open_database(struct sqlite_store *store, bool *is_ours)
{
    int64_t application = 0, version = 0, n_tables = 0, unused;
    *is_ours = true;
    int rc = sqlite3_open_v2(store->options.path, &store->database,
                             SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_NOMUTEX, NULL);
    if (rc != SQLITE_OK)
        return rc;
    sqlite3_busy_timeout(store->database, BUSY_TIMEOUT_MS);
    rc = read_pragma(store, "PRAGMA application_id", &application);
    if (rc == SQLITE_OK)
        rc = read_pragma(store, "PRAGMA user_version", &version);
    if (rc == SQLITE_OK)
        rc = read_pragma(store, "SELECT count(*) FROM sqlite_master", &n_tables);
    *is_ours =
        rc != SQLITE_OK || n_tables == 0 || (application == APPLICATION_ID && version == SCHEMA_VERSION);
    if (rc != SQLITE_OK || !*is_ours)
        return rc;
    rc = sqlite3_exec(store->database,
                      "PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL; PRAGMA secure_delete = ON",
                      NULL, NULL, NULL);
    if (rc == SQLITE_OK && n_tables == 0)
        rc = make_tables(store);
    if (rc == SQLITE_OK)
        rc = prepare(store);
    /* The first pages of all tables are read: most damage shows now. */
    return rc == SQLITE_OK ? read_pragma(store, "SELECT count(*) FROM answers", &unused) : rc;
}

static void set_aside(const struct sqlite_store *store)
{
    static const char *const ENDINGS[] = {"", "-wal", "-shm"};
    char from[PATH_BYTES], to[PATH_BYTES];
    for (size_t i = 0; i < sizeof ENDINGS / sizeof *ENDINGS; i++) {
        snprintf(from, sizeof from, "%s%s", store->options.path, ENDINGS[i]);
        snprintf(to, sizeof to, "%s.damaged%s", store->options.path, ENDINGS[i]);
        if (rename(from, to) != 0 && errno != ENOENT)
            log_warn("cache", "%s cannot be renamed: %s", from, strerror(errno));
    }
}

/* Begins another file in place of one that is damaged. */
static err_t begin_anew(struct sqlite_store *store, int damage)
{
    log_warn("cache", "the cache %s is damaged (%s): it is set aside as %s.damaged, and another begun",
             store->options.path, sqlite3_errstr(damage), store->options.path);
    close_database(store);
    set_aside(store);
    bool is_ours;
    int rc = open_database(store, &is_ours);
    if (rc == SQLITE_OK && is_ours)
        return err_ok();
    err_t e = failed(store, rc);
    close_database(store);
    return e;
}

/* What a call returns when SQLite said rc. */
static err_t conclude(struct sqlite_store *store, int rc)
{
    if (rc == SQLITE_OK || rc == SQLITE_DONE || rc == SQLITE_ROW)
        return err_ok();
    err_t e = failed(store, rc);
    if (store->database && !sqlite3_get_autocommit(store->database))
        sqlite3_exec(store->database, "ROLLBACK", NULL, NULL, NULL);
    if (is_damage(rc)) {
        err_t again = begin_anew(store, rc);
        if (again.code != ERR_OK)
            log_warn("cache", "%s; nothing is kept any more", again.message);
    }
    return e;
}

/* ---- Entries ---- */

static sqlite3_stmt *with_key(struct sqlite_store *store, enum statement which,
                              const struct response_key *key)
{
    sqlite3_stmt *statement = store->statements[which];
    ASSERT(sqlite3_bind_blob(statement, 1, key->bytes, sizeof key->bytes, SQLITE_STATIC) == SQLITE_OK);
    return statement;
}

static void end(sqlite3_stmt *statement)
{
    sqlite3_reset(statement);
    sqlite3_clear_bindings(statement);
}

static int run(sqlite3_stmt *statement)
{
    int rc = sqlite3_step(statement);
    end(statement);
    return rc == SQLITE_DONE ? SQLITE_OK : rc;
}

static int64_t checksum_of(const void *bytes, size_t size)
{
    return (int64_t)hash64(bytes, size, 0);
}

enum found { NOTHING, GOOD, SPOILT, NO_ROOM };

static enum found take_row(sqlite3_stmt *row, struct buffer *out)
{
    const void *bytes = sqlite3_column_blob(row, 0);
    size_t size = (size_t)sqlite3_column_bytes(row, 0);
    if (checksum_of(bytes, size) != sqlite3_column_int64(row, 1))
        return SPOILT;
    return buffer_append(out, bytes, size) ? GOOD : NO_ROOM;
}

static int find(struct sqlite_store *store, const struct response_key *key, struct buffer *out,
                enum found *found)
{
    sqlite3_stmt *statement = with_key(store, FIND, key);
    int64_t at_ms = now_ms(store), used_ms = at_ms;
    sqlite3_bind_int64(statement, 2, at_ms);
    int rc = sqlite3_step(statement);
    if (rc == SQLITE_ROW) {
        *found = take_row(statement, out);
        used_ms = sqlite3_column_int64(statement, 2);
    }
    end(statement);
    if (*found == SPOILT) {
        log_warn("cache", "an answer in %s is damaged: it is dropped", store->options.path);
        return run(with_key(store, DROP, key));
    }
    if (*found != GOOD || at_ms - used_ms < USED_STEP_MS)
        return rc;
    statement = with_key(store, USE, key);
    sqlite3_bind_int64(statement, 2, at_ms);
    rc = run(statement);
    return is_damage(rc) ? rc : SQLITE_OK; /* a disk that is full takes nothing from what was found */
}

static err_t get(struct response_store *base, const struct response_key *key, struct buffer *out, bool *found)
{
    struct sqlite_store *store = (struct sqlite_store *)base;
    enum found what = NOTHING;
    size_t size_before = out->size;
    pthread_mutex_lock(&store->lock);
    err_t e = store->database ? conclude(store, find(store, key, out, &what)) : err_ok();
    pthread_mutex_unlock(&store->lock);
    if (what == NO_ROOM)
        e = err_new(ERR_RESOURCE_EXHAUSTED, "no memory for an answer out of the cache %s",
                    store->options.path);
    *found = what == GOOD && e.code == ERR_OK;
    if (!*found && out->size > size_before)
        out->data[out->size = size_before] = '\0';
    return e;
}

static int read_total(struct sqlite_store *store, int64_t *out)
{
    sqlite3_stmt *statement = store->statements[TOTAL];
    int rc = sqlite3_step(statement);
    if (rc == SQLITE_ROW)
        *out = sqlite3_column_int64(statement, 0);
    end(statement);
    return rc == SQLITE_ROW ? SQLITE_OK : rc;
}

static int make_room(struct sqlite_store *store, size_t size, int64_t at_ms)
{
    int64_t total = 0, room = (int64_t)(store->options.max_bytes - size);
    int rc = read_total(store, &total);
    if (rc != SQLITE_OK || total <= room)
        return rc;
    sqlite3_bind_int64(store->statements[DROP_ENDED], 1, at_ms);
    rc = run(store->statements[DROP_ENDED]);
    if (rc == SQLITE_OK)
        rc = read_total(store, &total);
    while (rc == SQLITE_OK && total > room) {
        rc = run(store->statements[DROP_OLDEST]);
        if (rc == SQLITE_OK && sqlite3_changes(store->database) == 0)
            return SQLITE_CORRUPT; /* the total is not that of the entries */
        if (rc == SQLITE_OK)
            rc = read_total(store, &total);
    }
    return rc;
}

static int insert(struct sqlite_store *store, const struct response_key *key, const char *bytes, size_t size,
                  int64_t ttl_ms)
{
    int64_t at_ms = now_ms(store), ends_ms;
    if (__builtin_add_overflow(at_ms, ttl_ms, &ends_ms))
        ends_ms = INT64_MAX;
    int rc = run(store->statements[BEGIN]);
    if (rc == SQLITE_OK)
        rc = run(with_key(store, DROP, key));
    if (rc == SQLITE_OK)
        rc = make_room(store, size, at_ms);
    if (rc != SQLITE_OK)
        return rc;
    sqlite3_stmt *statement = with_key(store, INSERT, key);
    sqlite3_bind_int64(statement, 2, ends_ms);
    sqlite3_bind_int64(statement, 3, at_ms);
    sqlite3_bind_int64(statement, 4, (int64_t)size);
    sqlite3_bind_int64(statement, 5, checksum_of(bytes, size));
    sqlite3_bind_blob64(statement, 6, bytes, size, SQLITE_STATIC);
    rc = run(statement);
    return rc == SQLITE_OK ? run(store->statements[COMMIT]) : rc;
}

static err_t put(struct response_store *base, const struct response_key *key, const char *bytes, size_t size,
                 int64_t ttl_ns)
{
    struct sqlite_store *store = (struct sqlite_store *)base;
    if (size > store->options.max_entry_bytes || size > store->options.max_bytes || ttl_ns <= 0)
        return err_ok();
    pthread_mutex_lock(&store->lock);
    int64_t ttl_ms = ttl_ns / 1000000 + (ttl_ns % 1000000 != 0);
    err_t e = store->database ? conclude(store, insert(store, key, bytes, size, ttl_ms)) : err_ok();
    pthread_mutex_unlock(&store->lock);
    return e;
}

/* The log is written back, so that nothing is left in it either. */
static err_t clear(struct response_store *base)
{
    struct sqlite_store *store = (struct sqlite_store *)base;
    static const char ALL[] = "DELETE FROM answers; PRAGMA wal_checkpoint(TRUNCATE)";
    pthread_mutex_lock(&store->lock);
    err_t e =
        store->database ? conclude(store, sqlite3_exec(store->database, ALL, NULL, NULL, NULL)) : err_ok();
    pthread_mutex_unlock(&store->lock);
    return e;
}

static void close_store(struct response_store *base)
{
    struct sqlite_store *store = (struct sqlite_store *)base;
    close_database(store);
    pthread_mutex_destroy(&store->lock);
    mem_free((char *)store->options.path);
    mem_free(store);
}

static const struct response_store_vtable VTABLE = {get, put, clear, close_store, .is_outside = true};

static err_t open_file(struct sqlite_store *store)
{
    bool is_ours;
    if (strlen(store->options.path) > PATH_BYTES - 16)
        return err_new(ERR_INVALID_ARGUMENT, "cache.path has more than %d bytes", PATH_BYTES - 16);
    int rc = open_database(store, &is_ours);
    if (!is_ours)
        return err_new(
            ERR_INVALID_ARGUMENT,
            "%s is a database and no cache of this version of ours: name another file, or none yet",
            store->options.path);
    if (is_damage(rc))
        return begin_anew(store, rc);
    return rc == SQLITE_OK ? err_ok() : failed(store, rc);
}

err_t sqlite_store_open(const struct sqlite_store_options *options, struct response_store **out)
{
    struct sqlite_store *store = mem_alloc(sizeof *store);
    if (store == NULL)
        return err_new(ERR_RESOURCE_EXHAUSTED, "no memory for a cache of answers");
    store->base.vtable = &VTABLE;
    store->options = *options;
    ASSERT(pthread_mutex_init(&store->lock, NULL) == 0);
    store->options.path = mem_strdup(options->path);
    err_t e = store->options.path ? open_file(store)
                                  : err_new(ERR_RESOURCE_EXHAUSTED, "no memory for a cache of answers");
    if (e.code != ERR_OK)
        close_store(&store->base);
    else
        *out = &store->base;
    return e;
}
