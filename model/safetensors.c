#include "model/safetensors.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "base/alloc.h"
#include "base/assert.h"
#include "base/gguf.h"
#include "model/json_fields.h"

static const struct {
    const char *name;
    size_t bytes;
} dtypes[] = {
    [TENSOR_F64] = {"F64", 8},   [TENSOR_F32] = {"F32", 4},         [TENSOR_F16] = {"F16", 2},
    [TENSOR_BF16] = {"BF16", 2}, [TENSOR_F8_E4M3] = {"F8_E4M3", 1}, [TENSOR_F8_E5M2] = {"F8_E5M2", 1},
    [TENSOR_I64] = {"I64", 8},   [TENSOR_I32] = {"I32", 4},         [TENSOR_I16] = {"I16", 2},
    [TENSOR_I8] = {"I8", 1},     [TENSOR_U64] = {"U64", 8},         [TENSOR_U32] = {"U32", 4},
    [TENSOR_U16] = {"U16", 2},   [TENSOR_U8] = {"U8", 1},           [TENSOR_BOOL] = {"BOOL", 1},
};
enum { N_DTYPES = sizeof dtypes / sizeof dtypes[0] };

const char *tensor_dtype_name(enum tensor_dtype dtype)
{
    if (dtype >= TENSOR_GGUF)
        return gguf_tensor_format((uint32_t)(dtype - TENSOR_GGUF))->name;
    ASSERT((size_t)dtype < N_DTYPES);
    return dtypes[dtype].name;
}

size_t tensor_dtype_bytes(enum tensor_dtype dtype)
{
    ASSERT((size_t)dtype < N_DTYPES);
    return dtypes[dtype].bytes;
}

const char *tensor_shape_text(const uint64_t *shape, uint32_t n_dims, char *text, size_t text_bytes)
{
    ASSERT(text_bytes >= 3);
    size_t used = 0;
    for (uint32_t i = 0; i < n_dims && used < text_bytes; i++) {
        int n =
            snprintf(text + used, text_bytes - used, "%s%llu", i ? ", " : "[", (unsigned long long)shape[i]);
        used += n > 0 ? (size_t)n : 0;
    }
    if (used < text_bytes)
        snprintf(text + used, text_bytes - used, "%s", n_dims ? "]" : "[]");
    return text;
}

err_t safetensors_header_bytes(const char *file, const uint8_t prefix[8], uint64_t file_bytes, uint64_t *out)
{
    uint64_t n = 0;
    for (int i = 7; i >= 0; i--)
        n = n << 8 | prefix[i];
    if (n > SAFETENSORS_HEADER_MAX_BYTES)
        return err_new(ERR_DATA_LOSS, "%s: the header claims %llu bytes, the format allows %d", file,
                       (unsigned long long)n, SAFETENSORS_HEADER_MAX_BYTES);
    if (file_bytes < 8 || n > file_bytes - 8)
        return err_new(ERR_DATA_LOSS, "%s: truncated: the header claims %llu bytes, the file has %llu in all",
                       file, (unsigned long long)n, (unsigned long long)file_bytes);
    *out = n;
    return err_ok();
}

static err_t parse_dtype(const char *file, const struct json_fields *fields, struct tensor_info *out)
{
    const char *name;
    TRY(json_get_text(fields, "dtype", &name));
    for (size_t i = 0; i < N_DTYPES; i++) {
        if (strcmp(dtypes[i].name, name) == 0) {
            out->dtype = (enum tensor_dtype)i;
            return err_ok();
        }
    }
    return err_new(ERR_DATA_LOSS, "%s: unknown dtype \"%.40s\"", file, name);
}

/* A non-negative integer of an array. */
static bool array_u64(const json_t *array, size_t index, uint64_t *out)
{
    const json_t *item = json_array_get(array, index);
    if (!json_is_integer(item) || json_integer_value(item) < 0)
        return false;
    *out = (uint64_t)json_integer_value(item);
    return true;
}

