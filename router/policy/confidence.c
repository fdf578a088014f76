#include "router/policy/confidence.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <jansson.h>
#include "base/alloc.h"
#include "base/assert.h"

#define CALIBRATION_KIND "bantam confidence"
enum { CALIBRATION_VERSION = 1 };

/* --- fitting */

/* Samples that share one probability. */
struct block {
    double low, high; /* u */
    uint64_t n, n_wrong;
};

static double block_p(const struct block *block)
{
    return (double)block->n_wrong / (double)block->n;
}

static struct block join_blocks(const struct block *a, const struct block *b)
{
    return (struct block){a->low, b->high, a->n + b->n, a->n_wrong + b->n_wrong};
}

static int compare_samples(const void *a, const void *b)
{
    double u = ((const struct confidence_sample *)a)->u, v = ((const struct confidence_sample *)b)->u;
    return (u > v) - (u < v);
}

/* Those of one u are one block from the start: they cannot be told apart. */
static size_t pool(const struct confidence_sample *samples, size_t n, struct block *blocks)
{
    size_t used = 0;
    for (size_t i = 0; i < n;) {
        struct block block = {samples[i].u, samples[i].u, 0, 0};
        for (; i < n && samples[i].u == block.low; i++) {
            block.n++;
            block.n_wrong += samples[i].wrong;
        }
        blocks[used++] = block;
        while (used > 1 && block_p(&blocks[used - 2]) >= block_p(&blocks[used - 1])) {
            blocks[used - 2] = join_blocks(&blocks[used - 2], &blocks[used - 1]);
            used--;
        }
    }
    return used;
}

err_t calibration_fit(struct confidence_sample *samples, size_t n, struct calibration *out)
{
    if (n == 0 || n > CALIBRATION_SAMPLES_MAX)
        return err_new(ERR_INVALID_ARGUMENT, "%zu answers to calibrate with; 1 to %d are taken", n,
                       CALIBRATION_SAMPLES_MAX);
    *out = (struct calibration){.n_samples = n};
    for (size_t i = 0; i < n; i++) {
        if (!(samples[i].u >= 0 && samples[i].u <= 1))
            return err_new(ERR_INVALID_ARGUMENT, "answer %zu has the uncertainty %g; it must be in 0..1", i,
                           samples[i].u);
        out->n_wrong += samples[i].wrong;
    }
    struct block *blocks = mem_alloc_array(n, sizeof *blocks);
    if (!blocks)
        return err_new(ERR_RESOURCE_EXHAUSTED, "no memory to calibrate with %zu answers", n);
    qsort(samples, n, sizeof *samples, compare_samples);
    size_t used = pool(samples, n, blocks);
    while (used * 2 > CALIBRATION_KNOTS_MAX) { /* coarser: neighbours by twos */
        size_t half = 0;
        for (size_t i = 0; i < used; i += 2)
            blocks[half++] = i + 1 < used ? join_blocks(&blocks[i], &blocks[i + 1]) : blocks[i];
        used = half;
    }
    for (size_t i = 0; i < used; i++) {
        bool is_wide = blocks[i].high > blocks[i].low;
        for (int end = 0; end <= (int)is_wide; end++) {
            out->u[out->n_knots] = end == 0 ? blocks[i].low : blocks[i].high;
            out->p[out->n_knots++] = block_p(&blocks[i]);
        }
    }
    mem_free(blocks);
    return err_ok();
}

double calibration_estimate(const struct calibration *calibration, double u)
{
    const double *us = calibration->u, *ps = calibration->p;
    size_t n = calibration->n_knots, low = 0, high = n - 1;
    ASSERT(n >= 1 && n <= CALIBRATION_KNOTS_MAX);
    if (!(u > us[0]))
        return ps[0];
    if (u >= us[n - 1])
        return ps[n - 1];
    while (high - low > 1) { /* us[low] < u <= us[high] */
        size_t middle = low + (high - low) / 2;
        *(us[middle] < u ? &low : &high) = middle;
    }
    double p = ps[low] + (ps[high] - ps[low]) * ((u - us[low]) / (us[high] - us[low]));
    return p < ps[high] ? p : ps[high]; /* rounding must not pass it */
}

/* --- as JSON */

