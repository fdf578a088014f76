/* What is counted, for Prometheus: one table, from which the storage, the text (proto/metrics_text.h) and
 * docs/metrics.md come. A service owns one `struct metrics`; its loop, its readers and the doors in front
 * record in it from any thread, without a lock and without allocating. Names and buckets that begin with
 * "vllm:" are those of vLLM's v1 engine, so that dashboards and balancers made for it work here.
 *
 * Labels come from the fixed sets below: nothing that a client sends becomes one, and the number of series is
 * constant. */
#pragma once

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "api/event.h"
#include "base/error.h"

/* ---- Label sets: X(symbol, "label value") ---- */

#define METRIC_REASONS(X)                                                                                    \
    X(STOP, "stop")                                                                                          \
    X(LENGTH, "length")                                                                                      \
    X(ABORT, "abort") X(ERROR, "error") X(TOOL_CALLS, "tool_calls") X(CONTENT_FILTER, "content_filter")

#define METRIC_DOORS(X) X(GRPC, "grpc") X(HTTP, "http")

/* gRPC's statuses, in their numerical order. */
#define METRIC_GRPC_CODES(X)                                                                                 \
    X(OK)                                                                                                    \
    X(CANCELLED)                                                                                             \
    X(UNKNOWN)                                                                                               \
    X(INVALID_ARGUMENT)                                                                                      \
    X(DEADLINE_EXCEEDED)                                                                                     \
    X(NOT_FOUND)                                                                                             \
    X(ALREADY_EXISTS)                                                                                        \
    X(PERMISSION_DENIED)                                                                                     \
    X(RESOURCE_EXHAUSTED)                                                                                    \
    X(FAILED_PRECONDITION)                                                                                   \
    X(ABORTED)                                                                                               \
    X(OUT_OF_RANGE)                                                                                          \
    X(UNIMPLEMENTED)                                                                                         \
    X(INTERNAL)                                                                                              \
    X(UNAVAILABLE)                                                                                           \
    X(DATA_LOSS)                                                                                             \
    X(UNAUTHENTICATED)

/* HTTP's; what is not among them counts as "other". */
#define METRIC_HTTP_CODES(X)                                                                                 \
    X(200)                                                                                                   \
    X(202)                                                                                                   \
    X(400)                                                                                                   \
    X(401)                                                                                                   \
    X(403)                                                                                                   \
    X(404)                                                                                                   \
    X(405)                                                                                                   \
    X(408)                                                                                                   \
    X(413)                                                                                                   \
    X(414)                                                                                                   \
    X(415)                                                                                                   \
    X(417)                                                                                                   \
    X(429)                                                                                                   \
    X(431)                                                                                                   \
    X(499)                                                                                                   \
    X(500)                                                                                                   \
    X(501)                                                                                                   \
    X(503)                                                                                                   \
    X(504)                                                                                                   \
    X(505)

#define METRIC_COUNT_ONE(...) +1

enum metric_door { METRIC_DOOR_GRPC, METRIC_DOOR_HTTP, METRIC_DOORS_COUNT };
enum {
    METRIC_GRPC_CODES_COUNT = 0 METRIC_GRPC_CODES(METRIC_COUNT_ONE),
    METRIC_HTTP_CODES_COUNT = 0 METRIC_HTTP_CODES(METRIC_COUNT_ONE) + 1, /* and "other" */
    METRIC_ERROR_CODES_COUNT = ERR_INTERNAL,                             /* without ERR_OK */
};

/* How many series a metric has. */
enum {
    METRIC_SERIES_MODEL = 1, /* model_name alone */
    METRIC_SERIES_PROCESS = 1,
    METRIC_SERIES_REASON = 0 METRIC_REASONS(METRIC_COUNT_ONE),                /* finished_reason */
    METRIC_SERIES_DOOR = METRIC_DOORS_COUNT,                                  /* door */
    METRIC_SERIES_ANSWER = METRIC_GRPC_CODES_COUNT + METRIC_HTTP_CODES_COUNT, /* door, code */
    METRIC_SERIES_REFUSAL = METRIC_DOORS_COUNT * METRIC_ERROR_CODES_COUNT,    /* door, code */
};

/* ---- The table: X(kind, symbol, series or buckets, unit, "name", "help") ----
 * kind: COUNTER, GAUGE, HISTOGRAM are stored in struct metrics; READ_COUNTER and READ_GAUGE are read when
 * somebody asks (struct metric_readings); INFO is 1 with labels that tell something (also a reading).
 * unit: what a stored 1 is: NS (written as seconds) or ONE. */

