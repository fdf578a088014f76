/* What a router counts beyond what every server does (api/metrics.h): what was decided and why, how those
 * whom it asks do, and what it cost. Labels come from fixed sets and from the configuration, never from
 * clients.
 *
 * Numbers only grow, and outlive another configuration: a model that is not in it any more keeps its series
 * until the router ends. Any thread adds to any cell. */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include "api/metrics.h"
#include "base/buffer.h"
#include "base/error.h"
#include "router/gate/rollout.h"
#include "router/money/money.h"
#include "router/policy/policy.h"
#include "router/providers/circuit_breaker.h"
#include "router/providers/rate_limits.h"

enum route_cache_count { ROUTE_CACHE_HIT, ROUTE_CACHE_SHARED, ROUTE_CACHE_MISS, ROUTE_CACHE_COUNTS };
enum route_cascade_count { ROUTE_CASCADE_KEPT, ROUTE_CASCADE_ESCALATED, ROUTE_CASCADE_COUNTS };
enum route_classified_count { ROUTE_CLASSIFIED_KNOWN, ROUTE_CLASSIFIED_UNKNOWN, ROUTE_CLASSIFIED_COUNTS };
enum route_slo_count { ROUTE_SLO_WITHIN, ROUTE_SLO_OVER, ROUTE_SLO_COUNTS };
enum route_hedge_count { ROUTE_HEDGE_WON, ROUTE_HEDGE_LOST, ROUTE_HEDGE_TOO_DEAR, ROUTE_HEDGE_COUNTS };
enum route_shadow_count {
    ROUTE_SHADOW_SCORED,  /* both sides answered */
    ROUTE_SHADOW_SAME,    /* both are the baseline: a whole score, and nobody was asked */
    ROUTE_SHADOW_FAILED,  /* no whole second answer: no score */
    ROUTE_SHADOW_REFUSED, /* not begun: a limit, a busy engine, or no memory */
    ROUTE_SHADOW_COUNTS,
};
enum { ROUTE_UPSTREAMS_MAX = 128 }; /* models with series of their own; all others share one, "other" */

/* How many series a metric has. */
enum {
    ROUTE_SERIES_ONE = 1,
    ROUTE_SERIES_REASON = POLICY_REASONS,
    ROUTE_SERIES_CACHE = ROUTE_CACHE_COUNTS,
    ROUTE_SERIES_CASCADE = ROUTE_CASCADE_COUNTS,
    ROUTE_SERIES_HEDGE = ROUTE_HEDGE_COUNTS,
    ROUTE_SERIES_SLO = ROUTE_SLO_COUNTS,
    ROUTE_SERIES_CLASSIFIED = ROUTE_CLASSIFIED_COUNTS,
    ROUTE_SERIES_SHADOW = ROUTE_SHADOW_COUNTS,
};

/* ---- The tables: X(symbol, series or buckets, unit, "name", "help") ---- */

#define ROUTE_COUNT_ROWS(X)                                                                                  \
    X(decisions, REASON, ONE, "bantam:router_decisions_total", "Decisions of the policy, by what decided.")  \
    X(refused, ONE, ONE, "bantam:router_refused_total", "Decisions that nobody may or can answer.")          \
    X(classified, CLASSIFIED, ONE, "bantam:router_classified_total",                                         \
      "Requests that the classifier was to be asked about: by its verdict, or without one.")                 \
    X(cache, CACHE, ONE, "bantam:router_cache_total",                                                        \
      "Requests that the cache was asked for: answered by it, by another one's answer under way, or not.")   \
    X(cascades, CASCADE, ONE, "bantam:router_cascades_total",                                                \
      "Answers whose first tokens were held: kept, or escalated before a byte was out.")                     \
    X(hedges, HEDGE, ONE, "bantam:router_hedges_total",                                                      \
      "Second calls beside a slow one: won when they answered first, else lost; not made: too dear.")        \
    X(fallbacks, ONE, ONE, "bantam:router_fallbacks_total",                                                  \
      "Calls that failed before the first byte and were followed by another model or tier.")                 \
    X(handovers, ONE, ONE, "bantam:router_handovers_total",                                                  \
      "Answers that another replica went on with where one had died.")                                       \
    X(shadows, SHADOW, ONE, "bantam:router_shadows_total",                                                   \
      "Second answers, made only to be compared: scored, the same by construction, failed, refused.")        \
    X(shadow_scores, ONE, NANO, "bantam:router_shadow_score_total",                                          \
      "The sum of their scores, of 0 to 1 each.")                                                            \
    X(slo, SLO, ONE, "bantam:router_slo_total",                                                              \
      "Streams of engines and providers that began within the policy's overflow.ttft_over, or after it.")    \
    X(saved, ONE, NANO, "bantam:router_saved_dollars_total",                                                 \
      "What requests would have cost more at the last tier's first model.")

