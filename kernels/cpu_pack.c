/* Packing: each thread reads the rows of a panel, side by side, rounds or quantises what must be, and writes
 * the panel in one go (panel_rows.h). */
#include <math.h>
#include <stdatomic.h>
#include <string.h>
#include "base/alloc.h"
#include "base/float16.h"
#include "base/float8.h"
#include "kernels/cpu_backend.h"
#include "kernels/cpu_memory.h"
#include "kernels/panel_rows.h"

enum { LINE_BYTES = 64 };

/* The rows of one panel, of one thread. */
struct pack_rows {
    size_t code_stride, half_stride, float_stride; /* in elements; rows begin in different cache sets */
    /* Quantised formats and fp8. */
    int8_t *codes;            /* [32][code_stride] */
    float *scales, *minimums; /* [32][n_in / group], as the checkpoint has them */
    uint16_t *half_scales;    /* likewise, as they are packed */
    uint16_t *seconds;        /* zero points or minimums, as they are packed */
    uint8_t *zeros;           /* [32][n_in / group] */
    int8_t *block_scales;     /* [32][n_in / 16] */
    uint8_t *block_minimums;  /* [32][n_in / 32] */
    uint8_t *blocks;          /* [32][n_in / 32][WEIGHT_BLOCK_BYTES]; in place of all these */
    /* Float formats, and what is quantised here. */
    float *floats;    /* f32: [32][float_stride], else one row */
    uint16_t *halves; /* [32][half_stride] */
};

struct pack_job {
    struct cpu_backend *cpu;
    const struct weight_desc *desc;
    const struct panels *panels;
    bool has_codes, has_blocks;
    size_t n_groups;        /* of a row; 0: no groups */
    struct pack_rows *rows; /* [n_threads] */
    uint16_t fp8[256];      /* what a code is as bf16 */
    atomic_size_t bad_row;  /* lowest row that cannot be represented; SIZE_MAX = none */
};

/* ---- Buffers ---- */

/* Hands out pieces of a block; without one it only counts. */
struct carver {
    char *block;
    size_t used_bytes;
};

static void *carve(struct carver *carver, size_t count, size_t size_bytes)
{
    void *piece = carver->block == NULL ? NULL : carver->block + carver->used_bytes;
    carver->used_bytes += round_up(count * size_bytes, LINE_BYTES);
    return piece;
}

static void carve_rows(const struct pack_job *job, struct carver *carver, struct pack_rows *rows)
{
    size_t n_in = job->panels->n_in, blocks = PANEL_OUTPUTS * (n_in / QUANT_BLOCK);
    size_t groups = PANEL_OUTPUTS * job->n_groups;
    bool quantized = weight_is_quantized(job->panels->format), is_f32 = job->panels->format == WEIGHT_F32;
    rows->code_stride = round_up(n_in, LINE_BYTES) + LINE_BYTES;
    rows->half_stride = rows->code_stride;
    rows->float_stride = rows->code_stride;
    if (job->has_blocks) {
        rows->blocks = carve(carver, blocks, WEIGHT_BLOCK_BYTES);
        return;
    }
    rows->half_scales = carve(carver, groups, sizeof(uint16_t));
    rows->seconds = carve(carver, groups, sizeof(uint16_t));
    if (job->has_codes) {
        rows->scales = carve(carver, groups, sizeof(float));
        rows->minimums = carve(carver, groups, sizeof(float));
        rows->zeros = carve(carver, groups, 1);
        rows->block_scales = carve(carver, 2 * blocks, 1);
        rows->block_minimums = carve(carver, blocks, 1);
    } else {
        rows->floats = carve(carver, (is_f32 ? PANEL_OUTPUTS : 1) * rows->float_stride, sizeof(float));
    }
    if (quantized || job->has_codes)
        rows->codes = carve(carver, PANEL_OUTPUTS * rows->code_stride, 1);
    if (!quantized && !is_f32)
        rows->halves = carve(carver, PANEL_OUTPUTS * rows->half_stride, sizeof(uint16_t));
}

