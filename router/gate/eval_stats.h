/* The statistics of evaluations and of the gate. Pure functions; what has a seed gives the same numbers
 * anywhere. Scores are 0..1, or differences of them.
 *
 * PGR, APGR and CPT as in Ong et al., "RouteLLM", 2024. Wilson's interval: Wilson, JASA 22, 1927. The
 * bootstrap: Efron's percentile interval over pairs. Isotonic fit: pool adjacent violators, Ayer et al. 1955.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "base/error.h"

enum {
    STAT_BOOTSTRAP_ROUNDS = 10000,
    STAT_BOOTSTRAP_ROUNDS_MIN = 1000,
    STAT_BOOTSTRAP_DRAWS_MAX = 200000000, /* rounds times pairs: many pairs get fewer rounds */
};

/* An estimate and its 95 % interval; NaN = there is none. */
struct stat_interval {
    double value, low, high;
};

/* The share k of n. n = 0: value NaN, 0 to 1. */
struct stat_interval stat_wilson(uint64_t k, uint64_t n);

/* The mean of a[i] - b[i], i < n, over pairs drawn again. Differences that are all the same tell nothing of
 * those that were not seen: then the interval reaches as far on both sides as Wilson's of 0 in n. n = 0: NaN,
 * -1 to 1. RESOURCE_EXHAUSTED: no memory. */
err_t stat_paired_bootstrap(const double *a, const double *b, size_t n, uint64_t seed,
                            struct stat_interval *out) ERR_MUST_CHECK;

/* What an interval of a difference says about "not worse by more than margin". */
enum stat_verdict {
    STAT_NO_WORSE,  /* low >= -margin */
    STAT_WORSE,     /* by more than the margin, and not by chance: value < -margin and high < 0 */
    STAT_NOT_SHOWN, /* neither: too few cases */
};
extern const char *const STAT_VERDICT_NAMES[]; /* "no worse", "worse", "not shown" */
enum stat_verdict stat_non_inferiority(const struct stat_interval *difference, double margin);

/* The q-quantile, 0..1, of sorted[0..n), between two values in proportion; NaN when n = 0. */
double stat_quantile(const double *sorted, size_t n, double q);

/* (score - weak) / (strong - weak); NaN when strong is not better than weak. */
double stat_pgr(double score, double weak, double strong);

/* Quality against the share of strong calls, when those go to the strong model whose need is greatest. */
enum { STAT_CURVE_POINTS = 101 }; /* at shares of 0, 0.01, ..., 1 */
struct stat_curve {
    double weak, strong;               /* mean scores */
    double quality[STAT_CURVE_POINTS]; /* mean score */
    double apgr;                       /* mean of PGR over all shares: 0.5 is chance */
    double cpt50, cpt80;               /* least share at which PGR is 0.5, 0.8; NaN = at none */
    double share_for_95;               /* least share at which quality is 95 % of strong; NaN = at none */
};
/* need[i]: how much case i asks for the strong model; cases of equal need come in random order, and what is
 * given is the mean over these orders. weak[i], strong[i]: scores, i < n, n >= 1. RESOURCE_EXHAUSTED. */
err_t stat_curve_make(const double *need, const double *weak, const double *strong, size_t n,
                      struct stat_curve *out) ERR_MUST_CHECK;

/* Sent to the weak model, which failed where the strong one did not: of all that went to the weak one.
 * A score counts as right from 1/2 on. went_strong[i], i < n. */
struct stat_interval stat_false_cheap(const bool *went_strong, const double *weak, const double *strong,
                                      size_t n, uint64_t *n_cheap);

/* Replaces y[0..n), which stand in the order of their x, by the non-decreasing values nearest to them. */
void stat_isotonic(double *y, size_t n);
