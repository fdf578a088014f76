/* ref/quantize_ref.c for sixteen lanes of any width; see rows_x86.h for how it is included. */
#include "kernels/kernel_table.h"
#include "kernels/ref/quantize_ref.h"
#include "kernels/x86/math_x86.h"

static inline uint16_t to_f16(float x)
{
    return (uint16_t)_cvtss_sh(x, _MM_FROUND_TO_NEAREST_INT);
}

static inline float round_scale(float scale)
{
    scale = scale > F16_MAX ? F16_MAX : scale;
    scale = scale < -F16_MAX ? -F16_MAX : scale;
    return _cvtsh_ss(to_f16(scale));
}

static inline float find_extreme(const float *w, size_t n)
{
    const vi no_sign = vi_set1(0x7fffffffu);
    vi max = vi_zero();
    for (size_t i = 0; i < n; i += LANES)
        max = vi_max_u32(max, vi_and(vi_bits(vf_load(w + i)), no_sign));
    const vf amax = vf_set1(f32_from_bits(vi_reduce_max_u32(max)));
    for (size_t i = 0; i < n; i += LANES) {
        vf magnitude = vi_as_float(vi_and(vi_bits(vf_load(w + i)), no_sign));
        uint32_t found = vm_bits(vf_not_less(magnitude, amax));
        if (found != 0)
            return w[i + (size_t)__builtin_ctz(found)];
    }
    return 0;
}

static inline vf codes_of(vf w, vf inverse, vf low, vf high)
{
    const vf magic = vf_set1(ROUND_MAGIC);
    vf code = vf_min(vf_max(vf_mul(w, inverse), low), high);
    return vf_sub(vf_add(code, magic), magic);
}

static inline void write_codes(const float *w, size_t n, float inverse, float low, float high, int8_t *codes)
{
    for (size_t i = 0; i < n; i += LANES) {
        vf code = codes_of(vf_load(w + i), vf_set1(inverse), vf_set1(low), vf_set1(high));
        /* Small integers: their bits follow those of the magic number. */
        vi bits = vi_bits(vf_add(code, vf_set1(ROUND_MAGIC)));
        vi_store_bytes(codes + i, vi_sub(bits, vi_set1(ROUND_MAGIC_BITS)));
    }
}

uint16_t KERNEL(quantize_group_int8)(const float *w, size_t n, int8_t *codes)
{
    float scale = round_scale(fabsf(find_extreme(w, n)) / 127.0f);
    write_codes(w, n, scale > 0 ? 1.0f / scale : 0.0f, -127.0f, 127.0f, codes);
    return to_f16(scale);
}

static inline struct int4_fit fit_int4(const float *w, size_t n, float scale)
{
    const vf inverse = vf_set1(scale == 0 ? 0.0f : 1.0f / scale), minus_scale = vf_set1(-scale);
    const vf low = vf_set1(-8.0f), high = vf_set1(7.0f);
    vf error = vf_zero(), dot = vf_zero(), square = vf_zero();
    for (size_t i = 0; i < n; i += LANES) {
        vf x = vf_load(w + i), code = codes_of(x, inverse, low, high);
        vf miss = vf_fma(code, minus_scale, x);
        error = vf_fma(miss, miss, error);
        dot = vf_fma(x, code, dot);
        square = vf_fma(code, code, square);
    }
    return (struct int4_fit){vf_sum(error), vf_sum(dot), vf_sum(square)};
}

static inline void try_scale(const float *w, size_t n, float scale, float *best_scale, struct int4_fit *best)
{
    scale = round_scale(scale);
    struct int4_fit fit = fit_int4(w, n, scale);
    if (fit.error < best->error) {
        *best = fit;
        *best_scale = scale;
    }
}

uint16_t KERNEL(quantize_group_int4)(const float *w, size_t n, int8_t *codes)
{
    float extreme = find_extreme(w, n), scale = 0;
    struct int4_fit best = fit_int4(w, n, scale);
    for (size_t i = 0; extreme != 0 && i < INT4_TARGETS; i++)
        try_scale(w, n, extreme / int4_targets[i], &scale, &best);
    if (best.square > 0)
        try_scale(w, n, best.dot / best.square, &scale, &best);
    write_codes(w, n, scale == 0 ? 0.0f : 1.0f / scale, -8.0f, 7.0f, codes);
    return to_f16(scale);
}
