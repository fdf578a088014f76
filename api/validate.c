#include "api/validate.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "base/checked.h"
#include "base/utf8.h"

#define INVALID(...) err_new(ERR_INVALID_ARGUMENT, __VA_ARGS__)

/* validate_is_too_long reads it again. */
#define PROMPT_HAS "the prompt has "
#define LENGTH_IS  "the model's length is "
#define TOO_LONG(of)                                                                                         \
    PROMPT_HAS "%zu tokens" of "; " LENGTH_IS "%u, so at most %u fit with one token of output"

static err_t validate_name(const char *field, const char *text, size_t max_bytes)
{
    if (!text)
        return err_ok();
    size_t size = strnlen(text, max_bytes + 1);
    if (size > max_bytes)
        return INVALID("%s is longer than %zu bytes", field, max_bytes);
    if (!utf8_valid(text, size))
        return INVALID("%s is not valid UTF-8", field);
    for (size_t i = 0; i < size; i++)
        if ((unsigned char)text[i] < 0x20 || text[i] == 0x7f)
            return INVALID("%s contains a control character at byte %zu", field, i);
    return err_ok();
}

static err_t validate_ids(const char *field, const uint32_t *ids, size_t n, size_t max, uint32_t vocab_size)
{
    if (n > max)
        return INVALID("%s has %zu entries; at most %zu are allowed", field, n, max);
    if (n > 0 && !ids)
        return INVALID("%s is missing its entries", field);
    for (size_t i = 0; i < n; i++)
        if (ids[i] >= vocab_size)
            return INVALID("%s[%zu] is %u; the vocabulary has ids 0 to %u", field, i, ids[i], vocab_size - 1);
    return err_ok();
}

static err_t validate_messages(const struct request *request, const struct validate_limits *limits)
{
    if (!limits->has_chat_template)
        return INVALID("messages need a chat template and this model has none; send text or token ids");
    if (request->n_messages == 0 || request->n_messages > REQUEST_MESSAGES_MAX)
        return INVALID("messages has %zu entries; 1 to %d are allowed", request->n_messages,
                       REQUEST_MESSAGES_MAX);
    if (!request->messages)
        return INVALID("messages is missing its entries");
    for (size_t i = 0; i < request->n_messages; i++) {
        const struct chat_message *message = &request->messages[i];
        if (!message->role || message->role[0] == '\0')
            return INVALID("messages[%zu].role is missing", i);
        char field[64];
        (void)snprintf(field, sizeof field, "messages[%zu].role", i);
        TRY(validate_name(field, message->role, REQUEST_ROLE_BYTES_MAX));
        if (message->content_bytes > 0 && !message->content)
            return INVALID("messages[%zu].content is missing", i);
        if (!utf8_valid(message->content, message->content_bytes))
            return INVALID("messages[%zu].content is not valid UTF-8", i);
    }
    return err_ok();
}

/* The prompt may be longer than the model takes: its end alone counts. */
static bool truncates(const struct sampling_params *params)
{
    return (params->set & SAMPLING_TRUNCATE_PROMPT_TOKENS) &&
           params->truncate_prompt_tokens != SAMPLING_TRUNCATE_NOTHING;
}

static err_t validate_prompt(const struct request *request, const struct validate_limits *limits)
{
    bool whole = !truncates(&request->sampling);
    switch (request->prompt_kind) {
    case PROMPT_NONE:
        return INVALID("the request has no prompt: give text, token ids or messages");
    case PROMPT_TEXT:
        if (!limits->has_tokenizer)
            return INVALID("text needs a tokenizer and the server runs without one; send token ids");
        if (request->text_bytes > 0 && !request->text)
            return INVALID("text is missing");
        if (!utf8_valid(request->text, request->text_bytes))
            return INVALID("text is not valid UTF-8");
        return err_ok();
    case PROMPT_TOKEN_IDS:
        if (request->n_token_ids == 0)
            return INVALID("token_ids is empty; a prompt has at least one token");
        if (whole && request->n_token_ids >= limits->max_model_len)
            return INVALID(TOO_LONG(""), request->n_token_ids, limits->max_model_len,
                           limits->max_model_len - 1);
        return validate_ids("token_ids", request->token_ids, request->n_token_ids,
                            whole ? limits->max_model_len : SIZE_MAX, limits->vocab_size);
    case PROMPT_MESSAGES:
        if (!limits->has_tokenizer)
            return INVALID("messages need a tokenizer and the server runs without one; send token ids");
        return validate_messages(request, limits);
    }
    return INVALID("prompt_kind %d is unknown", (int)request->prompt_kind);
}

