#include "proto/grpc_door.h"

#include <string.h>
#include <time.h>
#include "base/alloc.h"
#include "base/assert.h"
#include "base/thread_pool.h"
#include "proto/codec_flatbuffers.h"
#include "proto/grpc_door_internal.h"
#include "proto/grpc_runtime.h"
#include "proto/listen_drain.h"
#include "proto/service_state.h"
#include "proto/wire_schemas.h"

#define NS_PER_MS      INT64_C(1000000)
#define CLOSE_GRACE_NS INT64_C(1000000000) /* for the last statuses to reach clients that read */

#define NATIVE(name, heavy, handler, for_whom)                                                               \
    {                                                                                                        \
        "/bantam.Bantam/" name, heavy, handler, .data = &door_codec_flatbuffers, .access = for_whom          \
    }
#define FACADE(name, heavy, handler, for_whom)                                                               \
    {                                                                                                        \
        "/vllm.grpc.engine.VllmEngine/" name, heavy, handler, .data = &door_codec_protobuf,                  \
                                                              .access = for_whom                             \
    }
#define FACADE_WITHOUT(name, why)                                                                            \
    {                                                                                                        \
        "/vllm.grpc.engine.VllmEngine/" name, false, door_unimplemented,                                     \
            .data = name " is not supported: " why                                                           \
    }
#define REFLECTION(version)                                                                                  \
    {                                                                                                        \
        "/grpc.reflection." version ".ServerReflection/ServerReflectionInfo", false, door_reflect,           \
            .streams_in = true                                                                               \
    }

/* Without a word on access: for callers. Loads tell of what all tenants do, and how often prefixes are found.
 */
static const struct rpc_method methods[] = {
    NATIVE("Generate", true, door_generate, RPC_FOR_CALLERS),
    NATIVE("GenerateWhole", true, door_generate_whole, RPC_FOR_CALLERS),
    NATIVE("Tokenize", true, door_tokenize, RPC_FOR_CALLERS),
    NATIVE("Detokenize", true, door_detokenize, RPC_FOR_CALLERS),
    NATIVE("Abort", false, door_abort, RPC_FOR_CALLERS),
    NATIVE("ModelInfo", false, door_model_info, RPC_FOR_CALLERS),
    NATIVE("ServerInfo", false, door_server_info, RPC_FOR_CALLERS),
    NATIVE("GetLoads", false, door_get_loads, RPC_FOR_ADMINS),
    NATIVE("WatchLoads", false, door_watch_loads, RPC_FOR_ADMINS),
    NATIVE("SubscribeKvEvents", true, door_subscribe_kv, RPC_FOR_CALLERS),
    NATIVE("GetSchema", false, door_get_schema, RPC_FOR_CALLERS),
    FACADE("Generate", true, door_generate, RPC_FOR_CALLERS),
    FACADE("Abort", false, door_abort, RPC_FOR_CALLERS),
    FACADE("HealthCheck", false, door_health_answer, RPC_FOR_EVERYONE),
    FACADE("GetModelInfo", false, door_model_info, RPC_FOR_CALLERS),
    FACADE("GetServerInfo", false, door_server_info, RPC_FOR_CALLERS),
    FACADE("GetLoads", false, door_get_loads, RPC_FOR_ADMINS),
    FACADE("SubscribeKvEvents", true, door_subscribe_kv, RPC_FOR_CALLERS),
    {"/vllm.grpc.engine.VllmEngine/GetTokenizer", false, door_get_tokenizer, .data = &door_codec_protobuf,
     .slow = true},
    FACADE_WITHOUT("Embed", "this model generates and has no pooled output"),
    FACADE_WITHOUT("FlushCache", "the prefix cache empties itself as blocks are needed"),
    FACADE_WITHOUT("StartProfile", "there is no profiler in the server; bantam bench measures"),
    FACADE_WITHOUT("StopProfile", "there is no profiler in the server; bantam bench measures"),
    {"/bantam.v1.Loads/WatchLoads", false, door_watch_loads, .data = &door_codec_protobuf,
     .access = RPC_FOR_ADMINS},
    REFLECTION("v1"),
    REFLECTION("v1alpha"),
    {"/grpc.health.v1.Health/Check", .handle = door_health_check, .access = RPC_FOR_EVERYONE},
    {"/grpc.health.v1.Health/List", .handle = door_health_list, .access = RPC_FOR_EVERYONE},
    {"/grpc.health.v1.Health/Watch", .handle = door_health_watch, .access = RPC_FOR_EVERYONE},
    {"/xds.service.orca.v3.OpenRcaService/StreamCoreMetrics", .handle = door_stream_core_metrics},
};

