/* A load on a running server, over gRPC or as OpenAI-compatible HTTP: closed loop (a fixed number of streams)
 * or open loop (arrivals at a rate). */
#pragma once

#include "benchmarks/bench_data.h"
#include "benchmarks/load_result.h"
#include "clients/c/bantam_client.h"

struct serve_bench_options {
    struct bantam_client_options client;
    struct load_options load;
    int64_t timeout_ns;     /* of one request; negative = none. Over gRPC */
    const char *openai_url; /* "http://127.0.0.1:8080": that server's /v1 over HTTP; NULL = gRPC */
    const char *model;      /* named in the bodies of HTTP requests; NULL = none */
};

/* vocab_size of the served model, by ModelInfo. UNAVAILABLE when nobody answers. */
err_t serve_bench_vocab_size(const struct bantam_client_options *client, uint32_t *out) ERR_MUST_CHECK;
/* Failed requests are counted in the result, which the caller frees with load_result_free in any case; only a
 * load that cannot run at all is an error. */
err_t serve_bench_run(const struct serve_bench_options *options, const struct bench_data *data,
                      struct load_result *out) ERR_MUST_CHECK;
