/* Messages of grpc.health.v1 (grpc/health/v1/health.proto), by hand: one string in, one enum out. Pure. */
#pragma once

#include <stddef.h>
#include <stdint.h>
#include "base/error.h"

enum health_status {
    HEALTH_UNKNOWN = 0,
    HEALTH_SERVING = 1,
    HEALTH_NOT_SERVING = 2,
    HEALTH_SERVICE_UNKNOWN = 3,
};

enum {
    HEALTH_SERVICE_BYTES_MAX = 128,
    HEALTH_RESPONSE_BYTES = 2,
    HEALTH_LIST_BYTES_MAX = 256,
    HEALTH_LIST_SERVICES_MAX = 4,
};

/* HealthCheckRequest: service (field 1); "" when absent, unknown fields are skipped. INVALID_ARGUMENT for bad
 * bytes or a name that is too long. */
err_t health_decode_request(const uint8_t *bytes, size_t size_bytes,
                            char service[HEALTH_SERVICE_BYTES_MAX]) ERR_MUST_CHECK;

/* The client's side. Returns the size; service has fewer than HEALTH_SERVICE_BYTES_MAX bytes. */
size_t health_encode_request(const char *service, uint8_t out[HEALTH_SERVICE_BYTES_MAX + 3]);
/* A status that nobody knows is UNKNOWN. DATA_LOSS for bad bytes. */
err_t health_decode_response(const uint8_t *bytes, size_t size_bytes, enum health_status *out) ERR_MUST_CHECK;

/* HealthCheckResponse: status (field 1). Returns the size; UNKNOWN is the empty message. */
size_t health_encode_response(enum health_status status, uint8_t out[HEALTH_RESPONSE_BYTES]);

/* HealthListResponse: statuses (field 1), a map from service name to HealthCheckResponse; the same status for
 * all. */
size_t health_encode_list(const char *const *services, size_t n_services, enum health_status status,
                          uint8_t out[HEALTH_LIST_BYTES_MAX]);
