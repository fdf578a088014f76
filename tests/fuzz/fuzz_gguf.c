/* Any bytes as a GGUF file: an error, or a directory that lies within the file, a configuration that holds
 * its limits, and a tokenizer that encodes. */
#include <string.h>
#include "base/alloc.h"
#include "base/assert.h"
#include "base/gguf.h"
#include "model/gguf_config.h"
#include "text/gguf_tokenizer.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_error(err_t e)
{
    ASSERT(e.message[0] != '\0' && strlen(e.message) < ERR_MESSAGE_MAX);
}

static void check_directory(const struct gguf *gguf, size_t size)
{
    for (size_t i = 0; i < gguf->n_keys; i++) {
        const struct gguf_value *value = &gguf->keys[i].value;
        ASSERT(value->data >= gguf->data && value->data + value->size_bytes <= gguf->data + size);
        size_t at = 0;
        for (uint64_t k = 0; value->type == GGUF_ARRAY && value->item_type == GGUF_TEXT && k < value->n_items;
             k++)
            gguf_next_text(value, &at);
    }
    uint64_t end = 0;
    for (size_t i = 0; i < gguf->n_tensors; i++) {
        const struct gguf_tensor *tensor = &gguf->tensors[i];
        ASSERT(tensor->begin >= end && tensor->end > tensor->begin);
        const uint8_t *bytes = gguf_tensor_data(gguf, tensor);
        ASSERT(bytes != NULL || gguf->is_head);
        ASSERT(bytes == NULL || (size_t)(bytes - gguf->data) + (tensor->end - tensor->begin) <= size);
        end = tensor->end;
    }
    ASSERT(gguf->n_tensors == 0 || gguf->is_head || gguf->data_offset + end <= size);
}

static void use_tokenizer(const struct gguf *gguf)
{
    struct tokenizer *tokenizer;
    struct token_list list = {.limit = 4096};
    static const char text[] = "the  cat\n<s>\xff";
    err_t e = tokenizer_from_gguf(gguf, &tokenizer);
    if (e.code != ERR_OK) {
        check_error(e);
        return;
    }
    e = tokenizer_encode(tokenizer, text, sizeof text - 1, NULL,
                         TOKENIZE_ADD_SPECIAL | TOKENIZE_PARSE_SPECIAL, &list);
    for (size_t i = 0; e.code == ERR_OK && i < list.count; i++)
        ASSERT(list.ids[i] < tokenizer_vocab_size(tokenizer));
    token_list_free(&list);
    tokenizer_destroy(tokenizer);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    /* Exactly as long as it is, so that a sanitizer sees a read past it. */
    uint8_t *copy = mem_alloc(size + (size == 0));
    ASSERT(copy);
    if (size > 0)
        memcpy(copy, data, size);
    struct gguf gguf;
    err_t e = gguf_parse("input", copy, size, &gguf);
    if (e.code == ERR_OK) {
        static struct model_config config;
        check_directory(&gguf, size);
        e = gguf_config_parse(&gguf, &config);
        if (e.code == ERR_OK)
            ASSERT(config.n_layers > 0 && config.n_layers <= MODEL_LAYERS_MAX && config.vocab_size > 0);
        else
            check_error(e);
        use_tokenizer(&gguf);
        gguf_close(&gguf);
    } else {
        check_error(e);
    }
    mem_free(copy);
    return 0;
}
