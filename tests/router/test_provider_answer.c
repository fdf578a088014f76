/* Streams and bodies as providers send them, and as they should not. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include "base/alloc.h"
#include "tests/router/answer_script.h"

/* In pieces of every size, since a network cuts anywhere. */
static void assert_stream(enum provider_kind kind, const char *stream, const char *expected)
{
    size_t size = strlen(stream);
    for (size_t piece = 1; piece <= size; piece++) {
        char *script = answer_script(kind, stream, size, piece, true);
        assert_string_equal(script, expected);
        mem_free(script);
    }
}

static void assert_body(enum provider_kind kind, const char *body, const char *expected)
{
    char *script = answer_script(kind, body, strlen(body), 0, false);
    assert_string_equal(script, expected);
    mem_free(script);
}

#define CHUNK(choice) "data: {\"object\": \"chat.completion.chunk\", \"choices\": [" choice "]}\n\n"
#define TEXT(text)    CHUNK("{\"index\": 0, \"delta\": {\"content\": \"" text "\"}, \"finish_reason\": null}")
#define END(reason)   CHUNK("{\"index\": 0, \"delta\": {}, \"finish_reason\": \"" reason "\"}")
#define DONE          "data: [DONE]\n\n"

static void openai_text_and_its_end(void **state)
{
    (void)state;
    assert_stream(PROVIDER_OPENAI,
                  CHUNK("{\"index\": 0, \"delta\": {\"role\": \"assistant\", \"content\": \"\"}}")
                      TEXT("Gr\xc3\xbc") TEXT("\xc3\x9f dich") END("stop") DONE,
                  "0:text(Gr\xc3\xbc\xc3\x9f dich) 0:finish(stop)");
    assert_stream(PROVIDER_OPENAI, TEXT("a") END("length") DONE, "0:text(a) 0:finish(length)");
    assert_stream(PROVIDER_OPENAI, TEXT("a") END("content_filter") DONE,
                  "0:text(a) 0:finish(content_filter)");
    /* Without the last line, as some proxies leave it; with what comes after it. */
    assert_stream(PROVIDER_OPENAI, TEXT("a") END("stop"), "0:text(a) 0:finish(stop)");
    assert_stream(PROVIDER_OPENAI, TEXT("a") END("stop") DONE TEXT("late"), "0:text(a) 0:finish(stop)");
    assert_stream(PROVIDER_OPENAI, TEXT("a") END("stop") END("length") DONE, "0:text(a) 0:finish(stop)");
    assert_stream(PROVIDER_COMPATIBLE, TEXT("a") END("eos_token") DONE, "0:text(a) 0:finish(stop)");
}

static void openai_choices_refusals_and_reasoning(void **state)
{
    (void)state;
    assert_stream(PROVIDER_OPENAI,
                  CHUNK("{\"index\": 1, \"delta\": {\"content\": \"b\"}}, {\"index\": 0, \"delta\": "
                        "{\"content\": \"a\"}}")
                      CHUNK("{\"index\": 0, \"delta\": {}, \"finish_reason\": \"stop\"}")
                          CHUNK("{\"index\": 1, \"delta\": {}, \"finish_reason\": \"length\"}") DONE,
                  "1:text(b) 0:text(a) 0:finish(stop) 1:finish(length)");
    assert_stream(PROVIDER_OPENAI, CHUNK("{\"index\": 0, \"delta\": {\"refusal\": \"no\"}}") END("stop") DONE,
                  "0:refusal(no) 0:finish(stop)");
    assert_stream(PROVIDER_COMPATIBLE,
                  CHUNK("{\"index\": 0, \"delta\": {\"reasoning_content\": \"hm\", \"reasoning\": \"hm\"}}")
                      CHUNK("{\"index\": 0, \"delta\": {\"reasoning\": \"m\"}}") TEXT("a") END("stop") DONE,
                  "0:reasoning(hmm) 0:text(a) 0:finish(stop)");
    assert_stream(PROVIDER_COMPATIBLE,
                  CHUNK("{\"index\": 0, \"delta\": {\"content\": [{\"type\": \"text\", \"text\": \"a\"}, "
                        "{\"type\": \"x\"}]}}") END("stop") DONE,
                  "0:text(a) 0:finish(stop)");
}

