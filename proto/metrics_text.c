#include "proto/metrics_text.h"

#include <math.h>
#include <stdio.h>
#include <string.h>
#include "base/process_usage.h"
#include "proto/orca_report.h"

/* --- reading */

/* name="value", with what would end the value escaped. Appends; cut off when it does not fit. */
static void add_label(char *out, const char *name, const char *value)
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
    add_label(out, name, text);
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
    add_label(out->cache_config, "model_name", model->model);
    add_number_label(out->cache_config, "block_size", loads.kv_block_tokens);
    add_number_label(out->cache_config, "num_gpu_blocks", loads.kv_blocks_total);
    add_label(out->model, "model_name", model->model);
    add_label(out->model, "architecture", model->architecture);
    add_label(out->model, "dtype", model->dtype);
    add_label(out->model, "quantization", model->quantization);
    add_label(out->model, "fingerprint", model->fingerprint);
    add_label(out->build, "version", version);
    read_process(out);
}

/* --- writing */

enum { UNIT_ONE, UNIT_NS };
enum { LABELS_BYTES_MAX = 128 };
static const uint64_t NS_PER_S = 1000000000;

struct writer {
    struct buffer *out;
    char model[METRICS_INFO_BYTES_MAX]; /* model_name="..." */
    uint32_t max_model_len;
    bool good;
};

static void write_head(struct writer *w, const char *name, const char *type, const char *help)
{
    w->good = w->good && buffer_append_format(w->out, "# HELP %s %s\n# TYPE %s %s\n", name, help, name, type);
}

/* name{labels} value. Nanoseconds are written as seconds, exactly. */
static void write_cell(struct writer *w, const char *name, const char *labels, uint64_t value, int unit)
{
    if (unit == UNIT_NS)
        w->good = w->good && buffer_append_format(w->out, "%s{%s} %llu.%09llu\n", name, labels,
                                                  (unsigned long long)(value / NS_PER_S),
                                                  (unsigned long long)(value % NS_PER_S));
    else
        w->good =
            w->good && buffer_append_format(w->out, "%s{%s} %llu\n", name, labels, (unsigned long long)value);
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
                        enum series_kind kind, int unit)
{
    for (size_t i = 0; i < n; i++) {
        char series[LABELS_BYTES_MAX], labels[METRICS_INFO_BYTES_MAX + LABELS_BYTES_MAX];
        name_series(kind, i, series);
        (void)snprintf(labels, sizeof labels, "%s%s%s", w->model, series[0] ? "," : "", series);
        write_cell(w, name, labels, metric_read(&cells[i]), unit);
    }
}

/* A bound as Python's client writes it: "0.001", "1.0", "2560.0". */
static void format_bound(uint64_t bound, int unit, char out[32])
{
    double value = unit == UNIT_NS ? (double)bound / (double)NS_PER_S : (double)bound;
    (void)snprintf(out, 32, value == floor(value) ? "%.1f" : "%.9g", value);
}

static void write_histogram(struct writer *w, const char *name, const struct metric_histogram *histogram,
                            const struct metric_buckets *buckets, int unit)
{
    uint64_t total = 0;
    char full[128], bound[32];
    bool good = w->good;
    for (uint32_t i = 0; i < buckets->n; i++) {
        total += metric_read(&histogram->counts[i]);
        if (buckets == &METRIC_BUCKETS_TOKENS && buckets->bounds[i] > w->max_model_len)
            continue;
        format_bound(buckets->bounds[i], unit, bound);
        good = good && buffer_append_format(w->out, "%s_bucket{%s,le=\"%s\"} %llu\n", name, w->model, bound,
                                            (unsigned long long)total);
    }
    total += metric_read(&histogram->counts[buckets->n]);
    good = good &&
           buffer_append_format(w->out, "%s_bucket{%s,le=\"+Inf\"} %llu\n%s_count{%s} %llu\n", name, w->model,
                                (unsigned long long)total, name, w->model, (unsigned long long)total);
    w->good = good;
    (void)snprintf(full, sizeof full, "%s_sum", name);
    write_cell(w, full, w->model, metric_read(&histogram->sum), unit);
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
    add_label(w.model, "model_name", model);
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
                         out);
}
