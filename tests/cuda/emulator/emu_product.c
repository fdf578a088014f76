#include "tests/cuda/emulator/emu_product.h"

#include <string.h>
#include "tests/cuda/emulator/emu_numbers.h"

enum { COLUMNS = 8, PAIRS = 8, WORDS = 8, VALUES_MAX = 4, K_MAX = WORDS * VALUES_MAX };

/* 8 columns of a row: the compiler keeps them in a register. */
typedef float columns __attribute__((vector_size(COLUMNS * sizeof(float))));
typedef int32_t counts __attribute__((vector_size(COLUMNS * sizeof(int32_t))));

/* Vectors go from one function of this file to another alone: how they are passed is nobody else's business.
 */
#pragma GCC diagnostic ignored "-Wpsabi"
#define ALWAYS_INLINE static inline __attribute__((always_inline))

ALWAYS_INLINE columns columns_load(const void *at)
{
    columns values;
    memcpy(&values, at, sizeof values);
    return values;
}

ALWAYS_INLINE void columns_store(void *at, columns values)
{
    memcpy(at, &values, sizeof values);
}

ALWAYS_INLINE columns columns_of(float value)
{
    return (columns){value, value, value, value, value, value, value, value};
}

ALWAYS_INLINE counts counts_of(int32_t value)
{
    return (counts){value, value, value, value, value, value, value, value};
}

/* By the mask of a comparison. */
ALWAYS_INLINE counts choose(counts mask, counts yes, counts no)
{
    return (mask & yes) | (~mask & no);
}

ALWAYS_INLINE counts greater_of(counts a, counts b)
{
    return choose(a > b, a, b);
}

/* ---- mma ---- */

EMU_CLONES bool emu_fragments_poisoned(const struct emu_fragments *fragments)
{
    uint32_t n = 0;
    for (uint32_t lane = 0; lane < EMU_LANES; lane++)
        for (uint32_t r = 0; r < 4; r++)
            n += emu_is_poison_word(fragments->a[lane][r]);
    for (uint32_t lane = 0; lane < EMU_LANES; lane++)
        for (uint32_t r = 0; r < 2; r++)
            n += emu_is_poison_word(fragments->b[lane][r]);
    return n > 0;
}

/* Lane 4 j + t has words t and t + 4 of column j: out[t][r] is word t + 4 r of all columns. */
ALWAYS_INLINE void transpose(columns out[4][2], const float b[COLUMNS][8])
{
    columns x[8], y[8];
    for (uint32_t j = 0; j < COLUMNS; j++)
        x[j] = columns_load(b[j]);
    for (uint32_t j = 0; j < COLUMNS; j += 2) {
        y[j] = __builtin_shufflevector(x[j], x[j + 1], 0, 8, 1, 9, 4, 12, 5, 13);
        y[j + 1] = __builtin_shufflevector(x[j], x[j + 1], 2, 10, 3, 11, 6, 14, 7, 15);
    }
    for (uint32_t j = 0; j < COLUMNS; j += 4) {
        for (uint32_t i = 0; i < 2; i++) {
            x[j + 2 * i] = __builtin_shufflevector(y[j + i], y[j + 2 + i], 0, 1, 8, 9, 4, 5, 12, 13);
            x[j + 2 * i + 1] = __builtin_shufflevector(y[j + i], y[j + 2 + i], 2, 3, 10, 11, 6, 7, 14, 15);
        }
    }
    for (uint32_t i = 0; i < 4; i++) {
        out[i / 2][i % 2] = __builtin_shufflevector(x[i], x[i + 4], 0, 1, 2, 3, 8, 9, 10, 11);
        out[2 + i / 2][i % 2] = __builtin_shufflevector(x[i], x[i + 4], 4, 5, 6, 7, 12, 13, 14, 15);
    }
}

/* Rows g and g + 8 are in lanes 4 g to 4 g + 3, two columns of each in every one. */
ALWAYS_INLINE void multiply(struct emu_fragments *fragments, enum emu_mma kind)
{
    uint32_t n = kind == EMU_MMA_E4M3 ? 4 : 2;
    float a[VALUES_MAX][EMU_LANES * 4], b[COLUMNS][8];
    columns by_k[K_MAX], words[4][2];
    for (uint32_t e = 0; e < n; e++) {
        for (uint32_t i = 0; i < EMU_LANES * 4; i++)
            a[e][i] = emu_element(fragments->a[i / 4][i % 4], e, kind);
        for (uint32_t i = 0; i < EMU_LANES * 2; i++)
            b[i / 8][i % 8] = emu_element(fragments->b[i / 2][i % 2], e, kind);
        transpose(words, b);
        for (uint32_t w = 0; w < WORDS; w++)
            by_k[w * n + e] = words[w % 4][w / 4];
    }
    for (uint32_t g = 0; g < PAIRS; g++) {
        columns left = columns_load(fragments->d[g * 4]), right = columns_load(fragments->d[g * 4 + 2]);
        columns first = __builtin_shufflevector(left, right, 0, 1, 4, 5, 8, 9, 12, 13);
        columns second = __builtin_shufflevector(left, right, 2, 3, 6, 7, 10, 11, 14, 15);
        for (uint32_t w = 0; w < WORDS; w++) {
            for (uint32_t e = 0; e < n; e++) {
                const float *pair = &a[e][(g * 4 + w % 4) * 4 + w / 4 * 2];
                first += columns_of(pair[0]) * by_k[w * n + e];
                second += columns_of(pair[1]) * by_k[w * n + e];
            }
        }
        columns_store(fragments->d[g * 4], __builtin_shufflevector(first, second, 0, 1, 8, 9, 2, 3, 10, 11));
        columns_store(fragments->d[g * 4 + 2],
                      __builtin_shufflevector(first, second, 4, 5, 12, 13, 6, 7, 14, 15));
    }
}

