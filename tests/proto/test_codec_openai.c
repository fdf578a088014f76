/* OpenAI's JSON in both directions: what is read, what is refused and by which name, and what is written. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <cmocka.h>
#include <jansson.h>
#include <math.h>
#include <string.h>
#include "api/validate.h"
#include "base/alloc.h"
#include "proto/codec_openai.h"
#include "proto/json_read.h"
#include "tests/proto/fake_service.h"

static err_t decode(enum openai_kind kind, const char *json, struct openai_scratch *scratch,
                    struct openai_request *out)
{
    return openai_decode_request(kind, json, strlen(json), scratch, out);
}

static void every_parameter_arrives(void **state)
{
    (void)state;
    static const char json[] =
        "{\"model\":\"m\",\"prompt\":\"text\",\"temperature\":0.5,\"top_p\":0.9,\"top_k\":7,\"min_p\":0.1,"
        "\"repetition_penalty\":1.1,\"presence_penalty\":-1,\"frequency_penalty\":1.5,\"seed\":-1,"
        "\"max_tokens\":12,\"min_tokens\":3,\"n\":2,\"best_of\":2,\"logprobs\":4,\"prompt_logprobs\":1,"
        "\"ignore_eos\":true,\"skip_special_tokens\":false,\"include_stop_str_in_output\":true,"
        "\"spaces_between_special_tokens\":false,\"truncate_prompt_tokens\":-1,"
        "\"stop\":[\"a\",\"b\"],\"stop_token_ids\":[1,2],\"logit_bias\":{\"5\":-100,\"6\":1.5},"
        "\"allowed_token_ids\":[9],\"bad_words\":[\"w\"],\"priority\":-4,\"request_id\":\"r\","
        "\"output_prefix_ids\":[8,8],\"add_special_tokens\":false,\"return_token_ids\":true,"
        "\"user\":\"ignored\",\"metadata\":{\"a\":[1]},\"some_new_field\":3}";
    struct openai_scratch scratch = {0};
    struct openai_request request;
    err_t e = decode(OPENAI_COMPLETION, json, &scratch, &request);
    if (e.code != ERR_OK)
        print_error("%s\n", e.message);
    assert_int_equal(e.code, ERR_OK);
    const struct sampling_params *p = &request.request.sampling;
    assert_int_equal(p->set, (SAMPLING_TRUNCATE_PROMPT_TOKENS << 1) - 1); /* all of them */
    assert_true(p->temperature == 0.5f && p->top_p == 0.9f && p->min_p == 0.1f &&
                p->repetition_penalty == 1.1f);
    assert_true(p->presence_penalty == -1 && p->frequency_penalty == 1.5f);
    assert_int_equal(p->top_k, 7);
    assert_true(p->seed == UINT64_MAX);
    assert_int_equal(p->max_tokens, 12);
    assert_int_equal(p->min_tokens, 3);
    assert_int_equal(p->n, 2);
    assert_int_equal(p->logprobs, 4);
    assert_int_equal(p->prompt_logprobs, 1);
    assert_true(p->ignore_eos && !p->skip_special_tokens && p->include_stop_str_in_output);
    assert_true(!p->spaces_between_special_tokens && p->truncate_prompt_tokens == SAMPLING_TRUNCATE_TO_FIT);
    assert_int_equal(p->n_stop, 2);
    assert_string_equal(p->stop[1], "b");
    assert_int_equal(p->n_stop_token_ids, 2);
    assert_int_equal(p->n_logit_bias, 2);
    assert_int_equal(p->n_allowed_token_ids, 1);
    assert_int_equal(p->n_bad_words, 1);
    assert_int_equal(request.request.priority, -4);
    assert_string_equal(request.request.request_id, "r");
    assert_string_equal(request.request.model, "m");
    assert_int_equal(request.request.n_output_prefix_ids, 2);
    assert_true(request.request.no_special_tokens && request.return_token_ids);
    openai_scratch_free(&scratch);
}

static void null_is_unset(void **state)
{
    (void)state;
    static const char json[] = "{\"prompt\":[1],\"model\":null,\"temperature\":null,\"top_p\":null,\"seed\":"
                               "null,\"max_tokens\":null,\"n\":null,"
                               "\"logprobs\":null,\"stop\":null,\"logit_bias\":null,\"stream\":null,\"stream_"
                               "options\":null,\"echo\":null,"
                               "\"tools\":null,\"response_format\":null,\"suffix\":null,\"best_of\":null}";
    struct openai_scratch scratch = {0};
    struct openai_request request;
    assert_int_equal(decode(OPENAI_COMPLETION, json, &scratch, &request).code, ERR_OK);
    assert_int_equal(request.request.sampling.set, 0);
    assert_int_equal(request.n_choices, 1);
    assert_int_equal(request.logprobs, -1);
    openai_scratch_free(&scratch);
}

static void prompts_come_in_four_shapes(void **state)
{
    (void)state;
    static const struct {
        const char *json;
        size_t n;
        enum prompt_kind last;
    } cases[] = {
        {"{\"prompt\":\"\"}", 1, PROMPT_TEXT},
        {"{\"prompt\":[1,2,3]}", 1, PROMPT_TOKEN_IDS},
        {"{\"prompt\":[\"a\",\"b\"]}", 2, PROMPT_TEXT},
        {"{\"prompt\":[[1],[2,3],[4.0]]}", 3, PROMPT_TOKEN_IDS},
        {"{\"prompt\":[\"a\",[4]]}", 2, PROMPT_TOKEN_IDS},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct openai_scratch scratch = {0};
        struct openai_request request;
        assert_int_equal(decode(OPENAI_COMPLETION, cases[i].json, &scratch, &request).code, ERR_OK);
        assert_int_equal(request.n_prompts, cases[i].n);
        struct request last = openai_request_of_prompt(&request, cases[i].n - 1);
        assert_int_equal(last.prompt_kind, cases[i].last);
        openai_scratch_free(&scratch);
    }
}

