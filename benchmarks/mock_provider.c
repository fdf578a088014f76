/* Connections of the mock provider. The project's own HTTP transport keeps every rule; here they have to be
 * broken: resets, answers that stop, segments of one byte. So this is its own few lines over libevent. */
#include "benchmarks/mock_provider.h"

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/queue.h>
#include <sys/socket.h>
#include <unistd.h>
#include <event2/buffer.h>
#include <event2/event.h>
#include <event2/event_struct.h>
#include <event2/listener.h>
#include "base/alloc.h"
#include "base/assert.h"
#include "base/clock.h"
#include "benchmarks/mock_answer.h"
#include "benchmarks/mock_orders.h"
#include "proto/http_parser.h"
#include "proto/listen_address.h"

enum {
    HEAD_BYTES_MAX = 64 << 10,
    SOCKET_BYTES = 64 << 10, /* of one read or write, and what may wait before a stream pauses */
    LOG_BYTES_MAX = 64 << 20,
    IN_SEGMENTS = STYLE_BYTES | STYLE_DRIP | STYLE_SPLIT_UTF8 | STYLE_SEGMENTS,
};

struct connection {
    LIST_ENTRY(connection) link;
    struct mock_provider *provider;
    int fd;
    struct event on_read, on_write, on_time;
    struct evbuffer *in, *out;
    struct buffer step; /* what the answer said last */

    /* The request under way. */
    char *head_bytes; /* NULL: its head is awaited */
    size_t head_seen;
    struct http_head head;
    struct http_chunks chunks;
    struct buffer body;

    /* And its answer. */
    struct mock_answer *answer;
    bool is_model, has_head, is_over, is_gone, close_after;
    enum mock_step last;
    uint64_t sent_bytes;
    int64_t began_ns;
};

struct mock_provider {
    struct mock_options options;
    uint16_t port;
    int listen_fd, stop_fd;
    struct event_base *base;
    struct evconnlistener *listener;
    struct event *on_stop;
    LIST_HEAD(, connection) connections;
    pthread_t thread;
    bool thread_started;
    /* Its thread's. */
    struct mock_orders orders;
    uint64_t number;
    _Atomic uint64_t n_connections, received_bytes, n_requests, n_answered, n_cancelled, n_faults, n_open;
};

static void begin_answer(struct connection *c);

static int64_t now(void)
{
    return clock_now_ns(clock_monotonic());
}

struct mock_options mock_options_default(void)
{
    return (struct mock_options){
        .host = "127.0.0.1", .retry_after_s = 1, .huge_bytes = (size_t)100 << 20, .fault_every = 1};
}

void mock_provider_counts(const struct mock_provider *provider, struct mock_counts *out)
{
    uint64_t n_open = atomic_load(&provider->n_open); /* first: who is not open is counted */
    *out = (struct mock_counts){
        .connections = atomic_load(&provider->n_connections),
        .received_bytes = atomic_load(&provider->received_bytes),
        .requests = atomic_load(&provider->n_requests),
        .answered = atomic_load(&provider->n_answered),
        .cancelled = atomic_load(&provider->n_cancelled),
        .faults = atomic_load(&provider->n_faults),
        .open = n_open,
    };
}

/* --- ends */

static void log_answer(struct connection *c, const char *how)
{
    FILE *log = c->provider->options.log;
    if (!log)
        return;
    struct buffer line = {.limit_bytes = LOG_BYTES_MAX};
    const struct mock_answer *answer = c->answer;
    (void)buffer_append_text(&line, "{\"mock\":true,\"path\":");
    (void)buffer_append_json_string(&line, c->head.path.data, c->head.path.size);
    (void)buffer_append_format(&line,
                               ",\"status\":%d,\"stream\":%s,\"how\":\"%s\",\"bytes\":%llu,\"ms\":%.3f",
                               answer->status, answer->is_stream ? "true" : "false", how,
                               (unsigned long long)c->sent_bytes, (double)(now() - c->began_ns) / 1e6);
    if (answer->model) {
        (void)buffer_append_text(&line, ",\"model\":");
        (void)buffer_append_json_string(&line, answer->model, strlen(answer->model));
    }
    if (c->provider->options.log_bodies && c->body.data) {
        (void)buffer_append_text(&line, ",\"body\":");
        (void)buffer_append_json_string(&line, c->body.data, c->body.size);
    }
    (void)buffer_append_text(&line, "}\n");
    (void)fwrite(line.data, 1, line.size, log);
    (void)fflush(log);
    buffer_free(&line);
}