static void openai_tool_calls_are_gathered(void **state)
{
    (void)state;
    assert_stream(PROVIDER_OPENAI,
                  CHUNK("{\"index\": 0, \"delta\": {\"tool_calls\": [{\"index\": 0, \"id\": \"c1\", "
                        "\"type\": \"function\","
                        " \"function\": {\"name\": \"f\", \"arguments\": \"\"}}]}}")
                      CHUNK("{\"index\": 0, \"delta\": {\"tool_calls\": [{\"index\": 0, \"function\": "
                            "{\"arguments\": \"{\\\"a\\\"\"}}]}}")
                          CHUNK("{\"index\": 0, \"delta\": {\"tool_calls\": [{\"index\": 0, \"function\": "
                                "{\"arguments\": \":1}\"}}]}}") END("tool_calls") DONE,
                  "0:tool0(c1 f {\"a\":1}) 0:finish(tool_calls)");
    /* Several calls and the end in one chunk; indices left out; arguments as an object. */
    assert_stream(
        PROVIDER_COMPATIBLE,
        CHUNK("{\"index\": 0, \"delta\": {\"tool_calls\": [{\"id\": \"c1\", \"function\": {\"name\": \"f\","
              " \"arguments\": {\"a\": 1}}}, {\"id\": \"c2\", \"function\": {\"name\": \"g\", \"arguments\":"
              " \"{}\"}}]}, \"finish_reason\": \"tool_calls\"}") DONE,
        "0:tool0(c1 f {\"a\":1}) 0:tool1(c2 g {}) 0:finish(tool_calls)");
}

static void usage_is_set_and_never_added(void **state)
{
    (void)state;
    assert_stream(
        PROVIDER_OPENAI,
        "data: {\"choices\": [{\"index\": 0, \"delta\": {\"content\": \"a\"}, \"finish_reason\": \"stop\"}],"
        " \"usage\": null}\n\n"
        "data: {\"choices\": [], \"usage\": {\"prompt_tokens\": 9, \"completion_tokens\": 1,"
        " \"prompt_tokens_details\": {\"cached_tokens\": 4}, \"completion_tokens_details\":"
        " {\"reasoning_tokens\": 0}}}\n\n" DONE,
        "0:text(a) 0:finish(stop) usage(9,4,-1,1,0)");
    /* Running counts of servers that send them with every chunk, and counts that are none. */
    assert_stream(
        PROVIDER_COMPATIBLE,
        "data: {\"choices\": [{\"index\": 0, \"delta\": {\"content\": \"a\"}}], \"usage\":"
        " {\"prompt_tokens\": 9, \"completion_tokens\": 1}}\n\n"
        "data: {\"choices\": [{\"index\": 0, \"delta\": {}, \"finish_reason\": \"stop\"}], \"usage\":"
        " {\"prompt_tokens\": 9.5, \"completion_tokens\": 2, \"prompt_tokens_details\": null}}\n\n" DONE,
        "0:text(a) 0:finish(stop) usage(9,-1,-1,2,-1)");
    assert_stream(PROVIDER_OPENAI,
                  "data: {\"choices\": [{\"index\": 0, \"delta\": {}, \"finish_reason\": \"stop\"}],"
                  " \"usage\": {\"prompt_tokens\": -3, \"completion_tokens\": \"2\"}}\n\n" DONE,
                  "0:finish(stop)");
}

static void a_cut_answer_is_an_error(void **state)
{
    (void)state;
    assert_stream(PROVIDER_OPENAI, TEXT("a"), "0:text(a) error(UNAVAILABLE)");
    assert_stream(PROVIDER_OPENAI, TEXT("a") DONE, "0:text(a) error(UNAVAILABLE)");
    assert_stream(PROVIDER_OPENAI, "", " error(UNAVAILABLE)");
    assert_stream(PROVIDER_OPENAI, DONE, " error(UNAVAILABLE)");
    assert_stream(PROVIDER_OPENAI, TEXT("a") "data: {\"choices\": [{\"ind", "0:text(a) error(DATA_LOSS)");
    assert_stream(PROVIDER_OPENAI,
                  CHUNK("{\"index\": 0, \"delta\": {\"content\": \"a\"}, \"finish_reason\": \"stop\"}")
                      CHUNK("{\"index\": 1, \"delta\": {\"content\": \"b\"}}") DONE,
                  "0:text(a) 0:finish(stop) 1:text(b) error(UNAVAILABLE)");
}

