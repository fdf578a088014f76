/* Chat requests as providers get them. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include "base/alloc.h"
#include "router/providers/json_text.h"
#include "router/providers/provider_request.h"

static const struct provider_model OPENAI = {
    .kind = PROVIDER_OPENAI, .name = "big", .takes_images = true, .takes_tools = true, .takes_schemas = true};
static const struct provider_model COMPATIBLE = {
    .kind = PROVIDER_COMPATIBLE, .name = "other", .takes_tools = true, .takes_schemas = true};
static const struct provider_model ANTHROPIC = {.kind = PROVIDER_ANTHROPIC,
                                                .name = "opus",
                                                .max_output_tokens = 4096,
                                                .takes_images = true,
                                                .takes_tools = true,
                                                .takes_schemas = true};

/* JSON with ' for ". */
static json_t *read_json(const char *quoted)
{
    char text[8192];
    size_t size = strlen(quoted);
    assert_true(size < sizeof text);
    for (size_t i = 0; i <= size; i++)
        text[i] = quoted[i] == '\'' ? '"' : quoted[i];
    json_error_t error;
    json_t *value = json_loads(text, 0, &error);
    if (value == NULL)
        fail_msg("%s: %s", error.text, text);
    return value;
}

static err_t write_request(const struct provider_model *model, const char *request, bool is_stream,
                           struct provider_dropped *dropped, json_t **out)
{
    struct buffer body = {.limit_bytes = 1 << 16};
    json_t *parsed = read_json(request), *before = json_deep_copy(parsed);
    err_t e = provider_request_check(model, parsed);
    if (e.code == ERR_OK)
        e = provider_request_write(model, parsed, is_stream, dropped, &body);
    assert_true(json_equal(parsed, before)); /* several providers may be asked */
    if (e.code == ERR_OK) {
        *out = json_loadb(body.data, body.size, 0, NULL);
        assert_non_null(*out);
    }
    json_decref(parsed);
    json_decref(before);
    buffer_free(&body);
    return e;
}

static void assert_becomes(const struct provider_model *model, const char *request, bool is_stream,
                           const char *expected, parameter_set parameters, uint32_t n_unknown)
{
    struct provider_dropped dropped;
    json_t *body, *wanted = read_json(expected);
    err_t e = write_request(model, request, is_stream, &dropped, &body);
    if (e.code != ERR_OK)
        fail_msg("%s", e.message);
    if (!json_equal(body, wanted)) {
        char text[8192] = "";
        json_dumpb(body, text, sizeof text - 1, JSON_COMPACT);
        fail_msg("%s\ninstead of %s", text, expected);
    }
    assert_int_equal(dropped.parameters, parameters);
    assert_int_equal(dropped.n_unknown, n_unknown);
    json_decref(body);
    json_decref(wanted);
}

static void assert_refused(const struct provider_model *model, const char *request, enum err_code code,
                           const char *words)
{
    struct provider_dropped dropped;
    json_t *body;
    err_t e = write_request(model, request, false, &dropped, &body);
    assert_int_equal(e.code, code);
    if (strstr(e.message, words) == NULL)
        fail_msg("\"%s\" does not say \"%s\"", e.message, words);
}

#define MESSAGES "'messages': [{'role': 'user', 'content': 'Hi'}]"
#define BLOCKS   "'messages': [{'role': 'user', 'content': [{'type': 'text', 'text': 'Hi'}]}]"

