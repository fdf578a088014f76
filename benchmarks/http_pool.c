#include "benchmarks/http_pool.h"

#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>
#include "base/alloc.h"
#include "base/assert.h"
#include "base/buffer.h"
#include "base/clock.h"

enum {
    READ_BYTES = 64 << 10,
    READY_MAX = 256,
    REQUEST_BYTES_MAX = 64 << 20,
    PENDING_BYTES_MAX = READ_BYTES + (64 << 10), /* a head, or a chunk's line, that is not complete */
    REFUSAL_BYTES_MAX = 300,
};

enum link_state {
    IN_HEAD,
    IN_BODY,
    IN_BODY_TO_CLOSE,
    IN_CHUNK_LINE,
    IN_CHUNK,
    IN_CHUNK_END,
    IN_TRAILER,
    OVER
};

struct http_link {
    struct http_pool *pool;
    struct http_link *next_idle, *next, **back;
    void *exchange; /* NULL: idle */
    struct buffer sent, pending, refusal;
    int fd;
    enum link_state state;
    size_t left; /* bytes of the body, or of the chunk */
    bool was_used, must_close;
};

struct http_pool {
    const struct http_pool_handler *handler;
    struct addrinfo *address;
    int epoll_fd;
    struct http_link *idle, *all;
};

static err_t failed(const char *what)
{
    return err_new(ERR_UNAVAILABLE, "%s: %s", what, strerror(errno));
}

err_t http_pool_open(const char *address, const struct http_pool_handler *handler, struct http_pool **out)
{
    *out = NULL;
    char host[HTTP_POOL_ADDRESS_BYTES_MAX + 1];
    const char *colon = strrchr(address, ':');
    if (!colon || colon == address || !colon[1] || strlen(address) >= sizeof host)
        return err_new(ERR_INVALID_ARGUMENT, "\"%s\" is no HOST:PORT", address);
    memcpy(host, address, (size_t)(colon - address));
    host[colon - address] = '\0';
    struct http_pool *pool = mem_alloc(sizeof *pool);
    if (!pool)
        return err_new(ERR_RESOURCE_EXHAUSTED, "out of memory");
    *pool = (struct http_pool){.handler = handler, .epoll_fd = epoll_create1(EPOLL_CLOEXEC)};
    const struct addrinfo wanted = {.ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM};
    int failure = getaddrinfo(host, colon + 1, &wanted, &pool->address);
    err_t e = failure != 0         ? err_new(ERR_UNAVAILABLE, "%s: %s", address, gai_strerror(failure))
              : pool->epoll_fd < 0 ? failed("epoll_create1")
                                   : err_ok();
    if (e.code != ERR_OK) {
        http_pool_close(pool);
        return e;
    }
    *out = pool;
    return err_ok();
}

static void drop_link(struct http_link *link)
{
    *link->back = link->next;
    if (link->next)
        link->next->back = link->back;
    if (link->fd >= 0)
        (void)close(link->fd);
    buffer_free(&link->sent);
    buffer_free(&link->pending);
    buffer_free(&link->refusal);
    mem_free(link);
}

void http_pool_close(struct http_pool *pool)
{
    if (!pool)
        return;
    while (pool->all)
        drop_link(pool->all);
    if (pool->address)
        freeaddrinfo(pool->address);
    if (pool->epoll_fd >= 0)
        (void)close(pool->epoll_fd);
    mem_free(pool);
}

static err_t connect_link(struct http_pool *pool, struct http_link **out)
{
    const struct addrinfo *address = pool->address;
    struct http_link *link = mem_alloc(sizeof *link);
    if (!link)
        return err_new(ERR_RESOURCE_EXHAUSTED, "out of memory for a connection");
    *link = (struct http_link){.pool = pool,
                               .fd = socket(address->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0),
                               .sent.limit_bytes = REQUEST_BYTES_MAX,
                               .pending.limit_bytes = PENDING_BYTES_MAX,
                               .refusal.limit_bytes = REFUSAL_BYTES_MAX,
                               .next = pool->all,
                               .back = &pool->all};
    if (pool->all)
        pool->all->back = &link->next;
    pool->all = link;
    const int one = 1;
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = link};
    if (link->fd < 0 || connect(link->fd, address->ai_addr, address->ai_addrlen) != 0 ||
        setsockopt(link->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one) != 0 ||
        epoll_ctl(pool->epoll_fd, EPOLL_CTL_ADD, link->fd, &event) != 0) {
        err_t e = failed("connect");
        drop_link(link);
        return e;
    }
    *out = link;
    return err_ok();
}

