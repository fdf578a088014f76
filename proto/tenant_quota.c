#include "proto/tenant_quota.h"

#include "base/assert.h"

enum { DEBT_MINUTES_MAX = 10 }; /* a longer debt is forgiven: a tenant must not be shut out for a day */

static int64_t full_level(uint32_t rate)
{
    return (int64_t)rate * QUOTA_UNITS;
}

/* rate: tokens a minute, > 0. */
static void fill(struct token_bucket *bucket, uint32_t rate, int64_t now_ns)
{
    int64_t full = full_level(rate);
    if (!bucket->started) {
        *bucket = (struct token_bucket){.level = full, .filled_ns = now_ns, .started = true};
        return;
    }
    int64_t elapsed_ns = now_ns - bucket->filled_ns;
    if (elapsed_ns <= 0)
        return; /* another thread has read its clock later */
    bucket->filled_ns = now_ns;
    int64_t gained, level;
    bool overflows = __builtin_mul_overflow(elapsed_ns, (int64_t)rate, &gained) ||
                     __builtin_add_overflow(bucket->level, gained, &level);
    bucket->level = overflows || level > full ? full : level;
}

static void take(struct token_bucket *bucket, uint32_t rate, int64_t n, int64_t now_ns)
{
    if (rate == 0)
        return;
    fill(bucket, rate, now_ns);
    int64_t full = full_level(rate), amount, level;
    bool too_much =
        n > 0 && (__builtin_mul_overflow(n, QUOTA_UNITS, &amount) ||
                  __builtin_sub_overflow(bucket->level, amount, &level) || level / DEBT_MINUTES_MAX < -full);
    bool too_little = n <= 0 && (__builtin_mul_overflow(n, QUOTA_UNITS, &amount) ||
                                 __builtin_sub_overflow(bucket->level, amount, &level) || level > full);
    if (too_much)
        level = full > INT64_MAX / DEBT_MINUTES_MAX ? -INT64_MAX : -full * DEBT_MINUTES_MAX;
    if (too_little)
        level = full;
    bucket->level = level;
}

/* Time until there is one whole token; 0 = there is. */
static int64_t wait_of(struct token_bucket *bucket, uint32_t rate, int64_t now_ns)
{
    if (rate == 0)
        return 0;
    fill(bucket, rate, now_ns);
    int64_t missing;
    if (bucket->level >= QUOTA_UNITS)
        return 0;
    if (__builtin_sub_overflow(QUOTA_UNITS, bucket->level, &missing))
        missing = INT64_MAX;
    return (missing - 1) / rate + 1;
}

bool quota_admit(struct tenant_quota *quota, const struct tenant_limits *limits, uint64_t n_tokens,
                 int64_t now_ns, struct quota_refusal *refusal)
{
    if (limits->max_concurrent > 0 && quota->n_running >= limits->max_concurrent) {
        *refusal = (struct quota_refusal){QUOTA_CONCURRENT, 0};
        return false;
    }
    int64_t requests_ns = wait_of(&quota->requests, limits->requests_per_minute, now_ns);
    int64_t tokens_ns = wait_of(&quota->tokens, limits->tokens_per_minute, now_ns);
    if (requests_ns > 0 || tokens_ns > 0) {
        bool by_tokens = tokens_ns > requests_ns;
        *refusal = (struct quota_refusal){by_tokens ? QUOTA_TOKENS : QUOTA_REQUESTS,
                                          by_tokens ? tokens_ns : requests_ns};
        return false;
    }
    quota->n_running++;
    take(&quota->requests, limits->requests_per_minute, 1, now_ns);
    quota_charge(quota, limits, n_tokens > INT64_MAX ? INT64_MAX : (int64_t)n_tokens, now_ns);
    return true;
}

bool quota_admit_call(struct tenant_quota *quota, const struct tenant_limits *limits, int64_t now_ns,
                      struct quota_refusal *refusal)
{
    int64_t wait_ns = wait_of(&quota->requests, limits->requests_per_minute, now_ns);
    if (wait_ns > 0) {
        *refusal = (struct quota_refusal){QUOTA_REQUESTS, wait_ns};
        return false;
    }
    take(&quota->requests, limits->requests_per_minute, 1, now_ns);
    return true;
}

void quota_charge(struct tenant_quota *quota, const struct tenant_limits *limits, int64_t n_tokens,
                  int64_t now_ns)
{
    take(&quota->tokens, limits->tokens_per_minute, n_tokens, now_ns);
}

void quota_leave(struct tenant_quota *quota)
{
    ASSERT(quota->n_running > 0);
    quota->n_running--;
}

void quota_withdraw(struct tenant_quota *quota, const struct tenant_limits *limits, uint64_t n_tokens,
                    int64_t now_ns)
{
    quota_leave(quota);
    take(&quota->requests, limits->requests_per_minute, -1, now_ns);
    quota_charge(quota, limits, n_tokens > INT64_MAX ? -INT64_MAX : -(int64_t)n_tokens, now_ns);
}

static struct quota_view view(struct token_bucket *bucket, uint32_t rate, int64_t now_ns)
{
    if (rate == 0)
        return (struct quota_view){0, 0, 0};
    fill(bucket, rate, now_ns);
    int64_t missing;
    if (__builtin_sub_overflow(full_level(rate), bucket->level, &missing))
        missing = INT64_MAX;
    return (struct quota_view){
        .limit = rate,
        .remaining = bucket->level > 0 ? (uint32_t)(bucket->level / QUOTA_UNITS) : 0,
        .reset_ns = missing > 0 ? (missing - 1) / rate + 1 : 0,
    };
}

struct quota_view quota_view_requests(struct tenant_quota *quota, const struct tenant_limits *limits,
                                      int64_t now_ns)
{
    return view(&quota->requests, limits->requests_per_minute, now_ns);
}

struct quota_view quota_view_tokens(struct tenant_quota *quota, const struct tenant_limits *limits,
                                    int64_t now_ns)
{
    return view(&quota->tokens, limits->tokens_per_minute, now_ns);
}
