/* The only symbol of libbantam_cuda.so: what the program finds there. */
#pragma once

#include "base/error.h"
#include "kernels/kernels.h"

/* The build's, a hash of this header and all that it includes (cmake/interface_number.cmake), so that nobody
 * forgets to raise it. */
#ifndef CUDA_LIBRARY_ABI
#error "CUDA_LIBRARY_ABI: the number of the interface comes from CMake"
#endif

#define CUDA_LIBRARY_SYMBOL "bantam_cuda_library"

struct cuda_library {
    uint32_t abi; /* first, whatever else changes */
    uint32_t
        vtable_bytes; /* sizeof(struct backend_vtable): catches what the number would not, another compiler */
    err_t (*create)(const struct backend_cuda_options *options, struct backend **out);
};
