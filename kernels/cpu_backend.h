/* Inside of the CPU backend: its handles and what its files share. */
#pragma once

#include <stdatomic.h>
#include "base/assert.h"
#include "base/thread_pool.h"
#include "kernels/kernel_table.h"
#include "kernels/kernels.h"

enum {
    /* Multiply-adds below which an op stays on the calling thread: waking the others costs more. */
    CPU_PARALLEL_MIN_MACS = 1 << 16,
    /* Elements below which a row-wise op does. */
    CPU_PARALLEL_MIN_ELEMENTS = 1 << 13,
};

struct cpu_group;

/* Sequences of a step with one row each, in an order in which those stand side by side that begin with the
 * same blocks; of one KV group. */
enum { CPU_SHARERS_MAX = 1024 }; /* of a step; those behind read for themselves */
struct cpu_sharers {
    uint32_t n;
    uint32_t end;                     /* sequences behind it are not among them */
    uint32_t seqs[CPU_SHARERS_MAX];   /* [n] indices into the step */
    uint32_t common[CPU_SHARERS_MAX]; /* [n] whole blocks that it and the next one begin with */
    /* Those that attention takes together, at most so many; filled by it. */
    uint32_t n_teams;
    struct cpu_team {
        uint32_t begin, end; /* sharers */
        uint32_t n_shared;   /* blocks */
    } teams[CPU_SHARERS_MAX];
};

/* Attention of some rows by one KV head, which several threads share: each takes chunks, and who is last
 * merges them. */
struct cpu_cut {
    uint32_t first_chunk, n_chunks;
    uint32_t chunks_per_piece;
    size_t first_piece, n_pieces;
    float *partials; /* [n_chunks][queries][attention_partial_floats]; NULL = it is one piece */
    atomic_size_t pieces_left;
};
enum {
    CPU_PIECES_PER_THREAD = 4, /* of attention, at least, where there is as much to do */
    /* Of all cuts of an op, at most, unless one sequence that decodes needs more; what finds no room there is
     * one piece. */
    CPU_PARTIALS_FLOATS_MAX = 1 << 21,
};

struct cpu_backend {
    struct backend base;
    struct cpu_group *group; /* NULL = the only rank */
    uint32_t rank;
    struct kernel_table table;
    struct thread_pool *pool;
    int n_threads;
    float **attention_scratch; /* [n_threads] */
    struct cpu_cut *cuts;      /* [n_threads * CPU_PIECES_PER_THREAD] */
    float *partials; /* [partials_floats]; NULL where contexts have one chunk, and with one thread */
    size_t partials_floats;
    uint8_t **tile_scratch;     /* [n_threads]; NULL where the table's arithmetic has no tiles */
    const struct step *sharing; /* the step of sharers; NULL = none, nothing is shared */
    struct cpu_sharers sharers[STEP_KV_GROUPS_MAX];
    uint64_t dispatches[KERNEL_COUNT]; /* ops that used the kernel; written by the executor */
    uint64_t blocks_spared;            /* reads of a block by a layer that attention did without, likewise */
    char description[128];
};

/* Outputs of a weight that have one format. */
struct panels {
    enum weight_format format; /* WEIGHT_BF16 for fp8 */
    size_t first_out, n_out, n_in, group;
    size_t n_panels, panel_bytes;
    uint8_t *data; /* [n_panels][panel_bytes] */
    float *bias;   /* [n_panels * PANEL_OUTPUTS] or NULL */
    float *scale;  /* likewise: of float formats, times the sum over inputs */
};

struct weight {
    size_t n_out, n_in;
    uint32_t n_sections;
    bool is_borrowed; /* what the panels point to belongs to the caller, who only reads it */
    struct panels sections[WEIGHT_SECTIONS_MAX];
};

/* Of panels, without what stands beside them. */
static inline size_t weight_panels_bytes(const struct weight *weight)
{
    size_t bytes = 0;
    for (uint32_t i = 0; i < weight->n_sections; i++)
        bytes += weight->sections[i].n_panels * weight->sections[i].panel_bytes;
    return bytes;
}

struct vector {
    size_t n;
    float *values;
};

