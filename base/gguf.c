#include "base/gguf.h"

#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include "base/alloc.h"
#include "base/utf8.h"

enum {
    KEY_BYTES_MIN = 8 + 4 + 1,            /* length, type, value */
    TENSOR_BYTES_MIN = 8 + 4 + 8 + 4 + 8, /* length, dimensions, one of them, type, offset */
    SHOWN_MAX = 120,                      /* bytes of a name that a message repeats */
};

/* Where a parse is in the file. */
struct reader {
    const char *path;
    const uint8_t *data;
    size_t size_bytes, at;
    bool is_head;
};

static const size_t TYPE_BYTES[GGUF_TYPES] = {
    [GGUF_U8] = 1,  [GGUF_I8] = 1,   [GGUF_U16] = 2, [GGUF_I16] = 2, [GGUF_U32] = 4, [GGUF_I32] = 4,
    [GGUF_F32] = 4, [GGUF_BOOL] = 1, [GGUF_U64] = 8, [GGUF_I64] = 8, [GGUF_F64] = 8,
};

const struct gguf_tensor_format *gguf_tensor_format(uint32_t type)
{
    static const struct gguf_tensor_format formats[] = {
        [0] = {"F32", 1, 4},         [1] = {"F16", 1, 2},         [2] = {"Q4_0", 32, 18},
        [3] = {"Q4_1", 32, 20},      [6] = {"Q5_0", 32, 22},      [7] = {"Q5_1", 32, 24},
        [8] = {"Q8_0", 32, 34},      [10] = {"Q2_K", 256, 84},    [11] = {"Q3_K", 256, 110},
        [12] = {"Q4_K", 256, 144},   [13] = {"Q5_K", 256, 176},   [14] = {"Q6_K", 256, 210},
        [16] = {"IQ2_XXS", 256, 66}, [17] = {"IQ2_XS", 256, 74},  [18] = {"IQ3_XXS", 256, 98},
        [19] = {"IQ1_S", 256, 50},   [20] = {"IQ4_NL", 32, 18},   [21] = {"IQ3_S", 256, 110},
        [22] = {"IQ2_S", 256, 82},   [23] = {"IQ4_XS", 256, 136}, [24] = {"I8", 1, 1},
        [25] = {"I16", 1, 2},        [26] = {"I32", 1, 4},        [27] = {"I64", 1, 8},
        [28] = {"F64", 1, 8},        [29] = {"IQ1_M", 256, 56},   [30] = {"BF16", 1, 2},
        [34] = {"TQ1_0", 256, 54},   [35] = {"TQ2_0", 256, 66},   [39] = {"MXFP4", 32, 17},
    };
    return type < sizeof formats / sizeof formats[0] && formats[type].name ? &formats[type] : NULL;
}

bool gguf_is_path(const char *path)
{
    struct stat status;
    if (stat(path, &status) == 0)
        return S_ISREG(status.st_mode);
    size_t size = strlen(path);
    return size >= 5 && strcmp(path + size - 5, ".gguf") == 0;
}

bool gguf_of_model(const char *path, char out[GGUF_PATH_MAX])
{
    if (!gguf_is_path(path))
        return path_join(path, GGUF_HEAD_FILE, out, GGUF_PATH_MAX).code == ERR_OK && access(out, F_OK) == 0;
    size_t size = strlen(path) + 1;
    if (size <= GGUF_PATH_MAX)
        memcpy(out, path, size);
    return size <= GGUF_PATH_MAX;
}

/* ---- The file's bytes ---- */

static err_t take(struct reader *reader, uint64_t n, const uint8_t **out)
{
    if (n > reader->size_bytes - reader->at)
        return err_new(ERR_DATA_LOSS, "%s: truncated: it ends at byte %zu, within its directory",
                       reader->path, reader->size_bytes);
    *out = reader->data + reader->at;
    reader->at += (size_t)n;
    return err_ok();
}

static err_t take_number(struct reader *reader, size_t n, uint64_t *out)
{
    const uint8_t *data = NULL;
    TRY(take(reader, n, &data));
    *out = gguf_load_le(data, n);
    return err_ok();
}

static err_t take_text(struct reader *reader, struct gguf_text *out)
{
    uint64_t size;
    const uint8_t *data = NULL;
    TRY(take_number(reader, 8, &size));
    TRY(take(reader, size, &data));
    *out = (struct gguf_text){(const char *)data, (size_t)size};
    return err_ok();
}

