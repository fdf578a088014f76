/* What a GGUF file's metadata says of a model: the same as config.json and generation_config.json. Keys: the
 * ggml project's docs/gguf.md. */
#pragma once

#include "base/error.h"
#include "base/gguf.h"
#include "model/generation_config.h"
#include "model/model_config.h"

/* The tensor that divides the frequencies of the rotation, F32 [head_dim / 2]. */
#define GGUF_ROPE_DIVISORS "rope_freqs.weight"

/* gguf_open's errors; INVALID_ARGUMENT for a value that is missing, of another kind or outside its limits,
 * UNIMPLEMENTED for an architecture or a construct that is not known; messages name file and key. */
err_t gguf_config_load(const char *path, struct model_config *out) ERR_MUST_CHECK;
/* The same of an open file. */
err_t gguf_config_parse(const struct gguf *gguf, struct model_config *out) ERR_MUST_CHECK;
err_t gguf_generation_load(const char *path, uint32_t vocab_size,
                           struct generation_config *out) ERR_MUST_CHECK;
