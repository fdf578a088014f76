/* Large messages on their way to clients that may not take them: what is in this list for too long is cut, so
 * that nobody holds much memory for long by not reading. Small ones are not worth it: a sender stops at one.
 * Any thread. */
#pragma once

#include <pthread.h>
#include <stdint.h>
#include <sys/queue.h>

enum { SLOW_SEND_BYTES = 1 << 20 }; /* what a client may leave lying for as long as it likes */

struct slow_send {
    LIST_ENTRY(slow_send) link;
    int64_t since_ns; /* 0 = not in the list */
};

struct slow_sends {
    pthread_mutex_t mutex;
    LIST_HEAD(, slow_send) all;
};

void slow_sends_init(struct slow_sends *sends);
void slow_sends_destroy(struct slow_sends *sends); /* must be empty */

/* now_ns > 0. The send is taken out before it is freed. */
void slow_sends_add(struct slow_sends *sends, struct slow_send *send, int64_t now_ns);
/* It is done; nothing when it is not in the list. */
void slow_sends_remove(struct slow_sends *sends, struct slow_send *send);
/* Calls cut once for each that came before before_ns, and takes it out; cut must not come back here. Returns
 * how many. */
uint32_t slow_sends_cut(struct slow_sends *sends, int64_t before_ns, void (*cut)(struct slow_send *send));
