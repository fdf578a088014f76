/* Sixteen lanes in two AVX2 registers (with FMA and F16C); see simd_avx512.h. */
#pragma once

#include <immintrin.h>
#include <stddef.h>
#include <stdint.h>

typedef struct {
    __m256 a, b;
} vf;
typedef struct {
    __m256i a, b;
} vi;
typedef struct {
    __m256 a, b; /* all bits of a lane, or none */
} vm;

/* ---- f32 ---- */

static inline vf vf_zero(void)
{
    return (vf){_mm256_setzero_ps(), _mm256_setzero_ps()};
}
static inline vf vf_set1(float x)
{
    __m256 v = _mm256_set1_ps(x);
    return (vf){v, v};
}
static inline vf vf_load(const float *p)
{
    return (vf){_mm256_loadu_ps(p), _mm256_loadu_ps(p + 8)};
}
/* Lanes [begin, end) of sixteen. */
static inline vm vm_range(uint32_t begin, uint32_t end)
{
    const __m256i low = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7),
                  high = _mm256_add_epi32(low, _mm256_set1_epi32(8));
    const __m256i before = _mm256_set1_epi32((int)begin - 1), behind = _mm256_set1_epi32((int)end);
    return (vm){_mm256_castsi256_ps(
                    _mm256_and_si256(_mm256_cmpgt_epi32(low, before), _mm256_cmpgt_epi32(behind, low))),
                _mm256_castsi256_ps(
                    _mm256_and_si256(_mm256_cmpgt_epi32(high, before), _mm256_cmpgt_epi32(behind, high)))};
}
static inline vm vm_first(size_t n) /* lanes [0, n), n <= 16 */
{
    return vm_range(0, (uint32_t)n);
}
/* Lanes [0, n), the others 0; reads no further. */
static inline vf vf_load_first(const float *p, size_t n)
{
    vm m = vm_first(n);
    return (vf){_mm256_maskload_ps(p, _mm256_castps_si256(m.a)),
                _mm256_maskload_ps(p + 8, _mm256_castps_si256(m.b))};
}
static inline void vf_store(float *p, vf x)
{
    _mm256_storeu_ps(p, x.a);
    _mm256_storeu_ps(p + 8, x.b);
}
static inline void vf_store_first(float *p, vf x, size_t n)
{
    vm m = vm_first(n);
    _mm256_maskstore_ps(p, _mm256_castps_si256(m.a), x.a);
    _mm256_maskstore_ps(p + 8, _mm256_castps_si256(m.b), x.b);
}
static inline __m256 widen_bf16(const uint16_t *p)
{
    __m256i wide = _mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i *)p));
    return _mm256_castsi256_ps(_mm256_slli_epi32(wide, 16));
}
static inline vf vf_load_bf16(const uint16_t *p)
{
    return (vf){widen_bf16(p), widen_bf16(p + 8)};
}
static inline vf vf_load_f16(const uint16_t *p)
{
    return (vf){_mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)p)),
                _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)(p + 8)))};
}
static inline vf vf_add(vf x, vf y)
{
    return (vf){_mm256_add_ps(x.a, y.a), _mm256_add_ps(x.b, y.b)};
}
static inline vf vf_sub(vf x, vf y)
{
    return (vf){_mm256_sub_ps(x.a, y.a), _mm256_sub_ps(x.b, y.b)};
}
static inline vf vf_mul(vf x, vf y)
{
    return (vf){_mm256_mul_ps(x.a, y.a), _mm256_mul_ps(x.b, y.b)};
}
static inline vf vf_div(vf x, vf y)
{
    return (vf){_mm256_div_ps(x.a, y.a), _mm256_div_ps(x.b, y.b)};
}
static inline vf vf_fma(vf x, vf y, vf z) /* x * y + z, rounded once */
{
    return (vf){_mm256_fmadd_ps(x.a, y.a, z.a), _mm256_fmadd_ps(x.b, y.b, z.b)};
}
/* y where either is NaN. */
static inline vf vf_max(vf x, vf y)
{
    return (vf){_mm256_max_ps(x.a, y.a), _mm256_max_ps(x.b, y.b)};
}
static inline vf vf_min(vf x, vf y)
{
    return (vf){_mm256_min_ps(x.a, y.a), _mm256_min_ps(x.b, y.b)};
}
/* Lanes added pairwise: 0 + 8 .., 0 + 4 .., 0 + 2, 0 + 1. */
static inline float sum_eight(__m256 x)
{
    __m128 four = _mm_add_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps(x, 1));
    __m128 two = _mm_add_ps(four, _mm_movehl_ps(four, four));
    return _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)));
}
static inline float vf_sum(vf x)
{
    return sum_eight(_mm256_add_ps(x.a, x.b));
}
static inline float vf_reduce_max(vf x)
{
    __m256 eight = _mm256_max_ps(x.a, x.b);
    __m128 four = _mm_max_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
    __m128 two = _mm_max_ps(four, _mm_movehl_ps(four, four));
    return _mm_cvtss_f32(_mm_max_ss(two, _mm_movehdup_ps(two)));
}

