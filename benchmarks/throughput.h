/* Offline throughput: all prompts at once, in process, through the engine's one loop. */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include "base/error.h"
#include "engine/engine.h"

struct throughput_options {
    uint32_t input_len, output_len, num_prompts; /* tokens, tokens, requests */
    uint32_t shared_prefix_len;                  /* of the input, the same ids in every prompt */
    uint64_t seed;                               /* of the random ids */
};

struct throughput_result {
    uint64_t input_tokens, output_tokens;
    int64_t prefill_ns; /* submission to the moment when every prompt has its first token */
    int64_t elapsed_ns;
    uint64_t decoded_tokens; /* tokens that came after prefill_ns */
    double prefill_tok_s;    /* input tokens / prefill_ns */
    double decode_tok_s;     /* decoded_tokens / (elapsed_ns - prefill_ns); 0 when output_len is 1 */
    double output_tok_s;     /* output tokens / elapsed_ns */
    int64_t ttft_p50_ns, ttft_p99_ns;
    uint64_t peak_rss_bytes;
    struct engine_loop_stats loop;
    uint64_t
        loop_allocations; /* mem_alloc calls of the process between the last submission and the last event */
};

/* Greedy, EOS ignored. Errors are those of submit. */
err_t throughput_run(struct engine *engine, const struct throughput_options *options,
                     struct throughput_result *out) ERR_MUST_CHECK;
