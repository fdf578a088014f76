#include "router/config/route_sections.h"

#include <string.h>
#include "base/alloc.h"
#include "base/mapped_file.h"
#include "router/gate/confidence_map.h"

static err_t read_wait(const struct yaml_value *map, const char *key, int64_t low_ms, int64_t *out)
{
    struct yaml_value value = yaml_at(map, key);
    TRY(yaml_duration_ms(&value, out));
    if (*out < low_ms || *out > ROUTE_WAIT_MS_MAX)
        return yaml_wrong(&value, "it must be a time from %lldms to %ds", (long long)low_ms,
                          ROUTE_WAIT_MS_MAX / 1000);
    return err_ok();
}

static err_t read_required_text(const struct yaml_value *map, const char *key, const char **out)
{
    struct yaml_value value = yaml_at(map, key);
    TRY(yaml_required(&value));
    return yaml_text(&value, out);
}

/* A key that only one kind of cache knows. */
static err_t read_of_kind(const struct yaml_value *map, const char *key, bool is_its, bool is_required,
                          const char *kind, const char **out)
{
    struct yaml_value value = yaml_at(map, key);
    if (yaml_is_there(&value) && !is_its)
        return yaml_wrong(&value, "only a cache of kind %s has %s", kind, key);
    if (is_required && is_its)
        TRY(yaml_required(&value));
    return yaml_text(&value, out);
}

static err_t read_cache_sizes(const struct yaml_value *map, struct cache_config *out)
{
    struct yaml_value most = yaml_at(map, "max_bytes"), entry = yaml_at(map, "max_entry_bytes");
    if (out->kind == CACHE_REDIS && yaml_is_there(&most))
        return yaml_wrong(&most,
                          "Redis has a limit of its own: maxmemory, with maxmemory-policy allkeys-lru");
    out->max_bytes = 64000000;
    out->max_entry_bytes = 1000000;
    TRY(yaml_integer(&most, 1, CACHE_BYTES_MAX, &out->max_bytes));
    if (!yaml_is_there(&entry) && out->max_entry_bytes > out->max_bytes)
        out->max_entry_bytes = out->max_bytes;
    TRY(yaml_integer(&entry, 1, CACHE_BYTES_MAX, &out->max_entry_bytes));
    if (out->kind != CACHE_REDIS && out->max_entry_bytes > out->max_bytes)
        return yaml_wrong(&entry, "one entry cannot have more than max_bytes, %lld",
                          (long long)out->max_bytes);
    return err_ok();
}

err_t cache_config_read(const struct yaml_value *value, char *(*environment)(const char *name),
                        struct cache_config *out)
{
    static const char *const KEYS[] = {
        "kind", "path", "address", "password_env", "max_bytes", "max_entry_bytes", "ttl", "draws_too", NULL};
    static const char *const KINDS[] = {"off", "memory", "sqlite", "redis", NULL};
    *out = (struct cache_config){.kind = CACHE_OFF, .ttl_ms = 3600000};
    if (!yaml_is_there(value))
        return err_ok();
    TRY(yaml_map(value, KEYS));
    struct yaml_value kind = yaml_at(value, "kind"), ttl = yaml_at(value, "ttl"),
                      draws = yaml_at(value, "draws_too"), password = yaml_at(value, "password_env");
    int which = 0;
    TRY(yaml_required(&kind));
    TRY(yaml_choice(&kind, KINDS, &which));
    out->kind = (enum cache_kind)which;
    TRY(read_of_kind(value, "path", which == CACHE_SQLITE, true, "sqlite", &out->path));
    TRY(read_of_kind(value, "address", which == CACHE_REDIS, true, "redis", &out->address));
    TRY(read_of_kind(value, "password_env", which == CACHE_REDIS, false, "redis", &out->password_env));
    if (out->password_env && environment(out->password_env) == NULL)
        return yaml_wrong(&password, "the environment has no variable %.60s", out->password_env);
    TRY(yaml_duration_ms(&ttl, &out->ttl_ms));
    if (out->ttl_ms < 1 || out->ttl_ms > CACHE_TTL_MS_MAX)
        return yaml_wrong(&ttl, "it must be a time of up to a year (8784h)");
    TRY(yaml_bool(&draws, &out->draws_too));
    return read_cache_sizes(value, out);
}

