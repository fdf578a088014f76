#include "clients/c/retry_policy.h"

#include "base/assert.h"

static const int64_t NS_PER_MS = 1000000;
static const int64_t PUSHBACK_MAX_MS = 3600000;

err_t retry_options_check(const struct bantam_retry_options *options)
{
    if (options->max_attempts < 1 || options->max_attempts > BANTAM_ATTEMPTS_MAX)
        return err_new(ERR_INVALID_ARGUMENT, "max_attempts is %u; it must be 1 to %d", options->max_attempts,
                       BANTAM_ATTEMPTS_MAX);
    if (options->backoff_ns < 1 || options->backoff_max_ns < options->backoff_ns)
        return err_new(ERR_INVALID_ARGUMENT, "the backoff must be positive and not above its maximum");
    if (!(options->budget >= 0) || !(options->budget_ratio >= 0))
        return err_new(ERR_INVALID_ARGUMENT, "the retry budget and its ratio cannot be negative");
    return err_ok();
}

struct retry_budget retry_budget_make(const struct bantam_retry_options *options)
{
    return (struct retry_budget){options->budget, options->budget, options->budget_ratio};
}

void retry_budget_give(struct retry_budget *budget)
{
    budget->tokens += budget->ratio;
    if (budget->tokens > budget->max)
        budget->tokens = budget->max;
}

static bool take_from_budget(struct retry_budget *budget)
{
    if (budget->max <= 0)
        return true;
    budget->tokens = budget->tokens > 1 ? budget->tokens - 1 : 0;
    return budget->tokens > budget->max / 2;
}

/* from + up to `share` of it. */
static int64_t stretched(struct rng *rng, int64_t from_ns, double share)
{
    return from_ns + (int64_t)((double)rng_uniform(rng) * share * (double)from_ns);
}

int64_t retry_backoff_ns(const struct bantam_retry_options *options, struct rng *rng, uint32_t n_failures)
{
    ASSERT(n_failures >= 1);
    int64_t backoff_ns = options->backoff_ns;
    for (uint32_t i = 1; i < n_failures && backoff_ns < options->backoff_max_ns; i++)
        backoff_ns = backoff_ns > options->backoff_max_ns / 2 ? options->backoff_max_ns : 2 * backoff_ns;
    return stretched(rng, backoff_ns - backoff_ns / 2, 1);
}

static bool is_refusal(const struct retry_facts *facts)
{
    switch (facts->code) {
    case GRPC_STATUS_UNAVAILABLE:
    case GRPC_STATUS_CANCELLED: /* nobody here asked: the call crossed a GOAWAY */
        return true;
    case GRPC_STATUS_RESOURCE_EXHAUSTED: /* without pushback it is the request that is too large */
        return facts->has_pushback;
    default:
        return false;
    }
}

int64_t retry_delay_ns(const struct bantam_retry_options *options, struct retry_budget *budget,
                       struct rng *rng, const struct retry_facts *facts)
{
    if (facts->any_message || !is_refusal(facts))
        return RETRY_NEVER;
    bool in_budget = take_from_budget(budget);
    if (facts->n_attempts >= options->max_attempts || (facts->has_pushback && facts->pushback_ms < 0))
        return RETRY_NEVER;
    int64_t pushback_ms = facts->pushback_ms < PUSHBACK_MAX_MS ? facts->pushback_ms : PUSHBACK_MAX_MS;
    int64_t delay_ns = facts->has_pushback ? stretched(rng, pushback_ms * NS_PER_MS, 0.2)
                                           : retry_backoff_ns(options, rng, facts->n_attempts);
    if (facts->deadline_ns - facts->now_ns <= delay_ns)
        return RETRY_NEVER;
    return in_budget ? delay_ns : RETRY_OVER_BUDGET;
}
