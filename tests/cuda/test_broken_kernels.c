/* Kernels with a flaw must not pass: each runs in a process of its own under several orders of its threads,
 * and must end in the message that names the flaw, or give a wrong result. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>
#include "base/float16.h"
#include "base/philox.h"
#include "tests/cuda/broken_kernels.h"
#include "tests/cuda/emulator/emulator.h"
#include "tests/cuda/emulator_kernels.h"

enum { SEEDS = 8, STEPS = 5, TILE_K = STEPS * 16, OUT_MAX = 64 * 16 };
enum shape { tile, bulk, group, warp, last, pair, late };
enum { LAST_BLOCKS = 4 };
enum end { PASSED, WRONG, ABORTED };

#define DECLARE(flaw, shape, what) EMU_KERNEL(broken_##flaw);
FLAW_LIST(DECLARE)

static const struct {
    const char *name, *what;
    enum shape shape;
    const struct emu_kernel *kernel;
} flaws[FLAWS] = {
#define ENTRY(flaw, shape, what) {#flaw, what, shape, &emu_kernel_broken_##flaw},
    FLAW_LIST(ENTRY)};

/* What must be in the message; NULL: a wrong result is enough. */
static const char *const messages[FLAWS] = {
    [NO_COPY_WAIT] = "has never been written, or a copy to it is under way",
    [SHORT_COPY_WAIT] = "has never been written, or a copy to it is under way",
    [NO_BARRIER] = "has never been written, or a copy to it is under way",
    [PAST_THE_END] = "past the end of shared memory",
    [TOO_FEW_BYTES] = "expects 0 of 1 arrivals and 16 bytes",
    [TOO_MANY_BYTES] = "bulk_copy of 1040 bytes, but its mbarrier expects 1024 more",
    [NO_INIT_FENCE] = "without fence_mbarrier_init()",
    [NO_INIT] = "has not been initialised",
    [MISALIGNED] = "all must be multiples of 16",
    [NOT_ASKED] = "has 49152 unless more is asked for",
    [NOT_FREED] = "no thread can go on",
    [NO_WGMMA_FENCE] = "wgmma without wgmma_fence",
    [NO_WGMMA_COMMIT] = "no wgmma_commit or wgmma_wait",
    [NO_WGMMA_WAIT] = "no wgmma_commit or wgmma_wait",
    [SHORT_WGMMA_WAIT] = "no wgmma_commit or wgmma_wait",
    [TOUCHED] = "of a wgmma that is under way was written",
    [UNWRITTEN] = "has never been written",
    [NO_PROXY_FENCE] = "without fence_async_proxy()",
    [ONE_WARP_LESS] = "no thread can go on",
    [TOO_MANY_REGISTERS] = "setmaxnreg would never return",
    [MISSING_LANE] = "wait in shuffle for the lanes 0x80000000",
    [ENDED_LANE] = "ended",
    [DIVERGENT] = "divergent warp",
    [MIXED_BARRIERS] = "mixed barriers",
    [WRONG_COUNT] = "came to it as one of",
    [BARRIER_NOT_REACHED] = "no thread can go on",
    [ENDED_WARP] = "threads have ended",
    [UNALIGNED] = "not aligned",
    [NO_DEPENDENCIES_WAIT] = "no thread called dependencies_wait()",
    [NO_BARRIER_BEFORE_COUNT] = "reads global address",
    [NO_FENCE_BEFORE_COUNT] = "reads global address",
    [NO_FENCE_AFTER_COUNT] = "reads global address",
    [NO_BARRIER_AFTER_COUNT] = "reads global address",
    [NO_FENCE_IN_PAIR] = "reads global address",
    [NO_FENCE_UNDER_COPY] = "bulk_copy overwrites what thread",
    [LATE_READ] = "which the launch in front may still write",
    [LATE_COPY] = "which the launch in front may still write",
    [LATE_WRITE] = "which the launch in front may still use",
    [NO_BARRIER_AFTER_WAIT] = "no dependencies_wait() stands before",
};

