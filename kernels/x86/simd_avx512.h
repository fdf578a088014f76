/* Sixteen lanes in one AVX-512 register: the vocabulary of the kernels in this folder. The same names stand
 * in simd_avx2.h over two registers. vf: f32, vi: 32-bit integers, vm: a choice per lane. */
#pragma once

#include <immintrin.h>
#include <stddef.h>
#include <stdint.h>

typedef __m512 vf;
typedef __m512i vi;
typedef __mmask16 vm;

/* ---- f32 ---- */

static inline vf vf_zero(void)
{
    return _mm512_setzero_ps();
}
static inline vf vf_set1(float x)
{
    return _mm512_set1_ps(x);
}
static inline vf vf_load(const float *p)
{
    return _mm512_loadu_ps(p);
}
static inline vm vm_first(size_t n) /* lanes [0, n), n <= 16 */
{
    return (__mmask16)((1u << n) - 1u);
}
/* Lanes [0, n), the others 0; reads no further. */
static inline vf vf_load_first(const float *p, size_t n)
{
    return _mm512_maskz_loadu_ps(vm_first(n), p);
}
static inline void vf_store(float *p, vf x)
{
    _mm512_storeu_ps(p, x);
}
static inline void vf_store_first(float *p, vf x, size_t n)
{
    _mm512_mask_storeu_ps(p, vm_first(n), x);
}
static inline vf vf_load_bf16(const uint16_t *p)
{
    __m512i wide = _mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i *)p));
    return _mm512_castsi512_ps(_mm512_slli_epi32(wide, 16));
}
static inline vf vf_load_f16(const uint16_t *p)
{
    return _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)p));
}
static inline vf vf_add(vf a, vf b)
{
    return _mm512_add_ps(a, b);
}
static inline vf vf_sub(vf a, vf b)
{
    return _mm512_sub_ps(a, b);
}
static inline vf vf_mul(vf a, vf b)
{
    return _mm512_mul_ps(a, b);
}
static inline vf vf_div(vf a, vf b)
{
    return _mm512_div_ps(a, b);
}
static inline vf vf_fma(vf a, vf b, vf c) /* a * b + c, rounded once */
{
    return _mm512_fmadd_ps(a, b, c);
}
/* b where either is NaN. */
static inline vf vf_max(vf a, vf b)
{
    return _mm512_max_ps(a, b);
}
static inline vf vf_min(vf a, vf b)
{
    return _mm512_min_ps(a, b);
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
    return sum_eight(_mm256_add_ps(_mm512_castps512_ps256(x), _mm512_extractf32x8_ps(x, 1)));
}
static inline float vf_reduce_max(vf x)
{
    return _mm512_reduce_max_ps(x);
}

/* ---- Choices ---- */

static inline vm vf_less(vf a, vf b)
{
    return _mm512_cmp_ps_mask(a, b, _CMP_LT_OQ);
}
static inline vm vf_greater(vf a, vf b)
{
    return _mm512_cmp_ps_mask(a, b, _CMP_GT_OQ);
}
static inline vm vf_not_less(vf a, vf b) /* a >= b; false for NaN */
{
    return _mm512_cmp_ps_mask(a, b, _CMP_GE_OQ);
}
static inline vm vf_equal_or_nan(vf a, vf b)
{
    return _mm512_cmp_ps_mask(a, b, _CMP_EQ_UQ);
}
static inline vm vm_or(vm a, vm b)
{
    return a | b;
}
static inline vm vm_and(vm a, vm b)
{
    return a & b;
}
static inline uint32_t vm_bits(vm m)
{
    return m;
}
static inline vm vm_range(uint32_t begin, uint32_t end)
{
    return (__mmask16)(((1u << end) - 1u) & ~((1u << begin) - 1u));
}
static inline vf vf_select(vm m, vf yes, vf no)
{
    return _mm512_mask_blend_ps(m, no, yes);
}
static inline vi vi_select(vm m, vi yes, vi no)
{
    return _mm512_mask_blend_epi32(m, no, yes);
}

/* ---- Integers ---- */

