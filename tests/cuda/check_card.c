/* The device of the checks over the table of device functions: a card, or the fake device. One arena, taken
 * once, since thousands of runs want a few buffers each. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "kernels/cuda/device_api.h"
#include "kernels/cuda/linear_pack.h"
#include "tests/cuda/check_cuda.h"

enum {
    BUFFERS_MAX = 64,
    CHUNKS_MAX = 64,
    CHUNK_BYTES = 2 << 20, /* a larger buffer has a chunk of its own */
    CANARY = 0xa5,
    CANARY_BYTES = 256, /* on both sides; keeps what device memory is aligned to */
    STAGING_BYTES = 1 << 20,
};

struct chunk {
    uint8_t *memory;
    size_t size_bytes, used;
};

static struct {
    const struct device_api *api;
    struct device *device;
    struct device_stream *stream;
    uint8_t *staging; /* pinned */
    struct chunk chunks[CHUNKS_MAX];
    size_t n_chunks;
    struct {
        uint8_t *data;
        size_t size_bytes;
    } buffers[BUFFERS_MAX];
    size_t n_buffers;
    uint64_t launches[CUDA_KERNEL_COUNT];
    bool refused;
    char description[160];
} card;

/* A failure here leaves nothing to check. */
static void must(err_t e, const char *what)
{
    if (e.code == ERR_OK)
        return;
    fprintf(stderr, "checkkernel: %s: %s\n", what, e.message);
    exit(2);
}

static void card_open(void)
{
    if (card.api != NULL)
        return;
    card.api = device_api();
    must(card.api->open(0, &card.device), "opening the device");
    void *staging;
    must(card.api->stream_create(card.device, &card.stream), "a stream");
    must(card.api->host_alloc(card.device, STAGING_BYTES, &staging), "pinned memory");
    card.staging = staging;
    const struct device_properties *p = card.api->properties(card.device);
    snprintf(card.description, sizeof card.description, "%s, compute capability %u.%u", p->name,
             p->capability / 10, p->capability % 10);
}

static void card_wait(const char *what)
{
    must(card.api->stream_wait(card.device, card.stream), what);
}

static void card_fill(uint8_t *at, uint8_t byte, size_t size_bytes)
{
    must(card.api->fill(card.device, card.stream, at, byte, size_bytes), "filling memory");
}

/* Room for so many bytes. */
static uint8_t *chunk_take(size_t size_bytes)
{
    struct chunk *chunk = card.chunks;
    while (chunk < card.chunks + card.n_chunks && chunk->size_bytes - chunk->used < size_bytes)
        chunk++;
    if (chunk == card.chunks + card.n_chunks) {
        ASSERT(card.n_chunks < CHUNKS_MAX);
        card.n_chunks++;
        chunk->size_bytes = size_bytes < CHUNK_BYTES ? CHUNK_BYTES : size_bytes;
        void *memory;
        must(card.api->memory_alloc(card.device, chunk->size_bytes, &memory), "device memory");
        chunk->memory = memory;
    }
    chunk->used += size_bytes;
    return chunk->memory + chunk->used - size_bytes;
}

void *device_alloc(size_t bytes)
{
    card_open();
    ASSERT(card.n_buffers < BUFFERS_MAX);
    size_t padded = round_up(bytes, CANARY_BYTES);
    uint8_t *begin = chunk_take(padded + 2 * CANARY_BYTES), *data = begin + CANARY_BYTES;
    card_fill(begin, CANARY, CANARY_BYTES);
    if (bytes > 0)
        card_fill(data, DEVICE_NOISE, bytes);
    card_fill(data + bytes, CANARY, padded - bytes + CANARY_BYTES);
    card.buffers[card.n_buffers].data = data;
    card.buffers[card.n_buffers++].size_bytes = bytes;
    return data;
}

void *device_upload(const void *from, size_t bytes)
{
    void *to = device_alloc(bytes);
    device_write(to, from, bytes);
    return to;
}

void device_is_late(const void *at)
{
    (void)at; /* the card finds no races */
}

void device_write(void *to, const void *from, size_t bytes)
{
    for (size_t at = 0; at < bytes; at += STAGING_BYTES) {
        size_t n = bytes - at < STAGING_BYTES ? bytes - at : STAGING_BYTES;
        memcpy(card.staging, (const uint8_t *)from + at, n);
        must(card.api->copy_to_device(card.device, card.stream, (uint8_t *)to + at, card.staging, n),
             "a copy");
        card_wait("a copy to the device");
    }
}

void device_read(void *to, const void *from, size_t bytes)
{
    for (size_t at = 0; at < bytes; at += STAGING_BYTES) {
        size_t n = bytes - at < STAGING_BYTES ? bytes - at : STAGING_BYTES;
        must(card.api->copy_to_host(card.device, card.stream, card.staging, (const uint8_t *)from + at, n),
             "a copy");
        card_wait("a copy from the device");
        memcpy((uint8_t *)to + at, card.staging, n);
    }
}

static bool is_canary(const uint8_t *at, size_t bytes)
{
    uint8_t canary[2 * CANARY_BYTES];
    device_read(canary, at, bytes);
    for (size_t i = 0; i < bytes; i++) {
        if (canary[i] != CANARY)
            return false;
    }
    return true;
}

bool device_release(void)
{
    bool intact = true;
    for (size_t i = 0; i < card.n_buffers; i++) {
        const uint8_t *data = card.buffers[i].data;
        size_t bytes = card.buffers[i].size_bytes;
        intact = intact && is_canary(data - CANARY_BYTES, CANARY_BYTES) &&
                 is_canary(data + bytes, round_up(bytes, CANARY_BYTES) - bytes + CANARY_BYTES);
    }
    card.n_buffers = 0;
    for (size_t i = 0; i < card.n_chunks; i++)
        card.chunks[i].used = 0;
    return intact;
}

/* Kernels of e4m3 are for one kind of product each, and trap on other cards. */
static bool card_fits(uint32_t target)
{
    uint32_t capability = card.api->properties(card.device)->capability;
    if (target == 86 || target == 89)
        return linear_e4m3_kind(capability) == linear_e4m3_kind(target);
    return target <= 80 || target == capability;
}

void device_launch(struct cuda_case *c, const struct check_launch *launch)
{
    (void)c;
    card_open();
    if (!card_fits(launch->target)) {
        card.refused = true;
        return;
    }
    struct launch on_card = {
        .kernel = launch->kernel,
        .block_threads = launch->threads,
        .shared_bytes = launch->shared_bytes,
        .args = launch->args,
        .args_bytes = launch->args_bytes,
        .flags = LAUNCH_PDL,
    };
    for (int i = 0; i < 3; i++)
        on_card.grid[i] = launch->grid[i] == 0 ? 1 : launch->grid[i];
    must(card.api->launch(card.device, card.stream, &on_card), "a launch");
    card.launches[launch->kernel]++;
}

uint64_t device_launches(enum cuda_kernel_id kernel)
{
    return card.launches[kernel];
}

bool device_refused(void)
{
    bool refused = card.refused;
    card.refused = false;
    return refused;
}

const char *device_description(void)
{
    card_open();
    return card.description;
}
