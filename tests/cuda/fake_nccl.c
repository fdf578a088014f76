/* An NCCL that does not exist, as a shared library: what device_nccl.c says to it is understood as the real
 * one's documentation says. A gathering is under way from the first rank's call on and has happened when the
 * last one has called: nobody waits in the call, unless a rank is many gatherings ahead. All memory is the
 * host's.
 *
 * BANTAM_FAKE_NCCL=old: an old version; init: joins no GPUs; gather: refuses to gather; lost: noticed a lost
 * peer; busy: has not finished; check: does not even say. FAKE_NCCL_LACKS_GATHER: compiled without that. */
#include <pthread.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include "base/alloc.h"
#include "kernels/cuda/nccl_types.h"
#include "tests/cuda/fake_library.h"
#include "tests/cuda/fake_nccl.h"

enum { VERSION = 22809, VERSION_OLD = 20900, RANKS_MAX = 8, GATHERS_MAX = 4 };

/* One gathering that not all ranks have joined yet. */
struct gather {
    size_t part_bytes;
    int n_joined;
    const void *send[RANKS_MAX];
    void *receive[RANKS_MAX];
};

struct group {
    pthread_mutex_t mutex;
    pthread_cond_t landed;
    int n_ranks, n_alive, error;
    uint64_t n_landed; /* gatherings */
    struct gather gathers[GATHERS_MAX];
};

struct ncclComm {
    struct group *group;
    int rank, ordinal;
    uint64_t n_joined;
};

/* Declared as device_nccl.c has them: it cannot call what is another thing here. */
#define M(member, symbol, type, parameters) type symbol parameters;
NCCL_FUNCTIONS(M)
#undef M

EXPORT struct fake_nccl_counts fake_nccl_counts;

static bool is_mode(const char *mode)
{
    return fake_is_mode("BANTAM_FAKE_NCCL", mode);
}

EXPORT int ncclGetVersion(int *version)
{
    *version = is_mode("old") ? VERSION_OLD : VERSION;
    return NCCL_SUCCESS;
}

EXPORT const char *ncclGetErrorString(int code)
{
    return code == NCCL_SYSTEM_ERROR   ? "unhandled system error"
           : code == NCCL_REMOTE_ERROR ? "remote process exited or there was a network error"
                                       : "invalid argument";
}

static bool are_different(const int *ordinals, int n)
{
    for (int i = 0; i < n; i++)
        for (int j = 0; j < i; j++)
            if (ordinals[i] == ordinals[j])
                return false;
    return true;
}

EXPORT int ncclCommInitAll(nccl_comm *comms, int n_devices, const int *ordinals)
{
    if (is_mode("init"))
        return NCCL_SYSTEM_ERROR;
    if (n_devices < 1 || n_devices > RANKS_MAX || !are_different(ordinals, n_devices))
        return NCCL_INVALID_ARGUMENT;
    struct group *group = mem_alloc(sizeof *group);
    struct ncclComm *all = mem_alloc_array((size_t)n_devices, sizeof *all);
    if (group == NULL || all == NULL)
        abort();
    *group = (struct group){.n_ranks = n_devices, .n_alive = n_devices};
    pthread_mutex_init(&group->mutex, NULL);
    pthread_cond_init(&group->landed, NULL);
    for (int i = 0; i < n_devices; i++) {
        all[i] = (struct ncclComm){.group = group, .rank = i, .ordinal = ordinals[i]};
        comms[i] = &all[i];
    }
    fake_nccl_counts.n_comms += n_devices;
    return NCCL_SUCCESS;
}

/* The last one to go takes the group along. */
static void leave(struct ncclComm *comm)
{
    struct group *group = comm->group;
    pthread_mutex_lock(&group->mutex);
    bool is_last = --group->n_alive == 0;
    pthread_mutex_unlock(&group->mutex);
    fake_nccl_counts.n_comms--;
    if (!is_last)
        return;
    pthread_cond_destroy(&group->landed);
    pthread_mutex_destroy(&group->mutex);
    mem_free(comm - comm->rank);
    mem_free(group);
}

EXPORT int ncclCommDestroy(nccl_comm comm)
{
    fake_nccl_counts.n_destroyed++;
    leave(comm);
    return NCCL_SUCCESS;
}

/* Its peers notice. */
EXPORT int ncclCommAbort(nccl_comm comm)
{
    struct group *group = comm->group;
    pthread_mutex_lock(&group->mutex);
    group->error = NCCL_REMOTE_ERROR;
    pthread_cond_broadcast(&group->landed);
    pthread_mutex_unlock(&group->mutex);
    fake_nccl_counts.n_aborted++;
    leave(comm);
    return NCCL_SUCCESS;
}

EXPORT int ncclCommGetAsyncError(nccl_comm comm, int *code)
{
    if (is_mode("check"))
        return NCCL_INVALID_ARGUMENT;
    pthread_mutex_lock(&comm->group->mutex);
    *code = is_mode("lost") ? NCCL_REMOTE_ERROR : is_mode("busy") ? NCCL_IN_PROGRESS : comm->group->error;
    pthread_mutex_unlock(&comm->group->mutex);
    return NCCL_SUCCESS;
}

#ifndef FAKE_NCCL_LACKS_GATHER
static void land(struct group *group, struct gather *gather)
{
    for (int to = 0; to < group->n_ranks; to++)
        for (int from = 0; from < group->n_ranks; from++)
            memcpy((char *)gather->receive[to] + (size_t)from * gather->part_bytes, gather->send[from],
                   gather->part_bytes);
    *gather = (struct gather){0};
    group->n_landed++;
    fake_nccl_counts.n_gathers++;
    pthread_cond_broadcast(&group->landed);
}

/* The rank's next one; the group is locked. */
static int join(struct ncclComm *comm, const void *send, void *receive, size_t part_bytes)
{
    struct group *group = comm->group;
    while (comm->n_joined - group->n_landed >= GATHERS_MAX && group->error == NCCL_SUCCESS)
        pthread_cond_wait(&group->landed, &group->mutex);
    if (group->error != NCCL_SUCCESS)
        return group->error;
    struct gather *gather = &group->gathers[comm->n_joined++ % GATHERS_MAX];
    if (gather->n_joined > 0 && gather->part_bytes != part_bytes)
        return group->error = NCCL_INVALID_ARGUMENT;
    gather->part_bytes = part_bytes;
    gather->send[comm->rank] = send;
    gather->receive[comm->rank] = receive;
    if (++gather->n_joined == group->n_ranks)
        land(group, gather);
    return NCCL_SUCCESS;
}

EXPORT int ncclAllGather(const void *send, void *receive, size_t n, int type, nccl_comm comm, void *stream)
{
    if (is_mode("gather"))
        return NCCL_SYSTEM_ERROR;
    if (type != NCCL_UINT8 || send == NULL || receive == NULL || stream != FAKE_NCCL_STREAM(comm->ordinal))
        return NCCL_INVALID_ARGUMENT;
    pthread_mutex_lock(&comm->group->mutex);
    int code = join(comm, send, receive, n);
    pthread_mutex_unlock(&comm->group->mutex);
    return code;
}
#endif
