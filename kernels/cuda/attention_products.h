/* Attention of one tile of 64 keys by a warp: scores, softmax, the product with the values. Included by
 * the attention kernels alone. */
#pragma once

#include "kernels/cuda/attention_tile.h"

/* Four e4m3 codes to bf16: even codes 0 and 2, odd codes 1 and 3, times 2^-120: exponent and mantissa at the
 * lowest of their places. A NaN's code (0x7f) becomes 480: the row that wrote it is not finite itself. */
DEVICE void attention_split_e4m3(uint32_t codes, uint32_t *even, uint32_t *odd)
{
    const uint32_t magnitudes = 0x07f007f0u;
    uint32_t signs = select_bits(0x80808080u, codes, 0); /* of all four: a select needs no other mask */
    *even = select_bits(magnitudes, codes << 4, signs << 8);
    *odd = select_bits(magnitudes, codes >> 4, signs);
}

/* Where the lane's row of a load of 16 keys begins: matrices are keys 0..7 by pieces 2 i and 2 i + 1, then
 * keys 8..15. */
template <class FORM> DEVICE const uint8_t *attention_key_row(const uint8_t *keys)
{
    uint32_t lane = lane_id();
    return keys + ((lane & 7) + (lane >> 4) * 8) * FORM::KV_PIECES * 16;
}

/* Scores of the warp's 16 rows by 16 N keys. row: attention_key_row of them. */
template <class FORM, uint32_t N>
DEVICE void attention_scores_keys(const attention_state<FORM> *state, const uint8_t *row, float (*s)[4])
{
    uint32_t lane = lane_id(), odd_piece = lane >> 3 & 1,
             swizzle = cuda_kv_swizzle(FORM::KV_PIECES, lane & 7);
#pragma unroll
    for (uint32_t j = 0; j < 2 * N; j++)
        s[j][0] = s[j][1] = s[j][2] = s[j][3] = 0.0f;
#pragma unroll
    for (uint32_t i = 0; i < FORM::KV_PIECES / 2; i++) {
        const uint8_t *at = row + ((2 * i + odd_piece) ^ swizzle) * 16;
#pragma unroll
        for (uint32_t j = 0; j < 2 * N; j += 2) {
            uint32_t b[4];
            ldmatrix_x4(b, at + j * 8 * FORM::KV_PIECES * 16);
            if constexpr (FORM::KV_BYTES == 2) {
                mma_bf16_16816(s[j], state->q[i], b);
                mma_bf16_16816(s[j + 1], state->q[i], b + 2);
            } else {
#pragma unroll
                for (uint32_t n = 0; n < 4; n++) {
                    uint32_t pair[2];
                    attention_split_e4m3(b[n], &pair[0], &pair[1]);
                    mma_bf16_16816(s[j + n / 2], state->q[2 * i + n % 2], pair);
                }
            }
        }
    }
}

/* Scores of the warp's 16 rows by its keys of the tile. */
template <class FORM>
DEVICE void attention_scores(const attention_state<FORM> *state, const uint8_t *k_tile,
                             float s[FORM::KEY_TILES][4])
{
    uint32_t first_key = attention_warp<FORM>() % FORM::WARPS_N * (FORM::KEYS / FORM::WARPS_N);
    const uint8_t *row = attention_key_row<FORM>(k_tile + first_key * FORM::KV_PIECES * 16);
    attention_scores_keys<FORM, FORM::KEY_TILES / 2>(state, row, s);
}

/* Of q . k as the products have it: e4m3 keys are codes. */
template <class FORM> DEVICE float attention_scale(const struct attention_tile_args &args)
{
    return FORM::KV_BYTES == 1 ? args.scale * args.kv.k_scale * 0x1p20f : args.scale;
}

/* From the units of s after attention_cap and attention_mask to base-2 logarithms. */
template <class FORM> DEVICE float attention_logarithm(const struct attention_tile_args &args)
{
    return (args.soft_cap > 0.0f ? args.soft_cap : attention_scale<FORM>(args)) * 1.4426950408889634f;
}

/* s to what it is before the softmax, in units that the factor c of attention_softmax makes base-2 logarithms
 * of. */
template <class FORM, uint32_t N>
DEVICE void attention_cap(const struct attention_tile_args &args, float s[N][4])
{
    if (args.soft_cap <= 0.0f)
        return;
    /* tanh x = 1 - 2 / (1 + e^2x); 2 log2(e) */
    float twice = attention_scale<FORM>(args) / args.soft_cap * 2.8853900817779268f;
#pragma unroll
    for (uint32_t j = 0; j < N; j++) {
#pragma unroll
        for (uint32_t c = 0; c < 4; c++)
            s[j][c] = 1.0f - 2.0f * fast_rcp(1.0f + fast_exp2(s[j][c] * twice));
    }
}

