#include "router/local/local_salt.h"

#include <stdio.h>
#include <string.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include "base/assert.h"

const char *local_salt_owner(const struct request *request)
{
    if (request->cache_salt)
        return request->cache_salt;
    return request->tenant ? request->tenant : "";
}

err_t local_salt_make(const void *key, size_t key_bytes, const char *owner, char out[LOCAL_SALT_BYTES + 1])
{
    unsigned char digest[LOCAL_SALT_BYTES / 2];
    unsigned n = 0;
    ASSERT(owner[0] != '\0' && key_bytes >= LOCAL_SALT_KEY_BYTES_MIN);
    if (!HMAC(EVP_sha256(), key, (int)key_bytes, (const unsigned char *)owner, strlen(owner), digest, &n))
        return err_new(ERR_RESOURCE_EXHAUSTED, "no memory for the salt of a tenant");
    ASSERT(n == sizeof digest);
    for (size_t i = 0; i < sizeof digest; i++)
        (void)snprintf(out + 2 * i, 3, "%02x", digest[i]);
    return err_ok();
}
