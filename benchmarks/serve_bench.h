/* A load on a running server over gRPC: closed loop (a fixed number of streams) or open loop (arrivals at a
 * rate). */
#pragma once

#include "benchmarks/bench_data.h"
#include "benchmarks/load_result.h"

struct serve_bench_options {
    const char *target; /* "127.0.0.1:50051" */
    struct load_options load;
    int64_t timeout_ns; /* of one request; negative = none */
};

/* vocab_size of the served model, by ModelInfo. UNAVAILABLE when nobody answers. */
err_t serve_bench_vocab_size(const char *target, uint32_t *out) ERR_MUST_CHECK;
/* Failed requests are counted in the result, which the caller frees with load_result_free in any case; only a
 * load that cannot run at all is an error. */
err_t serve_bench_run(const struct serve_bench_options *options, const struct bench_data *data,
                      struct load_result *out) ERR_MUST_CHECK;
