/* The list under `local:` of a configuration file. */
#include <ctype.h>
#include <string.h>
#include "base/alloc.h"
#include "base/log.h"
#include "router/config/key_field.h"
#include "router/local/local_fleet.h"
#include "router/local/local_salt.h"
#include "router/local/replica_target.h"
#include "router/money/money.h"

enum { LOCAL_NAME_BYTES_MAX = 64, WATTS_MAX = 1000000 };

static err_t no_memory(void)
{
    return err_new(ERR_RESOURCE_EXHAUSTED, "no memory for the local models of the configuration");
}

static err_t read_name(const struct yaml_value *value, const char **out)
{
    TRY(yaml_required(value));
    TRY(yaml_text(value, out));
    for (const char *c = *out; *c; c++) {
        if (!isalnum((unsigned char)*c) && strchr("-_.", *c) == NULL)
            return yaml_wrong(value, "a local model's name has letters, digits, '-', '_' and '.' alone");
    }
    if (strlen(*out) > LOCAL_NAME_BYTES_MAX)
        return yaml_wrong(value, "a local model's name has at most %d characters", LOCAL_NAME_BYTES_MAX);
    return err_ok();
}

static err_t read_targets(const struct yaml_value *value, struct local_model_options *out)
{
    size_t n;
    TRY(yaml_required(value));
    TRY(yaml_list(value, &n));
    if (n == 0)
        return yaml_wrong(value, "there must be a target, like 127.0.0.1:50051");
    if (n > LOCAL_TARGETS_MAX)
        return yaml_wrong(value, "there are %zu targets; at most %d are read", n, LOCAL_TARGETS_MAX);
    const char **targets = mem_alloc_array(n, sizeof *targets);
    if (targets == NULL)
        return no_memory();
    out->targets = targets;
    out->n_targets = n;
    for (size_t i = 0; i < n; i++) {
        struct yaml_value element = yaml_element(value, i);
        struct replica_target target;
        TRY(yaml_required(&element));
        TRY(yaml_text(&element, &targets[i]));
        err_t e = replica_target_parse(targets[i], &target);
        if (e.code != ERR_OK)
            return yaml_wrong(&element, "%s", e.message);
        for (size_t j = 0; j < i; j++) {
            if (strcmp(targets[j], targets[i]) == 0)
                return yaml_wrong(&element, "the target \"%.80s\" is there twice", targets[i]);
        }
    }
    return err_ok();
}

/* Engines are ours wherever they are, and what must stay goes to them, too. */
static void warn_of_clear_text(const struct yaml_value *targets, const struct local_model_options *model)
{
    for (size_t i = 0; !model->tls && i < model->n_targets; i++) {
        struct replica_target target;
        if (replica_target_parse(model->targets[i], &target).code != ERR_OK ||
            replica_target_is_here(&target))
            continue;
        log_warn("route",
                 "%s: \"%.120s\" may be another host, and there is no tls: requests and the key go there in "
                 "clear text, what must stay (local_only) included",
                 targets->path, model->targets[i]);
        return;
    }
}

/* Paths are opened when a replica is connected to, so that certificates can be renewed. */
static err_t read_tls(const struct yaml_value *value, struct local_model_options *out)
{
    static const char *const KEYS[] = {"ca_file", "cert_file", "key_file", "server_name", NULL};
    const char **const FIELDS[] = {&out->ca_file, &out->cert_file, &out->key_file, &out->server_name};
    TRY(yaml_map(value, KEYS));
    out->tls = yaml_is_there(value);
    for (size_t i = 0; KEYS[i]; i++) {
        struct yaml_value field = yaml_at(value, KEYS[i]);
        TRY(yaml_text(&field, FIELDS[i]));
    }
    if (!out->cert_file != !out->key_file)
        return yaml_wrong(value, "cert_file and key_file go together");
    return err_ok();
}

static err_t read_dollars(const struct yaml_value *value, nanodollars *out)
{
    const char *text = NULL;
    TRY(yaml_text(value, &text));
    if (text && money_parse(text, out).code != ERR_OK)
        return yaml_wrong(value, "\"%.40s\" is not an amount in dollars, like 0.40", text);
    return err_ok();
}

