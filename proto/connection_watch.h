/* What gRPC core reads from its clients goes through here, so that no connection keeps a thread to itself,
 * and those that only mean to cost are ended.
 *
 * Core 1.51 reads a connection for as long as there is something to read, on the thread that is to look at
 * all others and to hand over calls: a flood is read to its end first, and its calls pile up in memory. So
 * connection_watch.c defines recvmsg, epoll_ctl and close for the whole process, as accept_guard.c does
 * accept4. On a watched connection recvmsg says now and then that nothing is there (EAGAIN) and asks epoll to
 * tell of it anew: others then come first. What is read is counted (frame_count.h); at a fault the connection
 * looks reset to core, which closes it. For all other files they are the system calls and nothing else. */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include "api/metrics.h"
#include "proto/frame_count.h"

enum {
    WATCH_FILES = 65536,         /* a descriptor beyond is not watched */
    WATCH_TURN_BYTES = 16 << 10, /* about so much is read of a connection until others have had their turn */
    WATCH_TURN_STREAMS = 16, /* or when so many calls were begun; then it is read by so many bytes only: */
    WATCH_HURRIED_BYTES = 1 << 10,
    WATCH_REFUSALS = 2, /* EAGAINs that end a turn. Core takes the first for the end of what there is to look
                           at, if it has something to look at, and reads again before it waits */
};

/* The connections of one server. */
struct connection_watch {
    struct frame_limits limits;
    bool clear_text;         /* else tls_watch.h counts the frames */
    struct metrics *metrics; /* borrowed; counts who is cut */
    uint16_t port;           /* for the log */
};

/* fd has just come from accept4 and nobody reads it yet. watch: borrowed until the connection is closed, or
 * connection_watch_end. */
void connection_watch_begin(const struct connection_watch *watch, int fd);
/* Watches none of its connections any more. Nobody may be reading one. */
void connection_watch_end(const struct connection_watch *watch);

/* For tls_watch.h. Whose connection this thread has read last, if that speaks TLS; else NULL. */
const struct connection_watch *connection_watch_reading(void);
/* Counts a connection that is cut, and logs it now and then. Any thread. */
void connection_watch_count_cut(const struct connection_watch *watch, enum frame_fault fault);
