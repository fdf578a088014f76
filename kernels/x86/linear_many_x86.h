/* The quantised linear kernels where there are many rows; see rows_x86.h for how it is included, with what
 * linear_int_x86.h wants defined and, where there are registers for it, MANY_TILE_ROWS (of a tile over a
 * whole panel: as many as leave registers for the rest), MANY_CASES (the sizes of such tiles) and
 * MANY_ROWS_MIN (rows from which on it is worth its expansion). The codes of some blocks of the panel become
 * bytes in the first-level cache once, whatever their format; all rows are multiplied by them there, and the
 * sums wait there too. So no tile unpacks, and a row's four codes, once in a register, meet all outputs of
 * the panel. Every output's chain over the blocks is that of the other walk. */
#pragma once

#include "kernels/x86/linear_walk_x86.h"
#include "kernels/x86/unpack_x86.h"

#if defined(MANY_CASES)

enum {
    MANY_BLOCKS = 8, /* of 32 inputs, expanded together */
    MANY_ROWS = 96,  /* whose sums wait in the first-level cache; a multiple of QUANT_TILE_ROWS */
};

/* A block of a panel, and what its format multiplies and adds. */
struct expanded_block {
    _Alignas(CACHE_LINE_BYTES) uint8_t codes[QUANT_QUADS][2][QUAD_BYTES]; /* with their offset */
    float scales[2][HALF_OUTPUTS]; /* of the group; k4 and k5: times the block's */
    union {
        int32_t zeros[2][HALF_OUTPUTS];        /* uint4 */
        float minimums[2][HALF_OUTPUTS];       /* k4, k5: less the group's, times the block's */
        float part_scales[2][2][HALF_OUTPUTS]; /* k6: of each half of the inputs */
    };
};

/* How far a panel is expanded. */
struct panel_place {
    const uint8_t *at;
    size_t group_left; /* blocks of the group whose header follows */
    vf scales[2], minimums[2];
    vi zeros[2];
};

static inline __attribute__((always_inline)) void
read_group_header(const struct linear_args *a, struct panel_place *place, const enum weight_format FORMAT)
{
    for (size_t h = 0; h < 2; h++) {
        const uint16_t *header = (const uint16_t *)place->at + h * HALF_OUTPUTS;
        place->scales[h] = vf_load_f16(header);
        if (FORMAT == WEIGHT_UINT4)
            place->zeros[h] = vi_load_u16(header + PANEL_OUTPUTS);
        if (weight_has_minimums(FORMAT))
            place->minimums[h] = vf_sub(vf_zero(), vf_load_f16(header + PANEL_OUTPUTS));
    }
    place->at += group_header_bytes(FORMAT);
    place->group_left = a->group / QUANT_BLOCK;
}

/* Half of one block; at: its header. */
static inline __attribute__((always_inline)) void expand_half(const uint8_t *at, size_t half,
                                                              const struct panel_place *place,
                                                              const enum weight_format FORMAT,
                                                              struct expanded_block *out)
{
    const uint8_t *codes = at + block_header_bytes(FORMAT), *header = at + half * HALF_OUTPUTS;
    if (FORMAT == WEIGHT_INT8) {
#pragma GCC unroll 8
        for (size_t quad = 0; quad < QUANT_QUADS; quad++)
            vi_store(out->codes[quad][half],
                     vi_load(codes + half * (INT8_BLOCK_BYTES / 2) + quad * QUAD_BYTES));
    } else {
#pragma GCC unroll 4
        for (int pair = 0; pair < QUANT_QUADS / 2; pair++) {
            vi low, high;
            unpack_pair(codes, half, pair, FORMAT, &low, &high);
            vi_store(out->codes[pair][half], low);
            vi_store(out->codes[pair + QUANT_QUADS / 2][half], high);
        }
    }
    vf scales = place->scales[half];
    if (FORMAT == WEIGHT_UINT4)
        vi_store(out->zeros[half], place->zeros[half]);
    if (weight_has_minimums(FORMAT)) {
        scales = vf_mul(scales, vi_to_float(vi_load_u8(header)));
        vf_store(out->minimums[half],
                 vf_mul(place->minimums[half], vi_to_float(vi_load_u8(header + PANEL_OUTPUTS))));
    }
    if (FORMAT == WEIGHT_K6) {
        for (size_t part = 0; part < 2; part++)
            vf_store(out->part_scales[part][half], vi_to_float(vi_load_i8(header + part * PANEL_OUTPUTS)));
    }
    vf_store(out->scales[half], scales);
}

/* The next n blocks. */
static inline __attribute__((always_inline)) void expand_blocks(const struct linear_args *a,
                                                                struct panel_place *place, size_t n,
                                                                const enum weight_format FORMAT,
                                                                struct expanded_block *out)
{
    for (size_t b = 0; b < n; b++) {
        if (place->group_left == 0)
            read_group_header(a, place, FORMAT);
        expand_half(place->at, 0, place, FORMAT, &out[b]);
        expand_half(place->at, 1, place, FORMAT, &out[b]);
        place->at += quant_block_bytes(FORMAT);
        place->group_left--;
    }
}

