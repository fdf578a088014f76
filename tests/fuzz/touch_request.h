/* For targets that decode requests: what a decoder says is there is read, so that the sanitizer sees what is
 * not. */
#pragma once

#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include "api/request.h"

/* Reads every byte that a decoded list claims to have: what lies outside, the sanitizer sees. */
static inline uint64_t touch(const void *data, size_t size_bytes)
{
    uint64_t sum = 0;
    for (size_t i = 0; i < size_bytes; i++)
        sum += ((const uint8_t *)data)[i];
    return sum;
}

static inline uint64_t touch_names(const char *const *names, size_t n)
{
    uint64_t sum = 0;
    for (size_t i = 0; i < n; i++)
        sum += touch(names[i], strlen(names[i]) + 1);
    return sum;
}

static inline uint64_t touch_request(const struct request *request)
{
    const struct sampling_params *s = &request->sampling;
    uint64_t sum = touch(request->text, request->text_bytes);
    sum += touch(request->token_ids, request->n_token_ids * sizeof(uint32_t));
    sum += touch(request->output_prefix_ids, request->n_output_prefix_ids * sizeof(uint32_t));
    for (size_t i = 0; i < request->n_messages; i++)
        sum += strlen(request->messages[i].role) +
               touch(request->messages[i].content, request->messages[i].content_bytes);
    sum += touch(request->template_json, request->template_json_bytes);
    for (size_t i = 0; i < request->n_hints; i++)
        sum += strlen(request->hints[i].name) + strlen(request->hints[i].value);
    sum += request->beyond ? strlen(request->beyond) : 0;
    sum += touch_names(s->stop, s->n_stop) + touch_names(s->bad_words, s->n_bad_words);
    sum += touch(s->stop_token_ids, s->n_stop_token_ids * sizeof(uint32_t));
    sum += touch(s->allowed_token_ids, s->n_allowed_token_ids * sizeof(uint32_t));
    return sum + touch(s->logit_bias, s->n_logit_bias * sizeof *s->logit_bias);
}
