#include "router/local/request_copy.h"

#include <string.h>
#include "base/alloc.h"
#include "base/assert.h"

/* Runs twice over the same request: first to measure (base NULL), then to fill. */
struct packer {
    char *base;
    size_t used;
};

static void *place(struct packer *packer, const void *data, size_t size)
{
    enum { ALIGN = 8 };
    size_t at = (packer->used + ALIGN - 1) / ALIGN * ALIGN;
    packer->used = at + size;
    if (packer->base == NULL)
        return NULL;
    if (size > 0 && data)
        memcpy(packer->base + at, data, size);
    return packer->base + at;
}

static const char *place_text(struct packer *packer, const char *text)
{
    return text ? place(packer, text, strlen(text) + 1) : NULL;
}

static const char *const *place_texts(struct packer *packer, const char *const *texts, size_t n)
{
    const char **copy = place(packer, texts, n * sizeof *texts);
    for (size_t i = 0; i < n; i++) {
        const char *text = place_text(packer, texts[i]);
        if (copy)
            copy[i] = text;
    }
    return copy;
}

static void place_messages(struct packer *packer, const struct request *request, struct request *out)
{
    size_t n = request->prompt_kind == PROMPT_MESSAGES ? request->n_messages : 0;
    struct chat_message *copy = place(packer, request->messages, n * sizeof *copy);
    for (size_t i = 0; i < n; i++) {
        const char *role = place_text(packer, request->messages[i].role);
        const char *content = place(packer, request->messages[i].content, request->messages[i].content_bytes);
        if (copy) {
            copy[i].role = role;
            copy[i].content = content;
        }
    }
    out->messages = copy;
    out->n_messages = n;
}

static void place_sampling(struct packer *packer, const struct sampling_params *from,
                           struct sampling_params *out)
{
    out->stop = place_texts(packer, from->stop, from->n_stop);
    out->stop_token_ids =
        place(packer, from->stop_token_ids, from->n_stop_token_ids * sizeof *from->stop_token_ids);
    out->logit_bias = place(packer, from->logit_bias, from->n_logit_bias * sizeof *from->logit_bias);
    out->allowed_token_ids =
        place(packer, from->allowed_token_ids, from->n_allowed_token_ids * sizeof *from->allowed_token_ids);
    out->bad_words = place_texts(packer, from->bad_words, from->n_bad_words);
}

static void place_request(struct packer *packer, const struct request *request)
{
    struct request copy = *request, *at = place(packer, NULL, sizeof copy);
    bool is_text = request->prompt_kind == PROMPT_TEXT, has_ids = request->prompt_kind == PROMPT_TOKEN_IDS;
    copy.request_id = place_text(packer, request->request_id);
    copy.model = place_text(packer, request->model);
    copy.cache_salt = place_text(packer, request->cache_salt);
    copy.text_bytes = is_text ? request->text_bytes : 0;
    copy.text = place(packer, request->text, copy.text_bytes);
    copy.n_token_ids = has_ids ? request->n_token_ids : 0;
    copy.token_ids = place(packer, request->token_ids, copy.n_token_ids * sizeof *request->token_ids);
    copy.template_json = place(packer, request->template_json, request->template_json_bytes);
    if (!request->template_json)
        copy.template_json = NULL;
    copy.output_prefix_ids = place(packer, request->output_prefix_ids,
                                   request->n_output_prefix_ids * sizeof *request->output_prefix_ids);
    place_messages(packer, request, &copy);
    place_sampling(packer, &request->sampling, &copy.sampling);
    copy.tenant = copy.beyond = NULL;
    copy.hints = NULL;
    copy.n_hints = 0;
    copy.original = NULL;
    if (at)
        *at = copy;
}

err_t request_copy(const struct request *request, struct request **out, size_t *size_bytes)
{
    struct packer packer = {NULL, 0};
    place_request(&packer, request);
    size_t size = packer.used;
    packer = (struct packer){mem_alloc(size), 0};
    if (packer.base == NULL)
        return err_new(ERR_RESOURCE_EXHAUSTED, "no memory for a request of %zu bytes", size);
    place_request(&packer, request);
    ASSERT(packer.used == size);
    *out = (struct request *)packer.base; /* it was placed first */
    if (size_bytes)
        *size_bytes = size;
    return err_ok();
}
