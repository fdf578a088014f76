/* UTF-8 as in RFC 3629: no surrogates, no overlong forms, nothing past U+10FFFF. Pure functions. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { UTF8_MAX_BYTES = 4 };

/* Decodes one code point at text[0..size); returns its length in bytes (1-4), or 0 when the bytes are invalid
 * or cut short (size 0 included). */
size_t utf8_decode(const char *text, size_t size_bytes, uint32_t *code_point);
/* Writes 1-4 bytes; code_point must be a scalar value. */
size_t utf8_encode(uint32_t code_point, char out[UTF8_MAX_BYTES]);
bool utf8_valid(const char *text, size_t size_bytes);
/* Length of the longest prefix that does not end inside a character that more bytes could complete. Invalid
 * bytes count as whole. At most 3 bytes are held back. */
size_t utf8_complete_prefix(const char *text, size_t size_bytes);
