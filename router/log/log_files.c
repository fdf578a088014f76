#include "router/log/log_files.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>
#include "base/alloc.h"
#include "router/log/decision_entry.h"

enum { LOOKS_MAX = 1000 }; /* for a file that is another each time */

static err_t failed(const char *path, const char *what)
{
    return err_new(ERR_IO, "the decision log %s cannot %s: %s", path, what, strerror(errno));
}

err_t log_file_name(const char *path, uint32_t number, char out[LOG_PATH_BYTES])
{
    int n = number == 0 ? snprintf(out, LOG_PATH_BYTES, "%s", path)
                        : snprintf(out, LOG_PATH_BYTES, "%s.%u", path, number);
    if (n < 0 || n >= LOG_PATH_BYTES)
        return err_new(ERR_RESOURCE_EXHAUSTED, "the path of the decision log has more than %d bytes",
                       LOG_PATH_BYTES - 16);
    return err_ok();
}

err_t log_file_fresh_name(const char *path, char out[LOG_PATH_BYTES])
{
    int n = snprintf(out, LOG_PATH_BYTES, "%s.new", path);
    return n > 0 && n < LOG_PATH_BYTES ? err_ok() : log_file_name(path, UINT32_MAX, out);
}

/* The time of the first line, by which a file is renamed that an earlier process began. */
static int64_t first_line_ms(int file)
{
    int64_t ms = 0;
    char *text = mem_alloc(DECISION_LINE_BYTES_MAX);
    ssize_t n = text ? pread(file, text, DECISION_LINE_BYTES_MAX, 0) : 0;
    const char *end = n > 0 ? memchr(text, '\n', (size_t)n) : NULL;
    struct decision_line line;
    if (end && decision_line_parse(text, (size_t)(end - text), &line).code == ERR_OK) {
        ms = line.entry.unix_ms;
        decision_line_free(&line);
    }
    mem_free(text);
    return ms;
}

static err_t look_at(struct log_files *files)
{
    struct stat status;
    if (fstat(files->file, &status) != 0)
        return failed(files->path, "be opened");
    files->is_regular = S_ISREG(status.st_mode);
    files->size = files->is_regular ? status.st_size : 0;
    files->is_mid_line = false;
    files->first_ms = 0;
    if (files->size == 0)
        return err_ok();
    char last = '\n';
    files->is_mid_line = pread(files->file, &last, 1, files->size - 1) == 1 && last != '\n';
    files->first_ms = first_line_ms(files->file);
    if (files->first_ms == 0)
        files->first_ms = (int64_t)status.st_mtim.tv_sec * 1000;
    return err_ok();
}

bool log_path_is(const char *path, int file)
{
    struct stat opened, named;
    return fstat(file, &opened) == 0 && stat(path, &named) == 0 && opened.st_dev == named.st_dev &&
           opened.st_ino == named.st_ino;
}

/* PATH may be renamed, or replaced, between open and flock: then the lock is on a file that has another name
 * or none, and keeps nobody away. */
err_t log_path_lock(const char *path, int flags, int *file)
{
    for (int look = 0; look < LOOKS_MAX; look++) {
        struct stat status;
        *file = open(path, flags | O_NONBLOCK | O_CLOEXEC | O_NOCTTY, 0600);
        if (*file < 0 && errno == ENOENT)
            return err_new(ERR_NOT_FOUND, "%s: %s", path, strerror(errno));
        if (*file < 0)
            return failed(path, "be opened");
        bool is_regular = fstat(*file, &status) != 0 || S_ISREG(status.st_mode);
        bool is_locked = !is_regular || flock(*file, LOCK_EX | LOCK_NB) == 0;
        if (is_locked && (!is_regular || log_path_is(path, *file)))
            return err_ok();
        close(*file);
        *file = -1;
        if (!is_locked)
            break;
    }
    return err_new(ERR_FAILED_PRECONDITION, "another process writes the decision log %s", path);
}

/* A crash between link and rename of turn_over leaves PATH with a second name, PATH.1. */
static err_t drop_second_name(const struct log_files *files)
{
    char second[LOG_PATH_BYTES];
    TRY(log_file_name(files->path, 1, second));
    if (log_path_is(second, files->file) && log_path_is(files->path, files->file) && unlink(second) != 0)
        return failed(second, "be deleted");
    return err_ok();
}

