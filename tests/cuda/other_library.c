/* A libbantam_cuda.so of another build: all is as the program has it, but for the number of the interface. */
#include "kernels/cuda/cuda_library.h"

static err_t create(const struct backend_cuda_options *options, struct backend **out)
{
    (void)options;
    *out = NULL;
    return err_new(ERR_INTERNAL, "a library of another build was called");
}

extern const struct cuda_library bantam_cuda_library;
__attribute__((visibility("default"))) const struct cuda_library bantam_cuda_library = {
    .abi = CUDA_LIBRARY_ABI ^ 1u,
    .vtable_bytes = sizeof(struct backend_vtable),
    .create = create,
};
