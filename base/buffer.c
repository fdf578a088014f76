#include "base/buffer.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include "base/alloc.h"
#include "base/checked.h"
#include "base/json_escape.h"

enum { BUFFER_FIRST_BYTES = 64 };

/* Room for extra_bytes more and the final NUL. */
static bool buffer_reserve(struct buffer *buffer, size_t extra_bytes)
{
    size_t size;
    if (!checked_add(buffer->size, extra_bytes, &size) || size > buffer->limit_bytes)
        return false;
    size_t wanted;
    if (!checked_add(size, 1, &wanted))
        return false;
    if (wanted <= buffer->capacity)
        return true;
    size_t capacity = buffer->capacity > 0 ? buffer->capacity : BUFFER_FIRST_BYTES;
    while (capacity < wanted && !__builtin_mul_overflow(capacity, (size_t)2, &capacity)) {
    }
    if (capacity < wanted || capacity - 1 > buffer->limit_bytes)
        capacity = wanted > buffer->limit_bytes ? wanted : buffer->limit_bytes + 1;
    char *data = mem_realloc(buffer->data, capacity);
    if (data == NULL)
        return false;
    data[buffer->size] = '\0';
    buffer->data = data;
    buffer->capacity = capacity;
    return true;
}

bool buffer_append(struct buffer *buffer, const void *data, size_t size_bytes)
{
    if (!buffer_reserve(buffer, size_bytes))
        return false;
    if (size_bytes > 0)
        memcpy(buffer->data + buffer->size, data, size_bytes);
    buffer->size += size_bytes;
    buffer->data[buffer->size] = '\0';
    return true;
}

bool buffer_append_text(struct buffer *buffer, const char *text)
{
    return buffer_append(buffer, text, strlen(text));
}

bool buffer_append_format(struct buffer *buffer, const char *format, ...)
{
    va_list arguments;
    size_t room = buffer->capacity - buffer->size;
    va_start(arguments, format);
    int length = vsnprintf(room > 0 ? buffer->data + buffer->size : NULL, room, format, arguments);
    va_end(arguments);
    bool fits = length >= 0 && (size_t)length < room && buffer->size + (size_t)length <= buffer->limit_bytes;
    if (!fits && room > 0)
        buffer->data[buffer->size] = '\0';
    if (length < 0 || (!fits && !buffer_reserve(buffer, (size_t)length)))
        return false;
    if (!fits) {
        va_start(arguments, format);
        vsnprintf(buffer->data + buffer->size, (size_t)length + 1, format, arguments);
        va_end(arguments);
    }
    buffer->size += (size_t)length;
    return true;
}

bool buffer_append_integer(struct buffer *buffer, int64_t number)
{
    char digits[20], *at = digits + sizeof digits;
    uint64_t left = number < 0 ? 0 - (uint64_t)number : (uint64_t)number;
    do {
        *--at = (char)('0' + left % 10);
        left /= 10;
    } while (left > 0);
    if (number < 0)
        *--at = '-';
    return buffer_append(buffer, at, (size_t)(digits + sizeof digits - at));
}

/* How many bytes from the start on stand for themselves. */
static size_t plain_bytes(const char *text, size_t size_bytes)
{
    size_t n = 0;
    while (n < size_bytes && text[n] >= 0x20 && text[n] < 0x7f && text[n] != '"' && text[n] != '\\')
        n++;
    return n;
}

static bool append_json_body(struct buffer *buffer, const char *text, size_t size_bytes)
{
    while (size_bytes > 0) {
        size_t plain = plain_bytes(text, size_bytes);
        if (!buffer_append(buffer, text, plain))
            return false;
        text += plain;
        size_bytes -= plain;
        if (size_bytes == 0)
            break;
        char escaped[JSON_ESCAPE_MAX];
        size_t consumed;
        size_t length = json_escape_next(text, size_bytes, &consumed, escaped);
        if (!buffer_append(buffer, escaped, length))
            return false;
        text += consumed;
        size_bytes -= consumed;
    }
    return true;
}

bool buffer_append_json_string(struct buffer *buffer, const char *text, size_t size_bytes)
{
    size_t size_before = buffer->size;
    if (buffer_append(buffer, "\"", 1) && append_json_body(buffer, text, size_bytes) &&
        buffer_append(buffer, "\"", 1))
        return true;
    buffer->size = size_before;
    if (buffer->data != NULL)
        buffer->data[size_before] = '\0';
    return false;
}

void buffer_clear(struct buffer *buffer)
{
    buffer->size = 0;
    if (buffer->data != NULL)
        buffer->data[0] = '\0';
}

void buffer_free(struct buffer *buffer)
{
    mem_free(buffer->data);
    buffer->data = NULL;
    buffer->size = 0;
    buffer->capacity = 0;
}
