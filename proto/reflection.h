/* grpc.reflection: one request in, one answer out, over the embedded descriptors (wire_schemas.h). v1 and
 * v1alpha have the same bytes. What a client asks for in vain is an error_response; only bytes that are no
 * request are an error here. Pure but for memory; any thread. */
#pragma once

#include <stddef.h>
#include <stdint.h>
#include "base/buffer.h"
#include "base/error.h"

enum {
    REFLECTION_REQUEST_BYTES_MAX = 4096, /* the answer repeats the request */
    REFLECTION_ANSWER_BYTES_MAX = 1 << 20,
    REFLECTION_FILES_MAX = 32,
};

/* ServerReflectionRequest -> ServerReflectionResponse, appended to *out. INVALID_ARGUMENT;
 * RESOURCE_EXHAUSTED. */
err_t reflection_answer(const uint8_t *bytes, size_t size_bytes, struct buffer *out) ERR_MUST_CHECK;
