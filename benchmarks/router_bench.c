/* The load: who asks when, and what it took. */
#include "benchmarks/router_bench.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include "base/alloc.h"
#include "base/assert.h"
#include "base/clock.h"
#include "base/mapped_file.h"
#include "base/progress.h"
#include "benchmarks/arrivals.h"
#include "benchmarks/router_load.h"

#define NS_PER_S INT64_C(1000000000)
enum { WARM_UP_REQUESTS = 200, ROLLUP_BYTES_MAX = 1 << 16, COUNT_AT_ONCE = 32, ROUND_REQUESTS_MAX = 1 << 22 };
static const int64_t SILENCE_NS = 20 * NS_PER_S, OPEN_CHUNK_MS = 4000, OPEN_TOKENS = 600,
                     PROGRESS_NS = 5 * NS_PER_S;

/* One target's. */
struct router_load {
    const struct router_bench_options *options;
    const struct router_target *target;
    struct router_result *out;
    const struct router_driver *driver;
    void *connection;
    struct router_request *requests, *free; /* [n_requests] */
    size_t n_requests;
    uint64_t number, n_done, n_failed, n_first;
    bool is_measuring;
    struct samples whole_us, first_us, last_us;
    double whole_cpu_s, stream_cpu_s, whole_s, stream_s;
    err_t failure; /* of the bench itself */
};

static int64_t now(void)
{
    return clock_now_ns(clock_monotonic());
}

static void fail(struct router_load *load, err_t e)
{
    if (e.code != ERR_OK && load->failure.code == ERR_OK)
        load->failure = e;
}

int router_prompt_write(const struct router_request *request, char *out, size_t out_bytes)
{
    return snprintf(
        out, out_bytes,
        "Question %llu of the router's bench, please answer it. mock:tokens=%u mock:per-chunk-ms=%g",
        (unsigned long long)request->number, request->n_tokens, request->per_chunk_ms);
}

err_t router_target_parse(const char *text, struct router_target *out)
{
    const char *equals = strchr(text, '=');
    char *end;
    bool is_http = equals && strncmp(equals, "=http:", 6) == 0,
         is_grpc = equals && strncmp(equals, "=grpc:", 6) == 0;
    *out = (struct router_target){.is_grpc = is_grpc};
    if ((is_http || is_grpc) && equals > text && equals - text <= ROUTER_NAME_BYTES_MAX) {
        unsigned long port = strtoul(equals + 6, &end, 10), pid = 0;
        if (*end == ':')
            pid = strtoul(end + 1, &end, 10);
        if (*end == '\0' && port > 0 && port < 65536 && pid < INT32_MAX) {
            memcpy(out->name, text, (size_t)(equals - text));
            out->port = (uint16_t)port;
            out->pid = (pid_t)pid;
            return err_ok();
        }
    }
    return err_new(ERR_INVALID_ARGUMENT,
                   "\"%.80s\" is no target; one is NAME=http:PORT or NAME=grpc:PORT, then :PID "
                   "of the process whose CPU and memory are told",
                   text);
}

/* --- what drivers tell */

static void release(struct router_request *request)
{
    request->next_free = request->load->free;
    request->load->free = request;
}

void router_load_chunk(struct router_request *request, int64_t now_ns)
{
    if (request->first_ns != 0)
        return;
    request->first_ns = now_ns;
    request->load->n_first++;
}

void router_load_done(struct router_request *request, const err_t *error, int64_t now_ns)
{
    struct router_load *load = request->load;
    double last_us = (double)(now_ns - request->due_ns) / 1e3;
    err_t e = *error;
    load->n_done++;
    if (e.code == ERR_OK && request->is_stream && request->first_ns == 0)
        e = err_new(ERR_DATA_LOSS, "a stream ended without a token");
    if (e.code != ERR_OK) {
        load->n_failed++;
        if (!load->out->failure[0])
            (void)snprintf(load->out->failure, sizeof load->out->failure, "%.190s", e.message);
    } else if (load->is_measuring) {
        fail(load, samples_add(request->is_stream ? &load->last_us : &load->whole_us, last_us));
        if (request->is_stream)
            fail(load, samples_add(&load->first_us, (double)(request->first_ns - request->due_ns) / 1e3));
    }
    release(request);
}

/* --- processes */

