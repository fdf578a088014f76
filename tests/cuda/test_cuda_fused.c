/* Norm and activation that leave their rows in 8 bits for the linear layer behind them: from the second pass
 * on a launch less each, and the same bits. On the fake device. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include "base/alloc.h"
#include "base/philox.h"
#include "kernels/kernels.h"
#include "tests/base/ok.h"
#include "tests/cuda/fake_control.h"

enum { ROWS = 5, WIDTH = 200, OUT = 96, PASSES = 3 };

struct world {
    struct backend *backend;
    const struct backend_vtable *ops;
    struct act *residual, *normed, *gate_up, *mlp, *out[2];
    struct vector *norm;
    struct weight *weight;
    struct step *step;
    const struct fake_device_control *control;
};

static void random_row(const void *context, size_t row, float *out)
{
    (void)context;
    struct rng rng = rng_make(1000 + row);
    for (size_t i = 0; i < WIDTH; i++)
        out[i] = rng_normal(&rng);
}

static void world_open(struct world *w, enum weight_format format)
{
    struct weight_desc desc = {
        .name = "check", .n_out = OUT, .n_in = WIDTH, .format = format, .group = WIDTH, .row = random_row};
    struct backend_needs needs = {.step = {ROWS, 1, ROWS, 1, 1, 1},
                                  .qkv = {1, 1, 64},
                                  .widest_in = WIDTH,
                                  .widest_out = 2 * WIDTH,
                                  .vocab_size = 64,
                                  .logits_rows = 8};
    struct backend_cuda_options options = {.n_threads = 1};
    *w = (struct world){0};
    OK(backend_cuda_create(&options, &w->backend));
    w->control = fake_control_find();
    const struct backend_vtable *ops = w->ops = w->backend->vtable;
    OK(ops->reserve(w->backend, &needs,
                    ops->weight_bytes(w->backend, &desc) + ops->vector_bytes(w->backend, WIDTH) +
                        ops->act_bytes(w->backend, ACT_RESIDUAL, ROWS, WIDTH) +
                        2 * ops->act_bytes(w->backend, ACT_HIDDEN, ROWS, WIDTH) +
                        ops->act_bytes(w->backend, ACT_HIDDEN, ROWS, 2 * WIDTH) +
                        2 * ops->act_bytes(w->backend, ACT_HIDDEN, ROWS, OUT) +
                        ops->scratch_bytes(w->backend, &needs)));
    OK(ops->weight_pack(w->backend, &desc, &w->weight));
    float ones[WIDTH];
    for (int i = 0; i < WIDTH; i++)
        ones[i] = 1.0f + 0.01f * (float)i;
    OK(ops->vector_create(w->backend, ones, WIDTH, &w->norm));
    OK(ops->act_create(w->backend, ACT_RESIDUAL, ROWS, WIDTH, &w->residual));
    OK(ops->act_create(w->backend, ACT_HIDDEN, ROWS, WIDTH, &w->normed));
    OK(ops->act_create(w->backend, ACT_HIDDEN, ROWS, 2 * WIDTH, &w->gate_up));
    OK(ops->act_create(w->backend, ACT_HIDDEN, ROWS, WIDTH, &w->mlp));
    for (int i = 0; i < 2; i++)
        OK(ops->act_create(w->backend, ACT_HIDDEN, ROWS, OUT, &w->out[i]));
    OK(ops->step_create(w->backend, &needs.step, &w->step));
    w->step->n_rows = ROWS;
    w->step->n_seqs = 1;
    w->step->seqs[0] = (struct step_seq){0, ROWS, ROWS, STEP_NO_SLOT, STEP_NO_SLOT};
    for (uint32_t r = 0; r < ROWS; r++)
        w->step->rows[r] = (struct step_row){.position = r};
}

static void world_close(struct world *w)
{
    w->ops->step_destroy(w->backend, w->step);
    struct act *acts[] = {w->residual, w->normed, w->gate_up, w->mlp, w->out[0], w->out[1]};
    for (size_t i = 0; i < sizeof acts / sizeof acts[0]; i++)
        w->ops->act_destroy(acts[i]);
    w->ops->vector_destroy(w->norm);
    w->ops->weight_destroy(w->weight);
    w->ops->destroy(w->backend);
}

/* Both pairs of ops; foreign: something else is written to the rows in between, which must count. */
static uint64_t run_pass(struct world *w, bool foreign, float *out)
{
    static float rows[ROWS * 2 * WIDTH];
    struct rng rng = rng_make(7);
    struct fake_device_counts before, after;
    for (int i = 0; i < ROWS * 2 * WIDTH; i++)
        rows[i] = rng_normal(&rng);
    w->ops->act_write(w->residual, 0, ROWS, rows);
    w->ops->act_write(w->gate_up, 0, ROWS, rows);
    w->control->counts(&before);
    assert_true(w->ops->forward_begin(w->backend, w->step));
    w->ops->add_norm(w->backend, w->step, STEP_ROWS_ALL, w->residual, NULL, NULL, w->norm, 1e-5f, w->normed);
    if (foreign)
        w->ops->act_write(w->normed, 0, ROWS, rows);
    w->ops->linear(w->backend, w->step, STEP_ROWS_ALL, w->normed, w->weight, w->out[0]);
    w->ops->activation_mul(w->backend, w->step, STEP_ROWS_ALL, w->gate_up, ACTIVATION_SILU, w->mlp);
    w->ops->linear(w->backend, w->step, STEP_ROWS_ALL, w->mlp, w->weight, w->out[1]);
    w->ops->forward_end(w->backend, w->step);
    w->control->counts(&after);
    w->ops->collect(w->backend, w->step);
    for (int i = 0; i < 2; i++)
        w->ops->act_read(w->out[i], 0, ROWS, out + i * ROWS * OUT);
    return after.launches - before.launches;
}

static void check_format(enum weight_format format)
{
    struct world w;
    static float first[2 * ROWS * OUT], later[2 * ROWS * OUT], foreign[2 * ROWS * OUT];
    world_open(&w, format);
    uint64_t n_first = run_pass(&w, false, first);
    for (int i = 1; i < PASSES; i++) {
        assert_int_equal(run_pass(&w, false, later), n_first - 2);
        assert_memory_equal(later, first, sizeof first);
    }
    assert_int_equal(run_pass(&w, true, foreign), n_first - 1);
    assert_memory_not_equal(foreign, first, sizeof first / 2);
    assert_memory_equal(foreign + ROWS * OUT, first + ROWS * OUT, sizeof first / 2);
    world_close(&w);
}

static void test_int8(void **state)
{
    (void)state;
    check_format(WEIGHT_INT8);
}

static void test_fp8(void **state)
{
    (void)state;
    check_format(WEIGHT_FP8);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_int8),
        cmocka_unit_test(test_fp8),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
