/* OpenAI's JSON as it comes: decode, validate, and the error's way back. The first byte picks the message, so
 * that one corpus covers all. */
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include "api/validate.h"
#include "base/alloc.h"
#include "base/assert.h"
#include "base/utf8.h"
#include "proto/codec_openai.h"
#include "proto/json_read.h"
#include "tests/fuzz/touch_request.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_error(const err_t *e, enum openai_kind kind, const char *param)
{
    struct buffer out = {.limit_bytes = 16 << 10};
    ASSERT(e->code == ERR_INVALID_ARGUMENT || e->code == ERR_UNIMPLEMENTED);
    bool encoded = openai_encode_error(e, kind, param, &out);
    ASSERT(encoded && utf8_valid(out.data, out.size));
    ASSERT(strlen(param) < OPENAI_PARAM_BYTES_MAX);
    buffer_free(&out);
}

/* What an engine's door says of a body, and one that passes requests on: the second refuses nothing more but
 * hints, and knows the first one's words. */
static void compare(const err_t *engine, const err_t *passing, const char *passing_param, const char *beyond)
{
    if (engine->code == ERR_OK && passing->code == ERR_OK)
        ASSERT(!beyond);
    else if (engine->code == ERR_OK)
        ASSERT(strncmp(passing_param, "bantam", 6) == 0);
    else if (engine->code == ERR_UNIMPLEMENTED && passing->code == ERR_OK)
        ASSERT(beyond && strcmp(beyond, engine->message) == 0);
    else
        ASSERT(passing->code != ERR_OK);
}

static void fuzz_request(enum openai_kind kind, bool passes_on, const char *bytes, size_t size,
                         const err_t *engine, err_t *out)
{
    static const struct validate_limits limits = {.vocab_size = 1000,
                                                  .max_model_len = 512,
                                                  .max_n = 8,
                                                  .has_tokenizer = true,
                                                  .has_chat_template = true};
    struct openai_scratch scratch = {.passes_on = passes_on};
    struct openai_request request;
    err_t e = openai_decode_request(kind, bytes, size, &scratch, &request);
    if (e.code != ERR_OK)
        check_error(&e, kind, scratch.param);
    if (engine)
        compare(engine, &e, scratch.param, request.request.beyond);
    ASSERT(e.code != ERR_OK || passes_on == (request.request.original != NULL));
    for (size_t i = 0; e.code == ERR_OK && i < request.n_prompts; i++) {
        struct request one = openai_request_of_prompt(&request, i);
        (void)touch_request(&one);
        err_t invalid = validate_request(&one, &limits);
        if (invalid.code != ERR_OK)
            check_error(&invalid, kind, "");
        else
            ASSERT(request.n_choices >= 1 && request.n_choices <= limits.max_n);
    }
    openai_scratch_free(&scratch);
    *out = e;
}

static void fuzz_texts(uint8_t kind, const char *bytes, size_t size)
{
    struct openai_scratch scratch = {0};
    struct openai_tokenize tokenize;
    struct openai_detokenize detokenize;
    err_t e = kind == 2 ? openai_decode_tokenize(bytes, size, &scratch, &tokenize)
                        : openai_decode_detokenize(bytes, size, &scratch, &detokenize);
    if (e.code != ERR_OK)
        check_error(&e, OPENAI_COMPLETION, scratch.param);
    else if (kind == 2)
        (void)touch_request(&tokenize.request);
    else
        (void)touch(detokenize.token_ids, detokenize.n_token_ids * sizeof(uint32_t));
    openai_scratch_free(&scratch);
}

/* What is read without jansson is what jansson reads. */
static void check_reading(const char *bytes, size_t size, size_t flags)
{
    json_t *plain = json_read_plain(bytes, size, flags), *expected = json_loadb(bytes, size, flags, NULL);
    ASSERT(plain == NULL || (expected && json_equal(plain, expected)));
    json_decref(plain);
    json_decref(expected);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size == 0)
        return 0;
    uint8_t kind = data[0] % 4;
    /* Of the exact size, so that reading past the end is seen. */
    char *bytes = mem_alloc(size);
    ASSERT(bytes);
    memcpy(bytes, data + 1, size - 1);
    check_reading(bytes, size - 1, JSON_ALLOW_NUL);
    check_reading(bytes, size - 1, JSON_REJECT_DUPLICATES | JSON_ALLOW_NUL);
    if (kind < 2) {
        enum openai_kind request = kind == 0 ? OPENAI_COMPLETION : OPENAI_CHAT;
        err_t engine, passing;
        fuzz_request(request, false, bytes, size - 1, NULL, &engine);
        fuzz_request(request, true, bytes, size - 1, &engine, &passing);
    } else
        fuzz_texts(kind, bytes, size - 1);
    mem_free(bytes);
    return 0;
}
