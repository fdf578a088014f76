/* A unit of one warp: one split, by blocks of 16 keys. No warp waits for another, and every one has copies of
 * its own under way: what one waits for the others have time to compute. Included by attention_kernel.h
 * alone. */
#pragma once

#include "kernels/cuda/attention_rows.h"

/* The copies of a split's blocks: K of a tile's four, V of them, K of the next tile's. */
template <class FORM> struct attention_stream {
    uint32_t n_blocks;   /* blocks of K and V to copy */
    uint32_t block;      /* of the sequence: lane i has that of the split's block i */
    uint32_t first_tile; /* in the split */
    uint32_t first_key;  /* of the first tile, from the first that is seen on; may be below it */
    uint32_t n_seen;     /* keys that some row sees */
    const uint8_t *keys; /* of the KV head in block 0, the piece that this lane begins with */
    uint32_t block_bytes;
    uint32_t masked;     /* a bit for each tile that is left: some row does not see some key of it */
    uint32_t next, slot; /* block to be copied next; slot of the one to be used next */
};

template <class FORM>
DEVICE void attention_start_stream(const struct attention_tile_args &args,
                                   const struct attention_piece &piece, attention_stream<FORM> *stream)
{
    const uint32_t *table =
        args.step->block_tables[args.kv.group] + (size_t)piece.item.seq * args.step->blocks_per_seq;
    uint32_t first_block = piece.item.first_split * CUDA_KV_SPLIT_BLOCKS, lane = lane_id();
    bool is_there =
        lane < CUDA_KV_SPLIT_BLOCKS && first_block + lane <= piece.seen_last / CUDA_KV_BLOCK_TOKENS;
    stream->block = is_there ? table[first_block + lane] : 0;
    stream->n_blocks = (piece.tile_end - piece.tile) * 2 * FORM::TILE_BLOCKS;
    stream->first_tile = piece.tile % FORM::SPLIT_TILES;
    stream->first_key = piece.tile * FORM::KEYS - piece.seen_first;
    stream->n_seen = piece.seen_last - piece.seen_first + 1;
    stream->keys = args.kv.blocks + piece.kv_head * 2 * FORM::BLOCK_BYTES + lane * 16;
    stream->block_bytes = args.kv.n_kv_heads * 2 * FORM::BLOCK_BYTES;
    stream->next = FORM::STREAM_AHEAD;
    stream->slot = 0;
    stream->masked = 0;
#pragma unroll 1
    for (uint32_t tile = piece.tile; tile < piece.tile_end; tile++) {
        uint32_t key = tile * FORM::KEYS;
        bool masked = key < piece.all_first || key + FORM::KEYS - 1 > piece.all_last;
        stream->masked |= masked << (tile - piece.tile);
    }
}

/* Starts the copy of the blocks for a slot, `index` of them before; past the last one only the count of
 * groups moves. Keys that no row sees become zeros, since whatever lies there must not reach a sum. */
template <class FORM>
DEVICE void attention_load_slot(const attention_stream<FORM> &stream, uint32_t index, uint32_t slot)
{
    uint32_t tile = index / (2 * FORM::TILE_BLOCKS), i = index % FORM::TILE_BLOCKS, blocks[FORM::SLOT_BLOCKS];
#pragma unroll
    for (uint32_t n = 0; n < FORM::SLOT_BLOCKS; n++)
        blocks[n] = shuffle(stream.block, (stream.first_tile + tile) * FORM::TILE_BLOCKS + i + n);
    if (index < stream.n_blocks) {
        bool is_v = index / FORM::TILE_BLOCKS % 2;
        const uint8_t *part = stream.keys + (is_v ? FORM::BLOCK_BYTES : 0);
        uint8_t *to = attention_shared<FORM>() + FORM::SLOTS_AT + slot * FORM::SLOT_BYTES + lane_id() * 16;
        uint32_t first_key = stream.first_key + tile * FORM::KEYS + i * CUDA_KV_BLOCK_TOKENS;
#pragma unroll
        for (uint32_t n = 0; n < FORM::SLOT_BLOCKS; n++) {
            const uint8_t *from = part + (size_t)blocks[n] * stream.block_bytes;
#pragma unroll
            for (uint32_t j = 0; j < FORM::BLOCK_PIECES; j += WARP_LANES) {
                uint32_t key = first_key + n * CUDA_KV_BLOCK_TOKENS + (j + lane_id()) / FORM::KV_PIECES;
                copy_async_16_if(to + n * FORM::BLOCK_BYTES + j * 16, from + j * 16, key < stream.n_seen);
            }
        }
    }
    copy_async_commit();
}

