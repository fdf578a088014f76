/* What becomes of a split's sums: merged on the spot, or kept as a partial result that whoever completes the
 * row merges; and the output. Included by the attention kernels alone. */
#pragma once

#include "kernels/cuda/attention_tile.h"

/* Elements of the head that the thread's accumulators o[j], o[j + 1] (j even) hold for a row: four of them,
 * which stand together with e4m3 values and in twos, 8 apart, with bf16 ones. */
template <class FORM> DEVICE uint32_t attention_value_element(uint32_t j)
{
    uint32_t first = attention_warp<FORM>() % FORM::WARPS_N * (FORM::VALUE_TILES * 8) + j * 8;
    return first + (lane_id() & 3) * (FORM::KV_BYTES == 2 ? 2 : 4);
}

/* Starts a split. */
template <class FORM, class SUMS> DEVICE void attention_clear(SUMS *state)
{
    state->m[0] = state->m[1] = -INFINITY;
#pragma unroll
    for (uint32_t i = 0; i < 4; i++) {
        state->l[i] = 0.0f;
#pragma unroll
        for (uint32_t j = 0; j < FORM::VALUE_TILES; j++)
            state->o[j][i] = 0.0f;
    }
}

/* e4m3: back from the scales of the products (attention_raise). Once, at the end of a split: all sums, or, in
 * forms with loaders, each where it is used, for want of registers. */
template <class FORM> DEVICE void attention_lower(attention_state<FORM> *state)
{
    if constexpr (FORM::KV_BYTES == 1 && !FORM::HAS_LOADERS) {
#pragma unroll
        for (uint32_t i = 0; i < 4; i++) {
            state->l[i] *= 0x1p-100f;
#pragma unroll
            for (uint32_t j = 0; j < FORM::VALUE_TILES; j++)
                state->o[j][i] *= 0x1p20f;
        }
    }
}

template <class FORM> DEVICE float attention_lowered_value(float o)
{
    return FORM::KV_BYTES == 1 && FORM::HAS_LOADERS ? o * 0x1p20f : o;
}

template <class FORM> DEVICE float attention_lowered_sum(float l)
{
    return FORM::KV_BYTES == 1 && FORM::HAS_LOADERS ? l * 0x1p-100f : l;
}

/* Merges the split into those before it. Afterwards o holds the sum of all. */
template <class FORM>
DEVICE void attention_end_split(attention_state<FORM> *state, bool is_first, bool is_last)
{
    struct attention_weights weights[2];
#pragma unroll
    for (uint32_t h = 0; h < 2; h++)
        weights[h] = attention_merge(&state->total_m[h], &state->total_l[h], state->m[h],
                                     attention_lowered_sum<FORM>(state->l[2 * h]));
    vec16 *shared = (vec16 *)attention_shared<FORM>() + attention_thread<FORM>(); /* [VALUE_TILES][THREADS] */
#pragma unroll
    for (uint32_t j = 0; j < FORM::VALUE_TILES; j++) {
        float total[4] = {0.0f, 0.0f, 0.0f, 0.0f};
        if (!is_first) {
            if constexpr (FORM::TOTAL_IN_SHARED) {
                vec16 kept = shared[j * FORM::THREADS];
#pragma unroll
                for (uint32_t i = 0; i < 4; i++)
                    total[i] = bits_float(kept.w[i]);
            } else {
#pragma unroll
                for (uint32_t i = 0; i < 4; i++)
                    total[i] = state->total_o[j][i];
            }
        }
#pragma unroll
        for (uint32_t i = 0; i < 4; i++)
            state->o[j][i] = attention_merge_value(total[i], attention_lowered_value<FORM>(state->o[j][i]),
                                                   weights[i / 2]);
        if (is_last)
            continue;
        if constexpr (FORM::TOTAL_IN_SHARED) {
            vec16 kept;
#pragma unroll
            for (uint32_t i = 0; i < 4; i++)
                kept.w[i] = float_bits(state->o[j][i]);
            shared[j * FORM::THREADS] = kept;
        } else {
#pragma unroll
            for (uint32_t i = 0; i < 4; i++)
                state->total_o[j][i] = state->o[j][i];
        }
    }
}