static void errors_inside_a_stream_end_it(void **state)
{
    (void)state;
    assert_stream(PROVIDER_OPENAI, TEXT("a") "data: {\"error\": {\"message\": \"m\", \"code\": 429}}\n\n",
                  "0:text(a) error(RESOURCE_EXHAUSTED)");
    assert_stream(PROVIDER_COMPATIBLE, "data: {\"object\": \"error\", \"message\": \"m\", \"code\": 400}\n\n",
                  " error(INVALID_ARGUMENT)");
    assert_stream(PROVIDER_COMPATIBLE, TEXT("a") END("error") DONE, "0:text(a) error(UNAVAILABLE)");
    assert_stream(
        PROVIDER_COMPATIBLE,
        CHUNK("{\"index\": 0, \"delta\": {}, \"finish_reason\": \"error\", \"error\": {\"code\": 502}}"),
        " error(UNAVAILABLE)");
    assert_stream(PROVIDER_OPENAI, "data: nonsense\n\n", " error(DATA_LOSS)");
    assert_stream(PROVIDER_OPENAI, "data: [1]\n\n", " error(DATA_LOSS)");
    assert_stream(PROVIDER_OPENAI, CHUNK("{\"index\": 64, \"delta\": {\"content\": \"a\"}}"),
                  " error(DATA_LOSS)");
    assert_stream(PROVIDER_OPENAI, CHUNK("{\"index\": -1, \"delta\": {\"content\": \"a\"}}"),
                  " error(DATA_LOSS)");
}

static void whatever_else_openai_streams_hold_is_skipped(void **state)
{
    (void)state;
    assert_stream(PROVIDER_COMPATIBLE,
                  ": OPENROUTER PROCESSING\n\n: OPENROUTER PROCESSING\n\ndata: \n\n" TEXT(
                      "a") "data: {\"choices\": [], \"prompt_filter_results\": []}\n\n"
                           "data: {\"choices\": [{\"index\": 0, \"delta\": null}]}   \n\n" END(
                               "stop") "data: [DONE]  \n\n",
                  "0:text(a) 0:finish(stop)");
}

static void openai_bodies(void **state)
{
    (void)state;
    assert_body(PROVIDER_OPENAI,
                "{\"id\": \"x\", \"model\": \"m\", \"choices\": [{\"index\": 0, \"message\": {\"role\": "
                "\"assistant\","
                " \"content\": \"Hi\", \"refusal\": null}, \"finish_reason\": \"stop\"}], \"usage\":"
                " {\"prompt_tokens\": 3, \"completion_tokens\": 2}}",
                "0:text(Hi) 0:finish(stop) usage(3,-1,-1,2,-1)");
    assert_body(
        PROVIDER_OPENAI,
        "{\"choices\": [{\"message\": {\"content\": null, \"tool_calls\": [{\"id\": \"c\", \"function\":"
        " {\"name\": \"f\", \"arguments\": \"{}\"}}]}, \"finish_reason\": \"tool_calls\"}]}",
        "0:tool0(c f {}) 0:finish(tool_calls)");
    assert_body(PROVIDER_OPENAI, "{\"choices\": []}", " error(UNAVAILABLE)");
    assert_body(PROVIDER_OPENAI, "{}", " error(DATA_LOSS)");
    assert_body(PROVIDER_OPENAI, "", " error(DATA_LOSS)");
    assert_body(PROVIDER_OPENAI, "{\"error\": {\"message\": \"m\", \"code\": 503}}", " error(UNAVAILABLE)");
}

#define EVENT(name, fields) "event: " name "\ndata: {\"type\": \"" name "\"" fields "}\n\n"
#define START                                                                                                \
    EVENT("message_start",                                                                                   \
          ", \"message\": {\"id\": \"msg_1\", \"model\": \"m\", \"usage\": {\"input_tokens\": 10,"           \
          " \"cache_read_input_tokens\": 5, \"cache_creation_input_tokens\": 2, \"output_tokens\": 1}}")
