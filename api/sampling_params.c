#include "api/sampling_params.h"

enum { DEFAULT_MAX_TOKENS = 16 };

struct sampling_params sampling_params_builtin(void)
{
    return (struct sampling_params){
        .set = SAMPLING_TEMPERATURE | SAMPLING_TOP_P | SAMPLING_TOP_K | SAMPLING_MIN_P |
               SAMPLING_REPETITION_PENALTY | SAMPLING_PRESENCE_PENALTY | SAMPLING_FREQUENCY_PENALTY |
               SAMPLING_MAX_TOKENS | SAMPLING_MIN_TOKENS | SAMPLING_N | SAMPLING_IGNORE_EOS |
               SAMPLING_LOGPROBS | SAMPLING_PROMPT_LOGPROBS | SAMPLING_SKIP_SPECIAL_TOKENS |
               SAMPLING_INCLUDE_STOP | SAMPLING_SPACES_BETWEEN_SPECIAL_TOKENS |
               SAMPLING_TRUNCATE_PROMPT_TOKENS,
        .temperature = 1.0f,
        .top_p = 1.0f,
        .repetition_penalty = 1.0f,
        .max_tokens = DEFAULT_MAX_TOKENS,
        .n = 1,
        .logprobs = -1,
        .prompt_logprobs = -1,
        .skip_special_tokens = true,
        .spaces_between_special_tokens = true,
        .truncate_prompt_tokens = SAMPLING_TRUNCATE_NOTHING,
    };
}

static void fill_unset(struct sampling_params *params, const struct sampling_params *from)
{
    uint32_t missing = from->set & ~params->set;
#define FILL(bit, field)                                                                                     \
    if (missing & (bit))                                                                                     \
    params->field = from->field
    FILL(SAMPLING_TEMPERATURE, temperature);
    FILL(SAMPLING_TOP_P, top_p);
    FILL(SAMPLING_TOP_K, top_k);
    FILL(SAMPLING_MIN_P, min_p);
    FILL(SAMPLING_REPETITION_PENALTY, repetition_penalty);
    FILL(SAMPLING_PRESENCE_PENALTY, presence_penalty);
    FILL(SAMPLING_FREQUENCY_PENALTY, frequency_penalty);
    FILL(SAMPLING_SEED, seed);
    FILL(SAMPLING_MAX_TOKENS, max_tokens);
    FILL(SAMPLING_MIN_TOKENS, min_tokens);
    FILL(SAMPLING_N, n);
    FILL(SAMPLING_IGNORE_EOS, ignore_eos);
    FILL(SAMPLING_LOGPROBS, logprobs);
    FILL(SAMPLING_PROMPT_LOGPROBS, prompt_logprobs);
    FILL(SAMPLING_SKIP_SPECIAL_TOKENS, skip_special_tokens);
    FILL(SAMPLING_INCLUDE_STOP, include_stop_str_in_output);
    FILL(SAMPLING_SPACES_BETWEEN_SPECIAL_TOKENS, spaces_between_special_tokens);
    FILL(SAMPLING_TRUNCATE_PROMPT_TOKENS, truncate_prompt_tokens);
#undef FILL
    params->set |= missing;
}

void sampling_params_resolve(struct sampling_params *params, const struct sampling_params *model_defaults)
{
    if (model_defaults)
        fill_unset(params, model_defaults);
    struct sampling_params builtin = sampling_params_builtin();
    fill_unset(params, &builtin);
}
