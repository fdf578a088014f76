/* Numbers and the table. */
#include "router/gate/eval_report.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "base/alloc.h"

static const double SOLVED = 1 - 1e-9;

static int by_value(const void *left, const void *right)
{
    double a = *(const double *)left, b = *(const double *)right;
    return (a > b) - (a < b);
}

static void quantiles(double *values, size_t n, int64_t *p50, int64_t *p95)
{
    qsort(values, n, sizeof *values, by_value);
    *p50 = n == 0 ? -1 : (int64_t)stat_quantile(values, n, 0.5);
    *p95 = n == 0 ? -1 : (int64_t)stat_quantile(values, n, 0.95);
}

err_t eval_summary_of(const struct eval_model *model, size_t n, struct eval_summary *out)
{
    *out = (struct eval_summary){.n = n, .n_failed = model->n_failed};
    double *first = mem_alloc_array(n, sizeof *first), *total = mem_alloc_array(n, sizeof *total);
    if (first == NULL || total == NULL) {
        mem_free(first);
        mem_free(total);
        return err_new(ERR_RESOURCE_EXHAUSTED, "no memory for a report");
    }
    size_t n_first = 0, n_total = 0;
    for (size_t i = 0; i < n; i++) {
        const struct eval_answer *answer = &model->answers[i];
        out->quality += model->scores[i];
        out->n_solved += model->scores[i] >= SOLVED;
        if (answer->text == NULL)
            continue;
        out->cost = out->cost < 0 || answer->cost < 0 ? -1 : money_add(out->cost, answer->cost);
        if (answer->first_token_us >= 0)
            first[n_first++] = (double)answer->first_token_us;
        if (answer->total_us >= 0)
            total[n_total++] = (double)answer->total_us;
    }
    out->quality /= (double)n;
    out->cost_per_solved = out->cost < 0 || out->n_solved == 0 ? -1 : out->cost / (nanodollars)out->n_solved;
    quantiles(first, n_first, &out->first_p50, &out->first_p95);
    quantiles(total, n_total, &out->total_p50, &out->total_p95);
    mem_free(first);
    mem_free(total);
    return err_ok();
}

static const char *percent(double value, char out[16])
{
    if (isnan(value))
        return "-";
    (void)snprintf(out, 16, "%.1f %%", 100 * value);
    return out;
}

static const char *share_text(double value, char out[16])
{
    if (isnan(value))
        return "-";
    (void)snprintf(out, 16, "%.3f", value);
    return out;
}

static const char *dollars(nanodollars cost, char out[MONEY_TEXT_BYTES])
{
    if (cost < 0)
        return "-";
    if (cost > 1000000)
        cost -= cost % 1000; /* a table has no room for billionths */
    money_format(cost, out);
    return out;
}

static const char *times(int64_t p50_us, int64_t p95_us, char out[32])
{
    if (p50_us < 0)
        return "-";
    (void)snprintf(out, 32, "%.1f / %.1f", (double)p50_us / 1000, (double)p95_us / 1000);
    return out;
}

static bool put_models(const struct eval_report *report, struct buffer *out, err_t *e)
{
    bool fits =
        buffer_append_format(out, "%-16s %8s %8s %7s %14s %14s %18s %20s\n", "model", "quality", "solved",
                             "failed", "cost", "a solved one", "first p50/p95 ms", "total p50/p95 ms");
    for (size_t m = 0; m < report->run->n_models && fits; m++) {
        const struct eval_model *model = &report->run->models[m];
        struct eval_summary sum;
        *e = eval_summary_of(model, report->run->cases->n, &sum);
        if (e->code != ERR_OK)
            return true;
        char quality[16], cost[MONEY_TEXT_BYTES], solved[MONEY_TEXT_BYTES], first[32], total[32];
        fits = buffer_append_format(
            out, "%-16.16s %8s %8zu %7zu %14s %14s %18s %20s\n", model->name, percent(sum.quality, quality),
            sum.n_solved, sum.n_failed, dollars(sum.cost, cost), dollars(sum.cost_per_solved, solved),
            times(sum.first_p50, sum.first_p95, first), times(sum.total_p50, sum.total_p95, total));
    }
    return fits;
}

/* Names of tasks in the order in which they come first; false: there are too many for a table, or none. */
static bool list_tasks(const struct eval_cases *cases, const char *tasks[EVAL_TASKS_MAX], size_t *n_tasks)
{
    *n_tasks = 0;
    for (size_t i = 0; i < cases->n; i++) {
        size_t t = 0;
        while (t < *n_tasks && strcmp(tasks[t], cases->cases[i].task) != 0)
            t++;
        if (t < *n_tasks)
            continue;
        if (*n_tasks == EVAL_TASKS_MAX)
            return false;
        tasks[(*n_tasks)++] = cases->cases[i].task;
    }
    return *n_tasks > 1;
}

static bool put_tasks(const struct eval_report *report, struct buffer *out)
{
    const char *tasks[EVAL_TASKS_MAX];
    size_t n_tasks;
    const struct eval_run *run = report->run;
    if (!list_tasks(run->cases, tasks, &n_tasks))
        return true;
    bool fits = buffer_append_format(out, "\n%-16s %8s", "task", "cases");
    for (size_t m = 0; m < run->n_models && fits; m++)
        fits = buffer_append_format(out, " %16.16s", run->models[m].name);
    for (size_t t = 0; t < n_tasks && fits; t++) {
        double sums[EVAL_MODELS_MAX] = {0};
        size_t n = 0;
        for (size_t i = 0; i < run->cases->n; i++) {
            bool is_of_it = strcmp(run->cases->cases[i].task, tasks[t]) == 0;
            n += is_of_it;
            for (size_t m = 0; is_of_it && m < run->n_models; m++)
                sums[m] += run->models[m].scores[i];
        }
        fits = buffer_append_format(out, "\n%-16.16s %8zu", tasks[t][0] ? tasks[t] : "(none)", n);
        char text[16];
        for (size_t m = 0; m < run->n_models && fits; m++)
            fits = buffer_append_format(out, " %16s", percent(sums[m] / (double)n, text));
    }
    return fits && buffer_append_text(out, "\n");
}

