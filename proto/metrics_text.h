/* Metrics as Prometheus reads them: text format 0.0.4, from the table of api/metrics.h. */
#pragma once

#include <stdbool.h>
#include "api/metrics.h"
#include "api/service.h"
#include "base/buffer.h"

#define METRICS_CONTENT_TYPE "text/plain; version=0.0.4; charset=utf-8"
enum {
    METRICS_TEXT_BYTES_MAX = 1 << 20,
    METRICS_INFO_BYTES_MAX = 1024, /* label pairs of an INFO metric */
};

#define METRIC_READING_COUNTER(symbol)
#define METRIC_READING_GAUGE(symbol)
#define METRIC_READING_HISTOGRAM(symbol)
#define METRIC_READING_READ_COUNTER(symbol)                    double symbol;
#define METRIC_READING_READ_GAUGE(symbol)                      double symbol;
#define METRIC_READING_INFO(symbol)                            char symbol[METRICS_INFO_BYTES_MAX];
#define METRIC_READING(kind, symbol, series, unit, name, help) METRIC_READING_##kind(symbol)

/* A stored 1 is one, or 10^-9 of what is written: of a second, of a dollar. */
enum metric_unit { METRIC_UNIT_ONE, METRIC_UNIT_NANO };
enum { METRIC_BOUND_BYTES = 32 };

/* What a text is made of, for other tables than ours. labels: pairs as `code="OK"`; "" = none. False when it
 * does not fit. */
bool metric_head_write(struct buffer *out, const char *name, const char *type, const char *help);
bool metric_cell_write(struct buffer *out, const char *name, const char *labels, uint64_t value,
                       enum metric_unit unit);
/* Bounds above `most` are left out: they would all say the same. */
bool metric_histogram_write(struct buffer *out, const char *name, const char *labels,
                            const struct metric_histogram *histogram, const struct metric_buckets *buckets,
                            enum metric_unit unit, uint64_t most);
/* Appends name="value" to out[METRICS_INFO_BYTES_MAX], after a comma where there is something, with what
 * would end the value escaped; cut off when it does not fit. */
void metric_label_add(char *out, const char *name, const char *value);

/* What the table's READ and INFO rows say at one moment; INFO: label pairs, as `version="0.1.0"`. */
struct metric_readings {
    METRIC_READ_ROWS(METRIC_READING)
};

/* Reads the service's loads and this process. version: of the program. Any thread. */
void metrics_read(struct service *service, const char *version, struct metric_readings *out);

/* Appends the text of every row. model: the label model_name; max_model_len: buckets of tokens above it are
 * left out. False when it does not fit. Pure but for reading *metrics. */
bool metrics_write(const struct metrics *metrics, const struct metric_readings *readings, const char *model,
                   uint32_t max_model_len, struct buffer *out);

/* Both, for a service, and what it has to say besides (vtable->metrics_text). */
bool metrics_write_service(struct service *service, const char *version, struct buffer *out);
