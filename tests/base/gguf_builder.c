#include "tests/base/gguf_builder.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "base/assert.h"

enum { FILE_BYTES_MAX = 64 << 20 };

static void put(struct buffer *buffer, const void *data, size_t size_bytes)
{
    buffer->limit_bytes = FILE_BYTES_MAX;
    bool ok = size_bytes == 0 || buffer_append(buffer, data, size_bytes);
    ASSERT(ok);
}

static void put_number(struct buffer *buffer, uint64_t value, size_t size_bytes)
{
    uint8_t bytes[8];
    for (size_t i = 0; i < size_bytes; i++)
        bytes[i] = (uint8_t)(value >> (8 * i));
    put(buffer, bytes, size_bytes);
}

static void put_text(struct buffer *buffer, const char *text)
{
    put_number(buffer, strlen(text), 8);
    put(buffer, text, strlen(text));
}

static void put_key(struct gguf_builder *builder, const char *key, enum gguf_type type)
{
    put_text(&builder->keys, key);
    put_number(&builder->keys, type, 4);
    builder->n_keys++;
}

void builder_u32(struct gguf_builder *builder, const char *key, uint32_t value)
{
    put_key(builder, key, GGUF_U32);
    put_number(&builder->keys, value, 4);
}

void builder_f32(struct gguf_builder *builder, const char *key, float value)
{
    put_key(builder, key, GGUF_F32);
    put(&builder->keys, &value, sizeof value);
}

void builder_bool(struct gguf_builder *builder, const char *key, uint8_t value)
{
    put_key(builder, key, GGUF_BOOL);
    put_number(&builder->keys, value, 1);
}

void builder_text(struct gguf_builder *builder, const char *key, const char *value)
{
    put_key(builder, key, GGUF_TEXT);
    put_text(&builder->keys, value);
}

static void put_array_head(struct gguf_builder *builder, const char *key, enum gguf_type item_type, size_t n)
{
    put_key(builder, key, GGUF_ARRAY);
    put_number(&builder->keys, item_type, 4);
    put_number(&builder->keys, n, 8);
}

void builder_texts(struct gguf_builder *builder, const char *key, const char *const *values, size_t n)
{
    put_array_head(builder, key, GGUF_TEXT, n);
    for (size_t i = 0; i < n; i++)
        put_text(&builder->keys, values[i]);
}

void builder_array(struct gguf_builder *builder, const char *key, enum gguf_type item_type, const void *items,
                   size_t item_bytes, size_t n)
{
    put_array_head(builder, key, item_type, n);
    put(&builder->keys, items, item_bytes * n);
}

static uint32_t alignment_of(const struct gguf_builder *builder)
{
    return builder->alignment ? builder->alignment : (uint32_t)GGUF_ALIGNMENT_DEFAULT;
}

static void align(struct buffer *buffer, uint32_t alignment)
{
    while (buffer->size % alignment != 0)
        put(buffer, "", 1);
}

void builder_tensor(struct gguf_builder *builder, const char *name, uint32_t type, const uint64_t *dims,
                    uint32_t n_dims, const void *bytes, size_t size_bytes)
{
    align(&builder->data, alignment_of(builder));
    put_text(&builder->infos, name);
    put_number(&builder->infos, n_dims, 4);
    for (uint32_t d = 0; d < n_dims; d++)
        put_number(&builder->infos, dims[d], 8);
    put_number(&builder->infos, type, 4);
    put_number(&builder->infos, builder->data.size, 8);
    put(&builder->data, bytes, size_bytes);
    builder->n_tensors++;
}

struct buffer builder_finish(struct gguf_builder *builder)
{
    struct buffer file = {0};
    if (builder->alignment)
        builder_u32(builder, "general.alignment", builder->alignment);
    put(&file, "GGUF", 4);
    put_number(&file, builder->version ? builder->version : 3, 4);
    put_number(&file, builder->n_tensors, 8);
    put_number(&file, builder->n_keys, 8);
    put(&file, builder->keys.data, builder->keys.size);
    put(&file, builder->infos.data, builder->infos.size);
    if (builder->n_tensors > 0)
        align(&file, alignment_of(builder));
    put(&file, builder->data.data, builder->data.size);
    buffer_free(&builder->keys);
    buffer_free(&builder->infos);
    buffer_free(&builder->data);
    *builder = (struct gguf_builder){0};
    return file;
}

void builder_write_temporary(struct buffer *file, char path[BUILDER_PATH])
{
    snprintf(path, BUILDER_PATH, "/tmp/bantam-test-gguf-XXXXXX");
    int descriptor = mkstemp(path);
    ASSERT(descriptor >= 0);
    FILE *stream = fdopen(descriptor, "wb");
    ASSERT(stream != NULL);
    size_t written = fwrite(file->data, 1, file->size, stream);
    ASSERT(written == file->size);
    int closed = fclose(stream);
    ASSERT(closed == 0);
    buffer_free(file);
}
