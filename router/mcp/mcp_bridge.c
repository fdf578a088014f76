#include "router/mcp/mcp_bridge.h"

#include <errno.h>
#include <jansson.h>
#include <openssl/evp.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>
#include "base/alloc.h"
#include "base/assert.h"
#include "base/buffer.h"
#include "base/event_count.h"
#include "base/log.h"
#include "router/mcp/mcp_message.h"
#include "router/mcp/mcp_server.h"
#include "router/providers/egress.h"
#include "router/providers/json_text.h"

enum {
    CONNECT_TIMEOUT_MS = 10000,
    READ_BYTES = 1 << 16,
    VERSION_BYTES = 32,
    NAME_BYTES_MAX = 1024,
    HEADER_BYTES = 2048,
    HEADERS_MAX = 5,
};

struct call {
    struct mcp_bridge *bridge;
    bool is_used, is_cancelled, is_handshake;
    uint64_t number; /* of egress */
    json_t *id;      /* owned; NULL = a notification, which has no answer */
    int status;
    struct buffer body;
};

struct mcp_bridge {
    const struct mcp_bridge_options *options;
    struct egress *egress;
    pthread_mutex_t lock; /* of what follows, and of the output */
    struct call calls[MCP_CALLS_MAX];
    char version[VERSION_BYTES]; /* that `initialize` has agreed on; "" = none */
    err_t broken;                /* of the output */
    struct event_count ended;    /* a call */
};

/* ---- Answers ---- */

/* Under the lock. */
static void write_line(struct mcp_bridge *bridge, const json_t *message)
{
    struct buffer line = {.limit_bytes = MCP_ANSWER_BYTES_MAX + 64};
    err_t e = json_text_append(&line, message);
    if (e.code == ERR_OK && !buffer_append_text(&line, "\n"))
        e = err_new(ERR_RESOURCE_EXHAUSTED, "no memory for an answer");
    for (size_t done = 0; e.code == ERR_OK && done < line.size;) {
        ssize_t n = write(bridge->options->output, line.data + done, line.size - done);
        if (n >= 0)
            done += (size_t)n;
        else if (errno != EINTR)
            e = err_new(ERR_IO, "standard output cannot be written: %s", strerror(errno));
    }
    buffer_free(&line);
    if (bridge->broken.code == ERR_OK)
        bridge->broken = e;
}

/* Under the lock. id: NULL = it is not known. */
static void write_fault(struct mcp_bridge *bridge, json_t *id, int code, const char *message)
{
    json_t *fault = json_pack("{s:s,s:O?,s:{s:i,s:s}}", "jsonrpc", "2.0", "id", id, "error", "code", code,
                              "message", message);
    if (fault == NULL) {
        log_warn("mcp", "an error cannot be told: %s", message);
        return;
    }
    if (id == NULL)
        json_object_set_new(fault, "id", json_null());
    write_line(bridge, fault);
    json_decref(fault);
}

static void refuse(struct mcp_bridge *bridge, json_t *id, int code, const char *message)
{
    pthread_mutex_lock(&bridge->lock);
    write_fault(bridge, id, code, message);
    pthread_mutex_unlock(&bridge->lock);
}

/* What the server says where it does not speak JSON-RPC: a refusal of its door. */
static void write_refusal(struct mcp_bridge *bridge, const struct call *call, const json_t *body)
{
    char message[ERR_MESSAGE_MAX];
    const json_t *error = json_object_get(body, "error");
    const char *why = json_string_value(json_is_object(error) ? json_object_get(error, "message") : error);
    snprintf(message, sizeof message, "the server at %.200s answers with status %d%s%.200s",
             bridge->options->url, call->status, why ? ": " : "", why ? why : "");
    write_fault(bridge, call->id, MCP_INTERNAL_ERROR, message);
}

static void keep_version(struct mcp_bridge *bridge, const json_t *answer)
{
    const char *version =
        json_string_value(json_object_get(json_object_get(answer, "result"), "protocolVersion"));
    if (version && strlen(version) < sizeof bridge->version)
        snprintf(bridge->version, sizeof bridge->version, "%s", version);
}