/* Waits for the next slot's blocks, and starts the copy into the last one's place: where they lie. */
template <class FORM> DEVICE const uint8_t *attention_next_slot(attention_stream<FORM> *stream)
{
    copy_async_wait(FORM::SLOTS - 2);
    warp_sync(); /* all lanes' copies have landed, and nobody reads the slot before */
    const uint8_t *blocks = attention_shared<FORM>() + FORM::SLOTS_AT + stream->slot * FORM::SLOT_BYTES;
    attention_load_slot<FORM>(*stream, stream->next, stream->slot == 0 ? FORM::SLOTS - 1 : stream->slot - 1);
    stream->next += FORM::SLOT_BLOCKS;
    stream->slot = stream->slot + 1 == FORM::SLOTS ? 0 : stream->slot + 1;
    return blocks;
}

/* The next tile of the piece. */
template <class FORM>
DEVICE void attention_tile_of_warp(const struct attention_tile_args &args,
                                   const struct attention_piece &piece, attention_stream<FORM> *stream,
                                   attention_state<FORM> *state)
{
    float s[FORM::KEY_TILES][4];
#pragma unroll
    for (uint32_t i = 0; i < FORM::TILE_BLOCKS; i += FORM::SLOT_BLOCKS) {
        const uint8_t *keys = attention_next_slot<FORM>(stream);
        attention_scores_keys<FORM, FORM::SLOT_BLOCKS>(state, attention_key_row<FORM>(keys), s + 2 * i);
    }
    attention_cap<FORM>(args, s);
    if (stream->masked & 1) {
        uint32_t tile = (stream->next - FORM::STREAM_AHEAD) / (2 * FORM::TILE_BLOCKS); /* of the piece */
        attention_mask<FORM>(state, (piece.tile + tile) * FORM::KEYS, s);
    }
    stream->masked >>= 1;
    attention_softmax<FORM>(state, attention_logarithm<FORM>(args), s);
#pragma unroll
    for (uint32_t i = 0; i < FORM::TILE_BLOCKS; i += FORM::SLOT_BLOCKS) {
        const uint8_t *values = attention_next_slot<FORM>(stream);
#pragma unroll
        for (uint32_t n = 0; n < FORM::SLOT_BLOCKS; n++) {
            uint32_t p[4];
            attention_read_p<FORM>(i + n, s, p);
            attention_add_values_16<FORM>(state, p, values + n * FORM::BLOCK_BYTES);
        }
    }
}

/* All tiles of the piece. is_ready: whether the kernel in front is known to have ended. */
template <class FORM>
DEVICE void attention_run_tiles(const struct attention_tile_args &args, const struct attention_piece &piece,
                                attention_state<FORM> *state, bool *is_ready)
{
    attention_stream<FORM> stream;
    attention_start_stream<FORM>(args, piece, &stream);
    if ((piece.item.flags & ATTENTION_ITEM_OLD_KEYS) == 0)
        attention_wait_for_q(is_ready);
#pragma unroll 1
    for (uint32_t i = 0; i + 1 < FORM::SLOTS; i++)
        attention_load_slot<FORM>(stream, i * FORM::SLOT_BLOCKS, i);
    attention_wait_for_q(is_ready);
    attention_find_rows<FORM>(args, piece, state);
    attention_clear<FORM>(state);
#pragma unroll 1
    while (stream.next < stream.n_blocks + FORM::STREAM_AHEAD)
        attention_tile_of_warp<FORM>(args, piece, &stream, state);
}

/* Piece `index`, if it is not empty; returns the index. It lies in shared memory: its tiles need the
 * registers. */
template <class FORM>
DEVICE uint32_t attention_run_split(const struct attention_tile_args &args, uint32_t index, bool *is_ready)
{
    attention_state<FORM> state;
    struct attention_piece *piece = (struct attention_piece *)(attention_shared<FORM>() + FORM::PIECE_AT);
    bool is_found = lane_id() == 0 && attention_find_piece<FORM>(args, index, piece);
    warp_sync();
    if (!any_lane(is_found))
        return index;
    attention_run_tiles<FORM>(args, *piece, &state, is_ready);
    attention_lower<FORM>(&state);
    if (piece->item.flags & ATTENTION_ITEM_PARTIAL) {
        attention_keep_split<FORM>(args, *piece, &state, piece->item.first_split);
        attention_arrive<FORM>(args, *piece);
    } else {
        attention_end_split<FORM>(&state, true, true);
        attention_write_out<FORM>(args, *piece, &state);
    }
    index = piece->index;
    warp_sync(); /* shared memory is the next piece's */
    return index;
}