/* Numbers cross as they were written, and as no others. */
static void numbers_are_as_short_as_they_can_be(void **state)
{
    (void)state;
    static const char TEXT[] =
        "{\"a\":[0.7,0.1,1.0,-0.0,1e+300,5e-324,0.30000000000000004,3,123456789012345678,"
        "1.7976931348623157e+308,0.69999999999999996]}";
    static const char SAME[] =
        "{\"a\":[0.7,0.1,1.0,-0.0,1e+300,5e-324,0.30000000000000004,3,123456789012345678,"
        "1.7976931348623157e+308,0.7]}";
    struct buffer text = {.limit_bytes = 1 << 16};
    json_t *root = json_loads(TEXT, 0, NULL);
    assert_int_equal(json_text_append(&text, root).code, ERR_OK);
    assert_string_equal(text.data, SAME);
    json_decref(root);
    uint64_t word = 1;
    for (int i = 0; i < 20000; i++) {
        double value;
        word = word * UINT64_C(6364136223846793005) + 1442695040888963407;
        memcpy(&value, &word, sizeof value);
        json_t *real = json_real(value);
        if (real == NULL) /* not a number, or infinite */
            continue;
        buffer_clear(&text);
        assert_int_equal(json_text_append(&text, real).code, ERR_OK);
        json_t *again = json_loads(text.data, JSON_DECODE_ANY, NULL);
        assert_true(json_is_real(again) && json_real_value(again) == value);
        json_decref(again);
        json_decref(real);
    }
    root = json_pack("{s:s%, s:[], s:{}, s:n, s:b, s:b}", "\"\n", "a\0\x01\xc3\xbc", (size_t)5, "b", "c", "d",
                     "e", 1, "f", 0);
    buffer_clear(&text);
    assert_int_equal(json_text_append(&text, root).code, ERR_OK);
    json_t *again = json_loadb(text.data, text.size, JSON_ALLOW_NUL, NULL);
    assert_true(json_equal(root, again));
    json_decref(again);
    text.limit_bytes = text.size; /* nothing fits behind it */
    assert_int_equal(json_text_append(&text, root).code, ERR_RESOURCE_EXHAUSTED);
    json_decref(root);
    root = json_array();
    for (int i = 0; i < JSON_TEXT_DEPTH_MAX; i++) {
        json_t *outer = json_array();
        json_array_append_new(outer, root);
        root = outer;
    }
    text.limit_bytes = 1 << 16;
    buffer_clear(&text);
    assert_int_equal(json_text_append(&text, root).code, ERR_OK);
    json_t *deeper = json_pack("[o]", root);
    assert_int_equal(json_text_append(&text, deeper).code, ERR_RESOURCE_EXHAUSTED);
    json_decref(deeper);
    buffer_free(&text);
}

static void openai_gets_its_own_parameters_alone(void **state)
{
    (void)state;
    assert_becomes(
        &OPENAI,
        "{" MESSAGES ", 'model': 'demo', 'temperature': 0, 'top_k': 5, 'min_p': 0.1, 'n': 2, 'seed': 3,"
        " 'priority': 1, 'bantam': {'route': 'auto'}, 'metadata': {'a': 'b'}, 'max_tokens': 9, 'odd': 1,"
        " 'nothing': null, 'stop': null, 'logprobs': false}",
        false, "{" MESSAGES ", 'model': 'big', 'temperature': 0, 'n': 2, 'seed': 3, 'max_tokens': 9}",
        parameter_bit(PARAMETER_top_k) | parameter_bit(PARAMETER_min_p), 1);
    /* What only repeats a default is no wish. */
    assert_becomes(&OPENAI,
                   "{" MESSAGES ", 'top_k': -1, 'min_p': 0, 'repetition_penalty': 1.0, 'min_tokens': 0}",
                   false, "{" MESSAGES ", 'model': 'big'}", 0, 0);
}

static void a_stream_asks_for_its_usage(void **state)
{
    (void)state;
    assert_becomes(
        &OPENAI, "{" MESSAGES ", 'stream': false, 'stream_options': {'include_usage': false}}", true,
        "{" MESSAGES ", 'model': 'big', 'stream': true, 'stream_options': {'include_usage': true}}", 0, 0);
    assert_becomes(&OPENAI, "{" MESSAGES ", 'stream': true}", false, "{" MESSAGES ", 'model': 'big'}", 0, 0);
    assert_becomes(&ANTHROPIC, "{" MESSAGES ", 'stream_options': {'include_usage': true}}", true,
                   "{" BLOCKS ", 'model': 'opus', 'stream': true, 'max_tokens': 4096}", 0, 0);
}