static void write_answer(struct mcp_bridge *bridge, const struct call *call)
{
    json_t *body = json_loadb(call->body.data ? call->body.data : "", call->body.size, JSON_ALLOW_NUL, NULL);
    if (json_is_object(body) && json_object_get(body, "jsonrpc")) {
        if (call->is_handshake)
            keep_version(bridge, body);
        write_line(bridge, body);
    } else {
        write_refusal(bridge, call, body);
    }
    json_decref(body);
}

static err_t take_head(void *context, const struct egress_head *head)
{
    struct call *call = context;
    call->status = head->status;
    return head->is_event_stream ? err_new(ERR_UNIMPLEMENTED, "the server answers with a stream of events")
                                 : err_ok();
}

static err_t take_bytes(void *context, const char *bytes, size_t size, bool *pause)
{
    struct call *call = context;
    *pause = false;
    return buffer_append(&call->body, bytes, size)
               ? err_ok()
               : err_new(ERR_RESOURCE_EXHAUSTED, "an answer of more than %d bytes", MCP_ANSWER_BYTES_MAX);
}

static void free_call(struct call *call)
{
    json_decref(call->id);
    buffer_free(&call->body);
    call->is_used = false;
}

static void take_end(void *context, err_t error, const struct egress_times *times)
{
    struct call *call = context;
    struct mcp_bridge *bridge = call->bridge;
    ASSERT(times);
    pthread_mutex_lock(&bridge->lock);
    if (call->is_cancelled)
        log_debug("mcp", "a call was cancelled");
    else if (call->id && error.code != ERR_OK)
        write_fault(bridge, call->id, MCP_INTERNAL_ERROR, error.message);
    else if (call->id)
        write_answer(bridge, call);
    else if (error.code != ERR_OK || call->status >= 300)
        log_warn("mcp", "a notification was not taken: status %d %s", call->status,
                 error.code == ERR_OK ? "" : error.message);
    free_call(call);
    pthread_mutex_unlock(&bridge->lock);
    event_count_bump(&bridge->ended);
}

static const struct egress_handler HANDLER = {take_head, take_bytes, take_end};

/* ---- Messages ---- */

/* What headers repeat of a message. */
struct outline {
    const char *version, *method, *name; /* NULL = not there */
};

static struct outline outline_of(const struct mcp_bridge *bridge, const json_t *message)
{
    const json_t *params = json_object_get(message, "params");
    const char *method = json_string_value(json_object_get(message, "method"));
    const char *version = json_string_value(
        json_object_get(json_object_get(params, "_meta"), "io.modelcontextprotocol/protocolVersion"));
    const char *key = strcmp(method, "resources/read") == 0                                     ? "uri"
                      : strcmp(method, "tools/call") == 0 || strcmp(method, "prompts/get") == 0 ? "name"
                                                                                                : NULL;
    if (version == NULL && bridge->version[0] != '\0')
        version = bridge->version;
    return (struct outline){version, method, key ? json_string_value(json_object_get(params, key)) : NULL};
}

static bool is_plain(const char *text)
{
    size_t size = strlen(text);
    for (size_t i = 0; i < size; i++) {
        if (text[i] < 0x20 || text[i] > 0x7e)
            return false;
    }
    return size == 0 || (text[0] != ' ' && text[size - 1] != ' ' && strncmp(text, "=?base64?", 9) != 0);
}

/* A header's value: what cannot stand there as it is stands in base64. False: it is too long. */
static bool write_header(char out[HEADER_BYTES], const char *header, const char *value)
{
    char coded[NAME_BYTES_MAX / 3 * 4 + 8];
    if (strlen(value) > NAME_BYTES_MAX)
        return false;
    if (is_plain(value))
        return snprintf(out, HEADER_BYTES, "%s: %s", header, value) < HEADER_BYTES;
    int n = EVP_EncodeBlock((unsigned char *)coded, (const unsigned char *)value, (int)strlen(value));
    return n > 0 && snprintf(out, HEADER_BYTES, "%s: =?base64?%s?=", header, coded) < HEADER_BYTES;
}

