/* A load on a running server over gRPC: closed loop (a fixed number of streams) or open loop (arrivals at a
 * rate).
 *
 * Definitions, per request with n output tokens: TTFT = first token - start; E2E = last token - start; TPOT =
 * (E2E - TTFT) / (n - 1); ITL: the gaps between messages, pooled over all requests, a message of k tokens
 * counting as k gaps of a k-th each. In an open loop `start` is the scheduled arrival, so that time spent
 * waiting in the client counts too. */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include "base/buffer.h"
#include "benchmarks/arrivals.h"
#include "benchmarks/bench_data.h"
#include "benchmarks/latency_stats.h"

struct serve_bench_options {
    const char *target; /* "127.0.0.1:50051" */
    struct arrival_options arrivals;
    uint32_t max_concurrency; /* streams at once; 0 = no bound */
    bool ignore_eos;
    double temperature;
    double goodput_ttft_ms, goodput_tpot_ms, goodput_e2el_ms; /* 0 = not part of the goal */
    int64_t timeout_ns;                                       /* of one request; negative = none */
    bool show_progress;
};

struct serve_request_result {
    int64_t start_ns;               /* after the load's beginning */
    int64_t ttft_ns, e2el_ns;       /* -1 = never */
    uint32_t input_len, output_len; /* tokens, as the server counted */
    char *error;                    /* owned; NULL = it went well */
};

struct serve_bench_result {
    struct serve_request_result *requests; /* [n] owned */
    size_t n;
    int64_t duration_ns;
    uint32_t max_concurrent_requests;
    struct samples itl_ms; /* pooled */
    uint64_t
        *tokens_per_second; /* [n_seconds] owned: output tokens that arrived in each second of the load */
    size_t n_seconds;
};

/* vocab_size of the served model, by ModelInfo. UNAVAILABLE when nobody answers. */
err_t serve_bench_vocab_size(const char *target, uint32_t *out) ERR_MUST_CHECK;
/* Failed requests are counted in the result; only a load that cannot run at all is an error. */
err_t serve_bench_run(const struct serve_bench_options *options, const struct bench_data *data,
                      struct serve_bench_result *out) ERR_MUST_CHECK;
void serve_bench_free(struct serve_bench_result *result);

/* One JSON object with the field names of vLLM's `bench serve`; `detailed` adds the arrays per request. */
bool serve_report_json(const struct serve_bench_options *options, struct serve_bench_result *result,
                       bool detailed, struct buffer *out);
/* The same as a table for people. */
bool serve_report_text(const struct serve_bench_options *options, struct serve_bench_result *result,
                       struct buffer *out);
