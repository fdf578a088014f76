#include "router/service/request_copy.h"

#include <jansson.h>
#include "base/alloc.h"
#include "router/service/memory_block.h"

static const char *const *copy_texts(struct memory_block *block, const char *const *texts, size_t n)
{
    const char **list = memory_block_copy(block, n > 0 ? texts : NULL, n * sizeof *texts);
    for (size_t i = 0; i < n; i++) {
        const char *text = memory_block_text(block, texts[i]);
        if (list)
            list[i] = text;
    }
    return list;
}

static const struct chat_message *copy_messages(struct memory_block *block, const struct request *request)
{
    size_t n = request->n_messages;
    struct chat_message *list =
        memory_block_copy(block, n > 0 ? request->messages : NULL, n * sizeof *request->messages);
    for (size_t i = 0; i < n; i++) {
        const struct chat_message *message = &request->messages[i];
        const char *role = memory_block_text(block, message->role);
        const char *content = memory_block_copy(block, message->content, message->content_bytes);
        if (list) {
            list[i].role = role;
            list[i].content = content;
        }
    }
    return list;
}

static void copy_sampling(struct memory_block *block, struct sampling_params *sampling)
{
    sampling->stop = copy_texts(block, sampling->stop, sampling->n_stop);
    sampling->stop_token_ids =
        memory_block_copy(block, sampling->stop_token_ids, sampling->n_stop_token_ids * sizeof(uint32_t));
    sampling->logit_bias =
        memory_block_copy(block, sampling->logit_bias, sampling->n_logit_bias * sizeof *sampling->logit_bias);
    sampling->allowed_token_ids = memory_block_copy(block, sampling->allowed_token_ids,
                                                    sampling->n_allowed_token_ids * sizeof(uint32_t));
    sampling->bad_words = copy_texts(block, sampling->bad_words, sampling->n_bad_words);
}

static struct request copy_into(struct memory_block *block, const struct request *request)
{
    struct request copy = *request;
    copy.request_id = memory_block_text(block, request->request_id);
    copy.model = memory_block_text(block, request->model);
    copy.tenant = memory_block_text(block, request->tenant);
    copy.cache_salt = memory_block_text(block, request->cache_salt);
    copy.text = memory_block_copy(block, request->text, request->text_bytes);
    copy.token_ids = memory_block_copy(block, request->token_ids, request->n_token_ids * sizeof(uint32_t));
    copy.messages = copy_messages(block, request);
    copy.output_prefix_ids =
        memory_block_copy(block, request->output_prefix_ids, request->n_output_prefix_ids * sizeof(uint32_t));
    copy_sampling(block, &copy.sampling);
    copy.hints = NULL;
    copy.n_hints = 0;
    copy.beyond = NULL;
    return copy;
}

struct request *request_copy(const struct request *request)
{
    struct memory_block block = {.used = sizeof *request};
    struct request counted = copy_into(&block, request);
    (void)counted;
    struct request *copy = mem_alloc(block.used);
    if (copy == NULL)
        return NULL;
    block = (struct memory_block){.at = (char *)copy, .used = sizeof *request};
    struct request filled = copy_into(&block, request);
    *copy = filled;
    copy->original = json_incref(request->original);
    return copy;
}

void request_copy_free(struct request *copy)
{
    if (copy == NULL)
        return;
    json_decref(copy->original);
    mem_free(copy);
}
