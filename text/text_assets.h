/* Everything about text that comes with a model: of a directory tokenizer.json, tokenizer_config.json
 * (special tokens, chat template), chat_template.jinja when present; or of a GGUF file its metadata.
 * Immutable after load: any thread. */
#pragma once

#include <stdint.h>
#include "text/chat_template.h"
#include "text/tokenizer.h"

struct text_assets {
    struct tokenizer *tokenizer;         /* owned */
    struct chat_template *chat_template; /* owned; NULL = none */
    char *bos_token, *eos_token;         /* owned; NULL = none */
    int64_t bos_token_id, eos_token_id;  /* -1 = none */
    uint64_t template_fingerprint;       /* hash of the template's source; 0 = none */
};

/* template_path: NULL, or a file that replaces the model's template (--chat-template). */
err_t text_assets_load(const char *path, const char *template_path, struct text_assets *out) ERR_MUST_CHECK;
void text_assets_free(struct text_assets *assets);

/* Messages -> ids: render, then encode with special tokens parsed where the template wrote them and none
 * added. input->bos_token and eos_token that are NULL become the model's. FAILED_PRECONDITION without a
 * template. */
err_t text_encode_chat(const struct text_assets *assets, const struct template_input *input,
                       struct token_list *out) ERR_MUST_CHECK;
