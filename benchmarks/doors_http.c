/* The doors' bench over HTTP: completions, one connection a stream, server-sent events. */
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>
#include "base/alloc.h"
#include "base/buffer.h"
#include "base/clock.h"
#include "benchmarks/doors_internal.h"

enum { READ_BYTES = 32 << 10, READY_MAX = 64, REQUEST_BYTES_MAX = 64 << 10 };
static const char EVENT_START[] = "data: ", EVENT_END[] = "\n\n", HEAD_END[] = "\r\n\r\n",
                  TEXT_START[] = "\"text\":\"",
                  LENGTH_START[] = "\r\ncontent-length: ", STATUS_OK[] = "HTTP/1.1 200 ";

struct http_stream {
    int fd;
    struct doors_request *request;
    bool has_head;
    size_t body_bytes; /* of a whole answer */
    size_t size;
    char in[READ_BYTES];
    struct http_stream *next;
};

struct http_driver {
    struct doors_client *client;
    int epoll_fd;
    struct http_stream *streams; /* all, connected; those of whole answers are used again */
};

static err_t failed(const char *what)
{
    return err_new(ERR_IO, "%s: %s", what, strerror(errno));
}

static err_t open_http(struct doors_client *client, void **out)
{
    struct http_driver *driver = mem_alloc(sizeof *driver);
    if (!driver)
        return err_new(ERR_RESOURCE_EXHAUSTED, "out of memory");
    driver->client = client;
    driver->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    *out = driver;
    return driver->epoll_fd < 0 ? failed("epoll_create1") : err_ok();
}

static err_t connect_stream(struct http_driver *driver, struct http_stream **out)
{
    struct http_stream *stream = mem_alloc(sizeof *stream);
    if (!stream)
        return err_new(ERR_RESOURCE_EXHAUSTED, "out of memory for a connection");
    stream->next = driver->streams;
    driver->streams = stream;
    stream->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (stream->fd < 0)
        return failed("socket");
    const struct sockaddr_in address = {.sin_family = AF_INET,
                                        .sin_port = htons(driver->client->shared->http_port),
                                        .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    const int one = 1;
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = stream};
    if (connect(stream->fd, (const struct sockaddr *)&address, sizeof address) != 0 ||
        setsockopt(stream->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one) != 0 ||
        epoll_ctl(driver->epoll_fd, EPOLL_CTL_ADD, stream->fd, &event) != 0)
        return failed("connect");
    *out = stream;
    return err_ok();
}

static bool write_request(const struct doors_request *request, struct buffer *out)
{
    struct buffer body = {.limit_bytes = REQUEST_BYTES_MAX};
    bool good = buffer_append_text(&body, "{\"prompt\":[");
    for (uint32_t i = 0; good && i < request->client->options->input_len; i++)
        good = buffer_append_format(&body, i ? ",%u" : "%u", request->prompt_ids[i]);
    good = good && buffer_append_format(
                       &body, "],\"max_tokens\":%u,\"temperature\":0,\"ignore_eos\":true,\"stream\":%s}",
                       request->max_tokens, request->whole ? "false" : "true");
    good = good &&
           buffer_append_format(out,
                                "POST /v1/completions HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: "
                                "application/json\r\ncontent-length: %zu\r\n\r\n",
                                body.size) &&
           buffer_append(out, body.data, body.size);
    buffer_free(&body);
    return good;
}

static err_t start_http(void *context, struct doors_request *request)
{
    struct http_driver *driver = context;
    struct http_stream *stream = request->transport;
    if (!stream)
        TRY(connect_stream(driver, &stream));
    stream->request = request;
    stream->has_head = false;
    request->transport = stream;
    struct buffer bytes = {.limit_bytes = REQUEST_BYTES_MAX};
    err_t e = err_ok();
    if (!write_request(request, &bytes))
        e = err_new(ERR_RESOURCE_EXHAUSTED, "a request of more than %d bytes", REQUEST_BYTES_MAX);
    else if (send(stream->fd, bytes.data, bytes.size, MSG_NOSIGNAL) != (ssize_t)bytes.size)
        e = failed("send");
    buffer_free(&bytes);
    return e;
}

/* --- answers */

static void consume(struct http_stream *stream, size_t n)
{
    stream->size -= n;
    memmove(stream->in, stream->in + n, stream->size);
}

