/* CUDA linear layers in their simple form: one chain over the inputs, bit for bit. */
#include <math.h>
#include <stdio.h>
#include "tests/cuda/check_cuda.h"
#include "tests/cuda/check_matrix.h"

enum linear_types { SIMPLE_F32, SIMPLE_BF16, SIMPLE_BF16_F32 }; /* variants: activations in, out */

struct linear_case {
    struct check_matrix weight;
    uint32_t x_stride, out_stride;
    float *x; /* [rows][n_in] */
};

static enum check_type in_type(const struct cuda_case *c)
{
    return c->variant == SIMPLE_F32 ? CHECK_F32 : CHECK_BF16;
}

static void linear_make(struct cuda_case *c)
{
    struct linear_case *e = c->context = check_alloc(c, sizeof *e);
    matrix_make(c, &e->weight, (enum weight_format)rng_below(&c->rng, WEIGHT_FP8 + 1),
                rng_between(&c->rng, 1, 140), c->n_rows > 20 ? 100 : 400);
    e->x_stride = e->weight.n_in + rng_below(&c->rng, 3);
    e->out_stride = e->weight.n_out + rng_below(&c->rng, 3);
    e->x = check_alloc(c, (size_t)c->n_rows * e->weight.n_in * 4);
    for (uint32_t r = 0; r < c->n_rows; r++)
        fill_normal(&c->rng, e->x + (size_t)r * e->weight.n_in, e->weight.n_in);
    values_round(in_type(c), e->x, (size_t)c->n_rows * e->weight.n_in);
    c->type = c->variant == SIMPLE_BF16 ? CHECK_BF16 : CHECK_F32;
    c->row_values = e->weight.n_out;
    snprintf(c->note, sizeof c->note, "format %d, %u x %u, group %u", e->weight.format, e->weight.n_out,
             e->weight.n_in, e->weight.group);
}

static void linear_reference(const struct cuda_case *c, uint32_t row, void *out, float *scale)
{
    const struct linear_case *e = c->context;
    const struct check_matrix *m = &e->weight;
    (void)scale;
    for (uint32_t o = 0; o < m->n_out; o++) {
        float sum = 0;
        for (uint32_t k = 0; k < m->n_in; k++)
            sum = fmaf(m->values[(size_t)o * m->n_in + k], e->x[(size_t)row * m->n_in + k], sum);
        ((float *)out)[o] = m->bias == NULL ? sum : sum + m->bias[o];
    }
}

static void linear_run(struct cuda_case *c, uint32_t first, uint32_t n, void *out)
{
    struct linear_case *e = c->context;
    uint32_t n_in = e->weight.n_in, capacity = n + rng_below(&c->rng, 3);
    size_t element = check_type_bytes(c->type);
    struct linear_simple_args args = {
        .rows = {.step = step_upload_rows(n), .count = CUDA_COUNT_ROWS, .max = capacity},
        .weight = matrix_upload(&e->weight),
        .x = device_upload_rows(in_type(c), e->x + (size_t)first * n_in, n, n_in, e->x_stride),
        .out = device_alloc(n * e->out_stride * element),
        .x_stride = e->x_stride,
        .out_stride = e->out_stride,
    };
    LAUNCH(c, c->kernel, (uint32_t)div_up(e->weight.n_out, LINEAR_SIMPLE_OUTPUTS),
           (uint32_t)div_up(capacity, LINEAR_SIMPLE_ROWS), LINEAR_SIMPLE_THREADS, args);
    device_read_rows(args.out, n, c->row_values * element, e->out_stride * element, out);
}

const struct cuda_check check_linear_simple = {linear_make, linear_reference, linear_run};
