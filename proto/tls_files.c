#include "proto/tls_files.h"

#include <pthread.h>
#include <stdatomic.h>
#include <string.h>
#include <openssl/crypto.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/ssl.h>
#include <openssl/x509.h>
#include "base/alloc.h"
#include "base/file_stamp.h"
#include "base/log.h"
#include "base/mapped_file.h"

enum { TLS_N_FILES = 3, CHAIN_MAX = 16, AUTHORITIES_MAX = 1024 };

struct tls_files {
    char *paths[TLS_N_FILES]; /* certificate, key, authorities (NULL = none); owned */
    enum tls_client_certs client_certs;
    pthread_mutex_t refresh_mutex; /* of stamps */
    struct file_stamp stamps[TLS_N_FILES];
    pthread_mutex_t mutex; /* of material */
    struct tls_material *material;
};

/* --- reading */

/* What OpenSSL says of the last failure. */
static err_t tls_error(const char *path, const char *what)
{
    char reason[160] = "";
    unsigned long code = ERR_peek_last_error();
    if (code != 0)
        ERR_error_string_n(code, reason, sizeof reason);
    ERR_clear_error();
    return err_new(ERR_INVALID_ARGUMENT, "%s: %s%s%s", path, what, reason[0] ? ": " : "", reason);
}

/* A key with a pass phrase is refused: nobody could type it at a reload. */
static int no_pass_phrase(char *buffer, int size, int writes, void *argument)
{
    (void)buffer;
    (void)size;
    (void)writes;
    (void)argument;
    return -1;
}

static void warn_when_not_valid(const char *path, const X509 *certificate)
{
    if (X509_cmp_current_time(X509_get0_notAfter(certificate)) < 0)
        log_warn("tls", "%s: the certificate has expired; clients will refuse it", path);
    else if (X509_cmp_current_time(X509_get0_notBefore(certificate)) > 0)
        log_warn("tls", "%s: the certificate is not valid yet; clients will refuse it", path);
}

static err_t use_chain(SSL_CTX *context, const char *path, BIO *bio)
{
    X509 *certificate = PEM_read_bio_X509_AUX(bio, NULL, no_pass_phrase, NULL);
    if (!certificate)
        return tls_error(path, "no certificate in PEM can be read from it");
    warn_when_not_valid(path, certificate);
    bool used = SSL_CTX_use_certificate(context, certificate) == 1;
    X509_free(certificate);
    if (!used)
        return tls_error(path, "the certificate cannot be used");
    for (int i = 0; (certificate = PEM_read_bio_X509(bio, NULL, no_pass_phrase, NULL)) != NULL; i++)
        if (i == CHAIN_MAX || SSL_CTX_add0_chain_cert(context, certificate) != 1) {
            X509_free(certificate);
            return tls_error(path, "a certificate of the chain cannot be used");
        }
    ERR_clear_error(); /* that there are no more */
    return err_ok();
}

static err_t use_key(SSL_CTX *context, const char *path, const char *cert_path, BIO *bio)
{
    EVP_PKEY *key = PEM_read_bio_PrivateKey(bio, NULL, no_pass_phrase, NULL);
    if (!key)
        return tls_error(path, "no private key in PEM without a pass phrase can be read from it");
    bool used = SSL_CTX_use_PrivateKey(context, key) == 1 && SSL_CTX_check_private_key(context) == 1;
    EVP_PKEY_free(key);
    ERR_clear_error();
    if (!used)
        return err_new(ERR_INVALID_ARGUMENT, "%s: the key is not that of the certificate in %s", path,
                       cert_path);
    return err_ok();
}