/* low <= value <= high, or low < value with `open`. NaN fails every comparison. */
static err_t check_float(bool set, const char *field, float value, double low, double high, bool open)
{
    if (!set)
        return err_ok();
    bool above = open ? (double)value > low : (double)value >= low;
    if (!(above && (double)value <= high && isfinite(value)))
        return INVALID("%s is %g; it must be in %c%g, %g]", field, (double)value, open ? '(' : '[', low,
                       high);
    return err_ok();
}

static err_t check_int(bool set, const char *field, int64_t value, int64_t low, int64_t high)
{
    if (set && (value < low || value > high))
        return INVALID("%s is %lld; it must be %lld to %lld", field, (long long)value, (long long)low,
                       (long long)high);
    return err_ok();
}

err_t validate_sampling(const struct sampling_params *p, const struct validate_limits *limits)
{
    uint32_t set = p->set;
    TRY(check_float(set & SAMPLING_TEMPERATURE, "temperature", p->temperature, 0, 100, false));
    TRY(check_float(set & SAMPLING_TOP_P, "top_p", p->top_p, 0, 1, true));
    TRY(check_float(set & SAMPLING_MIN_P, "min_p", p->min_p, 0, 1, false));
    TRY(check_float(set & SAMPLING_REPETITION_PENALTY, "repetition_penalty", p->repetition_penalty,
                    SAMPLING_REPETITION_PENALTY_MIN, SAMPLING_REPETITION_PENALTY_MAX, false));
    TRY(check_float(set & SAMPLING_PRESENCE_PENALTY, "presence_penalty", p->presence_penalty, -2, 2, false));
    TRY(check_float(set & SAMPLING_FREQUENCY_PENALTY, "frequency_penalty", p->frequency_penalty, -2, 2,
                    false));
    TRY(check_int(set & SAMPLING_TOP_K, "top_k", p->top_k, -1, INT32_MAX));
    uint32_t max_n = limits->max_n < SAMPLING_N_MAX ? limits->max_n : SAMPLING_N_MAX;
    TRY(check_int(set & SAMPLING_N, "n", p->n, 1, max_n));
    TRY(check_int(set & SAMPLING_LOGPROBS, "logprobs", p->logprobs, -1, SAMPLING_LOGPROBS_MAX));
    TRY(check_int(set & SAMPLING_PROMPT_LOGPROBS, "prompt_logprobs", p->prompt_logprobs, -1,
                  SAMPLING_LOGPROBS_MAX));
    int32_t last = p->truncate_prompt_tokens;
    if ((set & SAMPLING_TRUNCATE_PROMPT_TOKENS) && last != SAMPLING_TRUNCATE_TO_FIT &&
        (last < 1 || (uint32_t)last > limits->max_model_len))
        return INVALID("truncate_prompt_tokens is %d; it must be 1 to %u, or -1 for what fits", last,
                       limits->max_model_len);
    return err_ok();
}

static err_t validate_texts(const char *field, const char *const *texts, size_t n, size_t max,
                            const struct validate_limits *limits)
{
    if (n > max)
        return INVALID("%s has %zu entries; at most %zu are allowed", field, n, max);
    if (n > 0 && !limits->has_tokenizer)
        return INVALID("%s needs a tokenizer and the server runs without one", field);
    for (size_t i = 0; i < n; i++) {
        size_t size = texts && texts[i] ? strnlen(texts[i], SAMPLING_STOP_BYTES_MAX + 1) : 0;
        if (size == 0)
            return INVALID("%s[%zu] is empty", field, i);
        if (size > SAMPLING_STOP_BYTES_MAX)
            return INVALID("%s[%zu] is longer than %d bytes", field, i, SAMPLING_STOP_BYTES_MAX);
        if (!utf8_valid(texts[i], size))
            return INVALID("%s[%zu] is not valid UTF-8", field, i);
    }
    return err_ok();
}