static void a_model_s_own_wishes_are_met(void **state)
{
    (void)state;
    struct provider_model model = OPENAI;
    model.max_completion_tokens = true;
    model.refuses = parameter_bit(PARAMETER_temperature) | parameter_bit(PARAMETER_top_p);
    assert_becomes(&model, "{" MESSAGES ", 'max_tokens': 9, 'temperature': 0.5}", false,
                   "{" MESSAGES ", 'model': 'big', 'max_completion_tokens': 9}",
                   parameter_bit(PARAMETER_temperature), 0);
    model.output_limit = 77; /* where the request has none */
    model.max_completion_tokens = true;
    assert_becomes(&model, "{" MESSAGES "}", false,
                   "{" MESSAGES ", 'model': 'big', 'max_completion_tokens': 77}", 0, 0);
    assert_becomes(&model, "{" MESSAGES ", 'max_tokens': 9}", false,
                   "{" MESSAGES ", 'model': 'big', 'max_completion_tokens': 9}", 0, 0);
    assert_becomes(&OPENAI, "{" MESSAGES ", 'max_tokens': 9, 'max_completion_tokens': 8}", false,
                   "{" MESSAGES ", 'model': 'big', 'max_tokens': 8}", 0, 0);
}

static void compatible_servers_get_the_rest_too(void **state)
{
    (void)state;
    assert_becomes(
        &COMPATIBLE,
        "{" MESSAGES ", 'top_k': 5, 'min_tokens': 2, 'guided_choice': ['a', 'b'], 'repetition_penalty': 1.1,"
        " 'cache_salt': 's'}",
        false,
        "{" MESSAGES ", 'model': 'other', 'top_k': 5, 'min_tokens': 2, 'guided_choice': ['a', 'b'],"
        " 'repetition_penalty': 1.1}",
        0, 0);
}

static void token_ids_keep_a_request_here(void **state)
{
    (void)state;
    const struct provider_model *MODELS[] = {&OPENAI, &COMPATIBLE, &ANTHROPIC};
    const char *NAMES[] = {"allowed_token_ids", "stop_token_ids"};
    for (size_t m = 0; m < 3; m++) {
        for (size_t i = 0; i < 2; i++) {
            char request[200];
            snprintf(request, sizeof request, "{" MESSAGES ", '%s': [1]}", NAMES[i]);
            assert_refused(MODELS[m], request, ERR_UNIMPLEMENTED, NAMES[i]);
        }
        assert_refused(MODELS[m], "{" MESSAGES ", 'logit_bias': {'5': 1}}", ERR_UNIMPLEMENTED, "logit_bias");
        assert_refused(MODELS[m], "{'prompt': 'Hi'}", ERR_UNIMPLEMENTED, "without messages");
    }
    assert_refused(&OPENAI, "{" MESSAGES ", 'min_tokens': 5}", ERR_UNIMPLEMENTED, "min_tokens");
    assert_refused(&ANTHROPIC, "{" MESSAGES ", 'n': 2}", ERR_UNIMPLEMENTED, "n keeps");
    assert_refused(&ANTHROPIC, "{" MESSAGES ", 'logprobs': true}", ERR_UNIMPLEMENTED, "logprobs");
}

