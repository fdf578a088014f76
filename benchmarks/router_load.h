/* What the files of the router's bench share. One thread. */
#pragma once

#include "benchmarks/latency_stats.h"
#include "benchmarks/router_bench.h"

struct router_load;

/* A request under way, or a free place for one. */
struct router_request {
    struct router_load *load;
    struct router_request *next_free;
    bool is_stream;
    uint64_t number;
    double per_chunk_ms;
    uint32_t n_tokens;
    int64_t due_ns, first_ns; /* first: of a stream's first chunk; 0 = it has not come */
    void *transport;          /* the driver's */
};

/* A wire, as the load sees it. */
struct router_driver {
    err_t (*open)(const struct router_bench_options *options, const struct router_target *target, void **out);
    err_t (*start)(void *driver, struct router_request *request);
    /* Handles what has come, or waits for it, not longer than timeout_ns. */
    err_t (*poll)(void *driver, int64_t timeout_ns);
    void (*close)(void *driver); /* drops what is under way; nobody hears of it */
};
extern const struct router_driver router_driver_http, router_driver_grpc;

/* From a driver: text came, and the end. */
void router_load_chunk(struct router_request *request, int64_t now_ns);
void router_load_done(struct router_request *request, const err_t *error, int64_t now_ns);

/* The prompt of a request, with its orders to the mock: no two are the same, so that no cache answers. */
int router_prompt_write(const struct router_request *request, char *out, size_t out_bytes);
