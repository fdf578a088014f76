/* Trees like /sys/devices/system/node, and where threads go on the machines that they describe. */
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>
#include "base/numa.h"
#include "base/thread_pool.h"
#include "tests/base/cmocka_base.h"

enum { PATH_BYTES = 512 };

static char root[] = "bantam-test-numa-XXXXXX";
static const char *const FILES[] = {"online", "node0/cpulist", "node1/cpulist", "node2/cpulist",
                                    "node70/cpulist"};
enum { N_FILES = sizeof FILES / sizeof FILES[0] };

static void remove_files(void)
{
    char path[PATH_BYTES];
    for (size_t i = 0; i < N_FILES; i++) {
        snprintf(path, sizeof path, "%s/%s", root, FILES[i]);
        (void)remove(path);
    }
}

/* texts[i]: what FILES[i] holds; NULL = there is no such file. */
static void write_tree(const char *const texts[N_FILES])
{
    remove_files();
    for (size_t i = 0; i < N_FILES; i++) {
        char path[PATH_BYTES];
        if (texts[i] == NULL)
            continue;
        snprintf(path, sizeof path, "%s/%s", root, FILES[i]);
        char *slash = strrchr(path, '/');
        *slash = '\0';
        (void)mkdir(path, 0700);
        *slash = '/';
        FILE *file = fopen(path, "w");
        assert_non_null(file);
        fputs(texts[i], file);
        assert_int_equal(fclose(file), 0);
    }
}

static int make_root(void **state)
{
    (void)state;
    return mkdtemp(root) == NULL ? -1 : 0;
}

static int remove_root(void **state)
{
    (void)state;
    remove_files();
    for (size_t i = 1; i < N_FILES; i++) {
        char path[PATH_BYTES];
        snprintf(path, sizeof path, "%s/%.*s", root, (int)strcspn(FILES[i], "/"), FILES[i]);
        (void)rmdir(path);
    }
    return rmdir(root);
}

static cpu_set_t cpus_of(const char *list)
{
    cpu_set_t cpus;
    assert_true(numa_parse_list(list, &cpus));
    return cpus;
}

static void assert_cpus(const cpu_set_t *cpus, const char *list)
{
    cpu_set_t expected = cpus_of(list);
    if (!CPU_EQUAL(cpus, &expected))
        fail_msg("not the CPUs %s but %d others", list, CPU_COUNT(cpus));
}

static void test_lists(void **state)
{
    (void)state;
    cpu_set_t cpus = cpus_of("0-3,8,10-11\n");
    assert_int_equal(CPU_COUNT(&cpus), 7);
    assert_true(CPU_ISSET(3, &cpus) && CPU_ISSET(8, &cpus) && CPU_ISSET(11, &cpus) && !CPU_ISSET(9, &cpus));
    assert_int_equal((cpus = cpus_of("\n"), CPU_COUNT(&cpus)), 0);
    assert_int_equal((cpus = cpus_of(""), CPU_COUNT(&cpus)), 0);
    assert_int_equal((cpus = cpus_of("1023"), CPU_COUNT(&cpus)), 1);
    static const char *const wrong[] = {"a",      "-1",    "3-",   "3-1",  "0,",
                                        ",",      "0-1-2", "0 1",  "1024", "99999999999999999999",
                                        "0-1024", "0\n1",  "0\n\n"};
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++)
        if (numa_parse_list(wrong[i], &cpus))
            fail_msg("\"%s\" is no list", wrong[i]);
}

static void test_trees(void **state)
{
    (void)state;
    cpu_set_t all = cpus_of("0-7");
    struct numa_topology topology;
    /* Two sockets with their threads numbered in turn, and a node of memory alone. */
    write_tree((const char *const[N_FILES]){"0-2\n", "0-1,4-5\n", "2-3,6-7\n", "\n", NULL});
    numa_read(root, &all, &topology);
    assert_int_equal(topology.n_nodes, 2);
    assert_int_equal(topology.nodes[1].id, 1);
    assert_cpus(&topology.nodes[0].cpus, "0-1,4-5");
    assert_cpus(&topology.nodes[1].cpus, "2-3,6-7");
    /* A process that may use one of them has one node; of both a part, two. */
    cpu_set_t some = cpus_of("2,6");
    numa_read(root, &some, &topology);
    assert_int_equal(topology.n_nodes, 1);
    assert_int_equal(topology.nodes[0].id, 1);
    some = cpus_of("1-2");
    numa_read(root, &some, &topology);
    assert_int_equal(topology.n_nodes, 2);
    assert_cpus(&topology.nodes[0].cpus, "1");
    assert_cpus(&topology.nodes[1].cpus, "2");
}

