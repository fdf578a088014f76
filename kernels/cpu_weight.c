/* Packing of weights into the panels of packed.h, and reading rows back. */
#include <math.h>
#include <stdatomic.h>
#include <string.h>
#include "base/alloc.h"
#include "base/float16.h"
#include "base/float8.h"
#include "kernels/cpu_backend.h"
#include "kernels/cpu_memory.h"

/* The sections of a description, one where it has none of its own. */
struct section_list {
    uint32_t n;
    struct weight_section all[WEIGHT_SECTIONS_MAX];
};

static struct section_list list_sections(const struct weight_desc *desc)
{
    struct section_list list = {.n = desc->n_sections};
    ASSERT(desc->n_sections <= WEIGHT_SECTIONS_MAX && (desc->n_sections > 0) == (desc->sections != NULL));
    for (uint32_t i = 0; i < desc->n_sections; i++)
        list.all[i] = desc->sections[i];
    if (desc->n_sections == 0) {
        list.n = 1;
        list.all[0] =
            (struct weight_section){desc->n_out, desc->format, desc->group, .has_codes = desc->codes != NULL};
    }
    return list;
}

static size_t count_panels(size_t n_out)
{
    return div_up(n_out, PANEL_OUTPUTS);
}

static void check_section(const struct weight_desc *desc, const struct weight_section *section)
{
    ASSERT(section->n_out > 0);
    ASSERT(!weight_is_quantized(section->format) ||
           (section->group > 0 && section->group % QUANT_BLOCK == 0 && desc->n_in % section->group == 0));
    ASSERT(section->format != WEIGHT_FP8 || section->group == desc->n_in);
    ASSERT(!section->has_codes || desc->codes != NULL);
    ASSERT((section->format != WEIGHT_UINT4 && section->format < WEIGHT_INT5) || section->has_codes);
}

static void check_desc(const struct weight_desc *desc)
{
    ASSERT(desc->n_out > 0 && desc->n_in > 0);
    struct section_list list = list_sections(desc);
    size_t n_out = 0;
    for (uint32_t i = 0; i < list.n; i++) {
        check_section(desc, &list.all[i]);
        n_out += list.all[i].n_out;
    }
    ASSERT(n_out == desc->n_out);
}

/* Bytes of a float for every output, those past n_out included. */
static size_t outputs_bytes(size_t n_out)
{
    return count_panels(n_out) * PANEL_OUTPUTS * sizeof(float);
}

/* SIZE_MAX: beyond the address space. */
static size_t panels_bytes(const struct weight_section *section, size_t n_in)
{
    size_t bound;
    if (section->n_out > SIZE_MAX - PANEL_OUTPUTS || !checked_mul(n_in, 8 * PANEL_OUTPUTS, &bound) ||
        !checked_mul(bound, count_panels(section->n_out), &bound))
        return SIZE_MAX;
    return count_panels(section->n_out) * round_up(panel_bytes(section->format, n_in, section->group), 64);
}

size_t cpu_packed_bytes(const struct backend *backend, const struct weight_desc *desc)
{
    (void)backend;
    check_desc(desc);
    struct section_list list = list_sections(desc);
    size_t total = 0;
    for (uint32_t i = 0; i < list.n; i++) {
        const struct weight_section *section = &list.all[i];
        size_t bytes = panels_bytes(section, desc->n_in), outputs = outputs_bytes(section->n_out);
        size_t beside = (desc->bias == NULL ? 0 : outputs) + (section->format == WEIGHT_FP8 ? outputs : 0);
        if (!checked_add(bytes, beside, &bytes) || !checked_add(total, bytes, &total))
            return SIZE_MAX;
    }
    return total;
}

size_t cpu_weight_bytes(const struct backend *backend, const struct weight_desc *desc)
{
    size_t bytes = cpu_packed_bytes(backend, desc);
    return checked_add(bytes, sizeof(struct weight), &bytes) ? bytes : SIZE_MAX;
}

struct pack_job {
    struct cpu_backend *cpu;
    const struct weight_desc *desc;
    const struct panels *panels; /* the section that is packed */
    bool has_codes;
    float **rows;          /* [n_threads][n_in] */
    int8_t **codes;        /* [n_threads][3 * n_in]: codes, zero points or block scales, block minimums */
    atomic_size_t bad_row; /* lowest row that cannot be represented; SIZE_MAX = none */
};

