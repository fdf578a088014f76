#include "proto/json_read.h"

#include <errno.h>
#include <math.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include "base/assert.h"
#include "base/buffer.h"
#include "base/utf8.h"

enum {
    PLAIN_DEPTH_MAX = 64,
    NUMBER_BYTES_MAX = 63, /* of one that is no integer */
    INTEGER_DIGITS = 18,   /* any so many fit */
};

/* Each function leaves the place behind what it has read, or gives false or NULL: jansson shall read it. */
struct reader {
    const char *at, *end;
    size_t flags;
    int depth;
    struct buffer text; /* of a string with escapes, and of a key */
};

static json_t *read_value(struct reader *reader);

static void skip_blanks(struct reader *reader)
{
    while (reader->at < reader->end &&
           (*reader->at == ' ' || *reader->at == '\n' || *reader->at == '\r' || *reader->at == '\t'))
        reader->at++;
}

/* The next byte that is no blank, which stays; '\0' = none. */
static char peek(struct reader *reader)
{
    skip_blanks(reader);
    return reader->at < reader->end ? *reader->at : '\0';
}

static bool take(struct reader *reader, char wanted)
{
    if (peek(reader) != wanted)
        return false;
    reader->at++;
    return true;
}

/* --- strings */

/* A byte of eight that is a quote, a backslash, a control character or not ASCII. */
static bool has_special(const char *at)
{
    const uint64_t ones = UINT64_C(0x0101010101010101), tops = UINT64_C(0x8080808080808080);
    uint64_t word;
    memcpy(&word, at, sizeof word);
    uint64_t quote = word ^ (ones * '"'), backslash = word ^ (ones * '\\');
    uint64_t found =
        ((quote - ones) & ~quote) | ((backslash - ones) & ~backslash) | (word - ones * 0x20) | word;
    return (found & tops) != 0;
}

/* Up to the next quote, backslash or control character. *is_ascii is cleared where it is not. */
static const char *skip_plain(const char *at, const char *end, bool *is_ascii)
{
    for (;;) {
        while (end - at >= 8 && !has_special(at))
            at += 8;
        if (at == end || *at == '"' || *at == '\\' || (unsigned char)*at < 0x20)
            return at;
        *is_ascii = *is_ascii && (unsigned char)*at < 0x80;
        at++;
    }
}

