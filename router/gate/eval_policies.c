#include "router/gate/eval_policies.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "base/alloc.h"
#include "router/gate/confidence_map.h"

/* What all policies choose from. */
struct board {
    const struct eval_run *run;
    const struct eval_policies_options *options;
    const struct eval_model *weak, *strong;
    size_t n;
    double *need, *score, *half_weak, *half_strong; /* [n] room */
    bool *went;                                     /* [n] room */
};

static err_t no_memory(void)
{
    return err_new(ERR_RESOURCE_EXHAUSTED, "no memory for policies over that many cases");
}

static nanodollars add_cost(nanodollars sum, nanodollars cost)
{
    return sum < 0 || cost < 0 ? -1 : money_add(sum, cost);
}

/* Measures went[0..n) on every `step`-th case from `first` on. pays_both: the weak model was asked first. */
static err_t measure(struct board *board, size_t first, size_t step, const bool *went, bool pays_both,
                     struct eval_point *out)
{
    double quality = 0, weak = 0, strong = 0;
    size_t n = 0, n_strong = 0;
    *out = (struct eval_point){.threshold = NAN};
    for (size_t i = first; i < board->n; i += step, n++) {
        board->half_weak[n] = board->weak->scores[i];
        board->half_strong[n] = board->strong->scores[i];
        board->score[n] = went[i] ? board->half_strong[n] : board->half_weak[n];
        board->went[n] = went[i];
        n_strong += went[i];
        quality += board->score[n];
        weak += board->half_weak[n];
        strong += board->half_strong[n];
        if (went[i])
            out->cost = add_cost(out->cost, board->strong->answers[i].cost);
        if (!went[i] || pays_both)
            out->cost = add_cost(out->cost, board->weak->answers[i].cost);
    }
    if (n == 0)
        return err_ok();
    out->n = n;
    out->share = (double)n_strong / (double)n;
    out->quality = quality / (double)n;
    out->pgr = stat_pgr(quality, weak, strong);
    out->false_cheap = stat_false_cheap(board->went, board->half_weak, board->half_strong, n, &out->n_cheap);
    return stat_paired_bootstrap(board->score, board->half_strong, n, board->options->seed, &out->difference);
}

struct needed {
    double need, weak, strong;
};

static int by_need_falling(const void *left, const void *right)
{
    const struct needed *a = left, *b = right;
    return (a->need < b->need) - (a->need > b->need);
}

/* The highest need from which to escalate that reaches the quality on the cases of even place: the fewest
 * strong calls. Infinity: none are needed. */
static err_t choose_threshold(const struct board *board, double *out)
{
    size_t n = 0;
    struct needed *cases = mem_alloc_array((board->n + 1) / 2, sizeof *cases);
    if (cases == NULL)
        return no_memory();
    double sum = 0, strong = 0;
    for (size_t i = 0; i < board->n; i += 2, n++) {
        cases[n] = (struct needed){board->need[i], board->weak->scores[i], board->strong->scores[i]};
        sum += cases[n].weak;
        strong += cases[n].strong;
    }
    qsort(cases, n, sizeof *cases, by_need_falling);
    *out = INFINITY;
    for (size_t i = 0; i < n && sum < board->options->quality * strong - 1e-9;) {
        *out = cases[i].need;
        for (; i < n && cases[i].need == *out; i++)
            sum += cases[i].strong - cases[i].weak;
    }
    mem_free(cases);
    return err_ok();
}

static struct eval_policy *add_policy(struct eval_policies *out, const char *name)
{
    struct eval_policy *policy = &out->policies[out->n++];
    (void)snprintf(policy->name, sizeof policy->name, "%s", name);
    return policy;
}

/* The policy that escalates where need is great. */
static err_t add_curve(struct board *board, const char *name, bool pays_both, bool has_threshold,
                       struct eval_policies *out)
{
    struct eval_policy *policy = add_policy(out, name);
    policy->has_curve = true;
    TRY(stat_curve_make(board->need, board->weak->scores, board->strong->scores, board->n, &policy->curve));
    if (!has_threshold || board->n < 2)
        return err_ok();
    double threshold = INFINITY;
    TRY(choose_threshold(board, &threshold));
    bool *went = mem_alloc_array(board->n, sizeof *went);
    if (went == NULL)
        return no_memory();
    for (size_t i = 0; i < board->n; i++)
        went[i] = board->need[i] >= threshold;
    err_t e = measure(board, 1, 2, went, pays_both, &policy->point);
    policy->point.threshold = threshold;
    policy->has_point = e.code == ERR_OK;
    mem_free(went);
    return e;
}

