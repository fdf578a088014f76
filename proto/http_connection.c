/* What a client sends: requests one after another, in time and within limits. */
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
#include "base/alloc.h"
#include "base/assert.h"
#include "base/clock.h"
#include "proto/http_server_internal.h"

static void advance(struct http_exchange *exchange);
static void count_output(struct evbuffer *output, const struct evbuffer_cb_info *info, void *argument);

static struct timeval time_of_ms(int64_t ms)
{
    return (struct timeval){.tv_sec = (time_t)(ms / 1000), .tv_usec = (suseconds_t)(ms % 1000 * 1000)};
}

static void set_timer(struct http_exchange *exchange, int64_t ms)
{
    struct timeval time = time_of_ms(ms);
    if (evtimer_add(exchange->timer, &time) != 0)
        exchange->failed = true;
}

static void enter_state(struct http_exchange *exchange, enum exchange_state state)
{
    if (exchange->state == state)
        return;
    if (exchange->state == EXCHANGE_OPEN) {
        LIST_REMOVE(exchange, open_link);
        atomic_fetch_sub(&exchange->loop->n_open, 1);
    }
    exchange->state = state;
    if (state != EXCHANGE_HEAD)
        http_place_wait(exchange, HTTP_WAIT_NONE);
    if (state == EXCHANGE_OPEN) {
        LIST_INSERT_HEAD(&exchange->loop->open, exchange, open_link);
        atomic_fetch_add(&exchange->loop->n_open, 1);
    }
}

/* --- ends */

/* Gives back what belongs to the request, its owner's part first. */
static void end_exchange(struct http_exchange *exchange)
{
    if (exchange->handled)
        exchange->server->options.ended(exchange->server->options.context, exchange);
    http_loop_forget_woken(exchange); /* from now on nobody wakes it */
    exchange->handled = false;
    exchange->user = NULL;
    http_exchange_drop_body(exchange);
    buffer_free(&exchange->headers);
    mem_free(exchange->head_bytes);
    exchange->head_bytes = NULL;
    memset(&exchange->head, 0, sizeof exchange->head);
    memset(&exchange->caller, 0, sizeof exchange->caller);
    memset(&exchange->chunks, 0, sizeof exchange->chunks);
    exchange->receiving = exchange->begun = exchange->complete = exchange->is_chunked = false;
    exchange->head_seen = 0;
}

static void drop_stream(struct http_exchange *exchange)
{
    evtimer_del(exchange->timer);
    (void)evbuffer_remove_cb(bufferevent_get_output(exchange->stream), count_output, exchange);
    http_tls_say_end(exchange->stream);
    bufferevent_free(exchange->stream);
    exchange->stream = NULL;
    atomic_fetch_sub(&exchange->server->output_bytes, exchange->output_counted);
    exchange->output_counted = 0;
}

static void destroy(struct http_exchange *exchange)
{
    struct http_loop *loop = exchange->loop;
    end_exchange(exchange);
    enter_state(exchange, EXCHANGE_HEAD);
    http_place_wait(exchange, HTTP_WAIT_NONE);
    LIST_REMOVE(exchange, all_link);
    if (exchange->stream)
        drop_stream(exchange);
    event_free(exchange->timer);
    evbuffer_free(exchange->out);
    http_peer_free(exchange->peer);
    http_server_forget_connection(exchange->server);
    mem_free(exchange);
    http_loop_check_end(loop);
}

void http_connection_close(struct http_exchange *exchange)
{
    if (exchange->state != EXCHANGE_WORKER)
        destroy(exchange);
    else if (exchange->stream)
        drop_stream(exchange); /* the rest when the worker gives it back */
}

/* Says that nothing more comes and lets the client finish what it sends: closed at once, the connection would
 * be reset and the answer lost. */
static void linger(struct http_exchange *exchange)
{
    enter_state(exchange, EXCHANGE_LINGER);
    http_tls_say_end(exchange->stream);
    (void)shutdown(bufferevent_getfd(exchange->stream), SHUT_WR);
    set_timer(exchange, HTTP_LINGER_MS);
    advance(exchange);
}

/* The answer has left. */
static void finish_exchange(struct http_exchange *exchange)
{
    bool closes = exchange->close_after, stopping = atomic_load(&exchange->server->stopping);
    end_exchange(exchange);
    exchange->close_after = false;
    if (stopping) {
        destroy(exchange);
    } else if (closes) {
        linger(exchange);
    } else {
        enter_state(exchange, EXCHANGE_HEAD);
        http_place_wait(exchange, HTTP_WAIT_REQUEST);
        set_timer(exchange, exchange->server->options.idle_timeout_ms);
        advance(exchange);
    }
}

