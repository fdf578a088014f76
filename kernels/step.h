/* One step of the engine: which tokens run, whose they are, and what is wanted of them. A preallocated struct
 * at a fixed address that the device can see: ops take capacities from the host and read counts from here, so
 * that a captured graph can be replayed. Filled by the engine from a plan, read by the ops, its results read
 * back after the step was collected. One thread at a time: filler, then executor, then collector. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "base/error.h"

enum {
    STEP_KV_GROUPS_MAX = 4,     /* groups of layers that share block size, bytes per token and window */
    STEP_RESULT_TOKENS_MAX = 8, /* tokens that one output can yield (speculation) */
    STEP_LOGPROBS_MAX = 20,
    STEP_NO_SLOT = 0xffffffffu,
};

enum step_row_flags {
    /* `token` is unknown to the host: it is the last token sampled in the sequence's sampling slot. */
    STEP_ROW_TOKEN_FROM_SLOT = 1u << 0,
};

struct step_row {
    uint32_t token;    /* id; ignored with STEP_ROW_TOKEN_FROM_SLOT */
    uint32_t position; /* 0-based, in the sequence */
    uint32_t seq;      /* index into step.seqs */
    uint32_t flags;
};

struct step_seq {
    uint32_t first_row, n_rows; /* its rows are adjacent, positions ascending by one */
    /* Tokens visible to its last row, that row included: last position + 1. Those before its first row were
     * written by earlier steps: no row writes what another sequence of the step reads. */
    uint32_t n_context;
    uint32_t sampling_slot; /* STEP_NO_SLOT = samples nothing */
    uint32_t adapter_slot;  /* STEP_NO_SLOT = none */
};

enum step_output_kind {
    STEP_OUTPUT_SAMPLE,   /* draw the next token in the sequence's slot */
    STEP_OUTPUT_LOGPROBS, /* logprob of `target` given this row (prompt_logprobs) */
};

struct step_output {
    uint32_t row; /* index into step.rows; ascending over outputs */
    enum step_output_kind kind;
    uint32_t target;    /* STEP_OUTPUT_LOGPROBS: the token that follows */
    int32_t n_logprobs; /* -1 = none wanted, else best alternatives 0..STEP_LOGPROBS_MAX */
};

struct step_copy {
    uint32_t from_block, to_block; /* whole blocks, before the step's writes */
};

struct step_logprob {
    uint32_t token_id;
    float logprob;
};

enum step_result_status {
    STEP_RESULT_OK,
    STEP_RESULT_NOT_FINITE, /* logits with NaN or +inf, or -inf throughout: that request fails */
    STEP_RESULT_FORBIDDEN,  /* the slot's lists and the mask leave no token: that request fails, by its own */
};

struct step_result { /* of one output */
    enum step_result_status status;
    uint32_t n_tokens; /* SAMPLE: 1 (more with speculation); LOGPROBS: 0 */
    uint32_t token_ids[STEP_RESULT_TOKENS_MAX];
    struct step_logprob chosen; /* of token_ids[0] or target; when n_logprobs >= 0 */
    uint32_t rank;              /* of chosen: 1 + tokens with a greater logprob */
    uint32_t n_top;
    struct step_logprob top[STEP_LOGPROBS_MAX]; /* descending, ties by lower id */
};

struct step_capacity {
    uint32_t rows; /* token budget */
    uint32_t seqs;
    uint32_t outputs; /* = rows: prompt_logprobs wants every row */
    uint32_t copies;
    uint32_t blocks_per_seq; /* of a block table */
    uint32_t kv_groups;
};

struct step {
    struct step_capacity capacity;
    uint64_t id;
    uint32_t n_rows, n_seqs, n_outputs, n_copies;
    struct step_row *rows;                      /* [capacity.rows] */
    struct step_seq *seqs;                      /* [capacity.seqs] */
    struct step_output *outputs;                /* [capacity.outputs] */
    struct step_copy *copies;                   /* [capacity.copies] */
    uint32_t *block_tables[STEP_KV_GROUPS_MAX]; /* each [capacity.seqs][capacity.blocks_per_seq] block ids */
    struct step_result *results;                /* [capacity.outputs], written by sampling */
};

/* The rows that an op covers. */
enum step_rows {
    STEP_ROWS_ALL,     /* row r is rows[r] */
    STEP_ROWS_OUTPUTS, /* row i is that of outputs[i]: of acts that stand so, by gather_outputs */
};
static inline uint32_t step_row_count(const struct step *step, enum step_rows rows)
{
    return rows == STEP_ROWS_ALL ? step->n_rows : step->n_outputs;
}

/* A step in plain host memory. ERR_RESOURCE_EXHAUSTED. */
err_t step_create(const struct step_capacity *capacity, struct step **out) ERR_MUST_CHECK;
void step_destroy(struct step *step);
/* Everything but the results, between two steps of equal capacities. */
void step_copy_inputs(struct step *to, const struct step *from);
size_t step_bytes(const struct step_capacity *capacity);
static inline uint32_t *step_block_table(const struct step *step, uint32_t group, uint32_t seq)
{
    return step->block_tables[group] + (size_t)seq * step->capacity.blocks_per_seq;
}
