/* Attention of one piece: up to ROWS (row, head) pairs of one KV head over a run of tiles of 64 keys. The
 * arithmetic is told in attention_kernels.h. Included by the attention kernels alone.
 *
 * WARPS_M x WARPS_N warps: a warp has 16 of the pairs; those that share them (WARPS_N) divide the keys of a
 * tile for the scores, exchange maxima and probabilities through shared memory, and divide the values'
 * elements. Neither division changes the bits. K and V tiles go through a ring of slots: K of a tile, V of
 * it, K of the next, ...
 *
 * A unit is what has a ring: all warps of the block, or, in forms with UNITS > 1, one warp
 * (attention_streams.h). */
#pragma once

#include "kernels/cuda/attention_kernels.h"
#include "kernels/cuda/ptx.h"

template <uint32_t DIM_, uint32_t KV_BYTES_, uint32_t WARPS_M_, uint32_t WARPS_N_, uint32_t SLOTS_>
struct attention_form {
    static constexpr uint32_t DIM = DIM_, KV_BYTES = KV_BYTES_, WARPS_M = WARPS_M_, WARPS_N = WARPS_N_,
                              SLOTS = SLOTS_, UNITS = 1;
    static constexpr uint32_t THREADS = 32 * WARPS_M * WARPS_N; /* of a unit */
    static constexpr bool HAS_LOADERS = false;                  /* warps of the block that are of no unit */
    static constexpr uint32_t ROWS = 16 * WARPS_M;
    static constexpr uint32_t KEYS = ATTENTION_TILE_KEYS;
    static constexpr uint32_t SPLIT_TILES = CUDA_KV_SPLIT_TOKENS / KEYS;
    static constexpr uint32_t TILE_BLOCKS = KEYS / CUDA_KV_BLOCK_TOKENS;
    static constexpr uint32_t K_STEPS = DIM / 16;
    static constexpr uint32_t KV_PIECES = DIM * KV_BYTES / 16;
    static constexpr uint32_t BLOCK_PIECES = CUDA_KV_BLOCK_TOKENS * KV_PIECES; /* of K or V of one head */
    static constexpr uint32_t BLOCK_BYTES = BLOCK_PIECES * 16;
    static constexpr uint32_t KEY_TILES = KEYS / 8 / WARPS_N;  /* 8 columns of scores each, of a warp */
    static constexpr uint32_t VALUE_TILES = DIM / 8 / WARPS_N; /* 8 columns of the output each, of a warp */
    static constexpr uint32_t VALUE_PIECES = KV_PIECES / WARPS_N;
    static constexpr bool TOTAL_IN_SHARED = VALUE_TILES > 8; /* too many registers for two accumulators */

    /* Shared memory of a unit: merged splits, slots, probabilities, maxima. */
    static constexpr uint32_t SLOT_BYTES = TILE_BLOCKS * BLOCK_BYTES;
    static constexpr uint32_t TOTAL_BYTES = TOTAL_IN_SHARED ? VALUE_TILES * THREADS * 16 : 0;
    static constexpr uint32_t SLOTS_AT = TOTAL_BYTES;
    static constexpr uint32_t P_AT = SLOTS_AT + SLOTS * SLOT_BYTES;
    static constexpr uint32_t P_BYTES = WARPS_N > 1 ? ROWS *KEYS * 2 : 0;
    static constexpr uint32_t MAX_AT = P_AT + P_BYTES;
    static constexpr uint32_t MAX_BYTES = ROWS * WARPS_N * 4;
    /* Turned q, and the new key and value (attention_turn.h). Rows of q are apart by a piece, for the banks.
     */
    static constexpr bool TURNS = WARPS_M == 1;
    static constexpr uint32_t TURNED_AT = MAX_AT + MAX_BYTES;
    static constexpr uint32_t TURNED_ROW = DIM * 2 + 16;
    static constexpr uint32_t NEW_AT = TURNED_AT + (TURNS ? ROWS * TURNED_ROW : 0);
    static constexpr uint32_t NEW_BYTES = TURNS ? DIM * KV_BYTES : 0; /* of a key or a value */
    static constexpr uint32_t UNIT_BYTES = NEW_AT + 2 * NEW_BYTES;
    static constexpr uint32_t SHARED_BYTES = UNIT_BYTES;

    static_assert(TILE_BLOCKS == 4, "entries of a block table are read by four");
    static_assert(DIM % 32 == 0 && KEY_TILES % 2 == 0 && VALUE_TILES % 2 == 0, "ldmatrix takes pairs");
    static_assert(SHARED_BYTES <= 99 * 1024, "of a block on cards other than A100 and Hopper");
};

/* ---- The unit ---- */

template <class FORM> DEVICE uint32_t attention_unit(void)
{
    return FORM::UNITS == 1 ? 0 : warp_id();
}

