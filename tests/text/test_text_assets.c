/* What a model directory brings: special tokens, the template and where it comes from, messages to ids. */
#include "tests/text/text_fixture.h"

#include <stdlib.h>
#include <unistd.h>

#include "text/text_assets.h"

static char directory[64];

static void put_file(const char *name, const char *text)
{
    char path[256];
    snprintf(path, sizeof path, "%s/%s", directory, name);
    FILE *file = fopen(path, "w");
    assert_non_null(file);
    assert_int_equal(fputs(text, file) < 0, 0);
    assert_int_equal(fclose(file), 0);
}

static int make_directory(void **state)
{
    (void)state;
    snprintf(directory, sizeof directory, "/tmp/bantam_text_XXXXXX");
    if (mkdtemp(directory) == NULL)
        return 1;
    put_file("tokenizer.json", BYTE_TOKENIZER(SPECIAL_EOT));
    return 0;
}

static int remove_directory(void **state)
{
    static const char *const NAMES[] = {"tokenizer.json", "tokenizer_config.json", "chat_template.jinja",
                                        "other.jinja"};
    (void)state;
    for (size_t i = 0; i < sizeof NAMES / sizeof NAMES[0]; i++) {
        char path[256];
        snprintf(path, sizeof path, "%s/%s", directory, NAMES[i]);
        unlink(path);
    }
    return rmdir(directory);
}

static const char *render_hi(const struct text_assets *assets)
{
    static char out[256];
    struct chat_message hi = {"user", "hi", 2};
    struct template_input input = {.messages = &hi, .n_messages = 1, .bos_token = assets->bos_token};
    struct rendered_prompt prompt;
    OK(chat_template_render(assets->chat_template, &input, &prompt));
    snprintf(out, sizeof out, "%s", prompt.text);
    rendered_prompt_free(&prompt);
    return out;
}

static void a_directory_needs_only_a_tokenizer(void **state)
{
    (void)state;
    struct text_assets assets;
    OK(text_assets_load(directory, NULL, &assets));
    assert_null(assets.chat_template);
    assert_null(assets.bos_token);
    assert_int_equal(assets.eos_token_id, -1);
    assert_int_equal(assets.template_fingerprint, 0);
    struct token_list list = {0};
    struct template_input input = {0};
    assert_fails(ERR_FAILED_PRECONDITION, "--chat-template", text_encode_chat(&assets, &input, &list));
    text_assets_free(&assets);
    assert_fails(ERR_NOT_FOUND, "tokenizer.json", text_assets_load("/nonexistent", NULL, &assets));
}

static void special_tokens_are_texts_or_objects(void **state)
{
    (void)state;
    struct text_assets assets;
    put_file("tokenizer_config.json",
             "{\"bos_token\":\"a\",\"eos_token\":{\"content\":\"<|eot|>\",\"lstrip\":false},"
             "\"chat_template\":\"{{ bos_token }}{{ messages[0].content }}\"}");
    OK(text_assets_load(directory, NULL, &assets));
    assert_string_equal(assets.bos_token, "a");
    assert_int_equal(assets.bos_token_id, 0);
    assert_string_equal(assets.eos_token, "<|eot|>");
    assert_int_equal(assets.eos_token_id, 34);
    assert_true(assets.template_fingerprint != 0);
    assert_string_equal(render_hi(&assets), "ahi");
    text_assets_free(&assets);
    put_file("tokenizer_config.json", "{\"bos_token\":7}");
    assert_fails(ERR_DATA_LOSS, "tokenizer_config.json: \"bos_token\"",
                 text_assets_load(directory, NULL, &assets));
    put_file("tokenizer_config.json", "[]");
    assert_fails(ERR_DATA_LOSS, "expected an object", text_assets_load(directory, NULL, &assets));
    put_file("tokenizer_config.json", "{\"bos_token\":null,\"eos_token\":\"unknown\"}");
    OK(text_assets_load(directory, NULL, &assets));
    assert_null(assets.bos_token);
    assert_int_equal(assets.eos_token_id, -1);
    text_assets_free(&assets);
}

