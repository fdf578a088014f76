/* The router's bench over HTTP: chat completions, as many connections as are needed at once. */
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>
#include "base/alloc.h"
#include "base/clock.h"
#include "benchmarks/router_load.h"

enum { READ_BYTES = 64 << 10, READY_MAX = 256, REQUEST_BYTES_MAX = 4 << 10, ANSWER_BYTES_MAX = 64 << 20 };

struct link {
    struct http_driver *driver;
    struct link *next_idle, *next, **back;
    struct router_request *request; /* NULL: idle */
    struct buffer in;
    int fd;
    bool has_head, is_chunked, was_used; /* used: for an answer before this one */
    size_t body_bytes;                   /* of an answer that is not chunked */
};

struct http_driver {
    const struct router_bench_options *options;
    uint16_t port;
    int epoll_fd;
    struct link *idle, *all;
};

static int64_t now(void)
{
    return clock_now_ns(clock_monotonic());
}

static err_t failed(const char *what)
{
    return err_new(ERR_UNAVAILABLE, "%s: %s", what, strerror(errno));
}

static err_t open_http(const struct router_bench_options *options, const struct router_target *target,
                       void **out)
{
    struct http_driver *driver = mem_alloc(sizeof *driver);
    if (!driver)
        return err_new(ERR_RESOURCE_EXHAUSTED, "out of memory");
    *driver = (struct http_driver){
        .options = options, .port = target->port, .epoll_fd = epoll_create1(EPOLL_CLOEXEC)};
    *out = driver;
    return driver->epoll_fd < 0 ? failed("epoll_create1") : err_ok();
}

static void drop_link(struct link *link)
{
    *link->back = link->next;
    if (link->next)
        link->next->back = link->back;
    (void)close(link->fd);
    buffer_free(&link->in);
    mem_free(link);
}

static err_t connect_link(struct http_driver *driver, struct link **out)
{
    struct link *link = mem_alloc(sizeof *link);
    if (!link)
        return err_new(ERR_RESOURCE_EXHAUSTED, "out of memory for a connection");
    *link = (struct link){.driver = driver,
                          .fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0),
                          .in.limit_bytes = ANSWER_BYTES_MAX,
                          .next = driver->all,
                          .back = &driver->all};
    if (driver->all)
        driver->all->back = &link->next;
    driver->all = link;
    const struct sockaddr_in address = {
        .sin_family = AF_INET, .sin_port = htons(driver->port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    const int one = 1;
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = link};
    if (link->fd < 0 || connect(link->fd, (const struct sockaddr *)&address, sizeof address) != 0 ||
        setsockopt(link->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one) != 0 ||
        epoll_ctl(driver->epoll_fd, EPOLL_CTL_ADD, link->fd, &event) != 0) {
        err_t e = failed("connect");
        drop_link(link);
        return e;
    }
    *out = link;
    return err_ok();
}

static err_t send_request(struct link *link, struct router_request *request)
{
    const struct router_bench_options *options = link->driver->options;
    char prompt[200], body[REQUEST_BYTES_MAX / 2], text[REQUEST_BYTES_MAX];
    (void)router_prompt_write(request, prompt, sizeof prompt);
    int body_bytes = snprintf(
        body, sizeof body,
        "{\"model\":\"%.256s\",\"messages\":[{\"role\":\"user\",\"content\":\"%s\"}],\"max_tokens\":%u%s}",
        options->model, prompt, request->n_tokens, request->is_stream ? ",\"stream\":true" : "");
    int size =
        snprintf(text, sizeof text,
                 "POST /v1/chat/completions HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: application/json\r\n"
                 "%s%.256s%scontent-length: %d\r\n\r\n%s",
                 options->api_key ? "authorization: Bearer " : "", options->api_key ? options->api_key : "",
                 options->api_key ? "\r\n" : "", body_bytes, body);
    link->request = request;
    link->has_head = link->is_chunked = false;
    buffer_clear(&link->in);
    request->transport = link;
    if (send(link->fd, text, (size_t)size, MSG_NOSIGNAL) == size)
        return err_ok();
    link->request = NULL;
    return failed("send");
}

static err_t start_http(void *context, struct router_request *request)
{
    struct http_driver *driver = context;
    while (driver->idle) { /* one that the server has closed meanwhile is passed over */
        struct link *link = driver->idle;
        driver->idle = link->next_idle;
        if (send_request(link, request).code == ERR_OK)
            return err_ok();
        drop_link(link);
    }
    struct link *link = NULL;
    TRY(connect_link(driver, &link));
    return send_request(link, request);
}

/* --- answers */