/* ---- Choices ---- */

static inline vm vf_less(vf x, vf y)
{
    return (vm){_mm256_cmp_ps(x.a, y.a, _CMP_LT_OQ), _mm256_cmp_ps(x.b, y.b, _CMP_LT_OQ)};
}
static inline vm vf_greater(vf x, vf y)
{
    return (vm){_mm256_cmp_ps(x.a, y.a, _CMP_GT_OQ), _mm256_cmp_ps(x.b, y.b, _CMP_GT_OQ)};
}
static inline vm vf_not_less(vf x, vf y) /* x >= y; false for NaN */
{
    return (vm){_mm256_cmp_ps(x.a, y.a, _CMP_GE_OQ), _mm256_cmp_ps(x.b, y.b, _CMP_GE_OQ)};
}
static inline vm vf_equal_or_nan(vf x, vf y)
{
    return (vm){_mm256_cmp_ps(x.a, y.a, _CMP_EQ_UQ), _mm256_cmp_ps(x.b, y.b, _CMP_EQ_UQ)};
}
static inline vm vm_or(vm x, vm y)
{
    return (vm){_mm256_or_ps(x.a, y.a), _mm256_or_ps(x.b, y.b)};
}
static inline uint32_t vm_bits(vm m)
{
    return (uint32_t)_mm256_movemask_ps(m.a) | (uint32_t)_mm256_movemask_ps(m.b) << 8;
}
static inline vf vf_select(vm m, vf yes, vf no)
{
    return (vf){_mm256_blendv_ps(no.a, yes.a, m.a), _mm256_blendv_ps(no.b, yes.b, m.b)};
}
static inline vi vi_select(vm m, vi yes, vi no)
{
    return (vi){_mm256_blendv_epi8(no.a, yes.a, _mm256_castps_si256(m.a)),
                _mm256_blendv_epi8(no.b, yes.b, _mm256_castps_si256(m.b))};
}

/* ---- Integers ---- */

