#include "proto/metrics_text.h"

#include <math.h>
#include <stdio.h>
#include <string.h>
#include "base/process_usage.h"
#include "proto/orca_report.h"

/* --- reading */

void metric_label_add(char *out, const char *name, const char *value)
{
    size_t at = strlen(out), end = METRICS_INFO_BYTES_MAX - 3;
    int head = snprintf(out + at, METRICS_INFO_BYTES_MAX - at, "%s%s=\"", at ? "," : "", name);
    for (at += (size_t)head; *value && at < end; value++) {
        bool escapes = *value == '"' || *value == '\\' || *value == '\n';
        if (escapes)
            out[at++] = '\\';
        out[at++] = *value == '\n' ? 'n' : *value;
    }
    out[at++] = '"';
    out[at] = '\0';
}

static void add_number_label(char *out, const char *name, uint32_t value)
{
    char text[16];
    (void)snprintf(text, sizeof text, "%u", value);
    metric_label_add(out, name, text);
}

static void read_process(struct metric_readings *out)
{
    struct process_usage usage;
    process_usage_read(&usage);
    out->cpu_time = usage.cpu_s;
    out->resident = (double)usage.resident_bytes;
    out->virtual_memory = (double)usage.virtual_bytes;
    out->start_time = usage.start_unix_s;
    out->open_files = (double)usage.open_files;
    out->max_files = (double)usage.max_files;
    out->threads = (double)usage.threads;
}

void metrics_read(struct service *service, const char *version, struct metric_readings *out)
{
    struct loads loads;
    const struct model_info *model = service->vtable->model_info(service);
    service->vtable->loads(service, &loads);
    *out = (struct metric_readings){
        .running = loads.requests_running,
        .waiting = loads.requests_waiting,
        .paused = loads.requests_paused,
        .kv_cache_usage = loads.kv_blocks_total ? (double)loads.kv_blocks_used / loads.kv_blocks_total : 0,
        .kv_blocks_cached = loads.kv_blocks_cached,
        .prefix_queries = (double)loads.prefix_queries_tokens,
        .prefix_hits = (double)loads.prefix_hit_tokens,
        .prompt_tokens = (double)loads.prompt_tokens_total,
        .generation_tokens = (double)loads.generation_tokens_total,
        .preemptions = (double)loads.preemptions_total,
        .requests = (double)loads.requests_total,
        .requests_finished = (double)loads.requests_finished,
        .steps = (double)loads.steps_total,
        .tokens_per_s = loads.tokens_per_s,
        .predicted_ttft = loads.predicted_ttft_ns < 0 ? -1 : (double)loads.predicted_ttft_ns * 1e-9,
        .utilization = load_utilization(&loads),
        .heartbeat_age = (double)loads.heartbeat_age_ns * 1e-9,
        .failed = loads.failed,
    };
    metric_label_add(out->cache_config, "model_name", model->model);
    add_number_label(out->cache_config, "block_size", loads.kv_block_tokens);
    add_number_label(out->cache_config, "num_gpu_blocks", loads.kv_blocks_total);
    metric_label_add(out->model, "model_name", model->model);
    metric_label_add(out->model, "architecture", model->architecture);
    metric_label_add(out->model, "dtype", model->dtype);
    metric_label_add(out->model, "quantization", model->quantization);
    metric_label_add(out->model, "fingerprint", model->fingerprint);
    metric_label_add(out->build, "version", version);
    read_process(out);
}

/* --- writing */

enum { LABELS_BYTES_MAX = 128, NAME_BYTES_MAX = 128 };
static const uint64_t NANOS = 1000000000;

#define UNIT_ONE METRIC_UNIT_ONE
#define UNIT_NS  METRIC_UNIT_NANO

struct writer {
    struct buffer *out;
    char model[METRICS_INFO_BYTES_MAX]; /* model_name="..." */
    uint32_t max_model_len;
    bool good;
};

bool metric_head_write(struct buffer *out, const char *name, const char *type, const char *help)
{
    return buffer_append_format(out, "# HELP %s %s\n# TYPE %s %s\n", name, help, name, type);
}

bool metric_cell_write(struct buffer *out, const char *name, const char *labels, uint64_t value,
                       enum metric_unit unit)
{
    const char *open = labels[0] ? "{" : "", *close = labels[0] ? "}" : "";
    if (unit == METRIC_UNIT_NANO)
        return buffer_append_format(out, "%s%s%s%s %llu.%09llu\n", name, open, labels, close,
                                    (unsigned long long)(value / NANOS), (unsigned long long)(value % NANOS));
    return buffer_append_format(out, "%s%s%s%s %llu\n", name, open, labels, close, (unsigned long long)value);
}

/* A bound as Python's client writes it: "0.001", "1.0", "2560.0". */
static void format_bound(uint64_t bound, enum metric_unit unit, char out[METRIC_BOUND_BYTES])
{
    double value = unit == METRIC_UNIT_NANO ? (double)bound / (double)NANOS : (double)bound;
    (void)snprintf(out, METRIC_BOUND_BYTES, value == floor(value) ? "%.1f" : "%.9g", value);
}

