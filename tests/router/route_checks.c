/* Answers held against what was asked for, and requests against what there is room for: in the router, over
 * fake engines and a provider that follows scripts. */
#include "tests/router/route_checks.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <jansson.h>
#include <cmocka.h>
#include "tests/router/fake_fleet.h"
#include "tests/router/route_rig.h"

static const struct script_step ANSWERS[] = {
    {STEP_READ, NULL}, {STEP_SEND, RIG_STREAM RIG_TEXT("big ") RIG_TEXT("one") RIG_END}, {STEP_END, NULL}};

#define QUICK "retries: {max: 3, backoff: 1ms}\n"

static void json_that_was_asked_for_is_checked(void **state)
{
    (void)state;
    const struct script_step *scripts[] = {ANSWERS, ANSWERS, ANSWERS};
    struct route_rig *rig = rig_open(scripts, 3, QUICK, false);
    fake_fleet_script("{}");
    struct rig_answer answer =
        rig_ask(rig, &(struct rig_question){.route = "frontier",
                                            .body = ", \"response_format\": {\"type\": \"json_object\"}"});
    rig_assert_answer(&answer, "{}", "local");
    assert_int_equal(answer.attempts, 4);
    rig_forget(&answer);
    rig_close(rig);
}

#define JSON_STREAM ", \"stream\": true, \"response_format\": {\"type\": \"json_object\"}"
static const struct script_step SAYS_JSON[] = {
    {STEP_READ, NULL},
    {STEP_SEND, RIG_STREAM RIG_TEXT("{\\\"a\\\": ") RIG_TEXT("1}") RIG_END},
    {STEP_END, NULL}};

/* The reader has it all by then: it ends with an error, and is paid for. */
static void a_stream_is_checked_at_its_end(void **state)
{
    (void)state;
    const struct script_step *scripts[] = {ANSWERS, SAYS_JSON, ANSWERS};
    struct route_rig *rig = rig_open(scripts, 3, QUICK "cache: {kind: memory}\n", false);
    struct rig_answer answer = rig_ask(rig, &(struct rig_question){.route = "frontier", .body = JSON_STREAM});
    assert_int_equal(answer.error.code, ERR_UNAVAILABLE);
    assert_non_null(strstr(answer.error.message, "p/big: the answer is not the JSON that was asked for"));
    assert_int_equal(answer.finish, FINISH_ERROR);
    assert_string_equal(answer.text.data, "big one");
    assert_int_equal(answer.n_ends, 1);
    assert_true(answer.cost > 0);
    rig_forget(&answer);
    answer =
        rig_ask(rig, &(struct rig_question){.route = "frontier", .body = JSON_STREAM}); /* was not kept */
    rig_assert_answer(&answer, "{\"a\": 1}", "p");
    assert_int_equal(answer.finish, FINISH_STOP);
    rig_forget(&answer);
    rig_close(rig);
}

#define CALL(index, arguments)                                                                               \
    RIG_STREAM                                                                                               \
    "data: {\"model\": \"big-1\", \"choices\": [{\"index\": 0, \"delta\": {\"tool_calls\": [{"               \
    "\"index\": " index ", \"id\": \"c\", \"type\": \"function\", \"function\": {\"name\": \"look\","        \
    " \"arguments\": \"{\\\"at\\\": \"}}]}}]}\n\n"                                                           \
    "data: {\"choices\": [{\"index\": 0, \"delta\": {\"tool_calls\": [{\"index\": " index ", \"function\":"  \
    " {\"arguments\": \"" arguments "}\"}}]}}]}\n\n"                                                         \
    "data: {\"choices\": [{\"index\": 0, \"delta\": {}, \"finish_reason\": \"tool_calls\"}],"                \
    " \"usage\": {\"prompt_tokens\": 10, \"completion_tokens\": 1}}\n\ndata: [DONE]\n\n"
static const struct script_step CALLS_WELL[] = {
    {STEP_READ, NULL}, {STEP_SEND, CALL("0", "\\\"here\\\"")}, {STEP_END, NULL}};
static const struct script_step CALLS_BADLY[] = {
    {STEP_READ, NULL}, {STEP_SEND, CALL("0", "1")}, {STEP_END, NULL}};

/* From a server that counts from 1. */
static const struct script_step CALLS_FROM_ONE[] = {
    {STEP_READ, NULL}, {STEP_SEND, CALL("1", "\\\"here\\\"")}, {STEP_END, NULL}};

