#include "base/crowding.h"

#include "base/assert.h"

enum { NS_PER_MS = 1000 * 1000 };

void crowding_init(struct crowding *crowding, int n_threads)
{
    ASSERT(n_threads >= 1);
    *crowding =
        (struct crowding){.n_threads = n_threads, .n_active = n_threads, .rest_ms = CROWDING_REST_MIN_MS};
}

/* (1 - s) * n < 3 / 4 * (n - 1) */
static bool is_crowded(const struct crowding *crowding)
{
    int64_t n = crowding->n_active;
    return 4 * (crowding->busy_ns - crowding->stalled_ns) * n < 3 * crowding->busy_ns * (n - 1);
}

static void leave(struct crowding *crowding, int64_t now_ns)
{
    if (crowding->is_trying)
        crowding->rest_ms =
            crowding->rest_ms < CROWDING_REST_MAX_MS / 2 ? 2 * crowding->rest_ms : CROWDING_REST_MAX_MS;
    crowding->n_active--;
    crowding->is_trying = false;
    crowding->rest_until_ns = now_ns + crowding->rest_ms * NS_PER_MS;
}

static void stay(struct crowding *crowding, int64_t now_ns)
{
    if (crowding->is_trying)
        crowding->rest_ms = CROWDING_REST_MIN_MS;
    crowding->is_trying = crowding->n_active < crowding->n_threads && now_ns >= crowding->rest_until_ns;
    if (crowding->is_trying)
        crowding->n_active++;
}

int crowding_sample(struct crowding *crowding, int64_t now_ns, int64_t own_ns, int64_t wait_ns)
{
    crowding->busy_ns += own_ns + wait_ns;
    if (wait_ns > CROWDING_STALL_TIMES * own_ns && wait_ns > CROWDING_STALL_NS)
        crowding->stalled_ns += wait_ns;
    if (++crowding->n_samples < CROWDING_SAMPLES || crowding->busy_ns < CROWDING_WINDOW_NS)
        return crowding->n_active;
    if (is_crowded(crowding))
        leave(crowding, now_ns);
    else
        stay(crowding, now_ns);
    crowding->n_samples = 0;
    crowding->busy_ns = crowding->stalled_ns = 0;
    return crowding->n_active;
}
