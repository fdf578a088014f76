#include "engine/sampling_lists.h"

#include <stdlib.h>
#include <string.h>
#include "base/alloc.h"
#include "base/assert.h"
#include "base/checked.h"

/* Bump allocation inside the one block. */
struct block {
    char *data;
    size_t used, size;
};

static void *take(struct block *block, size_t bytes)
{
    size_t at = round_up(block->used, 16);
    ASSERT(at + bytes <= block->size);
    block->used = at + bytes;
    return block->data + at;
}

static int compare_ids(const void *a, const void *b)
{
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return (x > y) - (x < y);
}

/* The tokens of all bad words, both ways of writing each: word i has ids [ends[i - 1], ends[i]). */
struct word_tokens {
    struct token_list ids;
    size_t ends[2 * SAMPLING_BAD_WORDS_MAX];
    size_t n_words;
};

static err_t tokenize_words(const struct sampling_params *params, const struct tokenizer *tokenizer,
                            struct word_tokens *out)
{
    for (size_t i = 0; i < params->n_bad_words; i++) {
        char text[SAMPLING_STOP_BYTES_MAX + 2];
        size_t size = strlen(params->bad_words[i]);
        text[0] = ' ';
        memcpy(text + 1, params->bad_words[i], size);
        for (size_t with_space = 0; with_space < 2; with_space++) {
            size_t before = out->ids.count;
            TRY(tokenizer_encode(tokenizer, with_space ? text : text + 1, size + with_space, NULL, 0,
                                 &out->ids));
            size_t n = out->ids.count - before;
            if (n > SAMPLING_BAD_WORD_TOKENS_MAX)
                return err_new(ERR_INVALID_ARGUMENT, "bad_words[%zu] has %zu tokens; at most %d are allowed",
                               i, n, SAMPLING_BAD_WORD_TOKENS_MAX);
            if (n > 0)
                out->ends[out->n_words++] = out->ids.count;
        }
    }
    return err_ok();
}

static size_t lists_bytes(const struct sampling_params *params, const struct word_tokens *words,
                          size_t n_eos_ids)
{
    enum { PADDING = 16 };
    size_t bytes = params->n_stop * (sizeof(char *) + SAMPLING_STOP_BYTES_MAX + 1 + PADDING);
    bytes += (n_eos_ids + 2 * params->n_stop_token_ids + params->n_allowed_token_ids + words->ids.count) *
             sizeof(uint32_t);
    bytes += params->n_logit_bias * (sizeof(struct logit_bias) + sizeof(struct sampler_bias));
    bytes += words->n_words * sizeof(struct sampler_word);
    return bytes + 16 * PADDING;
}

static void own_stops(struct sampling_params *params, struct block *block)
{
    const char **stops = take(block, params->n_stop * sizeof *stops);
    for (size_t i = 0; i < params->n_stop; i++) {
        size_t size = strlen(params->stop[i]) + 1;
        char *copy = take(block, size);
        memcpy(copy, params->stop[i], size);
        stops[i] = copy;
    }
    params->stop = stops;
}

static void own_stop_ids(struct sampling_params *params, const uint32_t *eos_ids, size_t n_eos_ids,
                         struct sampler_params *sampler, struct block *block)
{
    size_t n_eos = params->ignore_eos ? 0 : n_eos_ids;
    uint32_t *ids = take(block, (n_eos + params->n_stop_token_ids) * sizeof *ids);
    if (n_eos)
        memcpy(ids, eos_ids, n_eos * sizeof *ids);
    if (params->n_stop_token_ids)
        memcpy(ids + n_eos, params->stop_token_ids, params->n_stop_token_ids * sizeof *ids);
    sampler->stop_ids = ids;
    sampler->n_stop_ids = n_eos + params->n_stop_token_ids;
    params->stop_token_ids = ids + n_eos;
}

static void own_biases(struct sampling_params *params, struct sampler_params *sampler, struct block *block)
{
    struct sampler_bias *bias = take(block, params->n_logit_bias * sizeof *bias);
    for (size_t i = 0; i < params->n_logit_bias; i++)
        bias[i] = (struct sampler_bias){params->logit_bias[i].token_id, params->logit_bias[i].bias};
    sampler->bias = bias;
    sampler->n_bias = params->n_logit_bias;
    params->logit_bias = NULL; /* the sampler's copy serves */
    params->n_logit_bias = 0;
}

