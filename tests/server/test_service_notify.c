/* What the service manager gets to hear. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <cmocka.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>
#include "server/service_notify.h"

/* A datagram socket with a name of its own in the abstract namespace; name: as NOTIFY_SOCKET has it. */
static int open_manager(char *name, size_t name_bytes)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    int length = snprintf(name, name_bytes, "@bantam-test-%ld", (long)getpid());
    memcpy(address.sun_path, name, (size_t)length);
    address.sun_path[0] = '\0';
    int fd = socket(AF_UNIX, SOCK_DGRAM, 0);
    assert_true(fd >= 0);
    socklen_t address_bytes = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + (size_t)length);
    assert_int_equal(bind(fd, (struct sockaddr *)&address, address_bytes), 0);
    return fd;
}

static void states_arrive(void **state)
{
    (void)state;
    char name[64], got[64] = {0};
    int fd = open_manager(name, sizeof name);
    assert_int_equal(setenv("NOTIFY_SOCKET", name, 1), 0);
    service_notify("READY=1");
    service_notify("STOPPING=1");
    assert_int_equal(recv(fd, got, sizeof got, MSG_DONTWAIT), 7);
    assert_memory_equal(got, "READY=1", 7);
    assert_int_equal(recv(fd, got, sizeof got, MSG_DONTWAIT), 10);
    assert_memory_equal(got, "STOPPING=1", 10);
    (void)close(fd);
}

static void a_missing_manager_is_harmless(void **state)
{
    (void)state;
    char too_long[200];
    memset(too_long, 'x', sizeof too_long - 1);
    too_long[0] = '/';
    too_long[sizeof too_long - 1] = '\0';
    const char *const names[] = {"/nowhere/notify", "@nobody-listens-here", too_long, "relative", ""};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        assert_int_equal(setenv("NOTIFY_SOCKET", names[i], 1), 0);
        service_notify("READY=1");
    }
    assert_int_equal(unsetenv("NOTIFY_SOCKET"), 0);
    service_notify("READY=1");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(states_arrive),
        cmocka_unit_test(a_missing_manager_is_harmless),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
