/* The warps that load for attention by wgmma: pieces, q, keys and values. Included by attention_wgmma.cu
 * alone. */
#pragma once

#include "kernels/cuda/attention_wgmma.h"

/* Of a loader's warp. */
struct attention_loading {
    uint32_t warp;         /* of the loaders */
    uint32_t n_tiles;      /* of the pieces before */
    bool is_ready;         /* the kernel in front is known to have ended */
    bool has_asked, has_q; /* of this piece: for its share of q, and that is there */
};

/* ---- Pieces ---- */

/* The block's piece number n, from its turn *turn on; n_pairs 0: there is none. Items come with the
 * longest first: every other round of the blocks goes backwards, so that all of them have about as much to
 * do. */
template <class FORM>
DEVICE void attention_next_piece(const struct attention_tile_args &args, uint32_t n_pieces, uint32_t *turn,
                                 uint32_t n)
{
    struct attention_piece *piece = attention_piece_at<FORM>(n);
    while (*turn * grid_x() < n_pieces) {
        uint32_t in_round = *turn % 2 == 0 ? block_x() : grid_x() - 1 - block_x();
        uint32_t index = *turn * grid_x() + in_round;
        ++*turn;
        if (index < n_pieces && attention_find_piece<FORM>(args, index, piece)) {
            piece->index = n;
            return;
        }
    }
    piece->n_pairs = 0;
}

/* ---- q ---- */

/* The warp's share of a piece's rows, [pair][Q_PITCH], and whose they are; those that are missing become
 * zeros.
 */
template <class FORM>
DEVICE void attention_copy_q(const struct attention_tile_args &args, const struct attention_piece &piece,
                             uint32_t warp)
{
    constexpr uint32_t PIECES = FORM::DIM * 2 / 16, WARP_PAIRS = FORM::ROWS / FORM::LOADER_WARPS;
    uint8_t *to = attention_shared<FORM>() + FORM::Q_AT + lane_id() % PIECES * 16;
#pragma unroll 1
    for (uint32_t i = lane_id() / PIECES; i < WARP_PAIRS; i += WARP_LANES / PIECES) {
        uint32_t pair = warp * WARP_PAIRS + i;
        const uint16_t *q = args.qkv;
        if (pair < piece.n_pairs) {
            struct attention_pair of = attention_find_pair(args, piece, pair);
            q += (size_t)of.row * args.qkv_stride + of.head * FORM::DIM + lane_id() % PIECES * 8;
            if (lane_id() % PIECES == 0)
                *attention_kept_pair<FORM>(piece, pair) = of;
        }
        copy_async_16_if(to + pair * FORM::Q_PITCH, q, pair < piece.n_pairs);
    }
}

/* ---- Keys and values ---- */

/* Block `block` of 16 keys of a tile in bf16: a part of a key lies as wgmma's swizzle wants it. n_seen: keys
 * that are there, first: of the block, from the first of them on; the others become zeros, since whatever
 * lies there must not reach a sum. */
template <class FORM>
DEVICE void attention_copy_block_bf16(uint8_t *tile, uint32_t block, const uint8_t *from, uint32_t first,
                                      uint32_t n_seen)
{
    constexpr uint32_t STEP_KEYS = WARP_LANES / FORM::KV_PIECES;
    uint32_t key = lane_id() / FORM::KV_PIECES, piece = lane_id() % FORM::KV_PIECES;
    uint8_t *to = tile + piece / 8 * FORM::PART_BYTES + piece % 8 * 16 +
                  (block * CUDA_KV_BLOCK_TOKENS + key) * ATTENTION_ROW_BYTES;
#pragma unroll
    for (uint32_t i = 0; i < CUDA_KV_BLOCK_TOKENS / STEP_KEYS; i++)
        copy_async_16_if(to + i * STEP_KEYS * ATTENTION_ROW_BYTES, from + (i * WARP_LANES + lane_id()) * 16,
                         first + key + i * STEP_KEYS < n_seen);
}