err_t ledger_config_read(const struct yaml_value *value, struct route_config *out)
{
    static const char *const KEYS[] = {"path", "durable", "keep", NULL};
    const int64_t day_ms = 86400000;
    int64_t keep_ms = 0;
    if (!yaml_is_there(value))
        return err_ok();
    TRY(yaml_map(value, KEYS));
    struct yaml_value durable = yaml_at(value, "durable"), keep = yaml_at(value, "keep");
    TRY(read_required_text(value, "path", &out->ledger_path));
    TRY(yaml_bool(&durable, &out->ledger_durable));
    TRY(yaml_duration_ms(&keep, &keep_ms));
    if (yaml_is_there(&keep) && (keep_ms % day_ms != 0 || keep_ms / day_ms < LEDGER_KEEP_DAYS_MIN ||
                                 keep_ms / day_ms > LEDGER_KEEP_DAYS_MAX))
        return yaml_wrong(&keep, "it must be whole days, %dd to %dd: budgets count a calendar month",
                          LEDGER_KEEP_DAYS_MIN, LEDGER_KEEP_DAYS_MAX);
    out->ledger_keep_days = (int32_t)(keep_ms / day_ms);
    return err_ok();
}

static err_t read_budget(const struct yaml_value *value, struct budget_config *out)
{
    static const char *const KEYS[] = {"tenant", "per_day", "per_month", NULL};
    TRY(yaml_required(value));
    TRY(yaml_map(value, KEYS));
    struct yaml_value tenant = yaml_at(value, "tenant"), day = yaml_at(value, "per_day"),
                      month = yaml_at(value, "per_month");
    TRY(yaml_text(&tenant, &out->tenant));
    TRY(yaml_money(&day, &out->budget.per_day));
    TRY(yaml_money(&month, &out->budget.per_month));
    if (out->budget.per_day == 0 && out->budget.per_month == 0)
        return yaml_wrong(value,
                          "per_day, per_month or both must be more than 0; whose requests may cost nothing "
                          "has a rule with local_only");
    return err_ok();
}

static bool is_same_tenant(const char *a, const char *b)
{
    return a == NULL || b == NULL ? a == b : strcmp(a, b) == 0;
}

err_t budgets_read(const struct yaml_value *value, struct budget_config **out, size_t *n)
{
    *out = NULL;
    TRY(yaml_list(value, n));
    if (*n > BUDGETS_MAX)
        return yaml_wrong(value, "there are %zu budgets; at most %d are read", *n, BUDGETS_MAX);
    if (*n == 0)
        return err_ok();
    struct budget_config *budgets = mem_alloc_array(*n, sizeof *budgets);
    if (budgets == NULL)
        return err_new(ERR_RESOURCE_EXHAUSTED, "no memory for budgets");
    *out = budgets;
    for (size_t i = 0; i < *n; i++) {
        struct yaml_value element = yaml_element(value, i);
        TRY(read_budget(&element, &budgets[i]));
        for (size_t j = 0; j < i; j++) {
            if (is_same_tenant(budgets[i].tenant, budgets[j].tenant))
                return yaml_wrong(&element, "%s%.60s has two budgets",
                                  budgets[i].tenant ? "the tenant " : "everybody else",
                                  budgets[i].tenant ? budgets[i].tenant : "");
        }
    }
    return err_ok();
}

static err_t read_tier(const struct yaml_value *value, const struct policy *policy, size_t *out)
{
    const char *name = NULL;
    TRY(yaml_required(value));
    TRY(yaml_text(value, &name));
    return policy_find_tier(policy, name, out) ? err_ok()
                                               : yaml_wrong(value, "there is no tier \"%.60s\"", name);
}

