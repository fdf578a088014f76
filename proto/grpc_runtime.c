#include "proto/grpc_runtime.h"

#include <grpc/support/log.h>
#include <stdlib.h>
#include "base/log.h"
#include "proto/grpc_mutexes.h"

/* CVE-2023-1428, -32731, -32732, -33953, -4785, rapid reset (2023-44487) and CVE-2024-7246 are all fixed from
 * core 43 (release 1.66) on. */
enum { GRPC_CORE_CURRENT_MAJOR = 43 };

/* What gRPC calls an error is mostly what a client may do to it at any time; what concerns us comes back as a
 * status or an error of ours. */
static void forward_log(gpr_log_func_args *args)
{
    log_debug("grpc", "%s", args->message);
}

void grpc_runtime_init(void)
{
    grpc_mutexes_keep_no_graph();
    gpr_set_log_function(forward_log);
    grpc_init();
}

void grpc_runtime_shutdown(void)
{
    grpc_shutdown_blocking();
}

const char *grpc_runtime_version(void)
{
    return grpc_version_string();
}

bool grpc_runtime_is_current(void)
{
    return strtol(grpc_version_string(), NULL, 10) >= GRPC_CORE_CURRENT_MAJOR;
}

static const struct {
    enum err_code code;
    grpc_status_code status;
} statuses[] = {
    {ERR_OK, GRPC_STATUS_OK},
    {ERR_CANCELLED, GRPC_STATUS_CANCELLED},
    {ERR_INVALID_ARGUMENT, GRPC_STATUS_INVALID_ARGUMENT},
    {ERR_NOT_FOUND, GRPC_STATUS_NOT_FOUND},
    {ERR_RESOURCE_EXHAUSTED, GRPC_STATUS_RESOURCE_EXHAUSTED},
    {ERR_QUOTA_EXCEEDED, GRPC_STATUS_RESOURCE_EXHAUSTED},
    {ERR_UNAUTHENTICATED, GRPC_STATUS_UNAUTHENTICATED},
    {ERR_PERMISSION_DENIED, GRPC_STATUS_PERMISSION_DENIED},
    {ERR_FAILED_PRECONDITION, GRPC_STATUS_FAILED_PRECONDITION},
    {ERR_UNIMPLEMENTED, GRPC_STATUS_UNIMPLEMENTED},
    {ERR_UNAVAILABLE, GRPC_STATUS_UNAVAILABLE},
    {ERR_DEADLINE_EXCEEDED, GRPC_STATUS_DEADLINE_EXCEEDED},
    {ERR_OUT_OF_RANGE, GRPC_STATUS_OUT_OF_RANGE},
    {ERR_DATA_LOSS, GRPC_STATUS_DATA_LOSS},
    {ERR_INTERNAL, GRPC_STATUS_INTERNAL},
};

grpc_status_code grpc_status_from_error(enum err_code code)
{
    for (size_t i = 0; i < sizeof statuses / sizeof statuses[0]; i++)
        if (statuses[i].code == code)
            return statuses[i].status;
    return GRPC_STATUS_INTERNAL;
}

enum err_code grpc_status_to_error(grpc_status_code status)
{
    for (size_t i = 0; i < sizeof statuses / sizeof statuses[0]; i++)
        if (statuses[i].status == status)
            return statuses[i].code;
    return ERR_INTERNAL;
}

const char *grpc_status_name(grpc_status_code status)
{
    if (status == GRPC_STATUS_UNKNOWN)
        return "UNKNOWN";
    return err_code_name(grpc_status_to_error(status));
}