err_t calibration_write(const struct calibration *calibration, struct buffer *out)
{
    bool fits = buffer_append_format(out,
                                     "{\"kind\": \"" CALIBRATION_KIND
                                     "\", \"version\": %d, \"samples\": %llu, \"wrong\": %llu, \"knots\": [",
                                     CALIBRATION_VERSION, (unsigned long long)calibration->n_samples,
                                     (unsigned long long)calibration->n_wrong);
    for (size_t i = 0; i < calibration->n_knots; i++)
        fits = fits && buffer_append_format(out, "%s[%.17g, %.17g]", i > 0 ? ", " : "", calibration->u[i],
                                            calibration->p[i]);
    fits = fits && buffer_append_text(out, "]}\n");
    return fits ? err_ok() : err_new(ERR_RESOURCE_EXHAUSTED, "no room for a calibration");
}

static err_t wrong(const char *what)
{
    return err_new(ERR_INVALID_ARGUMENT, "a calibration %s", what);
}

static err_t parse_knots(const json_t *knots, struct calibration *out)
{
    size_t n = json_array_size(knots);
    if (n == 0 || n > CALIBRATION_KNOTS_MAX)
        return err_new(ERR_INVALID_ARGUMENT, "a calibration has 1 to %d knots, and this one %zu",
                       CALIBRATION_KNOTS_MAX, n);
    for (size_t i = 0; i < n; i++) {
        const json_t *knot = json_array_get(knots, i), *u = json_array_get(knot, 0),
                     *p = json_array_get(knot, 1);
        if (json_array_size(knot) != 2 || !json_is_number(u) || !json_is_number(p))
            return err_new(ERR_INVALID_ARGUMENT, "knots[%zu] of a calibration must be two numbers", i);
        out->u[i] = json_number_value(u);
        out->p[i] = json_number_value(p);
        bool in_range = out->u[i] >= 0 && out->u[i] <= 1 && out->p[i] >= 0 && out->p[i] <= 1;
        bool ascends = i == 0 || (out->u[i] > out->u[i - 1] && out->p[i] >= out->p[i - 1]);
        if (!in_range || !ascends)
            return err_new(ERR_INVALID_ARGUMENT,
                           "knots[%zu] of a calibration must be in 0..1 and not go down", i);
    }
    out->n_knots = n;
    return err_ok();
}

static err_t parse_root(const json_t *root, struct calibration *out)
{
    const char *kind = json_string_value(json_object_get(root, "kind"));
    const json_t *version = json_object_get(root, "version"), *samples = json_object_get(root, "samples"),
                 *n_wrong = json_object_get(root, "wrong");
    if (!kind || strcmp(kind, CALIBRATION_KIND) != 0)
        return wrong("must be an object with \"kind\": \"" CALIBRATION_KIND "\"");
    if (!json_is_integer(version) || json_integer_value(version) != CALIBRATION_VERSION)
        return wrong("must be of version 1");
    if (!json_is_integer(samples) || !json_is_integer(n_wrong) || json_integer_value(n_wrong) < 0 ||
        json_integer_value(samples) < json_integer_value(n_wrong))
        return wrong("must tell its samples, and how many of them were wrong");
    out->n_samples = (uint64_t)json_integer_value(samples);
    out->n_wrong = (uint64_t)json_integer_value(n_wrong);
    return parse_knots(json_object_get(root, "knots"), out);
}

err_t calibration_parse(const char *text, size_t text_bytes, struct calibration *out)
{
    json_error_t error;
    *out = (struct calibration){.n_knots = 0};
    if (text_bytes > CALIBRATION_TEXT_BYTES_MAX)
        return err_new(ERR_INVALID_ARGUMENT, "a calibration has at most %d bytes, and this one %zu",
                       CALIBRATION_TEXT_BYTES_MAX, text_bytes);
    json_t *root = json_loadb(text, text_bytes, JSON_REJECT_DUPLICATES, &error);
    if (!root)
        return err_new(ERR_INVALID_ARGUMENT, "a calibration is not JSON: line %d: %s", error.line,
                       error.text);
    err_t e = parse_root(root, out);
    json_decref(root);
    return e;
}

/* --- a threshold */

static int compare_judged(const void *a, const void *b)
{
    double p = ((const struct judged_sample *)a)->estimate, q = ((const struct judged_sample *)b)->estimate;
    return (p > q) - (p < q);
}

