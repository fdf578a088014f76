/* The body of the attention kernels. Included by attention_*.cu alone. */
#pragma once

#include "kernels/cuda/attention_finish.h"
#include "kernels/cuda/attention_products.h"

/* The thread's two rows: which keys they see, and q. Nobody reads rows that are missing. Without a
 * window listed rows see all keys of their splits: their position is not looked up. */
template <class FORM>
DEVICE void attention_find_rows(const struct attention_tile_args &args, const struct attention_piece &piece,
                                attention_state<FORM> *state)
{
    bool listed = piece.item.flags & ATTENTION_ITEM_LISTED;
#pragma unroll
    for (uint32_t h = 0; h < 2; h++) {
        uint32_t pair = warp_id() / FORM::WARPS_N * 16 + lane_id() / 4 + 8 * h;
        const uint16_t *q = NULL;
        state->position[h] = 0xffffffffu;
        state->partial[h] = 0;
        if (pair < piece.n_pairs) {
            uint32_t row = attention_row(args, piece, pair);
            q = args.qkv + (size_t)row * args.qkv_stride + attention_head(piece, pair) * FORM::DIM;
            if (piece.item.flags & ATTENTION_ITEM_PARTIAL)
                state->partial[h] = attention_row_partial(args, row);
            if (!listed || args.window > 0)
                state->position[h] = attention_position(args, piece, row);
        }
        attention_load_q<FORM>(q, h, state);
        state->total_m[h] = -INFINITY;
        state->total_l[h] = 0.0f;
    }
}

/* The next tile of the ring: it is there, the next copy is under way, and all threads are behind what they
 * did before. */
template <class FORM>
DEVICE const uint8_t *attention_next_slot(const struct attention_tile_args &args,
                                          attention_loader<FORM> *loader, uint32_t *slot)
{
    const uint8_t *tile = shared_dynamic() + FORM::SLOTS_AT + *slot * FORM::SLOT_BYTES;
    copy_async_wait(FORM::SLOTS - 2);
    barrier();
    attention_load_next<FORM>(args, loader);
    *slot = *slot + 1 == FORM::SLOTS ? 0 : *slot + 1;
    return tile;
}

/* Scores of a tile, as attention_softmax takes them. */
template <class FORM>
DEVICE void attention_tile_scores(const struct attention_tile_args &args, const struct attention_piece &piece,
                                  const attention_state<FORM> *state, uint32_t tile, const uint8_t *keys,
                                  float s[FORM::KEY_TILES][4])
{
    uint32_t first_key = tile * FORM::KEYS;
    bool masked = first_key < piece.all_first || first_key + FORM::KEYS - 1 > piece.all_last;
    attention_scores<FORM>(state, keys, s);
    attention_cap_and_mask<FORM>(args, state, first_key, masked, s);
}

template <class FORM> DEVICE float attention_softmax_factor(const struct attention_tile_args &args)
{
    return (args.soft_cap > 0.0f ? args.soft_cap : attention_scale<FORM>(args)) * 1.4426950408889634f;
}

template <class FORM>
DEVICE void attention_tile(const struct attention_tile_args &args, const struct attention_piece &piece,
                           attention_loader<FORM> *loader, attention_state<FORM> *state, uint32_t tile,
                           uint32_t *slot)
{
    float s[FORM::KEY_TILES][4], max[2], decay[2];
    const uint8_t *keys = attention_next_slot<FORM>(args, loader, slot);
    attention_tile_scores<FORM>(args, piece, state, tile, keys, s);
    attention_warp_max<FORM>(s, max);
    if constexpr (FORM::WARPS_N > 1) {
        attention_write_max<FORM>(0, max);
        barrier();
        attention_read_max<FORM>(0, max);
    }
    attention_softmax<FORM>(state, attention_softmax_factor<FORM>(args), max, decay, s);
    attention_decay<FORM>(state, decay);
    if constexpr (FORM::WARPS_N > 1)
        attention_write_p<FORM>(0, s);
    const uint8_t *values = attention_next_slot<FORM>(args, loader, slot);
    attention_add_values<FORM>(state, values, 0, s);
}

/* Tiles [tile, tile_end) of one split, for several warps that share rows. Rolled loops: much of what a single
 * sequence waits for is instructions that come for the first time. */
