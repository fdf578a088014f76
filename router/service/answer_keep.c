#include "router/service/answer_keep.h"

#include <jansson.h>
#include "router/gate/eval_check.h"

static void free_parts(struct answer_keep *keep)
{
    call_list_free(&keep->calls);
    buffer_free(&keep->text);
    keep->n_bytes = 0;
}

void answer_keep_forget(struct answer_keep *keep)
{
    free_parts(keep);
    keep->is_too_much = false;
}

static bool put_text(struct answer_keep *keep, const char *text, size_t text_bytes)
{
    if (text == NULL || text_bytes == 0)
        return true;
    keep->text.limit_bytes = ANSWER_KEEP_BYTES_MAX;
    keep->n_bytes += text_bytes;
    return keep->n_bytes <= ANSWER_KEEP_BYTES_MAX && buffer_append(&keep->text, text, text_bytes);
}

static bool put_call(struct answer_keep *keep, const struct tool_call *call)
{
    keep->n_bytes += call->arguments_bytes;
    return keep->n_bytes <= ANSWER_KEEP_BYTES_MAX &&
           call_list_take(&keep->calls, call, ANSWER_KEEP_BYTES_MAX);
}

void answer_keep_take(struct answer_keep *keep, const struct event *event)
{
    if (!keep->is_on || keep->is_too_much || event->choice_index != 0)
        return;
    bool fits = put_text(keep, event->text, event->text_bytes);
    for (size_t i = 0; i < event->n_tool_calls && fits; i++)
        fits = put_call(keep, &event->tool_calls[i]);
    if (fits)
        return;
    free_parts(keep);
    keep->is_too_much = true;
}

bool answer_keep_write(const struct answer_keep *keep, struct buffer *out)
{
    if (!keep->is_on || keep->is_too_much)
        return false;
    json_t *calls = json_array();
    for (size_t i = 0; i < keep->calls.n; i++) {
        const struct kept_call *call = &keep->calls.calls[i];
        const char *arguments = call->arguments.data ? call->arguments.data : "";
        (void)json_array_append_new(calls, json_pack("{s:s, s:s%}", "name", call->name ? call->name : "",
                                                     "arguments", arguments, call->arguments.size));
    }
    bool fits = json_array_size(calls) == keep->calls.n && buffer_append_text(out, "") &&
                buffer_append(out, keep->text.data ? keep->text.data : "", keep->text.size) &&
                eval_put_calls(out, calls);
    json_decref(calls);
    return fits;
}