/* What the products of a block begin with. part: of the inputs, for k6. */
static inline __attribute__((always_inline)) vi many_start(const struct quant_block *x,
                                                           const struct expanded_block *w, int half,
                                                           const int PART, const enum weight_format FORMAT)
{
    switch (FORMAT) {
    case WEIGHT_INT8:
    case WEIGHT_INT4:
        return dot_start(x->minus_8_sum, FORMAT == WEIGHT_INT8);
    case WEIGHT_UINT4:
        return dot_start_zeros(quant_block_sum(x), vi_load(w->zeros[half]));
    case WEIGHT_INT5:
        return vi_shift_left(vi_set1((uint32_t)x->minus_8_sum), 1);
    case WEIGHT_K6:
        return vi_shift_left(
            vi_set1((uint32_t)(PART == 0 ? x->minus_8_low : x->minus_8_sum - x->minus_8_low)), 2);
    default:
        return vi_zero();
    }
}

static inline __attribute__((always_inline)) vf many_finish(vi acc, const struct quant_block *x,
                                                            const struct expanded_block *w, int half,
                                                            const enum weight_format FORMAT)
{
    if (FORMAT == WEIGHT_UINT4)
        acc = dot_finish_zeros(acc, quant_block_sum(x), vi_load(w->zeros[half]));
    if (FORMAT == WEIGHT_INT8 || FORMAT == WEIGHT_INT4)
        acc = dot_finish(acc, x->minus_8_sum, FORMAT == WEIGHT_INT8);
    return vi_to_float(acc);
}

/* The products of quads [FROM, TO) of one block into dots: those of k6's second half of inputs join the
 * first's. */
static inline __attribute__((always_inline)) void
many_dots(const struct expanded_block *w, const struct quant_block *x, const int ROWS, const int FROM,
          const int TO, const enum weight_format FORMAT, vf dots[MANY_TILE_ROWS][2])
{
    const int PART = FROM == 0 ? 0 : 1;
    vi acc[MANY_TILE_ROWS][2];
#pragma GCC unroll 12
    for (int r = 0; r < ROWS; r++) {
#pragma GCC unroll 2
        for (int h = 0; h < 2; h++)
            acc[r][h] = many_start(&x[r], w, h, PART, FORMAT);
    }
#pragma GCC unroll 4
    for (int quad = FROM; quad < TO; quad += 2) {
        vi first[2], second[2];
#pragma GCC unroll 2
        for (int h = 0; h < 2; h++) {
            first[h] = vi_load(w->codes[quad][h]);
            second[h] = vi_load(w->codes[quad + 1][h]);
        }
#pragma GCC unroll 12
        for (int r = 0; r < ROWS; r++) {
            const int8_t *q = x[r].q + quad * 4;
#pragma GCC unroll 2
            for (int h = 0; h < 2; h++) {
                if (FORMAT == WEIGHT_INT8 || FORMAT == WEIGHT_INT4 || FORMAT == WEIGHT_UINT4)
                    acc[r][h] = dot_step(dot_step(acc[r][h], first[h], q, FORMAT == WEIGHT_INT8), second[h],
                                         q + 4, FORMAT == WEIGHT_INT8);
                else
                    acc[r][h] = dot_two(acc[r][h], first[h], q, second[h], q + 4);
            }
        }
    }
#pragma GCC unroll 12
    for (int r = 0; r < ROWS; r++) {
#pragma GCC unroll 2
        for (int h = 0; h < 2; h++) {
            vf dot = many_finish(acc[r][h], &x[r], w, h, FORMAT);
            if (FORMAT != WEIGHT_K6)
                dots[r][h] = dot;
            else if (PART == 0)
                dots[r][h] = vf_mul(dot, vf_load(w->part_scales[0][h]));
            else
                dots[r][h] = vf_fma(dot, vf_load(w->part_scales[1][h]), dots[r][h]);
        }
    }
}

