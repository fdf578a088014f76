#include "router/service/route_metrics.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stddef.h>
#include <string.h>
#include <time.h>
#include "base/alloc.h"
#include "base/assert.h"
#include "proto/metrics_text.h"

struct route_metrics {
    struct route_counts counts;
    pthread_mutex_t lock;                                   /* of whoever adds an upstream */
    _Atomic size_t n;                                       /* the entries below it do not change any more */
    struct upstream_counts *upstreams[ROUTE_UPSTREAMS_MAX]; /* owned with their names */
    struct upstream_counts other;
};

err_t route_metrics_open(struct route_metrics **out)
{
    struct route_metrics *metrics = mem_alloc(sizeof *metrics);
    if (metrics == NULL)
        return err_new(ERR_RESOURCE_EXHAUSTED, "no memory for the router's metrics");
    metrics->other.provider = metrics->other.model = "other";
    int failure = pthread_mutex_init(&metrics->lock, NULL);
    ASSERT(failure == 0);
    *out = metrics;
    return err_ok();
}

static void free_upstream(struct upstream_counts *upstream)
{
    if (upstream == NULL)
        return;
    mem_free((char *)upstream->provider);
    mem_free((char *)upstream->model);
    mem_free(upstream);
}

void route_metrics_close(struct route_metrics *metrics)
{
    if (metrics == NULL)
        return;
    for (size_t i = 0; i < atomic_load(&metrics->n); i++)
        free_upstream(metrics->upstreams[i]);
    pthread_mutex_destroy(&metrics->lock);
    mem_free(metrics);
}

struct route_counts *route_metrics_counts(struct route_metrics *metrics)
{
    return &metrics->counts;
}

static struct upstream_counts *find(struct route_metrics *metrics, const char *provider, const char *model)
{
    for (size_t i = 0; i < atomic_load(&metrics->n); i++) {
        struct upstream_counts *upstream = metrics->upstreams[i];
        if (strcmp(upstream->provider, provider) == 0 && strcmp(upstream->model, model) == 0)
            return upstream;
    }
    return NULL;
}

static struct upstream_counts *make(const char *provider, const char *model)
{
    struct upstream_counts *upstream = mem_alloc(sizeof *upstream);
    if (upstream == NULL)
        return NULL;
    upstream->provider = mem_strdup(provider);
    upstream->model = mem_strdup(model);
    if (upstream->provider && upstream->model)
        return upstream;
    free_upstream(upstream);
    return NULL;
}

struct upstream_counts *route_metrics_upstream(struct route_metrics *metrics, const char *provider,
                                               const char *model)
{
    pthread_mutex_lock(&metrics->lock);
    struct upstream_counts *upstream = find(metrics, provider, model);
    size_t n = atomic_load(&metrics->n);
    if (upstream == NULL && n < ROUTE_UPSTREAMS_MAX) {
        upstream = make(provider, model);
        if (upstream) {
            metrics->upstreams[n] = upstream;
            atomic_store(&metrics->n, n + 1);
        }
    }
    pthread_mutex_unlock(&metrics->lock);
    return upstream ? upstream : &metrics->other;
}

void upstream_counts_call(struct upstream_counts *counts, enum err_code code, int64_t first_token_ns,
                          int64_t whole_ns)
{
    ASSERT((int)code >= 0 && (int)code <= METRIC_ERROR_CODES_COUNT);
    if (code != ERR_OK && code != ERR_CANCELLED)
        metric_add(&counts->errors[code], 1);
    if (first_token_ns >= 0)
        metric_record(&counts->first_token, &METRIC_BUCKETS_FIRST_TOKEN, (uint64_t)first_token_ns, 1);
    if (whole_ns >= 0)
        metric_record(&counts->whole, &METRIC_BUCKETS_REQUEST, (uint64_t)whole_ns, 1);
}

void upstream_counts_breaker(struct upstream_counts *counts, enum breaker_state state)
{
    static const uint64_t LEVELS[] = {[BREAKER_CLOSED] = 0, [BREAKER_HALF_OPEN] = 1, [BREAKER_OPEN] = 2};
    atomic_store_explicit(&counts->breaker, LEVELS[state], memory_order_relaxed);
}

