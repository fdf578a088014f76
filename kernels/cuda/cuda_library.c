/* The library's door. Linked with one device table: device_cuda.c's, or that of the tests. */
#include "kernels/cuda/cuda_library.h"

#include "kernels/cuda/cuda_backend.h"

static err_t create(const struct backend_cuda_options *options, struct backend **out)
{
    return cuda_backend_create(device_api(), options, out);
}

extern const struct cuda_library bantam_cuda_library;
__attribute__((visibility("default"))) const struct cuda_library bantam_cuda_library = {
    .abi = CUDA_LIBRARY_ABI,
    .vtable_bytes = sizeof(struct backend_vtable),
    .create = create,
};
