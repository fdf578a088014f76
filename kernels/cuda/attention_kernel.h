/* The body of the attention kernels. Included by attention_*.cu alone. */
#pragma once

#include "kernels/cuda/attention_rows.h"

template <class FORM>
DEVICE void attention_tile(const struct attention_tile_args &args, const struct attention_piece &piece,
                           attention_loader<FORM> *loader, attention_state<FORM> *state, uint32_t tile,
                           uint32_t *slot)
{
    const uint8_t *slots = attention_shared<FORM>() + FORM::SLOTS_AT;
    float s[FORM::KEY_TILES][4];
    if constexpr (FORM::TURNS)
        attention_place_new<FORM>(*loader, tile, *slot, CUDA_KV_K);
    copy_async_wait(FORM::SLOTS - 2);
    attention_sync<FORM>(); /* the keys are there, and nobody reads the values of the tile before */
    attention_load_next<FORM>(piece, loader);
    attention_scores<FORM>(state, slots + *slot * FORM::SLOT_BYTES, s);
    *slot = *slot + 1 == FORM::SLOTS ? 0 : *slot + 1;
    uint32_t first_key = tile * FORM::KEYS;
    attention_cap<FORM, FORM::KEY_TILES>(args, s);
    if (first_key < piece.all_first || first_key + FORM::KEYS - 1 > piece.all_last)
        attention_mask<FORM>(state, first_key, s);
    attention_softmax<FORM>(state, attention_logarithm<FORM>(args), s);
    if constexpr (FORM::WARPS_N > 1)
        attention_write_p<FORM>(s);
    if constexpr (FORM::TURNS)
        attention_place_new<FORM>(*loader, tile, *slot, CUDA_KV_V);
    copy_async_wait(FORM::SLOTS - 2);
    attention_sync<FORM>(); /* the values and the probabilities are there, and nobody reads the keys */
    attention_load_next<FORM>(piece, loader);
    attention_add_values<FORM>(state, slots + *slot * FORM::SLOT_BYTES, s);
    *slot = *slot + 1 == FORM::SLOTS ? 0 : *slot + 1;
}

/* From which key on the kernel in front may still write. The small kernels have all rows of a sequence in an
 * item. */
template <class FORM>
DEVICE uint32_t attention_old_keys(const struct attention_tile_args &args,
                                   const struct attention_piece &piece)
{
    if ((piece.item.flags & ATTENTION_ITEM_OLD_KEYS) != 0 || attention_turns<FORM>(args))
        return 0xffffffffu;
    return FORM::WARPS_M == 1 ? piece.item.low : 0;
}

/* The first tiles' copies, those of old keys before the kernel in front has ended. */
template <class FORM>
DEVICE void attention_load_first(const struct attention_tile_args &args, const struct attention_piece &piece,
                                 attention_loader<FORM> *loader, bool *is_ready)
{
    uint32_t n_old = attention_old_keys<FORM>(args, piece);
    for (uint32_t i = 0; i + 1 < FORM::SLOTS; i++) {
        if (loader->tile < piece.tile_end && loader->tile >= n_old / FORM::KEYS)
            attention_wait_for_q(is_ready);
        attention_load_next<FORM>(piece, loader);
    }
}

/* is_ready: whether the kernel in front is known to have ended. */
template <class FORM>
DEVICE void attention_run_piece(const struct attention_tile_args &args, const struct attention_piece &piece,
                                bool *is_ready)
{
    attention_state<FORM> state;
    attention_loader<FORM> loader;
    attention_start_loader<FORM>(args, piece, &loader);
    loader.new_key = attention_new_key<FORM>(args, piece);
    attention_load_first<FORM>(args, piece, &loader, is_ready);
    if (attention_turns<FORM>(args))
        attention_turn<FORM>(args, piece, loader.new_key, is_ready);
    attention_wait_for_q(is_ready);
    attention_find_rows<FORM>(args, piece, &state);
    attention_clear<FORM>(&state);
    bool is_partial = piece.item.flags & ATTENTION_ITEM_PARTIAL;
    uint32_t slot = 0, first_split = piece.tile / FORM::SPLIT_TILES;
    for (uint32_t tile = piece.tile; tile < piece.tile_end; tile++) {
        attention_tile<FORM>(args, piece, &loader, &state, tile, &slot);
        bool is_last = tile + 1 == piece.tile_end;
        if (!is_last && (tile + 1) % FORM::SPLIT_TILES != 0)
            continue;
        attention_lower<FORM>(&state);
        if (is_partial)
            attention_keep_split<FORM>(args, piece, &state, tile / FORM::SPLIT_TILES);
        else
            attention_end_split<FORM>(&state, tile / FORM::SPLIT_TILES == first_split, is_last);
        if (!is_last)
            attention_clear<FORM>(&state);
    }
    if (is_partial)
        attention_arrive<FORM>(args, piece);
    else
        attention_write_out<FORM>(args, piece, &state);
    copy_async_wait(0);
    attention_sync<FORM>(); /* shared memory is the next piece's */
}

/* Everything is read anew for each piece: the registers are for its tiles. */
template <class FORM> DEVICE void attention_run(const struct attention_tile_args &args)
{
    bool is_ready = false;
    for (uint32_t i = block_x(); i < attention_count_pieces<FORM>(args); i += grid_x()) {
        struct attention_piece piece;
        if (attention_find_piece<FORM>(args, i, &piece))
            attention_run_piece<FORM>(args, piece, &is_ready);
    }
    attention_wait_for_q(&is_ready);
}

#define ATTENTION_KERNEL(x, size, type, dim, kv_bytes, warps_m, warps_n, slots, shared_bytes, blocks)        \
    KERNEL_BOUNDS(attention_##size##_##type##_d##dim, struct attention_tile_args, (32 * warps_m * warps_n),  \
                  blocks)                                                                                    \
    {                                                                                                        \
        typedef attention_form<dim, kv_bytes, warps_m, warps_n, slots> form;                                 \
        static_assert(form::SHARED_BYTES == shared_bytes, "the list says otherwise");                        \
        attention_run<form>(args);                                                                           \
    }