void upstream_counts_limits(struct upstream_counts *counts, const struct rate_limits *limits, int64_t wait_ns)
{
    for (int i = 0; i < EGRESS_RATES; i++)
        atomic_store_explicit(&counts->remaining[i], (uint64_t)(limits->remaining[i] + 1),
                              memory_order_relaxed);
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    uint64_t now_ns = (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
    atomic_store_explicit(&counts->reset, wait_ns > 0 ? now_ns + (uint64_t)wait_ns : 0, memory_order_relaxed);
}

/* --- the text */

static const char *const CACHE_NAMES[] = {"hit", "shared", "miss"};
static const char *const CASCADE_NAMES[] = {"kept", "escalated"};
static const char *const CLASSIFIED_NAMES[] = {"known", "unknown"};
static const char *const HEDGE_NAMES[] = {"won", "lost", "too_dear"};
static const char *const SLO_NAMES[] = {"within", "over"};
static const char *const SHADOW_NAMES[] = {"scored", "same", "failed", "refused"};
_Static_assert(ROUTE_CACHE_COUNTS == 3 && ROUTE_CASCADE_COUNTS == 2 && ROUTE_HEDGE_COUNTS == 3 &&
                   ROUTE_CLASSIFIED_COUNTS == 2 && ROUTE_SHADOW_COUNTS == 4 && ROUTE_SLO_COUNTS == 2,
               "a name for each");

#define NAMES_ONE        NULL
#define NAMES_REASON     POLICY_REASON_NAMES
#define NAMES_CACHE      CACHE_NAMES
#define NAMES_CASCADE    CASCADE_NAMES
#define NAMES_HEDGE      HEDGE_NAMES
#define NAMES_CLASSIFIED CLASSIFIED_NAMES
#define NAMES_SHADOW     SHADOW_NAMES
#define NAMES_SLO        SLO_NAMES
#define LABEL_ONE        ""
#define LABEL_REASON     "reason"
#define LABEL_CACHE      "cache"
#define LABEL_CASCADE    "outcome"
#define LABEL_HEDGE      "outcome"
#define LABEL_CLASSIFIED "outcome"
#define LABEL_SHADOW     "outcome"
#define LABEL_SLO        "outcome"

static bool write_cells(struct buffer *out, const char *name, const char *label, const char *const *values,
                        const metric_cell *cells, size_t n, enum metric_unit unit)
{
    bool fits = true;
    for (size_t i = 0; i < n && fits; i++) {
        char labels[METRICS_INFO_BYTES_MAX] = "";
        if (values)
            metric_label_add(labels, label, values[i]);
        fits = metric_cell_write(out, name, labels, metric_read(&cells[i]), unit);
    }
    return fits;
}

static bool write_counts(const struct route_counts *counts, struct buffer *out)
{
    bool fits = true;
#define WRITE_COUNT(symbol, series, unit, name, help)                                                        \
    fits = fits && metric_head_write(out, name, "counter", help) &&                                          \
           write_cells(out, name, LABEL_##series, NAMES_##series, counts->symbol, ROUTE_SERIES_##series,     \
                       METRIC_UNIT_##unit);
    ROUTE_COUNT_ROWS(WRITE_COUNT)
    return fits;
}

/* Upstreams as they are when a text is begun, so that each metric has the same ones. */
struct upstreams {
    const struct upstream_counts *list[ROUTE_UPSTREAMS_MAX + 1];
    char labels[ROUTE_UPSTREAMS_MAX + 1][METRICS_INFO_BYTES_MAX];
    size_t n;
};

static void add_upstream(struct upstreams *upstreams, const struct upstream_counts *upstream)
{
    char *labels = upstreams->labels[upstreams->n];
    upstreams->list[upstreams->n++] = upstream;
    labels[0] = '\0';
    metric_label_add(labels, "provider", upstream->provider);
    metric_label_add(labels, "model", upstream->model);
}

static void list_upstreams(struct route_metrics *metrics, struct upstreams *out)
{
    size_t n = atomic_load(&metrics->n);
    out->n = 0;
    for (size_t i = 0; i < n; i++)
        add_upstream(out, metrics->upstreams[i]);
    if (n == ROUTE_UPSTREAMS_MAX)
        add_upstream(out, &metrics->other);
}

/* Of each upstream the cell, or the histogram, that is `offset` bytes into it. */
static bool write_cell_of_each(const struct upstreams *upstreams, size_t offset, const char *name,
                               const char *type, const char *help, enum metric_unit unit, struct buffer *out)
{
    bool fits = metric_head_write(out, name, type, help);
    for (size_t i = 0; i < upstreams->n && fits; i++) {
        const metric_cell *cell = (const metric_cell *)((const char *)upstreams->list[i] + offset);
        fits = metric_cell_write(out, name, upstreams->labels[i], metric_read(cell), unit);
    }
    return fits;
}

static bool write_histogram_of_each(const struct upstreams *upstreams, size_t offset, const char *name,
                                    const char *help, const struct metric_buckets *buckets,
                                    enum metric_unit unit, struct buffer *out)
{
    bool fits = metric_head_write(out, name, "histogram", help);
    for (size_t i = 0; i < upstreams->n && fits; i++) {
        const char *place = (const char *)upstreams->list[i] + offset;
        fits = metric_histogram_write(out, name, upstreams->labels[i], (const struct metric_histogram *)place,
                                      buckets, unit, UINT64_MAX);
    }
    return fits;
}

static bool write_errors(const struct upstreams *upstreams, const char *name, const char *help,
                         struct buffer *out)
{
    bool fits = metric_head_write(out, name, "counter", help);
    for (size_t i = 0; i < upstreams->n && fits; i++) {
        for (int code = 1; code <= METRIC_ERROR_CODES_COUNT && fits; code++) {
            char labels[METRICS_INFO_BYTES_MAX];
            uint64_t n = metric_read(&upstreams->list[i]->errors[code]);
            memcpy(labels, upstreams->labels[i], sizeof labels);
            metric_label_add(labels, "code", err_code_name((enum err_code)code));
            fits = n == 0 || metric_cell_write(out, name, labels, n, METRIC_UNIT_ONE);
        }
    }
    return fits;
}

static bool write_remaining(const struct upstreams *upstreams, const char *name, const char *help,
                            struct buffer *out)
{
    bool fits = metric_head_write(out, name, "gauge", help);
    for (size_t i = 0; i < upstreams->n && fits; i++) {
        for (int rate = 0; rate < EGRESS_RATES && fits; rate++) {
            char labels[METRICS_INFO_BYTES_MAX];
            uint64_t told = metric_read(&upstreams->list[i]->remaining[rate]);
            memcpy(labels, upstreams->labels[i], sizeof labels);
            metric_label_add(labels, "of", EGRESS_RATE_NAMES[rate]);
            fits = told == 0 || metric_cell_write(out, name, labels, told - 1, METRIC_UNIT_ONE);
        }
    }
    return fits;
}

static bool write_stage(enum rollout_stage stage, const char *name, const char *help, struct buffer *out)
{
    bool fits = metric_head_write(out, name, "gauge", help);
    for (int i = 0; ROLLOUT_STAGE_NAMES[i] && fits; i++) {
        char labels[METRICS_INFO_BYTES_MAX] = "";
        metric_label_add(labels, "stage", ROLLOUT_STAGE_NAMES[i]);
        fits = metric_cell_write(out, name, labels, i == (int)stage, METRIC_UNIT_ONE);
    }
    return fits;
}

static bool write_value(uint64_t value, enum metric_unit unit, const char *name, const char *type,
                        const char *help, struct buffer *out)
{
    return metric_head_write(out, name, type, help) && metric_cell_write(out, name, "", value, unit);
}

static bool write_upstreams(const struct upstreams *upstreams, struct buffer *out)
{
    bool fits = true;
#define WRITE_UPSTREAM(symbol, series, unit, name, help)                                                     \
    fits = fits && write_cell_of_each(upstreams, offsetof(struct upstream_counts, symbol), name, "counter",  \
                                      help, METRIC_UNIT_##unit, out);
#define WRITE_LATENCY(symbol, buckets, unit, name, help)                                                     \
    fits = fits && write_histogram_of_each(upstreams, offsetof(struct upstream_counts, symbol), name, help,  \
                                           &METRIC_BUCKETS_##buckets, METRIC_UNIT_##unit, out);
    ROUTE_UPSTREAM_ROWS(WRITE_UPSTREAM)
    ROUTE_LATENCY_ROWS(WRITE_LATENCY)
    return fits;
}

/* One of these for each of ROUTE_OTHER_ROWS. */
#define WRITE_ERRORS(name, type, help) write_errors(upstreams, name, help, out)
#define WRITE_BREAKER(name, type, help)                                                                      \
    write_cell_of_each(upstreams, offsetof(struct upstream_counts, breaker), name, type, help,               \
                       METRIC_UNIT_ONE, out)
#define WRITE_REMAINING(name, type, help) write_remaining(upstreams, name, help, out)
#define WRITE_RESET(name, type, help)                                                                        \
    write_cell_of_each(upstreams, offsetof(struct upstream_counts, reset), name, type, help,                 \
                       METRIC_UNIT_NANO, out)
#define WRITE_RESERVED(name, type, help)                                                                     \
    write_value((uint64_t)readings->reserved, METRIC_UNIT_NANO, name, type, help, out)
#define WRITE_HELD(name, type, help)  write_value(readings->held_bytes, METRIC_UNIT_ONE, name, type, help, out)
#define WRITE_STAGE(name, type, help) write_stage(readings->stage, name, help, out)
#define WRITE_LOG_LOST(name, type, help)                                                                     \
    write_value(readings->log_lines_lost, METRIC_UNIT_ONE, name, type, help, out)

static bool write_others(const struct upstreams *upstreams, const struct route_readings *readings,
                         struct buffer *out)
{
    bool fits = true;
#define WRITE_OTHER(which, name, type, labels, help) fits = fits && WRITE_##which(name, type, help);
    ROUTE_OTHER_ROWS(WRITE_OTHER)
    return fits;
}

bool route_metrics_write(struct route_metrics *metrics, const struct route_readings *readings,
                         struct buffer *out)
{
    ASSERT(readings->reserved >= 0);
    struct upstreams *upstreams = mem_alloc(sizeof *upstreams);
    if (upstreams == NULL)
        return false;
    list_upstreams(metrics, upstreams);
    bool fits = write_counts(&metrics->counts, out) && write_upstreams(upstreams, out) &&
                write_others(upstreams, readings, out);
    mem_free(upstreams);
    return fits;
}
