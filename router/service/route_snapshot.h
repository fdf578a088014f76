/* A configuration that is in force: requests hold on to the one they began with while another takes its
 * place. What need not change with it (engines, caches, the log) is shared by both. */
#pragma once

#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>
#include "router/cache/response_cache.h"
#include "router/config/route_config.h"
#include "router/gate/confidence_map.h"
#include "router/gate/rollout.h"
#include "router/local/local_fleet.h"
#include "router/log/decision_log.h"
#include "router/policy/classifier.h"
#include "router/providers/circuit_breaker.h"
#include "router/providers/rate_limits.h"
#include "router/service/route_metrics.h"
#include "router/service/time_sketch.h"

enum { UPSTREAM_TENANTS = 64 };

/* What is known of a model by its name, whatever the configuration. Lives as long as its table. */
struct upstream_state {
    struct upstream_state *next;
    const char *name; /* "openai/gpt-5" */
    struct upstream_counts *counts;
    /* Of prompts, as lately answered; 0 = not known. The first is everybody's, the others those of tenants by
     * their names' hashes: one tenant's texts say nothing of another's. */
    _Atomic uint32_t tokens_per_kib[1 + UPSTREAM_TENANTS];
    struct circuit_breaker breaker; /* from here on: under the table's lock */
    struct rate_limits limits;
    struct time_sketch first_token;
    uint32_t n_live; /* calls under way */
};

struct upstream_table {
    pthread_mutex_t lock;
    struct upstream_state *first;
    struct route_metrics *metrics;
    struct breaker_options breaker;
};

void upstream_table_open(struct upstream_table *table, struct route_metrics *metrics);
void upstream_table_close(struct upstream_table *table);

/* Any thread. A ticket to call it, which upstream_called takes back; 0 = its breaker is open, or it has said
 * not to ask now. */
uint64_t upstream_ask(struct upstream_table *table, struct upstream_state *state, int64_t now_ns);
/* The head of its answer. */
void upstream_told(struct upstream_table *table, struct upstream_state *state, const struct egress_head *head,
                   int64_t now_ns);
/* A copy of what it said of its limits. */
struct rate_limits upstream_limits(struct upstream_table *table, struct upstream_state *state);
/* How long it said not to ask it; 0 = it may be asked, as far as that goes. */
int64_t upstream_wait_ns(struct upstream_table *table, struct upstream_state *state, int64_t now_ns);
/* How a call went. first_token_ns, whole_ns: durations, -1 = did not come to that. is_its_fault as in
 * provider_call.h. */
struct upstream_report {
    uint64_t ticket;
    enum err_code code;
    bool is_its_fault;
    int64_t first_token_ns, whole_ns, retry_after_ns;
};
void upstream_called(struct upstream_table *table, struct upstream_state *state,
                     const struct upstream_report *report, int64_t now_ns);
/* A tenant's prompt of so many bytes had so many tokens, without what its template adds. */
void upstream_counted(struct upstream_state *state, const char *tenant, uint64_t bytes, uint64_t tokens);
/* What a tenant's prompts lately had for 1,024 bytes, else everybody's; 0 = none was counted. */
uint32_t upstream_tokens_per_kib(const struct upstream_state *state, const char *tenant);
enum breaker_state upstream_breaker(struct upstream_table *table, struct upstream_state *state,
                                    int64_t now_ns);
int64_t upstream_first_token_ns(struct upstream_table *table, struct upstream_state *state, double share);
uint32_t upstream_live(struct upstream_table *table, struct upstream_state *state);

/* A model in a tier. */
struct route_upstream {
    struct upstream_state *state;
    const char *provider_name, *model_name; /* "local" and the model, or a provider and its model */
    bool is_local;
    size_t local; /* index among the local models */
    int64_t nanodollars_per_hour;
    const struct provider *provider; /* NULL = local */
    const struct provider_model *model;
};

struct route_tier {
    const struct policy_tier *tier;
    struct route_upstream upstreams[POLICY_CHAIN_MAX]; /* [tier->n_models] */
};

/* Something that several snapshots may hold, and what it was made from. */
struct shared {
    _Atomic uint32_t n_refs;
    void *object; /* NULL = there is none */
    void (*close)(void *object);
    struct shared *from; /* the configuration whose strings it uses; NULL = none */
};

/* Answers of requests that must stay lie in memory alone. */
struct route_caches {
    struct response_cache *all, *private_ones; /* may be the same; NULL = off */
};

struct route_snapshot {
    _Atomic uint32_t n_refs;
    struct shared *config, *fleet, *caches, *log, *rollout;
    struct route_tier tiers[POLICY_TIERS_MAX];
    size_t n_tiers;
    size_t baseline;                  /* tier */
    struct confidence_map confidence; /* the cascade's */
    struct classifier *classifier;    /* of a local model; NULL = none */
    struct route_upstream classifies; /* a provider's; state NULL = none */
};

struct snapshot_options {
    const struct clock *clock;
    struct upstream_table *upstreams;
    void (*fleet_changed)(void *context);
    void *context;
};

/* Takes config over in any case. before: whose parts are kept where they are the same; NULL = none. */
err_t route_snapshot_open(const struct snapshot_options *options, struct route_config *config,
                          struct route_snapshot *before, struct route_snapshot **out) ERR_MUST_CHECK;
struct route_snapshot *route_snapshot_ref(struct route_snapshot *snapshot);
/* The last one closes what it holds: not on the fleet's or the egress thread. NULL is fine. */
void route_snapshot_unref(struct route_snapshot *snapshot);

static inline struct route_config *snapshot_config(const struct route_snapshot *snapshot)
{
    return snapshot->config->object;
}
static inline struct local_fleet *snapshot_fleet(const struct route_snapshot *snapshot)
{
    return snapshot->fleet->object;
}
static inline struct route_caches *snapshot_caches(const struct route_snapshot *snapshot)
{
    return snapshot->caches->object;
}
static inline struct decision_log *snapshot_log(const struct route_snapshot *snapshot)
{
    return snapshot->log->object;
}
static inline struct rollout *snapshot_rollout(const struct route_snapshot *snapshot)
{
    return snapshot->rollout->object;
}