/* Bytes of the shape; false on overflow. */
static bool shape_bytes(const struct tensor_info *tensor, uint64_t *out)
{
    uint64_t bytes = tensor_dtype_bytes(tensor->dtype);
    /* A dimension of 0 makes the product 0, but the others must still not overflow before it. */
    for (uint32_t i = 0; i < tensor->n_dims; i++) {
        if (__builtin_mul_overflow(bytes, tensor->shape[i], &bytes))
            return false;
    }
    *out = bytes;
    return true;
}

static err_t parse_shape(const char *file, const struct json_fields *fields, struct tensor_info *out)
{
    const json_t *shape;
    TRY(json_opt_array(fields, "shape", SAFETENSORS_DIMS_MAX, &shape));
    if (!shape)
        return err_new(ERR_DATA_LOSS, "%s: \"shape\" is missing", file);
    out->n_dims = (uint32_t)json_array_size(shape);
    for (uint32_t i = 0; i < out->n_dims; i++) {
        if (!array_u64(shape, i, &out->shape[i]))
            return err_new(ERR_DATA_LOSS, "%s: \"shape\" must hold non-negative integers", file);
    }
    return err_ok();
}

static err_t parse_tensor(const char *where, const json_t *value, uint64_t data_bytes,
                          struct tensor_info *out)
{
    if (!json_is_object(value))
        return err_new(ERR_DATA_LOSS, "%s: must be an object with dtype, shape and data_offsets", where);
    struct json_fields fields = {.file = where, .prefix = "", .object = value};
    TRY(parse_dtype(where, &fields, out));
    TRY(parse_shape(where, &fields, out));
    const json_t *offsets;
    TRY(json_opt_array(&fields, "data_offsets", 2, &offsets));
    if (!offsets || json_array_size(offsets) != 2 || !array_u64(offsets, 0, &out->begin) ||
        !array_u64(offsets, 1, &out->end))
        return err_new(ERR_DATA_LOSS, "%s: \"data_offsets\" must be two non-negative integers", where);
    if (out->begin > out->end)
        return err_new(ERR_DATA_LOSS, "%s: data_offsets begin %llu is after end %llu", where,
                       (unsigned long long)out->begin, (unsigned long long)out->end);
    if (out->end > data_bytes)
        return err_new(ERR_DATA_LOSS,
                       "%s: truncated: data_offsets end at %llu, the file holds %llu bytes of data", where,
                       (unsigned long long)out->end, (unsigned long long)data_bytes);
    uint64_t bytes;
    char shape[128];
    if (!shape_bytes(out, &bytes))
        return err_new(ERR_DATA_LOSS, "%s: the size of shape %s overflows", where,
                       tensor_shape_text(out->shape, out->n_dims, shape, sizeof shape));
    if (bytes != out->end - out->begin)
        return err_new(ERR_DATA_LOSS, "%s: shape %s of %s takes %llu bytes, data_offsets give %llu", where,
                       tensor_shape_text(out->shape, out->n_dims, shape, sizeof shape),
                       tensor_dtype_name(out->dtype), (unsigned long long)bytes,
                       (unsigned long long)(out->end - out->begin));
    return err_ok();
}

static int compare_begin(const void *a, const void *b)
{
    const struct tensor_info *x = a, *y = b;
    if (x->begin != y->begin)
        return x->begin < y->begin ? -1 : 1;
    /* An empty tensor may share its offset with the one after it. */
    if (x->end != y->end)
        return x->end < y->end ? -1 : 1;
    return strcmp(x->name, y->name);
}

