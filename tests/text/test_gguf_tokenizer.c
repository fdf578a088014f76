/* Tokenizers from GGUF metadata against Transformers' from the same files, and metadata that is wrong. */
#include <jansson.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include "base/gguf.h"
#include "tests/base/gguf_builder.h"
#include "text/gguf_tokenizer.h"
#include "text/text_assets.h"

#define GGUF_DIR SOURCE_DIR "/tests/parity/gguf/"

static void expect_ok(err_t e)
{
    if (e.code != ERR_OK)
        fail_msg("%s", e.message);
}

static void check_text(const struct tokenizer *tokenizer, const char *file, const json_t *text,
                       const json_t *ids, const json_t *decoded)
{
    struct token_list list = {0};
    struct buffer back = {.limit_bytes = 1 << 20};
    expect_ok(tokenizer_encode(tokenizer, json_string_value(text), json_string_length(text), NULL,
                               TOKENIZE_PARSE_SPECIAL, &list));
    bool same = list.count == json_array_size(ids);
    for (size_t i = 0; i < list.count && same; i++)
        same = list.ids[i] == json_integer_value(json_array_get(ids, i));
    if (!same) {
        for (size_t i = 0; i < list.count || i < json_array_size(ids); i++)
            print_message("%d %lld\n", i < list.count ? (int)list.ids[i] : -1,
                          (long long)json_integer_value(json_array_get(ids, i)));
        fail_msg("%s: \"%s\"", file, json_string_value(text));
    }
    if (list.count > 0)
        expect_ok(tokenizer_decode(tokenizer, list.ids, list.count, false, &back));
    if (back.size != json_string_length(decoded) ||
        (back.size > 0 && memcmp(back.data, json_string_value(decoded), back.size) != 0))
        fail_msg("%s: \"%s\" came back as \"%.*s\"", file, json_string_value(decoded), (int)back.size,
                 back.data ? back.data : "");
    buffer_free(&back);
    token_list_free(&list);
}

static void ids_equal_transformers(void **state)
{
    (void)state;
    json_t *root = json_load_file(GGUF_DIR "tokenizers.json", 0, NULL);
    json_t *texts = json_object_get(root, "texts"), *files = json_object_get(root, "files"), *golden;
    const char *name;
    assert_true(json_array_size(texts) > 400);
    assert_int_equal(json_object_size(files), 5);
    json_object_foreach(files, name, golden)
    {
        char path[4096];
        struct tokenizer *tokenizer;
        snprintf(path, sizeof path, GGUF_DIR "%s", name);
        expect_ok(tokenizer_load(path, &tokenizer));
        for (size_t i = 0; i < json_array_size(texts); i++)
            check_text(tokenizer, name, json_array_get(texts, i),
                       json_array_get(json_object_get(golden, "ids"), i),
                       json_array_get(json_object_get(golden, "decoded"), i));
        tokenizer_destroy(tokenizer);
    }
    json_decref(root);
}

/* BOS in front of text, the chat template of the metadata, and a user who cannot write a special token. */
static void assets_of_a_file(void **state)
{
    (void)state;
    struct text_assets assets;
    expect_ok(text_assets_load(GGUF_DIR "tokenizer-gemma.gguf", NULL, &assets));
    assert_string_equal(assets.bos_token, "<s>");
    assert_int_equal(assets.bos_token_id, 1);
    assert_int_equal(assets.eos_token_id, 2);
    struct token_list list = {0};
    expect_ok(tokenizer_encode(assets.tokenizer, "bytes", 5, NULL, TOKENIZE_ADD_SPECIAL, &list));
    assert_int_equal(list.ids[0], 1);
    token_list_free(&list);
    const struct chat_message message = {.role = "user", .content = "<end_of_turn>"};
    const struct template_input input = {.messages = &message, .n_messages = 1};
    list = (struct token_list){0};
    expect_ok(text_encode_chat(&assets, &input, &list));
    int64_t end = tokenizer_find(assets.tokenizer, "<end_of_turn>", 13);
    size_t n_ends = 0;
    for (size_t i = 0; i < list.count; i++)
        n_ends += list.ids[i] == end;
    assert_int_equal(n_ends, 1); /* the template's */
    assert_int_equal(list.ids[0], 1);
    token_list_free(&list);
    text_assets_free(&assets);
}

/* ---- Metadata that is wrong ---- */

static const char *const TOKENS[] = {"<unk>", "<s>", "a", "b", "ab"};
static const int32_t TYPES[] = {2, 3, 1, 1, 1};
static const float SCORES[] = {0, 0, -1, -2, -3};