/* Those of every thread, in one block; NULL: no memory. */
static void *alloc_rows(struct pack_job *job)
{
    size_t n_threads = (size_t)job->cpu->n_threads;
    struct carver carver = {0};
    for (int pass = 0; pass < 2; pass++) {
        struct pack_rows *all = carve(&carver, n_threads, sizeof *all), unused = {0};
        for (size_t i = 0; i < n_threads; i++)
            carve_rows(job, &carver, all == NULL ? &unused : &all[i]);
        if (pass == 0)
            carver = (struct carver){.block = mem_alloc(carver.used_bytes)};
        if (carver.block == NULL)
            return NULL;
        job->rows = all;
    }
    return carver.block;
}

/* ---- Rows ---- */

static void note_bad_row(struct pack_job *job, size_t index)
{
    size_t row = job->panels->first_out + index, lowest = atomic_load(&job->bad_row);
    while (row < lowest && !atomic_compare_exchange_weak(&job->bad_row, &lowest, row)) {
    }
}

/* No NaN, and none above limit. */
static bool all_within(const float *values, size_t n, float limit)
{
    uint32_t above = 0;
    for (size_t i = 0; i < n; i++)
        above |= (uint32_t) !(fabsf(values[i]) <= limit);
    return above == 0;
}

/* f16 and codes cannot hold everything that f32 can; f32 and bf16 take what comes. */
static bool row_fits(enum weight_format format, const float *row, size_t n)
{
    if (format == WEIGHT_F32 || format == WEIGHT_BF16)
        return true;
    return all_within(row, n, format == WEIGHT_F16 ? F16_MAX : 3e38f);
}

static void round_row(enum weight_format format, const float *row, size_t n, uint16_t *out)
{
    if (format == WEIGHT_BF16) {
        for (size_t k = 0; k < n; k++)
            out[k] = bf16_from_f32(row[k]);
    } else {
        for (size_t k = 0; k < n; k++)
            out[k] = f16_from_f32(row[k]);
    }
}

static void quantize_row(struct pack_job *job, const struct pack_rows *rows, const float *row, size_t r)
{
    const struct panels *panels = job->panels;
    const struct kernel_table *table = &job->cpu->table;
    quantize_group_fn *quantize_group =
        panels->format == WEIGHT_INT8 ? table->quantize_group_int8 : table->quantize_group_int4;
    for (size_t g = 0; g < job->n_groups; g++)
        rows->half_scales[r * job->n_groups + g] = quantize_group(
            row + g * panels->group, panels->group, rows->codes + r * rows->code_stride + g * panels->group);
}

/* Rows [first, first + n) of the section as values. */
static void take_values(struct pack_job *job, size_t first, size_t n, const struct pack_rows *rows)
{
    const struct weight_desc *desc = job->desc;
    const struct panels *panels = job->panels;
    for (size_t r = 0; r < n; r++) {
        float *row = rows->floats + (panels->format == WEIGHT_F32 ? r * rows->float_stride : 0);
        desc->row(desc->row_context, panels->first_out + first + r, row);
        if (!row_fits(panels->format, row, panels->n_in))
            note_bad_row(job, first + r);
        else if (weight_is_quantized(panels->format))
            quantize_row(job, rows, row, r);
        else if (panels->format != WEIGHT_F32)
            round_row(panels->format, row, panels->n_in, rows->halves + r * rows->half_stride);
    }
}

/* fp8 as the same numbers in bf16. */
static void widen_row(const struct pack_job *job, const int8_t *codes, uint16_t *out)
{
    for (size_t k = 0; k < job->panels->n_in; k++)
        out[k] = job->fp8[(uint8_t)codes[k]];
}

