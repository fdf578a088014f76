/* Attention of many rows on sm_90a: 128 (row, head) pairs of a KV head by wgmma, with the bits of the other
 * forms (attention_kernels.h). Included by attention_wgmma.cu alone.
 *
 * Two warpgroups have 64 of the pairs each: q is operand A from registers, the 64 keys of a tile operand B.
 * Probabilities are operand A of the product with the values, which has eight columns more than a head has
 * elements: those of a tile of ones, for the row sums. The scores of the next tile are computed in front of
 * the product with the values of this one, and their softmax while that product runs.
 *
 * Further warps load (attention_wgmma_load.h): keys and values, as bf16 to where wgmma's swizzle wants them,
 * into a ring of stages each; q of the next piece while this one is computed. They also find the pieces. */
#pragma once

#include "kernels/cuda/attention_rows.h"
#include "kernels/cuda/ptx_wgmma.h"

enum { ATTENTION_WARPGROUP_PAIRS = 64, ATTENTION_ROW_BYTES = 128 /* of a swizzled tile */ };

/* Shared memory: merged splits, stages of keys, stages of values, codes under way, q, what attention_arrive
 * needs, the pieces under way. A tile is [parts of 128 bytes of a key][64 keys][128 bytes], swizzled; one of
 * values has a part of ones behind it. */
template <uint32_t DIM_, uint32_t KV_BYTES_>
struct attention_wgmma_form : attention_form<DIM_, KV_BYTES_, 8, 1, 2> {
    typedef attention_form<DIM_, KV_BYTES_, 8, 1, 2> base;
    static constexpr bool HAS_LOADERS = true;
    /* A warp loads every second tile of keys or of values. No fewer stages than warps that fill them: one
     * then never waits for a phase of `empty` two ahead. e4m3 has fewer, since codes are under way elsewhere.
     */
    static constexpr uint32_t STAGES = KV_BYTES_ == 1 ? 2 : 3, LOADER_WARPS = 4, TILE_STEP = LOADER_WARPS / 2;
    static constexpr uint32_t LOADER_THREADS = 32 * LOADER_WARPS;
    static constexpr uint32_t BLOCK_THREADS = base::THREADS + LOADER_THREADS;
    static constexpr uint32_t CONSUMER_WARPS = base::THREADS / 32;
    /* Together no more than the block was launched with: a warp would wait for the rest for ever. */
    static constexpr int LOADER_REGISTERS = 72, CONSUMER_REGISTERS = 216;
    static constexpr uint32_t LAUNCH_REGISTERS = 65536 / BLOCK_THREADS / 8 * 8; /* of a thread */
    static_assert(LOADER_THREADS * LOADER_REGISTERS + base::THREADS * CONSUMER_REGISTERS <=
                  BLOCK_THREADS * LAUNCH_REGISTERS);
    static constexpr uint32_t SUMS = (DIM_ + 8) / 2; /* of a thread; the last four are row sums */

    static constexpr uint32_t PART_BYTES = base::KEYS * ATTENTION_ROW_BYTES;
    static constexpr uint32_t KEYS_BYTES = DIM_ / 64 * PART_BYTES, VALUES_BYTES = KEYS_BYTES + PART_BYTES;
    static constexpr uint32_t KEYS_AT = base::TOTAL_BYTES, VALUES_AT = KEYS_AT + STAGES * KEYS_BYTES;
    static constexpr uint32_t CODES_AT = VALUES_AT + STAGES * VALUES_BYTES;
    static constexpr uint32_t CODES_BYTES = base::KEYS * DIM_; /* of a warp: of a tile */
    static constexpr uint32_t Q_AT = CODES_AT + (KV_BYTES_ == 1 ? LOADER_WARPS * CODES_BYTES : 0);
    static constexpr uint32_t Q_PITCH = DIM_ * 2 + 16; /* eight rows in eight groups of banks */
    static constexpr uint32_t MAX_AT = Q_AT + base::ROWS * Q_PITCH;
    static constexpr uint32_t PAIRS_AT =
        MAX_AT + base::ROWS * 4; /* [2] pieces [ROWS] struct attention_pair */
    static constexpr uint32_t PIECES_AT = PAIRS_AT + 2 * base::ROWS * 8;
    static constexpr uint32_t PIECES = 3, PIECE_BYTES = 80;
    static constexpr uint32_t SHARED_BYTES = PIECES_AT + PIECES * PIECE_BYTES;
    static constexpr uint32_t UNIT_BYTES = SHARED_BYTES;
};