static err_t use_authorities(SSL_CTX *context, const char *path, BIO *bio)
{
    X509_STORE *store = SSL_CTX_get_cert_store(context);
    X509 *authority;
    int n = 0;
    for (; (authority = PEM_read_bio_X509(bio, NULL, no_pass_phrase, NULL)) != NULL; n++) {
        bool added = n < AUTHORITIES_MAX && X509_STORE_add_cert(store, authority) == 1 &&
                     SSL_CTX_add_client_CA(context, authority) == 1;
        X509_free(authority);
        if (!added)
            return tls_error(path, "an authority's certificate cannot be used");
    }
    if (n == 0)
        return tls_error(path, "no certificate in PEM can be read from it");
    ERR_clear_error();
    return err_ok();
}

static int choose_protocol(SSL *ssl, const unsigned char **out, unsigned char *out_bytes,
                           const unsigned char *offered, unsigned offered_bytes, void *argument)
{
    (void)ssl;
    (void)argument;
    static const unsigned char ours[] = "\x08http/1.1";
    if (SSL_select_next_proto((unsigned char **)out, out_bytes, ours, sizeof ours - 1, offered,
                              offered_bytes) != OPENSSL_NPN_NEGOTIATED)
        return SSL_TLSEXT_ERR_ALERT_FATAL;
    return SSL_TLSEXT_ERR_OK;
}

static SSL_CTX *create_context(enum tls_client_certs client_certs)
{
    static const int verify[] = {
        [TLS_CLIENT_CERTS_NONE] = SSL_VERIFY_NONE,
        [TLS_CLIENT_CERTS_OPTIONAL] = SSL_VERIFY_PEER,
        [TLS_CLIENT_CERTS_REQUIRED] = SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT,
    };
    SSL_CTX *context = SSL_CTX_new(TLS_server_method());
    if (!context)
        return NULL;
    (void)SSL_CTX_set_min_proto_version(context, TLS1_2_VERSION);
    SSL_CTX_set_options(context, SSL_OP_NO_RENEGOTIATION | SSL_OP_NO_COMPRESSION | SSL_OP_NO_TICKET |
                                     SSL_OP_CIPHER_SERVER_PREFERENCE);
    /* No session is taken up again: a certificate that is not let in any more would come in by one. */
    SSL_CTX_set_session_cache_mode(context, SSL_SESS_CACHE_OFF);
    (void)SSL_CTX_set_num_tickets(context, 0);
    SSL_CTX_set_mode(context, SSL_MODE_RELEASE_BUFFERS);
    SSL_CTX_set_alpn_select_cb(context, choose_protocol, NULL);
    SSL_CTX_set_verify(context, verify[client_certs], NULL);
    return context;
}

static err_t use_files(const struct tls_files *files, const struct tls_material *material)
{
    const char *texts[TLS_N_FILES] = {material->cert_pem, material->key_pem, material->ca_pem};
    err_t e = err_ok();
    for (int i = 0; i < TLS_N_FILES && e.code == ERR_OK; i++) {
        if (!texts[i])
            continue;
        BIO *bio = BIO_new_mem_buf(texts[i], -1);
        if (!bio)
            return err_new(ERR_RESOURCE_EXHAUSTED, "no memory for certificates");
        if (i == 0)
            e = use_chain(material->context, files->paths[i], bio);
        else if (i == 1)
            e = use_key(material->context, files->paths[i], files->paths[0], bio);
        else
            e = use_authorities(material->context, files->paths[i], bio);
        BIO_free(bio);
    }
    return e;
}

void tls_material_drop(struct tls_material *material)
{
    if (!material || atomic_fetch_sub(&material->references, 1) > 1)
        return;
    SSL_CTX_free(material->context);
    if (material->key_pem)
        OPENSSL_cleanse(material->key_pem, strlen(material->key_pem));
    mem_free(material->cert_pem);
    mem_free(material->key_pem);
    mem_free(material->ca_pem);
    mem_free(material);
}

