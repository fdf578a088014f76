/* The report as JSON, and beside an earlier one. */
#include <math.h>
#include <string.h>
#include "base/alloc.h"
#include "router/gate/eval_report.h"
#include "router/providers/json_text.h"

static err_t no_memory(void)
{
    return err_new(ERR_RESOURCE_EXHAUSTED, "no memory for the report");
}

/* Not a number is null. */
static json_t *number(double value)
{
    return isfinite(value) ? json_real(value) : json_null();
}

static json_t *whole(int64_t value)
{
    return value < 0 ? json_null() : json_integer(value);
}

static json_t *interval_json(const struct stat_interval *interval)
{
    return json_pack("[o, o, o]", number(interval->value), number(interval->low), number(interval->high));
}

static json_t *model_json(const struct eval_model *model, size_t n, err_t *e)
{
    struct eval_summary sum;
    *e = eval_summary_of(model, n, &sum);
    if (e->code != ERR_OK)
        return NULL;
    return json_pack("{s:s, s:f, s:I, s:I, s:o, s:o, s:o, s:o, s:o, s:o, s:s}", "name", model->name,
                     "quality", sum.quality, "solved", (json_int_t)sum.n_solved, "failed",
                     (json_int_t)sum.n_failed, "cost_nanodollars", whole(sum.cost),
                     "cost_per_solved_nanodollars", whole(sum.cost_per_solved), "first_token_us_p50",
                     whole(sum.first_p50), "first_token_us_p95", whole(sum.first_p95), "total_us_p50",
                     whole(sum.total_p50), "total_us_p95", whole(sum.total_p95), "fingerprint",
                     model->endpoint ? eval_endpoint_fingerprint(model->endpoint) : "");
}

static json_t *curve_json(const struct stat_curve *curve)
{
    json_t *quality = json_array(), *pgr = json_array();
    for (size_t i = 0; i < STAT_CURVE_POINTS; i++) {
        (void)json_array_append_new(quality, number(curve->quality[i]));
        (void)json_array_append_new(pgr, number(stat_pgr(curve->quality[i], curve->weak, curve->strong)));
    }
    return json_pack("{s:o, s:o, s:o, s:o, s:o, s:o}", "apgr", number(curve->apgr), "cpt50",
                     number(curve->cpt50), "cpt80", number(curve->cpt80), "share_for_95",
                     number(curve->share_for_95), "quality_by_share", quality, "pgr_by_share", pgr);
}

static json_t *point_json(const struct eval_point *point, double margin)
{
    return json_pack("{s:I, s:f, s:f, s:o, s:o, s:o, s:I, s:o, s:o, s:s}", "cases", (json_int_t)point->n,
                     "strong_share", point->share, "quality", point->quality, "pgr", number(point->pgr),
                     "cost_nanodollars", whole(point->cost), "false_cheap",
                     interval_json(&point->false_cheap), "cheap", (json_int_t)point->n_cheap, "difference",
                     interval_json(&point->difference), "threshold", number(point->threshold), "verdict",
                     STAT_VERDICT_NAMES[stat_non_inferiority(&point->difference, margin)]);
}

static json_t *policies_json(const struct eval_report *report)
{
    json_t *list = json_array();
    for (size_t p = 0; report->policies != NULL && p < report->policies->n; p++) {
        const struct eval_policy *policy = &report->policies->policies[p];
        json_t *one = json_pack("{s:s}", "name", policy->name);
        if (policy->has_curve)
            (void)json_object_set_new(one, "curve", curve_json(&policy->curve));
        if (policy->has_point)
            (void)json_object_set_new(one, "point", point_json(&policy->point, report->margin));
        if (policy->n_between > 0)
            (void)json_object_set_new(one, "unmeasured", json_integer((json_int_t)policy->n_between));
        (void)json_array_append_new(list, one);
    }
    return list;
}

