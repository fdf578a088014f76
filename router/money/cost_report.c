#include "router/money/cost_report.h"

#include <string.h>
#include "base/alloc.h"
#include "base/assert.h"

const uint64_t COST_VOLUMES_A_DAY[COST_VOLUMES] = {10000, 100000, 1000000, 10000000};

static nanodollars frontier_cost(const struct cost_options *options, const struct ledger_line *line)
{
    bool is_its_own = options->frontier_provider && strcmp(options->frontier_provider, line->provider) == 0 &&
                      strcmp(options->frontier_model, line->model) == 0;
    if (!options->has_frontier || is_its_own)
        return options->has_frontier ? line->cost : 0;
    struct answer_usage usage = {(int64_t)line->input_tokens, -1, -1, (int64_t)line->output_tokens, -1};
    nanodollars cost;
    if (!price_cost(&options->frontier, &usage, &cost))
        return 0;
    uint64_t n_more = line->n_calls - line->n_uncounted;
    nanodollars requests;
    if (options->frontier.request <= 0 || n_more < 2)
        return cost;
    if (__builtin_mul_overflow(options->frontier.request, (nanodollars)(n_more - 1), &requests) ||
        requests > MONEY_MAX)
        return MONEY_MAX;
    return money_add(cost, requests); /* price_cost has counted one */
}

static void add(struct cost_sum *sum, const struct cost_sum *more)
{
    sum->n_calls += more->n_calls;
    sum->n_unknown += more->n_unknown;
    sum->n_uncounted += more->n_uncounted;
    sum->input_tokens += more->input_tokens;
    sum->output_tokens += more->output_tokens;
    sum->cost = money_add(sum->cost, more->cost);
    sum->frontier = money_add(sum->frontier, more->frontier);
}

static bool make_room(struct cost_report *report)
{
    if (report->n_lines < report->n_room)
        return true;
    size_t n = report->n_room > 0 ? report->n_room * 2 : 64;
    struct cost_line *lines = mem_realloc(report->lines, n * sizeof *lines);
    if (lines == NULL)
        return false;
    report->lines = lines;
    report->n_room = n;
    return true;
}

void cost_report_line(void *context, const struct ledger_line *line)
{
    struct cost_report *report = context;
    if (report->e.code != ERR_OK ||
        (report->options.tenant && strcmp(report->options.tenant, line->tenant) != 0))
        return;
    if (report->n_lines == COST_LINES_MAX) {
        report->e = err_new(ERR_RESOURCE_EXHAUSTED, "more than %d lines: name fewer days or a tenant",
                            COST_LINES_MAX);
        return;
    }
    if (!make_room(report)) {
        report->e = err_new(ERR_RESOURCE_EXHAUSTED, "no memory for a report");
        return;
    }
    struct cost_line *out = &report->lines[report->n_lines++];
    *out = (struct cost_line){.day = mem_strdup(line->day),
                              .tenant = mem_strdup(line->tenant),
                              .provider = mem_strdup(line->provider),
                              .model = mem_strdup(line->model),
                              .sum = {.n_calls = line->n_calls,
                                      .n_unknown = line->n_unknown,
                                      .n_uncounted = line->n_uncounted,
                                      .input_tokens = line->input_tokens,
                                      .output_tokens = line->output_tokens,
                                      .cost = line->cost,
                                      .frontier = frontier_cost(&report->options, line)}};
    if (!out->day || !out->tenant || !out->provider || !out->model)
        report->e = err_new(ERR_RESOURCE_EXHAUSTED, "no memory for a report");
    add(&report->total, &out->sum);
}

void cost_report_free(struct cost_report *report)
{
    for (size_t i = 0; i < report->n_lines; i++) {
        mem_free(report->lines[i].day);
        mem_free(report->lines[i].tenant);
        mem_free(report->lines[i].provider);
        mem_free(report->lines[i].model);
    }
    mem_free(report->lines);
}

nanodollars cost_of_volume(const struct cost_sum *sum, nanodollars amount, uint64_t calls)
{
    if (sum->n_calls == 0)
        return 0;
    __extension__ typedef unsigned __int128 wide;
    wide of_all = (wide)amount * calls / sum->n_calls;
    return of_all > MONEY_MAX ? MONEY_MAX : (nanodollars)of_all;
}
