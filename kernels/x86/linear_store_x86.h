/* What the linear kernels do with their sums; see rows_x86.h for how it is included. */
#pragma once

#include "kernels/kernel_types.h"
#include "kernels/packed.h"

enum {
    /* Weights are asked for this far ahead: with several rows a tile works too long on one cache line for the
     * processor to look ahead by itself. Past the panel lies the next one; past the last one it does no
     * harm. */
    PREFETCH_BYTES = 2048,
    AHEAD_ROWS_MIN = 3, /* of a tile that looks ahead: fewer wait for memory, however early it is asked */
    CACHE_LINE_BYTES = 64,
};

static inline __attribute__((always_inline)) void prefetch_weights(const uint8_t *at, size_t n_bytes)
{
#pragma GCC unroll 20
    for (size_t i = 0; i < n_bytes; i += CACHE_LINE_BYTES)
        _mm_prefetch((const char *)at + PREFETCH_BYTES + i, _MM_HINT_T0);
}

/* What a walk over the rows asks for of the next panel, a part in every block of every tile: it comes from
 * memory at an even pace, and stands in the second-level cache when the walk gets there. */
struct ahead {
    const uint8_t *at;
    size_t n_lines; /* in a block */
};

static inline struct ahead look_ahead(const struct linear_args *a, size_t panel_bytes, size_t n_tiles)
{
    size_t n_blocks = n_tiles * (a->n_in / QUANT_BLOCK);
    return (struct ahead){(const uint8_t *)a->panel + panel_bytes,
                          div_up(panel_bytes, n_blocks * CACHE_LINE_BYTES)};
}

static inline __attribute__((always_inline)) void prefetch_ahead(struct ahead *ahead)
{
    for (size_t i = 0; i < ahead->n_lines; i++, ahead->at += CACHE_LINE_BYTES)
        _mm_prefetch((const char *)ahead->at, _MM_HINT_T1);
}

/* Asks for the lines that a tile will write: no store of its sums waits for the line that it goes to. */
static inline __attribute__((always_inline)) void prefetch_outputs(const struct linear_args *a, size_t row,
                                                                   const int ROWS, size_t first_half,
                                                                   const int N_HALVES)
{
#pragma GCC unroll 8
    for (int r = 0; r < ROWS; r++) {
#pragma GCC unroll 2
        for (int h = 0; h < N_HALVES; h++)
            __builtin_prefetch(
                a->out + (row + (size_t)r) * a->out_stride + (first_half + (size_t)h) * HALF_OUTPUTS, 1);
    }
}

/* Rows of the next tile: no more tiles than it takes, and those alike. */
static inline size_t tile_rows(size_t n_left, size_t most)
{
    return div_up(n_left, div_up(n_left, most));
}

/* Writes the sums of one row, outputs [16 first_half, ..). */
static inline __attribute__((always_inline)) void
store_outputs(const struct linear_args *a, size_t row, size_t first_half, int n_halves, const vf *sums)
{
    for (int h = 0; h < n_halves; h++) {
        size_t first = (first_half + (size_t)h) * HALF_OUTPUTS;
        if (first >= a->n_out)
            return;
        vf sum = sums[h];
        if (a->scale != NULL)
            sum = vf_mul(sum, vf_load(a->scale + first));
        if (a->bias != NULL)
            sum = vf_add(sum, vf_load(a->bias + first));
        float *out = a->out + row * a->out_stride + first;
        if (a->n_out - first >= HALF_OUTPUTS)
            vf_store(out, sum);
        else
            vf_store_first(out, sum, a->n_out - first);
    }
}
