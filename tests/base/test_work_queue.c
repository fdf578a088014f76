/* Work is done once each, by every thread that there is, and to its end. */
#include <stdatomic.h>
#include "base/event_count.h"
#include "base/work_queue.h"
#include "tests/base/cmocka_base.h"

struct job {
    struct work_item item;
    _Atomic int *n_done;
    int seen_before;
};

static void count(struct work_item *item)
{
    struct job *job = (struct job *)item;
    job->seen_before = atomic_fetch_add(job->n_done, 1);
}

static void everything_is_done_before_the_end(void **state)
{
    (void)state;
    enum { JOBS = 1000 };
    static struct job jobs[JOBS];
    for (int n_threads = 1; n_threads <= 3; n_threads++) {
        _Atomic int n_done = 0;
        struct work_queue *queue;
        assert_int_equal(work_queue_create(n_threads, &queue).code, ERR_OK);
        for (int i = 0; i < JOBS; i++) {
            jobs[i] = (struct job){.item.run = count, .n_done = &n_done};
            work_queue_add(queue, &jobs[i].item);
        }
        work_queue_destroy(queue);
        assert_int_equal(n_done, JOBS);
        for (int i = 0; n_threads == 1 && i < JOBS; i++)
            assert_int_equal(jobs[i].seen_before, i); /* one thread: in order */
    }
}

struct meeting {
    struct work_item item;
    _Atomic int *n_here;
    struct event_count *arrived;
    int n_wanted;
};

/* Returns only when n_wanted are here at once. */
static void meet(struct work_item *item)
{
    struct meeting *meeting = (struct meeting *)item;
    atomic_fetch_add(meeting->n_here, 1);
    event_count_bump(meeting->arrived);
    for (;;) {
        uint32_t seen = event_count_read(meeting->arrived);
        if (atomic_load(meeting->n_here) >= meeting->n_wanted)
            return;
        event_count_wait(meeting->arrived, seen, -1);
    }
}

static void threads_work_side_by_side(void **state)
{
    (void)state;
    enum { THREADS = 3 };
    _Atomic int n_here = 0;
    struct event_count arrived = {0};
    struct meeting meetings[THREADS];
    struct work_queue *queue;
    assert_int_equal(work_queue_create(THREADS, &queue).code, ERR_OK);
    for (int i = 0; i < THREADS; i++) {
        meetings[i] = (struct meeting){{.run = meet}, &n_here, &arrived, THREADS};
        work_queue_add(queue, &meetings[i].item);
    }
    work_queue_destroy(queue);
    assert_int_equal(n_here, THREADS);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(everything_is_done_before_the_end),
        cmocka_unit_test(threads_work_side_by_side),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
