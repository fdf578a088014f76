/* A device that is lost: the first error is kept, and nothing is asked of it any more. An error of CUDA
 * outlives every call, and a context does not recover from it: only another process may have the card again.
 */
#include "kernels/cuda/cuda_backend.h"

static void lose(struct cuda_backend *cuda, const err_t *fault)
{
    cuda->is_lost = true;
    cuda->fault = *fault;
    if (cuda->group != NULL)
        cuda_group_lose(cuda, fault);
}

bool cuda_is_alive(struct cuda_backend *cuda)
{
    const err_t *of_group = cuda->is_lost ? NULL : cuda_group_fault(cuda);
    if (of_group != NULL)
        lose(cuda, of_group);
    return !cuda->is_lost;
}

bool cuda_worked(struct cuda_backend *cuda, err_t e)
{
    if (e.code == ERR_OK)
        return true;
    if (cuda_is_alive(cuda)) {
        e.code = ERR_UNAVAILABLE;
        e = err_prefix(e, "GPU %d (%s) was lost while a step ran", cuda->ordinal, cuda->properties->name);
        lose(cuda, &e);
    }
    return false;
}

err_t cuda_fault(const struct backend *backend)
{
    const struct cuda_backend *cuda = cuda_of_const(backend);
    const err_t *of_group = cuda_group_fault(cuda);
    return of_group != NULL ? *of_group : cuda->is_lost ? cuda->fault : err_ok();
}