static err_t read_cost(const struct yaml_value *value, struct local_model_options *out)
{
    static const char *const KEYS[] = {"per_hour", "watts", "per_kwh", NULL};
    TRY(yaml_map(value, KEYS));
    struct yaml_value hour = yaml_at(value, "per_hour"), watts = yaml_at(value, "watts"),
                      energy = yaml_at(value, "per_kwh");
    bool has_hour = yaml_is_there(&hour), has_watts = yaml_is_there(&watts);
    if (has_watts != yaml_is_there(&energy) || (yaml_is_there(value) && has_hour == has_watts))
        return yaml_wrong(value, "it must be {per_hour: DOLLARS}, or {watts: W, per_kwh: DOLLARS}");
    int64_t power_watts = 0;
    nanodollars per_kwh = 0;
    TRY(read_dollars(&hour, &out->nanodollars_per_hour));
    TRY(yaml_integer(&watts, 1, WATTS_MAX, &power_watts));
    TRY(read_dollars(&energy, &per_kwh));
    if (per_kwh > 1000 * NANODOLLARS_PER_DOLLAR)
        return yaml_wrong(&energy, "more than 1000 dollars a kWh");
    if (has_watts)
        out->nanodollars_per_hour = per_kwh * power_watts / 1000;
    return err_ok();
}

static err_t read_salt(const struct yaml_value *value, char *(*environment)(const char *name),
                       struct local_model_options *out)
{
    static const char *const KEYS[] = {"key_env", "key_file", NULL};
    TRY(yaml_map(value, KEYS));
    if (!yaml_is_there(value))
        return err_ok();
    TRY(key_field_read(value, "salts", environment, &out->salt_key));
    if (!out->salt_key)
        return yaml_wrong(value, "it must be {key_env: NAME}, or {key_file: PATH}");
    if (strlen(out->salt_key) < LOCAL_SALT_KEY_BYTES_MIN)
        return yaml_wrong(value, "the key must have %d bytes at least, so that nobody guesses it",
                          LOCAL_SALT_KEY_BYTES_MIN);
    return err_ok();
}

static err_t read_model(const struct yaml_value *value, char *(*environment)(const char *name),
                        struct local_model_options *out)
{
    static const char *const KEYS[] = {"name",     "model", "targets", "tls", "key_env",
                                       "key_file", "cost",  "salt",    NULL};
    TRY(yaml_required(value));
    TRY(yaml_map(value, KEYS));
    struct yaml_value name = yaml_at(value, "name"), model = yaml_at(value, "model"),
                      targets = yaml_at(value, "targets"), tls = yaml_at(value, "tls"),
                      cost = yaml_at(value, "cost"), salt = yaml_at(value, "salt");
    TRY(read_name(&name, &out->name));
    TRY(yaml_text(&model, &out->model));
    if (out->model && strlen(out->model) > REQUEST_MODEL_BYTES_MAX)
        return yaml_wrong(&model, "a model's name has at most %d bytes", REQUEST_MODEL_BYTES_MAX);
    TRY(read_targets(&targets, out));
    TRY(read_tls(&tls, out));
    warn_of_clear_text(&targets, out);
    TRY(key_field_read(value, "a local model", environment, &out->api_key));
    TRY(read_salt(&salt, environment, out));
    return read_cost(&cost, out);
}

err_t local_models_read(const struct yaml_value *value, char *(*environment)(const char *name),
                        struct local_model_options **out, size_t *n_out)
{
    size_t n;
    *out = NULL;
    *n_out = 0;
    TRY(yaml_list(value, &n));
    if (n == 0)
        return err_ok();
    if (n > LOCAL_MODELS_MAX)
        return yaml_wrong(value, "there are %zu local models; at most %d are read", n, LOCAL_MODELS_MAX);
    struct local_model_options *models = mem_alloc_array(n, sizeof *models);
    if (models == NULL)
        return no_memory();
    err_t e = err_ok();
    for (size_t i = 0; i < n && e.code == ERR_OK; i++) {
        struct yaml_value element = yaml_element(value, i);
        e = read_model(&element, environment, &models[i]);
        for (size_t j = 0; j < i && e.code == ERR_OK; j++) {
            if (strcmp(models[j].name, models[i].name) == 0)
                e = yaml_wrong(&element, "the local model \"%s\" is there twice", models[i].name);
        }
    }
    if (e.code != ERR_OK) {
        local_models_free(models, n);
        return e;
    }
    *out = models;
    *n_out = n;
    return e;
}

void local_models_free(struct local_model_options *models, size_t n)
{
    for (size_t i = 0; models && i < n; i++) {
        key_field_free(models[i].api_key);
        key_field_free(models[i].salt_key);
        mem_free((void *)models[i].targets);
    }
    mem_free(models);
}
