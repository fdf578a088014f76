/* What the loop itself costs: the engine over an executor that computes nothing. */
#pragma once

#include <stdint.h>
#include "base/error.h"

struct loop_overhead_result {
    uint32_t n_seqs;
    uint64_t steps, tokens;
    double overhead_us_per_step; /* loop thread outside the executor */
    double elapsed_s;
    uint64_t allocations; /* by the process between the last submission and the last token */
};

/* n_seqs sequences decode output_len tokens each after a prompt of input_len. */
err_t loop_overhead_run(uint32_t n_seqs, uint32_t input_len, uint32_t output_len,
                        struct loop_overhead_result *out) ERR_MUST_CHECK;