/* The same in e4m3. Codes come to where none but their lane reads them, and go from there to the tile as
 * bf16: a piece of 16 becomes two, its even and its odd ones (attention_load_q). Eight lanes have four pieces
 * of two keys, so that what they store lies in eight groups of banks. Step i of a tile is keys i * STEP_KEYS
 * and on. */
template <class FORM> struct attention_codes_lane {
    static constexpr uint32_t STEP_KEYS = WARP_LANES / FORM::KV_PIECES;
    static constexpr uint32_t STEPS = FORM::KEYS / STEP_KEYS, BLOCK_STEPS = CUDA_KV_BLOCK_TOKENS / STEP_KEYS;
    uint32_t piece, key; /* of a step */
    uint8_t *codes;      /* [STEPS][WARP_LANES * 16] */
};

template <class FORM> DEVICE attention_codes_lane<FORM> attention_make_codes_lane(uint32_t warp)
{
    uint32_t lane = lane_id();
    uint8_t *codes = attention_shared<FORM>() + FORM::CODES_AT + warp * FORM::CODES_BYTES + lane * 16;
    if constexpr (FORM::KV_PIECES == 8)
        return {(lane & 3) | (lane >> 3 & 1) << 2, (lane >> 2 & 1) | lane >> 4 << 1, codes};
    else
        return {lane & 3, lane >> 2, codes};
}

/* Asks for a step of a block, to `codes`. from: the block; first, n_seen: as above. */
template <class FORM>
DEVICE void attention_copy_codes(const attention_codes_lane<FORM> &lane, uint32_t step, uint8_t *codes,
                                 const uint8_t *from, uint32_t first, uint32_t n_seen)
{
    uint32_t key = step * attention_codes_lane<FORM>::STEP_KEYS + lane.key;
    copy_async_16_if(codes + step * WARP_LANES * 16,
                     from + cuda_kv_piece_offset(FORM::KV_PIECES, key, lane.piece), first + key < n_seen);
}

/* The codes of a step as bf16. block: where its keys lie in the tile. */
template <class FORM>
DEVICE void attention_spread_codes(const attention_codes_lane<FORM> &lane, uint32_t step,
                                   const uint8_t *codes, uint8_t *block)
{
    vec16 packed = load_16(codes + step * WARP_LANES * 16), even, odd;
#pragma unroll
    for (uint32_t w = 0; w < 4; w++)
        attention_split_e4m3(packed.w[w], &even.w[w], &odd.w[w]);
    uint32_t key = step * attention_codes_lane<FORM>::STEP_KEYS + lane.key;
    uint32_t at = lane.piece / 4 * FORM::PART_BYTES + ((lane.piece * 2 % 8) ^ (key & 7)) * 16 +
                  key * ATTENTION_ROW_BYTES;
    store_16(block + at, even);
    store_16(block + (at ^ 16), odd);
}

/* ---- Handing over ---- */

/* What the warp stored, and copied and waited for, is there for those who wait at `full`. */
DEVICE void attention_hand_over(struct attention_handover *handover)
{
    fence_async_proxy();
    warp_sync();
    if (lane_id() == 0)
        mbarrier_arrive(&handover->full);
}

/* The warp's share of q, once the kernel in front has ended. */
template <class FORM>
DEVICE void attention_ask_for_q(const struct attention_tile_args &args, const struct attention_piece &piece,
                                struct attention_loading *loading)
{
    if (loading->has_asked)
        return;
    attention_wait_for_q(&loading->is_ready);
    attention_copy_q<FORM>(args, piece, loading->warp);
    copy_async_commit();
    loading->has_asked = true;
}

/* Once that share has come. */
template <class FORM>
DEVICE void attention_hand_over_q(attention_barriers<FORM> *barriers, struct attention_loading *loading)
{
    if (!loading->has_q)
        attention_hand_over(&barriers->q);
    loading->has_q = true;
}

/* ---- Tiles ---- */

/* What a warp loads of a piece: keys or values of every second tile. */
template <class FORM> struct attention_share {
    const uint32_t *table;
    const uint8_t *part; /* the KV head's keys or values in block 0 */
    size_t block_bytes;
    struct attention_handover *stages;
    uint8_t *tiles; /* of the stages */
    uint32_t tile_bytes;
    uint32_t seen_first, n_seen, tile_end;
};