static inline vi vi_zero(void)
{
    return _mm512_setzero_si512();
}
static inline vi vi_set1(uint32_t x)
{
    return _mm512_set1_epi32((int)x);
}
static inline vi vi_load(const void *p)
{
    return _mm512_loadu_si512(p);
}
static inline vi vi_load_u16(const uint16_t *p)
{
    return _mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i *)p));
}
static inline void vi_store(void *p, vi x)
{
    _mm512_storeu_si512(p, x);
}
static inline vi vi_add(vi a, vi b)
{
    return _mm512_add_epi32(a, b);
}
static inline vi vi_sub(vi a, vi b)
{
    return _mm512_sub_epi32(a, b);
}
static inline vi vi_and(vi a, vi b)
{
    return _mm512_and_si512(a, b);
}
static inline vi vi_xor(vi a, vi b)
{
    return _mm512_xor_si512(a, b);
}
/* (x & mask) | y */
static inline vi vi_merge(vi x, vi mask, vi y)
{
    return _mm512_ternarylogic_epi32(x, mask, y, 0xea);
}
/* Bytes, unsigned and signed, in lanes of 32 bits. */
static inline vi vi_load_u8(const uint8_t *p)
{
    return _mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i *)p));
}
static inline vi vi_load_i8(const uint8_t *p)
{
    return _mm512_cvtepi8_epi32(_mm_loadu_si128((const __m128i *)p));
}
static inline vm vi_less(vi a, vi b)
{
    return _mm512_cmplt_epi32_mask(a, b);
}
static inline vi vi_max_u32(vi a, vi b)
{
    return _mm512_max_epu32(a, b);
}
#define vi_shift_left(x, n)       _mm512_slli_epi32((x), (n))
#define vi_shift_right(x, n)      _mm512_srli_epi32((x), (n))
#define vi_shift_right_sign(x, n) _mm512_srai_epi32((x), (n))
static inline vi vi_bits(vf x)
{
    return _mm512_castps_si512(x);
}
static inline vf vi_as_float(vi x)
{
    return _mm512_castsi512_ps(x);
}
static inline vf vi_to_float(vi x)
{
    return _mm512_cvtepi32_ps(x);
}
/* Both halves of the 64-bit product. */
static inline void vi_mul_wide(vi a, vi b, vi *high, vi *low)
{
    __m512i even = _mm512_mul_epu32(a, b);
    __m512i odd = _mm512_mul_epu32(_mm512_srli_epi64(a, 32), _mm512_srli_epi64(b, 32));
    *high = _mm512_mask_blend_epi32(0xaaaa, _mm512_srli_epi64(even, 32), odd);
    *low = _mm512_mask_blend_epi32(0xaaaa, even, _mm512_slli_epi64(odd, 32));
}
/* Within each quarter of four lanes. */
static inline vi vi_unpack_low(vi a, vi b)
{
    return _mm512_unpacklo_epi32(a, b);
}
static inline vi vi_unpack_high(vi a, vi b)
{
    return _mm512_unpackhi_epi32(a, b);
}
static inline vi vi_unpack_low_pairs(vi a, vi b)
{
    return _mm512_unpacklo_epi64(a, b);
}
static inline vi vi_unpack_high_pairs(vi a, vi b)
{
    return _mm512_unpackhi_epi64(a, b);
}
static inline uint32_t vi_reduce_max_u32(vi x)
{
    return _mm512_reduce_max_epu32(x);
}
static inline int32_t vi_reduce_add(vi x)
{
    return _mm512_reduce_add_epi32(x);
}
/* Lanes, each in -128..127, as bytes. */
static inline void vi_store_bytes(int8_t *p, vi x)
{
    _mm_storeu_si128((__m128i *)p, _mm512_cvtepi32_epi8(x));
}
/* The chosen lanes, close together; returns their number. Writes nothing else. */
static inline size_t vi_store_chosen(void *p, vm m, vi x)
{
    size_t n = (size_t)__builtin_popcount(m);
    _mm512_mask_storeu_epi32(p, vm_first(n), _mm512_maskz_compress_epi32(m, x));
    return n;
}
/* Lane i of x[j] becomes lane j of x[i]. */
static inline __attribute__((always_inline)) void vf_transpose(vf x[16])
{
    vf t[16];
#pragma GCC unroll 8
    for (int i = 0; i < 16; i += 2) {
        t[i] = _mm512_unpacklo_ps(x[i], x[i + 1]);
        t[i + 1] = _mm512_unpackhi_ps(x[i], x[i + 1]);
    }
    /* x[i + j] has, in quarter k, lane 4 k + j of four: i .. i + 3. */
#pragma GCC unroll 4
    for (int i = 0; i < 16; i += 4) {
        x[i] = _mm512_shuffle_ps(t[i], t[i + 2], 0x44);
        x[i + 1] = _mm512_shuffle_ps(t[i], t[i + 2], 0xee);
        x[i + 2] = _mm512_shuffle_ps(t[i + 1], t[i + 3], 0x44);
        x[i + 3] = _mm512_shuffle_ps(t[i + 1], t[i + 3], 0xee);
    }
#pragma GCC unroll 4
    for (int j = 0; j < 4; j++) {
        vf low = _mm512_shuffle_f32x4(x[j], x[j + 4], 0x88),
           high = _mm512_shuffle_f32x4(x[j], x[j + 4], 0xdd);
        vf low2 = _mm512_shuffle_f32x4(x[j + 8], x[j + 12], 0x88),
           high2 = _mm512_shuffle_f32x4(x[j + 8], x[j + 12], 0xdd);
        t[j] = _mm512_shuffle_f32x4(low, low2, 0x88);
        t[j + 8] = _mm512_shuffle_f32x4(low, low2, 0xdd);
        t[j + 4] = _mm512_shuffle_f32x4(high, high2, 0x88);
        t[j + 12] = _mm512_shuffle_f32x4(high, high2, 0xdd);
    }
#pragma GCC unroll 16
    for (int i = 0; i < 16; i++)
        x[i] = t[i];
}
static inline __m128 vf_first_four(vf x)
{
    return _mm512_castps512_ps128(x);
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
    return _mm512_set1_epi32(bytes);
}

