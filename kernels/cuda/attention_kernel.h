/* The body of the attention kernels. Included by attention_*.cu alone. */
#pragma once

#include "kernels/cuda/attention_finish.h"
#include "kernels/cuda/attention_products.h"

/* The thread's two rows: which keys they see, and q. Rows that are missing see all: the least work, and
 * nobody reads them. */
template <class FORM>
DEVICE void attention_find_rows(const struct attention_tile_args &args, const struct attention_piece &piece,
                                attention_state<FORM> *state)
{
    bool listed = piece.item.flags & ATTENTION_ITEM_LISTED;
#pragma unroll
    for (uint32_t h = 0; h < 2; h++) {
        uint32_t pair = warp_id() / FORM::WARPS_N * 16 + lane_id() / 4 + 8 * h;
        const uint16_t *q = NULL;
        state->first[h] = 0;
        state->n_seen[h] = 0xffffffffu;
        if (pair < piece.n_pairs) {
            uint32_t row = attention_row(args, piece, pair);
            q = args.qkv + (size_t)row * args.qkv_stride + attention_head(piece, pair) * FORM::DIM;
            if (!listed || args.window > 0) {
                uint32_t position =
                    listed ? args.step->rows[row].position : row - piece.item.first_row + piece.item.low;
                state->first[h] = attention_first_key(args.window, position);
                state->n_seen[h] = position - state->first[h] + 1;
            }
        }
        attention_load_q<FORM>(q, h, state);
        state->total_m[h] = -INFINITY;
        state->total_l[h] = 0.0f;
    }
}

template <class FORM>
DEVICE void attention_tile(const struct attention_tile_args &args, const struct attention_piece &piece,
                           attention_loader<FORM> *loader, attention_state<FORM> *state, uint32_t tile,
                           uint32_t *slot)
{
    const uint8_t *slots = shared_dynamic() + FORM::SLOTS_AT;
    float s[FORM::KEY_TILES][4];
    copy_async_wait(FORM::SLOTS - 2);
    barrier(); /* the keys are there, and nobody reads the values of the tile before */
    attention_load_next<FORM>(piece, loader);
    attention_scores<FORM>(state, slots + *slot * FORM::SLOT_BYTES, s);
    *slot = *slot + 1 == FORM::SLOTS ? 0 : *slot + 1;
    uint32_t first_key = tile * FORM::KEYS;
    bool masked = first_key < piece.all_first || first_key + FORM::KEYS - 1 > piece.all_last;
    attention_cap_and_mask<FORM>(args, state, first_key, masked, s);
    float c = (args.soft_cap > 0.0f ? args.soft_cap : attention_scale<FORM>(args)) * 1.4426950408889634f;
    attention_softmax<FORM>(state, c, s);
    if constexpr (FORM::WARPS_N > 1)
        attention_write_p<FORM>(s);
    copy_async_wait(FORM::SLOTS - 2);
    barrier(); /* the values and the probabilities are there, and nobody reads the keys */
    attention_load_next<FORM>(piece, loader);
    attention_add_values<FORM>(state, slots + *slot * FORM::SLOT_BYTES, s);
    *slot = *slot + 1 == FORM::SLOTS ? 0 : *slot + 1;
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

/* is_ready: whether the kernel in front is known to have ended. */
template <class FORM>
DEVICE void attention_run_piece(const struct attention_tile_args &args, const struct attention_piece &piece,
                                bool *is_ready)
{
    attention_state<FORM> state;
    attention_loader<FORM> loader;
    attention_start_loader<FORM>(args, piece, &loader);
    if ((piece.item.flags & ATTENTION_ITEM_OLD_KEYS) == 0)
        attention_wait_for_q(is_ready);
    for (uint32_t i = 0; i + 1 < FORM::SLOTS; i++)
        attention_load_next<FORM>(piece, &loader);
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
    barrier(); /* shared memory is the next piece's */
}

/* The items that this form is for. */
template <class FORM> DEVICE void attention_run(const struct attention_tile_args &args)
{
    const struct attention_group *group = attention_group_of(args);
    constexpr bool is_small = FORM::WARPS_M == 1;
    const struct attention_item *items = (const struct attention_item *)attention_words(args, group->items);
    items += is_small ? 0 : group->n_small;
    uint32_t n_items = is_small ? group->n_small : group->n_large;
    uint32_t rows_max = is_small ? group->small_rows : group->large_rows;
    uint32_t n_parts = ceil_div(rows_max * (args.n_heads / args.kv.n_kv_heads), FORM::ROWS);
    uint32_t n_pieces = n_parts * n_items * args.kv.n_kv_heads;
    bool is_ready = false;
    for (uint32_t i = block_x(); i < n_pieces; i += grid_x()) {
        struct attention_piece piece;
        if (attention_find_piece<FORM>(args, items, n_items, i, &piece))
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
