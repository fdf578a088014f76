/* A growing byte buffer with a hard limit. Kept NUL-terminated past size. Zero-initialise with a limit:
 * struct buffer b = {.limit_bytes = 1 << 20}. One thread at a time. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct buffer {
    char *data; /* owned; size bytes and a NUL; NULL while nothing was appended */
    size_t size;
    size_t capacity;
    size_t limit_bytes; /* the largest size ever allowed */
};

/* Each returns false, and appends nothing, when the limit or memory is reached. */
bool buffer_append(struct buffer *buffer, const void *data, size_t size_bytes);
bool buffer_append_text(struct buffer *buffer, const char *text);
bool buffer_append_format(struct buffer *buffer, const char *format, ...)
    __attribute__((format(printf, 2, 3)));
bool buffer_append_integer(struct buffer *buffer, int64_t number); /* in decimal digits */
/* text as a JSON string with quotes; invalid UTF-8 becomes U+FFFD. */
bool buffer_append_json_string(struct buffer *buffer, const char *text, size_t size_bytes);
void buffer_clear(struct buffer *buffer); /* size = 0, memory kept */
void buffer_free(struct buffer *buffer);
