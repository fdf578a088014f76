#include "router/mcp/mcp_bridge.h"
#include <pthread.h>
#include <string.h>
#include "base/alloc.h"
#include "base/assert.h"
#include "router/mcp/mcp_message.h"
#include "router/mcp/mcp_server.h"
#include "router/providers/egress.h"
#include "router/providers/json_text.h"

enum { HEADERS_MAX = 8, HEADER_BYTES_MAX = 4096 };

struct bridge {
    const struct mcp_bridge_options *options;
    struct egress *egress;
    pthread_mutex_t lock; /* of what follows, and of `out` */
    pthread_cond_t changed;
    uint32_t n_calls;
    bool is_broken;     /* `out` takes no more */
    struct line *lines; /* that were sent and have not ended */
};

/* A line under way. */
struct line {
    struct bridge *bridge;
    struct line *next;
    uint64_t number;   /* of egress */
    bool is_cancelled; /* by the agent, who wants no answer; under the bridge's lock */
    struct mcp_message message;
    int status;
    struct buffer answer;
};

/* With its line break; answers of a server have none inside. */
static void write_line(struct bridge *bridge, const struct buffer *text)
{
    pthread_mutex_lock(&bridge->lock);
    FILE *out = bridge->options->out;
    bool good =
        fwrite(text->data, 1, text->size, out) == text->size && fputc('\n', out) != EOF && fflush(out) == 0;
    bridge->is_broken = bridge->is_broken || !good;
    pthread_mutex_unlock(&bridge->lock);
}

static void write_fault(struct bridge *bridge, const struct mcp_message *message, int code, const char *why)
{
    struct buffer text = {.limit_bytes = 64 << 10};
    struct mcp_fault fault = {0};
    (void)mcp_fault_set(&fault, code, "%s", why);
    if (mcp_write_fault(message, &fault, &text))
        write_line(bridge, &text);
    buffer_free(&text);
}

static void free_line(struct line *line)
{
    mcp_message_free(&line->message);
    buffer_free(&line->answer);
    mem_free(line);
}

static err_t take_head(void *context, const struct egress_head *head)
{
    ((struct line *)context)->status = head->status;
    return err_ok();
}

static err_t take_bytes(void *context, const char *bytes, size_t size, bool *pause)
{
    struct line *line = context;
    *pause = false;
    return buffer_append(&line->answer, bytes, size)
               ? err_ok()
               : err_new(ERR_RESOURCE_EXHAUSTED, "the answer is too large, or there is no memory for it");
}

/* What the router said, if it is a message; else why there is none. */
static void pass_on(struct line *line, const err_t *error)
{
    json_error_t ignored;
    json_t *answer = NULL;
    if (error->code == ERR_OK && line->answer.size > 0)
        answer = json_loadb(line->answer.data, line->answer.size, 0, &ignored);
    if (answer && !json_is_string(json_object_get(answer, "jsonrpc"))) {
        json_decref(answer);
        answer = NULL;
    }
    if (answer) {
        /* On one line, whatever stood between. */
        struct buffer text = {.limit_bytes = MCP_ANSWER_BYTES_MAX};
        if (json_text_append(&text, answer).code == ERR_OK)
            write_line(line->bridge, &text);
        buffer_free(&text);
        json_decref(answer);
    } else if (line->message.id) {
        char why[2 * MCP_FAULT_BYTES_MAX];
        if (error->code != ERR_OK)
            (void)snprintf(why, sizeof why, "the router at %.256s: %s", line->bridge->options->url,
                           error->message);
        else
            (void)snprintf(why, sizeof why, "the router at %s answered with HTTP status %d",
                           line->bridge->options->url, line->status);
        write_fault(line->bridge, &line->message, MCP_INTERNAL_ERROR, why);
    }
}