/* --- from a request to its answer */

static void work_on_exchange(struct work_item *item)
{
    struct http_exchange *exchange =
        (struct http_exchange *)((char *)item - offsetof(struct http_exchange, work_item));
    struct http_loop *loop = exchange->loop;
    exchange->work(exchange->server->options.context, exchange);
    pthread_mutex_lock(&loop->mutex);
    exchange->next_returned = loop->returned;
    loop->returned = exchange;
    pthread_mutex_unlock(&loop->mutex);
    http_loop_wake(loop);
}

/* At once, with one system call: by libevent's way it would take two more, to ask to be told that the socket
 * can be written and to ask no more, and a turn of the loop. What the socket does not take, and what a pump
 * left because there was much already, goes that way: its end calls for the next pump. */
static bool write_at_once(struct http_exchange *exchange)
{
    const struct http_server_options *options = &exchange->server->options;
    struct evbuffer *out = exchange->out;
    bool may = !options->tls && http_exchange_can_send(exchange) &&
               evbuffer_get_length(bufferevent_get_output(exchange->stream)) == 0;
    if (may && evbuffer_get_length(out) > 0) {
        int n = evbuffer_write_atmost(out, bufferevent_getfd(exchange->stream), HTTP_READ_BYTES);
        if (n > 0 && options->metrics)
            metric_add(&options->metrics->sent_bytes[METRIC_DOOR_HTTP], (uint64_t)n);
    }
    return evbuffer_get_length(out) == 0 || bufferevent_write_buffer(exchange->stream, out) == 0;
}

/* The answer is complete. Requests that have come behind this one wait for another turn of the loop, or they
 * would be answered one inside the other. */
static void finish_if_flushed(struct http_exchange *exchange)
{
    if (evbuffer_get_length(bufferevent_get_output(exchange->stream)) > 0)
        return;
    if (evbuffer_get_length(bufferevent_get_input(exchange->stream)) == 0)
        finish_exchange(exchange);
    else
        bufferevent_trigger(exchange->stream, EV_WRITE, BEV_TRIG_DEFER_CALLBACKS);
}

static bool waits_for_much(const struct http_exchange *exchange)
{
    return evbuffer_get_length(bufferevent_get_output(exchange->stream)) > HTTP_SLOW_BYTES;
}

/* After somebody had the exchange: what it left is sent, given away, or awaited. */
static void settle(struct http_exchange *exchange)
{
    while (exchange->work && atomic_load(&exchange->server->stopping)) {
        void (*work)(void *context, struct http_exchange *exchange) = exchange->work;
        exchange->work = NULL; /* the workers are going */
        work(exchange->server->options.context, exchange);
    }
    if (exchange->work) {
        enter_state(exchange, EXCHANGE_WORKER);
        exchange->work_item.run = work_on_exchange;
        work_queue_add(exchange->server->workers, &exchange->work_item);
        return;
    }
    /* The client may take its time with the answer, or come again at its first byte. */
    if (exchange->complete)
        http_exchange_drop_body(exchange);
    if (exchange->failed || !write_at_once(exchange)) {
        destroy(exchange);
        return;
    }
    enter_state(exchange, exchange->complete ? EXCHANGE_FLUSH : EXCHANGE_OPEN);
    if (waits_for_much(exchange) && !evtimer_pending(exchange->timer, NULL))
        set_timer(exchange, exchange->server->options.write_timeout_ms);
    if (exchange->complete)
        finish_if_flushed(exchange);
}

void http_connection_pump(struct http_exchange *exchange)
{
    ASSERT(exchange->state == EXCHANGE_OPEN); /* or progress made meanwhile would wake nobody */
    exchange->server->options.pump(exchange->server->options.context, exchange);
    settle(exchange);
}

void http_connection_returned(struct http_exchange *exchange)
{
    exchange->work = NULL;
    if (!exchange->stream) {
        enter_state(exchange, EXCHANGE_OPEN);
        destroy(exchange);
        return;
    }
    if (exchange->complete) {
        settle(exchange);
        return;
    }
    enter_state(exchange, EXCHANGE_OPEN);
    if (exchange->loop->stop_begun)
        http_connection_stop(exchange);
    else
        http_connection_pump(exchange);
}

