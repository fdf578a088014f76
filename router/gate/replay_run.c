#include "router/gate/replay_run.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include "base/alloc.h"
#include "base/progress.h"
#include "router/gate/eval_check.h"
#include "router/gate/eval_judge.h"

/* How each request went. */
struct outcome {
    bool stays, is_same, is_json, is_as_good;
    double fields;
};

struct replay {
    const struct replay_log *log;
    const struct replay_options *options;
    json_t **requests;           /* [n]; NULL = stays */
    struct eval_answer *answers; /* [n] */
    struct outcome *outcomes;    /* [n] */
    double *then, *now;          /* [n] room for times */
};

static err_t no_memory(void)
{
    return err_new(ERR_RESOURCE_EXHAUSTED, "no memory to replay that many requests");
}

static void show(void *context, size_t n_done)
{
    progress_update(context, n_done);
}

static struct policy_decision decide(const struct policy *policy, const struct replay_item *item)
{
    struct request_signals signals = request_signals_of(item->request);
    struct route_hints hints = ROUTE_HINTS_NONE;
    if (route_hints_of_body(item->request, &hints).code != ERR_OK)
        hints = ROUTE_HINTS_NONE;
    const char *model = json_string_value(json_object_get(item->request, "model"));
    struct policy_input input = {.signals = &signals,
                                 .hints = &hints,
                                 .tenant = item->tenant,
                                 .model = model ? model : "",
                                 .intent = "",
                                 .difficulty = -1,
                                 .prompt_tokens = item->input_tokens >= 0 ? (uint64_t)item->input_tokens
                                                                          : signals.text_bytes / 4};
    for (size_t tier = 0; tier < POLICY_TIERS_MAX; tier++)
        input.ttft_ms[tier] = -1;
    return policy_decide(policy, &input, NULL);
}

/* What the policy says of it: sent beyond the first tier, it keeps its recorded answer; what must stay is
 * marked. */
static err_t apply_policy(const struct policy *policy, struct replay_item *item, bool *stays)
{
    struct policy_decision decision = decide(policy, item);
    *stays = !decision.is_refused && !decision.local_only && decision.tier > 0;
    if (!decision.local_only)
        return err_ok();
    json_t *ours = json_pack("{s:s}", "privacy", "local_only");
    return ours != NULL && json_object_set_new(item->request, "bantam", ours) == 0 ? err_ok() : no_memory();
}

static err_t ask(struct replay *replay)
{
    const struct replay_log *log = replay->log;
    const struct replay_options *options = replay->options;
    for (size_t i = 0; i < log->n; i++) {
        json_t *request = log->items[i].request;
        if (options->config != NULL)
            TRY(apply_policy(options->config->policy, &log->items[i], &replay->outcomes[i].stays));
        if (options->temperature >= 0 && json_object_get(request, "temperature") == NULL &&
            json_object_set_new(request, "temperature", json_real(options->temperature)) != 0)
            return no_memory();
        replay->requests[i] = replay->outcomes[i].stays ? NULL : request;
    }
    struct progress progress;
    progress_begin(&progress, "replay", log->n);
    progress.enabled &= options->shows_progress;
    err_t e = eval_ask(options->model, replay->requests, log->n, options->concurrency, show, &progress,
                       replay->answers);
    progress_end(&progress);
    return e;
}

static void compare(const struct replay_item *item, const struct eval_answer *answer, struct outcome *out)
{
    if (out->stays || answer->text == NULL)
        return;
    struct eval_check check = eval_check_like(item->answer, item->answer_bytes);
    double score = eval_check_score(&check, answer->text, answer->text_bytes);
    out->is_json = check.kind == CHECK_JSON;
    out->fields = score;
    out->is_same = score >= 1;
}

static bool is_judged(const struct replay *replay, size_t i)
{
    const struct outcome *outcome = &replay->outcomes[i];
    return !outcome->stays && !outcome->is_same && replay->answers[i].text != NULL;
}

static err_t judge(struct replay *replay)
{
    const struct replay_log *log = replay->log;
    struct eval_judgement *judgements = mem_alloc_array(log->n, sizeof *judgements);
    size_t n = 0;
    if (judgements == NULL)
        return no_memory();
    for (size_t i = 0; i < log->n; i++)
        if (is_judged(replay, i))
            judgements[n++] = (struct eval_judgement){.request = log->items[i].request,
                                                      .reference = log->items[i].answer,
                                                      .reference_bytes = log->items[i].answer_bytes,
                                                      .answer = replay->answers[i].text,
                                                      .answer_bytes = replay->answers[i].text_bytes};
    struct progress progress;
    progress_begin(&progress, "judge", 2 * n);
    progress.enabled &= replay->options->shows_progress;
    err_t e =
        eval_judge(replay->options->judge, judgements, n, replay->options->concurrency, show, &progress);
    progress_end(&progress);
    for (size_t i = 0, at = 0; i < log->n && e.code == ERR_OK; i++)
        if (is_judged(replay, i))
            replay->outcomes[i].is_as_good = judgements[at++].score >= 0.5; /* not told: not as good */
    mem_free(judgements);
    return e;
}

