/* Ctrl-C as a wish to stop early with what there is. One thread, once. */
#pragma once

#include <stdatomic.h>
#include <stdbool.h>

enum { INTERRUPTED_STATUS = 130 }; /* of a program that SIGINT has ended, as shells have it */

/* Whether there was such a wish; never before interrupt_watch. */
const _Atomic bool *interrupt_flag(void);
/* Right before there is something to report: from now on the first SIGINT is a wish, and the second one ends
 * the program as ever. */
void interrupt_watch(void);