static void what_a_model_cannot_take_is_named(void **state)
{
    (void)state;
    const char *image =
        "{'messages': [{'role': 'user', 'content': [{'type': 'image_url', 'image_url': {'url': 'x'}}]}]}";
    assert_refused(&COMPATIBLE, image, ERR_UNIMPLEMENTED, "image_url");
    assert_refused(&OPENAI, "{'messages': [{'role': 'user', 'content': [{'type': 'input_audio'}]}]}",
                   ERR_UNIMPLEMENTED, "input_audio");
    assert_refused(&OPENAI, "{'messages': [{'role': 'user', 'content': [{}]}]}", ERR_UNIMPLEMENTED,
                   "messages[0]");
    struct provider_model model = COMPATIBLE;
    model.takes_tools = model.takes_schemas = false;
    assert_refused(&model, "{" MESSAGES ", 'tools': [{'type': 'function'}]}", ERR_UNIMPLEMENTED, "tools");
    assert_refused(&model, "{" MESSAGES ", 'response_format': {'type': 'json_schema'}}", ERR_UNIMPLEMENTED,
                   "response_format");
    assert_becomes(&model, "{" MESSAGES ", 'tools': [], 'response_format': {'type': 'text'}}", false,
                   "{" MESSAGES ", 'model': 'other', 'response_format': {'type': 'text'}}", 0, 0);
    assert_refused(&ANTHROPIC, "{" MESSAGES ", 'response_format': {'type': 'json_object'}}",
                   ERR_UNIMPLEMENTED, "json_object");
}

static void anthropic_gets_turns_that_alternate(void **state)
{
    (void)state;
    assert_becomes(
        &ANTHROPIC,
        "{'messages': [{'role': 'system', 'content': 'Be brief.'}, {'role': 'user', 'content': 'a'},"
        " {'role': 'user', 'content': [{'type': 'text', 'text': 'b'}, {'type': 'text', 'text': ''}]},"
        " {'role': 'developer', 'content': 'And kind.'}, {'role': 'assistant', 'content': 'c'},"
        " {'role': 'assistant', 'content': ''}, {'role': 'user', 'content': 'd'}], 'max_tokens': 7}",
        false,
        "{'model': 'opus', 'max_tokens': 7, 'system': [{'type': 'text', 'text': 'Be brief.'},"
        " {'type': 'text', 'text': 'And kind.'}], 'messages': [{'role': 'user', 'content':"
        " [{'type': 'text', 'text': 'a'}, {'type': 'text', 'text': 'b'}]}, {'role': 'assistant', 'content':"
        " [{'type': 'text', 'text': 'c'}]}, {'role': 'user', 'content': [{'type': 'text', 'text': 'd'}]}]}",
        0, 0);
    assert_refused(&ANTHROPIC, "{'messages': [{'role': 'system', 'content': 'x'}]}", ERR_INVALID_ARGUMENT,
                   "role user");
    assert_refused(&ANTHROPIC, "{'messages': [{'role': 'user', 'content': ''}]}", ERR_INVALID_ARGUMENT,
                   "role user");
    assert_refused(&ANTHROPIC, "{'messages': [{'role': 'wizard', 'content': 'x'}]}", ERR_INVALID_ARGUMENT,
                   "messages[0].role");
}

