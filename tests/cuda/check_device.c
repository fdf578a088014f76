/* The device of the checks: the emulator, with memory that ends at an inaccessible page. */
#include <string.h>
#include "tests/cuda/check_cuda.h"
#include "tests/cuda/emulator/emulator.h"

enum { BUFFERS_MAX = 64 };

static struct guarded buffers[BUFFERS_MAX];
static bool are_late[BUFFERS_MAX]; /* written by kernels, or as if they were */
static size_t n_buffers;
static uint64_t launches[CUDA_KERNEL_COUNT];

void *device_alloc(size_t bytes)
{
    ASSERT(n_buffers < BUFFERS_MAX);
    are_late[n_buffers] = true;
    struct guarded *buffer = &buffers[n_buffers++];
    *buffer = guarded_alloc(round_up(bytes, 16));
    memset(buffer->data, DEVICE_NOISE, buffer->size_bytes);
    return buffer->data;
}

void *device_upload(const void *from, size_t bytes)
{
    void *to = device_alloc(bytes);
    are_late[n_buffers - 1] = false;
    device_write(to, from, bytes);
    return to;
}

void device_is_late(const void *at)
{
    size_t i = 0;
    while (i < n_buffers && buffers[i].data != at)
        i++;
    ASSERT(i < n_buffers);
    are_late[i] = true;
}

void device_write(void *to, const void *from, size_t bytes)
{
    if (bytes > 0)
        memcpy(to, from, bytes);
}

void device_read(void *to, const void *from, size_t bytes)
{
    memcpy(to, from, bytes);
}

bool device_release(void)
{
    bool intact = true;
    while (n_buffers > 0) {
        struct guarded *buffer = &buffers[--n_buffers];
        intact = intact && guarded_intact(buffer);
        guarded_free(buffer);
    }
    return intact;
}

void device_launch(struct cuda_case *c, const struct check_launch *launch)
{
    static const uint32_t targets[] = {80, 86, 89, 90, 120};
    uint32_t any = targets[rng_below(&c->rng, sizeof targets / sizeof targets[0])];
    struct emu_late late[BUFFERS_MAX];
    size_t n_late = 0;
    for (size_t i = 0; i < n_buffers; i++) {
        if (are_late[i])
            late[n_late++] = (struct emu_late){buffers[i].data, buffers[i].size_bytes};
    }
    emu_set_options(&(struct emu_options){
        .seed = 1 + rng_u32(&c->rng), .n_threads = 1, .target = launch->target != 0 ? launch->target : any});
    struct emu_launch emulated = {
        .kernel = emulated_kernel(launch->kernel),
        .block_threads = launch->threads,
        .shared_bytes = launch->shared_bytes,
        .args = launch->args,
        .args_bytes = launch->args_bytes,
        .dependent = true,
        .late = late,
        .n_late = n_late,
    };
    for (int i = 0; i < 3; i++)
        emulated.grid[i] = launch->grid[i] == 0 ? 1 : launch->grid[i];
    emu_launch(&emulated);
    launches[launch->kernel]++;
}

uint64_t device_launches(enum cuda_kernel_id kernel)
{
    return launches[kernel];
}

bool device_refused(void)
{
    return false;
}

const char *device_description(void)
{
    return "the emulator";
}
