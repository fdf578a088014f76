#include "cli/sampling_flags.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include "base/assert.h"

static bool *set_bit(struct sampling_flag_values *v, uint32_t bit)
{
    return &v->is_set[__builtin_ctz(bit)];
}

size_t sampling_flags_fill(struct sampling_flag_values *v, struct flag *flags)
{
    const struct flag rows[] = {
        {.name = "temperature",
         .kind = FLAG_DOUBLE,
         .target = &v->temperature,
         .max = 100,
         .is_set = set_bit(v, SAMPLING_TEMPERATURE),
         .help = "randomness; 0 = always the likeliest token (default: the model's, else 1)"},
        {.name = "top-p",
         .kind = FLAG_DOUBLE,
         .target = &v->top_p,
         .max = 1,
         .is_set = set_bit(v, SAMPLING_TOP_P),
         .help = "draw from the likeliest tokens that make up this probability (default 1)"},
        {.name = "top-k",
         .kind = FLAG_INT,
         .target = &v->top_k,
         .min = -1,
         .max = 1 << 30,
         .is_set = set_bit(v, SAMPLING_TOP_K),
         .help = "draw from the K likeliest tokens; -1 = off (default)"},
        {.name = "min-p",
         .kind = FLAG_DOUBLE,
         .target = &v->min_p,
         .max = 1,
         .is_set = set_bit(v, SAMPLING_MIN_P),
         .help = "drop tokens less likely than this share of the best one (default 0)"},
        {.name = "repetition-penalty",
         .kind = FLAG_DOUBLE,
         .target = &v->repetition_penalty,
         .min = 0.01,
         .max = 100,
         .is_set = set_bit(v, SAMPLING_REPETITION_PENALTY),
         .help = "over prompt and output; 1 = off (default)"},
        {.name = "presence-penalty",
         .kind = FLAG_DOUBLE,
         .target = &v->presence_penalty,
         .min = -2,
         .max = 2,
         .is_set = set_bit(v, SAMPLING_PRESENCE_PENALTY),
         .help = "once per token already in the output (default 0)"},
        {.name = "frequency-penalty",
         .kind = FLAG_DOUBLE,
         .target = &v->frequency_penalty,
         .min = -2,
         .max = 2,
         .is_set = set_bit(v, SAMPLING_FREQUENCY_PENALTY),
         .help = "times the token's count in the output (default 0)"},
        {.name = "seed",
         .kind = FLAG_INT,
         .target = &v->seed,
         .max = 9e15,
         .is_set = set_bit(v, SAMPLING_SEED),
         .help = "same seed, same answer (default: drawn anew)"},
        {.name = "max-tokens",
         .kind = FLAG_INT,
         .target = &v->max_tokens,
         .max = 1 << 24,
         .is_set = set_bit(v, SAMPLING_MAX_TOKENS),
         .help = "longest answer; 0 = up to the model's length (default: the model's, else 16; messages: 0)"},
        {.name = "min-tokens",
         .kind = FLAG_INT,
         .target = &v->min_tokens,
         .max = 1 << 24,
         .is_set = set_bit(v, SAMPLING_MIN_TOKENS),
         .help = "no stop before this many tokens (default 0)"},
        {.name = "n",
         .kind = FLAG_INT,
         .target = &v->n,
         .min = 1,
         .max = SAMPLING_N_MAX,
         .is_set = set_bit(v, SAMPLING_N),
         .help = "answers per prompt (default 1)"},
        {.name = "ignore-eos",
         .kind = FLAG_BOOL,
         .target = &v->ignore_eos,
         .is_set = set_bit(v, SAMPLING_IGNORE_EOS),
         .help = "go on past the end of the answer (default: stop there)"},
        {.name = "logprobs",
         .kind = FLAG_INT,
         .target = &v->logprobs,
         .min = -1,
         .max = SAMPLING_LOGPROBS_MAX,
         .is_set = set_bit(v, SAMPLING_LOGPROBS),
         .help = "log probabilities of each token and of N alternatives (default: none)"},
        {.name = "prompt-logprobs",
         .kind = FLAG_INT,
         .target = &v->prompt_logprobs,
         .min = -1,
         .max = SAMPLING_LOGPROBS_MAX,
         .is_set = set_bit(v, SAMPLING_PROMPT_LOGPROBS),
         .help = "the same for the prompt's tokens (default: none)"},
        {.name = "skip-special-tokens",
         .kind = FLAG_BOOL,
         .target = &v->skip_special_tokens,
         .default_text = "true",
         .is_set = set_bit(v, SAMPLING_SKIP_SPECIAL_TOKENS),
         .help = "leave special tokens out of the text"},
        {.name = "include-stop-str-in-output",
         .kind = FLAG_BOOL,
         .target = &v->include_stop_str_in_output,
         .is_set = set_bit(v, SAMPLING_INCLUDE_STOP),
         .help = "keep the stop string in the text (default: cut it off)"},
        {.name = "stop",
         .kind = FLAG_LIST,
         .target = &v->stop,
         .metavar = "TEXT",
         .help = "end the answer before this text"},
        {.name = "stop-token-ids",
         .kind = FLAG_LIST,
         .target = &v->stop_token_ids,
         .metavar = "ID,...",
         .help = "end the answer at these tokens"},
        {.name = "allowed-token-ids",
         .kind = FLAG_LIST,
         .target = &v->allowed_token_ids,
         .metavar = "ID,...",
         .help = "draw from these tokens only"},
        {.name = "logit-bias",
         .kind = FLAG_LIST,
         .target = &v->logit_bias,
         .metavar = "ID:BIAS",
         .help = "add to a token's logit"},
        {.name = "bad-words",
         .kind = FLAG_LIST,
         .target = &v->bad_words,
         .metavar = "TEXT",
         .help = "text that must not appear"},
    };
    size_t n = sizeof rows / sizeof *rows;
    ASSERT(n <= SAMPLING_FLAGS_MAX);
    memcpy(flags, rows, sizeof rows);
    return n;
}