/* Of the unit's warps. */
template <class FORM> DEVICE uint32_t attention_warp(void)
{
    return FORM::UNITS == 1 ? warp_id() : 0;
}

/* Of the unit's threads. */
template <class FORM> DEVICE uint32_t attention_thread(void)
{
    return FORM::UNITS == 1 ? thread_x() : lane_id();
}

template <class FORM> DEVICE uint8_t *attention_shared(void)
{
    return shared_dynamic() + attention_unit<FORM>() * FORM::UNIT_BYTES;
}

enum { ATTENTION_UNIT_BARRIER = 1, ATTENTION_LOADERS_BARRIER = 2 };

/* Waits for the unit's threads. */
template <class FORM> DEVICE void attention_sync(void)
{
    if constexpr (FORM::HAS_LOADERS)
        barrier_named(ATTENTION_UNIT_BARRIER, FORM::THREADS);
    else if constexpr (FORM::UNITS == 1)
        barrier();
    else
        warp_sync();
}

struct attention_piece {
    uint32_t index; /* of all pieces; with loaders: of the block's */
    struct attention_item item;
    uint32_t kv_head, heads_per_kv;
    uint32_t first_pair, n_pairs;   /* (row, head of the group), rows outermost, of the item */
    uint32_t tile, tile_end;        /* of 64 keys */
    uint32_t seen_first, seen_last; /* keys that some row sees */
    uint32_t all_first, all_last;   /* keys that every row sees */
    uint32_t team;                  /* by streams: warps that share it */
};

/* Of a warp's thread: accumulator elements 0, 1 belong to row lane / 4, elements 2, 3 to the row 8 below. */
template <class FORM> struct attention_state {
    uint32_t q[FORM::K_STEPS][4];
    float o[FORM::VALUE_TILES][4];
    float l[4]; /* every column of it the same */
    float m[2]; /* in units of log 2 */
    float total_o[FORM::TOTAL_IN_SHARED ? 1 : FORM::VALUE_TILES][4];
    float total_l[2], total_m[2];
    uint32_t first[2], n_seen[2]; /* keys that the two rows see */
};

/* ---- Merging splits ---- */

struct attention_weights {
    float before, now;
};

/* total_m, total_l: of the splits before; m, l: of the next one. Values are merged by attention_merge_value.
 */
DEVICE struct attention_weights attention_merge(float *total_m, float *total_l, float m, float l)
{
    float max = fmaxf(*total_m, m);
    float base = max == -INFINITY ? 0.0f : max;
    struct attention_weights weights = {fast_exp2(*total_m - base), fast_exp2(m - base)};
    *total_m = max;
    *total_l = fmaf(l, weights.now, *total_l * weights.before);
    return weights;
}

DEVICE float attention_merge_value(float total, float value, struct attention_weights weights)
{
    return fmaf(value, weights.now, total * weights.before);
}

/* ---- Pieces and rows ---- */

DEVICE const struct attention_group *attention_group_of(const struct attention_tile_args &args)
{
    return &args.work->groups[args.kv.group];
}

DEVICE const uint32_t *attention_words(const struct attention_tile_args &args, uint32_t offset)
{
    return (const uint32_t *)args.work + offset;
}

/* The row's first partial result. */
DEVICE uint32_t attention_row_partial(const struct attention_tile_args &args, uint32_t row)
{
    return attention_words(args, attention_group_of(args)->row_partials)[row];
}

/* Row of the step of row `index` of an item. */
DEVICE uint32_t attention_item_row(const struct attention_tile_args &args, const struct attention_item &item,
                                   uint32_t index)
{
    uint32_t row = item.first_row + index;
    if ((item.flags & ATTENTION_ITEM_LISTED) == 0)
        return row;
    return attention_words(args, attention_group_of(args)->listed_rows)[row];
}

/* Row of the step and query head of a pair of a piece. */
struct attention_pair {
    uint32_t row, head;
};

DEVICE struct attention_pair attention_find_pair(const struct attention_tile_args &args,
                                                 const struct attention_piece &piece, uint32_t pair)
{
    uint32_t at = piece.first_pair + pair, heads = piece.heads_per_kv;
    return {attention_item_row(args, piece.item, at / heads), piece.kv_head * heads + at % heads};
}

/* Where loaders keep it, of two pieces. */
template <class FORM>
DEVICE struct attention_pair *attention_kept_pair(const struct attention_piece &piece, uint32_t pair)
{
    return (struct attention_pair *)(attention_shared<FORM>() + FORM::PAIRS_AT) +
           piece.index % 2 * FORM::ROWS + pair;
}