static err_t send_call(struct mcp_bridge *bridge, struct call *call, const struct outline *outline,
                       const char *body, size_t size)
{
    char texts[HEADERS_MAX][HEADER_BYTES];
    const char *headers[HEADERS_MAX];
    size_t n = 0;
    const char *const PAIRS[HEADERS_MAX][2] = {{"Accept", "application/json, text/event-stream"},
                                               {"MCP-Protocol-Version", outline->version},
                                               {"Mcp-Method", outline->method},
                                               {"Mcp-Name", outline->name},
                                               {"Authorization", bridge->options->api_key}};
    for (size_t i = 0; i < HEADERS_MAX; i++) {
        if (PAIRS[i][1] == NULL)
            continue;
        bool is_key = PAIRS[i][1] == bridge->options->api_key;
        bool fits =
            is_key ? snprintf(texts[n], HEADER_BYTES, "Authorization: Bearer %s", PAIRS[i][1]) < HEADER_BYTES
                   : write_header(texts[n], PAIRS[i][0], PAIRS[i][1]);
        if (!fits)
            return err_new(ERR_INVALID_ARGUMENT, "%s is too long for a header",
                           is_key ? "the key" : PAIRS[i][0]);
        headers[n] = texts[n];
        n++;
    }
    struct egress_call out = {.url = bridge->options->url,
                              .headers = headers,
                              .n_headers = n,
                              .body = body,
                              .body_bytes = size,
                              .connect_timeout_ms = CONNECT_TIMEOUT_MS};
    return egress_start(bridge->egress, &out, &HANDLER, call, &call->number);
}

/* NULL: all are used. */
static struct call *take_call(struct mcp_bridge *bridge, json_t *id, const char *method)
{
    for (size_t i = 0; i < MCP_CALLS_MAX; i++) {
        struct call *call = &bridge->calls[i];
        if (call->is_used)
            continue;
        *call = (struct call){.bridge = bridge,
                              .is_used = true,
                              .is_handshake = strcmp(method, "initialize") == 0,
                              .id = json_incref(id),
                              .body = {.limit_bytes = MCP_ANSWER_BYTES_MAX}};
        return call;
    }
    return NULL;
}

/* Started under the lock: its end waits until its number is known. */
static void pass_on(struct mcp_bridge *bridge, const json_t *message, json_t *id, const char *text,
                    size_t size)
{
    pthread_mutex_lock(&bridge->lock);
    struct outline outline = outline_of(bridge, message);
    struct call *call = take_call(bridge, id, outline.method);
    if (call == NULL) {
        write_fault(bridge, id, MCP_INTERNAL_ERROR, "64 calls are under way: ask again when one has ended");
    } else {
        err_t e = send_call(bridge, call, &outline, text, size);
        if (e.code != ERR_OK) {
            if (id)
                write_fault(bridge, id, MCP_INVALID_REQUEST, e.message);
            free_call(call);
        }
    }
    pthread_mutex_unlock(&bridge->lock);
}

static void cancel(struct mcp_bridge *bridge, const json_t *message)
{
    const json_t *id = json_object_get(json_object_get(message, "params"), "requestId");
    pthread_mutex_lock(&bridge->lock);
    for (size_t i = 0; i < MCP_CALLS_MAX; i++) {
        struct call *call = &bridge->calls[i];
        if (call->is_used && call->id && id && json_equal(call->id, id)) {
            call->is_cancelled = true;
            egress_cancel(bridge->egress, call->number);
        }
    }
    pthread_mutex_unlock(&bridge->lock);
}

/* A message of the server's own kind has an id that is a string or a whole number, or none. */
static void take_message(struct mcp_bridge *bridge, const char *text, size_t size)
{
    json_t *message = json_loadb(text, size, JSON_REJECT_DUPLICATES | JSON_ALLOW_NUL, NULL);
    json_t *id = json_object_get(message, "id");
    const char *method = json_string_value(json_object_get(message, "method"));
    bool has_answer = json_object_get(message, "result") || json_object_get(message, "error");
    if (message == NULL)
        refuse(bridge, NULL, MCP_PARSE_ERROR, "this line is no JSON");
    else if (id && !json_is_string(id) && !json_is_integer(id))
        refuse(bridge, NULL, MCP_INVALID_REQUEST, "id must be a string or a whole number");
    else if (method && (strlen(method) > MCP_METHOD_BYTES_MAX || !is_plain(method)))
        refuse(bridge, id, MCP_INVALID_REQUEST, "method must be a name");
    else if (method && strcmp(method, "notifications/cancelled") == 0)
        cancel(bridge, message);
    else if (method)
        pass_on(bridge, message, id, text, size);
    else if (!has_answer) /* the server asks nothing: an answer is to nobody */
        refuse(bridge, id, MCP_INVALID_REQUEST, "this is no message of JSON-RPC: it has no method");
    json_decref(message);
}

