/* x-bantam-cache-salt at the gRPC door: who may send it, and that nobody reaches another's prefixes with it.
 */
#include <stdio.h>
#include <string.h>
#include <unistd.h>
#include "proto/api_key.h"
#include "proto/identity.h"
#include "proto/route_headers.h"
#include "proto/tenant_service.h"
#include "tests/proto/door_client.h"

/* 64 characters. */
#define LONGEST "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"

static void ask(struct fixture *fixture, const struct client_metadata *metadata, size_t n,
                struct reply *reply)
{
    struct request request = text_request("hello", 1, 1);
    *reply = (struct reply){0};
    start_request_with(fixture, &request, metadata, n, reply);
    wait_done(fixture, reply);
}

/* As it reached the service behind the door. */
static void expect_salt(struct fixture *fixture, const char *key, const char *salt, const char *expected)
{
    struct reply reply;
    struct client_metadata metadata[2];
    size_t n = 0;
    if (salt)
        metadata[n++] = (struct client_metadata){ROUTE_CACHE_SALT, salt, strlen(salt)};
    if (key)
        metadata[n++] = (struct client_metadata){"authorization", key, strlen(key)};
    ask(fixture, metadata, n, &reply);
    assert_int_equal(reply.status, GRPC_STATUS_OK);
    assert_string_equal(fake_service_asked(fixture->fake).cache_salt, expected);
}

static void without_tenants_anybody_may(void **state)
{
    (void)state;
    struct fixture fixture;
    fixture_open(&fixture, NULL, NULL);
    expect_salt(&fixture, NULL, NULL, "");
    expect_salt(&fixture, NULL, "a", "a");
    expect_salt(&fixture, NULL, "!~", "!~");
    expect_salt(&fixture, NULL, LONGEST, LONGEST);
    expect_salt(&fixture, NULL, NULL, "");
    fixture_close(&fixture);
}

static void what_is_no_salt_is_refused(void **state)
{
    (void)state;
    static const char *const WRONG[][2] = {{"", NULL}, {LONGEST "0", NULL}, {"a b", NULL}, {"a", "a"}};
    struct fixture fixture;
    fixture_open(&fixture, NULL, NULL);
    for (size_t i = 0; i < sizeof WRONG / sizeof *WRONG; i++) {
        struct reply reply;
        struct client_metadata metadata[2];
        size_t n = 0;
        for (size_t k = 0; k < 2 && WRONG[i][k]; k++)
            metadata[n++] = (struct client_metadata){ROUTE_CACHE_SALT, WRONG[i][k], strlen(WRONG[i][k])};
        ask(&fixture, metadata, n, &reply);
        assert_int_equal(reply.status, GRPC_STATUS_INVALID_ARGUMENT);
        assert_non_null(strstr(reply.message, ROUTE_CACHE_SALT));
    }
    assert_int_equal(fake_service_counts(fixture.fake).submitted, 0);
    fixture_close(&fixture);
}

/* What a client of ours could not even send. */
static void no_byte_but_printable_ones(void **state)
{
    (void)state;
    const struct caller nobody = {.tenant = ""};
    for (int byte = 0; byte < 256; byte++) {
        struct route_headers headers = {.cache_salt = ""};
        const char value[] = {'a', (char)byte};
        err_t e = route_headers_take_salt(&headers, &nobody, ROUTE_CACHE_SALT, strlen(ROUTE_CACHE_SALT),
                                          value, sizeof value);
        assert_int_equal(e.code, byte > ' ' && byte < 0x7f ? ERR_OK : ERR_INVALID_ARGUMENT);
        assert_int_equal(headers.cache_salt[0] != '\0', e.code == ERR_OK);
    }
}

struct tenants {
    char path[64];
    struct identity *identity;
    struct tenant_service *service;
};

static void write_key(FILE *file, const char *tenant, const char *options, const char *key)
{
    char hash_text[API_KEY_HASH_TEXT_BYTES];
    struct api_key_hash hash = api_key_hash_of(key, strlen(key));
    api_key_hash_format(&hash, hash_text);
    assert_true(fprintf(file, "tenant %s %s\nkey %s %s\n", tenant, options, hash_text, tenant) > 0);
}

