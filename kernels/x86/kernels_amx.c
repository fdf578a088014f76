/* The kernels of the tile arithmetic. A panel's weights are expanded to tiles some inputs at a time, so that
 * they stay in a cache while all rows are multiplied by them (strip_amx.h; few rows by nibbles:
 * few_rows_amx.h); attention is attention_amx.h. A call configures the tiles and releases them, so that no
 * state is left to threads between calls. */
#include <math.h>
#include <string.h>
#include "kernels/kernel_table.h"
#include "kernels/ref/math_ref.h"
#include "kernels/x86/attention_amx.h"
#include "kernels/x86/few_rows_amx.h"

/* A function that multiplies n inputs from k on, expanded in the scratch, with up to STRIP_ROWS rows. */
typedef void strip_fn(const struct tile_args *a, size_t row, size_t rows, size_t k, size_t n);

/* ---- In bf16 ---- */

static void strip_bf16(const struct tile_args *a, size_t row, size_t rows, size_t k, size_t n)
{
    const struct strip strip = {.x = a->x + row * a->x_stride + k,
                                .x_stride = a->x_stride,
                                .n_in = n,
                                .tiles = a->scratch,
                                .out = a->out + row * a->out_stride,
                                .out_stride = a->out_stride,
                                .is_first = k == 0};
    multiply_strip(&strip, rows, a->n_out > HALF_OUTPUTS);
}

static void scale_and_bias(const struct tile_args *a)
{
    for (size_t r = 0; r < a->n_rows; r++) {
        for (size_t o = 0; o < a->n_out; o += LANES) {
            size_t n = a->n_out - o < LANES ? a->n_out - o : LANES;
            float *out = a->out + r * a->out_stride + o;
            vf sum = vf_load_first(out, n);
            if (a->scale != NULL)
                sum = vf_mul(sum, vf_load_first(a->scale + o, n));
            if (a->bias != NULL)
                sum = vf_add(sum, vf_load_first(a->bias + o, n));
            vf_store_first(out, sum, n);
        }
    }
}

/* ---- In int8 ---- */

TILES_INLINE void int8_dots(const struct tile_args *a, size_t row, size_t k, const uint8_t *tiles,
                            int32_t *dots, const bool TWO_ROWS, const bool TWO_HALVES)
{
    const int8_t *q = a->q + row * a->q_stride + k;
    zero_sums(TWO_ROWS, TWO_HALVES);
    for (size_t i = 0; i < WIDE_BLOCK; i += WIDE_INPUTS, tiles += 2 * TILE_BYTES) {
        load_operands(q + i, a->q_stride, tiles, TWO_ROWS, TWO_HALVES);
        AMX_DOT_INT8(0, 4, 6);
        if (TWO_HALVES)
            AMX_DOT_INT8(1, 4, 7);
        if (TWO_ROWS)
            AMX_DOT_INT8(2, 5, 6);
        if (TWO_ROWS && TWO_HALVES)
            AMX_DOT_INT8(3, 5, 7);
    }
    store_sums(dots, PANEL_OUTPUTS, TWO_ROWS, TWO_HALVES);
}

static inline const float *scratch_scales(const struct tile_args *a)
{
    return (const float *)(a->scratch + EXPAND_INPUTS * PANEL_OUTPUTS);
}

static void strip_int8(const struct tile_args *a, size_t row, size_t rows, size_t k, size_t n)
{
    _Alignas(64) int32_t dots[STRIP_ROWS * PANEL_OUTPUTS];
    _Alignas(64) float sums[STRIP_ROWS * PANEL_OUTPUTS] = {0};
    const bool two_halves = a->n_out > HALF_OUTPUTS;
    for (size_t r = 0; k > 0 && r < rows; r++)
        memcpy(sums + r * PANEL_OUTPUTS, a->out + (row + r) * a->out_stride, a->n_out * sizeof(float));
    memset(dots, 0, rows * PANEL_OUTPUTS * sizeof dots[0]); /* outputs past n_out are not stored to */
    for (size_t b = 0; b < n / WIDE_BLOCK; b++) {
        const uint8_t *tiles = a->scratch + b * WIDE_BLOCK * PANEL_OUTPUTS;
        const float *scales = scratch_scales(a) + b * PANEL_OUTPUTS;
        if (rows > TILE_ROWS && two_halves)
            int8_dots(a, row, k + b * WIDE_BLOCK, tiles, dots, true, true);
        else if (rows > TILE_ROWS)
            int8_dots(a, row, k + b * WIDE_BLOCK, tiles, dots, true, false);
        else if (two_halves)
            int8_dots(a, row, k + b * WIDE_BLOCK, tiles, dots, false, true);
        else
            int8_dots(a, row, k + b * WIDE_BLOCK, tiles, dots, false, false);
        const vf low = vf_load(scales), high = vf_load(scales + LANES);
        for (size_t r = 0; r < rows; r++) {
            vf q_scale = vf_set1(a->q_scale[(row + r) * a->q_block_stride + k / WIDE_BLOCK + b]);
            float *sum = sums + r * PANEL_OUTPUTS;
            const int32_t *dot = dots + r * PANEL_OUTPUTS;
            vf_store(sum, vf_fma(vi_to_float(vi_load(dot)), vf_mul(q_scale, low), vf_load(sum)));
            vf_store(sum + LANES,
                     vf_fma(vi_to_float(vi_load(dot + LANES)), vf_mul(q_scale, high), vf_load(sum + LANES)));
        }
    }
    for (size_t r = 0; r < rows; r++)
        memcpy(a->out + (row + r) * a->out_stride, sums + r * PANEL_OUTPUTS, a->n_out * sizeof(float));
}

