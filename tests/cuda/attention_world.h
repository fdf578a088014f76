/* What the tests of attention share: sequences with random keys, values and queries, and steps over them that
 * run in the emulator. */
#pragma once

#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include "kernels/cuda/cuda_attention_plan.h"
#include "tests/cuda/emulator/emulator.h"

enum {
    SEQS_MAX = 16,
    POSITIONS_MAX = 1024,
    BLOCKS_PER_SEQ = POSITIONS_MAX / CUDA_KV_BLOCK_TOKENS,
    ROWS_MAX = 1024,
    BLOCKS_MAX = SEQS_MAX * BLOCKS_PER_SEQ,
    FILL_NAN = 0xff, /* every byte: NaN in bf16 and e4m3 */
};
/* What e4m3 codes stand for; bf16 values have no scale. */
#define ATTENTION_K_SCALE 0.7f
#define ATTENTION_V_SCALE 1.7f

struct shape {
    uint32_t n_heads, n_kv_heads, head_dim, element_bytes, window;
    float soft_cap;
};

/* Sequences with random keys, values and queries at every position, in the CUDA cache and, as f32, in the
 * CPU's. */
struct world {
    struct shape shape;
    uint32_t n_seqs, n_context[SEQS_MAX];
    uint32_t tables[SEQS_MAX][BLOCKS_PER_SEQ];
    uint8_t *kv;
    float *cpu_kv, *cpu_magnitudes; /* the second: |v| for v */
    uint16_t *q;                    /* [n_seqs][POSITIONS_MAX][n_heads][head_dim] */
};

static inline uint32_t width_of(const struct shape *shape)
{
    return shape->n_heads * shape->head_dim;
}

/* Once, before any world. */
int attention_set_up(void **state);
/* n_shared[s]: blocks at the beginning that sequence s has in common with sequence 0; NULL: none. */
void world_create(struct world *w, const struct shape *shape, uint32_t n_seqs, const uint32_t *n_context,
                  const uint32_t *n_shared, uint64_t seed);
void world_destroy(struct world *w);

struct rows { /* of one sequence in a step */
    uint32_t seq, first, n;
};

/* How small items are run: by blocks, or by streams, a warp alone or many together; or by blocks with a plan
 * for streams, as in a step that is hardly large enough for them. */
enum run_form { RUN_IN_TURN, RUN_BLOCKS, RUN_ALONE, RUN_TEAMS, RUN_FEW_BLOCKS, RUN_FORMS };

struct run_options {
    uint32_t n_partials, blocks_wanted, n_blocks;
    bool shares_prefixes;
    enum run_form form;
    uint64_t emulator_seed;
    uint32_t emulator_threads;
    /* The launch in front, which writes q and the keys of the step's rows, is still under way. */
    bool is_early;
    bool claims_old_keys; /* all items do, rightly or not */
    /* The kernel turns q, by nothing, and writes the rows' keys and values, which must come out as they were.
     * A row of a sequence each; no large items. */
    bool turns;
};

/* out: [rows of the step][width] bf16. Returns the work list's counts. */
struct attention_group attention_run(const struct world *w, const struct rows *rows, uint32_t n,
                                     const struct run_options *options, uint16_t *out);
