/* Heads of GGUF files: keys and directory, without the data. */
#include <string.h>
#include "base/gguf.h"

static bool put_number(struct buffer *out, uint64_t value, size_t size_bytes)
{
    uint8_t bytes[8];
    for (size_t i = 0; i < size_bytes; i++)
        bytes[i] = (uint8_t)(value >> (8 * i));
    return buffer_append(out, bytes, size_bytes);
}

static bool put_text(struct buffer *out, const char *data, size_t size_bytes)
{
    return put_number(out, size_bytes, 8) && buffer_append(out, data, size_bytes);
}

static bool put_key(const struct gguf_key *key, struct buffer *out)
{
    const struct gguf_value *value = &key->value;
    bool ok = put_text(out, key->name.data, key->name.size_bytes) && put_number(out, value->type, 4);
    if (value->type == GGUF_ARRAY)
        ok = ok && put_number(out, value->item_type, 4) && put_number(out, value->n_items, 8);
    if (value->type == GGUF_TEXT)
        ok = ok && put_number(out, value->size_bytes, 8);
    return ok && buffer_append(out, value->data, value->size_bytes);
}

static bool put_keys(const struct gguf *gguf, struct buffer *out)
{
    bool has_mark = gguf_find(gguf, GGUF_HEAD_KEY) != NULL, ok = true;
    ok = put_number(out, gguf->n_keys + (has_mark ? 0 : 1), 8);
    for (size_t i = 0; i < gguf->n_keys && ok; i++) {
        if (!gguf_text_is(gguf->keys[i].name, GGUF_HEAD_KEY))
            ok = put_key(&gguf->keys[i], out);
    }
    return ok && put_text(out, GGUF_HEAD_KEY, strlen(GGUF_HEAD_KEY)) && put_number(out, GGUF_BOOL, 4) &&
           put_number(out, 1, 1);
}

/* *at: where the next tensor's data would begin. */
static bool put_tensor(const struct gguf_tensor *tensor, uint64_t alignment, uint64_t *at, struct buffer *out)
{
    bool ok = put_text(out, tensor->name.data, tensor->name.size_bytes) && put_number(out, tensor->n_dims, 4);
    for (uint32_t d = 0; d < tensor->n_dims; d++)
        ok = ok && put_number(out, tensor->dims[d], 8);
    ok = ok && put_number(out, tensor->type, 4) && put_number(out, *at, 8);
    uint64_t end = *at + (tensor->end - tensor->begin);
    *at = (end + alignment - 1) / alignment * alignment;
    return ok;
}

static bool put_head(const struct gguf *gguf, uint64_t alignment, const struct gguf_tensor *kept,
                     struct buffer *out)
{
    enum { VERSION = 3 };
    size_t begin = out->size;
    uint64_t at = 0;
    bool ok = buffer_append(out, GGUF_MAGIC, 4) && put_number(out, VERSION, 4) &&
              put_number(out, gguf->n_tensors, 8) && put_keys(gguf, out);
    if (kept)
        ok = ok && put_tensor(kept, alignment, &at, out);
    for (size_t i = 0; i < gguf->n_tensors; i++) {
        if (&gguf->tensors[i] != kept)
            ok = ok && put_tensor(&gguf->tensors[i], alignment, &at, out);
    }
    while (ok && (out->size - begin) % alignment != 0)
        ok = buffer_append(out, "", 1);
    return ok && (!kept || buffer_append(out, gguf_tensor_data(gguf, kept), kept->end - kept->begin));
}

err_t gguf_head_write(const struct gguf *gguf, const char *kept, struct buffer *out)
{
    uint32_t alignment = GGUF_ALIGNMENT_DEFAULT;
    TRY(gguf_opt_u32(gguf, "general.alignment", 1, GGUF_ALIGNMENT_MAX, &alignment));
    const struct gguf_tensor *tensor = gguf_find_tensor(gguf, kept);
    if (tensor && !gguf_tensor_data(gguf, tensor))
        tensor = NULL;
    return put_head(gguf, alignment, tensor, out)
               ? err_ok()
               : err_new(ERR_RESOURCE_EXHAUSTED, "%s: no memory for its keys, or more than %zu bytes of them",
                         gguf->path, out->limit_bytes);
}