/* ---- Panels ---- */

TILES_INLINE void multiply_strips(const struct tile_args *a, const enum weight_format FORMAT, const bool WIDE)
{
    const size_t step = a->n_rows <= TILE_ROWS ? EXPAND_INPUTS_FEW : EXPAND_INPUTS;
    size_t configured = 0; /* rows */
    for (size_t k = a->first_in, n; k < a->last_in; k += n) {
        n = a->last_in - k < step ? a->last_in - k : step;
        if (WIDE)
            expand_codes_to_int8(a, FORMAT, k, n, a->scratch, (float *)scratch_scales(a));
        else if (FORMAT == WEIGHT_BF16)
            expand_bf16_to_tiles(a, k, round_up(n, TILE_INPUTS), a->scratch);
        else
            expand_codes_to_bf16(a, FORMAT, false, k, n, a->scratch);
        for (size_t row = 0, rows; row < a->n_rows; row += rows) {
            rows = a->n_rows - row < STRIP_ROWS ? a->n_rows - row : STRIP_ROWS;
            if (rows != configured)
                configure(rows, a->n_out);
            configured = rows;
            (WIDE ? strip_int8 : strip_bf16)(a, row, rows, k, n);
        }
    }
}

TILES_INLINE void multiply(const struct tile_args *a, const enum weight_format FORMAT, const bool WIDE)
{
    if (a->n_rows == 0)
        return;
    const bool is_whole = a->first_in == 0 && a->last_in == a->n_in;
    if (!WIDE && is_of_nibbles(FORMAT) && a->n_rows <= TILE_ROWS && is_whole)
        multiply_few(a, FORMAT);
    else
        multiply_strips(a, FORMAT, WIDE);
    AMX_RELEASE();
    if (a->scale != NULL || a->bias != NULL)
        scale_and_bias(a);
}

void linear_tile_bf16_amx(const struct tile_args *a)
{
    multiply(a, WEIGHT_BF16, false);
}

void linear_tile_int8_amx(const struct tile_args *a)
{
    multiply(a, WEIGHT_INT8, false);
}

void linear_tile_int4_amx(const struct tile_args *a)
{
    multiply(a, WEIGHT_INT4, false);
}

void linear_tile_uint4_amx(const struct tile_args *a)
{
    multiply(a, WEIGHT_UINT4, false);
}

void linear_tile_int5_amx(const struct tile_args *a)
{
    multiply(a, WEIGHT_INT5, false);
}

void linear_tile_k4_amx(const struct tile_args *a)
{
    multiply(a, WEIGHT_K4, false);
}

void linear_tile_k5_amx(const struct tile_args *a)
{
    multiply(a, WEIGHT_K5, false);
}

void linear_tile_k6_amx(const struct tile_args *a)
{
    multiply(a, WEIGHT_K6, false);
}

void linear_wide_int8_amx(const struct tile_args *a)
{
    multiply(a, WEIGHT_INT8, true);
}

void linear_wide_int4_amx(const struct tile_args *a)
{
    multiply(a, WEIGHT_INT4, true);
}

void linear_wide_uint4_amx(const struct tile_args *a)
{
    multiply(a, WEIGHT_UINT4, true);
}

/* ---- Activations ---- */

void round_row_amx(const float *x, size_t n, uint16_t *out)
{
    for (size_t i = 0; i < n; i += LANES) {
        vf value = n - i < LANES ? vf_load_first(x + i, n - i) : vf_load(x + i);
        _mm256_storeu_si256((__m256i *)(out + i), (__m256i)_mm512_cvtneps_pbh(value));
    }
    if (n % TILE_INPUTS != 0 && n % TILE_INPUTS <= LANES)
        _mm256_storeu_si256((__m256i *)(out + round_up(n, TILE_INPUTS) - LANES), _mm256_setzero_si256());
}

void quantize_wide_row_amx(const float *x, size_t n, int8_t *q, float *scale)
{
    const vf magic = vf_set1(ROUND_MAGIC);
    const vi magic_bits = vi_set1(ROUND_MAGIC_BITS), no_sign = vi_set1(0x7fffffffu);
    for (size_t b = 0; b < n / WIDE_BLOCK; b++, x += WIDE_BLOCK, q += WIDE_BLOCK) {
        vi max = vi_zero();
        for (size_t i = 0; i < WIDE_BLOCK; i += LANES)
            max = vi_max_u32(max, vi_and(vi_bits(vf_load(x + i)), no_sign));
        uint32_t amax_bits = vi_reduce_max_u32(max);
        float amax = f32_from_bits(amax_bits);
        bool finite = amax_bits < 0x7f800000u;
        if (!finite || amax < QUANT_AMAX_MIN) {
            scale[b] = finite ? 0.0f : NAN;
            memset(q, 0, WIDE_BLOCK);
            continue;
        }
        scale[b] = amax / 127.0f;
        vf inverse = vf_set1(127.0f / amax);
        for (size_t i = 0; i < WIDE_BLOCK; i += LANES)
            vi_store_bytes(q + i,
                           vi_sub(vi_bits(vf_add(vf_mul(vf_load(x + i), inverse), magic)), magic_bits));
    }
}

/* ---- Attention ---- */

void attention_tile_bf16_amx(const struct attention_args *a)
{
    attend_tiles(a, KV_BF16);
}

void attention_tile_int8_amx(const struct attention_args *a)
{
    attend_tiles(a, KV_INT8);
}