static void anthropic_gets_tools_and_their_results(void **state)
{
    (void)state;
    assert_becomes(
        &ANTHROPIC,
        "{'messages': [{'role': 'user', 'content': 'a'}, {'role': 'assistant', 'content': null, 'tool_calls':"
        " [{'id': 't1', 'type': 'function', 'function': {'name': 'f', 'arguments': '{\\'x\\': 1}'}},"
        " {'id': 't2', 'type': 'function', 'function': {'name': 'g', 'arguments': ''}}]},"
        " {'role': 'tool', 'tool_call_id': 't1', 'content': 'one'}, {'role': 'tool', 'tool_call_id': 't2',"
        " 'content': [{'type': 'text', 'text': 'two'}]}, {'role': 'user', 'content': 'go on'}],"
        " 'tools': [{'type': 'function', 'function': {'name': 'f', 'description': 'd', 'parameters':"
        " {'type': 'object'}}}, {'type': 'function', 'function': {'name': 'g'}}], 'tool_choice': 'required',"
        " 'parallel_tool_calls': false}",
        false,
        "{'model': 'opus', 'max_tokens': 4096, 'messages': [{'role': 'user', 'content': [{'type': 'text', "
        "'text': 'a'}]},"
        " {'role': 'assistant', 'content': [{'type': 'tool_use', 'id': 't1', 'name': 'f', 'input': {'x': 1}},"
        " {'type': 'tool_use', 'id': 't2', 'name': 'g', 'input': {}}]}, {'role': 'user', 'content':"
        " [{'type': 'tool_result', 'tool_use_id': 't1', 'content': [{'type': 'text', 'text': 'one'}]},"
        " {'type': 'tool_result', 'tool_use_id': 't2', 'content': [{'type': 'text', 'text': 'two'}]},"
        " {'type': 'text', 'text': 'go on'}]}], 'tools': [{'name': 'f', 'description': 'd', 'input_schema':"
        " {'type': 'object'}}, {'name': 'g', 'input_schema': {'type': 'object', 'properties': {}}}],"
        " 'tool_choice': {'type': 'any', 'disable_parallel_tool_use': true}}",
        0, 0);
    const char *TOOL = "'tools': [{'type': 'function', 'function': {'name': 'f'}}]";
    const struct {
        const char *choice, *mapped;
    } CASES[] = {
        {"'auto'", "{'type': 'auto'}"},
        {"'none'", "{'type': 'none'}"},
        {"{'type': 'function', 'function': {'name': 'f'}}", "{'type': 'tool', 'name': 'f'}"},
    };
    for (size_t i = 0; i < sizeof CASES / sizeof *CASES; i++) {
        char request[400], expected[400];
        snprintf(request, sizeof request, "{" MESSAGES ", %s, 'tool_choice': %s}", TOOL, CASES[i].choice);
        snprintf(expected, sizeof expected,
                 "{" BLOCKS ", 'model': 'opus', 'max_tokens': 4096, 'tools': [{'name': 'f', 'input_schema':"
                 " {'type': 'object', 'properties': {}}}], 'tool_choice': %s}",
                 CASES[i].mapped);
        assert_becomes(&ANTHROPIC, request, false, expected, 0, 0);
    }
    assert_refused(&ANTHROPIC,
                   "{'messages': [{'role': 'assistant', 'tool_calls': [{'id': 't', 'function': {'name': 'f',"
                   " 'arguments': '{'}}]}]}",
                   ERR_INVALID_ARGUMENT, "not a JSON object");
    assert_refused(&ANTHROPIC, "{'messages': [{'role': 'tool', 'content': 'x'}]}", ERR_INVALID_ARGUMENT,
                   "tool_call_id");
    assert_refused(&ANTHROPIC, "{" MESSAGES ", 'tools': [{'type': 'web_search'}]}", ERR_UNIMPLEMENTED,
                   "tools[0]");
}

