#include "router/gate/eval_judge.h"

#include <ctype.h>
#include <math.h>
#include <string.h>
#include "base/alloc.h"
#include "base/buffer.h"
#include "router/providers/json_text.h"

enum { JUDGE_BYTES_MAX = 8 << 20, JUDGE_TOKENS = 8 };

static const char TASK[] =
    "Two assistants answered the same request. Judge which answer serves it better: right and complete "
    "comes first, style does not count, and longer is not better.";
static const char QUESTION[] =
    "\n\nReply with one letter: A if answer A is better, B if answer B is better, C if they are "
    "equally good.";

static bool append_request(struct buffer *text, const json_t *request)
{
    const json_t *messages = json_object_get(request, "messages");
    for (size_t i = 0; i < json_array_size(messages); i++) {
        const json_t *message = json_array_get(messages, i), *content = json_object_get(message, "content");
        const char *role = json_string_value(json_object_get(message, "role"));
        if (!buffer_append_format(text, "[%.32s] ", role ? role : "?"))
            return false;
        bool fits = json_is_string(content)
                        ? buffer_append(text, json_string_value(content), json_string_length(content))
                        : content == NULL || json_text_append(text, content).code == ERR_OK;
        if (!fits || !buffer_append_text(text, "\n"))
            return false;
    }
    return true;
}

json_t *eval_judge_request(const struct eval_judgement *judgement, bool is_swapped)
{
    const char *a = is_swapped ? judgement->answer : judgement->reference;
    const char *b = is_swapped ? judgement->reference : judgement->answer;
    size_t a_bytes = is_swapped ? judgement->answer_bytes : judgement->reference_bytes;
    size_t b_bytes = is_swapped ? judgement->reference_bytes : judgement->answer_bytes;
    struct buffer text = {.limit_bytes = JUDGE_BYTES_MAX};
    bool fits = buffer_append_text(&text, TASK) && buffer_append_text(&text, "\n\n--- The request\n") &&
                append_request(&text, judgement->request) && buffer_append_text(&text, "\n--- Answer A\n") &&
                buffer_append(&text, a, a_bytes) && buffer_append_text(&text, "\n\n--- Answer B\n") &&
                buffer_append(&text, b, b_bytes) && buffer_append_text(&text, QUESTION);
    json_t *request = fits ? json_pack("{s:[{s:s, s:s%}], s:i, s:i}", "messages", "role", "user", "content",
                                       text.data, text.size, "max_tokens", JUDGE_TOKENS, "temperature", 0)
                           : NULL;
    buffer_free(&text);
    json_t *ours = json_object_get(judgement->request, "bantam");
    if (request != NULL && ours != NULL && json_object_set(request, "bantam", ours) != 0) {
        json_decref(request);
        return NULL;
    }
    return request;
}

char eval_judge_word(const char *text, size_t text_bytes)
{
    for (size_t i = 0; i < text_bytes; i++) {
        bool alone = (i == 0 || !isalnum((unsigned char)text[i - 1])) &&
                     (i + 1 == text_bytes || !isalnum((unsigned char)text[i + 1]));
        if (alone && text[i] >= 'A' && text[i] <= 'C')
            return text[i];
    }
    return 0;
}

/* What one reply says of the answer: 1, 0 or NaN. */
static double value_of(const struct eval_answer *reply, bool is_swapped)
{
    char word = reply->text ? eval_judge_word(reply->text, reply->text_bytes) : 0;
    if (word == 0)
        return NAN;
    return word != (is_swapped ? 'B' : 'A');
}

static double both(double first, double second)
{
    if (isnan(first) || isnan(second))
        return isnan(first) ? second : first;
    return (first + second) / 2;
}

err_t eval_judge(struct eval_endpoint *judge, struct eval_judgement *judgements, size_t n,
                 uint32_t concurrency, void (*done)(void *context, size_t n_done), void *context)
{
    json_t **requests = mem_alloc_array(2 * n + 1, sizeof *requests);
    struct eval_answer *replies = mem_alloc_array(2 * n + 1, sizeof *replies);
    err_t e = requests && replies ? err_ok() : err_new(ERR_RESOURCE_EXHAUSTED, "no memory for a judge");
    for (size_t i = 0; i < 2 * n && e.code == ERR_OK; i++) {
        requests[i] = eval_judge_request(&judgements[i / 2], i % 2);
        if (requests[i] == NULL)
            e = err_new(ERR_RESOURCE_EXHAUSTED, "no memory for a judge, or a request of more than %d bytes",
                        JUDGE_BYTES_MAX);
    }
    if (e.code == ERR_OK)
        e = eval_ask(judge, requests, 2 * n, concurrency, done, context, replies);
    for (size_t i = 0; i < n && e.code == ERR_OK; i++) {
        judgements[i].score = both(value_of(&replies[2 * i], false), value_of(&replies[2 * i + 1], true));
        judgements[i].was_asked = replies[2 * i].was_asked && replies[2 * i + 1].was_asked;
    }
    for (size_t i = 0; i < 2 * n; i++) {
        if (requests != NULL)
            json_decref(requests[i]);
        if (replies != NULL)
            eval_answer_free(&replies[i]);
    }
    mem_free(requests);
    mem_free(replies);
    return e;
}
