/* The router's bench over gRPC: bantam.Bantam with messages, all requests on one connection. */
#include <stdio.h>
#include <string.h>
#include "base/alloc.h"
#include "base/clock.h"
#include "benchmarks/router_load.h"
#include "proto/codec_flatbuffers.h"
#include "proto/grpc_client.h"

struct grpc_driver {
    const struct router_bench_options *options;
    struct grpc_client *client;
    bool is_closing;
};

static int64_t now(void)
{
    return clock_now_ns(clock_monotonic());
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
        *out = driver;
    else
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
    while (grpc_client_poll(driver->client, timeout_ns))
        timeout_ns = 0;
    return err_ok();
}

static void close_grpc(void *context)
{
    struct grpc_driver *driver = context;
    driver->is_closing = true;
    grpc_client_close(driver->client);
    mem_free(driver);
}

const struct router_driver router_driver_grpc = {open_grpc, start_grpc, poll_grpc, close_grpc};
