/* event_count and clock. */
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include "base/clock.h"
#include "base/error.h"
#include "base/event_count.h"
#include "tests/base/cmocka_base.h"

enum { N_ROUNDS = 20000, N_WAITERS = 4, N_BROADCASTS = 500 };

static void test_wait_returns_at_once_when_moved_on(void **state)
{
    (void)state;
    struct event_count event = {0};
    uint32_t seen = event_count_read(&event);
    assert_false(event_count_wait(&event, seen, 0));
    event_count_bump(&event);
    assert_true(event_count_wait(&event, seen, 0));
    assert_true(event_count_wait(&event, seen, -1));
}

static void test_wait_times_out(void **state)
{
    (void)state;
    struct event_count event = {0};
    int64_t start_ns = clock_now_ns(clock_monotonic());
    int64_t waited_ns;
    do {
        assert_false(event_count_wait(&event, 0, 2000000));
        waited_ns = clock_now_ns(clock_monotonic()) - start_ns;
    } while (waited_ns < 2000000); /* it may wake early */
    assert_int_equal(event.n_waiters, 0);
}

struct ping_pong {
    struct event_count ping, pong;
    int ball; /* handed over by the events alone: a lost wake-up hangs, a missing barrier shows under TSan */
};

static void wait_for(struct event_count *event, uint32_t seen)
{
    while (!event_count_wait(event, seen, -1)) {
    }
}

static void *answer_pings(void *argument)
{
    struct ping_pong *game = argument;
    for (uint32_t round = 0; round < N_ROUNDS; round++) {
        wait_for(&game->ping, round);
        game->ball++;
        event_count_bump(&game->pong);
    }
    return NULL;
}

static void test_ping_pong(void **state)
{
    (void)state;
    struct ping_pong game = {.ball = 0};
    pthread_t thread;
    assert_int_equal(pthread_create(&thread, NULL, answer_pings, &game), 0);
    for (uint32_t round = 0; round < N_ROUNDS; round++) {
        game.ball++;
        event_count_bump(&game.ping);
        wait_for(&game.pong, round);
        assert_int_equal(game.ball, 2 * (round + 1));
    }
    pthread_join(thread, NULL);
}

struct broadcast {
    struct event_count start, done;
    _Atomic int n_seen;
};

static void *follow_broadcasts(void *argument)
{
    struct broadcast *b = argument;
    for (uint32_t round = 0; round < N_BROADCASTS; round++) {
        wait_for(&b->start, round);
        if (atomic_fetch_add(&b->n_seen, 1) + 1 == N_WAITERS * (int)(round + 1))
            event_count_bump(&b->done);
    }
    return NULL;
}

static void test_one_bump_wakes_all(void **state)
{
    (void)state;
    struct broadcast b = {.n_seen = 0};
    pthread_t threads[N_WAITERS];
    for (int i = 0; i < N_WAITERS; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, follow_broadcasts, &b), 0);
    for (uint32_t round = 0; round < N_BROADCASTS; round++) {
        event_count_bump(&b.start);
        wait_for(&b.done, round);
    }
    for (int i = 0; i < N_WAITERS; i++)
        pthread_join(threads[i], NULL);
    assert_int_equal(b.n_seen, N_WAITERS * N_BROADCASTS);
}

struct spin {
    struct event_count event;
    atomic_bool begins;
};

static void *spin_past_zero(void *argument)
{
    struct spin *spin = argument;
    atomic_store(&spin->begins, true);
    event_count_wait_past(&spin->event, 0, (int64_t)100 * 1000000000);
    return NULL;
}

/* Who spins is no waiter: the bump that it sees makes no system call. */
static void test_spins_before_it_sleeps(void **state)
{
    (void)state;
    enum { LOOKS = 100 };
    struct spin spin = {.begins = false};
    pthread_t thread;
    assert_int_equal(pthread_create(&thread, NULL, spin_past_zero, &spin), 0);
    while (!atomic_load(&spin.begins))
        sched_yield();
    for (int i = 0; i < LOOKS; i++) {
        assert_int_equal(spin.event.n_waiters, 0);
        sched_yield();
    }
    event_count_bump(&spin.event);
    pthread_join(thread, NULL);
}

static void test_clocks(void **state)
{
    (void)state;
    int64_t previous_ns = clock_now_ns(clock_monotonic());
    for (int i = 0; i < 1000; i++) {
        int64_t now_ns = clock_now_ns(clock_monotonic());
        assert_true(now_ns >= previous_ns);
        previous_ns = now_ns;
    }
    struct virtual_clock clock;
    virtual_clock_init(&clock, 5);
    assert_int_equal(clock_now_ns(&clock.clock), 5);
    clock.now_ns += 7;
    assert_int_equal(clock_now_ns(&clock.clock), 12);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_wait_returns_at_once_when_moved_on),
        cmocka_unit_test(test_wait_times_out),
        cmocka_unit_test(test_ping_pong),
        cmocka_unit_test(test_one_bump_wakes_all),
        cmocka_unit_test(test_spins_before_it_sleeps),
        cmocka_unit_test(test_clocks),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
