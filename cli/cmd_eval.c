/* bantam eval: how good models and policies are on a file of cases. */
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include "base/alloc.h"
#include "base/mapped_file.h"
#include "cli/commands.h"
#include "cli/eval_flags.h"
#include "cli/interrupt.h"
#include "router/gate/confidence_map.h"
#include "router/gate/eval_artefact.h"
#include "router/gate/eval_report.h"

enum { EVAL_OWN_FLAGS = 20 };

struct eval_values {
    struct eval_flag_values shared;
    const char *weak, *strong, *classifier_prompt, *easy_label, *hard_label;
    const char *json, *svg, *golden, *artefact, *calibration;
    int64_t max_tokens, hold_tokens;
    double temperature, quality;
    bool strict, with_answers;
};

static size_t eval_command_flags(struct eval_values *v, struct flag *flags)
{
    const struct flag rows[] = {
        {.name = "weak",
         .kind = FLAG_STRING,
         .target = &v->weak,
         .metavar = "NAME",
         .help = "the small model; default: the first"},
        {.name = "strong",
         .kind = FLAG_STRING,
         .target = &v->strong,
         .metavar = "NAME",
         .help = "the model that it is held against; default: the second"},
        {.name = "max-tokens",
         .kind = FLAG_INT,
         .target = &v->max_tokens,
         .default_text = "0",
         .max = 1 << 22,
         .help = "of an answer, where a case does not say; 0 = the model's"},
        {.name = "temperature",
         .kind = FLAG_DOUBLE,
         .target = &v->temperature,
         .default_text = "0",
         .min = -1,
         .max = 2,
         .help = "where a case does not say; -1 = the model's"},
        {.name = NULL, .help = "Routers"},
        {.name = "hold-tokens",
         .kind = FLAG_INT,
         .target = &v->hold_tokens,
         .default_text = "8",
         .min = 1,
         .max = EVAL_MARGINS_MAX,
         .help = "first tokens whose margins decide in the cascade"},
        {.name = "quality",
         .kind = FLAG_DOUBLE,
         .target = &v->quality,
         .default_text = "0.95",
         .max = 2,
         .help = "share of the strong model's quality that each router is set to reach"},
        {.name = "classifier-prompt",
         .kind = FLAG_STRING,
         .target = &v->classifier_prompt,
         .metavar = "TEXT",
         .help = "put to the weak model before each request, to answer with one of the two labels below"},
        {.name = "easy-label",
         .kind = FLAG_STRING,
         .target = &v->easy_label,
         .default_text = "easy",
         .help = "for what the weak model can do"},
        {.name = "hard-label",
         .kind = FLAG_STRING,
         .target = &v->hard_label,
         .default_text = "hard",
         .help = "for what it cannot"},
        {.name = NULL, .help = "Results"},
        {.name = "json",
         .kind = FLAG_STRING,
         .target = &v->json,
         .metavar = "FILE",
         .help = "write all of it as JSON, case by case"},
        {.name = "with-answers",
         .kind = FLAG_BOOL,
         .target = &v->with_answers,
         .default_text = "false",
         .help = "with the answers' texts in --json"},
        {.name = "svg",
         .kind = FLAG_STRING,
         .target = &v->svg,
         .metavar = "FILE",
         .help = "draw PGR against the share of strong calls"},
        {.name = "golden",
         .kind = FLAG_STRING,
         .target = &v->golden,
         .metavar = "OLD.json",
         .help = "compare with an earlier --json; exit status 1 where something got worse beyond the margin"},
        {.name = "strict",
         .kind = FLAG_BOOL,
         .target = &v->strict,
         .default_text = "false",
         .help = "with --golden: exit status 1 also where it is not shown that nothing got worse"},
        {.name = "artefact",
         .kind = FLAG_STRING,
         .target = &v->artefact,
         .metavar = "FILE",
         .help = "write what the router's gate asks for; needs --policy"},
        {.name = "calibration",
         .kind = FLAG_STRING,
         .target = &v->calibration,
         .metavar = "FILE",
         .help = "write how the weak model's doubt becomes a probability, for the cascade"},
        {.name = NULL, .help = "Models"},
    };
    size_t n = sizeof rows / sizeof *rows;
    _Static_assert(sizeof rows / sizeof *rows <= EVAL_OWN_FLAGS, "the command's table has room for them");
    memcpy(flags, rows, sizeof rows);
    return n + eval_flags_fill(&v->shared, flags + n);
}