EMU_CLONES static void multiply_bf16(struct emu_fragments *fragments)
{
    multiply(fragments, EMU_MMA_BF16);
}

EMU_CLONES static void multiply_f16(struct emu_fragments *fragments)
{
    multiply(fragments, EMU_MMA_F16);
}

EMU_CLONES static void multiply_e4m3(struct emu_fragments *fragments)
{
    multiply(fragments, EMU_MMA_E4M3);
}

EMU_CLONES static void multiply_s8(struct emu_fragments *fragments)
{
    int32_t b[WORDS * 4][COLUMNS];
    for (uint32_t k = 0; k < WORDS * 4; k++)
        for (uint32_t j = 0; j < COLUMNS; j++)
            b[k][j] = (int8_t)(fragments->b[j * 4 + k / 4 % 4][k / 16] >> k % 4 * 8);
    for (uint32_t i = 0; i < 2 * PAIRS; i++) {
        uint32_t g = i % PAIRS, r = i / PAIRS;
        int32_t row[COLUMNS] = {0};
        for (uint32_t k = 0; k < WORDS * 4; k++) {
            int32_t a = (int8_t)(fragments->a[g * 4 + k / 4 % 4][r + k / 16 * 2] >> k % 4 * 8);
            for (uint32_t j = 0; j < COLUMNS; j++)
                row[j] += a * b[k][j];
        }
        for (uint32_t j = 0; j < COLUMNS; j++)
            fragments->d[g * 4 + j / 2][r * 2 + j % 2] += (uint32_t)row[j];
    }
}

void emu_fragments_multiply(enum emu_mma kind, struct emu_fragments *fragments)
{
    switch (kind) {
    case EMU_MMA_BF16:
        multiply_bf16(fragments);
        break;
    case EMU_MMA_F16:
        multiply_f16(fragments);
        break;
    case EMU_MMA_E4M3:
        multiply_e4m3(fragments);
        break;
    case EMU_MMA_S8:
        multiply_s8(fragments);
        break;
    }
}

/* ---- wgmma ---- */

enum { BLOCKS = 4 }; /* of 8 columns, that are gone through together */

/* n blocks of a row's columns. */
ALWAYS_INLINE void add_products_bf16(float *d, const float x[16], float (*b)[EMU_WGMMA_COLUMNS_MAX],
                                     uint32_t first, uint32_t n)
{
    columns sum[BLOCKS];
    for (uint32_t i = 0; i < n; i++)
        sum[i] = columns_load(d + first + i * COLUMNS);
    for (uint32_t k = 0; k < 16; k++)
        for (uint32_t i = 0; i < n; i++)
            sum[i] += columns_of(x[k]) * columns_load(b[k] + first + i * COLUMNS);
    for (uint32_t i = 0; i < n; i++)
        columns_store(d + first + i * COLUMNS, sum[i]);
}

EMU_CLONES void emu_multiply_bf16(float (*values)[EMU_WGMMA_COLUMNS_MAX], float (*a)[EMU_WGMMA_COLUMNS_MAX],
                                  float (*b)[EMU_WGMMA_COLUMNS_MAX], uint32_t n)
{
    for (uint32_t i = 0; i < EMU_WGMMA_ROWS; i++) {
        float x[16];
        uint32_t j = 0;
        for (uint32_t k = 0; k < 16; k++)
            x[k] = a[k][i];
        for (; j + BLOCKS * COLUMNS <= n; j += BLOCKS * COLUMNS)
            add_products_bf16(values[i], x, b, j, BLOCKS);
        for (; j < n; j += COLUMNS)
            add_products_bf16(values[i], x, b, j, 1);
    }
}

/* Products of e4m3 as sm_90 adds them. The exponent of a product is the sum of its factors'; the greatest of
 * the products and the sum decides. All are cut (towards zero) to 13 bits behind it and added exactly; the
 * result is cut to 13 bits behind its own. A sum that is not finite is the plain one. */
enum { FRACTION_BITS = 13, F32_FRACTION_BITS = 23, EXPONENT_MIN = -100, EXPONENT_OF_ZERO = -1000 };
enum { E4M3_EXPONENT_MIN = -6, F32_EXPONENT_BIAS = 127 };