static double cpu_s(pid_t pid)
{
    clockid_t clock;
    struct timespec time;
    bool good = pid > 0 && clock_getcpuclockid(pid, &clock) == 0 && clock_gettime(clock, &time) == 0;
    return good ? (double)time.tv_sec + (double)time.tv_nsec * 1e-9 : 0;
}

/* See proc(5): smaps_rollup counts pages. */
static uint64_t rss_bytes(pid_t pid)
{
    char path[64], *text;
    size_t size_bytes;
    uint64_t kib = 0;
    (void)snprintf(path, sizeof path, "/proc/%ld/smaps_rollup", (long)pid);
    if (pid <= 0 || file_read(path, ROLLUP_BYTES_MAX, &text, &size_bytes).code != ERR_OK)
        return 0;
    const char *line = strstr(text, "\nRss:");
    if (line)
        kib = strtoull(line + strlen("\nRss:"), NULL, 10);
    mem_free(text);
    return kib * 1024;
}

/* --- loads */

static void start_request(struct router_load *load, bool is_stream, uint32_t n_tokens, double per_chunk_ms,
                          int64_t due_ns)
{
    struct router_request *request = load->free;
    ASSERT(request);
    load->free = request->next_free;
    *request = (struct router_request){.load = load,
                                       .is_stream = is_stream,
                                       .number = load->number++,
                                       .per_chunk_ms = per_chunk_ms,
                                       .n_tokens = n_tokens,
                                       .due_ns = due_ns};
    err_t e = load->driver->start(load->connection, request);
    if (e.code != ERR_OK)
        router_load_done(request, &e, now());
}

/* Waits for what is under way. */
static void poll_load(struct router_load *load, int64_t timeout_ns)
{
    fail(load, load->driver->poll(load->connection, timeout_ns > 0 ? timeout_ns : 0));
}

static void wait_for_all(struct router_load *load, uint64_t n)
{
    uint64_t seen = load->n_done;
    for (int64_t since_ns = now(); load->n_done < n && load->failure.code == ERR_OK;) {
        poll_load(load, NS_PER_S / 10);
        if (load->n_done != seen)
            since_ns = now();
        seen = load->n_done;
        if (now() - since_ns > SILENCE_NS)
            fail(load,
                 err_new(ERR_DEADLINE_EXCEEDED, "%s: %llu of %llu answers have not come", load->target->name,
                         (unsigned long long)(n - load->n_done), (unsigned long long)n));
    }
}

/* One round at a rate. */
static void ask_at_rate(struct router_load *load, bool is_stream, double rate, double seconds)
{
    const struct router_bench_options *options = load->options;
    double wanted = rate * seconds;
    size_t n = wanted < 1 ? 1 : wanted > ROUND_REQUESTS_MAX ? ROUND_REQUESTS_MAX : (size_t)wanted;
    const struct arrival_options arrivals = {.request_rate = rate, .burstiness = 1, .seed = load->number + 1};
    int64_t *starts_ns = mem_alloc_array(n, sizeof *starts_ns);
    if (!starts_ns) {
        fail(load, err_new(ERR_RESOURCE_EXHAUSTED, "out of memory for %zu requests", n));
        return;
    }
    arrivals_fill(&arrivals, n, starts_ns);
    double cpu_before_s = cpu_s(load->target->pid);
    uint64_t done_before = load->n_done;
    int64_t began_ns = now();
    for (size_t i = 0; i < n && load->failure.code == ERR_OK;) {
        int64_t left_ns = began_ns + starts_ns[i] - now();
        if (left_ns <= 0 && load->free)
            start_request(load, is_stream, options->n_tokens, is_stream ? options->per_chunk_ms : 0,
                          began_ns + starts_ns[i++]);
        else
            poll_load(load, left_ns > 0 ? left_ns : NS_PER_S / 10);
    }
    wait_for_all(load, done_before + n);
    *(is_stream ? &load->stream_cpu_s : &load->whole_cpu_s) += cpu_s(load->target->pid) - cpu_before_s;
    *(is_stream ? &load->stream_s : &load->whole_s) += (double)(now() - began_ns) / 1e9;
    mem_free(starts_ns);
}

/* What takes minutes says how far it is. */
static void tell_progress(const struct router_load *load, const char *what, uint64_t n, uint64_t of,
                          int64_t *next_ns)
{
    int64_t now_ns = now();
    if (!load->options->show_progress || now_ns < *next_ns)
        return;
    if (*next_ns > 0)
        (void)fprintf(stderr, "%s: %llu of %llu %s, RSS %.1f MiB\n", load->target->name,
                      (unsigned long long)n, (unsigned long long)of, what,
                      (double)rss_bytes(load->target->pid) / 1048576);
    *next_ns = now_ns + PROGRESS_NS;
}

