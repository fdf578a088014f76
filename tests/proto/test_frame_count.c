/* Which clients flood a connection, and which only use it much. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include "proto/frame_count.h"

enum { HEADERS = 1, RST_STREAM = 3, SETTINGS = 4, PING = 6, WINDOW_UPDATE = 8, CONTINUATION = 9, ACK = 1 };
enum { STREAMS_MAX = 50 };

#define TICK_NS (FRAME_HASTE_MS * INT64_C(1000000))

struct client {
    struct frame_count count;
    int64_t now_ns;
    uint32_t n_streams;
};

static enum frame_fault say(struct client *client, const uint8_t *bytes, size_t n_bytes)
{
    static const struct frame_limits limits = {.max_streams = STREAMS_MAX};
    return frame_count_add(&client->count, &limits, bytes, n_bytes, client->now_ns);
}

static size_t write_frame(uint8_t *out, uint8_t kind, uint8_t flags, uint32_t stream, uint32_t n_payload)
{
    uint8_t head[FRAME_HEAD_BYTES] = {
        (uint8_t)(n_payload >> 16), (uint8_t)(n_payload >> 8), (uint8_t)n_payload,     kind,           flags,
        (uint8_t)(stream >> 24),    (uint8_t)(stream >> 16),   (uint8_t)(stream >> 8), (uint8_t)stream};
    memcpy(out, head, sizeof head);
    memset(out + sizeof head, 0xff, n_payload); /* what would be a frame of everything */
    return sizeof head + n_payload;
}

static enum frame_fault say_frame(struct client *client, uint8_t kind, uint8_t flags, uint32_t stream,
                                  uint32_t n_payload)
{
    static uint8_t bytes[FRAME_HEAD_BYTES + 20000];
    assert_true(n_payload <= 20000);
    return say(client, bytes, write_frame(bytes, kind, flags, stream, n_payload));
}

static struct client connect_client(bool acknowledges)
{
    struct client client = {.now_ns = 1000 * TICK_NS};
    assert_int_equal(say(&client, (const uint8_t *)"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", FRAME_PREFACE_BYTES),
                     FRAME_FINE);
    assert_int_equal(say_frame(&client, SETTINGS, 0, 0, 12), FRAME_FINE);
    if (acknowledges)
        assert_int_equal(say_frame(&client, SETTINGS, ACK, 0, 0), FRAME_FINE);
    return client;
}

static uint32_t stream_at(uint32_t i)
{
    return 2 * i + 1;
}

static enum frame_fault open_stream(struct client *client)
{
    return say_frame(client, HEADERS, 0, stream_at(client->n_streams++), 30);
}

static void many_calls_are_fine(void **state)
{
    (void)state;
    struct client client = connect_client(true);
    for (int i = 0; i < 100000; i++) {
        assert_int_equal(open_stream(&client), FRAME_FINE);
        assert_int_equal(say_frame(&client, WINDOW_UPDATE, 0, 0, 4), FRAME_FINE);
    }
    assert_int_equal(client.count.n_opened, 100000);
}

static void settings_hold_before_they_are_acknowledged(void **state)
{
    (void)state;
    struct client client = connect_client(false);
    for (int i = 0; i < STREAMS_MAX; i++)
        assert_int_equal(open_stream(&client), FRAME_FINE);
    assert_int_equal(say_frame(&client, HEADERS, 0, 1, 30), FRAME_FINE); /* trailers */
    assert_int_equal(open_stream(&client), FRAME_FAULT_UNACKNOWLEDGED);
}

static enum frame_fault reset_half(struct client *client, int n, int n_resets_of_ten)
{
    enum frame_fault fault = FRAME_FINE;
    for (int i = 0; i < n && fault == FRAME_FINE; i++) {
        fault = open_stream(client);
        if (fault == FRAME_FINE && i % 10 < n_resets_of_ten)
            fault = say_frame(client, RST_STREAM, 0, stream_at(client->n_streams - 1), 4);
    }
    return fault;
}

static void hasty_resets_are_fine_while_most_calls_are_not_reset(void **state)
{
    (void)state;
    struct client client = connect_client(true);
    assert_int_equal(reset_half(&client, 100000, 5), FRAME_FINE);
    assert_int_equal(reset_half(&client, 1000, 7), FRAME_FAULT_RESETS);
}

