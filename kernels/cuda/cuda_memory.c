/* Device memory in one piece, and the pinned buffers that weights and tables are uploaded through. */
#include <string.h>
#include "kernels/cuda/cuda_backend.h"

#define MIB (1024.0 * 1024.0)

static err_t create_stages(struct cuda_backend *cuda)
{
    /* A panel of rows of the widest weight must fit, in the widest format. */
    size_t panel_bytes =
        CUDA_PANEL_ROWS_MAX * (cuda->needs.widest_in * sizeof(float) + CUDA_ALIGN) + CUDA_ALIGN;
    cuda->stage_bytes = panel_bytes > CUDA_STAGE_BYTES_MIN ? panel_bytes : CUDA_STAGE_BYTES_MIN;
    for (int i = 0; i < CUDA_STAGES; i++) {
        void *memory;
        TRY(cuda->api->event_create(cuda->device, &cuda->stages[i].uploaded));
        TRY(cuda->api->host_alloc(cuda->device, cuda->stage_bytes, &memory));
        cuda->stages[i].memory = memory;
    }
    return err_ok();
}

err_t cuda_memory_reserve(struct cuda_backend *cuda, uint64_t total_bytes)
{
    void *base;
    uint64_t free_bytes = 0;
    TRY(cuda->api->memory_free_bytes(cuda->device, &free_bytes));
    err_t e = cuda->api->memory_alloc(cuda->device, total_bytes, &base);
    if (e.code == ERR_RESOURCE_EXHAUSTED)
        return err_prefix(
            e,
            "%s: the plan takes %.1f MiB and %.1f MiB are free; --memory-limit lowers the plan, "
            "--device cpu runs without the GPU",
            cuda->properties->name, (double)total_bytes / MIB, (double)free_bytes / MIB);
    TRY(e);
    cuda->arena = (struct cuda_arena){.base = base, .size_bytes = total_bytes};
    return create_stages(cuda);
}

void cuda_memory_release(struct cuda_backend *cuda)
{
    for (int i = 0; i < CUDA_STAGES; i++) {
        if (cuda->stages[i].memory != NULL)
            cuda->api->host_free(cuda->device, cuda->stages[i].memory);
        if (cuda->stages[i].uploaded != NULL)
            cuda->api->event_destroy(cuda->device, cuda->stages[i].uploaded);
    }
    if (cuda->arena.base != NULL)
        cuda->api->memory_free(cuda->device, cuda->arena.base);
    cuda->arena = (struct cuda_arena){0};
}

err_t cuda_take(struct cuda_backend *cuda, size_t n, size_t element_bytes, const char *what, void **out)
{
    struct cuda_arena *arena = &cuda->arena;
    size_t bytes = cuda_bytes(n, element_bytes);
    *out = NULL;
    if (bytes > arena->size_bytes - arena->used_bytes)
        return err_new(ERR_RESOURCE_EXHAUSTED,
                       "no device memory for %s: %zu bytes of %zu planned are left, %zu are wanted", what,
                       arena->size_bytes - arena->used_bytes, arena->size_bytes, bytes);
    *out = arena->base + arena->used_bytes;
    arena->used_bytes += bytes;
    return err_ok();
}

err_t cuda_stage_begin(struct cuda_backend *cuda, uint8_t **memory)
{
    struct cuda_stage *stage = &cuda->stages[cuda->next_stage];
    *memory = stage->memory;
    return cuda->api->event_wait(cuda->device, stage->uploaded, NULL);
}

err_t cuda_stage_end(struct cuda_backend *cuda)
{
    struct cuda_stage *stage = &cuda->stages[cuda->next_stage];
    cuda->next_stage = (cuda->next_stage + 1) % CUDA_STAGES;
    return cuda->api->event_record(cuda->device, stage->uploaded, cuda->stream);
}

err_t cuda_upload(struct cuda_backend *cuda, void *to, const void *from, size_t size_bytes)
{
    for (size_t done = 0; done < size_bytes;) {
        size_t n = size_bytes - done < cuda->stage_bytes ? size_bytes - done : cuda->stage_bytes;
        uint8_t *stage;
        TRY(cuda_stage_begin(cuda, &stage));
        memcpy(stage, (const uint8_t *)from + done, n);
        TRY(cuda->api->copy_to_device(cuda->device, cuda->stream, (uint8_t *)to + done, stage, n));
        TRY(cuda_stage_end(cuda));
        done += n;
    }
    return err_ok();
}
