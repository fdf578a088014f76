/* Flags that every bench of a load has, with vLLM's names, and the report that it prints. */
#pragma once

#include "base/flags.h"
#include "benchmarks/load_result.h"

enum { LOAD_FLAGS_MAX = 8 };

struct load_flag_values {
    int64_t num_prompts, max_concurrency, seed;
    double burstiness, temperature;
    struct flag_list goodput;
    bool json, detailed;
    const _Atomic bool *stop; /* of no flag: cli/interrupt.h; NULL = the load is never stopped */
};

/* Writes the rows to flags[0..LOAD_FLAGS_MAX) with targets in *values; returns how many. */
size_t load_flags_fill(struct load_flag_values *values, struct flag *flags);
/* What these flags say of the options; the rest of *options is zeroed. INVALID_ARGUMENT names a bad goal. */
err_t load_flags_options(const struct load_flag_values *values, struct load_options *options) ERR_MUST_CHECK;
/* To stdout; *any_failed is set, never cleared. */
err_t load_flags_report(const struct load_flag_values *values, const struct load_options *options,
                        struct load_result *result, bool *any_failed) ERR_MUST_CHECK;
