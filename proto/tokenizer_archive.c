#include "proto/tokenizer_archive.h"

#include <dirent.h>
#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <openssl/evp.h>
#include <zlib.h>
#include "base/alloc.h"
#include "base/assert.h"
#include "base/buffer.h"
#include "base/mapped_file.h"

/* What clients build a tokenizer from: the files that vLLM's servers send, and no others. */
static const char *const wanted_names[] = {
    "tokenizer.json",
    "tokenizer_config.json",
    "config.json",
    "generation_config.json",
    "special_tokens_map.json",
    "vocab.json",
    "merges.txt",
    "tokenizer.model",
    "tiktoken.model",
    "chat_template.json",
};
static const char *const wanted_endings[] = {".tiktoken", ".jinja", ".model"};

enum { NAME_BYTES_MAX = 128 };

struct names {
    char at[TOKENIZER_ARCHIVE_FILES_MAX][NAME_BYTES_MAX];
    size_t n;
};

static bool is_wanted(const char *name)
{
    size_t size = strlen(name);
    for (size_t i = 0; i < sizeof wanted_names / sizeof wanted_names[0]; i++)
        if (strcmp(wanted_names[i], name) == 0)
            return true;
    for (size_t i = 0; i < sizeof wanted_endings / sizeof wanted_endings[0]; i++) {
        size_t ending = strlen(wanted_endings[i]);
        if (size > ending && strcmp(name + size - ending, wanted_endings[i]) == 0)
            return true;
    }
    return false;
}

static int compare_names(const void *a, const void *b)
{
    return strcmp(a, b);
}

/* In the order of their bytes, so that the same files are the same archive. */
static err_t list_names(const char *directory, struct names *out)
{
    DIR *folder = opendir(directory);
    if (!folder && errno == ENOTDIR)
        return err_new(ERR_FAILED_PRECONDITION,
                       "the tokenizer is inside a GGUF file; there are no files of it to send");
    if (!folder)
        return err_new(ERR_IO, "the tokenizer's folder cannot be read: %s", strerror(errno));
    const struct dirent *entry;
    while ((entry = readdir(folder)) && out->n < TOKENIZER_ARCHIVE_FILES_MAX)
        if (is_wanted(entry->d_name) && strlen(entry->d_name) < NAME_BYTES_MAX)
            memcpy(out->at[out->n++], entry->d_name, strlen(entry->d_name) + 1);
    (void)closedir(folder);
    if (out->n == 0)
        return err_new(ERR_FAILED_PRECONDITION, "the model's folder has no files of a tokenizer");
    qsort(out->at, out->n, sizeof out->at[0], compare_names);
    return err_ok();
}

/* --- ZIP (PKWARE's APPNOTE 6.3): files as they are, sizes below 4 GiB */

enum { LOCAL_HEADER_BYTES = 30, CENTRAL_HEADER_BYTES = 46, END_BYTES = 22, NAMES_ARE_UTF8 = 1 << 11 };
enum { VERSION_NEEDED = 20, JANUARY_1_1980 = 1 << 5 | 1 };

struct entry {
    uint32_t crc, size_bytes, offset;
};

static uint8_t *put_u16(uint8_t *to, uint32_t value)
{
    to[0] = (uint8_t)value;
    to[1] = (uint8_t)(value >> 8);
    return to + 2;
}

static uint8_t *put_u32(uint8_t *to, uint32_t value)
{
    return put_u16(put_u16(to, value & 0xffff), value >> 16);
}

/* What both headers of a file say of it, from the version on. */
static uint8_t *put_facts(uint8_t *to, const struct entry *entry, size_t name_bytes)
{
    to = put_u16(to, VERSION_NEEDED);
    to = put_u16(to, NAMES_ARE_UTF8);
    to = put_u16(to, 0); /* stored */
    to = put_u16(to, 0); /* midnight */
    to = put_u16(to, JANUARY_1_1980);
    to = put_u32(to, entry->crc);
    to = put_u32(to, entry->size_bytes);
    to = put_u32(to, entry->size_bytes);
    to = put_u16(to, (uint32_t)name_bytes);
    return put_u16(to, 0); /* no extra field */
}

static bool append_file(struct buffer *zip, const char *name, const struct mapped_file *file,
                        struct entry *out)
{
    uint8_t header[LOCAL_HEADER_BYTES];
    uLong crc = crc32(0, Z_NULL, 0);
    if (file->size_bytes > 0)
        crc = crc32_z(crc, file->data, file->size_bytes);
    *out = (struct entry){(uint32_t)crc, (uint32_t)file->size_bytes, (uint32_t)zip->size};
    uint8_t *end = put_facts(put_u32(header, 0x04034b50), out, strlen(name));
    ASSERT(end == header + sizeof header);
    return buffer_append(zip, header, sizeof header) && buffer_append_text(zip, name) &&
           buffer_append(zip, file->size_bytes > 0 ? (const void *)file->data : "", file->size_bytes);
}

