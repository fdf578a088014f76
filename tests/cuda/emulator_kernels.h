/* Arguments of the kernels of the emulator's own tests. */
#pragma once

#include <stddef.h>
#include <stdint.h>

struct test_args {
    const void *in;
    void *out;
    uint32_t n;
};

/* d [16][8] or [64][n] += a [rows][k] . b [n][k]^T, all by rows, of bf16, f16, int8 or e4m3 codes. */
struct product_args {
    const void *a, *b;
    void *d;
};
