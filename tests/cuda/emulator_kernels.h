/* Arguments of the kernels of the emulator's own tests. */
#pragma once

#include <stddef.h>
#include <stdint.h>

struct test_args {
    const void *in;
    void *out;
    uint32_t n;
};