#define METRIC_LOOP_ROWS(X)                                                                                  \
    X(HISTOGRAM, time_to_first_token, FIRST_TOKEN, NS, "vllm:time_to_first_token_seconds",                   \
      "From a request's arrival to the drawing of a choice's first token.")                                  \
    X(HISTOGRAM, inter_token_latency, BETWEEN_TOKENS, NS, "vllm:inter_token_latency_seconds",                \
      "Between two tokens of a choice.")                                                                     \
    X(HISTOGRAM, iteration_tokens, STEP_TOKENS, ONE, "vllm:iteration_tokens_total",                          \
      "Tokens computed by a step, of prompts and of answers.")                                               \
    X(HISTOGRAM, step_time, STEP, NS, "bantam:step_time_seconds",                                            \
      "A turn of the loop that started a step: planning, computing, publishing.")                            \
    X(COUNTER, loop_overhead, MODEL, NS, "bantam:loop_overhead_seconds_total",                               \
      "Time of such turns outside the model.")                                                               \
    X(COUNTER, slow_reader_pauses, MODEL, ONE, "bantam:slow_reader_pauses_total",                            \
      "Choices put aside because their reader did not keep up.")                                             \
    X(COUNTER, slow_reader_cuts, MODEL, ONE, "bantam:slow_reader_cuts_total",                                \
      "Choices and answers cut because their reader did not take them for --stream-stall-timeout.")

#define METRIC_READER_ROWS(X)                                                                                \
    X(COUNTER, request_success, REASON, ONE, "vllm:request_success_total",                                   \
      "Choices that ended, by the reason that the client was told.")                                         \
    X(HISTOGRAM, e2e_latency, REQUEST, NS, "vllm:e2e_request_latency_seconds",                               \
      "From a request's arrival to the end of a choice.")                                                    \
    X(HISTOGRAM, queue_time, REQUEST, NS, "vllm:request_queue_time_seconds",                                 \
      "From a request's arrival until a choice was first scheduled.")                                        \
    X(HISTOGRAM, inference_time, REQUEST, NS, "vllm:request_inference_time_seconds",                         \
      "From first scheduled to the last token.")                                                             \
    X(HISTOGRAM, prefill_time, REQUEST, NS, "vllm:request_prefill_time_seconds",                             \
      "From first scheduled to the first token.")                                                            \
    X(HISTOGRAM, decode_time, REQUEST, NS, "vllm:request_decode_time_seconds",                               \
      "From the first token to the last.")                                                                   \
    X(HISTOGRAM, time_per_output_token, BETWEEN_TOKENS, NS, "vllm:request_time_per_output_token_seconds",    \
      "Mean time between the tokens of a choice that has at least two.")                                     \
    X(HISTOGRAM, request_prompt_tokens, TOKENS, ONE, "vllm:request_prompt_tokens",                           \
      "Prompt tokens of a choice that ended.")                                                               \
    X(HISTOGRAM, request_generation_tokens, TOKENS, ONE, "vllm:request_generation_tokens",                   \
      "Generated tokens of a choice that ended.")                                                            \
    X(HISTOGRAM, prefill_kv_computed, TOKENS, ONE, "vllm:request_prefill_kv_computed_tokens",                \
      "Prompt tokens that the prefix cache did not have.")                                                   \
    X(HISTOGRAM, request_params_n, CHOICES, ONE, "vllm:request_params_n",                                    \
      "The parameter n of accepted requests.")                                                               \
    X(HISTOGRAM, request_params_max_tokens, TOKENS, ONE, "vllm:request_params_max_tokens",                   \
      "The parameter max_tokens of accepted requests, with its default filled in.")

#define METRIC_DOOR_ROWS(X)                                                                                  \
    X(COUNTER, answers, ANSWER, ONE, "bantam:answers_total",                                                 \
      "Calls and requests of any kind that were answered, by status.")                                       \
    X(COUNTER, refusals, REFUSAL, ONE, "bantam:refusals_total",                                              \
      "Requests to generate that were not accepted, by the reason.")                                         \
    X(COUNTER, disconnects, DOOR, ONE, "bantam:disconnects_total",                                           \
      "Requests to generate whose client was gone, cancelled or out of time before the end.")                \
    X(COUNTER, received_bytes, DOOR, ONE, "bantam:received_bytes_total",                                     \
      "Bytes of messages (gRPC) or bodies (HTTP) that came.")                                                \
    X(COUNTER, sent_bytes, DOOR, ONE, "bantam:sent_bytes_total",                                             \
      "Bytes of messages (gRPC) or of answers with their heads (HTTP) that were sent.")                      \
    X(GAUGE, streams_open, DOOR, ONE, "bantam:streams_open", "Requests to generate that are under way.")     \
    X(GAUGE, http_connections, MODEL, ONE, "bantam:http_connections_open", "Connections of the HTTP door.")  \
    X(COUNTER, http_connections_evicted, MODEL, ONE, "bantam:http_connections_evicted_total",                \
      "Connections of the HTTP door without a request under way that gave way to new ones.")                 \
    X(COUNTER, connections_refused, DOOR, ONE, "bantam:connections_refused_total",                           \
      "Connections that were refused because there were as many as may be.")                                 \
    X(COUNTER, grpc_connections_cut, MODEL, ONE, "bantam:grpc_connections_cut_total",                        \
      "Connections of the gRPC door that were closed because they flooded it.")                              \
    X(GAUGE, draining, MODEL, ONE, "bantam:draining", "1 from the moment the server was told to stop.")

