#include "router/gate/eval_run.h"

#include <math.h>
#include <stdio.h>
#include <string.h>
#include "base/alloc.h"
#include "base/progress.h"
#include "base/stop.h"
#include "router/gate/eval_judge.h"

enum { CLASSIFIER_TOKENS = 24, SURE_TOKENS = 16 };

static err_t no_memory(void)
{
    return err_new(ERR_RESOURCE_EXHAUSTED, "no memory for an evaluation of that many cases");
}

static void show(void *context, size_t n_done)
{
    progress_update(context, n_done);
}

static void copy_recorded(const struct eval_case *one, struct eval_answer *answer)
{
    *answer = (struct eval_answer){.was_asked = one->strong != NULL,
                                   .error = "no answer was recorded",
                                   .usage = {-1, -1, -1, -1, -1},
                                   .cost = one->strong_cost,
                                   .first_token_us = -1,
                                   .total_us = one->strong_total_us};
    if (one->strong == NULL)
        return;
    answer->text = mem_strndup(one->strong, one->strong_bytes);
    answer->text_bytes = one->strong_bytes;
    if (answer->text != NULL)
        answer->error[0] = '\0';
}

static err_t ask_model(struct eval_run *run, struct eval_model *model, const struct eval_run_options *options)
{
    size_t n = run->cases->n;
    model->answers = mem_alloc_array(n, sizeof *model->answers);
    model->scores = mem_alloc_array(n, sizeof *model->scores);
    json_t **requests = mem_alloc_array(n, sizeof *requests);
    err_t e = model->answers && model->scores && requests ? err_ok() : no_memory();
    for (size_t i = 0; i < n && e.code == ERR_OK; i++) {
        requests[i] = run->cases->cases[i].request;
        if (model->endpoint == NULL)
            copy_recorded(&run->cases->cases[i], &model->answers[i]);
    }
    if (e.code == ERR_OK && model->endpoint != NULL) {
        struct progress progress;
        progress_begin(&progress, model->name, n);
        progress.enabled &= options->shows_progress;
        e = eval_ask(model->endpoint, requests, n, options->concurrency, show, &progress, model->answers);
        progress_end(&progress);
    }
    mem_free(requests);
    return e;
}

static void free_model(struct eval_model *model, size_t n_cases)
{
    for (size_t i = 0; model->answers != NULL && i < n_cases; i++)
        eval_answer_free(&model->answers[i]);
    mem_free(model->answers);
    mem_free(model->scores);
    eval_endpoint_close(model->endpoint);
    *model = (struct eval_model){0};
}

/* Recorded answers are there without asking; of the others those that nobody got to go. */
static err_t ask_models(struct eval_run *run, const struct eval_run_options *options)
{
    size_t n = 0, weak = EVAL_MODELS_MAX, strong = EVAL_MODELS_MAX;
    for (size_t m = 0; m < run->n_models; m++) {
        struct eval_model *model = &run->models[m];
        if (model->endpoint != NULL && stop_is_wished(options->stop)) {
            free_model(model, 0);
            continue;
        }
        TRY(ask_model(run, model, options));
        weak = m == run->weak ? n : weak;
        strong = m == run->strong ? n : strong;
        if (n < m) {
            run->models[n] = *model;
            *model = (struct eval_model){0};
        }
        n++;
    }
    run->lost.n_models = run->n_models - n;
    run->lost.is_strong = strong == EVAL_MODELS_MAX;
    run->n_models = n;
    run->weak = weak == EVAL_MODELS_MAX ? 0 : weak;
    run->strong = strong == EVAL_MODELS_MAX ? run->weak : strong;
    return err_ok();
}

/* Where nothing is expected, the strong model's answer is what others are held against. */
static bool needs_reference(const struct eval_case *one)
{
    return one->check.kind == CHECK_NONE;
}

/* Can anything be said of it, and of each model? */
static bool is_kept(const struct eval_run *run, size_t i)
{
    bool is_kept = run->n_models > 0 && !(run->lost.is_strong && needs_reference(&run->cases->cases[i]));
    for (size_t m = 0; m < run->n_models && is_kept; m++)
        is_kept = run->models[m].answers[i].was_asked;
    return is_kept;
}

/* Has it an answer by every model whose answers are those of the file? */
static bool is_recorded(const struct eval_run *run, size_t i)
{
    bool is_recorded = true;
    for (size_t m = 0; m < run->n_models && is_recorded; m++)
        is_recorded = run->models[m].endpoint != NULL || run->models[m].answers[i].was_asked;
    return is_recorded;
}

static void move_case(struct eval_run *run, size_t from, size_t to)
{
    run->kept_cases[to] = run->cases->cases[from];
    for (size_t m = 0; m < run->n_models && to < from; m++) {
        run->models[m].answers[to] = run->models[m].answers[from];
        run->models[m].answers[from].text = NULL;
    }
}