/* Of a tile of which some row does not see some key. first_key: of the tile. */
template <class FORM>
DEVICE void attention_mask(const attention_state<FORM> *state, uint32_t first_key,
                           float s[FORM::KEY_TILES][4])
{
    uint32_t key = first_key + attention_warp<FORM>() % FORM::WARPS_N * (FORM::KEYS / FORM::WARPS_N) +
                   2 * (lane_id() & 3);
#pragma unroll
    for (uint32_t j = 0; j < FORM::KEY_TILES; j++) {
#pragma unroll
        for (uint32_t c = 0; c < 4; c++) {
            bool seen = key + 8 * j + (c & 1) - state->first[c / 2] < state->n_seen[c / 2];
            s[j][c] = seen ? s[j][c] : -INFINITY;
        }
    }
}

/* The greatest of each of the warp's rows over all keys of the tile. */
template <class FORM> DEVICE void attention_row_max(const float s[FORM::KEY_TILES][4], float max[2])
{
#pragma unroll
    for (uint32_t h = 0; h < 2; h++) {
        max[h] = s[0][2 * h];
#pragma unroll
        for (uint32_t j = 0; j < FORM::KEY_TILES; j++)
            max[h] = fmaxf(max[h], fmaxf(s[j][2 * h], s[j][2 * h + 1]));
        max[h] = fmaxf(max[h], shuffle_xor(max[h], 1));
        max[h] = fmaxf(max[h], shuffle_xor(max[h], 2));
    }
    if constexpr (FORM::WARPS_N > 1) {
        float *maxima = (float *)(attention_shared<FORM>() + FORM::MAX_AT); /* [ROWS][WARPS_N] */
        uint32_t row = attention_warp<FORM>() / FORM::WARPS_N * 16 + lane_id() / 4;
        if ((lane_id() & 3) == 0) {
            maxima[row * FORM::WARPS_N + attention_warp<FORM>() % FORM::WARPS_N] = max[0];
            maxima[(row + 8) * FORM::WARPS_N + attention_warp<FORM>() % FORM::WARPS_N] = max[1];
        }
        attention_sync<FORM>();
#pragma unroll
        for (uint32_t h = 0; h < 2; h++) {
#pragma unroll
            for (uint32_t w = 0; w < FORM::WARPS_N; w++)
                max[h] = fmaxf(max[h], maxima[(row + 8 * h) * FORM::WARPS_N + w]);
        }
    }
}

/* Probabilities beside e4m3 values, which stand 2^120 too low: 2^100 higher, so that no sum is too small. */
template <class FORM> DEVICE float attention_raise(float p)
{
    return FORM::KV_BYTES == 1 ? p * 0x1p100f : p;
}

/* The new maxima, m; s becomes probabilities; decay: what brings the sums so far to the new maxima. c > 0:
 * from the units of s. */
template <class FORM>
DEVICE void attention_probabilities(float c, float m[2], float s[FORM::KEY_TILES][4], float decay[2])
{
    float max[2], base[2];
    attention_row_max<FORM>(s, max);
#pragma unroll
    for (uint32_t h = 0; h < 2; h++) {
        max[h] = fmaxf(m[h], max[h] * c);
        base[h] = max[h] == -INFINITY ? 0.0f : max[h]; /* nothing seen yet: probabilities of 0, not NaN */
        decay[h] = fast_exp2(m[h] - base[h]);
        m[h] = max[h];
    }
#pragma unroll
    for (uint32_t j = 0; j < FORM::KEY_TILES; j++) {
#pragma unroll
        for (uint32_t i = 0; i < 4; i++)
            s[j][i] = attention_raise<FORM>(fast_exp2(fmaf(s[j][i], c, -base[i / 2])));
    }
}

/* The same, and the sums so far are brought to the new maxima. */
template <class FORM>
DEVICE void attention_softmax(attention_state<FORM> *state, float c, float s[FORM::KEY_TILES][4])
{
    float decay[2];
    attention_probabilities<FORM>(c, state->m, s, decay);
    if (!any_lane(decay[0] != 1.0f || decay[1] != 1.0f))
        return; /* times 1 */
#pragma unroll
    for (uint32_t i = 0; i < 4; i++) {
        state->l[i] *= decay[i / 2];
#pragma unroll
        for (uint32_t j = 0; j < FORM::VALUE_TILES; j++)
            state->o[j][i] *= decay[i / 2];
    }
}

/* Probabilities [ROWS][KEYS] bf16 in shared memory, where several warps share rows. */
DEVICE uint32_t attention_p_offset(uint32_t row, uint32_t piece)
{
    return (row * (ATTENTION_TILE_KEYS / 8) + (piece ^ (row & 7))) * 16;
}

