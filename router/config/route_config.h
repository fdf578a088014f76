/* The configuration of a router, whole: one YAML file, whose parts are read by those whom they concern.
 * docs/routing.md has all of it. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "base/error.h"
#include "router/cache/response_cache.h"
#include "router/config/provider_config.h"
#include "router/config/yaml_fields.h"
#include "router/gate/rollout.h"
#include "router/local/local_fleet.h"
#include "router/log/decision_log.h"
#include "router/money/ledger.h"
#include "router/policy/policy.h"

enum { BUDGETS_MAX = 1024, CLASSIFIER_LABELS_MAX = 32 };

/* cache: {kind: memory, max_bytes: 64000000, ttl: 1h, draws_too: no}
 *        {kind: sqlite, path: answers.db, ...}   {kind: redis, address: "127.0.0.1:6379", ...} */
struct cache_config {
    enum { CACHE_OFF, CACHE_MEMORY, CACHE_SQLITE, CACHE_REDIS } kind;
    const char *path, *address, *password_env;
    int64_t ttl_ms, max_bytes, max_entry_bytes;
    bool draws_too;
};

/* budgets: [{tenant: hr, per_day: 5, per_month: 100}, {per_day: 50}]   # without a tenant: everybody else's,
 * each */
struct budget_config {
    const char *tenant; /* NULL = all others, each */
    struct ledger_budget budget;
};

/* cascade: {tier: small, tokens: 8, within: 200ms, escalate_over: 0.35, to: frontier, calibration:
 * confidence.json} */
struct cascade_config {
    bool is_set;
    size_t tier, to;
    uint32_t hold_tokens;
    int64_t hold_ms;
    double escalate_over; /* estimate that the answer is wrong, 0..1 */
    const char *calibration;
};

/* hedge: {tier: small, after: 800ms, to: frontier, max_share: 0.05}   # without `after`: the local p95 */
struct hedge_config {
    bool is_set;
    size_t tier, to;
    int64_t after_ms; /* 0 = the p95 of the tier's time to the first token */
    double max_share; /* of requests */
};

/* classifier: {model: local/demo, prompt: "...", labels: [{text: easy, difficulty: 0.1, intent: chat}],
 * timeout: 300ms} */
struct classifier_label {
    const char *text, *intent;
    double difficulty; /* negative = it says nothing of it */
};
struct classifier_config {
    const char *model; /* NULL = there is none */
    const char *prompt;
    struct classifier_label labels[CLASSIFIER_LABELS_MAX];
    size_t n_labels;
    int64_t timeout_ms;
};

/* retries: {max: 3, backoff: 100ms} */
struct retry_config {
    uint32_t max; /* attempts of one request, the first included: 1..5 */
    int64_t backoff_ms;
};

struct route_config {
    struct yaml_file *file; /* owns all strings */
    struct local_model_options *local;
    size_t n_local;
    struct provider_list providers;
    struct policy *policy;
    char policy_id[17]; /* fingerprint of all that decides: 16 hexadecimal digits */
    struct cache_config cache;
    const char *ledger_path; /* NULL = ":memory:" */
    bool ledger_durable;
    struct budget_config *budgets;
    size_t n_budgets;
    struct cascade_config cascade;
    struct hedge_config hedge;
    struct classifier_config classifier;
    struct retry_config retries;
    struct decision_log_options log;
    struct rollout_options gate;
};

/* environment: getenv, or a test's. Errors name file, line and field; a tier that names a model which nobody
 * has is one. Warnings (stale prices) are logged. */
err_t route_config_read(const char *path, char *(*environment)(const char *name),
                        struct route_config **out) ERR_MUST_CHECK;
err_t route_config_parse(const char *name, const char *text, size_t text_bytes,
                         char *(*environment)(const char *name), struct route_config **out) ERR_MUST_CHECK;
void route_config_free(struct route_config *config); /* NULL is fine */