/* full: what is waited for has come; empty: all who read it have. */
struct attention_handover {
    uint64_t full, empty;
};
template <class FORM> struct attention_barriers {
    struct attention_handover keys[FORM::STAGES], values[FORM::STAGES], q;
};

/* Where a reader is in a ring of stages. */
struct attention_stage {
    uint32_t index, phase;
};

template <class FORM> DEVICE void attention_advance(struct attention_stage *stage)
{
    bool wraps = stage->index + 1 == FORM::STAGES;
    stage->index = wraps ? 0 : stage->index + 1;
    stage->phase ^= wraps;
}

/* The block's piece number n. */
template <class FORM> DEVICE struct attention_piece *attention_piece_at(uint32_t n)
{
    static_assert(sizeof(struct attention_piece) <= FORM::PIECE_BYTES);
    return (struct attention_piece *)(attention_shared<FORM>() + FORM::PIECES_AT +
                                      n % FORM::PIECES * FORM::PIECE_BYTES);
}

/* The warp has read what the handover is about. */
DEVICE void attention_release(struct attention_handover *handover)
{
    if (lane_id() == 0)
        mbarrier_arrive(&handover->empty);
}

template <uint32_t n> DEVICE float (&attention_flat(float (&x)[n][4]))[4 * n]
{
    return *(float(*)[4 * n]) x;
}

/* What a consumer goes on with from tile to tile. */
template <class FORM> struct attention_consumer {
    attention_barriers<FORM> *barriers;
    struct attention_stage keys, values;
    float c, m[2];
    float d[FORM::SUMS];
    uint32_t p[FORM::TILE_BLOCKS][4];
};

/* The thread's rows: what they see, and q, which the next piece's may take the place of. */
template <class FORM>
DEVICE void attention_take_rows(const struct attention_tile_args &args, const struct attention_piece &piece,
                                attention_barriers<FORM> *barriers, attention_state<FORM> *state)
{
    const uint8_t *q = attention_shared<FORM>() + FORM::Q_AT;
#pragma unroll
    for (uint32_t h = 0; h < 2; h++) {
        uint32_t pair = attention_warp<FORM>() * 16 + lane_id() / 4 + 8 * h;
        attention_start_row<FORM>(h, state);
        if (pair < piece.n_pairs)
            attention_find_seen<FORM>(args, piece, attention_kept_pair<FORM>(piece, pair)->row, h, state);
        attention_load_q<FORM>((const uint16_t *)(q + pair * FORM::Q_PITCH), h, state);
    }
    warp_sync();
    attention_release(&barriers->q);
}

/* s = q . k for the stage's keys, asynchronously. */
template <class FORM>
DEVICE void attention_start_scores(const attention_state<FORM> &state, uint32_t stage,
                                   float (&s)[FORM::KEY_TILES][4])
{
    uint64_t keys = shared_descriptor(attention_shared<FORM>() + FORM::KEYS_AT + stage * FORM::KEYS_BYTES, 16,
                                      8 * ATTENTION_ROW_BYTES, SWIZZLE_128);
#pragma unroll
    for (uint32_t k = 0; k < FORM::K_STEPS; k++)
        wgmma_bf16_m64k16<(int)FORM::KEYS>(attention_flat(s), state.q[k],
                                           descriptor_behind(keys, k / 4 * FORM::PART_BYTES + k % 4 * 32),
                                           k > 0);
    wgmma_commit();
}

/* d = p . (v, 1) for the stage's values, or d += , asynchronously. */
template <class FORM> DEVICE void attention_start_values(attention_consumer<FORM> *consumer, bool adds)
{
    uint64_t values = shared_descriptor(attention_shared<FORM>() + FORM::VALUES_AT +
                                            consumer->values.index * FORM::VALUES_BYTES,
                                        FORM::PART_BYTES, 8 * ATTENTION_ROW_BYTES, SWIZZLE_128);
#pragma unroll
    for (uint32_t step = 0; step < FORM::TILE_BLOCKS; step++)
        wgmma_bf16_m64k16<(int)FORM::DIM + 8, 1>(
            consumer->d, consumer->p[step],
            descriptor_behind(values, step * CUDA_KV_BLOCK_TOKENS * ATTENTION_ROW_BYTES), adds || step > 0);
    wgmma_commit();
}

