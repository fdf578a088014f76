/* Attention of a tile of 64 keys by a warp and up to eight (row, head) pairs. Keys and values are operand A
 * of the products, the pairs operand B: what a product has for a pair is the same as where the pairs are
 * operand A, bit by bit. Included by attention_streams.h alone. */
#pragma once

#include "kernels/cuda/attention_feed.h"

/* Accumulators: elements 0 and 1 belong to pairs 2 t and 2 t + 1, elements 2 and 3 likewise; t = lane % 4. */
template <class FORM> struct attention_sums {
    float o[FORM::VALUE_TILES][4];
    float l[4];
    float m[2];
};

/* Two pieces of the block's 16 tokens: matrices are tokens 0..7 and 8..15 of the first, then of the second.
 */
template <class FORM, bool transposed>
DEVICE void attention_read_pieces(uint32_t slot_at, uint32_t j, uint32_t b[4])
{
    constexpr bool IS_POWER = (FORM::KV_PIECES & (FORM::KV_PIECES - 1)) == 0;
    uint32_t lane = lane_id(), swizzle = cuda_kv_swizzle(FORM::KV_PIECES, lane & 7);
    uint32_t at = slot_at + (lane & 15) * FORM::KV_PIECES * 16;
    at = IS_POWER ? at + (lane >> 4 ^ swizzle) * 16 : at + ((2 * j + (lane >> 4)) ^ swizzle) * 16;
    const uint8_t *row = attention_shared<FORM>() + at;
    if constexpr (IS_POWER)
        row = (const uint8_t *)((uintptr_t)row ^ j * 32);
    if constexpr (transposed)
        ldmatrix_x4_trans(b, row);
    else
        ldmatrix_x4(b, row);
}

/* q of a step: operand B, pair lane / 4. Two steps lie together. */
template <class FORM> DEVICE uint32_t *attention_pair_q(uint32_t k)
{
    return (uint32_t *)(attention_shared<FORM>() + FORM::Q_AT) + (k / 2 * WARP_LANES + lane_id()) * 4 +
           k % 2 * 2;
}

/* Scores of the next block's 16 keys by 8 pairs; its slot is filled again. */
template <class FORM>
DEVICE void attention_block_scores(const struct attention_tile_args &args, attention_feed *feed, float s[4])
{
    s[0] = s[1] = s[2] = s[3] = 0.0f;
    copy_async_wait(FORM::SLOTS - 1);
    warp_sync(); /* all lanes' copies have landed */
    if constexpr (FORM::KV_BYTES == 2) {
#pragma unroll
        for (uint32_t j = 0; j < FORM::LOADS; j++) {
            uint32_t a[4];
            attention_read_pieces<FORM, false>(feed->slot_at, j, a);
            mma_bf16_16816(s, a, attention_pair_q<FORM>(j));
        }
        warp_sync(); /* all lanes have read it */
        attention_feed_slot<FORM>(args, feed);
    } else {
        uint32_t b[FORM::LOADS][4];
#pragma unroll
        for (uint32_t j = 0; j < FORM::LOADS; j++)
            attention_read_pieces<FORM, false>(feed->slot_at, j, b[j]);
        warp_sync();
        attention_feed_slot<FORM>(args, feed);
#pragma unroll
        for (uint32_t j = 0; j < FORM::LOADS; j++) {
            vec16 q = *(const vec16 *)attention_pair_q<FORM>(2 * j);
#pragma unroll
            for (uint32_t n = 0; n < 2; n++) {
                uint32_t a[4];
                attention_split_e4m3(b[j][2 * n], &a[0], &a[2]);
                attention_split_e4m3(b[j][2 * n + 1], &a[1], &a[3]);
                mma_bf16_16816(s, a, q.w + 2 * n);
            }
        }
    }
}

/* (l, o) += (1, v) . p of the next block's 16 keys, of which the first n_keys are there; its slot is filled
 * again. */
