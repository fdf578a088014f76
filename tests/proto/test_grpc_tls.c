/* gRPC over TLS where a client by hand is needed: handshakes that never end. What real clients see is in
 * tests/e2e. */
#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
#include "proto/tls_files.h"
#include "tests/proto/cert_maker.h"
#include "tests/proto/door_client.h"

struct world {
    char folder[64], cert[96], key[96];
    struct tls_files *files;
    struct fake_service *fake;
    struct grpc_door *door;
};

static void world_open(struct world *world, int64_t handshake_timeout_ms)
{
    *world = (struct world){.folder = "/tmp/bantam-grpc-tls-XXXXXX"};
    assert_non_null(mkdtemp(world->folder));
    (void)snprintf(world->cert, sizeof world->cert, "%s/server.pem", world->folder);
    (void)snprintf(world->key, sizeof world->key, "%s/server.key", world->folder);
    struct cert_authority *authority = cert_authority_make();
    cert_make(authority, "DNS:localhost", 3000, world->cert, world->key);
    cert_authority_free(authority);
    struct tls_options tls = {world->cert, world->key, NULL, TLS_CLIENT_CERTS_NONE};
    struct fake_options fake = {0};
    assert_int_equal(tls_files_open(&tls, &world->files).code, ERR_OK);
    assert_int_equal(fake_service_open(&fake, &world->fake).code, ERR_OK);
    struct grpc_door_options options = grpc_door_options_default();
    options.port = 0;
    options.tls = world->files;
    options.handshake_timeout_ms = handshake_timeout_ms;
    assert_int_equal(grpc_door_open(fake_service_of(world->fake), &options, &world->door).code, ERR_OK);
}

static void world_close(struct world *world)
{
    grpc_door_close(world->door);
    fake_service_close(world->fake);
    tls_files_close(world->files);
    (void)unlink(world->cert);
    (void)unlink(world->key);
    assert_int_equal(rmdir(world->folder), 0);
}

static int connect_to(const struct world *world)
{
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    struct sockaddr_in address = {.sin_family = AF_INET,
                                  .sin_port = htons(grpc_door_port(world->door)),
                                  .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    assert_int_equal(connect(fd, (struct sockaddr *)&address, sizeof address), 0);
    return fd;
}

/* Nothing, the start of a ClientHello, and clear text: each is cut. */
static void handshakes_that_do_not_end_are_cut(void **state)
{
    (void)state;
    static const unsigned char start[] = {0x16, 0x03, 0x01, 0x02, 0x00};
    static const char clear[] = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\4\0\0\0\0\0";
    const struct {
        const void *bytes;
        size_t size;
    } firsts[] = {{NULL, 0}, {start, sizeof start}, {clear, sizeof clear - 1}};
    enum { N = sizeof firsts / sizeof firsts[0] };
    struct world world;
    world_open(&world, 300);
    int fds[N];
    for (int i = 0; i < N; i++) {
        fds[i] = connect_to(&world);
        if (firsts[i].size > 0) /* or it is cut already: it had 300 ms */
            (void)send(fds[i], firsts[i].bytes, firsts[i].size, MSG_NOSIGNAL);
    }
    for (int i = 0; i < N; i++) {
        char bytes[256]; /* an alert at most */
        while (recv(fds[i], bytes, sizeof bytes, 0) > 0)
            continue;
        (void)close(fds[i]);
    }
    world_close(&world);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(handshakes_that_do_not_end_are_cut),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