static int by_value(const void *left, const void *right)
{
    double a = *(const double *)left, b = *(const double *)right;
    return (a > b) - (a < b);
}

static void times(double *values, size_t n, int64_t *p50, int64_t *p95)
{
    qsort(values, n, sizeof *values, by_value);
    *p50 = n ? (int64_t)stat_quantile(values, n, 0.5) : -1;
    *p95 = n ? (int64_t)stat_quantile(values, n, 0.95) : -1;
}

static nanodollars add_cost(nanodollars sum, nanodollars cost)
{
    return sum < 0 || cost < 0 ? -1 : money_add(sum, cost);
}

/* Over one group, or all of them. */
static struct replay_sum sum_up(struct replay *replay, const struct replay_clusters *clusters, bool all,
                                size_t group)
{
    struct replay_sum sum = {0};
    size_t n_then = 0, n_now = 0, n_agree = 0;
    double fields = 0;
    for (size_t i = 0; i < replay->log->n; i++) {
        if (!all && clusters->of[i] != group)
            continue;
        const struct replay_item *item = &replay->log->items[i];
        const struct eval_answer *answer = &replay->answers[i];
        const struct outcome *outcome = &replay->outcomes[i];
        sum.n++;
        sum.n_stays += outcome->stays;
        sum.n_failed += !outcome->stays && answer->text == NULL;
        sum.n_same += outcome->is_same;
        sum.n_json += outcome->is_json;
        fields += outcome->is_json ? outcome->fields : 0;
        sum.n_judged_as_good += outcome->is_as_good;
        n_agree += outcome->stays || outcome->is_same || outcome->is_as_good;
        sum.cost_then = add_cost(sum.cost_then, item->cost);
        if (outcome->stays || answer->text != NULL)
            sum.cost_now = add_cost(sum.cost_now, outcome->stays ? item->cost : answer->cost);
        if (item->total_us >= 0)
            replay->then[n_then++] = (double)item->total_us;
        if (outcome->stays ? item->total_us >= 0 : answer->text != NULL)
            replay->now[n_now++] = (double)(outcome->stays ? item->total_us : answer->total_us);
    }
    sum.fields = sum.n_json ? fields / (double)sum.n_json : NAN;
    sum.agree = stat_wilson(n_agree, sum.n);
    times(replay->then, n_then, &sum.p50_then, &sum.p95_then);
    times(replay->now, n_now, &sum.p50_now, &sum.p95_now);
    return sum;
}

static err_t replay_all(struct replay *replay, struct replay_result *out)
{
    TRY(ask(replay));
    for (size_t i = 0; i < replay->log->n; i++)
        compare(&replay->log->items[i], &replay->answers[i], &replay->outcomes[i]);
    if (replay->options->judge != NULL)
        TRY(judge(replay));
    TRY(replay_clusters_make(replay->log, &out->clusters));
    out->sums = mem_alloc_array(out->clusters.n + 1, sizeof *out->sums);
    if (out->sums == NULL)
        return no_memory();
    for (size_t group = 0; group < out->clusters.n; group++)
        out->sums[group] = sum_up(replay, &out->clusters, false, group);
    out->all = sum_up(replay, &out->clusters, true, 0);
    return err_ok();
}

err_t replay_run(const struct replay_log *log, const struct replay_options *options,
                 struct replay_result *out)
{
    size_t room = log->n + 1;
    memset(out, 0, sizeof *out);
    struct replay replay = {.log = log,
                            .options = options,
                            .requests = mem_alloc_array(room, sizeof(json_t *)),
                            .answers = mem_alloc_array(room, sizeof(struct eval_answer)),
                            .outcomes = mem_alloc_array(room, sizeof(struct outcome)),
                            .then = mem_alloc_array(room, sizeof(double)),
                            .now = mem_alloc_array(room, sizeof(double))};
    bool has_all = replay.requests && replay.answers && replay.outcomes && replay.then && replay.now;
    err_t e = has_all ? replay_all(&replay, out) : no_memory();
    for (size_t i = 0; replay.answers != NULL && i < log->n; i++)
        eval_answer_free(&replay.answers[i]);
    mem_free(replay.requests);
    mem_free(replay.answers);
    mem_free(replay.outcomes);
    mem_free(replay.then);
    mem_free(replay.now);
    if (e.code != ERR_OK)
        replay_result_free(out);
    return e;
}

void replay_result_free(struct replay_result *result)
{
    replay_clusters_free(&result->clusters);
    mem_free(result->sums);
    result->sums = NULL;
}
