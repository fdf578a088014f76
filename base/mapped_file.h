/* A whole file mapped read-only. The mapping owns nothing else; pointers into it live until
 * mapped_file_close. */
#pragma once

#include <stddef.h>
#include <stdint.h>
#include "base/error.h"

struct mapped_file {
    const uint8_t *data; /* size_bytes readable bytes; NULL when the file is empty */
    size_t size_bytes;
};

/* ERR_NOT_FOUND, ERR_IO; ERR_INVALID_ARGUMENT for what is not a regular file. */
err_t mapped_file_open(const char *path, struct mapped_file *out) ERR_MUST_CHECK;
void mapped_file_close(struct mapped_file *file); /* idempotent */

/* Reads a whole small file into mem_alloc'd memory with a terminating NUL (not counted); the caller
 * mem_free's *data. ERR_RESOURCE_EXHAUSTED when it is larger than max_bytes. */
err_t file_read(const char *path, size_t max_bytes, char **data, size_t *size_bytes) ERR_MUST_CHECK;

/* The same of what is open already, from where it stands to its end: a file, a pipe or a socket. name: for
 * messages. The descriptor stays the caller's. */
err_t descriptor_read(int descriptor, const char *name, size_t max_bytes, char **data,
                      size_t *size_bytes) ERR_MUST_CHECK;

/* path = directory + "/" + name into out[out_bytes]; name must be a plain file name: no '/', no "..", not
 * empty. */
err_t path_join(const char *directory, const char *name, char *out, size_t out_bytes) ERR_MUST_CHECK;
