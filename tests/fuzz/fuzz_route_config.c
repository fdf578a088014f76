/* A router's configuration file as bytes. */
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include "base/assert.h"
#include "base/log.h"
#include "router/config/route_config.h"
#include "router/config/yaml_fields.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static char *no_variable(const char *name)
{
    ASSERT(name[0] != '\0');
    return NULL;
}

/* No file of the machine is opened, whatever the bytes say. */
static bool names_a_file(const uint8_t *data, size_t size)
{
    static const char *const NAMES[] = {"key_file", "calibration"};
    for (size_t i = 0; i < sizeof NAMES / sizeof *NAMES; i++) {
        if (memmem(data, size, NAMES[i], strlen(NAMES[i])) != NULL)
            return true;
    }
    return false;
}

static bool is_wrong(err_t e)
{
    return e.code == ERR_INVALID_ARGUMENT && strncmp(e.message, "f:", 2) == 0;
}

static void check_decision(const struct policy *policy)
{
    size_t n;
    ASSERT(policy_tiers(policy, &n)[0].is_local && n >= 1 && n <= POLICY_TIERS_MAX);
    struct request_signals signals = {.n_images = 1, .has_code = true, .script = SCRIPT_HAN};
    struct route_hints hints = ROUTE_HINTS_NONE;
    struct policy_input input = {
        .signals = &signals, .hints = &hints, .tenant = "a", .model = "", .intent = "b"};
    struct policy_decision decision = policy_decide(policy, &input, NULL);
    ASSERT(decision.tier < n);
}

static void check_providers(const struct provider_list *list)
{
    for (size_t i = 0; i < list->n; i++) {
        const struct provider *provider = &list->providers[i];
        ASSERT(provider->name[0] && provider->url[0] && provider->n_models > 0 &&
               provider->kind < PROVIDER_KINDS);
        ASSERT(provider->models[0].name[0] && provider->models[0].price.input >= 0);
    }
}

static void check_local(const struct local_model_options *models, size_t n)
{
    ASSERT(n <= LOCAL_MODELS_MAX);
    for (size_t i = 0; i < n; i++)
        ASSERT(models[i].name[0] && models[i].n_targets > 0 && models[i].nanodollars_per_hour >= 0);
}

/* Each part by itself, so that it is also looked at when another one is wrong. */
static void check_parts(const struct yaml_value *root)
{
    struct policy *policy = NULL;
    struct provider_list list;
    struct local_model_options *models;
    size_t n;
    struct yaml_value providers = yaml_at(root, "providers"), local = yaml_at(root, "local");
    err_t e = policy_read(root, &policy);
    ASSERT(e.code == ERR_OK || is_wrong(e));
    if (e.code == ERR_OK)
        check_decision(policy);
    policy_free(policy);
    e = provider_config_read(&providers, no_variable, &list);
    ASSERT(e.code == ERR_OK || is_wrong(e));
    check_providers(&list);
    provider_config_free(&list);
    e = local_models_read(&local, no_variable, &models, &n);
    ASSERT(e.code == ERR_OK || (is_wrong(e) && models == NULL && n == 0));
    check_local(models, n);
    local_models_free(models, n);
}

static void check_config(const struct route_config *config)
{
    size_t n, local;
    const struct policy_tier *tiers = policy_tiers(config->policy, &n);
    struct buffer text = {.limit_bytes = 4 * YAML_FILE_BYTES_MAX};
    check_providers(&config->providers);
    check_local(config->local, config->n_local);
    check_decision(config->policy);
    for (size_t i = 0; i < n; i++) {
        const struct provider *provider;
        for (size_t j = 0; j < tiers[i].n_models; j++)
            ASSERT(route_config_find_local(config, tiers[i].models[j], &local) ||
                   provider_config_find(&config->providers, tiers[i].models[j], &provider));
    }
    ASSERT(!config->cascade.is_set || (config->cascade.tier < config->cascade.to && config->cascade.to < n));
    ASSERT(!config->hedge.is_set || (config->hedge.tier < config->hedge.to && config->hedge.to < n));
    ASSERT(strlen(config->policy_id) == 16 && route_config_describe(config, &text));
    buffer_free(&text);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct route_config *config = NULL;
    struct yaml_file *file = NULL;
    if (names_a_file(data, size))
        return 0;
    log_init(LOG_ERROR, LOG_FORMAT_TEXT); /* old prices are no news here */
    err_t e = route_config_parse("f", (const char *)data, size, no_variable, &config);
    ASSERT(e.code == ERR_OK || is_wrong(e) || strncmp(e.message, "f has more than", 15) == 0);
    if (e.code == ERR_OK) {
        check_config(config);
    } else if (yaml_file_parse("f", (const char *)data, size, &file).code == ERR_OK) {
        struct yaml_value root = yaml_root(file);
        check_parts(&root);
    }
    yaml_file_close(file);
    route_config_free(config);
    return 0;
}
