/* Threads leave a pool that stalls and come back to try, in virtual time. */
#include <stdbool.h>
#include "base/crowding.h"
#include "tests/base/cmocka_base.h"

static const int64_t US = 1000, MS = 1000 * 1000;

struct machine {
    struct crowding crowding;
    int64_t now_ns;
    int n_free; /* CPUs: with more threads than these, every tenth operation stalls */
    int beside; /* the thread whose CPU a program has that stays there: likewise where it takes part; 0: none
                 */
    int64_t own_ns;    /* of an operation on all threads */
    int64_t uneven_ns; /* that thread 0 waits each time */
};

static struct machine machine_of(int n_threads, int n_free, int64_t own_ns)
{
    struct machine machine = {.n_free = n_free, .own_ns = own_ns};
    crowding_init(&machine.crowding, n_threads);
    return machine;
}

static void run(struct machine *machine, int64_t for_ns)
{
    int64_t end_ns = machine->now_ns + for_ns;
    for (int i = 0; machine->now_ns < end_ns; i++) {
        struct crowding *crowding = &machine->crowding;
        int64_t own_ns = machine->own_ns * crowding->n_threads / crowding->n_active;
        bool stalls = crowding->n_active > machine->n_free ||
                      (machine->beside > 0 && crowding->n_active > machine->beside);
        int64_t wait_ns = stalls && i % 10 == 0 ? 3 * MS : machine->uneven_ns;
        machine->now_ns += own_ns + wait_ns;
        int n_active = crowding_sample(crowding, machine->now_ns, own_ns, wait_ns);
        assert_int_equal(n_active, crowding->n_active);
        assert_in_range(n_active, 1, crowding->n_threads);
    }
}

static void test_a_quiet_machine_keeps_all(void **state)
{
    (void)state;
    struct machine machine = machine_of(4, 4, 5 * US);
    run(&machine, 2000 * MS);
    assert_int_equal(machine.crowding.n_active, 4);
}

/* A thread on a slower core, whatever its share. */
static void test_slower_cores_stay(void **state)
{
    (void)state;
    struct machine machine = machine_of(8, 8, 1 * MS);
    machine.uneven_ns = 2 * MS;
    run(&machine, 5000 * MS);
    assert_int_equal(machine.crowding.n_active, 8);
    machine = machine_of(8, 8, 2 * US);
    machine.uneven_ns = 50 * US;
    run(&machine, 5000 * MS);
    assert_int_equal(machine.crowding.n_active, 8);
}

static void test_who_stalls_leaves_and_comes_back(void **state)
{
    (void)state;
    struct machine machine = machine_of(4, 2, 5 * US);
    run(&machine, 150 * MS * 4); /* two leave, each after a window of some 64 operations with six stalls */
    assert_in_range(machine.crowding.n_active, 2, 3);
    machine.n_free = 4;
    run(&machine, 2 * CROWDING_REST_MAX_MS * MS);
    assert_int_equal(machine.crowding.n_active, 4);
    assert_int_equal(machine.crowding.rest_ms, CROWDING_REST_MIN_MS);
}

/* Tries become rare: a minute of them costs little. */
static void test_rests_grow(void **state)
{
    (void)state;
    struct machine machine = machine_of(2, 1, 5 * US);
    int n_tries = 0, before = 2;
    while (machine.now_ns < 60000LL * MS) {
        run(&machine, 1);
        n_tries += machine.crowding.n_active > before;
        before = machine.crowding.n_active;
    }
    assert_int_equal(machine.crowding.rest_ms, CROWDING_REST_MAX_MS);
    assert_in_range(n_tries, 10, 18);
}

/* Nobody else leaves for a thread that stays put aside, but to see. */
static void test_what_does_not_help_is_undone(void **state)
{
    (void)state;
    struct machine machine = machine_of(8, 8, 5 * US);
    machine.beside = 2;
    int n_left = 0, before = 8;
    while (machine.now_ns < 60000LL * MS) {
        run(&machine, 1);
        assert_in_range(machine.crowding.n_active, 7, 8);
        n_left += machine.crowding.n_active < before;
        before = machine.crowding.n_active;
    }
    assert_in_range(n_left, 10, 18);
    machine.beside = 7; /* the one that leaves */
    run(&machine, 2 * CROWDING_REST_MAX_MS * MS);
    assert_int_equal(machine.crowding.n_active, 7);
}

/* Long operations: a stall is no longer than they are. */
static void test_long_operations_keep_all(void **state)
{
    (void)state;
    struct machine machine = machine_of(2, 1, 5 * MS);
    run(&machine, 5000 * MS);
    assert_int_equal(machine.crowding.n_active, 2);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_quiet_machine_keeps_all),
        cmocka_unit_test(test_slower_cores_stay),
        cmocka_unit_test(test_who_stalls_leaves_and_comes_back),
        cmocka_unit_test(test_rests_grow),
        cmocka_unit_test(test_what_does_not_help_is_undone),
        cmocka_unit_test(test_long_operations_keep_all),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
