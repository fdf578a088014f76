#include <pthread.h>
#include <sched.h>
#include <string.h>
#include "base/alloc.h"
#include "base/ring.h"
#include "tests/base/cmocka_base.h"

enum { N_PRODUCERS = 4, N_PER_PRODUCER = 10000, N_STREAM = 50000, CAPACITY = 512 };

/* Three words of one origin: a torn element does not add up. */
struct item {
    uint32_t producer, number, check;
};

static struct item make_item(uint32_t producer, uint32_t number)
{
    return (struct item){producer, number, producer * 31 + number * 17 + 5};
}

static void assert_whole(const struct item *item)
{
    assert_int_equal(item->check, item->producer * 31 + item->number * 17 + 5);
}

static void test_creation_checks(void **state)
{
    (void)state;
    struct spsc_ring *spsc;
    struct mpsc_ring *mpsc;
    assert_error(ERR_INVALID_ARGUMENT, spsc_ring_create(0, 4, &spsc));
    assert_error(ERR_INVALID_ARGUMENT, spsc_ring_create(4, 0, &spsc));
    assert_error(ERR_INVALID_ARGUMENT, spsc_ring_create(4, SIZE_MAX, &spsc));
    assert_error(ERR_RESOURCE_EXHAUSTED, spsc_ring_create(SIZE_MAX / 2, 4, &spsc));
    assert_error(ERR_INVALID_ARGUMENT, mpsc_ring_create(0, 4, &mpsc));
    assert_error(ERR_INVALID_ARGUMENT, mpsc_ring_create(SIZE_MAX, 4, &mpsc));
    assert_error(ERR_RESOURCE_EXHAUSTED, mpsc_ring_create(SIZE_MAX / 2, 4, &mpsc));
    assert_null(spsc);
    assert_null(mpsc);
    spsc_ring_destroy(NULL);
    mpsc_ring_destroy(NULL);
}

static void test_creation_without_memory(void **state)
{
    (void)state;
    struct spsc_ring *spsc;
    struct mpsc_ring *mpsc;
    for (int nth = 0; nth < 2; nth++) {
        mem_fail_nth(nth);
        assert_error(ERR_RESOURCE_EXHAUSTED, spsc_ring_create(8, 8, &spsc));
        assert_null(spsc);
        mem_fail_nth(nth);
        assert_error(ERR_RESOURCE_EXHAUSTED, mpsc_ring_create(8, 8, &mpsc));
        assert_null(mpsc);
    }
    mem_fail_nth(-1);
}

/* Fill, refuse, drain, many laps, for every capacity up to 9: the ring rounds up to a power of two. */
static void test_spsc_order_and_limits(void **state)
{
    (void)state;
    for (size_t capacity = 1; capacity < 10; capacity++) {
        struct spsc_ring *ring;
        assert_error(ERR_OK, spsc_ring_create(sizeof(uint32_t), capacity, &ring));
        size_t rounded = spsc_ring_capacity(ring);
        assert_true(rounded >= capacity && rounded < 2 * capacity && (rounded & (rounded - 1)) == 0);
        uint32_t pushed = 0, popped = 0, value;
        for (int lap = 0; lap < 20; lap++) {
            while (spsc_ring_push(ring, &pushed))
                pushed++;
            assert_int_equal(spsc_ring_count(ring), rounded);
            for (size_t i = 0; i < rounded - (size_t)(lap % 2); i++) {
                assert_true(spsc_ring_pop(ring, &value));
                assert_int_equal(value, popped++);
            }
        }
        while (spsc_ring_pop(ring, &value))
            assert_int_equal(value, popped++);
        assert_int_equal(popped, pushed);
        assert_int_equal(spsc_ring_count(ring), 0);
        spsc_ring_destroy(ring);
    }
}

static void test_mpsc_order_and_limits(void **state)
{
    (void)state;
    for (size_t capacity = 1; capacity < 10; capacity++) {
        struct mpsc_ring *ring;
        assert_error(ERR_OK, mpsc_ring_create(3, capacity, &ring));
        uint32_t pushed = 0, popped = 0;
        uint8_t value[3];
        for (int lap = 0; lap < 20; lap++) {
            uint32_t before = pushed;
            while (mpsc_ring_push(ring, (const uint8_t[3]){(uint8_t)pushed, 1, 2}))
                pushed++;
            assert_true(lap > 0 || pushed - before >= capacity);
            for (uint32_t i = 0; i < pushed - before; i++) {
                assert_true(mpsc_ring_pop(ring, value));
                assert_int_equal(value[0], (uint8_t)popped++);
                assert_int_equal(value[1] + value[2], 3);
            }
            assert_false(mpsc_ring_pop(ring, value));
        }
        mpsc_ring_destroy(ring);
    }
}

