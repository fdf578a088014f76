/* Where the keys and values of a layer lie in the CUDA backend's KV cache. Read by kernels and host code
 * alike.
 *
 *   layer [n_blocks] of block [n_kv_heads] of { K tile, V tile }; a tile is [16 tokens][row of head_dim
 * elements]
 *
 * A row is rounded up to whole pieces of 16 bytes, the unit of asynchronous copies and of ldmatrix. Piece p
 * of token t stands at p ^ cuda_kv_swizzle(t): a tile is copied to shared memory as it is, one after the
 * other, and eight tokens' pieces p then lie in eight different groups of four banks, whatever the row's
 * length. Both K and V keep a token's elements together: K is the "column" operand of q . k as it is, V that
 * of p . v through ldmatrix's transpose.
 *
 * A split of attention is 256 tokens: 16 entries of a block table. */
#pragma once

#include <stddef.h>
#include <stdint.h>

#ifdef __CUDACC__
#define CUDA_KV_INLINE static inline __host__ __device__
#else
#define CUDA_KV_INLINE static inline
#endif

enum {
    CUDA_KV_BLOCK_TOKENS = 16,
    CUDA_KV_SPLIT_TOKENS = 256,
    CUDA_KV_SPLIT_BLOCKS = CUDA_KV_SPLIT_TOKENS / CUDA_KV_BLOCK_TOKENS,
    CUDA_KV_PIECE_BYTES = 16,
};

enum cuda_kv_part { CUDA_KV_K, CUDA_KV_V };

/* Pieces of a row. element_bytes: f32 4, bf16 2, fp8 1. */
CUDA_KV_INLINE uint32_t cuda_kv_row_pieces(uint32_t head_dim, uint32_t element_bytes)
{
    return (head_dim * element_bytes + CUDA_KV_PIECE_BYTES - 1) / CUDA_KV_PIECE_BYTES;
}

CUDA_KV_INLINE uint32_t cuda_kv_tile_bytes(uint32_t head_dim, uint32_t element_bytes)
{
    return CUDA_KV_BLOCK_TOKENS * CUDA_KV_PIECE_BYTES * cuda_kv_row_pieces(head_dim, element_bytes);
}

/* Bytes of one block, all heads of the layer. */
CUDA_KV_INLINE size_t cuda_kv_block_bytes(uint32_t n_kv_heads, uint32_t head_dim, uint32_t element_bytes)
{
    return (size_t)n_kv_heads * 2 * cuda_kv_tile_bytes(head_dim, element_bytes);
}

/* What a token's pieces are permuted by: within 8 pieces where a row has a multiple of 8 (every token of
 * eight begins at the same bank), less where its length already moves the beginning. */
CUDA_KV_INLINE uint32_t cuda_kv_swizzle(uint32_t row_pieces, uint32_t token)
{
    if (row_pieces % 8 == 0)
        return token & 7;
    if (row_pieces % 4 == 0)
        return token >> 1 & 3;
    return row_pieces % 2 == 0 ? token >> 2 & 1 : 0;
}

/* Byte offset of a tile in the layer. */
CUDA_KV_INLINE size_t cuda_kv_tile_offset(uint32_t n_kv_heads, uint32_t tile_bytes, uint32_t block,
                                          uint32_t kv_head, enum cuda_kv_part part)
{
    return (((size_t)block * n_kv_heads + kv_head) * 2 + (uint32_t)part) * tile_bytes;
}

/* Byte offset in a tile of the piece that holds the bytes [16 * piece, 16 * piece + 16) of a token's row. */
CUDA_KV_INLINE uint32_t cuda_kv_piece_offset(uint32_t row_pieces, uint32_t token, uint32_t piece)
{
    return (token * row_pieces + (piece ^ cuda_kv_swizzle(row_pieces, token))) * CUDA_KV_PIECE_BYTES;
}

/* Byte offset in a tile of element `index` of a token (0..15). */
CUDA_KV_INLINE uint32_t cuda_kv_element_offset(uint32_t row_pieces, uint32_t element_bytes, uint32_t token,
                                               uint32_t index)
{
    uint32_t byte = index * element_bytes;
    return cuda_kv_piece_offset(row_pieces, token, byte / CUDA_KV_PIECE_BYTES) + byte % CUDA_KV_PIECE_BYTES;
}
