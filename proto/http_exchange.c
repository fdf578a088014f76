/* Answers: status line, headers, and bodies whole or in chunks. */
#include <stdio.h>
#include <string.h>
#include <time.h>
#include "base/alloc.h"
#include "base/assert.h"
#include "base/clock.h"
#include "proto/http_server_internal.h"

static const char *reason_of(int status)
{
    static const struct {
        int status;
        const char *reason;
    } reasons[] = {
        {200, "OK"},
        {202, "Accepted"},
        {400, "Bad Request"},
        {401, "Unauthorized"},
        {403, "Forbidden"},
        {404, "Not Found"},
        {405, "Method Not Allowed"},
        {408, "Request Timeout"},
        {413, "Content Too Large"},
        {414, "URI Too Long"},
        {415, "Unsupported Media Type"},
        {417, "Expectation Failed"},
        {429, "Too Many Requests"},
        {431, "Request Header Fields Too Large"},
        {499, "Client Closed Request"},
        {500, "Internal Server Error"},
        {501, "Not Implemented"},
        {503, "Service Unavailable"},
        {504, "Gateway Timeout"},
        {505, "HTTP Version Not Supported"},
    };
    for (size_t i = 0; i < sizeof reasons / sizeof reasons[0]; i++)
        if (reasons[i].status == status)
            return reasons[i].reason;
    return "Unknown";
}

const struct http_head *http_exchange_head(const struct http_exchange *exchange)
{
    return &exchange->head;
}

const char *http_exchange_body(const struct http_exchange *exchange, size_t *size_bytes)
{
    *size_bytes = exchange->body.size;
    return exchange->body.data ? exchange->body.data : "";
}

void http_exchange_drop_body(struct http_exchange *exchange)
{
    buffer_free(&exchange->body);
    atomic_fetch_sub(&exchange->server->pending_bytes, exchange->reserved_bytes);
    exchange->reserved_bytes = 0;
}

struct caller *http_exchange_caller(struct http_exchange *exchange)
{
    return &exchange->caller;
}

const struct peer_names *http_exchange_peer(const struct http_exchange *exchange)
{
    return http_peer_names(exchange->peer);
}

void *http_exchange_user(const struct http_exchange *exchange)
{
    return exchange->user;
}

void http_exchange_set_user(struct http_exchange *exchange, void *user)
{
    exchange->user = user;
}

bool http_exchange_begun(const struct http_exchange *exchange)
{
    return exchange->begun;
}

bool http_exchange_complete(const struct http_exchange *exchange)
{
    return exchange->complete;
}

void http_exchange_close_after(struct http_exchange *exchange)
{
    exchange->close_after = true;
}

bool http_exchange_can_send(const struct http_exchange *exchange)
{
    size_t waiting = evbuffer_get_length(exchange->out);
    if (exchange->stream)
        waiting += evbuffer_get_length(bufferevent_get_output(exchange->stream));
    return waiting < exchange->server->options.max_stream_bytes;
}

void http_exchange_offload(struct http_exchange *exchange,
                           void (*work)(void *context, struct http_exchange *exchange))
{
    ASSERT(!exchange->work && !exchange->complete);
    exchange->work = work;
}

void http_exchange_header(struct http_exchange *exchange, const char *name, const char *value)
{
    for (const char *c = value; *c; c++)
        if ((unsigned char)*c < 0x20 || *c == 0x7f)
            return;
    exchange->headers.limit_bytes = HTTP_HEADER_LINES_MAX;
    struct buffer *headers = &exchange->headers;
    if (!buffer_append_text(headers, name) || !buffer_append(headers, ": ", 2) ||
        !buffer_append_text(headers, value) || !buffer_append(headers, "\r\n", 2))
        exchange->failed = true;
}

static void add(struct http_exchange *exchange, const void *data, size_t size_bytes)
{
    if (size_bytes > 0 && evbuffer_add(exchange->out, data, size_bytes) != 0)
        exchange->failed = true;
}