#define METRIC_READ_ROWS(X)                                                                                  \
    X(READ_GAUGE, running, MODEL, ONE, "vllm:num_requests_running", "Choices in the batch.")                 \
    X(READ_GAUGE, waiting, MODEL, ONE, "vllm:num_requests_waiting", "Choices that wait to be scheduled.")    \
    X(READ_GAUGE, paused, MODEL, ONE, "bantam:num_requests_paused",                                          \
      "Choices of slow readers that are put aside now.")                                                     \
    X(READ_GAUGE, kv_cache_usage, MODEL, ONE, "vllm:kv_cache_usage_perc",                                    \
      "Share of the KV blocks that requests own, 0 to 1.")                                                   \
    X(READ_GAUGE, kv_blocks_cached, MODEL, ONE, "bantam:kv_blocks_cached",                                   \
      "Free KV blocks that hold a prefix which can be used again.")                                          \
    X(READ_COUNTER, prefix_queries, MODEL, ONE, "vllm:prefix_cache_queries_total",                           \
      "Prompt tokens looked up in the prefix cache.")                                                        \
    X(READ_COUNTER, prefix_hits, MODEL, ONE, "vllm:prefix_cache_hits_total",                                 \
      "Prompt tokens found in the prefix cache.")                                                            \
    X(READ_COUNTER, prompt_tokens, MODEL, ONE, "vllm:prompt_tokens_total",                                   \
      "Prompt tokens of accepted requests.")                                                                 \
    X(READ_COUNTER, generation_tokens, MODEL, ONE, "vllm:generation_tokens_total", "Tokens drawn.")          \
    X(READ_COUNTER, preemptions, MODEL, ONE, "vllm:num_preemptions_total",                                   \
      "Choices put back into the queue for want of KV blocks.")                                              \
    X(READ_COUNTER, requests, MODEL, ONE, "bantam:requests_total", "Accepted requests.")                     \
    X(READ_COUNTER, requests_finished, MODEL, ONE, "bantam:requests_finished_total",                         \
      "Accepted requests that have ended.")                                                                  \
    X(READ_COUNTER, steps, MODEL, ONE, "bantam:steps_total", "Steps of the model.")                          \
    X(READ_GAUGE, tokens_per_s, MODEL, ONE, "bantam:tokens_per_second",                                      \
      "Tokens drawn a second, over the last seconds.")                                                       \
    X(READ_GAUGE, predicted_ttft, MODEL, ONE, "bantam:predicted_time_to_first_token_seconds",                \
      "For a request that comes now; -1 = unknown.")                                                         \
    X(READ_GAUGE, utilization, MODEL, ONE, "bantam:utilization",                                             \
      "What ORCA reports: the larger of KV usage and running / max_num_seqs.")                               \
    X(READ_GAUGE, heartbeat_age, MODEL, ONE, "bantam:heartbeat_age_seconds",                                 \
      "Since the loop last showed life; within a step it grows.")                                            \
    X(READ_GAUGE, failed, MODEL, ONE, "bantam:failed",                                                       \
      "1 when the device is lost: nothing is answered until a restart.")                                     \
    X(INFO, cache_config, INFO, ONE, "vllm:cache_config_info", "The KV cache: block_size, num_gpu_blocks.")  \
    X(INFO, model, INFO, ONE, "bantam:model_info",                                                           \
      "What answers: architecture, dtype, quantization, fingerprint.")                                       \
    X(INFO, build, INFO, ONE, "bantam:build_info", "The program's version.")                                 \
    X(READ_COUNTER, cpu_time, PROCESS, ONE, "process_cpu_seconds_total", "CPU time, user and system.")       \
    X(READ_GAUGE, resident, PROCESS, ONE, "process_resident_memory_bytes", "Resident memory.")               \
    X(READ_GAUGE, virtual_memory, PROCESS, ONE, "process_virtual_memory_bytes", "Virtual memory.")           \
    X(READ_GAUGE, start_time, PROCESS, ONE, "process_start_time_seconds", "Start, in Unix time.")            \
    X(READ_GAUGE, open_files, PROCESS, ONE, "process_open_fds", "Open file descriptors.")                    \
    X(READ_GAUGE, max_files, PROCESS, ONE, "process_max_fds", "Most file descriptors that may be open.")     \
    X(READ_GAUGE, threads, PROCESS, ONE, "process_threads", "Threads.")

