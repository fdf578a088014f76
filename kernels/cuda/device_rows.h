/* What the kernels over rows share: activations of either type, elements of a packed weight, sums across a
 * block. Included by .cu files alone. */
#pragma once

#include "kernels/cuda/cuda_kernels.h"
#include "kernels/cuda/ptx.h"

/* ---- Activations: f32, or bf16 as its bits ---- */

DEVICE float act_load(const float *at)
{
    return *at;
}

DEVICE float act_load(const uint16_t *at)
{
    return from_bf16(*at);
}

DEVICE void act_store(float *at, float value)
{
    *at = value;
}

DEVICE void act_store(uint16_t *at, float value)
{
    *at = to_bf16(value);
}

/* A value as the type holds it. */
template <typename type> DEVICE float act_round(float value)
{
    return sizeof(type) == sizeof(uint16_t) ? from_bf16(to_bf16(value)) : value;
}

/* Four neighbours, aligned to their size together. */
DEVICE void act_load_4(float out[4], const float *at)
{
    vec16 bits = load_16(at);
    for (int i = 0; i < 4; i++)
        out[i] = bits_float(bits.w[i]);
}

DEVICE void act_load_4(float out[4], const uint16_t *at)
{
    vec8 bits = load_8(at);
    for (int i = 0; i < 2; i++) {
        out[2 * i] = from_bf16_low(bits.w[i]);
        out[2 * i + 1] = from_bf16_high(bits.w[i]);
    }
}

DEVICE void act_store_4(float *at, const float in[4])
{
    vec16 bits;
    for (int i = 0; i < 4; i++)
        bits.w[i] = float_bits(in[i]);
    store_16(at, bits);
}

DEVICE void act_store_4(uint16_t *at, const float in[4])
{
    vec8 bits;
    for (int i = 0; i < 2; i++)
        bits.w[i] = to_bf16x2(in[2 * i], in[2 * i + 1]);
    store_8(at, bits);
}

/* Up to four elements of a row from k; none past n. */
template <typename type>
DEVICE void load_group(float out[4], const type *row, uint32_t k, uint32_t n, bool whole)
{
    if (whole) {
        act_load_4(out, row + k);
        return;
    }
    for (uint32_t i = 0; i < 4; i++)
        out[i] = k + i < n ? act_load(row + k + i) : 0.0f;
}

template <typename type>
DEVICE void store_group(type *row, const float in[4], uint32_t k, uint32_t n, bool whole)
{
    if (whole) {
        act_store_4(row + k, in);
        return;
    }
    for (uint32_t i = 0; i < 4 && k + i < n; i++)
        act_store(row + k + i, in[i]);
}

/* ---- The step ---- */

/* Rows that the op covers. */
DEVICE uint32_t count_rows(const struct cuda_rows *rows)
{
    if (rows->count == CUDA_COUNT_ROWS)
        return rows->step->n_rows;
    uint32_t n_outputs = rows->step->n_outputs;
    uint32_t left = n_outputs > rows->first ? n_outputs - rows->first : 0;
    return left < rows->max ? left : rows->max;
}

/* ---- Weights ---- */

/* The same of a matrix that lies in panels. */
DEVICE float packed_value(const struct cuda_matrix *m, enum linear_layout layout, uint32_t o, uint32_t k)
{
    uint32_t inputs = linear_block_inputs(layout), panel = o / LINEAR_PANEL, in_panel = o % LINEAR_PANEL;
    const uint8_t *block = (const uint8_t *)m->codes +
                           linear_block_offset(layout, linear_blocks(layout, m->n_in), panel, k / inputs);
    uint8_t byte = block[linear_code_offset(layout, in_panel, k % inputs)];
    if (layout >= LINEAR_S8)
        return (layout == LINEAR_S8 ? (float)(int8_t)byte : from_e4m3(byte)) * ((const float *)m->scales)[o];
    uint32_t n_groups = m->group == m->n_in ? 1 : linear_groups(layout, m->n_in, m->group);
    size_t group = (size_t)panel * n_groups + k / m->group;
    const uint16_t *scales =
        (const uint16_t *)m->scales + group * (linear_group_bytes(layout) / 2) + in_panel;
    float code = (float)(int8_t)byte;
    if (layout == LINEAR_INT4)
        code = (float)((byte >> linear_int4_shift(o) & 15) - 8);
    if (layout == LINEAR_UINT4)
        code = (float)((byte >> linear_int4_shift(o) & 15) + 128) + from_bf16(scales[LINEAR_PANEL]);
    return code * from_bf16(scales[0]);
}

/* Element k of row o, as f32: code * scale. */
DEVICE float matrix_value(const struct cuda_matrix *m, uint32_t o, uint32_t k)
{
    if (m->packed > 1 + LINEAR_BF16)
        return packed_value(m, (enum linear_layout)(m->packed - 1), o, k);
    const uint8_t *row = (const uint8_t *)m->codes + (size_t)o * m->row_bytes;
    size_t group = (size_t)o * (m->n_in / m->group) + k / m->group;
    switch (m->packed != 0 ? (uint32_t)WEIGHT_BF16 : m->format) {
    case WEIGHT_F32:
        return ((const float *)row)[k];
    case WEIGHT_BF16:
        return from_bf16(((const uint16_t *)row)[k]);
    case WEIGHT_F16:
        return from_f16(((const uint16_t *)row)[k]);
    case WEIGHT_INT8: {
        float code = (float)((const int8_t *)row)[k];
        return code * (m->group == m->n_in ? ((const float *)m->scales)[o]
                                           : from_f16(((const uint16_t *)m->scales)[group]));
    }
    case WEIGHT_INT4: {
        int code = (row[k / 2] >> (k % 2 * 4) & 15) - 8;
        return (float)code * from_f16(((const uint16_t *)m->scales)[group]);
    }
    case WEIGHT_UINT4: {
        const uint16_t *pair = (const uint16_t *)m->scales + 2 * group;
        return (float)((row[k / 2] >> (k % 2 * 4) & 15) - pair[1]) * from_f16(pair[0]);
    }
    case WEIGHT_FP8:
        return from_e4m3(row[k]) * ((const float *)m->scales)[o];
    default:
        trap();
        return 0;
    }
}

/* ---- Across a block: the same bits in every thread; the order hangs on the number of threads alone ---- */

enum { BLOCK_WARPS_MAX = 32 };

/* parts: shared, nobody else's until the next barrier. */
DEVICE float block_sum(float x, float parts[BLOCK_WARPS_MAX])
{
    x = warp_sum(x);
    if (lane_id() == 0)
        parts[warp_id()] = x;
    barrier();
    return warp_sum(lane_id() < block_threads() / WARP_LANES ? parts[lane_id()] : 0.0f);
}

DEVICE float block_max(float x, float parts[BLOCK_WARPS_MAX])
{
    x = warp_max(x);
    if (lane_id() == 0)
        parts[warp_id()] = x;
    barrier();
    return warp_max(parts[lane_id() < block_threads() / WARP_LANES ? lane_id() : 0]);
}
