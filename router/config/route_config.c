#include "router/config/route_config.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include "base/alloc.h"
#include "base/assert.h"
#include "base/hash.h"
#include "base/log.h"
#include "base/mapped_file.h"
#include "router/config/route_sections.h"

#define LOCAL_PREFIX "local/"
enum { CANONICAL_BYTES_MAX = 8 * YAML_FILE_BYTES_MAX };

static const char *const OWN_KEYS[] = {
    "local",      "providers", "cache", "ledger", "budgets",          "cascade", "hedge",
    "classifier", "retries",   "log",   "gate",   "check_tool_calls", NULL};
/* Besides the policy's: what has a say in who answers. */
static const char *const DECIDING_KEYS[] = {"cascade", "hedge", "classifier", NULL};

static err_t check_keys(const struct yaml_value *root)
{
    const char *keys[ROUTE_CONFIG_KEYS_MAX + 1];
    size_t n = 0;
    for (size_t i = 0; OWN_KEYS[i]; i++)
        keys[n++] = OWN_KEYS[i];
    for (size_t i = 0; POLICY_KEYS[i]; i++)
        keys[n++] = POLICY_KEYS[i];
    ASSERT(n <= ROUTE_CONFIG_KEYS_MAX);
    keys[n] = NULL;
    TRY(yaml_required(root));
    return yaml_map(root, keys);
}

bool route_config_find_local(const struct route_config *config, const char *name, size_t *local)
{
    if (strncmp(name, LOCAL_PREFIX, strlen(LOCAL_PREFIX)) != 0)
        return false;
    for (size_t i = 0; i < config->n_local; i++) {
        if (strcmp(config->local[i].name, name + strlen(LOCAL_PREFIX)) == 0) {
            *local = i;
            return true;
        }
    }
    return false;
}

const struct ledger_budget *route_config_budget(const struct route_config *config, const char *tenant)
{
    const struct ledger_budget *of_others = NULL;
    for (size_t i = 0; i < config->n_budgets; i++) {
        const struct budget_config *budget = &config->budgets[i];
        if (budget->tenant == NULL)
            of_others = &budget->budget;
        else if (strcmp(budget->tenant, tenant) == 0)
            return &budget->budget;
    }
    return of_others;
}

static err_t check_model(const struct yaml_value *value, const struct route_config *config, const char *name)
{
    const struct provider *provider = NULL;
    size_t local;
    bool is_local = strncmp(name, LOCAL_PREFIX, strlen(LOCAL_PREFIX)) == 0;
    if (is_local ? route_config_find_local(config, name, &local)
                 : provider_config_find(&config->providers, name, &provider) != NULL)
        return err_ok();
    return is_local
               ? yaml_wrong(value, "there is no model \"%.60s\" under local", name + strlen(LOCAL_PREFIX))
               : yaml_wrong(value, "no provider has a model \"%.120s\"", name);
}

static void warn_of_price(const struct yaml_value *value, const struct route_config *config, const char *name)
{
    const struct provider *provider;
    const struct provider_model *model = provider_config_find(&config->providers, name, &provider);
    if (model == NULL || !provider_price_is_stale(model, (int64_t)time(NULL)))
        return;
    if (model->priced_s == 0)
        log_warn("route", "%s: the price of %s is of no day (as_of): it may be old", value->path, name);
    else
        log_warn("route", "%s: the price of %s is more than %d days old", value->path, name,
                 PRICE_STALE_DAYS);
}

/* Tiers go from the least able to the most: what stands after providers cannot be a fallback beside us. */
static err_t check_tiers(const struct yaml_value *root, const struct route_config *config)
{
    size_t n;
    const struct policy_tier *tiers = policy_tiers(config->policy, &n);
    struct yaml_value list = yaml_at(root, "tiers");
    for (size_t i = 0; i < n; i++) {
        struct yaml_value element = yaml_element(&list, i), models = yaml_at(&element, "models");
        if (i > 0 && tiers[i].is_local && !tiers[i - 1].is_local)
            return yaml_wrong(&element,
                              "the local tier \"%.60s\" stands after one of providers: tiers go from the "
                              "least able to the most, local ones first",
                              tiers[i].name);
        for (size_t j = 0; j < tiers[i].n_models; j++) {
            struct yaml_value model = yaml_element(&models, j);
            TRY(check_model(&model, config, tiers[i].models[j]));
            for (size_t k = 0; k < j; k++) {
                if (strcmp(tiers[i].models[k], tiers[i].models[j]) == 0)
                    return yaml_wrong(&model, "the model \"%.60s\" is there twice", tiers[i].models[j]);
            }
            warn_of_price(&model, config, tiers[i].models[j]);
        }
    }
    return err_ok();
}

