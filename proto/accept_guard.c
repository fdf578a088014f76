#include "proto/accept_guard.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <stdbool.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>
#include "base/assert.h"
#include "base/clock.h"
#include "base/log_repeat.h"
#include "proto/listen_drain.h"

struct accept_guard {
    uint16_t port; /* 0: the slot is free */
    int sockets[ACCEPT_GUARD_SOCKETS];
    uint32_t n_sockets;
    uint32_t max_connections;
    uint32_t n_at_most; /* connections when they were last counted, and all accepted since */
    int64_t counted_ns; /* when that was */
    int spare;          /* a descriptor to let go of when there is no other; -1 = not to be had */
    const struct connection_watch *watch;
    struct log_repeat repeat;
};

static struct {
    pthread_mutex_t mutex; /* of everything here */
    struct accept_guard guards[ACCEPT_GUARDS_MAX];
} state = {.mutex = PTHREAD_MUTEX_INITIALIZER};

static int open_spare(void)
{
    return open("/dev/null", O_RDONLY | O_CLOEXEC);
}

err_t accept_guard_open(const struct connection_watch *watch, uint32_t max_connections,
                        struct accept_guard **out)
{
    uint16_t port = watch->port;
    ASSERT(port > 0 && max_connections > 0);
    struct accept_guard guard = {.port = port, .max_connections = max_connections, .watch = watch};
    guard.n_sockets = listen_sockets(port, guard.sockets, ACCEPT_GUARD_SOCKETS);
    if (guard.n_sockets == 0 || guard.n_sockets > ACCEPT_GUARD_SOCKETS)
        return err_new(ERR_RESOURCE_EXHAUSTED, "%u sockets listen at port %u; 1 to %d can be guarded",
                       guard.n_sockets, port, ACCEPT_GUARD_SOCKETS);
    pthread_mutex_lock(&state.mutex);
    *out = NULL;
    for (int i = 0; i < ACCEPT_GUARDS_MAX && !*out; i++)
        if (state.guards[i].port == 0)
            *out = &state.guards[i];
    if (*out) {
        guard.spare = open_spare();
        **out = guard;
    }
    pthread_mutex_unlock(&state.mutex);
    if (!*out)
        return err_new(ERR_RESOURCE_EXHAUSTED, "%d ports are guarded already", ACCEPT_GUARDS_MAX);
    return err_ok();
}

void accept_guard_close(struct accept_guard *guard)
{
    if (!guard)
        return;
    pthread_mutex_lock(&state.mutex);
    ASSERT(guard->port != 0);
    if (guard->spare >= 0)
        (void)close(guard->spare);
    *guard = (struct accept_guard){.port = 0};
    pthread_mutex_unlock(&state.mutex);
}

/* With the mutex. */
static struct accept_guard *guard_of(int socket)
{
    for (int i = 0; i < ACCEPT_GUARDS_MAX; i++)
        for (uint32_t j = 0; j < state.guards[i].n_sockets; j++)
            if (state.guards[i].sockets[j] == socket)
                return &state.guards[i];
    return NULL;
}

static void count_refusal(struct accept_guard *guard, const char *why)
{
    uint64_t n_silent;
    metric_add(&guard->watch->metrics->connections_refused[METRIC_DOOR_GRPC], 1);
    if (log_repeat_due(&guard->repeat, clock_now_ns(clock_monotonic()), &n_silent))
        log_warn("grpc", "closing connections at port %u: %s; %llu more since the last such line",
                 guard->port, why, (unsigned long long)n_silent);
}

static bool has_room(struct accept_guard *guard)
{
    int64_t now_ns = clock_now_ns(clock_monotonic());
    if (guard->n_at_most >= guard->max_connections &&
        now_ns - guard->counted_ns >= ACCEPT_COUNT_MS * INT64_C(1000000)) {
        guard->counted_ns = now_ns;
        guard->n_at_most = listen_connections(guard->port) - 1; /* without the one that knocks */
    }
    if (guard->n_at_most >= guard->max_connections)
        return false;
    guard->n_at_most++;
    return true;
}

/* Its client has said nothing and will say nothing. */
static bool has_gone(int connection)
{
    char byte;
    return recv(connection, &byte, 1, MSG_PEEK | MSG_DONTWAIT) == 0;
}

static bool may_come_in(int socket, int connection)
{
    pthread_mutex_lock(&state.mutex);
    struct accept_guard *guard = guard_of(socket);
    bool gone = guard && has_gone(connection);
    bool room = !guard || gone || has_room(guard);
    if (!room)
        count_refusal(guard, "there are as many as it takes (--max-grpc-connections)");
    if (guard && room && !gone)
        connection_watch_begin(guard->watch, connection);
    pthread_mutex_unlock(&state.mutex);
    return room && !gone;
}

static int system_accept(int socket, struct sockaddr *address, socklen_t *address_bytes, int flags)
{
    return (int)syscall(SYS_accept4, socket, address, address_bytes, flags);
}

/* Nothing is left for one more: closes who knocks. False when even that failed. Another thread may take what
 * the spare descriptor leaves, mostly not for long; whoever still waits after that waits for the next to
 * knock. */
static bool turn_away(struct accept_guard *guard, int socket)
{
    if (guard->spare >= 0)
        (void)close(guard->spare);
    int connection = system_accept(socket, NULL, NULL, SOCK_CLOEXEC);
    for (int i = 0; i < ACCEPT_SPARE_TRIES && connection < 0 && errno != EAGAIN; i++) {
        (void)sched_yield();
        connection = system_accept(socket, NULL, NULL, SOCK_CLOEXEC);
    }
    if (connection >= 0)
        (void)close(connection);
    guard->spare = open_spare();
    if (connection >= 0)
        count_refusal(guard, "the process has no file descriptor or memory for more");
    return connection >= 0;
}

/* After accept4 has failed at a socket: whether to try again. What is left in errno is for the library, which
 * survives EAGAIN. */
static bool get_over(int socket, int reason)
{
    bool again = false;
    pthread_mutex_lock(&state.mutex);
    struct accept_guard *guard = guard_of(socket);
    switch (guard ? reason : EAGAIN) {
    case EMFILE:
    case ENFILE:
    case ENOBUFS:
    case ENOMEM:
        again = turn_away(guard, socket);
        reason = EAGAIN;
        break;
    case ECONNABORTED: /* errors of the connection that waited, not of the socket (accept(2)) */
    case EPERM:
    case EPROTO:
    case ENOPROTOOPT:
    case ENETDOWN:
    case ENETUNREACH:
    case EHOSTDOWN:
    case EHOSTUNREACH:
    case ENONET:
    case EOPNOTSUPP:
        again = true;
        break;
    default:
        break;
    }
    pthread_mutex_unlock(&state.mutex);
    errno = reason;
    return again;
}

__attribute__((visibility("default"))) int accept4(int socket, struct sockaddr *address,
                                                   socklen_t *address_bytes, int flags)
{
    socklen_t room_bytes = address_bytes ? *address_bytes : 0;
    for (;;) {
        if (address_bytes)
            *address_bytes = room_bytes;
        int connection = system_accept(socket, address, address_bytes, flags);
        if (connection >= 0) {
            if (may_come_in(socket, connection))
                return connection;
            (void)close(connection);
        } else if (!get_over(socket, errno)) {
            return -1;
        }
    }
}