/* Nobody finds it any more. Whether its answer is still wanted. */
static bool take_out(struct line *line)
{
    struct bridge *bridge = line->bridge;
    pthread_mutex_lock(&bridge->lock);
    struct line **place = &bridge->lines;
    while (*place != line)
        place = &(*place)->next;
    *place = line->next;
    bool is_wanted = !line->is_cancelled;
    pthread_mutex_unlock(&bridge->lock);
    return is_wanted;
}

/* Closes the connection of the call that params.requestId names: whoever answers it stops. */
static void cancel(struct bridge *bridge, const struct mcp_message *message)
{
    const json_t *id = json_object_get(message->params, "requestId");
    pthread_mutex_lock(&bridge->lock);
    for (struct line *line = bridge->lines; line && id; line = line->next) {
        if (!line->message.id || !json_equal(line->message.id, id))
            continue;
        line->is_cancelled = true;
        egress_cancel(bridge->egress, line->number);
    }
    pthread_mutex_unlock(&bridge->lock);
}

static void leave(struct bridge *bridge)
{
    pthread_mutex_lock(&bridge->lock);
    bridge->n_calls--;
    pthread_cond_broadcast(&bridge->changed);
    pthread_mutex_unlock(&bridge->lock);
}

static void end_line(void *context, err_t error, const struct egress_times *times)
{
    (void)times;
    struct line *line = context;
    struct bridge *bridge = line->bridge;
    if (take_out(line))
        pass_on(line, &error);
    free_line(line);
    leave(bridge);
}

static const struct egress_handler handler = {take_head, take_bytes, end_line};

/* What the body says again in headers, and the key. */
struct head {
    char lines[HEADERS_MAX][HEADER_BYTES_MAX];
    const char *headers[HEADERS_MAX];
    size_t n;
};

static void add_header(struct head *head, const char *name, const char *value)
{
    ASSERT(head->n < HEADERS_MAX);
    (void)snprintf(head->lines[head->n], HEADER_BYTES_MAX, "%s: %s", name, value);
    head->headers[head->n] = head->lines[head->n];
    head->n++;
}

static err_t send(struct line *line, const char *bytes, size_t size)
{
    const struct mcp_bridge_options *options = line->bridge->options;
    struct head *head = mem_alloc(sizeof *head);
    if (!head)
        return err_new(ERR_RESOURCE_EXHAUSTED, "no memory for the message");
    add_header(head, "Accept", "application/json, text/event-stream");
    if (line->message.is_stateless) {
        add_header(head, "MCP-Protocol-Version", MCP_VERSION_STATELESS);
        add_header(head, "Mcp-Method", line->message.method);
        const char *name = mcp_message_name(&line->message);
        struct buffer written = {.limit_bytes = HEADER_BYTES_MAX - 16};
        if (name && mcp_write_name(name, &written))
            add_header(head, "Mcp-Name", written.data);
        buffer_free(&written);
    }
    if (options->key) {
        char bearer[HEADER_BYTES_MAX - 32];
        (void)snprintf(bearer, sizeof bearer, "Bearer %s", options->key);
        add_header(head, "Authorization", bearer);
    }
    const struct egress_call call = {.url = options->url,
                                     .headers = head->headers,
                                     .n_headers = head->n,
                                     .body = bytes,
                                     .body_bytes = size,
                                     .connect_timeout_ms = 10000,
                                     .total_timeout_ms = options->timeout_ms};
    /* Under the lock, for which its end waits until it can be found. */
    pthread_mutex_lock(&line->bridge->lock);
    err_t e = egress_start(line->bridge->egress, &call, &handler, line, &line->number);
    if (e.code == ERR_OK) {
        line->next = line->bridge->lines;
        line->bridge->lines = line;
    }
    pthread_mutex_unlock(&line->bridge->lock);
    mem_free(head);
    return e;
}

static void enter(struct bridge *bridge)
{
    pthread_mutex_lock(&bridge->lock);
    while (bridge->n_calls >= MCP_BRIDGE_CALLS_MAX)
        pthread_cond_wait(&bridge->changed, &bridge->lock);
    bridge->n_calls++;
    pthread_mutex_unlock(&bridge->lock);
}