#if defined(__AVX512VNNI__)
enum { FIVE_BIT_STEPS = 8 };
static inline vi dot_start(int32_t minus_8_sum, int is_int8)
{
    vi minus = _mm512_set1_epi32(minus_8_sum);
    return is_int8 ? _mm512_slli_epi32(minus, 4) : minus; /* times the codes' offset */
}
/* Both halves of a panel share the register of the four codes: a broadcast in each product would keep the
 * loads busier than the products (there are two a cycle of 512 bits). */
static inline vi dot_step(vi acc, vi w, const int8_t *from, int is_int8)
{
    (void)is_int8;
    vi x = vi_set1_quad(from);
    __asm__("vpdpbusd %2, %1, %0" : "+v"(acc) : "v"(w), "v"(x));
    return acc;
}
static inline vi dot_finish(vi acc, int32_t minus_8_sum, int is_int8)
{
    (void)minus_8_sum, (void)is_int8;
    return acc;
}
static inline vi dot_two(vi acc, vi w0, const int8_t *x0, vi w1, const int8_t *x1)
{
    return dot_step(dot_step(acc, w0, x0, 0), w1, x1, 0);
}
/* Zeros are 16-bit numbers in lanes of 32, sums at most 32 * 127. */
static inline vi dot_start_zeros(int32_t q_sum, vi zeros)
{
    return _mm512_madd_epi16(zeros, _mm512_set1_epi32(-q_sum & 0xffff));
}
static inline vi dot_finish_zeros(vi acc, int32_t q_sum, vi zeros)
{
    (void)q_sum, (void)zeros;
    return acc;
}
#else
enum { FIVE_BIT_STEPS = 4 }; /* at most 4 * 2 * 31 * 127 in a 16-bit lane: 31496 */
static inline vi dot_start(int32_t minus_8_sum, int is_int8)
{
    (void)minus_8_sum, (void)is_int8;
    return vi_zero();
}
static inline vi dot_step(vi acc, vi w, const int8_t *from, int is_int8)
{
    vi x = vi_set1_quad(from);
    if (!is_int8) /* at most 8 * 2 * 15 * 127 in a 16-bit lane after eight steps: 30480 */
        return _mm512_add_epi16(acc, _mm512_maddubs_epi16(w, x));
    /* |code| times sign(code) x: at most 2 * 128 * 127 = 32512; an unsigned w would reach twice that and
     * saturate.
     */
    __m512i code = _mm512_xor_si512(w, _mm512_set1_epi8((char)0x80));
    x = _mm512_mask_sub_epi8(x, _mm512_movepi8_mask(code), _mm512_setzero_si512(), x);
    __m512i pairs = _mm512_maddubs_epi16(_mm512_abs_epi8(code), x);
    return _mm512_add_epi32(acc, _mm512_madd_epi16(pairs, _mm512_set1_epi16(1)));
}
static inline vi dot_finish(vi acc, int32_t minus_8_sum, int is_int8)
{
    if (is_int8)
        return acc;
    return _mm512_add_epi32(_mm512_madd_epi16(acc, _mm512_set1_epi16(1)), _mm512_set1_epi32(minus_8_sum));
}
/* Codes of at most 63: a lane of 16 bits reaches 4 * 63 * 127 = 32004. */
static inline vi dot_two(vi acc, vi w0, const int8_t *x0, vi w1, const int8_t *x1)
{
    __m512i pairs = _mm512_add_epi16(_mm512_maddubs_epi16(w0, vi_set1_quad(x0)),
                                     _mm512_maddubs_epi16(w1, vi_set1_quad(x1)));
    return _mm512_add_epi32(acc, _mm512_madd_epi16(pairs, _mm512_set1_epi16(1)));
}
static inline vi dot_start_zeros(int32_t q_sum, vi zeros)
{
    (void)q_sum, (void)zeros;
    return vi_zero();
}
/* Zeros are 16-bit numbers in lanes of 32, sums at most 32 * 127. */
static inline vi dot_finish_zeros(vi acc, int32_t q_sum, vi zeros)
{
    return _mm512_sub_epi32(_mm512_madd_epi16(acc, _mm512_set1_epi16(1)),
                            _mm512_madd_epi16(zeros, _mm512_set1_epi32(q_sum & 0xffff)));
}
#endif
