#include "proto/grpc_tls.h"

#include <stdatomic.h>
#include <grpc/grpc_security_constants.h>

/* At each handshake, on one of gRPC's threads. */
static grpc_ssl_certificate_config_reload_status fetch(void *user_data,
                                                       grpc_ssl_server_certificate_config **config)
{
    struct grpc_tls_source *source = user_data;
    struct tls_material *material = tls_files_take(source->files);
    grpc_ssl_certificate_config_reload_status status = GRPC_SSL_CERTIFICATE_CONFIG_RELOAD_UNCHANGED;
    if (atomic_exchange(&source->generation, material->generation) != material->generation) {
        grpc_ssl_pem_key_cert_pair pair = {material->key_pem, material->cert_pem};
        /* Core 1.51 aborts without authorities, though it asks no client for a certificate then. */
        const char *authorities = material->ca_pem ? material->ca_pem : material->cert_pem;
        *config = grpc_ssl_server_certificate_config_create(authorities, &pair, 1);
        status = *config ? GRPC_SSL_CERTIFICATE_CONFIG_RELOAD_NEW : GRPC_SSL_CERTIFICATE_CONFIG_RELOAD_FAIL;
    }
    tls_material_drop(material);
    return status;
}

grpc_server_credentials *grpc_tls_credentials(struct grpc_tls_source *source)
{
    static const grpc_ssl_client_certificate_request_type requests[] = {
        [TLS_CLIENT_CERTS_NONE] = GRPC_SSL_DONT_REQUEST_CLIENT_CERTIFICATE,
        [TLS_CLIENT_CERTS_OPTIONAL] = GRPC_SSL_REQUEST_CLIENT_CERTIFICATE_AND_VERIFY,
        [TLS_CLIENT_CERTS_REQUIRED] = GRPC_SSL_REQUEST_AND_REQUIRE_CLIENT_CERTIFICATE_AND_VERIFY,
    };
    grpc_ssl_server_credentials_options *options =
        grpc_ssl_server_credentials_create_options_using_config_fetcher(
            requests[tls_files_client_certs(source->files)], fetch, source);
    return options ? grpc_ssl_server_credentials_create_with_options(options) : NULL;
}

grpc_auth_context *grpc_tls_peer(grpc_call *call, struct peer_names *out)
{
    static const struct {
        const char *property;
        enum peer_name_kind kind;
    } properties[] = {
        {GRPC_PEER_DNS_PROPERTY_NAME, PEER_NAME_DNS},
        {GRPC_PEER_URI_PROPERTY_NAME, PEER_NAME_URI},
        {GRPC_PEER_EMAIL_PROPERTY_NAME, PEER_NAME_EMAIL},
    };
    *out = (struct peer_names){.n = 0};
    grpc_auth_context *context = grpc_call_auth_context(call);
    if (!context)
        return NULL;
    grpc_auth_property_iterator found =
        grpc_auth_context_find_properties_by_name(context, GRPC_X509_PEM_CERT_PROPERTY_NAME);
    out->has_certificate = grpc_auth_property_iterator_next(&found) != NULL;
    for (size_t i = 0; i < sizeof properties / sizeof properties[0]; i++) {
        const grpc_auth_property *property;
        found = grpc_auth_context_find_properties_by_name(context, properties[i].property);
        while ((property = grpc_auth_property_iterator_next(&found)) != NULL)
            peer_names_add(out, properties[i].kind, property->value, property->value_length);
    }
    return context;
}
