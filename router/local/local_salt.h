/* By what an engine knows the prefixes of one tenant of the router. Engines find a cached prefix for requests
 * of one salt only, and whoever may send salts may send any: so a tenant's is one that nobody can guess. */
#pragma once

#include <stddef.h>
#include "api/request.h"
#include "base/error.h"

enum {
    LOCAL_SALT_BYTES = 64,          /* hexadecimal digits */
    LOCAL_SALT_KEY_BYTES_MIN = 16,  /* of one in the configuration */
    LOCAL_SALT_DRAWN_KEY_BYTES = 32 /* of a router's own */
};

/* Whose prefixes the request may find: its cache_salt (a tenant's or a group's, tenant_service.h), else its
 * tenant. "" = nobody's. */
const char *local_salt_owner(const struct request *request);

/* HMAC-SHA-256 (RFC 2104, FIPS 180-4) of the owner's name, in hexadecimal digits. RESOURCE_EXHAUSTED. Any
 * thread. */
err_t local_salt_make(const void *key, size_t key_bytes, const char *owner,
                      char out[LOCAL_SALT_BYTES + 1]) ERR_MUST_CHECK;