static err_t send_over(struct http_link *link, void *exchange, const char *request, size_t size_bytes)
{
    buffer_clear(&link->sent);
    buffer_clear(&link->pending);
    buffer_clear(&link->refusal);
    if (!buffer_append(&link->sent, request, size_bytes))
        return err_new(ERR_RESOURCE_EXHAUSTED, "no memory for a request of %zu bytes", size_bytes);
    link->state = IN_HEAD;
    link->must_close = false;
    for (size_t done = 0; done < size_bytes;) {
        ssize_t n = send(link->fd, link->sent.data + done, size_bytes - done, MSG_NOSIGNAL);
        if (n < 0 && errno != EINTR)
            return failed("send");
        done += n > 0 ? (size_t)n : 0;
    }
    link->exchange = exchange;
    return err_ok();
}

err_t http_pool_send(struct http_pool *pool, void *exchange, const char *request, size_t size_bytes)
{
    ASSERT(exchange != NULL);
    while (pool->idle) { /* one that the server has closed meanwhile is passed over */
        struct http_link *link = pool->idle;
        pool->idle = link->next_idle;
        if (send_over(link, exchange, request, size_bytes).code == ERR_OK)
            return err_ok();
        drop_link(link);
    }
    struct http_link *link = NULL;
    TRY(connect_link(pool, &link));
    err_t e = send_over(link, exchange, request, size_bytes);
    if (e.code != ERR_OK)
        drop_link(link);
    return e;
}

/* --- answers */

static void finish(struct http_link *link, const err_t *error, int64_t now_ns)
{
    struct http_pool *pool = link->pool;
    void *exchange = link->exchange;
    link->exchange = NULL;
    link->was_used = true;
    if (error->code == ERR_OK && !link->must_close) {
        link->next_idle = pool->idle;
        pool->idle = link;
    } else {
        drop_link(link);
    }
    pool->handler->on_done(exchange, error, now_ns);
}

/* The server has closed a kept connection before it read the request. */
static void send_again(struct http_link *link, int64_t now_ns)
{
    struct http_pool *pool = link->pool;
    struct http_link *fresh = NULL;
    err_t e = connect_link(pool, &fresh);
    if (e.code == ERR_OK)
        e = send_over(fresh, link->exchange, link->sent.data, link->sent.size);
    if (e.code == ERR_OK)
        drop_link(link);
    else
        finish(link, &e, now_ns);
}

static void take_head(struct http_link *link, char *head)
{
    static const char LENGTH[] = "\r\ncontent-length:", CHUNKED[] = "\r\ntransfer-encoding: chunked",
                      CLOSE[] = "\r\nconnection: close";
    const char *length = strcasestr(head, LENGTH);
    link->left = length ? strtoul(length + sizeof LENGTH - 1, NULL, 10) : 0;
    link->must_close = strcasestr(head, CLOSE) != NULL;
    link->state = strcasestr(head, CHUNKED) ? IN_CHUNK_LINE
                  : !length                 ? IN_BODY_TO_CLOSE
                  : link->left > 0          ? IN_BODY
                                            : OVER;
    if (strncmp(head, "HTTP/1.1 200", 12) != 0) {
        head[strcspn(head, "\r")] = '\0';
        (void)buffer_append_format(&link->refusal, "%.60s: ", head);
    }
}

/* A part of the body of at most `size` bytes; returns how many it was. */
static size_t take_body(struct http_link *link, const char *data, size_t size, int64_t now_ns, err_t *e)
{
    size_t n = link->state != IN_BODY_TO_CLOSE && link->left < size ? link->left : size;
    if (link->refusal.size > 0) {
        size_t room = REFUSAL_BYTES_MAX - link->refusal.size;
        (void)buffer_append(&link->refusal, data, n < room ? n : room);
    } else if (n > 0) {
        *e = link->pool->handler->on_body(link->exchange, data, n, now_ns);
    }
    if (link->state == IN_BODY_TO_CLOSE)
        return n;
    link->left -= n;
    if (link->left == 0)
        link->state = link->state == IN_BODY ? OVER : IN_CHUNK_END;
    return n;
}