/* Scales and what stands behind them to 16 bits. */
static void round_groups(struct pack_job *job, size_t first, size_t r, const struct pack_rows *rows)
{
    size_t n = job->n_groups, at = r * n;
    bool fits = all_within(rows->scales + at, n, F16_MAX);
    round_row(WEIGHT_F16, rows->scales + at, n, rows->half_scales + at);
    if (weight_has_minimums(job->panels->format)) {
        fits &= all_within(rows->minimums + at, n, F16_MAX);
        round_row(WEIGHT_F16, rows->minimums + at, n, rows->seconds + at);
    }
    for (size_t g = 0; job->panels->format == WEIGHT_UINT4 && g < n; g++)
        rows->seconds[at + g] = rows->zeros[at + g];
    if (!fits)
        note_bad_row(job, first + r);
}

/* Likewise as the checkpoint's codes. */
static void take_codes(struct pack_job *job, size_t first, size_t n, const struct pack_rows *rows)
{
    const struct weight_desc *desc = job->desc;
    const struct panels *panels = job->panels;
    size_t n_groups = job->n_groups, blocks = panels->n_in / QUANT_BLOCK;
    size_t n_scales = panels->format == WEIGHT_K6 ? 2 * blocks : blocks;
    struct weight_codes given[PANEL_OUTPUTS] = {0};
    for (size_t r = 0; r < n; r++)
        given[r] = (struct weight_codes){.codes = rows->codes + r * rows->code_stride,
                                         .scales = rows->scales + r * n_groups,
                                         .zeros = rows->zeros + r * n_groups,
                                         .minimums = rows->minimums + r * n_groups,
                                         .block_scales = rows->block_scales + r * n_scales,
                                         .block_minimums = rows->block_minimums + r * blocks};
    desc->codes(desc->row_context, panels->first_out + first, n, given);
    for (size_t r = 0; r < n; r++) {
        if (panels->scale == NULL) {
            round_groups(job, first, r, rows);
            continue;
        }
        panels->scale[first + r] = rows->scales[r];
        widen_row(job, given[r].codes, rows->halves + r * rows->half_stride);
    }
}

static void pack_blocks(const struct pack_job *job, size_t first, size_t n, const struct pack_rows *rows,
                        uint8_t *panel)
{
    const struct weight_desc *desc = job->desc;
    size_t n_in = job->panels->n_in, row_bytes = n_in / QUANT_BLOCK * WEIGHT_BLOCK_BYTES;
    struct weight_codes given[PANEL_OUTPUTS] = {0};
    for (size_t r = 0; r < n; r++)
        given[r].blocks = rows->blocks + r * row_bytes;
    desc->codes(desc->row_context, job->panels->first_out + first, n, given);
    /* Outputs past the last are zero weights: codes and scales 0. */
    memset(rows->blocks + n * row_bytes, INT4_OFFSET | INT4_OFFSET << 4, (PANEL_OUTPUTS - n) * row_bytes);
    for (uint8_t *at = rows->blocks + n * row_bytes, *end = rows->blocks + PANEL_OUTPUTS * row_bytes;
         at < end; at += WEIGHT_BLOCK_BYTES)
        memset(at, 0, sizeof(uint16_t));
    panel_from_blocks(rows->blocks, n_in, panel);
}

/* Outputs past the last are zero weights: what the panel before has left there goes. */
static void clear_rows(const struct pack_job *job, size_t n, const struct pack_rows *rows)
{
    size_t rest = PANEL_OUTPUTS - n, blocks = job->panels->n_in / QUANT_BLOCK;
    size_t n_scales = job->panels->format == WEIGHT_K6 ? 2 * blocks : blocks;
    if (rows->halves != NULL)
        memset(rows->halves + n * rows->half_stride, 0, rest * rows->half_stride * sizeof(uint16_t));
    if (job->panels->format == WEIGHT_F32)
        memset(rows->floats + n * rows->float_stride, 0, rest * rows->float_stride * sizeof(float));
    if (!weight_is_quantized(job->panels->format))
        return;
    memset(rows->codes + n * rows->code_stride, 0, rest * rows->code_stride);
    memset(rows->half_scales + n * job->n_groups, 0, rest * job->n_groups * sizeof(uint16_t));
    memset(rows->seconds + n * job->n_groups, 0, rest * job->n_groups * sizeof(uint16_t));
    if (job->has_codes) {
        memset(rows->block_scales + n * n_scales, 0, rest * n_scales);
        memset(rows->block_minimums + n * blocks, 0, rest * blocks);
    }
}

