/* What answered, as two numbers: the same weights and the same arithmetic give the same ones anywhere. */
#pragma once

#include <stdint.h>
#include "base/error.h"
#include "kernels/kernels.h"
#include "model/checkpoint.h"
#include "model/model.h"
#include "model/model_config.h"
#include "model/weights.h"

/* Over config.json, and name, dtype, shape and samples of the bytes of every tensor that is used;
 * checkpoint NULL: over config.json and the seed. */
err_t fingerprint_weights(const struct model_config *config, const struct checkpoint *checkpoint,
                          uint64_t dummy_seed, uint64_t *out) ERR_MUST_CHECK;
uint64_t fingerprint_arithmetic(enum model_dtype dtype, enum model_quantization quantization, uint32_t group,
                                enum kv_dtype kv_dtype, uint32_t n_ranks, const struct backend *backend);