static void messages_are_text(void **state)
{
    (void)state;
    static const char json[] =
        "{\"messages\":[{\"role\":\"developer\",\"content\":\"be\\u0000brief\",\"name\":\"x\"},"
        "{\"role\":\"user\",\"content\":[{\"type\":\"text\",\"text\":\"one\"},{\"type\":\"text\",\"text\":"
        "\"two\"}]},"
        "{\"role\":\"assistant\",\"content\":null,\"tool_calls\":[]},{\"role\":\"user\",\"content\":[]}],"
        "\"tools\":[{\"type\":\"function\"}],\"tool_choice\":\"none\",\"response_format\":{\"type\":\"text\"}"
        ","
        "\"max_tokens\":4,\"max_completion_tokens\":5,\"logprobs\":true,\"modalities\":[\"text\"],"
        "\"add_generation_prompt\":false}";
    struct openai_scratch scratch = {0};
    struct openai_request request;
    assert_int_equal(decode(OPENAI_CHAT, json, &scratch, &request).code, ERR_OK);
    const struct chat_message *messages = request.request.messages;
    assert_int_equal(request.request.n_messages, 4);
    assert_string_equal(messages[0].role, "system");
    assert_int_equal(messages[0].content_bytes, 8);
    assert_int_equal(messages[1].content_bytes, 7);
    assert_memory_equal(messages[1].content, "one\ntwo", 7);
    assert_int_equal(messages[2].content_bytes, 0);
    assert_int_equal(messages[3].content_bytes, 0);
    assert_int_equal(request.request.sampling.max_tokens, 5);
    assert_int_equal(request.request.sampling.logprobs, 0);
    assert_true(request.request.no_generation_prompt);
    openai_scratch_free(&scratch);
}

static void expect_template(const char *json, const char *expected)
{
    struct openai_scratch scratch = {0};
    struct openai_request request;
    err_t e = decode(OPENAI_CHAT, json, &scratch, &request);
    if (e.code != ERR_OK)
        print_error("%s\n", e.message);
    assert_int_equal(e.code, ERR_OK);
    size_t size = request.request.template_json_bytes;
    assert_int_equal(size, expected ? strlen(expected) : 0);
    if (expected)
        assert_memory_equal(request.request.template_json, expected, size);
    else
        assert_null(request.request.template_json);
    openai_scratch_free(&scratch);
}

#define CHAT_OF(messages) "{\"messages\":[{\"role\":\"user\",\"content\":\"x\"}" messages "]"

/* Tools, calls with their arguments opened, and names of the template's own; nothing when there is none of
 * it. */
static void templates_get_what_messages_do_not_have(void **state)
{
    (void)state;
    expect_template(CHAT_OF("") "}", NULL);
    expect_template(CHAT_OF("") ",\"tools\":[],\"documents\":null,\"chat_template_kwargs\":{}}", NULL);
    expect_template(CHAT_OF("") ",\"tools\":[{\"type\":\"function\"}],\"tool_choice\":\"none\","
                                "\"documents\":[{\"text\":\"d\"}],\"reasoning_effort\":\"low\","
                                "\"chat_template_kwargs\":{\"thinks\":false}}",
                    "{\"tools\":[{\"type\":\"function\"}],\"documents\":[{\"text\":\"d\"}],"
                    "\"thinks\":false,\"reasoning_effort\":\"low\"}");
    expect_template(
        CHAT_OF(
            ",{\"role\":\"assistant\",\"content\":null,\"tool_calls\":[{\"id\":\"c\",\"function\":{\"name\":"
            "\"f\",\"arguments\":\"{\\\"b\\\":1,\\\"a\\\":[true]}\"}},{\"function\":{\"arguments\":\"\"}}]},"
            "{\"role\":\"tool\",\"tool_call_id\":\"c\",\"name\":\"f\",\"content\":\"7\"}") "}",
        "{\"messages\":[{},{\"tool_calls\":[{\"id\":\"c\",\"function\":{\"name\":\"f\",\"arguments\":{\"b\":"
        "1,"
        "\"a\":[true]}}},{\"function\":{\"arguments\":{}}}]},{\"name\":\"f\",\"tool_call_id\":\"c\"}]}");
}

/* The error of a request, through the decoder or the validator, and the field that the answer names. */
static void check_refused(enum openai_kind kind, const char *json, const char *param, const char *part)
{
    static const struct validate_limits limits = {.vocab_size = 1000,
                                                  .max_model_len = 512,
                                                  .max_n = 8,
                                                  .has_tokenizer = true,
                                                  .has_chat_template = true};
    struct openai_scratch scratch = {0};
    struct openai_request request;
    err_t e = decode(kind, json, &scratch, &request);
    if (e.code == ERR_OK) {
        struct request one = openai_request_of_prompt(&request, 0);
        e = validate_request(&one, &limits);
    }
    struct buffer body = {.limit_bytes = 4096};
    assert_int_not_equal(e.code, ERR_OK);
    assert_int_equal(openai_status_of(e.code), 400);
    assert_true(openai_encode_error(&e, kind, scratch.param, &body));
    json_t *parsed = json_loadb(body.data, body.size, 0, NULL);
    assert_non_null(parsed);
    const json_t *error = json_object_get(parsed, "error");
    const char *said = json_string_value(json_object_get(error, "param"));
    const char *message = json_string_value(json_object_get(error, "message"));
    if ((param == NULL) != (said == NULL) || (param && strcmp(param, said) != 0) || !strstr(message, part))
        print_error("%s\n -> %s, about %s\n", json, message, said ? said : "nothing");
    assert_non_null(strstr(message, part));
    if (param)
        assert_string_equal(said ? said : "nothing", param);
    else
        assert_null(said);
    json_decref(parsed);
    buffer_free(&body);
    openai_scratch_free(&scratch);
}

