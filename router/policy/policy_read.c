/* A policy out of its file. */
#include <string.h>
#include "base/alloc.h"
#include "router/policy/policy_internal.h"

const char *const POLICY_KEYS[] = {"tiers",     "rules",      "default",      "difficulty", "overflow",
                                   "when_down", "when_broke", "unclassified", NULL};

bool policy_find_tier(const struct policy *policy, const char *name, size_t *tier)
{
    for (size_t i = 0; i < policy->n_tiers; i++) {
        if (strcmp(policy->tiers[i].name, name) == 0) {
            *tier = i;
            return true;
        }
    }
    return false;
}

bool policy_find_model(const struct policy *policy, const char *name, size_t *tier, size_t *model)
{
    *model = 0;
    if (policy_find_tier(policy, name, tier))
        return true;
    for (size_t i = 0; i < policy->n_tiers; i++) {
        for (size_t j = 0; j < policy->tiers[i].n_models; j++) {
            if (strcmp(policy->tiers[i].models[j], name) != 0)
                continue;
            *tier = i;
            *model = j;
            return true;
        }
    }
    return false;
}

static err_t find_tier(const struct yaml_value *value, const struct policy *policy, size_t *out)
{
    const char *name = NULL;
    TRY(yaml_required(value));
    TRY(yaml_text(value, &name));
    return policy_find_tier(policy, name, out) ? err_ok()
                                               : yaml_wrong(value, "there is no tier \"%.60s\"", name);
}

static bool is_local_model(const char *model)
{
    return strncmp(model, "local/", 6) == 0;
}

static err_t read_chain(const struct yaml_value *value, struct policy_tier *tier, const char **chain)
{
    size_t n, n_local = 0;
    TRY(yaml_required(value));
    TRY(yaml_list(value, &n));
    if (n == 0 || n > POLICY_CHAIN_MAX)
        return yaml_wrong(value, "a tier has 1 to %d models", POLICY_CHAIN_MAX);
    for (size_t i = 0; i < n; i++) {
        struct yaml_value element = yaml_element(value, i);
        TRY(yaml_required(&element));
        TRY(yaml_text(&element, &chain[i]));
        const char *slash = strchr(chain[i], '/');
        if (slash == NULL || slash == chain[i] || slash[1] == '\0')
            return yaml_wrong(&element, "\"%.60s\" must be local/NAME or PROVIDER/NAME", chain[i]);
        n_local += is_local_model(chain[i]);
    }
    if (n_local != 0 && n_local != n)
        return yaml_wrong(value, "models here and models of providers cannot share a tier");
    *tier =
        (struct policy_tier){.name = tier->name, .models = chain, .n_models = n, .is_local = n_local == n};
    return err_ok();
}

static err_t read_tiers(const struct yaml_value *value, struct policy *policy)
{
    static const char *const KEYS[] = {"name", "models", NULL};
    size_t n;
    TRY(yaml_required(value));
    TRY(yaml_list(value, &n));
    if (n == 0 || n > POLICY_TIERS_MAX)
        return yaml_wrong(value, "there must be 1 to %d tiers", POLICY_TIERS_MAX);
    for (size_t i = 0; i < n; i++) {
        struct yaml_value element = yaml_element(value, i);
        struct policy_tier *tier = &policy->tiers[i];
        TRY(yaml_required(&element));
        TRY(yaml_map(&element, KEYS));
        struct yaml_value name = yaml_at(&element, "name"), models = yaml_at(&element, "models");
        TRY(yaml_required(&name));
        TRY(yaml_text(&name, &tier->name));
        for (size_t j = 0; j < i; j++) {
            if (strcmp(policy->tiers[j].name, tier->name) == 0)
                return yaml_wrong(&name, "the tier \"%.60s\" is there twice", tier->name);
        }
        TRY(read_chain(&models, tier, policy->chains[i]));
        policy->n_tiers = i + 1;
    }
    if (!policy->tiers[0].is_local)
        return yaml_wrong(value,
                          "the first tier must be of local models: that is where privacy keeps a request");
    return err_ok();
}

static err_t read_names(const struct yaml_value *map, const char *key, struct names *out)
{
    struct yaml_value value = yaml_at(map, key);
    TRY(yaml_list(&value, &out->n));
    if (yaml_is_there(&value) && (out->n == 0 || out->n > POLICY_NAMES_MAX))
        return yaml_wrong(&value, "there must be 1 to %d names", POLICY_NAMES_MAX);
    for (size_t i = 0; i < out->n; i++) {
        struct yaml_value element = yaml_element(&value, i);
        TRY(yaml_required(&element));
        TRY(yaml_text(&element, &out->names[i]));
    }
    return err_ok();
}