template <class FORM>
DEVICE struct attention_pair attention_pair_of(const struct attention_tile_args &args,
                                               const struct attention_piece &piece, uint32_t pair)
{
    if constexpr (FORM::HAS_LOADERS)
        return *attention_kept_pair<FORM>(piece, pair);
    else
        return attention_find_pair(args, piece, pair);
}

/* Of a row of the piece. */
DEVICE uint32_t attention_position(const struct attention_tile_args &args,
                                   const struct attention_piece &piece, uint32_t row)
{
    bool listed = piece.item.flags & ATTENTION_ITEM_LISTED;
    return listed ? args.step->rows[row].position : row - piece.item.first_row + piece.item.low;
}

/* First key that a row at that position sees. */
DEVICE uint32_t attention_first_key(uint32_t window, uint32_t position)
{
    return window > 0 && position >= window ? position - window + 1 : 0;
}

/* Part `part` of an item's pairs, of one KV head. False: it is empty. */
template <class FORM>
DEVICE bool attention_make_piece(const struct attention_tile_args &args, const struct attention_item &item,
                                 uint32_t kv_head, uint32_t part, struct attention_piece *piece)
{
    piece->item = item;
    piece->kv_head = kv_head;
    piece->heads_per_kv = args.n_heads / args.kv.n_kv_heads;
    piece->first_pair = part * FORM::ROWS;
    uint32_t n_pairs = piece->item.n_rows * piece->heads_per_kv;
    if (piece->first_pair >= n_pairs)
        return false;
    piece->n_pairs = n_pairs - piece->first_pair < FORM::ROWS ? n_pairs - piece->first_pair : FORM::ROWS;
    uint32_t low = piece->item.low, high = piece->item.high;
    if ((piece->item.flags & ATTENTION_ITEM_LISTED) == 0) {
        low += piece->first_pair / piece->heads_per_kv;
        high = piece->item.low + (piece->first_pair + piece->n_pairs - 1) / piece->heads_per_kv;
    }
    uint32_t item_first = piece->item.first_split * CUDA_KV_SPLIT_TOKENS;
    uint32_t item_last = item_first + piece->item.n_splits * CUDA_KV_SPLIT_TOKENS - 1;
    uint32_t first = attention_first_key(args.window, low);
    piece->seen_first = first > item_first ? first : item_first;
    piece->seen_last = high < item_last ? high : item_last;
    piece->all_first = attention_first_key(args.window, high);
    piece->all_last = low;
    piece->tile = piece->seen_first / FORM::KEYS;
    piece->tile_end = piece->seen_last / FORM::KEYS + 1;
    return piece->seen_first <= piece->seen_last;
}

/* Piece `index` of those that the items make: parts of the pairs outermost, since most items have but one.
 * False: it is empty. */
template <class FORM>
DEVICE bool attention_find_piece(const struct attention_tile_args &args, uint32_t index,
                                 struct attention_piece *piece)
{
    const struct attention_group *group = attention_group_of(args);
    const struct attention_item *items = (const struct attention_item *)attention_words(args, group->items);
    items += FORM::WARPS_M == 1 ? 0 : group->n_small;
    uint32_t n_items = FORM::WARPS_M == 1 ? group->n_small : group->n_large;
    uint32_t n_kv_heads = args.kv.n_kv_heads;
    uint32_t part = index / (n_items * n_kv_heads), rest = index % (n_items * n_kv_heads);
    piece->index = index;
    return attention_make_piece<FORM>(args, items[rest / n_kv_heads], rest % n_kv_heads, part, piece);
}

/* Pieces of the items that this form is for. */
template <class FORM> DEVICE uint32_t attention_count_pieces(const struct attention_tile_args &args)
{
    const struct attention_group *group = attention_group_of(args);
    constexpr bool is_small = FORM::WARPS_M == 1;
    uint32_t rows_max = is_small ? group->small_rows : group->large_rows;
    uint32_t n_parts = ceil_div(rows_max * (args.n_heads / args.kv.n_kv_heads), FORM::ROWS);
    return n_parts * (is_small ? group->n_small : group->n_large) * args.kv.n_kv_heads;
}

/* ---- Loads ---- */

enum { ATTENTION_NO_KEY = 0xffffffffu };

/* The copies of K and V tiles: K of a tile, V of it, K of the next. */
template <class FORM> struct attention_loader {
    uint32_t tile, slot;
    bool is_v;
    uint32_t new_key; /* position of the key that is not in the cache yet, or NO_KEY */
    vec16 blocks;     /* of the tile */
    const uint32_t *table;
    const uint8_t *keys; /* of the KV head in block 0, the piece that this thread begins with */
    uint32_t block_bytes;
};

template <class FORM> DEVICE void attention_look_up_blocks(attention_loader<FORM> *loader)
{
    loader->blocks = load_cached_16(loader->table + loader->tile * FORM::TILE_BLOCKS);
}

