#include "proto/orca_report.h"

#include <stdio.h>
#include <string.h>
#include <strings.h>
#include "api/metrics.h"
#include "base/assert.h"
#include "proto/protobuf_fields.h"

#define WINDOW_NS INT64_C(1000000000)

/* --- rates */

void load_meter_init(struct load_meter *meter, struct service *service)
{
    meter->service = service;
    atomic_store(&meter->window_start_ns, service->vtable->now_ns(service));
}

/* Failures that another server might not have: what the client did wrong is none. */
static uint64_t count_errors(struct service *service)
{
    static const enum err_code codes[] = {ERR_RESOURCE_EXHAUSTED, ERR_UNAVAILABLE, ERR_INTERNAL};
    const struct metrics *metrics = service->vtable->metrics(service);
    uint64_t n = metric_read(&metrics->request_success[metric_reason(FINISH_ERROR)]);
    for (int door = 0; door < METRIC_DOORS_COUNT; door++)
        for (size_t i = 0; i < sizeof codes / sizeof codes[0]; i++)
            n += metric_read(&metrics->refusals[metric_refusal((enum metric_door)door, codes[i])]);
    return n;
}

/* A window that was cut short, the first one, says nothing of a second. */
static uint64_t millionths_a_second(uint64_t n, int64_t window_ns)
{
    window_ns = window_ns < WINDOW_NS ? WINDOW_NS : window_ns;
    return (uint64_t)((double)n * 1e15 / (double)window_ns);
}

/* Ends the window when it is old enough; whoever is first does it. busy: something is under way, so that the
 * rate is not told as 0, which balancers take for "unknown". */
static void turn_window(struct load_meter *meter, const struct loads *loads, bool busy)
{
    struct service *service = meter->service;
    int64_t start_ns = atomic_load(&meter->window_start_ns);
    int64_t now_ns = service->vtable->now_ns(service), window_ns = now_ns - start_ns;
    bool first = atomic_load(&meter->rps_millionths) == 0;
    if (window_ns <= (first ? 0 : WINDOW_NS) ||
        !atomic_compare_exchange_strong(&meter->window_start_ns, &start_ns, now_ns))
        return;
    uint64_t errors = count_errors(service);
    uint64_t n_finished =
        loads->requests_finished - atomic_exchange(&meter->finished, loads->requests_finished);
    uint64_t n_errors = errors - atomic_exchange(&meter->errors, errors);
    uint64_t n = n_finished > 0 ? n_finished : busy;
    atomic_store(&meter->rps_millionths, millionths_a_second(n, window_ns));
    atomic_store(&meter->eps_millionths, millionths_a_second(n_errors, window_ns));
}

double load_utilization(const struct loads *loads)
{
    double kv = loads->kv_blocks_total ? (double)loads->kv_blocks_used / loads->kv_blocks_total : 0;
    double running = loads->max_num_seqs ? (double)loads->requests_running / loads->max_num_seqs : 0;
    return kv > running ? kv : running;
}

void load_meter_read(struct load_meter *meter, bool in_request, struct orca_report *out)
{
    struct loads loads;
    meter->service->vtable->loads(meter->service, &loads);
    bool busy = in_request || loads.requests_waiting + loads.requests_running > 0;
    turn_window(meter, &loads, busy);
    *out = (struct orca_report){
        .utilization = load_utilization(&loads),
        .kv_usage = loads.kv_blocks_total ? (double)loads.kv_blocks_used / loads.kv_blocks_total : 0,
        .rps = (double)atomic_load(&meter->rps_millionths) * 1e-6,
        .eps = (double)atomic_load(&meter->eps_millionths) * 1e-6,
        .waiting = loads.requests_waiting,
        .running = loads.requests_running,
        .tokens_per_s = loads.tokens_per_s,
        .predicted_ttft_s = loads.predicted_ttft_ns < 0 ? -1 : (double)loads.predicted_ttft_ns * 1e-9,
    };
    double floor = loads.max_num_seqs ? 1.0 / loads.max_num_seqs : 1;
    if (busy && out->utilization < floor)
        out->utilization = floor;
}

/* --- bytes */