static void open_tenants(struct fixture *fixture, struct tenants *tenants)
{
    (void)snprintf(tenants->path, sizeof tenants->path, "/tmp/bantam-salt-%ld", (long)getpid());
    FILE *file = fopen(tenants->path, "w");
    assert_non_null(file);
    write_key(file, "ops", "admin=yes", "key-of-ops");
    write_key(file, "both", "admin=yes cache=shared:ops", "key-of-both");
    write_key(file, "acme", "", "key-of-acme");
    assert_int_equal(fclose(file), 0);
    struct identity_options options = {.keys_file = tenants->path, .clock = clock_monotonic()};
    assert_int_equal(identity_open(&options, &tenants->identity).code, ERR_OK);
    struct fake_options fake = {0};
    *fixture = (struct fixture){.fake = NULL};
    assert_int_equal(fake_service_open(&fake, &fixture->fake).code, ERR_OK);
    err_t e = tenant_service_open(fake_service_of(fixture->fake), tenants->identity, &tenants->service);
    assert_int_equal(e.code, ERR_OK);
    struct grpc_door_options door = grpc_door_options_default();
    door.port = 0;
    door.identity = tenants->identity;
    assert_int_equal(grpc_door_open(tenant_service_of(tenants->service), &door, &fixture->door).code, ERR_OK);
    (void)snprintf(fixture->target, sizeof fixture->target, "127.0.0.1:%u", grpc_door_port(fixture->door));
    struct grpc_client_options client = {.own_connection = true};
    assert_int_equal(grpc_client_open(fixture->target, &client, &fixture->client).code, ERR_OK);
}

static void close_tenants(struct fixture *fixture, struct tenants *tenants)
{
    grpc_client_close(fixture->client);
    grpc_door_close(fixture->door);
    tenant_service_close(tenants->service);
    identity_close(tenants->identity);
    fake_service_close(fixture->fake);
    assert_int_equal(unlink(tenants->path), 0);
}

static void a_tenant_keeps_to_its_own(void **state)
{
    (void)state;
    static const char acme[] = "Bearer key-of-acme", ops[] = "Bearer key-of-ops",
                      both[] = "Bearer key-of-both";
    struct fixture fixture;
    struct tenants tenants;
    struct reply reply;
    open_tenants(&fixture, &tenants);
    expect_salt(&fixture, acme, NULL, "tenant acme");
    expect_salt(&fixture, ops, NULL, "tenant ops");
    expect_salt(&fixture, both, NULL, "group ops");
    uint64_t submitted = fake_service_counts(fixture.fake).submitted;
    const struct client_metadata metadata[] = {{ROUTE_CACHE_SALT, "x", 1},
                                               {"authorization", acme, sizeof acme - 1}};
    ask(&fixture, metadata, 2, &reply);
    assert_int_equal(reply.status, GRPC_STATUS_PERMISSION_DENIED);
    assert_non_null(strstr(reply.message, "admin=yes"));
    assert_int_equal(fake_service_counts(fixture.fake).submitted, submitted);
    /* An admin's is its own as well: whatever it says, it is behind its name. */
    expect_salt(&fixture, ops, "acme", "tenant ops salt acme");
    expect_salt(&fixture, both, "acme", "group ops salt acme");
    expect_salt(&fixture, ops, LONGEST, "tenant ops salt " LONGEST);
    close_tenants(&fixture, &tenants);
}

/* Of callers that are no door. A salt that is cut off might be another's. */
static void a_salt_without_room_is_refused(void **state)
{
    (void)state;
    struct fixture fixture;
    struct tenants tenants;
    open_tenants(&fixture, &tenants);
    struct service *service = tenant_service_of(tenants.service);
    struct request request = text_request("hello", 1, 1);
    struct stream *stream = NULL;
    request.tenant = "ops";
    request.cache_salt = LONGEST "0";
    request.deadline_ns = REQUEST_NO_DEADLINE;
    assert_int_equal(service->vtable->submit(service, &request, &stream).code, ERR_INVALID_ARGUMENT);
    assert_int_equal(fake_service_counts(fixture.fake).submitted, 0);
    close_tenants(&fixture, &tenants);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(without_tenants_anybody_may),    cmocka_unit_test(what_is_no_salt_is_refused),
        cmocka_unit_test(no_byte_but_printable_ones),     cmocka_unit_test(a_tenant_keeps_to_its_own),
        cmocka_unit_test(a_salt_without_room_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