template <class FORM>
DEVICE void attention_block_values(const struct attention_tile_args &args, const uint32_t p[2],
                                   uint32_t n_keys, attention_sums<FORM> *sums, attention_feed *feed)
{
    const uint32_t ones[4] = {0x3f803f80u, 0x3f803f80u, 0x3f803f80u, 0x3f803f80u};
    copy_async_wait(FORM::SLOTS - 1);
    warp_sync();
    mma_bf16_16816(sums->l, ones, p);
    if constexpr (FORM::KV_BYTES == 2) {
        uint32_t key = 2 * (lane_id() & 3), low = 0xffffffffu, high = 0xffffffffu;
        if (n_keys < CUDA_KV_BLOCK_TOKENS) { /* whatever lies behind the last key must not reach a sum */
            low = (key < n_keys ? 0xffffu : 0) | (key + 1 < n_keys ? 0xffff0000u : 0);
            high = (key + 8 < n_keys ? 0xffffu : 0) | (key + 9 < n_keys ? 0xffff0000u : 0);
        }
#pragma unroll
        for (uint32_t j = 0; j < FORM::LOADS; j++) {
            uint32_t b[4];
            attention_read_pieces<FORM, true>(feed->slot_at, j, b);
            const uint32_t a[4] = {b[0] & low, b[2] & low, b[1] & high, b[3] & high};
            mma_bf16_16816(sums->o[j], a, p);
        }
        warp_sync();
        attention_feed_slot<FORM>(args, feed);
    } else { /* codes are finite, whatever they are */
        uint32_t b[FORM::LOADS][4];
#pragma unroll
        for (uint32_t j = 0; j < FORM::LOADS; j++)
            attention_read_pieces<FORM, true>(feed->slot_at, j, b[j]);
        warp_sync();
        attention_feed_slot<FORM>(args, feed);
#pragma unroll
        for (uint32_t j = 0; j < FORM::VALUE_TILES; j++) {
            uint32_t a[4];
            attention_split_e4m3(b[j / 2][j % 2 * 2], &a[0], &a[1]);
            attention_split_e4m3(b[j / 2][j % 2 * 2 + 1], &a[2], &a[3]);
            mma_bf16_16816(sums->o[j], a, p);
        }
    }
}

/* Keys of a tile that pairs do not see. */
template <class FORM>
DEVICE void attention_mask_tile(const struct attention_tile_args &args, const struct attention_piece &piece,
                                uint32_t first_key, float s[FORM::TILE_BLOCKS][4])
{
    bool has_position = (piece.item.flags & ATTENTION_ITEM_LISTED) == 0 || args.window > 0;
#pragma unroll
    for (uint32_t c = 0; c < 2; c++) {
        uint32_t pair = 2 * (lane_id() & 3) + c, first = 0, n_seen = 0xffffffffu;
        if (pair < piece.n_pairs && has_position) {
            uint32_t position = attention_position(args, piece, attention_find_pair(args, piece, pair).row);
            first = attention_first_key(args.window, position);
            n_seen = position - first + 1;
        }
#pragma unroll
        for (uint32_t i = 0; i < 2 * FORM::TILE_BLOCKS; i++) {
            uint32_t key = first_key + 8 * i + lane_id() / 4;
            float *score = &s[i / 2][i % 2 * 2 + c];
            *score = key - first < n_seen ? *score : -INFINITY;
        }
    }
}

