/* A configuration in a few lines, for whoever starts a router or checks a file. */
#include "router/config/route_config.h"

#include <inttypes.h>
#include <stdio.h>
#include <time.h>

static const char *const CACHE_NAMES[] = {"off", "memory", "sqlite", "redis"};

static bool describe_local(const struct route_config *config, struct buffer *out)
{
    bool fits = true;
    for (size_t i = 0; i < config->n_local; i++) {
        const struct local_model_options *model = &config->local[i];
        fits = fits && buffer_append_format(out, "local     local/%s:", model->name);
        for (size_t j = 0; j < model->n_targets; j++)
            fits = fits && buffer_append_format(out, " %s", model->targets[j]);
        fits = fits && buffer_append_text(out, "\n");
    }
    return fits;
}

static bool describe_price(const struct provider_model *model, struct buffer *out)
{
    char input[MONEY_TEXT_BYTES], output[MONEY_TEXT_BYTES];
    money_format(model->price.input, input);
    money_format(model->price.output, output);
    return buffer_append_format(out, "          %s: %s in, %s out a million tokens\n", model->name, input,
                                output);
}

static bool describe_providers(const struct route_config *config, struct buffer *out)
{
    bool fits = true;
    for (size_t i = 0; i < config->providers.n; i++) {
        const struct provider *provider = &config->providers.providers[i];
        fits = fits && buffer_append_format(out, "provider  %s at %s, %s a key\n", provider->name,
                                            provider->url, provider->key ? "with" : "without");
        for (size_t j = 0; j < provider->n_models; j++)
            fits = fits && describe_price(&provider->models[j], out);
    }
    return fits;
}

static bool describe_tiers(const struct route_config *config, struct buffer *out)
{
    size_t n;
    bool fits = true;
    const struct policy_tier *tiers = policy_tiers(config->policy, &n);
    for (size_t i = 0; i < n; i++) {
        fits = fits && buffer_append_format(out, "tier      %s:", tiers[i].name);
        for (size_t j = 0; j < tiers[i].n_models; j++)
            fits = fits && buffer_append_format(out, "%s %s", j > 0 ? ", then" : "", tiers[i].models[j]);
        fits = fits && buffer_append_text(out, "\n");
    }
    return fits;
}

static bool describe_hedge_money(const struct hedge_config *hedge, struct buffer *out)
{
    char most[MONEY_TEXT_BYTES], day[MONEY_TEXT_BYTES];
    money_format(hedge->max_cost, most);
    money_format(hedge->per_day, day);
    return (hedge->max_cost == 0 || buffer_append_format(out, "          each of at most %s\n", most)) &&
           (hedge->per_day == 0 || buffer_append_format(out, "          all of a day of at most %s\n", day));
}

static bool describe_steps(const struct route_config *config, struct buffer *out)
{
    size_t n;
    const struct policy_tier *tiers = policy_tiers(config->policy, &n);
    const struct cascade_config *cascade = &config->cascade;
    const struct hedge_config *hedge = &config->hedge;
    const struct classifier_config *classifier = &config->classifier;
    bool fits = true;
    if (classifier->model)
        fits = buffer_append_format(out, "classify  by %s into %zu labels, within %" PRId64 " ms\n",
                                    classifier->model, classifier->n_labels, classifier->timeout_ms);
    if (cascade->is_set)
        fits = fits && buffer_append_format(
                           out, "cascade   from %s to %s over %g, on %u tokens within %" PRId64 " ms, %s\n",
                           tiers[cascade->tier].name, tiers[cascade->to].name, cascade->escalate_over,
                           cascade->hold_tokens, cascade->hold_ms,
                           cascade->calibration ? cascade->calibration : "not calibrated");
    if (hedge->is_set && hedge->after_ms > 0)
        fits = fits && buffer_append_format(
                           out, "hedge     from %s to %s after %" PRId64 " ms, at most %g of requests\n",
                           tiers[hedge->tier].name, tiers[hedge->to].name, hedge->after_ms, hedge->max_share);
    else if (hedge->is_set)
        fits = fits &&
               buffer_append_format(out, "hedge     from %s to %s after the p95, at most %g of requests\n",
                                    tiers[hedge->tier].name, tiers[hedge->to].name, hedge->max_share);
    return fits && describe_hedge_money(hedge, out);
}

