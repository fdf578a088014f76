/* Renders against Jinja's, from template_goldens.json (make_template_goldens.py). */
#include "tests/text/text_fixture.h"

#include <jansson.h>

enum { MESSAGES_MAX = 16, CASES_LEAST = 100 };

static size_t read_messages(const json_t *json, struct chat_message *out)
{
    size_t n = json_array_size(json);
    assert_true(n <= MESSAGES_MAX);
    for (size_t i = 0; i < n; i++) {
        const json_t *item = json_array_get(json, i), *content = json_object_get(item, "content");
        out[i] = (struct chat_message){json_string_value(json_object_get(item, "role")),
                                       json_string_value(content), json_string_length(content)};
    }
    return n;
}

static void check_case(const json_t *json)
{
    const char *name = json_string_value(json_object_get(json, "name"));
    const char *source = json_string_value(json_object_get(json, "template"));
    const json_t *expected = json_object_get(json, "text");
    struct chat_message messages[MESSAGES_MAX];
    struct chat_template *chat_template;
    struct rendered_prompt prompt;
    struct template_input input = {
        .messages = messages, .bos_token = "<s>", .eos_token = "</s>", .now_unix_s = 1718000000};
    input.n_messages = read_messages(json_object_get(json, "messages"), messages);
    input.add_generation_prompt = json_is_true(json_object_get(json, "add_generation_prompt"));
    err_t e = chat_template_compile(source, strlen(source), name, &chat_template);
    if (e.code != ERR_OK)
        fail_msg("%s", e.message);
    e = chat_template_render(chat_template, &input, &prompt);
    if (expected == NULL) {
        if (e.code == ERR_OK)
            fail_msg("%s: expected an error like \"%s\", got \"%s\"", name,
                     json_string_value(json_object_get(json, "error")), prompt.text);
    } else if (e.code != ERR_OK) {
        fail_msg("%s: %s", name, e.message);
    } else if (strcmp(prompt.text, json_string_value(expected)) != 0) {
        fail_msg("%s: expected\n\"%s\", got\n\"%s\"", name, json_string_value(expected), prompt.text);
    }
    rendered_prompt_free(&prompt);
    chat_template_destroy(chat_template);
}

static void renders_are_as_jinjas(void **state)
{
    (void)state;
    json_error_t where;
    json_t *cases = json_load_file(TEST_DATA_DIR "/text/template_goldens.json", 0, &where);
    assert_non_null(cases);
    assert_true(json_array_size(cases) >= CASES_LEAST);
    for (size_t i = 0; i < json_array_size(cases); i++)
        check_case(json_array_get(cases, i));
    json_decref(cases);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(renders_are_as_jinjas)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