/* Scores become probabilities, as in attention_softmax. */
template <class FORM>
DEVICE void attention_weigh_tile(attention_sums<FORM> *sums, float factor, float s[FORM::TILE_BLOCKS][4])
{
    float decay[2], base[2];
#pragma unroll
    for (uint32_t c = 0; c < 2; c++) {
        float max = s[0][c];
#pragma unroll
        for (uint32_t i = 0; i < FORM::TILE_BLOCKS; i++)
            max = fmaxf(max, fmaxf(s[i][c], s[i][c + 2]));
        max = fmaxf(max, shuffle_xor(max, 4));
        max = fmaxf(max, shuffle_xor(max, 8));
        max = fmaxf(max, shuffle_xor(max, 16));
        float m = fmaxf(sums->m[c], max * factor);
        base[c] = m == -INFINITY ? 0.0f : m;
        decay[c] = fast_exp2(sums->m[c] - base[c]);
        sums->m[c] = m;
    }
#pragma unroll
    for (uint32_t i = 0; i < FORM::TILE_BLOCKS; i++) {
#pragma unroll
        for (uint32_t c = 0; c < 4; c++)
            s[i][c] = attention_raise<FORM>(fast_exp2(fmaf(s[i][c], factor, -base[c % 2])));
    }
    if (!any_lane(decay[0] != 1.0f || decay[1] != 1.0f))
        return;
#pragma unroll
    for (uint32_t c = 0; c < 4; c++) {
        sums->l[c] *= decay[c % 2];
#pragma unroll
        for (uint32_t j = 0; j < FORM::VALUE_TILES; j++)
            sums->o[j][c] *= decay[c % 2];
    }
}

/* A tile's blocks move up by one, so that a loop over them need not be unrolled. */
template <uint32_t N> DEVICE void attention_push(float (&s)[N][4], const float (&next)[4])
{
#pragma unroll
    for (uint32_t c = 0; c < 4; c++) {
        float last = next[c];
#pragma unroll
        for (uint32_t i = 0; i + 1 < N; i++)
            s[i][c] = s[i + 1][c];
        s[N - 1][c] = last;
    }
}

/* Tile `tile` of the sequence. */
template <class FORM, bool is_whole>
DEVICE void attention_stream_tile(const struct attention_tile_args &args, const struct attention_desk &desk,
                                  uint32_t tile, attention_feed *feed, attention_sums<FORM> *sums)
{
    const struct attention_piece &piece = desk.piece;
    float s[FORM::TILE_BLOCKS][4] = {};
    uint32_t first_key = tile * FORM::KEYS, first_block = tile * FORM::TILE_BLOCKS;
    uint32_t begin = piece.seen_first / CUDA_KV_BLOCK_TOKENS, last = piece.seen_last / CUDA_KV_BLOCK_TOKENS;
    begin = begin > first_block ? begin - first_block : 0;
    last = last - first_block;
    attention_look_ahead(args, desk, feed);
    [[maybe_unused]] constexpr uint32_t UNROLL = is_whole ? FORM::UNROLL : 1;
#pragma unroll UNROLL
    for (uint32_t i = 0; i < FORM::TILE_BLOCKS; i++) {
        float next[4] = {-INFINITY, -INFINITY, -INFINITY, -INFINITY};
        if (is_whole || (i >= begin && i <= last))
            attention_block_scores<FORM>(args, feed, next);
        attention_push(s, next);
    }
    attention_cap<FORM, FORM::TILE_BLOCKS>(args, s);
    if (!is_whole && (first_key < piece.all_first || first_key + FORM::KEYS - 1 > piece.all_last))
        attention_mask_tile<FORM>(args, piece, first_key, s);
    attention_weigh_tile<FORM>(sums, attention_logarithm<FORM>(args), s);
#pragma unroll UNROLL
    for (uint32_t i = 0; i < FORM::TILE_BLOCKS; i++) {
        const uint32_t p[2] = {matrix_transpose(to_bf16x2(s[0][0], s[0][1])),
                               matrix_transpose(to_bf16x2(s[0][2], s[0][3]))};
        attention_push(s, s[0]);
        if (is_whole || (i >= begin && i <= last))
            attention_block_values<FORM>(args, p,
                                         !is_whole && i == last ? piece.seen_last % CUDA_KV_BLOCK_TOKENS + 1
                                                                : (uint32_t)CUDA_KV_BLOCK_TOKENS,
                                         sums, feed);
    }
}