/* From a tier beside the router to one that knows more. */
static err_t read_step_up(const struct yaml_value *map, const struct policy *policy, size_t *tier, size_t *to)
{
    struct yaml_value from_value = yaml_at(map, "tier"), to_value = yaml_at(map, "to");
    TRY(read_tier(&from_value, policy, tier));
    TRY(read_tier(&to_value, policy, to));
    size_t n;
    const struct policy_tier *tiers = policy_tiers(policy, &n);
    if (!tiers[*tier].is_local)
        return yaml_wrong(&from_value, "the tier \"%.60s\" is of providers; it must be of local models",
                          tiers[*tier].name);
    if (*to <= *tier)
        return yaml_wrong(&to_value, "it must be a tier that stands after \"%.60s\"", tiers[*tier].name);
    return err_ok();
}

static err_t read_calibration(const struct yaml_value *value, struct cascade_config *out)
{
    TRY(yaml_text(value, &out->calibration));
    if (out->calibration == NULL)
        return err_ok();
    char *text = NULL;
    err_t e = file_read(out->calibration, CALIBRATION_BYTES_MAX, &text, &out->calibration_bytes);
    if (e.code != ERR_OK)
        return err_prefix(e, "the calibration of the cascade");
    out->calibration_text = text;
    struct confidence_map map;
    e = confidence_map_parse(text, out->calibration_bytes, &map);
    if (e.code != ERR_OK)
        return yaml_wrong(value, "%.100s: %.200s", out->calibration, e.message);
    return map.tokens == out->hold_tokens
               ? err_ok()
               : yaml_wrong(value, "%.100s is of the first %u tokens, and the cascade's tokens are %u",
                            out->calibration, map.tokens, out->hold_tokens);
}

err_t cascade_config_read(const struct yaml_value *value, const struct policy *policy,
                          struct cascade_config *out)
{
    static const char *const KEYS[] = {"tier", "tokens",      "within", "escalate_over",
                                       "to",   "calibration", NULL};
    *out = (struct cascade_config){.hold_ms = 200};
    if (!yaml_is_there(value))
        return err_ok();
    TRY(yaml_map(value, KEYS));
    struct yaml_value tokens = yaml_at(value, "tokens"), over = yaml_at(value, "escalate_over"),
                      calibration = yaml_at(value, "calibration");
    int64_t n_tokens = 8;
    out->is_set = true;
    TRY(read_step_up(value, policy, &out->tier, &out->to));
    TRY(yaml_integer(&tokens, 1, CASCADE_TOKENS_MAX, &n_tokens));
    out->hold_tokens = (uint32_t)n_tokens;
    TRY(read_wait(value, "within", 1, &out->hold_ms));
    TRY(yaml_required(&over));
    TRY(yaml_number(&over, 0, 1, &out->escalate_over));
    return read_calibration(&calibration, out);
}

err_t hedge_config_read(const struct yaml_value *value, const struct policy *policy, struct hedge_config *out)
{
    static const char *const KEYS[] = {"tier", "after", "to", "max_share", "max_cost", "per_day", NULL};
    *out = (struct hedge_config){.max_share = 0.05};
    if (!yaml_is_there(value))
        return err_ok();
    TRY(yaml_map(value, KEYS));
    struct yaml_value share = yaml_at(value, "max_share"), most = yaml_at(value, "max_cost"),
                      day = yaml_at(value, "per_day");
    out->is_set = true;
    TRY(yaml_money(&most, &out->max_cost));
    TRY(yaml_money(&day, &out->per_day));
    if ((yaml_is_there(&most) && out->max_cost == 0) || (yaml_is_there(&day) && out->per_day == 0))
        return yaml_wrong(yaml_is_there(&most) && out->max_cost == 0 ? &most : &day,
                          "it must be more than 0; without a hedge nothing is spent on it");
    TRY(read_step_up(value, policy, &out->tier, &out->to));
    TRY(read_wait(value, "after", 0, &out->after_ms));
    return yaml_number(&share, 0, 1, &out->max_share);
}

