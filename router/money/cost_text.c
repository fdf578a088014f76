#include <jansson.h>
#include <stdio.h>
#include <string.h>
#include "base/assert.h"
#include "router/money/cost_report.h"
#include "router/providers/json_text.h"

/* ---- For people ---- */

/* The first ones are names, and stand to the left. */
enum { COLUMNS = 9, NAME_COLUMNS = 3, CELL_BYTES = 320 };

/* A line of the table as texts. */
struct cells {
    char text[COLUMNS][CELL_BYTES];
};

/* To the hundredth of a cent, which is what a reader compares; "~" where estimates are in it. */
static void write_amount(char out[CELL_BYTES], nanodollars amount, bool is_estimate)
{
    int64_t parts = amount / 100000 + (amount % 100000 >= 50000); /* 1/10,000 $ */
    snprintf(out, CELL_BYTES, "%s$%lld.%04lld", is_estimate ? "~" : "", (long long)(parts / 10000),
             (long long)(parts % 10000));
}

static void write_saved(char out[CELL_BYTES], nanodollars frontier, nanodollars cost, bool is_estimate)
{
    nanodollars saved = frontier - cost;
    char amount[CELL_BYTES];
    write_amount(amount, saved < 0 ? -saved : saved, false);
    snprintf(out, CELL_BYTES, "%s%s%.40s", is_estimate ? "~" : "", saved < 0 ? "-" : "", amount);
}

static void write_sums(struct cells *cells, const struct cost_sum *sum, bool has_frontier)
{
    bool is_estimate = sum->n_unknown > 0, is_partial = sum->n_uncounted > 0;
    snprintf(cells->text[3], CELL_BYTES, "%llu", (unsigned long long)sum->n_calls);
    snprintf(cells->text[4], CELL_BYTES, "%llu", (unsigned long long)sum->input_tokens);
    snprintf(cells->text[5], CELL_BYTES, "%llu", (unsigned long long)sum->output_tokens);
    write_amount(cells->text[6], sum->cost, is_estimate);
    if (!has_frontier)
        return;
    write_amount(cells->text[7], sum->frontier, is_estimate || is_partial);
    write_saved(cells->text[8], sum->frontier, sum->cost, is_estimate || is_partial);
}

static const struct cells HEAD = {
    {"day", "tenant", "answered by", "calls", "input", "output", "cost", "frontier alone", "saved"}};

static void write_line(const struct cost_report *report, size_t index, struct cells *cells)
{
    *cells = (struct cells){0};
    const struct cost_sum *sum = &report->total;
    snprintf(cells->text[0], CELL_BYTES, "total");
    if (index < report->n_lines) {
        const struct cost_line *line = &report->lines[index];
        sum = &line->sum;
        snprintf(cells->text[0], CELL_BYTES, "%s", line->day);
        snprintf(cells->text[1], CELL_BYTES, "%.256s", line->tenant[0] ? line->tenant : "-");
        snprintf(cells->text[2], CELL_BYTES, "%.150s/%.150s", line->provider, line->model);
    }
    write_sums(cells, sum, report->options.has_frontier);
}

/* Without the blanks that the last cells leave. */
static bool end_line(struct buffer *out)
{
    while (out->data[out->size - 1] == ' ')
        out->data[--out->size] = '\0';
    return buffer_append_text(out, "\n");
}

static bool append_cells(struct buffer *out, const struct cells *cells, const int widths[COLUMNS], int n)
{
    bool fits = true;
    for (int i = 0; i < n; i++)
        fits = fits &&
               buffer_append_format(out, i < NAME_COLUMNS ? "%-*s  " : "%*s  ", widths[i], cells->text[i]);
    return fits && end_line(out);
}

static bool append_lines(const struct cost_report *report, struct buffer *out)
{
    int widths[COLUMNS], n = report->options.has_frontier ? COLUMNS : COLUMNS - 2;
    struct cells cells;
    for (int i = 0; i < n; i++)
        widths[i] = (int)strlen(HEAD.text[i]);
    for (size_t index = 0; index <= report->n_lines; index++) {
        write_line(report, index, &cells);
        for (int i = 0; i < n; i++)
            widths[i] = (int)strlen(cells.text[i]) > widths[i] ? (int)strlen(cells.text[i]) : widths[i];
    }
    bool fits = append_cells(out, &HEAD, widths, n);
    for (size_t index = 0; fits && index <= report->n_lines; index++) {
        write_line(report, index, &cells);
        fits = append_cells(out, &cells, widths, n);
    }
    return fits;
}

static bool append_volumes(const struct cost_report *report, struct buffer *out)
{
    const struct cost_sum *total = &report->total;
    bool has_frontier = report->options.has_frontier, is_estimate = total->n_unknown > 0,
         is_partial = is_estimate || total->n_uncounted > 0;
    bool fits =
        buffer_append_format(out, "\nA day of as many calls of this mix:\n%12s%18s%18s%18s", "calls", "cost",
                             has_frontier ? "frontier alone" : "", has_frontier ? "saved" : "") &&
        end_line(out);
    for (int i = 0; fits && i < COST_VOLUMES; i++) {
        char cost[CELL_BYTES], frontier[CELL_BYTES] = "", saved[CELL_BYTES] = "";
        nanodollars here = cost_of_volume(total, total->cost, COST_VOLUMES_A_DAY[i]),
                    there = cost_of_volume(total, total->frontier, COST_VOLUMES_A_DAY[i]);
        write_amount(cost, here, is_estimate);
        if (has_frontier) {
            write_amount(frontier, there, is_partial);
            write_saved(saved, there, here, is_partial);
        }
        fits = buffer_append_format(out, "%12llu%18s%18s%18s", (unsigned long long)COST_VOLUMES_A_DAY[i],
                                    cost, frontier, saved) &&
               end_line(out);
    }
    return fits;
}

