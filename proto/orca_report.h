/* How loaded the server is, as balancers ask: ORCA's OrcaLoadReport (xds/data/orca/v3/orca_orca_report.proto)
 * as protobuf, and as the text or JSON of HTTP's header endpoint-load-metrics. */
#pragma once

#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include "api/service.h"
#include "base/buffer.h"

/* The rates of the last seconds: what a report says beside the service's loads. Any thread. */
struct load_meter {
    struct service *service;
    _Atomic int64_t window_start_ns;
    _Atomic uint64_t finished, errors;               /* when the window began */
    _Atomic uint64_t rps_millionths, eps_millionths; /* of the window before; 0 = there was none */
};
/* service: borrowed. */
void load_meter_init(struct load_meter *meter, struct service *service);

struct orca_report {
    /* The larger of KV usage and running / max_num_seqs. 0 when nothing is there: balancers take 0 for
     * "unknown". With a request in the server, that which reports included, at least 1 / max_num_seqs. */
    double utilization;
    double kv_usage; /* 0 to 1 */
    double rps, eps; /* requests ended a second; and failures that are the server's */
    double waiting, running, tokens_per_s;
    double predicted_ttft_s; /* -1 = unknown */
};
/* in_request: on behalf of a request that is being answered. */
void load_meter_read(struct load_meter *meter, bool in_request, struct orca_report *out);

/* The first of these terms without the floor. */
double load_utilization(const struct loads *loads);

enum { ORCA_REPORT_BYTES_MAX = 512 };
/* Returns the size. */
size_t orca_report_encode(const struct orca_report *report, uint8_t out[ORCA_REPORT_BYTES_MAX]);

/* What a client reads of an answer's trailer; fields that nobody wrote are 0, predicted_ttft_s then -1.
 * DATA_LOSS for bad bytes. */
err_t orca_report_decode(const uint8_t *bytes, size_t size_bytes, struct orca_report *out) ERR_MUST_CHECK;

enum orca_format { ORCA_FORMAT_NONE, ORCA_FORMAT_TEXT, ORCA_FORMAT_JSON, ORCA_FORMAT_BIN };
/* The value of endpoint-load-metrics-format, in any case; NONE for what nobody knows. */
enum orca_format orca_format_parse(const char *text, size_t text_bytes);
/* The value of endpoint-load-metrics, as Envoy reads it: "TEXT name=value,...", "JSON {...}", "BIN base64".
 */
void orca_report_write(const struct orca_report *report, enum orca_format format,
                       char out[ORCA_REPORT_BYTES_MAX * 2]);

/* OrcaLoadReportRequest -> the interval between two reports, within [ORCA_INTERVAL_MIN_MS,
 * ORCA_INTERVAL_MAX_MS]; ORCA_INTERVAL_DEFAULT_MS when none is asked for. INVALID_ARGUMENT for malformed
 * bytes. */
enum { ORCA_INTERVAL_MIN_MS = 100, ORCA_INTERVAL_DEFAULT_MS = 1000, ORCA_INTERVAL_MAX_MS = 600000 };
err_t orca_request_decode(const uint8_t *bytes, size_t size_bytes, int64_t *interval_ms) ERR_MUST_CHECK;
