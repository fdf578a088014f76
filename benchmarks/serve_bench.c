#include "benchmarks/serve_bench.h"

#include <inttypes.h>
#include <string.h>
#include "base/alloc.h"
#include "base/clock.h"
#include "base/progress.h"

static const int64_t NS_PER_S = 1000000000;

struct load;

struct load_request {
    struct load *load;
    size_t index;
};

struct load {
    const struct serve_bench_options *options;
    const struct bench_data *data;
    struct load_result *out;
    struct bantam_client *client;
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

static bool on_event(void *context, const struct event *event)
{
    struct load_request *request = context;
    struct load *load = request->load;
    fail(load, load_result_tokens(load->out, request->index, event->n_token_ids, load_now(load)));
    if (event->kind == EVENT_FINISHED)
        load_result_usage(load->out, request->index, &event->usage);
    return true;
}

static void on_done(void *context, const struct bantam_outcome *outcome)
{
    struct load_request *request = context;
    request->load->n_done++;
    if (outcome->error.code == ERR_OK)
        return;
    struct buffer text = {.limit_bytes = ERR_MESSAGE_MAX};
    (void)buffer_append_format(&text, "%s: %.400s", err_code_name(outcome->error.code),
                               outcome->error.message);
    load_result_fail(request->load->out, request->index, text.data ? text.data : "failed");
    buffer_free(&text);
}

static const struct bantam_handler HANDLER = {.on_event = on_event, .on_done = on_done};

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
    struct bantam_query query = {.method = BANTAM_GENERATE, .request = &request};
    struct bantam_call_options call = {.timeout_ns = options->timeout_ns};
    struct load_request *state = &load->requests[index];
    *state = (struct load_request){.load = load, .index = index};
    load_result_start(load->out, index, start_ns);
    return bantam_client_start(load->client, &query, &call, &HANDLER, state, NULL);
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
        (void)bantam_client_poll(load->client, time_to_next(load));
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
    struct bantam_client_options client = options->client;
    client.own_connection = true;
    client.max_calls = UINT32_MAX; /* an open loop has no bound of its own */
    if (e.code == ERR_OK)
        e = bantam_client_open(&client, &load.client);
    if (e.code == ERR_OK) {
        arrivals_fill(&options->load.arrivals, data->count, load.starts_ns);
        load.began_ns = clock_now_ns(clock_monotonic());
        drive(&load);
        out->duration_ns = load_now(&load);
        e = load.failure;
        if (client.retry.max_attempts > 1)
            out->retries = (int64_t)bantam_client_stats(load.client).retries;
        bantam_client_close(load.client);
    }
    mem_free(load.requests);
    mem_free(load.starts_ns);
    return e;
}

err_t serve_bench_vocab_size(const struct bantam_client_options *options, uint32_t *out)
{
    static const int64_t TIMEOUT_S = 10;
    const struct bantam_query query = {.method = BANTAM_MODEL_INFO};
    const struct bantam_call_options call = {.timeout_ns = TIMEOUT_S * NS_PER_S};
    struct bantam_client *client;
    struct bantam_reply *reply;
    TRY(bantam_client_open(options, &client));
    err_t e = bantam_client_ask(client, &query, &call, &reply);
    if (e.code == ERR_OK) {
        *out = reply->answer.model_info.vocab_size;
        bantam_reply_free(reply);
    }
    bantam_client_close(client);
    return e.code == ERR_OK ? e : err_prefix(e, "%s", options->target);
}
