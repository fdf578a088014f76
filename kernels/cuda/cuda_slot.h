/* The sampling state of a slot in device memory. The host writes it whole when a sequence takes the slot
 * (cuda_slot_fill, then an upload); from then on the sampling kernels append what they draw. Plain C for host
 * code, kernels and tests. */
#pragma once

#include <stddef.h>
#include <stdint.h>
#include "kernels/sampler.h"

enum {
    CUDA_SLOT_STOP_IDS_MAX = 256, /* end-of-sequence ids and stop ids */
    CUDA_SLOT_BIAS_MAX = 1024,
    CUDA_SLOT_WORDS_MAX = 256,      /* each of 128 bad words with and without a blank before it */
    CUDA_SLOT_WORD_TOKENS_MAX = 64, /* of one bad word */
    /* The latest outputs, for bad words: a word's tokens before the last one. A power of two. */
    CUDA_SLOT_TAIL = 64,
};

enum cuda_slot_flags {
    CUDA_SLOT_GREEDY = 1u << 0,
    CUDA_SLOT_COUNTS = 1u << 1,  /* some penalty is on: the slot's counts are kept */
    CUDA_SLOT_ALLOWED = 1u << 2, /* the slot's mask of allowed tokens holds */
};

/* In the counts: the token stands in the prompt; below it, how often it was drawn. */
#define CUDA_COUNT_IN_PROMPT 0x80000000u

struct cuda_slot {
    uint32_t flags;
    uint32_t last_token;
    uint32_t n_output;
    uint32_t min_tokens;
    uint64_t key; /* of the draws: seed and choice index */
    float temperature, top_p;
    float min_p_log; /* log(min_p), at most 0; -inf = off */
    uint32_t top_k;  /* 0 = off */
    float repetition_penalty, presence_penalty, frequency_penalty;
    uint32_t n_stop_ids, n_bias, n_words;
    uint32_t tail[CUDA_SLOT_TAIL]; /* output i at i % CUDA_SLOT_TAIL */
    /* Lists, the longest last: a slot's bytes past those in use need no upload. */
    uint32_t stop_ids[CUDA_SLOT_STOP_IDS_MAX];
    struct sampler_bias bias[CUDA_SLOT_BIAS_MAX]; /* ascending ids; equal ones in the order given */
    uint32_t word_ends[CUDA_SLOT_WORDS_MAX];      /* in word_ids */
    uint32_t word_ids[CUDA_SLOT_WORDS_MAX * CUDA_SLOT_WORD_TOKENS_MAX];
};

/* Of every slot. */
struct cuda_slots {
    struct cuda_slot *slots; /* [n_slots] */
    uint32_t *allowed;       /* [n_slots][mask_words]: a bit per token */
    uint32_t *counts;        /* [n_slots][vocab_size]: with CUDA_SLOT_COUNTS */
    uint32_t n_slots, vocab_size;
    uint32_t mask_words; /* ceil(vocab_size / 32) */
};

/* Everything of the slot but its counts (the kernel slot_counts makes them). allowed: [mask_words], written
 * when CUDA_SLOT_ALLOWED is set. Returns how many bytes of *slot are in use. Longer lists than the limits
 * above are bugs: the validator refuses such a request. */
size_t cuda_slot_fill(struct cuda_slot *slot, uint32_t *allowed, uint32_t vocab_size,
                      const struct sampler_params *params, const struct sampler_history *history);
