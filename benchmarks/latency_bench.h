/* A load of arrivals on an engine in process: what bench serve does, without a network. Requests come by a
 * clock of their own, whatever the engine is at, through the one loop, and are timed from their scheduled
 * start. */
#pragma once

#include "benchmarks/bench_data.h"
#include "benchmarks/load_result.h"
#include "engine/engine.h"

/* The first n_warmups prompts run before the load begins, all at once, and are not part of the result.
 * A full queue counts as a failed request, as it would for a client; a request that can never run is an
 * error. The caller frees *out with load_result_free in any case. */
err_t latency_bench_run(struct engine *engine, const struct load_options *options,
                        const struct bench_data *data, size_t n_warmups,
                        struct load_result *out) ERR_MUST_CHECK;