static bool append_directory(struct buffer *zip, const struct names *names, const struct entry *entries)
{
    size_t start = zip->size;
    for (size_t i = 0; i < names->n; i++) {
        uint8_t header[CENTRAL_HEADER_BYTES] = {0};
        uint8_t *to = put_u16(put_u32(header, 0x02014b50), VERSION_NEEDED);
        (void)put_facts(to, &entries[i], strlen(names->at[i]));
        (void)put_u32(header + CENTRAL_HEADER_BYTES - 4,
                      entries[i].offset); /* between: no comment, disk 0, no attributes */
        if (!buffer_append(zip, header, sizeof header) || !buffer_append_text(zip, names->at[i]))
            return false;
    }
    uint8_t end[END_BYTES] = {0};
    (void)put_u32(end, 0x06054b50);
    uint8_t *to = put_u16(put_u16(end + 8, (uint32_t)names->n), (uint32_t)names->n);
    (void)put_u32(put_u32(to, (uint32_t)(zip->size - start)), (uint32_t)start);
    return buffer_append(zip, end, sizeof end);
}

static err_t append_named(struct buffer *zip, const char *directory, const char *name, struct entry *out)
{
    char path[4096];
    struct mapped_file file;
    TRY(path_join(directory, name, path, sizeof path));
    TRY(mapped_file_open(path, &file));
    bool fits = file.size_bytes <= TOKENIZER_ARCHIVE_BYTES_MAX && append_file(zip, name, &file, out);
    mapped_file_close(&file);
    if (!fits)
        return err_new(ERR_RESOURCE_EXHAUSTED,
                       "no memory for the tokenizer's files, or more than %d bytes of them",
                       TOKENIZER_ARCHIVE_BYTES_MAX);
    return err_ok();
}

static err_t build(const char *directory, struct names *names, struct buffer *zip)
{
    struct entry entries[TOKENIZER_ARCHIVE_FILES_MAX];
    TRY(list_names(directory, names));
    for (size_t i = 0; i < names->n; i++)
        TRY(append_named(zip, directory, names->at[i], &entries[i]));
    if (!append_directory(zip, names, entries))
        return err_new(ERR_RESOURCE_EXHAUSTED, "no memory for the tokenizer's files");
    return err_ok();
}

static err_t digest(struct tokenizer_archive *archive)
{
    uint8_t sha256[EVP_MAX_MD_SIZE];
    unsigned n_bytes = 0;
    if (EVP_Digest(archive->data, archive->size_bytes, sha256, &n_bytes, EVP_sha256(), NULL) != 1 ||
        n_bytes * 2 + 1 != TOKENIZER_SHA256_BYTES)
        return err_new(ERR_INTERNAL, "SHA-256 failed");
    for (unsigned i = 0; i < n_bytes; i++)
        (void)snprintf(archive->sha256 + 2 * i, 3, "%02x", sha256[i]);
    return err_ok();
}

static err_t make_archive(const char *directory, struct tokenizer_archive *out)
{
    struct buffer zip = {.limit_bytes = TOKENIZER_ARCHIVE_BYTES_MAX};
    struct names *names = mem_alloc(sizeof *names);
    if (!names)
        return err_new(ERR_RESOURCE_EXHAUSTED, "no memory for the tokenizer's files");
    err_t e = build(directory, names, &zip);
    mem_free(names);
    *out = (struct tokenizer_archive){.data = (uint8_t *)zip.data, .size_bytes = zip.size};
    if (e.code == ERR_OK)
        e = digest(out);
    if (e.code != ERR_OK)
        buffer_free(&zip);
    return e;
}

/* --- the store */

void tokenizer_store_init(struct tokenizer_store *store)
{
    *store = (struct tokenizer_store){0};
    pthread_mutex_init(&store->mutex, NULL);
}

void tokenizer_store_destroy(struct tokenizer_store *store)
{
    ASSERT(store->n_readers == 0);
    pthread_mutex_destroy(&store->mutex);
}

err_t tokenizer_archive_acquire(struct tokenizer_store *store, const char *directory,
                                const struct tokenizer_archive **out)
{
    if (!directory)
        return err_new(ERR_FAILED_PRECONDITION, "the server runs without a tokenizer");
    pthread_mutex_lock(&store->mutex);
    err_t e = err_ok();
    if (store->n_readers == 0)
        e = make_archive(directory, &store->archive);
    if (e.code == ERR_OK)
        store->n_readers++;
    pthread_mutex_unlock(&store->mutex);
    *out = &store->archive;
    return e;
}

void tokenizer_archive_release(struct tokenizer_store *store)
{
    pthread_mutex_lock(&store->mutex);
    ASSERT(store->n_readers > 0);
    if (--store->n_readers == 0) {
        mem_free(store->archive.data);
        store->archive = (struct tokenizer_archive){0};
    }
    pthread_mutex_unlock(&store->mutex);
}
