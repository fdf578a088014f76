/* What a library sees of a watched connection: turns, and floods cut. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <errno.h>
#include <fcntl.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>
#include <cmocka.h>
#include "api/metrics.h"
#include "proto/connection_watch.h"

enum { READ_BYTES = 8192 };

struct world {
    struct metrics metrics;
    struct connection_watch watch;
    int client, server, epoll;
};

static struct world world;

static int set_up(void **state)
{
    (void)state;
    int ends[2];
    memset(&world, 0, sizeof world);
    world.watch = (struct connection_watch){
        .limits = {.max_streams = 100}, .clear_text = true, .metrics = &world.metrics, .port = 1};
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, ends), 0);
    world.client = ends[0];
    world.server = ends[1];
    world.epoll = epoll_create1(0);
    connection_watch_begin(&world.watch, world.server);
    struct epoll_event wanted = {.events = EPOLLIN | EPOLLET, .data.u64 = 42};
    assert_int_equal(epoll_ctl(world.epoll, EPOLL_CTL_ADD, world.server, &wanted), 0);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    (void)close(world.client);
    (void)close(world.server);
    (void)close(world.epoll);
    return 0;
}

static ssize_t read_once(void)
{
    static uint8_t bytes[READ_BYTES];
    struct iovec room = {bytes, sizeof bytes};
    struct msghdr message = {.msg_iov = &room, .msg_iovlen = 1};
    return recvmsg(world.server, &message, 0);
}

/* Until it is told that nothing is there. */
static size_t read_turn(void)
{
    size_t n_bytes = 0;
    ssize_t n;
    while ((n = read_once()) > 0)
        n_bytes += (size_t)n;
    assert_int_equal(n, -1);
    return errno == EAGAIN ? n_bytes : SIZE_MAX;
}

static bool is_told(void)
{
    struct epoll_event event;
    if (epoll_wait(world.epoll, &event, 1, 0) != 1)
        return false;
    assert_int_equal(event.data.u64, 42);
    return true;
}

/* A preface, then one frame of no kind and 16 MiB. */
static size_t fill(size_t n_most)
{
    static uint8_t bytes[1 << 17];
    memset(bytes, 0, sizeof bytes);
    memset(bytes + FRAME_PREFACE_BYTES, 0xfa, FRAME_HEAD_BYTES);
    ssize_t n = send(world.client, bytes, n_most < sizeof bytes ? n_most : sizeof bytes, 0);
    assert_true(n > 0);
    return (size_t)n;
}

static void a_flood_is_read_by_turns(void **state)
{
    (void)state;
    size_t n_bytes = fill(SIZE_MAX), n_read = 0;
    int n_turns = 0;
    assert_true(n_bytes > 4 * WATCH_TURN_BYTES);
    while (n_read < n_bytes) {
        assert_true(is_told()); /* of an edge that only the watch can have made, but for the first */
        size_t n_turn = read_turn();
        assert_true(n_turn <= WATCH_TURN_BYTES + READ_BYTES);
        n_read += n_turn;
        n_turns += n_turn > 0;
    }
    assert_int_equal(n_read, n_bytes);
    assert_true(n_turns > 3);
}

static void a_little_is_read_at_once(void **state)
{
    (void)state;
    size_t n_bytes = fill(1000);
    assert_true(is_told());
    assert_int_equal(read_turn(), n_bytes);
    assert_false(is_told());
}

static void many_calls_shorten_turns(void **state)
{
    (void)state;
    uint8_t bytes[FRAME_PREFACE_BYTES + 100 * (FRAME_HEAD_BYTES + 50)] = {0};
    for (uint32_t i = 0; i < 100; i++) {
        uint8_t *head = bytes + FRAME_PREFACE_BYTES + i * (FRAME_HEAD_BYTES + 50);
        head[2] = 50;
        head[3] = 1; /* HEADERS */
        head[8] = (uint8_t)(2 * i + 1);
    }
    assert_int_equal(send(world.client, bytes, sizeof bytes, 0), sizeof bytes);
    assert_true(read_turn() == sizeof bytes); /* it was not known yet */
    for (int i = 0; i < WATCH_REFUSALS - 1; i++)
        assert_int_equal(read_turn(), 0);
    assert_int_equal(send(world.client, bytes, sizeof bytes, 0), sizeof bytes);
    assert_int_equal(read_once(), WATCH_HURRIED_BYTES);
    assert_int_equal(atomic_load(&world.metrics.grpc_connections_cut[0]), 0);
}

static void a_fault_looks_like_a_reset(void **state)
{
    (void)state;
    uint8_t bytes[FRAME_PREFACE_BYTES + 9] = {0};
    memcpy(bytes + FRAME_PREFACE_BYTES, "\1\0\0\1", 4); /* headers of 64 KiB */
    assert_int_equal(send(world.client, bytes, sizeof bytes, 0), sizeof bytes);
    for (int i = 0; i < 2; i++) {
        assert_int_equal(read_once(), -1);
        assert_int_equal(errno, ECONNRESET);
    }
    assert_int_equal(atomic_load(&world.metrics.grpc_connections_cut[0]), 1);
}

static void closing_ends_it(void **state)
{
    (void)state;
    int number = world.server;
    assert_int_equal(close(world.server), 0);
    int ends[2];
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, ends), 0);
    assert_int_equal(ends[0], number);
    (void)close(world.client);
    world.server = ends[0];
    world.client = ends[1];
    size_t n_bytes = fill(SIZE_MAX);
    assert_int_equal(read_turn(), n_bytes); /* somebody else's: nobody's turn ends */
    connection_watch_begin(&world.watch, world.server);
    connection_watch_end(&world.watch);
    n_bytes = fill(SIZE_MAX);
    assert_int_equal(read_turn(), n_bytes);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(a_flood_is_read_by_turns, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_little_is_read_at_once, set_up, tear_down),
        cmocka_unit_test_setup_teardown(many_calls_shorten_turns, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_fault_looks_like_a_reset, set_up, tear_down),
        cmocka_unit_test_setup_teardown(closing_ends_it, set_up, tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
