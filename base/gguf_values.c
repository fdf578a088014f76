/* Typed access to what base/gguf.c has found. */
#include <string.h>
#include "base/assert.h"
#include "base/float16.h"
#include "base/gguf.h"

bool gguf_text_is(struct gguf_text text, const char *other)
{
    return text.data && text.size_bytes == strlen(other) && memcmp(text.data, other, text.size_bytes) == 0;
}

const struct gguf_value *gguf_find(const struct gguf *gguf, const char *key)
{
    size_t low = 0, high = gguf->n_keys, size = strlen(key);
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        struct gguf_text name = gguf->keys[middle].name;
        int order = memcmp(name.data, key, name.size_bytes < size ? name.size_bytes : size);
        if (order == 0 && name.size_bytes == size)
            return &gguf->keys[middle].value;
        if (order < 0 || (order == 0 && name.size_bytes < size))
            low = middle + 1;
        else
            high = middle;
    }
    return NULL;
}

const struct gguf_tensor *gguf_find_tensor(const struct gguf *gguf, const char *name)
{
    for (size_t i = 0; i < gguf->n_tensors; i++) {
        if (gguf_text_is(gguf->tensors[i].name, name))
            return &gguf->tensors[i];
    }
    return NULL;
}

static const char *type_name(enum gguf_type type)
{
    static const char *const names[GGUF_TYPES] = {
        [GGUF_U8] = "an integer",  [GGUF_I8] = "an integer",  [GGUF_U16] = "an integer",
        [GGUF_I16] = "an integer", [GGUF_U32] = "an integer", [GGUF_I32] = "an integer",
        [GGUF_F32] = "a number",   [GGUF_BOOL] = "a boolean", [GGUF_TEXT] = "a string",
        [GGUF_ARRAY] = "an array", [GGUF_U64] = "an integer", [GGUF_I64] = "an integer",
        [GGUF_F64] = "a number",
    };
    return names[type];
}

static err_t wrong_type(const struct gguf *gguf, const char *key, const char *expected, enum gguf_type type)
{
    return err_new(ERR_INVALID_ARGUMENT, "%s: \"%s\" must be %s, it is %s", gguf->path, key, expected,
                   type_name(type));
}

static err_t absent(const struct gguf *gguf, const char *key)
{
    return err_new(ERR_INVALID_ARGUMENT, "%s: \"%s\" is missing", gguf->path, key);
}

/* The value of an integer; false for another type. Past the signed range it saturates. */
static bool integer_of(const struct gguf_value *value, int64_t *out)
{
    uint64_t bits = value->type == GGUF_TEXT || value->type == GGUF_ARRAY
                        ? 0
                        : gguf_load_le(value->data, value->size_bytes);
    switch (value->type) {
    case GGUF_U8:
    case GGUF_U16:
    case GGUF_U32:
        *out = (int64_t)bits;
        return true;
    case GGUF_U64:
        *out = bits > INT64_MAX ? INT64_MAX : (int64_t)bits;
        return true;
    case GGUF_I8:
        *out = (int8_t)bits;
        return true;
    case GGUF_I16:
        *out = (int16_t)bits;
        return true;
    case GGUF_I32:
        *out = (int32_t)bits;
        return true;
    case GGUF_I64:
        *out = (int64_t)bits;
        return true;
    case GGUF_F32:
    case GGUF_F64:
    case GGUF_BOOL:
    case GGUF_TEXT:
    case GGUF_ARRAY:
    case GGUF_TYPES:
        break;
    }
    return false;
}

err_t gguf_opt_u32(const struct gguf *gguf, const char *key, uint32_t min, uint32_t max, uint32_t *out)
{
    const struct gguf_value *value = gguf_find(gguf, key);
    int64_t n;
    if (!value)
        return err_ok();
    if (!integer_of(value, &n))
        return wrong_type(gguf, key, "an integer", value->type);
    if (n < (int64_t)min || n > (int64_t)max)
        return err_new(ERR_INVALID_ARGUMENT, "%s: \"%s\" is %lld, it must be from %u to %u", gguf->path, key,
                       (long long)n, min, max);
    *out = (uint32_t)n;
    return err_ok();
}

err_t gguf_get_u32(const struct gguf *gguf, const char *key, uint32_t min, uint32_t max, uint32_t *out)
{
    return gguf_find(gguf, key) ? gguf_opt_u32(gguf, key, min, max, out) : absent(gguf, key);
}