static inline vi vi_zero(void)
{
    return (vi){_mm256_setzero_si256(), _mm256_setzero_si256()};
}
static inline vi vi_set1(uint32_t x)
{
    __m256i v = _mm256_set1_epi32((int)x);
    return (vi){v, v};
}
static inline vi vi_load(const void *p)
{
    return (vi){_mm256_loadu_si256(p), _mm256_loadu_si256((const __m256i *)p + 1)};
}
static inline vi vi_load_u16(const uint16_t *p)
{
    return (vi){_mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i *)p)),
                _mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i *)(p + 8)))};
}
static inline void vi_store(void *p, vi x)
{
    _mm256_storeu_si256(p, x.a);
    _mm256_storeu_si256((__m256i *)p + 1, x.b);
}
static inline vi vi_add(vi x, vi y)
{
    return (vi){_mm256_add_epi32(x.a, y.a), _mm256_add_epi32(x.b, y.b)};
}
static inline vi vi_sub(vi x, vi y)
{
    return (vi){_mm256_sub_epi32(x.a, y.a), _mm256_sub_epi32(x.b, y.b)};
}
static inline vi vi_and(vi x, vi y)
{
    return (vi){_mm256_and_si256(x.a, y.a), _mm256_and_si256(x.b, y.b)};
}
static inline vi vi_xor(vi x, vi y)
{
    return (vi){_mm256_xor_si256(x.a, y.a), _mm256_xor_si256(x.b, y.b)};
}
/* (x & mask) | y */
static inline vi vi_merge(vi x, vi mask, vi y)
{
    return (vi){_mm256_or_si256(_mm256_and_si256(x.a, mask.a), y.a),
                _mm256_or_si256(_mm256_and_si256(x.b, mask.b), y.b)};
}
/* Bytes, unsigned and signed, in lanes of 32 bits. */
static inline vi vi_load_u8(const uint8_t *p)
{
    return (vi){_mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i *)p)),
                _mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i *)(p + 8)))};
}
static inline vi vi_load_i8(const uint8_t *p)
{
    return (vi){_mm256_cvtepi8_epi32(_mm_loadl_epi64((const __m128i *)p)),
                _mm256_cvtepi8_epi32(_mm_loadl_epi64((const __m128i *)(p + 8)))};
}
static inline vi vi_max_u32(vi x, vi y)
{
    return (vi){_mm256_max_epu32(x.a, y.a), _mm256_max_epu32(x.b, y.b)};
}
#define vi_shift_left(x, n)       ((vi){_mm256_slli_epi32((x).a, (n)), _mm256_slli_epi32((x).b, (n))})
#define vi_shift_right(x, n)      ((vi){_mm256_srli_epi32((x).a, (n)), _mm256_srli_epi32((x).b, (n))})
#define vi_shift_right_sign(x, n) ((vi){_mm256_srai_epi32((x).a, (n)), _mm256_srai_epi32((x).b, (n))})
static inline vi vi_bits(vf x)
{
    return (vi){_mm256_castps_si256(x.a), _mm256_castps_si256(x.b)};
}
static inline vf vi_as_float(vi x)
{
    return (vf){_mm256_castsi256_ps(x.a), _mm256_castsi256_ps(x.b)};
}
static inline vf vi_to_float(vi x)
{
    return (vf){_mm256_cvtepi32_ps(x.a), _mm256_cvtepi32_ps(x.b)};
}
static inline void mul_wide_eight(__m256i a, __m256i b, __m256i *high, __m256i *low)
{
    __m256i even = _mm256_mul_epu32(a, b);
    __m256i odd = _mm256_mul_epu32(_mm256_srli_epi64(a, 32), _mm256_srli_epi64(b, 32));
    *high = _mm256_blend_epi32(_mm256_srli_epi64(even, 32), odd, 0xaa);
    *low = _mm256_blend_epi32(even, _mm256_slli_epi64(odd, 32), 0xaa);
}
/* Both halves of the 64-bit product. */
static inline void vi_mul_wide(vi x, vi y, vi *high, vi *low)
{
    mul_wide_eight(x.a, y.a, &high->a, &low->a);
    mul_wide_eight(x.b, y.b, &high->b, &low->b);
}
/* Within each quarter of four lanes. */
static inline vi vi_unpack_low(vi x, vi y)
{
    return (vi){_mm256_unpacklo_epi32(x.a, y.a), _mm256_unpacklo_epi32(x.b, y.b)};
}
static inline vi vi_unpack_high(vi x, vi y)
{
    return (vi){_mm256_unpackhi_epi32(x.a, y.a), _mm256_unpackhi_epi32(x.b, y.b)};
}
static inline vi vi_unpack_low_pairs(vi x, vi y)
{
    return (vi){_mm256_unpacklo_epi64(x.a, y.a), _mm256_unpacklo_epi64(x.b, y.b)};
}
static inline vi vi_unpack_high_pairs(vi x, vi y)
{
    return (vi){_mm256_unpackhi_epi64(x.a, y.a), _mm256_unpackhi_epi64(x.b, y.b)};
}
static inline uint32_t vi_reduce_max_u32(vi x)
{
    __m256i eight = _mm256_max_epu32(x.a, x.b);
    __m128i four = _mm_max_epu32(_mm256_castsi256_si128(eight), _mm256_extracti128_si256(eight, 1));
    four = _mm_max_epu32(four, _mm_shuffle_epi32(four, _MM_SHUFFLE(1, 0, 3, 2)));
    four = _mm_max_epu32(four, _mm_shuffle_epi32(four, _MM_SHUFFLE(2, 3, 0, 1)));
    return (uint32_t)_mm_cvtsi128_si32(four);
}
static inline int32_t vi_reduce_add(vi x)
{
    __m256i eight = _mm256_add_epi32(x.a, x.b);
    __m128i four = _mm_add_epi32(_mm256_castsi256_si128(eight), _mm256_extracti128_si256(eight, 1));
    four = _mm_add_epi32(four, _mm_shuffle_epi32(four, _MM_SHUFFLE(1, 0, 3, 2)));
    four = _mm_add_epi32(four, _mm_shuffle_epi32(four, _MM_SHUFFLE(2, 3, 0, 1)));
    return _mm_cvtsi128_si32(four);
}
/* Lanes, each in -128..127, as bytes. */
static inline void vi_store_bytes(int8_t *p, vi x)
{
    /* Packing works within halves: a0-3 b0-3 | a4-7 b4-7. */
    __m256i words = _mm256_permute4x64_epi64(_mm256_packs_epi32(x.a, x.b), _MM_SHUFFLE(3, 1, 2, 0));
    _mm_storeu_si128((__m128i *)p,
                     _mm_packs_epi16(_mm256_castsi256_si128(words), _mm256_extracti128_si256(words, 1)));
}
/* The chosen lanes, close together; returns their number. Writes nothing else. */
static inline size_t vi_store_chosen(void *p, vm m, vi x)
{
    uint32_t lanes[16], *out = p;
    size_t n = 0;
    vi_store(lanes, x);
    for (uint32_t bits = vm_bits(m); bits != 0; bits &= bits - 1)
        out[n++] = lanes[__builtin_ctz(bits)];
    return n;
}
static inline __m128 vf_first_four(vf x)
{
    return _mm256_castps256_ps128(x.a);
}
/* a * b + c, rounded once. */
static inline float fma_of(float a, float b, float c)
{
    return _mm_cvtss_f32(_mm_fmadd_ss(_mm_set_ss(a), _mm_set_ss(b), _mm_set_ss(c)));
}