template <class FORM>
DEVICE void attention_start_loader(const struct attention_tile_args &args,
                                   const struct attention_piece &piece, attention_loader<FORM> *loader)
{
    loader->tile = piece.tile;
    loader->slot = 0;
    loader->is_v = false;
    loader->new_key = ATTENTION_NO_KEY;
    loader->table =
        args.step->block_tables[args.kv.group] + (size_t)piece.item.seq * args.step->blocks_per_seq;
    loader->keys = args.kv.blocks + piece.kv_head * 2 * FORM::BLOCK_BYTES + attention_thread<FORM>() * 16;
    loader->block_bytes = args.kv.n_kv_heads * 2 * FORM::BLOCK_BYTES;
    attention_look_up_blocks<FORM>(loader);
}

/* The tile's copies of this thread. whole: every key is seen by some row and in the cache; else those that no
 * row sees become zeros, since whatever lies there must not reach a sum. */
template <class FORM, bool whole>
DEVICE void attention_copy_tile(const struct attention_piece &piece, const attention_loader<FORM> *loader)
{
    uint8_t *to = attention_shared<FORM>() + FORM::SLOTS_AT + loader->slot * FORM::SLOT_BYTES +
                  attention_thread<FORM>() * 16;
    const uint8_t *part = loader->keys + (loader->is_v ? FORM::BLOCK_BYTES : 0);
    uint32_t first_key = loader->tile * FORM::KEYS - piece.seen_first;
#pragma unroll
    for (uint32_t i = 0; i < FORM::TILE_BLOCKS; i++) {
        const uint8_t *from = part + (size_t)loader->blocks.w[i] * loader->block_bytes;
#pragma unroll
        for (uint32_t j = 0; j < FORM::BLOCK_PIECES; j += FORM::THREADS) {
            if (FORM::BLOCK_PIECES % FORM::THREADS != 0 && j + attention_thread<FORM>() >= FORM::BLOCK_PIECES)
                break;
            uint32_t key =
                first_key + i * CUDA_KV_BLOCK_TOKENS + (j + attention_thread<FORM>()) / FORM::KV_PIECES;
            bool seen = whole || key <= piece.seen_last - piece.seen_first;
            if (FORM::TURNS && !whole && key == loader->new_key - piece.seen_first)
                continue; /* attention_place_new */
            copy_async_16(to + i * FORM::BLOCK_BYTES + j * 16, from + j * 16, seen ? 16 : 0);
        }
    }
}

/* Starts the copy of the next tile; past the last one only the count of groups moves. */
template <class FORM>
DEVICE void attention_load_next(const struct attention_piece &piece, attention_loader<FORM> *loader)
{
    if (loader->tile < piece.tile_end) {
        uint32_t first = loader->tile * FORM::KEYS;
        bool is_new = FORM::TURNS && loader->new_key / FORM::KEYS == loader->tile;
        if (first >= piece.seen_first && first + FORM::KEYS - 1 <= piece.seen_last && !is_new)
            attention_copy_tile<FORM, true>(piece, loader);
        else
            attention_copy_tile<FORM, false>(piece, loader);
        if (loader->is_v) {
            loader->tile++;
            if (loader->tile < piece.tile_end)
                attention_look_up_blocks<FORM>(loader);
        }
        loader->is_v = !loader->is_v;
        loader->slot = loader->slot + 1 == FORM::SLOTS ? 0 : loader->slot + 1;
    }
    copy_async_commit();
}

/* q of one row of the warp as operand A, half 0: row lane / 4, half 1: the row 8 below; NULL: a row that is
 * missing. For e4m3 keys element k of a step is element 4 (k / 2 % 4) + 2 (k % 2) + k / 8: so the four codes
 * of a register of keys are split in even and odd ones, which costs least. */
template <class FORM>
DEVICE void attention_load_q(const uint16_t *row, uint32_t half, attention_state<FORM> *state)
{
    uint32_t t = lane_id() & 3;
#pragma unroll
    for (uint32_t k = 0; k < FORM::K_STEPS; k++) {
        vec8 four = {{0, 0}};
        if (row != NULL) {
            const uint16_t *step = row + 16 * k;
            if constexpr (FORM::KV_BYTES == 2)
                four = {{*(const uint32_t *)(step + 2 * t), *(const uint32_t *)(step + 2 * t + 8)}};
            else
                four = load_8(step + 4 * t);
        }
        if constexpr (FORM::KV_BYTES == 1)
            four = {{bf16x2_mul((four.w[0] & 0xffffu) | four.w[1] << 16, 0x71807180u),
                     bf16x2_mul(four.w[0] >> 16 | (four.w[1] & 0xffff0000u), 0x71807180u)}};
        state->q[k][half] = four.w[0];
        state->q[k][half + 2] = four.w[1];
    }
}
