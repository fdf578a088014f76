/* Reference of the tile arithmetic: tiles.h says what it computes. */
#include <math.h>
#include <string.h>
#include "base/assert.h"
#include "kernels/kernel_table.h"
#include "kernels/ref/flush_ref.h"
#include "kernels/ref/math_ref.h"
#include "kernels/ref/tile_block_ref.h"

static void check_tile_args(const struct tile_args *a)
{
    ASSERT(a->n_out >= 1 && a->n_out <= PANEL_OUTPUTS);
    ASSERT((uintptr_t)a->panel % 64 == 0 && (uintptr_t)a->scratch % 64 == 0);
    ASSERT(a->first_in < a->last_in && a->last_in <= a->n_in && a->first_in % EXPAND_INPUTS == 0);
    ASSERT(a->last_in == a->n_in || a->last_in % EXPAND_INPUTS == 0);
    ASSERT(a->last_in == a->n_in || (a->scale == NULL && a->bias == NULL));
}

static const uint16_t *scales_at(const struct tile_args *a, enum weight_format format, size_t k)
{
    return (const uint16_t *)panel_group(a, format, k / a->group);
}

/* The codes of a block, less their zero points: [QUANT_BLOCK][PANEL_OUTPUTS]. */
static void read_codes(const struct tile_args *a, enum weight_format format, size_t k, int16_t *out)
{
    const uint8_t *codes = panel_block(a, format, k) + block_header_bytes(format);
    const uint16_t *zeros = scales_at(a, format, k) + PANEL_OUTPUTS;
    for (size_t i = 0; i < QUANT_BLOCK; i++) {
        for (size_t o = 0; o < PANEL_OUTPUTS; o++) {
            int zero = format == WEIGHT_UINT4 ? zeros[o] : weight_code_offset(format);
            out[i * PANEL_OUTPUTS + o] = (int16_t)(packed_code(format, codes, o, i) - zero);
        }
    }
}

/* ---- In bf16 ---- */

/* What the codes of a block are multiplied by, in each half of its inputs, and what is added then. */
static void read_factors(const struct tile_args *a, enum weight_format format, size_t k,
                         float scales[2][PANEL_OUTPUTS], float minus[PANEL_OUTPUTS])
{
    const uint16_t *header = scales_at(a, format, k);
    const uint8_t *block = panel_block(a, format, k);
    for (size_t o = 0; o < PANEL_OUTPUTS; o++) {
        scales[0][o] = scales[1][o] = f16_to_f32(header[o]);
        minus[o] = 0.0f;
        for (size_t half = 0; format == WEIGHT_K6 && half < 2; half++)
            scales[half][o] *= (float)(int8_t)block[half * PANEL_OUTPUTS + o];
        if (!weight_has_minimums(format))
            continue;
        scales[0][o] = scales[1][o] *= (float)block[o];
        minus[o] = (0.0f - f16_to_f32(header[PANEL_OUTPUTS + o])) * (float)block[PANEL_OUTPUTS + o];
    }
}

/* The weights of a block, as floats that are no subnormals: [TILE_INPUTS][PANEL_OUTPUTS]. */
static void read_weights(const struct tile_args *a, enum weight_format format, size_t k, float *out)
{
    if (format == WEIGHT_BF16) {
        size_t n = a->n_in - k < TILE_INPUTS ? a->n_in - k : TILE_INPUTS;
        memset(out, 0, TILE_INPUTS * PANEL_OUTPUTS * sizeof *out);
        for (size_t i = 0; i < n * PANEL_OUTPUTS; i++)
            out[i] = flush_ref(bf16_to_f32(((const uint16_t *)a->panel)[k * PANEL_OUTPUTS + i]));
        return;
    }
    int16_t codes[QUANT_BLOCK * PANEL_OUTPUTS];
    float scales[2][PANEL_OUTPUTS], minus[PANEL_OUTPUTS];
    read_codes(a, format, k, codes);
    read_factors(a, format, k, scales, minus);
    for (size_t i = 0; i < QUANT_BLOCK * PANEL_OUTPUTS; i++) {
        size_t o = i % PANEL_OUTPUTS, half = i / PANEL_OUTPUTS / HALF_BLOCK;
        float exact =
            (float)codes[i] * scales[half][o]; /* so that their sum is that of a fused multiply-add */
        out[i] = bf16_to_f32(bf16_from_f32(exact + minus[o]));
    }
}

/* What the inputs before first_in gave. */
static void begin_sums(const struct tile_args *a, size_t row, float sums[PANEL_OUTPUTS])
{
    memset(sums, 0, PANEL_OUTPUTS * sizeof(float));
    if (a->first_in > 0)
        memcpy(sums, a->out + row * a->out_stride, a->n_out * sizeof(float));
}

/* Scale and bias. */
static void end_all_sums(const struct tile_args *a)
{
    for (size_t r = 0; r < a->n_rows; r++) {
        float *out = a->out + r * a->out_stride;
        for (size_t o = 0; o < a->n_out; o++) {
            float scaled = a->scale == NULL ? out[o] : out[o] * a->scale[o];
            out[o] = a->bias == NULL ? scaled : scaled + a->bias[o];
        }
    }
}

