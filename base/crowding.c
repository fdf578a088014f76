#include "base/crowding.h"

#include <stdbool.h>
#include "base/assert.h"

enum { NS_PER_MS = 1000 * 1000, WHOLE = 1000 /* the work of one thread that never waits */ };

void crowding_init(struct crowding *crowding, int n_threads)
{
    ASSERT(n_threads >= 1);
    *crowding =
        (struct crowding){.n_threads = n_threads, .n_active = n_threads, .rest_ms = CROWDING_REST_MIN_MS};
}

/* (1 - s) * n */
static int64_t work_done(const struct crowding *crowding)
{
    return WHOLE * (crowding->busy_ns - crowding->stalled_ns) / crowding->busy_ns * crowding->n_active;
}

/* When what was just in vain may be done again. */
static int64_t rest_longer(struct crowding *crowding, int64_t now_ns)
{
    bool is_long = crowding->rest_ms > CROWDING_REST_MAX_MS / 2;
    crowding->rest_ms = is_long ? CROWDING_REST_MAX_MS : 2 * crowding->rest_ms;
    return now_ns + crowding->rest_ms * NS_PER_MS;
}

/* Whether the last decision was in vain: it is undone. */
static bool take_back(struct crowding *crowding, int64_t now_ns, int64_t work, bool is_crowded)
{
    if (crowding->last == CROWDING_LEFT && 20 * work < 21 * crowding->work_before) {
        crowding->n_active++;
        crowding->leave_from_ns = rest_longer(crowding, now_ns);
    } else if (crowding->last == CROWDING_TRYING && is_crowded) {
        crowding->n_active--;
        crowding->try_from_ns = rest_longer(crowding, now_ns);
    } else {
        return false;
    }
    crowding->last = CROWDING_STEADY;
    return true;
}

static void decide(struct crowding *crowding, int64_t now_ns)
{
    int64_t work = work_done(crowding);
    bool is_crowded = 4 * work < 3 * WHOLE * (crowding->n_active - 1);
    if (take_back(crowding, now_ns, work, is_crowded))
        return;
    if (crowding->last != CROWDING_STEADY) /* it was right */
        crowding->rest_ms = CROWDING_REST_MIN_MS;
    crowding->last = CROWDING_STEADY;
    if (is_crowded && now_ns >= crowding->leave_from_ns) {
        crowding->last = CROWDING_LEFT;
        crowding->work_before = work;
        crowding->n_active--;
        crowding->try_from_ns = now_ns + crowding->rest_ms * NS_PER_MS;
    } else if (!is_crowded && crowding->n_active < crowding->n_threads && now_ns >= crowding->try_from_ns) {
        crowding->last = CROWDING_TRYING;
        crowding->n_active++;
    }
}

int crowding_sample(struct crowding *crowding, int64_t now_ns, int64_t own_ns, int64_t wait_ns)
{
    crowding->busy_ns += own_ns + wait_ns;
    if (wait_ns > CROWDING_STALL_TIMES * own_ns && wait_ns > CROWDING_STALL_NS)
        crowding->stalled_ns += wait_ns;
    if (++crowding->n_samples < CROWDING_SAMPLES || crowding->busy_ns < CROWDING_WINDOW_NS)
        return crowding->n_active;
    decide(crowding, now_ns);
    crowding->n_samples = 0;
    crowding->busy_ns = crowding->stalled_ns = 0;
    return crowding->n_active;
}