template <class FORM>
DEVICE void attention_split(const struct attention_tile_args &args, const struct attention_piece &piece,
                            attention_loader<FORM> *loader, attention_state<FORM> *state, uint32_t tile,
                            uint32_t tile_end, uint32_t *slot)
{
    float s[FORM::SPLIT_TILES][FORM::KEY_TILES][4], decay[FORM::SPLIT_TILES][2];
    uint32_t n_tiles = tile_end - tile;
#pragma unroll 1
    for (uint32_t i = 0; i < n_tiles; i++) {
        float now[FORM::KEY_TILES][4], max[2];
        const uint8_t *keys = attention_next_slot<FORM>(args, loader, slot);
        attention_tile_scores<FORM>(args, piece, state, tile + i, keys, now);
        attention_warp_max<FORM>(now, max);
        attention_write_max<FORM>(i, max);
#pragma unroll
        for (uint32_t t = 0; t < FORM::SPLIT_TILES; t++) {
#pragma unroll
            for (uint32_t j = 0; j < FORM::KEY_TILES * 4; j++)
                s[t][j / 4][j % 4] = t == i ? now[j / 4][j % 4] : s[t][j / 4][j % 4];
        }
    }
    barrier(); /* the maxima are there, and nobody reads the probabilities of the split before */
#pragma unroll
    for (uint32_t t = 0; t < FORM::SPLIT_TILES; t++) {
        if (t >= n_tiles)
            break;
        float max[2];
        attention_read_max<FORM>(t, max);
        attention_softmax<FORM>(state, attention_softmax_factor<FORM>(args), max, decay[t], s[t]);
        attention_write_p<FORM>(t, s[t]);
    }
#pragma unroll 1
    for (uint32_t i = 0; i < n_tiles; i++) {
        float now[2] = {decay[0][0], decay[0][1]};
#pragma unroll
        for (uint32_t t = 1; t < FORM::SPLIT_TILES; t++) {
            now[0] = t == i ? decay[t][0] : now[0];
            now[1] = t == i ? decay[t][1] : now[1];
        }
        const uint8_t *values = attention_next_slot<FORM>(args, loader, slot);
        attention_decay<FORM>(state, now);
        attention_add_values<FORM>(state, values, i, s[0]);
    }
}

template <class FORM>
DEVICE void attention_run_piece(const struct attention_tile_args &args, const struct attention_piece &piece,
                                attention_loader<FORM> *loader, uint32_t *slot)
{
    attention_state<FORM> state;
    attention_wait_for_q(&loader->is_ready);
    attention_find_rows<FORM>(args, piece, &state);
    attention_clear<FORM>(&state);
    bool is_partial = piece.item.flags & ATTENTION_ITEM_PARTIAL;
    uint32_t first_split = piece.tile / FORM::SPLIT_TILES;
    for (uint32_t tile = piece.tile; tile < piece.tile_end;) {
        uint32_t split = tile / FORM::SPLIT_TILES, split_end = (split + 1) * FORM::SPLIT_TILES;
        split_end = split_end < piece.tile_end ? split_end : piece.tile_end;
        if constexpr (FORM::SPLIT_AT_ONCE) {
            attention_split<FORM>(args, piece, loader, &state, tile, split_end, slot);
        } else {
            for (uint32_t i = tile; i < split_end; i++)
                attention_tile<FORM>(args, piece, loader, &state, i, slot);
        }
        tile = split_end;
        bool is_last = tile == piece.tile_end;
        if (is_partial)
            attention_keep_split<FORM>(args, piece, &state, split);
        else
            attention_end_split<FORM>(&state, split == first_split, is_last);
        if (!is_last)
            attention_clear<FORM>(&state);
    }
    if (is_partial)
        attention_arrive<FORM>(args, piece);
    else
        attention_write_out<FORM>(args, piece, &state);
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
    struct attention_queue queue = {items, n_items, n_parts * n_items * args.kv.n_kv_heads, block_x()};
    attention_loader<FORM> loader;
    attention_start_loader<FORM>(args, queue, &loader);
    uint32_t slot = 0;
    for (uint32_t i = 0; i < loader.n_found; i++) { /* whose end the loader has seen before the products */
        barrier();                                  /* the piece is there */
        attention_run_piece<FORM>(args, *attention_found_piece<FORM>(i), &loader, &slot);
    }
    attention_wait_for_q(&loader.is_ready);
}

#define ATTENTION_KERNEL(x, size, type, dim, kv_bytes, warps_m, warps_n, slots, shared_bytes, blocks)        \
    KERNEL_BOUNDS(attention_##size##_##type##_d##dim, struct attention_tile_args, (32 * warps_m * warps_n),  \
                  blocks)                                                                                    \
    {                                                                                                        \
        typedef attention_form<dim, kv_bytes, warps_m, warps_n, slots> form;                                 \
        static_assert(form::SHARED_BYTES == shared_bytes, "the list says otherwise");                        \
        attention_run<form>(args);                                                                           \
    }
