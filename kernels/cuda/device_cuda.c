/* The device table filled with the CUDA runtime: the only file beside the kernels that includes its headers.
 */
#include <cuda_runtime.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "base/alloc.h"
#include "base/assert.h"
#include "kernels/cuda/device_api.h"
#include "kernels/cuda/device_cublaslt.h"
#include "kernels/cuda/device_missing.h"
#include "kernels/cuda/device_nccl.h"
#include "kernels/kernels.h"

enum { PDL_CAPABILITY = 90, NCCL_LOOKS = 256, GPUS_MAX = 64 };

struct device_group {
    struct nccl_group *nccl;
};

struct device {
    int ordinal;
    struct device_group *group;
    uint32_t rank;
    struct device_properties properties;
    struct cublaslt *cublaslt;                /* NULL = not asked for yet */
    uint32_t shared_bytes[CUDA_KERNEL_COUNT]; /* dynamic, as known to be allowed */
};

struct device_stream {
    cudaStream_t stream;
};

struct device_event {
    cudaEvent_t event;
};

struct device_graph {
    cudaGraphExec_t executable;
};

/* What nvcc makes of KERNEL(): the host's stub, by which the runtime knows the kernel. */
#define K(name, args_type, what) extern void name(args_type args);
CUDA_KERNEL_LIST(K)
#undef K

static const void *const kernels[CUDA_KERNEL_COUNT] = {
#define K(name, args_type, what) (const void *)name,
    CUDA_KERNEL_LIST(K)
#undef K
};

static const char *kernel_name(enum cuda_kernel_id id)
{
    static const char *const names[CUDA_KERNEL_COUNT] = {
#define K(name, args_type, what) #name,
        CUDA_KERNEL_LIST(K)
#undef K
    };
    return names[id];
}

static err_t error_of(cudaError_t code, const char *what)
{
    (void)cudaGetLastError(); /* an error that is not sticky is over with this report */
    return err_new(code == cudaErrorMemoryAllocation ? ERR_RESOURCE_EXHAUSTED : ERR_INTERNAL, "%s: %s (%s)",
                   what, cudaGetErrorString(code), cudaGetErrorName(code));
}

#define CUDA_TRY(call, what)                                                                                 \
    do {                                                                                                     \
        cudaError_t code_ = (call);                                                                          \
        if (code_ != cudaSuccess)                                                                            \
            return error_of(code_, (what));                                                                  \
    } while (0)

/* The current device is a thread's; whoever drives this one may have come from another. */
static __thread int current_ordinal = -1;

static cudaError_t make_current(const struct device *device)
{
    cudaError_t code = cudaSetDevice(device->ordinal);
    current_ordinal = code == cudaSuccess ? device->ordinal : -1;
    return code;
}

static void enter(const struct device *device)
{
    if (current_ordinal != device->ordinal)
        (void)make_current(device); /* the call that follows has the error */
}

/* ---- Device ---- */

static err_t open_failed(cudaError_t code, int driver, int runtime)
{
    (void)cudaGetLastError();
    return device_missing(&(struct device_missing){.driver = driver,
                                                   .runtime = runtime,
                                                   .is_too_old = code == cudaErrorInsufficientDriver,
                                                   .says = cudaGetErrorString(code),
                                                   .visible = getenv("CUDA_VISIBLE_DEVICES")});
}

static err_t read_properties(int ordinal, struct device_properties *out)
{
    struct cudaDeviceProp p;
    CUDA_TRY(cudaGetDeviceProperties(&p, ordinal), "properties of the GPU");
    (void)snprintf(out->name, sizeof out->name, "%.95s", p.name);
    out->capability = (uint32_t)(p.major * 10 + p.minor);
    out->n_multiprocessors = (uint32_t)p.multiProcessorCount;
    out->shared_bytes_max = (uint32_t)p.sharedMemPerBlockOptin;
    out->memory_bytes = p.totalGlobalMem;
    out->l2_bytes = (uint64_t)p.l2CacheSize;
    return err_ok();
}

