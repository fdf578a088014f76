/* SIGTERM and SIGINT as a count that a thread can wait on. */
#pragma once

#include <stdint.h>
#include "base/error.h"
#include "base/event_count.h"

/* Blocks both signals in this thread and all that it will start, ignores SIGPIPE, and starts a thread that
 * waits for them. `changed` (borrowed for ever) is bumped at each. Once per process, before other threads
 * exist. */
err_t stop_signals_start(struct event_count *changed) ERR_MUST_CHECK;
/* Until this is called a signal ends the process at once: there is nothing to drain yet. */
void stop_signals_arm(void);
/* How many came. Any thread. */
uint32_t stop_signals_seen(void);