static void end_request(struct connection *c, const char *how)
{
    struct mock_provider *provider = c->provider;
    if (c->answer && c->is_model) {
        bool was_told = strcmp(how, "answered") == 0;
        atomic_fetch_add(was_told ? &provider->n_answered : &provider->n_cancelled, 1);
        atomic_fetch_sub(&provider->n_open, 1);
        log_answer(c, how);
    }
    mock_answer_free(c->answer);
    c->answer = NULL;
    mem_free(c->head_bytes);
    c->head_bytes = NULL;
    c->head_seen = 0;
    buffer_free(&c->body);
    memset(&c->head, 0, sizeof c->head);
    memset(&c->chunks, 0, sizeof c->chunks);
    c->is_model = c->has_head = c->is_over = false;
    c->sent_bytes = 0;
    (void)event_del(&c->on_time);
}

static void close_connection(struct connection *c, const char *how)
{
    end_request(c, how);
    (void)event_del(&c->on_read);
    (void)event_del(&c->on_write);
    LIST_REMOVE(c, link);
    evbuffer_free(c->in);
    evbuffer_free(c->out);
    buffer_free(&c->step);
    (void)close(c->fd);
    mem_free(c);
}

static void reset_connection(struct connection *c)
{
    struct linger linger = {.l_onoff = 1, .l_linger = 0};
    (void)setsockopt(c->fd, SOL_SOCKET, SO_LINGER, &linger, sizeof linger);
    close_connection(c, "answered");
}

/* --- writing */

static void wait_ns(struct connection *c, int64_t ns)
{
    struct timeval time = {.tv_sec = (time_t)(ns / 1000000000),
                           .tv_usec = (suseconds_t)(ns % 1000000000 / 1000)};
    (void)event_add(&c->on_time, &time);
}

/* How much of what waits may be one segment. */
static ev_ssize_t segment_bytes(struct connection *c)
{
    unsigned styles = c->answer ? c->answer->fault.styles : 0;
    size_t size = evbuffer_get_length(c->out);
    if (styles & (STYLE_BYTES | STYLE_DRIP))
        return 1;
    if (styles & STYLE_SEGMENTS)
        return (ev_ssize_t)(mock_random(&c->answer->random) % MOCK_SEGMENT_BYTES_MAX + 1);
    if (!(styles & STYLE_SPLIT_UTF8))
        return SOCKET_BYTES;
    const unsigned char *bytes = evbuffer_pullup(c->out, (ev_ssize_t)size);
    for (size_t i = 0; bytes && i < size; i++)
        if (bytes[i] >= 0xc0)
            return (ev_ssize_t)i + 1;
    return SOCKET_BYTES;
}

/* True when all has left. */
static bool write_out(struct connection *c)
{
    bool in_segments = c->answer && c->answer->fault.styles & IN_SEGMENTS;
    while (evbuffer_get_length(c->out) > 0) {
        int n = evbuffer_write_atmost(c->out, c->fd, segment_bytes(c));
        if (n < 0 && errno != EAGAIN) {
            c->is_over = c->is_gone = true;
            evbuffer_drain(c->out, evbuffer_get_length(c->out));
            return true;
        }
        c->sent_bytes += n > 0 ? (uint64_t)n : 0;
        if (n > 0 && in_segments && evbuffer_get_length(c->out) > 0) {
            wait_ns(c, c->answer->fault.styles & STYLE_DRIP ? MOCK_DRIP_MS * INT64_C(1000000) : 0);
            return false;
        }
        if (n <= 0) {
            (void)event_add(&c->on_write, NULL);
            return false;
        }
    }
    return true;
}