static void finish(struct link *link, const err_t *error)
{
    struct router_request *request = link->request;
    link->request = NULL;
    link->was_used = true;
    if (error->code == ERR_OK) {
        link->next_idle = link->driver->idle;
        link->driver->idle = link;
    } else {
        drop_link(link);
    }
    router_load_done(request, error, now());
}

static void consume(struct buffer *in, size_t n)
{
    memmove(in->data, in->data + n, in->size - n + 1);
    in->size -= n;
}

/* False: more of it is to come, or the answer is over. */
static bool take_head(struct link *link)
{
    static const char END[] = "\r\n\r\n",
                      LENGTH[] = "\r\ncontent-length:", CHUNKED[] = "\r\ntransfer-encoding: chunked";
    const char *end = strstr(link->in.data, END);
    if (!end)
        return false;
    size_t head_bytes = (size_t)(end - link->in.data) + sizeof END - 1;
    link->in.data[head_bytes - 2] = '\0';
    const char *length = strcasestr(link->in.data, LENGTH);
    link->has_head = true;
    link->is_chunked = strcasestr(link->in.data, CHUNKED) != NULL;
    link->body_bytes = length ? strtoul(length + sizeof LENGTH - 1, NULL, 10) : 0;
    if (strncmp(link->in.data, "HTTP/1.1 200", 12) != 0) {
        err_t e = err_new(ERR_UNAVAILABLE, "%.40s: %.150s", link->in.data, link->in.data + head_bytes);
        finish(link, &e);
        return false;
    }
    consume(&link->in, head_bytes);
    return true;
}

/* Whole events are looked at and dropped. */
static void take_stream(struct link *link, int64_t now_ns)
{
    static const char CONTENT[] = "\"content\":\"", LAST[] = "\r\n0\r\n\r\n";
    struct buffer *in = &link->in;
    err_t e = err_ok();
    const char *content = in->data;
    while ((content = strstr(content, CONTENT)) != NULL) {
        content += sizeof CONTENT - 1;
        if (*content != '"' && *content != '\0') {
            router_load_chunk(link->request, now_ns);
            break;
        }
    }
    bool is_over = in->size >= sizeof LAST - 1 &&
                   memcmp(in->data + in->size - sizeof LAST + 1, LAST, sizeof LAST - 1) == 0;
    if (strstr(in->data, "\"error\":")) {
        e = err_new(ERR_UNAVAILABLE, "%.180s", in->data);
        finish(link, &e);
    } else if (is_over) {
        if (!strstr(in->data, "[DONE]"))
            e = err_new(ERR_DATA_LOSS, "a stream ended without [DONE]: %.120s", in->data);
        finish(link, &e);
    } else {
        const char *last = NULL;
        for (const char *at = in->data; (at = strstr(at, "\n\n")) != NULL; at += 2)
            last = at;
        if (last && !strstr(last, "[DONE]") && !strstr(in->data, "[DONE]"))
            consume(in, (size_t)(last - in->data));
    }
}

static void take_input(struct link *link, int64_t now_ns)
{
    static const char LAST[] = "\r\n0\r\n\r\n";
    if (!link->has_head && !take_head(link))
        return;
    if (link->request->is_stream) {
        take_stream(link, now_ns);
        return;
    }
    const struct buffer *in = &link->in;
    bool is_over = link->is_chunked
                       ? in->size >= sizeof LAST - 1 &&
                             memcmp(in->data + in->size - sizeof LAST + 1, LAST, sizeof LAST - 1) == 0
                       : in->size >= link->body_bytes;
    err_t e = err_ok();
    if (is_over && !strstr(in->data, "\"choices\""))
        e = err_new(ERR_DATA_LOSS, "no answer: %.150s", in->data);
    if (is_over)
        finish(link, &e);
}

static void read_link(struct link *link)
{
    static char bytes[READ_BYTES];
    ssize_t n = recv(link->fd, bytes, sizeof bytes, MSG_DONTWAIT);
    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    if (n > 0 && link->request && buffer_append(&link->in, bytes, (size_t)n)) {
        take_input(link, now());
        return;
    }
    err_t e = n < 0 ? failed("recv") : err_new(ERR_UNAVAILABLE, "the server closed a connection");
    if (link->request) {
        finish(link, &e);
        return;
    }
    for (struct link **at = &link->driver->idle; *at; at = &(*at)->next_idle)
        if (*at == link) {
            *at = link->next_idle;
            break;
        }
    drop_link(link);
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
        read_link(events[i].data.ptr);
    return err_ok();
}

static void close_http(void *context)
{
    struct http_driver *driver = context;
    while (driver->all)
        drop_link(driver->all);
    if (driver->epoll_fd >= 0)
        (void)close(driver->epoll_fd);
    mem_free(driver);
}

const struct router_driver router_driver_http = {open_http, start_http, poll_http, close_http};
