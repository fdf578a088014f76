/* MCP over the HTTP door, in front of the fake service: both protocols, every tool and resource, and what is
 * refused. The messages are those that clients of either version send. */
#include <stdio.h>
#include <string.h>
#include "router/mcp/mcp_bridge.h"
#include "router/mcp/mcp_handles.h"
#include "router/mcp/mcp_message.h"
#include "router/mcp/mcp_server.h"
#include "tests/proto/web_client.h"

#define META                                                                                                 \
    "\"_meta\":{\"io.modelcontextprotocol/protocolVersion\":\"2026-07-28\","                                 \
    "\"io.modelcontextprotocol/clientCapabilities\":{}}"

static const struct answer_source source = {.provider = "openai",
                                            .model = "gpt-5",
                                            .reason = "difficulty",
                                            .rule = "",
                                            .cache = "miss",
                                            .fingerprint = "f",
                                            .dropped = "",
                                            .decision_id = "d1",
                                            .cost_nanodollars = 1500000,
                                            .attempts = 1};

static err_t explain(void *context, const struct request *request, struct buffer *out)
{
    (void)context;
    (void)buffer_append_format(out, "{\"messages\":%zu,\"hints\":%zu,\"tenant\":\"%s\"}", request->n_messages,
                               request->n_hints, request->tenant);
    return err_ok();
}

static err_t budget(void *context, const char *tenant, struct buffer *out)
{
    (void)context;
    (void)buffer_append_format(out, "{\"tenant\":\"%s\",\"spent_usd\":\"0.5\",\"left\":4.998}", tenant);
    return err_ok();
}

static err_t state(void *context, struct buffer *out)
{
    (void)context;
    (void)buffer_append_text(out, "{\"requests\":3}");
    return err_ok();
}

static err_t prices(void *context, struct buffer *out)
{
    (void)context;
    return err_new(ERR_UNAVAILABLE, "no prices today%s", out ? "" : "");
}

struct bench {
    struct web web;
    struct mcp_server *server;
    struct extra_route route;
};

static struct bench bench;

static const struct event answered[] = {
    {.kind = EVENT_TOKENS, .text = "Hel", .text_bytes = 3, .source = &source},
    {.kind = EVENT_FINISHED,
     .last = true,
     .text = "lo",
     .text_bytes = 2,
     .finish_reason = FINISH_STOP,
     .stop_token_id = -1,
     .usage = {.prompt_tokens = 7, .completion_tokens = 2},
     .source = &source},
};

static int setup(void **test_state)
{
    (void)test_state;
    static const char *const origins[] = {"https://agent.example"};
    const struct mcp_options options = {.backend = {NULL, explain, budget, state, prices},
                                        .version = "9.9",
                                        .origins = origins,
                                        .n_origins = 1};
    assert_int_equal(mcp_server_open(&options, &bench.server).code, ERR_OK);
    bench.route = mcp_server_route(bench.server);
    struct http_door_options door = http_door_options_default();
    door.extra = (struct extra_routes){&bench.route, 1};
    web_open(&bench.web, NULL, &door);
    fake_service_pass_on(bench.web.fake, answered, 2);
    return 0;
}

static int teardown(void **test_state)
{
    (void)test_state;
    web_close(&bench.web);
    mcp_server_close(bench.server);
    return 0;
}

/* The answer's body, which the caller gives back; NULL when there is none. */
static json_t *post(const char *headers, const char *body, int status)
{
    struct web_connection connection = web_connect(&bench.web);
    struct web_answer answer;
    web_post(&connection, MCP_PATH, headers, body);
    web_read(&connection, &answer);
    if (answer.status != status)
        fail_msg("%d and not %d: %s", answer.status, status, answer.body.data ? answer.body.data : "");
    json_error_t error;
    json_t *json = answer.body.size ? json_loadb(answer.body.data, answer.body.size, 0, &error) : NULL;
    web_answer_free(&answer);
    web_disconnect(&connection);
    return json;
}

