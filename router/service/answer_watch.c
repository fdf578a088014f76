#include "router/service/answer_watch.h"

#include "base/alloc.h"
#include "router/service/answer_check.h"

err_t answer_watch_open(struct answer_watch *watch, uint32_t n_choices, bool checks_all_calls)
{
    *watch = (struct answer_watch){.n_choices = n_choices, .checks_all_calls = checks_all_calls};
    watch->choices = mem_alloc_array(n_choices, sizeof *watch->choices);
    if (watch->choices == NULL)
        return err_new(ERR_RESOURCE_EXHAUSTED, "no memory for an answer that is to be checked");
    for (uint32_t i = 0; i < n_choices; i++)
        watch->choices[i].text.limit_bytes = ANSWER_WATCH_BYTES_MAX;
    return err_ok();
}

void answer_watch_close(struct answer_watch *watch)
{
    for (uint32_t i = 0; watch->choices && i < watch->n_choices; i++) {
        buffer_free(&watch->choices[i].text);
        call_list_free(&watch->choices[i].calls);
    }
    mem_free(watch->choices);
    watch->choices = NULL;
}

void answer_watch_take(struct answer_watch *watch, const struct event *event)
{
    if (watch->choices == NULL || event->choice_index >= watch->n_choices)
        return;
    struct watched_choice *choice = &watch->choices[event->choice_index];
    bool is_cut = event->kind == EVENT_FINISHED && event->finish_reason != FINISH_STOP &&
                  event->finish_reason != FINISH_TOOL_CALLS;
    bool fits = buffer_append(&choice->text, event->text ? event->text : "", event->text_bytes);
    for (size_t i = 0; i < event->n_tool_calls && fits; i++)
        fits = call_list_take(&choice->calls, &event->tool_calls[i], ANSWER_WATCH_BYTES_MAX);
    choice->is_other = choice->is_other || event->refusal_bytes > 0 || is_cut;
    watch->is_too_much = watch->is_too_much || !fits;
}

void answer_watch_forget(struct answer_watch *watch)
{
    for (uint32_t i = 0; watch->choices && i < watch->n_choices; i++) {
        buffer_clear(&watch->choices[i].text);
        call_list_free(&watch->choices[i].calls);
        watch->choices[i].is_other = false;
    }
    watch->is_too_much = false;
}

static err_t check_calls(const struct answer_watch *watch, const struct call_list *list,
                         const json_t *request)
{
    const json_t *tools = json_object_get(request, "tools");
    for (size_t i = 0; i < list->n; i++) {
        const struct kept_call *call = &list->calls[i];
        if (call->name == NULL && call->arguments.size == 0) /* who numbers them otherwise leaves holes */
            continue;
        TRY(answer_check_call(tools, watch->checks_all_calls, call->name ? call->name : "",
                              call->arguments.data ? call->arguments.data : "", call->arguments.size));
    }
    return err_ok();
}

err_t answer_watch_check(const struct answer_watch *watch, const json_t *request)
{
    for (uint32_t i = 0; watch->choices && i < watch->n_choices; i++) {
        const struct watched_choice *choice = &watch->choices[i];
        const struct buffer *text = &choice->text;
        if (choice->is_other)
            continue;
        if (watch->is_too_much)
            return err_new(ERR_DATA_LOSS, "the answer is longer than can be checked against its format");
        if (choice->calls.n > 0)
            TRY(check_calls(watch, &choice->calls, request));
        else
            TRY(answer_check(json_object_get(request, "response_format"), text->data ? text->data : "",
                             text->size));
    }
    return err_ok();
}