#define BLOCK(block) EVENT("content_block_start", ", \"index\": 0, \"content_block\": {" block "}")
#define DELTA(delta) EVENT("content_block_delta", ", \"index\": 0, \"delta\": {" delta "}")
#define BLOCK_END    EVENT("content_block_stop", ", \"index\": 0")
#define FINISH(reason)                                                                                       \
    EVENT("message_delta",                                                                                   \
          ", \"delta\": {\"stop_reason\": \"" reason "\"}, \"usage\": {\"output_tokens\": 7}")               \
    EVENT("message_stop", "")
#define ANTHROPIC_USAGE " usage(17,5,2,7,-1)"

static void anthropic_text_and_its_end(void **state)
{
    (void)state;
    assert_stream(PROVIDER_ANTHROPIC,
                  START BLOCK("\"type\": \"text\", \"text\": \"\"") EVENT("ping", "")
                      DELTA("\"type\": \"text_delta\", \"text\": \"Hel\"")
                          DELTA("\"type\": \"text_delta\", \"text\": \"lo\"") BLOCK_END FINISH("end_turn"),
                  "0:text(Hello) 0:finish(stop)" ANTHROPIC_USAGE);
    assert_stream(PROVIDER_ANTHROPIC, START FINISH("max_tokens"), "0:finish(length)" ANTHROPIC_USAGE);
    assert_stream(PROVIDER_ANTHROPIC, START FINISH("model_context_window_exceeded"),
                  "0:finish(length)" ANTHROPIC_USAGE);
    assert_stream(PROVIDER_ANTHROPIC, START FINISH("stop_sequence"), "0:finish(stop)" ANTHROPIC_USAGE);
    assert_stream(PROVIDER_ANTHROPIC, START FINISH("pause_turn"), "0:finish(stop)" ANTHROPIC_USAGE);
    assert_stream(PROVIDER_ANTHROPIC, START FINISH("refusal"), "0:finish(content_filter)" ANTHROPIC_USAGE);
}

static void anthropic_tools_and_thinking(void **state)
{
    (void)state;
    assert_stream(
        PROVIDER_ANTHROPIC,
        START BLOCK("\"type\": \"thinking\", \"thinking\": \"\"")
            DELTA("\"type\": \"thinking_delta\", \"thinking\": \"hm\"")
                DELTA("\"type\": \"signature_delta\", \"signature\": \"s\"") BLOCK_END EVENT(
                    "content_block_start", ", \"index\": 1, \"content_block\": {\"type\": \"tool_use\","
                                           " \"id\": \"t1\", \"name\": \"f\", \"input\": {}}")
                    EVENT("content_block_delta", ", \"index\": 1, \"delta\": {\"type\":"
                                                 " \"input_json_delta\", \"partial_json\": \"\"}")
                        EVENT("content_block_delta",
                              ", \"index\": 1, \"delta\": {\"type\":"
                              " \"input_json_delta\", \"partial_json\": \"{\\\"a\\\":1}\"}")
                            EVENT("content_block_stop", ", \"index\": 1")
                                EVENT("content_block_start",
                                      ", \"index\": 2, \"content_block\": {\"type\": \"tool_use\","
                                      " \"id\": \"t2\", \"name\": \"g\", \"input\": {}}")
                                    EVENT("content_block_stop", ", \"index\": 2") FINISH("tool_use"),
        "0:reasoning(hm) 0:tool0(t1 f {\"a\":1}) 0:tool1(t2 g {}) 0:finish(tool_calls)" ANTHROPIC_USAGE);
    /* Blocks and deltas of a kind that nobody knows yet. */
    assert_stream(PROVIDER_ANTHROPIC,
                  START BLOCK("\"type\": \"server_tool_use\", \"name\": \"web\"")
                      DELTA("\"type\": \"input_json_delta\", \"partial_json\": \"{}\"")
                          BLOCK_END EVENT("something_new", ", \"index\": 9") FINISH("end_turn"),
                  "0:finish(stop)" ANTHROPIC_USAGE);
}