static void tiles_in_bf16(const struct tile_args *a, enum weight_format format)
{
    check_tile_args(a);
    ASSERT(a->x_stride >= round_up(a->n_in, TILE_INPUTS));
    struct tile_args part = *a;
    for (size_t k = a->first_in; k < a->last_in; k += TILE_INPUTS) {
        float w[TILE_INPUTS * PANEL_OUTPUTS];
        read_weights(a, format, k, w);
        part.first_in = k;
        for (size_t r = 0; r < a->n_rows; r++) {
            float sums[PANEL_OUTPUTS];
            begin_sums(&part, r, sums);
            tile_block_ref(w, a->x + r * a->x_stride + k, sums);
            memcpy(a->out + r * a->out_stride, sums, a->n_out * sizeof(float));
        }
    }
    end_all_sums(a);
}

void linear_tile_bf16_ref(const struct tile_args *a)
{
    tiles_in_bf16(a, WEIGHT_BF16);
}

void linear_tile_int8_ref(const struct tile_args *a)
{
    tiles_in_bf16(a, WEIGHT_INT8);
}

void linear_tile_int4_ref(const struct tile_args *a)
{
    tiles_in_bf16(a, WEIGHT_INT4);
}

void linear_tile_uint4_ref(const struct tile_args *a)
{
    tiles_in_bf16(a, WEIGHT_UINT4);
}

void linear_tile_int5_ref(const struct tile_args *a)
{
    tiles_in_bf16(a, WEIGHT_INT5);
}

void linear_tile_k4_ref(const struct tile_args *a)
{
    tiles_in_bf16(a, WEIGHT_K4);
}

void linear_tile_k5_ref(const struct tile_args *a)
{
    tiles_in_bf16(a, WEIGHT_K5);
}

void linear_tile_k6_ref(const struct tile_args *a)
{
    tiles_in_bf16(a, WEIGHT_K6);
}

/* ---- In int8 ---- */

/* A block of one row: codes [WIDE_BLOCK][PANEL_OUTPUTS], less their zero points. */
static void add_wide_block(const int16_t *codes, const float *scales, const int8_t *q, float q_scale,
                           float *sums)
{
    int dots[PANEL_OUTPUTS] = {0};
    for (size_t i = 0; i < WIDE_BLOCK; i++) {
        for (size_t o = 0; o < PANEL_OUTPUTS; o++)
            dots[o] += codes[i * PANEL_OUTPUTS + o] * q[i];
    }
    for (size_t o = 0; o < PANEL_OUTPUTS; o++)
        sums[o] = fmaf((float)dots[o], q_scale * scales[o], sums[o]);
}

static void tiles_in_int8(const struct tile_args *a, enum weight_format format)
{
    check_tile_args(a);
    ASSERT(a->group % WIDE_BLOCK == 0 && a->n_in % a->group == 0);
    struct tile_args part = *a;
    for (size_t k = a->first_in; k < a->last_in; k += WIDE_BLOCK) {
        int16_t codes[WIDE_BLOCK * PANEL_OUTPUTS];
        float scales[PANEL_OUTPUTS];
        for (size_t o = 0; o < PANEL_OUTPUTS; o++)
            scales[o] = f16_to_f32(scales_at(a, format, k)[o]);
        for (size_t i = 0; i < WIDE_BLOCK; i += QUANT_BLOCK)
            read_codes(a, format, k + i, codes + i * PANEL_OUTPUTS);
        part.first_in = k;
        for (size_t r = 0; r < a->n_rows; r++) {
            float sums[PANEL_OUTPUTS];
            begin_sums(&part, r, sums);
            add_wide_block(codes, scales, a->q + r * a->q_stride + k,
                           a->q_scale[r * a->q_block_stride + k / WIDE_BLOCK], sums);
            memcpy(a->out + r * a->out_stride, sums, a->n_out * sizeof(float));
        }
    }
    end_all_sums(a);
}

void linear_wide_int8_ref(const struct tile_args *a)
{
    tiles_in_int8(a, WEIGHT_INT8);
}

void linear_wide_int4_ref(const struct tile_args *a)
{
    tiles_in_int8(a, WEIGHT_INT4);
}

void linear_wide_uint4_ref(const struct tile_args *a)
{
    tiles_in_int8(a, WEIGHT_UINT4);
}

/* ---- Activations ---- */

void round_row_ref(const float *x, size_t n, uint16_t *out)
{
    for (size_t i = 0; i < n; i++)
        out[i] = bf16_from_f32(flush_ref(x[i]));
    memset(out + n, 0, (round_up(n, TILE_INPUTS) - n) * sizeof *out);
}

void quantize_wide_row_ref(const float *x, size_t n, int8_t *q, float *scale)
{
    ASSERT(n % WIDE_BLOCK == 0);
    for (size_t b = 0; b < n / WIDE_BLOCK; b++, x += WIDE_BLOCK, q += WIDE_BLOCK) {
        uint32_t amax_bits = 0; /* as bits, so that a NaN is the greatest */
        for (size_t i = 0; i < WIDE_BLOCK; i++) {
            uint32_t bits = f32_to_bits(x[i]) & 0x7fffffffu;
            amax_bits = bits > amax_bits ? bits : amax_bits;
        }
        float amax = f32_from_bits(amax_bits);
        bool finite = amax_bits < 0x7f800000u;
        if (!finite || amax < QUANT_AMAX_MIN) {
            scale[b] = finite ? 0.0f : NAN;
            memset(q, 0, WIDE_BLOCK);
            continue;
        }
        scale[b] = amax / 127.0f;
        float inverse = 127.0f / amax;
        for (size_t i = 0; i < WIDE_BLOCK; i++)
            q[i] = (int8_t)(int)(f32_to_bits(x[i] * inverse + ROUND_MAGIC) - ROUND_MAGIC_BITS);
    }
}
