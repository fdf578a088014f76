/* What proxies route by, said once more in a request's headers (gRPC: metadata): a proxy reads no bodies.
 * Where the body says nothing the header counts; where both speak they must agree. x-bantam-session and
 * x-bantam-tenant are for proxies alone: nobody here reads them, and the tenant is who authenticated. */
#pragma once

#include "api/request.h"
#include "base/error.h"
#include "proto/identity.h"

#define ROUTE_MODEL    "x-bantam-model"    /* of requests; and of answers: what answered */
#define ROUTE_PRIORITY "x-bantam-priority" /* a decimal integer */

/* Whose prefixes a request may find, from a caller who speaks for others, as a router does for its tenants:
 * metadata of gRPC alone. */
#define ROUTE_CACHE_SALT "x-bantam-cache-salt"
enum { ROUTE_CACHE_SALT_BYTES_MAX = 64 }; /* printable ASCII without blanks */

#define ROUTE_HINT_PREFIX "x-bantam-"

/* Hints for a service that passes requests on: x-bantam-route, x-bantam-privacy, x-bantam-complexity,
 * x-bantam-max-cost, x-bantam-task. All of them count, those of the body first. */
struct route_headers {
    char model[REQUEST_MODEL_BYTES_MAX + 1];      /* "" = no such header */
    struct request_hint hints[REQUEST_HINTS_MAX]; /* [n_hints], in the order of their coming */
    size_t n_hints;
    char hint_values[REQUEST_HINTS_MAX][REQUEST_HINT_BYTES_MAX + 1];
    char cache_salt[ROUTE_CACHE_SALT_BYTES_MAX + 1]; /* "" = no such header */
};

/* Takes in one header if it is a hint; upper or lower case is the same in its name. n_hints must be 0 at
 * first. INVALID_ARGUMENT: more than REQUEST_HINTS_MAX, a value longer than REQUEST_HINT_BYTES_MAX. */
err_t route_headers_take_hint(struct route_headers *headers, const char *name, size_t name_bytes,
                              const char *value, size_t value_bytes) ERR_MUST_CHECK;

/* Takes in one header if it is ROUTE_CACHE_SALT. cache_salt must be "" at first. PERMISSION_DENIED: the
 * caller is a tenant and no admin. INVALID_ARGUMENT: it is no salt, or there are two. */
err_t route_headers_take_salt(struct route_headers *headers, const struct caller *caller, const char *name,
                              size_t name_bytes, const char *value, size_t value_bytes) ERR_MUST_CHECK;

/* Fills what the body left open and puts hints behind those of the body; request->model, cache_salt and hints
 * then point into *headers. priority: NULL = no such header. INVALID_ARGUMENT: it is no integer, a header
 * contradicts the body, or there are too many hints. */
err_t route_headers_apply(struct route_headers *headers, const char *priority,
                          struct request *request) ERR_MUST_CHECK;
