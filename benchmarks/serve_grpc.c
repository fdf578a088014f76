/* A load over gRPC: the C client. */
#include <string.h>
#include "base/alloc.h"
#include "base/buffer.h"
#include "benchmarks/serve_internal.h"

struct grpc_driver {
    const struct serve_bench_options *options;
    struct serve_load *load;
    struct bantam_client *client;
    bool retries;
};

/* Freed at its end; what is under way when the client closes ends there. */
struct grpc_request {
    struct serve_load *load;
    size_t index;
};

static err_t open_grpc(const struct serve_bench_options *options, struct serve_load *load, void **out)
{
    struct grpc_driver *driver = mem_alloc(sizeof *driver);
    if (!driver)
        return err_new(ERR_RESOURCE_EXHAUSTED, "out of memory");
    struct bantam_client_options client = options->client;
    client.own_connection = true;
    client.max_calls = UINT32_MAX; /* an open loop has no bound of its own */
    *driver =
        (struct grpc_driver){.options = options, .load = load, .retries = client.retry.max_attempts > 1};
    *out = driver;
    return bantam_client_open(&client, &driver->client);
}

static bool on_event(void *context, const struct event *event)
{
    struct grpc_request *request = context;
    serve_load_tokens(request->load, request->index, event->n_token_ids);
    if (event->kind == EVENT_FINISHED)
        serve_load_usage(request->load, request->index, &event->usage);
    return true;
}

static void on_done(void *context, const struct bantam_outcome *outcome)
{
    struct grpc_request *request = context;
    struct buffer text = {.limit_bytes = ERR_MESSAGE_MAX};
    bool failed = outcome->error.code != ERR_OK;
    if (failed)
        (void)buffer_append_format(&text, "%s: %.400s", err_code_name(outcome->error.code),
                                   outcome->error.message);
    serve_load_done(request->load, request->index, !failed ? NULL : text.data ? text.data : "failed");
    buffer_free(&text);
    mem_free(request);
}

static const struct bantam_handler HANDLER = {.on_event = on_event, .on_done = on_done};

static err_t start_grpc(void *context, const struct bench_prompt *prompt, size_t index)
{
    struct grpc_driver *driver = context;
    const struct load_options *options = &driver->options->load;
    struct chat_message message = {.role = "user", .content = prompt->text};
    message.content_bytes = prompt->text ? strlen(prompt->text) : 0;
    struct request request = {
        .deadline_ns = REQUEST_NO_DEADLINE,
        .tenant = "",
        .prompt_kind = prompt->token_ids    ? PROMPT_TOKEN_IDS
                       : prompt->as_message ? PROMPT_MESSAGES
                                            : PROMPT_TEXT,
        .token_ids = prompt->token_ids,
        .n_token_ids = prompt->n_token_ids,
        .text = prompt->text,
        .text_bytes = message.content_bytes,
        .messages = &message,
        .n_messages = 1,
        .sampling = {.set = SAMPLING_MAX_TOKENS | SAMPLING_TEMPERATURE | SAMPLING_IGNORE_EOS,
                     .max_tokens = prompt->output_len,
                     .temperature = (float)options->temperature,
                     .ignore_eos = options->ignore_eos},
    };
    struct bantam_query query = {.method = BANTAM_GENERATE, .request = &request};
    struct bantam_call_options call = {.timeout_ns = driver->options->timeout_ns};
    struct grpc_request *state = mem_alloc(sizeof *state);
    if (!state)
        return err_new(ERR_RESOURCE_EXHAUSTED, "out of memory for a request");
    *state = (struct grpc_request){.load = driver->load, .index = index};
    err_t e = bantam_client_start(driver->client, &query, &call, &HANDLER, state, NULL);
    if (e.code != ERR_OK)
        mem_free(state);
    return e;
}

static err_t poll_grpc(void *context, int64_t timeout_ns)
{
    struct grpc_driver *driver = context;
    (void)bantam_client_poll(driver->client, timeout_ns);
    return err_ok();
}

static int64_t grpc_retries(const void *context)
{
    const struct grpc_driver *driver = context;
    return driver->retries ? (int64_t)bantam_client_stats(driver->client).retries : -1;
}

static void close_grpc(void *context)
{
    struct grpc_driver *driver = context;
    if (driver && driver->client)
        bantam_client_close(driver->client);
    mem_free(driver);
}

const struct serve_driver serve_driver_grpc = {open_grpc, start_grpc, poll_grpc, grpc_retries, close_grpc};
