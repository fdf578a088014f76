/* The small protobuf messages that are read by hand: of grpc.health.v1 and of ORCA. */
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include "base/assert.h"
#include "proto/grpc_health.h"
#include "proto/orca_report.h"
#include "proto/protobuf_fields.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void read_all_fields(const uint8_t *data, size_t size)
{
    struct wire_reader reader = {data, data + size};
    struct wire_field field;
    bool malformed = false;
    size_t n = 0;
    while (wire_read_field(&reader, &field, &malformed)) {
        ASSERT(!malformed && ++n <= size);
        ASSERT(field.body.at == NULL || (field.body.at >= data && field.body.at <= field.body.end));
        ASSERT(field.body.end == NULL || field.body.end <= data + size);
    }
    ASSERT(malformed || reader.at == reader.end);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char service[HEALTH_SERVICE_BYTES_MAX];
    int64_t interval_ms = 0;
    read_all_fields(data, size);
    if (health_decode_request(data, size, service).code == ERR_OK)
        ASSERT(strlen(service) < HEALTH_SERVICE_BYTES_MAX);
    if (orca_request_decode(data, size, &interval_ms).code == ERR_OK)
        ASSERT(interval_ms >= ORCA_INTERVAL_MIN_MS && interval_ms <= ORCA_INTERVAL_MAX_MS);
    enum health_status status;
    if (health_decode_response(data, size, &status).code == ERR_OK)
        ASSERT(status >= HEALTH_UNKNOWN && status <= HEALTH_SERVICE_UNKNOWN);
    struct orca_report report;
    if (orca_report_decode(data, size, &report).code == ERR_OK) {
        uint8_t again[ORCA_REPORT_BYTES_MAX];
        struct orca_report second;
        size_t again_bytes = orca_report_encode(&report, again);
        ASSERT(orca_report_decode(again, again_bytes, &second).code == ERR_OK);
        ASSERT(memcmp(&second.kv_usage, &report.kv_usage, sizeof report.kv_usage) == 0 ||
               report.kv_usage == 0);
    }
    return 0;
}
