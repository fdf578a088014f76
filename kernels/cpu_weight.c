/* Packing of weights into the panels of packed.h, and reading rows back. */
#include <math.h>
#include <stdatomic.h>
#include <string.h>
#include "base/alloc.h"
#include "base/float16.h"
#include "base/float8.h"
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
    ASSERT(desc->format != WEIGHT_FP8 || desc->group == desc->n_in);
    ASSERT(desc->format != WEIGHT_UINT4 || desc->codes != NULL);
}

/* Bytes of a float for every output, those past n_out included. */
static size_t outputs_bytes(const struct weight_desc *desc)
{
    return count_panels(desc) * PANEL_OUTPUTS * sizeof(float);
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
    size_t bytes = panels_bytes(desc), bias = desc->bias == NULL ? 0 : outputs_bytes(desc);
    size_t scale = desc->format == WEIGHT_FP8 ? outputs_bytes(desc) : 0;
    return checked_add(bytes, bias + scale + sizeof(struct weight), &bytes) ? bytes : SIZE_MAX;
}

struct pack_job {
    struct cpu_backend *cpu;
    const struct weight_desc *desc;
    struct weight *weight;
    float **rows;          /* [n_threads][n_in] */
    int8_t **codes;        /* [n_threads][2 * n_in]: the second half for zero points */
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

/* One group of output o. */
static void pack_group(const struct weight *weight, uint16_t scale, uint16_t zero, const int8_t *codes,
                       uint8_t *panel, size_t o)
{
    ((uint16_t *)panel)[o] = scale;
    if (weight->format == WEIGHT_UINT4)
        ((uint16_t *)panel)[PANEL_OUTPUTS + o] = zero;
    panel += group_header_bytes(weight->format);
    int offset = weight->format == WEIGHT_INT4 ? INT4_OFFSET : 0;
    for (size_t i = 0; i < weight->group; i++) {
        size_t in_block = i % QUANT_BLOCK;
        uint8_t *block = panel + i / QUANT_BLOCK * quant_block_bytes(weight->format);
        if (weight->format == WEIGHT_INT8)
            block[int8_code_offset(o, in_block)] = (uint8_t)(codes[i] + INT8_OFFSET);
        else
            block[int4_code_offset(o, in_block)] |=
                (uint8_t)((codes[i] + offset) << (in_block < QUANT_BLOCK / 2 ? 0 : 4));
    }
}

static size_t group_bytes(const struct weight *weight)
{
    return panel_bytes(weight->format, weight->group, weight->group);
}

static void pack_quantized_row(const struct kernel_table *table, const struct weight *weight,
                               const float *row, int8_t *codes, uint8_t *panel, size_t o)
{
    quantize_group_fn *quantize_group =
        weight->format == WEIGHT_INT8 ? table->quantize_group_int8 : table->quantize_group_int4;
    for (size_t k = 0; k < weight->n_in; k += weight->group, panel += group_bytes(weight)) {
        uint16_t scale = quantize_group(row + k, weight->group, codes);
        pack_group(weight, scale, 0, codes, panel, o);
    }
}

/* Ready codes; false: a scale beyond the range of f16. */
static bool pack_given_row(struct weight *weight, const struct weight_codes *given, uint8_t *panel,
                           size_t index)
{
    size_t o = index % PANEL_OUTPUTS;
    if (weight->scale != NULL) {
        weight->scale[index] = given->scales[0];
        for (size_t k = 0; k < weight->n_in; k++)
            ((uint16_t *)panel)[k * PANEL_OUTPUTS + o] =
                bf16_from_f32(f8_e4m3_to_f32((uint8_t)given->codes[k]));
        return true;
    }
    bool fits = true;
    for (size_t g = 0; g < weight->n_in / weight->group; g++, panel += group_bytes(weight)) {
        fits &= fabsf(given->scales[g]) <= 65504.0f;
        pack_group(weight, f16_from_f32(given->scales[g]), given->zeros[g], given->codes + g * weight->group,
                   panel, o);
    }
    return fits;
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

/* Outputs past the last are zero weights. False: the row cannot be represented. */
static bool pack_row(struct pack_job *job, size_t index, float *row, int8_t *codes)
{
    const struct weight_desc *desc = job->desc;
    struct weight *weight = job->weight;
    uint8_t *panel = weight->panels + index / PANEL_OUTPUTS * weight->panel_bytes;
    bool exists = index < weight->n_out;
    memset(row, 0, weight->n_in * sizeof(float));
    if (desc->codes != NULL) {
        memset(codes, 0, 2 * weight->n_in);
        struct weight_codes given = {codes, row, (uint8_t *)codes + weight->n_in};
        if (exists)
            desc->codes(desc->row_context, index, &given);
        return pack_given_row(weight, &given, panel, index);
    }
    if (exists)
        desc->row(desc->row_context, index, row);
    if (!row_fits(weight->format, row, weight->n_in))
        return false;
    if (weight_is_quantized(weight->format))
        pack_quantized_row(&job->cpu->table, weight, row, codes, panel, index % PANEL_OUTPUTS);
    else
        pack_float_row(weight, row, panel, index % PANEL_OUTPUTS);
    return true;
}

static void pack_panels(void *context, int thread_index, int n_threads)
{
    struct pack_job *job = context;
    size_t begin, end;
    /* The split of the linear op: memory is first touched by the thread that will read it. */
    thread_split(job->weight->n_panels, 1, thread_index, n_threads, &begin, &end);
    for (size_t index = begin * PANEL_OUTPUTS; index < end * PANEL_OUTPUTS; index++) {
        if (pack_row(job, index, job->rows[thread_index], job->codes[thread_index]))
            continue;
        size_t lowest = atomic_load(&job->bad_row);
        while (index < lowest && !atomic_compare_exchange_weak(&job->bad_row, &lowest, index)) {
        }
    }
}

static err_t weight_alloc(const struct weight_desc *desc, struct weight **out)
{
    size_t bytes = panels_bytes(desc), n_panels = count_panels(desc);
    struct weight *weight = mem_alloc(sizeof *weight);
    *out = weight;
    if (weight != NULL) {
        *weight = (struct weight){.format = desc->format == WEIGHT_FP8 ? WEIGHT_BF16 : desc->format,
                                  .n_out = desc->n_out,
                                  .n_in = desc->n_in,
                                  .group = desc->group,
                                  .n_panels = n_panels};
        if (bytes != SIZE_MAX) {
            weight->panel_bytes = bytes / n_panels;
            weight->panels = cpu_memory_alloc(bytes);
            if (desc->bias != NULL)
                weight->bias = cpu_memory_alloc(outputs_bytes(desc));
            if (desc->format == WEIGHT_FP8)
                weight->scale = cpu_memory_alloc(outputs_bytes(desc));
        }
    }
    if (weight == NULL || weight->panels == NULL || (desc->bias != NULL && weight->bias == NULL) ||
        (desc->format == WEIGHT_FP8 && weight->scale == NULL))
        return err_new(ERR_RESOURCE_EXHAUSTED, "no memory for weight %s: %zu bytes", desc->name, bytes);
    if (desc->bias != NULL)
        memcpy(weight->bias, desc->bias, desc->n_out * sizeof(float));
    return err_ok();
}

/* Row buffers of every thread, in one block behind the two tables of pointers. */
static void *pack_buffers(struct pack_job *job, size_t n_threads, size_t n_in)
{
    size_t tables = n_threads * 2 * sizeof(void *);
    size_t row_bytes = round_up(n_in * sizeof(float), 64), code_bytes = round_up(2 * n_in, 64);
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
    if (desc->format == WEIGHT_FP8 && desc->codes == NULL)
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
        if (weight_is_quantized(desc->format) && desc->codes == NULL)
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
    cpu_memory_free(weight->scale);
    mem_free(weight);
}

static void read_quantized_row(const struct weight *weight, const uint8_t *panel, size_t o, float scale,
                               float *out)
{
    for (size_t k = 0; k < weight->n_in; k += weight->group, panel += group_bytes(weight)) {
        float group_scale = f16_to_f32(((const uint16_t *)panel)[o]);
        int zero =
            weight->format == WEIGHT_UINT4 ? ((const uint16_t *)panel)[PANEL_OUTPUTS + o] : INT4_OFFSET;
        const uint8_t *blocks = panel + group_header_bytes(weight->format);
        for (size_t i = 0; i < weight->group; i++) {
            size_t in_block = i % QUANT_BLOCK;
            const uint8_t *block = blocks + i / QUANT_BLOCK * quant_block_bytes(weight->format);
            int code;
            if (weight->format == WEIGHT_INT8)
                code = block[int8_code_offset(o, in_block)] - INT8_OFFSET;
            else
                code = (block[int4_code_offset(o, in_block)] >> (in_block < QUANT_BLOCK / 2 ? 0 : 4) & 15) -
                       zero;
            out[k + i] = (float)code * group_scale * scale;
        }
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
        out[k] = (weight->scale == NULL ? value : value * weight->scale[row]) * scale;
    }
}
