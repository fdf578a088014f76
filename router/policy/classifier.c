#include "router/policy/classifier.h"

#include <math.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include "base/alloc.h"
#include "base/assert.h"

enum { TOKENIZER_NAME_BYTES = 64 };

struct classifier {
    const struct classifier_config *config;
    struct local_fleet *fleet;
    const struct clock *clock;
    pthread_mutex_t mutex;
    /* Under the mutex. */
    bool is_prepared, is_chat;
    char tokenizer[TOKENIZER_NAME_BYTES]; /* whose ids they are */
    uint32_t ids[CLASSIFIER_LABELS_MAX];
};

err_t classifier_open(const struct classifier_config *config, struct local_fleet *fleet,
                      const struct clock *clock, struct classifier **out)
{
    ASSERT(config->model && config->n_labels >= 1 && config->n_labels <= CLASSIFIER_LABELS_MAX);
    struct classifier *classifier = mem_alloc(sizeof *classifier);
    if (!classifier)
        return err_new(ERR_RESOURCE_EXHAUSTED, "no memory for the classifier");
    classifier->config = config;
    classifier->fleet = fleet;
    classifier->clock = clock;
    pthread_mutex_init(&classifier->mutex, NULL);
    *out = classifier;
    return err_ok();
}

void classifier_close(struct classifier *classifier)
{
    if (!classifier)
        return;
    pthread_mutex_destroy(&classifier->mutex);
    mem_free(classifier);
}

/* --- labels */

static err_t label_id(struct classifier *classifier, size_t label, bool is_chat, int64_t timeout_ns,
                      uint32_t *out)
{
    const char *name = classifier->config->labels[label].text;
    char text[256];
    uint32_t *ids;
    size_t n;
    int size = snprintf(text, sizeof text, "%s%s", is_chat ? "" : " ", name);
    if (size >= (int)sizeof text)
        return err_new(ERR_INVALID_ARGUMENT, "classifier.labels[%zu] is longer than %zu bytes", label,
                       sizeof text - 2);
    struct request request = {
        .prompt_kind = PROMPT_TEXT, .text = text, .text_bytes = (size_t)size, .no_special_tokens = true};
    TRY(local_fleet_tokenize(classifier->fleet, classifier->config->local, &request, timeout_ns, &ids, &n));
    err_t e = n > 0
                  ? err_ok()
                  : err_new(ERR_INVALID_ARGUMENT, "classifier.labels[%zu]: \"%s\" has no token", label, name);
    if (n > 0)
        *out = ids[0];
    mem_free(ids);
    return e;
}

static err_t check_label(const struct classifier_config *config, const uint32_t *ids, size_t label)
{
    for (size_t i = 0; i < label; i++) {
        if (ids[i] == ids[label])
            return err_new(ERR_INVALID_ARGUMENT,
                           "the labels \"%s\" and \"%s\" of the classifier begin with the same token (%u) of "
                           "its model: give one another name",
                           config->labels[i].text, config->labels[label].text, ids[i]);
    }
    return err_ok();
}

err_t classifier_prepare(struct classifier *classifier, int64_t timeout_ns)
{
    const struct classifier_config *config = classifier->config;
    uint32_t ids[CLASSIFIER_LABELS_MAX];
    struct local_view view;
    if (!local_fleet_view(classifier->fleet, config->local, &view) || !view.has_info)
        return err_new(ERR_UNAVAILABLE, "no engine of the classifier's model %s is up", config->model);
    bool is_chat = view.info.has_chat_template;
    for (size_t i = 0; i < config->n_labels; i++) {
        TRY(label_id(classifier, i, is_chat, timeout_ns, &ids[i]));
        TRY(check_label(config, ids, i));
    }
    pthread_mutex_lock(&classifier->mutex);
    memcpy(classifier->ids, ids, config->n_labels * sizeof *ids);
    classifier->is_chat = is_chat;
    (void)snprintf(classifier->tokenizer, sizeof classifier->tokenizer, "%s",
                   view.info.tokenizer_fingerprint);
    classifier->is_prepared = true;
    pthread_mutex_unlock(&classifier->mutex);
    return err_ok();
}

/* Under the mutex. */
static bool is_ready(const struct classifier *classifier)
{
    struct local_view view;
    return classifier->is_prepared && local_fleet_view(classifier->fleet, classifier->config->local, &view) &&
           view.has_info &&
           strncmp(view.info.tokenizer_fingerprint, classifier->tokenizer, TOKENIZER_NAME_BYTES - 1) == 0;
}

bool classifier_is_ready(struct classifier *classifier)
{
    pthread_mutex_lock(&classifier->mutex);
    bool ready = is_ready(classifier);
    pthread_mutex_unlock(&classifier->mutex);
    return ready;
}

/* --- scores */

static const struct token_logprob *find_token(const struct position_logprobs *position, uint32_t id)
{
    for (uint32_t i = 0; i < position->n_top; i++)
        if (position->top[i].token_id == id)
            return &position->top[i];
    return position->chosen.token_id == id ? &position->chosen : NULL;
}

bool classifier_score(const struct position_logprobs *position, const uint32_t *ids, size_t n, double *scores)
{
    double probabilities[CLASSIFIER_LABELS_MAX], told = 0, least = 1;
    ASSERT(n <= CLASSIFIER_LABELS_MAX);
    for (uint32_t i = 0; i < position->n_top; i++) {
        double p = exp((double)position->top[i].logprob);
        told += p;
        least = p < least ? p : least;
    }
    for (size_t i = 0; i < n; i++) {
        const struct token_logprob *token = find_token(position, ids[i]);
        probabilities[i] = token ? exp((double)token->logprob) : -1;
    }
    return classifier_share(probabilities, n, told, least, scores);
}

