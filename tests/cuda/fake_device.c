#include "tests/cuda/fake_device.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "base/alloc.h"
#include "base/assert.h"
#include "kernels/cuda/device_missing.h"
#include "tests/cuda/emulator/emulator.h"
#include "tests/cuda/fake_break.h"
#include "tests/cuda/fake_memory.h"
#include "tests/cuda/fake_operation.h"
#include "tests/cuda/fake_product.h"
#include "tests/cuda/fake_state.h"

enum { STREAMS_MAX = 8, RUN_EARLY_MAX = 40 };

struct device_stream {
    struct operations queue;
    struct device_graph *capture; /* NULL = what is enqueued runs */
    bool behind_library;          /* of what was enqueued last: a product or a gathering */
};

struct device_product {
    struct product_shape shape;
};

struct device_event {
    uint64_t n_recorded, n_completed;
};

struct device_graph {
    struct operations body;
};

/* Ranks that gather parts from each other: each posts its own, and takes all when they are there. A rank
 * posts the part after next only when it has taken this one, so two places are enough. */
struct device_group {
    uint32_t n_ranks;
    bool is_cut; /* some rank left it */
    struct post {
        uint8_t *parts; /* [n_ranks][part_bytes] */
        size_t part_bytes;
        uint32_t n_posted, n_taken;
    } posts[2];
};

struct device {
    struct device_properties properties;
    struct device_group *group;
    uint32_t rank;
    uint64_t n_posted, n_taken;               /* of this rank */
    uint32_t shared_bytes[CUDA_KERNEL_COUNT]; /* dynamic, as asked for so far */
    struct device_stream *streams[STREAMS_MAX];
    uint64_t random;
    bool is_sealed;
    bool has_library; /* of products: asked for */
    int ordinal;
    bool is_broken;   /* whatever can fail does, and nothing runs any more */
    bool is_reported; /* and somebody was told */
    bool is_cut;      /* left its group: what it still had to do is dropped */
};

/* Ranks are driven by threads of their own, and what a device does is done by whoever waits for it: one
 * thread at a time is in here, and lets others in while its device waits for theirs. */
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t posted = PTHREAD_COND_INITIALIZER;

static void unlock(const int *unused)
{
    (void)unused;
    pthread_mutex_unlock(&lock);
}

/* First in every function of the table: nobody else is in here until it returns. */
#define LOCKED                                                                                               \
    __attribute__((cleanup(unlock))) const int locked_ = pthread_mutex_lock(&lock);                          \
    (void)locked_

static _Noreturn void fail(const char *what)
{
    (void)fprintf(stderr, "fake device: %s\n", what);
    abort();
}

static void drop_work(struct device *device)
{
    for (int i = 0; i < STREAMS_MAX; i++)
        if (device->streams[i] != NULL)
            device->streams[i]->queue.first = device->streams[i]->queue.n = 0;
}

#define MAY_FAIL(code, what)                                                                                 \
    do {                                                                                                     \
        if (fake_must_fail())                                                                                \
            return err_new((code), "%s: injected by the test", (what));                                      \
    } while (0)

/* Whether the device is broken, or breaks at this call. */
static bool is_broken(struct device *device, enum fake_break_kind kind)
{
    if (!device->is_broken && device->is_sealed && fake_break_now(kind, device->ordinal)) {
        device->is_broken = true;
        drop_work(device);
    }
    return device->is_broken;
}

static err_t broken(struct device *device, const char *what)
{
    device->is_reported = true;
    return err_new(ERR_INTERNAL, "%s: an illegal memory access was encountered", what);
}

#define MAY_BREAK(kind, what)                                                                                \
    do {                                                                                                     \
        if (is_broken(device, (kind)))                                                                       \
            return broken(device, (what));                                                                   \
        MAY_FAIL(ERR_INTERNAL, (what));                                                                      \
    } while (0)

#define MAY_LACK_MEMORY(call, what)                                                                          \
    do {                                                                                                     \
        if (fake_state.n_short[call] > 0) {                                                                  \
            fake_state.n_short[call]--;                                                                      \
            return err_new(ERR_RESOURCE_EXHAUSTED, "%s: out of device memory", (what));                      \
        }                                                                                                    \
    } while (0)

static uint32_t random_below(struct device *device, uint32_t n)
{
    device->random = device->random * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(device->random >> 33) % n;
}

