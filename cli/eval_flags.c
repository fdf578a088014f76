#include "cli/eval_flags.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

size_t eval_flags_fill(struct eval_flag_values *v, struct flag *flags)
{
    const struct flag rows[] = {
        {.name = "model",
         .kind = FLAG_LIST,
         .target = &v->models,
         .metavar = "NAME=TARGET",
         .help = "a model and where it is: HOST:PORT (an engine or router, gRPC), https://HOST/v1#MODEL "
                 "(OpenAI-compatible), anthropic:https://HOST/v1#MODEL, config:PROVIDER/MODEL or "
                 "config:local/MODEL "
                 "(of --policy), or recorded (the answers in the file)"},
        {.name = "price",
         .kind = FLAG_LIST,
         .target = &v->prices,
         .metavar = "NAME=INPUT,OUTPUT[,CACHED]",
         .help =
             "dollars for a million tokens of a model; NAME=DOLLARS/h: for an hour of an engine, which costs "
             "nothing otherwise"},
        {.name = "key-env",
         .kind = FLAG_LIST,
         .target = &v->key_envs,
         .metavar = "NAME=VARIABLE",
         .help = "the environment variable that has a model's key"},
        {.name = "policy",
         .kind = FLAG_STRING,
         .target = &v->policy,
         .metavar = "CONFIG",
         .help = "a router's configuration, whose decisions are measured as well"},
        {.name = "judge",
         .kind = FLAG_STRING,
         .target = &v->judge,
         .metavar = "NAME=TARGET",
         .help = "a model that judges answers which nothing else can be held against"},
        {.name = "concurrency",
         .kind = FLAG_INT,
         .target = &v->concurrency,
         .default_text = "8",
         .min = 1,
         .max = EVAL_CONCURRENCY_MAX,
         .help = "requests at once, to one model after the other"},
        {.name = "request-timeout",
         .kind = FLAG_DOUBLE,
         .target = &v->timeout_s,
         .default_text = "120",
         .min = 0.01,
         .max = 86400,
         .metavar = "SECONDS",
         .help = "deadline of each request"},
        {.name = "margin",
         .kind = FLAG_DOUBLE,
         .target = &v->margin,
         .default_text = "0.03",
         .max = 1,
         .help = "how much worse is no worse, as a share of a whole score"},
        {.name = "seed",
         .kind = FLAG_INT,
         .target = &v->seed,
         .default_text = "1",
         .help = "of the bootstrap's draws"},
        {.name = "progress",
         .kind = FLAG_BOOL,
         .target = &v->progress,
         .default_text = "true",
         .help = "a bar on the terminal"},
    };
    memcpy(flags, rows, sizeof rows);
    return sizeof rows / sizeof *rows;
}

err_t eval_flags_read_config(struct eval_flag_values *values)
{
    return values->policy ? route_config_read(values->policy, getenv, &values->config) : err_ok();
}

void eval_flags_free(struct eval_flag_values *values)
{
    route_config_free(values->config);
    values->config = NULL;
}

err_t eval_flags_cut(const char *flag, const char *text, size_t *name_bytes, const char **target)
{
    const char *equals = strchr(text, '=');
    if (equals == NULL || equals == text || equals[1] == '\0' || equals - text > EVAL_NAME_BYTES_MAX)
        return err_new(ERR_INVALID_ARGUMENT, "--%s %.200s must be NAME=%s, the name of 1 to %d bytes", flag,
                       text,
                       strcmp(flag, "key-env") == 0 ? "VARIABLE"
                       : strcmp(flag, "price") == 0 ? "INPUT,OUTPUT"
                                                    : "TARGET",
                       EVAL_NAME_BYTES_MAX);
    *name_bytes = (size_t)(equals - text);
    *target = equals + 1;
    return err_ok();
}

/* The value that a list of NAME=VALUE has for a name; NULL = none. */
static err_t find_value(const char *flag, const struct flag_list *list, const char *name, const char **out)
{
    *out = NULL;
    for (size_t i = 0; i < list->count; i++) {
        size_t bytes;
        const char *value;
        TRY(eval_flags_cut(flag, list->item[i], &bytes, &value));
        if (bytes == strlen(name) && memcmp(list->item[i], name, bytes) == 0)
            *out = value;
    }
    return err_ok();
}

