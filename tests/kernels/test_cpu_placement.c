/* What the CPU backend asks of the kernel on a machine of several memory nodes, which this one is taken for:
 * the pages of every weight and of the KV, in a table, and where its caller runs; and that nothing is asked
 * on one node, and no bit depends on it. On every machine: huge pages, which are there before they are
 * written and put off where they come slowly, and that who packed a panel multiplies it. */
#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>
#include <cmocka.h>
#include "base/alloc.h"
#include "base/numa.h"
#include "kernels/cpu_backend.h"
#include "kernels/cpu_memory.h"
#include "tests/base/ok.h"

#ifndef MADV_COLLAPSE
#define MADV_COLLAPSE 25 /* Linux 6.1 */
#endif
#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_WRITE 23 /* Linux 5.14 */
#endif

enum { BINDS_MAX = 16, PAGE = 4096, HUGE_PAGE = 2 << 20 };

static struct {
    uintptr_t start;
    size_t size_bytes;
    enum numa_policy policy;
    uint64_t nodes;
} binds[BINDS_MAX];
static size_t n_binds;

static bool record(void *start, size_t size_bytes, enum numa_policy policy, uint64_t nodes)
{
    assert_true(n_binds < BINDS_MAX);
    binds[n_binds].start = (uintptr_t)start;
    binds[n_binds].size_bytes = size_bytes;
    binds[n_binds].policy = policy;
    binds[n_binds++].nodes = nodes;
    return n_binds % 2 == 0; /* the kernel may refuse; nobody minds */
}

/* n_nodes of this machine's first CPU each: numbers 0, 2, 4.. */
static struct backend *backend_on(int n_nodes, int n_threads)
{
    cpu_set_t usable;
    struct backend *backend;
    static struct numa_topology topology;
    assert_int_equal(sched_getaffinity(0, sizeof usable, &usable), 0);
    topology = (struct numa_topology){.n_nodes = n_nodes};
    for (int i = 0; i < n_nodes; i++)
        topology.nodes[i] = (struct numa_node){2 * i, usable};
    n_binds = 0;
    numa_pretend(&topology, record);
    OK(backend_cpu_create(n_threads, "auto", &backend));
    return backend;
}

static void make_row(const void *context, size_t row, float *out)
{
    for (size_t i = 0; i < *(const size_t *)context; i++)
        out[i] = (float)((row * 37 + i * 11) % 101) / 50 - 1;
}

static struct weight *pack(struct backend *backend, size_t n_out, const size_t *n_in)
{
    struct weight *weight;
    struct weight_desc desc = {.name = "weight",
                               .n_out = n_out,
                               .n_in = *n_in,
                               .format = WEIGHT_INT4,
                               .group = 32,
                               .row = make_row,
                               .row_context = n_in};
    OK(backend->vtable->weight_pack(backend, &desc, &weight));
    return weight;
}

/* The pages that hold [begin, end) of a weight's bytes. */
static void assert_bind(size_t i, const uint8_t *data, size_t begin, size_t end, uint64_t nodes)
{
    uintptr_t first = ((uintptr_t)data + begin) / PAGE * PAGE;
    uintptr_t last = ((uintptr_t)data + end + PAGE - 1) / PAGE * PAGE;
    assert_int_equal(binds[i].start, first);
    assert_int_equal(binds[i].size_bytes, last - first);
    assert_int_equal(binds[i].policy, NUMA_PREFERRED);
    assert_int_equal(binds[i].nodes, nodes);
}