/* A request of 2026-07-28. params: without its braces, "" = none. */
static json_t *ask(const char *method, const char *name, const char *params, int status)
{
    char headers[512], body[4096];
    char named[128] = "";
    if (name)
        (void)snprintf(named, sizeof named, "Mcp-Name: %s\r\n", name);
    (void)snprintf(headers, sizeof headers, "MCP-Protocol-Version: 2026-07-28\r\nMcp-Method: %s\r\n%s",
                   method, named);
    (void)snprintf(body, sizeof body,
                   "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"%s\",\"params\":{%s%s" META "}}", method,
                   params, params[0] ? "," : "");
    return post(headers, body, status);
}

static json_t *ask_tool(const char *tool, const char *arguments)
{
    char params[2048];
    (void)snprintf(params, sizeof params, "\"name\":\"%s\",\"arguments\":%s", tool, arguments);
    json_t *answer = ask("tools/call", tool, params, 200);
    json_t *result = json_incref(json_object_get(answer, "result"));
    json_decref(answer);
    assert_non_null(result);
    assert_string_equal(json_string_value(json_object_get(result, "resultType")), "complete");
    return result;
}

static const char *text_of(const json_t *result)
{
    return json_string_value(json_object_get(json_array_get(json_object_get(result, "content"), 0), "text"));
}

static int code_of(const json_t *answer)
{
    return (int)json_integer_value(json_object_get(json_object_get(answer, "error"), "code"));
}

static void discovers(void **test_state)
{
    (void)test_state;
    json_t *answer = ask("server/discover", NULL, "", 200);
    const json_t *result = json_object_get(answer, "result");
    const json_t *versions = json_object_get(result, "supportedVersions");
    assert_string_equal(json_string_value(json_array_get(versions, 0)), MCP_VERSION_STATELESS);
    assert_true(json_is_object(json_object_get(json_object_get(result, "capabilities"), "tools")));
    json_decref(answer);
}

static void shakes_hands(void **test_state)
{
    (void)test_state;
    json_t *answer = post("",
                          "{\"jsonrpc\":\"2.0\",\"id\":\"a\",\"method\":\"initialize\",\"params\":{"
                          "\"protocolVersion\":\"2025-06-18\",\"capabilities\":{},\"clientInfo\":{}}}",
                          200);
    assert_string_equal(json_string_value(json_object_get(answer, "id")), "a");
    assert_string_equal(
        json_string_value(json_object_get(json_object_get(answer, "result"), "protocolVersion")),
        MCP_VERSION_HANDSHAKE);
    json_decref(answer);
    assert_null(post("", "{\"jsonrpc\":\"2.0\",\"method\":\"notifications/initialized\"}", 202));
    const char *known = "MCP-Protocol-Version: 2025-11-25\r\n";
    answer = post(known, "{\"jsonrpc\":\"2.0\",\"id\":2,\"method\":\"ping\"}", 200);
    assert_true(json_is_object(json_object_get(answer, "result")));
    json_decref(answer);
    answer = post(known, "{\"jsonrpc\":\"2.0\",\"id\":3,\"method\":\"tools/list\"}", 200);
    assert_int_equal(json_array_size(json_object_get(json_object_get(answer, "result"), "tools")), 5);
    json_decref(answer);
    answer = post(known, "{\"jsonrpc\":\"2.0\",\"id\":4,\"method\":\"tools/none\"}", 200);
    assert_int_equal(code_of(answer), MCP_METHOD_NOT_FOUND);
    json_decref(answer);
}