/* Scores of a tile to probabilities. */
template <class FORM>
DEVICE void attention_wide_softmax(const struct attention_tile_args &args,
                                   const struct attention_piece &piece, const attention_state<FORM> &state,
                                   attention_consumer<FORM> *consumer, uint32_t tile,
                                   float (&s)[FORM::KEY_TILES][4], float decay[2])
{
    uint32_t first_key = tile * FORM::KEYS;
    attention_cap<FORM, FORM::KEY_TILES>(args, s);
    if (first_key < piece.all_first || first_key + FORM::KEYS - 1 > piece.all_last)
        attention_mask<FORM>(&state, first_key, s);
    attention_probabilities<FORM>(consumer->c, consumer->m, s, decay);
}

/* Probabilities as operand A. No product may be under way: the compiler would let each end before the next.
 */
template <class FORM>
DEVICE void attention_take_probabilities(attention_consumer<FORM> *consumer,
                                         const float (&s)[FORM::KEY_TILES][4])
{
#pragma unroll
    for (uint32_t step = 0; step < FORM::TILE_BLOCKS; step++)
        attention_read_p<FORM>(step, s, consumer->p[step]);
}

/* The sums so far, brought to a new maximum. Without a look at whether it is one: it mostly is. */
template <class FORM> DEVICE void attention_decay_sums(float (&d)[FORM::SUMS], const float decay[2])
{
#pragma unroll
    for (uint32_t i = 0; i < FORM::SUMS; i++)
        d[i] *= decay[i / 2 % 2];
}

/* The split's sums to their place. */
template <class FORM>
DEVICE void attention_finish_split(const struct attention_tile_args &args,
                                   const struct attention_piece &piece, const float (&d)[FORM::SUMS],
                                   attention_state<FORM> *state, uint32_t split, bool is_last)
{
#pragma unroll
    for (uint32_t i = 0; i < 4; i++) {
        state->l[i] = d[FORM::DIM / 2 + i];
#pragma unroll
        for (uint32_t j = 0; j < FORM::VALUE_TILES; j++)
            state->o[j][i] = d[4 * j + i];
    }
    if (piece.item.flags & ATTENTION_ITEM_PARTIAL)
        attention_keep_split<FORM>(args, piece, state, split);
    else
        attention_end_split<FORM>(state, split == piece.tile / FORM::SPLIT_TILES, is_last);
}

/* Begins a split: its maxima start from nothing, those of the one before are kept for its end. */
template <class FORM>
DEVICE void attention_change_split(attention_state<FORM> *state, attention_consumer<FORM> *consumer)
{
#pragma unroll
    for (uint32_t h = 0; h < 2; h++) {
        state->m[h] = consumer->m[h];
        consumer->m[h] = -INFINITY;
    }
}

template <class FORM> DEVICE void attention_await_values(const attention_consumer<FORM> *consumer)
{
    mbarrier_wait(&consumer->barriers->values[consumer->values.index].full, consumer->values.phase);
}

/* Tile `tile`, whose probabilities are there, and the scores of the next one. */
template <class FORM>
DEVICE void attention_wide_tile(const struct attention_tile_args &args, const struct attention_piece &piece,
                                attention_state<FORM> *state, attention_consumer<FORM> *consumer,
                                uint32_t tile)
{
    float s[FORM::KEY_TILES][4], decay[2];
    struct attention_handover *keys = &consumer->barriers->keys[consumer->keys.index];
    struct attention_handover *values = &consumer->barriers->values[consumer->values.index];
    bool ends_split = (tile + 1) % FORM::SPLIT_TILES == 0;
    mbarrier_wait(&keys->full, consumer->keys.phase);
    wgmma_hold(consumer->p);
    wgmma_hold(consumer->d);
    wgmma_fence();
    attention_start_scores<FORM>(*state, consumer->keys.index, s);
    attention_start_values<FORM>(consumer, tile % FORM::SPLIT_TILES != 0 && tile != piece.tile);
    wgmma_wait<1>();
    wgmma_hold(attention_flat(s));
    attention_release(keys);
    if (ends_split)
        attention_change_split<FORM>(state, consumer);
    attention_wide_softmax<FORM>(args, piece, *state, consumer, tile + 1, s, decay);
    attention_advance<FORM>(&consumer->values);
    wgmma_hold(attention_flat(s)); /* the compiler would compute them behind the wait */
    attention_await_values<FORM>(consumer);
    wgmma_wait<0>();
    wgmma_hold(consumer->d);
    attention_release(values);
    attention_take_probabilities<FORM>(consumer, s);
    attention_advance<FORM>(&consumer->keys);
    if (ends_split)
        attention_finish_split<FORM>(args, piece, consumer->d, state, tile / FORM::SPLIT_TILES, false);
    attention_decay_sums<FORM>(consumer->d, decay);
}

