/* Keys that clients send as "Authorization: Bearer KEY", and their hashes, which are all that a server keeps.
 * A key has 256 random bits, so that one round of SHA-256 is enough: nobody can try them all, and each
 * request would have to pay for a slower hash. Any thread. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "base/error.h"

enum {
    API_KEY_HASH_BYTES = 32,
    API_KEY_HASH_TEXT_BYTES = 7 + 2 * API_KEY_HASH_BYTES + 1, /* "sha256:", hexadecimal digits, NUL */
    API_KEY_BYTES_MAX = 512,                                  /* of any key, without NUL */
    API_KEY_TEXT_BYTES = 10 + 43 + 1, /* of one that we make: "sk-bantam-", base64url, NUL */
};

struct api_key_hash {
    uint8_t bytes[API_KEY_HASH_BYTES];
};

/* SHA-256 of the key's bytes. */
struct api_key_hash api_key_hash_of(const char *key, size_t size_bytes);
/* In a time that does not depend on the hashes. */
bool api_key_hash_equal(const struct api_key_hash *a, const struct api_key_hash *b);
/* "sha256:0123..." */
void api_key_hash_format(const struct api_key_hash *hash, char out[API_KEY_HASH_TEXT_BYTES]);
/* False when it is not that. */
bool api_key_hash_parse(const char *text, struct api_key_hash *out);

/* A fresh key. UNAVAILABLE when the system has no random numbers. */
err_t api_key_make(char out[API_KEY_TEXT_BYTES]) ERR_MUST_CHECK;
/* 1 to API_KEY_BYTES_MAX visible ASCII characters: what a header can carry. */
bool api_key_is_well_formed(const char *key, size_t size_bytes);
