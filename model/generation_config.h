/* generation_config.json: a model's own sampling defaults, and the tokens that end its answers. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "base/error.h"

enum { GENERATION_EOS_MAX = 16 };

/* What the file leaves out is unset. do_sample = false reads as temperature 0 unless the file gives a
 * temperature that it means. */
struct generation_config {
    bool has_temperature, has_top_p, has_top_k, has_min_p, has_repetition_penalty, has_max_new_tokens;
    float temperature, top_p, min_p, repetition_penalty;
    int32_t top_k;
    uint32_t max_new_tokens;
    uint32_t eos_token_ids[GENERATION_EOS_MAX]; /* from generation_config.json, else config.json */
    size_t n_eos_token_ids;
    int64_t bos_token_id, pad_token_id; /* -1 = none */
};

/* Reads PATH/generation_config.json where it exists (values of the wrong kind or range are an error that
 * names the field), ids below vocab_size; config.json's eos_token_id and bos_token_id fill what it leaves
 * out. PATH may be a GGUF file: bos, eos, pad, and the ends of a turn, from its metadata. */
err_t generation_config_load(const char *path, uint32_t vocab_size,
                             struct generation_config *out) ERR_MUST_CHECK;