static void all_calls_may_be_cancelled_once(void **state)
{
    (void)state;
    struct client client = connect_client(true);
    assert_int_equal(reset_half(&client, STREAMS_MAX, 10), FRAME_FINE);
    for (int i = 0; i <= STREAMS_MAX / FRAME_HASTE_FORGIVEN; i++, client.now_ns += TICK_NS)
        assert_int_equal(say_frame(&client, WINDOW_UPDATE, 0, 0, 4), FRAME_FINE);
    assert_int_equal(reset_half(&client, STREAMS_MAX, 10), FRAME_FINE); /* it is forgiven */
    assert_int_equal(reset_half(&client, STREAMS_MAX, 10), FRAME_FAULT_RESETS);
}

/* After three ticks, which the client sees pass one by one or not. */
static void reset_late(bool speaks)
{
    struct client client = connect_client(true);
    for (int round = 0; round < 100; round++) {
        uint32_t first = client.n_streams;
        for (int i = 0; i < STREAMS_MAX; i++)
            assert_int_equal(open_stream(&client), FRAME_FINE);
        for (int i = 0; i < 3; i++, client.now_ns += TICK_NS)
            if (speaks)
                assert_int_equal(say_frame(&client, WINDOW_UPDATE, 0, 0, 4), FRAME_FINE);
        for (uint32_t i = first; i < client.n_streams; i++)
            assert_int_equal(say_frame(&client, RST_STREAM, 0, stream_at(i), 4), FRAME_FINE);
    }
    assert_int_equal(client.count.n_hasty, 0);
}

static void late_resets_do_not_count(void **state)
{
    (void)state;
    reset_late(true);
    reset_late(false);
}

static void headers_have_a_limit(void **state)
{
    (void)state;
    struct client client = connect_client(true);
    for (int request = 0; request < 3; request++) {
        assert_int_equal(say_frame(&client, HEADERS, 0, stream_at(client.n_streams++), 16384), FRAME_FINE);
        for (int i = 0; i < 2; i++)
            assert_int_equal(say_frame(&client, CONTINUATION, 0, 1, 16384), FRAME_FINE);
    }
    assert_int_equal(say_frame(&client, CONTINUATION, 0, 1, 16384), FRAME_FAULT_BLOCK);
}

static void empty_continuations_have_the_same(void **state)
{
    (void)state;
    struct client client = connect_client(true);
    assert_int_equal(open_stream(&client), FRAME_FINE);
    int n = 0;
    while (n < 100000 && say_frame(&client, CONTINUATION, 0, 1, 0) == FRAME_FINE)
        n++;
    assert_in_range(n, 1, FRAME_BLOCK_BYTES_MAX / FRAME_HEAD_BYTES);
}

static void pings_count_when_they_come_together(void **state)
{
    (void)state;
    struct client client = connect_client(true);
    static uint8_t bytes[64 * (FRAME_HEAD_BYTES + 8)];
    size_t n_bytes = 0;
    for (int i = 0; i < FRAME_PINGS_MAX; i++)
        n_bytes += write_frame(bytes + n_bytes, PING, 0, 0, 8);
    for (int i = 0; i < 100; i++)
        assert_int_equal(say(&client, bytes, n_bytes), FRAME_FINE);
    n_bytes += write_frame(bytes + n_bytes, PING, 0, 0, 8);
    assert_int_equal(say(&client, bytes, n_bytes), FRAME_FAULT_PINGS);
    client = connect_client(true);
    for (size_t i = FRAME_HEAD_BYTES - 5; i < n_bytes; i += FRAME_HEAD_BYTES + 8)
        bytes[i] = ACK;
    assert_int_equal(say(&client, bytes, n_bytes), FRAME_FINE);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(many_calls_are_fine),
        cmocka_unit_test(settings_hold_before_they_are_acknowledged),
        cmocka_unit_test(hasty_resets_are_fine_while_most_calls_are_not_reset),
        cmocka_unit_test(all_calls_may_be_cancelled_once),
        cmocka_unit_test(late_resets_do_not_count),
        cmocka_unit_test(headers_have_a_limit),
        cmocka_unit_test(empty_continuations_have_the_same),
        cmocka_unit_test(pings_count_when_they_come_together),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
