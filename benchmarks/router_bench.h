/* What a router, or any gateway, adds: the same requests in an open loop to a provider directly and through
 * it, in alternation, in one process with one thread. The provider is the mock (mock_provider.h), which takes
 * orders from prompts. Times run from when a request was due, so that a late start counts. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
#include "base/buffer.h"
#include "base/error.h"

enum {
    ROUTER_TARGETS_MAX = 8,
    ROUTER_NAME_BYTES_MAX = 31,
    ROUTER_ROUNDS_MAX = 100,
    ROUTER_OPEN_MAX = 100000,
    ROUTER_IN_FLIGHT_MAX = 8192, /* of requests at a rate; more wait, and their time runs */
};

/* OpenAI's chat completions, or bantam.Bantam over gRPC, at a port of this machine. */
struct router_target {
    char name[ROUTER_NAME_BYTES_MAX + 1];
    bool is_grpc;
    uint16_t port;
    pid_t pid; /* whose CPU and memory is told; 0 = nobody's */
};

struct router_bench_options {
    struct router_target targets[ROUTER_TARGETS_MAX]; /* the first: what the others are compared with */
    size_t n_targets;
    const char *model;
    double rate, stream_rate; /* a second: of whole answers, of streams */
    double seconds;           /* of each kind and target, all rounds together; 0 = not at all */
    uint32_t n_rounds;        /* in which the targets take turns */
    uint32_t n_tokens;        /* of an answer */
    double per_chunk_ms;      /* between the chunks of a stream */
    uint32_t n_open;          /* streams that are open at once; 0 = not measured */
    uint64_t n_count;         /* whole answers, as fast as they come, memory before and after; 0 = not */
    double count_seconds;     /* fewer of them where that takes longer; 0 = without end */
    const char *api_key;      /* NULL = none is sent */
    bool show_progress;
};

struct router_times {
    uint64_t n, n_failed;
    double p50_us, p90_us, p99_us, max_us;
};

struct router_result {
    struct router_times whole, first, last; /* first chunk and end of streams */
    double whole_cpu_us, stream_cpu_us;     /* of the target's process, a request */
    double whole_rps, stream_rps;           /* that were answered */
    uint64_t open_begun, open_failed;
    uint64_t rss_idle_bytes, rss_open_bytes; /* before and with the open streams */
    uint64_t count_done, count_failed;
    double count_rps;
    uint64_t rss_before_bytes, rss_after_bytes; /* the counted requests; before: after a tenth of them */
    char failure[200];                          /* the first one's words */
};

/* UNAVAILABLE: nobody answers at a port. */
err_t router_bench_run(const struct router_bench_options *options,
                       struct router_result out[ROUTER_TARGETS_MAX]) ERR_MUST_CHECK;
/* "direct=http:9000", "router=grpc:50052:PID". */
err_t router_target_parse(const char *text, struct router_target *out) ERR_MUST_CHECK;
/* False at the buffer's limit. */
bool router_report_text(const struct router_bench_options *options,
                        const struct router_result results[ROUTER_TARGETS_MAX], struct buffer *out);
bool router_report_json(const struct router_bench_options *options,
                        const struct router_result results[ROUTER_TARGETS_MAX], struct buffer *out);
