/* ORCA's report and its request, the headers that proxies route by, and the operator's listener. */
#include <stdio.h>
#include <string.h>
#include "api/metrics.h"
#include "base/clock.h"
#include "base/event_count.h"
#include "proto/admin_door.h"
#include "proto/orca_report.h"
#include "proto/protobuf_fields.h"
#include "proto/route_headers.h"
#include "tests/proto/web_client.h"

/* --- the report */

static double double_at(const uint8_t *bytes)
{
    uint64_t bits = 0;
    double value;
    for (int i = 0; i < 8; i++)
        bits |= (uint64_t)bytes[i] << 8 * i;
    memcpy(&value, &bits, sizeof value);
    return value;
}

static void report_is_protobuf(void **state)
{
    (void)state;
    struct orca_report report = {
        .utilization = 0.5, .kv_usage = 0.25, .rps = 3, .running = 7, .predicted_ttft_s = 0.125};
    uint8_t bytes[ORCA_REPORT_BYTES_MAX];
    size_t size = orca_report_encode(&report, bytes);
    assert_int_equal(bytes[0], 2 << 3 | WIRE_FIXED64); /* mem_utilization */
    assert_true(double_at(bytes + 1) == 0.25);
    assert_int_equal(bytes[9], 6 << 3 | WIRE_FIXED64); /* rps_fractional; eps is 0 and absent */
    assert_true(double_at(bytes + 10) == 3);
    assert_int_equal(bytes[18], 8 << 3 | WIRE_BYTES);
    assert_int_equal(bytes[19], 2 + 19 + 9);
    assert_memory_equal(bytes + 20, "\x0a\x13kv_cache_usage_perc\x11", 22);
    assert_int_equal(bytes[size - 9], 9 << 3 | WIRE_FIXED64); /* application_utilization */
    assert_true(double_at(bytes + size - 8) == 0.5);
    struct orca_report read;
    assert_int_equal(orca_report_decode(bytes, size, &read).code, ERR_OK);
    assert_memory_equal(&read, &report, sizeof report);
    assert_int_equal(orca_report_decode(bytes, size - 1, &read).code, ERR_DATA_LOSS);
    assert_int_equal(orca_report_decode(bytes, 0, &read).code, ERR_OK);
    assert_true(read.predicted_ttft_s == -1);
    report = (struct orca_report){.utilization = -1e300,
                                  .kv_usage = 1e300,
                                  .rps = 1e300,
                                  .eps = 1e300,
                                  .waiting = 1e300,
                                  .running = 1e300,
                                  .tokens_per_s = 1e300,
                                  .predicted_ttft_s = -1e300};
    assert_in_range(orca_report_encode(&report, bytes), 100, ORCA_REPORT_BYTES_MAX); /* the largest */
}

static void report_is_text_too(void **state)
{
    (void)state;
    struct orca_report report = {
        .utilization = 0.5, .kv_usage = 0.25, .rps = 3, .running = 7, .predicted_ttft_s = -1};
    char text[ORCA_REPORT_BYTES_MAX * 2];
    orca_report_write(&report, orca_format_parse("text", 4), text);
    assert_string_equal(text, "TEXT application_utilization=0.5,mem_utilization=0.25,rps=3,eps=0,"
                              "named_metrics.kv_cache_usage_perc=0.25,named_metrics.num_requests_waiting=0,"
                              "named_metrics.num_requests_running=7,named_metrics.tokens_per_second=0,"
                              "named_metrics.predicted_ttft_seconds=-1");
    orca_report_write(&report, orca_format_parse("JSON", 4), text);
    assert_memory_equal(text, "JSON ", 5);
    json_t *json = json_loads(text + 5, 0, NULL);
    assert_non_null(json);
    assert_true(json_number_value(json_object_get(json, "application_utilization")) == 0.5);
    assert_true(json_number_value(
                    json_object_get(json_object_get(json, "named_metrics"), "num_requests_running")) == 7);
    json_decref(json);
    orca_report_write(&report, orca_format_parse("Bin", 3), text);
    /* mem_utilization: key 0x11, then 0.25: EQAAAAAAANA/ */
    assert_memory_equal(text, "BIN EQAAAAAAANA/", 16);
    assert_int_equal(strlen(text + 4) % 4, 0);
    assert_int_equal(orca_format_parse("xml", 3), ORCA_FORMAT_NONE);
    assert_int_equal(orca_format_parse("", 0), ORCA_FORMAT_NONE);
}

