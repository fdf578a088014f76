#include "proto/grpc_door.h"

#include <string.h>
#include "base/alloc.h"
#include "base/assert.h"
#include "proto/grpc_door_internal.h"
#include "proto/grpc_runtime.h"
#include "proto/listen_drain.h"

#define CLOSE_GRACE_NS INT64_C(1000000000) /* for the last statuses to reach clients that read */

static const struct rpc_method methods[] = {
    {"/bantam.Bantam/Generate", true, door_generate},
    {"/bantam.Bantam/GenerateWhole", true, door_generate_whole},
    {"/bantam.Bantam/Tokenize", true, door_tokenize},
    {"/bantam.Bantam/Detokenize", true, door_detokenize},
    {"/bantam.Bantam/Abort", false, door_abort},
    {"/bantam.Bantam/ModelInfo", false, door_model_info},
    {"/bantam.Bantam/ServerInfo", false, door_server_info},
    {"/bantam.Bantam/GetLoads", false, door_get_loads},
    {"/bantam.Bantam/WatchLoads", false, door_watch_loads},
    {"/grpc.health.v1.Health/Check", false, door_health_check},
    {"/grpc.health.v1.Health/List", false, door_health_list},
    {"/grpc.health.v1.Health/Watch", false, door_health_watch},
    {"/xds.service.orca.v3.OpenRcaService/StreamCoreMetrics", false, door_stream_core_metrics},
};

struct grpc_door_options grpc_door_options_default(void)
{
    return (struct grpc_door_options){
        .host = "127.0.0.1",
        .port = 50051,
        .version = "",
        .n_queue_threads = 2,
        .n_worker_threads = 2,
        .max_message_bytes = 4 << 20,
        .max_pending_bytes = 256 << 20,
        .max_metadata_bytes = 16 << 10,
        .max_streams = 1024,
        .max_calls = 4096,
        .memory_quota_bytes = 1 << 30,
        .keepalive_time_ms = 30000,
        .keepalive_timeout_ms = 20000,
    };
}

/* --- streaming calls */

static void let_go_of_item(struct flush_item *flush)
{
    rpc_call_unref(((struct door_item *)flush)->call);
}

void door_item_start(struct door_item *item, struct grpc_door *door, struct rpc_call *call,
                     enum pump_result (*pump)(struct flush_item *item), int64_t interval_ns,
                     void (*destroy)(struct door_item *item))
{
    item->door = door;
    item->call = call;
    item->destroy = destroy;
    item->flush.pump = pump;
    item->flush.let_go = let_go_of_item;
    item->flush.interval_ns = interval_ns;
    rpc_call_ref(call); /* the flusher's */
    rpc_call_set_user(call, item);
    flusher_add(door->flusher, &item->flush);
}

static void on_sent(void *context, struct rpc_call *call)
{
    struct grpc_door *door = context;
    struct door_item *item = rpc_call_user(call);
    flush_item_sent(door->flusher, &item->flush);
}

static void on_ended(void *context, struct rpc_call *call)
{
    struct grpc_door *door = context;
    struct door_item *item = rpc_call_user(call);
    flush_item_pump(door->flusher, &item->flush);
}

static void on_free(void *context, void *user)
{
    (void)context;
    struct door_item *item = user;
    item->destroy(item);
}

/* --- opening, draining, closing */

static int64_t service_now(void *context)
{
    struct service *service = context;
    return service->vtable->now_ns(service);
}

static err_t open_server(struct grpc_door *door)
{
    const struct grpc_door_options *options = &door->options;
    struct rpc_server_options server_options = {
        .host = options->host,
        .port = options->port,
        .n_queue_threads = options->n_queue_threads,
        .n_worker_threads = options->n_worker_threads,
        .max_message_bytes = options->max_message_bytes,
        .max_pending_bytes = options->max_pending_bytes,
        .max_metadata_bytes = options->max_metadata_bytes,
        .max_streams = options->max_streams,
        .max_calls = options->max_calls,
        .memory_quota_bytes = options->memory_quota_bytes,
        .keepalive_time_ms = options->keepalive_time_ms,
        .keepalive_timeout_ms = options->keepalive_timeout_ms,
        .max_connection_age_ms = options->max_connection_age_ms,
        .max_connection_age_grace_ms = options->max_connection_age_grace_ms,
        .metrics = door->metrics,
        .methods = methods,
        .n_methods = sizeof methods / sizeof methods[0],
        .context = door,
        .on_sent = on_sent,
        .on_ended = on_ended,
        .on_free = on_free,
        .before_finish = door_add_trailers,
    };
    return rpc_server_open(&server_options, &door->server);
}

