/* Packing of weights into the panels of packed.h, and reading rows back. */
#include <math.h>
#include <stdatomic.h>
#include <string.h>
#include "base/alloc.h"
#include "base/float16.h"
#include "kernels/cpu_backend.h"
#include "kernels/cpu_memory.h"

static size_t count_panels(const struct weight_desc *desc)
{
    return div_up(desc->n_out, PANEL_OUTPUTS);
}

static void check_desc(const struct weight_desc *desc)
{
    ASSERT(desc->n_out > 0 && desc->n_in > 0);
    ASSERT(!weight_is_quantized(desc->format) ||
           (desc->group > 0 && desc->group % QUANT_BLOCK == 0 && desc->n_in % desc->group == 0));
}

/* SIZE_MAX: beyond the address space. */
static size_t panels_bytes(const struct weight_desc *desc)
{
    size_t bound;
    if (desc->n_out > SIZE_MAX - PANEL_OUTPUTS || !checked_mul(desc->n_in, 8 * PANEL_OUTPUTS, &bound) ||
        !checked_mul(bound, count_panels(desc), &bound))
        return SIZE_MAX;
    return count_panels(desc) * round_up(panel_bytes(desc->format, desc->n_in, desc->group), 64);
}

size_t cpu_weight_bytes(const struct backend *backend, const struct weight_desc *desc)
{
    (void)backend;
    check_desc(desc);
    size_t bytes = panels_bytes(desc), bias = desc->bias == NULL ? 0 : count_panels(desc) * PANEL_OUTPUTS * 4;
    return checked_add(bytes, bias + sizeof(struct weight), &bytes) ? bytes : SIZE_MAX;
}

struct pack_job {
    struct cpu_backend *cpu;
    const struct weight_desc *desc;
    struct weight *weight;
    float **rows;          /* [n_threads][n_in] */
    int8_t **codes;        /* [n_threads][n_in] */
    atomic_size_t bad_row; /* lowest row that cannot be represented; SIZE_MAX = none */
};

static void pack_float_row(const struct weight *weight, const float *row, uint8_t *panel, size_t o)
{
    for (size_t k = 0; k < weight->n_in; k++) {
        size_t at = k * PANEL_OUTPUTS + o;
        if (weight->format == WEIGHT_F32)
            ((float *)panel)[at] = row[k];
        else
            ((uint16_t *)panel)[at] =
                weight->format == WEIGHT_BF16 ? bf16_from_f32(row[k]) : f16_from_f32(row[k]);
    }
}

static void pack_quantized_row(const struct kernel_table *table, const struct weight *weight,
                               const float *row, int8_t *codes, uint8_t *panel, size_t o)
{
    bool int8 = weight->format == WEIGHT_INT8;
    quantize_group_fn *quantize_group = int8 ? table->quantize_group_int8 : table->quantize_group_int4;
    for (size_t k = 0; k < weight->n_in; k += weight->group) {
        uint16_t scale = quantize_group(row + k, weight->group, codes);
        ((uint16_t *)panel)[o] = scale;
        panel += PANEL_SCALE_BYTES;
        for (size_t i = 0; i < weight->group; i++) {
            size_t in_block = i % QUANT_BLOCK;
            uint8_t *block = panel + i / QUANT_BLOCK * quant_block_bytes(weight->format);
            if (int8)
                block[int8_code_offset(o, in_block)] = (uint8_t)(codes[i] + INT8_OFFSET);
            else
                block[int4_code_offset(o, in_block)] |=
                    (uint8_t)((codes[i] + INT4_OFFSET) << (in_block < QUANT_BLOCK / 2 ? 0 : 4));
        }
        panel += weight->group / QUANT_BLOCK * quant_block_bytes(weight->format);
    }
}

/* f16 and codes cannot hold everything that f32 can; f32 and bf16 take what comes. */
static bool row_fits(enum weight_format format, const float *row, size_t n)
{
    if (format == WEIGHT_F32 || format == WEIGHT_BF16)
        return true;
    float limit = format == WEIGHT_F16 ? 65504.0f : 3e38f;
    bool fits = true;
    for (size_t i = 0; i < n; i++)
        fits &= fabsf(row[i]) <= limit; /* false for NaN */
    return fits;
}

static void pack_panels(void *context, int thread_index, int n_threads)
{
    struct pack_job *job = context;
    const struct weight *weight = job->weight;
    float *row = job->rows[thread_index];
    size_t begin, end;
    /* The split of the linear op: memory is first touched by the thread that will read it. */
    thread_split(weight->n_panels, 1, thread_index, n_threads, &begin, &end);
    for (size_t p = begin; p < end; p++) {
        for (size_t o = 0; o < PANEL_OUTPUTS; o++) {
            size_t index = p * PANEL_OUTPUTS + o;
            memset(row, 0, weight->n_in * sizeof(float));
            if (index < weight->n_out)
                job->desc->row(job->desc->row_context, index, row);
            if (!row_fits(weight->format, row, weight->n_in)) {
                size_t lowest = atomic_load(&job->bad_row);
                while (index < lowest && !atomic_compare_exchange_weak(&job->bad_row, &lowest, index)) {
                }
                continue;
            }
            uint8_t *panel = weight->panels + p * weight->panel_bytes;
            if (weight_is_quantized(weight->format))
                pack_quantized_row(&job->cpu->table, weight, row, job->codes[thread_index], panel, o);
            else
                pack_float_row(weight, row, panel, o);
        }
    }
}

