/* The emulator against plain C: threads, barriers, shuffles, copies, products. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdlib.h>
#include <string.h>
#include "base/philox.h"
#include "tests/cuda/emulator/emulator.h"
#include "tests/cuda/emulator_kernels.h"

EMU_KERNEL(test_fill);
EMU_KERNEL(test_block_sum);
EMU_KERNEL(test_copy_async);
EMU_KERNEL(test_last_block);

static void launch(const struct emu_kernel *kernel, uint32_t n_blocks, uint32_t n_threads,
                   uint32_t shared_bytes, const struct test_args *args)
{
    emu_launch(&(struct emu_launch){.kernel = kernel,
                                    .grid = {n_blocks, 1, 1},
                                    .block_threads = n_threads,
                                    .shared_bytes = shared_bytes,
                                    .args = args,
                                    .args_bytes = sizeof *args});
}

static void set_seed(uint64_t seed, uint32_t n_threads)
{
    emu_set_options(&(struct emu_options){.seed = seed, .n_threads = n_threads, .target = 90});
}

static void test_threads(void **state)
{
    (void)state;
    uint32_t out[1000] = {0};
    launch(&emu_kernel_test_fill, 2, 96, 0, &(struct test_args){NULL, out, 999});
    for (uint32_t i = 0; i < 999; i++)
        assert_int_equal(out[i], i);
    assert_int_equal(out[999], 0);
}

static void test_block_sums(void **state)
{
    (void)state;
    enum { BLOCKS = 5, THREADS = 256 };
    static float in[BLOCKS * THREADS], out[BLOCKS * THREADS];
    for (int i = 0; i < BLOCKS * THREADS; i++)
        in[i] = (float)(i % 17);
    for (uint64_t seed = 0; seed < 20; seed++) {
        set_seed(seed, 1 + seed % 3);
        memset(out, 0, sizeof out);
        launch(&emu_kernel_test_block_sum, BLOCKS, THREADS, 0, &(struct test_args){in, out, 0});
        for (int b = 0; b < BLOCKS; b++) {
            float sum = 0;
            for (int i = 0; i < THREADS; i++)
                sum += in[b * THREADS + i];
            for (int i = 0; i < THREADS; i++)
                assert_true(out[b * THREADS + i] == sum);
        }
    }
    set_seed(0, 1);
}

static void test_copies(void **state)
{
    (void)state;
    enum { THREADS = 64, STAGES = 7, PIECES = THREADS * STAGES };
    static uint8_t in[PIECES * 16] __attribute__((aligned(16))),
        out[PIECES * 16] __attribute__((aligned(16)));
    for (size_t i = 0; i < sizeof in; i++)
        in[i] = (uint8_t)(i * 7 + i / 256);
    for (uint64_t seed = 0; seed < 10; seed++) {
        set_seed(seed, 1);
        launch(&emu_kernel_test_copy_async, 1, THREADS, 2 * THREADS * 16,
               &(struct test_args){in, out, STAGES});
        for (int stage = 0; stage < STAGES; stage++)
            for (int i = 0; i < THREADS; i++)
                assert_memory_equal(out + (stage * THREADS + i) * 16,
                                    in + (stage * THREADS + THREADS - 1 - i) * 16, 16);
    }
    set_seed(0, 1);
}

static void test_last_block_done(void **state)
{
    (void)state;
    for (uint64_t seed = 0; seed < 4; seed++) {
        uint32_t counters[3] = {0};
        set_seed(seed, 2);
        launch(&emu_kernel_test_last_block, 50, 64, 0, &(struct test_args){NULL, counters, 0});
        assert_int_equal(counters[0], 3200);
        assert_int_equal(counters[1], 50);
        assert_int_equal(counters[2], 3200);
    }
    set_seed(0, 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_threads),
        cmocka_unit_test(test_block_sums),
        cmocka_unit_test(test_copies),
        cmocka_unit_test(test_last_block_done),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
