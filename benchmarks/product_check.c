#include "benchmarks/product_check.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "base/alloc.h"
#include "base/assert.h"
#include "base/clock.h"
#include "base/philox.h"

enum { WARMUPS = 2, STEP_PRODUCTS = 8, PIECE_ROWS = 32, BLOCK_TOKENS = 16 };

/* A backend with the weight and its activations. */
struct side {
    struct backend *backend;
    const struct backend_vtable *ops;
    struct weight *weight;
    struct act *in, *out;
    struct step *step;
};

static void random_row(const void *context, size_t row, float *out)
{
    const struct product_check_options *options = context;
    uint32_t state = (uint32_t)row * 2654435761u + 12345;
    for (size_t i = 0; i < options->n_in; i++) {
        state = state * 1664525u + 1013904223u;
        out[i] = (float)(int32_t)state * 0x1p-36f;
    }
}

static err_t open_device(const struct product_check_options *o, bool by_library, struct backend **out)
{
    struct backend_cuda_options cuda = {
        .n_threads = o->n_threads, .batch_variant = by_library, .library_rows_min = 1};
    if (backend_cuda_parse(o->device, &cuda.device))
        return backend_cuda_create(&cuda, out);
    return err_new(ERR_INVALID_ARGUMENT, "--device: \"%s\" is not cuda or cuda:N: products are a GPU's",
                   o->device);
}

/* The same rows on both sides, normal and scaled differently, so that each has a scale of its own in 8 bits.
 */
static err_t fill_rows(const struct product_check_options *o, struct side *side, uint32_t n_rows)
{
    float *row = mem_alloc_array(o->n_in, sizeof *row);
    if (row == NULL)
        return err_new(ERR_RESOURCE_EXHAUSTED, "out of memory for %zu values", o->n_in);
    struct rng rng = rng_make(7);
    for (size_t i = 0; i < o->n_in; i++)
        row[i] = rng_normal(&rng);
    for (uint32_t r = 0; r < n_rows; r++) {
        for (size_t i = r % 8; i < o->n_in; i += 8) /* rows that differ, without a draw for each value */
            row[i] = rng_normal(&rng) * (float)(1 + r % 3);
        side->ops->act_write(side->in, r, 1, row);
    }
    mem_free(row);
    return err_ok();
}

static err_t side_open(const struct product_check_options *o, bool by_library, uint32_t most_rows,
                       struct side *side)
{
    TRY(open_device(o, by_library, &side->backend));
    const struct backend_vtable *ops = side->ops = side->backend->vtable;
    const struct backend_library *library = ops->library(side->backend);
    if (by_library && library->version == 0)
        return err_new(ERR_UNAVAILABLE, "%s", library->note);
    struct weight_desc desc = {
        .name = "product",
        .n_out = o->n_out,
        .n_in = o->n_in,
        .format = o->weights,
        .group = (uint32_t)o->n_in,
        .row = random_row,
        .row_context = o,
    };
    uint32_t blocks = most_rows / BLOCK_TOKENS + 1;
    struct backend_needs needs = {.step = {most_rows, 1, 1, 1, blocks, 1},
                                  .qkv = {1, 1, 64},
                                  .widest_in = o->n_in,
                                  .widest_out = o->n_out,
                                  .largest_weight = o->n_in * o->n_out,
                                  .vocab_size = 64,
                                  .logits_rows = 8};
    TRY(ops->reserve(side->backend, &needs,
                     ops->weight_bytes(side->backend, &desc) +
                         ops->act_bytes(side->backend, ACT_HIDDEN, most_rows, o->n_in) +
                         ops->act_bytes(side->backend, ACT_HIDDEN, most_rows, o->n_out) +
                         ops->scratch_bytes(side->backend, &needs)));
    TRY(ops->weight_pack(side->backend, &desc, &side->weight));
    TRY(ops->act_create(side->backend, ACT_HIDDEN, most_rows, o->n_in, &side->in));
    TRY(ops->act_create(side->backend, ACT_HIDDEN, most_rows, o->n_out, &side->out));
    TRY(ops->step_create(side->backend, &needs.step, &side->step));
    return fill_rows(o, side, most_rows);
}

static void side_close(struct side *side)
{
    if (side->backend == NULL)
        return;
    if (side->step != NULL)
        side->ops->step_destroy(side->backend, side->step);
    if (side->in != NULL)
        side->ops->act_destroy(side->in);
    if (side->out != NULL)
        side->ops->act_destroy(side->out);
    if (side->weight != NULL)
        side->ops->weight_destroy(side->weight);
    side->ops->destroy(side->backend);
}

/* A prompt of so many tokens, of which the layer alone is run. */
static void run_step(struct side *side, uint32_t n_rows, uint32_t n_products)
{
    struct step *step = side->step;
    step->n_rows = n_rows;
    step->n_seqs = 1;
    step->n_outputs = step->n_copies = 0;
    step->seqs[0] = (struct step_seq){
        .n_rows = n_rows, .n_context = n_rows, .sampling_slot = STEP_NO_SLOT, .adapter_slot = STEP_NO_SLOT};
    for (uint32_t r = 0; r < n_rows; r++)
        step->rows[r] = (struct step_row){.position = r};
    if (side->ops->forward_begin(side->backend, step)) {
        for (uint32_t i = 0; i < n_products; i++)
            side->ops->linear(side->backend, step, STEP_ROWS_ALL, side->in, side->weight, side->out);
        side->ops->forward_end(side->backend, step);
    }
    side->ops->collect(side->backend, step);
}

