/* HTTP over TLS: handshakes good, bad and slow, certificates of clients, and files that change. */
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include "api/metrics.h"
#include "base/clock.h"
#include "base/log.h"
#include "proto/identity.h"
#include "proto/tls_files.h"
#include "tests/proto/cert_maker.h"
#include "tests/proto/web_client.h"

enum { VALID_S = 3000, PATH_BYTES = 128 };
#define TEXT_JSON "{\"prompt\":\"abc\",\"max_tokens\":3}"

struct world {
    char folder[64];
    struct cert_authority *authority;
    struct tls_files *files;
    struct identity *identity;
    struct web web;
};

static const char *path_of(const struct world *world, const char *name)
{
    static char paths[8][PATH_BYTES];
    static int next;
    char *path = paths[next++ % 8];
    (void)snprintf(path, PATH_BYTES, "%s/%s", world->folder, name);
    return path;
}

/* name.pem and name.key */
static void make_pair(const struct world *world, const char *name, const char *alternatives, long seconds)
{
    char cert[32], key[32];
    (void)snprintf(cert, sizeof cert, "%s.pem", name);
    (void)snprintf(key, sizeof key, "%s.key", name);
    cert_make(world->authority, alternatives, seconds, path_of(world, cert), path_of(world, key));
}

static void world_open(struct world *world, enum tls_client_certs certs, const char *const *names,
                       size_t n_names, const struct http_door_options *door)
{
    *world = (struct world){.folder = "/tmp/bantam-tls-XXXXXX"};
    assert_non_null(mkdtemp(world->folder));
    world->authority = cert_authority_make();
    cert_authority_write(world->authority, path_of(world, "ca.pem"));
    make_pair(world, "server", "DNS:localhost", VALID_S);
    struct tls_options tls = {path_of(world, "server.pem"), path_of(world, "server.key"),
                              certs == TLS_CLIENT_CERTS_NONE ? NULL : path_of(world, "ca.pem"), certs};
    err_t e = tls_files_open(&tls, &world->files);
    if (e.code != ERR_OK)
        fail_msg("%s", e.message);
    struct identity_options identity = {
        .client_names = names, .n_client_names = n_names, .clock = clock_monotonic()};
    if (names)
        assert_int_equal(identity_open(&identity, &world->identity).code, ERR_OK);
    struct http_door_options options = door ? *door : http_door_options_default();
    options.tls = world->files;
    options.identity = world->identity;
    web_open(&world->web, NULL, &options);
}

static void world_close(struct world *world)
{
    static const char *const names[] = {"ca.pem",     "server.pem", "server.key",
                                        "client.pem", "client.key", "old.key"};
    web_close(&world->web);
    identity_close(world->identity);
    tls_files_close(world->files);
    cert_authority_free(world->authority);
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++)
        (void)unlink(path_of(world, names[i]));
    assert_int_equal(rmdir(world->folder), 0);
}

/* --- a client */

struct tls_client {
    struct web_connection connection;
    SSL_CTX *context;
    SSL *ssl;
};

static struct tls_client client_over(const struct world *world, struct web_connection connection,
                                     const char *pair)
{
    struct tls_client client = {.connection = connection, .context = SSL_CTX_new(TLS_client_method())};
    assert_int_equal(SSL_CTX_load_verify_locations(client.context, path_of(world, "ca.pem"), NULL), 1);
    SSL_CTX_set_verify(client.context, SSL_VERIFY_PEER, NULL);
    if (pair) {
        char cert[32], key[32];
        (void)snprintf(cert, sizeof cert, "%s.pem", pair);
        (void)snprintf(key, sizeof key, "%s.key", pair);
        assert_int_equal(SSL_CTX_use_certificate_file(client.context, path_of(world, cert), SSL_FILETYPE_PEM),
                         1);
        assert_int_equal(SSL_CTX_use_PrivateKey_file(client.context, path_of(world, key), SSL_FILETYPE_PEM),
                         1);
    }
    client.ssl = SSL_new(client.context);
    assert_int_equal(SSL_set1_host(client.ssl, "localhost"), 1);
    assert_int_equal(SSL_set_fd(client.ssl, client.connection.fd), 1);
    return client;
}

/* pair: the certificate that it shows; NULL = none. */
static struct tls_client client_of(const struct world *world, const char *pair)
{
    return client_over(world, web_connect(&world->web), pair);
}

