/* The form of the kernels by streams, and the copies of a warp: blocks of 16 tokens, K or V of a head, each
 * whole, one after the other through a ring of slots of the warp's own. Included by attention_streams.h
 * alone. */
#pragma once

#include "kernels/cuda/attention_rows.h"

/* What a warp has in shared memory beside numbers: its tiles need the registers. */
struct attention_desk {
    struct attention_piece piece;
    const uint32_t *tables; /* [sequences][blocks_per_seq] */
    uint32_t blocks_per_seq;
    uint32_t slot_at; /* of the slot that the next piece begins with */
    uint32_t phase;   /* of attention_run_streams */
};

template <uint32_t DIM_, uint32_t KV_BYTES_, uint32_t SLOTS_, uint32_t UNROLL_> struct attention_stream_form {
    static constexpr uint32_t DIM = DIM_, KV_BYTES = KV_BYTES_, SLOTS = SLOTS_, UNROLL = UNROLL_,
                              UNITS = ATTENTION_TEAM;
    static constexpr uint32_t EARLY_SLOTS = (SLOTS + 1) / 2; /* filled before q is asked for */
    static constexpr uint32_t THREADS = WARP_LANES, WARPS_M = 1, WARPS_N = 1; /* of a unit */
    static constexpr bool HAS_LOADERS = false;
    static constexpr uint32_t ROWS = ATTENTION_STREAM_PAIRS;
    static constexpr uint32_t KEYS = ATTENTION_TILE_KEYS;
    static constexpr uint32_t SPLIT_TILES = CUDA_KV_SPLIT_TOKENS / KEYS;
    static constexpr uint32_t TILE_BLOCKS = KEYS / CUDA_KV_BLOCK_TOKENS;
    static constexpr uint32_t K_STEPS = DIM / 16;
    static constexpr uint32_t KV_PIECES = DIM * KV_BYTES / 16; /* of 16 bytes, of a token */
    static constexpr uint32_t LOADS = KV_PIECES / 2;           /* of two pieces of a block's 16 tokens */
    static constexpr uint32_t BLOCK_PIECES = CUDA_KV_BLOCK_TOKENS * KV_PIECES; /* of K or V of one head */
    static constexpr uint32_t BLOCK_BYTES = BLOCK_PIECES * 16;
    static constexpr uint32_t VALUE_TILES = DIM / 16; /* 16 elements by 8 pairs each */

    /* Shared memory of a unit: slots, the sums of splits with their maxima, q, rows that are complete, the
     * desk. */
    static constexpr uint32_t SLOTS_AT = 0;
    static constexpr uint32_t SUMS_AT = SLOTS * BLOCK_BYTES;
    static constexpr uint32_t SUM_BYTES = (DIM + 4) * 4; /* of a pair; so lanes meet no bank twice */
    static constexpr uint32_t ML_AT = SUMS_AT + ROWS * SUM_BYTES;
    static constexpr uint32_t TOTAL_ML_AT = ML_AT + ROWS * 8;
    static constexpr uint32_t Q_AT = TOTAL_ML_AT + ROWS * 8; /* [K_STEPS][32 lanes] operands B */
    static constexpr uint32_t MAX_AT = Q_AT + K_STEPS * WARP_LANES * 8;
    static constexpr uint32_t DESK_AT = MAX_AT + ROWS * 4;
    static constexpr uint32_t DESK_BYTES = 112;
    /* Rows of a block are told apart by bits of their address (attention_read_pieces). */
    static constexpr uint32_t UNIT_BYTES = (DESK_AT + DESK_BYTES + 255) / 256 * 256;
    static constexpr uint32_t SHARED_BYTES = UNITS * UNIT_BYTES;
    static_assert(BLOCK_PIECES % WARP_LANES == 0, "all lanes copy as much");
    static_assert(sizeof(struct attention_desk) <= DESK_BYTES, "");
};

/* The copies of a warp's splits: for each tile its blocks of K, then those of V; only blocks that are seen. A
 * copy is known by its number among the parts (K or V of a head) of all blocks. */
struct attention_feed {
    uint32_t of_split; /* lane i: the split's copy i */
    uint32_t after_id; /* lane i: the block's number of the next split's copy i */
    uint32_t ahead;    /* lane i: the copy that is begun i behind the tile's first */
    uint32_t next;     /* of the split, to be begun first in the tile */
    uint32_t n_ahead;  /* to be begun in the tile, at most */
    uint32_t begun;    /* in the tile */
    uint32_t split;    /* whose copies they are */
    uint32_t slot_at;  /* bytes of the slot that is used next, and then filled again */
};

/* Blocks of a split that are seen. */
struct attention_run {
    uint32_t begin, end; /* in the split; end 0: none */
};