#define ROUTE_UPSTREAM_ROWS(X)                                                                               \
    X(calls, ONE, ONE, "bantam:router_calls_total", "Calls that were begun, retries and hedges included.")   \
    X(answers, ONE, ONE, "bantam:router_answers_total", "Requests that this model answered.")                \
    X(rested, ONE, ONE, "bantam:router_rests_total",                                                         \
      "Calls that were not begun, since it has nothing left of a limit or asked to be left alone.")          \
    X(spent, ONE, NANO, "bantam:router_spent_dollars_total",                                                 \
      "What its calls cost, failed and cancelled ones included; an estimate where nobody told.")

#define ROUTE_LATENCY_ROWS(X)                                                                                \
    X(first_token, FIRST_TOKEN, NANO, "bantam:router_first_token_seconds",                                   \
      "From the start of a call to the first piece of its answer, where that is a stream.")                  \
    X(whole, REQUEST, NANO, "bantam:router_call_seconds",                                                    \
      "From the start of a call to the end of its answer.")

/* X(which, "name", "type", "labels, for the docs", "help") */
#define ROUTE_OTHER_ROWS(X)                                                                                  \
    X(ERRORS, "bantam:router_call_errors_total", "counter", "`provider`, `model`, `code`",                   \
      "Calls that failed, by code; codes that did not occur are left out.")                                  \
    X(BREAKER, "bantam:router_breaker_state", "gauge", "`provider`, `model`",                                \
      "0: closed, calls go out; 1: half open, one tries; 2: open.")                                          \
    X(REMAINING, "bantam:router_rate_remaining", "gauge", "`provider`, `model`, `of`",                       \
      "What a provider said last that is left of its limit; left out where it did not say.")                 \
    X(RESET, "bantam:router_rate_reset_timestamp_seconds", "gauge", "`provider`, `model`",                   \
      "Unix time before which it is not asked; 0 or past: it may be.")                                       \
    X(RESERVED, "bantam:router_reserved_dollars", "gauge", "", "Set aside for calls under way.")             \
    X(HELD, "bantam:router_held_bytes", "gauge", "",                                                         \
      "What requests under way take of memory, about; bounded by --max-held-bytes.")                         \
    X(STAGE, "bantam:router_rollout_stage", "gauge", "`stage`", "1 where the policy stands.")                \
    X(LOG_LOST, "bantam:router_log_lines_lost_total", "counter", "",                                         \
      "Lines of the decision log that were lost.")

/* ---- Storage ---- */

#define ROUTE_METRIC_CELLS(symbol, series, unit, name, help)       metric_cell symbol[ROUTE_SERIES_##series];
#define ROUTE_METRIC_HISTOGRAMS(symbol, buckets, unit, name, help) struct metric_histogram symbol;

/* Amounts of money in nano-dollars, times in ns. */
struct route_counts {
    ROUTE_COUNT_ROWS(ROUTE_METRIC_CELLS)
};

/* Of one model of the configuration. */
struct upstream_counts {
    const char *provider, *model; /* "local" and its name, or a provider and its model */
    ROUTE_UPSTREAM_ROWS(ROUTE_METRIC_CELLS)
    metric_cell errors[METRIC_ERROR_CODES_COUNT + 1]; /* by err_code */
    metric_cell breaker;                              /* 0 closed, 1 half open, 2 open */
    metric_cell remaining[EGRESS_RATES];              /* one more than is left; 0 = not told */
    metric_cell reset;                                /* Unix time in ns */
    ROUTE_LATENCY_ROWS(ROUTE_METRIC_HISTOGRAMS)
};

struct route_metrics;

err_t route_metrics_open(struct route_metrics **out) ERR_MUST_CHECK;
void route_metrics_close(struct route_metrics *metrics); /* NULL is fine */
struct route_counts *route_metrics_counts(struct route_metrics *metrics);
/* The counts of a model, the same ones for the same names, which are copied; they live until
 * route_metrics_close. Never NULL: what is too much for us is counted as provider "other". */
struct upstream_counts *route_metrics_upstream(struct route_metrics *metrics, const char *provider,
                                               const char *model);

/* A call is over: error, where there is one (CANCELLED by us is none), and times; negative = did not happen.
 */
void upstream_counts_call(struct upstream_counts *counts, enum err_code code, int64_t first_token_ns,
                          int64_t whole_ns);

/* Its breaker is now in this state. */
void upstream_counts_breaker(struct upstream_counts *counts, enum breaker_state state);

/* What it said of its limits, and for how long it is not asked. */
void upstream_counts_limits(struct upstream_counts *counts, const struct rate_limits *limits,
                            int64_t wait_ns);

/* What is read when somebody asks. */
struct route_readings {
    nanodollars reserved;
    uint64_t held_bytes;
    enum rollout_stage stage; /* ROLLOUT_PROMOTED without a gate */
    uint64_t log_lines_lost;
};
/* In Prometheus's text format, appended; false when it does not fit. For service_vtable.metrics_text. */
bool route_metrics_write(struct route_metrics *metrics, const struct route_readings *readings,
                         struct buffer *out);