static void seal(const struct device *device, const char *what)
{
    if (!device->is_sealed || !fake_environment("BANTAM_FAKE_SEAL", 0))
        return;
    (void)fprintf(stderr, "%s: ", what);
    fail("called while steps run");
}

/* ---- Running ---- */

static bool is_ready(const struct device *device, const struct operation *operation)
{
    if (operation->kind == RUN_TAKE)
        return device->group->posts[device->n_taken % 2].n_posted == device->group->n_ranks;
    return operation->kind != RUN_WAIT || operation->event->n_completed >= operation->ticket;
}

static void run_post(struct device *device, const struct operation *operation)
{
    struct device_group *group = device->group;
    struct post *post = &group->posts[device->n_posted++ % 2];
    if (post->n_posted == 0) {
        post->part_bytes = operation->size_bytes;
        post->parts = mem_realloc(post->parts, group->n_ranks * operation->size_bytes);
        ASSERT(post->parts != NULL);
    }
    if (post->part_bytes != operation->size_bytes)
        fail("the ranks gather parts of different sizes");
    memcpy(post->parts + device->rank * post->part_bytes, operation->from, post->part_bytes);
    post->n_posted++;
    pthread_cond_broadcast(&posted);
}

static void run_take(struct device *device, const struct operation *operation)
{
    struct device_group *group = device->group;
    struct post *post = &group->posts[device->n_taken++ % 2];
    memcpy(operation->to, post->parts, group->n_ranks * post->part_bytes);
    if (++post->n_taken == group->n_ranks)
        post->n_posted = post->n_taken = 0;
}

static void run(struct device *device, struct operation *operation)
{
    switch (operation->kind) {
    case RUN_KERNEL: {
        if (is_broken(device, FAKE_BREAK_RUN))
            return;
        struct emu_launch launch = {
            .kernel = emulated_kernel(operation->kernel),
            .grid = {operation->grid[0], operation->grid[1], operation->grid[2]},
            .block_threads = operation->block_threads,
            .shared_bytes = operation->shared_bytes,
            .args = operation->args,
            .args_bytes = operation->args_bytes,
            .dependent = operation->dependent,
            .shared_not_asked = !operation->shared_is_asked,
        };
        emu_launch(&launch);
        return;
    }
    case RUN_COPY:
        memcpy(operation->to, operation->from, operation->size_bytes);
        return;
    case RUN_FILL:
        memset(operation->to, operation->byte, operation->size_bytes);
        return;
    case RUN_RECORD:
        operation->event->n_completed = operation->ticket;
        return;
    case RUN_WAIT:
        return;
    case RUN_POST:
        run_post(device, operation);
        return;
    case RUN_TAKE:
        run_take(device, operation);
        return;
    case RUN_PRODUCT: {
        struct product_call call;
        memcpy(&call, operation->args, sizeof call);
        fake_product_run(&operation->product->shape, &call);
        return;
    }
    }
}

static void run_next(struct device *device, struct device_stream *stream)
{
    struct operations *queue = &stream->queue;
    run(device, &queue->items[queue->first++]);
    if (queue->first == queue->n)
        queue->first = queue->n = 0;
}

static bool can_run(const struct device *device, const struct device_stream *stream)
{
    return stream != NULL && stream->queue.first < stream->queue.n &&
           is_ready(device, &stream->queue.items[stream->queue.first]);
}

/* Whether other ranks have to post first. */
static bool waits_for_ranks(const struct device *device)
{
    for (int i = 0; i < STREAMS_MAX; i++) {
        const struct device_stream *stream = device->streams[i];
        if (stream != NULL && stream->queue.first < stream->queue.n &&
            stream->queue.items[stream->queue.first].kind == RUN_TAKE)
            return true;
    }
    return false;
}

/* Some stream that can go on; NULL when none can. */
static struct device_stream *choose_stream(struct device *device)
{
    if (device->is_broken || device->is_cut)
        return NULL;
    uint32_t start = device->random ? random_below(device, STREAMS_MAX) : 0;
    for (uint32_t i = 0; i < STREAMS_MAX; i++) {
        struct device_stream *stream = device->streams[(start + i) % STREAMS_MAX];
        if (can_run(device, stream))
            return stream;
    }
    return NULL;
}

