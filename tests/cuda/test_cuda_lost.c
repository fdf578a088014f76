/* A device that is lost while steps run, at every call that can tell and with two steps in flight: the model
 * says so from then on, waits for nothing (the fake device aborts on that), no rank hangs on another one, and
 * everything that was made is destroyed. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include "tests/cuda/fake_control.h"
#include "tests/model/model_driver.h"

#define CHECKPOINT TEST_DATA_DIR "/parity/checkpoints/llama-gqa"

enum { N_STEPS = 5, N_PROMPT = 5 };

static const uint32_t prompt[N_PROMPT] = {5, 9, 77, 31, 8};
static const struct fake_device_control *control;

static int open_control(void **state)
{
    (void)state;
    control = fake_control_open();
    return setenv("BANTAM_FAKE_DEVICES", "2", 1);
}

static void assert_lost(const err_t *e, int ordinal)
{
    char named[64];
    snprintf(named, sizeof named, "GPU %d (Emulated GPU) was lost", ordinal);
    assert_int_equal(e->code, ERR_UNAVAILABLE);
    if (strstr(e->message, named) == NULL || strstr(e->message, "illegal memory access") == NULL)
        fail_msg("\"%s\" does not say \"%s\"", e->message, named);
}

static err_t submit(struct driver *driver, struct step *step, uint32_t i)
{
    driver->step = step;
    driver_begin(driver);
    uint32_t n = i == 0 ? N_PROMPT : 1;
    uint32_t row = driver_add(driver, 0, i == 0 ? prompt : NULL, i == 0 ? 0 : N_PROMPT - 1 + i, n);
    driver_want(driver, row + n - 1, STEP_OUTPUT_SAMPLE, 0, -1);
    err_t e = model_forward(driver->model, step);
    return e.code == ERR_OK ? model_sample(driver->model, step, NULL) : e;
}

/* A prompt, then single tokens in steps that are launched, captured and replayed, two in flight; up to the
 * first error. */
static err_t run_steps(struct driver *driver, struct step *const steps[2])
{
    for (uint32_t i = 0; i < N_STEPS; i++) {
        err_t e = submit(driver, steps[i % 2], i);
        if (e.code == ERR_OK && i > 0)
            e = model_collect(driver->model, steps[(i + 1) % 2]);
        if (e.code != ERR_OK)
            return e;
    }
    return model_collect(driver->model, steps[(N_STEPS + 1) % 2]);
}

static void keeps_saying_so(struct driver *driver, struct step *const steps[2], int ordinal)
{
    for (int i = 0; i < 2; i++) {
        err_t e = model_collect(driver->model, steps[i]);
        assert_lost(&e, ordinal);
    }
    driver_reset_slot(driver, 0);
    for (uint32_t i = 0; i < 2; i++) {
        err_t e = submit(driver, steps[i], i);
        assert_lost(&e, ordinal);
        e = model_sample(driver->model, steps[i], NULL);
        assert_lost(&e, ordinal);
    }
}

/* False: the device was whole to the end. */
static bool break_at(const struct model_options *options, const char *kind, uint32_t nth, int ordinal)
{
    char spec[64];
    snprintf(spec, sizeof spec, "%s:%u@%d", kind, nth, ordinal);
    struct driver driver = driver_open(options);
    struct step *steps[2] = {driver.step, NULL};
    assert_int_equal(model_step_create(driver.model, &steps[1]).code, ERR_OK);
    driver_reset_slot(&driver, 0);
    control->break_at(spec);
    err_t e = run_steps(&driver, steps);
    if (e.code != ERR_OK) {
        assert_lost(&e, ordinal);
        keeps_saying_so(&driver, steps, ordinal);
    }
    control->break_at("");
    model_step_destroy(driver.model, steps[1]);
    driver.step = steps[0];
    driver_close(&driver);
    fake_control_assert_nothing_is_left(control);
    return e.code != ERR_OK;
}

/* Each call of each kind up to the last that there is, in growing strides. */
static void break_everywhere(uint32_t n_ranks, bool eager, const char *const *kinds)
{
    struct model_options options = driver_options(CHECKPOINT, 2, 64);
    options.device = "cuda";
    options.n_threads = 1;
    options.n_ranks = n_ranks;
    options.enforce_eager = eager;
    for (; *kinds != NULL; kinds++) {
        for (int ordinal = 0; ordinal < (int)n_ranks; ordinal++) {
            uint32_t n_broken = 0;
            control->set_seed(7 + (uint64_t)ordinal);
            for (uint32_t nth = 0; break_at(&options, *kinds, nth, ordinal); nth += 1 + nth / 2)
                n_broken++;
            if (n_broken < 3)
                fail_msg("%s broke the device at %u places only", *kinds, n_broken);
        }
    }
}

static void one_device(void **state)
{
    (void)state;
    static const char *const kinds[] = {"copy", "launch", "record", "wait", "graph", "run", NULL};
    break_everywhere(1, false, kinds);
}

static void two_ranks(void **state)
{
    (void)state;
    static const char *const kinds[] = {"gather", "copy", "launch", "record", "wait", "graph", "run", NULL};
    break_everywhere(2, false, kinds);
}

/* Every gathering, and every kernel behind one, without graphs. */
static void two_ranks_without_graphs(void **state)
{
    (void)state;
    static const char *const kinds[] = {"gather", "run", NULL};
    break_everywhere(2, true, kinds);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(one_device),
        cmocka_unit_test(two_ranks),
        cmocka_unit_test(two_ranks_without_graphs),
    };
    return cmocka_run_group_tests_name("a device that is lost", tests, open_control, NULL);
}
