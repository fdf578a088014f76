#include "router/providers/rate_limits.h"

#define NS_PER_MS INT64_C(1000000)

void rate_limits_open(struct rate_limits *limits)
{
    *limits = (struct rate_limits){0};
    for (int i = 0; i < EGRESS_RATES; i++)
        limits->remaining[i] = -1;
}

void rate_limits_take(struct rate_limits *limits, const struct egress_head *head, int64_t now_ns)
{
    for (int i = 0; i < EGRESS_RATES; i++) {
        const struct egress_rate *rate = &head->rates[i];
        if (rate->remaining < 0)
            continue;
        bool is_used_up = rate->remaining == 0 && rate->reset_ms > 0;
        limits->remaining[i] = rate->remaining;
        limits->none_before_ns[i] = is_used_up ? now_ns + rate->reset_ms * NS_PER_MS : 0;
    }
}

void rate_limits_leave_alone(struct rate_limits *limits, int64_t wait_ns, int64_t now_ns)
{
    if (now_ns + wait_ns > limits->asked_before_ns)
        limits->asked_before_ns = now_ns + wait_ns;
}

int64_t rate_limits_wait_ns(const struct rate_limits *limits, int64_t now_ns)
{
    int64_t until_ns = limits->asked_before_ns;
    for (int i = 0; i < EGRESS_RATES; i++) {
        if (limits->none_before_ns[i] > until_ns)
            until_ns = limits->none_before_ns[i];
    }
    return until_ns > now_ns ? until_ns - now_ns : 0;
}
