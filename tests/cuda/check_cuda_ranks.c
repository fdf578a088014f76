/* CUDA kernels of tensor parallelism, bit for bit: sums in rank order, parts side by side. */
#include <stdio.h>
#include <string.h>
#include "tests/cuda/check_cuda.h"

enum { RANKS_MAX = 4 };

struct ranks_case {
    uint32_t n_ranks, width, stride, whole_stride;
    float *parts; /* [n_ranks][rows][width] */
};

static void ranks_make(struct cuda_case *c)
{
    struct ranks_case *e = c->context = check_alloc(c, sizeof *e);
    e->n_ranks = rng_between(&c->rng, 1, RANKS_MAX);
    e->width = rng_between(&c->rng, 1, c->n_rows > 20 ? 300 : 2500);
    e->stride = e->width + rng_below(&c->rng, 9);
    size_t n = (size_t)e->n_ranks * c->n_rows * e->width;
    e->parts = check_alloc(c, n * sizeof(float));
    fill_normal(&c->rng, e->parts, n);
    c->type = c->kernel == CUDA_KERNEL_join_ranks ? CHECK_F32 : (enum check_type)c->variant;
    values_round(c->type, e->parts, n);
    c->row_values = e->width * (c->kernel == CUDA_KERNEL_join_ranks ? e->n_ranks : 1);
    e->whole_stride = c->row_values + rng_below(&c->rng, 9);
    snprintf(c->note, sizeof c->note, "%u ranks, width %u", e->n_ranks, e->width);
}

/* The parts of the rows, [n_ranks][capacity][stride], those of rows that the step lacks zero. */
static void *upload_parts(struct cuda_case *c, uint32_t first, uint32_t n, uint32_t capacity)
{
    const struct ranks_case *e = c->context;
    float *parts = check_alloc(c, (size_t)e->n_ranks * capacity * e->width * sizeof(float));
    for (uint32_t k = 0; k < e->n_ranks; k++)
        memcpy(parts + (size_t)k * capacity * e->width, e->parts + ((size_t)k * c->n_rows + first) * e->width,
               (size_t)n * e->width * sizeof(float));
    return device_upload_rows(c->type, parts, (size_t)e->n_ranks * capacity, e->width, e->stride);
}

static void sum_reference(const struct cuda_case *c, uint32_t row, void *out, float *scale)
{
    const struct ranks_case *e = c->context;
    (void)scale;
    for (uint32_t i = 0; i < e->width; i++) {
        float sum = e->parts[(size_t)row * e->width + i];
        for (uint32_t k = 1; k < e->n_ranks; k++)
            sum += e->parts[((size_t)k * c->n_rows + row) * e->width + i];
        ((float *)out)[i] = sum;
    }
}

static void sum_run(struct cuda_case *c, uint32_t first, uint32_t n, void *out)
{
    struct ranks_case *e = c->context;
    uint32_t capacity = n + rng_below(&c->rng, 3);
    size_t element = check_type_bytes(c->type);
    struct sum_ranks_args args = {
        .rows = {.step = step_upload_rows(n), .count = CUDA_COUNT_ROWS, .max = capacity},
        .gathered = upload_parts(c, first, n, capacity),
        .out = device_alloc((size_t)capacity * e->stride * element),
        .n_ranks = e->n_ranks,
        .stride = e->stride,
        .width = e->width,
    };
    LAUNCH(c, c->kernel, capacity, (uint32_t)div_up(e->width, RANK_PIECE), RANK_THREADS, args);
    device_read_rows(args.out, n, e->width * element, e->stride * element, out);
}

const struct cuda_check check_sum_ranks = {ranks_make, sum_reference, sum_run};

static void join_reference(const struct cuda_case *c, uint32_t row, void *out, float *scale)
{
    const struct ranks_case *e = c->context;
    (void)scale;
    for (uint32_t k = 0; k < e->n_ranks; k++)
        memcpy((float *)out + (size_t)k * e->width, e->parts + ((size_t)k * c->n_rows + row) * e->width,
               e->width * sizeof(float));
}

static void join_run(struct cuda_case *c, uint32_t first, uint32_t n, void *out)
{
    struct ranks_case *e = c->context;
    uint32_t capacity = n + rng_below(&c->rng, 3);
    struct join_ranks_args args = {
        .rows = {.step = step_upload_rows(n), .count = CUDA_COUNT_ROWS, .max = capacity},
        .gathered = upload_parts(c, first, n, capacity),
        .whole = device_alloc((size_t)capacity * e->whole_stride * sizeof(float)),
        .part_stride = e->stride,
        .part_width = e->width,
        .whole_stride = e->whole_stride,
    };
    device_launch(
        c, &(struct check_launch){.kernel = c->kernel,
                                  .grid = {capacity, (uint32_t)div_up(e->width, RANK_PIECE), e->n_ranks},
                                  .threads = RANK_THREADS,
                                  .args = &args,
                                  .args_bytes = sizeof args});
    device_read_rows(args.whole, n, c->row_values * sizeof(float), e->whole_stride * sizeof(float), out);
}

const struct cuda_check check_join_ranks = {ranks_make, join_reference, join_run};
