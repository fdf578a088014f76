/* Names are looked up on a thread of their own, since that may take long. */
#include <string.h>
#include <time.h>
#include "base/log.h"
#include "router/local/fleet_internal.h"

static err_t look_up(const struct local_fleet *fleet, const struct replica_target *target,
                     struct replica_addresses *out)
{
    out->n = 0;
    if (fleet->options.resolve)
        return fleet->options.resolve(fleet->options.resolve_context, target, out);
    return replica_target_resolve(target, out);
}

/* What cannot be looked up keeps the addresses that it had: whether somebody is there shows by connecting. */
static bool look_up_model(struct fleet_model *model)
{
    struct local_fleet *fleet = model->fleet;
    bool any = false;
    for (size_t i = 0; i < model->options->n_targets; i++) {
        struct replica_addresses found;
        err_t e = look_up(fleet, &model->targets[i], &found);
        bool fails = e.code != ERR_OK || found.n == 0;
        if (fails && !model->is_failing[i])
            log_warn("local", "%s: target %s: %s", model->options->name, model->options->targets[i],
                     e.code != ERR_OK ? e.message : "it has no address");
        model->is_failing[i] = fails;
        if (fails)
            continue;
        pthread_mutex_lock(&fleet->resolver_mutex);
        model->resolved[i] = found;
        pthread_mutex_unlock(&fleet->resolver_mutex);
        any = true;
    }
    return any;
}

/* False: it ends. */
static bool wait_for_interval(struct local_fleet *fleet)
{
    struct timespec until;
    clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_sec += fleet->options.resolve_interval_ns / 1000000000;
    until.tv_nsec += fleet->options.resolve_interval_ns % 1000000000;
    if (until.tv_nsec >= 1000000000) {
        until.tv_sec++;
        until.tv_nsec -= 1000000000;
    }
    pthread_mutex_lock(&fleet->resolver_mutex);
    int failure = 0;
    while (!fleet->resolver_ends && failure == 0)
        failure = pthread_cond_timedwait(&fleet->resolver_wake, &fleet->resolver_mutex, &until);
    bool ends = fleet->resolver_ends;
    pthread_mutex_unlock(&fleet->resolver_mutex);
    return !ends;
}

static void *run_resolver(void *argument)
{
    struct local_fleet *fleet = argument;
    do {
        bool any = false;
        for (size_t i = 0; i < fleet->options.n_models && !atomic_load(&fleet->is_closing); i++)
            any |= look_up_model(&fleet->models[i]);
        if (any) {
            atomic_store(&fleet->has_resolved, true);
            bantam_group_wake(fleet->group);
        }
    } while (wait_for_interval(fleet));
    return NULL;
}

err_t resolver_start(struct local_fleet *fleet)
{
    if (pthread_create(&fleet->resolver, NULL, run_resolver, fleet) != 0)
        return err_new(ERR_RESOURCE_EXHAUSTED, "no thread to look up the names of engines");
    fleet->has_resolver = true;
    return err_ok();
}

void resolver_stop(struct local_fleet *fleet)
{
    pthread_mutex_lock(&fleet->resolver_mutex);
    fleet->resolver_ends = true;
    pthread_cond_signal(&fleet->resolver_wake);
    pthread_mutex_unlock(&fleet->resolver_mutex);
    if (fleet->has_resolver)
        pthread_join(fleet->resolver, NULL);
    fleet->has_resolver = false;
}
