/* Linear kernels of the formats that GGUF's blocks have: int5, k4, k5 and k6; see rows_x86.h for how it is
 * included, behind linear_int_x86.h, with K6_ROWS_MAX defined too, whose tiles take more registers. dot_two
 * of the instruction set adds two quads of unsigned codes of 6 bits, exactly.
 */
#include "kernels/kernel_table.h"
#include "kernels/x86/linear_many_x86.h"

/* The dot products of one block as f32: of codes less their offset. */
static inline __attribute__((always_inline)) void
block_dots(const uint8_t *codes, const struct quant_block *x, const int ROWS, size_t first_half,
           const int N_HALVES, const enum weight_format FORMAT, vf dots[ROWS_MAX][2])
{
    const int STEPS = FORMAT == WEIGHT_K4 ? QUANT_QUADS : FIVE_BIT_STEPS;
    const bool IN_PARTS = STEPS < QUANT_QUADS;
    vi acc[ROWS_MAX][2], finished[ROWS_MAX][2]; /* of a part of the block, of those that are finished */
#pragma GCC unroll 12
    for (int r = 0; r < ROWS; r++) {
        vi start = vi_zero();
        if (FORMAT == WEIGHT_INT5) /* times the codes' offset */
            start = vi_shift_left(vi_set1((uint32_t)x[r].minus_8_sum), 1);
#pragma GCC unroll 2
        for (int h = 0; h < N_HALVES; h++) {
            acc[r][h] = IN_PARTS ? vi_zero() : start;
            finished[r][h] = IN_PARTS ? start : vi_zero();
        }
    }
#pragma GCC unroll 4
    for (int pair = 0; pair < QUANT_QUADS / 2; pair++) {
        vi low[2], high[2];
#pragma GCC unroll 2
        for (int h = 0; h < N_HALVES; h++)
            unpack_pair(codes, first_half + (size_t)h, pair, FORMAT, &low[h], &high[h]);
#pragma GCC unroll 12
        for (int r = 0; r < ROWS; r++) {
            const int8_t *q = x[r].q + pair * 4;
#pragma GCC unroll 2
            for (int h = 0; h < N_HALVES; h++) {
                acc[r][h] = dot_step(acc[r][h], low[h], q, false);
                acc[r][h] = dot_step(acc[r][h], high[h], q + HALF_BLOCK, false);
                if ((pair + 1) * 2 % STEPS == 0) {
                    finished[r][h] = vi_add(finished[r][h], dot_finish(acc[r][h], 0, false));
                    acc[r][h] = vi_zero();
                }
            }
        }
    }
#pragma GCC unroll 12
    for (int r = 0; r < ROWS; r++) {
#pragma GCC unroll 2
        for (int h = 0; h < N_HALVES; h++)
            dots[r][h] = vi_to_float(finished[r][h]);
    }
}

/* Likewise of k6: each half of the block's inputs times its scale; all of it exact. */
static inline __attribute__((always_inline)) void k6_dots(const uint8_t *block, const struct quant_block *x,
                                                          const int ROWS, size_t first_half,
                                                          const int N_HALVES, vf dots[ROWS_MAX][2])
{
    const uint8_t *codes = block + BLOCK_SCALE_BYTES;
#pragma GCC unroll 2
    for (int part = 0; part < 2; part++) { /* of the inputs */
        vi acc[ROWS_MAX][2];
        vf scale[2];
#pragma GCC unroll 2
        for (int h = 0; h < N_HALVES; h++)
            scale[h] = vi_to_float(
                vi_load_i8(block + part * PANEL_OUTPUTS + (first_half + (size_t)h) * HALF_OUTPUTS));
#pragma GCC unroll 12
        for (int r = 0; r < ROWS; r++) {
            vi minus =
                vi_set1((uint32_t)(part == 0 ? x[r].minus_8_low : x[r].minus_8_sum - x[r].minus_8_low));
#pragma GCC unroll 2
            for (int h = 0; h < N_HALVES; h++)
                acc[r][h] = vi_shift_left(minus, 2); /* times the codes' offset, 32 */
        }
#pragma GCC unroll 2
        for (int pair = 0; pair < QUANT_QUADS / 2; pair += 2) {
            vi w[2][2][2]; /* [of two pairs][low, high][half] */
#pragma GCC unroll 2
            for (int h = 0; h < N_HALVES; h++) {
                unpack_pair(codes, first_half + (size_t)h, pair, WEIGHT_K6, &w[0][0][h], &w[0][1][h]);
                unpack_pair(codes, first_half + (size_t)h, pair + 1, WEIGHT_K6, &w[1][0][h], &w[1][1][h]);
            }
#pragma GCC unroll 12
            for (int r = 0; r < ROWS; r++) {
                const int8_t *q = x[r].q + part * HALF_BLOCK + pair * 4;
#pragma GCC unroll 2
                for (int h = 0; h < N_HALVES; h++)
                    acc[r][h] = dot_two(acc[r][h], w[0][part][h], q, w[1][part][h], q + 4);
            }
        }
#pragma GCC unroll 12
        for (int r = 0; r < ROWS; r++) {
#pragma GCC unroll 2
            for (int h = 0; h < N_HALVES; h++) {
                vf dot = vi_to_float(acc[r][h]);
                dots[r][h] = part == 0 ? vf_mul(dot, scale[h]) : vf_fma(dot, scale[h], dots[r][h]);
            }
        }
    }
}

