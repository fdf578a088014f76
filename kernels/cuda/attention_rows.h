/* What a unit does before its first tile. Included by the attention kernels alone. */
#pragma once

#include "kernels/cuda/attention_finish.h"
#include "kernels/cuda/attention_products.h"
#include "kernels/cuda/attention_turn.h"

/* The thread's two rows: which keys they see, and q. Rows that are missing see all: the least work, and
 * nobody reads them. */
template <class FORM>
DEVICE void attention_find_rows(const struct attention_tile_args &args, const struct attention_piece &piece,
                                attention_state<FORM> *state)
{
    bool listed = piece.item.flags & ATTENTION_ITEM_LISTED;
#pragma unroll
    for (uint32_t h = 0; h < 2; h++) {
        uint32_t pair = attention_warp<FORM>() / FORM::WARPS_N * 16 + lane_id() / 4 + 8 * h;
        const uint16_t *q = NULL;
        state->first[h] = 0;
        state->n_seen[h] = 0xffffffffu;
        if (pair < piece.n_pairs) {
            uint32_t row = attention_row(args, piece, pair);
            q = attention_turns<FORM>(args)
                    ? attention_turned_q<FORM>(pair)
                    : args.qkv + (size_t)row * args.qkv_stride + attention_head(piece, pair) * FORM::DIM;
            if (!listed || args.window > 0) {
                uint32_t position = attention_position(args, piece, row);
                state->first[h] = attention_first_key(args.window, position);
                state->n_seen[h] = position - state->first[h] + 1;
            }
        }
        attention_load_q<FORM>(q, h, state);
        state->total_m[h] = -INFINITY;
        state->total_l[h] = 0.0f;
    }
}
