/* The kernels of the sampling op: sampler.h says what they compute, with the draws and in the order of the
 * CPU's.
 *
 * A row of logits is cut into slices of SAMPLE_SLICE tokens, a block each; the last block of a row to arrive
 * merges what they found. Maxima, counts and probabilities in fixed point come out the same in any order;
 * sums of floats are merged in ascending order. All four are launched for every row and leave at once where
 * there is nothing for them: sample_scan       transforms the logits, finds their maximum; finishes rows that
 * are greedy or broken sample_histogram  for top-k and top-p: how many tokens, and how much probability, at
 * which distance below the maximum sample_draw       cuts by min-p, top-k, top-p, exactly; Gumbel-max among
 * what is left sample_logprobs   log-probability and rank of the token, the best alternatives, all from the
 * raw logits */
#pragma once

#include <stdint.h>
#include "kernels/cuda/cuda_slot.h"
#include "kernels/cuda/cuda_step.h"

#define CUDA_SAMPLE_KERNELS(K)                                                                               \
    K(slot_counts, struct slot_counts_args, "counts of a slot's history, for penalties")                     \
    K(sample_scan, struct sample_args, "transformations of the logits, their maximum, the greedy choice")    \
    K(sample_histogram, struct sample_args, "tokens and probability by distance from the maximum")           \
    K(sample_draw, struct sample_args, "exact min-p, top-k, top-p without a sort; Gumbel-max draw")          \
    K(sample_logprobs, struct sample_args, "log-probability, rank and the best alternatives")

/* counts[slot] from a history: one block of SLOT_COUNTS_THREADS. */
enum { SLOT_COUNTS_THREADS = 1024 };
struct slot_counts_args {
    struct cuda_slots slots;
    uint32_t slot;
    const uint32_t *ids; /* [n_prompt + n_output]: the prompt, then what was drawn */
    uint32_t n_prompt, n_output;
};

enum {
    SAMPLE_THREADS = 256,
    SAMPLE_SLICE = 4096, /* tokens of a block */
    SAMPLE_VOCAB_MAX = 1 << 18,
    SAMPLE_SLICES_MAX = SAMPLE_VOCAB_MAX / SAMPLE_SLICE,
    SAMPLE_BINS =
        512, /* distances from the maximum, in steps of 1 / SAMPLE_BINS_PER_NAT; the last takes all beyond */
    SAMPLE_BINS_PER_NAT = 16,
    SAMPLE_MASS_BITS = 45, /* a probability of 1, unnormalised, is 2^45: 2^18 of them fit 64 bits */
};

/* What a block found in its slice. */
struct sample_slice {
    uint64_t raw_best, best; /* value and token as a key (sample_device.h): raw, after the transformations */
    uint32_t raw_malformed, malformed; /* a NaN or +inf was seen */
    float exp_sum;                     /* sample_logprobs: of exp(raw - maximum of the row) */
    uint32_t n_above;                  /* raw logits above the chosen one's */
    uint32_t n_top;
    uint64_t top[STEP_LOGPROBS_MAX]; /* keys, descending */
};

enum sample_state {
    SAMPLE_DONE,   /* the result stands, but for log-probabilities */
    SAMPLE_DRAW,   /* sample_draw has to choose */
    SAMPLE_FAILED, /* the logits are broken, or nothing is left of them */
};

/* Scratch of one row of logits. Zeroed once, at creation; the kernels leave it as the next step needs it. */
struct sample_row {
    uint32_t n_arrived;      /* blocks of the running kernel; 0 when it has ended */
    uint32_t state;          /* enum sample_state */
    uint32_t is_transformed; /* the logits to draw from are those in `work` */
    uint32_t token;
    float max, raw_max;
    uint32_t n_candidates;        /* 0 when sample_draw has ended */
    uint32_t counts[SAMPLE_BINS]; /* 0 when sample_draw has ended */
    uint64_t masses[SAMPLE_BINS]; /* 0 when sample_draw has ended */
    struct sample_slice slices[SAMPLE_SLICES_MAX];
};

/* Grid (vocab_size / SAMPLE_SLICE rounded up, rows.max), SAMPLE_THREADS; vocab_size at most SAMPLE_VOCAB_MAX.
 */
struct sample_args {
    struct cuda_rows rows; /* CUDA_COUNT_OUTPUTS */
    struct cuda_slots slots;
    const float *logits;  /* [rows.max][stride] raw; only read */
    float *work;          /* [rows.max][stride] the transformed ones, where there is anything to transform */
    uint64_t *candidates; /* [rows.max][stride] */
    uint32_t stride;      /* a multiple of 4 */
    struct sample_row *scratch;    /* [rows.max] */
    const uint32_t *masks;         /* [n_masks][mask_words]: a bit per token, 1 = allowed */
    const int32_t *mask_of_output; /* [step's outputs]: index into masks, -1 = none; NULL: no masks at all */
};
