#include "model/shard.h"

#include "base/assert.h"

static err_t check_divides(uint32_t n_ranks, uint32_t n, const char *what)
{
    if (n % n_ranks == 0)
        return err_ok();
    return err_new(ERR_INVALID_ARGUMENT, "--tensor-parallel-size %u does not divide the model's %u %s",
                   n_ranks, n, what);
}

static err_t split_kv_heads(const struct model_config *config, struct shard *shard)
{
    uint32_t n = shard->n_ranks, kv = config->n_kv_heads;
    if (kv % n == 0) {
        shard->n_kv_heads = kv / n;
        shard->first_kv_head = shard->rank * shard->n_kv_heads;
        return err_ok();
    }
    if (n % kv != 0)
        return err_new(ERR_INVALID_ARGUMENT,
                       "--tensor-parallel-size %u neither divides nor is a multiple of the model's %u "
                       "key-value heads",
                       n, kv);
    shard->n_kv_heads = 1;
    shard->first_kv_head = shard->rank / (n / kv);
    return err_ok();
}

err_t shard_make(const struct model_config *config, uint32_t n_ranks, uint32_t rank, struct shard *out)
{
    ASSERT(rank < n_ranks);
    if (n_ranks > MODEL_RANKS_MAX)
        return err_new(ERR_INVALID_ARGUMENT, "--tensor-parallel-size %u exceeds the limit of %d", n_ranks,
                       MODEL_RANKS_MAX);
    *out = (struct shard){.rank = rank, .n_ranks = n_ranks};
    TRY(check_divides(n_ranks, config->n_heads, "attention heads"));
    TRY(check_divides(n_ranks, config->intermediate_size, "values of the MLP"));
    TRY(split_kv_heads(config, out));
    out->n_heads = config->n_heads / n_ranks;
    out->first_head = rank * out->n_heads;
    out->mlp_width = config->intermediate_size / n_ranks;
    out->first_mlp = rank * out->mlp_width;
    out->tokens_per_rank = (config->vocab_size + n_ranks - 1) / n_ranks;
    out->first_token = rank * out->tokens_per_rank;
    if (out->first_token >= config->vocab_size)
        return err_new(ERR_INVALID_ARGUMENT, "--tensor-parallel-size %u is too large for a vocabulary of %u",
                       n_ranks, config->vocab_size);
    uint32_t left = config->vocab_size - out->first_token;
    out->n_tokens = left < out->tokens_per_rank ? left : out->tokens_per_rank;
    return err_ok();
}

struct model_config shard_config(const struct model_config *config, const struct shard *shard)
{
    struct model_config part = *config;
    part.n_heads = shard->n_heads;
    part.n_kv_heads = shard->n_kv_heads;
    part.intermediate_size = shard->mlp_width;
    return part;
}
