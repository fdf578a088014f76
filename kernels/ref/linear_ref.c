/* Reference of the linear kernels: kernel_types.h and packed.h say what they compute. */
#include <math.h>
#include "base/assert.h"
#include "base/float16.h"
#include "kernels/kernel_table.h"

static void check_args(const struct linear_args *a)
{
    ASSERT(a->n_out >= 1 && a->n_out <= PANEL_OUTPUTS);
    ASSERT((uintptr_t)a->panel % 64 == 0);
    ASSERT(a->n_rows == 0 || a->out != NULL);
}

static float scale_sum(const struct linear_args *a, size_t o, float sum)
{
    return a->scale == NULL ? sum : sum * a->scale[o];
}

static float add_bias(const struct linear_args *a, size_t o, float sum)
{
    return a->bias == NULL ? sum : sum + a->bias[o];
}

/* The reference of one weight format, compiled twice, so that fmaf is an instruction where the machine has it
 * and not a call: the same C and the same bits. */
#if defined(__x86_64__) && defined(__GNUC__)
#define LINEAR_REF(name, body, ...)                                                                          \
    static void name##_portable(const struct linear_args *a)                                                 \
    {                                                                                                        \
        body(a, __VA_ARGS__);                                                                                \
    }                                                                                                        \
    __attribute__((target("avx2,fma"))) static void name##_fma(const struct linear_args *a)                  \
    {                                                                                                        \
        body(a, __VA_ARGS__);                                                                                \
    }                                                                                                        \
    void name(const struct linear_args *a)                                                                   \
    {                                                                                                        \
        if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"))                                 \
            name##_fma(a);                                                                                   \
        else                                                                                                 \
            name##_portable(a);                                                                              \
    }
#else
#define LINEAR_REF(name, body, ...)                                                                          \
    void name(const struct linear_args *a)                                                                   \
    {                                                                                                        \
        body(a, __VA_ARGS__);                                                                                \
    }
#endif
#define INLINE static inline __attribute__((always_inline))

/* widen: element `index` of the panel as f32. */
INLINE void linear_float(const struct linear_args *a, float (*widen)(const void *panel, size_t index))
{
    check_args(a);
    ASSERT(a->x_stride >= a->n_in);
    for (size_t r = 0; r < a->n_rows; r++) {
        const float *x = a->x + r * a->x_stride;
        float sum[PANEL_OUTPUTS] = {0};
        for (size_t k = 0; k < a->n_in; k++) {
            for (size_t o = 0; o < PANEL_OUTPUTS; o++)
                sum[o] = fmaf(widen(a->panel, k * PANEL_OUTPUTS + o), x[k], sum[o]);
        }
        for (size_t o = 0; o < a->n_out; o++)
            a->out[r * a->out_stride + o] = add_bias(a, o, scale_sum(a, o, sum[o]));
    }
}

INLINE float widen_f32(const void *panel, size_t index)
{
    return ((const float *)panel)[index];
}

INLINE float widen_bf16(const void *panel, size_t index)
{
    return bf16_to_f32(((const uint16_t *)panel)[index]);
}

INLINE float widen_f16(const void *panel, size_t index)
{
    return f16_to_f32(((const uint16_t *)panel)[index]);
}

LINEAR_REF(linear_f32_ref, linear_float, widen_f32)

LINEAR_REF(linear_bf16_ref, linear_float, widen_bf16)

LINEAR_REF(linear_f16_ref, linear_float, widen_f16)

/* The block of inputs from j on of row r. */
INLINE const struct quant_block *row_block(const struct linear_args *a, size_t r, size_t j)
{
    return a->q + quant_row_offset(r, a->q_tile_stride) + j / QUANT_BLOCK * QUANT_TILE_ROWS;
}

/* code: of output o and input i of a block. */
INLINE void linear_quantized(const struct linear_args *a, enum weight_format format,
                             int (*code)(const uint8_t *block, size_t o, size_t i))
{
    const size_t block_bytes = quant_block_bytes(format);
    check_args(a);
    ASSERT(a->group % QUANT_BLOCK == 0 && a->group > 0 && a->n_in % a->group == 0);
    for (size_t r = 0; r < a->n_rows; r++) {
        const uint8_t *at = a->panel;
        float sum[PANEL_OUTPUTS] = {0};
        for (size_t k = 0; k < a->n_in; k += a->group) {
            const uint16_t *scales = (const uint16_t *)at, *zeros = scales + PANEL_OUTPUTS;
            at += group_header_bytes(format);
            for (size_t j = k; j < k + a->group; j += QUANT_BLOCK, at += block_bytes) {
                const struct quant_block *x = row_block(a, r, j);
                for (size_t o = 0; o < PANEL_OUTPUTS; o++) {
                    int dot = 0, zero = format == WEIGHT_UINT4 ? zeros[o] : 0;
                    for (size_t i = 0; i < QUANT_BLOCK; i++)
                        dot += (code(at, o, i) - zero) * x->q[i];
                    sum[o] = fmaf((float)dot, x->scale * f16_to_f32(scales[o]), sum[o]);
                }
            }
        }
        for (size_t o = 0; o < a->n_out; o++)
            a->out[r * a->out_stride + o] = add_bias(a, o, sum[o]);
    }
}

INLINE int code_int8(const uint8_t *block, size_t o, size_t i)
{
    return block[int8_code_offset(o, i)] - INT8_OFFSET;
}

INLINE int code_uint4(const uint8_t *block, size_t o, size_t i)
{
    int byte = block[int4_code_offset(o, i)];
    return i < QUANT_BLOCK / 2 ? byte & 15 : byte >> 4;
}

INLINE int code_int4(const uint8_t *block, size_t o, size_t i)
{
    return code_uint4(block, o, i) - INT4_OFFSET;
}

/* Symmetric codes of 5 bits, and those whose groups' scales are multiplied by integers of their blocks. */
INLINE void linear_blocks(const struct linear_args *a, enum weight_format format)
{
    const size_t header_bytes = block_header_bytes(format), block_bytes = quant_block_bytes(format);
    check_args(a);
    ASSERT(a->group % QUANT_BLOCK == 0 && a->group > 0 && a->n_in % a->group == 0);
    for (size_t r = 0; r < a->n_rows; r++) {
        const uint8_t *at = a->panel;
        float sum[PANEL_OUTPUTS] = {0};
        for (size_t k = 0; k < a->n_in; k += a->group) {
            const uint16_t *scales = (const uint16_t *)at, *minimums = scales + PANEL_OUTPUTS;
            at += group_header_bytes(format);
            for (size_t j = k; j < k + a->group; j += QUANT_BLOCK, at += block_bytes) {
                const struct quant_block *x = row_block(a, r, j);
                for (size_t o = 0; o < PANEL_OUTPUTS; o++) {
                    int dots[2] = {0}; /* of 16 inputs each */
                    for (size_t i = 0; i < QUANT_BLOCK; i++)
                        dots[i / HALF_BLOCK] +=
                            (packed_code(format, at + header_bytes, o, i) - weight_code_offset(format)) *
                            x->q[i];
                    float scale = f16_to_f32(scales[o]);
                    int dot = dots[0] + dots[1];
                    if (format == WEIGHT_K6)
                        dot = dots[0] * (int8_t)at[o] + dots[1] * (int8_t)at[PANEL_OUTPUTS + o];
                    if (weight_has_minimums(format))
                        scale *= (float)at[o];
                    sum[o] = fmaf((float)dot, x->scale * scale, sum[o]);
                    if (weight_has_minimums(format))
                        sum[o] = fmaf((0.0f - f16_to_f32(minimums[o])) * (float)at[PANEL_OUTPUTS + o],
                                      x->total, sum[o]);
                }
            }
        }
        for (size_t o = 0; o < a->n_out; o++)
            a->out[r * a->out_stride + o] = add_bias(a, o, sum[o]);
    }
}

LINEAR_REF(linear_int8_ref, linear_quantized, WEIGHT_INT8, code_int8)

LINEAR_REF(linear_int4_ref, linear_quantized, WEIGHT_INT4, code_int4)

LINEAR_REF(linear_uint4_ref, linear_quantized, WEIGHT_UINT4, code_uint4)

LINEAR_REF(linear_int5_ref, linear_blocks, WEIGHT_INT5)

LINEAR_REF(linear_k4_ref, linear_blocks, WEIGHT_K4)

LINEAR_REF(linear_k5_ref, linear_blocks, WEIGHT_K5)

LINEAR_REF(linear_k6_ref, linear_blocks, WEIGHT_K6)
