/* The client of the doors' bench: what is measured, over any door. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include "base/alloc.h"
#include "base/clock.h"
#include "base/mapped_file.h"
#include "base/progress.h"
#include "benchmarks/doors_internal.h"

enum { BY_ID, BY_TEXT };
enum { WARM_UP_ANSWERS = 64, ROLLUP_BYTES_MAX = 1 << 16 };
static const int64_t NS_PER_S = 1000000000, BEGIN_TIMEOUT_NS = 4000000000, SETTLE_NS = 300000000,
                     POLL_NS = 10000000, SILENCE_NS = 20000000000;
static const uint32_t IN_FLIGHT[DOORS_LOADS] = {1, 32};

static int64_t now(void)
{
    return clock_now_ns(clock_monotonic());
}

static void fail(struct doors_client *client, err_t e)
{
    if (e.code != ERR_OK && client->failure.code == ERR_OK)
        client->failure = e;
}

/* --- tokens back to steps */

static uint32_t key_of_text(const char *text)
{
    uint32_t key;
    memcpy(&key, text, sizeof key);
    return key;
}

/* The slot of a key, or the free one where it belongs. */
static uint32_t find_slot(const struct doors_client *client, int table, uint32_t key)
{
    uint32_t slot = key * 2654435761u >> 22;
    while (client->code_keys[table][slot] != 0 && client->code_keys[table][slot] != key)
        slot = (slot + 1) % DOORS_CODE_SLOTS;
    return slot;
}

static void learn_codes(struct doors_client *client)
{
    for (uint32_t i = 0; i < client->shared->n_codes; i++) {
        const uint32_t keys[2] = {client->shared->code_ids[i] + 1,
                                  key_of_text(client->shared->code_texts[i])};
        for (int table = BY_ID; table <= BY_TEXT; table++) {
            uint32_t slot = find_slot(client, table, keys[table]);
            client->code_keys[table][slot] = keys[table];
            client->codes[table][slot] = (uint16_t)i;
        }
    }
}

/* A stream has a token of every step, so the next token's step is the next of its code. */
static void take_token(struct doors_request *request, int table, uint32_t key, int64_t now_ns)
{
    struct doors_client *client = request->client;
    struct doors_shared *shared = client->shared;
    uint32_t slot = find_slot(client, table, key);
    if (client->code_keys[table][slot] != key) {
        fail(client, err_new(ERR_DATA_LOSS, "a token came that no step has drawn"));
        return;
    }
    uint64_t code = client->codes[table][slot], n_codes = shared->n_codes;
    if (request->n_tokens++ == 0) {
        uint64_t newest = atomic_load_explicit(&shared->n_steps, memory_order_acquire) - 1;
        request->last_step = newest - (newest + n_codes - code) % n_codes;
        client->n_begun++;
    } else {
        request->last_step += 1 + (code + n_codes - (request->last_step + 1) % n_codes) % n_codes;
    }
    client->tokens++;
    if (!client->measuring || request->whole)
        return;
    int64_t ready_ns =
        atomic_load_explicit(&shared->ready_ns[request->last_step % DOORS_STAMPS], memory_order_relaxed);
    fail(client, samples_add(&client->samples, (double)(now_ns - ready_ns) / 1e3));
}

void doors_client_ids(struct doors_request *request, const uint32_t *ids, size_t n_ids, int64_t now_ns)
{
    request->client->messages++;
    for (size_t i = 0; i < n_ids; i++)
        take_token(request, BY_ID, ids[i] + 1, now_ns);
}

void doors_client_text(struct doors_request *request, const char *text, size_t text_bytes, int64_t now_ns)
{
    request->client->messages++;
    if (text_bytes % DOORS_CODE_BYTES != 0)
        fail(request->client, err_new(ERR_DATA_LOSS, "a text came that is not of whole tokens"));
    for (size_t at = 0; at + DOORS_CODE_BYTES <= text_bytes; at += DOORS_CODE_BYTES)
        take_token(request, BY_TEXT, key_of_text(text + at), now_ns);
}

static void start(struct doors_client *client, struct doors_request *request)
{
    request->n_tokens = 0;
    request->started_ns = now();
    client->n_started++;
    fail(client, client->driver->start(client->connection, request));
}

void doors_client_done(struct doors_request *request, const err_t *error)
{
    struct doors_client *client = request->client;
    if (client->closing)
        return;
    if (error->code != ERR_OK) {
        fail(client, *error);
        return;
    }
    if (!request->whole) {
        fail(client, err_new(ERR_DATA_LOSS, "a stream ended after %" PRIu64 " of %u tokens",
                             request->n_tokens, request->max_tokens));
        return;
    }
    if (request->n_tokens != request->max_tokens)
        fail(client, err_new(ERR_DATA_LOSS, "an answer came with %" PRIu64 " tokens", request->n_tokens));
    int64_t now_ns = now();
    client->n_done++;
    if (client->measuring)
        fail(client, samples_add(&client->samples, (double)(now_ns - request->started_ns) / 1e3));
    if (now_ns < client->until_ns && client->failure.code == ERR_OK)
        start(client, request);
}

