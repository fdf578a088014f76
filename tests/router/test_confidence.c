/* Calibration, thresholds and quantiles against what is computed the long way, on random inputs. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include "base/philox.h"
#include "router/gate/confidence_map.h"
#include "router/policy/confidence.h"

enum { SAMPLES_MAX = 60 };

static void assert_near(double a, double b, double tolerance)
{
    if (!(fabs(a - b) <= tolerance))
        fail_msg("%.12g is not %.12g", a, b);
}

/* An answer and its doubt. */
struct sample {
    double u;
    bool wrong;
};

static int compare_samples(const void *a, const void *b)
{
    double x = ((const struct sample *)a)->u, y = ((const struct sample *)b)->u;
    return (x > y) - (x < y);
}

/* Isotonic regression by its definition over distinct u: the least, over later ends, of the mean, the
 * greatest of that over earlier beginnings. */
static double isotonic(const struct sample *samples, size_t n, double u)
{
    double best = -1;
    for (size_t a = 0; a < n; a++) {
        bool begins = samples[a].u <= u && (a == 0 || samples[a - 1].u < samples[a].u);
        double least = 2, sum = 0;
        for (size_t b = a; begins && b < n; b++) {
            sum += samples[b].wrong;
            bool ends = samples[b].u >= u && (b + 1 == n || samples[b + 1].u > samples[b].u);
            double mean = sum / (double)(b - a + 1);
            least = ends && mean < least ? mean : least;
        }
        best = begins && least > best ? least : best;
    }
    return best;
}

static void a_fit_is_isotonic_regression(void **state)
{
    (void)state;
    struct rng rng = rng_make(1);
    for (int round = 0; round < 2000; round++) {
        struct sample samples[SAMPLES_MAX];
        double doubts[SAMPLES_MAX], scores[SAMPLES_MAX];
        struct confidence_map map;
        size_t n = 1 + rng_below(&rng, SAMPLES_MAX);
        uint32_t grid = 1 + rng_below(&rng, 100); /* few: many ties */
        for (size_t i = 0; i < n; i++) {
            samples[i].u = doubts[i] = (double)rng_below(&rng, grid) / (double)grid;
            samples[i].wrong = rng_uniform(&rng) < samples[i].u;
            scores[i] = samples[i].wrong ? 0 : 1;
        }
        assert_int_equal(confidence_map_fit(doubts, scores, n, 8, &map).code, ERR_OK);
        qsort(samples, n, sizeof *samples, compare_samples);
        for (size_t i = 0; i < n; i++)
            assert_near(confidence_map_wrong(&map, samples[i].u), isotonic(samples, n, samples[i].u), 1e-12);
        double last = -1;
        for (int k = -1; k <= 101; k++) {
            double p = confidence_map_wrong(&map, k / 100.0);
            assert_true(p >= last - 1e-12 && p >= 0 && p <= 1);
            last = p;
        }
    }
}

static void many_answers_fit_few_points(void **state)
{
    (void)state;
    enum { N = 100000 };
    double *doubts = calloc(N, sizeof *doubts), *scores = calloc(N, sizeof *scores);
    assert_true(doubts && scores);
    struct rng rng = rng_make(2);
    for (size_t i = 0; i < N; i++) {
        doubts[i] = rng_uniform(&rng);
        scores[i] = rng_uniform(&rng) < doubts[i] * doubts[i] ? 0 : 1;
    }
    struct confidence_map map;
    assert_int_equal(confidence_map_fit(doubts, scores, N, 8, &map).code, ERR_OK);
    assert_int_equal(map.n_points, CONFIDENCE_POINTS_MAX);
    for (int k = 1; k < 20; k++)
        assert_near(confidence_map_wrong(&map, k / 20.0), k * k / 400.0, 0.03);
    free(doubts);
    free(scores);
}

/* Every threshold that could be meant, tried. */
static bool try_all(const struct judged_sample *samples, size_t n, double target, double *least_share)
{
    *least_share = 2;
    for (size_t t = 0; t <= n; t++) {
        double over = t < n ? samples[t].estimate : -1;
        double right = 0, escalated = 0;
        for (size_t i = 0; i < n; i++) {
            bool goes = samples[i].estimate > over;
            escalated += goes;
            right += goes ? samples[i].strong_right : samples[i].weak_right;
        }
        if (right / (double)n >= target && escalated / (double)n < *least_share)
            *least_share = escalated / (double)n;
    }
    return *least_share <= 1;
}

