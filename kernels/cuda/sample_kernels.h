/* The kernels of the sampling op: sampler.h says what they compute, on the draws and in the order of the
 * CPU's.
 *
 * A row of logits is cut into slices of SAMPLE_SLICE tokens, a block each; the last block of a row to finish
 * merges the slices in ascending order. sample_scan transforms the logits, finds the maximum and finishes
 * greedy rows; sample_draw draws the others; sample_logprobs reports log-probabilities. All three are
 * launched for every row and leave at once where there is nothing for them. */
#pragma once

#include <stdint.h>
#include "kernels/cuda/cuda_slot.h"
#include "kernels/cuda/cuda_step.h"

#define CUDA_SAMPLE_KERNELS(K)                                                                               \
    K(slot_counts, struct slot_counts_args, "counts of a slot's history, for penalties")                     \
    K(sample_scan, struct sample_args, "logits of an output: transformations, maximum, greedy choice")       \
    K(sample_draw, struct sample_args, "exact min-p, top-k, top-p without a sort, Gumbel-max draw")          \
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
};

/* What a block found in its slice. */
struct sample_slice {
    float max; /* after the transformations */
    uint32_t argmax;
    float raw_max;
    uint32_t malformed; /* a NaN or +inf: bit 0 raw, bit 1 after the transformations */
    float best_score;   /* sample_draw */
    uint32_t best;
    double exp_sum;   /* sample_logprobs: of exp(raw - maximum of the row) */
    uint32_t n_above; /* raw logits above the chosen one's */
    uint32_t n_top;
    struct step_logprob top[STEP_LOGPROBS_MAX]; /* logits */
};

enum sample_state {
    SAMPLE_DONE, /* the result stands, but for log-probabilities */
    SAMPLE_DRAW, /* sample_draw has to choose */
    SAMPLE_FAILED,
};

/* Scratch of one row of logits: zeroed once, at creation. */
struct sample_row {
    uint32_t n_arrived; /* blocks of the running kernel; back at 0 when it ends */
    uint32_t state;     /* enum sample_state */
    uint32_t token;
    float max, raw_max;
    uint32_t n_candidates;
    uint64_t mass; /* sum of probabilities, scaled by 2^SAMPLE_MASS_BITS */
    struct sample_slice slices[SAMPLE_SLICES_MAX];
};
enum { SAMPLE_MASS_BITS = 45 };

/* Grid (vocab_size / SAMPLE_SLICE rounded up, rows.max), SAMPLE_THREADS. */
struct sample_args {
    struct cuda_rows rows; /* CUDA_COUNT_OUTPUTS */
    struct cuda_slots slots;
    const float *logits;  /* [rows.max][stride] raw; never written */
    uint32_t stride;      /* floats, a multiple of 4 */
    float *work;          /* [rows.max][stride]: the transformed ones, where there is anything to transform */
    uint64_t *candidates; /* [rows.max][stride] */
    struct sample_row *scratch;    /* [rows.max] */
    const uint32_t *masks;         /* [n_masks][mask_words]: a bit per token, 1 = allowed; or NULL */
    const int32_t *mask_of_output; /* [step's outputs]: index into masks, -1 = none; with masks */
};