static err_t add_curves(struct board *board, struct eval_policies *out)
{
    const struct eval_run *run = board->run;
    size_t n_margins = 0;
    for (size_t i = 0; i < board->n; i++) {
        board->need[i] = 0;
        n_margins += board->weak->answers[i].n_margins > 0;
    }
    TRY(add_curve(board, "random", false, false, out));
    for (size_t i = 0; i < board->n; i++)
        board->need[i] = board->strong->scores[i] - board->weak->scores[i];
    TRY(add_curve(board, "oracle", false, false, out));
    if (run->difficulty != NULL) {
        memcpy(board->need, run->difficulty, board->n * sizeof *board->need);
        TRY(add_curve(board, "classifier", false, true, out));
    }
    if (n_margins == 0)
        return err_ok();
    for (size_t i = 0; i < board->n; i++)
        board->need[i] = eval_answer_doubt(&board->weak->answers[i], 1);
    TRY(add_curve(board, "confidence", true, true, out));
    for (size_t i = 0; i < board->n; i++)
        board->need[i] = eval_answer_doubt(&board->weak->answers[i], board->options->hold_tokens);
    return add_curve(board, "cascade", true, true, out);
}

/* A policy whose choices stand: all cases count. */
static err_t add_choices(struct board *board, const char *name, const bool *went, const double *scores,
                         bool pays_both, struct eval_policies *out)
{
    struct eval_policy *policy = add_policy(out, name);
    policy->went_strong = mem_alloc_array(board->n, sizeof *policy->went_strong);
    policy->scores = mem_alloc_array(board->n, sizeof *policy->scores);
    if (policy->went_strong == NULL || policy->scores == NULL)
        return no_memory();
    memcpy(policy->went_strong, went, board->n * sizeof *went);
    for (size_t i = 0; i < board->n; i++)
        policy->scores[i] = scores ? scores[i] : went[i] ? board->strong->scores[i] : board->weak->scores[i];
    policy->has_point = true;
    return measure(board, 0, 1, went, pays_both, &policy->point);
}

static struct policy_decision decide(const struct board *board, size_t i)
{
    const struct eval_case *one = &board->run->cases->cases[i];
    const struct eval_answer *answer = &board->weak->answers[i];
    struct request_signals signals = request_signals_of(one->request);
    struct route_hints hints = ROUTE_HINTS_NONE;
    if (route_hints_of_body(one->request, &hints).code != ERR_OK)
        hints = ROUTE_HINTS_NONE;
    if (hints.task[0] == '\0')
        (void)snprintf(hints.task, sizeof hints.task, "%s", one->task);
    const char *model = json_string_value(json_object_get(one->request, "model"));
    struct policy_input input = {
        .signals = &signals,
        .hints = &hints,
        .tenant = "",
        .model = model ? model : "",
        .intent = "",
        .difficulty = board->run->difficulty ? board->run->difficulty[i] : one->difficulty,
        .prompt_tokens =
            answer->usage.input_tokens >= 0 ? (uint64_t)answer->usage.input_tokens : signals.text_bytes / 4,
    };
    for (size_t tier = 0; tier < POLICY_TIERS_MAX; tier++)
        input.ttft_ms[tier] = -1;
    return policy_decide(board->options->config->policy, &input, NULL);
}

/* Its answers are its own: what they scored and cost, not what the weak and the strong model's did. */
static err_t measure_own(struct board *board, const double *scores, nanodollars cost,
                         struct eval_policy *policy)
{
    struct eval_point *point = &policy->point;
    double weak = 0, strong = 0;
    point->quality = 0;
    point->cost = cost;
    for (size_t i = 0; i < board->n; i++) {
        point->quality += scores[i];
        weak += board->weak->scores[i];
        strong += board->strong->scores[i];
    }
    point->pgr = stat_pgr(point->quality, weak, strong);
    point->quality /= (double)board->n;
    point->false_cheap =
        stat_false_cheap(policy->went_strong, scores, board->strong->scores, board->n, &point->n_cheap);
    return stat_paired_bootstrap(scores, board->strong->scores, board->n, board->options->seed,
                                 &point->difference);
}

/* What a policy's tiers answered. A tier between the first and the last is the further model of its name. */
struct tier_models {
    const struct eval_model *of[POLICY_TIERS_MAX]; /* [n]; NULL = nobody was asked */
    size_t n;
};

static struct tier_models find_tier_models(const struct board *board)
{
    struct tier_models models = {.n = 0};
    const struct eval_run *run = board->run;
    const struct policy_tier *tiers = policy_tiers(board->options->config->policy, &models.n);
    for (size_t t = 1; t + 1 < models.n; t++)
        for (size_t m = 0; m < run->n_models; m++)
            if (m != run->weak && m != run->strong && strcmp(run->models[m].name, tiers[t].name) == 0)
                models.of[t] = &run->models[m];
    models.of[models.n - 1] = board->strong;
    models.of[0] = board->weak;
    return models;
}