static json_t *answer_json(const struct eval_answer *answer, double score, bool with_answer)
{
    json_t *one =
        json_pack("{s:f, s:o, s:o, s:o}", "score", score, "cost_nanodollars", whole(answer->cost),
                  "first_token_us", whole(answer->first_token_us), "total_us", whole(answer->total_us));
    if (answer->error[0] != '\0')
        (void)json_object_set_new(one, "error", json_string(answer->error));
    if (answer->n_margins > 0)
        (void)json_object_set_new(one, "doubt", json_real(eval_answer_doubt(answer, EVAL_MARGINS_MAX)));
    if (with_answer && answer->text != NULL)
        (void)json_object_set_new(one, "answer", json_stringn(answer->text, answer->text_bytes));
    return one;
}

static json_t *results_json(const struct eval_report *report)
{
    const struct eval_run *run = report->run;
    json_t *list = json_array();
    for (size_t i = 0; i < run->cases->n; i++) {
        json_t *models = json_object(), *policies = json_object();
        for (size_t m = 0; m < run->n_models; m++)
            (void)json_object_set_new(
                models, run->models[m].name,
                answer_json(&run->models[m].answers[i], run->models[m].scores[i], report->with_answers));
        for (size_t p = 0; report->policies != NULL && p < report->policies->n; p++)
            if (report->policies->policies[p].scores != NULL)
                (void)json_object_set_new(policies, report->policies->policies[p].name,
                                          json_real(report->policies->policies[p].scores[i]));
        (void)json_array_append_new(list, json_pack("{s:s, s:s, s:o, s:o}", "id", run->cases->cases[i].id,
                                                    "task", run->cases->cases[i].task, "models", models,
                                                    "policies", policies));
    }
    return list;
}

/* What a run that was stopped asked nobody of. */
static json_t *lost_json(const struct eval_lost *lost)
{
    return json_pack("{s:I, s:I, s:b, s:b}", "cases", (json_int_t)lost->n_cases, "models",
                     (json_int_t)lost->n_models, "judge", lost->is_judge, "classifier", lost->is_classifier);
}

err_t eval_report_json(const struct eval_report *report, struct buffer *out)
{
    const struct eval_run *run = report->run;
    json_t *models = json_array();
    err_t e = err_ok();
    for (size_t m = 0; m < run->n_models && e.code == ERR_OK; m++)
        (void)json_array_append_new(models, model_json(&run->models[m], run->cases->n, &e));
    if (e.code != ERR_OK) {
        json_decref(models);
        return e;
    }
    json_t *root = json_pack("{s:i, s:s, s:s, s:I, s:I, s:b, s:s, s:s, s:f, s:o, s:o, s:o}", "bantam_report",
                             EVAL_REPORT_VERSION, "file", report->file, "cases_id", run->cases->id, "cases",
                             (json_int_t)run->cases->n, "cases_left_out", (json_int_t)run->n_left_out,
                             "partial", run->is_partial, "weak", run->models[run->weak].name, "strong",
                             run->models[run->strong].name, "margin", report->margin, "models", models,
                             "policies", policies_json(report), "results", results_json(report));
    if (root == NULL)
        return no_memory();
    if (run->is_partial)
        (void)json_object_set_new(root, "not_asked", lost_json(&run->lost));
    e = json_text_append(out, root);
    json_decref(root);
    return e.code != ERR_OK || buffer_append_text(out, "\n") ? e : no_memory();
}

/* The scores that both reports have of one model or policy. */
struct pairs {
    double *now, *then; /* [n] */
    size_t n;
};

static void collect(const struct eval_report *report, const json_t *by_id, const char *kind, const char *name,
                    const double *scores, struct pairs *pairs)
{
    pairs->n = 0;
    for (size_t i = 0; i < report->run->cases->n; i++) {
        const json_t *result = json_object_get(by_id, report->run->cases->cases[i].id);
        const json_t *then = json_object_get(json_object_get(result, kind), name);
        const json_t *score = json_is_object(then) ? json_object_get(then, "score") : then;
        if (!json_is_number(score) || !(fabs(json_number_value(score)) <= 1))
            continue;
        pairs->now[pairs->n] = scores[i];
        pairs->then[pairs->n++] = json_number_value(score);
    }
}

