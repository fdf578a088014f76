/* Paged attention: a query on its way over the blocks, and how K and V are read; see rows_x86.h for how it is
 * included, with QUERY_TILE (queries that share a read of K and V) defined. */
#pragma once

#include "kernels/kernel_table.h"
#include "kernels/x86/attention_merge_x86.h"

enum { NO_CHUNK = UINT32_MAX };

/* A query on its way over the blocks. */
struct query_state {
    float *max, *sum; /* of the chunk, like o; those of all queries stand side by side */
    uint32_t chunk;   /* NO_CHUNK: none yet */
    bool has_total;   /* of the chunks before it */
    uint32_t t0, t1;  /* tokens of the block that it sees; t0 == t1: none */
    float *p;         /* [KV_BLOCK_TOKENS] probabilities of the block, not normalised, times scales of V */
    float *o;         /* [d_stride] */
    float total_max, total_sum;
    float *total; /* [d_stride] */
};

static inline __attribute__((always_inline)) vf load_kv(const void *kv, size_t index,
                                                        const enum kv_dtype DTYPE)
{
    return DTYPE == KV_F32    ? vf_load((const float *)kv + index)
           : DTYPE == KV_BF16 ? vf_load_bf16((const uint16_t *)kv + index)
                              : vi_to_float(vi_load_i8((const uint8_t *)kv + index));
}

/* Of the tokens of a block: of K, KV_BLOCK_TOKENS further of V. int8 only. */
static inline const uint16_t *kv_scales(const void *kv, size_t k0)
{
    return (const uint16_t *)((const uint8_t *)kv + k0 - kv_head_lead(KV_INT8));
}

/* Few queries wait for memory, and blocks are too short and too scattered for the processor to see them
 * coming: they ask for the next block as they read this one. ahead: from this block's elements to the next
 * one's, modulo 2^64. */
static inline __attribute__((always_inline)) void prefetch_kv(const struct attention_args *a, size_t index,
                                                              size_t ahead, const enum kv_dtype DTYPE)
{
    const size_t BYTES = DTYPE == KV_F32 ? sizeof(float) : DTYPE == KV_BF16 ? sizeof(uint16_t) : 1;
    const char *at = (const char *)a->kv + (index + ahead) * BYTES;
    if (a->ahead_is_near)
        _mm_prefetch(at, _MM_HINT_T0);
    else
        _mm_prefetch(at, _MM_HINT_T1);
}

static inline void decay_outputs(const struct query_state *state, float decay, size_t d_stride)
{
    vf decays = vf_set1(decay);
    for (size_t d = 0; d < d_stride; d += LANES)
        vf_store(state->o + d, vf_mul(vf_load(state->o + d), decays));
}

/* The largest of the tile sizes 1, 2, 4, 8 up to n. */
static inline uint32_t tile_of(uint32_t n)
{
    uint32_t tile = n >= 8 ? 8 : n >= 4 ? 4 : n >= 2 ? 2 : 1;
    return tile < QUERY_TILE ? tile : QUERY_TILE;
}

/* Blocks [first_block, end_block) of queries [begin, end), which the same table names. */
struct query_run {
    uint32_t begin, end, first_block, end_block;
    bool is_shared;
};