/* n of them, or as many as come until then; how many came. */
static uint64_t ask_counted(struct router_load *load, uint64_t n, int64_t until_ns)
{
    uint64_t before = load->n_done, n_started = 0;
    int64_t next_ns = 0;
    while (load->n_done - before < n && load->failure.code == ERR_OK) {
        if (now() >= until_ns)
            n = n_started; /* the rest is not asked for */
        while (n_started < n && n_started - (load->n_done - before) < COUNT_AT_ONCE) {
            start_request(load, false, load->options->n_tokens, 0, now());
            n_started++;
        }
        poll_load(load, NS_PER_S / 10);
        tell_progress(load, "answers", load->n_done - before, n, &next_ns);
    }
    return load->n_done - before;
}

static void measure_count(struct router_load *load)
{
    uint64_t n = load->options->n_count, failed_before = load->n_failed;
    double seconds = load->options->count_seconds > 0 ? load->options->count_seconds : 1e6;
    int64_t until_ns = now() + (int64_t)(seconds * 1e9);
    uint64_t n_first = ask_counted(load, n / 10, until_ns);
    load->out->rss_before_bytes = rss_bytes(load->target->pid);
    int64_t began_ns = now();
    uint64_t n_then = ask_counted(load, n - n / 10, until_ns);
    load->out->count_rps = (double)n_then * 1e9 / (double)(now() - began_ns);
    n = n_first + n_then;
    load->out->rss_after_bytes = rss_bytes(load->target->pid);
    load->out->count_failed = load->n_failed - failed_before;
    load->out->count_done = n - load->out->count_failed;
}

static err_t open_connection(struct router_load *load)
{
    load->free = NULL;
    for (size_t i = 0; i < load->n_requests; i++) {
        load->requests[i].load = load;
        release(&load->requests[i]);
    }
    return load->driver->open(load->options, load->target, &load->connection);
}

/* Streams that all stay open; then they are left. */
static void measure_open(struct router_load *load)
{
    uint64_t n = load->options->n_open, first_before = load->n_first, failed_before = load->n_failed;
    load->driver->close(load->connection);
    load->connection = NULL;
    load->out->rss_idle_bytes = rss_bytes(load->target->pid);
    fail(load, open_connection(load));
    int64_t next_ns = 0, began_ns = now(), limit_ns = began_ns + SILENCE_NS + (int64_t)n * NS_PER_S / 500;
    for (uint64_t i = 0; i < n && load->failure.code == ERR_OK;) {
        int64_t left_ns = began_ns + (int64_t)(i * NS_PER_S / 2000) - now();
        if (left_ns <= 0) {
            start_request(load, true, (uint32_t)OPEN_TOKENS, (double)OPEN_CHUNK_MS, now());
            i++;
        }
        poll_load(load, left_ns);
    }
    while (load->n_first - first_before + load->n_failed - failed_before < n && now() < limit_ns &&
           load->failure.code == ERR_OK) {
        poll_load(load, NS_PER_S / 10);
        tell_progress(load, "streams have begun", load->n_first - first_before, n, &next_ns);
    }
    load->out->rss_open_bytes = rss_bytes(load->target->pid);
    load->out->open_begun = load->n_first - first_before;
    load->out->open_failed = n - load->out->open_begun;
    load->driver->close(load->connection);
    load->connection = NULL;
    fail(load, open_connection(load));
}

/* --- all targets */

static err_t open_load(const struct router_bench_options *options, size_t i, struct router_result *out,
                       struct router_load *load)
{
    *load = (struct router_load){
        .options = options,
        .target = &options->targets[i],
        .out = out,
        .driver = options->targets[i].is_grpc ? &router_driver_grpc : &router_driver_http,
        .n_requests = options->n_open > ROUTER_IN_FLIGHT_MAX ? options->n_open : ROUTER_IN_FLIGHT_MAX,
        .failure = err_ok()};
    load->requests = mem_alloc_array(load->n_requests, sizeof *load->requests);
    if (!load->requests)
        return err_new(ERR_RESOURCE_EXHAUSTED, "out of memory for %zu requests", load->n_requests);
    TRY(open_connection(load));
    for (int n = 0; n < WARM_UP_REQUESTS && load->failure.code == ERR_OK; n++) {
        start_request(load, n % 4 == 3, options->n_tokens, 0, now());
        wait_for_all(load, (uint64_t)n + 1);
    }
    if (load->n_failed > 0)
        return err_new(ERR_UNAVAILABLE, "%s: %s", load->target->name, out->failure);
    load->is_measuring = true;
    return load->failure;
}

