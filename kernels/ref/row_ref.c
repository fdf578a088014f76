/* Reference of the kernels over one row or head: quantisation, norm, rotation, activation, soft cap. */
#include <math.h>
#include <string.h>
#include "base/assert.h"
#include "kernels/kernel_table.h"
#include "kernels/ref/math_ref.h"

static int round_to_even(float x)
{
    return (int)(f32_to_bits(x + ROUND_MAGIC) - ROUND_MAGIC_BITS);
}

void quantize_row_ref(const float *x, size_t n, struct quant_block *out, size_t stride)
{
    ASSERT(n % QUANT_BLOCK == 0);
    for (size_t b = 0; b < n / QUANT_BLOCK; b++, out += stride) {
        const float *in = x + b * QUANT_BLOCK;
        uint32_t amax_bits = 0; /* as bits, so that a NaN is the greatest */
        for (size_t i = 0; i < QUANT_BLOCK; i++) {
            uint32_t bits = f32_to_bits(in[i]) & 0x7fffffffu;
            amax_bits = bits > amax_bits ? bits : amax_bits;
        }
        float amax = f32_from_bits(amax_bits);
        bool finite = amax_bits < 0x7f800000u;
        *out = (struct quant_block){.scale = finite ? 0.0f : NAN, .total = finite ? 0.0f : NAN};
        if (!finite || amax < QUANT_AMAX_MIN)
            continue;
        out->scale = amax / 127.0f;
        float inverse = 127.0f / amax;
        int32_t sum = 0, low = 0;
        for (size_t i = 0; i < QUANT_BLOCK; i++) {
            int code = round_to_even(in[i] * inverse);
            out->q[i] = (int8_t)code;
            sum += code;
            low += i < QUANT_BLOCK / 2 ? code : 0;
        }
        out->minus_8_sum = -8 * sum;
        out->minus_8_low = -8 * low;
        out->total = out->scale * (float)sum;
    }
}

uint16_t quantize_kv_ref(const float *x, size_t n, int8_t *codes)
{
    uint32_t amax_bits = 0; /* as bits, so that a NaN is the greatest */
    for (size_t i = 0; i < n; i++) {
        uint32_t bits = f32_to_bits(x[i]) & 0x7fffffffu;
        amax_bits = bits > amax_bits ? bits : amax_bits;
    }
    float amax = f32_from_bits(amax_bits);
    bool finite = amax_bits < 0x7f800000u;
    memset(codes, 0, round_up(n, LANES));
    if (!finite || amax < QUANT_AMAX_MIN)
        return bf16_from_f32(finite ? 0.0f : NAN);
    uint16_t scale = bf16_from_f32(amax / 127.0f);
    float inverse = 1.0f / bf16_to_f32(scale);
    for (size_t i = 0; i < n; i++)
        codes[i] = (int8_t)round_to_even(x[i] * inverse);
    return scale;
}

static float rms_scale(const float *x, size_t n, float eps)
{
    float lanes[LANES] = {0};
    for (size_t i = 0; i < n; i++)
        lanes[i % LANES] = fmaf(x[i], x[i], lanes[i % LANES]);
    return 1.0f / sqrtf(sum_lanes_ref(lanes) / (float)n + eps);
}

void norm_row_ref(const struct norm_args *a)
{
    ASSERT(a->n > 0 && (a->add != NULL || a->add_weight == NULL));
    if (a->add_weight != NULL) {
        float scale = rms_scale(a->add, a->n, a->eps);
        for (size_t i = 0; i < a->n; i++)
            a->residual[i] += a->add[i] * scale * a->add_weight[i];
    } else if (a->add != NULL) {
        for (size_t i = 0; i < a->n; i++)
            a->residual[i] += a->add[i];
    }
    float scale = rms_scale(a->residual, a->n, a->eps);
    for (size_t i = 0; i < a->n; i++)
        a->out[i] = a->residual[i] * scale * a->weight[i];
}

void rope_head_ref(float *x, const float *cosines, const float *sines, size_t n_freq)
{
    for (size_t i = 0; i < n_freq; i++) {
        float x0 = x[i], x1 = x[i + n_freq];
        x[i] = fmaf(-x1, sines[i], x0 * cosines[i]);
        x[i + n_freq] = fmaf(x0, sines[i], x1 * cosines[i]);
    }
}

void silu_mul_row_ref(const float *gate, const float *up, size_t n, float *out)
{
    for (size_t i = 0; i < n; i++)
        out[i] = gate[i] / (1.0f + exp_ref(-gate[i])) * up[i];
}

void gelu_mul_row_ref(const float *gate, const float *up, size_t n, float *out)
{
    for (size_t i = 0; i < n; i++) {
        float g = gate[i];
        float inner = fmaf(GELU_CUBIC * (g * g), g, g);
        out[i] = g / (1.0f + exp_ref(inner * GELU_SLOPE)) * up[i];
    }
}

void soft_cap_row_ref(float *x, size_t n, float cap)
{
    ASSERT(cap > 0);
    for (size_t i = 0; i < n; i++)
        x[i] = cap * tanh_ref(x[i] / cap);
}