static bool describe_gate(const struct rollout_options *gate, struct buffer *out)
{
    if (!gate->is_set)
        return buffer_append_text(out, "gate      off: the policy is followed untested\n");
    if (gate->is_default)
        return buffer_append_text(out, "gate      observe: the configuration has none\n");
    if (gate->stage <= gate->from)
        return buffer_append_format(out, "gate      %s\n", ROLLOUT_STAGE_NAMES[gate->stage]);
    return buffer_append_format(out, "gate      %s, step by step from %s\n", ROLLOUT_STAGE_NAMES[gate->stage],
                                ROLLOUT_STAGE_NAMES[gate->from]);
}

static bool describe_books(const struct route_config *config, struct buffer *out)
{
    const struct cache_config *cache = &config->cache;
    const char *place = cache->path ? cache->path : cache->address ? cache->address : "";
    char kept[32] = "";
    if (config->ledger_keep_days > 0)
        (void)snprintf(kept, sizeof kept, " for %d days", (int)config->ledger_keep_days);
    return buffer_append_format(out, "cache     %s%s%s\n", CACHE_NAMES[cache->kind], place[0] ? " at " : "",
                                place) &&
           buffer_append_format(out, "ledger    %s%s, %zu budgets\n",
                                config->ledger_path ? config->ledger_path : "in memory", kept,
                                config->n_budgets) &&
           buffer_append_format(out, "log       %s%s\n", config->log.path ? config->log.path : "off",
                                config->log.path && config->log.content ? ", with content" : "") &&
           describe_gate(&config->gate, out);
}

bool route_config_describe(const struct route_config *config, struct buffer *out)
{
    return buffer_append_format(out, "policy    %s\n", config->policy_id) && describe_tiers(config, out) &&
           describe_local(config, out) && describe_providers(config, out) && describe_steps(config, out) &&
           describe_books(config, out);
}

/* Decimal numbers, exactly; -1 is none. */
static bool append_amount(struct buffer *out, const char *name, nanodollars amount)
{
    if (amount < 0)
        return true;
    return buffer_append_format(out, ",\"%s\":%lld.%09lld", name,
                                (long long)(amount / NANODOLLARS_PER_DOLLAR),
                                (long long)(amount % NANODOLLARS_PER_DOLLAR));
}

static bool append_day(struct buffer *out, int64_t priced_s)
{
    char day[16];
    struct tm date;
    time_t seconds = (time_t)priced_s;
    if (priced_s == 0 || strftime(day, sizeof day, "%Y-%m-%d", gmtime_r(&seconds, &date)) == 0)
        return true;
    return buffer_append_format(out, ",\"as_of\":\"%s\"", day);
}

static bool append_price(const struct provider *provider, const struct provider_model *model, bool is_first,
                         struct buffer *out)
{
    char name[512];
    int length = snprintf(name, sizeof name, "%s/%s", provider->name, model->name);
    size_t name_bytes = length < (int)sizeof name ? (size_t)length : sizeof name - 1;
    const struct price *price = &model->price;
    return buffer_append_text(out, is_first ? "{\"model\":" : ",{\"model\":") &&
           buffer_append_json_string(out, name, name_bytes) &&
           append_amount(out, "input_usd", price->input) &&
           append_amount(out, "cached_input_usd", price->cached_input) &&
           append_amount(out, "cache_write_usd", price->cache_write) &&
           append_amount(out, "output_usd", price->output) &&
           append_amount(out, "request_usd", price->request) && append_day(out, model->priced_s) &&
           buffer_append_text(out, "}");
}

bool route_config_prices(const struct route_config *config, struct buffer *out)
{
    bool fits = buffer_append_text(out, "{\"models\":["), is_first = true;
    for (size_t i = 0; i < config->providers.n; i++) {
        const struct provider *provider = &config->providers.providers[i];
        for (size_t j = 0; j < provider->n_models && fits; j++) {
            fits = append_price(provider, &provider->models[j], is_first, out);
            is_first = false;
        }
    }
    return fits && buffer_append_text(out, "]}");
}
