/* The only symbol of libbantam_cuda.so: what the program finds there. */
#pragma once

#include "base/error.h"
#include "kernels/kernels.h"

enum { CUDA_LIBRARY_ABI = 2 }; /* of this struct, kernels.h and step.h; a change of any of them raises it */

#define CUDA_LIBRARY_SYMBOL "bantam_cuda_library"

struct cuda_library {
    uint32_t abi;          /* first, whatever else changes */
    uint32_t vtable_bytes; /* sizeof(struct backend_vtable): catches what a forgotten raise would not */
    err_t (*create)(const struct backend_cuda_options *options, struct backend **out);
};