/* --- what the processes take */

static double cpu_s(clockid_t clock)
{
    struct timespec time;
    return clock_gettime(clock, &time) == 0 ? (double)time.tv_sec + (double)time.tv_nsec * 1e-9 : 0;
}

static double server_cpu_s(const struct doors_client *client)
{
    clockid_t clock;
    return clock_getcpuclockid(client->server, &clock) == 0 ? cpu_s(clock) : 0;
}

/* See proc(5): smaps_rollup counts pages, where other files add up what threads say now and then. */
static uint64_t server_rss_bytes(const struct doors_client *client)
{
    char path[64];
    char *text;
    size_t size_bytes;
    uint64_t kib = 0;
    (void)snprintf(path, sizeof path, "/proc/%ld/smaps_rollup", (long)client->server);
    if (file_read(path, ROLLUP_BYTES_MAX, &text, &size_bytes).code != ERR_OK)
        return 0;
    const char *line = strstr(text, "\nRss:");
    if (line)
        kib = strtoull(line + strlen("\nRss:"), NULL, 10);
    mem_free(text);
    return kib * 1024;
}

/* --- phases */

static void poll_once(struct doors_client *client, int64_t timeout_ns)
{
    fail(client, client->driver->poll(client->connection, timeout_ns < POLL_NS ? timeout_ns : POLL_NS));
    if (client->messages + client->n_started != client->seen) {
        client->seen = client->messages + client->n_started;
        client->seen_ns = now();
    } else if (now() - client->seen_ns > SILENCE_NS) {
        fail(client,
             err_new(ERR_DEADLINE_EXCEEDED, "nothing has come for %d s; %u of %u answers are out",
                     (int)(SILENCE_NS / NS_PER_S), client->n_started - client->n_done, client->n_started));
    }
    if (atomic_load(&client->shared->failed))
        fail(client, err_new(ERR_UNAVAILABLE, "the server has gone"));
}

static void poll_until(struct doors_client *client, int64_t end_ns)
{
    for (int64_t left_ns = end_ns - now(); left_ns > 0 && client->failure.code == ERR_OK;
         left_ns = end_ns - now())
        poll_once(client, left_ns);
}

static void open_connection(struct doors_client *client)
{
    client->n_begun = client->n_started = client->n_done = 0;
    client->closing = false;
    client->seen_ns = now();
    fail(client, client->driver->open(client, &client->connection));
}

static void close_connection(struct doors_client *client)
{
    client->closing = true;
    if (client->connection)
        client->driver->close(client->connection);
    client->connection = NULL;
    samples_free(&client->samples);
}

/* Answers of one token for a while, n at once; at least `least` of them. Returns when none is under way. */
static void ask_wholes(struct doors_client *client, uint32_t n, int64_t duration_ns, uint32_t least)
{
    int64_t end_ns = now() + duration_ns;
    client->until_ns = least > 0 ? INT64_MAX : end_ns;
    for (uint32_t i = 0; i < n && client->failure.code == ERR_OK; i++) {
        client->requests[i].whole = true;
        client->requests[i].max_tokens = 1;
        start(client, &client->requests[i]);
    }
    while (client->failure.code == ERR_OK && client->n_done < least)
        poll_once(client, POLL_NS);
    client->until_ns = end_ns;
    while (client->failure.code == ERR_OK && client->n_done < client->n_started)
        poll_once(client, POLL_NS);
}

static void warm_up(struct doors_client *client)
{
    open_connection(client);
    ask_wholes(client, 1, 0, WARM_UP_ANSWERS);
    close_connection(client);
}

static void measure_unary(struct doors_client *client, uint32_t in_flight, struct doors_unary *out)
{
    atomic_store(&client->shared->step_ns, 0);
    open_connection(client);
    out->in_flight = in_flight;
    ask_wholes(client, in_flight, SETTLE_NS, 0); /* connections are made */
    uint32_t before = client->n_done;
    double cpu_before_s = server_cpu_s(client);
    int64_t began_ns = now();
    client->measuring = true;
    ask_wholes(client, in_flight, (int64_t)(client->options->seconds * 1e9), 0);
    client->measuring = false;
    out->elapsed_s = (double)(now() - began_ns) / 1e9;
    out->server_cpu_s = server_cpu_s(client) - cpu_before_s;
    out->requests = client->n_done - before;
    samples_sort(&client->samples);
    out->p50_us = samples_percentile(&client->samples, 50);
    out->p99_us = samples_percentile(&client->samples, 99);
    close_connection(client);
}

static void start_streams(struct doors_client *client)
{
    uint32_t n = client->options->n_streams;
    for (uint32_t i = 0; i < n && client->failure.code == ERR_OK; i++) {
        client->requests[i].whole = false;
        client->requests[i].max_tokens = doors_stream_tokens(client->options);
        start(client, &client->requests[i]);
    }
    int64_t limit_ns = now() + BEGIN_TIMEOUT_NS;
    while (client->failure.code == ERR_OK && client->n_begun < n) {
        poll_once(client, POLL_NS);
        if (now() > limit_ns)
            fail(client, err_new(ERR_DEADLINE_EXCEEDED, "%u of %u streams have begun after %d s",
                                 client->n_begun, n, (int)(BEGIN_TIMEOUT_NS / NS_PER_S)));
    }
    poll_until(client, now() + SETTLE_NS);
}

