/* Readers of parts that are being built in their own rooms: the least that a configuration needs. */
#include <string.h>
#include "base/alloc.h"
#include "router/config/route_config.h"

static err_t read_local(const struct yaml_value *value, struct local_model_options *out)
{
    static const char *const KEYS[] = {"name", "targets", "model", NULL};
    TRY(yaml_required(value));
    TRY(yaml_map(value, KEYS));
    struct yaml_value name = yaml_at(value, "name"), targets = yaml_at(value, "targets"),
                      model = yaml_at(value, "model");
    size_t n;
    TRY(yaml_required(&name));
    TRY(yaml_text(&name, &out->name));
    TRY(yaml_text(&model, &out->model));
    TRY(yaml_required(&targets));
    TRY(yaml_list(&targets, &n));
    if (n == 0 || n > LOCAL_TARGETS_MAX)
        return yaml_wrong(&targets, "there must be 1 to %d targets", LOCAL_TARGETS_MAX);
    const char **list = mem_alloc_array(n, sizeof *list);
    if (list == NULL)
        return err_new(ERR_RESOURCE_EXHAUSTED, "no memory for the local models of the configuration");
    out->targets = list;
    for (size_t i = 0; i < n; i++) {
        struct yaml_value element = yaml_element(&targets, i);
        TRY(yaml_required(&element));
        TRY(yaml_text(&element, &list[i]));
        out->n_targets = i + 1;
    }
    return err_ok();
}

err_t local_models_read(const struct yaml_value *value, char *(*environment)(const char *name),
                        struct local_model_options **out, size_t *n)
{
    (void)environment;
    size_t n_models;
    *out = NULL;
    *n = 0;
    TRY(yaml_list(value, &n_models));
    if (n_models > LOCAL_MODELS_MAX)
        return yaml_wrong(value, "there are %zu models; at most %d are read", n_models, LOCAL_MODELS_MAX);
    if (n_models == 0)
        return err_ok();
    struct local_model_options *models = mem_alloc_array(n_models, sizeof *models);
    if (models == NULL)
        return err_new(ERR_RESOURCE_EXHAUSTED, "no memory for the local models of the configuration");
    err_t e = err_ok();
    for (size_t i = 0; i < n_models && e.code == ERR_OK; i++) {
        struct yaml_value element = yaml_element(value, i);
        e = read_local(&element, &models[i]);
        for (size_t j = 0; j < i && e.code == ERR_OK; j++) {
            if (strcmp(models[j].name, models[i].name) == 0)
                e = yaml_wrong(&element, "the model \"%.60s\" is there twice", models[i].name);
        }
    }
    if (e.code != ERR_OK) {
        local_models_free(models, n_models);
        return e;
    }
    *out = models;
    *n = n_models;
    return e;
}

void local_models_free(struct local_model_options *models, size_t n)
{
    for (size_t i = 0; i < n; i++)
        mem_free((void *)models[i].targets);
    mem_free(models);
}

err_t decision_log_options_read(const struct yaml_value *value, struct decision_log_options *out)
{
    static const char *const KEYS[] = {"path", "content", NULL};
    *out = (struct decision_log_options){.max_bytes = 100000000, .keep = 5};
    TRY(yaml_map(value, KEYS));
    struct yaml_value path = yaml_at(value, "path"), content = yaml_at(value, "content");
    TRY(yaml_text(&path, &out->path));
    return yaml_bool(&content, &out->content);
}