/* A whole answer is asked for again, a stream ends with an error. */
static void calls_of_tools_are_checked(void **state)
{
    (void)state;
#define LOOK(more)                                                                                           \
    ", \"tools\": [{\"type\": \"function\", \"function\": {\"name\": \"look\", \"parameters\": "             \
    "{\"properties\":"                                                                                       \
    " {\"at\": {\"type\": \"string\"}}}" more "}}]"
    const struct script_step *scripts[] = {CALLS_BADLY, CALLS_WELL,  CALLS_BADLY,
                                           CALLS_WELL,  CALLS_BADLY, CALLS_FROM_ONE};
    struct route_rig *rig = rig_open(scripts, 6, QUICK, false);
    struct rig_question question = {.route = "frontier", .body = LOOK(", \"strict\": true")};
    struct rig_answer answer = rig_ask(rig, &question);
    rig_assert_answer(&answer, "", "p");
    assert_int_equal(answer.finish, FINISH_TOOL_CALLS);
    assert_int_equal(answer.attempts, 2);
    rig_forget(&answer);
    question.body = LOOK(", \"strict\": true") ", \"stream\": true";
    answer = rig_ask(rig, &question);
    assert_int_equal(answer.error.code, ERR_UNAVAILABLE);
    assert_non_null(
        strstr(answer.error.message, "p/big: arguments for \"look\".at: it must be of type string"));
    rig_forget(&answer);
    answer = rig_ask(rig, &question);
    rig_assert_answer(&answer, "", "p");
    rig_forget(&answer);
    question.body = LOOK("");
    answer = rig_ask(rig, &question); /* no strict one: it is the caller's to look at */
    rig_assert_answer(&answer, "", "p");
    assert_int_equal(answer.attempts, 1);
    rig_forget(&answer);
    question.body = LOOK(", \"strict\": true");
    answer = rig_ask(rig, &question);
    rig_assert_answer(&answer, "", "p");
    assert_int_equal(answer.attempts, 1);
    rig_forget(&answer);
    rig_close(rig);
    const struct script_step *more[] = {CALLS_BADLY, CALLS_WELL};
    rig = rig_open(more, 2, QUICK "check_tool_calls: yes\n", false);
    answer = rig_ask(rig, &question);
    rig_assert_answer(&answer, "", "p");
    assert_int_equal(answer.attempts, 2);
    rig_forget(&answer);
    rig_close(rig);
}

static void what_cannot_be_checked_stays(void **state)
{
    (void)state;
#define PATTERN                                                                                              \
    ", \"response_format\": {\"type\": \"json_schema\", \"json_schema\": {\"name\": \"s\", \"schema\":"      \
    " {\"properties\": {\"a\": {\"pattern\": \"^1\"}}}}}"
    const struct script_step *scripts[] = {ANSWERS};
    struct route_rig *rig = rig_open(scripts, 1, QUICK, false);
    fake_fleet_script("{}");
    struct rig_answer answer = rig_ask(rig, &(struct rig_question){.route = "frontier", .body = PATTERN});
    rig_assert_answer(&answer, "{}", "local");
    assert_string_equal(answer.reason, "cannot_cross");
    rig_forget(&answer);
    assert_int_equal(script_server_connections(rig->server), 0);
    rig_close(rig);
}

static void what_an_engine_finds_too_long_goes_where_it_fits(void **state)
{
    (void)state;
    const struct script_step *scripts[] = {ANSWERS};
    struct route_rig *rig =
        rig_open(scripts, 1,
                 QUICK "rules: [{name: here, when: {tenants: [here]}, to: small},"
                       " {name: short, when: {tenants: [short], tokens: {max: 2000}}, local_only: yes}]\n",
                 false);
    fake_fleet_script("^");
    struct rig_answer answer = rig_ask(rig, &(struct rig_question){0});
    rig_assert_answer(&answer, "big one", "p");
    assert_string_equal(answer.reason, "context");
    assert_int_equal(answer.attempts, 2);
    rig_forget(&answer);
    const struct rig_question KEPT[] = {
        {.route = "local"}, {.privacy = "local_only"}, {.tenant = "here"}, {.tenant = "short"}};
    for (size_t i = 0; i < sizeof KEPT / sizeof *KEPT; i++) {
        answer = rig_ask(rig, &KEPT[i]);
        assert_int_equal(answer.error.code, ERR_INVALID_ARGUMENT);
        assert_non_null(strstr(answer.error.message, "2500 tokens"));
        assert_int_equal(answer.attempts, 1);
        rig_forget(&answer);
    }
    assert_int_equal(script_server_connections(rig->server), 1);
    fake_fleet_script("ok");
    rig_close(rig);
}