static bool has_lost(const struct eval_run *run)
{
    const struct eval_lost *lost = &run->lost;
    return lost->n_cases > 0 || lost->n_models > 0 || lost->is_judge || lost->is_classifier;
}

/* Figures are of cases that all models were asked, so that they can be held beside each other. */
static err_t leave_out(struct eval_run *run)
{
    size_t n = 0;
    run->n_given = run->cases->n;
    run->kept_cases = mem_alloc_array(run->n_given, sizeof *run->kept_cases);
    if (run->kept_cases == NULL)
        return no_memory();
    for (size_t i = 0; i < run->n_given; i++) {
        if (is_kept(run, i)) {
            move_case(run, i, n++);
            continue;
        }
        run->lost.n_cases += is_recorded(run, i);
        for (size_t m = 0; m < run->n_models; m++)
            eval_answer_free(&run->models[m].answers[i]);
    }
    run->n_left_out = run->n_given - n;
    run->kept = *run->cases;
    run->kept.cases = run->kept_cases;
    run->kept.n = n;
    run->cases = &run->kept;
    for (size_t m = 0; m < run->n_models; m++)
        for (size_t i = 0; i < n; i++)
            run->models[m].n_failed += run->models[m].answers[i].text == NULL;
    if (n > 0)
        return err_ok();
    return has_lost(run) ? err_new(ERR_CANCELLED, "stopped before there was anything to report")
                         : err_new(ERR_INVALID_ARGUMENT, "no case has a recorded answer (\"strong\")");
}

static double score_one(const struct eval_case *one, const struct eval_answer *answer,
                        const struct eval_answer *reference)
{
    if (answer->text == NULL)
        return 0;
    if (!needs_reference(one))
        return eval_check_score(&one->check, answer->text, answer->text_bytes);
    if (answer == reference)
        return 1;
    if (reference->text == NULL)
        return 0;
    struct eval_check check = eval_check_like(reference->text, reference->text_bytes);
    if (one->kind != CHECK_NONE)
        check.kind = one->kind;
    check.fields = one->check.fields;
    check.labels = one->check.labels;
    check.tolerance = one->check.tolerance;
    return eval_check_validate(&check).code == ERR_OK
               ? eval_check_score(&check, answer->text, answer->text_bytes)
               : 0;
}

static void score_all(struct eval_run *run)
{
    const struct eval_model *strong = &run->models[run->strong];
    for (size_t m = 0; m < run->n_models; m++)
        for (size_t i = 0; i < run->cases->n; i++)
            run->models[m].scores[i] =
                score_one(&run->cases->cases[i], &run->models[m].answers[i], &strong->answers[i]);
}

/* Has the judge a say about this answer? */
static bool is_judged(const struct eval_run *run, size_t model, size_t i)
{
    const struct eval_case *one = &run->cases->cases[i];
    return model != run->strong && needs_reference(one) && one->kind == CHECK_NONE &&
           run->models[model].answers[i].text != NULL && run->models[run->strong].answers[i].text != NULL;
}

static err_t judge_model(struct eval_run *run, size_t index, const struct eval_run_options *options)
{
    struct eval_model *model = &run->models[index];
    size_t n = run->cases->n, n_judged = 0;
    struct eval_judgement *judgements = mem_alloc_array(n, sizeof *judgements);
    if (judgements == NULL)
        return no_memory();
    for (size_t i = 0; i < n; i++) {
        const struct eval_answer *reference = &run->models[run->strong].answers[i],
                                 *answer = &model->answers[i];
        if (is_judged(run, index, i))
            judgements[n_judged++] = (struct eval_judgement){.request = run->cases->cases[i].request,
                                                             .reference = reference->text,
                                                             .reference_bytes = reference->text_bytes,
                                                             .answer = answer->text,
                                                             .answer_bytes = answer->text_bytes};
    }
    struct progress progress;
    progress_begin(&progress, "judge", 2 * n_judged);
    progress.enabled &= options->shows_progress;
    err_t e = eval_judge(run->judge, judgements, n_judged, options->concurrency, show, &progress);
    progress_end(&progress);
    for (size_t i = 0, at = 0; i < n && e.code == ERR_OK; i++) {
        if (!is_judged(run, index, i))
            continue;
        run->lost.is_judge |= !judgements[at].was_asked;
        double score = judgements[at++].score;
        run->n_unjudged += isnan(score);
        if (!isnan(score))
            model->scores[i] = score;
    }
    mem_free(judgements);
    return e;
}

static err_t judge_all(struct eval_run *run, const struct eval_run_options *options)
{
    for (size_t m = 0; m < run->n_models && !run->lost.is_judge; m++)
        TRY(judge_model(run, m, options));
    if (run->lost.is_judge) { /* one column is of one kind of score */
        score_all(run);
        run->n_unjudged = 0;
    }
    return err_ok();
}

