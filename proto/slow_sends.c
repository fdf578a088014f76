#include "proto/slow_sends.h"

#include "base/assert.h"

void slow_sends_init(struct slow_sends *sends)
{
    pthread_mutex_init(&sends->mutex, NULL);
    LIST_INIT(&sends->all);
}

void slow_sends_destroy(struct slow_sends *sends)
{
    ASSERT(LIST_EMPTY(&sends->all));
    pthread_mutex_destroy(&sends->mutex);
}

void slow_sends_add(struct slow_sends *sends, struct slow_send *send, int64_t now_ns)
{
    ASSERT(now_ns > 0);
    pthread_mutex_lock(&sends->mutex);
    ASSERT(send->since_ns == 0);
    send->since_ns = now_ns;
    LIST_INSERT_HEAD(&sends->all, send, link);
    pthread_mutex_unlock(&sends->mutex);
}

/* The mutex is held. */
static void take_out(struct slow_send *send)
{
    LIST_REMOVE(send, link);
    send->since_ns = 0;
}

void slow_sends_remove(struct slow_sends *sends, struct slow_send *send)
{
    pthread_mutex_lock(&sends->mutex);
    if (send->since_ns != 0)
        take_out(send);
    pthread_mutex_unlock(&sends->mutex);
}

uint32_t slow_sends_cut(struct slow_sends *sends, int64_t before_ns, void (*cut)(struct slow_send *send))
{
    uint32_t n_cut = 0;
    pthread_mutex_lock(&sends->mutex);
    struct slow_send *next;
    for (struct slow_send *send = LIST_FIRST(&sends->all); send; send = next) {
        next = LIST_NEXT(send, link);
        if (send->since_ns >= before_ns)
            continue;
        take_out(send);
        cut(send);
        n_cut++;
    }
    pthread_mutex_unlock(&sends->mutex);
    return n_cut;
}
