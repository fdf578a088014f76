/* Every sampling parameter as a flag, for the commands that generate. */
#pragma once

#include "api/sampling_params.h"
#include "base/flags.h"

enum { SAMPLING_FLAGS_MAX = 32, SAMPLING_FLAG_IDS_MAX = 4096 };

struct sampling_flag_values {
    double temperature, top_p, min_p, repetition_penalty, presence_penalty, frequency_penalty;
    int64_t top_k, seed, max_tokens, min_tokens, n, logprobs, prompt_logprobs;
    bool ignore_eos, skip_special_tokens, include_stop_str_in_output;
    bool is_set[16]; /* by bit number of enum sampling_field */
    struct flag_list stop, stop_token_ids, allowed_token_ids, logit_bias, bad_words;
    /* Storage that the filled sampling_params point to. */
    uint32_t stop_ids[SAMPLING_STOP_IDS_MAX], allowed_ids[SAMPLING_FLAG_IDS_MAX];
    struct logit_bias bias[FLAG_LIST_MAX];
};

size_t sampling_flags_fill(struct sampling_flag_values *values, struct flag *flags);
/* The same but for what one answer in a terminal cannot show: --n, --logprobs, --prompt-logprobs. */
size_t sampling_flags_fill_chat(struct sampling_flag_values *values, struct flag *flags);
/* Parsed values -> parameters with exactly the given fields set; lists point into *values. INVALID_ARGUMENT
 * names the flag. */
err_t sampling_flags_params(struct sampling_flag_values *values, struct sampling_params *out) ERR_MUST_CHECK;

/* "1,2,3" -> ids; name is for messages. *n is how many there are already. */
err_t parse_token_ids(const char *name, const char *text, uint32_t *ids, size_t max,
                      size_t *n) ERR_MUST_CHECK;
