/* What a unit does before its first tile. Included by the attention kernels alone. */
#pragma once

#include "kernels/cuda/attention_finish.h"
#include "kernels/cuda/attention_products.h"
#include "kernels/cuda/attention_turn.h"

/* Which keys row h of the thread sees: row `row` of the step. */
template <class FORM>
DEVICE void attention_find_seen(const struct attention_tile_args &args, const struct attention_piece &piece,
                                uint32_t row, uint32_t h, attention_state<FORM> *state)
{
    bool listed = piece.item.flags & ATTENTION_ITEM_LISTED;
    if (listed && args.window == 0)
        return;
    uint32_t position = attention_position(args, piece, row);
    state->first[h] = attention_first_key(args.window, position);
    state->n_seen[h] = position - state->first[h] + 1;
}

/* Before a piece. Rows that are missing see all: the least work, and nobody reads them. */
template <class FORM> DEVICE void attention_start_row(uint32_t h, attention_state<FORM> *state)
{
    state->first[h] = 0;
    state->n_seen[h] = 0xffffffffu;
    state->total_m[h] = -INFINITY;
    state->total_l[h] = 0.0f;
}

/* The thread's two rows: which keys they see, and q. */
template <class FORM>
DEVICE void attention_find_rows(const struct attention_tile_args &args, const struct attention_piece &piece,
                                attention_state<FORM> *state)
{
#pragma unroll
    for (uint32_t h = 0; h < 2; h++) {
        uint32_t pair = attention_warp<FORM>() / FORM::WARPS_N * 16 + lane_id() / 4 + 8 * h;
        const uint16_t *q = NULL;
        attention_start_row<FORM>(h, state);
        if (pair < piece.n_pairs) {
            struct attention_pair of = attention_pair_of<FORM>(args, piece, pair);
            q = attention_turns<FORM>(args)
                    ? attention_turned_q<FORM>(pair)
                    : args.qkv + (size_t)of.row * args.qkv_stride + of.head * FORM::DIM;
            attention_find_seen<FORM>(args, piece, of.row, h, state);
        }
        attention_load_q<FORM>(q, h, state);
    }
}