static void utilization_is_the_larger_and_never_0_under_load(void **state)
{
    (void)state;
    struct loads loads = {
        .kv_blocks_total = 100, .kv_blocks_used = 30, .max_num_seqs = 8, .requests_running = 2};
    assert_true(load_utilization(&loads) == 0.3);
    loads.requests_running = 4;
    assert_true(load_utilization(&loads) == 0.5);
    loads = (struct loads){0};
    assert_true(load_utilization(&loads) == 0);
    struct fake_service *fake;
    assert_int_equal(fake_service_open(&(struct fake_options){0}, &fake).code, ERR_OK);
    struct load_meter meter = {0};
    struct orca_report report;
    load_meter_init(&meter, fake_service_of(fake));
    load_meter_read(&meter, true, &report);
    assert_true(report.utilization > 0 && report.rps > 0);
    /* A server's own failures are told, a client's mistakes are not. */
    struct metrics *metrics = fake_service_of(fake)->vtable->metrics(fake_service_of(fake));
    metric_add(&metrics->refusals[metric_refusal(METRIC_DOOR_GRPC, ERR_INVALID_ARGUMENT)], 1000);
    metric_add(&metrics->refusals[metric_refusal(METRIC_DOOR_HTTP, ERR_INTERNAL)], 5);
    atomic_store(&meter.window_start_ns,
                 fake_service_of(fake)->vtable->now_ns(fake_service_of(fake)) - INT64_C(2000000000));
    load_meter_read(&meter, true, &report);
    assert_true(report.eps > 2.3 && report.eps <= 2.5);
    fake_service_close(fake);
}

/* --- its request */

static int64_t interval_of(const char *bytes, size_t size)
{
    int64_t ms = -1;
    assert_int_equal(orca_request_decode((const uint8_t *)bytes, size, &ms).code, ERR_OK);
    return ms;
}

static void intervals_are_bounded(void **state)
{
    (void)state;
    assert_int_equal(interval_of("", 0), ORCA_INTERVAL_DEFAULT_MS);
    assert_int_equal(interval_of("\x0a\x00", 2), ORCA_INTERVAL_DEFAULT_MS);
    assert_int_equal(interval_of("\x0a\x02\x08\x05", 4), 5000);                         /* 5 s */
    assert_int_equal(interval_of("\x0a\x05\x10\x80\x84\xaf\x5f", 7), 200);              /* 200,000,000 ns */
    assert_int_equal(interval_of("\x0a\x04\x10\xc0\x84\x3d", 6), ORCA_INTERVAL_MIN_MS); /* 1 ms */
    assert_int_equal(interval_of("\x0a\x06\x08\xff\xff\xff\xff\x0f", 8),
                     ORCA_INTERVAL_MAX_MS); /* 136 years */
    assert_int_equal(interval_of("\x12\x03"
                                 "cpu\x0a\x02\x08\x02",
                                 9),
                     2000); /* request_cost_names are known and not needed */
}

static void bad_intervals_are_refused(void **state)
{
    (void)state;
    static const struct {
        const char *bytes;
        size_t size;
    } bad[] = {
        {"\x0a", 1},                                                  /* no length */
        {"\x0a\x05\x08", 3},                                          /* shorter than it says */
        {"\x0a\x0b\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", 13}, /* -1 s */
        {"\x0a\x0b\x10\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", 13}, /* -1 ns */
        {"\x0a\x06\x10\x80\x94\xeb\xdc\x03", 8},                      /* 1,000,000,000 ns */
        {"\x0f\x00", 2},                                              /* no such wire type */
        {"\x00\x00", 2},                                              /* field 0 */
        {"\x0a\x01\x08", 3},                                          /* a field without value inside */
    };
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        int64_t ms = 0;
        err_t e = orca_request_decode((const uint8_t *)bad[i].bytes, bad[i].size, &ms);
        assert_int_equal(e.code, ERR_INVALID_ARGUMENT);
    }
}

/* --- headers */

static err_t apply(const char *model, const char *priority, struct request *request)
{
    static struct route_headers headers;
    (void)snprintf(headers.model, sizeof headers.model, "%s", model);
    return route_headers_apply(&headers, priority, request);
}

static void headers_fill_what_the_body_left_open(void **state)
{
    (void)state;
    struct request request = {0};
    assert_int_equal(apply("", NULL, &request).code, ERR_OK);
    assert_null(request.model);
    assert_int_equal(apply("m", "-7", &request).code, ERR_OK);
    assert_string_equal(request.model, "m");
    assert_int_equal(request.priority, -7);
    request = (struct request){.model = "m", .priority = 3};
    assert_int_equal(apply("m", "3", &request).code, ERR_OK);
    assert_int_equal(apply("other", NULL, &request).code, ERR_INVALID_ARGUMENT);
    assert_int_equal(apply("", "4", &request).code, ERR_INVALID_ARGUMENT);
    static const char *const bad[] = {"",        " 3",      "+3", "3 ", "x", "0x3", "99999999999999999999",
                                      "1000001", "-1000001"};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        request = (struct request){0};
        assert_int_equal(apply("", bad[i], &request).code, ERR_INVALID_ARGUMENT);
    }
}

