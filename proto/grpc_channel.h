/* A client's channel: options as gRPC core takes them. */
#pragma once

#include <grpc/grpc.h>
#include "proto/grpc_client.h"

/* Between grpc_runtime_init and its end; the caller destroys *out. INVALID_ARGUMENT: TLS that gRPC refuses.
 */
err_t grpc_channel_open(const char *target, const struct grpc_client_options *options,
                        grpc_channel **out) ERR_MUST_CHECK;
