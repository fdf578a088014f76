/* The files of a model's tokenizer as a ZIP archive in memory, for clients that tokenise themselves: one copy
 * for all that read it at the same time, made for the first and dropped with the last of them. */
#pragma once

#include <pthread.h>
#include <stddef.h>
#include <stdint.h>
#include "base/error.h"

enum {
    TOKENIZER_ARCHIVE_BYTES_MAX = 256 << 20,
    TOKENIZER_ARCHIVE_FILES_MAX = 64,
    TOKENIZER_SHA256_BYTES = 65, /* hexadecimal, with its NUL */
};

struct tokenizer_archive {
    uint8_t *data; /* size_bytes; of the store */
    size_t size_bytes;
    char sha256[TOKENIZER_SHA256_BYTES]; /* of data */
};

struct tokenizer_store {
    pthread_mutex_t mutex;
    struct tokenizer_archive archive;
    uint32_t n_readers;
};

void tokenizer_store_init(struct tokenizer_store *store);
void tokenizer_store_destroy(struct tokenizer_store *store); /* nobody reads any more */

/* Any thread; reads files. directory: NULL = none. FAILED_PRECONDITION when there are no such files (a GGUF
 * file has its tokenizer inside), RESOURCE_EXHAUSTED, IO. The archive lives until tokenizer_archive_release.
 */
err_t tokenizer_archive_acquire(struct tokenizer_store *store, const char *directory,
                                const struct tokenizer_archive **out) ERR_MUST_CHECK;
void tokenizer_archive_release(struct tokenizer_store *store);