/* --- what is asked */

struct piece {
    const char *text;
    size_t bytes;
};

/* What the caller says last: an earlier turn has been answered already. */
static err_t find_text(const struct request *request, struct piece *out)
{
    if (request->prompt_kind == PROMPT_TEXT) {
        *out = (struct piece){request->text, request->text_bytes};
        return err_ok();
    }
    if (request->prompt_kind != PROMPT_MESSAGES || request->n_messages == 0)
        return err_new(ERR_UNIMPLEMENTED, "a request without a text cannot be classified");
    size_t at = request->n_messages - 1;
    while (at > 0 && strcmp(request->messages[at].role, "user") != 0)
        at--;
    *out = (struct piece){request->messages[at].content, request->messages[at].content_bytes};
    return err_ok();
}

struct classifying {
    struct classifier *classifier;
    void (*done)(void *context, const struct classifier_verdict *verdict);
    void *context;
    bool is_scored, is_answered;
    uint32_t ids[CLASSIFIER_LABELS_MAX];
    struct classifier_verdict verdict;
};

static bool on_event(void *context, const struct event *event)
{
    struct classifying *classifying = context;
    size_t n = classifying->classifier->config->n_labels;
    if (event->n_logprobs > 0 && !classifying->is_answered) {
        classifying->is_answered = true;
        classifying->is_scored =
            classifier_score(&event->logprobs[0], classifying->ids, n, classifying->verdict.scores);
    }
    return true;
}

static void on_end(void *context, const struct local_result *result)
{
    struct classifying *classifying = context;
    struct classifier_verdict *verdict = &classifying->verdict;
    verdict->error = result->error;
    verdict->took_ns = result->ended_ns - result->started_ns;
    if (verdict->error.code == ERR_OK && !classifying->is_scored)
        verdict->error = err_new(ERR_INTERNAL, "the classifier's model answered with none of its labels");
    if (verdict->error.code == ERR_OK)
        classifier_judge(classifying->classifier->config, verdict);
    classifying->done(classifying->context, verdict);
    mem_free(classifying);
}

static bool write_prompt(const struct classifier_config *config, const struct piece *piece, bool is_chat,
                         struct buffer *out)
{
    out->limit_bytes = strlen(config->prompt) + CLASSIFIER_TEXT_BYTES_MAX + 64;
    return classifier_write_prompt(config, piece->text, piece->bytes, out) &&
           (is_chat || buffer_append_text(out, "\n\nAnswer:"));
}

static err_t start(struct classifying *classifying, const struct request *about, const struct piece *piece,
                   bool is_chat, struct local_call **out)
{
    static const struct local_handler HANDLER = {.event = on_event, .end = on_end};
    struct classifier *classifier = classifying->classifier;
    struct buffer prompt = {.data = NULL};
    if (!write_prompt(classifier->config, piece, is_chat, &prompt)) {
        buffer_free(&prompt);
        return err_new(ERR_RESOURCE_EXHAUSTED, "no memory to classify a request");
    }
    struct chat_message message = {"user", prompt.data, prompt.size};
    struct request request = {.prompt_kind = is_chat ? PROMPT_MESSAGES : PROMPT_TEXT,
                              .text = prompt.data,
                              .text_bytes = prompt.size,
                              .messages = &message,
                              .n_messages = 1,
                              .priority = about->priority,
                              .tenant = about->tenant,
                              .cache_salt = about->cache_salt};
    request.sampling.set = SAMPLING_TEMPERATURE | SAMPLING_MAX_TOKENS | SAMPLING_LOGPROBS;
    request.sampling.max_tokens = 1;
    request.sampling.logprobs = SAMPLING_LOGPROBS_MAX;
    request.sampling.allowed_token_ids = classifying->ids;
    request.sampling.n_allowed_token_ids = classifier->config->n_labels;
    request.deadline_ns = clock_now_ns(classifier->clock) + classifier->config->timeout_ms * 1000000;
    if (about->deadline_ns < request.deadline_ns)
        request.deadline_ns = about->deadline_ns;
    struct local_call *call;
    err_t e = local_call_start(classifier->fleet, classifier->config->local, &request, &HANDLER, classifying,
                               out ? out : &call);
    buffer_free(&prompt);
    if (e.code == ERR_OK && !out)
        local_call_release(call);
    return e;
}

err_t classifier_ask(struct classifier *classifier, const struct request *request,
                     void (*done)(void *context, const struct classifier_verdict *verdict), void *context,
                     struct local_call **out)
{
    struct piece piece = {"", 0};
    TRY(find_text(request, &piece));
    struct classifying *classifying = mem_alloc(sizeof *classifying);
    if (!classifying)
        return err_new(ERR_RESOURCE_EXHAUSTED, "no memory to classify a request");
    classifying->classifier = classifier;
    classifying->done = done;
    classifying->context = context;
    pthread_mutex_lock(&classifier->mutex);
    bool ready = is_ready(classifier), is_chat = classifier->is_chat;
    memcpy(classifying->ids, classifier->ids, sizeof classifying->ids);
    pthread_mutex_unlock(&classifier->mutex);
    err_t e = ready ? start(classifying, request, &piece, is_chat, out)
                    : err_new(ERR_UNAVAILABLE, "the classifier does not know its labels' tokens yet");
    if (e.code != ERR_OK)
        mem_free(classifying);
    return e;
}
