/* Who gives way when all places are taken: the connection that has waited longest without having sent a whole
 * head, else the one that has been without a request for longest; never one that has a request under way. */
#include <string.h>
#include <unistd.h>
#include "base/assert.h"
#include "base/clock.h"
#include "base/log.h"
#include "proto/http_server_internal.h"

/* --- who waits, on the connection's own loop */

/* What other loops go by. */
static void publish_oldest(struct http_waiting *waiting)
{
    const struct http_exchange *oldest = TAILQ_FIRST(&waiting->queue);
    atomic_store(&waiting->oldest_ns, oldest ? oldest->wait_since_ns : INT64_MAX);
}

void http_place_wait(struct http_exchange *exchange, enum http_wait wait)
{
    if (exchange->wait == wait)
        return;
    if (exchange->wait != HTTP_WAIT_NONE) {
        struct http_waiting *left = &exchange->loop->waiting[exchange->wait];
        TAILQ_REMOVE(&left->queue, exchange, wait_link);
        publish_oldest(left);
    }
    exchange->wait = wait;
    if (wait != HTTP_WAIT_NONE) {
        struct http_waiting *entered = &exchange->loop->waiting[wait];
        exchange->wait_since_ns = clock_now_ns(clock_monotonic());
        TAILQ_INSERT_TAIL(&entered->queue, exchange, wait_link);
        publish_oldest(entered);
    }
}

void http_places_init(struct http_loop *loop)
{
    for (int wait = 0; wait < HTTP_WAITS; wait++) {
        TAILQ_INIT(&loop->waiting[wait].queue);
        atomic_init(&loop->waiting[wait].oldest_ns, INT64_MAX);
    }
}

/* --- a connection more than there are places */

/* Those that are refused or handed over hold descriptors too: few where there are few. */
static bool extras_are_taken(struct http_server *server)
{
    uint32_t max = server->options.max_connections;
    uint32_t extra = max / 4 < HTTP_REFUSALS_MAX ? max / 4 + 1 : HTTP_REFUSALS_MAX;
    return atomic_load(&server->n_connections) > max + extra;
}

bool http_places_must_wait(struct http_server *server)
{
    return atomic_load(&server->n_handed) > 0 && extras_are_taken(server);
}

/* The loop whose connection has waited so for longest; NULL = nobody waits. */
static struct http_loop *find_oldest(struct http_server *server, enum http_wait wait)
{
    struct http_loop *found = NULL;
    int64_t oldest_ns = INT64_MAX;
    for (int i = 0; i < server->options.n_loop_threads; i++) {
        int64_t ns = atomic_load(&server->loops[i].waiting[wait].oldest_ns);
        if (ns < oldest_ns) {
            found = &server->loops[i];
            oldest_ns = ns;
        }
    }
    return found;
}

static void evict_oldest(struct http_loop *loop, enum http_wait wait)
{
    const struct http_server_options *options = &loop->server->options;
    struct http_exchange *oldest = TAILQ_FIRST(&loop->waiting[wait].queue);
    ASSERT(oldest && oldest->state == EXCHANGE_HEAD && !oldest->handled);
    uint64_t n_silent;
    if (options->metrics)
        metric_add(&options->metrics->http_connections_evicted[0], 1);
    if (log_repeat_due(&loop->evicted, clock_now_ns(clock_monotonic()), &n_silent))
        log_warn("http",
                 "all %u connections at port %u are taken: one that has no request under way gives way to a "
                 "new one; %llu more since the last such line",
                 options->max_connections, loop->server->port, (unsigned long long)n_silent);
    http_connection_close(oldest);
}

/* False: it takes no more. */
static bool hand_over(struct http_loop *loop, int fd)
{
    pthread_mutex_lock(&loop->mutex);
    bool taken = !loop->handed_closed && loop->n_handed < HTTP_HANDED_MAX;
    if (taken) {
        loop->handed[loop->n_handed++] = fd;
        atomic_fetch_add(&loop->server->n_handed, 1);
    }
    bool is_first = taken && loop->n_handed == 1;
    pthread_mutex_unlock(&loop->mutex);
    if (is_first)
        http_loop_wake(loop);
    return taken;
}

/* Takes over the descriptor, or false: everybody has a request under way. */
static bool make_room(struct http_loop *loop, int fd)
{
    for (int wait = 0; wait < HTTP_WAITS; wait++) {
        struct http_loop *holder = find_oldest(loop->server, wait);
        if (holder && holder != loop && hand_over(holder, fd))
            return true;
        if (holder && !TAILQ_EMPTY(&loop->waiting[wait].queue)) {
            evict_oldest(loop, wait);
            http_connection_open(loop, fd, false);
            return true;
        }
    }
    return false;
}

static void refuse_place(struct http_loop *loop, int fd)
{
    struct http_server *server = loop->server;
    const struct http_server_options *options = &server->options;
    uint64_t n_silent;
    if (options->metrics)
        metric_add(&options->metrics->connections_refused[METRIC_DOOR_HTTP], 1);
    if (log_repeat_due(&loop->full, clock_now_ns(clock_monotonic()), &n_silent))
        log_warn("http",
                 "refusing connections at port %u: there are %u already; %llu more since the last such line",
                 server->port, options->max_connections, (unsigned long long)n_silent);
    if (options->tls || extras_are_taken(server)) { /* under TLS being told would take a handshake */
        http_server_forget_connection(server);
        (void)close(fd);
        return;
    }
    http_connection_open(loop, fd, true);
}

void http_place_find(struct http_loop *loop, int fd)
{
    if (!make_room(loop, fd))
        refuse_place(loop, fd);
}

void http_places_take_handed(struct http_loop *loop, bool last)
{
    int handed[HTTP_HANDED_MAX];
    pthread_mutex_lock(&loop->mutex);
    loop->handed_closed = last;
    uint32_t n_handed = loop->n_handed;
    memcpy(handed, loop->handed, n_handed * sizeof handed[0]);
    loop->n_handed = 0;
    pthread_mutex_unlock(&loop->mutex);
    for (uint32_t i = 0; i < n_handed; i++) {
        http_place_find(loop, handed[i]);
        atomic_fetch_sub(&loop->server->n_handed, 1);
    }
}