static void client_close(struct tls_client *client)
{
    SSL_free(client->ssl);
    SSL_CTX_free(client->context);
    web_disconnect(&client->connection);
    ERR_clear_error();
}

/* False when the other side takes no more: with TLS 1.3 a client hears late that its certificate is refused.
 */
static bool try_send_request(struct tls_client *client, const char *path, const char *json)
{
    char request[512];
    int size = json ? snprintf(request, sizeof request,
                               "POST %s HTTP/1.1\r\nHost: t\r\nContent-Type: application/json\r\n"
                               "Content-Length: %zu\r\n\r\n%s",
                               path, strlen(json), json)
                    : snprintf(request, sizeof request, "GET %s HTTP/1.1\r\nHost: t\r\n\r\n", path);
    return SSL_write(client->ssl, request, size) == size;
}

static void send_request(struct tls_client *client, const char *path, const char *json)
{
    assert_true(try_send_request(client, path, json));
}

/* The status of the next answer, which is read to its end; 0 when the connection ends without one. */
static int read_status(struct tls_client *client)
{
    static char bytes[1 << 16];
    size_t size = 0, wanted = SIZE_MAX;
    while (size < wanted) {
        int n = SSL_read(client->ssl, bytes + size, (int)(sizeof bytes - size - 1));
        if (n <= 0)
            return 0;
        size += (size_t)n;
        bytes[size] = '\0';
        const char *end = strstr(bytes, "\r\n\r\n"), *length = strstr(bytes, "content-length: ");
        if (end && length)
            wanted = (size_t)(end - bytes) + 4 + strtoul(length + 16, NULL, 10);
    }
    assert_int_equal(size, wanted);
    return (int)strtol(bytes + 9, NULL, 10);
}

/* One request on a connection of its own. */
static int status_for(const struct world *world, const char *pair, const char *path, const char *json)
{
    struct tls_client client = client_of(world, pair);
    int status = 0;
    if (SSL_connect(client.ssl) == 1 && try_send_request(&client, path, json))
        status = read_status(&client);
    client_close(&client);
    return status;
}

static void requests_are_answered(void **state)
{
    (void)state;
    struct world world;
    world_open(&world, TLS_CLIENT_CERTS_NONE, NULL, 0, NULL);
    struct tls_client client = client_of(&world, NULL);
    static const unsigned char offer[] = "\x02h2\x08http/1.1";
    assert_int_equal(SSL_set_alpn_protos(client.ssl, offer, sizeof offer - 1), 0);
    assert_int_equal(SSL_connect(client.ssl), 1);
    const unsigned char *chosen;
    unsigned chosen_bytes;
    SSL_get0_alpn_selected(client.ssl, &chosen, &chosen_bytes);
    assert_int_equal(chosen_bytes, 8);
    assert_memory_equal(chosen, "http/1.1", 8);
    for (int i = 0; i < 3; i++) { /* one connection */
        send_request(&client, "/v1/completions", TEXT_JSON);
        assert_int_equal(read_status(&client), 200);
    }
    send_request(&client, "/nothing", NULL);
    assert_int_equal(read_status(&client), 404);
    client_close(&client);
    world_close(&world);
}

/* A stream larger than every buffer, read slowly, then one that is left in the middle. */
static void long_streams_pass_and_may_be_left(void **state)
{
    (void)state;
    struct world world;
    world_open(&world, TLS_CLIENT_CERTS_NONE, NULL, 0, NULL);
    static char bytes[1 << 14];
    for (int left_early = 0; left_early < 2; left_early++) {
        struct tls_client client = client_of(&world, NULL);
        assert_int_equal(SSL_connect(client.ssl), 1);
        send_request(&client, "/v1/completions",
                     "{\"prompt\":\"abc\",\"max_tokens\":4000,\"stream\":true,\"logprobs\":5,\"n\":4}");
        size_t size = 0;
        bool done = false;
        char tail[64] = "";
        while (!done && !(left_early && size > 1 << 18)) {
            int n = SSL_read(client.ssl, bytes, sizeof bytes);
            assert_true(n > 0);
            size += (size_t)n;
            char both[64 + sizeof bytes];
            size_t kept = strlen(tail);
            memcpy(both, tail, kept);
            memcpy(both + kept, bytes, (size_t)n);
            size_t total = kept + (size_t)n, tail_bytes = total < 32 ? total : 32;
            done = memmem(both, total, "data: [DONE]\n\n\r\n0\r\n\r\n", 21) != NULL;
            memcpy(tail, both + total - tail_bytes, tail_bytes);
            tail[tail_bytes] = '\0';
        }
        assert_true(size > 1 << 18);
        client_close(&client);
    }
    world_close(&world); /* asserts that nothing lives on */
}

