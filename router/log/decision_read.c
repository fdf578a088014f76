#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include "base/alloc.h"
#include "base/assert.h"
#include "router/log/decision_log.h"
#include "router/log/log_files.h"

enum {
    READ_BYTES = 1 << 16,
    PASSES_MAX = 10 /* over files that are renamed meanwhile */
};

/* Gets each line with its line break; `is_long`: not all of it, since it is too long. False
 * ends the reading. */
struct line_reader {
    bool (*take)(void *context, const char *line, size_t size, bool is_long);
    void *context;
};

/* The next bytes; 0 at the end, negative when reading fails. */
static ssize_t read_more(int file, char *bytes, size_t size)
{
    ssize_t n;
    do {
        n = read(file, bytes, size);
    } while (n < 0 && errno == EINTR);
    return n;
}

/* A line as it comes, in pieces. Of one that is too long some is left out. */
struct line_state {
    struct buffer line;
    bool is_long;
};

static bool end_line(const struct line_reader *reader, struct line_state *state)
{
    bool goes_on = reader->take(reader->context, state->line.data, state->line.size, state->is_long);
    buffer_clear(&state->line);
    state->is_long = false;
    return goes_on;
}

static bool take_chunk(const struct line_reader *reader, struct line_state *state, const char *chunk,
                       size_t size)
{
    for (const char *at = chunk, *end = chunk + size; at < end;) {
        const char *line_end = memchr(at, '\n', (size_t)(end - at));
        size_t n = (size_t)((line_end ? line_end + 1 : end) - at);
        if (!buffer_append(&state->line, at, n))
            state->is_long = true;
        at += n;
        if (line_end && !end_line(reader, state))
            return false;
    }
    return true;
}

static err_t read_lines(const char *path, int file, const struct line_reader *reader)
{
    struct line_state state = {.line = {.limit_bytes = DECISION_LINE_BYTES_MAX + 1}};
    char *chunk = mem_alloc(READ_BYTES);
    err_t e = chunk ? err_ok() : err_new(ERR_RESOURCE_EXHAUSTED, "no memory to read %s", path);
    bool goes_on = chunk != NULL;
    ssize_t n = 0;
    while (goes_on && (n = read_more(file, chunk, READ_BYTES)) > 0)
        goes_on = take_chunk(reader, &state, chunk, (size_t)n);
    if (n < 0)
        e = err_new(ERR_IO, "%s: %s", path, strerror(errno));
    else if (goes_on && (state.line.size > 0 || state.is_long))
        end_line(reader, &state);
    mem_free(chunk);
    buffer_free(&state.line);
    return e;
}

/* ---- Entries ---- */

struct entry_reading {
    const struct decision_log_reader *reader;
    uint64_t number;
    err_t e;
};

static bool take_entry(void *context, const char *text, size_t size, bool is_long)
{
    struct entry_reading *reading = context;
    struct decision_line line;
    reading->number++;
    err_t wrong = is_long ? err_new(ERR_INVALID_ARGUMENT, "more than %d bytes", DECISION_LINE_BYTES_MAX)
                          : decision_line_parse(text, size, &line);
    if (wrong.code == ERR_OK) {
        reading->e = reading->reader->take(reading->reader->context, &line);
        decision_line_free(&line);
    } else if (reading->reader->bad) {
        reading->reader->bad(reading->reader->context, reading->number, wrong);
    }
    return reading->e.code == ERR_OK;
}

err_t decision_log_read(const char *path, const struct decision_log_reader *reader)
{
    struct entry_reading reading = {.reader = reader, .e = err_ok()};
    int file = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY);
    if (file < 0)
        return err_new(errno == ENOENT ? ERR_NOT_FOUND : ERR_IO, "%s: %s", path, strerror(errno));
    err_t e = read_lines(path, file, &(struct line_reader){take_entry, &reading});
    close(file);
    return e.code == ERR_OK ? reading.e : e;
}

/* ---- Forgetting ---- */

struct forgetting {
    const char *tenant;
    FILE *kept;
    uint64_t n_deleted;
};

static bool keep_others(void *context, const char *text, size_t size, bool is_long)
{
    struct forgetting *forgetting = context;
    struct decision_line line;
    bool is_read = !is_long && decision_line_parse(text, size, &line).code == ERR_OK;
    if (is_read && strcmp(line.entry.tenant, forgetting->tenant) != 0)
        fwrite(text, 1, size, forgetting->kept); /* an error shows in ferror */
    else
        forgetting->n_deleted++;
    if (is_read)
        decision_line_free(&line);
    return true;
}

