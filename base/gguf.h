/* The directory of a GGUF file: typed keys and values, and where its tensors lie. What they mean is the
 * reader's business. Versions 2 and 3, little-endian, one file. Format: the ggml project's docs/gguf.md.
 * Strict: counts, lengths, types, alignment, shapes and places are checked against the file's size with
 * checked arithmetic; names are unique; tensors follow one another without overlap. The file is mapped and
 * must not be cut short while open; the data of tensors is not touched here. Immutable once open: any
 * thread. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "base/buffer.h"
#include "base/error.h"
#include "base/mapped_file.h"

enum {
    GGUF_KEYS_MAX = 1 << 16,
    GGUF_TENSORS_MAX = 1 << 20,
    GGUF_NAME_MAX = 512, /* bytes of a key or a tensor's name */
    GGUF_DIMS_MAX = 4,
    GGUF_ALIGNMENT_MAX = 1 << 20, /* bytes */
    GGUF_ALIGNMENT_DEFAULT = 32,
    GGUF_PATH_MAX = 4096, /* bytes incl. NUL */
};

/* A head is a GGUF file whose key GGUF_HEAD_KEY is true: keys and directory are those of the file that it was
 * made from, and data are there of the first tensors only. Of a model whose weights lie elsewhere. */
#define GGUF_HEAD_KEY  "bantam.head"
#define GGUF_HEAD_FILE "head.gguf" /* its name in a model's directory */

#define GGUF_MAGIC "GGUF" /* a file's first bytes, without the NUL */

/* As the format numbers them. */
enum gguf_type {
    GGUF_U8,
    GGUF_I8,
    GGUF_U16,
    GGUF_I16,
    GGUF_U32,
    GGUF_I32,
    GGUF_F32,
    GGUF_BOOL,
    GGUF_TEXT,
    GGUF_ARRAY,
    GGUF_U64,
    GGUF_I64,
    GGUF_F64,
    GGUF_TYPES,
};

/* Not NUL-terminated; data NULL = absent. */
struct gguf_text {
    const char *data;
    size_t size_bytes;
};

struct gguf_value {
    enum gguf_type type;
    enum gguf_type item_type; /* of an array: never an array */
    uint64_t n_items;         /* of an array */
    const uint8_t *data;      /* of a text: behind its length; of an array: its first item */
    size_t size_bytes;        /* of data */
};

struct gguf_key {
    struct gguf_text name;
    struct gguf_value value;
};

struct gguf_tensor {
    struct gguf_text name;
    uint32_t n_dims;
    uint64_t dims[GGUF_DIMS_MAX]; /* the fastest first */
    uint32_t type;                /* gguf_tensor_format */
    uint64_t begin, end;          /* bytes, from the start of the data section */
};

struct gguf {
    char *path;             /* owned; for messages */
    struct mapped_file map; /* gguf_open only */
    const uint8_t *data;    /* the file */
    struct gguf_key *keys;  /* [n_keys] owned, ascending by name */
    size_t n_keys;
    struct gguf_tensor *tensors; /* [n_tensors] owned, ascending by begin */
    size_t n_tensors;
    uint64_t data_offset; /* bytes from the start of the file to the data section */
    size_t size_bytes;    /* of the file */
    bool is_head;
};

/* How a tensor's values are stored: blocks of so many values in so many bytes. */
struct gguf_tensor_format {
    const char *name; /* "Q4_0" */
    uint32_t block_values, block_bytes;
};
/* NULL for a number that is not known. */
const struct gguf_tensor_format *gguf_tensor_format(uint32_t type);

/* Whether a model's path means a GGUF file: a regular file, or a name that ends in .gguf. */
bool gguf_is_path(const char *path);
/* The GGUF file that tells of the model of a path: the path itself, or the head in a directory. False: the
 * directory has none, or its path is longer than GGUF_PATH_MAX. */
bool gguf_of_model(const char *path, char out[GGUF_PATH_MAX]);

/* NOT_FOUND, IO; DATA_LOSS for a file that breaks the format, RESOURCE_EXHAUSTED past a limit above,
 * UNIMPLEMENTED for a version, an array of arrays or a tensor type that is not known; messages name the file
 * and the key or tensor. Close with gguf_close. */
err_t gguf_open(const char *path, struct gguf *out) ERR_MUST_CHECK;
/* The same from memory, which must outlive *out: the whole file. */
err_t gguf_parse(const char *path, const uint8_t *data, size_t size_bytes, struct gguf *out) ERR_MUST_CHECK;
void gguf_close(struct gguf *gguf); /* idempotent; zeroed memory is fine */

/* NULL when there is none of that name. */
const struct gguf_value *gguf_find(const struct gguf *gguf, const char *key);
const struct gguf_tensor *gguf_find_tensor(const struct gguf *gguf, const char *name);

/* Optional values: *out is left alone when absent. INVALID_ARGUMENT for another kind or a value outside [min,
 * max]; the message names file and key. Integers of any width and sign count as integers, and as numbers. */
err_t gguf_opt_u32(const struct gguf *gguf, const char *key, uint32_t min, uint32_t max,
                   uint32_t *out) ERR_MUST_CHECK;
err_t gguf_opt_number(const struct gguf *gguf, const char *key, double min, double max,
                      double *out) ERR_MUST_CHECK;
err_t gguf_opt_bool(const struct gguf *gguf, const char *key, bool *out) ERR_MUST_CHECK;
err_t gguf_opt_text(const struct gguf *gguf, const char *key, struct gguf_text *out) ERR_MUST_CHECK;
/* *out is NULL when absent. */
err_t gguf_opt_array(const struct gguf *gguf, const char *key, enum gguf_type item_type, uint64_t max_items,
                     const struct gguf_value **out) ERR_MUST_CHECK;
/* The same, INVALID_ARGUMENT when absent. */
err_t gguf_get_u32(const struct gguf *gguf, const char *key, uint32_t min, uint32_t max,
                   uint32_t *out) ERR_MUST_CHECK;
err_t gguf_get_number(const struct gguf *gguf, const char *key, double min, double max,
                      double *out) ERR_MUST_CHECK;
err_t gguf_get_text(const struct gguf *gguf, const char *key, struct gguf_text *out) ERR_MUST_CHECK;
err_t gguf_get_array(const struct gguf *gguf, const char *key, enum gguf_type item_type, uint64_t max_items,
                     const struct gguf_value **out) ERR_MUST_CHECK;

/* The items of an array of texts one after the other: *at starts at 0. n_items calls. */
struct gguf_text gguf_next_text(const struct gguf_value *array, size_t *at);
/* Item `index` of an array of F32 or I32. */
float gguf_f32_at(const struct gguf_value *array, uint64_t index);
int32_t gguf_i32_at(const struct gguf_value *array, uint64_t index);

bool gguf_text_is(struct gguf_text text, const char *other);

/* [end - begin] bytes; NULL: the file is a head and has them not. */
const uint8_t *gguf_tensor_data(const struct gguf *gguf, const struct gguf_tensor *tensor);

/* Appends a head of the file to out, with the data of the tensor `kept` where it has one of that name.
 * RESOURCE_EXHAUSTED at out's limit. */
err_t gguf_head_write(const struct gguf *gguf, const char *kept, struct buffer *out) ERR_MUST_CHECK;

static inline uint64_t gguf_load_le(const uint8_t *data, size_t size_bytes)
{
    uint64_t value = 0;
    for (size_t i = size_bytes; i > 0; i--)
        value = value << 8 | data[i - 1];
    return value;
}
