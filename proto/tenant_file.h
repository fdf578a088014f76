/* The file of tenants and of how they are recognised (--api-keys-file). Text, one statement a line, words
 * between blanks; '#' begins a comment at the start of a line:
 *
 *   tenant acme max-concurrent=8 requests-per-minute=600 tokens-per-minute=200000
 *   tenant ops  priority=-10 admin=yes cache=shared:office
 *   key sha256:9f86d081...0a08 acme
 *   san uri:spiffe://acme.example/batch acme
 *
 * A tenant stands above what names it. Options: max-concurrent, requests-per-minute, tokens-per-minute
 * (absent = no limit), priority (lower runs earlier; default 0), best-priority (the best one that its
 * requests may ask for; default: priority), cache (own, or shared:GROUP), admin (yes or no). Pure but for
 * memory. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "api/request.h"
#include "base/error.h"
#include "proto/api_key.h"
#include "proto/peer_names.h"
#include "proto/tenant_quota.h"

enum {
    TENANT_FILE_BYTES_MAX = 4 << 20,
    TENANT_LINE_BYTES_MAX = 1024,
    TENANT_LINE_WORDS_MAX = 12,
    TENANTS_MAX = 1024,
    TENANT_KEYS_MAX = 4096,
    TENANT_NAMES_MAX = 4096, /* of client certificates */
};

struct tenant_settings {
    char name[REQUEST_TENANT_BYTES_MAX + 1];
    struct tenant_limits limits;
    int32_t priority, best_priority;
    bool is_admin;
    char cache_group[REQUEST_TENANT_BYTES_MAX + 1]; /* "" = the tenant's own */
};

struct tenant_key {
    struct api_key_hash hash;
    uint32_t tenant; /* index */
};

struct tenant_name {
    struct peer_name_text name;
    uint32_t tenant; /* index */
};

struct tenant_file {
    struct tenant_settings *tenants; /* [n_tenants] owned, like the others */
    uint32_t n_tenants;
    struct tenant_key *keys; /* [n_keys] */
    uint32_t n_keys;
    struct tenant_name *names; /* [n_names] */
    uint32_t n_names;
};

/* text[0..size): the file. INVALID_ARGUMENT names the line; RESOURCE_EXHAUSTED. On error there is nothing to
 * free. */
err_t tenant_file_parse(const char *text, size_t size_bytes, struct tenant_file *out) ERR_MUST_CHECK;
void tenant_file_free(struct tenant_file *file);

/* Letters, digits, '.', '_' and '-', 1 to REQUEST_TENANT_BYTES_MAX of them. */
bool tenant_name_is_well_formed(const char *name);
