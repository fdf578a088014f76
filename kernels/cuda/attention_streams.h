/* Attention of few rows by streams: a warp, or a team of two or four (attention_group), takes a piece, each
 * warp with copies of its own under way. A warp alone goes through the splits one after the other and merges
 * each into those before it; of a team every warp has a split, and they meet in shared memory. Included by
 * attention_streams.cu alone. */
#pragma once

#include "kernels/cuda/attention_stream_tile.h"

/* q of the lane's pair, as it is in memory. */
template <class FORM>
DEVICE void attention_read_pair(const struct attention_tile_args &args, const struct attention_piece &piece,
                                vec8 q[FORM::K_STEPS])
{
    uint32_t pair = lane_id() / 4, t = lane_id() & 3;
    const uint16_t *row = NULL;
    if (pair < piece.n_pairs) {
        struct attention_pair of = attention_find_pair(args, piece, pair);
        row = args.qkv + (size_t)of.row * args.qkv_stride + of.head * FORM::DIM;
    }
#pragma unroll
    for (uint32_t k = 0; k < FORM::K_STEPS; k++) {
        q[k] = {{0, 0}};
        if (row != NULL) {
            const uint16_t *step = row + 16 * k;
            if constexpr (FORM::KV_BYTES == 2)
                q[k] = {{*(const uint32_t *)(step + 2 * t), *(const uint32_t *)(step + 2 * t + 8)}};
            else
                q[k] = load_8(step + 4 * t);
        }
    }
}

/* As operand B, elements in the order of attention_load_q. */
template <class FORM> DEVICE void attention_keep_pair(const vec8 q[FORM::K_STEPS])
{
#pragma unroll
    for (uint32_t k = 0; k < FORM::K_STEPS; k++) {
        vec8 four = q[k];
        if constexpr (FORM::KV_BYTES == 1)
            four = {{bf16x2_mul((four.w[0] & 0xffffu) | four.w[1] << 16, 0x71807180u),
                     bf16x2_mul(four.w[0] >> 16 | (four.w[1] & 0xffff0000u), 0x71807180u)}};
        *(vec8 *)attention_pair_q<FORM>(k) = four;
    }
}

/* Elements of the head that o[j][c] and o[j][c + 2] are. */
template <class FORM> DEVICE uint32_t attention_sum_element(uint32_t j)
{
    return 16 * j + lane_id() / 4 * (FORM::KV_BYTES == 1 ? 2 : 1);
}

/* The sums of a pair that the unit has in shared memory: elements of o, and m and l. */
template <class FORM> DEVICE float *attention_shown_o(uint8_t *unit, uint32_t pair)
{
    return (float *)(unit + FORM::SUMS_AT + pair * FORM::SUM_BYTES);
}

template <class FORM> DEVICE vec8 *attention_shown_ml(uint8_t *unit, uint32_t pair)
{
    return (vec8 *)(unit + FORM::ML_AT) + pair;
}

/* Of a team's splits so far, where its first warp shows the sums. */
template <class FORM> DEVICE vec8 *attention_total_ml(uint8_t *unit, uint32_t pair)
{
    return (vec8 *)(unit + FORM::TOTAL_ML_AT) + pair;
}

/* Two elements of a pair as f32. */
template <class FORM> DEVICE vec8 attention_read_two(const float *at)
{
    if constexpr (FORM::KV_BYTES == 1)
        return *(const vec8 *)at;
    else
        return {{float_bits(at[0]), float_bits(at[8])}};
}

template <class FORM> DEVICE void attention_write_two(float *at, float low, float high)
{
    if constexpr (FORM::KV_BYTES == 1) {
        *(vec8 *)at = {{float_bits(low), float_bits(high)}};
    } else {
        at[0] = low;
        at[8] = high;
    }
}