#define NAMED_METRICS(X)                                                                                     \
    X(kv_cache_usage_perc, kv_usage)                                                                         \
    X(num_requests_waiting, waiting)                                                                         \
    X(num_requests_running, running)                                                                         \
    X(tokens_per_second, tokens_per_s)                                                                       \
    X(predicted_ttft_seconds, predicted_ttft_s)

/* Fields of OrcaLoadReport. */
enum { FIELD_MEM_UTILIZATION = 2, FIELD_RPS = 6, FIELD_EPS = 7, FIELD_NAMED = 8, FIELD_UTILIZATION = 9 };

size_t orca_report_encode(const struct orca_report *report, uint8_t out[ORCA_REPORT_BYTES_MAX])
{
    uint8_t *at = out;
    at = wire_write_double(at, FIELD_MEM_UTILIZATION, report->kv_usage);
    at = wire_write_double(at, FIELD_RPS, report->rps);
    at = wire_write_double(at, FIELD_EPS, report->eps);
#define WRITE_NAMED(name, member) at = wire_write_map_double(at, FIELD_NAMED, #name, report->member);
    NAMED_METRICS(WRITE_NAMED)
    at = wire_write_double(at, FIELD_UTILIZATION, report->utilization);
    ASSERT(at - out <= ORCA_REPORT_BYTES_MAX);
    return (size_t)(at - out);
}