static err_t check_options(const struct grpc_door_options *options)
{
    if (options->n_queue_threads < 1 || options->n_queue_threads > RPC_THREADS_MAX ||
        options->n_worker_threads < 1 || options->n_worker_threads > RPC_THREADS_MAX)
        return err_new(ERR_INVALID_ARGUMENT, "the gRPC door takes 1 to %d threads of each kind",
                       RPC_THREADS_MAX);
    if (options->max_message_bytes < 1024 || options->max_message_bytes > 1 << 30)
        return err_new(ERR_INVALID_ARGUMENT, "a limit of %zu bytes a message; it must be 1 KiB to 1 GiB",
                       options->max_message_bytes);
    return err_ok();
}

err_t grpc_door_open(struct service *service, const struct grpc_door_options *options, struct grpc_door **out)
{
    TRY(check_options(options));
    struct grpc_door *door = mem_alloc(sizeof *door);
    if (!door)
        return err_new(ERR_RESOURCE_EXHAUSTED, "no memory for the gRPC door");
    door->service = service;
    door->options = *options;
    door->clock = (struct clock){service_now, service};
    door->opened_ns = clock_now_ns(&door->clock);
    door->metrics = service->vtable->metrics(service);
    load_meter_init(&door->load_meter, service);
    err_t e = flusher_create(service->vtable->progress(service), clock_monotonic(), &door->flusher);
    if (e.code == ERR_OK)
        e = open_server(door);
    if (e.code != ERR_OK) {
        flusher_destroy(door->flusher);
        mem_free(door);
        return e;
    }
    *out = door;
    return err_ok();
}

uint16_t grpc_door_port(const struct grpc_door *door)
{
    return rpc_server_port(door->server);
}

uint32_t grpc_door_active(const struct grpc_door *door)
{
    return atomic_load(&((struct grpc_door *)door)->n_active);
}

void grpc_door_not_ready(struct grpc_door *door)
{
    if (!atomic_exchange(&door->draining, true))
        flusher_pump_all(door->flusher);
}

void grpc_door_hold_connections(struct grpc_door *door)
{
    listen_hold(rpc_server_port(door->server));
}

uint32_t grpc_door_pending_connections(const struct grpc_door *door)
{
    return listen_pending(rpc_server_port(door->server));
}

void grpc_door_refuse_connections(struct grpc_door *door)
{
    listen_refuse(rpc_server_port(door->server));
}

void grpc_door_drain(struct grpc_door *door, struct event_count *idle)
{
    atomic_store(&door->idle, idle);
    grpc_door_not_ready(door); /* health watchers hear of it before the connections do */
    rpc_server_shutdown(door->server);
}

void grpc_door_close(struct grpc_door *door)
{
    if (!door)
        return;
    atomic_store(&door->draining, true);
    atomic_store(&door->closing, true);
    rpc_server_shutdown(door->server);
    flusher_pump_all(door->flusher);
    (void)rpc_server_wait(door->server, CLOSE_GRACE_NS);
    rpc_server_stop(door->server);
    ASSERT(atomic_load(&door->n_active) == 0);
    flusher_destroy(door->flusher); /* gives its calls back */
    rpc_server_close(door->server);
    mem_free(door);
}

/* --- calls with one answer */

/* Refuses for e, or answers with bytes. */
static void answer(struct rpc_call *call, const err_t *e, struct codec_bytes bytes)
{
    if (e->code != ERR_OK)
        rpc_call_refuse(call, e, RPC_NO_PUSHBACK);
    else
        rpc_call_finish(call, bytes.data, bytes.size, GRPC_STATUS_OK, NULL, RPC_NO_PUSHBACK);
}

void door_tokenize(void *context, struct rpc_call *call)
{
    struct grpc_door *door = context;
    struct codec_scratch scratch = {0};
    struct codec_bytes bytes = {0};
    struct request request;
    uint32_t *ids = NULL;
    size_t n_ids = 0, size_bytes;
    const uint8_t *payload = rpc_call_payload(call, &size_bytes);
    err_t e = codec_decode_tokenize(payload, size_bytes, &scratch, &request);
    if (e.code == ERR_OK)
        e = door->service->vtable->tokenize(door->service, &request, &ids, &n_ids);
    if (e.code == ERR_OK)
        bytes = codec_encode_token_ids(ids, n_ids);
    answer(call, &e, bytes);
    mem_free(ids);
    codec_scratch_free(&scratch);
}

void door_detokenize(void *context, struct rpc_call *call)
{
    struct grpc_door *door = context;
    struct codec_scratch scratch = {0};
    struct codec_bytes bytes = {0};
    struct detokenize_request request;
    struct buffer text = {.limit_bytes = WHOLE_ANSWER_BYTES_MAX};
    size_t size_bytes;
    const uint8_t *payload = rpc_call_payload(call, &size_bytes);
    err_t e = codec_decode_detokenize(payload, size_bytes, &scratch, &request);
    if (e.code == ERR_OK)
        e = door->service->vtable->detokenize(door->service, request.token_ids, request.n_token_ids,
                                              request.skip_special_tokens, &text);
    if (e.code == ERR_OK)
        bytes = codec_encode_text(text.data, text.size);
    answer(call, &e, bytes);
    buffer_free(&text);
    codec_scratch_free(&scratch);
}

