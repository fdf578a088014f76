#include "router/policy/remote_classifier.h"

#include <math.h>
#include <string.h>
#include <strings.h>
#include "base/alloc.h"
#include "base/assert.h"

enum {
    TOP_LOGPROBS = 20,         /* the most that OpenAI takes */
    ANSWER_BYTES_MAX = 63,     /* what is longer than a label is none */
    BYTES_PER_TOKEN_LEAST = 2, /* for money */
    TOKENS_OF_FORM = 64,       /* what a template adds */
};

/* --- scores */

static bool is_blank(char c)
{
    return c == ' ' || c == '\t' || c == '\n' || c == '\r';
}

size_t remote_classifier_label(const struct classifier_config *config, const char *text, size_t text_bytes)
{
    while (text_bytes > 0 && is_blank(text[0])) {
        text++;
        text_bytes--;
    }
    while (text_bytes > 0 && (is_blank(text[text_bytes - 1]) || text[text_bytes - 1] == '.'))
        text_bytes--;
    size_t found = config->n_labels;
    for (size_t i = 0; i < config->n_labels && text_bytes > 0; i++) {
        const char *label = config->labels[i].text;
        if (strlen(label) < text_bytes || strncasecmp(label, text, text_bytes) != 0)
            continue;
        if (found < config->n_labels)
            return config->n_labels; /* it may become either */
        found = i;
    }
    return found;
}

/* One token of the answer's place: its share goes to its label. */
static void add_token(const struct classifier_config *config, const json_t *entry, double *probabilities,
                      double *told, double *least)
{
    const json_t *token = json_object_get(entry, "token"), *logprob = json_object_get(entry, "logprob");
    double p = json_is_number(logprob) ? exp(fmin(json_number_value(logprob), 0)) : -1;
    if (!json_is_string(token) || !(p >= 0))
        return;
    *told += p;
    *least = fmin(*least, p);
    size_t label = remote_classifier_label(config, json_string_value(token), json_string_length(token));
    if (label < config->n_labels)
        probabilities[label] = fmax(probabilities[label], 0) + p;
}

bool remote_classifier_score(const struct classifier_config *config, const json_t *logprobs, double *scores)
{
    double probabilities[CLASSIFIER_LABELS_MAX], told = 0, least = 1;
    const json_t *first = json_array_get(json_object_get(logprobs, "content"), 0);
    const json_t *top = json_object_get(first, "top_logprobs"), *name = json_object_get(first, "token");
    for (size_t i = 0; i < config->n_labels; i++)
        probabilities[i] = -1;
    bool is_among = false; /* the token itself among the best */
    for (size_t i = 0; i < json_array_size(top); i++) {
        const json_t *entry = json_array_get(top, i);
        is_among = is_among || json_equal(json_object_get(entry, "token"), name);
        add_token(config, entry, probabilities, &told, &least);
    }
    if (!is_among)
        add_token(config, first, probabilities, &told, &least);
    return classifier_share(probabilities, config->n_labels, told, least, scores);
}

/* --- asking */

struct asking {
    const struct classifier_config *config;
    struct provider provider; /* the configuration's, but for its times */
    struct provider_model model;
    uint32_t ids[CLASSIFIER_LABELS_MAX];
    void (*done)(void *context, const struct classifier_verdict *verdict,
                 const struct provider_result *result);
    void *context;
    bool is_scored;
    double scores[CLASSIFIER_LABELS_MAX];
    char answer[ANSWER_BYTES_MAX + 1];
    size_t answer_bytes;
};

static err_t on_piece(void *context, const struct answer_piece *piece, bool *pause)
{
    struct asking *asking = context;
    (void)pause;
    if (piece->kind == ANSWER_LOGPROBS && !asking->is_scored)
        asking->is_scored = remote_classifier_score(asking->config, piece->logprobs, asking->scores);
    if (piece->kind != ANSWER_TEXT)
        return err_ok();
    size_t room = ANSWER_BYTES_MAX - asking->answer_bytes,
           n = piece->text_bytes < room ? piece->text_bytes : room;
    memcpy(asking->answer + asking->answer_bytes, piece->text, n);
    asking->answer_bytes += n;
    return err_ok();
}

/* Without probabilities the answer itself is the verdict. */
static bool take_at_his_word(const struct asking *asking, double *scores)
{
    size_t n = asking->config->n_labels,
           label = remote_classifier_label(asking->config, asking->answer, asking->answer_bytes);
    for (size_t i = 0; i < n; i++)
        scores[i] = i == label ? 1 : 0;
    return label < n;
}

static void on_end(void *context, const struct provider_result *result)
{
    struct asking *asking = context;
    struct classifier_verdict verdict = {.error = result->error,
                                         .took_ns = result->times.ended_ns - result->times.started_ns};
    memcpy(verdict.scores, asking->scores, sizeof verdict.scores);
    if (verdict.error.code == ERR_OK && !asking->is_scored && !take_at_his_word(asking, verdict.scores))
        verdict.error = err_new(ERR_INTERNAL, "the classifier's model answered with none of its labels");
    if (verdict.error.code == ERR_OK)
        classifier_judge(asking->config, &verdict);
    asking->done(asking->context, &verdict, result);
    mem_free(asking);
}

