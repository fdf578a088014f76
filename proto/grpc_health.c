#include "proto/grpc_health.h"

#include <stdbool.h>
#include <string.h>
#include "base/assert.h"

/* Wire types of protobuf's encoding. */
enum { WIRE_VARINT = 0, WIRE_FIXED64 = 1, WIRE_BYTES = 2, WIRE_FIXED32 = 5 };

struct reader {
    const uint8_t *at, *end;
};

static bool read_varint(struct reader *reader, uint64_t *out)
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

static bool skip_bytes(struct reader *reader, uint64_t n_bytes)
{
    if (n_bytes > (uint64_t)(reader->end - reader->at))
        return false;
    reader->at += n_bytes;
    return true;
}

/* Reads the body of a field: its bytes for WIRE_BYTES, else skips it. */
static bool read_field(struct reader *reader, unsigned wire_type, struct reader *body)
{
    uint64_t value;
    switch (wire_type) {
    case WIRE_VARINT:
        return read_varint(reader, &value);
    case WIRE_FIXED64:
        return skip_bytes(reader, 8);
    case WIRE_FIXED32:
        return skip_bytes(reader, 4);
    case WIRE_BYTES:
        if (!read_varint(reader, &value))
            return false;
        body->at = reader->at;
        if (!skip_bytes(reader, value))
            return false;
        body->end = reader->at;
        return true;
    default:
        return false;
    }
}

err_t health_decode_request(const uint8_t *bytes, size_t size_bytes, char service[HEALTH_SERVICE_BYTES_MAX])
{
    service[0] = '\0';
    struct reader reader = {bytes, bytes + size_bytes};
    while (reader.at < reader.end) {
        uint64_t key;
        struct reader body = {0};
        if (!read_varint(&reader, &key) || key >> 3 == 0 || !read_field(&reader, (unsigned)(key & 7), &body))
            return err_new(ERR_INVALID_ARGUMENT, "the message is not a grpc.health.v1.HealthCheckRequest");
        if (key != (1 << 3 | WIRE_BYTES))
            continue;
        size_t name_bytes = (size_t)(body.end - body.at);
        if (name_bytes >= HEALTH_SERVICE_BYTES_MAX || memchr(body.at, 0, name_bytes))
            return err_new(ERR_INVALID_ARGUMENT, "a service name has at most %d bytes and no NUL",
                           HEALTH_SERVICE_BYTES_MAX - 1);
        memcpy(service, body.at, name_bytes);
        service[name_bytes] = '\0';
    }
    return err_ok();
}

size_t health_encode_response(enum health_status status, uint8_t out[HEALTH_RESPONSE_BYTES])
{
    if (status == HEALTH_UNKNOWN)
        return 0;
    out[0] = 1 << 3 | WIRE_VARINT;
    out[1] = (uint8_t)status;
    return HEALTH_RESPONSE_BYTES;
}

size_t health_encode_list(const char *const *services, size_t n_services, enum health_status status,
                          uint8_t out[HEALTH_LIST_BYTES_MAX])
{
    ASSERT(n_services <= HEALTH_LIST_SERVICES_MAX);
    size_t size = 0;
    for (size_t i = 0; i < n_services; i++) {
        uint8_t value[HEALTH_RESPONSE_BYTES];
        size_t value_bytes = health_encode_response(status, value);
        size_t name_bytes = strlen(services[i]);
        size_t entry_bytes = 2 + name_bytes + 2 + value_bytes;
        ASSERT(entry_bytes < 0x80 &&
               size + 2 + entry_bytes <= HEALTH_LIST_BYTES_MAX); /* lengths of one byte */
        out[size++] = 1 << 3 | WIRE_BYTES;
        out[size++] = (uint8_t)entry_bytes;
        out[size++] = 1 << 3 | WIRE_BYTES;
        out[size++] = (uint8_t)name_bytes;
        memcpy(out + size, services[i], name_bytes);
        size += name_bytes;
        out[size++] = 2 << 3 | WIRE_BYTES;
        out[size++] = (uint8_t)value_bytes;
        memcpy(out + size, value, value_bytes);
        size += value_bytes;
    }
    return size;
}
