/* Tensor parallelism: which part of every matrix one rank holds (Shoeybi et al., "Megatron-LM", 2019).
 *
 * Attention is split by heads and the MLP by its inner width: q, k, v, gate and up by rows, o and down by
 * columns, so that a layer needs two sums over the ranks. Embedding and LM head are split by tokens of the
 * vocabulary. Where there are fewer KV heads than ranks, several ranks hold the same KV head. */
#pragma once

#include <stdint.h>
#include "base/error.h"
#include "model/model_config.h"

enum { MODEL_RANKS_MAX = 8 };

struct shard {
    uint32_t rank, n_ranks;
    uint32_t first_head, n_heads;
    uint32_t first_kv_head, n_kv_heads;
    uint32_t first_mlp, mlp_width; /* of intermediate_size */
    uint32_t first_token;          /* of the vocabulary */
    uint32_t n_tokens;             /* rows of the embedding that this rank holds */
    uint32_t tokens_per_rank;      /* of every rank but the last ones, which may have fewer */
};

/* INVALID_ARGUMENT where n_ranks does not divide the heads or the MLP, or leaves a rank without tokens. */
err_t shard_make(const struct model_config *config, uint32_t n_ranks, uint32_t rank,
                 struct shard *out) ERR_MUST_CHECK;

/* The model as one rank sees it: its heads and its MLP width; vocabulary and hidden size whole. */
struct model_config shard_config(const struct model_config *config, const struct shard *shard);
