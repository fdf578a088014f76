#include "router/service/answer_watch.h"

#include "base/alloc.h"
#include "router/service/answer_check.h"

err_t answer_watch_open(struct answer_watch *watch, uint32_t n_choices)
{
    *watch = (struct answer_watch){.n_choices = n_choices};
    watch->texts = mem_alloc_array(n_choices, sizeof *watch->texts);
    if (watch->texts == NULL)
        return err_new(ERR_RESOURCE_EXHAUSTED, "no memory for an answer that is to be checked");
    for (uint32_t i = 0; i < n_choices; i++)
        watch->texts[i].limit_bytes = ANSWER_WATCH_BYTES_MAX;
    return err_ok();
}

void answer_watch_close(struct answer_watch *watch)
{
    for (uint32_t i = 0; watch->texts && i < watch->n_choices; i++)
        buffer_free(&watch->texts[i]);
    mem_free(watch->texts);
    watch->texts = NULL;
}

void answer_watch_take(struct answer_watch *watch, const struct event *event)
{
    if (watch->texts == NULL || event->choice_index >= watch->n_choices)
        return;
    bool is_cut = event->kind == EVENT_FINISHED && event->finish_reason != FINISH_STOP;
    if (event->n_tool_calls > 0 || event->refusal_bytes > 0 || is_cut)
        watch->others |= UINT64_C(1) << event->choice_index;
    if (!buffer_append(&watch->texts[event->choice_index], event->text ? event->text : "", event->text_bytes))
        watch->is_too_much = true;
}

void answer_watch_forget(struct answer_watch *watch)
{
    for (uint32_t i = 0; watch->texts && i < watch->n_choices; i++)
        buffer_clear(&watch->texts[i]);
    watch->others = 0;
    watch->is_too_much = false;
}

err_t answer_watch_check(const struct answer_watch *watch, const json_t *response_format)
{
    for (uint32_t i = 0; watch->texts && i < watch->n_choices; i++) {
        const struct buffer *text = &watch->texts[i];
        if (watch->others & UINT64_C(1) << i)
            continue;
        if (watch->is_too_much)
            return err_new(ERR_DATA_LOSS, "the answer is longer than can be checked against its format");
        TRY(answer_check(response_format, text->data ? text->data : "", text->size));
    }
    return err_ok();
}
