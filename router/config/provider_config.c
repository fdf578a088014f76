#include "router/config/provider_config.h"

#include <ctype.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>
#include "base/alloc.h"
#include "base/assert.h"
#include "router/config/key_field.h"

enum { SECONDS_PER_DAY = 86400, CONTEXT_TOKENS_MAX = 100000000 };

static const char *const KINDS[] = {"openai", "compatible", "anthropic", NULL};
_Static_assert(PROVIDER_OPENAI == 0 && PROVIDER_COMPATIBLE == 1 && PROVIDER_ANTHROPIC == 2,
               "the order of KINDS");

static err_t no_memory(void)
{
    return err_new(ERR_RESOURCE_EXHAUSTED, "no memory for the providers of the configuration");
}

static err_t read_money(const struct yaml_value *map, const char *key, nanodollars *out)
{
    struct yaml_value value = yaml_at(map, key);
    return yaml_money(&value, out);
}

static err_t read_day(const struct yaml_value *value, int64_t *out)
{
    const char *text = NULL;
    TRY(yaml_text(value, &text));
    if (text == NULL)
        return err_ok();
    struct tm date = {0};
    const char *end = strptime(text, "%Y-%m-%d", &date);
    char again[16];
    time_t seconds = end && *end == '\0' ? timegm(&date) : 0;
    if (seconds <= 0 || strftime(again, sizeof again, "%Y-%m-%d", gmtime_r(&seconds, &date)) == 0 ||
        strcmp(again, text) != 0) /* the 31st of February */
        return yaml_wrong(value, "\"%.40s\" is not a day, like 2026-11-01", text);
    *out = seconds;
    return err_ok();
}

static err_t read_price(const struct yaml_value *value, struct provider_model *model)
{
    static const char *const KEYS[] = {"input",   "cached_input", "cache_write", "output",
                                       "request", "as_of",        NULL};
    model->price = (struct price){.cached_input = -1, .cache_write = -1};
    bool is_free = model->kind == PROVIDER_COMPATIBLE && !yaml_is_there(value);
    if (is_free)
        return err_ok();
    TRY(yaml_required(value));
    TRY(yaml_map(value, KEYS));
    struct yaml_value input = yaml_at(value, "input"), output = yaml_at(value, "output"),
                      day = yaml_at(value, "as_of");
    TRY(yaml_required(&input));
    TRY(yaml_required(&output));
    TRY(read_money(value, "input", &model->price.input));
    TRY(read_money(value, "cached_input", &model->price.cached_input));
    TRY(read_money(value, "cache_write", &model->price.cache_write));
    TRY(read_money(value, "output", &model->price.output));
    TRY(read_money(value, "request", &model->price.request));
    return read_day(&day, &model->priced_s);
}

static err_t read_refuses(const struct yaml_value *value, struct provider_model *model)
{
    size_t n;
    TRY(yaml_list(value, &n));
    for (size_t i = 0; i < n; i++) {
        struct yaml_value element = yaml_element(value, i);
        const char *name = NULL;
        enum provider_parameter parameter;
        TRY(yaml_required(&element));
        TRY(yaml_text(&element, &name));
        if (!provider_parameter_find(name, &parameter))
            return yaml_wrong(&element, "\"%.60s\" is not a parameter of a chat request", name);
        if (provider_parameter_crossing(parameter, model->kind) != CROSSES)
            return yaml_wrong(
                &element, "%s does not cross to this kind of provider as it is: it cannot be left out", name);
        model->refuses |= parameter_bit(parameter);
    }
    return err_ok();
}

static err_t read_takes(const struct yaml_value *value, struct provider_model *model)
{
    static const char *const NAMES[] = {"images", "audio", "files", "tools", "schemas", "unchecked_schemas",
                                        NULL};
    bool *const FLAGS[] = {&model->takes_images, &model->takes_audio,   &model->takes_files,
                           &model->takes_tools,  &model->takes_schemas, &model->takes_unchecked_schemas};
    if (!yaml_is_there(value)) {
        model->takes_tools = true;
        model->takes_images = model->takes_schemas = model->kind != PROVIDER_COMPATIBLE;
        return err_ok();
    }
    size_t n;
    TRY(yaml_list(value, &n));
    for (size_t i = 0; i < n; i++) {
        struct yaml_value element = yaml_element(value, i);
        int which = -1;
        TRY(yaml_required(&element));
        TRY(yaml_choice(&element, NAMES, &which));
        *FLAGS[which] = true;
    }
    model->takes_schemas = model->takes_schemas || model->takes_unchecked_schemas;
    return err_ok();
}

static err_t read_tokens(const struct yaml_value *map, const char *key, uint32_t *out)
{
    struct yaml_value value = yaml_at(map, key);
    int64_t tokens = *out;
    TRY(yaml_integer(&value, 1, CONTEXT_TOKENS_MAX, &tokens));
    *out = (uint32_t)tokens;
    return err_ok();
}