/* --- the operator's listener */

struct admin {
    struct fake_service *fake;
    struct admin_door *door;
    _Atomic int n_drains;
    struct event_count drained;
};

static void note_drain(void *context)
{
    struct admin *admin = context;
    atomic_fetch_add(&admin->n_drains, 1);
    event_count_bump(&admin->drained);
}

static void admin_open(struct admin *admin, bool allow_orders)
{
    *admin = (struct admin){0};
    struct admin_door_options options = admin_door_options_default();
    options.port = 0;
    options.version = "1.2.3";
    options.allow_orders = allow_orders;
    options.drain = note_drain;
    options.context = admin;
    assert_int_equal(fake_service_open(&(struct fake_options){0}, &admin->fake).code, ERR_OK);
    assert_int_equal(admin_door_open(fake_service_of(admin->fake), &options, &admin->door).code, ERR_OK);
}

static void admin_close(struct admin *admin)
{
    admin_door_close(admin->door);
    fake_service_close(admin->fake);
}

/* One request; the status, and whether the body has `says`. */
static void assert_answers(struct admin *admin, bool posts, const char *path, int status, const char *says)
{
    struct web_connection connection = web_connect_port(admin_door_port(admin->door));
    struct web_answer answer = {0};
    if (posts)
        web_post(&connection, path, "", "{}");
    else
        web_get(&connection, path);
    web_read(&connection, &answer);
    assert_int_equal(answer.status, status);
    assert_non_null(answer.body.data);
    if (!strstr(answer.body.data, says))
        print_error("%s: %s\n", path, answer.body.data);
    assert_non_null(strstr(answer.body.data, says));
    web_answer_free(&answer);
    web_disconnect(&connection);
}

static void operators_see_and_order(void **state)
{
    (void)state;
    struct admin admin;
    admin_open(&admin, true);
    assert_answers(&admin, false, "/metrics", 200, "bantam:build_info{version=\"1.2.3\"} 1\n");
    assert_answers(&admin, false, "/health", 200, "ok");
    assert_answers(&admin, false, "/ready", 200, "ok");
    assert_answers(&admin, false, "/loads", 200, "\"draining\":false");
    assert_answers(&admin, false, "/nothing", 404, "/metrics");
    assert_answers(&admin, false, "/drain", 405, "POST");
    assert_answers(&admin, true, "/metrics", 405, "GET");
    assert_int_equal(atomic_load(&admin.n_drains), 0);
    assert_answers(&admin, true, "/drain", 202, "draining");
    while (atomic_load(&admin.n_drains) == 0)
        event_count_wait(&admin.drained, 0, -1);
    admin_door_not_ready(admin.door);
    assert_answers(&admin, false, "/ready", 503, "shutting down");
    assert_answers(&admin, false, "/health", 200, "ok");
    assert_answers(&admin, false, "/loads", 200, "\"draining\":true");
    fake_service_set_failed(admin.fake);
    assert_answers(&admin, false, "/health", 503, "no life");
    assert_answers(&admin, false, "/metrics", 200, "bantam:failed{model_name=\"fake\"} 1\n");
    admin_close(&admin);
}

static void strangers_may_only_look(void **state)
{
    (void)state;
    struct admin admin;
    admin_open(&admin, false);
    assert_answers(&admin, false, "/metrics", 200, "vllm:num_requests_running");
    assert_answers(&admin, true, "/drain", 403, "loopback");
    assert_int_equal(atomic_load(&admin.n_drains), 0);
    admin_close(&admin);
}

/* --- what the HTTP door says of the load, and how long its connections live */