/* Where the policy has a case answered. */
static size_t tier_of(const struct board *board, const struct confidence_map *map, size_t i)
{
    const struct cascade_config *cascade = &board->options->config->cascade;
    const struct eval_answer *answer = &board->weak->answers[i];
    struct policy_decision decision = decide(board, i);
    if (decision.is_refused || decision.local_only)
        return 0;
    if (!cascade->is_set || decision.tier != cascade->tier || answer->n_margins == 0)
        return decision.tier;
    double doubt = eval_answer_doubt(answer, cascade->hold_tokens);
    return confidence_map_wrong(map, doubt) > cascade->escalate_over ? cascade->to : decision.tier;
}

static err_t add_config(struct board *board, struct eval_policies *out)
{
    const struct cascade_config *cascade = &board->options->config->cascade;
    const struct tier_models models = find_tier_models(board);
    struct confidence_map map = {0};
    if (cascade->is_set && cascade->calibration_text != NULL)
        TRY(confidence_map_parse(cascade->calibration_text, cascade->calibration_bytes, &map));
    bool *went = mem_alloc_array(board->n, sizeof *went);
    double *scores = mem_alloc_array(board->n, sizeof *scores);
    err_t e = went && scores ? err_ok() : no_memory();
    size_t n_between = 0;
    nanodollars cost = 0;
    for (size_t i = 0; i < board->n && e.code == ERR_OK; i++) {
        size_t tier = tier_of(board, &map, i);
        const struct eval_model *model = models.of[tier] ? models.of[tier] : board->strong;
        n_between += models.of[tier] == NULL;
        went[i] = model == board->strong;
        scores[i] = model->scores[i];
        cost = add_cost(cost, model->answers[i].cost);
        if (tier > 0 && cascade->is_set)
            cost = add_cost(cost, board->weak->answers[i].cost);
    }
    if (e.code == ERR_OK)
        e = add_choices(board, "policy", went, scores, cascade->is_set, out);
    if (e.code == ERR_OK)
        e = measure_own(board, scores, cost, &out->policies[out->n - 1]);
    if (e.code == ERR_OK)
        out->policies[out->n - 1].n_between = n_between;
    mem_free(went);
    mem_free(scores);
    return e;
}

/* A further model that had somebody else answer is a router. */
static err_t add_router(struct board *board, const struct eval_model *model, struct eval_policies *out)
{
    bool *went = mem_alloc_array(board->n, sizeof *went);
    if (went == NULL)
        return no_memory();
    nanodollars cost = 0;
    for (size_t i = 0; i < board->n; i++) {
        went[i] = model->answers[i].is_from_strong;
        cost = add_cost(cost, model->answers[i].cost);
    }
    err_t e = add_choices(board, model->name, went, model->scores, false, out);
    mem_free(went);
    return e.code == ERR_OK ? measure_own(board, model->scores, cost, &out->policies[out->n - 1]) : e;
}

static err_t make_all(struct board *board, struct eval_policies *out)
{
    const struct eval_run *run = board->run;
    TRY(add_curves(board, out));
    if (board->options->config != NULL)
        TRY(add_config(board, out));
    for (size_t m = 0; m < run->n_models; m++)
        if (m != run->weak && m != run->strong)
            TRY(add_router(board, &run->models[m], out));
    return err_ok();
}

err_t eval_policies_make(const struct eval_run *run, const struct eval_policies_options *options,
                         struct eval_policies *out)
{
    size_t n = run->cases->n;
    struct board board = {.run = run,
                          .options = options,
                          .weak = &run->models[run->weak],
                          .strong = &run->models[run->strong],
                          .n = n,
                          .need = mem_alloc_array(n, sizeof(double)),
                          .score = mem_alloc_array(n, sizeof(double)),
                          .half_weak = mem_alloc_array(n, sizeof(double)),
                          .half_strong = mem_alloc_array(n, sizeof(double)),
                          .went = mem_alloc_array(n, sizeof(bool))};
    *out = (struct eval_policies){0};
    err_t e = board.need && board.score && board.half_weak && board.half_strong && board.went ? err_ok()
                                                                                              : no_memory();
    if (e.code == ERR_OK)
        e = make_all(&board, out);
    mem_free(board.need);
    mem_free(board.score);
    mem_free(board.half_weak);
    mem_free(board.half_strong);
    mem_free(board.went);
    if (e.code != ERR_OK)
        eval_policies_free(out);
    return e;
}

void eval_policies_free(struct eval_policies *policies)
{
    for (size_t i = 0; i < policies->n; i++) {
        mem_free(policies->policies[i].went_strong);
        mem_free(policies->policies[i].scores);
    }
    *policies = (struct eval_policies){0};
}

const struct eval_policy *eval_policies_find(const struct eval_policies *policies, const char *name)
{
    for (size_t i = 0; i < policies->n; i++)
        if (strcmp(policies->policies[i].name, name) == 0)
            return &policies->policies[i];
    return NULL;
}