static inline __attribute__((always_inline)) void
block_tile(const struct linear_args *a, const struct rows *rows, const int ROWS, size_t first_half,
           const int N_HALVES, struct ahead *ahead, const enum weight_format FORMAT)
{
    const bool HAS_MINIMUMS = FORMAT == WEIGHT_K4 || FORMAT == WEIGHT_K5;
    const size_t block_bytes = quant_block_bytes(FORMAT), header_bytes = group_header_bytes(FORMAT);
    const uint8_t *at = a->panel;
    const struct quant_block *x = rows->blocks;
    const size_t n_blocks = a->n_in / QUANT_BLOCK, group_blocks = a->group / QUANT_BLOCK;
    vf sums[ROWS_MAX][2], scales[2], minimums[2] = {vf_zero(), vf_zero()};
    if (ROWS >= AHEAD_ROWS_MIN)
        prefetch_outputs(a, rows->first, rows->n, first_half, N_HALVES);
#pragma GCC unroll 12
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
        for (size_t end = b + group_blocks; b < end; b++, at += block_bytes, x += QUANT_TILE_ROWS) {
            vf dots[ROWS_MAX][2], scale[2], minimum[2];
            prefetch_weights(at, block_bytes + header_bytes);
            if (ROWS >= AHEAD_ROWS_MIN)
                prefetch_ahead(ahead);
            if (FORMAT == WEIGHT_K6)
                k6_dots(at, x, ROWS, first_half, N_HALVES, dots);
            else
                block_dots(at + block_header_bytes(FORMAT), x, ROWS, first_half, N_HALVES, FORMAT, dots);
#pragma GCC unroll 2
            for (int h = 0; h < N_HALVES; h++) {
                const uint8_t *header = at + (first_half + (size_t)h) * HALF_OUTPUTS;
                scale[h] = scales[h];
                if (HAS_MINIMUMS) {
                    scale[h] = vf_mul(scales[h], vi_to_float(vi_load_u8(header)));
                    minimum[h] = vf_mul(minimums[h], vi_to_float(vi_load_u8(header + PANEL_OUTPUTS)));
                }
            }
#pragma GCC unroll 12
            for (int r = 0; r < ROWS; r++) {
                vf row_scale = vf_set1(x[r].scale);
#pragma GCC unroll 2
                for (int h = 0; h < N_HALVES; h++) {
                    sums[r][h] = vf_fma(dots[r][h], vf_mul(row_scale, scale[h]), sums[r][h]);
                    if (HAS_MINIMUMS)
                        sums[r][h] = vf_fma(minimum[h], vf_set1(x[r].total), sums[r][h]);
                }
            }
        }
    }
#pragma GCC unroll 12
    for (size_t r = 0; r < (size_t)ROWS; r++) {
        if (r < rows->n)
            store_outputs(a, rows->first + r, first_half, N_HALVES, sums[r]);
    }
}

static inline __attribute__((always_inline)) void linear_block(const struct linear_args *a,
                                                               const enum weight_format FORMAT)
{
    const size_t MOST = FORMAT == WEIGHT_K6 ? K6_ROWS_MAX : ROWS_MAX;
    if (linear_many(a, FORMAT))
        return;
    struct ahead ahead = look_ahead(a, FORMAT, MOST);
    for (size_t first = 0; first < a->n_rows;) {
        struct rows rows = next_rows(a, first, MOST);
        switch (tile_size(rows.n)) {
            TILE_SIZES(block_tile)
        }
        first += rows.n;
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