void door_abort(void *context, struct rpc_call *call)
{
    struct grpc_door *door = context;
    struct codec_scratch scratch = {0};
    struct codec_bytes bytes = {0};
    struct abort_request request;
    bool aborted[CODEC_ABORT_IDS_MAX];
    size_t size_bytes;
    const uint8_t *payload = rpc_call_payload(call, &size_bytes);
    err_t e = codec_decode_abort(payload, size_bytes, &scratch, &request);
    if (e.code == ERR_OK) {
        for (size_t i = 0; i < request.n_request_ids; i++)
            aborted[i] = door->service->vtable->abort(door->service, "", request.request_ids[i]);
        bytes = codec_encode_aborted(aborted, request.n_request_ids);
    }
    answer(call, &e, bytes);
    codec_scratch_free(&scratch);
}

static err_t decode_empty(struct rpc_call *call)
{
    struct codec_scratch scratch = {0};
    size_t size_bytes;
    const uint8_t *payload = rpc_call_payload(call, &size_bytes);
    err_t e = codec_decode_empty(payload, size_bytes, &scratch);
    codec_scratch_free(&scratch);
    return e;
}

void door_model_info(void *context, struct rpc_call *call)
{
    struct grpc_door *door = context;
    err_t e = decode_empty(call);
    answer(call, &e, codec_encode_model_info(door->service->vtable->model_info(door->service)));
}

void door_server_info(void *context, struct rpc_call *call)
{
    struct grpc_door *door = context;
    err_t e = decode_empty(call);
    struct server_info info = {
        .version = door->options.version,
        .grpc_version = grpc_runtime_version(),
        .uptime_seconds = (double)(clock_now_ns(&door->clock) - door->opened_ns) * 1e-9,
        .active_requests = grpc_door_active(door),
        .max_message_bytes = door->options.max_message_bytes,
        .draining = atomic_load(&door->draining),
    };
    answer(call, &e, codec_encode_server_info(&info));
}

void door_get_loads(void *context, struct rpc_call *call)
{
    struct grpc_door *door = context;
    err_t e = decode_empty(call);
    struct loads loads;
    door->service->vtable->loads(door->service, &loads);
    answer(call, &e, codec_encode_loads(&loads));
}

/* --- WatchLoads */

struct loads_watch {
    struct door_item item;
    int64_t due_ns; /* of the next message */
    int64_t interval_ns;
};

static enum pump_result pump_loads(struct flush_item *flush)
{
    struct loads_watch *watch = (struct loads_watch *)flush;
    struct grpc_door *door = watch->item.door;
    if (rpc_call_ended(watch->item.call))
        return PUMP_DONE;
    if (atomic_load(&door->closing)) {
        err_t e = err_new(ERR_UNAVAILABLE, "the server is shutting down");
        rpc_call_refuse(watch->item.call, &e, RPC_NO_PUSHBACK);
        return PUMP_DONE;
    }
    int64_t now_ns = clock_now_ns(clock_monotonic());
    if (now_ns < watch->due_ns)
        return PUMP_IDLE;
    watch->due_ns = now_ns + watch->interval_ns;
    struct loads loads;
    door->service->vtable->loads(door->service, &loads);
    struct codec_bytes bytes = codec_encode_loads(&loads);
    rpc_call_send(watch->item.call, bytes.data, bytes.size);
    return PUMP_SENDING;
}

static void destroy_plain_item(struct door_item *item)
{
    mem_free(item);
}

void door_watch_loads(void *context, struct rpc_call *call)
{
    struct grpc_door *door = context;
    struct codec_scratch scratch = {0};
    uint32_t interval_ms = 0;
    size_t size_bytes;
    const uint8_t *payload = rpc_call_payload(call, &size_bytes);
    err_t e = codec_decode_watch_loads(payload, size_bytes, &scratch, &interval_ms);
    codec_scratch_free(&scratch);
    struct loads_watch *watch = e.code == ERR_OK ? mem_alloc(sizeof *watch) : NULL;
    if (e.code == ERR_OK && !watch)
        e = err_new(ERR_RESOURCE_EXHAUSTED, "no memory for a watcher");
    if (e.code != ERR_OK) {
        rpc_call_refuse(call, &e, RPC_NO_PUSHBACK);
        return;
    }
    watch->interval_ns = (int64_t)interval_ms * 1000000;
    door_item_start(&watch->item, door, call, pump_loads, watch->interval_ns, destroy_plain_item);
}
