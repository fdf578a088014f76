#include "benchmarks/latency_bench.h"

#include "base/alloc.h"
#include "base/event_count.h"
#include "base/progress.h"
#include "base/stop.h"

struct latency_load {
    const struct load_options *options;
    struct service *service;
    const struct bench_prompt *prompts; /* [n] */
    struct load_result *out;
    struct stream **streams; /* [n]; NULL = not started, refused or done */
    int64_t *starts_ns;      /* [n] */
    size_t n, n_started, n_done;
    size_t first_open; /* streams before it are done */
    int64_t began_ns;
};

static int64_t load_now(const struct latency_load *load)
{
    return load->service->vtable->now_ns(load->service) - load->began_ns;
}

/* A full queue is one request's failure; a request that can never run ends the load. */
static err_t start_request(struct latency_load *load, size_t index, int64_t start_ns)
{
    struct request request = bench_prompt_request(&load->prompts[index], load->options->temperature);
    load_result_start(load->out, index, start_ns);
    err_t e = load->service->vtable->submit(load->service, &request, &load->streams[index]);
    if (e.code == ERR_OK)
        return e;
    load->streams[index] = NULL;
    if (e.code != ERR_RESOURCE_EXHAUSTED)
        return e;
    load_result_fail(load->out, index, e.message);
    load_result_end(load->out, index);
    load->n_done++;
    return err_ok();
}

/* Starts what is due and fits under the bound on streams. */
static err_t start_due(struct latency_load *load)
{
    uint32_t bound = load->options->max_concurrency;
    bool open = load_is_open(load->options);
    while (load->n_started < load->n) {
        uint32_t running = (uint32_t)(load->n_started - load->n_done);
        int64_t now_ns = load_now(load), due_ns = load->starts_ns[load->n_started];
        if ((bound && running >= bound) || due_ns > now_ns)
            break;
        TRY(start_request(load, load->n_started++, open ? due_ns : now_ns));
        if (running + 1 > load->out->max_concurrent_requests)
            load->out->max_concurrent_requests = running + 1;
    }
    return err_ok();
}

static err_t read_stream(struct latency_load *load, size_t index, int64_t now_ns)
{
    const struct service_vtable *vtable = load->service->vtable;
    struct event event;
    while (load->streams[index] && vtable->stream_next(load->streams[index], &event)) {
        TRY(load_result_tokens(load->out, index, event.n_token_ids, now_ns));
        if (event.kind != EVENT_FINISHED)
            continue;
        load_result_usage(load->out, index, &event.usage);
        if (event.finish_reason == FINISH_ERROR)
            load_result_fail(load->out, index, event.error.message);
        vtable->stream_release(load->streams[index]);
        load->streams[index] = NULL;
        load_result_end(load->out, index);
        load->n_done++;
    }
    return err_ok();
}

static err_t read_streams(struct latency_load *load)
{
    int64_t now_ns = load_now(load);
    for (size_t i = load->first_open; i < load->n_started; i++)
        TRY(read_stream(load, i, now_ns));
    while (load->first_open < load->n_started && !load->streams[load->first_open])
        load->first_open++;
    return err_ok();
}

/* -1 = only an answer can bring the next start. */
static int64_t time_to_next(const struct latency_load *load)
{
    uint32_t bound = load->options->max_concurrency;
    if (load->n_started == load->n || (bound && load->n_started - load->n_done >= bound))
        return -1;
    int64_t wait_ns = load->starts_ns[load->n_started] - load_now(load);
    return wait_ns > 0 ? wait_ns : 0;
}

static err_t drive(struct latency_load *load)
{
    struct event_count *news = load->service->vtable->progress(load->service);
    struct progress progress;
    if (load->options->show_progress)
        progress_begin(&progress, "requests", load->n);
    err_t e = err_ok();
    while (e.code == ERR_OK && load->n_done < load->n && !stop_is_wished(load->options->stop)) {
        uint32_t seen = event_count_read(news);
        e = start_due(load);
        if (e.code == ERR_OK)
            e = read_streams(load);
        if (load->options->show_progress)
            progress_update(&progress, load->n_done);
        if (e.code == ERR_OK && load->n_done < load->n)
            (void)event_count_wait(news, seen, load_wait_ns(time_to_next(load)));
    }
    if (load->options->show_progress)
        progress_end(&progress);
    return e;
}

/* Runs prompts[0..n) as a load; *out is initialised here. */
static err_t run_load(struct engine *engine, const struct load_options *options,
                      const struct bench_prompt *prompts, size_t n, struct load_result *out)
{
    TRY(load_result_init(n, out));
    struct latency_load load = {
        .options = options, .service = engine_service(engine), .prompts = prompts, .out = out, .n = n};
    load.streams = mem_alloc_array(n, sizeof *load.streams);
    load.starts_ns = mem_alloc_array(n, sizeof *load.starts_ns);
    err_t e = err_ok();
    if (!load.streams || !load.starts_ns) {
        e = err_new(ERR_RESOURCE_EXHAUSTED, "out of memory for %zu requests", n);
    } else {
        arrivals_fill(&options->arrivals, n, load.starts_ns);
        load.began_ns = load.service->vtable->now_ns(load.service);
        e = drive(&load);
        out->duration_ns = load_now(&load);
        if (load.n_done < n && e.code == ERR_OK)
            load_result_cut(out);
    }
    for (size_t i = 0; load.streams && i < n; i++)
        if (load.streams[i])
            load.service->vtable->stream_release(load.streams[i]);
    mem_free(load.streams);
    mem_free(load.starts_ns);
    return e;
}

err_t latency_bench_run(struct engine *engine, const struct load_options *options,
                        const struct bench_data *data, size_t n_warmups, struct load_result *out)
{
    *out = (struct load_result){0};
    if (n_warmups >= data->count)
        return err_new(ERR_INVALID_ARGUMENT, "%zu warm-ups leave nothing of %zu prompts", n_warmups,
                       data->count);
    if (n_warmups > 0) {
        struct load_options at_once = *options;
        at_once.arrivals = (struct arrival_options){.burstiness = 1};
        at_once.show_progress = false;
        struct load_result unused;
        err_t e = run_load(engine, &at_once, data->prompts, n_warmups, &unused);
        load_result_free(&unused);
        TRY(e);
    }
    return run_load(engine, options, data->prompts + n_warmups, data->count - n_warmups, out);
}
