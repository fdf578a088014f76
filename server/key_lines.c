#include "server/key_lines.h"

#include <string.h>
#include "proto/api_key.h"
#include "proto/tenant_file.h"

err_t key_lines_of(const char *key, size_t key_bytes, const char *tenant, struct buffer *out)
{
    if (!tenant_name_is_well_formed(tenant))
        return err_new(ERR_INVALID_ARGUMENT,
                       "\"%.80s\" cannot be a tenant's name: 1 to %d letters, digits, '.', '_' or '-'",
                       tenant, REQUEST_TENANT_BYTES_MAX);
    if (!api_key_is_well_formed(key, key_bytes))
        return err_new(ERR_INVALID_ARGUMENT, "a key is 1 to %d visible ASCII characters without blanks",
                       API_KEY_BYTES_MAX);
    char text[API_KEY_HASH_TEXT_BYTES];
    struct api_key_hash hash = api_key_hash_of(key, key_bytes);
    api_key_hash_format(&hash, text);
    if (!buffer_append_format(out, "key %s %s\n", text, tenant))
        return err_new(ERR_RESOURCE_EXHAUSTED, "no memory for a line");
    return err_ok();
}

err_t key_lines_new(const char *tenant, struct buffer *out)
{
    char key[API_KEY_TEXT_BYTES];
    TRY(api_key_make(key));
    struct buffer line = {.limit_bytes = out->limit_bytes};
    TRY(key_lines_of(key, strlen(key), tenant, &line));
    bool good = buffer_append_format(out, "%s\n%s", key, line.data);
    buffer_free(&line);
    return good ? err_ok() : err_new(ERR_RESOURCE_EXHAUSTED, "no memory for a key");
}
