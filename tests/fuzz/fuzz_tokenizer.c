/* Any bytes as tokenizer.json: an error, or a tokenizer whose ids are tokens and whose stream adds up to its
 * decoded text. Behind a NUL in the input stands text to encode. */
#include <string.h>
#include "base/assert.h"
#include "base/log.h"
#include "base/utf8.h"
#include "text/detokenizer.h"
#include "text/tokenizer.h"

enum { TEXT_LIMIT_BYTES = 1 << 20, STREAM_IDS_MAX = 4096 };

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_decode(const struct tokenizer *tokenizer, const struct token_list *list)
{
    struct buffer whole = {.limit_bytes = TEXT_LIMIT_BYTES}, sum = whole;
    struct detokenizer detokenizer;
    detokenizer_init(&detokenizer, tokenizer, true);
    size_t n = list->count < STREAM_IDS_MAX ? list->count : STREAM_IDS_MAX;
    err_t e = tokenizer_decode(tokenizer, list->ids, n, true, &whole);
    for (size_t i = 0; i < n && e.code == ERR_OK; i++) {
        size_t before = sum.size;
        e = detokenizer_push(&detokenizer, list->ids[i], &sum);
        ASSERT(e.code != ERR_OK || sum.size == before || utf8_valid(sum.data + before, sum.size - before));
    }
    if (e.code == ERR_OK)
        e = detokenizer_flush(&detokenizer, &sum);
    ASSERT(e.code == ERR_OK || e.code == ERR_RESOURCE_EXHAUSTED);
    if (e.code == ERR_OK) {
        ASSERT(sum.size == whole.size);
        ASSERT(sum.size == 0 || memcmp(sum.data, whole.data, sum.size) == 0);
    }
    buffer_free(&whole);
    buffer_free(&sum);
}

static void check_text(const struct tokenizer *tokenizer, const char *text, size_t text_bytes)
{
    uint8_t untrusted[256];
    memset(untrusted, 1, sizeof untrusted);
    for (unsigned flags = 0; flags < 4; flags++) {
        struct token_list list = {.limit = TEXT_LIMIT_BYTES};
        bool marked = flags == 3 && text_bytes <= sizeof untrusted;
        err_t e = tokenizer_encode(tokenizer, text, text_bytes, marked ? untrusted : NULL, flags, &list);
        ASSERT(e.code == ERR_OK || e.code == ERR_RESOURCE_EXHAUSTED || e.code == ERR_DATA_LOSS);
        for (size_t i = 0; i < list.count; i++) {
            size_t token_bytes;
            ASSERT(tokenizer_token(tokenizer, list.ids[i], &token_bytes) != NULL);
        }
        check_decode(tokenizer, &list);
        token_list_free(&list);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const char TEXT[] = "Hello  w\xc3\xb6rld! 123\n\n<s>\xff ab abc's";
    const uint8_t *end = size > 0 ? memchr(data, 0, size) : NULL;
    size_t json_bytes = end ? (size_t)(end - data) : size;
    struct tokenizer *tokenizer;
    log_init(LOG_ERROR, LOG_FORMAT_TEXT);
    err_t e = tokenizer_parse((const char *)data, json_bytes, "fuzz", &tokenizer);
    if (e.code != ERR_OK) {
        ASSERT(tokenizer == NULL && e.message[0] != '\0');
        return 0;
    }
    check_text(tokenizer, TEXT, sizeof TEXT - 1);
    if (end != NULL)
        check_text(tokenizer, (const char *)end + 1, size - json_bytes - 1);
    tokenizer_destroy(tokenizer);
    return 0;
}
