/* Between the reading of a policy and the deciding by it. */
#pragma once

#include "router/policy/policy.h"

struct names {
    const char *names[POLICY_NAMES_MAX];
    size_t n;
};

/* min <= x <= max; both 0: no condition. */
struct span {
    bool is_set;
    int64_t min, max;
};

enum want { WANT_ANY, WANT_NO, WANT_YES };

struct condition {
    struct names tenants, models, intents, tasks, scripts, languages;
    struct span tokens, tools, images, audio, files, turns, complexity, budget;
    enum want code, schema, tool_calls;
};

struct rule {
    const char *name;
    struct condition when;
    bool local_only;
    size_t tier;
};

struct policy {
    struct policy_tier tiers[POLICY_TIERS_MAX];
    size_t n_tiers;
    const char *chains[POLICY_TIERS_MAX][POLICY_CHAIN_MAX];
    struct rule *rules; /* [n_rules] */
    size_t n_rules;
    size_t default_tier;
    bool has_difficulty, has_overflow, has_down;
    double difficulty;
    size_t difficulty_tier, overflow_tier, down_tier;
    int64_t ttft_over_ms;
    bool refuses_when_broke;
    bool opens_unclassified; /* a rule's intent that nobody has told keeps nothing here */
    bool has_unclassified;
    size_t unclassified_tier;
};