static bool stream_idle(const void *stream)
{
    return ((const struct device_stream *)stream)->queue.first ==
           ((const struct device_stream *)stream)->queue.n;
}

static bool event_completed(const void *event)
{
    return ((const struct device_event *)event)->n_completed >=
           ((const struct device_event *)event)->n_recorded;
}

/* Until then, or until the device breaks, or until *given_up (may be NULL). */
static void run_until(struct device *device, bool (*reached)(const void *what), const void *what,
                      const _Atomic bool *given_up)
{
    if (reached(what))
        return;
    fake_memory_open();
    while (!reached(what) && !device->is_broken && (given_up == NULL || !atomic_load(given_up))) {
        struct device_stream *stream = choose_stream(device);
        if (stream != NULL) {
            run_next(device, stream);
            continue;
        }
        if (!waits_for_ranks(device))
            fail("every stream waits for an event that nobody records");
        fake_memory_close();
        pthread_cond_wait(&posted, &lock);
        fake_memory_open();
    }
    fake_memory_close();
}

/* By chance some work runs before anybody waits for it. */
static void run_some(struct device *device)
{
    if (device->random == 0 || random_below(device, 8) > 0)
        return;
    fake_memory_open();
    struct device_stream *stream;
    for (uint32_t n = random_below(device, RUN_EARLY_MAX); n > 0 && (stream = choose_stream(device)); n--)
        run_next(device, stream);
    fake_memory_close();
}

static struct operation *enqueue(struct device *device, struct device_stream *stream,
                                 enum operation_kind kind)
{
    if (stream->capture != NULL && (kind == RUN_COPY || kind == RUN_RECORD || kind == RUN_WAIT))
        fail("only kernels, products, fills and gathering belong into a graph of this program");
    if (stream->capture == NULL)
        run_some(device);
    struct operation *operation =
        operations_append(stream->capture ? &stream->capture->body : &stream->queue);
    operation->kind = kind;
    stream->behind_library = kind == RUN_PRODUCT || kind == RUN_TAKE;
    return operation;
}

/* ---- The table ---- */

/* What the runtime says without a driver, with an old one, without a GPU. */
static err_t fault_of(const char *name)
{
    struct device_missing missing = {.runtime = 13000};
    if (strcmp(name, "device") == 0) {
        missing.driver = 13000;
        missing.says = "no CUDA-capable device is detected";
        missing.visible = getenv("CUDA_VISIBLE_DEVICES");
    } else {
        missing.driver = strcmp(name, "old") == 0 ? 11040 : 0;
        missing.is_too_old = true;
        missing.says = "CUDA driver version is insufficient for CUDA runtime version";
    }
    return device_missing(&missing);
}

static err_t open_device(int ordinal, struct device **out)
{
    LOCKED;
    *out = NULL;
    const char *fault = getenv("BANTAM_FAKE_FAULT");
    if (fault != NULL)
        return fault_of(fault);
    if ((uint64_t)ordinal >= fake_environment("BANTAM_FAKE_DEVICES", 1))
        return err_new(ERR_UNAVAILABLE, "there is no GPU %d", ordinal);
    MAY_FAIL(ERR_UNAVAILABLE, "open");
    struct device *device = mem_alloc(sizeof *device);
    ASSERT(device != NULL);
    struct emu_options options = emu_get_options();
    device->properties = (struct device_properties){
        .capability = options.target,
        .n_multiprocessors = 4,
        .shared_bytes_max = emu_shared_limit(options.target),
        .memory_bytes = fake_state.memory_bytes ? fake_state.memory_bytes
                                                : fake_environment("BANTAM_FAKE_MEMORY_MIB", 4096) << 20,
        .l2_bytes = 4 << 20,
        .driver_version = 13000,
        .runtime_version = 13000,
        .code_targets = "the emulator",
    };
    const char *name = getenv("BANTAM_FAKE_NAME");
    (void)snprintf(device->properties.name, sizeof device->properties.name, "%s",
                   name != NULL ? name : "Emulated GPU");
    device->ordinal = ordinal;
    if (!fake_state.has_break)
        fake_break_set(getenv("BANTAM_FAKE_BREAK"));
    device->random = fake_state.has_seed ? fake_state.seed : fake_environment("BANTAM_FAKE_SEED", 0);
    fake_state.counts.devices++;
    *out = device;
    return err_ok();
}

