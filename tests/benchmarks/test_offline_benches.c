/* The benches that need no server: counts add up, and the loop allocates nothing. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include "benchmarks/loop_overhead.h"
#include "benchmarks/throughput.h"

static void loop_allocates_nothing(void **state)
{
    (void)state;
    struct loop_overhead_result result;
    assert_int_equal(loop_overhead_run(64, 100, 200, &result).code, ERR_OK);
    assert_int_equal(result.tokens, 64 * 200);
    assert_int_equal(result.allocations, 0);
    assert_true(result.steps >= 200);
    assert_true(result.overhead_us_per_step > 0);
}

static void throughput_counts_tokens(void **state)
{
    (void)state;
    struct engine_options options = engine_options_default();
    options.model.directory = TEST_DATA_DIR "/parity/checkpoints/llama-gqa";
    options.skip_tokenizer_init = true;
    struct engine *engine;
    assert_int_equal(engine_open(&options, NULL, &engine).code, ERR_OK);
    struct throughput_options work = {
        .input_len = 20, .output_len = 7, .num_prompts = 5, .shared_prefix_len = 16};
    struct throughput_result result;
    assert_int_equal(throughput_run(engine, &work, &result).code, ERR_OK);
    assert_int_equal(result.input_tokens, 100);
    assert_int_equal(result.output_tokens, 35);
    assert_true(result.decoded_tokens <= 30);
    assert_true(result.prefill_ns > 0 && result.prefill_ns <= result.elapsed_ns);
    assert_true(result.ttft_p50_ns <= result.ttft_p99_ns);
    work.input_len = 1 << 20; /* longer than the model */
    assert_int_equal(throughput_run(engine, &work, &result).code, ERR_INVALID_ARGUMENT);
    engine_close(engine);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(loop_allocates_nothing),
        cmocka_unit_test(throughput_counts_tokens),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
