/* Decode alone: tokens per second of a batch that stays full, at a context. In process, through the engine's
 * one loop. */
#pragma once

#include <stdint.h>
#include "api/service.h"
#include "base/error.h"

struct decode_options {
    uint32_t batch;       /* sequences that decode together */
    uint32_t context;     /* tokens of each, prompt and output, in the middle of the measured part */
    uint32_t n_steps;     /* measured */
    uint32_t step_tokens; /* the engine's max_num_batched_tokens: how long the prompts take to come in */
    uint32_t shared_prefix_len; /* tokens with which all prompts begin, computed before; 0 = none */
    uint64_t seed;              /* of the random prompts */
};

struct decode_result {
    uint64_t tokens;      /* in the measured part */
    int64_t elapsed_ns;   /* of it */
    double tok_s;         /* tokens / elapsed */
    double ms_per_step;   /* elapsed / (tokens / batch) */
    double mean_context;  /* tokens, over the measured part */
    uint64_t preemptions; /* whoever was preempted left the batch: anything but 0 spoils the figure */
};

/* Measured from a few steps after the last sequence's first token, so that what a device does once per size
 * of batch is over, to n_steps later or to the first end of a sequence. Greedy, EOS ignored. Where a step
 * takes microseconds and the machine is busy, the calling thread may be kept from reading for so long that
 * sequences are paused, or end: then all is done anew, a few times; what the last time saw counts. Errors are
 * those of submit; INVALID_ARGUMENT when step_tokens leaves no room for prompts beside the batch, or the
 * context none for the measured part or the prefix; FAILED_PRECONDITION when a sequence ended before the
 * batch was full.
 */
err_t decode_bench_run(struct service *service, const struct decode_options *options,
                       struct decode_result *out) ERR_MUST_CHECK;