static err_t open_device(int ordinal, struct device **out)
{
    *out = NULL;
    int driver = 0, runtime = 0, n_devices = 0;
    (void)cudaDriverGetVersion(&driver);
    (void)cudaRuntimeGetVersion(&runtime);
    cudaError_t code = cudaGetDeviceCount(&n_devices);
    if (code != cudaSuccess)
        return open_failed(code, driver, runtime);
    if (ordinal >= n_devices || ordinal >= GPUS_MAX)
        return err_new(ERR_UNAVAILABLE, "there is no GPU %d: the driver shows %d, numbered from 0", ordinal,
                       n_devices);
    struct device *device = mem_alloc(sizeof *device);
    if (device == NULL)
        return err_new(ERR_RESOURCE_EXHAUSTED, "no memory for a device");
    device->ordinal = ordinal;
    err_t e = read_properties(ordinal, &device->properties);
    device->properties.driver_version = (uint32_t)driver;
    device->properties.runtime_version = (uint32_t)runtime;
    device->properties.code_targets = BANTAM_CUDA_TARGETS; /* of CMake */
    if (e.code == ERR_OK && device->properties.capability < 80)
        e = err_new(ERR_UNAVAILABLE, "%s has compute capability %u.%u, 8.0 is needed",
                    device->properties.name, device->properties.capability / 10,
                    device->properties.capability % 10);
    /* Makes the context: whatever is wrong with the GPU shows here. */
    code = e.code == ERR_OK ? make_current(device) : cudaSuccess;
    if (code == cudaSuccess && e.code == ERR_OK)
        code = cudaFree(NULL);
    if (code != cudaSuccess)
        e = err_new(ERR_UNAVAILABLE, "%s cannot be used: %s", device->properties.name,
                    cudaGetErrorString(code));
    if (e.code != ERR_OK) {
        mem_free(device);
        return e;
    }
    *out = device;
    return e;
}

/* The context stays: other devices of this process may share it. */
static void close_device(struct device *device)
{
    enter(device);
    cublaslt_destroy(device->cublaslt);
    mem_free(device);
}

static const struct device_properties *properties(const struct device *device)
{
    return &device->properties;
}

static err_t kernel_shared_bytes(struct device *device, enum cuda_kernel_id kernel, uint32_t *out)
{
    struct cudaFuncAttributes attributes;
    enter(device);
    cudaError_t code = cudaFuncGetAttributes(&attributes, kernels[kernel]);
    if (code != cudaSuccess && !device_lacks_code(cudaGetErrorName(code)))
        return error_of(code, kernel_name(kernel));
    (void)cudaGetLastError();
    if (code != cudaSuccess)
        return err_new(ERR_UNAVAILABLE, "has no kernels that run on it (%s: %s)", kernel_name(kernel),
                       cudaGetErrorString(code));
    *out = (uint32_t)attributes.sharedSizeBytes;
    return err_ok();
}

static err_t memory_free_bytes(struct device *device, uint64_t *out)
{
    size_t free_bytes, total_bytes;
    enter(device);
    CUDA_TRY(cudaMemGetInfo(&free_bytes, &total_bytes), "free memory of the GPU");
    *out = free_bytes;
    return err_ok();
}

/* ---- Memory ---- */

static err_t memory_alloc(struct device *device, size_t size_bytes, void **out)
{
    enter(device);
    CUDA_TRY(cudaMalloc(out, size_bytes), "memory of the GPU");
    return err_ok();
}

static void memory_free(struct device *device, void *memory)
{
    enter(device);
    (void)cudaFree(memory);
}

static err_t host_alloc(struct device *device, size_t size_bytes, void **out)
{
    enter(device);
    CUDA_TRY(cudaHostAlloc(out, size_bytes, cudaHostAllocPortable), "pinned memory");
    return err_ok();
}

static void host_free(struct device *device, void *memory)
{
    enter(device);
    (void)cudaFreeHost(memory);
}

