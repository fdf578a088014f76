/* A server's certificate, its key and the authorities of its clients, from PEM files that are read again when
 * they change. TLS 1.2 and 1.3. Both transports take what is current at each handshake; a pair that does not
 * fit is logged and the one in use stays. Any thread. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "base/error.h"

enum { TLS_FILE_BYTES_MAX = 1 << 20 };

enum tls_client_certs {
    TLS_CLIENT_CERTS_NONE,     /* none is asked for */
    TLS_CLIENT_CERTS_OPTIONAL, /* one that is shown must be good */
    TLS_CLIENT_CERTS_REQUIRED,
};

struct tls_options {
    const char *cert_file; /* the server's certificate, then its chain */
    const char *key_file;  /* without a pass phrase */
    const char *ca_file;   /* who may sign clients' certificates; NULL = nobody */
    enum tls_client_certs client_certs;
};

struct tls_files;

/* INVALID_ARGUMENT, NOT_FOUND and IO name the file. */
err_t tls_files_open(const struct tls_options *options, struct tls_files **out) ERR_MUST_CHECK;
/* Every material must have been dropped. NULL is fine. */
void tls_files_close(struct tls_files *files);
/* Reads the files again when one has changed, or in any case. */
void tls_files_refresh(struct tls_files *files, bool in_any_case);
enum tls_client_certs tls_files_client_certs(const struct tls_files *files);

struct ssl_ctx_st; /* OpenSSL's */

/* What one reading of the files gave; never changes. */
struct tls_material {
    struct ssl_ctx_st *context;        /* for a server of HTTP/1.1 */
    char *cert_pem, *key_pem, *ca_pem; /* NUL-terminated; ca_pem may be NULL */
    uint64_t generation;               /* 1 for the first reading */
    _Atomic uint32_t references;
};
/* The current one, with a reference. */
struct tls_material *tls_files_take(struct tls_files *files);
void tls_material_drop(struct tls_material *material);
