#include "proto/whole_answer.h"

#include <string.h>
#include "base/alloc.h"
#include "base/assert.h"
#include "base/buffer.h"

struct whole_choice {
    struct buffer token_ids, text, logprobs;
    struct event finished;
    char *stop_string; /* owned */
};

struct whole_answer {
    size_t size_bytes;
    struct buffer prompt_token_ids, prompt_logprobs;
    struct whole_choice *choices; /* [max_choices] owned */
    struct event *events;         /* [max_choices] owned */
    size_t n_choices, max_choices;
};

uint32_t whole_answer_choices(const struct request *request)
{
    uint32_t n = request->sampling.set & SAMPLING_N ? request->sampling.n : 1;
    return n < 1 ? 1 : n > SAMPLING_N_MAX ? SAMPLING_N_MAX : n;
}

err_t whole_answer_create(uint32_t n_choices, struct whole_answer **out)
{
    ASSERT(n_choices >= 1 && n_choices <= SAMPLING_N_MAX);
    struct whole_answer *answer = mem_alloc(sizeof *answer);
    if (answer) {
        answer->choices = mem_alloc_array(n_choices, sizeof *answer->choices);
        answer->events = mem_alloc_array(n_choices, sizeof *answer->events);
        answer->max_choices = n_choices;
    }
    if (!answer || !answer->choices || !answer->events) {
        whole_answer_destroy(answer);
        return err_new(ERR_RESOURCE_EXHAUSTED, "no memory for an answer");
    }
    *out = answer;
    return err_ok();
}

void whole_answer_destroy(struct whole_answer *answer)
{
    if (!answer)
        return;
    buffer_free(&answer->prompt_token_ids);
    buffer_free(&answer->prompt_logprobs);
    for (size_t i = 0; answer->choices && i < answer->max_choices; i++) {
        buffer_free(&answer->choices[i].token_ids);
        buffer_free(&answer->choices[i].text);
        buffer_free(&answer->choices[i].logprobs);
        mem_free(answer->choices[i].stop_string);
    }
    mem_free(answer->choices);
    mem_free(answer->events);
    mem_free(answer);
}

size_t whole_answer_bytes(const struct whole_answer *answer)
{
    return answer->size_bytes;
}

static err_t add_bytes(struct whole_answer *answer, struct buffer *to, const void *data, size_t size_bytes)
{
    if (size_bytes == 0)
        return err_ok();
    to->limit_bytes = WHOLE_ANSWER_BYTES_MAX;
    if (size_bytes > WHOLE_ANSWER_BYTES_MAX - answer->size_bytes || !buffer_append(to, data, size_bytes))
        return err_new(
            ERR_RESOURCE_EXHAUSTED,
            "the whole answer exceeds %d bytes; use Generate, or ask for fewer choices or logprobs",
            WHOLE_ANSWER_BYTES_MAX);
    answer->size_bytes += size_bytes;
    return err_ok();
}

err_t whole_answer_add(struct whole_answer *answer, const struct event *event, bool with_prompt_ids)
{
    ASSERT(event->choice_index < answer->max_choices);
    struct whole_choice *choice = &answer->choices[event->choice_index];
    if (event->choice_index >= answer->n_choices)
        answer->n_choices = event->choice_index + 1;
    TRY(add_bytes(answer, &choice->token_ids, event->token_ids, event->n_token_ids * sizeof(uint32_t)));
    TRY(add_bytes(answer, &choice->text, event->text, event->text_bytes));
    TRY(add_bytes(answer, &choice->logprobs, event->logprobs, event->n_logprobs * sizeof *event->logprobs));
    TRY(add_bytes(answer, &answer->prompt_logprobs, event->prompt_logprobs,
                  event->n_prompt_logprobs * sizeof *event->prompt_logprobs));
    if (with_prompt_ids)
        TRY(add_bytes(answer, &answer->prompt_token_ids, event->prompt_token_ids,
                      event->n_prompt_token_ids * sizeof(uint32_t)));
    if (event->kind != EVENT_FINISHED)
        return err_ok();
    choice->finished = *event;
    if (event->stop_string) {
        choice->stop_string = mem_strdup(event->stop_string);
        if (!choice->stop_string)
            return err_new(ERR_RESOURCE_EXHAUSTED, "no memory for an answer");
    }
    return err_ok();
}

const struct event *whole_answer_events(struct whole_answer *answer, size_t *n_events)
{
    for (size_t i = 0; i < answer->n_choices; i++) {
        struct whole_choice *choice = &answer->choices[i];
        struct event *event = &answer->events[i];
        *event = choice->finished;
        event->choice_index = (uint32_t)i;
        event->token_ids = (const uint32_t *)choice->token_ids.data;
        event->n_token_ids = choice->token_ids.size / sizeof(uint32_t);
        event->text = choice->text.data ? choice->text.data : "";
        event->text_bytes = choice->text.size;
        event->logprobs = (const struct position_logprobs *)choice->logprobs.data;
        event->n_logprobs = choice->logprobs.size / sizeof *event->logprobs;
        event->stop_string = choice->stop_string;
        event->prompt_token_ids = NULL;
        event->n_prompt_token_ids = 0;
        event->prompt_logprobs = NULL;
        event->n_prompt_logprobs = 0;
    }
    struct event *first = &answer->events[0];
    first->prompt_token_ids = (const uint32_t *)answer->prompt_token_ids.data;
    first->n_prompt_token_ids = answer->prompt_token_ids.size / sizeof(uint32_t);
    first->prompt_logprobs = (const struct position_logprobs *)answer->prompt_logprobs.data;
    first->n_prompt_logprobs = answer->prompt_logprobs.size / sizeof *first->prompt_logprobs;
    *n_events = answer->n_choices;
    return answer->events;
}