static void test_trees_that_say_nothing(void **state)
{
    (void)state;
    static const char *const trees[][N_FILES] = {
        {NULL, NULL, NULL, NULL, NULL},          /* no tree */
        {"0-1\n", "0-3\n", NULL, NULL, NULL},    /* a node without its list */
        {"0-1\n", "0-3\n", "4-6\n", NULL, NULL}, /* a CPU on no node */
        {"0-1\n", "0-4\n", "4-7\n", NULL, NULL}, /* and one on two */
        {"0-1\n", "0-3\n", "4-x\n", NULL, NULL}, /* no list */
        {"none\n", "0-3\n", "4-7\n", NULL, NULL},
        {"0,70\n", "0-3\n", NULL, NULL, "4-7\n"}, /* a number past NUMA_NODES_MAX */
    };
    cpu_set_t all = cpus_of("0-7");
    for (size_t i = 0; i < sizeof trees / sizeof trees[0]; i++) {
        struct numa_topology topology;
        write_tree(trees[i]);
        numa_read(root, &all, &topology);
        assert_int_equal(topology.n_nodes, 1);
        assert_cpus(&topology.nodes[0].cpus, "0-7");
    }
}

static void assert_thread(const struct numa_topology *topology, int i, int n, int node, const char *list)
{
    cpu_set_t cpus;
    assert_int_equal(numa_thread_node(topology, i, n, &cpus), node);
    assert_cpus(&cpus, list);
}

static void test_threads_go_node_by_node(void **state)
{
    (void)state;
    struct numa_topology two = {.n_nodes = 2, .nodes = {{0, cpus_of("0-1,4-5")}, {1, cpus_of("2-3,6-7")}}};
    static const char *const each[] = {"0", "1", "4", "5", "2", "3", "6", "7"};
    for (int i = 0; i < 8; i++)
        assert_thread(&two, i, 8, i / 4, each[i]);
    for (int i = 0; i < 4; i++)
        assert_thread(&two, i, 4, i / 2, i < 2 ? "0-1,4-5" : "2-3,6-7");
    for (int i = 0; i < 16; i++) /* more threads than CPUs */
        assert_thread(&two, i, 16, i / 8, i < 8 ? "0-1,4-5" : "2-3,6-7");
    assert_thread(&two, 2, 3, 1, "2-3,6-7");
    /* Nodes of different size have threads by it. */
    struct numa_topology uneven = {.n_nodes = 2, .nodes = {{0, cpus_of("0-5")}, {3, cpus_of("6-7")}}};
    for (int i = 0; i < 4; i++)
        assert_thread(&uneven, i, 4, i == 3, i < 3 ? "0-5" : "6-7");
    struct numa_topology one = {.n_nodes = 1, .nodes = {{0, cpus_of("3,5")}}};
    assert_thread(&one, 1, 2, 0, "5");
}

static void note_cpus(void *context, int thread_index, int n_threads)
{
    cpu_set_t *cpus = context;
    (void)n_threads;
    assert_int_equal(pthread_getaffinity_np(pthread_self(), sizeof cpus[0], &cpus[thread_index]), 0);
}

/* Two CPUs of this machine taken for two nodes: three threads, of which the caller is told its place. */
static void test_pool_on_two_nodes(void **state)
{
    (void)state;
    cpu_set_t before, seen[4];
    if (sched_getaffinity(0, sizeof before, &before) != 0 || CPU_COUNT(&before) < 2)
        skip();
    struct numa_topology two = {.n_nodes = 2};
    for (int cpu = 0, n = 0; n < 2; cpu++)
        if (CPU_ISSET(cpu, &before)) {
            two.nodes[n] = (struct numa_node){.id = 4 + n};
            CPU_SET(cpu, &two.nodes[n++].cpus);
        }
    struct thread_pool *pool;
    numa_pretend(&two, NULL);
    assert_error(ERR_OK, thread_pool_create(4, &pool));
    numa_pretend(NULL, NULL);
    assert_int_equal(thread_pool_node_count(pool), 2);
    for (int i = 0; i < 4; i++)
        assert_int_equal(thread_pool_node(pool, i), i < 2 ? 4 : 5);
    thread_pool_run(pool, note_cpus, seen);
    assert_true(CPU_EQUAL(&seen[0], &before)); /* not without being asked */
    thread_pool_place_caller(pool);
    thread_pool_run(pool, note_cpus, seen);
    for (int i = 0; i < 4; i++)
        assert_true(CPU_EQUAL(&seen[i], &two.nodes[i / 2].cpus));
    /* Once placed, a thread may move away: it is not fetched back at every step. */
    assert_int_equal(sched_setaffinity(0, sizeof before, &before), 0);
    thread_pool_place_caller(pool);
    thread_pool_run(pool, note_cpus, seen);
    assert_true(CPU_EQUAL(&seen[0], &before));
    thread_pool_destroy(pool);
}

