/* grpc.health.v1: Check, List, Watch. The heartbeat of the service's loop decides, and whether what computes
 * is lost; never a made-up request. */
#include <string.h>
#include "base/alloc.h"
#include "proto/grpc_door_internal.h"
#include "proto/grpc_health.h"
#include "proto/service_state.h"

static const char *const services[] = {"", "bantam.Bantam", "vllm.grpc.engine.VllmEngine"};
enum { N_SERVICES = sizeof services / sizeof services[0] };

bool door_is_serving(struct grpc_door *door, const char **why)
{
    struct loads loads;
    door->service->vtable->loads(door->service, &loads);
    bool drains = atomic_load(&door->draining), alive = service_is_alive(door->service);
    *why = drains         ? "the server is shutting down"
           : loads.failed ? "the device is lost"
           : alive        ? "serving"
                          : "the loop shows no life";
    return alive && !drains;
}

static enum health_status status_of(struct grpc_door *door)
{
    const char *why;
    return door_is_serving(door, &why) ? HEALTH_SERVING : HEALTH_NOT_SERVING;
}

static bool is_known(const char *service)
{
    for (size_t i = 0; i < N_SERVICES; i++)
        if (strcmp(services[i], service) == 0)
            return true;
    return false;
}

static err_t decode_service(struct rpc_call *call, char service[HEALTH_SERVICE_BYTES_MAX])
{
    size_t size_bytes;
    const uint8_t *bytes = rpc_call_payload(call, &size_bytes);
    return health_decode_request(bytes, size_bytes, service);
}

void door_health_check(void *context, struct rpc_call *call)
{
    char service[HEALTH_SERVICE_BYTES_MAX];
    err_t e = decode_service(call, service);
    if (e.code == ERR_OK && !is_known(service))
        e = err_new(ERR_NOT_FOUND, "unknown service \"%s\"; known are \"\", \"%s\" and \"%s\"", service,
                    services[1], services[2]);
    if (e.code != ERR_OK) {
        rpc_call_refuse(call, &e, RPC_NO_PUSHBACK);
        return;
    }
    uint8_t bytes[HEALTH_RESPONSE_BYTES];
    size_t size_bytes = health_encode_response(status_of(context), bytes);
    rpc_call_finish(call, bytes, size_bytes, GRPC_STATUS_OK, NULL, RPC_NO_PUSHBACK);
}

void door_health_list(void *context, struct rpc_call *call)
{
    uint8_t bytes[HEALTH_LIST_BYTES_MAX];
    size_t size_bytes = health_encode_list(services, N_SERVICES, status_of(context), bytes);
    rpc_call_finish(call, bytes, size_bytes, GRPC_STATUS_OK, NULL, RPC_NO_PUSHBACK);
}

struct health_watch {
    struct door_item item;
    bool known;
    enum health_status told; /* HEALTH_UNKNOWN = nothing yet */
};

static enum pump_result pump_health(struct flush_item *flush)
{
    struct health_watch *watch = (struct health_watch *)flush;
    struct rpc_call *call = watch->item.call;
    if (rpc_call_ended(call))
        return PUMP_DONE;
    enum health_status status = watch->known ? status_of(watch->item.door) : HEALTH_SERVICE_UNKNOWN;
    if (status != watch->told) {
        uint8_t bytes[HEALTH_RESPONSE_BYTES];
        watch->told = status;
        rpc_call_send(call, bytes, health_encode_response(status, bytes));
        return PUMP_SENDING;
    }
    if (!atomic_load(&watch->item.door->closing))
        return PUMP_IDLE;
    err_t e = err_new(ERR_UNAVAILABLE, "the server is shutting down");
    rpc_call_refuse(call, &e, RPC_NO_PUSHBACK);
    return PUMP_DONE;
}

static void destroy_watch(struct door_item *item)
{
    mem_free(item);
}

void door_health_watch(void *context, struct rpc_call *call)
{
    char service[HEALTH_SERVICE_BYTES_MAX];
    err_t e = decode_service(call, service);
    struct health_watch *watch = e.code == ERR_OK ? mem_alloc(sizeof *watch) : NULL;
    if (e.code == ERR_OK && !watch)
        e = err_new(ERR_RESOURCE_EXHAUSTED, "no memory for a watcher");
    if (e.code != ERR_OK) {
        rpc_call_refuse(call, &e, RPC_NO_PUSHBACK);
        return;
    }
    watch->known = is_known(service);
    door_item_start(&watch->item, context, call, pump_health, HEALTH_WATCH_INTERVAL_NS, destroy_watch);
}
