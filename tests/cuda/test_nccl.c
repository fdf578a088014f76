/* How NCCL is spoken to, on one that does not exist: the same words that the real one gets. */
#include <dlfcn.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include "kernels/cuda/device_nccl.h"
#include "tests/cuda/fake_nccl.h"
#include "tests/model/broken_model.h"

enum { RANKS_MAX = 8, ROUNDS = 40, PART_MAX = 3 * ROUNDS };

static const int ordinals[RANKS_MAX] = {5, 2, 7, 0, 1, 6, 3, 4}; /* of ranks: not in their order */
static struct fake_nccl_counts *counts;

static int find_library(void **state)
{
    (void)state;
    void *library = dlopen(FAKE_NCCL_LIBRARY, RTLD_NOW | RTLD_LOCAL);
    assert_non_null(library);
    counts = dlsym(library, "fake_nccl_counts");
    assert_non_null(counts);
    return 0;
}

static int reset(void **state)
{
    (void)state;
    unsetenv("BANTAM_FAKE_NCCL");
    setenv("BANTAM_NCCL_LIBRARY", FAKE_NCCL_LIBRARY, 1);
    return counts->n_comms == 0 ? 0 : -1;
}

static struct nccl_group *open_group(uint32_t n_ranks)
{
    struct nccl_group *group;
    err_t e = nccl_group_create(ordinals, n_ranks, &group);
    if (e.code != ERR_OK)
        fail_msg("%s", e.message);
    assert_int_equal(counts->n_comms, n_ranks);
    return group;
}

static void expect_no_group(enum err_code code, const char *says, const char *and)
{
    struct nccl_group *group;
    expect_error(nccl_group_create(ordinals, 3, &group), code, says, and, NULL);
    assert_null(group);
    assert_int_equal(counts->n_comms, 0);
}

/* First of all: a library that will do stays. */
static void libraries_that_will_not_do_say_why(void **state)
{
    (void)state;
    setenv("BANTAM_NCCL_LIBRARY", "/nowhere/libnccl.so", 1);
    expect_no_group(ERR_UNAVAILABLE, "/nowhere/libnccl.so: cannot open",
                    "by BANTAM_NCCL_LIBRARY: that of Python's");
    setenv("BANTAM_NCCL_LIBRARY", "libm.so.6", 1);
    expect_no_group(ERR_UNAVAILABLE, "lacks ncclGetVersion", "2.10");
    setenv("BANTAM_NCCL_LIBRARY", FAKE_NCCL_LIBRARY_WITHOUT_GATHER, 1);
    expect_no_group(ERR_UNAVAILABLE, "lacks ncclAllGather", "2.10");
    setenv("BANTAM_NCCL_LIBRARY", FAKE_NCCL_LIBRARY, 1);
    setenv("BANTAM_FAKE_NCCL", "old", 1);
    expect_no_group(ERR_UNAVAILABLE, "20900", "2.10");
}

static void gpus_that_cannot_be_joined_are_no_group(void **state)
{
    (void)state;
    static const int twice[] = {1, 0, 1};
    struct nccl_group *group;
    setenv("BANTAM_FAKE_NCCL", "init", 1);
    expect_no_group(ERR_INTERNAL, "cannot join 3 GPUs: unhandled system error", "NCCL_DEBUG");
    unsetenv("BANTAM_FAKE_NCCL");
    expect_error(nccl_group_create(twice, 3, &group), ERR_INTERNAL, "cannot join 3 GPUs: invalid", NULL);
    assert_null(group);
}

/* ---- Gathering ---- */

struct rank {
    struct nccl_group *group;
    uint32_t index, n_ranks;
    uint8_t part[ROUNDS][PART_MAX], whole[ROUNDS][RANKS_MAX * PART_MAX + 1];
    err_t error;
};

static size_t part_bytes(uint32_t round)
{
    return 1 + 3 * round % PART_MAX;
}

static uint8_t byte_of(uint32_t rank, uint32_t round, size_t i)
{
    return (uint8_t)(rank * 31 + round * 7 + i);
}

/* Nobody waits for the others: what is gathered is there when all have called. */
static void *gather_rounds(void *at)
{
    struct rank *rank = at;
    for (uint32_t r = 0; r < ROUNDS && rank->error.code == ERR_OK; r++) {
        for (size_t i = 0; i < part_bytes(r); i++)
            rank->part[r][i] = byte_of(rank->index, r, i);
        rank->error = nccl_all_gather(rank->group, rank->index, FAKE_NCCL_STREAM(ordinals[rank->index]),
                                      rank->part[r], rank->whole[r], part_bytes(r));
        if (rank->error.code == ERR_OK)
            rank->error = nccl_check(rank->group, rank->index);
    }
    return NULL;
}

static void check_whole(const struct rank *rank)
{
    for (uint32_t r = 0; r < ROUNDS; r++) {
        size_t n = part_bytes(r);
        for (size_t i = 0; i < rank->n_ranks * n; i++)
            assert_int_equal(rank->whole[r][i], byte_of((uint32_t)(i / n), r, i % n));
        assert_int_equal(rank->whole[r][rank->n_ranks * n], 0);
    }
}

