#include "benchmarks/serve_bench.h"

#include <inttypes.h>
#include <string.h>
#include "base/alloc.h"
#include "base/clock.h"
#include "base/progress.h"
#include "proto/codec_flatbuffers.h"
#include "proto/grpc_client.h"

static const int64_t NS_PER_S = 1000000000;
static const char GENERATE_PATH[] = "/bantam.Bantam/Generate";
static const char MODEL_INFO_PATH[] = "/bantam.Bantam/ModelInfo";

struct load;

struct load_request {
    struct load *load;
    size_t index;
};

struct load {
    const struct serve_bench_options *options;
    const struct bench_data *data;
    struct load_result *out;
    struct grpc_client *client;
    struct load_request *requests; /* [n] */
    int64_t *starts_ns;            /* [n] */
    int64_t began_ns;
    size_t n_started, n_done;
    err_t failure; /* of the client itself: the load ends */
};

static int64_t load_now(const struct load *load)
{
    return clock_now_ns(clock_monotonic()) - load->began_ns;
}

static void fail(struct load *load, err_t e)
{
    if (e.code != ERR_OK && load->failure.code == ERR_OK)
        load->failure = e;
}

static bool on_message(void *context, const uint8_t *bytes, size_t size_bytes)
{
    struct load_request *request = context;
    int64_t now_ns = load_now(request->load);
    struct codec_scratch scratch = {0};
    const char *request_id;
    struct event event;
    err_t e = codec_decode_response(bytes, size_bytes, &scratch, &request_id, &event);
    if (e.code == ERR_OK) {
        e = load_result_tokens(request->load->out, request->index, event.n_token_ids, now_ns);
        if (event.kind == EVENT_FINISHED)
            load_result_usage(request->load->out, request->index, &event.usage);
    }
    fail(request->load, e);
    codec_scratch_free(&scratch);
    return true;
}

static void on_done(void *context, const struct client_status *status)
{
    struct load_request *request = context;
    request->load->n_done++;
    if (status->code == GRPC_STATUS_OK)
        return;
    struct buffer text = {.limit_bytes = ERR_MESSAGE_MAX};
    (void)buffer_append_format(&text, "status %d: %.400s", (int)status->code, status->message);
    load_result_fail(request->load->out, request->index, text.data ? text.data : "failed");
    buffer_free(&text);
}

static const struct client_handler HANDLER = {.on_message = on_message, .on_done = on_done};

static err_t start_request(struct load *load, size_t index, int64_t start_ns)
{
    const struct serve_bench_options *options = load->options;
    const struct bench_prompt *prompt = &load->data->prompts[index];
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
                     .temperature = (float)options->load.temperature,
                     .ignore_eos = options->load.ignore_eos},
    };
    struct generate_options generate = {.return_prompt_token_ids = false};
    struct codec_bytes bytes = codec_encode_generate(&request, &generate);
    struct load_request *state = &load->requests[index];
    *state = (struct load_request){.load = load, .index = index};
    load_result_start(load->out, index, start_ns);
    struct client_call *call;
    return grpc_client_start(load->client, GENERATE_PATH, bytes.data, bytes.size, options->timeout_ns,
                             &HANDLER, state, &call);
}

/* Starts what is due and fits under the bound on streams. A request of an open loop starts, for its figures,
 * when it was scheduled, however late the client gets to it. */
static void start_due(struct load *load)
{
    uint32_t bound = load->options->load.max_concurrency;
    bool open = load_is_open(&load->options->load);
    while (load->failure.code == ERR_OK && load->n_started < load->data->count) {
        uint32_t running = (uint32_t)(load->n_started - load->n_done);
        int64_t now_ns = load_now(load), due_ns = load->starts_ns[load->n_started];
        if ((bound && running >= bound) || due_ns > now_ns)
            return;
        fail(load, start_request(load, load->n_started, open ? due_ns : now_ns));
        load->n_started++;
        if (running + 1 > load->out->max_concurrent_requests)
            load->out->max_concurrent_requests = running + 1;
    }
}

static int64_t time_to_next(const struct load *load)
{
    bool all_started = load->n_started == load->data->count;
    uint32_t bound = load->options->load.max_concurrency;
    bool bounded = bound && load->n_started - load->n_done >= bound;
    if (all_started || bounded)
        return -1;
    int64_t wait_ns = load->starts_ns[load->n_started] - load_now(load);
    return wait_ns > 0 ? wait_ns : 0;
}

static void drive(struct load *load)
{
    struct progress progress;
    if (load->options->load.show_progress)
        progress_begin(&progress, "requests", load->data->count);
    while (load->n_done < load->data->count && load->failure.code == ERR_OK) {
        start_due(load);
        (void)grpc_client_poll(load->client, time_to_next(load));
        if (load->options->load.show_progress)
            progress_update(&progress, load->n_done);
    }
    if (load->options->load.show_progress)
        progress_end(&progress);
}

err_t serve_bench_run(const struct serve_bench_options *options, const struct bench_data *data,
                      struct load_result *out)
{
    TRY(load_result_init(data->count, out));
    struct load load = {.options = options, .data = data, .out = out, .failure = err_ok()};
    load.requests = mem_alloc_array(data->count, sizeof *load.requests);
    load.starts_ns = mem_alloc_array(data->count, sizeof *load.starts_ns);
    err_t e = err_ok();
    if (!load.requests || !load.starts_ns)
        e = err_new(ERR_RESOURCE_EXHAUSTED, "out of memory for %zu requests", data->count);
    struct grpc_client_options client_options = {.own_connection = true};
    if (e.code == ERR_OK)
        e = grpc_client_open(options->target, &client_options, &load.client);
    if (e.code == ERR_OK) {
        arrivals_fill(&options->load.arrivals, data->count, load.starts_ns);
        load.began_ns = clock_now_ns(clock_monotonic());
        drive(&load);
        out->duration_ns = load_now(&load);
        e = load.failure;
        grpc_client_close(load.client);
    }
    mem_free(load.requests);
    mem_free(load.starts_ns);
    return e;
}

err_t serve_bench_vocab_size(const char *target, uint32_t *out)
{
    static const int64_t TIMEOUT_S = 10;
    struct grpc_client *client;
    struct grpc_client_options options = {.own_connection = true};
    TRY(grpc_client_open(target, &options, &client));
    uint8_t *answer = NULL;
    size_t size = 0;
    static const uint8_t EMPTY[1];
    err_t e = grpc_client_unary(client, MODEL_INFO_PATH, EMPTY, 0, TIMEOUT_S * NS_PER_S, &answer, &size);
    if (e.code == ERR_OK) {
        struct codec_scratch scratch = {0};
        struct model_info info;
        e = codec_decode_model_info(answer, size, &scratch, &info);
        *out = info.vocab_size;
        codec_scratch_free(&scratch);
    }
    mem_free(answer);
    grpc_client_close(client);
    return e.code == ERR_OK ? e : err_prefix(e, "%s", target);
}