/* The data section must be covered without holes and overlaps. */
static err_t check_layout(const char *file, struct safetensors *out, uint64_t data_bytes)
{
    if (out->n_tensors > 0)
        qsort(out->tensors, out->n_tensors, sizeof *out->tensors, compare_begin);
    uint64_t expected = 0;
    for (size_t i = 0; i < out->n_tensors; i++) {
        const struct tensor_info *tensor = &out->tensors[i];
        if (tensor->begin < expected)
            return err_new(ERR_DATA_LOSS, "%s: tensor \"%s\" overlaps tensor \"%s\"", file, tensor->name,
                           out->tensors[i - 1].name);
        if (tensor->begin > expected)
            return err_new(ERR_DATA_LOSS, "%s: a hole of %llu bytes before tensor \"%s\"", file,
                           (unsigned long long)(tensor->begin - expected), tensor->name);
        expected = tensor->end;
    }
    if (expected != data_bytes)
        return err_new(ERR_DATA_LOSS, "%s: %llu bytes after the last tensor belong to none", file,
                       (unsigned long long)(data_bytes - expected));
    return err_ok();
}

static err_t parse_tensors(const char *file, const json_t *root, uint64_t data_bytes, struct safetensors *out)
{
    size_t n_keys = json_object_size(root);
    if (n_keys > SAFETENSORS_TENSORS_MAX)
        return err_new(ERR_RESOURCE_EXHAUSTED, "%s: %zu tensors, at most %d are allowed", file, n_keys,
                       SAFETENSORS_TENSORS_MAX);
    out->tensors = mem_alloc_array(n_keys ? n_keys : 1, sizeof *out->tensors);
    if (!out->tensors)
        return err_new(ERR_RESOURCE_EXHAUSTED, "%s: out of memory for %zu tensors", file, n_keys);
    const char *name;
    const json_t *value;
    json_object_foreach((json_t *)root, name, value)
    {
        if (strcmp(name, "__metadata__") == 0)
            continue;
        size_t name_bytes = strlen(name);
        if (name_bytes == 0 || name_bytes > SAFETENSORS_NAME_MAX)
            return err_new(ERR_DATA_LOSS, "%s: a tensor's name has %zu bytes, it must have 1 to %d", file,
                           name_bytes, SAFETENSORS_NAME_MAX);
        struct tensor_info *tensor = &out->tensors[out->n_tensors];
        char where[ERR_MESSAGE_MAX];
        snprintf(where, sizeof where, "%.250s: tensor \"%.120s\"", file, name);
        TRY(parse_tensor(where, value, data_bytes, tensor));
        tensor->name = mem_strdup(name);
        if (!tensor->name)
            return err_new(ERR_RESOURCE_EXHAUSTED, "%s: out of memory", file);
        out->n_tensors++;
    }
    return check_layout(file, out, data_bytes);
}

err_t safetensors_parse(const char *file, const char *header, size_t header_bytes, uint64_t file_bytes,
                        struct safetensors *out)
{
    *out = (struct safetensors){0};
    ASSERT(header_bytes <= SAFETENSORS_HEADER_MAX_BYTES && file_bytes >= 8 + (uint64_t)header_bytes);
    if (header_bytes == 0 || header[0] != '{')
        return err_new(ERR_DATA_LOSS, "%s: the header must begin with '{': not a safetensors file", file);
    json_t *root;
    err_t e = json_object_parse(file, header, header_bytes, &root);
    if (e.code != ERR_OK)
        return e;
    out->data_offset = 8 + (uint64_t)header_bytes;
    e = parse_tensors(file, root, file_bytes - out->data_offset, out);
    json_decref(root);
    if (e.code == ERR_OK)
        return e;
    safetensors_free(out);
    /* A field of the wrong kind is a bad file here, not a bad argument. */
    if (e.code == ERR_INVALID_ARGUMENT)
        e.code = ERR_DATA_LOSS;
    return e;
}

void safetensors_free(struct safetensors *file)
{
    for (size_t i = 0; i < file->n_tensors; i++)
        mem_free(file->tensors[i].name);
    mem_free(file->tensors);
    *file = (struct safetensors){0};
}
