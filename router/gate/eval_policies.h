/* Policies held against each other over one evaluation, without asking anyone again: what each would have
 * chosen between the weak and the strong model's answer, which are both there. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "base/error.h"
#include "router/config/route_config.h"
#include "router/gate/eval_run.h"
#include "router/gate/eval_stats.h"

enum { EVAL_POLICIES_MAX = 16 };

/* A policy at one setting. */
struct eval_point {
    size_t n;                        /* cases it is measured on */
    double share, quality, pgr;      /* of strong calls; mean score; PGR, NaN = there is none */
    nanodollars cost;                /* of these n; -1 = not known */
    struct stat_interval difference; /* to all strong */
    struct stat_interval false_cheap;
    uint64_t n_cheap;
    double threshold; /* need from which it escalates; NaN = it has none */
};

struct eval_policy {
    char name[32];
    bool has_curve;
    struct stat_curve curve;
    bool has_point; /* of a curve: chosen on the cases of even place, measured on the others */
    struct eval_point point;
    bool *went_strong; /* [n of the cases], owned; NULL for curves */
    double *scores;    /* [n], owned; NULL for curves */
    size_t n_between;  /* that went to a tier of which nobody was asked: measured as the strong model's */
};

struct eval_policies_options {
    uint32_t hold_tokens; /* of the cascade */
    double quality;       /* share of the strong model's that a point must reach */
    uint64_t seed;
    /* A router's; NULL = none. Its first tier is the weak model, its last the strong one, and one between
     * them the further model of the tier's name. */
    const struct route_config *config;
};

struct eval_policies {
    struct eval_policy policies[EVAL_POLICIES_MAX]; /* [n] */
    size_t n;
};

/* "random", "oracle" (knows both scores: no router does better), "classifier" (difficulty), "confidence" (the
 * first token's margin), "cascade" (the mean margin of the first tokens), those of them that there are data
 * for; "policy" of the configuration; and each further model that is a router, by its name. The run has both
 * models. */
err_t eval_policies_make(const struct eval_run *run, const struct eval_policies_options *options,
                         struct eval_policies *out) ERR_MUST_CHECK;
void eval_policies_free(struct eval_policies *policies);
const struct eval_policy *eval_policies_find(const struct eval_policies *policies, const char *name);
