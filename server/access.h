/* Who reaches a server, and how: certificates, keys and tenants, from flags to what the doors and the
 * service behind them take. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include "api/service.h"
#include "base/error.h"

struct identity;
struct tls_files;
struct tenant_service;

enum access_client_certs {
    ACCESS_CERTS_AUTO, /* required when there is ca_file, else none */
    ACCESS_CERTS_NONE,
    ACCESS_CERTS_OPTIONAL,
    ACCESS_CERTS_REQUIRED,
};

struct access_options {
    const char *cert_file, *key_file; /* of the server; both or neither */
    const char *ca_file;              /* of who signs clients' certificates */
    enum access_client_certs client_certs;
    const char *const *client_names; /* [n_client_names] of certificates that are let in */
    size_t n_client_names;
    const char *const *api_keys; /* [n_api_keys] in clear text */
    size_t n_api_keys;
    bool api_keys_in_arguments; /* where every user of the machine can read them */
    const char *keys_file;      /* proto/tenant_file.h */
    bool allow_insecure_bind;
};

struct access {
    struct tls_files *tls;     /* NULL = clear text */
    struct identity *identity; /* NULL = everyone */
    struct tenant_service *tenants;
};

/* Before anything is loaded: whether host may be listened on. An address that other machines reach needs both
 * TLS and a way to know clients (keys, or certificates that are required), or allow_insecure_bind.
 * INVALID_ARGUMENT names the flags. */
err_t access_check(const struct access_options *options, const char *host) ERR_MUST_CHECK;
/* Reads the files. On error nothing is left open. */
err_t access_open(const struct access_options *options, struct access *out) ERR_MUST_CHECK;
/* What doors shall serve: `service`, behind the tenants' quotas if there are tenants. Once. */
err_t access_guard(struct access *access, struct service *service, struct service **out) ERR_MUST_CHECK;
/* Whether there are files that may change. */
bool access_has_files(const struct access_options *options);
/* Reads files again that have changed, or all of them. */
void access_refresh(const struct access *access, bool in_any_case);
/* After the doors. */
void access_close(struct access *access);
