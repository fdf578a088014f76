#include "router/providers/json_text.h"

enum { DECIMAL_DIGITS = 15 }; /* a double keeps any so many (DBL_DIG) */

static int append(const char *bytes, size_t size, void *buffer)
{
    return buffer_append(buffer, bytes, size) ? 0 : -1;
}

static err_t append_with(struct buffer *text, const json_t *value, size_t flags)
{
    if (json_dump_callback(value, append, text, JSON_COMPACT | JSON_ENCODE_ANY | flags) == 0)
        return err_ok();
    return err_new(ERR_RESOURCE_EXHAUSTED, "JSON text of more than %zu bytes, or no memory for it",
                   text->limit_bytes);
}

err_t json_text_append(struct buffer *text, const json_t *value)
{
    return append_with(text, value, 0);
}

err_t json_text_append_decimal(struct buffer *text, const json_t *value)
{
    return append_with(text, value, JSON_REAL_PRECISION(DECIMAL_DIGITS));
}

err_t json_text_append_sorted(struct buffer *text, const json_t *value)
{
    return append_with(text, value, JSON_SORT_KEYS);
}