static void test_pool_on_one_node(void **state)
{
    (void)state;
    cpu_set_t before, after;
    struct thread_pool *pool;
    assert_int_equal(sched_getaffinity(0, sizeof before, &before), 0);
    struct numa_topology one = {.n_nodes = 1, .nodes = {{0, before}}};
    numa_pretend(&one, NULL);
    assert_error(ERR_OK, thread_pool_create(2, &pool));
    numa_pretend(NULL, NULL);
    assert_int_equal(thread_pool_node_count(pool), 1);
    thread_pool_place_caller(pool);
    assert_int_equal(sched_getaffinity(0, sizeof after, &after), 0);
    assert_true(CPU_EQUAL(&before, &after));
    thread_pool_destroy(pool);
}

/* With as many threads as CPUs each worker has one to itself; with more, or fewer, it may run on all. The
 * caller stays as it was. */
static void test_workers_on_one_node(void **state)
{
    (void)state;
    enum { MOST = 3 };
    cpu_set_t before, seen[MOST];
    assert_int_equal(sched_getaffinity(0, sizeof before, &before), 0);
    int cpus[MOST], n_usable = usable_cpu_count() < MOST ? usable_cpu_count() : MOST;
    if (n_usable < 2)
        skip();
    for (int cpu = 0, n = 0; n < n_usable; cpu++)
        if (CPU_ISSET(cpu, &before))
            cpus[n++] = cpu;
    for (int n_cpus = 2; n_cpus <= n_usable; n_cpus++) {
        struct numa_topology one = {.n_nodes = 1};
        cpu_set_t *mask = &one.nodes[0].cpus;
        for (int i = 0; i < n_cpus; i++)
            CPU_SET(cpus[i], mask);
        assert_int_equal(sched_setaffinity(0, sizeof *mask, mask), 0);
        for (int n_threads = 2; n_threads <= MOST; n_threads++) {
            struct thread_pool *pool;
            numa_pretend(&one, NULL);
            assert_error(ERR_OK, thread_pool_create(n_threads, &pool));
            numa_pretend(NULL, NULL);
            thread_pool_run(pool, note_cpus, seen);
            thread_pool_destroy(pool);
            assert_true(CPU_EQUAL(&seen[0], mask));
            for (int i = 1; i < n_threads; i++) {
                assert_int_equal(CPU_COUNT(&seen[i]), n_threads == n_cpus ? 1 : n_cpus);
                assert_true(n_threads != n_cpus || CPU_ISSET(cpus[i], &seen[i]));
            }
        }
    }
    assert_int_equal(sched_setaffinity(0, sizeof before, &before), 0);
}

static uintptr_t bound_start;
static size_t bound_bytes;

static bool record(void *start, size_t size_bytes, enum numa_policy policy, uint64_t nodes)
{
    assert_int_equal(policy, NUMA_INTERLEAVED);
    assert_int_equal(nodes, 5);
    bound_start = (uintptr_t)start;
    bound_bytes = size_bytes;
    return false;
}

static void test_bind(void **state)
{
    (void)state;
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    char *block = mmap(NULL, 4 * page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    assert_true(block != MAP_FAILED);
    numa_pretend(NULL, record);
    assert_false(numa_bind(block + page + 100, page, NUMA_INTERLEAVED, 5));
    assert_int_equal(bound_start, (uintptr_t)block + page);
    assert_int_equal(bound_bytes, 2 * page);
    assert_false(numa_bind(block + page, page, NUMA_INTERLEAVED, 5));
    assert_int_equal(bound_bytes, page);
    numa_pretend(NULL, NULL);
    /* The kernel's own answer, which depends on the machine and its container: the memory is good in any
     * case. */
    (void)numa_bind(block, 4 * page, NUMA_PREFERRED, 1);
    memset(block, 1, 4 * page);
    assert_int_equal(munmap(block, 4 * page), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_lists),
        cmocka_unit_test(test_trees),
        cmocka_unit_test(test_trees_that_say_nothing),
        cmocka_unit_test(test_threads_go_node_by_node),
        cmocka_unit_test(test_pool_on_two_nodes),
        cmocka_unit_test(test_pool_on_one_node),
        cmocka_unit_test(test_workers_on_one_node),
        cmocka_unit_test(test_bind),
    };
    return cmocka_run_group_tests(tests, make_root, remove_root);
}