static void add_rate_headers(struct connection *c)
{
    const struct mock_provider *provider = c->provider;
    uint32_t most = provider->options.requests_per_minute;
    evbuffer_add_printf(c->out,
                        "x-ratelimit-limit-requests: %u\r\nx-ratelimit-remaining-requests: %u\r\n"
                        "x-ratelimit-reset-requests: %ums\r\n",
                        most > 0 ? most : 1000000, most > 0 ? (unsigned)provider->orders.tokens : 999999,
                        most > 0 ? 60000 / most + 1 : 1);
}

/* body_bytes: -1 = in chunks, or until the connection ends. */
static void write_head(struct connection *c, int64_t body_bytes)
{
    const struct mock_answer *answer = c->answer;
    int status = answer->status;
    bool has_length = body_bytes >= 0 && !answer->until_close,
         is_chunked = body_bytes < 0 && !answer->until_close;
    c->has_head = true;
    c->close_after = c->close_after || answer->until_close || !c->head.keep_alive;
    evbuffer_add_printf(
        c->out, "HTTP/1.1 %d Mock\r\nx-bantam-mock: 1\r\ncontent-type: %s\r\nx-request-id: req_mock_%llu\r\n",
        status, answer->content_type, (unsigned long long)answer->number);
    add_rate_headers(c);
    if ((status == 429 && !answer->fault.is_about_money) || status == 503 || status == 529)
        evbuffer_add_printf(c->out, "retry-after: %u\r\n", c->provider->options.retry_after_s);
    if (status == 302)
        evbuffer_add_printf(c->out, "location: /elsewhere\r\n");
    if (has_length)
        evbuffer_add_printf(c->out, "content-length: %lld\r\n", (long long)body_bytes);
    if (is_chunked)
        evbuffer_add_printf(c->out, "transfer-encoding: chunked\r\n");
    evbuffer_add_printf(c->out, "%s\r\n", c->close_after ? "connection: close\r\n" : "");
}

static void write_step(struct connection *c, size_t told_bytes)
{
    bool in_chunks = c->answer->is_stream && !c->answer->until_close;
    if (!c->has_head)
        write_head(c, c->answer->is_stream ? -1 : (int64_t)told_bytes);
    if (in_chunks && c->step.size > 0)
        evbuffer_add_printf(c->out, "%zx\r\n", c->step.size);
    evbuffer_add(c->out, c->step.data, c->step.size);
    if (in_chunks && c->step.size > 0)
        evbuffer_add(c->out, "\r\n", 2);
    if (in_chunks && c->last == MOCK_END)
        evbuffer_add(c->out, "0\r\n\r\n", 5);
}

/* Everything of an answer has left. */
static void finish(struct connection *c)
{
    if (c->is_gone) {
        close_connection(c, "cancelled");
    } else if (c->last == MOCK_RESET) {
        reset_connection(c);
    } else if (c->last == MOCK_CLOSE || c->close_after) {
        close_connection(c, "answered");
    } else if (c->last == MOCK_END) {
        end_request(c, "answered");
        if (evbuffer_get_length(c->in) > 0)
            event_active(&c->on_time, EV_TIMEOUT, 0); /* the next request has come already */
    }
}

/* Says what comes next, until there is something to wait for. */
static void go_on(struct connection *c)
{
    for (;;) {
        if (!write_out(c))
            return;
        if (c->is_over) {
            finish(c);
            return;
        }
        size_t told_bytes;
        do {
            buffer_clear(&c->step);
            c->last = mock_answer_next(c->answer, &c->step, &told_bytes);
            c->is_over = c->last != MOCK_MORE;
            bool is_silent =
                c->step.size == 0 && !c->has_head && (c->last == MOCK_RESET || c->last == MOCK_NOTHING);
            if (!is_silent)
                write_step(c, told_bytes);
        } while (!c->is_over && (c->answer->per_chunk_ns == 0 || c->answer->piece == 0) &&
                 evbuffer_get_length(c->out) < SOCKET_BYTES);
        if (!c->is_over && c->answer->per_chunk_ns > 0) {
            if (write_out(c))
                wait_ns(c, c->answer->per_chunk_ns);
            return;
        }
    }
}

/* --- what is asked */

static void answer_plainly(struct connection *c, int status, const char *text)
{
    struct mock_answer *answer = mem_alloc(sizeof *answer);
    ASSERT(answer);
    answer->status = status;
    answer->content_type = "application/json";
    c->answer = answer;
    c->is_over = true;
    c->last = MOCK_END;
    write_head(c, (int64_t)strlen(text));
    evbuffer_add(c->out, text, strlen(text));
    go_on(c);
}