static err_t find_model(const struct eval_run *run, const char *flag, const char *name, size_t otherwise,
                        size_t *out)
{
    *out = otherwise;
    if (name == NULL)
        return err_ok();
    for (size_t m = 0; m < run->n_models; m++) {
        if (strcmp(run->models[m].name, name) == 0) {
            *out = m;
            return err_ok();
        }
    }
    return err_new(ERR_INVALID_ARGUMENT, "--%s %.60s: there is no --model of that name", flag, name);
}

static err_t open_models(const struct eval_values *v, struct eval_run *run)
{
    const struct flag_list *models = &v->shared.models;
    char name[EVAL_NAME_BYTES_MAX + 1];
    if (models->count == 0 || models->count > EVAL_MODELS_MAX)
        return err_new(ERR_INVALID_ARGUMENT, "there must be 1 to %d --model NAME=TARGET", EVAL_MODELS_MAX);
    for (size_t m = 0; m < models->count; m++) {
        struct eval_model *model = &run->models[m];
        TRY(eval_flags_open(&v->shared, "model", models->item[m], name, &model->endpoint));
        memcpy(model->name, name, sizeof name);
        run->n_models = m + 1;
        for (size_t other = 0; other < m; other++)
            if (strcmp(run->models[other].name, model->name) == 0)
                return err_new(ERR_INVALID_ARGUMENT, "--model %s stands twice", model->name);
    }
    TRY(find_model(run, "weak", v->weak, 0, &run->weak));
    TRY(find_model(run, "strong", v->strong, run->n_models > 1 ? 1 : 0, &run->strong));
    if (run->weak == run->strong && run->n_models > 1)
        return err_new(ERR_INVALID_ARGUMENT, "the weak and the strong model must be two");
    return v->shared.judge ? eval_flags_open(&v->shared, "judge", v->shared.judge, name, &run->judge)
                           : err_ok();
}

static err_t write_report(const char *path, const struct eval_report *report,
                          err_t (*make)(const struct eval_report *, struct buffer *))
{
    struct buffer bytes = {.limit_bytes = EVAL_REPORT_BYTES_MAX};
    if (path == NULL)
        return err_ok();
    err_t e = make(report, &bytes);
    if (e.code == ERR_OK)
        e = eval_flags_write(path, &bytes);
    buffer_free(&bytes);
    return e;
}

static err_t write_artefact(const struct eval_values *v, const struct eval_report *report)
{
    const struct eval_policy *policy =
        report->policies ? eval_policies_find(report->policies, "policy") : NULL;
    const struct eval_run *run = report->run;
    if (v->artefact == NULL)
        return err_ok();
    if (policy == NULL)
        return err_new(ERR_INVALID_ARGUMENT, "--artefact needs --policy CONFIG and two models");
    if (policy->n_between > 0)
        return err_new(
            ERR_FAILED_PRECONDITION,
            "%s is not written: the policy sends %zu of the cases to a tier that is neither its "
            "first nor its last, of which nobody was asked: ask its model, too, by the tier's name "
            "(--model TIER=TARGET)",
            v->artefact, policy->n_between);
    const struct eval_point *point = &policy->point;
    struct eval_artefact artefact = {.n_cases = point->n,
                                     .n_cheap = point->n_cheap,
                                     .quality = point->quality,
                                     .baseline_quality = report->policies->policies[0].curve.strong,
                                     .strong_share = point->share,
                                     .difference = point->difference,
                                     .false_cheap = point->false_cheap,
                                     .made_unix_s = (int64_t)time(NULL)};
    const struct eval_endpoint *weak = run->models[run->weak].endpoint;
    (void)snprintf(artefact.policy_id, sizeof artefact.policy_id, "%s", v->shared.config->policy_id);
    (void)snprintf(artefact.cases_id, sizeof artefact.cases_id, "%s", run->cases->id);
    (void)snprintf(artefact.fingerprint, sizeof artefact.fingerprint, "%s",
                   weak ? eval_endpoint_fingerprint(weak) : "");
    struct buffer bytes = {.limit_bytes = EVAL_ARTEFACT_BYTES_MAX};
    err_t e = eval_artefact_write(&artefact, &bytes);
    if (e.code == ERR_OK)
        e = eval_flags_write(v->artefact, &bytes);
    buffer_free(&bytes);
    const struct rollout_options *gate = &v->shared.config->gate;
    err_t passes = eval_artefact_check(&artefact, artefact.policy_id, artefact.fingerprint, gate->margin,
                                       gate->false_cheap);
    if (e.code == ERR_OK)
        (void)printf("\n%s: %s%s\n", v->artefact,
                     passes.code == ERR_OK ? "it passes the gate" : "it does not pass the gate: ",
                     passes.code == ERR_OK ? "" : passes.message);
    return e;
}

