/* What a test has told the fake devices, and what they count. Under the lock of fake_device.c. */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include "tests/cuda/fake_device.h"

extern struct fake_state {
    struct fake_device_counts counts;
    int64_t fail_nth;
    bool fails;
    uint64_t memory_bytes; /* 0 = from the environment */
    uint64_t seed;
    bool has_seed;
    bool has_break; /* by the test; else from the environment */
    uint32_t n_short[FAKE_GRAPH_CALLS];
} fake_state;

/* Whether this call, which may fail, is the one that does. */
bool fake_must_fail(void);
uint64_t fake_environment(const char *name, uint64_t otherwise);
