#include "server/stop_signals.h"

#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <string.h>

static struct {
    sigset_t set;
    struct event_count *changed;
    _Atomic uint32_t seen, hangups;
    _Atomic bool armed;
} signals;

/* Ends the process as the signal would have done without us. */
static void die_of(int number)
{
    (void)signal(number, SIG_DFL);
    (void)pthread_sigmask(SIG_UNBLOCK, &signals.set, NULL);
    (void)raise(number);
}

static void *wait_for_signals(void *argument)
{
    (void)argument;
    for (;;) {
        int number;
        if (sigwait(&signals.set, &number) != 0)
            continue;
        if (number != SIGHUP && !atomic_load(&signals.armed))
            die_of(number);
        atomic_fetch_add(number == SIGHUP ? &signals.hangups : &signals.seen, 1);
        event_count_bump(signals.changed);
    }
    return NULL;
}

err_t stop_signals_start(struct event_count *changed, bool with_hangup)
{
    signals.changed = changed;
    sigemptyset(&signals.set);
    sigaddset(&signals.set, SIGTERM);
    sigaddset(&signals.set, SIGINT);
    if (with_hangup)
        sigaddset(&signals.set, SIGHUP);
    (void)signal(SIGPIPE, SIG_IGN);
    int failure = pthread_sigmask(SIG_BLOCK, &signals.set, NULL);
    pthread_t thread;
    if (failure == 0)
        failure = pthread_create(&thread, NULL, wait_for_signals, NULL);
    if (failure != 0)
        return err_new(ERR_RESOURCE_EXHAUSTED, "cannot wait for signals: %s", strerror(failure));
    pthread_detach(thread);
    return err_ok();
}

void stop_signals_arm(void)
{
    atomic_store(&signals.armed, true);
}

uint32_t stop_signals_seen(void)
{
    return atomic_load(&signals.seen);
}

uint32_t stop_signals_hangups(void)
{
    return atomic_load(&signals.hangups);
}
