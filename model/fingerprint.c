#include "model/fingerprint.h"

#include <stdio.h>
#include <string.h>
#include "base/hash.h"
#include "model/memory_plan.h"

enum {
    SAMPLE_BYTES = 4096,
    SAMPLES_MAX = 8, /* of a tensor, evenly spread, its first and last bytes included */
};

static err_t hash_samples(const struct checkpoint *checkpoint, const struct checkpoint_tensor *tensor,
                          uint64_t *hash)
{
    uint8_t sample[SAMPLE_BYTES];
    uint64_t size = tensor->info->end - tensor->info->begin;
    uint64_t n_samples = (size + SAMPLE_BYTES - 1) / SAMPLE_BYTES;
    n_samples = n_samples < SAMPLES_MAX ? n_samples : SAMPLES_MAX;
    for (uint64_t i = 0; i < n_samples; i++) {
        size_t n = size < SAMPLE_BYTES ? (size_t)size : SAMPLE_BYTES;
        uint64_t first = n_samples > 1 ? (size - n) / (n_samples - 1) * i : 0;
        if (i > 0 && i == n_samples - 1)
            first = size - n;
        TRY(checkpoint_read_bytes(checkpoint, tensor, first, n, sample));
        *hash = hash64(sample, n, *hash);
    }
    return err_ok();
}

err_t fingerprint_weights(const struct model_config *config, const struct checkpoint *checkpoint,
                          uint64_t dummy_seed, uint64_t *out)
{
    uint64_t hash = config->fingerprint;
    if (!checkpoint) {
        *out = hash64(&dummy_seed, sizeof dummy_seed, hash);
        return err_ok();
    }
    for (size_t i = 0; i < checkpoint_count(checkpoint); i++) {
        const struct checkpoint_tensor *tensor = checkpoint_at(checkpoint, i);
        if (!tensor->used)
            continue;
        const struct tensor_info *info = tensor->info;
        const char *dtype = tensor_dtype_name(info->dtype);
        hash = hash64(info->name, strlen(info->name), hash);
        hash = hash64(dtype, strlen(dtype), hash);
        hash = hash64(info->shape, info->n_dims * sizeof info->shape[0], hash);
        TRY(hash_samples(checkpoint, tensor, &hash));
    }
    *out = hash;
    return err_ok();
}

uint64_t fingerprint_arithmetic(enum model_dtype dtype, enum model_quantization quantization, uint32_t group,
                                enum kv_dtype kv_dtype, uint32_t n_ranks, const struct backend *backend)
{
    char text[256];
    int n = snprintf(text, sizeof text, "dtype %d quantization %d group %d kv %d ranks %u backend %s",
                     (int)dtype, (int)quantization, (int)group, (int)kv_dtype, n_ranks,
                     backend->vtable->arithmetic(backend));
    return hash64(text, n < (int)sizeof text ? (size_t)n : sizeof text - 1, 0);
}
