/* Whether and when a call is tried again; bantam_client.h has the rules. Pure: time and randomness are passed
 * in. */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <grpc/status.h>
#include "base/error.h"
#include "base/philox.h"
#include "clients/c/bantam_client.h"

struct retry_budget {
    double tokens, max, ratio; /* max 0 = no budget */
};
struct retry_budget retry_budget_make(const struct bantam_retry_options *options);
/* An answer came. */
void retry_budget_give(struct retry_budget *budget);

/* An attempt that failed. */
struct retry_facts {
    grpc_status_code code;
    uint32_t n_attempts; /* this one included, >= 1 */
    bool any_message;    /* of the answer came */
    bool has_pushback;
    int64_t pushback_ms;
    int64_t now_ns, deadline_ns; /* INT64_MAX = none */
};

enum { RETRY_NEVER = -1, RETRY_OVER_BUDGET = -2 };
/* How long to wait, ns; or RETRY_NEVER, or RETRY_OVER_BUDGET, which would else have been tried. Takes from
 * the budget. */
int64_t retry_delay_ns(const struct bantam_retry_options *options, struct retry_budget *budget,
                       struct rng *rng, const struct retry_facts *facts);
/* The wait after n_failures >= 1 in a row, ns. */
int64_t retry_backoff_ns(const struct bantam_retry_options *options, struct rng *rng, uint32_t n_failures);
/* INVALID_ARGUMENT names what is out of range. */
err_t retry_options_check(const struct bantam_retry_options *options) ERR_MUST_CHECK;