/* ---- Streams and events ---- */

static err_t stream_create(struct device *device, struct device_stream **out)
{
    enter(device);
    struct device_stream *stream = mem_alloc(sizeof *stream);
    if (stream == NULL)
        return err_new(ERR_RESOURCE_EXHAUSTED, "no memory for a stream");
    cudaError_t code = cudaStreamCreateWithFlags(&stream->stream, cudaStreamNonBlocking);
    if (code != cudaSuccess) {
        mem_free(stream);
        return error_of(code, "a stream");
    }
    *out = stream;
    return err_ok();
}

static void stream_destroy(struct device *device, struct device_stream *stream)
{
    enter(device);
    (void)cudaStreamDestroy(stream->stream);
    mem_free(stream);
}

static err_t stream_wait(struct device *device, struct device_stream *stream)
{
    enter(device);
    CUDA_TRY(cudaStreamSynchronize(stream->stream), "work on the GPU");
    return err_ok();
}

static err_t stream_wait_event(struct device *device, struct device_stream *stream,
                               struct device_event *event)
{
    enter(device);
    CUDA_TRY(cudaStreamWaitEvent(stream->stream, event->event, 0), "waiting for an event on the GPU");
    return err_ok();
}

static err_t event_create(struct device *device, struct device_event **out)
{
    enter(device);
    struct device_event *event = mem_alloc(sizeof *event);
    if (event == NULL)
        return err_new(ERR_RESOURCE_EXHAUSTED, "no memory for an event");
    cudaError_t code = cudaEventCreateWithFlags(&event->event, cudaEventDisableTiming);
    if (code != cudaSuccess) {
        mem_free(event);
        return error_of(code, "an event");
    }
    *out = event;
    return err_ok();
}

static void event_destroy(struct device *device, struct device_event *event)
{
    enter(device);
    (void)cudaEventDestroy(event->event);
    mem_free(event);
}

static err_t event_record(struct device *device, struct device_event *event, struct device_stream *stream)
{
    enter(device);
    CUDA_TRY(cudaEventRecord(event->event, stream->stream), "recording an event");
    return err_ok();
}

/* Of a group the event may stand behind a gathering that another rank never joins: so it is looked at and not
 * waited for, which costs no more, since CUDA's own waiting spins as well. */
static err_t event_wait(struct device *device, struct device_event *event, const _Atomic bool *given_up)
{
    enter(device);
    if (given_up == NULL) {
        CUDA_TRY(cudaEventSynchronize(event->event), "work on the GPU");
        return err_ok();
    }
    for (uint32_t i = 1;; i++) {
        cudaError_t code = cudaEventQuery(event->event);
        if (code == cudaSuccess)
            return err_ok();
        if (code != cudaErrorNotReady)
            return error_of(code, "work on the GPU");
        if (atomic_load(given_up))
            return err_new(ERR_UNAVAILABLE, "another GPU of the group was lost");
        if (device->group != NULL && i % NCCL_LOOKS == 0)
            TRY(nccl_check(device->group->nccl, device->rank));
    }
}

/* ---- Work ---- */

static err_t copy_to_device(struct device *device, struct device_stream *stream, void *to, const void *from,
                            size_t size_bytes)
{
    enter(device);
    CUDA_TRY(cudaMemcpyAsync(to, from, size_bytes, cudaMemcpyHostToDevice, stream->stream),
             "a copy to the GPU");
    return err_ok();
}

static err_t copy_to_host(struct device *device, struct device_stream *stream, void *to, const void *from,
                          size_t size_bytes)
{
    enter(device);
    CUDA_TRY(cudaMemcpyAsync(to, from, size_bytes, cudaMemcpyDeviceToHost, stream->stream),
             "a copy from the GPU");
    return err_ok();
}

static err_t fill(struct device *device, struct device_stream *stream, void *to, uint8_t byte,
                  size_t size_bytes)
{
    enter(device);
    CUDA_TRY(cudaMemsetAsync(to, byte, size_bytes, stream->stream), "filling memory of the GPU");
    return err_ok();
}

