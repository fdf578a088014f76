/* Start and end of gRPC core in this process, shared by server and client. Block the signals that a thread
 * waits for before the first call: gRPC makes threads. Never fork after it. Any thread. */
#pragma once

#include <stdbool.h>
#include <grpc/grpc.h>
#include "base/error.h"

/* Counted. gRPC's own log lines go to ours (area "grpc"). */
void grpc_runtime_init(void);
void grpc_runtime_shutdown(void);

/* gRPC core's own version ("29.0.0" is release 1.51). */
const char *grpc_runtime_version(void);
/* False when it is older than the first version with the fixes of the known denial-of-service faults. */
bool grpc_runtime_is_current(void);

/* The gRPC status for an error, and back. */
grpc_status_code grpc_status_from_error(enum err_code code);
enum err_code grpc_status_to_error(grpc_status_code status);
const char *grpc_status_name(grpc_status_code status); /* "INVALID_ARGUMENT" */
