/* Any bytes as config.json: an error, or numbers within their limits that rope and shapes can be made of. */
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include "base/assert.h"
#include "model/json_fields.h"
#include "model/model_config.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_config(const struct model_config *config)
{
    ASSERT(config->family);
    ASSERT(config->vocab_size >= 1 && config->vocab_size <= MODEL_VOCAB_MAX);
    ASSERT(config->hidden_size >= 1 && config->hidden_size <= MODEL_HIDDEN_MAX);
    ASSERT(config->intermediate_size >= 1 && config->intermediate_size <= MODEL_INTERMEDIATE_MAX);
    ASSERT(config->n_layers >= 1 && config->n_layers <= MODEL_LAYERS_MAX);
    ASSERT(config->n_heads >= 1 && config->n_heads <= MODEL_HEADS_MAX);
    ASSERT(config->n_kv_heads >= 1 && config->n_heads % config->n_kv_heads == 0);
    ASSERT(config->head_dim >= 2 && config->head_dim <= MODEL_HEAD_DIM_MAX && config->head_dim % 2 == 0);
    ASSERT(config->norm_eps > 0 && config->norm_eps <= 1);
    const struct quant_config *quantization = &config->quantization;
    ASSERT((quantization->method != NULL) == (quantization->storage != QUANT_STORED_PLAIN));
    ASSERT(quantization->storage == QUANT_STORED_PLAIN || quantization->format.bits == 4 ||
           quantization->format.bits == 8);
    ASSERT(quantization->format.group <= QUANT_GROUP_MAX && quantization->block_outputs <= QUANT_GROUP_MAX);
    ASSERT(!quant_config_covers(quantization, config->names, -1, config->names->embedding));
    float inv_freq[MODEL_HEAD_DIM_MAX / 2];
    rope_frequencies(&config->rope, config->head_dim, inv_freq);
    for (uint32_t i = 0; i < config->head_dim / 2; i++)
        ASSERT(isfinite(inv_freq[i]) && inv_freq[i] >= 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    json_t *root;
    err_t e = json_object_parse("config.json", (const char *)data, size, &root);
    if (e.code == ERR_OK) {
        struct model_config config;
        e = model_config_parse("config.json", root, &config);
        json_decref(root);
        if (e.code == ERR_OK)
            check_config(&config);
    }
    ASSERT(e.code == ERR_OK || (e.message[0] != '\0' && strlen(e.message) < ERR_MESSAGE_MAX));
    return 0;
}