static void anthropic_gets_images_schemas_and_limits(void **state)
{
    (void)state;
    assert_becomes(
        &ANTHROPIC,
        "{'messages': [{'role': 'user', 'content': [{'type': 'image_url', 'image_url': {'url':"
        " 'data:image/png;base64,QUJD'}}, {'type': 'image_url', 'image_url': {'url': 'https://a/b.png'}}]}],"
        " 'response_format': {'type': 'json_schema', 'json_schema': {'name': 'n', 'schema': {'type': "
        "'object'}}},"
        " 'stop': 'END', 'user': 'u', 'temperature': 0.5, 'top_k': 3, 'seed': 1}",
        false,
        "{'model': 'opus', 'max_tokens': 4096, 'messages': [{'role': 'user', 'content': [{'type': 'image', "
        "'source':"
        " {'type': 'base64', 'media_type': 'image/png', 'data': 'QUJD'}}, {'type': 'image', 'source': "
        "{'type': 'url',"
        " 'url': 'https://a/b.png'}}]}], 'output_config': {'format': {'type': 'json_schema', 'schema':"
        " {'type': 'object'}}}, 'stop_sequences': ['END'], 'metadata': {'user_id': 'u'}, 'temperature': 0.5, "
        "'top_k': 3}",
        parameter_bit(PARAMETER_seed), 0);
    assert_becomes(&ANTHROPIC,
                   "{" MESSAGES ", 'temperature': 1.5, 'stop': ['a', 'b'], 'max_completion_tokens': 5}",
                   false, "{" BLOCKS ", 'model': 'opus', 'max_tokens': 5, 'stop_sequences': ['a', 'b']}",
                   parameter_bit(PARAMETER_temperature), 0);
    assert_refused(&ANTHROPIC,
                   "{'messages': [{'role': 'user', 'content': [{'type': 'image_url', 'image_url': {'url': "
                   "'data:x'}}]}]}",
                   ERR_INVALID_ARGUMENT, "base64");
}

static void memory_that_fails_is_an_error(void **state)
{
    (void)state;
    json_t *request = read_json("{" MESSAGES ", 'temperature': 0.5}");
    struct provider_dropped dropped;
    struct buffer body = {.limit_bytes = 20};
    assert_int_equal(provider_request_write(&OPENAI, request, false, &dropped, &body).code,
                     ERR_RESOURCE_EXHAUSTED);
    buffer_free(&body);
    json_decref(request);
}

static void names_and_parameters_agree(void **state)
{
    (void)state;
    for (int i = 0; i < PROVIDER_PARAMETER_COUNT; i++) {
        enum provider_parameter found;
        assert_true(provider_parameter_find(provider_parameter_name((enum provider_parameter)i), &found));
        assert_int_equal(found, i);
    }
    enum provider_parameter none;
    assert_false(provider_parameter_find("nobody", &none));
}

/* Every row of the table is in docs/routing.md, as it is. */
static void the_docs_have_the_same_table(void **state)
{
    (void)state;
    char docs[1 << 16];
    FILE *file = fopen(SOURCE_DIR "/docs/routing.md", "r");
    assert_non_null(file);
    size_t size = fread(docs, 1, sizeof docs - 1, file);
    fclose(file);
    docs[size] = '\0';
    for (int i = 0; i < PROVIDER_PARAMETER_COUNT; i++) {
        enum provider_parameter parameter = (enum provider_parameter)i;
        char row[200];
        snprintf(row, sizeof row, "\n| `%s` | %s | %s | %s |\n", provider_parameter_name(parameter),
                 crossing_name(provider_parameter_crossing(parameter, PROVIDER_OPENAI)),
                 crossing_name(provider_parameter_crossing(parameter, PROVIDER_COMPATIBLE)),
                 crossing_name(provider_parameter_crossing(parameter, PROVIDER_ANTHROPIC)));
        if (strstr(docs, row) == NULL)
            fail_msg("docs/routing.md lacks: %s", row);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(numbers_are_as_short_as_they_can_be),
        cmocka_unit_test(openai_gets_its_own_parameters_alone),
        cmocka_unit_test(a_stream_asks_for_its_usage),
        cmocka_unit_test(a_model_s_own_wishes_are_met),
        cmocka_unit_test(compatible_servers_get_the_rest_too),
        cmocka_unit_test(token_ids_keep_a_request_here),
        cmocka_unit_test(what_a_model_cannot_take_is_named),
        cmocka_unit_test(anthropic_gets_turns_that_alternate),
        cmocka_unit_test(anthropic_gets_tools_and_their_results),
        cmocka_unit_test(anthropic_gets_images_schemas_and_limits),
        cmocka_unit_test(memory_that_fails_is_an_error),
        cmocka_unit_test(names_and_parameters_agree),
        cmocka_unit_test(the_docs_have_the_same_table),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
