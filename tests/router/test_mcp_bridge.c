/* The bridge from standard input and output to a router's /mcp: what it sends, what it writes, and what it
 * does with what is no message. */
#include <fcntl.h>
#include <jansson.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>
#include "router/mcp/mcp_bridge.h"
#include "router/mcp/mcp_message.h"
#include "tests/router/script_server.h"

#define ANSWER(body) "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nConnection: close\r\n\r\n" body

struct running {
    struct mcp_bridge_options options;
    char url[64];
    int to, from; /* of the bridge */
    err_t e;
    pthread_t thread;
};

static void *run_bridge(void *context)
{
    struct running *running = context;
    running->e = mcp_bridge_run(&running->options);
    fclose(running->options.out);
    return NULL;
}

static struct running *start_bridge(uint16_t port)
{
    int in[2], out[2];
    assert_int_equal(pipe2(in, O_CLOEXEC) | pipe2(out, O_CLOEXEC), 0);
    struct running *running = calloc(1, sizeof *running);
    assert_non_null(running);
    snprintf(running->url, sizeof running->url, "http://127.0.0.1:%u/mcp", port);
    running->to = in[1];
    running->from = out[0];
    running->options = (struct mcp_bridge_options){.url = running->url,
                                                   .key = "secret",
                                                   .timeout_ms = 60000,
                                                   .in = fdopen(in[0], "r"),
                                                   .out = fdopen(out[1], "w")};
    assert_true(running->options.in && running->options.out);
    assert_int_equal(pthread_create(&running->thread, NULL, run_bridge, running), 0);
    return running;
}

static void say(struct running *running, const char *text)
{
    assert_int_equal(write(running->to, text, strlen(text)), strlen(text));
}

/* A line of its output; "" at the end. */
static const char *hear(struct running *running)
{
    static char line[4096];
    size_t size = 0;
    while (size < sizeof line - 1 && read(running->from, line + size, 1) == 1 && line[size] != '\n')
        size++;
    line[size] = '\0';
    return line;
}

static err_t finish(struct running *running)
{
    close(running->to);
    pthread_join(running->thread, NULL);
    err_t e = running->e;
    fclose(running->options.in);
    close(running->from);
    free(running);
    return e;
}

#define STATELESS                                                                                            \
    "\"_meta\":{\"io.modelcontextprotocol/protocolVersion\":\"2026-07-28\","                                 \
    "\"io.modelcontextprotocol/clientCapabilities\":{}}"

static void a_message_goes_out_with_its_headers(void **state)
{
    (void)state;
    static const struct script_step STEPS[] = {
        {STEP_READ, NULL},
        {STEP_SEND, ANSWER("{\"jsonrpc\":\"2.0\", \"id\":1,\n \"result\":{}}")},
        {STEP_END, NULL}};
    static const struct script_step *const SCRIPTS[] = {STEPS};
    struct script_server *server = script_server_open(SCRIPTS, 1);
    struct running *running = start_bridge(script_server_port(server));
    say(running,
        "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"tools/call\",\"params\":{\"name\":\"complete\"," STATELESS
        "}}"); /* the end of the input ends the line too */
    close(running->to);
    running->to = -1;
    assert_string_equal(hear(running), "{\"jsonrpc\":\"2.0\",\"id\":1,\"result\":{}}"); /* one line */
    assert_int_equal(finish(running).code, ERR_OK);
    script_server_wait_ended(server, 1);
    const char *heard = script_server_heard(server);
    assert_non_null(strstr(heard, "POST /mcp HTTP/1.1\r\n"));
    assert_non_null(strstr(heard, "\r\nAccept: application/json, text/event-stream\r\n"));
    assert_non_null(strstr(heard, "\r\nMCP-Protocol-Version: 2026-07-28\r\n"));
    assert_non_null(strstr(heard, "\r\nMcp-Method: tools/call\r\n"));
    assert_non_null(strstr(heard, "\r\nMcp-Name: complete\r\n"));
    assert_non_null(strstr(heard, "\r\nAuthorization: Bearer secret\r\n"));
    script_server_close(server);
}

