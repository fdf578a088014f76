/* The host side of the CUDA backend on the fake device: what a user is told where CUDA does not work, every
 * call of the device that can fail, plans for small cards, graphs, and that a step waits for nothing but its
 * event. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include "kernels/kernels.h"
#include "tests/cuda/fake_control.h"
#include "tests/model/broken_model.h"
#include "tests/model/model_driver.h"

#define CHECKPOINT TEST_DATA_DIR "/parity/checkpoints/llama-gqa"

static const struct fake_device_control *control;

static int open_control(void **state)
{
    (void)state;
    control = fake_control_open();
    return 0;
}

static err_t create_backend(int device)
{
    struct backend *backend = NULL;
    struct backend_cuda_options options = {.device = device, .n_threads = 1};
    err_t e = backend_cuda_create(&options, &backend);
    if (e.code == ERR_OK)
        backend->vtable->destroy(backend);
    return e;
}

static void messages_say_what_is_missing(void **state)
{
    (void)state;
    assert_int_equal(create_backend(0).code, ERR_OK);
    setenv("BANTAM_CUDA_LIBRARY", "/nowhere/libbantam_cuda.so", 1);
    expect_error(create_backend(0), ERR_UNAVAILABLE, "/nowhere/libbantam_cuda.so", "--device cpu", NULL);
    setenv("BANTAM_CUDA_LIBRARY", "libm.so.6", 1);
    expect_error(create_backend(0), ERR_UNAVAILABLE, "no library of Bantam", "--device cpu", NULL);
    setenv("BANTAM_CUDA_LIBRARY", OTHER_LIBRARY, 1);
    expect_error(create_backend(0), ERR_UNAVAILABLE, "of another build (interface ", "install both together",
                 "--device cpu", NULL);
    setenv("BANTAM_CUDA_LIBRARY", "", 1);
    expect_error(create_backend(0), ERR_NOT_FOUND, "BANTAM_CUDA_LIBRARY", "--device cpu", NULL);
    setenv("BANTAM_CUDA_LIBRARY", FAKE_LIBRARY, 1);
    static const struct {
        const char *fault, *says;
    } faults[] = {
        {"driver", "no NVIDIA driver is loaded, this program needs one for CUDA 13.0"},
        {"old", "the NVIDIA driver is for CUDA 11.4, this program needs 13.0"},
        {"device", "shows no GPU: no CUDA-capable device is detected; CUDA_VISIBLE_DEVICES is \"7\""}};
    setenv("CUDA_VISIBLE_DEVICES", "7", 1);
    for (size_t i = 0; i < sizeof faults / sizeof faults[0]; i++) {
        setenv("BANTAM_FAKE_FAULT", faults[i].fault, 1);
        err_t e = create_backend(0);
        expect_error(e, ERR_UNAVAILABLE, faults[i].says, "--device cpu", NULL);
        assert_null(strstr(e.message, "insufficient")); /* as CUDA has it where there is no driver */
    }
    unsetenv("CUDA_VISIBLE_DEVICES");
    unsetenv("BANTAM_FAKE_FAULT");
    expect_error(create_backend(70), ERR_UNAVAILABLE, "no GPU 70", NULL);
    fake_control_assert_nothing_is_left(control);
}