/* An entry of named_metrics: the name is 1, the value 2. */
static bool decode_named(struct wire_reader body, struct orca_report *out)
{
    struct wire_field field;
    struct wire_reader name = {NULL, NULL};
    bool malformed = false;
    double value = 0;
    while (wire_read_field(&body, &field, &malformed)) {
        if (field.key == WIRE_KEY(1, WIRE_BYTES))
            name = field.body;
        else if (field.key == WIRE_KEY(2, WIRE_FIXED64))
            value = wire_double(field.value);
    }
    size_t name_bytes = (size_t)(name.end - name.at);
#define READ_NAMED(text, member)                                                                             \
    if (name_bytes == sizeof #text - 1 && memcmp(name.at, #text, name_bytes) == 0)                           \
        out->member = value;
    NAMED_METRICS(READ_NAMED)
    return !malformed;
}

err_t orca_report_decode(const uint8_t *bytes, size_t size_bytes, struct orca_report *out)
{
    *out = (struct orca_report){.predicted_ttft_s = -1};
    struct wire_reader reader = {bytes, bytes + size_bytes};
    struct wire_field field;
    bool malformed = false, good = true;
    while (good && wire_read_field(&reader, &field, &malformed)) {
        if (field.key == WIRE_KEY(FIELD_NAMED, WIRE_BYTES))
            good = decode_named(field.body, out);
        else if (field.key == WIRE_KEY(FIELD_MEM_UTILIZATION, WIRE_FIXED64))
            out->kv_usage = wire_double(field.value);
        else if (field.key == WIRE_KEY(FIELD_RPS, WIRE_FIXED64))
            out->rps = wire_double(field.value);
        else if (field.key == WIRE_KEY(FIELD_EPS, WIRE_FIXED64))
            out->eps = wire_double(field.value);
        else if (field.key == WIRE_KEY(FIELD_UTILIZATION, WIRE_FIXED64))
            out->utilization = wire_double(field.value);
    }
    if (malformed || !good)
        return err_new(ERR_DATA_LOSS, "the message is not an xds.data.orca.v3.OrcaLoadReport");
    return err_ok();
}

enum orca_format orca_format_parse(const char *text, size_t text_bytes)
{
    static const struct {
        const char *name;
        enum orca_format format;
    } formats[] = {{"text", ORCA_FORMAT_TEXT}, {"json", ORCA_FORMAT_JSON}, {"bin", ORCA_FORMAT_BIN}};
    for (size_t i = 0; i < sizeof formats / sizeof formats[0]; i++)
        if (strlen(formats[i].name) == text_bytes && strncasecmp(text, formats[i].name, text_bytes) == 0)
            return formats[i].format;
    return ORCA_FORMAT_NONE;
}

static void write_base64(const uint8_t *bytes, size_t size_bytes, char *out)
{
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    for (size_t i = 0; i < size_bytes; i += 3) {
        size_t left = size_bytes - i;
        uint32_t group = (uint32_t)bytes[i] << 16 | (left > 1 ? (uint32_t)bytes[i + 1] << 8 : 0) |
                         (left > 2 ? bytes[i + 2] : 0);
        *out++ = digits[group >> 18];
        *out++ = digits[group >> 12 & 63];
        *out++ = left > 1 ? digits[group >> 6 & 63] : '=';
        *out++ = left > 2 ? digits[group & 63] : '=';
    }
    *out = '\0';
}

void orca_report_write(const struct orca_report *report, enum orca_format format,
                       char out[ORCA_REPORT_BYTES_MAX * 2])
{
    uint8_t bytes[ORCA_REPORT_BYTES_MAX];
    struct buffer text = {.limit_bytes = ORCA_REPORT_BYTES_MAX * 2 - 1};
    bool good = true;
    switch (format) {
    case ORCA_FORMAT_BIN:
        memcpy(out, "BIN ", 4);
        write_base64(bytes, orca_report_encode(report, bytes), out + 4);
        return;
    case ORCA_FORMAT_TEXT:
#define TEXT_NAMED(name, member)                                                                             \
    good = good && buffer_append_format(&text, ",named_metrics." #name "=%.6g", report->member);
        good = buffer_append_format(
            &text, "TEXT application_utilization=%.6g,mem_utilization=%.6g,rps=%.6g,eps=%.6g",
            report->utilization, report->kv_usage, report->rps, report->eps);
        NAMED_METRICS(TEXT_NAMED)
        break;
    case ORCA_FORMAT_JSON:
#define JSON_NAMED(name, member)                                                                             \
    good = good && buffer_append_format(&text, "%s\"" #name "\":%.6g", separator, report->member);           \
    separator = ",";
        good = buffer_append_format(&text,
                                    "JSON {\"application_utilization\":%.6g,\"mem_utilization\":%.6g,"
                                    "\"rps_fractional\":%.6g,\"eps\":%.6g,\"named_metrics\":{",
                                    report->utilization, report->kv_usage, report->rps, report->eps);
        const char *separator = "";
        NAMED_METRICS(JSON_NAMED)
        good = good && buffer_append_text(&text, "}}");
        break;
    case ORCA_FORMAT_NONE:
        break;
    }
    (void)snprintf(out, ORCA_REPORT_BYTES_MAX * 2, "%s", good && text.data ? text.data : "");
    buffer_free(&text);
}

/* --- the request of the out-of-band stream */

/* google.protobuf.Duration: seconds = 1, nanos = 2. */
static bool decode_duration(struct wire_reader body, int64_t *ms)
{
    struct wire_field field;
    bool malformed = false;
    int64_t seconds = 0, nanos = 0;
    while (wire_read_field(&body, &field, &malformed)) {
        if (field.key == WIRE_KEY(1, WIRE_VARINT))
            seconds = (int64_t)field.value;
        else if (field.key == WIRE_KEY(2, WIRE_VARINT))
            nanos = (int64_t)field.value;
    }
    if (seconds < 0 || nanos < 0 || nanos > 999999999)
        return false;
    *ms = seconds > ORCA_INTERVAL_MAX_MS / 1000 ? ORCA_INTERVAL_MAX_MS : seconds * 1000 + nanos / 1000000;
    return !malformed;
}

err_t orca_request_decode(const uint8_t *bytes, size_t size_bytes, int64_t *interval_ms)
{
    struct wire_reader reader = {bytes, bytes + size_bytes};
    struct wire_field field;
    bool malformed = false, good = true;
    int64_t ms = ORCA_INTERVAL_DEFAULT_MS;
    while (good && wire_read_field(&reader, &field, &malformed))
        if (field.key == WIRE_KEY(1, WIRE_BYTES))
            good = decode_duration(field.body, &ms);
    if (malformed || !good)
        return err_new(ERR_INVALID_ARGUMENT,
                       "the message is not an xds.service.orca.v3.OrcaLoadReportRequest");
    *interval_ms = ms == 0                     ? ORCA_INTERVAL_DEFAULT_MS
                   : ms < ORCA_INTERVAL_MIN_MS ? ORCA_INTERVAL_MIN_MS
                   : ms > ORCA_INTERVAL_MAX_MS ? ORCA_INTERVAL_MAX_MS
                                               : ms;
    return err_ok();
}
