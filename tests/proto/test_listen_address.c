/* Addresses to listen on. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <arpa/inet.h>
#include <cmocka.h>
#include <errno.h>
#include <netinet/in.h>
#include <sched.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
#include "proto/listen_address.h"
#include "proto/listen_drain.h"

static void addresses_are_formatted(void **state)
{
    (void)state;
    char out[64];
    listen_format_address("127.0.0.1", 80, out, sizeof out);
    assert_string_equal(out, "127.0.0.1:80");
    listen_format_address("::1", 65535, out, sizeof out);
    assert_string_equal(out, "[::1]:65535");
    listen_format_address("localhost", 0, out, sizeof out);
    assert_string_equal(out, "localhost:0");
}

static void only_this_machine_is_loopback(void **state)
{
    (void)state;
    static const struct {
        const char *host;
        bool loopback;
    } cases[] = {{"127.0.0.1", true}, {"127.9.9.9", true}, {"::1", true},      {"0.0.0.0", false},
                 {"::", false},       {"10.0.0.1", false}, {"8.8.8.8", false}, {"fe80::1", false}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        bool loopback = !cases[i].loopback;
        assert_int_equal(listen_is_loopback(cases[i].host, &loopback).code, ERR_OK);
        assert_int_equal(loopback, cases[i].loopback);
    }
}

static void bad_hosts_are_refused(void **state)
{
    (void)state;
    char too_long[LISTEN_HOST_BYTES_MAX + 1];
    memset(too_long, 'a', LISTEN_HOST_BYTES_MAX);
    too_long[LISTEN_HOST_BYTES_MAX] = '\0';
    const char *const hosts[] = {"", "no such host", "1.2.3.4.5", "[::1]", too_long};
    for (size_t i = 0; i < sizeof hosts / sizeof hosts[0]; i++) {
        bool loopback;
        assert_int_equal(listen_is_loopback(hosts[i], &loopback).code, ERR_INVALID_ARGUMENT);
    }
}

static void failures_are_explained(void **state)
{
    (void)state;
    err_t e = listen_explain_failure("203.0.113.7", 1); /* an address that no machine has */
    assert_int_equal(e.code, ERR_IO);
    assert_non_null(strstr(e.message, "203.0.113.7"));
}

static void sockets_share_a_free_port(void **state)
{
    (void)state;
    static const char *const hosts[] = {"127.0.0.1", "localhost"};
    for (size_t i = 0; i < sizeof hosts / sizeof hosts[0]; i++) {
        int fds[4], again[4];
        size_t n_fds = 0, n_again = 1;
        uint16_t port = 0, second_port;
        assert_int_equal(listen_open(hosts[i], 0, fds, 4, &n_fds, &port).code, ERR_OK);
        assert_true(n_fds >= 1 && port > 0);
        err_t e = listen_open(hosts[i], port, again, 4, &n_again, &second_port);
        assert_int_equal(e.code, ERR_IO);
        assert_non_null(strstr(e.message, "in use"));
        assert_int_equal(n_again, 0);
        for (size_t k = 0; k < n_fds; k++)
            (void)close(fds[k]);
    }
    int fd;
    size_t n_fds;
    uint16_t port;
    assert_int_equal(listen_open("203.0.113.7", 0, &fd, 1, &n_fds, &port).code, ERR_IO);
    assert_int_equal(listen_open("no such host", 0, &fd, 1, &n_fds, &port).code, ERR_INVALID_ARGUMENT);
}

/* errno, or 0. */
static int connect_to(uint16_t port, int flags)
{
    struct sockaddr_in address = {
        .sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | flags, 0);
    assert_true(fd >= 0);
    int failure = connect(fd, (struct sockaddr *)&address, sizeof address) == 0 ? 0 : errno;
    (void)close(fd);
    return failure;
}

/* The kernel may tell who connects before it has its place here. */
static void await_pending(uint16_t port, uint32_t n)
{
    while (listen_pending(port) < n)
        (void)sched_yield();
    assert_int_equal(listen_pending(port), n);
}

/* One port's sockets and no others. What was connected while it was held is there to accept. */
static void listening_can_be_ended(void **state)
{
    (void)state;
    int fds[2][4];
    size_t n_fds[2];
    uint16_t ports[2];
    for (int i = 0; i < 2; i++) {
        assert_int_equal(listen_open("127.0.0.1", 0, fds[i], 4, &n_fds[i], &ports[i]).code, ERR_OK);
        assert_int_equal(connect_to(ports[i], 0), 0);
        await_pending(ports[i], 1);
    }
    listen_hold(ports[0]);
    assert_int_equal(connect_to(ports[0], SOCK_NONBLOCK), EINPROGRESS);
    assert_int_equal(listen_pending(ports[0]), 1);
    assert_int_equal(connect_to(ports[1], 0), 0);
    int accepted = accept4(fds[0][0], NULL, NULL, SOCK_CLOEXEC);
    assert_true(accepted >= 0);
    (void)close(accepted);
    assert_int_equal(listen_pending(ports[0]), 0);
    await_pending(ports[1], 2);
    listen_refuse(ports[0]);
    assert_int_equal(connect_to(ports[0], 0), ECONNREFUSED);
    assert_int_equal(connect_to(ports[1], 0), 0);
    for (int i = 0; i < 2; i++)
        (void)close(fds[i][0]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(addresses_are_formatted),   cmocka_unit_test(only_this_machine_is_loopback),
        cmocka_unit_test(bad_hosts_are_refused),     cmocka_unit_test(failures_are_explained),
        cmocka_unit_test(sockets_share_a_free_port), cmocka_unit_test(listening_can_be_ended),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