ALWAYS_INLINE int32_t exponent_of(float value, int32_t least)
{
    int32_t exponent = (int32_t)(f32_to_bits(value) >> F32_FRACTION_BITS & 0xffu) - F32_EXPONENT_BIAS;
    exponent = exponent > least ? exponent : least;
    return value == 0 ? EXPONENT_OF_ZERO : exponent;
}

/* Of 8 columns, where all is finite: products of finite e4m3 take no finite sum out of f32's range. */
ALWAYS_INLINE void add_products_e4m3(float *d, const float x[EMU_WGMMA_K_MAX],
                                     const int32_t x_exponents[EMU_WGMMA_K_MAX],
                                     float (*b)[EMU_WGMMA_COLUMNS_MAX],
                                     int32_t (*b_exponents)[EMU_WGMMA_COLUMNS_MAX], uint32_t first)
{
    columns before = columns_load(d + first), scale, cut;
    counts greatest = ((counts)before >> F32_FRACTION_BITS & 0xff) - F32_EXPONENT_BIAS;
    greatest = choose(before == columns_of(0), counts_of(EXPONENT_OF_ZERO), greatest);
    for (uint32_t k = 0; k < EMU_WGMMA_K_MAX; k++)
        greatest =
            greater_of(greatest, counts_of(x_exponents[k]) + (counts)columns_load(b_exponents[k] + first));
    greatest = greater_of(greatest, counts_of(EXPONENT_MIN));
    scale = (columns)((FRACTION_BITS + F32_EXPONENT_BIAS - greatest) << F32_FRACTION_BITS);
    counts sum = __builtin_convertvector(before * scale, counts);
    for (uint32_t k = 0; k < EMU_WGMMA_K_MAX; k++)
        sum += __builtin_convertvector(columns_of(x[k]) * columns_load(b[k] + first) * scale, counts);
    cut = __builtin_convertvector(sum, columns) / scale;
    columns_store(d + first, (columns)((counts)cut & (int32_t)(~0u << (F32_FRACTION_BITS - FRACTION_BITS))));
}

/* One sum, whatever is in it. */
static void add_any_e4m3(float *d, const float x[EMU_WGMMA_K_MAX], float (*b)[EMU_WGMMA_COLUMNS_MAX],
                         uint32_t j)
{
    int32_t greatest = exponent_of(*d, EXPONENT_MIN);
    float plain = *d;
    for (uint32_t k = 0; k < EMU_WGMMA_K_MAX; k++) {
        int32_t exponent = exponent_of(x[k], E4M3_EXPONENT_MIN) + exponent_of(b[k][j], E4M3_EXPONENT_MIN);
        greatest = exponent > greatest ? exponent : greatest;
        plain += x[k] * b[k][j];
    }
    if (plain - plain != 0) {
        *d = plain;
        return;
    }
    greatest = greatest > EXPONENT_MIN ? greatest : EXPONENT_MIN;
    float scale =
        f32_from_bits((uint32_t)(FRACTION_BITS - greatest + F32_EXPONENT_BIAS) << F32_FRACTION_BITS);
    int32_t sum = (int32_t)(*d * scale);
    for (uint32_t k = 0; k < EMU_WGMMA_K_MAX; k++)
        sum += (int32_t)(x[k] * b[k][j] * scale);
    *d = f32_from_bits(f32_to_bits((float)sum / scale) & ~0u << (F32_FRACTION_BITS - FRACTION_BITS));
}

ALWAYS_INLINE bool is_finite(const float *values, uint32_t n)
{
    float zero = 0;
    for (uint32_t i = 0; i < n; i++)
        zero += values[i] - values[i];
    return zero == 0;
}

EMU_CLONES void emu_multiply_e4m3(float (*values)[EMU_WGMMA_COLUMNS_MAX], float (*a)[EMU_WGMMA_COLUMNS_MAX],
                                  float (*b)[EMU_WGMMA_COLUMNS_MAX], uint32_t n)
{
    int32_t b_exponents[EMU_WGMMA_K_MAX][EMU_WGMMA_COLUMNS_MAX];
    bool all_finite = true;
    for (uint32_t k = 0; k < EMU_WGMMA_K_MAX; k++) {
        all_finite &= is_finite(b[k], n);
        for (uint32_t j = 0; j < n; j++)
            b_exponents[k][j] = exponent_of(b[k][j], E4M3_EXPONENT_MIN);
    }
    for (uint32_t i = 0; i < EMU_WGMMA_ROWS; i++) {
        float x[EMU_WGMMA_K_MAX];
        int32_t x_exponents[EMU_WGMMA_K_MAX];
        for (uint32_t k = 0; k < EMU_WGMMA_K_MAX; k++) {
            x[k] = a[k][i];
            x_exponents[k] = exponent_of(x[k], E4M3_EXPONENT_MIN);
        }
        bool is_plain = all_finite && is_finite(x, EMU_WGMMA_K_MAX) && is_finite(values[i], n);
        for (uint32_t j = 0; j < n && is_plain; j += COLUMNS)
            add_products_e4m3(values[i], x, x_exponents, b, b_exponents, j);
        for (uint32_t j = 0; j < n && !is_plain; j++)
            add_any_e4m3(&values[i][j], x, b, j);
    }
}