template <class FORM>
DEVICE attention_share<FORM>
attention_share_of(const struct attention_tile_args &args, const struct attention_piece &piece,
                   attention_barriers<FORM> *barriers, const struct attention_loading &loading)
{
    bool is_v = loading.warp % 2;
    size_t at = (size_t)piece.item.seq * args.step->blocks_per_seq;
    return {args.step->block_tables[args.kv.group] + at,
            args.kv.blocks + (piece.kv_head * 2 + is_v) * FORM::BLOCK_BYTES,
            args.kv.n_kv_heads * 2 * (size_t)FORM::BLOCK_BYTES,
            is_v ? barriers->values : barriers->keys,
            attention_shared<FORM>() + (is_v ? FORM::VALUES_AT : FORM::KEYS_AT),
            is_v ? FORM::VALUES_BYTES : FORM::KEYS_BYTES,
            piece.seen_first,
            piece.seen_last - piece.seen_first + 1,
            piece.tile_end};
}

template <class FORM> DEVICE vec16 attention_find_blocks(const attention_share<FORM> &share, uint32_t tile)
{
    uint32_t last = share.tile_end - 1;
    return load_cached_16(share.table + (tile < last ? tile : last) * FORM::TILE_BLOCKS);
}

/* Waits until tile number `count` of the block has its stage for itself; returns the stage. */
template <class FORM>
DEVICE uint32_t attention_await_stage(const attention_share<FORM> &share, uint32_t count)
{
    uint32_t stage = count % FORM::STAGES;
    if (count >= FORM::STAGES)
        mbarrier_wait(&share.stages[stage].empty, (count / FORM::STAGES - 1) & 1);
    return stage;
}

/* Tiles from `tile` on, of which that one is number `count` of the block, in bf16. ask: when the first is on
 * its way; go_on: when it is there, and what was asked for. */
template <class FORM, class ASK, class GO_ON>
DEVICE void attention_load_bf16(const attention_share<FORM> &share, uint32_t tile, uint32_t count, ASK ask,
                                GO_ON go_on)
{
#pragma unroll 1
    for (; tile < share.tile_end; tile += FORM::TILE_STEP, count += FORM::TILE_STEP) {
        vec16 blocks = attention_find_blocks<FORM>(share, tile);
        uint32_t stage = attention_await_stage<FORM>(share, count);
#pragma unroll
        for (uint32_t i = 0; i < FORM::TILE_BLOCKS; i++)
            attention_copy_block_bf16<FORM>(
                share.tiles + stage * share.tile_bytes, i, share.part + blocks.w[i] * share.block_bytes,
                tile * FORM::KEYS + i * CUDA_KV_BLOCK_TOKENS - share.seen_first, share.n_seen);
        copy_async_commit();
        ask();
        copy_async_wait(0);
        attention_hand_over(&share.stages[stage]);
        go_on();
    }
}

/* The same in e4m3. Codes of the next tile are asked for step by step, where those of this one have left. */
template <class FORM, class ASK, class GO_ON>
DEVICE void attention_load_e4m3(const attention_share<FORM> &share, uint32_t warp, uint32_t tile,
                                uint32_t count, ASK ask, GO_ON go_on)
{
    typedef attention_codes_lane<FORM> lane_type;
    lane_type lane = attention_make_codes_lane<FORM>(warp);
    bool has_codes = false;
#pragma unroll 1
    for (uint32_t last = share.tile_end - 1; has_codes || tile <= last; tile += FORM::TILE_STEP) {
        bool asks = tile <= last;
        vec16 blocks = attention_find_blocks<FORM>(share, tile);
        uint32_t stage = has_codes ? attention_await_stage<FORM>(share, count) : 0;
        uint32_t first = tile * FORM::KEYS - share.seen_first;
        uint8_t *codes = lane.codes, *to = share.tiles + stage * share.tile_bytes;
#pragma unroll 1
        for (uint32_t b = 0; b < FORM::TILE_BLOCKS; b++) {
            const uint8_t *from = share.part + blocks.w[0] * share.block_bytes;
#pragma unroll
            for (uint32_t i = 0; i < lane_type::BLOCK_STEPS; i++) {
                if (has_codes) {
                    copy_async_wait(lane_type::STEPS - 1);
                    attention_spread_codes<FORM>(lane, i, codes, to);
                }
                if (asks)
                    attention_copy_codes<FORM>(lane, i, codes, from, first, share.n_seen);
                copy_async_commit();
            }
            blocks = {{blocks.w[1], blocks.w[2], blocks.w[3], 0}};
            codes += lane_type::BLOCK_STEPS * WARP_LANES * 16;
            to += CUDA_KV_BLOCK_TOKENS * ATTENTION_ROW_BYTES;
            first += CUDA_KV_BLOCK_TOKENS;
        }
        if (has_codes) {
            attention_hand_over(&share.stages[stage]);
            go_on();
            count += FORM::TILE_STEP;
        } else {
            ask();
        }
        has_codes = asks;
    }
}

