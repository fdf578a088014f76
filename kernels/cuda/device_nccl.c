#include "kernels/cuda/device_nccl.h"

#include <dlfcn.h>
#include <pthread.h>
#include <stdlib.h>
#include "base/alloc.h"
#include "base/assert.h"
#include "kernels/cuda/nccl_types.h"

enum { NCCL_VERSION_MIN = 21000, NCCL_RANKS_MAX = 8 };

struct nccl_group {
    const struct nccl_functions *nccl;
    uint32_t n_ranks;
    nccl_comm comms[NCCL_RANKS_MAX]; /* NULL = ended by nccl_abort */
};

static err_t load_symbols(void *library, struct nccl_functions *out)
{
    const struct {
        const char *name;
        void **at;
    } symbols[] = {
#define M(member, symbol, type, parameters) {#symbol, (void **)&out->member},
        NCCL_FUNCTIONS(M)
#undef M
    };
    for (size_t i = 0; i < sizeof symbols / sizeof symbols[0]; i++) {
        *symbols[i].at = dlsym(library, symbols[i].name);
        if (*symbols[i].at == NULL)
            return err_new(ERR_UNAVAILABLE, "NCCL lacks %s: it must be version 2.10 or newer",
                           symbols[i].name);
    }
    int version = 0;
    (void)out->get_version(&version);
    if (version < NCCL_VERSION_MIN)
        return err_new(ERR_UNAVAILABLE, "NCCL's version number is %d, at least %d (2.10) is needed", version,
                       NCCL_VERSION_MIN);
    return err_ok();
}

static err_t load(struct nccl_functions *out)
{
    const char *path = getenv("BANTAM_NCCL_LIBRARY");
    void *library = dlopen(path != NULL && *path ? path : "libnccl.so.2", RTLD_NOW | RTLD_LOCAL);
    const char *why = library == NULL ? dlerror() : NULL;
    if (library == NULL)
        return err_new(
            ERR_UNAVAILABLE,
            "several GPUs need NCCL: %.200s; install it, or name it by BANTAM_NCCL_LIBRARY: that of "
            "Python's nvidia-nccl-cu13 is site-packages/nvidia/nccl/lib/libnccl.so.2",
            why != NULL ? why : "unknown error");
    return load_symbols(library, out);
}

/* The library stays loaded: it has threads of its own. */
static err_t functions(const struct nccl_functions **out)
{
    static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
    static struct nccl_functions loaded;
    static int is_loaded;
    err_t e = err_ok();
    pthread_mutex_lock(&lock);
    if (!is_loaded)
        e = load(&loaded);
    is_loaded = is_loaded || e.code == ERR_OK;
    pthread_mutex_unlock(&lock);
    *out = &loaded;
    return e;
}

err_t nccl_group_create(const int *ordinals, uint32_t n_ranks, struct nccl_group **out)
{
    ASSERT(n_ranks >= 1 && n_ranks <= NCCL_RANKS_MAX);
    *out = NULL;
    const struct nccl_functions *nccl;
    TRY(functions(&nccl));
    struct nccl_group *group = mem_alloc(sizeof *group);
    if (group == NULL)
        return err_new(ERR_RESOURCE_EXHAUSTED, "no memory for a group of %u GPUs", n_ranks);
    *group = (struct nccl_group){.nccl = nccl, .n_ranks = n_ranks};
    int code = nccl->comm_init_all(group->comms, (int)n_ranks, ordinals);
    if (code != NCCL_SUCCESS) {
        mem_free(group);
        return err_new(ERR_INTERNAL, "NCCL cannot join %u GPUs: %s; NCCL_DEBUG=INFO says more", n_ranks,
                       nccl->error_string(code));
    }
    *out = group;
    return err_ok();
}

void nccl_group_destroy(struct nccl_group *group)
{
    for (uint32_t i = 0; group != NULL && i < group->n_ranks; i++) {
        if (group->comms[i] != NULL)
            (void)group->nccl->comm_destroy(group->comms[i]);
    }
    mem_free(group);
}

err_t nccl_all_gather(struct nccl_group *group, uint32_t rank, void *stream, const void *part, void *whole,
                      size_t part_bytes)
{
    ASSERT(rank < group->n_ranks);
    if (group->comms[rank] == NULL)
        return err_new(ERR_UNAVAILABLE, "this GPU has left its group");
    int code = group->nccl->all_gather(part, whole, part_bytes, NCCL_UINT8, group->comms[rank], stream);
    if (code == NCCL_SUCCESS)
        return err_ok();
    return err_new(ERR_INTERNAL, "NCCL's all-gather of %zu bytes: %s", part_bytes,
                   group->nccl->error_string(code));
}

err_t nccl_check(struct nccl_group *group, uint32_t rank)
{
    int code = NCCL_SUCCESS, status = NCCL_SUCCESS;
    if (group->comms[rank] != NULL)
        status = group->nccl->comm_async_error(group->comms[rank], &code);
    code = status != NCCL_SUCCESS ? status : code;
    if (code == NCCL_SUCCESS || code == NCCL_IN_PROGRESS)
        return err_ok();
    return err_new(ERR_INTERNAL, "NCCL: %s", group->nccl->error_string(code));
}

void nccl_abort(struct nccl_group *group, uint32_t rank)
{
    if (group->comms[rank] != NULL)
        (void)group->nccl->comm_abort(group->comms[rank]);
    group->comms[rank] = NULL;
}
