/* A limit on the connections of a listener that a library keeps to itself. gRPC core accepts without one, and
 * core 1.51 never accepts again once accept4 has failed, as it does when the process has no descriptor left.
 *
 * So accept_guard.c defines accept4, and every library of the process calls that one: the program comes first
 * where the dynamic linker looks. For sockets that nobody guards it is the system call and nothing else. At a
 * guarded port connections past the limit are closed at once, and want of descriptors closes whoever knocks
 * instead of failing: the caller is told that nobody is waiting. */
#pragma once

#include <stdint.h>
#include "api/metrics.h"
#include "base/error.h"

enum {
    ACCEPT_GUARDS_MAX = 4,    /* in a process */
    ACCEPT_GUARD_SOCKETS = 8, /* of a port */
    ACCEPT_COUNT_MS = 100, /* at the limit, connections are counted anew so often: that takes a look at every
                              file of the process. One that has ended makes room then */
};

struct accept_guard;

/* From now on the sockets that listen at this port have max_connections together. metrics: borrowed until
 * accept_guard_close; counts who is refused. Before the library accepts. RESOURCE_EXHAUSTED. Any thread. */
err_t accept_guard_open(uint16_t port, uint32_t max_connections, struct metrics *metrics,
                        struct accept_guard **out) ERR_MUST_CHECK;
/* Lets the library accept as it likes, and gives the guard back. NULL: nothing. Any thread. */
void accept_guard_close(struct accept_guard *guard);