/* Kernels that are missing for the card are missed when it is opened, not in the first step. */
static void code_for_another_card_is_noticed(void **state)
{
    (void)state;
    static const struct {
        uint32_t target;
        const char *lacks, *card, *arch;
    } builds[] = {
        {90, "cudaErrorNoKernelImageForDevice", "capability 9.0", "-DBANTAM_CUDA_ARCHS=90a"},
        {90, "wgmma", "capability 9.0", "-DBANTAM_CUDA_ARCHS=90a"}, /* of plain compute_90 */
        {90, "stream", "capability 9.0", "-DBANTAM_CUDA_ARCHS=90a"},
        {80, "cudaErrorUnsupportedPtxVersion", "capability 8.0", "-DBANTAM_CUDA_ARCHS=80"},
        {89, "linear_e4m3_r", "capability 8.9", "-DBANTAM_CUDA_ARCHS=89"},    /* machine code of sm_86 */
        {120, "linear_e4m3_r", "capability 12.0", "-DBANTAM_CUDA_ARCHS=120"}, /* PTX of compute_90 */
    };
    for (size_t i = 0; i < sizeof builds / sizeof builds[0]; i++) {
        control->set_target(builds[i].target);
        setenv("BANTAM_FAKE_LACKS", builds[i].lacks, 1);
        expect_error(create_backend(0), ERR_UNAVAILABLE, "Emulated GPU", builds[i].card, builds[i].arch,
                     "made for the emulator", "--device cpu", NULL);
    }
    /* What else goes wrong there has another cause than the build. */
    static const char *const failures[] = {"cudaErrorIllegalAddress", "cudaErrorECCUncorrectable",
                                           "cudaErrorDevicesUnavailable", "cudaErrorUnknown"};
    for (size_t i = 0; i < sizeof failures / sizeof failures[0]; i++) {
        setenv("BANTAM_FAKE_LACKS", failures[i], 1);
        err_t e = create_backend(0);
        expect_error(e, ERR_INTERNAL, failures[i], NULL);
        assert_null(strstr(e.message, "BANTAM_CUDA_ARCHS"));
    }
    /* What a card is not given need not be there. */
    control->set_target(89);
    setenv("BANTAM_FAKE_LACKS", "wgmma", 1);
    assert_int_equal(create_backend(0).code, ERR_OK);
    control->set_target(90);
    unsetenv("BANTAM_FAKE_LACKS");
    fake_control_assert_nothing_is_left(control);
}

/* Opens, makes both steps, closes. */
static err_t load_once(const struct model_options *options)
{
    struct model *model;
    err_t e = model_load(options, NULL, &model);
    if (e.code != ERR_OK)
        return e;
    struct step *steps[2] = {NULL, NULL};
    for (int i = 0; i < 2 && e.code == ERR_OK; i++)
        e = model_step_create(model, &steps[i]);
    for (int i = 0; i < 2; i++)
        model_step_destroy(model, steps[i]);
    model_destroy(model);
    return e;
}

static void fail_every_call(bool by_library)
{
    struct model_options options = driver_options(CHECKPOINT, 2, 64);
    options.device = "cuda";
    options.n_threads = 1;
    options.batch_variant = by_library;
    options.library_rows_min = 1;
    uint32_t n_failed = 0;
    for (;;) {
        control->fail_nth(n_failed);
        err_t e = load_once(&options);
        control->fail_nth(-1);
        fake_control_assert_nothing_is_left(control);
        if (e.code == ERR_OK)
            break;
        /* How much is free decides how much is planned: not to know is little. */
        if (strstr(e.message, "injected") == NULL)
            expect_error(e, ERR_RESOURCE_EXHAUSTED, "not enough memory", NULL);
        n_failed++;
    }
    assert_true(n_failed > 40);
}

static void every_call_that_fails_is_an_error(void **state)
{
    (void)state;
    fail_every_call(false);
    fail_every_call(true);
}

static void too_little_memory_is_said(void **state)
{
    (void)state;
    struct model_options options = driver_options(CHECKPOINT, 2, 64);
    options.device = "cuda";
    control->set_memory(1 << 20);
    err_t e = load_once(&options);
    expect_error(e, ERR_RESOURCE_EXHAUSTED, "not enough memory on Emulated GPU, which has 0.9 MiB",
                 "--device cpu", NULL);
    assert_null(strstr(e.message, "engine")); /* which is no part of a card's plan */
    /* A plan by hand that is beyond the card. */
    options.memory_limit_bytes = (uint64_t)1 << 40;
    expect_error(load_once(&options), ERR_RESOURCE_EXHAUSTED, "Emulated GPU", "--memory-limit",
                 "--device cpu", NULL);
    control->set_memory(0);
    fake_control_assert_nothing_is_left(control);
}

/* Loads with --device auto; whether it took the GPUs. */
static bool auto_takes_cuda(uint32_t n_ranks)
{
    struct model_options options = driver_options(CHECKPOINT, 2, 64);
    options.device = "auto";
    options.n_threads = 1;
    options.n_ranks = n_ranks;
    struct model *model;
    err_t e = model_load(&options, NULL, &model);
    if (e.code != ERR_OK)
        fail_msg("%s", e.message);
    assert_int_equal(model_describe(model)->n_ranks, n_ranks);
    bool is_cuda = strstr(model_describe(model)->backend, "Emulated GPU") != NULL;
    model_destroy(model);
    fake_control_assert_nothing_is_left(control);
    return is_cuda;
}

