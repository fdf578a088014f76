#include "server/access.h"

#include <string.h>
#include "base/clock.h"
#include "base/log.h"
#include "proto/identity.h"
#include "proto/listen_address.h"
#include "proto/tenant_service.h"
#include "proto/tls_files.h"

enum { SHORT_KEY_BYTES = 20 };

static enum tls_client_certs client_certs_of(const struct access_options *options)
{
    switch (options->client_certs) {
    case ACCESS_CERTS_AUTO:
        return options->ca_file ? TLS_CLIENT_CERTS_REQUIRED : TLS_CLIENT_CERTS_NONE;
    case ACCESS_CERTS_NONE:
        break;
    case ACCESS_CERTS_OPTIONAL:
        return TLS_CLIENT_CERTS_OPTIONAL;
    case ACCESS_CERTS_REQUIRED:
        return TLS_CLIENT_CERTS_REQUIRED;
    }
    return TLS_CLIENT_CERTS_NONE;
}

static err_t check_flags(const struct access_options *options)
{
    enum tls_client_certs certs = client_certs_of(options);
    if (!options->cert_file != !options->key_file)
        return err_new(ERR_INVALID_ARGUMENT, "--ssl-certfile and --ssl-keyfile go together; %s is missing",
                       options->cert_file ? "--ssl-keyfile" : "--ssl-certfile");
    if (!options->cert_file && (options->ca_file || certs != TLS_CLIENT_CERTS_NONE))
        return err_new(ERR_INVALID_ARGUMENT,
                       "--ssl-ca-certs and --ssl-cert-reqs need --ssl-certfile and --ssl-keyfile");
    if (certs != TLS_CLIENT_CERTS_NONE && !options->ca_file)
        return err_new(ERR_INVALID_ARGUMENT, "--ssl-cert-reqs needs --ssl-ca-certs: the authorities that "
                                             "sign clients' certificates");
    if (options->n_client_names > 0 && certs == TLS_CLIENT_CERTS_NONE)
        return err_new(ERR_INVALID_ARGUMENT,
                       "--ssl-client-san needs --ssl-ca-certs, without --ssl-cert-reqs none");
    return err_ok();
}

/* Keys that travel in clear text can be read on their way: they are no authentication on a network. */
static err_t check_host(const struct access_options *options, const char *host)
{
    bool loopback;
    TRY(listen_is_loopback(host, &loopback));
    bool has_tls = options->cert_file != NULL;
    bool has_identity = options->n_api_keys > 0 || options->keys_file ||
                        client_certs_of(options) == TLS_CLIENT_CERTS_REQUIRED;
    if (loopback || options->allow_insecure_bind || (has_tls && has_identity))
        return err_ok();
    return err_new(
        ERR_INVALID_ARGUMENT,
        "--host %.64s can be reached from other machines, without %s%s%s; add %s%s%s, or put a proxy in "
        "front of 127.0.0.1, or say --allow-insecure-bind",
        host, has_tls ? "" : "TLS", has_tls || has_identity ? "" : " and ",
        has_identity ? "" : "authentication", has_tls ? "" : "--ssl-certfile and --ssl-keyfile",
        has_tls || has_identity ? "" : ", and ",
        has_identity ? "" : "--api-keys-file, --api-key or --ssl-ca-certs");
}

err_t access_check(const struct access_options *options, const char *host)
{
    TRY(check_flags(options));
    return check_host(options, host);
}

static void warn_of_keys(const struct access_options *options)
{
    if (options->api_keys_in_arguments)
        log_warn("serve", "--api-key can be read by every user of this machine in the list of processes; "
                          "BANTAM_API_KEY or --api-keys-file cannot");
    for (size_t i = 0; i < options->n_api_keys; i++)
        if (strlen(options->api_keys[i]) < SHORT_KEY_BYTES)
            log_warn("serve",
                     "API key %zu is short enough to be guessed; \"bantam keys new\" makes a good one",
                     i + 1);
}

static err_t open_identity(const struct access_options *options, struct access *access)
{
    struct identity_options identity = {
        .keys_file = options->keys_file,
        .keys = options->api_keys,
        .n_keys = options->n_api_keys,
        .client_names = options->client_names,
        .n_client_names = options->n_client_names,
        .clock = clock_monotonic(),
    };
    if (!identity.keys_file && identity.n_keys == 0 && identity.n_client_names == 0)
        return err_ok();
    warn_of_keys(options);
    return identity_open(&identity, &access->identity);
}

err_t access_open(const struct access_options *options, struct access *out)
{
    struct access access = {0};
    err_t e = err_ok();
    if (options->cert_file) {
        struct tls_options tls = {options->cert_file, options->key_file, options->ca_file,
                                  client_certs_of(options)};
        e = tls_files_open(&tls, &access.tls);
    }
    if (e.code == ERR_OK)
        e = open_identity(options, &access);
    if (e.code != ERR_OK)
        access_close(&access);
    else
        *out = access;
    return e;
}

err_t access_guard(struct access *access, struct service *service, struct service **out)
{
    *out = service;
    if (!access->identity)
        return err_ok();
    TRY(tenant_service_open(service, access->identity, &access->tenants));
    *out = tenant_service_of(access->tenants);
    return err_ok();
}

bool access_has_files(const struct access_options *options)
{
    return options->cert_file || options->keys_file;
}

void access_refresh(const struct access *access, bool in_any_case)
{
    if (access->tls)
        tls_files_refresh(access->tls, in_any_case);
    if (access->identity)
        identity_refresh(access->identity, in_any_case);
}

void access_close(struct access *access)
{
    tenant_service_close(access->tenants);
    identity_close(access->identity);
    tls_files_close(access->tls);
    *access = (struct access){0};
}