static void completions_are_refused_by_name(void **state)
{
    (void)state;
    static const struct {
        const char *json, *param, *part;
    } cases[] = {
        {"", NULL, "no body"},
        {"{", NULL, "not JSON"},
        {"[]", NULL, "object"},
        {"{\"prompt\":\"a\",\"prompt\":\"b\"}", NULL, "duplicate"},
        {"{\"prompt\":\"a\",\"n\":99999999999999999999}", NULL, "integer"},
        {"{\"prompt\":\"\\ud800\"}", NULL, "not JSON"},
        {"{}", "prompt", "missing"},
        {"{\"prompt\":7}", "prompt", "an integer"},
        {"{\"prompt\":[]}", "prompt", "empty"},
        {"{\"prompt\":[[]]}", "prompt", "empty"},
        {"{\"prompt\":[1,\"a\"]}", "prompt", "prompt[1]"},
        {"{\"prompt\":[[1],[-1]]}", "prompt[1]", "token id"},
        {"{\"prompt\":[1.5]}", "prompt", "prompt[0]"},
        {"{\"prompt\":[1000]}", "prompt", "prompt[0] is 1000; the vocabulary"},
        {"{\"prompt\":\"a\",\"temperature\":\"hot\"}", "temperature", "a string"},
        {"{\"prompt\":\"a\",\"temperature\":-1}", "temperature", "[0, 100]"},
        {"{\"prompt\":\"a\",\"top_p\":0}", "top_p", "(0, 1]"},
        {"{\"prompt\":\"a\",\"top_k\":1.5}", "top_k", "fraction"},
        {"{\"prompt\":\"a\",\"max_tokens\":0}", "max_tokens", "1 to"},
        {"{\"prompt\":\"a\",\"max_tokens\":-5}", "max_tokens", "-5"},
        {"{\"prompt\":\"a\",\"max_tokens\":4294967296}", "max_tokens", "4294967296"},
        {"{\"prompt\":\"a\",\"n\":0}", "n", "0"},
        {"{\"prompt\":\"a\",\"n\":9}", "n", "1 to 8"},
        {"{\"prompt\":\"a\",\"n\":2147483648}", "n", "choices"},
        {"{\"prompt\":\"a\",\"n\":2,\"best_of\":3}", "best_of", "same"},
        {"{\"prompt\":\"a\",\"logprobs\":21}", "logprobs", "20"},
        {"{\"prompt\":\"a\",\"logprobs\":-1}", "logprobs", "-1"},
        {"{\"prompt\":\"a\",\"logprobs\":true}", "logprobs", "true or false"},
        {"{\"prompt\":\"a\",\"prompt_logprobs\":1,\"stream\":true}", "prompt_logprobs", "stream"},
        {"{\"prompt\":\"a\",\"echo\":true,\"logprobs\":1,\"n\":2,\"stream\":true}", "echo", "stream"},
        {"{\"prompt\":\"a\",\"echo\":1}", "echo", "true or false"},
        {"{\"prompt\":\"a\",\"stop\":[\"\"]}", "stop[0]", "empty"},
        {"{\"prompt\":\"a\",\"stop\":[1]}", "stop[0]", "a string"},
        {"{\"prompt\":\"a\",\"stop\":\"a\\u0000b\"}", "stop", "NUL"},
        {"{\"prompt\":\"a\",\"stop\":{}}", "stop", "list"},
        {"{\"prompt\":\"a\",\"stop_token_ids\":[1000]}", "stop_token_ids[0]", "vocabulary"},
        {"{\"prompt\":\"a\",\"stop_token_ids\":3}", "stop_token_ids", "list"},
        {"{\"prompt\":\"a\",\"logit_bias\":[1]}", "logit_bias", "object"},
        {"{\"prompt\":\"a\",\"logit_bias\":{\"x\":1}}", "logit_bias", "\"x\""},
        {"{\"prompt\":\"a\",\"logit_bias\":{\"-3\":1}}", "logit_bias", "-3"},
        {"{\"prompt\":\"a\",\"logit_bias\":{\"3\":\"1\"}}", "logit_bias", "number"},
        {"{\"prompt\":\"a\",\"logit_bias\":{\"3\":101}}", "logit_bias[0]", "100"},
        {"{\"prompt\":\"a\",\"priority\":1e300}", "priority",
         "priority is 1e+300; it must be -2147483648 to"},
        {"{\"prompt\":\"a\",\"seed\":1e30}", "seed", "seed is 1e+30; it must be"},
        {"{\"prompt\":\"a\",\"seed\":1.5}", "seed", "fraction"},
        {"{\"prompt\":\"a\",\"priority\":2000000}", "priority", "1000000"},
        {"{\"prompt\":\"a\",\"stream_options\":{}}", "stream_options", "stream"},
        {"{\"prompt\":\"a\",\"stream\":\"yes\"}", "stream", "true or false"},
        {"{\"prompt\":\"a\",\"stream\":true,\"stream_options\":{\"include_usage\":1}}", "include_usage",
         "true"},
        {"{\"prompt\":\"a\",\"suffix\":\"z\"}", "suffix", "infilling"},
        {"{\"prompt\":\"a\",\"use_beam_search\":true}", "use_beam_search", "beam"},
        {"{\"prompt\":\"a\",\"guided_json\":{\"type\":\"object\"}}", "guided_json", "constrained"},
        {"{\"prompt\":\"a\",\"grammar\":\"root ::= [0-9]+\"}", "grammar", "constrained"},
        {"{\"prompt\":\"a\",\"json_schema\":{\"type\":\"object\"}}", "json_schema", "constrained"},
        {"{\"prompt\":\"a\",\"regex\":\"[0-9]+\"}", "regex", "constrained"},
        {"{\"prompt\":\"a\",\"ebnf\":\"root ::= [0-9]+\"}", "ebnf", "constrained"},
        {"{\"prompt\":\"a\",\"format\":\"json\"}", "format", "constrained"},
        {"{\"prompt\":\"a\",\"options\":{\"num_predict\":5}}", "options", "in the body itself"},
        {"{\"prompt\":\"a\",\"response_format\":{\"type\":\"json_object\"}}", "response_format",
         "constrained"},
        {"{\"prompt\":\"a\",\"truncate_prompt_tokens\":0}", "truncate_prompt_tokens", "-1 for what fits"},
        {"{\"prompt\":\"a\",\"truncate_prompt_tokens\":513}", "truncate_prompt_tokens", "1 to 512"},
        {"{\"prompt\":\"a\",\"truncate_prompt_tokens\":5,\"echo\":true}", "echo", "truncate_prompt_tokens"},
        {"{\"prompt\":\"a\",\"kv_transfer_params\":{\"a\":1}}", "kv_transfer_params", "handed over"},
        {"{\"prompt\":\"a\",\"vllm_xargs\":{\"a\":1}}", "vllm_xargs", "extensions"},
        {"{\"prompt\":\"a\",\"model\":5}", "model", "a string"},
        {"{\"prompt\":\"a\",\"request_id\":\"a\\nb\"}", "request_id", "control"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
        check_refused(OPENAI_COMPLETION, cases[i].json, cases[i].param, cases[i].part);
}

#define USER "{\"role\":\"user\",\"content\":\"x\"}"

static void chats_are_refused_by_name(void **state)
{
    (void)state;
    static const struct {
        const char *json, *param, *part;
    } cases[] = {
        {"{\"prompt\":\"a\"}", "messages", "missing"},
        {"{\"messages\":[]}", "messages", "0 entries"},
        {"{\"messages\":\"x\"}", "messages", "a string"},
        {"{\"messages\":[\"x\"]}", "messages[0]", "object"},
        {"{\"messages\":[" USER ",{\"content\":\"x\"}]}", "messages[1].role", "missing"},
        {"{\"messages\":[{\"role\":\"user\"}]}", "messages[0].content", "missing"},
        {"{\"messages\":[{\"role\":\"user\",\"content\":5}]}", "messages[0].content", "an integer"},
        {"{\"messages\":[{\"role\":\"u\\u0000\",\"content\":\"\"}]}", "messages[0].role", "NUL"},
        {"{\"messages\":[{\"role\":\"\",\"content\":\"\"}]}", "messages[0].role", "missing"},
        {"{\"messages\":[{\"role\":\"user\",\"content\":[\"x\"]}]}", "messages[0].content[0]", "object"},
        {"{\"messages\":[{\"role\":\"user\",\"content\":[{\"text\":\"x\"}]}]}", "messages[0].content[0]",
         "type"},
        {"{\"messages\":[{\"role\":\"user\",\"content\":[{\"type\":\"text\"}]}]}", "messages[0].content[0]",
         "text"},
        {"{\"messages\":[{\"role\":\"user\",\"content\":[{\"type\":\"text\",\"text\":\"\"},{\"type\":\"image_"
         "url\"}]}]}",
         "messages[0].content[1]", "an image"},
        {"{\"messages\":[{\"role\":\"user\",\"content\":[{\"type\":\"input_audio\"}]}]}",
         "messages[0].content[0]", "audio"},
        {"{\"messages\":[{\"role\":\"user\",\"content\":[{\"type\":\"hologram\"}]}]}",
         "messages[0].content[0]", "hologram"},
        {"{\"messages\":[{\"role\":\"assistant\",\"tool_calls\":[{}]}]}",
         "messages[0].tool_calls[0].function", "no object"},
        {"{\"messages\":[{\"role\":\"assistant\",\"tool_calls\":[{\"function\":{\"arguments\":\"{\"}}]}]}",
         "messages[0].tool_calls[0].function.arguments", "no text of JSON"},
        {"{\"messages\":[{\"role\":\"assistant\",\"tool_calls\":[{\"function\":{\"arguments\":7}}]}]}",
         "messages[0].tool_calls[0].function.arguments", "no text of JSON"},
        {"{\"messages\":[{\"role\":\"assistant\",\"tool_calls\":7}]}", "messages[0].tool_calls", "a list"},
        {"{\"messages\":[" USER "],\"tools\":{\"a\":1},\"tool_choice\":\"none\"}", "tools", "a list"},
        {"{\"messages\":[" USER "],\"documents\":\"x\"}", "documents", "a list"},
        {"{\"messages\":[" USER "],\"chat_template_kwargs\":[1]}", "chat_template_kwargs", "an object"},
        {"{\"messages\":[" USER "],\"chat_template_kwargs\":{\"messages\":1}}", "chat_template_kwargs",
         "sets messages"},
        {"{\"messages\":[" USER "],\"thinking_token_budget\":5}", "thinking_token_budget", "reasoning"},
        {"{\"messages\":[" USER "],\"tools\":[{}]}", "tools", "constrained"},
        {"{\"messages\":[" USER "],\"tool_choice\":\"required\"}", "tool_choice", "constrained"},
        {"{\"messages\":[" USER "],\"response_format\":\"text\"}", "response_format", "object"},
        {"{\"messages\":[" USER "],\"response_format\":{\"type\":\"json_schema\"}}", "response_format",
         "constrained"},
        {"{\"messages\":[" USER "],\"chat_template\":\"{{x}}\"}", "chat_template", "request"},
        {"{\"messages\":[" USER "],\"modalities\":[\"text\",\"audio\"]}", "modalities", "text only"},
        {"{\"messages\":[" USER "],\"echo\":true}", "echo", "chat"},
        {"{\"messages\":[" USER "],\"logprobs\":3}", "logprobs", "true or false"},
        {"{\"messages\":[" USER "],\"top_logprobs\":3}", "top_logprobs", "logprobs to be true"},
        {"{\"messages\":[" USER "],\"logprobs\":true,\"top_logprobs\":21}", "top_logprobs",
         "top_logprobs is 21;"},
        {"{\"messages\":[" USER "],\"max_completion_tokens\":0}", "max_completion_tokens", "1 to"},
        {"{\"messages\":[" USER "],\"add_special_tokens\":true}", "add_special_tokens", "template"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
        check_refused(OPENAI_CHAT, cases[i].json, cases[i].param, cases[i].part);
}

static void sizes_are_limited_before_parsing(void **state)
{
    (void)state;
    struct buffer json = {.limit_bytes = 64 << 20};
    struct openai_scratch scratch = {0};
    struct openai_request request;
    (void)buffer_append_text(&json, "{\"prompt\":[1");
    for (int i = 0; i < JSON_VALUES_MAX; i++)
        (void)buffer_append_text(&json, ",1");
    (void)buffer_append_text(&json, "]}");
    check_refused(OPENAI_COMPLETION, json.data, NULL, "values");
    buffer_clear(&json);
    (void)buffer_append_text(&json, "{\"x\":[[]");
    for (int i = 0; i < JSON_CONTAINERS_MAX; i++)
        (void)buffer_append_text(&json, ",[]");
    (void)buffer_append_text(&json, "],\"prompt\":\"a\"}");
    check_refused(OPENAI_COMPLETION, json.data, NULL, "lists");
    buffer_clear(&json);
    (void)buffer_append_text(&json, "{\"prompt\":[\"\"");
    for (int i = 0; i < JSON_STRINGS_MAX; i++)
        (void)buffer_append_text(&json, ",\"\"");
    (void)buffer_append_text(&json, "]}");
    check_refused(OPENAI_COMPLETION, json.data, NULL, "strings");
    buffer_clear(&json);
    for (int i = 0; i <= JSON_DEPTH_MAX; i++)
        (void)buffer_append_text(&json, "{\"x\":");
    check_refused(OPENAI_COMPLETION, json.data, NULL, "deeper");
    buffer_clear(&json);
    (void)buffer_append_text(&json, "{\"prompt\":[\"\"");
    for (int i = 1; i < OPENAI_PROMPTS_MAX; i++)
        (void)buffer_append_text(&json, ",\"\"");
    (void)buffer_append_text(&json, "]}");
    assert_int_equal(decode(OPENAI_COMPLETION, json.data, &scratch, &request).code, ERR_OK);
    openai_scratch_free(&scratch);
    json.data[--json.size] = '\0';
    json.data[--json.size] = '\0';
    (void)buffer_append_text(&json, ",\"\"]}");
    check_refused(OPENAI_COMPLETION, json.data, "prompt", "1024");
    /* Brackets in strings count for nothing. */
    assert_int_equal(decode(OPENAI_COMPLETION, "{\"prompt\":\"[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[\\\"[[[\"}",
                            &scratch, &request)
                         .code,
                     ERR_OK);
    openai_scratch_free(&scratch);
    buffer_free(&json);
}

static void failing_memory_is_an_error(void **state)
{
    (void)state;
    static const char json[] =
        "{\"prompt\":[[1,2],[3]],\"stop\":[\"a\"],\"logit_bias\":{\"1\":2},\"bad_words\":\"w\"}";
    bool failed = true;
    int64_t nth = 0;
    for (; failed; nth++) {
        struct openai_scratch scratch = {0};
        struct openai_request request;
        mem_fail_nth(nth);
        err_t e = decode(OPENAI_COMPLETION, json, &scratch, &request);
        mem_fail_nth(-1);
        failed = e.code != ERR_OK;
        if (failed)
            assert_int_equal(e.code, ERR_RESOURCE_EXHAUSTED);
        openai_scratch_free(&scratch);
    }
    assert_true(nth > 4);
}

#define HELLO_JSON "{\"messages\":[{\"role\":\"user\",\"content\":\"hi\"}]"

/* In the words of an engine's door, and about the same field. */
static void what_is_beyond_an_engine_is_noted(void **state)
{
    (void)state;
    static const struct {
        const char *json, *param;
    } rows[] = {
        {HELLO_JSON ",\"tools\":[{}]}", "tools"},
        {HELLO_JSON ",\"tool_choice\":\"required\"}", "tool_choice"},
        {HELLO_JSON ",\"functions\":[{}]}", "functions"},
        {HELLO_JSON ",\"function_call\":{\"name\":\"f\"}}", "function_call"},
        {HELLO_JSON ",\"response_format\":{\"type\":\"json_object\"},\"n\":2}", "response_format"},
        {HELLO_JSON ",\"modalities\":[\"text\",\"audio\"]}", "modalities"},
        {HELLO_JSON ",\"audio\":{\"voice\":\"x\"}}", "audio"},
        {HELLO_JSON ",\"prediction\":{\"type\":\"content\"}}", "prediction"},
        {HELLO_JSON ",\"chat_template\":\"x\"}", "chat_template"},
        {HELLO_JSON ",\"echo\":true}", "echo"},
        {HELLO_JSON ",\"add_special_tokens\":true}", "add_special_tokens"},
        {"{\"messages\":[{\"role\":\"user\",\"content\":[{\"type\":\"input_audio\"}]}]}",
         "messages[0].content[0]"},
        {"{\"messages\":[{\"role\":\"assistant\",\"tool_calls\":[{}]}]}",
         "messages[0].tool_calls[0].function"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        struct openai_scratch scratch = {0}, passing = {.passes_on = true};
        struct openai_request request;
        err_t e = decode(OPENAI_CHAT, rows[i].json, &scratch, &request);
        assert_int_equal(e.code, ERR_UNIMPLEMENTED);
        assert_string_equal(scratch.param, rows[i].param);
        assert_int_equal(decode(OPENAI_CHAT, rows[i].json, &passing, &request).code, ERR_OK);
        assert_string_equal(request.request.beyond, e.message);
        assert_string_equal(passing.param, "");
        assert_false(request.echo);
        assert_ptr_equal(request.request.original, passing.document);
        /* Whoever refuses with these words later, the field is found in them. */
        struct buffer out = {.limit_bytes = 4096};
        char expected[OPENAI_PARAM_BYTES_MAX + 16];
        (void)snprintf(expected, sizeof expected, "\"param\":\"%s\"", rows[i].param);
        assert_true(openai_encode_error(&e, OPENAI_CHAT, NULL, &out));
        assert_non_null(strstr(out.data, expected));
        buffer_free(&out);
        openai_scratch_free(&scratch);
        openai_scratch_free(&passing);
    }
    struct openai_scratch scratch = {.passes_on = true};
    struct openai_request request;
    assert_int_equal(decode(OPENAI_CHAT, HELLO_JSON "}", &scratch, &request).code, ERR_OK);
    assert_null(request.request.beyond);
    assert_non_null(request.request.original);
    openai_scratch_free(&scratch);
    /* What is malformed is so for everybody. */
    scratch = (struct openai_scratch){.passes_on = true};
    assert_int_equal(
        decode(OPENAI_CHAT, HELLO_JSON ",\"tools\":[{}],\"temperature\":\"x\"}", &scratch, &request).code,
        ERR_INVALID_ARGUMENT);
    assert_string_equal(scratch.param, "temperature");
    openai_scratch_free(&scratch);
}

/* --- answers */

struct answer_fixture {
    struct fake_service *fake;
    struct openai_request request;
    struct openai_answer answer;
};

static void open_answer(struct answer_fixture *f, enum openai_kind kind, bool stream)
{
    *f = (struct answer_fixture){.request = {.kind = kind, .stream = stream, .logprobs = -1, .n_prompts = 1}};
    assert_int_equal(fake_service_open(&(struct fake_options){0}, &f->fake).code, ERR_OK);
    f->answer.request = &f->request;
    f->answer.service = fake_service_of(f->fake);
    f->answer.model = f->answer.service->vtable->model_info(f->answer.service);
    f->answer.created_unix_s = 17;
    memcpy(f->answer.id, "cmpl-1", sizeof "cmpl-1");
    assert_true(openai_answer_prepare(&f->answer, NULL));
}

static void close_answer(struct answer_fixture *f)
{
    openai_answer_free(&f->answer);
    fake_service_close(f->fake);
}

static struct event tokens_event(const uint32_t *ids, size_t n, const char *text)
{
    return (struct event){.kind = EVENT_TOKENS,
                          .token_ids = ids,
                          .n_token_ids = n,
                          .text = text,
                          .text_bytes = strlen(text),
                          .stop_token_id = -1};
}

static const struct openai_usage three_and_one = {.prompt_tokens = 3, .completion_tokens = 1};

static void streams_skip_what_shows_nothing(void **state)
{
    (void)state;
    struct answer_fixture f;
    open_answer(&f, OPENAI_CHAT, true);
    struct openai_choice choice = {.index = 2};
    struct buffer out = {.limit_bytes = 1 << 20};
    static const uint32_t ids[] = {5, 6};
    struct event first = tokens_event(ids, 1, ""), held = first, text = tokens_event(ids, 2, "\xc3\xa9\"\n");
    assert_true(openai_encode_chunk(&f.answer, &choice, &first, NULL, &out));
    assert_non_null(strstr(out.data, "\"delta\":{\"role\":\"assistant\",\"content\":\"\"}"));
    assert_non_null(strstr(out.data, "\"index\":2"));
    size_t size = out.size;
    assert_true(openai_encode_chunk(&f.answer, &choice, &held, NULL, &out));
    assert_int_equal(out.size, size); /* a part of a character: the role was told already */
    assert_true(openai_encode_chunk(&f.answer, &choice, &text, NULL, &out));
    assert_non_null(strstr(out.data + size, "\"delta\":{\"content\":\"\xc3\xa9\\\"\\n\"}"));
    struct event end = {.kind = EVENT_FINISHED,
                        .text = "",
                        .finish_reason = FINISH_STOP,
                        .stop_string = "\"x",
                        .stop_token_id = -1,
                        .timings = {2500000, -1, 0}};
    size = out.size;
    assert_true(openai_encode_chunk(&f.answer, &choice, &end, NULL, &out));
    assert_non_null(strstr(out.data + size, "\"finish_reason\":\"stop\",\"stop_reason\":\"\\\"x\""));
    assert_non_null(strstr(out.data + size, "\"queue_ms\":2.500,\"prefill_ms\":null"));
    buffer_free(&out);
    close_answer(&f);
}

static void odd_logprobs_are_json(void **state)
{
    (void)state;
    struct answer_fixture f;
    open_answer(&f, OPENAI_COMPLETION, false);
    f.request.logprobs = 2;
    f.request.echo = f.request.wants_prompt_logprobs = true;
    static const uint32_t ids[] = {5};
    struct position_logprobs prompt[2] = {{.chosen = {7, NAN}}, {.chosen = {8, -INFINITY}, .rank = 900}};
    struct position_logprobs output = {
        .chosen = {5, -0.1f}, .rank = 1, .n_top = 3, .top = {{5, -0.1f}, {6, -3.0f}, {9, -4.0f}}};
    struct event event = tokens_event(ids, 1, "five");
    event.kind = EVENT_FINISHED;
    event.finish_reason = FINISH_LENGTH;
    event.logprobs = &output;
    event.n_logprobs = 1;
    event.prompt_logprobs = prompt;
    event.n_prompt_logprobs = 2;
    struct openai_choice choice = {.echo_text = "seven \"eight\" ", .echo_bytes = 14};
    struct buffer out = {.limit_bytes = 1 << 20};
    assert_true(openai_encode_begin(&f.answer, &out));
    assert_true(openai_encode_choice(&f.answer, &choice, &event, &out));
    assert_true(openai_encode_end(&f.answer, &event, &three_and_one, &out));
    json_t *body = json_loadb(out.data, out.size, 0, NULL);
    assert_non_null(body);
    const json_t *one = json_array_get(json_object_get(body, "choices"), 0);
    const json_t *logprobs = json_object_get(one, "logprobs"),
                 *values = json_object_get(logprobs, "token_logprobs");
    assert_string_equal(json_string_value(json_object_get(one, "text")), "seven \"eight\" five");
    assert_true(json_is_null(json_array_get(values, 0)));
    assert_true(json_real_value(json_array_get(values, 1)) == -9999.0);
    assert_true((float)json_real_value(json_array_get(values, 2)) == -0.1f);
    assert_true(json_is_null(json_array_get(json_object_get(logprobs, "top_logprobs"), 0)));
    assert_int_equal(json_object_size(json_array_get(json_object_get(logprobs, "top_logprobs"), 2)), 2);
    const json_t *prompt_logprobs = json_object_get(one, "prompt_logprobs");
    assert_true(json_is_null(json_array_get(prompt_logprobs, 0)));
    const json_t *eight = json_object_get(json_array_get(prompt_logprobs, 1), "8");
    assert_int_equal(json_integer_value(json_object_get(eight, "rank")), 900);
    assert_string_equal(json_string_value(json_object_get(eight, "decoded_token")), "8 ");
    json_decref(body);
    /* However small the buffer: false, never a broken write. */
    for (size_t limit = 0; limit < out.size; limit += 7) {
        struct buffer small = {.limit_bytes = limit};
        struct openai_choice again = {.echo_text = "x", .echo_bytes = 1};
        bool good = openai_encode_begin(&f.answer, &small) &&
                    openai_encode_choice(&f.answer, &again, &event, &small) &&
                    openai_encode_end(&f.answer, &event, &three_and_one, &small);
        assert_true(small.size <= limit);
        if (limit + 14 < out.size)
            assert_false(good);
        buffer_free(&small);
    }
    buffer_free(&out);
    close_answer(&f);
}

static void errors_have_a_type(void **state)
{
    (void)state;
    static const struct {
        enum err_code code;
        const char *message, *part;
    } cases[] = {
        {ERR_INVALID_ARGUMENT, "the prompt has 9 tokens; too many", "\"code\":\"context_length_exceeded\""},
        {ERR_INVALID_ARGUMENT, "top_p is 3; no", "\"param\":\"top_p\""},
        {ERR_INVALID_ARGUMENT, "topping is 3; no", "\"param\":null"},
        {ERR_INVALID_ARGUMENT, "messages[12].content is bad", "\"param\":\"messages[12].content\""},
        {ERR_INVALID_ARGUMENT, "text is bad", "\"param\":\"prompt\""},
        {ERR_NOT_FOUND, "model \"x\" is not served", "\"code\":\"model_not_found\""},
        {ERR_RESOURCE_EXHAUSTED, "the queue is full", "\"type\":\"rate_limit_error\""},
        {ERR_UNAVAILABLE, "going", "\"type\":\"service_unavailable_error\""},
        {ERR_INTERNAL, "oh \"no\"", "oh \\\"no\\\""},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct buffer out = {.limit_bytes = 4096};
        err_t e = err_new(cases[i].code, "%s", cases[i].message);
        assert_true(openai_encode_error(&e, OPENAI_COMPLETION, NULL, &out));
        if (!strstr(out.data, cases[i].part))
            print_error("%s\n", out.data);
        assert_non_null(strstr(out.data, cases[i].part));
        buffer_free(&out);
    }
}

/* is_plain: jansson is not asked. Whoever reads it, it is what jansson makes of it. */
static void assert_read(const char *text, size_t text_bytes, size_t flags, bool is_plain)
{
    json_error_t error = {.text = ""}, expected_error = {.text = ""};
    json_t *plain = json_read_plain(text, text_bytes, flags),
           *value = json_read(text, text_bytes, flags, &error),
           *expected = json_loadb(text, text_bytes, flags, &expected_error);
    char *written = value ? json_dumps(value, JSON_COMPACT) : NULL,
         *expected_text = expected ? json_dumps(expected, JSON_COMPACT) : NULL;
    assert_int_equal(plain != NULL, is_plain);
    assert_int_equal(value != NULL, expected != NULL);
    if (value)
        assert_string_equal(written, expected_text); /* in one order, too */
    else
        assert_string_equal(error.text, expected_error.text);
    free(written);
    free(expected_text);
    json_decref(plain);
    json_decref(value);
    json_decref(expected);
}

static void texts_are_read_as_jansson_reads_them(void **state)
{
    (void)state;
    static const char *const PLAIN[] = {"{}",
                                        " [ ] ",
                                        "{\"a\":1,\"b\":[true,false,null],\"c\":{\"d\":\"e\"}}",
                                        "[0,-0,12,-345,123456789012345678,0.5,-1.25e3,1E2,2e-7]",
                                        "[\"\",\"plain text, long enough\",\"\"]",
                                        "[\"\\\"\\\\\\/\\b\\f\\n\\r\\t\\u00e9\\ud83d\\ude00 and more\"]",
                                        "[\"\xc3\xa9t\xc3\xa9 \xf0\x9f\x98\x80 behind seven\"]",
                                        "{\"\\u0061\":\"b\",\"c\":\"\x7f\"}"};
    static const char *const OTHERS[] = {"",
                                         "1",
                                         "\"a\"",
                                         "{",
                                         "[1",
                                         "[1,]",
                                         "{\"a\"}",
                                         "{\"a\":}",
                                         "{\"a\":1,}",
                                         "[] x",
                                         "[01]",
                                         "[1.]",
                                         "[.5]",
                                         "[1e]",
                                         "[+1]",
                                         "[-]",
                                         "[truex]",
                                         "[tru]",
                                         "[\"a]",
                                         "[\"\n\"]",
                                         "[\"\\x\"]",
                                         "[\"\\u12g4\"]",
                                         "[\"\\ud800\"]",
                                         "[\"\\ud800\\u0041\"]",
                                         "[\"\\udc00\"]",
                                         "[\"\xff\"]",
                                         "[\"\xc0\xaf\"]",
                                         "[\"\xed\xa0\x80\"]",
                                         "[1234567890123456789]",
                                         "[99999999999999999999]",
                                         "[1e999]",
                                         "[\"a\\u0000b\"]",
                                         "{\"a\\u0000\":1}",
                                         "\xef\xbb\xbf[]",
                                         "[1e-400]"};
    for (size_t i = 0; i < sizeof PLAIN / sizeof *PLAIN; i++)
        assert_read(PLAIN[i], strlen(PLAIN[i]), JSON_REJECT_DUPLICATES | JSON_ALLOW_NUL, true);
    for (size_t i = 0; i < sizeof OTHERS / sizeof *OTHERS; i++)
        for (int allowed = 0; allowed < 2; allowed++)
            assert_read(OTHERS[i], strlen(OTHERS[i]), allowed ? JSON_ALLOW_NUL : 0, false);
    static const char twice[] = "{\"a\":1,\"b\":2,\"a\":3}", nul[] = "[\"a\0b\"]";
    assert_read(twice, sizeof twice - 1, 0, true);
    assert_read(twice, sizeof twice - 1, JSON_REJECT_DUPLICATES, false);
    assert_read(nul, sizeof nul - 1, JSON_ALLOW_NUL, false);
    char deep[200];
    memset(deep, '[', 100);
    memset(deep + 100, ']', 100);
    assert_read(deep, sizeof deep, 0, false);
    for (size_t n = 0; n < strlen(PLAIN[2]); n++) /* cut short anywhere */
        assert_read(PLAIN[2], n, 0, false);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_parameter_arrives),
        cmocka_unit_test(null_is_unset),
        cmocka_unit_test(prompts_come_in_four_shapes),
        cmocka_unit_test(messages_are_text),
        cmocka_unit_test(templates_get_what_messages_do_not_have),
        cmocka_unit_test(completions_are_refused_by_name),
        cmocka_unit_test(chats_are_refused_by_name),
        cmocka_unit_test(sizes_are_limited_before_parsing),
        cmocka_unit_test(failing_memory_is_an_error),
        cmocka_unit_test(what_is_beyond_an_engine_is_noted),
        cmocka_unit_test(streams_skip_what_shows_nothing),
        cmocka_unit_test(odd_logprobs_are_json),
        cmocka_unit_test(errors_have_a_type),
        cmocka_unit_test(texts_are_read_as_jansson_reads_them),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