static void anthropic_failures(void **state)
{
    (void)state;
    assert_stream(PROVIDER_ANTHROPIC,
                  START
                  "event: error\ndata: {\"type\": \"error\", \"error\": {\"type\": \"overloaded_error\","
                  " \"message\": \"m\"}}\n\n",
                  " usage(17,5,2,-1,-1) error(UNAVAILABLE)");
    assert_stream(PROVIDER_ANTHROPIC, START BLOCK("\"type\": \"text\", \"text\": \"a\""),
                  "0:text(a) usage(17,5,2,-1,-1) error(UNAVAILABLE)");
    assert_stream(PROVIDER_ANTHROPIC, EVENT("message_stop", ""), " error(UNAVAILABLE)");
    assert_stream(PROVIDER_ANTHROPIC, EVENT("content_block_delta", ", \"index\": 1024, \"delta\": {}"),
                  " error(DATA_LOSS)");
    assert_stream(PROVIDER_ANTHROPIC, EVENT("content_block_start", ", \"content_block\": {}"),
                  " error(DATA_LOSS)");
}

static void anthropic_bodies(void **state)
{
    (void)state;
    assert_body(
        PROVIDER_ANTHROPIC,
        "{\"type\": \"message\", \"model\": \"m\", \"content\": [{\"type\": \"text\", \"text\": \"Hi\"},"
        " {\"type\": \"tool_use\", \"id\": \"t\", \"name\": \"f\", \"input\": {\"a\": 1}}, {\"type\": "
        "\"tool_use\","
        " \"id\": \"u\", \"name\": \"g\", \"input\": {}}], \"stop_reason\": \"tool_use\", \"usage\":"
        " {\"input_tokens\": 3, \"output_tokens\": 4}}",
        "0:text(Hi) 0:tool0(t f {\"a\":1}) 0:tool1(u g {}) 0:finish(tool_calls) usage(3,-1,-1,4,-1)");
    assert_body(PROVIDER_ANTHROPIC, "{\"content\": []}", " error(UNAVAILABLE)");
    assert_body(PROVIDER_ANTHROPIC, "{}", " error(DATA_LOSS)");
    assert_body(
        PROVIDER_ANTHROPIC,
        "{\"content\": [], \"stop_reason\": \"end_turn\", \"usage\": {\"input_tokens\": 9223372036854775807,"
        " \"cache_read_input_tokens\": 1, \"output_tokens\": 4}}",
        "0:finish(stop) usage(-1,1,-1,4,-1)");
}

static err_t refuse(void *context, const struct answer_piece *piece)
{
    (void)piece;
    ++*(int *)context;
    return err_new(ERR_CANCELLED, "enough");
}

static void the_sink_may_end_the_reading(void **state)
{
    (void)state;
    int n_taken = 0;
    struct answer_sink sink = {.take = refuse, .context = &n_taken};
    struct answer_reader *reader;
    assert_int_equal(answer_reader_open(PROVIDER_OPENAI, &sink, &reader).code, ERR_OK);
    const char *chunk =
        "{\"id\": \"i\", \"model\": \"m\", \"system_fingerprint\": \"f\", \"choices\": [{\"index\": 0,"
        " \"delta\": {\"content\": \"a\", \"refusal\": \"b\"}}]}";
    assert_int_equal(answer_reader_event(reader, chunk, strlen(chunk)).code, ERR_CANCELLED);
    assert_int_equal(n_taken, 1);
    assert_string_equal(answer_reader_model(reader), "m");
    assert_string_equal(answer_reader_id(reader), "i");
    assert_string_equal(answer_reader_fingerprint(reader), "f");
    assert_false(answer_reader_is_done(reader));
    answer_reader_close(reader);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(openai_text_and_its_end),
        cmocka_unit_test(openai_choices_refusals_and_reasoning),
        cmocka_unit_test(openai_tool_calls_are_gathered),
        cmocka_unit_test(usage_is_set_and_never_added),
        cmocka_unit_test(a_cut_answer_is_an_error),
        cmocka_unit_test(errors_inside_a_stream_end_it),
        cmocka_unit_test(whatever_else_openai_streams_hold_is_skipped),
        cmocka_unit_test(openai_bodies),
        cmocka_unit_test(anthropic_text_and_its_end),
        cmocka_unit_test(anthropic_tools_and_thinking),
        cmocka_unit_test(anthropic_failures),
        cmocka_unit_test(anthropic_bodies),
        cmocka_unit_test(the_sink_may_end_the_reading),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
