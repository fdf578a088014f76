/* What the sampling op needs to know of a sequence. Order of transformations on the f32 logits (that of
 * vLLM): raw logprobs, allowed ids, bad words, min_tokens, logit_bias, penalties (repetition over prompt and
 * output; presence and frequency over output), temperature, min_p, top_k, top_p, draw. Greedy when
 * temperature < SAMPLER_GREEDY_BELOW. The draw is Gumbel-max: argmax of logit / temperature - log(-log(u_i)),
 * u_i from Philox4x32-10 with a key made of (seed, choice index) and the counter (position, purpose,
 * vocabulary lane); position = index in the sequence of the token drawn. So a draw depends on nothing else in
 * the batch, and a recomputed sequence draws the same tokens again. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define SAMPLER_GREEDY_BELOW 1e-5f

/* Of the counter: what the draw is for. */
enum { SAMPLER_PURPOSE_DRAW = 0 };

struct sampler_bias {
    uint32_t token_id;
    float bias;
};

struct sampler_word { /* a bad word: its last token is forbidden where the others precede it */
    const uint32_t *token_ids;
    size_t n_token_ids;
};

/* Lists are borrowed until the slot is set again or cleared. */
struct sampler_params {
    float temperature, top_p, min_p;                               /* top_p 1 and min_p 0 = off */
    uint32_t top_k;                                                /* 0 = off */
    float repetition_penalty, presence_penalty, frequency_penalty; /* 1, 0, 0 = off */
    uint64_t seed;
    uint32_t choice_index;
    uint32_t min_tokens;      /* while fewer outputs than this: stop_ids are masked */
    const uint32_t *stop_ids; /* [n_stop_ids]: EOS and stop token ids */
    size_t n_stop_ids;
    const struct sampler_bias *bias; /* [n_bias] */
    size_t n_bias;
    const uint32_t *allowed_ids; /* [n_allowed_ids], ascending and unique; n 0 = all */
    size_t n_allowed_ids;
    const struct sampler_word *bad_words; /* [n_bad_words] */
    size_t n_bad_words;
};

/* The sampling state of one slot, as the host sees it when it fills the slot. */
struct sampler_history {
    const uint32_t *prompt_ids; /* [n_prompt] copied */
    size_t n_prompt;
    const uint32_t
        *output_ids; /* [n_output] copied: tokens already drawn (a preempted or handed-over request) */
    size_t n_output;
};