static err_t weight_alloc(const struct weight_desc *desc, struct weight **out)
{
    size_t bytes = panels_bytes(desc), n_panels = count_panels(desc);
    struct weight *weight = mem_alloc(sizeof *weight);
    *out = weight;
    if (weight != NULL) {
        *weight = (struct weight){.format = desc->format,
                                  .n_out = desc->n_out,
                                  .n_in = desc->n_in,
                                  .group = desc->group,
                                  .n_panels = n_panels};
        if (bytes != SIZE_MAX) {
            weight->panel_bytes = bytes / n_panels;
            weight->panels = cpu_memory_alloc(bytes);
            if (desc->bias != NULL)
                weight->bias = cpu_memory_alloc(n_panels * PANEL_OUTPUTS * sizeof(float));
        }
    }
    if (weight == NULL || weight->panels == NULL || (desc->bias != NULL && weight->bias == NULL))
        return err_new(ERR_RESOURCE_EXHAUSTED, "no memory for weight %s: %zu bytes", desc->name, bytes);
    if (desc->bias != NULL)
        memcpy(weight->bias, desc->bias, desc->n_out * sizeof(float));
    return err_ok();
}

/* Row buffers of every thread, in one block behind the two tables of pointers. */
static void *pack_buffers(struct pack_job *job, size_t n_threads, size_t n_in)
{
    size_t tables = n_threads * 2 * sizeof(void *);
    size_t row_bytes = round_up(n_in * sizeof(float), 64), code_bytes = round_up(n_in, 64);
    char *block = mem_alloc(tables + n_threads * (row_bytes + code_bytes));
    if (block == NULL)
        return NULL;
    job->rows = (float **)block;
    job->codes = (int8_t **)(job->rows + n_threads);
    for (size_t i = 0; i < n_threads; i++) {
        job->rows[i] = (float *)(block + tables + i * row_bytes);
        job->codes[i] = (int8_t *)(block + tables + n_threads * row_bytes + i * code_bytes);
    }
    return block;
}

err_t cpu_weight_pack(struct backend *backend, const struct weight_desc *desc, struct weight **out)
{
    *out = NULL;
    if (desc->format == WEIGHT_FP8)
        return err_new(ERR_UNIMPLEMENTED,
                       "weight %s: the CPU has no fp8 kernels: --quantization fp8 needs --device cuda",
                       desc->name);
    check_desc(desc);
    struct cpu_backend *cpu = cpu_of(backend);
    struct pack_job job = {.cpu = cpu, .desc = desc, .bad_row = SIZE_MAX};
    err_t e = weight_alloc(desc, &job.weight);
    void *buffers = e.code == ERR_OK ? pack_buffers(&job, (size_t)cpu->n_threads, desc->n_in) : NULL;
    if (e.code == ERR_OK && buffers == NULL)
        e = err_new(ERR_RESOURCE_EXHAUSTED, "no memory to pack weight %s", desc->name);
    if (e.code == ERR_OK) {
        cpu_run(cpu, true, pack_panels, &job);
        if (weight_is_quantized(desc->format))
            cpu->dispatches[desc->format == WEIGHT_INT8 ? KERNEL_quantize_group_int8
                                                        : KERNEL_quantize_group_int4]++;
        size_t bad_row = atomic_load(&job.bad_row);
        if (bad_row != SIZE_MAX)
            e = err_new(ERR_DATA_LOSS,
                        "weight %s: row %zu holds NaN, infinity or a value beyond the range of %s",
                        desc->name, bad_row, desc->format == WEIGHT_F16 ? "f16" : "quantisation");
    }
    mem_free(buffers);
    if (e.code != ERR_OK) {
        cpu_weight_destroy(job.weight);
        job.weight = NULL;
    }
    *out = job.weight;
    return e;
}

void cpu_weight_destroy(struct weight *weight)
{
    if (weight == NULL)
        return;
    cpu_memory_free(weight->panels);
    cpu_memory_free(weight->bias);
    mem_free(weight);
}

static void read_quantized_row(const struct weight *weight, const uint8_t *panel, size_t o, float scale,
                               float *out)
{
    bool int8 = weight->format == WEIGHT_INT8;
    for (size_t k = 0; k < weight->n_in; k += weight->group) {
        float group_scale = f16_to_f32(((const uint16_t *)panel)[o]);
        panel += PANEL_SCALE_BYTES;
        for (size_t i = 0; i < weight->group; i++) {
            size_t in_block = i % QUANT_BLOCK;
            const uint8_t *block = panel + i / QUANT_BLOCK * quant_block_bytes(weight->format);
            int code;
            if (int8)
                code = block[int8_code_offset(o, in_block)] - INT8_OFFSET;
            else
                code = (block[int4_code_offset(o, in_block)] >> (in_block < QUANT_BLOCK / 2 ? 0 : 4) & 15) -
                       INT4_OFFSET;
            out[k + i] = (float)code * group_scale * scale;
        }
        panel += weight->group / QUANT_BLOCK * quant_block_bytes(weight->format);
    }
}

void cpu_weight_read_row(const struct weight *weight, size_t row, float scale, float *out)
{
    ASSERT(row < weight->n_out);
    const uint8_t *panel = weight->panels + row / PANEL_OUTPUTS * weight->panel_bytes;
    size_t o = row % PANEL_OUTPUTS;
    if (weight_is_quantized(weight->format)) {
        read_quantized_row(weight, panel, o, scale, out);
        return;
    }
    for (size_t k = 0; k < weight->n_in; k++) {
        size_t at = k * PANEL_OUTPUTS + o;
        float value;
        if (weight->format == WEIGHT_F32)
            value = ((const float *)panel)[at];
        else if (weight->format == WEIGHT_BF16)
            value = bf16_to_f32(((const uint16_t *)panel)[at]);
        else
            value = f16_to_f32(((const uint16_t *)panel)[at]);
        out[k] = value * scale;
    }
}