/* From escalating nobody down to escalating everybody, one distinct estimate after another. */
bool threshold_choose(struct judged_sample *samples, size_t n, double target,
                      struct escalation_threshold *out)
{
    ASSERT(n >= 1);
    qsort(samples, n, sizeof *samples, compare_judged);
    size_t right = 0, kept = n;
    for (size_t i = 0; i < n; i++)
        right += samples[i].weak_right;
    *out = (struct escalation_threshold){.escalate_over = samples[n - 1].estimate, .quality = -1};
    for (;;) {
        double quality = (double)right / (double)n;
        double over = kept > 0 ? samples[kept - 1].estimate : nextafter(samples[0].estimate, -INFINITY);
        if (quality > out->quality)
            *out = (struct escalation_threshold){over, (double)(n - kept) / (double)n, quality};
        if (quality >= target || kept == 0)
            return quality >= target;
        double estimate = samples[kept - 1].estimate;
        for (; kept > 0 && samples[kept - 1].estimate == estimate; kept--)
            right += (size_t)samples[kept - 1].strong_right - (size_t)samples[kept - 1].weak_right;
    }
}

/* --- entropy */

double position_entropy(const struct position_logprobs *position)
{
    double sum = 0, entropy = 0;
    if (position->n_top == 0)
        return -1;
    for (uint32_t i = 0; i < position->n_top; i++) {
        double p = exp((double)position->top[i].logprob);
        sum += p;
        entropy -= p > 0 ? p * (double)position->top[i].logprob : 0;
    }
    double rest = 1 - sum;
    return rest > 1e-9 ? entropy - rest * log(rest) : entropy;
}

/* --- P2 */

struct quantile_sketch quantile_sketch_make(double quantile)
{
    ASSERT(quantile >= 0 && quantile <= 1);
    return (struct quantile_sketch){.quantile = quantile};
}

static int compare_doubles(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static void begin_markers(struct quantile_sketch *sketch)
{
    double q = sketch->quantile;
    const double WANTED[5] = {1, 1 + 2 * q, 1 + 4 * q, 3 + 2 * q, 5};
    qsort(sketch->height, 5, sizeof *sketch->height, compare_doubles);
    for (int i = 0; i < 5; i++) {
        sketch->place[i] = i + 1;
        sketch->wanted[i] = WANTED[i];
    }
}

/* The height of marker i a place further, by a parabola through its neighbours, or a line where that would
 * leave them. */
static double moved_height(const struct quantile_sketch *sketch, int i, double step)
{
    const double *h = sketch->height, *at = sketch->place;
    double below = at[i] - at[i - 1], above = at[i + 1] - at[i];
    double parabola =
        h[i] + step / (at[i + 1] - at[i - 1]) *
                   ((below + step) * (h[i + 1] - h[i]) / above + (above - step) * (h[i] - h[i - 1]) / below);
    if (parabola > h[i - 1] && parabola < h[i + 1])
        return parabola;
    int to = step > 0 ? i + 1 : i - 1;
    return h[i] + step * (h[to] - h[i]) / (at[to] - at[i]);
}

static void move_markers(struct quantile_sketch *sketch)
{
    for (int i = 1; i < 4; i++) {
        double off = sketch->wanted[i] - sketch->place[i];
        bool up = off >= 1 && sketch->place[i + 1] - sketch->place[i] > 1;
        bool down = off <= -1 && sketch->place[i - 1] - sketch->place[i] < -1;
        if (!up && !down)
            continue;
        double step = up ? 1 : -1;
        sketch->height[i] = moved_height(sketch, i, step);
        sketch->place[i] += step;
    }
}

void quantile_sketch_add(struct quantile_sketch *sketch, double value)
{
    if (isnan(value))
        return;
    if (sketch->n < 5) {
        sketch->height[sketch->n++] = value;
        if (sketch->n == 5)
            begin_markers(sketch);
        return;
    }
    sketch->n++;
    int cell = 0;
    while (cell < 3 && value >= sketch->height[cell + 1])
        cell++;
    if (value < sketch->height[0])
        sketch->height[0] = value;
    if (value > sketch->height[4])
        sketch->height[4] = value;
    double q = sketch->quantile;
    const double STEPS[5] = {0, q / 2, q, (1 + q) / 2, 1};
    for (int i = 0; i < 5; i++) {
        sketch->place[i] += i > cell;
        sketch->wanted[i] += STEPS[i];
    }
    move_markers(sketch);
}

double quantile_sketch_read(const struct quantile_sketch *sketch)
{
    if (sketch->n == 0)
        return NAN;
    if (sketch->n > 5)
        return sketch->height[2];
    double sorted[5];
    size_t n = (size_t)sketch->n;
    memcpy(sorted, sketch->height, n * sizeof *sorted);
    qsort(sorted, n, sizeof *sorted, compare_doubles);
    size_t at = (size_t)(sketch->quantile * (double)(n - 1) + 0.5);
    return sorted[at];
}