static void answer_state(struct connection *c)
{
    struct mock_counts counts;
    struct buffer text = {.limit_bytes = SOCKET_BYTES};
    mock_provider_counts(c->provider, &counts);
    (void)buffer_append_format(
        &text,
        "{\"mock\":true,\"connections\":%llu,\"received_bytes\":%llu,\"requests\":%llu,"
        "\"answered\":%llu,\"cancelled\":%llu,\"faults\":%llu,\"open\":%llu}\n",
        (unsigned long long)counts.connections, (unsigned long long)counts.received_bytes,
        (unsigned long long)counts.requests, (unsigned long long)counts.answered,
        (unsigned long long)counts.cancelled, (unsigned long long)counts.faults,
        (unsigned long long)counts.open);
    answer_plainly(c, 200, text.data);
    buffer_free(&text);
}

static void take_order(struct connection *c)
{
    err_t e = mock_orders_take(&c->provider->orders, c->head.query);
    answer_plainly(c, e.code == ERR_OK ? 200 : 400, e.code == ERR_OK ? "{\"mock\":true}\n" : e.message);
}

static void answer_model(struct connection *c, enum mock_form form)
{
    struct mock_provider *provider = c->provider;
    struct mock_fault fault;
    atomic_fetch_add(&provider->n_requests, 1);
    atomic_fetch_add(&provider->n_open, 1);
    provider->number++;
    c->is_model = true;
    c->began_ns = now();
    err_t e =
        mock_orders_choose(&provider->orders, http_head_find(&c->head, "x-mock-fault"), c->began_ns, &fault);
    if (e.code == ERR_OK && form == MOCK_ANTHROPIC && !http_head_find(&c->head, "anthropic-version").data)
        e = err_new(ERR_INVALID_ARGUMENT, "anthropic-version: header is required");
    if (e.code == ERR_OK)
        e = mock_answer_make(&provider->options, form, c->body.data ? c->body.data : "", c->body.size, &fault,
                             provider->number, &c->answer);
    if (e.code != ERR_OK) {
        struct buffer body = {.limit_bytes = SOCKET_BYTES};
        int status = e.code == ERR_INVALID_ARGUMENT ? 400 : 500;
        mock_error_body(form, status, false, e.message, &body);
        answer_plainly(c, status, body.data);
        buffer_free(&body);
        return;
    }
    if (mock_fault_is_any(&c->answer->fault))
        atomic_fetch_add(&provider->n_faults, 1);
    if (c->answer->first_byte_ns > 0)
        wait_ns(c, c->answer->first_byte_ns);
    else
        go_on(c);
}

static bool path_ends(struct http_text path, const char *end)
{
    size_t n = strlen(end);
    return path.size >= n && memcmp(path.data + path.size - n, end, n) == 0;
}

static void begin_answer(struct connection *c)
{
    struct http_text path = c->head.path;
    bool posts = http_text_is(c->head.method, "POST");
    if (posts && path_ends(path, "/chat/completions"))
        answer_model(c, MOCK_OPENAI);
    else if (posts && path_ends(path, "/messages"))
        answer_model(c, MOCK_ANTHROPIC);
    else if (posts && http_text_is(path, "/mock/fault"))
        take_order(c);
    else if (!posts && http_text_is(path, "/mock/state"))
        answer_state(c);
    else if (!posts && path_ends(path, "/models"))
        answer_plainly(c, 200,
                       "{\"object\":\"list\",\"data\":[{\"id\":\"mock-frontier\",\"object\":\"model\","
                       "\"created\":0,\"owned_by\":\"mock\"}]}\n");
    else
        answer_plainly(
            c, 404,
            "{\"error\":{\"message\":\"mock provider: there are /v1/chat/completions, /v1/messages, "
            "/v1/models, /mock/state and /mock/fault\",\"type\":\"not_found_error\"}}\n");
}

/* --- reading; each returns true when there may be more to do */