template <class FORM> DEVICE void attention_write_p(const float s[FORM::KEY_TILES][4])
{
    uint8_t *p = attention_shared<FORM>() + FORM::P_AT + (lane_id() & 3) * 4;
    uint32_t row = attention_warp<FORM>() / FORM::WARPS_N * 16 + lane_id() / 4;
    uint32_t first_piece = attention_warp<FORM>() % FORM::WARPS_N * FORM::KEY_TILES;
#pragma unroll
    for (uint32_t j = 0; j < FORM::KEY_TILES; j++) {
        *(uint32_t *)(p + attention_p_offset(row, first_piece + j)) = to_bf16x2(s[j][0], s[j][1]);
        *(uint32_t *)(p + attention_p_offset(row + 8, first_piece + j)) = to_bf16x2(s[j][2], s[j][3]);
    }
}

/* Probabilities of 16 keys as operand A. */
template <class FORM>
DEVICE void attention_read_p(uint32_t step, const float s[FORM::KEY_TILES][4], uint32_t a[4])
{
    if constexpr (FORM::WARPS_N > 1) {
        uint32_t row = attention_warp<FORM>() / FORM::WARPS_N * 16 + (lane_id() & 15);
        ldmatrix_x4(a, attention_shared<FORM>() + FORM::P_AT +
                           attention_p_offset(row, 2 * step + (lane_id() >> 4)));
    } else {
        a[0] = to_bf16x2(s[2 * step][0], s[2 * step][1]);
        a[1] = to_bf16x2(s[2 * step][2], s[2 * step][3]);
        a[2] = to_bf16x2(s[2 * step + 1][0], s[2 * step + 1][1]);
        a[3] = to_bf16x2(s[2 * step + 1][2], s[2 * step + 1][3]);
    }
}

/* o: of the elements of one piece of values (bf16: 8, e4m3: 16); b: its keys 0..7 and 8..15, transposed. */
template <uint32_t KV_BYTES>
DEVICE void attention_add_value_piece(float (*o)[4], const uint32_t a[4], const uint32_t b[2])
{
    if constexpr (KV_BYTES == 2) {
        mma_bf16_16816(o[0], a, b);
    } else { /* a register holds elements 2 n, 2 n + 1 of one key, then of the next */
        uint32_t even[2], odd[2];
        attention_split_e4m3(b[0], &even[0], &odd[0]);
        attention_split_e4m3(b[1], &even[1], &odd[1]);
        mma_bf16_16816(o[0], a, even);
        mma_bf16_16816(o[1], a, odd);
    }
}

/* (l, o) += p . (1, v) for 16 keys: p as operand A, block: the keys' values; the warp's elements of them. */
template <class FORM>
DEVICE void attention_add_values_16(attention_state<FORM> *state, const uint32_t p[4], const uint8_t *block)
{
    constexpr uint32_t PIECE_TILES = FORM::VALUE_TILES / FORM::VALUE_PIECES;
    const uint32_t ones[2] = {0x3f803f80u, 0x3f803f80u};
    uint32_t lane = lane_id(), first_piece = attention_warp<FORM>() % FORM::WARPS_N * FORM::VALUE_PIECES;
    /* Matrices of a load: keys 0..7 and 8..15 of a piece, then of the next piece. */
    const uint8_t *row = block + (lane & 15) * FORM::KV_PIECES * 16;
    uint32_t swizzle = cuda_kv_swizzle(FORM::KV_PIECES, lane & 7);
    mma_bf16_16816(state->l, p, ones);
#pragma unroll
    for (uint32_t j = 0; j + 1 < FORM::VALUE_PIECES; j += 2) {
        uint32_t b[4];
        ldmatrix_x4_trans(b, row + ((first_piece + j + (lane >> 4)) ^ swizzle) * 16);
        attention_add_value_piece<FORM::KV_BYTES>(state->o + j * PIECE_TILES, p, b);
        attention_add_value_piece<FORM::KV_BYTES>(state->o + (j + 1) * PIECE_TILES, p, b + 2);
    }
    if constexpr (FORM::VALUE_PIECES % 2 != 0) {
        uint32_t b[2];
        ldmatrix_x2_trans(b, row + ((first_piece + FORM::VALUE_PIECES - 1) ^ swizzle) * 16);
        attention_add_value_piece<FORM::KV_BYTES>(state->o + (FORM::VALUE_PIECES - 1) * PIECE_TILES, p, b);
    }
}

/* The same for the tile's keys. */
template <class FORM>
DEVICE void attention_add_values(attention_state<FORM> *state, const uint8_t *v_tile,
                                 const float s[FORM::KEY_TILES][4])
{
#pragma unroll
    for (uint32_t step = 0; step < FORM::TILE_BLOCKS; step++) {
        uint32_t p[4];
        attention_read_p<FORM>(step, s, p);
        attention_add_values_16<FORM>(state, p, v_tile + step * FORM::BLOCK_BYTES);
    }
}