/* A key or the name of a tensor. */
static err_t take_name(struct reader *reader, const char *what, struct gguf_text *out)
{
    size_t at = reader->at;
    TRY(take_text(reader, out));
    if (out->size_bytes == 0 || out->size_bytes > GGUF_NAME_MAX || !utf8_valid(out->data, out->size_bytes) ||
        memchr(out->data, '\0', out->size_bytes))
        return err_new(ERR_DATA_LOSS, "%s: the %s at byte %zu must be text of 1 to %d bytes", reader->path,
                       what, at, GGUF_NAME_MAX);
    return err_ok();
}

static int shown(struct gguf_text text)
{
    return (int)(text.size_bytes < SHOWN_MAX ? text.size_bytes : SHOWN_MAX);
}

static int text_compare(struct gguf_text a, struct gguf_text b)
{
    size_t n = a.size_bytes < b.size_bytes ? a.size_bytes : b.size_bytes;
    int order = memcmp(a.data, b.data, n);
    if (order != 0)
        return order;
    return a.size_bytes < b.size_bytes ? -1 : a.size_bytes > b.size_bytes;
}

/* ---- Keys ---- */

static err_t take_array(struct reader *reader, struct gguf_value *out)
{
    uint64_t type, size;
    TRY(take_number(reader, 4, &type));
    TRY(take_number(reader, 8, &out->n_items));
    if (type == GGUF_ARRAY)
        return err_new(ERR_UNIMPLEMENTED, "%s: an array of arrays", reader->path);
    if (type >= GGUF_TYPES)
        return err_new(ERR_DATA_LOSS, "%s: an array of type %llu, which does not exist", reader->path,
                       (unsigned long long)type);
    out->item_type = (enum gguf_type)type;
    size_t begin = reader->at;
    out->data = reader->data + begin;
    if (out->item_type != GGUF_TEXT) {
        if (__builtin_mul_overflow(out->n_items, TYPE_BYTES[type], &size))
            size = UINT64_MAX;
        const uint8_t *data;
        TRY(take(reader, size, &data));
    }
    for (uint64_t i = 0; out->item_type == GGUF_TEXT && i < out->n_items; i++) {
        struct gguf_text text;
        TRY(take_text(reader, &text));
    }
    out->size_bytes = reader->at - begin;
    return err_ok();
}

static err_t take_value(struct reader *reader, struct gguf_value *out)
{
    uint64_t type;
    TRY(take_number(reader, 4, &type));
    if (type >= GGUF_TYPES)
        return err_new(ERR_DATA_LOSS, "%s: a value of type %llu, which does not exist", reader->path,
                       (unsigned long long)type);
    out->type = (enum gguf_type)type;
    if (out->type == GGUF_ARRAY)
        return take_array(reader, out);
    if (out->type == GGUF_TEXT) {
        struct gguf_text text;
        TRY(take_text(reader, &text));
        out->data = (const uint8_t *)text.data;
        out->size_bytes = text.size_bytes;
        return err_ok();
    }
    out->size_bytes = TYPE_BYTES[type];
    return take(reader, out->size_bytes, &out->data);
}

static int compare_keys(const void *a, const void *b)
{
    return text_compare(((const struct gguf_key *)a)->name, ((const struct gguf_key *)b)->name);
}

static err_t take_keys(struct reader *reader, struct gguf *out)
{
    for (size_t i = 0; i < out->n_keys; i++) {
        struct gguf_key *key = &out->keys[i];
        TRY(take_name(reader, "key", &key->name));
        err_t e = take_value(reader, &key->value);
        if (e.code != ERR_OK)
            return err_prefix(e, "key \"%.*s\"", shown(key->name), key->name.data);
    }
    qsort(out->keys, out->n_keys, sizeof *out->keys, compare_keys);
    for (size_t i = 1; i < out->n_keys; i++) {
        if (compare_keys(&out->keys[i - 1], &out->keys[i]) == 0)
            return err_new(ERR_DATA_LOSS, "%s: key \"%.*s\" is there twice", reader->path,
                           shown(out->keys[i].name), out->keys[i].name.data);
    }
    return err_ok();
}

/* ---- Tensors ---- */

static err_t tensor_error(const struct reader *reader, const struct gguf_tensor *tensor, const char *what)
{
    return err_new(ERR_DATA_LOSS, "%s: tensor \"%.*s\" %s", reader->path, shown(tensor->name),
                   tensor->name.data, what);
}

