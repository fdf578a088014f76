#include "router/service/call_list.h"

#include "base/alloc.h"

static struct kept_call *call_at(struct call_list *list, size_t index)
{
    if (index >= CALL_LIST_MAX)
        return NULL;
    if (index >= list->n) {
        struct kept_call *grown = mem_realloc(list->calls, (index + 1) * sizeof *grown);
        if (grown == NULL)
            return NULL;
        list->calls = grown;
        while (list->n <= index)
            grown[list->n++] = (struct kept_call){0};
    }
    return &list->calls[index];
}

bool call_list_take(struct call_list *list, const struct tool_call *piece, size_t limit_bytes)
{
    struct kept_call *call = call_at(list, piece->index);
    if (call == NULL)
        return false;
    if (call->name == NULL && piece->name != NULL && (call->name = mem_strdup(piece->name)) == NULL)
        return false;
    call->arguments.limit_bytes = limit_bytes;
    return piece->arguments_bytes == 0 ||
           buffer_append(&call->arguments, piece->arguments, piece->arguments_bytes);
}

void call_list_free(struct call_list *list)
{
    for (size_t i = 0; i < list->n; i++) {
        mem_free(list->calls[i].name);
        buffer_free(&list->calls[i].arguments);
    }
    mem_free(list->calls);
    *list = (struct call_list){0};
}