/* ---- Lines ---- */

struct line_state {
    struct buffer text;
    bool is_long;
};

static void end_line(struct mcp_bridge *bridge, struct line_state *line)
{
    while (line->text.size > 0 && strchr("\r\n\t ", line->text.data[line->text.size - 1]))
        line->text.data[--line->text.size] = '\0';
    if (line->is_long)
        refuse(bridge, NULL, MCP_PARSE_ERROR, "this line has more than 4 MiB");
    else if (line->text.size > 0)
        take_message(bridge, line->text.data, line->text.size);
    buffer_clear(&line->text);
    line->is_long = false;
}

static void take_chunk(struct mcp_bridge *bridge, struct line_state *line, const char *chunk, size_t size)
{
    for (const char *at = chunk, *end = chunk + size; at < end;) {
        const char *line_end = memchr(at, '\n', (size_t)(end - at));
        size_t n = (size_t)((line_end ? line_end : end) - at);
        if (!buffer_append(&line->text, at, n))
            line->is_long = true;
        at += line_end ? n + 1 : n;
        if (line_end)
            end_line(bridge, line);
    }
}

static err_t output_state(struct mcp_bridge *bridge)
{
    pthread_mutex_lock(&bridge->lock);
    err_t e = bridge->broken;
    pthread_mutex_unlock(&bridge->lock);
    return e;
}

static err_t read_all(struct mcp_bridge *bridge, char *chunk)
{
    struct line_state line = {.text = {.limit_bytes = MCP_LINE_BYTES_MAX}};
    err_t e = err_ok();
    for (;;) {
        ssize_t n = read(bridge->options->input, chunk, READ_BYTES);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            e = err_new(ERR_IO, "standard input cannot be read: %s", strerror(errno));
        if (n <= 0)
            break;
        take_chunk(bridge, &line, chunk, (size_t)n);
        e = output_state(bridge);
        if (e.code != ERR_OK)
            break;
    }
    if (e.code == ERR_OK)
        end_line(bridge, &line);
    buffer_free(&line.text);
    return e;
}

static void wait_for_calls(struct mcp_bridge *bridge)
{
    for (;;) {
        uint32_t seen = event_count_read(&bridge->ended);
        if (egress_active(bridge->egress) == 0 || output_state(bridge).code != ERR_OK)
            return;
        event_count_wait(&bridge->ended, seen, 100000000);
    }
}

err_t mcp_bridge_run(const struct mcp_bridge_options *options)
{
    struct mcp_bridge *bridge = mem_alloc(sizeof *bridge);
    char *chunk = mem_alloc(READ_BYTES);
    err_t e = err_new(ERR_RESOURCE_EXHAUSTED, "no memory to pass messages on");
    if (bridge && chunk) {
        *bridge = (struct mcp_bridge){.options = options, .broken = err_ok()};
        ASSERT(pthread_mutex_init(&bridge->lock, NULL) == 0);
        struct egress_options out = egress_options_default();
        out.ca_file = options->ca_file;
        out.user_agent = "bantam-mcp";
        e = egress_open(&out, &bridge->egress);
        if (e.code == ERR_OK) {
            e = read_all(bridge, chunk);
            if (e.code == ERR_OK)
                wait_for_calls(bridge);
            egress_close(bridge->egress);
            if (e.code == ERR_OK)
                e = bridge->broken;
        }
        pthread_mutex_destroy(&bridge->lock);
    }
    mem_free(chunk);
    mem_free(bridge);
    return e;
}