static void *push_stream(void *argument)
{
    struct spsc_ring *ring = argument;
    for (uint32_t number = 0; number < N_STREAM;) {
        struct item item = make_item(7, number);
        if (spsc_ring_push(ring, &item))
            number++;
        else
            sched_yield();
    }
    return NULL;
}

static void test_spsc_between_two_threads(void **state)
{
    (void)state;
    struct spsc_ring *ring;
    assert_error(ERR_OK, spsc_ring_create(sizeof(struct item), CAPACITY, &ring));
    pthread_t producer;
    assert_int_equal(pthread_create(&producer, NULL, push_stream, ring), 0);
    for (uint32_t number = 0; number < N_STREAM;) {
        assert_true(spsc_ring_count(ring) <= CAPACITY);
        struct item item;
        if (!spsc_ring_pop(ring, &item)) {
            sched_yield();
            continue;
        }
        assert_whole(&item);
        assert_int_equal(item.number, number++);
    }
    pthread_join(producer, NULL);
    assert_int_equal(spsc_ring_count(ring), 0);
    spsc_ring_destroy(ring);
}

struct producer {
    struct mpsc_ring *ring;
    uint32_t index;
};

static void *push_numbers(void *argument)
{
    const struct producer *producer = argument;
    for (uint32_t number = 0; number < N_PER_PRODUCER;) {
        struct item item = make_item(producer->index, number);
        if (mpsc_ring_push(producer->ring, &item))
            number++;
        else
            sched_yield();
    }
    return NULL;
}

/* Nothing is lost, doubled or torn, and each producer's elements keep their order. */
static void test_mpsc_with_four_producers(void **state)
{
    (void)state;
    struct mpsc_ring *ring;
    assert_error(ERR_OK, mpsc_ring_create(sizeof(struct item), CAPACITY, &ring));
    pthread_t threads[N_PRODUCERS];
    struct producer producers[N_PRODUCERS];
    for (uint32_t i = 0; i < N_PRODUCERS; i++) {
        producers[i] = (struct producer){ring, i};
        assert_int_equal(pthread_create(&threads[i], NULL, push_numbers, &producers[i]), 0);
    }
    uint32_t next[N_PRODUCERS] = {0};
    for (int received = 0; received < N_PRODUCERS * N_PER_PRODUCER;) {
        struct item item;
        if (!mpsc_ring_pop(ring, &item)) {
            sched_yield();
            continue;
        }
        assert_whole(&item);
        assert_true(item.producer < N_PRODUCERS);
        assert_int_equal(item.number, next[item.producer]++);
        received++;
    }
    for (int i = 0; i < N_PRODUCERS; i++)
        pthread_join(threads[i], NULL);
    struct item item;
    assert_false(mpsc_ring_pop(ring, &item));
    mpsc_ring_destroy(ring);
}

static void test_bytes(void **state)
{
    (void)state;
    assert_int_equal(spsc_ring_bytes(8, 0), 0);
    assert_int_equal(spsc_ring_bytes(0, 8), 0);
    assert_int_equal(spsc_ring_bytes(SIZE_MAX / 2, 4), 0);
    assert_int_equal(mpsc_ring_bytes(8, 0), 0);
    assert_int_equal(mpsc_ring_bytes(SIZE_MAX, 4), 0);
    assert_int_equal(spsc_ring_bytes(8, 64) - spsc_ring_bytes(8, 32), 32 * 8);
    assert_int_equal(spsc_ring_bytes(8, 33), spsc_ring_bytes(8, 64)); /* capacities are powers of two */
    assert_int_equal(mpsc_ring_bytes(8, 64) - mpsc_ring_bytes(8, 32), 32 * (8 + sizeof(size_t)));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_creation_checks),
        cmocka_unit_test(test_creation_without_memory),
        cmocka_unit_test(test_spsc_order_and_limits),
        cmocka_unit_test(test_mpsc_order_and_limits),
        cmocka_unit_test(test_spsc_between_two_threads),
        cmocka_unit_test(test_mpsc_with_four_producers),
        cmocka_unit_test(test_bytes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