static void measure_streams(struct doors_client *client, struct doors_result *out)
{
    struct doors_shared *shared = client->shared;
    out->rss_idle_bytes = server_rss_bytes(client);
    atomic_store(&shared->step_ns, client->options->step_ns);
    open_connection(client);
    start_streams(client);
    client->tokens = client->messages = 0;
    uint64_t steps = atomic_load(&shared->n_steps), allocations = atomic_load(&shared->allocations),
             pauses = atomic_load(&shared->pauses);
    int64_t began_ns = now(), loop_ns = atomic_load(&shared->loop_cpu_ns);
    double server_s = server_cpu_s(client), client_s = cpu_s(CLOCK_PROCESS_CPUTIME_ID);
    client->measuring = true;
    poll_until(client, began_ns + (int64_t)(client->options->seconds * 1e9));
    while (client->failure.code == ERR_OK &&
           (client->tokens == 0 || atomic_load(&shared->n_steps) == steps)) /* nobody had a core meanwhile */
        poll_once(client, POLL_NS);
    client->measuring = false;
    out->client_cpu_s = cpu_s(CLOCK_PROCESS_CPUTIME_ID) - client_s;
    out->server_cpu_s = server_cpu_s(client) - server_s;
    out->elapsed_s = (double)(now() - began_ns) / 1e9;
    out->loop_cpu_s = (double)(atomic_load(&shared->loop_cpu_ns) - loop_ns) / 1e9;
    out->steps = atomic_load(&shared->n_steps) - steps;
    out->allocations = atomic_load(&shared->allocations) - allocations;
    out->pauses = atomic_load(&shared->pauses) - pauses;
    out->tokens = client->tokens;
    out->messages = client->messages;
    out->rss_open_bytes = server_rss_bytes(client);
    samples_sort(&client->samples);
    out->added_p50_us = samples_percentile(&client->samples, 50);
    out->added_p99_us = samples_percentile(&client->samples, 99);
    out->added_max_us = samples_percentile(&client->samples, 100);
    close_connection(client);
}

static void measure(struct doors_client *client, const char *door)
{
    struct doors_result *out = &client->shared->result;
    struct progress progress;
    if (client->options->show_progress)
        progress_begin(&progress, door, 1 + DOORS_LOADS);
    warm_up(client);
    if (client->failure.code == ERR_OK)
        measure_streams(client, out);
    for (uint64_t i = 0; i < DOORS_LOADS && client->failure.code == ERR_OK; i++) {
        if (client->options->show_progress)
            progress_update(&progress, 1 + i);
        measure_unary(client, IN_FLIGHT[i], &out->unary[i]);
    }
    if (client->options->show_progress)
        progress_end(&progress);
    out->measured = client->failure.code == ERR_OK;
}

static err_t prepare(struct doors_client *client)
{
    const struct doors_options *options = client->options;
    uint32_t n = options->n_streams;
    for (uint32_t i = 0; i < DOORS_LOADS; i++)
        n = IN_FLIGHT[i] > n ? IN_FLIGHT[i] : n;
    client->requests = mem_alloc_array(n, sizeof *client->requests);
    client->prompts = mem_alloc_array((size_t)n * options->input_len, sizeof *client->prompts);
    if (!client->requests || !client->prompts)
        return err_new(ERR_RESOURCE_EXHAUSTED, "out of memory for %u streams", n);
    for (size_t i = 0; i < (size_t)n * options->input_len; i++)
        client->prompts[i] = (uint32_t)((i * 2654435761u >> 8) % options->vocab_size);
    for (uint32_t i = 0; i < n; i++)
        client->requests[i] = (struct doors_request){
            .client = client, .prompt_ids = client->prompts + (size_t)i * options->input_len};
    learn_codes(client);
    return err_ok();
}

void doors_client_run(const struct doors_options *options, enum doors_kind kind, pid_t server,
                      struct doors_shared *shared)
{
    static const struct doors_driver *const drivers[DOOR_KINDS] = {
        [DOOR_NATIVE] = &doors_driver_native,
        [DOOR_FACADE] = &doors_driver_facade,
        [DOOR_HTTP] = &doors_driver_http,
    };
    struct doors_client *client = mem_alloc(sizeof *client);
    err_t e = err_new(ERR_RESOURCE_EXHAUSTED, "out of memory");
    if (client) {
        client->options = options;
        client->shared = shared;
        client->server = server;
        client->driver = drivers[kind];
        client->failure = err_ok();
        e = prepare(client);
        if (e.code == ERR_OK) {
            measure(client, doors_kind_name(kind));
            e = client->failure;
        }
        mem_free(client->requests);
        mem_free(client->prompts);
        mem_free(client);
    }
    if (e.code != ERR_OK)
        doors_fail(shared, &e);
}