/* ---- Panels ---- */

static void pack_panel(struct pack_job *job, size_t index, const struct pack_rows *rows)
{
    const struct panels *panels = job->panels;
    uint8_t *panel = panels->data + index * panels->panel_bytes;
    size_t first = index * PANEL_OUTPUTS, left = panels->n_out - first;
    size_t n = left < PANEL_OUTPUTS ? left : PANEL_OUTPUTS;
    if (panels->n_panels * panels->panel_bytes >= CPU_MEMORY_MAP_FROM_BYTES)
        cpu_memory_populate(panels->data, index * panels->panel_bytes, panels->panel_bytes);
    if (job->has_blocks) {
        pack_blocks(job, first, n, rows, panel);
        return;
    }
    if (job->has_codes)
        take_codes(job, first, n, rows);
    else
        take_values(job, first, n, rows);
    if (n < PANEL_OUTPUTS)
        clear_rows(job, n, rows);
    const struct panel_codes codes = {.format = panels->format,
                                      .n_in = panels->n_in,
                                      .group = panels->group,
                                      .codes = rows->codes,
                                      .stride = rows->code_stride,
                                      .scales = rows->half_scales,
                                      .seconds = rows->seconds,
                                      .block_scales = rows->block_scales,
                                      .block_minimums = rows->block_minimums};
    if (weight_is_quantized(panels->format))
        panel_from_codes(&codes, panel);
    else if (panels->format == WEIGHT_F32)
        panel_from_floats(rows->floats, rows->float_stride, panels->n_in, (float *)(void *)panel);
    else
        panel_from_halves(rows->halves, rows->half_stride, panels->n_in, (uint16_t *)(void *)panel);
}

static void pack_panels(void *context, int thread_index, int n_threads)
{
    struct pack_job *job = context;
    size_t begin, end;
    /* The split of the linear op: memory is first touched by the thread that will read it. */
    thread_split(job->panels->n_panels, 1, thread_index, n_threads, &begin, &end);
    for (size_t index = begin; index < end; index++)
        pack_panel(job, index, &job->rows[thread_index]);
}

err_t cpu_pack_panels(struct cpu_backend *cpu, const struct weight_desc *desc,
                      const struct weight_section *section, const struct panels *panels)
{
    struct pack_job job = {
        .cpu = cpu, .desc = desc, .panels = panels, .has_codes = section->has_codes, .bad_row = SIZE_MAX};
    job.has_blocks = section->has_blocks;
    bool quantized = weight_is_quantized(section->format);
    job.n_groups = quantized || section->format == WEIGHT_FP8 ? panels->n_in / section->group : 0;
    for (size_t code = 0; code < 256; code++)
        job.fp8[code] = bf16_from_f32(f8_e4m3_to_f32((uint8_t)code));
    void *buffers = alloc_rows(&job);
    if (buffers == NULL)
        return err_new(ERR_RESOURCE_EXHAUSTED, "no memory to pack weight %s", desc->name);
    cpu_run(cpu, true, pack_panels, &job);
    mem_free(buffers);
    if (quantized && !section->has_codes)
        cpu->dispatches[section->format == WEIGHT_INT8 ? KERNEL_quantize_group_int8
                                                       : KERNEL_quantize_group_int4]++;
    size_t bad_row = atomic_load(&job.bad_row);
    if (bad_row == SIZE_MAX)
        return err_ok();
    return err_new(ERR_DATA_LOSS, "weight %s: row %zu holds NaN, infinity or a value beyond the range of %s",
                   desc->name, bad_row, section->format == WEIGHT_F16 ? "f16" : "quantisation");
}
