/* The statistics, against known values and against slow and plain ways to the same numbers. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include "base/alloc.h"
#include "base/philox.h"
#include "router/gate/eval_stats.h"

static void assert_near(double a, double b, double within)
{
    if (!(fabs(a - b) <= within))
        fail_msg("%.9f is not %.9f", a, b);
}

/* The ends solve (p - share)^2 = z^2 p (1 - p) / n: found by halving. */
static double wilson_end(double share, double n, bool upper)
{
    const double z2 = 3.841458820694124;
    double inside = share, outside = upper ? 1 : 0;
    for (int i = 0; i < 200; i++) {
        double p = (inside + outside) / 2;
        if ((p - share) * (p - share) <= z2 * p * (1 - p) / n)
            inside = p;
        else
            outside = p;
    }
    return inside;
}

static void wilson_is_known(void **state)
{
    (void)state;
    struct stat_interval interval = stat_wilson(5, 10);
    assert_near(interval.value, 0.5, 0);
    assert_near(interval.low, 0.2366, 1e-4);
    assert_near(interval.high, 0.7634, 1e-4);
    interval = stat_wilson(0, 10);
    assert_near(interval.low, 0, 0);
    assert_near(interval.high, 0.2775, 1e-4);
    interval = stat_wilson(0, 0);
    assert_true(isnan(interval.value) && interval.low == 0 && interval.high == 1);
    for (uint64_t n = 1; n < 60; n++) {
        for (uint64_t k = 0; k <= n; k++) {
            double share = (double)k / (double)n;
            interval = stat_wilson(k, n);
            assert_near(interval.low, k == 0 ? 0 : wilson_end(share, (double)n, false), 1e-9);
            assert_near(interval.high, k == n ? 1 : wilson_end(share, (double)n, true), 1e-9);
        }
    }
}

static void quantiles(void **state)
{
    (void)state;
    static const double SORTED[] = {1, 2, 4, 8};
    assert_near(stat_quantile(SORTED, 4, 0), 1, 0);
    assert_near(stat_quantile(SORTED, 4, 1), 8, 0);
    assert_near(stat_quantile(SORTED, 4, 0.5), 3, 1e-12);
    assert_near(stat_quantile(SORTED, 4, 0.95), 7.4, 1e-12);
    assert_near(stat_quantile(SORTED, 1, 0.3), 1, 0);
    assert_true(isnan(stat_quantile(SORTED, 0, 0.5)));
}

/* The same draws, the plain way. */
static double plain_bootstrap_low(const double *a, const double *b, size_t n, uint64_t seed, double *high)
{
    static double means[STAT_BOOTSTRAP_ROUNDS];
    struct rng rng = rng_make(seed);
    for (size_t round = 0; round < STAT_BOOTSTRAP_ROUNDS; round++) {
        double sum_a = 0, sum_b = 0;
        for (size_t i = 0; i < n; i++) {
            uint32_t pair = rng_below(&rng, (uint32_t)n);
            sum_a += a[pair];
            sum_b += b[pair];
        }
        double mean = (sum_a - sum_b) / (double)n;
        size_t at = round; /* insertion by halves would do; the order is all that matters */
        while (at > 0 && means[at - 1] > mean) {
            means[at] = means[at - 1];
            at--;
        }
        means[at] = mean;
    }
    *high = means[(size_t)(0.975 * (STAT_BOOTSTRAP_ROUNDS - 1))];
    return means[(size_t)(0.025 * (STAT_BOOTSTRAP_ROUNDS - 1))];
}

static void bootstrap_is_seeded_and_right(void **state)
{
    (void)state;
    enum { N = 80 };
    double a[N], b[N], high;
    struct rng rng = rng_make(3);
    for (size_t i = 0; i < N; i++) {
        b[i] = rng_uniform(&rng) < 0.8F;
        a[i] = rng_uniform(&rng) < 0.9F ? b[i] : 1 - b[i];
    }
    struct stat_interval one, two, other;
    assert_int_equal(stat_paired_bootstrap(a, b, N, 11, &one).code, ERR_OK);
    assert_int_equal(stat_paired_bootstrap(a, b, N, 11, &two).code, ERR_OK);
    assert_int_equal(stat_paired_bootstrap(a, b, N, 12, &other).code, ERR_OK);
    assert_memory_equal(&one, &two, sizeof one);
    assert_near(other.low, one.low, 0.02);
    double low = plain_bootstrap_low(a, b, N, 11, &high);
    assert_near(one.low, low, 1e-9 + 1.0 / N); /* the quantile lies between two of them */
    assert_near(one.high, high, 1e-9 + 1.0 / N);
    assert_true(one.low < one.value && one.value < one.high);
}