static err_t open_path(struct log_files *files)
{
    struct stat status;
    bool is_regular = stat(files->path, &status) != 0 || S_ISREG(status.st_mode);
    err_t e = log_path_lock(files->path, (is_regular ? O_RDWR : O_WRONLY) | O_APPEND | O_CREAT, &files->file);
    if (e.code == ERR_NOT_FOUND) /* its folder */
        return err_new(ERR_IO, "the decision log %s", e.message);
    if (e.code != ERR_OK)
        return e;
    TRY(look_at(files));
    return files->is_regular ? drop_second_name(files) : err_ok();
}

void log_files_close(struct log_files *files)
{
    if (files->file >= 0)
        close(files->file);
    files->file = -1;
}

err_t log_files_open(struct log_files *files)
{
    char longest[LOG_PATH_BYTES];
    files->file = -1;
    TRY(log_file_name(files->path, UINT32_MAX, longest));
    err_t e = open_path(files);
    if (e.code != ERR_OK)
        log_files_close(files);
    return e;
}

/* PATH.keep goes, every other one gets the next number, and PATH gets the name PATH.1 too, or alone where a
 * file has one name only. A number that is not there is no error. */
static err_t rename_all(const struct log_files *files)
{
    char from[LOG_PATH_BYTES], to[LOG_PATH_BYTES];
    if (files->keep == 0)
        return err_ok();
    TRY(log_file_name(files->path, files->keep, to));
    if (unlink(to) != 0 && errno != ENOENT)
        return failed(files->path, "be renamed");
    for (uint32_t number = files->keep; number > 1; number--) {
        TRY(log_file_name(files->path, number - 1, from));
        TRY(log_file_name(files->path, number, to));
        if (rename(from, to) != 0 && errno != ENOENT)
            return failed(files->path, "be renamed");
    }
    TRY(log_file_name(files->path, 1, to));
    if (link(files->path, to) != 0 && errno != ENOENT && rename(files->path, to) != 0 && errno != ENOENT)
        return failed(files->path, "be renamed");
    return err_ok();
}

static err_t make_fresh(const char *name, int *file)
{
    if (unlink(name) != 0 && errno != ENOENT) /* of a process that crashed; nothing is ever in it */
        return failed(name, "be deleted");
    return log_path_lock(name, O_RDWR | O_APPEND | O_CREAT | O_EXCL, file);
}

/* The fresh file is locked before it takes the old one's place in one step: whoever opens PATH finds it, and
 * finds it locked. Who fails goes on with the old one. */
static err_t turn_over(struct log_files *files)
{
    char name[LOG_PATH_BYTES];
    int fresh;
    TRY(log_file_fresh_name(files->path, name));
    TRY(drop_second_name(files));
    TRY(make_fresh(name, &fresh));
    err_t e = rename_all(files);
    if (e.code == ERR_OK && rename(name, files->path) != 0)
        e = failed(files->path, "be renamed");
    if (e.code != ERR_OK) {
        unlink(name);
        close(fresh);
        return e;
    }
    log_files_close(files);
    files->file = fresh;
    files->size = files->first_ms = 0;
    files->is_mid_line = false;
    return err_ok();
}

static bool is_too_old(const struct log_files *files, int64_t now_ms)
{
    return files->retention_ms > 0 && files->first_ms > 0 &&
           now_ms - files->first_ms >= files->retention_ms / 4;
}

err_t log_files_prepare(struct log_files *files, size_t n_bytes, int64_t now_ms)
{
    bool is_full = files->size > 0 && files->size + (int64_t)n_bytes > files->max_bytes;
    err_t e = files->is_regular && (is_full || is_too_old(files, now_ms)) ? turn_over(files) : err_ok();
    if (files->first_ms == 0)
        files->first_ms = now_ms;
    return e;
}

err_t log_files_expire(struct log_files *files, int64_t now_ms)
{
    if (!files->is_regular || files->retention_ms == 0)
        return err_ok();
    if (is_too_old(files, now_ms))
        TRY(turn_over(files));
    for (uint32_t number = 1; number <= files->keep; number++) {
        char name[LOG_PATH_BYTES];
        struct stat status;
        TRY(log_file_name(files->path, number, name));
        if (lstat(name, &status) != 0)
            continue;
        int64_t age_ms = now_ms - ((int64_t)status.st_mtim.tv_sec * 1000 + status.st_mtim.tv_nsec / 1000000);
        if (age_ms >= files->retention_ms / 4 * 3 && unlink(name) != 0 && errno != ENOENT)
            return failed(name, "be deleted");
    }
    return err_ok();
}