static bool is_known_intent(const struct classifier_config *classifier, const char *intent)
{
    for (size_t i = 0; i < classifier->n_labels; i++) {
        const char *known = classifier->labels[i].intent;
        if (known && strcmp(known, intent) == 0)
            return true;
    }
    return false;
}

/* What must stay cannot be known of what has left already. */
static err_t check_privacy(const struct yaml_value *rule, const struct yaml_value *intents,
                           const struct route_config *config)
{
    bool is_private = false;
    struct yaml_value local_only = yaml_at(rule, "local_only");
    TRY(yaml_bool(&local_only, &is_private));
    if (!is_private || !yaml_is_there(intents) || config->classifier.provider == NULL)
        return err_ok();
    return yaml_wrong(intents,
                      "%.60s, a provider's, would have to read a request to tell that it must stay here: a "
                      "rule with local_only and intents needs a classifier of local/NAME",
                      config->classifier.model);
}

/* A rule whose intent no label names would never hold. */
static err_t check_intents(const struct yaml_value *root, const struct route_config *config)
{
    size_t n_rules, n_intents;
    struct yaml_value rules = yaml_at(root, "rules");
    TRY(yaml_list(&rules, &n_rules));
    for (size_t i = 0; i < n_rules; i++) {
        struct yaml_value rule = yaml_element(&rules, i), when = yaml_at(&rule, "when"),
                          intents = yaml_at(&when, "intents");
        TRY(yaml_list(&intents, &n_intents));
        TRY(check_privacy(&rule, &intents, config));
        for (size_t j = 0; j < n_intents; j++) {
            struct yaml_value element = yaml_element(&intents, j);
            const char *intent = "";
            TRY(yaml_text(&element, &intent));
            if (!is_known_intent(&config->classifier, intent))
                return yaml_wrong(&element, "no label of the classifier has the intent \"%.60s\"", intent);
        }
    }
    return err_ok();
}

static err_t check_classifier(const struct yaml_value *root, struct route_config *config)
{
    struct yaml_value classifier = yaml_at(root, "classifier"), model = yaml_at(&classifier, "model");
    struct classifier_config *own = &config->classifier;
    if (own->model == NULL)
        return err_ok();
    TRY(check_model(&model, config, own->model));
    own->provider_model = provider_config_find(&config->providers, own->model, &own->provider);
    if (own->provider == NULL) {
        ASSERT(route_config_find_local(config, own->model, &own->local));
        return own->labels[0].token_id < 0
                   ? err_ok()
                   : yaml_wrong(&classifier, "token_id is of a provider's labels: an engine tells its own");
    }
    if (own->provider->kind == PROVIDER_ANTHROPIC)
        return yaml_wrong(&model, "\"%.60s\" is Anthropic's, whose answers tell no probabilities",
                          own->model);
    warn_of_price(&model, config, own->model);
    return err_ok();
}

static err_t check_gate(const struct yaml_value *root, const struct route_config *config)
{
    size_t tier;
    struct yaml_value gate = yaml_at(root, "gate"), baseline = yaml_at(&gate, "baseline");
    if (!config->gate.is_set || config->gate.baseline == NULL ||
        policy_find_tier(config->policy, config->gate.baseline, &tier))
        return err_ok();
    return yaml_wrong(&baseline, "there is no tier \"%.60s\"", config->gate.baseline);
}

