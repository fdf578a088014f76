/* The warps that load for attention by wgmma: pieces, q, keys and values. Included by attention_wgmma.cu
 * alone. */
#pragma once

#include "kernels/cuda/attention_wgmma.h"

/* Of a loader's warp. */
struct attention_loading {
    uint32_t warp, team, member; /* of the loaders; of its team */
    uint32_t n_tiles;            /* of the pieces before */
    bool is_ready;               /* the kernel in front is known to have ended */
};

/* ---- Pieces ---- */

/* The block's next piece, from its turn number *turn on; n_pairs 0: there is none. Items come with the
 * longest first: every other round of the blocks goes backwards, so that all of them have about as much to
 * do. */
template <class FORM>
DEVICE void attention_next_piece(const struct attention_tile_args &args, uint32_t n_pieces, uint32_t *turn,
                                 struct attention_piece *piece)
{
    while (*turn * grid_x() < n_pieces) {
        uint32_t in_round = *turn % 2 == 0 ? block_x() : grid_x() - 1 - block_x();
        uint32_t index = *turn * grid_x() + in_round;
        ++*turn;
        if (index < n_pieces && attention_find_piece<FORM>(args, index, piece))
            return;
    }
    piece->n_pairs = 0;
}

/* ---- q ---- */

/* The warp's share of a piece's rows, [pair][Q_PITCH]; those that are missing become zeros. */
template <class FORM>
DEVICE void attention_copy_q(const struct attention_tile_args &args, const struct attention_piece &piece,
                             uint32_t warp)
{
    constexpr uint32_t PIECES = FORM::DIM * 2 / 16, WARP_PAIRS = FORM::ROWS / FORM::LOADER_WARPS;
    uint8_t *to = attention_shared<FORM>() + FORM::Q_AT + lane_id() % PIECES * 16;
#pragma unroll 2
    for (uint32_t i = lane_id() / PIECES; i < WARP_PAIRS; i += WARP_LANES / PIECES) {
        uint32_t pair = warp * WARP_PAIRS + i;
        const uint16_t *q = args.qkv;
        if (pair < piece.n_pairs)
            q += (size_t)attention_row(args, piece, pair) * args.qkv_stride +
                 attention_head(piece, pair) * FORM::DIM + lane_id() % PIECES * 8;
        copy_async_16_if(to + pair * FORM::Q_PITCH, q, pair < piece.n_pairs);
    }
}

/* ---- Keys and values ---- */

/* Block `block` of 16 keys of a tile in bf16: a part of a key lies as wgmma's swizzle wants it. seen: keys
 * that are there, from the block's first on; the others become zeros, since whatever lies there must not
 * reach a sum. */
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

/* The same in e4m3, by way of registers. A piece of 16 codes becomes two of bf16, its even and its odd ones
 * (attention_load_q). Eight lanes have four pieces of two keys: what they store lies in eight groups of
 * banks. */
template <class FORM> struct attention_codes_lane {
    static constexpr uint32_t STEP_KEYS = WARP_LANES / FORM::KV_PIECES;
    static constexpr uint32_t STEPS = CUDA_KV_BLOCK_TOKENS / STEP_KEYS;
    uint32_t piece, key; /* of a step */
};

template <class FORM> DEVICE attention_codes_lane<FORM> attention_make_codes_lane(void)
{
    uint32_t lane = lane_id();
    if constexpr (FORM::KV_PIECES == 8)
        return {(lane & 3) | (lane >> 3 & 1) << 2, (lane >> 2 & 1) | lane >> 4 << 1};
    else
        return {lane & 3, lane >> 2};
}

template <class FORM>
DEVICE void attention_load_codes(vec16 (&codes)[attention_codes_lane<FORM>::STEPS], const uint8_t *from,
                                 uint32_t first, uint32_t n_seen)
{
    typedef attention_codes_lane<FORM> lane_type;
    lane_type lane = attention_make_codes_lane<FORM>();
#pragma unroll
    for (uint32_t i = 0; i < lane_type::STEPS; i++) {
        uint32_t key = i * lane_type::STEP_KEYS + lane.key;
        codes[i] = {};
        if (first + key < n_seen)
            codes[i] = load_cached_16(from + cuda_kv_piece_offset(FORM::KV_PIECES, key, lane.piece));
    }
}

template <class FORM>
DEVICE void attention_store_codes(uint8_t *tile, uint32_t block,
                                  const vec16 (&codes)[attention_codes_lane<FORM>::STEPS])
{
    typedef attention_codes_lane<FORM> lane_type;
    lane_type lane = attention_make_codes_lane<FORM>();
#pragma unroll
    for (uint32_t i = 0; i < lane_type::STEPS; i++) {
        uint32_t key = i * lane_type::STEP_KEYS + lane.key;
        uint32_t at = lane.piece / 4 * FORM::PART_BYTES + ((lane.piece * 2 % 8) ^ (key & 7)) * 16 +
                      (block * CUDA_KV_BLOCK_TOKENS + key) * ATTENTION_ROW_BYTES;
        vec16 even, odd;
#pragma unroll
        for (uint32_t w = 0; w < 4; w++)
            attention_split_e4m3(codes[i].w[w], &even.w[w], &odd.w[w]);
        store_16(tile + at, even);
        store_16(tile + (at ^ 16), odd);
    }
}

/* The warp's share of a tile: of its four blocks. part: the KV head's keys or values in block 0. first,
 * n_seen: as above, of the tile. */
