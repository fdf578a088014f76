/* The kernels over one row or head, for sixteen lanes of any width. Included once per instruction set, after
 * its simd header, with KERNEL(name) defined as the function's name there. */
#include "kernels/kernel_table.h"
#include "kernels/x86/math_x86.h"

void KERNEL(quantize_row)(const float *x, size_t n, struct quant_block *out, size_t stride)
{
    const vf magic = vf_set1(ROUND_MAGIC);
    const vi magic_bits = vi_set1(ROUND_MAGIC_BITS), no_sign = vi_set1(0x7fffffffu);
    for (size_t b = 0; b < n / QUANT_BLOCK; b++, x += QUANT_BLOCK, out += stride) {
        vf x0 = vf_load(x), x1 = vf_load(x + LANES);
        uint32_t amax_bits =
            vi_reduce_max_u32(vi_max_u32(vi_and(vi_bits(x0), no_sign), vi_and(vi_bits(x1), no_sign)));
        float amax = f32_from_bits(amax_bits);
        bool finite = amax_bits < 0x7f800000u;
        if (!finite || amax < QUANT_AMAX_MIN) {
            *out = (struct quant_block){.scale = finite ? 0.0f : NAN, .total = finite ? 0.0f : NAN};
            continue;
        }
        float scale = amax / 127.0f;
        vf inverse = vf_set1(127.0f / amax);
        vi q0 = vi_sub(vi_bits(vf_add(vf_mul(x0, inverse), magic)), magic_bits);
        vi q1 = vi_sub(vi_bits(vf_add(vf_mul(x1, inverse), magic)), magic_bits);
        int32_t low = vi_reduce_add(q0), sum = low + vi_reduce_add(q1);
        vi_store_bytes(out->q, q0);
        vi_store_bytes(out->q + LANES, q1);
        out->scale = scale;
        out->minus_8_sum = -8 * sum;
        out->minus_8_low = -8 * low;
        out->total = scale * (float)sum;
    }
}

/* The lanes from x on, zeros past the first `left`. */
static inline vf load_lanes(const float *x, size_t left)
{
    return left >= LANES ? vf_load(x) : vf_load_first(x, left);
}

static inline void store_lanes(float *x, vf value, size_t left)
{
    if (left >= LANES)
        vf_store(x, value);
    else
        vf_store_first(x, value, left);
}

uint16_t KERNEL(quantize_kv)(const float *x, size_t n, int8_t *codes)
{
    const vf magic = vf_set1(ROUND_MAGIC);
    const vi magic_bits = vi_set1(ROUND_MAGIC_BITS), no_sign = vi_set1(0x7fffffffu);
    vi max = vi_zero();
    for (size_t i = 0; i < n; i += LANES)
        max = vi_max_u32(max, vi_and(vi_bits(load_lanes(x + i, n - i)), no_sign));
    uint32_t amax_bits = vi_reduce_max_u32(max);
    float amax = f32_from_bits(amax_bits);
    bool finite = amax_bits < 0x7f800000u;
    if (!finite || amax < QUANT_AMAX_MIN) {
        memset(codes, 0, round_up(n, LANES));
        return bf16_from_f32(finite ? 0.0f : NAN);
    }
    uint16_t scale = bf16_from_f32(amax / 127.0f);
    vf inverse = vf_set1(1.0f / bf16_to_f32(scale));
    for (size_t i = 0; i < n; i += LANES) {
        vf shifted = vf_add(vf_mul(load_lanes(x + i, n - i), inverse), magic);
        vi_store_bytes(codes + i, vi_sub(vi_bits(shifted), magic_bits));
    }
    return scale;
}

static inline vf rms_scale(vf squares, size_t n, float eps)
{
    return vf_set1(1.0f / sqrtf(vf_sum(squares) / (float)n + eps));
}

void KERNEL(norm_row)(const struct norm_args *a)
{
    vf squares = vf_zero(), scales = vf_zero();
    if (a->add_weight != NULL) {
        for (size_t i = 0; i < a->n; i += LANES) {
            vf add = load_lanes(a->add + i, a->n - i);
            squares = vf_fma(add, add, squares);
        }
        scales = rms_scale(squares, a->n, a->eps);
        squares = vf_zero();
    }
    for (size_t i = 0; i < a->n; i += LANES) {
        size_t left = a->n - i;
        vf x = load_lanes(a->residual + i, left);
        if (a->add != NULL) {
            vf add = load_lanes(a->add + i, left);
            if (a->add_weight != NULL)
                add = vf_mul(vf_mul(add, scales), load_lanes(a->add_weight + i, left));
            x = vf_add(x, add);
            store_lanes(a->residual + i, x, left);
        }
        squares = vf_fma(x, x, squares);
    }
    scales = rms_scale(squares, a->n, a->eps);
    for (size_t i = 0; i < a->n; i += LANES) {
        size_t left = a->n - i;
        vf x = vf_mul(load_lanes(a->residual + i, left), scales);
        store_lanes(a->out + i, vf_mul(x, load_lanes(a->weight + i, left)), left);
    }
}

void KERNEL(rope_head)(float *x, const float *cosines, const float *sines, size_t n_freq)
{
    for (size_t i = 0; i < n_freq; i += LANES) {
        size_t left = n_freq - i < LANES ? n_freq - i : LANES;
        vf x0 = vf_load_first(x + i, left), x1 = vf_load_first(x + n_freq + i, left);
        vf c = vf_load_first(cosines + i, left), s = vf_load_first(sines + i, left);
        vf_store_first(x + i, vf_fma(vf_negate(x1), s, vf_mul(x0, c)), left);
        vf_store_first(x + n_freq + i, vf_fma(x0, s, vf_mul(x1, c)), left);
    }
}

static inline vf silu(vf g)
{
    return vf_div(g, vf_add(vf_set1(1.0f), vf_exp(vf_negate(g))));
}

static inline vf gelu_tanh(vf g)
{
    vf inner = vf_fma(vf_mul(vf_set1(GELU_CUBIC), vf_mul(g, g)), g, g);
    return vf_div(g, vf_add(vf_set1(1.0f), vf_exp(vf_mul(inner, vf_set1(GELU_SLOPE)))));
}

void KERNEL(silu_mul_row)(const float *gate, const float *up, size_t n, float *out)
{
    size_t i = 0;
    for (; i + LANES <= n; i += LANES)
        vf_store(out + i, vf_mul(silu(vf_load(gate + i)), vf_load(up + i)));
    if (i < n)
        vf_store_first(out + i, vf_mul(silu(vf_load_first(gate + i, n - i)), vf_load_first(up + i, n - i)),
                       n - i);
}

void KERNEL(gelu_mul_row)(const float *gate, const float *up, size_t n, float *out)
{
    size_t i = 0;
    for (; i + LANES <= n; i += LANES)
        vf_store(out + i, vf_mul(gelu_tanh(vf_load(gate + i)), vf_load(up + i)));
    if (i < n)
        vf_store_first(
            out + i, vf_mul(gelu_tanh(vf_load_first(gate + i, n - i)), vf_load_first(up + i, n - i)), n - i);
}

void KERNEL(soft_cap_row)(float *x, size_t n, float cap)
{
    vf caps = vf_set1(cap);
    for (size_t i = 0; i < n; i += LANES) {
        size_t left = n - i < LANES ? n - i : LANES;
        vf y = vf_tanh(vf_div(vf_load_first(x + i, left), caps));
        vf_store_first(x + i, vf_mul(caps, y), left);
    }
}