/* The interval of a mean is near the one of the normal distribution when there are many pairs. */
static void bootstrap_is_near_the_normal(void **state)
{
    (void)state;
    enum { N = 2000 };
    static double a[N], b[N];
    struct rng rng = rng_make(5);
    double sum = 0, squares = 0;
    for (size_t i = 0; i < N; i++) {
        a[i] = rng_uniform(&rng);
        sum += a[i];
        squares += a[i] * a[i];
    }
    double mean = sum / N, deviation = sqrt((squares / N - mean * mean) / N);
    struct stat_interval interval;
    assert_int_equal(stat_paired_bootstrap(a, b, N, 1, &interval).code, ERR_OK);
    assert_near(interval.low, mean - 1.96 * deviation, 0.1 * deviation);
    assert_near(interval.high, mean + 1.96 * deviation, 0.1 * deviation);
}

static void same_differences_are_not_certainty(void **state)
{
    (void)state;
    double scores[40];
    for (size_t i = 0; i < 40; i++)
        scores[i] = 1;
    struct stat_interval interval;
    assert_int_equal(stat_paired_bootstrap(scores, scores, 40, 1, &interval).code, ERR_OK);
    assert_near(interval.value, 0, 0);
    assert_near(interval.low, -stat_wilson(0, 40).high, 1e-12);
    assert_int_equal(stat_non_inferiority(&interval, 0.03), STAT_NOT_SHOWN);
    assert_int_equal(stat_paired_bootstrap(scores, scores, 0, 1, &interval).code, ERR_OK);
    assert_true(isnan(interval.value) && interval.low == -1 && interval.high == 1);
    mem_fail_nth(1);
    assert_int_equal(stat_paired_bootstrap(scores, scores, 40, 1, &interval).code, ERR_RESOURCE_EXHAUSTED);
    mem_fail_nth(-1);
}

static void verdicts(void **state)
{
    (void)state;
    static const struct {
        struct stat_interval difference;
        enum stat_verdict verdict;
    } CASES[] = {
        {{-0.01, -0.03, 0.01}, STAT_NO_WORSE},    {{-0.01, -0.031, 0.01}, STAT_NOT_SHOWN},
        {{-0.05, -0.09, -0.01}, STAT_WORSE},      {{-0.05, -0.12, 0.02}, STAT_NOT_SHOWN},
        {{-0.02, -0.04, -0.001}, STAT_NOT_SHOWN}, {{0.1, 0.05, 0.2}, STAT_NO_WORSE},
        {{NAN, -1, 1}, STAT_NOT_SHOWN},
    };
    for (size_t i = 0; i < sizeof CASES / sizeof *CASES; i++)
        assert_int_equal(stat_non_inferiority(&CASES[i].difference, 0.03), CASES[i].verdict);
}

static void curves_are_known(void **state)
{
    (void)state;
    /* Four cases; the strong model gains in two of them. */
    static const double WEAK[] = {1, 0, 1, 0}, STRONG[] = {1, 1, 1, 1};
    static const double BEST[] = {0, 1, 0, 1}, WORST[] = {1, 0, 1, 0}, RANDOM[] = {7, 7, 7, 7};
    struct stat_curve curve;
    assert_int_equal(stat_curve_make(BEST, WEAK, STRONG, 4, &curve).code, ERR_OK);
    assert_near(curve.weak, 0.5, 0);
    assert_near(curve.strong, 1, 0);
    assert_near(curve.quality[25], 0.75, 1e-12);
    assert_near(curve.quality[50], 1, 1e-12);
    assert_near(curve.apgr, 0.75, 1e-12);
    assert_near(curve.cpt50, 0.25, 1e-12);
    assert_near(curve.cpt80, 0.4, 1e-12);
    assert_near(curve.share_for_95, 0.45, 1e-12);
    assert_int_equal(stat_curve_make(WORST, WEAK, STRONG, 4, &curve).code, ERR_OK);
    assert_near(curve.apgr, 0.25, 1e-12);
    assert_near(curve.cpt50, 0.75, 1e-12);
    assert_int_equal(stat_curve_make(RANDOM, WEAK, STRONG, 4, &curve).code, ERR_OK);
    assert_near(curve.apgr, 0.5, 1e-12);
    assert_near(curve.cpt80, 0.8, 1e-12);
    for (size_t i = 0; i < STAT_CURVE_POINTS; i++)
        assert_near(curve.quality[i], 0.5 + 0.005 * (double)i, 1e-12);
    assert_int_equal(stat_curve_make(BEST, STRONG, WEAK, 4, &curve).code, ERR_OK);
    assert_true(isnan(curve.apgr) && isnan(curve.cpt50) && curve.share_for_95 == 0);
    assert_true(isnan(stat_pgr(1, 0.5, 0.5)));
    assert_near(stat_pgr(0.7, 0.6, 0.8), 0.5, 1e-12);
}