static void dispatch(struct http_exchange *exchange)
{
    evtimer_del(exchange->timer);
    exchange->handled = true;
    const struct http_server_options *options = &exchange->server->options;
    if (exchange->body.size > HTTP_INLINE_BODY_BYTES) {
        exchange->work = options->handle;
        settle(exchange);
        return;
    }
    options->handle(options->context, exchange);
    if (exchange->complete || exchange->work) {
        settle(exchange);
        return;
    }
    enter_state(exchange, EXCHANGE_OPEN); /* first, so that progress behind the pump's back wakes the loop */
    http_connection_pump(exchange);
}

/* The transport's own answer; the connection ends with it, as nobody knows where the next request begins. */
static void refuse(struct http_exchange *exchange, int status, const char *why)
{
    evtimer_del(exchange->timer);
    http_exchange_drop_body(exchange);
    exchange->close_after = true;
    http_exchange_respond_fault(exchange, status, why);
    settle(exchange);
}

/* --- reading: each returns true when there may be more to do at once */

/* Of the server's pending_bytes; what does not fit is not taken from others meanwhile. */
static bool reserve(struct http_exchange *exchange, size_t size_bytes)
{
    struct http_server *server = exchange->server;
    size_t before = atomic_fetch_add(&server->pending_bytes, size_bytes);
    if (before + size_bytes > server->options.max_pending_bytes) {
        atomic_fetch_sub(&server->pending_bytes, size_bytes);
        return false;
    }
    exchange->reserved_bytes += size_bytes;
    return true;
}

static bool take_body(struct http_exchange *exchange, const char *data, size_t size_bytes)
{
    struct http_server *server = exchange->server;
    if (size_bytes > server->options.max_body_bytes - exchange->body.size) {
        refuse(exchange, 413, "the body is larger than the server takes (--max-message-bytes)");
        return false;
    }
    if (server->options.metrics)
        metric_add(&server->options.metrics->received_bytes[METRIC_DOOR_HTTP], size_bytes);
    if (!reserve(exchange, size_bytes) || !buffer_append(&exchange->body, data, size_bytes)) {
        http_exchange_header(exchange, "retry-after", "1");
        refuse(exchange, 503, "the server holds too many requests; try again");
        return false;
    }
    return true;
}

/* One run of bytes of a chunked body. */
static bool take_chunk(struct http_exchange *exchange, struct evbuffer *in, const char *bytes, size_t size)
{
    size_t consumed = 0;
    struct http_text data = {NULL, 0};
    switch (http_chunks_next(&exchange->chunks, bytes, size, &consumed, &data)) {
    case HTTP_CHUNKS_BAD:
        refuse(exchange, 400, "the body is not in well-formed chunks");
        return false;
    case HTTP_CHUNKS_DATA:
        if (!take_body(exchange, data.data, data.size))
            return false;
        break;
    case HTTP_CHUNKS_DONE:
        evbuffer_drain(in, consumed);
        dispatch(exchange);
        return false;
    case HTTP_CHUNKS_MORE:
        break;
    }
    evbuffer_drain(in, consumed);
    return true;
}

static bool read_body(struct http_exchange *exchange)
{
    struct evbuffer *in = bufferevent_get_input(exchange->stream);
    struct evbuffer_iovec run;
    if (evbuffer_peek(in, -1, NULL, &run, 1) < 1 || run.iov_len == 0)
        return false;
    if (exchange->head.is_chunked)
        return take_chunk(exchange, in, run.iov_base, run.iov_len);
    size_t wanted = (size_t)exchange->head.content_length - exchange->body.size;
    size_t n = run.iov_len < wanted ? run.iov_len : wanted;
    if (!take_body(exchange, run.iov_base, n))
        return false;
    evbuffer_drain(in, n);
    if (n < wanted)
        return true;
    dispatch(exchange);
    return false;
}

static bool begin_body(struct http_exchange *exchange)
{
    const struct http_head *head = &exchange->head;
    if (head->content_length > exchange->server->options.max_body_bytes) {
        refuse(exchange, 413, "the body is larger than the server takes (--max-message-bytes)");
        return false;
    }
    exchange->body.limit_bytes = exchange->server->options.max_body_bytes;
    if (!head->is_chunked && head->content_length == 0) {
        dispatch(exchange);
        return false;
    }
    static const char go_on[] = "HTTP/1.1 100 Continue\r\n\r\n";
    if (head->expects_continue && evbuffer_get_length(bufferevent_get_input(exchange->stream)) == 0)
        (void)bufferevent_write(exchange->stream, go_on, sizeof go_on - 1);
    enter_state(exchange, EXCHANGE_BODY);
    set_timer(exchange, exchange->server->options.body_timeout_ms);
    return true;
}

