/* The router's bench over gRPC: bantam.Bantam with messages, all requests on one connection. */
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include "base/alloc.h"
#include "base/assert.h"
#include "base/clock.h"
#include "base/event_count.h"
#include "benchmarks/router_load.h"
#include "proto/codec_flatbuffers.h"
#include "proto/grpc_client.h"

#define NEVER_NS INT64_MAX
enum { ALARM_LATE_NS = 5000, ALARM_SLACK_NS = 1000 };

/* gRPC waits for whole milliseconds: the next request would start up to one too late, and its time would tell
 * of that. So it waits without end, and a thread wakes it in time. */
struct alarm {
    struct grpc_client *client;
    struct event_count changed;
    _Atomic int64_t due_ns;
    _Atomic bool ends;
    pthread_t thread;
};

struct grpc_driver {
    const struct router_bench_options *options;
    struct grpc_client *client;
    struct alarm alarm;
    bool is_closing;
};

static int64_t now(void)
{
    return clock_now_ns(clock_monotonic());
}

static void *alarm_main(void *context)
{
    struct alarm *alarm = context;
    (void)prctl(PR_SET_TIMERSLACK, ALARM_SLACK_NS);
    for (;;) {
        uint32_t seen = event_count_read(&alarm->changed);
        int64_t due_ns = atomic_load(&alarm->due_ns), left_ns = due_ns - now();
        if (atomic_load(&alarm->ends))
            return NULL;
        if (due_ns == NEVER_NS || left_ns > 0)
            event_count_wait(&alarm->changed, seen, due_ns == NEVER_NS ? -1 : left_ns);
        else if (atomic_compare_exchange_strong(&alarm->due_ns, &due_ns, NEVER_NS))
            grpc_client_wake(alarm->client);
    }
}

/* An alarm that is set to go off a moment later is left as it is. */
static void set_alarm(struct alarm *alarm, int64_t due_ns)
{
    int64_t before_ns = atomic_load(&alarm->due_ns);
    if (before_ns - ALARM_LATE_NS <= due_ns && before_ns + ALARM_LATE_NS >= due_ns && before_ns != NEVER_NS)
        return;
    atomic_store(&alarm->due_ns, due_ns);
    event_count_bump(&alarm->changed);
}

static err_t open_alarm(struct alarm *alarm, struct grpc_client *client)
{
    alarm->client = client;
    atomic_store(&alarm->due_ns, NEVER_NS);
    return pthread_create(&alarm->thread, NULL, alarm_main, alarm) == 0
               ? err_ok()
               : err_new(ERR_RESOURCE_EXHAUSTED, "no thread for the bench's gRPC client");
}

static void close_alarm(struct alarm *alarm)
{
    atomic_store(&alarm->ends, true);
    event_count_bump(&alarm->changed);
    ASSERT(pthread_join(alarm->thread, NULL) == 0);
}

static err_t open_grpc(const struct router_bench_options *options, const struct router_target *target,
                       void **out)
{
    char address[32];
    (void)snprintf(address, sizeof address, "127.0.0.1:%u", target->port);
    struct grpc_driver *driver = mem_alloc(sizeof *driver);
    if (!driver)
        return err_new(ERR_RESOURCE_EXHAUSTED, "out of memory");
    driver->options = options;
    const struct grpc_client_options client = {.own_connection = true};
    err_t e = grpc_client_open(address, &client, &driver->client);
    if (e.code == ERR_OK)
        e = open_alarm(&driver->alarm, driver->client);
    if (e.code == ERR_OK) {
        *out = driver;
        return e;
    }
    grpc_client_close(driver->client);
    mem_free(driver);
    return e;
}

static bool on_message(void *context, const uint8_t *bytes, size_t size_bytes)
{
    struct router_request *request = context;
    struct codec_scratch scratch = {0};
    struct codec_origin origin;
    struct event event;
    if (request->is_stream && request->first_ns == 0 &&
        codec_decode_response(bytes, size_bytes, &scratch, &origin, &event).code == ERR_OK &&
        (event.text_bytes > 0 || event.n_token_ids > 0))
        router_load_chunk(request, now());
    codec_scratch_free(&scratch);
    return true;
}

static void on_done(void *context, const struct client_status *status)
{
    struct router_request *request = context;
    const struct grpc_driver *driver = request->transport;
    err_t e = err_ok();
    if (driver->is_closing)
        return;
    if (status->code != GRPC_STATUS_OK)
        e = err_new(ERR_UNAVAILABLE, "status %d: %.150s", (int)status->code, status->message);
    router_load_done(request, &e, now());
}

static const struct client_handler HANDLER = {.on_message = on_message, .on_done = on_done};

static err_t start_grpc(void *context, struct router_request *request)
{
    struct grpc_driver *driver = context;
    char prompt[200], bearer[300];
    int prompt_bytes = router_prompt_write(request, prompt, sizeof prompt);
    const struct chat_message message = {"user", prompt, (size_t)prompt_bytes};
    const struct request wanted = {
        .model = driver->options->model,
        .deadline_ns = REQUEST_NO_DEADLINE,
        .prompt_kind = PROMPT_MESSAGES,
        .messages = &message,
        .n_messages = 1,
        .sampling = {.set = SAMPLING_MAX_TOKENS, .max_tokens = request->n_tokens},
    };
    const struct generate_options options = {.return_prompt_token_ids = false};
    struct codec_bytes bytes = codec_encode_generate(&wanted, &options);
    const char *key = driver->options->api_key;
    int n = snprintf(bearer, sizeof bearer, "Bearer %.256s", key ? key : "");
    const struct client_metadata metadata = {"authorization", bearer, (size_t)n};
    request->transport = driver;
    return grpc_client_start_with(
        driver->client, request->is_stream ? "/bantam.Bantam/Generate" : "/bantam.Bantam/GenerateWhole",
        bytes.data, bytes.size, CLIENT_NO_TIMEOUT, &metadata, key ? 1 : 0, &HANDLER, request, NULL);
}

static err_t poll_grpc(void *context, int64_t timeout_ns)
{
    struct grpc_driver *driver = context;
    if (timeout_ns > 0)
        set_alarm(&driver->alarm, now() + timeout_ns);
    for (bool waits = timeout_ns > 0; grpc_client_poll(driver->client, waits ? -1 : 0);)
        waits = false;
    return err_ok();
}

static void close_grpc(void *context)
{
    struct grpc_driver *driver = context;
    driver->is_closing = true;
    close_alarm(&driver->alarm);
    grpc_client_close(driver->client);
    mem_free(driver);
}

const struct router_driver router_driver_grpc = {open_grpc, start_grpc, poll_grpc, close_grpc};