#ifdef CHECKS_RACES
/* Kernels that report their accesses: found in every order, often before what the message above says. */
enum { REPORTS_ACCESSES = 1 };
#else
enum { REPORTS_ACCESSES = 0 };
#endif

static bool names_flaw(enum flaw flaw, const char *text)
{
    if (messages[flaw] == NULL || strstr(text, messages[flaw]) != NULL)
        return true;
    return REPORTS_ACCESSES && strstr(text, "race:") != NULL;
}

/* What accesses alone show. */
static bool can_be_seen(enum flaw flaw)
{
    bool needs_order = flaw == NO_PROXY_FENCE || flaw == NO_FENCE_UNDER_COPY || flaws[flaw].shape >= last;
    return REPORTS_ACCESSES || !needs_order;
}

/* ---- Inputs and what is right ---- */

static uint8_t in[64 * 1024] __attribute__((aligned(16)));
static double want[OUT_MAX];
static float out[OUT_MAX] __attribute__((aligned(16)));
static size_t n_out;

static void want_product(const uint8_t *a, const uint8_t *b, size_t m, size_t n, size_t k, double scale)
{
    n_out = m * n;
    for (size_t i = 0; i < m; i++) {
        for (size_t j = 0; j < n; j++) {
            double sum = 0;
            for (size_t e = 0; e < k; e++)
                sum += (double)bf16_to_f32(((const uint16_t *)a)[i * k + e]) *
                       (double)bf16_to_f32(((const uint16_t *)b)[j * k + e]);
            want[i * n + j] = sum * scale;
        }
    }
}

static void make_inputs(enum shape shape)
{
    struct rng rng = rng_make(3);
    if (shape == tile || shape == group) {
        for (size_t i = 0; i < sizeof in / 2; i++)
            ((uint16_t *)in)[i] = bf16_from_f32(rng_normal(&rng));
        if (shape == tile)
            want_product(in, in + 16 * TILE_K * 2, 16, 16, TILE_K, 1.0);
        else
            want_product(in, in + 64 * 64 * 2, 64, 16, 64, 2.0);
    } else if (shape == last) {
        n_out = 64;
        memset(want, 0, sizeof want);
        for (size_t i = 0; i < 64 * LAST_BLOCKS; i++) {
            ((float *)in)[i] = rng_normal(&rng);
            want[i % 64] += (double)((float *)in)[i];
        }
    } else if (shape == bulk) {
        n_out = 256;
        memset(want, 0, sizeof want);
        for (size_t i = 0; i < 256 * STEPS; i++) {
            ((float *)in)[i] = rng_normal(&rng);
            want[i % 256] += (double)((float *)in)[i];
        }
    } else {
        n_out = 64;
        for (size_t i = 0; i < 65; i++)
            ((uint32_t *)in)[i] = (uint32_t)i * 1000 + 7;
        for (size_t i = 0; i < 64 && shape == late; i++)
            want[i] = (double)((uint32_t *)in)[i];
        for (size_t i = 0; i < 64 && shape == pair; i++)
            want[i] = (double)(((float *)in)[i] = (float)i);
        for (size_t i = 0; i < 64 && shape == warp; i++)
            want[i] = 2 * (double)((uint32_t *)in)[i ^ 1] + (double)((uint32_t *)in)[i ^ 32];
    }
}

