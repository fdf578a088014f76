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

enum {
    ROUTE_CONFIG_KEYS_MAX = 32, /* of the whole file */
    BUDGETS_MAX = 1024,
    CLASSIFIER_LABELS_MAX = 32,
    CLASSIFIER_PROMPT_BYTES_MAX = 16384,
    CLASSIFIER_LABEL_BYTES_MAX = 64,
    CASCADE_TOKENS_MAX = 64,
    CALIBRATION_BYTES_MAX = 1 << 20,
    RETRIES_MAX = 5,           /* calls for one tier, the first included */
    ROUTE_WAIT_MS_MAX = 60000, /* of a cascade's, a hedge's, a classifier's and a backoff's times */
};
#define CACHE_TTL_MS_MAX (366 * INT64_C(86400000))
#define CACHE_BYTES_MAX  (INT64_C(1) << 40)

/* cache: {kind: memory, max_bytes: 64000000, max_entry_bytes: 1000000, ttl: 1h, draws_too: no}
 *        {kind: sqlite, path: answers.db, ...}
 *        {kind: redis, address: "127.0.0.1:6379", password_env: REDIS_PASSWORD, ...}   # its size is Redis's
 */
enum cache_kind { CACHE_OFF, CACHE_MEMORY, CACHE_SQLITE, CACHE_REDIS };
struct cache_config {
    enum cache_kind kind;
    const char *path, *address; /* of sqlite; of redis */
    const char *password_env;   /* a variable that is there; NULL = no password */
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
    size_t tier, to; /* tier is local, and before `to` */
    uint32_t hold_tokens;
    int64_t hold_ms;
    double escalate_over;         /* estimate that the answer is wrong, 0..1 */
    const char *calibration;      /* path; NULL = the confidence itself is the estimate */
    const char *calibration_text; /* the file's calibration_bytes as they were read, with a NUL; owned */
    size_t calibration_bytes;
};

/* hedge: {tier: small, after: 800ms, to: frontier, max_share: 0.05, max_cost: 0.01, per_day: 2}
 *                                                                      # without `after`: the local p95 */
struct hedge_config {
    bool is_set;
    size_t tier, to;               /* tier is local, and before `to` */
    int64_t after_ms;              /* 0 = the p95 of the tier's time to the first token */
    double max_share;              /* of requests */
    nanodollars max_cost, per_day; /* that one may cost at most, and all of a day together; 0 = no bound */
};

/* classifier: {model: local/demo, prompt: "...", labels: [{text: easy, difficulty: 0.1, intent: chat}],
 * timeout: 300ms}   # model: openai/NAME asks a provider; labels may then have a token_id: 1234 there */
struct classifier_label {
    const char *text, *intent; /* intent: NULL = it says nothing of it */
    double difficulty;         /* negative = it says nothing of it */
    int64_t token_id;          /* of the provider's vocabulary; -1 = not told. All labels have one, or none */
};
struct classifier_config {
    const char *model;               /* NULL = there is no classifier */
    size_t local;                    /* that model's index among the local ones */
    const struct provider *provider; /* NULL = it is a local one */
    const struct provider_model *provider_model;
    const char *prompt;
    struct classifier_label labels[CLASSIFIER_LABELS_MAX];
    size_t n_labels;
    int64_t timeout_ms;
};

/* retries: {max: 3, backoff: 100ms} */
struct retry_config {
    uint32_t max; /* calls for one tier, the first included: 1..RETRIES_MAX */
    int64_t backoff_ms;
};

struct route_config {
    struct yaml_file *file;            /* owns all strings but calibration_text */
    struct local_model_options *local; /* [n_local] */
    size_t n_local;
    struct provider_list providers;
    struct policy *policy;
    char policy_id[17]; /* fingerprint of all that decides: 16 hexadecimal digits */
    struct cache_config cache;
    const char *ledger_path; /* NULL = ":memory:" */
    bool ledger_durable;
    int32_t ledger_keep_days;      /* 0 = for ever */
    struct budget_config *budgets; /* [n_budgets]; each tenant once */
    size_t n_budgets;
    struct cascade_config cascade;
    struct hedge_config hedge;
    struct classifier_config classifier;
    struct retry_config retries;
    bool checks_all_calls; /* of tools, whether they are strict or not */
    struct decision_log_options log;
    struct rollout_options gate;
};

/* environment: getenv, or a test's. INVALID_ARGUMENT names file, line and field: also for what fits together
 * with nothing else, as a tier that names a model which nobody has. NOT_FOUND and IO name a file that the
 * configuration names. What works and may yet be meant otherwise (prices that are old) is logged. */
err_t route_config_read(const char *path, char *(*environment)(const char *name),
                        struct route_config **out) ERR_MUST_CHECK;
err_t route_config_parse(const char *name, const char *text, size_t text_bytes,
                         char *(*environment)(const char *name), struct route_config **out) ERR_MUST_CHECK;
/* For readers who call nobody: a variable that is not set, which might be a key, counts as set. */
char *route_environment_without_keys(const char *name);
void route_config_free(struct route_config *config); /* NULL is fine */

/* The index of the local model of a name like "local/demo"; false when it is none of them. */
bool route_config_find_local(const struct route_config *config, const char *name, size_t *local);
/* What a tenant may spend; NULL = as much as it likes. */
const struct ledger_budget *route_config_budget(const struct route_config *config, const char *tenant);
/* What was understood, for people, without secrets, appended. False when it does not fit. */
bool route_config_describe(const struct route_config *config, struct buffer *out);
/* The prices of its models as a JSON object, for programs: {"models": [{"model": "openai/gpt-5", "input_usd":
 * ..}]}, dollars a million tokens; appended. False when it does not fit. */
bool route_config_prices(const struct route_config *config, struct buffer *out);