err_t gguf_opt_number(const struct gguf *gguf, const char *key, double min, double max, double *out)
{
    const struct gguf_value *value = gguf_find(gguf, key);
    int64_t integer;
    double number;
    if (!value)
        return err_ok();
    if (integer_of(value, &integer)) {
        number = (double)integer;
    } else if (value->type == GGUF_F32) {
        number = (double)f32_from_bits((uint32_t)gguf_load_le(value->data, 4));
    } else if (value->type == GGUF_F64) {
        uint64_t bits = gguf_load_le(value->data, 8);
        memcpy(&number, &bits, sizeof number);
    } else {
        return wrong_type(gguf, key, "a number", value->type);
    }
    if (!(number >= min && number <= max)) /* NaN fails too */
        return err_new(ERR_INVALID_ARGUMENT, "%s: \"%s\" is %g, it must be from %g to %g", gguf->path, key,
                       number, min, max);
    *out = number;
    return err_ok();
}

err_t gguf_get_number(const struct gguf *gguf, const char *key, double min, double max, double *out)
{
    return gguf_find(gguf, key) ? gguf_opt_number(gguf, key, min, max, out) : absent(gguf, key);
}

err_t gguf_opt_bool(const struct gguf *gguf, const char *key, bool *out)
{
    const struct gguf_value *value = gguf_find(gguf, key);
    if (!value)
        return err_ok();
    if (value->type != GGUF_BOOL || value->data[0] > 1)
        return wrong_type(gguf, key, "a boolean of 0 or 1", value->type);
    *out = value->data[0] == 1;
    return err_ok();
}

err_t gguf_opt_text(const struct gguf *gguf, const char *key, struct gguf_text *out)
{
    const struct gguf_value *value = gguf_find(gguf, key);
    if (!value)
        return err_ok();
    if (value->type != GGUF_TEXT)
        return wrong_type(gguf, key, "a string", value->type);
    *out = (struct gguf_text){(const char *)value->data, value->size_bytes};
    return err_ok();
}

err_t gguf_get_text(const struct gguf *gguf, const char *key, struct gguf_text *out)
{
    return gguf_find(gguf, key) ? gguf_opt_text(gguf, key, out) : absent(gguf, key);
}

err_t gguf_opt_array(const struct gguf *gguf, const char *key, enum gguf_type item_type, uint64_t max_items,
                     const struct gguf_value **out)
{
    const struct gguf_value *value = gguf_find(gguf, key);
    *out = NULL;
    if (!value)
        return err_ok();
    if (value->type != GGUF_ARRAY)
        return wrong_type(gguf, key, "an array", value->type);
    if (value->item_type != item_type)
        return err_new(ERR_INVALID_ARGUMENT, "%s: \"%s\" has items of type %d, expected %d", gguf->path, key,
                       (int)value->item_type, (int)item_type);
    if (value->n_items > max_items)
        return err_new(ERR_INVALID_ARGUMENT, "%s: \"%s\" has %llu items, at most %llu are allowed",
                       gguf->path, key, (unsigned long long)value->n_items, (unsigned long long)max_items);
    *out = value;
    return err_ok();
}

err_t gguf_get_array(const struct gguf *gguf, const char *key, enum gguf_type item_type, uint64_t max_items,
                     const struct gguf_value **out)
{
    TRY(gguf_opt_array(gguf, key, item_type, max_items, out));
    return *out ? err_ok() : absent(gguf, key);
}

struct gguf_text gguf_next_text(const struct gguf_value *array, size_t *at)
{
    ASSERT(array->item_type == GGUF_TEXT && *at + 8 <= array->size_bytes);
    struct gguf_text text = {(const char *)array->data + *at + 8, (size_t)gguf_load_le(array->data + *at, 8)};
    *at += 8 + text.size_bytes;
    ASSERT(*at <= array->size_bytes);
    return text;
}

float gguf_f32_at(const struct gguf_value *array, uint64_t index)
{
    ASSERT(array->item_type == GGUF_F32 && index < array->n_items);
    return f32_from_bits((uint32_t)gguf_load_le(array->data + 4 * index, 4));
}

int32_t gguf_i32_at(const struct gguf_value *array, uint64_t index)
{
    ASSERT(array->item_type == GGUF_I32 && index < array->n_items);
    return (int32_t)gguf_load_le(array->data + 4 * index, 4);
}