static void http_tells_load_and_model(void **state)
{
    (void)state;
    struct web web;
    web_open(&web, NULL, NULL);
    struct web_connection connection = web_connect(&web);
    struct web_answer answer = {0};
    static const char *const bodies[] = {"{\"prompt\":\"ab\",\"max_tokens\":3}",
                                         "{\"prompt\":\"ab\",\"max_tokens\":3,\"stream\":true}"};
    for (int i = 0; i < 2; i++) {
        web_post(&connection, "/v1/completions",
                 "endpoint-load-metrics-format: TEXT\r\nx-bantam-priority: 5\r\nx-bantam-model: fake\r\n",
                 bodies[i]);
        web_read(&connection, &answer);
        assert_int_equal(answer.status, 200);
        assert_memory_equal(web_header(&answer, "x-bantam-model"), "fake", 4);
        assert_memory_equal(web_header(&answer, "endpoint-load-metrics"),
                            "TEXT application_utilization=", 29);
        web_answer_free(&answer);
    }
    web_post(&connection, "/v1/completions", "x-bantam-priority: soon\r\n", bodies[0]);
    web_read(&connection, &answer);
    assert_int_equal(answer.status, 400);
    assert_non_null(strstr(answer.body.data, "x-bantam-priority"));
    web_answer_free(&answer);
    web_post(&connection, "/v1/completions", "", bodies[0]);
    web_read(&connection, &answer);
    assert_null(web_header(&answer, "endpoint-load-metrics"));
    web_answer_free(&answer);
    web_disconnect(&connection);
    http_door_close(web.door); /* so that every end was counted */
    const struct metrics *metrics = fake_service_of(web.fake)->vtable->metrics(fake_service_of(web.fake));
    assert_int_equal(metric_read(&metrics->answers[metric_answer_http(200)]), 3);
    assert_int_equal(metric_read(&metrics->answers[metric_answer_http(400)]), 1);
    assert_int_equal(metric_read(&metrics->refusals[metric_refusal(METRIC_DOOR_HTTP, ERR_INVALID_ARGUMENT)]),
                     1);
    assert_int_equal(metric_read(&metrics->received_bytes[METRIC_DOOR_HTTP]),
                     3 * strlen(bodies[0]) + strlen(bodies[1]));
    assert_int_equal(metric_read(&metrics->streams_open[METRIC_DOOR_HTTP]), 0);
    assert_int_equal(metric_read(&metrics->disconnects[METRIC_DOOR_HTTP]), 0);
    fake_service_close(web.fake);
}

static void metrics_on_the_api_port_are_a_choice(void **state)
{
    (void)state;
    struct http_door_options options = http_door_options_default();
    struct web web;
    web_open(&web, NULL, &options);
    assert_int_equal(web_call(&web, "/metrics", NULL, NULL), 404);
    web_close(&web);
    options.metrics = true;
    web_open(&web, NULL, &options);
    struct web_connection connection = web_connect(&web);
    struct web_answer answer = {0};
    web_get(&connection, "/metrics");
    web_read(&connection, &answer);
    assert_int_equal(answer.status, 200);
    assert_memory_equal(web_header(&answer, "content-type"), "text/plain; version=0.0.4", 25);
    assert_non_null(strstr(answer.body.data, "bantam:http_connections_open{model_name=\"fake\"} 1\n"));
    web_answer_free(&answer);
    web_disconnect(&connection);
    web_close(&web);
}

static bool one_lives(const struct fake_counts *counts)
{
    return counts->live == 1;
}

/* A connection that is old when it is answered ends after the answer; a young one stays. */
static void old_connections_end(void **state)
{
    (void)state;
    struct http_door_options options = http_door_options_default();
    static const int64_t ages_ms[] = {1, 3600000};
    for (int i = 0; i < 2; i++) {
        struct web web;
        struct web_answer answer = {0};
        options.max_connection_age_ms = ages_ms[i];
        web_open(&web, NULL, &options);
        fake_service_hold(web.fake, true);
        struct web_connection connection = web_connect(&web);
        web_post(&connection, "/v1/completions", "", "{\"prompt\":\"ab\",\"max_tokens\":3}");
        fake_service_wait(web.fake, one_lives);
        int64_t then_ns = clock_now_ns(clock_monotonic());
        while (clock_now_ns(clock_monotonic()) - then_ns < 2000000) {
        }
        fake_service_hold(web.fake, false);
        web_read(&connection, &answer);
        assert_int_equal(answer.status, 200);
        assert_int_equal(answer.closes, i == 0);
        if (i == 0)
            assert_true(web_ended(&connection));
        web_answer_free(&answer);
        web_disconnect(&connection);
        web_close(&web);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(report_is_protobuf),
        cmocka_unit_test(report_is_text_too),
        cmocka_unit_test(utilization_is_the_larger_and_never_0_under_load),
        cmocka_unit_test(intervals_are_bounded),
        cmocka_unit_test(bad_intervals_are_refused),
        cmocka_unit_test(headers_fill_what_the_body_left_open),
        cmocka_unit_test(operators_see_and_order),
        cmocka_unit_test(strangers_may_only_look),
        cmocka_unit_test(http_tells_load_and_model),
        cmocka_unit_test(metrics_on_the_api_port_are_a_choice),
        cmocka_unit_test(old_connections_end),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