static bool nothing_lives(const struct fake_counts *counts)
{
    return counts->live == 0 && counts->submitted > 0;
}

static void a_client_that_goes_ends_its_request(void **state)
{
    (void)state;
    struct world world;
    world_open(&world, TLS_CLIENT_CERTS_NONE, NULL, 0, NULL);
    fake_service_hold(world.web.fake, true);
    for (int cleanly = 0; cleanly < 2; cleanly++) {
        struct tls_client client = client_of(&world, NULL);
        assert_int_equal(SSL_connect(client.ssl), 1);
        send_request(&client, "/v1/completions", TEXT_JSON);
        while (fake_service_counts(world.web.fake).submitted <= (uint32_t)cleanly)
            assert_int_equal(status_for(&world, NULL, "/health", NULL), 200);
        if (cleanly)
            (void)SSL_shutdown(client.ssl);
        client_close(&client);
        fake_service_wait(world.web.fake, nothing_lives);
    }
    world_close(&world);
}

/* It may be cut before anybody looks. */
static bool one_was_paused(const struct fake_counts *counts)
{
    return counts->pauses > 0;
}

/* Its stream pauses, and it is cut after a while. */
static void a_client_that_reads_nothing_is_cut(void **state)
{
    (void)state;
    struct http_door_options options = http_door_options_default();
    options.write_timeout_ms = 300;
    struct world world;
    world_open(&world, TLS_CLIENT_CERTS_NONE, NULL, 0, &options);
    struct tls_client client = client_over(&world, web_connect_slow(&world.web), NULL);
    assert_int_equal(SSL_connect(client.ssl), 1);
    send_request(&client, "/v1/completions",
                 "{\"prompt\":\"abc\",\"max_tokens\":4000,\"stream\":true,\"logprobs\":5,\"n\":64}");
    fake_service_wait(world.web.fake, one_was_paused);
    fake_service_wait(world.web.fake, nothing_lives);
    client_close(&client);
    world_close(&world);
}

static void who_speaks_no_tls_is_cut(void **state)
{
    (void)state;
    struct world world;
    world_open(&world, TLS_CLIENT_CERTS_NONE, NULL, 0, NULL);
    struct web_connection plain = web_connect(&world.web);
    web_get(&plain, "/health");
    assert_true(web_ended(&plain) || plain.in.data[0] == 0x15); /* an alert at most */
    web_disconnect(&plain);
    struct tls_client client = client_of(&world, NULL);
    static const unsigned char only_h2[] = "\x02h2";
    assert_int_equal(SSL_set_alpn_protos(client.ssl, only_h2, sizeof only_h2 - 1), 0);
    assert_true(SSL_connect(client.ssl) != 1);
    client_close(&client);
    client = client_of(&world, NULL);
    SSL_set_security_level(client.ssl, 0);
    assert_int_equal(SSL_set_min_proto_version(client.ssl, TLS1_VERSION), 1);
    assert_int_equal(SSL_set_max_proto_version(client.ssl, TLS1_1_VERSION), 1);
    assert_true(SSL_connect(client.ssl) != 1);
    client_close(&client);
    assert_int_equal(status_for(&world, NULL, "/health", NULL), 200);
    world_close(&world);
}

/* Handshakes that never end are cut, and count as connections while they last. */
static void slow_handshakes_are_cut(void **state)
{
    (void)state;
    enum { LIMIT = 4 };
    struct http_door_options options = http_door_options_default();
    options.head_timeout_ms = 300;
    options.max_connections = LIMIT;
    struct world world;
    world_open(&world, TLS_CLIENT_CERTS_NONE, NULL, 0, &options);
    struct web_connection slow[LIMIT];
    static const unsigned char start[] = {0x16, 0x03, 0x01, 0x02};
    for (int i = 0; i < LIMIT; i++) {
        slow[i] = web_connect(&world.web);
        if (i % 2)
            web_send(&slow[i], start, sizeof start);
    }
    for (int i = 0; i < LIMIT; i++) {
        assert_true(web_ended(&slow[i]));
        web_disconnect(&slow[i]);
    }
    /* Their places are free. (On a busy machine this one's handshake may be too slow as well.) */
    while (status_for(&world, NULL, "/health", NULL) != 200)
        continue;
    world_close(&world);
}

