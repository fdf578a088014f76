#include "router/service/answer_keep.h"

#include <jansson.h>
#include "base/alloc.h"
#include "router/gate/eval_check.h"

struct kept_call {
    char *name; /* owned; NULL = not told yet */
    struct buffer arguments;
};

static void free_parts(struct answer_keep *keep)
{
    for (size_t i = 0; i < keep->n_calls; i++) {
        mem_free(keep->calls[i].name);
        buffer_free(&keep->calls[i].arguments);
    }
    mem_free(keep->calls);
    buffer_free(&keep->text);
    keep->calls = NULL;
    keep->n_calls = keep->n_bytes = 0;
}

void answer_keep_forget(struct answer_keep *keep)
{
    free_parts(keep);
    keep->is_too_much = false;
}

static bool put(struct answer_keep *keep, struct buffer *to, const char *text, size_t text_bytes)
{
    if (text == NULL || text_bytes == 0)
        return true;
    to->limit_bytes = ANSWER_KEEP_BYTES_MAX;
    keep->n_bytes += text_bytes;
    return keep->n_bytes <= ANSWER_KEEP_BYTES_MAX && buffer_append(to, text, text_bytes);
}

static struct kept_call *call_at(struct answer_keep *keep, size_t index)
{
    if (index >= ANSWER_KEEP_CALLS_MAX)
        return NULL;
    if (index >= keep->n_calls) {
        struct kept_call *grown = mem_realloc(keep->calls, (index + 1) * sizeof *grown);
        if (grown == NULL)
            return NULL;
        keep->calls = grown;
        while (keep->n_calls <= index)
            grown[keep->n_calls++] = (struct kept_call){0};
    }
    return &keep->calls[index];
}

static bool put_call(struct answer_keep *keep, const struct tool_call *call)
{
    struct kept_call *kept = call_at(keep, call->index);
    if (kept == NULL)
        return false;
    if (kept->name == NULL && call->name != NULL) {
        kept->name = mem_strdup(call->name);
        if (kept->name == NULL)
            return false;
    }
    return put(keep, &kept->arguments, call->arguments, call->arguments_bytes);
}

void answer_keep_take(struct answer_keep *keep, const struct event *event)
{
    if (!keep->is_on || keep->is_too_much || event->choice_index != 0)
        return;
    bool fits = put(keep, &keep->text, event->text, event->text_bytes);
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
    for (size_t i = 0; i < keep->n_calls; i++) {
        const struct kept_call *call = &keep->calls[i];
        const char *arguments = call->arguments.data ? call->arguments.data : "";
        (void)json_array_append_new(calls, json_pack("{s:s, s:s%}", "name", call->name ? call->name : "",
                                                     "arguments", arguments, call->arguments.size));
    }
    bool fits = json_array_size(calls) == keep->n_calls && buffer_append_text(out, "") &&
                buffer_append(out, keep->text.data ? keep->text.data : "", keep->text.size) &&
                eval_put_calls(out, calls);
    json_decref(calls);
    return fits;
}
