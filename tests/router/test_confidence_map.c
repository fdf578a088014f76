/* The calibration of confidence against isotonic regression computed the long way, on random inputs. */
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
int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_fit_is_isotonic_regression),
        cmocka_unit_test(many_answers_fit_few_points),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
