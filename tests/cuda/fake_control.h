/* The control of libbantam_cuda_fake.so for a test: it loads the library that the program will, or has. */
#pragma once

#include <dlfcn.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <cmocka.h>
#include "tests/cuda/fake_device.h"

/* Of the library that BANTAM_CUDA_LIBRARY names. */
static inline const struct fake_device_control *fake_control_find(void)
{
    void *library = dlopen(getenv("BANTAM_CUDA_LIBRARY"), RTLD_NOW | RTLD_LOCAL);
    assert_non_null(library);
    const struct fake_device_control *control = dlsym(library, FAKE_DEVICE_CONTROL);
    assert_non_null(control);
    return control;
}

#ifdef FAKE_LIBRARY
/* Of that one, which the program will load too. */
static inline const struct fake_device_control *fake_control_open(void)
{
    setenv("BANTAM_CUDA_LIBRARY", FAKE_LIBRARY, 1);
    return fake_control_find();
}
#endif

/* Everything that was made on any device has been destroyed. */
static inline void fake_control_assert_nothing_is_left(const struct fake_device_control *control)
{
    struct fake_device_counts counts;
    control->counts(&counts);
    assert_int_equal(counts.devices, 0);
    assert_int_equal(counts.allocations, 0);
    assert_int_equal(counts.pinned, 0);
    assert_int_equal(counts.streams, 0);
    assert_int_equal(counts.events, 0);
    assert_int_equal(counts.graphs, 0);
    assert_int_equal(counts.product_plans, 0);
}
