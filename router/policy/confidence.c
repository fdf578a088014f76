#include "router/policy/confidence.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include "base/assert.h"

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