/* The split's sums go to shared memory: as they are, or merged into those that lie there. */
template <class FORM>
DEVICE void attention_show_sums(const attention_sums<FORM> &sums, uint32_t team, bool is_merged)
{
    uint8_t *unit = attention_shared<FORM>();
    warp_sync(); /* nobody reads the ones before */
#pragma unroll
    for (uint32_t c = 0; c < 2; c++) {
        uint32_t pair = 2 * (lane_id() & 3) + c;
        float m = sums.m[c], l = sums.l[c], total_m = m, total_l = l;
        struct attention_weights weights = {0.0f, 1.0f};
        if (is_merged) {
            vec8 ml =
                team > 1 ? *attention_total_ml<FORM>(unit, pair) : *attention_shown_ml<FORM>(unit, pair);
            total_m = bits_float(ml.w[0]);
            total_l = bits_float(ml.w[1]);
            weights = attention_merge(&total_m, &total_l, m, l);
        }
        warp_sync();
        if (lane_id() < 4)
            *attention_shown_ml<FORM>(unit, pair) = {{float_bits(total_m), float_bits(total_l)}};
        float *o = attention_shown_o<FORM>(unit, pair) + attention_sum_element<FORM>(0);
#pragma unroll
        for (uint32_t j = 0; j < FORM::VALUE_TILES; j++) {
            vec8 before = {{0, 0}};
            if (is_merged)
                before = attention_read_two<FORM>(o + 16 * j);
            attention_write_two<FORM>(
                o + 16 * j, attention_merge_value(bits_float(before.w[0]), sums.o[j][c], weights),
                attention_merge_value(bits_float(before.w[1]), sums.o[j][c + 2], weights));
        }
    }
    warp_sync();
}

/* What the warp shows of the split becomes the rows' partial results. */
template <class FORM>
DEVICE void attention_keep_sums(const struct attention_tile_args &args, const struct attention_piece &piece,
                                uint32_t split)
{
    uint8_t *unit = attention_shared<FORM>();
#pragma unroll 1
    for (uint32_t i = lane_id() * 4; i < piece.n_pairs * FORM::DIM; i += WARP_LANES * 4) {
        uint32_t pair = i / FORM::DIM, element = i % FORM::DIM;
        struct attention_pair of = attention_find_pair(args, piece, pair);
        if (!attention_sees_split(args.window, attention_position(args, piece, of.row), split))
            continue;
        size_t at = (size_t)(attention_row_partial(args, of.row) + split) * args.n_heads + of.head;
        if (element == 0)
            store_8(args.partial_ml + at * 2, *attention_shown_ml<FORM>(unit, pair));
        store_16(args.partial_o + at * FORM::DIM + element,
                 *(const vec16 *)(attention_shown_o<FORM>(unit, pair) + element));
    }
}

/* The warp's place among those that share the piece. */
DEVICE uint32_t attention_rank(const struct attention_piece &piece)
{
    return warp_id() % piece.team;
}

/* Waits for the warps that share the piece. */
DEVICE void attention_team_sync(const struct attention_piece &piece)
{
    if (piece.team > 1)
        barrier_named(1 + warp_id() / piece.team, piece.team * WARP_LANES);
    else
        warp_sync();
}

/* The team's first n warps show a split each: merges them, and writes the output, or leaves the sums where
 * the first warp merges its next split into them. */
template <class FORM>
DEVICE void attention_merge_team(const struct attention_tile_args &args, const struct attention_piece &piece,
                                 uint32_t n, bool is_last)
{
    uint32_t rank = attention_rank(piece), first = warp_id() - rank;
#pragma unroll 1
    for (uint32_t i = (rank * WARP_LANES + lane_id()) * 4; i < piece.n_pairs * FORM::DIM;
         i += piece.team * WARP_LANES * 4) {
        float total[4] = {0.0f, 0.0f, 0.0f, 0.0f}, total_m = -INFINITY, total_l = 0.0f;
        uint32_t pair = i / FORM::DIM, element = i % FORM::DIM;
        uint8_t *unit = shared_dynamic() + first * FORM::UNIT_BYTES;
#pragma unroll 1
        for (uint32_t s = 0; s < n; s++) {
            uint8_t *of_warp = unit + s * FORM::UNIT_BYTES;
            vec8 ml = *attention_shown_ml<FORM>(of_warp, pair);
            vec16 o = *(const vec16 *)(attention_shown_o<FORM>(of_warp, pair) + element);
            struct attention_weights weights =
                attention_merge(&total_m, &total_l, bits_float(ml.w[0]), bits_float(ml.w[1]));
#pragma unroll
            for (uint32_t c = 0; c < 4; c++)
                total[c] = attention_merge_value(total[c], bits_float(o.w[c]), weights);
        }
        if (is_last) {
            float factor = (FORM::KV_BYTES == 1 ? args.kv.v_scale : 1.0f) / total_l;
            struct attention_pair of = attention_find_pair(args, piece, pair);
            store_8(args.out + (size_t)of.row * args.out_stride + of.head * FORM::DIM + element,
                    {{to_bf16x2(total[0] * factor, total[1] * factor),
                      to_bf16x2(total[2] * factor, total[3] * factor)}});
            continue;
        }
        *(vec16 *)(attention_shown_o<FORM>(unit, pair) + element) = {
            {float_bits(total[0]), float_bits(total[1]), float_bits(total[2]), float_bits(total[3])}};
        if (element == 0)
            *attention_total_ml<FORM>(unit, pair) = {{float_bits(total_m), float_bits(total_l)}};
    }
}