static void connections_past_the_limit_are_cut(void **state)
{
    (void)state;
    struct http_door_options options = http_door_options_default();
    options.max_connections = 2;
    options.n_loop_threads = 1; /* that accepts one after another: nobody gives way to one who came before */
    struct world world;
    world_open(&world, TLS_CLIENT_CERTS_NONE, NULL, 0, &options);
    struct tls_client first = client_of(&world, NULL), second = client_of(&world, NULL);
    assert_int_equal(SSL_connect(first.ssl), 1);
    assert_int_equal(SSL_connect(second.ssl), 1);
    fake_service_hold(world.web.fake, true);
    send_request(&first, "/v1/completions", TEXT_JSON);
    send_request(&second, "/v1/completions", TEXT_JSON);
    struct service *service = fake_service_of(world.web.fake);
    while (atomic_load(&service->vtable->metrics(service)->streams_open[METRIC_DOOR_HTTP]) < 2)
        (void)usleep(1000);
    struct web_connection third = web_connect(&world.web);
    assert_true(web_ended(&third));
    web_disconnect(&third);
    fake_service_hold(world.web.fake, false);
    assert_int_equal(read_status(&first), 200);
    assert_int_equal(read_status(&second), 200);
    /* Who has nothing under way, a handshake that does not end included, gives way. */
    for (int i = 0; i < 4; i++) {
        struct web_connection silent = web_connect(&world.web);
        assert_int_equal(status_for(&world, NULL, "/health", NULL), 200);
        web_disconnect(&silent);
    }
    client_close(&first);
    client_close(&second);
    world_close(&world);
}

static void certificates_of_clients(void **state)
{
    (void)state;
    static const char *const names[] = {"uri:spiffe://x/a", "dns:c.example"};
    struct world world;
    world_open(&world, TLS_CLIENT_CERTS_REQUIRED, names, 2, NULL);
    static const struct {
        const char *alternatives;
        long seconds;
        int status;
    } cases[] = {
        {"URI:spiffe://x/a", VALID_S, 200},
        {"DNS:other.example,DNS:C.example", VALID_S, 200},
        {"URI:spiffe://x/b,DNS:*.example", VALID_S, 403},
        {NULL, VALID_S, 403},
        {"URI:spiffe://x/a", -10, 0}, /* expired */
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        make_pair(&world, "client", cases[i].alternatives, cases[i].seconds);
        assert_int_equal(status_for(&world, "client", "/v1/completions", TEXT_JSON), cases[i].status);
        assert_int_equal(status_for(&world, "client", "/health", NULL), cases[i].status ? 200 : 0);
    }
    assert_int_equal(status_for(&world, NULL, "/health", NULL), 0);
    /* Signed by somebody else. */
    struct cert_authority *own = world.authority;
    world.authority = cert_authority_make();
    make_pair(&world, "client", "URI:spiffe://x/a", VALID_S);
    cert_authority_free(world.authority);
    world.authority = own;
    assert_int_equal(status_for(&world, "client", "/health", NULL), 0);
    world_close(&world);
}

static void certificates_that_need_not_be_shown(void **state)
{
    (void)state;
    static const char *const names[] = {"uri:spiffe://x/a"};
    struct world world;
    world_open(&world, TLS_CLIENT_CERTS_OPTIONAL, names, 1, NULL);
    make_pair(&world, "client", "URI:spiffe://x/a", VALID_S);
    assert_int_equal(status_for(&world, "client", "/v1/models", NULL), 200);
    assert_int_equal(status_for(&world, NULL, "/v1/models", NULL), 401);
    assert_int_equal(status_for(&world, NULL, "/health", NULL), 200);
    make_pair(&world, "client", "URI:spiffe://x/a", -10);
    assert_int_equal(status_for(&world, "client", "/health", NULL), 0);
    world_close(&world);
}

