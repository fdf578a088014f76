#include "proto/connection_watch.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>
#include "base/assert.h"
#include "base/clock.h"
#include "base/log_repeat.h"

#define VISIBLE __attribute__((visibility("default")))

/* One thread at a time reads a connection, adds it to epoll and closes it: core sees to that. The atomic
 * hands the rest over from one to the next. */
struct watched {
    const struct connection_watch *_Atomic watch; /* NULL: nobody's */
    int epoll;                                    /* that tells core of it; -1 = none yet */
    struct epoll_event wanted;
    size_t turn_bytes;     /* read in this turn */
    uint32_t turn_streams; /* as many were open when it began */
    uint8_t refusals_left; /* until the next one */
    bool is_hurried;       /* it begins many calls */
    bool is_cut;
    struct frame_count frames;
};

static struct watched table[WATCH_FILES];
static _Thread_local const struct connection_watch *reading;

static struct {
    pthread_mutex_t mutex;
    struct log_repeat repeat;
} cuts = {.mutex = PTHREAD_MUTEX_INITIALIZER};

static struct watched *find(int fd, const struct connection_watch **watch)
{
    if (fd < 0 || fd >= WATCH_FILES)
        return NULL;
    *watch = atomic_load_explicit(&table[fd].watch, memory_order_acquire);
    return *watch ? &table[fd] : NULL;
}

/* To the next thread; not when it was closed meanwhile. */
static void hand_over(struct watched *watched, const struct connection_watch *watch)
{
    (void)atomic_compare_exchange_strong_explicit(&watched->watch, &watch, watch, memory_order_release,
                                                  memory_order_relaxed);
}

void connection_watch_begin(const struct connection_watch *watch, int fd)
{
    if (fd >= WATCH_FILES)
        return;
    struct watched *watched = &table[fd];
    watched->epoll = -1;
    watched->turn_bytes = 0;
    watched->turn_streams = 0;
    watched->refusals_left = 0;
    watched->is_hurried = false;
    watched->is_cut = false;
    watched->frames = (struct frame_count){.n_head = 0};
    atomic_store_explicit(&watched->watch, watch, memory_order_release);
}

void connection_watch_end(const struct connection_watch *watch)
{
    for (int fd = 0; fd < WATCH_FILES; fd++)
        if (atomic_load(&table[fd].watch) == watch)
            atomic_store(&table[fd].watch, NULL);
}

const struct connection_watch *connection_watch_reading(void)
{
    return reading;
}

void connection_watch_count_cut(const struct connection_watch *watch, enum frame_fault fault)
{
    uint64_t n_silent;
    metric_add(&watch->metrics->grpc_connections_cut[0], 1);
    pthread_mutex_lock(&cuts.mutex);
    if (log_repeat_due(&cuts.repeat, clock_now_ns(clock_monotonic()), &n_silent))
        log_warn("grpc", "closing a connection at port %u: %s; %llu more since the last such line",
                 watch->port, frame_fault_text(fault), (unsigned long long)n_silent);
    pthread_mutex_unlock(&cuts.mutex);
}

static void count_frames(struct watched *watched, const struct connection_watch *watch,
                         const struct msghdr *message, size_t n_bytes)
{
    int64_t now_ns = clock_now_ns(clock_monotonic());
    for (size_t i = 0; n_bytes > 0; i++) {
        ASSERT(i < message->msg_iovlen);
        size_t size = message->msg_iov[i].iov_len < n_bytes ? message->msg_iov[i].iov_len : n_bytes;
        enum frame_fault fault =
            frame_count_add(&watched->frames, &watch->limits, message->msg_iov[i].iov_base, size, now_ns);
        if (fault != FRAME_FINE) {
            watched->is_cut = true;
            connection_watch_count_cut(watch, fault);
            return;
        }
        n_bytes -= size;
    }
}

static void end_turn_when_due(struct watched *watched)
{
    bool many_calls = watched->frames.n_opened - watched->turn_streams >= WATCH_TURN_STREAMS;
    if (!many_calls && watched->turn_bytes < WATCH_TURN_BYTES)
        return;
    watched->is_hurried = many_calls;
    watched->refusals_left = WATCH_REFUSALS;
    watched->turn_bytes = 0;
    watched->turn_streams = watched->frames.n_opened;
}

/* Whether others come first, and core will hear of this connection again by itself. */
static bool lets_others(struct watched *watched, int fd)
{
    if (watched->refusals_left == 0 || watched->epoll < 0)
        return false;
    watched->refusals_left--;
    return syscall(SYS_epoll_ctl, watched->epoll, EPOLL_CTL_MOD, fd, &watched->wanted) == 0;
}

static ssize_t read_some(const struct watched *watched, int fd, struct msghdr *message, int flags)
{
    if (!watched->is_hurried || message->msg_iovlen == 0 ||
        message->msg_iov[0].iov_len <= WATCH_HURRIED_BYTES)
        return syscall(SYS_recvmsg, fd, message, flags);
    struct iovec room = {message->msg_iov[0].iov_base, WATCH_HURRIED_BYTES};
    struct msghdr shorter = *message;
    shorter.msg_iov = &room;
    shorter.msg_iovlen = 1;
    ssize_t n_bytes = syscall(SYS_recvmsg, fd, &shorter, flags);
    message->msg_controllen = shorter.msg_controllen;
    message->msg_flags = shorter.msg_flags;
    return n_bytes;
}

static ssize_t read_watched(struct watched *watched, const struct connection_watch *watch, int fd,
                            struct msghdr *message, int flags)
{
    if (!watched->is_cut && lets_others(watched, fd)) {
        errno = EAGAIN;
        return -1;
    }
    ssize_t n_bytes = watched->is_cut ? -1 : read_some(watched, fd, message, flags);
    reading = watch->clear_text ? NULL : watch;
    if (n_bytes > 0) {
        watched->turn_bytes += (size_t)n_bytes;
        if (watch->clear_text)
            count_frames(watched, watch, message, (size_t)n_bytes);
        end_turn_when_due(watched);
    }
    if (!watched->is_cut)
        return n_bytes;
    errno = ECONNRESET;
    return -1;
}

VISIBLE ssize_t recvmsg(int fd, struct msghdr *message, int flags)
{
    const struct connection_watch *watch;
    struct watched *watched = find(fd, &watch);
    if (!watched || (flags & (MSG_PEEK | MSG_ERRQUEUE)) != 0)
        return syscall(SYS_recvmsg, fd, message, flags);
    ssize_t n_bytes = read_watched(watched, watch, fd, message, flags);
    int reason = errno;
    hand_over(watched, watch);
    errno = reason;
    return n_bytes;
}

VISIBLE int epoll_ctl(int epoll, int operation, int fd, struct epoll_event *event)
{
    const struct connection_watch *watch;
    struct watched *watched = find(fd, &watch);
    if (watched) {
        watched->epoll = operation == EPOLL_CTL_DEL ? -1 : epoll;
        if (operation != EPOLL_CTL_DEL)
            watched->wanted = *event;
        hand_over(watched, watch);
    }
    return (int)syscall(SYS_epoll_ctl, epoll, operation, fd, event);
}

VISIBLE int close(int fd)
{
    const struct connection_watch *watch;
    struct watched *watched = find(fd, &watch);
    if (watched)
        atomic_store_explicit(&watched->watch, NULL, memory_order_release);
    return (int)syscall(SYS_close, fd);
}