struct act {
    size_t max_rows, width;
    size_t stride; /* floats between rows */
    float *values; /* [max_rows][stride] */
    /* The rows as the weight of a linear op takes them, made by the first that wants them so. */
    enum act_form form;         /* ACT_INT8, ACT_BF16 (x_bf16), ACT_WIDE */
    size_t n_quantized;         /* rows [0, n_quantized) are valid */
    struct quant_block *blocks; /* of ACT_INT8, tiles tile_stride blocks apart; NULL when no weight of this
                                   width can want it */
    size_t tile_stride;
    int8_t
        *q; /* of ACT_BF16 and ACT_WIDE: [max_rows][q_stride] bytes; NULL without the arithmetic of tiles */
    float *q_scale; /* [max_rows][q_block_stride] */
    size_t q_stride, q_block_stride;
};

struct rope {
    size_t n_freq, max_positions;
    float *cosines, *sines; /* [max_positions][n_freq] */
};

struct kv {
    struct kv_desc desc;
    size_t block_bytes;
    uint8_t *blocks; /* [n_blocks][n_kv_heads][kv_head_stride] */
};

/* backend_cpu_create of a level that the machine has, with the arithmetic of another one: that of tiles runs
 * on every machine, by the references where the level has no variants. */
err_t cpu_backend_create(int n_threads, enum isa_level highest, enum arithmetic arithmetic,
                         struct backend **out) ERR_MUST_CHECK;

static inline struct cpu_backend *cpu_of(struct backend *backend)
{
    return (struct cpu_backend *)backend;
}

static inline float *act_row(const struct act *act, size_t row)
{
    return act->values + row * act->stride;
}

/* fn on every thread, or on this one alone when the work is too small to share. */
void cpu_run(struct cpu_backend *cpu, bool parallel, thread_pool_fn *fn, void *context);

/* cpu_placement.c. Before pages are touched: each panel's on the node of the thread whose share of the linear
 * op it is; what all threads read, on every node in turn. */
void cpu_place_panels(const struct cpu_backend *cpu, const struct panels *panels);
void cpu_place_shared(const struct cpu_backend *cpu, void *block, size_t size_bytes);

/* cpu_pack.c */
/* Fills a section's panels, whose memory nobody has touched. DATA_LOSS for what the format cannot hold. */
err_t cpu_pack_panels(struct cpu_backend *cpu, const struct weight_desc *desc,
                      const struct weight_section *section, const struct panels *panels) ERR_MUST_CHECK;

/* cpu_weight.c */
size_t cpu_weight_bytes(const struct backend *backend, const struct weight_desc *desc);
err_t cpu_weight_pack(struct backend *backend, const struct weight_desc *desc, struct weight **out);
void cpu_weight_destroy(struct weight *weight);
size_t cpu_packed_bytes(const struct backend *backend, const struct weight_desc *desc);
err_t cpu_weight_export(const struct weight *weight, packed_write_fn *write, void *context);
err_t cpu_weight_import(struct backend *backend, const struct weight_desc *desc, const void *packed,
                        struct weight **out);
/* Row `row` of a packed weight, dequantised, times scale; out: [n_in]. */
void cpu_weight_read_row(const struct weight *weight, size_t row, float scale, float *out);

/* cpu_act.c */
size_t cpu_act_bytes(const struct backend *backend, enum act_role role, size_t max_rows, size_t width);
err_t cpu_act_create(struct backend *backend, enum act_role role, size_t max_rows, size_t width,
                     struct act **out);
void cpu_act_destroy(struct act *act);
void cpu_act_write(struct act *act, size_t first_row, size_t n_rows, const float *values);
void cpu_act_read(const struct act *act, size_t first_row, size_t n_rows, float *values);
size_t cpu_vector_bytes(const struct backend *backend, size_t n);
err_t cpu_vector_create(struct backend *backend, const float *values, size_t n, struct vector **out);
void cpu_vector_destroy(struct vector *vector);

/* cpu_linear.c */
void cpu_linear(struct backend *backend, const struct step *step, enum step_rows rows, struct act *in,
                const struct weight *weight, struct act *out);
void cpu_logits(struct backend *backend, const struct step *step, uint32_t first_output, uint32_t n,
                struct act *hidden, const struct weight *weight, float soft_cap, struct act *logits);