static void own_allowed(struct sampling_params *params, struct sampler_params *sampler, struct block *block)
{
    size_t n = params->n_allowed_token_ids, unique = 0;
    uint32_t *ids = take(block, n * sizeof *ids);
    if (n) {
        memcpy(ids, params->allowed_token_ids, n * sizeof *ids);
        qsort(ids, n, sizeof *ids, compare_ids);
    }
    for (size_t i = 0; i < n; i++)
        if (unique == 0 || ids[i] != ids[unique - 1])
            ids[unique++] = ids[i];
    sampler->allowed_ids = ids;
    sampler->n_allowed_ids = unique;
    params->allowed_token_ids = ids;
    params->n_allowed_token_ids = unique;
}

static void own_words(const struct word_tokens *words, struct sampler_params *sampler, struct block *block)
{
    struct sampler_word *list = take(block, words->n_words * sizeof *list);
    uint32_t *ids = take(block, words->ids.count * sizeof *ids);
    if (words->ids.count)
        memcpy(ids, words->ids.ids, words->ids.count * sizeof *ids);
    for (size_t i = 0, begin = 0; i < words->n_words; begin = words->ends[i++])
        list[i] = (struct sampler_word){ids + begin, words->ends[i] - begin};
    sampler->bad_words = list;
    sampler->n_bad_words = words->n_words;
}

err_t sampling_lists_own(struct sampling_params *params, const struct tokenizer *tokenizer,
                         const uint32_t *eos_ids, size_t n_eos_ids, struct sampler_params *sampler,
                         void **lists)
{
    struct word_tokens words = {.ids.limit = 2 * SAMPLING_BAD_WORDS_MAX * SAMPLING_STOP_BYTES_MAX};
    err_t e = tokenize_words(params, tokenizer, &words);
    if (e.code == ERR_OK) {
        struct block block = {.size = lists_bytes(params, &words, n_eos_ids)};
        block.data = mem_alloc(block.size);
        if (block.data) {
            own_stops(params, &block);
            own_stop_ids(params, eos_ids, n_eos_ids, sampler, &block);
            own_biases(params, sampler, &block);
            own_allowed(params, sampler, &block);
            own_words(&words, sampler, &block);
            *lists = block.data;
        } else {
            e = err_new(ERR_RESOURCE_EXHAUSTED, "out of memory for a request");
        }
    }
    token_list_free(&words.ids);
    params->bad_words = NULL; /* the sampler's token sequences serve */
    params->n_bad_words = 0;
    return e;
}

static bool is_forbidden(const struct sampler_params *sampler, uint32_t id, bool too_early_to_stop)
{
    for (size_t i = 0; i < sampler->n_bad_words; i++)
        if (sampler->bad_words[i].n_token_ids == 1 && sampler->bad_words[i].token_ids[0] == id)
            return true;
    for (size_t i = 0; too_early_to_stop && i < sampler->n_stop_ids; i++)
        if (sampler->stop_ids[i] == id)
            return true;
    return false;
}

err_t sampling_lists_check(const struct sampler_params *sampler, uint32_t vocab_size, size_t n_output_prefix)
{
    bool too_early_to_stop = n_output_prefix < sampler->min_tokens;
    size_t n = sampler->n_allowed_ids > 0 ? sampler->n_allowed_ids : vocab_size;
    for (size_t i = 0; i < n; i++) /* ends early: what is forbidden is a few hundred tokens at most */
        if (!is_forbidden(sampler, sampler->n_allowed_ids > 0 ? sampler->allowed_ids[i] : (uint32_t)i,
                          too_early_to_stop))
            return err_ok();
    return err_new(ERR_INVALID_ARGUMENT, "nothing is left to generate: of the %zu %s all are %s", n,
                   sampler->n_allowed_ids > 0 ? "allowed_token_ids" : "tokens of the vocabulary",
                   too_early_to_stop ? "bad_words, or end the answer before min_tokens" : "bad_words");
}