static err_t read_label(const struct yaml_value *value, struct classifier_label *out)
{
    static const char *const KEYS[] = {"text", "difficulty", "intent", "token_id", NULL};
    *out = (struct classifier_label){.difficulty = -1, .token_id = -1};
    TRY(yaml_required(value));
    TRY(yaml_map(value, KEYS));
    struct yaml_value text = yaml_at(value, "text"), difficulty = yaml_at(value, "difficulty"),
                      intent = yaml_at(value, "intent"), token_id = yaml_at(value, "token_id");
    TRY(read_required_text(value, "text", &out->text));
    if (strlen(out->text) > CLASSIFIER_LABEL_BYTES_MAX)
        return yaml_wrong(&text, "it has more than %d bytes", CLASSIFIER_LABEL_BYTES_MAX);
    TRY(yaml_number(&difficulty, 0, 1, &out->difficulty));
    TRY(yaml_text(&intent, &out->intent));
    TRY(yaml_integer(&token_id, 0, UINT32_MAX, &out->token_id));
    return out->intent || out->difficulty >= 0
               ? err_ok()
               : yaml_wrong(value, "a label says something of difficulty, intent or both");
}

static err_t read_labels(const struct yaml_value *value, struct classifier_config *out)
{
    TRY(yaml_required(value));
    TRY(yaml_list(value, &out->n_labels));
    if (out->n_labels < 2 || out->n_labels > CLASSIFIER_LABELS_MAX)
        return yaml_wrong(value, "there must be 2 to %d labels", CLASSIFIER_LABELS_MAX);
    for (size_t i = 0; i < out->n_labels; i++) {
        struct yaml_value element = yaml_element(value, i);
        TRY(read_label(&element, &out->labels[i]));
        for (size_t j = 0; j < i; j++) {
            if (strcmp(out->labels[j].text, out->labels[i].text) == 0)
                return yaml_wrong(&element, "the label \"%.60s\" is there twice", out->labels[i].text);
        }
        if ((out->labels[i].token_id < 0) != (out->labels[0].token_id < 0))
            return yaml_wrong(&element, "every label has a token_id, or none has");
    }
    return err_ok();
}

err_t classifier_config_read(const struct yaml_value *value, struct classifier_config *out)
{
    static const char *const KEYS[] = {"model", "prompt", "labels", "timeout", NULL};
    *out = (struct classifier_config){.timeout_ms = 300};
    if (!yaml_is_there(value))
        return err_ok();
    TRY(yaml_map(value, KEYS));
    struct yaml_value prompt = yaml_at(value, "prompt"), labels = yaml_at(value, "labels");
    TRY(read_required_text(value, "model", &out->model));
    TRY(read_required_text(value, "prompt", &out->prompt));
    if (strlen(out->prompt) > CLASSIFIER_PROMPT_BYTES_MAX)
        return yaml_wrong(&prompt, "it has more than %d bytes", CLASSIFIER_PROMPT_BYTES_MAX);
    TRY(read_labels(&labels, out));
    return read_wait(value, "timeout", 1, &out->timeout_ms);
}

err_t retry_config_read(const struct yaml_value *value, struct retry_config *out)
{
    static const char *const KEYS[] = {"max", "backoff", NULL};
    *out = (struct retry_config){.max = 3, .backoff_ms = 100};
    TRY(yaml_map(value, KEYS));
    struct yaml_value most = yaml_at(value, "max");
    int64_t attempts = out->max;
    TRY(yaml_integer(&most, 1, RETRIES_MAX, &attempts));
    out->max = (uint32_t)attempts;
    return read_wait(value, "backoff", 0, &out->backoff_ms);
}
