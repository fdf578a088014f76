/* A progress bar on stderr for long work; silent when stderr is not a terminal. One thread. */
#pragma once

#include <stdint.h>

struct progress {
    const char *label; /* static text */
    uint64_t total;    /* units of work, e.g. bytes */
    int64_t started_ns;
    int64_t drawn_ns;
    int enabled;
};

void progress_begin(struct progress *progress, const char *label, uint64_t total);
/* Redraws at most ten times a second. */
void progress_update(struct progress *progress, uint64_t done);
void progress_end(struct progress *progress);