static void pack_float_row(const struct panels *panels, const float *row, uint8_t *panel, size_t o)
{
    for (size_t k = 0; k < panels->n_in; k++) {
        size_t at = k * PANEL_OUTPUTS + o;
        if (panels->format == WEIGHT_F32)
            ((float *)panel)[at] = row[k];
        else
            ((uint16_t *)panel)[at] =
                panels->format == WEIGHT_BF16 ? bf16_from_f32(row[k]) : f16_from_f32(row[k]);
    }
}

/* One block of output o. */
static inline void pack_block(const enum weight_format format, const int8_t *codes, uint8_t *block, size_t o)
{
    const int offset = weight_code_offset(format);
    for (size_t i = 0; i < QUANT_BLOCK; i++)
        packed_code_write(format, block, o, i, codes[i] + offset);
}

/* One group of output o: codes and header. */
static void pack_group(const struct panels *panels, uint16_t scale, uint16_t second, const int8_t *codes,
                       uint8_t *panel, size_t o)
{
    enum weight_format format = panels->format;
    ((uint16_t *)panel)[o] = scale;
    if (group_header_bytes(format) > PANEL_SCALE_BYTES)
        ((uint16_t *)panel)[PANEL_OUTPUTS + o] = second;
    uint8_t *block = panel + group_header_bytes(format) + block_header_bytes(format);
    for (size_t i = 0; i < panels->group; i += QUANT_BLOCK, block += quant_block_bytes(format)) {
        switch (format) { /* each compiled for itself */
        case WEIGHT_INT8:
            pack_block(WEIGHT_INT8, codes + i, block, o);
            break;
        case WEIGHT_INT5:
            pack_block(WEIGHT_INT5, codes + i, block, o);
            break;
        case WEIGHT_K5:
            pack_block(WEIGHT_K5, codes + i, block, o);
            break;
        case WEIGHT_K6:
            pack_block(WEIGHT_K6, codes + i, block, o);
            break;
        case WEIGHT_INT4:
            pack_block(WEIGHT_INT4, codes + i, block, o);
            break;
        default:
            pack_block(WEIGHT_UINT4, codes + i, block, o);
            break;
        }
    }
}

static size_t group_bytes(const struct panels *panels)
{
    return panel_bytes(panels->format, panels->group, panels->group);
}

static void pack_quantized_row(const struct kernel_table *table, const struct panels *panels,
                               const float *row, int8_t *codes, uint8_t *panel, size_t o)
{
    quantize_group_fn *quantize_group =
        panels->format == WEIGHT_INT8 ? table->quantize_group_int8 : table->quantize_group_int4;
    for (size_t k = 0; k < panels->n_in; k += panels->group, panel += group_bytes(panels)) {
        uint16_t scale = quantize_group(row + k, panels->group, codes);
        pack_group(panels, scale, 0, codes, panel, o);
    }
}

/* Integers of the blocks of group g, output o; panel: that group's. */
static void pack_block_scales(const struct panels *panels, const struct weight_codes *given, size_t g,
                              uint8_t *panel, size_t o)
{
    size_t n = panels->group / QUANT_BLOCK;
    uint8_t *header = panel + group_header_bytes(panels->format);
    for (size_t b = g * n; b < (g + 1) * n; b++, header += quant_block_bytes(panels->format)) {
        bool halves = panels->format == WEIGHT_K6;
        header[o] = (uint8_t)given->block_scales[halves ? 2 * b : b];
        header[PANEL_OUTPUTS + o] =
            halves ? (uint8_t)given->block_scales[2 * b + 1] : given->block_minimums[b];
    }
}

