/* What the tests of text/ share: cmocka with its headers, small tokenizers written out, renders of a
 * template. */
#pragma once

#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include "base/alloc.h"
#include "tests/base/ok.h"
#include "text/chat_template.h"
#include "text/tokenizer.h"

/* The code, and a part of the message. */
#define assert_fails(expected_code, part, call)                                                              \
    do {                                                                                                     \
        err_t got_ = (call);                                                                                 \
        if (got_.code != (expected_code) || strstr(got_.message, (part)) == NULL)                            \
            fail_msg("got %s: %s", err_code_name(got_.code), got_.code == ERR_OK ? "" : got_.message);       \
    } while (0)

/* A byte-level tokenizer of single bytes and a few merges; ADDED, NORMALIZER.. are JSON values. Ids: the
 * letters a-z are 0-25, G (a space) 26, < | > _ 27-30, "ab" 31, "abc" 32, "Ga" 33. */
#define LETTERS                                                                                              \
    "\"a\":0,\"b\":1,\"c\":2,\"d\":3,\"e\":4,\"f\":5,\"g\":6,\"h\":7,\"i\":8,\"j\":9,\"k\":10,\"l\":11,"     \
    "\"m\":12,\"n\":13,\"o\":14,\"p\":15,\"q\":16,\"r\":17,\"s\":18,\"t\":19,\"u\":20,\"v\":21,\"w\":22,"    \
    "\"x\":23,\"y\":24,\"z\":25"
#define BYTE_TOKENIZER(ADDED)                                                                                \
    "{\"version\":\"1.0\",\"added_tokens\":" ADDED ",\"normalizer\":null,\"pre_tokenizer\":{\"type\":"       \
    "\"ByteLevel\",\"add_prefix_space\":false,\"use_regex\":true},\"post_processor\":null,\"decoder\":{"     \
    "\"type\":\"ByteLevel\"},\"model\":{\"type\":\"BPE\",\"vocab\":{" LETTERS                                \
    ",\"\xc4\xa0\":26,\"<\":27,\"|\":28,\">\":29,\"_\":30,\"ab\":31,\"abc\":32,\"\xc4\xa0"                   \
    "a\":33},\"merges\":[\"a b\",[\"ab\",\"c\"],\"\xc4\xa0 a\"]}}"
#define SPECIAL_EOT "[{\"id\":34,\"content\":\"<|eot|>\",\"special\":true,\"normalized\":false}]"

static inline struct tokenizer *make_tokenizer(const char *json)
{
    struct tokenizer *tokenizer;
    OK(tokenizer_parse(json, strlen(json), "test", &tokenizer));
    return tokenizer;
}

/* Ids as "1 2 3" in a static buffer. untrusted: NULL or one character a byte, 'u' = untrusted. */
static inline const char *encode_to_text(const struct tokenizer *tokenizer, const char *text,
                                         const char *untrusted, unsigned flags)
{
    static char out[4096];
    uint8_t marks[1024] = {0};
    struct token_list list = {0};
    size_t n = 0;
    for (size_t i = 0; untrusted != NULL && i < strlen(text); i++)
        marks[i] = untrusted[i] == 'u';
    OK(tokenizer_encode(tokenizer, text, strlen(text), untrusted ? marks : NULL, flags, &list));
    out[0] = '\0';
    for (size_t i = 0; i < list.count; i++)
        n += (size_t)snprintf(out + n, sizeof out - n, "%s%u", i ? " " : "", list.ids[i]);
    token_list_free(&list);
    return out;
}

static inline err_t try_compile(const char *source)
{
    struct chat_template *chat_template = NULL;
    err_t e = chat_template_compile(source, strlen(source), "test", &chat_template);
    chat_template_destroy(chat_template);
    return e;
}

/* json: what comes with the request besides; NULL = nothing. */
static inline err_t try_render_with(const char *source, const struct chat_message *messages, size_t n,
                                    const char *json, struct rendered_prompt *out)
{
    struct chat_template *chat_template = NULL;
    memset(out, 0, sizeof *out);
    err_t e = chat_template_compile(source, strlen(source), "test", &chat_template);
    if (e.code != ERR_OK)
        return e;
    struct template_input input = {.messages = messages,
                                   .n_messages = n,
                                   .add_generation_prompt = true,
                                   .json = json,
                                   .json_bytes = json ? strlen(json) : 0,
                                   .bos_token = "<s>",
                                   .eos_token = "</s>",
                                   .now_unix_s = 1718000000};
    e = chat_template_render(chat_template, &input, out);
    chat_template_destroy(chat_template);
    return e;
}

static inline err_t try_render(const char *source, const struct chat_message *messages, size_t n,
                               struct rendered_prompt *out)
{
    return try_render_with(source, messages, n, NULL, out);
}
