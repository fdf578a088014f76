/* What became of the requests of a load, and the report: the same for a server over gRPC (serve_bench.h) and
 * an engine in process (latency_bench.h).
 *
 * Definitions, per request with n output tokens: TTFT = first token - start; E2E = last token - start; TPOT =
 * (E2E - TTFT) / (n - 1); ITL: the gaps between arrivals, pooled over all requests, an arrival of k tokens
 * counting as k gaps of a k-th each. In an open loop `start` is the scheduled arrival, so that time spent
 * waiting in the client counts too. Of such a loop at one rate also the steady throughput: the answers that
 * ended in the second half of the arrivals, by its length. One thread. */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include "api/event.h"
#include "base/buffer.h"
#include "base/error.h"
#include "benchmarks/arrivals.h"
#include "benchmarks/latency_stats.h"

struct load_options {
    struct arrival_options arrivals;
    uint32_t max_concurrency; /* streams at once; 0 = no bound */
    bool ignore_eos;
    double temperature;
    double goodput_ttft_ms, goodput_tpot_ms, goodput_e2el_ms; /* 0 = not part of the goal */
    bool show_progress;
    const _Atomic bool *stop; /* set: the load ends, with what has ended by then; NULL = never */
    bool is_unshared;         /* its prompts have nothing in common: cached tokens are of earlier loads */
};

struct load_request_result {
    int64_t start_ns;               /* after the load's beginning */
    int64_t ttft_ns, e2el_ns;       /* -1 = never */
    uint32_t input_len, output_len; /* tokens, as the service counted */
    uint32_t cached_len;            /* of input_len: read from the prefix cache */
    char *error;                    /* owned; NULL = it went well */
    bool has_ended;
};

struct load_result {
    struct load_request_result *requests; /* [n] owned */
    size_t n;
    int64_t duration_ns;
    uint32_t max_concurrent_requests;
    struct samples itl_ms; /* pooled */
    uint64_t
        *tokens_per_second; /* [n_seconds] owned: output tokens that arrived in each second of the load */
    size_t n_seconds, seconds_capacity;
    int64_t retries;           /* requests sent once more, all together; -1 = the load does not do that */
    bool is_partial;           /* it was stopped: `requests` are those that had ended by then */
    size_t n_wanted;           /* requests that there would have been */
    int64_t start_to_ready_ns; /* what it took to open the engine; -1 = the engine was there already */
};

err_t load_result_init(size_t n, struct load_result *out) ERR_MUST_CHECK;
void load_result_free(struct load_result *result);
/* Request `index` starts, for its figures, at start_ns after the load's beginning. */
void load_result_start(struct load_result *result, size_t index, int64_t start_ns);
/* n_tokens of it arrived together, now_ns after the load's beginning. */
err_t load_result_tokens(struct load_result *result, size_t index, size_t n_tokens,
                         int64_t now_ns) ERR_MUST_CHECK;
/* It ended, with these counts. */
void load_result_usage(struct load_result *result, size_t index, const struct usage *usage);
void load_result_fail(struct load_result *result, size_t index, const char *message);
/* Nothing more comes of it. */
void load_result_end(struct load_result *result, size_t index);

/* A load that was stopped: requests that had not ended are none of its. Their tokens stay where tokens are
 * counted and not requests: in ITL, and in the tokens of each second. */
void load_result_cut(struct load_result *result);
/* How long to wait for news where the next start is due in next_ns, -1 = by an answer alone: somebody may
 * wish to stop meanwhile. */
int64_t load_wait_ns(int64_t next_ns);

/* An open loop has arrivals at a rate; a closed one starts a request when another ends. */
bool load_is_open(const struct load_options *options);

/* One JSON object with the field names of vLLM's `bench serve`; `detailed` adds the arrays per request. */
bool load_report_json(const struct load_options *options, struct load_result *result, bool detailed,
                      struct buffer *out);
/* The same as a table for people. */
bool load_report_text(const struct load_options *options, struct load_result *result, struct buffer *out);
