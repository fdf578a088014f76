/* grpc.health.v1: its messages, and what the door answers. */
#include <string.h>
#include "proto/grpc_health.h"
#include "tests/proto/door_client.h"

#define CHECK "/grpc.health.v1.Health/Check"
#define LIST  "/grpc.health.v1.Health/List"
#define WATCH "/grpc.health.v1.Health/Watch"

#define LONG_AGE_NS INT64_C(2000000000)

static void request_is_read_from_protobuf(void **state)
{
    (void)state;
    static const struct {
        const char *bytes;
        size_t size;
        const char *service; /* NULL = an error */
    } cases[] = {
        {"", 0, ""},
        {"\x0a\x03"
         "abc",
         5, "abc"},
        {"\x0a\x00", 2, ""},
        {"\x0a\x01x\x0a\x02yz", 7, "yz"}, /* the last one counts */
        {"\x10\x05\x0a\x01x", 5, "x"},    /* an unknown varint */
        {"\x1d"
         "abcd\x0a\x01x",
         8, "x"}, /* an unknown fixed32 */
        {"\x19"
         "abcdefgh\x0a\x01x",
         12, "x"},                       /* an unknown fixed64 */
        {"\x12\x02hi\x0a\x01x", 7, "x"}, /* unknown bytes */
        {"\x0a\x05"
         "abc",
         5, NULL},                                                   /* cut short */
        {"\x0a", 1, NULL},                                           /* no length */
        {"\x0b", 1, NULL},                                           /* a group */
        {"\x00\x00", 2, NULL},                                       /* field 0 */
        {"\x80\x80\x80\x80\x80\x80\x80\x80\x80\x80\x80", 11, NULL},  /* a varint without end */
        {"\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01x", 12, NULL}, /* a length beyond everything */
        {"\x0a\x02"
         "a\0",
         4, NULL}, /* NUL */
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char service[HEALTH_SERVICE_BYTES_MAX];
        err_t e = health_decode_request((const uint8_t *)cases[i].bytes, cases[i].size, service);
        if ((e.code == ERR_OK) != (cases[i].service != NULL))
            print_error("case %zu\n", i);
        assert_int_equal(e.code, cases[i].service ? ERR_OK : ERR_INVALID_ARGUMENT);
        if (cases[i].service)
            assert_string_equal(service, cases[i].service);
    }
    uint8_t longest[2 + HEALTH_SERVICE_BYTES_MAX];
    char service[HEALTH_SERVICE_BYTES_MAX];
    memset(longest, 'x', sizeof longest);
    longest[0] = 0x0a;
    longest[1] = HEALTH_SERVICE_BYTES_MAX - 1;
    assert_int_equal(health_decode_request(longest, sizeof longest - 1, service).code, ERR_OK);
    uint8_t beyond[3 + HEALTH_SERVICE_BYTES_MAX] = {0x0a, HEALTH_SERVICE_BYTES_MAX | 0x80, 1};
    assert_int_equal(health_decode_request(beyond, sizeof beyond, service).code, ERR_INVALID_ARGUMENT);
}

static void answers_are_protobuf(void **state)
{
    (void)state;
    uint8_t bytes[HEALTH_LIST_BYTES_MAX];
    assert_int_equal(health_encode_response(HEALTH_UNKNOWN, bytes), 0);
    assert_int_equal(health_encode_response(HEALTH_SERVING, bytes), 2);
    assert_memory_equal(bytes, "\x08\x01", 2);
    enum health_status status;
    assert_int_equal(health_decode_response(bytes, 2, &status).code, ERR_OK);
    assert_int_equal(status, HEALTH_SERVING);
    assert_int_equal(health_decode_response(bytes, 0, &status).code, ERR_OK);
    assert_int_equal(status, HEALTH_UNKNOWN);
    assert_int_equal(health_decode_response((const uint8_t *)"\x08\x63", 2, &status).code, ERR_OK);
    assert_int_equal(status, HEALTH_UNKNOWN);
    assert_int_equal(health_decode_response(bytes, 1, &status).code, ERR_DATA_LOSS);
    uint8_t request[HEALTH_SERVICE_BYTES_MAX + 3];
    char longest[HEALTH_SERVICE_BYTES_MAX], service[HEALTH_SERVICE_BYTES_MAX];
    memset(longest, 'x', sizeof longest - 1);
    longest[sizeof longest - 1] = '\0';
    size_t request_bytes = health_encode_request(longest, request);
    assert_int_equal(health_decode_request(request, request_bytes, service).code, ERR_OK);
    assert_string_equal(service, longest);
    assert_int_equal(health_encode_request("", request), 0);
    const char *const services[] = {"", "ab"};
    size_t size = health_encode_list(services, 2, HEALTH_NOT_SERVING, bytes);
    static const char expected[] = "\x0a\x06\x0a\x00\x12\x02\x08\x02"
                                   "\x0a\x08\x0a\x02"
                                   "ab\x12\x02\x08\x02";
    assert_int_equal(size, sizeof expected - 1);
    assert_memory_equal(bytes, expected, size);
}

