/* An evaluation: every case put to every model, and the answers' scores. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "base/error.h"
#include "router/gate/eval_ask.h"
#include "router/gate/eval_cases.h"

enum { EVAL_MODELS_MAX = 8 };

/* What was not asked any more of a run that was stopped. */
struct eval_lost {
    size_t n_cases;  /* not put to every model of the run */
    size_t n_models; /* that nobody got to: they are none of the run any more */
    bool is_strong;  /* one of these is the strong model */
    bool is_judge; /* of one answer at least: then its word counts nowhere, or scores would be of two kinds */
    bool is_classifier; /* of one case at least: then there is no difficulty */
};

/* A model, and how it did. A case that failed has the score 0. */
struct eval_model {
    char name[64];
    struct eval_endpoint *endpoint; /* owned; NULL = the answers recorded in the file */
    struct eval_answer *answers;    /* [n of the cases] owned */
    double *scores;                 /* [n], 0..1, owned */
    size_t n_failed;
};

struct eval_run {
    const struct eval_cases *cases;            /* from eval_run on those that all models were asked */
    struct eval_model models[EVAL_MODELS_MAX]; /* [n_models] */
    size_t n_models, weak, strong;             /* the same when there is one model */
    struct eval_endpoint *judge;               /* owned; NULL = none */
    double *difficulty;           /* [n] 0..1, owned; NULL = nobody told. Of the cases where all have it */
    struct eval_case *kept_cases; /* owned; what is in them is of the cases that were given */
    struct eval_cases kept;       /* over kept_cases */
    size_t n_given, n_left_out; /* cases; left out: nobody has recorded an answer, or it was stopped before */
    bool is_partial;            /* it was stopped, and something is lost */
    struct eval_lost lost;
    size_t n_unjudged; /* answers that the judge said nothing readable of: compared as texts */
};

struct eval_run_options {
    uint32_t concurrency;
    bool shows_progress;
    const _Atomic bool *stop; /* set: what there is by then is all; NULL = never. The endpoints' too */
    /* The classifier: this text and the case's last user message are put to the weak model, and its answer
     * names one of two labels. NULL = the cases' own `difficulty`. */
    const char *classifier_prompt, *easy_label, *hard_label;
};

/* Asks and scores. The run stays the caller's, whatever is returned: eval_run_free. INVALID_ARGUMENT: no case
 * has a recorded answer. CANCELLED: it was stopped before every model of one case had answered. */
err_t eval_run(struct eval_run *run, const struct eval_run_options *options) ERR_MUST_CHECK;
void eval_run_free(struct eval_run *run);

/* 0..1 of what a classifier answered: the label, and how sure it was of it; 0.5 when it is none of the two.
 */
double eval_difficulty_of(const struct eval_answer *answer, const char *easy_label, const char *hard_label);
