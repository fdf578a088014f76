/* Linear kernels of the formats that GGUF's blocks have: int5, k4, k5 and k6; see rows_x86.h for how it is
 * included, behind linear_int_x86.h, with HALVES (of a panel that one tile covers) and ROWS_MAX (of a
 * tile) defined. dot_two of the instruction set adds two quads of unsigned codes of at most 6 bits, exactly.
 */
#include "kernels/kernel_table.h"
#include "kernels/x86/linear_store_x86.h"

/* Codes of quads `pair` (low) and `pair` + 4 (high) of sixteen outputs, with their offset. */
static inline __attribute__((always_inline)) void
unpack_pair(const uint8_t *codes, size_t half, int pair, const enum weight_format FORMAT, vi *low, vi *high)
{
    const vi nibble = vi_set1(0x0f0f0f0fu);
    vi both = vi_load(codes + half * (INT4_BLOCK_BYTES / 2) + (size_t)pair * QUAD_BYTES);
    *low = vi_and(both, nibble);
    *high = vi_and(vi_shift_right(both, 4), nibble);
    if (FORMAT == WEIGHT_INT5 || FORMAT == WEIGHT_K5) {
        const vi fifth = vi_set1(0x10101010u);
        vi bits = vi_load(codes + INT4_BLOCK_BYTES + half * (BIT_PLANE_BYTES / 2));
        *low = vi_merge(vi_shift_left(bits, 4 - pair), fifth, *low);
        *high = vi_merge(vi_shift_right(bits, pair), fifth, *high);
    }
    if (FORMAT == WEIGHT_K6) {
        const vi above = vi_set1(0x30303030u);
        const uint8_t *plane = codes + INT4_BLOCK_BYTES + half * BIT_PLANE_BYTES;
        vi first = vi_load(plane), second = vi_load(plane + QUAD_BYTES);
        first = pair < 2 ? vi_shift_left(first, 4 - 2 * pair) : vi_shift_right(first, 2 * pair - 4);
        second = pair < 2 ? vi_shift_left(second, 4 - 2 * pair) : vi_shift_right(second, 2 * pair - 4);
        *low = vi_merge(first, above, *low);
        *high = vi_merge(second, above, *high);
    }
}

/* The dot products of one block as f32: of codes less their offset. */
static inline __attribute__((always_inline)) void
block_dots(const struct linear_args *a, const uint8_t *codes, size_t row, size_t block, const int ROWS,
           size_t first_half, const int N_HALVES, const enum weight_format FORMAT, vf dots[ROWS_MAX][2])
{
    const int8_t *q = a->q + row * a->q_stride + block * QUANT_BLOCK;
    const int32_t *q_sum = a->q_sum + row * a->q_block_stride + block;
    vi acc[ROWS_MAX][2];
#pragma GCC unroll 8
    for (int r = 0; r < ROWS; r++) {
        vi start = vi_zero();
        if (FORMAT == WEIGHT_INT5)
            start = vi_set1((uint32_t)(-INT5_OFFSET * q_sum[(size_t)r * a->q_block_stride]));
#pragma GCC unroll 2
        for (int h = 0; h < N_HALVES; h++)
            acc[r][h] = start;
    }
#pragma GCC unroll 4
    for (int pair = 0; pair < QUANT_QUADS / 2; pair++) {
        vi low[2], high[2];
#pragma GCC unroll 2
        for (int h = 0; h < N_HALVES; h++)
            unpack_pair(codes, first_half + (size_t)h, pair, FORMAT, &low[h], &high[h]);
#pragma GCC unroll 8
        for (int r = 0; r < ROWS; r++) {
            vi x0 = load_quad(q + (size_t)r * a->q_stride + pair * 4);
            vi x1 = load_quad(q + (size_t)r * a->q_stride + pair * 4 + HALF_BLOCK);
#pragma GCC unroll 2
            for (int h = 0; h < N_HALVES; h++)
                acc[r][h] = dot_two(acc[r][h], low[h], x0, high[h], x1);
        }
    }
#pragma GCC unroll 8
    for (int r = 0; r < ROWS; r++) {
#pragma GCC unroll 2
        for (int h = 0; h < N_HALVES; h++)
            dots[r][h] = vi_to_float(acc[r][h]);
    }
}

