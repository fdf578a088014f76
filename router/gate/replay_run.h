/* Recorded requests put to another model, or to what a policy would have chosen, and how far the answers
 * agree. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "base/buffer.h"
#include "base/error.h"
#include "router/config/route_config.h"
#include "router/gate/eval_ask.h"
#include "router/gate/eval_stats.h"
#include "router/gate/replay_cluster.h"
#include "router/gate/replay_log.h"

enum { REPLAY_DIFFERENCES_MAX = 20 /* that are listed */ };

struct replay_options {
    struct eval_endpoint *model;
    const char *name;                  /* the model's, for people */
    struct eval_endpoint *judge;       /* NULL = none: answers that are not the same differ */
    const struct route_config *config; /* what its policy sends beyond the first tier keeps its recorded
                                          answer; NULL = everything is asked */
    uint32_t concurrency;
    bool shows_progress;
    double margin;
    double temperature; /* of requests that do not say; negative = the model's */
};

/* Of a group, or of all. Times in microseconds, -1 = not known. */
struct replay_sum {
    size_t n, n_stays, n_failed; /* n_stays: the policy sends them on, so that nothing changes */
    size_t n_same;               /* as texts, or as JSON with all its fields */
    size_t n_json;               /* answers that are JSON objects */
    double fields;               /* mean share of their fields that agree; NaN = there are none */
    size_t n_judged_as_good;     /* of those that are not the same */
    struct stat_interval agree;  /* same, judged as good, or staying: of n */
    int64_t p50_then, p95_then, p50_now, p95_now;
    nanodollars cost_then, cost_now; /* -1 = not known */
};

struct replay_result {
    struct replay_clusters clusters;
    struct replay_sum *sums; /* [clusters.n] owned */
    struct replay_sum all;
};

/* Marks requests that the policy's rules keep here, so that neither a model nor a judge over HTTP gets them.
 */
err_t replay_run(const struct replay_log *log, const struct replay_options *options,
                 struct replay_result *out) ERR_MUST_CHECK;
void replay_result_free(struct replay_result *result);

/* "move": the interval says that at least 1 - margin agree; "keep": that fewer do; "look": neither. */
const char *replay_advice(const struct replay_sum *sum, double margin);
err_t replay_table(const struct replay_log *log, const struct replay_options *options,
                   const struct replay_result *result, struct buffer *out) ERR_MUST_CHECK;
err_t replay_json(const struct replay_log *log, const struct replay_options *options,
                  const struct replay_result *result, struct buffer *out) ERR_MUST_CHECK;

/* Decisions alone: does the policy decide the recorded inputs as the log says? Nobody is asked. */
struct replay_decisions {
    size_t n_same, n_different;
    size_t n_later;   /* decided by what came after the policy: a cascade, a hedge, a fallback */
    size_t n_without; /* lines without an input */
    size_t n_bad;
};
/* Lines for people about the first differences are appended to *out. */
err_t replay_decisions(const char *text, size_t text_bytes, const struct policy *policy, struct buffer *out,
                       struct replay_decisions *sums) ERR_MUST_CHECK;
