/* Activations and vectors of the CPU backend. */
#include <string.h>
#include "base/alloc.h"
#include "kernels/cpu_backend.h"
#include "kernels/cpu_memory.h"

/* Rows are a cache line longer than they need be: strides of a power of two would put all rows of a tile
 * into the same sets of the cache. */
enum { ROW_PAD_BYTES = 64 };

/* Strides of an act's rows, and where its parts begin in one block of memory. */
struct act_layout {
    size_t stride, tile_stride, q_stride, q_block_stride;
    size_t blocks, q, q_scale;
    size_t total;
};

static bool act_layout(const struct cpu_backend *cpu, size_t max_rows, size_t width,
                       struct act_layout *layout)
{
    const bool tiles = cpu->table.arithmetic == ARITHMETIC_TILES;
    enum { FLOATS = ROW_PAD_BYTES / 4 };
    size_t row_bytes, n_rows;
    if (!checked_add(width, (size_t)4096, &row_bytes) || !checked_mul(row_bytes, 8, &row_bytes) ||
        !checked_add(max_rows, (size_t)QUANT_TILE_ROWS, &n_rows) ||
        !checked_mul(row_bytes, n_rows, &row_bytes))
        return false; /* a bound on everything below */
    *layout = (struct act_layout){.stride = round_up(width, FLOATS) + FLOATS};
    size_t total = max_rows * layout->stride * sizeof(float);
    /* The forms stand in the same memory: an act has one at a time. */
    const size_t forms = round_up(total, CPU_MEMORY_ALIGN);
    if (width % QUANT_BLOCK == 0) {
        layout->tile_stride = width / QUANT_BLOCK * QUANT_TILE_ROWS;
        layout->blocks = forms;
        total = forms + div_up(max_rows, QUANT_TILE_ROWS) * layout->tile_stride * sizeof(struct quant_block);
    }
    if (tiles) {
        layout->q_stride = round_up(width, TILE_INPUTS) * sizeof(uint16_t) + ROW_PAD_BYTES;
        layout->q_block_stride = round_up(width / QUANT_BLOCK, FLOATS);
        layout->q = forms;
        layout->q_scale = layout->q + max_rows * layout->q_stride;
        size_t end = layout->q_scale + max_rows * layout->q_block_stride * sizeof(float);
        total = end > total ? end : total;
    }
    layout->total = total;
    return true;
}

size_t cpu_act_bytes(const struct backend *backend, enum act_role role, size_t max_rows, size_t width)
{
    (void)role;
    struct act_layout layout;
    return act_layout((const struct cpu_backend *)backend, max_rows, width, &layout)
               ? sizeof(struct act) + layout.total
               : SIZE_MAX;
}

err_t cpu_act_create(struct backend *backend, enum act_role role, size_t max_rows, size_t width,
                     struct act **out)
{
    (void)role;
    ASSERT(max_rows > 0 && width > 0);
    *out = NULL;
    struct act_layout layout;
    bool fits = act_layout(cpu_of(backend), max_rows, width, &layout);
    struct act *act = mem_alloc(sizeof *act);
    uint8_t *memory = fits && act != NULL ? cpu_memory_alloc(layout.total) : NULL;
    if (memory == NULL) {
        mem_free(act);
        return err_new(ERR_RESOURCE_EXHAUSTED, "no memory for activations of %zu rows by %zu", max_rows,
                       width);
    }
    *act = (struct act){.max_rows = max_rows,
                        .width = width,
                        .stride = layout.stride,
                        .values = (float *)memory,
                        .tile_stride = layout.tile_stride,
                        .q_stride = layout.q_stride,
                        .q_block_stride = layout.q_block_stride};
    if (layout.tile_stride > 0)
        act->blocks = (struct quant_block *)(void *)(memory + layout.blocks);
    if (layout.q_stride > 0) {
        act->q = (int8_t *)(memory + layout.q);
        act->q_scale = (float *)(memory + layout.q_scale);
    }
    *out = act;
    return err_ok();
}

void cpu_act_destroy(struct act *act)
{
    if (act == NULL)
        return;
    cpu_memory_free(act->values);
    mem_free(act);
}

void cpu_act_write(struct act *act, size_t first_row, size_t n_rows, const float *values)
{
    ASSERT(first_row <= act->max_rows && n_rows <= act->max_rows - first_row);
    for (size_t r = 0; r < n_rows; r++)
        memcpy(act_row(act, first_row + r), values + r * act->width, act->width * sizeof(float));
    act->n_quantized = 0;
}

void cpu_act_read(const struct act *act, size_t first_row, size_t n_rows, float *values)
{
    ASSERT(first_row <= act->max_rows && n_rows <= act->max_rows - first_row);
    for (size_t r = 0; r < n_rows; r++)
        memcpy(values + r * act->width, act_row(act, first_row + r), act->width * sizeof(float));
}

size_t cpu_vector_bytes(const struct backend *backend, size_t n)
{
    (void)backend;
    return round_up(n * sizeof(float), CPU_MEMORY_ALIGN);
}

err_t cpu_vector_create(struct backend *backend, const float *values, size_t n, struct vector **out)
{
    (void)backend;
    *out = NULL;
    struct vector *vector = mem_alloc(sizeof *vector);
    float *copy = vector == NULL ? NULL : cpu_memory_alloc(n * sizeof(float));
    if (copy == NULL) {
        mem_free(vector);
        return err_new(ERR_RESOURCE_EXHAUSTED, "no memory for a vector of %zu", n);
    }
    memcpy(copy, values, n * sizeof(float));
    *vector = (struct vector){n, copy};
    *out = vector;
    return err_ok();
}

void cpu_vector_destroy(struct vector *vector)
{
    if (vector == NULL)
        return;
    cpu_memory_free(vector->values);
    mem_free(vector);
}
