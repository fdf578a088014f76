#include "proto/whole_answer.h"

#include <string.h>
#include "base/alloc.h"
#include "base/assert.h"
#include "base/buffer.h"
#include "proto/answer_source.h"

/* A call of a tool, put together from its pieces. */
struct whole_call {
    uint32_t index;
    char *id, *name; /* owned; NULL = not told */
    struct buffer arguments;
};

struct whole_choice {
    struct buffer token_ids, text, logprobs, refusal, reasoning;
    struct buffer calls;      /* struct whole_call, in the order of their coming */
    struct buffer tool_calls; /* struct tool_call, of the finished event */
    struct event finished;
    char *stop_string;            /* owned */
    struct answer_source *source; /* owned; what was told last */
};

struct whole_answer {
    size_t size_bytes;
    struct buffer prompt_token_ids, prompt_logprobs;
    struct whole_choice *choices; /* [max_choices] owned */
    struct event *events;         /* [max_choices] owned */
    size_t n_choices, max_choices;
};

static err_t no_memory(void)
{
    return err_new(ERR_RESOURCE_EXHAUSTED, "no memory for an answer");
}

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
        return no_memory();
    }
    *out = answer;
    return err_ok();
}

static struct whole_call *calls_of(const struct whole_choice *choice, size_t *n_calls)
{
    *n_calls = choice->calls.size / sizeof(struct whole_call);
    return (struct whole_call *)choice->calls.data;
}

static void free_choice(struct whole_choice *choice)
{
    size_t n_calls;
    struct whole_call *calls = calls_of(choice, &n_calls);
    for (size_t i = 0; i < n_calls; i++) {
        mem_free(calls[i].id);
        mem_free(calls[i].name);
        buffer_free(&calls[i].arguments);
    }
    buffer_free(&choice->token_ids);
    buffer_free(&choice->text);
    buffer_free(&choice->logprobs);
    buffer_free(&choice->refusal);
    buffer_free(&choice->reasoning);
    buffer_free(&choice->calls);
    buffer_free(&choice->tool_calls);
    mem_free(choice->stop_string);
    mem_free(choice->source);
}

void whole_answer_destroy(struct whole_answer *answer)
{
    if (!answer)
        return;
    buffer_free(&answer->prompt_token_ids);
    buffer_free(&answer->prompt_logprobs);
    for (size_t i = 0; answer->choices && i < answer->max_choices; i++)
        free_choice(&answer->choices[i]);
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

/* What is told once stays. */
static err_t keep_name(struct whole_answer *answer, char **to, const char *name)
{
    if (!name || *to)
        return err_ok();
    answer->size_bytes += strlen(name);
    *to = mem_strdup(name);
    return *to ? err_ok() : no_memory();
}

static err_t find_call(struct whole_answer *answer, struct whole_choice *choice, uint32_t index,
                       struct whole_call **out)
{
    size_t n_calls;
    struct whole_call *calls = calls_of(choice, &n_calls);
    for (size_t i = n_calls; i-- > 0;)
        if (calls[i].index == index) {
            *out = &calls[i];
            return err_ok();
        }
    if (n_calls == WHOLE_ANSWER_TOOL_CALLS_MAX)
        return err_new(ERR_RESOURCE_EXHAUSTED, "the answer calls more than %d tools; stream it",
                       WHOLE_ANSWER_TOOL_CALLS_MAX);
    const struct whole_call fresh = {.index = index};
    TRY(add_bytes(answer, &choice->calls, &fresh, sizeof fresh));
    *out = &calls_of(choice, &n_calls)[n_calls - 1];
    return err_ok();
}

static err_t add_calls(struct whole_answer *answer, struct whole_choice *choice, const struct event *event)
{
    for (size_t i = 0; i < event->n_tool_calls; i++) {
        const struct tool_call *piece = &event->tool_calls[i];
        struct whole_call *call = NULL;
        TRY(find_call(answer, choice, piece->index, &call));
        TRY(keep_name(answer, &call->id, piece->id));
        TRY(keep_name(answer, &call->name, piece->name));
        TRY(add_bytes(answer, &call->arguments, piece->arguments, piece->arguments_bytes));
    }
    return err_ok();
}

/* As an event has them. Once: nothing comes behind a choice's end. */
static err_t list_calls(struct whole_choice *choice)
{
    size_t n_calls;
    const struct whole_call *calls = calls_of(choice, &n_calls);
    choice->tool_calls.limit_bytes = WHOLE_ANSWER_TOOL_CALLS_MAX * sizeof(struct tool_call);
    for (size_t i = 0; i < n_calls; i++) {
        const struct buffer *arguments = &calls[i].arguments;
        const struct tool_call call = {(uint32_t)i, calls[i].id ? calls[i].id : "",
                                       calls[i].name ? calls[i].name : "",
                                       arguments->data ? arguments->data : "", arguments->size};
        if (!buffer_append(&choice->tool_calls, &call, sizeof call))
            return no_memory();
    }
    return err_ok();
}

static err_t keep_source(struct whole_choice *choice, const struct answer_source *source)
{
    if (!source)
        return err_ok();
    struct answer_source *kept = answer_source_copy(source);
    if (!kept)
        return no_memory();
    mem_free(choice->source);
    choice->source = kept;
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
    TRY(add_bytes(answer, &choice->refusal, event->refusal, event->refusal_bytes));
    TRY(add_bytes(answer, &choice->reasoning, event->reasoning, event->reasoning_bytes));
    TRY(add_calls(answer, choice, event));
    TRY(keep_source(choice, event->source));
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
            return no_memory();
    }
    return list_calls(choice);
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
        event->tool_calls = (const struct tool_call *)choice->tool_calls.data;
        event->n_tool_calls = choice->tool_calls.size / sizeof *event->tool_calls;
        event->refusal = choice->refusal.data;
        event->refusal_bytes = choice->refusal.size;
        event->reasoning = choice->reasoning.data;
        event->reasoning_bytes = choice->reasoning.size;
        event->source = choice->source;
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
