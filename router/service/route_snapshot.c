#include "router/service/route_snapshot.h"

#include <string.h>
#include "base/alloc.h"
#include "base/assert.h"
#include "router/cache/store_of_config.h"

#define LOADS_INTERVAL_MS   50
#define RESOLVE_INTERVAL_NS INT64_C(10000000000)
#define NS_PER_MS           INT64_C(1000000)
enum { ENTRY_BYTES_DEFAULT = 1 << 20, PRIVATE_CACHE_BYTES = 64 << 20 };

static struct shared *shared_ref(struct shared *shared)
{
    atomic_fetch_add(&shared->n_refs, 1);
    return shared;
}

static void shared_unref(struct shared *shared)
{
    if (shared == NULL || atomic_fetch_sub(&shared->n_refs, 1) > 1)
        return;
    if (shared->object)
        shared->close(shared->object);
    shared_unref(shared->from);
    mem_free(shared);
}

/* NULL without memory; the object is the caller's then. */
static struct shared *shared_make(void *object, void (*close)(void *object), struct shared *from)
{
    struct shared *shared = mem_alloc(sizeof *shared);
    if (shared == NULL)
        return NULL;
    atomic_store(&shared->n_refs, 1);
    shared->object = object;
    shared->close = close;
    shared->from = from ? shared_ref(from) : NULL;
    return shared;
}

static err_t no_memory(void)
{
    return err_new(ERR_RESOURCE_EXHAUSTED, "no memory for the router's configuration");
}

/* --- closers */

static void close_config(void *object)
{
    route_config_free(object);
}
static void close_fleet(void *object)
{
    local_fleet_close(object);
}
static void close_log(void *object)
{
    decision_log_close(object);
}
static void close_rollout(void *object)
{
    rollout_close(object);
}
static void close_caches(void *object)
{
    struct route_caches *caches = object;
    if (caches->private_ones != caches->all)
        response_cache_close(caches->private_ones);
    response_cache_close(caches->all);
    mem_free(caches);
}

/* --- what stays the same */

static bool same_text(const char *a, const char *b)
{
    return a == b || (a && b && strcmp(a, b) == 0);
}

static bool same_local(const struct local_model_options *a, const struct local_model_options *b)
{
    bool same = same_text(a->name, b->name) && same_text(a->model, b->model) &&
                a->n_targets == b->n_targets && a->tls == b->tls && same_text(a->ca_file, b->ca_file) &&
                same_text(a->cert_file, b->cert_file) && same_text(a->key_file, b->key_file) &&
                same_text(a->server_name, b->server_name) && same_text(a->api_key, b->api_key) &&
                same_text(a->salt_key, b->salt_key);
    for (size_t i = 0; same && i < a->n_targets; i++)
        same = same_text(a->targets[i], b->targets[i]);
    return same;
}

static bool same_fleet(const struct route_config *a, const struct route_config *b)
{
    bool same = a->n_local == b->n_local;
    for (size_t i = 0; same && i < a->n_local; i++)
        same = same_local(&a->local[i], &b->local[i]);
    return same;
}

static bool same_cache(const struct cache_config *a, const struct cache_config *b)
{
    return a->kind == b->kind && same_text(a->path, b->path) && same_text(a->address, b->address) &&
           same_text(a->password_env, b->password_env) && a->ttl_ms == b->ttl_ms &&
           a->max_bytes == b->max_bytes && a->max_entry_bytes == b->max_entry_bytes &&
           a->draws_too == b->draws_too;
}

static bool same_log(const struct decision_log_options *a, const struct decision_log_options *b)
{
    return same_text(a->path, b->path) && a->content == b->content && a->max_bytes == b->max_bytes &&
           a->keep == b->keep && a->retention_ms == b->retention_ms;
}

/* --- makers */

/* Wraps what was opened with e, or closes it. */
static err_t wrap(err_t e, void *object, void (*close)(void *object), struct shared *from,
                  struct shared **out)
{
    if (e.code != ERR_OK)
        return e;
    *out = shared_make(object, close, from);
    if (*out)
        return e;
    if (object)
        close(object);
    return no_memory();
}

