/* Weights of the tensor-core linear layers as they are packed at load: linear_pack.h, a panel at a time. */
#include "base/float16.h"
#include "kernels/cuda/cuda_backend.h"
#include "kernels/cuda/linear_weight.h"
#include "kernels/cuda/weight_row.h"

static bool describe(enum weight_format format, size_t n_out, const struct weight_desc *desc,
                     uint32_t capability, struct linear_packed *out)
{
    if (format == WEIGHT_FP8) {
        linear_packed_describe_e4m3((uint32_t)n_out, (uint32_t)desc->n_in, capability, out);
        return true;
    }
    return linear_packed_describe(format, (uint32_t)n_out, (uint32_t)desc->n_in, desc->group, out);
}

/* One panel of the weight. e4m3: the layout is the caller's. */
static struct linear_packed describe_panel(const struct weight_desc *desc, enum linear_layout layout)
{
    struct linear_packed packed;
    bool ok = describe(desc->format, LINEAR_PANEL, desc, 0, &packed);
    ASSERT(ok);
    if (desc->format == WEIGHT_FP8)
        packed.layout = layout;
    ASSERT(packed.layout == layout);
    return packed;
}

static void sizes_of_panel(const struct weight_desc *desc, enum linear_layout layout, size_t *codes,
                           size_t *scales)
{
    struct linear_packed packed = describe_panel(desc, layout);
    *codes = linear_packed_codes_bytes(&packed);
    *scales = linear_packed_scales_bytes(&packed);
}

static void quantize_groups(const struct kernel_table *quantize, const struct weight_desc *desc,
                            const float *values, const struct weight_codes *out)
{
    quantize_group_fn *group =
        desc->format == WEIGHT_INT4 ? quantize->quantize_group_int4 : quantize->quantize_group_int8;
    for (size_t g = 0; g < desc->n_in / desc->group; g++)
        out->scales[g] =
            f16_to_f32(group(values + g * desc->group, desc->group, out->codes + g * desc->group));
}

static void pack_row(const struct kernel_table *quantize, const struct weight_desc *desc,
                     enum linear_layout layout, const float *values, const struct weight_codes *row,
                     uint32_t o, uint8_t *codes, uint8_t *scales)
{
    struct linear_packed packed = describe_panel(desc, layout);
    packed.codes = codes;
    packed.scales = scales;
    if (values != NULL && linear_has_groups(layout))
        quantize_groups(quantize, desc, values, row);
    else if (values != NULL)
        row->scales[0] = weight_row_quantize(desc->format, values, desc->n_in, row->codes);
    for (uint32_t g = 0; g < packed.n_in / packed.group; g++) {
        linear_pack_scale(&packed, o, g, row->scales[g]);
        if (layout == LINEAR_UINT4)
            linear_pack_zero(&packed, o, g, row->zeros[g]);
    }
    linear_pack_codes(&packed, o, row->codes);
}

#define PANEL_LAYOUT(which, linear)                                                                          \
    static void which##_bytes(const struct weight_desc *desc, size_t *codes, size_t *scales)                 \
    {                                                                                                        \
        sizes_of_panel(desc, linear, codes, scales);                                                         \
    }                                                                                                        \
    static void which##_pack(const struct kernel_table *quantize, const struct weight_desc *desc,            \
                             const float *values, const struct weight_codes *row, uint32_t o,                \
                             uint8_t *codes, uint8_t *scales)                                                \
    {                                                                                                        \
        pack_row(quantize, desc, linear, values, row, o, codes, scales);                                     \
    }                                                                                                        \
    static const struct cuda_layout layout_##which = {                                                       \
        .name = #which,                                                                                      \
        .panel_rows = LINEAR_PANEL,                                                                          \
        .packed = 1 + linear,                                                                                \
        .panel_bytes = which##_bytes,                                                                        \
        .pack_row = which##_pack,                                                                            \
    };
PANEL_LAYOUT(int4, LINEAR_INT4)
PANEL_LAYOUT(uint4, LINEAR_UINT4)
PANEL_LAYOUT(int8, LINEAR_INT8)
PANEL_LAYOUT(s8, LINEAR_S8)
PANEL_LAYOUT(e4m3, LINEAR_E4M3)
PANEL_LAYOUT(e4m3_wgmma, LINEAR_E4M3_WGMMA)

/* bf16 rows as they are, f16 ones rounded: activations are bf16, and one instruction takes one type. */
static void bf16_bytes(const struct weight_desc *desc, size_t *codes, size_t *scales)
{
    *codes = cuda_matrix_row_bytes(WEIGHT_BF16, (uint32_t)desc->n_in);
    *scales = 0;
}

static void bf16_pack(const struct kernel_table *quantize, const struct weight_desc *desc,
                      const float *values, const struct weight_codes *row, uint32_t o, uint8_t *codes,
                      uint8_t *scales)
{
    (void)quantize, (void)o, (void)row, (void)scales;
    for (size_t k = 0; k < desc->n_in; k++)
        ((uint16_t *)codes)[k] = bf16_from_f32(values[k]);
}

static const struct cuda_layout layout_bf16 = {
    .name = "bf16",
    .panel_rows = 1,
    .packed = 1 + LINEAR_BF16,
    .panel_bytes = bf16_bytes,
    .pack_row = bf16_pack,
};

const struct cuda_layout *linear_weight_layout(const struct weight_desc *desc, uint32_t capability)
{
    static const struct cuda_layout *const layouts[LINEAR_LAYOUTS] = {
        [LINEAR_BF16] = &layout_bf16,
        [LINEAR_INT4] = &layout_int4,
        [LINEAR_UINT4] = &layout_uint4,
        [LINEAR_INT8] = &layout_int8,
        [LINEAR_S8] = &layout_s8,
        [LINEAR_E4M3] = &layout_e4m3,
        [LINEAR_E4M3_WGMMA] = &layout_e4m3_wgmma,
    };
    struct linear_packed packed;
    return describe(desc->format, desc->n_out, desc, capability, &packed) ? layouts[packed.layout] : NULL;
}