static bool put_curves(const struct eval_report *report, struct buffer *out)
{
    char apgr[16], cpt50[16], cpt80[16], share[16];
    bool fits = buffer_append_format(out, "\n%-16s %8s %8s %8s   %s\n", "router", "APGR", "CPT(50)",
                                     "CPT(80)", "strong calls for 95 % of the strong model's quality");
    for (size_t p = 0; p < report->policies->n && fits; p++) {
        const struct eval_policy *policy = &report->policies->policies[p];
        if (policy->has_curve)
            fits = buffer_append_format(
                out, "%-16.16s %8s %8s %8s   %s\n", policy->name, share_text(policy->curve.apgr, apgr),
                percent(policy->curve.cpt50, cpt50), percent(policy->curve.cpt80, cpt80),
                percent(policy->curve.share_for_95, share));
    }
    return fits;
}

static bool put_points(const struct eval_report *report, struct buffer *out)
{
    bool fits = buffer_append_format(out, "\n%-16s %7s %8s %8s %8s %12s %24s %26s  %s\n", "at one setting",
                                     "cases", "strong", "quality", "PGR", "cost", "false-cheap",
                                     "to all strong", "at the margin");
    for (size_t p = 0; p < report->policies->n && fits; p++) {
        const struct eval_policy *policy = &report->policies->policies[p];
        const struct eval_point *point = &policy->point;
        if (!policy->has_point)
            continue;
        char share[16], quality[16], pgr[16], cost[MONEY_TEXT_BYTES], cheap[64], difference[64];
        (void)snprintf(cheap, sizeof cheap, "%.1f %% [%.1f, %.1f]", 100 * point->false_cheap.value,
                       100 * point->false_cheap.low, 100 * point->false_cheap.high);
        (void)snprintf(difference, sizeof difference, "%+.1f %% [%+.1f, %+.1f]",
                       100 * point->difference.value, 100 * point->difference.low,
                       100 * point->difference.high);
        fits = buffer_append_format(
            out, "%-16.16s %7zu %8s %8s %8s %12s %24s %26s  %s\n", policy->name, point->n,
            percent(point->share, share), percent(point->quality, quality), share_text(point->pgr, pgr),
            dollars(point->cost, cost), point->n_cheap ? cheap : "-", difference,
            STAT_VERDICT_NAMES[stat_non_inferiority(&point->difference, report->margin)]);
        if (policy->n_between > 0)
            fits =
                fits && buffer_append_format(
                            out,
                            "  %zu of these cases went to a tier that is neither first nor last. Nobody of "
                            "it was asked: they are counted as the strong model's.\n",
                            policy->n_between);
    }
    return fits &&
           buffer_append_format(
               out,
               "\nIntervals are of 95 %%. The margin is %.1f %%. A router's setting was chosen on half of "
               "the cases, to reach %.0f %% of the strong model's quality, and measured on the other half.\n",
               100 * report->margin, 100 * report->quality);
}

static bool put_lost(const struct eval_run *run, struct buffer *out)
{
    const struct eval_lost *lost = &run->lost;
    bool fits = buffer_append_text(out, "PARTIAL: stopped");
    if (lost->n_cases > 0)
        fits = fits && buffer_append_format(out, "; %zu of %zu cases were not put to every model",
                                            lost->n_cases, run->n_given);
    if (lost->n_models > 0)
        fits = fits && buffer_append_format(out, "; %zu of %zu models were asked nothing", lost->n_models,
                                            run->n_models + lost->n_models);
    if (lost->is_judge)
        fits =
            fits && buffer_append_text(out, "; the judge was not asked about every answer: its word is left "
                                            "out, and all were compared as texts");
    if (lost->is_classifier)
        fits = fits &&
               buffer_append_text(out, "; the classifier was not asked about every case: it is left out");
    return fits && buffer_append_text(out, "\n");
}

/* Which cases these figures are not of. */
static bool put_left_out(const struct eval_run *run, struct buffer *out)
{
    size_t n_unrecorded = run->n_left_out - run->lost.n_cases;
    return (!run->is_partial || put_lost(run, out)) &&
           (n_unrecorded == 0 ||
            buffer_append_format(out, "%zu of %zu cases are left out: no answer is recorded for them\n",
                                 n_unrecorded, run->n_given));
}

err_t eval_report_table(const struct eval_report *report, struct buffer *out)
{
    const struct eval_run *run = report->run;
    err_t e = err_ok();
    bool fits =
        buffer_append_format(out, "%s: %zu cases, %s\n", report->file, run->cases->n, run->cases->id) &&
        put_left_out(run, out) && buffer_append_text(out, "\n") && put_models(report, out, &e) &&
        put_tasks(report, out);
    if (fits && run->n_unjudged > 0)
        fits = buffer_append_format(
            out, "\n%zu answers were compared as texts: the judge's word on them could not be read\n",
            run->n_unjudged);
    if (fits && report->policies != NULL)
        fits = buffer_append_format(out, "\nweak: %s, strong: %s\n", run->models[run->weak].name,
                                    run->models[run->strong].name) &&
               put_curves(report, out) && put_points(report, out);
    return fits ? e : err_new(ERR_RESOURCE_EXHAUSTED, "no memory for the table");
}