static bool append_kept_from(const struct cost_report *report, struct buffer *out)
{
    return report->kept_from[0] == '\0' ||
           buffer_append_format(out, "Calls before %s are deleted (ledger.keep).\n", report->kept_from);
}

static bool append_notes(const struct cost_report *report, struct buffer *out)
{
    const struct cost_sum *total = &report->total;
    bool fits = buffer_append_text(out, "\n");
    if (total->n_unknown > 0)
        fits = fits &&
               buffer_append_format(out, "~ has estimates in it: of %llu calls nobody has told the cost.\n",
                                    (unsigned long long)total->n_unknown);
    if (total->n_uncounted > 0 && report->options.has_frontier)
        fits =
            fits &&
            buffer_append_format(
                out, "Of %llu calls nobody has told the tokens: the frontier alone would have cost more.\n",
                (unsigned long long)total->n_uncounted);
    if (report->options.engine_per_day > 0) {
        char amount[CELL_BYTES];
        write_amount(amount, report->options.engine_per_day, false);
        fits = fits && buffer_append_format(
                           out,
                           "Local calls are charged for the time that they took; engines that run all "
                           "day cost %s a day in any case.\n",
                           amount);
    }
    fits = fits && append_kept_from(report, out);
    if (!report->options.has_frontier)
        fits = fits && buffer_append_text(out, "Nothing is compared: give --config or --frontier-price.\n");
    return fits;
}

static err_t conclude(const struct buffer *out, bool fits)
{
    return fits ? err_ok()
                : err_new(ERR_RESOURCE_EXHAUSTED, "a report of more than %zu bytes, or no memory for it",
                          out->limit_bytes);
}

err_t cost_report_table(const struct cost_report *report, struct buffer *out)
{
    if (report->n_lines == 0)
        return conclude(out, buffer_append_text(out, "There is no call in these days.\n") &&
                                 append_kept_from(report, out));
    return conclude(out,
                    append_lines(report, out) && append_volumes(report, out) && append_notes(report, out));
}

/* ---- For programs ---- */

static json_t *json_of_sum(const struct cost_report *report, const struct cost_sum *sum)
{
    json_t *object =
        json_pack("{s:I,s:I,s:I,s:I,s:I,s:I}", "calls", (json_int_t)sum->n_calls, "calls_with_estimated_cost",
                  (json_int_t)sum->n_unknown, "calls_with_unknown_tokens", (json_int_t)sum->n_uncounted,
                  "input_tokens", (json_int_t)sum->input_tokens, "output_tokens",
                  (json_int_t)sum->output_tokens, "cost_nanodollars", (json_int_t)sum->cost);
    if (object && report->options.has_frontier) {
        json_object_set_new(object, "frontier_nanodollars", json_integer(sum->frontier));
        json_object_set_new(object, "saved_nanodollars", json_integer(sum->frontier - sum->cost));
    }
    return object;
}

static json_t *json_of_line(const struct cost_report *report, const struct cost_line *line)
{
    json_t *object = json_of_sum(report, &line->sum);
    json_object_set_new(object, "day", json_string(line->day));
    json_object_set_new(object, "tenant", json_string(line->tenant));
    json_object_set_new(object, "provider", json_string(line->provider));
    json_object_set_new(object, "model", json_string(line->model));
    return object;
}

static json_t *json_of_volume(const struct cost_report *report, uint64_t calls)
{
    const struct cost_sum *total = &report->total;
    nanodollars here = cost_of_volume(total, total->cost, calls),
                there = cost_of_volume(total, total->frontier, calls);
    json_t *object =
        json_pack("{s:I,s:I}", "calls_per_day", (json_int_t)calls, "cost_nanodollars", (json_int_t)here);
    if (object && report->options.has_frontier) {
        json_object_set_new(object, "frontier_nanodollars", json_integer(there));
        json_object_set_new(object, "saved_nanodollars", json_integer(there - here));
    }
    return object;
}

err_t cost_report_json(const struct cost_report *report, struct buffer *out)
{
    json_t *lines = json_array(), *volumes = json_array();
    for (size_t i = 0; i < report->n_lines; i++)
        json_array_append_new(lines, json_of_line(report, &report->lines[i]));
    for (int i = 0; i < COST_VOLUMES; i++)
        json_array_append_new(volumes, json_of_volume(report, COST_VOLUMES_A_DAY[i]));
    bool is_whole = json_array_size(lines) == report->n_lines && json_array_size(volumes) == COST_VOLUMES;
    json_t *all = json_pack("{s:o,s:o,s:o}", "lines", lines, "total", json_of_sum(report, &report->total),
                            "projection", volumes);
    if (all && report->options.engine_per_day > 0)
        json_object_set_new(all, "engines_nanodollars_per_day", json_integer(report->options.engine_per_day));
    if (all && report->kept_from[0] != '\0')
        json_object_set_new(all, "kept_from", json_string(report->kept_from));
    err_t e = all && is_whole ? json_text_append(out, all)
                              : err_new(ERR_RESOURCE_EXHAUSTED, "no memory for a report");
    json_decref(all);
    return e.code == ERR_OK ? conclude(out, buffer_append_text(out, "\n")) : e;
}