#define METRIC_TABLE(X) METRIC_READ_ROWS(X) METRIC_LOOP_ROWS(X) METRIC_READER_ROWS(X) METRIC_DOOR_ROWS(X)

/* ---- Instruments ---- */

enum { METRIC_BUCKETS_MAX = 22 }; /* without the one for everything above */

/* Upper bounds, inclusive, ascending, in the metric's unit. */
struct metric_buckets {
    uint32_t n;
    uint64_t bounds[METRIC_BUCKETS_MAX];
};
extern const struct metric_buckets METRIC_BUCKETS_FIRST_TOKEN, METRIC_BUCKETS_BETWEEN_TOKENS,
    METRIC_BUCKETS_REQUEST, METRIC_BUCKETS_STEP, METRIC_BUCKETS_STEP_TOKENS, METRIC_BUCKETS_TOKENS,
    METRIC_BUCKETS_CHOICES;

struct metric_histogram {
    _Atomic uint64_t sum;                            /* in the metric's unit */
    _Atomic uint64_t counts[METRIC_BUCKETS_MAX + 1]; /* by bucket, not cumulative; the last: above all */
};

typedef _Atomic uint64_t metric_cell;

/* Any thread. */
static inline void metric_add(metric_cell *cell, uint64_t n)
{
    atomic_fetch_add_explicit(cell, n, memory_order_relaxed);
}
static inline void metric_subtract(metric_cell *cell, uint64_t n)
{
    atomic_fetch_sub_explicit(cell, n, memory_order_relaxed);
}
static inline uint64_t metric_read(const metric_cell *cell)
{
    return atomic_load_explicit(cell, memory_order_relaxed);
}

/* The bucket of a value. */
static inline uint32_t metric_bucket(const struct metric_buckets *buckets, uint64_t value)
{
    uint32_t i = 0;
    while (i < buckets->n && value > buckets->bounds[i])
        i++;
    return i;
}
/* n times the same value, by any thread. */
static inline void metric_record(struct metric_histogram *histogram, const struct metric_buckets *buckets,
                                 uint64_t value, uint64_t n)
{
    metric_add(&histogram->counts[metric_bucket(buckets, value)], n);
    metric_add(&histogram->sum, value * n);
}
/* One value, by the only thread that ever records there: no locked instruction. */
static inline void metric_record_alone(struct metric_histogram *histogram,
                                       const struct metric_buckets *buckets, uint64_t value)
{
    metric_cell *count = &histogram->counts[metric_bucket(buckets, value)];
    atomic_store_explicit(count, metric_read(count) + 1, memory_order_relaxed);
    atomic_store_explicit(&histogram->sum, metric_read(&histogram->sum) + value, memory_order_relaxed);
}

/* ---- Storage ---- */

#define METRIC_MEMBER_COUNTER(symbol, series)                 metric_cell symbol[METRIC_SERIES_##series];
#define METRIC_MEMBER_GAUGE(symbol, series)                   metric_cell symbol[METRIC_SERIES_##series];
#define METRIC_MEMBER_HISTOGRAM(symbol, series)               struct metric_histogram symbol;
#define METRIC_MEMBER(kind, symbol, series, unit, name, help) METRIC_MEMBER_##kind(symbol, series)

enum { METRIC_SECTION_PADDING = 128 }; /* bytes: no two kinds of threads share a cache line */

/* All zero at first. */
struct metrics {
    METRIC_LOOP_ROWS(METRIC_MEMBER)
    char loop_padding[METRIC_SECTION_PADDING];
    METRIC_READER_ROWS(METRIC_MEMBER)
    char reader_padding[METRIC_SECTION_PADDING];
    METRIC_DOOR_ROWS(METRIC_MEMBER)
};

/* Series of `answers` and `refusals`. grpc_status: 0..16, else UNKNOWN; code: not ERR_OK. */
size_t metric_answer_grpc(int grpc_status);
size_t metric_answer_http(int http_status);
size_t metric_refusal(enum metric_door door, enum err_code code);
/* reason: not FINISH_NONE. */
static inline size_t metric_reason(enum finish_reason reason)
{
    return (size_t)reason - 1;
}
/* The label pairs of a series, as `door="grpc",code="OK"`. */
const char *metric_reason_labels(size_t series);
const char *metric_door_labels(size_t series);
void metric_answer_labels(size_t series, char *out, size_t out_bytes);
void metric_refusal_labels(size_t series, char *out, size_t out_bytes);
