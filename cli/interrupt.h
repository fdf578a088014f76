/* Ctrl-C as a wish to stop early with what there is. One thread, once. */
#pragma once

#include <stdatomic.h>
#include <stdbool.h>

enum { INTERRUPTED_STATUS = 130 }; /* of a program that SIGINT has ended, as shells have it */

/* Set by the first SIGINT from now on; the second one ends the program as ever. */
const _Atomic bool *interrupt_watch(void);
