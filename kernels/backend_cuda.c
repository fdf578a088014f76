/* Loads the CUDA backend from libbantam_cuda.so. */
#include "kernels/kernels.h"

err_t backend_cuda_create(const struct backend_cuda_options *options, struct backend **out)
{
    (void)options;
    *out = NULL;
    return err_new(ERR_NOT_FOUND, "libbantam_cuda.so was not found; --device cpu works without it");
}