/* cpu_sharers.c */
/* Finds who shares what in a step, for attention up to cpu_sharers_forget. */
void cpu_sharers_find(struct cpu_backend *cpu, const struct step *step);
void cpu_sharers_forget(struct cpu_backend *cpu);
/* Makes teams of at most team_max. Returns the block reads that they spare a KV head. */
uint64_t cpu_sharers_team(struct cpu_sharers *sharers, uint32_t team_max);

/* cpu_tiles.c */
/* How a section of a weight of this backend is multiplied. */
enum act_form cpu_panels_form(const struct cpu_backend *cpu, const struct panels *panels);
/* Where a row's bf16 form stands. */
static inline uint16_t *act_row_bf16(const struct act *act, size_t row)
{
    return (uint16_t *)(void *)(act->q + row * act->q_stride);
}
/* out[r] = weight . in[r] + bias, of the forms ACT_BF16 and ACT_WIDE, in which `in` already is. */
void cpu_tile_linear(struct cpu_backend *cpu, const struct act *in, size_t n_rows,
                     const struct panels *panels, struct act *out);

/* cpu_rows.c */
void cpu_embed(struct backend *backend, const struct step *step, const struct sampler *sampler,
               const struct weight *table, uint32_t first_token, float scale, struct act *out);
void cpu_add_norm(struct backend *backend, const struct step *step, enum step_rows rows, struct act *residual,
                  const struct act *add, const struct vector *add_weight, const struct vector *weight,
                  float eps, struct act *out);
void cpu_activation_mul(struct backend *backend, const struct step *step, enum step_rows rows,
                        const struct act *gate_up, enum activation_kind kind, struct act *out);
void cpu_gather_outputs(struct backend *backend, const struct step *step, uint32_t first_output, uint32_t n,
                        const struct act *in, struct act *out);

/* cpu_kv.c */
size_t cpu_rope_bytes(const struct backend *backend, size_t n_freq, size_t max_positions);
err_t cpu_rope_create(struct backend *backend, const float *inv_freq, size_t n_freq, float magnitude,
                      size_t max_positions, struct rope **out);
void cpu_rope_destroy(struct rope *rope);
size_t cpu_kv_bytes(const struct backend *backend, const struct kv_desc *desc);
err_t cpu_kv_create(struct backend *backend, const struct kv_desc *desc, struct kv **out);
void cpu_kv_destroy(struct kv *kv);
void cpu_rope_kv_write(struct backend *backend, const struct step *step, struct act *qkv,
                       const struct qkv_shape *shape, const struct vector *q_norm,
                       const struct vector *k_norm, float eps, const struct rope *rope, enum rope_kind kind,
                       struct kv *kv);
void cpu_kv_copy(struct backend *backend, const struct step *step, struct kv *kv);

/* cpu_attention.c */
void cpu_attention(struct backend *backend, const struct step *step, const struct act *qkv,
                   const struct attention_params *params, const struct kv *kv, struct act *out);

/* cpu_sampler.c */
size_t cpu_sampler_bytes(const struct backend *backend, uint32_t n_slots, size_t vocab_size,
                         size_t max_history);
err_t cpu_sampler_create(struct backend *backend, uint32_t n_slots, size_t vocab_size, size_t max_history,
                         struct sampler **out);
void cpu_sampler_destroy(struct sampler *sampler);
void cpu_sample(struct backend *backend, struct step *step, uint32_t first_output, uint32_t n,
                struct act *logits, const uint32_t *const *masks, struct sampler *sampler);
void cpu_slot_set(struct sampler *sampler, uint32_t slot, const struct sampler_params *params,
                  const struct sampler_history *history);
/* The last token of the slot's history. */
uint32_t cpu_slot_last_token(const struct sampler *sampler, uint32_t slot);

/* cpu_ranks.c */
err_t cpu_join(struct backend *const *ranks, uint32_t n_ranks);
void cpu_leave(struct cpu_backend *cpu);
uint32_t cpu_rank_count(const struct cpu_backend *cpu);
void cpu_all_reduce(struct backend *backend, const struct step *step, enum step_rows rows, struct act *act);
void cpu_all_gather(struct backend *backend, const struct step *step, uint32_t first_output, uint32_t n,
                    struct act *part, struct act *whole);
