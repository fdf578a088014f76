/* The tensor-core linear layers: out[r] = weight . x[r] + bias for bf16 or quantised rows. linear_layout.h
 * says where everything lies, linear_plan.h which kernel serves a shape.
 *
 * The arithmetic of a weight is one at every number of rows: a chunk of K (linear_chunk_inputs) is one chain
 * of matrix instructions over ascending k from zero, of e4m3 for wgmma the sum of such chains
 * (linear_chain_inputs); chunks are added in ascending order in f32. Tiles,
 * warps, stages, and whether one block or several walk the chunks of an output change nothing. */
#pragma once

#include <stdint.h>
#include "kernels/cuda/cuda_step.h"
#include "kernels/cuda/linear_layout.h"
#include "kernels/cuda/row_kernels.h"

/* T(layout, arithmetic, rows of a tile): a kernel each. LINEAR_TILE_ROWS(T, ...) is the family of one. */
#define LINEAR_TILE_ROWS(T, name, what)                                                                      \
    T(linear_##name##_r8, struct linear_tile_args, what ", tiles of 8 rows")                                 \
    T(linear_##name##_r16, struct linear_tile_args, what ", tiles of 16 rows")                               \
    T(linear_##name##_r32, struct linear_tile_args, what ", tiles of 32 rows")                               \
    T(linear_##name##_r64, struct linear_tile_args, what ", tiles of 64 rows")                               \
    T(linear_##name##_r128, struct linear_tile_args, what ", tiles of 128 rows")

#define LINEAR_STREAM_ROWS(T, name, what)                                                                    \
    T(linear_##name##_slab_r8, struct linear_tile_args, what ", slabs by 8 rows")                            \
    T(linear_##name##_stream_r16, struct linear_tile_args, what ", tiles of 16 rows")                        \
    T(linear_##name##_stream_r32, struct linear_tile_args, what ", tiles of 32 rows")

#define LINEAR_RESIDENT_ROWS(T, name, what)                                                                  \
    T(linear_##name##_resident_r8, struct linear_tile_args, what ", rows of 8 in shared memory")             \
    T(linear_##name##_resident_r16, struct linear_tile_args, what ", rows of 16 in shared memory")           \
    T(linear_##name##_stream_r32, struct linear_tile_args, what ", tiles of 32 rows")

#define LINEAR_WIDE_ROWS(T, name, what)                                                                      \
    T(linear_##name##_wgmma_r64, struct linear_tile_args, what ", tiles of 64 rows")                         \
    T(linear_##name##_wgmma_r128, struct linear_tile_args, what ", tiles of 128 rows")                       \
    T(linear_##name##_wgmma_r256, struct linear_tile_args, what ", tiles of 256 rows")

#define CUDA_LINEAR_KERNELS(K)                                                                               \
    K(quantize_rows_s8, struct quantize_rows_args, "bf16 rows to int8, a scale each")                        \
    K(quantize_rows_e4m3, struct quantize_rows_args, "bf16 rows to e4m3, a scale each")                      \
    K(arrange_rows_bf16, struct quantize_rows_args, "bf16 rows to blocks for wgmma")                         \
    K(unpack_e4m3_wgmma, struct unpack_weight_args,                                                          \
      "packed e4m3 codes to plain rows, for a library's product")                                            \
    LINEAR_TILE_ROWS(K, int4, "int4 by bf16 rows, bf16 mma")                                                 \
    LINEAR_TILE_ROWS(K, uint4, "int4 with zero points by bf16 rows, bf16 mma")                               \
    LINEAR_TILE_ROWS(K, int8, "int8 with groups by bf16 rows, bf16 mma")                                     \
    LINEAR_TILE_ROWS(K, bf16, "bf16 by bf16 rows, bf16 mma")                                                 \
    LINEAR_TILE_ROWS(K, s8, "int8 by int8 rows, int8 mma")                                                   \
    LINEAR_TILE_ROWS(K, e4m3, "e4m3 by e4m3 rows, e4m3 mma (sm_89, sm_120)")                                 \
    LINEAR_TILE_ROWS(K, e4m3_as_bf16, "e4m3 by e4m3 rows, bf16 mma (sm_80, sm_86)")                          \
    LINEAR_TILE_ROWS(K, e4m3_wgmma, "e4m3 by e4m3 rows, wgmma (sm_90a)")                                     \
    LINEAR_WIDE_ROWS(K, bf16, "bf16 by bf16 rows, wgmma (sm_90a)")                                           \
    LINEAR_WIDE_ROWS(K, int4, "int4 by bf16 rows, wgmma (sm_90a)")                                           \
    LINEAR_WIDE_ROWS(K, uint4, "int4 with zero points by bf16 rows, wgmma (sm_90a)")                         \
    LINEAR_WIDE_ROWS(K, int8, "int8 with groups by bf16 rows, wgmma (sm_90a)")                               \
    LINEAR_RESIDENT_ROWS(K, int4, "int4 by bf16 rows, bf16 mma (sm_90)")                                     \
    LINEAR_RESIDENT_ROWS(K, uint4, "int4 with zero points by bf16 rows, bf16 mma (sm_90)")                   \
    LINEAR_STREAM_ROWS(K, int8, "int8 with groups by bf16 rows, bf16 mma, streamed (sm_90)")

/* A block's tile: LINEAR_TILE_OUTPUTS by the kernel's rows, four slabs of outputs by row warps; a pipeline of
 * stages in shared memory. Where shared memory is 100 KB, two blocks of few rows fit, or one of many. */
enum { LINEAR_TILE_OUTPUTS = 128, LINEAR_TILE_PANELS = LINEAR_TILE_OUTPUTS / LINEAR_PANEL };

/* rows: 8, 16, 32, 64, 128. */
LINEAR_INLINE uint32_t linear_row_warps(uint32_t rows)
{
    return rows >= 64 ? 2 : 1;
}

/* Threads that keep sums. */
LINEAR_INLINE uint32_t linear_tile_threads(uint32_t rows)
{
    return linear_row_warps(rows) * (LINEAR_TILE_OUTPUTS / LINEAR_SLAB) * 32;
}

/* Blocks of K in a stage. */
LINEAR_INLINE uint32_t linear_stage_blocks(enum linear_layout layout, uint32_t rows)
{
    return linear_is_int4(layout) && rows <= 16 ? 2 : 1;
}

LINEAR_INLINE uint32_t linear_stage_codes_bytes(enum linear_layout layout, uint32_t rows)
{
    uint32_t block = layout == LINEAR_BF16 ? LINEAR_PANEL * LINEAR_BLOCK_BYTES : linear_block_bytes(layout);
    return linear_stage_blocks(layout, rows) * LINEAR_TILE_PANELS * block;
}

LINEAR_INLINE uint32_t linear_stage_x_bytes(enum linear_layout layout, uint32_t rows)
{
    return linear_stage_blocks(layout, rows) * rows * LINEAR_BLOCK_BYTES;
}

/* Groups of inputs that a stage can touch: of 32 inputs at least. */
LINEAR_INLINE uint32_t linear_stage_groups(enum linear_layout layout, uint32_t rows)
{
    return linear_has_groups(layout) ? linear_stage_blocks(layout, rows) * 2 : 0;
}

LINEAR_INLINE uint32_t linear_stage_bytes(enum linear_layout layout, uint32_t rows)
{
    return linear_stage_codes_bytes(layout, rows) + linear_stage_x_bytes(layout, rows) +
           linear_stage_groups(layout, rows) * LINEAR_TILE_PANELS * linear_group_bytes(layout);
}

/* wgmma: two warpgroups, a panel each, and a warp that loads. */
enum { LINEAR_WGMMA_THREADS = 256, LINEAR_LOADER_THREADS = 32 };

/* A warpgroup that loads and leaves its registers to the others. */
LINEAR_INLINE bool linear_e4m3_moves_registers(uint32_t rows)
{
    return rows >= 128;
}

LINEAR_INLINE uint32_t linear_block_threads(enum linear_layout layout, uint32_t rows)
{
    if (layout != LINEAR_E4M3_WGMMA)
        return linear_tile_threads(rows);
    return LINEAR_WGMMA_THREADS +
           (linear_e4m3_moves_registers(rows) ? 128u : (uint32_t)LINEAR_LOADER_THREADS);
}

LINEAR_INLINE uint32_t linear_stages(enum linear_layout layout, uint32_t rows)
{
    if (layout == LINEAR_E4M3_WGMMA) /* of few rows two blocks in 227 KB */
        return rows <= 16 || rows == 128 ? 6 : 5;
    if (linear_is_int4(layout))
        return rows == 16 || rows == 64 ? 3 : 4;
    if (layout == LINEAR_INT8)
        return rows <= 16 ? 4 : 3;
    return rows <= 32 ? 4 : 3;
}

LINEAR_INLINE uint32_t linear_tile_shared_bytes(enum linear_layout layout, uint32_t rows)
{
    return linear_stages(layout, rows) * linear_stage_bytes(layout, rows);
}

/* ---- wgmma by bf16 rows: BF16, INT4, UINT4 and INT8 by 64 rows and more, sm_90a ---- */

enum { LINEAR_WIDE_ROWS_MIN = 64, LINEAR_WIDE_LOADER_THREADS = 128 }; /* beside LINEAR_WGMMA_THREADS */

/* Tiles of wgmma begin at multiples of 1024. */
LINEAR_INLINE uint32_t linear_wide_stage_bytes(enum linear_layout layout, uint32_t rows)
{
    return (linear_stage_bytes(layout, rows) + 1023) / 1024 * 1024;
}

/* One block a multiprocessor. */
LINEAR_INLINE uint32_t linear_wide_stages(enum linear_layout layout, uint32_t rows)
{
    if (layout == LINEAR_BF16)
        return rows == 64 ? 8 : rows == 128 ? 6 : 3;
    if (layout == LINEAR_INT8)
        return rows == 64 ? 10 : rows == 128 ? 8 : 3;
    return rows == 64 ? 12 : rows == 128 ? 9 : 4;
}

/* Sums of chunks that a thread keeps in shared memory, of rows / 2: registers hold two for each output of a
 * tile up to 128 rows. */
LINEAR_INLINE uint32_t linear_wide_shared_sums(uint32_t rows)
{
    return rows > 128 ? rows / 4 : 0;
}

LINEAR_INLINE uint32_t linear_wide_shared_bytes(enum linear_layout layout, uint32_t rows)
{
    return linear_wide_stages(layout, rows) * linear_wide_stage_bytes(layout, rows) +
           linear_wide_shared_sums(rows) * LINEAR_WGMMA_THREADS * 4;
}

/* ---- Streamed weights: INT8 by at most 32 rows, INT4 and UINT4 by 17 to 32, 228 KB of shared memory ---- */

enum { LINEAR_STREAM_THREADS = 128, LINEAR_STREAM_ROWS_MAX = 32 }; /* and a warp that loads */

/* Blocks of K in a stage: 16 KB of codes. */
LINEAR_INLINE uint32_t linear_stream_blocks(enum linear_layout layout)
{
    return linear_is_int4(layout) ? 4 : 2;
}

/* Between rows of activations in a stage. */
LINEAR_INLINE uint32_t linear_stream_row_bytes(enum linear_layout layout)
{
    return linear_stream_blocks(layout) * LINEAR_BLOCK_BYTES + 16;
}

LINEAR_INLINE uint32_t linear_stream_stage_bytes(enum linear_layout layout, uint32_t rows)
{
    uint32_t blocks = linear_stream_blocks(layout);
    return LINEAR_TILE_PANELS *
               (blocks * linear_block_bytes(layout) + blocks * 2 * linear_group_bytes(layout)) +
           rows * linear_stream_row_bytes(layout);
}

/* Two blocks share a multiprocessor. */
LINEAR_INLINE uint32_t linear_stream_stages(enum linear_layout layout, uint32_t rows)
{
    return rows == 16 && layout != LINEAR_UINT4 ? 4 : 3;
}

/* ---- INT8 by at most 8 rows: slabs, through registers ---- */

/* A warp for each chunk of K. */
enum {
    LINEAR_SLAB_THREADS = LINEAR_GROUP_CHUNKS * 32,
    LINEAR_SLAB_ROWS = 8,
    LINEAR_SLAB_BLOCKS = 2, /* of a multiprocessor */
    LINEAR_SLAB_SHARED_BYTES = LINEAR_GROUP_CHUNKS * LINEAR_SLAB_ROWS * LINEAR_SLAB * 4, /* f32 sums */
};

/* ---- int4 by at most 16 rows, which stay in shared memory: codes through registers ---- */

/* A team of warps, one for each chunk of K, has a tile of 16 outputs. */
enum {
    LINEAR_TEAM_THREADS = LINEAR_GROUP_CHUNKS * 32,
    LINEAR_RESIDENT_TEAMS = 2, /* of a block, at most */
    LINEAR_RESIDENT_ROWS_MAX = 16,
    LINEAR_RESIDENT_WINDOW = 4,          /* blocks of each chunk, where the rows come in windows */
    LINEAR_RESIDENT_X_BYTES = 136 << 10, /* of rows that stay whole, at most */
};

/* Windows that shared memory holds at a time. */
LINEAR_INLINE uint32_t linear_resident_windows(uint32_t tile_rows)
{
    return tile_rows == 8 ? 3 : 2;
}

LINEAR_INLINE uint32_t linear_resident_tiles(uint32_t n_out)
{
    return (n_out + LINEAR_SLAB - 1) / LINEAR_SLAB * (LINEAR_SLAB / LINEAR_TILE_M);
}

/* Of a chunk's part of a row: eight rows begin in different banks. */
LINEAR_INLINE uint32_t linear_resident_row_bytes(uint32_t window_blocks)
{
    return window_blocks * LINEAR_BLOCK_BYTES + 16;
}

/* Bytes of the sums of a team, of two units. */
LINEAR_INLINE uint32_t linear_resident_sums(uint32_t tile_rows)
{
    return 2 * LINEAR_GROUP_CHUNKS * tile_rows * LINEAR_TILE_M * 4;
}

/* ---- The launch ---- */

/* Persistent blocks walk units: unit = (output tile * row tiles + row tile) * chunks + chunk when split, else
 * (output tile * row tiles + row tile) over all chunks. Weights, and the step that counts the rows, are asked
 * for before the kernel's inputs are there (dependencies_wait). */
struct linear_tile_args {
    struct cuda_rows rows;
    const void *weight;       /* packed */
    const void *weight_scale; /* packed */
    const float *bias;        /* [n_out] or NULL */
    const void *x;            /* bf16 [rows][x_stride], or in blocks: 8 bits, and bf16 for wgmma */
    const float *x_scale;     /* [rows], quantised activations */
    void *out;                /* bf16 or f32 [rows][out_stride]; out_stride a multiple of 4 */
    float *partials;          /* split: [output tiles][row tiles][chunks][rows of a tile][tile outputs] */
    uint32_t *arrivals;       /* split: [output tiles][row tiles], zero; zero again when the kernel ends */
    uint32_t n_out, n_in;
    uint32_t group_shift; /* log2 of the inputs per scale; 31: a scale per output */
    uint32_t row_bytes;   /* BF16: between rows of the weight, a multiple of 16 */
    /* bf16: elements between rows, a multiple of 8; in blocks: rows_stride, for wgmma whole tiles. */
    uint32_t x_stride;
    uint32_t out_stride;
    uint32_t out_is_f32;
    uint32_t chunk_blocks;  /* blocks of K in a chunk */
    uint32_t window_blocks; /* of a chunk, whose rows a resident kernel has at a time; chunk_blocks: all */
    uint32_t is_split;
};

/* code = round_to_even(x * (127 / amax)), scale = amax / 127; e4m3: 448 for 127. A row of zeros has scale 0,
 * one with a NaN or infinity scale NaN. Grid (rows.max), QUANTIZE_ROWS_THREADS. Inputs past n_in, to the end
 * of their block, become zero. bf16 is only arranged (to.scale unused). */
enum { QUANTIZE_ROWS_THREADS = 512 };
struct quantize_rows_args {
    struct cuda_rows rows;
    const void *x; /* bf16 [rows][x_stride], x_stride a multiple of 8 */
    uint32_t x_stride, n_in;
    struct quantized_rows to;
};

/* Codes of LINEAR_E4M3_WGMMA to rows as a library wants them. Grid (linear_blocks, linear_panels),
 * UNPACK_THREADS. */
enum { UNPACK_THREADS = 256 };
struct unpack_weight_args {
    const uint8_t *codes; /* linear_layout.h */
    uint8_t *rows;        /* [n_out][row_bytes], aligned to 16 */
    uint32_t n_out, n_in; /* n_in a multiple of 16 */
    uint32_t row_bytes;   /* likewise */
};
