/* What a test sees of the NCCL that does not exist (fake_nccl.c). */
#pragma once

#include <stdatomic.h>
#include <stdint.h>

struct fake_nccl_counts {
    _Atomic int64_t n_comms; /* alive */
    _Atomic uint64_t n_destroyed, n_aborted, n_gathers;
};

/* The only stream of a GPU that a gathering may go to. */
#define FAKE_NCCL_STREAM(ordinal) ((void *)(0x5eed00 + (intptr_t)(ordinal)))