static err_t read_known_names(const struct yaml_value *map, const char *key, const char *const *known,
                              struct names *out)
{
    TRY(read_names(map, key, out));
    struct yaml_value list = yaml_at(map, key);
    for (size_t i = 0; i < out->n; i++) {
        struct yaml_value element = yaml_element(&list, i);
        int ignored;
        TRY(yaml_choice(&element, known, &ignored));
    }
    return err_ok();
}

static err_t read_span(const struct yaml_value *map, const char *key, struct span *out)
{
    static const char *const KEYS[] = {"min", "max", NULL};
    struct yaml_value value = yaml_at(map, key);
    if (!yaml_is_there(&value))
        return err_ok();
    TRY(yaml_map(&value, KEYS));
    struct yaml_value min = yaml_at(&value, "min"), max = yaml_at(&value, "max");
    *out = (struct span){true, 0, INT64_MAX};
    TRY(yaml_integer(&min, 0, INT32_MAX, &out->min));
    TRY(yaml_integer(&max, 0, INT32_MAX, &out->max));
    if (!yaml_is_there(&min) && !yaml_is_there(&max))
        return yaml_wrong(&value, "min, max or both must be given");
    return out->min <= out->max ? err_ok() : yaml_wrong(&value, "min is more than max: this never holds");
}

static err_t read_want(const struct yaml_value *map, const char *key, enum want *out)
{
    struct yaml_value value = yaml_at(map, key);
    bool is_wanted = false;
    TRY(yaml_bool(&value, &is_wanted));
    if (yaml_is_there(&value))
        *out = is_wanted ? WANT_YES : WANT_NO;
    return err_ok();
}

static err_t read_condition(const struct yaml_value *value, struct condition *out)
{
    static const char *const KEYS[] = {"tenants",    "models", "intents", "tasks",  "scripts",    "languages",
                                       "tokens",     "tools",  "images",  "audio",  "files",      "turns",
                                       "complexity", "budget", "code",    "schema", "tool_calls", NULL};
    TRY(yaml_map(value, KEYS));
    TRY(read_names(value, "tenants", &out->tenants));
    TRY(read_names(value, "models", &out->models));
    TRY(read_names(value, "intents", &out->intents));
    TRY(read_names(value, "tasks", &out->tasks));
    TRY(read_known_names(value, "scripts", SCRIPT_NAMES, &out->scripts));
    TRY(read_known_names(value, "languages", LANGUAGE_NAMES, &out->languages));
    TRY(read_span(value, "tokens", &out->tokens));
    TRY(read_span(value, "tools", &out->tools));
    TRY(read_span(value, "images", &out->images));
    TRY(read_span(value, "audio", &out->audio));
    TRY(read_span(value, "files", &out->files));
    TRY(read_span(value, "turns", &out->turns));
    TRY(read_span(value, "complexity", &out->complexity));
    TRY(read_span(value, "budget", &out->budget));
    TRY(read_want(value, "code", &out->code));
    TRY(read_want(value, "schema", &out->schema));
    return read_want(value, "tool_calls", &out->tool_calls);
}

static err_t read_rule(const struct yaml_value *value, const struct policy *policy, struct rule *out)
{
    static const char *const KEYS[] = {"name", "when", "to", "local_only", NULL};
    TRY(yaml_required(value));
    TRY(yaml_map(value, KEYS));
    struct yaml_value name = yaml_at(value, "name"), when = yaml_at(value, "when"), to = yaml_at(value, "to"),
                      local_only = yaml_at(value, "local_only");
    TRY(yaml_required(&name));
    TRY(yaml_text(&name, &out->name));
    TRY(read_condition(&when, &out->when));
    TRY(yaml_bool(&local_only, &out->local_only));
    if (!out->local_only)
        return find_tier(&to, policy, &out->tier);
    if (!yaml_is_there(&to))
        return err_ok();
    TRY(find_tier(&to, policy, &out->tier));
    return policy->tiers[out->tier].is_local ? err_ok()
                                             : yaml_wrong(&to, "local_only, and a tier of providers: which?");
}

static err_t read_rules(const struct yaml_value *value, struct policy *policy)
{
    size_t n;
    TRY(yaml_list(value, &n));
    if (n > POLICY_RULES_MAX)
        return yaml_wrong(value, "there are %zu rules; at most %d are read", n, POLICY_RULES_MAX);
    policy->rules = n > 0 ? mem_alloc_array(n, sizeof *policy->rules) : NULL;
    if (n > 0 && policy->rules == NULL)
        return err_new(ERR_RESOURCE_EXHAUSTED, "no memory for the rules of a policy");
    for (size_t i = 0; i < n; i++) {
        struct yaml_value element = yaml_element(value, i);
        TRY(read_rule(&element, policy, &policy->rules[i]));
        for (size_t j = 0; j < i; j++) {
            if (strcmp(policy->rules[j].name, policy->rules[i].name) == 0)
                return yaml_wrong(&element, "the rule \"%.60s\" is there twice", policy->rules[i].name);
        }
    }
    policy->n_rules = n;
    return err_ok();
}

