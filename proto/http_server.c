/* The loop threads: accepting, waking, stopping. */
#include "proto/http_server.h"

#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>
#include "base/alloc.h"
#include "base/assert.h"
#include "base/clock.h"
#include "base/log.h"
#include "proto/http_server_internal.h"
#include "proto/listen_address.h"

static _Thread_local struct http_loop *own_loop; /* of the thread, where it is one */

void http_loop_wake(struct http_loop *loop)
{
    uint64_t one = 1;
    (void)!write(loop->wake_fd, &one, sizeof one); /* full: it will wake up anyway */
}

void http_exchange_wake(struct http_exchange *exchange)
{
    struct http_loop *loop = exchange->loop;
    pthread_mutex_lock(&loop->mutex);
    bool is_first = TAILQ_EMPTY(&loop->woken) && !exchange->is_woken;
    if (!exchange->is_woken) {
        TAILQ_INSERT_TAIL(&loop->woken, exchange, woken_link);
        loop->n_woken++;
    }
    exchange->is_woken = true;
    pthread_mutex_unlock(&loop->mutex);
    if (!is_first)
        return;
    if (own_loop == loop)
        event_active(loop->woken_event, EV_TIMEOUT, 0);
    else
        http_loop_wake(loop);
}

void http_loop_forget_woken(struct http_exchange *exchange)
{
    struct http_loop *loop = exchange->loop;
    pthread_mutex_lock(&loop->mutex);
    if (exchange->is_woken) {
        TAILQ_REMOVE(&loop->woken, exchange, woken_link);
        loop->n_woken--;
    }
    exchange->is_woken = false;
    pthread_mutex_unlock(&loop->mutex);
}

void http_loop_check_end(struct http_loop *loop)
{
    if (loop->stop_begun && LIST_EMPTY(&loop->all))
        (void)event_base_loopbreak(loop->base);
}

uint32_t http_server_count_connection(struct http_server *server)
{
    if (server->options.metrics)
        metric_add(&server->options.metrics->http_connections[0], 1);
    return atomic_fetch_add(&server->n_connections, 1);
}

void http_server_forget_connection(struct http_server *server)
{
    if (server->options.metrics)
        metric_subtract(&server->options.metrics->http_connections[0], 1);
    atomic_fetch_sub(&server->n_connections, 1);
}

/* --- on the loop's thread */

static void set_accepting(struct http_loop *loop, bool accepting)
{
    for (size_t i = 0; i < loop->server->n_listen_fds; i++)
        (void)(accepting ? evconnlistener_enable(loop->listeners[i])
                         : evconnlistener_disable(loop->listeners[i]));
}

/* on_resume follows. */
static void pause_accepting(struct http_loop *loop, int ms)
{
    struct timeval pause = {.tv_usec = ms * 1000};
    set_accepting(loop, false);
    (void)evtimer_add(loop->resume_event, &pause);
}

/* Ends the turn when it has taken enough: the next begins when whatever else has come was looked at. */
static void count_accepted(struct http_loop *loop)
{
    uint32_t quarter = loop->server->options.max_connections / 4;
    if (++loop->n_accepted < HTTP_ACCEPTS_MAX && loop->n_accepted < quarter)
        return;
    set_accepting(loop, false);
    event_active(loop->resume_event, EV_TIMEOUT, 0);
}

static void on_accept(struct evconnlistener *listener, evutil_socket_t fd, struct sockaddr *address,
                      int address_bytes, void *argument)
{
    (void)listener;
    (void)address;
    (void)address_bytes;
    struct http_loop *loop = argument;
    if (http_server_count_connection(loop->server) < loop->server->options.max_connections)
        http_connection_open(loop, fd, false);
    else
        http_place_find(loop, fd);
    if (http_places_must_wait(loop->server))
        pause_accepting(loop, HTTP_HANDED_PAUSE_MS);
    else
        count_accepted(loop);
}