static void a_name_that_no_header_takes_is_encoded(void **state)
{
    (void)state;
    static const struct {
        const char *name, *header;
    } CASES[] = {{"complete", "complete"},
                 {"a b~", "a b~"},
                 {"Gr\xc3\xbc\xc3\x9f\x65", "=?base64?R3LDvMOfZQ==?="},
                 {" a", "=?base64?IGE=?="},
                 {"a ", "=?base64?YSA=?="},
                 {"a\nb", "=?base64?YQpi?="},
                 {"", "=?base64?"
                      "?="},
                 {"=?base64?YQ==?=", "=?base64?PT9iYXNlNjQ/WVE9PT89?="}};
    for (size_t i = 0; i < sizeof CASES / sizeof *CASES; i++) {
        struct buffer written = {.limit_bytes = 1 << 12};
        assert_true(mcp_write_name(CASES[i].name, &written));
        assert_string_equal(written.data, CASES[i].header);
        buffer_free(&written);
    }
    static char much[MCP_NAME_BYTES_MAX + 2];
    struct buffer written = {.limit_bytes = 1 << 16};
    memset(much, '\n', MCP_NAME_BYTES_MAX + 1);
    assert_false(mcp_write_name(much, &written));
    buffer_free(&written);
}

static void a_notification_has_no_answer(void **state)
{
    (void)state;
    static const struct script_step TAKEN[] = {
        {STEP_READ, NULL},
        {STEP_SEND, "HTTP/1.1 202 Accepted\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"},
        {STEP_END, NULL}};
    static const struct script_step *const SCRIPTS[] = {TAKEN};
    struct script_server *server = script_server_open(SCRIPTS, 1);
    struct running *running = start_bridge(script_server_port(server));
    say(running, "{\"jsonrpc\":\"2.0\",\"method\":\"notifications/initialized\"}\r\n");
    script_server_wait_ended(server, 1);
    close(running->to);
    running->to = -1;
    assert_string_equal(hear(running), "");
    assert_int_equal(finish(running).code, ERR_OK);
    script_server_close(server);
}

static void assert_fault(const char *line, int code, const char *words)
{
    json_t *message = json_loads(line, 0, NULL);
    int got = 0;
    const char *why = "";
    assert_int_equal(json_unpack(message, "{s:{s:i,s:s}}", "error", "code", &got, "message", &why), 0);
    assert_int_equal(got, code);
    if (strstr(why, words) == NULL)
        fail_msg("\"%s\" has no \"%s\"", why, words);
    assert_non_null(json_object_get(message, "id"));
    json_decref(message);
}

static void what_is_no_message_gets_an_error(void **state)
{
    (void)state;
    struct running *running = start_bridge(1); /* nobody is there */
    say(running, "nonsense\n\n \n");
    assert_fault(hear(running), -32700, "");
    say(running, "[]\n");
    assert_fault(hear(running), -32600, "one message");
    say(running, "{\"jsonrpc\":\"2.0\",\"id\":1.5,\"method\":\"ping\"}\n");
    assert_fault(hear(running), -32600, "id must be");
    say(running, "{\"jsonrpc\":\"2.0\",\"id\":1}\n");
    assert_fault(hear(running), -32600, "method");
    say(running, "{\"jsonrpc\":\"2.0\",\"id\":7,\"method\":\"ping\"}\n");
    assert_fault(hear(running), -32603, "127.0.0.1"); /* cannot be reached */
    assert_int_equal(finish(running).code, ERR_OK);
}

