#include "router/service/event_copy.h"

#include "base/alloc.h"
#include "router/service/memory_block.h"

_Static_assert(sizeof(struct event_node) % MEMORY_BLOCK_ALIGN == 0, "what follows is aligned");

static const struct tool_call *copy_calls(struct memory_block *block, const struct event *event)
{
    size_t n = event->n_tool_calls;
    struct tool_call *list =
        memory_block_copy(block, n > 0 ? event->tool_calls : NULL, n * sizeof *event->tool_calls);
    for (size_t i = 0; i < n; i++) {
        const struct tool_call *call = &event->tool_calls[i];
        const char *id = memory_block_text(block, call->id), *name = memory_block_text(block, call->name);
        const char *arguments = memory_block_copy(block, call->arguments, call->arguments_bytes);
        if (list)
            list[i] = (struct tool_call){call->index, id, name, arguments, call->arguments_bytes};
    }
    return list;
}

static struct event copy_into(struct memory_block *block, const struct event *event)
{
    struct event copy = *event;
    copy.token_ids = memory_block_copy(block, event->token_ids, event->n_token_ids * sizeof(uint32_t));
    copy.text = memory_block_copy(block, event->text ? event->text : "", event->text ? event->text_bytes : 0);
    copy.logprobs = memory_block_copy(block, event->n_logprobs > 0 ? event->logprobs : NULL,
                                      event->n_logprobs * sizeof *event->logprobs);
    copy.tool_calls = copy_calls(block, event);
    copy.refusal = memory_block_copy(block, event->refusal, event->refusal_bytes);
    copy.reasoning = memory_block_copy(block, event->reasoning, event->reasoning_bytes);
    copy.prompt_token_ids =
        memory_block_copy(block, event->prompt_token_ids, event->n_prompt_token_ids * sizeof(uint32_t));
    copy.prompt_logprobs =
        memory_block_copy(block, event->n_prompt_logprobs > 0 ? event->prompt_logprobs : NULL,
                          event->n_prompt_logprobs * sizeof *event->prompt_logprobs);
    copy.stop_string = memory_block_text(block, event->stop_string);
    copy.source = NULL;
    return copy;
}

struct event_node *event_copy(const struct event *event)
{
    struct memory_block block = {.used = sizeof(struct event_node)};
    struct event counted = copy_into(&block, event);
    (void)counted;
    struct event_node *node = mem_alloc(block.used);
    if (node == NULL)
        return NULL;
    node->n_bytes = block.used;
    block = (struct memory_block){.at = (char *)node, .used = sizeof *node};
    node->event = copy_into(&block, event);
    return node;
}
