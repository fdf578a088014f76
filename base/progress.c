#include "base/progress.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>
#include "base/clock.h"

enum { BAR_WIDTH = 30, REDRAW_NS = 100 * 1000 * 1000 };

static void progress_draw(struct progress *progress, uint64_t done)
{
    if (done > progress->total)
        done = progress->total;
    double share = progress->total > 0 ? (double)done / (double)progress->total : 1.0;
    int n_filled = (int)(share * BAR_WIDTH);
    char bar[BAR_WIDTH + 1];
    memset(bar, '.', BAR_WIDTH);
    memset(bar, '#', (size_t)n_filled);
    bar[BAR_WIDTH] = '\0';
    double elapsed_s = (double)(progress->drawn_ns - progress->started_ns) * 1e-9;
    fprintf(stderr, "\r%s [%s] %3d %% %.1f s", progress->label, bar, (int)(share * 100), elapsed_s);
}

void progress_begin(struct progress *progress, const char *label, uint64_t total)
{
    int64_t now_ns = clock_now_ns(clock_monotonic());
    *progress = (struct progress){.label = label,
                                  .total = total,
                                  .started_ns = now_ns,
                                  .drawn_ns = now_ns,
                                  .enabled = isatty(STDERR_FILENO)};
}

void progress_update(struct progress *progress, uint64_t done)
{
    if (!progress->enabled)
        return;
    int64_t now_ns = clock_now_ns(clock_monotonic());
    if (now_ns - progress->drawn_ns < REDRAW_NS)
        return;
    progress->drawn_ns = now_ns;
    progress_draw(progress, done);
}

void progress_end(struct progress *progress)
{
    if (!progress->enabled)
        return;
    progress->drawn_ns = clock_now_ns(clock_monotonic());
    progress_draw(progress, progress->total);
    fputc('\n', stderr);
    progress->enabled = 0;
}
