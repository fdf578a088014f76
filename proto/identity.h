/* Who may come in, and as which tenant: bearer keys and names of client certificates, from flags and from a
 * file that is read again when it changes. Every door asks it before it looks at a request; tenant_service.h
 * holds each tenant to its quotas. What a tenant has used outlives a reload. Any thread. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "base/clock.h"
#include "base/error.h"
#include "proto/peer_names.h"
#include "proto/tenant_file.h"

struct identity;
struct tenant;

/* What keys given as flags, and certificates without a tenant of their own, belong to. */
#define IDENTITY_DEFAULT_TENANT "default"

struct identity_options {
    const char *keys_file;   /* tenant_file.h; NULL = none */
    const char *const *keys; /* [n_keys] in clear text; hashed and forgotten */
    size_t n_keys;
    const char *const *client_names; /* [n_client_names] that client certificates must have one of;
                                        names of the file count too. None = any verified certificate */
    size_t n_client_names;
    const struct clock *clock;
};

/* INVALID_ARGUMENT names file and line, NOT_FOUND, IO. */
err_t identity_open(const struct identity_options *options, struct identity **out) ERR_MUST_CHECK;
/* Every tenant must have been let go of. NULL is fine. */
void identity_close(struct identity *identity);
/* Reads the file again when it has changed, or in any case; a bad one is logged and the old one stays. */
void identity_refresh(struct identity *identity, bool in_any_case);

/* What a client shows. */
struct credentials {
    const char *authorization; /* the header's value, not NUL-terminated; NULL = none */
    size_t authorization_bytes;
    size_t n_authorizations;       /* how many such headers came; more than one is refused */
    const struct peer_names *peer; /* of its verified certificate; NULL = none */
};

/* Who it is. Zero: nobody was asked, which a door without identity takes for everyone. */
struct caller {
    char tenant[REQUEST_TENANT_BYTES_MAX + 1];
    bool is_admin;
};

/* UNAUTHENTICATED: no key, or one that nobody knows. PERMISSION_DENIED: a certificate with none of the names
 * that are let in. A key counts more than a certificate. */
err_t identity_authenticate(struct identity *identity, const struct credentials *credentials,
                            struct caller *out) ERR_MUST_CHECK;

/* Lets one request of a tenant in: QUOTA_EXCEEDED with the time to come back, UNAUTHENTICATED when the tenant
 * has gone meanwhile. n_tokens: of the prompt, as far as known. */
enum { IDENTITY_SALT_BYTES_MAX = REQUEST_TENANT_BYTES_MAX + 15 };
struct tenant_grant {
    struct tenant *tenant; /* until identity_leave or identity_withdraw */
    uint64_t n_tokens;     /* charged so far */
    int32_t priority, best_priority;
    char cache_salt[IDENTITY_SALT_BYTES_MAX + 1];
};
err_t identity_admit(struct identity *identity, const char *tenant, uint64_t n_tokens,
                     struct tenant_grant *out) ERR_MUST_CHECK;
/* Counts a call that computes nothing as one of the tenant's requests; errors as above. */
err_t identity_admit_call(struct identity *identity, const char *tenant) ERR_MUST_CHECK;
void identity_charge(struct identity *identity, struct tenant_grant *grant, int64_t n_tokens);
void identity_leave(struct identity *identity, struct tenant_grant *grant);
/* The request was refused after all. */
void identity_withdraw(struct identity *identity, struct tenant_grant *grant);

/* The salt of a tenant's prefixes, [IDENTITY_SALT_BYTES_MAX + 1]; false when there is no such tenant. */
bool identity_cache_salt(struct identity *identity, const char *tenant, char *out);

/* What is left of a tenant's rates; false when there is no such tenant. */
struct tenant_rates {
    struct quota_view requests, tokens;
};
bool identity_rates(struct identity *identity, const char *tenant, struct tenant_rates *out);
