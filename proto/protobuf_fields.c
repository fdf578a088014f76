#include "proto/protobuf_fields.h"

#include <string.h>
#include "base/assert.h"

static bool read_varint(struct wire_reader *reader, uint64_t *out)
{
    *out = 0;
    for (unsigned shift = 0; shift < 64 && reader->at < reader->end; shift += 7) {
        uint8_t byte = *reader->at++;
        *out |= (uint64_t)(byte & 0x7f) << shift;
        if ((byte & 0x80) == 0)
            return true;
    }
    return false;
}

static bool skip_bytes(struct wire_reader *reader, uint64_t n_bytes)
{
    if (n_bytes > (uint64_t)(reader->end - reader->at))
        return false;
    reader->at += n_bytes;
    return true;
}

static bool read_fixed64(struct wire_reader *reader, uint64_t *out)
{
    const uint8_t *at = reader->at;
    if (!skip_bytes(reader, 8))
        return false;
    *out = 0;
    for (int i = 0; i < 8; i++)
        *out |= (uint64_t)at[i] << 8 * i;
    return true;
}

static bool read_body(struct wire_reader *reader, struct wire_field *out)
{
    uint64_t size_bytes;
    switch (out->key & 7) {
    case WIRE_VARINT:
        return read_varint(reader, &out->value);
    case WIRE_FIXED64:
        return read_fixed64(reader, &out->value);
    case WIRE_FIXED32:
        return skip_bytes(reader, 4);
    case WIRE_BYTES:
        if (!read_varint(reader, &size_bytes))
            return false;
        out->body.at = reader->at;
        if (!skip_bytes(reader, size_bytes))
            return false;
        out->body.end = reader->at;
        return true;
    default:
        return false;
    }
}

bool wire_read_field(struct wire_reader *reader, struct wire_field *out, bool *malformed)
{
    *out = (struct wire_field){0};
    if (reader->at == reader->end)
        return false;
    *malformed = !read_varint(reader, &out->key) || out->key >> 3 == 0 || !read_body(reader, out);
    return !*malformed;
}

double wire_double(uint64_t value)
{
    double out;
    memcpy(&out, &value, sizeof out);
    return out;
}

uint8_t *wire_write_varint(uint8_t *out, uint64_t value)
{
    for (; value >= 0x80; value >>= 7)
        *out++ = (uint8_t)(value | 0x80);
    *out++ = (uint8_t)value;
    return out;
}

uint8_t *wire_write_double(uint8_t *out, unsigned number, double value)
{
    uint64_t bits;
    if (value == 0)
        return out;
    memcpy(&bits, &value, sizeof bits);
    out = wire_write_varint(out, WIRE_KEY(number, WIRE_FIXED64));
    for (int i = 0; i < 8; i++)
        *out++ = (uint8_t)(bits >> 8 * i);
    return out;
}

uint8_t *wire_write_map_double(uint8_t *out, unsigned number, const char *name, double value)
{
    size_t name_bytes = strlen(name), value_bytes = value == 0 ? 0 : 9;
    ASSERT(name_bytes <= 100);
    out = wire_write_varint(out, WIRE_KEY(number, WIRE_BYTES));
    out = wire_write_varint(out, 2 + name_bytes + value_bytes);
    out = wire_write_varint(out, WIRE_KEY(1, WIRE_BYTES));
    out = wire_write_varint(out, name_bytes);
    memcpy(out, name, name_bytes);
    return wire_write_double(out + name_bytes, 2, value);
}