/* ---- Integer dot products: linear_int_x86.h says how they are called ---- */

/* Four codes in every lane. */
static inline vi vi_set1_quad(const int8_t *x)
{
    int32_t bytes;
    __builtin_memcpy(&bytes, x, sizeof bytes);
    __m256i eight = _mm256_set1_epi32(bytes);
    return (vi){eight, eight};
}

#if defined(__AVXVNNI__)
enum { FIVE_BIT_STEPS = 8 };
static inline vi dot_start(int32_t minus_8_sum, int is_int8)
{
    __m256i start = _mm256_set1_epi32(minus_8_sum * (is_int8 ? 16 : 1)); /* times the codes' offset */
    return (vi){start, start};
}
static inline vi dot_step(vi acc, vi w, const int8_t *from, int is_int8)
{
    (void)is_int8;
    vi x = vi_set1_quad(from);
    return (vi){_mm256_dpbusd_avx_epi32(acc.a, w.a, x.a), _mm256_dpbusd_avx_epi32(acc.b, w.b, x.b)};
}
static inline vi dot_finish(vi acc, int32_t minus_8_sum, int is_int8)
{
    (void)minus_8_sum, (void)is_int8;
    return acc;
}
static inline vi dot_two(vi acc, vi w0, const int8_t *from0, vi w1, const int8_t *from1)
{
    return dot_step(dot_step(acc, w0, from0, 0), w1, from1, 0);
}
/* Zeros are 16-bit numbers in lanes of 32, sums at most 32 * 127. */
static inline vi dot_start_zeros(int32_t q_sum, vi zeros)
{
    const __m256i minus = _mm256_set1_epi32(-q_sum & 0xffff);
    return (vi){_mm256_madd_epi16(zeros.a, minus), _mm256_madd_epi16(zeros.b, minus)};
}
static inline vi dot_finish_zeros(vi acc, int32_t q_sum, vi zeros)
{
    (void)q_sum, (void)zeros;
    return acc;
}
#else
enum { FIVE_BIT_STEPS = 4 }; /* at most 4 * 2 * 31 * 127 in a 16-bit lane: 31496 */
/* A sum that the next products are added to: left alone, the compiler multiplies a whole block first and adds
 * in a tree, with every product on its way through memory. */
