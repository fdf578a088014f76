#include "tests/proto/cert_maker.h"

#include <stdio.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>
#include "base/alloc.h"
#include "base/assert.h"

enum { HOUR_S = 3600 };

struct cert_authority {
    EVP_PKEY *key;
    X509 *certificate;
};

static void add_extension(X509 *certificate, X509 *issuer, int nid, const char *value)
{
    X509V3_CTX context;
    X509V3_set_ctx_nodb(&context);
    X509V3_set_ctx(&context, issuer, certificate, NULL, NULL, 0);
    X509_EXTENSION *extension = X509V3_EXT_conf_nid(NULL, &context, nid, value);
    ASSERT(extension);
    int added = X509_add_ext(certificate, extension, -1);
    ASSERT(added == 1);
    X509_EXTENSION_free(extension);
}

/* issuer NULL: signed by itself. */
static X509 *make(EVP_PKEY *key, const char *name, long seconds, const struct cert_authority *issuer)
{
    static long serial;
    X509 *certificate = X509_new();
    ASSERT(certificate && key);
    (void)X509_set_version(certificate, X509_VERSION_3);
    (void)ASN1_INTEGER_set(X509_get_serialNumber(certificate), ++serial);
    (void)X509_gmtime_adj(X509_getm_notBefore(certificate), -HOUR_S);
    (void)X509_gmtime_adj(X509_getm_notAfter(certificate), seconds);
    (void)X509_set_pubkey(certificate, key);
    X509_NAME *subject = X509_get_subject_name(certificate);
    (void)X509_NAME_add_entry_by_txt(subject, "CN", MBSTRING_ASC, (const unsigned char *)name, -1, -1, 0);
    (void)X509_set_issuer_name(certificate, issuer ? X509_get_subject_name(issuer->certificate) : subject);
    return certificate;
}

static void sign(X509 *certificate, EVP_PKEY *key)
{
    int size = X509_sign(certificate, key, EVP_sha256());
    ASSERT(size > 0);
}

struct cert_authority *cert_authority_make(void)
{
    struct cert_authority *authority = mem_alloc(sizeof *authority);
    ASSERT(authority);
    authority->key = EVP_EC_gen("P-256");
    authority->certificate = make(authority->key, "authority", HOUR_S, NULL);
    add_extension(authority->certificate, authority->certificate, NID_basic_constraints, "critical,CA:TRUE");
    sign(authority->certificate, authority->key);
    return authority;
}

void cert_authority_free(struct cert_authority *authority)
{
    EVP_PKEY_free(authority->key);
    X509_free(authority->certificate);
    mem_free(authority);
}

static FILE *open_file(const char *path)
{
    FILE *file = fopen(path, "we");
    ASSERT(file);
    return file;
}

static void write_certificate(const char *path, X509 *certificate)
{
    FILE *file = open_file(path);
    int written = PEM_write_X509(file, certificate);
    ASSERT(written == 1);
    (void)fclose(file);
}

void cert_authority_write(const struct cert_authority *authority, const char *cert_path)
{
    write_certificate(cert_path, authority->certificate);
}

void cert_make(const struct cert_authority *authority, const char *alternatives, long seconds,
               const char *cert_path, const char *key_path)
{
    EVP_PKEY *key = EVP_EC_gen("P-256");
    X509 *certificate = make(key, "leaf", seconds, authority);
    if (alternatives)
        add_extension(certificate, authority->certificate, NID_subject_alt_name, alternatives);
    sign(certificate, authority->key);
    write_certificate(cert_path, certificate);
    FILE *file = open_file(key_path);
    int written = PEM_write_PrivateKey(file, key, NULL, NULL, 0, NULL, NULL);
    ASSERT(written == 1);
    (void)fclose(file);
    X509_free(certificate);
    EVP_PKEY_free(key);
}