static long serial_of(const struct tls_client *client)
{
    return ASN1_INTEGER_get(X509_get0_serialNumber(SSL_get0_peer_certificate(client->ssl)));
}

static long serial_now(const struct world *world)
{
    struct tls_client client = client_of(world, NULL);
    assert_int_equal(SSL_connect(client.ssl), 1);
    long serial = serial_of(&client);
    client_close(&client);
    return serial;
}

static void changed_files_are_used_from_then_on(void **state)
{
    (void)state;
    struct world world;
    world_open(&world, TLS_CLIENT_CERTS_NONE, NULL, 0, NULL);
    struct tls_client before = client_of(&world, NULL);
    assert_int_equal(SSL_connect(before.ssl), 1);
    long first = serial_of(&before);
    assert_int_equal(serial_now(&world), first);
    assert_int_equal(rename(path_of(&world, "server.key"), path_of(&world, "old.key")), 0);
    make_pair(&world, "server", "DNS:localhost", VALID_S);
    tls_files_refresh(world.files, false);
    long second = serial_now(&world);
    assert_true(second > first);
    /* A key that does not belong to the certificate, and files that are none: what is in use stays. */
    assert_int_equal(rename(path_of(&world, "old.key"), path_of(&world, "server.key")), 0);
    tls_files_refresh(world.files, false);
    assert_int_equal(serial_now(&world), second);
    FILE *file = fopen(path_of(&world, "server.pem"), "w");
    assert_true(fputs("nothing\n", file) > 0);
    assert_int_equal(fclose(file), 0);
    tls_files_refresh(world.files, false);
    tls_files_refresh(world.files, true);
    assert_int_equal(serial_now(&world), second);
    make_pair(&world, "server", "DNS:localhost", VALID_S);
    tls_files_refresh(world.files, false);
    assert_true(serial_now(&world) > second);
    /* Connections from before go on. */
    send_request(&before, "/health", NULL);
    assert_int_equal(read_status(&before), 200);
    client_close(&before);
    world_close(&world);
}

static void bad_files_are_named(void **state)
{
    (void)state;
    struct world world;
    world_open(&world, TLS_CLIENT_CERTS_NONE, NULL, 0, NULL);
    make_pair(&world, "client", NULL, VALID_S);
    const char *cert = path_of(&world, "server.pem"), *key = path_of(&world, "server.key"),
               *other = path_of(&world, "client.key");
    const struct {
        struct tls_options options;
        enum err_code code;
        const char *named;
    } cases[] = {
        {{cert, "/nowhere/key", NULL, TLS_CLIENT_CERTS_NONE}, ERR_NOT_FOUND, "/nowhere/key"},
        {{key, key, NULL, TLS_CLIENT_CERTS_NONE}, ERR_INVALID_ARGUMENT, "no certificate"},
        {{cert, cert, NULL, TLS_CLIENT_CERTS_NONE}, ERR_INVALID_ARGUMENT, "no private key"},
        {{cert, other, NULL, TLS_CLIENT_CERTS_NONE}, ERR_INVALID_ARGUMENT, "is not that of the certificate"},
        {{cert, key, key, TLS_CLIENT_CERTS_REQUIRED}, ERR_INVALID_ARGUMENT, "no certificate"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct tls_files *files;
        err_t e = tls_files_open(&cases[i].options, &files);
        assert_int_equal(e.code, cases[i].code);
        if (!strstr(e.message, cases[i].named))
            fail_msg("%s", e.message);
    }
    world_close(&world);
}

int main(void)
{
    log_init(LOG_ERROR, LOG_FORMAT_TEXT);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(requests_are_answered),
        cmocka_unit_test(long_streams_pass_and_may_be_left),
        cmocka_unit_test(a_client_that_goes_ends_its_request),
        cmocka_unit_test(a_client_that_reads_nothing_is_cut),
        cmocka_unit_test(who_speaks_no_tls_is_cut),
        cmocka_unit_test(slow_handshakes_are_cut),
        cmocka_unit_test(connections_past_the_limit_are_cut),
        cmocka_unit_test(certificates_of_clients),
        cmocka_unit_test(certificates_that_need_not_be_shown),
        cmocka_unit_test(changed_files_are_used_from_then_on),
        cmocka_unit_test(bad_files_are_named),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
