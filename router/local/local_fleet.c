#include "router/local/local_fleet.h"

#include <string.h>
#include "base/alloc.h"
#include "base/assert.h"
#include "router/local/fleet_internal.h"

/* --- errands */

static bool inbox_is_empty(struct local_fleet *fleet)
{
    pthread_mutex_lock(&fleet->inbox_mutex);
    bool is_empty = fleet->inbox_first == NULL;
    pthread_mutex_unlock(&fleet->inbox_mutex);
    return is_empty;
}

enum fleet_sent fleet_send(struct local_fleet *fleet, struct fleet_errand *errand)
{
    enum fleet_sent sent = ERRAND_SENT;
    pthread_mutex_lock(&fleet->inbox_mutex);
    if (atomic_load(&fleet->is_closing)) {
        sent = ERRAND_CLOSED;
    } else if (errand->is_queued) {
        sent = ERRAND_WAS_THERE;
    } else {
        errand->is_queued = true;
        errand->next = NULL;
        *(fleet->inbox_last ? &fleet->inbox_last->next : &fleet->inbox_first) = errand;
        fleet->inbox_last = errand;
    }
    pthread_mutex_unlock(&fleet->inbox_mutex);
    bool must_wake = sent == ERRAND_SENT && atomic_load(&fleet->is_waiting) &&
                     !pthread_equal(pthread_self(), fleet->thread);
    if (must_wake)
        bantam_group_wake(fleet->group);
    return sent;
}

static void run_errands(struct local_fleet *fleet)
{
    for (;;) {
        pthread_mutex_lock(&fleet->inbox_mutex);
        struct fleet_errand *errand = fleet->inbox_first;
        if (errand) {
            fleet->inbox_first = errand->next;
            if (!fleet->inbox_first)
                fleet->inbox_last = NULL;
            errand->is_queued = false;
        }
        pthread_mutex_unlock(&fleet->inbox_mutex);
        if (!errand)
            return;
        errand->run(errand);
    }
}

/* --- the thread */

static void look_around(struct local_fleet *fleet)
{
    bool has_resolved = atomic_exchange(&fleet->has_resolved, false);
    for (size_t i = 0; i < fleet->options.n_models; i++) {
        if (has_resolved)
            replicas_follow_names(&fleet->models[i]);
        replicas_look(&fleet->models[i]);
    }
    bool has_changed = fleet->has_changed;
    fleet->has_changed = false;
    if (has_changed && fleet->options.changed)
        fleet->options.changed(fleet->options.context);
}

static void wait_and_run(struct local_fleet *fleet)
{
    int64_t now_ns = fleet_now_ns(fleet), next_ns = now_ns + FLEET_TICK_NS;
    run_errands(fleet);
    calls_run_due(fleet, &next_ns);
    /* Who sends an errand either finds it run below or sees that it has to wake. */
    atomic_store(&fleet->is_waiting, true);
    bool is_idle = inbox_is_empty(fleet) && !atomic_load(&fleet->has_resolved);
    (void)bantam_group_poll(fleet->group, is_idle && next_ns > now_ns ? next_ns - now_ns : 0);
    atomic_store(&fleet->is_waiting, false);
}

static void *run_fleet(void *argument)
{
    struct local_fleet *fleet = argument;
    while (!atomic_load(&fleet->is_closing)) {
        wait_and_run(fleet);
        look_around(fleet);
    }
    run_errands(fleet);
    calls_cancel_all(fleet);
    while (fleet->calls || fleet->n_asks > 0) {
        (void)bantam_group_poll(fleet->group, FLEET_TICK_NS);
        calls_cancel_all(fleet);
    }
    for (size_t i = 0; i < fleet->options.n_models; i++)
        replicas_close(&fleet->models[i]);
    return NULL;
}

/* --- open and close */

static err_t no_memory(void)
{
    return err_new(ERR_RESOURCE_EXHAUSTED, "no memory for the engines of the configuration");
}

static err_t open_model(struct local_fleet *fleet, size_t index)
{
    struct fleet_model *model = &fleet->models[index];
    const struct local_model_options *options = &fleet->options.models[index];
    size_t n = options->n_targets;
    model->fleet = fleet;
    model->options = options;
    model->targets = mem_alloc_array(n, sizeof *model->targets);
    model->resolved = mem_alloc_array(n, sizeof *model->resolved);
    model->is_failing = mem_alloc_array(n, sizeof *model->is_failing);
    if (!model->targets || !model->resolved || !model->is_failing)
        return no_memory();
    for (size_t i = 0; i < n; i++) {
        err_t e = replica_target_parse(options->targets[i], &model->targets[i]);
        if (e.code != ERR_OK)
            return err_prefix(e, "%s: target", options->name);
    }
    return prefix_memory_open(FLEET_PREFIXES_MAX, &model->memory);
}

