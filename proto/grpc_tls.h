/* TLS of the gRPC transport: credentials that follow tls_files.h, and what a call's client has shown. */
#pragma once

#include <grpc/grpc_security.h>
#include "proto/peer_names.h"
#include "proto/tls_files.h"

/* How gRPC asks for what is current; must outlive the server. */
struct grpc_tls_source {
    struct tls_files *files; /* borrowed */
    _Atomic uint64_t generation;
};

/* NULL when gRPC refuses them. The caller releases them. */
grpc_server_credentials *grpc_tls_credentials(struct grpc_tls_source *source);
/* The names point into the context, which the caller releases (grpc_auth_context_release). */
grpc_auth_context *grpc_tls_peer(grpc_call *call, struct peer_names *out);
