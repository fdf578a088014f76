#include "kernels/cuda/cuda_slot.h"

#include <math.h>
#include <string.h>
#include "base/assert.h"

_Static_assert((CUDA_SLOT_TAIL & (CUDA_SLOT_TAIL - 1)) == 0, "positions are masked");
_Static_assert(CUDA_SLOT_TAIL >= CUDA_SLOT_WORD_TOKENS_MAX - 1,
               "the tail must hold what precedes a bad word's last token");

static uint32_t slot_flags(const struct sampler_params *params)
{
    uint32_t flags = 0;
    if (params->temperature < SAMPLER_GREEDY_BELOW)
        flags |= CUDA_SLOT_GREEDY;
    if (params->repetition_penalty != 1 || params->presence_penalty != 0 || params->frequency_penalty != 0)
        flags |= CUDA_SLOT_COUNTS;
    if (params->n_allowed_ids > 0)
        flags |= CUDA_SLOT_ALLOWED;
    return flags;
}

/* Stable insertion: lists are short, and mostly sorted already. */
static void fill_bias(struct cuda_slot *slot, const struct sampler_params *params)
{
    ASSERT(params->n_bias <= CUDA_SLOT_BIAS_MAX);
    slot->n_bias = (uint32_t)params->n_bias;
    for (size_t i = 0; i < params->n_bias; i++) {
        size_t at = i;
        for (; at > 0 && slot->bias[at - 1].token_id > params->bias[i].token_id; at--)
            slot->bias[at] = slot->bias[at - 1];
        slot->bias[at] = params->bias[i];
    }
}

/* Returns the number of tokens. */
static uint32_t fill_words(struct cuda_slot *slot, const struct sampler_params *params)
{
    ASSERT(params->n_bad_words <= CUDA_SLOT_WORDS_MAX);
    uint32_t end = 0;
    slot->n_words = (uint32_t)params->n_bad_words;
    for (size_t i = 0; i < params->n_bad_words; i++) {
        const struct sampler_word *word = &params->bad_words[i];
        ASSERT(word->n_token_ids <= CUDA_SLOT_WORD_TOKENS_MAX);
        if (word->n_token_ids > 0)
            memcpy(slot->word_ids + end, word->token_ids, word->n_token_ids * sizeof(uint32_t));
        end += (uint32_t)word->n_token_ids;
        slot->word_ends[i] = end;
    }
    return end;
}

static void fill_allowed(uint32_t *allowed, uint32_t vocab_size, const struct sampler_params *params)
{
    memset(allowed, 0, ((size_t)vocab_size + 31) / 32 * sizeof(uint32_t));
    for (size_t i = 0; i < params->n_allowed_ids; i++) {
        uint32_t id = params->allowed_ids[i];
        if (id < vocab_size)
            allowed[id / 32] |= 1u << id % 32;
    }
}

size_t cuda_slot_fill(struct cuda_slot *slot, uint32_t *allowed, uint32_t vocab_size,
                      const struct sampler_params *params, const struct sampler_history *history)
{
    ASSERT(params->n_stop_ids <= CUDA_SLOT_STOP_IDS_MAX);
    float min_p_log = params->min_p > 0 ? logf(params->min_p) : -INFINITY;
    slot->flags = slot_flags(params);
    slot->last_token = history->n_prompt > 0 ? history->prompt_ids[history->n_prompt - 1] : 0;
    if (history->n_output > 0)
        slot->last_token = history->output_ids[history->n_output - 1];
    slot->n_output = (uint32_t)history->n_output;
    slot->min_tokens = params->min_tokens;
    slot->key = params->seed + params->choice_index * 0x9e3779b97f4a7c15u;
    slot->temperature = params->temperature;
    slot->top_p = params->top_p;
    slot->min_p_log = min_p_log > 0 ? 0 : min_p_log;
    slot->top_k = params->top_k;
    slot->repetition_penalty = params->repetition_penalty;
    slot->presence_penalty = params->presence_penalty;
    slot->frequency_penalty = params->frequency_penalty;
    slot->n_stop_ids = (uint32_t)params->n_stop_ids;
    size_t first = history->n_output < CUDA_SLOT_TAIL ? 0 : history->n_output - CUDA_SLOT_TAIL;
    memset(slot->tail, 0, sizeof slot->tail);
    for (size_t i = first; i < history->n_output; i++)
        slot->tail[i % CUDA_SLOT_TAIL] = history->output_ids[i];
    if (params->n_stop_ids > 0)
        memcpy(slot->stop_ids, params->stop_ids, params->n_stop_ids * sizeof(uint32_t));
    fill_bias(slot, params);
    uint32_t n_word_ids = fill_words(slot, params);
    if (slot->flags & CUDA_SLOT_ALLOWED)
        fill_allowed(allowed, vocab_size, params);
    if (slot->n_words > 0)
        return offsetof(struct cuda_slot, word_ids) + n_word_ids * sizeof(uint32_t);
    if (slot->n_bias > 0)
        return offsetof(struct cuda_slot, bias) + slot->n_bias * sizeof slot->bias[0];
    return offsetof(struct cuda_slot, stop_ids) + slot->n_stop_ids * sizeof(uint32_t);
}
