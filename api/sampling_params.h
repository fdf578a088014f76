/* Sampling parameters with vLLM's names and meanings. Every scalar may be unset; what is unset comes from the
 * model's generation_config.json, and else from the built-in default (sampling_params_resolve). Order in
 * which they act: allowed ids, bad words, min_tokens, logit_bias, penalties (repetition: prompt and output;
 * presence, frequency: output only), temperature, min_p, top_k, top_p, draw. Plain data; pointers are
 * borrowed. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum sampling_field {
    SAMPLING_TEMPERATURE = 1u << 0,
    SAMPLING_TOP_P = 1u << 1,
    SAMPLING_TOP_K = 1u << 2,
    SAMPLING_MIN_P = 1u << 3,
    SAMPLING_REPETITION_PENALTY = 1u << 4,
    SAMPLING_PRESENCE_PENALTY = 1u << 5,
    SAMPLING_FREQUENCY_PENALTY = 1u << 6,
    SAMPLING_SEED = 1u << 7,
    SAMPLING_MAX_TOKENS = 1u << 8,
    SAMPLING_MIN_TOKENS = 1u << 9,
    SAMPLING_N = 1u << 10,
    SAMPLING_IGNORE_EOS = 1u << 11,
    SAMPLING_LOGPROBS = 1u << 12,
    SAMPLING_PROMPT_LOGPROBS = 1u << 13,
    SAMPLING_SKIP_SPECIAL_TOKENS = 1u << 14,
    SAMPLING_INCLUDE_STOP = 1u << 15,
    SAMPLING_SPACES_BETWEEN_SPECIAL_TOKENS = 1u << 16,
    SAMPLING_TRUNCATE_PROMPT_TOKENS = 1u << 17,
};

/* Limits of one request; the validator refuses what is beyond them. */
enum {
    SAMPLING_N_MAX = 64,
    SAMPLING_LOGPROBS_MAX = 20,
    SAMPLING_STOP_MAX = 16,             /* stop strings */
    SAMPLING_STOP_BYTES_MAX = 256,      /* of one stop string or bad word */
    SAMPLING_STOP_IDS_MAX = 64,         /* stop token ids */
    SAMPLING_LOGIT_BIAS_MAX = 1024,     /* entries */
    SAMPLING_ALLOWED_IDS_MAX = 1 << 18, /* entries */
    SAMPLING_BAD_WORDS_MAX = 128,       /* words */
    SAMPLING_BAD_WORD_TOKENS_MAX = 64,  /* token ids of one bad word */
};

/* Of truncate_prompt_tokens. */
enum {
    SAMPLING_TRUNCATE_NOTHING = 0,
    SAMPLING_TRUNCATE_TO_FIT = -1, /* what the model's length leaves beside max_tokens */
};

/* A smaller repetition penalty would turn ordinary logits into infinities. */
#define SAMPLING_REPETITION_PENALTY_MIN 0.01f
#define SAMPLING_REPETITION_PENALTY_MAX 100.0f

struct logit_bias {
    uint32_t token_id;
    float bias; /* added to the logit, [-100, 100] */
};

struct sampling_params {
    uint32_t set;             /* bits of enum sampling_field: which scalars below were given */
    float temperature;        /* >= 0; below 1e-5 means greedy */
    float top_p;              /* (0, 1] */
    float min_p;              /* [0, 1] */
    int32_t top_k;            /* -1 or 0 = off, else >= 1 */
    float repetition_penalty; /* [SAMPLING_REPETITION_PENALTY_MIN, _MAX], 1 = off */
    float presence_penalty;   /* [-2, 2] */
    float frequency_penalty;  /* [-2, 2] */
    uint64_t seed;
    uint32_t max_tokens; /* >= 1 output tokens; 0 = up to the model's length */
    uint32_t min_tokens;
    uint32_t n;       /* choices, 1..SAMPLING_N_MAX */
    int32_t logprobs; /* -1 = none, else 0..SAMPLING_LOGPROBS_MAX alternatives besides the chosen token */
    int32_t prompt_logprobs; /* likewise */
    bool ignore_eos;
    bool skip_special_tokens;
    bool include_stop_str_in_output;
    bool
        spaces_between_special_tokens; /* in text, where the tokenizer's decoder puts spaces between tokens */
    int32_t truncate_prompt_tokens; /* only so many of the prompt's last tokens count; SAMPLING_TRUNCATE_* */

    const char *const *stop; /* [n_stop] NUL-terminated, not empty */
    size_t n_stop;
    const uint32_t *stop_token_ids; /* [n_stop_token_ids] */
    size_t n_stop_token_ids;
    const struct logit_bias *logit_bias; /* [n_logit_bias] */
    size_t n_logit_bias;
    const uint32_t *allowed_token_ids; /* [n_allowed_token_ids]; none = every token */
    size_t n_allowed_token_ids;
    const char *const *bad_words; /* [n_bad_words] NUL-terminated */
    size_t n_bad_words;
};

/* The built-in defaults with every field set: temperature 1, top_p 1, top_k off, max_tokens 16, n 1, no
 * logprobs, special tokens skipped, prompts whole. seed stays unset: admission draws one. */
struct sampling_params sampling_params_builtin(void);

/* Fills what `params` leaves unset from `model_defaults` (its set fields only; may be NULL), then from the
 * built-in defaults. Lists are left alone. */
void sampling_params_resolve(struct sampling_params *params, const struct sampling_params *model_defaults);