static void close_device(struct device *device)
{
    LOCKED;
    for (int i = 0; i < STREAMS_MAX; i++)
        if (device->streams[i] != NULL)
            fail("closed with a stream");
    if (fake_state.counts.devices > 1) {
        fake_state.counts.devices--;
        mem_free(device);
        return; /* what is left may be another's */
    }
    if (fake_state.counts.allocations || fake_state.counts.pinned || fake_state.counts.events ||
        fake_state.counts.graphs || fake_state.counts.product_plans)
        fail("closed with memory, events, graphs or products");
    fake_state.counts.devices--;
    mem_free(device);
}

static const struct device_properties *properties(const struct device *device)
{
    return &device->properties;
}

static err_t kernel_shared_bytes(struct device *device, enum cuda_kernel_id kernel, uint32_t *out)
{
    LOCKED;
    (void)device;
    MAY_FAIL(ERR_INTERNAL, "kernel_shared_bytes");
    const char *lacks = getenv("BANTAM_FAKE_LACKS");
    if (lacks != NULL && strncmp(lacks, "cudaError", 9) == 0)
        return device_lacks_code(lacks)
                   ? err_new(ERR_UNAVAILABLE, "has no kernels that run on it (%s)", lacks)
                   : err_new(ERR_INTERNAL, "a kernel: %s", lacks);
    *out = lacks != NULL && strstr(emulated_kernel(kernel)->name, lacks) != NULL ? 0 : 1024;
    return err_ok();
}

static err_t memory_free_bytes(struct device *device, uint64_t *out)
{
    LOCKED;
    MAY_FAIL(ERR_INTERNAL, "memory_free_bytes");
    *out = device->properties.memory_bytes - fake_memory_device_bytes();
    return err_ok();
}

static err_t memory_alloc(struct device *device, size_t size_bytes, void **out)
{
    LOCKED;
    seal(device, "memory_alloc");
    MAY_FAIL(ERR_RESOURCE_EXHAUSTED, "memory_alloc");
    if (size_bytes > device->properties.memory_bytes - fake_memory_device_bytes())
        return err_new(ERR_RESOURCE_EXHAUSTED, "out of device memory");
    fake_state.counts.allocations++;
    *out = fake_memory_alloc(FAKE_MEMORY_DEVICE, size_bytes);
    return err_ok();
}

/* No operation that is still to run touches the block. */
static void check_unused(const struct device *device, const void *memory)
{
    if (device->is_broken || device->is_cut)
        return;
    for (int i = 0; i < STREAMS_MAX; i++) {
        const struct device_stream *stream = device->streams[i];
        for (size_t k = stream ? stream->queue.first : 0; stream && k < stream->queue.n; k++) {
            const struct operation *operation = &stream->queue.items[k];
            if (operation->kind == RUN_KERNEL || operation->kind == RUN_PRODUCT ||
                fake_memory_is_within(memory, operation->to) ||
                fake_memory_is_within(memory, operation->from))
                fail("memory freed that enqueued work may still use");
        }
    }
}

static void memory_free(struct device *device, void *memory)
{
    LOCKED;
    check_unused(device, memory);
    fake_state.counts.allocations--;
    fake_memory_free(memory);
}

static err_t host_alloc(struct device *device, size_t size_bytes, void **out)
{
    LOCKED;
    seal(device, "host_alloc");
    MAY_FAIL(ERR_RESOURCE_EXHAUSTED, "host_alloc");
    fake_state.counts.pinned++;
    *out = fake_memory_alloc(FAKE_MEMORY_PINNED, size_bytes);
    return err_ok();
}

static void host_free(struct device *device, void *memory)
{
    LOCKED;
    check_unused(device, memory);
    fake_state.counts.pinned--;
    fake_memory_free(memory);
}

static err_t stream_create(struct device *device, struct device_stream **out)
{
    LOCKED;
    seal(device, "stream_create");
    MAY_FAIL(ERR_INTERNAL, "stream_create");
    for (int i = 0; i < STREAMS_MAX; i++) {
        if (device->streams[i] != NULL)
            continue;
        *out = device->streams[i] = mem_alloc(sizeof(struct device_stream));
        ASSERT(*out != NULL);
        fake_state.counts.streams++;
        return err_ok();
    }
    fail("too many streams");
}