static err_t write_calibration(const struct eval_values *v, const struct eval_run *run)
{
    if (v->calibration == NULL)
        return err_ok();
    const struct eval_model *weak = &run->models[run->weak];
    size_t n = 0;
    double *doubts = mem_alloc_array(run->cases->n, sizeof *doubts),
           *scores = mem_alloc_array(run->cases->n, sizeof *scores);
    struct confidence_map map;
    struct buffer bytes = {.limit_bytes = CONFIDENCE_MAP_BYTES_MAX};
    err_t e = doubts && scores ? err_ok() : err_new(ERR_RESOURCE_EXHAUSTED, "no memory for the calibration");
    for (size_t i = 0; i < run->cases->n && e.code == ERR_OK; i++) {
        if (weak->answers[i].n_margins == 0)
            continue;
        doubts[n] = eval_answer_doubt(&weak->answers[i], (uint32_t)v->hold_tokens);
        scores[n++] = weak->scores[i];
    }
    if (e.code == ERR_OK && n == 0)
        e = err_new(ERR_FAILED_PRECONDITION,
                    "--calibration: the weak model told no margins; an engine over gRPC does");
    if (e.code == ERR_OK)
        e = confidence_map_fit(doubts, scores, n, (uint32_t)v->hold_tokens, &map);
    if (e.code == ERR_OK)
        e = confidence_map_write(&map, &bytes);
    if (e.code == ERR_OK)
        e = eval_flags_write(v->calibration, &bytes);
    buffer_free(&bytes);
    mem_free(doubts);
    mem_free(scores);
    return e;
}

static err_t compare(const struct eval_values *v, const struct eval_report *report, bool *is_worse)
{
    char *golden;
    size_t bytes, n_worse, n_not_shown;
    struct buffer lines = {.limit_bytes = 1 << 20};
    if (v->golden == NULL)
        return err_ok();
    TRY(file_read(v->golden, EVAL_REPORT_BYTES_MAX, &golden, &bytes));
    err_t e =
        eval_report_compare(report, golden, bytes, (uint64_t)v->shared.seed, &lines, &n_worse, &n_not_shown);
    mem_free(golden);
    if (e.code == ERR_OK) {
        (void)printf("\nbeside %s, at a margin of %.1f %%:\n%s", v->golden, 100 * v->shared.margin,
                     lines.data);
        *is_worse = n_worse > 0 || (v->strict && n_not_shown > 0);
    }
    buffer_free(&lines);
    return e.code == ERR_OK ? e : err_prefix(e, "%s", v->golden);
}

/* Where there is nothing to draw, that is no failure of what was measured. */
static err_t write_chart(const struct eval_values *v, const struct eval_report *report)
{
    err_t e = write_report(v->svg, report, eval_report_chart);
    if (e.code != ERR_FAILED_PRECONDITION)
        return e;
    (void)fprintf(stderr, "bantam eval: warning: %s is not written: %s\n", v->svg, e.message);
    return err_ok();
}

/* What is made to be relied on is not made of a part. */
static err_t skip_of_partial(const struct eval_values *v)
{
    const char *const skipped[] = {v->calibration, v->artefact};
    for (size_t i = 0; i < sizeof skipped / sizeof skipped[0]; i++)
        if (skipped[i])
            (void)fprintf(stderr, "bantam eval: warning: %s is not written: the evaluation was stopped\n",
                          skipped[i]);
    if (v->golden)
        (void)fprintf(stderr,
                      "bantam eval: warning: nothing is held against %s: the evaluation was stopped\n",
                      v->golden);
    return err_ok();
}