static void the_cheapest_threshold_is_chosen(void **state)
{
    (void)state;
    struct rng rng = rng_make(3);
    uint32_t n_met = 0;
    enum { ROUNDS = 3000 };
    for (int round = 0; round < ROUNDS; round++) {
        struct judged_sample samples[SAMPLES_MAX];
        size_t n = 1 + rng_below(&rng, SAMPLES_MAX);
        for (size_t i = 0; i < n; i++)
            samples[i] = (struct judged_sample){(double)rng_below(&rng, 20) / 20, rng_below(&rng, 2) == 0,
                                                rng_below(&rng, 4) != 0};
        double target = rng_uniform(&rng), least;
        struct escalation_threshold chosen;
        bool met = threshold_choose(samples, n, target, &chosen);
        assert_int_equal(met, try_all(samples, n, target, &least));
        double right = 0, escalated = 0;
        for (size_t i = 0; i < n; i++) {
            bool goes = samples[i].estimate > chosen.escalate_over;
            escalated += goes;
            right += goes ? samples[i].strong_right : samples[i].weak_right;
        }
        assert_near(chosen.share_escalated, escalated / (double)n, 1e-12); /* it does what it says */
        assert_near(chosen.quality, right / (double)n, 1e-12);
        if (met)
            assert_near(chosen.share_escalated, least, 1e-12);
        n_met += met;
    }
    assert_true(n_met > ROUNDS / 10 && n_met < ROUNDS);
}

static void entropy_is_of_what_is_told(void **state)
{
    (void)state;
    struct position_logprobs position = {.n_top = 2};
    position.top[0].logprob = position.top[1].logprob = logf(0.5f);
    assert_near(position_entropy(&position), log(2), 1e-6);
    position.n_top = 1;
    assert_near(position_entropy(&position), log(2), 1e-6); /* the other half is one more */
    position.top[0].logprob = 0;
    assert_near(position_entropy(&position), 0, 1e-9);
    position.n_top = 0;
    assert_true(position_entropy(&position) < 0);
}

static int compare(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static void quantiles_are_close(void **state)
{
    (void)state;
    enum { N = 20000 };
    static const double QUANTILES[] = {0.05, 0.5, 0.9, 0.99};
    static double values[N];
    struct rng rng = rng_make(4);
    for (int kind = 0; kind < 3; kind++) {
        for (size_t k = 0; k < sizeof QUANTILES / sizeof *QUANTILES; k++) {
            struct quantile_sketch sketch = quantile_sketch_make(QUANTILES[k]);
            for (int i = 0; i < N; i++) {
                values[i] = kind == 0   ? (double)rng_uniform(&rng)
                            : kind == 1 ? (double)rng_normal(&rng)
                                        : i % 7;
                quantile_sketch_add(&sketch, values[i]);
                quantile_sketch_add(&sketch, NAN); /* no number, not counted */
            }
            assert_int_equal(sketch.n, N);
            qsort(values, N, sizeof *values, compare);
            double found = quantile_sketch_read(&sketch);
            size_t rank = 0;
            while (rank < N && values[rank] < found)
                rank++;
            if (kind < 2)
                assert_near((double)rank / N, QUANTILES[k], 0.01);
            else
                assert_near(found, values[(size_t)(QUANTILES[k] * N)], 1);
        }
    }
    struct quantile_sketch few = quantile_sketch_make(0.5);
    assert_true(isnan(quantile_sketch_read(&few)));
    for (int i = 5; i > 0; i--)
        quantile_sketch_add(&few, i);
    assert_near(quantile_sketch_read(&few), 3, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_fit_is_isotonic_regression),
        cmocka_unit_test(many_answers_fit_few_points),
        cmocka_unit_test(the_cheapest_threshold_is_chosen),
        cmocka_unit_test(entropy_is_of_what_is_told),
        cmocka_unit_test(quantiles_are_close),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