/* On two CPUs a second thread brings more wake-ups than work. */
static int default_queue_threads(void)
{
    return usable_cpu_count() <= 2 ? 1 : 2;
}

struct grpc_door_options grpc_door_options_default(void)
{
    return (struct grpc_door_options){
        .host = "127.0.0.1",
        .port = 50051,
        .version = "",
        .n_queue_threads = default_queue_threads(),
        .n_worker_threads = 2,
        .max_message_bytes = 4 << 20,
        .max_pending_bytes = 256 << 20,
        .max_metadata_bytes = 16 << 10,
        .max_connections = 4096,
        .max_streams = 1024,
        .max_calls = 4096,
        .memory_quota_bytes = 1 << 30,
        .keepalive_time_ms = 30000,
        .keepalive_timeout_ms = 20000,
        .handshake_timeout_ms = 10000,
        .send_timeout_ms = 60000,
    };
}

/* --- streaming calls */

static void let_go_of_item(struct flush_item *flush)
{
    rpc_call_unref(((struct door_item *)flush)->call);
}

void door_item_hold(struct flush_item *flush)
{
    rpc_call_ref(((struct door_item *)flush)->call);
}

void door_item_fill(struct door_item *item, struct grpc_door *door, struct rpc_call *call,
                    enum pump_result (*pump)(struct flush_item *item),
                    void (*destroy)(struct door_item *item))
{
    item->door = door;
    item->call = call;
    item->destroy = destroy;
    item->flush.pump = pump;
    item->flush.let_go = let_go_of_item;
}

void door_item_add(struct door_item *item, int64_t interval_ns)
{
    item->flush.interval_ns = interval_ns;
    rpc_call_ref(item->call); /* the flusher's */
    rpc_call_set_user(item->call, item);
    flusher_add(item->door->flusher, &item->flush);
}

void door_item_start(struct door_item *item, struct grpc_door *door, struct rpc_call *call,
                     enum pump_result (*pump)(struct flush_item *item), int64_t interval_ns,
                     void (*destroy)(struct door_item *item))
{
    door_item_fill(item, door, call, pump, destroy);
    door_item_add(item, interval_ns);
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

static void on_received(void *context, struct rpc_call *call)
{
    door_reflect_received(context, call);
}

static void on_free(void *context, void *user)
{
    (void)context;
    struct door_item *item = user;
    item->destroy(item);
}

/* --- answers that nobody takes */

static enum pump_result pump_sweep(struct flush_item *flush)
{
    struct grpc_door *door = ((struct door_sweep *)flush)->door;
    if (atomic_load(&door->closing))
        return PUMP_DONE;
    uint32_t n_cut = rpc_server_cut_slow(door->server, door->options.send_timeout_ms * NS_PER_MS);
    metric_add(&door->metrics->slow_reader_cuts[0], n_cut);
    return PUMP_IDLE;
}

static void let_go_of_sweep(struct flush_item *flush)
{
    (void)flush;
}

static void start_sweep(struct grpc_door *door)
{
    int64_t interval_ns = door->options.send_timeout_ms * NS_PER_MS / 8;
    door->sweep.door = door;
    door->sweep.flush.pump = pump_sweep;
    door->sweep.flush.let_go = let_go_of_sweep;
    door->sweep.flush.interval_ns = interval_ns < NS_PER_MS ? NS_PER_MS : interval_ns;
    flusher_add(door->flusher, &door->sweep.flush);
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
        .tls = options->tls,
        .identity = options->identity,
        .port = options->port,
        .n_queue_threads = options->n_queue_threads,
        .n_worker_threads = options->n_worker_threads,
        .max_message_bytes = options->max_message_bytes,
        .max_pending_bytes = options->max_pending_bytes,
        .max_metadata_bytes = options->max_metadata_bytes,
        .max_connections = options->max_connections,
        .max_streams = options->max_streams,
        .max_calls = options->max_calls,
        .stall_timeout_ms = options->send_timeout_ms,
        .memory_quota_bytes = options->memory_quota_bytes,
        .keepalive_time_ms = options->keepalive_time_ms,
        .keepalive_timeout_ms = options->keepalive_timeout_ms,
        .handshake_timeout_ms = options->handshake_timeout_ms,
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
        .on_received = on_received,
    };
    return rpc_server_open(&server_options, &door->server);
}

