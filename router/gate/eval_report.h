/* What an evaluation found, as a table, as JSON and as a picture, and beside an earlier one. */
#pragma once

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "base/buffer.h"
#include "base/error.h"
#include "router/gate/eval_policies.h"
#include "router/gate/eval_run.h"

enum { EVAL_REPORT_VERSION = 1, EVAL_REPORT_BYTES_MAX = 1 << 30, EVAL_TASKS_MAX = 24 /* in the table */ };

/* Times in microseconds; -1 = not known. */
struct eval_summary {
    size_t n, n_failed, n_solved; /* solved: a score of 1 */
    double quality;               /* mean score */
    nanodollars cost, cost_per_solved;
    int64_t first_p50, first_p95, total_p50, total_p95;
};
err_t eval_summary_of(const struct eval_model *model, size_t n, struct eval_summary *out) ERR_MUST_CHECK;

/* A set of numbers, or none of them. */
struct eval_report {
    const char *file; /* of the cases */
    const struct eval_run *run;
    const struct eval_policies *policies; /* NULL = there is one model only */
    double margin, quality; /* quality: the share of the strong model's that points must reach */
    bool with_answers;      /* in JSON: texts too */
};
err_t eval_report_table(const struct eval_report *report, struct buffer *out) ERR_MUST_CHECK;
err_t eval_report_json(const struct eval_report *report, struct buffer *out) ERR_MUST_CHECK;
/* SVG: PGR against the share of strong calls, readable on light and on dark ground. */
err_t eval_report_chart(const struct eval_report *report, struct buffer *out) ERR_MUST_CHECK;

/* Beside an earlier report in JSON: every model and policy that both have, over the cases that both have.
 * Lines for people go to *out; *n_worse counts what got worse beyond the margin, *n_not_shown what nothing
 * can be said of. INVALID_ARGUMENT: it is no report, or has no case in common. */
err_t eval_report_compare(const struct eval_report *report, const char *golden, size_t golden_bytes,
                          uint64_t seed, struct buffer *out, size_t *n_worse,
                          size_t *n_not_shown) ERR_MUST_CHECK;
