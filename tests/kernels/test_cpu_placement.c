/* What the CPU backend asks of the kernel on a machine of several memory nodes, which this one is taken for:
 * the pages of every weight and of the KV, in a table; and that nothing is asked on one node, and no bit
 * depends on it. */
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>
#include <cmocka.h>
#include "base/alloc.h"
#include "base/numa.h"
#include "kernels/cpu_backend.h"
#include "tests/base/ok.h"

enum { BINDS_MAX = 16, PAGE = 4096 };

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
    backend->vtable->linear(backend, &step, in, weight, out);
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

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_panels_are_where_their_threads_are),
        cmocka_unit_test(test_kv_is_on_all_nodes_in_turn),
        cmocka_unit_test(test_one_node_is_as_ever_and_bits_are_the_same),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