struct comparison {
    const struct eval_report *report;
    const json_t *by_id;
    struct pairs pairs;
    uint64_t seed;
    struct buffer *out;
    size_t n_compared, n_worse, n_not_shown;
};

static err_t compare_one(struct comparison *c, const char *kind, const char *name, const double *scores)
{
    collect(c->report, c->by_id, kind, name, scores, &c->pairs);
    if (c->pairs.n == 0)
        return err_ok();
    struct stat_interval difference;
    TRY(stat_paired_bootstrap(c->pairs.now, c->pairs.then, c->pairs.n, c->seed, &difference));
    enum stat_verdict verdict = stat_non_inferiority(&difference, c->report->margin);
    c->n_compared++;
    c->n_worse += verdict == STAT_WORSE;
    c->n_not_shown += verdict == STAT_NOT_SHOWN;
    bool fits = buffer_append_format(c->out, "%-16.16s %zu cases, %+.1f %% [%+.1f, %+.1f]: %s\n", name,
                                     c->pairs.n, 100 * difference.value, 100 * difference.low,
                                     100 * difference.high, STAT_VERDICT_NAMES[verdict]);
    return fits ? err_ok() : no_memory();
}

static err_t compare_all(struct comparison *c)
{
    const struct eval_run *run = c->report->run;
    for (size_t m = 0; m < run->n_models; m++)
        TRY(compare_one(c, "models", run->models[m].name, run->models[m].scores));
    for (size_t p = 0; c->report->policies != NULL && p < c->report->policies->n; p++)
        if (c->report->policies->policies[p].scores != NULL)
            TRY(compare_one(c, "policies", c->report->policies->policies[p].name,
                            c->report->policies->policies[p].scores));
    if (c->n_compared == 0)
        return err_new(ERR_INVALID_ARGUMENT,
                       "the golden report has no model, policy and case in common with this run");
    return err_ok();
}

/* id -> result; the caller's. */
static err_t index_results(const json_t *root, json_t **out)
{
    const json_t *version = json_object_get(root, "bantam_report"),
                 *results = json_object_get(root, "results");
    if (!json_is_integer(version) || json_integer_value(version) != EVAL_REPORT_VERSION ||
        !json_is_array(results))
        return err_new(ERR_INVALID_ARGUMENT, "the golden report is none of `bantam eval --json`, version %d",
                       EVAL_REPORT_VERSION);
    *out = json_object();
    for (size_t i = 0; i < json_array_size(results); i++) {
        json_t *result = json_array_get(results, i);
        const char *id = json_string_value(json_object_get(result, "id"));
        if (id != NULL && json_object_set(*out, id, result) != 0)
            return no_memory();
    }
    return err_ok();
}

err_t eval_report_compare(const struct eval_report *report, const char *golden, size_t golden_bytes,
                          uint64_t seed, struct buffer *out, size_t *n_worse, size_t *n_not_shown)
{
    size_t n = report->run->cases->n;
    json_error_t error;
    json_t *root = json_loadb(golden, golden_bytes, JSON_REJECT_DUPLICATES, &error), *by_id = NULL;
    struct comparison c = {.report = report, .seed = seed, .out = out};
    c.pairs.now = mem_alloc_array(n, sizeof(double));
    c.pairs.then = mem_alloc_array(n, sizeof(double));
    err_t e = c.pairs.now && c.pairs.then ? err_ok() : no_memory();
    if (root == NULL)
        e = err_new(ERR_INVALID_ARGUMENT, "the golden report is not JSON: %s at byte %d", error.text,
                    error.position);
    if (e.code == ERR_OK)
        e = index_results(root, &by_id);
    c.by_id = by_id;
    if (e.code == ERR_OK)
        e = compare_all(&c);
    *n_worse = c.n_worse;
    *n_not_shown = c.n_not_shown;
    json_decref(by_id);
    json_decref(root);
    mem_free(c.pairs.now);
    mem_free(c.pairs.then);
    return e;
}