static void completes_and_escalates(void **test_state)
{
    (void)test_state;
    json_t *result =
        ask_tool("complete", "{\"prompt\":\"hi\",\"route\":\"auto\",\"max_cost_usd\":0.25,\"max_tokens\":5}");
    const json_t *structured = json_object_get(result, "structuredContent");
    assert_string_equal(text_of(result), "Hello");
    assert_string_equal(json_string_value(json_object_get(structured, "text")), "Hello");
    const json_t *by = json_object_get(structured, "answered_by");
    assert_string_equal(json_string_value(json_object_get(by, "cost_usd")), "0.0015");
    assert_string_equal(json_string_value(json_object_get(by, "model")), "gpt-5");
    struct fake_asked asked = fake_service_asked(bench.web.fake);
    assert_string_equal(asked.text, "user: hi\n");
    assert_non_null(strstr(asked.hints, "max-cost=0.25"));

    char arguments[128], uri[64], params[96];
    const char *handle = json_string_value(json_object_get(structured, "handle"));
    (void)snprintf(arguments, sizeof arguments, "{\"handle\":\"%s\"}", handle);
    json_t *again = ask_tool("escalate", arguments);
    assert_string_equal(text_of(again), "Hello");
    asked = fake_service_asked(bench.web.fake);
    assert_non_null(strstr(asked.hints, "route=frontier"));
    assert_string_equal(asked.text, "user: hi\n");
    json_decref(again);

    (void)snprintf(uri, sizeof uri, "router://decisions/%s", handle);
    (void)snprintf(params, sizeof params, "\"uri\":\"%s\"", uri);
    again = ask("resources/read", uri, params, 200);
    const json_t *contents = json_object_get(json_object_get(again, "result"), "contents");
    assert_non_null(strstr(json_string_value(json_object_get(json_array_get(contents, 0), "text")), "gpt-5"));
    json_decref(again);
    json_decref(result);
}

/* Of an answer that was kept here; asks nobody. */
static void assert_not_escalated(json_t *result)
{
    uint32_t before = fake_service_counts(bench.web.fake).submitted;
    char arguments[128];
    (void)snprintf(
        arguments, sizeof arguments, "{\"handle\":\"%s\"}",
        json_string_value(json_object_get(json_object_get(result, "structuredContent"), "handle")));
    json_t *again = ask_tool("escalate", arguments);
    assert_true(json_is_true(json_object_get(again, "isError")));
    assert_non_null(strstr(text_of(again), "local_only"));
    assert_int_equal(fake_service_counts(bench.web.fake).submitted, before);
    json_decref(again);
}

static void private_chats_are_not_escalated(void **test_state)
{
    (void)test_state;
    json_t *result = ask_tool("complete", "{\"messages\":[{\"role\":\"user\",\"content\":\"secret\"}],"
                                          "\"privacy\":\"local_only\"}");
    assert_not_escalated(result);
    json_decref(result);
    json_t *again = ask_tool("escalate", "{\"handle\":\"0000000000000000\"}");
    assert_true(json_is_true(json_object_get(again, "isError")));
    json_decref(again);
}

/* The rule may go by the model's name, which an escalation takes away. */
static void what_a_rule_keeps_is_not_escalated(void **test_state)
{
    (void)test_state;
    struct answer_source kept_by_rule = source;
    kept_by_rule.provider = "local";
    kept_by_rule.model = "payroll";
    kept_by_rule.reason = "privacy";
    kept_by_rule.rule = "payroll_stays";
    struct event kept[] = {answered[0], answered[1]};
    kept[0].source = kept[1].source = &kept_by_rule;
    fake_service_pass_on(bench.web.fake, kept, 2);
    json_t *result = ask_tool("complete", "{\"prompt\":\"my salary\",\"model\":\"payroll\"}");
    assert_not_escalated(result);
    fake_service_pass_on(bench.web.fake, answered, 2);
    json_decref(result);
}