static int setup(void **state)
{
    static struct fixture fixture;
    fixture_open(&fixture, NULL, NULL);
    *state = &fixture;
    return 0;
}

static int teardown(void **state)
{
    fixture_close(*state);
    return 0;
}

static void expect_status(struct fixture *fixture, const char *request, size_t size_bytes,
                          enum health_status expected)
{
    struct reply reply = {0};
    start_raw(fixture, CHECK, request, size_bytes, &reply);
    wait_done(fixture, &reply);
    assert_int_equal(reply.status, GRPC_STATUS_OK);
    assert_int_equal(reply.last_size, 2);
    assert_int_equal(reply.last_bytes[1], expected);
}

/* The heartbeat decides: a dead loop is not serving, a long step is. */
static void check_follows_the_heartbeat(void **state)
{
    struct fixture *fixture = *state;
    expect_status(fixture, "", 0, HEALTH_SERVING);
    expect_status(fixture,
                  "\x0a\x0d"
                  "bantam.Bantam",
                  15, HEALTH_SERVING);
    fake_service_set_heartbeat(fixture->fake, LONG_AGE_NS, false);
    expect_status(fixture, "", 0, HEALTH_NOT_SERVING);
    fake_service_set_heartbeat(fixture->fake, LONG_AGE_NS, true);
    expect_status(fixture, "", 0, HEALTH_SERVING);
    struct reply unknown = {0}, garbage = {0}, list = {0};
    start_raw(fixture, CHECK, "\x0a\x01x", 3, &unknown);
    start_raw(fixture, CHECK, "\x0a\x05x", 3, &garbage);
    start_raw(fixture, LIST, "", 0, &list);
    wait_done(fixture, &unknown);
    wait_done(fixture, &garbage);
    wait_done(fixture, &list);
    assert_int_equal(unknown.status, GRPC_STATUS_NOT_FOUND);
    assert_int_equal(garbage.status, GRPC_STATUS_INVALID_ARGUMENT);
    assert_int_equal(list.status, GRPC_STATUS_OK);
    assert_memory_equal(list.last_bytes, "\x0a\x06\x0a\x00\x12\x02\x08\x01", 8);
}

static void watch_tells_changes(void **state)
{
    struct fixture *fixture = *state;
    struct reply watch = {0}, unknown = {0};
    start_raw(fixture, WATCH, "", 0, &watch);
    start_raw(fixture, WATCH, "\x0a\x01x", 3, &unknown);
    wait_messages(fixture, &watch, 1);
    wait_messages(fixture, &unknown, 1);
    assert_int_equal(watch.last_bytes[1], HEALTH_SERVING);
    fake_service_set_heartbeat(fixture->fake, LONG_AGE_NS, false);
    wait_messages(fixture, &watch, 2);
    assert_int_equal(watch.last_bytes[1], HEALTH_NOT_SERVING);
    fake_service_set_heartbeat(fixture->fake, 0, false);
    wait_messages(fixture, &watch, 3);
    assert_int_equal(watch.last_bytes[1], HEALTH_SERVING);
    assert_int_equal(unknown.n_messages, 1);
    assert_int_equal(unknown.last_bytes[1], HEALTH_SERVICE_UNKNOWN);
    assert_false(unknown.done);
    grpc_client_cancel(watch.call);
    grpc_client_cancel(unknown.call);
    wait_done(fixture, &watch);
    wait_done(fixture, &unknown);
}

/* A lost device: no service serves, however lively the loop, and watchers of each hear of it. */
static void a_lost_device_serves_nothing(void **state)
{
    struct fixture *fixture = *state;
    struct reply all = {0}, named = {0}, list = {0};
    start_raw(fixture, WATCH, "", 0, &all);
    start_raw(fixture, WATCH,
              "\x0a\x0d"
              "bantam.Bantam",
              15, &named);
    wait_messages(fixture, &all, 1);
    wait_messages(fixture, &named, 1);
    fake_service_set_heartbeat(fixture->fake, 0, true);
    fake_service_set_failed(fixture->fake);
    wait_messages(fixture, &all, 2);
    wait_messages(fixture, &named, 2);
    assert_int_equal(all.last_bytes[1], HEALTH_NOT_SERVING);
    assert_int_equal(named.last_bytes[1], HEALTH_NOT_SERVING);
    expect_status(fixture, "", 0, HEALTH_NOT_SERVING);
    start_raw(fixture, LIST, "", 0, &list);
    wait_done(fixture, &list);
    assert_memory_equal(list.last_bytes, "\x0a\x06\x0a\x00\x12\x02\x08\x02", 8);
    grpc_client_cancel(all.call);
    grpc_client_cancel(named.call);
    wait_done(fixture, &all);
    wait_done(fixture, &named);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(request_is_read_from_protobuf),
        cmocka_unit_test(answers_are_protobuf),
        cmocka_unit_test_setup_teardown(check_follows_the_heartbeat, setup, teardown),
        cmocka_unit_test_setup_teardown(watch_tells_changes, setup, teardown),
        cmocka_unit_test_setup_teardown(a_lost_device_serves_nothing, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