static void on_accept_failed(struct evconnlistener *listener, void *argument)
{
    (void)listener;
    struct http_loop *loop = argument;
    int reason = errno;
    uint64_t n_silent;
    if (log_repeat_due(&loop->failed, clock_now_ns(clock_monotonic()), &n_silent))
        log_warn("http",
                 "cannot accept connections at port %u: %s; %llu more failures since the last such line",
                 loop->server->port, strerror(reason), (unsigned long long)n_silent);
    pause_accepting(loop, HTTP_ACCEPT_PAUSE_MS); /* it would be tried again and again meanwhile */
}

static void on_resume(evutil_socket_t fd, short what, void *argument)
{
    (void)fd;
    (void)what;
    struct http_loop *loop = argument;
    loop->n_accepted = 0;
    if (loop->stop_begun)
        return;
    if (http_places_must_wait(loop->server))
        pause_accepting(loop, HTTP_HANDED_PAUSE_MS);
    else
        set_accepting(loop, true);
}

static void on_grace_over(evutil_socket_t fd, short what, void *argument)
{
    (void)fd;
    (void)what;
    struct http_loop *loop = argument;
    for (struct http_exchange *e = LIST_FIRST(&loop->all), *next; e; e = next) {
        next = LIST_NEXT(e, all_link);
        http_connection_close(e);
    }
}

static void begin_stop(struct http_loop *loop)
{
    struct http_server *server = loop->server;
    loop->stop_begun = true;
    set_accepting(loop, false);
    for (struct http_exchange *e = LIST_FIRST(&loop->all), *next; e; e = next) {
        next = LIST_NEXT(e, all_link);
        http_connection_stop(e);
    }
    int64_t grace_ms = atomic_load(&server->grace_ms);
    struct timeval grace = {.tv_sec = (time_t)(grace_ms / 1000),
                            .tv_usec = (suseconds_t)(grace_ms % 1000 * 1000)};
    (void)evtimer_add(loop->grace_event, &grace);
    atomic_fetch_add(&server->n_stopping, 1);
    event_count_bump(&server->stop_heard);
    http_loop_check_end(loop);
}

static void take_returned(struct http_loop *loop)
{
    pthread_mutex_lock(&loop->mutex);
    struct http_exchange *exchange = loop->returned;
    loop->returned = NULL;
    pthread_mutex_unlock(&loop->mutex);
    while (exchange) {
        struct http_exchange *next = exchange->next_returned;
        http_connection_returned(exchange);
        exchange = next;
    }
}

/* One that was woken since the turn began waits for the next one. */
static void pump_woken(struct http_loop *loop)
{
    pthread_mutex_lock(&loop->mutex);
    uint32_t n = loop->n_woken;
    pthread_mutex_unlock(&loop->mutex);
    while (n-- > 0) {
        pthread_mutex_lock(&loop->mutex);
        struct http_exchange *exchange = TAILQ_FIRST(&loop->woken);
        pthread_mutex_unlock(&loop->mutex);
        if (!exchange)
            return;
        http_loop_forget_woken(exchange);
        if (exchange->state == EXCHANGE_OPEN)
            http_connection_pump(exchange);
    }
    pthread_mutex_lock(&loop->mutex);
    bool is_empty = TAILQ_EMPTY(&loop->woken);
    pthread_mutex_unlock(&loop->mutex);
    if (!is_empty)
        event_active(loop->woken_event, EV_TIMEOUT, 0);
}

static void on_woken(evutil_socket_t fd, short what, void *argument)
{
    (void)fd;
    (void)what;
    pump_woken(argument);
}

static void on_wake(evutil_socket_t fd, short what, void *argument)
{
    (void)what;
    struct http_loop *loop = argument;
    uint64_t count;
    (void)!read((int)fd, &count, sizeof count);
    take_returned(loop);
    bool stopping = atomic_load(&loop->server->stopping);
    http_places_take_handed(loop, stopping);
    if (stopping && !loop->stop_begun)
        begin_stop(loop);
    pump_woken(loop);
    if (!atomic_exchange(&loop->has_progress, false) && !stopping)
        return;
    for (struct http_exchange *e = LIST_FIRST(&loop->open), *next; e; e = next) {
        next = LIST_NEXT(e, open_link);
        http_connection_pump(e);
    }
}