/* The output of the warp's rows, after the last split. */
template <class FORM>
DEVICE void attention_write_out(const struct attention_tile_args &args, const struct attention_piece &piece,
                                const attention_state<FORM> *state)
{
#pragma unroll
    for (uint32_t h = 0; h < 2; h++) {
        uint32_t pair = attention_warp<FORM>() / FORM::WARPS_N * 16 + lane_id() / 4 + 8 * h;
        if (pair >= piece.n_pairs)
            continue;
        float factor = (FORM::KV_BYTES == 1 ? args.kv.v_scale : 1.0f) / state->total_l[h];
        struct attention_pair of = attention_pair_of<FORM>(args, piece, pair);
        uint16_t *out = args.out + (size_t)of.row * args.out_stride + of.head * FORM::DIM;
#pragma unroll
        for (uint32_t j = 0; j < FORM::VALUE_TILES; j += 2) {
            const float *low = state->o[j] + 2 * h, *high = state->o[j + 1] + 2 * h;
            uint16_t *at = out + attention_value_element<FORM>(j);
            if constexpr (FORM::KV_BYTES == 2) {
                *(uint32_t *)at = to_bf16x2(low[0] * factor, low[1] * factor);
                *(uint32_t *)(at + 8) = to_bf16x2(high[0] * factor, high[1] * factor);
            } else {
                store_8(at, {{to_bf16x2(low[0] * factor, high[0] * factor),
                              to_bf16x2(low[1] * factor, high[1] * factor)}});
            }
        }
    }
}

/* Whether a row at that position sees some key of the split. */
DEVICE bool attention_sees_split(uint32_t window, uint32_t position, uint32_t split)
{
    return split >= attention_first_key(window, position) / CUDA_KV_SPLIT_TOKENS &&
           split <= position / CUDA_KV_SPLIT_TOKENS;
}

/* Keeps the split's sums of the warp's rows. */
template <class FORM>
DEVICE void attention_keep_split(const struct attention_tile_args &args, const struct attention_piece &piece,
                                 const attention_state<FORM> *state, uint32_t split)
{
#pragma unroll
    for (uint32_t h = 0; h < 2; h++) {
        uint32_t pair = attention_warp<FORM>() / FORM::WARPS_N * 16 + lane_id() / 4 + 8 * h;
        if (pair >= piece.n_pairs)
            continue;
        struct attention_pair of = attention_pair_of<FORM>(args, piece, pair);
        if (!attention_sees_split(args.window, attention_position(args, piece, of.row), split))
            continue;
        size_t at = (size_t)(attention_row_partial(args, of.row) + split) * args.n_heads + of.head;
        if (attention_warp<FORM>() % FORM::WARPS_N == 0 && (lane_id() & 3) == 0)
            store_8(args.partial_ml + at * 2,
                    {{float_bits(state->m[h]), float_bits(attention_lowered_sum<FORM>(state->l[2 * h]))}});
#pragma unroll
        for (uint32_t j = 0; j < FORM::VALUE_TILES; j += 2) {
            const float *low = state->o[j] + 2 * h, *high = state->o[j + 1] + 2 * h;
            uint32_t bits[4] = {float_bits(attention_lowered_value<FORM>(low[0])),
                                float_bits(attention_lowered_value<FORM>(low[1])),
                                float_bits(attention_lowered_value<FORM>(high[0])),
                                float_bits(attention_lowered_value<FORM>(high[1]))};
            float *to = args.partial_o + at * FORM::DIM + attention_value_element<FORM>(j);
            if constexpr (FORM::KV_BYTES == 2) {
                store_8(to, {{bits[0], bits[1]}});
                store_8(to + 8, {{bits[2], bits[3]}});
            } else {
                store_16(to, {{bits[0], bits[2], bits[1], bits[3]}});
            }
        }
    }
}

/* Four elements of a head's partial result; m and l of it. */
struct attention_kept {
    vec8 ml;
    vec16 o;
};

/* Merges the partial results of a row's heads that share the KV head, by so many threads. A thread has four
 * elements of each of up to four heads, or parts of one: what it reads of a split comes at once. */
