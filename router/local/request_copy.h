/* A request that outlives its caller: everything that an engine reads of it, in one block. */
#pragma once

#include "api/request.h"
#include "base/error.h"

/* Without tenant, hints, original and beyond, which are the router's; NULL in the copy. The caller mem_free's
 * *out, a block of *size_bytes (may be NULL). */
err_t request_copy(const struct request *request, struct request **out, size_t *size_bytes) ERR_MUST_CHECK;