template <class FORM>
DEVICE void attention_load_tile(uint8_t *tile, const uint8_t *part, size_t block_bytes, const vec16 &blocks,
                                uint32_t member, uint32_t first, uint32_t n_seen)
{
    constexpr uint32_t N = FORM::TILE_BLOCKS / FORM::TEAM_WARPS;
    if constexpr (FORM::KV_BYTES == 2) {
#pragma unroll
        for (uint32_t i = 0; i < N; i++)
            attention_copy_block_bf16<FORM>(tile, i, part + blocks.w[i] * block_bytes,
                                            first + i * CUDA_KV_BLOCK_TOKENS, n_seen);
    } else {
        vec16 codes[N][attention_codes_lane<FORM>::STEPS];
#pragma unroll
        for (uint32_t i = 0; i < N; i++) {
            uint32_t block = member == 0 ? blocks.w[i] : blocks.w[i + N];
            attention_load_codes<FORM>(codes[i], part + block * block_bytes,
                                       first + (member * N + i) * CUDA_KV_BLOCK_TOKENS, n_seen);
        }
#pragma unroll
        for (uint32_t i = 0; i < N; i++)
            attention_store_codes<FORM>(tile, member * N + i, codes[i]);
    }
}

/* q of a piece, once the kernel in front has ended. */
template <class FORM>
DEVICE void attention_ask_for_q(const struct attention_tile_args &args, const struct attention_piece &piece,
                                struct attention_loading *loading)
{
    attention_wait_for_q(&loading->is_ready);
    attention_copy_q<FORM>(args, piece, loading->warp);
}

/* What the warp copied and stored is there for those who wait at `full`. */
DEVICE void attention_hand_over(struct attention_handover *handover)
{
    copy_async_wait(0);
    fence_async_proxy();
    warp_sync();
    if (lane_id() == 0)
        mbarrier_arrive(&handover->full);
}

/* The warp's share of a piece. */
template <class FORM>
DEVICE void attention_load_piece(const struct attention_tile_args &args, const struct attention_piece &piece,
                                 attention_barriers<FORM> *barriers, struct attention_loading *loading)
{
    const uint32_t *table =
        args.step->block_tables[args.kv.group] + (size_t)piece.item.seq * args.step->blocks_per_seq;
    bool is_v = loading->team % 2;
    const uint8_t *part = args.kv.blocks + (piece.kv_head * 2 + is_v) * FORM::BLOCK_BYTES;
    size_t block_bytes = args.kv.n_kv_heads * 2 * FORM::BLOCK_BYTES;
    uint32_t n_seen = piece.seen_last - piece.seen_first + 1;
    if ((piece.item.flags & ATTENTION_ITEM_OLD_KEYS) == 0)
        attention_wait_for_q(&loading->is_ready);
    bool has_asked = loading->is_ready, has_q = false;
    if (has_asked)
        attention_ask_for_q<FORM>(args, piece, loading);
    for (uint32_t tile = piece.tile + loading->team / 2; tile < piece.tile_end; tile += FORM::TEAMS / 2) {
        vec16 blocks = load_cached_16(table + tile * FORM::TILE_BLOCKS);
        uint32_t count = loading->n_tiles + tile - piece.tile, stage = count % FORM::STAGES;
        struct attention_handover *handover = is_v ? &barriers->values[stage] : &barriers->keys[stage];
        if (count >= FORM::STAGES)
            mbarrier_wait(&handover->empty, (count / FORM::STAGES - 1) & 1);
        uint8_t *to = attention_shared<FORM>() + (is_v ? FORM::VALUES_AT + stage * FORM::VALUES_BYTES
                                                       : FORM::KEYS_AT + stage * FORM::KEYS_BYTES);
        attention_load_tile<FORM>(to, part, block_bytes, blocks, loading->member,
                                  tile * FORM::KEYS - piece.seen_first, n_seen);
        if (!has_asked)
            attention_ask_for_q<FORM>(args, piece, loading);
        has_asked = true;
        copy_async_commit();
        attention_hand_over(handover);
        if (!has_q && lane_id() == 0)
            mbarrier_arrive(&barriers->q.full);
        has_q = true;
    }
    if (!has_asked)
        attention_ask_for_q<FORM>(args, piece, loading);
    copy_async_commit();
    if (!has_q)
        attention_hand_over(&barriers->q);
    loading->n_tiles += piece.tile_end - piece.tile;
}

/* A warp that loads: its share of all pieces of the block. */
template <class FORM>
DEVICE void attention_load(const struct attention_tile_args &args, attention_barriers<FORM> *barriers,
                           uint32_t warp)
{
    struct attention_loading loading = {warp, warp / FORM::TEAM_WARPS, warp % FORM::TEAM_WARPS, 0, false};
    uint32_t n_pieces = attention_count_pieces<FORM>(args), turn = 0;
    for (uint32_t n = 0;; n++) {
        /* The consumers have taken q of the piece before, so that they are done with the one before that. */
        if (n > 0)
            mbarrier_wait(&barriers->q.empty, (n - 1) & 1);
        struct attention_piece *piece = attention_piece_at<FORM>(n);
        if (warp == 0 && lane_id() == 0)
            attention_next_piece<FORM>(args, n_pieces, &turn, piece);
        barrier_named(ATTENTION_LOADERS_BARRIER, FORM::LOADER_THREADS);
        if (piece->n_pairs == 0)
            break;
        attention_load_piece<FORM>(args, *piece, barriers, &loading);
    }
    attention_hand_over(&barriers->q);
    attention_wait_for_q(&loading.is_ready);
}