double eval_difficulty_of(const struct eval_answer *answer, const char *easy_label, const char *hard_label)
{
    if (answer->text == NULL)
        return 0.5;
    const char *easy = strstr(answer->text, easy_label), *hard = strstr(answer->text, hard_label);
    if ((easy == NULL) == (hard == NULL))
        return 0.5;
    double sure = answer->n_margins > 0 ? 1 - eval_answer_doubt(answer, SURE_TOKENS) : 1;
    return hard != NULL ? 0.5 + sure / 2 : 0.5 - sure / 2;
}

static const json_t *last_user_text(const json_t *request)
{
    const json_t *messages = json_object_get(request, "messages");
    for (size_t i = json_array_size(messages); i-- > 0;) {
        const json_t *message = json_array_get(messages, i), *content = json_object_get(message, "content");
        const char *role = json_string_value(json_object_get(message, "role"));
        if (role != NULL && strcmp(role, "user") == 0 && json_is_string(content))
            return content;
    }
    return NULL;
}

static json_t *classifier_request(const json_t *request, const char *prompt)
{
    const json_t *text = last_user_text(request);
    if (text == NULL)
        return NULL;
    json_t *asked =
        json_pack("{s:[{s:s, s:s++}], s:i, s:i}", "messages", "role", "user", "content", prompt, "\n\n",
                  json_string_value(text), "max_tokens", CLASSIFIER_TOKENS, "temperature", 0);
    json_t *ours = json_object_get(request, "bantam"); /* what must stay stays in a question about it too */
    if (asked != NULL && ours != NULL && json_object_set(asked, "bantam", ours) != 0) {
        json_decref(asked);
        return NULL;
    }
    return asked;
}

static err_t classify(struct eval_run *run, const struct eval_run_options *options)
{
    size_t n = run->cases->n;
    json_t **requests = mem_alloc_array(n, sizeof *requests);
    struct eval_answer *answers = mem_alloc_array(n, sizeof *answers);
    struct progress progress;
    progress_begin(&progress, "classifier", n);
    progress.enabled &= options->shows_progress;
    err_t e = requests && answers ? err_ok() : no_memory();
    for (size_t i = 0; i < n && e.code == ERR_OK; i++)
        requests[i] = classifier_request(run->cases->cases[i].request, options->classifier_prompt);
    if (e.code == ERR_OK)
        e = eval_ask(run->models[run->weak].endpoint, requests, n, options->concurrency, show, &progress,
                     answers);
    progress_end(&progress);
    for (size_t i = 0; i < n && e.code == ERR_OK; i++) {
        run->difficulty[i] = eval_difficulty_of(&answers[i], options->easy_label, options->hard_label);
        run->lost.is_classifier |= requests[i] != NULL && !answers[i].was_asked;
    }
    if (run->lost.is_classifier) { /* half of it would say nothing of the classifier */
        mem_free(run->difficulty);
        run->difficulty = NULL;
    }
    for (size_t i = 0; i < n; i++) {
        if (requests != NULL)
            json_decref(requests[i]);
        if (answers != NULL)
            eval_answer_free(&answers[i]);
    }
    mem_free(requests);
    mem_free(answers);
    return e;
}

static err_t find_difficulty(struct eval_run *run, const struct eval_run_options *options)
{
    size_t n_told = 0;
    for (size_t i = 0; i < run->cases->n; i++)
        n_told += run->cases->cases[i].difficulty >= 0;
    bool asks = options->classifier_prompt != NULL && run->models[run->weak].endpoint != NULL;
    if (!asks && n_told < run->cases->n)
        return err_ok();
    run->difficulty = mem_alloc_array(run->cases->n, sizeof *run->difficulty);
    if (run->difficulty == NULL)
        return no_memory();
    for (size_t i = 0; i < run->cases->n; i++)
        run->difficulty[i] = run->cases->cases[i].difficulty;
    return asks ? classify(run, options) : err_ok();
}

err_t eval_run(struct eval_run *run, const struct eval_run_options *options)
{
    TRY(ask_models(run, options));
    TRY(leave_out(run));
    score_all(run);
    if (run->judge != NULL)
        TRY(judge_all(run, options));
    TRY(find_difficulty(run, options));
    run->is_partial = has_lost(run);
    return err_ok();
}

void eval_run_free(struct eval_run *run)
{
    for (size_t m = 0; m < run->n_models; m++)
        free_model(&run->models[m], run->cases->n);
    eval_endpoint_close(run->judge);
    mem_free(run->kept_cases);
    mem_free(run->difficulty);
    *run = (struct eval_run){0};
}