/* q, and the first copies: some of them before the kernel in front has ended, if it does not write their
 * keys, the others behind q, which would have to wait for them. */
template <class FORM>
DEVICE void attention_start_feed(const struct attention_tile_args &args, const struct attention_desk &desk,
                                 attention_feed *feed, bool *is_ready)
{
    const struct attention_piece &piece = desk.piece;
    uint32_t split = piece.seen_first / CUDA_KV_SPLIT_TOKENS + attention_rank(piece), n = 0;
    feed->next = feed->begun = 0;
    feed->slot_at = desk.slot_at;
    feed->after_id = attention_read_id(desk, split);
    attention_feed_split(args, desk, split, feed);
    attention_look_ahead(args, desk, feed);
    if (!*is_ready) {
        uint32_t first = attention_seen_blocks(piece, split).begin + split * CUDA_KV_SPLIT_BLOCKS;
        uint32_t end_key = (first + FORM::EARLY_SLOTS) * CUDA_KV_BLOCK_TOKENS;
        if ((piece.item.flags & ATTENTION_ITEM_OLD_KEYS) == 0 && end_key > piece.item.low)
            attention_wait_for_q(is_ready);
#pragma unroll 1
        for (; n < FORM::EARLY_SLOTS; n++)
            attention_feed_slot<FORM>(args, feed);
        attention_wait_for_q(is_ready);
    }
    vec8 q[FORM::K_STEPS];
    attention_read_pair<FORM>(args, piece, q);
#pragma unroll 1
    for (; n < FORM::SLOTS; n++)
        attention_feed_slot<FORM>(args, feed);
    attention_keep_pair<FORM>(q);
}

/* Back from the scales of the products, as attention_lower. */
template <class FORM> DEVICE void attention_lower_sums(attention_sums<FORM> *sums)
{
    if constexpr (FORM::KV_BYTES == 1) {
#pragma unroll
        for (uint32_t c = 0; c < 4; c++) {
            sums->l[c] *= 0x1p-100f;
#pragma unroll
            for (uint32_t j = 0; j < FORM::VALUE_TILES; j++)
                sums->o[j][c] *= 0x1p20f;
        }
    }
}

/* The tiles of a split. */
template <class FORM>
DEVICE void attention_stream_split(const struct attention_tile_args &args, const struct attention_desk &desk,
                                   uint32_t split, attention_feed *feed, attention_sums<FORM> *sums)
{
    const struct attention_piece &piece = desk.piece;
    uint32_t tile = split * FORM::SPLIT_TILES;
    tile = tile > piece.tile ? tile : piece.tile;
    attention_clear<FORM>(sums);
#pragma unroll 1
    do {
        if (tile * FORM::KEYS >= piece.all_first && tile * FORM::KEYS + FORM::KEYS - 1 <= piece.all_last)
            attention_stream_tile<FORM, true>(args, desk, tile, feed, sums);
        else
            attention_stream_tile<FORM, false>(args, desk, tile, feed, sums);
        tile++;
    } while (tile % FORM::SPLIT_TILES != 0 && tile != piece.tile_end);
    attention_lower_sums<FORM>(sums);
}

/* The team's splits of the piece, one of a warp after the other, until they are kept or the output is
 * written. */
template <class FORM>
DEVICE void attention_stream_splits(const struct attention_tile_args &args, const struct attention_desk &desk,
                                    attention_feed *feed)
{
    const struct attention_piece &piece = desk.piece;
    bool is_partial = piece.item.flags & ATTENTION_ITEM_PARTIAL;
#pragma unroll 1
    for (uint32_t round = piece.seen_first / CUDA_KV_SPLIT_TOKENS;; round += piece.team) {
        attention_sums<FORM> sums;
        uint32_t split = round + attention_rank(piece), last = piece.seen_last / CUDA_KV_SPLIT_TOKENS;
        if (split <= last) {
            attention_stream_split<FORM>(args, desk, split, feed, &sums);
            bool is_first = is_partial || split - piece.seen_first / CUDA_KV_SPLIT_TOKENS < piece.team;
            attention_show_sums<FORM>(sums, piece.team, !is_first && attention_rank(piece) == 0);
            if (is_partial)
                attention_keep_sums<FORM>(args, piece, split);
        }
        bool is_last = round + piece.team > piece.seen_last / CUDA_KV_SPLIT_TOKENS;
        if (!is_partial && (is_last || piece.team > 1)) {
            uint32_t n = piece.seen_last / CUDA_KV_SPLIT_TOKENS - round + 1;
            attention_team_sync(piece);
            attention_merge_team<FORM>(args, piece, n < piece.team ? n : piece.team, is_last);
            attention_team_sync(piece); /* the sums are the next split's */
        }
        if (is_last)
            break;
    }
}

