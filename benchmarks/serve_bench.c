#include "benchmarks/serve_bench.h"

#include "base/alloc.h"
#include "base/clock.h"
#include "base/progress.h"
#include "base/stop.h"
#include "benchmarks/serve_internal.h"

static const int64_t NS_PER_S = 1000000000;

struct serve_load {
    const struct serve_bench_options *options;
    const struct bench_data *data;
    struct load_result *out;
    const struct serve_driver *wire;
    void *driver;
    int64_t *starts_ns; /* [n] */
    int64_t began_ns;
    size_t n_started, n_done;
    bool is_over;  /* what is heard of requests after that counts no more */
    err_t failure; /* of the client itself: the load ends */
};

static int64_t load_now(const struct serve_load *load)
{
    return clock_now_ns(clock_monotonic()) - load->began_ns;
}

static void fail(struct serve_load *load, err_t e)
{
    if (e.code != ERR_OK && load->failure.code == ERR_OK)
        load->failure = e;
}

void serve_load_tokens(struct serve_load *load, size_t index, size_t n_tokens)
{
    fail(load, load_result_tokens(load->out, index, n_tokens, load_now(load)));
}

void serve_load_usage(struct serve_load *load, size_t index, const struct usage *usage)
{
    load_result_usage(load->out, index, usage);
}

void serve_load_done(struct serve_load *load, size_t index, const char *error)
{
    if (load->is_over)
        return;
    load->n_done++;
    load_result_end(load->out, index);
    if (error)
        load_result_fail(load->out, index, error);
}

/* Starts what is due and fits under the bound on streams. A request of an open loop starts, for its figures,
 * when it was scheduled, however late the client gets to it. */
static void start_due(struct serve_load *load)
{
    uint32_t bound = load->options->load.max_concurrency;
    bool open = load_is_open(&load->options->load);
    while (load->failure.code == ERR_OK && load->n_started < load->data->count) {
        uint32_t running = (uint32_t)(load->n_started - load->n_done);
        int64_t now_ns = load_now(load), due_ns = load->starts_ns[load->n_started];
        if ((bound && running >= bound) || due_ns > now_ns)
            return;
        size_t index = load->n_started++;
        load_result_start(load->out, index, open ? due_ns : now_ns);
        fail(load, load->wire->start(load->driver, &load->data->prompts[index], index));
        if (running + 1 > load->out->max_concurrent_requests)
            load->out->max_concurrent_requests = running + 1;
    }
}

static int64_t time_to_next(const struct serve_load *load)
{
    bool all_started = load->n_started == load->data->count;
    uint32_t bound = load->options->load.max_concurrency;
    bool bounded = bound && load->n_started - load->n_done >= bound;
    if (all_started || bounded)
        return -1;
    int64_t wait_ns = load->starts_ns[load->n_started] - load_now(load);
    return wait_ns > 0 ? wait_ns : 0;
}

static void drive(struct serve_load *load)
{
    struct progress progress;
    if (load->options->load.show_progress)
        progress_begin(&progress, "requests", load->data->count);
    while (load->n_done < load->data->count && load->failure.code == ERR_OK &&
           !stop_is_wished(load->options->load.stop)) {
        start_due(load);
        if (load->n_done == load->data->count) /* the last ones failed as they started */
            break;
        fail(load, load->wire->poll(load->driver, load_wait_ns(time_to_next(load))));
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
    struct serve_load load = {.options = options,
                              .data = data,
                              .out = out,
                              .wire = options->openai_url ? &serve_driver_http : &serve_driver_grpc,
                              .failure = err_ok()};
    load.starts_ns = mem_alloc_array(data->count, sizeof *load.starts_ns);
    err_t e = load.starts_ns ? load.wire->open(options, &load, &load.driver)
                             : err_new(ERR_RESOURCE_EXHAUSTED, "out of memory for %zu requests", data->count);
    if (e.code == ERR_OK) {
        arrivals_fill(&options->load.arrivals, data->count, load.starts_ns);
        load.began_ns = clock_now_ns(clock_monotonic());
        drive(&load);
        out->duration_ns = load_now(&load);
        out->retries = load.wire->retries(load.driver);
        e = load.failure;
    }
    load.is_over = true;
    load.wire->close(load.driver);
    if (load.n_done < data->count && e.code == ERR_OK)
        load_result_cut(out);
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