static err_t open_fleet(const struct snapshot_options *options, struct route_snapshot *snapshot,
                        struct route_snapshot *before)
{
    const struct route_config *config = snapshot_config(snapshot);
    if (before && same_fleet(snapshot_config(before), config)) {
        snapshot->fleet = shared_ref(before->fleet);
        return err_ok();
    }
    struct local_fleet_options fleet_options = {
        .models = config->local,
        .n_models = config->n_local,
        .loads_interval_ms = LOADS_INTERVAL_MS,
        .resolve_interval_ns = RESOLVE_INTERVAL_NS,
        .clock = options->clock,
        .changed = options->fleet_changed,
        .context = options->context,
    };
    struct local_fleet *fleet = NULL;
    err_t e = local_fleet_open(&fleet_options, &fleet);
    return wrap(e, fleet, close_fleet, snapshot->config, &snapshot->fleet);
}

/* Takes the store over. */
static err_t open_cache(const struct cache_config *config, struct response_store *store,
                        struct response_cache **out)
{
    struct response_cache_options cache = {
        .store = store, .ttl_ns = config->ttl_ms * NS_PER_MS, .draws_too = config->draws_too};
    err_t e = response_cache_open(&cache, out);
    if (e.code != ERR_OK)
        store->vtable->close(store);
    return e;
}

static err_t fill_caches(const struct snapshot_options *options, const struct cache_config *config,
                         struct route_caches *caches)
{
    struct response_store *store = NULL;
    TRY(response_store_of_config(config, &store));
    TRY(open_cache(config, store, &caches->all));
    if (config->kind == CACHE_MEMORY) {
        caches->private_ones = caches->all;
        return err_ok();
    }
    struct memory_store_options memory = {.max_bytes = PRIVATE_CACHE_BYTES,
                                          .max_entry_bytes = config->max_entry_bytes > 0
                                                                 ? (size_t)config->max_entry_bytes
                                                                 : ENTRY_BYTES_DEFAULT,
                                          .clock = options->clock};
    TRY(memory_store_open(&memory, &store));
    return open_cache(config, store, &caches->private_ones);
}

static err_t open_caches(const struct snapshot_options *options, struct route_snapshot *snapshot,
                         struct route_snapshot *before)
{
    const struct cache_config *config = &snapshot_config(snapshot)->cache;
    if (before && same_cache(&snapshot_config(before)->cache, config)) {
        snapshot->caches = shared_ref(before->caches);
        return err_ok();
    }
    struct route_caches *caches = mem_alloc(sizeof *caches);
    if (caches == NULL)
        return no_memory();
    err_t e = config->kind == CACHE_OFF ? err_ok() : fill_caches(options, config, caches);
    if (e.code != ERR_OK)
        close_caches(caches);
    return wrap(e, caches, close_caches, NULL, &snapshot->caches);
}

static err_t open_log(struct route_snapshot *snapshot, struct route_snapshot *before)
{
    const struct decision_log_options *options = &snapshot_config(snapshot)->log;
    if (before && same_log(&snapshot_config(before)->log, options)) {
        snapshot->log = shared_ref(before->log);
        return err_ok();
    }
    struct decision_log *log = NULL;
    err_t e = options->path ? decision_log_open(options, &log) : err_ok();
    return wrap(e, log, close_log, NULL, &snapshot->log);
}

/* What live scores have said of a policy holds while it is the same one: a new key or price brings no policy
 * forward that they took back. */
static err_t open_rollout(struct route_snapshot *snapshot, struct route_snapshot *before)
{
    const struct route_config *config = snapshot_config(snapshot);
    struct rollout *rollout = NULL;
    err_t e = rollout_open(&config->gate, config->policy_id, "", &rollout);
    snapshot->baseline = snapshot->n_tiers - 1;
    if (config->gate.is_set && config->gate.baseline)
        (void)policy_find_tier(config->policy, config->gate.baseline, &snapshot->baseline);
    if (e.code == ERR_OK && before && snapshot->baseline == before->baseline &&
        rollout_is_same(rollout, snapshot_rollout(before))) {
        rollout_close(rollout);
        snapshot->rollout = shared_ref(before->rollout);
        return e;
    }
    return wrap(e, rollout, close_rollout, NULL, &snapshot->rollout);
}

/* Which was checked when the configuration was read. */
static err_t read_calibration(struct route_snapshot *snapshot)
{
    const struct cascade_config *cascade = &snapshot_config(snapshot)->cascade;
    if (!cascade->is_set || cascade->calibration_text == NULL)
        return err_ok();
    err_t e =
        confidence_map_parse(cascade->calibration_text, cascade->calibration_bytes, &snapshot->confidence);
    return e.code == ERR_OK ? e : err_prefix(e, "cascade.calibration %s", cascade->calibration);
}

/* --- upstreams */