static void stream_destroy(struct device *device, struct device_stream *stream)
{
    LOCKED;
    bool is_gone = device->is_broken || device->is_cut;
    if ((!stream_idle(stream) && !is_gone) || stream->capture != NULL)
        fail("a stream destroyed with work that has not run");
    for (int i = 0; i < STREAMS_MAX; i++)
        if (device->streams[i] == stream)
            device->streams[i] = NULL;
    fake_state.counts.streams--;
    mem_free(stream->queue.items);
    mem_free(stream);
}

static err_t stream_wait(struct device *device, struct device_stream *stream)
{
    LOCKED;
    if (!stream_idle(stream))
        seal(device, "stream_wait");
    fake_state.counts.waits++;
    if (device->is_reported || device->is_cut)
        fail("a wait for a device that is lost");
    run_until(device, stream_idle, stream, NULL); /* where waiting fails too nothing runs on */
    MAY_FAIL(ERR_INTERNAL, "stream_wait");
    return err_ok();
}

static err_t stream_wait_event(struct device *device, struct device_stream *stream,
                               struct device_event *event)
{
    LOCKED;
    MAY_BREAK(FAKE_BREAK_RECORD, "stream_wait_event");
    struct operation *operation = enqueue(device, stream, RUN_WAIT);
    operation->event = event;
    operation->ticket = event->n_recorded;
    return err_ok();
}

static err_t event_create(struct device *device, struct device_event **out)
{
    LOCKED;
    seal(device, "event_create");
    MAY_FAIL(ERR_INTERNAL, "event_create");
    *out = mem_alloc(sizeof(struct device_event));
    ASSERT(*out != NULL);
    fake_state.counts.events++;
    return err_ok();
}

static void event_destroy(struct device *device, struct device_event *event)
{
    LOCKED;
    if (!event_completed(event) && !device->is_broken && !device->is_cut)
        fail("an event destroyed before it completed");
    fake_state.counts.events--;
    mem_free(event);
}

static err_t event_record(struct device *device, struct device_event *event, struct device_stream *stream)
{
    LOCKED;
    MAY_BREAK(FAKE_BREAK_RECORD, "event_record");
    struct operation *operation = enqueue(device, stream, RUN_RECORD);
    operation->event = event;
    operation->ticket = ++event->n_recorded;
    return err_ok();
}

static err_t event_wait(struct device *device, struct device_event *event, const _Atomic bool *given_up)
{
    LOCKED;
    if (device->is_reported || device->is_cut)
        fail("a wait for a device that is lost");
    fake_state.counts.event_waits++;
    MAY_BREAK(FAKE_BREAK_WAIT, "event_wait");
    run_until(device, event_completed, event, given_up);
    if (device->is_broken)
        return broken(device, "work on the GPU");
    if (!event_completed(event))
        return err_new(ERR_UNAVAILABLE, "another GPU of the group was lost");
    return err_ok();
}

static err_t copy(struct device *device, struct device_stream *stream, void *to, const void *from,
                  size_t size_bytes)
{
    struct operation *operation = enqueue(device, stream, RUN_COPY);
    operation->to = to;
    operation->from = from;
    operation->size_bytes = size_bytes;
    return err_ok();
}

static err_t copy_to_device(struct device *device, struct device_stream *stream, void *to, const void *from,
                            size_t size_bytes)
{
    LOCKED;
    MAY_BREAK(FAKE_BREAK_COPY, "copy_to_device");
    fake_memory_check(FAKE_MEMORY_DEVICE, to, size_bytes, "copy_to_device: the destination");
    fake_memory_check(FAKE_MEMORY_PINNED, from, size_bytes, "copy_to_device: the source");
    return copy(device, stream, to, from, size_bytes);
}

static err_t copy_to_host(struct device *device, struct device_stream *stream, void *to, const void *from,
                          size_t size_bytes)
{
    LOCKED;
    MAY_BREAK(FAKE_BREAK_COPY, "copy_to_host");
    fake_memory_check(FAKE_MEMORY_PINNED, to, size_bytes, "copy_to_host: the destination");
    fake_memory_check(FAKE_MEMORY_DEVICE, from, size_bytes, "copy_to_host: the source");
    return copy(device, stream, to, from, size_bytes);
}