static err_t report_all(const struct eval_values *v, const struct eval_report *report, bool *is_worse)
{
    struct buffer table = {.limit_bytes = 1 << 20};
    err_t e = eval_report_table(report, &table);
    if (e.code == ERR_OK)
        (void)fputs(table.data, stdout);
    buffer_free(&table);
    TRY(e);
    TRY(write_report(v->json, report, eval_report_json));
    TRY(write_chart(v, report));
    if (report->run->is_partial)
        return skip_of_partial(v);
    TRY(write_calibration(v, report->run));
    TRY(write_artefact(v, report));
    return compare(v, report, is_worse);
}

static err_t evaluate(struct eval_values *v, const char *path, const struct eval_cases *cases, bool *is_worse)
{
    struct eval_run run = {.cases = cases};
    struct eval_policies policies = {0};
    const struct eval_run_options options = {.concurrency = (uint32_t)v->shared.concurrency,
                                             .shows_progress = v->shared.progress,
                                             .stop = v->shared.stop,
                                             .classifier_prompt = v->classifier_prompt,
                                             .easy_label = v->easy_label,
                                             .hard_label = v->hard_label};
    err_t e = open_models(v, &run);
    if (e.code == ERR_OK) {
        interrupt_watch();
        e = eval_run(&run, &options);
    }
    struct eval_report report = {.file = path,
                                 .run = &run,
                                 .policies = run.n_models > 1 ? &policies : NULL,
                                 .margin = v->shared.margin,
                                 .quality = v->quality,
                                 .with_answers = v->with_answers};
    const struct eval_policies_options policy_options = {.hold_tokens = (uint32_t)v->hold_tokens,
                                                         .quality = v->quality,
                                                         .seed = (uint64_t)v->shared.seed,
                                                         .config = v->shared.config};
    if (e.code == ERR_OK && report.policies != NULL)
        e = eval_policies_make(&run, &policy_options, &policies);
    if (e.code == ERR_OK)
        e = report_all(v, &report, is_worse);
    eval_policies_free(&policies);
    eval_run_free(&run);
    return e;
}

int command_eval(int argc, char *argv[])
{
    static struct eval_values values;
    struct flag flags[EVAL_OWN_FLAGS + EVAL_FLAGS_MAX];
    const struct flag_command command = {
        .name = "bantam eval",
        .summary = "Puts a file of cases to models, scores the answers, and tells what routers between the "
                   "weak and the "
                   "strong model would make of them: quality, cost, time, share of strong calls. PGR = "
                   "(quality - weak) / "
                   "(strong - weak); APGR is its mean over all shares of strong calls (chance: 0.5); CPT(50) "
                   "is the share "
                   "at which PGR is 50 %; false-cheap are answers of the weak model that are wrong where the "
                   "strong one's "
                   "is right. A case is a JSON line: {\"messages\": [...], \"expected\": ..., \"check\": "
                   "\"exact\"}; see "
                   "docs/evaluation.md.",
        .positionals = "FILE.jsonl",
        .min_positionals = 1,
        .max_positionals = 1,
        .flags = flags,
        .n_flags = eval_command_flags(&values, flags),
        .examples =
            "  bantam eval cases.jsonl --model small=127.0.0.1:50051 \\\n"
            "      --model big=https://api.openai.com/v1#gpt-5 \\\n"
            "      --key-env big=OPENAI_API_KEY --price big=1.25,10 --json report.json --svg report.svg\n"
            "  bantam eval cases.jsonl --model small=127.0.0.1:50051 --model big=recorded --policy "
            "route.yaml \\\n"
            "      --artefact eval.json\n"
            "  bantam eval cases.jsonl --model small=127.0.0.1:50051 --golden report.json    # in CI\n",
    };
    struct flag_result arguments;
    int status;
    if (!parse_command(&command, argc, argv, &arguments, &status))
        return status;
    struct eval_cases cases = {0};
    bool is_worse = false;
    const struct eval_case_defaults defaults = {.max_tokens = (uint32_t)values.max_tokens,
                                                .temperature = values.temperature};
    values.shared.stop = interrupt_flag();
    err_t e = eval_flags_read_config(&values.shared);
    if (e.code == ERR_OK)
        e = eval_cases_read(arguments.positional[0], &defaults, &cases);
    if (e.code == ERR_OK)
        e = evaluate(&values, arguments.positional[0], &cases, &is_worse);
    eval_cases_free(&cases);
    eval_flags_free(&values.shared);
    status = e.code != ERR_OK ? report_error(command.name, &e) : is_worse ? 1 : 0;
    return *values.shared.stop ? INTERRUPTED_STATUS : status;
}
