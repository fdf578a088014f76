/* A load on a server (serve_bench.h) and the wires that carry it. One thread. */
#pragma once

#include "benchmarks/serve_bench.h"

struct serve_load;

/* A wire, as the load sees it. Its requests are named by their index in the data. */
struct serve_driver {
    err_t (*open)(const struct serve_bench_options *options, struct serve_load *load, void **out);
    err_t (*start)(void *driver, const struct bench_prompt *prompt, size_t index);
    /* Handles what has come, or waits for it, not longer than timeout_ns; negative = as long as it takes. */
    err_t (*poll)(void *driver, int64_t timeout_ns);
    int64_t (*retries)(const void *driver); /* requests sent once more; -1 = the wire does not do that */
    void (*close)(void *driver);            /* NULL is fine */
};
extern const struct serve_driver serve_driver_grpc, serve_driver_http;

/* From a driver: n tokens came together, at this moment; what was counted; the end. error: NULL = it went
 * well. */
void serve_load_tokens(struct serve_load *load, size_t index, size_t n_tokens);
void serve_load_usage(struct serve_load *load, size_t index, const struct usage *usage);
void serve_load_done(struct serve_load *load, size_t index, const char *error);