static err_t write_kept(const char *path, int from, const char *beside, struct forgetting *forgetting)
{
    int file = open(beside, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    forgetting->kept = file >= 0 ? fdopen(file, "w") : NULL;
    if (forgetting->kept == NULL) {
        if (file >= 0)
            close(file);
        return err_new(ERR_IO, "%s: %s", beside, strerror(errno));
    }
    err_t e = read_lines(path, from, &(struct line_reader){keep_others, forgetting});
    bool is_written = fflush(forgetting->kept) == 0 && !ferror(forgetting->kept) &&
                      (forgetting->n_deleted == 0 || fsync(file) == 0);
    if (e.code == ERR_OK && !is_written)
        e = err_new(ERR_IO, "%s: %s", beside, strerror(errno));
    fclose(forgetting->kept);
    return e;
}

/* Keeps the times of the old file, by which it expires. */
static err_t put_in_place(const char *path, const char *beside, int file)
{
    struct stat status;
    if (fstat(file, &status) != 0)
        return err_new(ERR_IO, "%s: %s", path, strerror(errno));
    struct timespec times[2] = {status.st_atim, status.st_mtim};
    if (utimensat(AT_FDCWD, beside, times, 0) != 0 || rename(beside, path) != 0)
        return err_new(ERR_IO, "%s: %s", path, strerror(errno));
    return err_ok();
}

/* *is_settled: the file was there, and still has its name; else others rename files, and it is somewhere
 * else. */
static err_t forget_in_open(const char *path, int file, struct forgetting *forgetting, bool *is_settled)
{
    char beside[LOG_PATH_BYTES + 8];
    struct stat status;
    snprintf(beside, sizeof beside, "%s.forget", path);
    if (unlink(beside) != 0 && errno != ENOENT) /* of one that was killed; it holds lines of others */
        return err_new(ERR_IO, "%s: %s", beside, strerror(errno));
    *is_settled = true;
    if (file < 0 || (fstat(file, &status) == 0 && !S_ISREG(status.st_mode)))
        return err_ok();
    err_t e = write_kept(path, file, beside, forgetting);
    *is_settled = log_path_is(path, file);
    bool replaces = e.code == ERR_OK && forgetting->n_deleted > 0 && *is_settled;
    if (replaces)
        e = put_in_place(path, beside, file);
    if (e.code != ERR_OK || !replaces)
        unlink(beside);
    return e;
}

/* *n_deleted grows; *is_settled becomes false when the file was renamed meanwhile. A name that leads to
 * another is followed, since the lines are there. */
static err_t forget_in(const char *path, const char *tenant, uint64_t *n_deleted, bool *is_settled)
{
    char real[PATH_MAX];
    bool is_there = realpath(path, real) != NULL;
    const char *name = is_there && strlen(real) < LOG_PATH_BYTES ? real : path;
    int file = open(name, O_RDONLY | O_NONBLOCK | O_CLOEXEC | O_NOCTTY);
    struct forgetting forgetting = {.tenant = tenant};
    bool is_one = true;
    err_t e = file < 0 && errno != ENOENT ? err_new(ERR_IO, "%s: %s", path, strerror(errno))
                                          : forget_in_open(name, file, &forgetting, &is_one);
    if (e.code == ERR_OK && is_one)
        *n_deleted += forgetting.n_deleted;
    *is_settled = *is_settled && is_one && (file >= 0 || !is_there);
    if (file >= 0)
        close(file);
    return e;
}

/* Until none has lines of the tenant: what something else renames meanwhile may be passed by. */
static err_t forget_in_renamed(const char *path, const char *tenant, uint64_t *n_deleted)
{
    for (int pass = 0; pass < PASSES_MAX; pass++) {
        uint64_t n_before = *n_deleted;
        bool is_settled = true;
        for (uint32_t number = DECISION_KEEP_MAX; number > 0; number--) {
            char name[LOG_PATH_BYTES];
            TRY(log_file_name(path, number, name));
            TRY(forget_in(name, tenant, n_deleted, &is_settled));
        }
        if (is_settled && *n_deleted == n_before)
            return err_ok();
    }
    return err_new(ERR_FAILED_PRECONDITION, "the files of %s are being renamed: stop what renames them",
                   path);
}

/* The log itself comes last: until then its lock keeps writers away, who would rename files meanwhile. */
static err_t forget_in_all(const char *path, const char *tenant, uint64_t *n_deleted)
{
    bool is_settled = true;
    TRY(forget_in_renamed(path, tenant, n_deleted));
    TRY(forget_in(path, tenant, n_deleted, &is_settled));
    if (!is_settled)
        return err_new(ERR_FAILED_PRECONDITION, "%s is being renamed: stop what renames it", path);
    return err_ok();
}

static bool has_renamed(const char *path)
{
    bool has = false;
    for (uint32_t number = 1; number <= DECISION_KEEP_MAX && !has; number++) {
        char name[LOG_PATH_BYTES];
        struct stat status;
        has = log_file_name(path, number, name).code == ERR_OK && lstat(name, &status) == 0;
    }
    return has;
}

/* Where a file has one name only, a writer that turns its log over leaves none for a moment; it has the fresh
 * one locked then. The rest of a log whose newest file is gone is forgotten too, under the lock of an empty
 * one. */
static err_t lock_log(const char *path, int *file)
{
    char fresh_name[LOG_PATH_BYTES];
    TRY(log_file_fresh_name(path, fresh_name));
    err_t e = err_ok();
    for (int look = 0; look < 3; look++) {
        e = log_path_lock(path, O_RDONLY, file);
        if (e.code != ERR_NOT_FOUND)
            return e;
        err_t fresh = log_path_lock(fresh_name, O_RDONLY, file);
        if (fresh.code == ERR_OK)
            close(*file);
        else if (fresh.code != ERR_NOT_FOUND)
            return fresh;
    }
    return has_renamed(path) ? log_path_lock(path, O_RDONLY | O_CREAT, file) : e;
}

err_t decision_log_forget(const char *path, const char *tenant, uint64_t *n_deleted)
{
    int file;
    *n_deleted = 0;
    err_t e = lock_log(path, &file);
    if (e.code == ERR_FAILED_PRECONDITION)
        return err_new(e.code, "%s is being written: stop the router first", path);
    if (e.code != ERR_OK)
        return e;
    e = forget_in_all(path, tenant, n_deleted);
    close(file);
    return e;
}