static int64_t prompt_tokens_of(struct route_rig *rig, const char *text, json_t *original)
{
    struct chat_message message = {.role = "user", .content = text, .content_bytes = strlen(text)};
    struct request request = {.prompt_kind = PROMPT_MESSAGES,
                              .messages = &message,
                              .n_messages = 1,
                              .original = original,
                              .deadline_ns = REQUEST_NO_DEADLINE};
    struct buffer out = {.limit_bytes = 1 << 20};
    assert_int_equal(route_service_explain(rig->router, &request, &out).code, ERR_OK);
    json_t *root = json_loadb(out.data, out.size, 0, NULL);
    assert_non_null(root);
    int64_t n = json_integer_value(json_object_get(json_object_get(root, "signals"), "prompt_tokens"));
    json_decref(root);
    buffer_free(&out);
    return n;
}

static void a_prompt_is_as_long_as_the_engine_counts(void **state)
{
    (void)state;
    struct route_rig *rig = rig_open(NULL, 0, QUICK, false);
    char text[1025];
    memset(text, 'a', sizeof text - 1);
    text[sizeof text - 1] = '\0';
    assert_int_equal(prompt_tokens_of(rig, text, NULL), 1024 / 4 + 1 + 8);
    json_t *original = json_pack("{s:[{s:s, s:s}], s:[{s:s, s:{s:s, s:s}}], s:{s:s}}", "messages", "role",
                                 "user", "content", "Hi", "tools", "type", "function", "function", "name",
                                 "f", "description", text, "metadata", "note", text);
    assert_in_range(prompt_tokens_of(rig, "Hi", original), 1024 / 4 + 8, 1024 / 4 + 50);
    json_decref(original);
    fake_fleet_script(
        "ok"); /* and says that the prompt had 7 tokens, of which it takes 8 to be a template's */
    struct rig_answer answer = rig_ask(rig, &(struct rig_question){.text = text});
    rig_assert_answer(&answer, "ok", "local");
    rig_forget(&answer);
    assert_int_equal(prompt_tokens_of(rig, text, NULL), 64 + 1 + 8); /* no fewer than one in 16 bytes */
    rig_close(rig);
}

static void requests_are_bounded_in_bytes(void **state)
{
    (void)state;
    enum { MOST = RIG_HELD_BYTES / 1000 };
    struct route_rig *rig = rig_open(NULL, 0, QUICK, false);
    static struct stream *streams[MOST];
    char text[1001];
    memset(text, 'a', sizeof text - 1);
    text[sizeof text - 1] = '\0';
    struct rig_question question = {.text = text};
    struct buffer out = {.limit_bytes = 1 << 20};
    err_t e = err_ok();
    size_t n = 0;
    fake_fleet_script("#");
    while (n < MOST && (e = rig_submit(rig, &question, &streams[n])).code == ERR_OK)
        n++;
    assert_int_equal(e.code, ERR_RESOURCE_EXHAUSTED);
    assert_non_null(strstr(e.message, "bytes"));
    assert_in_range(n, 20, RIG_HELD_BYTES / sizeof text);
    assert_true(rig->service->vtable->metrics_text(rig->service, &out));
    const char *held = strstr(out.data, "\nbantam:router_held_bytes ");
    assert_non_null(held);
    assert_in_range(strtoul(strchr(held, ' '), NULL, 10), n * sizeof text, RIG_HELD_BYTES);
    for (size_t i = 0; i < n; i++)
        rig->service->vtable->stream_release(streams[i]);
    rig_wait_idle(rig);
    buffer_clear(&out);
    assert_true(rig->service->vtable->metrics_text(rig->service, &out));
    assert_non_null(strstr(out.data, "\nbantam:router_held_bytes 0\n"));
    buffer_free(&out);
    fake_fleet_script("ok");
    struct rig_answer answer = rig_ask(rig, &question);
    rig_assert_answer(&answer, "ok", "local");
    rig_forget(&answer);
    rig_close(rig);
}

int route_check_tests(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(json_that_was_asked_for_is_checked),
        cmocka_unit_test(a_stream_is_checked_at_its_end),
        cmocka_unit_test(calls_of_tools_are_checked),
        cmocka_unit_test(what_cannot_be_checked_stays),
        cmocka_unit_test(what_an_engine_finds_too_long_goes_where_it_fits),
        cmocka_unit_test(a_prompt_is_as_long_as_the_engine_counts),
        cmocka_unit_test(requests_are_bounded_in_bytes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
