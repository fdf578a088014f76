/* The files of a decision log: PATH, which grows, and PATH.1, PATH.2, ..., the older the higher. One thread.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "base/error.h"

struct log_files {
    const char *path; /* owned */
    int64_t max_bytes, retention_ms;
    uint32_t keep;
    int file; /* descriptor, non-blocking; -1 = none */
    bool is_regular;
    bool is_mid_line; /* what was written last has no line break */
    int64_t size;     /* bytes */
    int64_t first_ms; /* Unix time of the first line; 0 = there is none */
};

/* Opens PATH and locks it. FAILED_PRECONDITION: another process has it. */
err_t log_files_open(struct log_files *files) ERR_MUST_CHECK;
void log_files_close(struct log_files *files);
/* Makes room for n_bytes more at Unix time now_ms: renames PATH when they do not fit or it is too old. An
 * error leaves PATH as it is, which then goes on to grow. */
err_t log_files_prepare(struct log_files *files, size_t n_bytes, int64_t now_ms) ERR_MUST_CHECK;
/* Renames PATH when it is too old, and deletes renamed files that are. */
err_t log_files_expire(struct log_files *files, int64_t now_ms) ERR_MUST_CHECK;

/* "PATH.number" in out; number 0 = PATH itself. RESOURCE_EXHAUSTED: it is too long. */
enum { LOG_PATH_BYTES = 4096 };
err_t log_file_name(const char *path, uint32_t number, char out[LOG_PATH_BYTES]) ERR_MUST_CHECK;
/* The name of an empty file that is about to become PATH; its writer has it locked. */
err_t log_file_fresh_name(const char *path, char out[LOG_PATH_BYTES]) ERR_MUST_CHECK;

/* Opens PATH with open's flags, and locks it if it is a regular file. A file that is renamed or replaced
 * before the lock is on it is let go, and PATH looked for again. NOT_FOUND; FAILED_PRECONDITION: another
 * process has it; IO. *file is -1 then. */
err_t log_path_lock(const char *path, int flags, int *file) ERR_MUST_CHECK;
/* Whether the open file is what PATH names now. */
bool log_path_is(const char *path, int file);
