/* What writes a new token's keys and values: the kernel of its own and the attention of few rows, with the
 * same bits. Included by .cu files alone. */
#pragma once

#include "kernels/cuda/device_rows.h"

/* Where a head of a new token goes. */
struct kv_place {
    uint8_t *tile;
    uint32_t row_pieces, token;
};

DEVICE uint8_t *kv_element(struct kv_place place, uint32_t element_bytes, uint32_t i)
{
    return place.tile + cuda_kv_element_offset(place.row_pieces, element_bytes, place.token, i);
}

DEVICE void kv_store(const struct cuda_kv_cache *kv, struct kv_place place, uint32_t i, float value,
                     float scale)
{
    uint8_t *at = kv_element(place, kv->element_bytes, i);
    if (kv->element_bytes == 4)
        *(float *)at = value;
    else if (kv->element_bytes == 2)
        *(uint16_t *)at = to_bf16(value);
    else
        *at = to_e4m3(value / scale);
}

/* Four neighbours, aligned to their size together; codes: of the values divided by scale. */
DEVICE void kv_store_4(uint32_t element_bytes, uint8_t *at, const float values[4], float scale)
{
    if (element_bytes == 4) {
        act_store_4((float *)at, values);
    } else if (element_bytes == 2) {
        act_store_4((uint16_t *)at, values);
    } else {
        float x[4];
#pragma unroll
        for (uint32_t e = 0; e < 4; e++)
            x[e] = scale != 1.0f ? values[e] / scale : values[e];
        *(uint32_t *)at = (uint32_t)to_e4m3x2(x[0], x[1]) | (uint32_t)to_e4m3x2(x[2], x[3]) << 16;
    }
}

DEVICE struct kv_place kv_find(const struct cuda_step *step, const struct cuda_kv_cache &kv,
                               struct step_row row, uint32_t kv_head, enum cuda_kv_part part)
{
    const uint32_t *table = step->block_tables[kv.group] + (size_t)row.seq * step->blocks_per_seq;
    uint32_t block = table[row.position / CUDA_KV_BLOCK_TOKENS];
    if (block >= kv.n_blocks)
        trap();
    uint32_t tile_bytes = cuda_kv_tile_bytes(kv.head_dim, kv.element_bytes);
    struct kv_place place;
    place.tile = kv.blocks + cuda_kv_tile_offset(kv.n_kv_heads, tile_bytes, block, kv_head, part);
    place.row_pieces = cuda_kv_row_pieces(kv.head_dim, kv.element_bytes);
    place.token = row.position % CUDA_KV_BLOCK_TOKENS;
    return place;
}

/* Four pairs of a head, turned. */
DEVICE void rope_turn_4(const float low[4], const float high[4], const float cosines[4], const float sines[4],
                        float x[4], float y[4])
{
#pragma unroll
    for (uint32_t e = 0; e < 4; e++) {
        x[e] = fmaf(-high[e], sines[e], low[e] * cosines[e]);
        y[e] = fmaf(low[e], sines[e], high[e] * cosines[e]);
    }
}