/* What is allowed holds for a GPU and the whole process, whatever devices are open on it: so it is only ever
 * raised. */
static err_t raise_shared(int ordinal, const struct launch *launch, uint32_t *allowed)
{
    static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
    static uint32_t all[GPUS_MAX][CUDA_KERNEL_COUNT];
    cudaError_t code = cudaSuccess;
    pthread_mutex_lock(&lock);
    uint32_t *of_gpu = &all[ordinal][launch->kernel];
    if (launch_asks_shared(launch, *of_gpu))
        code = cudaFuncSetAttribute(kernels[launch->kernel], cudaFuncAttributeMaxDynamicSharedMemorySize,
                                    (int)launch->shared_bytes);
    if (code == cudaSuccess && *of_gpu < launch->shared_bytes)
        *of_gpu = launch->shared_bytes;
    *allowed = *of_gpu;
    pthread_mutex_unlock(&lock);
    return code == cudaSuccess ? err_ok() : error_of(code, kernel_name(launch->kernel));
}

/* Once per kernel and size. */
static err_t allow_shared(struct device *device, const struct launch *launch)
{
    uint32_t *allowed = &device->shared_bytes[launch->kernel];
    return launch_asks_shared(launch, *allowed) ? raise_shared(device->ordinal, launch, allowed) : err_ok();
}

static err_t launch_kernel(struct device *device, struct device_stream *stream, const struct launch *launch)
{
    ASSERT(launch->kernel < CUDA_KERNEL_COUNT);
    enter(device);
    TRY(allow_shared(device, launch));
    cudaLaunchAttribute attribute = {
        .id = cudaLaunchAttributeProgrammaticStreamSerialization,
        .val.programmaticStreamSerializationAllowed = 1,
    };
    bool dependent = (launch->flags & LAUNCH_PDL) && device->properties.capability >= PDL_CAPABILITY;
    cudaLaunchConfig_t config = {
        .gridDim = {launch->grid[0], launch->grid[1], launch->grid[2]},
        .blockDim = {launch->block_threads, 1, 1},
        .dynamicSmemBytes = launch->shared_bytes,
        .stream = stream->stream,
        .attrs = &attribute,
        .numAttrs = dependent ? 1 : 0,
    };
    void *args[1];
    memcpy(&args[0], &launch->args, sizeof args[0]); /* the runtime reads them, and takes no const */
    CUDA_TRY(cudaLaunchKernelExC(&config, kernels[launch->kernel], args), kernel_name(launch->kernel));
    return err_ok();
}

/* ---- Graphs ---- */

/* Relaxed: a kernel that is launched for the first time is loaded meanwhile, and may ask for shared memory.
 */
static err_t capture_begin(struct device *device, struct device_stream *stream)
{
    enter(device);
    CUDA_TRY(cudaStreamBeginCapture(stream->stream, cudaStreamCaptureModeRelaxed), "capturing a graph");
    return err_ok();
}

static err_t capture_end(struct device *device, struct device_stream *stream, struct device_graph **out)
{
    enter(device);
    cudaGraph_t captured;
    CUDA_TRY(cudaStreamEndCapture(stream->stream, &captured), "capturing a graph");
    struct device_graph *graph = mem_alloc(sizeof *graph);
    cudaError_t code =
        graph == NULL ? cudaErrorMemoryAllocation : cudaGraphInstantiate(&graph->executable, captured, 0);
    (void)cudaGraphDestroy(captured);
    if (code != cudaSuccess) {
        mem_free(graph);
        return error_of(code, "instantiating a graph");
    }
    *out = graph;
    return err_ok();
}

static err_t graph_launch(struct device *device, struct device_graph *graph, struct device_stream *stream)
{
    enter(device);
    CUDA_TRY(cudaGraphLaunch(graph->executable, stream->stream), "launching a graph");
    return err_ok();
}

