/* ORCA over gRPC: each answer's trailers, and xds.service.orca.v3.OpenRcaService/StreamCoreMetrics. */
#include <string.h>
#include "base/alloc.h"
#include "proto/grpc_door_internal.h"
#include "proto/orca_report.h"
#include "proto/route_headers.h"

/* gRPC's C core takes the first one for its own balancers and hides it from applications: our router reads
 * the second. */
#define ORCA_TRAILER "endpoint-load-metrics-bin"
#define OWN_TRAILER  "x-bantam-load-bin"

void door_add_trailers(void *context, struct rpc_call *call, grpc_status_code status)
{
    struct grpc_door *door = context;
    if (status == GRPC_STATUS_UNAUTHENTICATED || status == GRPC_STATUS_PERMISSION_DENIED)
        return; /* how loaded we are is nothing for strangers */
    const char *path = rpc_call_path(call);
    if (strncmp(path, "/bantam.", 8) != 0 && strncmp(path, "/vllm.", 6) != 0)
        return; /* health, reflection: balancers ask them often */
    uint8_t bytes[ORCA_REPORT_BYTES_MAX];
    struct orca_report report;
    load_meter_read(&door->load_meter, true, &report);
    size_t size_bytes = orca_report_encode(&report, bytes);
    rpc_call_add_trailer(call, ORCA_TRAILER, bytes, size_bytes);
    rpc_call_add_trailer(call, OWN_TRAILER, bytes, size_bytes);
    const char *model = door->service->vtable->model_info(door->service)->model;
    rpc_call_add_trailer(call, ROUTE_MODEL, model, strlen(model));
}

static bool send_report(struct door_watch *watch)
{
    uint8_t bytes[ORCA_REPORT_BYTES_MAX];
    struct orca_report report;
    load_meter_read(&watch->item.door->load_meter, false, &report);
    rpc_call_send(watch->item.call, bytes, orca_report_encode(&report, bytes));
    return true;
}

void door_stream_core_metrics(void *context, struct rpc_call *call)
{
    int64_t interval_ms = 0;
    size_t size_bytes;
    const uint8_t *bytes = rpc_call_payload(call, &size_bytes);
    err_t e = orca_request_decode(bytes, size_bytes, &interval_ms);
    door_watch_start(context, call, e, interval_ms, send_report);
}
