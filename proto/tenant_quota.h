/* What a tenant may use, and what it has used: concurrent requests, and token buckets for requests and tokens
 * a minute. Time is passed in. Pure; one thread at a time.
 *
 * A bucket holds at most one minute's worth and fills steadily. A request is let in while there is a request
 * and at least one token; the tokens that it takes are subtracted as they become known and may leave the
 * bucket in debt, which later requests wait for. So nothing has to be guessed of an answer's length, and over
 * time a tenant gets what its rate says. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

enum {
    QUOTA_CONCURRENT_MAX = 1 << 20,
    QUOTA_REQUESTS_MAX = 1000000, /* a minute */
    QUOTA_TOKENS_MAX = 100000000, /* a minute */
};

/* 0 = no limit. */
struct tenant_limits {
    uint32_t max_concurrent;
    uint32_t requests_per_minute;
    uint32_t tokens_per_minute; /* of prompts and answers */
};

struct token_bucket {
    int64_t level; /* in 1/QUOTA_UNITS of a token; negative = debt */
    int64_t filled_ns;
    bool started; /* a bucket is full when it is first looked at */
};
#define QUOTA_UNITS INT64_C(60000000000) /* ns of a minute: a rate of r a minute adds r units a ns */

struct tenant_quota {
    uint32_t n_running;
    struct token_bucket requests, tokens;
};

enum quota_kind { QUOTA_CONCURRENT, QUOTA_REQUESTS, QUOTA_TOKENS };
struct quota_refusal {
    enum quota_kind kind;
    int64_t retry_after_ns; /* 0 = nobody knows: when one of the running requests ends */
};

/* Lets one request in, or says why not; a refusal costs nothing. n_tokens: of its prompt, as far as known. */
bool quota_admit(struct tenant_quota *quota, const struct tenant_limits *limits, uint64_t n_tokens,
                 int64_t now_ns, struct quota_refusal *refusal);
/* Counts a call that computes nothing (tokenising) as one request: neither tokens nor max_concurrent matter.
 * Else as quota_admit; nothing is to be left. */
bool quota_admit_call(struct tenant_quota *quota, const struct tenant_limits *limits, int64_t now_ns,
                      struct quota_refusal *refusal);
/* Takes tokens that a request has used; negative: gives back. */
void quota_charge(struct tenant_quota *quota, const struct tenant_limits *limits, int64_t n_tokens,
                  int64_t now_ns);
/* A request that was let in has ended. */
void quota_leave(struct tenant_quota *quota);
/* It was not served after all: as if it had never been let in. */
void quota_withdraw(struct tenant_quota *quota, const struct tenant_limits *limits, uint64_t n_tokens,
                    int64_t now_ns);

/* What is left of a rate, and when it will be whole again. */
struct quota_view {
    uint32_t limit; /* a minute; 0 = none, and nothing else holds */
    uint32_t remaining;
    int64_t reset_ns; /* until the bucket is full */
};
struct quota_view quota_view_requests(struct tenant_quota *quota, const struct tenant_limits *limits,
                                      int64_t now_ns);
struct quota_view quota_view_tokens(struct tenant_quota *quota, const struct tenant_limits *limits,
                                    int64_t now_ns);