/* "1.25,10" or "1.25,10,0.125" */
static err_t read_price(const char *name, const char *text, struct price *out)
{
    char parts[3][MONEY_TEXT_BYTES] = {"", "", ""};
    size_t n = 0;
    for (const char *at = text; n < 3; n++) {
        size_t bytes = strcspn(at, ",");
        if (bytes >= MONEY_TEXT_BYTES)
            break;
        memcpy(parts[n], at, bytes);
        at += bytes;
        if (*at++ == '\0') {
            n++;
            *out = (struct price){.cached_input = -1, .cache_write = -1};
            err_t e = money_parse(parts[0], &out->input);
            if (e.code == ERR_OK)
                e = money_parse(n > 1 ? parts[1] : "", &out->output);
            if (e.code == ERR_OK && n > 2)
                e = money_parse(parts[2], &out->cached_input);
            return e.code == ERR_OK ? e : err_prefix(e, "--price %.60s", name);
        }
    }
    return err_new(ERR_INVALID_ARGUMENT, "--price %.60s=%.60s must be INPUT,OUTPUT or INPUT,OUTPUT,CACHED",
                   name, text);
}

static bool is_hourly(const char *text)
{
    size_t bytes = strlen(text);
    return bytes > 2 && strcmp(text + bytes - 2, "/h") == 0;
}

/* "0.40/h" */
static err_t read_hourly(const char *name, const char *text, nanodollars *out)
{
    char amount[MONEY_TEXT_BYTES];
    size_t bytes = strlen(text) - 2;
    if (bytes >= sizeof amount)
        return err_new(ERR_INVALID_ARGUMENT, "--price %.60s=%.60s must be DOLLARS/h", name, text);
    memcpy(amount, text, bytes);
    amount[bytes] = '\0';
    err_t e = money_parse(amount, out);
    return e.code == ERR_OK ? e : err_prefix(e, "--price %.60s", name);
}

/* "openai/gpt-5", "local/demo": of the configuration. */
static err_t find_in_config(const struct eval_flag_values *values, const char *model,
                            struct eval_endpoint_options *options)
{
    const struct route_config *config = values->config;
    if (config == NULL)
        return err_new(ERR_INVALID_ARGUMENT, "config:%.60s needs --policy CONFIG", model);
    for (size_t i = 0; strncmp(model, "local/", 6) == 0 && i < config->n_local; i++) {
        if (strcmp(config->local[i].name, model + 6) == 0) {
            options->local = &config->local[i];
            return err_ok();
        }
    }
    options->model = provider_config_find(&config->providers, model, &options->provider);
    if (options->model == NULL)
        return err_new(ERR_INVALID_ARGUMENT, "%s has no model %.60s", values->policy, model);
    return err_ok();
}

err_t eval_flags_open(const struct eval_flag_values *values, const char *flag, const char *text,
                      char name[EVAL_NAME_BYTES_MAX + 1], struct eval_endpoint **out)
{
    size_t bytes;
    const char *target, *variable, *price_text;
    struct price price;
    *out = NULL;
    TRY(eval_flags_cut(flag, text, &bytes, &target));
    memcpy(name, text, bytes);
    name[bytes] = '\0';
    if (strcmp(target, "recorded") == 0)
        return err_ok();
    TRY(find_value("key-env", &values->key_envs, name, &variable));
    TRY(find_value("price", &values->prices, name, &price_text));
    struct eval_endpoint_options options = {.name = name,
                                            .target = target,
                                            .timeout_ms = (int64_t)(values->timeout_s * 1e3),
                                            .stop = values->stop};
    if (variable != NULL && (options.key = getenv(variable)) == NULL)
        return err_new(ERR_INVALID_ARGUMENT, "--key-env %s: the environment has no %.60s", name, variable);
    if (price_text != NULL && is_hourly(price_text)) {
        TRY(read_hourly(name, price_text, &options.nanodollars_per_hour));
    } else if (price_text != NULL) {
        TRY(read_price(name, price_text, &price));
        options.price = &price;
    }
    if (strncmp(target, "config:", 7) == 0) {
        options.target = NULL;
        TRY(find_in_config(values, target + 7, &options));
    }
    return eval_endpoint_open(&options, out);
}

err_t eval_flags_write(const char *path, const struct buffer *bytes)
{
    FILE *file = fopen(path, "w");
    if (file == NULL)
        return err_new(ERR_IO, "%s: %s", path, strerror(errno));
    size_t written = fwrite(bytes->data, 1, bytes->size, file);
    bool is_closed = fclose(file) == 0;
    return written == bytes->size && is_closed ? err_ok() : err_new(ERR_IO, "%s: %s", path, strerror(errno));
}
