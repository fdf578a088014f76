/* What the doors cost: the engine, its loop, rings and detokeniser, over an executor that gives every
 * sequence a token each step and computes nothing, behind the doors of `bantam serve`; a client that reads
 * streams. For each door a server and a client process of their own are forked. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "base/buffer.h"
#include "base/error.h"

struct text_assets;

enum doors_kind { DOOR_NATIVE, DOOR_FACADE, DOOR_HTTP, DOOR_KINDS };
enum { DOORS_STREAMS_MAX = 1000, DOORS_LOADS = 2 };

/* "native" | "facade" | "http" */
const char *doors_kind_name(enum doors_kind kind);

struct doors_options {
    bool wanted[DOOR_KINDS];
    uint32_t n_streams; /* 1..DOORS_STREAMS_MAX */
    uint32_t input_len; /* tokens of a prompt */
    int64_t step_ns;    /* of the streams; single answers are measured without waiting */
    double seconds;     /* of each measurement */
    bool show_progress;
    void (*end_process)(int status); /* of a forked one: _exit */
    const struct text_assets *text;  /* whose tokenizer makes the text */
    uint32_t vocab_size;
};

/* Answers of one token, a fixed number at once, each asked for when the one before has come. */
struct doors_unary {
    uint32_t in_flight;
    uint64_t requests;
    double elapsed_s, server_cpu_s;
    double p50_us, p99_us; /* from sending to the whole answer */
};

struct doors_result {
    bool measured;
    /* Streams. Added latency: from the end of a token's step, before the engine has published it, to its
     * arrival at the client. */
    uint64_t tokens, messages, steps;
    double elapsed_s, server_cpu_s, loop_cpu_s, client_cpu_s; /* loop: the engine's thread, of the server's */
    double added_p50_us, added_p99_us, added_max_us;
    uint64_t allocations;                    /* the server's own, without those of libraries */
    uint64_t pauses;                         /* of streams whose reader was too slow */
    uint64_t rss_idle_bytes, rss_open_bytes; /* of the server, before the streams and while they run */
    struct doors_unary unary[DOORS_LOADS];
};

/* Measures one door after the other. Call before the process has threads. */
err_t doors_bench_run(const struct doors_options *options,
                      struct doors_result out[DOOR_KINDS]) ERR_MUST_CHECK;

/* False at the buffer's limit. */
bool doors_report_text(const struct doors_options *options, const struct doors_result results[DOOR_KINDS],
                       struct buffer *out);
bool doors_report_json(const struct doors_options *options, const struct doors_result results[DOOR_KINDS],
                       struct buffer *out);
