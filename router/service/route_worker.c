#include "router/service/route_worker.h"

#include <pthread.h>
#include "base/alloc.h"
#include "base/assert.h"
#include "base/event_count.h"

#define GATHER_NS INT64_C(2000000) /* jobs that are not urgent come together meanwhile */

struct route_worker {
    const struct clock *clock;
    struct worker_after after;
    struct event_count wake;
    pthread_t thread;
    pthread_mutex_t lock; /* of what follows */
    struct worker_job *first, *last;
    bool is_urgent; /* one of them is */
    struct timer_heap timers;
    bool ends;
};

/* What is to be done now: a list of jobs, or a timer; false when the thread is to end. */
struct turn {
    struct worker_job *jobs;
    struct worker_timer *timer;
    int64_t wait_ns; /* when there is neither; -1 = without end */
};

static bool take_turn(struct route_worker *worker, struct turn *out)
{
    int64_t now_ns = clock_now_ns(worker->clock);
    *out = (struct turn){.wait_ns = -1};
    pthread_mutex_lock(&worker->lock);
    out->jobs = worker->first;
    worker->first = worker->last = NULL;
    worker->is_urgent = false;
    struct timer_node *due = worker->timers.first;
    if (due && due->due_ns <= now_ns) {
        timer_heap_remove(&worker->timers, due);
        out->timer = (struct worker_timer *)due;
        out->timer->is_set = false;
    } else if (due) {
        out->wait_ns = due->due_ns - now_ns;
    }
    bool goes_on = !worker->ends || out->jobs || out->timer;
    pthread_mutex_unlock(&worker->lock);
    return goes_on;
}

/* May those that are there wait for more? */
static bool may_gather(struct route_worker *worker)
{
    pthread_mutex_lock(&worker->lock);
    bool may = worker->first && !worker->is_urgent && !worker->ends;
    pthread_mutex_unlock(&worker->lock);
    return may;
}

static void *worker_main(void *argument)
{
    struct route_worker *worker = argument;
    for (;;) {
        uint32_t seen = event_count_read(&worker->wake);
        struct turn turn;
        if (may_gather(worker))
            event_count_wait(&worker->wake, seen, GATHER_NS);
        if (!take_turn(worker, &turn))
            return NULL;
        for (struct worker_job *job = turn.jobs, *next; job; job = next) {
            next = job->next; /* whose memory may be gone when it has run */
            job->run(job);
        }
        if (turn.jobs && worker->after.run)
            worker->after.run(worker->after.context);
        if (turn.timer)
            turn.timer->fire(turn.timer);
        if (turn.jobs == NULL && turn.timer == NULL)
            event_count_wait(&worker->wake, seen, turn.wait_ns);
    }
}

err_t route_worker_open(const struct clock *clock, const struct worker_after *after,
                        struct route_worker **out)
{
    struct route_worker *worker = mem_alloc(sizeof *worker);
    if (worker == NULL)
        return err_new(ERR_RESOURCE_EXHAUSTED, "no memory for the router's thread");
    worker->clock = clock;
    worker->after = *after;
    int failure = pthread_mutex_init(&worker->lock, NULL);
    ASSERT(failure == 0);
    if (pthread_create(&worker->thread, NULL, worker_main, worker) != 0) {
        pthread_mutex_destroy(&worker->lock);
        mem_free(worker);
        return err_new(ERR_RESOURCE_EXHAUSTED, "cannot start the router's thread");
    }
    (void)pthread_setname_np(worker->thread, "bantam-worker");
    *out = worker;
    return err_ok();
}

void route_worker_close(struct route_worker *worker)
{
    if (worker == NULL)
        return;
    pthread_mutex_lock(&worker->lock);
    worker->ends = true;
    pthread_mutex_unlock(&worker->lock);
    event_count_bump(&worker->wake);
    pthread_join(worker->thread, NULL);
    ASSERT(worker->first == NULL && worker->timers.first == NULL);
    pthread_mutex_destroy(&worker->lock);
    mem_free(worker);
}

static void post(struct route_worker *worker, struct worker_job *job, bool is_urgent)
{
    job->next = NULL;
    pthread_mutex_lock(&worker->lock);
    bool is_first = worker->last == NULL;
    if (is_first)
        worker->first = job;
    else
        worker->last->next = job;
    worker->last = job;
    worker->is_urgent = worker->is_urgent || is_urgent;
    pthread_mutex_unlock(&worker->lock);
    if (is_first || is_urgent)
        event_count_bump(&worker->wake);
}

void route_worker_post(struct route_worker *worker, struct worker_job *job)
{
    post(worker, job, true);
}

void route_worker_post_later(struct route_worker *worker, struct worker_job *job)
{
    post(worker, job, false);
}

void route_worker_set(struct route_worker *worker, struct worker_timer *timer, int64_t due_ns)
{
    pthread_mutex_lock(&worker->lock);
    ASSERT(!timer->is_set);
    timer->is_set = true;
    timer_heap_add(&worker->timers, &timer->node, due_ns);
    bool is_first = worker->timers.first == &timer->node;
    pthread_mutex_unlock(&worker->lock);
    if (is_first)
        event_count_bump(&worker->wake);
}

bool route_worker_unset(struct route_worker *worker, struct worker_timer *timer)
{
    pthread_mutex_lock(&worker->lock);
    bool was_set = timer->is_set;
    if (was_set)
        timer_heap_remove(&worker->timers, &timer->node);
    timer->is_set = false;
    pthread_mutex_unlock(&worker->lock);
    return was_set;
}