static void parts_are_gathered_in_the_order_of_ranks(void **state)
{
    (void)state;
    static struct rank ranks[RANKS_MAX];
    for (uint32_t n = 1; n <= RANKS_MAX; n++) {
        uint64_t gathers = counts->n_gathers, destroyed = counts->n_destroyed;
        pthread_t threads[RANKS_MAX];
        struct nccl_group *group = open_group(n);
        memset(ranks, 0, sizeof ranks);
        for (uint32_t i = 0; i < n; i++) {
            ranks[i].group = group;
            ranks[i].index = i;
            ranks[i].n_ranks = n;
            assert_int_equal(pthread_create(&threads[i], NULL, gather_rounds, &ranks[i]), 0);
        }
        for (uint32_t i = 0; i < n; i++)
            pthread_join(threads[i], NULL);
        for (uint32_t i = 0; i < n; i++) {
            if (ranks[i].error.code != ERR_OK)
                fail_msg("rank %u of %u: %s", i, n, ranks[i].error.message);
            check_whole(&ranks[i]);
        }
        assert_int_equal(counts->n_gathers - gathers, ROUNDS);
        nccl_group_destroy(group);
        assert_int_equal(counts->n_comms, 0);
        assert_int_equal(counts->n_destroyed - destroyed, n);
    }
    nccl_group_destroy(NULL);
}

/* ---- What goes wrong ---- */

static err_t gather_one(struct nccl_group *group, uint32_t rank, int stream_of)
{
    static uint8_t part[RANKS_MAX][16], whole[RANKS_MAX][RANKS_MAX * 16];
    return nccl_all_gather(group, rank, FAKE_NCCL_STREAM(stream_of), part[rank], whole[rank], 16);
}

static void a_gathering_that_is_refused_is_an_error(void **state)
{
    (void)state;
    struct nccl_group *group = open_group(2);
    setenv("BANTAM_FAKE_NCCL", "gather", 1);
    expect_error(gather_one(group, 1, ordinals[1]), ERR_INTERNAL, "all-gather of 16 bytes", "system error",
                 NULL);
    unsetenv("BANTAM_FAKE_NCCL");
    expect_error(gather_one(group, 1, ordinals[0]), ERR_INTERNAL, "invalid argument", NULL);
    nccl_group_destroy(group);
}

static void what_is_noticed_in_the_background_is_an_error(void **state)
{
    (void)state;
    struct nccl_group *group = open_group(2);
    assert_int_equal(nccl_check(group, 0).code, ERR_OK);
    setenv("BANTAM_FAKE_NCCL", "busy", 1);
    assert_int_equal(nccl_check(group, 0).code, ERR_OK);
    setenv("BANTAM_FAKE_NCCL", "lost", 1);
    expect_error(nccl_check(group, 0), ERR_INTERNAL, "NCCL: remote process exited", NULL);
    setenv("BANTAM_FAKE_NCCL", "check", 1);
    expect_error(nccl_check(group, 1), ERR_INTERNAL, "NCCL: invalid argument", NULL);
    nccl_group_destroy(group);
}

/* A rank that leaves ends its own part; its peers hear of it and leave too. */
static void a_rank_may_leave(void **state)
{
    (void)state;
    uint64_t aborted = counts->n_aborted, destroyed = counts->n_destroyed, gathers = counts->n_gathers;
    struct nccl_group *group = open_group(3);
    assert_int_equal(gather_one(group, 0, ordinals[0]).code, ERR_OK); /* under way for ever */
    nccl_abort(group, 1);
    nccl_abort(group, 1);
    assert_int_equal(counts->n_aborted - aborted, 1);
    expect_error(gather_one(group, 1, ordinals[1]), ERR_UNAVAILABLE, "has left its group", NULL);
    assert_int_equal(nccl_check(group, 1).code, ERR_OK);
    expect_error(nccl_check(group, 0), ERR_INTERNAL, "remote process exited", NULL);
    nccl_abort(group, 0);
    assert_int_equal(counts->n_comms, 1);
    nccl_group_destroy(group);
    assert_int_equal(counts->n_aborted - aborted, 2);
    assert_int_equal(counts->n_destroyed - destroyed, 1);
    assert_int_equal(counts->n_gathers, gathers);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(libraries_that_will_not_do_say_why, reset),
        cmocka_unit_test_teardown(gpus_that_cannot_be_joined_are_no_group, reset),
        cmocka_unit_test_teardown(parts_are_gathered_in_the_order_of_ranks, reset),
        cmocka_unit_test_teardown(a_gathering_that_is_refused_is_an_error, reset),
        cmocka_unit_test_teardown(what_is_noticed_in_the_background_is_an_error, reset),
        cmocka_unit_test_teardown(a_rank_may_leave, reset),
    };
    return cmocka_run_group_tests_name("nccl", tests, find_library, NULL);
}