/* A line about a chunk, or after the last one; 0: the rest of it is to come. */
static size_t take_line(struct http_link *link, const char *data, size_t size)
{
    const char *end = memmem(data, size, "\r\n", 2);
    if (!end)
        return 0;
    if (link->state == IN_CHUNK_LINE) {
        link->left = strtoul(data, NULL, 16);
        link->state = link->left > 0 ? IN_CHUNK : IN_TRAILER;
    } else if (link->state == IN_CHUNK_END) {
        link->state = IN_CHUNK_LINE;
    } else if (end == data) {
        link->state = OVER;
    }
    return (size_t)(end - data) + 2;
}

/* What is complete at the front of the pending bytes; 0: nothing is. */
static size_t take_some(struct http_link *link, char *data, size_t size, int64_t now_ns, err_t *e)
{
    switch (link->state) {
    case IN_HEAD: {
        char *end = memmem(data, size, "\r\n\r\n", 4);
        if (!end)
            return 0;
        end[2] = '\0'; /* the last line's end stays, for headers are found by it */
        take_head(link, data);
        return (size_t)(end - data) + 4;
    }
    case IN_BODY:
    case IN_BODY_TO_CLOSE:
    case IN_CHUNK:
        return size > 0 ? take_body(link, data, size, now_ns, e) : 0;
    case IN_CHUNK_LINE:
    case IN_CHUNK_END:
    case IN_TRAILER:
        return take_line(link, data, size);
    case OVER:
        break;
    }
    return 0;
}

static void take_input(struct http_link *link, int64_t now_ns)
{
    struct buffer *pending = &link->pending;
    size_t at = 0, n = 1;
    err_t e = err_ok();
    while (e.code == ERR_OK && n > 0) {
        n = take_some(link, pending->data + at, pending->size - at, now_ns, &e);
        at += n;
    }
    memmove(pending->data, pending->data + at, pending->size - at + 1);
    pending->size -= at;
    if (link->state == OVER && link->refusal.size > 0)
        e = err_new(ERR_UNAVAILABLE, "%s", link->refusal.data);
    if (e.code != ERR_OK || link->state == OVER)
        finish(link, &e, now_ns);
}

static void end_of_input(struct http_link *link, const err_t *why, int64_t now_ns)
{
    struct http_pool *pool = link->pool;
    const err_t good = err_ok();
    if (!link->exchange) {
        struct http_link **at = &pool->idle;
        while (*at != link)
            at = &(*at)->next_idle;
        *at = link->next_idle;
        drop_link(link);
    } else if (link->state == IN_HEAD && link->was_used && link->pending.size == 0) {
        send_again(link, now_ns);
    } else {
        link->must_close = true;
        finish(link, link->state == IN_BODY_TO_CLOSE && link->refusal.size == 0 ? &good : why, now_ns);
    }
}

static void read_link(struct http_link *link)
{
    static char bytes[READ_BYTES];
    ssize_t n = recv(link->fd, bytes, sizeof bytes, MSG_DONTWAIT);
    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    int64_t now_ns = clock_now_ns(clock_monotonic());
    err_t e = n < 0                    ? failed("recv")
              : link->refusal.size > 0 ? err_new(ERR_UNAVAILABLE, "%s", link->refusal.data)
                                       : err_new(ERR_UNAVAILABLE, "the server closed a connection");
    if (n > 0 && link->exchange) {
        if (buffer_append(&link->pending, bytes, (size_t)n)) {
            take_input(link, now_ns);
            return;
        }
        e = err_new(ERR_DATA_LOSS, "a head or a chunk's line of more than %d bytes", PENDING_BYTES_MAX);
    }
    end_of_input(link, &e, now_ns);
}

err_t http_pool_poll(struct http_pool *pool, int64_t timeout_ns)
{
    struct epoll_event events[READY_MAX];
    const struct timespec timeout = {.tv_sec = timeout_ns / 1000000000, .tv_nsec = timeout_ns % 1000000000};
    int n = epoll_pwait2(pool->epoll_fd, events, READY_MAX, timeout_ns < 0 ? NULL : &timeout, NULL);
    if (n < 0 && errno != EINTR)
        return failed("epoll_pwait2");
    for (int i = 0; i < n; i++)
        read_link(events[i].data.ptr);
    return err_ok();
}
