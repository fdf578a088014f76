#include "proto/api_key.h"

#include <stdio.h>
#include <string.h>
#include <openssl/crypto.h>
#include <openssl/rand.h>
#include <openssl/sha.h>
#include "base/assert.h"

static const char hash_prefix[] = "sha256:", key_prefix[] = "sk-bantam-";
enum { KEY_RANDOM_BYTES = 32 };

struct api_key_hash api_key_hash_of(const char *key, size_t size_bytes)
{
    struct api_key_hash hash;
    (void)SHA256((const unsigned char *)key, size_bytes, hash.bytes);
    return hash;
}

bool api_key_hash_equal(const struct api_key_hash *a, const struct api_key_hash *b)
{
    return CRYPTO_memcmp(a->bytes, b->bytes, sizeof a->bytes) == 0;
}

void api_key_hash_format(const struct api_key_hash *hash, char out[API_KEY_HASH_TEXT_BYTES])
{
    size_t at = sizeof hash_prefix - 1;
    memcpy(out, hash_prefix, at);
    for (size_t i = 0; i < API_KEY_HASH_BYTES; i++, at += 2)
        (void)snprintf(out + at, API_KEY_HASH_TEXT_BYTES - at, "%02x", hash->bytes[i]);
}

static int digit_of(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    c |= 0x20;
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

bool api_key_hash_parse(const char *text, struct api_key_hash *out)
{
    size_t skip = sizeof hash_prefix - 1;
    if (strlen(text) != skip + 2 * (size_t)API_KEY_HASH_BYTES || memcmp(text, hash_prefix, skip) != 0)
        return false;
    for (size_t i = 0; i < API_KEY_HASH_BYTES; i++) {
        int high = digit_of(text[skip + 2 * i]), low = digit_of(text[skip + 2 * i + 1]);
        if (high < 0 || low < 0)
            return false;
        out->bytes[i] = (uint8_t)(high * 16 + low);
    }
    return true;
}

err_t api_key_make(char out[API_KEY_TEXT_BYTES])
{
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    uint8_t random[KEY_RANDOM_BYTES + 1] = {0}; /* one more, so that the last digit has its six bits */
    if (RAND_bytes(random, KEY_RANDOM_BYTES) != 1)
        return err_new(ERR_UNAVAILABLE, "the system gives no random numbers for a key");
    size_t at = sizeof key_prefix - 1;
    memcpy(out, key_prefix, at);
    for (size_t bit = 0; bit < (size_t)KEY_RANDOM_BYTES * 8; bit += 6) {
        unsigned pair = (unsigned)random[bit / 8] << 8 | random[bit / 8 + 1];
        out[at++] = digits[pair >> (10 - bit % 8) & 63];
    }
    ASSERT(at == API_KEY_TEXT_BYTES - 1);
    out[at] = '\0';
    OPENSSL_cleanse(random, sizeof random);
    return err_ok();
}

bool api_key_is_well_formed(const char *key, size_t size_bytes)
{
    for (size_t i = 0; i < size_bytes; i++)
        if (key[i] <= 0x20 || key[i] >= 0x7f)
            return false;
    return size_bytes >= 1 && size_bytes <= API_KEY_BYTES_MAX;
}
