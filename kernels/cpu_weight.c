/* Weights in the panels of packed.h: made from a description or from a file's bytes, and read back. */
#include <string.h>
#include "base/alloc.h"
#include "base/float16.h"
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
    ASSERT(!section->has_blocks ||
           (section->has_codes && section->format == WEIGHT_INT4 && section->group == QUANT_BLOCK));
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

err_t cpu_weight_pack(struct backend *backend, const struct weight_desc *desc, struct weight **out)
{
    *out = NULL;
    if (desc->n_sections == 0 && desc->format == WEIGHT_FP8 && desc->codes == NULL)
        return err_new(ERR_INVALID_ARGUMENT,
                       "weight %s: the CPU has no fp8 kernels: --quantization fp8 needs --device cuda",
                       desc->name);
    check_desc(desc);
    struct cpu_backend *cpu = cpu_of(backend);
    struct section_list list = list_sections(desc);
    struct weight *weight;
    err_t e = weight_alloc(desc, &list, &weight);
    for (uint32_t i = 0; e.code == ERR_OK && i < list.n; i++)
        cpu_place_panels(cpu, &weight->sections[i]);
    for (uint32_t i = 0; e.code == ERR_OK && i < list.n; i++)
        e = cpu_pack_panels(cpu, desc, &list.all[i], &weight->sections[i]);
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

static size_t group_bytes(const struct panels *panels)
{
    return panel_bytes(panels->format, panels->group, panels->group);
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
