/* A limit on the connections of a listener that a library keeps to itself. gRPC core accepts without one, and
 * core 1.51 never accepts again once accept4 has failed, as it does when the process has no descriptor left.
 *
 * So accept_guard.c defines accept4, and every library of the process calls that one: the program comes first
 * where the dynamic linker looks. For sockets that nobody guards it is the system call and nothing else. At a
 * guarded port connections past the limit are closed at once, as are those whose client has gone already, and
 * want of descriptors closes whoever knocks instead of failing: the caller is told that nobody is waiting.
 * Who comes in is watched (connection_watch.h). */
#pragma once

#include <stdint.h>
#include "api/metrics.h"
#include "base/error.h"
#include "proto/connection_watch.h"

enum {
    ACCEPT_GUARDS_MAX = 4,    /* in a process */
    ACCEPT_GUARD_SOCKETS = 8, /* of a port */
    ACCEPT_COUNT_MS = 100, /* at the limit, connections are counted anew so often: that takes a look at every
                              file of the process. One that has ended makes room then */
    ACCEPT_SPARE_TRIES =
        1000, /* to get hold of a descriptor for closing who knocks, others let run between */
};

struct accept_guard;

/* From now on the sockets that listen at the watch's port have max_connections together. watch: borrowed
 * until accept_guard_close, and by the connections; its metrics count who is refused. Before the library
 * accepts. RESOURCE_EXHAUSTED. Any thread. */
err_t accept_guard_open(const struct connection_watch *watch, uint32_t max_connections,
                        struct accept_guard **out) ERR_MUST_CHECK;
/* Lets the library accept as it likes, and gives the guard back. NULL: nothing. Any thread. */
void accept_guard_close(struct accept_guard *guard);