/* All ranks on GPUs or none. */
static void auto_takes_one_kind_of_device(void **state)
{
    (void)state;
    assert_true(auto_takes_cuda(1));
    assert_false(auto_takes_cuda(2)); /* of one GPU */
    setenv("BANTAM_FAKE_DEVICES", "2", 1);
    assert_true(auto_takes_cuda(2));
    enum { CALLS_OF_A_RANK = 5 };                              /* the device, two kernels, two streams */
    for (int nth = 0; nth <= 2 * CALLS_OF_A_RANK + 1; nth++) { /* then the group, then how much is free */
        control->fail_nth(nth);
        assert_false(auto_takes_cuda(2));
    }
    control->fail_nth(-1);
    unsetenv("BANTAM_FAKE_DEVICES");
    control->set_memory(1 << 20);
    assert_false(auto_takes_cuda(1)); /* nothing fits */
    control->set_memory(0);
}

enum { FREE_PERCENT = 92 }; /* of a card's nominal memory, where a desktop has some of it */

/* An 8B model by its shapes alone: what fits a card is planned, within it. */
static void plans_fit_small_cards(void **state)
{
    (void)state;
    static const struct {
        uint32_t gib;
        enum model_quantization quantization;
        uint32_t len_min;    /* tokens of the longest request */
        uint32_t targets[3]; /* of such cards */
    } cards[] = {{8, MODEL_QUANT_INT4, 4096, {86, 89, 120}},  {16, MODEL_QUANT_INT8, 16384, {86, 89, 120}},
                 {16, MODEL_QUANT_FP8, 16384, {86, 89, 120}}, {24, MODEL_QUANT_NONE, 16384, {86, 89, 120}},
                 {32, MODEL_QUANT_NONE, 65536, {120}},        {80, MODEL_QUANT_NONE, 131072, {80, 90}}};
    for (size_t i = 0; i < sizeof cards / sizeof cards[0]; i++) {
        struct model_options options = {.directory = SOURCE_DIR "/benchmarks/shapes/llama-3.1-8b",
                                        .dummy_weights = true,
                                        .quantization = cards[i].quantization,
                                        .max_num_seqs = 32,
                                        .max_num_batched_tokens = 512,
                                        .device = "cuda",
                                        .n_threads = 1};
        uint64_t free_bytes = ((uint64_t)cards[i].gib << 30) / 100 * FREE_PERCENT;
        control->set_memory(free_bytes);
        for (size_t t = 0; t < 3 && cards[i].targets[t] > 0; t++) {
            uint32_t target = cards[i].targets[t];
            control->set_target(target);
            struct memory_plan plan;
            err_t e = model_plan_memory(&options, &plan);
            if (e.code != ERR_OK)
                fail_msg("%u GiB, target %u: %s", cards[i].gib, target, e.message);
            assert_true(plan.total_bytes <= plan.available_bytes);
            assert_true(plan.available_bytes < free_bytes);
            if (plan.max_model_len < cards[i].len_min)
                fail_msg("%u GiB, target %u: the longest request has %u tokens", cards[i].gib, target,
                         plan.max_model_len);
        }
    }
    control->set_target(90);
    control->set_memory(0);
    fake_control_assert_nothing_is_left(control);
}

static const uint32_t prompt[] = {5, 9, 77, 31, 8};
enum { N_PROMPT = sizeof prompt / sizeof prompt[0], N_DRAWN = 12 };

/* Greedy tokens of n_slots sequences that begin alike, in single steps. On every rank each waits for its own
 * event and for nothing else, whether its passes run, are captured or replayed. */
static void draw_greedily(struct driver *driver, uint32_t n_slots, uint32_t drawn[N_DRAWN])
{
    struct fake_device_counts before, after;
    for (uint32_t s = 0; s < n_slots; s++)
        driver_reset_slot(driver, s);
    control->counts(&before);
    for (uint32_t i = 0; i < N_DRAWN; i++) {
        driver_begin(driver);
        for (uint32_t s = 0; s < n_slots; s++) {
            uint32_t n = i == 0 ? N_PROMPT : 1;
            uint32_t row = driver_add(driver, s, i == 0 ? prompt : NULL, i == 0 ? 0 : N_PROMPT - 1 + i, n);
            driver_want(driver, row + n - 1, STEP_OUTPUT_SAMPLE, 0, -1);
        }
        driver_run(driver);
        drawn[i] = driver_result(driver, 0)->token_ids[0];
        for (uint32_t s = 1; s < n_slots; s++)
            assert_int_equal(driver_result(driver, s)->token_ids[0], drawn[i]);
    }
    control->counts(&after);
    assert_int_equal(after.waits, before.waits);
    assert_int_equal(after.event_waits - before.event_waits,
                     N_DRAWN * model_describe(driver->model)->n_ranks);
}