static void skip_blank_lines(struct evbuffer *in)
{
    char start[2];
    while (evbuffer_copyout(in, start, 2) == 2 && memcmp(start, "\r\n", 2) == 0)
        evbuffer_drain(in, 2);
}

/* A body that nobody reads ends the connection: where it ends the next request would begin. */
static bool may_come_in(struct http_exchange *exchange)
{
    const struct http_server_options *options = &exchange->server->options;
    const struct http_head *head = &exchange->head;
    exchange->close_after = head->is_chunked || head->content_length > 0;
    if (options->admit && !options->admit(options->context, exchange))
        return false;
    exchange->close_after = false;
    return true;
}

static bool read_head(struct http_exchange *exchange)
{
    const struct http_server_options *options = &exchange->server->options;
    struct evbuffer *in = bufferevent_get_input(exchange->stream);
    if (exchange->head_seen == 0)
        skip_blank_lines(in);
    size_t available = evbuffer_get_length(in);
    if (available == 0)
        return false;
    if (!exchange->receiving)
        set_timer(exchange, options->head_timeout_ms);
    exchange->receiving = true;
    size_t looked = available < options->max_head_bytes ? available : options->max_head_bytes;
    const char *bytes = (const char *)evbuffer_pullup(in, (ev_ssize_t)looked);
    size_t size = bytes ? http_head_size(bytes, looked, exchange->head_seen) : 0;
    if (size == 0) {
        exchange->head_seen = looked;
        if (looked == options->max_head_bytes)
            refuse(exchange, 431, "the request's headers are larger than the server takes");
        else
            http_place_wait(exchange, HTTP_WAIT_HEAD);
        return false;
    }
    exchange->head_bytes = mem_strndup(bytes, size);
    evbuffer_drain(in, size);
    struct http_fault fault = {503, "no memory for a request"};
    if (!exchange->head_bytes || !http_head_parse(exchange->head_bytes, size, &exchange->head, &fault)) {
        refuse(exchange, fault.status, fault.why);
        return false;
    }
    if (!may_come_in(exchange)) {
        evtimer_del(exchange->timer);
        settle(exchange);
        return false;
    }
    return begin_body(exchange);
}

static void advance(struct http_exchange *exchange)
{
    for (;;) {
        if (exchange->state == EXCHANGE_LINGER) {
            struct evbuffer *in = bufferevent_get_input(exchange->stream);
            evbuffer_drain(in, evbuffer_get_length(in));
            return;
        }
        bool more = exchange->state == EXCHANGE_HEAD   ? read_head(exchange)
                    : exchange->state == EXCHANGE_BODY ? read_body(exchange)
                                                       : false; /* it waits for its turn */
        if (!more)
            return;
    }
}

/* --- libevent's callbacks */

static void on_readable(struct bufferevent *stream, void *argument)
{
    (void)stream;
    advance(argument);
}

static void on_written(struct bufferevent *stream, void *argument)
{
    (void)stream;
    struct http_exchange *exchange = argument;
    if (exchange->state == EXCHANGE_FLUSH)
        finish_exchange(exchange);
    else if (exchange->state == EXCHANGE_OPEN)
        http_connection_pump(exchange);
}

static void on_event(struct bufferevent *stream, short what, void *argument)
{
    struct http_exchange *exchange = argument;
    if (what & BEV_EVENT_CONNECTED) { /* TLS has shaken hands; the head's time runs on */
        exchange->peer = http_tls_peer(stream);
        return;
    }
    if (exchange->server->options.tls) {
        http_tls_log_failure(stream);
        http_connection_close(exchange); /* libevent writes no more either */
        return;
    }
    bool only_end = (what & BEV_EVENT_EOF) && (what & BEV_EVENT_READING);
    if (only_end && exchange->state == EXCHANGE_FLUSH)
        exchange->close_after = true; /* it may still read what was answered */
    else
        http_connection_close(exchange);
}

/* The client takes a byte now and then and leaves the rest here. */
static void cut_slow(struct http_exchange *exchange)
{
    struct metrics *metrics = exchange->server->options.metrics;
    if (metrics)
        metric_add(&metrics->slow_reader_cuts[0], 1);
    http_connection_close(exchange);
}

