/* Gathers a request's events until every choice has finished: what GenerateWhole, and Generate without a
 * stream, answer with. One thread at a time. */
#pragma once

#include <stddef.h>
#include <stdint.h>
#include "api/event.h"
#include "api/request.h"
#include "base/error.h"

struct whole_answer;

enum {
    WHOLE_ANSWER_BYTES_MAX = 64 << 20,  /* of ids, text, logprobs and calls of tools together */
    WHOLE_ANSWER_TOOL_CALLS_MAX = 1024, /* of a choice */
};

/* How many choices a request has, if it is one that the validator accepts: 1..SAMPLING_N_MAX. */
uint32_t whole_answer_choices(const struct request *request);

/* n_choices: 1..SAMPLING_N_MAX, at least as many as the request has. */
err_t whole_answer_create(uint32_t n_choices, struct whole_answer **out) ERR_MUST_CHECK;
void whole_answer_destroy(struct whole_answer *answer); /* NULL is fine */

/* Copies what the event carries. RESOURCE_EXHAUSTED beyond WHOLE_ANSWER_BYTES_MAX and
 * WHOLE_ANSWER_TOOL_CALLS_MAX. with_prompt_ids: keep those too. */
err_t whole_answer_add(struct whole_answer *answer, const struct event *event,
                       bool with_prompt_ids) ERR_MUST_CHECK;

/* After the last event: one EVENT_FINISHED a choice, by index, with all of its output. Lives as long as the
 * answer. */
const struct event *whole_answer_events(struct whole_answer *answer, size_t *n_events);
/* Of all that was kept so far. */
size_t whole_answer_bytes(const struct whole_answer *answer);