static void test_panels_are_where_their_threads_are(void **state)
{
    (void)state;
    const size_t n_in = 1024;
    struct backend *backend = backend_on(3, 4); /* threads 0 and 1 on the first node, then one on each */
    struct weight *weight = pack(backend, 67 * PANEL_OUTPUTS, &n_in);
    const struct panels *panels = &weight->sections[0];
    assert_non_null(strstr(backend->vtable->description(backend), "4 threads on 3 memory nodes"));
    assert_int_equal(n_binds, 3);
    size_t begin, end, first_end;
    thread_split(67, 1, 0, 4, &begin, &end);
    thread_split(67, 1, 1, 4, &begin, &first_end);
    assert_bind(0, panels->data, 0, first_end * panels->panel_bytes, 1);
    for (int i = 2; i < 4; i++) {
        thread_split(67, 1, i, 4, &begin, &end);
        assert_bind((size_t)i - 1, panels->data, begin * panels->panel_bytes, end * panels->panel_bytes,
                    UINT64_C(1) << 2 * (i - 1));
    }
    assert_int_equal(end, 67);
    backend->vtable->weight_destroy(weight);
    /* A small one comes from the heap, whose pages others share. */
    n_binds = 0;
    weight = pack(backend, PANEL_OUTPUTS, &n_in);
    assert_int_equal(n_binds, 0);
    backend->vtable->weight_destroy(weight);
    /* With fewer panels than threads nothing is asked for threads that have none. */
    const size_t wide = 1 << 16;
    weight = pack(backend, PANEL_OUTPUTS, &wide);
    assert_int_equal(n_binds, 1);
    assert_bind(0, weight->sections[0].data, 0, weight->sections[0].panel_bytes, 1);
    backend->vtable->weight_destroy(weight);
    backend->vtable->destroy(backend);
    numa_pretend(NULL, NULL);
}

static struct kv *kv_of(struct backend *backend)
{
    struct kv *kv;
    const struct kv_desc desc = {KV_BF16, 64, KV_BLOCK_TOKENS, 4, 64, 0};
    OK(backend->vtable->kv_create(backend, &desc, &kv));
    return kv;
}

static void test_kv_is_on_all_nodes_in_turn(void **state)
{
    (void)state;
    struct backend *backend = backend_on(2, 2);
    struct kv *kv = kv_of(backend);
    assert_int_equal(n_binds, 1);
    assert_int_equal(binds[0].policy, NUMA_INTERLEAVED);
    assert_int_equal(binds[0].nodes, 1 | 1 << 2);
    assert_true(binds[0].start <= (uintptr_t)kv->blocks);
    assert_true(binds[0].start + binds[0].size_bytes >=
                (uintptr_t)kv->blocks + kv->desc.n_blocks * kv->block_bytes);
    backend->vtable->kv_destroy(kv);
    backend->vtable->destroy(backend);
    numa_pretend(NULL, NULL);
}

/* A linear op's outputs; mem_free. */
static float *multiply(struct backend *backend)
{
    enum { OUT = 70 * PANEL_OUTPUTS, ROWS = 3 };
    const size_t n_in = 512;
    struct weight *weight = pack(backend, OUT, &n_in);
    struct act *in, *out;
    float *values = mem_alloc_array((size_t)ROWS * OUT, sizeof(float));
    assert_non_null(values);
    for (size_t r = 0; r < ROWS; r++)
        make_row(&n_in, 1000 + r, values + r * n_in);
    OK(backend->vtable->act_create(backend, ACT_HIDDEN, ROWS, n_in, &in));
    OK(backend->vtable->act_create(backend, ACT_HIDDEN, ROWS, OUT, &out));
    backend->vtable->act_write(in, 0, ROWS, values);
    struct step step = {.n_rows = ROWS};
    backend->vtable->linear(backend, &step, STEP_ROWS_ALL, in, weight, out);
    backend->vtable->act_read(out, 0, ROWS, values);
    backend->vtable->act_destroy(in);
    backend->vtable->act_destroy(out);
    backend->vtable->weight_destroy(weight);
    return values;
}

static void test_one_node_is_as_ever_and_bits_are_the_same(void **state)
{
    (void)state;
    struct backend *one = backend_on(1, 2);
    float *expected = multiply(one);
    struct kv *kv = kv_of(one);
    assert_int_equal(n_binds, 0);
    assert_null(strstr(one->vtable->description(one), "memory nodes"));
    one->vtable->kv_destroy(kv);
    one->vtable->destroy(one);
    struct backend *two = backend_on(2, 2);
    float *got = multiply(two);
    assert_int_equal(n_binds, 2);
    assert_memory_equal(got, expected, 3 * 70 * PANEL_OUTPUTS * sizeof(float));
    mem_free(expected);
    mem_free(got);
    two->vtable->destroy(two);
    numa_pretend(NULL, NULL);
}

