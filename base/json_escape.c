#include "base/json_escape.h"

#include <stdint.h>
#include <string.h>
#include "base/assert.h"
#include "base/utf8.h"

static size_t escape_ascii(uint32_t c, char out[JSON_ESCAPE_MAX])
{
    static const char special[] = "\"\\\b\f\n\r\t";
    static const char letters[] = "\"\\bfnrt";
    static const char hex[] = "0123456789abcdef";
    const char *found = c != 0 ? strchr(special, (int)c) : NULL;
    if (found != NULL) {
        out[0] = '\\';
        out[1] = letters[found - special];
        return 2;
    }
    if (c >= 0x20 && c != 0x7f) {
        out[0] = (char)c;
        return 1;
    }
    memcpy(out, "\\u00", 4);
    out[4] = hex[c >> 4];
    out[5] = hex[c & 15];
    return 6;
}

size_t json_escape_next(const char *text, size_t size_bytes, size_t *consumed, char out[JSON_ESCAPE_MAX])
{
    ASSERT(size_bytes > 0);
    uint32_t code_point;
    size_t length = utf8_decode(text, size_bytes, &code_point);
    if (length == 0) {
        *consumed = 1;
        return utf8_encode(0xfffd, out);
    }
    *consumed = length;
    if (code_point < 0x80)
        return escape_ascii(code_point, out);
    memcpy(out, text, length);
    return length;
}
