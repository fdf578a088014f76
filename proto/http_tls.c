/* TLS of the HTTP transport, by libevent's bufferevents over OpenSSL. */
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>
#include <event2/bufferevent_ssl.h>
#include <string.h>
#include "base/alloc.h"
#include "base/log.h"
#include "proto/http_server_internal.h"
#include "proto/tls_files.h"

/* Callbacks come from the loop, never out of a read or write of ours: libevent reads on inside of
 * evbuffer_drain when a watermark is no longer reached. */
enum { STREAM_OPTIONS = BEV_OPT_CLOSE_ON_FREE | BEV_OPT_DEFER_CALLBACKS };

struct http_peer {
    struct peer_names names; /* into `alternatives` */
    GENERAL_NAMES *alternatives;
};

struct bufferevent *http_tls_accept(struct http_server *server, struct event_base *base, int fd)
{
    struct tls_material *material = tls_files_take(server->options.tls);
    SSL *ssl = SSL_new(material->context);
    tls_material_drop(material);
    if (!ssl)
        return NULL;
    struct bufferevent *stream =
        bufferevent_openssl_socket_new(base, fd, ssl, BUFFEREVENT_SSL_ACCEPTING, STREAM_OPTIONS);
    if (!stream)
        SSL_free(ssl);
    return stream;
}

static void add_name(const GENERAL_NAME *name, struct peer_names *out)
{
    enum peer_name_kind kind;
    if (name->type == GEN_DNS)
        kind = PEER_NAME_DNS;
    else if (name->type == GEN_URI)
        kind = PEER_NAME_URI;
    else if (name->type == GEN_EMAIL)
        kind = PEER_NAME_EMAIL;
    else
        return;
    peer_names_add(out, kind, (const char *)ASN1_STRING_get0_data(name->d.ia5),
                   (size_t)ASN1_STRING_length(name->d.ia5));
}

struct http_peer *http_tls_peer(struct bufferevent *stream)
{
    SSL *ssl = bufferevent_openssl_get_ssl(stream);
    X509 *certificate = SSL_get0_peer_certificate(ssl);
    if (!certificate || SSL_get_verify_result(ssl) != X509_V_OK)
        return NULL;
    struct http_peer *peer = mem_alloc(sizeof *peer);
    if (!peer)
        return NULL;
    peer->names.has_certificate = true;
    peer->alternatives = X509_get_ext_d2i(certificate, NID_subject_alt_name, NULL, NULL);
    for (int i = 0; peer->alternatives && i < sk_GENERAL_NAME_num(peer->alternatives); i++)
        add_name(sk_GENERAL_NAME_value(peer->alternatives, i), &peer->names);
    ERR_clear_error();
    return peer;
}

void http_peer_free(struct http_peer *peer)
{
    if (!peer)
        return;
    GENERAL_NAMES_free(peer->alternatives);
    mem_free(peer);
}

const struct peer_names *http_peer_names(const struct http_peer *peer)
{
    return peer ? &peer->names : NULL;
}

void http_tls_say_end(struct bufferevent *stream)
{
    SSL *ssl = bufferevent_openssl_get_ssl(stream);
    if (!ssl || !SSL_is_init_finished(ssl))
        return;
    (void)SSL_shutdown(ssl);
    ERR_clear_error(); /* or the next connection of this thread would be taken for failed */
}

void http_tls_log_failure(struct bufferevent *stream)
{
    unsigned long code = bufferevent_get_openssl_error(stream);
    char reason[160];
    if (code == 0)
        return;
    ERR_error_string_n(code, reason, sizeof reason);
    log_debug("http", "TLS: %s", reason);
}