static err_t fill(struct device *device, struct device_stream *stream, void *to, uint8_t byte,
                  size_t size_bytes)
{
    LOCKED;
    MAY_FAIL(ERR_INTERNAL, "fill");
    fake_memory_check(FAKE_MEMORY_DEVICE, to, size_bytes, "fill");
    struct operation *operation = enqueue(device, stream, RUN_FILL);
    operation->to = to;
    operation->byte = byte;
    operation->size_bytes = size_bytes;
    return err_ok();
}

static err_t launch(struct device *device, struct device_stream *stream, const struct launch *launch)
{
    LOCKED;
    device->is_sealed = true;
    MAY_BREAK(FAKE_BREAK_LAUNCH, "launch");
    fake_state.counts.launches += stream->capture == NULL;
    if (launch->kernel >= CUDA_KERNEL_COUNT || launch->args_bytes > ARGS_BYTES_MAX)
        fail("a kernel that is not in the list, or with too large arguments");
    if (launch->grid[0] == 0 || launch->grid[1] == 0 || launch->grid[2] == 0 || launch->grid[1] > 65535 ||
        launch->grid[2] > 65535 || launch->block_threads == 0 || launch->block_threads > 1024 ||
        launch->shared_bytes > device->properties.shared_bytes_max)
        fail("a grid, block or shared memory that no device has");
    if (stream->behind_library && (launch->flags & LAUNCH_PDL))
        fail("a programmatic launch behind a product or a gathering: the library's kernels may not have let "
             "it begin");
    struct operation *operation = enqueue(device, stream, RUN_KERNEL);
    operation->kernel = launch->kernel;
    memcpy(operation->grid, launch->grid, sizeof operation->grid);
    operation->block_threads = launch->block_threads;
    operation->shared_bytes = launch->shared_bytes;
    if (launch_asks_shared(launch, device->shared_bytes[launch->kernel]))
        device->shared_bytes[launch->kernel] = launch->shared_bytes;
    operation->shared_is_asked = launch->shared_bytes <= device->shared_bytes[launch->kernel];
    operation->args_bytes = (uint32_t)launch->args_bytes;
    operation->dependent = launch->flags & LAUNCH_PDL;
    memcpy(operation->args, launch->args, launch->args_bytes);
    return err_ok();
}

static err_t capture_begin(struct device *device, struct device_stream *stream)
{
    LOCKED;
    MAY_BREAK(FAKE_BREAK_GRAPH, "capture_begin");
    MAY_LACK_MEMORY(FAKE_CAPTURE_BEGIN, "capture_begin");
    if (stream->capture != NULL)
        fail("a capture within a capture");
    stream->capture = mem_alloc(sizeof(struct device_graph));
    ASSERT(stream->capture != NULL);
    return err_ok();
}

static err_t capture_outcome(struct device *device, const struct device_graph *graph)
{
    if (is_broken(device, FAKE_BREAK_GRAPH) || device->is_cut) /* something is missing in it */
        return broken(device, "capture_end");
    MAY_LACK_MEMORY(FAKE_CAPTURE_END, "capture_end");
    MAY_FAIL(ERR_INTERNAL, "capture_end");
    if (graph->body.n == 0)
        fail("the end of a capture that has nothing in it");
    return err_ok();
}

static err_t capture_end(struct device *device, struct device_stream *stream, struct device_graph **out)
{
    LOCKED;
    if (stream->capture == NULL)
        fail("the end of a capture that did not begin");
    struct device_graph *graph = stream->capture;
    stream->capture = NULL;
    err_t e = capture_outcome(device, graph);
    if (e.code != ERR_OK) {
        mem_free(graph->body.items);
        mem_free(graph);
        return e;
    }
    *out = graph;
    fake_state.counts.captures++;
    fake_state.counts.graphs++;
    return e;
}

static err_t graph_launch(struct device *device, struct device_graph *graph, struct device_stream *stream)
{
    LOCKED;
    MAY_BREAK(FAKE_BREAK_GRAPH, "graph_launch");
    MAY_LACK_MEMORY(FAKE_GRAPH_LAUNCH, "graph_launch");
    fake_state.counts.graph_launches++;
    for (size_t i = 0; i < graph->body.n; i++) {
        struct operation *operation = enqueue(device, stream, graph->body.items[i].kind);
        *operation = graph->body.items[i];
        fake_state.counts.products_replayed += operation->kind == RUN_PRODUCT;
    }
    return err_ok();
}

