/* Several clients, one driver. */
#include "base/alloc.h"
#include "base/assert.h"
#include "clients/c/client_internal.h"

err_t bantam_group_open(struct bantam_group **out)
{
    struct bantam_group *group = mem_alloc(sizeof *group);
    if (!group)
        return err_new(ERR_RESOURCE_EXHAUSTED, "no memory for a client");
    err_t e = grpc_client_queue_open(&group->queue);
    if (e.code != ERR_OK) {
        mem_free(group);
        return e;
    }
    *out = group;
    return err_ok();
}

void bantam_group_close(struct bantam_group *group)
{
    if (!group)
        return;
    ASSERT(!group->clients && !group->driving);
    grpc_client_queue_close(group->queue);
    mem_free(group);
}

static bool run_due(struct bantam_group *group)
{
    bool any = false;
    for (struct bantam_client *client = group->clients; client; client = client->group_next) {
        any |= calls_run_inbox(client);
        any |= calls_run_timers(client);
    }
    return any;
}

static bool any_inbox(struct bantam_group *group)
{
    for (struct bantam_client *client = group->clients; client; client = client->group_next)
        if (atomic_load(&client->has_inbox))
            return true;
    return false;
}

static int64_t shorter_wait(const struct bantam_group *group, int64_t timeout_ns)
{
    for (const struct bantam_client *client = group->clients; client; client = client->group_next) {
        if (!client->timers.first)
            continue;
        int64_t due_in_ns = client->timers.first->due_ns - clock_now_ns(client->clock);
        if (due_in_ns < 0)
            due_in_ns = 0;
        timeout_ns = timeout_ns < 0 || due_in_ns < timeout_ns ? due_in_ns : timeout_ns;
    }
    return timeout_ns;
}

static bool wait_for_event(struct bantam_group *group, int64_t timeout_ns)
{
    /* Who asks for something either is seen below or sees that it has to wake. */
    atomic_store(&group->waiting, true);
    if (any_inbox(group))
        timeout_ns = 0;
    bool any = grpc_client_queue_poll(group->queue, timeout_ns);
    atomic_store(&group->waiting, false);
    return any;
}

bool bantam_group_poll(struct bantam_group *group, int64_t timeout_ns)
{
    ASSERT(!group->driving);
    group->driving = true;
    bool any = run_due(group);
    any |= wait_for_event(group, any ? 0 : shorter_wait(group, timeout_ns));
    any |= run_due(group);
    group->driving = false;
    return any;
}

void bantam_group_wake(struct bantam_group *group)
{
    grpc_client_queue_wake(group->queue);
}
