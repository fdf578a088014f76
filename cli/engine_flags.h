/* Flags of every command that opens an engine, with vLLM's names where it has one. */
#pragma once

#include "base/flags.h"
#include "cli/weight_flags.h"
#include "engine/engine.h"

enum { ENGINE_FLAGS_MAX = 40 };

struct engine_flag_values {
    int64_t max_model_len, max_num_seqs, max_num_batched_tokens, prefill_chunk, max_waiting, num_kv_blocks,
        steps_in_flight, memory_limit_bytes, tensor_parallel_size;
    double stream_stall_timeout_s;
    const char *kv_cache_dtype, *chat_template, *generation_config, *served_model_name, *scheduling_policy;
    struct weight_flag_values weights;
    bool enforce_eager, batch_invariant, skip_tokenizer_init, enable_prefix_caching;
};

/* Writes the rows to flags[0..ENGINE_FLAGS_MAX) with targets in *values; returns how many. */
size_t engine_flags_fill(struct engine_flag_values *values, struct flag *flags);
/* Parsed values -> options for the model in `directory`. Borrows the strings. */
struct engine_options engine_flags_options(const struct engine_flag_values *values, const char *directory);
/* The memory plan for people on a terminal, else as log lines: engine_open's on_plan. */
void print_memory_plan(const struct memory_plan *plan);