static void graph_destroy(struct device *device, struct device_graph *graph)
{
    enter(device);
    (void)cudaGraphExecDestroy(graph->executable);
    mem_free(graph);
}

/* ---- Products ---- */

static err_t product_library(struct device *device, uint32_t *version)
{
    enter(device);
    if (device->cublaslt == NULL)
        TRY(cublaslt_create(&device->cublaslt));
    *version = cublaslt_version(device->cublaslt);
    return err_ok();
}

static err_t product_create(struct device *device, const struct product_shape *shape,
                            struct device_product **out)
{
    struct cublaslt_product *product;
    enter(device);
    ASSERT(device->cublaslt != NULL);
    err_t e = cublaslt_product_create(device->cublaslt, shape, &product);
    *out = (struct device_product *)product;
    return e;
}

static void product_destroy(struct device *device, struct device_product *product)
{
    enter(device);
    cublaslt_product_destroy((struct cublaslt_product *)product);
}

static err_t product(struct device *device, struct device_stream *stream, struct device_product *product,
                     const struct product_call *call)
{
    enter(device);
    return cublaslt_product_run((struct cublaslt_product *)product, call, stream->stream);
}

/* ---- Ranks ---- */

static err_t group_create(struct device *const *devices, uint32_t n_ranks, struct device_group **out)
{
    int ordinals[BACKEND_RANKS_MAX];
    ASSERT(n_ranks <= BACKEND_RANKS_MAX);
    *out = NULL;
    for (uint32_t i = 0; i < n_ranks; i++)
        ordinals[i] = devices[i]->ordinal;
    struct device_group *group = mem_alloc(sizeof *group);
    if (group == NULL)
        return err_new(ERR_RESOURCE_EXHAUSTED, "no memory for a group of GPUs");
    err_t e = nccl_group_create(ordinals, n_ranks, &group->nccl);
    current_ordinal = -1; /* NCCL has gone through all of them */
    if (e.code != ERR_OK) {
        mem_free(group);
        return e;
    }
    for (uint32_t i = 0; i < n_ranks; i++) {
        devices[i]->group = group;
        devices[i]->rank = i;
    }
    *out = group;
    return e;
}

static void group_destroy(struct device_group *group)
{
    nccl_group_destroy(group->nccl);
    current_ordinal = -1;
    mem_free(group);
}

static err_t all_gather(struct device *device, struct device_stream *stream, const void *part, void *whole,
                        size_t part_bytes)
{
    enter(device);
    return nccl_all_gather(device->group->nccl, device->rank, stream->stream, part, whole, part_bytes);
}

static void group_abort(struct device *device)
{
    enter(device);
    nccl_abort(device->group->nccl, device->rank);
}

static const struct device_api cuda_device_api = {
    .open = open_device,
    .close = close_device,
    .properties = properties,
    .kernel_shared_bytes = kernel_shared_bytes,
    .memory_free_bytes = memory_free_bytes,
    .memory_alloc = memory_alloc,
    .memory_free = memory_free,
    .host_alloc = host_alloc,
    .host_free = host_free,
    .stream_create = stream_create,
    .stream_destroy = stream_destroy,
    .stream_wait = stream_wait,
    .stream_wait_event = stream_wait_event,
    .event_create = event_create,
    .event_destroy = event_destroy,
    .event_record = event_record,
    .event_wait = event_wait,
    .copy_to_device = copy_to_device,
    .copy_to_host = copy_to_host,
    .fill = fill,
    .launch = launch_kernel,
    .capture_begin = capture_begin,
    .capture_end = capture_end,
    .graph_launch = graph_launch,
    .graph_destroy = graph_destroy,
    .product_library = product_library,
    .product_create = product_create,
    .product_destroy = product_destroy,
    .product = product,
    .group_create = group_create,
    .group_destroy = group_destroy,
    .all_gather = all_gather,
    .group_abort = group_abort,
};

const struct device_api *device_api(void)
{
    return &cuda_device_api;
}
