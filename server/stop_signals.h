/* SIGTERM and SIGINT, and SIGHUP where it means something, as counts that a thread can wait on. */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include "base/error.h"
#include "base/event_count.h"

/* Blocks these signals in this thread and all that it will start, ignores SIGPIPE, and starts a thread that
 * waits for them. `changed` (borrowed for ever) is bumped at each. Once per process, before other threads
 * exist. with_hangup: SIGHUP is counted too, at any time; else it does what it does to any program. */
err_t stop_signals_start(struct event_count *changed, bool with_hangup) ERR_MUST_CHECK;
/* Until this is called a signal ends the process at once: there is nothing to drain yet. */
void stop_signals_arm(void);
/* How many came. Any thread. */
uint32_t stop_signals_seen(void);
/* How many SIGHUP came. Any thread. */
uint32_t stop_signals_hangups(void);