static inline __m256i in_turn(__m256i acc)
{
    __asm__("" : "+x"(acc));
    return acc;
}
static inline __m256i dot_step_eight(__m256i acc, __m256i w, __m256i x, int is_int8)
{
    if (!is_int8) /* at most 8 * 2 * 15 * 127 in a 16-bit lane after eight steps: 30480 */
        return in_turn(_mm256_add_epi16(acc, _mm256_maddubs_epi16(w, x)));
    /* |code| times sign(code) x: at most 2 * 128 * 127 = 32512; an unsigned w would reach twice that and
     * saturate.
     */
    __m256i code = _mm256_xor_si256(w, _mm256_set1_epi8((char)0x80));
    __m256i pairs = _mm256_maddubs_epi16(_mm256_abs_epi8(code), _mm256_sign_epi8(x, code));
    return in_turn(_mm256_add_epi32(acc, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1))));
}
static inline vi dot_start(int32_t minus_8_sum, int is_int8)
{
    (void)minus_8_sum, (void)is_int8;
    return vi_zero();
}
static inline vi dot_step(vi acc, vi w, const int8_t *from, int is_int8)
{
    vi x = vi_set1_quad(from);
    return (vi){dot_step_eight(acc.a, w.a, x.a, is_int8), dot_step_eight(acc.b, w.b, x.b, is_int8)};
}
static inline vi dot_finish(vi acc, int32_t minus_8_sum, int is_int8)
{
    if (is_int8)
        return acc;
    const __m256i ones = _mm256_set1_epi16(1), minus = _mm256_set1_epi32(minus_8_sum);
    return (vi){_mm256_add_epi32(_mm256_madd_epi16(acc.a, ones), minus),
                _mm256_add_epi32(_mm256_madd_epi16(acc.b, ones), minus)};
}
static inline __m256i dot_two_eight(__m256i acc, __m256i w0, __m256i x0, __m256i w1, __m256i x1)
{
    __m256i pairs = _mm256_add_epi16(_mm256_maddubs_epi16(w0, x0), _mm256_maddubs_epi16(w1, x1));
    return in_turn(_mm256_add_epi32(acc, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1))));
}
/* Codes of at most 63: a lane of 16 bits reaches 4 * 63 * 127 = 32004. */
static inline vi dot_two(vi acc, vi w0, const int8_t *from0, vi w1, const int8_t *from1)
{
    vi x0 = vi_set1_quad(from0), x1 = vi_set1_quad(from1);
    return (vi){dot_two_eight(acc.a, w0.a, x0.a, w1.a, x1.a), dot_two_eight(acc.b, w0.b, x0.b, w1.b, x1.b)};
}
static inline vi dot_start_zeros(int32_t q_sum, vi zeros)
{
    (void)q_sum, (void)zeros;
    return vi_zero();
}
/* Zeros are 16-bit numbers in lanes of 32, sums at most 32 * 127. */
static inline vi dot_finish_zeros(vi acc, int32_t q_sum, vi zeros)
{
    const __m256i ones = _mm256_set1_epi16(1), sum = _mm256_set1_epi32(q_sum & 0xffff);
    return (vi){_mm256_sub_epi32(_mm256_madd_epi16(acc.a, ones), _mm256_madd_epi16(zeros.a, sum)),
                _mm256_sub_epi32(_mm256_madd_epi16(acc.b, ones), _mm256_madd_epi16(zeros.b, sum))};
}
#endif