DEVICE struct attention_run attention_seen_blocks(const struct attention_piece &piece, uint32_t split)
{
    uint32_t at = split * CUDA_KV_SPLIT_BLOCKS, begin = piece.seen_first / CUDA_KV_BLOCK_TOKENS,
             end = piece.seen_last / CUDA_KV_BLOCK_TOKENS + 1;
    if (at >= end)
        return {0, 0};
    end -= at;
    return {begin > at ? begin - at : 0, end < CUDA_KV_SPLIT_BLOCKS ? end : (uint32_t)CUDA_KV_SPLIT_BLOCKS};
}

/* Of this lane's copy: its block of the split, and whether of V. */
struct attention_copy {
    uint32_t block, is_v;
};

DEVICE struct attention_copy attention_find_copy(struct attention_run run)
{
    uint32_t n = lane_id(), begin = run.begin, left = 4 - begin % 4;
    left = left < run.end - begin ? left : run.end - begin;
    if (n >= 2 * left) { /* not of the first tile */
        n -= 2 * left;
        begin += left + n / 8 * 4;
        n %= 8;
        left = begin < run.end && run.end - begin < 4 ? run.end - begin : 4;
    }
    uint32_t is_v = n >= left;
    return {begin + n - is_v * left, is_v};
}

/* The number of the block of this lane's copy; lanes that have none: 0. */
DEVICE uint32_t attention_read_id(const struct attention_desk &desk, uint32_t split)
{
    struct attention_run run = attention_seen_blocks(desk.piece, split);
    if (lane_id() >= 2 * (run.end - run.begin))
        return 0;
    const uint32_t *table = desk.tables + (size_t)desk.piece.item.seq * desk.blocks_per_seq;
    return table[split * CUDA_KV_SPLIT_BLOCKS + attention_find_copy(run).block];
}

DEVICE uint32_t attention_count_copies(const struct attention_piece &piece, uint32_t split)
{
    struct attention_run run = attention_seen_blocks(piece, split);
    return 2 * (run.end - run.begin);
}

/* The copies of split `split`, whose blocks' numbers are there; the numbers of the split behind it are asked
 * for. */
DEVICE void attention_feed_split(const struct attention_tile_args &args, const struct attention_desk &desk,
                                 uint32_t split, attention_feed *feed)
{
    const struct attention_piece &piece = desk.piece;
    struct attention_run run = attention_seen_blocks(piece, split);
    feed->of_split =
        (feed->after_id * args.kv.n_kv_heads + piece.kv_head) * 2 + attention_find_copy(run).is_v;
    feed->after_id = attention_read_id(desk, split + piece.team);
    feed->split = split;
}

/* What may be begun during the next tile: a copy for each of its blocks. */
DEVICE void attention_look_ahead(const struct attention_tile_args &args, const struct attention_desk &desk,
                                 attention_feed *feed)
{
    const struct attention_piece &piece = desk.piece;
    feed->next += feed->begun;
    feed->begun = 0;
    uint32_t n = attention_count_copies(piece, feed->split),
             n_after = attention_count_copies(piece, feed->split + piece.team);
    if (feed->next >= n && n_after > 0) {
        feed->next -= n;
        n = n_after;
        attention_feed_split(args, desk, feed->split + piece.team, feed);
        n_after = attention_count_copies(piece, feed->split + piece.team);
    }
    uint32_t copy = feed->next + lane_id();
    feed->ahead = shuffle(feed->of_split, copy & 31);
    if (feed->next + 8 > n) { /* the next split begins with whole tiles */
        uint32_t i = copy - n, id = shuffle(feed->after_id, i & 31);
        uint32_t blocks = n_after / 2 - i / 8 * 4;
        uint32_t is_v = i % 8 >= (blocks < 4 ? blocks : 4);
        if (copy >= n)
            feed->ahead = (id * args.kv.n_kv_heads + piece.kv_head) * 2 + is_v;
    }
    feed->n_ahead = n + n_after - feed->next;
}

/* Starts the next copy, into the feed's slot; nothing behind the last one. */
template <class FORM>
DEVICE void attention_feed_slot(const struct attention_tile_args &args, attention_feed *feed)
{
    uint32_t part = shuffle(feed->ahead, feed->begun);
    if (feed->begun < feed->n_ahead) {
        const uint8_t *from = args.kv.blocks + lane_id() * 16 + (size_t)part * FORM::BLOCK_BYTES;
        uint8_t *to = attention_shared<FORM>() + lane_id() * 16 + feed->slot_at;
#pragma unroll
        for (uint32_t j = 0; j < FORM::BLOCK_PIECES; j += WARP_LANES)
            copy_async_16(to + j * 16, from + j * 16);
        feed->begun++;
    }
    copy_async_commit();
    feed->slot_at =
        feed->slot_at + FORM::BLOCK_BYTES == FORM::SUMS_AT ? 0 : feed->slot_at + FORM::BLOCK_BYTES;
}
