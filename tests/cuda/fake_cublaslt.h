/* What a test sees of the cuBLASLt that does not exist (fake_cublaslt.c). */
#pragma once

#include <stdint.h>

struct fake_cublaslt_counts {
    int64_t n_objects; /* alive */
    uint64_t n_chosen, n_products;
};

/* The only stream that products may go to. */
#define FAKE_CUBLASLT_STREAM ((void *)0x5eed)