static const struct provider_handler HANDLER = {.piece = on_piece, .end = on_end};

/* What the user says last: texts, and those of parts. */
static bool append_user_text(const json_t *request, struct buffer *out)
{
    const json_t *messages = json_object_get(request, "messages");
    size_t at = json_array_size(messages);
    const json_t *message = json_array_get(messages, at - 1);
    for (size_t i = at; i-- > 0;) {
        const char *role = json_string_value(json_object_get(json_array_get(messages, i), "role"));
        if (role && strcmp(role, "user") == 0) {
            message = json_array_get(messages, i);
            break;
        }
    }
    const json_t *content = json_object_get(message, "content"), *part;
    if (json_is_string(content))
        return buffer_append(out, json_string_value(content), json_string_length(content));
    size_t i;
    bool fits = true;
    json_array_foreach((json_t *)content, i, part)
    {
        const json_t *text = json_object_get(part, "text");
        if (json_is_string(text))
            fits = fits && buffer_append(out, json_string_value(text), json_string_length(text));
    }
    return fits;
}

static err_t write_question(const struct classifier_config *config, const json_t *request, json_t **out)
{
    struct buffer text = {.limit_bytes = PROVIDER_REQUEST_BYTES_MAX}, prompt = {.limit_bytes = SIZE_MAX / 2};
    bool fits = append_user_text(request, &text);
    if (fits && text.size == 0) {
        buffer_free(&text);
        return err_new(ERR_UNIMPLEMENTED, "a request without a text cannot be classified");
    }
    fits = fits && classifier_write_prompt(config, text.data, text.size, &prompt);
    json_t *question = fits ? json_pack("{s:[{s:s, s:s%}], s:i, s:i}", "messages", "role", "user", "content",
                                        prompt.data, prompt.size, "max_tokens", 1, "temperature", 0)
                            : NULL;
    buffer_free(&text);
    buffer_free(&prompt);
    *out = question;
    return question ? err_ok() : err_new(ERR_RESOURCE_EXHAUSTED, "no memory to classify a request");
}

static int64_t sooner(int64_t a_ms, int64_t b_ms)
{
    return a_ms == 0 || b_ms < a_ms ? b_ms : a_ms;
}

static struct asking *asking_make(const struct classifier_config *config, int64_t left_ms)
{
    struct asking *asking = mem_alloc(sizeof *asking);
    if (asking == NULL)
        return NULL;
    int64_t most_ms = sooner(config->timeout_ms, left_ms > 0 ? left_ms : 1);
    asking->config = config;
    asking->provider = *config->provider;
    asking->provider.connect_timeout_ms = sooner(config->provider->connect_timeout_ms, most_ms);
    asking->provider.first_byte_timeout_ms = asking->provider.total_timeout_ms = most_ms;
    asking->model = *config->provider_model;
    asking->model.top_logprobs = TOP_LOGPROBS;
    if (config->labels[0].token_id < 0)
        return asking;
    for (size_t i = 0; i < config->n_labels; i++)
        asking->ids[i] = (uint32_t)config->labels[i].token_id;
    asking->model.only_token_ids = asking->ids;
    asking->model.n_only_token_ids = config->n_labels;
    return asking;
}

err_t remote_classifier_ask(const struct classifier_config *config, struct egress *egress,
                            const struct shareable *shareable, int64_t left_ms,
                            void (*done)(void *context, const struct classifier_verdict *verdict,
                                         const struct provider_result *result),
                            void *context, uint64_t *number)
{
    ASSERT(config->provider && config->provider_model);
    if (shareable_request(shareable) == NULL)
        return err_new(ERR_PERMISSION_DENIED, "this request must not leave the machine");
    json_t *text = NULL;
    TRY(write_question(config, shareable_request(shareable), &text));
    struct shareable question = {0};
    struct provider_dropped dropped;
    struct asking *asking = asking_make(config, left_ms);
    err_t e = asking ? err_ok() : err_new(ERR_RESOURCE_EXHAUSTED, "no memory to classify a request");
    if (e.code == ERR_OK) {
        asking->done = done;
        asking->context = context;
        shareable_derive(shareable, text, &question);
        e = provider_call_start(egress, &asking->provider, &asking->model, &question, false, &HANDLER, asking,
                                &dropped, number);
    }
    if (e.code != ERR_OK)
        mem_free(asking);
    shareable_free(&question);
    json_decref(text);
    return e;
}

nanodollars remote_classifier_estimate(const struct classifier_config *config)
{
    uint64_t bytes = strlen(config->prompt) + CLASSIFIER_TEXT_BYTES_MAX;
    return price_estimate(&config->provider_model->price, bytes / BYTES_PER_TOKEN_LEAST + TOKENS_OF_FORM, 1);
}