/* Decode steps are captured once a bucket, then replayed, also for other numbers of rows, and give the same
 * tokens as kernels launched one by one. */
static void graphs_replay(void **state)
{
    (void)state;
    uint32_t with_graphs[N_DRAWN], eager[N_DRAWN];
    struct fake_device_counts before, after;
    struct model_options options = driver_options(CHECKPOINT, 4, 64);
    options.device = "cuda";
    struct driver driver = driver_open(&options);
    control->counts(&before);
    draw_greedily(&driver, 4, with_graphs);
    control->counts(&after);
    assert_int_equal(after.captures - before.captures, 2); /* of 4 rows and of their outputs */
    assert_true(after.graph_launches - before.graph_launches >= 2 * (N_DRAWN - 2));
    draw_greedily(&driver, 3, eager); /* three rows in the graph of four */
    assert_memory_equal(with_graphs, eager, sizeof eager);
    control->counts(&before);
    assert_int_equal(before.captures, after.captures);
    driver_close(&driver);

    options.enforce_eager = true;
    driver = driver_open(&options);
    draw_greedily(&driver, 4, eager);
    control->counts(&after);
    assert_int_equal(before.graph_launches, after.graph_launches);
    assert_memory_equal(with_graphs, eager, sizeof eager);
    driver_close(&driver);
    fake_control_assert_nothing_is_left(control);
}

/* Where a graph finds no memory, the pass runs without it, and the device is not lost. */
static void graphs_that_lack_memory_are_left_out(void **state)
{
    (void)state;
    uint32_t eager[N_DRAWN], drawn[N_DRAWN];
    struct model_options options = driver_options(CHECKPOINT, 4, 64);
    options.device = "cuda";
    setenv("BANTAM_FAKE_DEVICES", "2", 1);
    for (uint32_t n_ranks = 1; n_ranks <= 2; n_ranks++) {
        options.n_ranks = n_ranks;
        options.enforce_eager = true;
        struct driver driver = driver_open(&options);
        draw_greedily(&driver, 4, eager);
        driver_close(&driver);
        options.enforce_eager = false;
        for (enum fake_graph_call call = 0; call < FAKE_GRAPH_CALLS; call++) {
            struct fake_device_counts before, after;
            control->counts(&before);
            driver = driver_open(&options);
            control->lack_memory(call, 1); /* of one rank, in a forward pass */
            draw_greedily(&driver, 4, drawn);
            assert_memory_equal(drawn, eager, sizeof eager);
            draw_greedily(&driver, 3, drawn);
            assert_memory_equal(drawn, eager, sizeof eager);
            control->counts(&after);
            int64_t n_graphs = 2 * n_ranks - 1; /* what lacked memory holds none */
            uint64_t n_captures = 2 * n_ranks - (call == FAKE_GRAPH_LAUNCH ? 0 : 1);
            assert_int_equal(after.captures - before.captures, n_captures);
            assert_int_equal(after.graphs, n_graphs);
            control->lack_memory(FAKE_GRAPH_LAUNCH, 1); /* of one that was launched before */
            draw_greedily(&driver, 4, drawn);
            assert_memory_equal(drawn, eager, sizeof eager);
            control->counts(&after);
            assert_int_equal(after.graphs, n_graphs - 1);
            driver_close(&driver);
            fake_control_assert_nothing_is_left(control);
        }
    }
    unsetenv("BANTAM_FAKE_DEVICES");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(messages_say_what_is_missing),
        cmocka_unit_test(code_for_another_card_is_noticed),
        cmocka_unit_test(every_call_that_fails_is_an_error),
        cmocka_unit_test(too_little_memory_is_said),
        cmocka_unit_test(auto_takes_one_kind_of_device),
        cmocka_unit_test(plans_fit_small_cards),
        cmocka_unit_test(graphs_replay),
        cmocka_unit_test(graphs_that_lack_memory_are_left_out),
    };
    return cmocka_run_group_tests_name("cuda host", tests, open_control, NULL);
}