static void a_long_line_spoils_no_other(void **state)
{
    (void)state;
    struct running *running = start_bridge(1);
    char block[65536];
    memset(block, 'x', sizeof block);
    for (int i = 0; i <= MCP_LINE_BYTES_MAX / (int)sizeof block; i++)
        for (size_t done = 0; done < sizeof block;) {
            ssize_t n = write(running->to, block + done, sizeof block - done);
            assert_true(n > 0);
            done += (size_t)n;
        }
    say(running, "\n[]\n");
    assert_fault(hear(running), -32600, "4 MiB");
    assert_fault(hear(running), -32600, "one message");
    assert_int_equal(finish(running).code, ERR_OK);
}

static void a_refusal_of_the_door_is_told(void **state)
{
    (void)state;
    static const struct script_step STEPS[] = {
        {STEP_READ, NULL},
        {STEP_SEND, "HTTP/1.1 401 Unauthorized\r\nContent-Type: application/json\r\nConnection: close\r\n\r\n"
                    "{\"error\":{\"message\":\"who are you?\"}}"},
        {STEP_END, NULL}};
    static const struct script_step *const SCRIPTS[] = {STEPS};
    struct script_server *server = script_server_open(SCRIPTS, 1);
    struct running *running = start_bridge(script_server_port(server));
    say(running, "{\"jsonrpc\":\"2.0\",\"id\":\"x\",\"method\":\"ping\"}\n");
    assert_fault(hear(running), -32603, "status 401");
    assert_int_equal(finish(running).code, ERR_OK);
    script_server_close(server);
}

static void a_cancelled_call_is_closed_and_not_answered(void **state)
{
    (void)state;
    static const struct script_step HANGS[] = {{STEP_READ, NULL}, {STEP_UNTIL_GONE, NULL}, {STEP_END, NULL}};
    static const struct script_step ANSWERS[] = {
        {STEP_READ, NULL},
        {STEP_SEND, ANSWER("{\"jsonrpc\":\"2.0\",\"id\":2,\"result\":{}}")},
        {STEP_END, NULL}};
    static const struct script_step *const SCRIPTS[] = {HANGS, ANSWERS};
    struct script_server *server = script_server_open(SCRIPTS, 2);
    struct running *running = start_bridge(script_server_port(server));
    say(running, "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"ping\"}\n");
    while (script_server_connections(server) == 0)
        usleep(1000);
    say(running, "{\"jsonrpc\":\"2.0\",\"id\":2,\"method\":\"ping\"}\n"); /* beside the first */
    assert_string_equal(hear(running), "{\"jsonrpc\":\"2.0\",\"id\":2,\"result\":{}}");
    say(running,
        "{\"jsonrpc\":\"2.0\",\"method\":\"notifications/cancelled\",\"params\":{\"requestId\":1}}\n");
    script_server_wait_ended(server, 2);
    close(running->to);
    running->to = -1;
    assert_string_equal(hear(running), "");
    assert_int_equal(finish(running).code, ERR_OK);
    script_server_close(server);
}

static void it_ends_when_nobody_reads(void **state)
{
    (void)state;
    struct running *running = start_bridge(1);
    close(running->from);
    running->from = -1;
    say(running, "nonsense\n");
    pthread_join(running->thread, NULL);
    assert_int_equal(running->e.code, ERR_IO);
    close(running->to);
    fclose(running->options.in);
    free(running);
}

static int set_up(void **state)
{
    (void)state;
    (void)signal(SIGPIPE, SIG_IGN); /* as the program does */
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_message_goes_out_with_its_headers),
        cmocka_unit_test(a_name_that_no_header_takes_is_encoded),
        cmocka_unit_test(a_notification_has_no_answer),
        cmocka_unit_test(what_is_no_message_gets_an_error),
        cmocka_unit_test(a_long_line_spoils_no_other),
        cmocka_unit_test(a_refusal_of_the_door_is_told),
        cmocka_unit_test(a_cancelled_call_is_closed_and_not_answered),
        cmocka_unit_test(it_ends_when_nobody_reads),
    };
    return cmocka_run_group_tests(tests, set_up, NULL);
}