/* Ready codes; false: a scale beyond the range of f16. */
static bool pack_given_row(const struct panels *panels, const struct weight_codes *given, uint8_t *panel,
                           size_t index)
{
    size_t o = index % PANEL_OUTPUTS;
    if (panels->scale != NULL) {
        panels->scale[index] = given->scales[0];
        for (size_t k = 0; k < panels->n_in; k++)
            ((uint16_t *)panel)[k * PANEL_OUTPUTS + o] =
                bf16_from_f32(f8_e4m3_to_f32((uint8_t)given->codes[k]));
        return true;
    }
    bool fits = true;
    for (size_t g = 0; g < panels->n_in / panels->group; g++, panel += group_bytes(panels)) {
        uint16_t second = given->zeros[g];
        fits &= fabsf(given->scales[g]) <= 65504.0f;
        if (weight_has_minimums(panels->format)) {
            fits &= fabsf(given->minimums[g]) <= 65504.0f;
            second = f16_from_f32(given->minimums[g]);
        }
        pack_group(panels, f16_from_f32(given->scales[g]), second, given->codes + g * panels->group, panel,
                   o);
        if (weight_has_block_scales(panels->format))
            pack_block_scales(panels, given, g, panel, o);
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

/* Outputs past the last are zero weights. False: the row cannot be represented. index: in the section. */
static bool pack_row(struct pack_job *job, size_t index, float *row, int8_t *codes)
{
    const struct weight_desc *desc = job->desc;
    const struct panels *panels = job->panels;
    size_t n_in = panels->n_in, half = n_in / 2;
    uint8_t *panel = panels->data + index / PANEL_OUTPUTS * panels->panel_bytes;
    bool exists = index < panels->n_out;
    memset(row, 0, n_in * sizeof(float));
    if (job->has_codes) {
        memset(codes, 0, 3 * n_in);
        struct weight_codes given = {.codes = codes,
                                     .scales = row,
                                     .zeros = (uint8_t *)codes + n_in,
                                     .minimums = row + half,
                                     .block_scales = codes + n_in,
                                     .block_minimums = (uint8_t *)codes + 2 * n_in};
        if (exists)
            desc->codes(desc->row_context, panels->first_out + index, &given);
        return pack_given_row(panels, &given, panel, index);
    }
    if (exists)
        desc->row(desc->row_context, panels->first_out + index, row);
    if (!row_fits(panels->format, row, n_in))
        return false;
    if (weight_is_quantized(panels->format))
        pack_quantized_row(&job->cpu->table, panels, row, codes, panel, index % PANEL_OUTPUTS);
    else
        pack_float_row(panels, row, panel, index % PANEL_OUTPUTS);
    return true;
}

static void pack_panels(void *context, int thread_index, int n_threads)
{
    struct pack_job *job = context;
    size_t begin, end;
    /* The split of the linear op: memory is first touched by the thread that will read it. */
    thread_split(job->panels->n_panels, 1, thread_index, n_threads, &begin, &end);
    for (size_t index = begin * PANEL_OUTPUTS; index < end * PANEL_OUTPUTS; index++) {
        if (pack_row(job, index, job->rows[thread_index], job->codes[thread_index]))
            continue;
        size_t row = job->panels->first_out + index, lowest = atomic_load(&job->bad_row);
        while (row < lowest && !atomic_compare_exchange_weak(&job->bad_row, &lowest, row)) {
        }
    }
}

/* Shape and format, no memory yet. False: beyond the address space. */
static bool panels_describe(const struct weight_desc *desc, const struct weight_section *section,
                            struct panels *panels)
{
    size_t bytes = panels_bytes(section, desc->n_in);
    panels->format = section->format == WEIGHT_FP8 ? WEIGHT_BF16 : section->format;
    panels->n_out = section->n_out;
    panels->n_in = desc->n_in;
    panels->group = section->group;
    panels->n_panels = count_panels(section->n_out);
    panels->panel_bytes = bytes / panels->n_panels;
    return bytes != SIZE_MAX;
}

/* False: no memory. */
static bool panels_alloc(const struct weight_desc *desc, const struct weight_section *section,
                         struct panels *panels)
{
    bool is_fp8 = section->format == WEIGHT_FP8;
    if (!panels_describe(desc, section, panels))
        return false;
    panels->data = cpu_memory_alloc(panels->n_panels * panels->panel_bytes);
    if (desc->bias != NULL)
        panels->bias = cpu_memory_alloc(outputs_bytes(section->n_out));
    if (is_fp8)
        panels->scale = cpu_memory_alloc(outputs_bytes(section->n_out));
    if (panels->data == NULL || (desc->bias != NULL && panels->bias == NULL) ||
        (is_fp8 && panels->scale == NULL))
        return false;
    if (desc->bias != NULL)
        memcpy(panels->bias, desc->bias + panels->first_out, panels->n_out * sizeof(float));
    return true;
}

static err_t weight_alloc(const struct weight_desc *desc, const struct section_list *list,
                          struct weight **out)
{
    struct weight *weight = mem_alloc(sizeof *weight);
    *out = weight;
    bool enough = weight != NULL;
    if (enough)
        *weight = (struct weight){.n_out = desc->n_out, .n_in = desc->n_in, .n_sections = list->n};
    for (uint32_t i = 0; enough && i < list->n; i++) {
        struct panels *panels = &weight->sections[i];
        if (i > 0)
            panels->first_out = panels[-1].first_out + panels[-1].n_out;
        enough = panels_alloc(desc, &list->all[i], panels);
    }
    return enough ? err_ok()
                  : err_new(ERR_RESOURCE_EXHAUSTED, "no memory for weight %s: %zu outputs of %zu inputs",
                            desc->name, desc->n_out, desc->n_in);
}

/* Row buffers of every thread, in one block behind the two tables of pointers. */
static void *pack_buffers(struct pack_job *job, size_t n_threads, size_t n_in)
{
    size_t tables = n_threads * 2 * sizeof(void *);
    size_t row_bytes = round_up(n_in * sizeof(float), 64), code_bytes = round_up(3 * n_in, 64);
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

static void pack_sections(struct pack_job *job, const struct section_list *list, const struct weight *weight)
{
    for (uint32_t i = 0; i < list->n; i++) {
        const struct weight_section *section = &list->all[i];
        job->panels = &weight->sections[i];
        job->has_codes = section->has_codes;
        cpu_run(job->cpu, true, pack_panels, job);
        if (weight_is_quantized(section->format) && !section->has_codes)
            job->cpu->dispatches[section->format == WEIGHT_INT8 ? KERNEL_quantize_group_int8
                                                                : KERNEL_quantize_group_int4]++;
    }
}

err_t cpu_weight_pack(struct backend *backend, const struct weight_desc *desc, struct weight **out)
{
    *out = NULL;
    if (desc->n_sections == 0 && desc->format == WEIGHT_FP8 && desc->codes == NULL)
        return err_new(ERR_UNIMPLEMENTED,
                       "weight %s: the CPU has no fp8 kernels: --quantization fp8 needs --device cuda",
                       desc->name);
    check_desc(desc);
    struct cpu_backend *cpu = cpu_of(backend);
    struct pack_job job = {.cpu = cpu, .desc = desc, .bad_row = SIZE_MAX};
    struct section_list list = list_sections(desc);
    struct weight *weight;
    err_t e = weight_alloc(desc, &list, &weight);
    for (uint32_t i = 0; e.code == ERR_OK && i < list.n; i++)
        cpu_place_panels(cpu, &weight->sections[i]);
    void *buffers = e.code == ERR_OK ? pack_buffers(&job, (size_t)cpu->n_threads, desc->n_in) : NULL;
    if (e.code == ERR_OK && buffers == NULL)
        e = err_new(ERR_RESOURCE_EXHAUSTED, "no memory to pack weight %s", desc->name);
    if (e.code == ERR_OK) {
        pack_sections(&job, &list, weight);
        size_t bad_row = atomic_load(&job.bad_row);
        if (bad_row != SIZE_MAX)
            e = err_new(ERR_DATA_LOSS,
                        "weight %s: row %zu holds NaN, infinity or a value beyond the range of %s",
                        desc->name, bad_row, desc->format == WEIGHT_F16 ? "f16" : "quantisation");
    }
    mem_free(buffers);
    if (e.code != ERR_OK) {
        cpu_weight_destroy(weight);
        weight = NULL;
    }
    *out = weight;
    return e;
}

void cpu_weight_destroy(struct weight *weight)
{
    if (weight == NULL)
        return;
    for (uint32_t i = 0; i < weight->n_sections && !weight->is_borrowed; i++) {
        cpu_memory_free(weight->sections[i].data);
        cpu_memory_free(weight->sections[i].bias);
        cpu_memory_free(weight->sections[i].scale);
    }
    mem_free(weight);
}

/* ---- Packed bytes in a file ---- */

err_t cpu_weight_export(const struct weight *weight, packed_write_fn *write, void *context)
{
    for (uint32_t i = 0; i < weight->n_sections; i++) {
        const struct panels *panels = &weight->sections[i];
        TRY(write(context, panels->data, panels->n_panels * panels->panel_bytes));
        if (panels->bias != NULL)
            TRY(write(context, panels->bias, outputs_bytes(panels->n_out)));
        if (panels->scale != NULL)
            TRY(write(context, panels->scale, outputs_bytes(panels->n_out)));
    }
    return err_ok();
}

err_t cpu_weight_import(struct backend *backend, const struct weight_desc *desc, const void *packed,
                        struct weight **out)
{
    *out = NULL;
    ASSERT((uintptr_t)packed % PACKED_ALIGN == 0 && cpu_packed_bytes(backend, desc) != SIZE_MAX);
    struct section_list list = list_sections(desc);
    struct weight *weight = mem_alloc(sizeof *weight);
    if (weight == NULL)
        return err_new(ERR_RESOURCE_EXHAUSTED, "no memory for weight %s", desc->name);
    *weight =
        (struct weight){.n_out = desc->n_out, .n_in = desc->n_in, .n_sections = list.n, .is_borrowed = true};
    uint8_t *at = (uint8_t *)(uintptr_t)packed; /* who borrows does not write */
    size_t first_out = 0;
    for (uint32_t i = 0; i < list.n; i++) {
        struct panels *panels = &weight->sections[i];
        bool fits = panels_describe(desc, &list.all[i], panels);
        ASSERT(fits);
        panels->first_out = first_out;
        panels->data = at;
        at += panels->n_panels * panels->panel_bytes;
        if (desc->bias != NULL) {
            panels->bias = (float *)(void *)at;
            at += outputs_bytes(panels->n_out);
        }
        if (list.all[i].format == WEIGHT_FP8) {
            panels->scale = (float *)(void *)at;
            at += outputs_bytes(panels->n_out);
        }
        first_out += panels->n_out;
    }
    *out = weight;
    return err_ok();
}

static void read_quantized_row(const struct panels *panels, const uint8_t *panel, size_t o, float scale,
                               float *out)
{
    enum weight_format format = panels->format;
    for (size_t k = 0; k < panels->n_in; k += panels->group, panel += group_bytes(panels)) {
        float group_scale = f16_to_f32(((const uint16_t *)panel)[o]), minimum = 0;
        int offset = weight_code_offset(format);
        if (format == WEIGHT_UINT4)
            offset = ((const uint16_t *)panel)[PANEL_OUTPUTS + o];
        if (weight_has_minimums(format))
            minimum = f16_to_f32(((const uint16_t *)panel)[PANEL_OUTPUTS + o]);
        const uint8_t *blocks = panel + group_header_bytes(format);
        for (size_t i = 0; i < panels->group; i++) {
            size_t in_block = i % QUANT_BLOCK;
            const uint8_t *block = blocks + i / QUANT_BLOCK * quant_block_bytes(format);
            float block_scale = group_scale, below = 0;
            if (format == WEIGHT_K6)
                block_scale *= (float)(int8_t)block[(in_block < HALF_BLOCK ? 0 : PANEL_OUTPUTS) + o];
            if (weight_has_minimums(format)) {
                block_scale *= (float)block[o];
                below = minimum * (float)block[PANEL_OUTPUTS + o];
            }
            int code = packed_code(format, block + block_header_bytes(format), o, in_block) - offset;
            out[k + i] = ((float)code * block_scale - below) * scale;
        }
    }
}

void cpu_weight_read_row(const struct weight *weight, size_t row, float scale, float *out)
{
    ASSERT(row < weight->n_out);
    const struct panels *panels = weight->sections;
    while (row >= panels->first_out + panels->n_out)
        panels++;
    row -= panels->first_out;
    const uint8_t *panel = panels->data + row / PANEL_OUTPUTS * panels->panel_bytes;
    size_t o = row % PANEL_OUTPUTS;
    if (weight_is_quantized(panels->format)) {
        read_quantized_row(panels, panel, o, scale, out);
        return;
    }
    for (size_t k = 0; k < panels->n_in; k++) {
        size_t at = k * PANEL_OUTPUTS + o;
        float value;
        if (panels->format == WEIGHT_F32)
            value = ((const float *)panel)[at];
        else if (panels->format == WEIGHT_BF16)
            value = bf16_to_f32(((const uint16_t *)panel)[at]);
        else
            value = f16_to_f32(((const uint16_t *)panel)[at]);
        out[k] = (panels->scale == NULL ? value : value * panels->scale[row]) * scale;
    }
}