static enum end run(enum flaw flaw)
{
    static const uint32_t n_threads[] = {64, 64, 128, 64, 64, 64, 64};
    static const uint32_t shared_bytes[] = {3 * 1024, 2 * 1024, 80 * 128, 0, 0, 0, 0};
    enum shape shape = flaws[flaw].shape;
    memset(out, 0, sizeof out);
    struct test_args args = {in, out, STEPS};
    const struct emu_late written = {in, sizeof in};
    emu_launch(&(struct emu_launch){.kernel = flaws[flaw].kernel,
                                    .grid = {shape == last ? LAST_BLOCKS : 1, 1, 1},
                                    .block_threads = n_threads[shape],
                                    .shared_bytes = flaw == NOT_ASKED ? 48 * 1024 : shared_bytes[shape],
                                    .shared_not_asked = flaw == NOT_ASKED,
                                    .args = &args,
                                    .args_bytes = sizeof args,
                                    .dependent = flaw == NO_DEPENDENCIES_WAIT || shape == late,
                                    .late = &written,
                                    .n_late = 1});
    for (size_t i = 0; i < n_out; i++) {
        double got = shape == warp || shape == late ? (double)((uint32_t *)out)[i] : (double)out[i];
        if (!(fabs(got - want[i]) <= 1e-3))
            return WRONG;
    }
    return PASSED;
}

/* ---- Processes ---- */

static enum end run_in_child(enum flaw flaw, uint64_t seed, char *text, size_t size)
{
    int ends[2];
    assert_int_equal(pipe(ends), 0);
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        dup2(ends[1], 2);
        signal(SIGABRT, SIG_DFL);
        emu_set_options(&(struct emu_options){.seed = seed, .n_threads = 1, .target = 90});
        _exit(run(flaw) == PASSED ? 0 : 1);
    }
    close(ends[1]);
    size_t n = 0;
    ssize_t got;
    while (n < size - 1 && (got = read(ends[0], text + n, size - 1 - n)) > 0)
        n += (size_t)got;
    text[n] = '\0';
    close(ends[0]);
    int status;
    assert_int_equal(waitpid(child, &status, 0), child);
    if (WIFSIGNALED(status))
        return WTERMSIG(status) == SIGABRT ? ABORTED : WRONG;
    return WEXITSTATUS(status) == 0 ? PASSED : WRONG;
}

static void test_sound(void **state)
{
    (void)state;
    static const enum flaw sound[] = {TILE_SOUND, BULK_SOUND, GROUP_SOUND, WARP_SOUND,
                                      LAST_SOUND, PAIR_SOUND, LATE_SOUND};
    for (size_t i = 0; i < sizeof sound / sizeof sound[0]; i++) {
        make_inputs(flaws[sound[i]].shape);
        for (uint64_t seed = 0; seed < 4 * SEEDS; seed++) {
            emu_set_options(&(struct emu_options){.seed = seed, .n_threads = 1, .target = 90});
            assert_int_equal(run(sound[i]), PASSED);
        }
    }
}

static void test_flaws(void **state)
{
    (void)state;
    int n_missed = 0;
    for (enum flaw flaw = 0; flaw < FLAWS; flaw++) {
        if (strstr(flaws[flaw].name, "_SOUND") != NULL || !can_be_seen(flaw))
            continue;
        make_inputs(flaws[flaw].shape);
        int n[3] = {0};
        bool named = messages[flaw] == NULL;
        char text[4096], first[160] = "a wrong result";
        for (uint64_t seed = 0; seed < SEEDS; seed++) {
            enum end end = run_in_child(flaw, seed, text, sizeof text);
            n[end]++;
            named = named || (end == ABORTED && names_flaw(flaw, text));
            if (end == ABORTED && strstr(first, "emulator") == NULL)
                snprintf(first, sizeof first, "%.*s", (int)strcspn(text, "\n"), text);
        }
        bool caught = named && n[PASSED] < (REPORTS_ACCESSES ? 1 : SEEDS);
        n_missed += !caught;
        print_message("%-20s %s: %s; %d aborted, %d wrong, %d passed of %d orders: %s\n", flaws[flaw].name,
                      caught ? "caught" : "MISSED", flaws[flaw].what, n[ABORTED], n[WRONG], n[PASSED], SEEDS,
                      first);
    }
    assert_int_equal(n_missed, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_sound), cmocka_unit_test(test_flaws)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