/* The warpgroup's pairs of a piece. */
template <class FORM>
DEVICE void attention_wide_piece(const struct attention_tile_args &args, const struct attention_piece &piece,
                                 attention_consumer<FORM> *consumer)
{
    attention_state<FORM> state;
    attention_take_rows<FORM>(args, piece, consumer->barriers, &state);
    float s[FORM::KEY_TILES][4], decay[2];
    consumer->m[0] = consumer->m[1] = -INFINITY;
    struct attention_handover *keys = &consumer->barriers->keys[consumer->keys.index];
    mbarrier_wait(&keys->full, consumer->keys.phase);
    wgmma_fence();
    attention_start_scores<FORM>(state, consumer->keys.index, s);
    wgmma_wait<0>();
    wgmma_hold(attention_flat(s));
    attention_release(keys);
    attention_advance<FORM>(&consumer->keys);
    attention_await_values<FORM>(consumer);
    uint32_t tile = piece.tile, last = piece.tile_end - 1;
    attention_wide_softmax<FORM>(args, piece, state, consumer, tile, s, decay);
    attention_take_probabilities<FORM>(consumer, s);
#pragma unroll 1
    for (; tile < last; tile++)
        attention_wide_tile<FORM>(args, piece, &state, consumer, tile);
    struct attention_handover *values = &consumer->barriers->values[consumer->values.index];
    wgmma_fence();
    attention_start_values<FORM>(consumer, tile % FORM::SPLIT_TILES != 0 && tile != piece.tile);
    wgmma_wait<0>();
    wgmma_hold(consumer->d);
    attention_release(values);
    attention_advance<FORM>(&consumer->values);
    attention_change_split<FORM>(&state, consumer);
    attention_finish_split<FORM>(args, piece, consumer->d, &state, tile / FORM::SPLIT_TILES, true);
    if ((piece.item.flags & ATTENTION_ITEM_PARTIAL) == 0)
        attention_write_out<FORM>(args, piece, &state);
}

/* A warpgroup that has no pairs of the piece. */
template <class FORM>
DEVICE void attention_pass_piece(const struct attention_piece &piece, attention_consumer<FORM> *consumer)
{
    warp_sync(); /* all lanes are done with the piece before */
    attention_release(&consumer->barriers->q);
#pragma unroll 1
    for (uint32_t tile = piece.tile; tile < piece.tile_end; tile++) {
        struct attention_handover *keys = &consumer->barriers->keys[consumer->keys.index];
        struct attention_handover *values = &consumer->barriers->values[consumer->values.index];
        mbarrier_wait(&keys->full, consumer->keys.phase);
        attention_release(keys);
        mbarrier_wait(&values->full, consumer->values.phase);
        attention_release(values);
        attention_advance<FORM>(&consumer->keys);
        attention_advance<FORM>(&consumer->values);
    }
}

/* A warpgroup that multiplies: all pieces of the block. */
template <class FORM>
DEVICE void attention_consume(const struct attention_tile_args &args, attention_barriers<FORM> *barriers,
                              uint32_t warp)
{
    attention_consumer<FORM> consumer = {};
    consumer.barriers = barriers;
    consumer.c = attention_logarithm<FORM>(args);
    for (uint32_t n = 0;; n++) {
        mbarrier_wait(&barriers->q.full, n & 1);
        const struct attention_piece &piece = *attention_piece_at<FORM>(n);
        if (piece.n_pairs == 0)
            return;
        if (warp / 4 * ATTENTION_WARPGROUP_PAIRS < piece.n_pairs)
            attention_wide_piece<FORM>(args, piece, &consumer);
        else
            attention_pass_piece<FORM>(piece, &consumer);
        if (piece.item.flags & ATTENTION_ITEM_PARTIAL)
            attention_arrive<FORM>(args, piece);
    }
}