static void graph_destroy(struct device *device, struct device_graph *graph)
{
    LOCKED;
    (void)device;
    fake_state.counts.graphs--;
    mem_free(graph->body.items);
    mem_free(graph);
}

/* ---- Products ---- */

static err_t product_library(struct device *device, uint32_t *version)
{
    LOCKED;
    const char *how = getenv("BANTAM_FAKE_PRODUCT");
    if (how != NULL && strcmp(how, "absent") == 0)
        return err_new(ERR_UNAVAILABLE, "cuBLASLt cannot be loaded (there is none)");
    MAY_FAIL(ERR_INTERNAL, "product_library");
    device->has_library = true;
    *version = FAKE_PRODUCT_VERSION;
    return err_ok();
}

static err_t product_create(struct device *device, const struct product_shape *shape,
                            struct device_product **out)
{
    LOCKED;
    *out = NULL;
    ASSERT(device->has_library);
    seal(device, "product_create");
    MAY_FAIL(ERR_INTERNAL, "product_create");
    if (!fake_product_has(shape))
        return err_new(ERR_UNIMPLEMENTED, "the library has no algorithm for %u x %u", shape->n_out,
                       shape->n_in);
    *out = mem_alloc(sizeof **out);
    ASSERT(*out != NULL);
    (*out)->shape = *shape;
    fake_state.counts.product_plans++;
    return err_ok();
}

static void product_destroy(struct device *device, struct device_product *product)
{
    LOCKED;
    (void)device;
    fake_state.counts.product_plans--;
    mem_free(product);
}

static err_t product(struct device *device, struct device_stream *stream, struct device_product *product,
                     const struct product_call *call)
{
    LOCKED;
    MAY_BREAK(FAKE_BREAK_LAUNCH, "product");
    device->is_sealed = true;
    fake_state.counts.products += stream->capture == NULL;
    fake_product_check(&product->shape, call);
    struct operation *operation = enqueue(device, stream, RUN_PRODUCT);
    operation->product = product;
    memcpy(operation->args, call, sizeof *call);
    return err_ok();
}

/* ---- Ranks ---- */

static err_t group_create(struct device *const *devices, uint32_t n_ranks, struct device_group **out)
{
    LOCKED;
    *out = NULL;
    MAY_FAIL(ERR_UNAVAILABLE, "group_create");
    struct device_group *group = mem_alloc(sizeof *group);
    ASSERT(group != NULL);
    *group = (struct device_group){.n_ranks = n_ranks};
    for (uint32_t i = 0; i < n_ranks; i++) {
        ASSERT(devices[i]->group == NULL);
        devices[i]->group = group;
        devices[i]->rank = i;
    }
    *out = group;
    return err_ok();
}

static void group_destroy(struct device_group *group)
{
    LOCKED;
    for (int i = 0; i < 2; i++) {
        if (group->posts[i].n_posted > 0 && !group->is_cut)
            fail("a group destroyed while ranks wait for each other");
        mem_free(group->posts[i].parts);
    }
    mem_free(group);
}

static err_t all_gather(struct device *device, struct device_stream *stream, const void *part, void *whole,
                        size_t part_bytes)
{
    LOCKED;
    if (device->is_cut)
        fail("a gathering in a group that was left");
    MAY_BREAK(FAKE_BREAK_GATHER, "all_gather");
    ASSERT(device->group != NULL && part_bytes > 0);
    fake_memory_check(FAKE_MEMORY_DEVICE, part, part_bytes, "all_gather: the part");
    fake_memory_check(FAKE_MEMORY_DEVICE, whole, device->group->n_ranks * part_bytes,
                      "all_gather: the whole");
    struct operation *operation = enqueue(device, stream, RUN_POST);
    operation->from = part;
    operation->size_bytes = part_bytes;
    operation = enqueue(device, stream, RUN_TAKE);
    operation->to = whole;
    operation->size_bytes = device->group->n_ranks * part_bytes;
    return err_ok();
}

/* Of the rest of its work nothing is needed, and garbage gathered would lead it astray: it is dropped. */
static void group_abort(struct device *device)
{
    LOCKED;
    device->is_cut = device->group->is_cut = true;
    drop_work(device);
    pthread_cond_broadcast(&posted);
}

static const struct device_api fake_device_api = {
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
    .launch = launch,
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
    return &fake_device_api;
}