static err_t check_options(const struct grpc_door_options *options)
{
    if (options->n_queue_threads < 1 || options->n_queue_threads > RPC_THREADS_MAX ||
        options->n_worker_threads < 1 || options->n_worker_threads > RPC_THREADS_MAX)
        return err_new(ERR_INVALID_ARGUMENT, "the gRPC door takes 1 to %d threads of each kind",
                       RPC_THREADS_MAX);
    if (options->send_timeout_ms < 1 || options->send_timeout_ms > INT64_C(86400000))
        return err_new(ERR_INVALID_ARGUMENT,
                       "the gRPC door waits 1 ms to a day for a client to take its answer");
    if (options->max_message_bytes < 1024 || options->max_message_bytes > 1 << 30)
        return err_new(ERR_INVALID_ARGUMENT, "a limit of %zu bytes a message; it must be 1 KiB to 1 GiB",
                       options->max_message_bytes);
    if (options->max_connections < 1)
        return err_new(ERR_INVALID_ARGUMENT, "the gRPC door takes at least one connection");
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
    tokenizer_store_init(&door->tokenizer);
    struct event_count *progress =
        service->vtable->stream_watch ? &door->woken : service->vtable->progress(service);
    err_t e = flusher_create(progress, clock_monotonic(), &door->flusher);
    if (e.code == ERR_OK)
        e = open_server(door);
    if (e.code != ERR_OK) {
        flusher_destroy(door->flusher);
        tokenizer_store_destroy(&door->tokenizer);
        mem_free(door);
        return e;
    }
    start_sweep(door);
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
    tokenizer_store_destroy(&door->tokenizer);
    mem_free(door);
}

/* --- calls with one answer */

void door_answer(struct rpc_call *call, const err_t *e, struct codec_bytes bytes)
{
    err_t no_memory = err_new(ERR_RESOURCE_EXHAUSTED, "no memory for an answer");
    int64_t pushback_ms = e->code == ERR_QUOTA_EXCEEDED ? e->retry_after_ms : RPC_NO_PUSHBACK;
    if (e->code != ERR_OK || !bytes.data)
        rpc_call_refuse(call, e->code != ERR_OK ? e : &no_memory, pushback_ms);
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
        e = service_admit_call(door->service, rpc_call_caller(call)->tenant);
    if (e.code == ERR_OK)
        e = door->service->vtable->tokenize(door->service, &request, &ids, &n_ids);
    if (e.code == ERR_OK)
        bytes = codec_encode_token_ids(ids, n_ids);
    door_answer(call, &e, bytes);
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
        e = service_admit_call(door->service, rpc_call_caller(call)->tenant);
    if (e.code == ERR_OK)
        e = door->service->vtable->detokenize(door->service, request.token_ids, request.n_token_ids,
                                              request.skip_special_tokens, &text);
    if (e.code == ERR_OK)
        bytes = codec_encode_text(text.data, text.size);
    door_answer(call, &e, bytes);
    buffer_free(&text);
    codec_scratch_free(&scratch);
}

void door_abort(void *context, struct rpc_call *call)
{
    struct grpc_door *door = context;
    const struct door_codec *codec = rpc_call_method_data(call);
    struct codec_scratch scratch = {0};
    struct codec_bytes bytes = {0};
    struct abort_request request;
    bool aborted[CODEC_ABORT_IDS_MAX];
    size_t size_bytes;
    const uint8_t *payload = rpc_call_payload(call, &size_bytes);
    err_t e = codec->decode_abort(payload, size_bytes, &scratch, &request);
    if (e.code == ERR_OK) {
        for (size_t i = 0; i < request.n_request_ids; i++)
            aborted[i] = door->service->vtable->abort(door->service, rpc_call_caller(call)->tenant,
                                                      request.request_ids[i]);
        bytes = codec->encode_aborted(aborted, request.n_request_ids);
    }
    door_answer(call, &e, bytes);
    codec_scratch_free(&scratch);
}

static err_t decode_empty(struct rpc_call *call)
{
    const struct door_codec *codec = rpc_call_method_data(call);
    struct codec_scratch scratch = {0};
    size_t size_bytes;
    const uint8_t *payload = rpc_call_payload(call, &size_bytes);
    err_t e = codec->decode_empty(payload, size_bytes, &scratch);
    codec_scratch_free(&scratch);
    return e;
}

