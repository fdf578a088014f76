/* bantam cost: what a router's calls have cost, by day, tenant and model. */
#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include "cli/commands.h"
#include "router/config/route_config.h"
#include "router/money/cost_report.h"

enum { REPORT_BYTES_MAX = 64 << 20, PRICE_BYTES_MAX = 64 };

struct cost_arguments {
    const char *from, *to, *tenant, *frontier_price, *config;
    bool json;
};

static err_t check_day(const char *flag, const char *day)
{
    static const char FORM[] = "dddd-dd-dd";
    bool is_good = day == NULL || strlen(day) == sizeof FORM - 1;
    for (size_t i = 0; is_good && day && FORM[i] != '\0'; i++)
        is_good = FORM[i] == 'd' ? isdigit((unsigned char)day[i]) : day[i] == '-';
    return is_good ? err_ok()
                   : err_new(ERR_INVALID_ARGUMENT, "--%s \"%.40s\" must be a day like 2026-11-27", flag, day);
}

/* "1.25/10": dollars for a million tokens read and written. */
static err_t read_price(const char *text, struct price *out)
{
    char input[PRICE_BYTES_MAX];
    const char *slash = strchr(text, '/');
    if (slash == NULL || (size_t)(slash - text) >= sizeof input)
        return err_new(
            ERR_INVALID_ARGUMENT,
            "--frontier-price \"%.60s\" must be IN/OUT: dollars for a million tokens, like 1.25/10", text);
    memcpy(input, text, (size_t)(slash - text));
    input[slash - text] = '\0';
    *out = (struct price){.cached_input = -1, .cache_write = -1};
    err_t e = money_parse(input, &out->input);
    if (e.code == ERR_OK)
        e = money_parse(slash + 1, &out->output);
    return e.code == ERR_OK ? e : err_prefix(e, "--frontier-price");
}

/* The first model of the first tier that is not local. */
static err_t find_frontier(const struct route_config *config, struct cost_options *out)
{
    size_t n;
    const struct policy_tier *tiers = policy_tiers(config->policy, &n);
    for (size_t i = 0; i < n; i++) {
        for (size_t j = 0; j < tiers[i].n_models; j++) {
            const struct provider *provider;
            const struct provider_model *model =
                provider_config_find(&config->providers, tiers[i].models[j], &provider);
            if (model == NULL)
                continue;
            out->frontier_provider = provider->name;
            out->frontier_model = model->name;
            out->frontier = model->price;
            out->has_frontier = true;
            return err_ok();
        }
    }
    return err_new(ERR_INVALID_ARGUMENT,
                   "no tier of the configuration has a provider's model: what the frontier "
                   "would have cost is not known; give --frontier-price");
}

static void add_engines(const struct route_config *config, struct cost_options *out)
{
    for (size_t i = 0; i < config->n_local; i++)
        out->engine_per_day +=
            config->local[i].nanodollars_per_hour * 24 * (int64_t)config->local[i].n_targets;
}

/* *config owns the names in *out. */
static err_t read_frontier(const struct cost_arguments *arguments, struct route_config **config,
                           struct cost_options *out)
{
    if (arguments->config) {
        TRY(route_config_read(arguments->config, route_environment_without_keys, config));
        add_engines(*config, out);
        if (arguments->frontier_price == NULL)
            return find_frontier(*config, out);
    }
    if (arguments->frontier_price == NULL)
        return err_ok();
    out->has_frontier = true;
    return read_price(arguments->frontier_price, &out->frontier);
}

static int64_t unix_ms(void *clock)
{
    (void)clock;
    return (int64_t)time(NULL) * 1000;
}

static err_t gather(const char *path, const struct cost_arguments *arguments, struct cost_report *report)
{
    struct ledger *ledger;
    struct ledger_options options = {.path = path, .unix_ms = unix_ms, .read_only = true};
    TRY(ledger_open(&options, NULL, &ledger));
    err_t e = ledger_report(ledger, arguments->from, arguments->to, cost_report_line, report);
    if (e.code == ERR_OK)
        e = ledger_kept_from(ledger, report->kept_from);
    ledger_close(ledger);
    return e.code == ERR_OK ? report->e : e;
}

static err_t print_costs(const char *path, const struct cost_arguments *arguments)
{
    struct cost_report report = {.options = {.tenant = arguments->tenant}, .e = err_ok()};
    struct route_config *config = NULL;
    struct buffer text = {.limit_bytes = REPORT_BYTES_MAX};
    err_t e;
    TRY_GOTO(e, check_day("from", arguments->from), out);
    TRY_GOTO(e, check_day("to", arguments->to), out);
    TRY_GOTO(e, read_frontier(arguments, &config, &report.options), out);
    TRY_GOTO(e, gather(path, arguments, &report), out);
    TRY_GOTO(e, arguments->json ? cost_report_json(&report, &text) : cost_report_table(&report, &text), out);
    (void)fwrite(text.data, 1, text.size, stdout);
out:
    buffer_free(&text);
    cost_report_free(&report);
    route_config_free(config);
    return e;
}

int command_cost(int argc, char *argv[])
{
    struct cost_arguments v = {0};
    const struct flag flags[] = {
        {.name = "from",
         .kind = FLAG_STRING,
         .target = &v.from,
         .metavar = "DAY",
         .help = "first day, like 2026-11-01 (UTC)"},
        {.name = "to", .kind = FLAG_STRING, .target = &v.to, .metavar = "DAY", .help = "last day"},
        {.name = "tenant",
         .kind = FLAG_STRING,
         .target = &v.tenant,
         .metavar = "NAME",
         .help = "only of this tenant"},
        {.name = "frontier-price",
         .kind = FLAG_STRING,
         .target = &v.frontier_price,
         .metavar = "IN/OUT",
         .help = "what the frontier would have cost: dollars for a million tokens read and written, like "
                 "1.25/10"},
        {.name = "config",
         .kind = FLAG_STRING,
         .target = &v.config,
         .metavar = "CONFIG",
         .help = "the router's configuration, whose first model of a provider is the frontier compared with"},
        {.name = "json",
         .kind = FLAG_BOOL,
         .target = &v.json,
         .default_text = "false",
         .help = "for programs: amounts are whole nano-dollars"},
    };
    const struct flag_command command = {
        .name = "bantam cost",
        .summary = "Prints what a router's calls have cost, by day, tenant and model, what the frontier "
                   "alone would have "
                   "cost, and what 10 thousand to 10 million calls a day of the same mix would. The ledger "
                   "may be one "
                   "that a router writes at the same time.",
        .positionals = "LEDGER",
        .min_positionals = 1,
        .max_positionals = 1,
        .flags = flags,
        .n_flags = sizeof flags / sizeof *flags,
        .examples = "  bantam cost ledger.db --config route.yaml\n"
                    "  bantam cost ledger.db --from 2026-11-01 --to 2026-11-30 --tenant hr --frontier-price "
                    "1.25/10\n",
    };
    struct flag_result arguments;
    int status;
    if (!parse_command(&command, argc, argv, &arguments, &status))
        return status;
    err_t e = print_costs(arguments.positional[0], &v);
    return e.code == ERR_OK ? 0 : report_error(command.name, &e);
}
