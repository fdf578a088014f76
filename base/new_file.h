/* A file that appears whole or not at all: it is written under another name, beside, and takes its place when
 * it is on the disk. One thread. */
#pragma once

#include <stddef.h>
#include <stdint.h>
#include "base/error.h"

enum { NEW_FILE_PATH_MAX = 4096 }; /* bytes incl. NUL */

struct new_file {
    int descriptor;                                               /* -1 = closed */
    char path[NEW_FILE_PATH_MAX - 16], beside[NEW_FILE_PATH_MAX]; /* beside: path + ".partial" */
};

/* What a writer that was killed left beside is overwritten. FAILED_PRECONDITION while another process writes
 * there, IO, INVALID_ARGUMENT for a path that is too long. Whatever it returns: new_file_close. */
err_t new_file_open(const char *path, struct new_file *out) ERR_MUST_CHECK;
/* Takes the room on the disk, where the file system can: RESOURCE_EXHAUSTED when it is not there. */
err_t new_file_reserve(struct new_file *file, uint64_t size_bytes) ERR_MUST_CHECK;
/* RESOURCE_EXHAUSTED for a full disk, IO. */
err_t new_file_write(struct new_file *file, uint64_t offset, const void *data,
                     size_t size_bytes) ERR_MUST_CHECK;
/* On the disk, and in its place. */
err_t new_file_finish(struct new_file *file) ERR_MUST_CHECK;
/* Removes what was not finished. Idempotent. */
void new_file_close(struct new_file *file);
