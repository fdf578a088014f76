#include "router/gate/eval_stats.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include "base/alloc.h"
#include "base/assert.h"
#include "base/philox.h"

static const double Z = 1.959963984540054; /* of 95 % */

const char *const STAT_VERDICT_NAMES[] = {"no worse", "worse", "not shown", NULL};

struct stat_interval stat_wilson(uint64_t k, uint64_t n)
{
    ASSERT(k <= n);
    if (n == 0)
        return (struct stat_interval){NAN, 0, 1};
    double size = (double)n, share = (double)k / size;
    double centre = share + Z * Z / (2 * size);
    double reach = Z * sqrt(share * (1 - share) / size + Z * Z / (4 * size * size));
    double scale = 1 + Z * Z / size;
    return (struct stat_interval){
        .value = share,
        .low = k == 0 ? 0 : fmax(0, (centre - reach) / scale),
        .high = k == n ? 1 : fmin(1, (centre + reach) / scale),
    };
}

static int by_value(const void *left, const void *right)
{
    double a = *(const double *)left, b = *(const double *)right;
    return (a > b) - (a < b);
}

double stat_quantile(const double *sorted, size_t n, double q)
{
    ASSERT(q >= 0 && q <= 1);
    if (n == 0)
        return NAN;
    double place = q * (double)(n - 1);
    size_t below = (size_t)place;
    if (below + 1 >= n)
        return sorted[n - 1];
    return sorted[below] + (place - (double)below) * (sorted[below + 1] - sorted[below]);
}

static size_t rounds_for(size_t n)
{
    size_t rounds = STAT_BOOTSTRAP_DRAWS_MAX / n;
    if (rounds > STAT_BOOTSTRAP_ROUNDS)
        return STAT_BOOTSTRAP_ROUNDS;
    return rounds < STAT_BOOTSTRAP_ROUNDS_MIN ? STAT_BOOTSTRAP_ROUNDS_MIN : rounds;
}

static void draw_means(const double *differences, size_t n, uint64_t seed, double *means, size_t rounds)
{
    struct rng rng = rng_make(seed);
    for (size_t round = 0; round < rounds; round++) {
        double sum = 0;
        for (size_t i = 0; i < n; i++)
            sum += differences[rng_below(&rng, (uint32_t)n)];
        means[round] = sum / (double)n;
    }
}

err_t stat_paired_bootstrap(const double *a, const double *b, size_t n, uint64_t seed,
                            struct stat_interval *out)
{
    *out = (struct stat_interval){NAN, -1, 1};
    if (n == 0)
        return err_ok();
    ASSERT(n <= UINT32_MAX);
    size_t rounds = rounds_for(n);
    double *differences = mem_alloc_array(n, sizeof *differences),
           *means = mem_alloc_array(rounds, sizeof *means);
    if (differences == NULL || means == NULL) {
        mem_free(differences);
        mem_free(means);
        return err_new(ERR_RESOURCE_EXHAUSTED, "no memory to draw from %zu pairs", n);
    }
    double sum = 0;
    bool all_same = true;
    for (size_t i = 0; i < n; i++) {
        differences[i] = a[i] - b[i];
        sum += differences[i];
        all_same &= differences[i] == differences[0];
    }
    double mean = sum / (double)n;
    if (all_same) {
        double reach = stat_wilson(0, n).high;
        *out = (struct stat_interval){mean, fmax(-1, mean - reach), fmin(1, mean + reach)};
    } else {
        draw_means(differences, n, seed, means, rounds);
        qsort(means, rounds, sizeof *means, by_value);
        *out = (struct stat_interval){mean, stat_quantile(means, rounds, 0.025),
                                      stat_quantile(means, rounds, 0.975)};
    }
    mem_free(differences);
    mem_free(means);
    return err_ok();
}

enum stat_verdict stat_non_inferiority(const struct stat_interval *difference, double margin)
{
    if (difference->low >= -margin)
        return STAT_NO_WORSE;
    if (difference->value < -margin && difference->high < 0)
        return STAT_WORSE;
    return STAT_NOT_SHOWN;
}

double stat_pgr(double score, double weak, double strong)
{
    return strong > weak ? (score - weak) / (strong - weak) : NAN;
}

/* The curve's corners: between two of them it is a straight line. */
struct corner {
    double share, quality;
};

struct ranked {
    double need, gain;
};

static int by_need_falling(const void *left, const void *right)
{
    const struct ranked *a = left, *b = right;
    return (a->need < b->need) - (a->need > b->need);
}

