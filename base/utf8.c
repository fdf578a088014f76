#include "base/utf8.h"

#include "base/assert.h"

/* What a lead byte promises: the length of its character and the range of its second byte, which rules out
 * overlong forms, surrogates and values past U+10FFFF. length 0: no lead byte. */
struct lead {
    uint8_t length, second_min, second_max;
};

static struct lead lead_of(uint8_t byte)
{
    if (byte < 0x80)
        return (struct lead){1, 0, 0};
    if (byte < 0xc2 || byte > 0xf4)
        return (struct lead){0, 0, 0};
    if (byte < 0xe0)
        return (struct lead){2, 0x80, 0xbf};
    if (byte < 0xf0)
        return (struct lead){3, byte == 0xe0 ? 0xa0 : 0x80, byte == 0xed ? 0x9f : 0xbf};
    return (struct lead){4, byte == 0xf0 ? 0x90 : 0x80, byte == 0xf4 ? 0x8f : 0xbf};
}

size_t utf8_decode(const char *text, size_t size_bytes, uint32_t *code_point)
{
    if (size_bytes == 0)
        return 0;
    const uint8_t *bytes = (const uint8_t *)text;
    struct lead lead = lead_of(bytes[0]);
    if (lead.length == 1) {
        *code_point = bytes[0];
        return 1;
    }
    if (lead.length == 0 || lead.length > size_bytes || bytes[1] < lead.second_min ||
        bytes[1] > lead.second_max)
        return 0;
    uint32_t value = bytes[0] & (0x7fu >> lead.length);
    for (size_t i = 1; i < lead.length; i++) {
        if ((bytes[i] & 0xc0) != 0x80)
            return 0;
        value = value << 6 | (bytes[i] & 0x3fu);
    }
    *code_point = value;
    return lead.length;
}

size_t utf8_encode(uint32_t code_point, char out[UTF8_MAX_BYTES])
{
    ASSERT(code_point <= 0x10ffff);
    ASSERT(code_point < 0xd800 || code_point > 0xdfff);
    if (code_point < 0x80) {
        out[0] = (char)code_point;
        return 1;
    }
    if (code_point < 0x800) {
        out[0] = (char)(0xc0 | code_point >> 6);
        out[1] = (char)(0x80 | (code_point & 0x3f));
        return 2;
    }
    if (code_point < 0x10000) {
        out[0] = (char)(0xe0 | code_point >> 12);
        out[1] = (char)(0x80 | (code_point >> 6 & 0x3f));
        out[2] = (char)(0x80 | (code_point & 0x3f));
        return 3;
    }
    out[0] = (char)(0xf0 | code_point >> 18);
    out[1] = (char)(0x80 | (code_point >> 12 & 0x3f));
    out[2] = (char)(0x80 | (code_point >> 6 & 0x3f));
    out[3] = (char)(0x80 | (code_point & 0x3f));
    return 4;
}

bool utf8_valid(const char *text, size_t size_bytes)
{
    size_t i = 0;
    while (i < size_bytes) {
        uint32_t code_point;
        size_t length = utf8_decode(text + i, size_bytes - i, &code_point);
        if (length == 0)
            return false;
        i += length;
    }
    return true;
}

size_t utf8_complete_prefix(const char *text, size_t size_bytes)
{
    const uint8_t *bytes = (const uint8_t *)text;
    for (size_t back = 1; back <= size_bytes && back < UTF8_MAX_BYTES; back++) {
        const uint8_t *start = bytes + size_bytes - back;
        if ((*start & 0xc0) == 0x80)
            continue; /* a continuation byte: its lead is further back */
        struct lead lead = lead_of(*start);
        bool could_complete =
            lead.length > back && (back < 2 || (start[1] >= lead.second_min && start[1] <= lead.second_max));
        return could_complete ? size_bytes - back : size_bytes;
    }
    return size_bytes;
}