static err_t read_model(const struct yaml_value *value, enum provider_kind kind, struct provider_model *out)
{
    static const char *const KEYS[] = {
        "name", "price", "context", "max_output", "takes", "refuses", "max_completion_tokens", NULL};
    out->kind = kind;
    TRY(yaml_required(value));
    TRY(yaml_map(value, KEYS));
    struct yaml_value name = yaml_at(value, "name"), price = yaml_at(value, "price"),
                      takes = yaml_at(value, "takes"), refuses = yaml_at(value, "refuses"),
                      renamed = yaml_at(value, "max_completion_tokens"), most = yaml_at(value, "max_output");
    TRY(yaml_required(&name));
    TRY(yaml_text(&name, &out->name));
    TRY(read_price(&price, out));
    TRY(read_tokens(value, "context", &out->context_tokens));
    TRY(read_tokens(value, "max_output", &out->max_output_tokens));
    if (kind == PROVIDER_ANTHROPIC)
        TRY(yaml_required(&most)); /* every request there must say how much it may write */
    TRY(yaml_bool(&renamed, &out->max_completion_tokens));
    TRY(read_takes(&takes, out));
    return read_refuses(&refuses, out);
}

static err_t read_models(const struct yaml_value *value, struct provider *out)
{
    size_t n;
    TRY(yaml_list(value, &n));
    if (n == 0)
        return yaml_required(value).code != ERR_OK ? yaml_required(value)
                                                   : yaml_wrong(value, "there must be a model");
    if (n > PROVIDER_MODELS_MAX)
        return yaml_wrong(value, "there are %zu models; at most %d are read", n, PROVIDER_MODELS_MAX);
    struct provider_model *models = mem_alloc_array(n, sizeof *models);
    if (models == NULL)
        return no_memory();
    out->models = models;
    out->n_models = n;
    for (size_t i = 0; i < n; i++) {
        struct yaml_value element = yaml_element(value, i);
        TRY(read_model(&element, out->kind, &models[i]));
        for (size_t j = 0; j < i; j++) {
            if (strcmp(models[j].name, models[i].name) == 0)
                return yaml_wrong(&element, "the model \"%.60s\" is there twice", models[i].name);
        }
    }
    return err_ok();
}

/* A header's value may hold no control characters. */
static bool is_plain(const char *text)
{
    for (; *text; text++) {
        if (iscntrl((unsigned char)*text))
            return false;
    }
    return true;
}

static bool is_loopback(const char *host)
{
    static const char *const NAMES[] = {"localhost", "127.0.0.1", "[::1]"};
    for (size_t i = 0; i < sizeof NAMES / sizeof *NAMES; i++) {
        size_t size = strlen(NAMES[i]);
        if (strncmp(host, NAMES[i], size) == 0 && (host[size] == '\0' || strchr(":/", host[size])))
            return true;
    }
    return false;
}

static err_t read_url(const struct yaml_value *map, struct provider *out)
{
    struct yaml_value url = yaml_at(map, "url"), allow = yaml_at(map, "allow_clear_text");
    bool is_allowed = false;
    TRY(yaml_required(&url));
    TRY(yaml_text(&url, &out->url));
    TRY(yaml_bool(&allow, &is_allowed));
    bool is_tls = strncmp(out->url, "https://", 8) == 0, is_clear = strncmp(out->url, "http://", 7) == 0;
    size_t size = strlen(out->url);
    if ((!is_tls && !is_clear) || size < (is_tls ? 9 : 8) || out->url[size - 1] == '/' ||
        strpbrk(out->url, "?#@ "))
        return yaml_wrong(
            &url,
            "it must be http://HOST[:PORT][/PATH] or https://..., without a user, a query or a slash at "
            "the end, like https://api.openai.com/v1");
    if (is_clear && out->ca_file)
        return yaml_wrong(&url, "a ca_file is for https");
    if (is_clear && !is_loopback(out->url + 7) && !is_allowed)
        return yaml_wrong(&url, "requests and key would leave this machine in clear text: use https, or set "
                                "allow_clear_text: yes");
    return err_ok();
}

static err_t read_headers(const struct yaml_value *value, struct provider *out)
{
    size_t n;
    TRY(yaml_list(value, &n));
    if (n > PROVIDER_HEADERS_MAX)
        return yaml_wrong(value, "there are %zu headers; at most %d are read", n, PROVIDER_HEADERS_MAX);
    const char **headers = n > 0 ? mem_alloc_array(n, sizeof *headers) : NULL;
    if (n > 0 && headers == NULL)
        return no_memory();
    out->headers = headers;
    for (size_t i = 0; i < n; i++) {
        struct yaml_value element = yaml_element(value, i);
        TRY(yaml_required(&element));
        TRY(yaml_text(&element, &headers[i]));
        const char *colon = strchr(headers[i], ':');
        if (colon == NULL || colon == headers[i] || !is_plain(headers[i]))
            return yaml_wrong(&element, "it must be one line like \"X-Title: my service\"");
        out->n_headers = i + 1;
    }
    return err_ok();
}

