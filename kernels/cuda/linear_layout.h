/* Where the weights and the quantised activations of the tensor-core linear layers lie, and where K is cut.
 * Read by kernels and host code alike.
 *
 * Weights are the rows (operand A) of every matrix instruction and activations its columns, at every number
 * of rows. A panel is 64 outputs, two slabs of 32; a warp works on a slab. In a slab, output 4g + 2t + h is
 * row g + 8h of the instruction's tile t: a lane then holds four neighbouring outputs of a row, one store.
 *
 * K goes in blocks: 128 bytes of a row of activations, which are 64 inputs in bf16 and 128 of 8 bits. Panels
 * of packed codes: [panels][blocks][bytes of a block], what a lane needs for one block in pieces of 16 bytes:
 *   INT4  64 inputs, 2 KB: [2 slabs][2 tiles][32 lanes][4 steps of 16 inputs] words of 8 nibbles, code + 8:
 *         nibble r: register r of the fragment, even input; nibble r + 4: odd input
 *   UINT4 likewise, the code as it is
 *   INT8  64 inputs, 4 KB: [2 of 32][2 slabs][2 steps][32 lanes][2 tiles][2] words: registers 2i and 2i + 1,
 *         bytes: even input of the first, of the second, odd input of the first, of the second
 *   S8, E4M3  128 inputs, 8 KB: [2 of 64][2 slabs][2 steps of 32][2 tiles][32 lanes][4 registers] of 4 bytes
 *   E4M3_WGMMA  128 inputs, 8 KB: [64 outputs][128 inputs], 128-byte swizzle; in 16 outputs, output 2g + h
 *         is row g + 8h
 * Scales: INT4, INT8: bf16 [panels][groups][64 outputs]; UINT4: bf16 [panels][groups][2][64 outputs], scales
 * and then zero points; INT4 times linear_int4_scale_unit, UINT4 times linear_uint4_unit and over -it; S8,
 * E4M3: f32 [panels][64 outputs].
 * BF16: [n_out][row_bytes], rows as they are (cuda_matrix.h): the library's product and embed read them too.
 * Outputs past n_out are never stored, and inputs past n_in multiply zeros: what stands there does not count.
 *
 * Activations in blocks, of 8 bits and bf16 for wgmma: [blocks][rows_stride rows][128 bytes], 16-byte piece p
 * of row r at p ^ (r & 7). */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "base/host_device.h"

#ifdef __cplusplus
#define LINEAR_INLINE HOST_DEVICE static inline constexpr /* kernels' tiles are compile-time constants */
#else
#define LINEAR_INLINE static inline
#endif

enum linear_layout {
    LINEAR_BF16,
    LINEAR_INT4,
    LINEAR_UINT4,      /* int4 whose groups have a zero point beside their scale */
    LINEAR_INT8,       /* groups of inputs share a scale; activations bf16 */
    LINEAR_S8,         /* a scale per output; activations int8, a scale per row */
    LINEAR_E4M3,       /* likewise e4m3, for mma */
    LINEAR_E4M3_WGMMA, /* likewise, for wgmma (sm_90a) */
    LINEAR_LAYOUTS,
};

enum {
    LINEAR_PANEL = 64,
    LINEAR_SLAB = 32,
    LINEAR_TILE_M = 16, /* outputs of an instruction */
    LINEAR_PANEL_TILES = LINEAR_PANEL / LINEAR_TILE_M,
    LINEAR_TILE_BYTES = 512,  /* INT4, UINT4: of a tile in a block */
    LINEAR_BLOCK_BYTES = 128, /* of a row of activations */
    LINEAR_PIECES = LINEAR_BLOCK_BYTES / 16,
    LINEAR_CHUNK_MAX = 1024, /* inputs */
    LINEAR_CHUNK_MIN = 256,
    /* wgmma keeps 13 bits of fraction while it adds e4m3 products: a chunk that is longer than
     * LINEAR_CHAIN_WHOLE is a sum of chains. */
    LINEAR_CHAIN_E4M3 = 512,
    LINEAR_CHAIN_WHOLE = 1024,
    LINEAR_WGMMA_CHUNKS = 4,  /* at most, of a weight for wgmma */
    LINEAR_CHUNK_UNITS = 192, /* pieces of work that a weight should fall into */
    LINEAR_CHUNK_OUTPUTS = 128,
    LINEAR_GROUP_CHUNKS = 8, /* at most, of a weight whose groups share a scale */
};