/* Where no two needs are equal: every threshold tried. */
static void curves_agree_with_brute_force(void **state)
{
    (void)state;
    enum { N = 50 };
    struct rng rng = rng_make(9);
    for (int round = 0; round < 50; round++) {
        double need[N], weak[N], strong[N];
        for (size_t i = 0; i < N; i++) {
            need[i] = rng_uniform(&rng) + (double)i * 1e-9;
            weak[i] = rng_uniform(&rng);
            strong[i] = 0.5 + 0.5 * rng_uniform(&rng);
        }
        struct stat_curve curve;
        assert_int_equal(stat_curve_make(need, weak, strong, N, &curve).code, ERR_OK);
        double area = 0, before = 0, least = NAN;
        for (size_t k = 0; k <= N; k++) {
            double quality = 0;
            size_t n_strong = 0;
            for (size_t i = 0; i < N; i++) {
                size_t rank = 0;
                for (size_t j = 0; j < N; j++)
                    rank += need[j] > need[i];
                n_strong += rank < k;
                quality += rank < k ? strong[i] : weak[i];
            }
            assert_int_equal(n_strong, k);
            quality /= N;
            assert_near(curve.quality[2 * k], quality, 1e-9);
            area += k > 0 ? (quality + before) / 2 / N : 0;
            if (isnan(least) && stat_pgr(quality, curve.weak, curve.strong) >= 0.5)
                least = (double)k / N;
            before = quality;
        }
        assert_near(curve.apgr, stat_pgr(area, curve.weak, curve.strong), 1e-9);
        assert_true(curve.cpt50 <= least + 1e-9 && curve.cpt50 > least - 1.0 / N - 1e-9);
    }
}

static void false_cheap_is_counted(void **state)
{
    (void)state;
    static const bool WENT[] = {true, false, false, false, false};
    static const double WEAK[] = {0, 0, 1, 0, 0.4}, STRONG[] = {1, 1, 1, 0, 0.5};
    uint64_t n_cheap;
    struct stat_interval rate = stat_false_cheap(WENT, WEAK, STRONG, 5, &n_cheap);
    assert_int_equal(n_cheap, 4);
    assert_near(rate.value, 0.5, 0);
    assert_near(rate.high, stat_wilson(2, 4).high, 0);
}

/* The definition: the greatest over starts of the least over ends of means. */
static void isotonic_agrees_with_its_definition(void **state)
{
    (void)state;
    enum { N = 12 };
    struct rng rng = rng_make(21);
    for (int round = 0; round < 500; round++) {
        double y[N], fit[N];
        for (size_t i = 0; i < N; i++)
            fit[i] = y[i] = round % 2 ? rng_uniform(&rng) : (double)rng_below(&rng, 2);
        stat_isotonic(fit, N);
        for (size_t i = 0; i < N; i++) {
            double greatest = -INFINITY;
            for (size_t from = 0; from <= i; from++) {
                double least = INFINITY, sum = 0;
                for (size_t to = from; to < N; to++) {
                    sum += y[to];
                    if (to >= i)
                        least = fmin(least, sum / (double)(to - from + 1));
                }
                greatest = fmax(greatest, least);
            }
            assert_near(fit[i], greatest, 1e-9);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(wilson_is_known),
        cmocka_unit_test(quantiles),
        cmocka_unit_test(bootstrap_is_seeded_and_right),
        cmocka_unit_test(bootstrap_is_near_the_normal),
        cmocka_unit_test(same_differences_are_not_certainty),
        cmocka_unit_test(verdicts),
        cmocka_unit_test(curves_are_known),
        cmocka_unit_test(curves_agree_with_brute_force),
        cmocka_unit_test(false_cheap_is_counted),
        cmocka_unit_test(isotonic_agrees_with_its_definition),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