static int hex_digit(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    if (c >= 'a' && c <= 'f')
        return c - 'a' + 10;
    return c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

static bool read_hex(struct reader *reader, uint32_t *out)
{
    *out = 0;
    if (reader->end - reader->at < 4)
        return false;
    for (int i = 0; i < 4; i++) {
        int digit = hex_digit(*reader->at++);
        if (digit < 0)
            return false;
        *out = *out << 4 | (uint32_t)digit;
    }
    return true;
}

/* Behind \u. A NUL and half a pair are jansson's. */
static bool read_code_point(struct reader *reader)
{
    uint32_t high, low;
    char bytes[4];
    if (!read_hex(reader, &high) || high == 0 || (high >= 0xdc00 && high <= 0xdfff))
        return false;
    if (high >= 0xd800 && high <= 0xdbff) {
        if (reader->end - reader->at < 2 || reader->at[0] != '\\' || reader->at[1] != 'u')
            return false;
        reader->at += 2;
        if (!read_hex(reader, &low) || low < 0xdc00 || low > 0xdfff)
            return false;
        high = 0x10000 + ((high - 0xd800) << 10) + (low - 0xdc00);
    }
    return buffer_append(&reader->text, bytes, utf8_encode(high, bytes));
}

static bool read_escape(struct reader *reader)
{
    static const char letters[] = "\"\\/bfnrt", meant[] = "\"\\/\b\f\n\r\t";
    if (reader->at == reader->end)
        return false;
    char letter = *reader->at++;
    if (letter == 'u')
        return read_code_point(reader);
    const char *found = letter != '\0' ? strchr(letters, letter) : NULL;
    return found && buffer_append(&reader->text, &meant[found - letters], 1);
}

/* Behind the opening quote. *text: in the document, or in the reader's buffer until the next string. */
static bool read_text(struct reader *reader, const char **text, size_t *text_bytes)
{
    bool is_ascii = true, has_escapes = false;
    const char *start = reader->at;
    buffer_clear(&reader->text);
    for (;;) {
        const char *from = reader->at;
        reader->at = skip_plain(from, reader->end, &is_ascii);
        if (reader->at == reader->end || (*reader->at != '"' && *reader->at != '\\'))
            return false;
        bool is_over = *reader->at == '"';
        has_escapes = has_escapes || !is_over;
        if (has_escapes && !buffer_append(&reader->text, from, (size_t)(reader->at - from)))
            return false;
        reader->at++;
        if (is_over)
            break;
        if (!read_escape(reader))
            return false;
    }
    *text = has_escapes ? reader->text.data : start;
    *text_bytes = has_escapes ? reader->text.size : (size_t)(reader->at - 1 - start);
    return is_ascii || utf8_valid(*text, *text_bytes);
}

static json_t *read_string(struct reader *reader)
{
    const char *text;
    size_t text_bytes;
    reader->at++;
    return read_text(reader, &text, &text_bytes) ? json_stringn_nocheck(text, text_bytes) : NULL;
}

/* --- numbers and words */

static const char *skip_digits(const char *at, const char *end)
{
    while (at < end && *at >= '0' && *at <= '9')
        at++;
    return at;
}

/* Its end, where it is written as JSON writes them; else NULL. */
static const char *end_of_real(const char *at, const char *end)
{
    if (at < end && *at == '.') {
        const char *digits = at + 1;
        at = skip_digits(digits, end);
        if (at == digits)
            return NULL;
    }
    if (at < end && (*at == 'e' || *at == 'E')) {
        at++;
        if (at < end && (*at == '+' || *at == '-'))
            at++;
        const char *digits = at;
        at = skip_digits(digits, end);
        if (at == digits)
            return NULL;
    }
    return at;
}

static json_t *read_real(struct reader *reader, const char *start, const char *digits_end)
{
    char text[NUMBER_BYTES_MAX + 1], *text_end;
    const char *end = end_of_real(digits_end, reader->end);
    if (end == NULL || end - start > NUMBER_BYTES_MAX)
        return NULL;
    size_t text_bytes = (size_t)(end - start);
    memcpy(text, start, text_bytes);
    text[text_bytes] = '\0';
    errno = 0;
    double value = strtod(text, &text_end);
    if (text_end != text + text_bytes || errno != 0 || !isfinite(value))
        return NULL;
    reader->at = end;
    return json_real(value);
}

static json_t *read_number(struct reader *reader)
{
    const char *start = reader->at, *digits = start + (*start == '-'),
               *end = skip_digits(digits, reader->end);
    json_int_t value = 0;
    if (end == digits || (*digits == '0' && end - digits > 1))
        return NULL;
    if (end < reader->end && (*end == '.' || *end == 'e' || *end == 'E'))
        return read_real(reader, start, end);
    if (end - digits > INTEGER_DIGITS)
        return NULL;
    for (const char *digit = digits; digit < end; digit++)
        value = value * 10 + (*digit - '0');
    reader->at = end;
    return json_integer(*start == '-' ? -value : value);
}

static json_t *read_word(struct reader *reader, const char *word, json_t *meant)
{
    size_t bytes = strlen(word);
    if ((size_t)(reader->end - reader->at) < bytes || memcmp(reader->at, word, bytes) != 0)
        return NULL;
    reader->at += bytes;
    return meant;
}

/* --- lists and objects */

/* The key's value; a name that comes twice is jansson's. */
static bool read_member(struct reader *reader, json_t *object)
{
    const char *name;
    size_t name_bytes, n_before = json_object_size(object);
    char few[64], *key = few;
    if (!take(reader, '"') || !read_text(reader, &name, &name_bytes) || name_bytes >= sizeof few)
        return false;
    memcpy(key, name, name_bytes); /* the value may take the buffer */
    key[name_bytes] = '\0';
    json_t *value = take(reader, ':') ? read_value(reader) : NULL;
    return value && json_object_set_new_nocheck(object, key, value) == 0 &&
           (json_object_size(object) > n_before || !(reader->flags & JSON_REJECT_DUPLICATES));
}

static bool read_members(struct reader *reader, json_t *object)
{
    if (take(reader, '}'))
        return true;
    do {
        if (!read_member(reader, object))
            return false;
    } while (take(reader, ','));
    return take(reader, '}');
}

static bool read_elements(struct reader *reader, json_t *array)
{
    if (take(reader, ']'))
        return true;
    do {
        json_t *value = read_value(reader);
        if (value == NULL || json_array_append_new(array, value) != 0)
            return false;
    } while (take(reader, ','));
    return take(reader, ']');
}

static json_t *read_container(struct reader *reader, bool is_object)
{
    json_t *container = is_object ? json_object() : json_array();
    reader->at++;
    bool is_good = container && ++reader->depth <= PLAIN_DEPTH_MAX &&
                   (is_object ? read_members(reader, container) : read_elements(reader, container));
    reader->depth--;
    if (is_good)
        return container;
    json_decref(container);
    return NULL;
}

static json_t *read_value(struct reader *reader)
{
    char first = peek(reader);
    switch (first) {
    case '{':
    case '[':
        return read_container(reader, first == '{');
    case '"':
        return read_string(reader);
    case 't':
        return read_word(reader, "true", json_true());
    case 'f':
        return read_word(reader, "false", json_false());
    case 'n':
        return read_word(reader, "null", json_null());
    default:
        return first == '-' || (first >= '0' && first <= '9') ? read_number(reader) : NULL;
    }
}

json_t *json_read_plain(const char *text, size_t text_bytes, size_t flags)
{
    struct reader reader = {
        .at = text, .end = text + text_bytes, .flags = flags, .text.limit_bytes = text_bytes};
    ASSERT((flags & ~(size_t)(JSON_REJECT_DUPLICATES | JSON_ALLOW_NUL)) == 0);
    char first = peek(&reader);
    json_t *value = first == '{' || first == '[' ? read_container(&reader, first == '{') : NULL;
    skip_blanks(&reader);
    if (value && reader.at < reader.end) {
        json_decref(value);
        value = NULL;
    }
    buffer_free(&reader.text);
    return value;
}

json_t *json_read(const char *text, size_t text_bytes, size_t flags, json_error_t *error)
{
    json_t *value = json_read_plain(text, text_bytes, flags);
    return value ? value : json_loadb(text, text_bytes, flags, error);
}