static void on_timer(evutil_socket_t fd, short what, void *argument)
{
    (void)fd;
    (void)what;
    struct http_exchange *exchange = argument;
    if (exchange->state == EXCHANGE_BODY || (exchange->state == EXCHANGE_HEAD && exchange->receiving))
        refuse(exchange, 408, "the request did not arrive in time");
    else if (exchange->state == EXCHANGE_HEAD || exchange->state == EXCHANGE_LINGER)
        destroy(exchange);
    else if (exchange->stream && waits_for_much(exchange))
        cut_slow(exchange);
}

static void count_output(struct evbuffer *output, const struct evbuffer_cb_info *info, void *argument)
{
    (void)output;
    struct http_exchange *exchange = argument;
    if (exchange->server->options.metrics)
        metric_add(&exchange->server->options.metrics->sent_bytes[METRIC_DOOR_HTTP], info->n_deleted);
    exchange->output_counted += info->n_added - info->n_deleted;
    atomic_fetch_add(&exchange->server->output_bytes, info->n_added - info->n_deleted);
}

/* --- opening and stopping */

static bool open_stream(struct http_exchange *exchange, int fd)
{
    const struct http_server_options *options = &exchange->server->options;
    exchange->timer = evtimer_new(exchange->loop->base, on_timer, exchange);
    exchange->out = evbuffer_new();
    exchange->stream = options->tls ? http_tls_accept(exchange->server, exchange->loop->base, fd)
                                    : bufferevent_socket_new(exchange->loop->base, fd, BEV_OPT_CLOSE_ON_FREE);
    if (!exchange->timer || !exchange->out || !exchange->stream)
        return false;
    int one = 1;
    (void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    (void)setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &one, sizeof one);
    struct timeval write_timeout = time_of_ms(options->write_timeout_ms);
    bufferevent_setcb(exchange->stream, on_readable, on_written, on_event, exchange);
    bufferevent_setwatermark(exchange->stream, EV_READ, 0, options->max_head_bytes);
    (void)bufferevent_set_max_single_read(exchange->stream, HTTP_READ_BYTES);
    (void)bufferevent_set_max_single_write(exchange->stream, HTTP_READ_BYTES);
    return bufferevent_set_timeouts(exchange->stream, NULL, &write_timeout) == 0 &&
           evbuffer_add_cb(bufferevent_get_output(exchange->stream), count_output, exchange) != NULL &&
           bufferevent_enable(exchange->stream, EV_READ | EV_WRITE) == 0;
}

/* A tenth more or less, so that connections opened together do not end together. */
static int64_t old_at_ns(const struct http_server_options *options)
{
    if (options->max_connection_age_ms <= 0)
        return INT64_MAX;
    int64_t now_ns = clock_now_ns(clock_monotonic());
    return now_ns + options->max_connection_age_ms * (900 + now_ns / 1000 % 201) * 1000;
}

static void abandon(struct http_exchange *exchange, int fd)
{
    if (exchange->stream)
        bufferevent_free(exchange->stream);
    else
        (void)close(fd);
    if (exchange->timer)
        event_free(exchange->timer);
    if (exchange->out)
        evbuffer_free(exchange->out);
    mem_free(exchange);
}

void http_connection_open(struct http_loop *loop, int fd, bool refused)
{
    struct http_exchange *exchange = mem_alloc(sizeof *exchange);
    if (!exchange) {
        (void)close(fd);
        http_server_forget_connection(loop->server);
        return;
    }
    exchange->server = loop->server;
    exchange->loop = loop;
    exchange->old_at_ns = old_at_ns(&loop->server->options);
    if (!open_stream(exchange, fd)) {
        abandon(exchange, fd);
        http_server_forget_connection(loop->server);
        return;
    }
    LIST_INSERT_HEAD(&loop->all, exchange, all_link);
    exchange->wait = HTTP_WAIT_NONE;
    http_place_wait(exchange, HTTP_WAIT_HEAD);
    set_timer(exchange, loop->server->options.head_timeout_ms);
    if (refused) {
        http_exchange_header(exchange, "retry-after", "1");
        refuse(exchange, 503, "the server has as many connections as it takes; try again");
    }
}

void http_connection_stop(struct http_exchange *exchange)
{
    if (exchange->state == EXCHANGE_HEAD || exchange->state == EXCHANGE_BODY ||
        exchange->state == EXCHANGE_LINGER) {
        destroy(exchange);
        return;
    }
    if (exchange->state != EXCHANGE_OPEN)
        return; /* on its way, or a worker has it */
    exchange->server->options.pump(exchange->server->options.context, exchange);
    if (exchange->complete)
        settle(exchange);
    else
        destroy(exchange);
}