/* ROWS rows by n expanded blocks, onto their sums. next: the activations of the tile behind this one. */
static inline __attribute__((always_inline)) void
many_tile(const struct expanded_block *w, size_t n, const struct quant_block *x, const int ROWS,
          const struct quant_block *next, struct ahead *ahead, const enum weight_format FORMAT,
          float (*out)[PANEL_OUTPUTS])
{
    vf sums[MANY_TILE_ROWS][2];
#pragma GCC unroll 12
    for (int r = 0; r < ROWS; r++) {
#pragma GCC unroll 2
        for (int h = 0; h < 2; h++)
            sums[r][h] = vf_load(out[r] + h * HALF_OUTPUTS);
    }
    for (size_t b = 0; b < n; b++, w++, x += QUANT_TILE_ROWS, next += QUANT_TILE_ROWS) {
        vf dots[MANY_TILE_ROWS][2];
        prefetch_ahead(ahead);
#pragma GCC unroll 12
        for (size_t line = 0; line <= (size_t)ROWS * sizeof *x / CACHE_LINE_BYTES; line++)
            _mm_prefetch((const char *)next + line * CACHE_LINE_BYTES, _MM_HINT_T0);
        if (FORMAT == WEIGHT_K6) {
            many_dots(w, x, ROWS, 0, QUANT_QUADS / 2, FORMAT, dots);
            many_dots(w, x, ROWS, QUANT_QUADS / 2, QUANT_QUADS, FORMAT, dots);
        } else {
            many_dots(w, x, ROWS, 0, QUANT_QUADS, FORMAT, dots);
        }
#pragma GCC unroll 12
        for (int r = 0; r < ROWS; r++) {
            vf row_scale = vf_set1(x[r].scale);
#pragma GCC unroll 2
            for (int h = 0; h < 2; h++) {
                sums[r][h] = vf_fma(dots[r][h], vf_mul(row_scale, vf_load(w->scales[h])), sums[r][h]);
                if (weight_has_minimums(FORMAT))
                    sums[r][h] = vf_fma(vf_load(w->minimums[h]), vf_set1(x[r].total), sums[r][h]);
            }
        }
    }
#pragma GCC unroll 12
    for (int r = 0; r < ROWS; r++) {
#pragma GCC unroll 2
        for (int h = 0; h < 2; h++)
            vf_store(out[r] + h * HALF_OUTPUTS, sums[r][h]);
    }
}

#define MANY_CASE(ROWS)                                                                                      \
    case ROWS:                                                                                               \
        many_tile(w, n, x, ROWS, next, ahead, FORMAT, out);                                                  \
        break;

/* Rows [first, end) by n expanded blocks, the panel's from block on; sums: of row `first`. */
static inline __attribute__((always_inline)) void
many_rows(const struct linear_args *a, size_t first, size_t end, const struct expanded_block *w, size_t block,
          size_t n, struct ahead *ahead, const enum weight_format FORMAT, float (*sums)[PANEL_OUTPUTS])
{
    for (size_t row = first; row < end;) {
        struct rows rows = next_rows(a, row, MANY_TILE_ROWS);
        rows.n = tile_size(rows.n) < end - row ? tile_size(rows.n) : end - row; /* no row twice */
        const struct quant_block *x = rows.blocks + block * QUANT_TILE_ROWS;
        const struct quant_block *next = a->q + quant_row_offset(row + rows.n, a->q_tile_stride);
        float(*out)[PANEL_OUTPUTS] = sums + (row - first);
        next = row + rows.n < end
                   ? next + block * QUANT_TILE_ROWS
                   : a->q + quant_row_offset(first, a->q_tile_stride) + (block + n) * QUANT_TILE_ROWS;
        if ((block + n) * QUANT_BLOCK == a->n_in)
            prefetch_outputs(a, row, rows.n, 0, 2);
        switch (tile_size(rows.n)) {
            MANY_CASES
        }
        row += rows.n;
    }
}

/* Whether it did the work: it does not for few rows, nor where nothing is defined for it. */
static inline __attribute__((always_inline)) bool linear_many(const struct linear_args *a,
                                                              const enum weight_format FORMAT)
{
    if (a->n_rows < MANY_ROWS_MIN)
        return false;
    struct expanded_block blocks[MANY_BLOCKS];
    _Alignas(CACHE_LINE_BYTES) float sums[MANY_ROWS][PANEL_OUTPUTS];
    const size_t n_blocks = a->n_in / QUANT_BLOCK;
    struct ahead ahead = look_ahead(a, FORMAT, MANY_TILE_ROWS);
    for (size_t first = 0, end; first < a->n_rows; first = end) {
        struct panel_place place = {.at = a->panel};
        end = a->n_rows - first < MANY_ROWS ? a->n_rows : first + MANY_ROWS;
        memset(sums, 0, round_up(end - first, QUANT_TILE_ROWS) * sizeof sums[0]);
        for (size_t b = 0, n; b < n_blocks; b += n) {
            n = n_blocks - b < MANY_BLOCKS ? n_blocks - b : MANY_BLOCKS;
            expand_blocks(a, &place, n, FORMAT, blocks);
            many_rows(a, first, end, blocks, b, n, &ahead, FORMAT, sums);
        }
        for (size_t r = first; r < end; r++) {
            const vf row[2] = {vf_load(sums[r - first]), vf_load(sums[r - first] + HALF_OUTPUTS)};
            store_outputs(a, r, 0, 2, row);
        }
    }
    return true;
}

#else

static inline bool linear_many(const struct linear_args *a, enum weight_format format)
{
    (void)a, (void)format;
    return false;
}

#endif