/* Likewise of k6: each half of the block's inputs times its scale; all of it exact. */
static inline __attribute__((always_inline)) void k6_dots(const struct linear_args *a,
                                                          const uint8_t *block_at, size_t row, size_t block,
                                                          const int ROWS, size_t first_half,
                                                          const int N_HALVES, vf dots[ROWS_MAX][2])
{
    const uint8_t *codes = block_at + BLOCK_SCALE_BYTES;
#pragma GCC unroll 2
    for (int part = 0; part < 2; part++) { /* of the inputs */
        const int8_t *q = a->q + row * a->q_stride + block * QUANT_BLOCK + part * HALF_BLOCK;
        const int32_t *q_sum = a->q_sum + row * a->q_block_stride + block;
        const int32_t *q_low = a->q_low + row * a->q_block_stride + block;
        vi acc[ROWS_MAX][2];
        vf scale[2];
#pragma GCC unroll 2
        for (int h = 0; h < N_HALVES; h++)
            scale[h] = vi_to_float(
                vi_load_i8(block_at + part * PANEL_OUTPUTS + (first_half + (size_t)h) * HALF_OUTPUTS));
#pragma GCC unroll 8
        for (int r = 0; r < ROWS; r++) {
            size_t at = (size_t)r * a->q_block_stride;
            vi start = vi_set1((uint32_t)(-K6_OFFSET * (part == 0 ? q_low[at] : q_sum[at] - q_low[at])));
#pragma GCC unroll 2
            for (int h = 0; h < N_HALVES; h++)
                acc[r][h] = start;
        }
#pragma GCC unroll 2
        for (int pair = 0; pair < QUANT_QUADS / 2; pair += 2) {
            vi w[2][2][2]; /* [of two pairs][low, high][half] */
#pragma GCC unroll 2
            for (int h = 0; h < N_HALVES; h++) {
                unpack_pair(codes, first_half + (size_t)h, pair, WEIGHT_K6, &w[0][0][h], &w[0][1][h]);
                unpack_pair(codes, first_half + (size_t)h, pair + 1, WEIGHT_K6, &w[1][0][h], &w[1][1][h]);
            }
#pragma GCC unroll 8
            for (int r = 0; r < ROWS; r++) {
                vi x0 = load_quad(q + (size_t)r * a->q_stride + pair * 4);
                vi x1 = load_quad(q + (size_t)r * a->q_stride + pair * 4 + 4);
#pragma GCC unroll 2
                for (int h = 0; h < N_HALVES; h++)
                    acc[r][h] = dot_two(acc[r][h], w[0][part][h], x0, w[1][part][h], x1);
            }
        }
#pragma GCC unroll 8
        for (int r = 0; r < ROWS; r++) {
#pragma GCC unroll 2
            for (int h = 0; h < N_HALVES; h++) {
                vf dot = vi_to_float(acc[r][h]);
                dots[r][h] = part == 0 ? vf_mul(dot, scale[h]) : vf_fma(dot, scale[h], dots[r][h]);
            }
        }
    }
}

