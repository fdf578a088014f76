#include "proto/grpc_health.h"

#include <stdbool.h>
#include <string.h>
#include "base/assert.h"
#include "proto/protobuf_fields.h"

err_t health_decode_request(const uint8_t *bytes, size_t size_bytes, char service[HEALTH_SERVICE_BYTES_MAX])
{
    service[0] = '\0';
    struct wire_reader reader = {bytes, bytes + size_bytes};
    struct wire_field field;
    bool malformed = false;
    while (wire_read_field(&reader, &field, &malformed)) {
        if (field.key != WIRE_KEY(1, WIRE_BYTES))
            continue;
        const struct wire_reader body = field.body;
        size_t name_bytes = (size_t)(body.end - body.at);
        if (name_bytes >= HEALTH_SERVICE_BYTES_MAX || memchr(body.at, 0, name_bytes))
            return err_new(ERR_INVALID_ARGUMENT, "a service name has at most %d bytes and no NUL",
                           HEALTH_SERVICE_BYTES_MAX - 1);
        memcpy(service, body.at, name_bytes);
        service[name_bytes] = '\0';
    }
    if (malformed)
        return err_new(ERR_INVALID_ARGUMENT, "the message is not a grpc.health.v1.HealthCheckRequest");
    return err_ok();
}

size_t health_encode_request(const char *service, uint8_t out[HEALTH_SERVICE_BYTES_MAX + 3])
{
    size_t name_bytes = strlen(service);
    ASSERT(name_bytes < HEALTH_SERVICE_BYTES_MAX);
    if (name_bytes == 0)
        return 0;
    uint8_t *at = wire_write_varint(out, WIRE_KEY(1, WIRE_BYTES));
    at = wire_write_varint(at, name_bytes);
    memcpy(at, service, name_bytes);
    return (size_t)(at - out) + name_bytes;
}

err_t health_decode_response(const uint8_t *bytes, size_t size_bytes, enum health_status *out)
{
    *out = HEALTH_UNKNOWN;
    struct wire_reader reader = {bytes, bytes + size_bytes};
    struct wire_field field;
    bool malformed = false;
    while (wire_read_field(&reader, &field, &malformed))
        if (field.key == WIRE_KEY(1, WIRE_VARINT))
            *out = field.value <= HEALTH_SERVICE_UNKNOWN ? (enum health_status)field.value : HEALTH_UNKNOWN;
    if (malformed)
        return err_new(ERR_DATA_LOSS, "the message is not a grpc.health.v1.HealthCheckResponse");
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