/* Codes of four bits. */
LINEAR_INLINE bool linear_is_int4(enum linear_layout layout)
{
    return layout == LINEAR_INT4 || layout == LINEAR_UINT4;
}

/* INT4: sums are multiples of it. Scales from 2^-100 or so to 2^18 lose nothing but what bf16 loses. */
#define LINEAR_INT4_UNIT 0x1p24f

/* INT4: what the scale of output o is packed as a multiple of. A code in the lowest four bits of a bf16 is
 * code
 * * 2^-133, in the next four, where the odd outputs' stand, code * 2^-129. */
LINEAR_INLINE float linear_int4_scale_unit(uint32_t o)
{
    return o % 2 == 0 ? 0x1p109f : 0x1p105f;
}

/* UINT4: codes of output o are multiples of one over it once 2^127 is multiplied out. */
LINEAR_INLINE float linear_uint4_unit(uint32_t o)
{
    return o % 2 == 0 ? 0x1p6f : 0x1p2f;
}

/* Groups of inputs share a scale; activations are bf16. */
LINEAR_INLINE bool linear_has_groups(enum linear_layout layout)
{
    return linear_is_int4(layout) || layout == LINEAR_INT8;
}

/* Bytes of a panel's scales of one group. */
LINEAR_INLINE uint32_t linear_group_bytes(enum linear_layout layout)
{
    return LINEAR_PANEL * (layout == LINEAR_UINT4 ? 4 : 2);
}

/* Inputs of a block. */
LINEAR_INLINE uint32_t linear_block_inputs(enum linear_layout layout)
{
    return layout == LINEAR_BF16 || linear_has_groups(layout) ? 64 : 128;
}

/* Bytes of a block of a panel; 0: BF16, whose rows stay whole. */
LINEAR_INLINE uint32_t linear_block_bytes(enum linear_layout layout)
{
    return layout == LINEAR_BF16 ? 0 : linear_is_int4(layout) ? 2048 : layout == LINEAR_INT8 ? 4096 : 8192;
}

LINEAR_INLINE uint32_t linear_blocks(enum linear_layout layout, uint32_t n_in)
{
    uint32_t inputs = linear_block_inputs(layout);
    return (n_in + inputs - 1) / inputs;
}

LINEAR_INLINE uint32_t linear_panels(uint32_t n_out)
{
    return (n_out + LINEAR_PANEL - 1) / LINEAR_PANEL;
}

/* Inputs of a chunk: one chain of accumulation. The shape alone decides, so that the sums of a row do not
 * hang on how many rows there are: small weights fall into more chunks, to occupy a device with few rows. */
LINEAR_INLINE uint32_t linear_chunk_inputs(enum linear_layout layout, uint32_t n_out, uint32_t n_in)
{
    /* A warp each of the kernel for few rows, in whole steps of it. */
    if (linear_has_groups(layout)) {
        uint32_t steps = (n_in + LINEAR_CHUNK_MIN - 1) / LINEAR_CHUNK_MIN;
        return (steps + LINEAR_GROUP_CHUNKS - 1) / LINEAR_GROUP_CHUNKS * LINEAR_CHUNK_MIN;
    }
    if (layout == LINEAR_E4M3_WGMMA) {
        uint32_t blocks = linear_blocks(layout, n_in);
        uint32_t chunk =
            (blocks + LINEAR_WGMMA_CHUNKS - 1) / LINEAR_WGMMA_CHUNKS * linear_block_inputs(layout);
        return chunk < LINEAR_CHAIN_E4M3 ? (uint32_t)LINEAR_CHAIN_E4M3 : chunk;
    }
    uint32_t panels = (n_out + LINEAR_CHUNK_OUTPUTS - 1) / LINEAR_CHUNK_OUTPUTS;
    uint32_t chunk = layout == LINEAR_E4M3 ? (uint32_t)LINEAR_CHAIN_E4M3 : (uint32_t)LINEAR_CHUNK_MAX;
    while (chunk > LINEAR_CHUNK_MIN && panels * ((n_in + chunk - 1) / chunk) < LINEAR_CHUNK_UNITS)
        chunk /= 2;
    return chunk;
}