bool metric_histogram_write(struct buffer *out, const char *name, const char *labels,
                            const struct metric_histogram *histogram, const struct metric_buckets *buckets,
                            enum metric_unit unit, uint64_t most)
{
    uint64_t total = 0;
    char full[NAME_BYTES_MAX], bound[METRIC_BOUND_BYTES];
    const char *comma = labels[0] ? "," : "";
    bool good = true;
    for (uint32_t i = 0; i < buckets->n; i++) {
        total += metric_read(&histogram->counts[i]);
        if (buckets->bounds[i] > most)
            continue;
        format_bound(buckets->bounds[i], unit, bound);
        good = good && buffer_append_format(out, "%s_bucket{%s%sle=\"%s\"} %llu\n", name, labels, comma,
                                            bound, (unsigned long long)total);
    }
    total += metric_read(&histogram->counts[buckets->n]);
    good = good && buffer_append_format(out, "%s_bucket{%s%sle=\"+Inf\"} %llu\n", name, labels, comma,
                                        (unsigned long long)total);
    (void)snprintf(full, sizeof full, "%s_count", name);
    good = good && metric_cell_write(out, full, labels, total, METRIC_UNIT_ONE);
    (void)snprintf(full, sizeof full, "%s_sum", name);
    return good && metric_cell_write(out, full, labels, metric_read(&histogram->sum), unit);
}

static void write_head(struct writer *w, const char *name, const char *type, const char *help)
{
    w->good = w->good && metric_head_write(w->out, name, type, help);
}

enum series_kind { SERIES_MODEL, SERIES_REASON, SERIES_DOOR, SERIES_ANSWER, SERIES_REFUSAL };

static void name_series(enum series_kind kind, size_t series, char out[LABELS_BYTES_MAX])
{
    out[0] = '\0';
    if (kind == SERIES_REASON)
        (void)snprintf(out, LABELS_BYTES_MAX, "%s", metric_reason_labels(series));
    else if (kind == SERIES_DOOR)
        (void)snprintf(out, LABELS_BYTES_MAX, "%s", metric_door_labels(series));
    else if (kind == SERIES_ANSWER)
        metric_answer_labels(series, out, LABELS_BYTES_MAX);
    else if (kind == SERIES_REFUSAL)
        metric_refusal_labels(series, out, LABELS_BYTES_MAX);
}

static void write_cells(struct writer *w, const char *name, const metric_cell *cells, size_t n,
                        enum series_kind kind, enum metric_unit unit)
{
    for (size_t i = 0; i < n; i++) {
        char series[LABELS_BYTES_MAX], labels[METRICS_INFO_BYTES_MAX + LABELS_BYTES_MAX];
        name_series(kind, i, series);
        (void)snprintf(labels, sizeof labels, "%s%s%s", w->model, series[0] ? "," : "", series);
        w->good = w->good && metric_cell_write(w->out, name, labels, metric_read(&cells[i]), unit);
    }
}

static void write_histogram(struct writer *w, const char *name, const struct metric_histogram *histogram,
                            const struct metric_buckets *buckets, enum metric_unit unit)
{
    uint64_t most = buckets == &METRIC_BUCKETS_TOKENS ? w->max_model_len : UINT64_MAX;
    w->good = w->good && metric_histogram_write(w->out, name, w->model, histogram, buckets, unit, most);
}

static void write_reading(struct writer *w, const char *name, const char *labels, double value)
{
    w->good = w->good && buffer_append_format(w->out, labels[0] ? "%s{%s} %.15g\n" : "%s%s %.15g\n", name,
                                              labels, value);
}

/* One of these for each row of the table. */
#define WRITE_COUNTER(symbol, series, unit, name)                                                            \
    write_cells(&w, name, metrics->symbol, METRIC_SERIES_##series, SERIES_##series, UNIT_##unit);
#define WRITE_GAUGE(symbol, series, unit, name) WRITE_COUNTER(symbol, series, unit, name)
#define WRITE_HISTOGRAM(symbol, series, unit, name)                                                          \
    write_histogram(&w, name, &metrics->symbol, &METRIC_BUCKETS_##series, UNIT_##unit);
#define READING_LABELS_MODEL   w.model
#define READING_LABELS_PROCESS ""
#define WRITE_READ_COUNTER(symbol, series, unit, name)                                                       \
    write_reading(&w, name, READING_LABELS_##series, readings->symbol);
#define WRITE_READ_GAUGE(symbol, series, unit, name) WRITE_READ_COUNTER(symbol, series, unit, name)
#define WRITE_INFO(symbol, series, unit, name)       write_reading(&w, name, readings->symbol, 1);

#define TYPE_COUNTER      "counter"
#define TYPE_GAUGE        "gauge"
#define TYPE_HISTOGRAM    "histogram"
#define TYPE_READ_COUNTER "counter"
#define TYPE_READ_GAUGE   "gauge"
#define TYPE_INFO         "gauge"

bool metrics_write(const struct metrics *metrics, const struct metric_readings *readings, const char *model,
                   uint32_t max_model_len, struct buffer *out)
{
    struct writer w = {.out = out, .max_model_len = max_model_len, .good = true};
    metric_label_add(w.model, "model_name", model);
#define WRITE_ROW(kind, symbol, series, unit, name, help)                                                    \
    write_head(&w, name, TYPE_##kind, help);                                                                 \
    WRITE_##kind(symbol, series, unit, name)
    METRIC_TABLE(WRITE_ROW)
    return w.good;
}

bool metrics_write_service(struct service *service, const char *version, struct buffer *out)
{
    struct metric_readings readings;
    const struct model_info *model = service->vtable->model_info(service);
    metrics_read(service, version, &readings);
    return metrics_write(service->vtable->metrics(service), &readings, model->model, model->max_model_len,
                         out) &&
           (service->vtable->metrics_text == NULL || service->vtable->metrics_text(service, out));
}