/* The thread that runs the steps goes where thread 0 belongs, with the first. */
static void test_caller_goes_to_its_node(void **state)
{
    (void)state;
    cpu_set_t before, after;
    struct numa_topology two = {.n_nodes = 2};
    assert_int_equal(sched_getaffinity(0, sizeof before, &before), 0);
    if (CPU_COUNT(&before) < 2)
        skip();
    for (int cpu = 0, n = 0; n < 2; cpu++)
        if (CPU_ISSET(cpu, &before))
            CPU_SET(cpu, &two.nodes[n++].cpus);
    two.nodes[1].id = 1;
    struct backend *backend;
    numa_pretend(&two, record);
    OK(backend_cpu_create(2, "auto", &backend));
    struct step step = {.n_rows = 0};
    assert_true(backend->vtable->forward_begin(backend, &step));
    backend->vtable->forward_end(backend, &step);
    assert_int_equal(sched_getaffinity(0, sizeof after, &after), 0);
    assert_true(CPU_EQUAL(&after, &two.nodes[0].cpus));
    assert_int_equal(sched_setaffinity(0, sizeof before, &before), 0);
    backend->vtable->destroy(backend);
    numa_pretend(NULL, NULL);
}

/* Is the mapping that holds `at` to have huge pages, by the kernel's account? */
static bool wants_huge_pages(const void *at)
{
    char line[512];
    bool inside = false, huge = false;
    FILE *file = fopen("/proc/self/smaps", "r");
    while (file != NULL && fgets(line, sizeof line, file) != NULL) {
        uintptr_t begin, end;
        if (sscanf(line, "%" SCNxPTR "-%" SCNxPTR " ", &begin, &end) == 2)
            inside = begin <= (uintptr_t)at && (uintptr_t)at < end;
        huge |= inside && strncmp(line, "VmFlags:", 8) == 0 && strstr(line, " hg") != NULL;
    }
    if (file != NULL)
        (void)fclose(file);
    return huge;
}

