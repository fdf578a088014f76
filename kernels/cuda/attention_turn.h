/* rope_kv_write within the attention of few rows, for steps whose sequences have one row each: a piece turns
 * its rows' q into shared memory, and the piece of a row's last split writes the row's key and value to the
 * cache, and to its tiles. Included by the attention kernels alone.
 *
 * Nothing of the cache hangs on the kernel in front then: copies of the tiles leave out the new key, so that
 * they start before its end. */
#pragma once

#include "kernels/cuda/attention_tile.h"
#include "kernels/cuda/kv_device.h"

template <class FORM> DEVICE bool attention_turns(const struct attention_tile_args &args)
{
    return FORM::TURNS && args.cosines != NULL;
}

/* The position whose key the piece is to write and use, or NO_KEY. */
template <class FORM>
DEVICE uint32_t attention_new_key(const struct attention_tile_args &args, const struct attention_piece &piece)
{
    bool is_old = piece.item.flags & (ATTENTION_ITEM_LISTED | ATTENTION_ITEM_OLD_KEYS);
    return attention_turns<FORM>(args) && !is_old ? piece.item.low : (uint32_t)ATTENTION_NO_KEY;
}

template <class FORM> DEVICE uint16_t *attention_turned_q(uint32_t pair)
{
    return (uint16_t *)(attention_shared<FORM>() + FORM::TURNED_AT + pair * FORM::TURNED_ROW);
}

/* Four pairs of elements of q, of the new key or of the new value. */
template <class FORM> struct attention_quad {
    uint32_t head; /* of the piece: its pairs, the key, the value */
    uint32_t i;    /* elements from i and from i + DIM / 2 on */
    const uint16_t *from;
    float cosines[4], sines[4];
};

/* The index-th of the piece. The tables are there before q is. */
template <class FORM>
DEVICE void attention_find_quad(const struct attention_tile_args &args, const struct attention_piece &piece,
                                uint32_t index, attention_quad<FORM> *quad)
{
    constexpr uint32_t QUADS = FORM::DIM / 8;
    quad->head = index / QUADS;
    quad->i = index % QUADS * 4;
    bool is_q = quad->head < piece.n_pairs, is_v = quad->head == piece.n_pairs + 1;
    uint32_t row = piece.item.first_row,
             head = args.n_heads + (is_v ? args.kv.n_kv_heads : 0) + piece.kv_head;
    if (is_q) {
        struct attention_pair of = attention_find_pair(args, piece, quad->head);
        row = of.row;
        head = of.head;
    }
    quad->from = args.qkv + (size_t)row * args.qkv_stride + head * FORM::DIM + quad->i;
    size_t at = (size_t)attention_position(args, piece, row) * (FORM::DIM / 2) + quad->i;
    act_load_4(quad->cosines, args.cosines + at);
    act_load_4(quad->sines, args.sines + at);
}

template <class FORM>
DEVICE void attention_turn_quad(const struct attention_tile_args &args, const struct attention_piece &piece,
                                const attention_quad<FORM> &quad)
{
    constexpr uint32_t HALF = FORM::DIM / 2;
    float low[4], high[4], x[4], y[4];
    act_load_4(low, quad.from);
    act_load_4(high, quad.from + HALF);
    rope_turn_4(low, high, quad.cosines, quad.sines, x, y);
    if (quad.head < piece.n_pairs) {
        uint16_t *to = attention_turned_q<FORM>(quad.head) + quad.i;
        act_store_4(to, x);
        act_store_4(to + HALF, y);
        return;
    }
    bool is_v = quad.head > piece.n_pairs;
    if (is_v) {
        memcpy(x, low, sizeof x);
        memcpy(y, high, sizeof y);
    }
    float scale = is_v ? args.kv.v_scale : args.kv.k_scale;
    struct step_row row = args.step->rows[piece.item.first_row];
    struct kv_place place = kv_find(args.step, args.kv, row, piece.kv_head, is_v ? CUDA_KV_V : CUDA_KV_K);
    uint8_t *kept = attention_shared<FORM>() + FORM::NEW_AT + (is_v ? FORM::NEW_BYTES : 0);
    kv_store_4(FORM::KV_BYTES, kv_element(place, FORM::KV_BYTES, quad.i), x, scale);
    kv_store_4(FORM::KV_BYTES, kv_element(place, FORM::KV_BYTES, quad.i + HALF), y, scale);
    kv_store_4(FORM::KV_BYTES, kept + quad.i * FORM::KV_BYTES, x, scale);
    kv_store_4(FORM::KV_BYTES, kept + (quad.i + HALF) * FORM::KV_BYTES, y, scale);
}

/* The kernel in front has ended; the next one may start. Once in a block. */
DEVICE void attention_wait_for_q(bool *is_ready)
{
    if (!*is_ready) {
        dependencies_wait();
        dependents_launch();
    }
    *is_ready = true;
}

/* All of the piece; waits for the kernel in front, and for the unit. */
template <class FORM>
DEVICE void attention_turn(const struct attention_tile_args &args, const struct attention_piece &piece,
                           uint32_t new_key, bool *is_ready)
{
    uint32_t n = (piece.n_pairs + (new_key != ATTENTION_NO_KEY ? 2 : 0)) * (FORM::DIM / 8);
    attention_quad<FORM> quad;
    if (attention_thread<FORM>() < n)
        attention_find_quad<FORM>(args, piece, attention_thread<FORM>(), &quad);
    attention_wait_for_q(is_ready);
    for (uint32_t index = attention_thread<FORM>(); index < n; index += FORM::THREADS) {
        if (index != attention_thread<FORM>())
            attention_find_quad<FORM>(args, piece, index, &quad);
        attention_turn_quad<FORM>(args, piece, quad);
    }
    attention_sync<FORM>();
}

/* The new key, or value, to its place in the tile of the slot. The copies of the tile leave it out: nobody
 * waits for anything but the barrier behind them. */
template <class FORM>
DEVICE void attention_place_new(const attention_loader<FORM> &loader, uint32_t tile, uint32_t slot,
                                enum cuda_kv_part part)
{
    uint32_t piece = attention_thread<FORM>(), key = loader.new_key % FORM::KEYS;
    if (loader.new_key / FORM::KEYS != tile || piece >= FORM::KV_PIECES)
        return;
    const uint8_t *kept = attention_shared<FORM>() + FORM::NEW_AT + (part == CUDA_KV_V ? FORM::NEW_BYTES : 0);
    uint8_t *to = attention_shared<FORM>() + FORM::SLOTS_AT + slot * FORM::SLOT_BYTES;
    to += key / CUDA_KV_BLOCK_TOKENS * FORM::BLOCK_BYTES;
    store_16(to + cuda_kv_piece_offset(FORM::KV_PIECES, key % CUDA_KV_BLOCK_TOKENS, piece),
             load_16(kept + piece * 16));
}