static void compares(void **test_state)
{
    (void)test_state;
    uint32_t before = fake_service_counts(bench.web.fake).submitted;
    json_t *result =
        ask_tool("compare", "{\"prompt\":\"hi\",\"models\":[\"local\",\"frontier\",\"local/demo\"]}");
    const json_t *answers = json_object_get(json_object_get(result, "structuredContent"), "answers");
    assert_int_equal(json_array_size(answers), 3);
    assert_string_equal(json_string_value(json_object_get(json_array_get(answers, 2), "model")),
                        "local/demo");
    assert_int_equal(fake_service_counts(bench.web.fake).submitted, before + 3);
    json_decref(result);
    static const char *const wrong[] = {"{\"prompt\":\"hi\",\"models\":[\"a\"]}",
                                        "{\"prompt\":\"hi\",\"models\":[\"a\",1]}",
                                        "{\"prompt\":\"hi\",\"models\":[\"a\",\"b\",\"c\",\"d\",\"e\"]}"};
    for (size_t i = 0; i < 3; i++) {
        result = ask_tool("compare", wrong[i]);
        assert_true(json_is_true(json_object_get(result, "isError")));
        json_decref(result);
    }
}

static void explains_and_tells_budgets(void **test_state)
{
    (void)test_state;
    json_t *result = ask_tool("route_explain", "{\"prompt\":\"hi\",\"complexity\":7}");
    const json_t *structured = json_object_get(result, "structuredContent");
    assert_int_equal(json_integer_value(json_object_get(structured, "messages")), 1);
    assert_int_equal(json_integer_value(json_object_get(structured, "hints")), 1);
    json_decref(result);
    result = ask_tool("budget_status", "{}");
    assert_non_null(strstr(text_of(result), "0.5"));
    assert_non_null(strstr(text_of(result), "\"left\":4.998}")); /* and not 4.9980000000000002 */
    json_decref(result);
}

static void a_refusal_is_the_tools_error(void **test_state)
{
    (void)test_state;
    fake_service_fail_submit(bench.web.fake, ERR_RESOURCE_EXHAUSTED);
    json_t *result = ask_tool("complete", "{\"prompt\":\"hi\"}");
    assert_true(json_is_true(json_object_get(result, "isError")));
    json_decref(result);
    static const char *const wrong[] = {"{}",
                                        "{\"prompt\":1}",
                                        "{\"prompt\":\"a\",\"messages\":[]}",
                                        "{\"prompt\":\"a\",\"max_cost_usd\":-1}",
                                        "{\"prompt\":\"a\",\"mode\":1}",
                                        "{\"messages\":[{\"role\":1}]}"};
    uint32_t before = fake_service_counts(bench.web.fake).submitted;
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        result = ask_tool("complete", wrong[i]);
        assert_true(json_is_true(json_object_get(result, "isError")));
        json_decref(result);
    }
    assert_int_equal(fake_service_counts(bench.web.fake).submitted, before);
}

static void reads_resources(void **test_state)
{
    (void)test_state;
    json_t *answer = ask("resources/list", NULL, "", 200);
    assert_int_equal(json_array_size(json_object_get(json_object_get(answer, "result"), "resources")), 3);
    json_decref(answer);
    answer = ask("resources/templates/list", NULL, "", 200);
    assert_int_equal(json_array_size(json_object_get(json_object_get(answer, "result"), "resourceTemplates")),
                     1);
    json_decref(answer);
    answer = ask("resources/read", "router://models", "\"uri\":\"router://models\"", 200);
    char *shown = json_dumps(answer, 0);
    assert_non_null(strstr(shown, "context_tokens"));
    free(shown);
    json_decref(answer);
    answer = ask("resources/read", "router://engine/state", "\"uri\":\"router://engine/state\"", 200);
    json_decref(answer);
    answer = ask("resources/read", "router://prices", "\"uri\":\"router://prices\"", 500);
    assert_int_equal(code_of(answer), MCP_INTERNAL_ERROR);
    json_decref(answer);
    answer = ask("resources/read", "router://none", "\"uri\":\"router://none\"", 400);
    assert_int_equal(code_of(answer), MCP_INVALID_PARAMS);
    json_decref(answer);
}