static bool read_head(struct connection *c)
{
    size_t size = evbuffer_get_length(c->in);
    size = size < HEAD_BYTES_MAX ? size : HEAD_BYTES_MAX;
    const char *bytes = (const char *)evbuffer_pullup(c->in, (ev_ssize_t)size);
    size_t head_bytes = size > 0 ? http_head_size(bytes, size, c->head_seen) : 0;
    struct http_fault fault;
    c->head_seen = size;
    if (head_bytes == 0 && size < HEAD_BYTES_MAX)
        return false;
    c->head_bytes = head_bytes > 0 ? mem_strndup(bytes, head_bytes) : NULL;
    evbuffer_drain(c->in, head_bytes);
    if (!c->head_bytes || !http_head_parse(c->head_bytes, head_bytes, &c->head, &fault)) {
        close_connection(c, "cancelled");
        return false;
    }
    c->body.limit_bytes = MOCK_BODY_BYTES_MAX;
    if (c->head.expects_continue)
        evbuffer_add_printf(c->out, "HTTP/1.1 100 Continue\r\n\r\n");
    return write_out(c);
}

/* True when it is complete. */
static bool read_body(struct connection *c, bool *is_bad)
{
    struct evbuffer_iovec run;
    *is_bad = false;
    if (!c->head.is_chunked && c->body.size == c->head.content_length)
        return true;
    while (evbuffer_peek(c->in, -1, NULL, &run, 1) > 0 && run.iov_len > 0) {
        size_t consumed = run.iov_len;
        struct http_text data = {run.iov_base, run.iov_len};
        enum http_chunks_result result = HTTP_CHUNKS_DATA;
        if (c->head.is_chunked) {
            result = http_chunks_next(&c->chunks, run.iov_base, run.iov_len, &consumed, &data);
        } else if (run.iov_len > c->head.content_length - c->body.size) {
            consumed = data.size = (size_t)c->head.content_length - c->body.size;
        }
        *is_bad = result == HTTP_CHUNKS_BAD ||
                  (result == HTTP_CHUNKS_DATA && !buffer_append(&c->body, data.data, data.size));
        evbuffer_drain(c->in, consumed);
        if (*is_bad || result == HTTP_CHUNKS_DONE)
            return !*is_bad;
        if (!c->head.is_chunked && c->body.size == c->head.content_length)
            return true;
    }
    return false;
}

static void advance(struct connection *c)
{
    bool is_bad = false;
    if (c->answer || (!c->head_bytes && !read_head(c)))
        return; /* what comes behind a request waits */
    if (read_body(c, &is_bad))
        begin_answer(c);
    else if (is_bad)
        close_connection(c, "cancelled");
}

/* --- libevent's callbacks */

static void on_read(evutil_socket_t fd, short what, void *argument)
{
    (void)what;
    struct connection *c = argument;
    int n = evbuffer_read(c->in, fd, SOCKET_BYTES);
    if (n < 0 && errno == EAGAIN)
        return;
    bool is_flood = c->answer && evbuffer_get_length(c->in) > HEAD_BYTES_MAX;
    if (n <= 0 || is_flood) {
        close_connection(c, "cancelled");
        return;
    }
    atomic_fetch_add(&c->provider->received_bytes, (uint64_t)n);
    advance(c);
}

static void on_write(evutil_socket_t fd, short what, void *argument)
{
    (void)fd;
    (void)what;
    struct connection *c = argument;
    if (c->answer)
        go_on(c);
    else if (write_out(c))
        advance(c);
}

static void on_time(evutil_socket_t fd, short what, void *argument)
{
    (void)fd;
    (void)what;
    struct connection *c = argument;
    if (c->answer)
        go_on(c);
    else
        advance(c);
}