static void *loop_main(void *argument)
{
    struct http_loop *loop = argument;
    sigset_t broken_pipe;
    own_loop = loop;
    sigemptyset(&broken_pipe);
    sigaddset(&broken_pipe, SIGPIPE);
    (void)pthread_sigmask(SIG_BLOCK, &broken_pipe, NULL);
    const struct loop_hooks *hooks = &loop->server->options.hooks;
    if (hooks->began)
        hooks->began(hooks->context, loop->base);
    (void)event_base_loop(loop->base, EVLOOP_NO_EXIT_ON_EMPTY);
    if (hooks->ends)
        hooks->ends(hooks->context);
    /* A callback of a stream under TLS that is still to run holds the stream's memory. */
    while (event_base_get_num_events(loop->base, EVENT_BASE_COUNT_ACTIVE) > 0)
        (void)event_base_loop(loop->base, EVLOOP_NONBLOCK);
    ASSERT(LIST_EMPTY(&loop->all));
    return NULL;
}

/* --- the flusher's item of a loop */

static enum pump_result wake_at_progress(struct flush_item *item)
{
    struct http_loop *loop = (struct http_loop *)item;
    if (atomic_load(&loop->ended))
        return PUMP_DONE;
    if (atomic_load(&loop->n_open) > 0 && !atomic_exchange(&loop->has_progress, true))
        http_loop_wake(loop);
    return PUMP_IDLE;
}

static void let_go_of_loop(struct flush_item *item)
{
    (void)item; /* the server's own memory */
}

/* --- opening and closing */

static err_t open_loop(struct http_server *server, struct http_loop *loop)
{
    err_t no_memory = err_new(ERR_RESOURCE_EXHAUSTED, "no memory for a loop of the HTTP server");
    loop->server = server;
    loop->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    server->n_loops++;
    if (loop->wake_fd < 0)
        return err_new(ERR_RESOURCE_EXHAUSTED, "cannot make an eventfd: %s", strerror(errno));
    LIST_INIT(&loop->all);
    LIST_INIT(&loop->open);
    TAILQ_INIT(&loop->woken);
    struct event_config *config = event_config_new();
    if (!config)
        return no_memory;
    (void)event_config_set_flag(config, EVENT_BASE_FLAG_NOLOCK);
    loop->base = event_base_new_with_config(config);
    event_config_free(config);
    if (!loop->base)
        return no_memory;
    loop->wake_event = event_new(loop->base, loop->wake_fd, EV_READ | EV_PERSIST, on_wake, loop);
    loop->woken_event = evtimer_new(loop->base, on_woken, loop);
    loop->resume_event = evtimer_new(loop->base, on_resume, loop);
    loop->grace_event = evtimer_new(loop->base, on_grace_over, loop);
    if (!loop->wake_event || !loop->woken_event || !loop->resume_event || !loop->grace_event ||
        event_add(loop->wake_event, NULL))
        return no_memory;
    for (size_t i = 0; i < server->n_listen_fds; i++) {
        loop->listeners[i] =
            evconnlistener_new(loop->base, on_accept, loop, LEV_OPT_CLOSE_ON_EXEC, 0, server->listen_fds[i]);
        if (!loop->listeners[i])
            return no_memory;
        evconnlistener_set_error_cb(loop->listeners[i], on_accept_failed);
    }
    if (pthread_create(&loop->thread, NULL, loop_main, loop) != 0)
        return err_new(ERR_RESOURCE_EXHAUSTED, "cannot start a thread of the HTTP server");
    loop->thread_started = true;
    (void)pthread_setname_np(loop->thread, "bantam-http");
    loop->wake_item.pump = wake_at_progress;
    loop->wake_item.let_go = let_go_of_loop;
    flusher_add(server->flusher, &loop->wake_item);
    return err_ok();
}