/* ---- The loader ---- */

/* The warp's share of a piece. find_next: called once, when there is time for it. q comes first, but for the
 * first piece of a block and for old keys, which need not wait for the kernel in front. */
template <class FORM, class FIND_NEXT>
DEVICE void attention_load_piece(const struct attention_tile_args &args, const struct attention_piece &piece,
                                 attention_barriers<FORM> *barriers, struct attention_loading *loading,
                                 FIND_NEXT find_next)
{
    attention_share<FORM> share = attention_share_of<FORM>(args, piece, barriers, *loading);
    uint32_t first = loading->warp / 2; /* of the piece's tiles */
    bool has_found = false;
    loading->has_asked = loading->has_q = false;
    if ((piece.item.flags & ATTENTION_ITEM_OLD_KEYS) == 0)
        attention_wait_for_q(&loading->is_ready);
    if (loading->n_tiles > 0 && loading->is_ready) {
        attention_ask_for_q<FORM>(args, piece, loading);
        copy_async_wait(0);
        attention_hand_over_q<FORM>(barriers, loading);
    }
    auto ask = [&]() { attention_ask_for_q<FORM>(args, piece, loading); };
    auto go_on = [&]() {
        attention_hand_over_q<FORM>(barriers, loading);
        if (!has_found)
            find_next();
        has_found = true;
    };
    if constexpr (FORM::KV_BYTES == 2)
        attention_load_bf16<FORM>(share, piece.tile + first, loading->n_tiles + first, ask, go_on);
    else
        attention_load_e4m3<FORM>(share, loading->warp, piece.tile + first, loading->n_tiles + first, ask,
                                  go_on);
    ask();
    copy_async_wait(0);
    attention_hand_over_q<FORM>(barriers, loading);
    loading->n_tiles += piece.tile_end - piece.tile;
}

/* A warp that loads: its share of all pieces of the block. The first of them finds the pieces, each while the
 * one before it is loaded. */
template <class FORM>
DEVICE void attention_load(const struct attention_tile_args &args, attention_barriers<FORM> *barriers,
                           uint32_t warp)
{
    struct attention_loading loading = {warp, 0, false, false, false};
    uint32_t n_pieces = attention_count_pieces<FORM>(args), turn = 0;
    bool finds = warp == 0 && lane_id() == 0;
    if (finds)
        attention_next_piece<FORM>(args, n_pieces, &turn, 0);
    for (uint32_t n = 0;; n++) {
        /* The consumers have taken q of the piece before, so that they are done with the one before that. */
        if (n > 0)
            mbarrier_wait(&barriers->q.empty, (n - 1) & 1);
        barrier_named(ATTENTION_LOADERS_BARRIER, FORM::LOADER_THREADS);
        const struct attention_piece *piece = attention_piece_at<FORM>(n);
        if (piece->n_pairs == 0)
            break;
        attention_load_piece<FORM>(args, *piece, barriers, &loading, [&]() {
            if (finds)
                attention_next_piece<FORM>(args, n_pieces, &turn, n + 1);
        });
    }
    attention_hand_over(&barriers->q);
    attention_wait_for_q(&loading.is_ready);
}