size_t sampling_flags_fill_chat(struct sampling_flag_values *v, struct flag *flags)
{
    size_t n = sampling_flags_fill(v, flags), n_kept = 0;
    for (size_t i = 0; i < n; i++)
        if (flags[i].target != &v->n && flags[i].target != &v->logprobs &&
            flags[i].target != &v->prompt_logprobs)
            flags[n_kept++] = flags[i];
    return n_kept;
}

err_t parse_token_ids(const char *name, const char *text, uint32_t *ids, size_t max, size_t *n)
{
    const char *at = text;
    while (*at) {
        char *end;
        errno = 0;
        unsigned long long id = strtoull(at, &end, 10);
        bool number = end != at && at[0] >= '0' && at[0] <= '9' && errno == 0 && id <= UINT32_MAX;
        if (!number || (*end != ',' && *end != '\0'))
            return err_new(ERR_INVALID_ARGUMENT, "%s: \"%s\" is not a list of token ids such as 1,2,3", name,
                           text);
        if (*n >= max)
            return err_new(ERR_INVALID_ARGUMENT, "%s has more than %zu ids", name, max);
        ids[(*n)++] = (uint32_t)id;
        at = *end ? end + 1 : end;
    }
    return err_ok();
}

static err_t parse_bias(const char *text, struct logit_bias *out)
{
    char *end;
    errno = 0;
    unsigned long long id = strtoull(text, &end, 10);
    if (end != text && *end == ':' && errno == 0 && id <= UINT32_MAX && text[0] != '-') {
        const char *number = end + 1;
        float bias = strtof(number, &end);
        if (end != number && *end == '\0') {
            *out = (struct logit_bias){(uint32_t)id, bias};
            return err_ok();
        }
    }
    return err_new(ERR_INVALID_ARGUMENT, "--logit-bias: \"%s\" is not of the form ID:BIAS, such as 42:-3.5",
                   text);
}

static void copy_scalars(const struct sampling_flag_values *v, struct sampling_params *out)
{
    for (uint32_t bit = 0; bit < 16; bit++)
        if (v->is_set[bit])
            out->set |= 1u << bit;
    out->temperature = (float)v->temperature;
    out->top_p = (float)v->top_p;
    out->top_k = (int32_t)v->top_k;
    out->min_p = (float)v->min_p;
    out->repetition_penalty = (float)v->repetition_penalty;
    out->presence_penalty = (float)v->presence_penalty;
    out->frequency_penalty = (float)v->frequency_penalty;
    out->seed = (uint64_t)v->seed;
    out->max_tokens = (uint32_t)v->max_tokens;
    out->min_tokens = (uint32_t)v->min_tokens;
    out->n = (uint32_t)v->n;
    out->logprobs = (int32_t)v->logprobs;
    out->prompt_logprobs = (int32_t)v->prompt_logprobs;
    out->ignore_eos = v->ignore_eos;
    out->skip_special_tokens = v->skip_special_tokens;
    out->include_stop_str_in_output = v->include_stop_str_in_output;
}

err_t sampling_flags_params(struct sampling_flag_values *v, struct sampling_params *out)
{
    *out = (struct sampling_params){0};
    copy_scalars(v, out);
    out->stop = v->stop.item;
    out->n_stop = v->stop.count;
    out->bad_words = v->bad_words.item;
    out->n_bad_words = v->bad_words.count;
    for (size_t i = 0; i < v->stop_token_ids.count; i++)
        TRY(parse_token_ids("--stop-token-ids", v->stop_token_ids.item[i], v->stop_ids, SAMPLING_STOP_IDS_MAX,
                            &out->n_stop_token_ids));
    out->stop_token_ids = v->stop_ids;
    for (size_t i = 0; i < v->allowed_token_ids.count; i++)
        TRY(parse_token_ids("--allowed-token-ids", v->allowed_token_ids.item[i], v->allowed_ids,
                            SAMPLING_FLAG_IDS_MAX, &out->n_allowed_token_ids));
    out->allowed_token_ids = v->allowed_ids;
    for (size_t i = 0; i < v->logit_bias.count; i++)
        TRY(parse_bias(v->logit_bias.item[i], &v->bias[i]));
    out->logit_bias = v->bias;
    out->n_logit_bias = v->logit_bias.count;
    return err_ok();
}