static err_t read_turns(const struct yaml_value *root, struct policy *policy)
{
    static const char *const DIFFICULTY_KEYS[] = {"at_least", "to", NULL},
                             *const OVERFLOW_KEYS[] = {"ttft_over", "to", NULL},
                             *const DOWN_KEYS[] = {"to", NULL};
    struct yaml_value difficulty = yaml_at(root, "difficulty"), overflow = yaml_at(root, "overflow"),
                      down = yaml_at(root, "when_down");
    TRY(yaml_map(&difficulty, DIFFICULTY_KEYS));
    TRY(yaml_map(&overflow, OVERFLOW_KEYS));
    TRY(yaml_map(&down, DOWN_KEYS));
    policy->has_difficulty = yaml_is_there(&difficulty);
    if (policy->has_difficulty) {
        struct yaml_value at_least = yaml_at(&difficulty, "at_least"), to = yaml_at(&difficulty, "to");
        TRY(yaml_required(&at_least));
        TRY(yaml_number(&at_least, 0, 1, &policy->difficulty));
        TRY(find_tier(&to, policy, &policy->difficulty_tier));
    }
    policy->has_overflow = yaml_is_there(&overflow);
    if (policy->has_overflow) {
        struct yaml_value over = yaml_at(&overflow, "ttft_over"), to = yaml_at(&overflow, "to");
        TRY(yaml_required(&over));
        TRY(yaml_duration_ms(&over, &policy->ttft_over_ms));
        TRY(find_tier(&to, policy, &policy->overflow_tier));
    }
    policy->has_down = yaml_is_there(&down);
    struct yaml_value to = yaml_at(&down, "to");
    return policy->has_down ? find_tier(&to, policy, &policy->down_tier) : err_ok();
}

static err_t read_unclassified(const struct yaml_value *root, struct policy *policy)
{
    static const char *const KEYS[] = {"privacy", "to", NULL}, *const PRIVACY[] = {"closed", "open", NULL};
    struct yaml_value value = yaml_at(root, "unclassified");
    if (!yaml_is_there(&value))
        return err_ok();
    TRY(yaml_map(&value, KEYS));
    struct yaml_value privacy = yaml_at(&value, "privacy"), to = yaml_at(&value, "to");
    int is_open = 0;
    TRY(yaml_choice(&privacy, PRIVACY, &is_open));
    policy->opens_unclassified = is_open == 1;
    policy->has_unclassified = yaml_is_there(&to);
    return policy->has_unclassified ? find_tier(&to, policy, &policy->unclassified_tier) : err_ok();
}

static err_t read_policy(const struct yaml_value *root, struct policy *policy)
{
    static const char *const BROKE[] = {"local", "refuse", NULL};
    struct yaml_value tiers = yaml_at(root, "tiers"), rules = yaml_at(root, "rules"),
                      standard = yaml_at(root, "default"), broke = yaml_at(root, "when_broke");
    int when_broke = 0;
    TRY(read_tiers(&tiers, policy));
    TRY(read_rules(&rules, policy));
    if (yaml_is_there(&standard))
        TRY(find_tier(&standard, policy, &policy->default_tier));
    TRY(yaml_choice(&broke, BROKE, &when_broke));
    policy->refuses_when_broke = when_broke == 1;
    TRY(read_unclassified(root, policy));
    return read_turns(root, policy);
}

err_t policy_read(const struct yaml_value *root, struct policy **out)
{
    struct policy *policy = mem_alloc(sizeof *policy);
    if (policy == NULL)
        return err_new(ERR_RESOURCE_EXHAUSTED, "no memory for a policy");
    err_t e = read_policy(root, policy);
    if (e.code != ERR_OK)
        policy_free(policy);
    else
        *out = policy;
    return e;
}

void policy_free(struct policy *policy)
{
    if (policy == NULL)
        return;
    mem_free(policy->rules);
    mem_free(policy);
}

int64_t policy_ttft_over_ms(const struct policy *policy)
{
    return policy->has_overflow ? policy->ttft_over_ms : -1;
}

const struct policy_tier *policy_tiers(const struct policy *policy, size_t *n)
{
    *n = policy->n_tiers;
    return policy->tiers;
}