static const char *find(const char *from, const char *end, const char *what)
{
    return memmem(from, (size_t)(end - from), what, strlen(what));
}

/* False: the rest of the head is to come. */
static bool take_head(struct http_stream *stream, err_t *e)
{
    const char *end = find(stream->in, stream->in + stream->size, HEAD_END);
    if (!end)
        return false;
    size_t head_bytes = (size_t)(end - stream->in) + strlen(HEAD_END);
    if (head_bytes < strlen(STATUS_OK) || memcmp(stream->in, STATUS_OK, strlen(STATUS_OK)) != 0)
        *e = err_new(ERR_UNAVAILABLE, "the server answered %.300s", stream->in);
    const char *length = find(stream->in, end, LENGTH_START);
    stream->body_bytes = length ? strtoul(length + strlen(LENGTH_START), NULL, 10) : 0;
    stream->has_head = true;
    consume(stream, head_bytes);
    return true;
}

static void take_text(struct http_stream *stream, const char *from, const char *end, int64_t now_ns)
{
    const char *text = find(from, end, TEXT_START);
    if (!text)
        return;
    text += strlen(TEXT_START);
    const char *quote = memchr(text, '"', (size_t)(end - text));
    if (quote)
        doors_client_text(stream->request, text, (size_t)(quote - text), now_ns);
}

/* The lines about chunks' lengths stand between events. */
static void take_events(struct http_stream *stream, int64_t now_ns, err_t *e)
{
    const char *at = stream->in, *end = stream->in + stream->size;
    for (;;) {
        const char *event = find(at, end, EVENT_START);
        const char *event_end = event ? find(event, end, EVENT_END) : NULL;
        if (!event_end)
            break;
        if (find(event, event_end, "\"error\""))
            *e = err_new(ERR_UNAVAILABLE, "the server sent %.300s", event);
        take_text(stream, event, event_end, now_ns);
        at = event_end + strlen(EVENT_END);
    }
    consume(stream, (size_t)(at - stream->in));
}

static void take_input(struct http_stream *stream, int64_t now_ns, err_t *e)
{
    if (!stream->has_head && !take_head(stream, e))
        return;
    if (e->code != ERR_OK)
        return;
    if (!stream->request->whole) {
        take_events(stream, now_ns, e);
    } else if (stream->size >= stream->body_bytes) {
        take_text(stream, stream->in, stream->in + stream->body_bytes, now_ns);
        consume(stream, stream->body_bytes);
        doors_client_done(stream->request, e);
    }
}

static void read_stream(struct http_stream *stream)
{
    err_t e = err_ok();
    ssize_t n = recv(stream->fd, stream->in + stream->size, READ_BYTES - 1 - stream->size, MSG_DONTWAIT);
    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    if (n <= 0) {
        e = n < 0 ? failed("recv") : err_new(ERR_UNAVAILABLE, "the server closed a connection");
    } else {
        stream->size += (size_t)n;
        stream->in[stream->size] = '\0';
        take_input(stream, clock_now_ns(clock_monotonic()), &e);
    }
    if (e.code != ERR_OK)
        doors_client_done(stream->request, &e);
}

static err_t poll_http(void *context, int64_t timeout_ns)
{
    struct http_driver *driver = context;
    struct epoll_event events[READY_MAX];
    const struct timespec timeout = {.tv_sec = timeout_ns / 1000000000, .tv_nsec = timeout_ns % 1000000000};
    int n = epoll_pwait2(driver->epoll_fd, events, READY_MAX, &timeout, NULL);
    if (n < 0 && errno != EINTR)
        return failed("epoll_pwait2");
    for (int i = 0; i < n; i++)
        read_stream(events[i].data.ptr);
    return err_ok();
}

static void close_http(void *context)
{
    struct http_driver *driver = context;
    while (driver->streams) {
        struct http_stream *stream = driver->streams;
        driver->streams = stream->next;
        if (stream->request)
            stream->request->transport = NULL;
        if (stream->fd >= 0)
            (void)close(stream->fd);
        mem_free(stream);
    }
    if (driver->epoll_fd >= 0)
        (void)close(driver->epoll_fd);
    mem_free(driver);
}

const struct doors_driver doors_driver_http = {open_http, start_http, poll_http, close_http};