/* The time as HTTP writes it: the same text for a second. */
static const char *date_now(void)
{
    static _Thread_local struct {
        time_t second;
        char text[64];
    } last;
    time_t now = time(NULL);
    if (now != last.second || last.text[0] == '\0') {
        struct tm parts;
        size_t date_bytes =
            strftime(last.text, sizeof last.text, "%a, %d %b %Y %H:%M:%S GMT", gmtime_r(&now, &parts));
        ASSERT(date_bytes > 0);
        last.second = now;
    }
    return last.text;
}

/* Everything up to the line about the length. */
static void add_head(struct http_exchange *exchange, int status, const char *content_type)
{
    ASSERT(!exchange->begun);
    exchange->begun = true;
    if (exchange->server->options.metrics)
        metric_add(&exchange->server->options.metrics->answers[metric_answer_http(status)], 1);
    bool is_old = exchange->old_at_ns != INT64_MAX && clock_now_ns(clock_monotonic()) >= exchange->old_at_ns;
    bool keep = !is_old && exchange->head.keep_alive && !exchange->close_after &&
                !atomic_load(&exchange->server->draining) && !atomic_load(&exchange->server->stopping);
    exchange->close_after = !keep;
    const char *connection = !keep                               ? "connection: close\r\n"
                             : exchange->head.minor_version == 0 ? "connection: keep-alive\r\n"
                                                                 : "";
    if (evbuffer_add_printf(exchange->out, "HTTP/1.1 %d %s\r\ndate: %s\r\n%s", status, reason_of(status),
                            date_now(), connection) < 0)
        exchange->failed = true;
    if (content_type && evbuffer_add_printf(exchange->out, "content-type: %s\r\n", content_type) < 0)
        exchange->failed = true;
    add(exchange, exchange->headers.data, exchange->headers.size);
}

static void respond(struct http_exchange *exchange, int status, const char *content_type, const void *body,
                    size_t body_bytes)
{
    add_head(exchange, status, content_type);
    if (evbuffer_add_printf(exchange->out, "content-length: %zu\r\n\r\n", body_bytes) < 0)
        exchange->failed = true;
    if (!http_text_is(exchange->head.method, "HEAD"))
        add(exchange, body, body_bytes);
    exchange->complete = true;
}

void http_exchange_respond_fault(struct http_exchange *exchange, int status, const char *why)
{
    struct buffer body = {.limit_bytes = HTTP_HEADER_LINES_MAX};
    exchange->server->options.describe_fault(status, why, &body);
    respond(exchange, status, "application/json", body.data, body.size);
    buffer_free(&body);
}

void http_exchange_respond(struct http_exchange *exchange, int status, const char *content_type,
                           const void *body, size_t body_bytes)
{
    struct http_server *server = exchange->server;
    if (body_bytes > HTTP_READ_BYTES &&
        atomic_load(&server->output_bytes) + body_bytes > server->options.max_output_bytes) {
        http_exchange_header(exchange, "retry-after", "1");
        http_exchange_respond_fault(exchange, 503, "too many answers wait for clients that read slowly");
        return;
    }
    respond(exchange, status, content_type, body, body_bytes);
}

void http_exchange_begin(struct http_exchange *exchange, int status, const char *content_type)
{
    exchange->is_chunked = exchange->head.minor_version > 0;
    if (!exchange->is_chunked)
        exchange->close_after = true;
    add_head(exchange, status, content_type);
    const char *rest = exchange->is_chunked ? "transfer-encoding: chunked\r\n\r\n" : "\r\n";
    add(exchange, rest, strlen(rest));
}

void http_exchange_send(struct http_exchange *exchange, const void *data, size_t size_bytes)
{
    ASSERT(exchange->begun && !exchange->complete);
    if (size_bytes == 0)
        return; /* an empty chunk is the end */
    if (exchange->is_chunked && evbuffer_add_printf(exchange->out, "%zx\r\n", size_bytes) < 0)
        exchange->failed = true;
    add(exchange, data, size_bytes);
    if (exchange->is_chunked)
        add(exchange, "\r\n", 2);
}

void http_exchange_end(struct http_exchange *exchange)
{
    ASSERT(exchange->begun && !exchange->complete);
    if (exchange->is_chunked)
        add(exchange, "0\r\n\r\n", 5);
    exchange->complete = true;
}