template <class FORM>
DEVICE void attention_stream_piece(const struct attention_tile_args &args, struct attention_desk *desk,
                                   bool *is_ready)
{
    attention_feed feed;
    attention_start_feed<FORM>(args, *desk, &feed, is_ready);
    attention_stream_splits<FORM>(args, *desk, &feed);
    warp_sync(); /* all lanes have read it, also where the warp of a team had no split */
    if (lane_id() == 0)
        desk->slot_at = feed.slot_at;
    if (desk->piece.item.flags & ATTENTION_ITEM_PARTIAL) {
        attention_team_sync(desk->piece); /* all have kept theirs */
        if (attention_rank(desk->piece) == 0)
            attention_arrive<FORM>(args, desk->piece);
    }
}

/* Small items that warps take alone, or the others. */
DEVICE uint32_t attention_count_items(const struct attention_group *group, bool is_alone)
{
    return is_alone ? group->n_alone : group->n_small - group->n_alone;
}

/* Parts of the pairs of an item, of one KV head, at most. */
template <class FORM> DEVICE uint32_t attention_count_parts(const struct attention_tile_args &args)
{
    uint32_t heads = args.n_heads / args.kv.n_kv_heads;
    return ceil_div(attention_group_of(args)->small_rows * heads, FORM::ROWS);
}

/* Piece `index` of the items. It lies in shared memory, since its tiles need the registers. Parts of the
 * pairs are outermost where most items have but one, and neighbours, which share what L2 has, where all have
 * several. False: it is empty. */
template <class FORM>
DEVICE bool attention_take_piece(const struct attention_tile_args &args, bool is_alone, uint32_t index,
                                 struct attention_piece *piece)
{
    const struct attention_group *group = attention_group_of(args);
    const struct attention_item *items = (const struct attention_item *)attention_words(args, group->items);
    uint32_t n_kv_heads = args.kv.n_kv_heads, n = attention_count_items(group, is_alone) * n_kv_heads;
    uint32_t n_parts = attention_count_parts<FORM>(args);
    bool are_neighbours = args.n_heads / n_kv_heads > FORM::ROWS;
    uint32_t part = are_neighbours ? index % n_parts : index / n;
    uint32_t rest = are_neighbours ? index / n_parts : index % n;
    piece->index = index;
    piece->team = is_alone ? 1 : group->team;
    return attention_make_piece<FORM>(args, items[(is_alone ? 0 : group->n_alone) + rest / n_kv_heads],
                                      rest % n_kv_heads, part, piece);
}

template <class FORM>
DEVICE uint32_t attention_count_stream_pieces(const struct attention_tile_args &args, bool is_alone)
{
    return attention_count_parts<FORM>(args) * attention_count_items(attention_group_of(args), is_alone) *
           args.kv.n_kv_heads;
}

/* All warps' pieces of the items that they take alone, then those of the others. Everything is read anew for
 * each piece. Neighbours among pieces go to different blocks. */
template <class FORM> DEVICE void attention_run_streams(const struct attention_tile_args &args)
{
    struct attention_desk *desk = (struct attention_desk *)(attention_shared<FORM>() + FORM::DESK_AT);
    bool is_ready = false;
    if (lane_id() == 0) {
        desk->tables = args.step->block_tables[args.kv.group];
        desk->blocks_per_seq = args.step->blocks_per_seq;
        desk->slot_at = 0;
    }
#pragma unroll 1
    for (uint32_t phase = 0; phase < 2; phase++) {
        uint32_t index = block_x() + warp_id() / (phase == 0 ? 1 : attention_group_of(args)->team) * grid_x();
#pragma unroll 1
        while (index < attention_count_stream_pieces<FORM>(args, phase == 0)) {
            warp_sync(); /* nobody reads the one before */
            if (lane_id() == 0)
                desk->phase = phase;
            bool is_found =
                lane_id() == 0 && attention_take_piece<FORM>(args, phase == 0, index, &desk->piece);
            warp_sync();
            if (any_lane(is_found)) {
                attention_stream_piece<FORM>(args, desk, &is_ready);
                index = desk->piece.index;
                phase = desk->phase;
            }
            index += grid_x() * (FORM::UNITS / (phase == 0 ? 1 : attention_group_of(args)->team));
        }
    }
    attention_wait_for_q(&is_ready);
    copy_async_wait(0);
}