static err_t read_timeouts(const struct yaml_value *value, struct provider *out)
{
    static const char *const KEYS[] = {"connect", "first_byte", "chunk", "total", NULL};
    int64_t *const FIELDS[] = {&out->connect_timeout_ms, &out->first_byte_timeout_ms, &out->chunk_timeout_ms,
                               &out->total_timeout_ms};
    out->connect_timeout_ms = 5000;
    out->first_byte_timeout_ms = 30000;
    out->chunk_timeout_ms = 30000;
    out->total_timeout_ms = 600000;
    TRY(yaml_map(value, KEYS));
    for (size_t i = 0; KEYS[i]; i++) {
        struct yaml_value field = yaml_at(value, KEYS[i]);
        TRY(yaml_duration_ms(&field, FIELDS[i]));
    }
    return err_ok();
}

static err_t read_name(const struct yaml_value *value, const char **out)
{
    TRY(yaml_required(value));
    TRY(yaml_text(value, out));
    for (const char *c = *out; *c; c++) {
        if (!isalnum((unsigned char)*c) && strchr("-_.", *c) == NULL)
            return yaml_wrong(value, "a provider's name has letters, digits, '-', '_' and '.' alone");
    }
    if (strlen(*out) > 64 || strcmp(*out, "local") == 0)
        return yaml_wrong(value, "a provider's name has at most 64 characters, and is not \"local\"");
    return err_ok();
}

static err_t read_provider(const struct yaml_value *value, char *(*environment)(const char *name),
                           struct provider *out)
{
    static const char *const KEYS[] = {"name",     "kind",    "url",      "allow_clear_text",
                                       "ca_file",  "key_env", "key_file", "headers",
                                       "timeouts", "models",  NULL};
    TRY(yaml_required(value));
    TRY(yaml_map(value, KEYS));
    struct yaml_value name = yaml_at(value, "name"), kind = yaml_at(value, "kind"),
                      headers = yaml_at(value, "headers"), timeouts = yaml_at(value, "timeouts"),
                      models = yaml_at(value, "models"), ca_file = yaml_at(value, "ca_file");
    int which = 0;
    TRY(yaml_text(&ca_file, &out->ca_file));
    if (out->ca_file && access(out->ca_file, R_OK) != 0)
        return yaml_wrong(&ca_file, "%.100s cannot be read", out->ca_file);
    TRY(read_name(&name, &out->name));
    TRY(yaml_required(&kind));
    TRY(yaml_choice(&kind, KINDS, &which));
    out->kind = (enum provider_kind)which;
    TRY(read_url(value, out));
    TRY(key_field_read(value, "a provider", environment, &out->key));
    TRY(read_headers(&headers, out));
    TRY(read_timeouts(&timeouts, out));
    return read_models(&models, out);
}

err_t provider_config_read(const struct yaml_value *value, char *(*environment)(const char *name),
                           struct provider_list *out)
{
    size_t n;
    *out = (struct provider_list){NULL, 0};
    TRY(yaml_list(value, &n));
    if (n > PROVIDERS_MAX)
        return yaml_wrong(value, "there are %zu providers; at most %d are read", n, PROVIDERS_MAX);
    out->providers = n > 0 ? mem_alloc_array(n, sizeof *out->providers) : NULL;
    if (n > 0 && out->providers == NULL)
        return no_memory();
    out->n = n;
    err_t e = err_ok();
    for (size_t i = 0; i < n && e.code == ERR_OK; i++) {
        struct yaml_value element = yaml_element(value, i);
        e = read_provider(&element, environment, &out->providers[i]);
        for (size_t j = 0; j < i && e.code == ERR_OK; j++) {
            if (strcmp(out->providers[j].name, out->providers[i].name) == 0)
                e = yaml_wrong(&element, "the provider \"%s\" is there twice", out->providers[i].name);
        }
    }
    if (e.code != ERR_OK)
        provider_config_free(out);
    return e;
}

void provider_config_free(struct provider_list *list)
{
    for (size_t i = 0; i < list->n; i++) {
        struct provider *provider = &list->providers[i];
        key_field_free(provider->key);
        mem_free((void *)provider->headers);
        mem_free((void *)provider->models);
    }
    mem_free(list->providers);
    *list = (struct provider_list){NULL, 0};
}

const struct provider_model *provider_config_find(const struct provider_list *list, const char *name,
                                                  const struct provider **provider)
{
    const char *slash = strchr(name, '/');
    for (size_t i = 0; slash && i < list->n; i++) {
        const struct provider *candidate = &list->providers[i];
        if (strlen(candidate->name) != (size_t)(slash - name) ||
            strncmp(candidate->name, name, (size_t)(slash - name)) != 0)
            continue;
        for (size_t j = 0; j < candidate->n_models; j++) {
            if (strcmp(candidate->models[j].name, slash + 1) == 0) {
                *provider = candidate;
                return &candidate->models[j];
            }
        }
    }
    return NULL;
}

bool provider_price_is_stale(const struct provider_model *model, int64_t now_s)
{
    bool is_free = model->price.input == 0 && model->price.output == 0 && model->price.request == 0;
    return !is_free && now_s - model->priced_s > (int64_t)PRICE_STALE_DAYS * SECONDS_PER_DAY;
}
