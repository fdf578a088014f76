/* What is known of the models that are asked: breakers, times, calls under way. */
#include <string.h>
#include "base/alloc.h"
#include "base/assert.h"
#include "base/hash.h"
#include "router/service/route_snapshot.h"

void upstream_table_open(struct upstream_table *table, struct route_metrics *metrics)
{
    int failure = pthread_mutex_init(&table->lock, NULL);
    ASSERT(failure == 0);
    table->first = NULL;
    table->metrics = metrics;
    table->breaker = breaker_options_default();
}

void upstream_table_close(struct upstream_table *table)
{
    for (struct upstream_state *state = table->first, *next; state; state = next) {
        next = state->next;
        mem_free((char *)state->name);
        mem_free(state);
    }
    pthread_mutex_destroy(&table->lock);
}

uint64_t upstream_ask(struct upstream_table *table, struct upstream_state *state, int64_t now_ns)
{
    pthread_mutex_lock(&table->lock);
    bool is_resting = rate_limits_wait_ns(&state->limits, now_ns) > 0;
    uint64_t ticket = is_resting ? 0 : breaker_ask(&state->breaker, now_ns);
    if (ticket)
        state->n_live++;
    pthread_mutex_unlock(&table->lock);
    if (ticket)
        metric_add(&state->counts->calls[0], 1);
    if (is_resting)
        metric_add(&state->counts->rested[0], 1);
    return ticket;
}

/* Under the table's lock, so that the counts are of the latest word. */
static void count_limits(struct upstream_state *state, int64_t now_ns)
{
    upstream_counts_limits(state->counts, &state->limits, rate_limits_wait_ns(&state->limits, now_ns));
}

void upstream_told(struct upstream_table *table, struct upstream_state *state, const struct egress_head *head,
                   int64_t now_ns)
{
    pthread_mutex_lock(&table->lock);
    rate_limits_take(&state->limits, head, now_ns);
    count_limits(state, now_ns);
    pthread_mutex_unlock(&table->lock);
}

struct rate_limits upstream_limits(struct upstream_table *table, struct upstream_state *state)
{
    pthread_mutex_lock(&table->lock);
    struct rate_limits limits = state->limits;
    pthread_mutex_unlock(&table->lock);
    return limits;
}

int64_t upstream_wait_ns(struct upstream_table *table, struct upstream_state *state, int64_t now_ns)
{
    struct rate_limits limits = upstream_limits(table, state);
    return rate_limits_wait_ns(&limits, now_ns);
}

void upstream_called(struct upstream_table *table, struct upstream_state *state,
                     const struct upstream_report *report, int64_t now_ns)
{
    pthread_mutex_lock(&table->lock);
    if (report->code == ERR_OK)
        breaker_succeeded(&state->breaker, report->ticket, &table->breaker);
    else if (report->is_its_fault)
        breaker_failed(&state->breaker, report->ticket, &table->breaker, now_ns, report->retry_after_ns);
    else
        breaker_gave_up(&state->breaker, report->ticket);
    if (report->is_its_fault && report->retry_after_ns > 0) {
        rate_limits_leave_alone(&state->limits, report->retry_after_ns, now_ns);
        count_limits(state, now_ns);
    }
    if (report->first_token_ns >= 0)
        time_sketch_add(&state->first_token, report->first_token_ns);
    ASSERT(state->n_live > 0);
    state->n_live--;
    enum breaker_state breaker = breaker_state_at(&state->breaker, now_ns);
    pthread_mutex_unlock(&table->lock);
    upstream_counts_call(state->counts, report->code, report->first_token_ns, report->whole_ns);
    upstream_counts_breaker(state->counts, breaker);
}

static size_t rate_of(const char *tenant)
{
    return 1 + hash64(tenant, strlen(tenant), 0) % UPSTREAM_TENANTS;
}

/* Calls that count at the same time may lose one of both. */
static void count_rate(_Atomic uint32_t *rate, int64_t told)
{
    enum { WEIGHT = 8 };
    int64_t before = atomic_load_explicit(rate, memory_order_relaxed);
    int64_t now = before == 0 ? told : before + (told - before) / WEIGHT;
    atomic_store_explicit(rate, (uint32_t)now, memory_order_relaxed);
}

void upstream_counted(struct upstream_state *state, const char *tenant, uint64_t bytes, uint64_t tokens)
{
    enum { BYTES_LEAST = 256, LEAST_PER_KIB = 64, MOST_PER_KIB = 1024 };
    if (bytes < BYTES_LEAST || bytes > UINT32_MAX || tokens > UINT32_MAX)
        return;
    int64_t told = (int64_t)(tokens * 1024 / bytes);
    told = told < LEAST_PER_KIB ? LEAST_PER_KIB : told > MOST_PER_KIB ? MOST_PER_KIB : told;
    count_rate(&state->tokens_per_kib[0], told);
    count_rate(&state->tokens_per_kib[rate_of(tenant)], told);
}

uint32_t upstream_tokens_per_kib(const struct upstream_state *state, const char *tenant)
{
    uint32_t own = atomic_load_explicit(&state->tokens_per_kib[rate_of(tenant)], memory_order_relaxed);
    return own > 0 ? own : atomic_load_explicit(&state->tokens_per_kib[0], memory_order_relaxed);
}

enum breaker_state upstream_breaker(struct upstream_table *table, struct upstream_state *state,
                                    int64_t now_ns)
{
    pthread_mutex_lock(&table->lock);
    enum breaker_state breaker = breaker_state_at(&state->breaker, now_ns);
    pthread_mutex_unlock(&table->lock);
    return breaker;
}

int64_t upstream_first_token_ns(struct upstream_table *table, struct upstream_state *state, double share)
{
    pthread_mutex_lock(&table->lock);
    int64_t time_ns = time_sketch_quantile_ns(&state->first_token, share);
    pthread_mutex_unlock(&table->lock);
    return time_ns;
}

uint32_t upstream_live(struct upstream_table *table, struct upstream_state *state)
{
    pthread_mutex_lock(&table->lock);
    uint32_t n = state->n_live;
    pthread_mutex_unlock(&table->lock);
    return n;
}
