/* Linear kernels of the quantised formats; see rows_x86.h for how it is included, with ROWS_MAX (of a
 * tile: as many as leave registers for unpacking), TILE_SIZES and TILE_HALVES (of a panel, that a tile of so
 * many rows covers) defined, and the dot product of the instruction set: a block's accumulator begins as
 * dot_start, takes eight quads by dot_step (FIVE_BIT_STEPS of them, where unsigned codes have 5 bits), and
 * dot_finish gives the exact integers. The panel's offset codes are unsigned; -8 times the sum of x corrects
 * for the offset where the product needs it. Zero points are offsets of their own: dot_start_zeros and
 * dot_finish_zeros. Many rows take the walk of linear_many_x86.h. */
#include "kernels/kernel_table.h"
#include "kernels/x86/linear_many_x86.h"

/* Few rows wait for memory, which gives a block of this size quickest where its lines are read in their
 * order: one half, then the other. Many rows share what they load between the halves. */
enum { INT8_ROWS_IN_ORDER_MAX = 2 };

/* Halves [from, to) of one block of 32 inputs into acc. */
static inline __attribute__((always_inline)) void int8_halves(const uint8_t *block,
                                                              const struct quant_block *x, const int ROWS,
                                                              size_t first_half, const int FROM, const int TO,
                                                              vi acc[ROWS_MAX][2])
{
#pragma GCC unroll 8
    for (size_t quad = 0; quad < QUANT_QUADS; quad++) {
        vi w[2];
#pragma GCC unroll 2
        for (int h = FROM; h < TO; h++)
            w[h] = vi_load(block + (first_half + (size_t)h) * (INT8_BLOCK_BYTES / 2) + quad * QUAD_BYTES);
#pragma GCC unroll 12
        for (int r = 0; r < ROWS; r++) {
#pragma GCC unroll 2
            for (int h = FROM; h < TO; h++)
                acc[r][h] = dot_step(acc[r][h], w[h], x[r].q + quad * 4, true);
        }
    }
}

static inline __attribute__((always_inline)) void int4_halves(const uint8_t *block,
                                                              const struct quant_block *x, const int ROWS,
                                                              size_t first_half, const int N_HALVES,
                                                              vi acc[ROWS_MAX][2])
{
    const vi nibble = vi_set1(0x0f0f0f0fu);
#pragma GCC unroll 4
    for (size_t pair = 0; pair < QUANT_QUADS / 2; pair++) {
#pragma GCC unroll 2
        for (size_t part = 0; part < 2; part++) { /* one after the other: fewer registers hold codes */
            vi w[2];
#pragma GCC unroll 2
            for (int h = 0; h < N_HALVES; h++) {
                vi both =
                    vi_load(block + (first_half + (size_t)h) * (INT4_BLOCK_BYTES / 2) + pair * QUAD_BYTES);
                w[h] = vi_and(part == 0 ? both : vi_shift_right(both, 4), nibble);
            }
#pragma GCC unroll 12
            for (int r = 0; r < ROWS; r++) {
#pragma GCC unroll 2
                for (int h = 0; h < N_HALVES; h++)
                    acc[r][h] = dot_step(acc[r][h], w[h], x[r].q + pair * 4 + part * HALF_BLOCK, false);
            }
        }
    }
}

/* One block of 32 inputs into acc. */
static inline __attribute__((always_inline)) void int_block(const uint8_t *block, const struct quant_block *x,
                                                            const int ROWS, size_t first_half,
                                                            const int N_HALVES, const bool IS_INT8,
                                                            vi acc[ROWS_MAX][2])
{
    if (!IS_INT8) {
        int4_halves(block, x, ROWS, first_half, N_HALVES, acc);
    } else if (ROWS <= INT8_ROWS_IN_ORDER_MAX && N_HALVES == 2) {
        int8_halves(block, x, ROWS, first_half, 0, 1, acc);
        int8_halves(block, x, ROWS, first_half, 1, 2, acc);
    } else {
        int8_halves(block, x, ROWS, first_half, 0, N_HALVES, acc);
    }
}

static inline __attribute__((always_inline)) void
int_tile(const struct linear_args *a, const struct rows *rows, const int ROWS, size_t first_half,
         const int N_HALVES, struct ahead *ahead, const enum weight_format FORMAT)
{
    const bool IS_INT8 = FORMAT == WEIGHT_INT8, HAS_ZEROS = FORMAT == WEIGHT_UINT4;
    const size_t block_bytes = IS_INT8 ? INT8_BLOCK_BYTES : INT4_BLOCK_BYTES;
    const size_t header_bytes = PANEL_SCALE_BYTES + (HAS_ZEROS ? PANEL_ZERO_BYTES : 0);
    const uint8_t *at = a->panel;
    const struct quant_block *x = rows->blocks;
    const size_t n_blocks = a->n_in / QUANT_BLOCK, group_blocks = a->group / QUANT_BLOCK;
    vf sums[ROWS_MAX][2], scales[2];
    vi zeros[2] = {vi_zero(), vi_zero()};
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
            if (HAS_ZEROS)
                zeros[h] = vi_load_u16(header + PANEL_OUTPUTS);
        }
        at += header_bytes;
        for (size_t end = b + group_blocks; b < end; b++, at += block_bytes, x += QUANT_TILE_ROWS) {
            vi acc[ROWS_MAX][2];
            /* Lines of int8 stream quicker unasked, where they stand in the second-level cache. */
            if (!IS_INT8 || ROWS < AHEAD_ROWS_MIN)
                prefetch_weights(at, block_bytes + header_bytes);
            if (ROWS >= AHEAD_ROWS_MIN)
                prefetch_ahead(ahead);
#pragma GCC unroll 12
            for (int r = 0; r < ROWS; r++) {
#pragma GCC unroll 2
                for (int h = 0; h < N_HALVES; h++)
                    acc[r][h] = HAS_ZEROS ? dot_start_zeros(quant_block_sum(&x[r]), zeros[h])
                                          : dot_start(x[r].minus_8_sum, IS_INT8);
            }
            int_block(at, x, ROWS, first_half, N_HALVES, IS_INT8, acc);
#pragma GCC unroll 12
            for (int r = 0; r < ROWS; r++) {
                vf scale = vf_set1(x[r].scale);
#pragma GCC unroll 2
                for (int h = 0; h < N_HALVES; h++) {
                    vi dot = HAS_ZEROS ? dot_finish_zeros(acc[r][h], quant_block_sum(&x[r]), zeros[h])
                                       : dot_finish(acc[r][h], x[r].minus_8_sum, IS_INT8);
                    sums[r][h] = vf_fma(vi_to_float(dot), vf_mul(scale, scales[h]), sums[r][h]);
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

static inline __attribute__((always_inline)) void linear_int(const struct linear_args *a,
                                                             const enum weight_format FORMAT)
{
    const size_t MOST = ROWS_MAX;
    if (linear_many(a, FORMAT))
        return;
    struct ahead ahead = look_ahead(a, FORMAT, MOST);
    for (size_t first = 0; first < a->n_rows;) {
        struct rows rows = next_rows(a, first, MOST);
        switch (tile_size(rows.n)) {
            TILE_SIZES(int_tile)
        }
        first += rows.n;
    }
}

void KERNEL(linear_int8)(const struct linear_args *a)
{
    linear_int(a, WEIGHT_INT8);
}

void KERNEL(linear_int4)(const struct linear_args *a)
{
    linear_int(a, WEIGHT_INT4);
}

void KERNEL(linear_uint4)(const struct linear_args *a)
{
    linear_int(a, WEIGHT_UINT4);
}
