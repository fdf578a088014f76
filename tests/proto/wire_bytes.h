/* protobuf messages by hand, so that they can also be wrong. */
#pragma once

#include <stdint.h>
#include <string.h>
#include "base/assert.h"
#include "base/buffer.h"

enum { WIRE_BYTES_MAX = 16 << 20 };

static inline void wire_put(struct buffer *to, const void *bytes, size_t size_bytes)
{
    to->limit_bytes = WIRE_BYTES_MAX;
    bool put = buffer_append(to, bytes, size_bytes);
    ASSERT(put);
}

static inline void wire_number(struct buffer *to, uint64_t value)
{
    do {
        uint8_t byte = (uint8_t)((value & 0x7f) | (value >= 0x80 ? 0x80 : 0));
        wire_put(to, &byte, 1);
        value >>= 7;
    } while (value > 0);
}

static inline void wire_varint(struct buffer *to, uint32_t field, uint64_t value)
{
    wire_number(to, field << 3);
    wire_number(to, value);
}

static inline void wire_fixed32(struct buffer *to, uint32_t field, const void *value)
{
    wire_number(to, field << 3 | 5);
    wire_put(to, value, 4);
}

static inline void wire_fixed64(struct buffer *to, uint32_t field, uint64_t value)
{
    wire_number(to, field << 3 | 1);
    wire_put(to, &value, 8);
}

static inline void wire_bytes(struct buffer *to, uint32_t field, const void *bytes, size_t size_bytes)
{
    wire_number(to, field << 3 | 2);
    wire_number(to, size_bytes);
    wire_put(to, bytes, size_bytes);
}

static inline void wire_text(struct buffer *to, uint32_t field, const char *text)
{
    wire_bytes(to, field, text, strlen(text));
}

/* message as a field of another; frees it. */
static inline void wire_message(struct buffer *to, uint32_t field, struct buffer *message)
{
    wire_bytes(to, field, message->size > 0 ? message->data : "", message->size);
    buffer_free(message);
}