static err_t read_files(const struct tls_files *files, struct tls_material **out)
{
    struct tls_material *material = mem_alloc(sizeof *material);
    if (!material)
        return err_new(ERR_RESOURCE_EXHAUSTED, "no memory for certificates");
    atomic_init(&material->references, 1);
    char **texts[TLS_N_FILES] = {&material->cert_pem, &material->key_pem, &material->ca_pem};
    err_t e = err_ok();
    size_t size_bytes;
    for (int i = 0; i < TLS_N_FILES && e.code == ERR_OK; i++)
        if (files->paths[i])
            e = file_read(files->paths[i], TLS_FILE_BYTES_MAX, texts[i], &size_bytes);
    material->context = create_context(files->client_certs);
    if (e.code == ERR_OK && !material->context)
        e = err_new(ERR_RESOURCE_EXHAUSTED, "no memory for certificates");
    if (e.code == ERR_OK)
        e = use_files(files, material);
    if (e.code != ERR_OK) {
        tls_material_drop(material);
        return e;
    }
    *out = material;
    return e;
}

/* --- the current one */

static bool look_for_changes(struct tls_files *files)
{
    bool changed = false;
    for (int i = 0; i < TLS_N_FILES; i++) {
        struct file_stamp now = file_stamp_read(files->paths[i]);
        changed = changed || !file_stamp_equal(&now, &files->stamps[i]);
        files->stamps[i] = now;
    }
    return changed;
}

static void put_material(struct tls_files *files, struct tls_material *material)
{
    pthread_mutex_lock(&files->mutex);
    struct tls_material *old = files->material;
    material->generation = old ? old->generation + 1 : 1;
    files->material = material;
    pthread_mutex_unlock(&files->mutex);
    tls_material_drop(old);
}

void tls_files_refresh(struct tls_files *files, bool in_any_case)
{
    pthread_mutex_lock(&files->refresh_mutex);
    bool changed = look_for_changes(files);
    struct tls_material *material = NULL;
    if (changed || in_any_case) {
        err_t e = read_files(files, &material);
        if (e.code == ERR_OK) {
            put_material(files, material);
            log_info("tls", "read the certificate in %s again", files->paths[0]);
        } else {
            log_error("tls", "the certificate in use stays: %s", e.message);
        }
    }
    pthread_mutex_unlock(&files->refresh_mutex);
}

struct tls_material *tls_files_take(struct tls_files *files)
{
    pthread_mutex_lock(&files->mutex);
    struct tls_material *material = files->material;
    atomic_fetch_add(&material->references, 1);
    pthread_mutex_unlock(&files->mutex);
    return material;
}

enum tls_client_certs tls_files_client_certs(const struct tls_files *files)
{
    return files->client_certs;
}

static err_t keep_paths(const struct tls_options *options, struct tls_files *files)
{
    const char *paths[TLS_N_FILES] = {options->cert_file, options->key_file, options->ca_file};
    for (int i = 0; i < TLS_N_FILES; i++) {
        if (!paths[i])
            continue;
        files->paths[i] = mem_strdup(paths[i]);
        if (!files->paths[i])
            return err_new(ERR_RESOURCE_EXHAUSTED, "no memory for certificates");
    }
    return err_ok();
}

err_t tls_files_open(const struct tls_options *options, struct tls_files **out)
{
    struct tls_files *files = mem_alloc(sizeof *files);
    if (!files)
        return err_new(ERR_RESOURCE_EXHAUSTED, "no memory for certificates");
    files->client_certs = options->client_certs;
    pthread_mutex_init(&files->refresh_mutex, NULL);
    pthread_mutex_init(&files->mutex, NULL);
    struct tls_material *material;
    err_t e = keep_paths(options, files);
    if (e.code == ERR_OK) {
        (void)look_for_changes(files);
        e = read_files(files, &material);
    }
    if (e.code != ERR_OK) {
        tls_files_close(files);
        return e;
    }
    put_material(files, material);
    *out = files;
    return e;
}

void tls_files_close(struct tls_files *files)
{
    if (!files)
        return;
    tls_material_drop(files->material);
    for (int i = 0; i < TLS_N_FILES; i++)
        mem_free(files->paths[i]);
    pthread_mutex_destroy(&files->mutex);
    pthread_mutex_destroy(&files->refresh_mutex);
    mem_free(files);
}
