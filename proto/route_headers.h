/* What proxies route by, said once more in a request's headers (gRPC: metadata): a proxy reads no bodies.
 * Where the body says nothing the header counts; where both speak they must agree. x-bantam-session and
 * x-bantam-tenant are for proxies alone: nobody here reads them, and the tenant is who authenticated. */
#pragma once

#include "api/request.h"
#include "base/error.h"

#define ROUTE_MODEL    "x-bantam-model"    /* of requests; and of answers: what answered */
#define ROUTE_PRIORITY "x-bantam-priority" /* a decimal integer */

struct route_headers {
    char model[REQUEST_MODEL_BYTES_MAX + 1]; /* "" = no such header */
};

/* Fills what the body left open; request->model then points into *headers. priority: NULL = no such header.
 * INVALID_ARGUMENT: it is no integer, or a header contradicts the body. */
err_t route_headers_apply(const struct route_headers *headers, const char *priority,
                          struct request *request) ERR_MUST_CHECK;