static err_t tensor_bytes(const struct reader *reader, const struct gguf_tensor *tensor, uint64_t *out)
{
    const struct gguf_tensor_format *format = gguf_tensor_format(tensor->type);
    if (!format)
        return err_new(ERR_UNIMPLEMENTED, "%s: tensor \"%.*s\" is of type %u, which is not known",
                       reader->path, shown(tensor->name), tensor->name.data, tensor->type);
    if (tensor->dims[0] % format->block_values != 0)
        return err_new(ERR_DATA_LOSS,
                       "%s: tensor \"%.*s\" has rows of %llu values, %s needs a multiple of %u", reader->path,
                       shown(tensor->name), tensor->name.data, (unsigned long long)tensor->dims[0],
                       format->name, format->block_values);
    uint64_t bytes = tensor->dims[0] / format->block_values;
    bool fits = !__builtin_mul_overflow(bytes, format->block_bytes, &bytes);
    for (uint32_t d = 1; d < tensor->n_dims; d++)
        fits = fits && !__builtin_mul_overflow(bytes, tensor->dims[d], &bytes);
    if (!fits || (bytes > reader->size_bytes && !reader->is_head))
        return tensor_error(reader, tensor, "is larger than the file");
    *out = bytes;
    return err_ok();
}

static err_t take_tensor(struct reader *reader, uint64_t alignment, struct gguf_tensor *out)
{
    uint64_t n_dims, type, bytes = 0;
    TRY(take_name(reader, "name of a tensor", &out->name));
    TRY(take_number(reader, 4, &n_dims));
    if (n_dims < 1 || n_dims > GGUF_DIMS_MAX)
        return tensor_error(reader, out, "must have 1 to 4 dimensions");
    out->n_dims = (uint32_t)n_dims;
    for (uint32_t d = 0; d < out->n_dims; d++) {
        TRY(take_number(reader, 8, &out->dims[d]));
        if (out->dims[d] == 0)
            return tensor_error(reader, out, "has a dimension of 0");
    }
    TRY(take_number(reader, 4, &type));
    out->type = (uint32_t)type;
    TRY(take_number(reader, 8, &out->begin));
    TRY(tensor_bytes(reader, out, &bytes));
    if (out->begin % alignment != 0)
        return tensor_error(reader, out, "does not begin at a multiple of the alignment");
    if (__builtin_add_overflow(out->begin, bytes, &out->end))
        return tensor_error(reader, out, "ends past the file");
    return err_ok();
}

static int compare_begin(const void *a, const void *b)
{
    const struct gguf_tensor *x = a, *y = b;
    return x->begin < y->begin ? -1 : x->begin > y->begin;
}

static int compare_tensor_names(const void *a, const void *b)
{
    return text_compare(((const struct gguf_tensor *)a)->name, ((const struct gguf_tensor *)b)->name);
}

static uint64_t align_up(uint64_t at, uint64_t alignment)
{
    return (at + alignment - 1) / alignment * alignment;
}

/* One behind the other, each at the next multiple of the alignment, and all within the file. */
static err_t check_places(const struct reader *reader, uint64_t alignment, struct gguf *out)
{
    qsort(out->tensors, out->n_tensors, sizeof *out->tensors, compare_tensor_names);
    for (size_t i = 1; i < out->n_tensors; i++) {
        if (compare_tensor_names(&out->tensors[i - 1], &out->tensors[i]) == 0)
            return tensor_error(reader, &out->tensors[i], "is there twice");
    }
    qsort(out->tensors, out->n_tensors, sizeof *out->tensors, compare_begin);
    uint64_t end = 0;
    for (size_t i = 0; i < out->n_tensors; i++) {
        const struct gguf_tensor *tensor = &out->tensors[i];
        if (tensor->begin < end)
            return tensor_error(reader, tensor, "overlaps another one");
        if (tensor->begin != align_up(end, alignment))
            return tensor_error(reader, tensor, "has a hole before it");
        if (!out->is_head && tensor->end > reader->size_bytes - out->data_offset)
            return tensor_error(reader, tensor, "ends past the file: it is truncated");
        end = tensor->end;
    }
    return err_ok();
}

/* ---- The whole ---- */