static void free_fleet(struct local_fleet *fleet)
{
    for (size_t i = 0; fleet->models && i < fleet->options.n_models; i++) {
        prefix_memory_close(fleet->models[i].memory);
        mem_free(fleet->models[i].targets);
        mem_free(fleet->models[i].resolved);
        mem_free(fleet->models[i].is_failing);
    }
    for (struct info_record *record = fleet->infos, *next; record; record = next) {
        next = record->next;
        const struct model_info *info = &record->info;
        const char *const TEXTS[] = {info->model,
                                     info->architecture,
                                     info->dtype,
                                     info->quantization,
                                     info->fingerprint,
                                     info->weights_fingerprint,
                                     info->tokenizer_fingerprint,
                                     info->template_fingerprint,
                                     info->arithmetic_fingerprint};
        for (size_t i = 0; i < sizeof TEXTS / sizeof *TEXTS; i++)
            mem_free((char *)TEXTS[i]);
        mem_free((uint32_t *)info->eos_token_ids);
        mem_free(record);
    }
    bantam_group_close(fleet->group);
    pthread_mutex_destroy(&fleet->mutex);
    pthread_mutex_destroy(&fleet->inbox_mutex);
    pthread_mutex_destroy(&fleet->resolver_mutex);
    pthread_cond_destroy(&fleet->resolver_wake);
    explicit_bzero(fleet->salt_key, sizeof fleet->salt_key);
    mem_free(fleet->models);
    mem_free(fleet);
}

static void make_locks(struct local_fleet *fleet)
{
    pthread_condattr_t monotonic;
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_cond_init(&fleet->resolver_wake, &monotonic);
    pthread_condattr_destroy(&monotonic);
    pthread_mutex_init(&fleet->mutex, NULL);
    pthread_mutex_init(&fleet->inbox_mutex, NULL);
    pthread_mutex_init(&fleet->resolver_mutex, NULL);
}

static err_t start_threads(struct local_fleet *fleet)
{
    /* Under the mutex that every errand takes: whoever sends one sees the thread's name. */
    pthread_mutex_lock(&fleet->inbox_mutex);
    fleet->has_thread = pthread_create(&fleet->thread, NULL, run_fleet, fleet) == 0;
    pthread_mutex_unlock(&fleet->inbox_mutex);
    return fleet->has_thread ? resolver_start(fleet)
                             : err_new(ERR_RESOURCE_EXHAUSTED, "no thread for the engines");
}

err_t local_fleet_open(const struct local_fleet_options *options, struct local_fleet **out)
{
    ASSERT(options->n_models <= LOCAL_MODELS_MAX && options->clock && options->resolve_interval_ns > 0);
    struct local_fleet *fleet = mem_alloc(sizeof *fleet);
    if (!fleet)
        return no_memory();
    make_locks(fleet);
    fleet->options = *options;
    fleet->rng = rng_make(options->seed ? options->seed : random_seed_u64());
    for (size_t i = 0; i < sizeof fleet->salt_key / sizeof *fleet->salt_key; i++)
        fleet->salt_key[i] = random_seed_u64();
    fleet->models = mem_alloc_array(options->n_models + 1, sizeof *fleet->models);
    err_t e = fleet->models ? bantam_group_open(&fleet->group) : no_memory();
    for (size_t i = 0; i < options->n_models && e.code == ERR_OK; i++)
        e = open_model(fleet, i);
    if (e.code == ERR_OK)
        e = start_threads(fleet);
    if (e.code != ERR_OK) {
        local_fleet_close(fleet);
        return e;
    }
    *out = fleet;
    return e;
}

void local_fleet_close(struct local_fleet *fleet)
{
    if (!fleet)
        return;
    ASSERT(!fleet->has_thread || !pthread_equal(pthread_self(), fleet->thread));
    pthread_mutex_lock(&fleet->inbox_mutex);
    atomic_store(&fleet->is_closing, true);
    pthread_mutex_unlock(&fleet->inbox_mutex);
    resolver_stop(fleet);
    if (fleet->has_thread) {
        bantam_group_wake(fleet->group);
        pthread_join(fleet->thread, NULL);
    }
    free_fleet(fleet);
}

err_t fleet_check_up(struct local_fleet *fleet, size_t model)
{
    if (model >= fleet->options.n_models)
        return err_new(ERR_NOT_FOUND, "there is no local model number %zu", model);
    bool is_up = false;
    const struct fleet_model *at = &fleet->models[model];
    pthread_mutex_lock(&fleet->mutex);
    for (uint32_t i = 0; i < LOCAL_REPLICAS_MAX; i++)
        is_up = is_up || (at->replicas[i] && at->replicas[i]->is_up);
    pthread_mutex_unlock(&fleet->mutex);
    return is_up ? err_ok() : err_new(ERR_UNAVAILABLE, "no engine of \"%s\" is up", at->options->name);
}