static inline __attribute__((always_inline)) void block_tile(const struct linear_args *a, size_t row,
                                                             const int ROWS, size_t first_half,
                                                             const int N_HALVES, struct ahead *ahead,
                                                             const enum weight_format FORMAT)
{
    const bool HAS_MINIMUMS = FORMAT == WEIGHT_K4 || FORMAT == WEIGHT_K5;
    const size_t block_bytes = quant_block_bytes(FORMAT), header_bytes = group_header_bytes(FORMAT);
    const uint8_t *at = a->panel;
    const float *q_scale = a->q_scale + row * a->q_block_stride;
    const float *q_total = a->q_total + row * a->q_block_stride;
    const size_t n_blocks = a->n_in / QUANT_BLOCK, group_blocks = a->group / QUANT_BLOCK;
    vf sums[ROWS_MAX][2], scales[2], minimums[2] = {vf_zero(), vf_zero()};
    if (ROWS >= AHEAD_ROWS_MIN)
        prefetch_outputs(a, row, ROWS, first_half, N_HALVES);
#pragma GCC unroll 8
    for (int r = 0; r < ROWS; r++) {
#pragma GCC unroll 2
        for (int h = 0; h < N_HALVES; h++)
            sums[r][h] = vf_zero();
    }
    for (size_t b = 0; b < n_blocks;) {
#pragma GCC unroll 2
        for (int h = 0; h < N_HALVES; h++) {
            const uint16_t *header = (const uint16_t *)at + (first_half + (size_t)h) * HALF_OUTPUTS;
            scales[h] = vf_load_f16(header);
            if (HAS_MINIMUMS)
                minimums[h] = vf_sub(vf_zero(), vf_load_f16(header + PANEL_OUTPUTS));
        }
        at += header_bytes;
        for (size_t end = b + group_blocks; b < end; b++, at += block_bytes) {
            vf dots[ROWS_MAX][2], scale[2], minimum[2];
            prefetch_weights(at, block_bytes + header_bytes);
            if (ROWS >= AHEAD_ROWS_MIN)
                prefetch_ahead(ahead);
            if (FORMAT == WEIGHT_K6)
                k6_dots(a, at, row, b, ROWS, first_half, N_HALVES, dots);
            else
                block_dots(a, at + block_header_bytes(FORMAT), row, b, ROWS, first_half, N_HALVES, FORMAT,
                           dots);
#pragma GCC unroll 2
            for (int h = 0; h < N_HALVES; h++) {
                const uint8_t *header = at + (first_half + (size_t)h) * HALF_OUTPUTS;
                scale[h] = scales[h];
                if (HAS_MINIMUMS) {
                    scale[h] = vf_mul(scales[h], vi_to_float(vi_load_u8(header)));
                    minimum[h] = vf_mul(minimums[h], vi_to_float(vi_load_u8(header + PANEL_OUTPUTS)));
                }
            }
#pragma GCC unroll 8
            for (int r = 0; r < ROWS; r++) {
                vf row_scale = vf_set1(q_scale[(size_t)r * a->q_block_stride + b]);
#pragma GCC unroll 2
                for (int h = 0; h < N_HALVES; h++) {
                    sums[r][h] = vf_fma(dots[r][h], vf_mul(row_scale, scale[h]), sums[r][h]);
                    if (HAS_MINIMUMS)
                        sums[r][h] = vf_fma(minimum[h], vf_set1(q_total[(size_t)r * a->q_block_stride + b]),
                                            sums[r][h]);
                }
            }
        }
    }
#pragma GCC unroll 8
    for (int r = 0; r < ROWS; r++)
        store_outputs(a, row + (size_t)r, first_half, N_HALVES, sums[r]);
}

static inline __attribute__((always_inline)) void linear_block(const struct linear_args *a,
                                                               const enum weight_format FORMAT)
{
    struct ahead ahead = look_ahead(a, round_up(panel_bytes(FORMAT, a->n_in, a->group), CACHE_LINE_BYTES),
                                    div_up(a->n_rows, ROWS_MAX) * 2 / HALVES);
    for (size_t row = 0, rows; row < a->n_rows; row += rows) {
        rows = tile_rows(a->n_rows - row, ROWS_MAX);
        /* One row: one pass over the panel, whatever the width of the registers. */
        for (size_t half = 0; half < 2; half += rows == 1 ? 2 : HALVES) {
            switch (rows) {
            case 1:
                block_tile(a, row, 1, 0, 2, &ahead, FORMAT);
                break;
            case 2:
                block_tile(a, row, 2, half, HALVES, &ahead, FORMAT);
                break;
            case 3:
                block_tile(a, row, 3, half, HALVES, &ahead, FORMAT);
                break;
#if ROWS_MAX > 4
            case 4:
                block_tile(a, row, 4, half, HALVES, &ahead, FORMAT);
                break;
            case 5:
                block_tile(a, row, 5, half, HALVES, &ahead, FORMAT);
                break;
#endif
            default:
                block_tile(a, row, ROWS_MAX, half, HALVES, &ahead, FORMAT);
                break;
            }
        }
    }
}

void KERNEL(linear_int5)(const struct linear_args *a)
{
    linear_block(a, WEIGHT_INT5);
}

void KERNEL(linear_k4)(const struct linear_args *a)
{
    linear_block(a, WEIGHT_K4);
}

void KERNEL(linear_k5)(const struct linear_args *a)
{
    linear_block(a, WEIGHT_K5);
}

void KERNEL(linear_k6)(const struct linear_args *a)
{
    linear_block(a, WEIGHT_K6);
}
