/* A router's configuration file as bytes. */
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include "base/assert.h"
#include "router/local/local_fleet.h"
#include "router/policy/policy.h"
#include "router/config/provider_config.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static char *no_variable(const char *name)
{
    ASSERT(name[0] != '\0');
    return NULL;
}

/* No file of the machine is opened, whatever the bytes say. */
static bool names_a_file(const uint8_t *data, size_t size)
{
    return memmem(data, size, "key_file", 8) != NULL;
}

static void check_policy(const struct yaml_value *root)
{
    struct policy *policy = NULL;
    err_t e = policy_read(root, &policy);
    ASSERT(e.code == ERR_OK || (e.code == ERR_INVALID_ARGUMENT && strncmp(e.message, "f:", 2) == 0));
    if (e.code != ERR_OK)
        return;
    size_t n;
    ASSERT(policy_tiers(policy, &n)[0].is_local && n >= 1 && n <= POLICY_TIERS_MAX);
    struct request_signals signals = {.n_images = 1, .has_code = true, .script = SCRIPT_HAN};
    struct route_hints hints = ROUTE_HINTS_NONE;
    struct policy_input input = {
        .signals = &signals, .hints = &hints, .tenant = "a", .model = "", .intent = "b"};
    struct policy_decision decision = policy_decide(policy, &input, NULL);
    ASSERT(decision.tier < n);
    policy_free(policy);
}

static void check_local(const struct yaml_value *root)
{
    struct yaml_value local = yaml_at(root, "local");
    struct local_model_options *models;
    size_t n;
    err_t e = local_models_read(&local, no_variable, &models, &n);
    ASSERT(e.code == ERR_OK || (e.code == ERR_INVALID_ARGUMENT && strncmp(e.message, "f:", 2) == 0));
    ASSERT((e.code == ERR_OK || (models == NULL && n == 0)) && n <= LOCAL_MODELS_MAX);
    for (size_t i = 0; i < n; i++)
        ASSERT(models[i].name[0] && models[i].n_targets > 0 && models[i].nanodollars_per_hour >= 0);
    local_models_free(models, n);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct yaml_file *file = NULL;
    if (names_a_file(data, size))
        return 0;
    err_t e = yaml_file_parse("f", (const char *)data, size, &file);
    if (e.code != ERR_OK)
        return 0;
    struct provider_list list;
    struct yaml_value root = yaml_root(file), providers = yaml_at(&root, "providers");
    e = provider_config_read(&providers, no_variable, &list);
    for (size_t i = 0; e.code == ERR_OK && i < list.n; i++) {
        const struct provider *provider = &list.providers[i];
        ASSERT(provider->name[0] && provider->url[0] && provider->n_models > 0 &&
               provider->kind < PROVIDER_KINDS);
        ASSERT(provider->models[0].name[0] && provider->models[0].price.input >= 0);
    }
    if (e.code == ERR_OK)
        provider_config_free(&list);
    else
        ASSERT(e.code == ERR_INVALID_ARGUMENT && strncmp(e.message, "f:", 2) == 0);
    check_policy(&root);
    check_local(&root);
    yaml_file_close(file);
    return 0;
}