static struct server_info describe_server(struct grpc_door *door)
{
    struct server_info info = {
        .version = door->options.version,
        .grpc_version = grpc_runtime_version(),
        .uptime_seconds = (double)(clock_now_ns(&door->clock) - door->opened_ns) * 1e-9,
        .unix_time_s = (int64_t)time(NULL),
        .last_generate_unix_s = atomic_load(&door->last_generate_unix_s),
        .active_requests = grpc_door_active(door),
        .max_message_bytes = door->options.max_message_bytes,
        .draining = atomic_load(&door->draining),
        .model = door->service->vtable->model_info(door->service),
    };
    door->service->vtable->loads(door->service, &info.loads);
    return info;
}

void door_model_info(void *context, struct rpc_call *call)
{
    struct grpc_door *door = context;
    const struct door_codec *codec = rpc_call_method_data(call);
    err_t e = decode_empty(call);
    door_answer(call, &e, codec->encode_model_info(door->service->vtable->model_info(door->service)));
}

void door_server_info(void *context, struct rpc_call *call)
{
    const struct door_codec *codec = rpc_call_method_data(call);
    err_t e = decode_empty(call);
    struct server_info info = describe_server(context);
    door_answer(call, &e, codec->encode_server_info(&info));
}

void door_get_loads(void *context, struct rpc_call *call)
{
    const struct door_codec *codec = rpc_call_method_data(call);
    err_t e = decode_empty(call);
    struct server_info info = describe_server(context);
    door_answer(call, &e, codec->encode_loads(&info));
}

void door_get_schema(void *context, struct rpc_call *call)
{
    (void)context;
    err_t e = decode_empty(call);
    door_answer(call, &e, (struct codec_bytes){wire_flatbuffers_schema, wire_flatbuffers_schema_bytes});
}

/* --- watches */

static enum pump_result pump_watch(struct flush_item *flush)
{
    struct door_watch *watch = (struct door_watch *)flush;
    if (rpc_call_ended(watch->item.call))
        return PUMP_DONE;
    if (atomic_load(&watch->item.door->closing)) {
        err_t e = err_new(ERR_UNAVAILABLE, "the server is shutting down");
        rpc_call_refuse(watch->item.call, &e, RPC_NO_PUSHBACK);
        return PUMP_DONE;
    }
    int64_t now_ns = clock_now_ns(clock_monotonic());
    if (now_ns < watch->due_ns)
        return PUMP_IDLE;
    watch->due_ns = now_ns + watch->interval_ns;
    return watch->send(watch) ? PUMP_SENDING : PUMP_IDLE;
}

static void destroy_watch(struct door_item *item)
{
    mem_free(item);
}

void door_watch_start(struct grpc_door *door, struct rpc_call *call, err_t e, int64_t interval_ms,
                      bool (*send)(struct door_watch *watch))
{
    struct door_watch *watch = e.code == ERR_OK ? mem_alloc(sizeof *watch) : NULL;
    if (e.code == ERR_OK && !watch)
        e = err_new(ERR_RESOURCE_EXHAUSTED, "no memory for a watcher");
    if (e.code != ERR_OK) {
        rpc_call_refuse(call, &e, RPC_NO_PUSHBACK);
        return;
    }
    watch->send = send;
    watch->interval_ns = interval_ms * 1000000;
    door_item_start(&watch->item, door, call, pump_watch, watch->interval_ns, destroy_watch);
}

static bool send_loads(struct door_watch *watch)
{
    struct service *service = watch->item.door->service;
    const struct door_codec *codec = rpc_call_method_data(watch->item.call);
    struct loads loads;
    service->vtable->loads(service, &loads);
    struct codec_bytes bytes = codec->encode_watched_loads(&loads);
    if (bytes.data) /* else the next one may find memory */
        rpc_call_send(watch->item.call, bytes.data, bytes.size);
    return bytes.data != NULL;
}

void door_watch_loads(void *context, struct rpc_call *call)
{
    struct codec_scratch scratch = {0};
    const struct door_codec *codec = rpc_call_method_data(call);
    uint32_t interval_ms = 0;
    size_t size_bytes;
    const uint8_t *payload = rpc_call_payload(call, &size_bytes);
    err_t e = codec->decode_watch_loads(payload, size_bytes, &scratch, &interval_ms);
    codec_scratch_free(&scratch);
    door_watch_start(context, call, e, interval_ms, send_loads);
}