/* A kernel may have no huge pages, not tell of them, or not give pages on demand. */
static bool kernel_does(int advice)
{
    void *block =
        mmap(NULL, 2 * HUGE_PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    assert_true(block != MAP_FAILED);
    bool does = madvise(block, 2 * HUGE_PAGE, advice) == 0;
    does = does && (advice != MADV_HUGEPAGE || wants_huge_pages(block));
    assert_int_equal(munmap(block, 2 * HUGE_PAGE), 0);
    return does;
}

static void test_huge_pages_where_whole_ones_fit(void **state)
{
    (void)state;
    if (!kernel_does(MADV_HUGEPAGE))
        skip();
    char *large = cpu_memory_alloc(4 * HUGE_PAGE + HUGE_PAGE / 2), *small = cpu_memory_alloc(HUGE_PAGE / 2);
    assert_true(large != NULL && small != NULL);
    assert_true(wants_huge_pages(large) && wants_huge_pages(large + 4 * HUGE_PAGE - CPU_MEMORY_ALIGN - 1));
    assert_false(wants_huge_pages(large + 4 * HUGE_PAGE) || wants_huge_pages(small));
    cpu_memory_free(large);
    cpu_memory_free(small);
}

/* ---- Huge pages that come slowly ---- */

static _Atomic int64_t pretended_ns, each_read_ns; /* read by the threads that pack */

static int64_t read_pretended(void)
{
    return pretended_ns += each_read_ns;
}

/* Bytes of huge pages in the mappings that hold [at, at + size_bytes), by the kernel's account. */
static size_t huge_bytes(const char *at, size_t size_bytes)
{
    char line[512];
    bool inside = false;
    size_t sum = 0, kib;
    FILE *file = fopen("/proc/self/smaps", "r");
    while (file != NULL && fgets(line, sizeof line, file) != NULL) {
        uintptr_t begin, end;
        if (sscanf(line, "%" SCNxPTR "-%" SCNxPTR " ", &begin, &end) == 2)
            inside = begin < (uintptr_t)at + size_bytes && (uintptr_t)at < end;
        if (inside && sscanf(line, "AnonHugePages: %zu kB", &kib) == 1)
            sum += kib << 10;
    }
    if (file != NULL)
        (void)fclose(file);
    return sum;
}

enum { SLOW_BLOCK = 12 * HUGE_PAGE, LEARNT = 8 /* huge pages that were slow */ };

/* As packing does: piece by piece, each asked for and then written. */
static char *fill_block(size_t size_bytes)
{
    enum { PIECE = 96 << 10 };
    char *block = cpu_memory_alloc(size_bytes);
    assert_non_null(block);
    for (size_t at = 0; at < size_bytes; at += PIECE) {
        size_t n = size_bytes - at < PIECE ? size_bytes - at : PIECE;
        cpu_memory_populate(block, at, n);
        for (size_t i = at; i < at + n; i += 64)
            block[i] = (char)(i / 64 * 7);
    }
    return block;
}

static void assert_filled(const char *block, size_t size_bytes)
{
    for (size_t i = 0; i < size_bytes; i += 64)
        assert_int_equal(block[i], (char)(i / 64 * 7));
}

/* How often a huge page was asked for in place of small ones. On a busy machine the kernel may be unable to
 * make one just now, or to find one. */
static atomic_int n_asked, n_refused;
static atomic_bool are_none_left;

int madvise(void *start, size_t size_bytes, int advice)
{
    int result = (int)syscall(SYS_madvise, start, size_bytes, advice);
    if (advice == MADV_COLLAPSE) {
        atomic_fetch_add(&n_asked, 1);
        atomic_fetch_add(&n_refused, result != 0);
        if (result != 0 && errno == ENOMEM)
            atomic_store(&are_none_left, true);
    }
    return result;
}

/* An older kernel does not, nor one without a huge page left. */
static bool kernel_collapses(void)
{
    char *block =
        mmap(NULL, 2 * HUGE_PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    assert_true(block != MAP_FAILED);
    char *page = block + HUGE_PAGE - (uintptr_t)block % HUGE_PAGE;
    page[0] = 1;
    bool does = madvise(page, HUGE_PAGE, MADV_COLLAPSE) == 0;
    assert_int_equal(munmap(block, 2 * HUGE_PAGE), 0);
    return does;
}

static void test_slow_huge_pages_are_put_off(void **state)
{
    (void)state;
    if (!kernel_does(MADV_HUGEPAGE) || !kernel_does(MADV_POPULATE_WRITE))
        skip();
    assert_false(cpu_memory_tend());
    each_read_ns = 900000; /* quick ones, whatever this machine does */
    cpu_memory_pretend(read_pretended);
    char *quick = fill_block(SLOW_BLOCK);
    assert_true(wants_huge_pages(quick + SLOW_BLOCK / 2));
    assert_false(cpu_memory_tend());
    each_read_ns = 6000000;
    char *turning = fill_block(SLOW_BLOCK), *small = fill_block(SLOW_BLOCK), *freed = fill_block(SLOW_BLOCK);
    assert_true(wants_huge_pages(quick + SLOW_BLOCK / 2));
    assert_false(wants_huge_pages(turning + SLOW_BLOCK / 2) || wants_huge_pages(small + SLOW_BLOCK / 2));
    /* The first page holds what stands below the block, and was touched with it. */
    assert_in_range(huge_bytes(turning, SLOW_BLOCK), 0, (LEARNT + 1) * HUGE_PAGE);
    assert_int_equal(huge_bytes(small, SLOW_BLOCK), 0);
    cpu_memory_free(freed);
    if (kernel_collapses()) {
        int n = 0;
        n_asked = n_refused = 0;
        while (cpu_memory_tend())
            n++;
        assert_int_equal(n, n_asked - n_refused);
        assert_true(wants_huge_pages(small + SLOW_BLOCK / 2));
        if (!are_none_left) {
            assert_in_range(n_asked, 12, 2 * 12);
            assert_in_range(huge_bytes(small, SLOW_BLOCK) + (size_t)n_refused * HUGE_PAGE, SLOW_BLOCK,
                            n_refused == 0 ? SLOW_BLOCK : SIZE_MAX);
        }
    }
    while (cpu_memory_tend()) {
    }
    assert_filled(quick, SLOW_BLOCK);
    assert_filled(turning, SLOW_BLOCK);
    assert_filled(small, SLOW_BLOCK);
    cpu_memory_free(quick);
    cpu_memory_free(turning);
    cpu_memory_free(small);
    /* Now and then a slow one is no reason. */
    cpu_memory_pretend(read_pretended);
    for (int i = 0; i < 3 * LEARNT; i++) {
        each_read_ns = i % 2 == 0 ? 6000000 : 100000;
        char *block = cpu_memory_alloc(2 * HUGE_PAGE);
        cpu_memory_populate(block, HUGE_PAGE, HUGE_PAGE / 2);
        assert_true(wants_huge_pages(block));
        cpu_memory_free(block);
    }
    each_read_ns = 0;
}

static size_t mapped_bytes(void)
{
    size_t n_pages = 0;
    FILE *file = fopen("/proc/self/statm", "r");
    assert_true(file != NULL && fscanf(file, "%zu", &n_pages) == 1);
    (void)fclose(file);
    return n_pages * PAGE;
}

/* A kernel that gives huge pages unasked gives them for unused addresses beside a block, too: there are none.
 */
static void test_a_mapping_is_as_long_as_its_block(void **state)
{
    (void)state;
    enum { BLOCKS = 32, SOME = 8 * HUGE_PAGE }; /* SOME: of the heap */
    char *blocks[BLOCKS];
    size_t before = mapped_bytes(), sum = 0;
    for (size_t i = 0; i < BLOCKS; i++) {
        size_t size_bytes = HUGE_PAGE / 2 + i % 3 * HUGE_PAGE;
        blocks[i] = cpu_memory_alloc(size_bytes);
        assert_non_null(blocks[i]);
        blocks[i][size_bytes - 1] = 1;
        sum += size_bytes;
    }
    assert_in_range(mapped_bytes() - before, sum, sum + SOME);
    for (size_t i = 0; i < BLOCKS; i++)
        cpu_memory_free(blocks[i]);
    assert_true(mapped_bytes() < before + SOME);
}

/* Pages of [start, start + size_bytes), whole ones, that the kernel has given. */
static size_t count_pages(uintptr_t start, size_t size_bytes)
{
    static unsigned char there[4 * HUGE_PAGE / PAGE];
    size_t n = 0;
    assert_true(size_bytes <= sizeof there * PAGE);
    assert_int_equal(mincore((void *)start, size_bytes, there), 0);
    for (size_t i = 0; i < size_bytes / PAGE; i++)
        n += there[i] & 1;
    return n;
}

enum { LONG_IN = 1 << 15 }; /* a panel of so many inputs in f32 has two huge pages */
static size_t n_there_before;

/* The first row of a panel is read before anything of the panel is written. */
static void make_long_row(const void *context, size_t row, float *out)
{
    (void)context;
    if (row == PANEL_OUTPUTS)
        n_there_before = count_pages(binds[1].start, 2 * HUGE_PAGE);
    memset(out, 0, LONG_IN * sizeof *out);
}

static void test_a_panel_has_its_pages_at_once(void **state)
{
    (void)state;
    if (!kernel_does(MADV_POPULATE_WRITE))
        skip();
    struct backend *backend = backend_on(2, 2);
    struct weight *weight;
    struct weight_desc desc = {.name = "long",
                               .n_out = 2 * PANEL_OUTPUTS,
                               .n_in = LONG_IN,
                               .format = WEIGHT_F32,
                               .row = make_long_row};
    OK(backend->vtable->weight_pack(backend, &desc, &weight));
    assert_int_equal(n_binds, 2);
    assert_int_equal(weight->sections[0].panel_bytes, 2 * HUGE_PAGE);
    assert_int_equal(n_there_before, 2 * HUGE_PAGE / PAGE);
    backend->vtable->weight_destroy(weight);
    backend->vtable->destroy(backend);
    numa_pretend(NULL, NULL);
}

enum { STATIC_PANELS = 70, STATIC_IN = 256 };
static struct {
    const uint8_t *data; /* of the panels */
    size_t panel_bytes;
    pthread_t packed_by[STATIC_PANELS];
    atomic_int n_multiplied, n_by_others;
} panel_log;

static void note_row(const void *context, size_t row, float *out)
{
    panel_log.packed_by[row / PANEL_OUTPUTS] = pthread_self();
    make_row(context, row, out);
}

static void note_panel(const void *panel)
{
    size_t index = (size_t)((const uint8_t *)panel - panel_log.data) / panel_log.panel_bytes;
    atomic_fetch_add(&panel_log.n_multiplied, 1);
    atomic_fetch_add(&panel_log.n_by_others, !pthread_equal(panel_log.packed_by[index], pthread_self()));
}

static void note_linear(const struct linear_args *args)
{
    note_panel(args->panel);
}

static void note_tile(const struct tile_args *args)
{
    note_panel(args->panel);
}

/* So that a thread finds in its caches, and in its node's memory, what it left there. */
static void test_who_packs_a_panel_multiplies_it(void **state)
{
    (void)state;
    enum { ROWS = 5 };
    const size_t n_in = STATIC_IN;
    for (int tiles = 0; tiles < 2; tiles++) {
        struct backend *backend;
        struct weight *weight;
        struct act *in, *out;
        OK(cpu_backend_create(3, ISA_SCALAR, tiles ? ARITHMETIC_TILES : ARITHMETIC_PLAIN, &backend));
        cpu_of(backend)->table.linear_int4 = note_linear;
        cpu_of(backend)->table.linear_tile_int4 = note_tile;
        struct weight_desc desc = {.name = "weight",
                                   .n_out = STATIC_PANELS * PANEL_OUTPUTS,
                                   .n_in = n_in,
                                   .format = WEIGHT_INT4,
                                   .group = 32,
                                   .row = note_row,
                                   .row_context = &n_in};
        OK(backend->vtable->weight_pack(backend, &desc, &weight));
        panel_log.data = weight->sections[0].data;
        panel_log.panel_bytes = weight->sections[0].panel_bytes;
        panel_log.n_multiplied = panel_log.n_by_others = 0;
        OK(backend->vtable->act_create(backend, ACT_HIDDEN, ROWS, n_in, &in));
        OK(backend->vtable->act_create(backend, ACT_HIDDEN, ROWS, weight->n_out, &out));
        struct step step = {.n_rows = ROWS};
        backend->vtable->linear(backend, &step, STEP_ROWS_ALL, in, weight, out);
        assert_int_equal(panel_log.n_multiplied, STATIC_PANELS);
        assert_int_equal(panel_log.n_by_others, 0);
        backend->vtable->act_destroy(in);
        backend->vtable->act_destroy(out);
        backend->vtable->weight_destroy(weight);
        backend->vtable->destroy(backend);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_panels_are_where_their_threads_are),
        cmocka_unit_test(test_kv_is_on_all_nodes_in_turn),
        cmocka_unit_test(test_one_node_is_as_ever_and_bits_are_the_same),
        cmocka_unit_test(test_caller_goes_to_its_node),
        cmocka_unit_test(test_slow_huge_pages_are_put_off),
        cmocka_unit_test(test_huge_pages_where_whole_ones_fit),
        cmocka_unit_test(test_a_mapping_is_as_long_as_its_block),
        cmocka_unit_test(test_a_panel_has_its_pages_at_once),
        cmocka_unit_test(test_who_packs_a_panel_multiplies_it),
    };
    cpu_memory_pretend(read_pretended); /* which stands still: this machine's pages may come slowly */
    return cmocka_run_group_tests(tests, NULL, NULL);
}
