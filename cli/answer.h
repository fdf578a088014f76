/* A whole answer, gathered from a stream's events, and as one JSON object. */
#pragma once

#include "api/service.h"
#include "base/buffer.h"

struct answer {          /* of one choice */
    uint32_t *token_ids; /* [n_tokens] owned */
    size_t n_tokens, capacity;
    struct position_logprobs *logprobs; /* [n_logprobs] owned */
    size_t n_logprobs, logprobs_capacity;
    struct buffer text;         /* owned */
    uint32_t *prompt_token_ids; /* [n_prompt] owned; of choice 0 */
    size_t n_prompt;
    struct position_logprobs *prompt_logprobs; /* [n_prompt_logprobs] owned */
    size_t n_prompt_logprobs;
    bool finished;
    enum finish_reason finish_reason;
    struct usage usage;
    struct timings timings;
    err_t error;
};

/* Adds an event of this choice. RESOURCE_EXHAUSTED when memory is short. */
err_t answer_add(struct answer *answer, const struct event *event) ERR_MUST_CHECK;
void answer_free(struct answer *answer);

/* {"prompt_token_ids":[],"token_ids":[],"text":"","finish_reason":"","logprobs":[...],"prompt_logprobs":[...],
 * "timings":{...}}; with several choices also "index". False at the buffer's limit. */
bool answer_write_json(const struct answer *answer, const struct answer *prompt, uint32_t index,
                       bool with_index, struct buffer *out);
