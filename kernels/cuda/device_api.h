/* Everything that the host code of the CUDA backend calls: one table of functions, filled with the CUDA
 * runtime by device_cuda.c and with a device that does not exist by tests/cuda/fake_device.c. What is
 * enqueued on a stream runs later, in the order of that stream; a copy reads its source when it runs.
 *
 * Thread: that which opened the device, unless said. Errors name what CUDA said; those of launches, copies,
 * graphs, gathering and events may belong to work enqueued earlier and mean that the device is lost: what is
 * called on it from there on returns, with an error where it can, and destroying and freeing go on as ever.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "base/error.h"
#include "kernels/cuda/cuda_kernels.h"
#include "kernels/cuda/product_policy.h"

struct device;
struct device_stream;
struct device_event;
struct device_graph;
struct device_group;
struct device_product;

struct device_properties {
    char name[96];
    uint32_t capability; /* 90 for 9.0 */
    uint32_t n_multiprocessors;
    uint32_t shared_bytes_max; /* of a block, static and dynamic */
    uint64_t memory_bytes, l2_bytes;
    uint32_t driver_version, runtime_version; /* 13000 for 13.0 */
    const char *code_targets;                 /* what kernels were compiled for: "sm_80 sm_90a compute_90" */
};

enum launch_flags {
    /* Programmatic dependent launch: the kernel may begin before the one in front of it has ended, and waits
     * for it in dependencies_wait(), which every kernel so launched calls before it reads or writes. */
    LAUNCH_PDL = 1u << 0,
};

struct launch {
    enum cuda_kernel_id kernel;
    uint32_t grid[3];
    uint32_t block_threads;
    uint32_t shared_bytes; /* dynamic */
    const void *args;      /* the kernel's args struct; copied */
    size_t args_bytes;
    uint32_t flags;
};

/* Whether CUDA must be asked for a launch's dynamic shared memory, where allowed_bytes were asked for before.
 * Without asking a block has 48 KB, static and dynamic; how much of that is static the compiler alone knows,
 * so all of it is asked for. */
static inline bool launch_asks_shared(const struct launch *launch, uint32_t allowed_bytes)
{
    return launch->shared_bytes > allowed_bytes;
}

/* out[r][o] = sum over k of weight[o][k] * x[r][k], to bf16; e4m3: times weight_scale[o] * x_scale[r]. */
struct product_shape {
    enum product_kind kind;
    uint32_t n_out, n_in;
    uint32_t weight_stride, x_stride, out_stride; /* elements between rows; of 16 bytes each */
    uint32_t rows_min, rows_max;                  /* that it is called with */
    size_t workspace_bytes;                       /* that each call has */
};

/* Device memory, aligned to 16, the workspace to 256. */
struct product_call {
    uint32_t rows;
    const void *weight;        /* bf16 or e4m3 [n_out][weight_stride] */
    const float *weight_scale; /* e4m3: [n_out] */
    const void *x;             /* [rows][x_stride], of the weight's type */
    const float *x_scale;      /* e4m3: [rows] */
    void *out;                 /* bf16 [rows][out_stride] */
    void *workspace;
};

struct device_api {
    /* ERR_UNAVAILABLE: no driver, one that is too old, no such GPU. */
    err_t (*open)(int ordinal, struct device **out);
    void (*close)(struct device *device); /* everything made on it has been destroyed */
    const struct device_properties *(*properties)(const struct device *device);
    /* Static shared memory of the kernel as it was compiled for this card, or is now by its driver. Loads it.
     * ERR_UNAVAILABLE: there is neither machine code for the card nor PTX that the driver can compile. */
    err_t (*kernel_shared_bytes)(struct device *device, enum cuda_kernel_id kernel, uint32_t *out);
    /* Bytes that memory_alloc could take now. */
    err_t (*memory_free_bytes)(struct device *device, uint64_t *out);