static void carry(struct bridge *bridge, const char *bytes, size_t size)
{
    struct mcp_fault fault = {0};
    struct line *line = mem_alloc(sizeof *line);
    if (!line) {
        write_fault(bridge, &(struct mcp_message){0}, MCP_INTERNAL_ERROR, "no memory for the message");
        return;
    }
    line->bridge = bridge;
    line->answer.limit_bytes = MCP_ANSWER_BYTES_MAX;
    enter(bridge);
    bool good = mcp_message_read(bytes, size, NULL, &line->message, &fault);
    bool cancels = good && strcmp(line->message.method, "notifications/cancelled") == 0;
    err_t e = good && !cancels ? send(line, bytes, size) : err_ok();
    if (good && !cancels && e.code == ERR_OK)
        return;
    if (cancels)
        cancel(bridge, &line->message);
    if (!good && (line->message.id || !line->message.method))
        write_fault(bridge, &line->message, fault.code, fault.message);
    else if (line->message.id && e.code != ERR_OK)
        write_fault(bridge, &line->message, MCP_INTERNAL_ERROR, e.message);
    mcp_fault_free(&fault);
    free_line(line);
    leave(bridge);
}

/* The next line without its break. False at the end. What is longer than a message may be is read past. */
static bool read_line(FILE *in, struct buffer *line, bool *too_long)
{
    int c;
    buffer_clear(line);
    *too_long = false;
    while ((c = getc_unlocked(in)) != EOF && c != '\n') {
        char byte = (char)c;
        *too_long = *too_long || !buffer_append(line, &byte, 1);
    }
    return c != EOF || line->size > 0 || *too_long;
}

static bool is_blank(const struct buffer *line)
{
    for (size_t i = 0; i < line->size; i++)
        if (line->data[i] != ' ' && line->data[i] != '\t' && line->data[i] != '\r')
            return false;
    return true;
}

static bool is_broken(struct bridge *bridge)
{
    pthread_mutex_lock(&bridge->lock);
    bool is = bridge->is_broken;
    pthread_mutex_unlock(&bridge->lock);
    return is;
}

static void read_all(struct bridge *bridge)
{
    struct buffer line = {.limit_bytes = MCP_LINE_BYTES_MAX};
    bool too_long;
    while (!is_broken(bridge) && read_line(bridge->options->in, &line, &too_long)) {
        if (too_long)
            write_fault(bridge, &(struct mcp_message){0}, MCP_INVALID_REQUEST,
                        "the message is longer than 4 MiB");
        else if (!is_blank(&line))
            carry(bridge, line.data, line.size);
    }
    buffer_free(&line);
    pthread_mutex_lock(&bridge->lock);
    while (bridge->n_calls > 0)
        pthread_cond_wait(&bridge->changed, &bridge->lock);
    pthread_mutex_unlock(&bridge->lock);
}

err_t mcp_bridge_run(const struct mcp_bridge_options *options)
{
    struct bridge bridge = {
        .options = options, .lock = PTHREAD_MUTEX_INITIALIZER, .changed = PTHREAD_COND_INITIALIZER};
    if (options->key && strlen(options->key) > HEADER_BYTES_MAX - 64)
        return err_new(ERR_INVALID_ARGUMENT, "the key is longer than %d bytes", HEADER_BYTES_MAX - 64);
    struct egress_options egress = egress_options_default();
    egress.max_calls = MCP_BRIDGE_CALLS_MAX;
    egress.ca_file = options->ca_file;
    egress.user_agent = "bantam-mcp";
    TRY(egress_open(&egress, &bridge.egress));
    read_all(&bridge);
    egress_close(bridge.egress);
    return bridge.is_broken ? err_new(ERR_IO, "the agent takes no more") : err_ok();
}