/* Corners after each group of equal need, the first at share 0. Returns how many. */
static size_t corners_of(const struct ranked *ranked, size_t n, double weak, struct corner *corners)
{
    size_t n_corners = 0;
    double gained = 0;
    corners[n_corners++] = (struct corner){0, weak};
    for (size_t i = 0; i < n; i++) {
        gained += ranked[i].gain;
        if (i + 1 == n || ranked[i + 1].need != ranked[i].need)
            corners[n_corners++] = (struct corner){(double)(i + 1) / (double)n, weak + gained / (double)n};
    }
    return n_corners;
}

static double quality_at(const struct corner *corners, size_t n_corners, double share)
{
    size_t i = 1;
    while (i + 1 < n_corners && corners[i].share < share)
        i++;
    const struct corner *from = &corners[i - 1], *to = &corners[i];
    return from->quality + (share - from->share) / (to->share - from->share) * (to->quality - from->quality);
}

/* The least share at which quality is reached. */
static double share_for(const struct corner *corners, size_t n_corners, double quality)
{
    static const double ROUNDING = 1e-12;
    if (corners[0].quality >= quality - ROUNDING)
        return 0;
    for (size_t i = 1; i < n_corners; i++) {
        const struct corner *from = &corners[i - 1], *to = &corners[i];
        if (to->quality < quality - ROUNDING)
            continue;
        double part = (quality - from->quality) / (to->quality - from->quality);
        return from->share + fmin(1, part) * (to->share - from->share);
    }
    return NAN;
}

static double area_under(const struct corner *corners, size_t n_corners)
{
    double area = 0;
    for (size_t i = 1; i < n_corners; i++)
        area += (corners[i].share - corners[i - 1].share) * (corners[i].quality + corners[i - 1].quality) / 2;
    return area;
}

static void measure(const struct corner *corners, size_t n_corners, struct stat_curve *out)
{
    double gain = out->strong - out->weak;
    for (size_t i = 0; i < STAT_CURVE_POINTS; i++)
        out->quality[i] = quality_at(corners, n_corners, (double)i / (STAT_CURVE_POINTS - 1));
    out->apgr = stat_pgr(area_under(corners, n_corners), out->weak, out->strong);
    out->cpt50 = gain > 0 ? share_for(corners, n_corners, out->weak + 0.5 * gain) : NAN;
    out->cpt80 = gain > 0 ? share_for(corners, n_corners, out->weak + 0.8 * gain) : NAN;
    out->share_for_95 = share_for(corners, n_corners, 0.95 * out->strong);
}

err_t stat_curve_make(const double *need, const double *weak, const double *strong, size_t n,
                      struct stat_curve *out)
{
    ASSERT(n >= 1);
    *out = (struct stat_curve){0};
    struct ranked *ranked = mem_alloc_array(n, sizeof *ranked);
    struct corner *corners = mem_alloc_array(n + 1, sizeof *corners);
    if (ranked == NULL || corners == NULL) {
        mem_free(ranked);
        mem_free(corners);
        return err_new(ERR_RESOURCE_EXHAUSTED, "no memory for a curve over %zu cases", n);
    }
    for (size_t i = 0; i < n; i++) {
        ASSERT(!isnan(need[i]));
        ranked[i] = (struct ranked){need[i], strong[i] - weak[i]};
        out->weak += weak[i];
        out->strong += strong[i];
    }
    out->weak /= (double)n; /* sums first: the mean of ones is one */
    out->strong /= (double)n;
    qsort(ranked, n, sizeof *ranked, by_need_falling);
    size_t n_corners = corners_of(ranked, n, out->weak, corners);
    measure(corners, n_corners, out);
    mem_free(ranked);
    mem_free(corners);
    return err_ok();
}

struct stat_interval stat_false_cheap(const bool *went_strong, const double *weak, const double *strong,
                                      size_t n, uint64_t *n_cheap)
{
    uint64_t n_false = 0;
    *n_cheap = 0;
    for (size_t i = 0; i < n; i++) {
        *n_cheap += !went_strong[i];
        n_false += !went_strong[i] && weak[i] < 0.5 && strong[i] >= 0.5;
    }
    return stat_wilson(n_false, *n_cheap);
}

void stat_isotonic(double *y, size_t n)
{
    /* Blocks of equal value stand at the front of y's part that is done: y[start] is the mean, and the sizes
     * are found again by walking over equal values. */
    size_t done = 0;
    while (done < n) {
        double mean = y[done];
        size_t start = done, size = 1;
        while (start > 0 && y[start - 1] >= mean) {
            double neighbour = y[start - 1];
            size_t first = start - 1;
            while (first > 0 && y[first - 1] == neighbour)
                first--;
            mean =
                (mean * (double)size + neighbour * (double)(start - first)) / (double)(size + start - first);
            size += start - first;
            start = first;
        }
        for (size_t i = start; i <= done; i++)
            y[i] = mean;
        done++;
    }
}