static err_t take_count(struct reader *reader, const char *what, uint64_t item_bytes_min, uint64_t max,
                        size_t *out)
{
    uint64_t n;
    TRY(take_number(reader, 8, &n));
    if (n > reader->size_bytes / item_bytes_min)
        return err_new(ERR_DATA_LOSS, "%s: %llu %s, more than a file of %llu bytes can hold", reader->path,
                       (unsigned long long)n, what, (unsigned long long)reader->size_bytes);
    if (n > max)
        return err_new(ERR_RESOURCE_EXHAUSTED, "%s: %llu %s, at most %llu are allowed", reader->path,
                       (unsigned long long)n, what, (unsigned long long)max);
    *out = (size_t)n;
    return err_ok();
}

static err_t take_head(struct reader *reader, struct gguf *out)
{
    const uint8_t *magic = NULL;
    uint64_t version;
    if (reader->size_bytes < 4 || memcmp(reader->data, GGUF_MAGIC, 4) != 0)
        return err_new(ERR_DATA_LOSS, "%s: not a GGUF file", reader->path);
    TRY(take(reader, 4, &magic));
    TRY(take_number(reader, 4, &version));
    if (version != 2 && version != 3)
        return err_new(ERR_UNIMPLEMENTED, "%s: GGUF version %llu%s; known are 2 and 3, little-endian",
                       reader->path, (unsigned long long)version,
                       version > 0 && (version & 0xffff) == 0 ? " (a big-endian file)" : "");
    TRY(take_count(reader, "tensors", TENSOR_BYTES_MIN, GGUF_TENSORS_MAX, &out->n_tensors));
    TRY(take_count(reader, "keys", KEY_BYTES_MIN, GGUF_KEYS_MAX, &out->n_keys));
    out->keys = mem_alloc_array(out->n_keys + 1, sizeof *out->keys);
    out->tensors = mem_alloc_array(out->n_tensors + 1, sizeof *out->tensors);
    if (!out->keys || !out->tensors)
        return err_new(ERR_RESOURCE_EXHAUSTED, "%s: out of memory for %zu keys and %zu tensors", reader->path,
                       out->n_keys, out->n_tensors);
    return err_ok();
}

static err_t parse(struct reader *reader, struct gguf *out)
{
    uint32_t alignment = GGUF_ALIGNMENT_DEFAULT;
    TRY(take_head(reader, out));
    TRY(take_keys(reader, out));
    TRY(gguf_opt_u32(out, "general.alignment", 1, GGUF_ALIGNMENT_MAX, &alignment));
    if ((alignment & (alignment - 1)) != 0)
        return err_new(ERR_DATA_LOSS, "%s: \"general.alignment\" is %u, it must be a power of two",
                       reader->path, alignment);
    TRY(gguf_opt_bool(out, GGUF_HEAD_KEY, &out->is_head));
    reader->is_head = out->is_head;
    for (size_t i = 0; i < out->n_tensors; i++)
        TRY(take_tensor(reader, alignment, &out->tensors[i]));
    out->data_offset = align_up(reader->at, alignment);
    if (out->n_tensors > 0 && out->data_offset > reader->size_bytes && !out->is_head)
        return err_new(ERR_DATA_LOSS, "%s: truncated: it ends before its tensors", reader->path);
    return check_places(reader, alignment, out);
}

err_t gguf_parse(const char *path, const uint8_t *data, size_t size_bytes, struct gguf *out)
{
    *out = (struct gguf){.path = mem_strdup(path), .data = data, .size_bytes = size_bytes};
    if (!out->path)
        return err_new(ERR_RESOURCE_EXHAUSTED, "%s: out of memory", path);
    struct reader reader = {.path = path, .data = data, .size_bytes = size_bytes};
    err_t e = parse(&reader, out);
    if (e.code != ERR_OK)
        gguf_close(out);
    return e;
}

err_t gguf_open(const char *path, struct gguf *out)
{
    struct mapped_file map;
    *out = (struct gguf){0};
    TRY(mapped_file_open(path, &map));
    err_t e = gguf_parse(path, map.data, map.size_bytes, out);
    if (e.code == ERR_OK)
        out->map = map;
    else
        mapped_file_close(&map);
    return e;
}

const uint8_t *gguf_tensor_data(const struct gguf *gguf, const struct gguf_tensor *tensor)
{
    bool is_there =
        gguf->data_offset <= gguf->size_bytes && tensor->end <= gguf->size_bytes - gguf->data_offset;
    return is_there ? gguf->data + gguf->data_offset + tensor->begin : NULL;
}

void gguf_close(struct gguf *gguf)
{
    mapped_file_close(&gguf->map);
    mem_free(gguf->path);
    mem_free(gguf->keys);
    mem_free(gguf->tensors);
    *gguf = (struct gguf){0};
}
