/* The server of the doors' bench. */
#include <string.h>
#include <time.h>
#include <unistd.h>
#include "api/metrics.h"
#include "base/alloc.h"
#include "base/clock.h"
#include "benchmarks/doors_internal.h"
#include "benchmarks/null_executor.h"
#include "engine/engine.h"
#include "proto/grpc_door.h"
#include "proto/http_door.h"

enum {
    SERVED_BATCHED_TOKENS = 4096,
    SERVED_BLOCK_TOKENS = 16,
    SERVED_SEQS_MIN = 64,
};
static const int64_t NS_PER_S = 1000000000;

struct doors_server {
    const struct doors_options *options;
    struct doors_shared *shared;
    struct null_executor null_model;
    struct engine *engine;
    struct grpc_door *grpc;
    struct http_door *http;
    int64_t due_ns; /* the loop's: when the last step was to end */
};

static struct timespec timespec_of(int64_t ns)
{
    return (struct timespec){.tv_sec = ns / NS_PER_S, .tv_nsec = ns % NS_PER_S};
}

/* Steps end at a fixed rate; a late one is not made up for. */
static void wait_for_step(void *context)
{
    struct doors_server *server = context;
    int64_t step_ns = atomic_load_explicit(&server->shared->step_ns, memory_order_relaxed);
    if (step_ns == 0)
        return;
    int64_t now_ns = clock_now_ns(clock_monotonic());
    server->due_ns = server->due_ns + step_ns > now_ns ? server->due_ns + step_ns : now_ns;
    struct timespec due = timespec_of(server->due_ns);
    while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &due, NULL) != 0) {
    }
}

static int64_t thread_cpu_ns(void)
{
    struct timespec time;
    (void)clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time);
    return (int64_t)time.tv_sec * NS_PER_S + time.tv_nsec;
}

/* The step's token, and its stamp. */
static uint32_t draw_token(void *context)
{
    struct doors_server *server = context;
    struct doors_shared *shared = server->shared;
    uint64_t step = atomic_load_explicit(&shared->n_steps, memory_order_relaxed);
    const struct metrics *metrics =
        engine_service(server->engine)->vtable->metrics(engine_service(server->engine));
    atomic_store_explicit(&shared->loop_cpu_ns, thread_cpu_ns(), memory_order_relaxed);
    atomic_store_explicit(&shared->allocations, mem_alloc_count(), memory_order_relaxed);
    atomic_store_explicit(&shared->pauses, metric_read(&metrics->slow_reader_pauses[0]),
                          memory_order_relaxed);
    atomic_store_explicit(&shared->ready_ns[step % DOORS_STAMPS], clock_now_ns(clock_monotonic()),
                          memory_order_relaxed);
    atomic_store_explicit(&shared->n_steps, step + 1, memory_order_release);
    return shared->code_ids[step % shared->n_codes];
}

static bool are_letters(const char *text)
{
    for (int i = 0; i < DOORS_CODE_BYTES; i++)
        if (((text[i] | 0x20) < 'a') || ((text[i] | 0x20) > 'z'))
            return false;
    return true;
}

/* Tokens of a few letters each, which text can be cut into again. */
static err_t choose_codes(const struct doors_server *server)
{
    struct doors_shared *shared = server->shared;
    struct service *service = engine_service(server->engine);
    struct buffer text = {.limit_bytes = 1 << 16};
    for (uint32_t id = 0; id < server->options->vocab_size && shared->n_codes < DOORS_CODES_MAX; id++) {
        const uint32_t twice[2] = {id, id};
        buffer_clear(&text);
        err_t e = service->vtable->detokenize(service, twice, 2, false, &text);
        if (e.code != ERR_OK || text.size != 2 * DOORS_CODE_BYTES || !are_letters(text.data) ||
            memcmp(text.data, text.data + DOORS_CODE_BYTES, DOORS_CODE_BYTES) != 0)
            continue;
        shared->code_ids[shared->n_codes] = id;
        memcpy(shared->code_texts[shared->n_codes++], text.data, DOORS_CODE_BYTES);
    }
    buffer_free(&text);
    if (shared->n_codes < DOORS_CODES_MIN)
        return err_new(ERR_INVALID_ARGUMENT,
                       "the tokenizer has %u tokens of %d letters; the bench needs %d to tell steps apart",
                       shared->n_codes, DOORS_CODE_BYTES, DOORS_CODES_MIN);
    return err_ok();
}

static err_t open_engine(struct doors_server *server)
{
    const struct doors_options *options = server->options;
    uint32_t n_seqs = options->n_streams > SERVED_SEQS_MIN ? options->n_streams : SERVED_SEQS_MIN;
    uint32_t model_len = options->input_len + doors_stream_tokens(options);
    server->null_model = (struct null_executor){
        .info = {.architecture = "none",
                 .dtype = "none",
                 .quantization = "none",
                 .vocab_size = options->vocab_size,
                 .max_model_len = model_len,
                 .num_kv_blocks = n_seqs * (model_len / SERVED_BLOCK_TOKENS + 1),
                 .block_tokens = SERVED_BLOCK_TOKENS,
                 .max_num_seqs = n_seqs,
                 .max_num_batched_tokens = SERVED_BATCHED_TOKENS,
                 .steps_in_flight = 1},
        .forward = wait_for_step,
        .token = draw_token,
        .context = server,
    };
    struct executor executor = null_executor_of(&server->null_model);
    struct engine_options engine = engine_options_default();
    return engine_open_executor(&engine, &executor, options->text, &server->engine);
}

static err_t open_doors(struct doors_server *server)
{
    struct service *service = engine_service(server->engine);
    struct grpc_door_options grpc = grpc_door_options_default();
    struct http_door_options http = http_door_options_default();
    grpc.port = http.port = 0;
    TRY(grpc_door_open(service, &grpc, &server->grpc));
    TRY(http_door_open(service, &http, &server->http));
    server->shared->grpc_port = grpc_door_port(server->grpc);
    server->shared->http_port = http_door_port(server->http);
    return err_ok();
}

void doors_serve(const struct doors_options *options, struct doors_shared *shared, int ready_fd, int stop_fd)
{
    struct doors_server server = {.options = options, .shared = shared};
    err_t e = open_engine(&server);
    if (e.code == ERR_OK)
        e = choose_codes(&server);
    if (e.code == ERR_OK)
        e = open_doors(&server);
    if (e.code != ERR_OK)
        doors_fail(shared, &e);
    char byte = 0;
    if (write(ready_fd, &byte, 1) == 1 && e.code == ERR_OK)
        while (read(stop_fd, &byte, 1) > 0) {
        }
    http_door_close(server.http);
    grpc_door_close(server.grpc);
    if (server.engine)
        engine_close(server.engine);
}