static void free_loop(struct http_server *server, struct http_loop *loop)
{
    for (size_t i = 0; i < server->n_listen_fds; i++)
        if (loop->listeners[i])
            evconnlistener_free(loop->listeners[i]);
    if (loop->wake_event)
        event_free(loop->wake_event);
    if (loop->woken_event)
        event_free(loop->woken_event);
    if (loop->resume_event)
        event_free(loop->resume_event);
    if (loop->grace_event)
        event_free(loop->grace_event);
    if (loop->base)
        event_base_free(loop->base);
    if (loop->wake_fd >= 0)
        (void)close(loop->wake_fd);
    ASSERT(loop->n_handed == 0);
    pthread_mutex_destroy(&loop->mutex);
}

static void stop_loops(struct http_server *server)
{
    uint32_t n_started = 0;
    atomic_store(&server->stopping, true);
    for (int i = 0; i < server->n_loops; i++) {
        n_started += server->loops[i].thread_started;
        if (server->loops[i].thread_started)
            http_loop_wake(&server->loops[i]);
    }
    for (;;) {
        uint32_t seen = event_count_read(&server->stop_heard);
        if (atomic_load(&server->n_stopping) == n_started)
            break;
        event_count_wait(&server->stop_heard, seen, -1);
    }
    work_queue_destroy(server->workers); /* no loop gives them anything any more */
    for (int i = 0; i < server->n_loops; i++) {
        struct http_loop *loop = &server->loops[i];
        if (!loop->thread_started)
            continue;
        pthread_join(loop->thread, NULL);
        atomic_store(&loop->ended, true);
        flush_item_pump(server->flusher, &loop->wake_item);
    }
}

void http_server_close(struct http_server *server, int64_t grace_ns)
{
    if (!server)
        return;
    atomic_store(&server->grace_ms, grace_ns / 1000000);
    stop_loops(server);
    flusher_destroy(server->flusher);
    for (int i = 0; i < server->n_loops; i++)
        free_loop(server, &server->loops[i]);
    for (size_t i = 0; i < server->n_listen_fds; i++)
        (void)close(server->listen_fds[i]);
    ASSERT(atomic_load(&server->n_connections) == 0);
    ASSERT(atomic_load(&server->pending_bytes) == 0 && atomic_load(&server->output_bytes) == 0);
    mem_free(server);
}

static err_t start(struct http_server *server)
{
    const struct http_server_options *options = &server->options;
    TRY(listen_open(options->host, options->port, server->listen_fds, HTTP_LISTEN_ADDRESSES_MAX,
                    &server->n_listen_fds, &server->port));
    TRY(flusher_create(options->progress, clock_monotonic(), &server->flusher));
    TRY(work_queue_create(options->n_worker_threads, &server->workers));
    for (int i = 0; i < options->n_loop_threads; i++) { /* all: the first one that runs looks at the others */
        pthread_mutex_init(&server->loops[i].mutex, NULL);
        http_places_init(&server->loops[i]);
    }
    for (int i = 0; i < options->n_loop_threads; i++)
        TRY(open_loop(server, &server->loops[i]));
    return err_ok();
}

err_t http_server_open(const struct http_server_options *options, struct http_server **out)
{
    ASSERT(options->n_loop_threads >= 1 && options->n_loop_threads <= HTTP_THREADS_MAX);
    struct http_server *server = mem_alloc(sizeof *server);
    if (!server)
        return err_new(ERR_RESOURCE_EXHAUSTED, "no memory for the HTTP server");
    server->options = *options;
    err_t e = start(server);
    if (e.code != ERR_OK) {
        http_server_close(server, 0);
        return e;
    }
    *out = server;
    return e;
}

uint16_t http_server_port(const struct http_server *server)
{
    return server->port;
}

void http_server_drain(struct http_server *server)
{
    atomic_store(&server->draining, true);
}