static void summarise(struct samples *samples, uint64_t n_failed, struct router_times *out)
{
    samples_sort(samples);
    *out = (struct router_times){.n = samples->count,
                                 .n_failed = n_failed,
                                 .p50_us = samples_percentile(samples, 50),
                                 .p90_us = samples_percentile(samples, 90),
                                 .p99_us = samples_percentile(samples, 99),
                                 .max_us = samples_percentile(samples, 100)};
    samples_free(samples);
}

static void measure_kind(struct router_load *loads, const struct router_bench_options *options,
                         bool is_stream, uint64_t n_failed[ROUTER_TARGETS_MAX])
{
    double seconds = options->seconds / options->n_rounds;
    for (size_t i = 0; i < options->n_targets; i++)
        n_failed[i] = loads[i].n_failed;
    for (uint32_t round = 0; round < options->n_rounds; round++)
        for (size_t k = 0; k < options->n_targets; k++) {
            size_t i = (k + round) % options->n_targets; /* nobody is always the first */
            if (loads[i].failure.code == ERR_OK)
                ask_at_rate(&loads[i], is_stream, is_stream ? options->stream_rate : options->rate, seconds);
        }
    for (size_t i = 0; i < options->n_targets; i++)
        n_failed[i] = loads[i].n_failed - n_failed[i];
}

static double per(double value, double by)
{
    return by > 0 ? value / by : 0;
}

static err_t measure(struct router_load *loads, const struct router_bench_options *options)
{
    uint64_t n_failed[ROUTER_TARGETS_MAX];
    for (size_t i = 0; i < options->n_targets; i++)
        TRY(open_load(options, i, loads[i].out, &loads[i]));
    for (int is_stream = 0; is_stream <= 1 && options->seconds > 0; is_stream++) {
        measure_kind(loads, options, is_stream, n_failed);
        for (size_t i = 0; i < options->n_targets; i++) {
            struct router_load *load = &loads[i];
            struct router_result *out = load->out;
            if (!is_stream)
                summarise(&load->whole_us, n_failed[i], &out->whole);
            if (is_stream) {
                summarise(&load->first_us, n_failed[i], &out->first);
                summarise(&load->last_us, n_failed[i], &out->last);
            }
        }
    }
    for (size_t i = 0; i < options->n_targets; i++) {
        struct router_result *out = loads[i].out;
        out->whole_cpu_us = per(loads[i].whole_cpu_s * 1e6, (double)out->whole.n);
        out->stream_cpu_us = per(loads[i].stream_cpu_s * 1e6, (double)out->last.n);
        out->whole_rps = per((double)out->whole.n, loads[i].whole_s);
        out->stream_rps = per((double)out->last.n, loads[i].stream_s);
        loads[i].is_measuring = false;
        if (options->n_count > 0)
            measure_count(&loads[i]);
        if (options->n_open > 0)
            measure_open(&loads[i]);
        TRY(loads[i].failure);
    }
    return err_ok();
}

err_t router_bench_run(const struct router_bench_options *options,
                       struct router_result out[ROUTER_TARGETS_MAX])
{
    ASSERT(options->n_targets >= 1 && options->n_targets <= ROUTER_TARGETS_MAX && options->n_rounds >= 1);
    struct router_load *loads = mem_alloc_array(ROUTER_TARGETS_MAX, sizeof *loads);
    if (!loads)
        return err_new(ERR_RESOURCE_EXHAUSTED, "out of memory");
    memset(out, 0, ROUTER_TARGETS_MAX * sizeof *out);
    for (size_t i = 0; i < options->n_targets; i++)
        loads[i].out = &out[i];
    err_t e = measure(loads, options);
    for (size_t i = 0; i < options->n_targets; i++) {
        if (loads[i].connection)
            loads[i].driver->close(loads[i].connection);
        samples_free(&loads[i].whole_us);
        samples_free(&loads[i].first_us);
        samples_free(&loads[i].last_us);
        mem_free(loads[i].requests);
    }
    mem_free(loads);
    return e;
}