static int compare(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* Of one product, where the step has so many. */
static double step_us(struct side *side, uint32_t n_rows, uint32_t n_products)
{
    int64_t began_ns = clock_now_ns(clock_monotonic());
    run_step(side, n_rows, n_products);
    return (double)(clock_now_ns(clock_monotonic()) - began_ns) / 1e3 / n_products;
}

/* Microseconds of one product, the median of several steps of several. */
static double time_us(struct side *side, uint32_t n_rows, uint32_t n_steps)
{
    double samples[PRODUCT_CHECK_STEPS_MAX];
    ASSERT(n_steps <= PRODUCT_CHECK_STEPS_MAX);
    if (n_steps == 0)
        return step_us(side, n_rows, 1);
    for (int i = 0; i < WARMUPS; i++)
        run_step(side, n_rows, 1);
    for (uint32_t i = 0; i < n_steps; i++)
        samples[i] = step_us(side, n_rows, STEP_PRODUCTS);
    qsort(samples, n_steps, sizeof *samples, compare);
    return samples[n_steps / 2];
}

/* The greatest difference relative to the greatest magnitude; infinite where one side is not a number. */
static double row_error(const float *ours, const float *library, size_t n)
{
    double worst = 0, greatest = 0;
    for (size_t i = 0; i < n; i++) {
        double difference = fabs((double)ours[i] - (double)library[i]);
        worst = difference <= worst ? worst : isnan(difference) ? INFINITY : difference;
        greatest = fmax(greatest, fabs((double)ours[i]));
    }
    return worst == 0 ? 0 : worst / greatest;
}

static void compare_rows(const struct side sides[2], size_t n_out, uint32_t n_rows, float *const pieces[2],
                         struct product_check_result *out)
{
    for (uint32_t first = 0; first < n_rows; first += PIECE_ROWS) {
        uint32_t n = n_rows - first < PIECE_ROWS ? n_rows - first : PIECE_ROWS;
        for (int i = 0; i < 2; i++)
            sides[i].ops->act_read(sides[i].out, first, n, pieces[i]);
        for (uint32_t r = 0; r < n; r++) {
            const float *ours = pieces[0] + r * n_out, *library = pieces[1] + r * n_out;
            if (memcmp(ours, library, n_out * sizeof(float)) == 0)
                continue;
            out->worst_error = fmax(out->worst_error, row_error(ours, library, n_out));
            if (out->n_differing++ == 0)
                out->first_differing = first + r;
        }
    }
}

static err_t compare_sides(const struct product_check_options *o, struct side sides[2], const uint32_t *rows,
                           size_t n_rows, struct product_check_result *results)
{
    float *buffer = mem_alloc_array(2 * PIECE_ROWS * o->n_out, sizeof *buffer);
    if (buffer == NULL)
        return err_new(ERR_RESOURCE_EXHAUSTED, "out of memory for rows of %zu values", o->n_out);
    float *const pieces[2] = {buffer, buffer + PIECE_ROWS * o->n_out};
    for (size_t i = 0; i < n_rows; i++) {
        results[i] = (struct product_check_result){0};
        results[i].ours_us = time_us(&sides[0], rows[i], o->timed_steps);
        results[i].library_us = time_us(&sides[1], rows[i], o->timed_steps);
        compare_rows(sides, o->n_out, rows[i], pieces, &results[i]);
    }
    mem_free(buffer);
    return err_ok();
}

err_t product_check_run(const struct product_check_options *options, const uint32_t *rows, size_t n_rows,
                        struct product_check_card *card, struct product_check_result *results)
{
    struct side sides[2] = {{0}, {0}};
    uint32_t most = rows[n_rows - 1];
    err_t e = side_open(options, false, most, &sides[0]);
    if (e.code == ERR_OK)
        e = side_open(options, true, most, &sides[1]);
    for (size_t i = 0; i < n_rows && e.code == ERR_OK; i++) {
        if (!sides[1].ops->library_serves(sides[1].weight, rows[i]) ||
            sides[0].ops->library_serves(sides[0].weight, rows[i]))
            e = err_new(ERR_UNIMPLEMENTED, "%zu x %zu at %u rows: nothing to compare, both sides are %s; %s",
                        options->n_out, options->n_in, rows[i],
                        sides[0].ops->library_serves(sides[0].weight, rows[i]) ? "the library's" : "ours",
                        sides[1].ops->library(sides[1].backend)->note);
    }
    if (e.code == ERR_OK) {
        const struct backend_library *library = sides[1].ops->library(sides[1].backend);
        snprintf(card->name, sizeof card->name, "%s", library->card);
        card->library_version = library->version;
        e = compare_sides(options, sides, rows, n_rows, results);
    }
    side_close(&sides[0]);
    side_close(&sides[1]);
    return e;
}
