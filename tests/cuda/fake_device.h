/* A GPU that does not exist, for tests: device_api.h over the emulator. Streams are queues; what is enqueued
 * runs when somebody waits for it, or by chance before, in an order that is random by seed but obeys streams
 * and events. So a copy reads its source late, and memory reused too early shows. Device memory can be
 * touched only while something runs on the device: a pointer of it that host code follows is a segmentation
 * fault. Freed memory is poisoned.
 *
 * Environment of libbantam_cuda_fake.so: BANTAM_FAKE_SEED (0: every stream as far as it goes, as late as
 * possible), BANTAM_FAKE_MEMORY_MIB (4096), BANTAM_FAKE_SEAL (1: after the first launch an allocation, or a
 * wait for anything but an event, aborts), BANTAM_FAKE_FAULT=driver|device|old for a machine without driver,
 * without GPU, with an old driver, BANTAM_FAKE_NAME (of the card), BANTAM_FAKE_LACKS=cudaErrorUnknown
 * for what CUDA says where code for the card is looked for, or =wgmma, for instance, for a library whose
 * kernels of such names have no body there,
 * BANTAM_FAKE_PRODUCT=absent|ours|chain|rows|wrong: the library of products (fake_product.h),
 * BANTAM_FAKE_BREAK=launch:100@1 for a device that is lost while steps run (fake_break.h): that nobody waits
 * for it afterwards is checked. */
#pragma once

#include <stdint.h>
#include "kernels/cuda/device_api.h"

/* What a test reaches by dlsym under FAKE_DEVICE_CONTROL in the library. */
#define FAKE_DEVICE_CONTROL "bantam_fake_device_control"

struct fake_device_counts {
    uint64_t calls; /* that could have failed */
    uint64_t launches, graph_launches, captures;
    uint64_t products, products_replayed;
    uint64_t waits; /* for a stream */
    uint64_t event_waits;
    int64_t devices, allocations, pinned, streams, events, graphs, product_plans; /* alive */
};

enum fake_graph_call { FAKE_CAPTURE_BEGIN, FAKE_CAPTURE_END, FAKE_GRAPH_LAUNCH, FAKE_GRAPH_CALLS };

struct fake_device_control {
    /* The nth call from now on (0 = the next) that may fail does, once; negative: off. */
    void (*fail_nth)(int64_t nth);
    void (*counts)(struct fake_device_counts *out);
    void (*set_memory)(uint64_t bytes);
    void (*set_seed)(uint64_t seed);
    /* Of the cards opened from now on: 80, 86, 89, 90, 120. */
    void (*set_target)(uint32_t capability);
    /* The next n of these calls lack memory. */
    void (*lack_memory)(enum fake_graph_call call, uint32_t n);
    /* fake_break.h; NULL: what the environment says. */
    void (*break_at)(const char *spec);
};