static void on_accept(struct evconnlistener *listener, evutil_socket_t fd, struct sockaddr *address, int size,
                      void *argument)
{
    (void)listener;
    (void)address;
    (void)size;
    struct mock_provider *provider = argument;
    struct connection *c = mem_alloc(sizeof *c);
    int one = 1;
    ASSERT(c);
    *c = (struct connection){.provider = provider, .fd = fd, .in = evbuffer_new(), .out = evbuffer_new()};
    c->step.limit_bytes = MOCK_BODY_BYTES_MAX * 8u;
    ASSERT(c->in && c->out);
    (void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    ASSERT(event_assign(&c->on_read, provider->base, fd, EV_READ | EV_PERSIST, on_read, c) == 0 &&
           event_assign(&c->on_write, provider->base, fd, EV_WRITE, on_write, c) == 0 &&
           evtimer_assign(&c->on_time, provider->base, on_time, c) == 0 && event_add(&c->on_read, NULL) == 0);
    LIST_INSERT_HEAD(&provider->connections, c, link);
    atomic_fetch_add(&provider->n_connections, 1);
}

static void on_stop(evutil_socket_t fd, short what, void *argument)
{
    (void)fd;
    (void)what;
    struct mock_provider *provider = argument;
    while (!LIST_EMPTY(&provider->connections))
        close_connection(LIST_FIRST(&provider->connections), "cancelled");
    (void)event_base_loopbreak(provider->base);
}

static void *serve(void *argument)
{
    struct mock_provider *provider = argument;
    sigset_t broken_pipe;
    sigemptyset(&broken_pipe);
    sigaddset(&broken_pipe, SIGPIPE);
    (void)pthread_sigmask(SIG_BLOCK, &broken_pipe, NULL);
    (void)event_base_loop(provider->base, EVLOOP_NO_EXIT_ON_EMPTY);
    return NULL;
}

/* --- opening and closing */

static err_t start(struct mock_provider *provider)
{
    size_t n_fds = 0;
    TRY(listen_open(provider->options.host, provider->options.port, &provider->listen_fd, 1, &n_fds,
                    &provider->port));
    provider->stop_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    struct event_config *config = event_config_new();
    if (config)
        (void)event_config_set_flag(config, EVENT_BASE_FLAG_PRECISE_TIMER); /* or a chunk takes 1 ms more */
    provider->base = config ? event_base_new_with_config(config) : NULL;
    if (config)
        event_config_free(config);
    if (provider->stop_fd < 0 || !provider->base)
        return err_new(ERR_RESOURCE_EXHAUSTED, "no memory for the mock provider");
    provider->listener = evconnlistener_new(provider->base, on_accept, provider, LEV_OPT_CLOSE_ON_EXEC, 0,
                                            provider->listen_fd);
    provider->on_stop = event_new(provider->base, provider->stop_fd, EV_READ, on_stop, provider);
    if (!provider->listener || !provider->on_stop || event_add(provider->on_stop, NULL) != 0 ||
        pthread_create(&provider->thread, NULL, serve, provider) != 0)
        return err_new(ERR_RESOURCE_EXHAUSTED, "no memory for the mock provider");
    provider->thread_started = true;
    return err_ok();
}

err_t mock_provider_open(const struct mock_options *options, struct mock_provider **out)
{
    struct mock_provider *provider = mem_alloc(sizeof *provider);
    if (!provider)
        return err_new(ERR_RESOURCE_EXHAUSTED, "no memory for the mock provider");
    provider->options = *options;
    provider->listen_fd = provider->stop_fd = -1;
    provider->orders = (struct mock_orders){.always = options->fault,
                                            .every = options->fault_every,
                                            .per_minute = options->requests_per_minute,
                                            .tokens = 1,
                                            .tokens_ns = now()};
    LIST_INIT(&provider->connections);
    err_t e = start(provider);
    if (e.code == ERR_OK)
        *out = provider;
    else
        mock_provider_close(provider);
    return e;
}

uint16_t mock_provider_port(const struct mock_provider *provider)
{
    return provider->port;
}

void mock_provider_close(struct mock_provider *provider)
{
    uint64_t one = 1;
    if (!provider)
        return;
    if (provider->thread_started) {
        ASSERT(write(provider->stop_fd, &one, sizeof one) == (ssize_t)sizeof one);
        pthread_join(provider->thread, NULL);
    }
    if (provider->listener)
        evconnlistener_free(provider->listener);
    if (provider->on_stop)
        event_free(provider->on_stop);
    if (provider->base)
        event_base_free(provider->base);
    if (provider->stop_fd >= 0)
        (void)close(provider->stop_fd);
    if (provider->listen_fd >= 0)
        (void)close(provider->listen_fd);
    mem_free(provider);
}
