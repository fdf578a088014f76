#include "api/metrics.h"

#include <stdio.h>
#include <string.h>
#include "base/assert.h"

#define MS(x) ((uint64_t)(x)*1000000)
#define US(x) ((uint64_t)(x)*1000)

/* The first four are vLLM's (vllm/v1/metrics/loggers.py). */
const struct metric_buckets METRIC_BUCKETS_FIRST_TOKEN = {
    22, {MS(1),     MS(5),     MS(10),    MS(20),     MS(40),     MS(60),     MS(80),   MS(100),
         MS(250),   MS(500),   MS(750),   MS(1000),   MS(2500),   MS(5000),   MS(7500), MS(10000),
         MS(20000), MS(40000), MS(80000), MS(160000), MS(640000), MS(2560000)}};
const struct metric_buckets METRIC_BUCKETS_BETWEEN_TOKENS = {
    19,
    {MS(10), MS(25), MS(50), MS(75), MS(100), MS(150), MS(200), MS(300), MS(400), MS(500), MS(750), MS(1000),
     MS(2500), MS(5000), MS(7500), MS(10000), MS(20000), MS(40000), MS(80000)}};
const struct metric_buckets METRIC_BUCKETS_REQUEST = {
    21, {MS(300),   MS(500),    MS(800),    MS(1000),   MS(1500),   MS(2000),    MS(2500),
         MS(5000),  MS(10000),  MS(15000),  MS(20000),  MS(30000),  MS(40000),   MS(50000),
         MS(60000), MS(120000), MS(240000), MS(480000), MS(960000), MS(1920000), MS(7680000)}};
const struct metric_buckets METRIC_BUCKETS_STEP_TOKENS = {
    13, {1, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384}};
/* vLLM's are cut off at the model's length: those above it would all say the same. */
const struct metric_buckets METRIC_BUCKETS_TOKENS = {
    22, {1,    2,     5,     10,    20,     50,     100,    200,     500,     1000,    2000,
         5000, 10000, 20000, 50000, 100000, 200000, 500000, 1000000, 2000000, 5000000, 10000000}};
const struct metric_buckets METRIC_BUCKETS_CHOICES = {5, {1, 2, 5, 10, 20}};
const struct metric_buckets METRIC_BUCKETS_STEP = {18,
                                                   {US(100), US(250), US(500), MS(1), MS(2), MS(5), MS(10),
                                                    MS(20), MS(35), MS(50), MS(75), MS(100), MS(200), MS(500),
                                                    MS(1000), MS(2000), MS(5000), MS(10000)}};

#define LABEL_VALUE(symbol, text) text,
#define GRPC_NAME(name)           #name,
#define HTTP_NUMBER(code)         code,

static const char *const doors[] = {METRIC_DOORS(LABEL_VALUE)};
static const char *const grpc_codes[] = {METRIC_GRPC_CODES(GRPC_NAME)};
static const int http_codes[] = {METRIC_HTTP_CODES(HTTP_NUMBER)};
enum { GRPC_UNKNOWN = 2, N_HTTP_CODES = sizeof http_codes / sizeof http_codes[0] };

size_t metric_answer_grpc(int grpc_status)
{
    bool known = grpc_status >= 0 && grpc_status < METRIC_GRPC_CODES_COUNT;
    return known ? (size_t)grpc_status : GRPC_UNKNOWN;
}

size_t metric_answer_http(int http_status)
{
    size_t i = 0;
    while (i < N_HTTP_CODES && http_codes[i] != http_status)
        i++;
    return METRIC_GRPC_CODES_COUNT + i;
}

size_t metric_refusal(enum metric_door door, enum err_code code)
{
    ASSERT(code > ERR_OK && (int)code <= METRIC_ERROR_CODES_COUNT);
    return (size_t)door * METRIC_ERROR_CODES_COUNT + (size_t)code - 1;
}

const char *metric_reason_labels(size_t series)
{
#define REASON_LABELS(symbol, text) "finished_reason=\"" text "\"",
    static const char *const labels[] = {METRIC_REASONS(REASON_LABELS)};
    ASSERT(series < METRIC_SERIES_REASON);
    return labels[series];
}

const char *metric_door_labels(size_t series)
{
#define DOOR_LABELS(symbol, text) "door=\"" text "\"",
    static const char *const labels[] = {METRIC_DOORS(DOOR_LABELS)};
    ASSERT(series < METRIC_SERIES_DOOR);
    return labels[series];
}

void metric_answer_labels(size_t series, char *out, size_t out_bytes)
{
    ASSERT(series < METRIC_SERIES_ANSWER);
    size_t http = series - METRIC_GRPC_CODES_COUNT;
    if (series < METRIC_GRPC_CODES_COUNT)
        (void)snprintf(out, out_bytes, "door=\"%s\",code=\"%s\"", doors[METRIC_DOOR_GRPC],
                       grpc_codes[series]);
    else if (http < N_HTTP_CODES)
        (void)snprintf(out, out_bytes, "door=\"%s\",code=\"%d\"", doors[METRIC_DOOR_HTTP], http_codes[http]);
    else
        (void)snprintf(out, out_bytes, "door=\"%s\",code=\"other\"", doors[METRIC_DOOR_HTTP]);
}

void metric_refusal_labels(size_t series, char *out, size_t out_bytes)
{
    ASSERT(series < METRIC_SERIES_REFUSAL);
    enum err_code code = (enum err_code)(series % METRIC_ERROR_CODES_COUNT + 1);
    (void)snprintf(out, out_bytes, "door=\"%s\",code=\"%s\"", doors[series / METRIC_ERROR_CODES_COUNT],
                   err_code_name(code));
}