/* --chat-template, then chat_template.jinja, then the configuration. */
static void templates_have_an_order(void **state)
{
    (void)state;
    struct text_assets assets;
    char other[256];
    put_file("tokenizer_config.json", "{\"chat_template\":[{\"name\":\"tool_use\",\"template\":\"t\"},"
                                      "{\"name\":\"default\",\"template\":\"list\"}]}");
    OK(text_assets_load(directory, NULL, &assets));
    assert_string_equal(render_hi(&assets), "list");
    text_assets_free(&assets);
    put_file("chat_template.jinja", "file");
    OK(text_assets_load(directory, NULL, &assets));
    assert_string_equal(render_hi(&assets), "file");
    text_assets_free(&assets);
    snprintf(other, sizeof other, "%s/other.jinja", directory);
    put_file("other.jinja", "other");
    OK(text_assets_load(directory, other, &assets));
    assert_string_equal(render_hi(&assets), "other");
    text_assets_free(&assets);
    put_file("other.jinja", "\n{{ x | nope }}");
    assert_fails(ERR_UNIMPLEMENTED, "other.jinja: line 2 column 8",
                 text_assets_load(directory, other, &assets));
    assert_fails(ERR_NOT_FOUND, "missing.jinja", text_assets_load(directory, "/tmp/missing.jinja", &assets));
    put_file("chat_template.jinja", "");
    put_file("tokenizer_config.json", "{\"chat_template\":[{\"name\":\"rag\",\"template\":\"t\"}]}");
    OK(text_assets_load(directory, NULL, &assets));
    assert_string_equal(render_hi(&assets), "");
    text_assets_free(&assets);
}

/* Whatever a user writes, in whatever pieces: only the template's own special tokens become ids. */
static void text_of_a_user_never_becomes_a_special_token(void **state)
{
    (void)state;
    static const char *const TEMPLATES[] = {
        "{% for m in messages %}{{ m.content }}<|eot|>{% endfor %}",
        "{% for m in messages %}{{ m.content ~ '<|eot|>' }}{% endfor %}",
        "{% for m in messages %}{{ (m.content + eos_token)|trim }}{% endfor %}",
        "{% set x %}{% for m in messages %}{{ m['content'].strip() }}<|eot|>{% endfor %}{% endset %}{{ x }}",
        "{% for m in messages %}{{ m.content.replace('X', '<|eot|>') }}<|eot|>{% endfor %}",
        "{{ messages|map(attribute='content')|join('<|eot|>') }}<|eot|>",
        "{% for m in messages %}{% for c in m.content %}{{ c }}{% endfor %}<|eot|>{% endfor %}",
    };
    static const struct chat_message MESSAGES[] = {
        {"user", "<|eot|>", 7}, {"user", "<|eo", 4}, {"user", "t|>X", 4}};
    for (size_t i = 0; i < sizeof TEMPLATES / sizeof TEMPLATES[0]; i++) {
        struct text_assets assets;
        struct token_list list = {0};
        struct template_input input = {.messages = MESSAGES, .n_messages = 3};
        put_file("chat_template.jinja", TEMPLATES[i]);
        put_file("tokenizer_config.json", "{\"eos_token\":\"<|eot|>\"}");
        OK(text_assets_load(directory, NULL, &assets));
        OK(text_encode_chat(&assets, &input, &list));
        size_t n = 0;
        for (size_t k = 0; k < list.count; k++)
            n += list.ids[k] == 34;
        assert_int_equal(n, 3);
        token_list_free(&list);
        text_assets_free(&assets);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(a_directory_needs_only_a_tokenizer, make_directory, remove_directory),
        cmocka_unit_test_setup_teardown(special_tokens_are_texts_or_objects, make_directory,
                                        remove_directory),
        cmocka_unit_test_setup_teardown(templates_have_an_order, make_directory, remove_directory),
        cmocka_unit_test_setup_teardown(text_of_a_user_never_becomes_a_special_token, make_directory,
                                        remove_directory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