static err_t make_policy_id(const struct yaml_value *root, struct route_config *config)
{
    const char *const *const LISTS[] = {POLICY_KEYS, DECIDING_KEYS};
    struct buffer text = {.limit_bytes = CANONICAL_BYTES_MAX};
    bool fits = true;
    for (size_t i = 0; i < sizeof LISTS / sizeof *LISTS; i++) {
        for (const char *const *key = LISTS[i]; *key && fits; key++) {
            struct yaml_value value = yaml_at(root, *key);
            fits = buffer_append_format(&text, "%s=", *key) && yaml_append_canonical(&value, &text) &&
                   buffer_append_text(&text, "\n");
        }
    }
    const struct cascade_config *cascade = &config->cascade;
    if (fits && cascade->calibration_bytes > 0)
        fits = buffer_append(&text, cascade->calibration_text, cascade->calibration_bytes);
    (void)snprintf(config->policy_id, sizeof config->policy_id, "%016llx",
                   (unsigned long long)hash64(text.data, text.size, 0));
    buffer_free(&text);
    return fits ? err_ok() : err_new(ERR_RESOURCE_EXHAUSTED, "no memory for the fingerprint of a policy");
}

static err_t read_sections(const struct yaml_value *root, char *(*environment)(const char *name),
                           struct route_config *out)
{
    struct yaml_value local = yaml_at(root, "local"), providers = yaml_at(root, "providers"),
                      cache = yaml_at(root, "cache"), ledger = yaml_at(root, "ledger"),
                      budgets = yaml_at(root, "budgets"), cascade = yaml_at(root, "cascade"),
                      hedge = yaml_at(root, "hedge"), classifier = yaml_at(root, "classifier"),
                      retries = yaml_at(root, "retries"), log = yaml_at(root, "log"),
                      gate = yaml_at(root, "gate"), calls = yaml_at(root, "check_tool_calls");
    TRY(local_models_read(&local, environment, &out->local, &out->n_local));
    TRY(provider_config_read(&providers, environment, &out->providers));
    TRY(policy_read(root, &out->policy));
    TRY(cache_config_read(&cache, environment, &out->cache));
    TRY(ledger_config_read(&ledger, out));
    TRY(budgets_read(&budgets, &out->budgets, &out->n_budgets));
    TRY(cascade_config_read(&cascade, out->policy, &out->cascade));
    TRY(hedge_config_read(&hedge, out->policy, &out->hedge));
    TRY(classifier_config_read(&classifier, &out->classifier));
    TRY(retry_config_read(&retries, &out->retries));
    TRY(yaml_bool(&calls, &out->checks_all_calls));
    TRY(decision_log_options_read(&log, &out->log));
    return rollout_options_read(&gate, &out->gate);
}

static err_t read_all(char *(*environment)(const char *name), struct route_config *out)
{
    struct yaml_value root = yaml_root(out->file);
    TRY(check_keys(&root));
    TRY(read_sections(&root, environment, out));
    TRY(check_tiers(&root, out));
    TRY(check_classifier(&root, out));
    TRY(check_intents(&root, out));
    TRY(check_gate(&root, out));
    if (out->n_budgets > 0 && out->ledger_path == NULL)
        log_warn("route",
                 "budgets without a ledger (ledger: {path: FILE}): what was spent is forgotten at a restart");
    return make_policy_id(&root, out);
}

err_t route_config_parse(const char *name, const char *text, size_t text_bytes,
                         char *(*environment)(const char *name), struct route_config **out)
{
    struct route_config *config = mem_alloc(sizeof *config);
    if (config == NULL)
        return err_new(ERR_RESOURCE_EXHAUSTED, "%s: no memory to read it", name);
    err_t e = yaml_file_parse(name, text, text_bytes, &config->file);
    if (e.code == ERR_OK)
        e = read_all(environment, config);
    if (e.code != ERR_OK)
        route_config_free(config);
    else
        *out = config;
    return e;
}

err_t route_config_read(const char *path, char *(*environment)(const char *name), struct route_config **out)
{
    char *text;
    size_t text_bytes;
    TRY(file_read(path, YAML_FILE_BYTES_MAX, &text, &text_bytes));
    err_t e = route_config_parse(path, text, text_bytes, environment, out);
    mem_free(text);
    return e;
}

char *route_environment_without_keys(const char *name)
{
    static char nothing[] = "-";
    char *value = getenv(name);
    return value ? value : nothing;
}

void route_config_free(struct route_config *config)
{
    if (config == NULL)
        return;
    local_models_free(config->local, config->n_local);
    provider_config_free(&config->providers);
    policy_free(config->policy);
    mem_free(config->budgets);
    mem_free((char *)config->cascade.calibration_text);
    yaml_file_close(config->file);
    mem_free(config);
}