static err_t validate_lists(const struct sampling_params *p, const struct validate_limits *limits)
{
    TRY(validate_texts("stop", p->stop, p->n_stop, SAMPLING_STOP_MAX, limits));
    TRY(validate_texts("bad_words", p->bad_words, p->n_bad_words, SAMPLING_BAD_WORDS_MAX, limits));
    TRY(validate_ids("stop_token_ids", p->stop_token_ids, p->n_stop_token_ids, SAMPLING_STOP_IDS_MAX,
                     limits->vocab_size));
    TRY(validate_ids("allowed_token_ids", p->allowed_token_ids, p->n_allowed_token_ids,
                     SAMPLING_ALLOWED_IDS_MAX, limits->vocab_size));
    if (p->n_logit_bias > SAMPLING_LOGIT_BIAS_MAX)
        return INVALID("logit_bias has %zu entries; at most %d are allowed", p->n_logit_bias,
                       SAMPLING_LOGIT_BIAS_MAX);
    if (p->n_logit_bias > 0 && !p->logit_bias)
        return INVALID("logit_bias is missing its entries");
    for (size_t i = 0; i < p->n_logit_bias; i++) {
        const struct logit_bias *entry = &p->logit_bias[i];
        if (entry->token_id >= limits->vocab_size)
            return INVALID("logit_bias[%zu] names token %u; the vocabulary has ids 0 to %u", i,
                           entry->token_id, limits->vocab_size - 1);
        if (!(entry->bias >= -100.0f && entry->bias <= 100.0f))
            return INVALID("logit_bias[%zu] is %g; it must be in [-100, 100]", i, (double)entry->bias);
    }
    return err_ok();
}

err_t validate_request(const struct request *request, const struct validate_limits *limits)
{
    TRY(validate_name("request_id", request->request_id, REQUEST_ID_BYTES_MAX));
    TRY(validate_name("model", request->model, REQUEST_MODEL_BYTES_MAX));
    TRY(validate_name("tenant", request->tenant, REQUEST_TENANT_BYTES_MAX));
    TRY(check_int(true, "priority", request->priority, -REQUEST_PRIORITY_LIMIT, REQUEST_PRIORITY_LIMIT));
    TRY(validate_prompt(request, limits));
    if (request->template_json && request->prompt_kind != PROMPT_MESSAGES)
        return INVALID("template_json is for the template that messages go through; this prompt has none");
    TRY(validate_ids("output_prefix_ids", request->output_prefix_ids, request->n_output_prefix_ids,
                     limits->max_model_len, limits->vocab_size));
    TRY(validate_sampling(&request->sampling, limits));
    TRY(validate_lists(&request->sampling, limits));
    if (request->n_output_prefix_ids > 0 && (request->sampling.set & SAMPLING_N) && request->sampling.n > 1)
        return INVALID("output_prefix_ids continues one choice; n is %u and must be 1", request->sampling.n);
    return err_ok();
}

size_t validate_truncated(const struct sampling_params *params, size_t n_prompt_tokens,
                          const struct validate_limits *limits)
{
    if (!truncates(params))
        return n_prompt_tokens;
    size_t most = (size_t)params->truncate_prompt_tokens;
    if (params->truncate_prompt_tokens == SAMPLING_TRUNCATE_TO_FIT) {
        uint32_t output = params->max_tokens > 0 ? params->max_tokens : 1;
        most = output < limits->max_model_len ? limits->max_model_len - output : 1;
    }
    return n_prompt_tokens < most ? n_prompt_tokens : most;
}

err_t validate_resolved(struct sampling_params *params, size_t n_prompt_tokens, size_t n_output_prefix,
                        const struct validate_limits *limits)
{
    if (n_prompt_tokens == 0)
        return INVALID("the prompt has no tokens");
    size_t used;
    if (!checked_add(n_prompt_tokens, n_output_prefix, &used) || used >= limits->max_model_len)
        return INVALID(TOO_LONG("%s"), used, n_output_prefix ? " with output_prefix_ids" : "",
                       limits->max_model_len, limits->max_model_len - 1);
    if (params->max_tokens != 0 && n_output_prefix >= params->max_tokens)
        return INVALID("output_prefix_ids has %zu tokens and max_tokens is %u: nothing is left to generate",
                       n_output_prefix, params->max_tokens);
    size_t room = limits->max_model_len - n_prompt_tokens;
    if (params->max_tokens == 0 || params->max_tokens > room)
        params->max_tokens = (uint32_t)room;
    if (params->min_tokens > params->max_tokens)
        return INVALID("min_tokens is %u; it must not exceed max_tokens, which is %u here",
                       params->min_tokens, params->max_tokens);
    return err_ok();
}

bool validate_is_too_long(const err_t *e, uint64_t *n_tokens)
{
    const char *count = e->code == ERR_INVALID_ARGUMENT ? strstr(e->message, PROMPT_HAS) : NULL;
    if (count == NULL || strstr(count, LENGTH_IS) == NULL)
        return false;
    char *end;
    count += strlen(PROMPT_HAS);
    *n_tokens = strtoull(count, &end, 10);
    return end > count;
}