static struct upstream_state *state_of(struct upstream_table *table, const struct route_upstream *upstream,
                                       const char *name)
{
    pthread_mutex_lock(&table->lock);
    struct upstream_state *state = table->first;
    while (state && strcmp(state->name, name) != 0)
        state = state->next;
    if (state == NULL && (state = mem_alloc(sizeof *state)) != NULL) {
        state->name = mem_strdup(name);
        rate_limits_open(&state->limits);
        if (state->name) {
            state->counts =
                route_metrics_upstream(table->metrics, upstream->provider_name, upstream->model_name);
            state->next = table->first;
            table->first = state;
        } else {
            mem_free(state);
            state = NULL;
        }
    }
    pthread_mutex_unlock(&table->lock);
    return state;
}

static err_t fill_upstream(const struct route_config *config, struct upstream_table *table, const char *name,
                           struct route_upstream *out)
{
    if (route_config_find_local(config, name, &out->local)) {
        const struct local_model_options *local = &config->local[out->local];
        out->is_local = true;
        out->provider_name = "local";
        out->model_name = local->name;
        out->nanodollars_per_hour = local->nanodollars_per_hour;
    } else {
        out->model = provider_config_find(&config->providers, name, &out->provider);
        if (out->model == NULL)
            return err_new(ERR_INVALID_ARGUMENT, "a tier names %s, which nobody has", name);
        out->provider_name = out->provider->name;
        out->model_name = out->model->name;
    }
    out->state = state_of(table, out, name);
    return out->state ? err_ok() : no_memory();
}

static err_t open_classifier(const struct snapshot_options *options, struct route_snapshot *snapshot)
{
    const struct classifier_config *config = &snapshot_config(snapshot)->classifier;
    if (config->model == NULL)
        return err_ok();
    return config->provider
               ? fill_upstream(snapshot_config(snapshot), options->upstreams, config->model,
                               &snapshot->classifies)
               : classifier_open(config, snapshot_fleet(snapshot), options->clock, &snapshot->classifier);
}

static err_t fill_tiers(struct route_snapshot *snapshot, struct upstream_table *table)
{
    const struct route_config *config = snapshot_config(snapshot);
    const struct policy_tier *tiers = policy_tiers(config->policy, &snapshot->n_tiers);
    for (size_t i = 0; i < snapshot->n_tiers; i++) {
        snapshot->tiers[i].tier = &tiers[i];
        for (size_t j = 0; j < tiers[i].n_models; j++)
            TRY(fill_upstream(config, table, tiers[i].models[j], &snapshot->tiers[i].upstreams[j]));
    }
    return err_ok();
}

err_t route_snapshot_open(const struct snapshot_options *options, struct route_config *config,
                          struct route_snapshot *before, struct route_snapshot **out)
{
    struct route_snapshot *snapshot = mem_alloc(sizeof *snapshot);
    struct shared *holder = shared_make(config, close_config, NULL);
    if (snapshot == NULL || holder == NULL) {
        mem_free(snapshot);
        mem_free(holder);
        route_config_free(config);
        return no_memory();
    }
    snapshot->config = holder;
    atomic_store(&snapshot->n_refs, 1);
    err_t e = fill_tiers(snapshot, options->upstreams);
    if (e.code == ERR_OK)
        e = read_calibration(snapshot);
    if (e.code == ERR_OK)
        e = open_caches(options, snapshot, before);
    if (e.code == ERR_OK)
        e = open_log(snapshot, before);
    if (e.code == ERR_OK)
        e = open_rollout(snapshot, before);
    if (e.code == ERR_OK)
        e = open_fleet(options, snapshot, before);
    if (e.code == ERR_OK)
        e = open_classifier(options, snapshot);
    if (e.code != ERR_OK)
        route_snapshot_unref(snapshot);
    else
        *out = snapshot;
    return e;
}

struct route_snapshot *route_snapshot_ref(struct route_snapshot *snapshot)
{
    atomic_fetch_add(&snapshot->n_refs, 1);
    return snapshot;
}

void route_snapshot_unref(struct route_snapshot *snapshot)
{
    if (snapshot == NULL || atomic_fetch_sub(&snapshot->n_refs, 1) > 1)
        return;
    classifier_close(snapshot->classifier);
    shared_unref(snapshot->fleet);
    shared_unref(snapshot->rollout);
    shared_unref(snapshot->log);
    shared_unref(snapshot->caches);
    shared_unref(snapshot->config);
    mem_free(snapshot);
}
