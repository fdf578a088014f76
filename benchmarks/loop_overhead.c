#include "benchmarks/loop_overhead.h"

#include "benchmarks/null_executor.h"
#include "benchmarks/throughput.h"

enum { OVERHEAD_VOCAB = 32000, OVERHEAD_MODEL_LEN = 8192, OVERHEAD_BATCHED_TOKENS = 2048 };

err_t loop_overhead_run(uint32_t n_seqs, uint32_t input_len, uint32_t output_len,
                        struct loop_overhead_result *out)
{
    struct null_executor null_model = {
        .info = {.architecture = "none",
                 .dtype = "none",
                 .quantization = "none",
                 .vocab_size = OVERHEAD_VOCAB,
                 .max_model_len = OVERHEAD_MODEL_LEN,
                 .num_kv_blocks = n_seqs * ((input_len + output_len) / 16 + 2),
                 .block_tokens = 16,
                 .max_num_seqs = n_seqs,
                 .max_num_batched_tokens = OVERHEAD_BATCHED_TOKENS,
                 .steps_in_flight = 1},
    };
    struct executor executor = null_executor_of(&null_model);
    struct engine_options options = engine_options_default();
    struct engine *engine;
    TRY(engine_open_executor(&options, &executor, NULL, &engine));
    struct throughput_options work = {
        .input_len = input_len, .output_len = output_len, .num_prompts = n_seqs};
    struct throughput_result result;
    err_t e = throughput_run(engine, &work, &result);
    engine_close(engine);
    if (e.code != ERR_OK)
        return e;
    *out = (struct loop_overhead_result){
        .n_seqs = n_seqs,
        .steps = result.loop.steps,
        .tokens = result.output_tokens,
        .overhead_us_per_step = (double)result.loop.overhead_ns / 1e3 / (double)result.loop.steps,
        .elapsed_s = (double)result.elapsed_ns / 1e9,
        .allocations = result.loop_allocations,
    };
    return e;
}