    /* ERR_RESOURCE_EXHAUSTED. Device memory holds anything; aligned to 256. */
    err_t (*memory_alloc)(struct device *device, size_t size_bytes, void **out);
    void (*memory_free)(struct device *device, void *memory);
    /* Pinned host memory that the device can read and write. */
    err_t (*host_alloc)(struct device *device, size_t size_bytes, void **out);
    void (*host_free)(struct device *device, void *memory);

    err_t (*stream_create)(struct device *device, struct device_stream **out);
    void (*stream_destroy)(struct device *device, struct device_stream *stream);
    err_t (*stream_wait)(struct device *device, struct device_stream *stream); /* blocks */
    err_t (*stream_wait_event)(struct device *device, struct device_stream *stream,
                               struct device_event *event);

    err_t (*event_create)(struct device *device, struct device_event **out);
    void (*event_destroy)(struct device *device, struct device_event *event);
    err_t (*event_record)(struct device *device, struct device_event *event, struct device_stream *stream);
    /* Blocks; returns at once if never recorded. given_up (may be NULL): ERR_UNAVAILABLE soon after another
     * thread has set it and called group_abort, for what a rank that is lost will never bring. */
    err_t (*event_wait)(struct device *device, struct device_event *event, const _Atomic bool *given_up);

    /* Host memory is pinned. */
    err_t (*copy_to_device)(struct device *device, struct device_stream *stream, void *to, const void *from,
                            size_t size_bytes);
    err_t (*copy_to_host)(struct device *device, struct device_stream *stream, void *to, const void *from,
                          size_t size_bytes);
    err_t (*fill)(struct device *device, struct device_stream *stream, void *to, uint8_t byte,
                  size_t size_bytes);
    err_t (*launch)(struct device *device, struct device_stream *stream, const struct launch *launch);

    /* What is enqueued on the stream between begin and end is not run but made into a graph. */
    err_t (*capture_begin)(struct device *device, struct device_stream *stream);
    err_t (*capture_end)(struct device *device, struct device_stream *stream, struct device_graph **out);
    err_t (*graph_launch)(struct device *device, struct device_graph *graph, struct device_stream *stream);
    /* What it was launched for still runs to its end. */
    void (*graph_destroy)(struct device *device, struct device_graph *graph);

    /* A library's products (cuBLASLt). Its version, 130100 for 13.1.0; ERR_UNAVAILABLE without the library.
     */
    err_t (*product_library)(struct device *device, uint32_t *version);
    /* Chooses algorithms: one for the numbers of rows up to each power of two, whatever else the process
     * does. After product_library said OK. ERR_UNIMPLEMENTED: the library has none for this shape. */
    err_t (*product_create)(struct device *device, const struct product_shape *shape,
                            struct device_product **out);
    void (*product_destroy)(struct device *device, struct device_product *product);
    /* May be captured. Allocates nothing. The library's kernels promise nothing of programmatic launches: the
     * one behind them is launched without LAUNCH_PDL. */
    err_t (*product)(struct device *device, struct device_stream *stream, struct device_product *product,
                     const struct product_call *call);

    /* Ranks (NCCL): devices[i] is rank i. One thread makes and destroys the group, before and after all else
     * that the devices do in it. ERR_UNAVAILABLE without the library. */
    err_t (*group_create)(struct device *const *devices, uint32_t n_ranks, struct device_group **out);
    void (*group_destroy)(struct device_group *group);
    /* whole[r] = rank r's part, [n_ranks][part_bytes], on every rank; each calls it from its own thread, all
     * in the same order. May be captured. The kernel behind it is launched without LAUNCH_PDL, as behind a
     * product. */
    err_t (*all_gather)(struct device *device, struct device_stream *stream, const void *part, void *whole,
                        size_t part_bytes);
    /* This rank's part in the group ends, by its own thread: what of it waits for other ranks does so no
     * longer, and nothing more is gathered. Idempotent. */
    void (*group_abort)(struct device *device);
};

/* The table of the device that this library is linked with. */
const struct device_api *device_api(void);