static void refuses_what_disagrees(void **test_state)
{
    (void)test_state;
    static const struct {
        const char *headers, *body;
        int status, code;
    } cases[] = {
        {"", "[]", 400, MCP_INVALID_REQUEST},
        {"", "{", 400, MCP_PARSE_ERROR},
        {"", "{\"jsonrpc\":\"1.0\",\"id\":1,\"method\":\"ping\"}", 400, MCP_INVALID_REQUEST},
        {"", "{\"jsonrpc\":\"2.0\",\"id\":null,\"method\":\"ping\"}", 400, MCP_INVALID_REQUEST},
        {"", "{\"jsonrpc\":\"2.0\",\"id\":1,\"result\":{}}", 400, MCP_INVALID_REQUEST},
        {"MCP-Protocol-Version: 2030-01-01\r\n", "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"ping\"}", 400,
         MCP_UNSUPPORTED_VERSION},
        {"MCP-Protocol-Version: 2026-07-28\r\nMcp-Method: tools/list\r\n",
         "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"tools/list\"}", 400, MCP_INVALID_PARAMS},
        {"MCP-Protocol-Version: 2026-07-28\r\nMcp-Method: tools/call\r\n",
         "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"tools/list\",\"params\":{" META "}}", 400,
         MCP_HEADER_MISMATCH},
        {"MCP-Protocol-Version: 2025-11-25\r\nMcp-Method: tools/list\r\n",
         "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"tools/list\",\"params\":{" META "}}", 400,
         MCP_HEADER_MISMATCH},
        {"MCP-Protocol-Version: 2026-07-28\r\nMcp-Method: tools/list\r\nMcp-Method: tools/list\r\n",
         "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"tools/list\",\"params\":{" META "}}", 400,
         MCP_HEADER_MISMATCH},
        {"MCP-Protocol-Version: 2026-07-28\r\nMcp-Method: tools/call\r\nMcp-Name: a\r\n",
         "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"tools/call\",\"params\":{\"name\":\"b\"," META "}}", 400,
         MCP_HEADER_MISMATCH},
        /* "ü" in base64 is w7w=; a name as it is, in other base64, or that only looks like it is another one.
         */
        {"MCP-Protocol-Version: 2026-07-28\r\nMcp-Method: tools/call\r\nMcp-Name: =?base64?w7w=?=\r\n",
         "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"tools/call\",\"params\":{\"name\":\"\u00fc\"," META "}}",
         400, MCP_INVALID_PARAMS},
        {"MCP-Protocol-Version: 2026-07-28\r\nMcp-Method: tools/call\r\nMcp-Name: =?base64?w7x=?=\r\n",
         "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"tools/call\",\"params\":{\"name\":\"\u00fc\"," META "}}",
         400, MCP_HEADER_MISMATCH},
        {"MCP-Protocol-Version: 2026-07-28\r\nMcp-Method: tools/call\r\nMcp-Name: =?base64?YQ==?=\r\n",
         "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"tools/"
         "call\",\"params\":{\"name\":\"=?base64?YQ==?=\"," META "}}",
         400, MCP_HEADER_MISMATCH},
        {"MCP-Protocol-Version: 2026-07-28\r\nMcp-Method: ping\r\n",
         "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"ping\",\"params\":{" META "}}", 404,
         MCP_METHOD_NOT_FOUND},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        json_t *answer = post(cases[i].headers, cases[i].body, cases[i].status);
        if (code_of(answer) != cases[i].code)
            fail_msg("case %zu: %d and not %d", i, code_of(answer), cases[i].code);
        json_decref(answer);
    }
    json_t *answer = ask("tools/call", "none", "\"name\":\"none\"", 400);
    assert_int_equal(code_of(answer), MCP_INVALID_PARAMS);
    json_decref(answer);
}

