/* JSON string escaping, one character at a time, without memory of its own: shared by buffers and the log. */
#pragma once

#include <stddef.h>

enum { JSON_ESCAPE_MAX = 8 }; /* bytes: the longest escape, \uXXXX, fits */

/* Writes the escaped form of the first character of text[0..size_bytes), size_bytes > 0, to out, not
 * NUL-terminated. Returns its length and sets *consumed to the bytes of text used; an invalid byte becomes
 * U+FFFD. */
size_t json_escape_next(const char *text, size_t size_bytes, size_t *consumed, char out[JSON_ESCAPE_MAX]);