template <class FORM, uint32_t THREADS>
DEVICE void attention_merge_row(const struct attention_tile_args &args, uint32_t row, uint32_t kv_head,
                                uint32_t thread)
{
    constexpr uint32_t PARTS = THREADS == WARP_LANES ? 4 : 1;
    uint32_t heads = args.n_heads / args.kv.n_kv_heads, position = args.step->rows[row].position;
    uint32_t first = attention_first_key(args.window, position) / CUDA_KV_SPLIT_TOKENS;
    uint32_t last = position / CUDA_KV_SPLIT_TOKENS, n = heads * FORM::DIM;
    size_t partial = attention_row_partial(args, row);
    for (uint32_t at = thread * 4; at < n; at += PARTS * THREADS * 4) {
        float total[PARTS][4] = {}, total_m[PARTS], total_l[PARTS] = {};
#pragma unroll
        for (uint32_t p = 0; p < PARTS; p++)
            total_m[p] = -INFINITY;
#pragma unroll 2
        for (uint32_t split = first; split <= last; split++) {
            struct attention_kept kept[PARTS];
            size_t of_split = (partial + split) * args.n_heads + kv_head * heads;
#pragma unroll
            for (uint32_t p = 0; p < PARTS; p++) {
                uint32_t i = at + p * THREADS * 4;
                if (i >= n)
                    break;
                kept[p].ml = load_8(args.partial_ml + (of_split + i / FORM::DIM) * 2);
                kept[p].o = load_16(args.partial_o + of_split * FORM::DIM + i);
            }
#pragma unroll
            for (uint32_t p = 0; p < PARTS; p++) {
                if (at + p * THREADS * 4 >= n)
                    break;
                struct attention_weights weights = attention_merge(
                    &total_m[p], &total_l[p], bits_float(kept[p].ml.w[0]), bits_float(kept[p].ml.w[1]));
#pragma unroll
                for (uint32_t c = 0; c < 4; c++)
                    total[p][c] = attention_merge_value(total[p][c], bits_float(kept[p].o.w[c]), weights);
            }
        }
#pragma unroll
        for (uint32_t p = 0; p < PARTS; p++) {
            uint32_t i = at + p * THREADS * 4;
            if (i >= n)
                break;
            float factor = (FORM::KV_BYTES == 1 ? args.kv.v_scale : 1.0f) / total_l[p];
            store_8(args.out + (size_t)row * args.out_stride + kv_head * heads * FORM::DIM + i,
                    {{to_bf16x2(total[p][0] * factor, total[p][1] * factor),
                      to_bf16x2(total[p][2] * factor, total[p][3] * factor)}});
        }
    }
}

/* Counts what the piece kept: per row of it, pairs of a split and a head. The block that completes a row's
 * count merges the row and puts the count back to zero. */
template <class FORM>
DEVICE void attention_arrive(const struct attention_tile_args &args, const struct attention_piece &piece)
{
    uint32_t *complete =
        (uint32_t *)(attention_shared<FORM>() + FORM::MAX_AT); /* [ROWS] rows of the step, or NO_PARTIAL */
    uint32_t heads = piece.heads_per_kv, first_row = piece.first_pair / heads;
    uint32_t n_rows = (piece.first_pair + piece.n_pairs - 1) / heads - first_row + 1;
    attention_sync<FORM>();
    for (uint32_t i = attention_thread<FORM>(); i < n_rows; i += FORM::THREADS) {
        uint32_t begin = i == 0 ? 0 : (first_row + i) * heads - piece.first_pair;
        uint32_t end = (first_row + i + 1) * heads - piece.first_pair;
        end = end < piece.n_pairs ? end : piece.n_pairs;
        uint32_t row = attention_pair_of<FORM>(args, piece, begin).row,
                 position = attention_position(args, piece, row);
        uint32_t first = attention_first_key(args.window, position) / CUDA_KV_SPLIT_TOKENS;
        uint32_t last = position / CUDA_KV_SPLIT_TOKENS, n_splits = 0;
        for (uint32_t split = 0; split < piece.item.n_splits; split++)
            n_splits += attention_sees_split(args.window, position, piece.item.first_split + split);
        uint32_t *count = args.arrivals + (size_t)row * args.kv.n_kv_heads + piece.kv_head;
        uint32_t arrived = n_splits * (end - begin);
        fence_device(); /* what the block kept is seen before the count, what others kept after it */
        bool is_complete = atomic_add_u32(count, arrived) + arrived == (last - first + 1) * heads;
        fence_device();
        complete[i] = is_complete && arrived > 0 ? row : (uint32_t)ATTENTION_NO_PARTIAL;
        if (is_complete && arrived > 0)
            *count = 0;
    }
    attention_sync<FORM>();
    /* With loaders there are many rows: each warp takes one. */
    constexpr uint32_t AT_ONCE = FORM::HAS_LOADERS ? FORM::THREADS / WARP_LANES : 1,
                       N = FORM::THREADS / AT_ONCE;
    uint32_t thread = attention_thread<FORM>();
    for (uint32_t i = AT_ONCE == 1 ? 0 : thread / N; i < n_rows; i += AT_ONCE) {
        if (complete[i] != ATTENTION_NO_PARTIAL)
            attention_merge_row<FORM, N>(args, complete[i], piece.kv_head,
                                         AT_ONCE == 1 ? thread : thread % N);
    }
}