static void refuses_pages_of_others(void **test_state)
{
    (void)test_state;
    static const struct {
        const char *headers;
        int status;
    } cases[] = {{"Origin: https://evil.example\r\n", 403},
                 {"Origin: http://localhost.evil.example\r\n", 403},
                 {"Origin: http://127.0.0.1:1x\r\n", 403},
                 {"Origin: null\r\n", 403},
                 {"Origin: http://localhost:3000\r\n", 200},
                 {"Origin: http://[::1]:8\r\n", 200},
                 {"Origin: https://agent.example\r\n", 200},
                 {"Accept: text/html\r\n", 406},
                 {"Accept: application/json, text/event-stream\r\n", 200}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        json_decref(
            post(cases[i].headers, "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"ping\"}", cases[i].status));
    struct web_connection connection = web_connect(&bench.web);
    struct web_answer answer;
    web_get(&connection, MCP_PATH);
    web_read(&connection, &answer);
    assert_int_equal(answer.status, 405);
    web_answer_free(&answer);
    web_disconnect(&connection);
}

/* What the bridge answers to these lines, one JSON a line; the last ones first are no matter. */
static json_t *carry(const char *lines, const char *path, const char *key)
{
    char url[96], *text = NULL;
    size_t size = 0;
    (void)snprintf(url, sizeof url, "http://127.0.0.1:%u%s", http_door_port(bench.web.door), path);
    FILE *in = fmemopen((void *)lines, strlen(lines), "r"), *out = open_memstream(&text, &size);
    const struct mcp_bridge_options options = {
        .url = url, .key = key, .timeout_ms = 60000, .in = in, .out = out};
    assert_int_equal(mcp_bridge_run(&options).code, ERR_OK);
    (void)fclose(in);
    (void)fclose(out);
    json_t *answers = json_object();
    char *rest = text;
    for (char *line = strtok_r(rest, "\n", &rest); line; line = strtok_r(rest, "\n", &rest)) {
        json_error_t error;
        json_t *answer = json_loads(line, 0, &error);
        assert_non_null(answer);
        char id[16];
        (void)snprintf(id, sizeof id, "%d", (int)json_integer_value(json_object_get(answer, "id")));
        assert_int_equal(json_object_set_new(answers, id, answer), 0);
    }
    free(text);
    return answers;
}

static void the_bridge_carries_both_protocols(void **test_state)
{
    (void)test_state;
    json_t *answers =
        carry("{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"initialize\",\"params\":{\"protocolVersion\":"
              "\"2025-11-25\"}}\n"
              "{\"jsonrpc\":\"2.0\",\"method\":\"notifications/initialized\"}\n\r\n"
              "{\"jsonrpc\":\"2.0\",\"id\":2,\"method\":\"tools/call\",\"params\":{\"name\":\"complete\","
              "\"arguments\":{\"prompt\":\"hi\"}," META "}}\n"
              "{\"jsonrpc\":\"2.0\",\"id\":3,\"method\":\"server/discover\",\"params\":{" META "}}\n"
              "{\"jsonrpc\":\"2.0\",\"id\":4,\"method\":\"nothing\"}\nnot json\n",
              MCP_PATH, "a-key");
    assert_int_equal(json_object_size(answers), 5);
    assert_string_equal(text_of(json_object_get(json_object_get(answers, "2"), "result")), "Hello");
    assert_true(json_is_object(json_object_get(json_object_get(answers, "3"), "result")));
    assert_int_equal(code_of(json_object_get(answers, "4")), MCP_METHOD_NOT_FOUND);
    assert_int_equal(code_of(json_object_get(answers, "0")), MCP_PARSE_ERROR);
    json_decref(answers);
}

static void the_bridge_says_what_cannot_be_delivered(void **test_state)
{
    (void)test_state;
    json_t *answers = carry("{\"jsonrpc\":\"2.0\",\"id\":7,\"method\":\"ping\"}\n", "/metrics/none", NULL);
    /* OpenAI's error is JSON, and no answer of MCP. */
    assert_int_equal(json_object_size(answers), 1);
    assert_int_equal(code_of(json_object_get(answers, "7")), MCP_INTERNAL_ERROR);
    json_decref(answers);
    char *large = malloc(MCP_LINE_BYTES_MAX + 2);
    memset(large, 'a', MCP_LINE_BYTES_MAX + 1);
    large[MCP_LINE_BYTES_MAX + 1] = '\0';
    answers = carry(large, MCP_PATH, NULL);
    assert_int_equal(code_of(json_object_get(answers, "0")), MCP_INVALID_REQUEST);
    json_decref(answers);
    free(large);
}

static bool nobody_lives(const struct fake_counts *counts)
{
    return counts->live == 0;
}

static bool somebody_lives(const struct fake_counts *counts)
{
    return counts->live > 0;
}

static void an_agent_that_leaves_cancels(void **test_state)
{
    (void)test_state;
    fake_service_hold(bench.web.fake, true);
    struct web_connection connection = web_connect(&bench.web);
    web_post(&connection, MCP_PATH, "",
             "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"tools/call\",\"params\":{\"name\":\"complete\","
             "\"arguments\":{\"prompt\":\"hi\"}}}");
    fake_service_wait(bench.web.fake, somebody_lives);
    web_cut(&connection);
    fake_service_wait(bench.web.fake, nobody_lives);
    fake_service_hold(bench.web.fake, false);
}

static void handles_are_bounded_and_a_tenants(void **test_state)
{
    (void)test_state;
    struct mcp_handles *handles;
    assert_int_equal(mcp_handles_create(&handles).code, ERR_OK);
    json_t *request = json_pack("{s:s}", "prompt", "a"), *decision = json_object(), *got, *why;
    for (int i = 0; i < MCP_HANDLES_MAX + 1; i++) {
        char handle[MCP_HANDLE_BYTES];
        (void)snprintf(handle, sizeof handle, "%016x", i);
        mcp_handles_put(handles, handle, "acme", request, decision);
    }
    assert_false(mcp_handles_get(handles, "0000000000000000", "acme", &got, &why));
    assert_false(mcp_handles_get(handles, "0000000000000001", "other", &got, &why));
    assert_true(mcp_handles_get(handles, "0000000000000001", "acme", &got, &why));
    assert_ptr_equal(got, request);
    json_decref(got);
    json_decref(why);
    char *large = malloc(MCP_HANDLES_BYTES_MAX);
    memset(large, 'a', MCP_HANDLES_BYTES_MAX);
    json_t *most = json_pack("{s:s%}", "prompt", large, (size_t)MCP_HANDLES_BYTES_MAX - 64);
    mcp_handles_put(handles, "most", "acme", most, decision);
    assert_false(mcp_handles_get(handles, "0000000000000001", "acme", &got, &why));
    assert_true(mcp_handles_get(handles, "most", "acme", &got, &why));
    json_decref(got);
    json_decref(why);
    json_decref(most);
    free(large);
    json_decref(request);
    json_decref(decision);
    mcp_handles_destroy(handles);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(discovers),
        cmocka_unit_test(shakes_hands),
        cmocka_unit_test(completes_and_escalates),
        cmocka_unit_test(private_chats_are_not_escalated),
        cmocka_unit_test(what_a_rule_keeps_is_not_escalated),
        cmocka_unit_test(compares),
        cmocka_unit_test(explains_and_tells_budgets),
        cmocka_unit_test(a_refusal_is_the_tools_error),
        cmocka_unit_test(reads_resources),
        cmocka_unit_test(refuses_what_disagrees),
        cmocka_unit_test(refuses_pages_of_others),
        cmocka_unit_test(the_bridge_carries_both_protocols),
        cmocka_unit_test(the_bridge_says_what_cannot_be_delivered),
        cmocka_unit_test(an_agent_that_leaves_cancels),
        cmocka_unit_test(handles_are_bounded_and_a_tenants),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
