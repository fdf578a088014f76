/* A provider's failures as errors of ours. A status, or an error inside a stream, becomes a code:
 *
 *   RESOURCE_EXHAUSTED   429; retry_after_ms when it says so
 *   UNAVAILABLE          500, 502, 503, 529 and others of 5xx: its fault, another try may do
 *   DEADLINE_EXCEEDED    408, 504
 *   FAILED_PRECONDITION  402, and a 429 or 400 that means that the money is spent: no retry helps
 *   UNAUTHENTICATED, PERMISSION_DENIED   401, 403: our key, not the client's
 *   NOT_FOUND            404
 *   INVALID_ARGUMENT     the rest of 4xx: the request itself
 *   INTERNAL             a status that no provider should send
 *
 * Pure functions. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <jansson.h>
#include "base/error.h"

enum { PROVIDER_RETRY_AFTER_MS_MAX = 24 * 3600 * 1000 }; /* longer waits are read as this one */

/* status: of HTTP, not 2xx. body[0..body_bytes): JSON with `error`, or anything. retry_after_ms: from the
 * headers, 0 = none. */
err_t provider_error_of_response(int status, const char *body, size_t body_bytes, int64_t retry_after_ms);
/* An error inside a stream or body that came with status 200: {"error": ...}, {"object": "error", ...} and
 * Anthropic's {"type": "error", ...}. False: it is none of these. */
bool provider_error_of_json(const json_t *root, err_t *out);

/* May the same request succeed with the same provider a little later? */
bool provider_error_may_retry(err_t error);

/* The value of Retry-After (seconds, whole or not, or a date) or Retry-After-Ms; -1 when it is neither.
 * now_s: Unix time. */
int64_t provider_retry_after_ms(const char *value, int64_t now_s);
int64_t provider_retry_after_ms_exact(const char *value);
/* The value of a rate limit's reset: a duration ("20ms", "6m0s", "1h2m3.5s"), seconds, or a point of time as
 * Unix seconds or milliseconds or as RFC 3339 has it; -1 when it says nothing ("-1", ""). Milliseconds from
 * now. */
int64_t provider_rate_reset_ms(const char *value, int64_t now_s);