struct parts {
    const char *model, *pre;
    bool tokens, merges, bad_merge, bad_scores, no_scores, short_types, twice, no_bos;
};

static err_t load(const struct parts *parts)
{
    static const char *const twice[] = {"<unk>", "<s>", "a", "a", "ab"}, *const merges[] = {"a b"},
                             *const bad[] = {"a c"};
    struct gguf_builder b = {0};
    if (parts->model)
        builder_text(&b, "tokenizer.ggml.model", parts->model);
    if (parts->pre)
        builder_text(&b, "tokenizer.ggml.pre", parts->pre);
    if (parts->tokens)
        builder_texts(&b, "tokenizer.ggml.tokens", parts->twice ? twice : TOKENS, 5);
    builder_array(&b, "tokenizer.ggml.token_type", GGUF_I32, TYPES, 4, parts->short_types ? 4 : 5);
    if (!parts->no_scores)
        builder_array(&b, "tokenizer.ggml.scores", GGUF_F32, SCORES, 4, parts->bad_scores ? 4 : 5);
    if (parts->merges || parts->bad_merge)
        builder_texts(&b, "tokenizer.ggml.merges", parts->bad_merge ? bad : merges, 1);
    if (!parts->no_bos)
        builder_u32(&b, "tokenizer.ggml.bos_token_id", 1);
    struct buffer file = builder_finish(&b);
    struct gguf gguf;
    expect_ok(gguf_parse("m.gguf", (const uint8_t *)file.data, file.size, &gguf));
    struct tokenizer *tokenizer;
    err_t e = tokenizer_from_gguf(&gguf, &tokenizer);
    tokenizer_destroy(tokenizer);
    gguf_close(&gguf);
    buffer_free(&file);
    return e;
}

static void wrong_metadata(void **state)
{
    (void)state;
    static const struct {
        struct parts parts;
        enum err_code code;
        const char *text;
    } cases[] = {
        {{.tokens = true}, ERR_INVALID_ARGUMENT, "\"tokenizer.ggml.model\" is missing"},
        {{.model = "bert", .tokens = true},
         ERR_UNIMPLEMENTED,
         "\"bert\" is not known; known are llama and gpt2"},
        {{.model = "llama"}, ERR_INVALID_ARGUMENT, "\"tokenizer.ggml.tokens\" is missing"},
        {{.model = "llama", .tokens = true, .no_scores = true}, ERR_INVALID_ARGUMENT, "scores\" is missing"},
        {{.model = "llama", .tokens = true, .bad_scores = true}, ERR_DATA_LOSS, "scores\" must have an item"},
        {{.model = "llama", .tokens = true, .short_types = true},
         ERR_DATA_LOSS,
         "token_type\" must have an item"},
        {{.model = "llama", .tokens = true, .twice = true}, ERR_DATA_LOSS, "\"tokenizer.ggml.tokens\"[3]"},
        {{.model = "llama", .tokens = true, .no_bos = true},
         ERR_INVALID_ARGUMENT,
         "bos_token_id\" is missing"},
        {{.model = "gpt2", .tokens = true, .merges = true},
         ERR_INVALID_ARGUMENT,
         "\"tokenizer.ggml.pre\" is missing"},
        {{.model = "gpt2", .pre = "viking", .tokens = true, .merges = true},
         ERR_UNIMPLEMENTED,
         "\"viking\" is not known; known are gpt-2, llama-bpe"},
        {{.model = "gpt2", .pre = "qwen2", .tokens = true}, ERR_INVALID_ARGUMENT, "merges\" is missing"},
        {{.model = "gpt2", .pre = "qwen2", .tokens = true, .bad_merge = true},
         ERR_DATA_LOSS,
         "\"tokenizer.ggml.merges\"[0]: \"a c\""},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        err_t e = load(&cases[i].parts);
        if (e.code != cases[i].code || !strstr(e.message, cases[i].text) || !strstr(e.message, "m.gguf"))
            fail_msg("case %zu: expected %s with \"%s\", got %s: %s", i, err_code_name(cases[i].code),
                     cases[i].text, err_code_name(e.code), e.code == ERR_OK ? "" : e.message);
    }
    expect_ok(load(&(struct parts){.model = "llama", .tokens = true}));
    expect_ok(load(&(struct parts){.model = "gpt2", .pre = "qwen2", .tokens = true, .merges = true}));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(ids_equal_transformers),
        cmocka_unit_test(assets_of_a_file),
        cmocka_unit_test(wrong_metadata),
    };
    return cmocka_run_group_tests_name("gguf_tokenizer", tests, NULL, NULL);
}