/* Inputs of a chain of e4m3 products, of a chunk of so many. */
LINEAR_INLINE uint32_t linear_chain_inputs(uint32_t chunk)
{
    return chunk <= LINEAR_CHAIN_WHOLE ? chunk : (uint32_t)LINEAR_CHAIN_E4M3;
}

/* Byte of a panel's block that holds output o (0..63) of input k (0..inputs of a block - 1). */
LINEAR_INLINE uint32_t linear_code_offset(enum linear_layout layout, uint32_t o, uint32_t k)
{
    uint32_t slab = o / LINEAR_SLAB, group = o % LINEAR_SLAB / 4, tile = o / 2 % 2, half = o % 2;
    uint32_t wide = k / 32;                                                 /* 16-bit inputs: of 32 */
    uint32_t lane = group * 4 + k % 8 / 2, step = k / 16 % 2;               /* likewise */
    uint32_t reg = half + k % 16 / 8 * 2;                                   /* likewise */
    uint32_t lane8 = group * 4 + k % 16 / 4, reg8 = half + k % 32 / 16 * 2; /* 8-bit inputs */
    switch (layout) {
    case LINEAR_INT4:
    case LINEAR_UINT4:
        return (slab * 2 + tile) * LINEAR_TILE_BYTES + lane * 16 + k / 16 * 4 + (reg + k % 2 * 4) / 2;
    case LINEAR_INT8:
        return ((wide * 2 + slab) * 2 + step) * 512 + lane * 16 + (tile * 2 + reg / 2) * 4 + reg % 2 +
               k % 2 * 2;
    case LINEAR_S8:
    case LINEAR_E4M3:
        return (((k / 64 * 2 + slab) * 2 + k / 32 % 2) * 2 + tile) * 512 + lane8 * 16 + reg8 * 4 + k % 4;
    case LINEAR_E4M3_WGMMA: {
        uint32_t row = o / 16 * 16 + o % 16 / 2 + half * 8;
        return row * LINEAR_BLOCK_BYTES + (k / 16 ^ row % 8) * 16 + k % 16;
    }
    case LINEAR_BF16:
    case LINEAR_LAYOUTS:
        break;
    }
    return 0;
}

/* INT4, UINT4: bits that the code is shifted by in its byte, which it shares with output o ^ 1. */
LINEAR_INLINE uint32_t linear_int4_shift(uint32_t o)
{
    return o % 2 * 4; /* the fragment's register is odd in the lower half of a tile */
}

/* Byte offset of a block's codes. */
LINEAR_INLINE size_t linear_block_offset(enum linear_layout layout, uint32_t n_blocks, uint32_t panel,
                                         uint32_t block)
{
    return ((size_t)panel * n_blocks + block) * linear_block_bytes(layout);
}

/* Bytes of all panels' codes. */
LINEAR_INLINE size_t linear_codes_bytes(enum linear_layout layout, uint32_t n_out, uint32_t n_in)
{
    return linear_block_offset(layout, linear_blocks(layout, n_in), linear_panels(n_out), 0);
}

/* Groups of a row of packed weights, those of padded inputs with them. */
LINEAR_INLINE uint32_t linear_groups(enum linear_layout layout, uint32_t n_in, uint32_t group)
{
    uint32_t inputs = linear_blocks(layout, n_in) * linear_block_inputs(layout);
    return (inputs + group - 1) / group;
}

/* Byte offset of byte k of row r in activations in blocks. */
LINEAR_INLINE size_t linear_activation_offset(uint32_t rows_stride, uint32_t row, uint32_t k)
{
    size_t block = k / LINEAR_BLOCK_BYTES;
    uint32_t piece = k % LINEAR_BLOCK_BYTES / 16;
    return (block * rows_stride + row) * LINEAR_BLOCK_BYTES + (piece ^ row % 8) * 16 + k % 16;
}
